"""Exercise 4: plausible wrong answers, each with the diagnosis that it must get.

"Not summed over the batch" is no mistake that can be made here: the sum is
`PrefixTuning.backward`'s.
"""

from exercises.mistakes import Mistake, around, method

LAID_OUT = "F.transpose(1, 2, 0, 3, 4)"
RETURN = f"return {LAID_OUT}.copy()"
LAID_BACK = "grad_prefix.transpose(2, 0, 1, 3, 4)"
SLOPE = "(1 - T * T)"
FILL = "prefix.prefix[...] = self.forward()"
PREFIX = "return prefix"


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.cache = {}": f"self.cache = {{}}\n{code}"}


MISTAKES = [
    "the MLP can be made and trains E, W1, b1, W2 and b2",
    Mistake("RenamesTheSizes", "signature",
            {"embed_dim: int = 64": "width: int = 64", '"embed_dim", embed_dim': '"width", width'},
            seen="The call itself failed."),
    "the five arrays have their shapes, in the dtype asked for",
    Mistake("OtherDefault", "signature", {"prefix_length: int = 10": "prefix_length: int = 20"},
            seen="By default E is float32 of shape (20, 64), expected float32 of (10, 64)."),
    Mistake("OtherDtype", "signature", {"dtype: Any = np.float32": "dtype: Any = np.float64"},
            seen="By default E is float64"),
    Mistake("IgnoresDtype", "wrong-dtype", {"check_dtype(dtype)": "np.float64"},
            seen="dtype=float32 was asked for, E is float64"),
    Mistake("FirstWeightTransposed", "wrong-shape", start("self.W1 = self.W1.T.copy()"),
            seen="W1 has shape (6, 7), expected (7, 6)"),
    "num_parameters() counts what is trained",
    Mistake("CountsStored", "stored-for-trained",
            method("def num_parameters(self):\n    return self.prefix_length * self.b2.size")),
    "a random start from rng that can learn",
    Mistake("AllZero", "zero-start", start("self.W1[...] = self.W2[...] = 0")),
    Mistake("EqualUnits", "equal-units",
            start("self.W1[...], self.W2[...] = 0.01, self.W2[:, :1]")),
    Mistake("TwoEqualUnits", "equal-units",
            start("self.W1[-1], self.W2[:, -1] = self.W1[0], self.W2[:, 0]")),
    Mistake("EqualTokens", "starts-alike", start("self.E[...] = self.E[0]")),
    Mistake("ZeroTokens", "starts-alike", start("self.E[...] = 0")),
    Mistake("IgnoresRng", "ignores-rng", {"default_rng(rng)": "default_rng()"}),
    Mistake("OneSeed", "ignores-rng", {"default_rng(rng)": "default_rng(42)"}),
    Mistake("OneSeedWithoutRng", "ignores-rng", {"default_rng(rng)": "default_rng(rng or 0)"}),
    Mistake("OwnGeneratorForW2", "ignores-rng",
            {"self.W2, self.b2 = normal": "rng = np.random.default_rng()\n"
                                          "self.W2, self.b2 = normal"}),
    "forward gives (L, 2, P, H, dh)",
    Mistake("TokensFirst", "wrong-shape", {LAID_OUT: "F"},
            seen="PrefixMLP.forward has shape (4, 3, 2, 2, 5), expected (3, 2, 4, 2, 5)"),
    Mistake("NormalisesInForward", "writes-parameters",
            {"T = np.tanh(": "self.E /= np.abs(self.E).max() or 1\nT = np.tanh("}),
    "the numbers are those of the MLP, in their layout",
    Mistake("NoTanh", "operand", {"np.tanh(": "(", SLOPE: "1"}),
    Mistake("TanhOnOutput", "another", {"F = F.reshape(": "F = np.tanh(F).reshape("}),
    Mistake("NoOutputBias", "terms", {"self.W2.T + self.b2": "self.W2.T"}),
    Mistake("KeysValuesSwapped", "layout",
            {LAID_OUT: LAID_OUT + "[:, ::-1]",
             "grad_prefix.transpose": "grad_prefix[:, ::-1].transpose"}),
    Mistake("HeadsSwapped", "layout",
            {"2, self.num_heads, self.d_head": "2, self.d_head, self.num_heads",
             LAID_OUT: "F.transpose(1, 2, 0, 4, 3)"}),
    Mistake("MovedAndReshaped", "layout",
            {LAID_OUT: "F.transpose(1, 2, 3, 0, 4).reshape(F.transpose(1, 2, 0, 3, 4).shape)"},
            seen="The prefix in rows: F moved to (L, 2, H, P, dh) and reshaped."),
    Mistake("ReshapedNotMoved", "layout",
            {"self.prefix_length, self.num_layers, 2,": "self.num_layers, 2, self.prefix_length,",
             LAID_OUT: "F"}),
    "each forward makes the prefix anew from parameters()",
    Mistake("RemembersThePrefix", "kept",
            around("forward", 'self.__dict__.setdefault("made", right).copy()')),
    Mistake("LeavesOutW1", "kept",  # follows the other arrays, and of W1 it has a copy
            {"self.E @ self.W1.T": 'self.E @ self.__dict__.setdefault("first", self.W1.copy()).T'}),
    "backward before forward raises RuntimeError",
    Mistake("BackwardFirst", "backward-first",
            {"T, P = self._rem": "if not self.cache: self.forward()\nT, P = self._rem"}),
    "gradients have the shapes of what they belong to",
    Mistake("SqueezesGradients", "wrong-shape", {"R @ self.W1": "(R @ self.W1).squeeze()"},
            seen="the gradient of E has shape (), expected (1, 1)."),
    Mistake("KeepsAnAxis", "wrong-shape", {"R.sum(axis=0": "R.sum(axis=0, keepdims=True"},
            seen="the gradient of b1 has shape (1, 7), expected (7,)"),
    Mistake("ReturnsAGradient", "wrong-type", {"R @ self.W1": "R @ self.W1\nreturn self.E_grad"},
            seen="backward gave ndarray, expected None"),
    Mistake("UpdatesItself", "writes-parameters",
            {"R = (Q": "self.b2 = self.b2 - 0.1 * self.b2_grad\nR = (Q"}),
    "the gradients of all five arrays",
    Mistake("SlopeOfTheSigmoid", "operand", {"(1 - T * T)": "(T * (1 - T))"},
            seen="The gradients of b1, W1 and E: T (1 - T) in the place of slope"),
    Mistake("OneOverCosh", "operand", {"(1 - T * T)": "np.sqrt(1 - T * T)"},
            seen="The gradients of b1, W1 and E: the root of slope"),
    Mistake("NoSlope", "operand", {SLOPE: "1"}),
    Mistake("KeepsZ", "inner", {'"x": T': '"x": self.E @ self.W1.T + self.b1'},
            seen="The gradients of W2, b1, W1 and E: z in the place of T"),
    Mistake("WrongSignThroughout", "factor", {"Q = grad_prefix": "Q = -grad_prefix"},
            seen="The gradients of b2, W2, b1, W1 and E: negated."),
    Mistake("LayoutInBackward", "layout", {LAID_BACK: "grad_prefix"}),
    "backward uses the last forward and replaces the gradients",
    Mistake("HeadsOnTheClass", "shared", {"self.num_heads =": "type(self).num_heads ="}),
    Mistake("KeepsTheFirstT", "kept", {'= {"x": T}': '= self.cache or {"x": T}'}),
    "prefix and gradients are right where sizes are equal, too",
    Mistake("TurnsHeadsThatAreSquare", "sizes",
            {RETURN: "if self.num_heads == self.d_head:\n    F = F.swapaxes(3, 4)\n" + RETURN}),
    "dtypes stay as they are",
    Mistake("ForgetsDtype", "wrong-dtype", {RETURN: RETURN + ".astype(np.float64)"},
            seen="forward: float32 in gave float64"),
    "to_prefix() gives a peft.PrefixTuning of the stored size",
    Mistake("BareArray", "wrong-type", {PREFIX: "return prefix.prefix"},
            seen="PrefixMLP.to_prefix gave ndarray, expected PrefixTuning"),
    Mistake("KeepsTheMLP", "mlp-kept",
            {PREFIX: "mlp, kept = self.parameters(), prefix.prefix\n"
                     'prefix.parameters = lambda: {"prefix": kept, **mlp}\n'
                     "return prefix"}),
    Mistake("KeepsTheArrays", "mlp-kept",
            {PREFIX: "prefix.W2, prefix.E = self.W2.copy(), self.E.copy()\nreturn prefix"}),
    Mistake("KeepsItself", "mlp-kept", {PREFIX: "prefix.mlp = self\nreturn prefix"},
            seen="Its attribute mlp is"),
    Mistake("WrongSizes", "wrong-shape",  # the array of the right shape hides the other length
            {"self.prefix_length, dtype": "dtype", FILL: "prefix.prefix = self.forward()"},
            seen="prefix_length of the prefix is 10, expected 4."),
    Mistake("TokensFirstInPrefix", "wrong-shape",
            {FILL: "prefix.prefix = self.forward().transpose(2, 0, 1, 3, 4).copy()"},
            seen="the prefix has shape (4, 3, 2, 2, 5)"),
    Mistake("EmptiesTheMLP", "writes-parameters", {PREFIX: "self.W1[...] = 0\nreturn prefix"}),
    "it holds what the MLP gives now",
    Mistake("FreshBeforeForward", "prefix-unfilled", {FILL: f"if self.cache: {FILL}"}),
    Mistake("ThroughTanh", "another", {"= self.forward()": "= np.tanh(self.forward())"}),
    Mistake("ReshapesInToPrefix", "layout",
            {FILL: "self.forward()\n"
                   'F = self.cache["x"] @ self.W2.T + self.b2\n'
                   "prefix.prefix[...] = F.reshape(prefix.prefix.shape)"}),
    Mistake("RemembersToPrefix", "kept",
            {PREFIX: 'return self.__dict__.setdefault("stored", prefix)'}),
    Mistake("Stale", "kept",  # copies what the last forward gave
            {RETURN: f"self.last = {LAID_OUT}.copy()\nreturn self.last.copy()",
             "= self.forward()": '= self.last if hasattr(self, "last") else self.forward()'}),
    Mistake("UsesTheOldT", "kept",  # today's W2 and b2, but T of the last forward
            {FILL: f'self.old = self.cache.get("x")\n{FILL}',
             "F = T @": 'if self.__dict__.get("old") is not None: T, self.old = self.old, None\n'
                        "F = T @"}),
    "a whole batch that uses the prefix trains the MLP",
    Mistake("FreezesTheMLP", "factor",  # takes it for finished once a prefix was made of it
            {PREFIX: "self.frozen = True\nreturn prefix",
             "R = (Q": 'if hasattr(self, "frozen"): self.b2_grad[...] = 0\nR = (Q'}),
    Mistake("ForgetsTheRun", "forgets", {PREFIX: "self.cache.clear()\nreturn prefix"},
            seen="RuntimeError"),
    "it is a copy that later training does not change",
    Mistake("RefillsOnePrefix", "kept",
            {PREFIX: 'stored = self.__dict__.setdefault("stored", prefix)\n'
                     "stored.prefix[...] = prefix.prefix\n"
                     "return stored"},
            seen="The prefix changed when the MLP was trained on."),
    Mistake("HandsOutItsMemory", "handed-out",  # computes only if an array has changed
            {RETURN: "state = [array.tobytes() for array in self.parameters().values()]\n"
                     'if state != self.__dict__.get("state"):\n'
                     f"    self.state, self.made = state, {LAID_OUT}.copy()\n"
                     "return self.made",
             FILL: "prefix.prefix = self.forward()"},
            seen="the prefix shares its memory"),
    "the prefix keeps the dtype",
    Mistake("PrefixForgetsDtype", "wrong-dtype", {", dtype=self.E.dtype": ""},
            seen="to_prefix: float64 in gave float32 out."),
    "sizes that make no sense are refused",
    *[Mistake(f"Accepts{name}", "accepts-nonsense",
              {f'check_count("{size}", {size})': f'check_count("{size}", {taken})'},
              seen=f"{size}={refused} raised no")
      for name, size, refused, taken in [
          ("Nonsense", "prefix_length", "0", "prefix_length or 1"),
          ("NoWidth", "embed_dim", "0", "embed_dim or 1"),
          ("NegativeWidth", "embed_dim", "-1", "abs(embed_dim)"),
          ("NoHiddenLayer", "hidden_dim", "0", "hidden_dim or 1"),
          ("Fractions", "hidden_dim", "2.5", "int(hidden_dim)"),
          ("NoLayer", "num_layers", "0", "num_layers or 1"),
          ("NoHead", "num_heads", "0", "num_heads or 1"),
          ("NoHeadWidth", "d_head", "0", "d_head or 1")]],
    "a gradient of another shape is refused",
    Mistake("TakesAnyGradient", "accepts-nonsense",
            {'check_shape("grad_prefix", grad_prefix,': "grad_prefix = grad_prefix.reshape("},
            seen="a gradient of shape (3, 2, 4, 5, 2) for one of (3, 2, 4, 2, 5) raised no"),
    Mistake("TakesTokensFirst", "accepts-nonsense",
            {'check_shape("grad_prefix"': "if len(grad_prefix) == P != self.num_layers:\n"
                                          "    grad_prefix = grad_prefix.transpose(1, 2, 0, 3, 4)\n"
                                          'check_shape("grad_prefix"'},
            seen="a gradient of shape (4, 3, 2, 2, 5) for one of (3, 2, 4, 2, 5) raised no"),
    Mistake("SumsABatch", "accepts-nonsense",
            {'check_shape("grad_prefix"': "if grad_prefix.ndim > 5:\n"
                                          "    grad_prefix = grad_prefix.sum(axis=0)\n"
                                          'check_shape("grad_prefix"'},
            seen="a gradient of shape (2, 3, 2, 4, 2, 5) for one of (3, 2, 4, 2, 5) raised no"),
]
