"""The reading times of the pages: what a reader sees counts, and only that."""

import json

import reading_time


def notebook(*cells):
    return {"cells": [{"metadata": {}, "outputs": [], **cell} for cell in cells]}


def prose(words):
    return {"cell_type": "markdown", "source": ["word "] * words}


def code(lines, *tags, outputs=()):
    return {"cell_type": "code", "source": ["x = 1\n"] * lines, "metadata": {"tags": list(tags)},
            "outputs": list(outputs)}


def test_words_and_lines_take_their_time():
    assert reading_time.minutes(notebook(prose(2000))) == 10
    assert reading_time.minutes(notebook(prose(2000), code(150))) == 20
    assert reading_time.minutes(notebook(prose(1))) == 5


def test_folded_code_takes_none_but_what_it_shows_does():
    assert reading_time.minutes(notebook(prose(2000), code(150, "hide-input"))) == 10
    listing = {"data": {"text/markdown": ["```python\n", "y = 2\n" * 150, "```"]}}
    assert reading_time.minutes(
        notebook(prose(2000), code(1, "remove-input", outputs=[listing]))) == 20
    assert reading_time.minutes(notebook(
        prose(2000), code(1, "remove-input", "hide-output", outputs=[listing]))) == 10


def test_the_page_gets_the_number():
    page = notebook({"cell_type": "markdown", "source": ["*Reading time: 99 minutes. Really.*"]},
                    prose(3000))
    assert "*Reading time: 15 minutes. Really.*" in reading_time.timed(json.dumps(page))
    assert reading_time.timed("no time here") == "no time here"
