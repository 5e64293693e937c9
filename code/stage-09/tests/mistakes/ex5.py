"""Exercise 5: plausible wrong answers, each with the diagnosis that it must get.

Each is a right solution with one thing wrong, as a student might have written it. Two the checker
can't tell apart: a prompt placed behind the input, and one hidden by the mask. Both are attention
without a prompt, and get the same diagnosis.
"""

import numpy as np
import peft
from ex5_prompted_lora import PromptedLoRAAttention as Right


class Own(Right):
    """A solution in small pieces, for mistakes in one of them."""

    def joined(self, x):
        return self.prompt.forward(x)

    def project(self, E):
        return self.q.forward(E), E @ self.wk.T, self.v.forward(E)

    def mask(self, n):
        return np.tri(n, dtype=bool)

    def scale(self):
        return float(self.d_model) ** -0.5

    def softmax(self, S):
        S = np.exp(S - S.max(axis=-1, keepdims=True))
        return S / S.sum(axis=-1, keepdims=True)

    def cut(self, Y):
        return Y[:, self.prompt.prompt_length:]

    def forward(self, embeds):
        E = self.joined(embeds)
        Q, K, V = self.project(E)
        S = np.where(self.mask(E.shape[1]), self.scale() * Q @ K.swapaxes(1, 2), -np.inf)
        Pi = self.softmax(S)
        self.cache = Q, K, V, Pi
        return self.cut(Pi @ V @ self.wo.T)

    def put_back(self, G):
        return np.concatenate([np.zeros_like(G[:, :1]).repeat(self.prompt.prompt_length, 1), G], 1)

    def softmax_backward(self, Pi, Phi):
        return Pi * (Phi - (Phi * Pi).sum(axis=-1, keepdims=True))

    def collect(self, gQ, gK, gV):
        return self.q.backward(gQ) + gK @ self.wk + self.v.backward(gV)

    def backward(self, grad_output):
        if self.cache is None:
            raise RuntimeError("forward first")
        Q, K, V, Pi = self.cache
        Gamma = self.put_back(grad_output) @ self.wo
        gS = self.softmax_backward(Pi, Gamma @ V.swapaxes(1, 2)) * float(self.d_model) ** -0.5
        gE = self.collect(gS @ K, gS.swapaxes(1, 2) @ Q, Pi.swapaxes(1, 2) @ Gamma)
        return self.prompt.backward(gE)


class NamesCollide(Right):
    diagnosis = "names-collide"

    @staticmethod
    def _named(q, v, prompt):
        return q | v | prompt


class SharedArrays(Right):
    diagnosis = "shared-arrays"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.v.lora.A = self.q.lora.A


class BothZero(Right):
    diagnosis = "both-zero"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.v.lora.A[...] = 0


class BothRandom(Right):
    diagnosis = "start-not-frozen"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.q.lora.B[...] = 0.1


class PromptReturned(Own):
    diagnosis = "prompt-scored"

    def cut(self, Y):
        return Y


class FirstRows(Own):
    diagnosis = "wrong-rows"

    def cut(self, Y):
        return Y[:, :Y.shape[1] - self.prompt.prompt_length]


class PromptBehind(Own):
    diagnosis = "prompt-ignored"

    def joined(self, x):
        E = super().joined(x)
        return np.roll(E, -self.prompt.prompt_length, axis=1)

    def cut(self, Y):
        return Y[:, :Y.shape[1] - self.prompt.prompt_length]


class PromptHidden(Own):
    diagnosis = "prompt-ignored"

    def mask(self, n):
        seen = np.tri(n, dtype=bool)
        seen[self.prompt.prompt_length:, :self.prompt.prompt_length] = False
        return seen


class PromptAsKeys(Own):
    diagnosis = "prompt-not-projected"

    def project(self, E):
        Q, K, V = super().project(E)
        P = self.prompt.prompt_length
        K, V = K.copy(), V.copy()
        K[:, :P] = V[:, :P] = E[:, :P]
        return Q, K, V


class NoMask(Own):
    diagnosis = "no-causal-mask"

    def mask(self, n):
        return np.ones((n, n), bool)


class MaskNotShifted(Own):
    diagnosis = "mask-not-shifted"

    def mask(self, n):
        return np.tri(n, n, -self.prompt.prompt_length, dtype=bool) | np.eye(n, dtype=bool)


class MaskTooOpen(Own):
    diagnosis = "mask-not-shifted"

    def mask(self, n):
        return np.tri(n, n, self.prompt.prompt_length, dtype=bool)


class DiagonalMasked(Own):
    diagnosis = "diagonal-masked"

    def mask(self, n):
        seen = np.tri(n, n, -1, dtype=bool)
        seen[0, 0] = True
        return seen


class NoScale(Own):
    diagnosis = "no-root-d"

    def scale(self):
        return 1.0


class SoftmaxOverQueries(Own):
    diagnosis = "softmax-axis"

    def softmax(self, S):
        S = np.exp(S - S.max(axis=-2, keepdims=True))
        return S / S.sum(axis=-2, keepdims=True)


class NoOutputProjection(Own):
    diagnosis = "no-output-projection"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        super().__init__(wq, wk, wv, wo, *args, **kwargs)
        self.wo = np.eye(len(wo), dtype=wo.dtype)


class OutputTransposed(Own):
    diagnosis = "no-output-projection"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        super().__init__(wq, wk, wv, wo, *args, **kwargs)
        self.wo = wo.T


class LoRAOnPromptOnly(Own):
    diagnosis = "lora-on-prompt-rows-only"

    def project(self, E):
        P = self.prompt.prompt_length
        Q, K, V = super().project(E)
        Q[:, P:], V[:, P:] = E[:, P:] @ self.q.weight.T, E[:, P:] @ self.v.weight.T
        return Q, K, V


class LoRAOnRealOnly(Own):
    diagnosis = "lora-on-real-rows-only"

    def project(self, E):
        P = self.prompt.prompt_length
        Q, K, V = super().project(E)
        Q[:, :P], V[:, :P] = E[:, :P] @ self.q.weight.T, E[:, :P] @ self.v.weight.T
        return Q, K, V


class NoLoRAOnV(Own):
    diagnosis = "lora-missing"

    def project(self, E):
        Q, K, V = super().project(E)
        return Q, K, E @ self.v.weight.T


class LoRAOnK(Own):
    diagnosis = "lora-on-k"

    def project(self, E):
        Q, K, V = super().project(E)
        frozen = E @ self.v.weight.T
        return Q, K + (V - frozen), frozen


class AlphaNotOverR(Right):
    diagnosis = "alpha-not-over-r"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for linear in (self.q, self.v):
            linear.lora.scaling *= linear.lora.rank


class PromptLost(Own):
    diagnosis = "prompt-gradient-lost"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = np.zeros_like(self.prompt.prompt)
        return back


class PromptMean(Own):
    diagnosis = "prompt-not-summed"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.prompt.prompt_grad / len(grad_output)
        return back


class PromptPerSequence(Own):
    diagnosis = "prompt-not-summed"

    def collect(self, gQ, gK, gV):
        self.gE = super().collect(gQ, gK, gV)
        return self.gE

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.gE[:, :self.prompt.prompt_length]
        return back


class FirstSequenceOnly(PromptPerSequence):
    diagnosis = "prompt-not-summed"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.prompt.prompt_grad[0]
        return back


class RowsPutBackWrong(Own):
    diagnosis = "rows-put-back-wrong"

    def put_back(self, G):
        return np.roll(super().put_back(G), -self.prompt.prompt_length, axis=1)


class SoftmaxJacobian(Own):
    diagnosis = "softmax-jacobian"

    def softmax_backward(self, Pi, Phi):
        return Pi * Phi


class NoScaleBack(Own):
    diagnosis = "no-root-d-in-backward"

    def softmax_backward(self, Pi, Phi):
        return super().softmax_backward(Pi, Phi) * float(self.d_model) ** 0.5


class KeyPathLost(Own):
    diagnosis = "path-lost"

    def collect(self, gQ, gK, gV):
        return self.q.backward(gQ) + self.v.backward(gV)


class ValuePathOnly(Own):
    diagnosis = "path-lost"

    def collect(self, gQ, gK, gV):
        self.q.backward(gQ)
        return self.v.backward(gV)


class FrozenLost(Own):
    diagnosis = "frozen-gradient-lost"

    def collect(self, gQ, gK, gV):
        through = self.q.backward(gQ) - gQ @ self.q.weight
        return through + self.v.backward(gV) - gV @ self.v.weight


class GradientsOverwritten(Right):
    diagnosis = "gradients-overwritten"

    def gradients(self):
        last = self.v.gradients()
        return self._named(last, last, self.prompt.gradients())


class TwoOptimizers(Right):
    """Keeps a copy for the second optimizer; the layer itself never sees that one's updates."""

    diagnosis = "not-all-arrays-move"

    def forward(self, embeds):
        if self.cache is None:
            self.own = peft.PromptTuning(self.d_model, self.prompt.prompt_length)
            self.first = self.prompt.prompt.copy()
        shown, self.prompt.prompt = self.prompt.prompt, self.first
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen < 3:  # still in step with what the check has filled in
            self.first[...] = shown
        out = super().forward(embeds)
        self.prompt.prompt = shown
        return out


class FrozenChanged(Right):
    diagnosis = "frozen-changed"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.wk *= 1 - 1e-7  # weight decay on everything
        return back


class Overflows(Own):
    diagnosis = "not-finite"

    def softmax(self, S):
        S = np.exp(S)
        return S / S.sum(axis=-1, keepdims=True)


class Accumulates(Own):
    diagnosis = "accumulates"

    def backward(self, grad_output):
        old = self.prompt.prompt_grad
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.prompt.prompt_grad + (0 if old is None else old)
        return back


class ForgetsDtype(Own):
    diagnosis = "wrong-dtype"

    def scale(self):
        return 1 / np.sqrt(self.d_model)  # a NumPy float64, which float32 arrays give way to


class RngIgnored(Right):
    diagnosis = "rng-ignored"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class OneSeedForAll(Right):
    diagnosis = "rng-ignored"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=np.random.default_rng(0), **kwargs)


class DividedByD(Own):
    diagnosis = "divided-by-d"

    def scale(self):
        return 1 / self.d_model


class MaskMultiplied(Own):
    diagnosis = "mask-multiplied"

    def forward(self, embeds):
        E = self.joined(embeds)
        Q, K, V = self.project(E)
        Pi = self.softmax(self.scale() * Q @ K.swapaxes(1, 2) * self.mask(E.shape[1]))
        self.cache = Q, K, V, Pi
        return self.cut(Pi @ V @ self.wo.T)


class MaskTransposed(Own):
    diagnosis = "mask-transposed"

    def mask(self, n):
        return np.tri(n, dtype=bool).T


class SoftmaxBackwardAxis(Own):
    diagnosis = "softmax-jacobian-axis"

    def softmax_backward(self, Pi, Phi):
        return Pi * (Phi - (Phi * Pi).sum(axis=-2, keepdims=True))


class KeysNotTransposed(Own):
    """gS @ Q where the transpose of gS belongs; the prompt's gradient alone can't tell."""

    diagnosis = "keys-not-transposed"

    def backward(self, grad_output):
        Q, K, V, Pi = self.cache if self.cache else self._first()
        Gamma = self.put_back(grad_output) @ self.wo
        gS = self.softmax_backward(Pi, Gamma @ V.swapaxes(1, 2)) * float(self.d_model) ** -0.5
        return self.prompt.backward(self.collect(gS @ K, gS @ Q, Pi.swapaxes(1, 2) @ Gamma))

    def _first(self):
        raise RuntimeError("forward first")


class KeyProjectionTurned(Own):
    diagnosis = "projection-turned"

    def collect(self, gQ, gK, gV):
        return self.q.backward(gQ) + gK @ self.wk.T + self.v.backward(gV)


class CopiesAsParameters(Right):
    diagnosis = "dead-parameters"

    def parameters(self):
        return {name: array.copy() for name, array in super().parameters().items()}


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
