"""The check of exercise 5: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from exercises.ex5_prompted_lora import checks as checks_ex5
from exercises.ex5_prompted_lora.checks import check_prompted_lora
from exercises.ex5_prompted_lora.mistakes import MISTAKES
from exercises.ex5_prompted_lora.variants import VARIANTS

RIGHT = solution("ex5_prompted_lora", "PromptedLoRAAttention")
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [RIGHT, *VARIANTS], ids=lambda cls: cls.__name__)
def test_right_answers_pass(work, dtype):
    report = check_prompted_lora(work, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 5  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_each_mistake_is_named(mistake, dtype):
    report = check_prompted_lora(mistake, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert report.diagnosis.seen.startswith(getattr(mistake, "seen", "")), str(report)
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [getattr(mistake, "at", *failed)]
    assert "Traceback" not in str(report)


def test_a_gradient_that_is_not_there_yet_is_not_a_failure():
    class PromptForgotten(RIGHT):
        def backward(self, grad_output):
            kept, self.prompt.backward = self.prompt.backward, lambda g: g[:, 3:]
            try:
                return super().backward(grad_output)
            finally:
                self.prompt.backward = kept

        def gradients(self):
            return self._named(self.q.gradients(), self.v.gradients(), {"prompt": None})

    report = check_prompted_lora(PromptForgotten)
    assert report.status == "not yet", str(report)
    assert "gradients()['prompt'] gave None: is a return or an assignment missing?" in str(report)


def test_a_method_that_backward_does_not_reach_is_not_yet():
    class PromptSkipped(RIGHT):
        def backward(self, grad_output):
            self.prompt.backward = lambda g: g[:, self.prompt.prompt_length:]
            return super().backward(grad_output)

    report = check_prompted_lora(PromptSkipped)
    assert report.status == "not yet", str(report)
    assert "After backward: PromptTuning has no gradients" in str(report)


def test_every_diagnosis_is_seen_once():
    assert {m.diagnosis for m in MISTAKES} >= set(checks_ex5.EXERCISE.mistakes)


@pytest.mark.parametrize("step", [None, *range(1, checks_ex5.EXERCISE.steps + 1)])
def test_the_untouched_starter_is_not_yet(step):
    report = check_prompted_lora(starter("ex5-prompted-lora", "PromptedLoRAAttention"), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)
