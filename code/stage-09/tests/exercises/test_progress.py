"""The file of passed exercises survives what a reader's machine does to it."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from exercises.harness import progress

CODE = Path(progress.__file__).parents[2]
LOCK = ".progress.json.lock"


def passed(number):
    return SimpleNamespace(passed=True, step=None, exercise=number)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def names(file):
    return {path.name for path in file.parent.iterdir()}


def test_six_processes_at_once_are_all_noted(file):
    script = ("import sys, time; from types import SimpleNamespace; "
              "from exercises.harness import progress; time.sleep(float(sys.argv[2])); "
              "progress.remember(SimpleNamespace(passed=True, step=None, exercise=sys.argv[1]))")
    running = [subprocess.Popen([sys.executable, "-c", script, str(number), "0.2"], cwd=CODE)
               for number in range(1, 7)]
    assert [process.wait(60) for process in running] == [0] * 6
    assert list(progress.progress().done) == list("123456")
    assert names(file) == {file.name, LOCK}


@pytest.mark.parametrize("damaged", ['{"1": "2026-01-0', "[" * 100_000, '{"theme": "dark"}'],
                         ids=["cut", "endless", "another program's"])
def test_a_damaged_file_is_kept_aside_and_named(file, capsys, damaged):
    file.write_text(damaged)
    assert progress.progress().done == {}
    progress.remember(passed(2))
    [aside] = [path for path in file.parent.iterdir() if path.name not in (file.name, LOCK)]
    assert aside.read_text() == damaged and aside.name in capsys.readouterr().err
    assert list(progress.progress().done) == ["2"]
    file.write_text(damaged)
    progress.clear_progress()
    assert file.read_text() == damaged and file.name in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no devices among the files")
def test_a_device_stays_where_it_is_and_the_reader_learns_how_to_note_nothing(file, capsys):
    file.symlink_to(os.devnull)  # as root, the device itself would be moved
    for work in (lambda: progress.remember(passed(2)), progress.progress, progress.clear_progress):
        work()
        assert "ordinary file" in capsys.readouterr().err
        assert file.is_symlink() and names(file) == {file.name}
    progress.remember(passed(2))
    assert "PEFT_BOOK_PROGRESS" in capsys.readouterr().err


def test_what_a_later_edition_noted_stays(file):
    later = {"1": "2026-01-01", "9": "2026-01-02", "12": "2026-01-03", "form": {"is": 2}}
    file.write_text(json.dumps(later))
    progress.remember(passed(2))
    kept = json.loads(file.read_text())
    assert kept == later | {"2": kept["2"]} and list(progress.progress().done) == ["1", "2"]
    progress.clear_progress()
    assert not file.exists()


@pytest.mark.parametrize("content", [
    {"1": "9999-99-99", "2": "2026-01-01"}, {"99": "2026-01-01", "2": "2026-01-01"},
    {"__proto__": "2026-01-01", "2": "2026-01-01"}, {"1": 3, "2": "2026-01-01"}])
def test_what_is_no_pass_does_not_count(file, content):
    file.write_text(json.dumps(content))
    assert progress.progress().done == {"2": "2026-01-01"}


def test_a_lock_of_a_killed_process_does_not_last(file):
    """Also one that an older edition of this book has left."""
    file.with_name(LOCK).touch()
    start = time.monotonic()
    progress.remember(passed(1))
    assert list(progress.progress().done) == ["1"] and time.monotonic() - start < progress.PATIENCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to write at once")
def test_of_many_that_wait_for_a_slow_one_each_is_alone(file, monkeypatch):
    """Each adds a mark to a text that it has read before: one that is lost was not alone."""
    monkeypatch.setattr(progress, "PATIENCE", 0.2)  # less than the first one takes
    file.with_name(LOCK).touch()  # a killed one's
    marks = file.with_name("marks")
    marks.touch()

    def mark(first):
        while True:
            try:
                with progress._alone(file):
                    before = marks.read_text()
                    time.sleep(0.5 if first else 0.01)
                    marks.write_text(before + "x")
                return
            except TimeoutError:
                pass

    pids = []
    for number in range(16):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                mark(number == 0)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == 16 * [0]
    assert marks.read_text() == 16 * "x"


@pytest.mark.skipif(sys.platform == "win32", reason="locks of another kind")
def test_one_that_is_stuck_is_said_and_no_lock_at_all_is_no_obstacle(file, monkeypatch, capsys):
    import fcntl
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with file.with_name(LOCK).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        progress.remember(passed(1))
        assert "another process" in capsys.readouterr().err and not file.exists()

        def none_here(*_):
            raise OSError(errno.ENOLCK, "No locks available")
        monkeypatch.setattr(fcntl, "flock", none_here)
        progress.remember(passed(1))
        progress.fcntl, before = None, progress.fcntl
        try:
            progress.remember(passed(2))
        finally:
            progress.fcntl = before
        monkeypatch.delattr(fcntl, "flock")  # as in the browser's Python
        progress.remember(passed(3))
    assert list(progress.progress().done) == ["1", "2", "3"]


@pytest.mark.skipif(sys.platform == "win32" or os.environ.get("USER") == "nobody", reason="no home")
def test_without_a_home_the_report_still_comes(monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.delenv("PEFT_BOOK_PROGRESS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    report = passed(1)
    assert progress.remember(report) is report and "home" in capsys.readouterr().err


def test_a_full_disk_keeps_earlier_passes(file, monkeypatch, capsys):
    progress.remember(passed(1))

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    progress.remember(passed(2))
    assert list(progress.progress().done) == ["1"] and "No space" in capsys.readouterr().err
    assert names(file) == {file.name, LOCK}
