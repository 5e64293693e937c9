"""What a page loads at first, before anybody scrolls, and what moves on it meanwhile."""

import json
import re
from urllib.parse import unquote, urlsplit

import lite_tools
import pytest
from conftest import HTML, pages
from test_pages import soup

#: Bytes of all files, as they lie there, that a page loads at first.
PLAIN, WITH_WIDGETS = 300_000, 700_000
MOVES = 0.05  # what may move on it, by itself, of the window
#: Pages that are more than that by what they are: they hold what is said here.
HEAVIER = {
    "book/06-implementation.html": (348_000, "the whole of peft.py, which is the section"),
    "book/08-from-numpy-to-hugging-face.html": (321_000, "code of two libraries side by side"),
    "book/common-mistakes.html": (341_000, "each mistake as code that runs, wrong and right"),
    "book/exercises/index.html": (395_000, "so many formulas, drawn and told in MathML"),
}
COLOUR = "(name) => getComputedStyle(document.documentElement).getPropertyValue(name)"
VIEWS = 'script[type="application/vnd.jupyter.widget-view+json"]'
#: All that moved without the reader's doing, as browsers count it: shares of the window.
SHIFT = """() => new Promise((done) => {
  let shift = 0;
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) if (!one.hadRecentInput) shift += one.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(shift), 300);
})"""


@pytest.fixture(scope="module")
def address(html):
    with lite_tools.served(html) as address:
        yield address


@pytest.fixture
def opened(chromium, address):
    """Opens a page; returns it and the addresses of what it has loaded."""
    contexts = []

    def opened(name, width=1280):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        page, asked = contexts[-1].new_page(), {}
        page.on("request", lambda request: request.url.startswith(address)
                and asked.setdefault(unquote(urlsplit(request.url).path).lstrip("/")))
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        return page, list(asked)

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", pages())
def test_a_page_loads_no_more_than_it_must_and_nothing_moves_meanwhile(opened, name, width):
    page, asked = opened(name, width)
    weights = sorted(((HTML / file).stat().st_size, file) for file in asked)
    limit = HEAVIER.get(name, (WITH_WIDGETS if page.locator(VIEWS).count() else PLAIN, ""))[0]
    assert sum(size for size, _ in weights) <= limit, weights[::-1][:8]
    found = [page.evaluate(SHIFT)]  # of three loads one is quiet where the page moves nothing
    while len(found) < 3 and min(found) > MOVES:
        found.append(opened(name, width)[0].evaluate(SHIFT))
    assert min(found) <= MOVES, found


def test_widgets_further_down_are_loaded_when_a_reader_comes_near(opened):
    page, asked = opened("book/05-choosing-a-method.html")
    views = page.locator(VIEWS)
    last = views.nth(views.count() - 1)
    box = last.locator("xpath=ancestor::div[contains(@class, 'cell_output')]")
    assert last.get_attribute("data-state").removeprefix("../") not in asked
    assert box.locator(".peft-widget").count() == 0
    assert box.locator(".peft-widget-fallback").is_visible()  # its table stands there meanwhile
    box.scroll_into_view_if_needed()
    box.locator(".peft-widget").wait_for()
    assert not box.locator(".peft-widget-fallback").is_visible()


def test_what_is_late_is_there_when_the_page_is_printed(opened):
    """By the page's own button, which waits; figures also by the browser's command."""
    page, _ = opened("book/05-choosing-a-method.html")
    page.evaluate("window.print = () => { document.body.dataset.printed = true; }")
    page.locator("[data-does=print]").first.evaluate("(button) => button.click()")
    page.wait_for_selector("body[data-printed]")
    assert page.locator(".peft-widget").count() == page.locator(VIEWS).count()
    assert page.evaluate("[...document.images].every((image) => image.complete)")
    assert page.locator("img[loading=lazy]").count() == 0
    page, _ = opened("book/04-prefix-and-prompt-tuning.html")
    assert page.locator("img[loading=lazy]").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("img[loading=lazy]").count() == 0


@pytest.mark.parametrize("scheme, chosen, theme", [
    ("light", None, "light"), ("dark", None, "dark"), ("dark", "auto", "dark"),
    ("dark", "light", "light"), ("light", "dark", "dark"), ("dark", "a stranger's", "dark")])
def test_a_page_has_its_colours_before_its_scripts_come(chromium, address, scheme, chosen, theme):
    with chromium.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.add_init_script(f"localStorage.setItem('mode', {json.dumps(chosen)})" * bool(chosen))
        page.route("**/*.js*", lambda route: route.abort())
        page.goto(f"{address}/book/notation.html")
        assert page.locator("html").get_attribute("data-theme") == theme
        assert page.evaluate(COLOUR, "--pst-color-border") != ""


@pytest.mark.parametrize("name", pages())
def test_every_figure_comes_late_into_a_box_of_its_size(html, name):
    figures = soup(name).select("article img[src*=_images]")
    assert [image for image in figures
            if image.get("loading") != "lazy" or not image.get("height")] == []


#: How every element looks, in all that a browser computes, as one number each.
LOOKS = """() => [...document.querySelectorAll("body, body :not(.katex *, svg *)")].map((
  element) => {
  const looks = ["", "::before", "::after"].map((part) => getComputedStyle(element, part || null))
    .filter(({ content }, part) => !part || content !== "none")
    .map((style) => [...style].filter((name) => !name.startsWith("--"))
      .map((name) => `${name}:${style.getPropertyValue(name)}`).join(";")).join("|");
  let sum = 0;
  for (let at = 0; at < looks.length; at++) sum = (31 * sum + looks.charCodeAt(at)) | 0;
  return [sum, `${element.localName}.${element.className} in #${element.closest("[id]")?.id}`];
})"""
SETTLED = """() => {
  const still = "*, ::before, ::after { transition: none !important; animation: none !important }";
  document.documentElement.append(
    Object.assign(document.createElement("style"), { textContent: still }));
  return document.fonts.ready.then(() => true);
}"""


@pytest.mark.parametrize("width, scheme, media", [
    (1280, "light", "screen"), (360, "dark", "screen"), (700, "light", "print")])
@pytest.mark.parametrize("name", [
    "book/index.html", "book/exercises/ex4-prefix-mlp.html", "book/exercises/parsons.html"])
def test_the_one_style_sheet_makes_the_pages_look_as_all_of_them(
        chromium, address, html, name, width, scheme, media):
    sheet = (html / "_static/book-all.css").read_text("utf-8")
    whole = re.match(r"/\* What the pages need of (.*?) \*/", sheet)[1].split(", ")
    up = "../" * name.count("/")
    links = "".join(f'<link rel="stylesheet" href="{up}{file}">' for file in whole)
    text, swapped = re.subn(r'<link rel="stylesheet" href="[^"]*book-all\.css[^"]*" />', links,
                            (html / name).read_text("utf-8"))
    assert swapped == 1

    def seen(change):
        context = chromium.new_context(viewport={"width": width, "height": 900},
                                       color_scheme=scheme, reduced_motion="reduce")
        page = context.new_page()
        if change:
            page.route(f"{address}/{name}", lambda route: route.fulfill(
                body=text, content_type="text/html; charset=utf-8"))
        page.goto(f"{address}/{name}")
        page.evaluate("() => window.bookWidgets?.showAll()")
        page.emulate_media(media=media)
        page.evaluate(SETTLED)
        looks = page.evaluate(LOOKS)
        context.close()
        return looks

    one, all_of_them = seen(change=False), seen(change=True)
    assert len(one) == len(all_of_them) > 300
    assert [what for (looks, what), (wanted, _) in zip(one, all_of_them) if looks != wanted] == []
