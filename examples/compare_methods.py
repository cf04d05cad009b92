"""Does it work? Every method of decomposition beside trivial rows, on sessions whose turns were rated too.

    python examples/compare_methods.py --config examples/configs/compare_sample.yaml

Each row learns from the score of whole sessions (and a signal of the listener), and is judged by turn ratings that it
never sees: out of fold, or on a test set of its own. Rows that claim something stand beside the same fit to shuffled
scores, several times. `output_dir` receives

    comparison.md, comparison.json, comparison.png    the table, a record per row, and a forest plot
    rows/seed-*/*.npz                                 the rewards of each row
    settings.yaml                                     the settings of the last run

`--resume` goes on in it: it computes what is missing, or was computed with other settings.

Every setting stands in the YAML file, and the command line overrides it: `--seeds '[0]' --training.li_weight 0.3`.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from datasets import Dataset
from tqdm.auto import tqdm

from geli_hf.cache import whole
from geli_hf.data import load_sessions, read_report
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
from geli_hf.models.geli_reward.modeling_geli import GeliRewardModel
from geli_hf.sessions import SessionError, feedback_names
from geli_hf.settings import SettingsError, build, claim, parse_settings
from geli_hf.training import GeliRewardArguments


@dataclass
class CompareSettings:
    output_dir: str = field(metadata={"help": "Where everything goes."})
    data_dir: str | None = field(default=None, metadata={"help": "Where the corpus lies."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of folds and training."})
    folds: int = field(default=4, metadata={"help": "By conversation, without data.test_options."})
    rows: list[str] | None = field(default=None, metadata={"help": "Names of the rows to run. Default: all."})
    against: str | None = field(default=None, metadata={"help": "Row to compare with. Default: GELI's first."})
    resume: bool = field(default=False, metadata={"help": "Go on in output_dir; keep the rows that still hold."})


@dataclass
class CorpusSettings:
    corpus: str = field(default="sample", metadata={"help": "Name or path, see geli_hf.data.load_sessions."})
    options: dict = field(default_factory=dict, metadata={"help": "Options of the corpus's reader."})
    test_options: dict | None = field(default=None, metadata={"help": "Its options for a test set of its own."})


@dataclass
class MethodSettings:
    backbone: str | None = field(default=None, metadata={"help": "Name or path; default all-MiniLM-L6-v2."})
    config: dict = field(default_factory=dict, metadata={"help": "Fields of GeliRewardConfig."})
    signals: list[str] | None = field(default=None, metadata={"help": "Of the listener. Default: the corpus's."})
    li_weights: dict = field(default_factory=dict, metadata={"help": "Signal: weight of LI in GELI; default .1."})
    permutations: int = field(default=8, metadata={"help": "Of the scores, per seed, for hindsight's controls."})
    trained_permutations: int = field(default=2, metadata={"help": "The same for GELI's, whose fits take longer."})
    bf16: bool = field(default=False, metadata={"help": "Encode in bfloat16."})


def main(argv: list[str]) -> None:
    sections = {"data": CorpusSettings, "model": MethodSettings, "training": GeliRewardArguments}
    settings = parse_settings(argv, CompareSettings, sections)
    run, data, method = (
        build(cls, settings[name]) for name, cls in (("", CompareSettings), *list(sections.items())[:2])
    )
    output = Path(run.output_dir)
    if not run.seeds:
        raise SettingsError("seeds: expected at least one")
    if len(set(run.seeds)) < len(run.seeds):
        raise SettingsError(f"seeds: expected each once, found {run.seeds}")
    for name in ("permutations", "trained_permutations"):
        if getattr(method, name) < 0:
            raise SettingsError(f"model.{name}: expected 0 for no control, or more, found {getattr(method, name)}")
    claim(output, {}, run.resume)  # no settings to agree on: each row knows its own, and is computed anew with others
    with whole(output / "settings.yaml") as partial:
        partial.write_text(yaml.safe_dump(settings))

    try:
        sessions = load(data, run, data.options)
        test = None if data.test_options is None else load(data, run, data.options | data.test_options)
        design = Design(sessions, test, folds=run.folds)
        design.of(run.seeds[0])
    except (TypeError, ValueError) as error:  # an option that does not exist, or that can't have this value
        raise SettingsError(f"data: {error}") from error
    try:
        model = GeliRewardModel.from_backbone(method.backbone, **method.config)
    except (OSError, TypeError, ValueError) as error:
        raise SettingsError(f"model: {error}") from error
    arguments = {"use_cpu": not torch.accelerator.is_available(), "dataloader_pin_memory": False}
    arguments |= settings["training"]
    build(GeliRewardArguments, {"output_dir": run.output_dir} | arguments)  # what is wrong with them is said now

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
    found, told = [], set()
    with tqdm(total=len(planned(rows, run.seeds)), desc="Rows", unit="fit") as bar:
        for name, seed, result in run_rows(rows, design, encoded, run.seeds, output / "rows"):
            found.append((name, seed, result))
            bar.update()
            if isinstance(result, NotRun) and name not in told:
                bar.write(f"not run: {name}: {result}")
                told.add(name)
    feedback = next((name for name in signals if name in feedback_names(design.judged)), None)
    print(write_comparison(output, design, by_row(found), against=against, corpus=data.corpus, feedback=feedback))


def load(data: CorpusSettings, run: CompareSettings, options: dict) -> Dataset:
    sessions = load_sessions(data.corpus, data_dir=run.data_dir, **options)
    print(f"{data.corpus} {options or ''}\n{read_report(sessions)}")
    rated = sessions.filter(lambda score: score == score, input_columns="score", desc="Keeping rated sessions")
    if not len(rated):
        raise ValueError(f"none of the {len(sessions)} sessions has a score")
    if unrated := len(sessions) - len(rated):
        print(f"{unrated}  of them left out: no score")
    return rated


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (SettingsError, SessionError, FileNotFoundError) as error:
        sys.exit(f"compare_methods: {error}")
