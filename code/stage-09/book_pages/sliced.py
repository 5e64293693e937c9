"""LoRA with its large sum in slices: less memory than `peft.LoRALayer`, for a few lines more.

The page on speed shows and measures it; nothing else uses it.
"""

import numpy as np

import peft

SLICE_BYTES = 2 ** 15  # a product is added in pieces of this size, at least


def add_product(out: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """out += left @ right, some rows at a time: the product never stands whole beside `out`."""
    size = max(SLICE_BYTES, (left.nbytes + right.nbytes) // 3)  # bytes: small beside the factors
    rows = max(1, size // (out.itemsize * out.shape[1]))
    for start in range(0, len(out), rows):
        out[start:start + rows] += left[start:start + rows] @ right


class SlicedLoRALayer(peft.LoRALayer):
    """The same numbers as `peft.LoRALayer`; only its two large sums differ."""

    def forward(self, x: np.ndarray, W: np.ndarray) -> np.ndarray:
        lead = x.shape[:-1]
        x = x.reshape(-1, self.in_features)  # (n, in)
        sAx = self.scaling * (x @ self.A.T)  # (n, rank)
        h = x @ W.T  # (n, out)
        add_product(h, sAx, self.B.T)  # in peft.py: h += sAx @ self.B.T
        self.cache = {"x": x, "W": W, "sAx": sAx, "lead": lead}
        return h.reshape(*lead, self.out_features)  # (..., out)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        x, W, sAx, lead = self._remembered("x", "W", "sAx", "lead")
        G = grad_output.reshape(-1, self.out_features)  # (n, out)
        self.B_grad = G.T @ sAx  # (out, rank)
        GB = self.scaling * (G @ self.B)  # (n, rank)
        self.A_grad = GB.T @ x  # (rank, in)
        grad_x = G @ W  # (n, in)
        add_product(grad_x, GB, self.A)  # in peft.py: grad_x += GB @ self.A
        return grad_x.reshape(*lead, self.in_features)  # (..., in)
