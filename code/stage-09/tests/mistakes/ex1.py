"""Exercise 1: plausible wrong answers, each with the diagnosis that it must get."""

import numpy as np
import peft
from ex1_lora_feed_forward import LoRAFeedForward as Right
from ex1_lora_feed_forward import sigmoid


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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.projections["down"]


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


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
