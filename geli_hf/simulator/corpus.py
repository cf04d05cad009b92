"""The project's own rated corpus: simulated small talk in CANDOR's layout on disk, with the true value of every turn.

`write_sample` writes it, any CANDOR reader reads it, and `true_turn_value` values any reply in its context. Each
conversation folder also holds `turn_ratings.csv` (turn_id, rating), the project's documented extension of the layout.

What the people say and what it is worth: `sample_text`, `sample_grammar`, `sample_oracle`, `sample_people`. This
module adds what is observed of them: the clock, the listener's face and the rating of the session.

Measured with 400 conversations, seeds 0 to 4 (a session is one perspective; Spearman is within sessions, averaged over
those where both sides vary, and `tests/data/test_sample_figures.py` holds seed 0 to these bands):

    messages a conversation 15.9, turns a side 8.0, words a turn 14.5 (5 to 95 %: 9 to 20), vocabulary 895 words
    true value: mean .06, deviation .53; within sessions .47, of session means .20; above 0 in 60 % of the turns
    Spearman with the true value: 0/1 face .207 to .270 (mean .236), length .005 to .045, position -.040 to .007
    happiness 22 to 28 % of the utterances; no face seen in 8 % of the seconds, all through 1.4 % of the utterances
    overall_affect: mean 6.4, deviation 1.45 to 1.54; correlation with the session's mean true value .63 to .71 (.68)
    utterances of one seed's corpus that stand word for word in another's: 8 %; distinct within a corpus: 92 %
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from ..affect.turns import affect_of_turns
from .oracle import TurnValue, true_turn_value
from .people import Message, converse, draw_traits

__all__ = ["Person", "TurnValue", "listener_affect", "true_turn_value", "write_sample"]

# ---------------------------------------------------------------------------------------------------------------------
# What is observed, fixed before any training.

# The clock. CANDOR has 7 M words in 850 h: 2.3 words a second with the pauses.
WORDS_PER_SECOND = 2.5  # while talking
PAUSE = (0.2, 1.0)  # seconds between turns, uniform

# The listener's face. Target: within-session Spearman of the 0/1 signal of CANDOR's rule with the true value .20 to
# .28. The upper end is what the best dense signal measured on real corpora reaches: the sentiment of the next user
# turn has .279 [.258, .302] with the human turn ratings of USS (MultiWOZ). A face that says more than that would
# flatter every method that uses it. Target prevalence of happiness: 15 to 30 % of the utterances.
DELAY = (1.0, 2.0)  # seconds from the start of a turn until the face answers it
LINGER = (1.0, 2.5)  # seconds that the face still answers it after its end
SMILE_LEVEL = -2.0  # log odds of a smile over no smile at a turn of no worth
SMILE_LEVEL_SD = 1.0  # between people
EXPRESSIVENESS = (0.0, 3.3)  # log odds per unit of value, uniform between people: some faces show nothing
TURN_NOISE = 1.6  # moods and thoughts that last for a turn
SECOND_NOISE = 0.9
POLITE_SMILES = 0.06  # share of turns that are met with a smile whatever they are worth
UNSEEN = 0.08  # share of seconds without a visible face, in spells
UNSEEN_SPELL = 3.0  # mean length of a spell in seconds

# The survey: score = level of the rater + sum of the partner's true values (standardised) + noise, rounded, in 1..9.
# Its deviation is about 1.5: the variance of CANDOR's overall_affect is 200 to 245 at ten times the scale. Its
# correlation with the truth is .65 to .70: the reliability of real session labels is .43 to .55, and the root of that
# is .66 to .74.
SCORE_MEAN, SCORE_PER_SD = 6.4, 1.06
VALUE_SUM = (0.5, 1.6)  # mean and deviation of the sum of a speaker's true values over this corpus
RATER_LEVEL_SD = 0.75  # a person's habit of rating; a person takes part in two conversations on average
SCORE_NOISE_SD = 0.75

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SURVEY_COLUMNS = "user_id,partner_id,convo_id,date,overall_affect,how_enjoyable,i_like_you,conversationalist"
TRANSCRIPT_COLUMNS = "turn_id,speaker,start,stop,utterance,interval,delta,questions,end_question,overlap,n_words"
FACE_COLUMNS = "timedelta,user_id," + ",".join(f"prob_face_{emotion}" for emotion in EMOTIONS) + ",gaze"


def write_sample(folder: str | Path, *, conversations: int = 400, seed: int = 0) -> Path:
    """Write the sample corpus, one folder per conversation.

    The bytes written depend on `conversations` and `seed` only.

    Args:
        folder: where the conversation folders go; made if absent.
        conversations: how many; each gives two sessions, one per perspective, of about 8 turns a side.
        seed: two seeds share no conversation.

    Returns:
        `folder`.

    Raises:
        FileExistsError: if `folder` holds anything else, since a reader would take it for a part of the corpus.
    """
    if conversations < 1:
        raise ValueError(f"conversations: expected at least 1, found {conversations}")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, found {seed}")
    folder = Path(folder)
    names = [_identifier(np.random.default_rng([seed, 2, conversations, index])) for index in range(conversations)]
    others = {path.name for path in folder.iterdir()} - set(names) if folder.exists() else set()
    if others:
        raise FileExistsError(
            f"{folder}: holds {len(others)} entries that are not of this corpus, such as {min(others)!r}; "
            "write the sample to an empty folder"
        )
    people = [Person(np.random.default_rng([seed, 0, index])) for index in range(conversations + 1)]
    for index in range(conversations):
        rng = np.random.default_rng([seed, 1, index])
        first, second = rng.choice(len(people), size=2, replace=False)
        _write_conversation(folder / names[index], index, (people[first], people[second]), rng)
    return folder


class Person:
    """Somebody who talks, listens and rates: how they talk, how they rate, and how much their face shows."""

    def __init__(self, rng: np.random.Generator):
        self.id = _identifier(rng)
        self.traits = draw_traits(rng)
        self.rating_level = RATER_LEVEL_SD * rng.standard_normal()
        self.smile_level = SMILE_LEVEL + SMILE_LEVEL_SD * rng.standard_normal()
        self.expressiveness = rng.uniform(*EXPRESSIVENESS)


def _write_conversation(home: Path, index: int, pair: Sequence[Person], rng: np.random.Generator) -> None:
    identifier = home.name
    messages = converse([person.traits for person in pair], rng)
    start, stop = _clock([len(message.text.split()) for message in messages], rng)
    day = (date(2020, 1, 6) + timedelta(days=index % 300)).isoformat()
    (home / "transcription").mkdir(parents=True, exist_ok=True)

    survey = [_survey_row(identifier, day, messages, pair, rater, rng) for rater in (0, 1)]
    faces = [
        line
        for rater in (0, 1)
        for line in _face_rows(
            pair[rater], np.array([m.speaker != rater for m in messages]), messages, start, stop, rng
        )
    ]
    metadata = {"convo_id": identifier, "participants": [person.id for person in pair], "seconds": float(stop[-1])}
    _write(home / "survey.csv", SURVEY_COLUMNS, survey)
    _write(
        home / "transcription" / "transcript_cliffhanger.csv",
        TRANSCRIPT_COLUMNS,
        _transcript(messages, pair, start, stop),
    )
    _write(home / "audio_video_features.csv", FACE_COLUMNS, faces)
    _write(home / "turn_ratings.csv", "turn_id,rating", [f"{turn},{m.value!r}" for turn, m in enumerate(messages)])
    (home / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8", newline="\n")


def _write(path: Path, header: str, rows: Sequence[str]) -> None:
    path.write_text("\n".join((header, *rows, "")), encoding="utf-8", newline="\n")


def _identifier(rng: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _clock(words: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of every message in seconds, to a hundredth, from the number of its words."""
    words = np.array(words)
    spoken = words / WORDS_PER_SECOND * rng.uniform(0.85, 1.15, len(words))
    pauses = rng.uniform(*PAUSE, len(words))
    start = np.round(np.cumsum(pauses) + np.concatenate([[0.0], np.cumsum(spoken)[:-1]]), 2)
    return start, np.round(start + spoken, 2)


def _transcript(messages: Sequence[Message], pair: Sequence[Person], start: np.ndarray, stop: np.ndarray) -> list[str]:
    rows = []
    for turn, (message, begin, end) in enumerate(zip(messages, start.tolist(), stop.tolist())):
        interval = f"{begin - stop[turn - 1]:.2f}" if turn else ""
        questions = message.text.count("?")
        rows.append(
            f'{turn},{pair[message.speaker].id},{begin:.2f},{end:.2f},"{message.text}",{interval},{end - begin:.2f},'
            f"{questions},{message.text.endswith('?')},False,{len(message.text.split())}"
        )
    return rows


def _survey_row(
    conversation: str,
    day: str,
    messages: Sequence[Message],
    pair: Sequence[Person],
    rater: int,
    rng: np.random.Generator,
) -> str:
    heard = [message.value for message in messages if message.speaker != rater]
    felt = _felt(pair[rater], heard) + SCORE_NOISE_SD * rng.standard_normal(4)
    affect, enjoyable, liking = np.clip(np.rint(felt[:3]), 1, 9).astype(int)
    conversationalist = int(np.clip(np.rint(felt[3] * 10), 0, 100))
    who = f"{pair[rater].id},{pair[1 - rater].id},{conversation},{day}"
    return f"{who},{affect},{enjoyable},{liking},{conversationalist}"


def overall_affect(person: Person, values: Sequence[float], rng: np.random.Generator) -> int:
    """What the person says at the end, 1 to 9, of how they felt; `values` are those of the turns they heard."""
    felt = _felt(person, values) + SCORE_NOISE_SD * rng.standard_normal()
    return int(np.clip(np.rint(felt), 1, 9))


def _felt(person: Person, values: Sequence[float]) -> float:
    mean, deviation = VALUE_SUM
    return SCORE_MEAN + SCORE_PER_SD * (sum(values) - mean) / deviation + person.rating_level


def _face_rows(
    person: Person,
    listens: np.ndarray,
    messages: Sequence[Message],
    start: np.ndarray,
    stop: np.ndarray,
    rng: np.random.Generator,
) -> list[str]:
    """The face of one person in every second of the conversation, as lines of a file. Arguments as of `_face`."""
    values = np.array([message.value for message in messages])
    seconds, columns, unseen = _face(person, listens, values, start, stop, rng)
    row = "0 days %02d:%02d:%02d," + person.id + "," + ",".join(["%.3f"] * columns.shape[1])
    blank = "0 days %02d:%02d:%02d," + person.id + "," * columns.shape[1]
    return [
        (blank % _hms(second)) if hidden else row % (*_hms(second), *numbers)
        for second, numbers, hidden in zip(seconds.tolist(), columns.tolist(), unseen.tolist())
    ]


def _face(
    person: Person,
    listens: np.ndarray,
    values: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The face of one person in every second of the conversation.

    Args:
        listens: (messages,), bool, where the person hears the message rather than says it.
        values: (messages,), what each message is worth.
        start, stop: (messages,), seconds.

    Returns:
        Seconds (n,), probabilities of `EMOTIONS` and then gaze (n, 9), and where no face is seen (n,), bool.
    """
    seconds = np.arange(1, int(np.ceil(stop[-1])) + 1)
    odds = person.smile_level + SECOND_NOISE * rng.standard_normal(len(seconds))
    moods = TURN_NOISE * rng.standard_normal(len(values))
    polite = rng.random(len(values)) < POLITE_SMILES
    answered = start + rng.uniform(*DELAY, len(values))
    forgotten = stop + rng.uniform(*LINGER, len(values))
    for turn in np.flatnonzero(listens):
        while_answering = (seconds >= answered[turn]) & (seconds < forgotten[turn])
        answer = person.expressiveness * values[turn] + moods[turn] + (6.0 if polite[turn] else 0.0)
        odds[while_answering] += answer

    happiness = 1 / (1 + np.exp(-odds))
    rest = rng.dirichlet(
        (0.3, 0.2, 0.2, 0.2, 8.0, 0.5, 0.6), len(seconds)
    )  # anger .. fear, neutral, sadness, surprise
    rest *= (1 - happiness)[:, None]
    gaze = rng.beta(6, 2, len(seconds))
    columns = np.column_stack([rest[:, :4], happiness, rest[:, 4:], gaze])
    return seconds, columns, _spells(len(seconds), rng)


def listener_affect(
    person: Person, words: Sequence[int], values: Sequence[float], listens: Sequence[bool], rng: np.random.Generator
) -> np.ndarray:
    """What the face of a person shows during each message of a conversation, as CANDOR's reader would read it.

    Args:
        person: who listens.
        words: (messages,), words of each message.
        values: (messages,), the true value of each; those that the person says count nothing.
        listens: (messages,), where the person hears the message rather than says it.
        rng: decides what the face does beside what it answers.

    Returns:
        (messages,): 1 where happiness was seen most often, else 0; NaN where no face was seen, or the person spoke.
    """
    start, stop = _clock(words, rng)
    seconds, columns, unseen = _face(person, np.asarray(listens), np.asarray(values, float), start, stop, rng)
    faces = np.where(unseen[:, None], np.nan, columns[:, : len(EMOTIONS)])
    affect, _ = affect_of_turns(seconds, faces, start, stop, np.asarray(words))
    return np.where(listens, affect, np.nan)


def _hms(second: int) -> tuple[int, int, int]:
    return second // 3600, second // 60 % 60, second % 60


def _spells(seconds: int, rng: np.random.Generator) -> np.ndarray:
    """(seconds,), bool: where no face is seen. A two-state chain with the share and the mean length wanted."""
    leave = 1 / UNSEEN_SPELL
    enter = leave * UNSEEN / (1 - UNSEEN)
    draws = rng.random(seconds + 1).tolist()
    hidden, states = draws[-1] < UNSEEN, []
    for draw in draws[:-1]:
        hidden = draw >= leave if hidden else draw < enter
        states.append(hidden)
    return np.array(states, dtype=bool)
