"""Exercise 7: plausible wrong answers, each with the diagnosis that it must get."""

from exercises.mistakes import Mistake, method

START = "self.m = np.linalg.norm(weight, axis=0)"
LENGTHS = "return V, np.linalg.norm(V, axis=0)"
OUTPUT = "h = (x * c) @ V.T"
ALONG = "V_grad -= (c * self.m_grad / norm) * V"
M_GRAD = "(rows * GV).sum(axis=0) / norm"
MERGED = "return V * (self.m / norm)"

MISTAKES = [
    "the layer can be made and trains A, B and m, nothing else",
    Mistake("MNotTrained", "m-not-trained", {'("A", "B", "m")': '("A", "B")'}),
    "A is (rank, in), B is (out, rank), m is (in,); the weight's dtype",
    Mistake("Rows", "rows-not-columns", {START: START.replace("axis=0", "axis=1")},
            seen="m has 5 numbers for a weight of (5, 7)."),
    Mistake("CountsLoRA", "m-not-trained",
            method("def num_parameters(self):\n    return self.A.size + self.B.size")),
    "B is zero, A is not and comes from rng; m holds W's column lengths",
    Mistake("StartsAtOne", "start-not-pretrained",  # a factor on W, and not a length
            {START: "self.m = np.ones_like(weight[0])"},
            seen="m does not hold the lengths of W's columns. It is ones."),
    Mistake("RowsOfASquare", "rows-not-columns",  # PEFT's, where the shapes allow it
            {START: "self.m = np.linalg.norm(weight, axis=int(d_out == d_in))"},
            seen="Of a square weight m holds the lengths of the rows."),
    "a fresh layer gives what the frozen one does",
    Mistake("EpsilonInTheNorm", "inner", {LENGTHS: f"{LENGTHS} + 0.01"},
            seen="The output at the start: |V| plus 0.01"),
    Mistake("RowsDivided", "rows-not-columns",
            {OUTPUT: "h = (x * self.m) @ (V / np.linalg.norm(V, axis=1, keepdims=True)).T"}),
    Mistake("NotDivided", "operand", {"c = self.m / norm": "c = self.m"},
            seen="The output at the start: m in the place of c"),
    "V's columns, at the lengths m, and the bias",
    Mistake("NormOfW", "norm-of-w", {LENGTHS: "return V, np.linalg.norm(self.weight, axis=0)"}),
    Mistake("NoScale", "inner", {"self.scaling * (self.B @ self.A)": "self.B @ self.A"},
            seen="The output: s B A multiplied by 1/s"),
    Mistake("OnlyTheUpdate", "operand",  # W itself at its own length
            {OUTPUT: "h = x @ self.weight.T + (x * c) @ (V - self.weight).T"},
            seen="The output: c left out, in x W c"),
    "with the norm detached",
    Mistake("LengthGradientOverM", "operand", {M_GRAD: "(rows * GV).sum(axis=0) / self.m"},
            seen="The gradient of m: 1/m in the place of 1/|V|"),
    Mistake("NotDetached", "norm-not-detached", {"if not self.detach_norm:": "if True:"}),
    Mistake("MNotOverTheLength", "operand", {M_GRAD: M_GRAD.removesuffix(" / norm")},
            seen="The gradient of m: 1/|V| left out"),
    Mistake("FrozenAlone", "terms",  # x goes into W and into the update
            {"return (GV * c)": "return (G @ self.weight * c)"},
            seen="The gradient of x: missing: the update"),
    "in full, through the norm, as is the default",
    Mistake("Detached", "norm-detached", {"if not self.detach_norm:": "if False:"}),
    Mistake("AlongNotNormalized", "operand", {ALONG: ALONG.replace(" / norm", "")}),
    Mistake("AlongTheRows", "inner",
            {ALONG: "U = V / np.linalg.norm(V, axis=1, keepdims=True)\n"
                    "V_grad -= U * (U * V_grad).sum(axis=1, keepdims=True)"},
            seen="The gradients of A and B: what points along V's rows in the place of"),
    "each step goes by the arrays and the input of its own forward",
    Mistake("VKept", "kept",
            {"V = self.weight + ": 'V = self.__dict__.setdefault("V", self.weight + ',
             "(self.B @ self.A)  # (out, in), a new array": "(self.B @ self.A))"},
            seen="In call 2, with other numbers in the arrays and another input, the output is "),
    "the merged weight and bias make a plain layer that does the same",
    Mistake("MergesLoRA", "operand", {MERGED: "return V"}, seen="The merged weight: c left out"),
    "a merge is a copy and leaves the layer as it was",
    Mistake("MergesIntoW", "merge-changes-layer",
            {MERGED: "self.weight[...] = V * (self.m / norm)\nreturn self.weight.copy()"},
            seen="The weight is not bit for bit"),
    Mistake("MergesTheLastForward", "kept",  # and not the arrays as they are now
            {MERGED: 'return V * self.cache.get("c", self.m / norm)'}),
    "a zero column is refused, and sizes that make no sense",
    Mistake("ZeroColumnAccepted", "zero-column", {"if not self.m.all():": "if False:"}),
]
