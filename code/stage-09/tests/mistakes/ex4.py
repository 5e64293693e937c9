"""Exercise 4: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one thing wrong, as a student might have written it. "Not summed
over the batch" is no mistake that can be made here: the sum is `PrefixTuning.backward`'s.
"""

import numpy as np
import peft
from ex4_prefix_mlp import PrefixMLP as Right


class Own(Right):
    """A solution in small pieces, for mistakes in one of them."""

    def bend(self, z):
        return np.tanh(z)

    def slope(self, T):
        return 1 - T ** 2

    def lay_out(self, F):
        F = F.reshape(self.prefix_length, self.num_layers, 2, self.num_heads, self.d_head)
        return F.transpose(1, 2, 0, 3, 4)

    def lay_back(self, G):
        return G.transpose(2, 0, 1, 3, 4).reshape(self.prefix_length, -1)

    def forward(self):
        T = self.bend(self.E @ self.W1.T + self.b1)
        self.cache = {"x": T}
        return np.array(self.lay_out(T @ self.W2.T + self.b2))

    def backward(self, grad_prefix):
        T, Q = self._remembered(), self.lay_back(grad_prefix)
        R = (Q @ self.W2) * self.slope(T)
        self.gradients_of(T, Q, R)

    def gradients_of(self, T, Q, R):
        self.W2_grad, self.b2_grad = Q.T @ T, Q.sum(axis=0)
        self.W1_grad, self.b1_grad, self.E_grad = R.T @ self.E, R.sum(axis=0), R @ self.W1


class NoTanh(Own):
    diagnosis = "no-tanh"

    def bend(self, z):
        return z

    def slope(self, T):
        return 1


class Relu(Own):
    diagnosis = "other-nonlinearity"

    def bend(self, z):
        return np.maximum(z, 0)

    def slope(self, T):
        return T > 0


class Silu(Own):
    diagnosis = "other-nonlinearity"

    def bend(self, z):
        return z / (1 + np.exp(-z))


class TanhOnOutput(Own):
    diagnosis = "tanh-on-output"

    def lay_out(self, F):
        return super().lay_out(np.tanh(F) if F.max() < 20 else F)


class NoHiddenBias(Own):
    diagnosis = "bias-missing"

    def forward(self):
        b1, self.b1 = self.b1, 0 * self.b1
        prefix = super().forward()
        self.b1 = b1
        return prefix


class NoOutputBias(Own):
    diagnosis = "bias-missing"

    def lay_out(self, F):
        return super().lay_out(F - self.b2)


class KeysValuesSwapped(Own):
    diagnosis = "keys-values-swapped"

    def lay_out(self, F):
        return super().lay_out(F)[:, ::-1]

    def lay_back(self, G):
        return super().lay_back(G[:, ::-1])


class LayersInside(Own):
    diagnosis = "layers-inside"

    def lay_out(self, F):
        F = F.reshape(self.prefix_length, 2, self.num_layers, self.num_heads, self.d_head)
        return F.transpose(2, 1, 0, 3, 4)


class ReshapedNotMoved(Own):
    diagnosis = "reshaped-not-moved"

    def lay_out(self, F):
        return F.reshape(self.num_layers, 2, self.prefix_length, self.num_heads, self.d_head)


class HeadsSwapped(Own):
    diagnosis = "heads-swapped"

    def lay_out(self, F):
        F = F.reshape(self.prefix_length, self.num_layers, 2, self.d_head, self.num_heads)
        return F.transpose(1, 2, 0, 4, 3)


class NoSlope(Own):
    diagnosis = "no-tanh-slope"

    def slope(self, T):
        return 1


class WrongSlope(Own):
    diagnosis = "wrong-tanh-slope"

    def slope(self, T):
        return 1 - T


class TanhTwice(Own):
    diagnosis = "wrong-tanh-slope"

    def slope(self, T):
        return 1 - np.tanh(T) ** 2


class MeanOverTokens(Own):
    diagnosis = "mean-over-tokens"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.b2_grad, self.b1_grad = Q.mean(axis=0), R.mean(axis=0)


class LayoutInBackward(Own):
    diagnosis = "layout-in-backward"

    def lay_back(self, G):
        return G.reshape(self.prefix_length, -1)


class SwappedInBackward(Own):
    diagnosis = "layout-in-backward"

    def lay_back(self, G):
        return super().lay_back(G[:, ::-1])


class CountsStored(Right):
    diagnosis = "stored-for-trained"

    def num_parameters(self):
        return 2 * self.num_layers * self.prefix_length * self.num_heads * self.d_head


class CountsWithoutBiases(Right):
    diagnosis = "values"

    def num_parameters(self):
        return self.E.size + self.W1.size + self.W2.size


class KeepsTheMLP(Right):
    diagnosis = "mlp-kept"

    def to_prefix(self):
        prefix, mlp = super().to_prefix(), self

        class Both(peft.PrefixTuning):
            def parameters(self):
                return {"prefix": self.prefix, **mlp.parameters()}

        prefix.__class__ = Both
        return prefix


class KeepsTheArrays(Right):
    diagnosis = "mlp-kept"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.W2, prefix.E = self.W2, self.E
        return prefix


class SharesMemory(Right):
    diagnosis = "prefix-not-copied"

    def forward(self):
        made = super().forward()
        if not hasattr(self, "buffer"):
            self.buffer = made
        self.buffer[...] = made
        return self.buffer

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.prefix = self.buffer
        return prefix


class Stale(Right):
    diagnosis = "stale-prefix"

    def forward(self):
        self.last = super().forward()
        return self.last.copy()

    def to_prefix(self):
        prefix = super().to_prefix() if not hasattr(self, "last") else None
        if prefix is None:
            last = self.last
            prefix = super().to_prefix()
            prefix.prefix[...] = last
        return prefix


class AllZero(Right):
    diagnosis = "zero-start"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W2[...] = 0


class EqualTokens(Right):
    diagnosis = "equal-tokens"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.E[...] = self.E[0]


class IgnoresRng(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class Accumulates(Own):
    diagnosis = "accumulates"

    def gradients_of(self, T, Q, R):
        old = self.b1_grad
        super().gradients_of(T, Q, R)
        self.b1_grad = self.b1_grad + (0 if old is None else old)


class DeadParameters(Right):
    diagnosis = "dead-parameters"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown = {name: array.copy() for name, array in super().parameters().items()}

    def parameters(self):
        return self.shown

    def forward(self):
        self.E, self.W1, self.b1, self.W2, self.b2 = self.shown.values()
        if hasattr(self, "first"):
            self.E = self.first
        self.first = self.E.copy()
        return super().forward()


class ForgetsDtype(Right):
    diagnosis = "wrong-dtype"

    def forward(self):
        return super().forward().astype(np.float64)


class AcceptsNonsense(Right):
    diagnosis = "accepts-nonsense"

    def __init__(self, num_layers, num_heads, d_head, prefix_length=10, *args, **kwargs):
        super().__init__(num_layers, num_heads, d_head, prefix_length or 1, *args, **kwargs)


class BackwardFirst(Right):
    diagnosis = "backward-first"

    def backward(self, grad_prefix):
        if not self.cache:
            self.forward()
        super().backward(grad_prefix)


class TransposedWeights(Right):
    diagnosis = "wrong-shape"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W1, self.W2 = self.W1.T.copy(), self.W2.T.copy()


class RepeatsTranspose(Right):
    diagnosis = "layout-in-backward"

    def backward(self, grad_prefix):
        again = grad_prefix.transpose(1, 2, 0, 3, 4).reshape(self.prefix_length, -1)
        shape = (self.prefix_length, self.num_layers, 2, self.num_heads, self.d_head)
        super().backward(again.reshape(shape).transpose(1, 2, 0, 3, 4))


class Unfilled(Right):
    diagnosis = "prefix-unfilled"

    def to_prefix(self):
        return peft.PrefixTuning(self.num_layers, self.num_heads, self.d_head,
                                 self.prefix_length, dtype=self.E.dtype)


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
