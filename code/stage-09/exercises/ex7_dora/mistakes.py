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
    Mistake("LengthsWithoutTheMean", "inner",
            {LENGTHS: "return V, np.linalg.norm(V - V.mean(axis=0), axis=0)"},
            seen="The output at the start: each row of V in its lengths with the mean over the "),
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
    Mistake("AxisByItsLength", "rows-not-columns",  # the other one where both are as long
            {LENGTHS: "return V, np.linalg.norm(V, axis=1 - V.shape.index(self.m.size))"},
            seen="The output of a square weight: V in its lengths transposed"),
    Mistake("NoLonger", "inner", {"c = self.m / norm": "c = np.minimum(self.m / norm, 1)"},
            seen="The output: c, at most 1, in the place of c."),
    Mistake("PositiveLengths", "operand", {"c = self.m / norm": "c = np.abs(self.m) / norm"},
            seen="The output: |c|"),
    "dtypes stay as they are",
    Mistake("TinyEpsilon", "nearly", {LENGTHS: f"{LENGTHS} + 1e-6"},
            seen="forward is off by 4e-07"),
    "with the norm detached",
    Mistake("WritesIntoTheInput", "changes-input",
            {"return (GV * c).reshape(x.shape)": "x[...] = (GV * c).reshape(x.shape)\nreturn x"},
            seen="forward's input after backward"),
    Mistake("DetachesMToo", "factor", {M_GRAD: f"{M_GRAD} * (not self.detach_norm)"},
            seen="The gradient of m: zero everywhere"),
    Mistake("SomeRowsOnly", "values",  # all of a small batch
            {M_GRAD: M_GRAD.replace("(rows * GV)", "(rows * GV)[:x.shape[-2] if x.ndim > 1 else 1]")
             }),
    Mistake("LengthGradientOverM", "operand", {M_GRAD: "(rows * GV).sum(axis=0) / self.m"},
            seen="The gradient of m: 1/m in the place of 1/|V|"),
    Mistake("NotDetached", "norm-not-detached", {"if not self.detach_norm:": "if True:"}),
    Mistake("MNotOverTheLength", "operand", {M_GRAD: M_GRAD.removesuffix(" / norm")},
            seen="The gradient of m: 1/|V| left out"),
    Mistake("FrozenAlone", "terms",  # x goes into W and into the update
            {"return (GV * c)": "return (G @ self.weight * c)"},
            seen="The gradient of x: missing: the update"),
    "in full, through the norm, as is the default",
    Mistake("AllColumnsAtOnce", "inner",
            {"(c * self.m_grad / norm) * V": "(V / norm) * ((V / norm) * V_grad).sum()"},
            seen="The gradients of A and B: what points along all columns at once"),
    Mistake("Detached", "norm-detached", {"if not self.detach_norm:": "if False:"}),
    Mistake("AlongNotNormalized", "operand", {ALONG: ALONG.replace(" / norm", "")}),
    Mistake("AlongTheRows", "inner",
            {ALONG: "U = V / np.linalg.norm(V, axis=1, keepdims=True)\n"
                    "V_grad -= U * (U * V_grad).sum(axis=1, keepdims=True)"},
            seen="The gradients of A and B: what points along V's rows in the place of"),
    Mistake("AlongTheUpdate", "inner", {ALONG: ALONG.replace("* V", "* (V - self.weight)")},
            seen="The gradients of A and B: what points along s B A in the place of"),
    Mistake("AlongForAAlone", "norm-detached",
            {"(V_grad @ self.A.T)": "(G.T @ (rows * c) @ self.A.T)"},
            seen="The gradient of B: missing: the norm"),
    "each step goes by the arrays and the input of its own forward",
    Mistake("DividesByM", "not-finite",
            {"(rows * GV).sum(axis=0) / norm": "(rows * GV).sum(axis=0) * c / self.m"},
            seen="With zeros in m: "),
    Mistake("DetachedIsTheFirst", "kept",
            {"c = self.m / norm": "norm = self.__dict__.setdefault('first', norm) "
             "if self.detach_norm else norm\nc = self.m / norm"},
            seen="In call 2, with other numbers in the arrays and another input, the output"),
    Mistake("VKept", "kept",
            {"V = self.weight + ": 'V = self.__dict__.setdefault("V", self.weight + ',
             "(self.B @ self.A)  # (out, in), a new array": "(self.B @ self.A))"},
            seen="In call 2, with other numbers in the arrays and another input, the output is "),
    Mistake("KnownByIdentity", "kept",
            {"V = self.weight + self.scaling * (self.B @ self.A)":
             "if getattr(self, 'of', 0) != id(self.B) or not self.B.any():\n"
             "    self.of, self.V = id(self.B), self.weight + self.scaling * (self.B @ self.A)\n"
             "V = self.V"}),
    *(Mistake(f"{name.title()}OnTheClass", "shared",
              {f"self.{name} = {value}": f"type(self).{name} = {value}"},
              seen="Two objects ran forward, then both backward: in the first ")
      for name, value in (("weight", "check"), ("bias", "None if"), ("scaling", "check"),
                          ("detach_norm", "detach_norm"))),
    Mistake("WritesOverItsGradient", "kept",
            {f"self.m_grad = {M_GRAD}": "new = self.__dict__.setdefault('own', np.zeros_like(norm))"
             f"\nnew[...] = {M_GRAD}\nself.m_grad = new"},
            seen="Call 2 has changed what call 1 had returned. It is the gradient of m."),
    "the merged weight and bias make a plain layer that does the same",
    Mistake("MergesLoRA", "operand", {MERGED: "return V"}, seen="The merged weight: c left out"),
    Mistake("MergesApart", "inner",
            {MERGED: "W = self.weight\n"
             "return W * (self.m / np.linalg.norm(W, axis=0)) + self.scaling * self.B @ self.A"},
            seen="The merged weight: W / |W| + s B A / m in the place of V / |V|"),
    Mistake("MergeForgetsTheBias", "wrong-type", {"self.bias.copy()\n": "None\n"},
            seen="Made with a bias, the layer gave none"),
    "merging changes nothing, and can be done again",
    Mistake("MergesIntoW", "merge-changes",
            {MERGED: "self.weight[...] = V * (self.m / norm)\nreturn self.weight.copy()"},
            seen="the frozen weight after merging is not bit for bit"),
    Mistake("MergeForgetsForward", "merge-changes",
            {MERGED: f"self.cache = {{}}\n{MERGED}"},
            seen="With a merge between forward and backward, backward stops: "),
    Mistake("MergesTheLastForward", "kept",  # and not the arrays as they are now
            {MERGED: 'return V * self.cache.get("c", self.m / norm)'}),
    "sizes that are equal, or 1, change nothing",
    Mistake("RankBelowTheWidth", "wrong-shape",
            {"full=min(d_out, d_in))": "full=min(d_out, d_in))\n"
                                       "rank = min(rank, max(1, min(d_out, d_in) - 1))"},
            seen="A has shape (6, 7), expected (7, 7)."),
    Mistake("VectorsAtRankOne", "wrong-shape",
            {"self.A_grad = self.B_grad": "self.A, self.B = "
             "(self.A, self.B) if rank > 1 else (self.A[0], self.B[:, 0])\n"
             "self.A_grad = self.B_grad"}, seen="A has shape (7,), expected (1, 7)."),
    Mistake("TransposedWhereSquare", "sizes",
            {"V = self.weight": "A = self.A.T if len(self.A) == len(self.m) else self.A\n"
                                "V = self.weight",
             "(self.B @ self.A)  # (out": "(self.B @ A)  # (out"},
            seen="Where in is 7, out 7 and the rank 7, this is wrong: "),
    "a zero column is refused, and sizes that make no sense",
    Mistake("RefusesZeroRowsToo", "refuses-valid",
            {"if not self.m.all():": "if not (self.m.all() and weight.any(axis=1).all()):"}),
    Mistake("RefusesSmallColumnsToo", "refuses-valid",
            {"if not self.m.all():": "if np.isclose(self.m, 0).any():"}),
    Mistake("ZeroColumnAccepted", "zero-column", {"if not self.m.all():": "if False:"}),
]
