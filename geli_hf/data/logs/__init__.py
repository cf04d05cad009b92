"""Chat logs of other products, with whatever feedback they carry, as sessions.

The forms are in `formats.FORMATS`. A log is read row by row. Only the ids of its sessions are held in memory; rows of
one conversation that are spread over files wait in a temporary database on disk.

What is no text of the user or the assistant (system prompts, tool calls and their results, images, files) is left out
and counted. Successive messages of one side become one turn, with the last value of each signal. A conversation that
cannot be read is skipped, with the place of the first one for each reason.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Features

from ...models.geli_reward.text_geli import valid_unicode
from ...sessions import ROLES, Session, SessionError, Turn, merge_turns, session_features
from ..private import redact as redact_text
from ..reading import Corpus, LeftOut, Skipped, mean_known, number, session_of_turns
from .files import Store, find_logs, read_objects
from .formats import CSV_COLUMNS, FORMATS, Chat, Format, Reading

__all__ = ["open_corpus"]

ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system prompts"),
    **dict.fromkeys(("tool", "function", "observation", "function_call"), "tool calls and results"),
}
ROWS_LOOKED_AT = 100  # to find the format of a file
SMALLEST_SHARE = 0.1  # of the ratings, to suspect a scale of its own


def open_corpus(
    paths: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    score: str = "",
    signals: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    scale: tuple[float, float] | None = None,
    redact: bool = False,
) -> Corpus:
    """Open chat logs.

    Args:
        paths: a `.jsonl`, `.json`, `.parquet` or `.csv` file, a folder of such files, or several of these.
        format: a name in `formats.FORMATS`, or "auto" to find it out. All files have one format.
        score: the rating of a session: a field of the conversation or of its `metadata`, the name of a Langfuse score,
            or a signal or "turn_rating", whose mean over the turns is taken. Default: `score`, or the only score.
        signals: names of further signals of turns: fields of messages, Langfuse scores of traces, columns of a CSV.
        columns: of a CSV, its names for some of `formats.CSV_COLUMNS`, as {"session": "chat", "role": "who",
            "text": "words", "time": "sent"}.
        roles: further names of "user" and "assistant", as {"customer": "user"}.
        scale: lowest and highest rating; others are no rating.
        redact: mask mail addresses, links, card and phone numbers in the words, and replace raters' ids by a hash.

    Raises:
        FileNotFoundError: there is no such file, or a folder holds none.
        SessionError: a file has none of the formats, or the files have several; when the rows are read, there are
            several ratings or several scales, or a file breaks off.
        ValueError: an argument can't have this value, or a file has another suffix.
    """
    files = find_logs([paths] if isinstance(paths, str | Path) else paths)
    name, columns = _format_of(files, format), dict(columns or {})
    if columns and name != "csv":
        raise ValueError(f"columns (--columns) are those of a CSV, and {files[0]} is {name}: leave them out")
    if name == "csv" and not set(CSV_COLUMNS[:3]) <= set(columns) <= set(CSV_COLUMNS):
        names = [f"{column}=NAME" for column in CSV_COLUMNS]
        raise ValueError(
            f"{files[0]}: say in columns (--columns) which of its columns are {', '.join(names[:3])}, and perhaps "
            f"{', '.join(names[3:])}; found {columns or 'none'}"
        )
    features = session_features(
        [*FORMATS[name].signals, *signals],
        times=name == "langfuse" or "time" in columns,
        turn_rating=name == "openwebui" or "turn_rating" in columns,
    )
    where = ", ".join(map(str, files[:3])) + ", ..." * (len(files) > 3)

    def rows() -> Iterator[Session | Skipped | LeftOut]:
        store, left_out, reasons = Store(), Counter(), set()
        reading = Reading(score, signals, columns, lambda what, count=1: left_out.update({what: count}), store.rows_of)
        names = ROLE_NAMES | {role.lower(): side for role, side in dict(roles or {}).items()}
        sessions = _Sessions(reading, names, features, scale, redact)
        for place, key, chat in _chats(files, FORMATS[name], reading, store):
            row = chat if isinstance(chat, Skipped) else _attempt(sessions.session, chat, chat.name or key)
            if isinstance(row, Skipped):
                row = row._replace(file="" if row.reason in reasons else place)  # the first place is enough
                reasons.add(row.reason)
            yield row
        if problem := sessions.problem():
            raise SessionError(f"{where}: {problem}")
        yield from (LeftOut(what, count) for what, count in left_out.items() if count)

    return Corpus(files, features, rows, where)


def _format_of(files: Sequence[Path], chosen: str) -> str:
    """Find the one format of the files, by the first rows of each."""
    if chosen in FORMATS:
        return chosen
    if chosen != "auto":
        raise ValueError(f"format (--format): expected auto or one of {', '.join(FORMATS)}, found {chosen!r}")
    found: dict[str, Path] = {}
    for file in files:
        rows = [row for _, row in islice(read_objects(file), ROWS_LOOKED_AT) if isinstance(row, dict)]
        fitting = [name for row in rows for name, form in FORMATS.items() if any(key in row for key in form.fields)]
        if not fitting and file.suffix != ".csv":
            fields = ", ".join(map(str, rows[0])) if rows else "none, since no line is a JSON object"
            raise SessionError(f"{file}: none of the formats {', '.join(FORMATS)}; it has the fields {fields:.200}")
        found.setdefault("csv" if file.suffix == ".csv" else fitting[0], file)
    if len(found) > 1:
        kinds = ", ".join(f"{file} is {name}" for name, file in found.items())
        raise SessionError(f"{kinds}: read the files of one format at a time")
    return next(iter(found))


def _chats(files: Sequence[Path], form: Format, reading: Reading, store: Store) -> Iterator[tuple[str, str, Any]]:
    """Read the conversations, each a `Chat` or a `Skipped`, with its place, and a name for one that has none."""
    for file in files:
        for count, (where, row) in enumerate(read_objects(file), 1):
            unnamed = f"{file.stem}-{count}"
            found = row if isinstance(row, Skipped) else _attempt(form.key or form.read, row, reading)
            if form.key is None or isinstance(found, Skipped):
                yield where, unnamed, found
            else:
                store.add(found[0] or unnamed, found[1], where, row)
    for key, where, rows in store.conversations():
        if (chat := _attempt(form.read, rows, reading)) is not None:
            yield where, key, chat


def _attempt(function: Callable, *arguments: Any) -> Any:
    """Call a function, and return a `Skipped` with the reason where a conversation is of another form."""
    try:
        return function(*arguments)
    except ValueError as error:
        return Skipped(str(error))
    except (KeyError, IndexError, TypeError, AttributeError):
        return Skipped("not in the form of the log's format")


@dataclass
class _Sessions:
    """Sessions of conversations, and what their ratings look like."""

    reading: Reading
    names: Mapping[str, str]  # side, or what is left out, by the name of a role
    features: Features
    scale: tuple[float, float] | None
    redact: bool
    seen: set[str] = field(default_factory=set)
    ratings: Counter = field(default_factory=Counter)

    def session(self, chat: Chat, name: str) -> Session:
        """Return the session of a conversation, with the columns of `features`."""
        turns = merge_turns([row for message in chat.messages if (row := self._spoken(message))])
        for role in ROLES:
            own = [message for turn in turns if turn.speaker == role for message in turn.rows]
            if len({message.get("name") for message in own}) != 1:
                raise ValueError(f"{'several speakers' if own else 'no message'} as {role}")
        if self.redact:
            name = _hash(name) if redact_text(name)[0] != name else name
        if name in self.seen:
            raise ValueError("a session of the same id came before")
        self.seen.add(name)
        spoken = [turn for turn in turns if turn.speaker == "assistant"]
        start = [number(turn.rows[0].get("start")) for turn in turns]
        first = next((second for second in start if not math.isnan(second)), 0.0)
        columns = {
            "feedback": {signal: _values(spoken, signal) for signal in self.features.get("feedback") or {}},
            "start": [second - first for second in start],
            "stop": [number(turn.rows[-1].get("stop")) - first for turn in turns],
            "turn_rating": _values(spoken, "turn_rating"),
            "rater_id": _hash(chat.rater) if self.redact and chat.rater else chat.rater,
        }
        columns = {column: value for column, value in columns.items() if column in self.features}
        return session_of_turns(name, turns, "assistant", self._score(chat, spoken), **columns)

    def _spoken(self, message: Mapping) -> tuple[str, str, Mapping] | None:
        """Return side, text and message, or None if it is of neither side."""
        role, count = self.names.get(str(message["role"]).lower()), self.reading.count
        if role is None:
            raise ValueError(f"unknown role {message['role']!r:.40}; say in roles (--roles) whose it is")
        if role not in ROLES:
            count(role)
            return None
        content = message.get("content") or []
        parts = [content] if isinstance(content, str) else content
        texts = [part if isinstance(part, str) else part.get("text") for part in parts]
        text = "\n".join(text for text in texts if isinstance(text, str))
        calls = len(message.get("tool_calls") or []) + bool(message.get("function_call"))
        count("tool calls and results", calls)
        count("parts that are no text, such as images", sum(not isinstance(text, str) for text in texts))
        count("empty messages", not (calls or text.strip()))
        if self.redact:
            text, masked = redact_text(text)
            for kind in masked:
                count(f"{kind}, masked", masked[kind])
        return role, valid_unicode(text), message

    def _score(self, chat: Chat, spoken: Sequence[Turn]) -> float:
        """Return the rating of a conversation, NaN if it has none on the scale."""
        chosen = self.reading.score
        self.ratings.update(f"named {name}" for name in chat.scores if not chosen)
        name = chosen or next(iter(chat.scores), "")
        rating = number(chat.scores[name]) if name in chat.scores else mean_known(_values(spoken, name))
        if self.scale and not self.scale[0] <= rating <= self.scale[1]:
            rating = math.nan
        self.reading.count(
            "ratings that are no number, or outside the scale", name in chat.scores and rating != rating
        )
        bands = ((0 < rating < 1, "below 1"), (rating > 1, "above 1"), (0 <= rating <= 5, "up to 5"))
        bands += ((5 < rating <= 10, "from 5 to 10"), (rating > 10, "above 10"), (rating == rating, "all"))
        self.ratings.update(band for is_in, band in bands if is_in)
        return rating

    def problem(self) -> str:
        """Return what is wrong with the ratings: none, several names, or as if on two scales."""
        names = [name.removeprefix("named ") for name in self.ratings if name.startswith("named ")]
        if len(names) > 1:
            return f"the sessions have the ratings {', '.join(names)}; say with score (--score) which to learn from"
        if self.reading.score and not self.ratings["all"]:
            return f"no session has a rating {self.reading.score!r}; leave score (--score) out, or name another"
        for low, high in (("below 1", "above 1"), ("up to 5", "above 10")):
            several = min(self.ratings[low], self.ratings[high]) > SMALLEST_SHARE * self.ratings["all"]
            if several and not self.scale and not (low == "up to 5" and self.ratings["from 5 to 10"]):
                counts = f"{self.ratings[low]} ratings are {low} and {self.ratings[high]} {high}"
                return f"{counts}, as if on two scales; say with scale (--scale LOW HIGH) which to keep"
        return ""


def _values(turns: Sequence[Turn], name: str) -> list[float]:
    """Return a signal of turns: its last value in the messages of each, NaN if it has none."""
    values = [[number(message.get(name)) for message in reversed(turn.rows)] for turn in turns]
    return [next((value for value in turn if not math.isnan(value)), math.nan) for turn in values]


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
