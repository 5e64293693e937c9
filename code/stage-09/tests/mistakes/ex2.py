"""Exercise 2: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one thing wrong, as a student might have written it.
"""

import numpy as np
from ex2_lora_dropout import LoRADropoutLayer as Right


class FrozenPathToo(Right):
    diagnosis = "frozen-path"

    def forward(self, x, W):
        h = super().forward(x, W)
        if self.cache["mask"] is not None:
            h = h - x @ W.T + (x * self.cache["mask"]) @ W.T
        return h


class OnOutput(Right):
    diagnosis = "on-output"

    def forward(self, x, W):
        update = self.scaling * (x @ self.A.T) @ self.B.T
        if self.training:
            update = update * (self.rng.random(update.shape) >= self.dropout) / (1 - self.dropout)
        return x @ W.T + update


class OnBottleneck(Right):
    diagnosis = "on-bottleneck"

    def forward(self, x, W):
        thin = x @ self.A.T
        if self.training:
            thin = thin * (self.rng.random(thin.shape) >= self.dropout) / (1 - self.dropout)
        return x @ W.T + self.scaling * thin @ self.B.T


class Own(Right):
    """A solution whose mask is made by one small method, for mistakes in the mask itself."""

    def mask(self, shape):
        return (self.rng.random(shape) >= self.dropout) / (1 - self.dropout)

    def forward(self, x, W):
        self.M = self.mask(x.shape).astype(x.dtype) if self.training else np.ones_like(x)
        self.x, self.W = x, W
        return x @ W.T + self.scaling * (x * self.M) @ self.A.T @ self.B.T

    def backward(self, grad_output):
        if not hasattr(self, "x"):
            raise RuntimeError("forward first")
        x, M = self.x.reshape(-1, self.in_features), self.M.reshape(-1, self.in_features)
        G = grad_output.reshape(-1, self.out_features)
        grad_x = self.gradients_of(x, M, G)
        return grad_x.reshape(self.x.shape)

    def gradients_of(self, x, M, G):
        s = self.scaling
        self.B_grad = s * G.T @ ((x * M) @ self.A.T)
        self.A_grad = s * (G @ self.B).T @ (x * M)
        return G @ self.W + s * G @ self.B @ self.A * M


class NoScale(Own):
    diagnosis = "no-inverted-scale"

    def mask(self, shape):
        return (self.rng.random(shape) >= self.dropout).astype(float)


class RateIsKeepRate(Own):
    diagnosis = "rate-is-keep-rate"

    def mask(self, shape):
        if self.dropout == 0:
            return np.ones(shape)
        return (self.rng.random(shape) < self.dropout) / self.dropout


class WrongRate(Own):
    diagnosis = "wrong-rate"

    def mask(self, shape):  # a Gaussian where a uniform belongs
        return (self.rng.standard_normal(shape) >= self.dropout) / (1 - self.dropout)

    def forward(self, x, W):
        training, self.training = self.training, self.training and self.dropout > 0
        h = super().forward(x, W)
        self.training = training
        return h


class FixedMask(Own):
    diagnosis = "fixed-mask"

    def mask(self, shape):
        if getattr(self, "first", None) is None or self.first.shape != shape:
            self.first = super().mask(shape)
        return self.first


class SharedMask(Own):
    diagnosis = "shared-mask"

    def mask(self, shape):
        return np.broadcast_to(super().mask(shape[-1]), shape)


class NoDropout(Own):
    diagnosis = "no-dropout"

    def mask(self, shape):
        return np.ones(shape)


class ActiveInEvaluation(Own):
    diagnosis = "active-in-evaluation"

    def forward(self, x, W):
        flag, self.training = self.training, True
        h = super().forward(x, W)
        self.training = flag
        return h


class ScaledInEvaluation(Own):
    diagnosis = "scaled-in-evaluation"

    def forward(self, x, W):
        if self.training:
            return super().forward(x, W)
        return x @ W.T + (1 - self.dropout) * self.scaling * x @ self.A.T @ self.B.T


class OtherMaskInBackward(Own):
    diagnosis = "other-mask-in-backward"

    def gradients_of(self, x, M, G):
        if self.training:
            M = self.mask(x.shape).astype(x.dtype)
        return super().gradients_of(x, M, G)


class FlagInBackward(Own):
    diagnosis = "flag-in-backward"

    def gradients_of(self, x, M, G):
        return super().gradients_of(x, M if self.training else np.ones_like(x), G)


class UnmaskedA(Own):
    diagnosis = "unmasked-a-gradient"

    def gradients_of(self, x, M, G):
        grad_x = super().gradients_of(x, M, G)
        self.A_grad = self.scaling * (G @ self.B).T @ x
        return grad_x


class UnmaskedB(Own):
    diagnosis = "unmasked-b-gradient"

    def gradients_of(self, x, M, G):
        grad_x = super().gradients_of(x, M, G)
        self.B_grad = self.scaling * G.T @ (x @ self.A.T)
        return grad_x


class UnmaskedX(Own):
    diagnosis = "unmasked-x-gradient"

    def gradients_of(self, x, M, G):
        super().gradients_of(x, M, G)
        return G @ self.W + self.scaling * G @ self.B @ self.A


class UnscaledX(Own):
    diagnosis = "unscaled-x-gradient"

    def gradients_of(self, x, M, G):
        super().gradients_of(x, M, G)
        return G @ self.W + self.scaling * G @ self.B @ self.A * (M > 0)


class MaskOnAll(Own):
    diagnosis = "mask-on-whole-gradient"

    def gradients_of(self, x, M, G):
        super().gradients_of(x, M, G)
        return (G @ self.W + self.scaling * G @ self.B @ self.A) * M


class FrozenGradientLost(Own):
    diagnosis = "frozen-gradient-lost"

    def gradients_of(self, x, M, G):
        return super().gradients_of(x, M, G) - G @ self.W


class NoSInBackward(Own):
    diagnosis = "no-s-in-backward"

    def gradients_of(self, x, M, G):
        s, self.scaling = self.scaling, 1.0
        grad_x = super().gradients_of(x, M, G)
        self.scaling = s
        return grad_x


class Accumulates(Own):
    diagnosis = "accumulates"

    def gradients_of(self, x, M, G):
        A, B = self.A_grad, self.B_grad
        grad_x = super().gradients_of(x, M, G)
        if A is not None:
            self.A_grad, self.B_grad = self.A_grad + A, self.B_grad + B
        return grad_x


class MergedWithMask(Right):
    diagnosis = "merged-with-mask"

    def merge_weights(self, W):
        mask = (self.rng.random(self.in_features) >= self.dropout) / (1 - self.dropout)
        return (W + self.scaling * self.B @ (self.A * mask)).astype(W.dtype)


class MergedWithLastMask(Right):
    diagnosis = "merged-with-mask"

    def merge_weights(self, W):
        mask = self.cache.get("mask")
        mask = 1.0 if mask is None else mask.reshape(-1, self.in_features)[0]
        return (W + self.scaling * self.B @ (self.A * mask)).astype(W.dtype)


class MergedWithRate(Right):
    diagnosis = "merged-with-rate"

    def merge_weights(self, W):
        return W + (1 - self.dropout) * self.delta_weight()


class AlphaNotOverR(Right):
    diagnosis = "alpha-not-over-r"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scaling *= self.rank


class Transposed(Right):
    diagnosis = "transposed"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.A, self.B = self.A.T.copy(), self.B.T.copy()


class BothZero(Right):
    diagnosis = "both-zero"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.A[...] = 0


class BothRandom(Right):
    diagnosis = "start-not-frozen"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.B[...] = self.rng.standard_normal(self.B.shape)


class IgnoresRng(Own):
    diagnosis = "ignores-rng"

    def mask(self, shape):
        return (np.random.default_rng().random(shape) >= self.dropout) / (1 - self.dropout)


class NeedsRng(Right):
    """Keeps the argument instead of a generator, and fails when it is left out."""

    diagnosis = "raised"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng, **kwargs)
        self.rng = rng


class GlobalRandom(Own):
    diagnosis = "global-random"

    def mask(self, shape):
        return (np.random.rand(*shape) >= self.dropout) / (1 - self.dropout)


class RateNotChecked(Right):
    diagnosis = "rate-not-checked"

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, dropout=0.1, **kwargs):
        super().__init__(in_features, out_features, rank, alpha, 0.1, **kwargs)
        self.dropout = dropout


class DropsInPlace(Right):
    diagnosis = "changes-input"

    def forward(self, x, W):
        h = super().forward(x, W)
        if self.cache["mask"] is not None:
            x *= self.cache["mask"]
        return h


class ForgetsDtype(Right):
    diagnosis = "wrong-dtype"

    def forward(self, x, W):
        return super().forward(x, W).astype(np.float64)


class DoubleMask(Right):
    """The stumbling block of most: a mask divided by 1 - p is float64."""

    diagnosis = "wrong-dtype"

    def forward(self, x, W):
        h = super().forward(x, W)
        return h if self.cache["mask"] is None else h.astype(np.float64)


class DeadParameters(Right):
    diagnosis = "dead-parameters"

    def merge_weights(self, W):  # keeps its own B A from the start of the step
        if not hasattr(self, "kept"):
            self.kept = self.delta_weight()
        return W + self.kept


class ReturnsList(Right):
    diagnosis = "wrong-type"

    def forward(self, x, W):
        return super().forward(x, W).tolist()


class Raises(Right):
    diagnosis = "raised"

    def forward(self, x, W):
        return x @ W


class Endless(Right):
    diagnosis = "too-long"

    def forward(self, x, W):
        while self.rank:
            pass


class NoDropoutParameter(Right):
    diagnosis = "signature"

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, rate=0.1, *,
                 dtype=np.float32, rng=None):
        super().__init__(in_features, out_features, rank, alpha, rate, dtype=dtype, rng=rng)


class BackwardFirst(Right):
    diagnosis = "backward-first"

    def backward(self, grad_output):
        return super().backward(grad_output) if self.cache else grad_output @ self.B @ self.A


class MaskPerRow(Own):
    diagnosis = "mask-per-row"

    def mask(self, shape):
        return super().mask((*shape[:-1], 1)) * np.ones(shape)


class TimesKeepRate(Own):
    diagnosis = "wrong-factor"

    def mask(self, shape):
        return (self.rng.random(shape) >= self.dropout) * (1 - self.dropout)


class DividedByRate(Own):
    diagnosis = "wrong-factor"

    def mask(self, shape):
        return (self.rng.random(shape) >= self.dropout) / self.dropout


class RngNotHandedOn(Right):
    diagnosis = "ignores-rng"

    def __init__(self, in_features, out_features, rank=8, alpha=16.0, dropout=0.1, *,
                 dtype=np.float32, rng=None):
        super().__init__(in_features, out_features, rank, alpha, dropout, dtype=dtype)
        self.rng = np.random.default_rng(rng)


class OneSeedForAllMasks(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rng = np.random.default_rng(0)


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
