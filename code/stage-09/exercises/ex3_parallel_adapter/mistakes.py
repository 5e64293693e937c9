"""Exercise 3: plausible wrong answers, each with the diagnosis that it must get.

Some say as well at which test the check must notice (`at`), and how the report's "Seen" must begin
(`seen`): so a second mistake of the same kind is told from the first.
"""

import numpy as np

from exercises.ex3_parallel_adapter.solution import ParallelAdapter as Right


class Short(Right):
    """The same in few lines, with small methods to get wrong."""

    def act(self, z):
        return np.maximum(z, 0)

    def path(self, x):
        return self.act(x @ self.W_down) @ self.W_up

    def forward(self, x):
        self.x = x
        return self.join(x, self.sublayer.forward(x))

    def join(self, x, f):
        return f + self.scale * self.path(x)

    def backward(self, grad_output):
        if not hasattr(self, "x"):
            raise RuntimeError("forward first")
        x, G = (array.reshape(-1, self.d_model) for array in (self.x, grad_output))
        a = self.act(x @ self.W_down)
        pulled = self.sublayer.backward(grad_output).reshape(G.shape)
        return self.back(x, a, G, pulled).reshape(self.x.shape)

    def back(self, x, a, G, pulled):
        self.W_up_grad = self.scale * a.T @ G
        D = self.scale * (G @ self.W_up.T) * (a > 0)
        self.W_down_grad = x.T @ D
        return pulled + D @ self.W_down.T


class OwnResidual(Short):
    diagnosis = "own-residual"

    def join(self, x, f):
        return x + f + self.scale * self.path(x)


class ReadsOutput(Short):
    diagnosis = "reads-output"

    def join(self, x, f):
        return f + self.scale * self.path(f)


class BeforeSublayer(Short):
    diagnosis = "before-sublayer"

    def forward(self, x):
        self.x = x
        return self.sublayer.forward(x + self.scale * self.path(x))


class NoScale(Short):
    diagnosis = "no-scale"

    def join(self, x, f):
        return f + self.path(x)


class ScalesAll(Short):
    diagnosis = "scale-on-sublayer"

    def join(self, x, f):
        return self.scale * (f + self.path(x))


class ScaleTwice(Short):
    diagnosis = "scale-twice"

    def join(self, x, f):
        return f + self.scale * (self.scale * self.path(x))


class NoNonlinearity(Short):
    diagnosis = "no-nonlinearity"

    def act(self, z):
        return z


class SublayerLost(Short):
    diagnosis = "sublayer-lost"

    def join(self, x, f):
        return self.scale * self.path(x)


class InPlace(Short):
    diagnosis = "writes-into-sublayer"

    def join(self, x, f):
        f += self.scale * self.path(x)
        return f


class DefaultScale(Right):
    diagnosis = "default-scale"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=1.0, **kwargs):
        super().__init__(sublayer, d_model, bottleneck_dim, scale, **kwargs)


class Transposed(Right):
    diagnosis = "transposed"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_down, self.W_up = self.W_down.T.copy(), self.W_up.T.copy()


class UpRandom(Right):
    """The start of the sequential Adapter of the book."""

    diagnosis = "start-not-frozen"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_up[...] = self.W_down.T


class BothZero(Right):
    diagnosis = "never-learns"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_down[...] = 0


class WrongOneZero(Right):
    diagnosis = "never-learns"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_up[...] = self.W_down.T
        self.W_down[...] = 0


class OwnRandomness(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


class AlwaysSeedZero(Right):
    diagnosis = "ignores-rng"

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=np.random.default_rng(0), **kwargs)


class TrainsSublayer(Right):
    diagnosis = "trains-sublayer"

    def parameters(self):
        return super().parameters() | {"sublayer": self.sublayer.W}


class CountsSublayer(Right):
    diagnosis = "trains-sublayer"

    def num_parameters(self):
        return super().num_parameters() + self.sublayer.W.size


class UpdatesSublayer(Short):
    diagnosis = "trains-sublayer"

    def back(self, x, a, G, pulled):
        self.sublayer.W -= 0.01 * G.T @ x
        return super().back(x, a, G, pulled)


class NoScaleBack(Short):
    diagnosis = "no-scale-in-backward"

    def back(self, x, a, G, pulled):
        scale, self.scale = self.scale, 1.0
        grad_x = super().back(x, a, G, pulled)
        self.scale = scale
        return grad_x


class NoReluMask(Short):
    diagnosis = "no-relu-mask"

    def back(self, x, a, G, pulled):
        super().back(x, a, G, pulled)
        D = self.scale * (G @ self.W_up.T)
        self.W_down_grad = x.T @ D
        return pulled + D @ self.W_down.T


class BeforeRelu(Short):
    diagnosis = "gradient-before-relu"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_up_grad = self.scale * (x @ self.W_down).T @ G
        return grad_x


class DownReadsOutput(Short):
    diagnosis = "down-gradient-of-output"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_down_grad = self.sublayer.y.reshape(x.shape).T @ (
            self.scale * (G @ self.W_up.T) * (a > 0))
        return grad_x


class SublayerGradientLost(Short):
    diagnosis = "sublayer-gradient-lost"

    def back(self, x, a, G, pulled):
        return super().back(x, a, G, 0 * pulled)


class SublayerAsIdentity(Short):
    diagnosis = "sublayer-as-identity"

    def back(self, x, a, G, pulled):
        return super().back(x, a, G, G)


class AdapterGradientLost(Short):
    diagnosis = "adapter-gradient-lost"

    def back(self, x, a, G, pulled):
        super().back(x, a, G, pulled)
        return pulled


class ResidualGradient(Short):
    diagnosis = "residual-gradient"

    def back(self, x, a, G, pulled):
        return super().back(x, a, G, pulled) + G


class Accumulates(Short):
    diagnosis = "accumulates"

    def back(self, x, a, G, pulled):
        before = self.W_up_grad
        grad_x = super().back(x, a, G, pulled)
        if before is not None:
            self.W_up_grad = self.W_up_grad + before
        return grad_x


class DoubleStart(Right):
    diagnosis = "wrong-dtype"

    def __init__(self, *args, dtype=np.float32, **kwargs):
        super().__init__(*args, dtype=np.float64 if dtype != np.float64 else np.float32, **kwargs)


class DeadParameters(Short):
    diagnosis = "dead-parameters"

    def forward(self, x):
        self.W_up, self.W_down = self.W_up.copy(), self.W_down.copy()
        return super().forward(x)


class NoChecks(Right):
    diagnosis = "accepts-nonsense"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, *, dtype=np.float32,
                 rng=None):
        self.sublayer, self.d_model, self.scale = sublayer, d_model, scale
        rng = np.random.default_rng(rng)
        self.W_down = 0.01 * rng.standard_normal((d_model, bottleneck_dim)).astype(dtype)
        self.W_up = np.zeros((bottleneck_dim, d_model), dtype)
        self.W_up_grad = self.W_down_grad = None
        self.cache = {}


class BackwardFirst(Right):
    diagnosis = "backward-first"

    def backward(self, grad_output):
        return super().backward(grad_output) if self.cache else grad_output


class LargeStart(Right):
    diagnosis = "large-start"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_down /= 0.02


class DtypeIgnored(Right):
    diagnosis = "wrong-dtype"
    at = "W_down is (d_model, bottleneck), W_up the reverse; dtype as asked"
    seen = "dtype=float32 was asked for, W_down is float64."

    def __init__(self, *args, dtype=None, **kwargs):
        super().__init__(*args, dtype=np.float64, **kwargs)


class ReluSlope(Short):
    diagnosis = "relu-slope"

    def back(self, x, a, G, pulled):
        super().back(x, a, G, pulled)
        D = self.scale * (G @ self.W_up.T) * a
        self.W_down_grad = x.T @ D
        return pulled + D @ self.W_down.T


class ScaleDivides(Short):
    diagnosis = "scale-divides"

    def join(self, x, f):
        return f + self.path(x) / self.scale


class KeysFromThePaper(Right):
    """The arrays named as in the formulas of the paper."""

    diagnosis = "signature"
    at = "the adapter can be made and trains W_down and W_up, nothing else"
    seen = "parameters() has the keys ['down', 'up'], expected ['W_down', 'W_up']."

    def parameters(self):
        return {"down": self.W_down, "up": self.W_up}


class ParametersAsList(Right):
    diagnosis = "wrong-type"
    seen = "parameters() gave list, expected dict."

    def parameters(self):
        return [self.W_down, self.W_up]


class OneCheckMissing(Right):
    """One of the arguments is not checked: it is replaced by one that passes."""

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, **kwargs):
        super().__init__(sublayer, *self.unchecked(d_model, bottleneck_dim, scale), **kwargs)


class WidthNotChecked(OneCheckMissing):
    diagnosis = "accepts-nonsense"
    seen = "d_model=0 raised no ValueError or TypeError."

    def unchecked(self, d_model, bottleneck_dim, scale):
        return d_model or 1, bottleneck_dim, scale


class BottleneckNotChecked(OneCheckMissing):
    diagnosis = "accepts-nonsense"
    seen = "bottleneck_dim=0 raised no ValueError or TypeError."

    def unchecked(self, d_model, bottleneck_dim, scale):
        return d_model, bottleneck_dim or 1, scale


class ScaleNotChecked(OneCheckMissing):
    diagnosis = "accepts-nonsense"
    seen = "scale=nan raised no ValueError or TypeError."

    def unchecked(self, d_model, bottleneck_dim, scale):
        return d_model, bottleneck_dim, 1.0 if np.isnan(scale) else scale


class Flattened(Right):
    """One long vector for each matrix: as many numbers, another shape."""

    diagnosis = "wrong-shape"
    at = "W_down is (d_model, bottleneck), W_up the reverse; dtype as asked"
    seen = "W_down has shape (30,), expected (6, 5)."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_down, self.W_up = self.W_down.ravel(), self.W_up.ravel()


class RowsOnly(Right):
    """Forgets to give the leading axes back."""

    diagnosis = "wrong-shape"
    at = "any leading axes"

    def forward(self, x):
        return super().forward(x).reshape(-1, self.d_model)


class DoubleOutput(Right):
    """A scale from NumPy is a float64, and one operation with it is enough."""

    diagnosis = "wrong-dtype"
    seen = "forward: float32 in gave float64 out."

    def forward(self, x):
        return super().forward(x).astype(np.float64)


class DoubleGradientOfX(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of x: float32 in gave float64 out."

    def backward(self, grad_output):
        return super().backward(grad_output).astype(np.float64)


class DoubleGradients(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of W_down: float32 in gave float64 out."

    def gradients(self):
        return {name: grad.astype(np.float64) for name, grad in super().gradients().items()}


class GradientTransposed(Short):
    diagnosis = "wrong-shape"
    at = "gradients have the shapes of what they belong to"
    seen = "the gradient of W_down has shape (5, 6), expected (6, 5)."

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_down_grad = self.W_down_grad.T
        return grad_x


class NoScaleForUp(Short):
    diagnosis = "no-scale-in-backward"
    at = "with a linear sublayer"
    seen = "the gradient of W_up equals"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_up_grad = a.T @ G
        return grad_x


class NoScaleForDown(Short):
    diagnosis = "no-scale-in-backward"
    seen = "the gradient of W_down equals"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_down_grad = x.T @ ((G @ self.W_up.T) * (a > 0))
        return grad_x


class NoScaleForX(Short):
    diagnosis = "no-scale-in-backward"
    seen = "the gradient of x equals"

    def back(self, x, a, G, pulled):
        super().back(x, a, G, pulled)
        return pulled + ((G @ self.W_up.T) * (a > 0)) @ self.W_down.T


class NoReluMaskForX(Short):
    diagnosis = "no-relu-mask"
    seen = "the gradient of x equals"

    def back(self, x, a, G, pulled):
        super().back(x, a, G, pulled)
        return pulled + self.scale * (G @ self.W_up.T) @ self.W_down.T


class ScaleTwiceBack(Short):
    diagnosis = "scale-twice"
    seen = "the gradient of W_down equals"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_down_grad = self.scale * self.W_down_grad
        return grad_x


class ScalesAllBack(Short):
    diagnosis = "scale-on-sublayer"
    seen = "the gradient of x equals"

    def back(self, x, a, G, pulled):
        return super().back(x, a, G, self.scale * pulled)


class SublayerTakenAsLinear(Short):
    """Multiplies by the sublayer's weight itself: right only without a nonlinearity."""

    diagnosis = "values"
    at = "with a sublayer that has a nonlinearity"

    def back(self, x, a, G, pulled):
        return super().back(x, a, G, G @ self.sublayer.W)


class SkipsZeros(Short):
    """Saves the work while W_up is zero, and so it stays zero."""

    diagnosis = "values"
    seen = "The gradient of W_up is zero, so nothing would be learned."

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_up_grad = self.W_up_grad * self.W_up.any()
        return grad_x


class AlmostZero(Short):
    """A small number so that W_down can learn at once."""

    diagnosis = "values"
    seen = "With W_up at zero nothing can come back to W_down."

    def back(self, x, a, G, pulled):
        up = self.W_up
        self.W_up = up + up.dtype.type(1e-9)
        grad_x = super().back(x, a, G, pulled)
        self.W_up = up
        return grad_x


class ScaleNotPassed(Right):
    """Accepts a scale and uses the default."""

    diagnosis = "fixed-scale"
    seen = "the output equals"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, **kwargs):
        super().__init__(sublayer, d_model, bottleneck_dim, **kwargs)
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"the scale must be finite and positive, got {scale}")


class RefusesOnlyNaN(Right):
    diagnosis = "accepts-nonsense"
    seen = "scale=inf raised no ValueError"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, **kwargs):
        if np.isnan(scale):
            raise ValueError("the scale must be a number")
        super().__init__(sublayer, d_model, bottleneck_dim, **kwargs)
        self.scale = scale


class RefusesOnlyWhatIsNotFinite(Right):
    diagnosis = "accepts-nonsense"
    seen = "scale=0.0 raised no ValueError"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, **kwargs):
        if not np.isfinite(scale):
            raise ValueError("the scale must be finite")
        super().__init__(sublayer, d_model, bottleneck_dim, **kwargs)
        self.scale = scale


class RefusesOnlyZero(Right):
    diagnosis = "accepts-nonsense"
    seen = "scale=-4.0 raised no ValueError"

    def __init__(self, sublayer, d_model, bottleneck_dim=64, scale=4.0, **kwargs):
        if not scale or not np.isfinite(scale):
            raise ValueError("the scale must be finite and not zero")
        super().__init__(sublayer, d_model, bottleneck_dim, **kwargs)
        self.scale = scale


class ReluBehindUp(Short):
    diagnosis = "relu-after-up"

    def path(self, x):
        return self.act(x @ self.W_down @ self.W_up)


class MeanOverRows(Short):
    diagnosis = "mean-over-rows"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_up_grad, self.W_down_grad = self.W_up_grad / len(x), self.W_down_grad / len(x)
        return grad_x


class FlattensForTheSublayer(Short):
    diagnosis = "gradient-flattened"
    seen = "The sublayer gave an output of shape (6,) and got a gradient of shape (1, 6)."

    def backward(self, grad_output):
        if not hasattr(self, "x"):
            raise RuntimeError("forward first")
        x, G = (array.reshape(-1, self.d_model) for array in (self.x, grad_output))
        grad_x = self.back(x, self.act(x @ self.W_down), G, self.sublayer.backward(G))
        return grad_x.reshape(self.x.shape)


class EqualUnits(Right):
    """Draws one column and lets NumPy fill the others with it."""

    diagnosis = "starts-alike"
    seen = "W_down has not the rank 5."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.W_down[...] = self.W_down[:, :1]


class NoneIsSeedZero(Right):
    diagnosis = "ignores-rng"
    seen = "Two adapters made without rng are equal."

    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=rng or np.random.default_rng(0), **kwargs)


class OtherDefaultBottleneck(Right):
    diagnosis = "signature"
    seen = "Made with sublayer and d_model=6 alone, W_down is float32 of shape (6, 16)"

    def __init__(self, sublayer, d_model, bottleneck_dim=16, scale=4.0, **kwargs):
        super().__init__(sublayer, d_model, bottleneck_dim, scale, **kwargs)


class OtherDefaultDtype(Right):
    diagnosis = "signature"
    seen = "Made with sublayer and d_model=6 alone, W_down is float64 of shape (6, 64)"

    def __init__(self, *args, dtype=np.float64, **kwargs):
        super().__init__(*args, dtype=dtype, **kwargs)


class ShortNames(Right):
    diagnosis = "signature"
    at = "the adapter can be made and trains W_down and W_up, nothing else"
    seen = "The call itself failed."

    def __init__(self, sublayer, width, bottleneck_dim=64, scale=4.0, **kwargs):
        super().__init__(sublayer, width, bottleneck_dim, scale, **kwargs)


class WholeScale(Right):
    diagnosis = "values"
    seen = "the output is off by"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale //= 1


class MeanOverTheBatch(Short):
    """Divides where an input has three axes: with two, each row is a token already."""

    diagnosis = "values"
    seen = "the gradient of W_up is off by"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        if self.x.ndim == 3:
            self.W_up_grad = self.W_up_grad / len(self.x)
        return grad_x


class HalfOfAnArraysGradient(Right):
    """Matches no known mistake: the report says what is right all the same."""

    diagnosis = "values"
    seen = "the gradient of W_down is off by 0.5, relative to its largest entry. Right already: " \
           "W_up, x."

    def gradients(self):
        found = super().gradients()
        return found | {"W_down": found["W_down"] / 2}


class AxesExchanged(Short):
    """Brings time to the front for x and leaves the gradient as it is: the shapes agree."""

    diagnosis = "values"
    at = "with a linear sublayer"
    seen = "the gradient of W_down is off by"

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        if self.x.ndim == 3:
            turned = self.x.swapaxes(0, 1).reshape(x.shape)
            self.W_down_grad = turned.T @ (self.scale * (G @ self.W_up.T) * (a > 0))
        return grad_x


class FirstOfTheBatch(Short):
    """What was right for one sequence: the others get its bottleneck."""

    diagnosis = "values"
    seen = "the output is off by"

    def path(self, x):
        return super().path(x[:1] if x.ndim == 3 else x)


class Squeezes(Short):
    """Drops the axes of length one, and with them the batch of one sequence."""

    diagnosis = "wrong-shape"
    at = "any leading axes"

    def join(self, x, f):
        return super().join(x, f).squeeze()


class InPlaceBack(Short):
    diagnosis = "writes-into-sublayer"
    seen = "After your backward the array that the sublayer's returned has changed."

    def back(self, x, a, G, pulled):
        pulled += super().back(x, a, G, 0)
        return pulled


class BackwardOfTheFirstForward(Short):
    """Remembers with setdefault, and so only once."""

    diagnosis = "kept"
    seen = "In call 2, with other numbers in the arrays and another input, the gradient of x is"

    def forward(self, x):
        first = getattr(self, "x", x)
        out = super().forward(x)
        self.x = first
        return out


class ScaledUpOnce(Short):
    """Multiplies W_up by the scale at its first use, and keeps the product."""

    diagnosis = "kept"
    seen = "In call 2, with other numbers in the arrays and another input, the output is wrong."

    def path(self, x):
        if not hasattr(self, "scaled"):
            self.scaled = self.W_up.copy()
        return self.act(x @ self.W_down) @ self.scaled


class OneBufferForAll(Short):
    """Saves an allocation: every output of one shape is the same array."""

    diagnosis = "kept"
    seen = "Call 2 has changed what call 1 had returned."

    def join(self, x, f):
        if getattr(self, "buffer", x[:0]).shape != x.shape:
            self.buffer = np.empty_like(x)
        np.add(f, self.scale * self.path(x), out=self.buffer)
        return self.buffer


class StepsByItself(Short):
    """Takes the optimizer's step, too."""

    diagnosis = "writes-parameters"
    seen = "W_up is not bit for bit what it was."

    def back(self, x, a, G, pulled):
        grad_x = super().back(x, a, G, pulled)
        self.W_up -= self.W_up.dtype.type(1e-3) * self.W_up_grad
        return grad_x


class SingleOnTheWay(Short):
    """The bottleneck works in float32, whatever comes in."""

    diagnosis = "wrong-dtype"
    seen = "forward: float64 in gave float64 out, but it is off by"

    def path(self, x):
        return super().path(x.astype(np.float32).astype(x.dtype))


class SingleOnTheWayBack(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of x: float64 in gave float64 out, but it is off by"

    def backward(self, grad_output):
        return super().backward(grad_output.astype(np.float32).astype(grad_output.dtype))


class SingleArrays(Right):
    diagnosis = "wrong-dtype"
    seen = "the gradient of W_down: float64 in gave float32 out."

    def gradients(self):
        return {name: grad.astype(np.float32) for name, grad in super().gradients().items()}


class OneRowForAll(Right):
    """Lets NumPy repeat a gradient that has too few rows."""

    diagnosis = "accepts-nonsense"
    seen = "a grad_output of one row for 8 raised no ValueError or TypeError."

    def backward(self, grad_output):
        return super().backward(grad_output + np.zeros_like(self._remembered()))


MISTAKES = [thing for thing in list(globals().values())
            if isinstance(thing, type) and hasattr(thing, "diagnosis")]
