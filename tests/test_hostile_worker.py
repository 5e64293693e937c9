"""What a page takes from a worker that posts what it likes, as a cell's code can."""

import json
import re

import lite_tools
import pytest
from conftest import ROOT
from in_page import build as in_page
from test_in_page import EXERCISE, Cell

#: What of a cell's HTML must not reach the page, and around it what must.
RAN = "parent.document.title = document.title = 'ran'"
MARKUP = f"""<table class="table"><caption>Kept</caption><tr><th scope="col"
  style="text-align: left" onclick="{RAN}" tabindex="7">head</th></tr></table>
<details open><summary>more</summary><a href="../02-lora.html">page</a></details>
<img alt="dot" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" onerror="{RAN}">
<img src="x.png" srcset="x.png 2x" onerror="{RAN}"><a href=" java&#10;script:{RAN}">bad</a>
<iframe srcdoc="<script src='BLOB'></script>"></iframe><a href="https://[">none</a>
<iframe src="javascript:{RAN}"></iframe><object data="x"></object><embed src="x">
<meta http-equiv="refresh" content="0; url=elsewhere.html"><base href="https://evil.example/">
<link rel="stylesheet" href="x.css"><style>body {{ display: none }}</style>
<form action="elsewhere.html"><button>send</button></form><template><b>in</b></template>
<svg onload="{RAN}"><a href="javascript:{RAN}"><text>s</text></a><style><img></style></svg>
<math><mtext><table><mglyph><style><img src=x onerror="{RAN}"></style></mglyph></table></math>
<p id="over" class="over" style="position: fixed; inset: 0; width: 200vw">over</p>"""

#: In the worker's place: it says what the cell's text names.
HOSTILE = """const say = (output) => postMessage({ type: "output", output });
const show = (data, more) => say({ output_type: "display_data", data, ...more });
const times = (count, act) => { for (let i = 0; i < count; i++) act(i); };
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
    html: () => show({ "text/html": MARKUP.replace("BLOB",
        URL.createObjectURL(new Blob([RAN], { type: "text/javascript" }))) }),
    flood: () => times(13000, () => say({ output_type: "clear" })),
    notes: () => times(1000, (i) =>
        say({ output_type: "progress", done: { [i + 1]: "2026-01-02" } })),
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
    (place / "worker.js").write_text(
        f"const RAN = {json.dumps(RAN)}, MARKUP = {json.dumps(MARKUP)};\n{HOSTILE}")
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


def test_of_a_cells_html_the_page_takes_what_shows_and_nothing_that_acts(cell):
    page, asked = cell.box.page, []
    before = page.title()
    page.on("request", lambda request: asked.append(request.url))
    cell.text.fill("html")
    cell.press("Run")
    cell.says("Done")
    page.wait_for_timeout(500)
    own = ("data:", f"blob:{page.evaluate('location.origin')}/")
    assert [url for url in asked if not any(part in url for part in ("/in-page/", "/editor/"))
            and not url.startswith(own)] == []
    assert page.title() == before, "a script ran"
    html = cell.output.locator(".text_html")
    assert html.evaluate("box => [...new Set([...box.querySelectorAll('*')]"
                         ".map(({ localName }) => localName))].sort().join(' ')") == (
        "a caption details img p summary table tbody th tr")
    assert html.evaluate("box => [...new Set([...box.querySelectorAll('*')]"
                         ".flatMap((one) => one.getAttributeNames()))].sort().join(' ')") == (
        "alt class href open scope src style")
    for kept in ("Kept", "head", "more", "page", "over", "<iframe> is left out"):
        assert kept in html.text_content()
    assert html.evaluate("box => [...box.querySelectorAll('[href]')].map((a) => a.pathname)") == [
        "/book/02-lora.html"]
    assert html.locator("img[src]").count() == 1
    assert html.evaluate("""box => {
        const [all, over] = [box, box.querySelector(".over")].map((one) =>
            one.getBoundingClientRect());
        return over.top >= all.top && over.bottom <= all.bottom && over.left >= all.left;
    }"""), "what is fixed lies over the page"


def test_of_a_progress_only_days_of_exercises_are_kept(cell):
    kept = "localStorage.getItem('peft-book-progress')"
    cell.box.page.evaluate("localStorage.setItem('peft-book-progress', '[1, \"2026-01-01\"]')")
    cell.run("progress")
    assert json.loads(cell.box.page.evaluate(kept)) == {"1": "2026-01-02"}


def test_a_run_notes_few_passes(cell):
    cell.run("notes")
    done = json.loads(cell.box.page.evaluate("localStorage.getItem('peft-book-progress')"))
    assert 1 <= len(done) <= 5
    cell.run("progress")  # another run may note its own
    assert "1" in json.loads(cell.box.page.evaluate("localStorage.getItem('peft-book-progress')"))


def test_an_error_is_told_in_bounds(cell):
    assert len(cell.run("failure", says="error")) < 30_000
    cell.press("Go to line 1000000000")
    assert cell.text.value() == "failure"


def test_a_worker_that_floods_the_page_is_ended(cell):
    cell.run("flood", says="without end")
    assert "x" in cell.run("text")
