"""Check links: inside the repository as its files stand, and outside by asking each address.

    python tools/links.py              inside: every file and anchor that a page or README names
    python tools/links.py --outside    outside: every address in the built book and in those files

Inside, a link is followed as JupyterLab and a code host follow it, from the notebook or Markdown
file itself; tests/test_pages.py follows those of the built pages. Outside, Sphinx's own linkcheck
does the asking: it knows redirects, anchors, rate limits and second tries. It gets a list of
addresses, not the book, because its reader sees neither a page's HTML outputs and header nor the
README files.
"""

import argparse
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

import book_extension
from whole import write_whole

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
WORK = ROOT / "_build" / "links"
MARKDOWN = MarkdownIt("commonmark").enable("table")
CONFIG = """\
extensions = ["myst_parser"]
linkcheck_timeout = 30
linkcheck_retries = 3
linkcheck_workers = 4
linkcheck_report_timeouts_as_broken = True
"""


def sources(root=ROOT):
    """Every notebook and Markdown file that a reader meets."""
    found = [path for folder in ("book", "code", "vendor", "docs", ".github")
             for pattern in ("*.ipynb", "*.md") for path in (root / folder).rglob(pattern)]
    skipped = {".ipynb_checkpoints", ".pytest_cache"}
    return sorted(root.glob("*.md")) + sorted(p for p in found if not skipped & set(p.parts))


def texts(path):
    """A file's Markdown and HTML: of a notebook its text cells and what its cells display."""
    if path.suffix != ".ipynb":
        yield "markdown", path.read_text("utf-8")
        return
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            yield "markdown", "".join(cell["source"])
        for output in cell.get("outputs", ()):
            for kind in ("markdown", "html"):
                if text := output.get("data", {}).get(f"text/{kind}"):
                    yield kind, "".join(text)


def parse(kind, text):
    """The HTML of a text. What stands in a directive's fence is Markdown, too."""
    if kind == "html":
        return BeautifulSoup(text, "html.parser")
    tokens, html = MARKDOWN.parse(text), []
    for token in tokens:
        if token.type == "fence" and token.info.startswith("{") and "code" not in token.info:
            html.append(str(parse("markdown", token.content)))
    html.append(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}))
    return BeautifulSoup("".join(html), "html.parser")


def addresses(path):
    """Where the links and pictures of a file lead, each once, in their order."""
    found = [tag.get("href") or tag.get("src") for kind, text in texts(path)
             for tag in parse(kind, text).find_all(["a", "img"])]
    return list(dict.fromkeys(address for address in found if address))


def anchors(path):
    """What can stand behind # in a link to this file: labels, headings as slugs, HTML's ids."""
    known = set()
    for kind, text in texts(path):
        page = parse(kind, text)
        known |= {tag["id"] for tag in page.find_all(id=True)}
        known |= set(re.findall(r"^\(([\w-]+)\)=", text, re.MULTILINE))
        for heading in page.find_all(re.compile("h[1-6]")):
            slug = heading.get_text().strip().lower().replace(" ", "-")
            known.add(re.sub(r"[^\w-]", "", slug))
    return known


def problems(paths):
    """One line for each link inside the repository whose file or anchor is not there."""
    for path in paths:
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for address in addresses(path):
            if urlsplit(address).scheme:
                continue
            file, anchor = map(unquote, urldefrag(address))
            target = path.parent / file if file else path
            if address.startswith("/"):
                yield f"{name}: {address}: begins at no folder that every reader has"
            elif not target.exists():
                yield f"{name}: {address}: no such file"
            elif anchor and target.suffix in (".ipynb", ".md") and anchor not in anchors(target):
                yield f"{name}: {address}: no such anchor"


def outside(html=HTML):
    """Addresses on the web, and the pages that name each.

    Those of this repository itself are left out: which buttons a page has depends on the copy, and
    its tests say that they are right.
    """
    ours = urlsplit(book_extension.repository_url() or "").path
    named = [(path, address) for path in sources() for address in addresses(path)]
    for page in [*html.glob("*.html"), *sorted((html / "book").rglob("*.html"))]:
        links = parse("html", page.read_text("utf-8")).find_all("a", href=True)
        named += [(page, link["href"]) for link in links]
    found = {}
    for page, address in named:
        parts = urlsplit(address)
        if (parts.scheme in ("http", "https") and parts.hostname not in ("localhost", "127.0.0.1")
                and not (ours and ours in parts.path)):
            found.setdefault(address, {})[page.name] = True
    return {address: list(pages) for address, pages in found.items()}


def dead(found, work=WORK):
    """One line for each of these addresses that gives no page, or not the anchor in it."""
    write_whole(work / "conf.py", CONFIG)
    listed = "".join(f"- <{address}>\n" for address in found)
    write_whole(work / "index.md", f"# Addresses\n\n{listed}")
    subprocess.run([sys.executable, "-m", "sphinx", "-b", "linkcheck", "-q", "-E", work,
                    work / "out"], stdout=subprocess.DEVNULL, check=False)
    lines = (work / "out/output.json").read_text("utf-8").splitlines()
    answers = {unescape(answer["uri"]): answer for answer in map(json.loads, lines)}
    for address, pages in found.items():
        answer = answers.get(address, {"status": "never asked", "info": ""})
        if answer["status"] not in ("working", "redirected"):
            yield f"{address}: {answer['status']} {answer['info']} (on {', '.join(pages)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outside", action="store_true", help="ask every address on the web")
    if parser.parse_args().outside:
        found = outside()
        print(f"==> Asking {len(found)} addresses", flush=True)
        faults, good = list(dead(found)), f"links: {len(found)} addresses answer"
    else:
        found = sources()
        faults, good = list(problems(found)), f"links: {len(found)} files, no dead link inside"
    sys.exit("\n".join(faults) or print(good))


if __name__ == "__main__":
    main()
