"""A comparison of all methods of decomposition with trivial baselines, on sessions whose turns were rated too.

    python examples/compare_methods.py --config examples/configs/compare_sample.yaml

Each row learns from the score of whole sessions (and a signal of the listener), and is judged by turn ratings that it
never sees: out of fold, or on a test set of its own. Beside the methods stand the same fits to shuffled scores.
`output_dir` receives

    comparison.md, comparison.json, comparison.png    the table, a record per row, and a forest plot
    rows/seed-*/*.npz                                 the rewards of each row
    settings.yaml                                     the settings of the last run

`--resume` goes on in it: it computes what is missing, or was computed with other settings.
Every setting stands in the YAML file, and the command line overrides it: `--seeds '[0]' --training.li_weight 0.3`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from tqdm.auto import tqdm

from geli_hf import GeliRewardArguments, GeliRewardModel
from geli_hf.cache import atomic_path
from geli_hf.data.parts import load_corpus
from geli_hf.evaluation.methods import (
    Design,
    Encoded,
    NotRun,
    by_row,
    learned_rows,
    planned,
    run_rows,
    trivial_rows,
    write_comparison,
)
from geli_hf.sessions import feedback_names
from geli_hf.settings import SettingsError, build, parse_settings, reserve_folder
from geli_hf.training.script import run_main, setting_errors


@dataclass
class CompareSettings:
    output_dir: str
    data_dir: str | None = None  # folder of the corpus
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of folds and training
    folds: int = 4  # by conversation, without data.test_options
    rows: list[str] | None = None  # names of the rows to run; unset: all
    against: str | None = None  # row to compare with; unset: GELI's first
    resume: bool = False  # go on in output_dir, and keep the rows that still hold


@dataclass
class CorpusSettings:
    corpus: str = "sample"  # name or path
    options: dict = field(default_factory=dict)  # of its reader
    test_options: dict | None = None  # those that differ for a test set of its own


@dataclass
class MethodSettings:
    backbone: str | None = None  # name or path; unset: all-MiniLM-L6-v2
    config: dict = field(default_factory=dict)  # fields of GeliRewardConfig
    signals: list[str] | None = None  # of the listener; unset: the corpus's
    li_weights: dict = field(default_factory=dict)  # signal: weight of LI in GELI; default .1
    permutations: int = 8  # of the scores, per seed, for hindsight's controls
    trained_permutations: int = 2  # the same for GELI's, whose fits take longer
    bf16: bool = False  # encode in bfloat16


SECTIONS = {"data": CorpusSettings, "model": MethodSettings, "training": GeliRewardArguments}


def main(argv: list[str]) -> None:
    settings = parse_settings(argv, CompareSettings, SECTIONS)
    run = build(CompareSettings, settings[""])
    data, method = (build(SECTIONS[name], settings[name]) for name in ("data", "model"))
    output = Path(run.output_dir)
    if not run.seeds or len(set(run.seeds)) < len(run.seeds):
        raise SettingsError(f"seeds: expected at least one, and each once, found {run.seeds}")
    reserve_folder(
        output, {}, run.resume
    )  # no settings to agree on: each row knows its own, and is computed anew with others
    with atomic_path(output / "settings.yaml") as partial:
        partial.write_text(yaml.safe_dump(settings), encoding="utf-8")

    with setting_errors("data"):
        sessions, test = load_corpus(data.corpus, data.options, run.data_dir), None
        if data.test_options is not None:
            test = load_corpus(data.corpus, data.options | data.test_options, run.data_dir)
        design = Design(sessions, test, folds=run.folds)
        design.of(run.seeds[0])
    with setting_errors("model"):
        model = GeliRewardModel.from_backbone(method.backbone, **method.config)
    arguments = {"use_cpu": not torch.accelerator.is_available(), "dataloader_pin_memory": False}
    arguments |= settings["training"]
    build(GeliRewardArguments, {"output_dir": run.output_dir} | arguments)  # a wrong one is named before a row is run

    signals = feedback_names(sessions) if method.signals is None else method.signals
    permutations = method.permutations, method.trained_permutations
    rows = trivial_rows() | learned_rows(model, signals, arguments, method.li_weights, *permutations)
    against = run.against or next((name for name in rows if name.startswith("GELI (")), "RRD, all turns")
    for setting, names in (("rows", run.rows or []), ("against", [against])):
        if unknown := [name for name in names if name not in rows]:
            raise SettingsError(f"{setting}: expected of {'; '.join(rows)}, found {'; '.join(unknown)}")
    if run.rows is not None:
        rows = {name: row for name, row in rows.items() if name in (*run.rows, against)}

    dtype = torch.bfloat16 if method.bf16 else torch.float32
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    encoded = {"train": Encoded(model, sessions, dtype=dtype)}
    encoded["judged"] = encoded["train"] if test is None else Encoded(model, test, dtype=dtype)
    results, not_run = [], set()
    with tqdm(total=len(planned(rows, run.seeds)), desc="Rows", unit="fit") as bar:
        for name, seed, result in run_rows(rows, design, encoded, run.seeds, output / "rows"):
            results.append((name, seed, result))
            bar.update()
            if isinstance(result, NotRun) and name not in not_run:
                bar.write(f"not run: {name}: {result}")
                not_run.add(name)
    feedback = next((name for name in signals if name in feedback_names(design.judged)), None)
    print(write_comparison(output, design, by_row(results), against=against, corpus=data.corpus, feedback=feedback))


if __name__ == "__main__":
    run_main(main)
