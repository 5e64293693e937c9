"""The stretch goals of exercises 1 to 3: train the small Llama with a student's work, and draw it.

Each `..._runs` function takes the student's class, trains on Turkish names for about a hundred
steps at a time (a few seconds each), and returns the curves; each `draw_...` makes the figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import figures
import llama
import names
import peft
import settings
import training

BASE = Path(__file__).parent / "data" / "base"


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


# ---- Exercise 1: the same budget, in attention or in the feed-forward block --------------------

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


# ---- Exercise 2: dropout against overfitting --------------------------------------------------

def dropout_runs(layer: type, rates=(0.0, 0.1, 0.3, 0.5), few: int = 150, steps: int = 150
                 ) -> dict[float, dict[str, list[float]]]:
    """LoRA of rank 16 on every linear layer, on `few` names: loss on these and on new ones."""
    few_names = names.load_names("turkish", "train")[:few]
    new_names = names.load_names("turkish", "validation")
    runs = {}
    for rate in rates:
        model, rng, layers = pretrained(), np.random.default_rng(1), []
        for name, module in model.modules().items():
            if name.endswith(llama.PROJECTIONS):
                wrapped = peft.LoRALinear(module.weight, lora_rank=16, lora_alpha=32.0, rng=rng)
                wrapped.lora = layer(wrapped.in_features, wrapped.out_features, 16, 32.0, rate,
                                     dtype=np.float32, rng=rng)
                layers.append(wrapped.lora)
                model.replace(name, wrapped)
        curve = {"steps": [], "seen": [], "new": []}

        def watch(event, model=model, layers=layers, curve=curve):
            if event.step % (5 if event.step < 50 else 25) == 0:  # finely where the best one is
                for lora in layers:
                    lora.training = False
                curve["steps"].append(event.step)
                curve["seen"].append(training.evaluate(model, few_names))
                curve["new"].append(training.evaluate(model, new_names))
                for lora in layers:
                    lora.training = True

        training.fit(model, names.batches(few_names, 32, np.random.default_rng(0)), steps=steps,
                     lr=5e-3, callbacks=[watch])
        runs[rate] = curve
    return runs


def draw_dropout(runs: dict[float, dict[str, list[float]]]) -> None:
    """Left the losses on seen and new names over the steps, right their gap by rate."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.6, 1])
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(runs)))
    for (rate, run), color in zip(runs.items(), colors, strict=True):
        left.plot(run["steps"], run["new"], color=color, label=f"p = {rate:g}")
        left.plot(run["steps"], run["seen"], color=color, ls="--", lw=1.2)
        right.bar(f"{rate:g}", run["new"][-1] - min(run["new"]), color=color)
    left.set(title="New names (solid), seen names (dashed)", xlabel="step",
             ylabel="loss (nats per character)")
    left.legend()
    right.set(title="What overfitting cost", xlabel="rate p",
              ylabel="last loss − best loss, new names")
    for ax in (left, right):
        ax.grid(True, axis="y")
        ax.set_axisbelow(True)
    plt.show()


# ---- Exercise 3: after the sublayer, or beside it ---------------------------------------------

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
