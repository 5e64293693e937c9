"""A few key results of the course as numbers, to compare one environment with another.

    python tools/probe.py     prints them as JSON

`make matrix` runs it under every Python and set of packages, and in the Python of the browser; the
page "Last verified" shows how far they agree. All seeds are fixed: what differs is the order in
which libraries add, or a mistake. NumPy is all it needs.
"""

import json
import sys
from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code" / "stage-09"))
import peft
from exercises.ex6_qlora import solution as ex6_qlora
from experiments.small_llama import DATA, make_model
from llama import Llama
from names import batches, load_names, make_batch
from training import Recorder, cross_entropy, evaluate, fit

STEPS, BATCH = 30, 16


def norm(*arrays: np.ndarray) -> float:
    """Square root of the sum of all squares, summed in float64 whatever the arrays are."""
    return sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays))


def layers() -> Iterator[tuple[str, float]]:
    """Layers alone, on random numbers: norms of outputs and of gradients."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 4, 16, 64), dtype=np.float32)  # (batch, time, width) each
    weight = rng.standard_normal((64, 64), dtype=np.float32)
    yield "random numbers", norm(x, g, weight)
    lora = peft.LoRALinear(weight, lora_rank=4, rng=rng)
    lora.lora.B += rng.standard_normal(lora.lora.B.shape, dtype=np.float32)  # as if trained
    yield "LoRA, output", norm(lora.forward(x))
    yield "LoRA, gradient of the input", norm(lora.backward(g))
    yield "LoRA, gradients of A and B", norm(*lora.gradients().values())
    yield "LoRA, merged weight", norm(lora.merge()[0])
    adapter = peft.Adapter(64, 8, residual=False, rng=rng)  # the bottleneck's path alone
    yield "adapter, output", norm(adapter.forward(x))
    adapter.backward(g)
    yield "adapter, gradients", norm(*adapter.gradients().values())
    qlora = ex6_qlora.QLoRALinear(weight, lora_rank=4, rng=rng)
    yield "NF4, error of a weight", norm(qlora.dequantized() - weight)
    yield "QLoRA, output", norm(qlora.forward(x))


def model() -> Iterator[tuple[str, float]]:
    """The small Llama: losses with each method plugged in, and a short training run."""
    train, validation = (load_names("turkish", split) for split in ("train", "validation"))
    yield "small Llama, loss on Turkish", evaluate(Llama.load(DATA / "base"), validation)
    inputs, targets = make_batch(train[:BATCH])
    for method, label in (("prefix", "prefix tuning"), ("prompt", "prompt tuning")):
        tuned = make_model(method, 5, seed=0)
        loss, grad = cross_entropy(tuned.forward(inputs), targets)
        tuned.backward(grad)
        yield f"{label}, loss", loss
        yield f"{label}, gradient", norm(*tuned.gradients().values())
    tuned, recorder = make_model("lora-all", 4, seed=0), Recorder()
    fit(tuned, batches(train, BATCH, np.random.default_rng(0)), steps=STEPS, lr=1e-2,
        evaluations={"validation": validation}, every=STEPS, callbacks=[recorder])
    yield f"LoRA, last batch of {STEPS} steps", recorder.batch_losses[-1]
    yield f"LoRA, loss after {STEPS} steps", recorder.losses["validation"][-1]
    update = tuned.layers[0].self_attn.q_proj.lora.delta_weight()
    yield "LoRA, largest singular value", float(np.linalg.svd(update, compute_uv=False)[0])


def results() -> dict[str, float]:
    """All of them, by name."""
    return dict([*layers(), *model()])


if __name__ == "__main__":
    print(json.dumps(results(), indent=1))
