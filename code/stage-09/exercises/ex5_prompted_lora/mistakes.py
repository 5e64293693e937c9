"""Exercise 5: plausible wrong answers, each with the diagnosis that it must get.

Each is a right solution with one thing wrong, as a student might have written it. Two the checker
can't tell apart: a prompt placed behind the input, and one hidden by the mask. Both are attention
without a prompt, and get the same diagnosis.

`diagnosis` is what it must be called. Where another test could give the same name, `seen` says how
the report of what was seen begins, and `at` which test has to find it.
"""

import numpy as np

import peft
from exercises.ex5_prompted_lora.solution import PromptedLoRAAttention as Right


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


class OtherNames(Right):
    diagnosis = "signature"
    seen = "parameters() has the keys ['prompt', 'q_A', 'q_B', 'v_A', 'v_B']"
    at = "the layer can be made, and one dictionary names all five arrays"

    def parameters(self):
        return {name.replace(".", "_"): array for name, array in super().parameters().items()}


class RenamesTheLength(Right):
    diagnosis = "signature"
    at = "the layer can be made, and one dictionary names all five arrays"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, length=20, *, rng=None):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, length, rng=rng)


class NoDefaults(Right):
    diagnosis = "signature"
    at = "the layer can be made, and one dictionary names all five arrays"

    def __init__(self, wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length, *, rng=None):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length, rng=rng)


class AcceptsNoPrompt(Right):
    """Replaces a size that makes no sense by one that does."""

    diagnosis = "accepts-nonsense"
    seen = "prompt_length=0 raised no"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, prompt_length=20, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length or 1, **kwargs)


class AcceptsNoRank(Right):
    diagnosis = "accepts-nonsense"
    seen = "lora_rank=0 raised no"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, *args, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank or 1, *args, **kwargs)


class AcceptsOtherWidth(Right):
    """Looks at its weights only when it needs them."""

    diagnosis = "accepts-nonsense"
    seen = "wk with fewer columns raised no"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        super().__init__(wq, wq, wv, wo, *args, **kwargs)
        self.wk = wk


class TransposedA(Right):
    diagnosis = "wrong-shape"
    seen = "q.A has shape (5, 2), expected (2, 5)"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.q.lora.A = self.q.lora.A.T.copy()


class OtherDtype(Right):
    diagnosis = "wrong-dtype"
    seen = "prompt is float"

    def __init__(self, wq, *args, **kwargs):
        super().__init__(wq, *args, **kwargs)
        other = np.float32 if wq.dtype == np.float64 else np.float64
        self.prompt.prompt = self.prompt.prompt.astype(other)


class CountsLoRAOnly(Right):
    diagnosis = "values"
    seen = "num_parameters() gave 40, expected 4 r d + P d = 55"

    def num_parameters(self):
        return self.q.num_parameters() + self.v.num_parameters()


class ListOfArrays(Right):
    diagnosis = "wrong-type"
    seen = "parameters() gave list, expected dict."

    def parameters(self):
        return list(super().parameters().values())


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


class DropsBatchOfOne(Own):
    diagnosis = "wrong-shape"
    seen = "the output has shape (6, 5), expected (1, 6, 5)"

    def cut(self, Y):
        Y = super().cut(Y)
        return Y[0] if len(Y) == 1 else Y


class DropsTimeOfOne(Own):
    diagnosis = "wrong-shape"
    seen = "the output has shape (2, 5), expected (2, 1, 5)"

    def cut(self, Y):
        Y = super().cut(Y)
        return Y[:, 0] if Y.shape[1] == 1 else Y


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


class LooseMask(Own):
    """Hides with a number that is large only beside small scores."""

    diagnosis = "no-causal-mask"
    seen = "A change at position 3 changed the outputs before it."

    def forward(self, embeds):
        E = self.joined(embeds)
        Q, K, V = self.project(E)
        S = self.scale() * Q @ K.swapaxes(1, 2) - 40 * ~self.mask(E.shape[1])
        Pi = self.softmax(S)
        self.cache = Q, K, V, Pi
        return self.cut(Pi @ V @ self.wo.T)


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
    at = "a fresh layer is the frozen attention behind its prompt"

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


class NoLoRAOnQ(Own):
    diagnosis = "lora-missing"

    def project(self, E):
        Q, K, V = super().project(E)
        return E @ self.q.weight.T, K, V


class NoLoRA(Own):
    diagnosis = "lora-missing"

    def project(self, E):
        Q, K, V = super().project(E)
        return E @ self.q.weight.T, K, E @ self.v.weight.T


class LoRAsExchanged(Right):
    diagnosis = "values"
    seen = "the output is off by"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown = self._named(self.q.parameters(), self.v.parameters(),
                                 self.prompt.parameters())
        self.q.lora, self.v.lora = self.v.lora, self.q.lora

    def parameters(self):
        return self.shown


class LoRAOnK(Own):
    diagnosis = "lora-on-k"

    def project(self, E):
        Q, K, V = super().project(E)
        frozen = E @ self.v.weight.T
        return Q, K + (V - frozen), frozen


class AlphaNotOverR(Right):
    diagnosis = "alpha-not-over-r"
    at = "the output with all five arrays filled"

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


class NoSInA(Own):
    diagnosis = "values"
    seen = "the gradient of v.A is off by"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.v.lora.A_grad = self.v.lora.A_grad / self.v.lora.scaling
        return back


class KeepsAnAxis(Own):
    diagnosis = "wrong-shape"
    seen = "the gradient of prompt has shape (1, 3, 5), expected (3, 5)"
    at = "gradients have the shapes of what they belong to"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.prompt.prompt_grad[None]
        return back


class FrontRowsGoBack(Own):
    diagnosis = "values"
    seen = "the gradient of the input is off by"

    def backward(self, grad_output):
        super().backward(grad_output)
        return self.gE[:, :grad_output.shape[1]]

    def collect(self, gQ, gK, gV):
        self.gE = super().collect(gQ, gK, gV)
        return self.gE


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


class CachedPrompt(Right):
    """Computes with the prompt as it was when forward was first called."""

    diagnosis = "not-all-arrays-move"
    seen = "The prompt was changed in place, and no output changed."

    def forward(self, embeds):
        if self.cache is None:
            self.first = self.prompt.prompt.copy()
        shown, self.prompt.prompt = self.prompt.prompt, self.first
        out = super().forward(embeds)
        self.prompt.prompt = shown
        return out


class CachedPromptKeys(Own):
    """Keeps the prompt's keys, as one keeps those of past tokens when a text is generated."""

    diagnosis = "values"
    seen = "the output after a step on prompt is off by"

    def project(self, E):
        Q, K, V = super().project(E)
        P = self.prompt.prompt_length
        if self.cache is None:
            self.kept = K[0, :P].copy()
        K[:, :P] = self.kept
        return Q, K, V


class TwoOptimizers(Right):
    """Keeps a copy for the second optimizer; the layer itself never sees that one's updates."""

    diagnosis = "not-all-arrays-move"
    seen = "A step on prompt did not change the output."

    def forward(self, embeds):
        if self.cache is None:
            self.own = peft.PromptTuning(self.d_model, self.prompt.prompt_length)
            self.first = self.prompt.prompt.copy()
        shown, self.prompt.prompt = self.prompt.prompt, self.first
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes < 4:  # still in step with what the check has filled in
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
    at = "scores of a thousand do not overflow"

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


class BackwardFirst(Right):
    diagnosis = "backward-first"

    def backward(self, grad_output):
        if self.cache is None:
            self.forward(np.zeros_like(grad_output))
        return super().backward(grad_output)


class GradientsInDouble(Own):
    diagnosis = "wrong-dtype"
    seen = "the gradient of prompt: float32 in gave float64 out"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt_grad = self.prompt.prompt_grad.astype(np.float64)
        return back


class ForgetsDtype(Own):
    diagnosis = "wrong-dtype"
    seen = "forward: float32 in gave float64 out"

    def scale(self):
        return 1 / np.sqrt(self.d_model)  # a NumPy float64, which float32 arrays give way to


class RngIgnored(Right):
    diagnosis = "rng-ignored"
    seen = "Two layers from one seed differ in"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class OneSeedForAll(Right):
    diagnosis = "rng-ignored"
    seen = "Two layers from different seeds have the same"

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


class OnlyShapesThatAgree(Right):
    """Compares the four shapes with each other, and asks for no square."""

    diagnosis = "accepts-nonsense"
    seen = "four weights of shape (5, 3) raised no"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        if any(w.shape != wq.shape for w in (wk, wv, wo)):
            raise ValueError("the weights must have one shape")
        if wq.shape[0] == wq.shape[1]:
            super().__init__(wq, wk, wv, wo, *args, **kwargs)


class AlphaDropped(Right):
    diagnosis = "alpha-not-passed"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, *args, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank, 16.0, *args, **kwargs)


class MaskBehindTheSoftmax(Own):
    diagnosis = "mask-after-softmax"

    def mask(self, n):
        return np.ones((n, n), dtype=bool)

    def softmax(self, S):
        return super().softmax(S) * np.tri(S.shape[-1], dtype=S.dtype)


class OneMaximum(Own):
    diagnosis = "maximum-of-more"

    def softmax(self, S):
        S = np.exp(S - S.max())
        return S / S.sum(axis=-1, keepdims=True)


class KeysNotTurnedInForward(Own):
    diagnosis = "weight-not-transposed"

    def project(self, E):
        return self.q.forward(E), E @ self.wk, self.v.forward(E)


class ValuesNotTransposed(Own):
    diagnosis = "values-not-transposed"

    def collect(self, gQ, gK, gV):
        Pi = self.cache[-1]
        return super().collect(gQ, gK, Pi @ np.linalg.solve(Pi.swapaxes(1, 2), gV))


class OutputProjectionTurned(Own):
    diagnosis = "output-projection-turned"

    def backward(self, grad_output):
        self.wo, kept = self.wo.T.copy(), self.wo
        try:
            return super().backward(grad_output)
        finally:
            self.wo = kept


class NewArraysInForward(Own):
    """Makes A anew in each forward, with the same numbers: an optimizer holds the old one."""

    diagnosis = "dead-parameters"
    seen = "A forward or backward has put another array in the place of q.A."

    def forward(self, embeds):
        out = super().forward(embeds)
        self.q.lora.A = self.q.lora.A.copy()
        return out


class KeepsTheFirstForward(Own):
    """Right in every test that makes one step."""

    diagnosis = "kept"
    seen = "In call 2, with other numbers in the arrays and another input, the gradient of x is"

    def forward(self, embeds):
        first = self.cache
        out = super().forward(embeds)
        self.cache = first or self.cache
        return out


class CopiesAsParameters(Right):
    diagnosis = "dead-parameters"

    def parameters(self):
        return {name: array.copy() for name, array in super().parameters().items()}


class PromptNotNamed(Right):
    """Nothing collides; the prompt was forgotten."""

    diagnosis = "signature"
    seen = "parameters() has the keys ['q.A', 'q.B', 'v.A', 'v.B'], expected"

    def parameters(self):
        return {name: array for name, array in super().parameters().items() if name != "prompt"}


class NoneIsSeedZero(Right):
    diagnosis = "rng-ignored"
    seen = "Two layers made without rng have the same q.A."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng or np.random.default_rng(0), **kwargs)


class PromptOfZeros(Right):
    diagnosis = "starts-alike"
    seen = "prompt has not the rank 3."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prompt.prompt[...] = 0


class EqualRows(Right):
    """Draws one row and lets NumPy fill the others with it."""

    diagnosis = "starts-alike"
    seen = "q.A has not the rank 2."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.q.lora.A[...] = self.q.lora.A[:1]


class EqualStarts(Right):
    """Hands the same seed to both."""

    diagnosis = "starts-alike"
    seen = "v.A and q.A are the same."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.v.lora.A[...] = self.q.lora.A


class OtherDefaultRank(Right):
    diagnosis = "signature"
    seen = "Made from the weights alone, q.A has shape (4, 5) and the prompt (20, 5)"

    def __init__(self, wq, wk, wv, wo, lora_rank=4, lora_alpha=16.0, prompt_length=20, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length, **kwargs)


class OtherDefaultLength(Right):
    diagnosis = "signature"
    seen = "Made from the weights alone, q.A has shape (8, 5) and the prompt (10, 5)"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, prompt_length=10, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length, **kwargs)


class OtherDefaultAlpha(Right):
    diagnosis = "signature"
    seen = "Made from the weights alone, the layer has another output"

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=8.0, prompt_length=20, **kwargs):
        super().__init__(wq, wk, wv, wo, lora_rank, lora_alpha, prompt_length, **kwargs)


class WholeScale(Right):
    """alpha // rank: right for the usual numbers, of which one is a multiple of the other."""

    diagnosis = "values"
    seen = "the output is off by"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for linear in (self.q, self.v):
            linear.lora.scaling //= 1


class ShortNames(Right):
    diagnosis = "signature"
    at = "the layer can be made, and one dictionary names all five arrays"
    seen = "The call itself failed."

    def __init__(self, q, k, v, o, lora_rank=8, lora_alpha=16.0, prompt_length=20, **kwargs):
        super().__init__(q, k, v, o, lora_rank, lora_alpha, prompt_length, **kwargs)


class AcceptsAnyOutput(Right):
    """Leaves out the one weight that is used last."""

    diagnosis = "accepts-nonsense"
    seen = "wo with fewer columns raised no"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        super().__init__(wq, wk, wv, wq, *args, **kwargs)
        self.wo = wo


class AcceptsAnyValues(Right):
    """The one that was added last has no line of its own among the checks."""

    diagnosis = "accepts-nonsense"
    seen = "wv with fewer columns raised no"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        super().__init__(wq, wk, wv if wv.shape == wq.shape else wq, wo, *args, **kwargs)


class ChecksOnlyColumns(Right):
    diagnosis = "accepts-nonsense"
    seen = "wq with fewer rows raised no"

    def __init__(self, wq, wk, wv, wo, *args, **kwargs):
        square = np.resize(wq, (wq.shape[1],) * 2)
        super().__init__(*(w if len(w) == w.shape[1] else square for w in (wq, wk, wv, wo)),
                         *args, **kwargs)
        if any(w.shape[1] != wq.shape[1] for w in (wq, wk, wv, wo)):
            raise ValueError("the widths differ")


class RepeatsOneColumn(Own):
    """Lets NumPy repeat an input that is too narrow."""

    diagnosis = "accepts-nonsense"
    seen = "an input of width 1 raised no ValueError or TypeError."

    def joined(self, x):
        return super().joined(x + np.zeros(self.d_model, x.dtype))


class HiddenMaximum(Own):
    """Each row's own maximum, but of what is hidden from it, too; hidden behind the exponential."""

    diagnosis = "maximum-of-more"

    def mask(self, n):
        return np.ones((n, n), dtype=bool)

    def softmax(self, S):
        S = np.exp(S - S.max(axis=-1, keepdims=True)) * np.tri(S.shape[-1], dtype=S.dtype)
        return S / S.sum(axis=-1, keepdims=True)


class SqueezesBack(Own):
    """Right for two sequences; with one, the gradient loses an axis."""

    diagnosis = "wrong-shape"
    at = "gradients have the shapes of what they belong to"

    def backward(self, grad_output):
        return super().backward(grad_output).squeeze()


class NothingToSum(Own):
    """Takes a batch of one for the case without a batch, and sums over the prompt."""

    diagnosis = "values"
    seen = "the gradient of prompt is off by"

    def backward(self, grad_output):
        back = super().backward(grad_output)
        if len(grad_output) == 1:
            self.prompt.prompt_grad[:] = self.prompt.prompt_grad.sum(axis=0)
        return back


class OneBufferForAll(Own):
    """Saves an allocation: every output of one shape is the same array."""

    diagnosis = "kept"
    seen = "Call 2 has changed what call 1 had returned."

    def forward(self, embeds):
        out = super().forward(embeds)
        if getattr(self, "buffer", out[:0]).shape != out.shape:
            self.buffer = np.empty_like(out)
        self.buffer[...] = out
        return self.buffer


class StepsByItself(Own):
    """Takes the optimizer's step, too."""

    diagnosis = "writes-parameters"
    seen = "prompt is not bit for bit what it was."

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.prompt.prompt -= self.prompt.prompt.dtype.type(1e-3) * self.prompt.prompt_grad
        return back


class SingleOnTheWay(Own):
    """A mask of float32 makes the scores float32, and the values bring float64 back."""

    diagnosis = "wrong-dtype"
    seen = "forward: float64 in gave float64 out, but it is off by"

    def softmax(self, S):
        return super().softmax(S.astype(np.float32)).astype(S.dtype)


class SingleOnTheWayBack(Own):
    diagnosis = "wrong-dtype"
    seen = "the gradient of x: float64 in gave float64 out, but it is off by"

    def softmax_backward(self, Pi, Phi):
        return super().softmax_backward(Pi.astype(np.float32), Phi).astype(Pi.dtype)


class OneSequenceForAll(Own):
    """Lets NumPy repeat a gradient that has too few sequences."""

    diagnosis = "accepts-nonsense"
    seen = "a grad_output of one sequence for two raised no ValueError or TypeError."


class OnePositionForAll(Own):
    """Compares the batch, and puts the gradient into zeros: NumPy repeats one position."""

    diagnosis = "accepts-nonsense"
    seen = "a grad_output of one position for six raised no ValueError or TypeError."

    def put_back(self, G):
        Y = np.zeros_like(self.cache[0])
        if len(G) != len(Y):
            raise ValueError("another batch than in forward")
        Y[:, self.prompt.prompt_length:] = G
        return Y


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
