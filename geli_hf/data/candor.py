"""CANDOR: two people talk for half an hour, each rates the other's company, and a camera watches both.

One folder, or one zip, per conversation. Each conversation gives two sessions, one per rater: the rater is the `user`
who listens, whose survey gives the score and whose face gives the feedback; the partner is the `assistant`.
Data: Reece et al., "The CANDOR corpus", Science Advances 2023; access on request.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..affect.behaviour import behaviour_of_turns, joined
from ..affect.emotions import FACE_COLUMNS
from ..affect.turns import affect_of_turns
from ..sessions import Session, SessionError, Turn, session_features, span
from .candor_files import SURVEY, Unreadable, conversations, open_conversation
from .candor_tables import FEATURES, RATINGS, Observed, Spoken, number_columns, read_observed, read_scores, read_turns
from .reading import Corpus, Skipped, in_order, mean_known

SEGMENTATIONS = ("cliffhanger", "backbiter", "audiophile")
PERSPECTIVES = ("both", "first", "second")
# Scales of the survey, where they are documented; a rating outside is no rating.
SCALES = {"overall_affect": (1, 9), "conversationalist": (0, 100), "good_for_advice": (0, 100)}
# Columns of the survey that identify or describe a person and are no rating of the conversation.
NO_RATINGS = {"user_id", "partner_id", "convo_id", "date", "sex", "age", "race", "edu", "politics", "employ"}

UNOBSERVED = Observed(np.zeros(0), np.zeros((0, len(FACE_COLUMNS))), {})


def open_corpus(
    data_dir: str | Path,
    *,
    score: str | Sequence[str] = "overall_affect",
    segmentation: str = "cliffhanger",
    perspectives: str = "both",
    affect: bool = True,
    behaviour: bool = False,
    backchannels: bool = False,
    num_proc: int = 1,
) -> Corpus:
    """
    Args:
        data_dir: holds one folder, or one zip, per conversation; or is itself one conversation's. A zip is not
            unpacked, and not read beside a folder of its name.
        score: survey column that is the session's score. Of several rows of one person the first with a score counts.
            Several columns: the first is the score, and `scores` holds all of them, NaN where one of the others was
            not answered.
        segmentation: how speech was cut into turns: "cliffhanger", "backbiter" or "audiophile".
        perspectives: "both", or "first" or "second", in the order in which the two first speak, for the rater.
        affect: read the listener's face as feedback `affect` and `affect_mean` (see `affect.turns`). Where a
            conversation has no features, nothing was observed.
        behaviour: the listener's face, and where the features have them gaze, pitch and intensity, in words (see
            `affect.behaviour`), as in "listener smiles through most of this turn, looks away at the end".
        backchannels: what the listener threw in during a turn ("mhm") in `behaviour`, such as 'said "Yeah", "Mhm"';
            only "backbiter" tells. With both, it comes after a semicolon.
        num_proc: processes that read. It changes no row and not their order. Where Python starts processes afresh
            (macOS, Windows), a script has to call this under `if __name__ == "__main__":`.

    A turn lasts from the least start of its rows to the greatest stop, as the transcript has them: turns may overlap,
    and one that stops before it starts keeps its times and has no feedback.

    A conversation folder may also hold `turn_ratings.csv` (`turn_id`, `rating`), ratings of single turns, which CANDOR
    does not have and the sample does; they become `turn_rating`.
    """
    for name, value, known in (
        ("segmentation", segmentation, SEGMENTATIONS),
        ("perspectives", perspectives, PERSPECTIVES),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    if backchannels and segmentation != "backbiter":
        raise ValueError(f"backchannels: only segmentation='backbiter' marks them, not {segmentation!r}")
    if isinstance(num_proc, bool) or not isinstance(num_proc, int) or num_proc < 1:
        raise ValueError(f"num_proc: expected a number of processes from 1, found {num_proc!r}")
    scores = [score] if isinstance(score, str) else list(score)
    if not scores or len(set(scores)) < len(scores):
        raise ValueError(f"score: expected a column of the survey, or several different ones, found {score!r}")
    if described := NO_RATINGS.intersection(scores):
        raise ValueError(f"score: {min(described)!r} describes a person or the talk and is no rating of it")

    homes = conversations(Path(data_dir))
    rated = any(_rated(home) for home in homes)
    reader = _Reader(
        scores, not isinstance(score, str), segmentation, perspectives, affect, behaviour, backchannels, rated
    )
    features = session_features(
        ["affect", "affect_mean"] if affect else [],
        scores=scores if reader.several else [],
        times=True,
        behaviour=behaviour or backchannels,
        turn_rating=rated,
    )

    def rows() -> Iterator[Session | Skipped]:
        _check_scores(data_dir, homes, scores)
        for sessions in in_order(reader.sessions, homes, num_proc):
            yield from sessions

    return Corpus([file for home in homes for file in reader.files(home)], features, rows, where=str(data_dir))


def _rated(home: Path) -> bool:
    try:
        return open_conversation(home).has(RATINGS)
    except Unreadable:  # counted when it is read
        return False


def _check_scores(data_dir: str | Path, homes: Sequence[Path], scores: Sequence[str]) -> None:
    """Before minutes of reading: is each of them a column of numbers in any survey? Mostly the first one tells."""
    wanted = set(scores)
    for home in homes:
        wanted -= _number_columns(home, wanted)
        if not wanted:
            return
    if columns := set().union(*map(_number_columns, homes)):
        raise SessionError(
            f"score: no survey in {data_dir} has a column {min(wanted)!r} of numbers; "
            f"there are {', '.join(sorted(columns - NO_RATINGS))}"
        )


def _number_columns(home: Path, among: Collection[str] | None = None) -> set[str]:
    try:
        return number_columns(open_conversation(home), among)
    except Unreadable:  # counted when it is read
        return set()


@dataclass(frozen=True)
class _Reader:
    """The options; it travels to the processes that read."""

    scores: Sequence[str]
    several: bool
    segmentation: str
    perspectives: str
    affect: bool
    behaviour: bool
    backchannels: bool
    rated: bool

    def files(self, home: Path) -> list[Path]:
        """What is read of a conversation, whether it is there or not."""
        if not home.is_dir():
            return [home]
        names = [SURVEY, f"transcription/transcript_{self.segmentation}.csv", RATINGS]
        return [home / name for name in [*names, *([FEATURES] if self.affect or self.behaviour else [])]]

    def sessions(self, home: Path) -> list[Session | Skipped]:
        expected = 2 if self.perspectives == "both" else 1
        try:
            source = open_conversation(home)
            answers = read_scores(source, self.scores)
            turns = read_turns(source, self.segmentation, rated=self.rated, backchannels=self.backchannels)
            observed = read_observed(source, senses=self.behaviour) if self.affect or self.behaviour else {}
            speakers = list(dict.fromkeys(turn.speaker for turn in turns))
            if len(speakers) != 2:
                raise Unreadable(f"{len(speakers)} speaker{'s' * (len(speakers) != 1)} in the transcript, not 2")
        except Unreadable as error:
            return [Skipped(str(error), home.name)] * expected
        times = np.array([span(turn.rows) for turn in turns]).T
        raters = {"both": speakers, "first": speakers[:1], "second": speakers[1:]}[self.perspectives]
        return [
            self._of_rater(home, turns, times, rater, answers, observed.get(rater, UNOBSERVED)) for rater in raters
        ]

    def _of_rater(
        self,
        home: Path,
        turns: list[Turn],
        times: np.ndarray,
        rater: str,
        answers: list[dict[str, float]],
        seen: Observed,
    ) -> Session | Skipped:
        scores = {name: answer.get(rater, math.nan) for name, answer in zip(self.scores, answers)}
        name, score = self.scores[0], scores[self.scores[0]]
        if math.isnan(score):
            return Skipped(f"no {name} from the rater")
        for column, (low, high) in SCALES.items():
            if column in scores and not low <= scores[column] <= high:
                scores[column] = math.nan
        if math.isnan(scores[name]):
            return Skipped("{} outside of {}..{}".format(name, *SCALES[name]))

        conversation = home.stem if home.suffix.lower() == ".zip" and not home.is_dir() else home.name
        start, stop = times
        session = {
            "session_id": f"{conversation}/{rater}",
            "conversation_id": conversation,
            "rater_id": rater,
            "messages": [
                {"role": "user" if turn.speaker == rater else "assistant", "content": turn.text} for turn in turns
            ],
            "score": score,
            "start": start.tolist(),
            "stop": stop.tolist(),
        }
        if self.several:
            session["scores"] = scores
        rewarded = [turn for turn in turns if turn.speaker != rater]
        if self.rated:
            session["turn_rating"] = [float(mean_known(row.rating for row in turn.rows)) for turn in rewarded]
        spoken = np.array([turn.speaker != rater for turn in turns])
        start, stop = start[spoken], stop[spoken]
        if self.behaviour or self.backchannels:
            shown = said = [""] * len(rewarded)
            if self.behaviour:
                faces = {"probabilities": seen.probabilities, **seen.senses}
                shown = behaviour_of_turns(seen.seconds, start, stop, **faces)
            if self.backchannels:
                said = [_said(turn.rows, rater) for turn in rewarded]
            session["behaviour"] = [joined(*texts) for texts in zip(shown, said)]
        if self.affect:
            words = np.array([len(turn.text.split()) for turn in rewarded])
            hard, mean = affect_of_turns(seen.seconds, seen.probabilities, start, stop, words)
            session["feedback"] = {"affect": hard.tolist(), "affect_mean": mean.tolist()}
        return session


def _said(rows: Sequence[Spoken], listener: str) -> str:
    """The listener's back-channels in words; "" if there was none."""
    heard = [row for row in rows if row.listener in ("", listener)]
    said = [words for row in heard for words in row.backchannels]
    count = sum(row.backchannel_count for row in heard)
    spelled = "said " + ", ".join(f'"{words}"' for words in said) if said else ""
    if count <= len(said):
        return spelled
    counted = f"{count} back-channel{'s' * (count > 1)}"
    return f"{spelled} ({counted})" if said else counted
