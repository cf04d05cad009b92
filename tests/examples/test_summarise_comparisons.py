"""The figures for real corpora in docs/methods.md equal the measured ones."""

import json
import shutil
from pathlib import Path

import pytest
from scripts import RECIPES, as_module
from shown import shown

ROOT = Path(__file__).parents[2]
summarise = as_module(RECIPES / "summarise_comparisons.py")
CORPORA = sorted(path.parent.name for path in (ROOT / "results").glob("*/comparison.json"))


@pytest.mark.parametrize("page", ["docs/methods.md", "results/README.md"])
def test_the_page_shows_the_records(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = text.partition(summarise.MARKS[0])[2].partition(summarise.MARKS[1])[0].strip()
    assert shown == summarise.summary(ROOT / "results")
    assert all(f" {title} |" in shown for name, title in summarise.TITLES.items() if name in CORPORA)


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_records_are_those_of_the_table_beside_them(corpus):
    table = (ROOT / "results" / corpus / "comparison.md").read_text(encoding="utf-8")
    records = json.loads((ROOT / "results" / corpus / "comparison.json").read_text(encoding="utf-8"))
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    measured = [record for record in records if record["run"]]
    assert len(measured) > 15
    for record in measured:
        interval = record["within_session_spearman"]
        assert "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**interval) in table
        assert record["row"] in lines


def test_what_a_comparison_left_is_copied_and_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results", "results")
    Path("docs").mkdir()
    shutil.copy(ROOT / "docs/methods.md", "docs/methods.md")
    Path("runs").mkdir()
    Path("results/sample").rename("runs/compare_sample")
    monkeypatch.setattr(summarise, "HOME", tmp_path)
    monkeypatch.setattr(summarise, "RESULTS", tmp_path / "results")
    summarise.main(shown("summarise_comparisons"))
    for file in (*(f"results/sample/{name}" for name in summarise.FILES), "docs/methods.md", "results/README.md"):
        assert Path(file).read_bytes() == (ROOT / file).read_bytes(), file


def test_a_folder_of_no_corpus_is_refused():
    with pytest.raises(SystemExit, match=r"expected FOLDER=NAME with a name of uss_mwoz, .*found 'runs/x'"):
        summarise.main(["runs/x"])


def test_a_run_that_lacks_something_is_refused_before_anything_is_copied(tmp_path):
    with pytest.raises(SystemExit, match=r"has no comparison\.md, comparison\.json, comparison\.png; run"):
        summarise.main([f"{tmp_path}=sample"])
    for file in summarise.FILES:
        (tmp_path / file).write_text(json.dumps([{"row": "hindsight", "run": True}]), encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks hindsight, seeing the reaction; hindsight, scores shuffled"):
        summarise.main([f"{tmp_path}=sample"])
    assert len((ROOT / "results" / "sample" / "comparison.md").read_text(encoding="utf-8")) > 1000
