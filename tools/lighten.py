"""What a built page loads: the files that Sphinx and the theme make, cut down to what it uses.

- A figure is lossless WebP, has its size in the page, and is loaded when it comes near the window.
- Formulas stand in the page as KaTeX draws them; formulas.js repeats those that come again.
- A widget's values and its code are a file of their own, which widgets.js loads (see there).
- One style sheet has, of all that the theme, Sphinx and we bring, the rules that a page can need.
- A script of theirs is only on the pages with what it acts on.
- Pages and scripts lose indentation, scripts their comments too.
- What their markup says needlessly is left out (markup.py).
"""

import hashlib
import html
import io
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from string import ascii_lowercase

import markup
import node_js
import tinycss2
from content_policy import with_policy
from PIL import Image
from whole import write_whole

KATEX = "katex/katex.min.js"
WIDGETS, TAKE = "_static/widgets", "bookWidgets.take("
SHEET = "_static/book-all.css"
FORMULA_SHEET = "katex/book-formulas.css"
#: Style sheets that stay as they are: the icons, which have their font within, and the cells'.
KEPT = re.compile(r"/icons\.css|in-page/")
SHEETS = re.compile(r'\s*<link\b[^>]*\bhref="([^"]+\.css)(?:\?[^"]*)?"[^>]*>')
SCRIPTS = re.compile(r'\s*<script\b[^>]*\bsrc="([^"?]*)[^"]*"[^>]*></script>')
STATE = re.compile(
    r'\s*<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>', re.DOTALL)
VIEW = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*?)</script>', re.DOTALL)
#: A file that acts on some pages only, and what a page has that it acts on.
ONLY_WITH = {
    "design-tabs.js": "sd-tab-set",
    "togglebutton.js": r'class="(?:[^"]* )?(?:toggle|dropdown admonition|admonition dropdown)[" ]',
    "clipboard.min.js": "^$",  # copy.js does what it does, in a tenth
    "copybutton.js": "^$",
    "copybutton.css": "^$",
    "questions.js": 'class="question[" ]',
    "figures.js": '<figure class="drawn[" ]',
    "bootstrap.js": "^$",  # menus.js does what the book needs of it
    "copy.js": '<div class="highlight"',
}
MATH = re.compile(
    r'<(span|div) class="math(?: notranslate nohighlight)?"[^>]*>(.*?)</\1>', re.DOTALL)
TEX = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)
#: The space behind which another formula begins, where a phone begins another line.
NEXT = re.compile(r"\\qquad(?![A-Za-z])|,\s*\\quad(?![A-Za-z])")
BREAK = r"\allowbreak "
BROKEN = re.compile(r'<span class="mspace allowbreak"></span>'
                    r'((?:<span class="mspace"[^>]*></span>)?</span>)(?=<span class="katex-base">)')
DRAW = """const katex = require(process.argv[1]);
let asked = "";
process.stdin.on("data", (more) => { asked += more; }).on("end", () => console.log(JSON.stringify(
  JSON.parse(asked).map(([tex, displayMode]) =>
    katex.renderToString(tex, { displayMode, throwOnError: false })))));"""


def version(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


# ---------------------------------------------------------------------------------------- figures

def lighten_figures(folder):
    """Store every figure with a palette of 256 colours as lossless WebP, in a fifth of the bytes.

    A chart has few colours, so nobody sees the difference; a reader on a slow line does. A figure's
    name is the hash of its content, so what has been stored once stays as it is.
    """
    for path in sorted((folder / "_images").glob(f"{'[0-9a-f]' * 64}.png")):
        light = path.with_suffix(".webp")
        if not light.exists():
            with Image.open(path) as figure:
                figure = figure.convert("RGBA")
                small = figure.quantize(256, dither=Image.Dither.NONE).convert("RGBA")
                # The ground stays white: of many pale tones the palette would take one for it.
                white = figure.convert("L").point(lambda tone: 255 * (tone == 255))
                small.paste(figure, mask=white)
                made = io.BytesIO()
                small.save(made, "webp", lossless=True, quality=100, method=6)
            write_whole(light, made.getvalue())
        path.unlink()
    for page in sorted(folder.rglob("*.html")):
        text = page.read_text("utf-8")
        lighter = re.sub(r"(_images/[0-9a-f]{64})\.png", r"\1.webp", text)
        if lighter != text:
            write_whole(page, lighter)


def late_images(text, folder):
    """The page with its figures loaded late, each in a box of its size, so that nothing moves."""
    def late(found):
        tag, name = found[0], found[1]
        if " loading=" in tag:
            return tag
        size = ""
        if not re.search(r"\b(width|height)[=:]", tag):
            with Image.open(folder / "_images" / name) as figure:
                size = f' width="{figure.width}" height="{figure.height}"'
        return tag.replace("<img", f'<img loading="lazy"{size}', 1)

    return re.sub(r'<img\b[^>]*\bsrc="[./]*_images/([^"]+)"[^>]*>', late, text)


# --------------------------------------------------------------------------------------- formulas

def draw(pages):
    """{(TeX, whether it stands alone): KaTeX's HTML} of all formulas; {} without Node.js."""
    asked = {formula: None for text in pages.values() for box in MATH.finditer(text)
             if (formula := tex_of(box[2]))}
    if not (asked and node_js.path()):
        return {}
    parted = [(NEXT.sub(lambda space: space[0] + BREAK, tex) if alone else tex, alone)
              for tex, alone in asked]
    done = subprocess.run([node_js.path(), "-e", DRAW, str(katex_file())], check=True,
                          input=json.dumps(parted), capture_output=True, text=True)
    return {formula: BROKEN.sub(r"\1<br>", made.replace(BREAK, ""))
            for formula, made in zip(asked, json.loads(done.stdout), strict=True)}


def katex_file():
    import vendor

    return vendor.VENDOR / KATEX


def tex_of(inside):
    found = TEX.search(inside)
    return found and (html.unescape(found[1] or found[2]).strip(), found[1] is None)


def with_formulas(text, drawn):
    """The page with each formula drawn where it first stands.

    Where it stands again its TeX stays, which formulas.js finds in the first one's annotation.
    """
    seen = set()

    def box(found):
        formula = tex_of(found[2])
        if formula not in drawn or formula in seen:
            return found[0]
        seen.add(formula)
        made = re.sub(' xmlns="[^"]*"| encoding="[^"]*"', "", drawn[formula])  # as HTML knows it
        inside = TEX.sub(lambda _: f"<span>{made}</span>", found[2], count=1)
        return found[0].replace(found[2], inside)

    return MATH.sub(box, text)


class NodeBrotli:
    """Brotli as fontTools asks for it, by Node.js, which has drawn the formulas already."""

    MODE_FONT = 2
    CODE = """const data = require("fs").readFileSync(0), zlib = require("zlib");
process.stdout.write(zlib[process.argv[1]](data));"""

    @classmethod
    def run(cls, what, data):
        return subprocess.run([node_js.path(), "-e", cls.CODE, what], input=data, check=True,
                              capture_output=True).stdout

    @classmethod
    def compress(cls, data, mode):
        return cls.run("brotliCompressSync", data)

    @classmethod
    def decompress(cls, data):
        return cls.run("brotliDecompressSync", data)


def lighter_fonts(sheet, folder, drawn):
    """The formulas' style sheet with fonts of only the signs that the drawn formulas have.

    For a formula that formulas.js draws, KaTeX's own sheet comes with the fonts in whole; where a
    font lacks a sign, browsers take the other one of its name.
    """
    sys.modules.setdefault("brotli", NodeBrotli)
    from fontTools import subset, ttLib

    signs = {ord(sign) for made in drawn.values()
             for sign in html.unescape(re.sub("<[^>]*>", "", made)) + " \xa0\u200b"}

    def lighter(found):
        font = ttLib.TTFont(folder / "katex" / found[1], recalcTimestamp=False)
        options = subset.Options(layout_features=["*"], notdef_outline=True, hinting=False)
        cut = subset.Subsetter(options)
        cut.populate(unicodes=signs & set(font.getBestCmap()))
        cut.subset(font)
        font.flavor, made = "woff2", io.BytesIO()
        font.save(made)
        name = f"fonts/book/{found[1].rpartition('/')[2]}"
        write_whole(folder / "katex" / name, made.getvalue())
        return f"url({name}"

    return re.sub(r"url\((fonts/[^)]*\.woff2)", lighter, sheet)


# ---------------------------------------------------------------------------------------- widgets

def widgets_apart(text, folder, up):
    """The page whose widgets' states are files below folder, which `up` leads to from the page.

    Raises
    ------
    ValueError
        A widget is not one of anywidget, whose front end widgets.js would not know how to start.
    """
    states = {}
    for block in STATE.findall(text):
        states |= json.loads(block)["state"]

    def view(found):
        model = states[json.loads(found[1])["model_id"]]
        if model["model_name"] != "AnyModel":
            raise ValueError(f"a widget of the kind {model['model_name']}: widgets.js starts those "
                             "of anywidget only")
        values = {name: value for name, value in model["state"].items()
                  if value is not None and not re.match("_(model|view)_|layout|tabbable", name)}
        made = json.dumps(values, ensure_ascii=False, sort_keys=True)
        name = f"{hashlib.sha256(made.encode()).hexdigest()[:20]}.js"
        write_whole(folder / WIDGETS / name, f"{TAKE}{made});\n".encode())
        return found[0].replace("<script", f'<script data-state="{up}{WIDGETS}/{name}"'
                                f' data-kind="{html.escape(values["_anywidget_id"])}"', 1)

    return STATE.sub("", VIEW.sub(view, text))


# ------------------------------------------------------------------------------------ style sheets

#: Parts of the theme that its script knows and this book does not have.
NEVER = {"bd-header-announcement", "dropdown-menu-dark",
         "list-group-item", "pst-button-link-to-stable-version", "tooltip",
         "version-switcher__button", "version-switcher__menu"}
QUOTED = re.compile(r"""["'`]([\w\s.#>:-]{1,120})["'`]""")
#: What a script looks for it does not bring.
LOOKED_FOR = re.compile(r"""\b(?:querySelector(?:All)?|closest|matches|contains|getElement\w+
    |\w+Attribute|\w+EventListener|getPropertyValue)\(\s*(["'`])(?:(?!\1).)*\1
    (?!\s*,\s*["'`])""", re.VERBOSE)
OPENS = re.compile(r"<([a-z][\w-]*)((?:\s[^<>\"]*(?:\"[^\"]*\"[^<>\"]*)*)?)>")


class Words:
    """What pages can have as tags, classes and names: in their markup, or by a script's strings."""

    def __init__(self, pages, scripts):
        self.where = {}  # the pages on which there is an element of a tag, with classes and a name
        for page, text in pages.items():
            for tag, attributes in set(OPENS.findall(text)):
                said = re.findall(r'\b(?:class|id)="([^"]*)"', attributes)
                element = frozenset([f"<{tag}", *" ".join(said).split()])
                self.where.setdefault(element, set()).add(page)
        self.brought = {word for text in scripts
                        for words in QUOTED.findall(LOOKED_FOR.sub("", without_comments(text)))
                        for word in re.findall(r"(?<![.#\w-])[\w-]+", words)} - NEVER
        self.pages = frozenset(pages)

    def can_be(self, selector):
        """Whether on one page there can be an element for each part of a selector."""
        pages = self.pages
        for names in parts_of(selector):
            there = {name for name in names if name.lstrip("<") not in self.brought}
            if any(name[0] != "<" for name in there):  # no script makes such an element
                there = names - self.brought
            if there:
                pages = pages & set().union(*(on for element, on in self.where.items()
                                              if there <= element - NEVER))
        return bool(pages) and all(
            any(map(self.can_be, listed(token.arguments))) for token in selector
            if token.type == "function" and token.lower_name in ("is", "where"))


def listed(selectors):
    """The selectors, each without the spaces around it, of a list that commas part."""
    found = [[]]
    for token in selectors:
        if token == ",":
            found.append([])
        elif found[-1] or token.type != "whitespace":
            found[-1].append(token)
    return [one[:-1] if one and one[-1].type == "whitespace" else one for one in found]


def short(selector):
    """A selector, as it is but for spaces that nobody needs."""
    text = re.sub(r"\s+", " ", tinycss2.serialize(selector))
    return re.sub(r"(?<=[(,>~+]) | (?=[),>~])| (?=\+ )", "", text)


def parts_of(selector):
    """Classes, names and <tags that each part of a selector needs; what is in :is() is not told."""
    found, before = [set()], None
    for token in selector:
        if token.type == "hash" or token.type == "ident" and before == ".":
            found[-1].add(token.value)
        elif token.type == "ident" and before != ":":
            found[-1].add(f"<{token.value}")
        elif token.type == "whitespace" or token in (">", "+", "~"):
            found.append(set())
        before = token.value if token.type == "literal" else None
    return found


def lighter_rules(rules, words):
    """The text of the rules of which a word can be; what is said for no selector is left out."""
    made = []
    for rule in rules:
        if rule.type == "qualified-rule":
            kept = [short(one) for one in listed(rule.prelude) if words.can_be(one)]
            if kept:
                made.append(f"{','.join(kept)}{{{declarations(rule.content)}}}")
        elif rule.type == "at-rule":
            start = f"@{rule.at_keyword} {tinycss2.serialize(rule.prelude).strip()}"
            if rule.at_keyword in ("media", "supports"):
                inside = lighter_rules(tinycss2.parse_rule_list(
                    rule.content, skip_comments=True, skip_whitespace=True), words)
                if inside:
                    made.append(f"{start}{{{inside}}}")
            elif rule.content is not None:
                inside = tinycss2.serialize(rule.content)
                made.append(f"{start}{{{re.sub(chr(92) + 's+', ' ', inside).strip()}}}")
            elif rule.at_keyword != "charset":
                raise ValueError(f"a style sheet says {start}: what should one sheet of all say?")
        elif rule.type == "error":
            raise ValueError(f"a style sheet has a fault: {rule.message}")
    return "\n".join(made)


def value_of(declaration):
    """Its value, with no more spaces than it needs, but as it stands where it quotes."""
    made = tinycss2.serialize(declaration.value).strip()
    if set(made) & set("\"'\\"):
        return made
    return re.sub(r"(?<![\w.#])0(?=\.\d)", "", re.sub(r"\s*,\s*", ",", " ".join(made.split())))


def declarations(content):
    found = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    return ";".join(f"{one.name}:{value_of(one)}"
                    f"{'!important' * one.important}" for one in found
                    if one.type == "declaration")


def sheet_text(path):
    """What a style sheet says, with the sheets that it imports in their places."""
    return re.sub(r'@import "([^"]+)";', lambda found: sheet_text(path.parent / found[1]),
                  path.read_text("utf-8"))


def one_sheet(texts, words, others=""):
    """One style sheet of many, in their order; `others` is what else may ask for a variable."""
    notices = [found for text in texts for found in re.findall(r"/\*!.*?\*/", text, re.DOTALL)]
    made = "\n".join(lighter_rules(tinycss2.parse_stylesheet(
        text, skip_comments=True, skip_whitespace=True), words) for text in texts)
    while True:  # a variable may be there for another one only
        used = set(re.findall(r"--[\w-]+(?=[^\w:-])", made + others))
        fewer = re.sub(r"(?<=[{;])(--[\w-]+):(?:[^;{}\"]|\"[^\"]*\")*(;|(?=\}))",
                       lambda found: found[0] if found[1] in used else "", made)
        fewer = re.sub(r"(?m)^[^{}\n]*\{\}\n", "", fewer)
        if fewer == made:
            return "\n".join([*dict.fromkeys(notices), made])
        made = fewer


def with_short_names(sheet, others):
    """The sheet with a letter or two for each variable of which nothing else says the name."""
    variable = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*")
    asked = set(variable.findall(others))
    names = [name for name, _ in Counter(variable.findall(sheet)).most_common()
             if name not in asked]
    words = (f"--{''.join(word)}" for long in (1, 2, 3)
             for word in product(ascii_lowercase, repeat=long))
    short = dict(zip(names, (word for word in words if word not in asked.union(names))))
    return variable.sub(lambda found: short.get(found[0], found[0]), sheet)


# ------------------------------------------------------------------------------------------- pages

def without(text, pattern, drops):
    """The page without the tags whose address `drops` says."""
    return pattern.sub(lambda found: "" if drops(found[1]) else found[0], text)


def without_comments(script):
    """A script without its lines of comment and indentation; what holds a licence stays."""
    script = re.sub(r"(?m)^[ \t]*/\*(?:(?!\*/).)*?\*/[ \t]*\n",
                    lambda found: found[0] if re.search("copyright|licen", found[0], re.IGNORECASE)
                    else "", script, flags=re.DOTALL)
    return re.sub(r"(?m)^[ \t]+|^[ \t]*//.*\n|^\s*\n", "", script)


def without_indentation(text):
    """A page without comments, indentation and empty lines, but in what shows them."""
    parts = re.split(r"(<(pre|script|textarea)\b.*?</\2>)", text, flags=re.DOTALL)
    return "".join(part if at % 3 == 1 else re.sub(r"(\s|<!--[^>]*-->)*\n\s*", "\n", part)
                   for at, part in enumerate(parts) if at % 3 < 2)


def without_unused(text):
    def drops(address):
        need = ONLY_WITH.get(address.rpartition("/")[2])
        return need is not None and not re.search(need, text)

    text = re.sub(r"(<script>[^<]*</script>\n)\1", r"\1", text)  # twice the same
    head, first, rest = text.partition('<meta name="viewport"')  # the theme writes it three times
    text = head + first + re.sub(r'<meta name="viewport"[^>]*>', "", rest)
    return without(without(text, SCRIPTS, drops), SHEETS, drops)


def with_sheets(pages, folder, formulas, rules):
    """The pages with one sheet for the theme's and Sphinx's many, and one for the formulas'.

    The second one has also the `rules` that the drawn formulas in the pages ask for.
    """
    theirs = {}  # each sheet once, in the order of the first page that loads it
    for name, text in pages.items():
        for address in SHEETS.findall(text):
            if not KEPT.search(address):
                theirs[(folder / name).parent.joinpath(address).resolve()] = None
    katex = [path for path in theirs if path.name == "katex.min.css"]
    theirs = [path for path in theirs if path not in katex]
    scripts = [path.read_text("utf-8") for path in [
        *folder.glob("_static/*.js"), *folder.glob("_static/scripts/*theme.js"),
        *folder.glob("in-page/*/*.js")]]
    states = [json.loads(path.read_text("utf-8")[len(TAKE):-len(");\n")])
              for path in folder.glob(f"{WIDGETS}/*.js")]
    scripts += dict.fromkeys(values["_esm"] for values in states)
    more = [*{values["_css"] for values in states}, *(path.read_text("utf-8") for path in [
        *folder.glob("in-page/*/*.css"), *folder.glob("icons/*.css")])]
    others = "\n".join([*scripts, *more, *pages.values()])
    words = Words(pages, scripts)
    sheet = with_short_names(one_sheet([*map(sheet_text, theirs)], words, others), others)
    whose = ", ".join(path.relative_to(folder.resolve()).as_posix() for path in theirs)
    write_whole(folder / SHEET, f"/* What the pages need of {whose} */\n{sheet}".encode())
    drawn = Words({name: " ".join(re.findall(r'<[^>]*class="katex.*', text)) for name, text
                   in pages.items()}, [])
    made = ""
    if katex:
        made = one_sheet([katex[0].read_text("utf-8")], drawn)
        made = re.sub(r",url\([^)]*\.(?:woff|ttf)\) format\([^)]*\)", "", made)
        if formulas:
            made = lighter_fonts(made, folder, formulas)
        made += f"\n{rules}"
        write_whole(folder / FORMULA_SHEET, made.encode())
    names = markup.names_in([sheet, made, *more], scripts)
    found = {}
    for name, text in pages.items():
        text = markup.with_named_classes(text, names)
        up = "../" * name.count("/")
        links = [FORMULA_SHEET] * bool(katex and MATH.search(text)) + [SHEET]
        tags = "".join(f'\n    <link rel="stylesheet" href="{up}{link}?v={version(folder / link)}" '
                       "/>" for link in links)
        first = SHEETS.search(text)
        if first:
            text = text[:first.start()] + tags + text[first.start():]
            text = without(text, SHEETS, lambda address: not KEPT.search(address) and not
                           address.endswith((SHEET, FORMULA_SHEET)))
        found[name] = text
    return found


def lighten(folder):
    """Make the pages of a built book light. All else of it must stand there already."""
    files = [*sorted(folder.glob("*.html")), *sorted((folder / "book").rglob("*.html"))]
    pages = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}
    drawn = draw(pages)
    looks = markup.looks_of((folder / "_static/pygments.css").read_text("utf-8"))
    for name, text in pages.items():
        text = widgets_apart(text, folder, "../" * name.count("/"))
        text = with_formulas(late_images(text, folder), drawn)
        text = markup.with_plain_words(markup.with_fewer_tokens(text, looks))
        text = markup.with_fewer_groups(text)
        pages[name] = without_indentation(without_unused(text))
    for path in (folder / "_static").glob("*.js"):
        write_whole(path, without_comments(path.read_text("utf-8")))
    pages, rules = markup.with_fewer_styles(pages)
    for name, text in with_sheets(pages, folder, drawn, rules).items():
        if "<meta charset" in text:
            write_whole(folder / name, with_policy(text))
