"""The stretch goal of exercise 4: a prefix trained through the MLP against one trained directly.

`prefix_runs` takes the student's class and trains the small Llama on Turkish names, a few seconds
for each run; `draw_prefix` makes the figure.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import peft
from book_pages import figures
from exercises.stretch_goals import Goal, folded, pretrained, told, train
from experiments.claims import CLEAR, apart, better


class ThroughMLP(peft.PrefixTuning):
    """A prefix for the Llama's slot whose numbers an MLP makes: the MLP's arrays are what trains.

    Parameters
    ----------
    mlp : with forward() -> (L, 2, P, H, dh), backward, parameters, gradients
    """

    def __init__(self, mlp: Any):
        made = mlp.forward()
        layers, _, P, heads, d_head = made.shape
        super().__init__(layers, heads, d_head, P, dtype=made.dtype)
        self.mlp = mlp

    def forward(self, keys: np.ndarray, values: np.ndarray, layer_idx: int) -> tuple:
        if layer_idx == 0:  # the first layer to ask: the optimizer has moved since
            self.prefix[...] = self.mlp.forward()
        return super().forward(keys, values, layer_idx)

    def backward(self, grad_keys: np.ndarray, grad_values: np.ndarray, layer_idx: int) -> tuple:
        grads = super().backward(grad_keys, grad_values, layer_idx)
        if layer_idx == 0:  # the last one to answer: the prefix's gradient is complete
            self.mlp.backward(self.prefix_grad)
        return grads

    def parameters(self) -> dict[str, np.ndarray]:
        return self.mlp.parameters()

    def gradients(self) -> dict[str, np.ndarray]:
        return self.mlp.gradients()


def without_tanh(mlp: type) -> type:
    """The same class with a linear hidden layer: what is left of its effect?"""
    class WithoutTanh(mlp):
        def forward(self) -> np.ndarray:
            self.hidden = self.E @ self.W1.T + self.b1  # (P, k)
            F = self.hidden @ self.W2.T + self.b2  # (P, 2 L H dh)
            F = F.reshape(self.prefix_length, self.num_layers, 2, self.num_heads, self.d_head)
            return F.transpose(1, 2, 0, 3, 4).copy()  # (L, 2, P, H, dh)

        def backward(self, grad_prefix: np.ndarray) -> None:
            Q = grad_prefix.transpose(2, 0, 1, 3, 4).reshape(self.prefix_length, -1)
            self.W2_grad, self.b2_grad = Q.T @ self.hidden, Q.sum(axis=0)
            R = Q @ self.W2  # (P, k)
            self.W1_grad, self.b1_grad, self.E_grad = R.T @ self.E, R.sum(axis=0), R @ self.W1

    return WithoutTanh


KINDS = ("direct", "through the MLP")
#: For the record: from the one to the other, one change at a time.
BETWEEN = ("direct, from the MLP's start", "through the MLP, without tanh")
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)


def trained(mlp: type, kind: str, lr: float, seed: int = 0, prefix_length: int = 10,
            steps: int = 60) -> dict[str, Any]:
    """A prefix that trains directly, or through the student's MLP (64 and 128 wide)."""
    model, rng = pretrained(), np.random.default_rng(1 + seed)
    shape = (len(model.layers), model.config.num_key_value_heads, model.config.head_dim,
             prefix_length)
    if kind == "direct":
        model.kv_prefix = peft.PrefixTuning(*shape, rng=rng)
    else:
        cls = without_tanh(mlp) if "without" in kind else mlp
        model.kv_prefix = ThroughMLP(cls(*shape, embed_dim=64, hidden_dim=128, rng=rng))
    if "start" in kind:
        started, model.kv_prefix = model.kv_prefix, peft.PrefixTuning(*shape, rng=rng)
        model.kv_prefix.prefix[...] = started.mlp.forward()
    return train(model, lr, steps, every=steps // 6, seed=seed)


GOAL = Goal("ex4", trained, {kind: (kind,) for kind in KINDS + BETWEEN}, RATES, all_rates=True)
GOALS = (GOAL,)


def prefix_runs(mlp: type, rates: Sequence[float] = RATES[:-1], prefix_length: int = 10,
                steps: int = 60, seed: int = 0) -> dict[str, dict[float, dict[str, Any]]]:
    """One run per learning rate, direct and through the student's MLP."""
    return {kind: {rate: trained(mlp, kind, rate, seed, prefix_length, steps) for rate in rates}
            for kind in KINDS}


def closing(opened: bool = False) -> Markdown:
    """What the record says, held against its seeds."""
    own = {kind: GOAL.entry(kind) for kind in KINDS + BETWEEN}
    assert not GOAL.at_edge(own[kind] for kind in KINDS)
    slow = {kind: GOAL.entry(kind, RATES[0]) for kind in own}
    fast = {kind: GOAL.entry(kind, 0.1) for kind in own}
    direct, mlp, started, linear = KINDS + BETWEEN
    better(slow[mlp], slow[direct]), better(slow[linear], slow[started])
    better(fast[mlp], fast[linear])
    gap = apart(own[mlp], own[direct])
    assert abs(gap) < CLEAR

    def works(kind: str) -> str:
        """The rates that come within 0.1 nats of the best."""
        found = [rate for rate in RATES
                 if GOAL.entry(kind, rate)["best_test"] < own[kind]["best_test"] + 0.1]
        return f"from {found[0]:g} to {found[-1]:g}"

    low = f"{RATES[0]:g}"
    return folded(
        f"The best losses are close: {told(own[direct])} directly (rate {own[direct]['lr']:g}), "
        f"{told(own[mlp])} through the MLP (rate {own[mlp]['lr']:g}), {gap:.1f} standard errors "
        f"apart. What differs is *where* the good rates lie. Within 0.1 nats of its best the "
        f"direct prefix works {works(direct)}, the MLP {works(mlp)}. (The record has {len(RATES)} "
        f"rates, up to {RATES[-1]:g}; the figure stops at {RATES[-2]:g}.) At {low} the one is at "
        f"{told(slow[direct])}, hardly begun, and the other at {told(slow[mlp])}.\n\n"
        f"Why? Two runs change one thing each. *The start*: a direct prefix that begins with the "
        f"MLP's numbers reaches {told(own[started])}, but at {low} it is still at "
        f"{told(slow[started])}, so the start is not what makes small rates work. *The tanh*: "
        f"without it the MLP has {told(slow[linear])} at {low}, so it isn't the tanh either; but "
        f"at 0.1 it has {told(fast[linear])} where the tanh has {told(fast[mlp])}. The "
        "tanh keeps larger rates from breaking it. What is left for the small rates is the detour "
        "itself, many weights that move one prefix together. That is a guess: no run here changes "
        "how many they are.",
        "That an MLP makes training *more stable*: each range goes on to an end of our sweep, so "
        "which one is wider stays open. Nor anything about training for longer than 60 steps, or "
        "about prefixes of other lengths than 10.", opened)


def draw_prefix(runs: dict[str, dict[float, dict[str, Any]]]) -> None:
    """Left the last loss by learning rate, right the curves of each kind's best run."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.2, 1])
    styles = ((figures.GREY, "s"), (figures.COLORS["prefix"], "o"))
    for (kind, found), (color, marker) in zip(runs.items(), styles, strict=True):
        losses = {rate: run["loss"][-1] for rate, run in found.items()}
        left.semilogx(list(losses), list(losses.values()), marker + "-", color=color, label=kind)
        best = min(losses, key=losses.get)
        count = found[best]["parameters"]
        right.plot(found[best]["steps"], found[best]["loss"], color=color,
                   label=f"{kind}, rate {best:g}\n{count:,} trained")
    left.set(title="Loss at the end, by learning rate", xlabel="learning rate",
             ylabel="loss on new names (nats per character)")
    right.set(title="The best run of each", xlabel="step")
    for ax in (left, right):
        ax.legend()
        ax.grid(True)
    plt.show()
