"""Exercise 6, reference solution: NF4 with double quantization, and LoRA beside it (QLoRA).

n counts the weights of a matrix, flattened row by row; nb their blocks of 64, the last one shorter.
"""

from math import prod

import numpy as np

import peft
from exercises.ex6_qlora.levels import DYNAMIC, NF4
from validation import check_count, check_weights

#: The two levels of each possible byte, (256, 2): restoring looks up bytes, half as many as codes.
_BOTH = np.stack([NF4.repeat(16), np.tile(NF4, 16)], axis=1)


def _scale(values: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks divided by their largest absolute value: (n,) -> quotients (n,), absmax (nb,)."""
    starts = np.arange(0, values.size, block)
    absmax = np.maximum.reduceat(np.abs(values), starts)  # (nb,)
    divisor = np.where(absmax == 0, np.float32(1), absmax)  # a block of zeros stays zero
    quotients = values * np.repeat(1 / divisor, block)[:values.size]  # as bitsandbytes rounds ...
    if rest := values.size % block:
        quotients[-rest:] = values[-rest:] / divisor[-1]  # ... which divides in a short last block
    return quotients, absmax


def _nearest(quotients: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the nearest of sorted levels, (n,) uint8: how many midpoints lie below."""
    midpoints = (levels[:-1] + levels[1:]) / 2
    return np.searchsorted(midpoints, quotients).astype(np.uint8)


def quantize_nf4(weight: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A weight in four bits per number.

    Parameters
    ----------
    weight : floating, any shape, not empty, finite; flattened row by row
    block : int, numbers that share one scale

    Returns
    -------
    codes : (ceil(n / 2),) uint8, two codes to a byte, the first in the high four bits
    absmax : (ceil(n / block),) float32

    Raises
    ------
    TypeError, ValueError
        A weight that is not floating, empty, or not finite; a block below 1.

    Source: Dettmers et al., arXiv 2305.14314, section 3; layout as in bitsandbytes.
    """
    check_weights("weight", weight, (...,))
    quotients, absmax = _scale(weight.astype(np.float32).ravel(), check_count("block", block))
    codes = _nearest(quotients, NF4)  # (n,)
    if codes.size % 2:
        codes = np.append(codes, np.uint8(7))  # fills up the last byte; 7 is the level 0
    return codes[::2] << 4 | codes[1::2], absmax


def dequantize_nf4(codes: np.ndarray, absmax: np.ndarray, shape: tuple[int, ...],
                   block: int = 64) -> np.ndarray:
    """Levels times their block's absmax: what `quantize_nf4` gave -> float32 of this shape.

    Raises ValueError where the sizes do not belong together.
    """
    n = prod(shape)
    for name, array, size in (("codes", codes, -(-n // 2)), ("absmax", absmax, -(-n // block))):
        if array.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},) for a weight of shape {shape}, "
                             f"got {array.shape}")
    pairs = np.empty((codes.size, 2), np.float32)
    for start in range(0, codes.size, 2 ** 15):  # `take` needs its indices in 64 bits: in pieces
        piece = slice(start, start + 2 ** 15)  # these stay in the cache, a third of the time less
        _BOTH.take(codes[piece], axis=0, out=pairs[piece], mode="clip")
    weight = pairs.ravel()[:n]  # (n,)
    blocks = weight[:n - n % block].reshape(-1, block)  # those that are full: a view
    blocks *= absmax[:len(blocks), None]
    weight[blocks.size:] *= absmax[-1]
    return weight.reshape(shape)


def quantize_absmax(absmax: np.ndarray, block: int = 256
                    ) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """The scales themselves in eight bits: the second quantization of the two.

    Returns
    -------
    codes : (nb,) uint8, indices into the dynamic code
    scales : (ceil(nb / block),) float32
    offset : float32, the mean of `absmax`
    """
    check_weights("absmax", absmax, (None,))
    offset = np.float32(absmax.mean(dtype=np.float64))
    quotients, scales = _scale(absmax.astype(np.float32) - offset, check_count("block", block))
    return _nearest(quotients, DYNAMIC), scales, offset


def dequantize_absmax(codes: np.ndarray, scales: np.ndarray, offset: np.float32,
                      block: int = 256) -> np.ndarray:
    """What `quantize_absmax` gave -> (nb,) float32."""
    if scales.shape != (-(-codes.size // block),):
        raise ValueError(f"scales must have shape ({-(-codes.size // block)},) for {codes.size} "
                         f"codes in blocks of {block}, got {scales.shape}")
    return DYNAMIC[codes] * np.repeat(scales, block)[:codes.size] + np.float32(offset)


class QLoRALinear(peft.Method):
    """A linear layer whose frozen weight takes four bits per number, and LoRA beside it.

        h = x W^T + b + s (x A^T) B^T,  W = the dequantized weight, made anew whenever it is needed

    Parameters
    ----------
    weight, bias : (out, in) floating and finite, and (out,) or None; the weight is not kept
    lora_rank, lora_alpha, rng : see peft.LoRALayer, which takes the weight's dtype
    double_quant : bool, whether the blocks' absmax are quantized in turn

    Source: Dettmers et al., arXiv 2305.14314, section 3, equations (5) and (6).
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float = 16.0, *, double_quant: bool = True,
                 rng: np.random.Generator | None = None):
        self.shape = check_weights("weight", weight, (None, None)).shape
        self.out_features, self.in_features = self.shape
        self.bias = bias  # (out,) or None
        if bias is not None:
            check_weights("bias", bias, (self.out_features,))
        self.dtype = weight.dtype
        self.codes, absmax = quantize_nf4(weight)  # (n / 2,), (nb,)
        self.stored_absmax = quantize_absmax(absmax) if double_quant else (absmax,)
        self.lora = peft.LoRALayer(self.in_features, self.out_features, lora_rank, lora_alpha,
                                   dtype=weight.dtype, rng=rng)

    def dequantized(self) -> np.ndarray:
        """The weight that the layer computes with: (out, in), in the dtype that it was given in."""
        absmax = self.stored_absmax
        absmax = dequantize_absmax(*absmax) if len(absmax) == 3 else absmax[0]  # (nb,)
        return dequantize_nf4(self.codes, absmax, self.shape).astype(self.dtype, copy=False)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        h = self.lora.forward(x, self.dequantized())
        self.lora.cache["W"] = None  # full precision is what we do not want to keep
        if self.bias is not None:
            h += self.bias
        return h

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., out) -> (..., in): through the dequantized weight; the codes get no gradient."""
        self.lora._remembered()  # RuntimeError before forward
        self.lora.cache["W"] = self.dequantized()
        grad_x = self.lora.backward(grad_output)
        self.lora.cache["W"] = None
        return grad_x

    def bits_per_weight(self) -> float:
        """Bits of codes, absmax and scales per weight; the one offset is left out."""
        stored = [self.codes, *self.stored_absmax[:2]]
        return 8 * sum(array.nbytes for array in stored) / prod(self.shape)

    def parameters(self) -> dict[str, np.ndarray]:
        return self.lora.parameters()

    def gradients(self) -> dict[str, np.ndarray]:
        return self.lora.gradients()
