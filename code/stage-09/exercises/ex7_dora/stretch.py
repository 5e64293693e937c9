"""The stretch goal of exercise 7: a length for each output or each input, the norm in or out."""

from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import peft
from book_pages import figures
from exercises.stretch_goals import Goal, folded, pretrained, told, train
from experiments.claims import CLEAR, apart
from experiments.family import lora
from family.dora import DoRALinear

RANK, STEPS = 4, 60


def trained(layer: type, cls: type | None, options: dict[str, bool], lr: float, seed: int = 0
            ) -> dict[str, Any]:
    """A layer on every projection; without a class, the student's."""
    model = pretrained()
    lora(cls or layer, **options)(model, RANK, np.random.default_rng(1 + seed))
    return train(model, lr, STEPS, every=STEPS // 6, seed=seed)


GOAL = Goal("ex7", trained, {
    "LoRA": (peft.LoRALinear, {}),
    "DoRA, by outputs": (DoRALinear, {"detach_norm": False}),
    "DoRA, by inputs": (None, {"detach_norm": False}),
    "DoRA, by inputs, norm detached": (None, {"detach_norm": True})},
    rates=(3e-3, 1e-2, 3e-2, 1e-1))
GOALS = (GOAL,)


def dora_runs(layer: type, seed: int = 0) -> dict[str, dict[str, Any]]:
    """All four, each at the rate that was found best for it."""
    return GOAL.runs(layer, seed)


def undecided_by() -> tuple[dict[str, dict[str, Any]], float]:
    """The four entries of the record, and how many standard errors two are apart at most.

    AssertionError if that decides between two, or if a best rate is at an end of its sweep.
    """
    entries = {name: GOAL.entry(name) for name in GOAL.settings}
    most = max(abs(apart(one, two)) for one, two in combinations(entries.values(), 2))
    assert most < CLEAR and not GOAL.at_edge(entries.values())
    return entries, most


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds: that they do not tell the four apart."""
    entries, most = undecided_by()
    rate, = {entry["lr"] for entry in entries.values()}
    ranks = []  # by seed, the names from the lowest loss on
    for seed in GOAL.seeds:
        losses = {row["setting"]: row["loss"] for name in entries for row in GOAL.rows(name, rate)
                  if row["seed"] == seed}
        ranks.append(sorted(losses, key=losses.get))
    assert len({rank[0] for rank in ranks}) > 1
    ends = "; ".join(f"{name} {told(entry)}" for name, entry in entries.items())
    return folded(
        f"All four are best at the rate of {rate:g}, of {len(GOAL.rates)} that seed 0 tried, and "
        f"there they end at: {ends}. No two are more than {most:.1f} standard errors apart, so "
        "these seeds do not tell which is best. The lowest of the four is, seed by seed: "
        f"{'; '.join(rank[0] for rank in ranks)}. Whoever runs one seed sees a winner.",
        "That lengths or their side do not matter: on another task, with longer training, or with "
        "more seeds they may. Nor that a detached norm is as good as the true gradient at every "
        "rate. What is shown is that a difference of a hundredth of a nat, from one run, is not "
        "evidence.", opened)


def draw_dora(runs: dict[str, dict[str, Any]]) -> None:
    """The loss on new names over the steps, and where each run ends."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.4, 1])
    colors = (figures.GREY, *plt.get_cmap("Oranges")([0.5, 0.7, 0.9]))
    for (name, run), color, style in zip(runs.items(), colors, ("-", "-.", "-", "--"), strict=True):
        left.plot(run["steps"], run["loss"], style, color=color, label=name)
        right.plot(run["loss"][-1], name, "o", ms=10, color=color)
    left.set(title="On the way", xlabel="step", ylabel="loss on new names (nats per character)")
    left.legend()
    left.grid(True)
    right.set(title=f"After {STEPS} steps", xlabel="loss on new names")
    right.margins(0.12)
    right.grid(True)
    right.invert_yaxis()
    plt.show()
