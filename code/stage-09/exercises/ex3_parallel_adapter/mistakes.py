"""Exercise 3: plausible wrong answers, each with the diagnosis that it must get."""

from exercises.mistakes import Mistake, method

OUTPUT = "return self.sublayer.forward(x) + self.scale * (a @ self.W_up)"
BOTTLENECK = "a = np.maximum(x @ self.W_down, 0)"
BACK = "return self.sublayer.backward(grad_output) + through_adapter"
CHECK_WIDTH = 'check_count("d_model", d_model)'
CHECK_BOTTLENECK = 'check_count("bottleneck_dim", bottleneck_dim)'
CHECK_SCALE = 'check_positive("scale", scale)'
CHECK_G = 'check_shape("grad_output", grad_output, x.shape)'


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.cache = {}": f"self.cache = {{}}\n{code}"}


def output(code):
    """Edits that end forward with `code`, where `out` is what it returned."""
    return {OUTPUT: f"{OUTPUT.replace('return', 'out =')}\n{code}"}


def refuses_only(what):
    """Edits that check the scale by an expression of its own."""
    return {CHECK_SCALE: "scale", "m = check": f"if {what}: raise ValueError(scale)\nm = check"}


NOT_REFUSED = "raised no ValueError or TypeError."
CALL_2 = "In call 2, with other numbers in the arrays and another input, the"

MISTAKES = [
    "the adapter can be made and trains W_down and W_up, nothing else",
    Mistake("KeysFromThePaper", "signature",
            method('def parameters(self):\n    return {"down": self.W_down, "up": self.W_up}'),
            seen="parameters() has the keys ['down', 'up'], expected ['W_down', 'W_up']."),
    Mistake("ParametersAsList", "wrong-type",
            method("def parameters(self):\n    return [self.W_down, self.W_up]"),
            seen="parameters() gave list, expected dict."),
    Mistake("TrainsSublayer", "trains-sublayer",
            method("def parameters(self):\n"
                   '    return super().parameters() | {"sublayer": self.sublayer.W}')),
    Mistake("CountsSublayer", "trains-sublayer",
            method("def num_parameters(self):\n"
                   "    return super().num_parameters() + self.sublayer.W.size")),
    Mistake("ShortNames", "signature",
            {"d_model: int,": "width: int,", CHECK_WIDTH: 'check_count("width", width)'},
            seen="The call itself failed."),
    "W_down is (d_model, bottleneck), W_up the reverse; dtype as asked",
    Mistake("OtherDefaultDtype", "signature",
            {"dtype: Any = np.float32": "dtype: Any = np.float64"},
            seen="Made with sublayer and d_model=6 alone, W_down is float64 of shape (6, 64)"),
    Mistake("Transposed", "transposed",
            start("self.W_down, self.W_up = self.W_down.T.copy(), self.W_up.T.copy()")),
    Mistake("Flattened", "wrong-shape",
            start("self.W_down, self.W_up = self.W_down.ravel(), self.W_up.ravel()"),
            seen="W_down has shape (30,), expected (6, 5)."),
    Mistake("DtypeIgnored", "wrong-dtype", {"check_dtype(dtype)": "np.float64"},
            seen="W_down: float32 in gave float64 out"),
    "W_up is zero, W_down is not and comes from rng",
    Mistake("UpRandom", "start-not-frozen",  # as that of the book's sequential Adapter
            start("self.W_up[...] = self.W_down.T")),
    Mistake("BothZero", "never-learns", start("self.W_down[...] = 0")),
    Mistake("LargeStart", "start-size", start("self.W_down /= 0.02")),
    Mistake("UniformStart", "start-size",
            {"standard_normal((self.d_model, m))": "uniform(-1, 1, (self.d_model, m))"},
            seen="At width 256 W_down holds no Gaussian numbers"),
    Mistake("EqualUnits", "starts-alike",  # draws one column, and NumPy fills the others with it
            start("self.W_down[...] = self.W_down[:, :1]"), seen="W_down has not the rank 5."),
    Mistake("OwnRandomness", "ignores-rng", {"default_rng(rng)": "default_rng()"}),
    Mistake("AlwaysSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(0)"}),
    Mistake("NoneIsSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(rng or 0)"}),
    "a fresh adapter leaves the sublayer's output as it is",
    Mistake("OwnResidual", "another", {OUTPUT: f"{OUTPUT} + x"}),
    Mistake("SublayerLost", "sublayer-not-run", {"self.sublayer.forward(x) + ": ""}),
    Mistake("OwnCopyOfTheSublayer", "sublayer-not-run", {
        "self.sublayer, self.d_model = sublayer,":
        "import copy\nself.sublayer, self.d_model = copy.deepcopy(sublayer),"}),
    "the output is f(x) plus the scaled bottleneck of x",
    Mistake("NormalizesFirst", "inner",  # each row of x, as in front of a sublayer
            {BOTTLENECK: "size = np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-9)\n"
                         "a = np.maximum(x / size @ self.W_down, 0)"},
            seen="The output: each row of x of the adapter divided by its root mean square"),
    Mistake("FixedBias", "inner",
            {BOTTLENECK: "a = np.maximum(x @ self.W_down + 0.01 * np.arange(-2, 3), 0)"},
            seen="The output: z plus, column by column, -0.02, -0.01, 0, 0.01, 0.02."),
    Mistake("RowsForTheSublayer", "gradient-flattened",
            {"self.sublayer.forward(x) +": "self.sublayer.forward("
             "x.reshape(-1, self.d_model)).reshape(x.shape) +"},
            seen="x has shape (6,), the sublayer got (1, 6)."),
    Mistake("DefaultScale", "signature", {"scale: float = 4.0": "scale: float = 1.0"}),
    Mistake("ReadsOutput", "reads-output",
            {BOTTLENECK: "f = self.sublayer.forward(x)\na = np.maximum(f @ self.W_down, 0)",
             "return self.sublayer.forward(x)": "return f"}),
    Mistake("BeforeSublayer", "before-sublayer",
            {OUTPUT: "return self.sublayer.forward(x + self.scale * (a @ self.W_up))"}),
    Mistake("InPlace", "writes-into-sublayer",
            {OUTPUT: "f = self.sublayer.forward(x)\n"
                     "f += self.scale * (a @ self.W_up)\n"
                     "return f"}),
    Mistake("NoScale", "terms", {"+ self.scale * (a": "+ (a"}),
    Mistake("ScaleNotPassed", "terms",  # checks it, and uses the default
            {CHECK_SCALE: f"{CHECK_SCALE} and 4.0"}, seen="The output: 4/c times: the adapter"),
    Mistake("NoNonlinearity", "operand", {BOTTLENECK: "a = x @ self.W_down"}),
    Mistake("ReluOnTheInput", "inner", {BOTTLENECK: "a = np.maximum(x, 0) @ self.W_down"},
            seen="The output: relu(x) W_down in the place of relu(z)"),
    Mistake("ReluBehindUp", "relu-after-up",
            {"(a @ self.W_up)": "np.maximum(x @ self.W_down @ self.W_up, 0)"}),
    Mistake("FirstOfTheBatch", "operand",  # the other sequences get its bottleneck
            {BOTTLENECK: "a = np.maximum((x[:1] if x.ndim == 3 else x) @ self.W_down, 0)"},
            seen="The output: the first entry of the batch for all of relu(z)"),
    Mistake("RowsOnly", "wrong-shape", output("return out.reshape(-1, self.d_model)")),
    "dtypes stay as they are",
    Mistake("SingleOnTheWay", "wrong-dtype",
            {BOTTLENECK: "a = np.maximum(x.astype(np.float32).astype(x.dtype) @ self.W_down, 0)"},
            seen="forward: float64 in gave float64 out, but it is off by"),
    "backward refuses to be first, and another shape",
    Mistake("CacheOnTheClass", "shared",
            {"self.cache = {}": "type(self).cache = getattr(type(self), 'cache', {})",
             'self.cache = {"x": x, "a": a}': "self.cache.update(x=x, a=a)"},
            seen="backward before forward found what another object had left in cache."),
    Mistake("BackwardFirst", "backward-first",
            {"x, a = self._rem": "if not self.cache:\n    return grad_output\nx, a = self._rem"}),
    Mistake("OneRowForAll", "accepts-nonsense",  # NumPy repeats a gradient that has too few rows
            {CHECK_G: "grad_output = grad_output + np.zeros_like(x)"},
            seen=f"a gradient of shape (1, 6) for one of (8, 6) {NOT_REFUSED}"),
    Mistake("TwoGradientsAtOnce", "accepts-nonsense",
            {CHECK_G: "grad_output = grad_output.reshape(-1, *x.shape).sum(axis=0)"},
            seen=f"a gradient of shape (2, 8, 6) for one of (8, 6) {NOT_REFUSED}"),
    "with a linear sublayer",
    Mistake("AsksForZeros", "other-forward",
            {'self.cache = {"x": x, "a": a}': 'self.cache = {"x": x, "a": a}\n'
             "y = self.sublayer.forward(x)\nself.sublayer.forward(0 * x)",
             "return self.sublayer.forward(x) +": "return y +"}),
    Mistake("SlopeAtZero", "inner",
            {"* (a > 0)": "* (rows @ self.W_down >= 0)"},
            seen="The gradient of x: z >= 0 in the place of relu'(z)"),
    Mistake("ThreeAxesAtMost", "refuses-valid",
            {"self.W_down_grad = rows": "if x.ndim > 3:\n    raise ValueError(x.ndim)\n"
                                        "self.W_down_grad = rows"}, seen="ValueError: 4 "),
    Mistake("ScaleTwice", "inner", {"D = self.scale *": "D = self.scale**2 *"},
            seen="The gradients of W_down and x: the gradient of z multiplied by c"),
    Mistake("RowsInAnotherOrder", "operand",
            {"x.reshape(-1, self.d_model), a": "x.reshape(self.d_model, -1).T, a"},
            seen="The gradient of W_down: x reshaped to (6, 8) and transposed"),
    Mistake("NoReluMask", "operand", {" * (a > 0)": ""}),
    Mistake("InPlaceBack", "writes-into-sublayer",
            {BACK: "back = self.sublayer.backward(grad_output)\n"
                   "back += through_adapter\n"
                   "return back"},
            seen="After your backward the array that the sublayer's returned has changed."),
    Mistake("UpdatesSublayer", "trains-sublayer",
            {BACK: "back = self.sublayer.backward(grad_output)\n"
                   "self.sublayer.W -= 0.01 * G.T @ rows\n"
                   "return back + through_adapter"}),
    Mistake("MeanOverRows", "factor",
            {"(a.T @ G)": "(a.T @ G) / len(G)", "rows.T @ D": "rows.T @ D / len(G)"}),
    Mistake("MeanOverTheBatch", "factor",  # with two axes each row is a token already
            {"(a.T @ G)": "(a.T @ G) / (len(x) if x.ndim == 3 else 1)"},
            seen="The gradient of W_up: multiplied by 1/2 or 1/(the batch)."),
    Mistake("AxesExchanged", "operand",  # brings time to the front for x alone: the shapes agree
            {"rows.T @ D": "(x.swapaxes(0, 1) if x.ndim == 3 else x).reshape(rows.shape).T @ D"},
            seen="The gradient of W_down: the first two axes of x swapped"),
    Mistake("FlattensForTheSublayer", "gradient-flattened",
            {BACK: "return self.sublayer.backward(G).reshape(x.shape) + through_adapter"},
            seen="The sublayer gave an output of shape (6,) and got a gradient of shape (1, 6)."),
    "sizes that are equal, or 1, and a small scale change nothing",
    Mistake("ScaleOfOneAtLeast", "sizes",
            {'check_positive("scale", scale)': 'max(1.0, check_positive("scale", scale))'},
            seen="Where d_model is 6, the bottleneck 6 and the scale 0.5"),
    Mistake("TransposesIfSquare", "operand",
            {"D @ self.W_down.T": "D @ (self.W_down if len(set(self.W_down.shape)) == 1 "
                                  "else self.W_down.T)"},
            seen="The gradient of x where d_model is 6, the bottleneck 6"),
    "in the first step that of W_down is zero and that of W_up is not",
    Mistake("KeepsNothingAtZero", "forgets",
            {BOTTLENECK: "if not self.W_up.any():\n    return self.sublayer.forward(x)\n"
                         + BOTTLENECK},
            seen="RuntimeError: ParallelAdapter.backward needs forward first"),
    Mistake("SkipsZeros", "factor",  # saves the work while W_up is zero, and so it stays zero
            {"(a.T @ G)": "(a.T @ G) * self.W_up.any()"},
            seen="The gradient of W_up in the first step: zero everywhere"),
    Mistake("AlmostZero", "values",  # so that W_down can learn at once
            {"(G @ self.W_up.T)": "(G @ (self.W_up + 1e-9).T)"},
            seen="The gradient of W_down in the first step is off by"),
    "gradients are replaced, not added up; dtypes stay as they are",
    Mistake("GradientWhenAskedFor", "late-gradients",
            {"self.W_down_grad = rows.T @ D": "self.late = rows, G, a > 0"}
            | method("def gradients(self):\n"
                     "    if self.W_up_grad is None:\n        raise RuntimeError\n"
                     "    rows, G, on = self.late\n"
                     "    D = self.scale * (G @ self.W_up.T) * on\n"
                     '    return {"W_down": rows.T @ D, "W_up": self.W_up_grad}'),
            seen="The gradient of W_down is another once the arrays hold other numbers."),
    Mistake("DoubleGradients", "wrong-dtype", {"rows.T @ D": "(rows.T @ D).astype(np.float64)"},
            seen="the gradient of W_down: float32 in gave float64 out."),
    "each step goes by the arrays and the input of its own forward",
    Mistake("Relu6", "inner",
            {BOTTLENECK: BOTTLENECK.replace("0)", "0)\na = np.minimum(a, 6)")},
            seen="The output, the gradient of W_up with inputs and gradients 8 times as large: "
                 "relu(z) clipped at 6"),
    Mistake("ScaleOnTheClass", "shared", {"self.scale, dtype": "type(self).scale, dtype"}),
    Mistake("DeadParameters", "dead-parameters",
            {BOTTLENECK: f"self.W_up = self.W_up.copy()\n{BOTTLENECK}"}),
    Mistake("ScaledUpOnce", "kept",  # the array of the first forward pass
            {"a @ self.W_up": 'a @ self.__dict__.setdefault("up", self.W_up.copy())'},
            seen=f"{CALL_2} output is what W_up of the call before"),
    "sizes below 1 and a scale not finite and positive are refused",
    Mistake("RefusesWholeNumbers", "refuses-valid",
            refuses_only("not isinstance(scale, float) or not 0 < scale < np.inf"),
            seen="ValueError: 2 "),
    Mistake("WidthNotChecked", "accepts-nonsense", {CHECK_WIDTH: "d_model"},
            seen=f"d_model=0 {NOT_REFUSED}"),
    Mistake("BottleneckNotChecked", "accepts-nonsense", {CHECK_BOTTLENECK: "bottleneck_dim"},
            seen=f"bottleneck_dim=0 {NOT_REFUSED}"),
    Mistake("ScaleNotChecked", "accepts-nonsense", {CHECK_SCALE: "scale"},
            seen=f"scale=nan {NOT_REFUSED}"),
    Mistake("RefusesOnlyZero", "accepts-nonsense",
            refuses_only("scale == 0 or not np.isfinite(scale)"),
            seen="scale=-4.0 raised no ValueError"),
]
