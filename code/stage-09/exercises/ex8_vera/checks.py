"""Exercise 8, VeRA in a feed-forward block: the tests. Reading them spoils the exercise."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from exercises.harness.checking import (GENERAL, TIME_LIMIT, Exercise, Found, NotYet, Report,
                                         Terms, Trial, Watch, activations, slopes)
from exercises.harness.layers import Layer, contract, merging

EXERCISE = Exercise(8, "VeRA in a feed-forward block")
NOT_IDENTITY, MERGE_CHANGES = EXERCISE.shared("start-not-frozen", "merge-changes")

TRAINS_MATRICES = EXERCISE.mistake(
    "trains-matrices", "something frozen that is trained, counted or changed",
    "up, down, A and B are frozen. That is why one pair can serve every layer, and why a seed is "
    "enough to keep it. Only the vectors in between learn.", "statement")
EXCHANGED = EXERCISE.mistake(
    "exchanged", "d and beta exchanged",
    "d stands between A and B and has an entry for each unit of rank; beta stands behind B and has "
    "one for each output.", "statement")
NOT_FROM_SEED = EXERCISE.mistake(
    "not-from-seed", "matrices that do not come from the seed alone",
    "The seed is all that is kept of A and B. What else had a part in them, a global state or the "
    "weights or the order of calls, is not there when the vectors are loaded again.", "statement")
WRONG_D = EXERCISE.mistake(
    "wrong-d", "d that does not start at d_initial",
    "With d at zero nothing comes back to beta, and with both at zero nothing ever learns. The "
    "statement says where each entry of d starts.", "statement")
OWN_MATRICES = EXERCISE.mistake(
    "own-matrices", "a layer with matrices of its own",
    "Sharing is what makes VeRA small: there is one A and one B, and each layer reads views of "
    "them. A second pair, or copies of corners, cost as much memory as LoRA's matrices.",
    "statement")
SHARED_VECTOR = EXERCISE.mistake(
    "shared-vector", "a vector that belongs to two layers",
    "A and B are shared, the vectors are not: they are all that tells one layer from another. Each "
    "has an array of its own, or a step of one is a step of both.", "statement")
WRONG_CORNER = EXERCISE.mistake(
    "wrong-corner", "the last rows or columns of the shared matrices instead of the first",
    "Any corner would train as well. But vectors that were trained with the first one, by PEFT or "
    "by this book, mean something else in another.", "statement")
STATE_HOLDS = EXERCISE.mistake(
    "state-too-large", "a state with more than the vectors and the seed",
    "What the seed can make again need not be stored. For large layers the matrices would be "
    "most of the file.", "statement")
NOT_THE_SAME = EXERCISE.mistake(
    "not-the-same-again", "a second block that is not the one that was saved",
    "The vectors mean something only between the A and B that they were trained with, and the "
    "state is all that the second block knows of the first.", "statement")

D, RANK, SEED, D_INITIAL, ROWS = 6, 5, 11, 0.7, 8  # none of them a default
#: d_ff above d_model, below, and the same. Each side of A and of B is cut in one of the first two;
#: in the last both layers have one shape, so what is kept by shape is kept once for both.
WIDTHS = (9, 4, 6)
#: d_ff, the rank and d_model: some of them equal or 1, or one more than twice the other.
EQUAL = ((D, D, D), (9, 1, D), (9, 1, 1), (2 * D + 1, 2, D), (D, 2, 2 * D + 1), (9, D + 5, D),
         (130, 20, 40))
NAMES = ("up_d", "up_beta", "down_d", "down_beta")
KEYS = ("W", "A", "B", "d", "beta")
Arrays = dict[str, np.ndarray]


def _weights(trial: Trial, F: int, seed: int = 20, d: int = D) -> Arrays:
    return {"up": 0.5 * trial.normal(F, d, seed=seed),
            "down": 0.5 * trial.normal(d, F, seed=seed + 1)}


def _block(trial: Trial, number: int = 0, F: int = WIDTHS[0], fill: bool = True, off: str = "",
           rank: int = RANK, seed: int = SEED, d: int = D) -> Layer:
    """A student's block, the vectors as they start or, if `fill`, random but for those of the layer
    that is `off`, zero; of another number with other weights and another seed."""
    weights, seed = _weights(trial, F, 20 + 10 * number, d), seed + number
    block = trial.make(*weights.values(), rank, D_INITIAL, seed=seed)
    vectors = trial.arrays(block, NAMES)
    if fill:
        _fill(trial, vectors, off)
    frozen = weights | _matrices(trial, block)
    return Layer(block, vectors, lambda x, G=None: _terms(frozen, vectors, x, G), frozen,
                 plain=lambda: _merged_terms(frozen, vectors))


def _fill(trial: Trial, vectors: Arrays, off: str = "") -> None:
    for number, name in enumerate(NAMES):
        vectors[name][...] = trial.normal(*vectors[name].shape, seed=30 + number) * (
            name.split("_")[0] != off)


def _inputs(trial: Trial) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and gradients of the output; the last of more rows, one of them zero, so z = 0."""
    yield from trial.inputs(ROWS, D)
    x, G = (trial.normal(3, ROWS, D, seed=seed) for seed in (2, 3))
    x[1, 2] = 0
    yield x, G


def _matrices(trial: Trial, block: Any) -> Arrays:
    return {name: trial.attribute(block, name) for name in "AB"}


def _nodes(frozen: Arrays, vectors: Arrays, last: str = "") -> dict[str, tuple[str, np.ndarray]]:
    """Both layers' arrays, with corners of A and B: the first, or of those in `last` the last."""
    nodes = {}
    for name, (i, r, o) in {"up": "irf", "down": "fso"}.items():
        W, A, B = (frozen[key].astype(np.float64) for key in (name, "A", "B"))
        ends = {key: slice(-size, None) if key in last else slice(size)
                for key, size in zip("BA", W.shape, strict=True)}
        nodes |= {f"W_{name}": (o + i, W), f"A_{name}": (r + i, A[:, ends["A"]]),
                  f"B_{name}": (o + r, B[ends["B"]]),
                  f"d_{name}": (r, vectors[f"{name}_d"].astype(np.float64)),
                  f"beta_{name}": (o, vectors[f"{name}_beta"].astype(np.float64))}
    return nodes


def _flow(at: Watch, nodes: dict, x: np.ndarray, G: np.ndarray | None = None) -> Arrays:
    """The output and, if there is G, the gradients; every inner value passes through `at`."""
    kept, found = {}, {}

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        W, A, B, *vectors = (nodes[f"{key}_{name}"][1] for key in KEYS)
        d, beta = (at(f"{key}_{name}", one) for key, one in zip(KEYS[3:], vectors, strict=True))
        t = x @ A.T
        t = at(f"x A^T of {name}", t, lambda t=t: activations(t, "x A^T", "x A^T"))
        u = at(f"what beta scales in {name}", at(f"d (x A^T) of {name}", d * t) @ B.T)
        kept[name], frozen = (t, u), x @ W.T
        return at(f"x W^T of {name}", frozen, {
            "beta (x W^T)": beta * frozen, "(1 + beta) (x W^T)": (1 + beta) * frozen}) + at(
                f"the update of {name}", beta * u)

    def back(name: str, G: np.ndarray) -> np.ndarray:
        W, A, B, d, beta = (nodes[f"{key}_{name}"][1] for key in KEYS)
        (t, u), by_rows = kept[name], tuple(range(G.ndim - 1))
        GB = at(f"(beta G) B of {name}", at(f"beta G of {name}", beta * G) @ B)
        found[f"{name}_d"], found[f"{name}_beta"] = (GB * t).sum(by_rows), (G * u).sum(by_rows)
        return G @ W + at(f"d ((beta G) B) of {name}", d * GB) @ A

    z = at("z", layer("up", at("x", x)))
    update = nodes["beta_up"][1] * kept["up"][1]
    a = at("relu(z)", np.maximum(z, 0), lambda: activations(z, "relu(z)") | {
        "relu(x W^T) plus the update": np.maximum(z - update, 0) + update,
        "x W^T plus relu of the update": z - update + np.maximum(update, 0)})
    found["output"] = layer("down", a)
    if G is not None:
        for_a = at("the gradient of relu(z)", back("down", at("G", G)))
        found["x"] = back("up", at("the gradient of z", for_a * at(
            "relu'(z)", 1.0 * (z > 0), lambda: slopes(z))))
    return found


def _terms(frozen: Arrays, vectors: Arrays, x: np.ndarray, G: np.ndarray | None = None,
           last: str = "") -> Terms:
    """The output and, if there is G, the gradients as sums; with the `last` corners for a twin."""
    layers, watch = _nodes(frozen, vectors, last), Watch()
    _flow(watch, layers, x)
    z, a = watch.values["z"], watch.values["relu(z)"]
    nodes = layers | {"x": ("ni", x), "relu(z)": ("nf", a)}
    up, down = ([(f"the frozen {name}", f"W_{name}"), (f"the update of {name}", _update(name))]
                for name in ("up", "down"))
    sums = {"output": ("no", [((way,), f"relu(z) {by}") for way, by in down])}
    if G is not None:
        nodes |= {"G": ("no", G), "relu'(z)": ("nf", (z > 0).astype(np.float64))}
        sums |= {"down_beta": ("o", [((), "G B_down d_down A_down relu(z)")]),
                 "down_d": ("s", [((), "G beta_down B_down A_down relu(z)")]),
                 "up_beta": ("f", [((way,), f"G {by} relu'(z) B_up d_up A_up x")
                                   for way, by in down]),
                 "up_d": ("r", [((way,), f"G {by} relu'(z) beta_up B_up A_up x")
                                for way, by in down]),
                 "x": ("ni", [((one, two), f"G {by} relu'(z) {to}")
                              for one, by in down for two, to in up])}
    known = {"z": z} | ({"z >= 0": (z >= 0).astype(np.float64)} if (z == 0).any() else {})
    return Terms(nodes, sums, known, x.shape[:-1], flow=lambda at: _flow(at, layers, x, G))


def _update(name: str) -> str:
    return f"beta_{name} B_{name} d_{name} A_{name}"


# ---- Step 1: the arrays and their start -------------------------------------------------------

@EXERCISE.test(1, "interface", "the block can be made and trains four vectors, nothing else")
def _names(trial: Trial) -> None:
    F = WIDTHS[0]
    block = trial.make(**_weights(trial, F), rank=RANK, d_initial=D_INITIAL, seed=SEED)
    arrays = trial.expect("parameters()", block.parameters(), dict)
    for name, array in arrays.items():
        if getattr(array, "size", 0) in (RANK * F, F * D):
            raise Found(TRAINS_MATRICES, f"parameters() holds {name}, of shape {array.shape}.")
    trial.arrays(block, NAMES)
    right = 2 * RANK + F + D
    trial.counts(block, right, {right + 2 * RANK * F: TRAINS_MATRICES})


@EXERCISE.test(4, "arguments", "what makes no sense is refused")
def _refusals(trial: Trial) -> None:
    up, down = _weights(trial, WIDTHS[0]).values()
    trial.make(up, down, RANK, 1)
    trial.refuses("rank=0", lambda: trial.make(up, down, 0))
    for d_initial in (float("nan"), 0.0, -0.1):
        trial.refuses(f"d_initial={d_initial}", lambda: trial.make(up, down, RANK, d_initial))
    trial.refuses("a transposed down", lambda: trial.make(up, down.T.copy(), RANK))
    trial.refuses("a down with fewer columns", lambda: trial.make(up, down[:, 1:].copy(), RANK))
    for seed in (None, -1, 2.7):
        trial.refuses(f"seed={seed}", lambda: trial.make(up, down, RANK, seed=seed))


@EXERCISE.test(1, "shapes", "d is (rank,), beta (out,); A (rank, k), B (k, rank); dtype as up's")
def _shapes(trial: Trial) -> None:
    sizes = *((F, RANK, D) for F in WIDTHS), *EQUAL
    for each, (F, rank, d) in itertools.product(trial.each_dtype(), sizes):
        block, k = _block(each, F=F, fill=False, rank=rank, d=d), max(d, F)
        up_d, up_beta, *_ = block.arrays.values()
        if F != rank and (up_d.shape == (F,) or up_beta.shape == (rank,)):
            raise Found(EXCHANGED, f"up_d has shape {up_d.shape}, up_beta {up_beta.shape}; the "
                                   f"rank is {rank}.")
        each.shaped(block.arrays | block.frozen, dict(zip((*NAMES, "A", "B"), (
            (rank,), (F,), (rank,), (d,), (rank, k), (k, rank)), strict=True)))


@EXERCISE.test(1, "start", "A and B come from the seed; d starts at d_initial, beta at zero")
def _start(trial: Trial) -> None:
    block = _block(trial, fill=False)
    first, vectors = block.frozen, block.arrays
    for name, value, diagnosis in (("d", D_INITIAL, WRONG_D), ("beta", 0, NOT_IDENTITY)):
        for key in (f"up_{name}", f"down_{name}"):
            if not trial.agrees(vectors[key], np.full(vectors[key].shape, value)):
                raise Found(diagnosis, f"{key} starts at {vectors[key][:3]} ..., expected {value}.")
    plain = trial.arrays(trial.make(*_weights(trial, WIDTHS[0]).values()), NAMES)["up_d"]
    if plain.shape != (4,) or not trial.agrees(plain, np.full(4, 0.1)):
        raise Found(GENERAL["signature"], f"Made with two weights alone, up_d is {plain}, expected "
                                          "four times 0.1.")
    others = {name: 2 * array for name, array in _weights(trial, WIDTHS[0]).items()}
    same, other = (_matrices(trial, trial.make(*others.values(), RANK, seed=seed))
                   for seed in (SEED, SEED + 1))
    for name in "AB":
        if not np.array_equal(first[name], same[name]):
            raise Found(NOT_FROM_SEED, f"Two blocks of the same seed and sizes differ in {name}.")
        if np.array_equal(first[name], other[name]):
            raise Found(NOT_FROM_SEED, f"Two blocks of different seeds have the same {name}.")
    single, double = (_block(each, fill=False).frozen for each in trial.each_dtype())
    for name in "AB":
        if np.abs(single[name] - double[name]).max() > 1e-3 * np.abs(double[name]).max():
            raise Found(NOT_FROM_SEED, f"Two blocks of one seed, one of float32 and one of float64 "
                                       f"weights, differ in {name} by more than rounding.")
    seeds = (1, 1001, 2**16 + 1, 2**32 + 1)  # whole, not only the last digits or bits
    drawn = {_block(trial, fill=False, seed=seed).frozen["A"].tobytes() for seed in seeds}
    if len(drawn) < len(seeds):
        raise Found(NOT_FROM_SEED, f"Of four blocks of the seeds {', '.join(map(str, seeds))} some "
                                   "have the same A.")
    zero, again = (_block(trial, fill=False, seed=0).frozen for _ in range(2))  # no None
    if not np.array_equal(zero["A"], again["A"]):
        raise Found(NOT_FROM_SEED, "Two blocks of seed=0 differ in A.")
    if any(abs(np.corrcoef(A.ravel(), first["B"].ravel())[0, 1]) > 0.999
           for A in (first["A"], first["A"].T)):
        raise Found(GENERAL["starts-alike"], "A and B are made of the same numbers.")
    wide = np.ones((400, 30), trial.dtype)
    wide = _matrices(trial, trial.make(wide, wide.T.copy(), 25))
    for name, fan_in in {"A": 400, "B": 25}.items():
        found, right = float(wide[name].std()), (2 / fan_in) ** 0.5
        if not 0.9 < found / right < 1.1:
            raise Found(GENERAL["start-size"], f"With 400 columns and rank 25 {name} has a standard"
                                               f" deviation of {found:.3g}, expected {right:.3g}.")
        most, bound = float(np.abs(wide[name]).max()), 3 ** 0.5 * right  # of ten thousand numbers
        if not 0.98 < most / bound < 1.001:
            raise Found(GENERAL["start-size"], f"The largest number in {name} is {most:.3g}; "
                                               f"uniform numbers end at {bound:.3g}.")
        trial.by_chance(name, wide[name])
        if trial.dtype.itemsize > 2 and np.array_equal(
                wide[name], wide[name].astype(np.float16).astype(trial.dtype)):
            raise Found(GENERAL["digits"], f"{name} has no more digits than float16 holds.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "start", "a fresh block computes what the frozen one does")
def _identity(trial: Trial) -> None:
    block, x = _block(trial, fill=False), trial.normal(ROWS, D, seed=2)
    output, terms = trial.call(block.forward, x), block.terms(x)
    if output.shape == x.shape and not trial.agrees(output, terms.right["output"]):
        _values(trial)  # a slip of both layers is told better where one is at work
    trial.measure({"output": output}, terms, when=" at the start")


#: d_ff, and whose update is off: a slip that both layers share is seen in one place at a time, one
#: that mixes the layers up only where both are on.
CASES = [(9, "", ""), (9, "up", " with the update of down alone"),
         (9, "down", " with the update of up alone"), *((F, "", "") for F in WIDTHS[1:])]


def _told_in(cases: list[tuple[int, str, str]], look: Callable[[int, str, str], None]) -> None:
    """Look at each case; of those that are wrong raise the first that can be told, or the first."""
    silent, end = None, time.process_time() + TIME_LIMIT / 5
    for case in cases:
        if silent and time.process_time() > end:
            break
        try:
            look(*case)
        except Found as found:
            if found.diagnosis.mistake not in ("values", "partly"):
                raise
            silent = silent or found
    if silent:
        raise silent


def _updates_without(trial: Trial, names: tuple[str, ...], F: int, off: str) -> bool:
    """Whether there still is an update when these arrays of a block are zero."""
    block = _block(trial, F=F, off=off)
    frozen = block.frozen
    for name in names:
        array = (frozen | block.arrays)[name]
        if not (array.flags.owndata or array.flags.writeable):
            return False  # protected so well that it can't be tried
        array.setflags(write=True)
        array[...] = 0
    x = trial.normal(ROWS, D, seed=2)
    return not trial.agrees(trial.call(block.forward, x),
                            np.maximum(x @ frozen["up"].T, 0) @ frozen["down"].T)


@EXERCISE.test(2, "values", "the output is that of two updated layers with relu between")
def _values(trial: Trial) -> None:
    def look(F: int, off: str, when: str) -> None:
        block = _block(trial, F=F, off=off)
        frozen, vectors = block.frozen, block.arrays
        for x, _ in _inputs(trial):
            output, terms = trial.call(block.forward, x), _terms(frozen, vectors, x)
            block.stays(trial, "after forward", TRAINS_MATRICES)
            if (output.shape == x.shape and not trial.agrees(output, terms.right["output"])
                    and _updates_without(trial, ("A", "B"), F, off)
                    and not _updates_without(trial, ("up_d", "down_d"), F, off)):
                raise Found(OWN_MATRICES, f"The output{when}: with zeros in A and B there still is "
                                          "an update.")
            trial.measure({"output": output}, terms, {"output": _twins(
                lambda last, x=x: _right(frozen, vectors, x, last))}, when=when)

    _told_in(CASES, look)


def _twins(right: Callable[[str], np.ndarray]) -> Iterator[tuple[Any, np.ndarray]]:
    """What last corners make of an array; made only if somebody asks."""
    return ((WRONG_CORNER, right(last)) for last in ("A", "B", "AB"))


@EXERCISE.test(1, "behaviour", "each vector has memory of its own")
def _own_vectors(trial: Trial) -> None:
    for F in WIDTHS:
        vectors = _block(trial, F=F, fill=False).arrays
        for one, two in itertools.combinations(NAMES, 2):
            if np.shares_memory(vectors[one], vectors[two]):
                raise Found(SHARED_VECTOR, f"{one} and {two} share their memory.")


@EXERCISE.test(2, "behaviour", "both layers read the one A and the one B")
def _shared(trial: Trial) -> None:
    for F, name, (layer, off) in itertools.product(WIDTHS, "AB", (("up", "down"), ("down", "up"))):
        block = _block(trial, F=F).thing
        if not np.shares_memory(*(trial.attribute(block, name) for _ in range(2))):
            raise Found(OWN_MATRICES, f"Asked twice, the attribute {name} gave two arrays.")
        if _updates_without(trial, (name,), F, off):
            raise Found(OWN_MATRICES, f"With zeros in {name} there still is the update of {layer}.")


def _right(frozen: Arrays, vectors: Arrays, x: np.ndarray, last: str = "") -> np.ndarray:
    return _terms(frozen, vectors, x, last=last).right["output"]


# ---- Step 3: backward -------------------------------------------------------------------------

contract(EXERCISE, 3, _block, (2, ROWS), D, D, changed=TRAINS_MATRICES)


@EXERCISE.test(3, "gradients", "of d, beta and x; in the first step those of d are zero")
def _gradients(trial: Trial) -> None:
    def look(F: int, off: str, when: str) -> None:
        names = [name for name in NAMES if not name.startswith(off or "both")]
        for x, G in _inputs(trial):
            block, before = _block(trial, F=F, fill=off != "both", off=off), x.copy()
            terms = block.terms(x, G)
            trial.call(block.forward, x)
            found = block.back(trial, G)
            block.stays(trial, "after backward", TRAINS_MATRICES)
            trial.same_bits("forward's input after backward", x, before, GENERAL["changes-input"])
            trial.measure({name: found[name] for name in (*names, "x")}, terms, when=when)

    _told_in([*CASES, (9, "both", " at the start")], look)


@EXERCISE.test(3, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for F, rank, d in EQUAL:
        block, (x, G) = _block(trial, F=F, rank=rank, d=d), (
            trial.normal(d, d, seed=seed) for seed in (2, 3))
        trial.holds(f"d_model is {d}, d_ff {F} and the rank {rank}", block.run(trial, x, G),
                    block.right(x, G), lambda: block.terms(x, G))  # noqa: B023


# ---- Step 4: merging and saving ---------------------------------------------------------------

def _merged_terms(frozen: Arrays, vectors: Arrays, last: str = "") -> Terms:
    return Terms(_nodes(frozen, vectors, last), {f"merged {name}": (axes, [
        (("the frozen weight",), f"W_{name}"), (("the update",), _update(name))])
        for name, axes in {"up": "fi", "down": "of"}.items()})


@EXERCISE.test(4, "values", "merge gives two new weights")
def _merge(trial: Trial) -> None:
    for each, F in itertools.product((trial, *trial.each_dtype()), WIDTHS):
        block = _block(each, F=F)
        block.merges(each, {name: _twins(lambda last, name=name: _merged_terms(
            block.frozen, block.arrays, last).right[name]) for name in block.plain().right})


merging(EXERCISE, 4, _block, (ROWS, D), D, frozen=TRAINS_MATRICES, changes=MERGE_CHANGES)


@EXERCISE.test(4, "values", "the state holds the vectors and the seed")
def _state(trial: Trial) -> None:
    layer = _block(trial, fill=False)
    block, vectors = layer.thing, layer.arrays
    start = {name: vector.copy() for name, vector in vectors.items()}
    _fill(trial, vectors)
    x = trial.normal(ROWS, D, seed=2)
    trial.call(block.forward, x)
    trial.call(block.backward, x)  # a state is asked for in the middle of training
    _block(trial, seed=(other := SEED + 5))  # and there are other blocks
    state = trial.call(block.state, returns=dict)
    if extra := sorted(map(str, set(state) - {"seed", *NAMES})):
        raise Found(STATE_HOLDS, f"state() has the keys {', '.join(extra)}, too.")
    if missing := sorted({"seed", *NAMES} - set(state)):
        raise Found(GENERAL["signature"], f"state() has no {', '.join(missing)}.")
    if state["seed"] == other:
        raise Found(GENERAL["shared"], "A second block was made, and state() of the first has its "
                                       "seed.")
    if not isinstance(state["seed"], (int, np.integer)) or state["seed"] != SEED:
        raise Found(NOT_FROM_SEED, f"state()['seed'] is {state['seed']!r}, the block was made with "
                                   f"seed={SEED}.")
    for name, vector in vectors.items():
        kept = trial.expect(name, state[name])
        for other in NAMES:
            if other != name and kept.shape == vectors[other].shape and trial.agrees(
                    kept, vectors[other]):
                raise Found(GENERAL["another"], f"{name} of the state is {other}.")
        trial.compare(f"{name} of the state", kept, vector, {
            GENERAL["kept"]: start[name],
            GENERAL["another"]: trial.arrays(block, NAMES, "gradients")[name]})
        trial.own_memory(f"{name} of the state", kept, *vectors.values())
    for each in trial.each_dtype():
        layer = _block(each)
        state = each.call(layer.thing.state, returns=dict)
        for name, vector in layer.arrays.items():
            kept = each.expect(name, state[name])
            if not np.array_equal(kept, vector):
                raise Found(GENERAL["digits"], f"{name} of the state, {kept.dtype}, is off by "
                                               "little.")


@EXERCISE.test(4, "values", "from_state makes a block that computes what the saved one did")
def _again(trial: Trial) -> None:
    sizes = itertools.product(WIDTHS, (RANK - 2, 4))  # 4 is the default
    for each, (F, rank) in itertools.product(trial.each_dtype(), sizes):
        layer = _block(each, F=F, rank=rank, seed=SEED + 1)
        block, frozen, vectors = layer.thing, layer.frozen, layer.arrays
        x = each.normal(ROWS, D, seed=2)
        right, state = _terms(frozen, vectors, x), each.call(block.state, returns=dict)
        keys = set(state)
        saved = {name: array.copy() for name, array in vectors.items()}
        for array in vectors.values():
            array += 1  # the first one trains on
        again = each.call(each.student.from_state, *_weights(each, F).values(), state, returns=None)
        if again is None or again is ...:
            raise NotYet(f"from_state gave {again}: is a return missing?")
        if set(state) != keys:
            raise Found(GENERAL["changes-input"], "from_state changed the keys of the state.")
        for name, array in (each.arrays(again, NAMES) | _matrices(each, again)).items():
            if array.dtype != each.dtype:
                raise Found(GENERAL["wrong-dtype"], f"In the second block {name} is {array.dtype}.")
            if not np.array_equal(array, (saved | frozen)[name]):
                raise Found(NOT_THE_SAME, f"In the second block {name} is another array.")
        each.measure({"output": each.call(again.forward, x)}, right, when=" of the second block")
        for name, array in each.arrays(again, NAMES).items():
            each.own_memory(f"{name} of the second block", array, *state.values(),
                            *vectors.values())


def check_vera(student: type, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check a `VeRAFeedForward`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
