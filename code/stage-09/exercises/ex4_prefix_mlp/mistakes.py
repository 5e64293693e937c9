"""Exercise 4: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one thing wrong, as a student might have written it. "Not summed
over the batch" is no mistake that can be made here: the sum is `PrefixTuning.backward`'s.

`diagnosis` is what it must be called. Where another test could give the same name, `seen` says how
the report of what was seen begins, and `at` which test has to find it.
"""

from copy import copy

import numpy as np

import peft
from exercises.ex4_prefix_mlp.solution import PrefixMLP as Right
from validation import check_shape


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
        self.remember(T)
        return np.array(self.lay_out(T @ self.W2.T + self.b2))

    def remember(self, T):
        self.cache = {"x": T}

    def backward(self, grad_prefix):
        check_shape("grad_prefix", grad_prefix, (self.num_layers, 2, self.prefix_length,
                                                 self.num_heads, self.d_head))
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
    at = "each number of b2 appears where the layout says"

    def lay_out(self, F):
        return super().lay_out(np.tanh(F))


class TanhOnSmallOutput(Own):
    """A tanh that lets large numbers pass, as a rounding of small ones may do."""

    diagnosis = "tanh-on-output"
    at = "the numbers are those of the MLP"

    def lay_out(self, F):
        return super().lay_out(np.tanh(F) if F.max() < 20 else F)


class BiasOutsideTanh(Own):
    diagnosis = "bias-outside-tanh"

    def bend(self, z):
        return np.tanh(z - self.b1) + self.b1


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


class HeadsOutside(Own):
    diagnosis = "heads-outside"

    def lay_out(self, F):
        F = F.reshape(self.prefix_length, self.num_layers, self.num_heads, 2, self.d_head)
        return F.transpose(1, 3, 0, 2, 4)


class HeadsReversed(Own):
    """A layout that has no name: what stands where is said."""

    diagnosis = "values"
    seen = "With b2 = 0, 1, 2, ... and all else zero, prefix[0, 0, 0, 0, 0] is 5, expected 0."

    def lay_out(self, F):
        return super().lay_out(F)[:, :, :, ::-1]


class TransposedAndReshaped(Own):
    diagnosis = "reshaped-not-moved"

    def lay_out(self, F):
        return F.T.reshape(self.num_layers, 2, self.prefix_length, self.num_heads, self.d_head)


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


class KeepsZ(Own):
    diagnosis = "before-tanh"
    seen = "the gradient of W2 equals"

    def remember(self, T):
        self.cache = {"x": self.E @ self.W1.T + self.b1}


class SlopeOfZ(Own):
    diagnosis = "before-tanh"
    seen = "the gradient of b1 equals"

    def slope(self, T):
        return 1 - np.arctanh(T) ** 2


class SlopeIsT(Own):
    diagnosis = "wrong-tanh-slope"

    def slope(self, T):
        return T


class WrongSignThroughout(Own):
    diagnosis = "wrong-sign"
    seen = "the gradient of b2 equals"

    def lay_back(self, G):
        return super().lay_back(-G)


class ForgetsE(Own):
    """The gradient was set to zeros in __init__, and then forgotten."""

    diagnosis = "zero-gradient"
    seen = "the gradient of E equals"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.E_grad = np.zeros_like(self.E)


class DoublesTheLast(Own):
    """A mistake without a name: which gradients are right is said."""

    diagnosis = "values"
    seen = "the gradient of E is off by 1, relative to its largest entry. Right already: b2, W2, b1"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.E_grad *= 2


class UpdatesItself(Own):
    diagnosis = "changes-parameters"
    seen = "After backward the array b2"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.b2 = self.b2 - 0.1 * self.b2_grad


class NormalisesInForward(Right):
    diagnosis = "changes-parameters"
    seen = "After forward the array E"

    def forward(self):
        if (size := np.abs(self.E).max()) > 0:
            self.E /= size
        return super().forward()


class EmptiesTheMLP(Right):
    diagnosis = "changes-parameters"
    seen = "After to_prefix the array W1"

    def to_prefix(self):
        prefix = super().to_prefix()
        self.W1[...] = 0
        return prefix


class MeanOverTokens(Own):
    diagnosis = "mean-over-tokens"

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.b2_grad, self.b1_grad = Q.mean(axis=0), R.mean(axis=0)


class LayoutInBackward(Own):
    diagnosis = "layout-in-backward"

    def lay_back(self, G):
        return G.reshape(self.prefix_length, -1)


class ReshapedAndTransposed(Own):
    diagnosis = "layout-in-backward"

    def lay_back(self, G):
        return G.reshape(-1, self.prefix_length).T


class OrderInBackward(Own):
    """One wrong order of a row's axes; its subclasses have the others."""

    diagnosis = "layout-in-backward"
    axes = (2, 1, 0, 3, 4)

    def lay_back(self, G):
        return G.transpose(self.axes).reshape(self.prefix_length, -1)


class HeadsOutsideInBackward(OrderInBackward):
    axes = (2, 0, 3, 1, 4)


class HeadsSwappedInBackward(OrderInBackward):
    axes = (2, 0, 1, 4, 3)


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


class RenamesTheHeads(Right):
    diagnosis = "signature"
    seen = "The call itself failed."

    def __init__(self, num_layers, heads, d_head, *args, **kwargs):
        super().__init__(num_layers, heads, d_head, *args, **kwargs)


class OtherDefault(Right):
    """A default that differs; its subclasses have the others."""

    diagnosis = "signature"
    seen = "By default E is float32 of shape (20, 64), expected float32 of (10, 64)."
    other = {"prefix_length": 20}

    def __init__(self, *args, **kwargs):
        names = ("num_layers", "num_heads", "d_head", "prefix_length", "embed_dim", "hidden_dim")
        super().__init__(**{**self.other, **dict(zip(names, args)), **kwargs})


class OtherWidth(OtherDefault):
    seen = "By default E is float32 of shape (10, 32)"
    other = {"embed_dim": 32}


class OtherHiddenWidth(OtherDefault):
    seen = "By default W1 is float32 of shape (256, 64)"
    other = {"hidden_dim": 256}


class OtherDtype(OtherDefault):
    seen = "By default E is float64"
    other = {"dtype": np.float64}


class KeepsTheArrays(Right):
    diagnosis = "mlp-kept"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.W2, prefix.E = self.W2.copy(), self.E.copy()
        return prefix


class KeepsItself(Right):
    diagnosis = "mlp-kept"
    seen = "Its attribute mlp is"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.mlp = self
        return prefix


class WrongSizes(Right):
    """Makes a prefix of other sizes and puts an array of the right shape into it."""

    diagnosis = "wrong-shape"
    seen = "prefix_length of the prefix is 10, expected 4."

    def to_prefix(self):
        prefix = peft.PrefixTuning(*self.mistaken())
        prefix.prefix = self.forward()
        return prefix

    def mistaken(self):
        return self.num_layers, self.num_heads, self.d_head


class WidthsSwapped(WrongSizes):
    seen = "num_heads of the prefix is 5, expected 2."

    def mistaken(self):
        return self.num_layers, self.d_head, self.num_heads, self.prefix_length


class ReusesItsBuffer(Right):
    diagnosis = "reused-buffer"

    def forward(self):
        made = super().forward()
        if not hasattr(self, "buffer"):
            self.buffer = made
        self.buffer[...] = made
        return self.buffer


class RemembersThePrefix(Right):
    diagnosis = "forward-not-anew"

    def forward(self):
        if not hasattr(self, "made"):
            self.made = super().forward()
        return self.made.copy()


class LeavesOutW1(Right):
    """Its forward follows the other arrays, and of W1 it has a copy."""

    diagnosis = "forward-not-anew"
    seen = "the prefix after a change of W1"

    def forward(self):
        if np.abs(self.W1).sum() > 0 and not hasattr(self, "start"):
            self.start = self.W1.copy()
        kept, self.W1 = self.W1, getattr(self, "start", self.W1)
        prefix = super().forward()
        self.W1 = kept
        return prefix


class Squeezes(Right):
    diagnosis = "wrong-shape"
    seen = "Squeezes.forward has shape (2,), expected (1, 2, 1, 1, 1)."

    def forward(self):
        return super().forward().squeeze()


class SqueezesGradients(Own):
    diagnosis = "wrong-shape"
    seen = "the gradient of E has shape (), expected (1, 1)."

    def gradients_of(self, T, Q, R):
        super().gradients_of(T, Q, R)
        self.E_grad = self.E_grad.squeeze()


class ReturnsAGradient(Own):
    diagnosis = "wrong-type"
    seen = "backward gave ndarray, expected None"

    def backward(self, grad_prefix):
        super().backward(grad_prefix)
        return self.E_grad


class TakesAnyGradient(Right):
    diagnosis = "accepts-nonsense"
    seen = "grad_prefix of shape (3, 2, 4, 5, 2) raised no"

    def backward(self, grad_prefix):
        super().backward(grad_prefix.reshape(self.num_layers, 2, self.prefix_length,
                                             self.num_heads, self.d_head))


class TakesTokensFirst(TakesAnyGradient):
    seen = "grad_prefix of shape (4, 3, 2, 2, 5) raised no"

    def backward(self, grad_prefix):
        if len(grad_prefix) != self.num_layers:
            grad_prefix = np.ascontiguousarray(grad_prefix.transpose(1, 2, 0, 3, 4))
        Right.backward(self, grad_prefix)


class KeepsTheFirstT(Own):
    diagnosis = "old-forward"

    def remember(self, T):
        self.cache.setdefault("x", T)


class RefillsOnePrefix(Right):
    diagnosis = "prefix-not-copied"
    seen = "The prefix changed when the MLP was trained on."

    def to_prefix(self):
        if not hasattr(self, "stored"):
            self.stored = super().to_prefix()
        self.stored.prefix[...] = self.forward()
        return self.stored


class RemembersToPrefix(Right):
    diagnosis = "stale-prefix"

    def to_prefix(self):
        if not hasattr(self, "stored"):
            self.stored = super().to_prefix()
        return self.stored


class UsesTheOldT(Own):
    diagnosis = "stale-prefix"

    def to_prefix(self):
        T = self.cache.get("x")
        prefix = super().to_prefix()
        if T is not None:
            prefix.prefix[...] = self.lay_out(T @ self.W2.T + self.b2)
        return prefix


class ReshapesInToPrefix(Own):
    diagnosis = "reshaped-not-moved"
    at = "it holds what the MLP gives now"

    def to_prefix(self):
        prefix = super().to_prefix()
        F = self.cache["x"] @ self.W2.T + self.b2
        prefix.prefix[...] = F.reshape(prefix.prefix.shape)
        return prefix


class Stale(Right):
    diagnosis = "stale-prefix"

    def forward(self):
        self.last = super().forward()
        return self.last.copy()

    def to_prefix(self):
        prefix = Right.to_prefix(copy(self))  # which leaves no `last` behind
        if hasattr(self, "last"):
            prefix.prefix[...] = self.last
        return prefix


class AllZero(Right):
    diagnosis = "zero-start"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W1[...] = self.W2[...] = 0


class EqualUnits(Right):
    diagnosis = "equal-units"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W1[...], self.W2[...] = 0.01, self.W2[:, :1]


class TwoEqualUnits(Right):
    diagnosis = "equal-units"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W1[-1], self.W2[:, -1] = self.W1[0], self.W2[:, 0]


class EqualTokens(Right):
    diagnosis = "equal-tokens"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.E[...] = self.E[0]


class TwoEqualTokens(Right):
    diagnosis = "equal-tokens"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.E[-1] = self.E[0]


class ZeroTokens(Right):
    diagnosis = "equal-tokens"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.E[...] = 0


class IgnoresRng(Right):
    diagnosis = "ignores-rng"

    seen = "E differs between two objects made from one seed."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class OneSeed(Right):
    diagnosis = "ignores-rng"
    seen = "Two objects made from two seeds start the same."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=np.random.default_rng(42), **kwargs)


class OneSeedWithoutRng(Right):
    diagnosis = "ignores-rng"
    seen = "Two objects made without an rng start the same."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng or np.random.default_rng(0), **kwargs)


class OwnGeneratorForW2(Right):
    diagnosis = "ignores-rng"
    seen = "W2 differs between"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W2 *= np.random.default_rng().standard_normal(self.W2.shape).astype(self.W2.dtype)


class Accumulates(Own):
    diagnosis = "accumulates"

    def gradients_of(self, T, Q, R):
        old = self.b1_grad
        super().gradients_of(T, Q, R)
        self.b1_grad = self.b1_grad + (0 if old is None else old)


class DeadParameters(Right):
    diagnosis = "forward-not-anew"
    seen = "the prefix after a change of E"

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


class SingleInForward(Right):
    diagnosis = "wrong-dtype"
    seen = "forward: float64 in gave float32"

    def forward(self):
        return super().forward().astype(np.float32)


class SingleInBackward(Own):
    diagnosis = "wrong-dtype"
    seen = "backward: float64 in gave float32"

    def lay_back(self, G):
        return super().lay_back(G).astype(np.float32)


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
    seen = "to_prefix: float64 in gave float32 out."

    def to_prefix(self):
        prefix = peft.PrefixTuning(self.num_layers, self.num_heads, self.d_head,
                                   self.prefix_length)
        prefix.prefix[...] = self.forward()
        return prefix


class AcceptsNonsense(Right):
    """Replaces a size that makes no sense by one that does; its subclasses do so with others."""

    diagnosis = "accepts-nonsense"
    seen = "prefix_length=0 raised no"

    def __init__(self, *args, **kwargs):
        name, bad = self.seen.split(" ")[0].split("=")
        if kwargs.get(name) == float(bad):
            kwargs[name] = 1
        super().__init__(*args, **kwargs)


class AcceptsNoWidth(AcceptsNonsense):
    seen = "embed_dim=0 raised no"


class AcceptsNegativeWidth(AcceptsNonsense):
    seen = "embed_dim=-1 raised no"


class AcceptsNoHiddenLayer(AcceptsNonsense):
    seen = "hidden_dim=0 raised no"


class AcceptsFractions(AcceptsNonsense):
    seen = "hidden_dim=2.5 raised no"


class AcceptsNoLayer(AcceptsNonsense):
    seen = "num_layers=0 raised no"


class AcceptsNoHead(AcceptsNonsense):
    seen = "num_heads=0 raised no"


class AcceptsNoHeadWidth(AcceptsNonsense):
    seen = "d_head=0 raised no"


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
    seen = "the prefix of to_prefix() before any forward is off by"

    def to_prefix(self):
        prefix = super().to_prefix()
        prefix.prefix = np.tanh(prefix.prefix)
        return prefix


class FreshBeforeForward(Unfilled):
    """Fills the prefix from what forward has left, and without it not at all."""

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
    at = "it is a copy that later training does not change"
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
