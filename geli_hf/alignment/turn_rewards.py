"""`TurnRewards`: a reward for every message of the assistant in a dialogue, for any trainer; and thin adapters.

An adapter imports nothing of the trainer's library. Which ones were tested against it is said at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.geli_reward.text_geli import message_text
from .dialogue import cut_reply, without_opening
from .rewards import reward_floor

ROLES = ("system", "developer", "user", "assistant", "tool")  # of OpenAI's messages


class PreparedDialogue(NamedTuple):
    """Dialogue of alternating turns for the reward model.

    Args:
        dialogue: the turns.
        rewards: of each message of the assistant, where it is known before: the lowest for one without a word.
        places: in `rewards`, of each turn of the assistant.
    """

    dialogue: list[dict[str, str]]
    rewards: list[float | None]
    places: list[int]

    def finish(self, scores: Sequence[float]) -> list[float | None]:
        """Put the rewards of the turns in their places; None for what is no number."""
        rewards = list(self.rewards)
        for place, score in zip(self.places, scores, strict=True):
            rewards[place] = score if math.isfinite(score) else None
        return rewards


class TurnRewards:
    """Reward of each message of the assistant, from one pass of the reward model over the dialogue.

    System messages, tool calls and their results are left out, and messages of one side that then follow each other
    are one turn, whose reward stands at the last of them. A message counts without its thoughts and up to where it
    speaks for the user, as in `GeliReward`; one without a word has the lowest reward of the training turns.

    Args:
        model: the reward model, or its name or folder. It is put into eval mode.
    """

    def __init__(self, model: GeliRewardModel | str | Path):
        self.model = model if isinstance(model, GeliRewardModel) else GeliRewardModel.from_pretrained(model)
        self.model.eval()
        self.floor = reward_floor(self.model)

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> list[float | None]:
        """Reward the assistant's messages of a dialogue.

        Args:
            messages: in OpenAI's format, tool calls and results included.

        Returns:
            A reward per message of the assistant, in units of the standardised session score; None where a turn goes
            on in a later message, a message only calls tools, or the reward is not a number.

        Raises:
            ValueError: something is no message, or a part of a message is neither text nor thought.
        """
        prepared = self.prepare(messages)
        if not prepared.places:
            return prepared.rewards
        return prepared.finish(self.model.score_messages([prepared.dialogue], last_turn_only=False)[0].tolist())

    def prepare(self, messages: Sequence[Mapping[str, Any]]) -> PreparedDialogue:
        """Make the dialogue that the reward model reads.

        Args:
            messages: see `__call__`.

        Raises:
            ValueError: see `__call__`.
        """
        for number, message in enumerate(messages):
            if not isinstance(message, Mapping) or message.get("role") not in ROLES:
                role = message.get("role") if isinstance(message, Mapping) else message
                raise ValueError(f"messages[{number}]: expected a dict whose role is in {ROLES}, found {role!r:.60}")
        rewards: list[float | None] = []
        dialogue: list[dict[str, str]] = []
        places: list[int] = []  # in `rewards`, of each turn
        said = [message for message in messages if message["role"] not in ("tool", "developer")]
        for message in without_opening(said):
            role, text = message["role"], message_text(message.get("content") or "")
            if role == "assistant":
                text = cut_reply(text)
                rewards.append(None if text or message.get("tool_calls") else self.floor)
            if not text.strip():
                continue
            if dialogue and dialogue[-1]["role"] == role:
                dialogue[-1]["content"] += f"\n{text}"
                places = places[:-1] if role == "assistant" else places
            else:
                dialogue.append({"role": role, "content": text})
            places += [len(rewards) - 1] if role == "assistant" else []
        return PreparedDialogue(dialogue, rewards, places)


def verifiers_reward(turn_rewards: TurnRewards, trace: Any) -> float:
    """Reward a `verifiers.v1` trace, and leave the turns' rewards in `trace.info["turn_rewards"]`.

    Call it in a `@vf.reward` method of a task. Tested with verifiers 0.4.0. prime-rl 3282 asks for this list; the
    releases known here do not read it yet.

    Args:
        turn_rewards: rewards a dialogue.
        trace: of a rollout; the last branch counts, and of its messages those that the model sampled.

    Returns:
        The mean reward of the turns, 0 without one.
    """
    nodes = trace.branches[-1].nodes
    rewards = turn_rewards([node.message.model_dump(exclude_none=True) for node in nodes])
    sampled = [node.sampled for node in nodes if node.message.role == "assistant"]
    trace.info["turn_rewards"] = [reward for reward, own in zip(rewards, sampled, strict=True) if own]
    return _mean(trace.info["turn_rewards"]) or 0.0


def nemo_gym_rewards(turn_rewards: TurnRewards, request: Mapping[str, Any]) -> dict[str, Any]:
    """Reward a NeMo-Gym rollout: the fields `reward` and `step_rewards` of a verify response.

    `step_rewards` follows the proposal in NeMo-Gym 1298: declare it in a subclass of `BaseVerifyResponse`, which
    leaves out fields that it does not know. Tested against the published form of requests, not with the library.

    Args:
        turn_rewards: rewards a dialogue.
        request: of `verify`, as `body.model_dump()`.

    Returns:
        `reward`, the mean (0 without a turn), and `step_rewards`, one per message of the response, None as there.
    """
    asked = request["responses_create_params"]["input"]
    prompt = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    items = [item for item in (*prompt, *request["response"]["output"]) if item.get("type", "message") == "message"]
    messages = [{"role": item["role"], "content": _text(item["content"])} for item in items]
    steps = sum(item.get("type") == "message" for item in request["response"]["output"])
    rewards = turn_rewards(messages)[-steps:] if steps else []
    return {"reward": _mean(rewards) or 0.0, "step_rewards": rewards}


def trl_reward(turn_rewards: TurnRewards) -> Callable[..., list[float | None]]:
    """Make a reward function of TRL's trainers for completions of several messages, as with `environment_factory`.

    Tested with TRL 1.16 and with completions that hold tool calls; no policy that calls tools was trained.

    Args:
        turn_rewards: rewards a dialogue.

    Returns:
        A function from prompts and completions to the mean reward of each completion's turns, None without one.
    """

    def geli(prompts: Sequence, completions: Sequence, **kwargs: Any) -> list[float | None]:
        means = []
        for prompt, completion in zip(prompts, completions, strict=True):
            turns = sum(message["role"] == "assistant" for message in completion)
            means.append(_mean(turn_rewards([*prompt, *completion])[-turns:] if turns else []))
        return means

    return geli


def _mean(rewards: Sequence[float | None]) -> float | None:
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else None


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Join the texts of an item of the Responses API."""
    return content if isinstance(content, str) else "\n".join(part.get("text") or "" for part in content)
