"""The checks' machinery: whatever a student's code does is caught, explained and undone."""

import asyncio
import bdb
import builtins
import contextlib
import copy
import decimal
import functools
import gc
import importlib
import itertools
import json
import locale
import logging
import math
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from exercise_tools import ROOMS, ROOT

import checks
import needs
import peft
from exercises.ex6_qlora import checks as qlora_checks
from exercises.ex6_qlora import levels, otherwise
from exercises.harness import checking, compare, kept, outside, progress
from exercises.harness import run as run_module
from exercises.harness.checking import GENERAL, Diagnosis, Exercise, Found, Terms
from exercises.harness.hints import HINTS
from exercises.harness.kept import Bounded
from exercises.harness.outside import apart
from exercises.harness.report import COLOURS, HEADINGS, PAGES, SIGNS, anchor
from exercises.harness.run import METHOD_HINT, time_limit


def verdict(run, student=None, **options):
    exercise = Exercise(2, "a trial")
    exercise.test(1, "interface", "it works")(run)
    return exercise.check(student, **options)


def test_a_result_is_not_yet_without_a_return():
    for student in (lambda x: None, lambda x: ...):
        report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), student)
        assert report.status == "not yet" and not report.passed and report.diagnosis is None

    def todo(x):
        raise NotImplementedError("step 1: write it")
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), todo)
    assert report.status == "not yet" and "step 1: write it" in str(report)


def test_an_error_is_explained_with_the_students_line():
    def broken(x):
        return x @ np.ones((7, 7))  # the line
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), broken)
    assert report.diagnosis.mistake == "raised"
    assert all(part in report.diagnosis.seen for part in ("broken", "# the line", "(2,)"))
    assert "Traceback" not in str(report)

    def made(*args, **kwargs):
        raise ValueError
    seen = verdict(lambda t: t.call(t.student, 6, "a", trial=t, dtype=int, p=0.5, rng=None), made
                   ).diagnosis.seen
    assert all(given in seen for given in ("made", "6, 'a'", "trial=a Trial", "dtype=int", "p=0.5",
                                           "rng=None"))
    assert "made was given nothing)" in verdict(lambda t: t.call(t.student), made).diagnosis.seen


def test_an_error_in_the_books_own_code_is_shown_at_the_students_line():
    # A notebook imports the book's code by a path with "..", which is then in every traceback.
    path = Path(peft.__file__).parent / "tests" / ".." / "validation.py"
    ours = {"__name__": "validation"}
    exec(compile("def check(x):\n    raise TypeError('no')", str(path), "exec"), ours)

    def student(x):
        return ours["check"](x)  # the student's line
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), student)
    assert "# the student's line" in report.diagnosis.seen
    assert report.diagnosis.mistake == "refuses-valid"
    exec("def look(trial):\n    return int('a result')", ours)  # in the check's own line
    report = verdict(ours["look"])
    assert report.diagnosis.mistake == "unusable" and "a result" in report.diagnosis.seen


def test_a_call_that_does_not_fit_is_told_from_an_error_inside():
    report = checks.check_lora_dropout(lambda x: x)
    assert report.diagnosis.mistake == "signature" and "unexpected" in report.diagnosis.seen


@pytest.mark.parametrize(("error", "status", "seen"), [
    (RuntimeError("forward first"), "passed", ""), (NotImplementedError(), "not yet", ""),
    (AttributeError("no x"), "failed", "raised AttributeError"), (None, "failed", "raised no")])
def test_the_right_error_is_told_from_an_accident_and_from_missing_work(error, status, seen):
    def backward():
        if error:
            raise error
    report = verdict(lambda trial: trial.refuses("it", backward, (RuntimeError,),
                                                 GENERAL["backward-first"]))
    assert report.status == status
    assert status != "failed" or seen in report.diagnosis.seen


def test_a_student_who_leaves_the_program_stays():
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), sys.exit)
    assert report.diagnosis.mistake == "raised" and "SystemExit" in report.diagnosis.seen


def endless_loop(x):
    while True:
        x = x + 1


def endless_line(x):
    while True: pass  # noqa: E701


def endless_swallowed(x):
    while True:
        try:
            x = x + 1
        except:  # noqa: E722
            pass


def endless_swallowed_twice(x):
    while True:
        try:
            while True:
                try:
                    endless_line(x)
                except BaseException:
                    continue
        except BaseException as error:
            x = str(error)


def endless_finally(x):
    while True:
        try:
            x = x + 1
        finally:
            continue


@pytest.mark.parametrize("endless", [endless_loop, endless_line, endless_swallowed,
                                     endless_swallowed_twice, endless_finally])
def test_an_endless_loop_ends(monkeypatch, endless):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), endless)
    assert report.diagnosis.mistake == "too-long" and "in endless" in report.diagnosis.seen
    assert report.status == "failed"
    assert sys.gettrace() is None
    monkeypatch.undo()  # a busy machine may take longer for what does end
    assert verdict(lambda trial: trial.call(trial.student, trial.normal(2)), lambda x: x).passed


def endless_untraced(x):
    sys.settrace(None)
    while True:
        x = x + 1


def endless_kept(x):
    errors = []
    while True:
        try:
            x = x + 1
        except BaseException as error:
            errors.append(error)


def endless_unmarked(x):
    frame = sys._getframe()
    frame.f_trace, frame.f_trace_opcodes = None, False
    while True: pass  # noqa: E701


def endless_generator(x):
    def numbers():
        while True:
            try:
                yield 1
            except BaseException:
                pass
    while True:
        try:
            sum(numbers())
        except BaseException:
            pass


def endless_destructor(x):
    class Thing:
        def __del__(self):
            while True:
                try:
                    pass
                except BaseException:
                    pass
    thing = Thing()
    del thing


def endless_descent(x):
    try:
        return endless_descent(x)
    except BaseException:
        return endless_descent(x)


def endless_call(x):
    return sum(itertools.repeat(1))


def leaves(x):
    os._exit(3)


def closes_the_pipe(x):
    os.closerange(3, 200)
    return endless_call(x)


def is_pipe(file):
    try:
        return stat.S_ISFIFO(os.fstat(file).st_mode)
    except OSError:
        return False


#: Through these pytest's workers are told what to run, and tell what came of it.
PYTESTS = {file for file in range(3, 200) if is_pipe(file)}


def answers_by_half(x):
    for file in filter(is_pipe, {*range(3, 200)} - PYTESTS):
        with contextlib.suppress(OSError):
            os.write(file, b'["passed"')
    return endless_call(x)


def leaves_a_process(x):
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    return 1 / 0


def session_of_its_own(then):
    """A student's work that leaves a process which nobody's group or session holds."""
    def student(x):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.closerange(0, 200)
                with contextlib.suppress(BaseException):
                    Path(then).write_text(str(os.getpid()))
                    while True:
                        time.sleep(0.01)
            os._exit(0)
        while not (Path(then).exists() and Path(then).read_text()):
            time.sleep(0.01)
        return x
    return student


def children_without_end(then):
    """Each makes the next and ends, so that none has a parent."""
    def student(x):
        os.setpgrp() if os.fork() == 0 else os._exit(0)
        while True:
            Path(then).write_text(str(os.getpid()))
            if os.fork():
                os._exit(0)
    return student


def runs(pid):
    if not pid:  # it was ended while it wrote its number
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="the guard inherits orphans on Linux")


@linux
@pytest.mark.parametrize("made", [session_of_its_own, children_without_end])
def test_no_orphan_of_a_test_apart_stays_whatever_its_group(monkeypatch, tmp_path, made):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.5)
    monkeypatch.setattr(outside, "PATIENCE", 1.0)  # neither of them works all the time
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")
    monkeypatch.setattr(run_module, "time_limit", lambda seconds: contextlib.nullcontext())
    verdict(lambda trial: made(tmp_path / "pid")(1))
    pid = (tmp_path / "pid").read_text()
    assert not runs(pid)
    time.sleep(0.1)
    assert (tmp_path / "pid").read_text() == pid, "they go on"


@linux
def test_what_cannot_be_ended_is_told(monkeypatch):
    monkeypatch.setattr(outside, "_end_children", lambda end: False)
    assert "behind" in apart(lambda: ("passed", "", None), 5)


@linux
def test_no_test_apart_outlives_a_grader_that_is_killed(tmp_path):
    script = ("import os, sys\nos.environ['PEFT_CHECKS_APART'] = '1'\n"
              "import test_checking as t\n"
              "t.verdict(lambda trial: (t.session_of_its_own(sys.argv[1])(1), t.endless_call(1)))")
    grader = subprocess.Popen([sys.executable, "-c", script, tmp_path / "pid"], cwd=ROOT, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(Path.is_dir, map(Path,
                                                                                 sys.path))))})
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
        assert time.monotonic() < end and grader.poll() is None
        time.sleep(0.05)
    [guard] = Path(f"/proc/{grader.pid}/task/{grader.pid}/children").read_text().split()
    [test] = Path(f"/proc/{guard}/task/{guard}/children").read_text().replace(pid, "").split()
    assert all(map(runs, (pid, guard, test)))
    grader.kill()
    grader.wait()
    while any(map(runs, (pid, guard, test))):
        assert time.monotonic() < end, "an orphan stays"
        time.sleep(0.05)


@linux
def test_a_test_whose_guard_it_kills_ends_too(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")

    def student():
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), 9)
        time.sleep(60)
    start = time.monotonic()
    assert "code -9" in verdict(lambda trial: student()).diagnosis.seen
    time.sleep(0.2)
    assert not runs((tmp_path / "pid").read_text()) and time.monotonic() - start < 20


@linux
def test_a_test_apart_has_limits_of_the_system(monkeypatch, tmp_path):
    import resource
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")
    monkeypatch.setattr(outside, "FILE", 5000)
    monkeypatch.setattr(outside, "MEMORY", 2 ** 28)

    def writes():
        with open(tmp_path / "large", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    assert "OSError" in verdict(lambda trial: writes()).diagnosis.seen
    assert (tmp_path / "large").stat().st_size == 5000
    large = verdict(lambda trial: np.ones(2 ** 28)).diagnosis.seen
    assert "MemoryError" in large, large
    names = ("RLIMIT_NPROC", "RLIMIT_CPU", "RLIMIT_CORE")
    here = resource.getrlimit(resource.RLIMIT_NPROC)[1]

    def tells():
        raise ValueError([resource.getrlimit(getattr(resource, name)) for name in names])
    seen = verdict(lambda trial: tells()).diagnosis.seen
    found = [int(number) for number in re.findall(r"-?\d+", seen.split("[")[1].split("]")[0])]
    assert found[0] == found[1] > outside.PROCESSES or here < outside.PROCESSES
    assert found[2] == found[3] - 1 > 20 and found[4] == 0, seen  # first it says why, then it kills


FORGED = {"states of their own": ["fine", "", None], "no diagnosis": ["failed", "", None],
          "no text": ["passed", [9], None], "no list": 7, "no JSON that ends": "[" * 90_000,
          "a page that is none": ["failed", "", dict.fromkeys(("mistake", "name", "why", "read"),
                                                              "x")],
          "numbers": ["failed", "", dict.fromkeys(("mistake", "name", "why", "read"), 3)],
          "measured": ["failed", "", {"mistake": "raised", "name": "", "why": "", "read":
                                      next(iter(PAGES)), "measured": [["a", "b", "c"]]}]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
@pytest.mark.parametrize("answer", FORGED.values(), ids=FORGED)
def test_an_answer_that_a_students_code_writes_breaks_no_grader(monkeypatch, answer):
    """That it may lie is said; a grader goes on with the next student's work."""
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")
    text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
    before = set(range(3, 200)) - {file for file in range(3, 200) if not is_open(file)}

    def forges():
        for file in set(range(3, 200)) - before:
            with contextlib.suppress(OSError):
                os.write(file, text)
        os._exit(0)
    report = verdict(lambda trial: forges())
    assert not report.passed and report.diagnosis.mistake == "raised"
    assert len(str(report)) < 4000 > len(report._repr_html_())


def is_open(file):
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "large"])
def test_a_students_line_is_looked_for_in_files_that_end(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("x" * 1_100_000)
    code = compile("def work():\n    raise ValueError('seen')", tmp_path / name, "exec")

    def work():
        names = {}
        exec(code, names)
        names["work"]()
    seen, _, _ = apart(lambda: (verdict(lambda trial: work()).diagnosis.seen, "", None), 20)
    assert "ValueError: seen" in seen and "line 2" in seen and len(seen) < 900


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
def test_what_is_written_past_pythons_streams_is_bounded_apart_too(monkeypatch, capsys):
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")

    def prints():
        print("first", flush=True)
        sys.stdout.buffer.write(b"b" * 300_000)
        os.write(1, b"one")
        for _ in range(100):
            os.write(2, b"x" * 10_000)
    monkeypatch.setattr(outside.Streams, "begin", lambda self: None)  # which holds this, too
    assert verdict(lambda trial: prints()).passed
    out, err = capsys.readouterr()
    assert out.startswith("first\n") and "one" in out and len(out) < 10_300
    assert err.startswith(outside.PRINTED * "x") and len(err) < outside.PRINTED + 200
    assert "290,000 further bytes" in out and "950,000 further bytes" in err


@pytest.mark.skipif(os.name != "posix", reason="streams that cannot be waited for")
def test_what_is_written_past_pythons_streams_is_bounded_here_too(capfd):
    def prints():
        print("first")
        sys.stdout.buffer.write(b"b" * 20_000)
        with open(1, "wb", buffering=0, closefd=False) as raw:
            raw.write(b"r" * 60_000)
        for _ in range(100):
            os.write(2, b"x" * 10_000)
    assert verdict(lambda trial: prints()).passed
    os.write(1, b"after")
    out, err = capfd.readouterr()
    assert "first" in out and out.count("b") < 10_100 and out.endswith("after")
    assert out.count("r") < outside.PRINTED + 100 and out.count("further bytes") == 2
    assert err.startswith(outside.PRINTED * "x") and "950,000 further bytes" in err

    def closes():
        os.closerange(1, 3)
    assert verdict(lambda trial: closes()).passed
    os.write(1, b"still open")
    assert "still open" in capfd.readouterr().out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no files with numbers to close")
@pytest.mark.parametrize("where", ["", "yes"], ids=["here", "apart"])
def test_after_a_students_code_has_closed_every_file_the_report_is_shown(where):
    script = ("import os; from exercises.harness.checking import Exercise; "
              "trial = Exercise(2, 'a trial'); "
              "trial.test(1, 'interface', 'it works')(lambda trial: os.closerange(0, 256)); "
              "print(trial.check(None))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "code" / "stage-09",
                          capture_output=True, text=True, timeout=60,
                          env=os.environ | {outside.APART: where})
    assert done.returncode == 0 and "a trial" in done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
def test_a_students_code_that_closes_every_file_breaks_no_check():
    """In a process apart, whose answer goes through a file that stays, behind 1,024 others."""
    import fcntl
    import resource

    def work():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4000, hard), hard))
        answer = max(filter(is_open, range(3, 200)))
        fcntl.fcntl(answer, fcntl.F_DUPFD, 2000)
        closed = verdict(lambda trial: os.closerange(3, 1500)).status
        many = [os.dup(0) for _ in range(1100)]
        wrote = verdict(lambda trial: os.write(1, b"x" * 200_000)).status  # more than a pipe holds
        os.closerange(3, 3 + len(many))
        os.dup2(2000, answer)
        return closed, wrote, None
    assert apart(work, 20) == ("passed", "passed", None)


@pytest.mark.parametrize("endless", [endless_untraced, endless_kept, endless_unmarked,
                                     endless_generator])
def test_a_loop_that_gets_around_the_limit_ends(monkeypatch, endless):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    for _ in range(2):
        report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), endless)
        assert report.diagnosis.mistake == "too-long" and report.status == "failed"
        assert sys.gettrace() is None
    before = threading.active_count()
    monkeypatch.undo()  # a busy machine may take longer for what does end
    assert verdict(lambda trial: trial.call(trial.student, trial.normal(2)), lambda x: x).passed
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_destructor_that_loops_ends(monkeypatch):
    """Python drops what is raised in one, so whoever keeps it there may not hear of it."""
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    start = time.monotonic()
    verdict(lambda trial: endless_destructor(1))
    assert time.monotonic() - start < 10 and sys.gettrace() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
@pytest.mark.parametrize(("student", "mistake"), [
    (endless_loop, "too-long"), (endless_untraced, "too-long"), (endless_descent, "too-long"),
    (endless_call, "too-long"), (leaves, "raised"), (lambda x: 1 / 0, "raised"),
    (closes_the_pipe, "too-long"), (answers_by_half, "too-long"), (leaves_a_process, "raised")])
def test_in_a_process_apart_everything_ends(monkeypatch, student, mistake):
    if mistake == "too-long":  # a busy machine may take longer for what does end
        monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")
    start = time.monotonic()
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), student)
    assert report.diagnosis.mistake == mistake and time.monotonic() - start < 20


def stops_itself(x):
    """As on a machine that is busy with others: half a second by the clock, no work at all."""
    wakes = f"sleep 0.5; kill -CONT {os.getpid()}"
    with subprocess.Popen(["sh", "-c", wakes]):
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


def naps(x):
    while True:
        time.sleep(0.01)


#: Run in a process of its own, since pytest's own may not stop.
LIMITED = """import sys
import test_checking as t
t.checking.TIME_LIMIT = 0.2
report = t.verdict(lambda trial: trial.call(getattr(t, sys.argv[1]), trial.normal(2)))
print(report.diagnosis.mistake if report.diagnosis else report.status)"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be stopped")
@pytest.mark.parametrize("apart", ["", "1"])
@pytest.mark.parametrize(("student", "said"), [("stops_itself", "passed"), ("naps", "too-long")])
def test_only_work_and_long_waiting_count(student, said, apart):
    path = os.pathsep.join(map(str, filter(Path.is_dir, map(Path, sys.path))))
    done = subprocess.run([sys.executable, "-c", LIMITED, student], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, outside.APART: apart}, check=True)
    assert done.stdout.split() == [said], done.stderr


def test_a_nap_is_no_endless_loop_but_in_the_browser(monkeypatch):
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    assert verdict(lambda trial: time.sleep(0.9)).passed  # longer than where a thread insists
    monkeypatch.setattr(sys, "platform", "emscripten")  # nobody else is at work in a worker
    assert verdict(lambda trial: trial.call(lambda x: (time.sleep(0.3), x)[1], trial.normal(2))
                   ).diagnosis.mistake == "too-long"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
def test_a_call_that_works_too_long_is_ended_apart_by_the_system(monkeypatch):
    monkeypatch.setattr(outside, "PATIENCE", 1e3)
    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    monkeypatch.setenv(outside.APART, "1")
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), endless_call)
    assert report.diagnosis.mistake == "too-long" and "of work" in report.diagnosis.seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
def test_what_is_done_apart_changes_nothing_here(monkeypatch):
    monkeypatch.setenv("PEFT_CHECKS_APART", "1")
    kept = []
    assert verdict(lambda trial: kept.append(np.random.seed(0))).status == "failed"
    assert verdict(lambda trial: kept.append(1)).passed and kept == []

    def todo():
        raise NotImplementedError("step 1")
    report = verdict(lambda trial: todo())
    assert report.status == "not yet" and "step 1" in str(report)


def test_a_thread_that_is_left_is_counted_and_named():
    stop = threading.Event()
    report = verdict(lambda trial: threading.Thread(target=stop.wait, name="mine" * 99).start())
    more = verdict(lambda trial: [threading.Thread(target=stop.wait).start() for _ in range(5)])
    stop.set()
    assert report.passed and "1 thread " in str(report) and "minemine" in str(report)
    assert more.passed and "5 threads " in str(more)
    assert max(len(str(report)), len(str(more))) < 400


def test_a_limit_that_was_replaced_by_another_error_leaves_no_endless_tracing():
    def replaces():
        try:
            while True:
                pass
        finally:
            raise ValueError

    with pytest.raises(ValueError), time_limit(0.05):  # noqa: PT011
        replaces()
    gc.collect()
    assert sys.gettrace() is None


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(("error", "mistake"), [
    (GeneratorExit(), "raised"), (asyncio.CancelledError(), "raised"), (Unspeakable(), "raised"),
    (BaseException("x" * 50_000_000), "raised"), (NameError("nam_"), "slip"),
    (ValueError("\x1b[2J\r all passed \u202e \ud800"), "refuses-valid"),
    (KeyError("nam_"), "slip"), (AttributeError("nam_"), "slip"),
    (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "raised")])
def test_whatever_is_raised_becomes_a_short_report(error, mistake):
    def raises(x):
        raise error

    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), raises)
    assert report.diagnosis.mistake == mistake and type(error).__name__ in report.diagnosis.seen
    for shown in (str(report), report._repr_html_()):
        assert len(shown) < 4000
        assert shown.encode() and shown.replace("\n", "").isprintable()  # commands no terminal


def test_a_long_note_is_cut_and_work_that_cannot_speak_is_not_yet():
    for error in (NotImplementedError("x" * 50_000_000),
                  type("Silent", (NotImplementedError,), {"__str__": lambda self: 1 / 0})()):
        def raises(error=error):
            raise error
        report = verdict(lambda trial, raises=raises: raises())
        assert report.status == "not yet" and len(str(report)) < 4000


def test_numpy_is_put_back_as_it_was():
    before, absolute, norm = np.geterr(), np.abs, np.linalg.norm

    def spoils():
        np.seterr(all="raise")
        np.abs = np.linalg.norm = None
    try:
        report = verdict(lambda trial: spoils())
        assert report.diagnosis.mistake == "global-numpy"
        assert {"numpy.abs", "numpy.linalg.norm"} <= set(
            report.diagnosis.seen.replace(",", "").split())
        assert (np.geterr(), np.abs, np.linalg.norm) == (before, absolute, norm)
    finally:
        np.seterr(**before)
        np.abs, np.linalg.norm = absolute, norm


def test_numpy_that_was_replaced_is_named_also_where_it_made_a_wrong_result_or_an_error():
    add, mean = np.add, np.random.normal

    def spoils(x):
        np.add = lambda a, b: a
        del np.random.normal
        return 1 / x
    try:
        for x in (0, 1):
            report = verdict(lambda trial, x=x: trial.compare("x", spoils(x), np.zeros(1)))
            assert report.diagnosis.mistake == "global-numpy"
            assert {"numpy.add", "numpy.random.normal"} <= set(
                report.diagnosis.seen.replace(",", "").split())
            assert (np.add, np.random.normal) == (add, mean)
    finally:
        np.add, np.random.normal = add, mean


def test_numpy_that_a_cell_replaced_before_the_check_is_put_back_too(monkeypatch):
    add = np.add
    monkeypatch.setattr(np, "add", lambda a, b: a)
    report = verdict(lambda trial: None)
    assert report.diagnosis.mistake == "global-numpy" and "numpy.add" in report.diagnosis.seen
    assert np.add is add and verdict(lambda trial: None).passed


def without_next():
    builtins.next = builtins.isinstance = builtins.len = None


def another_peft():
    sys.modules["peft"] = sys.modules["math"]
    del sys.modules["numpy.linalg"]


def another_lora():
    peft.LoRALinear = time.monotonic = print


@pytest.mark.parametrize(("spoils", "names"), [
    (without_next, {"builtins.next", "builtins.isinstance", "builtins.len"}),
    (another_peft, {"sys.modules peft", "sys.modules numpy.linalg"}),
    (another_lora, {"peft.LoRALinear", "time.monotonic"})])
def test_what_is_everybodys_is_put_back_and_named(spoils, names):
    spaces = [vars(builtins), vars(peft), vars(time), sys.modules]
    before, left = [dict(space) for space in spaces], []
    try:
        report = verdict(lambda trial: spoils())
    finally:
        for space, was in zip(spaces, before, strict=True):
            for name in was:
                if space.get(name) is not was[name]:
                    space[name] = was[name]
                    left.append(name)
    assert left == [] and report.diagnosis.mistake == "global-numpy"
    assert set(report.diagnosis.seen.partition(" was ")[0].split(", ")) == names


def always_agrees():
    compare.Comparisons.agrees = lambda *arrays: True
    compare.Comparisons.__getattribute__ = object.__getattribute__
    del compare.Comparisons.measure


def wide_tolerance():
    compare.TOLERANCE.update({2: 9e9, 4: 9e9, 8: 9e9})
    compare.HALF = 9e9
    checking.__all__.append("mine")
    otherwise.MOVED.clear()


def another_forward():
    peft.LoRALinear.forward = lambda self, x: x


def inside_numpy():
    np._core.numeric.asarray = lambda *args, **kwargs: np.zeros(1)


def another_float():
    compare.float = compare.max = lambda *args: 0.0
    compare.mine = 1  # which nobody asks for


def no_putting_back():
    kept.Kept.__exit__ = kept._put_back = kept.is_ = lambda *args: True
    kept._parts.__code__ = kept._changed.__code__ = (lambda *args, **words: []).__code__
    kept.MEMORY.last = None
    builtins.all = builtins.zip = None
    compare.HALF = 1.0


def in_place():
    """Functions replaced where they stand: nobody's name for one changes."""
    peft.LoRALinear.forward.__code__ = (lambda self, x: x).__code__
    compare.Comparisons.agrees.__defaults__ = (9.0,)
    np.linalg.norm.__wrapped__.__code__ = (lambda *args, **words: 0.0).__code__
    np.array_repr.__wrapped__.__defaults__ = (1, 1, True)
    contextlib.suppress.__exit__.__code__ = (lambda self, *args: True).__code__


def keywords_in_place():
    words = checking.Exercise.check.__kwdefaults__
    words["dtype"] = np.float16
    np.stack.__wrapped__.__kwdefaults__ = None
    kept._put_back.__kwdefaults__["zip"] = None
    np.errstate.__enter__ = None
    threading.Thread.start = None


HARNESS = "exercises.harness."
INSIDE = {
    always_agrees: {f"{HARNESS}compare.Comparisons.{name}"
                    for name in ("agrees", "__getattribute__", "measure")},
    wide_tolerance: {f"{HARNESS}compare.TOLERANCE", f"{HARNESS}compare.HALF",
                     f"{HARNESS}checking.__all__", "exercises.ex6_qlora.otherwise.MOVED"},
    another_forward: {"peft.LoRALinear.forward"},
    inside_numpy: {"numpy._core.numeric.asarray"},
    another_float: {f"{HARNESS}compare.float", f"{HARNESS}compare.max"},
    no_putting_back: {f"{HARNESS}kept.Kept.__exit__", f"{HARNESS}kept._put_back",
                      f"{HARNESS}kept._parts.__code__", f"{HARNESS}kept._changed.__code__",
                      f"{HARNESS}kept.is_", f"{HARNESS}compare.HALF", "builtins.all",
                      "builtins.zip"},
    in_place: {"peft.LoRALinear.forward.__code__",
               f"{HARNESS}compare.Comparisons.agrees.__defaults__", "numpy.linalg.norm.__code__",
               "numpy.array_repr.__defaults__", "contextlib.suppress.__exit__.__code__"},
    keywords_in_place: {f"{HARNESS}checking.Exercise.check.__kwdefaults__",
                        "numpy.stack.__kwdefaults__", f"{HARNESS}kept._put_back.__kwdefaults__",
                        "numpy.errstate.__enter__", "threading.Thread.start"}}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to be apart in")
@pytest.mark.parametrize("spoils", INSIDE, ids=lambda spoils: spoils.__name__)
def test_what_the_courses_and_numpys_modules_hold_is_put_back_and_named(spoils):
    """In a process apart: what stays would spoil every later test."""
    def state():
        return (compare.Comparisons.agrees, compare.Comparisons.measure, compare.TOLERANCE,
                compare.HALF, checking.__all__, otherwise.MOVED, peft.LoRALinear.forward,
                np._core.numeric.asarray, kept.Kept.__exit__, kept._put_back, all, zip,
                vars(compare).get("float"), vars(compare).get("max"))

    def work():
        before = copy.deepcopy(state())
        seen = verdict(lambda trial: spoils()).diagnosis.seen
        honest = verdict(lambda trial: trial.compare("x", np.zeros(2), np.ones(2))).diagnosis
        assert state() == before and verdict(lambda trial: None).passed
        return honest.mistake, seen.partition(" was ")[0], None

    mistake, names, _ = apart(work, 20)
    assert (mistake, {*names.split(", ")}) == ("values", INSIDE[spoils])


def test_what_is_inside_of_what_the_courses_modules_hold_is_put_back_and_named():
    """In lists in dictionaries, in objects, in classes in classes, in closures, in arrays."""
    value = [1]
    home = qlora_checks.EXERCISE
    made = {"Outer": type("Outer", (), {"__module__": "peft", "Inner": type(
                "Inner", (), {"__module__": "peft", "value": 1})}),
            "nested": {"a": [({"b": [1]},)]}, "closed": lambda: value,
            "table": np.arange(6.0).reshape(2, 3)}
    made["table"].setflags(write=False)

    def state():
        return (home.tests[:], GENERAL["raised"].name, vars(GENERAL["raised"]), HEADINGS,
                peft.Outer.Inner.value, peft.nested, peft.closed(), peft.table.tolist(),
                peft.table.flags.writeable, levels.NF4.tolist())

    def spoils():
        home.tests[:] = home.tests[:1]
        object.__setattr__(GENERAL["raised"], "name", "nothing")
        vars(GENERAL["raised"])["mine"] = 1
        HEADINGS[next(iter(HEADINGS))].clear()
        peft.Outer.Inner.value = 2
        peft.nested["a"][0][0]["b"].append(3)
        peft.closed.__closure__[0].cell_contents = 9
        for table in (peft.table, levels.NF4):
            table.setflags(write=True)
            table[:] = 0
        peft.table.shape = 6

    def work():
        vars(peft).update(made)
        before = copy.deepcopy(state())
        seen = verdict(lambda trial: spoils()).diagnosis.seen
        assert state() == before
        assert verdict(lambda trial: None).passed
        return "", seen.partition(" was ")[0], None

    _, names, _ = apart(work, 20)
    assert {*names.split(", ")} == {
        "exercises.ex6_qlora.checks.EXERCISE", f"{HARNESS}general.GENERAL",
        f"{HARNESS}report.HEADINGS", "peft.Outer.Inner.value", "peft.nested",
        "peft.closed.__closure__", "peft.table", "exercises.ex6_qlora.levels.NF4"}


def spoil_what_the_checks_call():
    re.fullmatch = itertools.chain = Path.exists = None
    math.pi = 3


def test_what_the_checks_call_of_python_is_put_back_and_the_next_check_can_judge():
    def work():
        before = re.fullmatch, itertools.chain, Path.exists, math.pi
        seen = verdict(lambda trial: spoil_what_the_checks_call()).diagnosis.seen
        fine = before == (re.fullmatch, itertools.chain, Path.exists, math.pi)
        re.fullmatch, kept.MEMORY.last = None, None  # as a cell between two checks
        return str(fine and verdict(lambda trial: None).passed), seen.partition(" was ")[0], None
    status, names, _ = apart(work, 20)
    assert (status, {*names.split(", ")}) == ("True", {
        "re.fullmatch", "itertools.chain", "pathlib.Path.exists", "math.pi"})


def test_what_a_cell_changes_between_two_checks_stays():
    def work():
        compare.HALF = 7
        otherwise.MOVED["mine"] = None
        fine = verdict(lambda trial: None).passed
        compare.Comparisons.agrees.__defaults__ = (1,)
        fine &= verdict(lambda trial: None).passed
        kept_all = compare.HALF == 7 and "mine" in otherwise.MOVED
        return str(fine and kept_all and compare.Comparisons.agrees.__defaults__ == (1,)), "", None
    assert apart(work, 20)[0] == "True"


def test_what_python_itself_writes_into_modules_and_classes_is_nobodys_mistake():
    def harmless():
        compare.Comparisons.__annotations__
        peft.Method.__annotations__
        compare.__warningregistry__ = {}
        np.polynomial  # noqa: B018  a new name in numpy
    assert verdict(lambda trial: harmless()).passed


def test_settings_are_put_back_and_named(tmp_path):
    def now():
        return (np.geterr(), np.get_printoptions(), sys.getrecursionlimit(), dict(os.environ),
                os.getcwd(), list(sys.path), sys.stdout, sys.stderr, list(warnings.filters))

    def changes():
        np.seterr(all="raise")
        np.set_printoptions(precision=1)
        sys.setrecursionlimit(12345)
        os.environ["PEFT_TRIAL"] = "1"
        os.environ.pop("PATH")
        os.chdir(tmp_path)
        sys.path.clear()
        sys.stdout = sys.stderr = None
        warnings.filters.clear()
    before, environ = now(), os.environ
    report = verdict(lambda trial: changes())
    assert now() == before and os.environ is environ
    assert report.passed and all(what in str(report) for what in (
        "NumPy's error state", "print options", "recursion limit", "os.environ", "working folder",
        "sys.path"))

    def another_environment():
        os.environ = dict(os.environ)
    assert "os.environ" in verdict(lambda trial: another_environment()).diagnosis.seen
    assert now() == before and os.environ is environ


def spoil_timers():
    for which in kept.TIMERS:
        signal.setitimer(which, 1000)


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGALRM})


SPOILT = {  # how code leaves it: what to ask for it
    "how modules are found": (lambda: sys.meta_path.clear(), lambda: list(sys.meta_path)),
    "the trace or profile function": (lambda: threading.setprofile(print), threading.getprofile),
    "the collection of garbage": (gc.disable, gc.isenabled),
    "collection of garbage": (lambda: gc.callbacks.append(print), lambda: [*gc.callbacks]),
    "the tracing of memory": (tracemalloc.start, tracemalloc.is_tracing),
    "NumPy's buffer": (lambda: np.setbufsize(1600), np.getbufsize),
    "the patience of sockets": (lambda: socket.setdefaulttimeout(0.001), socket.getdefaulttimeout),
    "the mask of new files": (lambda: os.umask(0), kept._umask),
    "what signals do": (lambda: signal.signal(signal.SIGINT, print),
                        lambda: signal.getsignal(signal.SIGINT)),
    "the timers": (spoil_timers, lambda: [signal.getitimer(which) for which in kept.TIMERS]),
    "the mask of signals": (block_signals, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "logging": (lambda: logging.disable(50), lambda: logging.root.manager.disable),
    "the decimal context": (lambda: setattr(decimal.getcontext(), "prec", 3),
                            lambda: decimal.getcontext().prec),
    "the most digits of an integer": (lambda: sys.set_int_max_str_digits(0),
                                      sys.get_int_max_str_digits),
    "the locale": (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
                   lambda: locale.setlocale(locale.LC_ALL))}


@pytest.mark.parametrize("what", SPOILT)
def test_every_setting_of_the_process_is_put_back_and_named(what):
    def work():
        spoil, ask = SPOILT[what]
        locale.setlocale(locale.LC_ALL, "C")
        decimal.Decimal(1) / 3  # what numbers have met is no setting
        before = ask()
        said = str(verdict(lambda trial: spoil()))
        fine = what in said and ask() == before
        quiet = "changed" not in str(verdict(lambda trial: decimal.Decimal(1) / 7))
        return str(fine and quiet), said, None
    status, said, _ = apart(work, 30)
    assert status == "True", said


@pytest.mark.parametrize("stop", [True, False])
def test_a_graders_own_alarm_goes_on(stop):
    def work():
        heard = []
        signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
        signal.setitimer(signal.ITIMER_REAL, 1000, 7)
        said = str(verdict(lambda trial: stop and signal.alarm(0)))
        left, every = signal.getitimer(signal.ITIMER_REAL)
        verdict(lambda trial: (block_signals(), signal.raise_signal(signal.SIGALRM)))
        fine = 900 < left <= 1000 and every == 7 and heard and ("the timers" in said) == stop
        return str(fine), said, None
    status, said, _ = apart(work, 30)
    assert status == "True", said


def test_another_generator_in_the_place_of_the_global_one_is_put_back():
    generator, before = np.random.get_bit_generator(), np.random.get_state()
    try:
        report = verdict(lambda t: np.random.set_bit_generator(np.random.PCG64(1)))
        assert np.random.get_bit_generator() is generator
    finally:
        np.random.set_bit_generator(generator)
    assert report.diagnosis.mistake == "global-random"
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state(), strict=True))


def test_what_is_printed_is_cut_and_the_streams_stay_open(capsys):
    def prints():
        print("first")
        for _ in range(100):
            print("x" * 10_000)
        sys.stderr.writelines(["e"] * 50_000)
        sys.stdout.close()
        sys.kept = sys.stdout
    try:
        assert verdict(lambda trial: prints()).passed
        out, err = capsys.readouterr()
        assert out.startswith("first\nxxx") and len(out) < 10_200 > len(err) > 10_000
        assert f"{6 + 100 * 10_001 - 10_000:,} further" in out and "40,000 further" in err
        sys.kept.write("y" * 20_000)  # who keeps it, as logging does, goes on with it
        print("still open")
        assert capsys.readouterr().out == "y" * 20_000 + "still open\n"
    finally:
        vars(sys).pop("kept", None)
    with pytest.raises(TypeError):
        Bounded(sys.stdout).write(5)


def test_an_array_without_end_is_refused_and_not_read():
    def giant(x):
        return np.broadcast_to(x, (10**6, 10**6, 10**3))
    thing = type("Thing", (), {"parameters": lambda self: {"A": giant(1.0)},
                               "forward": lambda self, x: x})()
    for run in (lambda t: t.call(giant, 1.0), lambda t: t.call(giant, 1.0, returns=None),
                lambda t: t.arrays(thing, ("A",)), lambda t: t.expect("it", giant(1.0))):
        says(run, "wrong-shape", "1,000,000,000,000,000 numbers")
    assert verdict(lambda t: t.call(thing.forward, t.normal(2))).passed


def test_a_list_that_holds_itself_is_looked_through():
    endless = []
    endless.append(endless)
    student = type("Student", (), {"kept": endless})
    found = []
    for student.kept in (endless, [{"a": [np.zeros(1)]}]):
        assert verdict(lambda t: found.append(t.on_the_class()), student).passed
    assert found == ["", "kept"]


class Text(str):
    def __len__(self):
        return 1 / 0

    __format__ = __getitem__ = __contains__ = __len__


class Named(type):
    @property
    def __name__(cls):
        raise ValueError("no name")


class Endless(Exception):
    def __str__(self):
        while True:
            pass


class Deep(Exception):
    def __str__(self):
        return str(self)


class Nested(Exception):
    def __str__(self):
        sys.setrecursionlimit(10**7)
        deep = []
        for _ in range(10**5):
            deep = [deep]
        return "nested " * 10**6


class Texted(Exception):
    def __str__(self):
        return Text("with a text")


class Nameless(AttributeError):
    @property
    def name(self):
        raise ValueError("no name")


@pytest.mark.parametrize("error", [
    Endless(), Deep(), Nested(), Texted(), Nameless(), type("x" * 10**7, (Exception,), {})(),
    Named("Metal", (Exception,), {})()],
    ids=["endless", "deep", "nested", "text", "nameless", "long", "metal"])
def test_an_error_that_is_hard_to_tell_becomes_a_short_report(monkeypatch, error):
    monkeypatch.setattr(run_module, "SECONDS_TO_SAY", 0.1)
    limit = sys.getrecursionlimit()

    def raises(x):
        raise error
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), raises)
    assert report.diagnosis.mistake in ("raised", "slip") and len(str(report)) < 4000
    assert sys.getrecursionlimit() == limit and sys.gettrace() is None


def test_the_random_state_is_put_back_after_an_interrupt():
    def interrupted():
        np.random.rand()
        random.random()
        raise KeyboardInterrupt
    before, python = np.random.get_state(), random.getstate()
    with pytest.raises(KeyboardInterrupt):
        verdict(lambda trial: interrupted())
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state(), strict=True))
    assert random.getstate() == python and sys.gettrace() is None


def test_somebody_elses_thread_that_draws_numbers_is_not_the_student():
    stop = threading.Event()

    def draws():
        while not stop.is_set():
            np.random.rand()
            time.sleep(1e-4)
    thread = threading.Thread(target=draws)
    thread.start()
    try:
        assert verdict(lambda trial: time.sleep(0.02)).passed
    finally:
        stop.set()
        thread.join()


def test_no_endless_tracing_after_an_ordinary_run():
    """A limit that is passed ends the tracing by itself; one that is not has to be taken off."""
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), lambda x: x)
    assert report.passed and sys.gettrace() is None


def test_changed_inputs_are_noticed():
    def in_place(x):
        x += 1
        return x
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), in_place)
    assert report.diagnosis.mistake == "changes-input"


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), lambda: np.random.seed(0),
                                  lambda: random.random()])
def test_global_randomness_is_noticed_and_put_back(draw):
    before, python = np.random.get_state(), random.getstate()
    report = verdict(lambda trial: trial.student(), draw)
    assert report.diagnosis.mistake == "global-random" and report.status == "failed"
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state(), strict=True))
    assert random.getstate() == python


@pytest.mark.parametrize(("result", "mistake"), [
    ([1.0, 2.0], "wrong-type"), (np.ones(3), "wrong-shape"), (np.array([1, np.nan]), "not-finite")])
def test_results_of_the_wrong_kind_are_named(result, mistake):
    report = verdict(lambda trial: trial.call(lambda: trial.student, shape=(2,)), result)
    assert report.diagnosis.mistake == mistake


def test_a_wrong_twin_is_named_and_anything_else_measured():
    wrong = Diagnosis("twin", "a twin", "because", "9.2")
    right, twin = np.array([1.0, 2.0]), np.array([2.0, 4.0])

    def compare(trial):
        trial.compare("it", trial.student, right, {wrong: twin})
    assert verdict(compare, right + 1e-9).passed
    assert verdict(compare, right.astype(np.float32) + np.float32(1e-6)).passed
    assert not verdict(compare, right + 1e-3).passed
    assert verdict(compare, twin).diagnosis.mistake == "twin"
    other = verdict(compare, np.array([1.0, 3.0]))
    assert other.diagnosis.mistake == "values" and "0.5" in other.diagnosis.seen


def test_tests_after_a_failure_are_not_tried_and_steps_are_respected():
    exercise = Exercise(2, "a trial")

    @exercise.test(1, "interface", "one")
    def fails(trial):
        raise Found(GENERAL["values"], "so")

    @exercise.test(2, "shapes", "two")
    def passes(trial):
        pass
    report = exercise.check(None)
    assert [row.status for row in report.rows] == ["failed", "not tried"]
    assert len(exercise.check(None, step=1).rows) == 1
    with pytest.raises(ValueError, match="1 to 2"):
        exercise.check(None, step=3)


def test_a_report_can_be_shown_anywhere():
    report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), lambda x: 1 / 0)
    html = report._repr_html_()
    assert "<script" not in html and "&lt;lambda&gt;" in html
    assert repr(report) == str(report)


def number_of(home):
    """Of exercises.ex6_qlora.checks, 6."""
    return int(home.split(".ex")[1][0])


@pytest.mark.parametrize("home", checks.HOMES.values())
def test_steps_and_kinds_are_in_order_and_pages_exist(home):
    module, number = importlib.import_module(home), number_of(home)
    tests = module.EXERCISE.tests
    order = [(test.step, checking.KINDS.index(test.kind)) for test in tests]
    assert order == sorted(order)
    assert 2 <= module.EXERCISE.steps <= 5 and module.EXERCISE.number == number
    assert all(d.read in PAGES for d in module.EXERCISE.mistakes.values())
    assert len(module.EXERCISE.mistakes) >= 5


def test_pages_and_headings_that_diagnoses_name_exist():
    book = Path(peft.__file__).resolve().parents[2] / "book"
    for key, (_, path) in PAGES.items():
        text = (book / path).read_text("utf-8")
        if path.endswith(".ipynb"):
            text = "\n".join("".join(cell["source"]) + "\n" for cell in json.loads(text)["cells"])
        headings = re.findall(r"^#{2,3} (.*)$", text, re.MULTILINE)
        assert set(HEADINGS.get(key, {}).values()) <= set(headings)
        assert key == "statement" or HEADINGS[key][""]
    assert [*map(number_of, checks.HOMES.values())] == [*range(1, checks.EXERCISES + 1)]
    assert all(f"(exercise-{number})=" in text for number in range(1, checks.EXERCISES + 1))


@pytest.mark.parametrize(("mistake", "read", "kind", "heading"), [
    ("m", "9.2", "start", "Why A is random and B is zero"), ("m", "9.2", "values", "The forward"),
    ("alpha-not-over-r", "mistakes", "values", "2. alpha instead of alpha / r"),
    ("wrong-dtype", "9.6", "behaviour", "What an obvious version gets wrong")])
def test_read_leads_to_the_heading_that_fits_the_mistake_or_the_kind(mistake, read, kind, heading):
    opening, text, address = Diagnosis(mistake, "m", "m", read).parts(1, kind)[-1]
    assert opening == "Read" and heading in text and PAGES[read][1] in address
    assert address.endswith(f"#{anchor(heading)}") or heading == "The forward"


def test_the_address_of_a_heading_is_that_of_the_built_page():
    make_id = needs.package("docutils.nodes").make_id
    for heading in (heading for headings in HEADINGS.values() for heading in headings.values()):
        assert anchor(heading) == make_id(heading)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(tmp_path / "deep" / "progress.json"))
    return tmp_path / "deep" / "progress.json"


def test_only_a_complete_pass_is_remembered(file):
    def run(trial):
        if not trial.student:
            raise NotImplementedError
    exercise = Exercise(2, "a trial")
    exercise.test(1, "interface", "one")(run)
    exercise.test(2, "shapes", "two")(run)
    for student, step in ((False, None), (True, 1)):
        checks.remember(exercise.check(student, step))
        assert not file.exists()
    report = exercise.check(True)
    assert checks.remember(report) is report and list(checks.progress().done) == ["2"]
    assert "2  done" in repr(checks.progress()) and str(file) in repr(checks.progress())
    checks.clear_progress()
    checks.clear_progress()
    assert not file.exists() and checks.progress().done == {}


def test_a_spoilt_file_and_a_place_that_cannot_be_written_do_no_harm(file, capsys):
    file.parent.write_text("a file where a folder should be")
    report = verdict(lambda trial: None)
    assert checks.remember(report) is report and "could not be noted" in capsys.readouterr().err
    file.parent.unlink()
    file.parent.mkdir()
    file.write_text("no JSON")
    assert checks.progress().done == {}


def test_noting_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", "off")
    checks.remember(verdict(lambda trial: None))
    assert progress.progress_file() is None and "switched off" in repr(checks.progress())


# ------------------------------------------------------------------------ each sentence of a report


def found(run, student=None):
    report = verdict(run, student)
    assert report.status == "failed", str(report)
    return report.diagnosis.mistake, report.diagnosis.seen


def says(run, mistake, *words, student=None):
    """The diagnosis is this one, and what was seen names these."""
    named, seen = found(run, student)
    assert named == mistake and [word for word in words if word not in seen] == [], (named, seen)


class Holder:
    """An object with whatever attributes and methods a test needs."""

    def __init__(self, **given):
        vars(self).update(given)


def test_a_missing_attribute_and_wrong_keys_are_named():
    thing = Holder(A=np.ones((2, 3)), parameters=lambda: {"A": np.ones(2)}, gradients=lambda: {})
    says(lambda t: t.attribute(thing, "B"), "signature", "Holder", "B")
    says(lambda t: t.attribute(thing, "A", shape=(3, 2)), "wrong-shape", "A", "(2, 3)", "(3, 2)")
    assert verdict(lambda t: t.attribute(thing, "A", shape=(2, 3))).passed
    says(lambda t: t.arrays(thing, ("A", "B")), "signature", "parameters()", "['A']", "['A', 'B']")
    says(lambda t: t.arrays(thing, ("A",), "gradients"), "signature", "gradients()", "[]", "['A']",
         "the object itself")
    says(lambda t: t.arrays(thing, ("A",)), "dead-parameters", "parameters()", "A")
    kept = {"A": np.ones(2)}
    thing.parameters = lambda: kept
    assert verdict(lambda t: t.arrays(thing, ("A",))).passed
    asked = iter([{"A": kept["A"]}, {}])
    thing.parameters = lambda: next(asked)
    assert found(lambda t: t.arrays(thing, ("A",)))[0] == "dead-parameters"
    thing.parameters = lambda: {"A": [1.0]}
    assert found(lambda t: t.arrays(thing, ("A",)))[0] == "wrong-type"


def test_a_method_that_peft_method_misses_is_hinted_at():
    class Inside:
        def parameters(self):
            return {"A": self.A}

    says(lambda t: t.arrays(t.student, ("A",)), "raised", "attribute 'A'", "the object itself",
         student=Inside())


@pytest.mark.parametrize("name", ["A", "B", "W_down", "W_up", "prompt"])
@pytest.mark.parametrize("end", ["", "_grad"])
def test_the_hint_knows_every_array_of_peft(name, end):
    hint = METHOD_HINT
    assert hint in found(lambda t: getattr(Holder(), name + end))[1]
    assert hint not in found(lambda t: Holder().other)[1]


def test_general_diagnoses_send_to_where_the_matter_is_explained():
    by_page = {"statement": {"raised", "refuses-valid", "unusable", "slip", "signature",
                             "global-random", "global-numpy",
                             "wrong-type", "wrong-shape", "values", "start-size", "digits",
                             "factor", "terms",
                             "operand", "inner", "another", "turned", "partly", "sizes",
                             "range", "ignores-rng", "starts-alike", "nearly", "merge-changes"},
               "9.2": {"both-zero", "start-not-frozen", "transposed"},
               "9.6": {"too-long", "changes-input", "wrong-dtype", "not-finite", "accumulates",
                       "accepts-nonsense", "backward-first", "dead-parameters", "kept",
                       "writes-parameters", "shared", "handed-out",
                       "late-gradients", "forgets"}}
    assert {page: {d.mistake for d in GENERAL.values() if d.read == page}
            for page in by_page} == by_page
    assert all(key == d.mistake for key, d in GENERAL.items())
    assert sum(map(len, by_page.values())) == len(GENERAL)


def test_bits_dtypes_and_rounding_are_told_apart():
    wrong, x = Diagnosis("w", "w", "w", "9.2"), np.array([1.0, -0.0])
    assert verdict(lambda t: t.same_bits("it", x, x.copy(), wrong)).passed
    for other in (np.array([1.0, 0.0]), x.astype(np.float32), x[None], np.array([1 + 1e-15, -0.0])):
        says(lambda t, o=other: t.same_bits("it", o, x, wrong), "w", "it", "bit for bit")
    narrow = x.astype(np.float32)
    for wide, kind in ((False, "float32"), (True, "float64")):
        right, other = (x, narrow) if wide else (narrow, x)
        trial = list(checking.Trial(None, np.float64).each_dtype())[wide]
        trial.keeps_dtype("it", right, right)
        with pytest.raises(Found) as error:
            trial.keeps_dtype("it", right, other)
        assert error.value.diagnosis.mistake == "wrong-dtype"
        assert error.value.diagnosis.seen == f"it: {kind} in gave {other.dtype} out."
    for dtype, room in ((np.float64, 1e-5), (np.float32, 2e-4), (np.float16, 2e-2)):
        trial = checking.Trial(None, dtype)
        assert trial.agrees(np.array([100.0, 0.9 * room * 100]), np.array([100.0, 0.0]))
        assert not trial.agrees(np.array([100.0, 1.2 * room * 100]), np.array([100.0, 0.0]))
    assert checking.Trial(None, np.float64).agrees(np.zeros(0), np.zeros(0))


def test_a_twin_of_another_shape_is_no_twin():
    wrong, right = Diagnosis("twin", "a twin", "because", "9.2"), np.ones((2, 2))
    run = lambda t: t.compare("it", t.student, right, {wrong: 2 * np.ones(4)})  # noqa: E731
    says(run, "values", "it is off by 1,", student=2 * right)
    assert found(run, np.ones(4))[0] == "wrong-shape"


def line_of(report, start):
    """Number and text of the one line of a report that starts so."""
    (found,) = [(i, line.strip()) for i, line in enumerate(str(report).splitlines())
                if line.strip().startswith(start)]
    return found


def todo(trial):
    raise NotImplementedError(f"write it for {trial.student}")


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("tests", [1, 3, 9])
@pytest.mark.parametrize("end", [lambda trial: None, todo, lambda t: t.expect("x\ny", [1])])
def test_a_report_has_at_most_fifteen_lines_and_its_rows_are_all_there(steps, tests, end):
    exercise = Exercise(3, "a trial")
    for step in range(1, steps + 1):
        for number in range(tests):
            exercise.test(step, "values", f"{step} {number}")(
                end if number == tests - 1 else lambda trial: None)
    for _ in range(3):  # with a hint, too
        report = exercise.check("the second time")
    lines = str(report).splitlines()
    assert len(lines) <= 15 and len(report.rows) == steps * tests
    assert str(report).count("not tried  ") == (report.status == "failed")
    shown = [line for line in lines if line.startswith("  ")]
    counted = [int(words[0]) if words else 1 for words in (
        re.findall(r"(\d+) tests", line) for line in shown)]
    assert sum(counted) == len(report.rows)


def test_a_report_says_the_diagnosis_first_each_thing_once_and_where_to_read():
    exercise = Exercise(3, "a <trial>", Diagnosis("m", "m", "m", "9.2"))
    exercise.test(1, "interface", "one")(lambda trial: None)
    exercise.test(2, "shapes", "two")(todo)
    exercise.test(2, "values", "three")(todo)
    exercise.test(2, "values", "four")(lambda trial: trial.expect("x", [1]))
    exercise.test(3, "values", "five")(lambda trial: None)
    exercise.test(3, "values", "six")(lambda trial: None)
    report = exercise.check("this")
    places = [line_of(report, start)[0] for start in (
        "Exercise 3:", "A test failed", "This looks like:", "Seen:", "Why it matters:", "Read:",
        "passed", "failed", "not tried")]
    assert places == sorted(places) and report.failed.name == "four"
    assert str(report).count("write it") == 1
    assert "2 tests after it" in line_of(report, "not tried")[1]
    assert "index.md#exercise-3" in line_of(report, "Read:")[1]
    html = report._repr_html_()
    assert "a &lt;trial&gt;" in html and html.count("write it") == 1 and html.count("✓") == 1
    assert html.index("x gave list") < html.index("<table")
    assert '<a href="../exercises/index.md#exercise-3">' in html
    assert "step 3 of 3" in str(exercise.check("this", step=3))
    assert exercise.check("this", step=1).verdict == "All 1 tests passed."
    with pytest.raises(ValueError, match="kind .*'style'"):
        exercise.test(1, "style", "five")


@pytest.mark.parametrize(("kind", "heading"), [
    ("start", "Why A is random and B is zero"), ("gradients", "The gradients, one by one")])
def test_a_report_sends_to_the_heading_of_the_kind_of_test_that_failed(kind, heading):
    exercise = Exercise(2, "a trial")

    def fails(trial):
        raise Found(Diagnosis("m", "m", "m", "9.2"))
    exercise.test(1, kind, "one")(fails)
    report = exercise.check(None)
    assert heading in line_of(report, "Read:")[1]
    assert f'<a href="../02-lora.ipynb#{anchor(heading)}">' in report._repr_html_()


def test_tests_of_arguments_come_last_in_a_step_wherever_they_stand():
    exercise = Exercise(2, "a trial")
    exercise.test(2, "arguments", "odd ones")(lambda trial: None)
    exercise.test(1, "values", "a value")(lambda trial: None)
    exercise.test(2, "values", "two values")(lambda trial: None)
    assert [test.name for test in exercise.tests] == ["a value", "two values", "odd ones"]


@pytest.mark.parametrize("home", checks.HOMES.values())
def test_odd_arguments_are_refused_in_the_last_step_only(home):
    exercise = importlib.import_module(home).EXERCISE
    assert {test.step for test in exercise.tests if test.kind == "arguments"} == {exercise.steps}


# ------------------------------------------------------------------------ the ladder of hints


def failing(exercise, name, *steps):
    """The exercise with one more test in each step: it fails if the student's work is its name."""
    for step in steps:
        exercise.test(step, "values", f"{name} {step}")(
            lambda trial: trial.expect("x", [1]) if trial.student == name else None)
    return exercise


def test_after_two_failures_in_one_place_the_first_hint_is_offered_then_the_next():
    exercise = failing(failing(Exercise(2, "a trial"), "a", 1), "b", 1, 2)
    hints = [exercise.check("a").hint for _ in range(6)]
    assert hints[0] == "" and [re.findall(r"Hint (\d)", hint) for hint in hints[1:]] == [
        ["1"], ["2"], ["3"], ["3"], ["3"]]  # step 1 of exercise 2 has three
    assert "Step 1" in hints[1]
    assert exercise.check("b").hint == ""  # another place
    again = exercise.check("b")
    assert "Hint 1" in str(again) and "Hint 1" in again._repr_html_()
    assert exercise.check("right").hint == ""
    assert exercise.check("b").hint == ""  # a pass lies between


def test_the_ladder_changes_no_verdict_and_is_each_exercises_own():
    one, two = (failing(Exercise(2, "a trial"), "a", 1) for _ in range(2))
    first, second = one.check("a"), one.check("a")
    assert second.hint and not two.check("a").hint
    assert (first.status, first.rows, first.diagnosis) == (second.status, second.rows,
                                                           second.diagnosis)
    assert one.check("right").passed
    other = failing(Exercise(99, "without hints"), "a", 1)
    assert {other.check("a").hint for _ in range(3)} == {""}


@pytest.mark.parametrize("room", ROOMS)
def test_the_ladder_knows_the_hints_of_the_notebook(room):
    text = (ROOT / "book" / "exercises" / f"{room.replace('_', '-')}.ipynb").read_text("utf-8")
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
    steps = [cell.count(":::{admonition} Hint") for cell in cells if cell.startswith("## Step ")]
    assert HINTS[int(room[2])] == tuple(steps)


def test_what_fails_after_a_missing_step_waits_for_it():
    exercise = Exercise(2, "a trial")
    exercise.test(1, "interface", "one")(lambda trial: None)
    exercise.test(1, "values", "two")(lambda trial: trial.expect("x", None))
    exercise.test(2, "shapes", "three")(lambda trial: trial.expect("y", None))
    exercise.test(2, "values", "four")(lambda trial: trial.expect("x", [1]))
    exercise.test(3, "values", "five")(lambda trial: None)
    exercise.test(3, "behaviour", "six")(lambda trial: None)
    exercise.test(3, "behaviour", "seven")(lambda trial: None)
    report = exercise.check(None)
    assert [row.status for row in report.rows] == [
        "passed", *["not yet"] * 3, *["passed"] * 3]
    assert report.rows[3].note == "Waits for step 1." and report.diagnosis is None
    assert report.verdict.startswith("Not yet: 4 of 7 ")
    assert report.status == "not yet"
    html = report._repr_html_()
    assert f"{report.verdict}</strong></p>" in html
    assert all(f'left">{word}</th>' in html for word in ("result", "kind", "test"))


def test_a_gradient_not_written_yet_is_not_yet():
    layer = peft.LoRALayer(2, 2, rank=1)
    layer.A_grad = np.zeros((1, 2))
    report = verdict(lambda t: t.arrays(layer, ("A", "B"), "gradients"))
    assert report.status == "not yet"
    assert report.rows[0].note == "After backward B_grad is still None."

    def broken():
        raise RuntimeError("of another kind")
    thing = Holder(A_grad=None, parameters=broken, gradients=broken)
    mistake, seen = found(lambda t: t.arrays(thing, ("A",)))
    assert mistake == "raised" and "of another kind" in seen
    thing.A_grad = np.ones(2)
    assert found(lambda t: t.arrays(thing, ("A",), "gradients"))[0] == "raised"


def test_a_layer_inside_that_backward_did_not_reach_is_not_yet():
    block = Holder(A_grad=np.ones(1), gradients=peft.LoRALayer(2, 2, rank=1).gradients)
    report = verdict(lambda t: t.arrays(block, ("A",), "gradients"))
    assert report.status == "not yet"
    assert "LoRALayer" in report.rows[0].note and "backward" in report.rows[0].note
    block.parameters = block.gradients
    assert found(lambda t: t.arrays(block, ("A",)))[0] == "raised"


def test_digits_lost_on_the_way_are_noticed():
    x = checking.Trial(None, np.float64).normal(20)
    for dtype, narrow in ((np.float32, np.float16), (np.float64, np.float32)):
        trial, y = checking.Trial(None, dtype), x.astype(dtype)
        trial.keeps_digits("it", y * (1 + 5e-10), y)
        with pytest.raises(Found, match="wrong-dtype") as error:
            trial.keeps_digits("it", y.astype(narrow), y)
        assert re.findall(r"float\d+", error.value.diagnosis.seen) == [
            str(y.dtype), str(np.dtype(narrow))]
    checking.Trial(None, np.float32).keeps_digits("it", 2 * x.astype(np.float32), x)
    for wrong, error, name in ((x.astype(np.float32).astype(np.float64), "2e-08", "wrong-dtype"),
                               (x * (1 + 2e-9), "2e-09", "nearly"),
                               (x + 1e-7, f"{1e-7 / np.abs(x).max():.1g}", "nearly"),
                               (1.003 * x, "0.003", "nearly")):
        with pytest.raises(Found, match=name) as caught:
            trial.keeps_digits("it", wrong, x)
        assert f"off by {error}," in caught.value.diagnosis.seen


class Line:
    """y = a x, with small methods to get wrong."""

    def __init__(self):
        self.a, self.x = np.ones(1), None

    def parameters(self):
        return {"a": self.a}

    def gradients(self):
        return {"a": self.a_grad}

    def forward(self, x):
        self.x = x
        return self.a * x

    def backward(self, g):
        self.a_grad = np.array([(g * self.x).sum()])
        return self.a * g


class Steps(Line):
    def backward(self, g):
        back = super().backward(g)
        self.a += 1e-3
        return back


class AnotherArray(Line):
    def forward(self, x):
        self.a = self.a.copy()
        return super().forward(x)


class FirstInput(Line):
    def forward(self, x):
        kept, y = self.x, super().forward(x)
        self.x = x if kept is None else kept
        return y


class WrongAtOnce(Line):
    def forward(self, x):
        return 2 * super().forward(x)


class OneShapeOnly(Line):
    """Another shape than the last time: the old one's first number goes for all."""

    def backward(self, g):
        back = super().backward(g)
        last, self.last = getattr(self, "last", g.shape), g.shape
        return back if last == g.shape else back[:1]


class OneBuffer(Line):
    buffer = np.empty(4)

    def backward(self, g):
        self.buffer[:g.size] = super().backward(g)
        return self.buffer[:g.size]


class FirstNumbers(Line):
    """The array as it was at the first call, copied once."""

    def backward(self, g):
        self.kept = getattr(self, "kept", self.a.copy())
        return super().backward(g) * 0 + self.kept * g


def line_of_numbers(layer):
    return lambda x, G: {"output": layer.a * x, "x": layer.a * G, "a": np.array([(G * x).sum()])}


@pytest.mark.parametrize(("student", "mistake", "seen"), [
    (AnotherArray, "dead-parameters", ["place of a"]),
    (FirstInput, "kept", ["call 2", "the gradient of a is what the input of the call before gives",
                          "first call only"]),
    (FirstNumbers, "kept", ["call 2", "gradient of x is what a of the call before give",
                            "first call only"]),
    (WrongAtOnce, "values", ["the output is off by 1,"]),
    (OneShapeOnly, "kept", ["call 3", "the gradient of x is wrong", "first 2 calls only"]),
    (OneBuffer, "kept", ["Call 2 has changed", "call 1"])])
def test_what_is_kept_between_calls_is_noticed_and_what_it_is(student, mistake, seen):
    def run(trial, work):
        layer = work()
        trial.follows(layer, ("a",), ((3,), (3,), (4,)), line_of_numbers(layer))
    assert verdict(lambda t: run(t, Line)).passed
    says(lambda t: run(t, student), mistake, *seen)
    measured = verdict(lambda t: run(t, student)).measured
    assert measured == {} or {"right"} < {text.partition(",")[0] for text in measured.values()}


class OneForAll(Line):
    x = None

    def forward(self, x):
        type(self).kept = x
        return self.a * x

    def backward(self, g):
        self.x = self.kept
        return super().backward(g)


class ArrayForAll(Line):
    def forward(self, x):
        type(self).last = self.a
        return super().forward(x)

    def backward(self, g):
        return super().backward(g) * 0 + self.last * g


@pytest.mark.parametrize(("student", "seen"), [
    (OneForAll, "gradient of a is what the input of the other one gives"),
    (ArrayForAll, "gradient of x is what the arrays of the other one give")])
def test_what_is_right_for_one_object_only_is_told_as_that(student, seen):
    def run(trial, work):
        def build():
            layer = work()
            return layer, layer.forward, line_of_numbers(layer)
        trial.keeps_apart(build, ("a",), (3,))
    assert verdict(lambda t: run(t, Line)).passed
    says(lambda t: run(t, student), "shared", seen, "in the first the", "second object only")


def test_a_step_that_backward_takes_is_noticed():
    def run(trial, work):
        layer, x = work(), np.ones(3)
        trial.call(layer.forward, x)
        trial.call(layer.backward, x)
    assert verdict(lambda t: run(t, Line)).passed
    says(lambda t: run(t, Steps), "writes-parameters", "Steps.backward changed a.")


@pytest.mark.parametrize(("start", "mistake", "seen"), [
    (lambda rng: {"a": np.random.default_rng().random((3, 4))}, "ignores-rng", "Two made from"),
    (lambda rng: {"a": np.random.default_rng(1).random((3, 4))}, "ignores-rng", "Two made from di"),
    (lambda rng: {"a": np.random.default_rng(rng or 1).random((3, 4))}, "ignores-rng",
     "Two made without rng have the same a."),
    (lambda rng: {"a": np.random.default_rng(rng).random((3, 1)) + np.zeros((3, 4))},
     "starts-alike", "a has not the rank 3."),
    (lambda rng: {"a": np.zeros((3, 4)), "b": np.zeros((3, 4))}, "starts-alike", "b has not"),
    (lambda rng: dict.fromkeys("ac", np.random.default_rng(rng).random((3, 4))), "starts-alike",
     "a and c are the same.")])
def test_a_start_comes_from_rng_and_is_of_full_rank(start, mistake, seen):
    assert verdict(lambda t: t.starts_from_rng(lambda rng: {
        "a": np.random.default_rng(rng).random((3, 4)), "b": np.zeros((4, 3))})).passed
    says(lambda t: t.starts_from_rng(start, ("b",)), mistake, seen)


def test_of_a_start_that_is_random_in_some_array_only_one_is_asked_for():
    def some(rng):
        return {"a": np.eye(3), "b": np.random.default_rng(rng).random(3)}
    assert verdict(lambda t: t.starts_from_rng(some, free=("a", "b"))).passed
    says(lambda t: t.starts_from_rng(lambda rng: {"a": np.eye(3)}, free=("a",)), "ignores-rng",
         "Two made from different seeds are the same.")


def test_results_that_are_no_numbers_and_arguments_by_name_are_watched():
    says(lambda t: t.call(lambda: np.array([1.0, np.nan, np.inf])), "not-finite",
         "<lambda> holds 2 times", "among 3")

    def writes(x=None):
        x[0] = 7

    assert found(lambda t: t.call(writes, x=np.zeros((1, 2))))[0] == "changes-input"
    given = np.array([np.nan, 1.0])  # a NaN that stays is no change
    assert verdict(lambda t: t.call(lambda x: x[1:], given)).passed
    assert verdict(lambda t: t.call(lambda x: "text", given, returns=None)).passed


def test_a_debuggers_tracer_is_left_in_place():
    vendored = {}  # as an editor brings it: not where packages are
    exec(compile("def trace(frame, event, arg): return None", "/ide/pydevd/trace.py", "exec"),
         vendored)
    before, debugger = sys.gettrace(), bdb.Bdb()
    debugger.reset()
    for tracer in (debugger.trace_dispatch, vendored["trace"]):
        try:
            sys.settrace(tracer)
            with time_limit(1e9):
                inside = sys.gettrace()
            after = sys.gettrace()
        finally:
            sys.settrace(before)
        assert inside == after == tracer


class Mute(Exception):
    def __str__(self):
        while True:
            pass


def mute(x):
    raise Mute


@pytest.mark.parametrize("endless", [endless_loop, endless_untraced, mute])
def test_a_tracer_that_a_cell_left_behind_switches_no_limit_off_endlessly(monkeypatch, endless):
    """In a process apart, which ends where there is no limit."""
    def tracer(frame, event, arg):
        return None

    def work():
        sys.settrace(tracer)
        report = verdict(lambda trial: trial.call(trial.student, trial.normal(2)), endless)
        left = sys.gettrace()
        sys.settrace(None)
        return report.diagnosis.mistake, str(left is tracer), None

    monkeypatch.setattr(checking, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(run_module, "SECONDS_TO_SAY", 0.2)
    assert apart(work, 20) == ("raised" if endless is mute else "too-long", "True", None)


# ------------------------------------------------------------------------ what a reader sees of it


def test_every_check_is_offered():
    assert {name: check.__module__ for name, check in (
        (name, getattr(checks, name)) for name in checks.__all__ if name.startswith("check_"))
    } == checks.HOMES
    rooms = Path(peft.__file__).parent.glob("exercises/ex*/checks.py")
    assert sorted(checks.HOMES.values()) == sorted(
        f"exercises.{path.parent.name}.checks" for path in rooms)
    assert {checks.progress.__name__, checks.remember.__name__, checks.clear_progress.__name__,
            "EXERCISES", *checks.HOMES} == set(checks.__all__)


def test_sections_are_named_by_their_number():
    for key, (title, path) in PAGES.items():
        if path[0].isdigit():
            assert key == f"9.{int(path[:2])}" and title == f"section {key}"
    assert {"9.2", "9.3", "9.4", "9.6", "mistakes", "statement"} == set(PAGES)
    assert "after 10 seconds" in GENERAL["too-long"].why


def test_a_finding_keeps_what_its_diagnosis_saw_and_goes_by_its_identifier():
    seen = Diagnosis("m", "m", "m", "9.2", "a mask")
    assert Found(seen).diagnosis.seen == "a mask" and Found(seen, "two").diagnosis.seen == "two"
    assert str(Found(seen)) == "m"


def test_in_a_notebook_a_report_has_one_colour_for_each_state_and_the_words_all_the_same():
    exercise = Exercise(2, "a trial", Diagnosis("m", "m", "m", "9.2"))
    exercise.test(1, "interface", "one")(lambda trial: None)
    exercise.test(1, "values", "two")(lambda trial: trial.call(lambda: None))
    exercise.test(1, "values", "three")(lambda trial: trial.compare("x", np.ones(1), np.zeros(1)))
    exercise.test(2, "values", "four")(lambda trial: None)
    html = exercise.check(None)._repr_html_()
    told, table = html.split("<table")
    assert "A test failed" in told and "Not recognised" in told and "x is off by" in told
    assert COLOURS["failed"] in told and len(set(COLOURS.values())) == len(COLOURS) == 4
    for row, (status, sign) in zip(table.split("<tbody>")[1].split("</tr>"), SIGNS.items()):
        shown = next(s for s in SIGNS if f"{SIGNS[s]}&nbsp;{s}<" in row)
        assert [c for c in COLOURS.values() if c in row] == [COLOURS[shown]]
        assert f"{sign}&nbsp;{status}<" in table
    assert "&lt;lambda&gt; gave None" in table
    unseen = checking.Report(1, "t", (checking.Row(1, "values", "one", "failed"),),
                             Diagnosis("m", "m", "m", "9.2"))
    assert "Seen" not in unseen._repr_html_() and "Why it matters" in unseen._repr_html_()


def test_a_report_carries_what_each_array_is_for_a_grading_tool():
    x, G = (checking.Trial(None, np.float64).normal(4, 3, seed=i) for i in range(2))
    terms = Terms({"x": ("ni", x), "G": ("no", G), "s": ("", 3.0)},
                  {"A": ("oi", [((), "s G x")]), "B": ("no", [((), "s G")]),
                   "C": ("ni", [((), "s x")])}, lead=(4,))

    def run(trial):
        noise = np.random.default_rng(9).standard_normal((4, 3))
        trial.measure({"A": 2 * terms.right["A"], "B": terms.right["B"], "C": noise}, terms)

    report = verdict(run)
    assert list(report.measured) == ["A", "B", "C"] and report.measured["B"] == "right"
    assert "multiplied by 2" in report.measured["A"] and "off by" in report.measured["C"]
    assert verdict(lambda trial: None).measured == {}


def test_the_students_line_is_found_below_library_code():
    frozen = {}
    exec(compile("def check(x):\n    raise TypeError('no')", "<__array_function__ internals>",
                 "exec"), frozen)
    for call in (lambda x: np.stack([]),  # in NumPy
                 lambda x: json.loads("{"),  # in the standard library
                 lambda x: frozen["check"](x)):  # in code without a file
        report = verdict(lambda trial, c=call: trial.call(c, trial.normal(2)))
        assert report.diagnosis.mistake == "raised"
        assert "lambda x: " in report.diagnosis.seen, report.diagnosis.seen


def test_what_has_no_name_goes_by_its_type():
    def in_place(x, by):
        x += by
    says(lambda t: t.call(functools.partial(in_place, by=1), t.normal(2)), "changes-input",
         "partial", "(2,)")


def test_arguments_of_any_kind_are_watched():
    for given in (np.array(["a", "b"]), np.arange(2), np.array([True, False])):
        assert verdict(lambda t, g=given: t.call(lambda x: None, g, returns=None)).passed
    assert found(lambda t: t.call(lambda x: x.fill(0), np.arange(2), returns=None))[0] == (
        "changes-input")


def test_an_error_is_relative_to_the_largest_entry_however_small():
    trial = checking.Trial(None, np.float64)
    assert not trial.agrees(np.array([1.1e-6]), np.array([1e-6]))
    assert trial.agrees(np.array([1e-20]), np.array([0.0]))
    assert trial.agrees(np.array([1.0, 1e-5]), np.array([1.0, 0.0]))  # at most the tolerance


def test_a_warning_in_a_students_code_is_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verdict(lambda t: t.call(lambda x: x / 0, np.zeros(1), returns=None)).passed


def test_missing_work_stays_missing_when_it_drew_a_number():
    def todo():
        np.random.rand()
        raise NotImplementedError("step 1")
    report = verdict(lambda trial: trial.student(), todo)
    assert (report.status, report.rows[0].note) == ("not yet", "step 1")


def test_a_test_can_still_be_called_by_its_name_and_may_stand_anywhere():
    exercise = Exercise(2, "a trial")

    def run(trial):
        raise NotImplementedError
    assert exercise.test(2, "interface", "two")(run) is run
    exercise.test(1, "interface", "one")(lambda trial: None)
    assert [row.name for row in exercise.check(None, 1).rows] == ["one"]
    assert exercise.check(None, 1).passed and exercise.check(None, 1).step == 1


def test_a_check_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(AttributeError, match="no 'check_lora'; .*check_lora_dropout.*check_qlora"):
        checks.check_lora
