"""One contract for every class of the course: what a call has returned, no later call changes."""

import numpy as np
import pytest
from exercises.exercise_tools import solution

import llama
import peft
from family import dora, ia3, loreft, oft, pissa, scale_and_rate, vera

LEADS = pytest.mark.parametrize("lead", [(), (2,)], ids=["one sequence", "a batch"])
CONFIG = llama.LlamaConfig(11, 8, 6, 2, 2, 1)
RNG = np.random.default_rng(0)
W = RNG.standard_normal((8, 8))


class Doubled:
    """A frozen sublayer that keeps to the contract itself."""

    def forward(self, x):
        return 2 * x

    backward = forward


def model(method):
    made = llama.Llama(CONFIG, llama.random_weights(CONFIG, RNG, 0.3, np.float64))
    if method == "full":
        made.set_trainable()
    elif method == "lora":
        for layer in made.layers:
            layer.self_attn.q_proj = peft.LoRALinear(layer.self_attn.q_proj.weight, None, 2)
    elif method == "adapter":
        for layer in made.layers:
            layer.after_mlp = peft.Adapter(8, 3, dtype=np.float64)
    elif method == "prefix":
        made.kv_prefix = peft.PrefixTuning(2, 1, 4, 3, dtype=np.float64)
    else:
        made.soft_prompt = peft.PromptTuning(8, 3, dtype=np.float64)
    return made


def trainable(module):
    module.trainable = True
    return module


def layer(method, lead, rng):
    """Forward and backward of what takes (..., 4, 8) and gives as many features."""
    given = [rng.standard_normal((*lead, 4, 8))]
    more = [W] if isinstance(method, peft.LoRALayer) else []
    out = method.forward(*given, *more)
    given.append(rng.standard_normal(out.shape))
    return given, [out, method.backward(given[1])]


def rows(method, lead, rng):
    given = [rng.standard_normal((4, 8)), rng.standard_normal((4, 8))]
    return given, [method.forward(given[0]), method.backward(given[1])]


def prefix(method, lead, rng):
    """Both layers; the gradients are asked for after each, as a careful reader may."""
    given, found = [], []
    for index in range(2):
        given += [rng.standard_normal((*lead, 4, 2, 3)) for _ in range(2)]
        found += method.forward(*given[-2:], index)
    for index in (1, 0):
        given += [rng.standard_normal((*lead, 9, 2, 3)) for _ in range(2)]
        found += [*method.backward(*given[-2:], index), *method.gradients().values()]
    return given, found


def prefix_mlp(method, lead, rng):
    out = method.forward()
    given = [rng.standard_normal(out.shape)]
    method.backward(*given)
    return given, [out, method.to_prefix().prefix]


def embedding(method, lead, rng):
    given = [rng.integers(0, 8, (2, 4)), rng.standard_normal((2, 4, 8))]
    out = method.forward(given[0])
    method.backward(given[1])
    return given, [out]


def whole(method, lead, rng):
    given = [rng.integers(0, 11, (2, 4)), rng.standard_normal((2, 4, 11))]
    out = method.forward(given[0])
    method.backward(given[1])
    return given, [out]


F64 = {"dtype": np.float64}
CASES = {
    "LoRALayer": (lambda: peft.LoRALayer(8, 8, 2, **F64), layer),
    "LoRALinear": (lambda: peft.LoRALinear(W, W[0], 2), layer),
    "Adapter": (lambda: peft.Adapter(8, 3, **F64), layer),
    "PrefixTuning": (lambda: peft.PrefixTuning(2, 2, 3, 5, **F64), prefix),
    "PromptTuning": (lambda: peft.PromptTuning(8, 5, **F64), layer),
    "Linear": (lambda: trainable(llama.Linear(W)), rows),
    "RMSNorm": (lambda: trainable(llama.RMSNorm(W[0], 1e-6)), rows),
    "Embedding": (lambda: trainable(llama.Embedding(W)), embedding),
    **{f"Llama, {name}": (lambda name=name: model(name), whole)
       for name in ("full", "lora", "adapter", "prefix", "prompt")},
    "DoRA": (lambda: dora.DoRALinear(W, W[0], 2), layer),
    "DoRA, norm kept": (lambda: dora.DoRALinear(W, W[0], 2, detach_norm=False), layer),
    "rsLoRA": (lambda: scale_and_rate.RsLoRALinear(W, W[0], 2), layer),
    "PiSSA": (lambda: pissa.PiSSALinear(W, W[0], 2), layer),
    "VeRA": (lambda: vera.VeRALinear(W, W[0], *vera.shared_matrices(2, 8, 8, **F64)), layer),
    "(IA)3": (lambda: ia3.IA3Linear(W, W[0]), layer),
    "(IA)3, feed-forward": (lambda: ia3.IA3Linear(W, W[0], feedforward=True), layer),
    "OFT": (lambda: oft.OFTLinear(W, W[0], 4), layer),
    "LoReFT": (lambda: loreft.LoReFT(8, 3, **F64), layer),
    "exercise 1": (lambda: solution("ex1_lora_feed_forward", "LoRAFeedForward")(W, W, W, 2), layer),
    "exercise 2": (lambda: solution("ex2_lora_dropout", "LoRADropoutLayer")(8, 8, 2, **F64), layer),
    "exercise 3": (lambda: solution("ex3_parallel_adapter", "ParallelAdapter")(
        Doubled(), 8, 3, **F64), layer),
    "exercise 4": (lambda: solution("ex4_prefix_mlp", "PrefixMLP")(2, 2, 3, 5, 4, 6, **F64),
                   prefix_mlp),
    "exercise 5": (lambda: solution("ex5_prompted_lora", "PromptedLoRAAttention")(
        W, W, W, W, 2, prompt_length=5), layer),
    "exercise 6": (lambda: solution("ex6_qlora", "QLoRALinear")(W, W[0], 2), layer),
    "exercise 7": (lambda: solution("ex7_dora", "ColumnDoRA")(W, W[0], 2), layer),
    "exercise 8": (lambda: solution("ex8_vera", "VeRAFeedForward")(W, W, 2), layer),
}


@LEADS
@pytest.mark.parametrize("name", CASES)
def test_what_a_call_has_returned_no_later_call_changes(name, lead):
    make, run = CASES[name]
    method, rng = make(), np.random.default_rng(1)
    given, found = run(method, lead, rng)
    found += method.gradients().values()
    kept = [array.copy() for array in found]
    for array in found:
        assert not any(np.shares_memory(array, other) for other in
                       (*given, *method.parameters().values(), W))
    for array in method.parameters().values():  # a step, and all of it again on other numbers
        array += 1
    run(method, lead, rng)
    for array in given:
        array[...] = 0  # the caller's own, who may use them anew
    for array, before in zip(found, kept, strict=True):
        np.testing.assert_array_equal(array, before)
