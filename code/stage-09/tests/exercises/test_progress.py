"""The file of passed exercises survives what a reader's machine does to it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from exercises.harness import progress

CODE = Path(progress.__file__).parents[2]


def passed(number):
    return SimpleNamespace(passed=True, step=None, exercise=number)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def test_six_processes_at_once_are_all_noted(file):
    script = ("import sys, time; from types import SimpleNamespace; "
              "from exercises.harness import progress; time.sleep(float(sys.argv[2])); "
              "progress.remember(SimpleNamespace(passed=True, step=None, exercise=sys.argv[1]))")
    running = [subprocess.Popen([sys.executable, "-c", script, str(number), "0.2"], cwd=CODE)
               for number in range(1, 7)]
    assert [process.wait(60) for process in running] == [0] * 6
    assert list(progress.progress().done) == list("123456")
    assert list(file.parent.iterdir()) == [file]


def test_a_damaged_file_is_kept_aside_and_named(file, capsys):
    file.write_text('{"1": "2026-01-0')
    progress.remember(passed(2))
    [aside] = [path for path in file.parent.iterdir() if path != file]
    assert aside.read_text() == '{"1": "2026-01-0' and aside.name in capsys.readouterr().err
    assert list(progress.progress().done) == ["2"]


@pytest.mark.parametrize("content", [
    {"1": "9999-99-99", "2": "2026-01-01"}, {"9": "2026-01-01", "2": "2026-01-01"},
    {"__proto__": "2026-01-01", "2": "2026-01-01"}, {"1": 3, "2": "2026-01-01"}])
def test_what_is_no_pass_does_not_count(file, content):
    file.write_text(json.dumps(content))
    assert progress.progress().done == {"2": "2026-01-01"}


def test_a_lock_of_a_killed_process_does_not_last(file, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    file.with_name(f".{file.name}.lock").touch()
    progress.remember(passed(1))
    assert list(progress.progress().done) == ["1"] and list(file.parent.iterdir()) == [file]


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
    assert list(file.parent.iterdir()) == [file]
