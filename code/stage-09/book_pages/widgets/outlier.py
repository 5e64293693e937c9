"""Drag an outlier and see what becomes of its block (the page on shrinking the base)."""

import numpy as np
import traitlets

from book_pages.figures import COLORS
from book_pages.widgets import explorer

#: What the slider offers: the outlier in units of the block's largest other weight.
TIMES = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30]
OUTLIER = 5  # its place in the block

_STYLE = """
.pw-ruler { display: block; width: 100%; height: auto; margin-top: 1rem; }
.pw-ruler line { stroke: var(--grid); stroke-width: 1; }
.pw-ruler line.pw-zero { stroke: var(--rail); }
.pw-ruler .pw-true { fill: none; stroke: var(--ink); stroke-width: 1.2; }
.pw-ruler .pw-restored { fill: var(--series); }
.pw-ruler .pw-off { stroke: var(--soft); stroke-dasharray: 2 2; }
"""


def block(size: int = 16) -> np.ndarray:
    """Weights of a block, (size,), the largest of which is 1."""
    weights = np.random.default_rng(6).standard_normal(size)
    weights[OUTLIER] = 0
    return weights / np.abs(weights).max()


class OutlierExplorer(explorer.Widget):
    """One block of sixteen weights; a slider makes one of them larger than the others.

    Python quantizes the block for every position; the front end picks and draws.

    Parameters
    ----------
    tables : dict of str to array
        Name -> sorted levels between -1 and 1, the one shown first at the start.

    Attributes
    ----------
    times : int
        The outlier, in units of the largest other weight; one of `TIMES`.
    levels : str
        Name of the table that is shown.
    """

    _esm = explorer.front_end("outlier")
    _css = explorer.Widget._css + _STYLE

    times = traitlets.Int(1).tag(sync=True)
    levels = traitlets.Unicode().tag(sync=True)
    _grid = traitlets.Dict().tag(sync=True)
    _choices = traitlets.List().tag(sync=True)
    _times = traitlets.List(TIMES).tag(sync=True)
    _outlier = traitlets.Int(OUTLIER).tag(sync=True)
    _color = traitlets.Unicode(COLORS["lora"]).tag(sync=True)

    def __init__(self, tables: dict[str, np.ndarray]):
        super().__init__(_choices=[[name, name] for name in tables], levels=next(iter(tables)),
                         _grid={f"{name},{times}": self.quantized(levels, times)
                                for name, levels in tables.items() for times in TIMES})

    @traitlets.validate("times")
    def _listed(self, proposal):
        if proposal["value"] not in TIMES:
            raise traitlets.TraitError(f"times is one of {TIMES}, got {proposal['value']}")
        return proposal["value"]

    @staticmethod
    def quantized(levels: np.ndarray, times: int) -> dict:
        """The block with an outlier of this size: weights, codes, what is restored, lines, error.

        The error is that of the others, relative to them, root mean square.
        """
        weights = block()
        weights[OUTLIER] = times
        absmax = np.abs(weights).max()
        codes = np.abs(weights[:, None] / absmax - levels).argmin(axis=1)  # (16,)
        restored = levels[codes] * absmax
        others = np.arange(len(weights)) != OUTLIER
        error = np.linalg.norm((restored - weights)[others]) / np.linalg.norm(weights[others])
        return {"weights": weights.round(4).tolist(), "codes": codes.tolist(),
                "restored": restored.round(4).tolist(),
                "lines": (levels * absmax).round(4).tolist(),
                "error": round(float(error), 4), "used": len(set(codes[others].tolist()))}

    def fallback(self):
        (name, _), *_ = self._choices
        return (f"An outlier in a block of sixteen weights, {name}",
                ["outlier", "levels that the others use", "error of the others"],
                [[f"{times} times the largest", str(found["used"]), f"{found['error']:.0%}"]
                 for times in TIMES for found in [self._grid[f"{name},{times}"]]])
