"""Exercise 5, LoRA and prompt tuning together: the tests. Reading them spoils the exercise.

`_flow` computes everything, forward and backward, in the most direct way. With any one of its inner
values changed it computes what a wrong answer gives: that is how such an answer is known again.
"""

from typing import Any

import numpy as np

from exercises.harness.checking import GENERAL, Exercise, Found, Report, Terms, Trial, Watch
from exercises.harness.inner import KEPT
from exercises.harness.layers import Layer

EXERCISE = Exercise(5, "LoRA and prompt tuning together")

NAMES_COLLIDE = EXERCISE.mistake(
    "names-collide", "arrays of different methods under one name",
    "Two modules that both call their array A need different names in a common dictionary. "
    "Otherwise the last one wins, and the others are never trained.", "9.6")
SHARED = EXERCISE.mistake(
    "shared-arrays", "one array that serves as two parameters",
    "The updates of q and v are two different things. An optimizer that finds one array under two "
    "names steps on it twice, each time with the other's gradient.", "9.2")
NOT_IDENTITY = EXERCISE.mistake(
    "start-not-frozen", "LoRA updates that are not zero at the start",
    "With both B at zero, training starts at the frozen attention behind the prompt. Otherwise it "
    "first has to repair the damage.", "9.2")
BOTH_ZERO = EXERCISE.mistake(
    "both-zero", "A and B both start at zero",
    "Each gradient contains the other matrix as a factor, so neither ever learns.", "9.2")
PROMPT_RETURNED = EXERCISE.mistake(
    "prompt-scored", "the prompt's positions in the output, where they get scored",
    "After a virtual token that another one follows, nothing is there to be said. If their outputs "
    "are returned, the loss asks for something meaningless, and targets no longer fit their "
    "positions. (PEFT scores the last one, against the first real token.)",
    "mistakes")
WRONG_ROWS = EXERCISE.mistake(
    "wrong-rows", "the wrong rows cut off",
    "The prompt stands in front, so the real positions are the last T rows, not the first.", "9.4")
NO_PROMPT = EXERCISE.mistake(
    "prompt-ignored", "a prompt that no real position sees",
    "The output is that of attention without a prompt. It has to stand *before* the input, and "
    "the causal mask has to let every real position see it.", "9.4")
NO_MASK = EXERCISE.mistake(
    "no-causal-mask", "attention without the causal mask",
    "Real positions then see the letters that they are to predict. The loss becomes wonderful and "
    "the model useless.", "mistakes")
GLOBAL_MAX = EXERCISE.mistake(
    "maximum-of-more", "scores that are not made small row by row, over what a row sees",
    "A row whose own largest score is far below the number that is subtracted becomes a row of "
    "zeros, and zero divided by zero is NaN. Each row needs its own maximum, and what is hidden "
    "from it has no part in that.", "statement")
PROMPT_LOST = EXERCISE.mistake(
    "prompt-gradient-lost", "a prompt gradient that is zero or lost",
    "None of the prompt's positions is in the output, but every real position reads them through "
    "keys and values. That is the way on which the gradient comes.", "9.4")
PROMPT_MEAN = EXERCISE.mistake(
    "prompt-not-summed", "a prompt gradient that is not summed over the batch",
    "One prompt serves all sequences, so it hears from all of them: their gradients add up. A "
    "mean, or one sequence alone, is something else.", "9.4")
TWO_OPTIMIZERS = EXERCISE.mistake(
    "not-all-arrays-move", "one step of one optimizer that does not move all five arrays",
    "The output must depend on the very arrays of parameters(). What is a copy, or was replaced "
    "later, is updated for nothing.", "9.6")
FROZEN_CHANGED = EXERCISE.mistake(
    "frozen-changed", "a frozen weight that has changed",
    "The four weights belong to the pretrained model. Whatever trains is in parameters().",
    "mistakes")


NAMES = ("q.A", "q.B", "v.A", "v.B", "prompt")
D, RANK, ALPHA_VALUE, P, T, BATCH = 5, 2, 3.5, 4, 7, 3  # all differ; s = 1.75
SHAPES = {"q.A": (RANK, D), "q.B": (D, RANK), "v.A": (RANK, D), "v.B": (D, RANK), "prompt": (P, D)}
INPUTS = ((BATCH, T, D), (1, T, D), (BATCH, 1, D))  # shapes
COUNT = 4 * RANK * D + P * D
Arrays = dict[str, np.ndarray]


def _weights(trial: Trial) -> list[np.ndarray]:
    return [0.7 * trial.normal(D, D, seed=30 + i) for i in range(4)]


def _layer(trial: Trial, random: bool = True) -> tuple[Any, dict[str, np.ndarray], list]:
    """A student's layer, its parameters, all random, and the frozen weights q, k, v, o."""
    weights = _weights(trial)
    layer = trial.make(**dict(zip(("wq", "wk", "wv", "wo"), weights, strict=True)), lora_rank=RANK,
                       lora_alpha=ALPHA_VALUE, prompt_length=P, rng=trial.rng(seed=1))
    arrays = trial.arrays(layer, NAMES)
    trial.start = {name: array.copy() for name, array in arrays.items()}
    if random:
        _fill(trial, arrays)
    return layer, arrays, weights


def _fill(trial: Trial, arrays: dict[str, np.ndarray]) -> None:
    for number, name in enumerate(NAMES):
        arrays[name][...] = 0.8 * trial.normal(*arrays[name].shape, seed=40 + number)


def _softmax(S: np.ndarray, axis: int = -1) -> np.ndarray:
    S = np.exp(S - S.max(axis=axis, keepdims=True))
    return S / S.sum(axis=axis, keepdims=True)


def _shifted_down(S: np.ndarray) -> np.ndarray:
    """A softmax that subtracts from each score the largest of its column."""
    e = np.exp(S - S.max(-2, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _other_scores(S: np.ndarray) -> dict[str, Any]:
    """What some models do to their scores, each with a number of its own."""
    n = S.shape[-1]
    return {"capped softly at": lambda c: c * np.tanh(S / c),
            "plus the distance times": lambda c: S + c * np.abs(np.arange(n) - np.c_[:n])}


def _other_roots(S: np.ndarray, positions: int) -> Arrays:
    """Scores divided by the root of a length instead of the width, by what it counts."""
    return {f"Q K^T over the root of the number of {what}": S / n ** 0.5
            for what, n in (("positions", positions), ("rows", S.shape[-1]))}


def _other_softmaxes(S: np.ndarray, sees: np.ndarray, hidden: np.ndarray, e: np.ndarray) -> Arrays:
    """What stands in the place of Pi: of the scores, the mask, what it leaves and its powers of e.
    """
    return {
        "exponentials over their sum over the queries": e / e.sum(-2, keepdims=True),
        "a softmax over the queries": _softmax(hidden, -2),
        "exponentials of S less its largest over the queries": _shifted_down(hidden),
        "a softmax before the mask": _softmax(S) * sees,
        "a softmax of the scores times the mask": _softmax(S * sees),
        **{f"a softmax with hidden scores {what} {c}": _softmax(np.where(sees > 0, S, base + c))
           for c in (-1, -5, -10) for what, base in (("of", 0 * S), ("lowered by", S))}}


def _other_pulls(inner: np.ndarray, P: int) -> Arrays:
    """What stands in the place of the softmax's pull, the sum of Phi Pi over the keys."""
    return {"its sum over the queries": inner.sum(-2, keepdims=True),
            "that of row i in column i": inner.sum(-1, keepdims=True).swapaxes(1, 2),
            "its sum over the real columns": inner[..., P:].sum(-1, keepdims=True),
            "its sum over the prompt's columns": inner[..., :P].sum(-1, keepdims=True)}


def _flow(at: Watch, a: Arrays, weights: list, x: np.ndarray, G: np.ndarray | None = None,
          s: float = ALPHA_VALUE / RANK) -> Arrays:
    """The output and, if there is G, the gradients; every inner value passes through `at`."""
    wq, wk, wv, wo = weights
    T, P, scale = x.shape[1], len(a["prompt"]), D ** -0.5
    prompt = np.broadcast_to(a["prompt"], (len(x), *a["prompt"].shape))
    E = at("E", np.concatenate([prompt, x], axis=1), {"x without the prompt": x})  # (batch, P+T, d)
    n = E.shape[1]
    s, virtual = np.full((n, 1), s), np.arange(n)[:, None] < n - T
    s = at("s", s, {
        "16 / r": np.full((n, 1), 16 / RANK), "s on the prompt's rows alone": s * virtual,
        "s on the real rows alone": s * ~virtual})
    q_update, v_update = (at(f"the update of {m}", s * (E @ a[f"{m}.A"].T @ a[f"{m}.B"].T), {
        f"that with the A of {o}": s * (E @ a[f"{o}.A"].T @ a[f"{m}.B"].T),
        f"that with the B of {o}": s * (E @ a[f"{m}.A"].T @ a[f"{o}.B"].T)})
        for m, o in ("qv", "vq"))
    to_k, to_v = at("the update of v in V", np.array([0.0, 1.0]), {
        "the update of v in K": np.array([1.0, 0.0]), "that in K and V": np.ones(2)})
    Q, V = at("Q", E @ wq.T + q_update), at("V", E @ wv.T + to_v * v_update)
    K = at("K", E @ at("W_k", wk).T + to_k * v_update)
    K = at("K", K).copy()
    K[:, :P] = at("the prompt's keys", K[:, :P].copy())
    V[:, :P] = at("the prompt's values", V[:, :P].copy())
    K[:, :P], V[:, :P] = at("keys and values of the prompt", np.stack([K[:, :P], V[:, :P]]),
                            {"the prompt itself": np.stack([prompt, prompt])})
    S = scale * Q @ K.swapaxes(1, 2)
    S[..., :P] = at("the prompt's scores", S[..., :P].copy())
    S = at("S", S, lambda: _other_roots(Q @ K.swapaxes(1, 2), T), _other_scores(S))
    sees = at("the causal mask", np.tri(n), {
        f"a mask {P} places off": np.tri(n, n, -P) + np.eye(n), "a mask in which no position sees "
        "itself": np.tri(n, n, -1), **{f"a mask {k} too wide": np.tri(n, n, k) for k in (1, P)}})
    hidden = np.where(sees > 0, S, -1e30)
    e = np.exp(hidden - (top := hidden.max(-1, keepdims=True)))
    Pi = at("Pi", e / at("its sums", e.sum(-1, keepdims=True)), {
        "a softmax with 1 added to its sums": e / (e.sum(-1, keepdims=True) + np.exp(-top)),
        **_other_softmaxes(S, sees, hidden, e)})
    Y = at("PiV", Pi @ V) @ at("W_o", wo, {"nothing": np.eye(D)}).T
    found = {"output": at("the last rows", Y[:, -T:], {"the first rows": Y[:, :T]})}
    if G is None:
        return found
    full, first = np.zeros((2, *E.shape))
    full[:, -T:], first[:, :T] = G, G
    Gamma = at("Gamma", at("G", full, {"G at the first rows": first}) @ at(
        "W_o in backward", wo, {"nothing": np.eye(D)}))  # (batch, P+T, d)
    inner = at("Phi Pi", (Phi := at("Phi", Gamma @ V.swapaxes(1, 2))) * Pi)
    pull = at("the softmax's pull", inner.sum(-1, keepdims=True), _other_pulls(inner, n - T))
    gS = scale * (at("Pi in gS", Pi) * (Phi - pull))
    gS = at("gS", gS, {"Phi Pi (1 - Pi)": scale * Phi * Pi * (1 - Pi)})
    g = {"q": at("the gradient of Q", gS @ K),
         "k": at("the gradient of K", gS.swapaxes(1, 2) @ Q, {"gS Q": gS @ Q}),
         "v": at("the gradient of V", Pi.swapaxes(1, 2) @ Gamma, {"Pi Gamma": Pi @ Gamma})}
    gE = g["q"] @ wq + g["k"] @ at("W_k in backward", wk) + g["v"] @ wv
    for m in "qv":
        A, B, gm = a[f"{m}.A"], a[f"{m}.B"], s * g[m]
        rows, gm_rows = E.reshape(-1, D), gm.reshape(-1, D)  # (batch (P+T), d)
        found |= {f"{m}.A": (gm_rows @ B).T @ rows, f"{m}.B": gm_rows.T @ (rows @ A.T)}
        gE = gE + gm @ B @ A
    gE = at("the gradient of E", gE)
    return found | {"prompt": gE[:, :n - T].sum(0), "x": gE[:, -T:]}


def _right(a: Arrays, weights: list, x: np.ndarray, G: np.ndarray | None = None, **other: Any
           ) -> Arrays:
    """The output and, if there is G, the gradients."""
    return _flow(Watch(), a, weights, x, G, **other)


def _doubles(a: Arrays, weights: list) -> tuple[Arrays, list]:
    """Copies in float64: a wrong answer may write into the arrays later."""
    return ({name: array.astype(np.float64) for name, array in a.items()},
            [weight.astype(np.float64) for weight in weights])


def _output_terms(a: Arrays, weights: list, x: np.ndarray, before: Arrays | None = None,
                  when: str = KEPT) -> Terms:
    (a, weights), x, watch = _doubles(a, weights), x.astype(np.float64), Watch()
    _flow(watch, a, weights, x)
    nodes = {"s": ("", ALPHA_VALUE / RANK), "alpha": ("", ALPHA_VALUE), "r": ("", RANK),
             "d": ("", D), "PiV": ("nj", watch.values["PiV"][:, -x.shape[1]:]),
             "W_o": ("ij", weights[3])}
    return Terms(nodes, {"output": ("ni", [((), "PiV W_o")])}, {"x": x}, x.shape[:-1],
                 flow=lambda at: _flow(at, a, weights, x), before=before, when=when)


def _terms(a: dict, weights: list, x: np.ndarray, G: np.ndarray, names: tuple = ()) -> Terms:
    """The gradients as sums, those of `names` first. Rows t are queries, u are keys."""
    (a, weights), x, G, watch = _doubles(a, weights), *map(np.float64, (x, G)), Watch()
    _flow(watch, a, weights, x, G)
    (wq, wk, wv, _), flow, n = weights, watch.values, P + x.shape[1]
    nodes = {"s": ("", ALPHA_VALUE / RANK), "alpha": ("", ALPHA_VALUE), "r": ("", RANK),
             "d": ("", D), "batch": ("", len(x)), "gS": ("btu", flow["gS"]),
             "gS'": ("but", flow["gS"]), "Pi'": ("but", flow["Pi"]), "K": ("buj", flow["K"]),
             "Q": ("buj", flow["Q"]), "Gamma": ("buj", flow["Gamma"]), "E": ("bti", flow["E"]),
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
    known = {"Phi": flow["Phi"], "the first rows": np.eye(n)[:, :n - P]}
    known |= {f"the gradient of sequence {i} alone": one[:P]
              for i, one in enumerate(flow["the gradient of E"])}
    return Terms(nodes, {name: sums[name] for name in dict.fromkeys((*names, *sums))}, known,
                 fixed=("front", "behind"), flow=lambda at: _flow(at, a, weights, x, G))


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
    told = trial.arrays(trial.make(*_weights(trial), 8, 16.0, 20), NAMES)
    if 8 not in told["q.A"].shape:
        raise Found(GENERAL["wrong-shape"], f"With lora_rank=8 q.A has shape {told['q.A'].shape}. "
                                            f"The width is {D}.")
    if 8 not in plain["q.A"].shape or 20 not in plain["prompt"].shape:
        raise Found(GENERAL["signature"], "Made from the weights alone, q.A has shape "
                                          f"{plain['q.A'].shape} and the prompt "
                                          f"{plain['prompt'].shape}, expected rank 8, length 20.")
    _layer(trial)


@EXERCISE.test(4, "arguments", "sizes that make no sense are refused")
def _sizes(trial: Trial) -> None:
    q, k, v, o = _weights(trial)
    trial.make(q, k, v, o, lora_alpha=2)
    trial.refuses("prompt_length=0", lambda: trial.make(q, k, v, o, prompt_length=0))
    trial.refuses("lora_rank=0", lambda: trial.make(q, k, v, o, lora_rank=0))
    for i, name in enumerate(("wq", "wk", "wv", "wo")):
        for what, part in (("columns", np.s_[:, :P]), ("rows", np.s_[:P]),
                           ("rows and columns", np.s_[:P, :P])):
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
    trial.counts(layer, COUNT)


@EXERCISE.test(1, "start", "both updates are zero at the start, yet can learn")
def _start(trial: Trial) -> None:
    _, a, _ = _layer(trial, random=False)
    for name in "qv":
        A, B = a[f"{name}.A"], a[f"{name}.B"]
        if not A.any() and not B.any():
            raise Found(BOTH_ZERO, f"{name}.A and {name}.B hold zeros only.")
        if (B @ A).any():
            raise Found(NOT_IDENTITY, f"B A of {name} is not zero in a fresh layer.")
        for key in "AB":
            trial.small(f"{name}.{key}", a[f"{name}.{key}"])


@EXERCISE.test(1, "behaviour", "the same seed gives the same layer, another seed another")
def _seeds(trial: Trial) -> None:
    trial.starts_from_rng(lambda rng: trial.arrays(
        trial.make(*_weights(trial), lora_rank=RANK, prompt_length=P, rng=rng), NAMES), ("prompt",))


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
    x = trial.normal(BATCH, T, D, seed=2)
    for args in ((8, 16.0, 20), ()):
        plain = trial.make(*weights, *args)
        _fill(trial, a := trial.arrays(plain, NAMES))
        found = {"output": trial.call(plain.forward, x, shape=x.shape)}
        right = _right(a, weights, x, s=2.0)
        if args:  # or it is not a default that is wrong
            trial.holds("the rank is 8 and the prompt 20 long", found, right)
    if not trial.agrees(found["output"], right["output"]):
        raise Found(GENERAL["signature"], "Made from the weights alone, the layer has another "
                                          "output than with s = 16 / 8.")


def _compare_outputs(trial: Trial, layer: Any, a: dict, weights: list, shape: tuple) -> None:
    x = trial.normal(*shape, seed=2)
    _flow(start := Watch(), *_doubles(trial.start, weights), x)
    trial.measure({"output": trial.call(layer.forward, x, shape=x.shape)},
                  _output_terms(a, weights, x, start.values, "of the start"), None, {
        "x without the prompt in the place of E": NO_PROMPT,
        "ones in the place of the causal mask": NO_MASK,
        "the first rows in the place of the last rows": WRONG_ROWS})


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
        later[:, P:] = x[:, P:] + 1
        hidden = trial.agrees(layer.forward(later)[:, :P], before[:, :P])
        raise Found(GENERAL["nearly"] if hidden else NO_MASK, f"A {'large ' * hidden}change at "
                    f"position {P} changed the outputs before it{', a small one did not' * hidden}."
                    + " Hidden scores are low, and not minus infinity." * hidden)
    a["prompt"][...] = trial.normal(P, D, seed=5)
    if np.array_equal(trial.call(layer.forward, x), before):
        raise Found(TWO_OPTIMIZERS, "The prompt was changed in place, and no output changed.")


@EXERCISE.test(2, "behaviour", "scores of a thousand do not overflow")
def _overflow(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    trial.call(layer.forward, 1e2 * trial.normal(BATCH, T, D, seed=2))
    weights, x = _weights(trial), 1e3 * trial.normal(20, P, D, seed=2)
    one = trial.make(*weights, RANK, ALPHA_VALUE, 1, rng=trial.rng(1))
    _fill(trial, a := trial.arrays(one, NAMES))
    a["prompt"] *= 1000  # of some first rows both scores are far below -100,000
    if trial.dtype == np.float64 and not trial.agrees(
            trial.call(one.forward, x), _right(a, weights, x)["output"]):
        raise Found(GENERAL["nearly"], "Where all scores that a position may see are below -100,000"
                                       " the output is wrong: hidden ones are low, and not minus "
                                       "infinity.")


@EXERCISE.test(2, "behaviour", "dtypes stay as they are")
def _dtype_forward(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, a, weights = _layer(each)
        x = each.normal(BATCH, T, D)
        each.keeps_digits("forward", each.call(layer.forward, x),
                          _right(a, weights, x)["output"])


# ---- Step 3: backward -------------------------------------------------------------------------

@EXERCISE.test(3, "interface", "backward before forward raises RuntimeError")
def _order(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    trial.refuses_backward_first(layer, trial.normal(BATCH, T, D))


def _backward(trial: Trial, shape: tuple) -> tuple:
    """Found gradients with that of the input under "x", and a function that gives the terms."""
    layer, a, weights = _layer(trial)
    x, G = trial.normal(*shape, seed=2), trial.normal(*shape, seed=3)
    before = {name: array.copy() for name, array in a.items()}
    trial.call(layer.forward, x)
    back = trial.call(layer.backward, G, shape=x.shape)
    found = trial.arrays(layer, NAMES, "gradients") | {"x": back}
    return found, lambda names: _terms(before, weights, x, G, names)


@EXERCISE.test(3, "shapes", "gradients have the shapes of what they belong to")
def _gradient_shapes(trial: Trial) -> None:
    for shape in INPUTS:
        found, _ = _backward(trial, shape)
        if found["prompt"].shape == (BATCH, P, D):
            raise Found(PROMPT_MEAN, f"The prompt's gradient has shape {found['prompt'].shape}.")
        for name in NAMES:
            trial.expect(f"the gradient of {name}", found[name], shape=SHAPES[name])


@EXERCISE.test(3, "gradients", "the gradients of both LoRA updates")
def _lora_gradients(trial: Trial) -> None:
    _compare_gradients(trial, ("v.B", "v.A", "q.B", "q.A"))


@EXERCISE.test(3, "gradients", "the prompt's gradient, summed over the batch")
def _prompt_gradient(trial: Trial) -> None:
    found, _ = _backward(trial, (BATCH, T, D))
    if not found["prompt"].any():
        raise Found(PROMPT_LOST, "It is zero everywhere.")
    _compare_gradients(trial, ("prompt",))


@EXERCISE.test(3, "gradients", "the input's gradient")
def _input_gradient(trial: Trial) -> None:
    _compare_gradients(trial, ("x",))


def _compare_gradients(trial: Trial, names: tuple) -> None:
    for shape in INPUTS:
        found, terms = _backward(trial, shape)
        right = terms(names)
        if not all(trial.agrees(found[name], right.right[name]) for name in names):
            trial.measure(found, right, None, {
                "prompt: multiplied by 1/2 or 1/batch": PROMPT_MEAN})


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
        _flow(inner := Watch(), *_doubles(trial.arrays(layer, NAMES), weights), x)
        before = trial.call(layer.forward, x).copy()
        trial.call(layer.backward, G)
        array = trial.arrays(layer, NAMES)[name]
        array -= 0.1 * trial.arrays(layer, NAMES, "gradients")[name]
        if np.array_equal(trial.call(layer.forward, x), before):
            if not np.array_equal(trial.call(layer.forward, x.copy()), before):
                raise Found(GENERAL["kept"], f"A step on {name} changed the output for a copy of x "
                                             "and not for x itself, which had been given before.")
            raise Found(TWO_OPTIMIZERS, f"A step on {name} did not change the output.")
        trial.measure({"output": trial.call(layer.forward, x)}, _output_terms(
            trial.arrays(layer, NAMES), weights, x, inner.values), when=f" after a step on {name}")
    for name, weight, copy in zip("qkvo", weights, kept, strict=True):
        trial.same_bits(f"w{name}", weight, copy, FROZEN_CHANGED)


@EXERCISE.test(4, "behaviour", "each step goes by the arrays and the input of its own forward")
def _follows(trial: Trial) -> None:

    def build() -> tuple:
        layer, a, weights = _layer(trial)
        return layer, layer.forward, lambda x, G: _right(a, weights, x, G)

    layer, _, right = build()
    trial.follows(layer, NAMES, ((BATCH, T, D), (BATCH, T, D), (P, T, D), (BATCH, T + 3, D),
                                 (BATCH, 2, D)), right, many=(2, 70))
    trial.keeps_apart(build, NAMES, (BATCH, T, D))
    trial.undisturbed(
        lambda: _layer(trial)[0],
        lambda: trial.make(*(weight[1:, 1:] for weight in _weights(trial)), lora_rank=1,
                           lora_alpha=3 * ALPHA_VALUE, prompt_length=P + 1),
        lambda layer: trial.call(layer.forward, trial.normal(BATCH, T, D, seed=2)))


@EXERCISE.test(4, "behaviour", "sizes that are equal, or 1, change nothing")
def _equal_sizes(trial: Trial) -> None:
    for rank, n in ((D, 3), (1, 1)):
        weights = _weights(trial)
        layer = trial.make(*weights, rank, ALPHA_VALUE, n, rng=trial.rng(1))
        arrays, (x, G) = trial.arrays(layer, NAMES), (trial.normal(n, n, D, seed=s) for s in (2, 3))
        x *= 0.25  # a softmax that is all but one weight has a gradient that float32 can't tell
        _fill(trial, arrays)
        trial.holds(f"batch, tokens and prompt are {n} and the rank is {rank}",
                    Layer(layer, arrays).run(trial, x, G),
                    _right(arrays, weights, x, G, s=ALPHA_VALUE / rank))


@EXERCISE.test(4, "behaviour", "dtypes stay as they are in backward")
def _dtype(trial: Trial) -> None:
    for each in trial.each_dtype():
        layer, a, weights = _layer(each)
        x, G = each.normal(BATCH, T, D, seed=2), each.normal(BATCH, T, D, seed=3)
        each.call(layer.forward, x)
        found = {"x": each.call(layer.backward, G)} | each.arrays(layer, NAMES, "gradients")
        right = _right(a, weights, x, G)
        for name, grad in found.items():
            each.keeps_digits(f"the gradient of {name}", grad, right[name])


@EXERCISE.test(4, "arguments", "a gradient of another shape than the output's is refused")
def _shape_back(trial: Trial) -> None:
    layer, _, _ = _layer(trial)
    x = trial.normal(BATCH, T, D)
    trial.refuses_gradients(lambda: trial.call(layer.forward, x), layer.backward, x.shape,
                            (1, T, D), (BATCH, 1, D))


def check_prompted_lora(student: type, step: int | None = None, *,
                        dtype: Any = np.float64) -> Report:
    """Check a `PromptedLoRAAttention`: the first `step` steps, or all. See `Exercise.check`."""
    return EXERCISE.check(student, step, dtype=dtype)
