"""The book in a second engine: pages and widgets from disk, an exercise in the browser."""

from pathlib import Path

import firefox_tools
import lite_tools
import pytest
from conftest import HTML, ROOT, missing, pages
from lite import build as lite
from test_in_page import REACH as IN_PAGE_REACH
from test_lite import PRINTED, REACH, TOLERANCE

EXERCISE = "book/exercises/ex2-lora-dropout.ipynb"
#: Types into a page's first cell, and runs it.
IN_PAGE = """async (code) => {
    const cell = document.querySelector("div.cell");
    const press = (name) => [...cell.querySelectorAll("button")]
        .find((one) => one.textContent === name).click();
    press("Edit and run");
    while (!cell.querySelector("textarea")) await new Promise((go) => setTimeout(go, 50));
    cell.querySelector("textarea").value = code;
    press("Run");
}"""
SOLUTION = "book/solutions/sol2-lora-dropout.ipynb"


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


def test_a_solution_passes_its_checks_in_firefox(firefox, site):
    firefox.resize(1280, 900)
    firefox.goto(f"{site}/lite/notebooks/index.html?path={SOLUTION}")
    firefox.wait_for(lite_tools.IDLE, 180)
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


def test_without_a_service_worker_a_cell_reaches_no_other_host_in_firefox(classroom):
    page, address = classroom
    with lite_tools.other_host() as (there, asked):
        page.goto(f"{address}/lite/notebooks/index.html?path={EXERCISE}")
        page.wait_for(lite_tools.IDLE, 180)
        reach = REACH.format(there=there, here=f"{address}/objects.inv",
                             scripts=worker_files(address))
        assert page.evaluate(PRINTED, reach) == "no no 200 200 ends ends ends"
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        assert page.evaluate(PRINTED, reach) == "no no 200 200 ends ends ends"
    assert asked == []


def test_in_a_page_a_cell_reaches_no_other_host_in_firefox(classroom):
    page, address = classroom
    with lite_tools.other_host() as (there, asked):
        page.evaluate(IN_PAGE, IN_PAGE_REACH.format(there=there, here=f"{address}/objects.inv"))
        page.wait_for("() => document.querySelector('div.cell .in-page-output')"
                      "?.textContent.trim().split(/\\s+/).length === 7", 180)
        said = page.evaluate("() => document.querySelector('div.cell .in-page-output').textContent")
    assert said.split() == ["refused"] * 2 + ["asked", "200", "answered", "200", "refused"]
    assert asked == []


def test_what_a_cell_runs_reaches_no_other_host_in_firefox(site, tmp_path):
    """From the first visit on, when the service worker, which brings the policy, is just made."""
    if not firefox_tools.FIREFOX:
        missing("no Firefox: install it (Debian: apt-get install firefox-esr) or set FIREFOX")
    with lite_tools.other_host() as (there, asked), firefox_tools.firefox(tmp_path) as page:
        reach = REACH.format(there=there, here=f"{site}/objects.inv", scripts=[])
        for _ in range(2):
            page.goto(f"{site}/lite/notebooks/index.html?path={EXERCISE}")
            page.wait_for(lite_tools.IDLE, 180)
            assert page.evaluate(PRINTED, reach) == "no no 200 200"
            assert page.evaluate(PRINTED, "print(open('../../code/stage-09/peft.py').read(3))")
    assert asked == []
