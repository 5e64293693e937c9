"""One token's way through an adapter's bottleneck, and units that no token wakes (section 9.3)."""

import numpy as np
import traitlets

import peft
from book_pages.figures import COLORS
from book_pages.widgets import explorer

WIDTH, UNITS, TOKENS = 8, 8, 32  # small enough to see every number
OFFSETS = [0, 0.5, 1, 2, 4, 8, 16]  # of all inputs, in units of their noise
START = 10 * peft.INIT_STD  # so that the correction of so narrow an adapter can be seen
DIGITS = 4

_STYLE = """
.peft-widget .pw-signal { display: block; width: 100%; max-width: 42rem; height: auto;
  margin-top: 0.8rem; }
.peft-widget .pw-pair + .pw-choice { margin-top: 0.8rem; }
.peft-widget .pw-signal text { fill: var(--ink); font-size: 14px; }
.peft-widget .pw-signal line { stroke: var(--rail); }
.peft-widget .pw-signal path { fill: var(--grid); }
.peft-widget .pw-signal rect { fill: var(--soft); }
.peft-widget .pw-signal .pw-on { fill: var(--series); }
.peft-widget .pw-signal .pw-cut { fill: none; stroke: var(--soft); stroke-dasharray: 3 2; }
.peft-widget .pw-signal .pw-never { fill: var(--bad); font-weight: 600; }
@container (min-width: 34rem) { .peft-widget .pw-pair { grid-template-columns: 1fr 1fr; } }
"""


class SignalExplorer(explorer.Widget):
    """A fresh adapter of at most `UNITS` units, at work on one of `TOKENS` inputs.

    Python draws the inputs and the matrices; the front end computes x + relu(x W_down) W_up.

    Attributes
    ----------
    units : int
        The bottleneck's width m, 1 to `UNITS`.
    token : int
        Which input is shown, from 1.
    offset : float
        One of `OFFSETS`: how far all inputs are moved together, in units of their noise.
    """

    _esm = explorer.front_end("signal")
    _css = explorer.Widget._css + _STYLE

    units = traitlets.Int(4).tag(sync=True)
    token = traitlets.Int(1).tag(sync=True)
    offset = traitlets.Float(0.0).tag(sync=True)
    _offsets = traitlets.List(OFFSETS).tag(sync=True)
    _sizes = traitlets.List([WIDTH, UNITS, TOKENS]).tag(sync=True)
    # numbers in units of 10**-DIGITS, row by row: (tokens, d), (d,), (d, units), (units, d)
    _noise = traitlets.Unicode().tag(sync=True)
    _common = traitlets.Unicode().tag(sync=True)
    _down = traitlets.Unicode().tag(sync=True)
    _up = traitlets.Unicode().tag(sync=True)
    _unit = traitlets.Float(10.0**-DIGITS).tag(sync=True)
    _color = traitlets.Unicode(COLORS["adapters"]).tag(sync=True)

    def __init__(self):
        rng = np.random.default_rng(9)
        adapter = peft.Adapter(WIDTH, UNITS, dtype=np.float64, rng=rng)
        scale = START / peft.INIT_STD
        arrays = {"noise": rng.standard_normal((TOKENS, WIDTH)),
                  "common": rng.standard_normal(WIDTH),
                  "down": scale * adapter.W_down, "up": scale * adapter.W_up}
        whole = {name: np.rint(array * 10**DIGITS).astype(int) for name, array in arrays.items()}
        self.arrays = {name: array * 10.0**-DIGITS for name, array in whole.items()}
        super().__init__(**{f"_{name}": " ".join(map(str, array.ravel()))
                            for name, array in whole.items()})

    @traitlets.validate("units", "token", "offset")
    def _listed(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = {"units": range(1, UNITS + 1), "token": range(1, TOKENS + 1),
                   "offset": OFFSETS}[name]
        if value not in allowed:
            raise traitlets.TraitError(f"{name} is one of {list(allowed)}, got {value}")
        return value

    def fires(self, offset: float) -> np.ndarray:
        """On how many of the tokens each unit is above zero at this offset, (units,)."""
        x = self.arrays["noise"] + offset * self.arrays["common"]  # (tokens, d)
        return (x @ self.arrays["down"] > 0).sum(axis=0)

    def fallback(self):
        counts = [self.fires(offset) for offset in OFFSETS]
        return (f"On how many of {TOKENS} tokens each unit of a fresh adapter fires",
                ["unit", *(f"offset {offset:g}" for offset in OFFSETS)],
                [[str(unit + 1), *(str(count[unit]) for count in counts)]
                 for unit in range(UNITS)])
