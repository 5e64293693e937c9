"""The texts behind the search: of every page, and of the glossary's terms (search.js says why)."""

import json
import re
from unicodedata import lookup

from bs4 import BeautifulSoup, NavigableString
from lighten import TEX
from whole import write_whole

PLACE = "_static/search"
PAGE = "search.html"
GLOSSARY = "book/glossary"
#: Not of a page's text, or there twice: a title and a term are links above their excerpts.
LEFT_OUT = ("script, style, h1, dt, .headerlink, .eqno, .peft-widget-fallback, .question, button, "
            "details.hide > summary")
READING = re.compile(r"Reading time: \d+ minutes")
#: Commands of TeX that stand for a sign; Unicode knows the Greek ones by name.
SIGNS = {"Longrightarrow": "⇒", "approx": "≈", "cdot": "·", "dots": "…", "ge": "≥", "in": "∈",
         "infty": "∞", "lVert": "‖", "le": "≤", "leftarrow": "←", "ll": "≪", "neq": "≠",
         "odot": "⊙", "partial": "∂", "pm": "±", "qquad": " ", "quad": " ", "rVert": "‖",
         "sqrt": "√", "sum": "Σ", "times": "×", "to": "→", "top": "ᵀ"}
#: What begins anew, so that no two words run together.
BLOCKS = {"dd", "div", "figcaption", "h2", "h3", "h4", "li", "p", "section", "td", "th"}


def plain(tex):
    """A formula as words and signs: of \\frac{\\Delta W}{r} stays ΔW/r."""
    def sign(command):
        name, space = command.groups()
        try:
            kind = "CAPITAL" if name[0].isupper() else "SMALL"
            return lookup(f"GREEK {kind} LETTER {name.removeprefix('var')}")
        except KeyError:
            return SIGNS[name] + space if name in SIGNS else ""

    tex = re.sub(r"\\([A-Za-z]+)( ?)", sign, re.sub(r"}\s*{", "/", tex))
    return re.sub(r"\\[^ ,;:]|[{}^_&]", "", re.sub(r"\\[ ,;:]", " ", tex))


def text_of(article):
    """(the text of a page, its code last; {a place's name: where it begins}).

    What the glossary says of a term is a line.
    """
    places, names = {}, {}
    for term in article.select("dt[id^=term-] + dd"):
        names[id(term)] = term.find_previous_sibling("dt")["id"]
    for extra in article.select(LEFT_OUT):
        extra.extract()
    code = [block.extract().get_text() for block in article.select("pre")]
    pieces, length = [], 0
    for node in article.descendants:
        if not isinstance(node, NavigableString):
            if id(node) in names or node.name in BLOCKS:
                pieces.append("\n" if id(node) in names else " ")
                length += 1
            if name := names.get(id(node)) or node.name == "section" and node.get("id"):
                places[name] = length
            continue
        text = TEX.sub(lambda formula: plain(formula[1] or formula[2]), READING.sub("", node))
        text = re.sub(r"\s+", " ", text)
        if text.strip() or (pieces and not pieces[-1].endswith((" ", "\n"))):
            pieces.append(text)
            length += len(text)
    return "".join([*pieces, "\n", " ".join(" ".join(code).split())]), places


def terms_of(article):
    """The glossary's terms: their names and their place."""
    return [{"names": [name.strip() for name in entry.find(string=True).split(",")],
             "anchor": entry["id"]} for entry in article.select("dt[id^=term-]")]


def add(folder):
    """Write the texts of a built book, and let its search page load what it needs of them."""
    if not (folder / PAGE).exists():
        return
    for path in sorted((folder / "book").rglob("*.html")):
        page = path.relative_to(folder).with_suffix("").as_posix()
        text = re.search("<article.*</article>", path.read_text("utf-8"), re.DOTALL)[0]
        article = BeautifulSoup(text, "html.parser")
        if page == GLOSSARY:
            terms = json.dumps(terms_of(article), ensure_ascii=False)
            write_whole(folder / PLACE / "terms.js", f"bookSearch.define({terms});\n".encode())
        made = ", ".join(json.dumps(part, ensure_ascii=False)
                         for part in (page, *text_of(article)))
        name = page.replace("/", ".")
        write_whole(folder / PLACE / f"{name}.js", f"bookSearch.take({made});\n".encode())
    text = (folder / PAGE).read_text("utf-8")
    first = re.search(r'<script src="_static/searchtools\.js', text)
    if not first:
        raise ValueError(f"{PAGE} loads no searchtools.js: where should its texts come in?")
    tags = "".join(f'<script src="_static/{name}"></script>\n    '
                   for name in ("search.js", "search/terms.js"))
    write_whole(folder / PAGE, text[:first.start()] + tags + text[first.start():])
