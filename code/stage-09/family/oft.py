"""OFT: the input is rotated before the frozen layer; lengths and angles between rows stay."""

import numpy as np

from family.frozen_linear import FrozenLinear
from validation import check_count


class OFTLinear(FrozenLinear):
    """h = (x R) W^T + b with R orthogonal, in blocks of `block_size` along the diagonal. Cayley's
    map makes each from a skew-symmetric Q, for which any numbers above the diagonal will do:

        R = (I + Q) (I - Q)^-1 = 2 K - I with K = (I - Q)^-1

    It trains q (blocks, block_size (block_size - 1) / 2), from zero, where R = I. PEFT's exact form
    has -Q for Q; for its default see oft_series.py. Source: Qiu et al., arXiv 2306.07280.
    """

    trainable = ("q",)

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, block_size: int = 32):
        super().__init__(weight, bias)
        self.block_size = check_count("block_size", block_size)
        if self.in_features % block_size:
            raise ValueError(f"block_size must divide {self.in_features}, got {block_size}")
        self.above = np.triu_indices(block_size, 1)  # where q stands in Q
        self.q = np.zeros((self.in_features // block_size, len(self.above[0])), weight.dtype)

    def _rotation(self) -> tuple[np.ndarray, np.ndarray]:
        """R, (blocks, size, size), and what `_to_Q` asks for, at least in float32."""
        Q = np.zeros((len(self.q), *2 * [self.block_size]), np.result_type(self.q, np.float32))
        Q[:, *self.above] = self.q
        R, K = self._map(Q - Q.swapaxes(1, 2), np.eye(self.block_size, dtype=Q.dtype))
        return R.astype(self.q.dtype), K

    def _map(self, Q: np.ndarray, I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: E741
        return 2 * (K := np.linalg.inv(I - Q)) - I, K

    def _to_Q(self, D: np.ndarray, K: np.ndarray) -> np.ndarray:  # dLoss/dQ, from D = dLoss/dR
        return 2 * K.swapaxes(1, 2) @ D @ K.swapaxes(1, 2)

    def _turn(self, x: np.ndarray, R: np.ndarray) -> np.ndarray:  # x R, block by block
        return (x.reshape(len(x), *R.shape[:2]).swapaxes(0, 1) @ R).swapaxes(0, 1).reshape(x.shape)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        self.cache["R"], self.cache["K"] = self._rotation()
        return self._turn(x, self.cache["R"]) @ self.weight.T + self.b  # (n, out)

    def _backward(self, G: np.ndarray) -> np.ndarray:
        x, R, K = self._remembered("x", "R", "K")
        GW = G @ self.weight  # (n, in)
        by_block = (*R.shape[:2], -1)  # (blocks, size, n)
        D = x.T.reshape(by_block).astype(K.dtype) @ GW.T.reshape(by_block).swapaxes(1, 2)
        dQ = self._to_Q(D, K)
        self.q_grad = (dQ - dQ.swapaxes(1, 2))[:, *self.above]  # q stands below as -q
        return self._turn(GW, R.swapaxes(1, 2))

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        R = self._rotation()[0].swapaxes(1, 2)
        return self._turn(self.weight, R), None if self.bias is None else self.bias.copy()
