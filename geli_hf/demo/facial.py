"""A session whose listener's face is seen, live or recorded, with the rewards of its words. Knows no Gradio."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..affect import session_of_recording
from ..affect.transcripts import Transcript, Utterance
from ..data.rows import to_json_line
from ..models.attribution import HindsightAttribution
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..sessions import Message, Session, assistant_turns
from .camera import Watch
from .conversation import Turn, load_snapshot, messages_of, read_row, session_row
from .drawn_face import RATE, draw_clip
from .limits import Limits

PARTS = {"turn": "words", "reaction": "answers"}  # of an attribution; all others are of the face


@dataclass(frozen=True)
class Decomposition:
    """The predicted rating of a session as the mean rating and a contribution of each turn of the assistant.

    Attributes:
        rewards: of the turns, in units of the standardised rating.
        percentiles: share of the training turns that each is better than; NaN if the model doesn't have it.
        contributions: in the units of the rating; `base` and all of these add up to `rating`.
        base: the mean rating, which is that of a session without turns.
        rating: predicted.
        deviation: of a held-out session's rating from its prediction; NaN if the model doesn't have it.
        parts: with hindsight the sums over all turns of the words, the answers to them and the face; else empty.
    """

    rewards: tuple[float, ...] = ()
    percentiles: tuple[float, ...] = ()
    contributions: tuple[float, ...] = ()
    base: float = math.nan
    rating: float = math.nan
    deviation: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)


def decompose(model: GeliRewardModel, messages: Sequence[Message]) -> Decomposition:
    """Decompose the rating that the words of a session predict.

    With the rewards r_t of T turns, the rating's mean m and deviation s, the prediction is m + s/T sum_t r_t where the
    model's `aggregation` is `mean`, and m + s sum_t r_t where it is `sum`: so a turn contributes s r_t / T, or s r_t.
    """
    turns = len(assistant_turns(messages))
    rewards: list[float] = []
    if turns:
        with torch.inference_mode():
            rewards = model.score_messages([list(messages)], last_turn_only=False)[0, :turns].tolist()
    percentiles = [model.percentile(reward) for reward in rewards]
    return _decomposition(model.config, rewards, percentiles, mean=model.config.aggregation == "mean")


def explain(attribution: HindsightAttribution, session: Session) -> Decomposition:
    """Decompose the rating with hindsight, into each turn's words, the answer to it, and the face that it met.

    A turn's value is that of `HindsightAttribution`, and contributes as in `decompose` of a mean.
    """
    turns = len(assistant_turns(session["messages"]))
    if not turns:
        return Decomposition()
    # A signal that this session lacks was not observed; naming it here avoids a warning for every turn.
    unseen = {name: [math.nan] * turns for name in attribution.signals}
    [row] = attribution.score_sessions([session | {"feedback": unseen | session.get("feedback", {})}])
    config = attribution.model.config
    parts = {"words": 0.0, "answers": 0.0, "face": 0.0}
    for name, values in row["parts"].items():
        parts[PARTS.get(name, "face")] += config.score_std / turns * sum(values)
    return _decomposition(config, row["turn_rewards"], [math.nan] * turns, parts=parts)


def _decomposition(
    config: GeliRewardConfig, rewards: Sequence[float], percentiles: Sequence[float], mean: bool = True, **parts
) -> Decomposition:
    scale = config.score_std / (max(1, len(rewards)) if mean else 1)
    contributions = tuple(scale * reward for reward in rewards)
    rating = config.score_mean + sum(contributions)
    deviation = math.nan if config.residual_std is None else config.residual_std
    return Decomposition(
        tuple(rewards), tuple(percentiles), contributions, config.score_mean, rating, deviation, **parts
    )


# ---------------------------------------------------------------------------------------------------------------------
# Live


@dataclass
class LiveSession:
    """The dialogue and the facial expressions of one tab, both without a picture.

    Attributes:
        turns: the dialogue, with times on the clock of the camera.
        watch: the facial expressions.
        words: decomposition of the rating by the words.
        hindsight: the same with hindsight; None without an attribution.
        script: number of lines of the scripted partner that are used up.
        earlier: signals of turns from before a reload.
    """

    turns: list[Turn] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    words: Decomposition = field(default_factory=Decomposition)
    hindsight: Decomposition | None = None
    script: int = 0
    earlier: dict[str, list[float]] = field(default_factory=dict)

    @property
    def messages(self) -> list[Message]:
        return messages_of(self.turns)

    def add(self, role: str, text: str, now: float) -> None:
        """Add a message. Roles alternate: another message of the last speaker extends the turn."""
        text = " ".join(text.split())
        if self.turns and self.turns[-1].role == role:
            self.turns[-1] = replace(self.turns[-1], text=f"{self.turns[-1].text} {text}")
        else:
            self.turns.append(Turn(role, text, at=now))

    def add_from_script(self, now: float) -> bool:
        """Add the scripted partner's next turn, and the listener's before it unless the visitor has typed one.

        Returns:
            False at the end of the script.
        """
        while self.script < len(SCRIPT):
            role, text, _ = SCRIPT[self.script]
            self.script += 1
            if role == "user" and self.turns and self.turns[-1].role == "user":
                continue
            self.add(role, text, now)
            if role == "assistant":
                return True
        return False

    def signals(self) -> dict[str, list[float]]:
        """Return the signals of `Watch`, where a value from before a reload stays as it was."""
        signals = self.watch.signals(self.turns)
        for name, values in self.earlier.items():
            for index, value in enumerate(values):
                if not math.isnan(value):
                    signals[name][index] = value
        return signals

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
        return session_row(session_id, self.turns, start=start, stop=stop, feedback=self.signals())

    def snapshot(self) -> str:
        """Write the turns and two numbers of each as JSON that a tab stores for a reload; "" without a partner's turn.

        Nothing else of the face is in it.
        """
        if not assistant_turns(self.messages):
            return ""
        row = self.row("live", self.turns[-1].at)
        return json.dumps({"row": to_json_line(row), "began": self.turns[0].at, "script": self.script})

    @classmethod
    def restore(cls, text: object, limits: Limits) -> LiveSession | None:
        """Read a `snapshot`; None if it is not one, since a browser's storage may hold anything."""
        try:
            stored = load_snapshot(text, limits)
            # Messages of one speaker are merged, so a turn may be longer than a message.
            row = read_row(stored["row"], replace(limits, characters=limits.file_bytes))
            script = int(stored["script"])
            times = [stored["began"] + start for start in row["start"]]
            earlier = {name: row["feedback"][name] for name in ("affect", "affect_mean")}
            if not (np.isfinite(times).all() and 0 <= script <= len(SCRIPT)):
                return None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None
        turns = [Turn(each["role"], each["content"], at=at) for each, at in zip(row["messages"], times)]
        return cls(turns=turns, script=script, earlier=earlier)


# ---------------------------------------------------------------------------------------------------------------------
# The example

# Role, text, and the smile of the drawn face while it is spoken: the script of the example and of the live partner.
# The partner responds well, badly, well and so on; at "my cat" the face is polite.
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
SECONDS_A_WORD, PAUSE, DELAY = 0.3, 0.6, 0.4  # DELAY: until a face answers


@dataclass(frozen=True)
class Example:
    """A clip and its transcript."""

    video: bytes  # MP4
    transcript: Transcript
    listener: str = "user"


def script_transcript() -> Transcript:
    """Return the script, spoken at an even pace."""
    utterances, time = [], 0.5
    for role, text, _ in SCRIPT:
        stop = time + SECONDS_A_WORD * len(text.split()) + 0.8
        utterances.append(Utterance(role, text, time, stop))
        time = stop + PAUSE
    return Transcript(Path("example.csv"), utterances)


@cache
def example() -> Example:
    """Draw the face that listens to the scripted partner."""
    transcript = script_transcript()
    wanted = np.zeros(math.ceil((transcript.utterances[-1].stop + PAUSE) * RATE))
    for (_, _, smile), utterance in zip(SCRIPT, transcript.utterances):
        wanted[round((utterance.start + DELAY) * RATE) :] = smile
    smiles = np.convolve(np.pad(wanted, 3, "edge"), np.ones(7) / 7, "valid")
    return Example(draw_clip(smiles), transcript)


# ---------------------------------------------------------------------------------------------------------------------
# Recorded


@dataclass(frozen=True)
class Recording:
    """The table of a video, and with a transcript its session.

    Attributes:
        name: of the video's file.
        table: of `VideoAffect`.
        session: the Session row; None without a transcript.
        words: decomposition of the rating by the words; None without a transcript.
        hindsight: the same with hindsight; None without a transcript or an attribution.
    """

    name: str
    table: pd.DataFrame
    session: Session | None = None
    words: Decomposition | None = None
    hindsight: Decomposition | None = None

    @property
    def seconds(self) -> float:
        stop = [] if self.session is None else self.session["stop"]
        return float(np.nanmax([0.0, *self.table["time"], *stop]))

    def csv(self) -> str:
        """Write the table as CSV, a row for every frame that was read."""
        return self.table.round(4).to_csv(index=False)


def combine_recording(
    name: str,
    table: pd.DataFrame,
    transcript: Transcript | None,
    listener: str | None,
    model: GeliRewardModel,
    attribution: HindsightAttribution | None = None,
) -> Recording:
    """Combine the face in a video with its transcript.

    Args:
        name: of the video's file.
        table: of `VideoAffect`.
        transcript: of the video; None if there is none.
        listener: the speaker whose face it is, see `session_of_recording`.
        model: rewards the words.
        attribution: explains the rating with hindsight.

    Raises:
        ValueError, SessionError: see `session_of_recording`.
    """
    if transcript is None:
        return Recording(name, table)
    session = session_of_recording(table, transcript, listener=listener, session_id=Path(name).stem or "session")
    hindsight = None if attribution is None else explain(attribution, session)
    return Recording(name, table, session, decompose(model, session["messages"]), hindsight)
