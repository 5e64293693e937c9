"""Run a student's work safely: a time limit, errors explained, global state put back.

NumPy only, and nothing here needs threads, signals or processes: the same code runs in the browser.
Where there are such, `outside` ends what gets around the limit.
"""

import dis
import linecache
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from exercises.harness.general import GENERAL, Found, NotYet
from exercises.harness.kept import OURS, Kept
from exercises.harness.outside import APART, apart, deadline, insisting
from exercises.harness.report import PAGES, Diagnosis, short

STANDARD_LIBRARY = str(Path(linecache.__file__).parent)
#: What `peft.Method` looks for on a class that leaves its arrays in a layer inside.
METHOD_NAMES = tuple(name + end for name in ("A", "B", "W_down", "W_up", "prompt")
                     for end in ("", "_grad"))
METHOD_HINT = (". parameters() and gradients() of peft.Method look for these names on the object "
               "itself: where the arrays live in a layer inside, hand both methods on to it")
SECONDS_TO_SAY = 1.0  # for an error's message
LARGEST_FILE = 1_000_000  # bytes of a file with a student's code
MOST_NUMBERS = 10_000_000  # of an array; those of the exercises have a thousand
REFUSING = ("validation", "peft")  # modules that raise errors of their own for a student's code
#: What a name written wrongly raises.
SLIPS = (NameError, AttributeError, KeyError)


class TooLong(BaseException):
    """The time is up. Not an `Exception`, which a student's code might catch.

    Whoever catches it all the same drops it in the end: then it is raised once more, outside of
    what caught it.
    """

    dropped: Callable[[FrameType], None] | None = None

    def __init__(self, dropped: Callable[[FrameType], None] | None = None):
        super().__init__()
        self.dropped = dropped

    def __del__(self) -> None:
        if self.dropped:
            self.dropped(sys._getframe(1))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in Python code that runs longer, see `deadline`.

    A single call into NumPy can't be stopped.

    A trace function needs neither threads nor signals, so this works in the browser. Where a
    debugger traces already, there is no limit: a reader may stand in it. One that a student's code
    has left behind is no debugger. Half a second later a thread, where there is one,
    takes over from a limit that was switched off or caught for good.
    """
    before = sys.gettrace()
    if not _untraced():
        yield
        return
    up, inside = deadline(seconds), True

    def watch(frame: FrameType, event: str, arg: Any) -> Callable:
        if event == "call":  # a loop on a single line has no new lines, but new operations
            comprehension = frame.f_code.co_name.startswith("<")  # these end, and are slow enough
            frame.f_trace_opcodes = not comprehension and _is_students(frame)
        if up():
            raise TooLong(again)
        return watch

    def again(frame: FrameType | None) -> None:  # Python ends the tracing with an error in it
        while inside and frame is not None and _is_students(frame):
            frame.f_trace, frame.f_trace_opcodes = watch, True
            frame = frame.f_back
        if inside:
            sys.settrace(watch)

    with insisting(seconds + 0.5, TooLong):
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when the tracing begins
        sys.settrace(watch)
        try:
            yield
        finally:
            inside = False
            sys.settrace(before)


def _untraced() -> bool:
    """Whether nothing traces but, perhaps, a function of the student's own."""
    trace = sys.gettrace()
    trace = getattr(trace, "__func__", trace)
    return trace is None or isinstance(trace, FunctionType) and (  # a debugger's can be anywhere
        "pydev" not in trace.__code__.co_filename
        and _students(trace.__code__, trace.__globals__))


def _is_students(frame: FrameType) -> bool:
    return _students(frame.f_code, frame.f_globals)


def _students(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether code is neither the course's nor a library's."""
    name = code.co_filename
    return not ("site-packages" in name or name[:2] == "<_" or name.startswith(STANDARD_LIBRARY)
                or OURS.fullmatch(str(names.get("__name__", ""))))


def _students_line(error: BaseException) -> tuple[str, bool]:
    """Where in the student's code an error arose, "" if nowhere; whether it was in that line."""
    place, trace, own = "", error.__traceback__, False
    while trace is not None:
        if own := _is_students(trace.tb_frame):
            code, line = trace.tb_frame.f_code, trace.tb_lineno
            text = short(_source(code.co_filename, line).strip(), 200)
            place = f"line {line} of the cell or file, in {code.co_name}: {text}"
        trace = trace.tb_next
    return place, own


def _source(file: str, line: int) -> str:
    """A line of a cell or file, "" if it is neither: what a student calls a file has perhaps no
    end."""
    if file in linecache.cache or os.path.isfile(file) and os.path.getsize(file) <= LARGEST_FILE:
        return linecache.getline(file, line)
    return ""


def _slip(error: BaseException) -> bool:
    """Whether a name is written wrongly; None has no attributes because something is missing."""
    return isinstance(error, SLIPS) and "'NoneType'" not in told(error)


def told(error: BaseException) -> str:
    """The message of an error. A student's error may have one that raises, or never ends."""
    return in_words(lambda: str(error), "its message")


def in_words(say: Callable[[], str], what: str) -> str:
    """What a student's object says of itself, in a second, cut short, and plain text."""
    said: list[str] = []

    def work() -> None:
        said.append(short(str.__str__(say())))  # of a kind of str that a student made, a plain copy

    if _untraced():
        with Kept() as kept:
            error = _error_in(work, SECONDS_TO_SAY, kept)
    else:  # inside a test, which has its limit, and keeps what is everybody's
        error = _error_at_once(work)
    return said[0] if said else f"{what} can't be shown: {_kind(error)} in its __str__"


def _error_at_once(work: Callable[[], None]) -> BaseException | None:
    try:
        work()
    except (TooLong, KeyboardInterrupt):
        raise
    except BaseException as error:
        return error
    return None


def _kind(thing: object) -> str:
    """The name of its class, whatever a class of classes may make of that."""
    return short(type.__dict__["__name__"].__get__(type(thing)), 100)


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


def _parameters(thing: Any) -> dict[str, np.ndarray]:
    """An object's `parameters()`, as far as there are any and a copy of them takes no gigabytes."""
    try:
        return {name: array for name, array in thing.parameters().items()
                if isinstance(array, np.ndarray) and array.size <= MOST_NUMBERS}
    except Exception:  # not written yet, or wrong: other tests say so
        return {}


def _no_giant(what: str, result: Any) -> None:
    """Raise `Found` of an array that no test can read: a view can be of any shape."""
    if isinstance(result, np.ndarray) and result.size > MOST_NUMBERS:
        raise Found(GENERAL["wrong-shape"], f"{what} has shape {result.shape}: that is "
                                            f"{result.size:,} numbers.")


@lru_cache(512)  # a check asks for most of them many times
def _numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


class Calls:
    """The student's work, a dtype, and ways to call it safely.

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
        return _numbers(shape, seed).astype(self.dtype)  # a copy

    def inputs(self, rows: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of a random x and grad_output of the same shape, with any leading axes."""
        for lead in ((rows,), (), (1, 3), (2, 3), (2, 1, 3)):
            yield self.normal(*lead, width, seed=2), self.normal(*lead, width, seed=3)

    def each_dtype(self) -> Iterator["Calls"]:
        """The same student's work with float32 and with float64 probes."""
        return (type(self)(self.student, dtype) for dtype in (np.float32, np.float64))

    def make(self, *args: Any, **kwargs: Any) -> Any:
        """An object of the student's class."""
        return self.call(self.student, *args, returns=None, **kwargs)

    def call(self, function: Callable, *args: Any, returns: type | tuple | None = np.ndarray,
             shape: tuple | None = None, **kwargs: Any) -> Any:
        """Call it; its array arguments and its object's parameters must not change, and the result
        must be of this type.

        Parameters
        ----------
        returns : expected type; None accepts anything. An array must be finite.
        shape : expected shape of an array, or None

        Raises
        ------
        NotYet
            Something is expected and `None` or `...` was returned.
        Found
            A changed argument or parameter, wrong type or shape, or a value that is not finite.
        """
        if not callable(function):
            raise Found(GENERAL["signature"], f"What should be a method is {_told((function,), {})}"
                                              ": a property, or an attribute of its name.")
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, np.ndarray)]
        before = [array.copy() for array in given]
        thing = getattr(function, "__self__", None)
        kept = {name: array.copy() for name, array in _parameters(thing).items()}
        self.called = f"{_name(function)} was given {_told(args, kwargs)}"
        result = function(*args, **kwargs)
        for array, copy in zip(given, before, strict=True):
            if not np.array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
                raise Found(GENERAL["changes-input"], f"{_name(function)} changed an argument of "
                                                      f"shape {array.shape}.")
        for name, array in _parameters(thing).items() if kept else ():
            if name in kept and array.tobytes() != kept[name].tobytes():
                raise Found(GENERAL["writes-parameters"], f"{_name(function)} changed {name}.")
        if returns is None:
            _no_giant(_name(function), result)
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
            _no_giant(what, result)
            if result.dtype.kind == "f" and not np.isfinite(result).all():
                raise Found(GENERAL["not-finite"],
                            f"{what} holds {np.sum(~np.isfinite(result))} times NaN or infinity, "
                            f"among {result.size} numbers.")
        return result

    def parts(self, function: Callable, count: int) -> tuple:
        """The things that a function of nothing returns; raise `Found` unless they are so many."""
        parts = self.call(function, returns=(tuple, list))
        if len(parts) != count:
            raise Found(GENERAL["wrong-shape"], f"{_name(function)} gave {len(parts)} things, "
                                                f"expected {count}.")
        return tuple(parts)

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
            again = getattr(thing, which)() if which == "parameters" else found
        except RuntimeError as error:  # right before backward; here backward was called
            empty = [f"{name}_grad" for name in names
                     if getattr(thing, f"{name}_grad", ...) is None]
            if which == "gradients" and empty:
                raise NotYet(f"After backward {', '.join(empty)} is still None.") from None
            if which == "gradients" and "has no gradients" in str(error):  # of a layer inside
                raise NotYet(f"After backward: {error}. Does yours reach it?") from None
            raise
        if set(found) != set(again):
            raise Found(GENERAL["dead-parameters"], "Asked a second time, parameters() has "
                        f"{len(again)} arrays, and before {len(found)}.")
        if set(found) != set(names):
            raise Found(GENERAL["signature"], f"{which}() has the keys {sorted(map(str, found))}, "
                                              f"expected {sorted(names)}"
                                              f"{'' if found else METHOD_HINT}.")
        found = {name: found[name] for name in names}
        for name, array in found.items():
            self.expect(f"{which}()[{name!r}]", array)
        if which == "parameters":
            for name, array in found.items():
                if not np.shares_memory(array, again[name]):
                    raise Found(GENERAL["dead-parameters"], "Asked a second time, parameters() "
                                                            f"gave another array of {name}.")
        return found


Outcome = tuple[str, str, Diagnosis | None]  # status, note, diagnosis
STATES = ("passed", "failed", "not yet")


def safely(work: Callable[[], None], seconds: float, called: Callable[[], str]) -> Outcome:
    """The outcome of one test. Whatever the student's code does ends here, but for Ctrl+C.

    With PEFT_CHECKS_APART in the environment the test runs in a process of its own, which is ended
    if need be.

    Parameters
    ----------
    called : says what was called last, for the report of an error in it
    """
    if not os.environ.get(APART):
        return _here(work, seconds, called)
    outcome = apart(lambda: _here(work, seconds, called), 2 * seconds + 1)
    if not isinstance(outcome, str):  # or a student's code has answered
        status, _, found = outcome
        if status not in STATES or (found is None) != (status != "failed") or (
                found and found.read not in PAGES):
            outcome = "It answered in the place of the check."
    if isinstance(outcome, str):
        kind = "too-long" if "seconds" in outcome else "raised"
        return "failed", "", replace(GENERAL[kind], seen=outcome)
    return outcome


def _here(work: Callable[[], None], seconds: float, called: Callable[[], str]) -> Outcome:
    with Kept() as kept:
        error = _error_in(work, seconds, kept)
    status, note, found = _judged(error, called)
    if status == "not yet":
        return status, note, None
    if kept.drew:
        return "failed", "", GENERAL["global-random"]
    if kept.replaced:  # whatever else was seen may come from that
        names = ", ".join(kept.replaced)
        return "failed", "", replace(GENERAL["global-numpy"], seen=short(
            f"{names} was not afterwards what it had been. It is put back.", 900))
    return status, _left(kept), found


def _left(kept: Kept) -> str:
    """In words what a test has changed or left that does not make it wrong."""
    said = []
    if kept.settings:
        said.append(f"It changed {', '.join(kept.settings)}: put back.")
    if count := len(kept.threads):
        names = ", ".join(in_words(lambda t=thread: t.name, "its name")[:60]
                          for thread in kept.threads[:3])
        said.append(f"It left {count} {'thread' if count == 1 else 'threads'} running: {names}"
                    f"{', ...' if count > 3 else '.'}")
    return " ".join(said)


def _error_in(work: Callable[[], None], seconds: float, kept: Kept) -> BaseException | None:
    put_back = kept.put_back  # asked for now: a student's code might replace it
    try:
        with warnings.catch_warnings(), time_limit(seconds):
            warnings.simplefilter("ignore")
            try:
                work()
            finally:
                put_back()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a student's code may raise anything
        return error
    return None


def _judged(error: BaseException | None, called: Callable[[], str]) -> Outcome:
    """What an error says of the work, once all is as it was."""
    if error is None:
        return "passed", "", None
    if isinstance(error, (NotImplementedError, NotYet)):
        return "not yet", told(error), None
    if isinstance(error, Found):
        return "failed", "", error.diagnosis
    place, own = _students_line(error)
    if isinstance(error, TooLong):
        return "failed", "", replace(GENERAL["too-long"], seen=short(f"It was at {place}.", 900))
    message = f"{_kind(error)}: {told(error)}"
    if isinstance(error, AttributeError) and AttributeError.name.__get__(error) in METHOD_NAMES:
        message += METHOD_HINT
    elif own and _slip(error):
        return "failed", "", replace(GENERAL["slip"], seen=short(f"{message} ({place})", 900))
    if place:
        kind = "raised"
        if type(error) is ValueError or type(error) is TypeError:
            kind = "refuses-valid" if _on_purpose(error) else kind
        elif type(error) is RuntimeError and ".backward was given" in called():
            kind = "forgets" if _on_purpose(error) else kind
        seen = f"{message} ({place}; {called()})"
    elif isinstance(error, (TypeError, AttributeError)):
        kind, seen = "signature", f"The call itself failed. {message}"
    else:
        kind, seen = "unusable", message
    return "failed", "", replace(GENERAL[kind], seen=short(seen, 900))


def _on_purpose(error: BaseException) -> bool:
    """Whether a `raise` of the student's, or of the course's that they call, has raised it."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS" and (
        _is_students(trace.tb_frame) or trace.tb_frame.f_globals.get("__name__") in REFUSING)
