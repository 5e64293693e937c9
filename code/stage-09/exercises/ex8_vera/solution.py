"""Exercise 8, reference solution: VeRA in a feed-forward block whose layers share one A and B."""

import numpy as np

import peft
from validation import check_count, check_integer, check_positive, check_shape, check_weights


class VeRAFeedForward(peft.Method):
    """y = down(relu(up(x))), and each layer is h = x W^T + beta * ((d * (x A^T)) B^T).

    Parameters
    ----------
    up : (d_ff, d_model), down : (d_model, d_ff), frozen
    rank : int
    d_initial : float, where both d start, finite and positive
    seed : int of at least 0, all that A and B come from

    Attributes
    ----------
    A : (rank, k), B : (k, rank), frozen, with k the larger of d_model and d_ff. A layer reads the
        corner that fits it: the first `in` columns of A, the first `out` rows of B.
    up_d, down_d : (rank,), up_beta : (d_ff,), down_beta : (d_model,), zero at the start

    Source: Kopiczko et al., arXiv 2310.11454.
    """

    trainable = ("up_d", "up_beta", "down_d", "down_beta")

    def __init__(self, up: np.ndarray, down: np.ndarray, rank: int = 4, d_initial: float = 0.1, *,
                 seed: int = 0):
        self.up = check_weights("up", up, (None, None))  # (d_ff, d_model)
        self.down = check_weights("down", down, up.shape[::-1])  # (d_model, d_ff)
        rank, self.seed = check_count("rank", rank), check_integer("seed", seed)
        d_initial, k = check_positive("d_initial", d_initial), max(up.shape)
        rng = np.random.default_rng(self.seed)  # one generator: two would draw the same numbers
        self.A, self.B = ((np.sqrt(6 / shape[1]) * rng.uniform(-1, 1, shape)).astype(up.dtype)
                          for shape in ((rank, k), (k, rank)))
        self.up_d, self.down_d = np.full((2, rank), d_initial, up.dtype)  # (rank,) each
        self.up_beta, self.down_beta = np.zeros(len(up), up.dtype), np.zeros(len(down), up.dtype)
        self.up_d_grad = self.up_beta_grad = self.down_d_grad = self.down_beta_grad = None
        self.cache = {}

    def _corner(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A (rank, in) and B (out, rank) for a weight (out, in): views, not copies."""
        return self.A[:, :W.shape[1]], self.B[:W.shape[0]]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        check_shape("x", x, (..., self.up.shape[1]))
        rows = x.reshape(-1, x.shape[-1])  # (n, d_model)
        z, *of_up = self._layer(rows, self.up, self.up_d, self.up_beta)  # (n, d_ff)
        a = np.maximum(z, 0)  # (n, d_ff)
        y, *of_down = self._layer(a, self.down, self.down_d, self.down_beta)  # (n, d_model)
        self.cache = {"x": x.shape, "a": a, "up": of_up, "down": of_down}
        return y.reshape(x.shape)

    def _layer(self, x: np.ndarray, W: np.ndarray, d: np.ndarray, beta: np.ndarray
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, in) -> the output (n, out), and what backward needs: x A^T and what beta scales."""
        A, B = self._corner(W)
        t = x @ A.T  # (n, rank)
        u = (d * t) @ B.T  # (n, out)
        return x @ W.T + beta * u, t, u

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        shape, a, of_up, of_down = self._remembered("x", "a", "up", "down")
        check_shape("grad_output", grad_output, shape)
        G = grad_output.reshape(-1, shape[-1])  # (n, d_model)
        back, self.down_d_grad, self.down_beta_grad = self._layer_back(
            G, self.down, self.down_d, self.down_beta, *of_down)  # back: (n, d_ff)
        back, self.up_d_grad, self.up_beta_grad = self._layer_back(
            back * (a > 0), self.up, self.up_d, self.up_beta, *of_up)  # back: (n, d_model)
        return back.reshape(shape)

    def _layer_back(self, G: np.ndarray, W: np.ndarray, d: np.ndarray, beta: np.ndarray,
                    t: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, out) -> the gradients of x (n, in), of d (rank,) and of beta (out,)."""
        A, B = self._corner(W)
        GB = (beta * G) @ B  # (n, rank)
        return G @ W + (d * GB) @ A, (GB * t).sum(axis=0), (G * u).sum(axis=0)

    def merge(self) -> tuple[np.ndarray, np.ndarray]:
        """-> up (d_ff, d_model) and down (d_model, d_ff) with their updates: two new weights."""
        return (self._merged(self.up, self.up_d, self.up_beta),
                self._merged(self.down, self.down_d, self.down_beta))

    def _merged(self, W: np.ndarray, d: np.ndarray, beta: np.ndarray) -> np.ndarray:
        A, B = self._corner(W)
        return W + (beta[:, None] * B * d) @ A  # (out, in)

    def state(self) -> dict:
        """What has to be saved: the seed, and a copy of each vector."""
        return {"seed": self.seed} | {name: v.copy() for name, v in self.parameters().items()}

    @classmethod
    def from_state(cls, up: np.ndarray, down: np.ndarray, state: dict) -> "VeRAFeedForward":
        """A second block for the same frozen weights, which computes what the saved one did."""
        block = cls(up, down, len(state["up_d"]), seed=state["seed"])
        for name, vector in block.parameters().items():
            vector[...] = state[name]
        return block
