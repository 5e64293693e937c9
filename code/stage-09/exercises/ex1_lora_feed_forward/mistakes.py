"""Exercise 1: plausible wrong answers, each with the diagnosis that it must get.

Some say as well at which test the check must notice (`at`), and how the report's "Seen" must begin
(`seen`): so a second mistake of the same kind is told from the first.
"""

import numpy as np

import peft
from exercises.ex1_lora_feed_forward.solution import LoRAFeedForward as Right
from exercises.ex1_lora_feed_forward.solution import sigmoid


class Plain(Right):
    """The same with small methods to get wrong."""

    def act(self, z):
        return z * sigmoid(z)

    def slope(self, z):
        return sigmoid(z) * (1 + z * (1 - sigmoid(z)))

    def mix(self, z, u):
        return self.act(z) * u

    def forward(self, x):
        z, u = self.gate.forward(x), self.up.forward(x)
        self.cache = {"x": (z, u)}
        return self.down.forward(self.mix(z, u))

    def backward(self, grad_output):
        z, u = self._remembered()
        a = self.down.backward(grad_output)
        return self.back(a, z, u)

    def back(self, a, z, u):
        return self.gate.backward(a * u * self.slope(z)) + self.up.backward(a * self.act(z))


class OnlyGateAndUp(Right):
    diagnosis = "two-of-three"
    seen = "parameters() has nothing of down."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.projections["down"]


class OnlyGate(Right):
    diagnosis = "two-of-three"
    seen = "parameters() has nothing of up and down."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.projections["up"], self.projections["down"]


class DownUpdateUnused(Plain):
    """All six arrays are there, and two of them do nothing."""

    diagnosis = "two-of-three"

    def forward(self, x):
        super().forward(x)
        z, u = self.cache["x"]
        return self.mix(z, u) @ self.down.weight.T


class Transposed(Right):
    diagnosis = "transposed"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.down.lora.A, self.down.lora.B = self.down.lora.A.T.copy(), self.down.lora.B.T.copy()


class BothZero(Right):
    diagnosis = "both-zero"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in self.projections.values():
            layer.lora.A[...] = 0


class BothRandom(Right):
    diagnosis = "start-not-frozen"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng, **kwargs)
        for layer in self.projections.values():
            layer.lora.B[...] = 0.01 * rng.standard_normal(layer.lora.B.shape) if rng else 0.01


class OwnRandomness(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class AlwaysSeedZero(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=np.random.default_rng(0), **kwargs)


class NoShapeCheck(Right):
    diagnosis = "shapes-not-checked"

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        self.gate, self.up, self.down = (
            peft.LoRALinear(w, lora_rank=rank, lora_alpha=alpha, rng=rng) for w in (gate, up, down))
        self.projections = {"gate": self.gate, "up": self.up, "down": self.down}
        self.cache = {}


class AlphaNotOverR(Right):
    diagnosis = "alpha-not-over-r"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in self.projections.values():
            layer.lora.scaling *= layer.lora.rank


class NoActivation(Plain):
    diagnosis = "no-activation"
    at = "a fresh block equals the frozen one"

    def act(self, z):
        return z


class Sigmoid(Plain):
    diagnosis = "sigmoid-for-silu"

    def act(self, z):
        return sigmoid(z)


class Relu(Plain):
    diagnosis = "relu-for-silu"

    def act(self, z):
        return np.maximum(z, 0)


class Swapped(Plain):
    diagnosis = "gate-and-up-swapped"

    def mix(self, z, u):
        return z * self.act(u)


class SumForProduct(Plain):
    diagnosis = "sum-for-product"

    def mix(self, z, u):
        return self.act(z) + u


class Overflow(Plain):
    diagnosis = "overflow"

    def act(self, z):
        return z * np.exp(z) / (1 + np.exp(z))


class SlopeOfSigmoid(Plain):
    diagnosis = "wrong-silu-slope"

    def slope(self, z):
        return sigmoid(z) * (1 - sigmoid(z))


class SlopeOneTerm(Plain):
    diagnosis = "wrong-silu-slope"

    def slope(self, z):
        return sigmoid(z)


class SlopeForgotten(Plain):
    diagnosis = "wrong-silu-slope"

    def slope(self, z):
        return np.ones_like(z)


class GateWithoutUp(Plain):
    diagnosis = "gate-gradient-without-up"

    def back(self, a, z, u):
        return self.gate.backward(a * self.slope(z)) + self.up.backward(a * self.act(z))


class UpWithoutSilu(Plain):
    diagnosis = "up-gradient-without-silu"

    def back(self, a, z, u):
        return self.gate.backward(a * u * self.slope(z)) + self.up.backward(a)


class GradientsSwapped(Plain):
    diagnosis = "gate-and-up-swapped"

    def back(self, a, z, u):
        return self.up.backward(a * u * self.slope(z)) + self.gate.backward(a * self.act(z))


class FrozenDownLost(Plain):
    diagnosis = "frozen-gradient-lost"

    def back(self, a, z, u):
        return super().back(self.share, z, u)

    def backward(self, grad_output):
        lora = self.down.lora
        self.share = lora.scaling * grad_output @ lora.B @ lora.A
        return super().backward(grad_output)


class FrozenInputLost(Plain):
    diagnosis = "frozen-gradient-lost"

    def back(self, a, z, u):
        grad_z, grad_u = a * u * self.slope(z), a * self.act(z)
        grad_x = super().back(a, z, u)
        return grad_x - grad_z @ self.gate.weight - grad_u @ self.up.weight


class OnePath(Plain):
    diagnosis = "one-path-to-x"

    def back(self, a, z, u):
        self.up.backward(a * self.act(z))
        return self.gate.backward(a * u * self.slope(z))


class Accumulates(Right):
    diagnosis = "accumulates"

    def backward(self, grad_output):
        before = [layer.lora.A_grad for layer in self.projections.values()]
        grad_x = super().backward(grad_output)
        for layer, old in zip(self.projections.values(), before):
            if old is not None:
                layer.lora.A_grad = layer.lora.A_grad + old
        return grad_x


class MergesTwo(Right):
    diagnosis = "merged-two"

    def merge(self):
        return self.gate.merge()[0], self.up.merge()[0], self.down.weight.copy()


class MergeOrder(Right):
    diagnosis = "merged-order"

    def merge(self):
        gate, up, down = super().merge()
        return up, gate, down


class MergesInPlace(Right):
    diagnosis = "frozen-changed"
    at = "merging changes nothing, and can be done again"
    seen = "the frozen gate after merging is not bit for bit what it was."

    def merge(self):
        for layer in self.projections.values():
            layer.weight += layer.lora.delta_weight()
        return tuple(layer.weight for layer in self.projections.values())


class ChangesInput(Right):
    diagnosis = "changes-input"

    def backward(self, grad_output):
        grad_x = super().backward(grad_output)
        grad_output *= 0
        return grad_x


class DoubleSigmoid(Plain):
    """A constant array of float64 in the middle."""

    diagnosis = "wrong-dtype"
    seen = "forward: float32 in gave float64 out."

    def act(self, z):
        return z * sigmoid(z) * np.ones(1)


class DeadParameters(Right):
    diagnosis = "dead-parameters"

    def parameters(self):
        if not hasattr(self, "given"):  # the arrays until the first forward, copies after it
            return super().parameters()
        return self.given

    def forward(self, x):
        for layer in self.projections.values():
            layer.lora.A = layer.lora.A.copy()
        return super().forward(x)


class NoUpNames(Right):
    diagnosis = "signature"
    at = "the block can be made and trains six arrays"

    def parameters(self):
        return {key.replace(".", "_"): array for key, array in super().parameters().items()}


class BackwardFirst(Right):
    diagnosis = "backward-first"

    def backward(self, grad_output):
        return super().backward(grad_output) if self.cache else grad_output


class MergeWithoutScale(Right):
    diagnosis = "merge-without-scale"

    def merge(self):
        return tuple(layer.weight + layer.lora.B @ layer.lora.A
                     for layer in self.projections.values())


class AlphaNotPassed(Right):
    diagnosis = "alpha-not-passed"

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        super().__init__(gate, up, down, rank, rng=rng)


class SiluOnBoth(Right):
    diagnosis = "silu-on-both"

    def forward(self, x):
        super().forward(x)
        z, u = self.gate.forward(x), self.up.forward(x)
        return self.down.forward(z / (1 + np.exp(-z)) * u / (1 + np.exp(-u)))


class UpSigmoid(Right):
    diagnosis = "up-gradient-sigmoid"

    def backward(self, grad_output):
        u, sig, silu = self._remembered()
        a = self.down.backward(grad_output)
        return (self.gate.backward(a * u * (sig + silu * (1 - sig)))
                + self.up.backward(a * sig))


class SlopeSign(Right):
    diagnosis = "wrong-silu-slope"

    def backward(self, grad_output):
        u, sig, silu = self._remembered()
        a = self.down.backward(grad_output)
        return (self.gate.backward(a * u * (sig - silu * (1 - sig)))
                + self.up.backward(a * silu))


class ParametersAsList(Right):
    diagnosis = "wrong-type"
    seen = "parameters() gave list, expected dict."

    def parameters(self):
        return list(super().parameters().values())


class CountsTwo(Right):
    diagnosis = "two-of-three"
    seen = "num_parameters() gave 96, expected 144."

    def num_parameters(self):
        return self.gate.num_parameters() + self.down.num_parameters()


class CountsFrozen(Right):
    diagnosis = "values"
    seen = "num_parameters() gave 324, expected 144."

    def num_parameters(self):
        return super().num_parameters() + sum(w.weight.size for w in self.projections.values())


class OneCheckMissing(Right):
    """Refuses all but one kind of weights that do not fit."""

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        if self.accepts(gate, up, down):
            up, down = np.zeros_like(gate), np.zeros_like(gate.T)
        super().__init__(gate, up, down, rank, alpha, rng=rng)


class UpColumnsNotChecked(OneCheckMissing):
    diagnosis = "shapes-not-checked"
    seen = "an up of another shape raised no ValueError or TypeError."

    def accepts(self, gate, up, down):
        return up.shape[0] == gate.shape[0] and up.shape[1] != gate.shape[1]


class UpRowsNotChecked(OneCheckMissing):
    diagnosis = "shapes-not-checked"
    seen = "an up with fewer rows raised no ValueError or TypeError."

    def accepts(self, gate, up, down):
        return up.shape[0] != gate.shape[0] and up.shape[1] == gate.shape[1]


class DownNotChecked(OneCheckMissing):
    diagnosis = "shapes-not-checked"
    seen = "a transposed down raised no ValueError or TypeError."

    def accepts(self, gate, up, down):
        return up.shape == gate.shape == down.shape


class RankNotChecked(Right):
    diagnosis = "accepts-nonsense"
    seen = "rank=0 raised no ValueError or TypeError."

    def __init__(self, gate, up, down, rank=8, alpha=16.0, *, rng=None):
        super().__init__(gate, up, down, max(rank, 1), alpha, rng=rng)


class Flattened(Right):
    """One long vector for a matrix: as many numbers, another shape."""

    diagnosis = "wrong-shape"
    at = "each A is (rank, in), each B is (out, rank), in the weights' dtype"
    seen = "up.A has shape (18,), expected (3, 6)."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.up.lora.A = self.up.lora.A.ravel()


class OtherDtype(Right):
    """Arrays of a fixed dtype, whatever the weights have; here always the other one."""

    diagnosis = "wrong-dtype"
    at = "each A is (rank, in), each B is (out, rank), in the weights' dtype"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        other = {"float32": np.float64, "float64": np.float32}[self.gate.weight.dtype.name]
        for layer in self.projections.values():
            layer.lora.A, layer.lora.B = layer.lora.A.astype(other), layer.lora.B.astype(other)


class RowsOnly(Right):
    """Forgets to give the leading axes back."""

    diagnosis = "wrong-shape"
    at = "any leading axes"

    def forward(self, x):
        return super().forward(x).reshape(-1, x.shape[-1])


class ClipsInput(Right):
    """Keeps the exponential small by cutting the caller's array."""

    diagnosis = "changes-input"
    at = "large inputs stay finite; dtypes stay as they are"

    def forward(self, x):
        return super().forward(np.clip(x, -100, 100, out=x))


class GradientTransposed(Right):
    diagnosis = "wrong-shape"
    at = "six gradients, each with the shape of its array"
    seen = "the gradient of gate.A has shape (6, 3), expected (3, 6)."

    def gradients(self):
        return {key: grad.T for key, grad in super().gradients().items()}


class DownSeesSiluOnly(Plain):
    """The down projection's gradients with silu(z) for its input, without the factor u."""

    diagnosis = "values"
    seen = "the gradient of down.B is off by"

    def backward(self, grad_output):
        z, u = self._remembered()
        a = self.down.backward(grad_output)
        grad_x = self.back(a, z, u)
        self.down.forward(self.act(z))
        self.down.backward(grad_output)
        return grad_x


class UpWithSlope(Plain):
    diagnosis = "wrong-silu-slope"
    seen = "The gradient of up.B equals"

    def back(self, a, z, u):
        return self.gate.backward(a * u * self.slope(z)) + self.up.backward(a * self.slope(z))


class SlopeIsSilu(Plain):
    diagnosis = "wrong-silu-slope"
    seen = "The gradient of gate.B equals"

    def slope(self, z):
        return self.act(z)


class UpsGradientForBoth(Plain):
    diagnosis = "gate-and-up-swapped"
    seen = "The gradient of gate.B equals"

    def back(self, a, z, u):
        return self.gate.backward(a * self.act(z)) + self.up.backward(a * self.act(z))


class GateNegated(Plain):
    """A sign lost on the way: no mistake that the check knows."""

    diagnosis = "values"
    seen = "the gradient of gate.B is off by 2, relative to its largest entry."

    def back(self, a, z, u):
        return self.gate.backward(-a * u * self.slope(z)) + self.up.backward(a * self.act(z))


class UpPathOnly(Plain):
    diagnosis = "one-path-to-x"

    def back(self, a, z, u):
        self.gate.backward(a * u * self.slope(z))
        return self.up.backward(a * self.act(z))


class DifferenceOfPaths(Plain):
    diagnosis = "values"
    seen = "the gradient of x is off by"

    def back(self, a, z, u):
        return self.gate.backward(a * u * self.slope(z)) - self.up.backward(a * self.act(z))


class DoubleGradientOfX(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of x: float32 in gave float64 out."

    def backward(self, grad_output):
        return super().backward(grad_output).astype(np.float64)


class DoubleGradients(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of gate.A: float32 in gave float64 out."

    def gradients(self):
        return {key: grad.astype(np.float64) for key, grad in super().gradients().items()}


class MergesIntoTwo(Right):
    """Gate and up side by side in one weight, as some checkpoints have them."""

    diagnosis = "wrong-shape"
    seen = "merge() returned 2 things, expected 3."

    def merge(self):
        gate, up, down = super().merge()
        return np.concatenate([gate, up]), down


class MergesDownFirst(Right):
    diagnosis = "merged-order"
    seen = "The shapes are [(6, 10), (10, 6), (10, 6)]."

    def merge(self):
        gate, up, down = super().merge()
        return down, gate, up


class MergesTransposed(Right):
    diagnosis = "wrong-shape"
    at = "merge returns three weights"
    seen = "the merged gate has shape (6, 10), expected (10, 6)."

    def merge(self):
        return tuple(weight.T for weight in super().merge())


class MergesWithAlpha(Right):
    diagnosis = "alpha-not-over-r"
    seen = "the merged gate equals"

    def merge(self):
        return tuple(layer.weight + layer.lora.rank * layer.lora.delta_weight()
                     for layer in self.projections.values())


class MergesOneForBoth(Right):
    """Copied a line and forgot to change the name."""

    diagnosis = "values"
    seen = "the merged up is off by"

    def merge(self):
        gate, _, down = super().merge()
        return gate, gate, down


class TrainsFrozen(Right):
    """Updates a frozen weight along the way."""

    diagnosis = "frozen-changed"
    seen = "the frozen down after backward is not bit for bit what it was."

    def backward(self, grad_output):
        grad_x = super().backward(grad_output)
        self.down.weight -= self.down.weight.dtype.type(1e-3)
        return grad_x


class CopiesAsParameters(Right):
    diagnosis = "dead-parameters"
    at = "the block can be made and trains six arrays"
    seen = "Asked a second time, parameters() gave another array of gate.A."

    def parameters(self):
        return {name: array.copy() for name, array in super().parameters().items()}


class AddsX(Right):
    diagnosis = "extra-residual"

    def forward(self, x):
        return super().forward(x) + x


class NamesSwapped(Right):
    diagnosis = "names-swapped"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.projections = {"gate": self.up, "up": self.gate, "down": self.down}


class SlopeOfAnotherProduct(Plain):
    diagnosis = "wrong-silu-slope"

    def slope(self, z):
        return sigmoid(z) + z * (1 - sigmoid(z))


class SiluInPlace(Plain):
    diagnosis = "activation-in-place"

    def act(self, z):
        z *= sigmoid(z)
        return z


class OnlyTheFrozenWayBack(Plain):
    diagnosis = "update-not-passed"
    seen = "The gradient of up.B equals"

    def backward(self, grad_output):
        z, u = self._remembered()
        self.down.backward(grad_output)
        return self.back(grad_output @ self.down.weight, z, u)


class OnlyTheFrozenWayToX(Plain):
    diagnosis = "update-not-passed"
    seen = "the gradient of x equals"

    def back(self, a, z, u):
        grad_z, grad_u = a * u * self.slope(z), a * self.act(z)
        self.gate.backward(grad_z), self.up.backward(grad_u)
        return grad_z @ self.gate.weight + grad_u @ self.up.weight


class HalfTheGradient(Plain):
    """Matches no known mistake: the report says what is right all the same."""

    diagnosis = "values"
    seen = "the gradient of x is off by 0.5, relative to its largest entry. Right already: " \
           "down.B, down.A, up.B, up.A, gate.B, gate.A."

    def back(self, a, z, u):
        return super().back(a, z, u) / 2


class HalfOfAnArraysGradient(Right):
    """The same with another array: x is among what is right."""

    diagnosis = "values"
    seen = "the gradient of gate.A is off by 0.5, relative to its largest entry. Right already: " \
           "x, down.B, down.A, up.B, up.A, gate.B."

    def gradients(self):
        found = super().gradients()
        return found | {"gate.A": found["gate.A"] / 2}


class MergesNothing(Right):
    diagnosis = "merged-two"
    seen = "All three are the frozen weights"

    def merge(self):
        return tuple(layer.weight.copy() for layer in self.projections.values())


class OneUpdateFromSeedZero(Right):
    """One of the three starts was tried out by hand, and the seed stayed."""

    diagnosis = "ignores-rng"
    seen = "Two blocks made from different seeds have the same up.A."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.up.lora.A[...] = np.random.default_rng(0).standard_normal(self.up.lora.A.shape)


class NoneIsSeedZero(Right):
    diagnosis = "ignores-rng"
    seen = "Two blocks made without rng have the same gate.A."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng or np.random.default_rng(0), **kwargs)


class EqualRows(Right):
    """Draws one row and lets NumPy fill the others with it."""

    diagnosis = "starts-alike"
    seen = "gate.A has not the rank 3."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in self.projections.values():
            layer.lora.A[...] = layer.lora.A[:1]


class EqualStarts(Right):
    """Hands the same seed to all three."""

    diagnosis = "starts-alike"
    seen = "gate.A and up.A are the same."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.up.lora.A[...] = self.gate.lora.A


class OtherDefaultRank(Right):
    diagnosis = "signature"
    seen = "Made without a rank, gate.A has shape (4, 6), expected rank 8."

    def __init__(self, gate, up, down, rank=4, alpha=16.0, *, rng=None):
        super().__init__(gate, up, down, rank, alpha, rng=rng)


class OtherDefaultAlpha(Right):
    diagnosis = "signature"
    seen = "Made without rank and alpha, the block has another output"

    def __init__(self, gate, up, down, rank=8, alpha=8.0, *, rng=None):
        super().__init__(gate, up, down, rank, alpha, rng=rng)


class ShortNames(Right):
    diagnosis = "signature"
    at = "the block can be made and trains six arrays"
    seen = "The call itself failed."

    def __init__(self, gate, up, down, r=8, alpha=16.0, *, rng=None):
        super().__init__(gate, up, down, r, alpha, rng=rng)


class OnlyTheAs(Right):
    """Freezes every B, as some variants of LoRA freeze every A: nothing of a projection is gone."""

    diagnosis = "signature"
    seen = "parameters() has the keys ['down.A', 'gate.A', 'up.A']"

    def parameters(self):
        return {name: array for name, array in super().parameters().items() if name[-1] == "A"}


class WholeScale(Right):
    """alpha // rank: right for the usual numbers, of which one is a multiple of the other."""

    diagnosis = "values"
    seen = "the output is off by"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in self.projections.values():
            layer.lora.scaling //= 1


class DownColumnsNotChecked(OneCheckMissing):
    diagnosis = "shapes-not-checked"
    seen = "a down with fewer columns raised no"

    def accepts(self, gate, up, down):
        return len(down) == gate.shape[1] and down.shape[1] != len(gate)


class DownRowsNotChecked(OneCheckMissing):
    diagnosis = "shapes-not-checked"
    seen = "a down with fewer rows raised no"

    def accepts(self, gate, up, down):
        return len(down) != gate.shape[1] and down.shape[1] == len(gate)


class MeanOverTheBatch(Right):
    """Divides where an input has three axes: with two, each row is a token already."""

    diagnosis = "values"
    seen = "the gradient of down.B is off by"

    def backward(self, grad_output):
        self.size = len(grad_output) if grad_output.ndim == 3 else 1
        return super().backward(grad_output)

    def gradients(self):
        return {key: grad / self.size for key, grad in super().gradients().items()}


class FirstOfTheBatch(Right):
    """What was right for one sequence: the others are taken for copies of it."""

    diagnosis = "values"
    seen = "the output is off by"
    at = "each of the three updates acts, with s = alpha / r"

    def forward(self, x):
        out = super().forward(x)
        return np.broadcast_to(out[0], out.shape) if x.ndim == 3 else out


class Squeezes(Right):
    """Drops the axes of length one, and with them the batch of one sequence."""

    diagnosis = "wrong-shape"
    at = "any leading axes"

    def forward(self, x):
        return super().forward(x).squeeze()


class BackwardOfTheFirstForward(Right):
    """Remembers with setdefault, and so only once."""

    diagnosis = "kept"
    seen = "In call 2, with other numbers in the arrays and another input, the gradient of x is"

    def forward(self, x):
        first = self.cache
        out = super().forward(x)
        self.cache = first or self.cache
        return out


class WholeWeightsOnce(Plain):
    """The dense weights are made in the first forward and kept."""

    diagnosis = "kept"
    seen = "In call 2, with other numbers in the arrays and another input, the output is wrong."

    def forward(self, x):
        if not self.cache:
            self.dense = self.merge()
        gate, up, down = self.dense
        z, u = x @ gate.T, x @ up.T
        super().forward(x)
        return (self.mix(z, u)) @ down.T


class OneBufferForAll(Right):
    """Saves an allocation: every output of one shape is the same array."""

    diagnosis = "kept"
    seen = "Call 2 has changed what call 1 had returned."

    def forward(self, x):
        out = super().forward(x)
        if getattr(self, "buffer", out[:0]).shape != out.shape:
            self.buffer = np.empty_like(out)
        self.buffer[...] = out
        return self.buffer


class StepsByItself(Right):
    """Takes the optimizer's step, too."""

    diagnosis = "writes-parameters"
    seen = "gate.A is not bit for bit what it was."

    def backward(self, grad_output):
        back = super().backward(grad_output)
        for layer in self.projections.values():
            for name, grad in layer.gradients().items():
                array = getattr(layer.lora, name)
                array -= array.dtype.type(1e-3) * grad
        return back


class SingleOnTheWay(Right):
    """Multiplies in float32 what comes in and goes out as float64."""

    diagnosis = "wrong-dtype"
    seen = "forward: float64 in gave float64 out, but it is off by"

    def forward(self, x):
        return super().forward(x.astype(np.float32).astype(x.dtype))


class SingleOnTheWayBack(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of x: float64 in gave float64 out, but it is off by"

    def backward(self, grad_output):
        return super().backward(grad_output.astype(np.float32).astype(grad_output.dtype))


class MergesInDouble(Right):
    diagnosis = "wrong-dtype"
    seen = "the merged gate: float32 in gave float64 out."

    def merge(self):
        return tuple(weight.astype(np.float64) for weight in super().merge())


class MergesInSingle(Right):
    """peft.py makes float32 unless it is told otherwise, and so does many a file."""

    diagnosis = "wrong-dtype"
    seen = "the merged gate: float64 in gave float32 out."

    def merge(self):
        return tuple(weight.astype(np.float32) for weight in super().merge())


class MergesAndResets(Right):
    """As one does at the end of training: the update is in the weight now, so it goes to zero."""

    diagnosis = "merge-changes-block"
    seen = "gate.B after merging is not bit for bit what it was."

    def merge(self):
        merged = super().merge()
        for layer in self.projections.values():
            layer.lora.B[...] = 0
        return merged


class MergeTriesItsWeights(Right):
    """Looks whether the merged block gives the same, with an input of its own."""

    diagnosis = "merge-changes-block"
    seen = "With a merge between forward and backward, the gradient of"

    def merge(self):
        self.forward(np.ones((4, self.gate.in_features), self.gate.weight.dtype))
        return super().merge()


class MergesOnce(Right):
    diagnosis = "kept"
    seen = "Merged again after a step, gate is not the new one."

    def merge(self):
        if not hasattr(self, "merged"):
            self.merged = super().merge()
        return self.merged


class MergesIntoOneBuffer(Right):
    diagnosis = "kept"
    seen = "The second merge has changed the first one's gate."

    def merge(self):
        merged = super().merge()
        self.merged = getattr(self, "merged", merged)
        for buffer, weight in zip(self.merged, merged):
            buffer[...] = weight
        return self.merged


class OneRowForAll(Right):
    """Lets NumPy repeat a gradient that has too few rows."""

    diagnosis = "accepts-nonsense"
    seen = "a grad_output of one row for four raised no ValueError or TypeError."

    def backward(self, grad_output):
        rows = self._remembered()[0].shape[:-1]
        return super().backward(grad_output + np.zeros((*rows, 1), grad_output.dtype))


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
