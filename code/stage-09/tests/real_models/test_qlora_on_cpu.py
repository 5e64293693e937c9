"""QLoRA and checkpointing as section 9.8 prints them, run on the processor, and read by `hub`."""

import json
import re
from pathlib import Path

import needs
import numpy as np
import pytest

from llama import PROJECTIONS, Llama, LlamaConfig, random_weights
from real_models import hub

PAGE = Path(__file__).parents[4] / "book" / "08-from-numpy-to-hugging-face.ipynb"
CONFIG = LlamaConfig(31, 128, 256, 2, 4, 2, tie_word_embeddings=False)


def printed_lines(word):
    """The page's block of Python that has this word."""
    cells = json.loads(PAGE.read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    [block] = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
               if word in code]
    return block


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qlora")
    hub.save_llama(Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(0), 0.1)),
                   folder / "base")
    for name, word in (("qlora", "BitsAndBytesConfig("), ("checkpointing", "checkpointing_enable")):
        (folder / f"{name}.py").write_text(printed_lines(word), "utf-8")
    said = needs.run_oracle("qlora_oracle.py", folder, cwd=folder)
    return folder, json.loads(said.splitlines()[-1])


def test_the_base_is_in_four_bits_and_only_lora_trains(run):
    _, said = run
    layers = {f"model.layers.{i}.{name}" for i in range(2) for name in PROJECTIONS}
    assert set(said["four_bits"]) == layers  # not the output layer
    assert said["others"] == ["torch.float32"], "k-bit preparation casts what is not quantized"
    shapes = {name: CONFIG.weight_shapes()[f"{name}.weight"] for name in layers}
    assert said["trained"] == sum(4 * (out + into) for out, into in shapes.values())
    assert said["losses"][-1] < said["losses"][0] - 0.5


def test_our_reader_takes_the_adapter_onto_the_rounded_weights(run):
    folder, _ = run
    rounded = dict(np.load(folder / "rounded.npz"))
    logits = rounded.pop("logits")
    original = hub.load_llama(folder / "base")
    plain = Llama(CONFIG, {name: rounded[name] for name in original.weights()})
    ids = np.random.default_rng(0).integers(0, 31, (4, 12))
    base = plain.forward(ids)
    hub.load_adapter(original, folder / "adapter")
    for name, module in original.modules().items():
        if name.endswith(PROJECTIONS):
            module.weight[...] = rounded[f"{name}.weight"]
    ours = original.forward(ids)
    size = np.abs(logits).max()
    assert np.abs(ours - logits).max() < 0.03 * size  # the library multiplies in bfloat16
    assert np.abs(base - logits).max() > 0.2 * size, "the adapter makes no difference"


def test_activations_are_computed_twice_and_gradients_stay(run):
    said = run[1]["checkpointing"]
    assert said["runs"] == [1, 2, 1], "once; twice with the page's line; in evaluation mode, once"
    assert said["difference"] < 1e-5 * said["size"]
