"""What is everybody's while a student's code runs: what it replaced is named, and put back.

`checks` imports this before it needs it, so that NumPy is known as it was before a student's cells.
"""

import builtins
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from operator import is_
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.random  # noqa: F401  NumPy itself loads it late

from exercises.harness.outside import Limit

#: The course's modules that may stand between a student's line and an error. By name: a student's
#: own file may lie beside them, and a reference solution is judged like a student's.
OURS = re.compile(r"(peft|validation|gradcheck|llama|llama_config|tensorfile|training|names|checks|"
                  r"exercises\.(harness\..*|\w+\.(checks|levels|otherwise)))")
NUMPY = ("numpy", "numpy.linalg", "numpy.random", "numpy.fft")
#: What these call in their turn is kept as it was at first.
NUMPY_INSIDE = re.compile(r"numpy(\.(_core|lib|linalg|random|fft)(\..*)?)?")
#: Other modules that all code calls; of these what can be called is kept, and
COMMON = ("builtins", "math", "os", "random", "sys", "threading", "time", "warnings")
OBJECTS = {"os": ("environ",), "sys": ("modules", "path")}
#: A name that is new in a module is harmless, unless its functions take it for Python's own.
SHADOWS = frozenset(name for name in vars(builtins) if not name.startswith("__"))
#: What Python itself writes into modules and classes, at any time.
PYTHONS = ("__annotations__", "__annotations_cache__", "__annotate_func__", "__warningregistry__",
           "__builtins__", "__slotnames__")
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


class Space(NamedTuple):
    """A module, a class or the table of modules: its names now, and all that it held."""

    prefix: str
    now: Mapping[str, Any]
    names: list[str]
    values: list
    put: Callable[[str, Any], None]
    remove: Callable[[str], None]
    watched: Callable[[str, Any], bool]
    unwanted: Callable[[str], bool]  # whether a name may not be new


class Held(NamedTuple):
    """A list, set or dictionary of a module, its copy, and what was in it."""

    name: str
    held: Any
    copy: Any
    parts: list


def _parts(held: Any, dict: type = dict, type: type = type) -> list:
    """What is in a list or set; of a dictionary its keys, then its values."""
    return [*held, *held.values()] if type(held) is dict else [*held]


def _put_back(replaced: dict[str, None], spaces: list[Space], containers: list[Held] = [], *,
              all: Any = all, map: Any = map, len: Any = len, zip: Any = zip, is_: Any = is_,
              none: Any = object(), parts_of: Any = _parts, list: Any = list, type: Any = type
              ) -> None:  # defaults: in Python's and our own names may be what was replaced
    """Put back what was replaced, and note it. What is as it was is passed over in C."""
    for prefix, now, names, values, put, remove, watched, unwanted in spaces:
        if [*now] == names and all(map(is_, now.values(), values)):
            continue
        for name, value in zip(names, values):
            if now.get(name, none) is not value and watched(name, value):
                replaced[prefix + name] = None  # first: an interrupt may come between
                put(name, value)
        known = {*names}
        for name in [*now]:
            if name not in known and unwanted(name):
                replaced[prefix + name] = None
                remove(name)
    for name, held, copy, parts in containers:
        found = parts_of(held)
        if len(found) != len(parts) or not all(map(is_, found, parts)):
            replaced[name] = None
            held.clear()
            (held.extend if type(held) is list else held.update)(copy)


class Kept:
    """Around a student's code: afterwards all that is everybody's is as it was.

    No generator: functions of Python's may be what was replaced.

    Attributes
    ----------
    replaced : names in modules and classes, and of lists and the like, that were not as before
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
        _put_back(self.replaced, NUMPY_AT_FIRST)
        self._spaces, self._containers = _watched()
        self._settings = [(what, ask, put, ask()) for what, ask, put in SETTINGS]
        self._threads = {id(thread) for thread in threading.enumerate()}
        self._random = random.getstate()
        self._generator = np.random.get_bit_generator()
        self._numpy = np.random.get_state(legacy=False)
        self._streams = sys.stdout, sys.stderr
        self._bounded = [stream and Bounded(stream) for stream in self._streams]
        sys.stdout, sys.stderr = self._bounded
        return self

    def at_once(self, put_back: Callable[..., None] = _put_back) -> None:
        """Put back the functions, right after the student's code: all that follows calls them."""
        put_back(self.replaced, self._spaces, self._containers)

    def __exit__(self, kind: type | None, error: BaseException | None,
                 trace: TracebackType | None,
                 at_once: Callable[["Kept"], None] = at_once) -> None:
        at_once(self)
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


def _not_pythons(name: str, value: Any = None, pythons: tuple[str, ...] = PYTHONS) -> bool:
    return name not in pythons


def _can_be_called(name: str, value: Any, also: tuple[str, ...] = (), callable: Any = callable
                   ) -> bool:
    return callable(value) or name in also


def _module(name: str, watched: Callable[[str, Any], bool]) -> Space:
    now = vars(sys.modules[name])
    return Space(f"{name}.", now, [*now], [*now.values()], now.__setitem__, now.__delitem__,
                 watched, SHADOWS.__contains__)


def _class(prefix: str, cls: type) -> Space:
    now = vars(cls)
    return Space(prefix, now, [*now], [*now.values()], partial(type.__setattr__, cls),
                 partial(type.__delattr__, cls), _not_pythons, _not_pythons)


def _watched() -> tuple[list[Space], list[Held]]:
    """All that is watched, as it is now: modules, classes of the course, their containers."""
    table = sys.modules
    found = [*(space for space in NUMPY_AT_FIRST if space.prefix[:-1] not in NUMPY),
             Space("sys.modules ", table, [*table], [*table.values()], table.__setitem__,
                   table.__delitem__, lambda name, value: True, ().__contains__)]
    containers = []
    for name in found[-1].names:
        if name in NUMPY:
            found.append(_module(name, _not_pythons))
        elif name in COMMON:
            found.append(_module(name, partial(_can_be_called, also=OBJECTS.get(name, ()))))
        elif OURS.fullmatch(name):
            found.append(_module(name, _not_pythons))
            for key, value in vars(table[name]).items():
                if isinstance(value, type) and value.__module__ == name:
                    found.append(_class(f"{name}.{key}.", value))
                elif type(value) in (dict, list, set) and _not_pythons(key):
                    containers.append(Held(f"{name}.{key}", value, value.copy(), _parts(value)))
    return found, containers


#: NumPy as it was when this was imported: a student's cell may replace a function before a check.
NUMPY_AT_FIRST = [_module(name, _can_be_called)
                  for name in [*sys.modules] if NUMPY_INSIDE.fullmatch(name)]


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
