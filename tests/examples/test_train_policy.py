"""The training script of the small policy that comes with the package, with a smaller one and a few sessions."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import EXAMPLES, as_module
from shown import shown

from geli_hf import GeliRewardModel
from geli_hf.alignment import load_policy
from geli_hf.data import load_sessions
from geli_hf.settings import SettingsError
from geli_hf.simulator.corpus import true_turn_value


@pytest.fixture(scope="module")
def script():
    return as_module(EXAMPLES / "train_policy.py")


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
        "reward.conversations": "[24, 20]",
        "reward.test_conversations": "4",
        "reward.eval_share": "0.2",
        "reward.training": "{max_steps: 3, learning_rate: 0.01, li_slope: true, li_weight: 0.8, disable_tqdm: true}",
        "reward.further": "{max_steps: 2}",
        "grpo.max_steps": "2",
        "grpo.save_steps": "1",
        "grpo.per_device_train_batch_size": "4",
        "grpo.num_generations": "2",
        "grpo.max_completion_length": "6",
        "evaluate.replies": "6",
        "evaluate.compared": "8",
        "evaluate.shown": "2",
        "evaluate.pieces": "6",
        "evaluate.max_new_tokens": "6",
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
        yield output


def test_a_run_leaves_weights_in_bfloat16_and_figures(ran):
    for folder, file in {"policy": "model", "policy_adapter": "adapter_model", "policy_reward": "model"}.items():
        weights = load_file(ran / folder / f"{file}.safetensors")
        body = {weight.dtype for name, weight in weights.items() if not name.startswith("score")}
        assert body == {torch.bfloat16}
        assert not list((ran / folder).glob("*.py"))
    figures = json.loads((ran / "figures.json").read_text())
    assert set(figures["perplexity"]) == {"base", "policy", "aligned"}
    assert {corpus: len(rows) for corpus, rows in figures["replies"].items()} == {"sample": 2, "topical_chat": 2}
    assert [set(each) for each in figures["reward"]["rounds"]] == [{"sample", "talks1", "talks2"}] * 2
    assert figures["alignment"]["after"]["recognised"] == 0  # two steps teach nobody to talk
    assert figures["alignment"]["win_rate"][0] == 0.5


@pytest.mark.parametrize("folder", ["round1", "."])
def test_people_rate_what_the_policy_said(folder, ran):
    talks = load_sessions(ran / folder / "talks.jsonl")
    assert len(talks) == 20
    assert len(set(talks["score"])) > 2
    for row in talks:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2
        values = [true_turn_value(row["messages"][: turn + 1]).value for turn in (1, 3)]
        assert row["turn_rating"] == pytest.approx(values)
        assert all(seen != seen or seen in (0, 1) for seen in row["feedback"]["affect"])


def test_the_whole_reward_model_is_trained_and_goes_on_in_the_next_round(ran):
    first, second = (json.loads((ran / folder / "reward_data.json").read_text()) for folder in ("round1", "."))
    assert [len(each["talks"]) for each in (first, second)] == [1, 2]
    for parts in (first["sessions"], second["sessions"], *second["talks"]):
        assert parts["train"] > parts["eval"] > 0 < parts["test"]
    assert first["sessions"]["train"] != second["sessions"]["train"]
    for folder in ("round1", "."):  # how much of a reward shows in a face was found out
        history = json.loads((ran / folder / "reward_history.json").read_text())
        assert [row["eval_li_slope"] for row in history if "eval_li_slope" in row]
    assert GeliRewardModel.from_pretrained(ran / "policy_reward").config.pooling == "turn"
    query = "model.layers.0.self_attn.q_proj.weight"
    began, round1, ended = (
        load_file(ran / name / "model.safetensors")[query]
        for name in ("policy", "round1/policy_reward", "policy_reward")
    )
    assert not began.equal(round1)
    assert not round1.equal(ended)
    assert (round1 - ended).abs().mean() < (began - ended).abs().mean()


def test_from_the_second_round_on_the_aligned_policy_talks(script, ran, topical_chat, tmp_path):
    def said(folder: Path) -> list[list[dict]]:
        return load_sessions(folder / "talks.jsonl")["messages"][:]

    assert not {row[0]["content"] for row in said(ran / "round1")} & {row[0]["content"] for row in said(ran)}
    again = []
    for name, factor in {"as it was": 1, "another": -300}.items():
        output = tmp_path / name
        shutil.copytree(ran, output, ignore=shutil.ignore_patterns("checkpoints"))
        (output / "talks.jsonl").unlink()
        weights = output / "round1" / "policy_adapter" / "adapter_model.safetensors"
        scaled = {name: weight * (factor if "lora_B" in name else 1) for name, weight in load_file(weights).items()}
        save_file(scaled, weights, {"format": "pt"})
        script.main(arguments(output, topical_chat, "--resume", "--stages", "[talk]"))
        again.append(said(output))
    assert again[0] == said(ran)
    assert again[1] != said(ran)


def test_a_session_in_which_the_policy_said_nothing_is_left_out(
    script, ran, topical_chat, tmp_path, monkeypatch, capsys
):
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
    assert "Left out 2 of 20 sessions" in capsys.readouterr().out


def test_the_adapter_is_the_checkpoint_that_the_truth_chose(ran):
    figures = json.loads((ran / "align_figures.json").read_text())
    assert set(figures["win_rates"]) == {"1", "2"}
    as_often = [step for step, share in figures["recognised"].items() if share >= figures["recognised_before"]]
    wins = [figures["win_rates"][step] for step in as_often or figures["win_rates"]]
    assert figures["win_rates"][str(figures["chosen"])] == max(wins)
    kept, *others = (
        load_file(ran / "checkpoints" / "grpo" / f"checkpoint-{step}" / "adapter_model.safetensors")
        for step in sorted((1, 2), key=lambda step: step != figures["chosen"])
    )
    adapter = load_file(ran / "policy_adapter" / "adapter_model.safetensors")
    assert all(adapter[name].equal(weight.to(torch.bfloat16)) for name, weight in kept.items())
    assert not all(adapter[name].equal(weight.to(torch.bfloat16)) for name, weight in others[0].items())
    assert f"The adapter is that of {figures['chosen']} steps" in (ran / "policy" / "README.md").read_text()


def test_a_finished_run_is_kept_and_another_one_is_not_mixed_with_it(ran, script, topical_chat):
    before = {path: path.stat().st_mtime_ns for path in ran.rglob("*.safetensors")}
    script.main(arguments(ran, topical_chat, "--resume"))
    assert {path: path.stat().st_mtime_ns for path in ran.rglob("*.safetensors")} == before
    with pytest.raises(SettingsError, match="other settings"):
        script.main(arguments(ran, topical_chat, "--resume", "--grpo.max_steps", "3"))
    with pytest.raises(SettingsError, match="expected some of pretrain, lengthen, sft"):
        script.main(arguments(ran, topical_chat, "--resume", "--stages", "[bake]"))
    with pytest.raises(SettingsError, match=r"policy\.likelihood: expected a number, 0 or more, found -1"):
        script.main(arguments(ran, topical_chat, "--resume", "--policy.likelihood", "-1"))
    for wrong, told in {"1600": "expected a list, found 1600", "[]": "a number for each round, found none"}.items():
        with pytest.raises(SettingsError, match=f"conversations: .*{told}"):
            script.main(arguments(ran, topical_chat, "--resume", "--reward.conversations", wrong))


def test_generated_pieces_begin_with_the_user_unless_they_are_beginnings(script):
    rows = list(script.generate(script.PRETRAIN, 0, [4, 6], list(range(60))))
    assert [len(row["messages"]) for row in rows] == [4, 6] * 30
    assert rows[7] == next(iter(script.generate(script.PRETRAIN, 0, [4, 6], [7])))
    assert rows[7] != next(iter(script.generate(script.SFT, 0, [4, 6], [7])))
    first = Counter(row["messages"][0]["role"] for row in rows)
    assert first["user"] > first["assistant"] > 0
    for messages in (row["messages"] for row in rows):
        assert [m["role"] for m in messages[::2]] == [messages[0]["role"]] * len(messages[::2])
        if messages[0]["role"] == "assistant":  # only a beginning is worth something as one
            assert true_turn_value(messages[:1]).act in ("opening", "odd_opening")


def test_log_probabilities_are_those_of_the_agents_turns(ran, script):
    model, tokenizer = load_policy(ran / "policy", dtype=torch.float32)
    dialogues = [
        [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "What about you?"},
            {"role": "user", "content": "Well."},
            {"role": "assistant", "content": "I see."},
        ],
        [{"role": "user", "content": "Hello there."}, {"role": "assistant", "content": "Yes."}],
    ]
    found = script.turn_log_probs(model, tokenizer, dialogues, temperature=2.0)
    assert [len(turns) for turns in found] == [2, 1]
    before = tokenizer.apply_chat_template(dialogues[0][:3], add_generation_prompt=True, return_dict=True)["input_ids"]
    reply = tokenizer("I see.<|end|>")["input_ids"]
    with torch.inference_mode():
        scores = (model(input_ids=torch.tensor([before + reply])).logits[0] / 2.0).log_softmax(-1)
    expected = [scores[len(before) + index - 1, token].item() for index, token in enumerate(reply)]
    np.testing.assert_allclose(found[0][1], expected, atol=1e-5)

    everything = np.concatenate(
        [turn for turns in script.turn_log_probs(model, tokenizer, dialogues) for turn in turns]
    )
    told = script.perplexity(model, tokenizer, dialogues)
    assert told["words"] == 6
    assert told["per_word"] == pytest.approx(np.exp(-everything.sum() / 6))


def test_distinct_by_hand(script):
    # a b a / a b: unigrams a b a a b, of which two differ; bigrams ab ba ab
    assert script.distinct(["A b a", "a b"], 1) == pytest.approx(2 / 5)
    assert script.distinct(["A b a", "a b"], 2) == pytest.approx(2 / 3)
    assert script.distinct([""], 2) == 0
