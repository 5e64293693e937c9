"""A real update at every rank: row times column, and the spectrum (section 9.2)."""

import numpy as np
import traitlets

from book_pages.figures import COLORS
from book_pages.widgets import explorer

#: Ranks of the table that stands in for the widget.
LISTED = (1, 2, 4, 8, 16, 32, 64)
DIGITS = 4  # of what the page is handed of A and B

_STYLE = """
.peft-widget .pw-factors, .peft-widget .pw-parts { display: grid; gap: 1.25rem 1.5rem; }
.peft-widget .pw-parts { margin-top: 1.1rem; align-items: start; }
.peft-widget .pw-factors { grid-template-columns: 1fr 1fr; gap: 0.4rem; }
.peft-widget .pw-heat { position: relative; min-width: 0; }
.peft-widget .pw-heat > div { position: relative; overflow: hidden; border: 1px solid var(--line); }
.peft-widget .pw-heat canvas {
  display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated;
  color: var(--plus); background-color: var(--paper); caret-color: var(--minus);
}
.peft-widget .pw-heat.pw-touch > div { cursor: crosshair; border-color: var(--soft); }
.peft-widget .pw-heat figcaption { margin: 0; color: var(--soft); font-size: 0.8125rem; }
.peft-widget .pw-mark { position: absolute; pointer-events: none; outline: 1.5px solid var(--ink); }
.peft-widget { --plus: color-mix(in oklab, #b2182b var(--keep), white);
  --minus: color-mix(in oklab, #2166ac var(--keep), white); }
.peft-widget .pw-terms { display: block; width: 100%; height: auto; overflow: visible; }
@container (min-width: 1px) {
  .peft-widget .pw-drag { grid-template-columns: 1fr auto; align-items: center; }
  .peft-widget .pw-pair { grid-template-columns: 1fr 1fr; gap: 1.25rem; margin: 0.9rem 0 0.6rem; }
}
.peft-widget .pw-terms rect { fill: var(--rail); }
.peft-widget .pw-terms .pw-in { fill: var(--series); }
.peft-widget .pw-terms .pw-in.pw-plus { fill: var(--plus); }
.peft-widget .pw-terms .pw-in.pw-minus { fill: var(--minus); }
.peft-widget .pw-terms polyline { fill: none; stroke: var(--ink); stroke-width: 1.75; }
.peft-widget .pw-terms line { stroke: var(--rail); }
.peft-widget .pw-terms .pw-goal { stroke: var(--ink); stroke-dasharray: 4 3; }
.peft-widget .pw-sum { margin-top: 0.5rem; font-size: 0.875rem; font-variant-numeric: tabular-nums;
  min-height: 4.6em; }
@container (max-width: 26rem) {
  .peft-widget .pw-products :is(th, td) { padding-left: 0.3rem; font-size: 0.75rem; }
}
@container (min-width: 38rem) { .peft-widget .pw-parts { grid-template-columns: 1.15fr 1fr; } }
"""


class UpdateExplorer(explorer.Widget):
    """An update and its best approximation BA of each rank; any cell as row times column.

    Python takes the update apart; the front end adds up the first terms and draws.

    Parameters
    ----------
    update : array, (out, in)
        W' - W of some weight.

    Attributes
    ----------
    rank : int
        Terms that are kept, 1 to min(out, in).
    row, column : int
        The cell that is spelt out, counted from 1.

    Raises
    ------
    ValueError
        If the update is no matrix, or holds nothing but zeros.
    """

    _esm = explorer.front_end("update")
    _css = explorer.Widget._css + _STYLE

    rank = traitlets.Int(1).tag(sync=True)
    row = traitlets.Int(1).tag(sync=True)
    column = traitlets.Int(1).tag(sync=True)
    _shape = traitlets.List().tag(sync=True)  # out, in
    # B, (out, terms), and A, (terms, in), row by row in units of 10**-DIGITS: a stored notebook
    # has each number of a list on a line of its own.
    _b = traitlets.Unicode().tag(sync=True)
    _a = traitlets.Unicode().tag(sync=True)
    _unit = traitlets.Float(10.0**-DIGITS).tag(sync=True)
    _sigma = traitlets.Unicode().tag(sync=True)  # the singular values
    _missing = traitlets.Unicode().tag(sync=True)  # relative error at rank 1, 2, ...
    _color = traitlets.Unicode(COLORS["lora"]).tag(sync=True)

    def __init__(self, update: np.ndarray):
        update = np.asarray(update, dtype=np.float64)
        if update.ndim != 2 or not update.any():
            raise ValueError("update must be a matrix with some entry other than 0, got shape "
                             f"{update.shape}")
        u, sigma, vt = np.linalg.svd(update, full_matrices=False)
        self.errors = np.sqrt(np.append(np.cumsum(sigma[::-1] ** 2)[-2::-1], 0)
                              / np.sum(sigma**2))  # at rank 1, 2, ...
        row, column = np.unravel_index(np.abs(update).argmax(), update.shape)
        super().__init__(
            _shape=list(update.shape), _b=_packed(u * sigma), _a=_packed(vt), row=int(row) + 1,
            column=int(column) + 1, _sigma=" ".join(f"{value:.5g}" for value in sigma),
            _missing=" ".join(f"{value:.4f}" for value in self.errors))

    @traitlets.validate("rank", "row", "column")
    def _inside(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        out, in_ = self._shape
        largest = {"rank": min(out, in_), "row": out, "column": in_}[name]
        if not 1 <= value <= largest:
            raise traitlets.TraitError(f"{name} is 1 to {largest}, got {value}")
        return value

    def fallback(self):
        out, in_ = self._shape
        return (f"Best approximations of an update of shape ({out}, {in_})",
                ["rank", "numbers in A and B", "missing of the update"],
                [[str(rank), f"{rank * (out + in_):,}", f"{self.errors[rank - 1]:.1%}"]
                 for rank in LISTED if rank <= min(out, in_)])


def _packed(matrix: np.ndarray) -> str:
    return " ".join(map(str, np.rint(matrix * 10**DIGITS).astype(int).ravel()))
