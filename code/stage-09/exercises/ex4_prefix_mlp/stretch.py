"""The stretch goal of exercise 4: a prefix trained through the MLP against one trained directly.

`prefix_runs` takes the student's class and trains the small Llama on Turkish names, a few seconds
for each run; `draw_prefix` makes the figure.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import peft
from book_pages import figures
from exercises.stretch_goals import pretrained, train


class ThroughMLP(peft.PrefixTuning):
    """A prefix for the Llama's slot whose numbers an MLP makes: the MLP's arrays are what trains.

    Parameters
    ----------
    mlp : with forward() -> (L, 2, P, H, dh), backward, parameters, gradients
    """

    def __init__(self, mlp: Any):
        made = mlp.forward()
        layers, _, P, heads, d_head = made.shape
        super().__init__(layers, heads, d_head, P, dtype=made.dtype)
        self.mlp = mlp

    def forward(self, keys: np.ndarray, values: np.ndarray, layer_idx: int) -> tuple:
        if layer_idx == 0:  # the first layer to ask: the optimizer has moved since
            self.prefix[...] = self.mlp.forward()
        return super().forward(keys, values, layer_idx)

    def backward(self, grad_keys: np.ndarray, grad_values: np.ndarray, layer_idx: int) -> tuple:
        grads = super().backward(grad_keys, grad_values, layer_idx)
        if layer_idx == 0:  # the last one to answer: the prefix's gradient is complete
            self.mlp.backward(self.prefix_grad)
        return grads

    def parameters(self) -> dict[str, np.ndarray]:
        return self.mlp.parameters()

    def gradients(self) -> dict[str, np.ndarray]:
        return self.mlp.gradients()


def prefix_runs(mlp: type, rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1), prefix_length: int = 10,
                steps: int = 60) -> dict[str, dict[float, dict[str, Any]]]:
    """One run per learning rate, direct and through the student's MLP (64 and 128 wide)."""
    runs: dict[str, dict[float, dict[str, Any]]] = {"direct": {}, "through the MLP": {}}
    for rate in rates:
        for kind, found in runs.items():
            model, rng = pretrained(), np.random.default_rng(1)
            shape = (len(model.layers), model.config.num_key_value_heads, model.config.head_dim,
                     prefix_length)
            model.kv_prefix = (peft.PrefixTuning(*shape, rng=rng) if kind == "direct" else
                               ThroughMLP(mlp(*shape, embed_dim=64, hidden_dim=128, rng=rng)))
            found[rate] = train(model, rate, steps, every=steps // 6)
    return runs


def draw_prefix(runs: dict[str, dict[float, dict[str, Any]]]) -> None:
    """Left the last loss by learning rate, right the curves of each kind's best run."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.2, 1])
    styles = ((figures.GREY, "s"), (figures.COLORS["prefix"], "o"))
    for (kind, found), (color, marker) in zip(runs.items(), styles, strict=True):
        losses = {rate: run["loss"][-1] for rate, run in found.items()}
        left.semilogx(list(losses), list(losses.values()), marker + "-", color=color, label=kind)
        best = min(losses, key=losses.get)
        count = found[best]["parameters"]
        right.plot(found[best]["steps"], found[best]["loss"], color=color,
                   label=f"{kind}, rate {best:g}\n{count:,} trained")
    left.set(title="Loss at the end, by learning rate", xlabel="learning rate",
             ylabel="loss on new names (nats per character)")
    right.set(title="The best run of each", xlabel="step")
    for ax in (left, right):
        ax.legend()
        ax.grid(True)
    plt.show()
