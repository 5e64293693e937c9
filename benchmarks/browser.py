"""Time the built book in a browser: its pages, and Python in them. A server on this machine.

    python benchmarks/browser.py            print the table (three minutes)
    python benchmarks/browser.py --all      every notebook to its end as well (a quarter of an hour)
    python benchmarks/browser.py --record   either of them, and keep it for the page on speed

Cold is a browser that has never seen the page, warm the same browser with the page opened again.
A move is all that one step of a slider costs the page: the event, the drawing, the layout.
Goals on two cores: first cell within 12 s cold and 6 s warm, a chapter within 60 s; a page without
widgets under 300 kB (gzipped, without fonts), widgets alive within 1.5 s, a move within a frame.
"""

import argparse
import gzip
import sys
import time
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in
                ("tests", "tools", "code/stage-09", "code/stage-09/tests")]
import lite_tools  # noqa: E402
import sides  # noqa: E402
from chromium import launched  # noqa: E402
from conftest import HTML  # noqa: E402
from lite import build as lite  # noqa: E402

FIRST = "book/exercises/ex1-lora-feed-forward.ipynb"
GOALS = {"cold": 12, "warm": 6, "notebook": 60, "alive": 1.5, "move": 0.016,  # seconds
         "page": 300_000}  # bytes
#: True as soon as every widget of a page can be moved.
ALIVE = """() => {
    const views = document.querySelectorAll('script[type$="widget-view+json"]');
    const live = document.querySelectorAll(".peft-widget");
    return document.readyState !== "loading" && live.length >= views.length
        && [...live].every((widget) => widget.querySelector("input, select"));
}"""

#: Milliseconds of each move of every slider of a page, from its start to its end in 20 steps.
MOVES = """async () => {
    const took = [];
    for (const input of document.querySelectorAll(".peft-widget input[type=range]")) {
        const from = Number(input.min), to = Number(input.max);
        for (let step = 0; step <= 20; step++) {
            input.value = Math.round(from + (to - from) * step / 20);
            const began = performance.now();
            input.dispatchEvent(new Event("input", { bubbles: true }));
            const handled = performance.now() - began;
            took.push(await new Promise((done) => requestAnimationFrame((frame) => {
                document.body.getBoundingClientRect();  // after the widget drew: lays the page out
                done(handled + performance.now() - frame);
            })));
        }
    }
    return took;
}"""


def first_cell(page, address, name):
    """Seconds from opening until the first cell has run, and the bytes that the server sent."""
    lite_tools.Quiet.sent, began = 0, time.perf_counter()
    lite_tools.open_notebook(page, address, name)
    next(lite_tools.run_cells(page, lite_tools.load(ROOT / name)["cells"]))
    return time.perf_counter() - began, lite_tools.Quiet.sent


def weigh(browser, address, name):
    """Bytes of a page's files, gzipped, without fonts; seconds until its widgets are alive."""
    page, answers = browser.new_page(), []
    page.on("response", lambda answer: answers.append(answer))
    began = time.perf_counter()
    page.goto(f"{address}/{name}", wait_until="commit")
    row = {"widgets": (HTML / name).read_text("utf-8").count("widget-view+json")}
    if row["widgets"]:
        page.wait_for_load_state("domcontentloaded")
        page.evaluate("() => window.bookWidgets.showAll()")
        while not page.evaluate(ALIVE):  # a page's policy forbids wait_for_function
            page.wait_for_timeout(5)
        row["alive"] = round(time.perf_counter() - began, 2)
        page.wait_for_load_state("networkidle")
        if moves := page.evaluate(MOVES):
            row["moves"] = {"count": len(moves), "median": round(median(moves) / 1e3, 5),
                            "longest": round(max(moves) / 1e3, 5)}
    page.wait_for_load_state("networkidle")
    files = {urlsplit(answer.url).path for answer in answers
             if answer.ok and answer.url.startswith(address)}
    row["bytes"] = sum(len(gzip.compress((HTML / unquote(path).lstrip("/")).read_bytes()))
                       for path in files if not path.endswith((".woff", ".woff2", "/")))
    page.close()
    return row


def measure(everything):
    result = {"goals": GOALS}
    with launched() as browser, lite_tools.served(HTML) as address:
        result["chromium"] = browser.version
        result["pages"] = {}
        for path in sorted((HTML / "book").rglob("*.html")):
            name = path.relative_to(HTML).as_posix()
            row = result["pages"][name] = weigh(browser, address, name)
            print(f"{name}: {row['bytes'] / 1e3:.0f} kB"
                  + (f", widgets after {row['alive']} s" if "alive" in row else "")
                  + (f", a move {row['moves']['median'] * 1e3:.1f} ms, at most "
                     f"{row['moves']['longest'] * 1e3:.1f}" if "moves" in row else ""), flush=True)
        for kind in ("cold", "warm"):
            result[kind] = []
        for _ in range(3):
            context = browser.new_context()
            for kind in ("cold", "warm"):
                page = context.new_page()
                seconds, sent = first_cell(page, address, FIRST)
                result[kind].append({"seconds": round(seconds, 1), "bytes": sent})
                print(f"{kind}: first cell after {seconds:.1f} s (goal {GOALS[kind]} s), "
                      f"{sent / 1e6:.1f} MB", flush=True)
                page.close()
            context.close()
        if everything:
            result["notebooks"] = {}
            for path in sorted((ROOT / "book").rglob("*.ipynb")):
                name = path.relative_to(ROOT).as_posix()
                if not lite.runs_in_browser(name):
                    continue
                page = browser.new_page()
                lite_tools.open_notebook(page, address, name)
                began = time.perf_counter()
                for _ in lite_tools.run_cells(page, lite_tools.load(path)["cells"]):
                    pass
                result["notebooks"][name] = round(time.perf_counter() - began, 1)
                print(f"{name}: {result['notebooks'][name]:.0f} s", flush=True)
                page.close()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep it for the page on speed")
    parser.add_argument("--all", action="store_true", help="run every notebook to its end")
    arguments = parser.parse_args()
    if not (HTML / "lite" / "index.html").exists():
        sys.exit("The built book has no Python in the browser: run make book with a network")
    result = measure(arguments.all)
    if arguments.record:
        sides.record("browser", versions={"Chromium": result.pop("chromium")}, **result)


if __name__ == "__main__":
    main()
