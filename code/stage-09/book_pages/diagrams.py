"""Boxes and arrows for the book's block diagrams, in the style of `figures.py`."""

import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyBboxPatch

from book_pages.figures import GREY, INK


def canvas(ax: plt.Axes, width: float, height: float, title: str = "") -> None:
    """An empty drawing surface from (0, 0) to (width, height), same scale on both axes."""
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal", title=title)
    ax.axis("off")


def box(ax: plt.Axes, x: float, y: float, text: str, *, width: float = 2.2, height: float = 0.62,
        color: str = GREY, trained: bool = False, size: float = 8.5) -> None:
    """A labelled box centred at (x, y): filled if it is trained, outlined if it is frozen."""
    ax.add_patch(FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height,
        boxstyle="round,pad=0,rounding_size=0.1", linewidth=1.4, edgecolor=color,
        facecolor=color if trained else "white", zorder=3))
    ax.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4,
            color="white" if trained else INK)


def plus(ax: plt.Axes, x: float, y: float) -> None:
    """The sign of an addition, centred at (x, y)."""
    ax.add_patch(Circle((x, y), 0.2, facecolor="white", edgecolor=INK, linewidth=1.2, zorder=3))
    ax.text(x, y, "+", ha="center", va="center_baseline", fontsize=11, zorder=4, color=INK)


def path(ax: plt.Axes, *points: tuple[float, float], color: str = INK, head: bool = True) -> None:
    """Straight lines through `points`, with an arrow head at the last one."""
    xs, ys = zip(*points, strict=True)
    ax.plot(xs, ys, color=color, linewidth=1.2, solid_joinstyle="round", zorder=1)
    if head:
        ax.annotate("", points[-1], points[-2], zorder=2, arrowprops={
            "arrowstyle": "-|>", "color": color, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0,
            "mutation_scale": 9})
