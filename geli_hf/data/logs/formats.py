"""Published forms of chat logs, one function each: from a row of the log to a `Chat`.

Where a format has a `key`, its function takes all rows of one conversation. It raises KeyError, TypeError or the like
for rows of another form, and ValueError with the reason. Roles and texts are checked by who calls it.

Sources: OpenAI's chat and fine-tuning format; ShareGPT as LLaMA-Factory and axolotl document it; the dataset cards of
allenai/WildChat-1M and lmsys/lmsys-chat-1m; Langfuse's field reference of exports and the code of its export from
tables; Open WebUI's schema of chats and its feedback table.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..reading import mean_known, number

CSV_COLUMNS = ("session", "role", "text", "score", "rater", "time", "turn_rating")  # the first three are needed


class Chat(NamedTuple):
    """A conversation as its log has it.

    A message has `role` and `content` as in OpenAI's format, and perhaps `name`, `start` and `stop` in seconds,
    `turn_rating`, and signals by name.
    """

    messages: Sequence[Mapping[str, Any]]
    name: str = ""  # empty: that of its place in the file, or its key
    scores: Mapping[str, Any] = {}  # ratings of the conversation
    rater: str = ""


class Reading(NamedTuple):
    """Choices of who imports a log (see `open_corpus`), what counts what is left out, and finds rows by their key."""

    score: str
    signals: Sequence[str]
    columns: Mapping[str, str]
    count: Callable[..., None]  # what, and their number or 1
    rows_of: Callable[[str], list[dict]]


def openai(row: dict, reading: Reading) -> Chat:
    """Read OpenAI messages: `messages`, as in a line of a fine-tuning file."""
    return Chat(row["messages"], _first(row, "session_id", "conversation_id", "id"), _ratings(row, reading))


def sharegpt(row: dict, reading: Reading) -> Chat:
    """Read ShareGPT: `conversations` of `from` and `value`."""
    messages = [{"role": message["from"], "content": message["value"]} for message in row["conversations"]]
    return Chat(messages, _first(row, "id"), _ratings(row, reading))


def arena(row: dict, reading: Reading) -> Chat:
    """Read a row of WildChat or LMSYS-Chat: `conversation`; the hash of an IP address stands for the rater."""
    name = _first(row, "conversation_hash", "conversation_id")
    return Chat(row["conversation"], name, _ratings(row, reading), _first(row, "hashed_ip"))


def openwebui_key(row: dict, reading: Reading) -> tuple[str, Any]:
    """Return the id of the chat that an exported chat is, or that exported feedback is on."""
    chat = (row.get("snapshot") or {}).get("chat") or row
    return _first(row.get("meta") or {}, "chat_id") or _first(chat, "id"), row.get("updated_at") or 0


def openwebui(rows: list[dict], reading: Reading) -> Chat:
    """Read an Open WebUI chat on its active branch, with thumbs, regenerated and edited turns, and ratings of turns.

    The rows are the exported chat, and exported feedback on it, which holds a snapshot of the chat.
    """
    chats = [(row["snapshot"] or {}).get("chat") if "data" in row else row for row in rows]
    latest = [chat for chat in chats if chat][-1]
    history = (latest.get("chat") or latest)["history"]
    tree, at, path = history["messages"], history["currentId"], []
    while at is not None:
        path.insert(0, tree.pop(at))  # a circle ends in a KeyError
        at = path[0].get("parentId")
    given = {row["meta"]["message_id"]: row["data"] for row in rows if "data" in row}
    for message in path:
        others = [other for other in tree.values() if other.get("parentId") == message.get("parentId")]
        reading.count("branches beside the active one", len(others))
        rated = (
            given.get(message.get("id")) or message.get("annotation") or message
        )  # `rating` was of the message once
        again = any(other.get("model") == message.get("model") for other in others)  # not another model beside it
        message["thumbs"] = rated.get("rating") or 0
        message["turn_rating"] = (rated.get("details") or {}).get("rating")
        message |= {"regenerated": -float(again), "edited": -float("originalContent" in message)}
    return Chat(path, rater=_first(rows[0], "user_id"))


def langfuse_key(row: dict, reading: Reading) -> tuple[str, Any]:
    """Return the session of a trace, a root observation or a score; the trace, where it has none; and the time."""
    session, trace = _first(row, "sessionId", "session_id"), _first(row, "traceId", "trace_id")
    if "value" in row and trace:
        return f"scores of {trace}", ""
    return session or trace or row["id"], _first(row, "timestamp", "startTime", "start_time")


def langfuse(rows: list[dict], reading: Reading) -> Chat | None:
    """Read the traces of a Langfuse session as its turns, with scores of traces as signals and of the session as such.

    Most applications send the whole dialogue each time, so the input of a trace after the first counts from the last
    answer in it.
    """
    messages: list[dict] = []
    if any("value" in row and _first(row, "traceId", "trace_id") for row in rows):
        return None  # scores of a trace, which it finds itself
    for row in rows:
        if "value" in row:
            continue
        if _first(row, "parentObservationId", "parent_observation_id"):
            reading.count("observations inside others")
            continue
        start = seconds(_first(row, "timestamp", "startTime", "start_time"))
        end = seconds(_first(row, "endTime", "end_time"))
        stop = start + number(row.get("latency")) if math.isnan(end) else end
        asked, answered = _payload(row.get("input"), "user"), _payload(row.get("output"), "assistant")
        if messages:
            answers = [index for index, message in enumerate(asked, 1) if message["role"] == "assistant"]
            asked = asked[answers[-1] if answers else 0 :]
        values = {name: row[name] if isinstance(row[name], list) else [row[name]] for name in row}
        for score in reading.rows_of(f"scores of {_first(row, 'traceId', 'trace_id', 'id')}"):
            values.setdefault(score["name"], []).append(score["value"])
            if score["name"] not in (*reading.signals, reading.score):
                reading.count(f"scores {score['name']!r} of traces; name it as a signal or the score")
        wanted = {*reading.signals, reading.score} & set(values)
        scored = {name: mean_known(map(number, values[name])) for name in wanted}
        messages += [message | {"start": start, "stop": start} for message in asked]
        messages += [message | {"start": start, "stop": stop} | scored for message in answered]
    scores = {row["name"]: row["value"] for row in rows if "value" in row}
    return Chat(messages, scores=scores, rater=_first(rows[-1], "userId", "user_id"))


def csv_key(row: dict, reading: Reading) -> tuple[str, Any]:
    """Return the session of a row.

    Raises:
        ValueError: the table lacks a column.
    """
    if missing := [title for title in (*reading.columns.values(), *reading.signals) if title not in row]:
        raise ValueError(f"no column {missing[0]!r} in the CSV; there are {', '.join(map(repr, row))}")
    return row[reading.columns["session"]], ""


def csv(rows: list[dict], reading: Reading) -> Chat:
    """Read the messages of a session from a table with a row for each, in the order of the file.

    Raises:
        ValueError: the rows have several scores.
    """
    columns, messages, scores, rater = reading.columns, [], set(), ""
    for row in rows:
        cells = {name: row[title] for name, title in columns.items()} | {name: row[name] for name in reading.signals}
        at = seconds(cells.get("time"))
        messages.append(cells | {"content": cells["text"], "start": at, "stop": at})
        rater = cells.get("rater") or rater
        scores |= {cells["score"]} - {""} if "score" in columns else set()
    if len(scores) > 1:
        raise ValueError("several scores in one session")
    return Chat(messages, scores={"score": scores.pop()} if scores else {}, rater=rater)


def seconds(time: Any) -> float:
    """Return a time as seconds since 1970: from seconds, or a date and time (UTC without a zone); else NaN."""
    if not math.isnan(number(time)):
        return number(time)
    try:
        moment = datetime.fromisoformat(time)
    except (TypeError, ValueError):
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _first(row: Mapping, *names: str) -> str:
    """Return the first of these fields that says something, as text."""
    return next((str(row[name]) for name in names if row.get(name) not in (None, "")), "")


def _ratings(row: dict, reading: Reading) -> dict[str, Any]:
    """Return the rating of a conversation that stands beside its messages, or in its `metadata`."""
    name = reading.score or "score"
    rating = row.get(name, (row.get("metadata") or {}).get(name))
    return {} if rating is None else {name: rating}


def _payload(value: Any, role: str) -> list[dict]:
    """Return the messages that an application logged as input or output: text, messages, or JSON of them."""
    if isinstance(value, str) and value[:1] in ("{", "[", '"'):
        with suppress(ValueError):  # text may begin with a bracket
            value = json.loads(value)
    if isinstance(value, dict):
        value = value["choices"][0]["message"] if "choices" in value else value.get("messages", value)
    if value is None or isinstance(value, str):
        value = {"content": value}
    value = value if isinstance(value, list) else [value]
    if not all(isinstance(message, dict) and "content" in message for message in value):
        raise ValueError("an input or output of a trace that is neither text nor messages")
    return [{"role": role} | message for message in value]


class Format(NamedTuple):
    """Form of a log, which a row shows by any of its `fields`."""

    fields: Sequence[str]
    read: Callable[..., Chat | None]
    key: Callable[[dict, Reading], tuple[str, Any]] | None = None
    signals: Sequence[str] = ()


FORMATS = {
    "openwebui": Format(
        ("chat", "history", "snapshot"), openwebui, openwebui_key, ("thumbs", "regenerated", "edited")
    ),
    "sharegpt": Format(("conversations",), sharegpt),
    "wildchat": Format(("conversation_hash",), arena),
    "lmsys": Format(("conversation",), arena),
    "openai": Format(("messages",), openai),
    "langfuse": Format(("input", "traceId", "trace_id", "sessionId"), langfuse, langfuse_key),
    "csv": Format((), csv, csv_key),
}
