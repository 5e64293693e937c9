"""The stretch goal of exercise 3: after the sublayer, or beside it."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import peft
from book_pages import figures
from exercises.stretch_goals import WithBlocks, pretrained, train


def adapter_runs(adapter: type, scales=(1.0, 4.0, 16.0), bottleneck: int = 16, lr: float = 3e-3
                 ) -> dict[str, dict[str, Any]]:
    """A sequential adapter after every MLP, and the student's beside it at some scales."""
    sequential, rng = pretrained(), np.random.default_rng(1)
    for layer in sequential.layers:
        layer.after_mlp = peft.Adapter(sequential.config.hidden_size, bottleneck, rng=rng)
    runs = {"sequential": train(sequential, lr)}
    for scale in scales:
        rng = np.random.default_rng(1)
        runs[f"parallel, scale {scale:g}"] = train(WithBlocks(
            lambda mlp: adapter(mlp, sequential.config.hidden_size, bottleneck, scale, rng=rng)),
            lr)
    return runs


def draw_adapters(runs: dict[str, dict[str, Any]]) -> None:
    """The loss on new names over the steps, and where each run ends."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.6, 1])
    colors = [figures.GREY, *plt.get_cmap("Oranges")(np.linspace(0.4, 0.95, len(runs) - 1))]
    for (name, run), color in zip(runs.items(), colors, strict=True):
        left.plot(run["steps"], run["loss"], color=color, label=name)
        right.plot(run["loss"][-1], name, "o", ms=10, color=color)
    left.set(title="On the way", xlabel="step", ylabel="loss on new names (nats per character)")
    left.legend()
    left.grid(True)
    right.set(title="After 100 steps", xlabel="loss on new names")
    right.margins(0.12)
    right.grid(True)
    right.invert_yaxis()
    plt.show()
