"""The policy: any causal language model, or a small one made from scratch where there is no Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, PeftConfig
from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import cached_file, find_adapter_config_file

from ..cache import offline_hint
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from ..sessions import Session
from .dialogue import OPENING

USER_TOKEN, ASSISTANT_TOKEN, END_TOKEN, PAD_TOKEN = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"

# Either role may begin. What opens and ends a message is taken out of the text, so that nobody can open a turn by
# typing it. The end token is within the generation tags: a policy that isn't trained on it never learns to stop.
SMALL_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] | replace('<|user|>', ' ') | replace('<|assistant|>', ' ')"
    " | replace('<|end|>', ' ') | replace('<|pad|>', ' ') | trim -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- content + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'user' -%}{{- '<|user|>' + content + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# For a pretrained model whose tokenizer has no template: plain text, no new tokens.
PLAIN_TEMPLATE = (
    "{{- bos_token or '' -}}{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- 'Assistant:' -}}{%- generation -%}{{- ' ' + message['content'] | trim + eos_token -}}{%- endgeneration -%}"
    "{{- '\\n' -}}"
    "{%- elif message['role'] == 'user' -%}{{- 'User: ' + message['content'] | trim + '\\n' -}}"
    "{%- else -%}{{- message['content'] | trim + '\\n' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)


HUB_KWARGS = {"revision", "trust_remote_code", "token", "cache_dir"}  # of a model, by which its other files are read
CAUSAL = {
    name
    for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    for name in ((names,) if isinstance(names, str) else names)
}


class PolicyError(ValueError):
    """What is named as a policy is none; the message names it, says what it is, and what to do."""


def load_policy(name_or_path: str | Path, **model_kwargs) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, ready for chat.

    Args:
        name_or_path: on the Hub or on disk. An adapter (PEFT) is merged into the model that it was trained on.
        model_kwargs: for `AutoModelForCausalLM.from_pretrained` (`dtype`, `device_map`, `quantization_config`, ...).

    Raises:
        PolicyError: it is no causal language model, or has no tokenizer that can end a reply.
    """
    where = hub_kwargs(model_kwargs)
    check_policy(name_or_path, **where)
    tokenizer = load_policy_tokenizer(name_or_path, **where)
    try:
        if is_adapter(name_or_path, **where):
            return AutoPeftModelForCausalLM.from_pretrained(name_or_path, **model_kwargs).merge_and_unload(), tokenizer
        return AutoModelForCausalLM.from_pretrained(name_or_path, **model_kwargs), tokenizer
    except SafetensorError as error:
        raise OSError(
            f"{name_or_path}: the weights can't be read ({error}): their file is damaged. Fetch it or save it again"
        ) from error


def hub_kwargs(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model's keyword arguments those that say where and how its configuration and tokenizer are read, too."""
    return {name: value for name, value in model_kwargs.items() if name in HUB_KWARGS}


def is_adapter(name_or_path: str | Path, **where) -> bool:
    """Whether an adapter of PEFT is in this folder or on the Hub, and not a whole model. `where`: see `hub_kwargs`.

    Raises:
        PolicyError: the folder is not there.
    """
    name = str(name_or_path)
    if not Path(name).exists() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise PolicyError(f"{name}: there is no such folder")
    where.pop("trust_remote_code", None)
    return find_adapter_config_file(name, **where) is not None


def check_policy(name_or_path: str | Path, **where) -> None:
    """Find out, without loading weights, that something can write replies.

    What else a folder may hold would load all the same: of a classifier the Auto classes keep the body and put an
    untrained head on it.

    Args:
        name_or_path: on the Hub or on disk.
        where: `revision` and the like, see `hub_kwargs`.

    Raises:
        PolicyError: it can't.
    """
    base = name_or_path
    if is_adapter(name_or_path, **where):
        adapter = PeftConfig.from_pretrained(str(name_or_path), **where)
        base, where = adapter.base_model_name_or_path, where | {"revision": adapter.revision}
        if adapter.task_type not in (None, "CAUSAL_LM"):
            raise PolicyError(
                f"{name_or_path}: expected the adapter of a causal language model, found one for {adapter.task_type}"
            )
    try:
        config = AutoConfig.from_pretrained(base, **where)
    except (OSError, ValueError) as error:
        if base is name_or_path:
            raise PolicyError(
                f"{base}: no model, neither as a folder nor on the Hub: {_first(error)}{offline_hint(base)}"
            ) from error
        hint = offline_hint(base) or "; correct base_model_name_or_path in its adapter_config.json"
        raise PolicyError(
            f"{name_or_path}: an adapter to {base!r}, which can't be read ({_first(error)}){hint}"
        ) from error
    if config.model_type == GeliRewardConfig.model_type:
        raise PolicyError(f"{base}: expected a policy, a model that writes replies; this is a reward model of geli_hf")
    found = config.architectures or []
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not remote and (
        config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (found and not CAUSAL.intersection(found))
    ):
        raise PolicyError(
            f"{base}: expected a causal language model as policy, found {', '.join(found) or config.model_type}, "
            "which has no head that writes words; give the chat model that it was made from, or any other"
        )


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def load_policy_tokenizer(name_or_path: str | Path, **where) -> PreTrainedTokenizerBase:
    """A policy's tokenizer; without a chat template it gets a plain one, without a pad token it pads with the end.

    Raises:
        PolicyError: there is none, or it has no token that ends a reply.
    """
    name = str(name_or_path)
    if (
        is_adapter(name, **where)
        and cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False, **where) is None
    ):
        adapter = PeftConfig.from_pretrained(name, **where)
        name, where = adapter.base_model_name_or_path, where | {"revision": adapter.revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        hint = offline_hint(name) or "; write it with tokenizer.save_pretrained"
        raise PolicyError(f"{name}: no tokenizer can be read there ({_first(error)}){hint}") from error
    if tokenizer.eos_token is None:
        raise PolicyError(
            f"{name}: the tokenizer has no eos_token, so its policy could not end a reply; set one and save it"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def small_policy(
    sessions: Iterable[Session],
    *,
    hidden_size: int = 192,
    layers: int = 4,
    vocab_size: int = 2048,
    max_position_embeddings: int = 2048,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """An untrained decoder of Llama's architecture, with a tokenizer learned from the sessions' text.

    Args:
        sessions: Session rows; all their messages are read, both roles'.
        hidden_size: a multiple of 32, the width of a head.
        layers: number of layers.
        vocab_size: of the byte-level BPE, at least 261 (all bytes and more); common words become one token each.
        max_position_embeddings: longest dialogue, in tokens.
        seed: of the weights; the caller's random state is left alone.
    """
    if hidden_size % 32:
        raise ValueError(f"hidden_size: expected a multiple of 32 (the width of a head), found {hidden_size}")
    tokenizer = _train_tokenizer(sessions, vocab_size)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=-(-hidden_size * 8 // 3 // 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=max_position_embeddings,
        tie_word_embeddings=True,
        initializer_range=0.05,  # the usual 0.02 is for wide models; a narrow one learns faster from this
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # On short dialogues and a CPU plain attention is as fast as the fused one, and in bf16 half as dear.
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model, tokenizer


def _train_tokenizer(sessions: Iterable[Session], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Role tokens are not "special": TRL decodes completions without special tokens, and a role token that a policy
    # samples has to stay visible to be cut.
    roles = [AddedToken(token, special=False, normalized=False) for token in (USER_TOKEN, ASSISTANT_TOKEN)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(roles),
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(sessions), trainer)
    tokenizer.add_tokens(roles)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        chat_template=SMALL_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(sessions: Iterable[Session]) -> Iterator[str]:
    yield OPENING
    for session in sessions:
        yield from (message["content"] for message in session["messages"])
