"""Exercise 3, the parallel adapter: the tests. Reading them spoils the exercise."""

from typing import Any

import numpy as np

from exercises.harness.checking import (GENERAL, Exercise, Found, Report, Terms, Trial, Watch,
                                         activations, slopes)
from exercises.harness.layers import Layer, contract

EXERCISE = Exercise(3, "parallel adapter")

TRANSPOSED = EXERCISE.mistake(
    "transposed", "W_down or W_up stored the other way round",
    "The adapter's matrices are used as x W_down and a W_up, so W_down is (d_model, bottleneck) "
    "and W_up is (bottleneck, d_model), as in peft.Adapter.", "9.3")
NOT_IDENTITY = EXERCISE.mistake(
    "start-not-frozen", "a start that is not the sublayer alone",
    "With a scale of 4, even a small random W_up disturbs the pretrained model before the first "
    "step. Here the start is exact, and the statement says which matrix makes it so.", "statement")
OTHER_FORWARD = EXERCISE.mistake(
    "other-forward", "a sublayer that is given another input before its backward",
    "A sublayer goes back through the last forward that it was asked for. So it is asked once, for "
    "x, and for nothing else in between.", "9.6")
NEVER_LEARNS = EXERCISE.mistake(
    "never-learns", "W_down is zero at the start",
    "Then relu gives zero for every input, and its slope there is zero as well. Nothing comes "
    "through in either direction, and no gradient ever will.", "statement")
TRAINS_SUBLAYER = EXERCISE.mistake(
    "trains-sublayer", "a sublayer that is trained along",
    "The sublayer is frozen. Its weights belong neither in parameters() nor in the count.", "9.3")
SEQUENTIAL = EXERCISE.mistake(
    "reads-output", "an adapter that reads the sublayer's output",
    "That is the sequential adapter. A parallel one reads the sublayer's input, so that neither "
    "waits for the other.", "9.3")
BEFORE = EXERCISE.mistake(
    "before-sublayer", "an adapter in front of the sublayer",
    "Its output went into the sublayer. A parallel adapter's output is added to what the sublayer "
    "gives.", "9.3")
IN_PLACE = EXERCISE.mistake(
    "writes-into-sublayer", "adding into the array that the sublayer returned",
    "A sublayer may keep its output for its own backward, as tanh does. An operation such as += "
    "changes it behind the sublayer's back. What its backward returned is not yours either.",
    "statement")
RELU_AFTER = EXERCISE.mistake(
    "relu-after-up", "relu behind W_up instead of before it",
    "The nonlinearity stands in the bottleneck, between the two matrices. Behind them it would let "
    "the adapter add, and never take away.", "9.3")
FLATTENED = EXERCISE.mistake(
    "gradient-flattened", "an array that reaches the sublayer in another shape",
    "A sublayer may need its axes, as attention does. It gets x as it came, and the gradient in "
    "the shape of its output.", "statement")
NOT_RUN = EXERCISE.mistake(
    "sublayer-not-run", "another sublayer than the one that was passed in, or none",
    "The adapter accompanies the model's own sublayer. A copy of it takes the memory of its frozen "
    "weights a second time, and stays as it is when they are moved or quantized.", "statement")

D, M, SCALE, ROWS = 6, 5, 2.5, 8  # the scale is no whole number
NAMES = ("W_down", "W_up")
Arrays = dict[str, np.ndarray]


class Tanh:
    """A frozen sublayer, tanh(x W^T), that keeps what it returns. With `linear`, x W^T."""

    def __init__(self, W: np.ndarray, linear: bool):
        self.W, self.linear, self.y, self.untouched, self.back = W, linear, None, None, None
        self.x = np.empty(0)  # what the last forward was given

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x.copy()
        self.y = x @ self.W.T if self.linear else np.tanh(x @ self.W.T)
        self.untouched = self.y.copy()
        return self.y

    def backward(self, g: np.ndarray) -> np.ndarray:
        if g.shape != self.untouched.shape and g.size == self.untouched.size:
            raise Found(FLATTENED, f"The sublayer gave an output of shape {self.untouched.shape} "
                                   f"and got a gradient of shape {g.shape}.")
        self.back = self.pull(g)
        self.returned = self.back.copy()
        return self.back

    def pull(self, g: np.ndarray) -> np.ndarray:
        """The right gradient, whatever happened to `y`."""
        return (g if self.linear else g * (1 - self.untouched ** 2)) @ self.W


def _sublayer(trial: Trial, linear: bool = False, width: int = D) -> Tanh:
    return Tanh((0.5 * trial.normal(width, width, seed=20)).astype(trial.dtype), linear)


def _adapter(trial: Trial, number: int = 0, fill: bool = True, linear: bool = False) -> Layer:
    """A student's adapter beside a sublayer, with random parameters if `fill`."""
    sublayer = _sublayer(trial, linear)
    adapter = trial.make(sublayer, D, M, SCALE, dtype=trial.dtype, rng=trial.rng(1))
    arrays = trial.arrays(adapter, NAMES)
    for number, name in enumerate(NAMES if fill else ()):
        arrays[name][...] = 0.5 * trial.normal(*arrays[name].shape, seed=31 + number)
    return Layer(adapter, arrays, lambda x, G=None: _terms(sublayer, arrays, x, G),
                 {"weight of the sublayer": sublayer.W}, inside=sublayer)


def _flow(at: Watch, sublayer: Tanh, arrays: Arrays, x: np.ndarray, G: np.ndarray | None) -> Arrays:
    """The output and, if there is G, the gradients; every inner value passes through `at`."""
    own, (down, up) = Tanh(sublayer.W, sublayer.linear), arrays.values()
    z = at("z", at("x of the adapter", x) @ down)
    a = at("relu(z)", np.maximum(z, 0), lambda: activations(z, "relu(z)") | {
        "relu(x) W_down": np.maximum(x, 0) @ down})
    bottleneck = at("c relu(z) W_up", SCALE * a @ up, {
        "c relu(z W_up)": SCALE * np.maximum(z @ up, 0), "c z W_up": SCALE * z @ up})
    f = own.forward(at("x of the sublayer", x, {"x + c relu(z) W_up": x + bottleneck}))
    found = {"output": at("f(x)", f) + bottleneck}
    if G is None:
        return found
    G = at("G", G)
    for_z = at("the gradient of z", SCALE * at("the gradient of relu(z)", G @ up.T)
               * at("relu'(z)", (z > 0).astype(np.float64), lambda: slopes(z)))
    rows, z_rows = (array.reshape(-1, array.shape[-1]) for array in (x, for_z))
    return found | {"W_up": SCALE * a.reshape(len(rows), -1).T @ G.reshape(len(rows), -1),
                    "W_down": rows.T @ z_rows,
                    "x": own.pull(at("the gradient that the sublayer gets", G, {
                        "G + D W_down": G + for_z @ down.T, "c G": SCALE * G,
                        "D W_down": for_z @ down.T})) + for_z @ down.T}


def _terms(sublayer: Tanh, arrays: Arrays, x: np.ndarray, G: np.ndarray | None = None) -> Terms:
    """The output and, if there is G, the gradients as sums."""
    arrays = {name: arrays[name].astype(np.float64) for name in NAMES}  # copies: these stay
    own, (down, up) = Tanh(sublayer.W, sublayer.linear), arrays.values()
    f, z = own.forward(x), x @ down
    nodes = {"c": ("", SCALE), "4/c": ("", 4 / SCALE), "x": ("ni", x), "f(x)": ("no", f),
             "relu(z)": ("nm", np.maximum(z, 0)), "W_down": ("im", down), "W_up": ("mo", up)}
    known = {"z": z, "relu(f(x) W_down)": np.maximum(f @ down, 0)}
    sums = {"output": ("no", [(("the sublayer",), "f(x)"),
                              (("the adapter",), "c relu(z) W_up")])}
    if G is not None:
        nodes |= {"G": ("no", G), "f.backward(G)": ("ni", own.pull(G)),
                  "relu'(z)": ("nm", (z > 0).astype(x.dtype))}
        known["G W"] = G @ sublayer.W
        sums |= {"W_up": ("mo", [((), "c relu(z) G")]),
                 "W_down": ("im", [((), "c x G W_up relu'(z)")]),
                 "x": ("ni", [(("the sublayer",), "f.backward(G)"),
                              (("the adapter",), "c G W_up relu'(z) W_down")])}
    return Terms(nodes, sums, known, x.shape[:-1],
                 flow=lambda at: _flow(at, sublayer, arrays, x, G))


# ---- Step 1: the arrays and their start -------------------------------------------------------

@EXERCISE.test(1, "interface", "the adapter can be made and trains W_down and W_up, nothing else")
def _names(trial: Trial) -> None:
    sublayer = _sublayer(trial)
    adapter = trial.make(sublayer=sublayer, d_model=D, bottleneck_dim=M, scale=SCALE,
                         dtype=trial.dtype, rng=trial.rng())
    found = trial.expect("parameters()", adapter.parameters(), dict)
    if any(array is sublayer.W for array in found.values()):
        raise Found(TRAINS_SUBLAYER, "The sublayer's weight is in parameters().")
    trial.arrays(adapter, NAMES)
    trial.counts(adapter, 2 * D * M, {2 * D * M + D * D: TRAINS_SUBLAYER})


@EXERCISE.test(3, "arguments", "sizes below 1 and a scale not finite and positive are refused")
def _refusals(trial: Trial) -> None:
    trial.refuses("bottleneck_dim=0", lambda: trial.make(_sublayer(trial), D, 0))
    trial.refuses("d_model=0", lambda: trial.make(_sublayer(trial), 0, M))
    trial.make(_sublayer(trial), D, M, 2)
    for scale in (float("nan"), float("inf"), 0.0, -4.0):
        trial.refuses(f"scale={scale}", lambda: trial.make(_sublayer(trial), D, M, scale))


@EXERCISE.test(1, "shapes", "W_down is (d_model, bottleneck), W_up the reverse; dtype as asked")
def _shapes(trial: Trial) -> None:
    for each in trial.each_dtype():
        each.shaped(_adapter(each).arrays, {"W_down": (D, M), "W_up": (M, D)}, TRANSPOSED)
    trial.shaped(trial.arrays(trial.make(_sublayer(trial), D, 64, dtype=trial.dtype), NAMES),
                 {"W_down": (D, 64), "W_up": (64, D)})
    plain = trial.arrays(trial.make(_sublayer(trial), D), NAMES)["W_down"]
    if plain.shape != (D, 64) or plain.dtype != np.float32:
        raise Found(GENERAL["signature"], f"Made with sublayer and d_model={D} alone, W_down is "
                                          f"{plain.dtype} of shape {plain.shape}, expected float32 "
                                          f"of shape {(D, 64)}.")


@EXERCISE.test(1, "start", "W_up is zero, W_down is not and comes from rng")
def _start(trial: Trial) -> None:
    arrays = _adapter(trial, fill=False).arrays
    if not arrays["W_down"].any():
        raise Found(NEVER_LEARNS, "W_down holds zeros only.")
    if arrays["W_up"].any():
        raise Found(NOT_IDENTITY, "W_up is not zero in a fresh adapter.")
    trial.starts_from_rng(
        lambda rng: trial.arrays(trial.make(_sublayer(trial), D, M, rng=rng), NAMES))
    width = 256
    wide = trial.make(_sublayer(trial, width=width), width, dtype=trial.dtype, rng=trial.rng())
    trial.small_gaussian(f"At width {width} W_down", trial.arrays(wide, NAMES)["W_down"])


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "start", "a fresh adapter leaves the sublayer's output as it is")
def _identity(trial: Trial) -> None:
    adapter, x = _adapter(trial, fill=False), trial.normal(ROWS, D, seed=2)
    output = trial.call(adapter.forward, x)
    if adapter.inside.y is None:
        raise Found(NOT_RUN, "forward did not call the sublayer that was passed in.")
    trial.measure({"output": output}, adapter.terms(x), when=" at the start")


@EXERCISE.test(2, "values", "the output is f(x) plus the scaled bottleneck of x")
def _values(trial: Trial) -> None:
    adapter = _adapter(trial)
    sublayer, (down, up) = adapter.inside, adapter.arrays.values()

    def bottleneck(h: np.ndarray) -> np.ndarray:
        return np.maximum(h @ down, 0) @ up
    for x, _ in trial.inputs(ROWS, D):
        value, f = trial.call(adapter.forward, x), sublayer.untouched
        if sublayer.x.shape != x.shape:
            raise Found(FLATTENED, f"x has shape {x.shape}, the sublayer got {sublayer.x.shape}.")
        if not trial.agrees(sublayer.y, f):
            raise Found(IN_PLACE, "After your forward the array that the sublayer keeps has "
                                  "changed.")
        after = f + SCALE * np.maximum(x @ down @ up, 0)
        before = np.tanh((x + SCALE * bottleneck(x)) @ sublayer.W.T)
        trial.measure({"output": value}, adapter.terms(x),
                      {"output": [(BEFORE, before), (RELU_AFTER, after)]}, {
            "relu(f(x) W_down) in the place of relu(z)": SEQUENTIAL})
    right = {"output": Tanh(sublayer.W, False).forward(x) + 4 * bottleneck(x)}
    for scale in ((4.0,), ()):
        plain = trial.make(_sublayer(trial), D, M, *scale, dtype=trial.dtype)
        for name, array in trial.arrays(plain, NAMES).items():
            array[...] = {"W_down": down, "W_up": up}[name]
        found = {"output": trial.call(plain.forward, x)}
        if scale:  # or it is not the default that is wrong
            trial.holds("the scale is 4", found, right)
    if not trial.agrees(found["output"], right["output"]):
        raise Found(GENERAL["signature"], "Made without a scale, the adapter has another output "
                                          "than with the scale 4.")


# ---- Step 3: backward -------------------------------------------------------------------------

contract(EXERCISE, 3, _adapter, (M, ROWS), D, D, changed=TRAINS_SUBLAYER, other=lambda trial:
         trial.make(_sublayer(trial, width=D + 1), D + 1, M + 1, SCALE + 1))


@EXERCISE.test(3, "gradients", "with a linear sublayer")
def _linear(trial: Trial) -> None:
    for x, G in trial.inputs(ROWS, D):
        _gradients(trial, x, G, linear=True)


@EXERCISE.test(3, "gradients", "with a sublayer that has a nonlinearity")
def _nonlinear(trial: Trial) -> None:
    for x, G in trial.inputs(ROWS, D):
        _gradients(trial, x, G, linear=False)


def _gradients(trial: Trial, x: np.ndarray, G: np.ndarray, linear: bool) -> None:
    adapter = _adapter(trial, linear=linear)
    sublayer = adapter.inside
    if x.ndim > 1 and len(x) > 2:
        x = x.copy()
        x[0] = 0  # relu's input is exactly 0 there, and its slope is 0 as well
    terms = adapter.terms(x, G)
    trial.call(adapter.forward, x)
    if sublayer.x.size != x.size or not trial.agrees(sublayer.x.reshape(x.shape), x):
        raise Found(OTHER_FORWARD, "The sublayer's last forward before backward was one of "
                                   "another array than x, and that is the one it goes back.")
    found = adapter.back(trial, G)
    adapter.stays(trial, "after backward", TRAINS_SUBLAYER)
    if sublayer.back is not None and not trial.agrees(sublayer.back, sublayer.returned):
        raise Found(IN_PLACE, "After your backward the array that the sublayer's returned has "
                              "changed.")
    trial.measure(found, terms)


@EXERCISE.test(3, "behaviour", "sizes that are equal, or 1, and a small scale change nothing")
def _equal_sizes(trial: Trial) -> None:
    for n, m, scale in ((D, D, SCALE), (1, 1, SCALE), (D, D, 0.5), (30, 150, SCALE)):
        sublayer, rows = _sublayer(trial, width=n), n if n > 1 else ROWS
        x, G = (trial.normal(rows, n, seed=s) for s in (2, 3))
        adapter = trial.make(sublayer, n, m, scale, dtype=trial.dtype, rng=trial.rng(1))
        arrays = trial.arrays(adapter, NAMES)
        for array in arrays.values():
            array += 0.5 * trial.normal(*array.shape, seed=30)
        k = scale / SCALE  # a part of W_up for the right one's scale
        right = _flow(Watch(), sublayer, arrays | {"W_up": k * arrays["W_up"]}, x, G)
        trial.holds(f"d_model is {n}, the bottleneck {m} and the scale {scale}", Layer(
            adapter, arrays).run(trial, x, G), right | {"W_up": k * right["W_up"]},
            (lambda: _terms(sublayer, arrays, x, G)) if k == 1 else None)  # noqa: B023


@EXERCISE.test(3, "gradients", "in the first step that of W_down is zero and that of W_up is not")
def _first_step(trial: Trial) -> None:
    x, G = (trial.normal(ROWS, D, seed=seed) for seed in (2, 3))
    adapter = _adapter(trial, fill=False)
    trial.measure(adapter.run(trial, x, G), adapter.terms(x, G), when=" in the first step")


def check_parallel_adapter(student: type, step: int | None = None, *,
                           dtype: Any = np.float64) -> Report:
    """Check a `ParallelAdapter`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
