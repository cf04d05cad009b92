"""The models of the demos: the policy before and after alignment, and the reward model.

Replies are sampled token by token here, not by `generate` in a thread of its own: so a reply stops when nobody reads
on, many are sampled side by side, and each has its own randomness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..alignment.default import local_policy
from ..alignment.dialogue import context_window, cut_reply
from ..alignment.policy import is_adapter, load_policy
from ..models.geli_reward.modeling_geli import GeliRewardModel
from ..models.growing import GrowingScorer
from ..sessions import Message
from ..training.script import native_bf16
from .conversation import ALIGNED, BASE
from .prefix_cache import PrefixCache

# A policy sees so many messages at most of a long conversation. Then the oldest go, several at a time: so the
# beginning of the prompt stays for some turns, and is not read again.
CONTEXT_MESSAGES, DROPPED_MESSAGES = 24, 12


@dataclass(frozen=True)
class Policy:
    """A causal language model in eval mode, its tokenizer with a chat template, and what it has read lately."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    cache: PrefixCache = field(default_factory=PrefixCache)

    @torch.inference_mode()
    def stream(
        self, messages: Sequence[Message], *, max_new_tokens: int = 60, temperature: float = 0.8
    ) -> Iterator[str]:
        """Sample a reply, token by token.

        Args:
            messages: a dialogue that ends with the user; of a long one the last 13 to 24 messages are read.
            max_new_tokens: longest reply, in tokens.
            temperature: of sampling, which leaves the caller's random state alone; 0 takes the most likely token.

        Yields:
            All of the reply so far, cut where the reward function would cut it; so the last one may be shorter than
            the one before.
        """
        dropped = DROPPED_MESSAGES * math.ceil(max(0, len(messages) - CONTEXT_MESSAGES) / DROPPED_MESSAGES)
        window = context_window(messages, len(messages) - dropped)
        text = self.tokenizer.apply_chat_template(window, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None:
            ids = ids[-max(1, longest - max_new_tokens) :]
        ends = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id} if ends is None else {ends} if isinstance(ends, int) else set(ends)
        device = self.model.device
        generator = torch.Generator(device)
        generator.seed()
        past, known = self.cache.find(ids)
        read, unread, sampled, shown = ids[:known], ids[known:], [], ""
        try:
            for _ in range(max_new_tokens):
                inputs = torch.tensor([unread], device=device)
                output = self.model(input_ids=inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, read, logits = output.past_key_values, read + unread, output.logits[0, -1].float()
                if temperature:
                    token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
                else:
                    token = int(logits.argmax())
                if token in ends:
                    break
                unread = [token]
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
        finally:  # also when nobody reads on
            self.cache.keep(read, past)


@dataclass(frozen=True)
class Models:
    """The models of the chat page.

    Args:
        policies: by `BASE` and `ALIGNED`; the first may be missing.
        reward: gives each turn its reward and predicts the rating.
        names: of the policies, and of the reward model by "reward", with the revision of each.
    """

    policies: Mapping[str, Policy]
    reward: GeliRewardModel
    names: Mapping[str, str] = field(default_factory=dict)

    def stream(self, source: str, messages: Sequence[Message]) -> Iterator[str]:
        """Sample a reply of the policy `source`, see `Policy.stream`."""
        yield from self.policies[source].stream(messages)

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
    policy: str | Path,
    base: str | Path | None,
    reward: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Models:
    """Load the models of the chat by name or folder.

    Adapters are merged into weights of their own: so two policies can talk at once, and as fast as without adapters.

    Args:
        policy: the aligned policy, or an adapter (PEFT). The adapter is one to `base`; where `base` is an adapter
            itself, both are adapters to the models that their configurations name.
        base: the policy before alignment; None if there is none, and then nothing can be compared.
        reward: the reward model.
        device: where they run; by default the GPU, if there is one.
        dtype: of the policies; by default bfloat16, but float32 on a CPU that has no instructions for it.

    Raises:
        OSError, ValueError, RuntimeError: a model is missing or not of its kind.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if str(device) != "cpu" or native_bf16() else torch.float32)
    policies = {} if base is None else {BASE: load_policy(base, dtype=dtype)}
    if base is not None and is_adapter(policy) and not is_adapter(base):
        model, tokenizer = load_policy(base, dtype=dtype)
        policies[ALIGNED] = PeftModel.from_pretrained(model, str(policy)).merge_and_unload(), tokenizer
    else:
        policies[ALIGNED] = load_policy(policy, dtype=dtype)
    loaded = {source: Policy(model.to(device).eval(), tokenizer) for source, (model, tokenizer) in policies.items()}
    scorer = load_reward_model(reward, device=device)
    sources = {BASE: (base, policies.get(BASE, [None])[0]), ALIGNED: (policy, policies[ALIGNED][0])}
    names = {source: _with_revision(name, model) for source, (name, model) in sources.items() if name is not None}
    return Models(loaded, scorer, names | {"reward": _with_revision(reward, scorer)})


def _with_revision(name: str | Path, model: PreTrainedModel) -> str:
    """Return name@revision: the commit of a model on the Hub, or the hash of the weights in a folder."""
    folder = Path(local_policy(name))
    if not folder.is_dir():
        return f"{name}@{getattr(model.config, '_commit_hash', None) or 'unknown'}"
    files = sorted(folder.glob("*.safetensors"))
    digest = sha256(b"".join(sha256(file.read_bytes()).digest() for file in files))
    return f"{Path(name).name}@{digest.hexdigest()[:12]}"


def load_reward_model(reward: str | Path, *, device: str | torch.device = "cpu") -> GeliRewardModel:
    """Load a reward model by name or folder, in eval mode."""
    return GeliRewardModel.from_pretrained(reward, dtype=torch.float32).to(device).eval()
