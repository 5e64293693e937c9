"""Exercise 6: six right answers that look nothing like the reference solution.

Each is a namespace with the four functions and the class.
"""

from types import SimpleNamespace

import numpy as np

import peft
from exercises.ex6_qlora import solution as reference
from exercises.ex6_qlora.levels import DYNAMIC, NF4

# ---- Block by block, brute force over the levels ----------------------------------------------

def _nearest(values, table):
    return np.array([int(np.argmin(abs(table.astype(float) - v))) for v in values], np.uint8)


def _cut(array, block):
    flat = np.asarray(array, np.float32).flatten()
    return [flat[i:i + block] for i in range(0, len(flat), block)]


def loop_quantize(weight, block=64):
    nibbles, absmax = [], []
    for part in _cut(weight, block):
        top = float(np.max(np.abs(part)))
        absmax.append(top)
        nibbles += list(_nearest(part / top if top > 0 else part, NF4))
    nibbles += [0] * (len(nibbles) % 2)
    packed = [16 * int(a) + int(b) for a, b in zip(nibbles[0::2], nibbles[1::2])]
    return np.array(packed, np.uint8), np.array(absmax, np.float32)


def loop_dequantize(codes, absmax, shape, block=64):
    n = int(np.prod(shape))
    out = np.zeros(n, np.float32)
    for i in range(n):
        byte = int(codes[i // 2])
        out[i] = NF4[byte // 16 if i % 2 == 0 else byte % 16] * absmax[i // block]
    return out.reshape(shape)


def loop_quantize_absmax(absmax, block=256):
    mean = float(np.mean(absmax))
    codes, scales = [], []
    for part in _cut(absmax - mean, block):
        top = float(np.abs(part).max())
        scales.append(top)
        codes.append(_nearest(part / top if top else part, DYNAMIC))
    return np.concatenate(codes), np.array(scales, np.float32), mean


def loop_dequantize_absmax(codes, scales, offset, block=256):
    parts = [DYNAMIC[codes[i * block:(i + 1) * block]] * s for i, s in enumerate(scales)]
    return np.concatenate(parts) + np.float32(offset)


# ---- Padded to whole blocks, in float64 -------------------------------------------------------

def _padded(array, block):
    flat = np.asarray(array, np.float64).reshape(-1)
    return np.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def wide_quantize(weight, block=64):
    rows = _padded(weight, block)
    absmax = np.abs(rows).max(axis=1)
    with np.errstate(invalid="ignore"):
        quotients = np.nan_to_num(rows / absmax[:, None])
    middles = (NF4[1:].astype(float) + NF4[:-1]) / 2
    codes = np.digitize(quotients.ravel()[:weight.size], middles)
    codes = np.pad(codes, (0, weight.size % 2)).reshape(-1, 2)
    return (codes @ [16, 1]).astype(np.uint8), absmax.astype(np.float32)


def wide_dequantize(codes, absmax, shape, block=64):
    n = int(np.prod(shape))
    both = np.empty(2 * codes.size, np.uint8)
    both[0::2], both[1::2] = codes >> 4, codes & 0x0F
    levels = _padded(NF4[both[:n]], block) * absmax[:, None].astype(float)
    return levels.ravel()[:n].reshape(shape).astype(np.float32)


def wide_quantize_absmax(absmax, block=256):
    offset = np.mean(absmax, dtype=np.float64)
    rest = np.asarray(absmax, np.float64) - offset
    rows = _padded(rest, block)
    scales = np.abs(rows).max(axis=1)
    quotients = (rows / np.maximum(scales, 1e-30)[:, None]).ravel()[:rest.size]
    middles = (DYNAMIC[1:].astype(float) + DYNAMIC[:-1]) / 2
    return np.digitize(quotients, middles).astype(np.uint8), scales.astype(np.float32), offset


def wide_dequantize_absmax(codes, scales, offset, block=256):
    return (DYNAMIC.astype(float)[codes] * scales[np.arange(codes.size) // block]
            + float(offset)).astype(np.float32)


# ---- Layers -----------------------------------------------------------------------------------

def layer(space):
    """A layer by hand that uses the functions of a namespace; no class of peft.py inside."""
    class QLoRALinear:
        def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, *, double_quant=True,
                     rng=None):
            gen = np.random.default_rng(rng)
            out, n_in = weight.shape
            if bias is not None and bias.shape != (out,) or type(lora_rank) is not int:
                raise ValueError("bias or rank")
            if lora_rank < 1 or not 0 < lora_alpha < np.inf:
                raise ValueError("rank or alpha")
            self.kind, self.size = weight.dtype, weight.shape
            self.packed, absmax = space.quantize_nf4(weight)
            self.scales = {"absmax": absmax}
            if double_quant:
                keys = ("codes", "scales", "offset")
                self.scales = dict(zip(keys, space.quantize_absmax(absmax)))
            self.b, self.s, self.x = bias, lora_alpha / lora_rank, None
            self.A = gen.normal(0, 0.02, (lora_rank, n_in)).astype(self.kind)
            self.B = np.zeros((out, lora_rank), self.kind)
            self.A_grad, self.B_grad = np.zeros_like(self.A), np.zeros_like(self.B)
            pairs = np.stack([NF4.repeat(16), np.tile(NF4, 16)], axis=1)  # of each byte
            self.tables = [pairs, NF4.copy(), DYNAMIC.copy(), (DYNAMIC[1:] + DYNAMIC[:-1]) / 2]

        def hat(self):
            absmax = self.scales.get("absmax")
            if absmax is None:
                absmax = space.dequantize_absmax(**self.scales)
            return space.dequantize_nf4(self.packed, absmax, self.size).astype(self.kind)

        def parameters(self):
            return {"A": self.A, "B": self.B}

        def gradients(self):
            return {"A": self.A_grad, "B": self.B_grad}

        def num_parameters(self):
            return self.A.size + self.B.size

        def forward(self, x):
            self.x = x
            out = x @ self.hat().T + self.s * np.einsum("...i,ri,or->...o", x, self.A, self.B)
            return out if self.b is None else out + self.b

        def backward(self, grad_output):
            if self.x is None:
                raise RuntimeError("forward first")
            if grad_output.shape != (*self.x.shape[:-1], self.size[0]):
                raise ValueError("grad_output")
            x, g = (a.reshape(-1, a.shape[-1]) for a in (self.x, grad_output))
            self.A_grad = self.s * (g @ self.B).T @ x
            self.B_grad = self.s * g.T @ (x @ self.A.T)
            return grad_output @ self.hat() + self.s * (grad_output @ self.B) @ self.A

        def bits_per_weight(self):
            stored = [self.packed, *(self.scales[k] for k in self.scales if k != "offset")]
            return float(sum(a.size * a.itemsize for a in stored) * 8 / np.prod(self.size))
    return QLoRALinear


class Inherits(peft.LoRALinear):
    """A LoRALinear whose weight is a property that is made anew each time it is asked for."""

    def __init__(self, weight, bias=None, lora_rank=8, lora_alpha=16.0, *, double_quant=True,
                 rng=None):
        self.q, absmax = reference.quantize_nf4(weight)
        self.absmax = reference.quantize_absmax(absmax) if double_quant else absmax
        self.as_it_was = weight.shape, weight.dtype
        super().__init__(weight, bias, lora_rank, lora_alpha, rng=rng)

    @property
    def weight(self):
        shape, dtype = self.as_it_was
        absmax = self.absmax
        if isinstance(absmax, tuple):
            absmax = reference.dequantize_absmax(*absmax)
        return reference.dequantize_nf4(self.q, absmax, shape).astype(dtype)

    @weight.setter
    def weight(self, value):
        pass  # nobody keeps it

    def forward(self, x):
        h = super().forward(x)
        self.lora.cache.pop("W")
        return h

    def backward(self, grad_output):
        if self.lora.cache:
            self.lora.cache["W"] = self.weight
        back = super().backward(grad_output)
        del self.lora.cache["W"]
        return back

    def bits_per_weight(self):
        arrays = [self.q, *self.absmax[:2]] if isinstance(self.absmax, tuple) else [
            self.q, self.absmax]
        return sum(a.nbytes for a in arrays) * 8 / np.prod(self.as_it_was[0])


class InDouble(layer(reference)):
    """Computes in float64 and rounds at the end; frees what backward has used."""

    def hat(self):
        return super().hat().astype(np.float64)

    def forward(self, x):
        return super().forward(x).astype(x.dtype)

    def backward(self, grad_output):
        back = super().backward(grad_output).astype(grad_output.dtype)
        self.B_grad = self.B_grad.astype(self.kind)
        self.x = None
        return back


class KnowsItsModule(layer(reference)):
    """Keeps the module that it uses and, in a part, itself: neither holds more of its arrays."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.format, self.part = reference, SimpleNamespace(whole=self)


def _space(quantize, dequantize, quantize_absmax, dequantize_absmax, cls=None):
    space = SimpleNamespace(
        quantize_nf4=quantize, dequantize_nf4=dequantize, quantize_absmax=quantize_absmax,
        dequantize_absmax=dequantize_absmax)
    space.QLoRALinear = cls or layer(space)
    return vars(space)


LOOPS = _space(loop_quantize, loop_dequantize, loop_quantize_absmax, loop_dequantize_absmax)
WIDE = _space(wide_quantize, wide_dequantize, wide_quantize_absmax, wide_dequantize_absmax)
OURS = (reference.quantize_nf4, reference.dequantize_nf4, reference.quantize_absmax,
        reference.dequantize_absmax)


def half_quantize_absmax(absmax, block=256):
    offset = np.float16(absmax.mean())  # any float type will do
    quotients, scales = reference._scale(absmax - np.float32(offset), block)
    return reference._nearest(quotients, DYNAMIC), scales, offset


VARIANTS = {"an offset in half precision": _space(*OURS[:2], half_quantize_absmax, OURS[3]),
            "loops over numbers": LOOPS, "padded, in float64": WIDE,
            "a weight that is a property": _space(*OURS, Inherits),
            "a layer in float64": _space(*OURS, InDouble),
            "a layer that leads to more": _space(*OURS, KnowsItsModule),
            "mixed": _space(wide_quantize, reference.dequantize_nf4, loop_quantize_absmax,
                            wide_dequantize_absmax)}
