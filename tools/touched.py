"""Run what a change touches, in a few minutes: `make test FAST=1`.

    python tools/touched.py [--list]

The change is what differs from main, committed or not; on main itself, what is not yet committed.

    a module of code/stage-09    the tests of its name or of its exercise, else those that import it
    a test file                  itself
    a tool                       the tests of tests/ that import it and ask no browser
    a notebook                   nbval, strictly; a Markdown page: nothing but lint here
    a front end of a widget      tests/test_widgets_browser.py

It is a first answer, not the proof. Left out are the notebooks and pages that a changed module
reaches, the build and the other pages; `make test` asks all of them.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = Path("code/stage-09")
SLOW = "not can_be_made_again and not killed"  # these train models or start many processes


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True,
                          check=False).stdout.split("\n")[:-1]


def changed():
    """Paths from the root of what differs from main and is still there."""
    base = next((found for name in ("origin/main", "main")
                 for found in git("merge-base", "HEAD", name)), "HEAD")
    found = git("diff", "--name-only", base) + git("ls-files", "--others", "--exclude-standard")
    return sorted({Path(name) for name in found if (ROOT / name).is_file()})


def importing(module, tests):
    """Test files that name this module in an import."""
    names = re.compile(rf"^\s*(?:import|from)\b.*\b{re.escape(module)}\b", re.MULTILINE)
    return [path for path in tests if names.search((ROOT / path).read_text("utf-8"))]


def tests_of(path, unit, site):
    """The test files that a changed file touches, given all of both kinds."""
    if path in unit or path in site:
        return [path]
    if path.suffix in (".js", ".css") and path.is_relative_to(CODE):
        return [Path("tests/test_widgets_browser.py")]
    if path.suffix != ".py":
        return []
    if path.is_relative_to("tools"):
        return [test for test in importing(path.stem, site) if not re.search(
            r"\b(chromium|firefox)\b|import .*\b(HTML|pages)\b", (ROOT / test).read_text("utf-8"))]
    if not path.is_relative_to(CODE):
        return []
    exercise = re.search(r"/ex(\d)_", path.as_posix())
    own = [test for test in unit if test.stem == f"test_{path.stem}"
           or exercise and re.search(rf"ex{exercise[1]}(_|$)", test.stem)]
    return own or importing(path.stem, unit)


def plan(paths):
    """(test files, notebooks) to run for these changed paths."""
    unit = [path.relative_to(ROOT) for path in (ROOT / CODE / "tests").rglob("test_*.py")]
    site = [path.relative_to(ROOT) for path in (ROOT / "tests").glob("test_*.py")]
    tests = {test for path in paths for test in tests_of(path, unit, site)}
    return sorted(tests), [path for path in paths if path.suffix == ".ipynb"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="do not run: only name it")
    listing, paths = parser.parse_args().list, changed()
    tests, books = plan(paths)
    print(f"==> {len(paths)} files differ: {len(tests)} test files, {len(books)} notebooks")
    print("\n".join(map(str, [*tests, *books])), flush=True)
    runs = [["-k", SLOW, "--dist", "worksteal", *tests]] * bool(tests)
    runs += [["-p", "keep_outputs", "--nbval", "--dist", "loadfile", *books]] * bool(books)
    for arguments in [] if listing else runs:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "2", *arguments],
                              cwd=ROOT, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode not in (0, 5):  # 5: what is left out was all there was
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
