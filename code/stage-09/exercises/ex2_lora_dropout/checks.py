"""Exercise 2, LoRA dropout: the tests. Reading them spoils the exercise.

The mask is random and may be drawn in any way, so no test assumes one. With A = B = 1 (the unit
matrix), W = 0 and s = 1 the output *is* the update's input as the layer used it: for an input of
ones, M / (1 - p). A second layer made from the same seed draws the same mask for any other data.
"""

import itertools
import time
from typing import Any

import numpy as np

from exercises.harness.checking import (GENERAL, Diagnosis, Exercise, Found, Report, Terms, Trial,
                                         Watch, activations)
from exercises.harness.layers import Layer, contract

EXERCISE = Exercise(2, "LoRA dropout")
BOTH_ZERO, NOT_IDENTITY, TRANSPOSED, MERGE_CHANGES = EXERCISE.shared(
    "both-zero", "start-not-frozen", "transposed", "merge-changes")

START_SWAPPED = EXERCISE.mistake(
    "start-swapped", "A at zero and B random at the start",
    "The update is zero this way as well, but the statement has it the other way round, as files "
    "and other code do.", "statement")
IN_EVALUATION = EXERCISE.mistake(
    "active-in-evaluation", "dropout that stays active when training is False",
    "Two evaluations of the same input then differ, and both are worse than the trained model is.",
    "statement")
NO_DROPOUT = EXERCISE.mistake(
    "no-dropout", "no dropout at all in training",
    "The outputs in training equal those of the plain layer, so the rate has no effect.",
    "statement")
FROZEN_PATH = EXERCISE.mistake(
    "frozen-path", "dropout on the frozen path as well",
    "X W^T is the pretrained model. A mask on it makes the pretrained model itself noisy, which no "
    "update can repair. Only the update's input is masked.", "statement")
ON_OUTPUT = EXERCISE.mistake(
    "on-output", "dropout on the update's output instead of its input",
    "Then whole entries of the update vanish, and B is trained on something other than the "
    "statement says. Each entry of the input must be dropped, before A.", "statement")
ON_BOTTLENECK = EXERCISE.mistake(
    "on-bottleneck", "dropout between A and B instead of before A",
    "Only as many numbers as the rank can be dropped there, and each carries a large part of the "
    "update. The mask has the shape of X.", "statement")
ON_WEIGHT = EXERCISE.mistake(
    "on-weight", "dropout on a weight instead of the input",
    "Then all rows of the input see the same thinned weight. It is the entries of X that are "
    "dropped, each by itself.", "statement")
KEEP_RATE = EXERCISE.mistake(
    "rate-is-keep-rate", "the rate taken for the probability to keep",
    "The rate is the probability that an entry is set to zero. At a rate of 0.1 this layer drops "
    "nine entries out of ten.", "statement")
WRONG_RATE = EXERCISE.mistake(
    "wrong-rate", "a mask that drops too many or too few entries",
    "Each entry is dropped on its own, with probability p.", "statement")
FIXED_COUNT = EXERCISE.mistake(
    "fixed-count", "a mask that always drops the same number of entries",
    "Each entry is dropped on its own, with probability p. How many are dropped is then random, "
    "too.", "statement")
FIXED_MASK = EXERCISE.mistake(
    "fixed-mask", "a mask that is not drawn anew in every forward pass",
    "A mask drawn once removes the same inputs for ever: that is a smaller layer, not dropout. It "
    "is drawn anew in every forward pass.", "statement")
DEPENDENT_MASK = EXERCISE.mistake(
    "dependent-mask", "a mask in which one entry says something about another",
    "Each entry is kept or dropped independently of all others: by a random number of its own.",
    "statement")
INPUT_MASK = EXERCISE.mistake(
    "mask-from-input", "a mask that depends on the input",
    "Which entries are dropped is chance alone, whatever numbers they hold: large and small ones, "
    "positive and negative ones have the same rate.", "statement")
SHARED_MASK = EXERCISE.mistake(
    "shared-mask", "one mask shared by all rows of the input",
    "Each row should see its own thinned layer. The mask has the full shape of X, leading axes "
    "included.", "statement")
OTHER_MASK = EXERCISE.mistake(
    "other-mask-in-backward", "a different mask in backward than in forward",
    "The gradient must be that of the function that was computed. With another mask it is the "
    "gradient of a function that nobody evaluated.", "statement")
STALE_MASK = EXERCISE.mistake(
    "stale-mask", "the mask of an earlier forward pass in backward",
    "backward belongs to the forward pass just before it. If that one had no mask, none may act in "
    "backward.", "statement")
FLAG_IN_BACKWARD = EXERCISE.mistake(
    "flag-in-backward", "a backward that asks the training flag again",
    "What counts is what forward did. If the flag changes between the two, the gradient must still "
    "be that of the forward pass.", "statement")
MASK_ON_ALL = EXERCISE.mistake(
    "mask-on-whole-gradient", "a mask on the frozen path's gradient as well",
    "The frozen path saw the whole input, so its share of the gradient is not masked.", "statement")
MERGED_MASK = EXERCISE.mistake(
    "merged-with-mask", "merging with a mask",
    "A merged weight is used for evaluation, and there is no mask in evaluation. It must not "
    "depend on what happened in the last forward pass.", "statement")
BAD_RATE = EXERCISE.mistake(
    "rate-not-checked", "a rate outside 0 <= p < 1 is accepted",
    "At p = 1 the layer divides by zero. A negative rate makes no mask at all. NaN is neither "
    "below 0 nor at least 1, so two separate comparisons let it through. All must be refused "
    "before anything is computed.", "statement")
ROW_MASK = EXERCISE.mistake(
    "mask-per-row", "one mask value for several entries of a row",
    "Every entry of the update's input is kept or dropped by itself. A row that is dropped as a "
    "whole loses its token.", "statement")
NO_MASK = EXERCISE.mistake(
    "no-mask", "a mask with other numbers in it than 0 and one factor",
    "What is dropped adds nothing at all, and what is kept is multiplied by one number for all. In "
    "which order does Python compute M / 1 - p?", "statement")
WRONG_FACTOR = EXERCISE.mistake(
    "wrong-factor", "entries that were kept, multiplied by the wrong factor",
    "With a share p dropped, the kept ones must make up for it, so that the expected sum stays as "
    "it was. Try the factor on p near 0: it must be near 1, and above.", "statement")


S = 2.5  # not whole, so that alpha // r differs from it, too
IN, OUT, RANK = 6, 5, 3
N, RATE = 32, 0.25  # width and rank of the layers whose mask is read off; their rate
LEAD = 2, 7  # leading axes of random inputs
Arrays = dict[str, np.ndarray]


def _layer(trial: Trial, dropout: float, n_in: int = IN, n_out: int = OUT, rank: int = RANK,
           s: float = S, seed: int = 1) -> tuple[Any, Arrays]:
    """A student's layer with random A and B, and its parameters."""
    layer = trial.make(n_in, n_out, rank, s * rank, dropout, dtype=trial.dtype,
                       rng=trial.rng(seed))
    arrays = trial.arrays(layer, ("A", "B"))
    for number, array in enumerate(arrays.values()):
        array[...] = trial.normal(*array.shape, seed=10 + number)
    return layer, arrays


def _without(trial: Trial, number: int = 0, rate: float = 0.0, training: bool = True) -> Layer:
    """A layer without dropout, by turns beside two frozen weights: each forward is given its own.

    Of another number beside two others.
    """
    layer, arrays = _layer(trial, rate)
    layer.training = training
    W, own = (trial.normal(2, OUT, IN, seed=3 + number) for _ in range(2))
    turns = [-1]

    def forward(x: np.ndarray) -> np.ndarray:
        turns.append(turns[-1] + 1)
        return layer.forward(x, W[turns[-1] % 2])

    return Layer(layer, arrays, lambda x, G=None: _terms(arrays, x, own[turns[-1] % 2], G),
                 {"weights": W}, forward)


def _glass_layer(trial: Trial, seed: int = 1, a: Any = None, b: Any = None,
                 rate: float = RATE) -> Any:
    """A layer in training with A = B = 1 and s = 1, unless `a` or `b` says otherwise."""
    layer, arrays = _layer(trial, rate, N, N, N, 1.0, seed)
    arrays["A"][...] = np.eye(N) if a is None else a
    arrays["B"][...] = np.eye(N) if b is None else b
    layer.training = True
    return layer


def _frozen(trial: Trial) -> np.ndarray:
    return np.zeros((N, N), trial.dtype)


def _ones(trial: Trial, lead: tuple[int, ...] = (8, 16)) -> np.ndarray:
    return np.ones((*lead, N), trial.dtype)


def _data(trial: Trial, n_in: int, n_out: int, lead: tuple[int, ...] = LEAD
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random x (*lead, in), W (out, in) and G (*lead, out)."""
    return (trial.normal(*lead, n_in, seed=2), trial.normal(n_out, n_in, seed=3),
            trial.normal(*lead, n_out, seed=4))


def _masked_layer(trial: Trial, lead: tuple[int, ...] = LEAD, seed: int = 1) -> tuple:
    """A layer in training; x, W and G; the M / (1 - p) that it will draw for x."""
    M = trial.call(_glass_layer(trial, seed).forward, _ones(trial, lead), _frozen(trial))
    layer, arrays = _layer(trial, RATE, N, N, N, seed=seed)
    x, W, G = _data(trial, N, N, lead)
    own = W.copy()
    return Layer(layer, arrays, lambda x, G: _terms(arrays, x, own, G, M), {"weight": W},
                 lambda x: layer.forward(x, W)), x, W, G, M


def _flow(at: Watch, arrays: Arrays, x: np.ndarray, W: np.ndarray, G: np.ndarray | None,
          M: np.ndarray | None) -> Arrays:
    """Output, merged weight and gradients; every inner value passes through `at`."""
    A, B = arrays["A"], arrays["B"]
    M = at("M", np.ones_like(x) if M is None else M)
    dropped = at("the update's input", at("x in the update", x) * M)
    z = dropped @ A.T
    Ax = at("A x", z, lambda: activations(z, "z", "A x"))
    found = {"output": at("x in the frozen part", x) @ W.T + S * Ax @ B.T,
             "merged weight": W + S * B @ A}
    if G is None:
        return found
    GB = at("G B", at("G in the update", G) @ B)
    rows, g_rows, Ax, GB_rows = (array.reshape(-1, array.shape[-1])
                                 for array in (dropped, G, Ax, GB))
    return found | {"B": S * g_rows.T @ Ax, "A": S * GB_rows.T @ rows,
                    "x": at("G in the frozen part", G) @ W + S * GB @ A * at("M in backward", M)}


def _terms(arrays: Arrays, x: np.ndarray, W: np.ndarray, G: np.ndarray | None = None,
           M: np.ndarray | None = None, p: float = RATE) -> Terms:
    """Output, merged weight and gradients as sums; `M` is divided by 1 - p already."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    x, W, A, B = *(array.astype(np.float64) for array in (x, W)), arrays["A"], arrays["B"]
    nodes = {"s": ("", S), "r": ("", len(A)), "alpha": ("", S * len(A)), "(1-p)": ("", 1 - p),
             "16/alpha": ("", 16 / S / len(A)), "x": ("ni", x), "W": ("oi", W), "A": ("ri", A),
             "B": ("or", B)}
    dropped, known = "x", {}
    if M is not None:
        dropped, nodes["M"] = "x M", ("ni", M)
        known["M without 1/(1-p)"] = M * (1 - p)
    frozen, update = ("the frozen part",), ("the update",)
    sums = {"output": ("no", [(frozen, "x W"), (update, f"s {dropped} A B")]),
            "merged weight": ("oi", [(frozen, "W"), (update, "s B A")])}
    if G is not None:
        nodes["G"] = "no", G
        sums |= {"x": ("ni", [(frozen, "G W"), (update, f"s G B A{dropped[1:]}")]),
                 "B": ("or", [(update, f"s G {dropped} A")]),
                 "A": ("ri", [(update, f"s G B {dropped}")])}
    return Terms(nodes, sums, known, x.shape[:-1],
                 flow=lambda at: _flow(at, arrays, x, W, G, M))


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {"A": trial.normal(RANK, IN, seed=10), "B": trial.normal(OUT, RANK, seed=11)}
    M = (trial.rng(5).random((*LEAD, IN)) >= RATE) / (1 - RATE)
    return _terms(arrays, *_data(trial, IN, OUT), M)


# ---- Step 1: the layer and its start ----------------------------------------------------------

@EXERCISE.test(1, "interface", "the layer can be made, trains A and B, and starts in training")
def _names(trial: Trial) -> None:
    layer = trial.make(IN, OUT, dtype=trial.dtype, rng=trial.rng())
    trial.counts(layer, sum(array.size for array in trial.arrays(layer, ("A", "B")).values()))
    if trial.attribute(layer, "training", bool) is not True:
        raise Found(GENERAL["signature"], "training is not True at the start.")


@EXERCISE.test(5, "arguments", "rates outside 0 <= p < 1, and a rank of 0, are refused")
def _refusals(trial: Trial) -> None:
    trial.make(IN, OUT, rank=RANK, alpha=2, dropout=0)
    for rate in (1.0, -0.1, 1.5, float("nan")):
        trial.refuses(f"dropout={rate}", lambda rate=rate: trial.make(IN, OUT, dropout=rate),
                      diagnosis=BAD_RATE)
    trial.refuses("rank=0", lambda: trial.make(IN, OUT, rank=0))


@EXERCISE.test(1, "shapes", "A is (rank, in) and B is (out, rank), in the dtype asked for")
def _shapes(trial: Trial) -> None:
    for each in trial.each_dtype():
        each.shaped(_layer(each, 0.1)[1], {"A": (RANK, IN), "B": (OUT, RANK)}, TRANSPOSED)
    for name, array in trial.arrays(trial.make(N, N), ("A", "B")).items():
        if array.size != 8 * N or array.dtype != np.float32:
            raise Found(GENERAL["signature"], f"With rank and dtype left out, {name} has shape "
                                              f"{array.shape} and is {array.dtype}.")


@EXERCISE.test(1, "start", "the update is zero at the start, can learn, and comes from rng")
def _start(trial: Trial) -> None:
    layer = trial.make(IN, OUT, RANK, dtype=trial.dtype, rng=trial.rng(1))
    A, B = (trial.arrays(layer, ("A", "B"))[name] for name in "AB")
    if not A.any():
        raise Found(START_SWAPPED if B.any() else BOTH_ZERO, "A holds zeros only.")
    if B.any():
        raise Found(NOT_IDENTITY, "B is not zero in a fresh layer.")
    trial.starts_from_rng(lambda rng: trial.arrays(
        trial.make(IN, OUT, RANK, dtype=trial.dtype, rng=rng), ("A", "B")))
    large = trial.make(16 * N, N, 2 * N, dtype=trial.dtype, rng=trial.rng(2))
    trial.small_gaussian("A", trial.arrays(large, ("A", "B"))["A"])


# ---- Step 2: forward without dropout ----------------------------------------------------------

@EXERCISE.test(2, "shapes", "any leading axes; dtypes stay as they are")
def _leading(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, _ = _layer(each, 0.5)
        layer.training = False
        for lead in ((), (4,), (2, 3)):
            each.keeps_dtype("forward", each.call(
                layer.forward, each.normal(*lead, IN), each.normal(OUT, IN), shape=(*lead, OUT)))


@EXERCISE.test(2, "values", "with training = False, and with p = 0, it is plain LoRA")
def _plain(trial: Trial) -> None:
    x, W, _ = _data(trial, IN, OUT)
    for dropout, training in ((0.0, False), (0.0, True), (0.4, False)):
        layer, arrays = _layer(trial, dropout)
        layer.training = training
        try:
            value = trial.call(layer.forward, x, W)
        except Found as found:
            if found.diagnosis.mistake == "not-finite" and dropout == 0:
                raise Found(WRONG_FACTOR, "At a rate of 0 " + found.diagnosis.seen) from None
            raise
        reasons = {"the update": KEEP_RATE} if training else {}  # nothing was kept
        if not trial.agrees(trial.call(layer.forward, x, W), value):
            raise Found(IN_EVALUATION if dropout else WRONG_RATE,
                        f"Two outputs for the same input differ at p = {dropout}, training = "
                        f"{training}.")
        trial.measure({"output": value}, _terms(arrays, x, W, p=dropout), None, reasons,
                      f" at p = {dropout}, training = {training}")


@EXERCISE.test(5, "arguments", "wrong shapes of x, W and grad_output are refused")
def _forward_shapes(trial: Trial) -> None:
    layer, _ = _layer(trial, 0.0)
    x, W, _ = _data(trial, IN, OUT)
    trial.call(layer.forward, x, W)
    trial.refuses("an x of width 1", lambda: layer.forward(x[..., :1].copy(), W))
    for part in (W[:1].copy(), W[:, :1].copy()):
        trial.refuses(f"a W of shape {part.shape}", lambda part=part: layer.forward(x, part))
    trial.refuses_gradients(lambda: trial.call(layer.forward, x, W), layer.backward,
                            (*LEAD, OUT), (*LEAD[::-1], OUT))  # as many rows


# ---- Step 3: dropout in forward ---------------------------------------------------------------

@EXERCISE.test(3, "values", "the frozen path sees no mask")
def _frozen_path(trial: Trial) -> None:
    x = _ones(trial)
    found = trial.call(_glass_layer(trial, b=0).forward, x, np.eye(N, dtype=trial.dtype),
                       shape=x.shape)
    if trial.agrees(found, x):
        return
    if trial.agrees(found, np.full_like(found, found.max())):
        raise Found(GENERAL["factor"], f"With B = 0 the output in training is {found.max():.3g} "
                                       "times X W^T.")
    raise Found(FROZEN_PATH, "With B = 0 the output in training is not X W^T.")


@EXERCISE.test(3, "values", "the mask is on the update's input")
def _mask_place(trial: Trial) -> None:
    x, W, layer = _ones(trial), _frozen(trial), _glass_layer(trial)
    used = trial.call(layer.forward, x, W)  # the update's input, if all is right
    if trial.agrees(used, x):
        if not trial.agrees(trial.call(layer.forward, x, W), x):
            raise Found(GENERAL["kept"], "In the first forward pass no entry was dropped, in the "
                                         "second some were.")
        raise Found(NO_DROPOUT, f"No entry was dropped in {x.size:,} at a rate of {RATE}.")
    if not used.any():
        raise Found(WRONG_RATE, f"All {x.size:,} entries were dropped at a rate of {RATE}.")
    summed = trial.call(_glass_layer(trial, a=np.ones(N)).forward, x, W)
    if not trial.agrees(summed, np.broadcast_to(summed[..., :1], x.shape)):
        spread = trial.call(_glass_layer(trial, b=np.ones(N)).forward, x, W)
        late = not trial.agrees(spread, np.broadcast_to(spread[..., :1], x.shape))
        same = trial.agrees(summed, np.broadcast_to(summed[0, 0], x.shape))
        raise Found(ON_WEIGHT if same else ON_OUTPUT if late else ON_BOTTLENECK,
                    "Outputs that are equal for any mask on the input differ.")
    levels = np.unique(np.round(used.astype(np.float64), 4))
    if levels.size == 2 and not levels.all():
        if levels[0]:
            raise Found(WRONG_FACTOR, f"Entries that were kept are multiplied by {levels[0]:.3g}.")
    else:
        raise Found(NO_MASK, "For an input of ones the update's input should take two values, one "
                             f"of them 0; it takes {levels[:4]} ...")


@EXERCISE.test(3, "values", "each entry is dropped by itself at the rate p, or divided by 1 - p")
def _mask_values(trial: Trial) -> None:
    used = trial.call(_glass_layer(trial).forward, _ones(trial, (32, 32)), _frozen(trial))
    rows = used.reshape(-1, N)
    if trial.agrees(rows, np.broadcast_to(rows[:, :1], rows.shape)):
        raise Found(ROW_MASK, "In each row all entries are kept, or all dropped.")
    different = len(np.unique(rows, axis=0))
    usual = len(np.unique(trial.rng(5).random(rows.shape) < np.mean(rows != 0), axis=0))
    shared = Found(SHARED_MASK, f"{len(rows):,} rows have {different:,} different masks.")
    if different < 0.6 * usual:  # among few rows entries go together by chance
        raise shared
    with np.errstate(invalid="ignore"):  # of columns that are always kept
        together = np.triu(np.corrcoef(rows.T != 0), 1)
    if np.nanmax(together) > 0.5:  # by chance below 0.2
        one, two = np.unravel_index(np.nanargmax(together), together.shape)
        raise Found(ROW_MASK, f"Entries {one} and {two} of a row are kept or dropped together.")
    if different < 0.9 * usual:
        raise shared
    trial.by_chance("the mask", used != 0, DEPENDENT_MASK)
    _at_rate(trial, used, RATE)
    _drops(trial, 0.9)


def _drops(trial: Trial, rate: float, lead: tuple[int, ...] = (32, 32)) -> None:
    layer = _glass_layer(trial, rate=rate)
    _at_rate(trial, trial.call(layer.forward, _ones(trial, lead), _frozen(trial)), rate)


def _at_rate(trial: Trial, used: np.ndarray, rate: float, when: str = "") -> None:
    """Raise `Found` unless of an update's input of ones the right share is kept, times 1/(1-p)."""
    kept, share, right = used.max(), np.mean(used != 0), 1 / (1 - rate)
    if abs(share - rate) < 0.02:
        raise Found(KEEP_RATE, f"At a rate of {rate} a share of {share:.2f}{when} was kept.")
    if abs(share - (1 - rate)) > 8 * (rate * (1 - rate) / used.size) ** 0.5:  # deviations
        raise Found(WRONG_RATE, f"At a rate of {rate} a share of {share:.4g}{when} was kept.")
    if 1e-12 < (error := abs(kept - right)) < 1e-3 * right and not trial.agrees(
            kept.reshape(1), np.array([right], trial.dtype)):
        raise Found(GENERAL["digits"], f"Entries that were kept are off by {error:.1g}.")
    if abs(kept - right) > 1e-3 * right:
        own = ", that is one over the share that was kept" * bool(abs(kept * share - 1) < 1e-4)
        raise Found(WRONG_FACTOR, f"Entries that were kept are multiplied by {kept:.4g} at a rate "
                                  f"of {rate}{own}.")


@EXERCISE.test(3, "behaviour", "each forward pass has its own mask")
def _mask_fresh(trial: Trial) -> None:
    layer = _glass_layer(trial)
    x, W = _ones(trial), _frozen(trial)
    first, second = trial.call(layer.forward, x, W), trial.call(layer.forward, -x, W)
    if np.shares_memory(first, second) or first.any() and np.array_equal(first, second):
        raise Found(GENERAL["kept"], "An input and its negative gave the same output, or one array "
                                     "for both.")
    few, often = _glass_layer(trial), _ones(trial, (2,))
    many = []
    for number in range(300):
        if number % 100 == 99:  # an evaluation in between
            few.training = False
            trial.call(few.forward, often, W)
            few.training = True
        many.append(trial.call(few.forward, often, W).tobytes())
    start = time.process_time()
    passes = np.stack([trial.call(layer.forward, x, W) for _ in range(6)])
    slow = time.process_time() - start > 0.1  # number by number, perhaps, which is allowed
    if len(np.unique(passes, axis=0)) < len(passes):
        same = np.array_equal(first != 0, second != 0)
        raise Found(FIXED_MASK, "Two forward passes of one input gave the same output" + (
            "." if same else ", and those of two inputs others: the mask comes from the input."))
    if again := next((i for i, mask in enumerate(many) if mask in many[:i]), 0):
        raise Found(FIXED_MASK, f"Pass {again + 1} of {len(many)} had the mask of pass "
                                f"{many.index(many[again]) + 1}.")
    for which, counts in (("row", (passes != 0).sum(-1)),
                          ("forward pass", (passes != 0).sum((1, 2, 3)))):
        if np.ptp(counts) == 0:  # of six passes by chance: once in a thousand million
            raise Found(FIXED_COUNT, f"In each {which} {counts.max():,} entries are kept.")
    trial.by_chance("six masks, one after the other,", passes != 0, DEPENDENT_MASK)
    _drops(trial, *((0.005,) if slow else (0.0015, (128, 128))))  # less than a byte tells
    for lead in ((), (1,), (1, 1), (1, 7), (7, 1)):
        layer, x = _glass_layer(trial), _ones(trial, lead)
        passes = np.stack([trial.call(layer.forward, x, W) for _ in range(100)])
        _at_rate(trial, passes, RATE, f" of an input of shape {x.shape}")


def _knows_no_input(trial: Trial) -> None:
    """Raise `Found` if another input of the same shape is dropped in other places."""
    W, shape = _frozen(trial), (8, 16)
    masks = [trial.call(_glass_layer(trial).forward, x, W) != 0 for x in (
        _ones(trial, shape), trial.normal(*shape, N, seed=2), 1e-3 * -_ones(trial, shape))]
    for what, mask in zip(("random numbers", "small negative ones"), masks[1:], strict=True):
        if not np.array_equal(mask, masks[0]):
            raise Found(INPUT_MASK, f"From the same seed, an input of ones loses "
                        f"{np.sum(~masks[0])} entries, one of {what} {np.sum(~mask)}, and not "
                        "the same.")


@EXERCISE.test(3, "behaviour", "masks come from rng, and stop once training is False")
def _seeded(trial: Trial) -> None:
    x, W = _ones(trial), _frozen(trial)
    one, two = (_glass_layer(trial, seed=7) for _ in range(2))
    for _ in range(2):
        if not trial.agrees(trial.call(one.forward, x, W), trial.call(two.forward, x, W)):
            raise Found(GENERAL["ignores-rng"], "Two layers from one seed drop different entries.")
    fresh, other = _glass_layer(trial, seed=7), _glass_layer(trial, seed=8)
    if trial.agrees(trial.call(fresh.forward, x, W), trial.call(other.forward, x, W)):
        raise Found(GENERAL["ignores-rng"], "Layers from different seeds drop the same entries.")
    unseeded = trial.make(IN, OUT, RANK, dtype=trial.dtype)  # rng may be left out
    trial.call(unseeded.forward, trial.normal(4, IN), trial.normal(OUT, IN))
    one.training = False
    if not trial.agrees(trial.call(one.forward, x, W), x):
        raise Found(IN_EVALUATION, "With training set to False later on, entries are dropped.")
    _knows_no_input(trial)


@EXERCISE.test(3, "behaviour", "the same masks act on any X, A, B and s; dtypes stay as they are")
def _any_data(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, x, W, _, M = _masked_layer(each)
        value, terms = each.call(layer.forward, x), _terms(layer.arrays, x, W, M=M)
        each.measure({"output": value}, terms, when=" in training")
        each.keeps_digits("forward in training", value, terms.right["output"])


@EXERCISE.test(3, "behaviour", "left out, alpha is 16 and the rate 0.1")
def _defaults(trial: Trial) -> None:
    single = Trial(trial.student, np.float32)  # the default, too
    for training, what, right in ((False, "alpha", 16 / 8), (True, "dropout", 16 / 8 / (1 - 0.1))):
        layer = single.make(N, N, rank=8, rng=single.rng())
        for array in single.arrays(layer, ("A", "B")).values():
            array[...] = np.eye(*array.shape)  # the output is s times the first entries of x~
        layer.training = training
        found = single.call(layer.forward, _ones(single), _frozen(single)).max()
        if abs(found - right) > 1e-3:
            raise Found(GENERAL["signature"], f"With {what} left out, what is kept of an input of "
                                              f"ones becomes {found:.4g}, expected {right:.4g}.")


# ---- Step 4: backward -------------------------------------------------------------------------

contract(EXERCISE, 4, _without, LEAD, IN, OUT,
         other=lambda trial: _layer(trial, RATE, N, N, 1, 3 * S, seed=2))


@EXERCISE.test(4, "gradients", "without dropout they are those of plain LoRA")
def _plain_gradients(trial: Trial) -> None:
    for each, (rate, training), lead in itertools.product(
            trial.each_dtype(), ((0.0, True), (0.5, False)), ((), (7,), LEAD)):
        layer, (x, W, G) = _without(each, 0, rate, training), _data(each, IN, OUT, lead)
        terms, found = _terms(layer.arrays, x, W, G), layer.run(each, x, G)
        each.measure(found, terms)
        each.keeps_all_digits(found, terms.right)


@EXERCISE.test(4, "gradients", "with dropout they use the mask of their own forward pass")
def _masked_gradients(trial: Trial) -> None:
    for each, lead in itertools.product(trial.each_dtype(), (LEAD, (7,), ())):
        layer, x, W, G, M = _masked_layer(each, lead)
        x[..., ::3] = 0  # a mask says nothing of which inputs are zero
        plain, found = _terms(layer.arrays, x, W, G).right, layer.run(each, x, G)
        frozen = G @ W
        seems_kept = np.abs(found["x"] - frozen) > np.abs(plain["x"] - frozen) / 2
        other = frozen + (plain["x"] - frozen) * seems_kept / (1 - RATE)
        each.measure(found, _terms(layer.arrays, x, W, G, M), {
            "x": [(MASK_ON_ALL, plain["x"] * M), (OTHER_MASK, other)]})
        each.keeps_dtype("backward", *found.values())
    (one, x, _, G, _), (two, *_) = (_masked_layer(trial, seed=seed) for seed in (1, 2))
    for layer in (one, two):
        trial.call(layer.forward, x)
    trial.measure(one.back(trial, G), one.terms(x, G),
                  _twins(GENERAL["shared"], two.terms(x, G)), when=" of the first of two layers")


@EXERCISE.test(4, "behaviour", "backward follows the last forward, not the flag")
def _flag(trial: Trial) -> None:
    layer, x, W, G, M = _masked_layer(trial)
    masked, plain = (_terms(layer.arrays, x, W, G, mask) for mask in (M, None))
    trial.call(layer.forward, x)
    layer.thing.training = False
    trial.measure(layer.back(trial, G), masked, _twins(FLAG_IN_BACKWARD, plain))
    layer, *_ = _masked_layer(trial)
    trial.call(layer.forward, x)
    layer.thing.training = False
    trial.call(layer.forward, x)
    trial.measure(layer.back(trial, G), plain, _twins(STALE_MASK, masked))


def _twins(diagnosis: Diagnosis, terms: Terms) -> dict:
    return {name: [(diagnosis, array)] for name, array in terms.right.items()}


# ---- Step 5: merging --------------------------------------------------------------------------

@EXERCISE.test(5, "values", "the merged weight is W + s B A")
def _merge(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, arrays = _layer(each, 0.4)
        x, W, _ = _data(each, IN, OUT)
        first, second = (each.call(layer.merge_weights, W, shape=W.shape) for _ in range(2))
        if np.shares_memory(first, second):
            raise Found(GENERAL["kept"], "Merging twice gave one array for both.")
        if not each.agrees(first, second):
            raise Found(MERGED_MASK, "Merging twice gave two different weights.")
        each.measure({"merged weight": first}, _terms(arrays, x, W, p=0.4))
        each.keeps_digits("merge_weights", first, _terms(arrays, x, W).right["merged weight"])


@EXERCISE.test(5, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for n, out, rank in ((IN, IN, IN), (IN, IN, 1), (1, 1, 1), (IN, IN, IN + 3), (70, 130, 40)):
        layer, arrays = _layer(trial, 0.0, n, out, rank)
        trial.shaped(arrays, {"A": (rank, n), "B": (out, rank)})
        x, W, G = _data(trial, n, out, (min(n, IN), n))
        run = Layer(layer, arrays, by=lambda x, layer=layer, W=W: layer.forward(x, W)).run
        trial.holds(f"in is {n}, out {out} and the rank {rank}", run(trial, x, G) | {
            "merged weight": trial.call(layer.merge_weights, W)},
            _flow(Watch(), arrays, x, W, G, None),
            lambda: _terms(arrays, x, W, G))  # noqa: B023
        if rank < n or out < n:
            continue  # then the mask can't be read off
        (one, a), (two, arrays) = (_layer(trial, RATE, n, out, rank) for _ in range(2))
        for array in a.values():
            array[...] = np.eye(*array.shape)
        M = trial.call(one.forward, np.ones_like(x), np.zeros_like(W))[..., :n] / S
        run = Layer(two, arrays, by=lambda x, layer=two, W=W: layer.forward(x, W)).run
        trial.holds(f"in is {n}, out {out}, the rank {rank} and there is a mask", run(
            trial, x, G), _flow(Watch(), arrays, x, W, G, M),
            lambda: _terms(arrays, x, W, G, M))  # noqa: B023


@EXERCISE.test(5, "arguments", "wrong shapes of W are refused")
def _merge_shapes(trial: Trial) -> None:
    layer, _ = _layer(trial, 0.5)
    trial.call(layer.merge_weights, trial.normal(OUT, IN))
    for shape in ((1, IN), (OUT, 1)):
        trial.refuses(f"a W of shape {shape}",
                      lambda shape=shape: layer.merge_weights(trial.normal(*shape)))


@EXERCISE.test(5, "behaviour", "training and merging leave each other alone")
def _merge_between(trial: Trial) -> None:
    layer, x, W, G, M = _masked_layer(trial, (N,))
    thing, arrays = layer.thing, layer.arrays
    before = trial.call(thing.merge_weights, W)
    trial.call(layer.forward, x)
    if not trial.agrees(trial.call(thing.merge_weights, W), before):
        raise Found(MERGED_MASK, "A forward pass in training changed the merged weight.")
    if thing.training is not True:
        raise Found(MERGE_CHANGES, f"training was True, and is {thing.training} after the merge.")
    layer.goes_back(trial, G, layer.right(x, G), MERGE_CHANGES)
    trial.notices("A", arrays["A"], lambda W: trial.call(thing.merge_weights, W), W)
    fresh = trial.make(N, N, RANK, dtype=trial.dtype, rng=trial.rng())
    trial.own_memory("the merged weight of a fresh layer", trial.call(fresh.merge_weights, W), W,
                     *trial.arrays(fresh, ("A", "B")).values())


def check_lora_dropout(student: type, step: int | None = None, *,
                       dtype: Any = np.float64) -> Report:
    """Check a `LoRADropoutLayer`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
