"""The check of links: inside the repository, in JupyterLite, and what asks the web's addresses."""

import http.server
import json
import re
import threading
from pathlib import Path

import links
import pytest
from conftest import HTML, ROOT, missing
from lite import build as lite

PAGES = links.sources()


def notebook(path, *texts):
    cells = [{"cell_type": "markdown", "source": [text]} for text in texts]
    html = {"data": {"text/html": ["<a href='lost-by-code.md'>"]}}
    cells.append({"cell_type": "code", "source": ["[a](code.md)"], "outputs": [html]})
    path.write_text(json.dumps({"cells": cells}), "utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_anchors_that_a_page_names_exist(path):
    assert list(links.problems([path])) == []


def test_all_that_a_reader_meets_is_checked():
    names = {path.relative_to(ROOT).as_posix() for path in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "vendor/README.md", "code/stage-09/README.md",
            "code/stage-09/data/README.md", "book/index.md", "book/02-lora.ipynb",
            "book/exercises/index.md", "book/solutions/sol6-qlora.ipynb"} <= names
    assert "02-lora.ipynb" in links.addresses(ROOT / "book/index.md")
    assert "references.md" in links.addresses(ROOT / "book/02-lora.ipynb")
    assert "docs/explorer.png" in links.addresses(ROOT / "README.md")


def test_dead_links_are_found(tmp_path):
    (tmp_path / "book").mkdir()
    page = tmp_path / "book/page.md"
    other = tmp_path / "other.ipynb"
    notebook(other, "# LoRA, *in* short\n(eq-1)=\n$$x$$", "[a](book/page.md#mine)")
    page.write_text(
        "## Mine\n[a](../other.ipynb#lora-in-short) [b](../other.ipynb#eq-1) <a id='x'></a> [c](#x)"
        " [d](#mine) `[e](none.md)` <https://example.org/none> [sp](a%20b.md)\n"
        "\n```python\n[f](none.md)\n```\n"
        "\n[g](lost.md) ![h](lost.png) [i](../other.ipynb#lost) [j](#lost) [k](/page.md)"
        " [l][ref] <img src='lost.svg'>\n\n[ref]: lost-too.md\n"
        "\n| a |\n|---|\n| [m](lost-in-table.md) |\n\n```{note}\n[n](lost-in-note.md)\n```\n",
        "utf-8")
    (tmp_path / "book/a b.md").touch()
    found = [line.partition(": ")[2] for line in links.problems([page])]
    assert sorted(found) == sorted([
        "lost.md: no such file", "lost.png: no such file", "../other.ipynb#lost: no such anchor",
        "#lost: no such anchor", "/page.md: begins at no folder that every reader has",
        "lost-too.md: no such file", "lost.svg: no such file", "lost-in-table.md: no such file",
        "lost-in-note.md: no such file"])
    found = [line.partition(": ")[2] for line in links.problems([other])]
    assert found == ["lost-by-code.md: no such file"]


def test_links_of_the_notebooks_in_the_browser_resolve(html):
    """JupyterLite has files of its own; a link there leads to one of them.

    Or to a notebook that does not run there: such a link opens its page (test_lite.py follows it).
    """
    files = HTML / "lite" / "files"
    if not files.exists():
        missing("the book was built without Python in the browser: run make book with a network")
    there = links.sources(files)
    assert files / "book/02-lora.ipynb" in there
    left_out = tuple(f"{Path(name).name}: no such file" for name in lite.LEFT_OUT)
    found = list(links.problems(there))
    assert [line for line in found if not line.endswith(left_out)] == []
    assert len(found) >= len(left_out), "no link to a notebook that is left out?"


class Server(http.server.BaseHTTPRequestHandler):
    """/here has an anchor, /moved leads there; anything else is gone."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.send_response({"/here": 200, "/moved": 302}.get(path, 404))
        if path == "/moved":
            self.send_header("Location", "/here")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"<h1 id='top'>Here</h1>")

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


def test_a_dead_address_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site = f"http://127.0.0.1:{server.server_port}"
    good = ["/here", "/moved", "/here#top", "/here?a=b_&c=(d)"]
    bad = ["/gone", "/here#gone"]
    found = list(links.dead({site + path: ["a page"] for path in good + bad}, tmp_path))
    server.shutdown()
    assert [line.split()[0].rstrip(":") for line in found] == [site + path for path in bad]
    assert "404" in found[0] and "(on a page)" in found[0] and "gone" in found[1]


def test_addresses_of_the_web_are_collected(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "index.html").write_text("<a href='book/a.html'></a><a href='http://localhost/'></a>")
    (tmp_path / "book/a.html").write_text(
        "<a href='https://arxiv.org/abs/2106.09685'></a><a href='https://github.com/a/book/edit'></a>"
        "<a href='https://mybinder.org/v2/gh/a/book/main'></a>")
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/a/book")
    found = links.outside(tmp_path)
    assert found["https://arxiv.org/abs/2106.09685"] == ["a.html"]
    assert not [address for address in found if "a/book" in address or "localhost" in address]
    assert "https://github.com/joke2k/faker" in found  # of a README file


def test_every_paper_is_among_the_addresses(html):
    papers = re.findall(r"eprint = \{(.+?)\}", (ROOT / "book/references.bib").read_text("utf-8"))
    found = " ".join(links.outside())
    assert papers and [number for number in papers if number not in found] == []
