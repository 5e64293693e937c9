"""What the stretch goals share: the pretrained small Llama, and how it learns Turkish names.

In an exercise's `stretch.py` each `..._runs` function takes the student's work, trains for about
a hundred steps at a time (seconds each) and returns the curves; each `draw_...` makes the figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import llama
import names
import training
from book_pages import settings

BASE = Path(__file__).parents[1] / "data" / "base"


def pretrained() -> llama.Llama:
    """The book's pretrained model, fresh."""
    return llama.Llama.load(BASE)


class WithBlocks:
    """The pretrained model with other MLP blocks, in the form that `training.fit` expects.

    Parameters
    ----------
    make : gets a frozen `llama.MLP`, returns the block that takes its place
    """

    def __init__(self, make: Callable[[llama.MLP], Any]):
        self.model, self.blocks = pretrained(), []
        for layer in self.model.layers:
            layer.mlp = make(layer.mlp)
            self.blocks.append(layer.mlp)
        self.forward, self.backward = self.model.forward, self.model.backward

    def _all(self, which: str) -> dict[str, np.ndarray]:
        return {f"{i}.{name}": array for i, block in enumerate(self.blocks)
                for name, array in getattr(block, which)().items()}

    def parameters(self) -> dict[str, np.ndarray]:
        return self._all("parameters")

    def gradients(self) -> dict[str, np.ndarray]:
        return self._all("gradients")


def train(model: Any, lr: float = 1e-2, steps: int = 100, every: int = 20) -> dict[str, Any]:
    """Train on Turkish names; number of parameters, steps, and loss on names held back."""
    recorder = training.Recorder()
    data = names.batches(names.load_names("turkish", "train"), settings.BATCH,
                         np.random.default_rng(0))
    training.fit(model, data, steps=steps, lr=lr, warmup=10, every=every, callbacks=[recorder],
                 evaluations={"loss": names.load_names("turkish", "validation")})
    count = sum(array.size for array in model.parameters().values())
    return {"parameters": count, "steps": recorder.steps, "loss": recorder.losses["loss"]}
