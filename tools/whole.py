"""Files and folders whole or not at all, for the tools and benchmarks; builders one at a time."""

import os
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
from tensorfile import fresh, replacing, restore, write_whole  # noqa: E402

__all__ = ["alone", "fresh", "replacing", "restore", "run", "said", "write_whole"]

HELD = []  # files of the locks that this process has
DEATH = 1  # of Linux's prctl: a signal when the parent ends


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
