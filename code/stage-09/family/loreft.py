"""LoReFT: no weight changes; a few directions of the activations are overwritten."""

import numpy as np

from peft import Method, Rng, _sum_over_batch
from validation import check_count, check_dtype, check_not_wider, check_shape


class LoReFT(Method):
    """h' = h + (h W^T + b - h R^T) R: what h says along R's rows gives way to what W says.

    R (rank, d_model) has orthonormal rows: R^T is the Q of V = Q U, with V (d_model, rank) free
    and U's diagonal positive. It trains V, W (rank, d_model) and b (rank,). W starts as R and b as
    zero, so that nothing changes at first, as in the LoreftIntervention_IdentityInit of the
    authors' pyreft; their LoreftIntervention starts W at random. The paper edits the residual
    stream at the first and last tokens; a slot of llama.py gives a sublayer's output, at all.

    Parameters: d_model, rank: int; dtype, rng: see peft.LoRALayer.

    Source: Wu et al., arXiv 2404.03592; pyreft has PyTorch's `orthogonal` in place of the QR.
    """

    trainable = ("V", "W", "b")

    def __init__(self, d_model: int, rank: int = 4, *, dtype=np.float32, rng: Rng = None):
        if check_count("rank", rank) > check_count("d_model", d_model):
            raise ValueError(f"rank must be at most d_model = {d_model}, got {rank}")
        V = np.random.default_rng(rng).standard_normal((d_model, rank)).astype(check_dtype(dtype))
        self.V, self.b = V, np.zeros(rank, dtype)
        self.W = self._rows()[0].astype(dtype)
        self.V_grad = self.W_grad = self.b_grad = None
        self.cache = {}

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """R (rank, d_model) and U (rank, rank) with V = R^T U, at least in float32."""
        Q, U = np.linalg.qr(self.V.astype(np.result_type(self.V, np.float32)))
        sign = np.sign(np.diagonal(U))  # unsigned, R would jump where an entry of V passes zero
        return np.ascontiguousarray((Q * sign).T), U * sign[:, None]

    def forward(self, h: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        check_shape("h", h, (..., len(self.V)))
        check_not_wider(self.parameters(), h.dtype)
        R, U = self._rows()
        edit = h @ (self.W - R).T + self.b  # (..., rank)
        self.cache = {"x": h, "R": R, "U": U, "edit": edit}
        return (h + edit @ R).astype(h.dtype, copy=False)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """E = G R^T reaches b and W; R's M = edit^T G - E^T h goes through the QR into V."""
        h, R, U, edit = self._remembered("x", "R", "U", "edit")
        check_shape("grad_output", grad_output, h.shape)
        h, G, edit = (a.reshape(-1, a.shape[-1]) for a in (h, grad_output, edit))
        E = G @ R.T  # (n, rank)
        self.W_grad, self.b_grad = E.T @ h, _sum_over_batch(E, ndim=1)
        M = edit.T @ G - self.W_grad  # (rank, d_model): dLoss/dR
        S = np.tril(-M @ R.T)  # dLoss/dV = (M^T + R^T (S + strictly lower S^T)) U^-T
        self.V_grad = np.linalg.solve(U, M + (S + np.tril(S, -1).T) @ R).T
        return (grad_output + (E @ (self.W - R)).reshape(grad_output.shape)).astype(h.dtype)
