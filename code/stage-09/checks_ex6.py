"""Exercise 6, 4-bit LoRA: the tests. Reading them spoils the exercise.

The work is a module or a namespace with four functions and a class. The probes keep away from the
midpoints between levels, so that any order of operations, in float32 or float64, gives their codes.
"""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from checking import GENERAL, Diagnosis, Exercise, Found, NotYet, Report, Trial
from code_tables import DYNAMIC, NF4

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
NOT_ABSOLUTE = Diagnosis(
    "max-not-absmax", "the largest value instead of the largest absolute value",
    "Where the most negative weight is larger than the most positive one, its quotient lies below "
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
    "Only a block of nothing but zeros needs a guard. Dividing a block of small weights by "
    "something larger than its absmax uses a few levels in the middle.", "statement")
ZERO_BLOCK = Diagnosis(
    "zero-block", "a block of zeros that divides by zero",
    "0 / 0 is no number, and the codes made of it are arbitrary. Weights that were zero have to "
    "have the code of the level 0, and the absmax 0.", "statement")
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
    "dequantized-kept", "a dequantized weight that is kept after the forward pass",
    "While it is kept, the layer takes as much memory as without quantization, and more. Backward "
    "can make it again.", "statement")
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
NO_S = Diagnosis("no-s-in-backward", "backward without the factor s",
                 "s multiplies the update in forward, so it multiplies every gradient that passes "
                 "through it.", "9.2")
WEIGHT_GRADIENT = Diagnosis(
    "gradient-to-quantized-weight", "a gradient for the quantized weight",
    "There are sixteen levels and nothing between them: a small step can't be taken. Only A and B "
    "train, and a gradient the size of the weight is memory that QLoRA wants to save.",
    "statement")
CODES_CHANGED = Diagnosis(
    "codes-changed", "stored codes that training has changed",
    "The quantized weight is frozen, bit for bit.", "statement")

EXERCISE = Exercise(
    6, "4-bit LoRA (QLoRA)", UNPACKED, NIBBLES, PER_TENSOR, PER_ROW, SHORT_DROPPED, ODD_DROPPED,
    NOT_ABSOLUTE, COLUMNS, UNIFORM, NOT_NEAREST, ZERO_BLOCK, NO_ABSMAX, TILED, NO_OFFSET,
    OFFSET_LOST, LINEAR_CODE, SECOND_BLOCK, FULL_WEIGHT, KEEPS_DEQUANTIZED, LAYER_UNPACKED,
    NOT_DOUBLE, WRONG_BITS, DOUBLE_IGNORED, ALPHA, NOT_IDENTITY, NO_BIAS, UPDATE_QUANTIZED,
    FROZEN_LOST, SMALL_BLOCKS, HALVES, PAD_FRONT, FOUR_BIT_ABSMAX, ALPHA_LOST,
    THROUGH_FULL, NO_S, WEIGHT_GRADIENT, CODES_CHANGED)

WORK = ("quantize_nf4", "dequantize_nf4", "quantize_absmax", "dequantize_absmax", "QLoRALinear")
OUT, IN, RANK, ALPHA_VALUE = 12, 40, 3, 6.0  # 480 weights: 7 blocks of 64 and one of 32; s = 2
ROWS = 4
ODD = (7, 11)  # one block of 64 and one of 13
BLOCK, SECOND = 64, 256  # of the two quantizations
MANY = 600  # absmax: two blocks of 256 and one of 88
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
    return np.abs(quotients[:, None] - midpoints).min(axis=1)


def _clear(values: np.ndarray) -> np.ndarray:
    """The values, with those near a midpoint moved to their level: any arithmetic agrees."""
    values = values.astype(np.float32)
    flat = values.reshape(-1)
    spread = _spread(_scales(flat, BLOCK), BLOCK, flat.size)
    near = _margin(flat, NF4, BLOCK) < 1e-3
    flat[near] = (NF4[_indices(flat, NF4, BLOCK)] * spread)[near]
    return values


def _weight(trial: Trial, *shape: int) -> np.ndarray:
    """A probe, float32 numbers in the trial's dtype."""
    return _clear(trial.rng(seed=1).standard_normal(shape)).astype(trial.dtype)


def _function(trial: Trial, name: str) -> Any:
    if not hasattr(trial.student, name):
        raise NotYet(f"{name} is not defined")
    return getattr(trial.student, name)


def _pair(trial: Trial, name: str, *args: Any, length: int = 2) -> tuple:
    """The call of a quantize function, which has to give a tuple."""
    result = trial.call(_function(trial, name), *args, returns=(tuple, list))
    if len(result) != length:
        raise Found(GENERAL["wrong-type"], f"{name} gave {len(result)} things, expected {length}.")
    for thing in result[:2]:
        trial.expect(f"what {name} gave", thing)
    return tuple(result)


def _codes(trial: Trial, codes: np.ndarray, size: int, what: str) -> np.ndarray:
    if codes.dtype != np.uint8:
        raise Found(GENERAL["wrong-dtype"], f"{what} are {codes.dtype}, expected uint8.")
    if codes.size != size:
        raise Found(GENERAL["wrong-shape"], f"{what}: {codes.size} bytes, expected {size}.")
    return codes.reshape(-1)


# ---- Step 1: quantize_nf4 ---------------------------------------------------------------------

@EXERCISE.test(1, "interface", "quantize_nf4 gives codes (uint8) and absmax (float32)")
def _quantize_types(trial: Trial) -> None:
    codes, absmax = _pair(trial, "quantize_nf4", _weight(trial, OUT, BLOCK))
    for name, array, dtype in (("codes", codes, np.uint8), ("absmax", absmax, np.float32)):
        if array.dtype != dtype:
            raise Found(GENERAL["wrong-dtype"], f"{name} is {array.dtype}, expected "
                                                f"{np.dtype(dtype)}.")


@EXERCISE.test(1, "shapes", "two codes to a byte, one absmax for each 64 weights")
def _quantize_sizes(trial: Trial) -> None:
    for shape in ((OUT, BLOCK), (OUT, IN), ODD, (1, RANK)):
        n = shape[0] * shape[1]
        codes, absmax = _pair(trial, "quantize_nf4", _weight(trial, *shape))
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
    W = _weight(trial, OUT, IN)
    _, absmax = _pair(trial, "quantize_nf4", W)
    parts = _blocks(W, BLOCK)
    trial.compare("absmax", absmax.reshape(-1), _scales(W, BLOCK), {
        NOT_ABSOLUTE: np.array([part.max() for part in parts]),
        COLUMNS: _scales(W.T.copy(), BLOCK),
        PER_TENSOR: np.full(len(parts), np.abs(W).max())})


@EXERCISE.test(1, "values", "each weight gets the nearest of the 16 levels")
def _code_values(trial: Trial) -> None:
    W = _weight(trial, OUT, IN)
    packed, _ = _pair(trial, "quantize_nf4", W)
    found, right = _unpack(packed.reshape(-1)), _indices(W, NF4, BLOCK)
    if np.array_equal(found, right):
        return
    even, quotients = _indices(W, EVEN, BLOCK), W.reshape(-1) / _spread(
        _scales(W, BLOCK), BLOCK, W.size)
    seven = np.round(quotients * 7)
    whole = {PER_TENSOR: [_indices(W, NF4, W.size)], NIBBLES: [_other_way_round(right)],
             HALVES: [right.reshape(2, -1).T.reshape(-1)],
             NOT_ABSOLUTE: [_indices(W, NF4, BLOCK, largest=np.max)],
             NOT_NEAREST: [_indices(W, NF4, BLOCK, pick) for pick in ("below", "above")],
             UNIFORM: [even, _other_way_round(even), seven + 7, seven + 8,
                       np.minimum(np.round((quotients + 1) * 8), 15)]}
    for diagnosis, twins in whole.items():
        for twin in twins:
            if np.mean(found == twin) > 0.95:
                raise Found(diagnosis, "The codes equal those that this mistake gives.")
    ends = np.concatenate([np.abs(part) == np.abs(part).max() for part in _blocks(W, BLOCK)])
    wrong = found != right
    raise Found(GENERAL["values"],
                f"{wrong.sum()} of {W.size} codes are wrong, {wrong[ends].sum()} of them those of "
                f"the {ends.sum()} largest weights of a block.")


def _other_way_round(codes: np.ndarray) -> np.ndarray:
    """The two codes of each byte exchanged."""
    return codes.reshape(-1, 2)[:, ::-1].reshape(-1)


@EXERCISE.test(1, "behaviour", "a transposed view is read by its rows, too")
def _view(trial: Trial) -> None:
    W = _weight(trial, IN, OUT)
    one, two = _pair(trial, "quantize_nf4", W.copy().T), _pair(trial, "quantize_nf4", W.T.copy())
    if not all(map(np.array_equal, one, two)):
        raise Found(COLUMNS, "W.T and W.T.copy() gave different codes.")


@EXERCISE.test(1, "behaviour", "a block of zeros has the absmax 0 and the level 0")
def _zeros(trial: Trial) -> None:
    W = _weight(trial, RANK, BLOCK)  # one block to a row
    W[1] = 0
    with np.errstate(all="ignore"):
        packed, absmax = _pair(trial, "quantize_nf4", W)
    codes, scale = _unpack(packed.reshape(-1)).reshape(W.shape)[1], absmax.reshape(-1)[1]
    if scale != 0 or (codes != 7).any():
        raise Found(ZERO_BLOCK, f"Its absmax is {scale:g} and its codes are "
                                f"{sorted(set(codes.tolist()))}.")


@EXERCISE.test(1, "behaviour", "weights of a millionth are stored as well as weights of one")
def _small_blocks(trial: Trial) -> None:
    W = _weight(trial, OUT, IN)
    usual, _ = _pair(trial, "quantize_nf4", W)
    small, _ = _pair(trial, "quantize_nf4", np.ldexp(W, -20))
    if not np.array_equal(usual, small):
        raise Found(SMALL_BLOCKS, f"Weights divided by 2^20 got {np.mean(usual != small):.0%} "
                                  "other codes.")


# ---- Step 2: dequantize_nf4 -------------------------------------------------------------------

@EXERCISE.test(2, "values", "codes become levels times their block's absmax")
def _dequantize_values(trial: Trial) -> None:
    function = _function(trial, "dequantize_nf4")
    codes = trial.rng(3).integers(16, size=OUT * IN).astype(np.uint8)
    absmax = _scales(_weight(trial, OUT, IN), BLOCK)
    W = trial.call(function, _pack(codes), absmax, (OUT, IN))
    scale = _spread(absmax, BLOCK, codes.size)

    def made(levels: np.ndarray) -> np.ndarray:
        return levels.reshape(OUT, IN).astype(np.float32)

    trial.compare("the weight", W, made(NF4[codes] * scale), {
        HALVES: made(NF4[codes.reshape(-1, 2).T.reshape(-1)] * scale),
        NIBBLES: made(NF4[_other_way_round(codes)] * scale), NO_ABSMAX: made(NF4[codes]),
        UNIFORM: made(EVEN[codes] * scale), PER_TENSOR: made(NF4[codes] * absmax.max()),
        TILED: made(NF4[codes] * np.tile(absmax, 60)), COLUMNS: (
            NF4[codes] * scale).reshape(IN, OUT).T.astype(np.float32)})
    Trial(trial.student, np.float32).keeps_dtype("dequantize_nf4", W)


@EXERCISE.test(2, "behaviour", "levels times absmax survive the round trip, for any size")
def _round_trip(trial: Trial) -> None:
    for shape in ((1, 1), ODD, (OUT, BLOCK), (OUT, IN), (RANK, 129)):
        n = shape[0] * shape[1]
        codes = trial.rng(n).integers(16, size=n)
        codes[::BLOCK] = 15  # each block contains its absmax
        scales = trial.rng(5).random(n, dtype=np.float32)  # more than there are blocks
        W = (NF4[codes] * _spread(scales, BLOCK, n)).reshape(shape)
        back = trial.call(_function(trial, "dequantize_nf4"), *_pair(trial, "quantize_nf4", W),
                          shape, shape=shape)
        if not trial.agrees(back, W):
            last = n // BLOCK * BLOCK
            short = last and trial.agrees(back.reshape(-1)[:last], W.reshape(-1)[:last])
            raise Found(SHORT_DROPPED if short else GENERAL["values"],
                        f"A weight of shape {shape} came back different.")


@EXERCISE.test(2, "behaviour", "no error exceeds half the gap between the neighbouring levels")
def _half_gap(trial: Trial) -> None:
    W = trial.normal(BLOCK, BLOCK, seed=8)  # midpoints are not avoided here
    back = trial.call(_function(trial, "dequantize_nf4"), *_pair(trial, "quantize_nf4", W), W.shape)
    spread = _spread(_scales(W, BLOCK), BLOCK, W.size)
    place = np.clip(np.searchsorted(NF4, W.reshape(-1) / spread), 1, 15)
    half = (NF4[place] - NF4[place - 1]) / 2 * spread
    excess = np.abs(back - W).reshape(-1) > half + 1e-5
    if excess.any():
        raise Found(NOT_NEAREST, f"{excess.sum()} of {W.size} errors are larger.")


# ---- Step 3: double quantization --------------------------------------------------------------

def _absmax(trial: Trial, n: int) -> np.ndarray:
    """Positive numbers whose quotients keep away from the midpoints of the dynamic code."""
    values = trial.rng(1).random(n, dtype=np.float32)
    for _ in range(2):  # moving some changes the mean, and with it all others a little
        margins = _margin(values - values.mean(dtype=np.float64), DYNAMIC, SECOND)
        values[margins < 1e-4] += np.float32(1e-3)
    return values


@EXERCISE.test(3, "shapes", "quantize_absmax gives codes, scales for each 256, and one offset")
def _absmax_sizes(trial: Trial) -> None:
    for n in (MANY, SECOND, RANK):
        codes, scales, offset = _pair(trial, "quantize_absmax", _absmax(trial, n), length=3)
        _codes(trial, codes, n, "codes of the absmax")
        if scales.size != -(-n // SECOND):
            raise Found(SECOND_BLOCK, f"{n} absmax gave {scales.size} scales.")
        if np.size(offset) != 1:
            raise Found(GENERAL["wrong-shape"], f"The offset has {np.size(offset)} numbers.")
        if scales.dtype != np.float32:
            raise Found(GENERAL["wrong-dtype"], f"scales are {scales.dtype}, expected float32.")


@EXERCISE.test(3, "values", "offset, scales and codes are those of the dynamic code")
def _absmax_codes(trial: Trial) -> None:
    values = _absmax(trial, MANY)
    codes, scales, offset = _pair(trial, "quantize_absmax", values, length=3)
    mean, offset = values.mean(dtype=np.float64), np.asarray(offset).item()
    rest = values - mean
    if abs(offset - mean) > 1e-4:
        raise Found(NO_OFFSET, f"The offset is {offset:.4g}, the mean {mean:.4g}.")
    trial.compare("scales", scales.reshape(-1), _scales(rest, SECOND),
                  {NO_OFFSET: _scales(values, SECOND)})
    codes, right = codes.reshape(-1), _indices(rest, DYNAMIC, SECOND)
    if np.array_equal(codes, right):
        return
    quotients = rest / _spread(_scales(rest, SECOND), SECOND, rest.size)
    linear, half = np.round(quotients * 127), (quotients + 1) * 127.5
    twins = [(LINEAR_CODE, wrong) for wrong in (
        linear + 127, linear + 128, linear % 256, np.round(half), np.floor(half))]
    twins += [(FOUR_BIT_ABSMAX, _indices(rest, NF4, SECOND)),
              (NOT_NEAREST, _indices(rest, DYNAMIC, SECOND, "below")),
              (NOT_NEAREST, _indices(rest, DYNAMIC, SECOND, "above"))]
    for diagnosis, twin in twins:
        if np.mean(codes == twin) > 0.98:
            raise Found(diagnosis, "The codes equal those that this mistake gives.")
    raise Found(GENERAL["values"], f"{int((codes != right).sum())} of {right.size} codes differ.")


@EXERCISE.test(3, "values", "dequantize_absmax brings them back")
def _absmax_back(trial: Trial) -> None:
    function = _function(trial, "dequantize_absmax")
    codes = trial.rng(3).integers(len(DYNAMIC), size=MANY).astype(np.uint8)
    *scales, offset = trial.rng(4).random(4, dtype=np.float32)
    scales = np.array(scales)
    back = trial.call(function, codes, scales, offset)
    spread = _spread(scales, SECOND, MANY)
    rest = DYNAMIC[codes] * spread
    trial.compare("absmax", back, rest + offset, {
        OFFSET_LOST: rest, NO_ABSMAX: DYNAMIC[codes] + offset,
        TILED: DYNAMIC[codes] * np.tile(scales, 200) + offset,
        LINEAR_CODE: (codes.astype(np.float32) - 128) / 127 * spread + offset})
    Trial(trial.student, np.float32).keeps_dtype("dequantize_absmax", back)


@EXERCISE.test(3, "behaviour", "a single absmax, or equal ones, come back")
def _equal(trial: Trial) -> None:
    for n, number in ((1, 0.25), (MANY, 0.25), (MANY, 0.0)):
        values = np.full(n, number, np.float32)
        with np.errstate(all="ignore"):
            stored = _pair(trial, "quantize_absmax", values, length=3)
            back = trial.call(_function(trial, "dequantize_absmax"), *stored)
        if not np.allclose(back, values, atol=1e-6):
            raise Found(ZERO_BLOCK, f"{n} times {number:g} came back as "
                                    f"{float(np.max(back)):.4g}.")


# ---- Step 4: the layer ------------------------------------------------------------------------

def _layer(trial: Trial, double: bool = True, random: bool = True, bias: bool = True) -> tuple:
    """A student's layer, its parameters, weight, bias and the weight that it must compute with."""
    W = _weight(trial, OUT, IN)
    b = trial.normal(OUT, seed=2) if bias else None
    layer = trial.call(_function(trial, "QLoRALinear"), W, bias=b, lora_rank=RANK,
                       lora_alpha=ALPHA_VALUE, double_quant=double, rng=trial.rng(1), returns=None)
    arrays = trial.expect("parameters()", layer.parameters(), dict)
    if set(arrays) > {"A", "B"}:
        raise Found(WEIGHT_GRADIENT, f"parameters() has the keys {sorted(arrays)}.")
    arrays = trial.arrays(layer, ("A", "B"))
    if random:
        for number, array in enumerate(arrays.values()):
            array[...] = trial.normal(*array.shape, seed=10 + number)
    return layer, arrays, W, b, _stored(W, double).astype(trial.dtype)


def _arrays_of(thing: Any, seen: set | None = None) -> Iterator[np.ndarray]:
    """All arrays that an object holds, each once, tables of the two codes left out."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (ModuleType, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        if not (thing.size in (15, 16, 255, 256) and thing.ndim == 1 and thing.dtype.kind == "f"):
            yield thing
        return
    inside = thing.values() if isinstance(thing, dict) else (
        thing if isinstance(thing, (list, tuple)) else getattr(thing, "__dict__", {}).values())
    for part in list(inside):
        yield from _arrays_of(part, seen)


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
        other = _stored(W, not double).astype(trial.dtype)
        trial.compare(f"the output with double_quant = {double}", trial.call(layer.forward, x),
                      x @ stored.T + b, {
                          FULL_WEIGHT: x @ W.T + b, NO_BIAS: x @ stored.T,
                          NOT_DOUBLE if double else DOUBLE_IGNORED: x @ other.T + b})


@EXERCISE.test(4, "values", "the output with A and B filled")
def _layer_values(trial: Trial) -> None:
    layer, a, W, b, stored = _layer(trial)
    update, s = a["B"] @ a["A"], ALPHA_VALUE / RANK
    merged = _stored((stored + s * update).astype(np.float32)).astype(trial.dtype)
    once = _stored((W + s * update).astype(np.float32)).astype(trial.dtype)
    for lead in ((ROWS,), (), (2, 3)):
        x = trial.normal(*lead, IN, seed=3)
        value = trial.call(layer.forward, x, shape=(*lead, OUT))
        twins = {ALPHA: x @ (stored + ALPHA_VALUE * update).T + b,
                 ALPHA_LOST: x @ (stored + 16.0 / RANK * update).T + b,
                 UPDATE_QUANTIZED: x @ merged.T + b,
                 replace(UPDATE_QUANTIZED, seen=UPDATE_QUANTIZED.why): x @ once.T + b}
        trial.compare("the output", value, x @ (stored + s * update).T + b, twins)
    plain, a, *_, stored = _layer(trial, bias=False)
    x = trial.normal(ROWS, IN, seed=3)
    trial.compare("the output without a bias", trial.call(plain.forward, x),
                  x @ (stored + s * a["B"] @ a["A"]).T)


@EXERCISE.test(4, "behaviour", "4.127 bits per weight, measured; 4.5 without double_quant")
def _bits(trial: Trial) -> None:
    W = trial.rng(1).standard_normal((RANK * BLOCK, SECOND)).astype(np.float32)  # 768 blocks
    for double, expected in ((True, 4 + 8 / BLOCK + 32 / (BLOCK * SECOND)), (False, 4.5)):
        layer = trial.call(_function(trial, "QLoRALinear"), W.copy(), lora_rank=RANK,
                           double_quant=double, returns=None)
        trained = {id(array) for array in layer.parameters().values()}
        held = [array for array in _arrays_of(layer) if id(array) not in trained and array.size > 1]
        if any(array.size >= W.size and array.dtype.kind == "f" for array in held):
            raise Found(FULL_WEIGHT, "The layer holds a floating-point array of the weight's size.")
        if any(array.size >= W.size for array in held):
            raise Found(LAYER_UNPACKED, "The layer holds as many bytes of codes as weights.")
        blocks = W.size // BLOCK
        if double and any(array.size >= blocks and array.dtype.kind == "f" for array in held):
            raise Found(NOT_DOUBLE, f"The layer holds {blocks} floating-point scales.")
        bits = trial.call(layer.bits_per_weight, returns=(float, int, np.floating))
        found = 8 * sum(array.nbytes for array in held) / W.size
        if abs(bits - expected) > 2e-3:
            raise Found(WRONG_BITS, f"bits_per_weight() gave {bits:.4g} with double_quant = "
                                    f"{double}; the layer's arrays take {found:.4g}.")


@EXERCISE.test(4, "behaviour", "blocks of zeros stay nearly zero; no full weight is kept")
def _kept(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    trial.call(layer.forward, trial.normal(ROWS, IN, seed=3))
    for array in _arrays_of(layer):
        if array.size == OUT * IN and array.dtype.kind == "f":
            raise Found(KEEPS_DEQUANTIZED, "After forward the layer holds a floating-point array "
                                           "of the weight's size.")
    W = _weight(trial, RANK, BLOCK)
    W[1] = 0
    layer = trial.call(_function(trial, "QLoRALinear"), W, returns=None)
    largest = np.abs(trial.call(layer.forward, np.eye(BLOCK, dtype=trial.dtype))[:, 1]).max()
    if largest > 1e-6:
        raise Found(ZERO_BLOCK, f"A row of zeros gave outputs up to {largest:.2g}.")


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
        found = trial.expect("gradients()", layer.gradients(), dict)
        if set(found) > {"A", "B"}:
            raise Found(WEIGHT_GRADIENT, f"gradients() has the keys {sorted(found)}.")
        for name, grad in trial.arrays(layer, ("A", "B"), "gradients").items():
            trial.expect(f"the gradient of {name}", grad, shape=arrays[name].shape)


@EXERCISE.test(5, "gradients", "those of A, B and the input, through the dequantized weight")
def _gradients(trial: Trial) -> None:
    layer, a, W, _, stored = _layer(trial)
    x, G, s = trial.normal(ROWS, IN, seed=3), trial.normal(ROWS, OUT, seed=4), ALPHA_VALUE / RANK
    trial.call(layer.forward, x)
    back = trial.call(layer.backward, G)
    found = trial.arrays(layer, ("A", "B"), "gradients")
    A, B = a["A"], a["B"]
    for name, right in (("B", G.T @ (x @ A.T)), ("A", (G @ B).T @ x)):
        trial.compare(f"the gradient of {name}", found[name], s * right,
                      {NO_S: right, ALPHA: ALPHA_VALUE * right})
    update = G @ B @ A
    trial.compare("the gradient of the input", back, G @ stored + s * update, {
        NO_S: G @ stored + update, FROZEN_LOST: s * update, THROUGH_FULL: G @ W + s * update})


@EXERCISE.test(5, "behaviour", "training leaves the codes alone and keeps no large gradient")
def _frozen(trial: Trial) -> None:
    layer, *_, stored = _layer(trial)
    x = trial.normal(ROWS, IN, seed=3)
    first = trial.call(layer.forward, x).copy()
    trial.call(layer.backward, trial.normal(ROWS, OUT, seed=4))
    for array in _arrays_of(layer):
        if array.size == OUT * IN and array.dtype.kind == "f":
            kept = any(trial.agrees(array.ravel(), w.ravel()) for w in (stored, stored.T))
            raise Found(KEEPS_DEQUANTIZED if kept else WEIGHT_GRADIENT,
                        "After backward the layer holds a floating-point array of the weight's "
                        f"size{', the dequantized weight' * kept}.")
    if not np.array_equal(trial.call(layer.forward, x), first):
        raise Found(CODES_CHANGED, "After a step without an optimizer the layer computes something "
                                   "else.")


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
