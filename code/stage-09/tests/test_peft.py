"""peft.py against finite differences, against dense algebra, and against bad input."""

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
from gradcheck import numerical_gradient, relative_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
F64 = np.float64

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)
leads = st.lists(st.integers(1, 3), max_size=2).map(tuple)  # (), (batch,), (batch, time)


def normal(rng, *shape, dtype=F64):
    return rng.standard_normal(shape).astype(dtype)


def randomize(method, rng):
    """Leave the start, where half of the gradients vanish; keep each array's dtype."""
    for array in method.parameters().values():
        array[...] = rng.standard_normal(array.shape)


def check_gradients(method, inputs, forward, backward):
    """Every parameter and every input of a method against central differences.

    forward() returns a tuple of outputs; backward(*G) a tuple of the inputs' gradients. The loss
    sum(G * output) reaches every output with a weight of its own.
    """
    rng = np.random.default_rng(7)  # one for all: equal weights would hide swapped outputs
    G = [normal(rng, *out.shape) for out in forward()]

    def loss():
        return sum(float((g * out).sum()) for g, out in zip(G, forward(), strict=True))

    forward()
    input_grads = backward(*G)
    grads = {name: grad.copy() for name, grad in method.gradients().items()}
    assert grads.keys() == method.parameters().keys()
    for name, array in method.parameters().items():
        assert grads[name].shape == array.shape
        assert relative_error(grads[name], numerical_gradient(loss, array)) < 1e-7, name
    for i, (array, grad) in enumerate(zip(inputs, input_grads, strict=True)):
        assert grad.shape == array.shape
        assert relative_error(grad, numerical_gradient(loss, array)) < 1e-7, f"input {i}"


# ------------------------------------------------------------------------------------ gradients


@settings(deadline=None, max_examples=40)
@pytest.mark.filterwarnings("ignore:rank")
@given(lead=leads, d_in=sizes, d_out=sizes, rank=sizes, alpha=st.floats(0.1, 32), seed=seeds)
def test_lora_layer_gradients(lead, d_in, d_out, rank, alpha, seed):
    rng = np.random.default_rng(seed)
    layer = peft.LoRALayer(d_in, d_out, rank, alpha, dtype=F64, rng=rng)
    randomize(layer, rng)
    x, W = normal(rng, *lead, d_in), normal(rng, d_out, d_in)
    check_gradients(layer, [x], lambda: (layer.forward(x, W),), lambda g: (layer.backward(g),))


@settings(deadline=None, max_examples=40)
@pytest.mark.filterwarnings("ignore:rank")
@given(lead=leads, d_in=sizes, d_out=sizes, rank=sizes, bias=st.booleans(), seed=seeds)
def test_lora_linear_gradients(lead, d_in, d_out, rank, bias, seed):
    rng = np.random.default_rng(seed)
    layer = peft.LoRALinear(normal(rng, d_out, d_in), normal(rng, d_out) if bias else None, rank,
                            rng=rng)
    randomize(layer, rng)
    x = normal(rng, *lead, d_in)
    check_gradients(layer, [x], lambda: (layer.forward(x),), lambda g: (layer.backward(g),))


@settings(deadline=None, max_examples=40)
@given(lead=leads, d=sizes, m=sizes, residual=st.booleans(), scale=st.floats(0.1, 8), seed=seeds)
def test_adapter_gradients(lead, d, m, residual, scale, seed):
    rng = np.random.default_rng(seed)
    layer = peft.Adapter(d, m, residual=residual, scale=scale, dtype=F64, rng=rng)
    randomize(layer, rng)
    x = normal(rng, *lead, d)
    assume(np.abs(x @ layer.W_down).min() > 1e-3)  # at relu's kink there is no derivative
    check_gradients(layer, [x], lambda: (layer.forward(x),), lambda g: (layer.backward(g),))


@settings(deadline=None, max_examples=40)
@given(lead=leads, T=sizes, H=sizes, dh=sizes, P=sizes, seed=seeds)
def test_prefix_gradients(lead, T, H, dh, P, seed):
    rng = np.random.default_rng(seed)
    method = peft.PrefixTuning(2, H, dh, P, dtype=F64, rng=rng)
    inputs = [normal(rng, *lead, T, H, dh) for _ in range(4)]  # K, V of layer 0; K, V of layer 1

    def forward():
        return (*method.forward(*inputs[:2], 0), *method.forward(*inputs[2:], layer_idx=1))

    def backward(k0, v0, k1, v1):  # layers in reverse, as a model goes back
        last = method.backward(k1, v1, 1)
        return (*method.backward(k0, v0, 0), *last)

    check_gradients(method, inputs, forward, backward)


@settings(deadline=None, max_examples=40)
@given(lead=leads, T=sizes, d=sizes, P=sizes, seed=seeds)
def test_prompt_gradients(lead, T, d, P, seed):
    rng = np.random.default_rng(seed)
    method = peft.PromptTuning(d, P, dtype=F64, rng=rng)
    x = normal(rng, *lead, T, d)
    check_gradients(method, [x], lambda: (method.forward(x),), lambda g: (method.backward(g),))


def test_backward_replaces_the_previous_gradient():
    rng = np.random.default_rng(0)
    layer = peft.LoRALinear(normal(rng, 4, 3), lora_rank=2, rng=rng)
    randomize(layer, rng)
    x, g = normal(rng, 5, 3), normal(rng, 5, 4)
    layer.forward(x)
    layer.backward(g)
    first = {name: grad.copy() for name, grad in layer.gradients().items()}
    layer.backward(g)
    for name, grad in layer.gradients().items():
        np.testing.assert_array_equal(grad, first[name])


def prefix_passes(*calls):
    """Layers whose gradient is not zero after these calls: "f0" is layer 0 forward, "b0" back."""
    method = peft.PrefixTuning(2, 2, 4, 3)
    for call, layer in ((call[0], int(call[1])) for call in calls):
        if call == "f":
            method.forward(K, K, layer)
        else:
            method.backward(*np.ones((2, 2, 8, 2, 4), np.float32), layer)
    return [layer for layer in range(2) if method.gradients()["prefix"][layer].any()]


@pytest.mark.parametrize("calls, heard", [
    ("f0 f1 b1 b0", [0, 1]),  # a model's pass
    ("f0 f1 b1", [1]),  # a pass that stops early
    ("f0 f1 b1 b0 b0", [0]), ("f0 f1 b1 b0 f0 b0", [0]),  # a new pass, of layer 0 alone
    ("f0 f1 b1 f0 f1 b0", [0]),  # the pass before stopped early
    ("f0 f1 f1 b1 f0 b0", [0, 1]),  # activations computed again on the way back
])
def test_a_new_pass_of_a_prefix_forgets_the_one_before(calls, heard):
    assert prefix_passes(*calls.split()) == heard


# ------------------------------------------------------------------------- what the book promises


def test_lora_starts_exactly_at_the_frozen_layer_and_first_moves_only_b():
    rng = np.random.default_rng(0)
    W, b, x = (normal(rng, *shape, dtype=np.float32) for shape in ((6, 5), (6,), (3, 4, 5)))
    layer = peft.LoRALinear(W, b, lora_rank=2, rng=rng)
    frozen = (x.reshape(-1, 5) @ W.T + b).reshape(3, 4, 6)
    np.testing.assert_array_equal(layer.forward(x), frozen)
    layer.backward(normal(rng, 3, 4, 6, dtype=np.float32))
    assert not layer.lora.A_grad.any()
    assert layer.lora.B_grad.all()


@pytest.mark.parametrize("lead", [(), (7,), (2, 3)])
def test_lora_equals_the_dense_update_and_merging_changes_nothing(lead):
    rng = np.random.default_rng(1)
    W, b, x = normal(rng, 6, 5), normal(rng, 6), normal(rng, *lead, 5)
    layer = peft.LoRALinear(W, b, lora_rank=3, lora_alpha=5.0, rng=rng)
    randomize(layer, rng)
    kept = W.copy(), b.copy()
    merged_W, merged_b = layer.merge()
    dense = W + 5.0 / 3 * np.einsum("or,ri->oi", layer.lora.B, layer.lora.A)
    np.testing.assert_allclose(merged_W, dense, rtol=1e-12)
    np.testing.assert_allclose(layer.forward(x), x @ merged_W.T + merged_b, rtol=1e-12, atol=1e-12)
    merged_W[:], merged_b[:] = 0, 0
    np.testing.assert_array_equal(layer.weight, kept[0])
    np.testing.assert_array_equal(layer.bias, kept[1])


@pytest.mark.parametrize("residual", [True, False])
def test_an_adapter_learns_from_a_zero_w_up_and_never_from_a_zero_w_down(residual):
    for zero, moves in (("W_up", True), ("W_down", False)):
        rng = np.random.default_rng(0)
        adapter = peft.Adapter(6, 4, residual=residual, dtype=F64, rng=rng)
        randomize(adapter, rng)
        getattr(adapter, zero)[...] = 0
        adapter.forward(normal(rng, 20, 6))
        adapter.backward(normal(rng, 20, 6))
        assert any(grad.any() for grad in adapter.gradients().values()) == moves, zero


def test_adapter_follows_its_formula_and_starts_near_the_identity():
    rng = np.random.default_rng(2)
    x = normal(rng, 4, 8)
    layer = peft.Adapter(8, 3, dtype=F64, rng=rng)
    assert 0 < relative_error(layer.forward(x), x) < 0.01
    randomize(layer, rng)
    path = np.where(x @ layer.W_down > 0, x @ layer.W_down, 0) @ layer.W_up
    np.testing.assert_allclose(layer.forward(x), x + path, rtol=1e-12)
    layer.residual, layer.scale = False, 4.0
    np.testing.assert_allclose(layer.forward(x), 4 * path, rtol=1e-12)


def test_prefix_and_prompt_stand_in_front_in_order():
    rng = np.random.default_rng(3)
    prefix = peft.PrefixTuning(3, 2, 4, 5, rng=rng)
    k, v = (normal(rng, 2, 6, 2, 4, dtype=np.float32) for _ in range(2))
    keys, values = prefix.forward(k, v, 1)
    for batch in range(2):
        np.testing.assert_array_equal(keys[batch], [*prefix.prefix[1, 0], *k[batch]])
        np.testing.assert_array_equal(values[batch], [*prefix.prefix[1, 1], *v[batch]])
    prompt = peft.PromptTuning(4, 3, rng=rng)
    x = normal(rng, 2, 5, 4, dtype=np.float32)
    for batch, out in enumerate(prompt.forward(x)):
        np.testing.assert_array_equal(out, [*prompt.prompt, *x[batch]])


def test_prompt_copies_rows_of_the_vocabulary():
    rng = np.random.default_rng(4)
    table = normal(rng, 9, 4)
    method = peft.PromptTuning(4, 9, table, rng=rng)
    rows = [int(np.flatnonzero((table == row).all(axis=1))[0]) for row in method.prompt]
    assert sorted(rows) == list(range(9))  # all of them once: without replacement
    method.prompt[:] = 0
    assert table.all()  # a copy, no view
    assert peft.PromptTuning(4, 20, table, rng=rng).prompt.shape == (20, 4)  # more than there are


@pytest.mark.parametrize("asked, made", [(None, F64), (np.float32, np.float32)])
def test_a_prompt_has_the_dtype_asked_for_or_its_tables(asked, made):
    table = np.ones((3, 4))
    assert peft.PromptTuning(4, 2, table, dtype=asked).prompt.dtype == made
    assert peft.PromptTuning(4, 2, dtype=asked).prompt.dtype == np.float32


def all_methods(dtype, rng):
    return [peft.LoRALayer(6, 5, 2, dtype=dtype, rng=rng),
            peft.LoRALinear(normal(rng, 5, 6, dtype=dtype), lora_rank=2, rng=rng),
            peft.Adapter(6, 3, dtype=dtype, rng=rng),
            peft.PrefixTuning(1, 2, 3, 4, dtype=dtype, rng=rng),
            peft.PromptTuning(6, 4, dtype=dtype, rng=rng)]


def run(method, x, g, W):
    """Forward and backward of any method on x (2, 4, 6); everything that comes out, by name."""
    if isinstance(method, peft.PrefixTuning):
        kv = x.reshape(2, 4, 2, 3)
        k, v = method.forward(kv, 2 * kv, 0)
        outs = [k, v, *method.backward(k, v, 0)]
    else:
        out = method.forward(*((x, W) if isinstance(method, peft.LoRALayer) else (x,)))
        outs = [out, method.backward(g[:out.shape[0], :out.shape[1], :out.shape[2]])]
    return {**dict(enumerate(outs)), **method.gradients()}


@pytest.mark.parametrize("i", range(5))
def test_float32_stays_float32_and_agrees_with_float64(i):
    rng = np.random.default_rng(5)
    x, g, W = normal(rng, 2, 4, 6), normal(rng, 2, 8, 6), normal(rng, 5, 6)
    wide = all_methods(F64, np.random.default_rng(6))[i]
    thin = all_methods(np.float32, np.random.default_rng(6))[i]
    randomize(wide, rng)
    for name, array in thin.parameters().items():
        assert array.dtype == np.float32
        array[...] = wide.parameters()[name]
    expected = run(wide, x, g, W)
    got = run(thin, *(a.astype(np.float32) for a in (x, g, W)))
    for name, value in got.items():
        assert value.dtype == np.float32, name
        assert relative_error(value.astype(F64), expected[name]) < 2e-6, name


@pytest.mark.parametrize("i", range(5))
def test_one_contract_for_all(i):
    rng = np.random.default_rng(8)
    method = all_methods(np.float32, rng)[i]
    with pytest.raises(RuntimeError, match="backward"):
        method.gradients()
    x, g, W = (normal(rng, *s, dtype=np.float32) for s in ((2, 4, 6), (2, 8, 6), (5, 6)))
    before = run(method, x, g, W)[0].copy()
    assert method.num_parameters() == sum(a.size for a in method.parameters().values())
    assert method.parameters().keys() == method.gradients().keys()
    for array in method.parameters().values():  # live arrays: an in-place step has effect
        array += 1
    assert not np.array_equal(run(method, x, g, W)[0], before)


def test_randomness_is_the_callers_and_the_global_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    a, b = (all_methods(np.float32, np.random.default_rng(9)) for _ in range(2))
    for fresh in (peft.LoRALayer(4, 4, 2), peft.Adapter(4, 2), peft.PrefixTuning(1, 1, 2, 3)):
        assert fresh.num_parameters()
    assert not np.array_equal(peft.PromptTuning(4).prompt, peft.PromptTuning(4).prompt)
    for m, n in zip(a, b, strict=True):
        for name, array in m.parameters().items():
            np.testing.assert_array_equal(array, n.parameters()[name])
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    adapter = peft.Adapter(8, 8, rng=np.random.default_rng(9))
    assert not np.array_equal(adapter.W_down, adapter.W_up)


# ------------------------------------------------------------------------------------ utilities


def test_apply_lora_wraps_the_targets_only():
    rng = np.random.default_rng(0)
    w = {name: normal(rng, 4, 6) for name in "qkvo"}
    layers = peft.apply_lora_to_attention(*w.values(), rank=2, alpha=3.0, rng=rng)
    assert [n for n, layer in layers.items() if isinstance(layer, peft.LoRALinear)] == ["q", "v"]
    assert layers["q"].weight is w["q"] and layers["k"] is w["k"]
    assert layers["v"].lora.rank == 2 and layers["v"].lora.scaling == 1.5


def test_compare_counts_what_the_arrays_hold():
    """Each count equals the sizes of arrays really allocated for a small model."""
    d, L, H, r, m, P, Q = 12, 3, 4, 2, 5, 7, 6
    attention = [np.zeros((d, d)) for _ in range(4 * L)]
    made = {
        "full": sum(w.size for w in attention),
        "lora": 2 * L * peft.LoRALayer(d, d, r).num_parameters(),
        "adapters": 2 * L * peft.Adapter(d, m).num_parameters(),
        "prefix": peft.PrefixTuning(L, H, d // H, P).num_parameters(),
        "prompt": peft.PromptTuning(d, Q).num_parameters(),
    }
    counts = peft.compare_peft_methods(d, L, H, r, m, P, Q)
    assert {name: c["params"] for name, c in counts.items()} == made
    assert all(c["ratio"] == c["params"] / made["full"] for c in counts.values())
    assert {type(c["params"]) for c in counts.values()} == {int}


def test_published_count_for_llama_2_7b():
    """4,194,304: printed by PEFT for Llama-2-7B, r=8 on q_proj and v_proj."""
    assert peft.compare_peft_methods()["lora"]["params"] == 4_194_304


def test_demo_prints_the_block_of_section_9_6():
    out = subprocess.run([sys.executable, str(HERE.parent / "peft.py")], capture_output=True,
                         text=True, check=True)
    assert out.stdout == (HERE / "demo_output.txt").read_text()
    assert out.stderr == ""


def test_defaults_are_those_of_section_9_6():
    """The book prints these signatures; a default that moves changes every reader's result."""
    defaults = {
        peft.LoRALayer: {"rank": 8, "alpha": 16.0}, peft.Adapter: {
            "bottleneck_dim": 64, "residual": True, "scale": 1.0},
        peft.LoRALinear: {"bias": None, "lora_rank": 8, "lora_alpha": 16.0},
        peft.PrefixTuning: {"prefix_length": 10},
        peft.PromptTuning: {"prompt_length": 20, "init_from_vocab": None},
        peft.apply_lora_to_attention: {"rank": 8, "alpha": 16.0, "target_modules": ("q", "v")},
        peft.compare_peft_methods: {
            "d_model": 4096, "num_layers": 32, "num_heads": 32, "lora_rank": 8,
            "adapter_bottleneck": 64, "prefix_length": 10, "prompt_length": 20}}
    for what, expected in defaults.items():
        given = {name: parameter.default
                 for name, parameter in inspect.signature(what).parameters.items()
                 if parameter.default is not inspect.Parameter.empty
                 and name not in ("rng", "dtype")}
        assert given == expected, what


@pytest.mark.parametrize("make, start", [
    (lambda rng: peft.LoRALayer(300, 4, 4, rng=rng).A, 0.01),
    (lambda rng: peft.Adapter(300, 20, rng=rng).W_up, 0.01),
    (lambda rng: peft.PrefixTuning(3, 4, 20, 20, rng=rng).prefix, 0.01)])
def test_starts_are_gaussian_of_standard_deviation_one_hundredth(make, start):
    array = make(np.random.default_rng(0))
    assert array.std() == pytest.approx(start, rel=0.05) and abs(array.mean()) < start / 10


def test_the_demo_prints_the_same_in_this_process(capsys):
    peft.demo()
    assert capsys.readouterr().out == (HERE / "demo_output.txt").read_text()


# ------------------------------------------------------------------------------------ bad input

W43 = np.ones((4, 3), np.float32)
BAD = np.where(np.eye(4, 3), np.nan, W43)
X3 = np.ones((2, 3), np.float32)
K = np.ones((2, 5, 2, 4), np.float32)

COUNTS = {  # every size of every class and function
    peft.LoRALayer: {"in_features": 3, "out_features": 4, "rank": 2},
    peft.Adapter: {"d_model": 4, "bottleneck_dim": 2},
    peft.PrefixTuning: {"num_layers": 2, "num_heads": 2, "d_head": 4, "prefix_length": 3},
    peft.PromptTuning: {"d_model": 4, "prompt_length": 3},
    peft.compare_peft_methods: {"d_model": 8, "num_layers": 2, "num_heads": 2, "lora_rank": 2,
                                    "adapter_bottleneck": 2, "prefix_length": 2,
                                    "prompt_length": 2},
}
COUNT_CASES = [(target, name, value, error) for target, sizes_ in COUNTS.items() for name in sizes_
               for value, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError),
                                    (True, TypeError), ("8", TypeError), (None, TypeError))]


@pytest.mark.parametrize("target, name, value, error", COUNT_CASES)
def test_sizes_are_integers_of_at_least_one(target, name, value, error):
    with pytest.raises(error, match=f"^{name} must be .*{value!r}"):
        target(**{**COUNTS[target], name: value})


def test_numpy_integers_are_integers():
    assert peft.LoRALayer(np.int64(3), np.int32(4), np.int8(2)).A.shape == (2, 3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: peft.LoRALayer(3, 4, 2, alpha=0), ValueError, "alpha must be finite and positive"),
    (lambda: peft.LoRALayer(3, 4, 2, alpha=-1.0), ValueError, "alpha must be .*-1"),
    (lambda: peft.LoRALayer(3, 4, 2, alpha=float("nan")), ValueError, "alpha must be .*nan"),
    (lambda: peft.LoRALayer(3, 4, 2, alpha=float("inf")), ValueError, "alpha must be .*inf"),
    (lambda: peft.LoRALayer(3, 4, 2, alpha="16"), TypeError, "alpha must be a number"),
    (lambda: peft.LoRALayer(3, 4, 2, alpha=True), TypeError, "alpha must be a number"),
    (lambda: peft.Adapter(4, 2, scale=0), ValueError, "scale must be finite and positive"),
    (lambda: peft.Adapter(4, 2, dtype=np.int32), TypeError, "dtype must be a floating-point"),
    (lambda: peft.LoRALayer(3, 4, 2).forward(np.ones((2, 4)), W43), ValueError,
     r"x must have shape \(\.\.\., 3\), got \(2, 4\)"),
    (lambda: peft.LoRALayer(3, 4, 2).forward(X3, W43.T), ValueError, r"W must have shape \(4, 3\)"),
    (lambda: peft.LoRALayer(3, 4, 2).forward(np.array(1.0), W43), ValueError, "x must have shape"),
    (lambda: peft.LoRALayer(3, 4, 2).forward(X3.astype(int), W43), TypeError, "x must be a float"),
    (lambda: peft.LoRALayer(3, 4, 2).merge_weights(W43.T), ValueError, "W must have shape"),
    (lambda: peft.LoRALinear(np.ones((4, 3), int)), TypeError, "weight must be a floating"),
    (lambda: peft.LoRALinear([[1.0]]), TypeError, "weight must be a floating.*, got list"),
    (lambda: peft.LoRALinear(BAD), ValueError, "weight holds NaN or infinity"),
    (lambda: peft.LoRALinear(np.ones(3)), ValueError, "weight must have shape"),
    (lambda: peft.LoRALinear(np.ones((0, 3))), ValueError, "weight must not be empty"),
    (lambda: peft.LoRALinear(W43, np.ones(3)), ValueError, r"bias must have shape \(4\)"),
    (lambda: peft.LoRALinear(W43, np.full(4, np.inf)), ValueError, "bias holds NaN or infinity"),
    (lambda: peft.Adapter(4, 2).forward(X3), ValueError, r"x must have shape \(\.\.\., 4\)"),
    (lambda: peft.PrefixTuning(2, 2, 4).forward(K[..., :3], K, 0), ValueError, "keys must have"),
    (lambda: peft.PrefixTuning(2, 2, 4).forward(K, K[:1], 0), ValueError, "values must have"),
    (lambda: peft.PrefixTuning(2, 2, 4).forward(K, K, 2), IndexError, "0 to 1, got 2"),
    (lambda: peft.PrefixTuning(2, 2, 4).get_prefix(-1), IndexError, "0 to 1, got -1"),
    (lambda: peft.PrefixTuning(2, 2, 4).get_prefix(True), TypeError, "layer_idx must be an int"),
    (lambda: peft.PrefixTuning(2, 2, 4).get_prefix(0.0), TypeError, "layer_idx must be an int"),
    (lambda: peft.PromptTuning(4, 3).forward(X3), ValueError, "input_embeds must have shape"),
    (lambda: peft.PromptTuning(4, 3).forward(np.ones(4)), ValueError, "input_embeds must have"),
    (lambda: peft.PromptTuning(4, 3, W43), ValueError, r"init_from_vocab must have .*any, 4"),
    (lambda: peft.PromptTuning(3, 3, W43.astype(int)), TypeError, "init_from_vocab must be a fl"),
    (lambda: peft.PromptTuning(3, 3, BAD), ValueError, "init_from_vocab holds NaN"),
    (lambda: peft.LoRALayer(3, 4, 2, dtype=F64).forward(X3, W43), TypeError,
     "A is float64.* float32"),
    (lambda: peft.Adapter(3, 2, dtype=F64).forward(X3), TypeError, "W_down is float64.* float32"),
    (lambda: peft.PrefixTuning(2, 2, 4, dtype=F64).forward(K, K, 0), TypeError,
     "array is float64.* float32"),
    (lambda: peft.PrefixTuning(2, 2, 4, dtype=F64).forward(K.astype(F64), K, 0), TypeError,
     "array is float64.* float32"),
    (lambda: peft.PromptTuning(3, 2, dtype=F64).forward(X3), TypeError,
     "array is float64.* float32"),
    (lambda: peft.LoRALayer(3, 4, 2, dtype=F64).forward(X3.astype(np.float16), W43), TypeError,
     "A is float64.* float32"),
    (lambda: peft.apply_lora_to_attention(W43, W43, W43, W43, target_modules="qv"), TypeError,
     "a list like .'q', 'v'., got 'qv'"),
    (lambda: peft.apply_lora_to_attention(W43, W43, W43, W43, target_modules=["q", "gate"]),
     ValueError, r"\['q', 'k', 'v', 'o'\], got \['q', 'gate'\]"),
    (lambda: peft.apply_lora_to_attention(W43, W43, W43, W43, target_modules=[]), ValueError,
     "must name some of"),
    (lambda: peft.compare_peft_methods(d_model=10, num_heads=3), ValueError,
     "d_model must be divisible by num_heads, got 10 and 3"),
    (lambda: peft.LoRALayer(3, 4, 2).backward(W43), RuntimeError, "backward needs forward first"),
    (lambda: peft.LoRALinear(W43, lora_rank=2).backward(W43), RuntimeError, "backward needs forw"),
    (lambda: peft.Adapter(3, 2).backward(W43), RuntimeError, "backward needs forward"),
    (lambda: peft.PrefixTuning(2, 2, 4).backward(K, K, 1), RuntimeError, "forward of layer 1"),
    (lambda: peft.PromptTuning(3, 2).backward(W43), RuntimeError, "backward needs forward first"),
])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=rf"(?<!\w)(?:{message})"):  # the name, not the end of another
        call()


def test_each_gradient_is_named_and_an_index_is_checked_on_the_way_back():
    method = peft.PrefixTuning(2, 2, 4, 3)
    method.forward(K, K, 1)
    right = np.ones((2, 8, 2, 4), np.float32)
    with pytest.raises(ValueError, match="^grad_keys must have shape"):
        method.backward(K, right, 1)
    with pytest.raises(ValueError, match="^grad_values must have shape"):
        method.backward(right, K, 1)
    with pytest.raises(TypeError, match="^layer_idx must be an integer, got True"):
        method.backward(right, right, True)  # which is 1 to a dict and to an array


@pytest.mark.parametrize("i", range(5))
def test_backward_refuses_a_gradient_of_another_shape(i):
    rng = np.random.default_rng(0)
    method = all_methods(np.float32, rng)[i]
    x, g, W = (normal(rng, *s, dtype=np.float32) for s in ((2, 4, 6), (2, 8, 6), (5, 6)))
    run(method, x, g, W)
    with pytest.raises(ValueError, match="^grad_.* must have shape"):
        if isinstance(method, peft.PrefixTuning):
            method.backward(K, K, 0)
        else:
            method.backward(np.ones((2, 3, 2), np.float32))


def test_rank_above_full_warns_and_works():
    with pytest.warns(UserWarning, match=r"rank 5 is above min\(in, out\) = 3") as caught:
        layer = peft.LoRALayer(3, 4, 5)
    assert caught[0].filename == __file__  # the caller's line, not the module's
    assert layer.forward(X3, W43).shape == (2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peft.LoRALayer(3, 4, 3)
