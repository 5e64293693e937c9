"""Records of runs survive a cut, a second runner and a fresh start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiments import records, small_llama
from experiments.records import (
    append,
    read_lines,
    run_claimed,
    runner,
    write_record,
)
from tensorfile import set_aside

CODE = Path(records.__file__).parents[1]


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


LOCKS = pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
#: A runner of twenty short jobs, which notes each start; argument 2 is what a job takes.
RUNNER = """
import sys, time, pathlib
from experiments.records import run_claimed, runner
log, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def run(job):
    with log.with_name("starts").open("a") as file:
        file.write(f"{job['seed']}\\n")
    time.sleep(seconds)
    return job
with runner(log):
    for seed in range(20):
        run_claimed({"seed": seed}, log, lambda row: row["seed"], run)
"""


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=CODE)


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@LOCKS
def test_two_runners_share_the_jobs(tmp_path):
    log = tmp_path / "runs.jsonl"
    both = [start(RUNNER, log, 0.05) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(row["seed"] for row in read_lines(log)) == list(range(20))
    assert len((tmp_path / "starts").read_text().split()) == 20, "a job was run twice"


@LOCKS
def test_a_killed_runner_holds_nothing(tmp_path):
    log = tmp_path / "runs.jsonl"
    dead = start(RUNNER, log, 300)
    until((tmp_path / "starts").exists)
    said = []
    assert run_claimed({"seed": 0}, log, lambda row: row["seed"], said.append) is None, "it is his"
    dead.kill()
    dead.wait()
    assert run_claimed({"seed": 0}, log, lambda row: row["seed"], lambda job: job) == {"seed": 0}
    assert run_claimed({"seed": 0}, log, lambda row: row["seed"], said.append) is None
    assert [row["seed"] for row in read_lines(log)] == [0] and said == []


@LOCKS
def test_a_fresh_start_is_refused_while_another_runs(tmp_path):
    log = tmp_path / "runs.jsonl"
    append(log, {"seed": 99})
    other = start(RUNNER, log, 300)
    until((tmp_path / "starts").exists)
    with pytest.raises(SystemExit, match="runs.jsonl"), runner(log, fresh=True):
        pass
    assert read_lines(log) == [{"seed": 99}]
    other.kill()
    other.wait()
    with runner(log, fresh=True):
        assert read_lines(log) == []


@LOCKS
def test_a_failed_job_is_let_go_and_not_recorded(tmp_path):
    log = tmp_path / "runs.jsonl"
    with pytest.raises(ZeroDivisionError):
        run_claimed({"seed": 0}, log, lambda row: row["seed"], lambda job: 1 / 0)
    assert run_claimed({"seed": 0}, log, lambda row: row["seed"], dict) == {"seed": 0}


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_runner(tmp_path, sign):
    code = ("import os, pathlib, sys, time\nfrom multiprocessing import get_context\n"
            "from experiments.records import end_with_parent\n"
            "from tests.experiments import test_run_records as here\n"
            "with get_context('spawn').Pool(2, end_with_parent) as pool:\n"
            "    pool.map(here.note_and_wait, [pathlib.Path(sys.argv[1])] * 2, chunksize=1)")
    dead = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=CODE,
                            stderr=subprocess.DEVNULL)
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [path.name for path in tmp_path.iterdir()]
    dead.send_signal(sign)
    dead.wait(60)
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids), 10)


def note_and_wait(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(300)


def test_the_small_runner_records_spectra_once_and_leaves_others_jobs(tmp_path, monkeypatch):
    job = next(row for row in small_llama.load_runs("report") if small_llama.wants_spectra(row))
    job = {key: job[key] for key in ("kind", "target", "method", "size", "lr", "seed", "steps",
                                     "train_names")}
    monkeypatch.setattr(small_llama, "run", lambda job: job | {"spectra": {"best": [1.0]}})
    append(tmp_path / "spectra.jsonl", {"target": job["target"], "seed": job["seed"], "best": [1]})
    assert small_llama._run_and_record(dict(job), tmp_path) == job  # killed before its row
    assert small_llama._run_and_record(dict(job), tmp_path) is None
    assert len(small_llama.load_spectra(tmp_path)) == len(read_lines(tmp_path / "runs.jsonl")) == 1


def test_a_fresh_start_keeps_the_old_record(tmp_path):
    log = tmp_path / "runs.jsonl"
    append(log, {"seed": 0})
    set_aside(log, tmp_path / "none.jsonl")
    [kept] = tmp_path.glob("*.jsonl")
    assert kept != log and read_lines(kept) == [{"seed": 0}] and read_lines(log) == []
    append(log, {"seed": 1})
    set_aside(log)  # in the same second
    assert len([*tmp_path.glob("*.jsonl")]) == 2


def test_a_run_recorded_twice_is_one_seed():
    row = next(row for row in small_llama.load_runs("report") if "diverged" not in row)
    assert [entry["seeds"] for entry in small_llama.summarise([row, row])] == [1]
