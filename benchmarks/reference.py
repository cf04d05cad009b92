"""The published way to score a turn, and the backbones and sessions of its comparisons.

Each turn is encoded anew with the 20 utterances before it, in a forward pass of its own, padded to the whole context
length of the backbone (see the published scripts of GELI, arXiv 2403.11330). Text, weights, layers, pooling and head
are those of the model that it is compared with, so the rewards must be equal; `tests/test_benchmarks.py` holds that.
"""

from itertools import cycle, islice
from pathlib import Path

import torch
from transformers import AutoTokenizer, BartConfig, BartModel, LlamaConfig, LlamaModel

from geli_hf import GeliRewardModel
from geli_hf.models.geli_reward.modeling_geli import default_backbone

CONTEXT = 20  # utterances before a turn

# Random weights suffice for speed and equality of scores. The first has the shape of a small chat
# model, the second that of BART-base (of which only the encoder is used), the third costs as good as nothing.
BACKBONES = {
    "decoder": (
        LlamaModel,
        LlamaConfig,
        {
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
        },
    ),
    "bart": (
        BartModel,
        BartConfig,
        {"d_model": 768, "max_position_embeddings": 1024, "decoder_layers": 1}
        | {f"encoder_{name}": size for name, size in (("layers", 6), ("attention_heads", 12), ("ffn_dim", 3072))},
    ),
    "nothing": (
        LlamaModel,
        LlamaConfig,
        {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
        },
    ),
}


def random_backbone(name: str, folder: Path, **changes) -> str:
    """Write one of `BACKBONES`, with the word pieces of all-MiniLM-L6-v2, and return its folder.

    Args:
        changes: other sizes.
    """
    model_class, config_class, sizes = BACKBONES[name]
    sizes = sizes | changes
    tokenizer = AutoTokenizer.from_pretrained(default_backbone())
    tokenizer.model_max_length = sizes["max_position_embeddings"]
    torch.manual_seed(0)
    config = config_class(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    model_class(config).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return str(folder / name)


def with_random_head(model: GeliRewardModel) -> GeliRewardModel:
    """Give the head random weights: an untrained one rewards everything with 0."""
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.out.weight, std=0.1)
    return model


def long_dialogue(sessions: list[dict], turns: int, *, words: int | None = None) -> list[dict]:
    """Make a dialogue of so many turns of the assistant from the messages of `sessions`.

    Args:
        words: cut every message after so many.
    """
    texts = {
        role: [m["content"] for row in sessions for m in row["messages"] if m["role"] == role]
        for role in ("user", "assistant")
    }
    return [
        {"role": role, "content": " ".join(text.split()[:words])}
        for pair in islice(zip(cycle(texts["user"]), cycle(texts["assistant"])), turns)
        for role, text in zip(("user", "assistant"), pair)
    ]


@torch.inference_mode()
def reference_features(model: GeliRewardModel, messages: list[dict]) -> torch.Tensor:
    """Compute the features (hidden,) of the last message, which is a turn."""
    ids = model.tokenize([messages[-1 - CONTEXT :]])["input_ids"][:, -model.config.max_length :]
    real = ids.shape[1]
    ids = torch.nn.functional.pad(ids, (0, model.config.max_length - real), value=model.tokenizer.pad_token_id)
    mask = (torch.arange(ids.shape[1]) < real).long()[None]
    options = {"use_cache": False} if model.config.causal else {}
    output = model.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **options)
    layers = output.hidden_states[1:] if model.config.layers == "all" else output.hidden_states[-1:]
    states = torch.stack([layer[0] for layer in layers]).mean(0)
    if model.config.pooling == "last":
        return states[real - 1]
    [start] = (ids[0] == model.config.assistant_token_id).nonzero()[-1].tolist()
    return states[start:real].mean(0)


@torch.inference_mode()
def reference_reward(model: GeliRewardModel, messages: list[dict]) -> float:
    """Compute the reward of the last message, which is a turn."""
    return model.score(reference_features(model, messages)[None, None]).item()
