"""Exercise 7, reference solution: DoRA as the paper writes it, a length for each column."""

import numpy as np

import peft
from validation import check_positive, check_rank, check_shape, check_weights


class ColumnDoRA(peft.Method):
    """h = (x * c) V^T + b with V = W + s B A and c = m / |V|, one number for each column of V.

    Parameters
    ----------
    weight, bias : (out, in) and (out,) or None, frozen; no column of the weight may be zero
    lora_rank, lora_alpha, rng : see peft.LoRALayer
    detach_norm : whether backward takes |V| for a constant

    Attributes
    ----------
    A : (rank, in), small Gaussian; B : (out, rank), zero at the start; m : (in,), at first |W|

    Source: Liu et al., arXiv 2402.09353, equation (5); the detached norm: section 4.3.
    """

    trainable = ("A", "B", "m")

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float = 16.0, *, detach_norm: bool = False,
                 rng: np.random.Generator | None = None):
        self.weight = check_weights("weight", weight, (None, None))  # (out, in)
        d_out, d_in = weight.shape
        self.bias = None if bias is None else check_weights("bias", bias, (d_out,))
        rank = check_rank(lora_rank, full=min(d_out, d_in))
        self.scaling = check_positive("lora_alpha", lora_alpha) / rank
        self.detach_norm = detach_norm
        self.m = np.linalg.norm(weight, axis=0)  # (in,)
        if not self.m.all():
            raise ValueError(f"column {self.m.argmin()} of weight is zero: it has no direction; "
                             "use peft.LoRALinear for this layer")
        start = np.random.default_rng(rng).standard_normal((rank, d_in))
        self.A = (peft.INIT_STD * start).astype(weight.dtype)  # (rank, in)
        self.B = np.zeros((d_out, rank), weight.dtype)  # (out, rank): the start is W alone
        self.A_grad = self.B_grad = self.m_grad = None
        self.cache = {}

    def _turned(self) -> tuple[np.ndarray, np.ndarray]:
        """V (out, in) and the lengths of its columns (in,), from the arrays as they are now."""
        V = self.weight + self.scaling * (self.B @ self.A)  # (out, in), a new array
        return V, np.linalg.norm(V, axis=0)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        check_shape("x", x, (..., self.weight.shape[1]))
        V, norm = self._turned()
        c = self.m / norm  # (in,): exactly 1 at the start
        self.cache = {"x": x, "V": V, "norm": norm, "c": c}
        h = (x * c) @ V.T  # (..., out)
        return h if self.bias is None else h + self.bias

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., out) -> (..., in)."""
        x, V, norm, c = self._remembered("x", "V", "norm", "c")
        check_shape("grad_output", grad_output, (*x.shape[:-1], len(V)))
        G, rows = grad_output.reshape(-1, len(V)), x.reshape(-1, len(c))  # (n, out), (n, in)
        GV = G @ V  # (n, in): what comes back to x * c
        self.m_grad = (rows * GV).sum(axis=0) / norm  # (in,)
        V_grad = G.T @ (rows * c)  # (out, in)
        if not self.detach_norm:
            V_grad -= (c * self.m_grad / norm) * V  # what points along V only makes it longer
        self.B_grad = self.scaling * (V_grad @ self.A.T)  # (out, rank)
        self.A_grad = self.scaling * (self.B.T @ V_grad)  # (rank, in): zero at first, since B is
        return (GV * c).reshape(x.shape)  # (..., in)

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight (out, in) and bias of one plain linear layer that does the same; new arrays."""
        V, norm = self._turned()
        return V * (self.m / norm), None if self.bias is None else self.bias.copy()
