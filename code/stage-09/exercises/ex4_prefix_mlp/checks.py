"""Exercise 4, a prefix from an MLP: the tests. Reading them spoils the exercise."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import peft
from exercises.harness.checking import GENERAL, Diagnosis, Exercise, Found, Report, Terms, Trial

NO_LEARNING = Diagnosis(
    "zero-start", "a start from which most of it never learns",
    "Each gradient contains the matrices after it and the activations before it as factors. Where "
    "all of those are zero, so is the gradient, for ever.", "9.2")
EQUAL_TOKENS = Diagnosis(
    "equal-tokens", "virtual tokens that all start the same",
    "Tokens that start equal get equal updates as long as they are treated alike. They need "
    "different rows in E to become different.", "9.4")
EQUAL_UNITS = Diagnosis(
    "equal-units", "hidden units that all start the same",
    "A hidden unit is a row of W1, a number of b1 and a column of W2. Units that agree in all of "
    "these get equal updates and stay equal, and many do no more than one.", "statement")
IGNORES_RNG = Diagnosis(
    "ignores-rng", "a random start that does not come from rng",
    "Two objects made from the same seed must start with the same numbers, or no run can be "
    "repeated. Two from different seeds, or from no rng at all, must not.", "statement")
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
BIAS_OUTSIDE = Diagnosis(
    "bias-outside-tanh", "b1 added after the tanh instead of before",
    "Behind the tanh it only shifts the output, as b2 does already. Before it, it decides where "
    "each hidden unit bends.", "statement")
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
KV_INSIDE = Diagnosis(
    "heads-outside", "key and value head by head, instead of all heads of the key first",
    "Row p of F is read as (L, 2, H, dh): within a layer first come all heads of the key. Read as "
    "(L, H, 2, dh), head 1 gets what belongs to others.", "statement")
NO_MOVE = Diagnosis(
    "reshaped-not-moved", "a reshape where axes have to be moved",
    "reshape keeps the order of the numbers in memory. To bring the tokens from the first place "
    "to the third, the axes themselves have to change places, or tokens and layers are mixed.",
    "9.4")
HEADS_INSIDE = Diagnosis(
    "heads-swapped", "heads and their width swapped",
    "The last axes are (H, dh): a head's numbers lie side by side. The other way round every head "
    "gets a bit of all of them.", "9.4")
NOT_ANEW = Diagnosis(
    "forward-not-anew", "a forward that does not make its prefix anew from parameters()",
    "The optimizer writes into the arrays of parameters(), and the next forward has to use them. A "
    "prefix that was kept, or a copy of an array, stays behind.", "9.6")
REUSED = Diagnosis(
    "reused-buffer", "a forward that writes into the prefix that it returned before",
    "Whoever holds an earlier prefix, to compare or to store it, finds it changed.", "statement")
CHANGES_ITSELF = Diagnosis(
    "changes-parameters", "an array that changes although no optimizer was at work",
    "forward, backward and to_prefix() read the five arrays and leave them as they are. Updates "
    "are the optimizer's, and a second one hidden in here spoils them.", "9.6")
NO_SLOPE = Diagnosis(
    "no-tanh-slope", "a backward without the derivative of tanh",
    "The gradient passes through tanh on its way to W1, b1 and E, so it is multiplied by tanh's "
    "derivative there.", "statement")
WRONG_SLOPE = Diagnosis(
    "wrong-tanh-slope", "a wrong derivative of tanh",
    "The derivative is 1 - T^2 with T the value *after* tanh. 1 - T is another function, and a "
    "second tanh does not belong there.", "statement")
BEFORE_TANH = Diagnosis(
    "before-tanh", "the values before tanh where those after it belong",
    "T is what comes out of tanh. W2 was multiplied by T, and 1 - T^2 is the derivative only for "
    "that T.", "statement")
WRONG_SIGN = Diagnosis(
    "wrong-sign", "a gradient with the wrong sign",
    "The optimizer subtracts it. With the other sign each step makes the loss larger.", "statement")
ZERO_GRADIENT = Diagnosis(
    "zero-gradient", "a gradient that is zero throughout",
    "Each of the five arrays acts on the prefix. Where the gradient is zero, nothing is learned.",
    "statement")
MEAN_OVER_TOKENS = Diagnosis(
    "mean-over-tokens", "a mean over the virtual tokens where a sum belongs",
    "Every token uses the same MLP, so what they ask of it adds up. A mean makes the gradient P "
    "times too small.", "9.4")
BACKWARD_LAYOUT = Diagnosis(
    "layout-in-backward", "another layout in backward than in forward",
    "Backward undoes forward's rearrangement step by step, in reverse. The shapes fit either way, "
    "so only the numbers show it.", "9.4")
OLD_FORWARD = Diagnosis(
    "old-forward", "a backward that uses an older forward",
    "Each forward gives a new T, and backward needs that of the last one. What is kept from the "
    "first is right for one step only.", "9.6")
ACCUMULATES = replace(GENERAL["accumulates"], why=(
    "By the contract each backward replaces the gradients. Here the second one gave its own plus "
    "those of the first."))
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
    "stale-prefix", "a prefix with numbers from before the last update",
    "The optimizer has changed the arrays since. to_prefix() must hold what the MLP gives now.",
    "statement")

EXERCISE = Exercise(
    4, "A prefix from an MLP", NO_LEARNING, EQUAL_TOKENS, EQUAL_UNITS, IGNORES_RNG,
    STORED_FOR_TRAINED, NO_TANH, OTHER_NONLINEARITY, TANH_ON_OUTPUT, BIAS_OUTSIDE, NO_BIAS, SWAPPED,
    KV_OUTSIDE, KV_INSIDE, NO_MOVE, HEADS_INSIDE, NOT_ANEW, REUSED, CHANGES_ITSELF, NO_SLOPE,
    WRONG_SLOPE, BEFORE_TANH, WRONG_SIGN, ZERO_GRADIENT, MEAN_OVER_TOKENS, BACKWARD_LAYOUT,
    OLD_FORWARD, UNFILLED, NOT_A_PREFIX, ALIAS, STALE)

NAMES = ("E", "W1", "b1", "W2", "b2")
SIZES = {"num_layers": 3, "num_heads": 2, "d_head": 5, "prefix_length": 4, "embed_dim": 6,
         "hidden_dim": 7}  # no two products of these are mistaken easily
L, H, DH, P, WIDTH, HIDDEN = SIZES.values()
F = 2 * L * H * DH
Arrays = dict[str, np.ndarray]


def _shapes_for(L: int, H: int, dh: int, P: int = 10, e: int = 64, k: int = 512
                ) -> tuple[tuple, dict[str, tuple]]:
    """The shape of the prefix and those of the five arrays, with the statement's defaults."""
    F = 2 * L * H * dh
    return (L, 2, P, H, dh), {"E": (P, e), "W1": (k, e), "b1": (k,), "W2": (F, k), "b2": (F,)}


PREFIX, SHAPES = _shapes_for(*SIZES.values())
TRAINED = sum(int(np.prod(shape)) for shape in SHAPES.values())
STORED = int(np.prod(PREFIX))


def _mlp(trial: Trial, random: bool = True, seed: int | None = 1) -> tuple[Any, Arrays]:
    """A student's MLP and its parameters, all of them random."""
    mlp = trial.make(**SIZES, dtype=trial.dtype, rng=None if seed is None else trial.rng(seed))
    arrays = trial.arrays(mlp, NAMES)
    if random:
        _fill(trial, arrays)
    return mlp, arrays


def _fill(trial: Trial, arrays: Arrays, seed: int = 20) -> None:
    """New random numbers in all five arrays, in place as an optimizer does it."""
    for number, name in enumerate(NAMES):
        arrays[name][...] = 0.6 * trial.normal(*SHAPES[name], seed=seed + number)


def _large_and_small(trial: Trial) -> Iterator[tuple[Any, tuple, dict[str, tuple]]]:
    """An MLP of the usual sizes, one whose sizes are all 1, and the shapes of `_shapes_for`."""
    for sizes in (tuple(SIZES.values()), (1,) * len(SIZES)):
        yield trial.make(*sizes, dtype=trial.dtype, rng=trial.rng()), *_shapes_for(*sizes)


def _call(trial: Trial, mlp: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """`Trial.call` of a method; the five arrays must not change."""
    before = {name: array.copy() for name, array in trial.arrays(mlp, NAMES).items()}
    result = trial.call(getattr(mlp, method), *args, **kwargs)
    for name, array in trial.arrays(mlp, NAMES).items():
        trial.same_bits(f"After {method} the array {name}", array, before[name], CHANGES_ITSELF)
    return result


def _laid_out(rows: np.ndarray) -> np.ndarray:
    """(P, 2 L H dh) -> (L, 2, P, H, dh)."""
    return rows.reshape(P, L, 2, H, DH).transpose(1, 2, 0, 3, 4)


def _each(diagnosis: Diagnosis, *twins: np.ndarray) -> dict[Diagnosis, np.ndarray]:
    """Several wrong twins of one mistake, under keys that differ in what `compare` replaces."""
    return {replace(diagnosis, seen=str(i)): twin for i, twin in enumerate(twins)}


def _layouts(rows: np.ndarray) -> dict[Diagnosis, np.ndarray]:
    """The same rows in every wrong layout."""
    return {SWAPPED: _laid_out(rows)[:, ::-1],
            KV_OUTSIDE: rows.reshape(P, 2, L, H, DH).transpose(2, 1, 0, 3, 4),
            KV_INSIDE: rows.reshape(P, L, H, 2, DH).transpose(1, 3, 0, 2, 4),
            HEADS_INSIDE: rows.reshape(P, L, 2, DH, H).transpose(1, 2, 0, 4, 3),
            **_each(NO_MOVE, rows.reshape(PREFIX), rows.T.reshape(PREFIX))}


def _before_tanh(a: Arrays) -> np.ndarray:
    return a["E"] @ a["W1"].T + a["b1"]  # (P, k)


def _rows(a: Arrays, T: np.ndarray | None = None) -> np.ndarray:
    """F, (P, 2 L H dh), from the hidden values, by default the right ones."""
    return (np.tanh(_before_tanh(a)) if T is None else T) @ a["W2"].T + a["b2"]


# ---- Step 1: the arrays -----------------------------------------------------------------------

@EXERCISE.test(1, "interface", "the MLP can be made and trains E, W1, b1, W2 and b2")
def _names(trial: Trial) -> None:
    _mlp(trial, random=False)


@EXERCISE.test(4, "arguments", "sizes that make no sense are refused")
def _sizes(trial: Trial) -> None:
    for name in SIZES:
        for bad in (0, -1, 2.5):
            trial.refuses(f"{name}={bad}", lambda: trial.make(**SIZES | {name: bad}))


@EXERCISE.test(1, "shapes", "the five arrays have their shapes, in the dtype asked for")
def _shapes(trial: Trial) -> None:
    for each in trial.each_dtype():
        for mlp, _, shapes in _large_and_small(each):
            for name, array in trial.arrays(mlp, NAMES).items():
                trial.expect(name, array, shape=shapes[name])
                if array.dtype != each.dtype:
                    raise Found(GENERAL["wrong-dtype"], f"dtype={each.dtype} was asked for, "
                                                        f"{name} is {array.dtype}.")
    for name, array in trial.arrays(trial.make(L, H, DH), NAMES).items():
        wanted = _shapes_for(L, H, DH)[1][name]
        if (array.shape, array.dtype) != (wanted, np.float32):
            raise Found(GENERAL["signature"], f"By default {name} is {array.dtype} of shape "
                                              f"{array.shape}, expected float32 of {wanted}.")


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
    def same(seed: int | None, other: int | None) -> list[bool]:
        one, two = (_mlp(trial, random=False, seed=s)[1] for s in (seed, other))
        return [np.array_equal(one[name], two[name]) for name in NAMES]

    if not all(same(1, 1)):
        raise Found(IGNORES_RNG, f"{NAMES[same(1, 1).index(False)]} differs between two objects "
                                 "made from one seed.")
    for what, pair in (("from two seeds", (1, 2)), ("without an rng", (None, None))):
        if all(same(*pair)):
            raise Found(IGNORES_RNG, f"Two objects made {what} start the same.")
    _, a = _mlp(trial, random=False)
    wide = trial.arrays(trial.make(L, H, DH, rng=trial.rng(1)), NAMES)  # with the default widths
    for name in ("W1", "W2"):
        if (std := wide[name].std()) > 0.3:
            raise Found(GENERAL["start-size"], f"{name} has a standard deviation of {std:.2g}.")
    if len(np.unique(a["E"], axis=0)) < P:
        raise Found(EQUAL_TOKENS, "Rows of E are equal.")
    if not _before_tanh(a).any() and not a["W2"].any():
        raise Found(NO_LEARNING, "W2 is zero, and so is everything that comes out of tanh.")
    if len(np.unique(np.column_stack([a["W1"], a["b1"], a["W2"].T]), axis=0)) < HIDDEN:
        raise Found(EQUAL_UNITS, "Some agree in their row of W1, in b1 and in their column of W2.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "shapes", "forward gives (L, 2, P, H, dh)")
def _forward_shape(trial: Trial) -> None:
    for mlp, shape, _ in _large_and_small(trial):
        trial.call(mlp.forward, shape=shape)


@EXERCISE.test(2, "values", "each number of b2 appears where the layout says")
def _layout(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    for array in a.values():
        array[...] = 0
    a["b2"][...] = np.arange(F)
    rows, value = _rows(a), trial.call(mlp.forward)
    right = _laid_out(rows)
    try:
        trial.compare("the prefix made of b2 alone", value, right, {
            **_layouts(rows), NO_BIAS: np.zeros(PREFIX), TANH_ON_OUTPUT: _laid_out(np.tanh(rows))})
    except Found as error:
        if error.diagnosis.mistake != "values":
            raise
        place = np.unravel_index(np.abs(value - right).argmax(), PREFIX)
        raise Found(GENERAL["values"], f"With b2 = 0, 1, 2, ... and all else zero, prefix"
                                       f"{[int(i) for i in place]} is {value[place]:g}, expected "
                                       f"{right[place]:g}.") from None


@EXERCISE.test(2, "values", "the numbers are those of the MLP")
def _values(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    Z, rows = _before_tanh(a), _rows(a)
    sigmoid = 1 / (1 + np.exp(-Z))
    others = (np.maximum(Z, 0), sigmoid, Z * sigmoid)  # relu, sigmoid, silu
    trial.compare("the prefix", _call(trial, mlp, "forward"), _laid_out(rows), {
        **_layouts(rows), NO_TANH: _laid_out(_rows(a, Z)),
        **_each(OTHER_NONLINEARITY, *(_laid_out(_rows(a, T)) for T in others)),
        TANH_ON_OUTPUT: _laid_out(np.tanh(rows)),
        NO_BIAS: _laid_out(_rows(a, np.tanh(Z - a["b1"]))),
        BIAS_OUTSIDE: _laid_out(_rows(a, np.tanh(Z - a["b1"]) + a["b1"]))})


@EXERCISE.test(2, "behaviour", "each forward makes the prefix anew from parameters()")
def _anew(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    before = trial.call(mlp.forward)
    for name in NAMES:
        kept = before.copy()
        a[name] *= 1.5
        after = trial.call(mlp.forward)
        trial.compare(f"the prefix after a change of {name}", after, _laid_out(_rows(a)),
                      {NOT_ANEW: kept})
        trial.same_bits("A prefix returned before", before, kept, REUSED)
        before = after


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.refuses("backward before forward", lambda: mlp.backward(trial.normal(*PREFIX)),
                  (RuntimeError,), GENERAL["backward-first"])


@EXERCISE.test(3, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for mlp, prefix, shapes in _large_and_small(trial):
        trial.call(mlp.forward)
        back = trial.call(mlp.backward, trial.normal(*prefix, seed=3), returns=None)
        if back is not None:
            raise Found(GENERAL["wrong-type"], f"backward gave {type(back).__name__}, expected "
                                               "None: there is no input.")
        for name, grad in trial.arrays(mlp, NAMES, "gradients").items():
            trial.expect(f"the gradient of {name}", grad, shape=shapes[name])


def _in_rows(G: np.ndarray) -> np.ndarray:
    """(L, 2, P, H, dh) -> (P, 2 L H dh)."""
    return G.transpose(2, 0, 1, 3, 4).reshape(P, F)


def _terms(a: Arrays, G: np.ndarray, T: np.ndarray | None = None) -> Terms:
    """The gradients for that of the prefix. `T` is tanh's output, by default that of now."""
    Z = _before_tanh(a)
    T = np.tanh(Z) if T is None else T
    nodes = {"P": ("", P), "G": ("pf", _in_rows(G)), "T": ("pk", T), "slope": ("pk", 1 - T * T),
             "W2": ("fk", a["W2"]), "W1": ("ke", a["W1"]), "E": ("pe", a["E"])}
    sums = {"b2": ("f", "G"), "W2": ("fk", "G T"), "b1": ("k", "G W2 slope"),
            "W1": ("ke", "G W2 slope E"), "E": ("pe", "G W2 slope W1")}  # in backward's order
    known = {"z": Z, "1 - z²": 1 - Z * Z, "1 - T": 1 - T, "1 + T²": 1 + T * T,
             "1 - tanh(T)²": 1 - np.tanh(T) ** 2}
    known |= {"G reshaped": G.reshape(P, F), "G reshaped and transposed": G.reshape(F, P).T,
              "G with keys and values swapped": _in_rows(G[:, ::-1]),
              "G moved as in forward": G.transpose(1, 2, 0, 3, 4).reshape(P, F)}
    known |= {f"G with its axes as {axes}": G.transpose(2, *axes).reshape(P, F)
              for axes in ((1, 0, 3, 4), (0, 3, 1, 4), (0, 1, 4, 3))}
    return Terms(nodes, {name: (axes, [((), product)]) for name, (axes, product) in sums.items()},
                 known)


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {name: np.empty(SHAPES[name]) for name in NAMES}
    _fill(trial, arrays)
    return _terms(arrays, trial.normal(*PREFIX, seed=3))


REASONS = {  # what measuring finds, where it has a name of its own
    "zero everywhere": ZERO_GRADIENT, "negated": WRONG_SIGN, "multiplied by 1/P": MEAN_OVER_TOKENS,
    "slope left out": NO_SLOPE, "slope": WRONG_SLOPE, "z in the place of T": BEFORE_TANH,
    "1 - z² in the place of slope": BEFORE_TANH, "G": BACKWARD_LAYOUT}


@EXERCISE.test(3, "gradients", "the gradients of all five arrays")
def _gradients(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    G = trial.normal(*PREFIX, seed=3)
    terms = _terms(a, G)
    trial.call(mlp.forward)
    _call(trial, mlp, "backward", G, returns=None)
    trial.measure(trial.arrays(mlp, NAMES, "gradients"), terms, None, REASONS)


@EXERCISE.test(3, "behaviour", "backward uses the last forward and replaces the gradients")
def _again(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    G, second = trial.normal(2, *PREFIX, seed=3)
    trial.call(mlp.forward)
    trial.call(mlp.backward, G, returns=None)
    grads = trial.arrays(mlp, NAMES, "gradients")
    first, T = {name: grad.copy() for name, grad in grads.items()}, np.tanh(_before_tanh(a))
    _fill(trial, a, seed=40)
    right, old = (_terms(a, second, kept).right for kept in (None, T))
    trial.call(mlp.forward)
    trial.call(mlp.backward, second, returns=None)
    found = trial.arrays(mlp, NAMES, "gradients")
    for name, grad in right.items():
        trial.compare(f"the gradient of {name} after an update and a second forward", found[name],
                      grad, {OLD_FORWARD: old[name], ACCUMULATES: first[name] + grad})

    def build() -> tuple:
        mlp, a = _mlp(trial)
        return mlp, lambda x: mlp.forward(), lambda x, G: (
            _terms(a, G).right | {"output": _laid_out(_rows(a))})

    mlp, forward, wanted = build()
    trial.follows(mlp, NAMES, (PREFIX, PREFIX), wanted, forward)
    trial.keeps_apart(build, NAMES, PREFIX)


@EXERCISE.test(3, "behaviour", "dtypes stay as they are")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        mlp, _ = _mlp(each)
        each.keeps_dtype("forward", each.call(mlp.forward))
        each.call(mlp.backward, each.normal(*PREFIX), returns=None)
        each.keeps_dtype("backward", *each.arrays(mlp, NAMES, "gradients").values())


@EXERCISE.test(4, "arguments", "a gradient of another shape is refused")
def _other_shape(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.call(mlp.forward)
    for shape in ((L, 2, P, DH, H), (P, L, 2, H, DH)):  # as many numbers, in other places
        trial.refuses(f"grad_prefix of shape {shape}", lambda: mlp.backward(trial.normal(*shape)))


# ---- Step 4: the prefix that is kept ----------------------------------------------------------

@EXERCISE.test(4, "interface", "to_prefix() gives a peft.PrefixTuning of the stored size")
def _to_prefix(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    prefix = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    if set(prefix.parameters()) != {"prefix"}:
        raise Found(NOT_A_PREFIX, f"The result has {prefix.num_parameters()} numbers to store, a "
                                  f"prefix of this size has {STORED}.")
    for name, value in vars(prefix).items():
        if value is mlp or any(np.array_equal(value, array) for array in a.values()):
            raise Found(NOT_A_PREFIX, f"Its attribute {name} is the MLP, or an array of it.")
        if name in SIZES and value != SIZES[name]:
            raise Found(GENERAL["wrong-shape"], f"{name} of the prefix is {value}, expected "
                                                f"{SIZES[name]}.")
    trial.expect("the prefix", prefix.prefix, shape=PREFIX)


@EXERCISE.test(4, "values", "it holds what the MLP gives now")
def _now(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    value = _call(trial, mlp, "to_prefix", returns=peft.PrefixTuning).prefix
    rows, T = _rows(a), np.tanh(_before_tanh(a))
    if np.abs(value).max() < 0.2:  # a fresh prefix: peft.INIT_STD is 0.01
        raise Found(UNFILLED, f"Its largest number is {np.abs(value).max():.2g}, the MLP's is "
                              f"{np.abs(rows).max():.2g}.")
    trial.compare("the prefix of to_prefix() before any forward", value, _laid_out(rows),
                  _layouts(rows))
    trial.call(mlp.forward)
    _fill(trial, a, seed=40)
    trial.compare("the prefix of to_prefix() after an update",
                  trial.call(mlp.to_prefix, returns=peft.PrefixTuning).prefix, _laid_out(_rows(a)),
                  _each(STALE, _laid_out(rows), _laid_out(_rows(a, T))))


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
    trial.measure(trial.arrays(mlp, NAMES, "gradients"), _terms(a, prefix.prefix_grad))


@EXERCISE.test(4, "behaviour", "it is a copy that later training does not change")
def _copy(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    prefix = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    kept = prefix.prefix.copy()
    _fill(trial, a, seed=40)
    second = trial.call(mlp.to_prefix, returns=peft.PrefixTuning)
    if not np.array_equal(prefix.prefix, kept):
        raise Found(ALIAS, "The prefix changed when the MLP was trained on.")
    second.prefix += 1
    if not trial.agrees(trial.call(mlp.forward), _laid_out(_rows(a))):
        raise Found(ALIAS, "The MLP changed when the prefix was trained on.")


@EXERCISE.test(4, "behaviour", "the prefix keeps the dtype")
def _prefix_dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        prefix = each.call(_mlp(each)[0].to_prefix, returns=peft.PrefixTuning)
        each.keeps_dtype("to_prefix", prefix.prefix)


def check_prefix_mlp(student: type, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check a `PrefixMLP`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
