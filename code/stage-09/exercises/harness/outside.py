"""What ends a test that the time limit in `run` cannot: a thread that insists, a process apart.

Neither is there in the browser, where the page replaces the worker instead.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from exercises.harness.report import Diagnosis

#: Set it to run each test in a process of its own, as graders should.
APART = "PEFT_CHECKS_APART"
LARGEST = 100_000  # bytes of an outcome; a report's parts are short


@contextmanager
def insisting(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in this thread after `seconds`, and again until the block is left.

    It reaches code that has switched tracing off, or keeps every exception that it catches. It
    does not reach a single call into compiled code.
    """
    if sys.platform == "emscripten":
        yield
        return
    import ctypes  # here, and select below: a browser's Python need not have them
    wake, here, now = threading.Event(), ctypes.c_ulong(threading.get_ident()), Insisting()
    send = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def insist() -> None:
        wake.wait(seconds)
        now.begun, pause = True, 0.0
        while not now.left:
            send(here, ctypes.py_object(error))
            pause = 0.001 + 0.618 * (0.01 + pause) % 0.02  # at ever other places of a loop
            time.sleep(pause)
        now.over = True

    def settle() -> None:
        if not now.begun:
            wake.set()
        while not now.over:
            time.sleep(1e-4)
        time.sleep(0)  # one that was sent is raised here at the latest; to take it back by sending
        # None would leave Python 3.11 waiting for it in every traced function, for ever

    Limit(target=insist, daemon=True).start()
    try:
        yield
    finally:
        now.left = True
        try:  # the thread may send once more, and one may have been under way
            settle()
        except error:
            try:
                settle()
            except error:
                settle()


class Limit(threading.Thread):
    """A thread of `insisting`, by which it is told from those that a student's code starts."""


class Insisting:
    """How far it is: plain attributes, since an error that comes from outside can break a lock."""

    begun = left = over = False


def apart(work: Callable[[], tuple], seconds: float) -> tuple[str, str, Diagnosis | None] | str:
    """The outcome of a test that runs in a process of its own, or why there is none.

    The process is ended after `seconds`, whatever it does, with all that it has started, and what
    it has changed goes with it. Its end is waited for, not that of its answer: a student's code can
    close the pipe, write half an answer into it, or leave it to a process of its own.
    """
    import select
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setsid()  # a group of its own, which is ended as one
            os.close(read)
            status, note, found = work()
            text = json.dumps([status, note, found and asdict(found)]).encode()
            os.write(write, text[:LARGEST])
        finally:
            os._exit(0)
    os.close(write)
    os.set_blocking(read, False)
    text, ended, end = b"", 0, time.monotonic() + seconds
    try:
        while not ended and time.monotonic() < end:
            select.select([read], [], [], 0.01)
            ended, status = os.waitpid(pid, os.WNOHANG)  # what it wrote, it wrote before
            with suppress(BlockingIOError):
                if piece := os.read(read, LARGEST):
                    text += piece[:LARGEST - len(text)]
                elif not ended:
                    time.sleep(1e-3)  # the pipe is closed, and always ready
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if not ended:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not ended:
        return f"It was ended after {seconds:.0f} seconds: a single call that takes so long, or " \
               "code that catches every interruption."
    code = os.waitstatus_to_exitcode(status)
    try:
        status, note, found = json.loads(text)
        return status, note, found and Diagnosis(**found)
    except (ValueError, TypeError):
        return f"It ended the process of the check, with code {code}."
