"""The whole book as one PDF: _build/peft-book.pdf.

    python tools/pdf.py

Chromium prints the built pages in the order of _toc.yml, by their own print rules (book.css), each
with its widgets drawn; pypdf joins them behind a title page and the contents. Page numbers count
through, headings become the outline, and a link from one page of the book to another leads to
its place in the file. A link to a file that is not in it stays as text.
"""

import html
import json
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from chromium import CHROMIUM, launched
from whole import alone, replacing, said

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "peft-book.pdf"
PATIENCE = 120_000  # milliseconds until a page's widgets stand
#: Loads what a page loads only when a reader comes near it.
LATE = """async () => {
  const images = [...document.querySelectorAll("img[loading=lazy]")];
  for (const image of images) image.loading = "eager";
  await Promise.all([...images.map((image) => image.decode()), window.bookWidgets?.showAll()]);
}"""
#: Opens what is folded; an address that is the text itself will not stand behind it again. Chromium
#: notes the places of links alone, so a hidden one leads to everything that has a name. Returns the
#: headings: level, text, name.
PREPARE = """async () => {
  const article = document.querySelector("article");
  for (const folded of article.querySelectorAll("details:not(.hide)")) folded.open = true;
  for (const link of article.querySelectorAll("a[href^=http]")) {
    link.toggleAttribute("data-says-target", link.textContent.trim() === link.href);
  }
  const links = document.createElement("nav");
  links.style.display = "none";
  for (const { id } of article.querySelectorAll("[id]")) {
    links.append(Object.assign(document.createElement("a"), { href: `#${id}` }));
  }
  article.append(links);
  await document.fonts.ready;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)));
  return [...article.querySelectorAll("section[id] > :is(h1, h2, h3)")].map((heading) => {
    const text = heading.cloneNode(true);
    for (const more of text.querySelectorAll(".headerlink, .katex-html, annotation")) more.remove();
    return [Number(heading.localName[1]), text.textContent.trim().replace(/\\s+/g, " "),
            heading.parentElement.id];
  });
}"""
PAPER = """@page {{
  size: A4;
  @top-center {{ content: {book}; font: 8pt sans-serif; color: #555 }}
}}
html {{ counter-reset: page {before} }}
#print-main-content {{ display: none }}  /* a page's own contents, which the file's hold */"""
FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
@page {{
  size: A4;
  margin: 20mm 18mm;
  @bottom-center {{ content: counter(page, lower-roman); font: 8pt sans-serif; color: #555 }}
}}
@page :first {{ @bottom-center {{ content: "" }} }}
body {{ font: 10.5pt/1.45 sans-serif; margin: 0 }}
.title {{ break-after: page; padding-top: 55mm }}
.title svg {{ height: 40mm; width: 40mm }}
.title h1 {{ font-size: 32pt; line-height: 1.15; margin: 14mm 0 8mm }}
nav {{ columns: 2; column-gap: 10mm }}
nav p {{ break-inside: avoid; margin: 0 }}
h2 {{ break-after: avoid; font-size: 13pt; margin: 1.4em 0 0.3em }}
nav a {{ color: inherit; display: flex; gap: 0.5em; text-decoration: none }}
nav i {{ border-bottom: 1px dotted #999; flex: 1; margin-bottom: 0.35em; min-width: 1em }}
nav .level-1 {{ break-after: avoid; font-weight: 600; margin-top: 0.5em }}
nav .level-2 {{ font-size: 8.5pt; line-height: 1.35; padding-left: 1em }}
</style><div class="title">{mark}<h1>{title}</h1><p>{author}</p><p>{copyright}. {licence}</p></div>
<h1>Contents</h1><nav>{contents}</nav></html>"""


def contents():
    """(part, name) of each page in the order of _toc.yml; the front page belongs to no part."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    toc = parse_toc_yaml(ROOT / "_toc.yml")

    def below(name, part):
        yield part, name
        for tree in toc[name].subtrees:
            for item in tree.items:
                yield from below(item, tree.caption or part)

    return list(below(toc.root.docname, None))


def printed(browser, address, paper):
    """(PDF, headings) of one built page; each heading is [level, text, name]."""
    page = browser.new_page(color_scheme="light", reduced_motion="reduce",
                            viewport={"width": 680, "height": 1000})
    page.set_default_timeout(PATIENCE)
    try:
        page.goto(address)
        page.evaluate(LATE)
        if page.locator(".math").count():
            page.locator(".katex").first.wait_for(state="attached")
        headings = page.evaluate(PREPARE)
        page.add_style_tag(content=paper)
        return page.pdf(prefer_css_page_size=True), headings
    finally:
        page.close()


def printed_front(browser, config, entries):
    """Title page and contents; an entry is (part, level, text, address, page number)."""
    lines, part_before = [], None
    for part, level, text, address, number in entries:
        if part != part_before:
            lines.append(f"<h2>{html.escape(part)}</h2>")
            part_before = part
        if level < 3:
            lines.append(f'<p class="level-{level}"><a href="{html.escape(address)}">'
                         f"{html.escape(text)}<i></i>{number + 1}</a></p>")
    page = browser.new_page()
    try:
        page.set_content(FRONT.format(
            title=html.escape(config["title"]), author=html.escape(config["author"]),
            copyright=html.escape(config["copyright"]), licence=config["html"]["extra_footer"],
            mark=(ROOT / config["logo"]).read_text("utf-8"), contents="\n".join(lines)))
        return page.pdf(prefer_css_page_size=True)
    finally:
        page.close()


def places(reader, address, first):
    """(page, height on it in points) by address; pages count from 0, behind the contents."""
    found = {address: (first, float(reader.pages[0].mediabox.top))}
    for name, place in reader.named_destinations.items():
        number = first + reader.get_destination_page_number(place)
        found[f"{address}#{unquote(name.removeprefix('/'))}"] = number, float(place.top)
    return found


def mend_links(page, address, at, base):
    """Let a page's links lead to what is in the file; drop those to a built file that is not.

    Parameters
    ----------
    page : pypdf.PageObject
    address : str
        Where the page came from.
    at : callable
        The destination in the file of an address, or None.
    base : str
        Address of the built book.
    """
    from pypdf.generic import ArrayObject, NameObject

    kept = ArrayObject()
    for reference in page.get("/Annots", []):
        link = reference.get_object()
        target = (link["/A"]["/URI"] if "/A" in link
                  else f"{address}#{link['/Dest'].removeprefix('/')}")
        if place := at(target):
            link.pop("/A", None)
            link[NameObject("/Dest")] = place
        elif target.startswith(base):
            continue
        kept.append(reference)
    page[NameObject("/Annots")] = kept


def join(front, chapters, entries, config):
    """A writer of the whole file. A chapter is (address, PDF), an entry as in printed_front()."""
    from pypdf import PdfWriter
    from pypdf.generic import ArrayObject, Fit, FloatObject, NameObject, NullObject
    from pypdf.generic import TextStringObject

    writer, known, homes = PdfWriter(), {}, []
    for address, reader in [(None, front), *chapters]:
        if address:
            known |= places(reader, address, len(homes) - len(front.pages))
        for page in reader.pages:
            writer.add_page(page)
            homes.append(address)

    def at(address):
        file, name = urldefrag(address)
        place = known.get(f"{file}#{unquote(name)}") or known.get(file)
        return place and ArrayObject([
            writer.pages[len(front.pages) + place[0]].indirect_reference, NameObject("/XYZ"),
            NullObject(), FloatObject(place[1]), NullObject()])

    for page, address in zip(writer.pages, homes, strict=True):
        mend_links(page, address, at, HTML.as_uri())
    above = {}  # the outline's last item of each level
    for part, level, text, address, number in entries:
        page = len(front.pages) + number
        if part and (part, 0) not in above:
            above = {(part, 0): writer.add_outline_item(title=part, page_number=page, bold=True)}
        parent = next((above[part, up] for up in (2, 1, 0) if up < level and (part, up) in above),
                      None)
        above = {key: item for key, item in above.items() if key[1] < level}
        above[part, level] = writer.add_outline_item(
            title=text, page_number=page, parent=parent, is_open=False,
            fit=Fit.xyz(top=known[address][1]))
    writer.set_page_label(0, len(front.pages) - 1, style="/r")
    writer.set_page_label(len(front.pages), len(homes) - 1, style="/D")
    writer.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    language = TextStringObject(config["sphinx"]["config"]["language"])
    writer.root_object[NameObject("/Lang")] = language
    writer.page_mode = "/UseOutlines"
    writer.compress_identical_objects()
    return writer


def make(browser, target=TARGET, names=None):
    """Write the book, or its pages of these names; return the number of pages of paper."""
    from pypdf import PdfReader

    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    wanted = [(part, name) for part, name in contents() if names is None or name in names]
    chapters, entries, before = [], [], 0
    for count, (part, name) in enumerate(wanted, 1):
        address = f"{HTML.as_uri()}/{name}.html"
        pdf, headings = printed(browser, address, PAPER.format(
            book=json.dumps(config["title"]), before=before))
        reader = PdfReader(BytesIO(pdf))
        where = places(reader, address, before)
        entries += [(part, level, text, f"{address}#{place}", where[f"{address}#{place}"][0])
                    for level, text, place in headings]
        chapters.append((address, reader))
        before += len(reader.pages)
        print(f"{count:3}/{len(wanted)} {name}: {len(reader.pages)} pages", flush=True)
    front = PdfReader(BytesIO(printed_front(browser, config, entries)))
    writer = join(front, chapters, entries, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as [new]:
        writer.write(new)
    return len(writer.pages)


def main():
    if not Path(CHROMIUM).exists():
        sys.exit(f"There is no Chromium at {CHROMIUM}, which prints the book: install it (Debian: "
                 "apt-get install chromium) or set CHROMIUM to its path")
    with alone(ROOT / "_build" / "lock", "builds this book"), said("The PDF", TARGET):
        if not (HTML / "index.html").exists():
            sys.exit("There is no built book: run make book first")
        with launched() as browser:
            pages = make(browser)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1e6:.1f} MB, {pages} pages")


if __name__ == "__main__":
    main()
