"""The check of exercise 2: right answers pass, each known mistake gets its own diagnosis."""

import numpy as np
import pytest
from exercise_tools import solution, starter

from checks import check_lora_dropout
from exercises.ex2_lora_dropout import checks as checks_ex2
from exercises.ex2_lora_dropout.mistakes import MISTAKES
from exercises.ex2_lora_dropout.variants import VARIANTS
from exercises.harness import checking

DTYPES = [np.float32, np.float64]
STEPS = [None, *range(1, checks_ex2.EXERCISE.steps + 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_solution_passes(dtype):
    report = check_lora_dropout(solution("ex2_lora_dropout", "LoRADropoutLayer"), dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == 2  # under this number the pass is noted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda cls: cls.__name__)
def test_other_right_answers_pass(variant, dtype):
    report = check_lora_dropout(variant, dtype=dtype)
    assert report.passed, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_each_mistake_is_named(mistake, dtype, monkeypatch):
    monkeypatch.setattr(checking, "TIME_LIMIT", 2.0)
    report = check_lora_dropout(mistake, dtype=dtype)
    assert report.status == "failed"
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert "Traceback" not in str(report)
    assert report.diagnosis.seen.startswith(getattr(mistake, "seen", ""))
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [getattr(mistake, "at", *failed)]


@pytest.mark.parametrize("step", STEPS)
def test_the_untouched_starter_is_not_yet(step):
    report = check_lora_dropout(starter("ex2-lora-dropout", "LoRADropoutLayer"), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)


def test_every_diagnosis_is_seen_once():
    assert {m.diagnosis for m in MISTAKES} >= set(checks_ex2.EXERCISE.mistakes)


def test_step_2_passes_while_dropout_is_still_to_be_written():
    class HalfDone(solution("ex2_lora_dropout", "LoRADropoutLayer")):
        def forward(self, x, W):
            if self.training and self.dropout:
                raise NotImplementedError("step 3: draw the mask")
            return super().forward(x, W)
    assert check_lora_dropout(HalfDone, 2).passed
    report = check_lora_dropout(HalfDone)
    assert report.status == "not yet"
    assert {row.status for row in report.rows if row.step <= 2} == {"passed"}


@pytest.mark.parametrize("name", ["forward", "merge_weights"])
def test_a_method_that_returns_nothing_is_not_yet(name):
    right = solution("ex2_lora_dropout", "LoRADropoutLayer")
    half_done = type("HalfDone", (right,), {name: lambda self, *arrays: None})
    assert check_lora_dropout(half_done).status == "not yet"
