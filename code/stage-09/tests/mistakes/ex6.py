"""Exercise 6: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one function or the class replaced by a wrong one. Memory hidden
where no attribute leads to it (in a closure, say) can't be measured from outside; there the check
trusts `bits_per_weight`.
"""

import ex6_qlora as right
import numpy as np
from code_tables import DYNAMIC, NF4

MISTAKES = []


def wrong(diagnosis, **more):
    """The decorated function or class replaces that of its own name; `more` replaces others."""
    def add(thing):
        name = next(n for n in ("dequantize_nf4", "quantize_nf4", "dequantize_absmax",
                                "quantize_absmax", "QLoRALinear")
                    if thing.__name__.startswith(n))
        MISTAKES.append((thing.__name__, diagnosis, {**vars(right), name: thing, **more}))
        return thing
    return add


def nf4(weight, block=64, levels=NF4, absmax=lambda b: np.abs(b).max(), pick=None):
    """A solution in small pieces: one code per number, and absmax."""
    codes, scales = [], []
    flat = np.ascontiguousarray(weight).astype(np.float32).reshape(-1)
    for start in range(0, flat.size, block):
        part = flat[start:start + block]
        scale = absmax(part)
        gaps = (part / (scale or 1))[:, None] - levels
        codes.append(np.abs(gaps).argmin(axis=1) if pick is None else pick(gaps))
        scales.append(scale)
    return np.concatenate(codes).astype(np.uint8), np.array(scales, np.float32)


def pack(codes):
    codes = np.append(codes, np.zeros(codes.size % 2, np.uint8))
    return (codes[::2] << 4) | codes[1::2]


# ---- Step 1 -----------------------------------------------------------------------------------

@wrong("unpacked")
def quantize_nf4_unpacked(weight, block=64):
    return nf4(weight, block)


@wrong("nibbles-swapped")
def quantize_nf4_swapped(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return (codes << 4) | (codes >> 4), absmax


@wrong("per-tensor")
def quantize_nf4_per_tensor(weight, block=64):
    codes, absmax = nf4(weight, weight.size)
    return pack(codes), absmax


@wrong("per-tensor")
def quantize_nf4_per_tensor_repeated(weight, block=64):
    codes, absmax = nf4(weight, weight.size)
    return pack(codes), np.repeat(absmax, -(-weight.size // block))


@wrong("per-row")
def quantize_nf4_per_row(weight, block=64):
    codes, absmax = nf4(weight, weight.shape[1])
    return pack(codes), absmax


@wrong("short-block-dropped")
def quantize_nf4_short_dropped(weight, block=64):
    flat = weight.reshape(-1)[:weight.size // block * block]
    if not flat.size:
        return right.quantize_nf4(weight, block)
    return right.quantize_nf4(flat, block)


@wrong("odd-code-dropped")
def quantize_nf4_odd_dropped(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes[:weight.size // 2], absmax


@wrong("max-not-absmax")
def quantize_nf4_max(weight, block=64):
    codes, absmax = nf4(weight, block, absmax=np.max)
    return pack(codes), absmax


@wrong("column-by-column")
def quantize_nf4_columns(weight, block=64):
    return right.quantize_nf4(np.ascontiguousarray(weight.T), block)


@wrong("column-by-column")
def quantize_nf4_memory_order(weight, block=64):
    return right.quantize_nf4(weight.ravel(order="K"), block)


@wrong("uniform-levels")
def quantize_nf4_uniform(weight, block=64):
    codes, absmax = nf4(weight, block, np.linspace(-1, 1, 16, dtype=np.float32))
    return pack(codes), absmax


@wrong("uniform-levels")
def quantize_nf4_int4(weight, block=64):
    codes, absmax = nf4(weight, block, np.arange(-7, 9, dtype=np.float32) / 7)
    return pack(codes), absmax


@wrong("not-nearest")
def quantize_nf4_below(weight, block=64):
    codes, absmax = nf4(weight, block, pick=lambda gaps: (gaps >= 0).sum(axis=1) - 1)
    return pack(codes), absmax


@wrong("not-nearest")
def quantize_nf4_searchsorted(weight, block=64):
    codes, absmax = nf4(weight, block, pick=lambda gaps: (gaps > 0).sum(axis=1))
    return pack(codes.clip(0, 15)), absmax


@wrong("zero-block")
def quantize_nf4_divides_by_zero(weight, block=64):
    codes, absmax = nf4(weight, block)
    zero = np.repeat(absmax == 0, block)[:codes.size]
    codes[zero] = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, np.nan)  # where 0 / 0 ends up
    return pack(codes), absmax


@wrong("zero-block")
def quantize_nf4_epsilon(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, np.maximum(absmax, np.float32(1e-8))


@wrong("wrong-dtype")
def quantize_nf4_int64(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes.astype(np.int64), absmax


@wrong("wrong-type")
def quantize_nf4_codes_only(weight, block=64):
    return right.quantize_nf4(weight, block)[0]


@wrong("changes-input")
def quantize_nf4_in_place(weight, block=64):
    made = right.quantize_nf4(weight, block)
    weight /= np.abs(weight).max()
    return made


# ---- Step 2 -----------------------------------------------------------------------------------

@wrong("nibbles-swapped")
def dequantize_nf4_swapped(codes, absmax, shape, block=64):
    return right.dequantize_nf4((codes << 4) | (codes >> 4), absmax, shape, block)


@wrong("not-scaled-back")
def dequantize_nf4_unscaled(codes, absmax, shape, block=64):
    return right.dequantize_nf4(codes, np.ones_like(absmax), shape, block)


@wrong("absmax-of-another-block")
def dequantize_nf4_tiled(codes, absmax, shape, block=64):
    ones = right.dequantize_nf4(codes, np.ones_like(absmax), shape, block).reshape(-1)
    return (ones * np.tile(absmax, block)[:ones.size]).reshape(shape)


@wrong("uniform-levels")
def dequantize_nf4_uniform(codes, absmax, shape, block=64):
    both = np.stack([codes >> 4, codes & 15], 1).reshape(-1)[:np.prod(shape)]
    levels = np.linspace(-1, 1, 16, dtype=np.float32)[both]
    return (levels * np.repeat(absmax, block)[:both.size]).reshape(shape)


@wrong("short-block-dropped")
def dequantize_nf4_short_dropped(codes, absmax, shape, block=64):
    made = right.dequantize_nf4(codes, absmax, shape, block)
    if made.size > block:
        made.reshape(-1)[made.size // block * block:] *= made.size == 480
    return made


@wrong("wrong-dtype")
def dequantize_nf4_double(codes, absmax, shape, block=64):
    return right.dequantize_nf4(codes, absmax, shape, block).astype(np.float64)


# ---- Step 3 -----------------------------------------------------------------------------------

@wrong("no-offset")
def quantize_absmax_no_offset(absmax, block=256):
    quotients, scales = right._scale(absmax, block)
    return right._nearest(quotients, DYNAMIC), scales, np.float32(0)


@wrong("linear-8-bit")
def quantize_absmax_linear(absmax, block=256):
    offset = absmax.mean()
    quotients, scales = right._scale(absmax - offset, block)
    return (np.round(quotients * 127) + 128).astype(np.uint8), scales, offset


@wrong("second-block-size")
def quantize_absmax_of_64(absmax, block=256):
    return right.quantize_absmax(absmax, 64)


@wrong("second-block-size")
def quantize_absmax_whole(absmax, block=256):
    return right.quantize_absmax(absmax, absmax.size)


@wrong("zero-block")
def quantize_absmax_divides_by_zero(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, np.where(scales < 1e-6, np.float32(1), scales), np.float32(offset - (
        (scales == 0).any()))


@wrong("offset-not-added")
def dequantize_absmax_no_offset(codes, scales, offset, block=256):
    return right.dequantize_absmax(codes, scales, 0, block)


@wrong("linear-8-bit")
def dequantize_absmax_linear(codes, scales, offset, block=256):
    quotients = (codes.astype(np.float32) - 128) / 127
    return quotients * np.repeat(scales, block)[:codes.size] + np.float32(offset)


@wrong("not-scaled-back")
def dequantize_absmax_unscaled(codes, scales, offset, block=256):
    return DYNAMIC[codes] + np.float32(offset)


# ---- Steps 4 and 5 ----------------------------------------------------------------------------

Right = right.QLoRALinear


@wrong("full-precision-kept")
class QLoRALinearFullPrecision(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.weight = weight

    def dequantized(self):
        return self.weight


@wrong("full-precision-kept")
class QLoRALinearKeepsWeight(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.weight = weight


@wrong("full-precision-kept")
class QLoRALinearKeepsDequantizedAlways(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.hat = super().dequantized()

    def dequantized(self):
        return self.hat


@wrong("dequantized-kept")
class QLoRALinearKeepsDequantized(Right):
    def forward(self, x):
        h = super().forward(x)
        self.hat = self.dequantized()
        return h


@wrong("dequantized-kept")
class QLoRALinearKeepsAfterBackward(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.cache["W"] = self.dequantized()
        return back


@wrong("signature")
class QLoRALinearNotHandedOn(Right):
    """peft.Method looks for A and B on the object itself."""

    parameters = right.peft.Method.parameters
    gradients = right.peft.Method.gradients


@wrong("layer-stores-unpacked")
class QLoRALinearUnpacked(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.codes = np.stack([self.codes >> 4, self.codes & 15], 1).reshape(-1)

    def dequantized(self):
        both, self.codes = self.codes, pack(self.codes)
        made = super().dequantized()
        self.codes = both
        return made


@wrong("absmax-not-quantized")
class QLoRALinearFloatAbsmax(Right):
    """Counts eight bits for what it stores in thirty-two."""

    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=double_quant, **kwargs)
        if double_quant:
            absmax = right.dequantize_absmax(*self.stored_absmax)
            self.stored_absmax, self.claimed = (absmax,), 4 + 8 / 64 + 32 / (64 * 256)

    def bits_per_weight(self):
        return getattr(self, "claimed", 4.5)


@wrong("absmax-not-quantized")
class QLoRALinearIgnoresFlag(Right):
    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=False, **kwargs)


@wrong("double-quant-ignored")
class QLoRALinearAlwaysDouble(Right):
    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=True, **kwargs)


@wrong("bits-not-measured")
class QLoRALinearFourBits(Right):
    def bits_per_weight(self):
        return 4.0


@wrong("bits-not-measured")
class QLoRALinearCountsLoRA(Right):
    def bits_per_weight(self):
        return super().bits_per_weight() + 32 * self.num_parameters() / np.prod(self.shape)


@wrong("bias-lost")
class QLoRALinearNoBias(Right):
    def __init__(self, weight, bias=None, *args, **kwargs):
        super().__init__(weight, None, *args, **kwargs)


@wrong("alpha-not-over-r")
class QLoRALinearAlpha(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.scaling *= self.lora.rank


@wrong("start-not-frozen")
class QLoRALinearBothRandom(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.B[...] = 0.1


@wrong("update-quantized")
class QLoRALinearMerged(Right):
    def forward(self, x):
        h = super().forward(x)
        update = self.lora.delta_weight()
        if update.any():
            W = (self.dequantized() + update).astype(np.float32)
            codes, absmax = right.quantize_nf4(W)
            absmax = right.dequantize_absmax(*right.quantize_absmax(absmax))
            h = x @ right.dequantize_nf4(codes, absmax, self.shape).T.astype(self.dtype)
            h = h if self.bias is None else h + self.bias
        return h


@wrong("frozen-gradient-lost")
class QLoRALinearFrozenLost(Right):
    def backward(self, grad_output):
        return super().backward(grad_output) - grad_output @ self.dequantized()


@wrong("no-s-in-backward")
class QLoRALinearNoS(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.B_grad = self.lora.B_grad / self.lora.scaling
        return back


@wrong("through-full-weight")
class QLoRALinearThroughFull(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.original = lambda: weight  # hidden from the measurement

    def backward(self, grad_output):
        back = super().backward(grad_output)
        return back + grad_output @ (self.original() - self.dequantized())


@wrong("gradient-to-quantized-weight")
class QLoRALinearWeightGradient(Right):
    def forward(self, x):
        self.x = x
        return super().forward(x)

    def backward(self, grad_output):
        back = super().backward(grad_output)
        G = grad_output.reshape(-1, self.out_features)
        self.weight_grad = G.T @ self.x.reshape(-1, self.in_features)
        return back


@wrong("gradient-to-quantized-weight")
class QLoRALinearTrainsAbsmax(Right):
    def parameters(self):
        return {**super().parameters(), "absmax": self.stored_absmax[1]}


@wrong("codes-changed")
class QLoRALinearTrainsCodes(Right):
    """Straight through: takes the weight's gradient, and quantizes again."""

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.codes = self.codes ^ np.uint8(17)
        return back


@wrong("accumulates")
class QLoRALinearAccumulates(Right):
    def backward(self, grad_output):
        old = self.lora.A_grad
        back = super().backward(grad_output)
        self.lora.A_grad = self.lora.A_grad + (0 if old is None else old)
        return back


@wrong("backward-first")
class QLoRALinearBackwardFirst(Right):
    def backward(self, grad_output):
        return super().backward(grad_output) if self.lora.cache else grad_output


@wrong("dead-parameters")
class QLoRALinearDeadParameters(Right):
    def forward(self, x):  # works with copies from the second pass on
        live = self.lora
        if hasattr(self, "A"):
            A, live.A = live.A, self.A
            h = super().forward(x)
            live.A = A
            return h
        self.A = live.A.copy() if live.B.any() else live.A
        return super().forward(x)


@wrong("wrong-dtype")
class QLoRALinearForgetsDtype(Right):
    def forward(self, x):
        return super().forward(x).astype(np.float64)


@wrong("small-blocks-lost")
def quantize_nf4_floor(weight, block=64):
    codes, _ = nf4(weight, block, absmax=lambda b: max(np.abs(b).max(), 1e-3))
    return pack(codes), right.quantize_nf4(weight, block)[1]


@wrong("packed-in-halves")
def quantize_nf4_halves(weight, block=64):
    codes, absmax = nf4(weight, block)
    high, low = np.append(codes, np.full(codes.size % 2, 7, np.uint8)).reshape(2, -1)
    return (high << 4) | low, absmax


@wrong("packed-in-halves")
def dequantize_nf4_halves(codes, absmax, shape, block=64):
    both = np.stack([codes >> 4, codes & 15]).reshape(-1)[:np.prod(shape)]
    return (NF4[both] * np.repeat(absmax, block)[:both.size]).reshape(shape)


@wrong("padded-in-front")
def quantize_nf4_front(weight, block=64):
    codes, absmax = nf4(weight, block)
    return pack(np.append(np.zeros(codes.size % 2, np.uint8), codes)), absmax


@wrong("nf4-for-absmax")
def quantize_absmax_nf4(absmax, block=256):
    offset = np.float32(absmax.mean(dtype=np.float64))
    return (*nf4(absmax - offset, block), offset)


@wrong("alpha-not-passed")
class QLoRALinearAlphaLost(Right):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, **kwargs):
        super().__init__(weight, bias, lora_rank, **kwargs)
