"""Plausible wrong answers to the exercises, as data: each is a patch on the reference solution.

Each room has a list of them in its own mistakes.py, each below the name of the test that must see
it. The tests feed them to the room's check.
"""

import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """One slip in a solution that is right otherwise.

    Attributes
    ----------
    name : unique in its room
    diagnosis : identifier of the diagnosis that the check must give
    edits : what stands in solution.py, exactly once, and what stands there instead; lines after
        the first are indented like the line that they replace
    seen : how the report's "Seen" must begin, where that tells this mistake from a similar one
    """

    name: str
    diagnosis: str
    edits: dict[str, str]
    seen: str = ""


def listed(mistakes: list[str | Mistake]) -> Iterator[tuple[str, Mistake]]:
    """Each mistake of a room's list, with the test that must see it: the last text before it."""
    test = ""
    for entry in mistakes:
        if isinstance(entry, str):
            test = entry
        else:
            yield test, entry


def source_of(room: str, mistake: Mistake | None = None) -> str:
    """The text of the room's solution.py with the edits made, each on what the last one left.

    Raises
    ------
    ValueError
        A text to be replaced does not stand there exactly once.
    """
    source = (Path(__file__).parent / room / "solution.py").read_text("utf-8")
    for old, new in (mistake.edits if mistake else {}).items():
        if (times := source.count(old)) != 1:
            raise ValueError(f"{mistake.name} in {room}/mistakes.py replaces {old!r}, which stands "
                             f"{times} times in solution.py; give a text that stands there once")
        line = source[:source.index(old)].rpartition("\n")[2]
        indent = line[:len(line) - len(line.lstrip())]
        source = source.replace(old, new.replace("\n", "\n" + indent))
    return source


def patched(room: str, mistake: Mistake) -> dict[str, Any]:
    """The namespace of `source_of` the room and the mistake. ValueError as there."""
    source, file = source_of(room, mistake), f"{room}/solution.py with {mistake.name}"
    linecache.cache[file] = len(source), None, source.splitlines(True), file  # reports show lines
    namespace = {"__name__": f"exercises.{room}.solution"}
    exec(compile(source, file, "exec"), namespace)
    return namespace


def method(code: str) -> dict[str, str]:
    """Edits that give the class one more method, in front of `backward`."""
    return {"def backward(": f"{code}\n\ndef backward("}


def around(name: str, code: str) -> dict[str, str]:
    """Edits after which the method `name` returns `code`; there `right` is what it returned."""
    return {f"def {name}(self)": f"def {name}(self):\n    right = self.right_{name}()\n"
                                 f"    return {code}\n\ndef right_{name}(self)"}
