"""The reactions of a listener: each signal by hand, what is not observed, and the way into training."""

import math

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tiny import backbone, talk
from toy import toy_sessions

from geli_hf import GeliRewardModel, SessionError, validate_sessions
from geli_hf.affect import NextTurnSentiment, add_reactions, event_values, reactions, reactions_of
from geli_hf.affect.reactions import EVENTS, REACTIONS
from geli_hf.data.parts import DataSettings, load_parts
from geli_hf.sessions import add_signal, feedback_names, session_features
from geli_hf.settings import SettingsError, build
from geli_hf.training import fit_hindsight

NAN = math.nan


def row(*texts: str, first: str = "assistant", **columns) -> dict:
    roles = ["assistant", "user"] if first == "assistant" else ["user", "assistant"]
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)], **columns}


def answered(signal: str, text: str) -> float:
    """The value of one turn with that answer."""
    [value] = REACTIONS[signal](row("Did you know?", text))
    return value


def same(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-12)  # NaN in the same places


# ------------------------------------------------------------------------------------------------------------ words

LAUGHS = [
    "Haha, no way",
    "hahahah",
    "AHAHAHA",
    "hehe ok",
    "lol",
    "LOLLL that's me",
    "lmao",
    "lmfao!",
    "so good😂😂",
    "XD",
]
SERIOUS = ["I have a Chihuahua.", "Aloha from Hawaii", "aha, I see", "That hat has holes", "a lollipop", "hey", "Ohio"]
GRATEFUL = ["Thank you!", "thx", "ty!", "THANKS A LOT", "thankyou so much", "Thansk", "Great question!", "well said"]
GRATEFUL += ["that\u2019s really cool", "That sounds great", "you're so kind", "u r awesome", "ｔｈａｎｋｓ"]
UNGRATEFUL = [
    "No thanks",
    "Thanksgiving is soon",
    "thank god it's Friday",
    "That is not a good answer",
    "a great dane",
]
UNGRATEFUL += ["this isn't a good idea", "It was thankless", "a pretty type", "I was well"]
COMPLAINTS = ["No, I meant Tuesday", "That's not right.", "it doesn't work", "you already asked me that", "WTF"]
COMPLAINTS += [
    "that isn\u2019t true",
    "not what I asked for",
    "this is so annoying",
    "you don't understand",
    "u r rude",
]
COMPLAINTS += ["I just told you", "That makes no sense", "stop repeating yourself"]
CONTENT = ["That's right", "it works", "You asked me", "I meant it", "no, I do not like cake", "what are you up to"]
QUESTIONS = ["Really?", "why ?", "what about you", "hbu", "and you？", "how are you", "هل أنت؟"]
STATEMENTS = ["Really.", "see https://example.org/search?q=dogs", "I know what you did", "That is how you do it"]
GOODBYES = [
    "Bye!",
    "goodbye",
    "see you later",
    "ttyl",
    "I've got to go.",
    "gotta run",
    "have a nice day!",
    "good night",
]
GOODBYES += ["take care", "It was nice chatting with you"]
STAYING = ["I have to go to work every day", "I see you like dogs", "bypass", "did you have a good weekend"]
STAYING += ["I take care of my sister", "it was a good night", "good night's sleep"]


@pytest.mark.parametrize(
    ("signal", "value", "texts", "others"),
    [
        ("laughter", 1, LAUGHS, SERIOUS),
        ("thanks", 1, GRATEFUL, UNGRATEFUL),
        ("complaint", -1, COMPLAINTS, CONTENT),
        ("question", 1, QUESTIONS, STATEMENTS),
        ("leaving", -1, GOODBYES, STAYING),
    ],
)
def test_words_of_an_answer(signal, value, texts, others):
    assert {text: answered(signal, text) for text in texts} == dict.fromkeys(texts, value)
    assert {text: answered(signal, text) for text in others} == dict.fromkeys(others, 0)


def test_each_turn_has_the_answer_that_follows_it():
    session = row("lol", "thanks, haha", "Right.", "Mm.", "Bye?", first="user")
    # Turns "thanks, haha" and "Mm.", answered by "Right." and "Bye?"; what a turn says itself does not count.
    assert reactions_of(session, ["laughter", "thanks", "question", "leaving"]) == {
        "laughter": [0, 0],
        "thanks": [0, 0],
        "question": [0, 1],
        "leaving": [0, -1],
    }


@pytest.mark.parametrize("signal", [name for name in REACTIONS if name != "leaving"])
def test_nothing_is_observed_where_nobody_answers(signal):
    times = {"start": [0.0, 5.0, 9.0], "stop": [2.0, 7.0, 12.0]}
    values = REACTIONS[signal](row("My dog ran away.", "Where to did it run?", "Ask it.", **times))
    assert len(values) == 2
    assert math.isnan(values[1])
    same(REACTIONS[signal](row("Hello.")), [NAN])


def test_who_does_not_answer_has_left():
    assert REACTIONS["leaving"](row("Hello.", "Hi.", "Your dog is silly.")) == [0, -1]
    assert REACTIONS["leaving"](row("Hello.", "Hi.", "How is it?", "Fine.")) == [0, 0]
    assert REACTIONS["leaving"](row("Hello.", "bye!", "Wait!", "ok")) == [-1, 0]


def test_the_delay_is_from_the_end_of_the_turn_to_the_answer():
    session = row(*"abcdefgh", start=[0, 12, 20, 29, 40, 41, 50, 50.5], stop=[4, 15, 22, 30, 45, 43, 50.0, 60])
    # 8 s, 7 s, an answer into the turn, and half a second: those count as one second
    same(REACTIONS["reply_delay"](session), [-math.log(8), -math.log(7), 0, 0])
    fast, slow = (REACTIONS["reply_delay"](row("a", "b", start=[0, t], stop=[0, t]))[0] for t in (3, 300))
    assert fast > slow


def test_a_delay_needs_both_times():
    same(REACTIONS["reply_delay"](row(*"abcd")), [NAN, NAN])
    same(REACTIONS["reply_delay"](row(*"abcd", start=None, stop=None)), [NAN, NAN])
    start, stop = [0, None, 20, 23, 30, NAN], [1, 10, 20, 24, 30, 40]
    same(REACTIONS["reply_delay"](row(*"abcdef", start=start, stop=stop)), [NAN, -math.log(3), NAN])


def test_the_length_is_compared_with_the_listeners_other_answers():
    session = row("long ago, before all answers", "a", "one", "b", "one two three four", "c", "...", "d", first="user")
    same(REACTIONS["answer_length"](session), [-math.log(4) / 3, 2 * math.log(4) / 3, -math.log(4) / 3, NAN])
    same(REACTIONS["answer_length"](row("a", "just one answer")), [0])


def test_asking_again_is_the_overlap_with_the_message_before():
    session = row(
        "Is the pool open today?",
        "No.",
        "is the POOL open on Monday",
        "No.",
        "Which dogs swim there?",
        "B",
        first="user",
    )
    same(REACTIONS["asked_again"](session), [-4 / 7, 0, NAN])  # is the pool open; today, on, Monday
    assert REACTIONS["asked_again"](row("yes yes", "A.", "yes", first="user")) == [0]  # said twice, and not asked
    assert REACTIONS["asked_again"](row("where is it", "A.", "Where is it???", first="user")) == [-1]
    same(REACTIONS["asked_again"](row("A.", "where is it now")), [NAN])  # nothing said before
    assert REACTIONS["asked_again"](row("😂", "A.", "...", first="user")) == [0]


def test_sentiment_is_that_of_the_next_turn():
    session = row("a", "What a lovely day!", "b", "Terrible.", "c")
    same(REACTIONS["sentiment"](session), NextTurnSentiment()(session["messages"]))


TEXT = st.text(st.characters(), min_size=1, max_size=40) | st.sampled_from(LAUGHS + GRATEFUL + COMPLAINTS + GOODBYES)
NUMBER = st.none() | st.floats(-1e9, 1e9) | st.just(NAN)


@given(st.data())
def test_every_turn_has_a_finite_value_or_none(data):
    texts = data.draw(st.lists(TEXT, min_size=2, max_size=7))
    times = {name: data.draw(st.lists(NUMBER, min_size=len(texts), max_size=len(texts))) for name in ("start", "stop")}
    session = row(*texts, first=data.draw(st.sampled_from(["assistant", "user"])), **times)
    turns = [message["role"] for message in session["messages"]].count("assistant")
    values = reactions_of(session)
    assert list(values) == list(REACTIONS)
    for name, found in values.items():
        assert len(found) == turns
        assert all(isinstance(value, float) and not math.isinf(value) for value in found)
        if name not in ("reply_delay", "answer_length"):
            assert all(math.isnan(value) or -1 <= value <= 1 for value in found)
    known = [value for value in values["answer_length"] if not math.isnan(value)]
    assert sum(known) == pytest.approx(0, abs=1e-9)


def test_broken_unicode_and_long_messages_do_no_harm():
    for text in (
        "\ud83d haha",
        "\x00",
        "e\u0301" * 5000,
        "ha" * 20000 + "x",
        "a" * 20000,
        "thank " * 5000,
        "\u202ethx",
    ):
        for found in reactions_of(row("a", text, "b")).values():
            assert len(found) == 2
    assert answered("laughter", "\ud83d haha") == 1


# ----------------------------------------------------------------------------------------------------------- events

ALL = ("thumbs", "regenerated", "edited", "copied")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], (0, 0, 0, 0)),
        (["thumbs_up"], (1, 0, 0, 0)),
        (["thumbs_down"], (-1, 0, 0, 0)),
        (["thumbs_up", "copied", "thumbs_down"], (-1, 0, 0, 1)),  # the last thumb stays
        (["regenerated", "regenerated", "edited"], (0, -1, -1, 0)),
    ],
)
def test_events_of_a_turn(events, expected):
    assert event_values(events, ALL) == dict(zip(ALL, expected))


def test_what_a_log_does_not_record_is_missing_and_not_0():
    values = event_values(["copied"], ["thumbs", "copied"])
    assert (values["thumbs"], values["copied"]) == (0, 1)
    assert math.isnan(values["regenerated"])
    assert math.isnan(values["edited"])
    assert all(math.isnan(value) for value in event_values([], []).values())


@pytest.mark.parametrize(
    ("events", "recorded", "named"),
    [(["liked"], ALL, "'liked'"), (["copied"], ["thumbs"], "'copied'"), ([], ["thumbs", "stars"], "stars")],
)
def test_unknown_events_are_named(events, recorded, named):
    with pytest.raises(ValueError, match=named):
        event_values(events, recorded)


def test_events_become_signals_of_a_session():
    log = [["thumbs_up"], []]
    values = [event_values(events, ["thumbs"]) for events in log]
    sessions = add_signal(Dataset.from_list([session("s", talk(5))]), "thumbs", [[each["thumbs"] for each in values]])
    assert sessions[0]["feedback"]["thumbs"] == [1, 0]
    assert {kind for kind, _ in EVENTS.values()} == set(ALL)


# --------------------------------------------------------------------------------------------------------- data sets


def session(name: str, messages: list, **columns) -> dict:
    return {"session_id": name, "conversation_id": name, "messages": messages, "score": 1.0, **columns}


def dataset(*, times: bool = False, feedback: bool = False) -> Dataset:
    rows = []
    for index in range(4):
        messages = talk(5 + index, seed=index)
        columns = {"rater_id": ""}
        if times:
            columns["start"] = columns["stop"] = [3.0 * each for each in range(len(messages))]
        if feedback:
            columns["feedback"] = {"smile": [0.5] * ((5 + index) // 2)}
        rows.append(session(f"s{index}", messages, **columns))
    return Dataset.from_list(rows, features=session_features(["smile"] if feedback else [], times=times))


@pytest.mark.parametrize("times", [False, True])
def test_all_signals_that_rows_can_carry_are_added(times):
    sessions = add_reactions(dataset(times=times))
    assert feedback_names(sessions) == [name for name in REACTIONS if times or name != "reply_delay"]
    validate_sessions(sessions)
    for found, plain in zip(sessions, dataset(times=times)):
        for name, values in reactions_of(plain).items():
            if name in found["feedback"]:
                np.testing.assert_allclose(found["feedback"][name], values, rtol=1e-6)
        assert {column: found[column] for column in plain} == plain


def test_other_signals_stay_and_once_more_adds_nothing():
    once = add_reactions(dataset(feedback=True), ["laughter", "question"])
    assert feedback_names(once) == ["smile", "laughter", "question"]
    assert once["feedback"][0]["smile"] == [0.5, 0.5]
    rest = add_reactions(once)
    assert set(feedback_names(rest)) == {"smile", *REACTIONS} - {"reply_delay"}
    assert rest["feedback"][0]["laughter"] == once["feedback"][0]["laughter"]
    assert add_reactions(rest) is rest
    assert add_reactions(rest, []) is rest


def test_what_cannot_be_added_is_named():
    once = add_reactions(dataset(), "laughter")
    assert feedback_names(once) == ["laughter"]
    with pytest.raises(SessionError, match="'laughter'"):
        add_reactions(once, ["question", "laughter"])
    with pytest.raises(SessionError, match="'start'"):
        add_reactions(once, ["reply_delay"])
    for unknown in (["smirk"], "thumbs"):
        with pytest.raises(ValueError, match=r"'(smirk|thumbs)'"):
            add_reactions(once, unknown)
        with pytest.raises(ValueError, match=r"'(smirk|thumbs)'"):
            reactions_of(row("a"), unknown)


def test_sentiment_needs_its_package_only_if_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "vaderSentiment.vaderSentiment", None)
    reactions._vader.cache_clear()
    assert "sentiment" not in feedback_names(add_reactions(dataset()))
    assert "sentiment" not in reactions_of(row("a", "b"))
    with pytest.raises(ImportError, match="vaderSentiment"):
        reactions_of(row("a", "b"), ["sentiment"])
    reactions._vader.cache_clear()


def test_a_data_set_is_cached_by_the_names_and_the_version(monkeypatch):
    first, again, other = (add_reactions(dataset(), names) for names in ("laughter", "laughter", "question"))
    assert first._fingerprint == again._fingerprint != other._fingerprint
    monkeypatch.setattr(reactions, "VERSION", reactions.VERSION + 1)
    assert add_reactions(dataset(), "laughter")._fingerprint != first._fingerprint


# ---------------------------------------------------------------------------------------------------------- training


def test_settings_take_true_a_name_or_names():
    for value in (True, False, "laughter", ["laughter", "question"]):
        assert build(DataSettings, {"reactions": value}).reactions == value
    assert build(DataSettings, {}).reactions is False
    with pytest.raises(SettingsError, match="reactions"):
        build(DataSettings, {"reactions": {"laughter": True}})


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """A file of sessions without signals."""
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    rows = [session(f"s{index}", talk(6, seed=index), rater_id="") for index in range(20)]
    Dataset.from_list(rows).to_json(tmp_path / "mine.jsonl")
    return str(tmp_path / "mine.jsonl")


def test_parts_of_a_run_carry_the_reactions(mine):
    parts = load_parts(DataSettings(corpus=mine, reactions=["question", "leaving"]))
    assert [feedback_names(parts[name]) for name in ("train", "eval", "test")] == [["question", "leaving"]] * 3
    parts = load_parts(DataSettings(corpus=mine, test_options={}, reactions=True))
    assert feedback_names(parts["train"]) == feedback_names(parts["test"]) == list(REACTIONS)[1:]
    assert feedback_names(load_parts(DataSettings(corpus=mine))["train"]) == []
    with pytest.raises(ValueError, match="'smirk'"):
        load_parts(DataSettings(corpus=mine, reactions="smirk"))


def test_hindsight_learns_from_reactions_that_hardly_ever_happen(tmp_path):
    """Never, always, once, and centred in each session: no slope may come of rounding or of one turn."""
    sessions = add_reactions(toy_sessions(60, seed=1))
    turns = [len(row["affect"]) for row in sessions["feedback"]]
    draw = np.random.default_rng(0)
    gaps = [[0.1 if draw.random() < 0.7 else NAN for _ in range(count)] for count in turns]
    centred = [(values - values.mean()).tolist() for values in (draw.normal(size=count) for count in turns)]
    once = [[1.0 if index == 7 and turn == 0 else 0.0 for turn in range(count)] for index, count in enumerate(turns)]
    seen_once = [
        [1.0 if index == 7 and turn == 0 else NAN for turn in range(count)] for index, count in enumerate(turns)
    ]
    for name, values in {"gaps": gaps, "centred": centred, "once": once, "seen_once": seen_once}.items():
        sessions = add_signal(sessions, name, values)
    fit = fit_hindsight(GeliRewardModel.from_backbone(backbone("bert")), sessions, cache_dir=tmp_path)
    trust = fit.report.signals
    constant = ("gaps", "centred", "seen_once", "laughter", "thanks", "complaint", "answer_length")
    assert {name: (trust[name].t, trust[name].beta) for name in constant} == dict.fromkeys(constant, (0, 0))
    assert all(math.isfinite(each.beta) and math.isfinite(each.foreseen_beta) for each in trust.values())
    assert max(np.abs(values).max() for values in fit.targets) < 10  # deviations of a score
    scored = fit.attribution.score_sessions(sessions)
    assert max(np.abs(row["turn_rewards"]).max() for row in scored) < 10
