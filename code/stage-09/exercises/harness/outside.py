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
PRINTED = 50_000  # bytes of one stream of a test; see kept.MOST_PRINTED
LEFT_OUT = "\n[The check shows no more of this test: {:,} further {} are left out.]\n"
#: Of a test in a process of its own: bytes of memory, bytes of a file, processes and threads.
MEMORY, FILE, PROCESSES = 4 * 2 ** 30, 64 * 2 ** 20, 512
PATIENCE = 6.0  # times its limit is what a test may take by the clock
GRACE = 10.0  # seconds in which a killed process and its children are gone
LEFT = 86  # how the guard ends when something is left; no other program of ours ends so
DEATH, SUBREAPER = 1, 36  # of Linux's prctl: a signal when the parent ends; to inherit orphans


def deadline(seconds: float) -> Callable[[], bool]:
    """A function that says whether the time is up, from now on.

    What counts is the processor's work: on a machine that is busy, or stopped for a while, a right
    answer takes as long as ever. Who sleeps may take `PATIENCE` times as long. In the browser,
    where a worker has its processor to itself, the clock alone counts.
    """
    clock, work = time.monotonic, time.process_time  # a student's code might replace them
    first, worked = clock() + seconds, work() + seconds
    last = first + (PATIENCE - 1) * seconds * (sys.platform != "emscripten")

    def up() -> bool:
        now = clock()  # which is read sooner, and asked first
        return now > first and (now > last or work() > worked)
    return up


@contextmanager
def insisting(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in this thread after `seconds`, see `deadline`, and until the block is left.

    It reaches code that has switched tracing off, or keeps every exception that it catches. It
    does not reach a single call into compiled code.
    """
    if sys.platform == "emscripten":
        yield
        return
    import ctypes  # here, and select below: a browser's Python need not have them
    wake, here, now = threading.Event(), ctypes.c_ulong(threading.get_ident()), Insisting()
    up = deadline(seconds)
    send = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def insist() -> None:
        while not (wake.wait(0.05) or up()):
            pass
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

    The system ends that process after `seconds` of work. It has a guard, a process between it and
    this one, which ends it after `PATIENCE` times as long by the clock, or as soon as this one is
    gone, with all that it has started; what it has changed goes with it. On
    Linux the guard inherits every orphan, so one in a session of its own ends too; elsewhere only
    the process's own group does. Its end is waited for, not that of its answer: a student's code
    can close the pipe, write half an answer into it, or leave it to another process.

    It reads nothing, and each of its two streams is passed on up to `PRINTED` bytes. Limits of the
    system, as far as it has them: `MEMORY` more than now of its own, twice that in all; files of at
    most `FILE`; `PROCESSES` more processes and threads of this user than now, unless that is root.

    This is no sandbox. What the user may do, the student's code may: read files, use the network,
    end the guard or this process, lie about its own outcome. Against malice grade in a container.
    """
    _flush()  # or the other process would have it, too
    pipes, (leash, held), here = [os.pipe() for _ in range(3)], os.pipe(), os.getpid()
    if (guard := os.fork()) == 0:
        try:
            for file in (held, *(read for read, _ in pipes)):
                os.close(file)
            _guard(work, seconds, leash, here, [write for _, write in pipes])
        finally:
            os._exit(1)
    for file in (leash, *(write for _, write in pipes)):
        os.close(file)
    heard = [Heard(read, most) for (read, _), most in
             zip(pipes, (LARGEST, PRINTED, PRINTED), strict=True)]
    longest = PATIENCE * seconds
    try:
        status = _listen(guard, held, heard, longest)
    finally:
        for pipe in heard:
            os.close(pipe.file)
    for stream, pipe in zip((sys.stdout, sys.stderr), heard[1:], strict=True):
        with suppress(OSError, ValueError, AttributeError):  # it is closed, full or None
            stream.write(pipe.data.decode("utf-8", "replace") + pipe.note())
    code = None if status is None else os.waitstatus_to_exitcode(status)
    if code in (None, -signal.SIGXCPU):
        after = f"{seconds:.0f} seconds of work" if code else f"{longest:.0f} seconds"
        return f"It was ended after {after}: a single call that takes so long, or code that " \
               "catches every interruption."
    if code == LEFT:
        return "It left processes behind that start others faster than they can be ended."
    return _outcome(heard[0].data) or f"It ended the process of the check, with code {code}."


def _outcome(answer: bytes) -> tuple[str, str, Diagnosis | None] | None:
    """What an answer says; None if it is none, as a student's code may write one."""
    try:
        status, note, found = json.loads(answer)
        diagnosis = Diagnosis(**found) if found is not None else None
        measured = [text for pair in diagnosis.measured for text in pair] if found else []
        texts = [status, note, *measured,
                 *(value for key, value in (found or {}).items() if key != "measured")]
        pairs = not found or all(len(pair) == 2 for pair in diagnosis.measured)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = pairs and all(isinstance(text, str) for text in texts)
    return (status, note, diagnosis) if fits else None


def _flush() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):
            stream.flush()


def _listen(guard: int, held: int, heard: list["Heard"], seconds: float) -> int | None:
    """Hear all pipes until the guard has ended; its status, None if it had to be told to end."""
    ended, late, end = 0, False, time.monotonic() + seconds
    try:
        while not ended and time.monotonic() < end + GRACE * late:
            _ready([pipe.file for pipe in heard if not pipe.over], 0.01)
            ended, status = os.waitpid(guard, os.WNOHANG)
            for pipe in heard:
                pipe.listen(20 if ended else 1)  # what was written, was written before
            if not ended and not late and time.monotonic() > end:
                late = True
                os.close(held)
    finally:
        if not late:
            os.close(held)
        if not ended:
            _wait(guard)
    return None if late or not ended else status


def _ready(files: list[int], seconds: float | None = None) -> list[int]:
    """Those of which something can be read, or the end. Any number of a file is taken."""
    import select
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [file for file, _ in poll.poll(None if seconds is None else 1000 * seconds)]


class Heard:
    """The first bytes of what comes through a pipe, and how many came."""

    def __init__(self, file: int, most: int):
        self.file, self.most, self.data, self.seen, self.over = file, most, b"", 0, False
        os.set_blocking(file, False)

    def listen(self, times: int = 1) -> None:
        """Read what is there, so often: whoever writes without end is not read without end."""
        with suppress(BlockingIOError):
            while times and not self.over:
                piece, times = os.read(self.file, 65_536), times - 1
                self.data += piece[:self.most - len(self.data)]
                self.seen += len(piece)
                self.over = not piece

    def note(self) -> str:
        """What is to be said of the others."""
        left = self.seen - len(self.data)
        return LEFT_OUT.format(left, "bytes") if left else ""


def _high(file: int) -> int:
    """A copy of a file, above the numbers that code which closes every file goes through."""
    import fcntl
    with suppress(OSError):  # the system gives no such numbers
        return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 700)
    return os.dup(file)


class Streams:
    """The process's own two streams while a student's code runs: of each the first bytes pass.

    What goes around `sys.stdout`, such as os.write, is bounded like this. Where there are no
    threads or no such streams, nothing is.
    """

    def __init__(self) -> None:
        self.pipes: list[tuple[int, int, Heard]] = []  # which stream, its copy, what comes
        self.thread: Limit | None = None
        self.over = False

    def begin(self) -> None:
        if os.name != "posix" or sys.platform == "emscripten":
            return
        _flush()
        self.wake, self.stop = os.pipe()
        thread = Limit(target=self._pass_on, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            for file in (self.wake, self.stop):
                os.close(file)
            return
        self.thread = thread
        for number in (1, 2):
            with suppress(OSError):  # it is closed
                copy = _high(number)
                read, write = os.pipe()
                self.pipes.append((number, copy, Heard(read, PRINTED)))
                os.dup2(write, number)
                os.close(write)
        os.write(self.stop, b"begin")

    def end(self) -> None:
        if not self.thread:
            return
        _flush()
        for number, copy, _ in self.pipes:
            with suppress(OSError):  # a student's code can close every file
                os.dup2(copy, number)
        self.over = True
        with suppress(OSError):
            os.write(self.stop, b"end")
        self.thread.join(GRACE)
        for file in (self.wake, self.stop, *(file for _, copy, pipe in self.pipes
                                             for file in (copy, pipe.file))):
            with suppress(OSError):
                os.close(file)
        self.thread = None

    def _pass_on(self) -> None:
        os.read(self.wake, 5)
        over = False
        with suppress(OSError):  # these files were closed
            while not over:
                if self.wake in _ready([self.wake, *(pipe.file for _, _, pipe in self.pipes
                                                     if not pipe.over)]):
                    os.read(self.wake, 5)
                over = self.over  # not the pipe's end, which a process that was left may hold
                for _, copy, pipe in self.pipes:
                    had = len(pipe.data)
                    pipe.listen(20 if over else 1)
                    with suppress(OSError):  # nobody reads it any more; the others wait for this
                        os.write(copy, pipe.data[had:] + (pipe.note().encode() if over else b""))


def _wait(guard: int) -> None:
    """Until the guard has ended all and itself, but not for ever."""
    end = time.monotonic() + GRACE
    while not os.waitpid(guard, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)
            return
        time.sleep(0.01)


def _prctl(option: int, value: int) -> None:
    """Linux's `prctl`; where there is none, nothing."""
    if sys.platform == "linux":
        import ctypes
        ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _guard(work: Callable[[], tuple], seconds: float, leash: int, parent: int, files: list[int]
           ) -> None:
    """Let the work be done in a process of its own; end like it, when all of it has ended.

    The leash is a pipe that nobody writes to: it has an end when `parent` lets go, or is gone.
    """
    os.setsid()  # Ctrl+C is for the parent
    _prctl(SUBREAPER, 1)
    here = os.getpid()
    if (pid := os.fork()) == 0:
        try:
            os.close(leash)
            _work(work, seconds, here, files)
        finally:
            os._exit(1)
    for file in files:
        os.close(file)
    status = None
    while status is None and os.getppid() == parent and not _ready([leash], 5e-3):
        status = _reap(pid)
    for end_of in (os.killpg, os.kill)[:1 if status is not None else 2]:  # its number may be new
        with suppress(OSError):
            end_of(pid, signal.SIGKILL)
    ended = _end_children(time.monotonic() + GRACE - 1)
    code = os.waitstatus_to_exitcode(status or 0) if ended else LEFT
    if code < 0:  # as it ended, so does this
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(here, -code)
    os._exit(code)


def _reap(pid: int) -> int | None:
    """How process `pid` ended, None if it runs; orphans that have ended go, too."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended in (0, pid):
            return status if ended else None


def _end_children(end: float) -> bool:
    """Kill this process's children until there are none: a child's children become this one's.

    False if there are some at the `end`: each may start another faster than it is found.
    """
    here = os.getpid()
    while time.monotonic() < end:
        with suppress(OSError), open(f"/proc/{here}/task/{here}/children") as children:
            for child in children.read().split():
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        try:
            while time.monotonic() < end and os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(5e-4)
    return False


def _work(work: Callable[[], tuple], seconds: float, guard: int, files: list[int]) -> None:
    """In the process of the test: its streams, its limits, the test, the answer."""
    os.setsid()
    _prctl(DEATH, signal.SIGKILL)
    if os.getppid() != guard:  # it was gone before
        return
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files[1:], 1):
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace",
                                        closefd=False) for number in (1, 2))
    _limit(seconds)
    status, note, found = work()
    text = json.dumps([status, note, found and asdict(found)]).encode()
    _flush()
    os.write(files[0], text[:LARGEST])
    os._exit(0)


def _limit(seconds: float) -> None:
    """Let the system bound what this process and its children take; see `apart`."""
    import resource
    most = {"CPU": int(seconds + 1), "FSIZE": FILE, "CORE": 0}
    with suppress(OSError):  # no /proc: then these are not known
        with open("/proc/self/status") as file:
            said = dict(line.split(":", 1) for line in file)
        most["DATA"], most["AS"] = (int(said[key].split()[0]) * 1024 + more for key, more in
                                    (("VmData", MEMORY), ("VmSize", 2 * MEMORY)))
        most["NPROC"] = _running() + PROCESSES
    for name, value in most.items():
        what = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(what)[1]
        with suppress(OSError, ValueError):  # one that the system does not have
            end = value + (name == "CPU")  # a second before it kills, the system says why
            end = end if hard == resource.RLIM_INFINITY else min(end, hard)
            resource.setrlimit(what, (min(value, end), end))


def _running() -> int:
    """Processes and threads of this user."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count
