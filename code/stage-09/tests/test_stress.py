"""Numbers at the edge of their formats, odd arrays, empty batches, threads: right, or an error.

"Right" is the same computation in float64, where nothing is near an edge.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import peft
import pytest
from llama import Llama, LlamaConfig, RMSNorm, random_weights
from names import IGNORE
from training import AdamW, clip_gradients, cross_entropy

F16, F32, F64 = np.float16, np.float32, np.float64
CONFIG = LlamaConfig(11, 16, 12, 2, 4, 2)
METHODS = ["lora", "lora linear", "adapter", "prefix", "prompt"]
EACH = pytest.mark.parametrize("name", METHODS)


def make(name, dtype=F64):
    """A layer of width 6 with numbers far from its start, the same in every dtype."""
    rng = np.random.default_rng(3)
    W, b = rng.standard_normal((6, 6)).astype(dtype), rng.standard_normal(6).astype(dtype)
    layer = {"lora": lambda: peft.LoRALayer(6, 6, 2, dtype=dtype),
             "lora linear": lambda: peft.LoRALinear(W, b, 2),
             "adapter": lambda: peft.Adapter(6, 3, dtype=dtype),
             "prefix": lambda: peft.PrefixTuning(1, 2, 3, 4, dtype=dtype),
             "prompt": lambda: peft.PromptTuning(6, 4, dtype=dtype)}[name]()
    for array in layer.parameters().values():
        array[...] = rng.standard_normal(array.shape)
    return layer, W


def run(made, x, g):
    """All that comes out of one forward and backward, (batch, time, 6) in; g is cut to fit."""
    layer, W = made
    if isinstance(layer, peft.PrefixTuning):
        heads = x.reshape(*x.shape[:-1], 2, 3)
        k, v = layer.forward(heads, heads, 0)
        gk = g[..., :k.shape[-3], :].reshape(k.shape)
        outs = [k, v, *layer.backward(gk, gk, 0)]
    else:
        out = layer.forward(x, W) if isinstance(layer, peft.LoRALayer) else layer.forward(x)
        outs = [out, layer.backward(g[..., :out.shape[-2], :])]
    return [*outs, *layer.gradients().values()]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_close(got, expected, rel):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        scale = np.abs(b).max(initial=0)
        assert np.abs(a.astype(F64) - b).max(initial=0) <= rel * scale, (a, b)


# -------------------------------------------------------------------------------- narrow formats


@EACH
@pytest.mark.parametrize("inner", [F16, F32])
def test_float16_inputs_give_float16_rounding_and_no_more(name, inner):
    x, g = draw(2, 3, 6).astype(F16), draw(2, 7, 6, seed=1).astype(F16)
    narrow, wide = make(name, inner), make(name, F64)
    for method, other in zip(narrow[0].parameters().values(), wide[0].parameters().values()):
        other[...] = method
    wide[1][...] = narrow[1]
    if name == "lora linear":
        wide[0].bias[...] = narrow[0].bias
    assert_close(run(narrow, x, g), run(wide, x.astype(F64), g.astype(F64)), 4e-3)
    for key, gradient in narrow[0].gradients().items():
        assert gradient.dtype in (inner, F32), key  # sums over the batch are taken in float32


@EACH
def test_a_long_sum_of_float16_gradients_does_not_stand_still(name):
    """2048 + 1 is 2048 in float16: 4,096 sequences that each ask for 1 must be heard as 4,096."""
    made = make(name, F16)
    ones = np.ones((4096, 1, 6), F16)
    wide = make(name, F64)
    for ours, theirs in zip(wide[0].parameters().values(), made[0].parameters().values()):
        ours[...] = theirs
    wide[1][...] = made[1]
    g = np.ones((4096, 5, 6), F16)
    shrink = F16(1 / 64)  # LoRA's sums are products with x, up to 16 times larger: keep them finite
    got, expected = (run(m, (ones * shrink).astype(t), (g * F16(1 / 4)).astype(t))
                     for m, t in ((made, F16), (wide, F64)))
    assert_close(got, expected, 4e-3)


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_a_sum_over_the_batch_may_be_more_than_float16_holds(name):
    layer, _ = made = make(name, F16)
    run(made, np.ones((4096, 1, 6), F16), np.full((4096, 5, 6), 32, F16))
    for gradient in layer.gradients().values():
        assert (gradient.astype(F64) == 32 * 4096).all()  # above 65,504


def test_a_float16_model_agrees_with_float64_far_above_what_it_can_square():
    weights = random_weights(CONFIG, np.random.default_rng(0), 0.3, F16)
    weights["model.embed_tokens.weight"] *= F16(300)  # 300 squared is above 65,504
    narrow = Llama(CONFIG, weights)
    wide = Llama(CONFIG, {name: w.astype(F64) for name, w in weights.items()})
    ids = np.arange(8).reshape(2, 4)
    logits, exact = narrow.forward(ids), wide.forward(ids)
    assert logits.dtype == F16 and np.abs(exact).max() > 100
    assert_close([logits], [exact], 1e-2)


def test_float16_logits_lose_no_more_than_rounding():
    logits, targets = 4 * draw(3, 5, 30), np.random.default_rng(1).integers(0, 30, (3, 5))
    exact, narrow = (cross_entropy(logits.astype(F16).astype(t), targets) for t in (F64, F16))
    assert narrow[0] == pytest.approx(exact[0], rel=2e-3) and narrow[1].dtype == F16
    assert_close([narrow[1]], [exact[1]], 4e-3)


def test_a_vocabulary_may_have_more_words_than_float16_can_count():
    loss, grad = cross_entropy(np.zeros((1, 70_000), F16), np.array([3]))
    assert loss == pytest.approx(np.log(70_000), rel=1e-6)
    assert grad[0, 3] == -1 and grad[0, 0] == pytest.approx(1 / 70_000, rel=0.01)


def test_clipping_measures_small_float16_gradients():
    gradients = {"a": np.full(1000, 1e-5, F16)}  # its squares are below what float16 can hold
    exact = np.linalg.norm(gradients["a"].astype(F64))
    assert clip_gradients(gradients, 1.0) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1.0, 300.0])
def test_adamw_moves_float16_parameters_by_the_learning_rate(size):
    """The first step is lr times the gradient's sign, as long as the gradient is far above eps."""
    w = {"w": np.zeros(3, F16)}
    AdamW(w, 0.01).step({"w": np.array([size, -size, size], F16)})
    np.testing.assert_allclose(w["w"], [-0.01, 0.01, -0.01], rtol=0.02)


# --------------------------------------------------------------------------- very large, very small


@EACH
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e150])
def test_layers_are_homogeneous_at_any_size(name, size):
    """No bias, no norm: c times the input, and c times the gradient, come out c times as large."""
    made = make(name)
    if name == "lora linear":
        made[0].bias[...] = 0
    x, g = draw(2, 3, 6), draw(2, 7, 6, seed=1)
    plain = run(made, x, g)
    for array in made[0].parameters().values() if name in ("prefix", "prompt") else ():
        array *= size  # these stand beside the input, not on it
    scaled = [out.copy() for out in run(made, size * x, g)]
    outputs = 2 if name == "prefix" else 1
    for i, (a, b) in enumerate(zip(scaled, plain, strict=True)):
        depends = i < outputs or (i > outputs and name in ("lora", "lora linear", "adapter"))
        np.testing.assert_allclose(a, size * b if depends else b, rtol=1e-9)


@EACH
def test_denormal_inputs_are_numbers_like_others(name):
    x = np.full((1, 2, 6), 5e-324)
    made = make(name)
    small = run(make(name), 1e-200 * np.sign(x), draw(1, 6, 6))
    for a, b in zip(run(made, x, draw(1, 6, 6)), small, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-190)


def test_norm_of_tiny_and_denormal_activations_is_ruled_by_eps():
    norm = RMSNorm(np.ones(4, F32), 1e-6)
    for size in (1e-45, 1e-30, 1e-12):
        out = norm.forward(np.full((1, 4), size, F32))
        np.testing.assert_allclose(out, np.full((1, 4), F32(size) / 1e-3), rtol=1e-5)


def test_activations_too_large_to_square_are_refused_not_normed_to_zero():
    norm = RMSNorm(np.ones(4, F32), 1e-6)
    np.testing.assert_allclose(norm.forward(np.full((1, 4), 1e18, F32)), 1, rtol=1e-6)
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError,
                                                       match="1e.20 overflow float32"):
        norm.forward(np.full((1, 4), 1e20, F32))


def test_attention_scores_far_above_what_exp_takes_choose_one_token():
    weights = random_weights(CONFIG, np.random.default_rng(0), 0.3)
    for name in weights:
        if "q_proj" in name:
            weights[name] *= F32(1e4)  # scores of some 1e4; exp(89) is infinite in float32
    model, ids = Llama(CONFIG, weights), np.arange(8).reshape(2, 4)
    wide = Llama(CONFIG, {name: w.astype(F64) for name, w in weights.items()})
    assert_close([model.forward(ids)], [wide.forward(ids)], 1e-3)
    p = model.layers[0].self_attn.cache[-1]
    assert np.isfinite(p).all() and (p.max(axis=-1) > 0.99).mean() > 0.9


@pytest.mark.parametrize("size, dtype", [(1e4, F16), (1e30, F32), (1e200, F64)])
def test_huge_logits_cost_their_distance(size, dtype):
    loss, grad = cross_entropy(np.array([[size, 0.0, -size]], dtype), np.array([1]))
    assert loss == pytest.approx(size, rel=1e-3) and grad.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize("dtype, size", [(F16, 1e3), (F32, 1e25), (F32, 1e-3)])
def test_clipping_measures_what_its_dtype_cannot_square(dtype, size):
    gradients = {"a": np.full(4, size, dtype)}
    norm = clip_gradients(gradients, size / 10)
    assert norm == pytest.approx(2 * size, rel=1e-3)
    np.testing.assert_allclose(gradients["a"], size / 20, rtol=2e-3)


def test_adamw_refuses_what_it_cannot_square_and_changes_nothing():
    w = {"small": np.ones(2, F32), "large": np.ones(2, F32)}
    optimizer = AdamW(w)
    good = {name: np.ones(2, F32) for name in w}
    for bad in (1e20, np.inf, np.nan):
        with pytest.raises(FloatingPointError, match="gradient of large reaches .*clip it"):
            optimizer.step(good | {"large": np.array([1, bad], F32)})
    assert (w["small"] == 1).all() and optimizer.steps == 0
    optimizer.step(good | {"large": np.array([1, 1e18], F32)})
    np.testing.assert_allclose(w["large"], 1 - 1e-3, rtol=1e-6)


def test_adamw_takes_denormal_gradients_for_nearly_nothing():
    w = {"w": np.ones(1, F32)}
    AdamW(w, 0.1).step({"w": np.array([1e-44], F32)})
    assert w["w"][0] == 1


def test_a_tiny_temperature_is_the_likeliest_token():
    model = Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(0), 0.3))
    ids = np.arange(8).reshape(4, 2)
    greedy = model.generate(ids, 6, temperature=0)
    with np.errstate(over="ignore"):
        tiny = model.generate(ids, 6, temperature=1e-320)
    np.testing.assert_array_equal(tiny, greedy)


def test_a_diverged_model_says_no_names():
    model = Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(0)))
    model.soft_prompt = peft.PromptTuning(16, 2)
    model.soft_prompt.prompt[0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="logits hold NaN.*diverged"):
        model.generate(np.zeros((1, 1), int), 3)


# ------------------------------------------------------------------------------ empty, one, nothing


@EACH
@pytest.mark.parametrize("batch, time", [(0, 3), (2, 0), (0, 0)])
def test_an_empty_batch_gives_empty_results_and_zero_gradients(name, batch, time):
    layer, W = made = make(name)
    x = np.zeros((batch, time, 6))
    results = run(made, x, np.ones((batch, time + 4, 6)))
    virtual = 4 if name in ("prefix", "prompt") else 0
    assert results[0].shape[:2] == (batch, time + virtual)
    for gradient in layer.gradients().values():
        expected = batch if virtual else 0
        assert (gradient == expected).all()


@EACH
def test_one_token_is_a_batch_of_one_token(name):
    made, x, g = make(name), draw(1, 1, 6), draw(1, 5, 6, seed=1)
    single = [out.copy() for out in run(made, x[0], g[0])]
    for a, b in zip(single, run(made, x, g), strict=True):
        np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-12)


def test_a_model_takes_one_token_and_refuses_none():
    model = Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(0)))
    assert model.forward(np.zeros((1, 1), int)).shape == (1, 1, 11)
    for shape in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="not empty"):
            model.forward(np.zeros(shape, int))


@pytest.mark.parametrize("logits, targets, error, message", [
    (np.zeros((0, 5)), np.zeros(0, int), ValueError, "nothing to score"),
    (np.zeros((2, 0)), np.zeros(2, int), ValueError, "targets must be 0 to -1"),
    (np.zeros((2, 5), int), np.zeros(2, int), TypeError, "logits must be a floating.*got int64"),
    (np.zeros((2, 5)), np.ones(2, bool), TypeError, "targets must be an integer.*got bool"),
    (np.zeros((2, 5)), np.ones(2), TypeError, "targets must be an integer array, got float64"),
    (np.zeros((2, 5)), [0, 1], TypeError, "targets must be an integer array, got list"),
])
def test_a_loss_over_nothing_or_over_no_numbers_is_refused(logits, targets, error, message):
    with pytest.raises(error, match=message):
        cross_entropy(logits, targets)


@pytest.mark.parametrize("call, message", [
    (lambda: peft.LoRALinear(np.zeros((0, 6))), "weight must not be empty"),
    (lambda: peft.LoRALinear(np.zeros((6, 0))), "weight must not be empty"),
    (lambda: peft.LoRALayer(0, 6), "in_features must be at least 1"),
    (lambda: peft.apply_lora_to_attention(*[np.zeros((0, 0))] * 4), "weight must not be empty"),
    (lambda: peft.PromptTuning(6, 3, np.zeros((0, 6))), "init_from_vocab must not be empty"),
])
def test_a_target_of_no_size_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -------------------------------------------------------------------------------------- odd arrays


def strided(array):
    """The same values, every second element of a larger array, axes stored in reverse."""
    big = np.full([2 * n for n in array.shape], 99, array.dtype, order="F")
    view = big[tuple(np.s_[::2] for _ in array.shape)]
    view[...] = array
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


ODD = {"strided": strided, "reversed": lambda a: a[::-1].copy()[::-1], "read-only": read_only,
       "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">"))}


@EACH
@pytest.mark.parametrize("odd", ODD)
def test_layout_makes_no_difference_and_inputs_are_left_alone(name, odd):
    x, g = draw(2, 3, 6), draw(2, 7, 6, seed=1)
    layer, W = make(name)
    expected = [out.copy() for out in run((layer, W), x, g)]
    odd_x, odd_g, odd_W = ODD[odd](x), ODD[odd](g), ODD[odd](W)
    if name == "lora linear":
        parameters = layer.parameters()
        layer = peft.LoRALinear(odd_W, ODD[odd](layer.bias), 2)
        for key, array in layer.parameters().items():
            array[...] = parameters[key]
    got = run((layer, odd_W), odd_x, odd_g)
    assert_close(got, expected, 1e-12)
    np.testing.assert_array_equal(odd_x, x)
    np.testing.assert_array_equal(odd_g, g)
    if name.startswith("lora"):
        lora = layer.lora if name == "lora linear" else layer
        np.testing.assert_allclose(lora.merge_weights(odd_W), W + lora.delta_weight(), rtol=1e-12)
    np.testing.assert_array_equal(odd_W, W)


@pytest.mark.parametrize("odd", ["strided", "read-only"])
def test_a_model_of_odd_arrays_trains_its_method(odd):
    rng = np.random.default_rng(0)
    weights = random_weights(CONFIG, rng, 0.3, F64)
    ids = rng.integers(0, 11, (2, 5))
    targets = ids.copy()
    targets[0, 3:] = IGNORE
    results = []
    for stored in (weights, {name: ODD[odd](w) for name, w in weights.items()}):
        model = Llama(CONFIG, stored)
        model.soft_prompt = peft.PromptTuning(16, 3, model.embed_tokens.weight,
                                              rng=np.random.default_rng(1))
        loss, grad = cross_entropy(model.forward(ODD[odd](ids)), ODD[odd](targets))
        model.backward(ODD[odd](grad))
        AdamW(model.parameters(), 0.1).step(model.gradients())
        results.append([np.array(loss), model.soft_prompt.prompt])
    assert_close(*results, 1e-9)


def test_read_only_parameters_are_refused_before_the_first_step():
    weights = {name: read_only(w) for name, w in random_weights(
        CONFIG, np.random.default_rng(0)).items()}
    model = Llama(CONFIG, weights)
    model.set_trainable()
    with pytest.raises(ValueError, match="model.embed_tokens.weight is read-only.*copy"):
        AdamW(model.parameters())


# ----------------------------------------------------------------------------------------- threads


@EACH
def test_threads_with_a_method_each_share_the_frozen_weight(name):
    W = read_only(make(name)[1])
    jobs = [(draw(2, 40, 6, seed=i), draw(2, 44, 6, seed=100 + i)) for i in range(24)]

    def work(job):
        layer, _ = make(name)
        for _ in range(5):
            results = run((layer, W), *job)
        return results

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(work, jobs))
    for job, results in zip(jobs, threaded, strict=True):
        for a, b in zip(results, work(job), strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_with_a_model_each_share_the_weights():
    weights = {name: read_only(w) for name, w in random_weights(
        CONFIG, np.random.default_rng(0), 0.3).items()}

    def work(seed):
        rng = np.random.default_rng(seed)
        model = Llama(CONFIG, weights)
        model.kv_prefix = peft.PrefixTuning(2, 2, 4, 3, rng=rng)
        ids = rng.integers(0, 11, (4, 8))
        optimizer = AdamW(model.parameters(), 0.01)
        for _ in range(3):
            model.backward(cross_entropy(model.forward(ids), ids)[1])
            optimizer.step(model.gradients())
        return model.kv_prefix.prefix

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(work, range(8)))
    for seed, prefix in enumerate(threaded):
        np.testing.assert_array_equal(prefix, work(seed))
