"""The wrong answers of exercises/ex*/mistakes.py: the test above each sees it and names it."""

import pytest
from exercise_tools import DTYPES, ROOMS, check, mistakes, module

from exercises.harness import checking
from exercises.mistakes import Mistake, patched

#: A warning of NumPy's would stand between a reader's own output and the report.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
WRONG = [pytest.param(room, test, mistake, make, id=f"{room[:3]}-{mistake.name}")
         for room in ROOMS for test, mistake, make in mistakes(room)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("room", "test", "mistake", "make"), WRONG)
def test_each_mistake_is_named(room, test, mistake, make, dtype, monkeypatch):
    if mistake.diagnosis == "too-long":
        monkeypatch.setattr(checking, "TIME_LIMIT", 2.0)
    report = check(room, make(), dtype=dtype)
    assert report.status == "failed", str(report)
    assert report.diagnosis.mistake == mistake.diagnosis, str(report)
    assert report.diagnosis.seen.startswith(mistake.seen), str(report)
    failed = [row.name for row in report.rows if row.status == "failed"]
    assert failed == [test], str(report)
    assert "Traceback" not in str(report)


@pytest.mark.parametrize("room", ROOMS)
def test_every_diagnosis_is_given(room):
    listed = [mistake for _, mistake, _ in mistakes(room)]
    assert {m.diagnosis for m in listed} >= set(module(room, "checks").EXERCISE.mistakes)
    names = [mistake.name for mistake in listed]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("old", "times"), [("no such text", 0), ("twin", 2)])
def test_a_text_that_does_not_stand_there_once_is_refused(old, times):
    mistake = Mistake("Vague", "values", {"self.training = True": "twin = twin", old: ""})
    with pytest.raises(ValueError, match=f"Vague .*{old}.* {times} times"):
        patched("ex2_lora_dropout", mistake)


def test_reports_show_the_line_that_was_put_in():
    mistake = Mistake("Typo", "raised", {"mask = None": "mask = None\nif x.ndim:\n    x.mask"})
    seen = check("ex2_lora_dropout", patched("ex2_lora_dropout", mistake)).diagnosis.seen
    assert "in forward: x.mask" in seen
