"""What is everybody's while a student's code runs: what it replaced is named, and put back.

`checks` imports this before it needs it, so that NumPy is known as it was before a student's cells.
"""

import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from exercises.harness.outside import Limit

#: The course's modules that may stand between a student's line and an error. By name: a student's
#: own file may lie beside them, and a reference solution is judged like a student's.
OURS = re.compile(r"(peft|validation|gradcheck|llama|llama_config|tensorfile|training|names|checks|"
                  r"exercises\.(harness\..*|\w+\.(checks|levels)))")
NUMPY = ("numpy", "numpy.linalg", "numpy.random", "numpy.fft")
#: Other modules that all code calls; of these and of the course's what can be called is kept, and
COMMON = ("builtins", "math", "os", "random", "sys", "threading", "time", "warnings")
OBJECTS = ("os.environ", "sys.modules", "sys.path")
MOST_PRINTED = 10_000  # characters of one stream in one test


def _environment(was: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(was)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _path(was: list[str]) -> None:
    sys.path[:] = was


#: What else is everybody's: its name, how to ask for it, how to put it back.
SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("NumPy's error state", np.geterr, lambda was: np.seterr(**was)),
    ("NumPy's error call", np.geterrcall, np.seterrcall),
    ("NumPy's print options", np.get_printoptions, lambda was: np.set_printoptions(**was)),
    ("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    ("the switch interval", sys.getswitchinterval, sys.setswitchinterval),
    ("os.environ", lambda: dict(os.environ), _environment),
    ("the working folder", _folder, lambda was: was and os.chdir(was)),
    ("sys.path", lambda: list(sys.path), _path),
)


class Bounded:
    """A stream that passes on the first characters of a test, and counts the others.

    Nobody closes it: it is everybody's.
    """

    def __init__(self, stream: Any, most: float = MOST_PRINTED):
        self.stream, self.most, self.seen = stream, most, 0

    def write(self, text: str) -> int:
        text = str.__str__(text)
        room = max(0, self.most - self.seen)
        self.seen += len(text)
        if room:
            self.stream.write(text if len(text) <= room else text[:room])
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Leave it open."""

    detach = close

    def end(self) -> None:
        """Say how much was left out. Whoever has kept the stream can go on with it."""
        left, self.most = self.seen - self.most, float("inf")
        if left > 0:
            self.stream.write("\n[The check shows no more of this test: "
                              f"{left:,} further characters are left out.]\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Kept:
    """Around a student's code: afterwards all that is everybody's is as it was.

    No generator, and in `put_back` no function of Python's: those may be what was replaced.

    Attributes
    ----------
    replaced : names of the functions, classes and modules that were others afterwards
    settings : names of the `SETTINGS` that were
    drew : whether the global random state was used
    threads : those that were left running
    """

    def __init__(self) -> None:
        self.replaced: dict[str, None] = {}
        self.settings: list[str] = []
        self.threads: list[threading.Thread] = []
        self.drew = False

    def __enter__(self) -> Self:
        self.put_back(NUMPY_AT_FIRST)
        self._spaces = _spaces()
        self._settings = [(what, ask, put, ask()) for what, ask, put in SETTINGS]
        self._threads = {id(thread) for thread in threading.enumerate()}
        self._random = random.getstate()
        self._generator = np.random.get_bit_generator()
        self._numpy = np.random.get_state(legacy=False)
        self._streams = sys.stdout, sys.stderr
        self._bounded = [stream and Bounded(stream) for stream in self._streams]
        sys.stdout, sys.stderr = self._bounded
        return self

    def put_back(self, spaces: list[tuple[str, dict, dict]]) -> None:
        """Put back what was replaced."""
        for prefix, now, before in spaces:
            for name in before:
                if name not in now or now[name] is not before[name]:
                    self.replaced[prefix + name] = None  # first: an interrupt may come between
                    now[name] = before[name]

    def at_once(self) -> None:
        """Put back the functions, right after the student's code: all that follows calls them."""
        self.put_back(self._spaces)

    def __exit__(self, kind: type | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.at_once()
        sys.stdout, sys.stderr = self._streams
        for stream in filter(None, self._bounded):
            with suppress(OSError, ValueError):  # the stream itself is closed or full
                stream.end()
        for what, ask, put, was in self._settings:
            if not _same(ask(), was):
                self.settings.append(what)
                with suppress(OSError):  # the folder is gone
                    put(was)
        self.threads = [thread for thread in threading.enumerate()
                        if id(thread) not in self._threads and type(thread) is not Limit]
        self._randomness(error)

    def _randomness(self, error: BaseException | None) -> None:
        if other := np.random.get_bit_generator() is not self._generator:
            np.random.set_bit_generator(self._generator)
        self.drew = (error is not None or other or self._random != random.getstate()
                     or not _same(np.random.get_state(legacy=False), self._numpy)
                     and not _drawn_by_others())
        if self.drew:
            np.random.set_state(self._numpy)
            random.setstate(self._random)


def _spaces() -> list[tuple[str, dict, dict]]:
    """Of each module that is watched, and of the table of modules: prefix, names, names now."""
    found = [("sys.modules ", sys.modules, dict(sys.modules))]
    for name, module in found[0][2].items():
        if name in NUMPY:
            found.append((f"{name}.", vars(module), dict(vars(module))))
        elif name in COMMON or OURS.fullmatch(name):
            found.append((f"{name}.", vars(module), {
                key: value for key, value in vars(module).items()
                if callable(value) or f"{name}.{key}" in OBJECTS}))
    return found


#: NumPy as it was when this was imported: a student's cell may replace a function before a check.
NUMPY_AT_FIRST = [(prefix, now, {name: value for name, value in before.items() if callable(value)})
                  for prefix, now, before in _spaces() if prefix[:-1] in NUMPY]


def _same(one: Any, two: Any) -> bool:
    """Whether two settings or random states are the same; these are dicts with arrays in them."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two)
    return one is two or one == two


def _drawn_by_others() -> bool:
    """Whether the global state changes while we wait: somebody else's thread draws from it."""
    before = np.random.get_state(legacy=False)
    time.sleep(0.05)
    return not _same(np.random.get_state(legacy=False), before)
