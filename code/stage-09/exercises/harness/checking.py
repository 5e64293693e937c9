"""The exercise checks: what an exercise is, and what its tests are made of.

An `Exercise` is a list of tests. A test is a function of a `Trial`, through which it calls the
student's work; it returns if all is well and raises `Found` with a `Diagnosis` if it is not.
`Exercise.check` runs the tests in order and returns a `Report`. Between checks nothing is kept but
where the last one failed, for the hint; no test knows it.

`run` calls a student's work safely, `compare` compares arrays, `terms` measures what a wrong one
is instead, with `inner` for a wrong value inside, `contract` tests what all exercises share;
`general` holds the diagnoses of all of them, `report` says what was found, `hints` which hint comes
next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from exercises.harness.contract import Trial
from exercises.harness.general import GENERAL, TIME_LIMIT, Found, NotYet
from exercises.harness.hints import Ladder
from exercises.harness.inner import Watch, activations, slopes
from exercises.harness.report import Diagnosis, Report, Row
from exercises.harness.run import Outcome, safely
from exercises.harness.terms import Terms

__all__ = ["GENERAL", "KINDS", "TIME_LIMIT", "Diagnosis", "Exercise", "Found", "NotYet", "Report",
           "Terms", "Test", "Trial", "Watch", "activations", "slopes"]

#: Order of the kinds of test, which is also the order in which mistakes are easiest to find. That
#: odd "arguments" are refused is asked for in the last step: nothing else depends on it.
KINDS = ("interface", "shapes", "start", "values", "gradients", "behaviour", "arguments")


@dataclass(frozen=True)
class Test:
    """One test: the step after which it can pass, its kind, what it says, its code."""

    step: int
    kind: str
    name: str
    run: Callable[[Trial], None]

    def outcome(self, trial: Trial) -> Outcome:
        return safely(lambda: self.run(trial), TIME_LIMIT, lambda: trial.called)


class Exercise:
    """The tests of one exercise, in order.

    Parameters
    ----------
    number : int, as on the page of the exercises
    title : str
    mistakes : the diagnoses that its tests can give beside the general ones; `mistake` adds more
    """

    def __init__(self, number: int, title: str, *mistakes: Diagnosis):
        self.number, self.title = number, title
        self.mistakes = {d.mistake: d for d in mistakes}
        self.tests: list[Test] = []
        self.ladder = Ladder(number)

    def mistake(self, mistake: str, name: str, why: str, read: str) -> Diagnosis:
        """A diagnosis of this exercise's own, see `Diagnosis`."""
        self.mistakes[mistake] = Diagnosis(mistake, name, why, read)
        return self.mistakes[mistake]

    def shared(self, *mistakes: str) -> list[Diagnosis]:
        """Diagnoses of `general` that this exercise counts among its own."""
        self.mistakes |= {mistake: GENERAL[mistake] for mistake in mistakes}
        return [GENERAL[mistake] for mistake in mistakes]

    def test(self, step: int, kind: str, name: str) -> Callable:
        """Decorator: the function below is a test of this step. Within a step they go by kind."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")

        def add(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
            self.tests.append(Test(step, kind, name, run))
            self.tests.sort(key=lambda test: (test.step, KINDS.index(test.kind)))
            return run
        return add

    @property
    def steps(self) -> int:
        return max(test.step for test in self.tests)

    def check(self, student: Any, step: int | None = None, *, dtype: Any = np.float64) -> Report:
        """Run the tests of all steps, or of the first `step` ones, up to the first failure.

        Raises
        ------
        ValueError
            There is no such step.
        """
        if step is not None and step not in range(1, self.steps + 1):
            raise ValueError(f"step must be 1 to {self.steps}, or None for all, got {step}")
        rows, diagnosis, missing = [], None, 0
        for test in (test for test in self.tests if step is None or test.step <= step):
            status, note = "not tried", ""
            if diagnosis is None:
                status, note, diagnosis = test.outcome(Trial(student, dtype))
            if status == "not yet":
                missing = missing or test.step
            elif status == "failed" and 0 < missing < test.step:  # perhaps for that reason alone
                status, note, diagnosis = "not yet", f"Waits for step {missing}.", None
            rows.append(Row(test.step, test.kind, test.name, status, note))
        which = f", step {step} of {self.steps}" if step else ""
        failed = next((row for row in rows if row.status == "failed"), None)
        return Report(self.number, f"Exercise {self.number}: {self.title}{which}", tuple(rows),
                      diagnosis, step, self.ladder.hint(failed))
