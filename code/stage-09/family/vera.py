"""VeRA: one random pair of matrices for all layers; each layer learns two vectors between them."""

import numpy as np

from family.frozen_linear import FrozenLinear
from peft import Rng, _sum_over_batch
from validation import check_count, check_dtype, check_weights


def shared_matrices(rank: int, in_features: int, out_features: int, *, dtype=np.float32,
                    rng: Rng = None) -> tuple[np.ndarray, np.ndarray]:
    """A (rank, in) and B (out, rank), uniform in +-sqrt(6 / fan-in): widest in, widest out."""
    rng, dtype = np.random.default_rng(rng), check_dtype(dtype)
    shapes = (check_count("rank", rank), check_count("in_features", in_features)), (
        check_count("out_features", out_features), rank)
    return tuple((np.sqrt(6 / shape[1]) * rng.uniform(-1, 1, shape)).astype(dtype)
                 for shape in shapes)


class VeRALinear(FrozenLinear):
    """h = x W^T + b + beta * ((d * (x A^T)) B^T): A and B are frozen, d and beta train.

    d (rank,) starts at d_initial, beta (out,) at zero: training begins at the pretrained model.
    All layers hold the same A (rank, >= in) and B (>= out, rank), from `shared_matrices`; each
    uses the corner that fits it, as in PEFT. The paper's models have one shape for all.

    Other parameters: see FrozenLinear. Source: Kopiczko et al., arXiv 2310.11454.
    """

    trainable = ("d", "beta")

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, A: np.ndarray, B: np.ndarray,
                 d_initial: float = 0.1):
        super().__init__(weight, bias)
        rank = len(check_weights("A", A, (None, None)))
        check_weights("B", B, (None, rank))
        if A.shape[1] < self.in_features or len(B) < self.out_features:
            raise ValueError(f"A {A.shape} and B {B.shape} are too small for a weight of shape "
                             f"{weight.shape}; make them for the widest in and out")
        self.A, self.B = A[:, :self.in_features], B[:self.out_features]  # views, not copies
        self.d = np.full(rank, d_initial, weight.dtype)
        self.beta = np.zeros(self.out_features, weight.dtype)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        xA = x @ self.A.T  # (n, rank)
        thin = (self.d * xA) @ self.B.T  # (n, out)
        self.cache |= {"xA": xA, "thin": thin}
        return x @ self.weight.T + self.b + self.beta * thin

    def _backward(self, G: np.ndarray) -> np.ndarray:
        self.beta_grad = _sum_over_batch(G * self.cache["thin"], ndim=1)  # (out,)
        GB = (G * self.beta) @ self.B  # (n, rank)
        self.d_grad = _sum_over_batch(GB * self.cache["xA"], ndim=1)  # (rank,)
        return G @ self.weight + (self.d * GB) @ self.A

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        delta = self.beta[:, None] * (self.B * self.d) @ self.A  # (out, in)
        return self.weight + delta, None if self.bias is None else self.bias.copy()
