"""Where "Your work" and the page of no address lead, by their scripts in Node.js: into the book."""

import json
import re
import subprocess

import needs
import pytest
from conftest import ROOT

#: As much of a page as the script needs; it prints where the links lead.
PAGE = """
const made = [];
class Element {
  constructor(name) { this.name = name; this.kept = {}; made.push(this); }
  setAttribute(key, value) { this.kept[key] = value; }
  append() {}
  replaceChildren() {}
  addEventListener() {}
}
const kept = JSON.parse(process.argv[2]);
globalThis.localStorage = Object.assign(Object.create({ getItem: (key) => kept[key] }), kept);
globalThis.location = { href: "https://book.example/stage/book/your-work.html" };
globalThis.window = new Element("window");
globalThis.document = {
  documentElement: { dataset: { content_root: "../" } }, createElement: (name) => new Element(name),
  getElementById: () => new Element("div"), addEventListener: (event, start) => setTimeout(start),
};
setTimeout(() => console.log(JSON.stringify(made.filter(({ name }) => name === "a")
  .map(({ kept }) => kept.href))), 10);
"""
BOOK = "https://book.example/stage/book/"
FAULTS = f"{BOOK}find-the-fault.html"


def leads_to(kept, tmp_path):
    script = (ROOT / "book" / "_static" / "work.js").read_text("utf-8")
    (tmp_path / "page.cjs").write_text(PAGE + script, "utf-8")
    done = subprocess.run([needs.node(), tmp_path / "page.cjs", json.dumps(
        {key: json.dumps(value) for key, value in kept.items()})],
        check=True, capture_output=True, text=True)
    return {*json.loads(done.stdout)}


def answered(page):
    return {"peft-book-questions": {"answers": {
        "q": {"page": page, "right": False, "sure": True, "day": "2026-01-01"}}}}


@pytest.mark.parametrize(("kept", "links"), [
    (answered("book/02-lora.html"), {f"{BOOK}02-lora.html#q"}),
    ({"peft-book edits book/02-lora.ipynb": {"a": "b"}}, {f"{BOOK}02-lora.html"}),
    *((answered(page), set()) for page in (
        "//1249763844/x.html", "/x.html", "a//b.html", "../x.html", "javascript:x.html")),
    *(({f"peft-book edits {name}": {"a": "b"}}, set()) for name in (
        "//1249763844/x.ipynb", "/x.ipynb", "../x.ipynb"))])
def test_a_stored_place_leads_into_the_book_or_is_no_link(kept, links, tmp_path):
    assert leads_to(kept, tmp_path) == links | {FAULTS}


@pytest.mark.parametrize(("at", "leads"), [
    ("/nothing", "/index.html"), ("/stage/book/x/y.html", "/stage/index.html"),
    ("/stage/x.html", "/stage/index.html"), ("//evil.example/x", "/evil.example/index.html"),
    ("///evil.example/book/x", "/evil.example/index.html")])
def test_the_page_of_no_address_leads_to_its_own_host(at, leads):
    page = (ROOT / "tools/templates/extra/404.html").read_text("utf-8")
    script = re.search("<script>(.*?)</script>", page, re.DOTALL)[1]
    stand_in = ("const home = {}, document = { getElementById: () => home };"
                f"const location = {json.dumps({'pathname': at})};")
    done = subprocess.run([needs.node(), "-e", f"{stand_in}{script};console.log(home.href)"],
                          check=True, capture_output=True, text=True)
    assert done.stdout == f"{leads}\n"
