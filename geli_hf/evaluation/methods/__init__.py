"""Benchmark of methods of attribution side by side on sessions whose turns were rated, baselines included.

design, model = Design(sessions, folds=4), GeliRewardModel.from_backbone()
corpus = Encoded(model, sessions)
rows = trivial_rows() | learned_rows(model, feedback_names(sessions))
results = run_rows(rows, design, {"train": corpus, "judged": corpus}, seeds=(0, 1, 2), folder="runs/compare")
print(write_comparison("runs/compare", design, by_row(results), against="GELI (affect)"))
"""

from ..._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)
