"""The page "Your work" in Chromium: what comes back, what goes out and in, what is forgotten."""

import json
import re
from datetime import date, timedelta

import pytest
from conftest import ROOT
from playwright.sync_api import expect
from test_accessibility import violations

KEY, EDITS = "peft-book-questions", "peft-book edits book/02-lora.ipynb"


def days_ago(days):
    return (date.today() - timedelta(days)).isoformat()


def answer(right, sure, days, **others):
    return {"said": "1", "right": right, "sure": sure, "day": days_ago(days),
            "page": "book/02-lora.html", "text": "Which?"} | others


KEPT = {KEY: {"answers": {"q-old-known": answer(True, True, 15), "q-known": answer(True, True, 13),
                          "q-wrong": answer(False, True, 3), "q-guess": answer(True, False, 2),
                          "q-today": answer(False, False, 0)}, "open": False},
        EDITS: {"1\nx = 1": "x = 2", "1\ny": "print(y)"},
        "peft-book-faults": {"fan-in-0": "fan-in", "none-3": "rate", "start-1": "start"},
        "peft-book-progress": {"2": "2026-11-24"}}


LIST = '<nav class="bd-links"><a href="02-lora.html">LoRA</a><a href="#">Here</a></nav>'


@pytest.fixture
def address(tmp_path):
    """The page's very element and script, in a folder as deep as in the book."""
    text = (ROOT / "book" / "your-work.md").read_text("utf-8")
    element = re.search(r'<div id="my-work".*?</div>', text)[0]
    page = tmp_path / "book" / "your-work.html"
    page.parent.mkdir()
    script = (ROOT / "book" / "_static" / "work.js").as_uri()
    page.write_text('<!doctype html><html lang="en" data-content_root="../"><meta charset="utf-8">'
                    f'<title>Work</title>{LIST}<main><h1>Work</h1><h2>Yours</h2>{element}</main>'
                    f'<script src="{script}"></script>', "utf-8")
    return page.as_uri()


@pytest.fixture
def visit(chromium, address):
    """Opens the page in a new browser that keeps what is given."""
    contexts, faults = [], []

    def visit(kept):
        contexts.append(chromium.new_context(offline=True))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.evaluate("(kept) => { for (const [key, value] of Object.entries(kept)) "
                      "localStorage.setItem(key, typeof value === 'string' ? value : "
                      "JSON.stringify(value)); }", kept)
        page.reload()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def stored(page):
    kept = page.evaluate("() => ({...localStorage})")
    return {key: json.loads(text) for key, text in kept.items()}


def test_what_was_wrong_or_guessed_comes_back_sooner(visit):
    page = visit(KEPT)
    links = page.locator("#my-work ul").first.get_by_role("link")
    assert [link.get_attribute("href").rpartition("/")[2] for link in links.all()] == [
        f"02-lora.html#q-{name}" for name in ("old-known", "wrong", "guess")]
    rows = page.get_by_role("row").all_text_contents()
    assert rows[1:] == ["sure32 (67 %)", "a guess21 (50 %)"]
    cases = page.get_by_role("link", name="Find the fault").locator("..")
    assert "2 of 3 cases right" in cases.text_content()
    assert page.get_by_role("link", name="02-lora.ipynb").locator("..").text_content().endswith(
        "2 cells")
    assert violations(page) == []


def test_work_goes_out_as_one_file_and_in_elsewhere_without_loss(visit, tmp_path):
    page = visit(KEPT)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "work.json"
    download.value.save_as(file)
    empty = visit({})
    empty.locator("input[type=file]").set_input_files(file)
    expect(empty.get_by_role("status")).to_contain_text("11 notes")
    fresh = stored(empty)
    assert fresh.pop(KEY)["answers"] == KEPT[KEY]["answers"]
    assert fresh.pop("peft-book-imported") == {EDITS: dict.fromkeys(KEPT[EDITS], "work.json")}
    assert fresh == {key: KEPT[key] for key in fresh} and len(fresh) == 3
    other = visit({EDITS: {"1\nx = 1": "x = 3"}, "another program": {"a": 1}})
    other.locator("input[type=file]").set_input_files(file)
    expect(other.get_by_role("status")).to_contain_text("10 notes")
    assert stored(other)[EDITS] == {"1\nx = 1": "x = 3", "1\ny": "print(y)"}
    assert stored(other)["peft-book-imported"] == {EDITS: {"1\ny": "work.json"}}
    other.get_by_role("button", name="Forget").click()
    assert EDITS in stored(other)
    other.get_by_role("button", name="Forget").click()
    expect(other.get_by_role("status")).to_contain_text("forgotten")
    assert stored(other) == {"another program": {"a": 1}}


#: As JupyterLite keeps files, and its tab of a notebook holds the database open.
NOTEBOOKS = """() => new Promise((done) => {
    const asked = indexedDB.open("peft-book contents", 2);
    asked.onupgradeneeded = () => asked.result.createObjectStore("files");
    asked.onsuccess = () => {
        const work = asked.result.transaction("files", "readwrite");
        work.objectStore("files").put({ content: "poison" }, "code/stage-09/peft.py");
        work.oncomplete = () => { done(); };
    };
})"""
KEPT_FILES = """() => new Promise((done) => {
    const asked = indexedDB.open("peft-book contents");
    asked.onsuccess = () => {
        const keys = asked.result.transaction("files").objectStore("files").getAllKeys();
        keys.onsuccess = () => done(keys.result);
    };
})"""


def test_what_notebooks_changed_is_forgotten_with_everything(visit):
    page = visit(KEPT)
    page.evaluate(NOTEBOOKS)
    assert page.evaluate(KEPT_FILES) == ["code/stage-09/peft.py"]
    for _ in range(2):
        page.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("status")).to_contain_text("All is forgotten")
    assert page.evaluate(KEPT_FILES) == []


def offer(page, path, **work):
    path.write_text(json.dumps({"form": "peft-book work 1"} | work), "utf-8")
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_role("status")).not_to_be_empty()
    return page.get_by_role("status").text_content()


def test_all_that_a_long_evening_writes_comes_back_and_what_would_not_is_told(visit, tmp_path):
    file = tmp_path / "work.json"
    for count, told in ((30, ""), (41, "than “Import” takes")):
        edits = {f"{number}\nx = 1": "ж" * 100_000 for number in range(count)}  # nearly the most
        page = visit({EDITS: edits})
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        download.value.save_as(file)
        assert told in page.get_by_role("status").text_content()
        empty = visit({})
        empty.locator("input[type=file]").set_input_files(file)
        expect(empty.get_by_role("status")).to_contain_text("more than" if told else "30 notes")
        assert stored(empty).get(EDITS) == (None if told else edits)


@pytest.mark.parametrize("size, filled", [(4_100_000, 0), (2_100_000, 2_100_000)],
                         ids=["alone", "with what is here"])
def test_more_than_has_room_is_refused_whole(visit, tmp_path, size, filled):
    page = visit(KEPT | {"peft-book-faults": {"long": "x" * filled}})
    before = stored(page)
    assert "more than fits" in offer(page, tmp_path / "work.json", **{EDITS: {"new": "x" * size}})
    assert stored(page) == before


def test_a_storage_that_is_full_keeps_what_was_there(visit, tmp_path):
    page = visit(KEPT)
    before = stored(page)
    page.evaluate("""() => {
      const set = Storage.prototype.setItem;
      Storage.prototype.setItem = function (key, text) {
        if (text.includes("too much")) throw new DOMException("full", "QuotaExceededError");
        set.call(this, key, text);
      };
    }""")
    said = offer(page, tmp_path / "work.json", **{
        "peft-book-faults": {"new-1": "new"}, EDITS: {"1\nx = 1": "x = 9", "new": "x = 1"},
        "peft-book-progress": {"3": "too much"}})
    assert "no room" in said and stored(page) == before


def test_edits_of_a_notebook_that_the_book_has_not_are_left_out(visit, tmp_path):
    page = visit({})
    said = offer(page, tmp_path / "work.json", **{
        "peft-book edits book/none.ipynb": {"a": "b"}, EDITS: {"c": "d"}})
    assert "1 note" in said
    assert stored(page) == {EDITS: {"c": "d"}, "peft-book-imported": {EDITS: {"c": "work.json"}}}


def test_the_books_list_of_pages_names_every_notebook(html):
    page = (html / "book" / "your-work.html").read_text("utf-8")
    [nav] = re.findall(r'<nav class="bd-links.*?</nav>', page, re.DOTALL)
    named = {f"book/{name}" for name in re.findall(r'href="([^"#]*)\.html"', nav)}
    [cells] = html.glob("in-page/*/cells")
    found = {path.relative_to(cells).with_suffix("").as_posix() for path in cells.rglob("*.json")}
    assert found and found <= named


@pytest.mark.parametrize("text", [
    "", "[]", "null", '{"form": "else"}', '{"2": "2026-11-24"}', "<html>",
    '{"form": "peft-book work 1", "peft-book-imported": {"a": {}}}',
    '{"form": "peft-book work 1", "other": {"a": "b"}, "peft-book edits ../../x.html": {"a": "b"},'
    ' "peft-book-progress": [1], "peft-book edits book/02-lora.ipynb": {"a": {"b": 1}, "c": 7},'
    ' "peft-book-questions": {"answers": "no"}, "__proto__": {"x": "y"}}'])
def test_a_strange_file_changes_nothing(visit, tmp_path, text):
    page, file = visit(KEPT), tmp_path / "work.json"
    before = stored(page)
    file.write_text(text, "utf-8")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text(re.compile("no exported|nothing new"))
    assert stored(page) == before


@pytest.mark.parametrize("kept", [
    {KEY: "no list"}, {KEY: "[]"}, {KEY: {"answers": [1]}}, {EDITS: "null"}, {EDITS: "7"},
    {KEY: {"answers": {"q": answer(False, True, 9, page="javascript:alert(1)//.html")}}},
    {KEY: {"answers": {"q": answer(False, True, 9, page="../../x.html")}}},
    {KEY: {"answers": {"q": answer(False, True, 9, page="//1249763844/x.html")}}},
    {"peft-book edits //1249763844/x.ipynb": {"a": "b"}},
    {KEY: {"answers": {"q": answer(False, True, 9, day="soon")}}},
    {KEY: {"answers": {"q": answer(False, True, 9, text="<img src=x onerror=alert(1)>")}}}])
def test_what_was_stored_badly_does_no_harm(visit, kept):
    page = visit(kept)
    expect(page.get_by_role("button", name="Export")).to_be_visible()
    assert not page.locator("#my-work img").count()
    hrefs = [link.get_attribute("href") for link in
             page.locator("#my-work").get_by_role("link").all()]
    assert all(re.fullmatch(r"file:///.*/book/(02-lora\.html#q|find-the-fault\.html)", href)
               for href in hrefs)


NO_TEXT = {"toString": 0, "valueOf": 0}


@pytest.mark.parametrize("name, bad", [
    ("q-bad", {"text": NO_TEXT}), ("q-bad", {"day": NO_TEXT}), ("q-bad", {"page": NO_TEXT}),
    ("q-bad", {"page": ["a.html"]}), ("q-\ud800", {})])
def test_an_answer_that_is_no_text_comes_in_from_no_file_and_hides_no_other(
        visit, tmp_path, name, bad):
    answers = {name: answer(False, True, 9) | bad, "q-good": answer(False, True, 9)}
    page = visit({KEY: {"answers": answers}})  # kept by an earlier edition
    links = page.locator("#my-work ul").first.get_by_role("link")
    assert [link.get_attribute("href").rpartition("#")[2] for link in links.all()] == ["q-good"]
    page = visit({})
    assert "1 note" in offer(page, tmp_path / "work.json", **{KEY: {"answers": answers}})
    assert list(stored(page)[KEY]["answers"]) == ["q-good"]


def test_an_answer_leaves_what_another_edition_has_noted(chromium, tmp_path):
    script = (ROOT / "book" / "_static" / "questions.js").as_uri()
    file = tmp_path / "page.html"
    file.write_text('<!doctype html><html data-content_root="./"><article><section>'
                    '<div class="question" id="q-a"><p>How many?</p><details><p><strong>7</strong>'
                    f'</p></details></div></section></article><script src="{script}"></script>',
                    "utf-8")
    later = {"answers": {"q-z": {"chosen": [1, 2]}}, "open": False, "edition": 2}
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.evaluate("([key, kept]) => localStorage.setItem(key, JSON.stringify(kept))", [KEY, later])
    page.reload()
    page.get_by_label("Your number").fill("7")
    page.get_by_role("button", name="I am sure").click()
    kept = stored(page)[KEY]
    context.close()
    assert kept["answers"].pop("q-a")["right"] and kept == later
