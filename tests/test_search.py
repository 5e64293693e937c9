"""The search of the built book, from disk: terms to their definition, each place once, excerpts."""

import re

import pytest
import search_page
from conftest import HTML
from test_pages import soup


@pytest.fixture
def found(chromium, html):
    """What a search shows: [(title, address, excerpt)] of its first results, and the page."""
    context = chromium.new_context(offline=True)

    def found(words):
        page = context.new_page()
        page.goto(f"{html.as_uri()}/search.html?q={words.replace(' ', '+')}")
        items = page.locator("#search-results > ul > li")
        page.wait_for_selector("#search-results > ul > li:nth-child(2)", timeout=30_000)
        page.locator("#search-results > ul > li:nth-child(2) .context").wait_for(timeout=30_000)
        return [tuple(one) for one in items.evaluate_all("""all => all.map((item) => {
            const { text, href } = item.querySelector("a");
            return [text, href, item.querySelector(".context")?.textContent ?? ""];
        })""")], page

    yield found
    context.close()


@pytest.mark.parametrize(("words", "term"), [
    ("rank", "rank"), ("alpha", "alpha"), ("bottleneck", "bottleneck"), ("LoRA", "LoRA"),
    ("lora", "LoRA"), ("virtual token", "virtual-tokens"), ("virtual tokens", "virtual-tokens"),
    ("QLoRA", "QLoRA"), ("prefix tuning", "prefix-tuning")])
def test_a_term_leads_to_its_definition_first_and_once(found, words, term):
    results, _ = found(words)
    title, address, excerpt = results[0]
    definition = soup("book/glossary.html").find(id=f"term-{term}")
    assert address.endswith(f"book/glossary.html#term-{term}")
    assert title == definition.find(string=True)
    said = " ".join(definition.find_next_sibling("dd").get_text().split())
    assert excerpt[:12] == said[:12]
    addresses = [address for _, address, _ in results]
    assert len(addresses) == len(set(addresses))
    assert f"{HTML.as_uri()}/book/glossary.html" not in addresses  # the terms lead there already


@pytest.mark.parametrize("words", ["merge", "bottleneck", "gradient"])
def test_each_result_that_is_seen_has_the_word_in_its_excerpt(found, words):
    results, _ = found(words)
    seen = [excerpt for _, address, excerpt in results if excerpt and "#term-" not in address]
    assert len(seen) >= 2
    assert all(words in excerpt.lower() for excerpt in seen[:3])


def test_a_page_is_told_once_and_its_sections_beside_it(found):
    results, _ = found("adapters")
    whole = [address.partition("#")[0] for title, address, _ in results
             if " > " not in title and "glossary" not in address]
    assert len(whole) == len(set(whole))


def test_the_magnifier_is_beside_the_words(found):
    _, page = found("rank")
    field = page.locator("input[name=q]").last
    icon = page.locator(".bd-search i").last.bounding_box()
    begins = field.evaluate("""(field) => field.getBoundingClientRect().left
        + field.clientLeft + parseFloat(getComputedStyle(field).paddingLeft)""")
    assert icon["x"] + icon["width"] <= begins


@pytest.mark.parametrize(("tex", "said"), [
    (r"\frac{\alpha}{\sqrt{r}}", "α/√r"), (r"\Delta W = s\,B A", "ΔW = s B A"),
    (r"B \in \mathbb{R}^{\text{out} \times r}", "B ∈ Rout × r"), (r"\lVert V \rVert", "‖ V ‖")])
def test_a_formula_is_told_without_its_commands(tex, said):
    assert search_page.plain(tex) == said


def test_no_excerpt_has_commands_of_formulas_or_the_time_of_reading(html):
    for file in (html / "_static/search").glob("*.js"):
        prose = file.read_text("utf-8").split("\\n")[0]
        assert not re.search(r"\\\\(?:frac|alpha|text|mathcal)|Reading time: \d", prose), file.name
