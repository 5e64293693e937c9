"""The check of exercise 3: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from checks import check_parallel_adapter
from exercises.ex3_parallel_adapter import checks as checks_ex3
from exercises.ex3_parallel_adapter.mistakes import MISTAKES
from exercises.ex3_parallel_adapter.variants import VARIANTS
from exercises.harness import checking
from gradcheck import numerical_gradient

DTYPES = [np.float32, np.float64]
STEPS = [None, *range(1, checks_ex3.EXERCISE.steps + 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_solution_passes(dtype):
    right = solution("ex3_parallel_adapter", "ParallelAdapter")
    report = check_parallel_adapter(right, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 3  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda cls: cls.__name__)
def test_other_right_answers_pass(variant, dtype):
    report = check_parallel_adapter(variant, dtype=dtype)
    assert report.passed, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_each_mistake_is_named(mistake, dtype, monkeypatch):
    monkeypatch.setattr(checking, "TIME_LIMIT", 2.0)
    report = check_parallel_adapter(mistake, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert "Traceback" not in str(report)
    assert report.diagnosis.seen.startswith(getattr(mistake, "seen", ""))
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [getattr(mistake, "at", *failed)]


@pytest.mark.parametrize("step", STEPS)
def test_the_untouched_starter_is_not_yet(step):
    report = check_parallel_adapter(starter("ex3-parallel-adapter", "ParallelAdapter"), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)


def test_a_gradient_that_is_forgotten_is_not_yet():
    class UpForgotten(solution("ex3_parallel_adapter", "ParallelAdapter")):
        def backward(self, grad_output):
            back = super().backward(grad_output)
            self.W_up_grad = None
            return back

    report = check_parallel_adapter(UpForgotten)
    assert report.status == "not yet", str(report)
    assert "After backward W_up_grad is still None." in str(report)


def test_every_diagnosis_is_seen_once():
    assert {m.diagnosis for m in MISTAKES} >= set(checks_ex3.EXERCISE.mistakes)


@pytest.mark.parametrize("linear", [False, True])
def test_the_sublayer_of_the_check_has_the_right_gradient(linear):
    rng = np.random.default_rng(0)
    sublayer = checks_ex3.Tanh(rng.standard_normal((4, 4)), linear)
    x, G = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    right = numerical_gradient(lambda: float((sublayer.forward(x) * G).sum()), x)
    sublayer.forward(x)
    np.testing.assert_allclose(sublayer.backward(G), right, atol=1e-7)
