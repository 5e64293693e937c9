"""Exercise 5: plausible wrong answers, each with the diagnosis that it must get.

Two the check can't tell apart: a prompt placed behind the input, and one hidden by the mask. Both
are attention without a prompt, and get the same diagnosis.
"""

from exercises.mistakes import Mistake, around

PROMPTED = "E = self.prompt.forward(embeds)"
PROJECTED = "Q, K, V = self.q.forward(E), E @ self.wk.T, self.v.forward(E)"
MASK = "np.tri(E.shape[-2], dtype=bool)"
MASKED = f"np.where({MASK}, S, -np.inf)"
MAXIMUM = "S.max(axis=-1, keepdims=True)"
OUTPUT = "Y[..., self.prompt.prompt_length:, :]"
KEY_PATH = "gE + gS.swapaxes(-1, -2) @ Q @ self.wk"
BACK = "return self.prompt.backward(gE)"
RNG = "default_rng(rng)"
SUM = "return sum(array.size for array in self.parameters().values())"


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.cache = None": f"self.cache = None\n{code}"}


def prompt(code):
    """Edits after which the prompt that forward reads is what `code` says."""
    return {PROMPTED: f"{PROMPTED}\nnow = self.prompt.prompt.copy()\n"
                      f"E[..., :len(now), :] = {code}"}


def project(code):
    """Edits that put `code` behind the projections."""
    return {PROJECTED: f"{PROJECTED}\nP = self.prompt.prompt_length\n{code}"}


def mask(code):
    """Edits after which each position sees what `code` says, of n positions, P of them virtual."""
    return {f"S = np.where({MASK}": f"n, P = E.shape[-2], self.prompt.prompt_length\n"
                                    f"S = np.where({code}"}


def remember(code):
    """Edits that put `code` before forward's line that fills the cache."""
    return {"self.cache = Q": f"{code}\nself.cache = Q"}


def back(code):
    """Edits that end backward with `code`."""
    return {BACK: f"back = self.prompt.backward(gE)\n{code}\nreturn back"}



MISTAKES = [
    "the layer can be made, and one dictionary names all five arrays",
    Mistake("NamesCollide", "names-collide", {'f"q.{name}"': "name", 'f"v.{name}"': "name"}),
    Mistake("OtherNames", "signature", {'f"q.{name}"': 'f"q_{name}"', 'f"v.{name}"': 'f"v_{name}"'},
            seen="parameters() has the keys ['prompt', 'q_A', 'q_B', 'v_A', 'v_B']"),
    Mistake("RenamesTheLength", "signature",
            {"prompt_length: int = 20": "length: int = 20", "(d, prompt_length": "(d, length"}),
    Mistake("OtherDefaultRank", "signature", {"lora_rank: int = 8": "lora_rank: int = 4"},
            seen="Made from the weights alone, q.A has shape (4, 5) and the prompt (20, 5)"),
    Mistake("CopiesAsParameters", "dead-parameters",
            around("parameters", "{name: array.copy() for name, array in right.items()}")),
    "their shapes, their number, and the weights' dtype",
    Mistake("CountsLoRAOnly", "values",
            {SUM: "return self.q.num_parameters() + self.v.num_parameters()"},
            seen="num_parameters() gave 40, expected 60"),
    Mistake("SharedArrays", "shared-arrays", start("self.v.lora.A = self.q.lora.A")),
    Mistake("TransposedA", "wrong-shape", start("self.q.lora.A = self.q.lora.A.T.copy()"),
            seen="q.A has shape (5, 2), expected (2, 5)"),
    Mistake("OtherDtype", "wrong-dtype",  # one that is fixed; here it is always the other one
            {"dtype=wq.dtype": "dtype=np.float32 if wq.dtype == np.float64 else np.float64"},
            seen="prompt is float"),
    "both updates are zero at the start, yet can learn",
    Mistake("BothZero", "both-zero", start("self.v.lora.A[...] = 0")),
    Mistake("BothRandom", "start-not-frozen", start("self.q.lora.B[...] = 0.1")),
    "the same seed gives the same layer, another seed another",
    Mistake("PromptOfZeros", "starts-alike", start("self.prompt.prompt[...] = 0"),
            seen="prompt has not the rank 4."),
    Mistake("EqualRows", "starts-alike",  # draws one row, and NumPy fills the others with it
            start("self.q.lora.A[...] = self.q.lora.A[:1]"), seen="q.A has not the rank 2."),
    Mistake("EqualStarts", "starts-alike",  # hands the same seed to both
            start("self.v.lora.A[...] = self.q.lora.A")),
    Mistake("RngIgnored", "ignores-rng", {RNG: "default_rng()"}),
    Mistake("OneSeedForAll", "ignores-rng", {RNG: "default_rng(0)"}),
    Mistake("NoneIsSeedZero", "ignores-rng", {RNG: "default_rng(rng or 0)"}),
    "the output has the input's length; another width is refused",
    Mistake("PromptReturned", "prompt-scored", {OUTPUT: "Y"}),
    Mistake("DropsBatchOfOne", "wrong-shape",
            {OUTPUT: f"{OUTPUT}[0] if len(embeds) == 1 else {OUTPUT}"},
            seen="the output has shape (7, 5), expected (1, 7, 5)"),
    Mistake("RepeatsOneColumn", "accepts-nonsense",  # NumPy does so where the input is too narrow
            {'check_shape("embeds"': "embeds = embeds + np.zeros(self.d_model, embeds.dtype)\n"
                                     'check_shape("embeds"'},
            seen="an input of width 1 raised no ValueError or TypeError."),
    "a fresh layer is the frozen attention behind its prompt",
    Mistake("SoftCap", "inner",
            {f"S = np.where({MASK}": f"S = 30 * np.tanh(S / 30)\nS = np.where({MASK}"},
            seen="The output: S capped softly at 30."),
    Mistake("FartherIsLess", "inner",  # a bias on the scores, as ALiBi's
            {f"S = np.where({MASK}": "at = np.arange(S.shape[-1])\n"
             f"S = S - 0.07 * abs(at[:, None] - at)\nS = np.where({MASK}"},
            seen="The output: S plus the distance times -0.07."),
    Mistake("RootOfTheLength", "inner",
            {"scale = float(self.d_model)": "scale = float(embeds.shape[-2])"},
            seen="The output: Q K^T over the root of the number of positions"),
    Mistake("ShiftedByTheColumns", "inner",
            {"S.max(axis=-1, keepdims=True)": "S.max(axis=-2, keepdims=True)"},
            seen="The output: exponentials of S less its largest over the queries"),
    Mistake("FirstRows", "wrong-rows", {OUTPUT: "Y[..., :-self.prompt.prompt_length, :]"}),
    Mistake("PromptHidden", "prompt-ignored",
            mask("np.tri(n, dtype=bool) & ((np.arange(n)[:, None] < P) | (np.arange(n) >= P))")),
    Mistake("PromptAsKeys", "inner",
            project("K[..., :P, :] = V[..., :P, :] = E[..., :P, :]")),
    Mistake("NoMask", "no-causal-mask", {MASK: "True"}),
    Mistake("NoOutputProjection", "another", {"Pi @ V @ self.wo.T": "Pi @ V"}),
    "the output with all five arrays filled",
    Mistake("LoRAOnRealOnly", "inner",
            project("Q[..., :P, :] = E[..., :P, :] @ self.q.weight.T\n"
                    "V[..., :P, :] = E[..., :P, :] @ self.v.weight.T")),
    Mistake("LoRAsExchanged", "values",
            {"self.q.parameters(), self.v.p": "self.v.parameters(), self.q.p"}),
    "no position sees a later one, every one sees the prompt",
    Mistake("LooseMask", "nearly",  # hides with a number that is large beside small scores
            {MASKED: f"np.where({MASK}, S, S - 40)"},
            seen="A large change at position 4 changed the outputs before it, a small one did"),
    Mistake("OneMaximum", "maximum-of-more", {MAXIMUM: "S.max()"}),
    Mistake("HiddenMaximum", "maximum-of-more",  # of what a row must not see, too
            {MASKED: "S", "Pi /= Pi": "Pi *= np.tri(E.shape[-2], dtype=E.dtype)\nPi /= Pi"}),
    Mistake("CachedPrompt", "not-all-arrays-move",  # as it was when forward was first called
            prompt('self.__dict__.setdefault("first", now)'),
            seen="The prompt was changed in place, and no output changed."),
    "scores of a thousand do not overflow",
    Mistake("Overflows", "not-finite", {f" - {MAXIMUM}": ""}),
    "dtypes stay as they are",
    Mistake("SingleOnTheWay", "wrong-dtype",
            {"Pi = np.exp(": "S = S.astype(np.float32).astype(S.dtype)\nPi = np.exp("},
            seen="forward: float64 in gave float64 out, but it is off by"),
    "backward before forward raises RuntimeError",
    Mistake("BackwardFirst", "backward-first",
            {"if self.cache is": "if self.cache is None: self.forward(np.zeros_like(grad_output))\n"
                                 "if self.cache is"}),
    "gradients have the shapes of what they belong to",
    Mistake("PromptPerSequence", "prompt-not-summed",
            back("self.prompt.prompt_grad = gE[..., :P, :]")),
    Mistake("SqueezesBack", "wrong-shape", {BACK: f"{BACK}.squeeze()"}),
    "the gradients of both LoRA updates",
    Mistake("RowsPutBackWrong", "inner", {"G[..., P:, :] =": "G[..., :-P, :] ="}),
    Mistake("GradientsOverwritten", "another",
            {"self.q.gradients()": "self.v.gradients()"}),
    Mistake("QueriesUnscaled", "inner",
            {"self.q.backward(gS @ K)": "self.q.backward(float(self.d_model) ** 0.5 * gS @ K)"},
            seen="The gradients of q.B, q.A and x: the gradient of Q multiplied by √d."),
    Mistake("MeanOverTheKeys", "inner",
            {"(Phi * Pi).sum(axis=-1": "(Phi * Pi).mean(axis=-1"},
            seen="The gradients of q.B, q.A, prompt and x: the softmax's pull multiplied by 1/(an "
                 "axis of 11)"),
    "the prompt's gradient, summed over the batch",
    Mistake("KeysNotTransposed", "inner", {"gS.swapaxes(-1, -2) @ Q": "gS @ Q"}),
    Mistake("PromptAveraged", "factor",
            {"v.gradients(), self.prompt.gradients()": "v.gradients(), {\n"
             "    'prompt': self.prompt.prompt_grad / len(self.cache[0])}"},
            seen="The gradient of prompt: multiplied by 1/batch."),
    Mistake("KeyPathLost", "terms", {KEY_PATH: "gE"}),
    Mistake("PromptLost", "prompt-gradient-lost",
            back("self.prompt.prompt_grad = np.zeros_like(self.prompt.prompt)")),
    Mistake("FirstSequenceOnly", "another", back("self.prompt.prompt_grad = gE[0, :P]")),
    Mistake("NothingToSum", "turned",  # takes a batch of one for none, and sums over the prompt
            back("if len(gE) == 1:\n"
                 "    self.prompt.prompt_grad[:] = self.prompt.prompt_grad.sum(axis=0)"),
            seen="The gradient of prompt: the sum along axis 0 for all."),
    "the input's gradient",
    Mistake("FrontRowsGoBack", "operand",
            {BACK: "self.prompt.backward(gE)\nreturn gE[..., :rows - P, :]"},
            seen="The gradient of x: the first rows in the place of behind."),
    "one optimizer over the one dictionary moves all five arrays",
    Mistake("RemembersTheInput", "kept",
            {"E = self.prompt.forward(embeds)": "if self.__dict__.get('last') is embeds:\n"
             "    return self.out.copy()\nself.last = embeds\nE = self.prompt.forward(embeds)",
             "return Y[..., self.prompt.prompt_length:, :]":
             "self.out = Y[..., self.prompt.prompt_length:, :]\nreturn self.out.copy()"},
            seen="A step on q.A changed the output for a copy of x"),
    Mistake("FrozenChanged", "frozen-changed", back("self.wk *= 1 - 1e-7  # weight decay for all")),
    Mistake("CachedPromptKeys", "kept",  # as those of past tokens, when a text is generated
            project('K[..., :P, :] = self.__dict__.setdefault("kept", K[0, :P].copy())'),
            seen="The output after a step on prompt: K of the step before"),
    "each step goes by the arrays and the input of its own forward",
    Mistake("SwapsEqualAxes", "sizes",
            {"return Y[..., self.prompt.prompt_length:, :]":
             "Y = Y[..., self.prompt.prompt_length:, :]\n"
             "return Y.swapaxes(0, 1) if Y.shape[0] == Y.shape[1] else Y"},
            seen="With 7 sequences of 7 rows"),
    Mistake("FrozenOnTheClass", "shared",
            {"self.wk, self.wo = ": "type(self).wk, type(self).wo = "}),
    Mistake("NewArraysInForward", "dead-parameters",  # an optimizer holds the array of before
            remember("self.q.lora.A = self.q.lora.A.copy()"),
            seen="A forward or backward has put another array in the place of q.A."),
    Mistake("KeepsTheFirstForward", "kept",  # right in every test that makes one step
            {"self.cache = Q, K, V, Pi": "self.cache = self.cache or (Q, K, V, Pi)"},
            seen="In call 2, with other numbers in the arrays and another input, "
                 "the gradient of x is"),
    "sizes that make no sense are refused",
    Mistake("OtherSquares", "accepts-nonsense",
            {"check_weights(name, weight, (d, d))":
             "check_weights(name, weight, (len(weight), len(weight)))"},
            seen="wq with fewer rows and columns raised no ValueError"),
    Mistake("AcceptsNoPrompt", "accepts-nonsense", {"(d, prompt_length": "(d, prompt_length or 1"},
            seen="prompt_length=0 raised no"),
    Mistake("AcceptsNoRank", "accepts-nonsense",
            {"self.wk, self.wo =": "lora_rank = lora_rank or 1\nself.wk, self.wo ="},
            seen="lora_rank=0 raised no"),
    Mistake("AcceptsOtherWidth", "accepts-nonsense", {', ("wk", wk)': ""},
            seen="wk with fewer columns raised no"),
    Mistake("OnlyShapesThatAgree", "accepts-nonsense",  # with each other, and no square
            {"weight, (d, d)": "weight, wq.shape"}, seen="four weights of shape (5, 3) raised no"),
    "a gradient of another shape than the output's is refused",
    Mistake("OneSequenceForAll", "accepts-nonsense",  # NumPy repeats what is too short
            {"(*lead, rows - P, d)": "(..., rows - P, d)"},
            seen="a gradient of shape (1, 7, 5) for one of (3, 7, 5) raised no"),
]
