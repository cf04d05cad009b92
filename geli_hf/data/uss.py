"""USS, User Satisfaction Simulation: task-oriented dialogues whose turns were rated by several annotators.

Source: Sun et al., "Simulating User Satisfaction for the Evaluation of Task-oriented Dialogue Systems", SIGIR 2021,
arXiv 2105.03748; https://github.com/sunnweiwei/user-satisfaction-simulation; the annotations state no licence.
Files: one text file for each source corpus, with lines `ROLE <tab> text <tab> action <tab> satisfaction`, the scores
of the annotators separated by commas, and a blank line between dialogues.
Sessions: one for each dialogue; the system is the `assistant`. Dialogues are counted from 0, as in "MWOZ-17".
Score: the mean of the annotators' scores, 1 to 5, on the line `USER <tab> OVERALL`.
Feedback: none but `sentiment`.
Turn rating: the mean satisfaction on the user's first line after the system's turn, which judges that turn.
Skipped: dialogues without an overall score, without a turn of either side, or with a line of another form.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ..affect.transcripts import read_text
from ..sessions import Session, merge_turns
from .reading import Corpus, Skipped, find_files, mean_known, session_of_turns, text_corpus, turns_and_replies

ROLES = {"USER": "user", "SYSTEM": "assistant"}


def open_corpus(data_dir: str | Path, *, split: str | Sequence[str] = "MWOZ", sentiment: bool = False) -> Corpus:
    """Open USS.

    Args:
        data_dir: holds `<split>.txt`; or is such a file.
        split: one or several of "MWOZ", "CCPE", "SGD", "ReDial" and "JDDC".
        sentiment: add feedback `sentiment` of the user's next turn, from -1 to 1 (`NextTurnSentiment`).

    Raises:
        FileNotFoundError: a split is not there.
        SessionError: when the rows are read, a file is no UTF-8 text.
    """
    files = find_files(data_dir, [f"{name}.txt" for name in ([split] if isinstance(split, str) else split)])

    def rows() -> Iterator[Session | Skipped]:
        for file in files:
            for number, dialogue in enumerate(_dialogues(file)):
                yield _session(f"{file.stem}-{number}", dialogue)

    return text_corpus(files, rows, where=data_dir, turn_rating=True, sentiment=sentiment)


def _dialogues(file: Path) -> Iterator[list[list[str]]]:
    """Split a file into dialogues, each a list of lines, each a list of cells."""
    for spoken, lines in groupby(read_text(file).split("\n"), lambda line: bool(line.strip())):
        if spoken:
            yield [line.split("\t") for line in lines]


def _session(name: str, lines: list[list[str]]) -> Session | Skipped:
    if any(len(line) != 4 or line[0] not in ROLES for line in lines):
        return Skipped("a line is not ROLE, text, action, satisfaction between tabs")
    overall = [_mean_score(scores) for _, text, _, scores in lines if text == "OVERALL"]
    if not overall:
        return Skipped("no OVERALL line (half-downloaded?)")
    if math.isnan(overall[0]):
        return Skipped("no OVERALL score from 1 to 5")
    turns = merge_turns((ROLES[role], text, scores) for role, text, _, scores in lines if text != "OVERALL")
    if len({turn.speaker for turn in turns}) < 2:
        return Skipped("no turn of the user or of the system")
    ratings = [_mean_score(reply.rows[0] if reply else "") for _, reply in turns_and_replies(turns, "assistant")]
    return session_of_turns(name, turns, "assistant", overall[0], turn_rating=ratings)


def _mean_score(scores: str) -> float:
    """Compute the mean of the scores from 1 to 5 in "3,4,3"; NaN if there is none."""
    known = {str(score): float(score) for score in range(1, 6)}
    return mean_known(known.get(score.strip(), math.nan) for score in scores.split(","))
