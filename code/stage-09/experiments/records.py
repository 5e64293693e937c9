"""Records of runs: a JSON object a line, added as a run ends, so that a stopped runner resumes."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorfile import write_whole


def rounded(value: Any) -> Any:
    """Floats to 5 significant digits: what a file needs, at half its size."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a record; none if there is no file yet. A cut last line is left out, with a word.

    Raises
    ------
    ValueError
        Another line is damaged; the number of it.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) or line.endswith("\n"):
                raise ValueError(f"{path}, line {number} is damaged ({error}): take it out, and "
                                 "its run is made again") from error
            print(f"{path}: the last line was cut; its run is made again", file=sys.stderr)
    return rows


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row, in place of a cut last line if there is one."""
    line = (json.dumps(rounded(row), separators=(",", ":")) + "\n").encode()
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        write_whole(path, text[:text.rfind(b"\n") + 1])
    with path.open("ab") as file:  # one write at the end of the file: two runners do not mix lines
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def write_record(path: Path, content: Any) -> None:
    """A record that is made in one go, as indented JSON."""
    write_whole(path, json.dumps(rounded(content), indent=1) + "\n")


def set_aside(*paths: Path) -> None:
    """Move records to names with the time in them, so that a new start loses nothing."""
    for path in filter(Path.exists, paths):
        aside = path.with_name(f"{path.stem}-until-{time.strftime('%Y-%m-%d-%H%M%S')}{path.suffix}")
        path.rename(aside)
        print(f"{path.name} is kept as {aside.name}; delete it when the new one is complete")


@contextmanager
def only_runner(path: Path) -> Iterator[None]:
    """Hold a record for one runner at a time; the system lets go when its process ends.

    Raises
    ------
    SystemExit
        Another process adds to this record now.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing is held
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"another process adds to {path} now: wait for it, or give this one another "
                     "folder with --output")
        yield
