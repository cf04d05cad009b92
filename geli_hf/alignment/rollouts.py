"""Whole sessions of a policy with a partner, for the `rollout_func` of TRL's GRPOTrainer.

For TRL a session is one completion: the tokens of all turns, with `env_mask` 0 on the partner's, which keeps them out
of the loss. TRL decodes it as one message; the turns are in a `Rollout` beside it.

A reply stays in the context as its sampled tokens and is never tokenized anew, so that the policy is trained on the
tokens that it sampled, in their context.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from trl.models import unwrap_model_for_generation

from ..llm.backend import BackendError
from ..sessions import Message
from .dialogue import cut_reply, speaks_for_user, without_opening
from .partners import Partner
from .sampling import end_tokens, generate_tokens

if TYPE_CHECKING:
    from trl import GRPOTrainer

PARTNERS_TOKEN = -1  # in `Rollout.token_turns`


@dataclass
class Rollout:
    """A session of a policy with a partner.

    Args:
        messages: of the prompt and of the session, without system message and `OPENING`.
        seed: of the partner.
        prompt_ids: tokens of the prompt, up to the policy's first token.
        completion_ids: tokens of all turns since, also the partner's. The last turn is the policy's.
        token_turns: for each completion token the index of the policy's turn that it belongs to; -1 for a token that
            the policy did not sample.
        turns: number of turns of the policy, the last ones of the assistant in `messages`.
        cut: number of these that were cut, because the policy spoke for the user.
        observed: signals of the partner, each with one number per turn of the policy.
        broken: error that ended the session; "" without one.
    """

    messages: list[Message]
    seed: int = 0
    prompt_ids: list[int] = field(default_factory=list, repr=False)
    completion_ids: list[int] = field(default_factory=list, repr=False)
    token_turns: list[int] = field(default_factory=list, repr=False)
    turns: int = 0
    cut: int = 0
    observed: dict[str, list[float]] = field(default_factory=dict)
    broken: str = ""

    def add(self, ids: Sequence[int], turn: int) -> None:
        """Append tokens of a turn."""
        self.completion_ids += ids
        self.token_turns += [turn] * len(ids)

    @property
    def replies(self) -> list[str]:
        """The policy's turns, as text."""
        texts = [message["content"] for message in self.messages if message["role"] == "assistant"]
        return texts[len(texts) - self.turns :]


class SessionRollouts:
    """The `rollout_func` of whole sessions, which are generated turn by turn in one batch.

    A session ends after `turns` turns of the policy, when the partner leaves or fails, or when its tokens leave no
    room for another turn (`max_completion_length` of TRL's arguments holds all turns of both sides). A reply that
    begins to speak for the user is cut there. The tokens of that marker stay in the policy's context and in the loss,
    so that the turn's reward reaches them; otherwise a turn of the marker alone could not be unlearned. Tokens after
    them are dropped.

    Args:
        partner: in the user's role.
        turns: most turns of the policy in a session.
        max_new_tokens: longest reply, in tokens.
    """

    def __init__(self, partner: Partner, *, turns: int = 6, max_new_tokens: int = 64):
        self.partner, self.turns, self.max_new_tokens = partner, turns, max_new_tokens

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: GRPOTrainer) -> dict[str, Any]:
        """Generate a session for each prompt of a batch.

        Args:
            prompts: dialogues that end with the user.
            trainer: with the policy, its tokenizer and the settings of generation.

        Returns:
            `prompt_ids`, `completion_ids`, `logprobs` (None: TRL computes them), `env_mask` (0 on the partner's
            tokens), and `rollout`, the `Rollout` of each session, which TRL passes to the reward functions.

        Raises:
            ValueError: the trainer uses FSDP or ZeRO-3.
        """
        plugin = trainer.accelerator.state.deepspeed_plugin
        if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
            raise ValueError(
                "FSDP and ZeRO-3 need all processes to generate in step, but sessions end at different times. Use "
                "plain data parallelism, or ZeRO-1 or -2"
            )
        # Drawn from the trainer's random state, which differs between processes and is resumed from a checkpoint.
        seeds = torch.randint(2**31, (len(prompts),)).tolist()
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            generation_kwargs=trainer.generation_kwargs,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model:
            rollouts = self.play(
                model,
                trainer.processing_class,
                prompts,
                seeds,
                generation_config=trainer.generation_config,
                max_completion_length=trainer.args.max_completion_length,
                template_kwargs=trainer.chat_template_kwargs,
            )
        return {
            "prompt_ids": [rollout.prompt_ids for rollout in rollouts],
            "completion_ids": [rollout.completion_ids for rollout in rollouts],
            "logprobs": None,
            "env_mask": [[int(turn != PARTNERS_TOKEN) for turn in rollout.token_turns] for rollout in rollouts],
            "rollout": rollouts,
        }

    @torch.no_grad()
    def play(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        generation_config: GenerationConfig,
        max_completion_length: int | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Rollout]:
        """Generate a session for each prompt, for training or evaluation.

        Args:
            model: the policy; it generates in eval mode and keeps its mode.
            tokenizer: its tokenizer, with a chat template.
            prompts: dialogues that end with the user.
            seeds: of the partner, one per session.
            generation_config: of sampling, except for `max_new_tokens`.
            max_completion_length: longest session after the prompt, in tokens. Default: the model's context length.
            template_kwargs: of the chat template.

        Raises:
            ValueError: a session has no room for a reply.
            BackendError: the partner failed in all sessions before its first answer.
        """
        config = copy.deepcopy(generation_config)
        config.update(max_new_tokens=self.max_new_tokens, max_length=None, pad_token_id=tokenizer.pad_token_id)
        config.eos_token_id = end_tokens(config, tokenizer)
        frame = _Frame(tokenizer, config.eos_token_id, template_kwargs or {})
        prompt_ids = frame.ids(list(map(list, prompts)), add_generation_prompt=True)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        rollouts = [
            Rollout(messages=without_opening(prompt), seed=seed, prompt_ids=ids)
            for prompt, seed, ids in zip(prompts, seeds, prompt_ids, strict=True)
        ]
        room = [min(max_completion_length or limit, limit - len(rollout.prompt_ids)) for rollout in rollouts]
        if min(room) < self.max_new_tokens:
            raise ValueError(
                f"max_completion_length: a session has room for {min(room)} tokens, fewer than max_new_tokens="
                f"{self.max_new_tokens} of one reply; expected room for all turns of both sides"
            )
        was_training = model.training
        model.eval()
        try:
            self._talk(model, config, frame, rollouts, room)
        finally:
            model.train(was_training)
        for rollout in rollouts:
            if not rollout.broken:
                observed = self.partner.observe(rollout.messages, rollout.seed)
                rollout.observed = {key: list(values)[-rollout.turns :] for key, values in observed.items()}
        return rollouts

    def _talk(self, model, config, frame: _Frame, rollouts: list[Rollout], room: list[int]) -> None:
        live = list(zip(rollouts, room))
        for turn in range(self.turns):
            spoken = generate_tokens(model, config, [each.prompt_ids + each.completion_ids for each, _ in live])
            for (rollout, _), ids in zip(live, spoken):
                text = frame.decode(ids)
                rollout.messages.append({"role": "assistant", "content": cut_reply(text)})
                rollout.turns += 1
                if speaks_for_user(text):
                    rollout.cut += 1
                    ids = ids[: frame.tokens_to_marker(ids)]
                rollout.add(ids, turn)
            if turn + 1 == self.turns:
                return
            answers = self.partner.answer([each.messages for each, _ in live], [each.seed for each, _ in live])
            continuing = []
            for (rollout, tokens), answer in zip(live, answers, strict=True):
                rollout.broken = answer.broken
                if answer.broken or not answer.text.strip():
                    continue
                ids = frame.between(answer.text, closed=rollout.completion_ids[-1] in frame.ends)
                if len(rollout.completion_ids) + len(ids) + self.max_new_tokens > tokens:
                    continue
                rollout.add(ids, PARTNERS_TOKEN)
                rollout.messages.append({"role": "user", "content": answer.text})
                continuing.append((rollout, tokens))
            live = continuing
            broken = [rollout.broken for rollout in rollouts if rollout.broken]
            if turn == 0 and len(broken) == len(rollouts):
                raise BackendError(f"the partner failed in all {len(broken)} sessions: {broken[0]}")
            if not live:
                return


class _Frame:
    """Tokens of a chat template around the messages."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], template_kwargs: Mapping[str, Any]):
        self.tokenizer, self.ends, self.template_kwargs = tokenizer, ends, template_kwargs

    def ids(self, dialogues, **kwargs) -> list:
        return self.tokenizer.apply_chat_template(
            dialogues, tokenize=True, return_dict=True, **kwargs, **self.template_kwargs
        )["input_ids"]

    def between(self, text: str, *, closed: bool) -> list[int]:
        """Tokens from the end of a reply to the beginning of the next one, with the user's answer.

        Args:
            text: the user's answer.
            closed: True if the reply has its end token; otherwise it is added.

        Raises:
            ValueError: the template has no end token, or changes an exchange when a message follows.
        """
        exchange = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before = self.ids(exchange)
        ids = self.ids([*exchange, {"role": "user", "content": text}], add_generation_prompt=True)
        length = max((position for position, token in enumerate(before, 1) if token in self.ends), default=0)
        if not length or ids[:length] != before[:length]:
            raise ValueError(
                f"chat template of {self.tokenizer.name_or_path or 'the tokenizer'}: expected one that ends an "
                f"assistant's message with a token of {self.ends} and only appends what follows"
            )
        return ids[length - (not closed) :]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def tokens_to_marker(self, ids: Sequence[int]) -> int:
        """Number of tokens up to and with the first marker of the user's role."""
        return next(count for count in range(1, len(ids) + 1) if speaks_for_user(self.decode(ids[:count])))
