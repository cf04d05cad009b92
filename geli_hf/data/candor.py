"""CANDOR: two people talk for half an hour, each rates the other's company, and a camera watches both.

One folder, or one zip, per conversation. Each conversation gives two sessions, one per rater: the rater is the `user`
who listens, whose survey gives the score and whose face gives the feedback; the partner is the `assistant`.
Data: Reece et al., "The CANDOR corpus", Science Advances 2023; access on request.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..sessions import Session, SessionError, session_features
from .candor_affect import EMOTIONS, affect_of_turns
from .reading import Corpus, Skipped

SEGMENTATIONS = ("cliffhanger", "backbiter", "audiophile")
PERSPECTIVES = ("both", "first", "second")
# Scales of the survey, where they are documented; a rating outside is no rating.
SCALES = {"overall_affect": (1, 9), "conversationalist": (0, 100), "good_for_advice": (0, 100)}
SURVEY, FEATURES, RATINGS = "survey.csv", "audio_video_features.csv", "turn_ratings.csv"
# Columns of the survey that identify or describe a person and are no rating of the conversation.
NO_RATINGS = {"user_id", "partner_id", "convo_id", "date", "sex", "age", "race", "edu", "politics", "employ"}
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
        data_dir: holds one folder, or one zip, per conversation; or is itself one conversation's folder.
        score: survey column that is the session's score.
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
    homes = _conversations(Path(data_dir))
    files = [file for home in homes for file in ([home] if home.is_file() else sorted(home.rglob("*.csv")))]
    rated = any(_open(home).has(RATINGS) for home in homes if not _broken(home))
    features = session_features(["affect", "affect_mean"] if affect else [], times=True, turn_rating=rated)

    def rows() -> Iterator[Session | Skipped]:
        columns: set[str] = set()
        found = False
        for home in homes:
            for row in _read(home, score, segmentation, perspectives, affect, rated, columns):
                found |= not isinstance(row, Skipped)
                yield row
        if not found and columns and score not in columns:
            raise SessionError(
                f"score: no survey in {data_dir} has a column {score!r}; there are {', '.join(sorted(columns))}"
            )

    return Corpus(files, features, rows, where=str(data_dir))


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
        with zipfile.ZipFile(path) as archive:
            self.archive, names = path, archive.namelist()
        for name in names:
            if name.startswith("/") or ".." in Path(name).parts:
                raise zipfile.BadZipFile(f"member {name!r} points outside of the archive")
        surveys = [name for name in names if Path(name).name == SURVEY]
        self.top = surveys[0][: -len(SURVEY)] if surveys else ""
        self.names = set(names)

    def has(self, name: str) -> bool:
        return self.top + name in self.names

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self.archive) as archive:
            return archive.read(self.top + name)


def _open(home: Path) -> _Folder | _Zip:
    return _Zip(home) if home.is_file() else _Folder(home)


def _broken(home: Path) -> bool:
    try:
        _open(home)
    except (zipfile.BadZipFile, OSError):
        return True
    return False


def _conversations(data_dir: Path) -> list[Path]:
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir: {data_dir} is no folder; it should hold one folder or zip per conversation"
        )
    if (data_dir / SURVEY).is_file() or (data_dir / "transcription").is_dir():
        return [data_dir]
    homes = sorted(p for p in data_dir.iterdir() if (p.is_dir() and p.name[0] not in "._") or p.suffix == ".zip")
    if not homes:
        raise FileNotFoundError(f"data_dir: {data_dir} holds no conversation, neither folders nor zips")
    return homes


class _Unreadable(Exception):
    """A conversation that can't be read; the message is the reason."""


def _table(source: _Folder | _Zip, name: str, needed: list[str]) -> pd.DataFrame:
    if not source.has(name):
        raise _Unreadable(f"{name} is missing (half-downloaded?)")
    try:
        table = pd.read_csv(
            io.BytesIO(source.read(name)), encoding="utf-8-sig", dtype={"user_id": str, "speaker": str}
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, RuntimeError, zipfile.BadZipFile):
        raise _Unreadable(f"{name} can't be read as CSV") from None
    missing = [column for column in needed if column not in table]
    if missing:
        raise _Unreadable(f"{name} has no column {', '.join(missing)}")
    return table


def _read(home, score, segmentation, perspectives, affect, rated, columns) -> Iterator[Session | Skipped]:
    sessions = 2 if perspectives == "both" else 1
    try:
        source = _open(home)
        survey = _table(source, SURVEY, ["user_id"])
        columns |= {name for name in survey.select_dtypes("number") if name not in NO_RATINGS}
        if score not in survey:
            raise _Unreadable(f"{SURVEY} has no column {score}")
        turns = _turns(source, segmentation, rated)
        faces = _faces(source) if affect else {}
    except (_Unreadable, zipfile.BadZipFile) as error:
        yield from [Skipped(str(error) or "the zip can't be read")] * sessions
        return

    speakers = list(dict.fromkeys(turns["speaker"]))
    if len(speakers) != 2:
        yield from [
            Skipped(f"{len(speakers)} speaker{'s' * (len(speakers) != 1)} in the transcript, not 2")
        ] * sessions
        return
    raters = {"both": speakers, "first": speakers[:1], "second": speakers[1:]}[perspectives]
    scores = pd.to_numeric(survey[score], errors="coerce")
    low, high = SCALES.get(score, (-np.inf, np.inf))
    for rater in raters:
        given = scores[(survey["user_id"] == rater).to_numpy()].dropna()
        if not len(given):
            yield Skipped(f"no {score} from the rater")
        elif not low <= given.iloc[0] <= high:
            yield Skipped(f"{score} outside of {low}..{high}")
        else:
            yield _session(home, turns, rater, float(given.iloc[0]), faces.get(rater), affect, rated)


def _turns(source: _Folder | _Zip, segmentation: str, rated: bool) -> dict[str, list]:
    """The transcript's rows with text, successive rows of one speaker merged into one turn."""
    name = f"transcription/transcript_{segmentation}.csv"
    table = _table(source, name, ["turn_id", "speaker", "start", "stop", "utterance"])
    rating = np.full(len(table), np.nan)
    if rated and source.has(RATINGS):
        given = (
            _table(source, RATINGS, ["turn_id", "rating"]).drop_duplicates("turn_id").set_index("turn_id")["rating"]
        )
        rating = table["turn_id"].map(given).to_numpy(float)
    turns = {"speaker": [], "text": [], "start": [], "stop": [], "ratings": []}
    rows = zip(
        table["speaker"],
        table["utterance"],
        pd.to_numeric(table["start"], errors="coerce"),
        pd.to_numeric(table["stop"], errors="coerce"),
        rating,
    )
    for speaker, text, start, stop, value in rows:
        if not isinstance(text, str) or not text.strip() or not isinstance(speaker, str):
            continue
        if turns["speaker"] and turns["speaker"][-1] == speaker:
            turns["text"][-1] += f" {text.strip()}"
            turns["stop"][-1] = stop
            turns["ratings"][-1].append(value)
            continue
        for column, entry in zip(turns, (speaker, text.strip(), start, stop, [value])):
            turns[column].append(entry)
    return turns


def _faces(source: _Folder | _Zip) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Seconds (n,) and emotion probabilities (n, 8) of each person; nothing without a features file."""
    if not source.has(FEATURES):
        return {}
    table = _table(source, FEATURES, ["timedelta", "user_id", *FACE_COLUMNS])
    seconds = pd.to_timedelta(table["timedelta"], errors="coerce").dt.total_seconds().to_numpy()
    probabilities = table[FACE_COLUMNS].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    known = ~np.isnan(seconds)
    people = table["user_id"].to_numpy()
    return {
        person: (seconds[known & (people == person)], probabilities[known & (people == person)])
        for person in pd.unique(people)
    }


def _session(home, turns, rater, score, face, affect, rated) -> Session:
    theirs = [speaker != rater for speaker in turns["speaker"]]
    conversation = home.stem if home.is_file() else home.name
    session = {
        "session_id": f"{conversation}/{rater}",
        "conversation_id": conversation,
        "rater_id": rater,
        "messages": [
            {"role": "assistant" if rewarded else "user", "content": text}
            for rewarded, text in zip(theirs, turns["text"])
        ],
        "score": score,
        "start": turns["start"],
        "stop": turns["stop"],
    }
    if rated:
        ratings = [np.array(values) for values, rewarded in zip(turns["ratings"], theirs) if rewarded]
        session["turn_rating"] = [np.nan if np.isnan(each).all() else float(np.nanmean(each)) for each in ratings]
    if affect:
        start, stop = (np.array(turns[column], float)[theirs] for column in ("start", "stop"))
        words = np.array([len(text.split()) for text, rewarded in zip(turns["text"], theirs) if rewarded])
        seconds, probabilities = face if face is not None else (np.zeros(0), np.zeros((0, len(EMOTIONS))))
        hard, mean = affect_of_turns(seconds, probabilities, start, stop, words)
        session["feedback"] = {"affect": hard.tolist(), "affect_mean": mean.tolist()}
    return session
