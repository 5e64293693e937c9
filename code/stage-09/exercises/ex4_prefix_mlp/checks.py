"""Exercise 4, a prefix from an MLP: the tests. Reading them spoils the exercise."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import peft
from exercises.harness.checking import (GENERAL, Exercise, Found, Report, Terms, Trial, Watch,
                                         activations)

EXERCISE = Exercise(4, "A prefix from an MLP")

NO_LEARNING = EXERCISE.mistake(
    "zero-start", "a start from which most of it never learns",
    "Each gradient contains the matrices after it and the activations before it as factors. Where "
    "all of those are zero, so is the gradient, for ever.", "9.2")
EQUAL_UNITS = EXERCISE.mistake(
    "equal-units", "hidden units that all start the same",
    "A hidden unit is a row of W1, a number of b1 and a column of W2. Units that agree in all of "
    "these get equal updates and stay equal, and many do no more than one.", "statement")
STORED_FOR_TRAINED = EXERCISE.mistake(
    "stored-for-trained", "the stored numbers counted as the trained ones",
    "num_parameters() says what the optimizer has to keep states for: everything in "
    "parameters(). What is stored after training is the other count, that of to_prefix().",
    "statement")
LAYOUT = EXERCISE.mistake(
    "layout", "numbers that stand in another layout",
    "reshape keeps the order of the numbers in memory; to bring an axis elsewhere, the axes "
    "themselves change places. Row p of F is (L, 2, H, dh): layers outermost, within a layer first "
    "all heads of the key. Where shapes agree by chance, only the numbers show it.", "9.4")
UNFILLED = EXERCISE.mistake(
    "prefix-unfilled", "a prefix that does not hold the MLP's numbers",
    "A fresh peft.PrefixTuning has small random numbers of its own. Kept like that, everything "
    "that was trained is lost.", "statement")
NOT_A_PREFIX = EXERCISE.mistake(
    "mlp-kept", "a prefix that still holds the MLP",
    "The MLP is only for training. What is stored afterwards is a peft.PrefixTuning with 2 L P H "
    "dh numbers; otherwise the file is many times as large as it has to be.", "statement")


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


def _laid_out(rows: np.ndarray, shape: tuple = PREFIX) -> np.ndarray:
    """(P, 2 L H dh) -> (L, 2, P, H, dh)."""
    L, _, P, H, DH = shape
    return rows.reshape(P, L, 2, H, DH).transpose(1, 2, 0, 3, 4)


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
    trial.starts_from_rng(lambda rng: trial.arrays(trial.make(**SIZES, rng=rng), NAMES),
                          free=NAMES)
    _, a = _mlp(trial, random=False)
    wide = trial.arrays(trial.make(L, H, DH, rng=trial.rng(1)), NAMES)  # with the default widths
    for name in ("W1", "W2"):
        if (std := wide[name].std()) > 0.3:
            raise Found(GENERAL["start-size"], f"{name} has a standard deviation of {std:.2g}.")
    if len(np.unique(a["E"], axis=0)) < P:
        raise Found(GENERAL["starts-alike"], "Rows of E are equal.")
    if not _before_tanh(a).any() and not a["W2"].any():
        raise Found(NO_LEARNING, "W2 is zero, and so is everything that comes out of tanh.")
    if len(np.unique(np.column_stack([a["W1"], a["b1"], a["W2"].T]), axis=0)) < HIDDEN:
        raise Found(EQUAL_UNITS, "Some agree in their row of W1, in b1 and in their column of W2.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "shapes", "forward gives (L, 2, P, H, dh)")
def _forward_shape(trial: Trial) -> None:
    for mlp, shape, _ in _large_and_small(trial):
        trial.call(mlp.forward, shape=shape)


@EXERCISE.test(2, "values", "the numbers are those of the MLP, in their layout")
def _values(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    _compare_prefix(trial, trial.call(mlp.forward), a)


def _compare_prefix(trial: Trial, prefix: np.ndarray, a: Arrays, when: str = "") -> None:
    """Measure a prefix in rows, that is as F."""
    trial.measure({"prefix in rows": _in_rows(prefix)}, _terms(a), None,
                  dict.fromkeys(_layouts(np.zeros((P, F))), LAYOUT), when)


@EXERCISE.test(2, "behaviour", "each forward makes the prefix anew from parameters()")
def _anew(trial: Trial) -> None:
    mlp, a = _mlp(trial)
    before = trial.call(mlp.forward)
    kept = before.copy()
    for name in NAMES:
        a[name] *= 1.5
        if not trial.agrees(trial.call(mlp.forward), _laid_out(_rows(a))):
            raise Found(GENERAL["kept"], f"After a change of {name} the prefix is wrong.")
    trial.same_bits("A prefix returned before", before, kept, GENERAL["kept"])


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.refuses_backward_first(mlp, trial.normal(*PREFIX))


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
    return G.transpose(2, 0, 1, 3, 4).reshape(G.shape[2], -1)


def _layouts(rows: np.ndarray) -> Arrays:
    """F as somebody finds it who has laid it out wrongly, by what was done."""
    made = {"F reshaped, not moved": rows.reshape(PREFIX),
            "F transposed and reshaped": rows.T.reshape(PREFIX),
            "F with keys and values swapped": _laid_out(rows)[:, ::-1],
            "F read as (2, L, H, dh)": rows.reshape(P, 2, L, H, DH).transpose(2, 1, 0, 3, 4),
            "F read as (L, H, 2, dh)": rows.reshape(P, L, H, 2, DH).transpose(1, 3, 0, 2, 4),
            "F read as (L, 2, dh, H)": rows.reshape(P, L, 2, DH, H).transpose(1, 2, 0, 4, 3)}
    right, split = _laid_out(rows), rows.reshape(P, L, 2, H, DH)
    for axes in ((1, 2, 3, 0, 4), (1, 2, 3, 4, 0), (1, 0, 2, 3, 4), (3, 1, 2, 0, 4)):
        where = ", ".join(np.take(["P", "L", "2", "H", "dh"], axes))
        made[f"F moved to ({where}) and reshaped"] = split.transpose(axes).reshape(PREFIX)
    for axis, what in ((0, "layers"), (2, "tokens"), (3, "heads"), (4, "numbers of a head")):
        made |= {f"F with its {what} reversed": np.flip(right, axis),
                 f"F with its {what} shifted by one": np.roll(right, 1, axis),
                 f"F with the mean of its {what} for all": right.mean(axis, keepdims=True)
                 + 0 * right}
    for axis, what in ((0, "layer"), (1, "half"), (2, "token"), (3, "head")):
        made |= {f"F's {what} {i} alone": right * np.equal.outer(
            np.arange(right.shape[axis]), i).reshape(-1, *[1] * (4 - axis))
                 for i in range(right.shape[axis])}
    return {what: _in_rows(prefix) for what, prefix in made.items()}


def _flow(at: Watch, a: Arrays, G: np.ndarray | None) -> Arrays:
    """The prefix or, if there is G, the gradients; every inner value passes through `at`."""
    b1 = at("b1", np.tile(a["b1"], (len(a["E"]), 1)))
    z = at("z", at("E W1", at("E", a["E"]) @ a["W1"].T) + b1)
    T = at("T", np.tanh(z), lambda: activations(z, "tanh(z)"))
    if G is None:
        return {"prefix in rows": T @ a["W2"].T + a["b2"]}
    rows = at("G", _in_rows(G))
    for_T = at("the gradient of T", rows @ a["W2"])
    for_z = at("the gradient of z", for_T * (1 - at("T²", T * T)))
    return {"b2": rows.sum(0), "W2": rows.T @ T, "b1": for_z.sum(0), "W1": for_z.T @ a["E"],
            "E": for_z @ a["W1"]}


def _terms(a: Arrays, G: np.ndarray | None = None) -> Terms:
    """The prefix, in rows, and if there is G, the gradient of the prefix, those of the arrays."""
    a = {name: array.astype(np.float64) for name, array in a.items()}  # copies: these stay
    Z, rows = _before_tanh(a), _rows(a)
    T, hidden, sigmoid = np.tanh(Z), Z - a["b1"], 1 / (1 + np.exp(-Z))
    nodes = {"P": ("", P), "T": ("pk", T), "W2": ("fk", a["W2"]), "b2": ("f", a["b2"]),
             "1": ("p", np.ones(P))}
    sums = {"prefix in rows": ("pf", [(("the product with W2",), "T W2"),
                                     (("the bias b2",), "1 b2")])}
    known = {"z": Z, "relu(z)": np.maximum(Z, 0), "sigmoid(z)": sigmoid, "silu(z)": Z * sigmoid,
             "T without b1": np.tanh(hidden), "T with b1 outside": np.tanh(hidden) + a["b1"],
             "tanh(F)": np.tanh(rows), **_layouts(rows)}
    if G is not None:
        nodes |= {"G": ("pf", _in_rows(G)), "slope": ("pk", 1 - T * T), "W1": ("ke", a["W1"]),
                  "E": ("pe", a["E"])}
        sums = {name: (axes, [((), product)]) for name, (axes, product) in {
            "b2": ("f", "G"), "W2": ("fk", "G T"), "b1": ("k", "G W2 slope"),
            "W1": ("ke", "G W2 slope E"), "E": ("pe", "G W2 slope W1")}.items()}  # as in backward
        known |= {"T (1 - T)": T * (1 - T), "1 - z²": 1 - Z * Z, "1 - T": 1 - T,
                  "1 + T²": 1 + T * T, "1 - tanh(T)²": 1 - np.tanh(T) ** 2}
        known |= {f"G{what[1:]}": wrong for what, wrong in _layouts(_in_rows(G)).items()}
        known |= {"G reshaped, not moved": G.reshape(P, F),
                  "G reshaped and transposed": G.reshape(F, P).T,
                  "G moved as in forward": G.transpose(1, 2, 0, 3, 4).reshape(P, F)}
        known |= {f"G with its axes as {axes}": G.transpose(2, *axes).reshape(P, F)
                  for axes in ((1, 0, 3, 4), (0, 3, 1, 4), (0, 1, 4, 3))}
    return Terms(nodes, sums, known, flow=lambda at: _flow(at, a, G))


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {name: np.empty(SHAPES[name]) for name in NAMES}
    _fill(trial, arrays)
    return _terms(arrays, trial.normal(*PREFIX, seed=3))


@EXERCISE.test(3, "gradients", "the gradients of all five arrays")
def _gradients(trial: Trial) -> None:
    mlp, a = _mlp(trial, random=False)
    start = {f"{name} of the start": array.copy() for name, array in a.items()}
    _fill(trial, a)
    G = trial.normal(*PREFIX, seed=3)
    terms = _terms(a, G)
    terms.known |= start
    trial.call(mlp.forward)
    trial.call(mlp.backward, G, returns=None)
    trial.measure(trial.arrays(mlp, NAMES, "gradients"), terms, None, {
        f"{what} in the place of G": LAYOUT for what in terms.known if what.startswith("G ")})


@EXERCISE.test(3, "behaviour", "backward uses the last forward and replaces the gradients")
def _again(trial: Trial) -> None:
    def build() -> tuple:
        mlp, a = _mlp(trial)
        return mlp, lambda x: mlp.forward(), lambda x, G: (
            _terms(a, G).right | {"output": _laid_out(_rows(a))})

    mlp, forward, wanted = build()
    G, (again, _) = trial.normal(*PREFIX, seed=3), _mlp(trial)
    trial.call(again.forward)
    trial.call(again.backward, G, returns=None)
    trial.replaces_gradients(again, NAMES, lambda: (
        trial.call(again.forward), trial.call(again.backward, G, returns=None)))
    trial.follows(mlp, NAMES, (PREFIX, PREFIX), wanted, forward)
    trial.keeps_apart(build, NAMES, PREFIX)
    for name, size in SIZES.items():
        trial.undisturbed(lambda: _mlp(trial)[0],
                          lambda name=name, size=size: trial.make(**SIZES | {name: size + 1}),
                          lambda mlp: trial.call(mlp.forward))


@EXERCISE.test(3, "behaviour", "dtypes stay as they are")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        mlp, a = _mlp(each)
        G = each.normal(*PREFIX, seed=3)
        right = _terms(a, G).right
        each.keeps_digits("forward", each.call(mlp.forward), _laid_out(_rows(a)))
        each.call(mlp.backward, G, returns=None)
        for name, grad in each.arrays(mlp, NAMES, "gradients").items():
            each.keeps_digits(f"the gradient of {name}", grad, right[name])


@EXERCISE.test(4, "arguments", "a gradient of another shape is refused")
def _other_shape(trial: Trial) -> None:
    mlp, _ = _mlp(trial)
    trial.refuses_gradients(lambda: trial.call(mlp.forward), mlp.backward, PREFIX,
                            (L, 2, P, DH, H), (P, L, 2, H, DH))  # as many numbers, elsewhere


@EXERCISE.test(3, "behaviour", "prefix and gradients are right where sizes are equal, too")
def _equal_sizes(trial: Trial) -> None:
    for sizes in ((2,) * len(SIZES), (1,) * len(SIZES), (2, 3, 4, 5, 130, 260)):
        mlp = trial.make(*sizes, dtype=trial.dtype, rng=trial.rng())
        (L, H, DH, P, *_), a = sizes, trial.arrays(mlp, NAMES)
        shape = L, 2, P, H, DH
        G = trial.normal(*shape, seed=3)
        output = trial.call(mlp.forward)
        trial.call(mlp.backward, G, returns=None)
        trial.holds(f"the sizes are {sizes}", trial.arrays(mlp, NAMES, "gradients") | {
            "output": output}, _flow(Watch(), a, G) | {"output": _laid_out(_rows(a), shape)})


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
    value = trial.call(mlp.to_prefix, returns=peft.PrefixTuning).prefix
    if np.abs(value).max() < 0.2:  # a fresh prefix: peft.INIT_STD is 0.01
        raise Found(UNFILLED, f"Its largest number is {np.abs(value).max():.2g}, the MLP's is "
                              f"{np.abs(_rows(a)).max():.2g}.")
    _compare_prefix(trial, value, a, " of to_prefix() before any forward")
    trial.call(mlp.forward)
    _fill(trial, a, seed=40)
    if not trial.agrees(trial.call(mlp.to_prefix, returns=peft.PrefixTuning).prefix,
                        _laid_out(_rows(a))):
        raise Found(GENERAL["kept"], "After an update, the prefix of to_prefix() is another.")


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
    trial.call(mlp.forward)
    trial.call(mlp.backward, trial.normal(*PREFIX, seed=3), returns=None)
    trial.keeps_gradients(mlp, NAMES, "to_prefix", mlp.to_prefix, GENERAL["kept"])
    if not np.array_equal(prefix.prefix, kept):
        raise Found(GENERAL["kept"], "The prefix changed when the MLP was trained on.")
    made = [trial.call(mlp.forward), *(trial.call(
        mlp.to_prefix, returns=peft.PrefixTuning).prefix for _ in range(2)), *a.values()]
    trial.own_memory("the prefix", made.pop(1), *made)
    second.prefix += 1
    if not trial.agrees(trial.call(mlp.forward), _laid_out(_rows(a))):
        raise Found(GENERAL["handed-out"], "The MLP changed when the prefix was trained on.")


@EXERCISE.test(4, "behaviour", "the prefix keeps the dtype")
def _prefix_dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        mlp, a = _mlp(each)
        prefix = each.call(mlp.to_prefix, returns=peft.PrefixTuning)
        each.keeps_digits("to_prefix", prefix.prefix, _laid_out(_rows(a)))


def check_prefix_mlp(student: type, step: int | None = None, *, dtype: Any = np.float64) -> Report:
    """Check a `PrefixMLP`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
