"""Exercise 1, LoRA on the feed-forward block: the tests. Reading them spoils the exercise."""

import itertools
from typing import Any

import numpy as np

from exercises.harness.checking import (GENERAL, Exercise, Found, Report, Terms, Trial, Watch,
                                         activations)
from exercises.harness.layers import Layer, contract, merging

EXERCISE = Exercise(1, "LoRA on the feed-forward block")
BOTH_ZERO, NOT_IDENTITY, TRANSPOSED, MERGE_CHANGES = EXERCISE.shared(
    "both-zero", "start-not-frozen", "transposed", "merge-changes")

TWO_OF_THREE = EXERCISE.mistake(
    "two-of-three", "an update on only two of the three projections",
    "Such a block trains, so the loss won't tell you. Count the parameters, and fill one update "
    "after the other to see whether the output moves.", "statement")
BAD_SHAPES = EXERCISE.mistake(
    "shapes-not-checked", "weights that do not fit together are accepted",
    "gate and up must have the same shape, and down the reverse of it. If that is not checked at "
    "the start, the error appears much later and far away.", "9.6")
ALPHA = EXERCISE.mistake(
    "alpha-not-over-r", "alpha where alpha / r belongs",
    "Without the division the update grows with the rank, and a rate that suits one rank fails at "
    "another. At rank 1 the mistake can't be seen.", "mistakes")
SWAPPED = EXERCISE.mistake(
    "gate-and-up-swapped", "gate and up swapped",
    "The two have the same shape, so nothing complains, but only the gate goes through silu.",
    "statement")
SUM = EXERCISE.mistake(
    "sum-for-product", "a sum where the product belongs",
    "The gate multiplies, entry by entry. That is what makes it a gate.", "statement")
NAMES_SWAPPED = EXERCISE.mistake(
    "names-swapped", "the updates of gate and up under each other's names",
    "The names say which projection an update belongs to; a file loaded elsewhere would go to the "
    "wrong one.", "statement")
OVERFLOW = EXERCISE.mistake(
    "overflow", "an exponential that overflows",
    "For large inputs exp(z) is infinite, and infinity divided by infinity is NaN. The logistic "
    "function itself lies between 0 and 1 everywhere.", "statement")
IN_PLACE = EXERCISE.mistake(
    "activation-in-place", "a silu that overwrites z",
    "backward needs z as it was. An operation such as *= on the array that forward keeps leaves it "
    "silu(z) instead.", "9.6")
MERGED_ORDER = EXERCISE.mistake(
    "merged-order", "merged weights in another order",
    "merge returns gate, up, down, in this order. The first two have the same shape, so nothing "
    "would complain.", "statement")
FROZEN_CHANGED = EXERCISE.mistake(
    "frozen-changed", "a frozen weight that has changed",
    "The pretrained weights are shared with everybody who uses the model. After merging into them "
    "they cannot be had back exactly.", "9.2")
ALPHA_LOST = EXERCISE.mistake(
    "alpha-not-passed", "an alpha that does not arrive",
    "The output is that of the default alpha. An argument that is accepted and dropped is a silent "
    "wrong answer.", "statement")
SILU_TWICE = EXERCISE.mistake(
    "silu-on-both", "silu on both branches",
    "Only the gate passes the nonlinearity; up stays linear, so that the block multiplies a gate "
    "and a value.", "statement")


D, F, RANK, ALPHA_VALUE = 6, 10, 3, 7.5
S = ALPHA_VALUE / RANK  # 2.5: no whole number, not the default's 2, no number of rows
PROJECTIONS = {"gate": (F, D), "up": (F, D), "down": (D, F)}  # (out, in)
KEYS = [f"{name}.{matrix}" for name in PROJECTIONS for matrix in "AB"]
Arrays = dict[str, np.ndarray]


def _weights(trial: Trial, number: int = 0) -> Arrays:
    return {name: (0.5 * trial.normal(*shape, seed=20 + 10 * number + i)).astype(trial.dtype)
            for i, (name, shape) in enumerate(PROJECTIONS.items())}


def _parameters(trial: Trial, block: Any) -> Arrays:
    try:
        return trial.arrays(block, KEYS)
    except Found:
        found = set(block.parameters())
        missing = [name for name in PROJECTIONS if not {f"{name}.A", f"{name}.B"} & found]
        if found and missing and not found - set(KEYS):
            raise Found(TWO_OF_THREE, f"parameters() has nothing of {' and '.join(missing)}."
                        ) from None
        raise


def _block(trial: Trial, number: int = 0, fill: bool = True) -> Layer:
    """A student's block, with random parameters if `fill`; of another number with other weights."""
    weights = _weights(trial, number)
    block = trial.make(**weights, rank=RANK, alpha=ALPHA_VALUE, rng=trial.rng(1))
    arrays, right = _parameters(trial, block), _weights(trial, number)  # copies, which stay
    if fill:
        _fill(trial, arrays)
    return Layer(block, arrays, lambda x, G=None: _terms(right, arrays, x, G), weights,
                 plain=lambda: _merged_terms(right, arrays))


def _fill(trial: Trial, arrays: Arrays) -> None:
    for number, name in enumerate(KEYS):
        arrays[name][...] = 0.3 * trial.normal(*arrays[name].shape, seed=30 + number)


def _whole(weights: Arrays, arrays: Arrays, s: float = S) -> Arrays:
    """Each projection as one dense weight W + s B A."""
    return {name: W + s * arrays[f"{name}.B"] @ arrays[f"{name}.A"] for name, W in weights.items()}


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _silu(z: np.ndarray) -> np.ndarray:
    return z * _sigmoid(z)


def _slope(z: np.ndarray) -> np.ndarray:
    return _sigmoid(z) + _silu(z) * (1 - _sigmoid(z))


def _output(w: Arrays, x: np.ndarray) -> np.ndarray:
    return (_silu(x @ w["gate"].T) * (x @ w["up"].T)) @ w["down"].T


def _flow(at: Watch, weights: Arrays, arrays: Arrays, x: np.ndarray, G: np.ndarray | None
          ) -> Arrays:
    """The output and, if there is G, the gradients; every inner value passes through `at`."""
    s, = at("s", np.array([S]), {"alpha": np.array([ALPHA_VALUE]), "s²": np.array([S * S]),
                                 "s/r": np.array([S / RANK]), "s r": np.array([S * RANK]),
                                 "16/r": np.array([16 / RANK])})
    w, found = _whole(weights, arrays, s), {}

    def back(name: str, g: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        A, B = arrays[f"{name}.A"], arrays[f"{name}.B"]
        rows, g_rows = (array.reshape(-1, array.shape[-1]) for array in (inputs, g))
        found[f"{name}.A"] = s * (g_rows @ B).T @ rows
        found[f"{name}.B"] = s * g_rows.T @ (rows @ A.T)
        return g @ w[name]

    x = at("x", x)
    z, u = at("z", x @ w["gate"].T), x @ w["up"].T
    u = at("u", u, lambda: activations(u, "silu(z)", "u"))
    sigmoid = at("sigmoid(z)", _sigmoid(at("z inside sigmoid", z)))
    silu = at("silu(z)", z * sigmoid, lambda: activations(z, "silu(z)"))
    product = at("silu(z) u", silu * u, {"silu(z) + u": silu + u, "z silu(u)": z * _silu(u),
                                         "silu(z) silu(u)": silu * _silu(u),
                                         "silu(z u)": _silu(z * u)})
    found["output"] = product @ w["down"].T
    if G is None:
        return found
    rest = at("1 - sigmoid(z)", 1 - sigmoid)
    slope = at("silu'(z)", sigmoid + at("silu(z) (1 - sigmoid(z))", silu * rest), {
        "that with silu(z) for its sigmoid(z)": silu + silu * (1 - silu),
        "that with z for its silu(z)": sigmoid + z * rest,
        "that with silu(z) for its z": sigmoid + sigmoid * silu * rest})
    a = at("the gradient of silu(z) u", back("down", at("G", G), product))
    frozen = {name: x @ weights[name].T for name in ("gate", "up")}
    for_silu = at("the gradient of silu(z)", a * at("u in backward", u, {
        "u without up's update": frozen["up"]}))
    for_z = at("the gradient of z", for_silu * at("slope", slope, {
        "silu' without gate's update": _slope(frozen["gate"])}))
    for_u = at("the gradient of u", a * at("silu(z) in backward", silu, {
        "silu(z) without gate's update": _silu(frozen["gate"])}))
    return found | {"x": back("gate", for_z, x) + back("up", for_u, x)}


def _terms(weights: Arrays, arrays: Arrays, x: np.ndarray, G: np.ndarray | None = None) -> Terms:
    """The output and, if there is G, all gradients as sums.

    Each projection is two ways, W and s B A.
    """
    weights, arrays = ({key: array.astype(np.float64) for key, array in some.items()}
                       for some in (weights, arrays))  # copies: they may be written into later
    w = _whole(weights, arrays)
    z, u = x @ w["gate"].T, x @ w["up"].T
    nodes = {"s": ("", S), "alpha": ("", ALPHA_VALUE), "r": ("", RANK), "x": ("ni", x),
             "u": ("nf", u), "silu(z)": ("nf", _silu(z))}
    letters = {"gate": "fir", "up": "fiq", "down": "ofp"}  # of out, in, rank
    ways = {}
    for name, (o, i, r) in letters.items():
        nodes |= {f"W_{name}": (o + i, weights[name]), f"A_{name}": (r + i, arrays[f"{name}.A"]),
                  f"B_{name}": (o + r, arrays[f"{name}.B"])}
        ways[name] = {(f"the frozen weight of {name}",): f"W_{name}",
                      (f"the update of {name}",): f"s B_{name} A_{name}"}

    def sums(product: str, *which: dict) -> list:
        """Each {} of the product filled with each of its ways."""
        return [(sum(words, ()), product.format(*(way[key] for way, key in zip(
            which, words, strict=True)))) for words in itertools.product(*which)]

    right = {"output": ("no", sums("silu(z) x {} {}", ways["up"], ways["down"]))}
    known = {"z": z, "sigmoid(z)": _sigmoid(z), "relu(z)": np.maximum(z, 0), "silu(u)": _silu(u),
             "silu(z) without gate's update": _silu(x @ weights["gate"].T),
             "silu(silu(z))": _silu(_silu(z))}
    if G is not None:
        frozen, update = (f"the {what} of gate and up" for what in ("frozen weights", "updates"))
        to_x = {name: {(f"the path through {name}", frozen): f"W_{name}",
                       (f"the path through {name}", update): f"s B_{name} A_{name}"}
                for name in ("gate", "up")}
        down, gate, up = ways["down"], "G {} u silu'(z) ", "G {} silu(z) "
        nodes |= {"G": ("no", G), "silu'(z)": ("nf", _slope(z))}
        right |= {"down.B": ("op", [((), "s G silu(z) u A_down")]),  # the order of backward
                  "down.A": ("pf", [((), "s G B_down silu(z) u")]),
                  "up.B": ("fq", sums(up + "s x A_up", down)),
                  "up.A": ("qi", sums(up + "s B_up x", down)),
                  "gate.B": ("fr", sums(gate + "s x A_gate", down)),
                  "gate.A": ("ri", sums(gate + "s B_gate x", down)),
                  "x": ("ni", sums(gate + "{}", down, to_x["gate"])
                        + sums(up + "{}", down, to_x["up"]))}
        s = _sigmoid(z)
        known |= {"z sigmoid'(z)": z * s * (1 - s), "sigmoid'(z)": s * (1 - s),
                  "sigmoid(z) - z sigmoid'(z)": s - z * s * (1 - s), "u silu'(z)": u * _slope(z),
                  "sigmoid(z) + z (1 - sigmoid(z))": s + z * (1 - s)}
    return Terms(nodes, right, known, x.shape[:-1],
                 flow=lambda at: _flow(at, weights, arrays, x, G))


# ---- Step 1: the block and its start ----------------------------------------------------------

@EXERCISE.test(1, "interface", "the block can be made and trains six arrays")
def _names(trial: Trial) -> None:
    trial.counts(_block(trial).thing, 3 * RANK * (D + F), {2 * RANK * (D + F): TWO_OF_THREE})
    for rank, which, kind in (((8,), "with rank=8", "wrong-shape"),
                              ((), "without a rank", "signature")):
        A = _parameters(trial, trial.make(*_weights(trial).values(), *rank))["gate.A"]
        if 8 not in A.shape:  # which way round is another test's business
            raise Found(GENERAL[kind], f"Made {which}, gate.A has shape {A.shape}, expected rank "
                                       f"8. Its other width is {D}.")


@EXERCISE.test(4, "arguments", "weights that do not fit, and a rank of 0, are refused")
def _refusals(trial: Trial) -> None:
    w = _weights(trial)
    trial.make(*w.values(), alpha=2)
    for what, args in {
            "an up of another shape": (w["gate"], w["up"][:, 1:].copy(), w["down"]),
            "an up with fewer rows": (w["gate"], w["up"][1:].copy(), w["down"]),
            "a transposed down": (w["gate"], w["up"], w["down"].T.copy()),
            "a down with fewer columns": (w["gate"], w["up"], w["down"][:, 1:].copy()),
            "a down with fewer rows": (w["gate"], w["up"], w["down"][1:].copy())}.items():
        trial.refuses(what, lambda args=args: trial.make(*args), diagnosis=BAD_SHAPES)
    trial.refuses("rank=0", lambda: trial.make(*w.values(), rank=0))


@EXERCISE.test(1, "shapes", "each A is (rank, in), each B is (out, rank), in the weights' dtype")
def _shapes(trial: Trial) -> None:
    trial.shaped(_block(trial).arrays, {
        f"{name}.{matrix}": shape for name, (o, i) in PROJECTIONS.items()
        for matrix, shape in (("A", (RANK, i)), ("B", (o, RANK)))}, TRANSPOSED)


@EXERCISE.test(1, "start", "the updates are zero at the start, can learn, and come from rng")
def _start(trial: Trial) -> None:
    weights = _weights(trial)
    first = _parameters(trial, trial.make(**weights, rank=RANK, rng=trial.rng(1)))
    for name in PROJECTIONS:
        A, B = first[f"{name}.A"], first[f"{name}.B"]
        if not A.any() and not B.any():
            raise Found(BOTH_ZERO, f"Both arrays of {name} hold zeros only.")
        if (B @ A).any():
            raise Found(NOT_IDENTITY, f"B A of {name} is not zero in a fresh block.")
        for key in "AB":
            trial.small(f"{name}.{key}", first[f"{name}.{key}"])
    trial.starts_from_rng(
        lambda rng: _parameters(trial, trial.make(**weights, rank=RANK, rng=rng)))


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "start", "a fresh block equals the frozen one")
def _frozen_start(trial: Trial) -> None:
    _compare_output(trial, _block(trial, fill=False), trial.normal(4, D, seed=2))


def _compare_output(trial: Trial, block: Layer, x: np.ndarray) -> None:
    weights, arrays = block.before, block.arrays
    other, w = {"gate": "up", "up": "gate", "down": "down"}, _whole(weights, arrays)
    crossed = {f"{name}.{matrix}": arrays[f"{other[name]}.{matrix}"]
               for name in other for matrix in "AB"}
    trial.measure({"output": trial.call(block.forward, x)}, block.terms(x),
                  {"output": [(NAMES_SWAPPED, _output(_whole(weights, crossed), x)),
                              (SWAPPED, _output({name: w[other[name]] for name in w}, x))]}, {
        "the update of up": TWO_OF_THREE, "the update of down": TWO_OF_THREE,
        "silu(z) without gate's update in the place of silu(z)": TWO_OF_THREE,
        "silu(z) + u in the place of silu(z) u": SUM,
        "silu(z) silu(u) in the place of silu(z) u": SILU_TWICE,
        "alpha in the place of s": ALPHA, "16/r in the place of s": ALPHA_LOST})


@EXERCISE.test(2, "values", "each of the three updates acts, with s = alpha / r")
def _values(trial: Trial) -> None:
    block, weights = _block(trial), _weights(trial)
    for x, _ in trial.inputs(4, D):
        _compare_output(trial, block, x)
    for args in ((8, 16.0), ()):
        plain = trial.make(*weights.values(), *args)
        arrays = _parameters(trial, plain)
        _fill(trial, arrays)
        found = {"output": trial.call(plain.forward, x)}
        right = {"output": _output(_whole(weights, arrays, 2.0), x)}
        if args:  # or it is not the default that is wrong
            trial.holds("the rank is 8 and alpha 16", found, right)
    if not trial.agrees(found["output"], right["output"]):
        raise Found(GENERAL["signature"], "Made without rank and alpha, the block has another "
                                          "output than with s = 16 / 8.")


@EXERCISE.test(2, "behaviour", "large inputs stay finite")
def _large(trial: Trial) -> None:
    big = trial.dtype.type(3e3) * trial.normal(4, D, seed=2)
    try:
        trial.call(_block(trial).forward, big)
    except Found as found:
        if found.diagnosis.mistake == "not-finite":
            raise Found(OVERFLOW, "With inputs in the thousands, " + found.diagnosis.seen) from None
        raise
    wide = Trial(trial.student, np.float64)  # float32 has not the digits to tell
    deep, x = _weights(wide), np.ones((1, D))
    deep["gate"] -= deep["gate"].mean(axis=1, keepdims=True) + np.linspace(2, 3, F)[:, None]
    block = wide.make(**deep)  # each z is between -18 and -12
    found, terms = wide.call(block.forward, x), _terms(deep, _parameters(wide, block), x)
    if not wide.agrees(found, terms.right["output"]):
        when = " where each z is below -12"
        known = wide.measured({"output": found}, terms.right, terms, when)
        raise Found(known or GENERAL["digits"], (known.seen if known else f"The output{when} is "
                    "wrong.") + " The logistic function is small there, and not cut off.")


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "gradients", "of the six arrays and of x")
def _gradients(trial: Trial) -> None:
    for x, G in trial.inputs(4, D):
        block = _block(trial)
        terms = block.terms(x, G)  # now: a wrong backward may write into the arrays
        trial.call(block.forward, x)
        found = block.back(trial, G)
        silu = terms.nodes["silu(z)"]
        trial.measure(found, terms, {name: [(SWAPPED, terms.changed(
            name, {"u": np.ones_like(silu), "silu'(z)": silu}))] for name in ("gate.B", "gate.A")},
                      {"u silu'(z) in the place of silu(z)": SWAPPED,
                       "silu(silu(z)) in the place of silu(z)": IN_PLACE,
                       "silu(z) in the place of z": IN_PLACE})


contract(EXERCISE, 3, _block, (RANK, F), D, D, changed=FROZEN_CHANGED, other=lambda trial:
         trial.make(*(-weight for weight in _weights(trial).values()), rank=1, alpha=9.0))


# ---- Step 4: merging --------------------------------------------------------------------------

def _merged_terms(weights: Arrays, arrays: Arrays) -> Terms:
    nodes = {"s": ("", S), "alpha": ("", ALPHA_VALUE), "r": ("", RANK)}
    sums = {}
    for name in PROJECTIONS:
        nodes |= {f"W_{name}": ("oi", weights[name]), f"A_{name}": ("ri", arrays[f"{name}.A"]),
                  f"B_{name}": ("or", arrays[f"{name}.B"])}
        sums[f"merged {name}"] = "oi", [(("the frozen weight",), f"W_{name}"),
                                        (("the update",), f"s B_{name} A_{name}")]
    return Terms(nodes, sums)


@EXERCISE.test(4, "shapes", "merge returns three weights")
def _merge_shapes(trial: Trial) -> None:
    shapes = [getattr(array, "shape", None) for array in _block(trial).merge(trial).values()]
    if shapes != (right := list(PROJECTIONS.values())) and sorted(map(str, shapes)) == sorted(
            map(str, right)):
        raise Found(MERGED_ORDER, f"The shapes are {shapes}.")


@EXERCISE.test(4, "values", "a plain block with the merged weights gives the same output")
def _merge(trial: Trial) -> None:
    for each in (trial, *trial.each_dtype()):
        block = _block(each)
        right, (gate, up, _) = block.plain().right, block.merge(each).values()
        if each.agrees(gate, right["merged up"]) and each.agrees(up, right["merged gate"]):
            raise Found(MERGED_ORDER, "The first weight is that of up, the second that of gate.")
        _block(each).merges(each)  # another one, if a merge should write into the weights


@EXERCISE.test(4, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for d, f, rank in ((D, D, D), (D, D, 1), (1, 1, 1), (D, D, D + 3), (40, 130, 30)):
        weights = {name: trial.normal(*((d, f) if name == "down" else (f, d)), seed=20 + i) / d**0.5
                   for i, name in enumerate(PROJECTIONS)}
        block = trial.make(**weights, rank=rank, alpha=S * rank)
        arrays, n = _parameters(trial, block), d if d > 1 else RANK
        x, G = (trial.normal(n, d, seed=s) for s in (2, 3))
        trial.shaped(arrays, {key: (rank, d) if key in ("gate.A", "up.A") else (d, rank) if key
                              == "down.B" else (rank, f) if key == "down.A" else (f, rank)
                              for key in KEYS})
        _fill(trial, arrays)
        trial.holds(f"the widths are {d} and {f} and the rank is {rank}",
                    Layer(block, arrays).run(trial, x, G), _flow(Watch(), weights, arrays, x, G),
                    lambda: _terms(weights, arrays, x, G))  # noqa: B023


merging(EXERCISE, 4, _block, (4, D), D, frozen=FROZEN_CHANGED, changes=MERGE_CHANGES)


def check_lora_feed_forward(student: type, step: int | None = None, *,
                            dtype: Any = np.float64) -> Report:
    """Check a `LoRAFeedForward`: the first `step` steps, or all. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
