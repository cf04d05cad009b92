"""`geli evaluate-policy BASE ALIGNED` with each judge, and with one policy or several."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from chat_server import ChatServer
from peft import LoraConfig, get_peft_model
from policy_fixtures import policy_folder, reward_model, sessions  # noqa: F401

from geli_hf import GeliRewardModel
from geli_hf.alignment import load_policy
from geli_hf.cli import main
from geli_hf.data import load_sessions
from geli_hf.data.rows import write_jsonl
from geli_hf.evaluation.comparison import JudgedReply
from geli_hf.evaluation.comparison import judge_by_reward as rewarded
from geli_hf.evaluation.judges.judge import RatingJudge, TruthJudge, judge_by_truth
from geli_hf.evaluation.judges.ratings import JudgeReport
from geli_hf.simulator.corpus import true_turn_value

QUICK = ["--replies", "12", "--max-new-tokens", "6", "--temperature", "1"]


@pytest.fixture(scope="module")
def folder(policy_folder, sessions, reward_model, tmp_path_factory) -> Path:
    """A policy, two that were moved away from it, an adapter to it, a judge with a report, a reward model."""
    folder = tmp_path_factory.mktemp("policies")
    shutil.copytree(policy_folder, folder / "base")
    for name, way in (("near", 0.05), ("far", 0.5)):
        model, tokenizer = load_policy(folder / "base")
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.model.layers.parameters():
                parameter += way * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    adapter = get_peft_model(load_policy(folder / "base")[0], LoraConfig(r=2, task_type="CAUSAL_LM"))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapter.save_pretrained(folder / "adapter")
    reward_model.save_pretrained(folder / "reward")
    reward_model.save_pretrained(folder / "judge")
    with torch.no_grad():
        judge = GeliRewardModel.from_pretrained(folder / "judge")
        judge.score.out.weight.mul_(-1)
        judge.config.score_mean, judge.config.score_std = 3.0, 2.0
        judge.save_pretrained(folder / "judge")
    JudgeReport(5, 20, 0.1, conversations=[]).save(folder / "judge")
    write_jsonl(sessions, folder / "held_out.jsonl")
    return folder


@pytest.fixture
def evaluate(folder, tmp_path, monkeypatch, capsys):
    """Run the command in that folder: the figures, and the text."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))

    def evaluate(*argv: str) -> tuple[dict, str]:
        main(["evaluate-policy", *argv, *QUICK, "-o", str(tmp_path / "out")])
        printed = capsys.readouterr().out
        assert printed == (tmp_path / "out" / "policies.md").read_text(encoding="utf-8")
        return json.loads((tmp_path / "out" / "policies.json").read_text(encoding="utf-8")), printed

    return evaluate


@pytest.fixture
def problem(folder, tmp_path, monkeypatch):
    """Run a command that can't succeed, and get its message."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))

    def problem(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["evaluate-policy", *argv])
        return caught.value.code

    return problem


def replies(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "out" / "replies.jsonl").read_text().splitlines()]


def test_a_judge_in_a_folder(evaluate, tmp_path):
    found, text = evaluate("base", "far", "--sessions", "held_out.jsonl", "--judge", "judge/", "--reward", "reward")
    figures, said = found["test"], replies(tmp_path)
    assert (found["base"], found["chosen"], figures["dialogues"], len(said)) == ("base", "far", 12, 12)
    gains = [row["after"]["value"] - row["before"]["value"] for row in said]
    assert figures["difference"]["estimate"] == pytest.approx(np.mean(gains))
    same = [row["after"]["text"] == row["before"]["text"] for row in said]
    wins = np.where(same, 0.5, np.where(np.sign(gains) > 0, 1.0, np.where(np.sign(gains) < 0, 0.0, 0.5)))
    assert figures["win_rate"]["estimate"] == pytest.approx(wins.mean())
    assert figures["kl"]["estimate"] > 0.1
    assert found["kl_estimator"] in text
    # The judge is the reward turned upside down, in units of its rating: what it gains, the reward loses.
    assert figures["reward"]["difference"]["estimate"] == pytest.approx(
        -figures["difference"]["estimate"] / 2, abs=0.5
    )
    assert "judged by **judge, which learned from people's ratings of turns**" in text
    assert "Don't rely on the intervals: " in text
    assert text.count("> **User:**") == 8
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*("policies.md", "policies.json", "replies.jsonl")}


def test_a_policy_beside_itself(evaluate):
    found, _text = evaluate("base", "base/", "--sessions", "held_out.jsonl", "--judge", "judge")
    assert found["test"]["win_rate"] == {"estimate": 0.5, "low": 0.5, "high": 0.5}
    assert found["test"]["kl"]["estimate"] == pytest.approx(0, abs=1e-6)


def test_the_judge_chooses_on_other_conversations(evaluate, tmp_path):
    argv = ["base", "near", "far", "adapter", "--sessions", "held_out.jsonl", "--judge", "judge", "--reward", "reward"]
    found, text = evaluate(*argv)
    rates = {name: row["win_rate"]["estimate"] for name, row in found["validation"].items()}
    assert list(rates) == ["near", "far", "adapter"]
    assert rates[found["chosen"]] == max(rates.values())
    kl = {name: row["kl"]["estimate"] for name, row in found["validation"].items()}
    assert 0 < kl["near"] < kl["far"]
    assert kl["adapter"] > 0  # merged into the model that it was made for
    assert "for the highest win rate. The reward that was trained for would have chosen" in " ".join(text.split())
    assert (tmp_path / "out" / "over_optimisation.png").exists()
    # The conversations of the report were not chosen on.
    reported = {row["conversation_id"] for row in replies(tmp_path)}
    [others] = re.findall(r"on \d+ dialogues of (\d+) other conversations", text)
    assert len(reported) + int(others) <= 12
    assert "## The choice" in text


@pytest.mark.parametrize("share", [1.1, 0.9])
def test_the_choice_may_be_bounded_by_the_divergence(evaluate, monkeypatch, share):
    """The nearest one is chosen where it alone is within the bound, and where none is."""
    argv = ["base", "near", "far", "--sessions", "held_out.jsonl", "--judge", "judge"]
    judged = RatingJudge.compare
    monkeypatch.setattr(RatingJudge, "compare", prefer_the_second(judged))
    found, _ = evaluate(*argv)
    assert found["chosen"] == "far"
    monkeypatch.setattr(RatingJudge, "compare", prefer_the_second(judged))
    nearest = found["validation"]["near"]["kl"]["estimate"]
    found, text = evaluate(*argv, "--max-kl", str(share * nearest))
    assert found["chosen"] == "near"
    reason = text.partition("Chosen by the judge")[2].partition("## ")[0]
    assert ("since none is within" in reason) == (share < 1)


def prefer_the_second(compare):
    """A judge for whom every reply of the second policy is better, and every other one of the first."""
    calls = []

    def preferring(self, dialogues, before, after, *rest):
        calls.append(len(after))
        values = [float(len(calls) > 1 or index % 2) for index in range(len(after))]
        worse, better = [JudgedReply(text, 0.5) for text in before], list(map(JudgedReply, after, values))
        return replace(compare(self, dialogues, before, after, *rest), before=worse, after=better)

    return preferring


def test_the_true_values_as_judge(evaluate, monkeypatch, tmp_path):
    options = json.dumps({"conversations": 6, "seed": 3})
    found, text = evaluate("base", "far", "--sessions", "sample", "--options", options)
    assert found["test"]["judge"] == "true turn values"
    assert "| recognised " in text
    assert "judged by **true turn values**." in text
    # An untrained policy says nothing that the grammar knows, and both sides are worth the least.
    assert found["test"]["before"]["recognised"] == found["test"]["after"]["recognised"] == 0
    assert found["test"]["before"]["value"]["estimate"] == -1
    assert found["test"]["win_rate"]["estimate"] == 0.5


def test_the_truth_is_that_of_the_sample():
    session = load_sessions("sample", conversations=2)[0]["messages"]
    last = max(index for index, each in enumerate(session) if each["role"] == "assistant")
    dialogue, reply = session[:last], session[last]["content"]
    [judged, nonsense] = judge_by_truth([dialogue] * 2, [reply, "asdf"])
    assert (judged.value, judged.recognised) == true_turn_value(session[: last + 1])[:2]
    assert (nonsense.value, nonsense.recognised) == (-1, False)
    TruthJudge().check([session])


def test_a_language_model_as_judge(evaluate, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    criteria = ["connection", "positivity", "social_understanding", "inclination", "interestingness", "reuse"]
    criteria += ["specific", "sensible", "fluent"]

    def longer(body: dict) -> str:
        """Prefers the longer reply, but for fluency whatever stands first."""
        a, b = re.search(
            r"Reply A:\n\nAgent: (.*)\n\nReply B:\n\nAgent: (.*)\n", body["messages"][0]["content"]
        ).groups()
        better = "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"
        return json.dumps(dict.fromkeys(criteria, better) | {"fluent": "A"})

    with ChatServer(answer=longer) as server:
        argv = ["--judge", "llm", "--llm-model", "m", "--base-url", server.url]
        found, text = evaluate("base", "far", "--sessions", "held_out.jsonl", *argv)
    said = replies(tmp_path)
    shown = [[" ".join(row[side]["text"].split()) or "(says nothing)" for side in ("before", "after")] for row in said]
    wins = [0.5 + 0.5 * np.sign(len(after) - len(before)) for before, after in shown]
    verdicts = found["test"]["verdicts"]
    assert list(verdicts) == criteria
    assert verdicts["connection"]["estimate"] == pytest.approx(np.mean(wins))
    assert verdicts["fluent"]["estimate"] == 0.5
    assert found["test"]["win_rate"]["estimate"] == pytest.approx((8 * np.mean(wins) + 0.5) / 9)
    assert "judged by **the language model m**" in text
    assert said[0]["before"]["value"] is None
    assert "asked about twice" in text


def test_a_judge_that_is_the_reward_is_warned_of(evaluate):
    _, text = evaluate("base", "near", "--sessions", "held_out.jsonl", "--judge", "reward", "--reward", "reward")
    assert "**The judge is the very reward model that the policy was trained to please: this proves nothing.**" in text
    assert "*reward* is no judge that `geli train-judge` made" in text


def test_policies_of_other_vocabularies_have_no_kl(evaluate, folder):
    if not (folder / "other").exists():
        model, tokenizer = load_policy(folder / "base")
        tokenizer.add_tokens(["hello"])
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder / "other")
        tokenizer.save_pretrained(folder / "other")
    found, text = evaluate("base", "other", "--sessions", "held_out.jsonl", "--judge", "judge")
    assert found["test"]["kl"] is None
    assert found["test"]["win_rate"]["estimate"] >= 0
    assert "No KL divergence: the two policies choose between different tokens" in text


def test_an_empty_reply_gets_the_lowest_reward(folder):
    judge = RatingJudge(str(folder / "judge"))
    asked = [[{"role": "user", "content": "What do you cook?"}]] * 3
    silent, spoken, _ = rewarded(judge.model, asked, ["  ", "Soup, mostly.", "Okay."])
    assert silent.value == -1.25
    [again] = rewarded(judge.model, asked[:1], ["Soup, mostly."])
    assert again.value == pytest.approx(spoken.value, abs=1e-5)
    rating = rewarded(judge.model, asked, ["", "Soup, mostly.", "Okay."], rating=True)
    assert [each.value for each in rating[:2]] == pytest.approx([3 - 2 * 1.25, 3 + 2 * spoken.value], abs=1e-4)


HELD_OUT = ("--sessions", "held_out.jsonl")
JUDGED = (*HELD_OUT, "--judge", "judge")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["base", "near", *HELD_OUT], "--judge: "),
        (["base", "near", *HELD_OUT, "--judge", "truth"], "--judge: truth"),
        (["base", "near", *HELD_OUT, "--judge", "llm"], "--llm-model: "),
        (["base", "near", *HELD_OUT, "--judge", "base"], "is no reward model of geli_hf"),
        (["base", "near", *JUDGED, "--llm-model", "m"], "--llm-model: "),
        (["base", "near", "near/", *JUDGED], "ALIGNED: "),
        (["base", "reward", *JUDGED], "reward: expected a causal language model"),
        (["base", "nowhere/at/all", *JUDGED], "there is no such folder"),
        (["base", "near", "--sessions", "opened.jsonl", "--judge", "judge"], "answers something"),
        (["base", "near", "--sessions", "sample", "--options", '{"speed": 1}'], "--options: "),
    ],
)
def test_invalid_arguments(problem, folder, argv, said):
    messages = [{"role": "assistant", "content": "Hello."}]
    row = {"session_id": "a", "conversation_id": "a", "score": 1, "messages": messages}
    (folder / "opened.jsonl").write_text(json.dumps(row) + "\n")
    assert said in problem(*argv)
