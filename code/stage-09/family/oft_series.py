"""OFT as PEFT computes it unless told otherwise: a few terms of Cayley's map, not the map."""

import numpy as np

from family.oft import OFTLinear
from validation import check_count

MOST_TERMS = 64  # PEFT's default is 5; each costs a product of matrices in every step


def check_terms(name: str, value: int) -> int:
    """A number of terms, which is also the length of a tuple. Raises TypeError or ValueError."""
    if check_count(name, value) > MOST_TERMS:
        raise ValueError(f"{name} must be at most {MOST_TERMS}, got {value}")
    return int(value)


class OFTSeriesLinear(OFTLinear):
    """OFTLinear with R = I + 2Q + 2Q^2 + 2Q^3 + Q^4 instead of (I + Q) (I - Q)^-1.

    It spares the inverse, and R is orthogonal only as long as Q is small. `terms` is PEFT's
    num_cayley_neumann_terms, 5 above. Its code gives 3 and 4 the same, Q^3 as their last power; 1
    is I, which nothing can train, and 2 is I + 2Q. Other parameters: see OFTLinear.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, block_size: int = 32,
                 terms: int = 5):
        super().__init__(weight, bias, block_size)
        if check_terms("terms", terms) < 2:
            raise ValueError("terms must be at least 2: with 1 no array changes anything")
        self.terms = terms
        self.factors = (1, 2) if terms == 2 else (1, *(max(terms, 4) - 2) * (2,), 1)

    def _map(self, Q: np.ndarray, I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: E741
        R = self.factors[-1] * I
        for factor in self.factors[-2::-1]:  # Horner's rule
            R = factor * I + R @ Q
        return R, Q

    def _to_Q(self, D: np.ndarray, K: np.ndarray) -> np.ndarray:
        """R's step R_k = c_k I + R_(k+1) Q backwards: from the outermost, R_0, to the last."""
        Qt = K.swapaxes(1, 2)
        I, dQ = np.eye(self.block_size, dtype=K.dtype), np.zeros_like(K)  # noqa: E741
        inner = [self.factors[-1] * I + 0 * K]  # R_k, innermost first
        for factor in self.factors[-2:0:-1]:
            inner.append(factor * I + inner[-1] @ K)
        for R in reversed(inner):
            dQ += R.swapaxes(1, 2) @ D  # d(R Q) = R dQ + dR Q
            D = D @ Qt
        return dQ
