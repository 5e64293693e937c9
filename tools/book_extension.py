"""Sphinx extension of this book: what Jupyter Book's configuration file cannot say.

- The repository's address comes from REPOSITORY_URL or from git at build time. Without one there is
  no launch, edit or repository button: each would lead nowhere.
- A notebook's page has a menu that runs it: in the browser (tools/lite), on Binder, in Colab; or
  gives the file. The hosted ones need the repository's address.
- A term of the glossary leads there from where a page first has it.
- A notebook's line on its reading time gets its number from what the page holds (reading_time.py).
- Its figures become SVG that readers can use (drawn.py).
- Markup of the theme and of docutils that screen readers stumble over is mended, and each page gets
  its Content-Security-Policy (content_policy.py).
- Thebe is left out. It would fetch its code from another host, and Jupyter Book adds its
  script twice, which is an error in every page's console.
"""

import html
import itertools
import os
import posixpath
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from docutils import nodes

ROOT = Path(__file__).resolve().parent.parent
#: Set by tools/build_book.py when Python for the browser was built; else the menu leaves it out.
IN_BROWSER = "BOOK_RUNS_IN_BROWSER"


def git(*question):
    """git's answer about this repository; "" without git or where the book is none itself."""
    def ask(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True,
                              check=False).stdout.strip()
    try:
        # Unpacked inside another repository, the book must not publish that one's address.
        return ask(*question) if Path(ask("rev-parse", "--show-toplevel")) == ROOT else ""
    except OSError:  # no git here
        return ""


def branch():
    """REPOSITORY_BRANCH, or main.

    Raises
    ------
    ValueError
        It is no name of a branch.
    """
    name = os.environ.get("REPOSITORY_BRANCH") or "main"
    if not re.fullmatch(r"\w[\w./+-]*", name):
        raise ValueError(f"REPOSITORY_BRANCH is {name!r}: no name of a branch")
    return name


def commit():
    """The commit that the pages are built from, for those who report a fault; "" without git."""
    return os.environ.get("BOOK_COMMIT") or git("rev-parse", "--short=12", "HEAD")


def repository_url():
    """Web address of the repository, from REPOSITORY_URL or the remote `origin`; None without."""
    address = os.environ.get("REPOSITORY_URL", "").strip() or git("remote", "get-url", "origin")
    address = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", address)
    address = re.sub(r"//[^/]+@", "//", address)  # never publish a user or token from a remote
    address = re.sub(r"(\.git)?/?$", "", address)
    names = r"https://[\w-]+(\.[\w-]+)+(:\d+)?(/[\w.~+-]+){2,}"  # nothing that a page could run
    return address if re.fullmatch(names, address) else None


def set_repository(app, config):
    options = config.html_theme_options
    options["logo"] = {"text": config.html_title}  # beside the mark
    config.html_baseurl = os.environ.get("BOOK_URL", "")  # cards of links need whole addresses
    url = repository_url()
    options["repository_url"] = url or ""
    options["repository_branch"] = branch()
    for button in ("use_repository_button", "use_edit_page_button"):
        options[button] = bool(url)


def link(text, url, icon, tooltip, label):
    return {"type": "link", "text": text, "url": url, "icon": icon, "tooltip": tooltip,
            "label": label}


def run_buttons(notebook, pathto):
    """Where this notebook (its path from the root) can be run, the easiest first."""
    buttons, url = [], repository_url()
    if os.environ.get(IN_BROWSER) == "yes":
        from lite import build as lite

        if lite.runs_in_browser(notebook):
            buttons.append(link(
                "Run in the browser", f"{pathto('lite/notebooks/index.html', 1)}?path={notebook}",
                "fas fa-play", "Nothing to install; works without a network", "launch-lite"))
            buttons.append(link(
                "Start again", f"{pathto('lite/start-again.html', 1)}?path={notebook}",
                "fas fa-arrow-up", "Forget what this browser keeps of your changes",
                "launch-lite start-again"))
    if url and urlsplit(url).netloc == "github.com":
        owner = urlsplit(url).path.strip("/")
        query = urlencode({"urlpath": f"lab/tree/{notebook}"})
        buttons.append(link(
            "Binder", f"https://mybinder.org/v2/gh/{owner}/{quote(branch(), safe='')}?{query}",
            "fas fa-rocket", "A free server of mybinder.org; takes minutes to start",
            "launch-binder"))
        # The branch `colab` is pushed by the workflow `pages`: the same notebooks, with a first
        # cell that fetches the code.
        buttons.append(link(
            "Colab", f"https://colab.research.google.com/github/{owner}/blob/colab/{notebook}",
            "fas fa-rocket", "Needs a Google account", "launch-colab"))
    return buttons


def feedback_link(context):
    """An issue form filled in with what we need to know; None without the repository's address."""
    url = repository_url()
    if not url:
        return None
    title = re.sub("<[^>]*>", "", context.get("title", ""))
    page = f"{title} ({context['pagename']})"
    version = f"{commit() or 'unknown'}, built with Python {sys.version.split()[0]}"
    if "gitlab" in url:
        body = f"Page: {page}\nVersion: {version}\n\nWhat is wrong or unclear:\n"
        place = "-/issues/new"
        fields = {"issue[title]": f"{title}: ", "issue[description]": body}
    else:  # the fields of .github/ISSUE_TEMPLATE/wrong.yml
        place = "issues/new"
        fields = {"template": "wrong.yml", "title": f"{title}: ", "page": page, "version": version}
    return f"{url}/{place}?" + urlencode(fields, quote_via=quote)


def add_buttons(app, pagename, templatename, context, doctree):
    """Our menu before the theme's buttons; the notebook's file is in it, not in two menus."""
    if "header_buttons" not in context:
        return
    buttons = context["header_buttons"]
    if feedback := feedback_link(context):
        buttons.insert(0, link("", feedback, "fas fa-pencil", "Say what is wrong or unclear here",
                               "feedback"))
    if context.get("page_source_suffix") == ".ipynb":
        run = run_buttons(f"{pagename}.ipynb", context["pathto"])
        run.append(link("Download the notebook",
                        f"{context['pathto']('_sources', 1)}/{context['sourcename']}",
                        "fas fa-download", "The file, for your own Jupyter", "launch-download"))
        buttons.insert(0, {"type": "group", "buttons": run, "icon": "fas fa-play",
                           "tooltip": "Run this page", "label": "launch-buttons"})
        for group in [button for button in buttons if button.get("label") == "download-buttons"]:
            group["buttons"] = [button for button in group["buttons"]
                                if not button.get("url", "").endswith(".ipynb")]


def describe(app, pagename, templatename, context, doctree):
    """The page's description for those who link to it: its first paragraph of some length."""
    paragraphs = (node.astext() for node in doctree.findall(nodes.paragraph)) if doctree else ()
    first = next((text for text in paragraphs if len(text) > 80), app.config.html_title)
    context["description"] = textwrap.shorten(first, 200, placeholder=" …")


def drop_thebe(app, pagename, templatename, context, doctree):
    def is_thebe(script):
        filename = getattr(script, "filename", None) or ""
        body = getattr(script, "attributes", {}).get("body") or ""
        return "thebe" in filename or "THEBE_JS_URL" in body

    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]


#: What screen readers stumble over in the theme's and docutils' markup, and what takes its place.
MENDED_MARKUP = {
    # A button of the navigation that shows an icon and has no name.
    '<summary><span class="toctree-toggle"':
        '<summary aria-label="Show or hide the pages of this part"><span class="toctree-toggle"',
    # docutils lists citations in roles that ARIA has deprecated, with children that no list allows.
    ' role="doc-biblioentry"': "",
    ' role="doc-backlink"': "",
    '<div role="list" class="citation-list">': '<div class="citation-list">',
    # The pages' policy allows no script in an attribute; launch.js listens instead.
    'onclick="toggleFullScreen()"': 'data-does="fullscreen"',
    'onclick="window.print()"': 'data-does="print"',
    # The theme's script, the last to come, says which colours "auto" are: until then a page would
    # have none, and its tables no lines, which move what stands below when they come.
    ' data-theme="auto">': ' data-theme="light">',
    'dataset.theme = localStorage.getItem("theme") || "auto";':
        'dataset.theme = ["light", "dark"].find((one) => one === localStorage.getItem("mode")) '
        '|| (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");',
}

#: In Sphinx's scripts. Order and excerpts are the book's own (search.js). Words that every object
#: of JavaScript has, "constructor", say, are no words of the book. And what is marked in a page are
#: few words, and whole ones: a link with many letters (`?highlight=a+b+c`) would make so many marks
#: that the page stands still; and none in a drawing, where a mark in a point's title has no place.
MENDED_SEARCH = {
    "highlightTerms.add(queryTermLower);":
        "if (queryTermLower.length > 2 && highlightTerms.size < 20) "
        "highlightTerms.add(queryTermLower);",
    "{ files: terms[word],": "{ files: Object.hasOwn(terms, word) ? terms[word] : undefined,",
    "{ files: titleTerms[word],":
        "{ files: Object.hasOwn(titleTerms, word) ? titleTerms[word] : undefined,",
    "(terms[term] || [])": "(Object.hasOwn(terms, term) ? terms[term] : [])",
    "  else if (showSearchSummary)\n    fetch(requestUrl)":
        "  else if (window.bookSearch)\n    bookSearch.tell("
        "listItem, docName, anchor, searchTerms, highlightTerms);\n"
        "  else if (showSearchSummary)\n    fetch(requestUrl)",
    "    // print the results\n    _displayNextItem(results, results.length,":
        "    const told = window.bookSearch?.order(results, query) ?? results;\n"
        "    _displayNextItem(told, told.length,",
    "(titleTerms[term] || [])": "(Object.hasOwn(titleTerms, term) ? titleTerms[term] : [])",
}
MENDED_HIGHLIGHT = {
    r".split(/\s+/).filter(x => x);":
        r".split(/\s+/).filter(x => x.length > 2).slice(0, 20);",
    '"button, select, textarea"': '"button, select, textarea, svg"',
}
MENDED_SCRIPTS = {"searchtools.js": MENDED_SEARCH, "sphinx_highlight.js": MENDED_HIGHLIGHT}


#: A table of Markdown or of a cell, as both are written; one cell of it; a number with its unit.
TABLE = re.compile(r'<table class="table">(?:(?!<table|colspan|rowspan).)*?</table>', re.DOTALL)
CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.DOTALL)
NUMBER = re.compile(r"[-−+±~<]?\d[\d.,  ]*(e[-−+]?\d+)?( × \d[\d,]*)?"
                    r"( ?(%|×|‰|[kMGT]?i?B|[kMBT]|m?s|min|h|times|tests|tokens(/s)?))?")


#: A word of code, as Sphinx writes it; where a long one may break.
WORD_OF_CODE = re.compile(r'(<span class="pre)(">)([^<]*)(</span>)')
BREAKS = re.compile(r"(?<=[/_.=(,])(?=[^\W_])")
#: A word of another kind that is too long for a column, outside of any tag.
LONG_WORD = re.compile(r"[^\s<>]{20,}(?![^<]*>)")


def mend_code(found, most=30):
    """A word of code of more letters breaks where a reader would break it; an option stays whole.

    A line of text on a phone has room for about thirty letters, a table's cell for twelve.
    """
    start, end, word, close = found.groups()
    if word.startswith("-"):
        return f"{start} is-option{end}{word}{close}"
    return f"{start}{end}{BREAKS.sub('<wbr>', word) if len(word) > most else word}{close}"


def mend_table(found):
    """A table whose columns of numbers stand right, and that a phone may show as cards.

    Cards need a label in each cell, which the style sheet can only take from an attribute.
    """
    def plain(markup):
        return " ".join(html.unescape(re.sub("<[^>]*>", "", markup)).split())

    start, *rows = re.split(r"(?=<tr\b)", found[0])
    head, *body = [[plain(cell[2]) for cell in CELL.findall(row)] for row in rows]
    numbers = {column for column, cells in enumerate(zip(*body)) if column
               and all(NUMBER.fullmatch(cell) or cell in ("", "–", "-", "—") for cell in cells)
               and any(cells)}
    longest = [max(len(word) for cell in cells for word in [*cell.split(), ""])
               for cells in zip(*body)]  # of the words in each column, which a phone would break
    cards = (not any("\\(" in name for name in head)
             and (any(len(cell) > (10 if len(head) - len(numbers) > 3 else 30)
                      for row in body for cell in row[1:])
                  if len(head) > 2 else sum(longest) > 30))

    def mended(row):
        def cell(found):
            tag, attributes, inside = found.groups()
            column = next(count)
            inside = WORD_OF_CODE.sub(lambda word: mend_code(word, 12), inside)
            if "\\(" not in inside:  # nor would TeX bear it
                inside = LONG_WORD.sub(lambda word: BREAKS.sub("<wbr>", word[0]), inside)
            if column in numbers:
                attributes, classed = re.subn(r'class="', 'class="is-number ', attributes)
                attributes += "" if classed else ' class="is-number"'
            if (cards and column < len(head) and head[column] and plain(inside)
                    and "scope=\"col" not in attributes):
                attributes += f' data-label="{html.escape(head[column])}"'
            return f"<{tag}{attributes}>{inside}</{tag}>"

        count = itertools.count()
        return CELL.sub(cell, row)

    # Under its new class a page that a build keeps is not mended twice.
    start = start.replace('class="table"', f'class="table {"is-cards" if cards else "is-rows"}"')
    return start + "".join(map(mended, rows))


#: The part of the navigation that gives answers away: folded, but on its own pages.
SOLUTIONS = re.compile(
    r'<p aria-level="2" class="caption" role="heading">'
    r'(<span class="caption-text">Solutions</span>)'
    r"</p>\s*(<ul\b.*?</ul>)(?=\s*<p aria-level|\s*</div>)", re.DOTALL)


def fold_solutions(found):
    caption, pages = found.groups()
    here = " open" if "current" in pages else ""
    return f'<details class="nav-solutions"{here}><summary>{caption}</summary>{pages}</details>'


#: A link in the HTML that a cell displays: it leads to a file, as in JupyterLab.
LINK_OF_OUTPUT = re.compile(r'(<a href="[\w./-]+)\.(?:ipynb|md)((?:#[\w-]*)?">)')


def mend_markup(app, error):
    if error or app.builder.name != "html":
        return
    import content_policy
    from whole import write_whole

    out = Path(app.outdir)
    for name, mended in MENDED_SCRIPTS.items():
        script = out / "_static" / name
        text = script.read_text("utf-8")
        for wrong, right in mended.items():
            if right in text:  # it may hold the wrong one
                continue
            if wrong not in text:
                raise ValueError(f"Sphinx's {name} no longer says {wrong!r}: look at its mending")
            text = text.replace(wrong, right)
        write_whole(script, text)
    pages = [page for page in out.glob("*.html") if page.name != "index.html"]  # Jupyter Book's
    for page in [*pages, *out.joinpath("book").rglob("*.html")]:
        before = text = page.read_text("utf-8")
        for wrong, right in MENDED_MARKUP.items():
            text = text.replace(wrong, right)
        text = SOLUTIONS.sub(fold_solutions, TABLE.sub(mend_table, text))
        text = WORD_OF_CODE.sub(mend_code, text)
        text = LINK_OF_OUTPUT.sub(r"\1.html\2", text)
        text = content_policy.with_policy(text)
        if text != before:
            write_whole(page, text)


def place_extra_files(app):
    """Copy vendor/ before any page is written, not only after all of them as Sphinx does.

    Sphinx names a file with its checksum if it is there: a first build would differ from a second.
    The other way round, MyST-NB's style sheet of an earlier build goes: its name is its checksum.
    """
    if app.builder.name == "html":
        app.builder.copy_extra_files()
        for sheet in Path(app.outdir, "_static").glob("mystnb.*.css"):
            sheet.unlink()  # MyST-NB puts it back in the end


def resolve_links_of_outputs(app, doctree, docname):
    """Let a link that a cell prints lead to the other chapter's page, as one in the text does."""
    for link in doctree.findall(nodes.reference):
        file, _, anchor = link.get("refuri", "").partition("#")
        if file.endswith((".ipynb", ".md")) and not urlsplit(file).scheme:
            chapter = posixpath.normpath(posixpath.join(posixpath.dirname(docname), file))
            chapter = chapter.rpartition(".")[0]
            if chapter in app.env.found_docs:
                address = app.builder.get_relative_uri(docname, chapter)
                link["refuri"] = "#".join(filter(None, [address, anchor]))


#: A space that ends no line: between a number and its unit, and around a deviation.
NO_BREAK = re.compile(r"(?<=\d) (?=(?:%|‰|×|±|[kMGT]i?B)(?!\w))|(?<=±) (?=\d)")


def keep_units(app, doctree, docname):
    """Let no line of running text end between a number and its unit."""
    if app.builder.format == "html":
        for part in doctree.findall(nodes.section):
            for text in list(running_text(part)):
                kept = NO_BREAK.sub("\xa0", text)
                if kept != text:
                    text.parent.replace(text, nodes.Text(kept))


GLOSSARY = "book/glossary"
SAY_OTHER_THINGS = {"block", "scaling"}  # also words of plain English in the text


def glossary(env):
    """{a term as the text may write it: its anchor}, of all the glossary's terms."""
    return {name.strip(): anchor for term, _, kind, _, anchor, _ in
            env.get_domain("std").get_objects() if kind == "term" for name in term.split(",")
            if name.strip() not in SAY_OTHER_THINGS}


def link_terms(app, doctree, docname):
    """Let a term of the glossary lead there from where a page's running text first has it."""
    terms = glossary(app.env)
    if docname == GLOSSARY or not terms or app.builder.format != "html":
        return
    names = "|".join(sorted(map(re.escape, terms), key=len, reverse=True))
    word = re.compile(rf"(?<![\w-])({names})s?(?![\w-])", re.IGNORECASE)
    known = {name.lower(): name for name in terms}
    page, seen = app.builder.get_relative_uri(docname, GLOSSARY), set()
    for text in [text for part in doctree.findall(nodes.section) for text in running_text(part)]:
        pieces, end = [], 0
        for found in word.finditer(text):
            name = known[found[1].lower()]
            if terms[name] in seen or not name.islower() and name != found[1]:  # GLUE is no glue
                continue
            seen.add(terms[name])
            link = nodes.reference("", found[0], internal=True, classes=["glossary-term"],
                                   refuri=f"{page}#{terms[name]}")
            pieces += [nodes.Text(text[end:found.start()]), link]
            end = found.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def running_text(section):
    """The plain words of a section's own paragraphs; a question's are the label of its choices."""
    asked = False
    for child in section.children:
        if isinstance(child, nodes.raw):
            asked = '<div class="question' in child.astext() or (
                asked and "</div>" not in child.astext())
        elif isinstance(child, nodes.paragraph) and not asked:
            inside = False  # of a tag, say a button, in which a link would be one too many
            for part in child.children:
                if isinstance(part, nodes.raw):
                    inside = not part.astext().startswith("</")
                elif isinstance(part, nodes.Text) and not inside:
                    yield part


def set_reading_time(app, docname, source):
    """A notebook's reading time and figures; on the front page the cards of chapters."""
    if Path(app.env.doc2path(docname)).suffix == ".ipynb":
        import drawn
        import reading_time

        source[0] = drawn.with_figures(reading_time.timed(source[0]))
    elif docname == app.config.root_doc:
        import front_page

        source[0] = front_page.with_cards(source[0])


def setup(app):
    app.connect("config-inited", set_repository)
    app.connect("builder-inited", place_extra_files)
    app.connect("source-read", set_reading_time)
    app.connect("doctree-resolved", resolve_links_of_outputs)
    app.connect("doctree-resolved", link_terms)
    app.connect("doctree-resolved", keep_units)
    app.connect("html-page-context", add_buttons, priority=800)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", mend_markup)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
