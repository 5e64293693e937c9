"""Which exercises are done: a small file on the reader's own machine, never sent anywhere."""

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from exercises.harness.report import Report
from tensorfile import check_ordinary, write_whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what a lock that another one has is called
EXERCISES, MOST_EXERCISES = 8, 99  # of this edition, of any
PATIENCE = 5.0  # seconds; noting a pass takes milliseconds


def progress_file() -> Path | None:
    """Where the file is; None if PEFT_BOOK_PROGRESS is "off". It may also name another file."""
    chosen = os.environ.get("PEFT_BOOK_PROGRESS", "")
    if chosen:
        return None if chosen == "off" else Path(chosen)
    name = "peft-book-progress.json"
    if sys.platform == "emscripten":  # in the browser: what the notebook's drive holds is kept
        return Path("/drive", name) if Path("/drive").is_dir() else Path(name)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home()) / name
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / name
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / name


def _load(path: Path | None) -> dict[str, object]:
    """All that the file holds, also what only a later edition of the book knows.

    Raises
    ------
    OSError, ValueError
        The file can't be read, is no ordinary one, or is not one of ours.
    """
    if path is None or not path.exists():
        return {}
    check_ordinary(path)  # /dev/zero has no end, and a pipe waits for one
    try:
        done = json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError("brackets in brackets without end") from None
    if not isinstance(done, dict) or done and not _entries(done, MOST_EXERCISES):
        raise ValueError("it holds no list of exercises")
    return done


def _entries(done: dict[str, object], last: int = EXERCISES) -> dict[str, str]:
    """Day of the pass by number of the exercise; what is no such entry does not count."""
    return {number: str(day) for number, day in done.items() if _is_entry(number, day, last)}


def _is_entry(number: str, day: object, last: int) -> bool:
    try:
        return 1 <= int(number) <= last and bool(date.fromisoformat(str(day)))
    except ValueError:
        return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock on a file beside `path`, which the system takes from a process that ends.

    The file stays: whoever removes one that looks left behind may remove another's. A browser has
    one process, and a file system without locks none to give.

    Raises
    ------
    OSError
        The file can't be made, or another process has held it for `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        while not _held(file.fileno()):
            if time.monotonic() > end:
                raise TimeoutError(f"another process has held {file.name} for {PATIENCE:.0f} s")
            time.sleep(0.01)
        yield


def _held(file: int) -> bool:
    """Whether the lock is ours; True also where there are none."""
    try:
        if hasattr(fcntl, "flock"):  # the browser's module has none
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in HELD
    return True


def _note(number: str, path: Path) -> None:
    """Add an exercise to what the file holds; one that is not ours is put aside, which is said."""
    check_ordinary(path)  # before there is a lock beside it, or it is put aside
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        try:
            done = _load(path)
        except ValueError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            print(f"{path} could not be read ({error}); it is kept as {aside.name}, and a new one "
                  "begins.", file=sys.stderr)
            done = {}
        if number not in _entries(done):
            done[number] = date.today().isoformat()
            write_whole(path, json.dumps(done, indent=1, sort_keys=True) + "\n")


def remember(report: Report) -> Report:
    """Note a pass of all steps in the file, and hand the report on, so that a cell shows it."""
    if report.passed and report.step is None:
        path = None
        try:
            if path := progress_file():
                _note(str(report.exercise), path)
        except (OSError, RuntimeError) as error:  # a read-only or no home: the pass is still a pass
            print(f"The pass could not be noted in {path or 'your home folder'}: {error}. "
                  "PEFT_BOOK_PROGRESS names another file; off, and none is noted.", file=sys.stderr)
    return report


class Progress:
    """What has been passed on this machine, to be shown; `done` maps exercise to day."""

    def __init__(self, done: dict[str, str], path: Path | None):
        self.done, self.path = done, path

    def __repr__(self) -> str:
        days = {number: self.done.get(str(number)) for number in range(1, EXERCISES + 1)}
        lines = [f"{number}  {f'done {day}' if day else '-'}" for number, day in days.items()]
        where = (f"Noted in {self.path}, on this machine only. clear_progress() deletes it."
                 if self.path else "Noting is switched off (PEFT_BOOK_PROGRESS).")
        return "\n".join(["Exercises done", *lines, where])


def progress() -> Progress:
    """What was passed on this machine, and the file that says so: copy it to export it."""
    path = progress_file()
    try:
        return Progress(_entries(_load(path)), path)
    except (OSError, ValueError) as error:
        print(f"{path} could not be read: {error}", file=sys.stderr)
        return Progress({}, path)


def clear_progress() -> None:
    """Delete the file, unless it is another program's: PEFT_BOOK_PROGRESS can name any."""
    path = progress_file()
    try:
        _load(path)
        if path:
            path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        print(f"{path} was not deleted, since it could not be read: {error}", file=sys.stderr)
