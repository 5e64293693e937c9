"""Nothing on any page is cut: text, code, formulas, pictures and controls fit into their box.

That holds on a phone, a tablet, a laptop and a large screen. What is too wide scrolls in a box that
says so.
"""

import re

import book_extension
import front_page
import pictures
import pytest
import yaml
from conftest import ROOT, pages
from test_pages import soup

import peft
from book_pages import speaking
from experiments import smollm2

WIDTHS = [360, 768, 1280, 1920]
PATIENCE = 10  # seconds after which a fault stays one, also on a busy machine
#: Everything that is folded is opened, since it will be read, too.
OPEN = """async () => {
  for (const folded of document.querySelectorAll("article details")) folded.open = true;
  const folded = "article button.toggle-button-hidden";
  for (const button of document.querySelectorAll(folded)) button.click();
  for (const cover of document.querySelectorAll("article .question-cover")) cover.click();
}"""
SETTLED = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
  () => setTimeout(done, 50))))"""
#: Names what does not fit; lengths are in pixels, and one and a half of them may be rounding.
FAULTS = r"""() => {
  const article = document.querySelector("article");
  const page = document.documentElement.clientWidth;
  const faults = new Set();
  const say = (fault, element, what) => {
    const classes = [...element.classList].map((name) => `.${name}`).join("");
    const home = element.closest("[id]")?.id ?? "";
    faults.add(`${fault}: ${element.localName}${classes} in #${home} ${what.trim().slice(0, 60)}`);
  };
  const scrolls = (overflow) => overflow === "auto" || overflow === "scroll";
  const seen = (element) => element.checkVisibility({ visibilityProperty: true })
    && !element.closest(".katex-mathml, .pw-unseen, .visually-hidden, textarea, script, style");
  const wide = (box) => box.scrollWidth - parseFloat(getComputedStyle(box).paddingInlineEnd)
    > box.clientWidth + 1;
  const tall = (box) => box.scrollHeight > box.clientHeight + 1;
  const says = (box) => box.tabIndex === 0
    && getComputedStyle(box, "::after").content.includes("scrolls");

  // The boxes around an element that show only what lies within them.
  const around = new Map([[article.parentElement, []]]);
  function boxes(element) {
    if (!around.has(element)) {
      const { overflowX, display } = getComputedStyle(element);
      const cuts = overflowX !== "visible" && display !== "inline" && element.clientWidth;
      const further = boxes(element.parentElement);
      around.set(element, cuts ? [[element, scrolls(overflowX)], ...further] : further);
    }
    return around.get(element);
  }

  // Whether what lies between left and right can be seen in every box around it, or scrolled to.
  function inside(element, left, right, what) {
    for (const [box, scrolling] of boxes(element)) {
      const from = box.getBoundingClientRect().left + box.clientLeft;
      const to = from + box.clientWidth;
      if (left > from - 1.5 && right < to + 1.5) continue;
      if (!scrolling) return say("cut", box, what);
      if (!says(box)) return say("scrolls without a hint", box, what);
      left = Math.max(left, from);
      right = Math.min(right, to);
      if (right <= left) return;
    }
    if (left < -1.5 || right > page + 1.5) say("off the page", element, what);
  }

  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !seen(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const lines = [...range.getClientRects()].filter((line) => line.width && line.height);
    if (!lines.length) continue;
    const left = Math.min(...lines.map((line) => line.left));
    const right = Math.max(...lines.map((line) => line.right));
    inside(element, left, right, text.data);
    let block = element;
    while (/^(inline|contents)/.test(getComputedStyle(block).display)) block = block.parentElement;
    if (element.closest(".katex, svg") || scrolls(getComputedStyle(block).overflowX)) continue;
    const its = block.getBoundingClientRect();
    if (left < its.left - 2 || right > its.right + 2) say("over its box", block, text.data);
  }
  const drawn = "img, svg, canvas, table, input, select, button";
  for (const element of article.querySelectorAll(`:is(${drawn}):not(.katex *)`)) {
    const { left, right } = element.getBoundingClientRect();
    if (right > left && seen(element)) inside(element, left, right, "");
  }
  for (const element of article.querySelectorAll(":not(.katex *, svg *, textarea, option)")) {
    if (!seen(element)) continue;
    const style = getComputedStyle(element);
    if (element.localName === "select") {
      const copy = element.cloneNode(true);
      copy.style.cssText = "height: auto; position: absolute; width: max-content; max-width: none";
      copy.replaceChildren(...[...element.selectedOptions].map((option) => option.cloneNode(true)));
      element.after(copy);
      const fits = copy.offsetWidth <= element.offsetWidth + 2 || style.whiteSpace === "normal";
      copy.remove();
      if (!fits || tall(element)) say("cut", element, element.selectedOptions[0]?.text ?? "");
      continue;
    }
    const text = element.textContent;
    if (style.textOverflow === "ellipsis" && wide(element)) say("cut", element, text);
    if (style.display === "inline") continue;
    const sideways = scrolls(style.overflowX) && wide(element);
    const down = scrolls(style.overflowY) && tall(element);
    if (sideways && !says(element)) say("scrolls without a hint", element, text);
    if (down) say("scrolls down inside the page", element, text);
    if (sideways && element.parentElement.closest("[data-scrolls]")) {
      say("scrolls in a box that scrolls", element, text);
    }
  }
  return [...faults];
}"""


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": WIDTHS[-1], "height": 900}, offline=True)
    yield context.new_page()
    context.close()


def opened(page, address):
    page.goto(address)
    page.evaluate("window.bookWidgets?.showAll()")
    if page.locator(".math").count():
        page.wait_for_selector(".katex", state="attached", timeout=30_000)
    page.evaluate(OPEN)
    page.evaluate("() => document.fonts.ready.then(() => true)")
    return page


@pytest.mark.parametrize("name", pages())
def test_nothing_is_cut(page, html, name):
    opened(page, f"{html.as_uri()}/{name}")
    faults = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        for _ in range(PATIENCE):  # a page of much code may still be busy with its marks
            if not (found := page.evaluate(FAULTS)):
                break
            page.wait_for_timeout(1000)
        else:
            faults[width] = found
    assert faults == {}


def test_formulas_in_one_line_are_lines_of_their_own_on_a_phone(page, html):
    page.goto(f"{html.as_uri()}/book/exercises/ex8-vera.html")
    for width, lines in ((360, 2), (1280, 1)):
        page.set_viewport_size({"width": width, "height": 900})
        tops = page.locator("div.math").nth(1).evaluate("""(box) =>
            [...box.querySelectorAll(".katex-html > .katex-base:first-child, br + .katex-base")]
                .map((one) => Math.round(one.getBoundingClientRect().top / 20))""")
        assert len(tops) == 2, "as many formulas as the source has"
        assert len(set(tops)) == lines


@pytest.mark.parametrize(("broken", "fault"), [
    ("<p style='overflow: hidden; white-space: nowrap'>{}</p>", "cut"),
    ("<p style='overflow: auto; white-space: nowrap'>{}</p>", "scrolls without a hint"),
    ("<p style='white-space: nowrap'>{}</p>", "over its box"),
    ("<p style='white-space: nowrap'>{}</p>", "off the page"),
    ("<div style='height: 3rem; overflow: auto'>{}</div>", "scrolls down inside the page"),
    ("<p style='overflow: hidden; text-overflow: ellipsis; white-space: nowrap'>{}</p>", "cut"),
    ("<select style='width: 9rem; white-space: nowrap'><option>{}</option></select>", "cut"),
    ("<div class='text_html'><div style='overflow: auto'><p style='width: 99rem'>{}</p></div>",
     "scrolls without a hint"),
])
def test_what_is_cut_is_found(page, html, broken, fault):
    """The test above can fail: on a page with a fault of each kind."""
    opened(page, f"{html.as_uri()}/book/index.html")
    page.set_viewport_size({"width": 360, "height": 900})
    broken = broken.format("so many words that they do not fit into one line " * 4)
    article = page.locator("article")
    article.evaluate("(article, end) => article.insertAdjacentHTML('beforeend', end)", broken)
    page.evaluate(SETTLED)
    assert fault in {found.partition(":")[0] for found in page.evaluate(FAULTS)}


def test_what_scrolls_can_be_scrolled_with_the_keyboard(page, html):
    """A wide box says on which side more is, and takes the focus."""
    opened(page, f"{html.as_uri()}/book/06-implementation.html")
    page.set_viewport_size({"width": 360, "height": 900})
    page.evaluate(SETTLED)
    box = page.locator("article pre[data-scrolls]").first
    assert box.get_attribute("data-scrolls") == "right"
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("article pre:is([data-scrolls=both], [data-scrolls=left])",
                           state="attached")
    box.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    page.wait_for_selector("article pre[data-scrolls=left]", state="attached")


def test_on_a_phone_the_contents_open_where_the_reader_is(page, html):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{html.as_uri()}/book/exercises/ex6-qlora.html")
    page.locator(".primary-toggle").click()
    page.wait_for_selector(".bd-sidebar-primary nav a.current:focus")
    entry = page.locator(".bd-sidebar-primary nav a.current").bounding_box()
    assert 0 < entry["y"] < 740 - entry["height"]


def test_on_a_phone_a_finger_meets_the_buttons_of_cells(page, html):
    page.goto(f"{html.as_uri()}/book/exercises/ex6-qlora.html")
    button = page.get_by_role("button", name="Edit and run").first
    wide = button.bounding_box()["height"]
    page.set_viewport_size({"width": 360, "height": 740})
    assert wide < 30 and button.bounding_box()["height"] >= 44  # pixels, as WCAG 2.5.5 asks


@pytest.mark.parametrize("name", ["05-choosing-a-method", "how-fast-it-is", "the-family"])
def test_the_caption_of_a_table_that_scrolls_can_be_read(page, html, name):
    """It lies in the part that is seen, before the edge that fades, wherever the table stands."""
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, f"{html.as_uri()}/book/{name}.html")
    page.wait_for_selector("[data-scrolls=right] caption")
    for place in (0, 9999):
        cut = page.evaluate("""(place) => [...document.querySelectorAll("[data-scrolls] caption")]
          .map((caption) => {
            const box = caption.closest("[data-scrolls]");
            box.scrollLeft = place;
            const its = caption.getBoundingClientRect(), seen = box.getBoundingClientRect();
            return [its.left - seen.left, seen.right - 35 - its.right, caption.textContent];
          }).filter(([left, right]) => left < -1 || right < 0)""", place)
        assert cut == []


def test_no_frame_stays_behind_and_a_widget_says_what_it_stands_at_on_paper(page, html):
    """Chromium leaves a flexible box's frame on the sheet when its lines go to the next one."""
    opened(page, f"{html.as_uri()}/book/05-choosing-a-method.html")
    page.emulate_media(media="print")
    flexible = page.evaluate("""() => [...document.querySelectorAll("article pre")]
        .filter((code) => code.checkVisibility() && !code.closest(".peft-widget"))
        .map((code) => {
          while (code && getComputedStyle(code).display === "block") code = code.parentElement;
          return code?.className;
        })""")
    assert flexible and set(flexible) <= {"bd-main", "bd-container__inner"}, set(flexible)
    said = " ".join(page.locator(".pw-controls").first.inner_text().split())
    assert "LoRA rank 8" in said
    assert page.locator(".pw-controls select").first.is_visible()
    for gone in (".peft-widget :is(input, button)", ".peft-widget .pw-ends",
                 ".peft-widget details:not([open]) > summary"):
        assert not page.locator(gone).locator("visible=true").count(), gone


@pytest.mark.parametrize("name", ["02-lora", "05-choosing-a-method", "numbers-in-the-wild"])
def test_nothing_is_cut_on_paper(page, html, name):
    """In print, also from the dark theme: no box scrolls, no control stands, text is dark."""
    page.set_viewport_size({"width": 718, "height": 1015})  # A4 within its margins
    page.emulate_media(color_scheme="dark")
    opened(page, f"{html.as_uri()}/book/{name}.html")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate(SETTLED)
    assert page.evaluate(FAULTS) == []
    for gone in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".copybtn",
                 ".peft-widget input", ".in-page-tools", ".headerlink", ".question button"):
        assert not page.locator(gone).locator("visible=true").count(), gone
    colours = page.evaluate("""() => [...document.querySelectorAll("article p, article pre span")]
        .filter((text) => text.checkVisibility() && !text.closest(".peft-widget"))
        .map((text) => getComputedStyle(text).color)""")
    assert all(max(map(int, re.findall(r"\d+", colour)[:3])) < 140 for colour in set(colours))
    grounds = page.evaluate("""() => [...document.querySelectorAll(".peft-widget")]
        .map((widget) => getComputedStyle(widget).backgroundColor)""")
    assert set(grounds) == {"rgb(255, 255, 255)"}


def test_the_name_of_a_widget_is_not_printed_beside_it(page, html):
    opened(page, f"{html.as_uri()}/book/02-lora.html")
    lines = page.locator(".cell_input.is-one-line")
    assert lines.first.is_visible()
    page.emulate_media(media="print")
    assert not lines.locator("visible=true").count()
    assert page.locator(".peft-widget").first.is_visible()


def test_prose_has_about_seventy_characters_in_a_line(page, html):
    opened(page, f"{html.as_uri()}/book/02-lora.html")
    lengths = page.evaluate("""() => [...document.querySelectorAll("article section > p")]
        .filter((text) => !text.querySelector(".math, code") && text.textContent.length > 300)
        .map((text) => {
          const lines = text.offsetHeight / parseFloat(getComputedStyle(text).lineHeight);
          return text.textContent.length / Math.round(lines);
        })""")
    assert lengths
    assert all(50 < length < 85 for length in lengths)


def test_the_front_page_shows_recorded_runs(page, html):
    """From disk and with the keyboard: each choice shows its names, its share and its loss."""
    opened(page, f"{html.as_uri()}/book/index.html")
    recorded = front_page.settings()
    page.focus("#hero-0")
    losses = []
    for number, (_, trained, loss, names) in enumerate(recorded):
        if number:
            page.keyboard.press("ArrowRight")
        shown = page.locator(".hero-shown").locator("visible=true")
        assert shown.count() == 1
        text = shown.inner_text()
        assert f"{trained:,}" in text
        assert f"{loss:.2f}" in text
        assert all(name.capitalize() in text for name in names[:front_page.NAMES])
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)


def test_the_cards_say_what_the_chapters_hold(html):
    """Each row of the source's table is a card: its words, its picture, minutes and questions."""
    source = (ROOT / "book" / "index.md").read_text("utf-8")
    rows = front_page.ROW.findall(source)
    cards = soup("book/index.html").select("#the-map .chapter")
    assert len(rows) == len(cards) == len(front_page.MAP.search(source)[1].splitlines())
    for (title, chapter, question), card in zip(rows, cards, strict=True):
        assert card.a.get_text() == title
        assert card.a["href"] == f"{chapter}.html"
        assert card.p.get_text() == question
        assert card.svg.find(["path", "rect"])
        page = soup(f"book/{chapter}.html")
        asked = {box["id"] for box in page.select("article .question")}
        names = card.select_one("[data-questions]")
        assert set(names["data-questions"].split() if names else []) == asked, chapter
        minutes = re.search(r"Reading time: (\d+) minutes", page.article.get_text())
        if minutes:
            assert f"{minutes[1]} minutes" in card.get_text()


def test_a_row_that_is_no_card_stops_the_build():
    text = "| section | the question |\n|---|---|\n| [9.1 a](01-a.ipynb) | b |\n| c | d |\n"
    with pytest.raises(ValueError, match="no link to a chapter"):
        front_page.with_cards(text)


def test_a_card_shows_how_far_this_reader_is_and_nothing_moves(page, html):
    address = f"{html.as_uri()}/book/index.html"
    opened(page, address)
    first = page.locator(".chapter").first
    exercises = page.locator(".chapter").last
    before = page.locator(".chapter").evaluate_all("all => all.map((one) => one.offsetTop)")
    names = first.locator("[data-questions]").get_attribute("data-questions").split()
    assert first.locator(".chapter-more").inner_text().endswith(f"{len(names)} questions")
    kept = {name: {"said": "1", "sure": True} for name in (*names[:3], "q-elsewhere")}
    page.evaluate("""([answers, days]) => {
        localStorage.setItem("peft-book-questions", JSON.stringify({ answers }));
        localStorage.setItem("peft-book-progress", JSON.stringify(days)); }""",
                  [kept | {names[4]: "damaged"}, {"2": "2026-11-29", "5": "2026-11-28", "6": True}])
    opened(page, address)
    assert f"3 of {len(names)} answered" in first.inner_text()
    assert first.locator(".chapter-bar").evaluate(
        "(bar) => parseFloat(getComputedStyle(bar).getPropertyValue('--done'))"
    ) == pytest.approx(100 * 3 / len(names), abs=0.01)
    assert "2 of 8 passed" in exercises.inner_text()
    done = exercises.locator(".is-done").evaluate_all("all => all.map((b) => b.dataset.exercise)")
    assert done == ["2", "5"]
    assert page.locator(".chapter").evaluate_all("all => all.map((one) => one.offsetTop)") == before
    page.evaluate("localStorage.setItem('peft-book-questions', '[damaged')")
    opened(page, address)
    assert first.locator(".chapter-more").inner_text().endswith(f"{len(names)} questions")


@pytest.mark.parametrize("width, columns", [(360, 1), (1280, 3)])
def test_cards_stand_in_columns(page, html, width, columns):
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, f"{html.as_uri()}/book/index.html")
    assert page.locator(".chapter").evaluate_all(
        "all => new Set(all.map((one) => one.offsetLeft)).size") == columns


def test_the_pictures_are_of_what_was_recorded():
    assert pictures.schedules().count("M") == 60  # a box for each schedule
    row = speaking.find(smollm2.load_runs("after"), method="lora-all", **speaking.FIRST)
    right = re.search(r'class="lora filled" d="([^"]*)"', pictures.schedules())[1]
    assert right.count("M") == row["exact"]["test"]
    ticks = re.search(r'class="lora filled" d="([^"]*)"', pictures.levels())[1]
    assert ticks.count("M") == 16
    full, lora = re.findall(r'class="(?:full|lora)" d="([^"]*)"', pictures.two_curves())
    assert full.count("L") == lora.count("L") == 8  # nine looks
    lengths = [float(box) for box in re.findall(r"h([\d.]+)v", pictures.counts())]
    counts = [one["params"] for one in peft.compare_peft_methods().values()]
    assert sorted(range(5), key=lengths.__getitem__) == sorted(range(5), key=counts.__getitem__)
    for chapter in pictures.PICTURES:
        assert "nan" not in pictures.picture(chapter)
    places = [float(place) for chapter in pictures.PICTURES
              for pair in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", pictures.picture(chapter))
              for place in pair]
    assert min(places) >= 0
    assert max(places) <= pictures.WIDTH


@pytest.mark.parametrize("name", pages())
def test_a_page_has_an_icon_a_description_and_the_name_of_the_book(html, name):
    head = soup(name).head
    book = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["title"]
    assert head.select_one("link[rel=icon]")["href"].endswith("_static/mark.svg")
    assert len(head.select_one("meta[name=description]")["content"]) > 30
    assert head.select_one("meta[property='og:site_name']")["content"] == book
    assert soup(name).select_one(".logo__title").get_text() == book


def test_solutions_are_folded_but_on_their_own_pages(html):
    assert not soup("book/02-lora.html").select_one(".nav-solutions").has_attr("open")
    own = soup("book/solutions/sol1-lora-feed-forward.html").select_one(".nav-solutions")
    assert own.has_attr("open")
    assert own.select_one("a.current")


def test_columns_of_numbers_stand_right_and_long_tables_become_cards():
    def table(*rows):
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        head = "<thead><tr><th>a</th><th>b &amp; c</th><th>d</th></tr></thead>"
        return f'<table class="table">{head}<tbody>{body}</tbody></table>'

    def mended(text):
        return book_extension.TABLE.sub(book_extension.mend_table, text)

    plain = mended(table(["1", "1,024", "x"], ["2", "0.19 %", "y"], ["3", "–", "z"]))
    assert plain.count('class="is-number"') == 4  # the second column and its head; no first column
    assert "is-cards" not in plain
    long = mended(table(["1", "x", "many words, too many for a column on a phone"]))
    assert "is-cards" in long
    assert 'data-label="b &amp; c"' in long
    assert mended(long) == long
    assert mended(plain) == plain
    speeds = mended(table(["a", "402.2 tokens/s", "1,024 × 32"], ["b", "9 tokens/s", "8 × 4"]))
    assert speeds.count('class="is-number"') == 6
    empty = mended(table(["1", "", "many words, too many for a column on a phone"]))
    assert "<td></td>" in empty  # no name of nothing


def test_a_table_of_two_columns_becomes_cards_where_a_phone_would_break_its_words():
    def cards(*cells):
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        text = f'<table class="table"><tr><th>a</th><th>b</th></tr><tr>{row}</tr></table>'
        return "is-cards" in book_extension.TABLE.sub(book_extension.mend_table, text)

    assert cards("code/stage-09/exercises/harness/progress.py", "how far somebody is")
    assert not cards("a start that learns nothing", "All of its gradients are zero for ever.")


def test_a_long_word_of_code_breaks_where_a_reader_would_break_it():
    def mended(word):
        text = f'<span class="pre">{word}</span>'
        made = book_extension.WORD_OF_CODE.sub(book_extension.mend_code, text)
        assert book_extension.WORD_OF_CODE.sub(book_extension.mend_code, made) == made
        return made

    assert "<wbr>" not in mended("checks.clear_progress()")
    assert mended("code/stage-09/exercises/ex4_prefix_mlp/solution.py").count("<wbr>") == 7
    assert 'class="pre is-option"' in mended("--num_processes")
    link = '<a href="a_very_long/address_of.a/page">init_lora_weights=&quot;olora&quot;</a>'
    cell = f'<table class="table"><tr><th>a</th></tr><tr><td>{link}</td></tr></table>'
    made = book_extension.TABLE.sub(book_extension.mend_table, cell)
    assert "init_<wbr>lora_<wbr>weights=&quot;olora&quot;" in made
    assert 'href="a_very_long/address_of.a/page"' in made


def test_no_line_ends_between_a_number_and_its_unit(html):
    assert "0.06\xa0%" in soup("book/05-choosing-a-method.html").article.get_text()
