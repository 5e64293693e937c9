"""Exercise 2, LoRA dropout: the tests. Reading them spoils the exercise.

The mask is random and may be drawn in any way, so no test assumes one. With A = B = 1 (the unit
matrix) and W = 0 the output *is* the update's input as the layer used it, times s: the mask can be
read off it.
"""

from typing import Any

import numpy as np

from checking import GENERAL, Diagnosis, Exercise, Found, Report, Trial

BOTH_ZERO = Diagnosis(
    "both-zero", "A and B both start at zero",
    "Each gradient contains the other matrix as a factor. With both at zero, both gradients are "
    "zero for ever and nothing is learned.", "9.2")
NOT_IDENTITY = Diagnosis(
    "start-not-frozen", "a layer that does not start at the pretrained one",
    "Training must begin exactly at the pretrained model. If the update is not zero at the start, "
    "training first has to repair the damage.", "9.2")
TRANSPOSED = Diagnosis(
    "transposed", "A or B stored the other way round",
    "Weights are (out, in), here as in PyTorch: A is (rank, in) and B is (out, rank). Files, "
    "counts and start values all rely on it.", "9.2")
ALPHA = Diagnosis(
    "alpha-not-over-r", "alpha where alpha / r belongs",
    "Without the division the update grows with the rank, and a rate that suits one rank fails at "
    "another. At rank 1 the mistake can't be seen.", "mistakes")
IN_EVALUATION = Diagnosis(
    "active-in-evaluation", "dropout that stays active when training is False",
    "Two evaluations of the same input then differ, and both are worse than the trained model is.",
    "statement")
EVALUATION_SCALED = Diagnosis(
    "scaled-in-evaluation", "a factor of the rate in evaluation",
    "The division by 1 - p in training already gives the masked input the mean of the input. "
    "Whoever also scales in evaluation corrects twice.", "statement")
NO_DROPOUT = Diagnosis(
    "no-dropout", "no dropout at all in training",
    "The outputs in training equal those of the plain layer, so the rate has no effect.",
    "statement")
FROZEN_PATH = Diagnosis(
    "frozen-path", "dropout on the frozen path as well",
    "X W^T is the pretrained model. A mask on it makes the pretrained model itself noisy, which no "
    "update can repair. Only the update's input is masked.", "statement")
ON_OUTPUT = Diagnosis(
    "on-output", "dropout on the update's output instead of its input",
    "Then whole entries of the update vanish, and B is trained on something other than the "
    "statement says. Each entry of the input must be dropped, before A.", "statement")
ON_BOTTLENECK = Diagnosis(
    "on-bottleneck", "dropout between A and B instead of before A",
    "With rank 4 there are only four numbers to drop there, each carrying a quarter of the update. "
    "The mask has the shape of X.", "statement")
NO_SCALE = Diagnosis(
    "no-inverted-scale", "dropout without the division by 1 - p",
    "The masked input then has a smaller mean than the input, so training and evaluation see "
    "updates of different size, and so does the merged weight.", "statement")
KEEP_RATE = Diagnosis(
    "rate-is-keep-rate", "the rate taken for the probability to keep",
    "The rate is the probability that an entry is set to zero. At a rate of 0.1 this layer drops "
    "nine entries out of ten.", "statement")
WRONG_RATE = Diagnosis(
    "wrong-rate", "a mask that drops too many or too few entries",
    "Each entry is dropped on its own, with probability p.", "statement")
FIXED_MASK = Diagnosis(
    "fixed-mask", "one mask for all forward passes",
    "A mask drawn once removes the same inputs for ever: that is a smaller layer, not dropout. It "
    "is drawn anew in every forward pass.", "statement")
SHARED_MASK = Diagnosis(
    "shared-mask", "one mask shared by all rows of the input",
    "Each row should see its own thinned layer. The mask has the full shape of X, leading axes "
    "included.", "statement")
OTHER_MASK = Diagnosis(
    "other-mask-in-backward", "a different mask in backward than in forward",
    "The gradient must be that of the function that was computed. With another mask it is the "
    "gradient of a function that nobody evaluated.", "statement")
FLAG_IN_BACKWARD = Diagnosis(
    "flag-in-backward", "a backward that asks the training flag again",
    "What counts is what forward did. If the flag changes between the two, the gradient must still "
    "be that of the forward pass.", "statement")
UNMASKED_A = Diagnosis(
    "unmasked-a-gradient", "the gradient of A computed with the unmasked input",
    "A has seen the masked input, so its gradient contains the masked input.", "statement")
UNMASKED_B = Diagnosis(
    "unmasked-b-gradient", "the gradient of B computed with the unmasked input",
    "B has seen what A made of the masked input, so its gradient contains that.", "statement")
UNMASKED_X = Diagnosis(
    "unmasked-x-gradient", "the input's gradient without the mask",
    "An entry that was dropped did not influence the update, so no gradient may come back to it "
    "through the update.", "statement")
UNSCALED_X = Diagnosis(
    "unscaled-x-gradient", "the input's gradient masked but not divided by 1 - p",
    "Forward multiplied by M / (1 - p), so backward multiplies by the same.", "statement")
MASK_ON_ALL = Diagnosis(
    "mask-on-whole-gradient", "a mask on the frozen path's gradient as well",
    "The frozen path saw the whole input, so its share of the gradient is not masked.", "statement")
NO_FROZEN_GRADIENT = Diagnosis(
    "frozen-gradient-lost", "an input gradient that does not pass through the frozen weight",
    "A frozen weight gets no gradient of its own, but the gradient always passes through it. "
    "Without it the layers below hardly learn.", "9.2")
NO_S_BACKWARD = Diagnosis(
    "no-s-in-backward", "backward without the factor s",
    "s multiplies the update in forward, so it multiplies every gradient that passes through it.",
    "9.2")
MERGED_MASK = Diagnosis(
    "merged-with-mask", "merging with a mask",
    "A merged weight is used for evaluation, and there is no mask in evaluation. It must not "
    "depend on what happened in the last forward pass.", "statement")
MERGED_RATE = Diagnosis(
    "merged-with-rate", "a merged weight with a factor of the rate",
    "The division by 1 - p in training has already made the mean right. Another factor makes the "
    "merged model another model.", "statement")
IGNORES_RNG = Diagnosis(
    "ignores-rng", "randomness that does not come from rng",
    "Two layers made from the same seed, given the same input, must draw the same masks. Otherwise "
    "no run can be repeated and no gradient can be checked.", "statement")
BAD_RATE = Diagnosis(
    "rate-not-checked", "a rate outside 0 <= p < 1 is accepted",
    "At p = 1 the layer divides by zero. A negative rate makes no mask at all. Both must be "
    "refused before anything is computed.", "statement")

ROW_MASK = Diagnosis(
    "mask-per-row", "one mask value for a whole row",
    "Every entry of the update's input is kept or dropped by itself. A row that is dropped as a "
    "whole loses its token.", "statement")
WRONG_FACTOR = Diagnosis(
    "wrong-factor", "entries that were kept, multiplied by the wrong factor",
    "With a share p dropped, the kept ones must make up for it, so that the expected sum stays as "
    "it was. Try the factor on p near 0: it must be near 1, and above.", "statement")

EXERCISE = Exercise(
    2, "LoRA dropout", ROW_MASK, WRONG_FACTOR, BOTH_ZERO, NOT_IDENTITY, TRANSPOSED, ALPHA,
    IN_EVALUATION, EVALUATION_SCALED,
    NO_DROPOUT, FROZEN_PATH, ON_OUTPUT, ON_BOTTLENECK, NO_SCALE, KEEP_RATE, WRONG_RATE, FIXED_MASK,
    SHARED_MASK, OTHER_MASK, FLAG_IN_BACKWARD, UNMASKED_A, UNMASKED_B, UNMASKED_X, UNSCALED_X,
    MASK_ON_ALL, NO_FROZEN_GRADIENT, NO_S_BACKWARD, MERGED_MASK, MERGED_RATE, IGNORES_RNG, BAD_RATE)

IN, OUT, RANK, ALPHA_VALUE = 6, 5, 3, 12.0  # s = 4, so alpha and alpha / r differ
N, RATE = 32, 0.25  # width of the layers whose mask is read off


def _layer(trial: Trial, dropout: float, n_in: int = IN, n_out: int = OUT, rank: int = RANK,
           alpha: float = ALPHA_VALUE, seed: int = 1) -> tuple[Any, dict[str, np.ndarray]]:
    """A student's layer with random A and B, and its parameters."""
    layer = trial.make(n_in, n_out, rank, alpha, dropout, dtype=trial.dtype, rng=trial.rng(seed))
    arrays = trial.arrays(layer, ("A", "B"))
    for number, array in enumerate(arrays.values()):
        array[...] = trial.normal(*array.shape, seed=10 + number)
    return layer, arrays


def _glass_layer(trial: Trial, seed: int = 1, a: np.ndarray | None = None,
                 b: np.ndarray | None = None) -> Any:
    """A layer in training with A = B = 1 and s = 1, unless `a` or `b` says otherwise."""
    layer, arrays = _layer(trial, RATE, N, N, N, float(N), seed)
    arrays["A"][...] = np.eye(N) if a is None else a
    arrays["B"][...] = np.eye(N) if b is None else b
    layer.training = True
    return layer


def _frozen(trial: Trial) -> np.ndarray:
    return np.zeros((N, N), trial.dtype)


def _ones(trial: Trial, lead: tuple[int, ...] = (8, 16)) -> np.ndarray:
    return np.ones((*lead, N), trial.dtype)


# ---- Step 1: the layer and its start ----------------------------------------------------------

@EXERCISE.test(1, "interface", "the layer can be made, trains A and B, and starts in training")
def _names(trial: Trial) -> None:
    layer = trial.make(IN, OUT, dtype=trial.dtype, rng=trial.rng())
    right = sum(array.size for array in trial.arrays(layer, ("A", "B")).values())
    if (count := trial.call(layer.num_parameters, returns=int)) != right:
        raise Found(GENERAL["values"], f"num_parameters() gave {count}, expected {right}.")
    if trial.attribute(layer, "training", bool) is not True:
        raise Found(GENERAL["signature"], "training is not True at the start.")


@EXERCISE.test(1, "interface", "rates outside 0 <= p < 1 are refused")
def _rates(trial: Trial) -> None:
    trial.make(IN, OUT, rank=RANK, alpha=ALPHA_VALUE, dropout=0.0)
    for rate in (1.0, -0.1, 1.5, float("nan")):
        trial.refuses(f"dropout={rate}", lambda rate=rate: trial.make(IN, OUT, dropout=rate),
                      diagnosis=BAD_RATE)


@EXERCISE.test(1, "shapes", "A is (rank, in) and B is (out, rank), in the dtype asked for")
def _shapes(trial: Trial) -> None:
    for dtype in (np.float32, np.float64):
        arrays = trial.arrays(trial.make(IN, OUT, RANK, dtype=dtype, rng=trial.rng()), ("A", "B"))
        for name, shape in {"A": (RANK, IN), "B": (OUT, RANK)}.items():
            if arrays[name].shape == shape[::-1]:
                raise Found(TRANSPOSED, f"{name} has shape {arrays[name].shape}.")
            trial.expect(name, arrays[name], shape=shape)
            if arrays[name].dtype != dtype:
                raise Found(GENERAL["wrong-dtype"], f"dtype={np.dtype(dtype)} was asked for, "
                                                    f"{name} is {arrays[name].dtype}.")


@EXERCISE.test(1, "start", "the update is zero at the start, yet can learn")
def _start(trial: Trial) -> None:
    arrays = trial.arrays(trial.make(IN, OUT, RANK, dtype=trial.dtype, rng=trial.rng()), ("A", "B"))
    if not arrays["A"].any() and not arrays["B"].any():
        raise Found(BOTH_ZERO, "Both arrays hold zeros only.")
    if (arrays["B"] @ arrays["A"]).any():
        raise Found(NOT_IDENTITY, "B A is not zero in a fresh layer.")
    same = trial.arrays(trial.make(IN, OUT, RANK, dtype=trial.dtype, rng=trial.rng()), ("A", "B"))
    if not np.array_equal(arrays["A"], same["A"]):
        raise Found(IGNORES_RNG, "Two layers made from the same seed differ in A.")


# ---- Step 2: forward without dropout ----------------------------------------------------------

@EXERCISE.test(2, "shapes", "any leading axes; float32 in gives float32 out")
def _leading(trial: Trial) -> None:
    layer, _ = _layer(trial, 0.5)
    layer.training = False
    for lead in ((), (4,), (2, 3)):
        trial.call(layer.forward, trial.normal(*lead, IN), trial.normal(OUT, IN),
                   shape=(*lead, OUT))
    single = Trial(trial.student, np.float32)
    layer, _ = _layer(single, 0.5)
    layer.training = False
    single.keeps_dtype("forward", single.call(layer.forward, single.normal(2, IN),
                                               single.normal(OUT, IN)))


@EXERCISE.test(2, "values", "with training = False, and with p = 0, it is plain LoRA")
def _plain(trial: Trial) -> None:
    x, W = trial.normal(4, IN, seed=2), trial.normal(OUT, IN, seed=3)
    for dropout, training in ((0.0, False), (0.0, True), (0.6, False)):
        layer, arrays = _layer(trial, dropout)
        layer.training = training
        update = x @ arrays["A"].T @ arrays["B"].T
        s = ALPHA_VALUE / RANK
        twins = {ALPHA: x @ W.T + ALPHA_VALUE * update}
        try:
            value = trial.call(layer.forward, x, W)
        except Found as found:
            if found.diagnosis.mistake == "not-finite" and dropout == 0:
                raise Found(WRONG_FACTOR, "At a rate of 0 " + found.diagnosis.seen) from None
            raise
        if dropout:
            twins[EVALUATION_SCALED] = x @ W.T + s * (1 - dropout) * update
            again = trial.call(layer.forward, x, W)
            if not trial.agrees(value, again):
                raise Found(IN_EVALUATION, "Two outputs for the same input differ.")
        trial.compare(f"the output at p = {dropout}, training = {training},", value,
                      x @ W.T + s * update, twins)


# ---- Step 3: dropout in forward ---------------------------------------------------------------

@EXERCISE.test(3, "values", "the frozen path sees no mask")
def _frozen_path(trial: Trial) -> None:
    layer, arrays = _layer(trial, 0.5)
    arrays["B"][...] = 0
    layer.training = True
    x, W = trial.normal(4, IN, seed=2), trial.normal(OUT, IN, seed=3)
    if not trial.agrees(trial.call(layer.forward, x, W), x @ W.T):
        raise Found(FROZEN_PATH, "With B = 0 the output in training is not X W^T.")


@EXERCISE.test(3, "values", "the mask is on the update's input, divided by 1 - p")
def _mask_place(trial: Trial) -> None:
    x, W = _ones(trial), _frozen(trial)
    used = trial.call(_glass_layer(trial).forward, x, W)  # the update's input, if all is right
    if trial.agrees(used, x):
        raise Found(NO_DROPOUT, f"No entry was dropped in {x.size:,} at a rate of {RATE}.")
    summed = trial.call(_glass_layer(trial, a=np.ones((N, N))).forward, x, W)
    if not trial.agrees(summed, np.broadcast_to(summed[..., :1], x.shape)):
        spread = trial.call(_glass_layer(trial, b=np.ones((N, N))).forward, x, W)
        late = not trial.agrees(spread, np.broadcast_to(spread[..., :1], x.shape))
        raise Found(ON_OUTPUT if late else ON_BOTTLENECK,
                    "Outputs that are equal for any mask on the input differ.")
    levels = np.unique(np.round(used.astype(np.float64), 4))
    if levels.size > 2 or levels[0] != 0:
        raise Found(GENERAL["values"], "For an input of ones the update's input should take two "
                                       f"values, one of them 0; it takes {levels[:4]} ...")
    kept, share = levels[-1], np.mean(used != 0)
    if abs(share - RATE) < 0.06:
        raise Found(KEEP_RATE, f"At a rate of {RATE} a share of {share:.2f} was kept.")
    if abs(share - (1 - RATE)) > 0.06:  # nine standard deviations
        raise Found(WRONG_RATE, f"At a rate of {RATE} a share of {share:.2f} was kept.")
    if abs(kept - 1) < 1e-3:
        raise Found(NO_SCALE, f"Entries that were kept are multiplied by {kept:.3g}.")
    if abs(kept - 1 / (1 - RATE)) > 1e-3:
        raise Found(WRONG_FACTOR, f"Entries that were kept are multiplied by {kept:.3g}.")


@EXERCISE.test(3, "behaviour", "each entry and each forward pass has its own mask")
def _mask_fresh(trial: Trial) -> None:
    layer = _glass_layer(trial)
    x, W = _ones(trial), _frozen(trial)
    first, second = trial.call(layer.forward, x, W), trial.call(layer.forward, x, W)
    if trial.agrees(first, second):
        raise Found(FIXED_MASK, "Two forward passes in training gave the same output.")
    if any(trial.agrees(first, np.broadcast_to(first.take([0], axis), first.shape))
           for axis in (0, 1)):
        raise Found(SHARED_MASK, "All rows have the same entries dropped.")
    if trial.agrees(first, np.broadcast_to(first[..., :1], first.shape)):
        raise Found(ROW_MASK, "In each row all entries are kept, or all dropped.")


@EXERCISE.test(3, "behaviour", "the same seed gives the same masks, in training only")
def _seeded(trial: Trial) -> None:
    x, W = _ones(trial), _frozen(trial)
    one, two = (_glass_layer(trial, seed=7) for _ in range(2))
    for _ in range(2):
        if not trial.agrees(trial.call(one.forward, x, W), trial.call(two.forward, x, W)):
            raise Found(IGNORES_RNG, "Two layers made with np.random.default_rng(7) differ.")
    fresh, other = _glass_layer(trial, seed=7), _glass_layer(trial, seed=8)
    if trial.agrees(trial.call(fresh.forward, x, W), trial.call(other.forward, x, W)):
        raise Found(IGNORES_RNG, "Layers made from different seeds drop the same entries.")
    unseeded = trial.make(IN, OUT, RANK, dtype=trial.dtype)  # rng may be left out
    trial.call(unseeded.forward, trial.normal(4, IN), trial.normal(OUT, IN))
    one.training = False
    if not trial.agrees(trial.call(one.forward, x, W), x):
        raise Found(IN_EVALUATION, "With training set to False later on, entries are dropped.")


@EXERCISE.test(3, "behaviour", "float32 stays float32 in training")
def _training_dtype(trial: Trial) -> None:
    single = Trial(trial.student, np.float32)
    layer, _ = _layer(single, 0.5)
    single.keeps_dtype("forward in training", single.call(layer.forward, single.normal(2, IN),
                                                           single.normal(OUT, IN)))


# ---- Step 4: backward -------------------------------------------------------------------------

@EXERCISE.test(4, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    layer, _ = _layer(trial, 0.0)
    trial.refuses("backward before forward", lambda: layer.backward(trial.normal(4, OUT)),
                  (RuntimeError,), GENERAL["backward-first"])


@EXERCISE.test(4, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for lead in ((), (2, 3)):
        layer, arrays = _layer(trial, 0.5)
        trial.call(layer.forward, trial.normal(*lead, IN), trial.normal(OUT, IN))
        trial.call(layer.backward, trial.normal(*lead, OUT), shape=(*lead, IN))
        for name, grad in trial.arrays(layer, ("A", "B"), "gradients").items():
            trial.expect(f"the gradient of {name}", grad, shape=arrays[name].shape)


@EXERCISE.test(4, "gradients", "without dropout they are those of plain LoRA")
def _plain_gradients(trial: Trial) -> None:
    x, W = trial.normal(4, IN, seed=2), trial.normal(OUT, IN, seed=3)
    G = trial.normal(4, OUT, seed=4)
    layer, arrays = _layer(trial, 0.0)
    kept = W.copy()
    trial.call(layer.forward, x, W)
    back = trial.call(layer.backward, G)
    trial.same_bits("the frozen weight after backward", W, kept, GENERAL["changes-input"])
    grads = trial.arrays(layer, ("A", "B"), "gradients")
    A, B, s = arrays["A"], arrays["B"], ALPHA_VALUE / RANK
    trial.compare("the gradient of B", grads["B"], s * G.T @ (x @ A.T),
                  {NO_S_BACKWARD: G.T @ (x @ A.T), ALPHA: ALPHA_VALUE * G.T @ (x @ A.T)})
    trial.compare("the gradient of A", grads["A"], s * (G @ B).T @ x,
                  {NO_S_BACKWARD: (G @ B).T @ x, ALPHA: ALPHA_VALUE * (G @ B).T @ x})
    trial.compare("the gradient of X", back, G @ W + s * G @ B @ A,
                  {NO_S_BACKWARD: G @ W + G @ B @ A, NO_FROZEN_GRADIENT: s * G @ B @ A,
                   ALPHA: G @ W + ALPHA_VALUE * G @ B @ A})


@EXERCISE.test(4, "gradients", "with dropout they use the mask of their own forward pass")
def _masked_gradients(trial: Trial) -> None:
    x, W, G = _ones(trial, (16,)), trial.normal(N, N, seed=3), trial.normal(16, N, seed=4)
    layer = _glass_layer(trial)
    used = trial.call(layer.forward, x, W) - x @ W.T  # M / (1 - p), since x = 1 and A = B = 1
    back = trial.call(layer.backward, G)
    grads = trial.arrays(layer, ("A", "B"), "gradients")
    for name, diagnosis in (("B", UNMASKED_B), ("A", UNMASKED_A)):  # equal here: A = B = 1, s = 1
        twins = {diagnosis: G.T @ x, NO_SCALE: (1 - RATE) * G.T @ used}
        _compare_masked(trial, f"the gradient of {name}", grads[name], G.T @ used, twins)
    _compare_masked(trial, "the gradient of X", back, G @ W + G * used, {
        UNMASKED_X: G @ W + G, UNSCALED_X: G @ W + G * (used != 0),
        MASK_ON_ALL: (G @ W + G) * used})


def _compare_masked(trial: Trial, what: str, value: np.ndarray, right: np.ndarray,
                    twins: dict[Diagnosis, np.ndarray]) -> None:
    """As `compare`; what no twin explains was made with a mask that forward did not use."""
    try:
        trial.compare(what, value, right, twins)
    except Found as found:
        if found.diagnosis.mistake != "values":
            raise
        raise Found(OTHER_MASK, found.diagnosis.seen + " Without dropout it was right.") from None


@EXERCISE.test(4, "behaviour", "backward follows forward, not the flag, and replaces gradients")
def _flag(trial: Trial) -> None:
    x, W, G = _ones(trial, (16,)), _frozen(trial), trial.normal(16, N, seed=4)
    layer = _glass_layer(trial)
    used = trial.call(layer.forward, x, W)
    layer.training = False
    back = trial.call(layer.backward, G)
    if not trial.agrees(back, G * used):
        raise Found(FLAG_IN_BACKWARD, "training was set to False between forward and backward.")
    trial.replaces_gradients(layer, ("A", "B"), lambda: trial.call(layer.backward, G))


@EXERCISE.test(4, "behaviour", "float32 stays float32 in backward")
def _backward_dtype(trial: Trial) -> None:
    single = Trial(trial.student, np.float32)
    layer, _ = _layer(single, 0.5)
    single.call(layer.forward, single.normal(2, IN), single.normal(OUT, IN))
    back = single.call(layer.backward, single.normal(2, OUT))
    single.keeps_dtype("backward in training", back,
                        *trial.arrays(layer, ("A", "B"), "gradients").values())


# ---- Step 5: merging --------------------------------------------------------------------------

@EXERCISE.test(5, "values", "the merged weight is W + s B A")
def _merge(trial: Trial) -> None:
    layer, arrays = _layer(trial, 0.6)
    W = trial.normal(OUT, IN, seed=3)
    update, s = arrays["B"] @ arrays["A"], ALPHA_VALUE / RANK
    first, second = (trial.call(layer.merge_weights, W, shape=W.shape) for _ in range(2))
    if not trial.agrees(first, second):
        raise Found(MERGED_MASK, "Merging twice gave two different weights.")
    trial.compare("the merged weight", first, W + s * update, {
        MERGED_RATE: W + s * (1 - 0.6) * update, ALPHA: W + ALPHA_VALUE * update,
        MERGED_MASK: W})


@EXERCISE.test(5, "values", "merging keeps float32")
def _merge_dtype(trial: Trial) -> None:
    single = Trial(trial.student, np.float32)
    layer, _ = _layer(single, 0.0)
    single.keeps_dtype("merge_weights", layer.merge_weights(single.normal(OUT, IN)))


@EXERCISE.test(5, "behaviour", "training leaves the merged weight and the frozen weight alone")
def _merge_after(trial: Trial) -> None:
    layer, arrays = _layer(trial, 0.6)
    W, x = trial.normal(OUT, IN, seed=3), trial.normal(4, IN, seed=2)
    before = trial.call(layer.merge_weights, W)
    layer.training = True
    trial.call(layer.forward, x, W)
    if not trial.agrees(trial.call(layer.merge_weights, W), before):
        raise Found(MERGED_MASK, "A forward pass in training changed the merged weight.")
    arrays["A"] *= 2
    if trial.agrees(trial.call(layer.merge_weights, W), before):
        raise Found(GENERAL["dead-parameters"], "A was doubled, and nothing changed.")


def check_lora_dropout(student: type, step: int | None = None, *,
                       dtype: Any = np.float64) -> Report:
    """Check a `LoRADropoutLayer`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
