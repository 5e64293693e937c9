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
import peft
from family import dora, galore, ia3, loreft, oft, oft_series, pissa, scale_and_rate, vera
from gradcheck import numerical_gradient, relative_error
from real_models import accounting

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "oracle" / "make_family_fixtures.py"
FILE = TESTS / "fixtures" / "family.npz"
RESULTS = dict(np.load(FILE))
TOLERANCE = 1e-12  # relative to the largest entry; the course claims 1e-9


def vera_layer(W, b):
    A, B = RESULTS["vera/A"].astype(W.dtype), RESULTS["vera/B"].astype(W.dtype)
    if W.shape != (4, 6):  # in a model of another width
        A, B = vera.shared_matrices(2, 8, 8, dtype=W.dtype, rng=np.random.default_rng(0))
    return vera.VeRALinear(W, b, A, B)


def oft_layer(W, b):
    return oft.OFTLinear(W, b, 3 if W.shape[1] == 6 else 4)


#: Case of the fixtures -> our layer around its weight and bias.
LAYERS = {
    "rslora": lambda W, b: scale_and_rate.RsLoRALinear(W, b, 2, 3),
    "ia3": lambda W, b: ia3.IA3Linear(W, b),
    "ia3, bias": lambda W, b: ia3.IA3Linear(W, b),
    "ia3, feed-forward": lambda W, b: ia3.IA3Linear(W, b, feedforward=True),
    "vera": vera_layer,
    "oft": oft_layer,
    "oft, the paper": oft_layer,
    "pissa": lambda W, b: pissa.PiSSALinear(W, b, 2, 3),
    "oft, default": lambda W, b: oft_series.OFTSeriesLinear(W, b, 3 if W.shape[1] == 6 else 4),
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
    if case == "pissa":
        layer.weight = given["weight"]  # is PEFT's residual
    return layer, given


@pytest.mark.parametrize("path", sorted(Path(dora.__file__).parent.glob("*.py")),
                         ids=lambda path: path.name)
def test_a_method_is_read_in_sixty_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 60


@each_layer
def test_layer_agrees_with_hugging_face_or_autograd(case):
    layer, want = filled(case)
    found = {"h": layer.forward(want["x"]), "x_grad": layer.backward(want["g"])}
    found |= {f"{name}_grad": array for name, array in layer.gradients().items()}
    if "merged" in want:
        found |= {"merged": layer.merge()[0]}
    if "merged_bias" in want:
        found |= {"merged_bias": layer.merge()[1]}
    inputs = {"weight", "bias", "x", "g", "A", "B", *layer.parameters()}
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


def test_pissa_starts_as_peft_does():
    want = expected("pissa, start")  # float32: PEFT refuses wider weights
    layer = pissa.PiSSALinear(want["weight"], lora_rank=2, lora_alpha=3)
    assert relative_error(layer.weight, want["residual"]) < 1e-6
    assert relative_error(layer.lora.delta_weight(), want["update"]) < 1e-6
    norms = np.linalg.norm(layer.lora.A, axis=1), np.linalg.norm(layer.lora.B, axis=0)
    assert relative_error(*norms) < 1e-6  # the singular values are shared out evenly


def test_pissa_is_lora_from_another_start():
    given, rng = expected("dora, bias"), np.random.default_rng(0)
    W, b, x, g = (given[key] for key in ("weight", "bias", "x", "g"))
    layer = pissa.PiSSALinear(W, b, 2, 3)
    assert relative_error(layer.forward(x), x @ W.T + b) < TOLERANCE
    for array in layer.parameters().values():
        array += rng.standard_normal(array.shape)
    assert relative_error(layer.forward(x), x @ layer.merge()[0].T + b) < TOLERANCE
    found = {"x": layer.backward(g), **layer.gradients()}
    for name, array in {"x": x, **layer.parameters()}.items():
        numerical = numerical_gradient(lambda: float((layer.forward(x) * g).sum()), array)
        assert relative_error(found[name], numerical) < 1e-7, name
    B, A = layer.as_lora()
    plain = peft.LoRALinear(W, b, 4, 6.0)  # twice the rank, the same s
    plain.lora.B[...], plain.lora.A[...] = B, A
    assert relative_error(plain.forward(x), layer.forward(x)) < TOLERANCE
    with pytest.raises(ValueError, match="rank 5 .* 4"), pytest.warns(UserWarning):
        pissa.PiSSALinear(W, lora_rank=5)


def loreft_filled(dtype=np.float64):
    given = {name: array.astype(dtype) for name, array in expected("loreft").items()}
    method = loreft.LoReFT(6, 2, dtype=dtype)
    for name, array in method.parameters().items():
        array[...] = given[name]
    return method, given


def test_loreft_agrees_with_autograd_and_finite_differences():
    method, want = loreft_filled()
    h = want["x"]
    found = {"h": method.forward(h), "x_grad": method.backward(want["g"])}
    found |= {f"{name}_grad": array for name, array in method.gradients().items()}
    assert set(found) == set(want) - {"x", "g", "V", "W", "b"}
    for name, array in found.items():
        assert relative_error(array, want[name]) < TOLERANCE, name
    for sign in (1, -1):  # the library's QR may have either
        method.V *= sign
        method.forward(h)
        found = {"x": method.backward(want["g"]), **method.gradients()}
        for name, array in {"x": h, **method.parameters()}.items():
            numerical = numerical_gradient(
                lambda: float((method.forward(h) * want["g"]).sum()), array)
            assert relative_error(found[name], numerical) < 1e-7, name


def test_loreft_edits_only_along_its_rows_and_starts_as_the_identity():
    method, given = loreft_filled()
    change = method.forward(given["x"]) - given["x"]
    R, _ = method._rows()
    np.testing.assert_allclose(R @ R.T, np.eye(2), atol=1e-14)
    assert relative_error(change @ R.T @ R, change) < TOLERANCE
    fresh = loreft.LoReFT(6, 2, dtype=np.float64)
    assert relative_error(fresh.forward(given["x"]), given["x"]) < TOLERANCE
    with pytest.raises(ValueError, match="6.* 7"):
        loreft.LoReFT(6, 7)
    with pytest.raises(ValueError, match=r"^grad_output .*\(2, 1, 6\)"):
        method.backward(np.ones((2, 1, 6)))


def test_loreft_does_not_jump_where_an_entry_passes_zero():
    method, given = loreft_filled()
    method.V[0, 0] = 1e-9
    before = method.forward(given["x"])
    method.V[0, 0] = -1e-9
    assert relative_error(method.forward(given["x"]), before) < 1e-7


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_loreft_keeps_the_dtype(dtype):
    method, given = loreft_filled(dtype)
    assert method.forward(given["x"]).dtype == method.backward(given["g"]).dtype == dtype
    assert {array.dtype for array in method.gradients().values()} == {np.dtype(np.float32)}


def test_lora_plus_agrees_with_peft():
    want = expected("loraplus")
    arrays = {name: want[f"start/{name}"].copy() for name in ("A", "B", "m")}
    optimizer = scale_and_rate.LoRAPlusAdamW(arrays, 0.01, ratio=7.0)
    for step in range(3):
        optimizer.step({name: want[f"{step}/{name}"] for name in arrays})
    for name, array in arrays.items():
        assert relative_error(array, want[f"end/{name}"]) < TOLERANCE, name
    with pytest.raises(ValueError, match="A and B.*W_down"):
        scale_and_rate.LoRAPlusAdamW({"W_down": np.ones((2, 2))})


def test_galore_agrees_with_its_formula_in_pytorch():
    want = expected("galore")
    names = ("wide", "tall", "vector")
    arrays = {name: want[f"start/{name}"].copy() for name in names}
    optimizer = galore.GaLoreAdamW(arrays, 0.01, rank=2, every=2)
    for step in range(5):
        optimizer.step({name: want[f"{step}/{name}"] for name in names})
    for name, array in arrays.items():
        assert relative_error(array, want[f"end/{name}"]) < TOLERANCE, name
    # two moments of (2, 7), (2, 6) and (5,), and P of (2, 4) and (2, 3), eight bytes each
    assert optimizer.nbytes() == 8 * (2 * (14 + 12 + 5) + 8 + 6)
    assert optimizer.nbytes() < training.AdamW(arrays).nbytes()
    with pytest.raises(ValueError, match="weight_decay"):
        galore.GaLoreAdamW(arrays, weight_decay=0.1)


def test_galore_loses_nothing_of_a_gradient_of_its_rank():
    weight = np.zeros((2, 3))
    gradient = np.outer([0.6, 0.8], [1.0, -1.0, 1.0])
    galore.GaLoreAdamW({"W": weight}, 0.1, rank=1, scale=1.0).step({"W": gradient})
    assert relative_error(weight, -0.1 * gradient) < 1e-6  # its first step has all entries +-lr


@pytest.mark.parametrize(("gradient", "error", "words"), [
    (np.ones((3, 2)), ValueError, r"gradient of W .*\(2, 3\).*\(3, 2\)"),
    (np.full((2, 3), np.nan), FloatingPointError, "gradient of W"),
    (np.full((2, 3), 1e200), FloatingPointError, "gradient of W")])
def test_galore_refuses_gradients_before_it_changes_a_weight(gradient, error, words):
    arrays = {"V": np.ones((2, 2)), "W": np.ones((2, 3)), "x": np.ones(4)}
    optimizer = galore.GaLoreAdamW(arrays, rank=1)
    with pytest.raises(error, match=words):
        optimizer.step({"V": np.eye(2), "W": gradient, "x": np.ones(4)})
    assert all((array == 1).all() for array in arrays.values())
    arrays["W"].flags.writeable = False
    with pytest.raises(ValueError, match="W: read-only"):
        galore.GaLoreAdamW(arrays)


def test_galore_trains_a_whole_model_and_loreft_one_in_its_slots():
    config = llama.LlamaConfig(11, 8, 6, 2, 2, 1)
    ids = np.random.default_rng(1).integers(0, 11, (4, 6))
    for method in ("galore", "loreft"):
        model = llama.Llama(config, llama.random_weights(config, np.random.default_rng(0), 0.3))
        if method == "galore":
            model.set_trainable()
            optimizer = galore.GaLoreAdamW(model.parameters(), 0.1, rank=2, every=5)
        else:
            for layer in model.layers:
                layer.after_mlp = loreft.LoReFT(8, 2, rng=np.random.default_rng(0))
            assert model.num_parameters() == 2 * (2 * 8 + 2 * 8 + 2)
            optimizer = training.AdamW(model.parameters(), 0.01)
        losses = []
        for _ in range(20):
            loss, grad = training.cross_entropy(model.forward(ids), np.roll(ids, -1, axis=1))
            model.backward(grad)
            optimizer.step(model.gradients())
            losses.append(loss)
        assert losses[-1] < losses[0] - 0.01, method


@pytest.mark.parametrize("terms", [2, 4, 7])
def test_the_series_of_oft_has_its_own_gradient_and_tends_to_the_map(terms):
    layer, given = filled("oft, default")
    layer = oft_series.OFTSeriesLinear(given["weight"], None, 3, terms)
    layer.q[...] = 0.1 * given["q"].squeeze()
    layer.forward(given["x"])
    layer.backward(given["g"])
    numerical = numerical_gradient(
        lambda: float((layer.forward(given["x"]) * given["g"]).sum()), layer.q)
    assert relative_error(layer.gradients()["q"], numerical) < 1e-7
    exact = oft.OFTLinear(given["weight"], None, 3)
    exact.q[...] = layer.q
    error = relative_error(layer.forward(given["x"]), exact.forward(given["x"]))
    assert 0.01 ** terms < error < 0.7 ** terms
    with pytest.raises(ValueError, match="terms"):
        oft_series.OFTSeriesLinear(given["weight"], None, 3, 1)
    with pytest.raises(ValueError, match="at most 64, got 65"):
        oft_series.OFTSeriesLinear(given["weight"], None, 3, 65)


CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 11,
          "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
COUNTS = {
    "rslora": lambda model, names: accounting.count_lora(model, 2, names, use_rslora=True),
    "dora": lambda model, names: accounting.count_lora(model, 2, names, use_dora=True),
    "vera": lambda model, names: accounting.count_vera(model, 2, names),
    "ia3": lambda model, names: accounting.count_ia3(model, names, []),
    "ia3, feed-forward": lambda model, names: accounting.count_ia3(model, names, names),
    "oft": lambda model, names: accounting.count_method(model, "oft", names, oft_block_size=4),
    "pissa": lambda model, names: accounting.count_lora(model, 2, names,
                                                        init_lora_weights="pissa"),
}
NAMES = ["q_proj", "v_proj", "down_proj"]  # (8, 8), (4, 8), (8, 6)


def tiny_llama(case=None):
    """The Llama of CONFIG, with a case's layer in the place of each of NAMES; those layers."""
    config = llama.LlamaConfig(11, 8, 6, 2, 2, 1)
    model = llama.Llama(config, llama.random_weights(config, np.random.default_rng(0)))
    layers = {name: LAYERS[case](module.weight, None) for name, module in model.modules().items()
              if case and name.rpartition(".")[2] in NAMES}
    for name, layer in layers.items():
        model.replace(name, layer)
    return model, layers.values()


@pytest.mark.parametrize("case", COUNTS)
def test_counts_are_those_of_the_accounting(case):
    counted = COUNTS[case](accounting.read_model(CONFIG), NAMES)
    assert tiny_llama(case)[0].num_parameters() == counted.trainable


def test_pissa_is_stored_as_a_lora_of_twice_the_rank():
    stored = sum(array.size for layer in tiny_llama("pissa")[1] for array in layer.as_lora())
    assert stored == accounting.count_lora(accounting.read_model(CONFIG), 4, NAMES).trainable


@pytest.mark.parametrize(("width", "rank"), [(6, 2), (8, 1), (64, 16), (5, 5)])
def test_loreft_has_the_count_of_the_papers_three_arrays(width, rank):
    """R and W (rank, width), b (rank,), the paper's phi; our V is as large as its R."""
    method = loreft.LoReFT(width, rank)
    assert method.num_parameters() == rank * (2 * width + 1)
    assert sum(array.size for array in method.parameters().values()) == rank * (2 * width + 1)
    own = sum(expected("loreft")[name].size for name in ("V", "W", "b"))  # (6, 2), by autograd
    assert own == loreft.LoReFT(6, 2).num_parameters()
    model, _ = tiny_llama()
    for layer in model.layers:
        layer.after_mlp = loreft.LoReFT(8, 2)
    assert model.num_parameters() == 2 * 2 * (2 * 8 + 1)


def test_the_accounting_refuses_loreft_which_peft_does_not_have():
    with pytest.raises(ValueError, match="method must be one of .*got 'loreft'"):
        accounting.count_method(accounting.read_model(CONFIG), "loreft")


def test_vera_shares_its_matrices():
    rng = np.random.default_rng(0)
    A, B = vera.shared_matrices(3, 6, 5, dtype=np.float64, rng=rng)
    assert A.shape == (3, 6) and B.shape == (5, 3)
    assert np.abs(A).max() <= 1 and np.abs(B).max() <= np.sqrt(2)  # sqrt(6 / fan-in)
    assert np.abs(A).max() > 0.8 and np.abs(B).max() > 0.8 * np.sqrt(2)
    layers = [vera.VeRALinear(rng.standard_normal(shape), None, A, B) for shape in ((5, 4), (4, 6))]
    assert all(np.shares_memory(layer.A, A) and np.shares_memory(layer.B, B) for layer in layers)
    assert not {"A", "B"} & set(layers[0].parameters())
    with pytest.raises(ValueError, match=r"\(3, 6\).*\(6, 4\)"):
        vera.VeRALinear(np.ones((6, 4)), None, A, B)


def test_oft_turns_and_nothing_else():
    layer, given = filled("oft")
    merged, W = layer.merge()[0], given["weight"]
    assert relative_error(merged @ merged.T, W @ W.T) < TOLERANCE  # lengths and angles of rows
    assert relative_error(merged, W) > 0.1
    with pytest.raises(ValueError, match="6.* 4"):
        oft.OFTLinear(W, None, 4)


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
            # PEFT makes PiSSA's start in float32, whose last digits differ from machine to machine.
            most = 1e-5 if key.startswith("pissa") else TOLERANCE
            assert relative_error(new[key], array) < most, key
