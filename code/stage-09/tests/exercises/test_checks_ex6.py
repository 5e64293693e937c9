"""The check of exercise 6: its probes are unambiguous; what is not written yet is no mistake."""

import numpy as np
import pytest

from exercises.ex6_qlora import checks as checks_ex6
from exercises.ex6_qlora.checks import check_qlora
from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.harness.checking import Trial


def margin(values, levels, block):
    """How far the quotients are from the nearest midpoint between levels, at least."""
    parts = [values.ravel()[i:i + block] for i in range(0, values.size, block)]
    quotients = np.concatenate([part / np.abs(part).max() for part in parts])
    midpoints = (levels[1:].astype(float) + levels[:-1]) / 2
    return np.abs(quotients[:, None] - midpoints).min()


@pytest.mark.parametrize("block, second", [(64, 256), (36, 36)])
def test_probes_keep_away_from_midpoints(block, second):
    trial = Trial(None, np.float64)
    W = checks_ex6._weight(trial, checks_ex6.OUT, checks_ex6.IN, block=block)
    assert margin(W, NF4, block) > 9e-4
    absmax = checks_ex6._absmax(trial, 600, second)
    for values, least in ((checks_ex6._scales(W, block), 1e-5), (absmax, 9e-5)):
        assert margin(values - values.mean(dtype=np.float64), DYNAMIC, second) > least


def test_nothing_defined_is_not_yet():
    assert {row.status for row in check_qlora({}).rows} == {"not yet"}
