"""Fixtures of the tests of the built book, which `make book` must have made."""

from pathlib import Path

import lite_tools
import pytest
from chromium import CHROMIUM, launched
from needs import missing

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
PATIENCE = 600_000  # milliseconds, on a machine that does much else
#: Notes what goes to the worker and what comes back, from before the page's first script.
LISTEN = """window.said = [];
window.Worker = class extends Worker {
    constructor(...all) {
        super(...all);
        this.addEventListener("message", ({ data }) => said.push(data));
    }
    postMessage(data) {
        said.push(data);
        super.postMessage(data);
    }
};"""


#: No question covers what the cells below it show; test_questions_browser.py has its own pages.
UNCOVERED = """localStorage.getItem("peft-book-questions")
    ?? localStorage.setItem("peft-book-questions", '{"open": true}')"""


def pages():
    """The pages of the built book, by their path below _build/html."""
    found = sorted(path.relative_to(HTML).as_posix() for path in (HTML / "book").rglob("*.html"))
    return found or ["book/index.html"]  # then every test says what is missing


@pytest.fixture(scope="session")
def html():
    if not (HTML / "book" / "index.html").exists():
        pytest.fail(f"{HTML} has no book: run make book first")
    return HTML


@pytest.fixture(scope="session")
def site(html):
    """The address of the built book with Python in the browser, one server for a worker's tests."""
    if not (html / "lite" / "index.html").exists():
        missing("the book was built without Python in the browser: run make book with a network")
    with lite_tools.served(HTML) as address:
        yield address


def pytest_collection_modifyitems(items):
    """The slowest first: so no worker is left with one of them at the end."""
    items.sort(key=lambda item: not {"test_notebook_runs_in_the_browser",
                                     "test_a_pages_cells_give_the_committed_outputs",
                                     "test_a_solution_passes_its_checks_in_firefox"}
               & {getattr(item, "originalname", None)})


@pytest.fixture(scope="session")
def chromium(html):
    """A browser that can reach nothing but this machine; one for all tests of a worker."""
    if not Path(CHROMIUM).exists():
        missing(f"no Chromium at {CHROMIUM}: install it (Debian: apt-get install chromium) or "
                "set CHROMIUM to its path")
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)  # milliseconds; a page's policy forbids wait_for_function
    with launched() as browser:
        yield browser


@pytest.fixture
def served_page(site, chromium):
    """Opens a page of the book by its name; nothing may be asked of another host, or fail."""
    faults, contexts = [], []

    def visit(name, address=site, browser=chromium, **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(LISTEN)
        page.add_init_script(UNCOVERED)
        here = (address, "data:", "blob:", "about:")
        page.on("request", lambda asked: asked.url.startswith(here)
                or faults.append(f"asked the network: {asked.url}"))
        page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
        page.goto(f"{address}/{name}.html")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []
