"""Exercise 6, 4-bit LoRA: the tests. Reading them spoils the exercise.

The work is a module or a namespace with four functions and a class. The probes keep away from the
midpoints between levels: any order of operations, in float32 or float64, gives their codes.
"""

import itertools
import time
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.ex6_qlora.otherwise import (
    BLOCK, BLOCKS, LEVELS, PACKING, SCALE, SECOND, Arrays, clear, codes_of, count_blocks, margin,
    measure_codes, measure_restored, measure_scales, pack, scales_of, spread_over, stored, unpack,
    whole_codes,
)
from exercises.harness.checking import (GENERAL, Diagnosis, Exercise, Found, NotYet, Report, Terms,
                                         Trial)
from exercises.harness.layers import Layer
from exercises.harness.memory import held

ZERO_BLOCK = Diagnosis(
    "zero-block", "a block of zeros that divides by zero",
    "0 / 0 is no number, and the codes made of it are arbitrary. What was zero has to have the "
    "code of the level 0, and its block the absmax or scale 0.", "statement")
OFFSET = Diagnosis(
    "offset", "another offset than the mean of all absmax",
    "Absmax are positive and of similar size. Without their mean they lie on both sides of zero, "
    "where the dynamic code is dense.", "statement")
LARGE_KEPT = Diagnosis(
    "large-array-kept", "something of the weight's size that is kept",
    "Four bits per weight save nothing as long as another array of that size stays, be it the full "
    "weight, the dequantized one, its gradient or codes that are not packed. What a pass needs is "
    "made from the small arrays and forgotten.", "statement")
NOT_DOUBLE = Diagnosis(
    "absmax-not-quantized", "absmax stored in float32, although double_quant is True",
    "Half a bit per weight is what float32 scales cost. Quantized in turn they cost an eighth; "
    "counting eight bits for what takes thirty-two saves nothing.", "statement")
WRONG_BITS = Diagnosis(
    "bits-not-measured", "a number of bits that is not that of the stored arrays",
    "Measure it: the bytes of codes, absmax and scales, times eight, over the number of weights. "
    "A number from a formula says what should be stored.", "statement")
NOT_IDENTITY = Diagnosis(
    "start-not-frozen", "an update that is not zero at the start",
    "Training must begin at the quantized model, exactly.", "9.2")
UPDATE_QUANTIZED = Diagnosis(
    "update-quantized", "an update that is quantized together with the weight",
    "LoRA stays in full precision beside the weight. Rounded to four bits, small steps of the "
    "optimizer would vanish.", "statement")
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
    6, "4-bit LoRA (QLoRA)", PACKING, BLOCKS, SCALE, LEVELS, ZERO_BLOCK, OFFSET, LARGE_KEPT,
    NOT_DOUBLE, WRONG_BITS, NOT_IDENTITY, UPDATE_QUANTIZED, WEIGHT_GRADIENT, FROZEN_CHANGED)

WORK = ("quantize_nf4", "dequantize_nf4", "quantize_absmax", "dequantize_absmax", "QLoRALinear")
OUT, IN, RANK, ALPHA, ROWS = 12, 40, 3, 5.0, 4  # 7 blocks of 64 and one of 32; s = 5 / 3
ODD = (7, 11)  # one block of 64 and one of 13
LARGE, SMALL = (96, 128), (8, 16)  # weights of layers whose memory is measured
SHAPES = (OUT, IN), (36, 36), (2, BLOCK + 1)  # square; with one or two numbers in the last block
HUGE = (513, 517)  # more than four pieces of 65,536
OTHER, MANY = 35, 600  # another size of blocks, odd; absmax, two blocks of 256 and one of 88


# ---- Probes -----------------------------------------------------------------------------------

def _weight(trial: Trial, *shape: int, block: int = BLOCK) -> np.ndarray:
    """A probe, float32 numbers in the trial's dtype."""
    return clear(trial.rng(seed=1).standard_normal(shape), block).astype(trial.dtype)


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


def _same_at_any_size(trial: Trial, name: str, numbers: np.ndarray) -> None:
    usual, *others = (_quantized(trial, name, np.ldexp(numbers, n))[0] for n in (0, -64, 64))
    for other, done in zip(others, ("Divided", "Multiplied"), strict=True):
        if not np.array_equal(usual, other):
            raise Found(SCALE, f"{done} by 2^64, the same numbers got "
                               f"{np.mean(usual != other):.0%} other codes.")


# ---- Step 1: quantize_nf4 ---------------------------------------------------------------------

@EXERCISE.test(1, "interface", "quantize_nf4 gives codes (uint8) and absmax (float32)")
def _quantize_types(trial: Trial) -> None:
    codes, absmax = _quantized(trial, "quantize_nf4", _weight(trial, OUT, BLOCK))
    for name, array, dtype in (("codes", codes, np.uint8), ("absmax", absmax, np.float32)):
        if array.dtype != dtype:
            raise Found(GENERAL["wrong-dtype"], f"{name} is {array.dtype}, expected "
                                                f"{np.dtype(dtype)}.")
    W = _weight(trial, OUT, OTHER)
    trial.fresh_results(_function(trial, "quantize_nf4"), (W,), (W[::-1] / 2,))


@EXERCISE.test(1, "shapes", "two codes to a byte, one absmax for each 64 weights")
def _quantize_sizes(trial: Trial) -> None:
    for shape in ((OUT, BLOCK), (OUT, IN), ODD, (RANK,), (RANK, *ODD)):
        n = prod(shape)
        codes, absmax = _quantized(trial, "quantize_nf4", _weight(trial, *shape))
        count_blocks(absmax, shape, BLOCK)
        half = -(-n // 2)
        how = {n: ", one for each", n // 2: ", the last one lost"}.get(codes.size, "")
        if codes.size != half and how:
            raise Found(PACKING, f"{n} weights gave {codes.size} bytes of codes{how}.")
        flat = whole_codes(codes, half, f"codes of {n} weights")
        if np.array_equal(unpack(flat)[1:], codes_of(_weight(trial, *shape), NF4, BLOCK)):
            raise Found(PACKING, f"The codes of {n} weights begin in the middle of a byte.")


@EXERCISE.test(1, "values", "absmax is the largest absolute value of each block")
def _absmax_values(trial: Trial) -> None:
    whole = [(100 * 131, (100, 131))]  # a tensor as one block
    for block, shape in [*itertools.product((BLOCK, OTHER), SHAPES), *whole]:
        W = _weight(trial, *shape, block=block) / 16  # below 1, which a padding might be
        _, absmax = _quantized(trial, "quantize_nf4", W, block=block)
        count_blocks(absmax, W.shape, block)
        measure_scales(trial, "stored absmax", absmax, W, block)


@EXERCISE.test(1, "values", "each weight gets the nearest of the 16 levels")
def _code_values(trial: Trial) -> None:
    for block, shape in itertools.product((BLOCK, OTHER), SHAPES):
        W = _weight(trial, *shape, block=block)
        packed, _ = _quantized(trial, "quantize_nf4", W, block=block)
        flat = whole_codes(packed, W.size // 2, f"codes of {W.size} weights in blocks of {block}")
        measure_codes("codes", unpack(flat), W, NF4, block)


@EXERCISE.test(1, "behaviour", "a transposed view is read by its rows, too")
def _view(trial: Trial) -> None:
    W = _weight(trial, IN, OUT)
    one, two = (_quantized(trial, "quantize_nf4", array) for array in (W.copy().T, W.T.copy()))
    if not all(map(np.array_equal, one, two)):
        raise Found(BLOCKS, "W.T and W.T.copy() gave different codes: the rows are those of the "
                            "array, in whatever order its memory lies.")


@EXERCISE.test(1, "behaviour", "a block of zeros has the absmax 0 and the level 0")
def _zeros(trial: Trial) -> None:
    W = _weight(trial, RANK, BLOCK)  # one block to a row
    W[1] = 0
    with np.errstate(all="ignore"):
        packed, absmax = _quantized(trial, "quantize_nf4", W)
    codes, scale = unpack(packed.reshape(-1)).reshape(W.shape)[1], absmax.reshape(-1)[1]
    if scale != 0 or (codes != 7).any():
        by = ": it divides by zero" * bool(scale == 0)
        raise Found(ZERO_BLOCK if scale == 0 else SCALE, f"The absmax of a block of zeros is "
                    f"{scale:g} and its codes are {sorted(set(codes.tolist()))}{by}.")


@EXERCISE.test(1, "behaviour", "tiny and huge weights are stored as well as weights of one")
def _small_weights(trial: Trial) -> None:
    _same_at_any_size(trial, "quantize_nf4", _weight(trial, OUT, IN))


# ---- Step 2: dequantize_nf4 -------------------------------------------------------------------

@EXERCISE.test(2, "interface", "each call gives a new array")
def _restores_anew(trial: Trial) -> None:
    absmax, shape = scales_of(_weight(trial, OUT, OTHER), BLOCK), (OUT, OTHER)
    one, two = trial.rng(3).integers(256, size=(2, OUT * OTHER // 2)).astype(np.uint8)
    trial.fresh_results(_function(trial, "dequantize_nf4"), (one, absmax, shape),
                        (two, absmax / 2, shape))


@EXERCISE.test(2, "values", "codes become levels times their block's absmax")
def _dequantize_values(trial: Trial) -> None:
    codes = trial.rng(3).integers(16, size=OUT * IN).astype(np.uint8)
    for block in (BLOCK, OTHER):
        absmax = scales_of(_weight(trial, OUT, IN), block)
        W = trial.call(_function(trial, "dequantize_nf4"), pack(codes), absmax, (OUT, IN),
                       block=block, shape=(OUT, IN))
        measure_restored(trial, "restored weight", W, codes, NF4, absmax, block)
        Trial(trial.student, np.float32).keeps_dtype("dequantize_nf4", W)


@EXERCISE.test(2, "behaviour", "levels times absmax survive the round trip, for any shape")
def _round_trip(trial: Trial) -> None:
    for shape in ((1, 1), ODD, (OUT, BLOCK), (OUT, IN), (RANK, 129), (RANK,), (RANK, *ODD)):
        n = prod(shape)
        codes = trial.rng(n).integers(16, size=n)
        codes[::BLOCK] = 15  # each block contains its absmax
        scales = trial.rng(5).random(-(-n // BLOCK), dtype=np.float32)
        W = (NF4[codes] * spread_over(scales, BLOCK, n)).reshape(shape)
        back = trial.call(_function(trial, "dequantize_nf4"), *_quantized(
            trial, "quantize_nf4", W, BLOCK), shape, BLOCK, shape=shape)
        what = f"weight of shape {shape}, there and back"
        measure_restored(trial, what, back, codes, NF4, scales, BLOCK)


@EXERCISE.test(2, "behaviour", "no error exceeds half the gap between the neighbouring levels")
def _half_gap(trial: Trial) -> None:
    for shape in ((BLOCK, BLOCK), HUGE):
        W, start = trial.normal(*shape, seed=8), time.process_time()  # no midpoint is avoided here
        back = trial.call(_function(trial, "dequantize_nf4"), *_quantized(
            trial, "quantize_nf4", W), W.shape)
        spread = spread_over(scales_of(W, BLOCK), BLOCK, W.size)
        place = np.clip(np.searchsorted(NF4, W.reshape(-1) / spread), 1, 15)
        half = (NF4[place] - NF4[place - 1]) / 2 * spread
        excess = np.abs(back - W).reshape(-1) > half + 1e-5
        if excess.any():
            first = f", the first is number {excess.argmax():,}" * (shape == HUGE)
            raise Found(GENERAL["partly"] if first else LEVELS,
                        f"{excess.sum():,} of {W.size:,} errors are larger{first}.")
        if time.process_time() - start > 0.02:
            return  # number by number, perhaps: then there are no pieces that could be wrong


# ---- Step 3: double quantization --------------------------------------------------------------

def _absmax(trial: Trial, n: int, block: int = SECOND) -> np.ndarray:
    """Positive numbers whose quotients keep away from the midpoints of the dynamic code.

    Their median is not the mean, the smallest is farther from it than the largest, and those of a
    short last block are near it.
    """
    values = np.sqrt(trial.rng(1).random(n, dtype=np.float32))
    last = n // block * block
    values[last:] = np.sqrt(values[last:])
    for _ in range(99):  # moving some changes the mean, and with it all others a little
        mean = values.mean(dtype=np.float64)
        near = np.any([margin(values - offset, DYNAMIC, block) < 1e-4
                       for offset in (mean, float(np.float16(mean)))], axis=0)
        values[near] += np.float32(1e-3)
    return values


@EXERCISE.test(3, "interface", "each call gives new arrays")
def _absmax_anew(trial: Trial) -> None:
    values = _absmax(trial, SECOND + OTHER)
    trial.fresh_results(_function(trial, "quantize_absmax"), (values,), (values[::-1] ** 2,))
    one, two = trial.rng(3).integers(255, size=(2, SECOND + OTHER)).astype(np.uint8)
    scales, offset = values[:2].copy(), np.float32(0.5)
    trial.fresh_results(_function(trial, "dequantize_absmax"), (one, scales, offset),
                        (two, scales / 2, offset / 2))


@EXERCISE.test(3, "shapes", "quantize_absmax gives codes, scales for each 256, and one offset")
def _absmax_sizes(trial: Trial) -> None:
    for n in (MANY, SECOND, RANK):
        codes, scales, offset = _quantized(trial, "quantize_absmax", _absmax(trial, n))
        whole_codes(codes, n, "codes of the absmax")
        count_blocks(scales, (n,), SECOND)
        if np.size(offset) != 1:
            raise Found(GENERAL["wrong-shape"], f"The offset has {np.size(offset)} numbers.")
        if scales.dtype != np.float32:
            raise Found(GENERAL["wrong-dtype"], f"scales are {scales.dtype}, expected float32.")


@EXERCISE.test(3, "values", "offset, scales and codes are those of the dynamic code")
def _absmax_codes(trial: Trial) -> None:
    for block in (SECOND, OTHER):
        values = _absmax(trial, MANY, block)
        codes, scales, offset = _quantized(trial, "quantize_absmax", values, block=block)
        mean = float(np.asarray(values.mean(dtype=np.float64), np.asarray(offset).dtype))
        offset = np.asarray(offset).item()
        if abs(offset - mean) > 1e-4:
            known = {"the median": np.median(values), "the smallest": values.min(),
                     "the largest": values.max(), "the mean of the first block":
                     values[:block].mean(), "nothing": 0.0}
            name = next((f", that is {name}" for name, number in known.items()
                         if abs(offset - number) < 1e-4), "")
            raise Found(OFFSET, f"The offset is {offset:.4g}{name}; the mean is {mean:.4g}.")
        count_blocks(scales, (MANY,), block)
        rest = values - mean
        measure_scales(trial, "scales of the absmax", scales, rest, block,
                        {"the scales before the offset was taken off": scales_of(values, block),
                         "those after the offset was added": scales_of(values + mean, block),
                         "those of the offset": np.full(-(-MANY // block), mean)})
        measure_codes("codes", codes.reshape(-1), rest, DYNAMIC, block)


@EXERCISE.test(3, "values", "dequantize_absmax brings them back")
def _absmax_back(trial: Trial) -> None:
    codes = trial.rng(3).integers(len(DYNAMIC), size=MANY).astype(np.uint8)
    for block in (SECOND, OTHER):
        offset, *scales = trial.rng(4).random(1 + -(-MANY // block), dtype=np.float32)
        back = trial.call(_function(trial, "dequantize_absmax"), codes, np.array(scales), offset,
                          block=block, shape=(MANY,))
        measure_restored(trial, "restored absmax", back, codes, DYNAMIC, np.array(scales), block,
                          offset)
        Trial(trial.student, np.float32).keeps_dtype("dequantize_absmax", back)


@EXERCISE.test(3, "behaviour", "absmax that are equal, or the only one, have the scale 0")
def _equal(trial: Trial) -> None:
    for n, number in ((1, 0.25), (MANY, 0.25), (MANY, 0.0)):
        with np.errstate(all="ignore"):
            codes, scales, _ = _quantized(trial, "quantize_absmax", np.full(n, number, np.float32))
        if scales.any() or (codes != 127).any():
            raise Found(ZERO_BLOCK, f"{n} times {number:g} has a scale of {scales.max():g} and the "
                                    f"codes {sorted(set(codes.reshape(-1).tolist()))}.")


@EXERCISE.test(3, "behaviour", "tiny and huge absmax are stored as well as those near one")
def _small_absmax(trial: Trial) -> None:
    values = _absmax(trial, MANY)
    offset = _quantized(trial, "quantize_absmax", values)[-1]
    if np.asarray(offset).dtype != np.float16:  # which may be chosen, and holds none that small
        _same_at_any_size(trial, "quantize_absmax", values)


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
    """A student's layer, its parameters, and its output and gradients as `Terms` of x and G."""
    W, b = _weight(trial, OUT, IN), trial.normal(OUT, seed=2) if bias else None
    layer = trial.call(_function(trial, "QLoRALinear"), W, bias=b, lora_rank=RANK,
                       lora_alpha=ALPHA, double_quant=double, rng=trial.rng(1), returns=None)
    arrays = _fill(trial, layer) if random else _named(trial, layer)
    kind = _kind(trial)
    return layer, arrays, lambda x, G=None: _terms(arrays, W, b, x, G, double, kind)


def _kind(trial: Trial) -> np.dtype:
    """The float type that the student has chosen for the offset."""
    absmax = np.array([1, 2, 4], np.float32)
    return np.asarray(_quantized(trial, "quantize_absmax", absmax)[-1]).dtype


def _terms(arrays: Arrays, W: np.ndarray, b: np.ndarray | None, x: np.ndarray,
           G: np.ndarray | None = None, double: bool = True, kind: Any = np.float64
           ) -> Terms:
    """The output and, if there is G, the gradients as sums."""
    nodes = {"s": ("", ALPHA / RANK), "α": ("", ALPHA), "r": ("", RANK), "16/α": ("", 16 / ALPHA),
             "2/s": ("", 2 * RANK / ALPHA), "x": ("ni", x), "Ŵ": ("oi", stored(W, double, kind)),
             "A": ("ri", arrays["A"]), "B": ("or", arrays["B"])}
    known = {"the full weight": W, f"Ŵ with double_quant = {not double}": stored(W, not double),
             "Ŵ made column by column": stored(W.T.copy(), double).T}
    sums = {"output": ("no", [(("the frozen weight",), "x Ŵ"), (("the update",), "s x A B")])}
    if b is not None:
        known["Ŵ plus b in each column"] = nodes["Ŵ"][1] + b[:, None]
        nodes["b"] = ("no", np.broadcast_to(b, (*x.shape[:-1], OUT)))
        sums["output"][1].append((("the bias",), "b"))
    if G is not None:
        nodes["G"] = ("no", G)
        sums |= {"B": ("or", [((), "s G x A")]), "A": ("ri", [((), "s G B x")]),
                 "x": ("ni", [(("the frozen weight",), "G Ŵ"), (("the update",), "s G B A")])}
    return Terms(nodes, sums, known, x.shape[:-1])


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {"A": trial.normal(RANK, IN, seed=10) / 2, "B": trial.normal(OUT, RANK, seed=11) / 2}
    return _terms(arrays, _weight(trial, OUT, IN), trial.normal(OUT, seed=2),
                  trial.normal(2, 3, IN, seed=3), trial.normal(2, 3, OUT, seed=4))


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


@EXERCISE.test(4, "start", "a fresh layer is the quantized one, can learn, and comes from rng")
def _layer_start(trial: Trial) -> None:
    for double, x in ((True, trial.normal(ROWS, IN, seed=3)), (False, trial.normal(IN, seed=3))):
        layer, arrays, terms = _layer(trial, double, random=False)
        if not arrays["A"].any() and not arrays["B"].any():
            raise Found(GENERAL["values"], "A and B both hold zeros only: neither can learn.")
        if (arrays["B"] @ arrays["A"]).any():
            raise Found(NOT_IDENTITY, "B A is not zero in a fresh layer.")
        if (std := max(array.std() for array in arrays.values())) > 0.5:
            raise Found(GENERAL["start-size"], f"Its standard deviation is {std:.2g}.")
        trial.measure({"output": trial.call(layer.forward, x)}, terms(x),
                      when=f" of a fresh layer with double_quant = {double}")
    trial.starts_from_rng(lambda rng: _named(trial, trial.call(
        _function(trial, "QLoRALinear"), _weight(trial, OUT, IN), rng=rng, returns=None)))


@EXERCISE.test(4, "values", "the output with A and B filled")
def _layer_values(trial: Trial) -> None:
    W, b = _weight(trial, OUT, IN), trial.normal(OUT, seed=2)
    for lead in ((ROWS,), (), (2, 3)):
        layer, a, terms = _layer(trial)
        x, update = trial.normal(*lead, IN, seed=3), ALPHA / RANK * a["B"] @ a["A"]
        merged = [x @ stored((part + update).astype(np.float32)).astype(trial.dtype).T + b
                  for part in (stored(W), W)]
        trial.measure({"output": trial.call(layer.forward, x)}, terms(x),
                      {"output": [(UPDATE_QUANTIZED, twin) for twin in merged]})
    plain, _, terms = _layer(trial, bias=False)
    trial.measure({"output": trial.call(plain.forward, x)}, terms(x), when=" without a bias")


@EXERCISE.test(4, "values", "arguments in their order, and the defaults")
def _defaults(trial: Trial) -> None:
    W, x = _weight(trial, OUT, IN), trial.normal(ROWS, IN, seed=3)
    for args, rank, alpha in (((None, RANK, ALPHA), RANK, ALPHA), ((), 8, 16)):
        call = f"QLoRALinear({', '.join(map(str, ('weight', *args)))})"
        layer = trial.call(_function(trial, "QLoRALinear"), W, *args, returns=None)
        a = _fill(trial, layer)
        if a["A"].shape != (rank, IN):
            raise Found(GENERAL["signature"], f"{call} has an A of shape {a['A'].shape}, expected "
                                              f"{(rank, IN)}.")
        right = x @ (stored(W, kind=_kind(trial)) + alpha / rank * a["B"] @ a["A"]).T
        if not trial.agrees(trial.call(layer.forward, x), right):
            raise Found(GENERAL["signature"], f"The output of {call} is wrong, although that with "
                                              "all arguments by name is right.")


@EXERCISE.test(4, "behaviour", "no array of the weight's size is stored, or kept after forward")
def _memory(trial: Trial) -> None:
    _stays_small(trial)


def _stays_small(trial: Trial, *, back: bool = False) -> None:
    """Raise `Found` if more stays while a layer lives than codes, scales, A and B need.

    What any layer needs beside them is seen in a small one.
    """
    def bytes_of(shape: tuple[int, int], double: bool = True) -> list[int]:
        W, x, G = (trial.normal(*size) for size in (shape, (1, shape[1]), (1, shape[0])))
        uses = [lambda layer: trial.call(layer.forward, x), lambda layer: trial.call(
            layer.backward, G)][:1 + back]
        make = _function(trial, "QLoRALinear")
        return held(lambda: make(W.copy(), lora_rank=1, double_quant=double), *uses)

    def own(shape: tuple[int, int]) -> int:
        return prod(shape) // 2 + prod(shape) // BLOCK + 2 * sum(shape) * trial.dtype.itemsize

    bytes_of(SMALL)  # makes what is made once for all layers, such as tables
    size, found, usual = prod(LARGE), bytes_of(LARGE), bytes_of(SMALL)
    for when, count, other in zip(("Once it is made", "After forward", "After backward"), found,
                                  usual, strict=False):
        if (more := count - own(LARGE) - max(0, other - own(SMALL))) > 0.35 * size:
            raise Found(LARGE_KEPT, f"{when} the layer holds {count:,} bytes for {size:,} weights "
                                    f"of four bits, {more / size:.1f} to a weight more than codes, "
                                    "scales, A and B need.")
    if back:
        return
    saved = [plain - double for plain, double in (
        [min(bytes_of(shape, with_double)[0] for _ in range(2))  # other threads allocate, too
         for with_double in (False, True)] for shape in (LARGE, SMALL))]
    if (more := saved[0] - saved[1]) < size / BLOCK:
        raise Found(NOT_DOUBLE, f"With double_quant = True a layer of {size // BLOCK} blocks saves "
                                f"{more} bytes more than a small one.")  # three of four could be


@EXERCISE.test(4, "behaviour", "bits_per_weight() measures codes, absmax and scales, and no more")
def _bits(trial: Trial) -> None:
    for shape in (LARGE, ODD):
        W, b = _weight(trial, *shape), trial.normal(shape[0])
        blocks = -(-W.size // BLOCK)
        for double, scales in ((True, blocks + 4 * -(-blocks // SECOND)), (False, 4 * blocks)):
            layer = trial.call(_function(trial, "QLoRALinear"), W, b, double_quant=double,
                               returns=None)
            bits = trial.call(layer.bits_per_weight, returns=(float, int, np.floating))
            size = -(-W.size // 2) + scales  # in bytes
            if abs(bits - 8 * size / W.size) > 1e-3:
                raise Found(WRONG_BITS, f"bits_per_weight() gave {bits:.4g} for a weight of shape "
                                        f"{shape} with double_quant = {double}: codes and scales "
                                        f"have {size} bytes.")


@EXERCISE.test(5, "arguments", "sizes and shapes that make no sense are refused")
def _layer_refuses(trial: Trial) -> None:
    make = _function(trial, "QLoRALinear")
    W, b = _weight(trial, OUT, IN), trial.normal(OUT)
    for what, args in {"a weight of one axis": (W[0],), "a weight of three axes": (W[None],),
                       "a bias with a single number": (W, b[:1]), "lora_rank=0": (W, b, 0),
                       "lora_rank=1.5": (W, b, 1.5), "lora_alpha=0": (W, b, RANK, 0.0),
                       "lora_alpha=nan": (W, b, RANK, np.nan)}.items():
        trial.refuses(what, lambda args=args: make(*args))
    make(W, b, RANK, 2)
    trial.refuses("double_quant without its name", lambda: make(W, b, RANK, ALPHA, False),
                  (TypeError,), GENERAL["signature"])
    layer, *_ = _layer(trial)
    trial.refuses("an x of another width", lambda: layer.forward(trial.normal(ROWS, OUT)))


# ---- Step 5: backward -------------------------------------------------------------------------

@EXERCISE.test(5, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    trial.refuses_backward_first(layer, trial.normal(ROWS, OUT))


@EXERCISE.test(5, "gradients", "those of A, B and the input, through the dequantized weight")
def _gradients(trial: Trial) -> None:
    for double in (True, False):
        for lead in ((ROWS,), (), (2, 3)):
            layer, _, terms = _layer(trial, double)
            x, G = trial.normal(*lead, IN, seed=3), trial.normal(*lead, OUT, seed=4)
            trial.call(layer.forward, x)
            back = trial.call(layer.backward, G)
            trial.measure(_named(trial, layer, "gradients") | {"x": back}, terms(x, G))


@EXERCISE.test(5, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for n in (36, 1, 130):
        W, (x, G) = _weight(trial, n, n), (trial.normal(2, n, seed=seed) for seed in (3, 4))
        thing = trial.call(_function(trial, "QLoRALinear"), W, lora_rank=n,
                           lora_alpha=ALPHA / RANK * n, returns=None)
        arrays = _fill(trial, thing)
        trial.holds(f"in, out and the rank are {n}", Layer(thing, arrays).run(trial, x, G),
                    _terms(arrays, W, None, x, G, kind=_kind(trial)).right)


@EXERCISE.test(5, "behaviour", "training leaves the codes alone and keeps no large gradient")
def _frozen(trial: Trial) -> None:
    layer, x = _layer(trial)[0], trial.normal(ROWS, IN, seed=3)
    first = trial.call(layer.forward, x).copy()
    trial.call(layer.backward, trial.normal(ROWS, OUT, seed=4))
    if not np.array_equal(trial.call(layer.forward, x), first):
        raise Found(FROZEN_CHANGED, "After a step without an optimizer it computes something else.")
    _stays_small(trial, back=True)


@EXERCISE.test(5, "behaviour", "backward replaces the gradients, and an optimizer moves the layer")
def _replaces(trial: Trial) -> None:
    layer, arrays, *_ = _layer(trial)
    x, G = trial.normal(ROWS, IN, seed=3), trial.normal(ROWS, OUT, seed=4)
    trial.call(layer.forward, x)
    trial.call(layer.backward, G)
    trial.replaces_gradients(layer, ("A", "B"), lambda: (
        trial.call(layer.forward, x), trial.call(layer.backward, G)))
    trial.notices("A", arrays["A"], lambda x: trial.call(layer.forward, x), x)

    def build() -> tuple:
        layer, _, terms = _layer(trial)
        return layer, layer.forward, lambda x, G: terms(x, G).right

    layer, _, right = build()
    trial.follows(layer, ("A", "B"), ((ROWS, IN), (ROWS, IN), (RANK, IN)), right)
    trial.keeps_apart(build, ("A", "B"), (ROWS, IN))
    W, b = _weight(trial, OUT, IN), trial.normal(OUT, seed=2)
    trial.undisturbed(lambda: _layer(trial)[0],
                      lambda: _function(trial, "QLoRALinear")(-2 * W, -b, RANK + 1, 3 * ALPHA),
                      lambda layer: trial.call(layer.forward, x))


@EXERCISE.test(5, "arguments", "a gradient of another shape than the output is refused")
def _backward_refuses(trial: Trial) -> None:
    layer, *_ = _layer(trial)
    trial.refuses_gradients(lambda: trial.call(layer.forward, trial.normal(ROWS, IN)),
                            layer.backward, (ROWS, OUT), (ROWS, IN), (1, ROWS, OUT))


@EXERCISE.test(5, "behaviour", "dtypes stay as they are, and no digits are lost")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, *_ = _layer(each)
        each.keeps_digits("forward of zeros, the bias", each.call(
            layer.forward, np.zeros((1, IN), each.dtype)), each.normal(1, OUT, seed=2))
        layer, arrays, terms = _layer(each, bias=False)
        kept = arrays["A"].copy()
        arrays["A"][...] = 0
        # whatever the order of levels times absmax was: the weight that this layer has, in float32
        own = each.call(layer.forward, np.eye(IN, dtype=each.dtype)).T
        arrays["A"][...] = kept
        x, G = each.normal(ROWS, IN, seed=3), each.normal(ROWS, OUT, seed=4)
        right = {name: terms(x, G).changed(name, {"Ŵ": own.astype(np.float64)})
                 for name in ("output", "A", "B", "x")}
        each.keeps_digits("forward", each.call(layer.forward, x), right["output"])
        found = {"x": each.call(layer.backward, G), **each.arrays(layer, ("A", "B"), "gradients")}
        for name, array in found.items():
            each.keeps_digits(f"the gradient of {name}", array, right[name])


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
