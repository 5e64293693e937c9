"""The checks' machinery: whatever a student's code does is caught, explained and undone."""

import random
import sys

import checking
import checks
import numpy as np
import progress
import pytest
from checking import GENERAL, Diagnosis, Exercise, Found


def verdict(run, student=None, **options):
    exercise = Exercise(2, "a trial")
    exercise.test(1, "interface", "it works")(run)
    return exercise.check(student, **options)


def test_a_result_is_not_yet_without_a_return():
    for student in (lambda x: None, lambda x: ...):
        report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), student)
        assert report.status == "not yet" and not report.passed and report.diagnosis is None

    def todo(x):
        raise NotImplementedError("step 1: write it")
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), todo)
    assert report.status == "not yet" and "step 1: write it" in str(report)


def test_an_error_is_explained_with_the_students_line():
    def broken(x):
        return x @ np.ones((7, 7))  # the line
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), broken)
    assert report.diagnosis.mistake == "raised"
    assert "in broken: return x @ np.ones((7, 7))  # the line" in report.diagnosis.seen
    assert "broken was given an array of shape (2,)" in report.diagnosis.seen
    assert "Traceback" not in str(report)


def test_an_error_in_the_books_own_code_is_shown_at_the_students_line():
    # A notebook imports the book's code by a path with "..", which is then in every traceback.
    path = checking.Path(checking.__file__).parent / "tests" / ".." / "validation.py"
    ours = {}
    exec(compile("def check(x):\n    raise TypeError('no')", str(path), "exec"), ours)

    def student(x):
        return ours["check"](x)  # the student's line
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), student)
    assert "# the student's line" in report.diagnosis.seen


def test_a_call_that_does_not_fit_is_told_from_an_error_inside():
    report = checks.check_lora_dropout(lambda x: x)
    assert report.diagnosis.mistake == "signature" and "unexpected" in report.diagnosis.seen


@pytest.mark.parametrize(("error", "status", "seen"), [
    (RuntimeError("forward first"), "passed", ""), (NotImplementedError(), "not yet", ""),
    (AttributeError("no x"), "failed", "raised AttributeError"), (None, "failed", "raised no")])
def test_the_right_error_is_told_from_an_accident_and_from_missing_work(error, status, seen):
    def backward():
        if error:
            raise error
    report = verdict(lambda trial: trial.refuses("it", backward, (RuntimeError,),
                                                 GENERAL["backward-first"]))
    assert report.status == status
    assert status != "failed" or seen in report.diagnosis.seen


@pytest.mark.parametrize("swallow", [False, True])
def test_an_endless_loop_ends(monkeypatch, swallow):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)

    def endless(x):
        while True:
            try:
                x = x + 1
            except Exception:
                if not swallow:
                    raise
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), endless)
    assert report.diagnosis.mistake == "too-long" and "in endless" in report.diagnosis.seen
    assert sys.gettrace() is None


def test_changed_inputs_are_noticed():
    def in_place(x):
        x += 1
        return x
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), in_place)
    assert report.diagnosis.mistake == "changes-input"


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), lambda: np.random.seed(0),
                                  lambda: random.random()])
def test_global_randomness_is_noticed_and_put_back(draw):
    before, python = np.random.get_state(), random.getstate()
    report = verdict(lambda trial: trial.student(), draw)
    assert report.diagnosis.mistake == "global-random"
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state(), strict=True))
    assert random.getstate() == python


@pytest.mark.parametrize(("result", "mistake"), [
    ([1.0, 2.0], "wrong-type"), (np.ones(3), "wrong-shape"), (np.array([1, np.nan]), "not-finite")])
def test_results_of_the_wrong_kind_are_named(result, mistake):
    report = verdict(lambda trial: trial.call(lambda: trial.student, shape=(2,)), result)
    assert report.diagnosis.mistake == mistake


def test_a_wrong_twin_is_named_and_anything_else_measured():
    wrong = Diagnosis("twin", "a twin", "because", "9.2")
    right, twin = np.array([1.0, 2.0]), np.array([2.0, 4.0])

    def compare(trial):
        trial.compare("it", trial.student, right, {wrong: twin})
    assert verdict(compare, right + 1e-9).passed
    assert verdict(compare, right.astype(np.float32) + np.float32(1e-6)).passed
    assert not verdict(compare, right + 1e-3).passed
    assert verdict(compare, twin).diagnosis.mistake == "twin"
    other = verdict(compare, np.array([1.0, 3.0]))
    assert other.diagnosis.mistake == "values" and "0.5" in other.diagnosis.seen


def test_tests_after_a_failure_are_not_tried_and_steps_are_respected():
    exercise = Exercise(2, "a trial")

    @exercise.test(1, "interface", "one")
    def fails(trial):
        raise Found(GENERAL["values"], "so")

    @exercise.test(2, "shapes", "two")
    def passes(trial):
        pass
    report = exercise.check(None)
    assert [row.status for row in report.rows] == ["failed", "not tried"]
    assert len(exercise.check(None, step=1).rows) == 1
    assert "0 of 1 earlier tests passed" in str(exercise.check(None, step=2))
    with pytest.raises(ValueError, match="1 to 2"):
        exercise.check(None, step=3)


def test_a_report_can_be_shown_anywhere():
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), lambda x: 1 / 0)
    html = report._repr_html_()
    assert "<script" not in html and "&lt;lambda&gt;" in html
    assert repr(report) == str(report)


@pytest.mark.parametrize("number", range(1, checks.EXERCISES + 1))
def test_steps_and_kinds_are_in_order_and_pages_exist(number):
    module = pytest.importorskip(f"checks_ex{number}")
    tests = module.EXERCISE.tests
    order = [(test.step, checking.KINDS.index(test.kind)) for test in tests]
    assert order == sorted(order)
    assert 2 <= module.EXERCISE.steps <= 5 and module.EXERCISE.number == number
    assert all(d.read in checking.PAGES for d in module.EXERCISE.mistakes.values())
    assert len(module.EXERCISE.mistakes) >= 8


def test_pages_that_diagnoses_name_exist():
    book = checking.Path(checking.__file__).resolve().parents[2] / "book"
    assert [path for _, path in checking.PAGES.values() if not (book / path).exists()] == []


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(tmp_path / "deep" / "progress.json"))
    return tmp_path / "deep" / "progress.json"


def test_only_a_complete_pass_is_remembered(file):
    def run(trial):
        if not trial.student:
            raise NotImplementedError
    exercise = Exercise(2, "a trial")
    exercise.test(1, "interface", "one")(run)
    exercise.test(2, "shapes", "two")(run)
    for student, step in ((False, None), (True, 1)):
        checks.remember(exercise.check(student, step))
        assert not file.exists()
    report = exercise.check(True)
    assert checks.remember(report) is report and list(checks.progress().done) == ["2"]
    assert "2  done" in repr(checks.progress()) and str(file) in repr(checks.progress())
    checks.clear_progress()
    checks.clear_progress()
    assert not file.exists() and checks.progress().done == {}


def test_a_spoilt_file_and_a_place_that_cannot_be_written_do_no_harm(file, capsys):
    file.parent.write_text("a file where a folder should be")
    report = verdict(lambda trial: None)
    assert checks.remember(report) is report and "could not be noted" in capsys.readouterr().err
    file.parent.unlink()
    file.parent.mkdir()
    file.write_text("no JSON")
    assert checks.progress().done == {}


def test_noting_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", "off")
    checks.remember(verdict(lambda trial: None))
    assert progress.progress_file() is None and "switched off" in repr(checks.progress())
