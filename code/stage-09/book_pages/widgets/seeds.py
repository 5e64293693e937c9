"""How the ranking of methods changes from one draw of seeds to the next (the family's page)."""

from collections.abc import Sequence

import numpy as np
import traitlets

from book_pages.figures import COLORS
from book_pages.widgets import explorer
from experiments.family import METHODS, seeds_needed

COUNTS = [1, 2, 3, 5, 10, 20]  # what the slider offers
SHOWN, DRAWN = 20, 4000  # draws of each: to look at, and to count


class SeedExplorer(explorer.Widget):
    """Recorded seeds drawn with replacement, the same for all methods; how they then rank.

    Python makes all draws; the front end picks one and shows it.

    Parameters
    ----------
    losses : dict of str to sequence of float
        Method -> its loss with seed 0, 1, ...; of equal length.

    Attributes
    ----------
    count : int
        Seeds in a draw, one of `COUNTS`.
    draw : int
        Which draw is shown, 0 to `SHOWN` - 1.

    Raises
    ------
    ValueError
        If some method has more seeds than another, or none has two.
    """

    _esm = explorer.front_end("seeds")
    _css = explorer.Widget._css + """
.pw-slopes { display: block; width: 100%; max-width: 30rem; height: auto; margin-top: 1rem; }
.pw-slopes text { fill: var(--ink); font-size: 15px; }
.pw-slopes line { stroke: var(--rail); stroke-width: 2; }
.pw-slopes line.pw-moved { stroke: var(--series); stroke-width: 3; }
"""

    count = traitlets.Int(1).tag(sync=True)
    draw = traitlets.Int(0).tag(sync=True)
    _counts = traitlets.List(COUNTS).tag(sync=True)
    _labels = traitlets.List().tag(sync=True)  # from the lowest mean over all seeds up
    _means = traitlets.List().tag(sync=True)
    _draws = traitlets.Dict().tag(sync=True)  # count -> draws of means, in the order of labels
    _turned = traitlets.Dict().tag(sync=True)  # count -> share of draws, for each two neighbours
    _color = traitlets.Unicode(COLORS["lora"]).tag(sync=True)

    def __init__(self, losses: dict[str, Sequence[float]]):
        if len({len(values) for values in losses.values()}) != 1:
            raise ValueError("each method needs the same seeds, got "
                             f"{ {name: len(values) for name, values in losses.items()} }")
        order = sorted(losses, key=lambda name: np.mean(losses[name]))
        self._losses = {name: np.asarray(losses[name]) for name in order}
        table = np.stack(list(self._losses.values()))  # (methods, seeds)
        if table.shape[1] < 2:
            raise ValueError("two seeds at least are needed to draw from")
        rng, draws, turned = np.random.default_rng(25), {}, {}
        for count in COUNTS:
            seeds = rng.integers(table.shape[1], size=(DRAWN, count))
            means = table[:, seeds].mean(axis=2)  # (methods, draws)
            draws[str(count)] = means[:, :SHOWN].T.round(5).tolist()
            turned[str(count)] = (means[:-1] > means[1:]).mean(axis=1).round(4).tolist()
        super().__init__(_labels=[METHODS[name].label for name in order], _draws=draws,
                         _means=table.mean(axis=1).round(5).tolist(), _turned=turned)

    @traitlets.validate("count", "draw")
    def _listed(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (COUNTS if name == "count" else range(SHOWN)):
            raise traitlets.TraitError(f"{name} is one of {COUNTS}, a draw below {SHOWN}; "
                                       f"got {name} {value}")
        return value

    def neighbours(self) -> list[list[str]]:
        """For each two neighbours: names, distance, and seeds until their order is known."""
        names = list(self._losses)
        return [[f"{METHODS[a].label}, {METHODS[b].label}",
                 f"{np.mean(self._losses[b] - self._losses[a]):.4f}",
                 f"{seeds_needed(self._losses[a], self._losses[b]):,}"]
                for a, b in zip(names, names[1:], strict=False)]

    def fallback(self):
        shares = [[f"{self._turned[str(count)][i]:.0%}" for count in COUNTS]
                  for i in range(len(self._labels) - 1)]
        return ("Share of draws in which two neighbours stand the other way round",
                ["neighbours", "distance", *(f"{count} seed{'s' * (count > 1)}"
                                             for count in COUNTS), "seeds until 95 %"],
                [[pair, distance, *share, needed] for (pair, distance, needed), share
                 in zip(self.neighbours(), shares, strict=True)])
