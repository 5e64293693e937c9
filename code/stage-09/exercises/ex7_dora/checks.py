"""Exercise 7, DoRA with a length for each column: the tests. Reading them spoils the exercise."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from exercises.harness.checking import (GENERAL, Exercise, Found, Report, Terms, Trial,
                                         Watch)
from exercises.harness.layers import Layer, contract, merging

EXERCISE = Exercise(7, "DoRA, column by column")
MERGE_CHANGES, = EXERCISE.shared("merge-changes")

ROWS_NOT_COLUMNS = EXERCISE.mistake(
    "rows-not-columns", "a length for each row of V instead of each column",
    "That is DoRA as PEFT has it, one length for each output. Here each input has one: a column of "
    "V is what one input is multiplied by.", "statement")
NOT_PRETRAINED = EXERCISE.mistake(
    "start-not-pretrained", "an m that does not start as the lengths of W's columns",
    "The first step begins at the pretrained layer. At the start V is W, so only one m makes "
    "m / |V| exactly 1.", "statement")
M_NOT_TRAINED = EXERCISE.mistake(
    "m-not-trained", "an m that is not trained",
    "Direction and length are trained apart. Without m the columns could turn and never grow.",
    "statement")
NORM_OF_W = EXERCISE.mistake(
    "norm-of-w", "the lengths of W in the place of those of V",
    "As soon as B is not zero, V's columns have lengths of their own. Only divided by these is V a "
    "pure direction.", "statement")
DETACHED = EXERCISE.mistake(
    "norm-detached", "the norm taken for a constant where it is not",
    "|V| depends on A and B, so a part of their gradients comes through it. Only detach_norm=True "
    "leaves that part out.", "statement")
NOT_DETACHED = EXERCISE.mistake(
    "norm-not-detached", "a gradient through the norm where it is detached",
    "With detach_norm=True backward treats |V| as a constant. Forward and the gradient of m are "
    "the same in both.", "statement")
ZERO_COLUMN = EXERCISE.mistake(
    "zero-column", "a column of zeros that is not refused",
    "It has no direction, and forward would divide zero by zero. A zero row harms nobody.",
    "statement")


OUT, IN, RANK, S, ROWS = 5, 7, 3, 2.5, 8  # the scale is no whole number
OUTS = (OUT, IN)  # a square weight, too: there an axis that is the wrong one fits
SHAPES = {"A": (RANK, IN), "B": (OUT, RANK), "m": (IN,)}
NAMES = tuple(SHAPES)
BY_ROWS = "V over the lengths of its rows"
Arrays = dict[str, np.ndarray]


def _lengths(matrix: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.linalg.norm(matrix, axis=axis)


def _frozen(trial: Trial, out: int = OUT, seed: int = 20) -> tuple[np.ndarray, np.ndarray]:
    return trial.normal(out, IN, seed=seed), trial.normal(out, seed=seed + 1)


def _fill(trial: Trial, arrays: Arrays, seed: int = 30) -> None:
    """New random numbers in all arrays, in place as an optimizer does it; some |c| are above 1."""
    for number, (name, array) in enumerate(arrays.items()):
        size = 6 if name == "m" else 0.5
        array[...] = size * trial.normal(*array.shape, seed=seed + number)


def _layer(trial: Trial, number: int = 0, fill: bool = True, bias: bool = True, out: int = OUT,
           **options: Any) -> Layer:
    """A student's layer, its parameters random if `fill`; of another number with other weights,
    another scale and, if that is odd, the norm detached."""
    (W, b), (own_W, own_b) = (_frozen(trial, out, 20 + 10 * number) for _ in range(2))
    s, detach = S + number, number % 2 == 1 or options.get("detach_norm", False)
    if number:
        options["detach_norm"] = detach
    layer = trial.make(W, b if bias else None, RANK, s * RANK, rng=trial.rng(1), **options)
    arrays = trial.arrays(layer, NAMES)
    if fill:
        _fill(trial, arrays)
    return Layer(
        layer, arrays, lambda x, G=None: _terms(trial, arrays, x, G, detach, bias, out),
        {"weight": W, "bias": b}, plain=lambda: _terms(trial, arrays, W[:1], bias=bias, out=out),
        merged=lambda: _merged(trial, layer, out),
        right=lambda x, G: _right(own_W, own_b, arrays, x, G, detach, s))


def _inputs(trial: Trial) -> Iterator[np.ndarray]:
    """Inputs, the last with more rows in all than any axis is long."""
    yield from (x for x, _ in trial.inputs(ROWS, IN))
    yield trial.normal(3, ROWS, IN, seed=2)


def _flow(at: Watch, W: np.ndarray, b: np.ndarray, a: Arrays, x: np.ndarray, G: np.ndarray | None,
          detach: bool, s: float = S) -> Arrays:
    """All arrays, the gradients only if there is G; every inner value passes through `at`."""
    BA = at("s B A", s * a["B"] @ a["A"])
    V = at("V", W + BA, {"W / |W| + s B A": W / _lengths(W) + BA})  # (out, in)
    cross, own = 2 * (W * BA).sum(0), (BA * BA).sum(0)
    squares = at("|V|²", (at("V in its lengths", V) ** 2).sum(0), {
        "|W|² + 2 W s B A + s |B A|²": (W * W).sum(0) + cross + own / s,
        "|W|² + |s B A|²": (W * W).sum(0) + own})
    norm = at("|V|", squares ** 0.5, {
        "|W|": _lengths(W), "the sums of |V|": np.abs(V).sum(0), "V's deviations": V.std(0),
        "the largest of |V|": np.abs(V).max(0), "the norm of all": np.linalg.norm(V) + 0 * V[0]})
    c = at("c", a["m"] / norm, {"c, at most 1,": np.minimum(a["m"] / norm, 1)})
    U = at("V / |V|", V / norm, {
        BY_ROWS: V / _lengths(V, 1)[:, None],
        "W / |W| + s B A / m": W / _lengths(W) + BA / a["m"]})  # LoRA beside a W of its own length
    found = {"output": (x * c) @ (U * norm).T + b, "merged weight": U * norm * c,
             "merged bias": b}
    if G is None:
        return found
    rows, G = x.reshape(-1, x.shape[-1]), at("G", G.reshape(-1, len(W)))
    back = at("G V / |V|", G @ U)  # (n, in)
    for_m = (rows * back).sum(0)
    for_V = at("the gradient of V, |V| constant", G.T @ (rows * c))
    if not detach:
        R = V / _lengths(V, 1)[:, None]
        along = at("the direction", U, {"W / |W|": W / _lengths(W)})
        for_V = at("the gradient of V", for_V - at("what comes through |V|", at(
            "the direction that is taken off", along) * (along * for_V).sum(0), {
            "the sum over the inputs": U * (U * for_V).sum(1)[:, None],
            "what points along s B A": c * for_m * BA / norm,
            "what points along all columns at once": U * (U * for_V).sum(),
            "what points along V's rows": R * (R * for_V).sum(1)[:, None],
            "what points along all of V": V * (V * for_V).sum() / (V * V).sum()}))
    return found | {"A": s * a["B"].T @ for_V, "B": s * for_V @ a["A"].T, "m": for_m,
                    "x": (back * a["m"]).reshape(x.shape)}


def _terms(trial: Trial, a: Arrays, x: np.ndarray, G: np.ndarray | None = None,
           detach: bool = False, bias: bool = True, out: int = OUT) -> Terms:
    """The same arrays as sums, to be measured."""
    W, b, x = (array.astype(np.float64) for array in (*_frozen(trial, out), x))
    a, b = {name: array.astype(np.float64) for name, array in a.items()}, b * bias  # copies
    BA = S * a["B"] @ a["A"]
    V = W + BA
    norms = {"|V|": _lengths(V), "|W|": _lengths(W), "|W + B A|": _lengths(W + BA / S),
             "|s B A|": np.maximum(_lengths(BA), 1e-9), "the sums of |V|": np.abs(V).sum(0)}
    n = norms["|V|"]
    known = {"m": a["m"], "|V|/m": n / a["m"], "m |V|": a["m"] * n, "m/|V|²": a["m"] / n**2,
             "-V": -V, "-W/|V|": -W / n, "-W/|W|": -W / norms["|W|"]} | norms
    known["1/m"] = 1 / a["m"]
    for name, norm in norms.items():
        known |= {f"1/{name}": 1 / norm, f"m/{name}": a["m"] / norm}
    nodes = {"s": ("", S), "x": ("ni", x), "W": ("oi", W), "A": ("ri", a["A"]),
             "B": ("or", a["B"]), "c": ("i", known.pop("m/|V|")),
             "b": ("no", np.broadcast_to(b, (*x.shape[:-1], out))), "bias": ("o", b)}
    frozen, update, through = ("the frozen weight",), ("the update",), ("the norm",)
    sums = {"output": ("no", [(frozen, "x W c"), (update, "s x A B c"), (("the bias",), "b")]),
            "merged weight": ("oi", [(frozen, "W c"), (update, "s B A c")]),
            "merged bias": ("o", [(("the bias",), "bias")])}
    if G is not None:
        for_m = ((G.reshape(-1, out).T @ x.reshape(-1, IN)) * V).sum(0) / n
        nodes |= {"G": ("no", G), "∂m": ("i", for_m), "1/|V|": ("i", known.pop("1/|V|")),
                  "-V/|V|": ("oi", -V / n)}
        sums |= {"A": ("ri", [(("V",), "s B G x c"), (through, "s B ∂m c -V/|V|")][:2 - detach]),
                 "B": ("or", [(("V",), "s G x c A"), (through, "s ∂m c -V/|V| A")][:2 - detach]),
                 "m": ("i", [(frozen, "G x W 1/|V|"), (update, "s G x A B 1/|V|")]),
                 "x": ("ni", [(frozen, "G W c"), (update, "s G A B c")])}
    return Terms(nodes, sums, known, x.shape[:-1],
                 flow=lambda at: _flow(at, W, b, a, x, G, detach))


def _right(W: np.ndarray, b: np.ndarray, a: Arrays, x: np.ndarray, G: np.ndarray | None,
           detach: bool, s: float) -> Arrays:
    """The same arrays, sooner."""
    W, b, x = (array.astype(np.float64) for array in (W, b, x))
    a = {name: a[name].astype(np.float64) for name in NAMES}
    return _flow(Watch(), W, b, a, x, G, detach, s)


#: What a measured change is called.
REASONS = {"the norm": DETACHED, "|W| in the place of |V|": NORM_OF_W,
           "m/|W| in the place of c": NORM_OF_W, "1/|W| in the place of 1/|V|": NORM_OF_W,
           f"{BY_ROWS} in the place of V / |V|": ROWS_NOT_COLUMNS,
           "V in its lengths transposed": ROWS_NOT_COLUMNS}


# ---- Step 1: the arrays and their start -------------------------------------------------------

@EXERCISE.test(1, "interface", "the layer can be made and trains A, B and m, nothing else")
def _names(trial: Trial) -> None:
    W, b = _frozen(trial)
    layer = trial.make(weight=W, bias=b, lora_rank=RANK, lora_alpha=4.0, detach_norm=False,
                       rng=trial.rng())
    if set(trial.expect("parameters()", layer.parameters(), dict)) == {"A", "B"}:
        raise Found(M_NOT_TRAINED, "parameters() has A and B and no m.")
    trial.arrays(layer, NAMES)


@EXERCISE.test(1, "shapes", "A is (rank, in), B is (out, rank), m is (in,); the weight's dtype")
def _shapes(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer = _layer(each, fill=False)
        if layer.arrays["m"].size == OUT:
            raise Found(ROWS_NOT_COLUMNS, f"m has {OUT} numbers for a weight of {(OUT, IN)}.")
        each.shaped(layer.arrays, SHAPES)
    lora = RANK * (OUT + IN)
    trial.counts(layer.thing, lora + IN, {lora: M_NOT_TRAINED})


@EXERCISE.test(1, "start", "B is zero, A is not and comes from rng; m holds W's column lengths")
def _start(trial: Trial) -> None:
    arrays = _layer(trial, fill=False).arrays
    if not arrays["A"].any() or arrays["B"].any():
        raise Found(GENERAL["values"], "A has to be random and B zero, as in peft.LoRALayer.")
    W, b = _frozen(trial)
    trial.starts_from_rng(lambda rng: trial.arrays(trial.make(W, b, RANK, rng=rng), NAMES),
                          free=("m",))
    for W in (W, trial.normal(6, 6), trial.normal(4, 256)):
        arrays = trial.arrays(trial.make(W, None, RANK, rng=trial.rng()), NAMES)
        right, m = _lengths(W), arrays["m"]
        if m.shape == right.shape and trial.agrees(m, right):
            continue
        if W.shape == (6, 6) and trial.agrees(m, _lengths(W, 1)):
            raise Found(ROWS_NOT_COLUMNS, "Of a square weight m holds the lengths of the rows.")
        others = {"ones": 1 + 0 * right, "zeros": 0 * right, "the squares of the lengths": right**2,
                  "the sums of absolute values": np.abs(W).sum(0), "the means": W.mean(0)}
        what = next((f"It is {name}" for name, other in others.items() if m.shape == other.shape
                     and trial.agrees(m, other)), f"The first is {m[0]:.3g}, not {right[0]:.3g}")
        raise Found(NOT_PRETRAINED, f"m does not hold the lengths of W's columns. {what}.")
    trial.small_gaussian("At width 256 A", arrays["A"])  # of the widest


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "start", "a fresh layer gives what the frozen one does")
def _pretrained(trial: Trial) -> None:
    layer, x = _layer(trial, fill=False), trial.normal(ROWS, IN, seed=2)
    trial.measure({"output": trial.call(layer.forward, x)}, layer.terms(x), None, REASONS,
                  " at the start")


@EXERCISE.test(2, "values", "V's columns, at the lengths m, and the bias")
def _values(trial: Trial) -> None:
    for out, bias in itertools.product(OUTS, (True, False)):
        layer = _layer(trial, bias=bias, out=out)
        for x in _inputs(trial):
            trial.measure({"output": trial.call(layer.forward, x)}, layer.terms(x), None, REASONS,
                          " of a square weight" * (out == IN))
    plain = trial.make(W := trial.normal(10, 12))  # with the defaults
    arrays = trial.arrays(plain, NAMES)
    _fill(trial, arrays)
    x, V = trial.normal(12), W + 2 * arrays["B"] @ arrays["A"]
    if not trial.agrees(trial.call(plain.forward, x),
                        V @ (x * arrays["m"] / _lengths(V))):
        raise Found(GENERAL["signature"], "Made from a weight alone, the layer has another output "
                                          "than with a lora_rank of 8 and a lora_alpha of 16.")


# ---- Step 3: backward -------------------------------------------------------------------------

contract(EXERCISE, 3, _layer, (2, ROWS), IN, OUT, settings=2)


@EXERCISE.test(3, "gradients", "with the norm detached")
def _detached(trial: Trial) -> None:
    for out, x in itertools.product(OUTS, _inputs(trial)):
        _gradients(trial, x, out, detach=True, detach_norm=True)


@EXERCISE.test(3, "gradients", "in full, through the norm, as is the default")
def _full(trial: Trial) -> None:
    for out, x in itertools.product(OUTS, _inputs(trial)):
        _gradients(trial, x, out, detach=False)
    _gradients(trial, x, OUT, detach=False, detach_norm=False)


def _gradients(trial: Trial, x: np.ndarray, out: int, detach: bool, **options: bool) -> None:
    layer = _layer(trial, out=out, **options)
    G, before = trial.normal(*x.shape[:-1], out, seed=3), x.copy()
    full, wanted = _terms(trial, layer.arrays, x, G, out=out), layer.terms(x, G)
    trial.call(layer.forward, x)
    found = layer.back(trial, G)
    trial.same_bits("forward's input after backward", x, before, GENERAL["changes-input"])
    trial.measure(found, wanted, {name: [(NOT_DETACHED, full.right[name])] for name in "AB"}
                  if detach else None, REASONS, " of a square weight" * (out == IN))


# ---- Step 4: merging, and what is refused -----------------------------------------------------

def _merged(trial: Trial, layer: Any, out: int = OUT) -> Arrays:
    weight, bias = trial.parts(layer.merge, 2)
    trial.expect("the merged weight", weight, shape=(out, IN))
    return {"merged weight": weight} | ({} if bias is None else {"merged bias": bias})


@EXERCISE.test(4, "values", "the merged weight and bias make a plain layer that does the same")
def _merge(trial: Trial) -> None:
    for each, out, bias in itertools.product(trial.each_dtype(), OUTS, (True, False)):
        layer = _layer(each, out=out, bias=bias)
        merged = layer.merges(each, None, REASONS, " of a square weight" * (out == IN))
        if bias != ("merged bias" in merged):
            raise Found(GENERAL["wrong-type"], f"Made {'with' if bias else 'without'} a bias, the "
                        f"layer gave {'none' if bias else 'one'} when it was merged.")


merging(EXERCISE, 4, _layer, (ROWS, IN), OUT, frozen=MERGE_CHANGES, changes=MERGE_CHANGES)


@EXERCISE.test(4, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for out, n, rank in ((IN, IN, IN), (OUT, IN, OUT), (OUT, IN, 1), (OUT, 1, 1),
                         (OUT, IN, IN + 2), (130, 40, 20)):
        W, b = trial.normal(out, n, seed=20), trial.normal(out, seed=21)
        try:
            layer = trial.make(W, b, rank, S * rank, rng=trial.rng(1))
        except ValueError:
            if rank <= min(out, n):
                raise
            continue  # it may refuse such a rank, and not cut it
        arrays = trial.arrays(layer, NAMES)
        trial.shaped(arrays, {"A": (rank, n), "B": (out, rank), "m": (n,)})
        _fill(trial, arrays)
        x, G = trial.normal(rank, n, seed=2), trial.normal(rank, out, seed=3)
        trial.holds(f"in is {n}, out {out} and the rank {rank}", Layer(layer, arrays).run(
            trial, x, G), _right(W, b, arrays, x, G, detach=False, s=S))


@EXERCISE.test(4, "arguments", "a zero column is refused, and sizes that make no sense")
def _refusals(trial: Trial) -> None:
    W, b = _frozen(trial)
    for column in (0, IN - 1):
        zero = W.copy()
        zero[:, column] = 0
        with np.errstate(all="ignore"):
            trial.refuses(f"A weight whose column {column} is zero", lambda: trial.make(zero),
                          (ValueError,), ZERO_COLUMN)
    row = W.copy()
    row[2] = 0
    trial.make(row, lora_alpha=2)  # which is none of its columns
    small = W.copy()
    small[:, 1] *= 1e-10  # and this column is not zero
    trial.make(small, lora_alpha=2)
    for what, (weight, bias, rank, alpha) in {
            "a bias with a single number": (W, b[:1], RANK, 4.0), "lora_rank=0": (W, b, 0, 4.0),
            **{f"lora_alpha={alpha}": (W, b, RANK, alpha)
               for alpha in (float("nan"), float("inf"), 0.0, -4.0)}}.items():
        trial.refuses(what, lambda: trial.make(weight, bias, rank, alpha))


def check_dora(student: type, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check a `ColumnDoRA`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
