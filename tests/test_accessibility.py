"""Every page for readers who cannot see it, cannot use a mouse, or need it larger.

axe-core's rules for WCAG 2.2, levels A and AA, in light and dark, with no violation allowed.
"""

from pathlib import Path

import axe_playwright_python
import pytest
from conftest import pages
from playwright.sync_api import expect
from test_browser import AFTER_THE_NEXT_FRAME

AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text("utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
#: A token of code has the colour of its class, and a drawn formula the colour around it. One of
#: each is asked; all of them, thousands on a page, took axe four times as long as the rest.
ONE_OF_EACH = """() => {
  const seen = new Set();
  for (const token of document.querySelectorAll(".highlight span:not(:has(span, a))")) {
    const kind = `${token.className} in ${token.closest(".highlight").parentElement.className}`;
    if (seen.has(kind)) token.replaceWith(...token.childNodes);
    seen.add(kind);
  }
  for (const formula of [...document.querySelectorAll(".katex-html")].slice(1)) formula.remove();
}"""


@pytest.fixture
def visit(chromium, html):
    contexts = []

    def visit(name, width=1280, **settings):
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True,
                                       **settings)
        contexts.append(context)
        page = context.new_page()
        page.goto(html.as_uri() + "/" + name)
        page.evaluate("window.bookWidgets?.showAll()")
        if page.locator(".math").count():
            page.wait_for_selector(".katex", state="attached", timeout=30_000)
        page.evaluate(AFTER_THE_NEXT_FRAME)
        return page

    yield visit
    for context in contexts:
        context.close()


def violations(page, rules=RULES):
    """What axe finds by rules of these names or tags."""
    page.evaluate(AXE)
    found = page.evaluate("""(rules) => axe.run(document, {
        runOnly: rules, resultTypes: ["violations"]})""", rules)
    assert found["passes"], "axe has checked nothing"
    return [(rule["id"], node["target"][-1], node["failureSummary"])
            for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize("name", pages())
def test_no_violation_of_wcag_and_nothing_scrolls_sideways_at_twice_the_size(visit, name):
    page = visit(name, color_scheme="light")
    page.evaluate(ONE_OF_EACH)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_timeout(300)  # colours change slowly
    assert violations(page, ["color-contrast"]) == []  # no other rule asks for colours
    page.set_viewport_size({"width": 640, "height": 900})  # what 1280 pixels show at 200 %
    page.evaluate(AFTER_THE_NEXT_FRAME)
    assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_axe_sees_a_violation(visit):
    """The check itself can fail: a picture without a text is found."""
    page = visit("book/index.html")
    page.evaluate("""document.querySelector("article").append(Object.assign(
        document.createElement("img"), {src: "data:image/gif;base64,R0lGODlhAQABAAAAACw="}))""")
    assert "image-alt" in {rule for rule, *_ in violations(page)}


def test_axe_sees_one_token_of_code_that_is_too_pale(visit):
    page = visit("book/02-lora.html")
    page.add_style_tag(content="html[data-theme] .highlight .k { color: #ddd }")
    page.evaluate(ONE_OF_EACH)
    assert page.locator(".highlight .k").count() < 9
    assert {rule for rule, *_ in violations(page, ["color-contrast"])} == {"color-contrast"}


def test_reduced_motion_is_respected(visit):
    def slowest(page):
        return page.evaluate("""() => Math.max(...[...document.querySelectorAll("*")].flatMap(
            (e) => getComputedStyle(e).transitionDuration.split(",").map(parseFloat)))""")

    assert slowest(visit("book/index.html", reduced_motion="reduce")) <= 0.001
    assert slowest(visit("book/index.html")) > 0.05, "nothing moves: does the test still see it?"


def test_launch_menu_works_with_the_keyboard(visit):
    page = visit("book/02-lora.html")
    page.focus(".dropdown-launch-buttons > button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".dropdown-launch-buttons .dropdown-menu.show")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.dropdown-menu') !== null")
    outline = page.evaluate("""() => { const s = getComputedStyle(document.activeElement);
        return s.outlineStyle !== "none" || s.boxShadow !== "none"
            || s.backgroundColor !== "rgba(0, 0, 0, 0)"; }""")
    assert outline, "the focus cannot be seen"
