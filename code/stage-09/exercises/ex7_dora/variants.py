"""Exercise 7: right answers that look nothing like the reference solution."""

import numpy as np

import peft


class MergesFirst(peft.Method):
    """Makes the effective weight in every forward and goes back through it as one matrix."""

    trainable = ("A", "B", "m")

    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, *, detach_norm=False,
                 rng=None):
        self.inner = peft.LoRALinear(weight, bias, lora_rank, lora_alpha, rng=rng)
        self.A, self.B = self.inner.lora.A, self.inner.lora.B
        self.m, self.detach, self.x = np.sqrt((weight ** 2).sum(0)), detach_norm, None
        if (self.m == 0).any():
            raise ValueError("a zero column")
        self.A_grad = self.B_grad = self.m_grad = None

    def merge(self):
        V, bias = self.inner.merge()
        return V / np.sqrt((V ** 2).sum(0)) * self.m, bias

    def forward(self, x):
        self.x, (self.effective, bias) = x.copy(), self.merge()
        self.then = {name: array.copy() for name, array in self.parameters().items()}
        out = np.einsum("...i,oi->...o", x, self.effective)
        return out if bias is None else out + bias

    def backward(self, grad_output):
        if self.x is None:
            raise RuntimeError("forward first")
        if grad_output.shape[:-1] != self.x.shape[:-1]:
            raise ValueError(grad_output.shape)
        rows = self.x.reshape(-1, self.m.size)
        g = np.einsum("no,ni->oi", grad_output.reshape(len(rows), -1), rows)  # of the whole weight
        A, B, m = self.then.values()
        V = self.inner.weight + self.inner.lora.scaling * B @ A
        unit = V / np.linalg.norm(V, axis=0)
        self.m_grad = np.einsum("oi,oi->i", g, unit)
        if not self.detach:
            g = g - unit * self.m_grad  # the part of each column that is across it
        g = self.inner.lora.scaling * g * (m / np.linalg.norm(V, axis=0))
        self.A_grad, self.B_grad = B.T @ g, g @ A.T
        return grad_output @ self.effective


class ByHand:
    """No base class; column by column in loops; keeps its arrays in a dictionary."""

    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, *, detach_norm=False,
                 rng=None):
        if weight.ndim != 2 or bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError("weight (out, in) and bias (out,) expected")
        if lora_rank < 1 or not 0 < lora_alpha < np.inf:
            raise ValueError(f"rank and alpha must be positive: {lora_rank}, {lora_alpha}")
        lengths = np.array([np.linalg.norm(column) for column in weight.T], weight.dtype)
        if not np.all(lengths > 0):
            raise ValueError("a zero column has no direction")
        A = 0.02 * np.random.default_rng(rng).standard_normal((lora_rank, weight.shape[1]))
        self.arrays = {"m": lengths, "B": np.zeros((len(weight), lora_rank), weight.dtype),
                       "A": A.astype(weight.dtype)}
        self.W, self.b, self.s, self.detach = weight, bias, lora_alpha / lora_rank, detach_norm
        self.seen = None

    def parameters(self):
        return dict(self.arrays)

    def gradients(self):
        return dict(self.grads)

    def num_parameters(self):
        return sum(array.size for array in self.arrays.values())

    def forward(self, x):
        m, B, A = (array.copy() for array in self.arrays.values())
        columns = [w + self.s * B @ a for w, a in zip(self.W.T, A.T, strict=True)]
        self.seen = x, m, B, A, columns
        out = sum(x[..., i, None] * (m[i] / np.linalg.norm(v)) * v for i, v in enumerate(columns))
        return out + (0 if self.b is None else self.b)

    def backward(self, grad_output):
        if self.seen is None:
            raise RuntimeError("call forward first")
        x, m, B, A, columns = self.seen
        if grad_output.shape != (*x.shape[:-1], len(self.W)):
            raise ValueError(f"grad_output has shape {grad_output.shape}")
        G, rows = grad_output.reshape(-1, len(self.W)), x.reshape(-1, len(m))
        grads, back = {name: np.zeros_like(array) for name, array in self.arrays.items()}, []
        for i, v in enumerate(columns):
            unit, size = v / np.linalg.norm(v), np.linalg.norm(v)
            g = rows[:, i] @ G  # (out,): of the column at its length
            grads["m"][i] = g @ unit
            across = g if self.detach else g - (g @ unit) * unit
            for_v = m[i] / size * across
            grads["B"] += self.s * np.outer(for_v, A[:, i])
            grads["A"][:, i] = self.s * for_v @ B
            back.append(m[i] * (G @ unit))
        self.grads, self.seen = grads, None
        return np.stack(back, axis=-1).reshape(x.shape)

    def merge(self):
        m, B, A = self.arrays.values()
        V = self.W + self.s * B @ A
        return V / np.linalg.norm(V, axis=0) * m, None if self.b is None else np.array(self.b)


class InDouble(ByHand):
    """Computes in float64 inside and rounds at the end."""

    def forward(self, x):
        self.kind = x.dtype
        return super().forward(x.astype(np.float64)).astype(self.kind)

    def backward(self, grad_output):
        back = super().backward(grad_output.astype(np.float64))
        self.grads = {name: grad.astype(self.kind) for name, grad in self.grads.items()}
        return back.astype(self.kind)


class AroundLoRALinear(peft.LoRALinear):
    """Is a LoRALinear that gets x c; what comes through the norm is put in afterwards."""

    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, *, detach_norm=False,
                 rng=None):
        super().__init__(weight, bias, lora_rank, lora_alpha, rng=rng)
        self.m, self.m_grad, self.keep = np.linalg.norm(weight.T, axis=1), None, not detach_norm
        if not np.count_nonzero(self.m) == self.m.size:
            raise ValueError("every column needs a direction")

    def parameters(self):
        return {**super().parameters(), "m": self.m}

    def gradients(self):
        return {**super().gradients(), "m": self.m_grad}

    def forward(self, x):
        V = super().merge()[0]
        n = np.sqrt(np.einsum("oi,oi->i", V, V))
        self.last = x, V, n, self.m / n
        return super().forward(x * (self.m / n))

    def backward(self, grad_output):
        back = super().backward(grad_output)  # G V, LoRA's own
        x, V, n, c = self.last
        self.m_grad = np.einsum("ni,ni->i", *(a.reshape(-1, c.size) for a in (x, back))) / n
        if self.keep:
            along = V * (c * self.m_grad / n)
            self.lora.A_grad = self.lora.A_grad - self.lora.scaling * self.lora.B.T @ along
            self.lora.B_grad = self.lora.B_grad - self.lora.scaling * along @ self.lora.A.T
        return back * c

    def merge(self):
        V, bias = super().merge()
        return V * (self.m / np.linalg.norm(V, axis=0)), bias


class RowByRow(MergesFirst):
    """Goes back row by row of the input, and makes all that it needs anew from copies."""

    def backward(self, grad_output):
        if self.x is None:
            raise RuntimeError("forward first")
        if grad_output.shape != (*self.x.shape[:-1], len(self.inner.weight)):
            raise ValueError(grad_output.shape)
        (A, B, m), s = self.then.values(), self.inner.lora.scaling
        V = self.inner.weight + s * B @ A
        size = np.hypot.reduce(V, axis=0)  # (in,)
        self.A_grad, self.B_grad, self.m_grad = map(np.zeros_like, (A, B, m))
        for row, g in zip(self.x.reshape(-1, m.size), grad_output.reshape(-1, len(V)), strict=True):
            for_V = np.outer(g, row * m / size)
            if not self.detach:
                for_V -= V / size * (V / size * for_V).sum(0)
            self.m_grad += row * (g @ V) / size
            self.B_grad += s * for_V @ A.T
            self.A_grad += s * B.T @ for_V
        return np.tensordot(grad_output, V * m / size, 1)


class ByJacobian(ByHand):
    """The derivative of each column's direction as a matrix of its own; tensordot."""

    def forward(self, x):
        V = self.W + self.s * self.arrays["B"] @ self.arrays["A"]
        self.seen = x, V, {name: array.copy() for name, array in self.arrays.items()}
        out = np.tensordot(x * self.arrays["m"], V / np.sqrt(np.square(V).sum(0)), (-1, 1))
        return out if self.b is None else np.add(out, self.b)

    def backward(self, grad_output):
        if self.seen is None:
            raise RuntimeError("call forward first")
        x, V, then = self.seen
        if grad_output.shape != (*x.shape[:-1], len(V)):
            raise ValueError(f"grad_output has shape {grad_output.shape}")
        size = np.sqrt(np.square(V).sum(0))
        U, eye = V / size, np.eye(len(V), dtype=V.dtype)
        dense = np.einsum("no,ni->oi", grad_output.reshape(-1, len(V)), x.reshape(-1, V.shape[1]))
        turns = eye - (not self.detach) * np.einsum("oi,pi->iop", U, U)  # (in, out, out)
        for_V = np.einsum("iop,pi->oi", turns, dense) * then["m"] / size
        self.grads = {"A": self.s * np.einsum("or,oi->ri", then["B"], for_V),
                      "B": self.s * np.einsum("oi,ri->or", for_V, then["A"]),
                      "m": np.einsum("oi,oi->i", dense, U)}
        return np.einsum("...o,oi,i->...i", grad_output, U, then["m"])


VARIANTS = [MergesFirst, ByHand, InDouble, AroundLoRALinear, RowByRow, ByJacobian]
