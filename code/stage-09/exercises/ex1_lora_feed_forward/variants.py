"""Exercise 1: six right answers that look nothing like the reference solution."""

import numpy as np

import peft


def _check(gate, up, down):
    if gate.ndim != 2 or up.shape != gate.shape or down.shape != gate.shape[::-1]:
        raise ValueError(f"shapes do not fit: {gate.shape}, {up.shape}, {down.shape}")


class Stable(peft.Method):
    """The logistic function by cases; the projections in plain attributes with other names."""

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        _check(gate, up, down)
        rng = np.random.default_rng(rng)
        self.g = peft.LoRALinear(gate, lora_rank=rank, lora_alpha=alpha, rng=rng)
        self.u = peft.LoRALinear(up, lora_rank=rank, lora_alpha=alpha, rng=rng)
        self.d = peft.LoRALinear(down, lora_rank=rank, lora_alpha=alpha, rng=rng)
        self.seen = None

    @staticmethod
    def logistic(z):
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1 / (1 + e), e / (1 + e))

    def forward(self, x):
        self.seen = z, u = self.g.forward(x), self.u.forward(x)
        return self.d.forward(self.logistic(z) * u * z)

    def backward(self, grad_output):
        if self.seen is None:
            raise RuntimeError("call forward first")
        z, u = self.seen
        a, p = self.d.backward(grad_output), self.logistic(z)
        return self.u.backward(z * p * a) + self.g.backward((p + z * p * (1 - p)) * u * a)

    def merge(self):
        return [self.g.merge()[0], self.u.merge()[0], self.d.merge()[0]]

    def parameters(self):
        return {f"{n}.{k}": v for n, layer in (("down", self.d), ("up", self.u), ("gate", self.g))
                for k, v in layer.parameters().items()}

    def gradients(self):
        return {f"{n}.{k}": v for n, layer in (("gate", self.g), ("up", self.u), ("down", self.d))
                for k, v in layer.gradients().items()}


class ByHand:
    """No LoRALinear at all: dense weights in forward, products of matrices in backward."""

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        _check(gate, up, down)
        if rank < 1:
            raise ValueError("rank")
        rng = np.random.default_rng(rng)
        self.W, self.s, self.memory = {"gate": gate, "up": up, "down": down}, alpha / rank, None
        self.P = {}
        for name, W in self.W.items():
            self.P[name + ".A"] = rng.uniform(-0.1, 0.1, (rank, W.shape[1])).astype(W.dtype)
            self.P[name + ".B"] = np.zeros((W.shape[0], rank), W.dtype)

    def parameters(self):
        return dict(self.P)

    def gradients(self):
        return self.grads

    def num_parameters(self):
        return int(sum(p.size for p in self.P.values()))

    def merge(self):
        return tuple(W + self.s * self.P[n + ".B"] @ self.P[n + ".A"] for n, W in self.W.items())

    def forward(self, x):
        gate, up, down = self.merge()
        rows = x.reshape(-1, x.shape[-1])
        z, u = rows @ gate.T, rows @ up.T
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-z))
        self.memory = rows, z, u, p, x.shape
        return ((z * p * u) @ down.T).reshape(x.shape)

    def backward(self, grad_output):
        if self.memory is None:
            raise RuntimeError("call forward first")
        rows, z, u, p, shape = self.memory
        gate, up, down = self.merge()
        G = grad_output.reshape(rows.shape)
        a = G @ down
        flows = {"down": (z * p * u, G), "up": (rows, a * z * p),
                 "gate": (rows, a * u * p * (1 + z * (1 - p)))}
        self.grads = {}
        for name, (inner, g) in flows.items():
            full = g.T @ inner  # the gradient of the dense weight, (out, in)
            self.grads[name + ".A"] = self.s * self.P[name + ".B"].T @ full
            self.grads[name + ".B"] = self.s * full @ self.P[name + ".A"].T
        return (flows["gate"][1] @ gate + flows["up"][1] @ up).reshape(shape)


class InDouble(ByHand):
    """Computes in float64 inside and rounds at the end."""

    def forward(self, x):
        self.kind = x.dtype
        return super().forward(x.astype(np.float64)).astype(self.kind)

    def backward(self, grad_output):
        grad_x = super().backward(grad_output.astype(np.float64)).astype(self.kind)
        self.grads = {name: grad.astype(self.kind) for name, grad in self.grads.items()}
        return grad_x


class Recomputes(Stable):
    """Recomputes in backward instead of remembering; keeps copies of the frozen weights."""

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        super().__init__(gate.copy(), up.copy(), down.copy(), rank, alpha, rng=rng)
        self.x = None

    def forward(self, x):
        self.x = x.copy()
        return super().forward(x)

    def backward(self, grad_output):
        if self.x is None:
            raise RuntimeError("call forward first")
        super().forward(self.x)
        return super().backward(grad_output)


class AZero(ByHand):
    """B random and A zero: also a start at the pretrained block, and it learns."""

    def __init__(self, *args, rng=None, **kwargs):
        rng = np.random.default_rng(rng)
        super().__init__(*args, rng=rng, **kwargs)
        for name, array in self.P.items():
            array[...] = 0.02 * rng.standard_normal(array.shape) if name.endswith("B") else 0


class ForgetsAfterwards(ByHand):
    """Frees what forward has left as soon as backward has used it; counts with NumPy."""

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.memory = None
        return back

    def num_parameters(self):
        return np.sum([np.prod(array.shape) for array in self.P.values()])


VARIANTS = [Stable, ByHand, InDouble, Recomputes, AZero, ForgetsAfterwards]
