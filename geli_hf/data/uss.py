"""USS, User Satisfaction Simulation: task-oriented dialogues whose every turn was rated by several annotators.

One text file per source corpus, one session per dialogue: the system is the `assistant`. A line is
`ROLE <tab> text <tab> action <tab> satisfaction`, with the annotators' scores, 1 to 5, separated by commas; blank
lines stand between dialogues, and the line `USER <tab> OVERALL` holds the scores of the whole.
Data: Sun et al., "Simulating User Satisfaction for the Evaluation of Task-oriented Dialogue Systems", SIGIR 2021.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..affect.sentiment import NextTurnSentiment
from ..sessions import Session, SessionError, merge_turns, session_features
from .reading import Corpus, Skipped, mean_known, split_files

ROLES = {"USER": "user", "SYSTEM": "assistant"}


def open_corpus(data_dir: str | Path, *, split: str | Sequence[str] = "MWOZ", sentiment: bool | str = False) -> Corpus:
    """
    Args:
        data_dir: holds `<split>.txt`; or is itself such a file.
        split: one, or several: "MWOZ", "CCPE", "SGD", "ReDial", "JDDC".
        sentiment: add feedback `sentiment` of the user's next turn: VADER's if True, or a text classifier's, by
            name or path (`geli_hf.affect.NextTurnSentiment`).

    The score is the mean of the annotators' OVERALL. `turn_rating` is the mean satisfaction on the first line of the
    user after the system's turn: the scores on a user's line judge what the system said before. The conversations have
    no names and are counted from 0, as in "MWOZ-17".
    """
    files = split_files(data_dir, split, ".txt")
    features = session_features(["sentiment"] if sentiment else [], turn_rating=True)

    def rows() -> Iterator[Session | Skipped]:
        sentiment_of = NextTurnSentiment(None if sentiment is True else sentiment) if sentiment else None
        for file in files:
            for number, dialogue in enumerate(_dialogues(file)):
                yield _session(f"{file.stem}-{number}", dialogue, sentiment_of)

    return Corpus(files, features, rows, where=str(data_dir))


def _dialogues(file: Path) -> Iterator[list[list[str]]]:
    """The cells of the lines of each dialogue."""
    lines: list[list[str]] = []
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for line in stream:
                if line.strip():
                    lines.append(line.rstrip("\r\n").split("\t"))
                elif lines:
                    yield lines
                    lines = []
    except UnicodeDecodeError as error:
        raise SessionError(f"{file}: no UTF-8 text ({error})") from error
    if lines:
        yield lines


def _session(name: str, lines: list[list[str]], sentiment_of: NextTurnSentiment | None) -> Session | Skipped:
    if any(len(line) != 4 or line[0] not in ROLES for line in lines):
        return Skipped("a line is not ROLE, text, action, satisfaction between tabs")
    overall = [_mean(line[3]) for line in lines if line[1] == "OVERALL"]
    if not overall:
        return Skipped("no OVERALL line (half-downloaded?)")
    if math.isnan(overall[0]):
        return Skipped("no OVERALL score from 1 to 5")
    turns = merge_turns((ROLES[role], text, cell) for role, text, _, cell in lines if text != "OVERALL")
    if missing := {"user", "assistant"} - {turn.speaker for turn in turns}:
        return Skipped(f"no turn of the {'system' if 'assistant' in missing else 'user'}")
    messages = [{"role": turn.speaker, "content": turn.text} for turn in turns]
    session = {
        "session_id": name,
        "conversation_id": name,
        "rater_id": "",  # several annotators, and none of them named
        "messages": messages,
        "score": overall[0],
        "turn_rating": [
            _mean(answer.rows[0]) if answer else math.nan
            for turn, answer in zip(turns, [*turns[1:], None])
            if turn.speaker == "assistant"
        ],
    }
    if sentiment_of:
        session["feedback"] = {"sentiment": sentiment_of(messages)}
    return session


def _mean(scores: str) -> float:
    """The mean of the scores from 1 to 5 in "3,4,3"; NaN if there is none."""
    known = {str(score): float(score) for score in range(1, 6)}
    return mean_known(known.get(score.strip(), math.nan) for score in scores.split(","))
