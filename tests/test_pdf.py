"""The book as a PDF: outline, contents, numbers and links lead to what they name; nothing is lost.

Three pages stand for all: one with formulas, code and widgets, one that others link to, one whose
widgets and folded parts are exercises'.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pdf
import pytest
import yaml
from conftest import ROOT, missing, pages
from test_pages import soup

NAMES = ["book/02-lora", "book/exercises/ex1-lora-feed-forward", "book/glossary"]
TITLE = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["title"]
#: What every page of the chapters bears in its margins.
MARGINS = re.compile(rf"^{TITLE}\n(\d+)\n")


def squeezed(text):
    """Without spaces and what a line's end adds: paper breaks lines where it likes."""
    return re.sub(r"[\s\xad\u200b]+", "", text)


@pytest.fixture(scope="module")
def made(chromium, tmp_path_factory):
    try:
        import pypdf
    except ImportError:
        missing("pypdf is not installed: make env")
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    number = pdf.make(chromium, target, NAMES)
    reader = pypdf.PdfReader(target)
    assert len(reader.pages) == number
    reader.texts = [page.extract_text() for page in reader.pages]
    reader.front = reader.page_labels.index("1")
    return reader


def outline(made, items=None, level=0):
    """(level, title, page of the file) of the whole outline."""
    for item in made.outline if items is None else items:
        if isinstance(item, list):
            yield from outline(made, item, level + 1)
        else:
            yield level, item.title, made.get_destination_page_number(item)


def headings(name, *levels):
    for heading in soup(f"{name}.html").select("article section[id] > :is(h1, h2, h3)"):
        if heading.name in levels and not heading.select(".math"):
            for extra in heading.select(".headerlink"):
                extra.extract()
            yield " ".join(heading.get_text().split())


def test_every_built_page_is_printed():
    built = {name.removesuffix(".html") for name in pages()}
    assert {name for _, name in pdf.contents()} == built


def test_the_outline_leads_to_every_heading(made):
    found = list(outline(made))
    parts = [title for level, title, _ in found if level == 0]
    assert parts == ["Sections", "Practice", "Reference"]
    chapters = [title for level, title, _ in found if level == 1]
    assert chapters == [title for name in NAMES for title in headings(name, "h1")]
    titles = [title for level, title, _ in found if level]
    for name in NAMES:
        assert set(headings(name, "h1", "h2", "h3")) <= set(titles)
    for level, title, number in found:
        if level:
            assert squeezed(title) in squeezed(made.texts[number]), (title, number)


def test_the_contents_say_the_page_that_bears_the_number(made):
    contents = squeezed("".join(made.texts[:made.front]))
    for level, title, number in outline(made):
        if level in (1, 2):
            assert f"{squeezed(title)}{made.page_labels[number]}" in contents, title
    for number in range(made.front, len(made.pages)):
        assert MARGINS.match(made.texts[number])[1] == made.page_labels[number]


def test_no_page_is_empty_and_none_loses_its_end(made):
    for number in range(made.front, len(made.pages)):
        text = MARGINS.sub("", made.texts[number]).strip()
        assert len(text) > 20 or made.pages[number].images, number
    everything = squeezed("".join(made.texts))
    for name in NAMES:
        last = [text for text in soup(f"{name}.html").select("article section > p, article dd p")
                if not text.select(".math") and len(text.get_text()) > 40][-1]
        assert squeezed(last.get_text())[:30] in everything, name


def test_code_keeps_its_lines(made):
    """80 columns fit on the paper: each line of code that is shown stands in one line."""
    lines = {squeezed(line) for text in made.texts for line in text.splitlines()}
    for name in NAMES:
        shown = soup(f"{name}.html").select("article .cell:not(.tag_hide-input) .cell_input pre")
        code = {squeezed(line) for block in shown for line in block.get_text().splitlines()}
        longest = sorted(code - {""}, key=len)[-5:]
        assert [line for line in longest if line not in lines] == []


def test_links_lead_inside_the_file_or_to_the_web(made):
    inside = 0
    for number, page in enumerate(made.pages):
        for link in page.get("/Annots", []):
            link = link.get_object()
            if "/Dest" in link:
                target = made.get_page_number(link["/Dest"][0].get_object())
                assert target is not None
                inside += target != number
            else:
                assert urlsplit(link["/A"]["/URI"]).scheme in {"http", "https", "mailto"}
    assert inside > len(list(outline(made)))  # the contents, and words that the glossary explains


def test_nothing_is_folded_and_no_control_is_printed(made):
    """Hints are for readers of paper too; a slider is not. A widget prints its state as a table."""
    text = " ".join(made.texts)
    exercise = soup(f"{NAMES[1]}.html")
    hints = exercise.select("article .admonition.dropdown p:not(.admonition-title)")
    assert hints
    for hint in hints:
        if not hint.select(".math"):
            assert squeezed(hint.get_text())[:30] in squeezed(text)
    assert "Share of full" in text
    assert "float32 float16" not in " ".join(text.split())


@pytest.mark.parametrize("name", ["the-family", "numbers-in-the-wild"])
def test_no_page_is_wider_than_the_paper(chromium, html, name):
    """Chromium would print the whole page smaller, and what stands in a box would be cut."""
    page = chromium.new_page(viewport={"width": 672, "height": 1000})  # A4 within its margins
    page.goto(f"{html.as_uri()}/book/{name}.html")
    page.evaluate(pdf.PREPARE)
    page.emulate_media(media="print")
    page.wait_for_timeout(200)
    # A formula at a line's end sticks out by a fraction, more or less with the fonts at hand.
    assert page.evaluate("document.documentElement.scrollWidth") <= 673
    assert page.evaluate("""() => [...document.querySelectorAll("article table")]
        .filter((table) => table.getBoundingClientRect().right > 673).length""") == 0
    page.close()


def test_a_book_that_fails_leaves_the_last_one(chromium, made, tmp_path, monkeypatch):
    import pypdf

    target = tmp_path / "book.pdf"
    target.write_bytes(b"the last book")

    def full(self, file):
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(pypdf.PdfWriter, "write", full)
    with pytest.raises(OSError, match="no space"):
        pdf.make(chromium, target, ["book/glossary"])
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the last book"]


@pytest.mark.parametrize(("lacking", "says"), [("HTML", "make book"), ("CHROMIUM", "CHROMIUM")])
def test_what_is_missing_is_said_with_its_cure(html, monkeypatch, tmp_path, lacking, says):
    monkeypatch.setattr(pdf, lacking, tmp_path / "nothing")
    with pytest.raises(SystemExit, match=says):
        pdf.main()
