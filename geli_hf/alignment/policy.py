"""Policies: any causal language model with its adapter and tokenizer, or a small one made from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
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
from ..sessions import Session
from ..settings import UserError
from .default import DEFAULT_POLICY, INSTALL, local_policy
from .dialogue import OPENING

USER_TOKEN, ASSISTANT_TOKEN, END_TOKEN, PAD_TOKEN = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"

# Either role may begin. Role and end tokens are removed from the text, so that typing one opens no turn. The end token
# is within the generation tags: a policy that is not trained on it never learns to stop.
SMALL_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] | replace('<|user|>', ' ') | replace('<|assistant|>', ' ')"
    " | replace('<|end|>', ' ') | replace('<|pad|>', ' ') | trim -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- content + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'user' -%}{{- '<|user|>' + content + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# Arguments of a model by which its configuration and tokenizer are read too.
HUB_KWARGS = {"revision", "trust_remote_code", "token", "cache_dir"}


class PolicyError(UserError):
    """Error of a name or folder that is not a policy's."""


def load_policy(name_or_path: str | Path, **model_kwargs) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready for chat.

    Args:
        name_or_path: on the Hub or on disk. An adapter (PEFT) is merged into its base model. The default policy is
            read from its package where that is installed, see `local_policy`.
        model_kwargs: of `AutoModelForCausalLM.from_pretrained` (`dtype`, `device_map`, `quantization_config`, ...).

    Raises:
        PolicyError: it is not a causal language model, or its tokenizer can't end a reply.
    """
    where = hub_kwargs(model_kwargs)
    check_policy(name_or_path, **where)
    tokenizer = load_policy_tokenizer(name_or_path, **where)
    if is_adapter(name_or_path, **where):
        return load_adapter(name_or_path, **model_kwargs).merge_and_unload(), tokenizer
    return AutoModelForCausalLM.from_pretrained(local_policy(name_or_path), **model_kwargs), tokenizer


def load_adapter(name_or_path: str | Path, *, trainable: bool = False, **model_kwargs) -> PeftModel:
    """Load an adapter on its base model.

    Args:
        name_or_path: on the Hub or on disk.
        trainable: the adapter's weights can be trained.
        model_kwargs: see `load_policy`.

    Raises:
        PolicyError: it is an adapter of another base model, or names none.
    """
    where = hub_kwargs(model_kwargs)
    base, base_where = _base_of_adapter(name_or_path, where)
    model = AutoModelForCausalLM.from_pretrained(base, **model_kwargs | base_where)
    try:
        return PeftModel.from_pretrained(model, str(name_or_path), is_trainable=trainable, **where)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PolicyError(f"{name_or_path}: this adapter does not fit its base model {base} ({reason})") from error


def hub_kwargs(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Select the arguments of a model by which its configuration and tokenizer are read too."""
    return {name: value for name, value in model_kwargs.items() if name in HUB_KWARGS}


def is_adapter(name_or_path: str | Path, **where) -> bool:
    """True for an adapter of PEFT, False for a model.

    Args:
        name_or_path: on the Hub or on disk.
        where: see `hub_kwargs`.

    Raises:
        PolicyError: there is no such folder.
    """
    name = local_policy(name_or_path)
    if not Path(name).exists() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise PolicyError(f"{name}: there is no such folder")
    where.pop("trust_remote_code", None)
    return find_adapter_config_file(name, **where) is not None


def check_policy(name_or_path: str | Path, **where) -> None:
    """Check that a model can write replies, without loading weights.

    The Auto classes would load other models too: they keep the body of a classifier and add an untrained head.

    Args:
        name_or_path: on the Hub or on disk.
        where: see `hub_kwargs`.

    Raises:
        PolicyError: it can't.
    """
    base, where = _base_of_adapter(name_or_path, where)
    config = _read(AutoConfig, base, where)
    found = config.architectures or []
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())  # a name, or several
    if not remote and (not names or (found and not any(name in names for name in found))):
        found = ", ".join(found) or config.model_type
        raise PolicyError(f"{base}: expected a causal language model as policy, found {found}")


def load_policy_tokenizer(name_or_path: str | Path, **where) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a policy or, where an adapter has none, of its base model.

    Without a pad token it pads with the end token.

    Args:
        name_or_path: on the Hub or on disk.
        where: see `hub_kwargs`.

    Raises:
        PolicyError: there is no tokenizer, or it has no end token.
    """
    name = local_policy(name_or_path)
    config_file = "tokenizer_config.json"
    if is_adapter(name, **where) and not cached_file(
        name, config_file, _raise_exceptions_for_missing_entries=False, **where
    ):
        name, where = _base_of_adapter(name, where)
    tokenizer = _read(AutoTokenizer, name, where)
    if tokenizer.eos_token is None:
        raise PolicyError(f"{name}: the tokenizer has no eos_token to end a reply; set one and save it")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _base_of_adapter(name_or_path: str | Path, where: dict[str, Any]) -> tuple[str | Path, dict[str, Any]]:
    """The base model of an adapter and its arguments; those of a model are returned as they are."""
    if not is_adapter(name_or_path, **where):
        return local_policy(name_or_path), where
    adapter = PeftConfig.from_pretrained(str(name_or_path), **where)
    if adapter.base_model_name_or_path is None:
        raise PolicyError(f"{name_or_path}: an adapter whose adapter_config.json names no base_model_name_or_path")
    return local_policy(adapter.base_model_name_or_path), where | {"revision": adapter.revision}


def _read(auto: type, name: str | Path, where: dict[str, Any]):
    try:
        return auto.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        hint = f" Or install its package: {INSTALL}" if str(name) == DEFAULT_POLICY else ""
        raise PolicyError(
            f"{name}: {auto.__name__} can read nothing there ({reason}){offline_hint(name)}{hint}"
        ) from error


def small_policy(
    sessions: Iterable[Session],
    *,
    hidden_size: int = 192,
    layers: int = 4,
    vocab_size: int = 2048,
    max_position_embeddings: int = 2048,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Make an untrained decoder of Llama's architecture, and a tokenizer trained on the sessions' text.

    Args:
        sessions: Session rows; the messages of both roles are read.
        hidden_size: a multiple of 32, the width of a head.
        layers: number of layers.
        vocab_size: of the byte-level BPE, at least 261 (all bytes and the special tokens).
        max_position_embeddings: longest dialogue, in tokens.
        seed: of the weights; the caller's random state stays.
    """
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
        initializer_range=0.05,  # a narrow model learns faster from this than from the usual 0.02
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # On a CPU eager attention is as fast for short dialogues as the fused one, and twice as fast in bf16.
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model, tokenizer


def _train_tokenizer(sessions: Iterable[Session], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Role tokens are not "special": TRL decodes completions without special tokens, and a sampled role token has to
    # stay visible to be cut.
    roles = [AddedToken(token, special=False, normalized=False) for token in (USER_TOKEN, ASSISTANT_TOKEN)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(roles),
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for session in sessions for message in session["messages"])
    tokenizer.train_from_iterator(chain([OPENING], texts), trainer)
    tokenizer.add_tokens(roles)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        chat_template=SMALL_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
