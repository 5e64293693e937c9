"""Exercise 6, 4-bit LoRA: the tests. Reading them spoils the exercise.

The work is a module or a namespace with four functions and a class. The probes keep away from the
midpoints between levels, so that any order of operations, in float32 or float64, gives their codes.
"""

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.harness.checking import GENERAL, Diagnosis, Exercise, Found, NotYet, Report, Trial

UNPACKED = Diagnosis(
    "unpacked", "codes that are not packed",
    "A code needs four bits, and the smallest thing that an array stores has eight. With one code "
    "to a byte the memory is twice what it should be: that is 8-bit storage of 4-bit numbers.",
    "statement")
NIBBLES = Diagnosis(
    "nibbles-swapped", "the two codes of a byte the other way round",
    "The first of two codes goes into the high four bits. Your own functions may agree with each "
    "other, but no file of bitsandbytes can be read.", "statement")
PER_TENSOR = Diagnosis(
    "per-tensor", "one absmax for the whole tensor",
    "A single outlier then sets the scale for all weights, and most of them fall on two or three "
    "levels. Blocks of 64 keep the damage local.", "statement")
PER_ROW = Diagnosis(
    "per-row", "one absmax for each row instead of each block",
    "The weight is flattened first, and the blocks of 64 are cut from the result, whatever the "
    "length of a row.", "statement")
SHORT_DROPPED = Diagnosis(
    "short-block-dropped", "a last block that is dropped",
    "The size of a weight need not be a multiple of 64. What remains at the end is a block too, "
    "only a shorter one.", "statement")
ODD_DROPPED = Diagnosis(
    "odd-code-dropped", "the last code of an odd number of weights dropped",
    "With an odd number of codes the last byte is half empty, but it has to exist.", "statement")
PADDED = Diagnosis(
    "padding-counts", "a padding that decides the scale of the last block",
    "What fills up a short last block is no number of the block. It must not be the largest there.",
    "statement")
BLOCK_LOST = Diagnosis(
    "block-ignored", "a block size that does not arrive",
    "Other sizes of blocks must work as well: the stretch goal takes a whole tensor as one. An "
    "argument that is accepted and dropped is a silent wrong answer.", "statement")
NOT_DIVIDED = Diagnosis(
    "not-divided", "numbers that are not divided by the largest of their block",
    "The levels lie between -1 and 1. Without the division all larger numbers get the same code, "
    "and small ones use a few levels in the middle.", "statement")
NOT_ABSOLUTE = Diagnosis(
    "max-not-absmax", "the largest value instead of the largest absolute value",
    "Where the most negative number is larger than the most positive one, its quotient lies below "
    "-1, and there is no level for it.", "statement")
COLUMNS = Diagnosis(
    "column-by-column", "a weight flattened column by column, or in the order of its memory",
    "Blocks run along the rows. A transposed array lies in memory by columns, but its rows are "
    "still its rows.", "statement")
UNIFORM = Diagnosis(
    "uniform-levels", "evenly spaced levels",
    "Weights are distributed like a Gaussian: most of them are small. NF4 has its levels close "
    "together there. Even steps waste levels where there are few weights.", "statement")
NOT_NEAREST = Diagnosis(
    "not-nearest", "the next level below or above instead of the nearest",
    "The error can then be a whole gap instead of half of one, and all errors point the same way.",
    "statement")
HALVES = Diagnosis(
    "packed-in-halves", "first half of the codes beside the second half",
    "A byte holds two neighbours. Where the first half of all codes is packed with the second, "
    "other programs read another weight.", "statement")
PAD_FRONT = Diagnosis(
    "padded-in-front", "an odd number of codes that is filled up in front",
    "The last byte is filled up behind the last code. In front, every code moves by half a byte.",
    "statement")
FOUR_BIT_ABSMAX = Diagnosis(
    "nf4-for-absmax", "the absmax in the levels of NF4",
    "The second quantization has eight bits, 256 levels. With sixteen the scales of all blocks "
    "become coarse.", "statement")
ALPHA_LOST = Diagnosis(
    "alpha-not-passed", "an alpha that does not arrive",
    "The output is that of the default alpha. An argument that is accepted and dropped is a silent "
    "wrong answer.", "statement")
SMALL_BLOCKS = Diagnosis(
    "small-blocks-lost", "a guard against zero that swallows small blocks",
    "Only a block of nothing but zeros needs a guard. Dividing a block of small numbers "
    "by something larger than its largest uses a few levels in the middle.", "statement")
ZERO_BLOCK = Diagnosis(
    "zero-block", "a block of zeros that divides by zero",
    "0 / 0 is no number, and the codes made of it are arbitrary. What was zero has to have the "
    "code of the level 0, and its block the absmax or scale 0.", "statement")
NO_ABSMAX = Diagnosis(
    "not-scaled-back", "levels that are not multiplied by their block's absmax",
    "The levels lie between -1 and 1. What was divided by absmax has to be multiplied by it.",
    "statement")
TILED = Diagnosis(
    "absmax-of-another-block", "an absmax that goes to the wrong weights",
    "The first 64 weights share the first absmax, the next 64 the second, and so on.", "statement")
NO_OFFSET = Diagnosis(
    "no-offset", "a second quantization without subtracting the mean",
    "All absmax are positive, so without the subtraction half of the 256 levels are never used.",
    "statement")
WRONG_OFFSET = Diagnosis(
    "offset-not-mean", "an offset that is not the mean of all absmax",
    "The offset is one number for the tensor. Half of the levels are negative, so all the absmax "
    "count, each once, and nothing that was filled up.", "statement")
OFFSET_LOST = Diagnosis(
    "offset-not-added", "the mean that was subtracted is not added again",
    "What quantize_absmax takes off, dequantize_absmax has to put back.", "statement")
LINEAR_CODE = Diagnosis(
    "linear-8-bit", "evenly spaced 8-bit levels instead of the dynamic code",
    "bitsandbytes uses the dynamic code, whose levels get denser towards zero. With another table "
    "the stored numbers mean something else.", "statement")
SECOND_BLOCK = Diagnosis(
    "second-block-size", "blocks of another size in the second quantization",
    "The second level cuts the absmax into blocks of 256, the last of which may be shorter. The "
    "size decides how much the scales cost.", "statement")
FULL_WEIGHT = Diagnosis(
    "full-precision-kept", "a layer that computes with, or keeps, the full-precision weight",
    "The whole point is that this weight is gone. What the layer stores is codes and scales, and "
    "what it computes with is made of them.", "statement")
KEEPS_DEQUANTIZED = Diagnosis(
    "dequantized-kept", "a dequantized weight that is kept",
    "While it is kept, the layer takes as much memory as without quantization, and more. Backward "
    "can make it again.", "statement")
LARGE_KEPT = Diagnosis(
    "large-array-kept", "arrays of the weight's size that are kept",
    "Four bits per weight save nothing as long as another array of that size stays. What backward "
    "needs it can make from the small ones.", "statement")
LAYER_UNPACKED = Diagnosis(
    "layer-stores-unpacked", "a layer that stores its codes unpacked",
    "bits_per_weight() says what the stored arrays take. Here they take eight bits for each code.",
    "statement")
DOUBLE_IGNORED = Diagnosis(
    "double-quant-ignored", "double_quant=False that is ignored",
    "Without double quantization the scales of the blocks stay as they are, in float32. They are "
    "more exact then and take more memory, so the two settings must not give the same output.",
    "statement")
NOT_DOUBLE = Diagnosis(
    "absmax-not-quantized", "absmax stored in float32, although double_quant is True",
    "Half a bit per weight is what float32 scales cost. Quantized in turn they cost an eighth; "
    "counting eight bits for what takes thirty-two saves nothing.", "statement")
WRONG_BITS = Diagnosis(
    "bits-not-measured", "a number of bits that is not that of the stored arrays",
    "Measure it: the bytes of codes, absmax and scales, times eight, over the number of weights. "
    "A number from a formula says what should be stored.", "statement")
ALPHA = Diagnosis(
    "alpha-not-over-r", "alpha where alpha / r belongs",
    "Without the division the update grows with the rank.", "mistakes")
NOT_IDENTITY = Diagnosis(
    "start-not-frozen", "an update that is not zero at the start",
    "Training must begin at the quantized model, exactly.", "9.2")
NO_BIAS = Diagnosis("bias-lost", "an output without the bias",
                    "The bias is not quantized, but it is still part of the layer.", "9.2")
UPDATE_QUANTIZED = Diagnosis(
    "update-quantized", "an update that is quantized together with the weight",
    "LoRA stays in full precision beside the weight. Rounded to four bits, small steps of the "
    "optimizer would vanish.", "statement")
FROZEN_LOST = Diagnosis(
    "frozen-gradient-lost", "an input gradient that does not pass through the frozen weight",
    "The codes get no gradient, but the gradient of the input passes through the dequantized "
    "weight. Without it the layers below hardly learn.", "9.2")
THROUGH_FULL = Diagnosis(
    "through-full-weight", "a gradient through another weight than forward used",
    "Forward computed with the dequantized weight, so backward passes through that one.",
    "statement")
UPDATE_LOST = Diagnosis(
    "update-gradient-lost", "an input gradient that does not pass through A and B",
    "The input reaches the output on two ways, so its gradient comes back on both.", "9.2")
NO_S = Diagnosis("no-s", "an update without the factor s",
                 "s multiplies the update in forward, so it multiplies every gradient that passes "
                 "through it, too.", "9.2")
S_TWICE = Diagnosis("s-twice", "the factor s twice in a gradient",
                    "A product that was remembered with s in it needs no second one.", "9.2")
RNG = Diagnosis(
    "rng-ignored", "an rng that is not used",
    "The same seed must give the same layer, and another seed another one. Random numbers come "
    "from the generator that is passed in.", "9.6")
WEIGHT_GRADIENT = Diagnosis(
    "gradient-to-quantized-weight", "a gradient for the quantized weight",
    "There are sixteen levels and nothing between them: a small step can't be taken. Only A and B "
    "train, and a gradient the size of the weight is memory that QLoRA wants to save.",
    "statement")
FROZEN_CHANGED = Diagnosis(
    "frozen-changed", "a backward that changes what the layer computes",
    "Codes, scales and bias are frozen, bit for bit. A and B are moved by the optimizer, and "
    "backward gives it no more than their gradients.", "statement")

EXERCISE = Exercise(
    6, "4-bit LoRA (QLoRA)", UNPACKED, NIBBLES, PER_TENSOR, PER_ROW, SHORT_DROPPED, ODD_DROPPED,
    PADDED, BLOCK_LOST, NOT_DIVIDED, NOT_ABSOLUTE, COLUMNS, UNIFORM, NOT_NEAREST, ZERO_BLOCK,
    NO_ABSMAX, TILED, NO_OFFSET, WRONG_OFFSET, OFFSET_LOST, LINEAR_CODE, SECOND_BLOCK, FULL_WEIGHT,
    KEEPS_DEQUANTIZED, LARGE_KEPT, LAYER_UNPACKED, NOT_DOUBLE, WRONG_BITS, DOUBLE_IGNORED, ALPHA,
    NOT_IDENTITY, NO_BIAS, UPDATE_QUANTIZED, FROZEN_LOST, UPDATE_LOST, SMALL_BLOCKS, HALVES,
    PAD_FRONT, FOUR_BIT_ABSMAX, ALPHA_LOST, THROUGH_FULL, NO_S, S_TWICE, RNG, WEIGHT_GRADIENT,
    FROZEN_CHANGED)

WORK = ("quantize_nf4", "dequantize_nf4", "quantize_absmax", "dequantize_absmax", "QLoRALinear")
OUT, IN, RANK, ALPHA_VALUE = 12, 40, 3, 5.0  # 480 weights: 7 blocks of 64 and one of 32; s = 5 / 3
ROWS = 4
ODD = (7, 11)  # one block of 64 and one of 13
LARGE = (96, 128)  # a layer whose weight is larger than all else that it may hold
BLOCK, SECOND = 64, 256  # of the two quantizations
OTHER = 36  # another size of blocks, for both
MANY = 600  # absmax: two blocks of 256 and one of 88
TABLES = {(255,), (256,), (256, 2)}  # midpoints, levels, pairs of levels by byte: shapes
EVEN = np.linspace(-1, 1, 16, dtype=np.float32)


# ---- The format, in the simplest form ---------------------------------------------------------

def _blocks(values: np.ndarray, block: int) -> list[np.ndarray]:
    flat = np.asarray(values).reshape(-1)
    return [flat[i:i + block] for i in range(0, flat.size, block)]


def _indices(values: np.ndarray, levels: np.ndarray, block: int, pick: str = "nearest",
             largest: Any = lambda b: np.abs(b).max()) -> np.ndarray:
    """One code per number."""
    found = []
    for part in _blocks(values.astype(np.float64), block):
        gap = (part / largest(part))[:, None] - levels.astype(np.float64)  # (n, levels)
        found.append({"nearest": np.abs(gap).argmin(axis=1), "below": (gap >= 0).sum(axis=1) - 1,
                      "above": (gap > 0).sum(axis=1)}[pick])
    return np.concatenate(found)


def _scales(values: np.ndarray, block: int) -> np.ndarray:
    return np.array([np.abs(part).max() for part in _blocks(values, block)], np.float32)


def _spread(scales: np.ndarray, block: int, n: int) -> np.ndarray:
    return np.repeat(scales, block)[:n]


def _pack(codes: np.ndarray) -> np.ndarray:
    """An even number of codes."""
    return codes[::2] * np.uint8(16) + codes[1::2]


def _unpack(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed // 16, packed % 16], axis=1).reshape(-1)


def _stored(weight: np.ndarray, double: bool = True) -> np.ndarray:
    """The dequantized weight as the layer has to have it, float32."""
    absmax = _scales(weight, BLOCK)
    if double:
        offset = absmax.mean(dtype=np.float64)
        rest = absmax - offset
        codes = _indices(rest, DYNAMIC, SECOND)
        absmax = DYNAMIC[codes] * _spread(_scales(rest, SECOND), SECOND, rest.size) + offset
    codes = _indices(weight, NF4, BLOCK)
    flat = NF4[codes] * _spread(absmax.astype(np.float32), BLOCK, codes.size)
    return flat.reshape(weight.shape)


def _margin(values: np.ndarray, levels: np.ndarray, block: int) -> np.ndarray:
    """How far each quotient is from the nearest midpoint between levels."""
    quotients = values.reshape(-1) / _spread(_scales(values, block), block, values.size)
    midpoints = (levels[1:] + levels[:-1]) / 2
    above = midpoints.searchsorted(quotients).clip(1, midpoints.size - 1)
    return np.minimum(np.abs(midpoints[above] - quotients),
                      np.abs(midpoints[above - 1] - quotients))


def _clear(values: np.ndarray, block: int) -> np.ndarray:
    """The values, with those near a midpoint moved to their level: any arithmetic agrees."""
    values = values.astype(np.float32)
    flat = values.reshape(-1)
    spread = _spread(_scales(flat, block), block, flat.size)
    near = _margin(flat, NF4, block) < 1e-3
    flat[near] = (NF4[_indices(flat, NF4, block)] * spread)[near]
    return values


def _weight(trial: Trial, *shape: int, block: int = BLOCK) -> np.ndarray:
    """A probe, float32 numbers in the trial's dtype."""
    return _clear(trial.rng(seed=1).standard_normal(shape), block).astype(trial.dtype)


def _function(trial: Trial, name: str) -> Any:
    if not hasattr(trial.student, name):
        raise NotYet(f"{name} is not defined")
    return getattr(trial.student, name)


def _quantized(trial: Trial, name: str, *args: Any, **kwargs: Any) -> tuple:
    """What a quantize function gives: codes, absmax; or codes, scales, offset."""
    length = 3 if name == "quantize_absmax" else 2
    result = trial.call(_function(trial, name), *args, returns=(tuple, list), **kwargs)
    if len(result) != length:
        raise Found(GENERAL["wrong-type"], f"{name} gave {len(result)} things, expected {length}.")
    for thing in result[:2]:
        trial.expect(f"what {name} gave", thing)
    return tuple(result)


def _block_arrives(scales: np.ndarray, numbers: np.ndarray, block: int) -> None:
    """Raise `Found` unless there is one scale for each block; tests before ask for the usual."""
    if scales.size != -(-numbers.size // block):
        raise Found(BLOCK_LOST, f"{numbers.size} numbers in blocks of {block} gave {scales.size} "
                                "scales.")


def _compare_scales(trial: Trial, what: str, found: np.ndarray, numbers: np.ndarray, block: int,
                    twins: dict[Diagnosis, np.ndarray]) -> None:
    """The largest absolute value of each block."""
    found, right = found.reshape(-1), _scales(numbers, block)
    if trial.agrees(found[:-1], right[:-1]) and not trial.agrees(found[-1:], right[-1:]):
        raise Found(PADDED, f"Only that of the last block is wrong, {found[-1]:.4g}: the largest "
                            f"absolute value there is {right[-1]:.4g}.")
    largest = np.array([part.max() for part in _blocks(numbers, block)])
    trial.compare(what, found, right, {NOT_ABSOLUTE: largest, **twins})


def _same_when_small(trial: Trial, name: str, numbers: np.ndarray) -> None:
    usual, small = (_quantized(trial, name, n)[0] for n in (numbers, np.ldexp(numbers, -64)))
    if not np.array_equal(usual, small):
        raise Found(SMALL_BLOCKS, f"Divided by 2^64, the same numbers got "
                                  f"{np.mean(usual != small):.0%} other codes.")


def _several(diagnosis: Diagnosis, *twins: np.ndarray) -> dict[Diagnosis, np.ndarray]:
    """Wrong twins of one mistake, under keys that differ."""
    return {replace(diagnosis, seen=str(i)): twin for i, twin in enumerate(twins)}


def _codes(trial: Trial, codes: np.ndarray, size: int, what: str) -> np.ndarray:
    if codes.dtype != np.uint8:
        raise Found(GENERAL["wrong-dtype"], f"{what} are {codes.dtype}, expected uint8.")
    if codes.size != size:
        raise Found(GENERAL["wrong-shape"], f"{what}: {codes.size} bytes, expected {size}.")
    return codes.reshape(-1)


# ---- Step 1: quantize_nf4 ---------------------------------------------------------------------

@EXERCISE.test(1, "interface", "quantize_nf4 gives codes (uint8) and absmax (float32)")
def _quantize_types(trial: Trial) -> None:
    codes, absmax = _quantized(trial, "quantize_nf4", _weight(trial, OUT, BLOCK))
    for name, array, dtype in (("codes", codes, np.uint8), ("absmax", absmax, np.float32)):
        if array.dtype != dtype:
            raise Found(GENERAL["wrong-dtype"], f"{name} is {array.dtype}, expected "
                                                f"{np.dtype(dtype)}.")


@EXERCISE.test(1, "shapes", "two codes to a byte, one absmax for each 64 weights")
def _quantize_sizes(trial: Trial) -> None:
    for shape in ((OUT, BLOCK), (OUT, IN), ODD, (RANK,), (RANK, *ODD)):
        n = prod(shape)
        codes, absmax = _quantized(trial, "quantize_nf4", _weight(trial, *shape))
        seen = f"{n} weights gave {codes.size} bytes of codes and {absmax.size} absmax."
        half, blocks = -(-n // 2), -(-n // BLOCK)
        if absmax.size == 1 < blocks:
            raise Found(PER_TENSOR, seen)
        if absmax.size == shape[0] != blocks:
            raise Found(PER_ROW, seen)
        if absmax.size == n // BLOCK != blocks:
            raise Found(SHORT_DROPPED, seen)
        if codes.size == n:
            raise Found(UNPACKED, seen)
        if codes.size == n // 2 != half:
            raise Found(ODD_DROPPED, seen)
        flat = _codes(trial, codes, half, f"codes of {n} weights")
        if np.array_equal(_unpack(flat)[1:], _indices(_weight(trial, *shape), NF4, BLOCK)):
            raise Found(PAD_FRONT, f"The codes of {n} weights begin in the middle of a byte.")
        trial.expect("absmax", absmax.reshape(-1), shape=(blocks,))


@EXERCISE.test(1, "values", "absmax is the largest absolute value of each block")
def _absmax_values(trial: Trial) -> None:
    for block in (BLOCK, OTHER):
        W = _weight(trial, OUT, IN, block=block) / 16  # below 1, which a padding might be
        _, absmax = _quantized(trial, "quantize_nf4", W, block=block)
        _block_arrives(absmax, W, block)
        _compare_scales(trial, "absmax", absmax, W, block, {
            COLUMNS: _scales(W.T.copy(), block),
            PER_TENSOR: np.full(absmax.size, np.abs(W).max())})


@EXERCISE.test(1, "values", "each weight gets the nearest of the 16 levels")
def _code_values(trial: Trial) -> None:
    for block in (BLOCK, OTHER):
        W = _weight(trial, OUT, IN, block=block)
        packed, _ = _quantized(trial, "quantize_nf4", W, block=block)
        found, right = _unpack(packed.reshape(-1)), _indices(W, NF4, block)
        if np.array_equal(found, right):
            continue
        even, quotients = _indices(W, EVEN, block), W.reshape(-1) / _spread(
            _scales(W, block), block, W.size)
        seven = np.round(quotients * 7)
        whole = {PER_TENSOR: [_indices(W, NF4, W.size)], NIBBLES: [_other_way_round(right)],
                 HALVES: [right.reshape(2, -1).T.reshape(-1)],
                 NOT_ABSOLUTE: [_indices(W, NF4, block, largest=np.max)],
                 NOT_DIVIDED: [_indices(W, NF4, block, largest=np.ones_like)],
                 NOT_NEAREST: [_indices(W, NF4, block, pick) for pick in ("below", "above")],
                 UNIFORM: [even, _other_way_round(even), seven + 7, seven + 8,
                           np.minimum(np.round((quotients + 1) * 8), 15)]}
        for diagnosis, twins in whole.items():
            for twin in twins:
                if np.mean(found == twin) > 0.95:
                    raise Found(diagnosis, "The codes equal those that this mistake gives.")
        ends = np.concatenate([np.abs(part) == np.abs(part).max() for part in _blocks(W, block)])
        wrong = found != right
        raise Found(GENERAL["values"],
                    f"{wrong.sum()} of {W.size} codes are wrong, {wrong[ends].sum()} of them those "
                    f"of the {ends.sum()} largest weights of a block.")


def _other_way_round(codes: np.ndarray) -> np.ndarray:
    """The two codes of each byte exchanged."""
    return codes.reshape(-1, 2)[:, ::-1].reshape(-1)


@EXERCISE.test(1, "behaviour", "a transposed view is read by its rows, too")
def _view(trial: Trial) -> None:
    W = _weight(trial, IN, OUT)
    one, two = (_quantized(trial, "quantize_nf4", array) for array in (W.copy().T, W.T.copy()))
    if not all(map(np.array_equal, one, two)):
        raise Found(COLUMNS, "W.T and W.T.copy() gave different codes.")


@EXERCISE.test(1, "behaviour", "a block of zeros has the absmax 0 and the level 0")
def _zeros(trial: Trial) -> None:
    W = _weight(trial, RANK, BLOCK)  # one block to a row
    W[1] = 0
    with np.errstate(all="ignore"):
        packed, absmax = _quantized(trial, "quantize_nf4", W)
    codes, scale = _unpack(packed.reshape(-1)).reshape(W.shape)[1], absmax.reshape(-1)[1]
    if scale != 0 or (codes != 7).any():
        raise Found(ZERO_BLOCK, f"Its absmax is {scale:g} and its codes are "
                                f"{sorted(set(codes.tolist()))}.")


@EXERCISE.test(1, "behaviour", "tiny weights are stored as well as weights of one")
def _small_weights(trial: Trial) -> None:
    _same_when_small(trial, "quantize_nf4", _weight(trial, OUT, IN))


# ---- Step 2: dequantize_nf4 -------------------------------------------------------------------

@EXERCISE.test(2, "values", "codes become levels times their block's absmax")
def _dequantize_values(trial: Trial) -> None:
    function = _function(trial, "dequantize_nf4")
    codes = trial.rng(3).integers(16, size=OUT * IN).astype(np.uint8)

    def made(levels: np.ndarray) -> np.ndarray:
        return levels.reshape(OUT, IN).astype(np.float32)

    for block in (BLOCK, OTHER):
        absmax = _scales(_weight(trial, OUT, IN), block)
        scale, usual = _spread(absmax, block, codes.size), _spread(absmax, BLOCK, codes.size)
        W = trial.call(function, _pack(codes), absmax, (OUT, IN), block=block)
        trial.compare("the weight", W, made(NF4[codes] * scale), {
            HALVES: made(NF4[codes.reshape(-1, 2).T.reshape(-1)] * scale),
            NIBBLES: made(NF4[_other_way_round(codes)] * scale), NO_ABSMAX: made(NF4[codes]),
            UNIFORM: made(EVEN[codes] * scale), PER_TENSOR: made(NF4[codes] * absmax.max()),
            TILED: made(NF4[codes] * np.resize(absmax, codes.size)), COLUMNS: (
                NF4[codes] * scale).reshape(IN, OUT).T.astype(np.float32),
            BLOCK_LOST: made(NF4[codes] * usual)})
        Trial(trial.student, np.float32).keeps_dtype("dequantize_nf4", W)
        if not np.allclose(W, made(NF4[codes] * scale), rtol=2e-6, atol=0):
            raise Found(GENERAL["digits"], "The weight agrees with the levels of the statement to "
                                           "four digits or so, and float32 holds seven.")


@EXERCISE.test(2, "behaviour", "levels times absmax survive the round trip, for any shape")
def _round_trip(trial: Trial) -> None:
    for shape in ((1, 1), ODD, (OUT, BLOCK), (OUT, IN), (RANK, 129), (RANK,), (RANK, *ODD)):
        n = prod(shape)
        codes = trial.rng(n).integers(16, size=n)
        codes[::BLOCK] = 15  # each block contains its absmax
        scales = trial.rng(5).random(n, dtype=np.float32)  # more than there are blocks
        W = (NF4[codes] * _spread(scales, BLOCK, n)).reshape(shape)
        back = trial.call(_function(trial, "dequantize_nf4"), *_quantized(
            trial, "quantize_nf4", W, BLOCK), shape, BLOCK, shape=shape)
        last = n // BLOCK * BLOCK
        twin = np.concatenate([W.reshape(-1)[:last], back.reshape(-1)[last:]]).reshape(shape)
        trial.compare(f"a weight of shape {shape}, there and back,", back, W,
                      {SHORT_DROPPED: twin} if last else {})


@EXERCISE.test(2, "behaviour", "no error exceeds half the gap between the neighbouring levels")
def _half_gap(trial: Trial) -> None:
    W = trial.normal(BLOCK, BLOCK, seed=8)  # midpoints are not avoided here
    back = trial.call(_function(trial, "dequantize_nf4"), *_quantized(
        trial, "quantize_nf4", W), W.shape)
    spread = _spread(_scales(W, BLOCK), BLOCK, W.size)
    place = np.clip(np.searchsorted(NF4, W.reshape(-1) / spread), 1, 15)
    half = (NF4[place] - NF4[place - 1]) / 2 * spread
    excess = np.abs(back - W).reshape(-1) > half + 1e-5
    if excess.any():
        raise Found(NOT_NEAREST, f"{excess.sum()} of {W.size} errors are larger.")


# ---- Step 3: double quantization --------------------------------------------------------------

def _absmax(trial: Trial, n: int, block: int = SECOND) -> np.ndarray:
    """Positive numbers whose quotients keep away from the midpoints of the dynamic code.

    Their median is not the mean, the smallest is farther from it than the largest, and those of a
    short last block are near it.
    """
    values = np.sqrt(trial.rng(1).random(n, dtype=np.float32))
    last = n // block * block
    values[last:] = np.sqrt(values[last:])
    for _ in range(12):  # moving some changes the mean, and with it all others a little
        margins = _margin(values - values.mean(dtype=np.float64), DYNAMIC, block)
        values[margins < 1e-4] += np.float32(1e-3)
    return values


@EXERCISE.test(3, "shapes", "quantize_absmax gives codes, scales for each 256, and one offset")
def _absmax_sizes(trial: Trial) -> None:
    for n in (MANY, SECOND, RANK):
        codes, scales, offset = _quantized(trial, "quantize_absmax", _absmax(trial, n))
        _codes(trial, codes, n, "codes of the absmax")
        if scales.size != -(-n // SECOND):
            raise Found(SECOND_BLOCK, f"{n} absmax gave {scales.size} scales.")
        if np.size(offset) != 1:
            raise Found(GENERAL["wrong-shape"], f"The offset has {np.size(offset)} numbers.")
        if scales.dtype != np.float32:
            raise Found(GENERAL["wrong-dtype"], f"scales are {scales.dtype}, expected float32.")


@EXERCISE.test(3, "values", "offset, scales and codes are those of the dynamic code")
def _absmax_codes(trial: Trial) -> None:
    for block in (SECOND, OTHER):
        values = _absmax(trial, MANY, block)
        codes, scales, offset = _quantized(trial, "quantize_absmax", values, block=block)
        mean, offset = values.mean(dtype=np.float64), np.asarray(offset).item()
        rest = values - mean
        if abs(offset - mean) > 1e-4:
            raise Found(WRONG_OFFSET if offset else NO_OFFSET,
                        f"The offset is {offset:.4g}, the mean {mean:.4g}.")
        _block_arrives(scales, values, block)
        _compare_scales(trial, "scales", scales, rest, block, {
            NO_OFFSET: _scales(values, block),
            SECOND_BLOCK: np.full(scales.size, np.abs(rest).max())})
        codes, right = codes.reshape(-1), _indices(rest, DYNAMIC, block)
        if np.array_equal(codes, right):
            continue
        quotients = rest / _spread(_scales(rest, block), block, rest.size)
        linear, half = np.round(quotients * 127), (quotients + 1) * 127.5
        twins = [(LINEAR_CODE, wrong) for wrong in (
            linear + 127, linear + 128, linear % 256, np.round(half), np.floor(half))]
        twins += [(FOUR_BIT_ABSMAX, _indices(rest, NF4, block)),
                  (NOT_DIVIDED, _indices(rest, DYNAMIC, block, largest=np.ones_like)),
                  (NOT_NEAREST, _indices(rest, DYNAMIC, block, "below")),
                  (NOT_NEAREST, _indices(rest, DYNAMIC, block, "above"))]
        for diagnosis, twin in twins:
            if np.mean(codes == twin) > 0.98:
                raise Found(diagnosis, "The codes equal those that this mistake gives.")
        raise Found(GENERAL["values"], f"{(codes != right).sum()} of {right.size} codes differ.")


@EXERCISE.test(3, "values", "dequantize_absmax brings them back")
def _absmax_back(trial: Trial) -> None:
    function = _function(trial, "dequantize_absmax")
    codes = trial.rng(3).integers(len(DYNAMIC), size=MANY).astype(np.uint8)
    for block in (SECOND, OTHER):
        offset, *scales = trial.rng(4).random(1 + -(-MANY // block), dtype=np.float32)
        spread = _spread(np.array(scales), block, MANY)
        rest = DYNAMIC[codes] * spread
        back = trial.call(function, codes, np.array(scales), offset, block=block)
        trial.compare("absmax", back, rest + offset, {
            OFFSET_LOST: rest, NO_ABSMAX: DYNAMIC[codes] + offset,
            TILED: DYNAMIC[codes] * np.resize(scales, MANY) + offset,
            LINEAR_CODE: (codes.astype(np.float32) - 128) / 127 * spread + offset,
            BLOCK_LOST: DYNAMIC[codes] * _spread(np.array(scales), SECOND, MANY)[:MANY] + offset})
        Trial(trial.student, np.float32).keeps_dtype("dequantize_absmax", back)


@EXERCISE.test(3, "behaviour", "absmax that are equal, or the only one, have the scale 0")
def _equal(trial: Trial) -> None:
    for n, number in ((1, 0.25), (MANY, 0.25), (MANY, 0.0)):
        with np.errstate(all="ignore"):
            codes, scales, _ = _quantized(trial, "quantize_absmax", np.full(n, number, np.float32))
        if scales.any() or (codes != 127).any():
            raise Found(ZERO_BLOCK, f"{n} times {number:g} has a scale of {scales.max():g} and the "
                                    f"codes {sorted(set(codes.reshape(-1).tolist()))}.")


@EXERCISE.test(3, "behaviour", "tiny absmax are stored as well as those near one")
def _small_absmax(trial: Trial) -> None:
    _same_when_small(trial, "quantize_absmax", _absmax(trial, MANY))


# ---- Step 4: the layer ------------------------------------------------------------------------

def _named(trial: Trial, layer: Any, which: str = "parameters") -> dict[str, np.ndarray]:
    """`parameters()` or `gradients()`, of A and B only. More than a bias beside them has a name."""
    found = trial.expect(f"{which}()", getattr(layer, which)(), dict)
    if set(found) - {"bias"} > {"A", "B"}:
        raise Found(WEIGHT_GRADIENT, f"{which}() has the keys {sorted(found)}.")
    return trial.arrays(layer, ("A", "B"), which)


def _fill(trial: Trial, layer: Any) -> dict[str, np.ndarray]:
    """A and B of a layer, filled with random numbers."""
    arrays = _named(trial, layer)
    for number, array in enumerate(arrays.values()):
        array[...] = trial.normal(*array.shape, seed=10 + number) / 2
    return arrays


def _layer(trial: Trial, double: bool = True, random: bool = True, bias: bool = True) -> tuple:
    """A student's layer, its parameters, weight, bias and the weight that it must compute with."""
    W = _weight(trial, OUT, IN)
    b = trial.normal(OUT, seed=2) if bias else None
    layer = trial.call(_function(trial, "QLoRALinear"), W, bias=b, lora_rank=RANK,
                       lora_alpha=ALPHA_VALUE, double_quant=double, rng=trial.rng(1), returns=None)
    arrays = _fill(trial, layer) if random else _named(trial, layer)
    return layer, arrays, W, b, _stored(W, double).astype(trial.dtype)


@EXERCISE.test(4, "interface", "the layer can be made and trains A and B only")
def _layer_names(trial: Trial) -> None:
    layer, arrays, *_ = _layer(trial)
    for name, shape in {"A": (RANK, IN), "B": (OUT, RANK)}.items():
        trial.expect(name, arrays[name], shape=shape)
        if arrays[name].dtype != trial.dtype:
            raise Found(GENERAL["wrong-dtype"], f"{name} is {arrays[name].dtype}, the weight is "
                                                f"{trial.dtype}.")
    count = trial.call(layer.num_parameters, returns=(int, np.integer))
    if count != RANK * (IN + OUT):
        raise Found(GENERAL["values"], f"num_parameters() gave {count}.")


@EXERCISE.test(4, "start", "a fresh layer is the quantized one, and can learn")
def _layer_start(trial: Trial) -> None:
    for double in (True, False):
        layer, arrays, W, b, stored = _layer(trial, double, random=False)
        if not arrays["A"].any() and not arrays["B"].any():
            raise Found(GENERAL["values"], "A and B both hold zeros only: neither can learn.")
        x = trial.normal(ROWS, IN, seed=3)
        if (arrays["B"] @ arrays["A"]).any():
            raise Found(NOT_IDENTITY, "B A is not zero in a fresh layer.")
        if (std := max(array.std() for array in arrays.values())) > 0.5:
            raise Found(GENERAL["start-size"], f"Its standard deviation is {std:.2g}.")
        other = _stored(W, not double).astype(trial.dtype)
        across = _stored(W.T.copy(), double).T.astype(trial.dtype)
        trial.compare(f"the output with double_quant = {double}", trial.call(layer.forward, x),
                      x @ stored.T + b, {
                          FULL_WEIGHT: x @ W.T + b, NO_BIAS: x @ stored.T,
                          COLUMNS: x @ across.T + b,
                          NOT_DOUBLE if double else DOUBLE_IGNORED: x @ other.T + b})


@EXERCISE.test(4, "start", "the same seed gives the same layer, another seed another")
def _seeds(trial: Trial) -> None:
    W = _weight(trial, OUT, IN)
    one, same, other = (
        _named(trial, trial.call(_function(trial, "QLoRALinear"), W, rng=rng, returns=None))
        for rng in (trial.rng(1), trial.rng(1), trial.rng(2)))
    for seeds, twin, wanted in (("one seed", same, True), ("different seeds", other, False)):
        if all(np.array_equal(one[name], twin[name]) for name in one) != wanted:
            raise Found(RNG, f"Two layers from {seeds} have {'other' if wanted else 'the same'} A "
                             "and B.")


@EXERCISE.test(4, "values", "the output with A and B filled")
def _layer_values(trial: Trial) -> None:
    layer, a, W, b, stored = _layer(trial)
    update, s = a["B"] @ a["A"], ALPHA_VALUE / RANK
    merged = _stored((stored + s * update).astype(np.float32)).astype(trial.dtype)
    once = _stored((W + s * update).astype(np.float32)).astype(trial.dtype)
    for lead in ((ROWS,), (), (2, 3)):
        x = trial.normal(*lead, IN, seed=3)
        value = trial.call(layer.forward, x, shape=(*lead, OUT))
        trial.compare("the output", value, x @ (stored + s * update).T + b, {
            ALPHA: x @ (stored + ALPHA_VALUE * update).T + b, NO_S: x @ (stored + update).T + b,
            **_several(ALPHA_LOST, *(x @ (stored + usual * update).T + b
                                     for usual in (16 / RANK, 16 / 8))),
            **_several(UPDATE_QUANTIZED, x @ merged.T + b, x @ once.T + b)})
    plain, a, *_, stored = _layer(trial, bias=False)
    x = trial.normal(ROWS, IN, seed=3)
    trial.compare("the output without a bias", trial.call(plain.forward, x),
                  x @ (stored + s * a["B"] @ a["A"]).T)


@EXERCISE.test(4, "values", "arguments in their order, and the defaults")
def _defaults(trial: Trial) -> None:
    W, x = _weight(trial, OUT, IN), trial.normal(ROWS, IN, seed=3)
    for args, rank, alpha in (((None, RANK, ALPHA_VALUE), RANK, ALPHA_VALUE), ((), 8, 16)):
        call = f"QLoRALinear({', '.join(map(str, ('weight', *args)))})"
        layer = trial.call(_function(trial, "QLoRALinear"), W, *args, returns=None)
        a = _fill(trial, layer)
        if a["A"].shape != (rank, IN):
            raise Found(GENERAL["signature"], f"{call} has an A of shape {a['A'].shape}, expected "
                                              f"{(rank, IN)}.")
        right = x @ (_stored(W).astype(trial.dtype) + alpha / rank * a["B"] @ a["A"]).T
        if not trial.agrees(trial.call(layer.forward, x), right):
            raise Found(GENERAL["signature"], f"The output of {call} is wrong, although that with "
                                              "all arguments by name is right.")


def _arrays_of(thing: Any, seen: set | None = None) -> Iterator[np.ndarray]:
    """All arrays that an object holds, each once, tables of the two codes left out."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (ModuleType, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        if not (thing.shape in TABLES and thing.dtype.kind == "f"):
            yield thing
        return
    inside = thing.values() if isinstance(thing, dict) else (
        thing if isinstance(thing, (list, tuple)) else getattr(thing, "__dict__", {}).values())
    remembered = [part for cache in _caches(thing) for part in gc.get_referents(cache)]
    for part in [*inside, *remembered]:
        yield from _arrays_of(part, seen)


def _caches(thing: Any) -> list[Any]:
    """Methods inside functools.lru_cache: the class holds what they remember."""
    return [value for cls in type(thing).__mro__ for value in vars(cls).values()
            if hasattr(value, "cache_clear")]


def _large(trial: Trial, shape: tuple = LARGE, rank: int = 8) -> tuple[Any, np.ndarray]:
    """A student's layer with a larger weight, and the weight."""
    W = _weight(trial, *shape)
    layer = trial.call(_function(trial, "QLoRALinear"), W, lora_rank=rank, returns=None)
    for cache in _caches(layer):
        cache.cache_clear()  # of what layers before this one left there
    return layer, W


def _held(layer: Any) -> list[np.ndarray]:
    """What a layer holds beside arrays of the shapes of A and B: gradients, say, or a copy."""
    trained = {array.shape for array in layer.parameters().values()}
    return [array for array in _arrays_of(layer) if array.shape not in trained]


def _numbers(arrays: list[np.ndarray]) -> int:
    return sum(array.size for array in arrays)


def _floats(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array for array in arrays if array.dtype.kind == "f"]


def _stays_small(trial: Trial, layer: Any, W: np.ndarray, when: str,
                 known: dict[Diagnosis, np.ndarray] | None = None) -> None:
    """Raise `Found` if a layer holds as many numbers as its weight, which is `LARGE`, has.

    With a single row of input, all else that it may hold is far smaller.
    """
    held = _held(layer)
    if (found := _numbers(_floats(held))) >= W.size:
        for diagnosis, large in {FULL_WEIGHT: W, KEEPS_DEQUANTIZED: _stored(W),
                                 **(known or {})}.items():
            for array in held:
                start = array.reshape(-1)[:W.size]  # what follows is padding
                if start.size == W.size and any(
                        trial.agrees(start, one.reshape(-1)) for one in (large, large.T)):
                    raise Found(diagnosis, f"{when} the layer holds it, {array.size} numbers.")
        raise Found(LARGE_KEPT, f"{when} the layer holds {found} floating-point numbers, and the "
                                f"weight has {W.size}.")
    if _numbers(held) >= W.size:
        raise Found(LAYER_UNPACKED, f"{when} the layer holds {_numbers(held)} numbers for "
                                    f"{W.size} codes.")


@EXERCISE.test(4, "behaviour", "no array of the weight's size is stored, or kept after forward")
def _memory(trial: Trial) -> None:
    layer, W = _large(trial)
    _stays_small(trial, layer, W, "Before its first pass")
    if (scales := _numbers(_floats(_held(layer)))) >= W.size / BLOCK:
        raise Found(NOT_DOUBLE, f"The layer holds {scales} floating-point scales.")
    trial.call(layer.forward, trial.normal(1, W.shape[1], seed=3))
    _stays_small(trial, layer, W, "After forward")
    del layer, W
    _weighs_little(trial)


def _weighs_little(trial: Trial) -> None:
    """Raise `Found` if more memory stays while a layer lives than codes, scales, A and B need.

    However it is kept: in a closure, as bytes, in a list, in the module's dictionary.
    """
    if tracemalloc.is_tracing():
        return
    trial.call(_function(trial, "QLoRALinear"), _weight(trial, *ODD), returns=None)  # its tables
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        layer, W = _large(trial, (64, 96), rank=1)
        size, trained = W.size, sum(array.nbytes for array in layer.parameters().values())
        x = trial.normal(1, W.shape[1], seed=3)
        del W
        for when in ("Once it is made", "After forward"):
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before - 2 * trained  # and gradients
            if held > 0.75 * size + 8192:  # half a byte for each code; its scales, x and the like
                raise Found(LARGE_KEPT, f"{when} it holds {held:,} bytes beside A and B, for "
                                        f"{size:,} weights of four bits.")
            trial.call(layer.forward, x)
    finally:
        tracemalloc.stop()


@EXERCISE.test(4, "behaviour", "bits_per_weight() measures codes, absmax and scales, and no more")
def _bits(trial: Trial) -> None:
    for shape in (LARGE, ODD):
        W, b = _weight(trial, *shape), trial.normal(shape[0])
        blocks = -(-W.size // BLOCK)
        for double, scales in ((True, blocks + 4), (False, 4 * blocks)):  # in bytes
            layer = trial.call(_function(trial, "QLoRALinear"), W, b, double_quant=double,
                               returns=None)
            bits = trial.call(layer.bits_per_weight, returns=(float, int, np.floating))
            size = -(-W.size // 2) + scales
            if abs(bits - 8 * size / W.size) > 1e-3:
                raise Found(WRONG_BITS, f"bits_per_weight() gave {bits:.4g} for a weight of shape "
                                        f"{shape} with double_quant = {double}: codes and scales "
                                        f"have {size} bytes.")


@EXERCISE.test(4, "behaviour", "blocks of zeros stay zero")
def _zero_rows(trial: Trial) -> None:
    W = _weight(trial, RANK, BLOCK)
    W[1] = 0
    layer = trial.call(_function(trial, "QLoRALinear"), W, returns=None)
    largest = np.abs(trial.call(layer.forward, np.eye(BLOCK, dtype=trial.dtype))[:, 1]).max()
    if largest:
        raise Found(ZERO_BLOCK, f"A row of zeros gave outputs up to {largest:.2g}.")


@EXERCISE.test(5, "arguments", "sizes and shapes that make no sense are refused")
def _layer_refuses(trial: Trial) -> None:
    make = _function(trial, "QLoRALinear")
    W, b = _weight(trial, OUT, IN), trial.normal(OUT)
    for what, args in {"a weight of one axis": (W[0],), "a weight of three axes": (W[None],),
                       "a bias with a single number": (W, b[:1]), "lora_rank=0": (W, b, 0),
                       "lora_rank=1.5": (W, b, 1.5), "lora_alpha=0": (W, b, RANK, 0.0),
                       "lora_alpha=nan": (W, b, RANK, np.nan)}.items():
        trial.refuses(what, lambda args=args: make(*args))
    trial.refuses("double_quant without its name", lambda: make(W, b, RANK, ALPHA_VALUE, False),
                  (TypeError,), GENERAL["signature"])
    layer, *_ = _layer(trial)
    trial.refuses("an x of another width", lambda: layer.forward(trial.normal(ROWS, OUT)))


# ---- Step 5: backward -------------------------------------------------------------------------

@EXERCISE.test(5, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    trial.refuses("backward before forward", lambda: layer.backward(trial.normal(ROWS, OUT)),
                  (RuntimeError,), GENERAL["backward-first"])


@EXERCISE.test(5, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for lead in ((), (2, 3)):
        layer, arrays, *_ = _layer(trial)
        trial.call(layer.forward, trial.normal(*lead, IN))
        trial.call(layer.backward, trial.normal(*lead, OUT), shape=(*lead, IN))
        for name, grad in _named(trial, layer, "gradients").items():
            trial.expect(f"the gradient of {name}", grad, shape=arrays[name].shape)


@EXERCISE.test(5, "gradients", "those of A, B and the input, through the dequantized weight")
def _gradients(trial: Trial) -> None:
    s = ALPHA_VALUE / RANK
    for double in (True, False):
        for lead in ((ROWS,), (), (2, 3)):
            layer, a, W, _, stored = _layer(trial, double)
            A, B, other = a["A"], a["B"], _stored(W, not double).astype(trial.dtype)
            x, G = trial.normal(*lead, IN, seed=3), trial.normal(*lead, OUT, seed=4)
            trial.call(layer.forward, x)
            back = trial.call(layer.backward, G)
            found = trial.arrays(layer, ("A", "B"), "gradients")
            flat, rows = G.reshape(-1, OUT), x.reshape(-1, IN)  # (n, out), (n, in)
            for name, right in (("B", flat.T @ (rows @ A.T)), ("A", (flat @ B).T @ rows)):
                trial.compare(f"the gradient of {name}", found[name], s * right, {
                    NO_S: right, ALPHA: ALPHA_VALUE * right, S_TWICE: s * s * right})
            update, frozen = G @ B @ A, G @ stored
            trial.compare("the gradient of the input", back, frozen + s * update, {
                NO_S: frozen + update, S_TWICE: frozen + s * s * update, FROZEN_LOST: s * update,
                UPDATE_LOST: frozen,
                **_several(THROUGH_FULL, *(G @ wrong + s * update for wrong in (W, other)))})


@EXERCISE.test(5, "behaviour", "training leaves the codes alone and keeps no large gradient")
def _frozen(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    x = trial.normal(ROWS, IN, seed=3)
    first = trial.call(layer.forward, x).copy()
    trial.call(layer.backward, trial.normal(ROWS, OUT, seed=4))
    if not np.array_equal(trial.call(layer.forward, x), first):
        raise Found(FROZEN_CHANGED, "After a step without an optimizer it computes something else.")
    layer, W = _large(trial)
    x, G = trial.normal(1, W.shape[1], seed=3), trial.normal(1, W.shape[0], seed=4)
    trial.call(layer.forward, x)
    trial.call(layer.backward, G)
    _stays_small(trial, layer, W, "After backward", {WEIGHT_GRADIENT: G.T @ x})


@EXERCISE.test(5, "behaviour", "backward replaces the gradients, and an optimizer moves the layer")
def _replaces(trial: Trial) -> None:
    layer, arrays, *_ = _layer(trial)
    x, G = trial.normal(ROWS, IN, seed=3), trial.normal(ROWS, OUT, seed=4)
    before = trial.call(layer.forward, x).copy()
    trial.call(layer.backward, G)
    trial.replaces_gradients(layer, ("A", "B"), lambda: (
        trial.call(layer.forward, x), trial.call(layer.backward, G)))
    arrays["A"] *= 2
    if trial.agrees(trial.call(layer.forward, x), before):
        raise Found(GENERAL["dead-parameters"], "A was doubled, and nothing changed.")

    def build() -> tuple:
        layer, a, _, b, stored = _layer(trial)

        def right(x: np.ndarray, G: np.ndarray) -> dict[str, np.ndarray]:
            s, B, A = ALPHA_VALUE / RANK, a["B"], a["A"]
            dense = stored + s * B @ A
            return {"output": x @ dense.T + b, "x": G @ dense, "B": s * G.T @ (x @ A.T),
                    "A": s * (G @ B).T @ x}
        return layer, layer.forward, right

    layer, _, right = build()
    trial.follows(layer, ("A", "B"), ((ROWS, IN), (ROWS, IN), (RANK, IN)), right)
    trial.keeps_apart(build, ("A", "B"), (ROWS, IN))


@EXERCISE.test(5, "arguments", "a gradient of another shape than the output is refused")
def _backward_refuses(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    trial.call(layer.forward, trial.normal(ROWS, IN))
    for shape in ((ROWS, IN), (1, ROWS, OUT)):
        trial.refuses(f"After an x of shape {(ROWS, IN)}, a grad_output of shape {shape}",
                      lambda shape=shape: layer.backward(trial.normal(*shape)))


@EXERCISE.test(5, "behaviour", "dtypes stay as they are")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, *_ = _layer(each)
        each.keeps_dtype("forward", each.call(layer.forward, each.normal(ROWS, IN)))
        back = each.call(layer.backward, each.normal(ROWS, OUT))
        each.keeps_dtype("backward", back, *each.arrays(layer, ("A", "B"), "gradients").values())


def check_qlora(work: Any, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check NF4 and `QLoRALinear`: the first `step` steps, or all. See `Exercise.check`.

    Parameters
    ----------
    work : the namespace in which the four functions and the class are defined: `globals()` in a
        notebook, or a module
    """
    space = work if isinstance(work, dict) else vars(work)
    return EXERCISE.check(SimpleNamespace(**{name: space[name] for name in WORK if name in space}),
                          step, dtype=dtype)
