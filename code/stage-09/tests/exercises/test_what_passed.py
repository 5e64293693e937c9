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
