"""DoRA: how long each row of a weight is, and where it points, trained apart."""

import numpy as np

from peft import LoRALinear, Rng, _sum_over_batch
from validation import check_shape


class DoRALinear(LoRALinear):
    """h = m / |V| (x V^T) + b with V = W + s B A: LoRA turns the rows, m says how long they are.

    It trains A, B and m (out,), which starts as |W|, the lengths of W's rows: training begins at
    the pretrained model. A row of zeros points nowhere: ValueError. |V| depends on A and B, so
    their gradient has a part that runs through it. The paper drops that part to save memory
    (section 4.3), and PEFT always does; `detach_norm=False` keeps it. The paper has one m for each
    *column* of a (d, k) matrix, PEFT one for each output. Other parameters: see LoRALinear.

    Source: Liu et al., arXiv 2402.09353, equation (5).
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float = 16.0, *, detach_norm: bool = True, rng: Rng = None):
        super().__init__(weight, bias, lora_rank, lora_alpha, rng=rng)
        self.m, self.detach_norm = _lengths(weight), detach_norm  # (out,)
        if not self.m.all():
            raise ValueError(f"row {self.m.argmin()} of weight is zero: it has no direction; use "
                             "LoRALinear for this layer")
        self.m_grad, self.cache = None, {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        u, norm = self.lora.forward(x, self.weight), _lengths(super().merge()[0])  # x V^T, |V|
        self.cache = {"x": x, "u": u, "norm": norm, "c": (c := self.m / norm)}  # c (out,)
        return c * u if self.bias is None else c * u + self.bias  # (..., out)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """LoRA's, with c G for G, where c = m / |V|; and dLoss/dm = sum(G * x V^T) / |V|. Not
        detached, |V| takes from dLoss/dV what points along V: in each row c dLoss/dm / |V| V."""
        _, u, norm, c = self._remembered("x", "u", "norm", "c")
        check_shape("grad_output", grad_output, u.shape)
        grad_x = self.lora.backward(c * grad_output)  # (..., in)
        self.m_grad = _sum_over_batch(grad_output * u, ndim=1) / norm  # (out,)
        if not self.detach_norm:
            along = (c * self.m_grad / norm)[:, None] * super().merge()[0]  # (out, in)
            self.lora.B_grad -= self.lora.scaling * (along @ self.lora.A.T)  # (out, rank)
            self.lora.A_grad -= self.lora.scaling * (self.lora.B.T @ along)  # (rank, in)
        return grad_x

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        V, bias = super().merge()  # (out, in), (out,)
        return (self.m / _lengths(V))[:, None] * V, bias

    def parameters(self) -> dict[str, np.ndarray]:
        return {**self.lora.parameters(), "m": self.m}

    def gradients(self) -> dict[str, np.ndarray]:
        return {**self.lora.gradients(), "m": self.m_grad}


def _lengths(V: np.ndarray) -> np.ndarray:  # (out,); float16 cannot add up squares
    return np.linalg.norm(V.astype(np.result_type(V, np.float32)), axis=1).astype(V.dtype)
