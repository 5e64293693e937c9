"""The stretch goal of exercise 3: after the sublayer, or beside it."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import peft
from book_pages import figures
from exercises.stretch_goals import Goal, WithBlocks, folded, pretrained, told, train
from experiments import small_llama
from experiments.claims import CLEAR, apart, better, recorded, undecided


BOTTLENECK, SCALES = 16, (1.0, 4.0, 16.0)


def trained(adapter: type, scale: float | None, zero: bool = False, *, lr: float, seed: int = 0
            ) -> dict[str, Any]:
    """A sequential adapter after every MLP, `zero` at first or not, or the student's beside."""
    model, rng = pretrained(), np.random.default_rng(1 + seed)
    width = model.config.hidden_size
    if scale is not None:
        model = WithBlocks(lambda mlp: adapter(mlp, width, BOTTLENECK, scale, rng=rng))
    else:
        for layer in model.layers:
            layer.after_mlp = peft.Adapter(width, BOTTLENECK, rng=rng)
            if zero:
                layer.after_mlp.W_up[...] = 0.0
    return train(model, lr, seed=seed)


GOAL = Goal("ex3", trained, {"sequential": (None,),
                             **{f"parallel, scale {scale:g}": (scale,) for scale in SCALES},
                             "sequential, W_up zero": (None, True)},  # as the parallel ones start
            rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1), all_rates=True)
GOALS = (GOAL,)


def adapter_runs(adapter: type, scales: Sequence[float] = SCALES, lr: float = 3e-3, seed: int = 0
                 ) -> dict[str, dict[str, Any]]:
    """Both places, all at one rate."""
    return {"sequential": trained(adapter, None, lr=lr, seed=seed),
            **{f"parallel, scale {scale:g}": trained(adapter, scale, lr=lr, seed=seed)
               for scale in scales}}


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    behind, one, four, most, zero = GOAL.settings
    shared = {name: GOAL.entry(name, 3e-3) for name in GOAL.settings}
    own = {name: GOAL.entry(name) for name in GOAL.settings}
    for entries in (shared, own):  # the place
        better(entries[one], entries[behind])
    better(shared[four], shared[one]), better(shared[most], shared[four])  # the scale
    scale = abs(apart(own[most], own[one]))
    assert scale < CLEAR and own[most]["lr"] < own[one]["lr"] and not GOAL.at_edge(own.values())
    gained = ", ".join(f"{shared[name]['best_test']:.3f}" for name in (behind, one, four, most))
    place, equal = apart(own[one], own[behind]), better(own[one], own[zero])
    alike = abs(undecided(own[zero], own[behind]))
    longer = [recorded().own(method, BOTTLENECK, "turkish") for method in ("parallel", "pfeiffer")]
    at_own = {name: f"{told(entry)} (rate {entry['lr']:g})" for name, entry in own.items()}
    return folded(
        f"At the rate of 0.003 beside beats behind, and the larger the scale the better: "
        f"{gained} from the sequential adapter to scale 16. Now give each the best of "
        f"{len(GOAL.rates)} rates: {at_own[behind]} behind, {at_own[one]} beside at scale "
        f"1, {at_own[four]} at scale 4, {at_own[most]} at scale 16. Beside, at scale 1, is still "
        f"ahead, {place:.0f} standard errors. It starts with W_up at zero, though, and the other "
        f"one with a small random W_up. With zero behind as well it ends at {at_own[zero]}: "
        f"{alike:.1f} standard errors from the random start, which does not decide, and "
        f"{equal:.1f} behind the one beside. So the place counts with equal starts, too. The scale "
        f"no longer does: 1 and 16 are {scale:.1f} standard errors apart, and the large one has "
        "the smaller rate. It had done the work of a larger learning rate.\n\nDoes the place "
        "still count when each has been trained to its best? [Section "
        "9.7](../07-fine-tuning-a-real-model.ipynb) gives both a bottleneck of "
        f"{BOTTLENECK}, too, the parallel one at scale 4, a rate of its own and "
        f"{small_llama.STEPS} steps, of which the one with the lowest "
        f"validation loss counts. Its loss on test names: {told(longer[0])} beside and "
        f"{told(longer[1])} behind, {longer[0]['seeds']} seeds, "
        f"{undecided(*longer):.1f} standard errors apart. So there Turkish does not decide it.",
        "Which place is better in other models: the difference here is a few hundredths of a nat. "
        "Nor that the rates are the best there are; they are a factor of three apart. But whoever "
        "compares two methods at one learning rate compares their learning rates.", opened)


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
