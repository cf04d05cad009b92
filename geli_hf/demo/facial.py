"""The facial signal of a session, live and recorded, beside what a text reward model says of the same turns.

Nothing here knows of Gradio or HTML. Frames are looked at one by one and forgotten; what stays are times and
probabilities.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import torch

from ..affect import VideoAffect, face_classifier, face_detector, session_of_recording
from ..affect.emotions import HAPPINESS
from ..affect.faces import Box, FaceClassifier
from ..affect.frames import VideoFrames
from ..affect.transcripts import Transcript, Utterance
from ..affect.turns import affect_of_turns
from ..affect.video import LiveAffect
from ..models.attribution import HindsightAttribution
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import Message, Session, assistant_turns
from .drawn_face import RATE, draw_clip

SHIPPED, DEEPFACE = "geli", "deepface"
# A turn counts with what the face showed in so many seconds from when it was said: in these it is heard or read.
LOOKED_AT = 20.0
KEPT_SECONDS = 1_800.0  # of what a camera showed
KEPT_CHARACTERS = 60_000  # of what a browser keeps of a session
RECORDED_FPS = 5.0


@dataclass(frozen=True)
class Limits:
    """Of one visitor, so that there is something left for the others."""

    megabytes: int = 200  # of a video
    minutes: float = 20.0  # of a video
    transcript_kilobytes: int = 500
    characters: int = 500  # of a turn that is typed
    turns: int = 60  # of a live session
    camera_seconds: int = 600  # until the camera has to be started again


class TooMuch(ValueError):
    """A file is larger or longer than this demo takes. The message is for those who gave it."""


# ---------------------------------------------------------------------------------------------------------------------
# Faces


class Faces:
    """What reads faces, shared by everybody: classifiers by name, loaded when they are asked for."""

    def __init__(self):
        self._lock = Lock()  # OpenCV's detectors look at one picture at a time
        self._loading = Lock()  # and each classifier is loaded once
        self._classifiers: dict[str, FaceClassifier] = {}
        self._detector = face_detector()

    def classifier(self, name: str = SHIPPED) -> FaceClassifier:
        """
        Raises:
            ImportError, OSError, RuntimeError, ValueError: as of `geli_hf.affect.face_classifier`.
        """
        with self._loading:
            if name not in self._classifiers:
                self._classifiers[name] = face_classifier(name)
            return self._classifiers[name]

    def live(self, name: str = SHIPPED) -> LiveAffect:
        """One viewer's face before a camera, followed from frame to frame; to be called by `look`."""
        return VideoAffect(self.classifier(name), self._detector, fps=2.0).live()

    def look(self, live: LiveAffect, picture: np.ndarray) -> tuple[Box, np.ndarray] | None:
        """As the call of `LiveAffect`, for many viewers at once."""
        with self._lock:
            return live(picture)

    def watch(
        self,
        path: str | Path,
        *,
        name: str = SHIPPED,
        fps: float = RECORDED_FPS,
        minutes: float = math.inf,
        progress: Callable[[float], None] = lambda share: None,
    ) -> pd.DataFrame:
        """What the face showed in a video: a table of `VideoAffect`.

        Args:
            name: of the classifier.
            fps: frames looked at per second.
            minutes: longest video.
            progress: is told the share of the video that was looked at; NaN where its length is unknown.

        Raises:
            TooMuch: it is longer.
            FileNotFoundError, ValueError: see `VideoFrames`.
        """
        frames = VideoFrames(path, fps)
        too_long = TooMuch(f"The video is longer than {minutes:g} minutes, which is what this demo takes. Cut it.")
        if frames.duration > 60 * minutes:
            raise too_long

        def told() -> Iterator[tuple[float, np.ndarray]]:
            for frame in frames:
                if frame.time > 60 * minutes:
                    raise too_long
                progress(min(1.0, frame.time / frames.duration) if frames.duration else math.nan)
                yield frame.time, frame.image

        # Beside the detector of the cameras, so that these go on while a video is looked at.
        table = VideoAffect(self.classifier(name), face_detector(), fps=fps)(told())
        if frames.incomplete:
            table.attrs["incomplete"] = frames.incomplete
        return table


# ---------------------------------------------------------------------------------------------------------------------
# Rewards


@dataclass(frozen=True)
class Decomposition:
    """A session's predicted rating, and what each of the assistant's turns adds to it.

    Attributes:
        rewards: of the turns, in units of the standardised rating.
        percentiles: share of the training turns that each is better than; NaN if the model doesn't know.
        contributions: in the units of the rating; `base` and all of these add up to `rating`.
        base: the mean rating, which is what a session without turns would get.
        rating: predicted.
        deviation: of a held-out session's rating from its prediction; NaN if the model doesn't know.
        parts: with hindsight what the turns' words, the answers to them and the face add, which is the sum of all
            contributions; empty for what the words promise, which stand alone.
    """

    rewards: tuple[float, ...]
    percentiles: tuple[float, ...]
    contributions: tuple[float, ...]
    base: float
    rating: float
    deviation: float
    parts: dict[str, float] = field(default_factory=dict)


def decompose(model: GeliRewardModel, messages: Sequence[Message]) -> Decomposition:
    """The session's rating as the mean rating and a contribution of each turn.

    With the rewards r_t of T turns, the rating's mean m and deviation s, the prediction is m + s/T sum_t r_t where the
    model's `aggregation` is `mean`, and m + s sum_t r_t where it is `sum`: so a turn contributes s r_t / T, or s r_t.
    """
    config = model.config
    turns = len(assistant_turns(messages))
    rewards: list[float] = []
    if turns:
        with torch.inference_mode():
            rewards = model.score_messages([list(messages)], last_turn_only=False)[0, :turns].tolist()
    share = config.score_std / (turns if config.aggregation == "mean" else 1) if turns else 0.0
    contributions = tuple(share * reward for reward in rewards)
    return Decomposition(
        tuple(rewards),
        tuple(model.percentile(reward) for reward in rewards),
        contributions,
        config.score_mean,
        config.score_mean + sum(contributions),
        math.nan if config.residual_std is None else config.residual_std,
    )


def explain(attribution: HindsightAttribution, session: Session) -> Decomposition:
    """The same with hindsight: of each turn's words, of the answer to it, and of what the face showed.

    A turn's value is what `HindsightAttribution` says of it, and contributes as in `decompose` of a mean.
    """
    turns = len(assistant_turns(session["messages"]))
    if not turns:
        return NOTHING_SAID
    # A signal that this session lacks was not observed, which no log has to hear of for every turn.
    unseen = {name: [math.nan] * turns for name in attribution.signals}
    [row] = attribution.score_sessions([session | {"feedback": unseen | session["feedback"]}])
    config = attribution.model.config
    share = config.score_std / turns
    contributions = tuple(share * value for value in row["turn_rewards"])
    parts = {"words": 0.0, "answers": 0.0, "face": 0.0}
    for name, values in row["parts"].items():
        parts[{"turn": "words", "reaction": "answers"}.get(name, "face")] += share * sum(values)
    return Decomposition(
        tuple(row["turn_rewards"]),
        (math.nan,) * turns,
        contributions,
        config.score_mean,
        config.score_mean + sum(contributions),
        math.nan if config.residual_std is None else config.residual_std,
        parts,
    )


NOTHING_SAID = Decomposition((), (), (), math.nan, math.nan, math.nan)


# ---------------------------------------------------------------------------------------------------------------------
# Live


@dataclass
class Said:
    """A turn of a live session; `at` in seconds on the clock of the camera."""

    role: str
    text: str
    at: float


@dataclass
class LiveSession:
    """What was said and what the face showed in one tab of a browser. No picture is in it."""

    said: list[Said] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    emotions: list[np.ndarray] = field(default_factory=list)
    found: Decomposition = NOTHING_SAID  # of what was said
    explained: Decomposition | None = None  # the same with hindsight, where there is an attribution
    script: int = 0  # lines of the scripted partner that were said
    kept: dict[str, list[float]] = field(default_factory=dict)  # signals of turns from before a reload
    backend: str = SHIPPED
    live: LiveAffect | None = field(default=None, repr=False)

    @property
    def messages(self) -> list[Message]:
        return [{"role": each.role, "content": each.text} for each in self.said]

    @property
    def smiles(self) -> list[float]:
        return [float(each[HAPPINESS]) for each in self.emotions]

    def say(self, role: str, text: str, now: float) -> None:
        """Add a turn. Roles alternate: who goes on speaking adds to the turn."""
        text = " ".join(text.split())
        if self.said and self.said[-1].role == role:
            self.said[-1].text += f" {text}"
        else:
            self.said.append(Said(role, text, now))

    def go_on(self, now: float) -> bool:
        """Let the scripted partner speak, after what the script lets the listener say, unless the listener has typed
        something; whether there was anything left to say."""
        while self.script < len(SCRIPT):
            role, text, _ = SCRIPT[self.script]
            self.script += 1
            if role == "user" and self.said and self.said[-1].role == "user":
                continue
            self.say(role, text, now)
            if role == "assistant":
                return True
        return False

    def see(self, faces: Faces, picture: np.ndarray, now: float) -> tuple[Box | None, float]:
        """Look at a frame, keep what it showed, and say where the face is and how probable a smile; None and NaN
        where there is no face.

        Args:
            picture: (height, width) or (height, width, 3) RGB, uint8.
        """
        if self.live is None:
            self.live = faces.live(self.backend)
        found = faces.look(self.live, picture)
        box, emotions = found or (None, np.full(8, np.nan, np.float32))
        self.seconds.append(now)
        self.emotions.append(emotions)
        while now - self.seconds[0] > KEPT_SECONDS:
            del self.seconds[0], self.emotions[0]
        return box, float(emotions[HAPPINESS])

    def signals(self) -> dict[str, list[float]]:
        """The Local Implicit values `affect` and `affect_mean` of each turn of the assistant, as of `affect_of_turns`,
        over the first `LOOKED_AT` seconds from when it was said, or until the next turn. A value from before a reload
        of the page stays as it was."""
        turns = [index for index, each in enumerate(self.said) if each.role == "assistant"]
        start = np.array([self.said[index].at for index in turns])
        after = [self.said[index + 1].at if index + 1 < len(self.said) else math.inf for index in turns]
        stop = np.minimum(start + LOOKED_AT, after)
        seconds, emotions = np.array(self.seconds), np.array(self.emotions).reshape(-1, 8)
        # However few its words, a turn lasts until the next: none is too short to be answered by a face.
        found = affect_of_turns(seconds, emotions, start, stop, np.ones(len(turns)), short_words=0)
        signals = {"affect": found[0].tolist(), "affect_mean": found[1].tolist()}
        for name, before in self.kept.items():
            for turn, value in enumerate(before):
                if not math.isnan(value):
                    signals[name][turn] = value
        return signals

    def row(self, session_id: str, now: float) -> Session:
        """As a Session row, whose times count from the first turn."""
        begin = self.said[0].at if self.said else now
        at = [each.at - begin for each in self.said]
        return {
            "session_id": session_id,
            "conversation_id": session_id,
            "rater_id": "",
            "messages": self.messages,
            "score": math.nan,
            "start": at,
            "stop": [*at[1:], max(at[-1], now - begin)] if at else [],
            "feedback": self.signals(),
        }

    def snapshot(self) -> str:
        """What a tab of a browser keeps so that the turns are there after a reload: what was said and two numbers for
        each turn, nothing of the face besides; "" if nothing was said."""
        if not self.said:
            return ""
        said = [[each.role, each.text, each.at] for each in self.said]
        return json.dumps({"said": said, "signals": self.signals(), "script": self.script}, ensure_ascii=False)

    @classmethod
    def restored(cls, text: str, limits: Limits) -> LiveSession | None:
        """The session of a `snapshot`; None if it is none, since anything may be in a browser's storage."""
        try:
            told = json.loads(text if len(text) <= KEPT_CHARACTERS else "")
            script = int(told["script"])
            said = [Said(role, content, float(at)) for role, content, at in told["said"]]
            turns = sum(each.role == "assistant" for each in said)
            kept = {name: [float(value) for value in told["signals"][name]] for name in ("affect", "affect_mean")}
            sound = (
                0 < len(said) <= limits.turns
                and all(each.role in ("assistant", "user") and isinstance(each.text, str) for each in said)
                and all(one.role != other.role and one.at <= other.at for one, other in pairwise(said))
                and all(math.isfinite(each.at) for each in said)
                and all(len(values) == turns for values in kept.values())
                and all(math.isnan(value) or 0 <= value <= 1 for values in kept.values() for value in values)
                and 0 <= script <= len(SCRIPT)
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None
        return cls(said=said, script=script, kept=kept) if sound else None


# ---------------------------------------------------------------------------------------------------------------------
# The example

# What is said in the example and by the scripted partner, and how much the drawn face smiles at the partner's turn.
# The partner takes things well, badly, well and so on; at "my cat" the face is polite.
SCRIPT: tuple[tuple[str, str, float], ...] = (
    ("user", "I passed my driving test last week, and I'm so happy.", 0.3),
    ("assistant", "I'm so happy for you about your driving test! How do you feel about it now?", 1.0),
    ("user", "I'm so proud when I think of it.", 0.6),
    ("assistant", "Anyway, my cat learned a new trick this week.", 0.45),
    ("user", "Oh, that's nice. It took me half a year, you know.", 0.2),
    ("assistant", "Honestly, nobody cares that much about your driving test.", 0.0),
    ("user", "Well, I do. And my dog is still giving me a lot of trouble.", 0.0),
    ("assistant", "I'm so sorry about your dog. How do things stand with your dog now?", 0.55),
    ("user", "Things are still very bad, but I needed that question.", 0.2),
    ("assistant", "I'm here if you want to talk. It must be hard on you, this thing with your dog.", 0.9),
    ("user", "Thank you. You are a good friend.", 0.7),
    ("assistant", "It's hardly worth talking about.", 0.0),
)
SECONDS_A_WORD, PAUSE, SLOW = 0.3, 0.6, 0.4  # SLOW: until a face answers


@dataclass(frozen=True)
class Example:
    """A clip and its transcript, made by `example`."""

    video: bytes  # MP4
    transcript: Transcript
    listener: str = "user"


def script_transcript() -> Transcript:
    """The script, said at an even pace."""
    utterances, time = [], 0.5
    for role, text, _ in SCRIPT:
        stop = time + SECONDS_A_WORD * len(text.split()) + 0.8
        utterances.append(Utterance(role, text, time, stop))
        time = stop + PAUSE
    return Transcript(Path("example.csv"), utterances)


@cache
def example() -> Example:
    """The drawn face, which listens to the scripted partner."""
    transcript = script_transcript()
    wanted = np.zeros(math.ceil((transcript.utterances[-1].stop + PAUSE) * RATE))
    for (_, _, smile), each in zip(SCRIPT, transcript.utterances):
        wanted[round((each.start + SLOW) * RATE) :] = smile
    smiles = np.convolve(np.pad(wanted, 3, "edge"), np.ones(7) / 7, "valid")
    return Example(draw_clip(smiles), transcript)


# ---------------------------------------------------------------------------------------------------------------------
# Recorded


@dataclass(frozen=True)
class Recording:
    """What a video and its transcript came to.

    Attributes:
        name: of the video's file.
        table: of `VideoAffect`.
        session: the Session row; None without a transcript.
        decomposition: of its turns' words; None without a transcript.
        explained: the same with hindsight; None without a transcript or an attribution.
    """

    name: str
    table: pd.DataFrame
    session: Session | None = None
    decomposition: Decomposition | None = None
    explained: Decomposition | None = None

    @property
    def seconds(self) -> float:
        stop = [] if self.session is None else self.session["stop"]
        return float(np.nanmax([0.0, *self.table["time"], *stop]))

    def csv(self) -> str:
        """The table: a row for every frame that was looked at."""
        file = io.StringIO()
        self.table.round(4).to_csv(file, index=False)
        return file.getvalue()


def recording(
    name: str,
    table: pd.DataFrame,
    transcript: Transcript | None,
    listener: str | None,
    model: GeliRewardModel,
    attribution: HindsightAttribution | None = None,
) -> Recording:
    """Put together what was seen and what was said.

    Raises:
        ValueError, SessionError: see `session_of_recording`.
    """
    if transcript is None:
        return Recording(name, table)
    session = session_of_recording(table, transcript, listener=listener, session_id=Path(name).stem or "session")
    explained = None if attribution is None else explain(attribution, session)
    return Recording(name, table, session, decompose(model, session["messages"]), explained)
