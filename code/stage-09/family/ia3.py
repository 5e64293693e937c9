"""(IA)³: each feature gets one learned factor; the smallest method that merges."""

import numpy as np

from family.frozen_linear import FrozenLinear
from peft import _sum_over_batch


class IA3Linear(FrozenLinear):
    """h = l * (x W^T + b); in a feed-forward layer h = (l * x) W^T + b. l trains, from ones.

    l is (out,), or with `feedforward` (in,). The paper rescales keys, values, and what the MLP's
    last layer is given: k_proj and v_proj by their outputs, down_proj by its input. It has one l
    for all positions and no bias; that the scale holds for b, too, is as in PEFT.

    Parameters: see FrozenLinear. Source: Liu et al., arXiv 2205.05638.
    """

    trainable = ("l",)

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, *,
                 feedforward: bool = False):
        super().__init__(weight, bias)
        self.feedforward = feedforward
        self.l = np.ones(weight.shape[1 if feedforward else 0], weight.dtype)  # noqa: E741

    def _forward(self, x: np.ndarray) -> np.ndarray:
        if self.feedforward:
            return (self.l * x) @ self.weight.T + self.b  # (n, out)
        return self.l * (x @ self.weight.T + self.b)

    def _backward(self, G: np.ndarray) -> np.ndarray:
        """What l multiplies, times the gradient of the product, is l's; summed over all rows."""
        x = self.cache["x"]  # (n, in)
        if self.feedforward:
            GW = G @ self.weight  # (n, in)
            self.l_grad = _sum_over_batch(x * GW, ndim=1)  # (in,)
            return self.l * GW
        self.l_grad = _sum_over_batch((x @ self.weight.T + self.b) * G, ndim=1)  # (out,)
        return (self.l * G) @ self.weight

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows of W and the bias scaled; in a feed-forward layer the columns of W."""
        if self.feedforward:
            return self.l * self.weight, None if self.bias is None else self.bias.copy()
        return self.l[:, None] * self.weight, None if self.bias is None else self.l * self.bias
