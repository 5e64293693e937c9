"""Records of runs: a JSON object a line, added as a run ends, so that a stopped runner resumes."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from tensorfile import set_aside, write_whole

try:
    import fcntl
except ImportError:  # Windows, and the browser: one runner at a time
    fcntl = None

WAIT = 5.0  # seconds between two looks at what other runners have recorded


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
    """Add a row, in place of a cut last line if there is one; other runners wait meanwhile.

    A last line that lacks only its end was read as a row, so it stays.
    """
    line = (json.dumps(rounded(row), separators=(",", ":")) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, "append"):
        if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            rows, last = text[:(start := text.rfind(b"\n") + 1)], text[start:]
            write_whole(path, rows + last + b"\n" if _is_json(last) else rows)
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_record(path: Path, content: Any) -> None:
    """A record that is made in one go, as indented JSON."""
    write_whole(path, json.dumps(rounded(content), indent=1) + "\n")


# -------------------------------------------------------------------------- several runners at once


@contextmanager
def _locked(path: Path, name: str, shared: bool = False, wait: bool = True) -> Iterator[Any]:
    """Hold a lock file beside a record; the system lets go when the process ends, however it does.

    Raises
    ------
    OSError
        Another process has it, and we do not wait.
    """
    if not hasattr(fcntl, "flock"):  # Windows, the browser: nothing is held
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.{name}.lock").open("a") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield file


@contextmanager
def runner(path: Path, fresh: bool = False, *others: Path) -> Iterator[None]:
    """Be one of a record's runners; `fresh` sets it and `others` aside, and must be alone for that.

    Raises
    ------
    SystemExit
        A fresh start while another process adds to this record.
    """
    try:
        with _locked(path, "runners", shared=not fresh, wait=not fresh) as lock:
            if fresh:
                set_aside(path, *others)
                if lock:
                    fcntl.flock(lock, fcntl.LOCK_SH)  # from here on others may help
            yield
    except BlockingIOError:
        sys.exit(f"another process adds to {path} now: wait for it before a fresh start, or give "
                 "this one another folder with --output")


@contextmanager
def claim(path: Path, key: Any) -> Iterator[bool]:
    """Whether this process has a job of a record for itself; one job in a process at a time.

    Whoever gets it looks whether it is recorded by now, and adds its row before letting go.
    """
    if not hasattr(fcntl, "flock"):
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    place = int.from_bytes(sha256(repr(key).encode()).digest()[:7], "big")
    with path.with_name(f".{path.name}.claims.lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)  # a byte for each job
        except OSError:
            yield False
        else:
            yield True


def run_claimed(job: dict, path: Path, key: Callable[[dict], Any], run: Callable[[dict], dict],
                keep: Callable[[dict], dict] = dict) -> dict | None:
    """Run a job and add its row; None if another runner has it, or has recorded it by now.

    `keep` gets what `run` gave, puts away what belongs elsewhere, and returns the row.
    """
    with claim(path, key(job)) as mine:
        if not mine or any(key(row) == key(job) for row in read_lines(path)):
            return None
        append(path, row := keep(run(job)))
        return row


def wait_for_others(todo: int) -> None:
    """Let other runners go on with the jobs that they have."""
    print(f"{todo} runs are with another runner; waiting for it", flush=True)
    time.sleep(WAIT)


def end_with_parent() -> None:
    """For a pool's workers, which would outlive a runner that is killed: end when it does."""
    from multiprocessing import parent_process
    parent = parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
