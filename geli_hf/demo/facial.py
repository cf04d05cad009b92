"""A session whose listener's face is seen, live or recorded, with the rewards of its words. Knows no Gradio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..models.attribution import HindsightAttribution
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from ..models.geli_reward.text_geli import valid_unicode
from ..models.growing import GrowingScorer
from ..sessions import Message, Session, assistant_turns
from .camera import Watch
from .conversation import Turn, messages_of, session_row

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


def decompose(scorer: GrowingScorer, messages: Sequence[Message]) -> Decomposition:
    """Decompose the rating that the words of a session predict.

    With the rewards r_t of T turns, the rating's mean m and deviation s, the prediction is m + s/T sum_t r_t where the
    model's `aggregation` is `mean`, and m + s sum_t r_t where it is `sum`: so a turn contributes s r_t / T, or s r_t.
    What a guard takes is no part of r_t here.
    """
    config = scorer.model.config
    if not assistant_turns(messages):
        return _decomposition(config, [], [])
    output = scorer.output(list(messages))
    rewards, losses = output.turn_rewards[0].tolist(), None if output.losses is None else output.losses[0].tolist()
    percentiles = [scorer.model.percentile(reward) for reward in rewards]
    return _decomposition(config, rewards, percentiles, losses, mean=config.aggregation == "mean")


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
    config: GeliRewardConfig,
    rewards: Sequence[float],
    percentiles: Sequence[float],
    losses: Sequence[float] | None = None,
    mean: bool = True,
    **parts,
) -> Decomposition:
    """Decompose the rating into its parts; what a guard has taken from the rewards is no part of it."""
    scale = config.score_std / (max(1, len(rewards)) if mean else 1)
    contributions = tuple(scale * (reward + loss) for reward, loss in zip(rewards, losses or [0.0] * len(rewards)))
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
        script: number of the partner's lines that are used up.
    """

    turns: list[Turn] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    words: Decomposition = field(default_factory=Decomposition)
    hindsight: Decomposition | None = None
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

    def add_from_script(self, now: float) -> bool:
        """Add the scripted partner's next turn, and the listener's before it unless the visitor has typed one.

        Returns:
            False at the end of the script.
        """
        if self.script == len(SCRIPT):
            return False
        listener, partner = SCRIPT[self.script]
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


# The listener's line, and the scripted partner's answer, which is good, bad, good and so on.
SCRIPT = (
    (
        "I passed my driving test last week, and I'm so happy.",
        "I'm so happy for you about your driving test! How do you feel about it now?",
    ),
    ("I'm so proud when I think of it.", "Anyway, my cat learned a new trick this week."),
    (
        "Oh, that's nice. It took me half a year, you know.",
        "Honestly, nobody cares that much about your driving test.",
    ),
    (
        "Well, I do. And my dog is still giving me a lot of trouble.",
        "I'm so sorry about your dog. How do things stand with your dog now?",
    ),
    (
        "Things are still very bad, but I needed that question.",
        "I'm here if you want to talk. It must be hard on you, this thing with your dog.",
    ),
    ("Thank you. You are a good friend.", "It's hardly worth talking about."),
)
