"""The stretch goal of exercise 1: the same budget, in attention or in the feed-forward block."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import llama
import peft
from book_pages import figures
from exercises.stretch_goals import WithBlocks, pretrained, train


def feed_forward_runs(block: type, attention_ranks=(1, 4, 8, 20), ranks=(1, 2, 4, 8)
                      ) -> dict[str, list[dict[str, Any]]]:
    """LoRA on q and v at some ranks, and the student's block at others; alpha is twice the rank."""
    def attention(rank: int) -> llama.Llama:
        model, rng = pretrained(), np.random.default_rng(1)
        for layer in model.layers:
            for name in ("q_proj", "v_proj"):
                weight = getattr(layer.self_attn, name).weight
                setattr(layer.self_attn, name, peft.LoRALinear(
                    weight, lora_rank=rank, lora_alpha=2.0 * rank, rng=rng))
        return model

    def feed_forward(rank: int) -> WithBlocks:
        rng = np.random.default_rng(1)
        return WithBlocks(lambda mlp: block(
            mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, rank, 2.0 * rank,
            rng=rng))

    return {"attention (q, v)": [train(attention(r)) | {"rank": r} for r in attention_ranks],
            "feed-forward": [train(feed_forward(r)) | {"rank": r} for r in ranks]}


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
