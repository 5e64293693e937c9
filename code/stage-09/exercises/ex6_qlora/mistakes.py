"""Exercise 6: plausible wrong answers, each with the diagnosis that it must get.

Each is the reference solution with one function or the class replaced by a wrong one. Memory hidden
where no attribute leads to it (in a closure, say) can't be measured from outside; there the check
trusts `bits_per_weight`.

`MISTAKES` holds name, diagnosis and work of each. Where another test could give the same diagnosis,
`SEEN` says by name how the report of what was seen begins, and `AT` which test has to find it.
"""

import functools

import numpy as np

from exercises.ex6_qlora import solution as right
from exercises.ex6_qlora.levels import DYNAMIC, NF4

MISTAKES, SEEN, AT = [], {}, {}


def wrong(diagnosis, seen="", at=None):
    """The decorated function or class replaces that of its own name."""
    def add(thing):
        name = next(n for n in ("dequantize_nf4", "quantize_nf4", "dequantize_absmax",
                                "quantize_absmax", "QLoRALinear")
                    if thing.__name__.startswith(n))
        MISTAKES.append((thing.__name__, diagnosis, {**vars(right), name: thing}))
        SEEN[thing.__name__], AT[thing.__name__] = seen, at
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


def rounded(name, diagnosis, rule):
    """Codes by a rule of the quotient, without a table of levels."""
    def quantize_nf4(weight, block=64):
        codes, absmax = nf4(weight, block, pick=lambda gaps: rule(gaps[:, 7]))  # level 7 is 0
        return pack(codes), absmax
    quantize_nf4.__name__ = f"quantize_nf4_{name}"
    wrong(diagnosis)(quantize_nf4)


rounded("two_s_complement", "uniform-levels", lambda q: np.round(q * 7) + 8)
rounded("sixteenths", "uniform-levels", lambda q: np.minimum(np.round((q + 1) * 8), 15))


@wrong("uniform-levels")
def quantize_nf4_uniform_low_first(weight, block=64):
    codes, absmax = nf4(weight, block, np.linspace(-1, 1, 16, dtype=np.float32))
    return pack(codes.reshape(-1, 2)[:, ::-1].reshape(-1)) if not codes.size % 2 else (
        right.quantize_nf4(weight, block)[0]), absmax


@wrong("per-tensor", at="each weight gets the nearest of the 16 levels")
def quantize_nf4_divides_by_largest(weight, block=64):
    return pack(nf4(weight, weight.size)[0]), right.quantize_nf4(weight, block)[1]


@wrong("max-not-absmax", at="each weight gets the nearest of the 16 levels")
def quantize_nf4_divides_by_max(weight, block=64):
    return pack(nf4(weight, block, absmax=np.max)[0]), right.quantize_nf4(weight, block)[1]


@wrong("values", seen="absmax is off by")
def quantize_nf4_reciprocal(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, 1 / absmax


@wrong("values", seen="13 of 480 codes are wrong, 9 of them those of the 9 largest weights of a")
def quantize_nf4_without_ends(weight, block=64):
    codes, absmax = nf4(weight, block)
    return pack(codes.clip(1, 14)), absmax


@wrong("not-nearest", at="no error exceeds half the gap between the neighbouring levels")
def quantize_nf4_rounded_midpoints(weight, block=64):
    middles = np.round((NF4[1:] + NF4[:-1]) / 2, 3)
    codes, absmax = nf4(weight, block, pick=lambda gaps: np.digitize(gaps[:, 7], middles))
    return pack(codes), absmax


@wrong("short-block-dropped")
def quantize_nf4_short_absmax_dropped(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, absmax[:max(weight.size // block, 1)]


@wrong("wrong-shape", seen="codes of 480 weights: 256 bytes, expected 240.")
def quantize_nf4_keeps_padding(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return np.append(codes, np.full(absmax.size * block // 2 - codes.size, 119, np.uint8)), absmax


@wrong("wrong-shape", seen="absmax has shape (768,), expected (12,)")
def quantize_nf4_absmax_of_each(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, np.repeat(absmax, block)[:weight.size]


@wrong("wrong-dtype", seen="absmax is float64, expected float32.")
def quantize_nf4_absmax_in_double(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, absmax.astype(np.float64)


@wrong("wrong-type", seen="quantize_nf4 gave 3 things, expected 2.")
def quantize_nf4_three(weight, block=64):
    return *right.quantize_nf4(weight, block), block


@wrong("wrong-type", seen="what quantize_nf4 gave gave list, expected ndarray.")
def quantize_nf4_list(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes.tolist(), absmax


@wrong("zero-block", seen="Its absmax is 0 and its codes are [")
def quantize_nf4_divides_by_zero(weight, block=64):
    codes, absmax = nf4(weight, block)
    zero = np.repeat(absmax == 0, block)[:codes.size]
    codes[zero] = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, np.nan)  # where 0 / 0 ends up
    return pack(codes), absmax


@wrong("zero-block", seen="Its absmax is 1e-08 and its codes are [7].")
def quantize_nf4_epsilon(weight, block=64):
    codes, absmax = right.quantize_nf4(weight, block)
    return codes, np.maximum(absmax, np.float32(1e-8))


@wrong("wrong-dtype", seen="codes is int64, expected uint8.")
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


@wrong("per-tensor")
def dequantize_nf4_per_tensor(codes, absmax, shape, block=64):
    return right.dequantize_nf4(codes, np.full_like(absmax, absmax.max()), shape, block)


@wrong("column-by-column")
def dequantize_nf4_columns(codes, absmax, shape, block=64):
    return right.dequantize_nf4(codes, absmax, shape[::-1], block).T.copy()


@wrong("values", seen="a weight of shape (1, 1), there and back, is off by 1, relative")
def dequantize_nf4_whole_bytes(codes, absmax, shape, block=64):
    made = right.dequantize_nf4(codes, absmax, shape, block)
    made.reshape(-1)[made.size // 2 * 2:] = 0
    return made


@wrong("wrong-dtype", seen="dequantize_nf4: float32 in gave float64 out")
def dequantize_nf4_double(codes, absmax, shape, block=64):
    return right.dequantize_nf4(codes, absmax, shape, block).astype(np.float64)


# ---- Step 3 -----------------------------------------------------------------------------------

@wrong("no-offset", seen="The offset is 0, the mean 0.")
def quantize_absmax_no_offset(absmax, block=256):
    quotients, scales = right._scale(absmax, block)
    return right._nearest(quotients, DYNAMIC), scales, np.float32(0)


@wrong("no-offset", seen="scales equals what this mistake gives.")
def quantize_absmax_not_subtracted(absmax, block=256):
    quotients, scales = right._scale(absmax, block)
    return right._nearest(quotients, DYNAMIC), scales, np.float32(absmax.mean(dtype=np.float64))


def eight_bits(name, diagnosis, rule, seen=""):
    """Codes by a rule of the quotient."""
    def quantize_absmax(absmax, block=256):
        offset = np.float32(absmax.mean(dtype=np.float64))
        quotients, scales = right._scale(absmax - offset, block)
        return rule(quotients).astype(np.uint8), scales, offset
    quantize_absmax.__name__ = f"quantize_absmax_{name}"
    wrong(diagnosis, seen)(quantize_absmax)


eight_bits("linear", "linear-8-bit", lambda q: np.round(q * 127) + 128)
eight_bits("linear_from_0", "linear-8-bit", lambda q: np.round(q * 127) + 127)
eight_bits("linear_signed", "linear-8-bit", lambda q: np.round(q * 127).astype(np.int8))
eight_bits("linear_255", "linear-8-bit", lambda q: np.round((q + 1) * 127.5))
eight_bits("linear_cut_off", "linear-8-bit", lambda q: (q + 1) * 127.5)
eight_bits("above", "not-nearest", lambda q: np.searchsorted(DYNAMIC, q))
eight_bits("below", "not-nearest", lambda q: np.searchsorted(DYNAMIC, q, side="right") - 1)
eight_bits("descending", "values", lambda q: 255 - right._nearest(q, DYNAMIC),
           seen="600 of 600 codes differ.")


@wrong("values", seen="scales is off by")
def quantize_absmax_reciprocal(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, 1 / np.where(scales == 0, np.float32(1), scales), offset


@wrong("wrong-type", seen="quantize_absmax gave 2 things, expected 3.")
def quantize_absmax_two(absmax, block=256):
    return right.quantize_absmax(absmax, block)[:2]


@wrong("wrong-dtype", seen="codes of the absmax are int64, expected uint8.")
def quantize_absmax_int64(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes.astype(np.int64), scales, offset


@wrong("wrong-dtype", seen="scales are float64, expected float32.")
def quantize_absmax_in_double(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, scales.astype(np.float64), offset


@wrong("wrong-shape", seen="The offset has 3 numbers.")
def quantize_absmax_offset_of_each(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, scales, np.full_like(scales, offset)


@wrong("second-block-size", seen="600 absmax gave 10 scales.")
def quantize_absmax_of_64(absmax, block=256):
    return right.quantize_absmax(absmax, 64)


@wrong("second-block-size")
def quantize_absmax_whole(absmax, block=256):
    return right.quantize_absmax(absmax, absmax.size)


@wrong("zero-block", seen="1 times 0.25 has a scale of 0 and the codes [255].")
def quantize_absmax_divides_by_zero(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    codes[np.repeat(scales == 0, block)[:codes.size]] = 255  # where 0 / 0 ends up
    return codes, scales, offset


@wrong("zero-block", seen="1 times 0.25 has a scale of 1 and the codes [127].")
def quantize_absmax_scale_of_one(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, np.where(scales == 0, np.float32(1), scales), offset


@wrong("offset-not-added")
def dequantize_absmax_no_offset(codes, scales, offset, block=256):
    return right.dequantize_absmax(codes, scales, 0, block)


@wrong("linear-8-bit")
def dequantize_absmax_linear(codes, scales, offset, block=256):
    quotients = (codes.astype(np.float32) - 128) / 127
    return quotients * np.repeat(scales, block)[:codes.size] + np.float32(offset)


@wrong("absmax-of-another-block")
def dequantize_absmax_tiled(codes, scales, offset, block=256):
    return DYNAMIC[codes] * np.tile(scales, block)[:codes.size] + np.float32(offset)


@wrong("values", seen="absmax is off by")
def dequantize_absmax_subtracts(codes, scales, offset, block=256):
    return right.dequantize_absmax(codes, scales, -offset, block)


@wrong("wrong-dtype", seen="dequantize_absmax: float32 in gave float64 out")
def dequantize_absmax_in_double(codes, scales, offset, block=256):
    return right.dequantize_absmax(codes, scales, offset, block).astype(np.float64)


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


@wrong("dequantized-kept", seen="Before its first pass the layer holds it, 12288 numbers.")
class QLoRALinearKeepsDequantizedAlways(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.hat = super().dequantized()

    def dequantized(self):
        return self.hat


@wrong("dequantized-kept", seen="After forward the layer holds it, 12288 numbers.")
class QLoRALinearKeepsDequantized(Right):
    def forward(self, x):
        h = super().forward(x)
        self.hat = self.dequantized()
        return h


@wrong("dequantized-kept", seen="After backward the layer holds it, 12288 numbers.")
class QLoRALinearKeepsAfterBackward(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.cache["W"] = self.dequantized()
        return back


@wrong("dequantized-kept")
class QLoRALinearKeepsTransposed(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.kept = [self.dequantized().T.copy()]
        return back


@wrong("signature")
class QLoRALinearOtherNames(Right):
    def __init__(self, weight, bias=None, rank=8, alpha=16.0, *, double_quant=True, rng=None):
        super().__init__(weight, bias, rank, alpha, double_quant=double_quant, rng=rng)


@wrong("wrong-type", seen="parameters() gave list, expected dict.")
class QLoRALinearListOfArrays(Right):
    def parameters(self):
        return list(super().parameters().values())


@wrong("wrong-type", seen="gradients() gave list, expected dict.")
class QLoRALinearListOfGradients(Right):
    def gradients(self):
        return list(super().gradients().values())


@wrong("gradient-to-quantized-weight", seen="gradients() has the keys ['A', 'B', 'weight'].")
class QLoRALinearNamesTheWeight(Right):
    def gradients(self):
        return {**super().gradients(), "weight": np.zeros(1)}


@wrong("wrong-shape", seen="A has shape (40, 3), expected (3, 40)")
class QLoRALinearTransposedA(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.A = self.lora.A.T.copy()


@wrong("wrong-dtype", seen="A is float")
class QLoRALinearOtherDtype(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        other = np.float32 if self.dtype == np.float64 else np.float64
        self.lora.A = self.lora.A.astype(other)


@wrong("values", seen="num_parameters() gave")
class QLoRALinearCountsCodes(Right):
    def num_parameters(self):
        return super().num_parameters() + self.codes.size


@wrong("values", seen="A and B both hold zeros only")
class QLoRALinearBothZero(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.A[...] = 0


@wrong("values", seen="the output is off by")
class QLoRALinearSubtracts(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.scaling *= -1


@wrong("values", seen="the output without a bias is off by")
class QLoRALinearAlwaysABias(Right):
    def __init__(self, weight, bias=None, *args, **kwargs):
        bias = np.ones(len(weight), weight.dtype) if bias is None else bias
        super().__init__(weight, bias, *args, **kwargs)


@wrong("zero-block", seen="A row of zeros gave outputs up to")
class QLoRALinearTinyInsteadOfZero(Right):
    """Adds a little, so that no block is zero; the second quantization makes more of it."""

    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight + weight.dtype.type(1e-9), *args, **kwargs)


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


@wrong("absmax-not-quantized", seen="The layer holds 192 floating-point scales.")
class QLoRALinearFloatAbsmax(Right):
    """Counts eight bits for what it stores in thirty-two."""

    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=double_quant, **kwargs)
        if double_quant:
            absmax = right.dequantize_absmax(*self.stored_absmax)
            self.stored_absmax = (absmax,)


@wrong("absmax-not-quantized", seen="the output with double_quant = True equals")
class QLoRALinearIgnoresFlag(Right):
    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=False, **kwargs)


@wrong("double-quant-ignored", seen="the output with double_quant = False equals")
class QLoRALinearAlwaysDouble(Right):
    def __init__(self, weight, *args, double_quant=True, **kwargs):
        super().__init__(weight, *args, double_quant=True, **kwargs)


def bits(name, rule, seen=""):
    """A wrong count, made of the right one."""
    class QLoRALinear(Right):
        def bits_per_weight(self):
            return rule(self, super().bits_per_weight(), np.prod(self.shape))
    QLoRALinear.__name__ = f"QLoRALinear{name}"
    wrong("bits-not-measured", seen)(QLoRALinear)


bits("FourBits", lambda layer, found, n: 4.0,
     "bits_per_weight() gave 4 for a weight of shape (96, 128) with double_quant = True: codes and "
     "scales have 6340 bytes.")
bits("Constant", lambda layer, found, n: 4.127 if len(layer.stored_absmax) == 3 else 4.5,
     "bits_per_weight() gave 4.127 for a weight of shape (7, 11)")
bits("CountsLoRA", lambda layer, found, n: found + 32 * layer.num_parameters() / n)
bits("CountsOffset", lambda layer, found, n: found + 32 / n * (len(layer.stored_absmax) == 3))
bits("CountsBias", lambda layer, found, n: found + 8 * getattr(layer.bias, "nbytes", 0) / n)
bits("ForgetsScales", lambda layer, found, n: found - 32 / n * (len(layer.stored_absmax) == 3))


@wrong("bias-lost")
class QLoRALinearNoBias(Right):
    def __init__(self, weight, bias=None, *args, **kwargs):
        super().__init__(weight, None, *args, **kwargs)


@wrong("alpha-not-over-r")
class QLoRALinearAlphaInBackward(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.B_grad = self.lora.B_grad * self.lora.rank
        return back


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


@wrong("update-quantized")
class QLoRALinearMergesFirst(Right):
    """Quantizes W + s B A as a whole, from a weight that is hidden from the measurement."""

    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.original = lambda: weight

    def forward(self, x):
        h = super().forward(x)
        update = self.lora.delta_weight()
        if update.any():
            codes, absmax = right.quantize_nf4((self.original() + update).astype(np.float32))
            absmax = right.dequantize_absmax(*right.quantize_absmax(absmax))
            h = x @ right.dequantize_nf4(codes, absmax, self.shape).T.astype(self.dtype)
            h = h if self.bias is None else h + self.bias
        return h


@wrong("frozen-gradient-lost")
class QLoRALinearFrozenLost(Right):
    def backward(self, grad_output):
        return super().backward(grad_output) - grad_output @ self.dequantized()


@wrong("no-s")
class QLoRALinearNoS(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.B_grad = self.lora.B_grad / self.lora.scaling
        return back


@wrong("no-s", seen="the gradient of the input equals")
class QLoRALinearNoSBack(Right):
    def backward(self, grad_output):
        back, s = super().backward(grad_output), self.lora.scaling
        return back + (1 - s) * grad_output @ self.lora.B @ self.lora.A


@wrong("wrong-shape", seen="the gradient of A has shape (40, 3), expected (3, 40)",
       at="gradients have the shapes of what they belong to")
class QLoRALinearTransposedGradient(Right):
    def gradients(self):
        return {name: grad.T if name == "A" else grad for name, grad in super().gradients().items()}


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


@wrong("frozen-changed")
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


@wrong("wrong-dtype", seen="backward: float32 in gave float64 out")
class QLoRALinearGradientsInDouble(Right):
    def gradients(self):
        return {name: grad.astype(np.float64) for name, grad in super().gradients().items()}


@wrong("wrong-dtype", seen="forward: float32 in gave float64 out")
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


# ---- Padding, block sizes, guards -------------------------------------------------------------

def fill(flat, block, how):
    """Numbers filled up to whole blocks: with ones, or with the first ones again."""
    if how == "ones":
        return np.append(flat, np.ones(-flat.size % block, flat.dtype))
    return np.resize(flat, -(-flat.size // block) * block)


def padded(name, how):
    """The scales of numbers that are filled up; codes that are right."""
    def quantize_nf4(weight, block=64):
        flat = fill(np.ascontiguousarray(weight).reshape(-1), block, how)
        return right.quantize_nf4(weight, block)[0], right._scale(flat.astype(np.float32), block)[1]
    quantize_nf4.__name__ = f"quantize_nf4_padded_{name}"
    wrong("padding-counts", "Only that of the last block is wrong, ")(quantize_nf4)


padded("with_ones", "ones")
padded("with_the_first", "first")


@wrong("padding-counts", seen="Only that of the last block is wrong, ")
def quantize_absmax_padded_before(absmax, block=256):
    codes, _, offset = right.quantize_absmax(absmax, block)
    filled = np.pad(absmax, (0, -absmax.size % block)) - offset
    return codes, right._scale(filled, block)[1], offset


@wrong("block-ignored", seen="480 numbers in blocks of 36 gave 8 scales.")
def quantize_nf4_of_64(weight, block=64):
    return right.quantize_nf4(weight)


@wrong("values", at="each weight gets the nearest of the 16 levels")
def quantize_nf4_codes_of_64(weight, block=64):
    return right.quantize_nf4(weight)[0], right.quantize_nf4(weight, block)[1]


@wrong("block-ignored", seen="the weight equals what this mistake gives.")
def dequantize_nf4_of_64(codes, absmax, shape, block=64):
    n = int(np.prod(shape))
    levels = right.dequantize_nf4(codes, np.ones(-(-n // 64), np.float32), shape)
    return levels * np.repeat(absmax, 64)[:n].reshape(shape)


@wrong("block-ignored", seen="600 numbers in blocks of 36 gave 3 scales.")
def quantize_absmax_of_256(absmax, block=256):
    return right.quantize_absmax(absmax)


@wrong("block-ignored", seen="absmax equals what this mistake gives.")
def dequantize_absmax_of_256(codes, scales, offset, block=256):
    return DYNAMIC[codes] * np.repeat(scales, 256)[:codes.size] + np.float32(offset)


@wrong("raised", seen="IndexError")
def dequantize_nf4_two_axes(codes, absmax, shape, block=64):
    n = shape[0] * shape[1]
    return right.dequantize_nf4(codes, absmax, (n,), block).reshape(shape)


@wrong("not-divided")
def quantize_nf4_undivided(weight, block=64):
    codes = right._nearest(weight.astype(np.float32).ravel(), NF4)
    return pack(codes), right.quantize_nf4(weight, block)[1]


@wrong("max-not-absmax", seen="scales equals")
def quantize_absmax_max(absmax, block=256):
    codes, _, offset = right.quantize_absmax(absmax, block)
    starts = np.arange(0, absmax.size, block)
    return codes, np.maximum.reduceat(absmax - offset, starts), offset


@wrong("second-block-size", seen="scales equals")
def quantize_absmax_one_scale(absmax, block=256):
    codes, scales, offset = right.quantize_absmax(absmax, block)
    return codes, np.full_like(scales, scales.max()), offset


@wrong("not-divided")
def quantize_absmax_undivided(absmax, block=256):
    _, scales, offset = right.quantize_absmax(absmax, block)
    return right._nearest(absmax - offset, DYNAMIC), scales, offset


def guarded(name, guard):
    """A guard against zero in the divisor that small blocks notice."""
    def quantize_nf4(weight, block=64):
        codes = nf4(weight, block, absmax=lambda b: guard(np.abs(b).max()))[0]
        return pack(codes), right.quantize_nf4(weight, block)[1]

    def quantize_absmax(absmax, block=256):
        codes, scales, offset = right.quantize_absmax(absmax, block)
        spread = np.repeat(guard(scales), block)[:codes.size]
        return right._nearest((absmax - offset) / spread, DYNAMIC), scales, offset
    for function in (quantize_nf4, quantize_absmax):
        function.__name__ += f"_{name}"
        wrong("small-blocks-lost", "Divided by 2^64, the same numbers got ")(function)


guarded("plus_1e_minus_8", lambda largest: largest + np.float32(1e-8))
guarded("at_least_1e_minus_6", lambda largest: np.maximum(largest, np.float32(1e-6)))
guarded("at_least_1e_minus_12", lambda largest: np.maximum(largest, np.float32(1e-12)))


def centred(name, middle):
    """An offset that is another number than the mean, and was subtracted."""
    def quantize_absmax(absmax, block=256):
        offset = np.float32(middle(absmax, block))
        quotients, scales = right._scale(absmax - offset, block)
        return right._nearest(quotients, DYNAMIC), scales, offset
    quantize_absmax.__name__ = f"quantize_absmax_{name}"
    wrong("offset-not-mean", "The offset is ")(quantize_absmax)


centred("median", lambda absmax, block: np.median(absmax))
centred("smallest", lambda absmax, block: absmax.min())
centred("first_block", lambda absmax, block: absmax[:block].mean())
centred("mean_with_padding", lambda absmax, block: np.pad(absmax, (0, -absmax.size % block)).mean())


# ---- The layer: arguments, what it keeps, its gradients ---------------------------------------

@wrong("signature", seen="parameters() has the keys ['A', 'B', 'bias'], expected ['A', 'B']")
class QLoRALinearTrainsBias(Right):
    def parameters(self):
        return {**super().parameters(), "bias": self.bias}


@wrong("rng-ignored", seen="Two layers from different seeds have the same A and B.")
class QLoRALinearOneSeed(Right):
    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, rng=np.random.default_rng(0), **kwargs)


@wrong("rng-ignored", seen="Two layers from one seed have other A and B.")
class QLoRALinearNoSeed(Right):
    def __init__(self, *args, rng=None, **kwargs):
        super().__init__(*args, **kwargs)


@wrong("accepts-nonsense", seen="a bias with a single number raised no")
class QLoRALinearAnyBias(Right):
    def __init__(self, weight, bias=None, *args, **kwargs):
        super().__init__(weight, None, *args, **kwargs)
        self.bias = bias


@wrong("accepts-nonsense", seen="lora_alpha=0 raised no")
class QLoRALinearAnyAlpha(Right):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, **kwargs):
        super().__init__(weight, bias, lora_rank, **kwargs)
        self.lora.scaling = lora_alpha / lora_rank


@wrong("accepts-nonsense", seen="lora_alpha=nan raised no")
class QLoRALinearAnyPositiveAlpha(QLoRALinearAnyAlpha):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, **kwargs):
        if lora_alpha <= 0:
            raise ValueError("lora_alpha")
        super().__init__(weight, bias, lora_rank, lora_alpha, **kwargs)


@wrong("accepts-nonsense", seen="lora_rank=0 raised ZeroDivisionError")
class QLoRALinearAnyRank(Right):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, **kwargs):
        lora_alpha / lora_rank
        super().__init__(weight, bias, lora_rank, lora_alpha, **kwargs)


@wrong("accepts-nonsense", seen="lora_rank=1.5 raised no")
class QLoRALinearRoundsTheRank(Right):
    def __init__(self, weight, bias=None, lora_rank=8, *args, **kwargs):
        super().__init__(weight, bias, int(lora_rank), *args, **kwargs)


@wrong("accepts-nonsense", seen="a weight of one axis raised IndexError")
class QLoRALinearTwoAxesAtLeast(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight.reshape(weight.shape[0], weight.shape[1]), *args, **kwargs)


@wrong("accepts-nonsense", seen="a weight of three axes raised no")
class QLoRALinearManyAxes(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight.reshape(-1, weight.shape[-1]) if weight.ndim > 1 else weight,
                         *args, **kwargs)


@wrong("accepts-nonsense", seen="an x of another width raised no")
class QLoRALinearCutsTheInput(Right):
    def forward(self, x):
        missing = [(0, 0)] * (x.ndim - 1) + [(0, self.in_features - x.shape[-1])]
        return super().forward(np.pad(x, missing))


@wrong("accepts-nonsense", seen="After an x of shape (4, 40), a grad_output of shape (1, 4, 12)")
class QLoRALinearFlattensTheGradient(Right):
    def backward(self, grad_output):
        lead = self.lora._remembered("lead")
        return super().backward(grad_output.reshape(*lead, -1))


@wrong("signature", seen="double_quant without its name raised no TypeError.")
class QLoRALinearByPosition(Right):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, double_quant=True,
                 rng=None):
        super().__init__(weight, bias, lora_rank, lora_alpha, double_quant=double_quant, rng=rng)


@wrong("signature", seen="QLoRALinear(weight) has an A of shape (4, 40), expected (8, 40).")
class QLoRALinearRankOfFour(Right):
    def __init__(self, weight, bias=None, lora_rank=4, lora_alpha=8.0, **kwargs):
        super().__init__(weight, bias, lora_rank, lora_alpha, **kwargs)


@wrong("signature", seen="The output of QLoRALinear(weight) is wrong")
class QLoRALinearAlphaOfEight(Right):
    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=8.0, **kwargs):
        super().__init__(weight, bias, lora_rank, lora_alpha, **kwargs)


@wrong("signature", seen="The output of QLoRALinear(weight, None, 3, 5.0) is wrong")
class QLoRALinearSingle(Right):
    def __init__(self, *args, double_quant=False, **kwargs):
        super().__init__(*args, double_quant=double_quant, **kwargs)


@wrong("signature", seen="QLoRALinear(weight, None, 3, 5.0) has an A of shape (5, 40)")
class QLoRALinearOtherOrder(Right):
    def __init__(self, weight, bias=None, lora_alpha=16.0, lora_rank=8, **kwargs):
        super().__init__(weight, bias, int(lora_rank), lora_alpha, **kwargs)


@wrong("alpha-not-passed")
class QLoRALinearFixedScaling(Right):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora.scaling = 16 / 8


@wrong("column-by-column")
class QLoRALinearQuantizesTransposed(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.codes, absmax = right.quantize_nf4(weight.T.copy())
        self.stored_absmax = (right.quantize_absmax(absmax) if len(self.stored_absmax) == 3
                              else (absmax,))

    def dequantized(self):
        self.shape = self.shape[::-1]
        made = super().dequantized().T
        self.shape = self.shape[::-1]
        return made


@wrong("no-s", seen="the output equals what this mistake gives.")
class QLoRALinearNoSForward(Right):
    def forward(self, x):
        return super().forward(x) + (1 - self.lora.scaling) * x @ self.lora.A.T @ self.lora.B.T


@wrong("full-precision-kept", seen="After forward the layer holds it, 12288 numbers.")
class QLoRALinearKeepsWeightOnce(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.original = lambda: weight  # hidden from the measurement

    def forward(self, x):
        self.weight = self.original()
        return super().forward(x)


@wrong("dequantized-kept", seen="After forward the layer holds it, 12352 numbers.")
class QLoRALinearKeepsPadded(Right):
    def forward(self, x):
        self.padded = np.append(self.dequantized(), np.zeros(64))
        return super().forward(x)


@wrong("dequantized-kept", seen="After forward the layer holds it, 12288 numbers.")
class QLoRALinearRemembersMethod(Right):
    @functools.lru_cache  # noqa: B019
    def dequantized(self):
        return super().dequantized()


@wrong("large-array-kept", seen="Before its first pass the layer holds 12289 floating-point number")
class QLoRALinearKeepsRows(Right):
    def __init__(self, weight, *args, **kwargs):
        super().__init__(weight, *args, **kwargs)
        self.rows = [row.copy() for row in weight]


@wrong("large-array-kept", seen="After forward the layer holds")
class QLoRALinearKeepsUpdate(Right):
    def forward(self, x):
        self.update = self.lora.B @ self.lora.A
        return super().forward(x)


@wrong("layer-stores-unpacked", seen="After forward the layer holds")
class QLoRALinearKeepsUnpacked(Right):
    def forward(self, x):
        self.both = np.stack([self.codes >> 4, self.codes & 15], 1)
        return super().forward(x)


@wrong("through-full-weight", seen="the gradient of the input equals")
class QLoRALinearAlwaysDoubleBack(Right):
    def backward(self, grad_output):
        absmax = self.stored_absmax
        if len(absmax) == 1:
            self.stored_absmax = right.quantize_absmax(*absmax)
        back, self.stored_absmax = super().backward(grad_output), absmax
        return back


@wrong("values", seen="the gradient of the input is off by")
class QLoRALinearNoOffsetBack(Right):
    def backward(self, grad_output):
        stored = self.stored_absmax
        if len(stored) == 3:
            self.stored_absmax = (*stored[:2], np.float32(0))
        back, self.stored_absmax = super().backward(grad_output), stored
        return back


def axes(name, change, seen):
    """A backward whose gradients of A and B come from inputs that were changed."""
    class QLoRALinear(Right):
        def backward(self, grad_output):
            back = super().backward(grad_output)
            x, G = change(self.lora.cache["x"].reshape(*grad_output.shape[:-1], -1), grad_output)
            x, G = x.reshape(-1, self.in_features), G.reshape(-1, self.out_features)
            self.lora.B_grad = self.lora.scaling * G.T @ (x @ self.lora.A.T)
            self.lora.A_grad = self.lora.scaling * (G @ self.lora.B).T @ x
            return back
    QLoRALinear.__name__ = f"QLoRALinear{name}"
    wrong("values", seen)(QLoRALinear)


axes("SwapsAxes", lambda x, G: (x.swapaxes(0, 1) if x.ndim == 3 else x, G),
     "the gradient of B is off by")
axes("FirstOnly", lambda x, G: (x[0], G[0]) if x.ndim == 3 else (x, G),
     "the gradient of B is off by")
axes("MeanOverBatch", lambda x, G: (x, G / len(x)) if x.ndim == 3 else (x, G),
     "the gradient of B is off by")


@wrong("s-twice", seen="the gradient of B equals")
class QLoRALinearSTwice(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.lora.B_grad = self.lora.B_grad * self.lora.scaling
        return back


@wrong("s-twice", seen="the gradient of the input equals")
class QLoRALinearSTwiceBack(Right):
    def backward(self, grad_output):
        back, s = super().backward(grad_output), self.lora.scaling
        return back + (s - 1) * s * grad_output @ self.lora.B @ self.lora.A


@wrong("update-gradient-lost")
class QLoRALinearUpdateLost(Right):
    def backward(self, grad_output):
        super().backward(grad_output)
        return grad_output @ self.dequantized()


@wrong("frozen-changed")
class QLoRALinearMovesBias(Right):
    def backward(self, grad_output):
        back = super().backward(grad_output)
        if self.bias is not None:
            self.bias = self.bias - 0.1 * grad_output.reshape(-1, self.out_features).sum(0)
        return back
