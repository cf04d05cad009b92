"""The oracle: the value of a reply depends on its act and on the messages before it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.frames import FAMILIES, Act
from geli_hf.simulator.grammar import cores_of, leads, parse, render, tails
from geli_hf.simulator.oracle import VALUES
from geli_hf.simulator.people import converse, draw_traits

LEAST = min(VALUES.values())
SICK_DOG = "Well, my dog got very ill and could hardly stand yesterday."
CLEVER_DOG = "Well, my dog learned to come when called yesterday."


def value_of(*texts: str):
    """Value the last text; the speakers take turns."""
    roles = ("assistant", "user") if len(texts) % 2 else ("user", "assistant")
    return true_turn_value([{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)])


def _conversations(seed: int, count: int):
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        yield converse([draw_traits(rng), draw_traits(rng)], rng)


CONVERSATIONS = list(_conversations(11, 60))
UTTERANCES = [message.text for conversation in CONVERSATIONS for message in conversation]


@pytest.mark.parametrize(
    ("reply", "good_place", "bad_place"),
    [
        ("How is your dog now? I'd love to know.", [SICK_DOG], ["Well, my knee gave way on the hill."]),
        ("I'm so sorry to hear that.", [SICK_DOG], [CLEVER_DOG]),
        ("I'm so glad to hear that.", [CLEVER_DOG], [SICK_DOG]),
        ("I'm so sorry about your dog.", [SICK_DOG], ["My puppy ran away and got lost."]),
        ("Well, my pool changed its opening times.", ["How has your week been?"], [SICK_DOG]),
        (
            "My dog is much the same as before.",
            [SICK_DOG, "How is your dog now?"],
            [SICK_DOG, "What will you do about your dog now?"],
        ),
        (
            "You ought to give your dog a bit more time.",
            [SICK_DOG, "I see.", "What would you do about my dog if you were me?"],
            [SICK_DOG],
        ),
        ("Thank you for saying that.", [SICK_DOG, "That must be really hard for you."], [SICK_DOG]),
        ("I see.", ["I washed my car in the yard."], [SICK_DOG]),
        ("How has your week been?", [], [SICK_DOG]),
        (
            "How is your dog now?",
            ["How has your week been?", SICK_DOG],
            ["How has your week been?", "I washed my car in the yard."],
        ),
    ],
)
def test_a_reply_has_a_lower_value_in_the_wrong_place(reply, good_place, bad_place):
    good, bad = value_of(*good_place, reply), value_of(*bad_place, reply)
    assert good.recognised
    assert bad.recognised
    assert good.value > bad.value


def test_a_second_question_in_a_row_costs():
    after_question = value_of(
        SICK_DOG, "How is your dog now?", "My dog is much the same as before.", "How do you feel about your dog now?"
    )
    after_sharing = value_of(
        SICK_DOG,
        "I bought a red collar for my puppy.",
        "My dog is much the same as before.",
        "How do you feel about your dog now?",
    )
    assert after_question.act == after_sharing.act == "follow_up"
    assert after_question.value == pytest.approx(after_sharing.value - 0.3)


def test_questions_about_the_last_message_an_earlier_one_and_none():
    between = ["I see.", "I washed my car in the yard."]
    now = value_of(SICK_DOG, "How is your dog now?")
    earlier = value_of(SICK_DOG, *between, "How is your dog now?")
    never = value_of("I took some notes at my first meeting.", *between, "How is your dog now?")
    assert [now.act, earlier.act, never.act] == ["follow_up", "follow_up_on_earlier", "question_out_of_nowhere"]
    assert now.value > earlier.value > never.value


def test_a_greeting_after_the_first_message_costs():
    story = "I washed my car in the yard."
    early = value_of("How has your week been?", f"Hello, {story}")
    late = value_of("I see.", "I see.", "How has your week been?", f"Hello, {story}")
    assert early.act == late.act == "answer"
    assert late.value == pytest.approx(early.value - 0.3)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("How are your tomatoes now?", "How is your tomatoes now?"),
        ("How is your dog now?", "How are your dog now?"),
        ("My roses are better than ever now.", "My roses is better than ever now."),
        ("My roses have been on my mind for a month.", "My roses has been on my mind for a month."),
        ("Is everything all right with your roses now?", "Are everything all right with your roses now?"),
    ],
)
def test_verbs_agree_with_their_subjects(right, wrong):
    assert parse(right) is not None
    assert parse(wrong) is None


def test_an_ignored_question_costs():
    assert value_of("How has your week been?", "Right, I see.").act == "ignored_question"
    assert value_of("How has your week been?", "How has your month been?").value < 0


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(CONVERSATIONS), st.data())
def test_a_core_with_another_lead_and_tail_is_a_repetition(conversation, data):
    last = data.draw(st.integers(2, len(conversation) - 1))
    earlier = data.draw(st.sampled_from(range(last % 2, last, 2)))
    core = parse(conversation[earlier].text)
    lead, tail = data.draw(st.sampled_from(leads(core.act))), data.draw(st.sampled_from(tails(core.act, core.valence)))
    again = value_of(*(message.text for message in conversation[:last]), render(lead, core.core, tail))
    assert again.act == "repetition"
    assert again.value <= -0.8


def test_echoing_the_partner_is_a_repetition():
    assert value_of(SICK_DOG, SICK_DOG).act == "repetition"


@given(st.sampled_from(UTTERANCES), st.sampled_from(UTTERANCES))
def test_two_utterances_in_one_are_not_recognised(first, second):
    assert value_of(SICK_DOG, f"{first} {second}") == (LEAST, False, "unrecognised")


@given(st.sampled_from(UTTERANCES), st.sampled_from(UTTERANCES), st.data())
def test_halves_of_two_utterances_have_the_least_value_unless_the_grammar_derives_them(first, second, data):
    first, second = first.split(), second.split()
    head = first[: data.draw(st.integers(1, len(first)))]
    tail = second[data.draw(st.integers(0, len(second) - 1)) :]
    spliced = " ".join(head + tail)
    value = value_of(SICK_DOG, spliced)
    parsed = parse(spliced)
    if parsed is None:
        assert value == (LEAST, False, "unrecognised")
    else:
        assert value == value_of(SICK_DOG, render("", parsed.core, "."))


def test_random_splices_have_a_low_mean_value():
    rng = np.random.default_rng(0)
    values = []
    for _ in range(1000):
        conversation = CONVERSATIONS[rng.integers(len(CONVERSATIONS))]
        first, second = (UTTERANCES[index].split() for index in rng.integers(len(UTTERANCES), size=2))
        spliced = first[: rng.integers(1, len(first))] + second[rng.integers(1, len(second)) :]
        values.append(value_of(*(message.text for message in conversation[:6]), " ".join(spliced)))
    assert np.mean([value.recognised for value in values]) < 0.03
    assert np.mean([value.value for value in values]) < -0.95


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "How is your",
        "How is your dog now now?",
        "I see. How is your dog now?",
        "my dog got very ill and could hardly stand yesterday, and I'm so happy.",
        "Wie geht es deinem Hund?",
        "How is your dog now? 😀",
        "How is your dog now? User: fine",
    ],
)
def test_other_texts_have_the_least_value(text):
    assert value_of(SICK_DOG, text) == (LEAST, False, "unrecognised")


@pytest.mark.parametrize(
    "text", ["i'm so sorry to hear that", "I’M SO  SORRY\nTO HEAR THAT ?!", " I'm, so sorry to hear that "]
)
def test_case_spaces_and_punctuation_do_not_matter(text):
    assert value_of(SICK_DOG, text).act == "fitting_empathy"


@given(st.lists(st.text(max_size=40), max_size=5), st.text(max_size=40))
def test_any_text_has_a_value(context, reply):
    value = value_of(*context, reply)
    assert -1 <= value.value <= 1
    assert value.act in VALUES


def test_a_question_about_a_detail_of_free_text_is_a_follow_up():
    assert value_of("So my dog, bless him, ate a shoe", "How is your dog now?").act == "follow_up"
    assert value_of("So my cat, bless her, ate a shoe", "How is your dog now?").act == "question_out_of_nowhere"


def test_a_last_message_of_the_user_has_no_value():
    with pytest.raises(ValueError, match="last message must be the assistant's, found one of the 'user'"):
        true_turn_value([{"role": "user", "content": "Hello"}])
    with pytest.raises(ValueError, match="found no message"):
        true_turn_value([])


def test_rendered_cores_are_parsed_as_themselves():
    rng = np.random.default_rng(0)
    for act in FAMILIES:
        cores = cores_of(act)
        assert cores
        for index in rng.permutation(len(cores))[:200]:
            core = cores[index]
            lead, tail = rng.choice(leads(act)), rng.choice(tails(act, core.valence))
            assert parse(render(lead, core.core, tail)) == core


def test_no_lead_or_tail_is_an_utterance():
    acts = {text for act in FAMILIES for text in (*leads(act), *tails(act, "good"))}
    assert cores_of(Act.ACKNOWLEDGEMENT)
    assert [text for text in acts if parse(text)] == []
