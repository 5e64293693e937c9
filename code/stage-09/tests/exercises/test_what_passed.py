"""Wrong answers that once passed: each is the reference solution with one place written anew."""

import inspect
import sys
import types

import numpy as np
import pytest
from exercise_tools import solution

import checks

ROOMS = {1: ("ex1_lora_feed_forward", "LoRAFeedForward", checks.check_lora_feed_forward),
         2: ("ex2_lora_dropout", "LoRADropoutLayer", checks.check_lora_dropout),
         3: ("ex3_parallel_adapter", "ParallelAdapter", checks.check_parallel_adapter),
         4: ("ex4_prefix_mlp", "PrefixMLP", checks.check_prefix_mlp),
         5: ("ex5_prompted_lora", "PromptedLoRAAttention", checks.check_prompted_lora),
         6: ("ex6_qlora", "QLoRALinear", checks.check_qlora),
         7: ("ex7_dora", "ColumnDoRA", checks.check_dora),
         8: ("ex8_vera", "VeRAFeedForward", checks.check_vera)}


def written_over(number, name):
    """The reference solution's class, whose gradients() writes into what it handed out before."""
    right = solution(ROOMS[number][0], name)

    class WrittenOver(right):
        def gradients(self):
            fresh = super().gradients()
            kept = self.__dict__.setdefault("kept", {k: g.copy() for k, g in fresh.items()})
            for key, grad in fresh.items():
                kept[key][...] = grad
            return kept

    return WrittenOver


def patched(number, old, new):
    """What the room's solution defines, with `old`, which must stand there once, replaced."""
    module = sys.modules[solution(*ROOMS[number][:2]).__module__]
    source = inspect.getsource(module)
    assert source.count(old) == 1, (source.count(old), old)
    made = types.ModuleType("patched")
    exec(compile(source.replace(old, new), "patched.py", "exec"), vars(made))
    return made


def judged(number, module, dtype=np.float64):
    _, name, check = ROOMS[number]
    return check(vars(module) if number == 6 else getattr(module, name), dtype=dtype)


@pytest.mark.parametrize("number", ROOMS)
def test_gradients_that_are_written_over_fail(number):
    room, name, _ = ROOMS[number]
    module = types.SimpleNamespace(**vars(sys.modules[solution(room, name).__module__]))
    setattr(module, name, written_over(number, name))
    report = judged(number, module)
    assert report.diagnosis and report.diagnosis.mistake == "kept", str(report)


PATCHES = [
    ("state on the class", 1, 'self.cache = {"x": (u, sig, silu)}',
     'type(self).cache = {"x": (u, sig, silu)}; self.__dict__.pop("cache", 0)', "shared"),
    ("state on the class", 2, 'self.cache = {"x": rows,',
     'self.__dict__.pop("cache", 0); type(self).cache = {"x": rows,', "shared"),
    ("state on the class", 3, 'self.cache = {"x": x, "a": a}',
     'self.__dict__.pop("cache", 0); type(self).cache = {"x": x, "a": a}', "shared"),
    ("state on the class", 4, 'self.cache = {"x": T}',
     'self.__dict__.pop("cache", 0); type(self).cache = {"x": T}', "shared"),
    ("state on the class", 5, "self.cache = Q, K, V, Pi",
     'self.__dict__.pop("cache", 0); type(self).cache = Q, K, V, Pi', "shared"),
    ("state on the class", 8, 'self.cache = {"x": x.shape,',
     'self.__dict__.pop("cache", 0); type(self).cache = {"x": x.shape,', "shared"),
    ("remembered by the identity of x", 1, "        sig = sigmoid(z)",
     "        if getattr(self, 'last', None) is x:\n            z, u = self.z, self.u\n"
     "        self.last, self.z, self.u = x, z, u\n        sig = sigmoid(z)", "kept"),
    ("a merge that switches forward", 1,
     "        gate, up, down = (layer.merge()[0] for layer in self.projections.values())",
     "        gate, up, down = (layer.merge()[0] for layer in self.projections.values())\n"
     "        self.forward = lambda x: (lambda z: z * sigmoid(z) * (x @ up.T))(x @ gate.T) "
     "@ down.T", "merge-changes"),
    ("a merge that hands out the frozen array", 1,
     "        return gate, up, down",
     "        return [layer.weight if not layer.lora.B.any() else w for layer, w in "
     "zip(self.projections.values(), (gate, up, down))]", "handed-out"),
    ("a merge that hands out the frozen array", 2, "    def backward(",
     "    def merge_weights(self, W):\n"
     "        return super().merge_weights(W) if self.B.any() else W\n\n    def backward(",
     "handed-out"),
    ("a mask inferred from zeros", 2, "            through_update = through_update * mask",
     "            through_update = through_update * (rows.reshape(shape) != 0) * mask.max()",
     None),
    ("a mask in half precision", 2, "kept.astype(x.dtype) / x.dtype.type(1 - self.dropout)",
     "(kept / np.float16(1 - self.dropout)).astype(np.float16).astype(x.dtype)", "digits"),
    ("a sigmoid clipped at 10", 1, "np.tanh(0.5 * z)", "np.tanh(0.5 * np.clip(z, -10, 10))",
     "inner"),
    ("the mask of the first call", 5, "np.tri(E.shape[-2], dtype=bool)",
     "np.pad(self.__dict__.setdefault('tri', np.tri(E.shape[-2], dtype=bool)), (0, 64), "
     "constant_values=True)[:E.shape[-2], :E.shape[-2]]", None),
    ("a start of deviation 1", 3, "peft.INIT_STD * start", "start", "start-size"),
    ("a start of deviation 1", 4, "/ np.sqrt(shape[-1])", "/ 1", "start-size"),
    ("a start of deviation 1", 6, "dtype=weight.dtype, rng=rng)",
     "dtype=weight.dtype, rng=rng)\n        self.lora.A *= 100", "start-size"),
    ("a weight in a closure", 6, "        self.dtype = weight.dtype",
     "        self.dtype = weight.dtype\n        self.full = lambda: weight", "large-array-kept"),
    ("a weight as bytes", 6, "        self.dtype = weight.dtype",
     "        self.dtype = weight.dtype\n"
     "        self.full = weight.astype(np.float16).tobytes()", "large-array-kept"),
    ("a weight in the module", 6, "        self.dtype = weight.dtype",
     "        self.dtype = weight.dtype\n"
     "        globals().setdefault('FULL', []).append(weight)", "large-array-kept"),
    ("a rate that ends at a half", 2, "self.rng.random(x.shape) >= self.dropout",
     "self.rng.random(x.shape) >= min(self.dropout, 0.5)", "wrong-rate"),
    ("relu that ends at 6", 3, "np.maximum(x @ self.W_down, 0)", "np.clip(x @ self.W_down, 0, 6)",
     "inner"),
    ("a slope that is kept for a second backward", 4, "R = (Q @ self.W2) * (1 - T * T)",
     "R = self.cache.setdefault('R', (Q @ self.W2) * (1 - T * T))", "kept"),
    ("silu from a product that is kept", 1, "a * u * (sig + silu * (1 - sig))",
     "a * u * (sig + (silu * u) / u * (1 - sig))", "not-finite"),
    ("a large start", 1, "self.cache = {}", "self.cache = {}\n        self.up.lora.A *= 100",
     "start-size"),
    ("a uniform start", 2, "self.training = True",
     "self.training = True\n        self.A[...] = self.rng.uniform(-0.2, 0.2, self.A.shape)",
     "start-size"),
    ("a large start of LoRA", 5, "self.cache = None",
     "self.cache = None\n        self.q.lora.A *= 100", "start-size"),
    ("a seed cut to a whole number", 8, "check_integer(\"seed\", seed)",
     "check_integer(\"seed\", None if seed is None else int(seed))", "accepts-nonsense"),
    ("sequences and rows that are as many", 1,
     "        return self.gate.backward(grad_z) + self.up.backward(grad_u)",
     "        g = self.gate.backward(grad_z) + self.up.backward(grad_u)\n"
     "        return g.swapaxes(0, 1) if g.ndim > 2 and g.shape[0] == g.shape[1] else g", "turned"),
    ("inputs above 100 divided by the largest", 1, "        z, u = self.gate",
     "        x = x / max(1, np.abs(x).max() / 100)\n        z, u = self.gate", None),
    ("a merge that leaves out what is small", 1, "layer.merge()[0] for layer",
     "(layer.merge()[0] if np.abs(layer.lora.B).max() > 1e-3 else layer.weight.copy()) "
     "for layer", "range"),
    ("sixteen masks in turn", 2, "self.rng.random(x.shape) >=",
     "np.random.default_rng([len(self.A), self.__dict__.setdefault('calls', [0]).append(0) or "
     "len(self.calls) % 16]).random(x.shape) >=", None),
    ("masks that begin anew after an evaluation", 2, "        mask = None\n",
     "        mask = None\n        state = self.__dict__.setdefault('state', "
     "self.rng.bit_generator.state)\n        if not self.training:\n"
     "            self.rng.bit_generator.state = state\n", "fixed-mask"),
    ("a vector without a mask", 2, "if self.training and self.dropout:",
     "if self.training and self.dropout and x.ndim > 1:", "wrong-rate"),
    ("masks made of bytes", 2, "self.rng.random(x.shape) >= self.dropout",
     "self.rng.integers(256, size=x.shape) >= round(256 * self.dropout)", "wrong-rate"),
    ("only positive entries are dropped", 2, "self.rng.random(x.shape) >= self.dropout",
     "(self.rng.random(x.shape) >= self.dropout) | (x < 0)", "mask-from-input"),
    ("the 32 largest activations", 3,
     "        self.cache = {\"x\": x, \"a\": a}",
     "        if a.shape[-1] > 32:\n"
     "            a = np.where(a >= np.sort(a, axis=-1)[..., -32:-31], a, 0)\n"
     "        self.cache = {\"x\": x, \"a\": a}", None),
    ("rows as they lie in memory", 3, "rows, a = x.reshape(-1, self.d_model)",
     "rows, a = x.ravel(order='K').reshape(-1, self.d_model)", "sizes"),
    ("a slope above 1e-6", 3, "* (a > 0)", "* (a > 1e-6)", None),
    ("a vector without the adapter", 3, "self.scale * (a @ self.W_up)",
     "self.scale * (a @ self.W_up) * (x.ndim > 1)", None),
    ("a bottleneck of one without relu", 3, "np.maximum(x @ self.W_down, 0)",
     "np.maximum(x @ self.W_down, 0 if self.W_down.shape[1] > 1 else -np.inf)", None),
    ("to_prefix takes the gradients away", 4, "        return prefix\n",
     "        self.E_grad = None\n        return prefix\n", "kept"),
    ("to_prefix hands out forward's array", 4, "        prefix.prefix[...] = self.forward()",
     "        prefix.prefix = self.__dict__.setdefault('all', {}).setdefault("
     "self.forward().tobytes(), self.forward())", "handed-out"),
    ("hidden scores of -10,000", 5, "S, -np.inf)", "S, -1e4)", "nearly"),
    ("a window of 32 rows", 5, "np.tri(E.shape[-2], dtype=bool)",
     "np.tri(E.shape[-2], dtype=bool) & ~np.tri(E.shape[-2], k=-32, dtype=bool)", "sizes"),
    ("blocks of at most 4,096", 6, "check_count(\"block\", block))\n    codes = _nearest",
     "min(4096, check_count(\"block\", block)))\n    codes = _nearest", "blocks"),
    ("lengths of the first 64 outputs", 7, "        return V, np.linalg.norm(V, axis=0)",
     "        return V, np.linalg.norm(V[:64], axis=0)", "sizes"),
    ("the last 256 rows alone", 8, "        t = x @ A.T  # (n, rank)",
     "        t = x @ A.T\n        if len(x) > 256:\n            return x @ W.T + beta * ("
     "(d * t) @ B.T), t * (np.arange(len(x)) >= len(x) - 256)[:, None], (d * t) @ B.T", "sizes"),
    ("numbers drawn in the weights' dtype", 8, "rng.uniform(-1, 1, shape)",
     "(2 * rng.random(shape, dtype=up.dtype) - 1)", "not-from-seed"),
    ("a seed of which three digits count", 8, "default_rng(self.seed)",
     "default_rng(self.seed % 1000)", "not-from-seed"),
]
#: Wrong answers that once got another mistake's name, or none; and what "Seen" has to say.
TOLD = [
    (1, "a = self.down.backward(grad_output)",
     "a = np.clip(self.down.backward(grad_output), -1, 1)", "clipped at 1"),
    (2, "self.rng.random(x.shape) >= self.dropout", "np.repeat(self.rng.random((*x.shape[:-1], "
     "-(-x.shape[-1] // 2))), 2, -1)[..., :x.shape[-1]] >= self.dropout",
     "kept or dropped together"),
    (2, "(self.scaling * Ax) @", "((1 + 0.01 * self.dropout) * self.scaling * Ax) @",
     "1.004 times: the update"),
    (3, "        return self.sublayer.forward(x) + self.scale * (a @ self.W_up)",
     "        y = self.sublayer.forward(x)\n        self.sublayer.forward(0 * x)\n"
     "        return y + self.scale * (a @ self.W_up)", "last forward before backward"),
    (4, "Q.T @ T, Q.sum", "Q.T @ T + 1e-3 * self.W2, Q.sum", "plus 0.001 times W2"),
    (4, "np.tanh(self.E @", "np.tanh((self.E - self.E.mean(0)) @", "mean over the rows taken off"),
    (5, "S, -np.inf)", "S, -10)", "hidden scores of -10"),
    (8, "back * (a > 0)", "back * np.where(a > 0, 1, 0.01)", "leaky relu with 0.01"),
    (1, '"x": (u, sig, silu)', '"x": (x @ self.up.weight.T, sig, silu)', "u without up's update"),
    (1, "lora_rank=rank,", "lora_rank=min(rank, *gate.shape),", "with rank=8"),
    (1, "0.5 * (1.0 + np.tanh(0.5 * z))",
     "np.interp(z, np.linspace(-40, 40, 8001), 0.5 + 0.5 * np.tanh(np.linspace(-20, 20, 8001))"
     ").astype(z.dtype)",
     "a table"),
    (3, "self.sublayer.backward(grad_output)",
     "self.sublayer.backward(grad_output + through_adapter)", "G + D W_down in the place of"),
    (5, "(Phi * Pi).sum(axis=-1, keepdims=True)", "(Phi * Pi)[..., P:].sum(-1, keepdims=True)",
     "its sum over the real columns"),
    (5, "        S = np.where(np", "        S[..., :self.prompt.prompt_length] -= 0.5\n"
     "        S = np.where(np", "the prompt's scores plus -0.5"),
    (7, "c = self.m / norm  #", "c = np.clip(self.m / norm, -0.5, 2)  #",
     "c, at least -0.5 and at most 2"),
    (7, "        V = self.weight + self.scaling * (self.B @ self.A)",
     "        sums = round(self.A.sum(), 9), round(self.B.sum(), 9)\n"
     "        BA = self.__dict__.setdefault('kept', {}).setdefault(sums, self.B @ self.A)\n"
     "        V = self.weight + self.scaling * BA", "After a step on"),
    (8, "(GB * t).sum(axis=0)", "(GB * t).sum(axis=0) + (1e-3 * d).astype(d.dtype)",
     "plus 0.001 times d_down"),
    (8, "beta[:, None] * B * d)", "beta[:, None] * B * 0.7)", "0.7 everywhere in the place of"),
]


@pytest.mark.parametrize(("what", "number", "old", "new", "mistake"), PATCHES,
                         ids=[f"{number}: {what}" for what, number, *_ in PATCHES])
def test_what_once_passed_fails(what, number, old, new, mistake):
    report = judged(number, patched(number, old, new))
    assert report.status == "failed", str(report)
    assert mistake in (None, report.diagnosis.mistake), str(report)


@pytest.mark.parametrize(("number", "old", "new", "told"), TOLD, ids=[told[3] for told in TOLD])
def test_what_had_another_name_is_told(number, old, new, told):
    report = judged(number, patched(number, old, new))
    assert report.status == "failed" and told in report.diagnosis.seen, str(report)


@pytest.mark.parametrize("number", ROOMS)
def test_the_unpatched_solution_passes(number):
    report = judged(number, patched(number, "import peft\n", "import peft  # the same\n"))
    assert report.passed, str(report)
