"""Exercise 8: right answers that look nothing like the reference solution."""

import numpy as np

from family.vera import VeRALinear, shared_matrices

NAMES = ("up_d", "up_beta", "down_d", "down_beta")


class OfTheFamily:
    """Two of the book's layers, which hold the same pair; the family's start."""

    def __init__(self, up, down, rank=4, d_initial=0.1, *, seed=0):
        if not (np.isfinite(d_initial) and d_initial > 0) or up.shape != down.T.shape:
            raise ValueError("d_initial or a shape makes no sense")
        if not isinstance(seed, int):
            raise TypeError("a seed is an integer")
        k, self.seed = max(up.shape), seed
        self.A, self.B = shared_matrices(rank, k, k, dtype=up.dtype, rng=seed)
        self.layers = {"up": VeRALinear(up, None, self.A, self.B, d_initial),
                       "down": VeRALinear(down, None, self.A, self.B, d_initial)}

    def _all(self, which):
        return {f"{name}_{key}": array for name, layer in self.layers.items()
                for key, array in getattr(layer, which)().items()}

    def parameters(self):
        return self._all("parameters")

    def gradients(self):
        return self._all("gradients")

    def num_parameters(self):
        return sum(layer.num_parameters() for layer in self.layers.values())

    def forward(self, x):
        self.z = self.layers["up"].forward(x)
        return self.layers["down"].forward(np.maximum(self.z, 0))

    def backward(self, grad_output):
        for_a = self.layers["down"].backward(grad_output)
        return self.layers["up"].backward(for_a * (self.z > 0))

    def merge(self):
        return [layer.merge()[0] for layer in self.layers.values()]

    def state(self):
        return {key: np.array(array) for key, array in self.parameters().items()} | {
            "seed": self.seed}

    @classmethod
    def from_state(cls, up, down, state):
        again = cls(up, down, state["down_d"].size, seed=state["seed"])
        for key in NAMES:
            again.parameters()[key][:] = state[key]
        return again


class ByHand:
    """No base class, einsum, two seeds made from the one; A and B can't be written to."""

    def __init__(self, up, down, rank=4, d_initial=0.1, *, seed=0):
        if rank < 1 or not 0 < d_initial < np.inf or seed is None or up.T.shape != down.shape:
            raise ValueError("an argument makes no sense")
        k, dtype, self.made_from = max(up.shape), up.dtype, seed
        for name, child, size, fan_in in zip("AB", np.random.SeedSequence(seed).spawn(2),
                                             ((rank, k), (k, rank)), (k, rank), strict=True):
            bound = (6 / fan_in) ** 0.5
            setattr(self, name, np.random.default_rng(child).uniform(-bound, bound, size).astype(
                dtype))
            getattr(self, name).flags.writeable = False
        self.W, self.kept = {"up": up, "down": down}, {}
        self.v = {"up_d": np.full(rank, d_initial, dtype), "up_beta": np.zeros(len(up), dtype),
                  "down_d": np.full(rank, d_initial, dtype),
                  "down_beta": np.zeros(len(down), dtype)}
        self.g = {}

    def parameters(self):
        return dict(self.v)

    def gradients(self):
        if not self.g:
            raise RuntimeError("call backward first")
        return dict(self.g)

    def num_parameters(self):
        return sum(v.size for v in self.v.values())

    def _delta(self, name):
        out, n_in = self.W[name].shape
        return np.einsum("o,or,r,ri->oi", self.v[f"{name}_beta"], self.B[:out],
                         self.v[f"{name}_d"], self.A[:, :n_in])

    def merge(self):
        return tuple(W + self._delta(name) for name, W in self.W.items())

    def forward(self, x):
        up, down = self.merge()
        z = np.einsum("...i,fi->...f", x, up)
        self.kept = {"x": x.copy(), "z": z, "up": up, "down": down}
        return np.einsum("...f,of->...o", np.where(z > 0, z, 0), down)

    def backward(self, grad_output):
        """Through the dense update: the gradient of a whole matrix, taken apart afterwards."""
        if not self.kept:
            raise RuntimeError("call forward first")
        x, z = self.kept["x"], self.kept["z"]
        if grad_output.shape != x.shape:
            raise ValueError("another shape")
        for_z = (grad_output @ self.kept["down"]) * (z > 0)
        for name, inputs, G in (("down", np.maximum(z, 0), grad_output), ("up", x, for_z)):
            out, n_in = self.W[name].shape
            dense = np.einsum("no,ni->oi", G.reshape(-1, out), inputs.reshape(-1, n_in))
            parts = np.einsum("oi,or,ri->or", dense, self.B[:out], self.A[:, :n_in])
            self.g[f"{name}_beta"] = parts @ self.v[f"{name}_d"]
            self.g[f"{name}_d"] = self.v[f"{name}_beta"] @ parts
        return for_z @ self.kept["up"]

    def state(self):
        return {"seed": self.made_from, **{key: v.copy() for key, v in self.v.items()}}

    @classmethod
    def from_state(cls, up, down, state):
        again = cls(up, down, len(state["up_d"]), seed=state["seed"])
        again.v = {key: state[key].copy() for key in NAMES}
        return again


class InDouble(ByHand):
    """Computes in float64 inside and rounds at the end."""

    def _delta(self, name):
        out, n_in = self.W[name].shape
        beta, d = (self.v[f"{name}_{key}"].astype(np.float64) for key in ("beta", "d"))
        return np.diag(beta) @ self.B[:out] @ np.diag(d) @ self.A[:, :n_in]

    def merge(self):
        return [merged.astype(W.dtype) for merged, W in
                zip(super().merge(), self.W.values(), strict=True)]

    def forward(self, x):
        return super().forward(x.astype(np.float64)).astype(x.dtype)

    def backward(self, grad_output):
        back = super().backward(grad_output.astype(np.float64)).astype(grad_output.dtype)
        self.g = {key: grad.astype(grad_output.dtype) for key, grad in self.g.items()}
        return back


class UnitByUnit(OfTheFamily):
    """Remembers x alone, loops over the units of rank, and gets the gradients from rows."""

    def __init__(self, *args, **given):
        super().__init__(*args, **given)
        self.x, self.grads = None, {}

    def _update(self, name, x):
        """What beta scales, by unit of rank, before d: each (n, out)."""
        W = self.layers[name].weight
        return [np.outer(x @ row[:W.shape[1]], column[:len(W)])
                for row, column in zip(self.A, self.B.T, strict=True)]

    def _layer(self, name, x):
        layer = self.layers[name]
        h = x @ layer.weight.T
        for d, part in zip(layer.d, self._update(name, x), strict=True):
            h = h + layer.beta * d * part
        return h

    def forward(self, x):
        if x.shape[-1] != self.layers["up"].weight.shape[1]:
            raise ValueError("another width")
        self.x = np.array(x)
        rows = self.x.reshape(-1, x.shape[-1])
        return self._layer("down", np.maximum(self._layer("up", rows), 0)).reshape(x.shape)

    def backward(self, grad_output):
        if self.x is None:
            raise RuntimeError("call forward first")
        rows = self.x.reshape(-1, self.x.shape[-1])
        if grad_output.shape != self.x.shape:
            raise ValueError("another shape")
        z, G = self._layer("up", rows), grad_output.reshape(rows.shape)
        for name, x in (("down", np.maximum(z, 0)), ("up", rows)):
            layer, parts = self.layers[name], self._update(name, x)
            self.grads[f"{name}_d"] = np.array([(G * layer.beta * part).sum() for part in parts])
            self.grads[f"{name}_beta"] = sum(d * (G * part).sum(0)
                                             for d, part in zip(layer.d, parts, strict=True))
            G = G @ layer.merge()[0]
            G = G * (z > 0) if name == "down" else G
        return G.reshape(grad_output.shape)

    def gradients(self):
        return {key: self.grads[key] for key in NAMES}


class PaddedToK(ByHand):
    """Uses all of A and B, with beta padded by zeros, and cuts the update afterwards."""

    def _delta(self, name):
        out, n_in = self.W[name].shape
        beta = np.zeros(len(self.B), self.B.dtype)
        beta[:out] = self.v[f"{name}_beta"]
        return (np.diag(beta) @ self.B @ (self.v[f"{name}_d"][:, None] * self.A))[:out, :n_in]


class OneBuffer(OfTheFamily):
    """A and B are parts of one array in Fortran's order, the vectors parts of another."""

    def __init__(self, up, down, rank=4, d_initial=0.1, *, seed=0):
        super().__init__(up, down, rank, d_initial, seed=seed)
        pair = np.concatenate([self.A.ravel("F"), self.B.ravel("F")])
        self.A = pair[:self.A.size].reshape(self.A.shape, order="F")
        self.B = pair[self.A.size:].reshape(self.B.shape, order="F")
        vectors, start = np.concatenate(list(self.parameters().values())), 0
        for layer in self.layers.values():
            layer.A, layer.B = self.A[:, :layer.weight.shape[1]], self.B[:len(layer.weight)]
            for key, array in layer.parameters().items():
                setattr(layer, key, vectors[start:start + array.size])
                start += array.size


VARIANTS = [OfTheFamily, ByHand, InDouble, UnitByUnit, PaddedToK, OneBuffer]
