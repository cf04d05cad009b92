"""The Session row, the one data type that readers write and everything else reads.

One row is one session seen by one rater: the `assistant` is the speaker whose turns are rewarded, the `user` is the
rater who listens. Readers (`geli_hf.data`) make these rows; nothing here knows about a corpus or a model.

Missing numbers are NaN in memory and in Arrow, and `null` in JSON lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Features, List, Value

Message = dict[str, str]
Session = dict[str, Any]

ROLES = ("user", "assistant")
LARGEST = float(np.finfo(np.float32).max)  # rows are stored in float32
REQUIRED_COLUMNS = ("session_id", "conversation_id", "messages", "score")
OPTIONAL_COLUMNS = ("rater_id", "scores", "feedback", "start", "stop", "behaviour", "turn_rating")


class SessionError(ValueError):
    """Error of a Session row that breaks the schema. It names row, field, the value found and the one expected."""


def session_features(
    feedback: Sequence[str] = (),
    *,
    scores: Sequence[str] = (),
    times: bool = False,
    behaviour: bool = False,
    turn_rating: bool = False,
) -> Features:
    """Make the `datasets.Features` of Session rows.

    Args:
        feedback: names of the Local Implicit signals; each becomes a list of float32, one value per assistant turn.
            Without a signal the column is left out, since Parquet cannot hold an empty struct.
        scores: names of the session's ratings, where it has several; each becomes a float32 in `scores`. `score` stays
            the one to learn from.
        times: add `start` and `stop`, in seconds, per message.
        behaviour: add the listener's behaviour in words, per assistant turn.
        turn_rating: add the human (or true) rating per assistant turn, for evaluation only.
    """
    features = {
        "session_id": Value("string"),
        "conversation_id": Value("string"),
        "rater_id": Value("string"),
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "score": Value("float32"),
    }
    if scores:
        features["scores"] = {name: Value("float32") for name in scores}
    if feedback:
        features["feedback"] = {name: List(Value("float32")) for name in feedback}
    if times:
        features |= {"start": List(Value("float32")), "stop": List(Value("float32"))}
    if behaviour:
        features["behaviour"] = List(Value("string"))
    if turn_rating:
        features["turn_rating"] = List(Value("float32"))
    return Features(features)


class Turn(NamedTuple):
    """One speaker's text until the other speaks, with the source's own entry of each of its rows."""

    speaker: str
    text: str
    rows: list


def merge_turns(rows: Iterable[tuple[str, str, Any]]) -> list[Turn]:
    """Merge successive rows (speaker, text, entry) of one speaker to one turn. Rows without text are dropped."""
    turns: list[Turn] = []
    for speaker, text, entry in rows:
        text = text.strip() if isinstance(text, str) else ""
        if not text:
            continue
        if turns and turns[-1].speaker == speaker:
            last = turns.pop()
            turns.append(Turn(speaker, f"{last.text} {text}", [*last.rows, entry]))
        else:
            turns.append(Turn(speaker, text, [entry]))
    return turns


def time_span(rows: Sequence[Any]) -> tuple[float, float]:
    """Return the least `start` and the greatest `stop` of a turn's rows; NaN if one of them is NaN."""
    # numpy's minimum and maximum pass NaN on
    return float(np.min([row.start for row in rows])), float(np.max([row.stop for row in rows]))


def null_to_nan(value: Any) -> Any:
    """Replace `null` by NaN in all lists and objects of a JSON value."""
    if isinstance(value, Mapping):
        return {name: null_to_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [null_to_nan(entry) for entry in value]
    return math.nan if value is None else value


def assistant_turns(messages: Sequence[Mapping[str, str]]) -> list[int]:
    """List the indices of the messages that are rewarded, in order."""
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def feedback_names(sessions: Dataset) -> list[str]:
    """List the names of the Local Implicit signals that `sessions` carry."""
    feedback = sessions.features.get("feedback")
    return list(feedback) if feedback else []


def add_signal(
    sessions: Dataset, name: str, signal: Callable[[list[Message]], Sequence[float]] | Sequence[Sequence[float]]
) -> Dataset:
    """Return the sessions with one more Local Implicit signal in `feedback`.

    Args:
        sessions: Session rows.
        name: of the signal, by which training finds it (`li`).
        signal: one list per row with one number per assistant turn, None or NaN where nothing was observed; or a
            function from a session's messages to such a list. `datasets` caches the results of a function that can be
            pickled.

    Raises:
        SessionError: the sessions have a signal of that name, or a row gets other than one finite number per turn.
    """
    if name in feedback_names(sessions):
        raise SessionError(f"name: the sessions have a signal {name!r} already; choose another name for this one")
    if not callable(signal) and len(signal) != len(sessions):
        raise SessionError(f"signal: expected one list per row, that is {len(sessions)}, found {len(signal)}")

    def with_signal(session: Session, row: int) -> Session:
        values = signal(session["messages"]) if callable(signal) else signal[row]
        where = f"row {row} ({session['session_id']!r}), field 'feedback.{name}'"
        return {"feedback": (session.get("feedback") or {}) | {name: numbers_per_turn(session, values, where)}}

    feedback = dict(sessions.features.get("feedback") or {}) | {name: List(Value("float32"))}
    features = Features(dict(sessions.features) | {"feedback": feedback})
    return sessions.map(with_signal, with_indices=True, features=features, desc=f"Adding {name}")


def numbers_per_turn(session: Session, values: Any, where: str) -> list[float]:
    """Return values as floats, one per assistant turn, NaN where missing.

    Args:
        session: their session.
        values: as read.
        where: the beginning of an error message.

    Raises:
        SessionError: there are more or fewer values than turns, or one is neither a finite number nor missing.
    """
    if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)):
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        values = [math.nan if value is None else value for value in values]
    _check_values(values, len(assistant_turns(session["messages"])), "assistant turn", where)
    return [float(value) for value in values]


def _check_values(values: Any, expected: int, unit: str, where: str, *, text: bool = False) -> None:
    """Check a list of one value per message or turn."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise SessionError(f"{where}: expected a list with one value per {unit}, found {values!r}")
    if len(values) != expected:
        raise SessionError(f"{where}: expected one value per {unit}, that is {expected}, found {len(values)}")
    for position, value in enumerate(values):
        if not (isinstance(value, str) if text else is_number(value)):
            kind = "text" if text else "a finite number (NaN if missing)"
            raise SessionError(f"{where}: {unit} {position}: expected {kind}, found {value!r:.80}")


def is_number(value: Any) -> bool:
    """Tell a number of a row: an int or float that is finite in float32, or NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value != value or abs(value) <= LARGEST


def check_numbers(sessions: Dataset, signals: Iterable[str] = ()) -> None:
    """Check that the scores and the values of these signals are finite in float32, or missing.

    Readers have checked their rows; a `Dataset` that was made otherwise may hold anything.

    Args:
        sessions: Session rows.
        signals: names in `feedback`.

    Raises:
        SessionError: a number is infinite or too large; the message names row and field.
    """
    columns = {"score": [[score] for score in sessions["score"]]}
    for signal in signals:
        columns[f"feedback.{signal}"] = [feedback[signal] for feedback in sessions["feedback"]]
    for field, rows in columns.items():
        for row, values in enumerate(rows):
            if wrong := [value for value in values or () if value is not None and not is_number(value)]:
                raise SessionError(f"row {row}, field {field!r}: expected finite numbers, found {wrong[0]!r:.80}")


def validate_sessions(sessions: Dataset | Iterable[Session]) -> None:
    """Check every row against the Session schema.

    Raises:
        SessionError: at the first row that breaks it.
    """
    seen: dict[str, str] = {}
    for row, session in enumerate(sessions):
        validate_session(session, f"row {row}", seen)


def validate_messages(messages: Sequence[Message], where: str) -> None:
    """Check that messages can be rewarded: alternating roles, no empty text, a turn of the assistant.

    Args:
        messages: a session's messages.
        where: name of the row in an error.

    Raises:
        SessionError: they can't.
    """

    def fail(problem: str) -> None:
        raise SessionError(f"{where}, field 'messages': {problem}")

    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        fail(f"expected a non-empty list of {{role, content}}, found {messages!r}")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            fail(f"message {index} needs a role that is 'user' or 'assistant', found {message!r}")
        if not isinstance(message.get("content"), str):
            fail(f"message {index}: expected text as content, found {message.get('content')!r:.80}")
        if not message["content"].strip():
            fail(f"message {index} is empty; leave it out and merge its neighbours, or give it text")
        if index and message["role"] == messages[index - 1]["role"]:
            fail(f"messages {index - 1} and {index} are both of the {message['role']}; merge them")
    if not assistant_turns(messages):
        fail("no message of the assistant, so there is no turn to reward")


def validate_session(session: Session, where: str, seen: dict[str, str]) -> None:
    """Check one row against the Session schema.

    Args:
        session: the row.
        where: name of the row in an error ("row 3", "sessions.jsonl, line 3").
        seen: ids of earlier rows, with their names; the row's own is added.

    Raises:
        SessionError: the row breaks the schema.
    """

    def fail(field: str, problem: str) -> None:
        name = session.get("session_id")
        raise SessionError(f"{where}{f' ({name!r})' if name else ''}, field {field!r}: {problem}")

    for column in REQUIRED_COLUMNS:
        if session.get(column) is None:
            fail(column, f"missing; a session needs {', '.join(REQUIRED_COLUMNS)}; an unknown score is null")
    for column in ("session_id", "conversation_id"):
        if not isinstance(session[column], str) or not session[column]:
            fail(column, f"expected a non-empty string, found {session[column]!r}")
    if not isinstance(session.get("rater_id", ""), str):
        fail("rater_id", f"expected text ('' or null if unknown), found {session['rater_id']!r}")

    name = session["session_id"]
    validate_messages(session["messages"], f"{where} ({name!r})")
    turns = len(assistant_turns(session["messages"]))

    scores = {} if session.get("scores") is None else session["scores"]
    if not isinstance(scores, Mapping):
        fail("scores", f"expected one named number per rating, found {scores!r}")
    numbers = {"score": session["score"]} | {f"scores.{rating}": value for rating, value in scores.items()}
    for field, value in numbers.items():
        if not is_number(value):
            fail(field, f"expected a finite number (NaN if missing), found {value!r:.80}")

    feedback = session.get("feedback") or {}
    if not isinstance(feedback, Mapping):
        fail("feedback", f"expected one named list per signal, found {feedback!r}")
    per_turn = {f"feedback.{signal}": values for signal, values in feedback.items()}
    per_turn |= {column: session.get(column) for column in ("behaviour", "turn_rating")}
    per_message = {column: session.get(column) for column in ("start", "stop")}
    units = ((per_turn, turns, "assistant turn"), (per_message, len(session["messages"]), "message"))
    for columns, expected, unit in units:
        for field, values in columns.items():
            if values is not None:
                at = f"{where} ({name!r}), field {field!r}"
                _check_values(values, expected, unit, at, text=field == "behaviour")

    first = seen.setdefault(session["session_id"], where)
    if first != where:
        fail("session_id", f"this is also the id of {first}; every session needs an id of its own")


def split_sessions(sessions: Dataset, fractions: Mapping[str, float], *, seed: int = 0) -> dict[str, Dataset]:
    """Split by conversation, so that all perspectives of a conversation stay on one side.

    Args:
        sessions: Session rows.
        fractions: share of the conversations for each named part; they sum to 1.
        seed: of the shuffle of the conversations.

    Returns:
        The parts by name, each in the original order.

    Raises:
        ValueError: the shares are negative or do not sum to 1.
    """
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6) or min(fractions.values()) < 0:
        raise ValueError(f"fractions: expected shares that sum to 1, found {dict(fractions)}")
    conversation_of = np.asarray(sessions["conversation_id"][:])
    conversations = np.random.default_rng(seed).permutation(np.unique(conversation_of))
    edges = np.round(np.cumsum([0.0, *fractions.values()]) * len(conversations)).astype(int)
    return {
        name: sessions.select(np.flatnonzero(np.isin(conversation_of, conversations[start:stop])))
        for name, start, stop in zip(fractions, edges[:-1], edges[1:])
    }
