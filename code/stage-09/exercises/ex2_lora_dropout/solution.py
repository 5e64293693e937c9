"""Exercise 2, reference solution: LoRA with dropout on the update's input."""

from typing import Any

import numpy as np

import peft
from validation import check_shape


def check_rate(rate: float) -> float:
    """A probability to drop, 0 <= rate < 1. ValueError or TypeError."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise TypeError(f"dropout must be a number, got {rate!r}; pass for example dropout=0.1")
    if not 0 <= rate < 1:  # false for NaN too
        raise ValueError(f"dropout must be at least 0 and below 1, got {rate}")
    return float(rate)


class LoRADropoutLayer(peft.LoRALayer):
    """h = x W^T + s (x~ A^T) B^T, where x~ = x * M / (1 - p) in training and x otherwise.

    Parameters
    ----------
    dropout : float, probability p that an entry of the update's input is set to zero
    in_features, out_features, rank, alpha, dtype, rng : see peft.LoRALayer; the masks come from
        `rng` as well

    Attributes
    ----------
    training : bool, False switches dropout off

    Source: the `lora_dropout` of Hugging Face PEFT and of Microsoft's loralib.
    """

    def __init__(self, in_features: int, out_features: int, rank: int = 8, alpha: float = 16.0,
                 dropout: float = 0.1, *, dtype: Any = np.float32,
                 rng: np.random.Generator | None = None):
        self.dropout = check_rate(dropout)
        self.rng = np.random.default_rng(rng)  # one stream: first A, then the masks
        super().__init__(in_features, out_features, rank, alpha, dtype=dtype, rng=self.rng)
        self.training = True

    def forward(self, x: np.ndarray, W: np.ndarray) -> np.ndarray:
        """x (..., in), W (out, in) -> (..., out)."""
        check_shape("x", x, (..., self.in_features))
        check_shape("W", W, (self.out_features, self.in_features))
        mask = None
        dropped = x
        if self.training and self.dropout:
            kept = self.rng.random(x.shape) >= self.dropout  # (..., in)
            mask = kept.astype(x.dtype) / x.dtype.type(1 - self.dropout)  # M / (1 - p)
            dropped = x * mask  # (..., in)
        rows = dropped.reshape(-1, self.in_features)  # (n, in)
        Ax = rows @ self.A.T  # (n, rank)
        update = (self.scaling * Ax) @ self.B.T  # (n, out)
        self.cache = {"x": rows, "W": W, "Ax": Ax, "mask": mask, "shape": x.shape}
        return x @ W.T + update.reshape(*x.shape[:-1], self.out_features)  # (..., out)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """grad_output (..., out) -> (..., in), with the mask that forward used."""
        rows = self._remembered()  # (n, in): masked, if forward masked
        W, Ax, mask, shape = (self.cache[key] for key in ("W", "Ax", "mask", "shape"))
        check_shape("grad_output", grad_output, (*shape[:-1], self.out_features))
        G = grad_output.reshape(-1, self.out_features)  # (n, out)
        self.B_grad = G.T @ (self.scaling * Ax)  # (out, rank)
        GB = self.scaling * (G @ self.B)  # (n, rank)
        self.A_grad = GB.T @ rows  # (rank, in)
        through_update = (GB @ self.A).reshape(shape)  # (..., in)
        if mask is not None:
            through_update = through_update * mask  # what was dropped hears nothing
        return grad_output @ W + through_update  # (..., in)
