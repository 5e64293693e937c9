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
    # ---- Step 1: six arrays ----
    Mistake("OnlyGateAndUp", "two-of-three", {', "down": self.down}': "}"},
            seen="parameters() has nothing of down."),
    Mistake("OnlyGate", "two-of-three", {', "up": self.up, "down": self.down}': "}"},
            seen="parameters() has nothing of up and down."),
    Mistake("NamesSwapped", "names-swapped",
            {'"gate": self.gate, "up": self.up': '"gate": self.up, "up": self.gate'}),
    Mistake("NamesOfHuggingFace", "signature",
            {"layer.parameters().items()":
             '((f"lora_{key}", array) for key, array in layer.parameters().items())'},
            at="the block can be made and trains six arrays"),
    Mistake("OnlyTheAs", "signature",  # freezes the rest, as some variants of LoRA freeze every A
            around("parameters", '{key: array for key, array in right.items() if key[-1] == "A"}'),
            seen="parameters() has the keys ['down.A', 'gate.A', 'up.A']"),
    Mistake("ParametersAsList", "wrong-type", around("parameters", "list(right.values())"),
            seen="parameters() gave list, expected dict."),
    Mistake("CopiesAsParameters", "dead-parameters",
            around("parameters", "{key: array.copy() for key, array in right.items()}"),
            at="the block can be made and trains six arrays",
            seen="Asked a second time, parameters() gave another array of gate.A."),
    Mistake("CountsTwo", "two-of-three",
            method("def num_parameters(self):\n"
                   "    return self.gate.num_parameters() + self.down.num_parameters()"),
            seen="num_parameters() gave 96, expected 144."),
    Mistake("CountsFrozen", "values",
            method("def num_parameters(self):\n"
                   "    frozen = sum(layer.weight.size for layer in self.projections.values())\n"
                   "    return super().num_parameters() + frozen"),
            seen="num_parameters() gave 324, expected 144."),
    Mistake("ShortNames", "signature",
            {"rank: int = 8": "r: int = 8", "lora_rank=rank": "lora_rank=r"},
            at="the block can be made and trains six arrays", seen="The call itself failed."),
    Mistake("OtherDefaultRank", "signature", {"rank: int = 8": "rank: int = 4"},
            seen="Made without a rank, gate.A has shape (4, 6), expected rank 8."),
    Mistake("OtherDefaultAlpha", "signature", {"alpha: float = 16.0": "alpha: float = 8.0"},
            seen="Made without rank and alpha, the block has another output"),
    # ---- Step 1: what fits together ----
    Mistake("NoShapeCheck", "shapes-not-checked", {CHECK_UP: "", CHECK_DOWN: ""}),
    Mistake("UpColumnsNotChecked", "shapes-not-checked", {"(d_ff, d_model))": "(d_ff, None))"},
            seen="an up of another shape raised no ValueError or TypeError."),
    Mistake("UpRowsNotChecked", "shapes-not-checked", {"(d_ff, d_model))": "(None, d_model))"},
            seen="an up with fewer rows raised no ValueError or TypeError."),
    Mistake("DownNotChecked", "shapes-not-checked", {CHECK_DOWN: ""},
            seen="a transposed down raised no ValueError or TypeError."),
    Mistake("DownColumnsNotChecked", "shapes-not-checked", {"(d_model, d_ff))": "(d_model, None))"},
            seen="a down with fewer columns raised no"),
    Mistake("DownRowsNotChecked", "shapes-not-checked", {"(d_model, d_ff))": "(None, d_ff))"},
            seen="a down with fewer rows raised no"),
    Mistake("RankNotChecked", "accepts-nonsense", {"lora_rank=rank": "lora_rank=max(rank, 1)"},
            seen="rank=0 raised no ValueError or TypeError."),
    Mistake("Transposed", "transposed",
            start("lora = self.down.lora\nlora.A, lora.B = lora.A.T.copy(), lora.B.T.copy()")),
    Mistake("Flattened", "wrong-shape", start("self.up.lora.A = self.up.lora.A.ravel()"),
            at="each A is (rank, in), each B is (out, rank), in the weights' dtype",
            seen="up.A has shape (18,), expected (3, 6)."),
    Mistake("OtherDtype", "wrong-dtype",  # one that is fixed; here it is always the other one
            start("other = np.float64 if gate.dtype == np.float32 else np.float32\n"
                  "for layer in self.projections.values():\n"
                  "    layer.lora.A = layer.lora.A.astype(other)"),
            at="each A is (rank, in), each B is (out, rank), in the weights' dtype"),
    # ---- Step 1: the start ----
    Mistake("BothZero", "both-zero",
            start("for layer in self.projections.values(): layer.lora.A[...] = 0")),
    Mistake("BothRandom", "start-not-frozen",
            start("for layer in self.projections.values():\n"
                  "    layer.lora.B[...] = 0.01 * rng.standard_normal(layer.lora.B.shape)")),
    Mistake("OwnRandomness", "ignores-rng", {"default_rng(rng)": "default_rng()"}),
    Mistake("AlwaysSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(0)"}),
    Mistake("NoneIsSeedZero", "ignores-rng", {"default_rng(rng)": "default_rng(rng or 0)"},
            seen="Two blocks made without rng have the same gate.A."),
    Mistake("OneUpdateFromSeedZero", "ignores-rng",  # tried out by hand, and the seed stayed
            start("A = self.up.lora.A\nA[...] = np.random.default_rng(0).standard_normal(A.shape)"),
            seen="Two blocks made from different seeds have the same up.A."),
    Mistake("EqualRows", "starts-alike",  # draws one row, and NumPy fills the others with it
            start("for layer in self.projections.values(): layer.lora.A[...] = layer.lora.A[0]"),
            seen="gate.A has not the rank 3."),
    Mistake("EqualStarts", "starts-alike", start("self.up.lora.A[...] = self.gate.lora.A"),
            seen="gate.A and up.A are the same."),
    # ---- Step 2: forward ----
    Mistake("DownUpdateUnused", "two-of-three", {OUTPUT: "return (silu * u) @ self.down.weight.T"}),
    Mistake("AlphaNotOverR", "alpha-not-over-r", {"lora_alpha=alpha": "lora_alpha=alpha * rank"}),
    Mistake("AlphaNotPassed", "alpha-not-passed", {", lora_alpha=alpha": ""}),
    Mistake("WholeScale", "values",  # right where alpha is a multiple of the rank
            start("for layer in self.projections.values(): layer.lora.scaling //= 1"),
            seen="The output is off by"),
    Mistake("NoActivation", "no-activation", {"silu = z * sig": "silu = z"},
            at="a fresh block equals the frozen one"),
    Mistake("Sigmoid", "sigmoid-for-silu", {"silu = z * sig": "silu = sig"}),
    Mistake("Relu", "relu-for-silu", {"silu = z * sig": "silu = np.maximum(z, 0)"}),
    Mistake("Swapped", "gate-and-up-swapped", {"z, u = self.gate": "u, z = self.gate"}),
    Mistake("SumForProduct", "sum-for-product", {"silu * u)": "silu + u)"}),
    Mistake("SiluOnBoth", "silu-on-both", {"silu * u)": "silu * u * sigmoid(u))"}),
    Mistake("AddsX", "extra-residual", {OUTPUT: OUTPUT + " + x"}),
    Mistake("Overflow", "overflow",
            {"0.5 * (1.0 + np.tanh(0.5 * z))": "np.exp(z) / (1 + np.exp(z))"}),
    Mistake("RowsOnly", "wrong-shape", {OUTPUT: OUTPUT + ".reshape(-1, x.shape[-1])"},
            at="any leading axes"),
    Mistake("Squeezes", "wrong-shape", {OUTPUT: OUTPUT + ".squeeze()"},  # a batch of one is lost
            at="any leading axes"),
    Mistake("FirstOfTheBatch", "turned",  # takes the other sequences for copies of it
            {OUTPUT: "out = self.down.forward(silu * u)\n"
                     "return np.broadcast_to(out[0], out.shape) if x.ndim == 3 else out"},
            at="each of the three updates acts, with s = alpha / r",
            seen="The output: the first along axis 0 for all."),
    Mistake("ClipsInput", "changes-input",  # keeps the exponential small
            {"z, u = self.gate": "np.clip(x, -100, 100, out=x)\nz, u = self.gate"},
            at="large inputs stay finite; dtypes stay as they are"),
    Mistake("DoubleInTheMiddle", "wrong-dtype", {"silu = z * sig": "silu = z * sig * np.ones(1)"},
            seen="forward: float32 in gave float64 out."),
    Mistake("SingleOnTheWay", "wrong-dtype",
            {"z, u = self.gate": "x = x.astype(np.float32).astype(x.dtype)\nz, u = self.gate"},
            seen="forward: float64 in gave float64 out, but it is off by"),
    # ---- Step 3: backward ----
    Mistake("BackwardFirst", "backward-first",
            {"u, sig, silu = self._rem": "if not self.cache:\n"
                                         "    return grad_output\n"
                                         "u, sig, silu = self._rem"}),
    Mistake("OneRowForAll", "accepts-nonsense",  # NumPy repeats a gradient that has too few rows
            {THROUGH_DOWN: "a = self.down.backward(grad_output + np.zeros_like(u[..., :1]))"},
            seen="a grad_output of one row for four raised no ValueError or TypeError."),
    Mistake("SlopeOfSigmoid", "wrong-silu-slope", {SLOPE: "sig * (1 - sig)"}),
    Mistake("SlopeOneTerm", "wrong-silu-slope", {SLOPE: "sig"}),
    Mistake("SlopeForgotten", "wrong-silu-slope", {SLOPE: "1"}),
    Mistake("SlopeSign", "wrong-silu-slope", {SLOPE: "(sig - silu * (1 - sig))"}),
    Mistake("SlopeOfAnotherProduct", "wrong-silu-slope", {SLOPE: "(sig + silu / sig * (1 - sig))"}),
    Mistake("SlopeIsSilu", "wrong-silu-slope", {SLOPE: "silu"},
            seen="The gradients of gate.B, gate.A and x: silu(z) in the place of"),
    Mistake("UpWithSlope", "wrong-silu-slope", {"grad_u = a * silu": f"grad_u = a * {SLOPE}"},
            seen="The gradients of up.B, up.A and x: silu'(z) in the place of"),
    Mistake("UpWithoutSilu", "up-gradient-without-silu", {"grad_u = a * silu": "grad_u = a"}),
    Mistake("UpSigmoid", "up-gradient-sigmoid", {"grad_u = a * silu": "grad_u = a * sig"}),
    Mistake("GateWithoutUp", "gate-gradient-without-up", {"grad_z = a * u": "grad_z = a"}),
    Mistake("GateNegated", "factor", {"grad_z = a": "grad_z = -a"},
            seen="The gradients of gate.B and gate.A: negated. The gradient of x: with the wrong "
                 "sign: the path through gate."),
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
    Mistake("FrozenDownLost", "frozen-gradient-lost",
            {THROUGH_DOWN: f"{THROUGH_DOWN} - grad_output @ self.down.weight"}),
    Mistake("FrozenInputLost", "frozen-gradient-lost",
            {BACK: f"{BACK} - grad_z @ self.gate.weight - grad_u @ self.up.weight"}),
    Mistake("OnlyTheFrozenWayBack", "update-not-passed",
            {THROUGH_DOWN: f"{THROUGH_DOWN}\na = grad_output @ self.down.weight"},
            seen="The gradients of up.B, up.A, gate.B, gate.A and x: missing: the update of down"),
    Mistake("OnlyTheFrozenWayToX", "update-not-passed",
            {BACK: "self.gate.backward(grad_z), self.up.backward(grad_u)\n"
                   "return grad_z @ self.gate.weight + grad_u @ self.up.weight"},
            seen="The gradient of x: missing: the updates of gate and up"),
    Mistake("OnePath", "one-path-to-x",
            {BACK: "self.up.backward(grad_u)\nreturn self.gate.backward(grad_z)"}),
    Mistake("UpPathOnly", "one-path-to-x",
            {BACK: "self.gate.backward(grad_z)\nreturn self.up.backward(grad_u)"}),
    Mistake("DifferenceOfPaths", "terms", {"(grad_z) + self": "(grad_z) - self"},
            seen="The gradient of x: with the wrong sign: the path through up"),
    Mistake("HalfTheGradient", "factor",  # the report says what is right, too
            {BACK: "return 0.5 * self.gate.backward(grad_z) + 0.5 * self.up.backward(grad_u)"},
            seen="The gradient of x: multiplied by 1/2. Right already: "
                 "down.B, down.A, up.B, up.A, gate.B, gate.A."),
    Mistake("HalfOfAnArraysGradient", "factor",
            around("gradients", 'right | {"gate.A": right["gate.A"] / 2}'),
            seen="The gradient of gate.A: multiplied by 1/2. "
                 "Right already: down.B, down.A, up.B, up.A, gate.B, x."),
    Mistake("MeanOverTheBatch", "factor",  # with two axes each row is a token already
            around("gradients", "{key: grad / self.batch for key, grad in right.items()}")
            | {THROUGH_DOWN: "self.batch = len(grad_output) if grad_output.ndim == 3 else 1\n"
                             + THROUGH_DOWN},
            seen="The gradients of down.B, down.A, up.B, up.A, gate.B and gate.A: multiplied by "
                 "1/2 or 1/(the batch)."),
    Mistake("GradientTransposed", "wrong-shape",
            around("gradients", "{key: grad.T for key, grad in right.items()}"),
            at="six gradients, each with the shape of its array",
            seen="the gradient of gate.A has shape (6, 3), expected (3, 6)."),
    Mistake("DoubleGradients", "wrong-dtype",
            around("gradients", "{key: grad.astype(np.float64) for key, grad in right.items()}"),
            seen="the gradient of gate.A: float32 in gave float64 out."),
    Mistake("DoubleGradientOfX", "wrong-dtype", {BACK: f"{BACK}.astype(np.float64)"},
            seen="the gradient of x: float32 in gave float64 out."),
    Mistake("SingleOnTheWayBack", "wrong-dtype",
            {THROUGH_DOWN: "single = grad_output.astype(np.float32)\n"
                           "a = self.down.backward(single.astype(grad_output.dtype))"},
            seen="the gradient of x: float64 in gave float64 out, but it is off by"),
    Mistake("ChangesInput", "changes-input", {BACK: f"grad_output *= 0\n{BACK}"}),
    Mistake("TrainsFrozen", "frozen-changed", {BACK: f"self.down.weight -= 1e-3\n{BACK}"},
            seen="the frozen down after backward is not bit for bit what it was."),
    Mistake("StepsByItself", "writes-parameters",  # takes the optimizer's step, too
            {BACK: "back = self.gate.backward(grad_z) + self.up.backward(grad_u)\n"
                   "for key, grad in self.gradients().items():\n"
                   "    array = self.parameters()[key]\n"
                   "    array -= 1e-3 * grad\n"
                   "return back"},
            seen="gate.A is not bit for bit what it was."),
    Mistake("Accumulates", "accumulates",
            {THROUGH_DOWN: f"old = self.down.lora.A_grad\n{THROUGH_DOWN}\n"
                           "if old is not None:\n"
                           "    self.down.lora.A_grad += old"}),
    # ---- Steps 2 and 3: something kept ----
    Mistake("DeadParameters", "dead-parameters",
            {"z, u = self.gate": "self.gate.lora.A = self.gate.lora.A.copy()\nz, u = self.gate"}),
    Mistake("BackwardOfTheFirstForward", "kept",
            {'self.cache = {"x": (u, sig, silu)}': 'self.cache.setdefault("x", (u, sig, silu))'},
            seen="In call 2, with other numbers in the arrays and another input, "
                 "the gradient of x is"),
    Mistake("WholeWeightsOnce", "kept",  # made dense in the first forward
            {"silu = z * sig": "self.dense = self.cache and self.dense or self.merge()\n"
                               "z, u = x @ self.dense[0].T, x @ self.dense[1].T\n"
                               "silu = z * sig"},
            seen="In call 2, with other numbers in the arrays and another input, "
                 "the output is wrong."),
    Mistake("OneBufferForAll", "kept",  # saves an allocation: all outputs of a shape are one array
            {OUTPUT: "out = self.down.forward(silu * u)\n"
                     'buffer = self.__dict__.setdefault("buffers", {}).setdefault(out.shape, out)\n'
                     "buffer[...] = out\n"
                     "return buffer"},
            seen="Call 2 has changed what call 1 had returned."),
    # ---- Step 4: merging ----
    Mistake("MergesTwo", "merged-two", {MERGED: "return gate, up, self.down.weight.copy()"}),
    Mistake("MergesNothing", "merged-two", {"layer.merge()[0]": "layer.weight.copy()"},
            seen="The merged gate, the merged up, the merged down: missing: the update"),
    Mistake("MergesOneForBoth", "another",  # copied a line and forgot to change the name
            {MERGED: "return gate, gate, down"}, seen="The merged up: the right merged gate."),
    Mistake("MergesIntoTwo", "wrong-shape",  # as some checkpoints have them
            {MERGED: "return np.concatenate([gate, up]), down"},
            seen="merge() returned 2 things, expected 3."),
    Mistake("MergeOrder", "merged-order", {MERGED: "return up, gate, down"}),
    Mistake("MergesDownFirst", "merged-order", {MERGED: "return down, gate, up"},
            seen="The shapes are [(6, 10), (10, 6), (10, 6)]."),
    Mistake("MergesTransposed", "wrong-shape", {"layer.merge()[0]": "layer.merge()[0].T"},
            at="merge returns three weights",
            seen="the merged gate has shape (6, 10), expected (10, 6)."),
    Mistake("MergeWithoutScale", "merge-without-scale",
            {"layer.merge()[0]": "layer.weight + layer.lora.B @ layer.lora.A"}),
    Mistake("MergesWithAlpha", "alpha-not-over-r",
            {"layer.merge()[0]": "layer.weight + layer.lora.rank * layer.lora.delta_weight()"},
            seen="The merged gate, the merged up, the merged down: r times: the update"),
    Mistake("MergesInDouble", "wrong-dtype",
            {"layer.merge()[0]": "layer.merge()[0].astype(np.float64)"},
            seen="the merged gate: float32 in gave float64 out."),
    Mistake("MergesInSingle", "wrong-dtype",
            {"layer.merge()[0]": "layer.merge()[0].astype(np.float32)"},
            seen="the merged gate: float64 in gave float32 out."),
    Mistake("MergesInPlace", "frozen-changed",
            {"layer.merge()[0]":
             "np.add(layer.weight, layer.lora.delta_weight(), out=layer.weight)"},
            at="merging changes nothing, and can be done again",
            seen="the frozen gate after merging is not bit for bit what it was."),
    Mistake("MergesAndResets", "merge-changes-block",  # the update is in the weight by now
            {MERGED: f"for layer in self.projections.values(): layer.lora.B[...] = 0\n{MERGED}"},
            seen="gate.B after merging is not bit for bit what it was."),
    Mistake("MergeTriesItsWeights", "merge-changes-block",
            {MERGED: f"self.forward(np.ones((4, gate.shape[1]), gate.dtype))\n{MERGED}"},
            seen="With a merge between forward and backward, the gradient of"),
    Mistake("MergesOnce", "kept",
            {MERGED: 'return self.__dict__.setdefault("merged", (gate, up, down))'},
            seen="Merged again after a step, gate is not the new one."),
    Mistake("MergesIntoOneBuffer", "kept",
            {MERGED: 'buffers = self.__dict__.setdefault("merged", (gate, up, down))\n'
                     "for buffer, weight in zip(buffers, (gate, up, down)): buffer[...] = weight\n"
                     "return buffers"},
            seen="The second merge has changed the first one's gate."),
]
