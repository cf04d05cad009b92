"""CANDOR: two people talk for half an hour, each rates the other's company, and a camera watches both.

One folder, or one zip, per conversation. Each conversation gives two sessions, one per rater: the rater is the `user`
who listens, whose survey gives the score and whose face gives the feedback; the partner is the `assistant`.
Data: Reece et al., "The CANDOR corpus", Science Advances 2023; access on request.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from transformers.utils import logging

from ..sessions import Session, SessionError, session_features
from .candor_affect import EMOTIONS, affect_of_turns
from .reading import Corpus, Skipped, Turn, mean_known, merge_turns

logger = logging.get_logger(__name__)

SEGMENTATIONS = ("cliffhanger", "backbiter", "audiophile")
PERSPECTIVES = ("both", "first", "second")
# Scales of the survey, where they are documented; a rating outside is no rating.
SCALES = {"overall_affect": (1, 9), "conversationalist": (0, 100), "good_for_advice": (0, 100)}
SURVEY, FEATURES, RATINGS = "survey.csv", "audio_video_features.csv", "turn_ratings.csv"
# Columns of the survey that identify or describe a person and are no rating of the conversation.
NO_RATINGS = {"user_id", "partner_id", "convo_id", "date", "sex", "age", "race", "edu", "politics", "employ"}
MISSING = ["", "NA", "NaN", "nan", "null"]
FACE_COLUMNS = [f"prob_face_{emotion}" for emotion in EMOTIONS]


def open_corpus(
    data_dir: str | Path,
    *,
    score: str = "overall_affect",
    segmentation: str = "cliffhanger",
    perspectives: str = "both",
    affect: bool = True,
) -> Corpus:
    """
    Args:
        data_dir: holds one folder, or one zip, per conversation; or is itself one conversation's folder. A zip beside
            a folder of its name is not read.
        score: survey column that is the session's score. Of several rows of one person the first with a score counts.
        segmentation: how speech was cut into turns: "cliffhanger", "backbiter" or "audiophile".
        perspectives: "both", or "first" or "second", in the order in which the two first speak, for the rater.
        affect: read the listener's face as feedback `affect` and `affect_mean` (see `candor_affect`). Where a
            conversation has no features, nothing was observed.

    A conversation folder may also hold `turn_ratings.csv` (`turn_id`, `rating`), ratings of single turns, which CANDOR
    does not have and the sample does; they become `turn_rating`.
    """
    for name, value, known in (
        ("segmentation", segmentation, SEGMENTATIONS),
        ("perspectives", perspectives, PERSPECTIVES),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    if score in NO_RATINGS:
        raise ValueError(f"score: {score!r} describes a person or the talk and is no rating of it")
    homes = _conversations(Path(data_dir))
    # The folder too: a file that is gone or new changes it.
    files = [path for home in homes for path in ([home] if home.is_file() else [home, *sorted(home.rglob("*.csv"))])]
    rated = any(_rated(home) for home in homes)
    features = session_features(["affect", "affect_mean"] if affect else [], times=True, turn_rating=rated)

    def rows() -> Iterator[Session | Skipped]:
        reader = _Reader(score, segmentation, perspectives, affect, rated)
        found = False
        for home in homes:
            for row in reader.sessions(home):
                found |= not isinstance(row, Skipped)
                yield row
        if not found and reader.columns and score not in reader.columns:
            raise SessionError(
                f"score: no survey in {data_dir} has a column {score!r} of numbers; "
                f"there are {', '.join(sorted(reader.columns))}"
            )

    return Corpus(files, features, rows, where=str(data_dir))


class _Unreadable(Exception):
    """A conversation that can't be read; the message is the reason."""


class _Refused(_Unreadable):
    """A zip that somebody should look at, so its name is told, and not only the count."""


class _Folder:
    def __init__(self, path: Path):
        self.path = path

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    """A conversation's zip, read in memory. Its members may stand under one top folder."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError):
            raise _Unreadable("the zip can't be read (half-downloaded?)") from None
        self.names = {member.filename for member in members}
        paths = [PurePosixPath(name) for name in self.names]
        surveys = [name for name in self.names if PurePosixPath(name).name == SURVEY]
        if any(path.is_absolute() or ".." in path.parts for path in paths):
            raise _Refused("the zip has members that point outside of it")
        if any(member.flag_bits & 1 for member in members):
            raise _Refused("the zip is encrypted; unpack it with its password")
        if len(surveys) > 1:
            raise _Refused("the zip holds several conversations; unpack it")
        if not surveys and any(path.suffix == ".zip" for path in paths):
            raise _Refused("the zip holds zips; unpack it")
        self.top = surveys[0].removesuffix(SURVEY) if surveys else ""

    def has(self, name: str) -> bool:
        return self.top + name in self.names

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(self.top + name)


def _open(home: Path) -> _Folder | _Zip:
    return _Zip(home) if home.is_file() else _Folder(home)


def _rated(home: Path) -> bool:
    try:
        return _open(home).has(RATINGS)
    except _Unreadable:  # counted when it is read
        return False


def _conversations(data_dir: Path) -> list[Path]:
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir: {data_dir} is no folder; it should hold one folder or zip per conversation"
        )
    if (data_dir / SURVEY).is_file() or (data_dir / "transcription").is_dir():
        return [data_dir]
    visible = [path for path in sorted(data_dir.iterdir()) if path.name[0] not in "._"]
    folders = [path for path in visible if path.is_dir()]
    unpacked = {path.name for path in folders}
    homes = folders + [path for path in visible if path.suffix == ".zip" and path.stem not in unpacked]
    if not homes:
        raise FileNotFoundError(f"data_dir: {data_dir} holds no conversation, neither folders nor zips")
    return homes


def _table(source: _Folder | _Zip, name: str, needed: Sequence[str], *, others: bool = False) -> pd.DataFrame:
    """The needed columns of a CSV file, or all."""
    if not source.has(name):
        raise _Unreadable(f"{name} is missing (half-downloaded?)")
    try:
        table = pd.read_csv(
            io.BytesIO(source.read(name)),
            encoding="utf-8-sig",
            usecols=None if others else lambda column: column in needed,
            # Ids may look like numbers, and "null" or "NA" may be all that somebody says.
            dtype=dict.fromkeys(("user_id", "speaker", "turn_id", "utterance"), str),
            keep_default_na=others,
            na_values=None if others else {column: MISSING for column in needed if column != "utterance"},
        )
    # What a broken file makes of pandas (ValueError covers its own, and text that is not UTF-8) and of zipfile.
    except (ValueError, OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise _Unreadable(f"{name} can't be read as CSV") from None
    if missing := [column for column in needed if column not in table]:
        raise _Unreadable(f"{name} has no column {', '.join(missing)}")
    return table


def _numbers(column: pd.Series) -> np.ndarray:
    """Numbers, NaN for what is none."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


@dataclass
class _Reader:
    """The options, and the survey columns met so far that could be a score."""

    score: str
    segmentation: str
    perspectives: str
    affect: bool
    rated: bool
    columns: set[str] = field(default_factory=set)

    def sessions(self, home: Path) -> Iterator[Session | Skipped]:
        expected = 2 if self.perspectives == "both" else 1
        try:
            source = _open(home)
            scores = self._scores(source)
            turns = self._turns(source)
            faces = self._faces(source) if self.affect else {}
            speakers = list(dict.fromkeys(turn.speaker for turn in turns))
            if len(speakers) != 2:
                raise _Unreadable(f"{len(speakers)} speaker{'s' * (len(speakers) != 1)} in the transcript, not 2")
        except _Unreadable as error:
            tell = logger.warning if isinstance(error, _Refused) else logger.info
            tell(f"{home}: {error}")
            yield from [Skipped(str(error))] * expected
            return
        raters = {"both": speakers, "first": speakers[:1], "second": speakers[1:]}[self.perspectives]
        low, high = SCALES.get(self.score, (-math.inf, math.inf))
        for rater in raters:
            score = scores.get(rater)
            if score is None:
                yield Skipped(f"no {self.score} from the rater")
            elif not low <= score <= high:
                yield Skipped(f"{self.score} outside of {low}..{high}")
            else:
                yield self._session(home, turns, rater, score, faces.get(rater))

    def _scores(self, source: _Folder | _Zip) -> dict[str, float]:
        survey = _table(source, SURVEY, ["user_id"], others=True)
        self.columns |= set(survey.select_dtypes("number")) - NO_RATINGS
        if self.score not in survey:
            raise _Unreadable(f"{SURVEY} has no column {self.score}")
        given = pd.Series(_numbers(survey[self.score]), index=survey["user_id"]).dropna()
        return given[~given.index.duplicated()].to_dict()

    def _turns(self, source: _Folder | _Zip) -> list[Turn]:
        """The rows of the transcript, merged; the entry of a row is its start, stop and rating."""
        name = f"transcription/transcript_{self.segmentation}.csv"
        table = _table(source, name, ["turn_id", "speaker", "start", "stop", "utterance"])
        table = table[table["speaker"].notna()]
        rating = np.full(len(table), np.nan)
        if self.rated and source.has(RATINGS):
            ratings = _table(source, RATINGS, ["turn_id", "rating"]).drop_duplicates("turn_id").set_index("turn_id")
            rating = _numbers(table["turn_id"].map(ratings["rating"]))
        entries = zip(_numbers(table["start"]), _numbers(table["stop"]), rating)
        return merge_turns(zip(table["speaker"], table["utterance"], entries))

    def _faces(self, source: _Folder | _Zip) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Seconds (n,) and emotion probabilities (n, 8) of each person; nothing without a features file."""
        if not source.has(FEATURES):
            return {}
        table = _table(source, FEATURES, ["timedelta", "user_id", *FACE_COLUMNS])
        seconds = pd.to_timedelta(table["timedelta"], errors="coerce").dt.total_seconds().to_numpy()
        probabilities = np.stack([_numbers(table[column]) for column in FACE_COLUMNS], 1)
        return {
            person: (seconds[rows], probabilities[rows]) for person, rows in table.groupby("user_id").indices.items()
        }

    def _session(
        self, home: Path, turns: list[Turn], rater: str, score: float, face: tuple[np.ndarray, np.ndarray] | None
    ) -> Session:
        conversation = home.stem if home.is_file() else home.name
        rewarded = [turn for turn in turns if turn.speaker != rater]
        session = {
            "session_id": f"{conversation}/{rater}",
            "conversation_id": conversation,
            "rater_id": rater,
            "messages": [
                {"role": "user" if turn.speaker == rater else "assistant", "content": turn.text} for turn in turns
            ],
            "score": score,
            "start": [float(turn.rows[0][0]) for turn in turns],
            "stop": [float(turn.rows[-1][1]) for turn in turns],
        }
        if self.rated:
            session["turn_rating"] = [float(mean_known(rating for _, _, rating in turn.rows)) for turn in rewarded]
        if self.affect:
            seconds, probabilities = face or (np.zeros(0), np.zeros((0, len(EMOTIONS))))
            start = np.array([turn.rows[0][0] for turn in rewarded])
            stop = np.array([turn.rows[-1][1] for turn in rewarded])
            words = np.array([len(turn.text.split()) for turn in rewarded])
            hard, mean = affect_of_turns(seconds, probabilities, start, stop, words)
            session["feedback"] = {"affect": hard.tolist(), "affect_mean": mean.tolist()}
        return session
