"""The one style of the book's figures: colours, sizes, fonts. Import it once, then draw.

A notebook shows them as pixels on white; with each goes what the book's page shows in its place
(svg.py). What has none is turned dark by the page's style sheet.
"""

import copyreg
import itertools
import pickle
import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.figure import Figure

from book_pages import settings, svg

#: One colour per method, everywhere in the book (Okabe and Ito's palette, safe for colour-blind
#: readers; widgets take them from here too). The keys are those of `compare_peft_methods`.
COLORS = {
    "full": "#4d4d4d",
    "lora": "#0072b2",
    "adapters": "#d55e00",
    "prefix": "#009e73",
    "prompt": "#aa4499",
}
#: Neutral ink: text, axes, and what belongs to no method.
INK, GREY = "#222222", "#8c8c8c"

mpl.rcParams.update({
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.prop_cycle": mpl.cycler(color=[c for m, c in COLORS.items() if m != "full"]),
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "grid.color": "#dddddd",
})


# An axis of names (matplotlib.category) counts with one, which Python 3.14 no longer pickles.
copyreg.pickle(itertools.count, lambda count: (
    itertools.count, tuple(map(int, re.findall(r"\d+", repr(count))))))


def _shown(fig: Figure) -> tuple[dict[str, str], dict[str, Any]]:
    """What IPython tells about a figure beside its pixels: the markup is no output to compare."""
    copy = pickle.loads(pickle.dumps(fig))  # which pyplot takes for one of its own, to be shown
    plt.close(copy)
    drawn = svg.markup(copy)
    return {}, {"drawn": drawn} if drawn else {}


if (shell := get_ipython()) and not settings.IN_BROWSER:
    shell.display_formatter.mimebundle_formatter.for_type(Figure, _shown)


def heatmap(ax: plt.Axes, values, *, title: str, xlabel: str, ylabel: str,
            limit: float | None = None, cmap: str = "RdBu_r"):
    """A matrix as colours, symmetric about zero (or from zero for a one-sided `cmap`)."""
    limit = float(abs(values).max()) if limit is None else limit
    low = -limit if cmap == "RdBu_r" else 0.0
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=limit, aspect="auto",
                      interpolation="nearest")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return image
