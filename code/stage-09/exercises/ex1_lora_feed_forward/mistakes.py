"""Exercise 1: plausible wrong answers, each with the diagnosis that it must get."""

from exercises.mistakes import Mistake, around, method

OUTPUT = "return self.down.forward(silu * u)"
THROUGH_DOWN = "a = self.down.backward(grad_output)"
SLOPE = "(sig + silu * (1 - sig))"
BACK = "return self.gate.backward(grad_z) + self.up.backward(grad_u)"
MERGED = "return gate, up, down"
CHECK_UP = 'check_weights("up", up, (d_ff, d_model))'
CHECK_DOWN = 'check_weights("down", down, (d_model, d_ff))'


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.cache = {}": f"self.cache = {{}}\n{code}"}


MISTAKES = [
    "the block can be made and trains six arrays",
    Mistake("CountIsAProperty", "signature",
            method("@property\ndef num_parameters(self):\n    return 144"),
            seen="What should be a method is 144"),
    Mistake("OnlyGateAndUp", "two-of-three", {', "down": self.down}': "}"},
            seen="parameters() has nothing of down."),
    Mistake("OnlyGate", "two-of-three", {', "up": self.up, "down": self.down}': "}"},
            seen="parameters() has nothing of up and down."),
    Mistake("NamesOfHuggingFace", "signature",
            {"layer.parameters().items()":
             '((f"lora_{key}", array) for key, array in layer.parameters().items())'}),
    Mistake("CopiesAsParameters", "dead-parameters",
            around("parameters", "{key: array.copy() for key, array in right.items()}"),
            seen="Asked a second time, parameters() gave another array of gate.A."),
    Mistake("ParametersOfAGenerator", "dead-parameters",  # which is empty the second time
            {"def parameters(self) -> dict[str, np.ndarray]:\n"
             '        return {f"{name}.{key}": array for name, layer in self.projections.items()':
             "def parameters(self):\n"
             "        items = self.__dict__.setdefault('items', iter(self.projections.items()))\n"
             '        return {f"{name}.{key}": array for name, layer in items'},
            seen="Asked a second time, parameters() has 0 arrays, and before 6."),
    Mistake("CountsFrozen", "values",
            method("def num_parameters(self):\n"
                   "    frozen = sum(layer.weight.size for layer in self.projections.values())\n"
                   "    return super().num_parameters() + frozen"),
            seen="num_parameters() gave 324, expected 144."),
    Mistake("ShortNames", "signature",
            {"rank: int = 8": "r: int = 8", "lora_rank=rank": "lora_rank=r"},
            seen="The call itself failed."),
    Mistake("OtherDefaultRank", "signature", {"rank: int = 8": "rank: int = 4"},
            seen="Made without a rank, gate.A has shape (4, 6), expected rank 8."),
    "each A is (rank, in), each B is (out, rank), in the weights' dtype",
    Mistake("Transposed", "transposed",
            start("lora = self.down.lora\nlora.A, lora.B = lora.A.T.copy(), lora.B.T.copy()")),
    Mistake("Flattened", "wrong-shape", start("self.up.lora.A = self.up.lora.A.ravel()"),
            seen="up.A has shape (18,), expected (3, 6)."),
    "the updates are zero at the start, can learn, and come from rng",
    Mistake("CommonGenerator", "ignores-rng",
            {"class LoRAFeedForward(": "COMMON = np.random.default_rng(0)\nclass LoRAFeedForward(",
             "np.random.default_rng(rng)": "rng or COMMON"}, seen="Made without rng, it draws"),
    Mistake("DefaultIsAGenerator", "ignores-rng",
            {"rng: np.random.Generator | None = None": "rng=np.random.default_rng(0)"},
            seen="The default of rng is not None"),
    Mistake("BothZero", "both-zero",
            start("for layer in self.projections.values(): layer.lora.A[...] = 0")),
    Mistake("BothRandom", "start-not-frozen",
            start("for layer in self.projections.values():\n"
                  "    layer.lora.B[...] = 0.01 * rng.standard_normal(layer.lora.B.shape)")),
    Mistake("OwnRandomness", "ignores-rng", {"default_rng(rng)": "default_rng()"}),
    Mistake("AlwaysSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(0)"}),
    Mistake("NoneIsSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(rng or 0)"}),
    Mistake("EqualRows", "starts-alike",  # draws one row, and NumPy fills the others with it
            start("for layer in self.projections.values(): layer.lora.A[...] = layer.lora.A[0]"),
            seen="gate.A has not the rank 3."),
    Mistake("EqualStarts", "starts-alike", start("self.up.lora.A[...] = self.gate.lora.A"),
            seen="gate.A and up.A are the same."),
    "a fresh block equals the frozen one",
    Mistake("NoActivation", "operand", {"silu = z * sig": "silu = z"}),
    Mistake("Swapped", "gate-and-up-swapped", {"z, u = self.gate": "u, z = self.gate"}),
    Mistake("SumForProduct", "sum-for-product", {"silu * u)": "silu + u)"}),
    Mistake("SiluOnBoth", "silu-on-both", {"silu * u)": "silu * u * sigmoid(u))"}),
    Mistake("AddsX", "another", {OUTPUT: OUTPUT + " + x"}),
    "each of the three updates acts, with s = alpha / r",
    Mistake("DividesByTheRankTwice", "inner", {"lora_alpha=alpha": "lora_alpha=alpha / rank"},
            seen="The output: s/r in the place of s"),
    Mistake("NamesSwapped", "names-swapped",
            {'"gate": self.gate, "up": self.up': '"gate": self.up, "up": self.gate'}),
    Mistake("DownUpdateUnused", "two-of-three", {OUTPUT: "return (silu * u) @ self.down.weight.T"}),
    Mistake("AlphaNotOverR", "alpha-not-over-r", {"lora_alpha=alpha": "lora_alpha=alpha * rank"}),
    Mistake("AlphaNotPassed", "alpha-not-passed", {", lora_alpha=alpha": ""}),
    Mistake("FirstOfTheBatch", "turned",  # takes the other sequences for copies of it
            {OUTPUT: "out = self.down.forward(silu * u)\n"
                     "return np.broadcast_to(out[0], out.shape) if x.ndim == 3 else out"},
            seen="The output: the first along axis 0 for all."),
    Mistake("RowsOnly", "wrong-shape", {OUTPUT: OUTPUT + ".reshape(-1, x.shape[-1])"}),
    "large inputs stay finite",
    Mistake("Overflow", "overflow",
            {"0.5 * (1.0 + np.tanh(0.5 * z))": "np.exp(z) / (1 + np.exp(z))"}),
    Mistake("ClipsInput", "changes-input",  # keeps the exponential small
            {"z, u = self.gate": "np.clip(x, -100, 100, out=x)\nz, u = self.gate"}),
    Mistake("ClipsZ", "inner",
            {"u = self.gate.forward(x), ": "u = np.clip(self.gate.forward(x), -10, 10), "},
            seen="The output where each z is below -12: z clipped at 10"),
    Mistake("SigmoidCutOff", "digits",
            {"silu = z * sig": "sig = np.round(sig, 6)\nsilu = z * sig"},
            seen="The output where each z is below -12 is wrong."),
    "dtypes stay as they are",
    Mistake("SingleOnTheWay", "wrong-dtype",
            {"z, u = self.gate": "x = x.astype(np.float32).astype(x.dtype)\nz, u = self.gate"},
            seen="forward: float64 in gave float64 out, but it is off by"),
    "backward refuses to be first, and another shape",
    Mistake("BackwardFirst", "backward-first",
            {"u, sig, silu = self._rem": "if not self.cache:\n"
                                         "    return grad_output\n"
                                         "u, sig, silu = self._rem"}),
    Mistake("OneRowForAll", "accepts-nonsense",  # NumPy repeats a gradient that has too few rows
            {THROUGH_DOWN: "a = self.down.backward(grad_output + np.zeros_like(u[..., :1]))"},
            seen="a gradient of shape (1, 6) for one of (10, 6) raised no"),
    "of the six arrays and of x",
    Mistake("SlopeMadeOfSilu", "inner",
            {"(sig + silu * (1 - sig))": "sig * (1 + silu * (1 - sig))"},
            seen="The gradients of gate.B, gate.A and x: that with silu(z) for its z"),
    Mistake("SigmoidOverwritten", "inner", {"silu = z * sig": "silu = sig\nsilu *= z"},
            seen="The gradients of gate.B, gate.A and x: that with silu(z) for its sigmoid(z)"),
    Mistake("SlopeOfSigmoid", "operand", {SLOPE: "sig * (1 - sig)"}),
    Mistake("GradientsSwapped", "gate-and-up-swapped",
            {BACK: "return self.up.backward(grad_z) + self.gate.backward(grad_u)"}),
    Mistake("UpsGradientForBoth", "gate-and-up-swapped", {"backward(grad_z)": "backward(grad_u)"},
            seen="The gradient of gate.B equals"),
    Mistake("DownSeesSiluOnly", "operand",
            {"a = self.down": "self.down.forward(silu)\na = self.down"},
            seen="The gradients of down.B and down.A: u left out."),
    Mistake("SiluInPlace", "activation-in-place",  # what backward finds as z is silu(z) already
            {"silu = z * sig": "silu = z\nsilu *= sig", '"x": (u, sig, silu)': '"x": (u, z)',
             "u, sig, silu = self._remembered()":
             "u, z = self._remembered()\nsig = sigmoid(z)\nsilu = z * sig"}),
    Mistake("FrozenDownLost", "terms",
            {THROUGH_DOWN: f"{THROUGH_DOWN} - grad_output @ self.down.weight"}),
    Mistake("OnlyTheFrozenWayBack", "terms",
            {THROUGH_DOWN: f"{THROUGH_DOWN}\na = grad_output @ self.down.weight"},
            seen="The gradients of up.B, up.A, gate.B, gate.A and x: missing: the update of down"),
    Mistake("HalfTheGradient", "factor",  # the report says what is right, too
            {BACK: "return 0.5 * self.gate.backward(grad_z) + 0.5 * self.up.backward(grad_u)"},
            seen="The gradient of x: multiplied by 1/2. Right already: "
                 "down.B, down.A, up.B, up.A, gate.B, gate.A."),
    Mistake("MeanOverTheBatch", "factor",  # with two axes each row is a token already
            around("gradients", "{key: grad / self.batch for key, grad in right.items()}")
            | {THROUGH_DOWN: "self.batch = len(grad_output) if grad_output.ndim == 3 else 1\n"
                             + THROUGH_DOWN},
            seen="The gradients of down.B, down.A, up.B, up.A, gate.B and gate.A: multiplied by "
                 "1/2 or 1/(the batch)."),
    Mistake("ChangesInput", "changes-input", {BACK: f"grad_output *= 0\n{BACK}"}),
    "gradients are replaced, not added up; dtypes stay as they are",
    Mistake("TrainsFrozen", "frozen-changed", {BACK: f"self.down.weight -= 1e-3\n{BACK}"},
            seen="the frozen down after backward is not bit for bit what it was."),
    "each step goes by the arrays and the input of its own forward",
    Mistake("DeadParameters", "dead-parameters",
            {"z, u = self.gate": "self.gate.lora.A = self.gate.lora.A.copy()\nz, u = self.gate"}),
    Mistake("WholeWeightsOnce", "kept",  # made dense in the first forward
            {"silu = z * sig": "self.dense = self.cache and self.dense or self.merge()\n"
                               "z, u = x @ self.dense[0].T, x @ self.dense[1].T\n"
                               "silu = z * sig"},
            seen="In call 2, with other numbers in the arrays and another input, "
                 "the output is wrong."),
    "merge returns three weights",
    Mistake("MergesIntoTwo", "wrong-shape",  # as some checkpoints have them
            {MERGED: "return np.concatenate([gate, up]), down"},
            seen="LoRAFeedForward.merge gave 2 things, expected 3."),
    Mistake("MergesDownFirst", "merged-order", {MERGED: "return down, gate, up"},
            seen="The shapes are [(6, 10), (10, 6), (10, 6)]."),
    Mistake("MergesAndResets", "writes-parameters",  # the update is in the weight by now
            {MERGED: f"for layer in self.projections.values(): layer.lora.B[...] = 0\n{MERGED}"}),
    "sizes that are equal, or 1, change nothing",
    Mistake("TransposesIfSquare", "operand",
            {"return self.gate.backward(grad_z) + self.up.backward(grad_u)":
             "grad_x = self.gate.backward(grad_z) + self.up.backward(grad_u)\n"
             "W = self.gate.weight\n"
             "return grad_x + grad_z @ (W.T - W) if len(set(W.shape)) == 1 else grad_x"},
            seen="The gradient of x where the widths are 6 and 6 and the rank is 6: W_gate"),
    Mistake("TwiceAtRankOne", "inner",
            {"lora_alpha=alpha": "lora_alpha=alpha * (1 + (rank == 1))"},
            seen="The output, the gradient of down.B"),
    "a plain block with the merged weights gives the same output",
    Mistake("MergesTwo", "terms", {MERGED: "return gate, up, self.down.weight.copy()"}),
    Mistake("MergesOneForBoth", "another",  # copied a line and forgot to change the name
            {MERGED: "return gate, gate, down"}, seen="The merged up: the right merged gate."),
    Mistake("MergeOrder", "merged-order", {MERGED: "return up, gate, down"}),
    "merging changes nothing, and can be done again",
    Mistake("MergesInPlace", "frozen-changed",
            {"layer.merge()[0]":
             "np.add(layer.weight, layer.lora.delta_weight(), out=layer.weight)"},
            seen="the frozen gate after merging is not bit for bit what it was."),
    Mistake("MergeTriesItsWeights", "merge-changes",
            {MERGED: f"self.forward(np.ones((4, gate.shape[1]), gate.dtype))\n{MERGED}"},
            seen="With a merge between forward and backward, the gradient of"),
    Mistake("MergesOnce", "kept",
            {MERGED: 'return self.__dict__.setdefault("merged", (gate, up, down))'},
            seen="After a step, the merged gate is not the new one."),
    Mistake("MergesIntoOneBuffer", "kept",
            {MERGED: 'buffers = self.__dict__.setdefault("merged", (gate, up, down))\n'
                     "for buffer, weight in zip(buffers, (gate, up, down)): buffer[...] = weight\n"
                     "return buffers"},
            seen="The second merge has changed the first merged gate."),
    "weights that do not fit, and a rank of 0, are refused",
    Mistake("NoShapeCheck", "shapes-not-checked", {CHECK_UP: "", CHECK_DOWN: ""}),
    Mistake("UpColumnsNotChecked", "shapes-not-checked", {"(d_ff, d_model))": "(d_ff, None))"},
            seen="an up of another shape raised no ValueError or TypeError."),
    Mistake("DownNotChecked", "shapes-not-checked", {CHECK_DOWN: ""},
            seen="a transposed down raised no ValueError or TypeError."),
    Mistake("RankNotChecked", "accepts-nonsense", {"lora_rank=rank": "lora_rank=max(rank, 1)"},
            seen="rank=0 raised no ValueError or TypeError."),
]
