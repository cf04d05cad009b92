"""Chit-Chat: students type small talk with each other, and the talk is rated afterwards.

Source: Myers, Etchart and Fulda, "Conversational Scaffolding: An Analogy-based Approach to Response Prioritization in
Open-domain Dialogs", ICAART 2020; https://github.com/BYU-PCCL/chitchat-dataset; MIT licence.
Files: `dataset.json`, which the package `chitchat-dataset` carries: an object with a conversation under each id.
Sessions: two for each conversation, one for each speaker as the `assistant`; or of one of them, see `side`.
Score: the mean of the ratings from 1 to 10 for witty, upbeat and interesting, or one of them. Who of the two rated is
not recorded, so both sessions of a conversation have one score. All three are in `scores`.
Feedback: none; `start` and `stop` tell when the first and the last line of each message was sent, in seconds since the
first line with a time, from which `geli_hf.affect.reactions` reads how fast the listener answered; NaN without one.
Skipped: conversations without a rating, of other than two speakers, of fewer than six messages, or whose times run
backwards; and those rated 5, 5, 5, which is what a form says that nobody touched.
"""

import hashlib
import importlib.util
import itertools
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..sessions import Session, Turn, merge_turns, session_features
from .reading import Corpus, Skipped, find_files, read_json, session_of_turns

PACKAGE = "chitchat_dataset"
RATINGS = ("witty", "upbeat", "interesting")
LOWEST, HIGHEST, UNTOUCHED = 1, 10, 5
SIDES = ("both", "first", "second")
FEWEST_MESSAGES = 6  # of both speakers
HALVES = ("a", "b", "mixed")


def open_corpus(
    data_dir: str | Path | None = None,
    *,
    score: str = "mean",
    side: str = "both",
    untouched: bool = False,
    half: str | None = None,
) -> Corpus:
    """Open Chit-Chat.

    Args:
        data_dir: holds `dataset.json`; or is such a file. Default: that of the package `chitchat-dataset`.
        score: "mean", "witty", "upbeat" or "interesting".
        side: whose turns are rewarded: "both", "first" (the one who began to talk) or "second".
        untouched: keep conversations that were rated 5, 5, 5.
        half: keep conversations of speakers who are both in half "a" or both in half "b" of all speakers, or of one
            in each ("mixed"). What was learned from one half is then judged by people who had no part in it.

    Raises:
        FileNotFoundError: it is not there, or the package is not installed.
        SessionError: when the rows are read, the file holds no JSON object.
        ValueError: an option can't have this value.
    """
    allowed = {"score": (score, ("mean", *RATINGS)), "side": (side, SIDES), "half": (half, (None, *HALVES))}
    for name, (value, values) in allowed.items():
        if value not in values:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, values))}, found {value!r}")
    files = find_files(_package_folder() if data_dir is None else data_dir, ["dataset.json"])
    sides = (0, 1) if side == "both" else (SIDES.index(side) - 1,)

    def rows() -> Iterator[Session | Skipped]:
        for name, conversation in read_json(files[0], dict).items():
            read = _read(conversation, untouched) if name else Skipped("no id")
            if half and not isinstance(read, Skipped) and _half(read[0]) != half:
                read = Skipped(f"speakers: not those of half {half}")
            for index in sides:
                yield read if isinstance(read, Skipped) else _session(name, *read, index, score)

    return Corpus(files, session_features(scores=RATINGS, times=True), rows, str(files[0]))


def _package_folder() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:  # a folder of that name has no origin
        raise FileNotFoundError(
            "chitchat: found no package chitchat-dataset; pip install 'geli-hf[chitchat]', or name the folder of its "
            "dataset.json as data_dir"
        )
    return Path(package.origin).parent


def _read(conversation: Any, untouched: bool) -> tuple[list[Turn], dict[str, float]] | Skipped:
    """Return turns and ratings of a conversation."""
    try:
        lines = [_line(line) for block in conversation["messages"] for line in block]
    except (KeyError, TypeError, ValueError):
        return Skipped("messages not in the published form (lists of text, sender and timestamp with its zone)")
    ratings = conversation.get("ratings")
    if ratings is None:
        return Skipped("no ratings")
    if not isinstance(ratings, dict) or not all(_is_rating(ratings.get(name)) for name in RATINGS):
        return Skipped(f"ratings other than {', '.join(RATINGS)} from {LOWEST} to {HIGHEST}")
    if not untouched and all(ratings[name] == UNTOUCHED for name in RATINGS):
        return Skipped(f"rated {UNTOUCHED}, {UNTOUCHED}, {UNTOUCHED}, as an untouched form is")
    turns = merge_turns(lines)
    speakers = {turn.speaker for turn in turns}
    if len(speakers) != 2:
        return Skipped(f"speakers: {len(speakers)}, not 2")
    if len(turns) < FEWEST_MESSAGES:
        return Skipped(f"fewer than {FEWEST_MESSAGES} messages")
    if any(later < earlier for earlier, later in itertools.pairwise(_times(turns))):
        return Skipped("times run backwards")
    return turns, {name: float(ratings[name]) for name in RATINGS}


def _half(turns: list[Turn]) -> str:
    """Return the half of the speakers that both belong to, by a hash of their ids; "mixed" where they differ."""
    halves = {HALVES[hashlib.sha256(turn.speaker.encode()).digest()[0] % 2] for turn in turns}
    return halves.pop() if len(halves) == 1 else "mixed"


def _session(name: str, turns: list[Turn], ratings: dict[str, float], index: int, score: str) -> Session:
    first = next(_times(turns), math.nan)
    return session_of_turns(
        name,
        turns,
        turns[index].speaker,
        sum(ratings.values()) / len(ratings) if score == "mean" else ratings[score],
        perspective=SIDES[index + 1],
        scores=ratings,
        start=[turn.rows[0] - first for turn in turns],
        stop=[turn.rows[-1] - first for turn in turns],
    )


def _line(line: dict) -> tuple[str, str, float]:
    """Return sender, text and time of a line, in seconds since 1970; NaN if it has none.

    Raises:
        KeyError, TypeError, ValueError: it is not in the published form.
    """
    sender, text, timestamp = line["sender"], line["text"], line.get("timestamp")
    if not (isinstance(sender, str) and isinstance(text, str)):
        raise TypeError(f"expected texts, found {sender!r:.80} and {text!r:.80}")
    if timestamp is None:
        return sender, text, math.nan
    time = datetime.fromisoformat(timestamp)
    if time.tzinfo is None:  # its seconds would depend on where they are read
        raise ValueError(f"expected a time with its zone, found {timestamp!r}")
    return sender, text, time.timestamp()


def _times(turns: list[Turn]) -> Iterator[float]:
    """Iterate over the times of all lines that have one."""
    return (time for turn in turns for time in turn.rows if not math.isnan(time))


def _is_rating(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST
