"""Does it work? Ways to reward turns side by side on sessions whose turns were rated too, trivial ones included.

design, model = Design(sessions, folds=4), GeliRewardModel.from_backbone()
corpus = Encoded(model, sessions)
rows = trivial_rows() | learned_rows(model, feedback_names(sessions))
found = run_rows(rows, design, {"train": corpus, "judged": corpus}, seeds=(0, 1, 2), folder="runs/compare")
print(write_comparison("runs/compare", design, by_row(found), against="GELI (affect)"))
"""

from .comparison import by_row, compare, markdown, records, write_comparison
from .folds import Design, Encoded, Fold, FoldFeatures, out_of_fold
from .rows import NotRun, Row, learned_rows, trivial_rows
from .runs import Run, planned, run_rows

__all__ = [
    "Design",
    "Encoded",
    "Fold",
    "FoldFeatures",
    "NotRun",
    "Row",
    "Run",
    "by_row",
    "compare",
    "learned_rows",
    "markdown",
    "out_of_fold",
    "planned",
    "records",
    "run_rows",
    "trivial_rows",
    "write_comparison",
]
