"""A Matplotlib figure as markup for a page: SVG for each pair of axes, and one legend for all.

Each pair of axes is drawn anew, alone and as wide as a phone, so that a page can put them side by
side or below each other with type of one size. Colours are the page's: a grey is a share of its
ink, any other is brighter on a dark page. A legend's entry picks its curves out in all panels, and
a point says its values. The page's style sheet and script are `book/_static/figures.*`.
"""

import hashlib
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter, LogFormatterMathtext
from matplotlib.transforms import IdentityTransform

WIDTH = 324 / 72  # inches: a column of 328 pixels, on a phone, has one for each of SVG's points
HEIGHTS = 2.3, 4.2  # inches, of a panel
TYPE = 11.0  # points: so many pixels has the smallest type on a phone
TYPE_OF_DIAGRAM = 8.5  # points: a diagram has a pixel for three quarters of one
LONGEST = 24  # characters in a line beside a tick: a phone has room for as many again
LARGEST = 60_000  # characters: what needs more is lighter as pixels
INK = 0x22  # the grey that is all ink
PALEST = "#757575"  # of words: 4.5 times as dark as paper, as WCAG asks
LINK = "{http://www.w3.org/1999/xlink}href"
Entry = tuple[int, Any, Any]  # the number of a legend's entry, an artist, its container or None


def _legends(fig: Figure) -> dict[str, Any]:
    """label -> handle, of all of a figure's legends."""
    found = [legend for legend in (*(ax.get_legend() for ax in fig.axes), *fig.legends) if legend]
    return {text.get_text(): handle for legend in found
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)}


def _look(line: Line2D) -> tuple[str, str, str]:
    return to_hex(line.get_color()), line.get_linestyle(), str(line.get_marker())


def _series(fig: Figure, labels: list[str]) -> list[Entry]:
    """What the legend's entries name: all that has their label, and lines of the same look."""
    found: list[Entry] = []
    for ax in fig.axes:
        for container in ax.containers:
            if container.get_label() in labels:
                found += [(labels.index(container.get_label()), part, container)
                          for part in container.get_children() if part is not None]
        found += [(labels.index(artist.get_label()), artist, None) for artist in ax.get_children()
                  if artist.get_label() in labels]
    looks = {_look(artist): number for number, artist, _ in reversed(found)
             if isinstance(artist, Line2D)}
    named = {id(artist) for _, artist, _ in found}
    return found + [(looks[_look(line)], line, None) for ax in fig.axes for line in ax.lines
                    if id(line) not in named and _look(line) in looks]


def _said(axis: Axis, value: float) -> str:
    """A value as a reader would read it off: four digits, or the name that stands at its tick."""
    low, high = axis.get_view_interval()
    if isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter)):
        for number, place in enumerate(axis.get_majorticklocs()):
            if abs(place - value) < 1e-6 * (high - low) and (
                    name := axis.get_major_formatter()(place, number)):
                return str(name).replace("\n", " ")
    if axis.get_scale() == "linear" and abs(value) < 1e-6 * (high - low):
        return "0"  # but for what going to the drawing and back has added
    if not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _words(ax: Axes, container: Any, height: float) -> Callable[[float, float], str]:
    """Says the values of a point, given its place in the SVG; with an error bar also its length."""
    errors = {}
    if isinstance(container, ErrorbarContainer) and container.has_yerr:
        for (x, low), (_, high) in container[2][-1].get_segments():
            errors[f"{x:.6g}"] = (high - low) / 2

    def words(across: float, down: float) -> str:
        x, y = ax.transData.inverted().transform((across, height - down))
        error = errors.get(f"{x:.6g}")
        return (f"{_said(ax.xaxis, x)}: {_said(ax.yaxis, y)}"
                + (f" ± {error:.2g}" if error else ""))

    return words


def _bar(bar: Rectangle, container: BarContainer) -> str:
    x, y = bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2
    if container.orientation == "vertical":
        return f"{_said(bar.axes.xaxis, x)}: {_said(bar.axes.yaxis, bar.get_height())}"
    return f"{_said(bar.axes.yaxis, y)}: {_said(bar.axes.xaxis, bar.get_width())}"


class _Colours(dict):
    """colour -> the CSS variable that stands for it in a figure's markup, made when first asked."""

    def __missing__(self, colour: str) -> str:
        red, green, blue = (round(255 * part) for part in to_rgb(colour))
        if red == green == blue in (INK, 0xFF):
            return "var(--ink)" if red == INK else "var(--paper)"
        self[colour] = f"var(--c{len(self)})"
        return self[colour]

    def style(self) -> str:
        """Of each a share of the page's ink if it is grey; else brighter on a dark page."""
        def value(colour: str) -> str:
            red, green, blue = (round(255 * part) for part in to_rgb(colour))
            if not red == green == blue:
                return f"color-mix(in oklab,{colour} var(--keep),#fff)"
            share = min(100, 100 * (255 - red) / (255 - INK))  # of more, browsers draw nothing
            return f"color-mix(in srgb,var(--ink) {share:.0f}%,var(--paper))"

        return ";".join(f"--c{number}:{value(colour)}" for number, colour in enumerate(self))


def _short(text: str) -> str:
    """Numbers to a tenth of a point, and no more spaces than needed."""
    text = re.sub(r"-?\d+\.\d+", lambda number: f"{round(float(number[0]), 1) + 0:g}", text)
    return re.sub(r"\s*([MLCQZz])\s*", r"\1", " ".join(text.split()))


def _style(text: str, colours: _Colours) -> str:
    """A style without what the page's own style sheet says."""
    text = re.sub(r"#[0-9a-f]{6}", lambda found: colours[found[0]], text.replace(": ", ":"))
    return _short(";".join(part for part in text.split("; ") if part and not re.match(
        rf"font-family|stroke-dashoffset:0|fill:var\(--ink\)|font-size:{TYPE:g}px", part)))


def _tidy(root: ElementTree.Element, name: str, names: dict[str, str],
          colours: _Colours) -> ElementTree.Element:
    """Change, in place, a drawing to what a page needs; it shrinks to a quarter.

    What is referred to has a name in `names`, old -> new, or gets one that begins with `name`.
    """
    for node in root.iter():
        node.tag, node.tail = node.tag.rpartition("}")[2], None
        node.text = node.text if node.text and node.text.strip() else None
        if LINK in node.attrib:
            node.set("href", node.attrib.pop(LINK))
        if re.match(r"rotate\(-?0 ", node.get("transform", "")):
            del node.attrib["transform"]
        if style := _style(node.attrib.pop("style", ""), colours):
            node.set("style", style)
        for part in {"d", "x", "y", "transform", "width", "height"} & set(node.attrib):
            node.set(part, _short(node.get(part)))
    for node in root.iter("defs"):
        for marker in node.findall("path"):  # what uses it has the same style, and more
            marker.attrib.pop("style", None)
    for node in root.iter("g"):
        points = node.findall("use")
        if points and len({point.get("style") for point in points}) == 1:
            node.set("style", points[0].get("style", ""))
            for point in points:
                point.attrib.pop("style", None)
    for defs in root.iter("defs"):
        defs[:] = [made for made in defs if made.get("id") not in names]  # it stands further up
    used = re.findall(r'(?:url\(#|href="#)(\w+)', ElementTree.tostring(root, encoding="unicode"))
    for old in used:
        names.setdefault(old, f"{name}{len(names)}")
    for node in root.iter():
        if "id" in node.attrib:
            node.set("id", names.get(node.get("id"), ""))
        node.attrib = {key: re.sub("#(\\w+)", lambda found: f"#{names.get(found[1], '')}", value)
                       for key, value in node.attrib.items() if value}
    return _flat(root)


def _flat(node: ElementTree.Element) -> ElementTree.Element:
    """In place, groups that say nothing give way to what they hold, and equal neighbours join."""
    children: list[ElementTree.Element] = []
    for child in map(_flat, list(node)):
        before = children[-1] if children else ElementTree.Element("none")
        same = child.tag == before.tag and {**child.attrib, "d": ""} == {**before.attrib, "d": ""}
        if child.tag == "g" and not child.attrib and child.find("title") is None:
            children += child
        elif same and child.tag == "path" and not len(child):
            before.set("d", before.get("d", "") + child.get("d", ""))
        elif same and child.tag == "g" and child.find("title") is before.find("title") is None:
            before.extend(child)
        elif child.tag not in ("metadata", "style") and child.get("style") != "fill:none" and (
                child.tag not in ("defs", "g") or len(child)):
            children.append(child)
    node[:] = children
    return node


def _named(root: ElementTree.Element, series: list[Entry],
           labels: list[str]) -> ElementTree.Element:
    """Mark what a legend names, in place, and let it and its points say what they are."""
    height = float(root.get("viewBox", "").split()[3])
    for node in root.iter():
        found = re.fullmatch(r"series-(\d+)", node.get("id", ""))
        if not found:
            continue
        number, artist, container = series[int(found[1])]
        points = [point for point in node.iter() if point.tag.endswith("}use")]
        if isinstance(container, BarContainer):
            _title(node, "\n".join([*labels[number:number + 1], _bar(artist, container)]))
        elif container is None or artist is container[0]:
            words = _words(artist.axes, container, height)
            for point in points:
                _title(point, words(float(point.get("x")), float(point.get("y"))))
            if labels[number:]:
                _title(node, labels[number])
        if labels[number:]:
            node.set("data-series", str(number))
    return root


def _title(node: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element("title")
    title.text = text
    node.insert(0, title)


def _saved(fig: Figure) -> ElementTree.Element:
    made = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "book"}):
        fig.savefig(made, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(made.getvalue())
    for name in ("width", "height", "version"):
        root.attrib.pop(name)
    return root


def _swatch(handle: Any) -> ElementTree.Element:
    """What stands before a legend's words, drawn as what it names is."""
    fig = Figure(figsize=(30 / 72, 12 / 72), layout="none")
    if isinstance(handle, Line2D):
        drawn: Any = Line2D([], [])
        drawn.update_from(handle)
        drawn.set_data([2, 15, 28], [6, 6, 6])
        drawn.set_markevery([1])
    elif isinstance(handle, Patch):
        drawn = Rectangle((5, 1), 20, 10)
        drawn.update_from(handle)
    elif isinstance(handle, PathCollection):
        drawn = Line2D([15], [6], ls="", marker="o", color=handle.get_facecolor()[0])
    else:
        raise TypeError(f"a legend's handle is a {type(handle).__name__}, which svg.py cannot draw")
    drawn.set(transform=IdentityTransform(), clip_on=False, clip_path=None)
    fig.add_artist(drawn)
    return _saved(fig)


RAISED = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _plain_ticks(axis: Axis) -> None:
    """Let the ticks of a logarithmic axis be text, 10⁻³, and no formula of many pieces."""
    for formatter in (axis.get_major_formatter(), axis.get_minor_formatter()):
        kind = type(formatter)
        if isinstance(formatter, LogFormatterMathtext):
            formatter.__class__ = type("Plain", (kind,), {
                "__call__": lambda self, *given, kind=kind: re.sub(
                    r"\^\{([^}]*)\}", lambda power: power[1].translate(RAISED),
                    kind.__call__(self, *given).replace(r"\times", "×")
                    .removeprefix(r"$\mathdefault{").removesuffix("}$"))})


def _too_long(texts: Iterable[Text]) -> bool:
    return any(len(line) > LONGEST for text in texts for line in text.get_text().split("\n"))


def _narrow_ticks(ax: Axes) -> None:
    """Break names beside the axis into lines that leave a phone room for what they name."""
    if _too_long(labels := ax.get_yticklabels()):
        ax.set_yticks(ax.get_yticks(),
                      [textwrap.fill(label.get_text(), LONGEST) for label in labels])


def _lines_apart(ax: Axes) -> None:
    """Let each line of a name beside the axis be a text of its own.

    Matplotlib places lines by the widths of its own font; one alone ends where it shall in any.
    """
    for place, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
        lines, size = label.get_text().split("\n"), label.get_fontsize()
        if len(lines) > 1:
            label.set_visible(False)
            for number, line in enumerate(lines):
                ax.annotate(line, (0, place), (-7, 1.2 * size * ((len(lines) - 1) / 2 - number)),
                            xycoords=("axes fraction", "data"), textcoords="offset points",
                            ha="right", va="center", fontsize=size, color=label.get_color())


def _panels(fig: Figure) -> list[list[Axes]]:
    """The axes of each panel: those that share a place, as twins do."""
    panels: list[list[Axes]] = []
    for ax in fig.axes:
        place = ax.get_subplotspec()
        same = [panel for panel in panels if panel[0].get_subplotspec() == place]
        if same:
            same[0].append(ax)
        else:
            panels.append([ax])
    return panels


def _readable(colour: str) -> str:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return PALEST if red == green == blue and PALEST < colour < "#ffffff" else colour


def _title_of(ax: Axes) -> str:
    """The title, which is taken off the drawing: on a page it is text, and may wrap."""
    title = ax.get_title("left") or ax.get_title()
    if "$" in title:  # a formula, which Matplotlib must draw
        return ""
    for place in ("left", "center"):
        ax.set_title("", loc=place)
    return title


def _alone(fig: Figure, panel: list[Axes], height: float) -> tuple[str, ElementTree.Element]:
    """Title and drawing of one panel. The figure is left with this panel's layout."""
    fig.set_size_inches(WIDTH, height)
    for ax in fig.axes:
        ax.set_visible(ax in panel)
        ax.set_in_layout(ax in panel)
    place = GridSpec(1, 1, figure=fig)[0]
    for ax in panel:
        ax.set_subplotspec(place)
        ax.patch.set_visible(False)
        _plain_ticks(ax.xaxis)
        _plain_ticks(ax.yaxis)
    if len(panel) == 1:  # axes that share theirs leave out what stands beside their neighbours
        panel[0].tick_params(labelleft=True, labelbottom=True)
    _lines_apart(panel[0])
    return _title_of(panel[0]), _saved(fig)


def markup(fig: Figure) -> str | None:
    """The figure's legend and panels, for `<figure class="drawn">`; None if pixels serve it better.

    The figure is changed: draw it otherwise first.

    Raises
    ------
    TypeError, ValueError
        A legend with a handle or a formula that no page could show.
    """
    if not fig.axes or any(ax.images for ax in fig.axes):
        return None
    handles = _legends(fig)
    labels = list(handles)
    if any("$" in label for label in labels):
        raise ValueError(f"a label with a formula, which stays raw in a page: {labels}")
    series = _series(fig, labels)
    known = {id(artist) for _, artist, _ in series}
    for ax in fig.axes:  # what no legend names says its values, too
        bars = [(part, box) for box in ax.containers if isinstance(box, BarContainer)
                for part in box]
        series += [(len(labels), part, box) for part, box in
                   (*bars, *((line, None) for line in ax.lines)) if id(part) not in known]
    for number, (_, artist, _) in enumerate(series):
        artist.set_gid(f"series-{number}")
    for legend in (*(ax.get_legend() for ax in fig.axes), *fig.legends):
        if legend:
            legend.remove()
    fig.set_dpi(72)  # as the SVG has: so a place in it tells what stands there
    for ax in fig.axes:
        _narrow_ticks(ax)
    diagram = not all(ax.axison for ax in fig.axes) or any(
        _too_long(ax.texts) for ax in fig.axes if ax.containers)
    panels = _panels(fig)
    grid = panels[0][0].get_subplotspec().get_gridspec()
    for text in fig.findobj(Text):
        text.set_fontsize(max(TYPE_OF_DIAGRAM if diagram else TYPE, text.get_fontsize()))
        text.set_color(_readable(to_hex(text.get_color())))
    if diagram:
        title = _title_of(fig.axes[0]) if len(fig.axes) == 1 else ""
        drawn = [(title, _named(_saved(fig), series, labels))]
    else:
        height = min(HEIGHTS[1], max(HEIGHTS[0], fig.get_figheight() / grid.nrows))
        drawn = []
        for panel in panels:  # what it is named by must be read off before the next is laid out
            title, root = _alone(fig, panel, height)
            drawn.append((title, _named(root, series, labels)))
    for number, _, container in reversed(series):  # the handle of error bars is one of many parts
        if isinstance(container, ErrorbarContainer) and number < len(labels) and container[0]:
            handles[labels[number]] = container[0]
    return _joined(drawn, {label: _swatch(handle) for label, handle in handles.items()},
                   1 if diagram else grid.ncols, 96 * fig.get_figwidth() if diagram else 0)


def _joined(drawn: list[tuple[str, ElementTree.Element]], swatches: dict[str, ElementTree.Element],
            columns: int, wide: float) -> str | None:
    """`wide`: pixels, of a diagram, which keeps its size; else 0."""
    roots = [*swatches.values(), *(root for _, root in drawn)]
    name = "f" + hashlib.sha256(b"".join(map(ElementTree.tostring, roots))).hexdigest()[:5]
    names, colours = {}, _Colours()
    svgs = [ElementTree.tostring(_tidy(root, f"{name}-", names, colours), encoding="unicode")
            .replace(" />", "/>") for root in roots]
    legend = "".join(
        f'<button type="button" aria-pressed="false" data-series="{number}">{svg}{escape(label)}'
        "</button>" for number, (label, svg) in enumerate(zip(swatches, svgs, strict=False)))
    panels = "".join(
        "<div>" + (f"<p>{escape(title)}</p>" if title else "") + f"{svg}</div>"
        for (title, _), svg in zip(drawn, svgs[len(swatches):], strict=True))
    made = (f'<div style="--columns:{columns};--wide:{wide:.0f}px;{colours.style()}">'
            + (f'<div class="drawn-legend">{legend}</div>' if legend else "")
            + f'<div class="drawn-panels{" is-diagram" if wide else ""}">{panels}</div></div>')
    return made if len(made) <= LARGEST else None
