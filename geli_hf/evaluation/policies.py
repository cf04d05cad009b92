"""What a policy gained by alignment, judged on replies to the same held-out dialogues before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..sessions import Message
from .metrics import bootstrap, paired_bootstrap
from .table import MISSING


@dataclass(frozen=True)
class JudgedReply:
    """A reply and what a judge says of it.

    Args:
        text: the reply.
        value: its worth as a turn of its dialogue, in the judge's units.
        recognised: whether the judge understood it at all; one that it did not is worth the least. None of a judge
            that can't tell.
    """

    text: str
    value: float
    recognised: bool | None = True


@dataclass(frozen=True)
class PolicyComparison:
    """Replies to the same dialogues, in the same order, before and after alignment.

    Args:
        dialogues: what was said before each reply.
        before, after: the replies.
        conversation_ids: of the dialogues.
        true: whether the judge knows the truth. If not, it is the reward model that the policy was trained to please,
            and its praise proves nothing.
    """

    dialogues: Sequence[Sequence[Message]]
    before: Sequence[JudgedReply]
    after: Sequence[JudgedReply]
    conversation_ids: Sequence[str]
    true: bool

    def figures(self) -> dict[str, Any]:
        """Mean value before and after and their paired difference, with 95 % intervals over conversations.

        Returns:
            `before` and `after`, each with `value` (Interval), `recognised` (share), `words` (mean length) and
            `distinct` (share of different replies); `difference` (Interval of the value); `length_ratio`, mean length
            after over before; and `judge`.
        """
        result: dict[str, Any] = {"judge": "true turn values" if self.true else "its own reward model"}
        for name in ("before", "after"):
            side = getattr(self, name)
            recognised = [reply.recognised for reply in side]
            result[name] = {
                "value": bootstrap([reply.value for reply in side], self.conversation_ids),
                "recognised": None if None in recognised else float(np.mean(recognised)),
                "words": float(np.mean([len(reply.text.split()) for reply in side])),
                "distinct": len({reply.text for reply in side}) / len(side),
            }
        after, before = ([reply.value for reply in side] for side in (self.after, self.before))
        result["difference"] = paired_bootstrap(after, before, self.conversation_ids)
        result["length_ratio"] = result["after"]["words"] / max(result["before"]["words"], 1e-9)
        return result


def policy_table(figures: Mapping[str, Any]) -> str:
    """The figures of a `PolicyComparison` in Markdown."""
    table = ["| | value of a reply | recognised | words | distinct |", "| --- | ---: | ---: | ---: | ---: |"]
    for title, side in (("before alignment", figures["before"]), ("after alignment", figures["after"])):
        known = share(side["recognised"])
        table.append(f"| {title} | {side['value']} | {known} | {side['words']:.1f} | {side['distinct']:.1%} |")
    difference = f"Difference: **{figures['difference']}**; length after / before: {figures['length_ratio']:.2f}."
    return "\n".join([*table, "", difference])


def share(value: float | None) -> str:
    """A share in percent, or that it is missing."""
    return MISSING if value is None else f"{value:.1%}"
