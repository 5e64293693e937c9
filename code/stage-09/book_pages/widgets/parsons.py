"""Parsons problems as a widget: lines to be put in order, each wrong one answered by the check."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets

from book_pages.widgets import explorer

_STYLE = """
.peft-widget .pw-lines { display: grid; gap: 0.9rem 1.5rem; margin-top: 1rem; }
.peft-widget .pw-lines > div { min-width: 0; }
.peft-widget .pw-lines .pw-title { margin: 0 0 0.3rem; font-size: 0.875rem; font-weight: 600;
  color: var(--ink); }
.peft-widget .pw-lines ol { list-style: none; margin: 0; padding: 0; }
.peft-widget .pw-lines li { display: flex; flex-wrap: wrap; align-items: center; gap: 0.25rem;
  margin: 0 0 0.35rem; padding: 0.25rem 0.4rem; border: 1px solid var(--line);
  border-radius: 6px; background: var(--field); }
.peft-widget .pw-lines li.pw-wrong { border-color: var(--bad); }
.peft-widget .pw-lines pre { flex: 1 1 14rem; min-width: 0; margin: 0; padding: 0; border: 0;
  background: none; color: var(--ink); overflow: visible; font-size: 0.8125rem; line-height: 1.35;
  white-space: break-spaces; overflow-wrap: anywhere; }
.peft-widget .pw-lines .pw-head { margin: 0 0 0.35rem; }
.peft-widget .pw-lines li > span { display: flex; gap: 0.25rem; margin-left: auto; }
.peft-widget .pw-lines .pw-button { padding: 0.1rem 0.55rem; min-width: 2rem; }
.peft-widget .pw-reply { margin-top: 0.8rem; min-height: 4.5rem; }
@container (min-width: 46rem) { .peft-widget .pw-lines { grid-template-columns: 1fr 1fr; } }
"""


class ParsonsProblem(explorer.Widget):
    """The lines of one exercise's methods, shuffled, with wrong ones among them.

    Parameters
    ----------
    puzzles : sequence of Puzzle, as exercises/parsons.py makes them

    Attributes
    ----------
    puzzle : int
        Which of them is shown, from 0.
    orders : list of list of int
        What the reader has taken of each, from the top: the index of a piece, or the number of
        right pieces plus the index of a wrong one.

    Raises
    ------
    ValueError
        Without a puzzle.
    """

    _esm = explorer.front_end("parsons")
    _css = explorer.Widget._css + _STYLE

    puzzle = traitlets.Int(0).tag(sync=True)
    orders = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    _puzzles = traitlets.List().tag(sync=True)

    def __init__(self, puzzles: Sequence[Any]):
        if not puzzles:
            raise ValueError("there must be a puzzle; exercises.parsons.puzzles(room) has some")
        rng = np.random.default_rng(20)
        self.puzzles = list(puzzles)
        super().__init__(orders=[[] for _ in puzzles], _puzzles=[
            {"method": one.method, "head": one.head, "needs": [list(need) for need in one.needs],
             "lines": one.pieces + [text for _, text, _ in one.wrong], "right": len(one.pieces),
             "replies": [reply for *_, reply in one.wrong],
             "pool": rng.permutation(len(one.pieces) + len(one.wrong)).tolist()}
            for one in puzzles])

    @traitlets.validate("puzzle")
    def _listed(self, proposal):
        if not 0 <= proposal["value"] < len(self.puzzles):
            raise traitlets.TraitError(f"puzzle is 0 to {len(self.puzzles) - 1}, got "
                                       f"{proposal['value']}")
        return proposal["value"]

    @traitlets.validate("orders")
    def _of_these(self, proposal):
        known = [set(one["pool"]) for one in self._puzzles] or [set()] * len(proposal["value"])
        orders = proposal["value"]
        if len(orders) != len(known) or any(
                len(set(order)) != len(order) or not set(order) <= there
                for order, there in zip(orders, known, strict=True)):
            raise traitlets.TraitError("orders has for each puzzle the numbers of some of its "
                                       f"lines, each once; got {orders}")
        return orders

    def fallback(self):
        return ("The lines, shuffled; some are wrong", ["method", "line"],
                [[one["method"], one["lines"][i]] for one in self._puzzles for i in one["pool"]])
