"""Exercise 4, a prefix from an MLP: the tests. Reading them spoils the exercise."""

from typing import Any

import numpy as np

import peft
from checking import GENERAL, Diagnosis, Exercise, Found, Report, Trial

NO_LEARNING = Diagnosis(
    "zero-start", "a start from which most of it never learns",
    "Each gradient contains the matrices after it and the activations before it as factors. Where "
    "all of those are zero, so is the gradient, for ever.", "9.2")
EQUAL_TOKENS = Diagnosis(
    "equal-tokens", "virtual tokens that all start the same",
    "Tokens that start equal get equal updates as long as they are treated alike. They need "
    "different rows in E to become different.", "9.4")
IGNORES_RNG = Diagnosis(
    "ignores-rng", "a random start that does not come from rng",
    "Two objects made from the same seed must start with the same numbers, or no run can be "
    "repeated.", "statement")
STORED_FOR_TRAINED = Diagnosis(
    "stored-for-trained", "the stored numbers counted as the trained ones",
    "num_parameters() says what the optimizer has to keep states for: everything in "
    "parameters(). What is stored after training is the other count, that of to_prefix().",
    "statement")
NO_TANH = Diagnosis(
    "no-tanh", "an MLP without its nonlinearity",
    "Two linear maps in a row are one linear map. The hidden layer then adds parameters and "
    "nothing that one matrix could not do.", "statement")
OTHER_NONLINEARITY = Diagnosis(
    "other-nonlinearity", "another nonlinearity than tanh",
    "The statement, like Li and Liang, uses tanh, and the factor in backward is its derivative.",
    "statement")
TANH_ON_OUTPUT = Diagnosis(
    "tanh-on-output", "a tanh on the output as well",
    "Keys and values must be able to take any size. A tanh at the end keeps them between -1 "
    "and 1.", "statement")
NO_BIAS = Diagnosis(
    "bias-missing", "a bias that is in parameters() but not in the output",
    "Then its gradient is zero, it is trained for nothing, and the count is too large.",
    "statement")
SWAPPED = Diagnosis(
    "keys-values-swapped", "keys and values swapped",
    "On the axis of length 2 the key comes first, then the value. Swapped, training still runs, "
    "and a prefix loaded from elsewhere does nonsense.", "9.4")
KV_OUTSIDE = Diagnosis(
    "layers-inside", "all keys first and then all values, instead of key and value of each layer",
    "Row p of F is read as (L, 2, H, dh): layers outermost. Read as (2, L, H, dh), layer 1 gets "
    "what belongs to others.", "statement")
NO_MOVE = Diagnosis(
    "reshaped-not-moved", "a reshape where axes have to be moved",
    "reshape keeps the order of the numbers in memory. To bring the tokens from the first place "
    "to the third, the axes themselves have to change places, or tokens and layers are mixed.",
    "9.4")
HEADS_INSIDE = Diagnosis(
    "heads-swapped", "heads and their width swapped",
    "The last axes are (H, dh): a head's numbers lie side by side. The other way round every head "
    "gets a bit of all of them.", "9.4")
NO_SLOPE = Diagnosis(
    "no-tanh-slope", "a backward without the derivative of tanh",
    "The gradient passes through tanh on its way to W1, b1 and E, so it is multiplied by tanh's "
    "derivative there.", "9.6")
WRONG_SLOPE = Diagnosis(
    "wrong-tanh-slope", "a wrong derivative of tanh",
    "The derivative is 1 - T^2 with T the value *after* tanh. 1 - T is another function, and a "
    "second tanh does not belong there.", "9.6")
MEAN_OVER_TOKENS = Diagnosis(
    "mean-over-tokens", "a mean over the virtual tokens where a sum belongs",
    "Every token uses the same MLP, so what they ask of it adds up. A mean makes the gradient P "
    "times too small.", "9.4")
BACKWARD_LAYOUT = Diagnosis(
    "layout-in-backward", "another layout in backward than in forward",
    "Backward undoes forward's rearrangement step by step, in reverse. The shapes fit either way, "
    "so only the numbers show it.", "9.4")
UNFILLED = Diagnosis(
    "prefix-unfilled", "a prefix that does not hold the MLP's numbers",
    "A fresh peft.PrefixTuning has small random numbers of its own. Kept like that, everything "
    "that was trained is lost.", "statement")
NOT_A_PREFIX = Diagnosis(
    "mlp-kept", "a prefix that still holds the MLP",
    "The MLP is only for training. What is stored afterwards is a peft.PrefixTuning with 2 L P H "
    "dh numbers; otherwise the file is many times as large as it has to be.", "statement")
ALIAS = Diagnosis(
    "prefix-not-copied", "a prefix that shares its memory with the MLP",
    "to_prefix() is a snapshot. If later training or a later forward pass changes it, a saved best "
    "version is no longer the best.", "statement")
STALE = Diagnosis(
    "stale-prefix", "a prefix with the numbers of an earlier forward pass",
    "The optimizer has changed the arrays since. to_prefix() must hold what the MLP gives now.",
    "statement")

EXERCISE = Exercise(
    4, "A prefix from an MLP", NO_LEARNING, EQUAL_TOKENS, IGNORES_RNG, STORED_FOR_TRAINED, NO_TANH,
    OTHER_NONLINEARITY, TANH_ON_OUTPUT, NO_BIAS, SWAPPED, KV_OUTSIDE, NO_MOVE, HEADS_INSIDE,
    NO_SLOPE, WRONG_SLOPE, MEAN_OVER_TOKENS, BACKWARD_LAYOUT, UNFILLED,
    NOT_A_PREFIX, ALIAS, STALE)

NAMES = ("E", "W1", "b1", "W2", "b2")
L, H, DH, P, WIDTH, HIDDEN = 3, 2, 5, 4, 6, 7  # no two products of these are mistaken easily
F = 2 * L * H * DH
SHAPES = {"E": (P, WIDTH), "W1": (HIDDEN, WIDTH), "b1": (HIDDEN,), "W2": (F, HIDDEN), "b2": (F,)}
PREFIX = (L, 2, P, H, DH)
TRAINED = sum(int(np.prod(shape)) for shape in SHAPES.values())
STORED = 2 * L * P * H * DH


def _mlp(trial: Trial, random: bool = True) -> tuple[Any, dict[str, np.ndarray]]:
    """A student's MLP and its parameters, all of them random."""
    mlp = trial.make(L, H, DH, prefix_length=P, embed_dim=WIDTH, hidden_dim=HIDDEN,
                     dtype=trial.dtype, rng=trial.rng(seed=1))
    arrays = trial.arrays(mlp, NAMES)
    if random:
        for number, name in enumerate(NAMES):
            arrays[name][...] = 0.6 * trial.normal(*SHAPES[name], seed=20 + number)
    return mlp, arrays


def _laid_out(rows: np.ndarray) -> np.ndarray:
    """(P, 2 L H dh) -> (L, 2, P, H, dh)."""
    return rows.reshape(P, L, 2, H, DH).transpose(1, 2, 0, 3, 4)


def _layouts(rows: np.ndarray) -> dict[Diagnosis, np.ndarray]:
    """The same rows in every wrong layout."""
    return {SWAPPED: _laid_out(rows)[:, ::-1],
            KV_OUTSIDE: rows.reshape(P, 2, L, H, DH).transpose(2, 1, 0, 3, 4),
            NO_MOVE: rows.reshape(PREFIX),
            HEADS_INSIDE: rows.reshape(P, L, 2, DH, H).transpose(1, 2, 0, 4, 3)}


def _output(a: dict[str, np.ndarray], bend: Any = np.tanh, b1: float = 1.0, b2: float = 1.0
            ) -> np.ndarray:
    return bend(a["E"] @ a["W1"].T + b1 * a["b1"]) @ a["W2"].T + b2 * a["b2"]


# ---- Step 1: the arrays -----------------------------------------------------------------------

@EXERCISE.test(1, "interface", "the MLP can be made and trains E, W1, b1, W2 and b2")
def _names(trial: Trial) -> None:
    trial.arrays(trial.make(L, H, DH), NAMES)
    _mlp(trial, random=False)


@EXERCISE.test(1, "interface", "sizes that make no sense are refused")
def _sizes(trial: Trial) -> None:
    for bad in ({"prefix_length": 0}, {"embed_dim": 0}, {"embed_dim": -1}, {"hidden_dim": 0},
                {"hidden_dim": 2.5}):
        trial.refuses(str(bad), lambda bad=bad: trial.make(L, H, DH, **bad))


@EXERCISE.test(1, "shapes", "the five arrays have their shapes, in the dtype asked for")
def _shapes(trial: Trial) -> None:
    for dtype in (np.float32, np.float64):
        mlp = trial.make(L, H, DH, P, WIDTH, HIDDEN, dtype=dtype, rng=trial.rng())
        for name, array in trial.arrays(mlp, NAMES).items():
            trial.expect(name, array, shape=SHAPES[name])
            if array.dtype != dtype:
                raise Found(GENERAL["wrong-dtype"], f"dtype={np.dtype(dtype)} was asked for, "
                                                    f"{name} is {array.dtype}.")


@EXERCISE.test(1, "shapes", "num_parameters() counts what is trained")
def _count(trial: Trial) -> None:
    count = trial.call(_mlp(trial)[0].num_parameters, returns=(int, np.integer))
    if count == STORED:
        raise Found(STORED_FOR_TRAINED, f"num_parameters() gave {count}: the size of the prefix.")
    if count != TRAINED:
        raise Found(GENERAL["values"], f"num_parameters() gave {count}, the arrays of "
                                       f"parameters() have {TRAINED} numbers.")


@EXERCISE.test(1, "start", "a random start from rng that can learn")
def _start(trial: Trial) -> None:
    _, one = _mlp(trial, random=False)
    _, two = _mlp(trial, random=False)
    for name in NAMES:
        if not np.array_equal(one[name], two[name]):
            raise Found(IGNORES_RNG, f"{name} differs between two objects made from one seed.")
    if np.array_equal(one["E"], np.broadcast_to(one["E"][:1], one["E"].shape)):
        if one["E"].any():
            raise Found(EQUAL_TOKENS, "All rows of E are equal.")
        raise Found(NO_LEARNING, "E holds zeros only.")
    if not one["W1"].any() or not one["W2"].any():
        raise Found(NO_LEARNING, "W1 or W2 holds zeros only.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "shapes", "forward gives (L, 2, P, H, dh)")
def _forward_shape(trial: Trial) -> None:
    trial.call(_mlp(trial)[0].forward, shape=PREFIX)


@EXERCISE.test(2, "values", "each number of b2 appears where the layout says")
def _layout(trial: Trial) -> None:
    mlp, arrays = _mlp(trial)
    for array in arrays.values():
        array[...] = 0
    arrays["b2"][...] = np.arange(F)
    rows = np.tile(np.arange(F, dtype=trial.dtype), (P, 1))
    trial.compare("the prefix made of b2 alone", trial.call(mlp.forward), _laid_out(rows),
                  _layouts(rows) | {NO_BIAS: np.zeros(PREFIX)})


@EXERCISE.test(2, "values", "the numbers are those of the MLP")
def _values(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    rows = _output(a)
    trial.compare("the prefix", trial.call(mlp.forward), _laid_out(rows), _layouts(rows) | {
        NO_TANH: _laid_out(_output(a, lambda z: z)),
        OTHER_NONLINEARITY: _laid_out(_output(a, lambda z: np.maximum(z, 0))),
        TANH_ON_OUTPUT: _laid_out(np.tanh(rows)),
        NO_BIAS: _laid_out(_output(a, b1=0)),
        **{Diagnosis(**{**vars(OTHER_NONLINEARITY), "seen": str(i)}): _laid_out(_output(a, bend))
           for i, bend in enumerate((lambda z: 1 / (1 + np.exp(-z)),  # a sigmoid
                                     lambda z: z / (1 + np.exp(-z))))}})  # silu


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.refuses("backward before forward", lambda: mlp.backward(trial.normal(*PREFIX)),
                  (RuntimeError,), GENERAL["backward-first"])


@EXERCISE.test(3, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.call(mlp.forward)
    trial.call(mlp.backward, trial.normal(*PREFIX, seed=3), returns=None)
    for name, grad in trial.arrays(mlp, NAMES, "gradients").items():
        trial.expect(f"the gradient of {name}", grad, shape=SHAPES[name])


def _right(a: dict[str, np.ndarray], Q: np.ndarray, slope: Any = None) -> dict[str, np.ndarray]:
    """The gradients for a gradient of the output rows, (P, 2 L H dh)."""
    T = np.tanh(a["E"] @ a["W1"].T + a["b1"])
    R = (Q @ a["W2"]) * (1 - T * T if slope is None else slope(T))
    return {"b2": Q.sum(axis=0), "W2": Q.T @ T, "b1": R.sum(axis=0), "W1": R.T @ a["E"],
            "E": R @ a["W1"]}


@EXERCISE.test(3, "gradients", "the gradients of all five arrays")
def _gradients(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    G = trial.normal(*PREFIX, seed=3)
    trial.call(mlp.forward)
    trial.call(mlp.backward, G, returns=None)
    found = trial.arrays(mlp, NAMES, "gradients")
    Q = G.transpose(2, 0, 1, 3, 4).reshape(P, F)
    right = _right(a, Q)
    moved = [G.reshape(P, F), G[:, ::-1].transpose(2, 0, 1, 3, 4).reshape(P, F),
             G.transpose(1, 2, 0, 3, 4).reshape(P, F),  # forward's transpose once more
             G.transpose(2, 1, 0, 3, 4).reshape(P, F), G.transpose(2, 0, 1, 4, 3).reshape(P, F)]
    slopes = {NO_SLOPE: np.ones_like, WRONG_SLOPE: lambda T: 1 - T}
    slopes |= {Diagnosis(**{**vars(WRONG_SLOPE), "seen": str(i)}): slope for i, slope in enumerate(
        (lambda T: 1 - np.tanh(T) ** 2, lambda T: T, lambda T: 1 + T * T))}
    for name in right:  # from the output backwards: the first wrong one is where the mistake is
        twins = {Diagnosis(**{**vars(BACKWARD_LAYOUT), "seen": str(i)}): _right(a, wrong)[name]
                 for i, wrong in enumerate(moved)}
        twins |= {d: _right(a, Q, slope)[name] for d, slope in slopes.items()}
        twins[MEAN_OVER_TOKENS] = right[name] / P
        trial.compare(f"the gradient of {name}", found[name], right[name], twins)


@EXERCISE.test(3, "behaviour", "backward replaces the gradients")
def _replaces(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    G = trial.normal(*PREFIX, seed=3)
    trial.call(mlp.forward)
    trial.call(mlp.backward, G, returns=None)
    trial.replaces_gradients(mlp, NAMES, lambda: trial.call(mlp.backward, G, returns=None))


@EXERCISE.test(3, "behaviour", "an optimizer that updates parameters() in place changes the prefix")
def _live(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    before = trial.call(mlp.forward).copy()
    for name in NAMES:
        a[name] *= 1.5
        after = trial.call(mlp.forward)
        if trial.agrees(after, before):
            raise Found(GENERAL["dead-parameters"], f"{name} was changed, and the prefix was not.")
        before = after.copy()


@EXERCISE.test(3, "behaviour", "dtypes stay as they are")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        mlp = each.make(L, H, DH, P, WIDTH, HIDDEN, dtype=each.dtype, rng=each.rng())
        each.keeps_dtype("forward", each.call(mlp.forward))
        each.call(mlp.backward, each.normal(*PREFIX), returns=None)
        each.keeps_dtype("backward", *each.arrays(mlp, NAMES, "gradients").values())


# ---- Step 4: the prefix that is kept ----------------------------------------------------------

@EXERCISE.test(4, "interface", "to_prefix() gives a peft.PrefixTuning of the stored size")
def _to_prefix(trial: Trial) -> None:
    prefix = trial.call(_mlp(trial)[0].to_prefix, returns=peft.PrefixTuning)
    if set(prefix.parameters()) != {"prefix"}:
        raise Found(NOT_A_PREFIX, f"The result has {prefix.num_parameters()} numbers to store, a "
                                  f"prefix of this size has {STORED}.")
    if any(np.array_equal(array, value) for array in _mlp(trial)[1].values()
           for value in vars(prefix).values() if isinstance(value, np.ndarray)):
        raise Found(NOT_A_PREFIX, "Arrays of the MLP are attributes of the result.")
    trial.expect("the prefix", prefix.prefix, shape=PREFIX)


@EXERCISE.test(4, "values", "it holds what the MLP gives now")
def _now(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    old = trial.call(mlp.forward).copy()
    a["b2"] += 1
    value = trial.call(mlp.to_prefix, returns=peft.PrefixTuning).prefix
    right = _laid_out(_output(a))
    if np.abs(value).max() < 0.2:  # a fresh prefix: peft.INIT_STD is 0.01
        raise Found(UNFILLED, f"Its largest number is {np.abs(value).max():.2g}, the MLP's is "
                              f"{np.abs(right).max():.2g}.")
    trial.compare("the prefix of to_prefix()", value, right, {STALE: old})
    fresh, b = _mlp(trial)
    trial.compare("the prefix of to_prefix() before any forward",
                  trial.call(fresh.to_prefix, returns=peft.PrefixTuning).prefix,
                  _laid_out(_output(b)))


@EXERCISE.test(4, "gradients", "a whole batch that uses the prefix trains the MLP")
def _batch(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    trial.call(mlp.forward)
    prefix = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    keys, grad = trial.normal(3, 2, H, DH, seed=5), trial.normal(L, 2, 3, P + 2, H, DH, seed=6)
    for layer in range(L):
        prefix.forward(keys, keys, layer)
        prefix.backward(*grad[layer], layer)
    trial.call(mlp.backward, prefix.prefix_grad, returns=None)
    rows = prefix.prefix_grad.transpose(2, 0, 1, 3, 4).reshape(P, F)
    found = trial.arrays(mlp, NAMES, "gradients")
    for name, right in _right(a, rows).items():
        trial.compare(f"the gradient of {name}", found[name], right)


@EXERCISE.test(4, "behaviour", "it is a copy that later training does not change")
def _copy(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    prefix = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    kept = prefix.prefix.copy()
    for array in a.values():
        array += 1
    trial.call(mlp.forward)
    if not np.array_equal(prefix.prefix, kept):
        raise Found(ALIAS, "The prefix changed when the MLP was trained on.")
    prefix = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    before = trial.call(mlp.forward).copy()
    prefix.prefix += 1
    if not np.array_equal(trial.call(mlp.forward), before):
        raise Found(ALIAS, "The MLP changed when the prefix was trained on.")


@EXERCISE.test(4, "behaviour", "the prefix keeps the dtype")
def _prefix_dtype(trial: Trial) -> None:
    for dtype in (np.float32, np.float64):
        mlp = trial.make(L, H, DH, P, WIDTH, HIDDEN, dtype=dtype, rng=trial.rng())
        got = trial.call(mlp.to_prefix, returns=peft.PrefixTuning).prefix.dtype
        if got != dtype:
            raise Found(GENERAL["wrong-dtype"], f"A {np.dtype(dtype)} MLP gave a {got} prefix.")


def check_prefix_mlp(student: type, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check a `PrefixMLP`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
