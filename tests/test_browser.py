"""Every page of the built book in Chromium: from disk, offline, in light and dark, on a phone.

The widgets' numbers in all their positions are tested in test_widgets_browser.py; here each slider
must be alive on the page where the reader meets it.
"""

import re

import pytest
from conftest import pages
from playwright.sync_api import expect

SIZES = {"desktop": (1280, 900), "phone": (375, 800)}
#: Resolves once the widgets have drawn: they draw once per frame.
AFTER_THE_NEXT_FRAME = """() => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(done)))"""
LOCAL = ("file:", "data:", "blob:", "about:")
WIDGET = 'script[type="application/vnd.jupyter.widget-view+json"]'


@pytest.fixture
def visit(chromium, html):
    """Open a page of the book; returns it and the list of its faults, which still grows."""
    contexts = []

    def visit(name, scheme="light", size="desktop"):
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page, faults = context.new_page(), []

        def heard(message):
            if message.type == "error":
                faults.append(f"console: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
        page.on("requestfailed", lambda asked: faults.append(f"failed: {asked.url}"))
        page.on("request", lambda asked: asked.url.startswith(LOCAL)
                or faults.append(f"asked the network: {asked.url}"))
        page.goto(html.as_uri() + "/" + name)
        page.evaluate("window.bookWidgets?.showAll()")
        if page.locator(".math").count():
            page.wait_for_selector(".katex", state="attached", timeout=30_000)
        page.wait_for_timeout(300)  # what a script asks for late is still seen
        return page, faults

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("scheme", "size"), [("light", "desktop"), ("dark", "phone")])
@pytest.mark.parametrize("name", pages())
def test_page_is_sound(visit, name, scheme, size):
    """As it was opened, then in the other scheme: who opens it so gets the same page."""
    page, faults = visit(name, scheme, size)
    for now in (scheme, "light" if scheme == "dark" else "dark"):
        page.emulate_media(color_scheme=now)
        expect(page.locator("html")).to_have_attribute("data-theme", now)
        check_looks(page, SIZES[size][0])
    assert faults == []


def check_looks(page, window):
    # The page never scrolls sideways: what is wide scrolls in its own box.
    width = page.evaluate("document.documentElement.scrollWidth")
    wide = page.evaluate("""() => [...document.querySelectorAll("article *")]
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
        .slice(0, 3).map((e) => e.outerHTML.slice(0, 120))""")
    assert width <= window, f"wider than the window; perhaps {wide}"
    lost = page.evaluate("""() => [...document.images].filter((i) => i.complete && !i.naturalWidth)
        .map((i) => i.src)""")
    assert lost == [], "images that do not load"
    assert page.locator(".katex-error").count() == 0, "a formula that KaTeX refuses"
    raw = page.evaluate("""() => [...document.querySelectorAll(".math:not(:has(.katex))")]
        .map((box) => box.textContent.slice(0, 60))""")
    assert raw == [], "formulas that stand as TeX"


@pytest.mark.parametrize("name", pages())
def test_every_slider_is_alive(visit, name):
    page, faults = visit(name)
    if not page.locator(WIDGET).count():
        assert page.locator("article input[type=range]").count() == 0  # none outside a live widget
        return
    page.evaluate("document.querySelectorAll('article details').forEach((box) => box.open = true)")
    sliders = page.locator("article input[type=range]")
    seen = """(input) => {
        const box = input.closest(".cell_output");
        return [box.innerText, ...[...box.querySelectorAll("[data-params]")]
            .map((row) => row.dataset.params)].join("\\n");
    }"""
    for index in range(sliders.count()):
        slider = sliders.nth(index)
        label = slider.evaluate("(input) => input.labels[0]?.innerText || input.ariaLabel")
        assert label, "a slider without a label"
        slider.focus()
        for key in ("Home", "End"):
            page.keyboard.press(key)
            page.evaluate(AFTER_THE_NEXT_FRAME)
            here = slider.evaluate(seen), slider.get_attribute("aria-valuetext")
            if key == "Home":
                before = here
        assert here[0] != before[0], f"{label}: moving it changes nothing that can be read"
        assert here[1] and here[1] != before[1], f"{label}: its value is not announced"
    assert faults == []


def test_the_explorer_shows_what_compare_peft_methods_counts(visit):
    import peft

    page, faults = visit("book/05-choosing-a-method.html")
    box = page.locator(".cell_output", has=page.locator('input[data-name="prompt_length"]')).first
    names = ["lora_rank", "adapter_bottleneck", "prefix_length", "prompt_length"]

    def shown():
        rows = box.locator("tr[data-method]").all()
        return {row.get_attribute("data-method"):
                (int(row.get_attribute("data-params")), float(row.get_attribute("data-ratio")))
                for row in rows}

    defaults = {"lora": 4_194_304, "adapters": 33_554_432, "prefix": 2_621_440, "prompt": 81_920}
    assert {method: shown()[method][0] for method in defaults} == defaults

    checked = 0
    for position in ("Home", "End", "ArrowLeft", "ArrowLeft", "Home", "ArrowRight"):
        for name in ["layers", *names]:
            slider = box.locator(f'input[data-name="{name}"]')
            slider.focus()
            page.keyboard.press(position)
            page.evaluate(AFTER_THE_NEXT_FRAME)  # the widget draws once per frame
            inputs = {key: box.locator(f'input[data-name="{key}"]')
                      for key in ["width", "layers", "heads", *names]}
            setting = {key: int(found.get_attribute("data-value"))
                       for key, found in inputs.items()}
            counts = peft.compare_peft_methods(
                setting["width"], setting["layers"], setting["heads"],
                **{key: setting[key] for key in names})
            for method, (params, ratio) in shown().items():
                assert params == counts[method]["params"], (method, setting)
                assert ratio == pytest.approx(counts[method]["ratio"], rel=1e-12)
                checked += 1
    assert checked == 6 * 5 * 5
    assert faults == []


@pytest.mark.parametrize("word", ["constructor", "__proto__", "toString", "%3Cimg%20src=x%3E"])
def test_search_survives_the_words_of_javascript(visit, word):
    page, faults = visit(f"search.html?q={word}")
    expect(page.locator("p.search-summary")).not_to_be_empty()
    assert faults == []


def test_an_address_has_few_and_whole_words_marked(visit):
    """Each letter of a page, marked many times over, would take minutes."""
    many = "+".join(["lora", *"abcdefghij", *(f"the{i}" for i in range(30)), "rank"])
    page, faults = visit(f"book/02-lora.html?highlight={many}")
    page.wait_for_selector("span.highlighted")
    marked = page.locator("span.highlighted").all_text_contents()
    assert {text.lower() for text in marked} == {"lora"}
    assert faults == []


def test_search_finds_a_word_from_disk(visit):
    page, faults = visit("search.html?q=bottleneck")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert re.search("adapter", page.inner_text("#search-results"), re.IGNORECASE)
    assert page.evaluate("localStorage.getItem('sphinx_highlight_terms')") == "bottleneck"
    assert [fault for fault in faults if fault.startswith("asked")] == []
