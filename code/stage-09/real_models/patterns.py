"""Regular expressions from strangers, matched in bounded time.

Python's `re` tries one way after another: `(a+)+$` in an adapter's file could keep it busy for
years. Here every part of a pattern maps a place in the text to all places where a match of that
part may end, and remembers it, so the work is at most the parts times the cube of a name's length.
A file may hold many patterns, and a model many names: `within` bounds their sum.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from itertools import count
from math import inf
from time import process_time

SECONDS = 10  # what all patterns of a file or of a call take together, see `within`
LONGEST, MOST_GROUPS, MOST_REPEATS = 1_000, 40, 40
#: A path or the end of one, as most files have it, which `re` matches without trying twice.
PLAIN = re.compile(r"(\(\?:\.\*\\\.\)\?\()?(\w|\.|\\\.)+(?(1)\)(\(\?:\\\.\.\*\)\?)?)")
ATOM = re.compile(r"\\[dDwWsSbBAZ]|\\[^A-Za-z0-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\()|*+?]",
                  re.DOTALL)
REPEAT = re.compile(r"(?:([*+?])|\{(\d+)\}|\{(\d*),(\d*)\})\??(?![*+])")
Part = Callable[[str, int], frozenset[int]]  # text, where to begin -> where a match may end
_until = ContextVar("_until", default=inf)  # of process_time
_steps = count()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All matches inside take so much of the processor's time together, or raise ValueError.

    Inside of another such block, they take no more than is left there.

    Parameters
    ----------
    seconds : of the process; asked before each match, and again and again in it
    """
    before = _until.set(min(_until.get(), process_time() + seconds))
    try:
        yield
    finally:
        _until.reset(before)


def fullmatch(pattern: str, text: str) -> bool:
    r"""Does the whole text match, as `re.fullmatch` would say?

    Raises ValueError for what `re` does not know, for what would make a place's matches depend on
    how it was reached (`\1`, `(?(1)a|b)`, `a*+`), for flags, and for long patterns.
    """
    _in_time()
    if len(pattern) <= LONGEST and PLAIN.fullmatch(pattern):
        return re.fullmatch(pattern, text) is not None
    return len(text) in _parse(pattern)(text, 0)


def ends(pattern: str, path: str) -> bool:
    """Does a pattern match a module's whole path, or its end after a dot? As PEFT's tables do."""
    return fullmatch(rf"(?:.*\.)?({pattern})", path)


def _in_time() -> None:
    if process_time() > _until.get():
        raise ValueError("comparing the regular expressions with this model's modules takes too "
                         "long; write the names out")


@lru_cache(maxsize=10)  # each remembers what it matched
def _parse(pattern: str) -> Part:
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > LONGEST or pattern.count("(") > MOST_GROUPS or repeats > MOST_REPEATS:
        raise ValueError(f"a regular expression of {len(pattern):,} letters, "
                         f"{pattern.count('('):,} groups and {repeats:,} repetitions is too long; "
                         "write the targets out")
    try:
        re.compile(pattern)
        whole, rest = _alternatives(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern[:80]!r} is no regular expression: {error}") from None
    if rest:
        raise ValueError(f"{pattern[:80]!r} cannot be read from {rest[:20]!r} on: groups, what "
                         "looks ahead or behind, |, * + ? {}, [] and single letters are "
                         "understood, no flags and nothing that depends on what a group has "
                         "matched, since that can take for ever; write the targets out")
    return whole


def _alternatives(rest: str) -> tuple[Part, str]:
    """`one|other`, up to a closing bracket or what is not understood."""
    branches, more = [], True
    while more:
        parts = []
        while (found := _repeated(rest)) is not None:
            part, rest = found
            parts.append(part)
        branches.append(_sequence(parts))
        more, rest = rest.startswith("|"), rest.removeprefix("|")
    return cache(lambda text, at: frozenset().union(*(b(text, at) for b in branches))), rest


def _sequence(parts: list[Part]) -> Part:
    def match(text: str, at: int) -> frozenset[int]:
        ends = frozenset({at})
        for part in parts:
            ends = _step(part, text, ends)
        return ends
    return cache(match)


def _step(part: Part, text: str, starts: Iterable[int]) -> frozenset[int]:
    if next(_steps) % 1_000 == 0:
        _in_time()
    return frozenset().union(*(part(text, start) for start in starts))


def _repeated(rest: str) -> tuple[Part, str] | None:
    """A letter, a class or a group, with `*`, `+`, `?` or `{2,3}` behind it, if there is one."""
    if group := re.match(r"\((\?:|\?P<\w+>|\?<?[=!])?(?!\?)", rest):
        one, after = _alternatives(rest[group.end():])
        if not after.startswith(")"):
            return None
        rest = after[1:]
        if group[0].endswith(("=", "!")):
            one = _look(one, behind="<" in group[0], wanted=group[0].endswith("="))
    elif atom := ATOM.match(rest):
        token = re.compile(atom[0])
        one = cache(lambda text, at: frozenset(
            [found.end()] if (found := token.match(text, at)) else []))
        rest = rest[atom.end():]
    else:
        return None
    if not (repeat := REPEAT.match(rest)):
        return one, rest
    sign, exact, low, high = repeat.groups()
    if sign:
        low, high = {"*": "0", "+": "1", "?": "0"}[sign], {"?": "1"}.get(sign, "")
    elif exact:
        low = high = exact
    return _repeat(one, int(low or 0), int(high) if high else None), rest[repeat.end():]


def _look(one: Part, behind: bool, wanted: bool) -> Part:
    """`(?=a)`, `(?!a)`, `(?<=a)` or `(?<!a)`: the place itself, or no place."""
    def match(text: str, at: int) -> frozenset[int]:
        seen = at in _step(one, text, range(at + 1)) if behind else bool(one(text, at))
        return frozenset([at] if seen == wanted else [])
    return cache(match)


def _repeat(one: Part, low: int, high: int | None) -> Part:
    def match(text: str, at: int) -> frozenset[int]:
        enough = len(text) + 1  # of that many matches one is empty: more of them change nothing
        least, most = min(low, enough), 2 * enough if high is None else min(high, 2 * enough)
        now = frozenset({at})
        for _ in range(least):
            now = _step(one, text, now)
        reached = now
        for _ in range(most - least):
            now = _step(one, text, now) - reached
            if not now:
                break
            reached |= now
        return reached
    return cache(match)
