"""What a page's markup says needlessly, and that page without it: to a reader it is the same one.

Pygments gives every token an element, KaTeX every sign, Sphinx every word of code, Matplotlib every
tick. Classes stay where a style sheet or a script names them.
"""

import re
from collections import Counter

SPAN = re.compile(r"<span\b[^>]*>|</span>")
#: KaTeX's elements whose children, or their children too, its style sheet tells by their places.
PLACES = {"vlist": 2, "mfrac": 2, "katex-display": 2, "katex-accent": 1, "op-limits": 1, "llap": 1,
          "rlap": 1}


# ------------------------------------------------------------------------------------------- code

def looks_of(sheet):
    """{Pygments' name of a kind of token: the name that stands for all that look like it}.

    None stands for the colour of the text around it.
    """
    looks, around = {}, {}
    rule = r'\[data-theme="(\w+)"\] \.highlight( \.\w+)? \{ ([^}]*?);? ?\}'
    for theme, name, look in re.findall(rule, sheet):
        if name:
            looks.setdefault(name[2:], {})[theme] = look.strip()
        else:
            around[theme] = re.search(r"(?<![\w-])color: [^;]+", look)[0].strip()
    first = {}
    for name in sorted(looks, key=lambda name: (len(name), name)):
        first.setdefault(str(sorted(looks[name].items())), name)
    return {name: None if look == around else first[str(sorted(look.items()))]
            for name, look in looks.items()}


def with_fewer_tokens(text, looks):
    """The page whose code has one element for what stands together and looks alike.

    Nobody sees the colour of a space, nor of the dot before a name.
    """
    def renamed(found):
        name = looks.get(found[1], found[1])
        if name is None or found[1] == "o" and found[2] == ".":
            return found[2]
        return f'<span class="{name}">{found[2]}</span>'

    def block(found):
        code = re.sub(r'<span class="(\w+)">([^<]*)</span>', renamed, found[0])
        while True:
            joined = re.sub(r'(<span class="(\w+)">)([^<]*)</span>(\s*)<span class="\2">',
                            r"\1\3\4", code)
            if joined == code:
                return code
            code = joined

    return re.sub(r"<pre>.*?</pre>", block, text, flags=re.DOTALL)


def with_plain_words(text):
    """The page whose words of code, each an element in docutils, are marked as one by their code.

    A line may break between two of them as before; an option, which none may break, stays.
    """
    def whole(found):
        inside = re.sub(r'</span> <span class="pre">', " <wbr>", found[1])
        if "<span" in inside or "</span>" in inside:
            return found[0]
        return f'<code class="literal pre notranslate">{inside}</code>'

    return re.sub(r'<code class="docutils literal notranslate"><span class="pre">(.*?)</span>'
                  r"</code>", whole, text)


# ---------------------------------------------------------------------------------------- figures

def with_fewer_groups(text):
    """The page whose figures have one group for the ticks that follow each other."""
    def figure(found):
        drawn = found[0]
        while True:
            joined = re.sub(r'(<g style="[^"]*">)((?:<use [^>]*/>)+)</g>\1', r"\1\2", drawn)
            if joined == drawn:
                return drawn
            drawn = joined

    return re.sub(r"<svg\b.*?</svg>", figure, text, flags=re.DOTALL)


# --------------------------------------------------------------------------------------- formulas

STYLED = re.compile(r'<span(?: class="([^"]*)")? style="([^"]*)">')
DRAWN = re.compile(r'<span class="katex-html".*?(?=</(?:p|li|td|th|dt|dd|div|h\d|figcaption)>)',
                   re.DOTALL)
#: How often in the book a style must stand in formulas for it to become a rule of their sheet.
OFTEN = 40


def with_fewer_styles(pages):
    """The pages with the styles that KaTeX writes often as classes, and the rules of these.

    What MathML says of looks is left out too: it is there for those who hear it.
    """
    count = Counter(style for text in pages.values() for drawn in DRAWN.findall(text)
                    for _, style in STYLED.findall(drawn))
    name = {style: f"k{at}" for at, (style, times) in enumerate(count.most_common())
            if times >= OFTEN}

    def span(found):
        words, style = found[1], found[2]
        if style in name:
            return f'<span class="{f"{words} " * bool(words)}{name[style]}">'
        return found[0].replace(style, shorter(style))

    rules = "\n".join(f".katex .{one}{{{shorter(style)}}}" for style, one in name.items())
    looks = re.compile(r' (?:stretchy|minsize|maxsize)="[^"]*"')
    return {page: re.sub(r"<math\b.*?</math>", lambda math: looks.sub("", math[0]), DRAWN.sub(
        lambda drawn: STYLED.sub(span, drawn[0]), text), flags=re.DOTALL)
        for page, text in pages.items()}, rules


def shorter(style):
    return re.sub(r"(?<![\d.])0(?=\.\d)", "", style.removesuffix(";"))


# ---------------------------------------------------------------------------------------- classes

def names_in(sheets, scripts):
    """The classes that style sheets name, and every word of scripts."""
    found = {word for text in scripts for word in re.findall(r"[\w-]+", text)}
    for text in sheets:
        found.update(re.findall(r"\.(-?[A-Za-z_][\w-]*)", text))
    return found


def with_named_classes(text, names):
    """The page with only the classes that are named, and no element that has said only others.

    What tells a translator or a screen reader something stays, as does what begins a name that a
    style sheet asks for by its beginning, a cell's tags, and the name of the menu that runs a page.
    """
    kept = re.compile(r"notranslate|nohighlight|highlight-|toctree-l|tag_|dropdown-launch-buttons")

    def tag(found):
        words = found[2].split()
        said = [word for word in words if word in names or kept.match(word)]
        if len(said) == len(words) or not said and re.match(r"<(a|dl)\b", found[1]):
            return found[0]  # a style sheet asks whether these have any
        return f'{found[1]} class="{" ".join(said)}"' if said else f"{found[1]}{LOST}"

    parts = re.split(r"(<(?:script|textarea)\b.*?</(?:script|textarea)>)", text, flags=re.DOTALL)
    text = without_formula_spans("".join(part if at % 2 else CLASSES.sub(tag, part)
                                         for at, part in enumerate(parts)))
    while True:
        fewer = re.sub(rf"<span{LOST}>([^<]*(?:<(?!/?span\b)[^<]*)*)</span>", r"\1", text)
        if fewer == text:
            return text.replace(LOST, "")
        text = fewer


CLASSES = re.compile(r'(<[a-z]\w*(?: [^<>"]*(?:"[^"]*")?)*?) class="([^"]+)"')
#: What stands, on the way, in a tag that has lost its only attribute.
LOST = "\0"


def without_formula_spans(text):
    """The page whose drawn formulas have no elements that say nothing and that nothing asks for."""
    made, open_spans, at = [], [], 0
    for found in SPAN.finditer(text):
        made.append(text[at:found.start()])
        at, span = found.end(), found[0]
        if span == "</span>":
            kept, _, _ = open_spans.pop()
        else:
            words = re.search('class="([^"]*)"', span)
            words = set(words[1].split()) if words else set()
            _, inside, below = open_spans[-1] if open_spans else (True, False, 0)
            kept = not (inside and below < 1 and span == f"<span{LOST}>")
            below = max([below - 1, *(PLACES.get(word, 0) for word in words)])
            open_spans.append((kept, inside or "katex-html" in words, below))
            span = span.replace(LOST, "") if inside else span
        if kept:
            made.append(span)
    return "".join([*made, text[at:]])
