"""The stretch goal of exercise 5: LoRA, a soft prompt, and both at once in the small Llama.

The student writes `combine`, which plugs both into the model; `combined_runs` trains it beside the
two plain methods, a few seconds for each run, and `draw_combined` makes the figure.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import llama
import peft
from book_pages import figures
from exercises.stretch_goals import pretrained, train


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


def combined_runs(combine: Callable, rank: int = 4, length: int = 20, lr: float = 3e-2,
                  steps: int = 60) -> dict[str, dict[str, Any]]:
    """Each alone, both, and LoRA alone with as many parameters as both have together."""
    def fresh() -> tuple[llama.Llama, np.random.Generator]:
        return pretrained(), np.random.default_rng(1)

    model, rng = fresh()
    both = combine(model, rank, length, rng)
    if both is None:
        raise NotImplementedError("combine has to return the model")
    lacking = [f"layer {i}: {name}" for i, layer in enumerate(both.layers)
               for name in ("q_proj", "v_proj")
               if not isinstance(getattr(layer.self_attn, name), peft.LoRALinear)]
    lacking += ["the soft prompt"] * (both.soft_prompt is None)
    if lacking:
        raise ValueError(f"combine has to plug in LoRA on q and v of each layer, and the prompt; "
                         f"missing: {', '.join(lacking)}")
    count = sum(array.size for array in both.parameters().values())
    model, rng = fresh()
    per_rank = sum(a.size for a in with_lora(model, 1, rng).parameters().values())
    models = {f"LoRA, r = {rank}": with_lora(*_of(fresh(), rank)),
              f"prompt, P = {length}": with_prompt(*_of(fresh(), length)),
              "both": both,
              f"LoRA, r = {count // per_rank}": with_lora(*_of(fresh(), count // per_rank))}
    return {name: train(model, lr, steps, every=steps // 6) for name, model in models.items()}


def _of(fresh: tuple, size: int) -> tuple:
    model, rng = fresh
    return model, size, rng


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
