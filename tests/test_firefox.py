"""The book in a second engine: pages and widgets from disk, an exercise in the browser."""

import time
import zipfile
from pathlib import Path

import firefox_tools
import lite_tools
import pytest
from conftest import HTML, LISTEN, ROOT, UNCOVERED, missing, pages
from firefox_tools import KEYS
from lite import build as lite
from test_in_page import REACH as REACH_FROM_PAGE
from test_in_page import code_cells, differing, outputs_by_source
from test_lite import PRINTED, REACH, TOLERANCE

from exercises.mistakes import source_of

EXERCISE = "book/exercises/ex2-lora-dropout.ipynb"
SOLUTION = "book/solutions/sol2-lora-dropout.ipynb"
#: Pages whose cells run here, too: an exercise, and a chapter with figures and a widget.
SAMPLE = [EXERCISE, "book/03-adapters.ipynb"]
#: Press a cell's button that is to be seen.
PRESS = """(number, name) => [...document.querySelectorAll("div.cell")[number]
    .querySelectorAll("button")].find((one) => one.textContent === name && !one.hidden).click()"""
SAYS = """() => / s\\.$|error|fails|broken|Stopped/.test(document.querySelectorAll("div.cell")[%d]
    .querySelector("[role=status]")?.textContent)"""
OUTPUT = """(number) => document.querySelectorAll("div.cell")[number]
    .querySelector(".in-page-output").textContent"""


@pytest.fixture(scope="module")
def firefox(html, tmp_path_factory):
    if not firefox_tools.FIREFOX:
        missing("no Firefox: install it (Debian: apt-get install firefox-esr) or set FIREFOX")
    with firefox_tools.firefox(tmp_path_factory.mktemp("firefox")) as page:
        yield page


@pytest.mark.parametrize("name", pages())
def test_page_is_sound_in_firefox(firefox, html, name):
    firefox.faults.clear()
    firefox.resize(375, 812)
    firefox.goto(f"{html.as_uri()}/{name}")
    if 'class="math' in (html / name).read_text("utf-8"):
        firefox.wait_for("() => document.querySelector('.katex')", 30)
    firefox.evaluate("() => window.bookWidgets?.showAll()")
    firefox.wait_for("""() => document.querySelectorAll(".peft-widget").length >=
        document.querySelectorAll('script[type$="widget-view+json"]').length""", 30)
    found = firefox.evaluate("""() => [document.documentElement.scrollWidth,
        document.querySelectorAll(".katex-error").length,
        [...document.images].filter((i) => i.complete && !i.naturalWidth).length]""")
    assert found[0] <= 375, "the page scrolls sideways"
    assert found[1:] == [0, 0], "formulas that KaTeX refuses, images that do not load"
    assert firefox.faults == []


def test_a_slider_moves_in_firefox(firefox, html):
    firefox.goto(f"{html.as_uri()}/book/05-choosing-a-method.html")
    firefox.evaluate("() => window.bookWidgets.showAll()")
    firefox.wait_for("() => document.querySelector('.peft-widget input[data-name=lora_rank]')", 30)
    before, after = firefox.evaluate("""async () => {
        const slider = document.querySelector(".peft-widget input[data-name=lora_rank]");
        const row = slider.closest(".cell_output").querySelector("tr[data-method=lora]");
        const before = Number(row.dataset.params);
        slider.value = slider.max;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise((go) => requestAnimationFrame(() => setTimeout(go, 100)));
        return [before, Number(row.dataset.params)];
    }""")
    assert after > before


def open_notebook(page, address, name):
    """Until its kernel has started. Now and then Firefox starts no worker: then once more."""
    for seconds in (100, 100, 300):
        page.goto(f"{address}/lite/notebooks/index.html?path={name}")
        try:
            return page.wait_for(lite_tools.IDLE, seconds)
        except RuntimeError as error:
            last = error
    raise last


def test_a_solution_passes_its_checks_in_firefox(firefox, site):
    firefox.resize(1280, 900)
    open_notebook(firefox, site, SOLUTION)
    wrong, found = [], ""
    for index, cell in enumerate(lite_tools.load(Path(ROOT / SOLUTION))["cells"]):
        if cell["cell_type"] == "code" and "tests passed" not in found:  # what follows is longer
            found = lite_tools.text_of(firefox.evaluate(lite_tools.RUN, index))
            assert "Error:" not in found, found
            if "nbval-ignore-output" not in cell["metadata"].get("tags", []):
                wrong += lite_tools.differences(lite_tools.text_of(cell["outputs"]), found,
                                                TOLERANCE)
    assert wrong == [] and "tests passed" in found


def worker_files(address):
    """The scripts of JupyterLite's that run what they are told, as a cell may try to start them."""
    scripts = [path for path in (HTML / "lite").rglob("*.js")
               if path.read_text("utf-8").startswith(lite.GUARD)]
    assert len(scripts) == 2
    return [f"{address}/{path.relative_to(HTML).as_posix()}"
            for path in [HTML / "lite" / "early.js", *scripts]]


@pytest.fixture
def classroom(site, tmp_path):
    """A page in Firefox, and the book's address in a class: plain http, so no service worker."""
    if not firefox_tools.FIREFOX:
        missing("no Firefox: install it (Debian: apt-get install firefox-esr) or set FIREFOX")
    with firefox_tools.firefox(tmp_path) as page:
        address = site.replace("127.0.0.1", "classroom.test")
        page.goto(f"{address}/{EXERCISE.replace('ipynb', 'html')}")
        assert page.evaluate("() => !isSecureContext && navigator.serviceWorker === undefined")
        yield page, address


def restart(page):
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")


def answered(page, code):
    """What `code` prints. Now and then Firefox never comes back from a worker's `new Worker`, be it
    in Python or JavaScript (in about one of ten kernels): then in a new kernel."""
    for _ in range(4):
        try:
            return page.evaluate(PRINTED.replace("180", "60"), code)
        except RuntimeError as error:
            if "60 s" not in str(error):
                raise
            restart(page)
    raise AssertionError("no answer in any of four kernels")


def test_without_a_service_worker_a_cell_reaches_no_other_host_in_firefox(classroom):
    page, address = classroom
    with lite_tools.other_host() as (there, asked):
        open_notebook(page, address, EXERCISE)
        reach = REACH.format(there=there, here=f"{address}/objects.inv",
                             scripts=worker_files(address))
        assert answered(page, reach) == "no no 200 200 ends ends ends"
        restart(page)
        assert answered(page, reach) == "no no 200 200 ends ends ends"
    assert asked == []


def open_editor(page, number):
    page.wait_for("() => document.querySelector('.in-page-edit')", 30)
    page.evaluate(PRESS, number, "Edit and run")
    page.wait_for("() => document.activeElement.matches('.cm-content')", 60)


def run_in_first_cell(page, code):
    """Write into the editor of a page's first cell, run it, and give what it prints."""
    open_editor(page, 0)
    page.type("a", held=KEYS["Control"])
    page.evaluate("(text) => document.execCommand('insertText', false, text)", code)
    page.type(KEYS["Enter"], held=KEYS["Control"])
    page.wait_for(SAYS % 0, 180)
    return page.evaluate(OUTPUT, 0)


def test_in_a_page_a_cell_reaches_no_other_host_in_firefox(classroom):
    page, address = classroom
    with lite_tools.other_host() as (there, asked):
        reach = REACH_FROM_PAGE.format(there=there, here=f"{address}/objects.inv")
        shown = run_in_first_cell(page, reach)
    assert shown.split() == ["refused"] * 2 + ["asked", "200", "answered", "200", "refused"]
    assert asked == []


def test_what_a_cell_runs_reaches_no_other_host_in_firefox(site, tmp_path):
    """From the first visit on, when the service worker, which brings the policy, is just made."""
    if not firefox_tools.FIREFOX:
        missing("no Firefox: install it (Debian: apt-get install firefox-esr) or set FIREFOX")
    with lite_tools.other_host() as (there, asked), firefox_tools.firefox(tmp_path) as page:
        reach = REACH.format(there=there, here=f"{site}/objects.inv", scripts=[])
        for _ in range(2):
            open_notebook(page, site, EXERCISE)
            assert answered(page, reach) == "no no 200 200"
            assert page.evaluate(PRINTED, "print(open('../../code/stage-09/peft.py').read(3))")
    assert asked == []


@pytest.fixture
def in_page(firefox, site):
    """Opens the page of a notebook, and a cell's editor in it."""
    ends = [firefox.before_scripts(f"if (location.protocol === 'http:') {{ {statements} }}")
            for statements in (LISTEN, UNCOVERED)]

    def edit(name, number):
        firefox.resize(1280, 900)
        firefox.goto(f"{site}/book/licences.html")  # a page of this address, without an editor
        firefox.evaluate("() => localStorage.clear()")  # what the test before has edited
        firefox.faults.clear()
        firefox.goto(f"{site}/{name.replace('ipynb', 'html')}")
        open_editor(firefox, number)

    yield edit
    for end in ends:
        end()
    firefox.goto("about:blank")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_pages_cells_give_the_committed_outputs_in_firefox(firefox, in_page, name):
    cells, shown = code_cells(name)
    in_page(name, shown[-1])
    firefox.evaluate(PRESS, shown[-1], "Run")
    firefox.wait_for(SAYS % shown[-1], 300)
    runs = outputs_by_source(firefox.evaluate("() => said"))
    assert differing(cells[:shown[-1] + 1], runs) == []
    # Firefox would fetch the next page ahead, which no page's policy allows.
    assert [fault for fault in firefox.faults if "default-src" not in fault] == []


def test_a_cell_is_written_and_run_with_the_keyboard_in_firefox(firefox, in_page):
    in_page(EXERCISE, 0)
    firefox.type("a", held=KEYS["Control"])
    firefox.type(f"for i in range(2):{KEYS['Enter']}print(6 * (7 + i")  # closes what it opens
    firefox.type(KEYS["Enter"], held=KEYS["Control"])
    firefox.wait_for(SAYS % 0, 180)
    assert firefox.evaluate(OUTPUT, 0) == "42\n48\n"
    firefox.type(KEYS["Escape"] + KEYS["Tab"])
    assert firefox.evaluate("() => document.activeElement.tagName") == "BUTTON"


def test_an_exercise_is_checked_beside_its_editor_in_firefox(firefox, in_page):
    in_page(EXERCISE, 1)
    firefox.evaluate(PRESS, 1, "Check step 1")
    firefox.wait_for("""() => /Done .* Not yet/.test(document.querySelectorAll("div.cell")[1]
        .querySelector("[role=status]").textContent)""", 180)
    assert "not yet" in firefox.evaluate(OUTPUT, 1)


def follow(page, link):
    """Go where a link of the page leads that a reader can see."""
    page.goto(page.evaluate("""(link) => [...document.querySelectorAll(`main ${link}`)]
        .find((one) => one.offsetParent).href""", link))


def test_a_phone_goes_from_the_front_page_to_a_passed_exercise_and_an_adapter(site, tmp_path):
    if not firefox_tools.FIREFOX:
        missing("no Firefox: install it (Debian: apt-get install firefox-esr) or set FIREFOX")
    with firefox_tools.firefox(tmp_path) as page:
        page.resize(360, 740)
        page.goto(f"{site}/book/index.html")
        follow(page, ".sd-card a[href='exercises/index.html']")
        follow(page, "a[href='ex1-lora-feed-forward.html']")
        open_editor(page, 1)
        page.type("a", held=KEYS["Control"])
        page.evaluate("(text) => document.execCommand('insertText', false, text)",
                      source_of("ex1_lora_feed_forward"))
        page.evaluate(PRESS, 1, "Check all steps")
        page.wait_for("""() => /Done .* passed/.test(document.querySelectorAll("div.cell")[1]
            .querySelector("[role=status]").textContent)""", 180)
        done = page.evaluate("() => document.querySelector('nav.bd-links .current').textContent")
        assert "done" in done
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360

        page.goto(f"{site}/book/index.html")
        follow(page, ".sd-card a[href='playground.html']")
        page.wait_for("() => document.querySelector('#playground .peft-widget')", 30)
        press = """(name) => [...document.querySelectorAll("#playground button")]
            .find(({ textContent }) => textContent === name).click()"""
        page.evaluate(press, "One step")
        page.wait_for("""() => [...document.querySelectorAll("#playground button")].some(
            ({ textContent, disabled }) => /^Download/.test(textContent) && !disabled)""", 180)
        page.evaluate(press, "Download the adapter")
        page.wait_for("() => document.documentElement.scrollWidth <= 360", 1)
        with zipfile.ZipFile(downloaded(tmp_path, "*.zip")) as archive:
            assert any(name.endswith("adapter_config.json") for name in archive.namelist())

        order_lines(page, site)
        page.wait_for("() => document.documentElement.scrollWidth <= 360", 1)
        take_work_along(page, site, tmp_path)
        page.wait_for("() => document.documentElement.scrollWidth <= 360", 1)
        assert [fault for fault in page.faults if "default-src" not in fault] == []


def downloaded(folder, names):
    """The whole file that comes into a folder."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = [path for path in folder.glob(names) if path.stat().st_size]
        if found and not [*folder.glob("*.part")]:
            return found[0]
        time.sleep(0.1)
    raise RuntimeError(f"no {names} has come")


#: Take a line, keep it where the page calls it right, and else put it back until its turn comes.
ORDER = """async () => {
    const root = document.querySelector(".peft-widget");
    const reply = () => root.querySelector(".pw-reply").textContent;
    const press = async (query) => {
        root.querySelector(query).click();
        for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
    };
    const lines = [...root.querySelectorAll("[data-name=take]")].map(({ dataset }) => dataset.line);
    for (let wrong = 0; wrong < lines.length;) {
        const line = lines.shift();
        await press(`[data-name=take][data-line="${line}"]`);
        await press("[data-name=check]");
        if (reply().startsWith("Right, and")) break;
        if (reply().startsWith("Right so far")) {
            wrong = 0;
        } else {
            await press(`[data-name=back][data-line="${line}"]`);
            lines.push(line);
            wrong += 1;
        }
    }
    return reply();
}"""


def order_lines(page, site):
    """Solve the first Parsons problem."""
    page.goto(f"{site}/book/exercises/parsons.html")
    page.wait_for("() => document.querySelector('.peft-widget [data-name=take]')", 30)
    assert page.evaluate(ORDER).startswith("Right, and")


def take_work_along(page, site, folder):
    """Export what this browser keeps, forget it, and read it in again."""
    press = """(name) => [...document.querySelectorAll("#my-work button")]
        .find(({ textContent }) => textContent === name).click()"""
    says = "() => document.querySelector('#my-work [role=status]').textContent.includes('%s')"
    kept = "() => Object.keys(localStorage).filter((key) => / edits |-progress$/.test(key)).sort()"
    page.goto(f"{site}/book/your-work.html")
    before = page.evaluate(kept)
    assert len(before) == 2, "an edit and a passed exercise"
    page.evaluate(press, "Export my work")
    file = downloaded(folder, "peft-book-work*.json")
    page.evaluate(press, "Forget everything")
    page.evaluate(press, "Forget everything")
    page.wait_for(says % "All is forgotten", 30)
    assert page.evaluate(kept) == []
    page.choose_file("#my-work input[type=file]", file)
    page.wait_for(says % "added", 30)
    assert page.evaluate(kept) == before


def test_the_model_trains_in_the_page_in_firefox(firefox, in_page, site):
    firefox.faults.clear()
    firefox.goto(f"{site}/book/playground.html")
    firefox.wait_for("() => document.querySelector('#playground .peft-widget')", 30)
    firefox.evaluate("""() => [...document.querySelectorAll("#playground button")]
        .find(({ textContent }) => textContent === "One step").click()""")
    firefox.wait_for("""() => document.querySelector("#playground-place [role=status]")
        .textContent.startsWith("Step 1 of")""", 300)
    firefox.wait_for("() => document.querySelector('#playground table.pw-map td')", 60)
    assert [fault for fault in firefox.faults if "default-src" not in fault] == []
