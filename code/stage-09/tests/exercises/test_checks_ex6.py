"""The check of exercise 6: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from exercises.ex6_qlora import checks as checks_ex6
from exercises.ex6_qlora.checks import check_qlora
from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.ex6_qlora.mistakes import AT, MISTAKES, SEEN
from exercises.ex6_qlora.variants import VARIANTS
from exercises.harness.checking import Trial

RIGHT = {name: solution("ex6_qlora", name) for name in checks_ex6.WORK}
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [RIGHT, *VARIANTS.values()], ids=["reference", *VARIANTS])
def test_right_answers_pass(work, dtype):
    report = check_qlora(work, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 6  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, diagnosis, work", MISTAKES,
                         ids=[mistake[0] for mistake in MISTAKES])
def test_each_mistake_is_named(name, diagnosis, work, dtype):
    report = check_qlora(work, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == diagnosis, str(report)
    assert report.diagnosis.seen.startswith(SEEN[name]), str(report)
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == ([AT[name]] if AT[name] else failed)
    assert "Traceback" not in str(report)


def test_every_diagnosis_is_seen_once():
    assert {mistake[1] for mistake in MISTAKES} >= set(checks_ex6.EXERCISE.mistakes)


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


@pytest.mark.parametrize("step", [None, *range(1, checks_ex6.EXERCISE.steps + 1)])
def test_the_untouched_starter_is_not_yet(step):
    report = check_qlora(starter("ex6-qlora", "QLoRALinear").__init__.__globals__, step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)


def test_nothing_defined_is_not_yet():
    assert {row.status for row in check_qlora({}).rows} == {"not yet"}
