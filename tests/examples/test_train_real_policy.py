"""The recipe of the policy that comes with the package, on a few invented conversations, with tiny models."""

import itertools
import json
import random
from types import SimpleNamespace

import pytest
import torch
from policy_fixtures import make_sessions
from safetensors.torch import load_file
from scripts import RECIPES, as_module
from shown import shown
from tiny import reward_model, sentence

from geli_hf import load_sessions
from geli_hf.alignment import load_policy, small_policy

pytest.importorskip("vaderSentiment")
SHARES = ("0.5", "1")
PRIVATE = "write to me@example.com"


@pytest.fixture(scope="module")
def chitchat(tmp_path_factory):
    """Conversations of 8 messages between each two of 18 speakers; one of them says something private."""
    folder, draw = tmp_path_factory.mktemp("chitchat"), random.Random(0)
    conversations = {}
    for number, pair in enumerate(itertools.combinations([f"speaker-{index}" for index in range(18)], 2)):
        lines = [
            {
                "text": f"{sentence(draw)} {PRIVATE if pair[0] == 'speaker-3' and not turn else ''}",
                "sender": pair[turn % 2],
                "timestamp": f"2018-05-02T19:38:{5 * turn + draw.randrange(5):02}Z",
            }
            for turn in range(8)
        ]
        ratings = {name: draw.randint(6, 10) for name in ("witty", "upbeat", "interesting")}
        conversations[f"c{number}"] = {"messages": [[line] for line in lines], "ratings": ratings}
    (folder / "dataset.json").write_text(json.dumps(conversations), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    for part in small_policy(make_sessions(4), hidden_size=32, layers=1, vocab_size=400):
        part.save_pretrained(folder)
    return folder


def tiny_backbone(backbone, *, dtype=None, **config):
    return reward_model("bert" if backbone is None else "llama", dtype=dtype, **config)


@pytest.fixture(scope="module")
def ran(chitchat, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real_policy")
    script = as_module(RECIPES / "train_real_policy.py")
    given = {
        "output_dir": str(folder / "run"),
        "data.chitchat": str(chitchat),
        "data.min_score": "7",
        "data.fit_turns": "60",
        "data.gold_fit_turns": "40",
        "policy.base": str(base),
        "sft.max_steps": "2",
        "sft.per_device_train_batch_size": "4",
        "sft.disable_tqdm": "true",
        "grpo.max_steps": "2",
        "grpo.save_steps": "1",
        "grpo.per_device_train_batch_size": "4",
        "grpo.num_generations": "2",
        "grpo.max_completion_length": "6",
        "grpo.disable_tqdm": "true",
    }
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    command = [word for word in shown("train_real_policy") if word not in ("--data.topical_chat", "DATA/topical_chat")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELI_HF_CACHE", str(folder / "cache"))
        patch.setattr(script, "GeliRewardModel", SimpleNamespace(from_backbone=tiny_backbone))
        patch.setattr(script, "train_fit", lambda *args, **options: train_fit(*args, **options, steps=20))
        train_fit = as_module(RECIPES / "train_real_policy.py").train_fit
        script.main([*command, *words])
        script.main([*command, *words, "--resume"])  # all is there
        evaluate = as_module(RECIPES / "evaluate_real_policy.py")
        few = folder / "contrast.jsonl"
        few.write_text("\n".join(evaluate.CONTRAST.read_text(encoding="utf-8").splitlines()[::28]), encoding="utf-8")
        patch.setattr(evaluate, "CONTRAST", few)
        output = ["-o", str(folder / "results"), "--shares", *SHARES]
        assert shown("evaluate_real_policy")[1] == "-o"
        evaluate.main([str(folder / "run"), *output, "--chitchat", str(chitchat), "--replies", "8"])
        ship = as_module(RECIPES / "ship_real_policy.py")
        patch.setattr(ship, "WEIGHTS", folder / "weights")
        patch.setattr(ship, "PAGE", folder / "page.md")
        assert len(shown("ship_real_policy")) == 2
        ship.main([str(folder / "run"), str(folder / "results")])
    return folder


def test_reward_and_judge_learn_from_other_speakers_than_the_policy(ran, chitchat):
    parts = {half: load_sessions("chitchat", data_dir=chitchat, half=half) for half in ("a", "b", "mixed")}
    ids = [set(part["conversation_id"]) for part in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 153
    for name, half in {"reward": "a", "gold": "b"}.items():
        report = (ran / "run" / f"{name}.md").read_text(encoding="utf-8")
        train, held_out = (int(report.split()[0]), int(report.split(",")[1].split()[0]))
        assert train + held_out == len(parts[half])
        assert json.loads((ran / "run" / name / "config.json").read_text())["ratings"]


def test_the_adapters_name_their_base_and_differ(ran, base):
    weights = []
    for name in ("sft_adapter", "policy_adapter"):
        config = json.loads((ran / "run" / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(base)
        weights.append(load_file(ran / "run" / name / "adapter_model.safetensors"))
        assert load_policy(ran / "run" / name)[1].chat_template is not None
    fine_tuned, aligned = weights
    assert fine_tuned.keys() == aligned.keys()
    assert any(not torch.equal(fine_tuned[key], aligned[key]) for key in aligned)


def test_the_evaluation_has_figures_of_all_three_and_unpicked_replies(ran):
    figures = json.loads((ran / "results" / "figures.json").read_text())
    assert set(figures["sides"]) == {"downloaded", "fine-tuned", "aligned"}
    assert (figures["step"], f"{figures['share']:g}") in {(2, share) for share in SHARES}
    assert set(figures["judges"]["gold"]) == {"aligned over downloaded", "aligned over fine-tuned"}
    for side in figures["sides"].values():
        assert side["perplexity"] > 1
        assert 0 <= side["questions"] <= 1
        assert "fitting answer" in side["contrast"]
    assert (ran / "results" / "replies.md").read_text(encoding="utf-8").count("\n") >= 8
    assert (ran / "results" / "over_optimisation.png").exists()


def test_the_adapters_ship_in_bfloat16_with_figures_and_unpicked_replies(ran):
    figures = json.loads((ran / "results" / "figures.json").read_text())
    chosen = f"candidates/{figures['step']}-{figures['share']:g}"
    sources = {"sft_adapter": "sft_adapter", "aligned_adapter": chosen}
    for name, source in sources.items():
        shipped = load_file(ran / "weights" / name / "adapter_model.safetensors")
        trained = load_file(ran / "run" / source / "adapter_model.safetensors")
        assert shipped.keys() == trained.keys()
        assert all(torch.equal(shipped[key], trained[key].to(torch.bfloat16)) for key in trained)
        assert load_policy(ran / "weights" / name)[0].config.model_type == "llama"
    card = (ran / "weights" / "aligned_adapter" / "README.md").read_text(encoding="utf-8")
    assert card == (ran / "page.md").read_text(encoding="utf-8")
    for words in ("Q4_1", "win rate", "aligned over fine-tuned, by gold", "perplexity", "fitting answer"):
        assert words in card


def test_a_candidate_lies_between_the_adapters(ran):
    parts = ("sft_adapter", "candidates/2-0.5", "candidates/2-1", "checkpoints/grpo/checkpoint-2")
    first, half, whole, last = (load_file(ran / "run" / part / "adapter_model.safetensors") for part in parts)
    for name in last:
        torch.testing.assert_close(half[name], (first[name].float() + last[name].float()) / 2)
        torch.testing.assert_close(whole[name], last[name].float())


def test_the_length_reward_is_the_gradient_of_a_penalty_on_the_mean():
    script = as_module(RECIPES / "train_real_policy.py")
    held = script.HeldLength([10, 20, 40], 4.0)
    lengths = torch.tensor([5.0, 0.0, 30.0, 80.0])
    logs = lengths.clamp(min=1).log().requires_grad_()
    (-4.0 * len(logs) / 2 * (logs.mean() - torch.tensor(20.0).log()) ** 2).backward()
    rewards = held([[1] * int(length) for length in lengths])
    assert rewards == pytest.approx((logs.grad * (logs - torch.tensor(20.0).log())).tolist(), rel=1e-5)
    assert held([[1] * 20, [1] * 20]) == pytest.approx([0.0, 0.0])


def test_private_conversations_are_not_learned(chitchat, base, tmp_path, monkeypatch, capsys):
    script = as_module(RECIPES / "train_real_policy.py")
    learned = []

    def sft(model, tokenizer, sessions, *args, **options):
        learned.extend(sessions)
        raise KeyboardInterrupt

    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(script, "sft", sft)
    words = ["--output_dir", str(tmp_path / "run"), "--data.chitchat", str(chitchat), "--policy.base", str(base)]
    with pytest.raises(KeyboardInterrupt):
        script.main([*shown("train_real_policy")[:2], *words, "--stages", "[sft]"])
    assert len(learned) > 10
    assert min(row["score"] for row in learned) >= 8
    assert not any(PRIVATE in message["content"] for row in learned for message in row["messages"])
