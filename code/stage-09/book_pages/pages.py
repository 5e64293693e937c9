"""What a page shows of the code: source taken from the file itself, and tables. Never a copy."""

import inspect
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

from IPython.display import HTML, Markdown

CODE = Path(__file__).resolve().parents[1]  # code/stage-09: listings are named by their place in it


def source(what: Any, first: str = "", last: str = "") -> Markdown:
    """A piece of source code as it stands in its file, under the file's name.

    Parameters
    ----------
    what : module, class or function
    first, last : parts of the lines where the piece begins and ends. Without `first` it begins
        at the top; without `last` it ends with the line of `first`, or at the end if that is absent

    Raises
    ------
    ValueError
        `first` is not in exactly one line, or `last` in none from there on: the page is out of
        date and must be mended, not shown.
    """
    lines = inspect.getsource(what).rstrip().split("\n")
    start, stop = 0, len(lines)
    if first:
        found = [i for i, line in enumerate(lines) if first in line]
        if len(found) != 1:
            raise ValueError(f"{first!r} must stand in one line of {what}, found {len(found)}")
        start, stop = found[0], found[0] + 1
    if last:
        ends = [i for i in range(start, len(lines)) if last in lines[i]]
        if not ends:
            raise ValueError(f"{last!r} stands in no line of {what} from line {start + 1} on")
        stop = ends[0] + 1
    place = Path(inspect.getsourcefile(what)).resolve().relative_to(CODE).as_posix()
    if not inspect.ismodule(what):
        place = f"{place}, {what.__qualname__}"
    return Markdown(f"`{place}`\n\n```python\n{dedent(chr(10).join(lines[start:stop]))}\n```")


class Formula(str):
    """A cell of a table that is TeX, each of its lines a formula; pages and JupyterLab draw it."""


class Link(NamedTuple):
    """A cell of a table whose words lead to an address."""

    words: str
    address: str


PIECE = re.compile(r"\[([^\]]+)\]\(([^)]+)\)|\$([^$]+)\$")


def pieces(text: str) -> list[str | Link]:
    """A line of Markdown as text, each `[words](address)` a Link and each `$formula$` a Formula."""
    found, end = [], 0
    for part in PIECE.finditer(text):
        words, address, formula = part.groups()
        found += [text[end:part.start()], Formula(formula) if formula else Link(words, address)]
        end = part.end()
    return [piece for piece in (*found, text[end:]) if piece]


def _markup(cell: Any) -> str:
    if isinstance(cell, list):
        return "".join(map(_markup, cell))
    if isinstance(cell, Link):
        return f'<a href="{escape(cell.address)}">{escape(cell.words)}</a>'
    if isinstance(cell, Formula):
        return "<br>".join(f'<span class="math">\\({escape(line, quote=False)}\\)</span>'
                           for line in cell.split("\n"))
    return escape(str(cell))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> HTML:
    """Rows under column names; the first cell names its row.

    Cells are text, Formula or Link, or lists of these.
    """
    def cells(tag: str, row: Iterable[Any], more: str = "") -> str:
        return "".join(f"<{tag}{more}>{_markup(cell)}</{tag}>" for cell in row)

    head = cells("th", columns, ' scope="col"')
    body = "".join(f'<tr>{cells("th", row[:1], " scope=" + chr(34) + "row" + chr(34))}'
                   f'{cells("td", row[1:])}</tr>' for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return HTML(f'<table class="table">{title}<thead><tr>{head}</tr></thead>'
                f"<tbody>{body}</tbody></table>")
