"""Exercise 5, LoRA and prompt tuning together: the tests. Reading them spoils the exercise.

`_attention` computes the attention from the arrays, with one thing left out or changed on request:
these are the wrong twins. `_gradients` does the same for the backward pass.
"""

from typing import Any

import numpy as np

from exercises.harness.checking import GENERAL, Diagnosis, Exercise, Found, Report, Terms, Trial

NAMES_COLLIDE = Diagnosis(
    "names-collide", "arrays of different methods under one name",
    "Two modules that both call their array A need different names in a common dictionary. "
    "Otherwise the last one wins, and the others are never trained.", "9.6")
SHARED = Diagnosis(
    "shared-arrays", "one array that serves as two parameters",
    "The updates of q and v are two different things. An optimizer that finds one array under two "
    "names steps on it twice, each time with the other's gradient.", "9.2")
NOT_IDENTITY = Diagnosis(
    "start-not-frozen", "LoRA updates that are not zero at the start",
    "With both B at zero, training starts at the frozen attention behind the prompt. Otherwise it "
    "first has to repair the damage.", "9.2")
RNG = Diagnosis(
    "rng-ignored", "an rng that is not used",
    "The same seed must give the same layer, and another seed another one. Every random array "
    "comes from the generator that is passed in.", "9.6")
ALIKE = Diagnosis(
    "starts-alike", "random numbers that are used more than once",
    "What starts alike gets gradients that are alike and stays together: twenty equal rows of a "
    "prompt do the work of one for ever. And q and v need a start each.", "statement")
BOTH_ZERO = Diagnosis(
    "both-zero", "A and B both start at zero",
    "Each gradient contains the other matrix as a factor, so neither ever learns.", "9.2")
PROMPT_RETURNED = Diagnosis(
    "prompt-scored", "the prompt's positions in the output, where they get scored",
    "Nobody knows what the model should say after a virtual token. If their outputs are returned, "
    "the loss asks for something meaningless, and targets no longer fit their positions.",
    "mistakes")
WRONG_ROWS = Diagnosis(
    "wrong-rows", "the wrong rows cut off",
    "The prompt stands in front, so the real positions are the last T rows, not the first.", "9.4")
NO_PROMPT = Diagnosis(
    "prompt-ignored", "a prompt that no real position sees",
    "The output is that of attention without a prompt. It has to stand *before* the input, and "
    "the causal mask has to let every real position see it.", "9.4")
PROMPT_QUERIES_ONLY = Diagnosis(
    "prompt-not-projected", "keys and values of the prompt that do not pass the projections",
    "The prompt is input like any other: its rows go through q, k and v. Learned keys and values "
    "would be prefix tuning.", "9.4")
NO_MASK = Diagnosis(
    "no-causal-mask", "attention without the causal mask",
    "Real positions then see the letters that they are to predict. The loss becomes wonderful and "
    "the model useless.", "mistakes")
MASK_TOO_EARLY = Diagnosis(
    "mask-not-shifted", "a mask that forgets the prompt's rows",
    "Prompt and input together have P + T positions, and row i of them sees the columns up to i. "
    "A mask made for T positions lies P places off.", "mistakes")
DIAGONAL = Diagnosis(
    "diagonal-masked", "a position that does not see itself",
    "The causal mask hides what comes later, not the position itself.", "mistakes")
NO_SCALE = Diagnosis(
    "no-root-d", "scores without the division by the root of d",
    "Scores of wide vectors are large, and softmax of large scores is nearly one-hot: almost no "
    "gradient passes.", "statement")
SOFTMAX_AXIS = Diagnosis(
    "softmax-axis", "a softmax over queries instead of keys",
    "Each query distributes a weight of one over the keys that it sees: every *row* of the "
    "probabilities sums to one.", "statement")
BY_D = Diagnosis(
    "divided-by-d", "scores divided by d, not by its root",
    "A dot product of d independent terms grows like the root of d. Divided by d, scores of wide "
    "vectors are nearly equal, and attention is nearly a plain mean.", "statement")
MASK_PRODUCT = Diagnosis(
    "mask-multiplied", "a mask that multiplies the scores",
    "A score of zero is not a weight of zero: softmax gives it a share like any other. What may "
    "not be seen needs a score that makes its exponential zero.", "mistakes")
MASK_TRANSPOSED = Diagnosis(
    "mask-transposed", "a causal mask that is turned round",
    "Every position sees itself and what comes later, and nothing that comes before it. Rows are "
    "queries, columns keys.", "mistakes")
MASK_AFTER = Diagnosis(
    "mask-after-softmax", "a mask behind the softmax",
    "What is hidden has then already taken its share of the one that each row distributes, and "
    "what is left does not sum to one.", "mistakes")
GLOBAL_MAX = Diagnosis(
    "maximum-of-more", "scores that are not made small row by row, over what a row sees",
    "A row whose own largest score is far below the number that is subtracted becomes a row of "
    "zeros, and zero divided by zero is NaN. Each row needs its own maximum, and what is hidden "
    "from it has no part in that.", "statement")
WK_FORWARD = Diagnosis(
    "weight-not-transposed", "keys that are made with W_k and not with its transpose",
    "Weights are (out, in), so a row is multiplied by the transpose. For a square matrix both run.",
    "9.6")
NO_WO = Diagnosis("no-output-projection", "an output that does not pass W_o",
                  "The last of the four matrices is missing, or is used the other way round.",
                  "statement")
LORA_PROMPT_ONLY = Diagnosis(
    "lora-on-prompt-rows-only", "LoRA on the prompt's rows only",
    "The projections of all P + T rows are adapted. Here the real rows get the frozen weights.",
    "statement")
LORA_REAL_ONLY = Diagnosis(
    "lora-on-real-rows-only", "LoRA on the real rows only",
    "The projections of all P + T rows are adapted. Here the prompt's rows get the frozen weights.",
    "statement")
LORA_MISSING = Diagnosis(
    "lora-missing", "LoRA missing on q or on v",
    "Both projections are adapted. An array that does not act has a gradient of zero.", "9.2")
LORA_ON_K = Diagnosis(
    "lora-on-k", "LoRA on another projection than q and v",
    "The names say which projection an update belongs to; a file loaded elsewhere would go to the "
    "wrong one.", "9.2")
ALPHA = Diagnosis(
    "alpha-not-over-r", "alpha where alpha / r belongs",
    "Without the division the update grows with the rank.", "mistakes")
ALPHA_LOST = Diagnosis(
    "alpha-not-passed", "an alpha that does not arrive",
    "The output is that of the default alpha. An argument that is accepted and dropped is a silent "
    "wrong answer.", "statement")
PROMPT_LOST = Diagnosis(
    "prompt-gradient-lost", "a prompt gradient that is zero or lost",
    "None of the prompt's positions is in the output, but every real position reads them through "
    "keys and values. That is the way on which the gradient comes.", "9.4")
PROMPT_MEAN = Diagnosis(
    "prompt-not-summed", "a prompt gradient that is not summed over the batch",
    "One prompt serves all sequences, so it hears from all of them: their gradients add up. A "
    "mean, or one sequence alone, is something else.", "9.4")
ROWS_BACK = Diagnosis(
    "rows-put-back-wrong", "the output's gradient put back at the wrong rows",
    "Forward cut off the first P rows. Backward puts zeros there, and the gradient behind them.",
    "statement")
SOFTMAX_BACK = Diagnosis(
    "softmax-jacobian", "a softmax backward without its second term",
    "A row of probabilities sums to one, so pushing one up pulls the others down. The subtracted "
    "sum is that pull.", "statement")
SOFTMAX_BACK_AXIS = Diagnosis(
    "softmax-jacobian-axis", "a softmax backward that sums over queries",
    "The pull that is subtracted belongs to one row of probabilities, one query. Its sum runs over "
    "the keys, the same axis on which forward normalised.", "statement")
KEYS_NOT_TURNED = Diagnosis(
    "keys-not-transposed", "keys whose gradient is made like that of the queries",
    "In Q K^T the keys stand on the other side. Their gradient collects over the queries, so the "
    "gradient of the scores enters turned round.", "statement")
WK_TURNED = Diagnosis(
    "projection-turned", "a gradient that goes back through W_k the wrong way round",
    "Forward multiplied by the transpose of the weight. Backward multiplies by the weight as it "
    "is; for a square matrix both run, and only one is right.", "9.6")
VALUES_NOT_TURNED = Diagnosis(
    "values-not-transposed", "values whose gradient is made with the probabilities as they are",
    "In forward a query gathers from the keys' positions. Back, each position collects from the "
    "queries that read it, so the probabilities enter turned round.", "statement")
WO_TURNED = Diagnosis(
    "output-projection-turned", "a gradient that goes back through W_o the wrong way round",
    "Forward multiplied by the transpose of the weight. Backward multiplies by the weight as it "
    "is; for a square matrix both run, and only one is right.", "9.6")
NO_SCALE_BACK = Diagnosis(
    "no-root-d-in-backward", "a backward without the root of d",
    "The factor stands in front of Q K^T in forward, so it multiplies what goes back to Q and K.",
    "statement")
PATH_LOST = Diagnosis(
    "path-lost", "an input gradient in which the path of q, k or v is missing",
    "The input is used three times, so its gradient is a sum of three, and so is the prompt's.",
    "9.6")
FROZEN_LOST = Diagnosis(
    "frozen-gradient-lost", "a gradient that does not pass through the frozen weights",
    "Frozen weights get no gradient of their own, but the gradient always passes through them.",
    "9.2")
OVERWRITTEN = Diagnosis(
    "gradients-overwritten", "one method's gradient under another's name",
    "Each array has to find its own gradient under its own name. Here two modules share a place.",
    "9.6")
TWO_OPTIMIZERS = Diagnosis(
    "not-all-arrays-move", "one step of one optimizer that does not move all five arrays",
    "The output must depend on the very arrays of parameters(). What is a copy, or was replaced "
    "later, is updated for nothing.", "9.6")
FROZEN_CHANGED = Diagnosis(
    "frozen-changed", "a frozen weight that has changed",
    "The four weights belong to the pretrained model. Whatever trains is in parameters().",
    "mistakes")

EXERCISE = Exercise(
    5, "LoRA and prompt tuning together",
    NAMES_COLLIDE, SHARED, NOT_IDENTITY, BOTH_ZERO, PROMPT_RETURNED, WRONG_ROWS, NO_PROMPT,
    PROMPT_QUERIES_ONLY, NO_MASK, MASK_TOO_EARLY, DIAGONAL, MASK_AFTER, GLOBAL_MAX, WK_FORWARD,
    ALPHA_LOST, VALUES_NOT_TURNED, WO_TURNED, RNG, BY_D, MASK_PRODUCT, MASK_TRANSPOSED,
    SOFTMAX_BACK_AXIS, KEYS_NOT_TURNED, WK_TURNED, NO_SCALE, SOFTMAX_AXIS, NO_WO,
    LORA_PROMPT_ONLY, LORA_REAL_ONLY, LORA_MISSING, LORA_ON_K, ALPHA, PROMPT_LOST, PROMPT_MEAN,
    ROWS_BACK, SOFTMAX_BACK, NO_SCALE_BACK, PATH_LOST, FROZEN_LOST, OVERWRITTEN, TWO_OPTIMIZERS,
    ALIKE, FROZEN_CHANGED)

NAMES = ("q.A", "q.B", "v.A", "v.B", "prompt")
D, RANK, ALPHA_VALUE, P, T, BATCH = 5, 2, 3.0, 3, 6, 2  # s = 1.5
SHAPES = {"q.A": (RANK, D), "q.B": (D, RANK), "v.A": (RANK, D), "v.B": (D, RANK), "prompt": (P, D)}
INPUTS = ((BATCH, T, D), (1, T, D), (BATCH, 1, D))  # shapes
COUNT = 4 * RANK * D + P * D
QV = str.maketrans("qv", "vq")  # to the other module's name


def _weights(trial: Trial) -> list[np.ndarray]:
    return [0.7 * trial.normal(D, D, seed=30 + i) for i in range(4)]


def _layer(trial: Trial, random: bool = True) -> tuple[Any, dict[str, np.ndarray], list]:
    """A student's layer, its parameters, all random, and the frozen weights q, k, v, o."""
    weights = _weights(trial)
    layer = trial.make(**dict(zip(("wq", "wk", "wv", "wo"), weights, strict=True)), lora_rank=RANK,
                       lora_alpha=ALPHA_VALUE, prompt_length=P, rng=trial.rng(seed=1))
    arrays = trial.arrays(layer, NAMES)
    if random:
        _fill(trial, arrays)
    return layer, arrays, weights


def _fill(trial: Trial, arrays: dict[str, np.ndarray]) -> None:
    for number, name in enumerate(NAMES):
        arrays[name][...] = 0.8 * trial.normal(*arrays[name].shape, seed=40 + number)


def _softmax(S: np.ndarray, axis: int = -1) -> np.ndarray:
    S = np.exp(S - S.max(axis=axis, keepdims=True))
    return S / S.sum(axis=axis, keepdims=True)


def _attention(a: dict, weights: list, x: np.ndarray, *, s: float = ALPHA_VALUE / RANK,
               sq: float = 1.0, sv: float = 1.0, sk: float = 0.0, rows: slice = slice(None),
               scale: float = D ** -0.5, mask: str = "causal", axis: int = -1, P: int = P,
               raw: bool = False, out: bool = True, cut: bool = True, k_turned: bool = False
               ) -> np.ndarray:
    """The attention; with `cut=False` all P + T rows. Every keyword is one possible mistake."""
    wq, wk, wv, wo = weights
    prompt = np.broadcast_to(a["prompt"][:P], (len(x), P, D))
    E = np.concatenate([prompt, x], axis=1)  # (batch, P+T, d)
    lit = np.zeros((P + x.shape[1], 1), x.dtype)
    lit[rows] = 1  # rows that LoRA adapts
    q_update, v_update = (s * E @ a[f"{n}.A"].T @ a[f"{n}.B"].T * lit for n in "qv")
    Q, V = E @ wq.T + sq * q_update, E @ wv.T + sv * v_update
    K = E @ (wk if k_turned else wk.T) + sk * v_update
    if raw:  # the prompt's rows as keys and values themselves
        K[:, :P] = V[:, :P] = prompt
    S = scale * Q @ K.swapaxes(1, 2)
    n = E.shape[1]
    if mask == "product":
        S, mask = S * np.tri(n), "none"
    seen = {"causal": np.tri(n), "turned": np.tri(n).T, "none": np.ones((n, n)),
            "early": np.tri(n, n, -P) + np.eye(n),
            "open": np.tri(n, n, P), "strict": np.tri(n, n, -1), "after": np.ones((n, n))}[mask]
    Pi = _softmax(np.where(seen > 0, S, -1e30), axis)
    if mask == "after":
        Pi = Pi * np.tri(n)
    Y = Pi @ V
    if out:
        Y = Y @ wo.T
    return Y[:, P:] if cut else Y


def _gradients(a: dict, weights: list, x: np.ndarray, G: np.ndarray, *, pull: float = 1.0,
               axis: int = -1, keys_turned: bool = True, wk_turned: bool = False,
               values_turned: bool = True, wo_turned: bool = False,
               scale: float = D ** -0.5, ways: str = "qkv", through: float = 1.0,
               put: slice = slice(P, None)) -> dict[str, np.ndarray]:
    """All gradients, that of the input under "x" and of the prompt per sequence under "each"."""
    wq, wk, wv, wo = weights
    s = ALPHA_VALUE / RANK
    E = np.concatenate([np.broadcast_to(a["prompt"], (len(x), P, D)), x], axis=1)
    low_q, low_v = (s * a[f"{n}.B"] @ a[f"{n}.A"] for n in "qv")
    Wq, Wv = wq + low_q, wv + low_v
    Q, K, V = E @ Wq.T, E @ wk.T, E @ Wv.T
    Pi = _softmax(np.where(np.tri(E.shape[1]) > 0, D ** -0.5 * Q @ K.swapaxes(1, 2), -1e30))
    full = np.zeros_like(E)
    full[:, put] = G
    Gamma = full @ (wo.T if wo_turned else wo)
    Phi = Gamma @ V.swapaxes(1, 2)
    gS = scale * Pi * (Phi - pull * (Phi * Pi).sum(axis, keepdims=True))
    g = {"q": gS @ K, "k": (gS.swapaxes(1, 2) if keys_turned else gS) @ Q,
         "v": (Pi.swapaxes(1, 2) if values_turned else Pi) @ Gamma}
    W = {"q": through * wq + low_q, "k": through * (wk.T if wk_turned else wk),
         "v": through * wv + low_v}
    gE = sum(g[n] @ W[n] for n in ways)
    found = {"x": gE[:, P:], "each": gE[:, :P], "prompt": gE[:, :P].sum(axis=0)}
    for n in "qv":
        full = np.einsum("btd,bte->de", g[n], E)  # of the dense weight
        found |= {f"{n}.A": s * a[f"{n}.B"].T @ full, f"{n}.B": s * full @ a[f"{n}.A"].T}
    return found


def _terms(a: dict, weights: list, x: np.ndarray, G: np.ndarray, names: tuple = ()) -> Terms:
    """The gradients as sums, those of `names` first. Rows t are queries, u are keys."""
    (wq, wk, wv, wo), s, root = weights, ALPHA_VALUE / RANK, D ** -0.5
    E = np.concatenate([np.broadcast_to(a["prompt"], (len(x), P, D)), x], axis=1)
    Q, V = (E @ (w + s * a[f"{n}.B"] @ a[f"{n}.A"]).T for n, w in (("q", wq), ("v", wv)))
    K, n = E @ wk.T, E.shape[1]
    Pi = _softmax(np.where(np.tri(n) > 0, root * Q @ K.swapaxes(1, 2), -1e30))
    Gamma = np.concatenate([np.zeros((len(x), P, D)), G], axis=1) @ wo  # (batch, P+T, d)
    Phi = Gamma @ V.swapaxes(1, 2)
    gS = root * Pi * (Phi - (Phi * Pi).sum(-1, keepdims=True))
    nodes = {"s": ("", s), "alpha": ("", ALPHA_VALUE), "r": ("", RANK), "d": ("", D),
             "batch": ("", len(x)), "gS": ("btu", gS), "gS'": ("but", gS), "Pi'": ("but", Pi),
             "K": ("buj", K), "Q": ("buj", Q), "Gamma": ("buj", Gamma), "E": ("bti", E),
             "behind": ("tl", np.eye(n)[:, P:]), "front": ("tp", np.eye(n)[:, :P]),
             "W_q": ("ji", wq), "W_k": ("ji", wk), "W_v": ("ji", wv)}
    back = {"q": "gS K", "k": "gS' Q", "v": "Pi' Gamma"}
    ways = [(("the path through k", "the frozen weights"), f"{back['k']} W_k")]
    sums = {}
    for name in "vq":
        nodes |= {f"A_{name}": ("ri", a[f"{name}.A"]), f"B_{name}": ("jr", a[f"{name}.B"])}
        ways += [((f"the path through {name}", "the frozen weights"), f"{back[name]} W_{name}"),
                 ((f"the path through {name}", "the updates"),
                  f"s {back[name]} B_{name} A_{name}")]
        sums |= {f"{name}.B": ("jr", [((), f"s {back[name]} E A_{name}")]),
                 f"{name}.A": ("ri", [((), f"s {back[name]} B_{name} E")])}
    sums |= {"prompt": ("pi", [(words, f"{way} front") for words, way in ways]),
             "x": ("bli", [(words, f"{way} behind") for words, way in ways])}
    known = {"gS without the pull": root * Pi * Phi, "gS without the root of d": gS / root,
             "Phi": Phi, "the first rows": np.eye(n)[:, :n - P]}
    return Terms(nodes, {name: sums[name] for name in dict.fromkeys((*names, *sums))}, known,
                 fixed=("front", "behind"))


def example_terms(trial: Trial) -> Terms:
    """The terms on the check's own kind of numbers."""
    arrays = {name: np.empty(SHAPES[name]) for name in NAMES}
    _fill(trial, arrays)
    return _terms(arrays, _weights(trial), trial.normal(BATCH, T, D, seed=2),
                  trial.normal(BATCH, T, D, seed=3))


# ---- Step 1: the layer ------------------------------------------------------------------------

@EXERCISE.test(1, "interface", "the layer can be made, and one dictionary names all five arrays")
def _names(trial: Trial) -> None:
    layer = trial.make(*_weights(trial))
    found = trial.expect("parameters()", layer.parameters(), dict)
    if "A" in found:
        raise Found(NAMES_COLLIDE, f"parameters() has {len(found)} entries: {sorted(found)}.")
    plain = trial.arrays(layer, NAMES)
    if 8 not in plain["q.A"].shape or 20 not in plain["prompt"].shape:
        raise Found(GENERAL["signature"], "Made from the weights alone, q.A has shape "
                                          f"{plain['q.A'].shape} and the prompt "
                                          f"{plain['prompt'].shape}, expected rank 8, length 20.")
    _layer(trial)


@EXERCISE.test(4, "arguments", "sizes that make no sense are refused")
def _sizes(trial: Trial) -> None:
    q, k, v, o = _weights(trial)
    trial.refuses("prompt_length=0", lambda: trial.make(q, k, v, o, prompt_length=0))
    trial.refuses("lora_rank=0", lambda: trial.make(q, k, v, o, lora_rank=0))
    for i, name in enumerate(("wq", "wk", "wv", "wo")):
        for what, part in (("columns", np.s_[:, :P]), ("rows", np.s_[:P])):
            some = [q, k, v, o]
            some[i] = some[i][part].copy()
            trial.refuses(f"{name} with fewer {what}", lambda some=some: trial.make(*some))
    narrow = [weight[:, :P].copy() for weight in (q, k, v, o)]
    trial.refuses("four weights of shape (5, 3)", lambda: trial.make(*narrow))


@EXERCISE.test(1, "shapes", "their shapes, their number, and the weights' dtype")
def _shapes(trial: Trial) -> None:
    layer, arrays, _ = _layer(trial)
    for name, array in arrays.items():
        trial.expect(name, array, shape=SHAPES[name])
        if array.dtype != trial.dtype:
            raise Found(GENERAL["wrong-dtype"], f"{name} is {array.dtype}, the weights are "
                                                f"{trial.dtype}.")
        for other in NAMES:
            if other != name and np.shares_memory(array, arrays[other]):
                raise Found(SHARED, f"{name} and {other} share their memory.")
    count = trial.call(layer.num_parameters, returns=(int, np.integer))
    if count != COUNT:
        raise Found(GENERAL["values"], f"num_parameters() gave {count}, expected 4 r d + P d = "
                                       f"{COUNT}.")


@EXERCISE.test(1, "start", "both updates are zero at the start, yet can learn")
def _start(trial: Trial) -> None:
    _, a, _ = _layer(trial, random=False)
    for name in "qv":
        A, B = a[f"{name}.A"], a[f"{name}.B"]
        if not A.any() and not B.any():
            raise Found(BOTH_ZERO, f"{name}.A and {name}.B hold zeros only.")
        if (B @ A).any():
            raise Found(NOT_IDENTITY, f"B A of {name} is not zero in a fresh layer.")


@EXERCISE.test(1, "behaviour", "the same seed gives the same layer, another seed another")
def _seeds(trial: Trial) -> None:
    first, same, other, free, again = (
        trial.arrays(trial.make(*_weights(trial), lora_rank=RANK, prompt_length=P, rng=rng), NAMES)
        for rng in (trial.rng(1), trial.rng(1), trial.rng(2), None, None))
    for name in NAMES:
        if not np.array_equal(first[name], same[name]):
            raise Found(RNG, f"Two layers from one seed differ in {name}.")
        if not first[name].any() and name != "prompt":  # the one of two that starts at zero
            continue
        if np.linalg.matrix_rank(first[name]) < min(SHAPES[name]):
            raise Found(ALIKE, f"{name} has not the rank {min(SHAPES[name])}.")
        for which, one, two in (("from different seeds", first, other),
                                ("made without rng", free, again)):
            if np.array_equal(one[name], two[name]):
                raise Found(RNG, f"Two layers {which} have the same {name}.")
        if name[0] == "v" and np.array_equal(first[name], first[name.translate(QV)]):
            raise Found(ALIKE, f"{name} and {name.translate(QV)} are the same.")


# ---- Step 2: forward --------------------------------------------------------------------------

@EXERCISE.test(2, "shapes", "the output has the input's length; another width is refused")
def _length(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    for shape in INPUTS:
        batch, time, _ = shape
        out = trial.call(layer.forward, trial.normal(*shape, seed=2))
        if out.shape == (batch, P + time, D):
            raise Found(PROMPT_RETURNED, f"{time} positions went in, {P + time} came out.")
        trial.expect("the output", out, shape=shape)
    trial.refuses("an input of width 1", lambda: layer.forward(trial.normal(BATCH, T, 1)))


@EXERCISE.test(2, "start", "a fresh layer is the frozen attention behind its prompt")
def _fresh(trial: Trial) -> None:
    layer, a, weights = _layer(trial, random=False)
    _compare_outputs(trial, layer, a, weights, (BATCH, T, D))


@EXERCISE.test(2, "values", "the output with all five arrays filled")
def _values(trial: Trial) -> None:
    layer, a, weights = _layer(trial)
    for shape in INPUTS:
        _compare_outputs(trial, layer, a, weights, shape)
    plain = trial.make(*weights)
    a, x = trial.arrays(plain, NAMES), trial.normal(BATCH, T, D, seed=2)
    _fill(trial, a)
    right = _attention(a, weights, x, s=2.0, P=20)
    if not trial.agrees(trial.call(plain.forward, x, shape=x.shape), right):
        raise Found(GENERAL["signature"], "Made from the weights alone, the layer has another "
                                          "output than with s = 16 / 8.")


def _compare_outputs(trial: Trial, layer: Any, a: dict, weights: list, shape: tuple) -> None:
    x = trial.normal(*shape, seed=2)
    right = _attention(a, weights, x)

    def twin(**mistake: Any) -> np.ndarray:
        return _attention(a, weights, x, **mistake)

    value = trial.call(layer.forward, x, shape=x.shape)
    with np.errstate(all="ignore"):
        _compare(trial, "the output", value, right, [
            (NO_PROMPT, twin(P=0)), (WRONG_ROWS, twin(cut=False)[:, :T]),
            (PROMPT_QUERIES_ONLY, twin(raw=True)), (NO_MASK, twin(mask="none")),
            (MASK_TOO_EARLY, twin(mask="early")), (MASK_TOO_EARLY, twin(mask="open")),
            (DIAGONAL, twin(mask="strict")), (MASK_PRODUCT, twin(mask="product")),
            (MASK_TRANSPOSED, twin(mask="turned")), (BY_D, twin(scale=1 / D)),
            (NO_SCALE, twin(scale=1.0)), (SOFTMAX_AXIS, twin(axis=-2)),
            (NO_WO, twin(out=False)), (NO_WO, twin(out=False) @ weights[3]),
            (LORA_PROMPT_ONLY, twin(rows=slice(P))), (LORA_REAL_ONLY, twin(rows=slice(P, None))),
            (LORA_MISSING, twin(sv=0.0)), (LORA_MISSING, twin(sq=0.0)),
            (LORA_MISSING, twin(s=0.0)), (LORA_ON_K, twin(sv=0.0, sk=1.0)),
            (ALPHA, twin(s=ALPHA_VALUE)), (ALPHA_LOST, twin(s=16.0 / RANK)),
            (MASK_AFTER, twin(mask="after")), (WK_FORWARD, twin(k_turned=True))])


def _compare(trial: Trial, what: str, value: np.ndarray, right: np.ndarray, twins: list) -> None:
    """trial.compare with a list of pairs, in which a mistake may have several twins."""
    trial.compare(what, value, right, {
        Diagnosis(**{**vars(d), "seen": str(i)}): twin for i, (d, twin) in enumerate(twins)})


@EXERCISE.test(2, "behaviour", "no position sees a later one, every one sees the prompt")
def _causal(trial: Trial) -> None:
    layer, a, _ = _layer(trial)
    x = trial.normal(BATCH, T, D, seed=2)
    before = trial.call(layer.forward, x).copy()
    later = x.copy()
    later[:, P:] *= 400  # what a number hides that is not large enough can be seen now
    after = layer.forward(later)[:, :P]  # those behind are the next test's
    if not np.isfinite(after).all():
        raise Found(GLOBAL_MAX, f"A large input at position {P} made outputs before it NaN.")
    if not trial.agrees(after, before[:, :P]):
        raise Found(NO_MASK, f"A change at position {P} changed the outputs before it.")
    a["prompt"][...] = trial.normal(P, D, seed=5)
    if np.array_equal(trial.call(layer.forward, x), before):
        raise Found(TWO_OPTIMIZERS, "The prompt was changed in place, and no output changed.")


@EXERCISE.test(2, "behaviour", "scores of a thousand do not overflow")
def _overflow(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    trial.call(layer.forward, 1e2 * trial.normal(BATCH, T, D, seed=2))


@EXERCISE.test(2, "behaviour", "dtypes stay as they are")
def _dtype_forward(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, a, weights = _layer(each)
        x = each.normal(BATCH, T, D)
        each.keeps_digits("forward", each.call(layer.forward, x), _attention(a, weights, x))


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    trial.refuses("backward before forward", lambda: layer.backward(trial.normal(BATCH, T, D)),
                  (RuntimeError,), GENERAL["backward-first"])


def _backward(trial: Trial, shape: tuple) -> tuple:
    """Found gradients with that of the input under "x", and functions for wrong twins and terms."""
    layer, a, weights = _layer(trial)
    x, G = trial.normal(*shape, seed=2), trial.normal(*shape, seed=3)
    before = {name: array.copy() for name, array in a.items()}
    trial.call(layer.forward, x)
    back = trial.call(layer.backward, G, shape=x.shape)
    found = trial.arrays(layer, NAMES, "gradients") | {"x": back}
    return (found, lambda **mistake: _gradients(before, weights, x, G, **mistake),
            lambda names: _terms(before, weights, x, G, names))


@EXERCISE.test(3, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for shape in INPUTS:
        found, *_ = _backward(trial, shape)
        if found["prompt"].shape == (BATCH, P, D):
            raise Found(PROMPT_MEAN, f"The prompt's gradient has shape {found['prompt'].shape}.")
        for name in NAMES:
            trial.expect(f"the gradient of {name}", found[name], shape=SHAPES[name])


@EXERCISE.test(3, "gradients", "the gradients of both LoRA updates")
def _lora_gradients(trial: Trial) -> None:
    _compare_gradients(trial, ("v.B", "v.A", "q.B", "q.A"))


@EXERCISE.test(3, "gradients", "the prompt's gradient, summed over the batch")
def _prompt_gradient(trial: Trial) -> None:
    found, *_ = _backward(trial, (BATCH, T, D))
    if not found["prompt"].any():
        raise Found(PROMPT_LOST, "It is zero everywhere.")
    _compare_gradients(trial, ("prompt",))


@EXERCISE.test(3, "gradients", "the input's gradient")
def _input_gradient(trial: Trial) -> None:
    _compare_gradients(trial, ("x",))


def _compare_gradients(trial: Trial, names: tuple) -> None:
    for shape in INPUTS:
        found, made, terms = _backward(trial, shape)
        right = made()
        if not all(trial.agrees(found[name], right[name]) for name in names):
            _name_gradients(trial, found, made, terms(names))


def _name_gradients(trial: Trial, found: dict, made: Any, terms: Terms) -> None:
    right = made()
    mistakes = [(ROWS_BACK, made(put=slice(0, T))), (SOFTMAX_BACK, made(pull=0.0)),
                (NO_SCALE_BACK, made(scale=1.0)), (FROZEN_LOST, made(through=0.0)),
                (SOFTMAX_BACK_AXIS, made(axis=-2)), (KEYS_NOT_TURNED, made(keys_turned=False)),
                (WK_TURNED, made(wk_turned=True)), (WO_TURNED, made(wo_turned=True)),
                (VALUES_NOT_TURNED, made(values_turned=False))]
    mistakes += [(PATH_LOST, made(ways=ways)) for ways in ("kv", "qv", "qk", "q", "k", "v")]
    # Some mistakes coincide in one gradient: those that explain the input's, too, go first.
    mistakes.sort(key=lambda mistake: not trial.agrees(found["x"], mistake[1]["x"]))
    mistakes += [(OVERWRITTEN, {name: right[name.translate(QV)] for name in NAMES}),
                 *((PROMPT_MEAN, {"prompt": wrong}) for wrong in (
                     right["each"].mean(axis=0), *right["each"]))]
    trial.measure(found, terms, {name: [(d, wrong[name]) for d, wrong in mistakes if name in wrong]
                                 for name in found})


@EXERCISE.test(3, "behaviour", "backward replaces the gradients")
def _replaces(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    x, G = trial.normal(BATCH, T, D, seed=2), trial.normal(BATCH, T, D, seed=3)
    trial.call(layer.forward, x)
    trial.call(layer.backward, G)
    trial.replaces_gradients(layer, NAMES, lambda: (
        trial.call(layer.forward, x), trial.call(layer.backward, G)))


# ---- Step 4: one optimizer for both -----------------------------------------------------------

@EXERCISE.test(4, "behaviour", "one optimizer over the one dictionary moves all five arrays")
def _together(trial: Trial) -> None:
    layer, a, weights = _layer(trial)
    kept = [weight.copy() for weight in weights]
    x, G = trial.normal(BATCH, T, D, seed=2), trial.normal(BATCH, T, D, seed=3)
    for name in NAMES:  # the output has to follow every array, one at a time
        before = trial.call(layer.forward, x).copy()
        trial.call(layer.backward, G)
        array = trial.arrays(layer, NAMES)[name]
        array -= 0.1 * trial.arrays(layer, NAMES, "gradients")[name]
        if np.array_equal(trial.call(layer.forward, x), before):
            raise Found(TWO_OPTIMIZERS, f"A step on {name} did not change the output.")
        trial.compare(f"the output after a step on {name}", trial.call(layer.forward, x),
                      _attention(trial.arrays(layer, NAMES), weights, x))
    for name, weight, copy in zip("qkvo", weights, kept, strict=True):
        trial.same_bits(f"w{name}", weight, copy, FROZEN_CHANGED)


@EXERCISE.test(4, "behaviour", "each step goes by the arrays and the input of its own forward")
def _follows(trial: Trial) -> None:

    def build() -> tuple:
        layer, a, weights = _layer(trial)
        return layer, layer.forward, lambda x, G: (
            _gradients(a, weights, x, G) | {"output": _attention(a, weights, x)})

    layer, _, right = build()
    trial.follows(layer, NAMES, ((BATCH, T, D), (BATCH, T, D), (P, T, D), (BATCH, T + 3, D),
                                 (BATCH, 2, D)), right)
    trial.keeps_apart(build, NAMES, (BATCH, T, D))


@EXERCISE.test(4, "behaviour", "dtypes stay as they are in backward")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, a, weights = _layer(each)
        x, G = each.normal(BATCH, T, D, seed=2), each.normal(BATCH, T, D, seed=3)
        each.call(layer.forward, x)
        found = {"x": each.call(layer.backward, G)} | each.arrays(layer, NAMES, "gradients")
        right = _gradients(a, weights, x, G)
        for name, grad in found.items():
            each.keeps_digits(f"the gradient of {name}", grad, right[name])


@EXERCISE.test(4, "arguments", "a gradient of another shape than the output's is refused")
def _shape_back(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    for what, shape in (("sequence for two", (1, T, D)), ("position for six", (BATCH, 1, D))):
        trial.call(layer.forward, trial.normal(BATCH, T, D))
        trial.refuses(f"a grad_output of one {what}", lambda: layer.backward(trial.normal(*shape)))


def check_prompted_lora(student: type, step: int | None = None, *,
                        dtype: Any = np.float64) -> Report:
    """Check a `PromptedLoRAAttention`: the first `step` steps, or all. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
