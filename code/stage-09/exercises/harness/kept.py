"""What is everybody's while a student's code runs: what it replaced is named, and put back.

`checks` imports this before it needs it, so that NumPy is known as it was before a student's cells.
"""

import builtins
import decimal
import gc
import locale
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, cached_property, partial
from operator import attrgetter, is_
from re import escape, fullmatch  # a student's cell may replace those of the module
from types import CodeType, FunctionType, TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.random  # noqa: F401  NumPy itself loads it late

from exercises.harness.outside import LEFT_OUT, Limit, Streams

#: The course's modules that may stand between a student's line and an error. By name: a student's
#: own file may lie beside them, and a reference solution is judged like a student's.
OURS = re.compile(r"(peft|validation|gradcheck|llama|llama_config|tensorfile|training|names|checks|"
                  r"exercises\.(harness\..*|\w+\.(checks|levels|otherwise)))")
NUMPY = ("numpy", "numpy.linalg", "numpy.random", "numpy.fft")
#: What these call in their turn is kept as it was at first.
NUMPY_INSIDE = re.compile(r"numpy(\.(_core|lib|linalg|random|fft)(\..*)?)?")
#: Other modules that all code calls; of these what can be called is kept, and
COMMON = ("builtins", "contextlib", "dataclasses", "functools", "gc", "html", "itertools", "json",
          "linecache", "math", "operator", "os", "pathlib", "random", "re", "signal", "sys",
          "threading", "time", "traceback", "tracemalloc", "warnings")
OBJECTS = {"math": ("e", "inf", "nan", "pi", "tau"), "os": ("environ",),
           "sys": ("modules", "path", "meta_path", "path_hooks")}
SIGNALS = (*signal.Signals,)
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
          ) if hasattr(signal, "setitimer") else ()
#: A name that is new in a module is harmless, unless its functions take it for Python's own.
SHADOWS = frozenset(name for name in vars(builtins) if not name.startswith("__"))
#: What Python itself writes into modules and classes, at any time.
PYTHONS = ("__annotations__", "__annotations_cache__", "__annotate_func__", "__warningregistry__",
           "__builtins__", "__slotnames__")
MOST_PRINTED = 10_000  # characters of one stream in one test
MOST_BELOW = 100_000  # objects below the course's modules; there are some 4,000
LARGEST_ARRAY = 1_000_000  # bytes; those of the course's modules have some hundred


def _environment(was: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(was)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _list(*names: str) -> tuple[Callable[[], list], Callable[[list], None]]:
    """How to ask for lists of `sys`, and how to put back what was in them."""
    def put(was: list) -> None:
        for name, items in zip(names, was, strict=True):
            getattr(sys, name)[:] = items
    return lambda: [[*getattr(sys, name)] for name in names], put


def _umask() -> int:
    now = os.umask(0o77)  # the system tells it to nobody who does not change it
    os.umask(now)
    return now


def _decimal() -> tuple:
    """How the decimal context is made, without what numbers have met in it."""
    context = decimal.getcontext().copy()
    context.clear_flags()
    return context.__reduce__()


def _garbage(was: tuple[bool, tuple[int, int, int], list]) -> None:
    (gc.enable if was[0] else gc.disable)()
    gc.set_threshold(*was[1])
    gc.callbacks[:] = was[2]


def _traced(was: bool) -> None:
    if tracemalloc.is_tracing() is not was:
        (tracemalloc.start if was else tracemalloc.stop)()


def _log(was: tuple[int, int]) -> None:
    logging.disable(was[0])
    logging.root.setLevel(was[1])


class Timer(tuple):
    """What is left of a timer, and its interval; two are the same if both run or neither does."""

    __hash__ = None

    def __eq__(self, other: Any) -> bool:
        return bool(self[0]) == bool(other[0])


def _timers(was: dict[int, Timer]) -> None:
    for which, timer in was.items():
        if not timer == signal.getitimer(which):  # noqa: SIM201  a tuple's != is its own
            signal.setitimer(which, *timer)


def _signals(was: dict[int, Any]) -> None:
    for number, handler in was.items():
        if signal.getsignal(number) is not handler:
            with suppress(OSError, ValueError, TypeError):  # not in this thread, or not from Python
                signal.signal(number, handler)


def _steps(was: tuple) -> None:
    """The functions that Python calls at each step, in this thread and in new ones."""
    for put, function in zip((sys.setprofile, sys.settrace, threading.setprofile,
                              threading.settrace), was, strict=True):
        put(function)


#: What else is everybody's: its name, how to ask for it, how to put it back.
SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("NumPy's error state", np.geterr, lambda was: np.seterr(**was)),
    ("NumPy's error call", np.geterrcall, np.seterrcall),
    ("NumPy's print options", np.get_printoptions, lambda was: np.set_printoptions(**was)),
    ("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    ("the switch interval", sys.getswitchinterval, sys.setswitchinterval),
    ("os.environ", lambda: dict(os.environ), _environment),
    ("the working folder", _folder, lambda was: was and os.chdir(was)),
    ("sys.path", *_list("path")),
    ("how modules are found", *_list("meta_path", "path_hooks")),
    ("the trace or profile function", lambda: (
        sys.getprofile(), sys.gettrace(), threading.getprofile(), threading.gettrace()), _steps),
    ("the collection of garbage", lambda: (gc.isenabled(), gc.get_threshold(), gc.callbacks[:]),
     _garbage),
    ("the tracing of memory", tracemalloc.is_tracing, _traced),
    ("NumPy's buffer", np.getbufsize, np.setbufsize),
    ("the patience of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    ("the mask of new files", _umask, os.umask),
    ("what signals do", lambda: {one: signal.getsignal(one) for one in SIGNALS}, _signals),
    ("logging", lambda: (logging.root.manager.disable, logging.root.level), _log),
    ("the decimal context", _decimal, lambda was: decimal.setcontext(was[0](*was[1]))),
    ("the locale", lambda: locale.setlocale(locale.LC_ALL),
     lambda was: locale.setlocale(locale.LC_ALL, was)),
    ("the most digits of an integer", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    ("the timers", lambda: {which: Timer(signal.getitimer(which)) for which in TIMERS}, _timers),
    *([("the mask of signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        partial(signal.pthread_sigmask, signal.SIG_SETMASK))]
      if hasattr(signal, "pthread_sigmask") else []),  # last: one may be waiting
)


class Bounded:
    """A stream that passes on the first characters of a test, and counts the others.

    Nobody closes it: it is everybody's. `plain` makes of what is written what the stream takes.
    """

    def __init__(self, stream: Any, most: float = MOST_PRINTED,
                 plain: Callable[[Any], Any] = str.__str__):
        self.stream, self.most, self.seen, self.plain = stream, most, 0, plain
        below = getattr(stream, "buffer", None)
        self.buffer = below and Bounded(below, most, bytes)

    def write(self, text: Any) -> int:
        text = self.plain(text)
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
            what = "characters" if self.plain is str.__str__ else "bytes"
            said = LEFT_OUT.format(left, what)
            self.stream.write(said if what == "characters" else said.encode())
        if self.buffer:
            self.buffer.end()

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


class Function(NamedTuple):
    """A function, and what of it can be replaced where it stands."""

    name: str
    function: FunctionType
    code: CodeType
    defaults: tuple | None
    keywords: dict | None


class Whole(NamedTuple):
    """An array, and a copy of it."""

    name: str
    array: np.ndarray
    copy: np.ndarray
    data: bytes


def _parts(held: Any, dict: type = dict, type: type = type) -> list:
    """What is in a list or set; of a dictionary its keys, then its values."""
    return [*held, *held.values()] if type(held) is dict else [*held]


def _changed(watched: "Watched", *, map: Any = map, len: Any = len, is_: Any = is_, all: Any = all,
             zip: Any = zip, parts_of: Any = _parts, asked: Any = tuple(map(attrgetter, (
                 "__code__", "__defaults__", "__kwdefaults__", "cell_contents"))),
             ) -> tuple[list, list, list, list, list]:
    """Of each kind those that may not be as they were; the others are passed over in C."""
    code, defaults, keywords, contents = asked
    _, functions, codes, values, words = watched.functions
    _, cells, held = watched.cells
    return ([space for space in watched.spaces
             if [*space[1]] != space[2] or not all(map(is_, space[1].values(), space[3]))],
            [] if all(map(is_, map(code, functions), codes))
            and all(map(is_, map(defaults, functions), values))
            and all(map(is_, map(keywords, functions), words)) else [*zip(*watched.functions)],
            [] if all(map(is_, map(contents, cells), held)) else [*zip(*watched.cells)],
            [one for one in watched.containers if len(parts := parts_of(one[1])) != len(one[3])
             or not all(map(is_, parts, one[3]))],
            [one for one in watched.arrays
             if one[1].shape != one[2].shape or one[1].tobytes() != one[3]])


def _put_back(replaced: dict[str, None], every: tuple["Watched", ...], *, type: Any = type,
              none: Any = object(), list: Any = list, zip: Any = zip, changed_in: Any = _changed,
              ) -> None:  # defaults: in Python's and our own names may be what was replaced
    """Put back what was replaced, and note it."""
    for watched in every:
        spaces, functions, cells, containers, arrays = changed_in(watched)
        for name, function, code, defaults, keywords in functions:
            for what, now, was in (("__code__", function.__code__, code),
                                   ("__defaults__", function.__defaults__, defaults),
                                   ("__kwdefaults__", function.__kwdefaults__, keywords)):
                if now is not was:
                    replaced[name + "." + what] = None  # first: an interrupt may come between
            function.__code__, function.__defaults__ = code, defaults
            function.__kwdefaults__ = keywords
        for name, cell, content in cells:
            if cell.cell_contents is not content:
                replaced[name] = None
                cell.cell_contents = content
        for prefix, now, names, values, put, remove, is_watched, unwanted in spaces:
            for name, value in zip(names, values):
                if now.get(name, none) is not value and is_watched(name, value):
                    replaced[prefix + name] = None
                    put(name, value)
            known = {*names}
            for name in [*now]:
                if name not in known and unwanted(name):
                    replaced[prefix + name] = None
                    remove(name)
        for name, held, copy, _ in containers:
            replaced[name] = None
            held.clear()
            (held.extend if type(held) is list else held.update)(copy)
        for name, array, copy, _ in arrays:
            replaced[name] = None
            array.shape = copy.shape
            array.setflags(write=True)
            array[...] = copy
            array.setflags(write=copy.flags.writeable)


def _own(function: Callable, **instead: Any) -> Callable:
    """A copy of a function, which stays if somebody replaces the code of that one."""
    made = FunctionType(function.__code__, function.__globals__, function.__name__,
                        function.__defaults__, function.__closure__)
    made.__kwdefaults__ = (function.__kwdefaults__ or {}) | instead
    return made


class Kept:
    """Around a student's code: afterwards all that is everybody's is as it was.

    No generator: functions of Python's may be what was replaced.

    Attributes
    ----------
    replaced : names in modules and classes, and of lists and the like, that were not as before
    put_back : puts all of these back, to be called right after the student's code, since all that
        follows calls them; asked for before it
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
        _put_back(self.replaced, (NUMPY_AT_FIRST,))
        every = NUMPY_AT_FIRST, _watched()
        own = _own(_put_back, changed_in=_own(_changed, parts_of=_own(_parts)))
        self.put_back = partial(own, self.replaced, every)
        self._settings = [(what, ask, put, ask()) for what, ask, put in SETTINGS]
        self._threads = {id(thread) for thread in threading.enumerate()}
        self._random = random.getstate()
        self._generator = np.random.get_bit_generator()
        self._numpy = np.random.get_state(legacy=False)
        self._own_streams = Streams()
        self._own_streams.begin()
        self._streams = sys.stdout, sys.stderr
        self._bounded = [stream and Bounded(stream) for stream in self._streams]
        sys.stdout, sys.stderr = self._bounded
        return self

    def __exit__(self, kind: type | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.put_back()
        sys.stdout, sys.stderr = self._streams
        for stream in filter(None, self._bounded):
            with suppress(OSError, ValueError):  # the stream itself is closed or full
                stream.end()
        self._own_streams.end()
        for what, ask, put, was in self._settings:
            if not _same(ask(), was):
                self.settings.append(what)
                with suppress(OSError, ValueError, locale.Error):  # as where the folder is gone
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


def _class(prefix: str, cls: type, ours: bool) -> Space:
    """A class's attributes; a new one is harmless in a library's."""
    now = vars(cls)
    return Space(prefix, now, [*now], [*now.values()], partial(type.__setattr__, cls),
                 partial(type.__delattr__, cls), _not_pythons,
                 _not_pythons if ours else ().__contains__)


#: What holds a function: how to ask it for that.
WRAPPERS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",), classmethod: ("__func__",), property: ("fget", "fset", "fdel"),
    cached_property: ("func",), partial: ("func", "args", "keywords"),
    type(cache(lambda: None)): ("__wrapped__",), type(np.mean): ("__wrapped__",)}
MUTABLE = 1 << 9, 1 << 8  # of a class's flags: it is one of Python's, and not closed


class Watched:
    """All that is watched, as it was: modules, and what can be reached below them.

    Attributes
    ----------
    spaces, containers, arrays : each a `Space`, a `Held`, a `Whole`
    functions : names, functions, codes, defaults and keywords' defaults, each a list
    cells : names, cells of closures and their contents
    """

    __slots__ = ("spaces", "containers", "arrays", "functions", "cells", "_found", "_cells",
                 "_seen", "_stack")

    def __init__(self) -> None:
        self.spaces: list[Space] = []
        self.containers: list[Held] = []
        self.arrays: list[Whole] = []
        self._found: list[Function] = []
        self._cells: list[tuple] = []
        self._seen: dict[int, Any] = {}
        self._stack: list[tuple[str, Any]] = []

    def done(self) -> Self:
        self.functions = [*zip(*self._found)] or [()] * 5
        self.cells = [*zip(*self._cells)] or [()] * 3
        return self

    def module(self, name: str, watched: Callable[[str, Any], bool], classes: str,
               ours: bool = False) -> None:
        """Watch a module's names, its functions, and its classes, if their module fits a pattern.

        Of the course's own modules objects, lists and arrays are watched, too.
        """
        self.spaces.append(_module(name, watched))
        self._stack = [(f"{name}.{key}", value) for key, value in vars(sys.modules[name]).items()
                       if key not in PYTHONS]
        while self._stack and len(self._seen) < MOST_BELOW:
            name, value = self._stack.pop()
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                self._one(name, value, classes, ours)

    def _one(self, name: str, value: Any, classes: str, ours: bool) -> None:
        kind, below = type(value), []
        if kind is FunctionType:
            self._function(name, value)
        elif kind in WRAPPERS:
            below = [(name, getattr(value, key, None)) for key in WRAPPERS[kind]]
        elif isinstance(value, type):
            if value.__flags__ & sum(MUTABLE) == MUTABLE[0] and fullmatch(
                    classes, str(value.__module__)):
                self.spaces.append(_class(f"{name}.", value, ours))
                below = [(f"{name}.{key}", part) for key, part in vars(value).items()
                         if key not in PYTHONS and key != "__dict__"]
        elif not ours:
            return
        elif kind in (dict, list, set):
            self.containers.append(Held(name, value, value.copy(), _parts(value)))
            below = [(name, part) for part in _parts(value)]
        elif kind in (tuple, frozenset):
            below = [(name, part) for part in value]
        elif kind is np.ndarray:
            if value.nbytes <= LARGEST_ARRAY and not value.dtype.hasobject:
                self.arrays.append(Whole(name, value, _copy(value), value.tobytes()))
        elif fullmatch(classes, str(kind.__module__)) and hasattr(value, "__dict__"):
            below = [(name, vars(value))]
        self._stack += below

    def _function(self, name: str, function: FunctionType) -> None:
        keywords = function.__kwdefaults__
        self._found.append(Function(name, function, function.__code__, function.__defaults__,
                                    keywords))
        if keywords:
            self.containers.append(Held(f"{name}.__kwdefaults__", keywords, keywords.copy(),
                                        _parts(keywords)))
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # it is empty
                self._cells.append((f"{name}.__closure__", cell, cell.cell_contents))
                self._stack.append((f"{name}.__closure__", cell.cell_contents))
        self._stack += [(name, part) for part in vars(function).values()]


def _copy(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=array.flags.writeable)
    return copy


class Memory:
    """What was watched last: as long as it is all as it was, it need not be looked for again."""

    __slots__ = ("last", "modules")

    def __init__(self) -> None:
        self.last: Watched | None = None
        self.modules: list[str] = []


MEMORY = Memory()


def _watched() -> Watched:
    """All that is watched beside NumPy's inside, as it is now."""
    table = sys.modules
    if MEMORY.last and MEMORY.modules == [*table] and not any(_changed(MEMORY.last)):
        return MEMORY.last
    found = Watched()
    found.spaces.append(Space("sys.modules ", table, [*table], [*table.values()],
                              table.__setitem__, table.__delitem__, lambda name, value: True,
                              ().__contains__))
    for name in [*table]:
        if name in NUMPY:
            found.spaces.append(_module(name, _not_pythons))
        elif name in COMMON:
            found.module(name, partial(_can_be_called, also=OBJECTS.get(name, ())), escape(name))
        elif OURS.fullmatch(name):
            found.module(name, _not_pythons, OURS.pattern, ours=True)
    MEMORY.last, MEMORY.modules = found.done(), [*table]
    return found


def _numpy() -> Watched:
    found = Watched()
    for name in sorted(filter(NUMPY_INSIDE.fullmatch, sys.modules)):  # the shortest names
        found.module(name, _can_be_called, NUMPY_INSIDE.pattern)
    return found.done()


#: NumPy as it was when this was imported: a student's cell may replace a function before a check.
NUMPY_AT_FIRST = _numpy()


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
