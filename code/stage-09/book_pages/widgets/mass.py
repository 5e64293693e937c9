"""How much attention a prefix takes, in the attention maps of the book's model (section 9.4)."""

import numpy as np
import traitlets

import names
from book_pages.figures import COLORS
from book_pages.widgets import explorer
from llama import Llama

NAME = "sigridur"
LONGEST, EDGE = 20, 8  # virtual tokens; scores from -EDGE to EDGE
DIGITS = 4

_STYLE = """
.peft-widget .pw-mass { display: block; width: 100%; max-width: 34rem; height: auto;
  margin-top: 0.8rem; }
.peft-widget .pw-pair + .pw-pair { margin-top: 0.8rem; }
.peft-widget .pw-mass text { fill: var(--ink); font-size: 15px; text-anchor: middle; }
.peft-widget .pw-mass rect { stroke: var(--line); stroke-width: 0.5; fill: var(--ink); }
.peft-widget .pw-mass .pw-prefix { fill: var(--series); }
.peft-widget .pw-mass .pw-hidden { fill: none; stroke: none; }
@container (min-width: 34rem) { .peft-widget .pw-pair { grid-template-columns: 1fr 1fr; } }
"""


class MassExplorer(explorer.Widget):
    """Attention maps of the pretrained model on one name, and a prefix in front of it.

    All its keys have the same score with every query; at 0 they are keys of zeros. Python computes
    the maps without a prefix; the front end splits the softmax (9.4, the mass of a prefix).

    Attributes
    ----------
    layer, head : int
        Which of the model's attention maps, from 1.
    length : int
        Virtual tokens P, 0 to `LONGEST`.
    score : float
        Of each of their keys, -`EDGE` to `EDGE`.
    """

    _esm = explorer.front_end("mass")
    _css = explorer.Widget._css + _STYLE

    layer = traitlets.Int(1).tag(sync=True)
    head = traitlets.Int(1).tag(sync=True)
    length = traitlets.Int(4).tag(sync=True)
    score = traitlets.Float(0.0).tag(sync=True)
    _letters = traitlets.List(list("." + NAME)).tag(sync=True)
    _limits = traitlets.List([LONGEST, EDGE]).tag(sync=True)
    _sizes = traitlets.List().tag(sync=True)  # layers, heads
    _weights = traitlets.Unicode().tag(sync=True)  # (layers, heads, T, T), in 10**-DIGITS
    _z = traitlets.Unicode().tag(sync=True)  # (layers, heads, T): sum of exp(score)
    _unit = traitlets.Float(10.0**-DIGITS).tag(sync=True)
    _color = traitlets.Unicode(COLORS["prefix"]).tag(sync=True)

    def __init__(self):
        model = Llama.load(names.DATA.parent / "base")
        inputs, _ = names.make_batch([NAME])  # (1, T)
        model.forward(inputs)
        caches = [layer.self_attn.cache for layer in model.layers]
        # one key for each query, in all of this model's heads: (layers, heads, T, T)
        weights = np.stack([p[0].reshape(-1, *p.shape[-2:]) for *_, p in caches])
        scores = np.stack([(q @ k.swapaxes(-1, -2))[0].reshape(weights.shape[1:])
                           for q, k, *_ in caches])
        self.weights = weights
        self.z = np.tril(np.exp(scores)).sum(axis=-1)  # (layers, heads, T)
        whole = np.rint(weights * 10**DIGITS).astype(int)
        super().__init__(_sizes=list(weights.shape[:2]), _weights=" ".join(map(str, whole.ravel())),
                         _z=" ".join(f"{value:.5g}" for value in self.z.ravel()))

    @traitlets.validate("layer", "head", "length", "score")
    def _inside(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        low, high = {"layer": (1, self.weights.shape[0]), "head": (1, self.weights.shape[1]),
                     "length": (0, LONGEST), "score": (-EDGE, EDGE)}[name]
        if not low <= value <= high:
            raise traitlets.TraitError(f"{name} is {low} to {high}, got {value}")
        return value

    def mass(self, length: int, score: float) -> np.ndarray:
        """What the prefix takes of each position's attention, (layers, heads, T)."""
        taken = length * np.exp(score)
        return taken / (taken + self.z)

    def fallback(self):
        lengths = (1, 4, 20)
        return ("Attention that goes to a prefix of zeros, mean over all heads",
                ["letter", *(f"P = {length}" for length in lengths)],
                [[letter, *(f"{self.mass(length, 0)[..., t].mean():.0%}" for length in lengths)]
                 for t, letter in enumerate(self._letters)])
