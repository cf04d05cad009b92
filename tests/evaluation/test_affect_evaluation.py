"""Figures of classifiers of faces."""

import numpy as np
import pytest

from geli_hf.evaluation.affect import happiness_auc, happiness_ece, interval_over_persons


def test_the_auc_and_the_calibration_error_by_hand():
    smile = np.array([0.1, 0.4, 0.4, 0.8, 0.95])
    truth = np.array([False, False, True, True, False])
    once = np.ones(5)
    # pairs: .4 beats .1, ties .4, loses to .95; .8 beats .1 and .4, loses to .95
    assert happiness_auc(smile, truth, once) == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 0) / 6)
    # bins: {.1}: |0 - .1|; {.4, .4}: |1 - .8|; {.8}: |1 - .8|; {.95}: |0 - .95|
    assert happiness_ece(smile, truth, once) == pytest.approx((0.1 + 0.2 + 0.2 + 0.95) / 5)
    twice = np.array([2.0, 1, 1, 1, 0])
    again = [0, 0, 1, 2, 3]
    assert happiness_auc(smile, truth, twice) == happiness_auc(smile[again], truth[again], once)
    assert happiness_ece(smile, truth, twice) == pytest.approx(happiness_ece(smile[again], truth[again], once))


def test_the_interval_draws_persons():
    """Two persons with a picture each: a resample is one of them, both, or the other one."""
    interval = interval_over_persons([lambda times: times @ [0.0, 1.0] / times.sum()], np.array(["a", "b"]))
    assert interval == (0.5, 0.0, 1.0)
