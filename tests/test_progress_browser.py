"""The ticks on the exercises' page, in Chromium: kept, exported, read in, cleared, not sent."""

import json
import re

import pytest
from conftest import ROOT
from playwright.sync_api import expect

from exercises.harness import progress

BOX = "input[data-exercise='{}']"


@pytest.fixture
def address(tmp_path):
    """A page with the very element of the page of the exercises, and the book's script."""
    text = (ROOT / "book" / "exercises" / "index.md").read_text("utf-8")
    element = re.search(r'<div id="exercise-progress".*?</div>', text)[0]
    script = (ROOT / "book" / "_static" / "progress.js").as_uri()
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8">{element}'
                    f'<script src="{script}"></script>', "utf-8")
    return page.as_uri()


@pytest.fixture
def page(chromium, address):
    context = chromium.new_context()
    page = context.new_page()
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    yield page
    assert page.faults == []
    assert [url for url in page.asked if not url.startswith(("file:", "blob:"))] == []
    context.close()


def ticked(page):
    return [box.get_attribute("data-exercise") for box in page.locator("input:checked").all()]


def test_ticks_are_kept_and_cleared(page):
    assert page.locator("input[type=checkbox]").count() == progress.EXERCISES
    assert ticked(page) == []
    page.get_by_label("LoRA dropout").check()
    page.locator(BOX.format(5)).check()
    assert "2 of 8 done" in page.get_by_role("status").text_content()
    page.reload()
    assert ticked(page) == ["2", "5"]
    page.locator(BOX.format(5)).uncheck()
    page.reload()
    assert ticked(page) == ["2"]
    page.get_by_role("button", name="Clear").click()
    page.reload()
    assert ticked(page) == []


def test_what_another_tab_notes_meanwhile_is_seen_and_stays(page, address):
    other = page.context.new_page()
    other.goto(address)
    other.locator(BOX.format(1)).check()
    expect(page.locator(BOX.format(1))).to_be_checked()
    # as python.js notes a pass in this very tab, of which no event tells
    page.evaluate("""() => localStorage.setItem("peft-book-progress", JSON.stringify({
        ...JSON.parse(localStorage.getItem("peft-book-progress")), 3: "2026-11-24" }))""")
    page.locator(BOX.format(2)).check()
    page.reload()
    assert ticked(page) == ["1", "2", "3"]


def test_an_export_is_the_file_of_the_notebooks_and_can_be_read_in(page, tmp_path, monkeypatch):
    page.locator(BOX.format(3)).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "progress.json"
    download.value.save_as(file)
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(file))
    assert list(progress.progress().done) == ["3"]

    file.write_text(json.dumps({"1": "2026-11-24", "9": "2026-11-24", "2": "<b>soon</b>"}))
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("Read 1")
    assert ticked(page) == ["1", "3"]
    file.write_text('{"cells": []}')
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("no ex")
    file.write_text("no list")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("not an")
    assert ticked(page) == ["1", "3"]


def test_what_notebooks_in_this_browser_noted_is_ticked_once(page):
    """As JupyterLite keeps files: a database of that name, by path, their text in `content`."""
    page.evaluate("""() => new Promise((done) => {
        const asked = indexedDB.open("peft-book contents", 2);
        asked.onupgradeneeded = () => asked.result.createObjectStore("files");
        asked.onsuccess = () => {
            const work = asked.result.transaction("files", "readwrite");
            work.objectStore("files").put({ format: "text", content:
                '{"4": "2026-11-26", "9": "2026-11-26", "1": "<b>soon</b>", "x": "'
                + "x".repeat(1e5) + '"}' },
                "peft-book-progress.json");
            work.oncomplete = () => { asked.result.close(); done(); };
        };
    })""")
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("noted")
    assert ticked(page) == ["4"]
    assert page.evaluate("JSON.stringify(localStorage).length") < 1000, "not what it lists is kept"
    page.locator(BOX.format(4)).uncheck()
    page.reload()
    page.wait_for_timeout(300)
    assert ticked(page) == []  # what the reader says stays


@pytest.mark.parametrize("stored", ["no list", "[]", "null", '["2026-01-01"]',
                                    '{"1": "9999-99-99"}', '{"1": "2026-02-30"}', '{"1": true}'])
def test_what_was_stored_badly_does_no_harm(page, stored):
    page.evaluate("(text) => localStorage.setItem('peft-book-progress', text)", stored)
    page.reload()
    assert ticked(page) == []
    page.locator(BOX.format(1)).check()
    page.reload()
    assert ticked(page) == ["1"]
