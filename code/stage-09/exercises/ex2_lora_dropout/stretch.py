"""The stretch goal of exercise 2: dropout against overfitting."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import llama
import names
import peft
import training
from book_pages import figures
from exercises.stretch_goals import Goal, folded, pretrained, told
from experiments.claims import apart, better, undecided


RATES = (0.0, 0.1, 0.3, 0.5)


def trained(layer: type, rate: float, steps: int = 150, few: int = 150, lr: float = 5e-3,
            seed: int = 0) -> dict[str, Any]:
    """LoRA of rank 16 on every linear layer, on `few` names: loss on these and on new ones."""
    few_names = names.load_names("turkish", "train")[:few]
    new_names = names.load_names("turkish", "validation")
    model, rng, layers = pretrained(), np.random.default_rng(1 + seed), []
    for name, module in model.modules().items():
        if name.endswith(llama.PROJECTIONS):
            wrapped = peft.LoRALinear(module.weight, lora_rank=16, lora_alpha=32.0, rng=rng)
            wrapped.lora = layer(wrapped.in_features, wrapped.out_features, 16, 32.0, rate,
                                 dtype=np.float32, rng=rng)
            layers.append(wrapped.lora)
            model.replace(name, wrapped)
    curve = {"steps": [], "seen": [], "loss": []}

    def watch(event: training.Event) -> None:
        if event.step % (5 if event.step < 50 else 25) == 0:  # finely where the best one is
            for lora in layers:
                lora.training = False
            curve["steps"].append(event.step)
            curve["seen"].append(training.evaluate(model, few_names))
            curve["loss"].append(training.evaluate(model, new_names))
            for lora in layers:
                lora.training = True

    training.fit(model, names.batches(few_names, 32, np.random.default_rng(seed)), steps=steps,
                 lr=lr, callbacks=[watch])
    return curve | {"parameters": sum(a.size for a in model.parameters().values())}


GOAL = Goal("ex2", trained, {f"p = {rate:g}, {steps} steps": (rate, steps)
                             for steps in (150, 400) for rate in RATES}, rates=(5e-3,))
GOALS = (GOAL,)


def dropout_runs(layer: type, rates: Sequence[float] = RATES, few: int = 150, steps: int = 150,
                 seed: int = 0) -> dict[float, dict[str, list[float]]]:
    """The same training at some rates of dropout."""
    return {rate: trained(layer, rate, steps, few, seed=seed) for rate in rates}


def draw_dropout(runs: dict[float, dict[str, list[float]]]) -> None:
    """Left the losses on seen and new names over the steps, right the best and the last by rate."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.6, 1])
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(runs)))
    for (rate, run), color in zip(runs.items(), colors, strict=True):
        left.plot(run["steps"], run["loss"], color=color, label=f"p = {rate:g}")
        left.plot(run["steps"], run["seen"], color=color, ls="--", lw=1.2)
    for label, pick, marker in (("last step", lambda losses: losses[-1], "s"),
                                ("best step", min, "o")):
        right.plot(list(runs), [pick(run["loss"]) for run in runs.values()], marker + "-",
                   color=figures.INK, label=label, mfc="none" if marker == "s" else None)
    left.set(title="New names (solid), seen names (dashed)", xlabel="step",
             ylabel="loss (nats per character)")
    right.set(title="New names, by rate", xlabel="rate p", ylabel="loss", xticks=list(runs))
    for ax in (left, right):
        ax.legend()
        ax.grid(True, axis="y")
        ax.set_axisbelow(True)
    plt.show()


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    def pair(steps: int, key: str) -> tuple[dict, dict]:
        none, half = (GOAL.entry(f"p = {rate:g}, {steps} steps", key=key) for rate in (0.0, 0.5))
        return none, half

    last, best, late = pair(150, "loss"), pair(150, "best"), pair(400, "loss")
    gain = last[0]["best_test"] - last[1]["best_test"]
    small = best[0]["best_test"] - best[1]["best_test"]
    better(last[1], last[0]), better(late[1], late[0])
    better(last[0], late[0]), better(last[1], late[1])
    tenth = GOAL.entry("p = 0.1, 150 steps", key="best")
    return folded(
        f"The *last* loss on new names after 150 steps is {told(last[0])} without dropout and "
        f"{told(last[1])} at a rate of 0.5: {gain:.2f} nats gained. The *best* loss on the way is "
        f"{told(best[0])} and {told(best[1])}: {small:.2f} nats, {apart(*best[::-1]):.0f} standard "
        f"errors. At a rate of 0.1 the best is {told(tenth)}, {undecided(tenth, best[0]):.1f} "
        "standard errors from the one without, which does not decide. After 400 steps both are "
        f"worse than after 150, {told(late[0])} without and {told(late[1])} at 0.5. So here "
        "dropout delays overfitting and does not stop it: above all it insures whoever trains too "
        "long.",
        "What dropout brings at another learning rate (all ran at 0.005), at a lower rank, with "
        "more names or beside weight decay. And stopping at the best step takes names to look at, "
        "which the figure takes for granted.", opened)
