"""The tables of README.md and results/README.md, from the records that compare_methods.py wrote for each corpus.

    python examples/summarise_comparisons.py runs/compare_uss=uss_mwoz runs/compare_esconv=esconv

copies what was measured in each folder to `results/NAME` and writes the tables anew, of all that lies in `results`.
Without arguments it only writes the tables.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
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
WITHIN = "within_session_spearman"
HINDSIGHT, ATTRIBUTION = "hindsight", "hindsight, seeing the reaction"
# The title of a row, and the row that it shows; several names are as many rows, of which the best is shown.
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
    for page in (HOME / "README.md", RESULTS / "README.md"):
        text = page.read_text(encoding="utf-8")
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


def check(folder: Path) -> None:
    """Before anything is copied: what the tables need is there."""
    if missing := [file for file in FILES if not (folder / file).exists()]:
        sys.exit(f"summarise_comparisons: {folder} has no {', '.join(missing)}; run compare_methods.py to its end")
    controls = [f"{name}, scores shuffled" for name in (HINDSIGHT, ATTRIBUTION)]
    measured = records(folder / "comparison.json")
    if missing := [name for name in (HINDSIGHT, ATTRIBUTION, *controls) if name not in measured]:
        sys.exit(f"summarise_comparisons: {folder}/comparison.json lacks {'; '.join(missing)}; run all rows")


def summary(results: Path) -> str:
    """A column per corpus with the within-session Spearman of every row, and what has to stand beside hindsight's."""
    read = {name: records(results / name / "comparison.json") for name in TITLES if (results / name).is_dir()}
    lines = [
        "| Within-session Spearman | " + " | ".join(TITLES[name] for name in read) + " |",
        "| --- |" + " ---: |" * len(read),
    ]
    lines += [row(title, [best(of, pattern, WITHIN) for of in read.values()]) for title, pattern in ROWS.items()]
    beside = {
        "hindsight minus GELI, first signal": minus_geli,
        "hindsight, length held fixed": lambda of: best(of, HINDSIGHT, "spearman_given_length"),
        "hindsight, position held fixed": lambda of: best(of, HINDSIGHT, "spearman_given_position"),
        "hindsight, scores shuffled": lambda of: shuffled(of, HINDSIGHT),
        "its teacher, scores shuffled ○": lambda of: shuffled(of, ATTRIBUTION),
        "hindsight's global loss (floor)": loss,
    }
    lines += [row(title, [cell(of) for of in read.values()]) for title, cell in beside.items()]
    return "\n".join(lines)


def records(file: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(file.read_text(encoding="utf-8"))
    return {record["row"]: record for record in found if record["run"]}


def row(title: str, cells: list[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def best(of: dict[str, dict[str, Any]], pattern: str, key: str) -> str:
    found = [record[key] for name, record in of.items() if re.fullmatch(pattern, name)]
    found = [interval for interval in found if interval["estimate"] is not None]
    return shown(max(found, key=lambda interval: interval["estimate"])) if found else "not run"


def minus_geli(of: dict[str, dict[str, Any]]) -> str:
    """Against the row that all were compared with, which is GELI with the first signal."""
    return shown(of[HINDSIGHT]["difference"])


def shuffled(of: dict[str, dict[str, Any]], name: str) -> str:
    null = of[f"{name}, scores shuffled"]["shuffled"]
    return f"{decimals(null['mean'])} ± {decimals(null['deviation'])}, p = {decimals(null['p'], 2)}"


def loss(of: dict[str, dict[str, Any]]) -> str:
    record = of[HINDSIGHT]
    return f"{decimals(record['global_loss']['estimate'])} ({decimals(record['global_loss_floor'])})"


def shown(interval: dict[str, float | None]) -> str:
    if interval["low"] is None:
        return decimals(interval["estimate"])
    return f"{decimals(interval['estimate'])} [{decimals(interval['low'])}, {decimals(interval['high'])}]"


def decimals(value: float, places: int = 3) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{places}f}")


if __name__ == "__main__":
    main(sys.argv[1:])
