"""A session whose listener's face is seen, live or recorded, with the rewards of its words. Knows no Gradio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..affect.contact_sheet import MARGIN, SIDE, strongest_moments
from ..affect.emotions import FACE_COLUMNS
from ..affect.faces import Box, square_crop
from ..affect.frames import VideoFrames
from ..affect.session import SMOOTH
from ..affect.transcripts import Transcript
from ..affect.turns import face_valence, smooth_faces
from ..models.attribution import SignalTrust
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from ..models.geli_reward.text_geli import valid_unicode
from ..models.growing import GrowingScorer
from ..sessions import Message, Session, assistant_turns
from .camera import VIDEO_FPS, Watch
from .conversation import Turn, messages_of, session_row


@dataclass(frozen=True)
class Decomposition:
    """The predicted rating of a session as the mean rating and two contributions of each turn of the assistant.

    Attributes:
        words: contributions of the words, in the units of the rating.
        face: contributions of the face that met each turn, in the same units; 0 where none was seen.
        base: the mean rating, which is that of a session without turns.
        deviation: of a held-out session's rating from its prediction; NaN if the model doesn't have it.
    """

    words: tuple[float, ...] = ()
    face: tuple[float, ...] = ()
    base: float = math.nan
    deviation: float = math.nan

    @property
    def by_words(self) -> float:
        """The rating that the words alone predict."""
        return self.base + sum(self.words)

    @property
    def rating(self) -> float:
        """The rating that words and face predict."""
        return self.by_words + sum(self.face)


def decompose(scorer: GrowingScorer, messages: Sequence[Message]) -> Decomposition:
    """Decompose the rating that the words of a session predict.

    With the rewards r_t of T turns, the rating's mean m and deviation s, the prediction is m + s/T sum_t r_t where the
    model's `aggregation` is `mean`, and m + s sum_t r_t where it is `sum`: so a turn contributes s r_t / T, or s r_t.
    What a guard takes is no part of r_t here.
    """
    config, words = scorer.model.config, ()
    if turns := len(assistant_turns(messages)):
        output = scorer.output(list(messages))
        rewards = output.turn_rewards[0] if output.losses is None else (output.turn_rewards + output.losses)[0]
        scale = config.score_std / (turns if config.aggregation == "mean" else 1)
        words = tuple(scale * reward for reward in rewards.tolist())
    deviation = math.nan if config.residual_std is None else config.residual_std
    return Decomposition(words, (0.0,) * len(words), config.score_mean, deviation)


def add_face(
    steps: Decomposition,
    trust: Mapping[str, SignalTrust],
    feedback: Mapping[str, Sequence[float]],
    config: GeliRewardConfig,
) -> Decomposition:
    """Add what the face says of each turn, as hindsight adds it.

    The face contributes s/T sum_k beta_k (l_tk - habit_k l-bar_k) to the rating, with the signals l_k in deviations
    from their mean, their means l-bar_k over the session, and the deviation s of the rating. The trust beta_k is the
    slope of rated sessions' standardised ratings on the signal, with what the words let expect of the signal held
    fixed (see `SignalTrust` and `training.hindsight`). It may come from another corpus than the reward model.

    Args:
        steps: by the words.
        trust: of each signal.
        feedback: the signals of each turn, NaN where nothing was seen; a missing one adds nothing.
        config: of the reward model.
    """
    turns = len(steps.words)
    if not turns:
        return steps
    face, first, unseen = np.zeros(turns), np.array([0, turns]), [math.nan] * turns
    for name, signal in trust.items():
        face += signal.beta * signal.standardise(np.asarray(feedback.get(name, unseen), float), first)
    return replace(steps, face=tuple((config.score_std / turns * face).tolist()))


# ---------------------------------------------------------------------------------------------------------------------
# Recorded
WEAK = 0.1  # valence that is no moment to show


@dataclass
class Recording:
    """A video's numbers and its transcript in one tab, both without a picture.

    Attributes:
        table: of `VideoAffect`.
        transcript: of the same recording, whose path is no visitor's file name.
        listener: speaker whose face it is; None where the speakers' names are roles.
        session: the row of both, once both are there.
    """

    table: pd.DataFrame | None = None
    transcript: Transcript | None = None
    listener: str | None = None
    session: Session | None = None


def strongest_faces(table: pd.DataFrame, video: str | Path) -> list[tuple[float, float, np.ndarray]]:
    """Cut out the listener's face at the strongest moments of a recording.

    Args:
        table: of `FaceReader.read_video`.
        video: of which the table was made.

    Returns:
        Time in seconds, valence and picture (SIDE, SIDE) of each: the positive moments, then the negative ones.
    """
    times, faces = smooth_faces(table["time"].to_numpy(float), table[FACE_COLUMNS].to_numpy(float), SMOOTH)
    valence = face_valence(faces)
    rows = [row for row in strongest_moments(times, valence) if abs(valence[row]) > WEAK]
    strength = {float(times[row]): float(valence[row]) for row in rows}
    boxes, pictures = table.set_index("time")[list(Box._fields)], {}
    for frame in VideoFrames(video, VIDEO_FPS) if strength else ():
        if frame.time in strength:
            box = Box(*(boxes.loc[frame.time] * frame.scale))
            pictures[frame.time] = square_crop(frame.image, box, scale=MARGIN, side=SIDE)
        if frame.time >= max(strength):
            break
    return [(time, value, pictures[time]) for time, value in strength.items()]


# ---------------------------------------------------------------------------------------------------------------------
# Live


@dataclass
class LiveSession:
    """The dialogue and the facial expressions of one tab, both without a picture.

    Attributes:
        turns: the dialogue, with times on the clock of the camera.
        watch: the facial expressions.
        scored: turns whose words were scored, and the decomposition: in one, since the camera goes on meanwhile.
        script: number of the partner's lines that are used up.
    """

    turns: list[Turn] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    scored: tuple[Sequence[Turn], Decomposition] = ((), Decomposition())
    script: int = 0

    @property
    def messages(self) -> list[Message]:
        return messages_of(self.turns)

    def add(self, role: str, text: str, now: float) -> None:
        """Add a message. Roles alternate: another message of the last speaker extends the turn."""
        text = " ".join(valid_unicode(text).split())
        if self.turns and self.turns[-1].role == role:
            self.turns[-1] = replace(self.turns[-1], text=f"{self.turns[-1].text} {text}")
        else:
            self.turns.append(Turn(role, text, at=now))

    def add_from_script(self, script: Sequence[tuple[str, str]], now: float) -> bool:
        """Add the scripted partner's next turn, and the listener's before it unless the visitor has typed one.

        Args:
            script: the listener's lines, and the partner's answer to each.
            now: time in seconds.

        Returns:
            False at the end of the script.
        """
        if self.script == len(script):
            return False
        listener, partner = script[self.script]
        self.script += 1
        if not self.turns or self.turns[-1].role == "assistant":
            self.add("user", listener, now)
        self.add("assistant", partner, now)
        return True

    def row(self, session_id: str, now: float) -> Session:
        """Build the Session row, whose times count from the first turn.

        Args:
            session_id: of the row.
            now: end of the last turn.

        Raises:
            SessionError: there is no turn of the assistant.
        """
        start = [turn.at - self.turns[0].at for turn in self.turns]
        stop = [*start[1:], max(start[-1], now - self.turns[0].at)] if start else []
        return session_row(session_id, self.turns, start=start, stop=stop, feedback=self.watch.signals(self.turns))
