"""Records of runs survive a cut, a second runner and a fresh start."""

import json
import os
import subprocess
import sys

import pytest
from experiments import records, small_llama
from experiments.records import append, only_runner, read_lines, set_aside, write_record


def test_a_cut_last_line_is_left_out_and_its_place_taken(tmp_path, capsys):
    log = tmp_path / "runs.jsonl"
    append(log, {"seed": 0, "loss": 1.2345678})
    with log.open("a") as file:
        file.write('{"seed": 1, "lo')
    assert read_lines(log) == [{"seed": 0, "loss": 1.2346}]
    assert "runs.jsonl" in capsys.readouterr().err
    append(log, {"seed": 1})
    assert [row["seed"] for row in read_lines(log)] == [0, 1] and not capsys.readouterr().err


def test_damage_elsewhere_is_named_by_its_line(tmp_path):
    log = tmp_path / "runs.jsonl"
    log.write_text('{"seed": 0}\n{"se\n{"seed": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_lines(log)


def test_a_full_disk_leaves_the_old_record(tmp_path, monkeypatch):
    file = tmp_path / "before.json"
    write_record(file, {"losses": [1.0]})

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_record(file, {"losses": [2.0] * 1000})
    assert json.loads(file.read_text()) == {"losses": [1.0]} and [*tmp_path.iterdir()] == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_a_second_runner_is_told_and_a_dead_one_holds_nothing(tmp_path):
    log = tmp_path / "runs.jsonl"
    code = ("import pathlib, sys; from experiments.records import only_runner\n"
            "with only_runner(pathlib.Path(sys.argv[1])): print('mine', flush=True); input()")
    other = subprocess.Popen([sys.executable, "-c", code, log], stdin=subprocess.PIPE, text=True,
                             stdout=subprocess.PIPE, cwd=records.Path(records.__file__).parents[1])
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(SystemExit, match="runs.jsonl"), only_runner(log):
        pass
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with only_runner(log):
        pass


def test_a_fresh_start_keeps_the_old_record(tmp_path):
    log = tmp_path / "runs.jsonl"
    append(log, {"seed": 0})
    set_aside(log, tmp_path / "none.jsonl")
    [kept] = tmp_path.iterdir()
    assert kept != log and read_lines(kept) == [{"seed": 0}] and read_lines(log) == []


def test_a_run_recorded_twice_is_one_seed():
    row = next(row for row in small_llama.load_runs("report") if "diverged" not in row)
    assert [entry["seeds"] for entry in small_llama.summarise([row, row])] == [1]
