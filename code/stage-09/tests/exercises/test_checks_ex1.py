"""The check of exercise 1: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from checks import check_lora_feed_forward
from exercises.ex1_lora_feed_forward import checks as checks_ex1
from exercises.ex1_lora_feed_forward.mistakes import MISTAKES
from exercises.ex1_lora_feed_forward.variants import VARIANTS
from exercises.harness import checking

DTYPES = [np.float32, np.float64]
STEPS = [None, *range(1, checks_ex1.EXERCISE.steps + 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_solution_passes(dtype):
    right = solution("ex1_lora_feed_forward", "LoRAFeedForward")
    report = check_lora_feed_forward(right, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 1  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda cls: cls.__name__)
def test_other_right_answers_pass(variant, dtype):
    report = check_lora_feed_forward(variant, dtype=dtype)
    assert report.passed, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_each_mistake_is_named(mistake, dtype, monkeypatch):
    monkeypatch.setattr(checking, "TIME_LIMIT", 2.0)
    report = check_lora_feed_forward(mistake, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert "Traceback" not in str(report)
    assert report.diagnosis.seen.startswith(getattr(mistake, "seen", ""))
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [getattr(mistake, "at", *failed)]


@pytest.mark.parametrize("step", STEPS)
def test_the_untouched_starter_is_not_yet(step):
    report = check_lora_feed_forward(starter("ex1-lora-feed-forward", "LoRAFeedForward"), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)


def test_a_projection_that_backward_does_not_reach_is_not_yet():
    class UpForgotten(solution("ex1_lora_feed_forward", "LoRAFeedForward")):
        def backward(self, grad_output):
            u, sig, silu = self._remembered()
            return self.gate.backward(self.down.backward(grad_output) * u * sig)

    report = check_lora_feed_forward(UpForgotten)
    assert report.status == "not yet", str(report)
    assert "After backward: LoRALayer has no gradients" in str(report)


def test_every_diagnosis_is_seen_once():
    assert {m.diagnosis for m in MISTAKES} >= set(checks_ex1.EXERCISE.mistakes)
