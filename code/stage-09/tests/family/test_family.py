"""The family: each layer against Hugging Face PEFT or autograd, finite differences, its merge.

What PEFT and PyTorch compute lies in `fixtures/family.npz`, made by make_family_fixtures.py, so
that this file needs no torch; where the oracle's environment is installed, it is also made anew.
"""

import os
import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest

import llama
import training
from family import dora
from gradcheck import numerical_gradient, relative_error

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "oracle" / "make_family_fixtures.py"
FILE = TESTS / "fixtures" / "family.npz"
RESULTS = dict(np.load(FILE))
TOLERANCE = 1e-12  # relative to the largest entry; the course claims 1e-9

#: Case of the fixtures -> our layer around its weight and bias.
LAYERS = {
    "dora": lambda W, b: dora.DoRALinear(W, b, 2, 3),
    "dora, bias": lambda W, b: dora.DoRALinear(W, b, 2, 3),
    "dora, norm kept": lambda W, b: dora.DoRALinear(W, b, 2, 3, detach_norm=False),
}
each_layer = pytest.mark.parametrize("case", LAYERS)


def expected(case):
    return {key.removeprefix(f"{case}/"): array for key, array in RESULTS.items()
            if key.startswith(f"{case}/")}


def filled(case, dtype=np.float64):
    """Our layer with the fixture's values in it, and the fixture."""
    given = {name: array.astype(dtype) for name, array in expected(case).items()}
    layer = LAYERS[case](given["weight"], given.get("bias"))
    for name, array in layer.parameters().items():
        assert array.shape == given[name].squeeze().shape, name
        array[...] = given[name].squeeze()
    return layer, given


@each_layer
def test_layer_agrees_with_hugging_face_or_autograd(case):
    layer, want = filled(case)
    found = {"h": layer.forward(want["x"]), "x_grad": layer.backward(want["g"])}
    found |= {f"{name}_grad": array for name, array in layer.gradients().items()}
    if "merged" in want:
        found["merged"] = layer.merge()[0]
    inputs = {"weight", "bias", "x", "g", *layer.parameters()}
    assert set(found) == set(want) - inputs  # nothing of the method is left out
    errors = {name: relative_error(array, want[name].reshape(array.shape))
              for name, array in found.items()}
    assert not {name: error for name, error in errors.items() if not error <= TOLERANCE}


@each_layer
def test_gradients_agree_with_finite_differences(case, monkeypatch):
    layer, given = filled(case)
    x, g = given["x"], given["g"]
    layer.forward(x)
    if "dora" in case and layer.detach_norm:  # to take |V| as a constant is what detaching means
        kept = layer.cache["norm"]
        monkeypatch.setattr(dora, "_lengths", lambda V: kept)
    found = {"x": layer.backward(g), **layer.gradients()}
    for name, array in {"x": x, **layer.parameters()}.items():
        numerical = numerical_gradient(lambda: float((layer.forward(x) * g).sum()), array)
        assert relative_error(found[name], numerical) < 1e-7, name


@each_layer
def test_the_merged_layer_does_the_same(case):
    layer, given = filled(case)
    kept = given["weight"].copy()
    weight, bias = layer.merge()
    plain = given["x"] @ weight.T + (0 if bias is None else bias)
    assert relative_error(plain, layer.forward(given["x"])) < TOLERANCE
    np.testing.assert_array_equal(given["weight"], kept)
    assert not np.shares_memory(weight, given["weight"])


@each_layer
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtype_of_the_input_is_kept(case, dtype):
    layer, given = filled(case, dtype)
    want, _ = filled(case)
    wide = expected(case)
    for array, reference in ((layer.forward(given["x"]), want.forward(wide["x"])),
                             (layer.backward(given["g"]), want.backward(wide["g"])),
                             (layer.merge()[0], want.merge()[0])):
        assert array.dtype == dtype
        assert relative_error(array.astype(np.float64), reference) < 20 * np.finfo(dtype).eps
    for name, array in layer.gradients().items():
        assert relative_error(array.astype(np.float64), want.gradients()[name]) < (
            20 * np.finfo(dtype).eps), name


@each_layer
def test_training_begins_at_the_pretrained_model(case):
    given = expected(case)
    layer = LAYERS[case](given["weight"], given.get("bias"))
    plain = given["x"] @ given["weight"].T + given.get("bias", 0)
    assert relative_error(layer.forward(given["x"]), plain) < TOLERANCE


@each_layer
def test_wrong_calls_are_refused(case):
    layer, given = filled(case)
    with pytest.raises(RuntimeError, match="backward"):
        layer.backward(given["g"])
    with pytest.raises(RuntimeError, match="gradients"):
        layer.gradients()
    with pytest.raises(ValueError, match=r"^x .*\(\.\.\., 6\).*\(2, 5, 7\)"):
        layer.forward(np.ones((2, 5, 7)))
    layer.forward(given["x"])
    with pytest.raises(ValueError, match=r"^grad_output .*4\).*\(2, 1, 4\)"):
        layer.backward(np.ones((2, 1, 4)))
    with pytest.raises(TypeError, match="^grad_output"):
        layer.backward(np.ones((2, 5, 4), int))


@each_layer
def test_a_model_learns_with_it_in_a_slot(case):
    config = llama.LlamaConfig(11, 8, 6, 2, 2, 1)
    model = llama.Llama(config, llama.random_weights(config, np.random.default_rng(0), 0.3,
                                                     np.float64))
    for index in range(2):
        name = f"model.layers.{index}.self_attn.q_proj"
        model.replace(name, LAYERS[case](model.modules()[name].weight, None))
    frozen = {name: array.copy() for name, array in model.weights().items()}
    ids = np.random.default_rng(1).integers(0, 11, (4, 6))
    losses = []
    optimizer = training.AdamW(model.parameters(), 0.01)
    for _ in range(20):
        loss, grad = training.cross_entropy(model.forward(ids), np.roll(ids, -1, axis=1))
        model.backward(grad)
        optimizer.step(model.gradients())
        losses.append(loss)
    assert losses[-1] < losses[0] - 1e-3
    for name, array in model.weights().items():
        np.testing.assert_array_equal(array, frozen[name])


def test_a_row_without_direction_is_refused():
    weight = np.ones((3, 2))
    weight[1] = 0
    with pytest.raises(ValueError, match="row 1 .*LoRALinear"):
        dora.DoRALinear(weight, lora_rank=1)


def test_lengths_do_not_overflow_in_float16():
    assert (dora._lengths(np.full((2, 100), 100, np.float16)) == 1000).all()


def test_fixtures_are_what_hugging_face_says_today(tmp_path):
    python = needs.oracle()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, SCRIPT, tmp_path / FILE.name], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    new = dict(np.load(tmp_path / FILE.name))
    assert set(new) == set(RESULTS)
    for key, array in RESULTS.items():
        if key.startswith("versions/"):
            assert new[key] == array
        else:
            assert relative_error(new[key], array) < TOLERANCE, key
