"""The stretch goal of exercise 1: the same budget, in attention or in the feed-forward block."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

from book_pages import figures
from exercises.stretch_goals import Goal, WithBlocks, folded, pretrained, told, train
from experiments.claims import better
from experiments.small_llama import plug_lora


#: Ranks of about equal size: q and v take 256 numbers a rank and layer, the three projections 672,
#: so that attention has a seventh more in each pair.
PLACES = {"attention (q, v)": (3, 6, 12, 24), "feed-forward": (1, 2, 4, 8)}
ALPHA = 8.0  # held, so that a larger rank is no larger step as well


def trained(block: type, place: str, rank: int, lr: float, seed: int = 0) -> dict[str, Any]:
    """LoRA on q and v, or the student's block in place of every feed-forward block."""
    rng = np.random.default_rng(1 + seed)
    if place == "feed-forward":
        model = WithBlocks(lambda mlp: block(
            mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, rank, ALPHA, rng=rng))
    else:
        model = pretrained()
        plug_lora("q_proj", "v_proj", alpha=ALPHA)(model, rank, rng)
    return train(model, lr, seed=seed) | {"rank": rank}


GOAL = Goal("ex1", trained, {f"{place}, r = {rank}": (place, rank)
                             for place, ranks in PLACES.items() for rank in ranks},
            rates=(3e-3, 1e-2, 3e-2, 1e-1))
GOALS = (GOAL,)


def feed_forward_runs(block: type, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Both places at four ranks, each at the rate of its own that was found best."""
    runs = GOAL.runs(block, seed)
    return {place: [runs[f"{place}, r = {rank}"] for rank in ranks]
            for place, ranks in PLACES.items()}


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    pairs = [(GOAL.entry(f"feed-forward, r = {ff}"), GOAL.entry(f"attention (q, v), r = {qv}"))
             for qv, ff in zip(*PLACES.values(), strict=True)]
    lead = min(better(*pair) for pair in pairs)
    small, large = pairs[0], pairs[-1]
    return folded(
        f"At each of the four sizes the feed-forward blocks are ahead, by {lead:.0f} standard "
        f"errors or more, although attention is given a seventh more parameters. The smallest "
        f"pair: {told(small[0])} with {small[0]['parameters']:,} parameters in the feed-forward "
        f"blocks, {told(small[1])} with {small[1]['parameters']:,} in attention. The largest: "
        f"{told(large[0])} with {large[0]['parameters']:,}, {told(large[1])} with "
        f"{large[1]['parameters']:,}. Alpha is held at 8 and each setting has the best of four "
        "learning rates, so that neither decides.",
        "*Why*. The feed-forward blocks hold more weights, stand at another place and have another "
        "nonlinearity, and these runs change all three at once. Nor that it holds for longer "
        "training or for large models; but there the same order has been measured, see the "
        "solution.", opened)


def draw_feed_forward(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Left the loss against the number of parameters, right the curves of two runs."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.3, 1])
    for (place, series), color, marker in zip(
            runs.items(), (figures.GREY, figures.COLORS["lora"]), "so", strict=True):
        x, y = [run["parameters"] for run in series], [run["loss"][-1] for run in series]
        left.semilogx(x, y, marker + "-", color=color, label=place)
        for run in series:
            left.annotate(f"r = {run['rank']}", (run["parameters"], run["loss"][-1]),
                          xytext=(4, 6), textcoords="offset points", fontsize=8.5, color=color)
        run = series[2]
        right.plot(run["steps"], run["loss"], color=color, label=f"{place}, r = {run['rank']}")
    left.set(title="After 100 steps", xlabel="trainable parameters",
             ylabel="loss on new names (nats per character)")
    left.margins(0.12)
    right.set(title="On the way", xlabel="step")
    for ax in (left, right):
        ax.legend()
        ax.grid(True)
    plt.show()
