"""The questions of the pages, as they are written: each can be asked, answered and replied to."""

import json
import re
from functools import cache

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from markdown_it import MarkdownIt

#: What a cell shows as Markdown, and the number that a reply to a number begins with.
SHOWN, NUMBER = "text/markdown", re.compile(r"[-−]?\d[\d,.]*")


def texts(path):
    """Everything on a page that is Markdown: its text, or its cells and what they show."""
    if path.suffix == ".md":
        yield path.read_text("utf-8")
        return
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        for output in cell.get("outputs", ()):
            yield "".join(output.get("data", {}).get(SHOWN, ""))


def in_text(text):
    """The questions of a Markdown text, as the page holds them."""
    if "question" in text:
        page = BeautifulSoup(MarkdownIt().render(text), "html.parser")
        yield from page.select("div.question")


@cache
def questions():
    paths = sorted(path for kind in ("*.ipynb", "*.md") for path in (ROOT / "book").rglob(kind)
                   if ".ipynb_checkpoints" not in path.parts)
    return [(path.name, box) for path in paths for text in texts(path) for box in in_text(text)]


def faults(box):
    """What keeps a question from being asked, or a reader from being told why."""
    if not re.fullmatch(r"q-[a-z0-9-]+", box.get("id", "")):
        yield "no id that begins with q-"
    kinds = [child.name for child in box.find_all(True, recursive=False)]
    if kinds not in (["p", "ol", "details"], ["p", "details"]):
        yield f"not a paragraph, choices if any, and an answer: {kinds}"
        return
    folded = box.details
    if folded.find(True).name != "summary":
        yield "the answer has no summary"
    if box.find_parent("details") or box.select("details details, h1, h2, h3, pre, table"):
        yield "holds what no form can"
    replies = folded.find_all("li")
    right = [reply for reply in replies if reply.strong and reply.strong.text == "Right."
             and reply.text.strip().startswith("Right.")]
    if any(len(reply.text.split()) < 5 for reply in replies):
        yield "a reply that explains nothing"
    if box.find("ol", recursive=False):
        choices = box.find("ol", recursive=False).find_all("li")
        if not 2 <= len(choices) == len(replies):
            yield f"{len(choices)} choices and {len(replies)} replies"
        if len(right) != 1:
            yield f"{len(right)} choices are right"
        if len({choice.text.strip() for choice in choices}) < len(choices):
            yield "the same choice twice"
        return
    answer = folded.select_one("details > p strong")
    numbers = [answer, *(reply.strong for reply in replies)]
    if any(number is None or not NUMBER.match(number.text) for number in numbers):
        yield "an answer or a reply that begins with no number"
    elif len({number.text for number in numbers}) < len(numbers):
        yield "two replies to one number"


def test_every_question_has_one_right_answer_and_a_reply_to_each_wrong_one():
    asked = [box for _, box in questions() if "predict" in box["class"]]
    assert len(asked) >= 40 < len(questions())  # before what surprises, and to check oneself
    found = {f"{name} #{box.get('id')}": list(faults(box)) for name, box in questions()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_no_two_questions_share_a_name():
    ids = [box.get("id") for _, box in questions()]
    assert sorted(ids) == sorted(set(ids))


def test_every_right_answer_has_its_place_by_chance():
    """Nobody learns that the last choice is the right one."""
    places = [next(place for place, reply in enumerate(box.details.find_all("li"))
                   if reply.text.strip().startswith("Right."))
              for _, box in questions() if box.find("ol", recursive=False)]
    for place in range(3):
        assert places.count(place) >= len(places) / 6


ASKED = """<div class="question" id="q-one">

**Predict.** What is it?

1. This.
2. That.

<details><summary>Answer</summary>

1. So it looks from above, but not from below.
2. **Right.** So it looks from below, where it counts.

</details>
</div>"""
TYPED = """<div class="question" id="q-two">

**1.** How many?

<details><summary>Answer</summary>

**81,920** of them.

- **65,536** leaves out those of A.

</details>
</div>"""


@pytest.mark.parametrize(("text", "old", "new"), [
    (ASKED, "", ""), (TYPED, "", ""),
    (ASKED, "**Right.** So", "So"),
    (ASKED, "1. So it looks from above, but not from below.", "1. **Right.** So it looks here."),
    (ASKED, "2. That.\n", ""),
    (ASKED, "That.", "This."),
    (ASKED, "So it looks from above, but not from below.", "No."),
    (ASKED, ' id="q-one"', ""),
    (ASKED, "<summary>Answer</summary>", ""),
    (ASKED, "What is it?", "What is it?\n\nAnd why?"),
    (TYPED, "**81,920** of", "Many of"),
    (TYPED, "**65,536** leaves", "That leaves"),
    (TYPED, "65,536", "81,920"),
])
def test_a_broken_question_is_found(text, old, new):
    assert old in text
    broken, = in_text(text.replace(old, new, 1))
    assert bool(list(faults(broken))) == bool(old)
