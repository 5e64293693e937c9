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
            seen="parameters() holds B, of shape (9, 4)."),
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
            seen="up_d has shape (9,), up_beta (4,)"),
    Mistake("AsWideAsTheModel", "wrong-shape", {"max(up.shape)": "up.shape[1]"},
            seen="A has shape (4, 6), expected (4, 9)."),
    Mistake("DrawnInDouble", "wrong-dtype",
            {"rng.uniform(-1, 1, shape)).astype(up.dtype)": "rng.uniform(-1, 1, shape))"},
            seen="A is float64, the weights are float32."),
    "A and B come from the seed; d starts at d_initial, beta at zero",
    Mistake("BetaAtOne", "start-not-frozen",  # as a scale, as (IA)3's
            start("self.up_beta[...] = self.down_beta[...] = 1")),
    Mistake("BothAtZero", "wrong-d", start("self.up_d[...] = self.down_d[...] = 0")),
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
    "a fresh block computes what the frozen one does",
    Mistake("FrozenLost", "factor", {"return x @ W.T + beta * u": "return beta * u"},
            seen="The output with the update of down alone: zero everywhere"),
    Mistake("NoRelu", "operand", {"np.maximum(z, 0)": "z"},
            seen="The output with the update of down alone: z in the place of relu(z)"),
    "the output is that of two updated layers with relu between",
    Mistake("APairForEach", "own-matrices",
            {CORNER: f"if W is self.up:\n    {CORNER}\nreturn self.pair",
             "self.cache = {}": "self.cache = {}\n"
             "self.pair = (np.sqrt(6 / len(up)) * rng.uniform(-1, 1, (rank, len(up)))).astype("
             "up.dtype), (np.sqrt(6 / rank) * rng.uniform(-1, 1, (len(down), rank))).astype("
             "up.dtype)"},
            seen="The output with the update of down alone: with zeros in A and B"),
    Mistake("LastColumns", "wrong-corner", {"self.A[:, :W.shape[1]]": "self.A[:, -W.shape[1]:]"}),
    Mistake("LastRows", "wrong-corner", {"self.B[:W.shape[0]]": "self.B[-W.shape[0]:]"}),
    Mistake("DForgotten", "operand", {"(d * t) @ B.T": "t @ B.T"},
            seen="The output with the update of down alone: d_down left out"),
    Mistake("RowsOnly", "wrong-shape", {"return y.reshape(x.shape)": "return y"}),
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
    Mistake("TakesAStepWithB", "trains-matrices",
            {BACK: f"B -= 0.01 * G.T @ (d * t)\n{BACK}"},
            seen="the frozen B after backward is not bit for bit what it was."),
    Mistake("SkipsZeros", "factor", {"(G * u).sum(axis=0)": "(G * u).sum(axis=0) * beta.any()"},
            seen="The gradients of down_beta and up_beta at the start: zero everywhere"),
    "each step goes by the vectors and the input of its own forward",
    Mistake("OneVectorForBothLayers", "starts-alike", start("self.down_d = self.up_d"),
            seen="up_d and down_d are one array"),
    Mistake("CornersScaledOnce", "kept",
            {"u = (d * t) @ B.T": 'kept = self.__dict__.setdefault("scaled", {})\n'
             "u = t @ kept.setdefault(W.shape, d[:, None] * B.T)"}),
    "merge gives two new weights and changes nothing",
    Mistake("MergeDropsD", "operand", {MERGED: "return W + (beta[:, None] * B) @ A"},
            seen="The merged up: d_up left out"),
    Mistake("MergesInPlace", "trains-matrices",
            {MERGED: "W += (beta[:, None] * B * d) @ A\nreturn W.copy()"}),
    "the state holds the vectors and the seed",
    Mistake("SavesTheMatrices", "state-too-large",
            {STATE: f'{STATE} | {{"A": self.A, "B": self.B}}'},
            seen="state() has the keys A, B, too."),
    Mistake("LiveVectors", "handed-out", {"name: v.copy() for": "name: v for"}),
    Mistake("NoSeed", "signature", {'{"seed": self.seed} | ': ""}, seen="state() has no seed."),
    "from_state makes a block that computes what the saved one did",
    Mistake("DefaultSeed", "not-the-same-again", {', seed=state["seed"])': ")"},
            seen="In the second block A is another array."),
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
