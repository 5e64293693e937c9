"""Figures as SVG: what a reader hovers over is what was drawn, and nothing in it can run."""

import itertools
import pickle
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from book_pages import figures, svg  # noqa: E402

RATES, LOSSES = [1e-3, 0.03, 4.0], [[2.5, 1.75, 12.5], [3.25, 0.5, 1500.0]]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(fig):
    """The markup as a tree. Reading it as XML also says that it is well formed."""
    return ElementTree.fromstring(svg.markup(fig).replace("&nbsp;", " "))


def panels(tree):
    return tree.findall(".//*[@class='drawn-panels']/div/svg")


def titles(tree, series=None):
    found = tree.iter() if series is None else tree.iterfind(f".//*[@data-series='{series}']//use")
    return [node.find("title").text for node in found if node.find("title") is not None]


def two_panels():
    fig, axes = plt.subplots(1, 2, figsize=(8, 3))
    for ax, losses in zip(axes, LOSSES, strict=True):
        ax.errorbar(RATES, losses, [0.125, 0.25, 0.5], fmt="o-", label="LoRA",
                    color=figures.COLORS["lora"])
        ax.plot(RATES, np.ones(3), "s--", color=figures.INK, label="base" if ax is axes[0] else "")
        ax.set(xscale="log", title="A panel", xlabel="rate")
    axes[0].legend()
    return fig


def test_a_point_says_the_values_that_were_drawn_in_every_panel():
    first, second = panels(drawn(two_panels()))
    assert titles(first, 1) == ["0.001: 2.5 ± 0.12", "0.03: 1.75 ± 0.25", "4: 12.5 ± 0.5"]
    assert titles(second, 1) == ["0.001: 3.25 ± 0.12", "0.03: 0.5 ± 0.25", "4: 1,500 ± 0.5"]


def test_what_a_legend_names_has_one_number_in_all_panels():
    tree = drawn(two_panels())
    entries = {button.get("data-series"): "".join(button.itertext()).strip()
               for button in tree.iter("button")}
    assert entries == {"0": "base", "1": "LoRA"}
    for panel in panels(tree):  # also the second, whose line has no label but the same look
        assert len(panel.findall(".//*[@data-series='0']//use")) == 3


def test_bars_and_names_of_ticks():
    fig, ax = plt.subplots()
    ax.bar([0, 1], [3.0, 4.5])
    ax.set_xticks([0, 1], ["a", "b"])
    assert titles(drawn(fig)) == ["a: 3", "b: 4.5"]
    fig, ax = plt.subplots()
    ax.barh([0, 1], [3.0, 4.5])
    ax.set_yticks([0, 1], ["a", "b"])
    assert titles(drawn(fig)) == ["a: 3", "b: 4.5"]


def test_zero_is_zero_and_small_is_not():
    fig, (left, right) = plt.subplots(1, 2)
    left.plot([0, 1, 2], [0, 5e-4, 1], "o")
    right.plot([1, 2], [1e-9, 1], "o")
    right.set_yscale("log")
    assert titles(drawn(fig)) == ["0: 0", "1: 0.0005", "2: 1", "1: 1e-09", "2: 1"]


def test_colours_are_the_pages():
    text = svg.markup(two_panels())
    assert f"color-mix(in oklab,{figures.COLORS['lora']} var(--keep),#fff)" in text
    assert "var(--ink)" in text
    drawing = text.partition(">")[2]  # behind the names of its colours
    assert not re.search(r"(fill|stroke):(#|rgb|black|white)", drawing)


def test_grey_words_are_dark_enough_to_read():
    fig, ax = plt.subplots()
    ax.plot([1, 2], color=figures.GREY)
    ax.text(0, 1, "pale", color=figures.GREY)
    shares = set(re.findall(r"var\(--ink\) (\d+)%", svg.markup(fig)))
    assert shares == {"52", "62"}  # of the line and of the words


def test_black_is_all_of_the_ink():
    """A share above 100 % is no colour to a browser: it would draw nothing."""
    fig, ax = plt.subplots()
    ax.plot([1, 2], "o", color="black", fillstyle="none")
    shares = re.findall(r"var\(--ink\) (\d+)%", svg.markup(fig))
    assert max(map(int, shares)) == 100


def test_type_and_panels_are_as_wide_as_a_phone():
    fig = two_panels()
    fig.axes[0].text(0.01, 2, "small", fontsize=6)
    for panel in panels(drawn(fig)):
        assert panel.get("viewBox").split()[2] == "324"
        sizes = [float(size) for text in panel.iter("text")
                 for size in re.findall(r"font-size:([\d.]+)px", text.get("style", ""))]
        assert min(sizes, default=svg.TYPE) >= svg.TYPE


def test_the_same_figure_gives_the_same_markup_and_others_share_no_name():
    once, again = svg.markup(two_panels()), svg.markup(two_panels())
    assert once == again
    fig, ax = plt.subplots()
    ax.plot([1, 2], [3, 4], "o-")
    names = [set(re.findall(r' id="([^"]+)"', text)) for text in (once, svg.markup(fig))]
    assert all(names)
    assert not names[0] & names[1]
    assert len(names[0]) == once.count(" id=")
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', once)) == names[0]


def test_words_are_words():
    fig, ax = plt.subplots()
    ax.plot([1, 2], [3, 4], "o-", label="<script>alert(1)</script>")
    ax.set_title('<img src=x onerror="alert(1)">')
    ax.legend()
    text = svg.markup(fig)
    assert "<script" not in text
    assert "<img" not in text


def test_a_power_of_ten_is_text():
    fig, ax = plt.subplots()
    ax.loglog([1e-3, 1e4], [1, 2])
    assert "10⁻³" in svg.markup(fig)


def test_what_pixels_serve_better_stays_pixels():
    fig, ax = plt.subplots()
    ax.imshow(np.eye(3))
    assert svg.markup(fig) is None
    fig, ax = plt.subplots()
    ax.plot(np.random.default_rng(1).standard_normal(3000), ".")
    assert svg.markup(fig) is None


def test_what_no_page_could_show_is_refused():
    fig, ax = plt.subplots()
    ax.plot([1, 2], label="$x^2$")
    ax.legend()
    with pytest.raises(ValueError, match="formula"):
        svg.markup(fig)
    fig, ax = plt.subplots()
    ax.errorbar([1], [2], [3], fmt="none", label="a")
    ax.legend()
    with pytest.raises(TypeError, match="LineCollection"):
        svg.markup(fig)


def test_a_figure_with_an_axis_of_names_can_be_copied_and_counts_on():
    count = itertools.count(3, 2)
    next(count)
    assert next(pickle.loads(pickle.dumps(count))) == next(count) == 5
    fig, ax = plt.subplots()
    ax.barh(["LoRA", "adapters"], [1, 2])
    assert "LoRA" in figures._shown(fig)[1]["drawn"]
