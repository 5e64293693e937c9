"""Exercise 8: plausible wrong answers, each with the diagnosis that it must get."""

from exercises.mistakes import Mistake, method

A_AND_B = "for shape in ((rank, k), (k, rank)))"
CORNER = "return self.A[:, :W.shape[1]], self.B[:W.shape[0]]"
BACK = "return G @ W + (d * GB) @ A, (GB * t).sum(axis=0), (G * u).sum(axis=0)"
STATE = 'return {"seed": self.seed} | {name: v.copy() for name, v in self.parameters().items()}'
MERGED = "return W + (beta[:, None] * B * d) @ A"
AGAIN = 'block = cls(up, down, len(state["up_d"]), seed=state["seed"])'


def start(code):
    """Edits that end __init__ with `code`."""
    return {"self.cache = {}": f"self.cache = {{}}\n{code}"}


MISTAKES = [
    "the block can be made and trains four vectors, nothing else",
    Mistake("TrainsB", "trains-matrices",
            {'trainable = ("up_d",': 'trainable = ("B", "up_d",',
             "self.cache = {}": "self.cache, self.B_grad = {}, None"},
            seen="parameters() holds B, of shape (9, 5)."),
    Mistake("CountsWhatIsStored", "trains-matrices",
            method("def num_parameters(self):\n"
                   "    return super().num_parameters() + self.A.size + self.B.size")),
    Mistake("KeysFromThePaper", "signature",
            method('def parameters(self):\n    return {"b": self.up_beta, "d": self.up_d}'),
            seen="parameters() has the keys ['b', 'd'], expected"),
    "d is (rank,), beta (out,); A (rank, k), B (k, rank); dtype as up's",
    Mistake("Exchanged", "exchanged",
            start("self.up_d, self.up_beta = self.up_beta, self.up_d\n"
                  "self.down_d, self.down_beta = self.down_beta, self.down_d"),
            seen="up_d has shape (9,), up_beta (5,)"),
    Mistake("AsWideAsTheModel", "wrong-shape", {"max(up.shape)": "up.shape[1]"},
            seen="A has shape (5, 6), expected (5, 9)."),
    Mistake("DrawnInDouble", "wrong-dtype",
            {"rng.uniform(-1, 1, shape)).astype(up.dtype)": "rng.uniform(-1, 1, shape))"},
            seen="A: float32 in gave float64 out"),
    Mistake("PairByItsSeed", "shared",  # whatever its dtype
            {"    trainable =": "    pairs = {}\n    trainable ="} | start(
                "self.A, self.B = self.pairs.setdefault((self.seed, rank, k), (self.A, self.B))")),
    Mistake("RankBelowTheWidth", "wrong-shape",
            {'check_count("rank", rank)': 'min(check_count("rank", rank), max(up.shape) - 1)'},
            seen="up_d has shape (5,), expected (6,)."),
    Mistake("NumbersAtRankOne", "wrong-shape",
            start("self.up_d, self.down_d = self.up_d.squeeze(), self.down_d.squeeze()"),
            seen="up_d has shape (), expected (1,)."),
    "A and B come from the seed; d starts at d_initial, beta at zero",
    Mistake("BetaAtOne", "start-not-frozen",  # as a scale, as (IA)3's
            start("self.up_beta[...] = self.down_beta[...] = 1")),
    Mistake("BothAtZero", "wrong-d", start("self.up_d[...] = self.down_d[...] = 0")),
    Mistake("SignsByTurns", "start-size",
            start("self.A[...] = np.abs(self.A) * (-1) ** np.arange(self.A.shape[1])"),
            seen="Row by row, numbers of A go with those 1 places after them"),
    Mistake("SeedIgnored", "not-from-seed", {"default_rng(self.seed)": "default_rng(0)"},
            seen="Two blocks of different seeds have the same A."),
    Mistake("FromTheWeights", "not-from-seed",  # of another checkpoint other matrices
            start("self.A, self.B = self.A * up.std(), self.B * down.std()"),
            seen="Two blocks of the same seed and sizes differ in A."),
    Mistake("OneSeedTwoGenerators", "starts-alike",
            {"rng.uniform(": "np.random.default_rng(seed).uniform("},
            seen="A and B are made of the same numbers."),
    Mistake("ByFanOut", "start-size", {"6 / shape[1]": "6 / shape[0]"},
            seen="With 400 columns and rank 25 A has a standard deviation of 0.28"),
    Mistake("Gaussian", "start-size",
            {"rng.uniform(-1, 1, shape)": "rng.standard_normal(shape) / 3**0.5"},
            seen="The largest number in A is "),
    Mistake("SignsAlone", "start-size",
            {"rng.uniform(-1, 1, shape)": "rng.choice([-1, 1], shape) / 3**0.5"},
            seen="The largest number in A is 0.0707; uniform numbers end at 0.122."),
    Mistake("HalfTheDigits", "digits", {"shape)).astype(up.dtype)":
                                        "shape)).astype(np.float16).astype(up.dtype)"}),
    Mistake("ZeroIsNoSeed", "not-from-seed",
            {"default_rng(self.seed)": "default_rng(self.seed or None)"},
            seen="Two blocks of seed=0 differ in A."),
    "each vector has memory of its own",
    Mistake("OneDForBoth", "shared-vector", start("self.down_d = self.up_d"),
            seen="up_d and down_d share their memory."),
    Mistake("OneBetaForBoth", "shared-vector",
            start("both = np.zeros(k, up.dtype)\n"
                  "self.up_beta, self.down_beta = both[:len(up)], both[:len(down)]"),
            seen="up_beta and down_beta share their memory."),
    "a fresh block computes what the frozen one does",
    Mistake("FrozenLost", "factor", {"return x @ W.T + beta * u": "return beta * u"},
            seen="The output with the update of down alone: zero everywhere"),
    Mistake("NoRelu", "operand", {"np.maximum(z, 0)": "z"},
            seen="The output: z in the place of relu(z)"),
    "the output is that of two updated layers with relu between",
    Mistake("VectorOfTheOther", "inner", {"rows, self.up, self.up_d": "rows, self.up, self.down_d"},
            seen="The output: d_down in the place of d_up."),
    Mistake("APairForEach", "own-matrices",
            {CORNER: f"if W is self.up:\n    {CORNER}\nreturn self.pair",
             "self.cache = {}": "self.cache = {}\n"
             "self.pair = (np.sqrt(6 / len(up)) * rng.uniform(-1, 1, (rank, len(up)))).astype("
             "up.dtype), (np.sqrt(6 / rank) * rng.uniform(-1, 1, (len(down), rank))).astype("
             "up.dtype)"},
            seen="The output: with zeros in A and B"),
    Mistake("LastColumns", "wrong-corner", {"self.A[:, :W.shape[1]]": "self.A[:, -W.shape[1]:]"}),
    Mistake("LastRows", "wrong-corner", {"self.B[:W.shape[0]]": "self.B[-W.shape[0]:]"}),
    Mistake("DForgotten", "operand", {"(d * t) @ B.T": "t @ B.T"},
            seen="The output with the update of down alone: d_down left out"),
    Mistake("RowsOnly", "wrong-shape", {"return y.reshape(x.shape)": "return y"}),
    Mistake("DOfTheOther", "operand", {"(a, self.down, self.down_d": "(a, self.down, self.up_d"},
            seen="The output: d_up in the place of d_down"),
    Mistake("ShrinksA", "trains-matrices", {"t = x @ A.T": "A *= 0.999\nt = x @ A.T"},
            seen="the frozen A after forward is not bit for bit what it was."),
    Mistake("BetaOnTheFrozenToo", "inner",
            {"x @ W.T + beta * u,": "(1 + beta) * (x @ W.T) + beta * u,"},
            seen="The output with the update of down alone: (1 + beta) (x W^T) in the place of"),
    "both layers read the one A and the one B",
    Mistake("CopiesOfCorners", "own-matrices",
            {CORNER: "return self.corners[W.shape]",
             "self.cache = {}": "self.cache = {}\nself.corners = {W.shape: (self.A[:, :W.shape[1]]"
             ".copy(), self.B[:len(W)].copy()) for W in (up, down)}"},
            seen="With zeros in A there still is the update of up."),
    "dtypes stay as they are",
    Mistake("SingleOnTheWay", "wrong-dtype",
            {"t = x @ A.T": "t = (x.astype(np.float32) @ A.T).astype(x.dtype)"},
            seen="forward: float64 in gave float64 out, but it is off by"),
    "backward refuses to be first, and another shape",
    Mistake("BackwardFirst", "backward-first",
            {"shape, a, of_up, of_down = self._rem": "if not self.cache:\n    return grad_output\n"
             "shape, a, of_up, of_down = self._rem"}),
    "of d, beta and x; in the first step those of d are zero",
    Mistake("DWithoutBeta", "operand", {"GB = (beta * G) @ B": "GB = G @ B"}),
    Mistake("MeanOverTheBatch", "factor",
            {BACK: BACK.replace("sum(", "mean(")}, seen="The gradients of down_beta"),
    Mistake("NoWayThroughTheUpdate", "terms", {"G @ W + (d * GB) @ A,": "G @ W,"}),
    Mistake("NoMask", "operand", {"back * (a > 0)": "back"}),
    Mistake("SlopeAtZero", "operand",
            {"a = np.maximum(z, 0)": "self.z, a = z, np.maximum(z, 0)",
             "back * (a > 0)": "back * (self.z >= 0)"},
            seen="The gradient of x: z >= 0 in the place of relu'(z)"),
    Mistake("BackWithDOfTheOther", "operand",
            {"G, self.down, self.down_d": "G, self.down, self.up_d"},
            seen="The gradients of up_beta, up_d and x: d_up in the place of d_down"),
    Mistake("KnownByShape", "values",  # both layers of a square block have one
            {"return x @ W.T + beta * u,": "self.cache[W.shape] = t, u\nreturn x @ W.T + beta * u,",
             'self.cache = {"x"': 'self.cache |= {"x"',
             "GB = (beta * G) @ B": "t, u = self.cache[W.shape]\nGB = (beta * G) @ B"}),
    Mistake("TakesAStepWithB", "trains-matrices",
            {BACK: f"B -= 0.01 * G.T @ (d * t)\n{BACK}"},
            seen="the frozen B after backward is not bit for bit what it was."),
    Mistake("SkipsZeros", "factor", {"(G * u).sum(axis=0)": "(G * u).sum(axis=0) * beta.any()"},
            seen="The gradients of down_beta and up_beta at the start: zero everywhere"),
    "gradients are replaced, not added up; dtypes stay as they are",
    Mistake("OtherWhenAskedAgain", "kept",
            method("def gradients(self):\n"
                   "    self.asked = not getattr(self, 'asked', False)\n"
                   "    return {name: gradient if self.asked else 2 * gradient\n"
                   "            for name, gradient in super().gradients().items()}"),
            seen="The gradient of up_d is another when it is asked for a second time."),
    "sizes that are equal, or 1, change nothing",
    Mistake("TransposedWhereSquare", "sizes",
            {"t = x @ A.T": "A = A.T if len(A) == A.shape[1] else A\nt = x @ A.T"},
            seen="Where d_model is 6, d_ff 6 and the rank 6, this is wrong: "),
    Mistake("CornersByStride", "sizes",
            {"return self.A[:, :W.shape[1]], self.B[:W.shape[0]]":
             "(o, i), A, B = W.shape, self.A, self.B\n"
             "return A[:, ::A.shape[1] // i][:, :i], B[::len(B) // o][:o]"},
            seen="Where d_model is 6, d_ff 13 and the rank 2, this is wrong: "),
    "each step goes by the arrays and the input of its own forward",
    Mistake("CornersScaledOnce", "kept",
            {"u = (d * t) @ B.T": 'kept = self.__dict__.setdefault("scaled", {})\n'
             "u = t @ kept.setdefault(W is self.up, d[:, None] * B.T)"}),
    *(Mistake(f"{name}OnTheClass", "shared", {old: old.replace("self.", "type(self).")},
              seen="Two objects ran forward, then both backward: in the first the output is wrong")
      for name, old in (("Pair", "self.A, self.B = (("), ("Weights", "self.up = check"))),
    Mistake("WritesOverItsGradients", "kept",
            {"return back.reshape(shape)": 'kept = self.__dict__.setdefault("kept", {})\n'
             "for name in self.trainable:\n"
             '    new = getattr(self, name + "_grad")\n'
             "    kept.setdefault(name, new)[...] = new\n"
             '    setattr(self, name + "_grad", kept[name])\n'
             "return back.reshape(shape)"},
            seen="Call 2 has changed what call 1 had returned. It is the gradient of up_d."),
    "merge gives two new weights",
    Mistake("MergeDropsD", "operand", {MERGED: "return W + (beta[:, None] * B) @ A"},
            seen="The merged up: d_up left out"),
    "merging changes nothing, and can be done again",
    Mistake("MergesInPlace", "trains-matrices",
            {MERGED: "W += (beta[:, None] * B * d) @ A\nreturn W.copy()"}),
    Mistake("NoUpdateNoCopy", "handed-out", {MERGED: f"if not beta.any():\n    return W\n{MERGED}"},
            seen="the merged up of a fresh layer"),
    Mistake("MergeForgetsForward", "merge-changes",
            {"return (self._merged(self.up": "self.cache = {}\nreturn (self._merged(self.up"},
            seen="With a merge between forward and backward, backward stops: "),
    "the state holds the vectors and the seed",
    Mistake("SavesInSingle", "digits", {"name: v.copy() for": "name: v.astype(np.float32) for"},
            seen="up_d of the state, float32, is off by little."),
    Mistake("SavesTheMatrices", "state-too-large",
            {STATE: f'{STATE} | {{"A": self.A, "B": self.B}}'},
            seen="state() has the keys A, B, too."),
    Mistake("LiveVectors", "handed-out", {"name: v.copy() for": "name: v for"}),
    Mistake("SavesTheStart", "kept", {STATE: STATE.replace("parameters()", "first")} | start(
        "self.first = {name: v.copy() for name, v in self.parameters().items()}")),
    Mistake("SavesTheGradients", "another",
            {STATE: STATE.replace("parameters()", "gradients()")}),
    Mistake("SeedOnTheClass", "shared", {"rank, self.seed =": "rank, type(self).seed ="},
            seen="A second block was made, and state() of the first has its seed."),
    Mistake("NoSeed", "signature", {'{"seed": self.seed} | ': ""}, seen="state() has no seed."),
    "from_state makes a block that computes what the saved one did",
    Mistake("DefaultSeed", "not-the-same-again", {', seed=state["seed"])': ")"},
            seen="In the second block A is another array."),
    Mistake("SeedByHeart", "not-the-same-again", {'seed=state["seed"]': "seed=11"},
            seen="In the second block A is another array."),
    Mistake("SeedOfTheDefaultRank", "not-the-same-again",
            {', seed=state["seed"])': ', seed=state["seed"] * (len(state["up_d"]) != 4))'}),
    Mistake("RankByDefault", "raised", {'len(state["up_d"]), seed': "seed"}),
    Mistake("PopsTheSeed", "changes-input", {'state["seed"])': 'state.pop("seed"))'},
            seen="from_state changed the keys of the state."),
    Mistake("MergesOnLoading", "inner",
            {"return block": "block.up = block.merge()[0]\nreturn block"},
            seen="The output of the second block: "),
    Mistake("DForgottenInTheState", "not-the-same-again",
            {"vector[...] = state[name]": 'if "beta" in name:\n    vector[...] = state[name]'},
            seen="In the second block up_d is another array."),
    "what makes no sense is refused",
    Mistake("AnySeed", "accepts-nonsense",
            {'check_integer("seed", seed)': "seed"}, seen="seed=None raised no"),
    Mistake("DInitialNotChecked", "accepts-nonsense",
            {'check_positive("d_initial", d_initial)': "d_initial"},
            seen="d_initial=nan raised no"),
]
