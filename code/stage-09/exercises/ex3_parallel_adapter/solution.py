"""Exercise 3, reference solution: an adapter beside its sublayer instead of after it."""

from typing import Any

import numpy as np

import peft
from validation import check_count, check_dtype, check_positive, check_shape


class ParallelAdapter(peft.Method):
    """y = f(x) + c relu(x W_down) W_up: the frozen sublayer f and a bottleneck on the same input.

    Parameters
    ----------
    sublayer : frozen, with forward(x) and backward(g)
    d_model, bottleneck_dim : int, widths of x and of the middle
    scale : float, c, finite and positive
    dtype, rng : see peft.LoRALayer

    Attributes
    ----------
    W_down : (d_model, m), small Gaussian; W_up : (m, d_model), zero at the start

    Source: He et al., arXiv 2110.04366.
    """

    trainable = ("W_down", "W_up")

    def __init__(self, sublayer: Any, d_model: int, bottleneck_dim: int = 64, scale: float = 4.0, *,
                 dtype: Any = np.float32, rng: np.random.Generator | None = None):
        for name in ("forward", "backward"):
            if not callable(getattr(sublayer, name, None)):
                raise TypeError(f"sublayer must have forward and backward, got {sublayer!r}")
        self.sublayer, self.d_model = sublayer, check_count("d_model", d_model)
        m = check_count("bottleneck_dim", bottleneck_dim)
        self.scale, dtype = check_positive("scale", scale), check_dtype(dtype)
        start = np.random.default_rng(rng).standard_normal((self.d_model, m))
        self.W_down = (peft.INIT_STD * start).astype(dtype)  # (d_model, m)
        self.W_up = np.zeros((m, self.d_model), dtype)  # (m, d_model): the start is f alone
        self.W_down_grad = self.W_up_grad = None
        self.cache = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        check_shape("x", x, (..., self.d_model))
        a = np.maximum(x @ self.W_down, 0)  # (..., m): reads what the sublayer reads
        self.cache = {"x": x, "a": a}
        return self.sublayer.forward(x) + self.scale * (a @ self.W_up)  # (..., d_model), no "x +"

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model): back through the sublayer and through the adapter."""
        x, a = self._remembered(), self.cache["a"]
        check_shape("grad_output", grad_output, x.shape)
        G = grad_output.reshape(-1, self.d_model)  # (n, d_model)
        rows, a = x.reshape(-1, self.d_model), a.reshape(-1, a.shape[-1])  # (n, d_model), (n, m)
        self.W_up_grad = self.scale * (a.T @ G)  # (m, d_model)
        D = self.scale * (G @ self.W_up.T) * (a > 0)  # (n, m): zero at first, since W_up is
        self.W_down_grad = rows.T @ D  # (d_model, m)
        through_adapter = (D @ self.W_down.T).reshape(x.shape)  # (..., d_model)
        return self.sublayer.backward(grad_output) + through_adapter
