"""Time Python in the page, beside JupyterLite with the same notebook. A server on this machine.

    python benchmarks/cells.py             print the table (three minutes on a quiet machine)
    python benchmarks/cells.py --record    print it, and keep it for the page on speed

Cold is a browser that has never seen the book, warm the same browser with the page opened again.
In the page the clock runs from the click on "Edit and run" until the first cell has run, then
from "Run" at the first check until its report is there. In JupyterLite it runs from the menu's
choice, which opens the notebook, to the same results. And the playground trains its first choice,
16 names a step, beside the same run in CPython. The two take turns, so that a busy machine slows
both, and what counts is the ratio. Goals: 6 s cold, 3 s warm, 1.5 s for the check, 20 steps a
second, on two cores; and a page that nobody runs grows by no more than 15 kB.
"""

import argparse
import re
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in
                ("tests", "tools", "code/stage-09", "code/stage-09/tests")]
import lite_tools  # noqa: E402
import sides  # noqa: E402
from book_pages.playground import Run  # noqa: E402
from chromium import launched  # noqa: E402
from conftest import HTML  # noqa: E402
from in_page import build as in_page  # noqa: E402

NAME = "book/exercises/ex1-lora-feed-forward.ipynb"
CHECK = 2  # the number of the first cell that checks
GOALS = {"cold": 6, "warm": 3, "check": 1.5,  # seconds
         "steps": 20,  # a second
         "bytes": 15_000}
ROUNDS = 5
PATIENCE = 300_000  # milliseconds


def run_in_page(page, number):
    """Press what runs a cell, and wait for its end."""
    cell = page.locator("div.cell").nth(number)
    cell.get_by_role("button", name="Edit and run", exact=True).click()
    cell.get_by_role("button", name="Run", exact=True).click()
    cell.get_by_role("status").get_by_text("Done in").wait_for()


def ours(page, address):
    """Seconds until the first cell has run, and from there until the first check is told."""
    page.goto(f"{address}/{NAME.replace('ipynb', 'html')}", wait_until="load")
    began = time.perf_counter()
    run_in_page(page, 0)
    first = time.perf_counter()
    run_in_page(page, CHECK)
    return first - began, time.perf_counter() - first


def theirs(page, address):
    """The same of JupyterLite."""
    began = time.perf_counter()
    lite_tools.open_notebook(page, address, NAME)
    runs = lite_tools.run_cells(page, lite_tools.load(ROOT / NAME)["cells"])
    next(runs)
    first = time.perf_counter()
    for _ in range(CHECK):
        next(runs)
    return first - began, time.perf_counter() - first


def train_in_page(page, address):
    """Steps a second of the playground's first choice, as it tells the reader in the end."""
    page.goto(f"{address}/{in_page.PLAYGROUND}.html", wait_until="load")
    page.get_by_role("button", name="Train", exact=True).click()
    said = page.locator("#playground-place").get_by_role("status")
    said.get_by_text(re.compile(r"^Step (\d+) of \1, ")).wait_for()
    return float(re.search(r"([\d.]+) steps a second", said.inner_text())[1])


def train_outside():
    """The same of the same run in this Python: its steps, and its looks at what is held out."""
    run = Run()
    began = time.perf_counter()
    while run.done < run.settings["steps"]:
        run.step()
    return run.done / (time.perf_counter() - began)


def growth():
    """Bytes that Python in the page adds to a page that nobody runs: its scripts and sheets.

    In the largest case: those of every page, those of a page with cells, and the tags there.
    """
    files = in_page.before_a_click(HTML)
    tags = [in_page.TAGS.search((HTML / name.replace("ipynb", "html")).read_text("utf-8"))[0]
            for name in in_page.notebooks()]
    return sum(path.stat().st_size for path in files) + max(map(len, tags))


def loads(page, address):
    """Bytes of the editor, which the first click fetches."""
    sizes = {}
    page.on("response", lambda answer: sizes.update({answer.url: answer}))
    page.goto(f"{address}/{NAME.replace('ipynb', 'html')}", wait_until="load")
    page.get_by_role("button", name="Edit and run").first.click()
    page.locator(".cm-content").first.wait_for()
    return sum(len(answer.body()) for url, answer in [*sizes.items()]
               if re.search(r"/(codemirror|editor|completion|text-box)\.js|/names\.json", url))


def measure():
    took = {kind: {side: [] for side in ("ours", "theirs")} for kind in ("cold", "warm", "check")}
    with launched() as browser, lite_tools.served(HTML) as address:
        for _ in range(ROUNDS):
            for side, work in (("ours", ours), ("theirs", theirs)):
                with browser.new_context() as context:
                    for kind in ("cold", "warm"):
                        page = context.new_page()
                        page.set_default_timeout(PATIENCE)
                        first, check = work(page, address)
                        took[kind][side].append(first)
                        took["check"][side].append(check)
                        page.close()
        steps = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            with browser.new_context(locale="en") as context:
                context.set_default_timeout(PATIENCE)
                steps["ours"].append(train_in_page(context.new_page(), address))
            steps["theirs"].append(train_outside())
        editor, version = loads(browser.new_page(), address), browser.version
    return {"versions": {"Chromium": version, **sides.versions()}, "goals": GOALS,
            "bytes": growth(), "editor": editor,
            "steps": {side: round(median(rates), 1) for side, rates in steps.items()},
            "seconds": {kind: {side: round(median(times), 2) for side, times in both.items()}
                        for kind, both in took.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep it for the page on speed")
    arguments = parser.parse_args()
    if not (HTML / "lite" / "index.html").exists():
        sys.exit("The built book has no Python in the browser: run make book with a network")
    result = measure()
    for kind, both in result["seconds"].items():
        print(f"{kind}: {both['ours']:.1f} s in the page (goal {GOALS[kind]} s), "
              f"{both['theirs']:.1f} s in JupyterLite: ratio {both['ours'] / both['theirs']:.2f}")
    steps = result["steps"]
    print(f"steps a second: {steps['ours']:.1f} in the playground (goal {GOALS['steps']}), "
          f"{steps['theirs']:.1f} in CPython: ratio {steps['ours'] / steps['theirs']:.2f}")
    print(f"a page that nobody runs grows by {result['bytes']:,} bytes (goal {GOALS['bytes']:,}); "
          f"the editor is {result['editor']:,}")
    if arguments.record:
        sides.record("cells", **result)


if __name__ == "__main__":
    main()
