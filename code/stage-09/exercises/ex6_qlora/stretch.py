"""The stretch goal of exercise 6: what four bits cost the small Llama, and what LoRA repairs.

`quantized_losses` and `qlora_runs` take the student's work, `draw_qlora` makes the figure. Only the
seven projections of each layer are quantized, as usual; embeddings and norms stay as they are.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import llama
import names
import peft
import training
from book_pages import figures
from exercises.ex6_qlora.levels import NF4
from exercises.stretch_goals import Goal, folded, pretrained, told, train
from experiments.claims import apart, better, level, undecided


def _projections(model: llama.Llama) -> dict[str, Any]:
    return {name: module for name, module in model.modules().items()
            if name.endswith(llama.PROJECTIONS)}


EVEN = np.arange(-7, 8) / 7  # 15 levels, as zero shall be one; the sixteenth code is unused


def uniform(weight: np.ndarray, block: int) -> np.ndarray:
    """The weight on the levels of `EVEN`, blocks of this size: what NF4 is compared with."""
    flat = weight.ravel()
    out = np.empty_like(flat)
    for start in range(0, flat.size, block):
        part = flat[start:start + block]
        scale = np.abs(part).max() or 1.0
        out[start:start + block] = np.round(part / scale * 7) / 7 * scale
    return out.reshape(weight.shape)


def quantized_losses(quantize: Callable, dequantize: Callable, outlier: float = 1.0,
                     shuffle: int = 0) -> dict[str, float]:
    """Loss on the base task of the model as it is, and with its projections in four bits.

    With `outlier`, the largest weight of each matrix is multiplied by it first, in every model.
    With `shuffle`, a seed, weights are dealt to blocks in another order: the same quantization
    with other rounding errors, which shows how much of a difference is luck.
    """
    def nf4(block: int) -> Callable:
        return lambda W: dequantize(*quantize(W, block), W.shape, block)

    ways = {"full precision": lambda W: W, "NF4, blocks of 64": nf4(64),
            "NF4, per tensor": lambda W: nf4(W.size)(W),
            "even levels, blocks of 64": lambda W: uniform(W, 64),
            "even levels, per tensor": lambda W: uniform(W, W.size)}
    found, held_back = {}, names.load_names("base", "validation")[:1000]
    for way, change in ways.items():
        model, rng = pretrained(), np.random.default_rng(shuffle)
        for module in _projections(model).values():
            W = module.weight.copy()
            W.flat[np.abs(W).argmax()] *= outlier
            order = rng.permutation(W.size) if shuffle else np.arange(W.size)
            stored = np.empty_like(W)
            stored.flat[order] = change(W.ravel()[order].reshape(W.shape)).ravel()
            module.weight = stored
        found[way] = training.evaluate(model, held_back)
    return found


#: Where the trained update of a QLoRA layer goes.
BESIDE, IN_FULL = "LoRA beside the 4-bit weight", "merged into the dequantized weight"
UNROUNDED, AGAIN = "merged into the weight before rounding", "merged and quantized again"
LAYERS = {"LoRA, 32 bits": False, "QLoRA, 4 bits": True}


def trained(layer: type, four_bits: bool, lr: float, seed: int = 0, rank: int = 4, steps: int = 60
            ) -> dict[str, Any]:
    """LoRA on every projection beside full weights, or the student's layer beside 4-bit ones."""
    model, rng = pretrained(), np.random.default_rng(1 + seed)
    cls = layer if four_bits else peft.LoRALinear
    for name, module in _projections(model).items():
        model.replace(name, cls(module.weight, lora_rank=rank, lora_alpha=2.0 * rank, rng=rng))
    return train(model, lr, steps, every=steps // 6, seed=seed) | {"layers": _projections(model)}


def rounded(layer: type, outlier: float, lr: float, seed: int = 0) -> dict[str, Any]:
    """For the record: what four bits cost, with the solution's functions."""
    from exercises.ex6_qlora import solution

    found = quantized_losses(solution.quantize_nf4, solution.dequantize_nf4, outlier, seed)
    cost = {way: loss - found["full precision"] for way, loss in found.items()}
    return {"parameters": 0, "loss": [max(cost.values())], "more": cost}


GOAL = Goal("ex6", trained, {kind: (four,) for kind, four in LAYERS.items()},
            rates=(3e-3, 1e-2, 3e-2, 1e-1))
ROUNDED = Goal("ex6 rounded", rounded, {"as it is": (1.0,), "with outliers": (8.0,)}, rates=(0.0,),
               seeds=tuple(range(10)))


def merged(layer: type, lr: float, seed: int = 0) -> dict[str, Any]:
    """For the record: the trained update beside, and merged into, other weights than its own."""
    from exercises.ex6_qlora import solution

    run = trained(layer, True, lr, seed)
    return run | {"more": requantized({"QLoRA, 4 bits": run}, solution.quantize_nf4,
                                      solution.dequantize_nf4)}


MERGED = Goal("ex6 merged", merged, {"QLoRA, 4 bits": ()}, rates=(1e-2,), seeds=(0, 1, 2, 3, 4))
GOALS = (GOAL, ROUNDED, MERGED)


def qlora_runs(layer: type, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Both kinds of layer, each at the rate that was found best for it."""
    return GOAL.runs(layer, seed)


def requantized(runs: dict[str, dict[str, Any]], quantize: Callable, dequantize: Callable
                ) -> dict[str, float]:
    """Loss of the trained QLoRA model, with LoRA beside its weight or merged, in four ways."""
    new_names, kept = names.load_names("turkish", "validation"), runs["QLoRA, 4 bits"]["layers"]
    found = {BESIDE: runs["QLoRA, 4 bits"]["loss"][-1]}
    for label in (IN_FULL, UNROUNDED, AGAIN):
        model = pretrained()
        for name, module in _projections(model).items():
            layer = kept[name]
            # on the unit matrix a layer without bias shows its weight
            W = layer.forward(np.eye(module.weight.shape[1], dtype=np.float32)).T
            if label == UNROUNDED:  # alpha is twice the rank
                W = module.weight + 2.0 * layer.parameters()["B"] @ layer.parameters()["A"]
            W = np.ascontiguousarray(W)
            module.weight = dequantize(*quantize(W), W.shape) if label == AGAIN else W
        found[label] = training.evaluate(model, new_names)
    return found


def loss_in_merging(way: str) -> str:
    """What the record says that a way of merging costs, seed by seed, for a sentence."""
    costs = np.array([row[way] - row[BESIDE] for row in MERGED.rows("QLoRA, 4 bits")])
    error = costs.std(ddof=1) / np.sqrt(costs.size)
    return (f"{costs.mean():+.4f} ± {error:.4f} nats (mean and standard error of the difference, "
            f"{costs.size} seeds)").replace("-", "−")


def draw_qlora(losses: dict[str, dict[str, float]], runs: dict[str, dict[str, Any]]) -> None:
    """A weight's distribution over the levels; the cost of four bits; training beside them.

    Parameters
    ----------
    losses : by the names of two models, what `quantized_losses` gave for them
    """
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(10.4, 3.7),
                                              width_ratios=[1.1, 1.1, 1.1])
    blue, red = figures.COLORS["lora"], figures.COLORS["adapters"]
    W = pretrained().layers[1].mlp.up_proj.weight.ravel()
    blocks = W[:W.size // 64 * 64].reshape(-1, 64)
    left.hist((blocks / np.abs(blocks).max(axis=1, keepdims=True)).ravel(), 81, (-1, 1),
              color=blue, alpha=0.45, density=True)
    left.vlines(NF4, -0.14, -0.03, color=blue, lw=2, label="NF4")
    left.vlines(EVEN, -0.31, -0.2, color=red, lw=2, label="even")
    left.set(title="One weight matrix", xlabel="weight / absmax of its block", yticks=[])
    left.legend(loc="upper left", fontsize=9, handlelength=0.8)
    height = 0.8 / len(losses)
    for number, (label, found) in enumerate(losses.items()):
        cost = {way: loss - found["full precision"] for way, loss in found.items()
                if way != "full precision"}
        places = np.arange(len(cost)) + (number - (len(losses) - 1) / 2) * height
        bars = middle.barh(places, list(cost.values()), height, label=label,
                           color=[blue if "NF4" in way else red for way in cost],
                           alpha=1.0 if number == 0 else 0.45)
        middle.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    middle.set_yticks(range(len(cost)), [way.replace(", ", ",\n") for way in cost], fontsize=8.5)
    middle.set(title="Loss added by 4 bits", xlabel="nats per character, base task", xscale="log",
               xlim=(4e-3, 15))
    for number, label in enumerate(losses):
        middle.text(0.99, 0.93 - 0.08 * number, f"{('full colour', 'pale')[number]}: {label}",
                    transform=middle.transAxes, ha="right", fontsize=8.5)
    middle.invert_yaxis()
    for (kind, run), color in zip(runs.items(), (figures.GREY, blue), strict=True):
        right.plot(run["steps"], run["loss"], color=color, label=kind,
                   ls="--" if color == blue else "-", lw=3 if color == blue else 2)
    right.set(title="Fine-tuning on Turkish", xlabel="step", ylabel="loss on new names")
    right.legend()
    right.grid(True)
    plt.show()


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    def cost(setting: str, way: str) -> dict[str, Any]:
        return ROUNDED.entry(setting, key=way)

    nf4, even = "NF4, blocks of 64", "even levels, blocks of 64"
    plain, rough = ([cost(setting, way) for way in (nf4, even)] for setting in ROUNDED.settings)
    whole = [cost("with outliers", way) for way in ("NF4, per tensor", "even levels, per tensor")]
    better(*plain)
    ahead = sum(row[even] < row[nf4] for row in ROUNDED.rows("with outliers"))
    undecided(*rough)
    lora, qlora = (GOAL.entry(kind) for kind in GOAL.settings)
    tie = level(lora, qlora)
    return folded(
        f"Four bits cost this model about a hundredth of a nat. Which weights share a block is an "
        f"accident, so we dealt them out {len(ROUNDED.seeds)} times: in blocks of 64 NF4 costs "
        f"{told(plain[0])} and even levels ({len(EVEN)} of them, zero is one) {told(plain[1])}, "
        f"{apart(*plain):.0f} standard errors apart. One large weight per matrix ruins a scale "
        f"for the whole tensor: {whole[0]['best_test']:.2f} with NF4, "
        f"{whole[1]['best_test']:.2f} with even levels: nearly all weights fall on the few levels "
        "around zero. In blocks of 64 the damage stays "
        f"in one block: {told(rough[0])} with NF4, {told(rough[1])} with even levels. Which of the "
        f"two is ahead there these draws do not decide: the means are {apart(*rough):.1f} standard "
        f"errors apart, and in {ahead} of the {len(ROUNDED.seeds)} draws even levels cost less."
        f"\n\nFine-tuning does not mind the four bits: {told(lora)} "
        f"beside full weights, {told(qlora)} beside NF4, {tie:.1f} standard errors apart, each at "
        "its best of four rates.",
        "What four bits cost a large model, whose weights have outliers that training put there; "
        "ours were made by hand. The deviations of the costs are over draws of the blocks, those "
        "of fine-tuning over seeds, and all of it is one pretrained model.", opened)
