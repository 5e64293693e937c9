"""Exercise 4: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one thing wrong, as a student might have written it. "Not summed
over the batch" is no mistake that can be made here: the sum is `PrefixTuning.backward`'s.

`diagnosis` is what it must be called. Where another test could give the same name, `seen` says how
the report of what was seen begins, and `at` which test has to find it.
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


class Sigmoid(Own):
    diagnosis = "other-nonlinearity"

    def bend(self, z):
        return 1 / (1 + np.exp(-z))

    def slope(self, T):
        return T * (1 - T)


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


class WrongSign(Own):
    diagnosis = "wrong-tanh-slope"

    def slope(self, T):
        return 1 + T ** 2


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
    seen = "num_parameters() gave"

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


class RenamesTheSizes(Right):
    diagnosis = "signature"
    seen = "The call itself failed."
    at = "the MLP can be made and trains E, W1, b1, W2 and b2"

    def __init__(self, num_layers, num_heads, d_head, prefix_length=10, width=64, hidden=512, *,
                 dtype=np.float32, rng=None):
        super().__init__(num_layers, num_heads, d_head, prefix_length, width, hidden, dtype=dtype,
                         rng=rng)


class NoDefaults(Right):
    diagnosis = "signature"
    seen = "The call itself failed."

    def __init__(self, num_layers, num_heads, d_head, prefix_length, embed_dim, hidden_dim, *,
                 dtype=np.float32, rng=None):
        super().__init__(num_layers, num_heads, d_head, prefix_length, embed_dim, hidden_dim,
                         dtype=dtype, rng=rng)


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


class ZeroTokens(Right):
    diagnosis = "zero-start"
    seen = "E holds zeros only."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.E[...] = 0


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
    seen = "forward: float32 in gave float64"

    def forward(self):
        return super().forward().astype(np.float64)


class IgnoresDtype(Right):
    diagnosis = "wrong-dtype"
    seen = "dtype=float32 was asked for, E is float64"

    def __init__(self, *args, dtype=None, **kwargs):
        super().__init__(*args, dtype=np.float64, **kwargs)


class GradientsInDouble(Own):
    diagnosis = "wrong-dtype"
    seen = "backward: float32 in gave float64"

    def slope(self, T):
        return 1 - T.astype(np.float64) ** 2


class PrefixForgetsDtype(Right):
    diagnosis = "wrong-dtype"
    seen = "A float64 MLP gave a float32 prefix."

    def to_prefix(self):
        prefix = peft.PrefixTuning(self.num_layers, self.num_heads, self.d_head,
                                   self.prefix_length)
        prefix.prefix[...] = self.forward()
        return prefix


class AcceptsNonsense(Right):
    """Replaces a size that makes no sense by one that does."""

    diagnosis = "accepts-nonsense"
    seen = "{'prefix_length': 0} raised no"

    def __init__(self, num_layers, num_heads, d_head, prefix_length=10, embed_dim=64,
                 hidden_dim=512, **kwargs):
        super().__init__(num_layers, num_heads, d_head, *self.mended(
            prefix_length, embed_dim, hidden_dim), **kwargs)

    def mended(self, P, e, h):
        return P or 1, e, h


class AcceptsNoWidth(AcceptsNonsense):
    seen = "{'embed_dim': 0} raised no"

    def mended(self, P, e, h):
        return P, e or 1, h


class AcceptsNegativeWidth(AcceptsNonsense):
    seen = "{'embed_dim': -1} raised no"

    def mended(self, P, e, h):
        return P, abs(e), h


class AcceptsNoHiddenLayer(AcceptsNonsense):
    seen = "{'hidden_dim': 0} raised no"

    def mended(self, P, e, h):
        return P, e, h or 1


class AcceptsFractions(AcceptsNonsense):
    seen = "{'hidden_dim': 2.5} raised no"

    def mended(self, P, e, h):
        return P, e, int(h)


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


class FirstWeightTransposed(Right):
    diagnosis = "wrong-shape"
    seen = "W1 has shape (6, 7), expected (7, 6)"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W1 = self.W1.T.copy()


class TokensFirst(Right):
    diagnosis = "wrong-shape"
    seen = "TokensFirst.forward has shape (4, 3, 2, 2, 5), expected (3, 2, 4, 2, 5)"

    def forward(self):
        return super().forward().transpose(2, 0, 1, 3, 4)


class KeepsAnAxis(Own):
    diagnosis = "wrong-shape"
    seen = "the gradient of b1 has shape (1, 7), expected (7,)"
    at = "gradients have the shapes of what they belong to"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.b1_grad = R.sum(axis=0, keepdims=True)


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


class ThroughTanh(Right):
    """Squeezes what is kept between -1 and 1, as numbers to be rounded often are."""

    diagnosis = "values"
    seen = "the prefix of to_prefix() is off by"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.prefix = np.tanh(prefix.prefix)
        return prefix


class FreshBeforeForward(Unfilled):
    """Fills the prefix from what forward has left, and without it not at all."""

    diagnosis = "values"
    seen = "the prefix of to_prefix() before any forward is off by"

    def to_prefix(self):
        return Right.to_prefix(self) if self.cache else super().to_prefix()


class TokensFirstInPrefix(Right):
    diagnosis = "wrong-shape"
    seen = "the prefix has shape (4, 3, 2, 2, 5)"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.prefix = prefix.prefix.transpose(2, 0, 1, 3, 4).copy()
        return prefix


class BareArray(Right):
    diagnosis = "wrong-type"
    seen = "BareArray.to_prefix gave ndarray, expected PrefixTuning"

    def to_prefix(self):
        return self.forward()


class FreezesTheMLP(Right):
    """Takes the MLP for finished as soon as a prefix was made of it."""

    diagnosis = "values"
    at = "a whole batch that uses the prefix trains the MLP"

    def to_prefix(self):
        self.frozen = True
        return super().to_prefix()

    def backward(self, grad_prefix):
        super().backward(grad_prefix)
        if hasattr(self, "frozen"):
            self.b2_grad[...] = 0


class ForgetsTheRun(Right):
    diagnosis = "raised"
    seen = "RuntimeError"
    at = "a whole batch that uses the prefix trains the MLP"

    def to_prefix(self):
        prefix = super().to_prefix()
        self.cache = {}  # the MLP is no longer needed
        return prefix


class HandsOutItsMemory(Right):
    """Computes the prefix only if an array has changed, and hands out the one that it keeps."""

    diagnosis = "prefix-not-copied"
    seen = "The MLP changed when the prefix was trained on."

    def forward(self):
        state = [array.copy() for array in self.parameters().values()]
        if not self.cache or not all(map(np.array_equal, state, self.state)):
            self.state, self.made = state, super().forward()
        return self.made

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.prefix = self.forward()
        return prefix


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
