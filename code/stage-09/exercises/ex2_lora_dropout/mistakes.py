"""Exercise 2: plausible wrong answers, each with the diagnosis that it must get."""

from exercises.mistakes import Mistake, method

KEPT = "kept = self.rng.random(x.shape) >= self.dropout"
UPDATE = "update = (self.scaling * Ax) @ self.B.T"
OUTPUT = "return x @ W.T + update.reshape(*x.shape[:-1], self.out_features)"
BACK = "return grad_output @ W + through_update"
CHECK_W = 'check_shape("W", W, (self.out_features, self.in_features))'
#: Edits after which entries are dropped by a method, wherever a further edit calls it.
ELSEWHERE = {"dropped = x * mask": "mask = None"} | method(
    "def drop(self, array):\n"
    "    if not (self.training and self.dropout):\n"
    "        return array\n"
    "    return array * (self.rng.random(array.shape) >= self.dropout) / (1 - self.dropout)")


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.training = True": f"self.training = True\n{code}"}


def output(code):
    """Edits that end forward with `code`, where `h` is what it returned."""
    return {OUTPUT: f"{OUTPUT.replace('return', 'h =')}\n{code}"}


def backward(code):
    """Edits that put `code` before the gradients are computed."""
    return {'check_shape("grad_output"': f'{code}\ncheck_shape("grad_output"'}


def merge(code):
    """Edits that give the layer a `merge_weights` of its own."""
    return method("def merge_weights(self, W):\n    " + code.replace("\n", "\n    "))


LEVELS = "For an input of ones the update's input should take two values, one of them 0; it takes "

MISTAKES = [
    "the layer can be made, trains A and B, and starts in training",
    Mistake("StartsInEvaluation", "signature", {"self.training = True": "self.training = False"},
            seen="training is not True at the start."),
    Mistake("CountsFrozen", "values",
            method("def num_parameters(self):\n"
                   "    return super().num_parameters() + self.in_features * self.out_features"),
            seen="num_parameters() gave 118, expected 88."),
    "A is (rank, in) and B is (out, rank), in the dtype asked for",
    Mistake("Transposed", "transposed",
            start("self.A, self.B = self.A.T.copy(), self.B.T.copy()")),
    Mistake("Flattened", "wrong-shape", start("self.A = self.A.ravel()"),
            seen="A has shape (18,), expected (3, 6)."),
    Mistake("DtypeIgnored", "wrong-dtype", {"dtype=dtype": "dtype=np.float64"},
            seen="A: float32 in gave float64 out"),
    "the update is zero at the start, can learn, and comes from rng",
    Mistake("BothZero", "both-zero", start("self.A[...] = 0")),
    Mistake("BothRandom", "start-not-frozen",
            start("self.B[...] = self.rng.standard_normal(self.B.shape)")),
    Mistake("StartSwapped", "start-swapped", start("self.A[...], self.B[...] = 0, 0.01")),
    Mistake("StartOfOneRow", "starts-alike", start("self.A[...] = self.A[0]")),
    Mistake("StartOfTheUnitMatrix", "ignores-rng", start("self.A[...] = np.eye(*self.A.shape)")),
    Mistake("RngNotHandedOn", "ignores-rng", {", rng=self.rng": ""}),
    "any leading axes; dtypes stay as they are",
    Mistake("RowsOnly", "wrong-shape", output("return h.reshape(-1, self.out_features)")),
    Mistake("DropsAllInEvaluation", "not-finite",  # takes it for a rate of 1: 0 / 0
            output("return h * np.inf if self.dropout and not self.training else h"),
            seen="LoRADropoutLayer.forward holds 5 times NaN or infinity, among 5 numbers."),
    "with training = False, and with p = 0, it is plain LoRA",
    Mistake("RefusesZero", "refuses-valid", {"if not 0 <= rate < 1": "if not 0 < rate < 1"}),
    Mistake("AlphaNotOverR", "terms",
            {"rank, alpha, dtype=": "rank, alpha * rank, dtype="},
            seen="The output at p = 0.0, training = False: r times"),
    Mistake("NoSInForward", "terms", {UPDATE: "update = Ax @ self.B.T"},
            seen="The output at p = 0.0, training = False: 1/s times"),
    Mistake("NoFrozenPath", "terms", {"return x @ W.T + update": "return update"},
            seen="The output at p = 0.0, training = False: missing"),
    Mistake("ScalesInPlace", "changes-input",  # at a rate of 0 that is the caller's own array
            {UPDATE: "if self.training:\n    rows *= self.scaling\n" + UPDATE}),
    Mistake("ActiveInEvaluation", "active-in-evaluation",
            {"if self.training and self.dropout": "if self.dropout"}),
    Mistake("DividedByRate", "wrong-factor",
            {"x.dtype.type(1 - self.dropout)": "self.dropout",
             "training and self.dropout": "training"},
            seen="At a rate of 0 "),
    "the frozen path sees no mask",
    Mistake("GlobalRandom", "global-random",
            {"self.rng.random(x.shape)": "np.random.rand(*x.shape)"}),
    Mistake("FrozenPathDivided", "factor",
            {"return x @ W.T": "return x @ W.T / (1 - self.dropout * self.training)"},
            seen="With B = 0 the output in training is 1.33 times X W^T."),
    Mistake("FrozenPathToo", "frozen-path", {"return x @ W.T": "return dropped @ W.T"}),
    Mistake("DropsInPlace", "changes-input", {"dropped = x * mask": "x *= mask\ndropped = x"}),
    "the mask is on the update's input",
    Mistake("NotInTheFirstPass", "kept",
            {"if self.training and": "self.passes = getattr(self, \"passes\", 0) + 1\n"
                                     "if self.passes > 1 and self.training and"},
            seen="In the first forward pass no entry was dropped"),
    Mistake("NegativeMask", "wrong-factor", {"dropped = x * mask": "dropped = -x * mask"},
            seen="Entries that were kept are multiplied by -1.33"),
    Mistake("OnOutput", "on-output",
            ELSEWHERE | {"+ update.reshape": "+ self.drop(update).reshape"}),
    Mistake("OnBottleneck", "on-bottleneck",
            ELSEWHERE | {UPDATE: "update = (self.scaling * self.drop(Ax)) @ self.B.T"}),
    Mistake("MaskOnA", "on-weight", ELSEWHERE | {"rows @ self.A.T": "rows @ self.drop(self.A).T"}),
    Mistake("MaskOnB", "on-weight", ELSEWHERE | {"@ self.B.T": "@ self.drop(self.B).T"}),
    Mistake("NoDropout", "no-dropout", {"dropped = x * mask": "dropped = x"},
            seen="No entry was dropped in 4,096 at a rate of 0.25."),
    Mistake("NoneKept", "wrong-rate",  # the upper end is not among the numbers drawn: all are 0
            {KEPT: "kept = self.rng.integers(0, 1, x.shape)"},
            seen="All 4,096 entries were dropped at a rate of 0.25."),
    Mistake("TwoMasksMean", "no-mask",  # three values instead of two
            {KEPT: "kept = np.mean(self.rng.random((2, *x.shape)) >= self.dropout, axis=0)"},
            seen=f"{LEVELS}[0.     0.6667 1.3333] ..."),
    Mistake("Leaks", "no-mask",  # makes small what should be zero
            {"dropped = x * mask": "dropped = x * np.maximum(mask, 0.1)"},
            seen=f"{LEVELS}[0.1    1.3333]"),
    Mistake("MOverOneMinusP", "no-mask",  # as it is read aloud
            {"/ x.dtype.type(1 - self.dropout)": "/ 1 - x.dtype.type(self.dropout)"},
            seen=f"{LEVELS}[-0.25  0.75]"),
    "each entry is dropped by itself at the rate p, or divided by 1 - p",
    Mistake("NoScale", "wrong-factor", {" / x.dtype.type(1 - self.dropout)": ""}),
    Mistake("OverTheShareKept", "wrong-factor", {"type(1 - self.dropout)": "type(kept.mean())"},
            seen="Entries that were kept are multiplied by 1.33"),
    Mistake("TimesKeepRate", "wrong-factor", {"/ x.dtype.type(1": "* x.dtype.type(1"}),
    Mistake("RateIsKeepRate", "rate-is-keep-rate",
            {">= self.dropout": "< self.dropout", "(1 - self.dropout)": "(self.dropout)"}),
    Mistake("WrongRate", "wrong-rate",  # a Gaussian where a uniform belongs
            {"self.rng.random(": "self.rng.standard_normal("}),
    Mistake("Antithetic", "dependent-mask",
            {KEPT: "drawn, half = self.rng.random(x.shape), x.shape[-1] // 2\n"
                   "drawn[..., half:2 * half] = 1 - drawn[..., :half]\n"
                   "kept = drawn >= self.dropout"},
            seen="Row by row, numbers of the mask go with those 16 places after them"),
    Mistake("SharedMask", "shared-mask", {"random(x.shape)": "random(x.shape[-1])"}),
    Mistake("SharedByTwo", "shared-mask",  # a row and its neighbour
            {KEPT: "half = self.rng.random((x.size // x.shape[-1], x.shape[-1]))\n"
                   "kept = half.repeat(2, axis=0)[:len(half)].reshape(x.shape) >= self.dropout"},
            seen="1,024 rows have 512 different masks."),
    Mistake("MaskPerSequence", "shared-mask",
            {"random(x.shape)": "random(x[..., :1, :].shape if x.ndim > 2 else x.shape)"},
            seen="1,024 rows have 32 different masks."),
    Mistake("MaskPerRow", "mask-per-row", {"random(x.shape)": "random((*x.shape[:-1], 1))"}),
    "each forward pass has its own mask",
    Mistake("OneOutputArray", "kept", {
        "return x @ W.T + update.reshape(*x.shape[:-1], self.out_features)":
            "if getattr(self, \"out\", W[0]).shape != (*x.shape[:-1], self.out_features):\n"
            "    self.out = np.empty((*x.shape[:-1], self.out_features), x.dtype)\n"
            "self.out[...] = x @ W.T + update.reshape(self.out.shape)\nreturn self.out"},
            seen="An input and its negative gave the same output, or one array for both"),
    Mistake("FixedMask", "fixed-mask",
            {KEPT: 'kept = getattr(self, "kept", None)\n'
                   "if kept is None or kept.shape != x.shape:\n"
                   "    kept = self.kept = self.rng.random(x.shape) >= self.dropout"}),
    Mistake("MaskFromTheInput", "fixed-mask",
            {"self.rng.random(x.shape)":
             "np.random.default_rng(abs(hash(x.tobytes()))).random(x.shape)"},
            seen="Two forward passes of one input gave the same output, and those of two"),
    Mistake("FixedCountInRow", "fixed-count",
            {KEPT: "kept = np.ones(x.shape)\n"
                   "kept[..., :round(self.dropout * x.shape[-1])] = 0\n"
                   "kept = self.rng.permuted(kept, axis=-1)"},
            seen="In each row 24 entries are kept."),
    Mistake("FixedCount", "fixed-count",
            {KEPT: "kept = np.arange(x.size) >= round(self.dropout * x.size)\n"
                   "kept = self.rng.permutation(kept).reshape(x.shape)"},
            seen="In each forward pass 3,072 entries are kept."),
    Mistake("RateInPercent", "wrong-rate",
            {KEPT: "kept = self.rng.integers(0, 100, x.shape) >= int(100 * self.dropout)"},
            seen="At a rate of 0.0015 a share of 1 was kept."),
    "masks come from rng, and stop once training is False",
    Mistake("KeepsTheNegative", "mask-from-input", {
        "self.rng.random(x.shape) >= self.dropout":
        "(self.rng.random(x.shape) >= self.dropout) | (x < 0)"}),
    Mistake("OneSeedForAllMasks", "ignores-rng", start("self.rng = np.random.default_rng(0)")),
    Mistake("IgnoresRng", "ignores-rng",
            {"self.rng.random(x.shape)": "np.random.default_rng().random(x.shape)"}),
    Mistake("NeedsRng", "raised", {"np.random.default_rng(rng)": "rng"}),  # fails when left out
    Mistake("FlagReadOnce", "active-in-evaluation",  # in the first forward pass
            {"if self.training and": 'if self.__dict__.setdefault("first", self.training) and'},
            seen="With training set to False later on, entries are dropped."),
    "the same masks act on any X, A, B and s; dtypes stay as they are",
    Mistake("MaskForInput", "operand", {"dropped = x * mask": "dropped = mask"},
            seen="The output in training: M without 1/(1-p) in the place of x"),
    Mistake("DoubleMask", "wrong-dtype",  # the stumbling block of most
            {"kept.astype(x.dtype) / x.dtype.type(1 - self.dropout)": "kept / (1 - self.dropout)"},
            seen="forward in training: float32 in gave float64 out."),
    "left out, alpha is 16 and the rate 0.1",
    Mistake("DefaultAlpha", "signature", {"alpha: float = 16.0": "alpha: float = 8.0"},
            seen="With alpha left out, what is kept of an input of ones becomes 1, expected 2."),
    Mistake("DefaultRate", "signature", {"dropout: float = 0.1": "dropout: float = 0.0"},
            seen="With dropout left out, what is kept of an input of ones becomes 2, "
                 "expected 2.222."),
    "backward refuses to be first, and another shape",
    Mistake("BackwardFirst", "backward-first",
            {"rows = self._rem": "if not self.cache:\n"
                                 "    return grad_output @ self.B @ self.A\n"
                                 "rows = self._rem"}),
    "without dropout they are those of plain LoRA",
    Mistake("FrozenGradientLost", "terms", {BACK: "return through_update"}),
    Mistake("AxesSwapped", "operand",  # x and its gradient flattened in another order
            backward("turned = grad_output.swapaxes(0, max(grad_output.ndim - 2, 0))")
            | {"GB.T @ rows": "(turned.reshape(G.shape) @ self.B).T @ rows * self.scaling"}),
    Mistake("Averaged", "factor",
            {"GB.T @ rows": "GB.T @ rows / len(G)", "= G.T @ (": "= G.T / len(G) @ ("}),
    Mistake("NoMaskAtZero", "raised",  # forward makes none at a rate of 0
            {"if mask is not None": "if self.training"}),
    "with dropout they use the mask of their own forward pass",
    Mistake("MaskOnTheClass", "shared",
            {'self.cache = {"x": rows': 'type(self).mask = mask\nself.cache = {"x": rows',
             "through_update * mask": "through_update * self.mask"},
            seen="The gradient of x equals what this mistake gives."),
    Mistake("PlainInputOfOneRow", "operand",
            {"GB.T @ rows": 'GB.T @ (rows if len(shape) > 1 else self.cache["plain"])',
             '"shape": x.shape}': '"shape": x.shape, "plain": x.reshape(-1, self.in_features)}'},
            seen="The gradient of A: M left out"),
    Mistake("OtherMaskInBackward", "other-mask-in-backward",
            {"through_update * mask": "through_update * self.rng.permutation(mask)"}),
    Mistake("UnmaskedA", "operand", {'"x": rows': '"x": x.reshape(rows.shape)'}),
    Mistake("UnscaledX", "terms",
            {"through_update * mask": "through_update * (mask > 0)"}),
    Mistake("MaskOnAll", "mask-on-whole-gradient",
            {BACK: "return grad_output @ W * (1 if mask is None else mask) + through_update"}),
    Mistake("MaskedTwice", "factor",  # forward has kept the masked input
            backward("rows = rows if mask is None else rows * mask.reshape(rows.shape)"),
            seen="The gradient of A: multiplied by 1/(1-p)."),
    "backward follows the last forward, not the flag",
    Mistake("StaleMask", "stale-mask",  # keeps the last one there was
            {'"mask": mask': '"mask": self.cache.get("mask") if mask is None else mask'}),
    Mistake("FlagInBackward", "flag-in-backward",
            {'"x": rows': '"x": x.reshape(rows.shape)'}
            | backward("mask = mask if self.training else None\n"
                       "rows = rows if mask is None else rows * mask.reshape(rows.shape)\n"
                       "Ax = rows @ self.A.T")),
    "each step goes by the arrays and the input of its own forward",
    Mistake("KeepsNothingAtZero", "range",
            {'self.cache = {"x": rows': 'if not self.B.any():\n    return x @ W.T\n'
                                        'self.cache = {"x": rows'},
            seen="With zeros in B the gradient of x is wrong"),
    Mistake("FirstFrozenWeight", "kept",
            {'"W": W,': '"W": self.__dict__.setdefault("first", W),'},
            seen="In call 2, with other numbers in the arrays and another input, the gradient of x "
                 "is wrong."),
    Mistake("RateOnTheClass", "shared", {"self.dropout = check": "type(self).dropout = check"}),
    "the merged weight is W + s B A",
    Mistake("MergesCopy", "terms", merge("return W.copy()")),
    Mistake("MergedWithMask", "merged-with-mask",
            merge("mask = (self.rng.random(W.shape[1]) >= self.dropout) / (1 - self.dropout)\n"
                  "return (W + self.delta_weight() * mask).astype(W.dtype)")),
    Mistake("MergesInDouble", "wrong-dtype",
            merge("return super().merge_weights(W).astype(np.float64)"),
            seen="merge_weights: float32 in gave float64 out."),
    "training and merging leave each other alone",
    Mistake("MergeForgetsForward", "merge-changes",
            method("def merge_weights(self, W):\n"
                   "    self.cache = {}\n    return super().merge_weights(W)"),
            seen="With a merge between forward and backward, backward stops: "),
    Mistake("MergedWithLastMask", "merged-with-mask",
            merge('mask = self.cache.get("mask")\n'
                  "mask = 1 if mask is None else mask.reshape(-1, self.in_features)[0]\n"
                  "return super().merge_weights(W) + self.delta_weight() * (mask - 1)"),
            seen="A forward pass in training changed the merged weight."),
    Mistake("MergeEndsTraining", "merge-changes",
            merge("self.training = False\nreturn super().merge_weights(W)"),
            seen="training was True, and is False after the merge."),
    Mistake("MergesByForward", "merge-changes",  # the output for the unit matrix
            merge("flag, self.training = self.training, False\n"
                  "merged = self.forward(np.eye(self.in_features, dtype=W.dtype), W).T\n"
                  "self.training = flag\n"
                  "return merged"),
            seen="With a merge between forward and backward, the gradient of x is wrong."),
    Mistake("DeadParameters", "dead-parameters",  # keeps B A from the start of the step
            merge('return W + self.__dict__.setdefault("kept", super().merge_weights(W) - W)')),
    "rates outside 0 <= p < 1, and a rank of 0, are refused",
    Mistake("NoDropoutParameter", "signature",
            {"dropout: float = 0.1": "rate: float = 0.1",
             "check_rate(dropout)": "check_rate(rate)"}),
    Mistake("RateNotChecked", "rate-not-checked", {"check_rate(dropout)": "dropout"}),
    Mistake("NegativeAccepted", "rate-not-checked", {"if not 0 <= rate < 1": "if not rate < 1"},
            seen="dropout=-0.1 raised no ValueError or TypeError."),
    Mistake("NanAccepted", "rate-not-checked",  # both comparisons are false for NaN
            {"if not 0 <= rate < 1": "if rate < 0 or rate >= 1"},
            seen="dropout=nan raised no ValueError or TypeError."),
    Mistake("RankNotChecked", "accepts-nonsense",
            {"rank, alpha, dtype=": "max(rank, 1), alpha, dtype="},
            seen="rank=0 raised no ValueError or TypeError."),
    "wrong shapes of x, W and grad_output are refused",
    Mistake("NoWidthOfX", "accepts-nonsense",
            {'check_shape("x", x, (..., self.in_features))':
             "x = np.broadcast_to(x, (*x.shape[:-1], self.in_features))"},
            seen="an x of width 1 raised no ValueError or TypeError."),
    Mistake("OneRowOfW", "accepts-nonsense", {CHECK_W: ""},  # its one output is added to all others
            seen="a W of shape (1, 6) raised no ValueError or TypeError."),
    Mistake("GradOutputNotChecked", "accepts-nonsense",  # as many rows, in another shape
            backward("grad_output = grad_output.reshape(*shape[:-1], -1)"),
            seen="a gradient of shape (7, 2, 5) for one of (2, 7, 5) raised no"),
    "sizes that are equal, or 1, change nothing",
    Mistake("MergesTransposedIfSquare", "sizes",
            merge("update = self.delta_weight()\n"
                  "return W + (update.T if len(set(W.shape)) == 1 else update)"),
            seen="Where in is 6, out 6 and the rank 6"),
    "wrong shapes of W are refused",
    Mistake("MergesOneRow", "accepts-nonsense", merge("return W + self.delta_weight()"),
            seen="a W of shape (1, 6) raised no ValueError or TypeError."),
]
