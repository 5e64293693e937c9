"""The machinery of the exercise checks: run a student's work safely, compare it, explain.

An `Exercise` is a list of tests. A test is a function of a `Trial`, through which it calls the
student's work; it returns if all is well and raises `Found` with a `Diagnosis` if it is not.
`Exercise.check` runs the tests in order and returns a `Report`. Nothing is kept between checks.
NumPy only, no threads and no signals: the same code runs in the browser.
"""

import linecache
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

#: Order of the kinds of test, which is also the order in which mistakes are easiest to find.
KINDS = ("interface", "shapes", "start", "values", "gradients", "behaviour")
#: Where a diagnosis may send its reader: the page's title, and its file below book/.
PAGES = {
    "9.1": ("section 9.1", "01-the-fine-tuning-problem.ipynb"),
    "9.2": ("section 9.2", "02-lora.ipynb"),
    "9.3": ("section 9.3", "03-adapters.ipynb"),
    "9.4": ("section 9.4", "04-prefix-and-prompt-tuning.ipynb"),
    "9.5": ("section 9.5", "05-choosing-a-method.ipynb"),
    "9.6": ("section 9.6", "06-implementation.ipynb"),
    "mistakes": ("Common mistakes", "common-mistakes.ipynb"),
    "statement": ("the exact statement of the exercise", "exercises/index.md"),
}
TIME_LIMIT = 10.0  # seconds for one test
STANDARD_LIBRARY = str(Path(linecache.__file__).parent)
#: The course's modules that may stand between a student's line and an error. By name: a student's
#: own file may lie beside them, and a reference solution is judged like a student's.
OURS = re.compile(r"(peft|validation|gradcheck|llama|llama_config|tensorfile|training|names|checks|"
                  r"exercises\.(harness\..*|\w+\.(checks|levels)))")
#: Largest relative error of a right answer, by the bytes of its dtype. Mistakes are far larger.
TOLERANCE = {2: 2e-2, 4: 2e-4, 8: 1e-5}
DIGITS = 1e-9  # of float64: far above its rounding, far below float32's


@dataclass(frozen=True)
class Diagnosis:
    """One mistake in plain words.

    Attributes
    ----------
    mistake : its identifier, for a grading tool and the tests
    name : what it is, continuing "This looks like: ..."
    why : why it is a mistake, without giving the answer away
    read : key of `PAGES`
    seen : what was seen in this run
    """

    mistake: str
    name: str
    why: str
    read: str
    seen: str = ""

    def __str__(self) -> str:
        title, path = PAGES[self.read]
        parts = [f"This looks like: {self.name}.", f"Seen: {self.seen}" if self.seen else "",
                 f"Why it matters: {self.why}", f"Read: {title} (book/{path})."]
        return "\n".join(part for part in parts if part)


class Found(Exception):
    """A test has found a mistake."""

    def __init__(self, diagnosis: Diagnosis, seen: str = ""):
        self.diagnosis = replace(diagnosis, seen=seen or diagnosis.seen)
        super().__init__(diagnosis.mistake)


class NotYet(Exception):
    """The work that a test needs isn't there yet."""


class TooLong(BaseException):
    """The time is up. Not an `Exception`, which a student's code might catch."""


@dataclass(frozen=True)
class Row:
    """One line of a report: status is "passed", "failed", "not yet" or "not tried"."""

    step: int
    kind: str
    name: str
    status: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found. `print` it, or leave it as a cell's last expression.

    Attributes
    ----------
    exercise : int
    title : str
    rows : tuple of Row
    diagnosis : Diagnosis or None, of the first failure
    step : int or None, the last step that was checked; None if all were
    """

    exercise: int
    title: str
    rows: tuple[Row, ...]
    diagnosis: Diagnosis | None
    step: int | None = None

    @property
    def status(self) -> str:
        """ "passed", "not yet" or "failed". """
        states = [row.status for row in self.rows]
        return next((s for s in ("failed", "not yet") if s in states), "passed")

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.status == "passed"

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        done = sum(row.status == "passed" for row in self.rows)
        return {"passed": f"All {len(self.rows)} tests passed.",
                "not yet": f"Not yet: {done} of {len(self.rows)} tests passed, "
                           "the others wait for what is missing.",
                "failed": "A test failed. Mend this first; the tests below it were not tried.",
                }[self.status]

    def _shown(self) -> list[Row]:
        """The rows, with those of earlier steps summed up in one, and each note only once."""
        early = [row for row in self.rows if self.step and row.step < self.step]
        rows = list(self.rows[len(early):])
        if early:
            first = next((row for row in early if row.status != "passed"), early[-1])
            done = sum(row.status == "passed" for row in early)
            note = "" if first.status == "passed" else f"{first.name}. {first.note}"
            steps = "step 1" if self.step == 2 else f"steps 1-{self.step - 1}"
            rows.insert(0, Row(first.step, steps, f"{done} of {len(early)} earlier tests passed",
                               first.status, note.strip()))
        notes = [row.note for row in rows]
        return [replace(row, note="" if row.note in notes[:i] else row.note)
                for i, row in enumerate(rows)]

    def __str__(self) -> str:
        shown = self._shown()
        width = max(len(row.name) for row in shown)
        lines = [self.title]
        for row in shown:
            cells = f"{row.status:<9}  {row.kind:<9}  {row.name:<{width}}  {row.note}"
            lines.append("  " + cells.rstrip())
        lines += [self.verdict, *([str(self.diagnosis)] if self.diagnosis else [])]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(SIGNS[row.status])}&nbsp;{row.status}</td>'
            f'<td style="text-align:left">{escape(row.kind)}</td>'
            f'<td style="text-align:left">{escape(row.name)}'
            + (f"<br><small>{escape(row.note)}</small>" if row.note else "") + "</td></tr>"
            for row in self._shown())
        head = "".join(f'<th scope="col" style="text-align:left">{word}</th>'
                       for word in ("result", "kind", "test"))
        text = (f'<table class="table"><caption>{escape(self.title)}</caption><thead><tr>'
                f"{head}</tr></thead><tbody>{rows}</tbody></table>"
                f"<p><strong>{escape(self.verdict)}</strong></p>")
        if d := self.diagnosis:
            title, path = PAGES[d.read]
            path += f"#exercise-{self.exercise}" * (d.read == "statement")
            text += (f"<p><strong>This looks like:</strong> {escape(d.name)}.</p>"
                     + (f"<p><strong>Seen:</strong> {escape(d.seen)}</p>" if d.seen else "")
                     + f"<p><strong>Why it matters:</strong> {escape(d.why)}</p>"
                     f'<p><strong>Read:</strong> <a href="../{path}">{escape(title)}</a>.</p>')
        return text


SIGNS = {"passed": "✓", "failed": "✗", "not yet": "…", "not tried": "–"}


# ---- What can go wrong in any exercise --------------------------------------------------------

GENERAL = {d.mistake: d for d in (
    Diagnosis("raised", "an error inside your code",
              "The check called your code as the statement says, with valid input, and it stopped.",
              "statement"),
    Diagnosis("signature", "a name, a parameter or a default that differs from the statement",
              "Other code calls yours by the names of the statement, and so does this check.",
              "statement"),
    Diagnosis("too-long", "a loop that does not end, or one over single numbers",
              f"The test was stopped after {TIME_LIMIT:.0f} seconds. Its arrays are tiny: "
              "whole-array operations need milliseconds.", "9.6"),
    Diagnosis("changes-input", "writing into an array that was passed in",
              "The caller still needs its array. An operation such as += on an input, or on a view "
              "of it, changes it for everybody.", "9.6"),
    Diagnosis("global-random", "use of the global random state",
              "Functions such as np.random.rand share one hidden state with all other code, so a "
              "run cannot be repeated. Randomness comes from the generator that is passed in.",
              "statement"),
    Diagnosis("wrong-type", "a result of the wrong type", "Callers expect what the statement says.",
              "statement"),
    Diagnosis("wrong-shape", "a result of the wrong shape",
              "The shapes of the statement are what the rest of the model is built on. Where it "
              "writes three dots, any leading axes may stand.", "statement"),
    Diagnosis("wrong-dtype", "another dtype than the statement's",
              "A dtype is part of a result. float32 in must give float32 out: one float64 array in "
              "the middle makes every activation after it twice as large, a narrower one throws "
              "digits away.", "9.6"),
    Diagnosis("not-finite", "NaN or infinity in a result",
              "Somewhere zero divides, or an exponential overflows. The input was harmless.",
              "9.6"),
    Diagnosis("values", "a wrong value that matches no mistake known to this check",
              "Work it out on paper for the smallest case that the statement allows, such as one "
              "row or width two, and compare line by line.", "statement"),
    Diagnosis("accepts-nonsense", "no check of the arguments",
              "A size or rate that makes no sense must be refused at once. Otherwise it becomes a "
              "silent wrong answer much later.", "9.6"),
    Diagnosis("backward-first", "backward before forward is not refused",
              "backward needs what forward has remembered. Without it there is nothing to "
              "differentiate, and a RuntimeError says so.", "9.6"),
    Diagnosis("accumulates", "gradients that add up from one backward to the next",
              "By the contract each backward replaces the gradients. Here the second, identical "
              "backward changed them.", "9.6"),
    Diagnosis("dead-parameters", "parameters() with arrays that are not the ones in use",
              "An optimizer updates the arrays of parameters() in place. If they are copies, or "
              "are replaced later, it updates these, and the layer never learns.", "9.6"),
    Diagnosis("kept", "something kept from an earlier call",
              "Every forward works with its own input and with the arrays as they are by then, and "
              "backward with the last forward. What is made once and kept is right for one step; "
              "what is handed out once and written over was right until then.", "9.6"),
    Diagnosis("writes-parameters", "a forward or backward that writes into parameters()",
              "They read these arrays and leave the gradients beside them. Only the optimizer "
              "takes a step, once and at the rate that it was given.", "9.6"),
)}


#: What `peft.Method` looks for on a class that leaves its arrays in a layer inside.
METHOD_NAMES = tuple(name + end for name in ("A", "B", "W_down", "W_up", "prompt")
                     for end in ("", "_grad"))
METHOD_HINT = (". parameters() and gradients() of peft.Method look for these names on the object "
               "itself: where the arrays live in a layer inside, hand both methods on to it")

# ---- Running a student's work -----------------------------------------------------------------

@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in Python code that runs longer. A single call into NumPy can't be stopped.

    A trace function needs neither threads nor signals, so this works in the browser. Where a
    debugger traces already, there is no limit.
    """
    if sys.gettrace() is not None:
        yield
        return
    end = time.monotonic() + seconds

    def watch(frame, event, arg):
        if time.monotonic() > end:
            raise TooLong
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(None)


def _students_line(error: BaseException) -> str:
    """Where in the student's code an error arose, or "" if none of their lines took part."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code, line = trace.tb_frame.f_code, trace.tb_lineno
        name = code.co_filename
        library = ("site-packages" in Path(name).parts or name[:2] == "<_"
                   or OURS.fullmatch(trace.tb_frame.f_globals.get("__name__", ""))
                   or name.startswith(STANDARD_LIBRARY))
        if not library:
            text = linecache.getline(code.co_filename, line).strip()
            place = f"line {line} of the cell or file, in {code.co_name}: {text}"
        trace = trace.tb_next
    return place


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _told(args: tuple, kwargs: dict) -> str:
    """The arguments of a call in words; of arrays the shapes, of other objects the types."""
    def one(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"an array of shape {value.shape}"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        return value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"

    words = [one(value) for value in args]
    words += [f"{name}={one(value)}" for name, value in kwargs.items()]
    return ", ".join(words) or "nothing"


class Trial:
    """What a test works with: the student's work, a dtype, and ways to call and compare safely.

    Attributes
    ----------
    student : what was handed to the check, usually a class
    dtype : floating dtype in which the probes are made
    """

    def __init__(self, student: Any, dtype: Any):
        self.student, self.dtype = student, np.dtype(dtype)
        self.called = ""  # the last call, for the report of an error in it

    def rng(self, seed: int = 0) -> np.random.Generator:
        """A generator made anew from a seed."""
        return np.random.default_rng(seed)

    def normal(self, *shape: int, seed: int = 0) -> np.ndarray:
        """Gaussian numbers of the trial's dtype."""
        return self.rng(seed).standard_normal(shape).astype(self.dtype)

    def inputs(self, rows: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of a random x and grad_output of the same shape, with any leading axes."""
        for lead in ((rows,), (), (1, 3), (2, 3)):
            yield self.normal(*lead, width, seed=2), self.normal(*lead, width, seed=3)

    def each_dtype(self) -> Iterator["Trial"]:
        """The same student's work with float32 and with float64 probes."""
        return (Trial(self.student, dtype) for dtype in (np.float32, np.float64))

    def make(self, *args: Any, **kwargs: Any) -> Any:
        """An object of the student's class."""
        return self.call(self.student, *args, returns=None, **kwargs)

    def call(self, function: Callable, *args: Any, returns: type | tuple | None = np.ndarray,
             shape: tuple | None = None, **kwargs: Any) -> Any:
        """Call it; its array arguments must not change, and the result must be of this type.

        Parameters
        ----------
        returns : expected type; None accepts anything. An array must be finite.
        shape : expected shape of an array, or None

        Raises
        ------
        NotYet
            Something is expected and `None` or `...` was returned.
        Found
            A changed argument, wrong type or shape, or a value that is not finite.
        """
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, np.ndarray)]
        before = [array.copy() for array in given]
        self.called = f"{_name(function)} was given {_told(args, kwargs)}"
        result = function(*args, **kwargs)
        for array, copy in zip(given, before, strict=True):
            if not np.array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
                raise Found(GENERAL["changes-input"], f"{_name(function)} changed an argument of "
                                                      f"shape {array.shape}.")
        if returns is None:
            return result
        return self.expect(_name(function), result, returns, shape)

    def expect(self, what: str, result: Any, returns: Any = np.ndarray,
               shape: tuple | None = None) -> Any:
        """Check type, shape and finiteness of a result; see `call`."""
        if result is None or result is ...:
            raise NotYet(f"{what} gave {result}: is a return or an assignment missing?")
        if not isinstance(result, returns):
            kinds = returns if isinstance(returns, tuple) else (returns,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise Found(GENERAL["wrong-type"],
                        f"{what} gave {type(result).__name__}, expected {wanted}.")
        if isinstance(result, np.ndarray):
            if shape is not None and result.shape != tuple(shape):
                raise Found(GENERAL["wrong-shape"],
                            f"{what} has shape {result.shape}, expected {tuple(shape)}.")
            if result.dtype.kind == "f" and not np.isfinite(result).all():
                raise Found(GENERAL["not-finite"],
                            f"{what} holds {np.sum(~np.isfinite(result))} times NaN or infinity, "
                            f"among {result.size} numbers.")
        return result

    def attribute(self, thing: Any, name: str, returns: Any = np.ndarray,
                  shape: tuple | None = None) -> Any:
        """An attribute that the statement names."""
        if not hasattr(thing, name):
            raise Found(GENERAL["signature"], f"{type(thing).__name__} has no attribute {name}.")
        return self.expect(f"the attribute {name}", getattr(thing, name), returns, shape)

    def arrays(self, thing: Any, names: Iterator[str] | tuple | list, which: str = "parameters"
               ) -> dict[str, np.ndarray]:
        """`thing.parameters()` or `thing.gradients()`: a dict of arrays with exactly these keys."""
        try:
            found = self.expect(f"{which}()", getattr(thing, which)(), dict)
        except RuntimeError as error:  # right before backward; here backward was called
            empty = [f"{name}_grad" for name in names
                     if getattr(thing, f"{name}_grad", ...) is None]
            if which == "gradients" and empty:
                raise NotYet(f"After backward {', '.join(empty)} is still None.") from None
            if which == "gradients" and "has no gradients" in str(error):  # of a layer inside
                raise NotYet(f"After backward: {error}. Does yours reach it?") from None
            raise
        if set(found) != set(names):
            raise Found(GENERAL["signature"], f"{which}() has the keys {sorted(map(str, found))}, "
                                              f"expected {sorted(names)}"
                                              f"{'' if found else METHOD_HINT}.")
        for name, array in found.items():
            self.expect(f"{which}()[{name!r}]", array)
        if which == "parameters":
            again = thing.parameters()
            for name, array in found.items():
                if name not in again or not np.shares_memory(array, again[name]):
                    raise Found(GENERAL["dead-parameters"], "Asked a second time, parameters() "
                                                            f"gave another array of {name}.")
        return found

    def agrees(self, value: np.ndarray, reference: np.ndarray) -> bool:
        """Equal up to rounding in the coarser dtype of value and trial, relative to the largest."""
        size = min(value.dtype.itemsize, self.dtype.itemsize)
        return _error(value, reference) <= TOLERANCE.get(size, TOLERANCE[8])

    def compare(self, what: str, value: np.ndarray, right: np.ndarray,
                twins: dict[Diagnosis, np.ndarray] | None = None) -> None:
        """Raise `Found` unless `value` is right.

        If it equals what a known mistake gives, its *wrong twin*, that mistake is named.
        """
        self.expect(what, value, shape=right.shape)
        if self.agrees(value, right):
            return
        for diagnosis, twin in (twins or {}).items():
            if twin.shape == value.shape and self.agrees(value, twin):
                raise Found(diagnosis, f"{what} equals what this mistake gives.")
        raise Found(GENERAL["values"], f"{what} is off by {_error(value, right):.2g}, relative to "
                                       "its largest entry.")

    def replaces_gradients(self, thing: Any, names: tuple | list,
                           again: Callable[[], Any]) -> None:
        """Raise `Found` if the gradients add up when `again()` does the same once more.

        `again` runs forward, too: backward may forget what it has used. Neither may take a step.
        """
        first = {name: grad.copy() for name, grad in self.arrays(thing, names, "gradients").items()}
        before = {name: array.copy() for name, array in self.arrays(thing, names).items()}
        again()
        for name, array in self.arrays(thing, names).items():
            self.same_bits(name, array, before[name], GENERAL["writes-parameters"])
        for name, grad in self.arrays(thing, names, "gradients").items():
            if not self.agrees(grad, first[name]):
                raise Found(GENERAL["accumulates"], f"The gradient of {name} changed.")

    def follows(self, thing: Any, names: tuple | list, shapes: tuple,
                right: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]) -> None:
        """Raise `Found` unless each forward and backward goes by its own input and arrays.

        Parameters
        ----------
        shapes : of the inputs, one for each call; before each all arrays get new numbers, in place
        right : function of input and grad_output, asked once the arrays have their new numbers:
            the right gradients by name, that of the input under "x" and the output under "output"
        """
        arrays, earlier = self.arrays(thing, names), []
        for call, shape in enumerate(shapes):
            x, G = (self.normal(*shape, seed=100 * call + seed) for seed in (98, 99))
            for number, array in enumerate(arrays.values()):
                array[...] = 0.5 * self.normal(*array.shape, seed=100 * call + number)
            found = {"output": self.call(thing.forward, x), "x": self.call(thing.backward, G)}
            wanted = right(x, G)
            for name, array in self.arrays(thing, names).items():
                if not np.shares_memory(array, arrays[name]):
                    raise Found(GENERAL["dead-parameters"], "A forward or backward has put another "
                                                            f"array in the place of {name}.")
            results = [(array, array.copy()) for array in found.values()]
            for name, value in (found | self.arrays(thing, names, "gradients")).items():
                what = name if name == "output" else f"gradient of {name}"
                if call and (value.shape != wanted[name].shape
                             or not self.agrees(value, wanted[name])):
                    raise Found(GENERAL["kept"], f"In call {call + 1}, with other numbers in the "
                                                 f"arrays and another input, the {what} is wrong.")
                self.compare(f"the {what}", value, wanted[name])
            for array, copy in earlier:
                if not np.array_equal(array, copy):
                    raise Found(GENERAL["kept"], f"Call {call + 1} has changed what call {call} "
                                                 "had returned.")
            earlier = results

    @contextmanager
    def telling_others(self, found: dict[str, np.ndarray], right: dict[str, np.ndarray]
                       ) -> Iterator[None]:
        """Comparisons of several results: an unknown mistake is told with those that are right."""
        try:
            yield
        except Found as error:
            if error.diagnosis.mistake != "values":
                raise
            good = [name for name, array in right.items() if name in found
                    and found[name].shape == array.shape and self.agrees(found[name], array)]
            raise Found(GENERAL["values"], f"{error.diagnosis.seen} Right already: "
                                           f"{', '.join(good) or 'none'}.") from None

    def refuses(self, what: str, function: Callable[[], Any],
                errors: tuple = (ValueError, TypeError),
                diagnosis: Diagnosis = GENERAL["accepts-nonsense"]) -> None:
        """Raise `Found` unless `function()` raises one of `errors`."""
        expected = " or ".join(error.__name__ for error in errors)
        try:
            function()
        except (NotImplementedError, NotYet, Found):  # the first of these is a RuntimeError too
            raise
        except errors:
            return
        except Exception as error:  # stopped, but by accident and with an error that explains less
            raise Found(diagnosis, f"{what} raised {type(error).__name__} ({error}), "
                                   f"expected {expected}.") from None
        raise Found(diagnosis, f"{what} raised no {expected}.")

    def same_bits(self, what: str, array: np.ndarray, copy: np.ndarray,
                  diagnosis: Diagnosis) -> None:
        """Raise `Found` unless both are equal bit for bit."""
        same_kind = (array.dtype, array.shape) == (copy.dtype, copy.shape)
        if not same_kind or array.tobytes() != copy.tobytes():
            raise Found(diagnosis, f"{what} is not bit for bit what it was.")

    def keeps_dtype(self, what: str, *arrays: np.ndarray) -> None:
        """Raise `Found` unless all have the trial's dtype, which was that of the input."""
        for array in arrays:
            if array.dtype != self.dtype:
                raise Found(GENERAL["wrong-dtype"],
                            f"{what}: {self.dtype} in gave {array.dtype} out.")

    def keeps_digits(self, what: str, value: np.ndarray, right: np.ndarray) -> None:
        """Raise `Found` if float64 was narrower on the way: right, but not to float64's digits."""
        self.keeps_dtype(what, value)
        if self.dtype == np.float64 and (error := _error(value, right)) > DIGITS:
            raise Found(GENERAL["wrong-dtype"], f"{what}: float64 in gave float64 out, but it is "
                                                f"off by {error:.1g}, as after a narrower dtype.")


def _error(value: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference relative to the largest entry of the reference."""
    value, reference = value.astype(np.float64), reference.astype(np.float64)
    scale = max(np.abs(reference).max(initial=0.0), 1e-12)
    return float(np.abs(value - reference).max(initial=0.0) / scale)


# ---- Exercises --------------------------------------------------------------------------------

@dataclass(frozen=True)
class Test:
    """One test: the step after which it can pass, its kind, what it says, its code."""

    step: int
    kind: str
    name: str
    run: Callable[[Trial], None]


class Exercise:
    """The tests of one exercise, in order.

    Parameters
    ----------
    number : int, as on the page of the exercises
    title : str
    mistakes : the diagnoses that its tests can give beside the general ones
    """

    def __init__(self, number: int, title: str, *mistakes: Diagnosis):
        self.number, self.title = number, title
        self.mistakes = {d.mistake: d for d in mistakes}
        self.tests: list[Test] = []

    def test(self, step: int, kind: str, name: str) -> Callable:
        """Decorator: the function below is a test of this step. Within a step, order by kind."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")

        def add(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
            self.tests.append(Test(step, kind, name, run))
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
                status, note, diagnosis = _run(test, Trial(student, dtype))
            if status == "not yet":
                missing = missing or test.step
            elif status == "failed" and 0 < missing < test.step:  # perhaps for that reason alone
                status, note, diagnosis = "not yet", f"Waits for step {missing}.", None
            rows.append(Row(test.step, test.kind, test.name, status, note))
        which = f", step {step} of {self.steps}" if step else ""
        return Report(self.number, f"Exercise {self.number}: {self.title}{which}", tuple(rows),
                      diagnosis, step)


def _run(test: Test, trial: Trial) -> tuple[str, str, Diagnosis | None]:
    """Status, note and diagnosis of one test. Whatever the student's code does ends here."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with warnings.catch_warnings(), time_limit(TIME_LIMIT):
            warnings.simplefilter("ignore")
            test.run(trial)
        outcome = "passed", "", None
    except (NotImplementedError, NotYet) as error:
        outcome = "not yet", str(error), None
    except Found as found:
        outcome = "failed", "", found.diagnosis
    except TooLong as error:
        place = _students_line(error)
        outcome = "failed", "", replace(GENERAL["too-long"], seen=f"It was at {place}.")
    except (Exception, SystemExit) as error:  # a student's code may raise anything
        place = _students_line(error)
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, AttributeError) and error.name in METHOD_NAMES:
            message += METHOD_HINT
        outcome = "failed", "", (
            replace(GENERAL["raised"], seen=f"{message} ({place}; {trial.called})") if place else
            replace(GENERAL["signature"], seen=f"The call itself failed. {message}"))
    if not _same_state(numpy_state, np.random.get_state()) or python_state != random.getstate():
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if outcome[0] != "not yet":
            outcome = "failed", "", GENERAL["global-random"]
    return outcome


def _same_state(first: tuple, second: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
