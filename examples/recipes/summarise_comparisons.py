"""Tables of docs/methods.md and results/README.md, from the records that compare_methods.py wrote for each corpus.

    python examples/recipes/summarise_comparisons.py runs/compare_uss=uss_mwoz runs/compare_esconv=esconv

copies the comparison in each folder to `results/NAME`, and writes the tables anew from all of `results`. Without
arguments it only writes the tables.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[2]
RESULTS = HOME / "results"
FILES = ("comparison.md", "comparison.json", "comparison.png")
MARKS = "<!-- comparison -->", "<!-- /comparison -->"
TITLES = {
    "uss_mwoz": "USS, MWOZ",
    "uss_ccpe": "USS, CCPE",
    "esconv": "ESConv",
    "topical_chat": "Topical-Chat",
    "sample": "the sample (simulated)",
}
Rows = dict[str, dict[str, Any]]
WITHIN = "within_session_spearman"
HINDSIGHT, ATTRIBUTION = "hindsight", "hindsight, seeing the reaction"
# Title of a row, and a pattern of the rows of which it shows the best.
ROWS = {
    "log length": "log length",
    "position": "position",
    "next-turn sentiment ○": "next-turn sentiment",
    "LI alone, best signal": r"LI alone \(.*\)",
    "IRCR": "IRCR",
    "RUDDER": "RUDDER",
    "RRD, all turns": "RRD, all turns",
    "GELI, best signal": r"GELI \([^)]*\)",
    "**hindsight**": HINDSIGHT,
    "**hindsight's teacher** ○": ATTRIBUTION,
    "supervised by the turn ratings": r"supervised by the turn ratings \(reference\)",
}


def main(argv: list[str]) -> None:
    for argument in argv:
        source, _, name = argument.partition("=")
        if name not in TITLES:
            sys.exit(
                f"summarise_comparisons: expected FOLDER=NAME with a name of {', '.join(TITLES)}, found {argument!r}"
            )
        check(Path(source))
    for argument in argv:
        source, _, name = argument.partition("=")
        (RESULTS / name).mkdir(parents=True, exist_ok=True)
        for file in FILES:
            shutil.copyfile(Path(source) / file, RESULTS / name / file)
    table = summary(RESULTS)
    for page in (HOME / "docs" / "methods.md", RESULTS / "README.md"):
        text = page.read_text(encoding="utf-8")
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


def check(folder: Path) -> None:
    """Exit unless the folder has what the tables need."""
    if missing := [file for file in FILES if not (folder / file).exists()]:
        sys.exit(f"summarise_comparisons: {folder} has no {', '.join(missing)}; run compare_methods.py to its end")
    controls = [f"{name}, scores shuffled" for name in (HINDSIGHT, ATTRIBUTION)]
    measured = records(folder / "comparison.json")
    if missing := [name for name in (HINDSIGHT, ATTRIBUTION, *controls) if name not in measured]:
        sys.exit(f"summarise_comparisons: {folder}/comparison.json lacks {'; '.join(missing)}; run all rows")


def summary(results: Path) -> str:
    """Make the table: a column per corpus, and a row per method with its within-session Spearman."""
    read = {name: records(results / name / "comparison.json") for name in TITLES if (results / name).is_dir()}
    lines = [
        "| Within-session Spearman | " + " | ".join(TITLES[name] for name in read) + " |",
        "| --- |" + " ---: |" * len(read),
    ]
    lines += [row(title, [best(rows, pattern, WITHIN) for rows in read.values()]) for title, pattern in ROWS.items()]
    beside = {
        # The row that all were compared with is GELI with the first signal.
        "hindsight minus GELI, first signal": lambda rows: shown(rows[HINDSIGHT]["difference"]),
        "hindsight, length held fixed": lambda rows: best(rows, HINDSIGHT, "spearman_given_length"),
        "hindsight, position held fixed": lambda rows: best(rows, HINDSIGHT, "spearman_given_position"),
        "hindsight, scores shuffled": lambda rows: shuffled(rows, HINDSIGHT),
        "its teacher, scores shuffled ○": lambda rows: shuffled(rows, ATTRIBUTION),
        "hindsight's global loss (floor)": lambda rows: loss(rows[HINDSIGHT]),
    }
    lines += [row(title, [cell(rows) for rows in read.values()]) for title, cell in beside.items()]
    return "\n".join(lines)


def records(file: Path) -> Rows:
    return {record["row"]: record for record in json.loads(file.read_text(encoding="utf-8")) if record["run"]}


def row(title: str, cells: list[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def best(rows: Rows, pattern: str, key: str) -> str:
    intervals = [record[key] for name, record in rows.items() if re.fullmatch(pattern, name)]
    known = [interval for interval in intervals if interval["estimate"] is not None]
    return shown(max(known, key=lambda interval: interval["estimate"])) if known else "not run"


def shuffled(rows: Rows, name: str) -> str:
    null = rows[f"{name}, scores shuffled"]["shuffled"]
    return f"{decimals(null['mean'])} ± {decimals(null['deviation'])}, p = {decimals(null['p'], 2)}"


def loss(record: dict[str, Any]) -> str:
    return f"{decimals(record['global_loss']['estimate'])} ({decimals(record['global_loss_floor'])})"


def shown(interval: dict[str, float | None]) -> str:
    if interval["low"] is None:
        return decimals(interval["estimate"])
    return f"{decimals(interval['estimate'])} [{decimals(interval['low'])}, {decimals(interval['high'])}]"


def decimals(value: float, places: int = 3) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{places}f}")


if __name__ == "__main__":
    main(sys.argv[1:])
