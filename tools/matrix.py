"""Test the course under several Pythons and sets of packages, and record what was found.

    python tools/matrix.py                                       all of it, each row written at once
    python tools/matrix.py --pythons python3.12 --sets newest    this row, the others stay

    pinned    what requirements.txt and constraints.txt say
    lowest    of each package in requirements.txt the oldest version, from "at least" on, that is
              built for this Python; what these need is as new as they allow
    newest    the newest versions of today
    browser   Pyodide, in Node.js: the probe only, since `make site` tests its pages

Each environment is made by uv in .cache/matrix, where the logs are, too. It gets the pinned tools
of testing, runs tools/probe.py and the unit tests. The notebooks run once in each set,
under the first Python, or with `--notebooks all` under each. A cell that raises is a failure. An
output that differs is one with the pinned packages, which wrote it; with others it is recorded as
a difference. Rows go into code/stage-09/data/verified.json.

Python 3.14 has a row there for the pinned packages alone (NOT_YET_RUN names the others).
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "code" / "stage-09"
CACHE = ROOT / ".cache" / "matrix"
sys.path[:0] = [str(CODE), str(ROOT / "tools")]
import constraints  # noqa: E402
import node_js  # noqa: E402
from lite import build as lite  # noqa: E402
from whole import write_whole  # noqa: E402

from book_pages import verified  # noqa: E402

PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
NOT_YET_RUN = {("3.14", "lowest"), ("3.14", "newest")}  # a first row takes it out of here
SETS = ("pinned", "lowest", "newest", "browser")
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "nbval")
LINE = re.compile(r"^([\w.-]+)==([\w.]+)(?:\s+# at least ([\w.]+))?", re.MULTILINE)


def pins(name="requirements.txt"):
    """Pinned version by package, as a requirements file names it."""
    return {package: pin for package, pin, _ in LINE.findall((ROOT / name).read_text("utf-8"))}


def lows():
    """Lowest version of each direct requirement; "" where its line gives none."""
    text = (ROOT / "requirements.txt").read_text("utf-8")
    return {package: low for package, _, low in LINE.findall(text)}


def installation(kind):
    """What uv is to install for a set of packages, and the constraints on it."""
    wanted = {"pinned": [f"{package}=={version}" for package, version in pins().items()],
              "lowest": [f"{package}>={version}" for package, version in lows().items()],
              "newest": list(pins())}[kind]
    limits = [f"{package}=={version}" for package, version in pins("constraints.txt").items()
              if kind == "pinned"]
    tools = pins("requirements-dev.txt")
    return wanted + [f"{package}=={tools[package]}" for package in TOOLS], limits


def environment():
    """The variables for what is run: without those that would reach into its packages."""
    hidden = {"CI", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}  # with CI a skipped test fails
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return kept | {"OMP_NUM_THREADS": "1"}  # two tests run side by side; sums in one order


def run(command, log):
    """Run a command with its output in the log; its code."""
    with log.open("a") as file:
        file.write(f"\n$ {' '.join(map(str, command))}\n")
        file.flush()
        return subprocess.run(command, cwd=ROOT, env=environment(), stdout=file, check=False,
                              stderr=subprocess.STDOUT).returncode


def answer(*command):
    """What a command prints, as JSON. RuntimeError with its last lines if it fails."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[1]).name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def prepare(python, kind, log):
    """The Python of the environment for this set, made anew unless it is there as wanted."""
    folder = CACHE / f"{Path(python).name}-{kind}"
    stamp, limits_file = folder / "installed.txt", CACHE / f"{folder.name}-constraints.txt"
    wanted, limits = installation(kind)
    text = "\n".join([*wanted, "", *limits, ""])
    interpreter = folder / "bin" / "python"
    if kind != "newest" and stamp.exists() and stamp.read_text() == text:
        return interpreter
    write_whole(limits_file, "\n".join(limits) + "\n")
    uv = constraints.install_uv(CACHE / "uv")
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    resolution = "lowest-direct" if kind == "lowest" else "highest"
    if run([uv, "pip", "install", "--python", interpreter, "--only-binary", ":all:",
            "--resolution", resolution, "--constraint", limits_file, *wanted], log):
        raise RuntimeError(f"uv found or installed no such set, see {log.relative_to(ROOT)}")
    write_whole(stamp, text)
    return interpreter


def versions(interpreter):
    """Version of Python and of each direct requirement in an environment."""
    script = ("import importlib.metadata as m, json, platform, sys; print(json.dumps("
              "[platform.python_version(), {n: m.version(n) for n in sys.argv[1:]}]))")
    return answer(interpreter, "-c", script, *pins())


def cases(interpreter, log, *arguments):
    """Each test that pytest ran: its name, and what went wrong or "" or "skipped"."""
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    code = run([interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2",
                f"--junitxml={report}", *arguments], log)
    if code not in (0, 1) or not report.exists():
        raise RuntimeError(f"pytest ended with code {code}, see {log.relative_to(ROOT)}")
    for case in ElementTree.parse(report).iter("testcase"):
        faults = [part.get("message", "") + (part.text or "")
                  for part in case if part.tag in ("failure", "error")]
        skipped = "skipped" if case.find("skipped") is not None else ""
        yield case.get("classname"), case.get("name"), "\n".join(faults) or skipped


def unit_tests(interpreter, log):
    """How many unit tests passed and were skipped, and which failed."""
    found = list(cases(interpreter, log, "code/stage-09/tests", "--dist", "loadgroup"))
    failed = [f"{place}::{name}" for place, name, fault in found if fault not in ("", "skipped")]
    skipped = sum(fault == "skipped" for _, _, fault in found)
    return {"passed": len(found) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def run_notebooks(interpreter, log):
    """How many notebooks ran, in which ones a cell raised, and which cells print something else.

    The page that shows the record is left out: it changes with each row.
    """
    found = list(cases(interpreter, log, "--nbval", "book", "--dist", "loadfile",
                       "--ignore", "book/last-verified.ipynb"))
    noted = {"run": len({place for place, _, _ in found}), "failed": {}, "differing": {}}
    for place, cell, fault in found:
        if fault:
            kind = "differing" if "Cell outputs differ" in fault else "failed"
            noted[kind].setdefault(place.removesuffix(".ipynb").replace(".", "/"), []).append(cell)
    return noted


def in_environment(python, kind, log, notebooks):
    """One row: everything in one environment, telling what it does."""
    row = {"set": kind, "date": f"{datetime.date.today()}"}
    interpreter = step("installing", prepare, python, kind, log)
    row["python"], row["versions"] = versions(interpreter)
    row["tests"] = step("unit tests", unit_tests, interpreter, log)
    if notebooks:
        row["notebooks"] = step("notebooks", run_notebooks, interpreter, log)
    return row | {"results": answer(interpreter, ROOT / "tools" / "probe.py")}


def browser_versions():
    """Version of each direct requirement that the book ships for the browser."""
    lock = json.loads((lite.HERE / "pyodide-lock.json").read_text("utf-8"))["packages"].values()
    shipped = {package["name"]: package["version"] for package in lock}
    shipped |= pins("tools/lite/wheels.txt")
    return {package: shipped[package] for package in pins() if package in shipped}


def in_browser():
    """One row: the probe in Pyodide."""
    step("fetching", lite.fetch)
    found = step("probe", answer, node_js.path(), lite.HERE / "probe.mjs",
                 lite.CACHE, lite.HERE / "pyodide-lock.json", ROOT)
    return {"set": "browser", "date": f"{datetime.date.today()}",
            "versions": browser_versions(), **found}


def starts(python):
    """Whether this command is a Python; some that are on the PATH only say which ones there are."""
    return bool(shutil.which(python)) and not subprocess.run(
        [python, "--version"], capture_output=True, check=False).returncode


def step(label, work, *arguments, **options):
    """Do one part of a row, and print how long it took."""
    print(f"  {label} ...", end="", flush=True)
    began = time.perf_counter()
    try:
        return work(*arguments, **options)
    finally:
        print(f" {time.perf_counter() - began:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="python3.11")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--notebooks", default="first", choices=["first", "all", "none"])
    options = parser.parse_args()
    environments = [(python, kind) for kind in options.sets if kind != "browser"
                    for python in options.pythons]
    if lost := [python for python in options.pythons if environments and not starts(python)]:
        there = [python for python in options.pythons if python not in lost]
        sys.exit(f"{' and '.join(lost)}: no Python starts so. Install what is missing, or "
                 f'name those that do: make matrix PYTHONS="{" ".join(there) or "python3.12"}"')
    CACHE.mkdir(parents=True, exist_ok=True)
    jobs, broken = environments + [("", "browser")] * ("browser" in options.sets), []
    for count, (python, kind) in enumerate(jobs, 1):
        label = f"{python}, {kind}" if python else kind
        print(f"==> [{count}/{len(jobs)}] {label}", flush=True)
        log = CACHE / f"{Path(python).name}-{kind}.log"
        log.unlink(missing_ok=True)
        try:
            everything = (options.notebooks == "all" or options.notebooks == "first"
                          and python == options.pythons[0])
            row = in_environment(python, kind, log, everything) if python else in_browser()
        except (RuntimeError, ValueError, subprocess.CalledProcessError) as error:
            print(f"  FAILED: {error}", flush=True)
            broken.append(label)
            continue
        verified.keep(row)
        for fault in verified.faults(row):
            print(f"  FAILED: {fault}", flush=True)
            broken.append(f"{label}: {fault}")
    print()
    for row in [verified.SUMMARY, *verified.summary_rows()]:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, (8, 8, 11, 24, 24, 10))))
    if broken:
        sys.exit("\nFailed:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
