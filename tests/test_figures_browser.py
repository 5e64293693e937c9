"""Figures drawn as SVG, as readers meet them: on a phone, in the dark, with mouse and keys."""

import pytest
from conftest import ROOT, pages
from lite_tools import load
from test_accessibility import violations
from test_layout import SETTLED
from test_pages import soup

DRAWN = [name for name in pages() if soup(name).select("figure.drawn")]
CURVES = "book/07-fine-tuning-a-real-model.html"
every_page = pytest.mark.parametrize("name", DRAWN)
SMALLEST = """() => Math.min(...[...document.querySelectorAll(".drawn svg text, .drawn svg tspan")]
    .filter((text) => text.checkVisibility() && !text.matches("text:has(tspan)"))
    .filter((text) => !text.previousElementSibling?.matches("tspan"))  // what a formula raises
    .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement
        .getScreenCTM().a))"""
OVER = """() => [...document.querySelectorAll(".drawn-panels:not(.is-diagram)")]
    .filter((box) => box.scrollWidth > box.closest(".cell_output").clientWidth + 1).length"""
COLOUR = """() => [...document.querySelectorAll(".drawn svg text")]
    .map((text) => getComputedStyle(text).fill)"""
FAINT = """(figure, series) => [...figure.querySelectorAll(".drawn-panels > div")].map((panel) =>
    [...panel.querySelectorAll("[data-series]")].every((part) =>
        (getComputedStyle(part).opacity === "0.15") === (part.dataset.series !== series)))"""


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield context.new_page()
    context.close()


def test_a_notebooks_figures_are_drawn(html):
    """Each that has markup; none is lost, or there twice."""
    assert DRAWN
    for name in pages():
        notebook = ROOT / name.replace(".html", ".ipynb")
        if notebook.exists():
            outputs = [output for cell in load(notebook)["cells"] for output in
                       cell.get("outputs", []) if "image/png" in output.get("data", {})]
            drawn = [output for output in outputs if "drawn" in output["metadata"]]
            page = soup(name)
            assert len(page.select("figure.drawn")) == len(drawn)
            assert len(page.select(".cell_output img")) == len(outputs) - len(drawn)


@every_page
def test_on_a_phone_figures_fit_and_can_be_read(page, html, name):
    page.goto(f"{html.as_uri()}/{name}")
    for width in (360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        assert page.evaluate(SMALLEST) >= 11
        assert page.evaluate(OVER) == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_of_several_lines_end_at_the_axis_in_any_font(page, html):
    page.set_viewport_size({"width": 360, "height": 900})
    page.goto(f"{html.as_uri()}/book/06-implementation.html")
    figure = page.locator(".drawn").first
    assert figure.locator(".is-diagram").count() == 0, "its bars have the width of a phone"
    ends = figure.locator("svg text").evaluate_all("""all => all
        .filter((text) => /[a-z], |%|weights/i.test(text.textContent))
        .map((text) => Math.round(text.getBoundingClientRect().right))""")
    assert len(ends) == 10
    assert max(ends) - min(ends) <= 1


def test_panels_stack_on_a_phone_and_stand_side_by_side_on_a_laptop(page, html):
    page.goto(f"{html.as_uri()}/{CURVES}")
    panels = page.locator(".drawn-panels").first.locator("> div")
    for width, columns in ((360, 1), (1280, panels.count())):
        page.set_viewport_size({"width": width, "height": 900})
        assert panels.evaluate_all("all => new Set(all.map((one) => one.offsetLeft)).size"
                                   ) == columns


def test_light_and_dark_come_from_one_source(page, html):
    page.goto(f"{html.as_uri()}/{CURVES}")
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-theme=light]")
    page.wait_for_timeout(1000)  # the theme's colours change slowly
    light = page.evaluate(COLOUR)
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    for _ in range(20):
        dark = page.evaluate(COLOUR)
        same = [colour for colour, other in zip(light, dark, strict=True) if colour == other]
        if not same:
            break
        page.wait_for_timeout(500)
    assert same == []


def test_a_curve_is_picked_out_in_all_panels(page, html):
    page.goto(f"{html.as_uri()}/{CURVES}")
    figure = page.locator(".drawn:has(.drawn-legend)").first
    entries = figure.locator(".drawn-legend button")
    entries.nth(1).hover()
    assert set(figure.evaluate(FAINT, "1")) == {True}
    figure.locator(".drawn-panels [data-series='2'] use").first.hover(force=True)
    assert set(figure.evaluate(FAINT, "2")) == {True}
    page.mouse.move(0, 0)
    assert figure.locator(".is-faint").count() == 0
    entries.nth(3).focus()
    page.keyboard.press("Enter")
    assert entries.nth(3).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.locator("article h1").click()
    assert set(figure.evaluate(FAINT, "3")) == {True}, "what is pressed stays"
    entries.nth(3).click()
    page.locator("article h1").click()
    assert figure.locator(".is-faint").count() == 0


def test_a_figure_is_enlarged_with_finger_and_keys(page, html):
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"{html.as_uri()}/{CURVES}")
    figure = page.locator(".drawn").first
    before = figure.locator("svg text").last.bounding_box()["height"]
    figure.locator(".drawn-panels svg").first.click()
    assert page.locator("dialog .drawn").count() == 1
    assert page.locator("dialog svg text").last.bounding_box()["height"] > 1.5 * before
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0
    button = figure.get_by_role("button", name="Enlarge")
    button.focus()
    page.keyboard.press("Enter")
    page.locator("dialog").get_by_role("button", name="Close").press("Enter")
    assert page.locator("dialog").count() == 0
    assert button.evaluate("button => button === document.activeElement")


def test_points_say_what_they_are(html):
    figure = soup(CURVES).select_one("figure.drawn")
    points = figure.select(".drawn-panels [data-series] use > title")
    assert len(points) > 10
    assert all(": " in point.get_text() for point in points)


def test_on_paper_figures_are_dark_on_white(page, html):
    page.emulate_media(color_scheme="dark", media="print")
    page.goto(f"{html.as_uri()}/{CURVES}")
    assert set(page.evaluate(COLOUR)[:3]) == {"rgb(0, 0, 0)"}
    assert not page.locator(".drawn-enlarge").first.is_visible()
