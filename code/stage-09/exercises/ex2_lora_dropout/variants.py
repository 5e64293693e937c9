"""Exercise 2: five right answers that look nothing like the reference solution."""

import numpy as np

import peft
from validation import check_shape


def _refuse(rate):
    if not 0 <= rate < 1:
        raise ValueError(f"dropout must be in [0, 1), got {rate}")
    return rate


class ByHand:
    """No base class, other names inside, loops over nothing."""

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, dropout=0.1, *,
                 dtype=np.float32, rng=None):
        self.p, self.training = _refuse(dropout), True
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        self.gen = rng if rng is not None else np.random.default_rng()
        self.down = self.gen.normal(0, 0.1, (rank, in_features)).astype(dtype)
        self.up = np.zeros((out_features, rank), dtype)
        self.factor = alpha / rank
        self.kept = None

    def parameters(self):
        return {"A": self.down, "B": self.up}

    def gradients(self):
        return {"A": self.d_down, "B": self.d_up}

    def num_parameters(self):
        return self.down.size + self.up.size

    def fits(self, W, *pairs):
        if W.shape != (len(self.up), self.down.shape[1]) or any(a != b for a, b in pairs):
            raise ValueError("wrong shape")

    def forward(self, x, W):
        self.fits(W, (x.shape[-1:], W.shape[1:]))
        noise = np.ones(x.shape, x.dtype)
        if self.training:
            noise = self.gen.binomial(1, 1 - self.p, x.shape).astype(x.dtype)
            noise /= 1 - self.p
        self.kept = x * noise, noise, W
        return np.einsum("...i,oi->...o", x, W) + self.factor * np.einsum(
            "...i,ri,or->...o", self.kept[0], self.down, self.up)

    def backward(self, grad_output):
        if self.kept is None:
            raise RuntimeError("call forward first")
        xt, noise, W = self.kept
        self.fits(W, (grad_output.shape, (*xt.shape[:-1], len(W))))
        xt2, g2 = xt.reshape(-1, xt.shape[-1]), grad_output.reshape(-1, grad_output.shape[-1])
        self.d_up = np.einsum("no,nr->or", g2, self.factor * (xt2 @ self.down.T))
        self.d_down = np.einsum("nr,ni->ri", self.factor * (g2 @ self.up), xt2)
        return grad_output @ W + self.factor * (grad_output @ self.up @ self.down) * noise

    def merge_weights(self, W):
        self.fits(W)
        return W + self.factor * (self.up @ self.down)


class AroundALayer:
    """Has a plain LoRALayer, and calls it twice: once for the frozen path, once for the update."""

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, dropout=0.1, *,
                 dtype=np.float32, rng=None):
        _refuse(dropout)
        self.rng = np.random.default_rng(rng)
        self.layer = peft.LoRALayer(in_features, out_features, rank, alpha, dtype=dtype,
                                    rng=self.rng)
        self.dropout, self.training, self.W = dropout, True, None
        self.parameters, self.gradients = self.layer.parameters, self.layer.gradients
        self.num_parameters = self.layer.num_parameters
        self.merge_weights = self.layer.merge_weights

    def forward(self, x, W):
        keep = self.rng.random(x.shape) < 1 - self.dropout
        self.M = np.where(keep, 1 / (1 - self.dropout), 0).astype(x.dtype) if self.training else 1
        self.W = W
        return x @ W.T + self.layer.forward(x * self.M, np.zeros_like(W))

    def backward(self, grad_output):
        if self.W is None:
            raise RuntimeError("call forward first")
        return grad_output @ self.W + self.M * self.layer.backward(grad_output)


class DenseUpdate(peft.LoRALayer):
    """Forms the update s B A; slow and right. Forgets in backward what forward has left."""

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, dropout=0.1, *,
                 dtype=np.float32, rng=None):
        seeds = np.random.default_rng(rng).spawn(2)
        super().__init__(in_features, out_features, rank, alpha, dtype=dtype, rng=seeds[0])
        self.masks, self.dropout, self.training = seeds[1], _refuse(dropout), True

    def forward(self, x, W):
        check_shape("x", x, (..., self.in_features))
        check_shape("W", W, (self.out_features, self.in_features))
        M = np.ones_like(x)
        if self.training and self.dropout > 0:
            M[self.masks.random(x.shape) < self.dropout] = 0
            M /= x.dtype.type(1 - self.dropout)
        self.cache = {"x": x, "M": M, "W": W}
        return (x @ W.T + (x * M) @ self.delta_weight().T).astype(x.dtype)

    def backward(self, grad_output):
        x = self._remembered()
        M, W = self.cache["M"], self.cache["W"]
        full = np.tensordot(grad_output, x * M, (range(x.ndim - 1),) * 2)  # (out, in)
        self.B_grad = self.scaling * full @ self.A.T
        self.A_grad = self.scaling * self.B.T @ full
        self.cache = {}
        return grad_output @ W + M * (grad_output @ self.delta_weight())


class AllInDouble(ByHand):
    """Computes in float64 and rounds at the end, and draws the mask in evaluation as well."""

    def forward(self, x, W):
        self.fits(W, (x.shape[-1:], W.shape[1:]))
        self.kind = x.dtype
        keep = self.gen.random(x.shape) >= self.p
        noise = (keep / (1 - self.p)) if self.training else np.ones(x.shape)
        self.kept = x * noise, noise, W.astype(np.float64)
        wide = x @ self.kept[2].T + (self.kept[0] @ self.down.T) @ self.up.T * self.factor
        return wide.astype(self.kind)

    def backward(self, grad_output):
        grad_x = super().backward(grad_output).astype(self.kind)
        self.d_up, self.d_down = self.d_up.astype(self.kind), self.d_down.astype(self.kind)
        return grad_x

    def merge_weights(self, W):
        self.fits(W)
        wide = W.astype(np.float64) + self.factor * self.up.astype(np.float64) @ self.down
        return wide.astype(W.dtype)


class RowByRow(ByHand):
    """Loops over the rows."""

    def forward(self, x, W):
        rows = x.reshape(-1, x.shape[-1])
        self.each, out = [], []
        for row in rows:
            out.append(super().forward(row, W))
            self.each.append(self.kept)
        self.lead = x.shape[:-1]
        return np.stack(out).reshape(*self.lead, -1)

    def backward(self, grad_output):
        if self.kept is None:
            raise RuntimeError("call forward first")
        if grad_output.shape != (*self.lead, len(self.up)):
            raise ValueError("wrong shape")
        d_up, d_down, grad_x = 0, 0, []
        for g, self.kept in zip(grad_output.reshape(-1, len(self.up)), self.each, strict=True):
            grad_x.append(super().backward(g))
            d_up, d_down = d_up + self.d_up, d_down + self.d_down
        self.d_up, self.d_down = d_up, d_down
        return np.stack(grad_x).reshape(*self.lead, -1)


VARIANTS = [ByHand, AroundALayer, DenseUpdate, AllInDouble, RowByRow]
