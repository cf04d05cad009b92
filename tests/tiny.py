"""Tiny random backbones with real tokenizers, trained on the spot: what the tests use in place of the Hub.

    from tiny import reward_model, talk
    reward_model("llama").score_messages([talk(6)])

Each backbone is made once per test process. Weights are drawn ten times wider than for training, so that what a token
says is far above rounding errors in every hidden state.
"""

import atexit
import random
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import torch
from transformers import (
    BartConfig,
    BartModel,
    BartTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    GPT2Config,
    GPT2Model,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

import geli_hf
from geli_hf import GeliRewardModel

# The code of every checkpoint of a reward model.
TRAVELLING_FILES = {path.name for path in (Path(geli_hf.__file__).parent / "models/geli_reward").glob("*_geli.py")}

WORDS = """
i you we they it this what why when how really maybe never always yesterday today tomorrow walked talked found
lost made saw heard think feel know like want the a my your her his dog river garden kitchen letter song train
city winter summer mother friend teacher quiet strange lovely broken old new small happy sad tired and but so
""".split()  # noqa: SIM905

# Tokens that fit: the length of every backbone's context but Llama's, which is left to `max_length`.
CONTEXT = 64
LLAMA_CONTEXT = 256
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BART_SIZES = {"d_model": 32} | {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
}
# RoBERTa's positions begin after its padding index, which is 0 here: one row of its table is never read.
BACKBONES = {
    "bert": (BertTokenizer, BertModel, BertConfig, SIZES | {"max_position_embeddings": CONTEXT}),
    "roberta": (RobertaTokenizer, RobertaModel, RobertaConfig, SIZES | {"max_position_embeddings": CONTEXT + 1}),
    "bart": (BartTokenizer, BartModel, BartConfig, BART_SIZES | {"max_position_embeddings": CONTEXT}),
    "llama": (LlamaTokenizer, LlamaModel, LlamaConfig, SIZES | {"max_position_embeddings": LLAMA_CONTEXT}),
    "gpt2": (GPT2Tokenizer, GPT2Model, GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}),
}
ENCODERS = ("bert", "roberta", "bart")
DECODERS = ("llama", "gpt2")

_folder = Path(tempfile.mkdtemp(prefix="tiny_backbones_"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def sentence(rng: random.Random, words: int = 6) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def talk(messages: int, *, seed: int = 0, words: int = 6, first: str = "user") -> list[dict[str, str]]:
    """A dialogue of `messages` alternating messages of about `words` words each."""
    rng = random.Random(f"{seed} {messages} {words}")
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [
        {"role": roles[index % 2], "content": sentence(rng, rng.randint(max(1, words - 3), words + 3))}
        for index in range(messages)
    ]


def session(messages: int, *, score: float = 0.0, **options) -> dict:
    """A Session row around `talk`."""
    name = f"{messages}-{options}"
    return {"session_id": name, "conversation_id": name, "messages": talk(messages, **options), "score": score}


@cache
def backbone(name: str, *, dtype: torch.dtype = torch.float32) -> str:
    """Folder of a backbone of that architecture: a key of `BACKBONES`."""
    tokenizer_class, model_class, config_class, sizes = BACKBONES[name]
    rng = random.Random(0)
    corpus = [sentence(rng) + rng.choice(".?!,") for _ in range(400)] + ["user: assistant:"] * 20
    tokenizer = tokenizer_class().train_new_from_iterator(corpus, vocab_size=360)
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({"init_std": 0.2} if name == "bart" else {"initializer_range": 0.2}),
        **sizes,
    )
    folder = _folder / f"{name}-{dtype}".replace("torch.", "")
    model_class(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def reward_model(name: str, *, seed: int = 0, dtype: torch.dtype | None = None, **config) -> GeliRewardModel:
    """A reward model on that backbone whose head is no longer the untrained one, which rewards everything with 0."""
    model = GeliRewardModel.from_backbone(backbone(name), dtype=dtype, **config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.score.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
        model.score.standardise.mean.normal_(0.0, 0.1, generator=generator)
        model.score.standardise.std.uniform_(0.5, 2.0, generator=generator)
        if model.fit is not None:
            for parameter in model.fit.parameters():
                parameter.normal_(0.0, 0.3, generator=generator)
            for network in model.fit.reasons.values():  # P is neither 0 nor 1 for most turns
                network[-1].bias.fill_(-1.0)
            model.fit.standardise.std.uniform_(0.5, 2.0, generator=generator)
            model.fit.level.fill_(0.6)
    return model


def published_head(path: str | Path, *, hidden_size: int = 32, change=None, **saving) -> torch.nn.Module:
    """Pickle a head as the authors of GELI published theirs, a module whose class was defined in a script.

    Args:
        change: what else to do to the module before it is pickled.
        saving: of `torch.save`.

    Returns:
        The module, ready to compute with.
    """

    class RewardFunction(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(hidden_size, 128)
            self.Relu = torch.nn.ReLU()
            self.fc2 = torch.nn.Linear(128, 1)
            self.Tanh = torch.nn.Tanh()
            self.dropout = torch.nn.Dropout(0.2)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.Tanh(self.dropout(self.fc2(self.Relu(self.dropout(self.fc1(features))))))

    RewardFunction.__module__, RewardFunction.__qualname__ = "__main__", "reward_function"
    torch.manual_seed(0)
    module = RewardFunction()
    if change:
        change(module)
    with mock.patch.object(sys.modules["__main__"], "reward_function", RewardFunction, create=True):
        torch.save(module, path, **saving)
    return module.eval()
