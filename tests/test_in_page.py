"""Python in the page: cells edited and run where they stand, with no outside network.

What a cell shows there must be what the committed notebook shows, as in test_lite.py.
"""

import asyncio
import gzip
import importlib.util
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import content_policy
import lite_tools
import notebooks
import pytest
from conftest import CHROMIUM, HTML, PATIENCE, ROOT
from in_page import build as in_page
from lite import build as lite
from playwright.sync_api import expect
from test_accessibility import violations

from exercises import exercise_tools
from exercises.mistakes import listed, source_of
from experiments import faults

NAMES = [path.relative_to(ROOT).as_posix() for path in notebooks.book_notebooks()]
#: What takes minutes each in a browser; all of it in every `make test` would be half an hour. The
#: scheduled workflow asks them, too: `make site LONG=1`. All others run their cells each time.
LONG = {f"book/{name}.ipynb" for name in (
    "01-the-fine-tuning-problem", "07-fine-tuning-a-real-model", "common-mistakes",
    "solutions/sol1-lora-feed-forward", "solutions/sol2-lora-dropout",
    "solutions/sol4-prefix-mlp", "solutions/sol5-prompted-lora")}
RUN = [name for name in NAMES if lite.runs_in_browser(name)
       and (os.environ.get("LONG") or name not in LONG)]
TOLERANCE = 1e-6  # relative, of each number that a cell prints
CHAPTER, EXERCISE = "book/02-lora", "book/exercises/ex2-lora-dropout"
#: The theme lets the keyboard reach what scrolls, a third of a second after the window's width.
REACHABLE = """() => new Promise((done) => (function look() {
    const lost = [...document.querySelectorAll("pre")].some((pre) =>
        pre.offsetParent && pre.scrollWidth > pre.clientWidth && pre.tabIndex < 0);
    lost ? setTimeout(look, 50) : done();
})())"""


#: What to do with CodeMirror's view of an editor, which its own module finds.
VIEW = """async (content, [codemirror, act, value]) => {
    const here = document.querySelector("script[data-notebook]").src;
    const { EditorView } = await import(new URL(codemirror, here));
    const view = EditorView.findFromDOM(content), { doc, selection } = view.state;
    if (act === "read") return doc.toString();
    if (act === "selected") return view.state.sliceDoc(selection.main.from, selection.main.to);
    view.dispatch({ changes: { from: 0, to: doc.length, insert: value } });
}"""


class Editor:
    """What a cell's text is edited in: CodeMirror or, where that does not load, a text box."""

    def __init__(self, box):
        self.content = box.locator(".cm-content, textarea")

    def ask(self, act, value=None):
        [codemirror] = set(re.findall(r"[./]*/editor/codemirror\.js\?\w+",
                                      in_page.script("editor.js").decode()))
        return self.content.evaluate(VIEW, [codemirror, act, value])

    @property
    def plain(self):
        return self.content.evaluate("content => content.localName === 'textarea'")

    def fill(self, text):
        if self.plain:
            self.content.fill(text)
        else:
            self.ask("fill", text)

    def value(self):
        return self.content.input_value() if self.plain else self.ask("read")

    def selected(self):
        return self.content.evaluate("area => area.value.slice(area.selectionStart, "
                                     "area.selectionEnd)") if self.plain else self.ask("selected")


class Cell:
    """A cell of a page that shows its code, as a reader meets it; `number` counts all cells."""

    def __init__(self, page, number):
        self.box = page.locator("div.cell").nth(number)
        self.text = Editor(self.box)
        self.status = self.box.get_by_role("status")
        self.output = self.box.locator(".in-page-output")

    def press(self, name):
        self.box.get_by_role("button", name=name, exact=True).click()

    def says(self, *parts):
        for part in parts:
            self.status.get_by_text(part).wait_for()

    def run(self, text, says="Done"):
        """Type, run, wait for the end, and return what the cell shows."""
        self.text.fill(text)
        self.press("Run")
        self.says(says)
        return self.output.text_content()


def outputs_by_source(said):
    """The outputs of each run, pieces of a stream joined as a notebook has them."""
    runs = []
    for message in said:
        if message["type"] == "run":
            runs.append((message["source"], []))
        elif message["type"] == "output" and message["output"]["output_type"] != "progress":
            outputs, new = runs[-1][1], message["output"]
            if (outputs and new["output_type"] == "stream" == outputs[-1]["output_type"]
                    and outputs[-1]["name"] == new["name"]):
                outputs[-1]["text"] += new["text"]
            else:
                outputs.append(new)
        elif message["type"] == "done" and message["failure"]:
            runs[-1][1].append({"output_type": "error", "ename": message["failure"]["name"],
                                "evalue": message["failure"]["message"]})
    return runs


def differing(cells, runs):
    """(cell's number, what differs) where a page's runs are not what the notebook has."""
    assert [source for source, _ in runs] == ["".join(cell["source"]) for cell in cells]
    found = [(number, lite_tools.differences(lite_tools.text_of(cell["outputs"]),
                                             lite_tools.text_of(outputs), TOLERANCE)[:3])
             for number, (cell, (_, outputs)) in enumerate(zip(cells, runs))
             if "nbval-ignore-output" not in cell["metadata"].get("tags", [])]
    return [(number, some) for number, some in found if some]


def code_cells(name):
    """A notebook's code cells, and the numbers of those whose code its page shows."""
    cells = [cell for cell in lite_tools.load(ROOT / name)["cells"]
             if cell["cell_type"] == "code"]
    return cells, [number for number, cell in enumerate(cells)
                   if "remove-input" not in cell["metadata"].get("tags", [])]


def is_check(cell):
    return "checks.check_" in "".join(cell["source"])


@pytest.mark.parametrize("name", RUN)
def test_a_pages_cells_give_the_committed_outputs(served_page, name):
    page = served_page(name.removesuffix(".ipynb"))
    page.set_default_timeout(300_000)  # it trains
    cells, shown = code_cells(name)
    last = Cell(page, shown[-1])
    last.press("Edit and run")
    last.press("Run")
    last.says("Done")
    runs = outputs_by_source(page.evaluate("said"))
    ran = [number for number in range(shown[-1] + 1) if number == shown[-1] or not (
        is_check(cells[number]) and is_check(cells[shown[-1]]))]  # a check runs no other
    assert differing([cells[number] for number in ran], runs) == []
    for number, (_, outputs) in zip(ran, runs):  # and what the reader sees
        cell, here, kinds = cells[number], Cell(page, number), set()
        if "hide-output" in cell["metadata"].get("tags", []):
            continue  # it stays folded
        for output in cell["outputs"]:
            kinds |= set(output.get("data", {"stream": 1}))
        printed = here.box.locator(":scope > .cell_output:not(.in-page-output)")
        if any("widget-view" in kind for kind in kinds):
            assert printed.is_visible() and "stays as the book has it" in here.output.inner_text()
        elif "image/png" in kinds:
            assert here.output.locator("img[alt]").count() and not printed.is_visible()
            text = [o for o in cell["outputs"] if "text/markdown" in o.get("data", {})]
            assert here.output.locator(".text_markdown").count() == len(text)
        elif all("text/markdown" in output.get("data", {}) for output in cell["outputs"]) and kinds:
            # the same text, and nothing else: the page's own rendering stays
            same = lite_tools.text_of(cell["outputs"]) == lite_tools.text_of(outputs)
            assert printed.is_visible() == same != here.output.is_visible()
        elif kinds:
            assert here.output.inner_text().strip() and not printed.is_visible()


def test_a_reader_edits_fails_stops_and_finds_the_edit_again(served_page):
    page = served_page(EXERCISE)
    assert page.evaluate("said") == [], "Python starts before anybody asks"
    cell = Cell(page, 0)
    printed = cell.box.locator(".cell_input")
    cell.press("Edit and run")
    cell.text.content.wait_for()
    assert not printed.is_visible()
    page.emulate_media(media="print")
    assert not cell.box.get_by_text("Ctrl+Enter").is_visible(), "keys, on paper"
    page.emulate_media(media="screen")
    shown = cell.run("a = 1\nb = [a,\n     a / 0]\nprint(b)", says="error")
    assert "ZeroDivisionError" in shown and "Line 3 of this cell" in shown
    cell.press("Go to line 3")
    assert cell.text.selected() == "     a / 0]"
    assert "SyntaxError" in cell.run("a = 1\nb = = 2", says="error")
    assert "Line 2 of this cell" in cell.output.text_content()

    cell.text.fill("print('begun')\nwhile True:\n    pass")
    cell.press("Run")
    cell.output.get_by_text("begun").wait_for()
    cell.press("Stop")
    cell.says("Stopped")
    assert "while True" in cell.text.value()

    assert cell.run("print(6 * 7)") == "42\n", "no Python after a stop"
    assert "input()" in cell.run("name = input('? ')", says="error")
    long = cell.run("for _ in range(3000):\n    print('x' * 99)")
    assert 100_000 <= len(long) < 101_000 and "200,000 further" in long
    assert page.evaluate("performance.getEntriesByType('resource')"
                         ".every(({ name }) => !name.includes('matplotlib'))")
    cell.run("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()\nprint('x' * 999)")
    assert cell.output.locator("img[alt]").count() == 1

    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(REACHABLE)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(500)  # colours of the theme change slowly
            assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.reload()
    assert Cell(page, 0).text.value().startswith("import matplotlib")
    assert page.evaluate("said") == [], "an edit that is kept starts no Python"
    cell.press("Back to the printed code")
    assert printed.is_visible() and not cell.text.content.is_visible()
    cell.press("Edit and run")
    cell.press("Forget my edit")
    page.reload()
    assert printed.is_visible() and cell.text.content.count() == 0
    assert page.evaluate("Object.keys(localStorage).every((key) => !key.includes('edits'))")


def test_a_widget_that_the_reader_changes_is_live(served_page):
    page = served_page("book/find-the-fault")
    cell = Cell(page, 2)
    cell.press("Edit and run")
    made = cell.output.locator(".peft-widget")
    for number in (3, 9):
        cell.run("from book_pages.widgets.faults import FaultFinder\n"
                 f"FaultFinder(faults.load_cases()[{number}:{number + 1}])")
        case = faults.load_cases()[number]
        assert "A new case" in made.inner_text() and f"{case['served']:.3f}" in made.inner_text()
        made.locator(f"input[value={case['fault']}]").check()
        made.get_by_role("button", name="This is it").click()
        made.get_by_text("Right.").wait_for()
        assert page.locator(".peft-widget").nth(0).is_hidden(), "the printed case stands there, too"
        assert "shows no more" not in cell.output.inner_text()
    cell.press("Back to the printed result")
    assert page.locator(".peft-widget").nth(0).is_visible()


def test_what_goes_back_says_to_what(served_page):
    page = served_page(EXERCISE)
    step, with_output = Cell(page, 3), Cell(page, 7)
    step.press("Check step 2")
    step.says("Done")
    assert step.box.get_by_role("button", name="Back").count() == 0, "nothing else is in print"
    step.press("Clear the result")
    assert step.box.locator(".in-page-output").count() == 0
    step.press("Edit and run")
    step.press("Back to the printed code")
    assert step.box.locator(".cell_input, details").first.is_visible()
    with_output.press("Edit and run")
    with_output.press("Back to the printed result")


def test_a_reload_in_mid_run_and_the_ways_back_and_forward_keep_the_edit(served_page, site):
    page, endless = served_page(EXERCISE), "while True:\n    pass"
    cell = Cell(page, 0)
    cell.press("Edit and run")
    cell.text.fill(endless)
    cell.press("Run")
    cell.says("Running")
    page.reload()
    cell.text.content.wait_for()
    assert cell.text.value() == endless and page.evaluate("said") == []
    assert cell.run("print(6 * 7)") == "42\n"
    page.goto(f"{site}/{CHAPTER}.html")
    page.go_back()
    cell.text.content.wait_for()
    assert cell.text.value() == "print(6 * 7)"
    page.go_forward()
    page.go_back()
    cell.text.content.wait_for()
    cell.press("Run")
    cell.says("Done")
    assert cell.output.text_content() == "42\n"


def test_two_tabs_lose_none_of_each_others_edits(served_page):
    one = served_page(EXERCISE)
    other = one.context.new_page()
    other.goto(one.url)
    for page, number in ((one, 0), (other, 1)):
        Cell(page, number).press("Edit and run")
    for text in ("first", "second"):
        for page, number in ((one, 0), (other, 1)):
            Cell(page, number).text.fill(f"# {text} {number}")
    Cell(one, 2).press("Edit and run")
    Cell(one, 2).text.fill("# third")
    Cell(one, 2).press("Forget my edit")
    one.reload()
    Cell(one, 1).text.content.wait_for()
    assert [Cell(one, number).text.value() for number in (0, 1)] == ["# second 0", "# second 1"]
    assert Cell(one, 2).text.content.count() == 0


def test_a_button_whose_script_does_not_come_says_so_and_tries_again(served_page):
    page = served_page(EXERCISE)
    page.route("**/cells.js", lambda route: route.abort())
    cell = Cell(page, 0)
    cell.press("Edit and run")
    again = cell.box.get_by_role("button", name="try again")
    again.wait_for()
    page.unroute("**/cells.js")
    again.click()
    cell.text.content.wait_for()


def test_after_its_first_run_a_page_needs_no_server(served_page):
    page = served_page(EXERCISE)
    cell, task, step = Cell(page, 0), Cell(page, 1), Cell(page, 3)
    cell.press("Edit and run")
    cell.press("Run")
    cell.says("Done")
    page.context.set_offline(True)
    cell.press("Run")
    cell.says("Done")
    task.press("Edit and run")
    task.text.fill(source_of("ex2_lora_dropout"))
    step.press("Check step 2")
    step.says("Done", "passed")


PASTE = """(content, lines) => {
    const data = new DataTransfer();
    data.setData("text/plain", Array.from({ length: lines }, (_, i) => `x = ${i}`).join("\\n"));
    content.dispatchEvent(new ClipboardEvent("paste", {
        clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize("kept", ["{half", "7", '"text"', "true", "[1]", '{"cell": {"a": 1}}'])
def test_what_was_stored_badly_keeps_no_edit_from_being_kept(served_page, kept):
    page = served_page(EXERCISE)
    key = f"peft-book edits {EXERCISE}.ipynb"
    source = code_cells(f"{EXERCISE}.ipynb")[0][0]["source"]
    kept = kept.replace("cell", json.dumps(f"1\n{''.join(source)}")[1:-1])
    page.evaluate("([...all]) => localStorage.setItem(...all)", [key, kept])
    page.evaluate("localStorage.setItem('peft-book-imported', '7')")
    page.reload()
    cell = Cell(page, 0)
    if not cell.text.content.count():
        cell.press("Edit and run")
    assert cell.text.value() == "".join(source)
    cell.text.fill("print('kept')")
    page.reload()
    assert Cell(page, 0).text.value() == "print('kept')"


def test_a_paste_of_many_lines_is_said_not_to_be_kept_and_costs_no_other_edit(served_page):
    page = served_page(EXERCISE)
    cell, other = Cell(page, 0), Cell(page, 1)
    other.press("Edit and run")
    other.text.fill("# mine")
    cell.press("Edit and run")
    assert cell.run("print(1)") == "1\n"
    cell.text.content.focus()
    page.keyboard.press("Control+End")
    cell.text.content.evaluate(PASTE, 170_000)
    page.keyboard.type("\nprint(x)")
    cell.says("Too long to be kept")
    assert cell.text.value().endswith("x = 169999\nprint(x)")
    assert page.evaluate("(key) => localStorage.getItem(key).length", NOTEBOOK) < 100_000
    page.keyboard.press("Control+a")
    page.keyboard.type("print(2)")
    cell.says("Changed since it ran")
    cell.press("Run")
    cell.says("Done")
    assert cell.output.text_content() == "2\n"
    page.reload()
    other.text.content.wait_for()
    assert [one.text.value() for one in (cell, other)] == ["print(2)", "# mine"]


def test_a_browser_that_is_full_says_so_though_the_cell_has_run(served_page):
    page = served_page(EXERCISE)
    cell = Cell(page, 0)
    cell.press("Edit and run")
    cell.run("print(1)")
    page.evaluate("void (Storage.prototype.setItem = () => { throw new DOMException(); })")
    cell.text.fill("print(2)")
    cell.says("does not keep your edit")


REACH = """import js

for address in ({there!r}, {here!r}):
    request = js.XMLHttpRequest.new()
    try:
        request.open("GET", address, False)
        request.send()
        print("asked", request.status)
    except Exception:
        print("refused")
    try:
        print("answered", (await js.fetch(address)).status)
    except Exception:
        print("refused")
try:
    js.importScripts({there!r})
except Exception:
    print("refused")"""


def test_what_a_cell_runs_reaches_no_other_host(chromium, site):
    """A worker from a file would have no policy; this one inherits the page's."""
    with lite_tools.other_host() as (there, asked):
        with chromium.new_context() as context:  # Playwright tells of requests that are refused
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(f"{site}/{EXERCISE}.html")
            cell = Cell(page, 0)
            cell.press("Edit and run")
            shown = cell.run(REACH.format(there=there, here=f"{site}/objects.inv"))
    assert shown.split() == ["refused"] * 2 + ["asked", "200", "answered", "200", "refused"]
    assert asked == []


@pytest.mark.parametrize("plain", [False, True])
def test_the_keyboard_alone_is_enough(served_page, plain):
    page = served_page(EXERCISE)
    if plain:  # the text box that a page has where CodeMirror does not load
        page.route("**/codemirror.js*", lambda route: route.abort())
    cell = Cell(page, 0)
    cell.box.get_by_role("button", name="Edit and run").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(":is(.cm-content, textarea):focus")
    assert cell.text.plain == plain
    page.keyboard.press("Control+a")
    page.keyboard.type("for i in range(2):\nprint(i)")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("x = 1")
    assert cell.text.value() == "for i in range(2):\n    print(i)\n        x = 1"
    page.keyboard.press("Shift+Tab")
    assert cell.text.value() == "for i in range(2):\n    print(i)\n    x = 1"
    page.keyboard.press("Control+z")
    assert cell.text.value().endswith("        x = 1"), "undo is lost"
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Escape")
    page.wait_for_timeout(2500)  # CodeMirror itself forgets it after two seconds
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON", "no way out of the editor"


KEPT = """import js
print([name for name in ("indexedDB", "caches", "BroadcastChannel", "Worker", "SharedWorker",
                         "localStorage", "webkitRequestFileSystemSync") if hasattr(js, name)]
      + [name for name in ("storage", "storageBuckets") if hasattr(js.navigator, name)])"""


def test_a_cell_does_not_reach_what_the_browser_keeps(served_page):
    page = served_page(EXERCISE)
    cell = Cell(page, 0)
    cell.press("Edit and run")
    assert cell.run(KEPT) == "[]\n"
    assert page.evaluate("'indexedDB' in window && 'storage' in navigator"), \
        "it is the worker that has none"


NOTEBOOK = f"peft-book edits {EXERCISE}.ipynb"


@pytest.fixture
def strangers(served_page, site, tmp_path):
    """A page whose first two cells somebody's file has changed, and what that file is called."""
    sources = [cell["source"] for cell in in_page.cells_of(ROOT / f"{EXERCISE}.ipynb")][:2]
    edits = {f"1\n{source}": f"print('stranger {number}')"
             for number, source in enumerate(sources, 1)}
    file = tmp_path / "from <b>Mallory.json"
    file.write_text(json.dumps({"form": "peft-book work 1", NOTEBOOK: edits,
                                "peft-book-imported": {NOTEBOOK: {}}}), "utf-8")
    page = served_page("book/your-work")
    page.locator("#my-work input[type=file]").set_input_files(file)
    page.get_by_text("2 notes added").wait_for()
    page.goto(f"{site}/{EXERCISE}.html")
    Cell(page, 1).text.content.wait_for()
    return page, file.name


def test_code_from_a_file_runs_only_when_the_reader_says_so(strangers):
    page, file = strangers
    first, second = Cell(page, 0), Cell(page, 1)
    asks = second.box.locator(".in-page-ask")
    second.text.content.focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".in-page-ask:focus")
    assert "cells 1, 2 came from the file" in asks.inner_text() and file in asks.inner_text()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # colours of the theme change slowly
        assert violations(page) == []
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    second.says("Not run")
    assert page.evaluate("document.activeElement.matches('.cm-content, textarea')")
    assert asks.count() == 0 and page.evaluate("said") == [], "something ran"

    first.press("Run")
    assert "cell 1 came" in first.box.locator(".in-page-ask").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    first.says("Done")
    assert first.output.inner_text() == "stranger 1\n"
    second.press("Run")
    assert "cell 2 came" in asks.inner_text(), "a leave for one is none for another"
    page.reload()
    second.text.content.wait_for()
    first.press("Run")  # once is enough
    first.says("Done")
    second.press("Run")
    assert "cell 2 came" in asks.inner_text()
    second.press("I have read it: run")
    second.says("Done")
    assert second.output.inner_text() == "stranger 2\n"
    assert page.evaluate("localStorage.getItem('peft-book-imported')") == "{}"


def test_the_books_own_code_and_a_readers_edit_ask_nothing(strangers):
    page, _ = strangers
    cell = Cell(page, 0)
    cell.press("Forget my edit")
    cell.press("Edit and run")
    cell.run("print(1)")
    page.reload()
    assert cell.run("print(2)") == "2\n"
    cell = Cell(page, 1)
    cell.press("Back to the printed code")
    cell.press("Edit and run")  # the stranger's text stands there again
    cell.press("Run")
    assert "cell 2 came" in cell.box.locator(".in-page-ask").inner_text()


def test_a_strangers_code_stays_one_when_another_tab_forgets_it(strangers, site):
    page, _ = strangers
    cell, other = Cell(page, 0), page.context.new_page()
    asks = cell.box.locator(".in-page-ask")
    other.goto(f"{site}/book/your-work.html")
    for _ in range(2):
        other.get_by_role("button", name="Forget everything").click()
    other.get_by_text("All is forgotten").wait_for()
    cell.press("Run")
    assert "cell 1 came" in asks.inner_text()
    cell.press("Do not run")
    cell.text.fill("print('stranger 1')  # changed")  # and so it is kept again
    page.reload()
    cell.press("Run")
    assert "cell 1 came" in asks.inner_text() and page.evaluate("said") == []


def test_the_name_of_a_file_ends_no_quotation(strangers):
    page, _ = strangers
    page.evaluate(r"""() => {
        const all = JSON.parse(localStorage.getItem("peft-book-imported"));
        for (const cells of Object.values(all)) for (const name of Object.keys(cells)) {
            cells[name] = "a”; it is fine.\u202e\n“\"b\" ’c";
        }
        localStorage.setItem("peft-book-imported", JSON.stringify(all));
    }""")
    page.reload()
    cell = Cell(page, 0)
    cell.press("Run")
    said = cell.box.locator(".in-page-ask p").text_content()
    assert re.findall("“.*?”", said) == ["“a ; it is fine. b c”"] and "\u202e" not in said


def test_an_exercise_is_checked_on_its_page(served_page, site):
    page = served_page(EXERCISE)
    task, check = Cell(page, 1), Cell(page, 6)
    check.press("Edit and run")
    check.press("Run")
    check.says("Done")
    assert "not yet" in check.output.text_content()
    task.press("Edit and run")
    task.text.fill("from exercises.ex2_lora_dropout.solution import LoRADropoutLayer")
    check.press("Run")  # the edit above it is run again by itself
    check.says("Done")
    assert "not yet" not in check.output.text_content()
    assert "passed" in check.output.text_content()
    page.goto(f"{site}/book/exercises/index.html")
    assert page.locator("[data-exercise]:checked").count() == 1, "the pass is not ticked"


def test_what_stands_below_a_changed_cell_is_run_again_too(served_page):
    """Else a cell would show what its predecessors made of the earlier text, and say nothing."""
    page = served_page(EXERCISE)
    first, task, last = Cell(page, 0), Cell(page, 1), Cell(page, 2)
    for cell in (first, task, last):
        cell.press("Edit and run")
    first.text.fill("rank = 8")
    task.text.fill("width = 10 * rank")
    assert last.run("print(rank, width)") == "8 80\n"
    first.text.fill("rank = 16")
    assert last.run("print(rank, width) ") == "16 160\n"
    first.run("rank = 4")
    last.press("Run")
    last.output.get_by_text("4 40").wait_for()
    last.says("Done")
    page.evaluate("said.length = 0")
    last.run("print(width)")
    assert [one["source"] for one in page.evaluate("said") if one["type"] == "run"] == [
        "print(width)"], "what has not changed runs again"


def test_from_a_cell_that_waits_a_button_leads_to_the_one_that_fails(served_page):
    """The pages number no cell, and the failing one may stand screens above."""
    page = served_page(EXERCISE, viewport={"width": 360, "height": 740})
    first, check = Cell(page, 0), Cell(page, 3)
    first.press("Edit and run")
    first.text.fill("1 / 0")
    check.press("Check step 2")
    check.says("Not run, because cell 1 above fails.")
    check.press("Go to cell 1")
    assert "ZeroDivisionError" in page.evaluate("document.activeElement.textContent")
    expect(first.output).to_be_in_viewport(ratio=1)
    first.run("pass")
    check.press("Check step 2")
    check.says("Not run, because cell 2 above fails.")
    first.text.fill("import time\ntime.sleep(3)")
    first.press("Run")
    check.press("Check step 2")
    check.says("Cell 1 is running")
    check.box.get_by_role("button", name="Go to cell 1").wait_for()
    first.says("Done")
    task = Cell(page, 1)
    task.press("Edit and run")
    task.press("Check step 1")
    task.says("this cell fails")
    assert task.box.get_by_role("button", name="Go to cell").count() == 0


def test_one_press_of_a_check_counts_as_one(served_page):
    """The checks of other steps stand above it; the hints count how often a reader has failed."""
    page = served_page(EXERCISE)
    task = Cell(page, 1)
    task.press("Edit and run")
    task.text.fill("class LoRADropoutLayer:\n    pass")
    for times in (1, 2):
        task.press("Check all steps")
        task.says("Done")
        assert ("2 times" in task.output.inner_text()) == (times == 2)


@pytest.mark.parametrize("width", [1280, 360])
def test_an_exercise_is_checked_beside_its_editor_and_ticked_in_the_contents(served_page, width):
    page = served_page(EXERCISE, viewport={"width": width, "height": 740})
    task, step, everything = Cell(page, 1), Cell(page, 3), Cell(page, 6)
    assert page.locator("div.cell .cell_output table").count() == 0, "reports of nothing done"
    assert page.locator(".exercise-done").count() == 0
    step.press("Check step 2")  # with no editor opened
    step.says("Done", "Not yet")
    assert step.text.content.count() == 0

    task.press("Edit and run")
    wrong = source_of("ex2_lora_dropout").replace("(self.scaling * Ax)", "Ax")
    task.text.fill(wrong)
    task.box.get_by_role("button", name="Check step 2").focus()
    page.keyboard.press("Enter")
    task.says("Done")
    assert "This looks like" in task.output.inner_text() and "Hint" not in task.output.inner_text()
    assert page.evaluate("document.activeElement.textContent") == "Check step 2", "focus is lost"
    task.text.fill(f"{wrong}\n")
    task.press("Check step 2")
    task.output.get_by_text("failed 2 times").wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # colours of the theme change slowly
        assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    task.text.fill(source_of("ex2_lora_dropout"))
    task.press("Check all steps")
    task.says("Done", re.compile(r"All \d+ tests passed"))
    done = page.locator(".bd-links a:has(.exercise-done)")
    assert done.count() == 1 and "LoRA dropout" in done.text_content()
    page.goto(page.url.replace("ex2-lora-dropout", "index"))
    assert page.locator("[data-exercise]:checked").count() == done.count() == 1
    page.get_by_role("button", name="Clear").click()
    assert done.count() == 0
    page.go_back()
    page.wait_for_load_state()
    assert done.count() == 0, "a page that the browser has kept shows what was"
    assert everything.box.get_by_role("button", name="Check all steps").is_visible()


def every_tenth_mistake():
    rooms = exercise_tools.ROOMS
    every = [(room, mistake) for room in rooms
             for _, mistake in listed(exercise_tools.module(room, "mistakes").MISTAKES)][::10]
    return [(room, [mistake for where, mistake in every if where == room]) for room in rooms]


@pytest.mark.parametrize(("room", "mistakes"), every_tenth_mistake())
def test_every_tenth_mistake_gets_its_diagnosis_in_its_page(served_page, room, mistakes):
    name = f"book/exercises/{room.replace('_', '-')}"
    cells, shown = code_cells(f"{name}.ipynb")
    sources = ["".join(cell["source"]) for cell in cells]
    place = next(at for at, source in enumerate(sources) if "raise NotImplementedError" in source)
    last = next(at for at, source in enumerate(sources) if source.startswith("report ="))
    page = served_page(name)
    task, check = Cell(page, place), Cell(page, last)
    for cell in (task, check):
        cell.press("Edit and run")
    asked = sources[last].removesuffix("report")
    told = {}
    for mistake in mistakes:
        task.text.fill(source_of(room, mistake))
        said = check.run(f"# {mistake.name}\n{asked}print(report.diagnosis.mistake, "
                         "report.diagnosis.seen)")
        diagnosis, _, seen = said.partition(" ")
        told[mistake.name] = (diagnosis, seen.startswith(mistake.seen))
    assert told == {mistake.name: (mistake.diagnosis, True) for mistake in mistakes}


#: Cells and what is told of each: the error and, where there is one, the reader's line.
AMISS = {
    "def f():\n  x = 1\n y = 2": ("IndentationError", "Line 3"),  # tokenize refuses it, no parser
    "kept = 1\neval('1 +')": ("SyntaxError", "Line 2"),
    "'\ud800'": ("UnicodeEncodeError",),
    "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])": ("ExceptionGroup", "Line 1"),
    "class Odd(Exception):\n    def __str__(self):\n        return 1\nraise Odd": (
        "Odd", "TypeError", "Line 4"),
    "class Odd:\n    def __repr__(self):\n        1 / 0\nOdd()": ("ZeroDivisionError", "Line 3"),
    "%pip install torch": ("RuntimeError", "no pip"),
    "!ls": ("RuntimeError", "no shell"), "names = !ls": ("RuntimeError", "no shell"),
    "%%bash\nls": ("RuntimeError", "no shell"), "%%nonsense": ("UsageError",),
    "exit()": ("RuntimeError", "Line 1"), "import sys\nsys.exit(3)": ("SystemExit: 3", "Line 2"),
}


def test_whatever_goes_wrong_in_a_cell_is_told_and_python_stays(served_page):
    cell = Cell(served_page(EXERCISE), 0)
    cell.press("Edit and run")
    bar = cell.box.get_by_role("progressbar", name="Loading Python")
    bar.wait_for()
    bar.wait_for(state="hidden")
    cell.run("kept = 7")
    for source, parts in AMISS.items():
        shown = cell.run(source, says="error")
        assert [part for part in parts if part not in shown] == [], (source, shown)
        assert "To exit" not in shown
    for source in ("%tb", "%matplotlib inline"):
        cell.run(source)
    assert cell.run("print(kept)") == "1\n"


def test_what_is_printed_looks_as_in_a_terminal_and_a_large_result_is_cut(served_page):
    cell = Cell(served_page(EXERCISE), 0)
    cell.press("Edit and run")
    slow = "\n    time.sleep(0.1)"
    slow = f"import time\nfor done in (1, 20, 3):\n    print(f'\\r{{done}} %', end=''){slow}"
    assert cell.run(slow) == "3 %"
    assert cell.run("print('a\\r\\nb\\rc\\x1b[31md\\x1b[0m')") == "a\ncd\n"
    assert "\x1b" not in cell.run("print?")
    assert len(cell.run("'x' * 300_000")) < 101_000
    assert "further" in cell.output.text_content()
    cell.run("from IPython.display import Math\nMath(r'\\Delta W = s B A')")
    cell.output.locator(".katex-display").wait_for()
    cell.run("import ipywidgets\nipywidgets.IntSlider()")
    assert "above" not in cell.output.text_content(), "there is no widget in print"


def test_python_that_is_ended_from_inside_is_told_and_begins_anew(served_page):
    page = served_page(EXERCISE)
    cell = Cell(page, 0)
    cell.press("Edit and run")
    cell.run("import os\nos._exit(1)", says="broken down")
    assert cell.run("print(6 * 7)") == "42\n"


def test_it_works_from_a_plain_address_in_a_classroom(served_page, site, chromium):
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=[
        "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--host-resolver-rules=MAP classroom.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
    page = served_page(EXERCISE, site.replace("127.0.0.1", "classroom.test"), browser)
    assert not page.evaluate("isSecureContext")
    cell = Cell(page, 0)
    cell.press("Edit and run")
    assert cell.run("import peft\nprint(6 * 7)", says="error")
    assert cell.run("import sys\nsys.path.insert(0, '../../code/stage-09')\n"
                    "import peft\nprint(6 * 7)") == "42\n"
    browser.close()


def test_a_page_opened_as_a_file_says_what_to_do(html, chromium):
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(f"{html.as_uri()}/{CHAPTER}.html")
    page.get_by_role("button", name="Edit and run").last.click()
    dialog = page.locator("dialog.launch-help[open]")
    assert "python -m http.server" in dialog.inner_text()
    there = dialog.get_by_role("link").get_attribute("href")
    assert there == f"http://localhost:8000/{CHAPTER}.html"
    assert page.locator(".in-page-editor").count() == 0
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_only_notebooks_that_run_get_the_script_and_little_else(html, site, name):
    page = html / name.replace("ipynb", "html")
    text = page.read_text("utf-8")
    assert (f'data-notebook="{name}"' in text) == lite.runs_in_browser(name)
    assert text == content_policy.with_policy(text), "the policy is of another state"
    early = sum(path.stat().st_size for path in in_page.before_a_click(html))
    assert early + len("".join(in_page.TAGS.findall(text))) <= 15_000  # bytes


def archived(data):
    """The files of what archive.py has made, as worker.js reads it."""
    data = gzip.decompress(data)
    at, files = 4 + int.from_bytes(data[:4], "little"), {}
    for name, size in json.loads(data[4:at]):
        files[name] = data[at:at + size]
        at += size
    assert at == len(data)
    return files


def test_what_python_starts_from_is_whole_and_names_no_machine(site):
    shipped = HTML / "lite" / "static" / "pyodide"
    files = archived((shipped / lite.START).read_bytes())
    memory = files.pop("memory")
    assert next(iter(files)).startswith("/lib/python3.") and len(memory) % 16 == 0
    assert not [word for word in (str(ROOT), "lite/memory.mjs") if word.encode() in memory]
    packages = {name.replace("_", "-") for name in re.findall(
        r"site-packages/([^/]+)-[^-/]+\.dist-info/METADATA", "\n".join(files))}
    lock = lite_tools.load(shipped / "pyodide-lock.json")["packages"]
    assert {"ipython", "numpy"} <= packages <= {lock[name]["name"] for name in packages}
    worker = next((HTML / in_page.PLACE).iterdir()) / "worker.js"
    assert f'"{lite.START}?{in_page.edition(shipped / lite.START)}"' in worker.read_text("utf-8")


def test_adding_it_twice_changes_nothing_and_needs_the_notebooks_own_cells(tmp_path):
    name = f"{EXERCISE}.ipynb"
    cells = in_page.cells_of(ROOT / name)
    made = '<meta charset="utf-8"></head>' + '<div class="cell docutils">' * len(cells)
    page = tmp_path / f"{EXERCISE}.html"
    page.parent.mkdir(parents=True)
    page.write_text(made)
    in_page.add(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    in_page.add(tmp_path)
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    [place] = (tmp_path / in_page.PLACE).iterdir()
    assert page.read_text("utf-8").count(place.name) == 2  # no browser takes another edition's
    kept = json.loads((place / "cells" / f"{EXERCISE}.json").read_text("utf-8"))
    assert kept == cells
    names = {Path(name).relative_to(in_page.HOME).as_posix(): text
             for name, text in archived((place / "code.bin").read_bytes()).items()}
    assert names["code/stage-09/peft.py"] == (ROOT / "code/stage-09/peft.py").read_bytes()
    assert {"in-page/reader.py", "in-page/imports.py"} <= names.keys()
    assert not [name for name in names if name.endswith(("mistakes.py", ".pyc"))]
    with pytest.raises(RuntimeError, match=name):
        in_page.with_start(made, name, cells[1:], place)


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """What asks Python in the worker, with a kernel that runs nothing; `sent` is what it said."""
    kernel = SimpleNamespace(run=lambda source: asyncio.sleep(0, {"status": "ok"}))
    stand_ins = {"imports": SimpleNamespace(hidden_imports=lambda *_: []),
                 "pyodide_js": SimpleNamespace(loadPackage=lambda _: asyncio.sleep(0)),
                 "pyodide_kernel": SimpleNamespace(
                     ipython_shell=SimpleNamespace(transform_cell=str), kernel_instance=kernel)}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("in_page_reader", in_page.HERE / "reader.py")
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    made.sent = []
    made.OUTPUTS.publish = lambda text: made.sent.append(json.loads(text))
    return made


def finish(work):
    """Run to its end what is awaited; this thread has Playwright's loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.mark.parametrize("text", ["{half", "[1, 2]", "7", "[" * 100_000, b"\xff"])
def test_nonsense_in_the_progress_file_breaks_no_cell(reader, tmp_path, text):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "peft-book-progress.json").write_bytes(data)
    assert finish(reader.run("1")) is None and reader.sent == []


def test_a_pass_is_handed_to_the_page(reader, tmp_path):
    (tmp_path / "peft-book-progress.json").write_text('{"1": "2026-01-01"}')
    finish(reader.run("1"))
    assert reader.sent == [{"output_type": "progress", "done": {"1": "2026-01-01"}}]


def test_what_displays_itself_sends_no_empty_output(reader):
    reader.OUTPUTS.show({}, {}, kind="execute_result")
    assert reader.sent == []


def test_a_cell_that_clears_without_end_sends_no_more_than_the_page_takes(reader):
    """An honest cell: it is not ended, and its last word arrives."""
    for _ in range(reader.MESSAGES):
        reader.OUTPUTS.stream("stdout", ".")
        reader.OUTPUTS.clear()
    reader.OUTPUTS.end()
    assert len(reader.sent) == reader.MESSAGES + 1
    assert reader.sent[-1]["text"].startswith("\n[The page shows no more")
    reader.OUTPUTS.begin()
    reader.OUTPUTS.clear()
    assert reader.sent[-1] == {"output_type": "clear", "wait": False}
