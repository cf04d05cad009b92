"""The report of a run: figures, pictures, and texts that agree with both."""

import json
import re

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from scipy.stats import spearmanr
from tiny import reward_model, talk

from geli_hf.evaluation.comparison import TRUTH, JudgedReply, PolicyComparison
from geli_hf.evaluation.report import THIS_MODEL, write_report
from geli_hf.metrics import evaluate_rewards
from geli_hf.metrics.table import COLUMNS
from geli_hf.sessions import session_features

SETTINGS = {"": {"output_dir": "runs/1", "seed": 3}, "reward": {"li_weight": 0.3}}
SIZES = {"train": 70, "eval": 15, "test": 12}
REPLIES = ["Good, and yours?", "What did you do?", "I walked by the river.", "Fine.", "", "Who was there?"]


@pytest.fixture(scope="module")
def held_out():
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        messages = talk(8 + 2 * (index % 3), seed=index)
        ratings = rng.normal(size=len(messages) // 2)
        row = {"session_id": f"s{index}", "conversation_id": f"c{index // 2}", "rater_id": "", "messages": messages}
        affect = (ratings > 0).astype(float)
        rows.append(row | {"score": 5 + ratings.mean(), "feedback": {"affect": affect}, "turn_rating": ratings})
    return Dataset.from_list(rows, features=session_features(["affect"], turn_rating=True))


@pytest.fixture(scope="module")
def rewards(held_out):
    """Rewards of a model that is partly right, and of one that is the same for all turns."""
    rng = np.random.default_rng(1)
    return {
        THIS_MODEL: [np.array(row) + rng.normal(size=len(row)) for row in held_out["turn_rating"]],
        "uniform": [np.full(len(row), 0.5) for row in held_out["turn_rating"]],
    }


@pytest.fixture(scope="module")
def comparison():
    before = [JudgedReply(REPLIES[index % 4], 0.1 * index, recognised=index != 3) for index in range(6)]
    after = [JudgedReply(REPLIES[index], 0.1 * index + 0.25 * (index % 2)) for index in range(6)]
    heard = [[{"role": "user", "content": f"This is message {index}."}] for index in range(6)]
    return PolicyComparison(heard, before, after, list("aabbcc"), TRUTH)


def rows_of(test, rewards) -> dict:
    predicted = [5 + reward.mean() for reward in rewards[THIS_MODEL]]
    return {
        name: evaluate_rewards(test, each, predicted if name == THIS_MODEL else None, 5.0, resamples=200)
        for name, each in rewards.items()
    }


@pytest.fixture(scope="module")
def written(held_out, rewards, comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "my_run"
    folder.mkdir()
    model = reward_model("bert", reward_quantiles=np.linspace(-2, 2, 101).tolist())
    rows = rows_of(held_out, rewards)
    write_report(folder, SETTINGS, SIZES, held_out, model, rewards, rows, comparison, ["Twelve talks of one village."])
    return folder


@pytest.fixture(scope="module")
def metrics(written) -> dict:
    return json.loads(
        (written / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON")
    )


def shown(interval: dict) -> str:
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def test_notes_stand_in_the_report_and_in_the_summary(written):
    for name in ("report.md", "summary.txt"):
        assert "\n\nTwelve talks of one village.\n\n" in (written / name).read_text()


PICTURES = {"session.png", "methods.png"}


def test_the_folder_holds_figures_texts_and_pictures(written):
    texts = {"metrics.json", "values.json", "report.md", "summary.txt"}
    assert {path.name for path in written.iterdir()} == texts | PICTURES
    for name in PICTURES:
        with Image.open(written / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_the_metrics_are_those_of_the_rewards(metrics, held_out, rewards, comparison):
    assert metrics["settings"] == SETTINGS
    assert metrics["sessions"] == SIZES
    assert set(metrics["reward"]) == {THIS_MODEL, "uniform"}
    within = [spearmanr(x, y).statistic for x, y in zip(rewards[THIS_MODEL], held_out["turn_rating"])]
    mine = metrics["reward"][THIS_MODEL]
    assert mine["within_session_spearman"]["estimate"] == pytest.approx(np.mean(within))
    errors = [(5 + x.mean() - y) ** 2 for x, y in zip(rewards[THIS_MODEL], held_out["score"])]
    assert mine["global_loss"]["estimate"] == pytest.approx(np.mean(errors))
    assert metrics["reward"]["uniform"]["global_loss"]["estimate"] is None
    assert metrics["policy"]["difference"]["estimate"] == pytest.approx(0.25 / 2)
    assert metrics["policy"]["before"]["recognised"] == pytest.approx(5 / 6)


def test_the_values_behind_the_intervals(written, metrics):
    values = json.loads((written / "values.json").read_text())
    within, policy = values["within_session_spearman"], values["policy"]
    assert list(within) == ["conversation_id", THIS_MODEL, "uniform"]
    expected = metrics["reward"][THIS_MODEL]["within_session_spearman"]["estimate"]
    assert np.mean(within[THIS_MODEL]) == pytest.approx(expected)
    assert within["uniform"] == [0] * 12
    assert len(within["conversation_id"]) == 12
    assert np.subtract(policy["after"], policy["before"]) == pytest.approx([0, 0.25] * 3)
    assert len(policy["conversation_id"]) == 6


def test_the_table_of_the_report_has_the_figures_of_the_metrics(written, metrics):
    lines = [
        line.strip("|").split("|") for line in (written / "report.md").read_text().splitlines() if line[:1] == "|"
    ]
    cells = [[cell.strip() for cell in line] for line in lines]
    head = cells.index(["", *COLUMNS.values()])
    table = {row[0]: row[1:] for row in cells[head + 2 : head + 4]}
    assert set(table) == {THIS_MODEL, "uniform"}
    for name, row in table.items():
        for key, cell in zip(COLUMNS, row):
            figure = metrics["reward"][name][key]
            if not isinstance(figure, dict):
                assert cell == f"{figure:.3f}"
            elif figure["estimate"] is None:
                assert cell == "–"
            else:
                assert cell == shown(figure)
    assert "–" in table["uniform"]
    assert "–" not in table[THIS_MODEL]


def test_the_policy_in_the_report_has_the_figures_of_the_metrics(written, metrics):
    report, policy = (written / "report.md").read_text(), metrics["policy"]
    cells, sides = re.sub(" +", " ", report), (policy["before"], policy["after"])
    values = [shown(figure) for figure in (*(side["value"] for side in sides), policy["difference"])]
    assert f"| value of a reply | {' | '.join(values)} |" in cells
    for title, key in (("recognised", "recognised"), ("words", "words"), ("different replies", "distinct")):
        assert f"| {title} | {sides[0][key]:.3f} | {sides[1][key]:.3f} | |" in cells
    assert f"| length after / before | | | {policy['length_ratio']:.3f} |" in cells
    assert "Replies to 6 held-out dialogues, judged by true turn values." in report


def test_the_examples_are_replies_to_their_dialogues(written, comparison):
    report = (written / "report.md").read_text()
    said = r"> \*\*User:\*\* This is message (\d)\.  \n"
    replied = r"> \*\*Before \((.+?)\):\*\* (.*?)  \n> \*\*After \((.+?)\):\*\* (.*)"
    examples = re.findall(said + replied, report)
    assert len(examples) == len({example[0] for example in examples}) == 4
    for number, before_value, before_text, after_value, after_text in examples:
        before, after = comparison.before[int(number)], comparison.after[int(number)]
        assert (float(before_value), before_text) == (pytest.approx(before.value, abs=0.0051), before.text)
        assert float(after_value) == pytest.approx(after.value, abs=0.0051)
        assert after_text == (after.text or "(nothing)")


def test_the_report_links_the_pictures_that_are_there(written):
    report = (written / "report.md").read_text()
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", report)) == PICTURES
    assert report.startswith("# my_run: ")
    assert "70 sessions to train, 15 sessions to eval, 12 sessions to test." in report


def test_the_summary_has_the_figures_of_the_metrics(written, metrics):
    summary = (written / "summary.txt").read_text()
    mine, policy = metrics["reward"][THIS_MODEL], metrics["policy"]
    line = next(line for line in summary.splitlines() if THIS_MODEL in line)
    for cell in (shown(mine["within_session_spearman"]), shown(mine["global_loss"])):
        assert f" {cell} |" in line
    assert f" {shown(policy['difference'])} |" in summary
    assert f"geli score sample --model {written}/reward_model --format table" in summary


def test_without_truth_history_and_policy(held_out, rewards, tmp_path):
    """Report on a corpus without turn ratings."""
    bare = held_out.remove_columns(["turn_rating", "feedback"])
    write_report(tmp_path, SETTINGS, SIZES, bare, reward_model("bert"), rewards, rows_of(bare, rewards), None)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"metrics.json", "values.json", "report.md", "summary.txt", "session.png"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["policy"] is None
    assert metrics["reward"][THIS_MODEL]["within_session_spearman"]["estimate"] is None
    assert json.loads((tmp_path / "values.json").read_text()) == {}
    report = (tmp_path / "report.md").read_text()
    assert re.findall(r"\]\((.*?\.png)\)", report) == ["session.png"]
    assert "## The policy" not in report
    assert "no turn has a turn_rating" in report
    summary = (tmp_path / "summary.txt").read_text()
    assert "nan" not in report + summary.replace(str(tmp_path), "")


def test_a_reply_of_several_lines_stays_in_its_quotation(held_out, rewards, comparison, tmp_path):
    long = [JudgedReply("Well.\n\n# Really\n\nNo.", 0.5)] * 6
    heard = [[{"role": "user", "content": "One.\n\nTwo."}]] * 6
    spoken = PolicyComparison(heard, comparison.before, long, list("aabbcc"))
    rows = rows_of(held_out, rewards)
    write_report(tmp_path, SETTINGS, SIZES, held_out, reward_model("bert"), rewards, rows, spoken)
    report = (tmp_path / "report.md").read_text()
    assert report.count("> **After (+0.50):** Well. # Really No.\n") == 4
    assert report.count("> **User:** One. Two.  \n") == 4
    assert "judged by its own reward model" in report
