"""How every benchmark here measures: two processes that take turns, and a table they are kept in.

Our module and Hugging Face's package are both called `peft`, so each side has a process of its own.
A turn: the side rests until the other's threads have gone to sleep, runs the work once untimed, and
then times it again and again for a moment. Turns go round until the time is up, so that a busy
machine slows both sides; what counts is the ratio of their medians.
"""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "code" / "stage-09"
RECORDS = CODE / "data" / "benchmarks"
ORACLE = ROOT / ".venv-oracle" / "bin" / "python"
THREADS = "2"
LIMITS = {f"{library}_NUM_THREADS": THREADS for library in ("OMP", "OPENBLAS", "MKL")}
REST = 0.05  # seconds until idle threads of OpenBLAS and OpenMP stop spinning
FEWEST = 15  # timings that a median is taken of


def processor():
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def turn(work, seconds):
    """One untimed call, then the seconds of each further one, until `seconds` have passed."""
    time.sleep(REST)
    work()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def serve(works):
    """In the process of one side: build each case that is asked for, then take turns in it.

    `works(case)` -> {name: function without arguments}; a name `note` is passed on as it is.
    """
    answer, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not be an answer
    ready = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "case" in asked:
            ready = works(asked["case"])
            reply = {"names": [name for name in ready if name != "note"],
                     "note": ready.get("note"), "versions": versions()}
        else:
            reply = turn(ready[asked["run"]], asked["seconds"])
        print(json.dumps(reply), file=answer, flush=True)


def versions():
    """What this process has loaded of the libraries that compute."""
    names = {"numpy": "NumPy", "torch": "PyTorch", "transformers": "transformers",
             "bitsandbytes": "bitsandbytes", "peft": "PEFT"}
    found = {"Python": platform.python_version()}
    for module, name in names.items():
        if version := getattr(sys.modules.get(module), "__version__", None):
            found[name] = str(version)
    return found


class Side:
    """One of the two processes, working for `script`."""

    def __init__(self, script, name):
        python = sys.executable if name == "ours" else ORACLE
        environment = os.environ | LIMITS | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        environment["PYTHONPATH"] = str(CODE) if name == "ours" else ""
        self.name = name
        self.process = subprocess.Popen([python, script, name], text=True, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the process of side {self.name!r} stopped; its error stands above")
        return json.loads(answer)


def compare(script, cases, seconds=8.0, moment=0.1):
    """Median seconds: {case's label: {side: {name: seconds}}}, and the sides' versions.

    Parameters
    ----------
    cases : {label: (case, sides)}; the case is what `works` is given
    seconds : how long each case is measured, all its works together
    moment : how long one turn lasts
    """
    from tqdm import tqdm

    if not ORACLE.exists():
        sys.exit(f"{Path(script).name} needs PyTorch and Hugging Face to compare with: "
                 "run `make oracle` once")
    sides = {name: Side(script, name) for name in ("ours", "theirs")}
    found, used = {}, {}
    for label, (case, taking_part) in tqdm(cases.items(), desc=Path(script).stem):
        times, notes = {}, {}
        for name in taking_part:
            reply = sides[name].ask(case=case)
            used.setdefault(name, {}).update(reply["versions"])
            times |= {(name, work): [] for work in reply["names"]}
            notes[name] = reply["note"]
        if len(set(notes.values())) > 1:
            sys.exit(f"{label}: {notes} differ, so this is not one and the same work")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or min(map(len, times.values())) < FEWEST:
            for (name, work), series in times.items():
                series += sides[name].ask(run=work, seconds=moment)
        found[label] = {name: {work: median(series) for (side, work), series in times.items()
                               if side == name} for name in taking_part}
        if notes and (note := next(iter(notes.values()))):
            found[label]["note"] = note
    for side in sides.values():
        side.process.stdin.close()
    return found, used


def record(name, **content):
    """Keep a measurement for the book, with the machine and the day."""
    RECORDS.mkdir(exist_ok=True)
    machine = {"processor": processor(), "cores": os.cpu_count(), "threads": int(THREADS),
               "date": date.today().isoformat()}
    file = RECORDS / f"{name}.json"
    sys.path.append(str(CODE))  # here: in the process of the other side, peft is another
    from tensorfile import write_whole
    write_whole(file, json.dumps(machine | content, indent=1) + "\n")
    print(f"kept in {file.relative_to(ROOT)}")
