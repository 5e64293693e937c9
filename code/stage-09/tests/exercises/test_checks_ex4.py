"""The check of exercise 4: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from exercises.ex4_prefix_mlp import checks as checks_ex4
from exercises.ex4_prefix_mlp.checks import check_prefix_mlp
from exercises.ex4_prefix_mlp.mistakes import MISTAKES
from exercises.ex4_prefix_mlp.variants import VARIANTS

RIGHT = solution("ex4_prefix_mlp", "PrefixMLP")
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [RIGHT, *VARIANTS], ids=lambda cls: cls.__name__)
def test_right_answers_pass(work, dtype):
    report = check_prefix_mlp(work, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 4  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_each_mistake_is_named(mistake, dtype):
    report = check_prefix_mlp(mistake, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert report.diagnosis.seen.startswith(getattr(mistake, "seen", "")), str(report)
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [getattr(mistake, "at", *failed)]
    assert "Traceback" not in str(report)


def test_every_diagnosis_is_seen_once():
    assert {m.diagnosis for m in MISTAKES} >= set(checks_ex4.EXERCISE.mistakes)


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_missing_return_of_to_prefix_is_not_yet(nothing):
    work = type("NoReturn", (RIGHT,), {"to_prefix": lambda self: nothing})
    report = check_prefix_mlp(work)
    assert report.status == "not yet"
    assert [row.status for row in check_prefix_mlp(work, 3).rows] == ["passed"] * sum(
        row.step <= 3 for row in report.rows)


@pytest.mark.parametrize("step", [3, None])
def test_a_forgotten_gradient_or_return_is_not_yet(step):
    class Forgotten(RIGHT):
        def backward(self, grad_prefix):
            super().backward(grad_prefix)
            self.b1_grad = None

    report = check_prefix_mlp(Forgotten, step)
    assert "After backward b1_grad is still None." in str(report)
    for work in (Forgotten, type("NoReturn", (RIGHT,), {"forward": lambda self: None})):
        assert check_prefix_mlp(work, step).status == "not yet"


@pytest.mark.parametrize("step", [None, *range(1, checks_ex4.EXERCISE.steps + 1)])
def test_the_untouched_starter_is_not_yet(step):
    report = check_prefix_mlp(starter("ex4-prefix-mlp", "PrefixMLP"), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)
