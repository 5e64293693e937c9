"""Seconds of `make book` and `make test` in a clean clone of the last commit.

    python benchmarks/commands.py            make book, from nothing built and with nothing changed
    python benchmarks/commands.py --test     make test as well (half an hour)
    python benchmarks/commands.py --record   either of them, and keep it for the page on speed

What is installed or fetched is borrowed from this checkout, so that no network is timed: the
environments, and the files of Python for the browser. Goals on two cores: 120 s, 15 s, 8 minutes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import sides

GOALS = {"make book, nothing built": 120, "make book, nothing changed": 15, "make test": 480}
BORROWED = [".venv", ".venv-oracle", ".cache/pyodide"]


def borrow(clone):
    """Links to what is installed here; a copy of the fetched files, without what came of them."""
    (clone / ".cache").mkdir()
    for name in BORROWED:
        here = sides.ROOT / name
        if name.startswith(".cache"):
            shutil.copytree(here, clone / name, ignore=shutil.ignore_patterns("compiled-*"))
        elif here.exists():
            (clone / name).symlink_to(here)
            (here / ".installed").touch()  # newer than the clone's lock files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep it for the page on speed")
    parser.add_argument("--test", action="store_true", help="time make test as well")
    arguments = parser.parse_args()
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "book"
        subprocess.run(["git", "clone", "--quiet", sides.ROOT, clone], check=True)
        borrow(clone)
        for what in list(GOALS)[:3 if arguments.test else 2]:
            began = time.perf_counter()
            subprocess.run(["make", *what.split(",")[0].split()[1:]], cwd=clone, check=True,
                           stdout=subprocess.DEVNULL, env=os.environ | {"MAKEFLAGS": ""})
            seconds[what] = round(time.perf_counter() - began, 1)
            print(f"{what}: {seconds[what]:.0f} s (goal {GOALS[what]} s)", flush=True)
    if arguments.record:
        sides.record("commands", versions={"Python": platform.python_version()}, goals=GOALS,
                     seconds=seconds)


if __name__ == "__main__":
    main()
