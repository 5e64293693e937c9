"""Our model and methods against PyTorch and Hugging Face: losses, logits, every gradient.

What they compute lies in `fixtures/parity`, made by make_parity_fixtures.py, so that this file
needs no torch; where the oracle's environment is installed, the fixtures are also made anew.
"""

import json
import os
import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest

import llama
import peft
import training
from gradcheck import relative_error

TESTS = Path(__file__).resolve().parent
SCRIPT = TESTS / "oracle" / "make_parity_fixtures.py"
FOLDER = TESTS / "fixtures" / "parity"
SETTINGS = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
RESULTS = dict(np.load(FOLDER / "results.npz"))
# Relative to the largest entry of each array. "exact": all float64; 1e-9 is what the course claims,
# so tighter here. "cast": `transformers` as it is, with float32 inside RMSNorm, softmax, RoPE and
# the loss, where one rounding is 6e-8.
TOLERANCE = {"exact": 1e-12, "cast": 1e-6}


def part(prefix: str, results: dict = RESULTS) -> dict[str, np.ndarray]:
    """The results below `prefix`, by the rest of their name."""
    return {key.removeprefix(f"{prefix}/"): array for key, array in results.items()
            if key.startswith(f"{prefix}/")}


def plug_in(model: llama.Llama, values: dict, *, kind: str, **settings) -> None:
    """Our form of a method, with the oracle's values in it."""
    config = model.config
    if kind == "lora":
        for name in {key.rpartition(".")[0] for key in values}:  # whatever PEFT has wrapped
            weight = model.modules()[name].weight
            model.replace(name, peft.LoRALinear(weight, lora_rank=settings["r"],
                                                lora_alpha=settings["lora_alpha"]))
    elif kind == "adapter":
        slots = settings.pop("slots")
        for layer in model.layers:
            for slot in slots:
                setattr(layer, slot, peft.Adapter(config.hidden_size, **settings,
                                                  dtype=np.float64))
    elif kind == "prefix":
        model.kv_prefix = peft.PrefixTuning(
            config.num_hidden_layers, config.num_key_value_heads, config.head_dim,
            settings["num_virtual_tokens"], dtype=np.float64)
    elif kind == "prompt":
        model.soft_prompt = peft.PromptTuning(config.hidden_size, settings["num_virtual_tokens"],
                                              dtype=np.float64)
    ours = model.parameters()
    assert set(values) == set(ours) - set(model.weights())  # nothing of the method left out
    for name, value in values.items():
        assert ours[name].shape == value.shape, name
        ours[name][...] = value


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", SETTINGS["methods"])
@pytest.mark.parametrize("name", SETTINGS["models"])
def test_model_agrees_with_hugging_face(name, method, precision):
    model = llama.Llama.load(FOLDER / name, np.float64)
    model.set_trainable()  # the oracle reports gradients below the method too
    expected = part(f"{name}/{method}")
    plug_in(model, part("values", expected), **SETTINGS["methods"][method])
    expected = part(precision, expected)
    ids, labels = RESULTS["data/input_ids"], RESULTS["data/labels"]  # (batch, time)
    targets = np.full_like(labels, training.IGNORE)
    targets[:, :-1] = labels[:, 1:]  # ours come shifted; `transformers` shifts inside

    logits = model.forward(ids)
    loss, grad = training.cross_entropy(logits, targets)
    model.backward(grad)
    found = {f"gradients/{key}": array for key, array in model.gradients().items()}
    found["loss"] = np.array(loss)
    real = RESULTS["data/attention_mask"] == 1  # ours has no padding mask and needs none
    found["logits"], expected["logits"] = logits[real], expected["logits"][real]

    ours = set(model.parameters()) - set(model.weights())
    assert {f"gradients/{key}" for key in ours} | {"loss", "logits"} <= set(expected)
    if method == "full":
        assert set(found) == set(expected)
    if precision == "cast":
        # What remains of larger terms that cancel keeps their float32 rounding, so here the whole
        # gradient is one array, measured by its largest entry; "exact" measures each by its own.
        names = sorted(key for key in expected if key.startswith("gradients/"))
        for results in (found, expected):
            results["gradients"] = np.concatenate([results.pop(key).ravel() for key in names])
    errors = {key: relative_error(found[key], array) for key, array in expected.items()}
    assert not {key: error for key, error in errors.items() if not error <= TOLERANCE[precision]}


@pytest.mark.parametrize("case", ["plain", "bias"])
def test_lora_linear_agrees_with_hugging_face(case):
    expected = part(f"layer/{case}")
    layer = peft.LoRALinear(expected["weight"], expected.get("bias"), lora_rank=3, lora_alpha=5)
    layer.lora.A[...], layer.lora.B[...] = expected["A"], expected["B"]
    found = {"h": layer.forward(expected["x"]), "x_grad": layer.backward(expected["g"]),
             "A_grad": layer.lora.A_grad, "B_grad": layer.lora.B_grad, "merged": layer.merge()[0]}
    for key, array in found.items():
        assert relative_error(array, expected[key]) < 1e-14, key


def test_lora_layer_agrees_with_hugging_face():
    expected = part("layer/plain")
    layer = peft.LoRALayer(7, 4, rank=3, alpha=5, dtype=np.float64)
    layer.A[...], layer.B[...] = expected["A"], expected["B"]
    found = {"h": layer.forward(expected["x"], expected["weight"]),
             "x_grad": layer.backward(expected["g"]), "A_grad": layer.A_grad,
             "B_grad": layer.B_grad, "merged": layer.merge_weights(expected["weight"])}
    for key, array in found.items():
        assert relative_error(array, expected[key]) < 1e-14, key


def test_fixtures_are_what_hugging_face_says_today(tmp_path):
    python = needs.oracle()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, SCRIPT, tmp_path], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("settings.json", *(f"{name}/config.json" for name in SETTINGS["models"])):
        new, committed = ((folder / file).read_text(encoding="utf-8")
                          for folder in (tmp_path, FOLDER))
        assert json.loads(new) == json.loads(committed), file  # versions and settings
    new = dict(np.load(tmp_path / "results.npz"))
    assert set(new) == set(RESULTS)
    for name in SETTINGS["models"]:
        weights = [llama.Llama.load(folder / name, np.float64).weights()
                   for folder in (tmp_path, FOLDER)]
        assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[1])
    # Another processor may round float32 differently in a single small gradient.
    limits = {key: 1e-5 if "/cast/" in key else TOLERANCE["exact"] for key in RESULTS}
    errors = {key: relative_error(new[key], array) for key, array in RESULTS.items()}
    assert not {key: error for key, error in errors.items() if not error <= limits[key]}
