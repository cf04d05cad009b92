"""The project's own rated corpus: simulated small talk in CANDOR's layout on disk, with the true value of every turn.

`write_sample` writes it, CANDOR's reader reads it, and `true_turn_value` values any reply in its context. Each
conversation folder also holds `turn_ratings.csv` (turn_id, rating), the project's documented extension of the layout.

The text comes from `text`, `frames` and `grammar`, its value from `oracle`, and the conversations from `people`. This
module adds the observations: the clock, the listener's face and the rating of the session.

Measured with 400 conversations, seeds 0 to 4 (a session is one perspective; Spearman is within sessions, averaged over
those where both sides vary, and `tests/simulator/test_sample_figures.py` holds seed 0 to these bands):

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

from ..affect.emotions import EMOTIONS
from ..affect.turns import affect_of_turns
from .oracle import TurnValue, true_turn_value
from .people import Message, converse, draw_traits

__all__ = ["Person", "TurnValue", "listener_affect", "overall_affect", "true_turn_value", "write_sample"]

# ---------------------------------------------------------------------------------------------------------------------
# Observations, fixed before any training.

# The clock. CANDOR has 7 M words in 850 h: 2.3 words a second with the pauses.
WORDS_PER_SECOND = 2.5  # while talking
PAUSE = (0.2, 1.0)  # seconds between turns, uniform

# The listener's face. Target: within-session Spearman of the 0/1 signal of CANDOR's rule with the true value .20 to
# .28. The upper end is what the best dense signal measured on real corpora reaches: the sentiment of the next user
# turn has .279 [.258, .302] with the human turn ratings of USS (MultiWOZ). A face that tells more would flatter
# every method that uses it. Target prevalence of happiness: 15 to 30 % of the utterances.
DELAY = (1.0, 2.0)  # seconds from the start of a turn until the face responds
LINGER = (1.0, 2.5)  # seconds after its end until the response ends
SMILE_LEVEL = -2.0  # log odds of a smile over no smile at a turn of value 0
SMILE_LEVEL_SD = 1.0  # between people
EXPRESSIVENESS = (0.0, 3.3)  # log odds per unit of value, uniform over people: some faces show nothing
TURN_NOISE = 1.6  # log odds, for a turn: moods and thoughts
SECOND_NOISE = 0.9  # log odds, for a second
POLITE_SMILES = 0.06  # share of turns that are met with a smile whatever their value
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

SURVEY_COLUMNS = "user_id,partner_id,convo_id,date,overall_affect,how_enjoyable,i_like_you,conversationalist"
TRANSCRIPT_COLUMNS = "turn_id,speaker,start,stop,utterance,interval,delta,questions,end_question,overlap,n_words"
FACE_COLUMNS = "timedelta,user_id," + ",".join(f"prob_face_{emotion}" for emotion in EMOTIONS) + ",gaze"


def write_sample(folder: str | Path, *, conversations: int = 400, seed: int = 0) -> Path:
    """Write the sample corpus, one folder for each conversation.

    The bytes depend on `conversations` and `seed` only.

    Args:
        folder: for the conversation folders; made if absent.
        conversations: each gives two sessions, one for each perspective, of about 8 turns a side.
        seed: two seeds share no conversation.

    Returns:
        `folder`.

    Raises:
        ValueError: `conversations` is less than 1, or `seed` negative.
        FileExistsError: `folder` holds other entries, which a reader would take for a part of the corpus.
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
    for index, name in enumerate(names):
        rng = np.random.default_rng([seed, 1, index])
        first, second = rng.choice(len(people), size=2, replace=False)
        day = date(2020, 1, 6) + timedelta(days=index % 300)
        _write_conversation(folder / name, day, (people[first], people[second]), rng)
    return folder


class Person:
    """A simulated person: traits of talk, a level of rating, and how much the face shows."""

    def __init__(self, rng: np.random.Generator):
        self.id = _identifier(rng)
        self.traits = draw_traits(rng)
        self.rating_level = RATER_LEVEL_SD * rng.standard_normal()
        self.smile_level = SMILE_LEVEL + SMILE_LEVEL_SD * rng.standard_normal()
        self.expressiveness = rng.uniform(*EXPRESSIVENESS)


def overall_affect(person: Person, values: Sequence[float], rng: np.random.Generator) -> int:
    """Rate a session, from 1 to 9.

    Args:
        person: the rater.
        values: true values of the partner's turns.
        rng: the noise of the rating.
    """
    affect = _mean_rating(person, values) + SCORE_NOISE_SD * rng.standard_normal()
    return int(np.clip(np.rint(affect), 1, 9))


def listener_affect(
    person: Person, words: Sequence[int], values: Sequence[float], listens: Sequence[bool], rng: np.random.Generator
) -> np.ndarray:
    """Simulate the listener's affect during each message, as CANDOR's reader would read it.

    Args:
        person: the listener.
        words: (messages,), words of each message.
        values: (messages,), the true value of each; the person's own messages count nothing.
        listens: (messages,), where the person hears the message rather than speaks.
        rng: the clock, and the noise of the face.

    Returns:
        (messages,): 1 where happiness was seen most often, else 0; NaN where no face was seen, or the person spoke.
    """
    start, stop = _clock(words, rng)
    seconds, columns, unseen = _face(person, np.asarray(listens), np.asarray(values, float), start, stop, rng)
    faces = np.where(unseen[:, None], np.nan, columns[:, : len(EMOTIONS)])
    affect, _ = affect_of_turns(seconds, faces, start, stop, np.asarray(words))
    return np.where(listens, affect, np.nan)


# -- files


def _write_conversation(home: Path, day: date, pair: Sequence[Person], rng: np.random.Generator) -> None:
    messages = converse([person.traits for person in pair], rng)
    start, stop = _clock([len(message.text.split()) for message in messages], rng)
    survey = [_survey_row(home.name, day, messages, pair, rater, rng) for rater in (0, 1)]
    faces = [row for rater in (0, 1) for row in _face_rows(pair[rater], rater, messages, start, stop, rng)]
    ratings = [f"{turn},{message.value!r}" for turn, message in enumerate(messages)]
    metadata = {"convo_id": home.name, "participants": [person.id for person in pair], "seconds": float(stop[-1])}
    (home / "transcription").mkdir(parents=True, exist_ok=True)
    for name, header, rows in (
        ("survey.csv", SURVEY_COLUMNS, survey),
        ("transcription/transcript_cliffhanger.csv", TRANSCRIPT_COLUMNS, _transcript(messages, pair, start, stop)),
        ("audio_video_features.csv", FACE_COLUMNS, faces),
        ("turn_ratings.csv", "turn_id,rating", ratings),
    ):
        (home / name).write_text("\n".join((header, *rows, "")), encoding="utf-8", newline="\n")
    (home / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8", newline="\n")


def _identifier(rng: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


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
    day: date,
    messages: Sequence[Message],
    pair: Sequence[Person],
    rater: int,
    rng: np.random.Generator,
) -> str:
    values = [message.value for message in messages if message.speaker != rater]
    answers = _mean_rating(pair[rater], values) + SCORE_NOISE_SD * rng.standard_normal(4)
    affect, enjoyable, liking = np.clip(np.rint(answers[:3]), 1, 9).astype(int)
    conversationalist = int(np.clip(np.rint(answers[3] * 10), 0, 100))
    ids = f"{pair[rater].id},{pair[1 - rater].id},{conversation},{day.isoformat()}"
    return f"{ids},{affect},{enjoyable},{liking},{conversationalist}"


def _face_rows(
    person: Person,
    rater: int,
    messages: Sequence[Message],
    start: np.ndarray,
    stop: np.ndarray,
    rng: np.random.Generator,
) -> list[str]:
    listens = np.array([message.speaker != rater for message in messages])
    values = np.array([message.value for message in messages])
    seconds, columns, unseen = _face(person, listens, values, start, stop, rng)
    template, blank = ",".join(["%.3f"] * columns.shape[1]), "," * (columns.shape[1] - 1)
    rows = []
    for second, numbers, hidden in zip(seconds.tolist(), columns.tolist(), unseen.tolist()):
        time = f"0 days {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        rows.append(f"{time},{person.id},{blank if hidden else template % tuple(numbers)}")
    return rows


# -- the clock, the rating and the face


def _clock(words: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw start and stop of each message in seconds, to a hundredth, from the number of its words."""
    words = np.array(words)
    spoken = words / WORDS_PER_SECOND * rng.uniform(0.85, 1.15, len(words))
    pauses = rng.uniform(*PAUSE, len(words))
    start = np.round(np.cumsum(pauses) + np.concatenate([[0.0], np.cumsum(spoken)[:-1]]), 2)
    return start, np.round(start + spoken, 2)


def _mean_rating(person: Person, values: Sequence[float]) -> float:
    """Compute the person's rating of turns of these values before noise and rounding."""
    mean, deviation = VALUE_SUM
    return SCORE_MEAN + SCORE_PER_SD * (sum(values) - mean) / deviation + person.rating_level


def _face(
    person: Person,
    listens: np.ndarray,
    values: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a person's face in each second of the conversation.

    Args:
        listens: (messages,), bool, where the person hears the message rather than speaks.
        values: (messages,), true values.
        start, stop: (messages,), seconds.

    Returns:
        Seconds (n,), probabilities of `EMOTIONS` and then gaze (n, 9), and where no face is seen (n,), bool.
    """
    seconds = np.arange(1, int(np.ceil(stop[-1])) + 1)
    log_odds = person.smile_level + SECOND_NOISE * rng.standard_normal(len(seconds))
    moods = TURN_NOISE * rng.standard_normal(len(values))
    polite = rng.random(len(values)) < POLITE_SMILES
    responses = person.expressiveness * values + moods + np.where(polite, 6.0, 0.0)
    begins = start + rng.uniform(*DELAY, len(values))
    ends = stop + rng.uniform(*LINGER, len(values))
    for turn in np.flatnonzero(listens):
        log_odds[(seconds >= begins[turn]) & (seconds < ends[turn])] += responses[turn]

    happiness = 1 / (1 + np.exp(-log_odds))
    others = (0.3, 0.2, 0.2, 0.2, 8.0, 0.5, 0.6)  # anger, contempt, disgust, fear; neutral, sadness, surprise
    rest = rng.dirichlet(others, len(seconds)) * (1 - happiness)[:, None]
    gaze = rng.beta(6, 2, len(seconds))
    columns = np.column_stack([rest[:, :4], happiness, rest[:, 4:], gaze])
    return seconds, columns, _unseen(len(seconds), rng)


def _unseen(seconds: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the seconds without a visible face, (seconds,), bool, from a Markov chain of two states."""
    leave = 1 / UNSEEN_SPELL
    enter = leave * UNSEEN / (1 - UNSEEN)
    draws = rng.random(seconds + 1).tolist()
    hidden, states = draws[-1] < UNSEEN, []
    for draw in draws[:-1]:
        hidden = draw >= leave if hidden else draw < enter
        states.append(hidden)
    return np.array(states, dtype=bool)
