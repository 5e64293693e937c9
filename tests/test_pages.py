"""The built book as files: links, resources, alternative texts, what must never reach a reader."""

import re
from functools import cache
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from conftest import HTML, ROOT, pages

#: Attributes that make a browser load something.
LOADS = [("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"),
         ("video", "src"), ("audio", "src"), ("object", "data"), ("embed", "src")]
#: Links that load nothing: where a page is, not what it needs.
NOT_LOADED = {"canonical", "search", "index", "next", "prev", "author", "license"}
#: A directive, role, substitution or glue key that was not rendered.
RAW_MYST = re.compile(
    r"\{(?:[a-z]+:)?[a-z]+\}`|```\{|^:::|\{\{.*\}\}|\(eq-[\w-]+\)=?", re.MULTILINE)


@cache
def soup(page, root=HTML):
    return BeautifulSoup((root / page).read_text("utf-8"), "html.parser")


@cache
def anchors(page, root=HTML):
    """What a link to this file can name behind #."""
    return {tag["id"] for tag in soup(page, root).find_all(id=True)}


def every_page(test):
    return pytest.mark.parametrize("page", pages())(test)


def resolve(page, address, root=HTML):
    """Path below the built book that a relative address on a page means, and its anchor."""
    path, fragment = urldefrag(address)
    path = unquote(urlsplit(path).path)
    target = (root / page).parent / path if path else root / page
    return target.resolve(), unquote(fragment)


def dead_links(page, root=HTML):
    """Links of a page, in its head too, whose file or anchor the book does not have."""
    links = [link["href"] for link in soup(page, root).find_all(["a", "area", "link"], href=True)]
    for meta in soup(page, root).find_all("meta", {"http-equiv": re.compile("refresh", re.I)}):
        links += re.findall(r"url\s*=\s*['\"]?([^'\"]+)", meta["content"], re.I)
    for address in links:
        if urlsplit(address).scheme or address.startswith("//"):
            continue
        target, fragment = resolve(page, address, root)
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            yield f"{address}: no such file"
        elif fragment and target.suffix == ".html":
            if fragment not in anchors(target.relative_to(root.resolve()).as_posix(), root):
                yield f"{address}: no such anchor"


@pytest.mark.parametrize("page", pages() + sorted(path.name for path in HTML.glob("*.html")))
def test_internal_links_and_anchors_resolve(html, page):
    assert list(dead_links(page)) == []


def test_dead_links_are_found(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book/a.html").write_text(
        "<a href='b.html#here'></a><a href='#mine'></a><p id='mine'></p><a href='?q=1#mine'></a>"
        "<a href='https://example.org/c.html'></a><a href='../index.html'></a>"
        "<a href='c.html'></a><a href='b.html#gone'></a><a href='#gone'></a><a href='..'></a>"
        "<a href='../../outside.html'></a>")
    (tmp_path / "book/b.html").write_text("<h2 id='here'></h2>")
    (tmp_path / "index.html").write_text(
        "<meta http-equiv='Refresh' content='0; url=book/lost.html'>"
        "<link rel='next' href='b.html'>")
    assert list(dead_links("book/a.html", tmp_path)) == [
        "c.html: no such file", "b.html#gone: no such anchor", "#gone: no such anchor",
        "..: no such file", "../../outside.html: no such file"]
    assert list(dead_links("index.html", tmp_path)) == [
        "b.html: no such file", "book/lost.html: no such file"]


@every_page
def test_loads_nothing_from_elsewhere(html, page):
    outside, lost = [], []
    for tag, attribute in LOADS:
        for element in soup(page).find_all(tag, **{attribute: True}):
            if tag == "link" and NOT_LOADED & set(element.get("rel", [])):
                continue
            address = element[attribute]
            if address.startswith("data:"):
                continue
            if urlsplit(address).scheme or address.startswith("//"):
                outside.append(address)
            elif not resolve(page, address)[0].is_file():
                lost.append(address)
    assert not outside, "loaded from another host"
    assert not lost, "loaded, but not in the book"


@every_page
def test_what_we_add_is_named_with_its_checksum(html, page):
    """As in a second build: the same commit gives the same bytes; no browser keeps an old file."""
    ours = re.compile(r"\.\./katex/|_static/(?:book-all|launch|menus|copy|formulas|widgets)\.")
    named = [element[attribute] for tag, attribute in (("script", "src"), ("link", "href"))
             for element in soup(page).find_all(tag, **{attribute: ours})]
    kinds = {ours.search(name)[0] for name in named}
    assert {"_static/book-all.", "_static/launch.", "_static/menus."} <= kinds
    assert [name for name in named if "?v=" not in name] == []


def test_style_sheets_load_nothing_from_elsewhere(html):
    outside = []
    for sheet in html.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.DOTALL)
        outside += [(sheet.name, found) for found in re.findall(
            r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)|@import\s+[\"']((?:https?:)?//[^\"']+)", text)]
    assert not outside


@every_page
def test_every_icon_is_in_the_icons_font(html, page):
    drawn = (ROOT / "vendor" / "icons" / "icons.css").read_text("utf-8")
    looks = {"fa-solid", "fa-regular", "fa-brands", "fa-lg"}  # weights and sizes
    icons = {name for element in soup(page).select("[class*=fa-]")
             for name in element["class"] if name.startswith("fa-")} - looks
    assert [name for name in sorted(icons) if f".{name}::before" not in drawn] == []


@every_page
def test_figures_have_alternative_text(html, page):
    poor = []
    for image in soup(page).select("article :is(img, figure.drawn)"):
        text = image.get("alt", image.get("aria-label", "")).strip()
        # The default is the file's path; a description has words.
        if len(text.split()) < 5 or "/" in text.split()[0] or text.endswith((".png", ".svg")):
            poor.append((image.get("src"), text))
    assert not poor


@every_page
def test_no_markup_is_left_raw(html, page):
    article = BeautifulSoup(str(soup(page).find("article")), "html.parser")
    for code in article.find_all(["pre", "code", "script", "style"]):
        code.decompose()
    for formula in article.select(".math"):
        formula.decompose()
    text = article.get_text()
    assert not RAW_MYST.findall(text)
    assert "WARNING" not in text and "Traceback (most recent call last)" not in text
    shown = [output.get_text() for output in soup(page).select("article .cell_output .output")]
    assert not [text for text in shown if re.match(r"\s*<[\w.]+ object( at 0x\w+)?>\s*$", text)], \
        "an output that the page shows by its name alone"


@every_page
def test_a_page_has_one_title_and_a_language(html, page):
    assert len(soup(page).select("article h1")) == 1
    assert soup(page).html["lang"] == "en"


@every_page
def test_a_term_leads_to_the_glossary_once_and_never_from_a_question(html, page):
    links = soup(page).select("a.glossary-term")
    leads = [link["href"] for link in links]
    assert len(set(leads)) == len(leads)
    assert not any(link.find_parent(class_="question") for link in links)
    if page == "book/02-lora.html":
        assert {"glossary.html#term-rank", "glossary.html#term-frozen"} <= set(leads)
        assert not any(lead.endswith(("#term-block", "#term-GLUE")) for lead in leads)


def test_every_notebook_and_chapter_is_in_the_book(html):
    sources = [path for pattern in ("*.ipynb", "*.md") for path in (ROOT / "book").rglob(pattern)
               if ".ipynb_checkpoints" not in path.parts]
    lacking = [path.relative_to(ROOT).as_posix() for path in sources
               if not (html / path.relative_to(ROOT)).with_suffix(".html").exists()]
    assert not lacking, "not listed in _toc.yml"


@every_page
def test_no_button_leads_nowhere(html, page):
    """Launch, edit and repository buttons exist only where the repository's address is known."""
    import book_extension

    places = [a["href"] for a in soup(page).select(".article-header-buttons a[href], a.btn[href]")
              if urlsplit(a["href"]).scheme]
    if book_extension.repository_url() is None:
        assert not places
    else:
        assert all(place.startswith("https://") for place in places)
