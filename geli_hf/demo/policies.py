"""The models of the demos: the policy before and after alignment, and the reward model.

Replies are sampled token by token here, not by `generate` in a thread of its own: so a reply stops when nobody reads
on, many are sampled side by side, and each has its own randomness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..alignment.dialogue import context_window, cut_reply
from ..alignment.policy import is_adapter, load_policy
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.growing import GrowingScorer
from ..sessions import Message
from .conversation import ALIGNED, BASE

# A policy sees so much of a long conversation, so that each reply costs about the same.
CONTEXT_MESSAGES = 24


@dataclass(frozen=True)
class Policy:
    """A causal language model in eval mode, and its tokenizer with a chat template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @torch.inference_mode()
    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int = 40, temperature: float = 0.8
    ) -> Iterator[str]:
        """Sample a reply, token by token.

        Args:
            messages: a dialogue that ends with the user; of a long one the last `CONTEXT_MESSAGES` are read.
            max_new_tokens: longest reply, in tokens.
            temperature: of sampling, which leaves the caller's random state alone; 0 takes the most likely token.

        Yields:
            All of the reply so far, cut where the reward function would cut it; so the last one may be shorter than
            the one before.
        """
        window = context_window(messages, CONTEXT_MESSAGES)
        text = self.tokenizer.apply_chat_template(window, tokenize=False, add_generation_prompt=True)
        device = self.model.device
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(device)
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None:
            ids = ids[:, -max(1, longest - max_new_tokens) :]
        ends = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id} if ends is None else {ends} if isinstance(ends, int) else set(ends)
        generator = torch.Generator(device)
        generator.seed()
        cache, sampled, shown = None, [], ""
        for _ in range(max_new_tokens):
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = output.past_key_values, output.logits[0, -1].float()
            if temperature:
                ids = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[None]
            else:
                ids = logits.argmax()[None, None]
            if (token := int(ids)) in ends:
                break
            sampled.append(token)
            text = self.tokenizer.decode(sampled, skip_special_tokens=True)
            reply = cut_reply(text)
            speaks_for_user = len(reply) < len(text.strip())
            reply = reply.rstrip("\ufffd")  # of a character that is not complete yet
            if reply != shown:
                shown = reply
                yield reply
            if speaks_for_user:
                break


@dataclass(frozen=True)
class Models:
    """The models of the chat page.

    Args:
        policies: by `BASE` and `ALIGNED`; the first may be missing.
        reward: gives each turn its reward and predicts the rating.
    """

    policies: Mapping[str, Policy]
    reward: GeliRewardModel

    def stream(self, source: str, messages: Sequence[Message], options: Mapping) -> Iterator[str]:
        """Sample a reply of the policy `source`, see `Policy.stream`."""
        yield from self.policies[source].stream(messages, **options)

    @cached_property
    def _scorer(self) -> GrowingScorer:
        return GrowingScorer(self.reward)

    def score(self, messages: list[Message]) -> list[float]:
        """Compute a reward for every turn of the assistant, in units of the standardised rating."""
        return self._scorer(messages)

    def rating(self, messages: list[Message]) -> float:
        """Predict the rating of a session, in the units of the ratings."""
        return self._scorer.predict_score(messages)

    @property
    def uncertainty(self) -> float:
        """Standard deviation of a held-out rating from its prediction; NaN if the checkpoint doesn't have it."""
        deviation = self.reward.config.residual_std
        return math.nan if deviation is None else deviation


def load_models(
    policy: str | Path, base: str | Path | None, reward: str | Path, *, device: str | torch.device | None = None
) -> Models:
    """Load the models of the chat by name or folder.

    Args:
        policy: the aligned policy, or an adapter (PEFT) to `base`, or to the model that its configuration names.
        base: the policy before alignment; None if there is none, and then nothing can be compared.
        reward: the reward model.
        device: where they run; by default the GPU, if there is one.

    Raises:
        OSError, ValueError, RuntimeError: a model is missing or not of its kind.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if str(device) == "cpu" else torch.bfloat16
    adapter = base is not None and is_adapter(policy)
    policies = {}
    for source, name in ((BASE, base), (ALIGNED, base if adapter else policy)):
        if name is not None:
            model, tokenizer = load_policy(name, dtype=dtype)
            if adapter and source == ALIGNED:
                model.load_adapter(str(policy))
            policies[source] = Policy(model.to(device).eval(), tokenizer)
    return Models(policies, load_reward_model(reward, device=device))


def load_reward_model(reward: str | Path, *, device: str | torch.device = "cpu") -> GeliRewardModel:
    """Load a reward model by name or folder, in eval mode."""
    return GeliRewardModel.from_pretrained(reward, dtype=torch.float32).to(device).eval()
