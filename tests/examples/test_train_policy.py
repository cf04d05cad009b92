"""The recipes of the small policy that comes with the package, with a smaller one and a few sessions."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from scripts import RECIPES, as_module
from shown import shown

from geli_hf import GeliRewardModel
from geli_hf.alignment import load_policy
from geli_hf.data import load_sessions
from geli_hf.settings import SettingsError
from geli_hf.simulator.corpus import true_turn_value


@pytest.fixture(scope="module")
def script():
    return as_module(RECIPES / "train_policy.py")


@pytest.fixture(scope="module")
def topical_chat(tmp_path_factory) -> Path:
    """Two conversations of each part, of four messages."""
    folder = tmp_path_factory.mktemp("topical_chat")
    for number, part in enumerate(("valid_freq", "valid_rare", "test_freq")):
        conversations = {
            f"t_{part}_{index}": {
                "content": [
                    {"agent": f"agent_{turn % 2 + 1}", "message": f"Word{number} {turn} of {index}, yes?"}
                    for turn in range(4)
                ],
                "conversation_rating": {"agent_1": "Good", "agent_2": "Poor"},
            }
            for index in range(2)
        }
        (folder / f"{part}.json").write_text(json.dumps(conversations))
    return folder


def arguments(output: Path, topical_chat: Path, *more: str) -> list[str]:
    given = {
        "output_dir": str(output),
        "data.sessions": "12",
        "data.long_sessions": "6",
        "data.sft_sessions": "6",
        "data.topical_chat": str(topical_chat),
        "policy.hidden_size": "32",
        "policy.layers": "1",
        "policy.vocab_size": "400",
        "pretrain.max_steps": "2",
        "lengthen.max_steps": "2",
        "sft.max_steps": "1",
        "talk.sessions": "20",
        "talk.turns": "2",
        "talk.batch_size": "10",
        "talk.max_new_tokens": "6",
        "reward.conversations": "24",
        "reward.test_conversations": "4",
        "reward.eval_share": "0.2",
        "reward.training": "{max_steps: 3, learning_rate: 0.01, li_slope: true, li_weight: 0.8, disable_tqdm: true}",
        "grpo.max_steps": "2",
        "grpo.save_steps": "1",
        "grpo.per_device_train_batch_size": "4",
        "grpo.num_generations": "2",
        "grpo.max_completion_length": "6",
        "policy.compared": "8",
    }
    trainers = ("pretrain", "sft", "grpo")
    given |= {f"{name}.disable_tqdm": "true" for name in trainers}
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    return [*shown("train_policy"), *flags, *more]


@pytest.fixture(scope="module")
def ran(script, topical_chat, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "policy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELI_HF_CACHE", str(output.parent / "cache"))
        script.main(arguments(output, topical_chat))
        evaluate = as_module(RECIPES / "evaluate_policy.py")
        patch.setitem(evaluate.SAMPLING, "max_new_tokens", 6)
        few = ["--topical-chat", str(topical_chat), "--replies", "6", "--shown", "2", "--pieces", "6"]
        evaluate.main([str(output), *shown("evaluate_policy")[1:], *few])
        as_module(RECIPES / "policy_cards.py").main([str(output), *shown("policy_cards")[1:]])
        yield output


def test_a_run_leaves_weights_in_bfloat16_figures_and_cards(ran):
    for folder, file in {"policy": "model", "policy_adapter": "adapter_model", "policy_reward": "model"}.items():
        weights = load_file(ran / folder / f"{file}.safetensors")
        body = {weight.dtype for name, weight in weights.items() if not name.startswith("score")}
        assert body == {torch.bfloat16}
        assert not list((ran / folder).glob("*.py"))
        assert "## Evaluation" in ModelCard.load(ran / folder / "README.md").text
    figures = json.loads((ran / "figures.json").read_text())
    assert set(figures["perplexity"]) == {"base", "policy", "aligned"}
    assert {corpus: len(rows) for corpus, rows in figures["replies"].items()} == {"sample": 2, "topical_chat": 2}
    assert set(figures["reward"]["spearman"]) == {"sample", "talks"}
    assert figures["alignment"]["after"]["recognised"] == 0  # two steps teach nobody to talk
    assert figures["alignment"]["win_rate"][0] == 0.5
    assert f"The adapter is that of {figures['checkpoints']['chosen']} steps" in (ran / "policy/README.md").read_text()


def test_people_rate_what_the_policy_said(ran):
    talks = load_sessions(ran / "talks.jsonl")
    assert len(talks) == 20
    assert len(set(talks["score"])) > 2
    for row in talks:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2
        values = [true_turn_value(row["messages"][: turn + 1]).value for turn in (1, 3)]
        assert row["turn_rating"] == pytest.approx(values)
        assert all(seen != seen or seen in (0, 1) for seen in row["feedback"]["affect"])


def test_the_whole_reward_model_is_trained(ran):
    sizes = json.loads((ran / "reward_data.json").read_text())
    for parts in sizes.values():
        assert parts["train"] > parts["eval"] > 0 < parts["test"]
    history = json.loads((ran / "reward_history.json").read_text())
    assert [row["eval_li_slope"] for row in history if "eval_li_slope" in row]
    assert GeliRewardModel.from_pretrained(ran / "policy_reward").config.pooling == "turn"
    query = "model.layers.0.self_attn.q_proj.weight"
    before, after = (load_file(ran / name / "model.safetensors")[query] for name in ("policy", "policy_reward"))
    assert not before.equal(after)


def test_a_session_in_which_the_policy_said_nothing_is_left_out(script, ran, topical_chat, tmp_path, monkeypatch):
    class Silent(script.SessionRollouts):
        def play(self, *args, **how):
            first, *others = super().play(*args, **how)
            first.messages[1] = {"role": "assistant", "content": " "}
            return [first, *others]

    monkeypatch.setattr(script, "SessionRollouts", Silent)
    shutil.copytree(ran, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "run" / "talks.jsonl").unlink()
    script.main(arguments(tmp_path / "run", topical_chat, "--resume", "--stages", "[talk]"))
    assert len(load_sessions(tmp_path / "run" / "talks.jsonl")) == 18  # of two batches of ten


def test_the_adapter_is_the_checkpoint_that_the_truth_chose(ran):
    figures = json.loads((ran / "align_figures.json").read_text())
    assert set(figures["win_rates"]) == {"1", "2"}
    as_often = [step for step, share in figures["recognised"].items() if share >= figures["recognised_before"]]
    wins = [figures["win_rates"][step] for step in as_often or figures["win_rates"]]
    assert figures["win_rates"][str(figures["chosen"])] == max(wins)
    adapter = load_file(ran / "policy_adapter" / "adapter_model.safetensors")
    for step in (1, 2):
        checkpoint = load_file(ran / "checkpoints" / "grpo" / f"checkpoint-{step}" / "adapter_model.safetensors")
        same = all(adapter[name].equal(weight.to(torch.bfloat16)) for name, weight in checkpoint.items())
        assert same == (step == figures["chosen"])


def test_a_finished_run_is_kept_and_another_one_is_not_mixed_with_it(ran, script, topical_chat):
    before = {path: path.stat().st_mtime_ns for path in ran.rglob("*.safetensors")}
    script.main(arguments(ran, topical_chat, "--resume"))
    assert {path: path.stat().st_mtime_ns for path in ran.rglob("*.safetensors")} == before
    for option, value, named in (
        ("--grpo.max_steps", "3", "grpo.max_steps"),
        ("--stages", "[bake]", "stages: .*bake"),
        ("--reward.conversations", "[1600]", r"conversations: .*\[1600\]"),
    ):
        with pytest.raises(SettingsError, match=named):
            script.main(arguments(ran, topical_chat, "--resume", option, value))


def test_the_perplexity_is_that_of_the_agents_turns(ran):
    evaluate = as_module(RECIPES / "evaluate_policy.py")
    model, tokenizer = load_policy(ran / "policy", dtype=torch.float32)
    dialogue = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "What about you?"},
        {"role": "user", "content": "Well."},
        {"role": "assistant", "content": "I see."},
    ]
    told = evaluate.perplexity(model, tokenizer, [dialogue])
    encoded = tokenizer.apply_chat_template(dialogue, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = torch.tensor(encoded["input_ids"]), torch.tensor(encoded["assistant_masks"])[1:] == 1
    with torch.inference_mode():
        log_probs = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    chosen = log_probs.gather(1, ids[1:, None])[:, 0][mask]
    assert (told["tokens"], told["words"]) == (len(chosen), 5)
    assert told["per_token"] == pytest.approx(chosen.mean().neg().exp().item(), rel=1e-5)
    assert told["per_word"] == pytest.approx((-chosen.sum() / 5).exp().item(), rel=1e-5)
