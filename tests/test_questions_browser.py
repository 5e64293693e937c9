"""Questions in Chromium: asked, answered, kept, and what they cover.

Most of it on a small page with the very text of section 9.2, since its built page loads much else.
"""

import json
import re
from datetime import date

import pytest
from bs4 import BeautifulSoup
from conftest import HTML, PATIENCE, ROOT
from content_policy import with_policy
from playwright.sync_api import expect
from test_accessibility import violations
from test_pages import soup
from test_questions import questions

BUILT = "book/02-lora.html"
CHOICE, TYPED = "#q-lora-alpha-rank", "#q-lora-count"
KEY = "peft-book-questions"
FIGURE = """<div class="cell"><div class="cell_output"><img width=300 height=200 alt="A figure"
src="data:image/gif;base64,R0lGODlhAQABAAAAACw="></div></div>"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page with the questions of section 9.2, each before a cell with a figure."""
    asked = "".join(f"{box}{FIGURE}<p>Prose.</p>" for name, box in questions()
                    if name == "02-lora.ipynb")
    static = (ROOT / "book" / "_static").as_uri()
    page = tmp_path_factory.mktemp("page") / "page.html"
    page.write_text(with_policy(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Page</title>'
        f'<link rel="stylesheet" href="{static}/questions.css">'
        f'<script src="{static}/questions.js"></script>'
        f'<article class="bd-article bd-content"><section>{asked}</section></article>'), "utf-8")
    return page


@pytest.fixture
def visit(chromium, small):
    """Opens the page from disk in one context, whose local storage its pages share."""
    context = chromium.new_context(viewport={"width": 360, "height": 800}, offline=True)
    faults = []

    def visit():
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(small.as_uri())
        expect(page.locator(".question-score")).to_be_attached()
        return page

    yield visit
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def text(small):
    return BeautifulSoup(small.read_text("utf-8"), "html.parser")


@pytest.fixture(scope="module")
def right(text):
    """Which choice of the question is right, from 0, as the file says without any script."""
    replies = text.select(f"{CHOICE} details li")
    return [reply.get_text().strip().startswith("Right.") for reply in replies].index(True)


def output_below(page, selector):
    return page.locator(f"{selector} ~ .cell .cell_output").first


def test_without_scripts_nothing_is_hidden_but_folded_answers(chromium, small):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(small.as_uri())
    box = page.locator(CHOICE)
    assert box.locator("> p, > ol > li, summary").evaluate_all(
        "all => all.length > 3 && all.every((one) => one.checkVisibility())")
    assert output_below(page, CHOICE).locator("img").is_visible()
    assert not box.locator("details li").first.is_visible()
    context.close()


def test_the_keyboard_alone_commits_and_reveals(visit, text, right):
    page = visit()
    box = page.locator(CHOICE)
    group = page.get_by_role("group", name=re.compile("What happens to the size"))
    radios = group.get_by_role("radio")
    assert radios.count() == len(text.select(f"{CHOICE} > ol > li"))
    assert not output_below(page, CHOICE).locator("img").is_visible()
    radios.first.focus()
    page.keyboard.press("Space")
    for _ in range(right):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(box.get_by_role("status")).to_contain_text("Right.")
    assert output_below(page, CHOICE).locator("img").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Ask me again"
    page.keyboard.press("Enter")
    expect(box.get_by_role("status")).to_have_text("")
    assert not output_below(page, CHOICE).locator("img").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.question').id") == CHOICE[1:]


def test_a_wrong_choice_gets_its_own_reply_and_the_right_one(visit, text, right):
    page = visit()
    replies = text.select(f"{CHOICE} details li")
    wrong = next(n for n in range(len(replies)) if n != right)
    box = page.locator(CHOICE)
    box.get_by_role("radio").nth(wrong).check()
    box.get_by_role("button", name="guess").click()
    verdict = box.get_by_role("status")
    expect(verdict).to_contain_text(replies[wrong].get_text().split("$")[0].strip())
    expect(verdict).to_contain_text(f"Right is {right + 1}.")
    assert box.locator("li.is-right").count() == 1


@pytest.mark.parametrize(("said", "word"), [
    ("81,920", "Right."), ("81920", "Right."), ("82 000", "Right."), ("8.192e4", "Right."),
    ("163840/2", "Right."), ("65,536", "alone"), ("7", "You said 7"), ("-81920", "You said"),
    ("many", "no number"), ("81920 or so", "no number"), ("1/0", "You said"),
])
def test_a_typed_number_is_read_and_judged(visit, said, word):
    page = visit()
    box = page.locator(TYPED)
    box.get_by_label("Your number").fill(said)
    box.get_by_label("Your number").press("Enter")
    expect(box.get_by_role("status")).to_contain_text(word)


def test_answers_are_kept_counted_and_forgotten_in_every_tab(visit, right):
    page, other = visit(), visit()
    for selector, name in ((CHOICE, "sure"), (TYPED, "guess")):
        box = page.locator(selector)
        if selector == TYPED:
            box.get_by_label("Your number").fill("5")
        else:
            box.get_by_role("radio").nth(right).check()
        box.get_by_role("button", name=name).click()
    for tab in (page, other, visit()):
        score = tab.get_by_role("region", name="Your answers")
        expect(score).to_contain_text(re.compile("1 of 2 right: 1 of 1 .* 0 of 1"))
        expect(tab.locator(f"{CHOICE} .question-verdict")).to_contain_text("Right.")
    page.get_by_role("button", name="Ask me all again").click()
    for tab in (page, other):
        expect(tab.locator(CHOICE).get_by_role("status")).to_have_text("")
        expect(tab.locator(".question-score")).to_contain_text(re.compile("^0 of"))


def test_a_reader_may_see_results_without_a_guess(visit):
    page = visit()
    cover = output_below(page, CHOICE)
    cover.get_by_role("button", name="show it now").click()
    assert cover.locator("img").is_visible()
    page.get_by_label("Cover results").uncheck()
    assert not page.locator(".is-covered").count()
    assert not visit().locator(".is-covered").count()


@pytest.mark.parametrize("stored", [
    "no list", "[]", "null", "7", '{"answers": []}', '{"answers": {"q-lora-count": null}}',
    '{"answers": {"q-lora-count": {"said": "many", "sure": true}}}',
    '{"answers": {"q-lora-alpha-rank": {"said": "9", "sure": true}}}',
    '{"answers": {"q-lora-alpha-rank": {"said": 1}, "constructor": {"said": "1", "sure": true}}}',
    '{"answers": {"__proto__": {"said": "1", "sure": true}}, "open": "yes"}',
])
def test_what_was_stored_badly_does_no_harm(visit, stored):
    page = visit()
    page.evaluate("([key, text]) => localStorage.setItem(key, text)", [KEY, stored])
    page = visit()
    expect(page.locator(".question-score")).to_contain_text(re.compile("^0 of"))
    box = page.locator(TYPED)
    box.get_by_label("Your number").fill("81920")
    box.get_by_role("button", name="sure").click()
    kept = json.loads(page.evaluate("(key) => localStorage.getItem(key)", KEY))
    given = kept["answers"][TYPED[1:]]
    assert date.fromisoformat(given.pop("day")) and given.pop("text")
    assert given == {"said": "81920", "sure": True, "right": True, "page": "page.html"}
    expect(page.locator(".question-score")).to_contain_text("1 of 1 right")


def test_where_nothing_can_be_kept_answers_hold_until_the_page_is_left(visit):
    page = visit()
    page.evaluate("""() => { for (const name of ["getItem", "setItem"])
        Storage.prototype[name] = () => { throw new DOMException("no", "SecurityError"); }; }""")
    page.locator(TYPED).get_by_label("Your number").fill("81920")
    page.locator(TYPED).get_by_role("button", name="sure").click()
    expect(page.locator(f"{TYPED} .question-verdict")).to_contain_text("Right.")
    expect(page.locator(".question-score")).to_contain_text("1 of 1 right")


def test_what_the_reader_types_is_text(visit):
    page = visit()
    said = '{"answers": {"q-lora-count": {"said": "<img src=x onerror=alert(1)>", "sure": true}}}'
    page.evaluate("([key, text]) => localStorage.setItem(key, text)", [KEY, said])
    assert not visit().locator(".question img").count()


def test_on_paper_question_and_answer_stand(visit):
    page = visit()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    box = page.locator(CHOICE)
    assert box.locator("legend, label, details li").evaluate_all(
        "all => all.every((one) => one.checkVisibility({ visibilityProperty: true }))")
    assert output_below(page, CHOICE).locator("img").is_visible()
    assert not page.locator(":is(.question, .question-score) :is(button, input)").locator(
        "visible=true").count()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not page.locator(".question details[open]").count()


@pytest.fixture
def built(chromium, html):
    """Opens a page of the built book."""
    context = chromium.new_context(viewport={"width": 360, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)

    def open_page(name, **media):
        page.emulate_media(**media)
        page.goto(f"{html.as_uri()}/{name}")
        return page

    yield open_page
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_answered_questions_are_accessible(built, scheme):
    page = built(BUILT, color_scheme=scheme)
    for box in page.locator(".question").all():
        if box.get_by_role("radio").count():
            box.get_by_role("radio").first.check()
        else:
            box.get_by_label("Your number").fill("5")
        box.get_by_role("button", name="guess").click()
    judged = page.locator(":is([data-verdict=true], [data-verdict=false])")
    assert judged.count() == len(soup(BUILT).select(".question"))
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_touched_is_large_enough(visit):
    page = visit()
    touched = page.locator(":is(.question, .question-score) "
                           ":is(label, button, summary, [type=text])")
    sizes = [one.bounding_box() for one in touched.all() if one.is_visible()]
    assert sizes
    assert all(size["height"] >= 24 and size["width"] >= 24 for size in sizes)


@pytest.mark.parametrize("name", sorted(
    path.relative_to(HTML).as_posix() for path in (HTML / "book").glob("*.html")))
def test_every_question_of_every_page_is_asked(built, name):
    boxes = soup(name).select(".question")
    assert all(box.find_parent("article") for box in boxes)
    if boxes:
        expect(built(name).locator(".question.is-asked form")).to_have_count(len(boxes))
