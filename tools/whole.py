"""Files and folders whole or not at all, for the tools and benchmarks; builders one at a time."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a second builder does not wait
    fcntl = None

CODE = Path(__file__).resolve().parents[1] / "code" / "stage-09"
sys.path.insert(0, str(CODE))
from tensorfile import replacing, write_whole  # noqa: E402

__all__ = ["alone", "fresh", "replacing", "restore", "run", "said", "write_whole"]

HELD = []  # files of the locks that this process has
DEATH = 1  # of Linux's prctl: a signal when the parent ends


def _beside(target, what):
    return target.with_name(f"{target.name}.{what}")


def restore(target):
    """Put the last good folder back where one was killed in `fresh`, and take away what it made."""
    old, new = _beside(target, "old"), _beside(target, "new")
    if old.exists() and not target.exists():
        old.rename(target)
    for left in filter(Path.exists, (old, new)):
        print(f"{left.name}, which a stopped build has left, is removed", flush=True)
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def fresh(target):
    """A new folder, which takes the place of `target` once it is complete; see `restore`.

    Where the block fails, as on a full disk, the new folder goes and the old one stays.
    """
    old, new = _beside(target, "old"), _beside(target, "new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(lock, what):
    """Hold this file, which goes when its process does; whoever comes second waits, and says so."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as held:
        if fcntl:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Another process {what}; waiting for its end", flush=True)
                fcntl.flock(held, fcntl.LOCK_EX)
        HELD.append(held.fileno())
        try:
            yield
        finally:
            HELD.remove(held.fileno())


def run(command, **options):
    """subprocess.run for a helper that writes no longer than its builder holds the lock.

    On Linux a helper ends as soon as the builder is killed. Elsewhere it goes on and holds the
    lock, so that the next builder waits for its end.
    """
    if fcntl:
        options |= {"pass_fds": HELD}
    if sys.platform == "linux":
        import ctypes

        prctl, here = ctypes.CDLL(None).prctl, os.getpid()

        def end_with_builder():
            prctl(DEATH, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
            if os.getppid() != here:  # it was killed before
                os._exit(1)
        options |= {"preexec_fn": end_with_builder}
    return subprocess.run(command, **options)


@contextmanager
def said(what, target):
    """End with a sentence, a full disk's say, or a builder's own: what is there now, and why."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        last = ", the last good one is still there" if target.exists() else ""
        sys.exit(f"{what} was not made{last}: {error}")
