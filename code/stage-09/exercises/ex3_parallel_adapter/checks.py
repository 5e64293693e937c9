"""Exercise 3, the parallel adapter: the tests. Reading them spoils the exercise."""

from typing import Any

import numpy as np

from exercises.harness.checking import GENERAL, Diagnosis, Exercise, Found, Report, Terms, Trial

TRANSPOSED = Diagnosis(
    "transposed", "W_down or W_up stored the other way round",
    "The adapter's matrices are used as x W_down and a W_up, so W_down is (d_model, bottleneck) "
    "and W_up is (bottleneck, d_model), as in peft.Adapter.", "9.3")
NOT_IDENTITY = Diagnosis(
    "start-not-frozen", "a start that is not the sublayer alone",
    "With a scale of 4, even a small random W_up disturbs the pretrained model before the first "
    "step. Here the start is exact, and the statement says which matrix makes it so.", "statement")
NEVER_LEARNS = Diagnosis(
    "never-learns", "W_down is zero at the start",
    "Then relu gives zero for every input, and its slope there is zero as well. Nothing comes "
    "through in either direction, and no gradient ever will.", "statement")
IGNORES_RNG = Diagnosis(
    "ignores-rng", "a start that does not come from rng",
    "Two adapters made from the same seed must start alike, and two from different seeds must not.",
    "statement")
ALIKE = Diagnosis(
    "starts-alike", "units of the bottleneck that start alike",
    "Units that start alike get gradients that are alike and stay together: a bottleneck of 64 "
    "does the work of one unit for ever.", "statement")
TRAINS_SUBLAYER = Diagnosis(
    "trains-sublayer", "a sublayer that is trained along",
    "The sublayer is frozen. Its weights belong neither in parameters() nor in the count.", "9.3")
OWN_RESIDUAL = Diagnosis(
    "own-residual", "a residual of the adapter's own",
    "The residual around the sublayer belongs to the model, which adds x itself. With a second one "
    "x is counted twice.", "9.3")
SEQUENTIAL = Diagnosis(
    "reads-output", "an adapter that reads the sublayer's output",
    "That is the sequential adapter. A parallel one reads the sublayer's input, so that neither "
    "waits for the other.", "9.3")
BEFORE = Diagnosis(
    "before-sublayer", "an adapter in front of the sublayer",
    "Its output went into the sublayer. A parallel adapter's output is added to what the sublayer "
    "gives.", "9.3")
NO_SCALE = Diagnosis(
    "no-scale", "an adapter without its scale",
    "The scale is what sets a parallel adapter's strength apart from its start; He et al. use 4.",
    "9.3")
SCALES_ALL = Diagnosis(
    "scale-on-sublayer", "a scale on the sublayer too",
    "Only the adapter's path is scaled. Scaling the sublayer changes the pretrained model.", "9.3")
SCALE_TWICE = Diagnosis(
    "scale-twice", "the scale applied twice",
    "It multiplies the adapter's path once. Whoever scales both a and the product has c squared.",
    "statement")
NO_RELU = Diagnosis(
    "no-nonlinearity", "an adapter without its nonlinearity",
    "Two matrices in a row are one matrix of low rank. What makes it more than LoRA is the relu "
    "between them.", "9.3")
NO_SUBLAYER = Diagnosis(
    "sublayer-lost", "an output without the sublayer's",
    "The adapter adds to the sublayer's output; it does not replace it.", "9.3")
IN_PLACE = Diagnosis(
    "writes-into-sublayer", "adding into the array that the sublayer returned",
    "A sublayer may keep its output for its own backward, as tanh does. An operation such as += "
    "changes it behind the sublayer's back. What its backward returned is not yours either.",
    "statement")
DEFAULT_SCALE = Diagnosis(
    "default-scale", "a default of the scale that is not 4",
    "The statement's default is 4.0, the value of He et al. Whoever calls your class without a "
    "scale expects it.", "statement")
NO_SCALE_BACK = Diagnosis(
    "no-scale-in-backward", "backward without the scale",
    "c multiplies the adapter's path in forward, so it multiplies every gradient that passes "
    "through it.", "9.3")
NO_RELU_BACK = Diagnosis(
    "no-relu-mask", "backward without the slope of relu",
    "Where relu gave zero, nothing may come back. (For what comes out of relu, >= 0 is true "
    "everywhere.) Otherwise the gradient is that of another function.", "9.3")
BEFORE_RELU = Diagnosis(
    "gradient-before-relu", "the gradient of W_up with the values before relu",
    "W_up saw what came out of relu, so its gradient contains that.", "9.3")
DOWN_READS_OUTPUT = Diagnosis(
    "down-gradient-of-output", "the gradient of W_down with the sublayer's output",
    "W_down read x, so its gradient contains x.", "9.3")
SUBLAYER_GRADIENT_LOST = Diagnosis(
    "sublayer-gradient-lost", "an input gradient that does not pass through the sublayer",
    "The sublayer is frozen and gets no gradient of its own, but the gradient always passes "
    "through it. Without it the layers below hardly learn.", "9.3")
SUBLAYER_AS_IDENTITY = Diagnosis(
    "sublayer-as-identity", "the sublayer's gradient taken for G itself",
    "That would be right for a residual. What the sublayer does to a gradient only its own "
    "backward knows.", "statement")
ADAPTER_GRADIENT_LOST = Diagnosis(
    "adapter-gradient-lost", "an input gradient without the adapter's path",
    "x reaches the output through the adapter as well. What comes back along both paths is added.",
    "9.3")
RESIDUAL_GRADIENT = Diagnosis(
    "residual-gradient", "an input gradient with an extra G",
    "Such a term comes from a residual, and there is none here.", "9.3")

LARGE_START = Diagnosis(
    "large-start", "a W_down that starts with large numbers",
    "The hidden values then grow with the root of the width, and so does the first gradient of "
    "W_up: training starts with a jump.", "9.3")
RELU_AFTER = Diagnosis(
    "relu-after-up", "relu behind W_up instead of before it",
    "The nonlinearity stands in the bottleneck, between the two matrices. Behind them it would let "
    "the adapter add, and never take away.", "9.3")
FIXED_SCALE = Diagnosis(
    "fixed-scale", "a scale that is always 4",
    "The scale that is passed in must be used; 4 is only its default.", "statement")
MEAN = Diagnosis(
    "mean-over-rows", "gradients that are a mean over the rows",
    "A mean belongs in the loss. If it is taken there, G contains it, and the gradients are sums.",
    "mistakes")
FLATTENED = Diagnosis(
    "gradient-flattened", "a gradient that reaches the sublayer in another shape",
    "A sublayer may need its axes, as attention does. It gets the gradient in the shape of its "
    "output.", "statement")
RELU_SLOPE = Diagnosis(
    "relu-slope", "relu's output where its slope belongs",
    "relu's derivative is 1 where it is open and 0 where it is shut, however large the value is.",
    "9.3")
SCALE_DIVIDES = Diagnosis(
    "scale-divides", "a bottleneck that is divided by the scale",
    "A larger scale makes the adapter louder, not quieter.", "statement")

EXERCISE = Exercise(
    3, "parallel adapter", LARGE_START, RELU_SLOPE, SCALE_DIVIDES, RELU_AFTER, FIXED_SCALE, MEAN,
    FLATTENED,
    TRANSPOSED, NOT_IDENTITY, NEVER_LEARNS, IGNORES_RNG, ALIKE, TRAINS_SUBLAYER,
    OWN_RESIDUAL, SEQUENTIAL, BEFORE, NO_SCALE, SCALES_ALL, SCALE_TWICE, NO_RELU, NO_SUBLAYER,
    IN_PLACE, DEFAULT_SCALE, NO_SCALE_BACK, NO_RELU_BACK, BEFORE_RELU, DOWN_READS_OUTPUT,
    SUBLAYER_GRADIENT_LOST, SUBLAYER_AS_IDENTITY, ADAPTER_GRADIENT_LOST, RESIDUAL_GRADIENT)

D, M, SCALE, ROWS = 6, 5, 2.5, 8  # the scale is no whole number
NAMES = ("W_down", "W_up")
Arrays = dict[str, np.ndarray]


class Tanh:
    """A frozen sublayer, tanh(x W^T), that keeps what it returns. With `linear`, x W^T."""

    def __init__(self, W: np.ndarray, linear: bool):
        self.W, self.linear, self.y, self.untouched, self.back = W, linear, None, None, None

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.y = x @ self.W.T if self.linear else np.tanh(x @ self.W.T)
        self.untouched = self.y.copy()
        return self.y

    def backward(self, g: np.ndarray) -> np.ndarray:
        if g.shape != self.untouched.shape and g.size == self.untouched.size:
            raise Found(FLATTENED, f"The sublayer gave an output of shape {self.untouched.shape} "
                                   f"and got a gradient of shape {g.shape}.")
        self.back = self.pull(g)
        return self.back

    def pull(self, g: np.ndarray) -> np.ndarray:
        """The right gradient, whatever happened to `y`."""
        return (g if self.linear else g * (1 - self.untouched ** 2)) @ self.W


def _sublayer(trial: Trial, linear: bool = False, width: int = D) -> Tanh:
    return Tanh((0.5 * trial.normal(width, width, seed=20)).astype(trial.dtype), linear)


def _adapter(trial: Trial, fill: bool = True, seed: int = 1, linear: bool = False
             ) -> tuple[Any, Tanh, Arrays]:
    """A student's adapter, its sublayer, and its parameters, random if `fill`."""
    sublayer = _sublayer(trial, linear)
    adapter = trial.make(sublayer, D, M, SCALE, dtype=trial.dtype, rng=trial.rng(seed))
    arrays = trial.arrays(adapter, NAMES)
    if fill:
        for number, name in enumerate(NAMES):
            arrays[name][...] = 0.5 * trial.normal(*arrays[name].shape, seed=30 + number)
    return adapter, sublayer, arrays


def _x(trial: Trial) -> np.ndarray:
    return trial.normal(ROWS, D, seed=2)


def _terms(sublayer: Tanh, arrays: Arrays, x: np.ndarray, G: np.ndarray | None = None) -> Terms:
    """The output and, if there is G, the gradients as sums."""
    own, (down, up) = Tanh(sublayer.W, sublayer.linear), (arrays[name] for name in NAMES)
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
    return Terms(nodes, sums, known, x.shape[:-1])


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {name: 0.5 * trial.normal(*shape, seed=30 + i)
              for i, (name, shape) in enumerate({"W_down": (D, M), "W_up": (M, D)}.items())}
    *_, (x, G) = trial.inputs(ROWS, D)
    return _terms(_sublayer(trial), arrays, x, G)


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
    count = trial.call(adapter.num_parameters, returns=(int, np.integer))
    if count != 2 * D * M:
        raise Found(TRAINS_SUBLAYER if count == 2 * D * M + D * D else GENERAL["values"],
                    f"num_parameters() gave {count}, expected {2 * D * M}.")


@EXERCISE.test(3, "arguments", "sizes below 1 and a scale not finite and positive are refused")
def _refusals(trial: Trial) -> None:
    trial.refuses("bottleneck_dim=0", lambda: trial.make(_sublayer(trial), D, 0))
    trial.refuses("d_model=0", lambda: trial.make(_sublayer(trial), 0, M))
    for scale in (float("nan"), float("inf"), 0.0, -4.0):
        trial.refuses(f"scale={scale}", lambda: trial.make(_sublayer(trial), D, M, scale))


@EXERCISE.test(1, "shapes", "W_down is (d_model, bottleneck), W_up the reverse; dtype as asked")
def _shapes(trial: Trial) -> None:
    _, _, arrays = _adapter(trial)
    for name, shape in {"W_down": (D, M), "W_up": (M, D)}.items():
        if arrays[name].shape == shape[::-1]:
            raise Found(TRANSPOSED, f"{name} has shape {arrays[name].shape}.")
        trial.expect(name, arrays[name], shape=shape)
    for dtype in (np.float32, np.float64):
        adapter = trial.make(_sublayer(trial), D, M, dtype=dtype, rng=trial.rng())
        for name, array in trial.arrays(adapter, NAMES).items():
            if array.dtype != dtype:
                raise Found(GENERAL["wrong-dtype"], f"dtype={np.dtype(dtype)} was asked for, "
                                                    f"{name} is {array.dtype}.")
    plain = trial.arrays(trial.make(_sublayer(trial), D), NAMES)["W_down"]
    if plain.shape != (D, 64) or plain.dtype != np.float32:
        raise Found(GENERAL["signature"], f"Made with sublayer and d_model={D} alone, W_down is "
                                          f"{plain.dtype} of shape {plain.shape}, expected float32 "
                                          f"of shape {(D, 64)}.")


@EXERCISE.test(1, "start", "W_up is zero, W_down is not and comes from rng")
def _start(trial: Trial) -> None:
    _, _, arrays = _adapter(trial, fill=False)
    if not arrays["W_down"].any():
        raise Found(NEVER_LEARNS, "W_down holds zeros only.")
    if arrays["W_up"].any():
        raise Found(NOT_IDENTITY, "W_up is not zero in a fresh adapter.")
    first, same, other, free, again = (
        trial.arrays(trial.make(_sublayer(trial), D, M, rng=rng), NAMES)["W_down"]
        for rng in (trial.rng(1), trial.rng(1), trial.rng(2), None, None))
    if not np.array_equal(first, same):
        raise Found(IGNORES_RNG, "Two adapters made from the same seed differ.")
    for which, one, two in (("from different seeds", first, other), ("without rng", free, again)):
        if np.array_equal(one, two):
            raise Found(IGNORES_RNG, f"Two adapters made {which} are equal.")
    if np.linalg.matrix_rank(first) < M:
        raise Found(ALIKE, f"W_down has not the rank {M}.")
    width = 256
    wide = trial.make(_sublayer(trial, width=width), width, dtype=trial.dtype, rng=trial.rng())
    if (std := float(trial.arrays(wide, NAMES)["W_down"].std())) > 0.3:  # all usual starts: < 0.2
        raise Found(LARGE_START, f"At width 256, W_down has a standard deviation of {std:.2g}.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "shapes", "any leading axes")
def _leading(trial: Trial) -> None:
    adapter, *_ = _adapter(trial)
    for x, _ in trial.inputs(ROWS, D):
        trial.call(adapter.forward, x, shape=x.shape)


@EXERCISE.test(2, "start", "a fresh adapter leaves the sublayer's output as it is")
def _identity(trial: Trial) -> None:
    adapter, sublayer, arrays = _adapter(trial, fill=False)
    x = _x(trial)
    trial.measure({"output": trial.call(adapter.forward, x)}, _terms(sublayer, arrays, x), None, {
        "the right one plus x": OWN_RESIDUAL, "zero everywhere": NO_SUBLAYER,
        "multiplied by c": SCALES_ALL}, " at the start")


@EXERCISE.test(2, "values", "the output is f(x) plus the scaled bottleneck of x")
def _values(trial: Trial) -> None:
    adapter, sublayer, arrays = _adapter(trial)
    down, up = (arrays[name] for name in NAMES)

    def bottleneck(h: np.ndarray) -> np.ndarray:
        return np.maximum(h @ down, 0) @ up
    for x, _ in trial.inputs(ROWS, D):
        value, f = trial.call(adapter.forward, x), sublayer.untouched
        if not trial.agrees(sublayer.y, f):
            raise Found(IN_PLACE, "After your forward the array that the sublayer keeps has "
                                  "changed.")
        after = f + SCALE * np.maximum(x @ down @ up, 0)
        before = np.tanh((x + SCALE * bottleneck(x)) @ sublayer.W.T)
        trial.measure({"output": value}, _terms(sublayer, arrays, x),
                      {"output": [(BEFORE, before), (RELU_AFTER, after)]}, {
            "relu(f(x) W_down) in the place of relu(z)": SEQUENTIAL,
            "z in the place of relu(z)": NO_RELU,
            **{f"{c} times: the adapter": diagnosis for c, diagnosis in {
                "1/c": NO_SCALE, "c": SCALE_TWICE, "1/c²": SCALE_DIVIDES,
                "4/c": FIXED_SCALE}.items()}})
    plain = trial.make(_sublayer(trial), D, M, dtype=trial.dtype)  # with the scale's default
    for name, array in trial.arrays(plain, NAMES).items():
        array[...] = {"W_down": down, "W_up": up}[name]
    trial.compare("the output at the default scale", trial.call(plain.forward, x),
                  f + 4 * bottleneck(x), {DEFAULT_SCALE: f + bottleneck(x)})


@EXERCISE.test(2, "behaviour", "dtypes stay as they are")
def _forward_dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        adapter, sublayer, arrays = _adapter(each)
        each.keeps_digits("forward", each.call(adapter.forward, _x(each)),
                          _right(sublayer, arrays, _x(each), _x(each))["output"])


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward refuses to be first, and another shape")
def _order(trial: Trial) -> None:
    adapter, *_ = _adapter(trial)
    trial.refuses("backward before forward", lambda: adapter.backward(_x(trial)), (RuntimeError,),
                  GENERAL["backward-first"])
    trial.call(adapter.forward, _x(trial))
    trial.refuses(f"a grad_output of one row for {ROWS}",
                  lambda: adapter.backward(trial.normal(1, D)))


@EXERCISE.test(3, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for x, G in trial.inputs(ROWS, D):
        adapter, _, arrays = _adapter(trial)
        trial.call(adapter.forward, x)
        trial.call(adapter.backward, G, shape=x.shape)
        for name, grad in trial.arrays(adapter, NAMES, "gradients").items():
            trial.expect(f"the gradient of {name}", grad, shape=arrays[name].shape)


@EXERCISE.test(3, "gradients", "with a linear sublayer")
def _linear(trial: Trial) -> None:
    for x, G in trial.inputs(ROWS, D):
        _gradients(trial, x, G, linear=True)


@EXERCISE.test(3, "gradients", "with a sublayer that has a nonlinearity")
def _nonlinear(trial: Trial) -> None:
    for x, G in trial.inputs(ROWS, D):
        _gradients(trial, x, G, linear=False)


def _right(sublayer: Tanh, arrays: Arrays, x: np.ndarray, G: np.ndarray) -> Arrays:
    """The output and all gradients, that of the input under "x"."""
    return _terms(sublayer, arrays, x, G).right


REASONS = {  # what measuring finds in the gradients, where it has a name of its own
    "multiplied by 1/c": NO_SCALE_BACK, "1/c times: the adapter": NO_SCALE_BACK,
    "multiplied by c": SCALE_TWICE, "c times: the adapter": SCALE_TWICE,
    "c times: the sublayer": SCALES_ALL, "the sublayer": SUBLAYER_GRADIENT_LOST,
    "the adapter": ADAPTER_GRADIENT_LOST, "the right one plus G": RESIDUAL_GRADIENT,
    "G in the place of f.backward(G)": SUBLAYER_AS_IDENTITY,
    "z in the place of relu(z)": BEFORE_RELU, "relu'(z) left out": NO_RELU_BACK,
    "relu(z) in the place of relu'(z)": RELU_SLOPE, "f(x) in the place of x": DOWN_READS_OUTPUT,
    "multiplied by 1/(the number of rows)": MEAN}


def _gradients(trial: Trial, x: np.ndarray, G: np.ndarray, linear: bool) -> None:
    adapter, sublayer, arrays = _adapter(trial, linear=linear)
    if x.ndim > 1 and len(x) > 2:
        x = x.copy()
        x[0] = 0  # relu's input is exactly 0 there, and its slope is 0 as well
    kept, terms = sublayer.W.copy(), _terms(sublayer, arrays, x, G)
    trial.call(adapter.forward, x)
    back = trial.call(adapter.backward, G)
    trial.same_bits("the sublayer's weight", sublayer.W, kept, TRAINS_SUBLAYER)
    if sublayer.back is not None and not trial.agrees(sublayer.back, sublayer.pull(G)):
        raise Found(IN_PLACE, "After your backward the array that the sublayer's returned has "
                              "changed.")
    trial.measure(trial.arrays(adapter, NAMES, "gradients") | {"x": back}, terms, None, REASONS)


@EXERCISE.test(3, "gradients", "in the first step that of W_down is zero and that of W_up is not")
def _first_step(trial: Trial) -> None:
    adapter, *_ = _adapter(trial, fill=False)
    trial.call(adapter.forward, _x(trial))
    trial.call(adapter.backward, trial.normal(ROWS, D, seed=3))
    grads = trial.arrays(adapter, NAMES, "gradients")
    if grads["W_down"].any():
        raise Found(GENERAL["values"], "With W_up at zero nothing can come back to W_down.")
    if not grads["W_up"].any():
        raise Found(GENERAL["values"], "The gradient of W_up is zero, so nothing would be learned.")


@EXERCISE.test(3, "behaviour", "gradients are replaced, not added up; dtypes stay as they are")
def _contract(trial: Trial) -> None:
    adapter, *_ = _adapter(trial)
    G = trial.normal(ROWS, D, seed=3)
    trial.call(adapter.forward, _x(trial))
    trial.call(adapter.backward, G)
    trial.replaces_gradients(adapter, NAMES, lambda: (
        trial.call(adapter.forward, _x(trial)), trial.call(adapter.backward, G)))
    for each in trial.each_dtype():
        adapter, sublayer, arrays = _adapter(each)
        x, G = _x(each), each.normal(ROWS, D, seed=3)
        each.call(adapter.forward, x)
        found = {"x": each.call(adapter.backward, G)} | each.arrays(adapter, NAMES, "gradients")
        right = _right(sublayer, arrays, x, G)
        for name, grad in found.items():
            each.keeps_digits(f"the gradient of {name}", grad, right[name])


@EXERCISE.test(3, "behaviour", "each step goes by the arrays and the input of its own forward")
def _follows(trial: Trial) -> None:
    adapter, sublayer, arrays = _adapter(trial)
    trial.follows(adapter, NAMES, ((ROWS, D), (ROWS, D), (M, ROWS, D)),
                  lambda x, G: _right(sublayer, arrays, x, G))

    def build() -> tuple:
        adapter, sublayer, arrays = _adapter(trial)
        return adapter, adapter.forward, lambda x, G: _right(sublayer, arrays, x, G)

    trial.keeps_apart(build, NAMES, (ROWS, D))


def check_parallel_adapter(student: type, step: int | None = None, *,
                           dtype: Any = np.float64) -> Report:
    """Check a `ParallelAdapter`: the first `step` steps, or all of them. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
