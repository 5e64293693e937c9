"""What the pages' markup and their style sheet lose, and what they must keep."""

import lighten
import markup
import pytest
import tinycss2

THEME = "".join(
    f'html[data-theme="{theme}"] .highlight {{ background: {ground}; color: {ink} }}\n'
    + "".join(f'html[data-theme="{theme}"] .highlight .{name} {{ color: {look} }} /* It */\n'
              for name, look in tones)
    for theme, ground, ink, tones in [
        ("light", "#fff", "#000", [("k", "#a"), ("ow", "#a"), ("n", "#000"), ("o", "#b"),
                                   ("mi", "#c")]),
        ("dark", "#000", "#fff", [("k", "#d"), ("ow", "#d"), ("n", "#fff"), ("o", "#e"),
                                  ("mi", "#d")])])


@pytest.mark.parametrize("code, left", [
    ('<span class="k">not</span> <span class="ow">in</span>', '<span class="k">not in</span>'),
    ('<span class="n">a</span><span class="o">.</span><span class="n">b</span>', "a.b"),
    ('<span class="o">=</span>\n<span class="o">-</span>', '<span class="o">=\n-</span>'),
    ('<span class="k">if</span> <span class="mi">1</span>',  # alike in one theme only
     '<span class="k">if</span> <span class="mi">1</span>'),
    ('<span class="o">=</span>a<span class="o">-</span>',
     '<span class="o">=</span>a<span class="o">-</span>'),
    ('<span class="go">1</span>', '<span class="go">1</span>')])
def test_tokens_that_look_alike_in_every_theme_are_one_element(code, left):
    looks = markup.looks_of(THEME)
    assert markup.with_fewer_tokens(f"<pre>{code}</pre>{code}", looks) == f"<pre>{left}</pre>{code}"


CODE = '<code class="docutils literal notranslate">{}</code>'


@pytest.mark.parametrize("words, left", [
    ('<span class="pre">a</span>', '<code class="literal pre notranslate">a</code>'),
    ('<span class="pre">a</span> <span class="pre">b.<wbr>c</span>',
     '<code class="literal pre notranslate">a <wbr>b.<wbr>c</code>'),
    ('<span class="pre">a</span> <span class="pre is-option">--b</span>', None)])
def test_words_of_code_are_one_element_unless_one_may_not_break(words, left):
    assert markup.with_plain_words(CODE.format(words)) == (left or CODE.format(words))


def test_ticks_in_a_row_are_one_group():
    tick = '<g style="stroke:red"><use x="1"/></g>'
    other = tick.replace("red", "blue")
    text, group = "<text>1</text>", tick.replace('<use x="1"/>', '<use x="1"/>' * 3)
    assert markup.with_fewer_groups(f"<svg>{tick * 3}{other}{text}{other}</svg>{tick * 2}") == (
        f"<svg>{group}{other}{text}{other}</svg>{tick * 2}")


@pytest.mark.parametrize("text, left", [
    ('<p class="named other">', '<p class="named">'),
    ('<td><span class="std">9.2</span></td>', "<td>9.2</td>"),
    ('<span class="std" id="x">9.2</span>', '<span id="x">9.2</span>'),
    ("<span>bare before</span>", "<span>bare before</span>"),
    ('<code class="notranslate">', '<code class="notranslate">'),  # tells translators
    ('<a class="other">', '<a class="other">'),  # a rule is for those without any
    ('<script>"<p class=\'other\'>"; \'<p class="other">\'</script>',
     '<script>"<p class=\'other\'>"; \'<p class="other">\'</script>')])
def test_a_class_that_nobody_names_is_dropped_and_an_element_that_said_only_such(text, left):
    names = markup.names_in([".named > b { color: red }"], ["x.dataset.y"])
    assert markup.with_named_classes(text, names) == left


def test_a_formulas_elements_stay_where_its_sheet_tells_them_by_their_places():
    def drawn(stack, sign):
        return ('<span class="katex"><span class="katex-html" aria-hidden="true">'
                f'<span class="vlist"><span style="top:0">{stack}</span></span>{sign}'
                "</span></span>")

    strut = '<span class="pstrut"></span>'
    names = {"katex", "katex-html", "vlist", "pstrut"}
    assert markup.with_named_classes(drawn(
        f'{strut}<span class="mord"><span class="mord">a</span></span>',
        '<span class="mord">b</span>'), names) == drawn(f"{strut}<span>a</span>", "b")


def test_a_style_that_formulas_often_have_is_a_class(monkeypatch):
    monkeypatch.setattr(markup, "OFTEN", 2)
    often, seldom = ' style="height:0.5em;"', ' style="top:-0.25em;"'
    start = '<p><span style="height:0.5em;">.</span><math><mo stretchy="false">(</mo></math>'
    page = (f'{start}<span class="katex-html"><span class="a"{often}></span><span{often}></span>'
            f"<span{seldom}></span></span></p>")
    pages, rules = markup.with_fewer_styles({"page": page})
    assert rules == ".katex .k0{height:.5em}"
    start = start.replace(' stretchy="false"', "")
    assert pages["page"] == (
        f'{start}<span class="katex-html"><span class="a k0"></span><span class="k0"></span>'
        '<span style="top:-.25em"></span></span></p>')


@pytest.mark.parametrize("selector, can", [
    ("p.note", True), ("div.note", False), (".note .far", False), ("p.note:hover > b", True),
    (".made", True), ("p.made", True), ("i.made", False), (".sought", False),
    (".never-heard", False), ("p:is(.never-heard, .note)", True), ("p:is(.never-heard)", False),
    ("p:not(.never-heard)", True), ('[data-served] p.note', True)])
def test_a_rule_stays_if_one_page_can_have_all_its_parts(selector, can):
    words = lighten.Words({"one": '<p class="note"><b>x</b></p>', "two": '<p class="far">'}, [
        'box.className = "made"; document.querySelector(".sought");\n// "never-heard"\n'])
    assert words.can_be(tinycss2.parse_component_value_list(selector)) == can


def test_a_variable_has_a_short_name_unless_others_say_it():
    sheet = ":root{--long-name:1px;--asked:2px}.btn--asked{margin:var(--long-name) var(--asked)}"
    assert lighten.with_short_names(sheet, "var(--asked) var(--a)") == (
        ":root{--b:1px;--asked:2px}.btn--asked{margin:var(--b) var(--asked)}")
