"""The format of exercise 6 in its simplest form, and what wrong codes and scales are instead.

Wrong codes are compared with those of the format with one thing changed; other wrong arrays are
measured by their terms. Reading this spoils the exercise.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.harness.checking import GENERAL, Diagnosis, Found, Terms, Trial

PACKING = Diagnosis(
    "packing", "codes that lie in their bytes in another way",
    "A byte holds two neighbours, the first in the high four bits, and the last byte is filled up "
    "behind the last code. Your own functions may agree with each other, but no file of "
    "bitsandbytes can be read, and with one code to a byte nothing is saved.", "statement")
BLOCKS = Diagnosis(
    "blocks", "other blocks than those that are asked for",
    "The numbers are flattened row by row and cut into blocks of the size that is passed in; what "
    "remains at the end is a block too. An outlier then spoils the scale of one block, and of no "
    "more.", "statement")
SCALE = Diagnosis(
    "scale", "numbers that are not scaled by the largest absolute value of their block",
    "The levels lie between -1 and 1. What is divided by something larger uses a few of them in "
    "the middle, what is divided by something smaller falls off their ends.", "statement")
LEVELS = Diagnosis(
    "levels", "another level than the nearest of the table",
    "A table is dense where most numbers are, and the nearest of its levels keeps each error below "
    "half of a gap. With other levels, or always the next one below, errors grow and add up.",
    "statement")
BLOCK, SECOND = 64, 256  # of the two quantizations
Arrays = dict[str, np.ndarray]


# ---- The format, in the simplest form ---------------------------------------------------------

def blocks_of(values: np.ndarray, block: int) -> list[np.ndarray]:
    flat = np.asarray(values).reshape(-1)
    return [flat[i:i + block] for i in range(0, flat.size, block)]


def largest_of(part: np.ndarray) -> float:
    return np.abs(part).max()


def codes_of(values: np.ndarray, levels: np.ndarray, block: int, pick: str = "nearest",
             largest: Callable = largest_of, change: Callable = lambda q: q) -> np.ndarray:
    """One code per number; `change` is made to the quotients."""
    found = []
    for part in blocks_of(values.astype(np.float64), block):
        gap = change(part / largest(part))[:, None] - levels.astype(np.float64)  # (n, levels)
        found.append({"nearest": np.abs(gap).argmin(axis=1), "below": (gap >= 0).sum(axis=1) - 1,
                      "above": (gap > 0).sum(axis=1)}[pick])
    return np.concatenate(found)


def scales_of(values: np.ndarray, block: int, largest: Callable = largest_of) -> np.ndarray:
    return np.array([largest(part) for part in blocks_of(values, block)], np.float32)


def spread_over(scales: np.ndarray, block: int, n: int) -> np.ndarray:
    return np.repeat(scales, block)[:n]


def pack(codes: np.ndarray) -> np.ndarray:
    """An even number of codes."""
    return codes[::2] * np.uint8(16) + codes[1::2]


def unpack(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed // 16, packed % 16], axis=1).reshape(-1)


def stored(weight: np.ndarray, double: bool = True, kind: Any = np.float64) -> np.ndarray:
    """The dequantized weight as the layer has to have it, float32, with an offset of this kind."""
    absmax = scales_of(weight, BLOCK)
    if double:
        offset = float(np.asarray(absmax.mean(dtype=np.float64), kind))
        rest = absmax - offset
        codes = codes_of(rest, DYNAMIC, SECOND)
        absmax = DYNAMIC[codes] * spread_over(scales_of(rest, SECOND), SECOND, rest.size) + offset
    codes = codes_of(weight, NF4, BLOCK)
    flat = NF4[codes] * spread_over(absmax.astype(np.float32), BLOCK, codes.size)
    return flat.reshape(weight.shape)


def margin(values: np.ndarray, levels: np.ndarray, block: int) -> np.ndarray:
    """How far each quotient is from the nearest midpoint between levels."""
    quotients = values.reshape(-1) / spread_over(scales_of(values, block), block, values.size)
    midpoints = (levels[1:] + levels[:-1]) / 2
    above = midpoints.searchsorted(quotients).clip(1, midpoints.size - 1)
    return np.minimum(np.abs(midpoints[above] - quotients),
                      np.abs(midpoints[above - 1] - quotients))


def clear(values: np.ndarray, block: int) -> np.ndarray:
    """The values, with those near a midpoint moved to their level: any arithmetic agrees."""
    values = values.astype(np.float32)
    flat = values.reshape(-1)
    spread = spread_over(scales_of(flat, block), block, flat.size)
    near = margin(flat, NF4, block) < 1e-3
    flat[near] = (NF4[codes_of(flat, NF4, block)] * spread)[near]
    return values


def whole_codes(codes: np.ndarray, size: int, what: str) -> np.ndarray:
    """The codes as one row of bytes; raise `Found` unless there are so many, of uint8."""
    if codes.dtype != np.uint8:
        raise Found(GENERAL["wrong-dtype"], f"{what} are {codes.dtype}, expected uint8.")
    if codes.size != size:
        raise Found(GENERAL["wrong-shape"], f"{what}: {codes.size} bytes, expected {size}.")
    return codes.reshape(-1)


def count_blocks(scales: np.ndarray, shape: tuple, block: int) -> None:
    """Raise `Found` unless there is one scale for each block."""
    n = prod(shape)
    blocks = -(-n // block)
    if scales.size != blocks:
        known = {1: ", one for all", shape[0]: ", one for each row", n // block: ", one for each "
                 "full block", n: ", one for each number"}
        raise Found(BLOCKS, f"{n} numbers of shape {shape} in blocks of {block} gave {scales.size} "
                            f"scales{known.get(scales.size, '')}, expected {blocks}.")


# ---- The format, with one thing changed -------------------------------------------------------

def _otherwise(values: np.ndarray, levels: np.ndarray, block: int
               ) -> Iterator[tuple[Diagnosis, str, dict[str, Any]]]:
    """Each single change: its diagnosis, what it is, and what it replaces among the arguments."""
    yield BLOCKS, "one block for the whole array", {"block": values.size}
    if values.ndim > 1:
        yield BLOCKS, "a block for each row", {"block": values.shape[-1]}
        yield BLOCKS, "the order column by column", {"values": values.T.copy()}
    for size in sorted({block // 2, 2 * block, 32, BLOCK, 128, SECOND} - {block}):
        yield BLOCKS, f"blocks of {size}", {"block": size}
    for what, largest in {
            "the largest value": np.max, "the largest value of either sign": lambda b: b[
                np.abs(b).argmax()], "half of the range": lambda b: np.ptp(b) / 2,
            "the mean absolute value": lambda b: np.abs(b).mean(), "the standard deviation": np.std,
            "1": lambda b: 1.0, "1 / absmax": lambda b: 1 / largest_of(b)}.items():
        yield SCALE, what, {"largest": largest}
    for pick in ("below", "above"):
        yield LEVELS, f"the next level {pick}", {"pick": pick}
    for name, table in (("NF4", NF4), ("the dynamic code", DYNAMIC)):
        if table is not levels:
            yield LEVELS, f"the levels of {name}", {"levels": table}
    n, half = levels.size, levels.size // 2 - 1
    for what, table in {
            "from -1 to 1": np.linspace(-1, 1, n), f"{n // 2} to the unit": np.arange(n) / (
                n // 2) - 1, f"{half} to the unit, 0 at {half}": np.arange(-half, half + 2) / half,
            f"{half} to the unit, 0 at {half + 1}": np.arange(-half - 1, half + 1) / half}.items():
        yield LEVELS, f"even levels, {what}", {"levels": table}
        yield LEVELS, f"even levels, {what}, the next below", {"levels": table, "pick": "below"}


#: Codes that lie elsewhere: what it is, and the codes that are found then.
LAYOUTS = {
    "the two codes of each byte exchanged": lambda c, n: c.reshape(-1, 2)[:, ::-1].reshape(-1),
    "the first half of the codes beside the second": lambda c, n: c.reshape(2, -1).T.reshape(-1),
    "the second of each pair behind all first": lambda c, n: c.reshape(-1, 2).T.reshape(-1),
    "the largest level first": lambda c, n: n - 1 - c,
    "signed numbers": lambda c, n: (c - n // 2) % n,
    "the first of each pair twice": lambda c, n: c[::2].repeat(2),
    "the second of each pair twice": lambda c, n: c[1::2].repeat(2)}
#: Those in another order, whether they share bytes or not.
MOVED = {
    "the last first": lambda c, n: c[::-1],
    "the last byte first": lambda c, n: c.reshape(-1, 2)[::-1].reshape(-1),
    "all moved by one": lambda c, n: np.roll(c, 1),
    "all moved by two": lambda c, n: np.roll(c, 2)}
#: Numbers by which the quotients, or the limits between two levels, may be multiplied.
FACTORS = np.concatenate([np.geomspace(0.05, 20, 241), -np.geomspace(0.05, 20, 241)])


def _elsewhere(values: np.ndarray, levels: np.ndarray, block: int
               ) -> Iterator[tuple[Diagnosis, str, np.ndarray]]:
    """Codes of the format with one thing changed, in their place or in others."""
    usual = {"values": values, "levels": levels, "block": block}
    for diagnosis, words, change in [(PACKING, "", {}), *_otherwise(values, levels, block)]:
        codes = codes_of(**usual | change)
        for layout, lay in {"": lambda c, n: c, **LAYOUTS, **MOVED}.items():
            yield (GENERAL["turned"] if layout in MOVED and not words else diagnosis,
                   ", and ".join(filter(None, (words, layout))), lay(codes, levels.size))


def _limited(values: np.ndarray, levels: np.ndarray, block: int
             ) -> Iterator[tuple[Diagnosis, str, np.ndarray]]:
    """Codes that count the limits below a number, where numbers or limits are others.

    The diagnosis, what was multiplied by how much, and the codes.
    """
    numbers = values.astype(np.float64).reshape(-1)
    absmax = spread_over(scales_of(numbers, block), block, numbers.size).astype(np.float64)
    low, high = levels[:-1].astype(np.float64), levels[1:].astype(np.float64)
    middle = (low + high) / 2
    changed = [(SCALE, what, of, middle) for what, of in {
        "quotients": numbers / absmax, "numbers that were not divided": numbers,
        "numbers times absmax": numbers * absmax, "1 / absmax": 1 / absmax}.items()]
    changed += [(LEVELS, f"limits at {what}", numbers / absmax, limits) for what, limits in {
        "the lower of two levels": low, "the upper of two levels": high,
        "minus the midpoints": -middle, "the gap below": low - high}.items()]
    for diagnosis, what, of, limits in changed:
        for c in FACTORS:  # once the numbers, once the limits: they differ where c is negative
            scaled = (c * of, limits) if diagnosis is SCALE else (of, c * limits)
            yield diagnosis, f"{what}, times about {c:.2g}", np.searchsorted(*scaled[::-1])
    for c in np.linspace(-0.5, 0.5, 101):
        yield LEVELS, f"quotients plus about {c:.2g}", np.searchsorted(
            middle, numbers / absmax + c)


def measure_codes(what: str, found: np.ndarray, values: np.ndarray, levels: np.ndarray,
                   block: int) -> None:
    """Raise `Found` unless the codes are right, and say what they are instead.

    Asked are the blocks in which there is something wrong.
    """
    usual = {"values": values, "levels": levels, "block": block}
    right = codes_of(**usual)
    wrong = found != right
    if not wrong.any():
        return
    seen = f"{wrong.sum()} of {found.size} {what} are wrong. "
    if np.ptp(found) == 0:
        raise Found(LEVELS, f"{seen}All are {found[0]}.")
    bad = np.array([part.any() for part in blocks_of(wrong, block)])
    asked = np.repeat(bad, block)[:wrong.size]
    where = "" if bad.all() else (f" All wrong ones are in {bad.sum()} of {bad.size} blocks, the "
                                  f"first in block {bad.argmax()}.")
    told = []
    for candidates, enough in ((_elsewhere(**usual), 0.95), (_limited(**usual), 0.9)):
        for diagnosis, words, twin in candidates:
            same = (found == twin)[asked]
            told.append((same.mean(), same[wrong[asked]].mean(), diagnosis, words))
        share, explained, diagnosis, words = max(told, key=lambda one: (one[0], -len(one[3])))
        if share > enough and explained > 0.9:
            most = f", {share:.0%} of them" if share < 0.995 else ""
            raise Found(diagnosis, f"{seen}They are those of {words}{most}.{where}")
    if 2 * bad.sum() < bad.size:
        raise Found(GENERAL["partly"], seen + where.strip())
    far = found.astype(int) - right
    pattern = {(1,): "Each by one too high. ", (-1,): "Each by one too low. "}.get(
        tuple(np.unique(far[wrong])), "")
    share, _, _, words = max((one for one in told if one[3]), key=lambda one: one[0])
    ends = np.concatenate([np.abs(part) == largest_of(part) for part in blocks_of(values, block)])
    raise Found(GENERAL["values"], f"{seen}{pattern}Of the {ends.sum()} largest numbers of a block "
                                   f"{(wrong & ends).sum()} are. Nearest is {words}, with "
                                   f"{share:.0%} of the codes.{where}")


def measure_scales(trial: Trial, what: str, found: np.ndarray, values: np.ndarray, block: int,
                    known: Arrays | None = None) -> None:
    """Raise `Found` unless each block has its largest absolute value."""
    right = scales_of(values, block)
    others, reasons = dict(known or {}), {}
    for diagnosis, words, change in _otherwise(values, NF4, block):
        usual = {"values": values, "block": block, "largest": largest_of} | change
        scales = scales_of(usual["values"], usual["block"], usual["largest"]).reshape(-1)
        if diagnosis is not LEVELS and scales.size in (1, right.size):
            others[words] = np.broadcast_to(scales, right.shape)
            reasons[f"{words} in the place of absmax"] = diagnosis
    reasons |= {f"{words} in the place of absmax": SCALE for words in known or {}}
    others["absmax in half precision"] = right.astype(np.float16)
    terms = Terms({"absmax": ("k", right)}, {what: ("k", [((), "absmax")])}, others)
    trial.measure({what: found.reshape(-1)}, terms, None, reasons)
    _keeps_seven(f"the {what}", found.reshape(-1), right)


def _keeps_seven(what: str, found: np.ndarray, right: np.ndarray) -> None:
    """Raise `Found` if float32's digits were lost on the way; zero may be anything that small."""
    if not np.allclose(found, right, rtol=2e-6, atol=1e-6 * np.abs(right).max(initial=0.0)):
        error = np.abs(found - right).max() / np.abs(right).max()
        raise Found(GENERAL["digits"], f"{what} is off by {error:.1g}, with three or four digits "
                                       "where float32 holds seven.")


def measure_restored(trial: Trial, what: str, found: np.ndarray, codes: np.ndarray,
                      levels: np.ndarray, scales: np.ndarray, block: int,
                      offset: float | None = None) -> None:
    """Raise `Found` unless each level was multiplied by its block's scale, and the offset added."""
    codes, n, even = codes.astype(int), codes.size, np.linspace(-1, 1, levels.size)
    axes = "ijk"[:found.ndim]
    nodes = {"levels": (axes, levels[codes]), "scales": (axes, spread_over(scales, block, n))}
    known = {"even levels": even[codes], "signed numbers": (codes - 128) / 127,
             "scales of other blocks": np.resize(scales, n),
             "the largest scale": np.full(n, scales.max())}
    for size in (BLOCK, SECOND):
        if size != block and scales.size * size >= n:
            known[f"scales of blocks of {size}"] = spread_over(scales, size, n)
    if n % 2 == 0:
        known |= {f"levels ({name})": levels[lay(codes, levels.size)]
                  for name, lay in LAYOUTS.items()}
    products = [(("the levels",), "levels scales")]
    if offset is not None:
        nodes["offset"] = (axes, np.full(n, offset))
        known["offset times scales"] = offset * nodes["scales"][1]
        products.append((("the offset",), "offset"))
    nodes = {name: (axes, array.reshape(found.shape)) for name, (axes, array) in nodes.items()}
    known = {name: array.reshape(found.shape) for name, array in known.items()}
    terms = Terms(nodes, {what: (axes, products)}, known)
    if found.ndim > 1:  # the order of the weight, if it is another one
        turned = terms.right[what].reshape(found.shape[::-1]).T
        if trial.agrees(found, turned) and not trial.agrees(found, terms.right[what]):
            raise Found(BLOCKS, f"The {what} is filled column by column.")
    reasons = {"levels": LEVELS, "scales": BLOCKS, "scales left out": SCALE, **{
        f"levels ({name}) in the place of levels": PACKING for name in LAYOUTS}}
    trial.measure({what: found}, terms, None, reasons)
    _keeps_seven(f"the {what}", found, terms.right[what])
