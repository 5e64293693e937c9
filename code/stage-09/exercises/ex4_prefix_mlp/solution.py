"""Exercise 4, reference solution: the prefix of prefix tuning, made by a small MLP.

Names as on the page: P virtual tokens, e and k the widths of embedding and hidden layer, F the
MLP's output, of width 2 L H dh.
"""

from typing import Any

import numpy as np

import peft
from validation import check_count, check_dtype, check_shape


class PrefixMLP(peft.Method):
    """prefix = rearranged(tanh(E W1^T + b1) W2^T + b2), all five arrays trainable.

    Parameters
    ----------
    num_layers, num_heads, d_head, prefix_length : see peft.PrefixTuning
    embed_dim, hidden_dim : int, widths e and k
    dtype, rng : see peft.LoRALayer

    Attributes
    ----------
    E : (P, e), W1 : (k, e), b1 : (k,), W2 : (2 L H dh, k), b2 : (2 L H dh,)

    Source: Li and Liang, arXiv 2101.00190, who train the prefix through an MLP for stability.
    """

    trainable = ("E", "W1", "b1", "W2", "b2")

    def __init__(self, num_layers: int, num_heads: int, d_head: int, prefix_length: int = 10,
                 embed_dim: int = 64, hidden_dim: int = 512, *, dtype: Any = np.float32,
                 rng: np.random.Generator | None = None):
        self.num_layers = check_count("num_layers", num_layers)
        self.num_heads = check_count("num_heads", num_heads)
        self.d_head = check_count("d_head", d_head)
        self.prefix_length = P = check_count("prefix_length", prefix_length)
        e, k = check_count("embed_dim", embed_dim), check_count("hidden_dim", hidden_dim)
        dtype, rng = check_dtype(dtype), np.random.default_rng(rng)
        width = 2 * num_layers * num_heads * d_head

        def normal(*shape: int) -> np.ndarray:  # variance 1 / fan-in: outputs as large as inputs
            return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)

        self.E = rng.standard_normal((P, e)).astype(dtype)  # (P, e)
        self.W1, self.b1 = normal(k, e), np.zeros(k, dtype)  # (k, e), (k,)
        self.W2, self.b2 = normal(width, k), np.zeros(width, dtype)  # (2LHdh, k), (2LHdh,)
        self.E_grad = self.W1_grad = self.b1_grad = self.W2_grad = self.b2_grad = None
        self.cache = {}

    def forward(self) -> np.ndarray:
        """-> prefix (L, 2, P, H, dh)."""
        T = np.tanh(self.E @ self.W1.T + self.b1)  # (P, k)
        F = T @ self.W2.T + self.b2  # (P, 2 L H dh)
        self.cache = {"x": T}
        F = F.reshape(self.prefix_length, self.num_layers, 2, self.num_heads, self.d_head)
        return F.transpose(1, 2, 0, 3, 4).copy()  # (L, 2, P, H, dh)

    def backward(self, grad_prefix: np.ndarray) -> None:
        """dLoss/dprefix (L, 2, P, H, dh), already summed over the batch."""
        T, P = self._remembered(), self.prefix_length
        check_shape("grad_prefix", grad_prefix,
                    (self.num_layers, 2, P, self.num_heads, self.d_head))
        Q = grad_prefix.transpose(2, 0, 1, 3, 4).reshape(P, -1)  # (P, 2 L H dh)
        self.W2_grad, self.b2_grad = Q.T @ T, Q.sum(axis=0)
        R = (Q @ self.W2) * (1 - T * T)  # (P, k)
        self.W1_grad, self.b1_grad = R.T @ self.E, R.sum(axis=0)
        self.E_grad = R @ self.W1  # (P, e)

    def to_prefix(self) -> peft.PrefixTuning:
        """A prefix that holds today's numbers; the MLP is no longer needed."""
        prefix = peft.PrefixTuning(self.num_layers, self.num_heads, self.d_head,
                                   self.prefix_length, dtype=self.E.dtype)
        prefix.prefix[...] = self.forward()
        return prefix
