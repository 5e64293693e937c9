"""The stretch goal of exercise 5: LoRA, a soft prompt, and both at once in the small Llama.

The student writes `combine`, which plugs both into the model; `combined_runs` trains it beside the
two plain methods, a few seconds for each run, and `draw_combined` makes the figure.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import llama
import peft
from book_pages import figures
from exercises.stretch_goals import Goal, folded, pretrained, told, train
from experiments.claims import CLEAR, apart, better


def with_lora(model: llama.Llama, rank: int, rng: np.random.Generator) -> llama.Llama:
    """LoRA on q and v of every layer; alpha is twice the rank."""
    for layer in model.layers:
        for name in ("q_proj", "v_proj"):
            weight = getattr(layer.self_attn, name).weight
            setattr(layer.self_attn, name, peft.LoRALinear(weight, lora_rank=rank,
                                                           lora_alpha=2.0 * rank, rng=rng))
    return model


def with_prompt(model: llama.Llama, length: int, rng: np.random.Generator) -> llama.Llama:
    """A soft prompt that starts as copies of letters' embeddings."""
    model.soft_prompt = peft.PromptTuning(model.config.hidden_size, length,
                                          model.embed_tokens.weight, rng=rng)
    return model


RANK, LENGTH = 4, 24
#: A rank takes as many numbers as 12 virtual tokens here, so the last two are of equal size.
SETTINGS = {f"LoRA, r = {RANK}": (RANK, 0), f"prompt, P = {LENGTH}": (0, LENGTH),
            "both": (RANK, LENGTH), f"LoRA, r = {RANK + 2}": (RANK + 2, 0)}


def trained(combine: Callable | None, rank: int, length: int, lr: float, seed: int = 0,
            steps: int = 60) -> dict[str, Any]:
    """LoRA, a prompt, or both as the student's `combine` puts them in (or one after the other)."""
    model, rng = pretrained(), np.random.default_rng(1 + seed)
    if combine and rank and length:
        model = checked(combine(model, rank, length, rng))
    else:
        model = with_lora(model, rank, rng) if rank else model
        model = with_prompt(model, length, rng) if length else model
    return train(model, lr, steps, every=steps // 6, seed=seed)


def checked(model: Any) -> llama.Llama:
    """What `combine` returned, if it has everything plugged in."""
    if model is None:
        raise NotImplementedError("combine has to return the model")
    lacking = [f"layer {i}: {name}" for i, layer in enumerate(model.layers)
               for name in ("q_proj", "v_proj")
               if not isinstance(getattr(layer.self_attn, name), peft.LoRALinear)]
    lacking += ["the soft prompt"] * (model.soft_prompt is None)
    if lacking:
        raise ValueError(f"combine has to plug in LoRA on q and v of each layer, and the prompt; "
                         f"missing: {', '.join(lacking)}")
    return model


GOAL = Goal("ex5", trained, SETTINGS, rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
            all_rates=True)
GOALS = (GOAL,)


def combined_runs(combine: Callable, lr: float | None = None, steps: int = 60, seed: int = 0
                  ) -> dict[str, dict[str, Any]]:
    """Each alone, both, and LoRA alone of the size of both; at their own rates, or all at one."""
    order = sorted(SETTINGS.items(), key=lambda item: item[0] != "both")  # its mistakes first
    runs = {name: trained(combine, *setting, lr=lr or GOAL.rate(name), seed=seed, steps=steps)
            for name, setting in order}
    return {name: runs[name] for name in SETTINGS}


def draw_combined(runs: dict[str, dict[str, Any]]) -> None:
    """Left the losses over the steps, right where they end against the parameters."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.3, 1])
    blue, pink = figures.COLORS["lora"], figures.COLORS["prompt"]
    styles = ((blue, "-"), (pink, "-"), (figures.INK, "-"), (blue, "--"))
    places = ((-6, 6, "right"), (8, -3, "left"), (0, 9, "center"), (4, -15, "center"))
    for (name, run), (color, line), (x, y, side) in zip(runs.items(), styles, places, strict=True):
        left.plot(run["steps"], run["loss"], line, color=color, label=name)
        right.plot(run["parameters"], run["loss"][-1], "o" if line == "-" else "D", color=color)
        right.annotate(name, (run["parameters"], run["loss"][-1]), xytext=(x, y), ha=side,
                       textcoords="offset points", fontsize=8.5, color=color)
    left.set(title="On the way", xlabel="step", ylabel="loss on new names (nats per character)")
    left.legend()
    right.set(title=f"After {run['steps'][-1]} steps", xlabel="trainable parameters")
    right.margins(x=0.35, y=0.12)
    for ax in (left, right):
        ax.grid(True)
    plt.show()


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    lora, prompt, both, larger = (GOAL.entry(name) for name in GOAL.settings)
    assert both["parameters"] == larger["parameters"]
    better(lora, prompt), better(both, prompt)
    gap, start = apart(larger, both), GOAL.rows("both")[0]["first"]
    spoiled = GOAL.entry("both", prompt["lr"])
    better(both, spoiled)
    assert abs(gap) < CLEAR and abs(apart(lora, both)) < CLEAR
    return folded(
        f"No, here the whole is not more than its parts. At its own rate LoRA of rank {RANK} "
        f"reaches {told(lora)} and the prompt {told(prompt)}. Both together reach {told(both)}, "
        f"{abs(apart(lora, both)):.1f} standard errors from LoRA alone, and LoRA of the same size "
        f"reaches {told(larger)}, {abs(gap):.1f} standard errors from both. The seeds' "
        f"deviation is as large.\n\nTwo things may stand in the way. A prompt doesn't start at the "
        f"pretrained model: {LENGTH} letters that belong to no name stand in front of every name, "
        f"and the loss is {start:.2f} before the first step, where LoRA begins at "
        f"{GOAL.rows(f'LoRA, r = {RANK}')[0]['first']:.2f}. And the two want different rates, "
        f"{lora['lr']:g} and {prompt['lr']:g}: at the prompt's rate both end at {told(spoiled)}.",
        "That combining is useless. An optimizer with a rate for each was not tried, nor longer "
        "training, nor a task in which the prompt has something to say that LoRA can't learn. On "
        "GPT-3 the combination helped on one task of two, see the solution.", opened)
