"""What a page takes from a worker that posts what it likes, as a cell's code can."""

import json
import re

import lite_tools
import pytest
from conftest import ROOT
from in_page import build as in_page
from test_in_page import EXERCISE, Cell

#: In the worker's place: it says what the cell's text names.
HOSTILE = """const say = (output) => postMessage({ type: "output", output });
const show = (data, more) => say({ output_type: "display_data", data, ...more });
const times = (count, act) => { for (let i = 0; i < count; i++) act(); };
const acts = {
    text: () => times(200, () =>
        say({ output_type: "stream", name: "a b", text: "x".repeat(5000) })),
    rich: () => times(30, () => show({ "image/png": "A".repeat(1e6) })),
    many: () => times(5000, () => show({ "text/plain": "m" })),
    odd: () => {
        const round = {}, text = { "text/plain": "an update of nothing" };
        round.round = round;
        for (const output of [null, 7, "text", {}, [], { output_type: "stream", text: 7 },
            { output_type: "stream", name: {}, text: ["a"] }, { output_type: "display_data" },
            { output_type: "display_data", data: 7 },
            { output_type: {}, data: { "text/html": { a: 1 } } },
            { output_type: "display_data", data: { "application/json": round } },
            { output_type: "update", data: text, id: { a: 1 }, metadata: 7 },
            { output_type: {}, data: { "text/plain": "shown" }, metadata: null, id: 7 }])
            say(output);
        postMessage(null);
    },
    progress: () => {
        for (const done of [7, "text", [1],
            { 1: "2026-01-02", 2: "<b>soon</b>", x: "2026-01-02", 3: { a: 1 }, __proto__: null,
                4: "z".repeat(1e6), ["9".repeat(9)]: "2026-01-02" }])
            say({ output_type: "progress", done });
    },
    failure: () => postMessage({ type: "done", failure: { name: { a: 1 }, message: "m".repeat(1e6),
        line: 1e9, text: 7, traceback: "t".repeat(1e6) } }),
    flood: () => times(300000, () => say({ output_type: "clear" })),
};
onmessage = ({ data }) => {
    if (data.type === "start") {
        postMessage({ type: "loading", text: 7 });
        postMessage({ type: "ready" });
    } else {
        acts[data.source]?.();
        postMessage({ type: "done", failure: null });
    }
};
"""


@pytest.fixture
def cell(chromium, tmp_path):
    """The first cell of an exercise's page, whose worker is the hostile one."""
    count = len(in_page.cells_of(ROOT / f"{EXERCISE}.ipynb"))
    page = tmp_path / f"{EXERCISE}.html"
    page.parent.mkdir(parents=True)
    page.write_text('<!doctype html><meta charset="utf-8"><head></head>' + count * (
        '<div class="cell docutils"><div class="cell_input"><pre>code</pre></div></div>'))
    in_page.add(tmp_path)
    [place] = (tmp_path / in_page.PLACE).iterdir()
    (place / "worker.js").write_text(HOSTILE)
    with lite_tools.served(tmp_path) as address, chromium.new_context() as context:
        shown = context.new_page()
        faults = []
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.goto(f"{address}/{EXERCISE}.html")
        made = Cell(shown, 0)
        made.press("Edit and run")
        yield made
    assert faults == []


@pytest.mark.parametrize(("act", "shown", "least", "most"), [
    ("text", "box.textContent.length", 100_000, 120_000),
    ("many", "box.childElementCount", 100, 150),
    ("rich", "box.querySelectorAll('img').length", 20, 21)])
def test_a_page_shows_no_more_than_it_can(cell, act, shown, least, most):
    cell.text.fill(act)
    cell.press("Run")
    cell.says("Done")
    assert least <= cell.output.evaluate(f"box => {shown}") <= most
    assert "shows no more" in cell.output.evaluate("box => box.textContent.slice(-200)")


def test_the_page_takes_all_that_its_reader_sends():
    """Also what the reader says at its own limit, for which the page must have room."""
    given, taken = (re.search(r"TEXT.*RICH.*", (in_page.HERE / name).read_text("utf-8"))[0]
                    for name in ("reader.py", "bounds.js"))
    for sent, most in zip(*(re.findall(r"\b[1-9][\d_]{2,}", line) for line in (given, taken))):
        assert 1.04 * int(sent) < int(most) < 1.3 * int(sent)


def test_what_is_no_output_is_not_shown(cell):
    shown = cell.run("odd", says="broken down")
    assert "shown" in shown and "nothing" not in shown and "[object" not in shown
    assert "x" in cell.run("text")  # in another worker


def test_of_a_progress_only_days_of_exercises_are_kept(cell):
    kept = "localStorage.getItem('peft-book-progress')"
    cell.box.page.evaluate("localStorage.setItem('peft-book-progress', '[1, \"2026-01-01\"]')")
    cell.run("progress")
    assert json.loads(cell.box.page.evaluate(kept)) == {"1": "2026-01-02"}


def test_an_error_is_told_in_bounds(cell):
    assert len(cell.run("failure", says="error")) < 30_000
    cell.press("Go to line 1000000000")
    assert cell.text.input_value() == "failure"


def test_a_worker_that_floods_the_page_is_ended(cell):
    cell.run("flood", says="without end")
    assert "x" in cell.run("text")
