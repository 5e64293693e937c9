"""The model against finite differences, and against itself: cache, masks, frozen weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llama import PROJECTIONS, Llama, LlamaConfig, Rotation, random_weights, rotary_frequencies
from llama_config import QK_NORMS, RopeScaling
from names import BOUNDARY, make_batch
from peft import Adapter, LoRALinear, PrefixTuning, PromptTuning
from training import cross_entropy

NAMES = ["anna", "bo", "mehmet"]
PLAIN = LlamaConfig(27, 16, 20, 2, 4, 4)
GROUPED = LlamaConfig(27, 16, 20, 2, 4, 2, rope_theta=500.0, tie_word_embeddings=False)
F64 = np.float64


def full(model, rng):
    model.set_trainable()


def lora(model, rng):
    for name, module in model.modules().items():
        if name.endswith(PROJECTIONS):
            model.replace(name, LoRALinear(module.weight, module.bias, 3, 6, rng=rng))


def houlsby(model, rng):
    for layer in model.layers:
        layer.after_attention = Adapter(16, 4, dtype=F64, rng=rng)
        layer.after_mlp = Adapter(16, 4, dtype=F64, rng=rng)


def parallel(model, rng):
    for layer in model.layers:
        layer.parallel_mlp = Adapter(16, 4, residual=False, scale=4.0, dtype=F64, rng=rng)


def prefix(model, rng):
    c = model.config
    model.kv_prefix = PrefixTuning(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, 5,
                                   dtype=F64, rng=rng)


def prompt(model, rng):
    model.soft_prompt = PromptTuning(16, 6, dtype=F64, rng=rng)


def everything(model, rng):
    for plug in (full, lora, houlsby, parallel, prefix, prompt):
        plug(model, rng)


METHODS = (full, lora, houlsby, parallel, prefix, prompt, everything)
CASES = pytest.mark.parametrize("plug", METHODS, ids=lambda f: f.__name__)
RELATIVES = {  # the head's width is not 16 / 4 where a family lets them differ
    "llama3": replace(GROUPED, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16)),
    "mistral": replace(GROUPED, model_type="mistral", sliding_window=32, head_dim=6),
    "qwen2": replace(GROUPED, model_type="qwen2"),
    "qwen3": replace(GROUPED, model_type="qwen3", head_dim=6),
    "smollm3": replace(PLAIN, model_type="smollm3", no_rope_layers=(0, 1))}
EVERY = {"plain": PLAIN, "grouped": GROUPED} | RELATIVES
CONFIGS = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


def make(config, plug=None, seed=0):
    """A random float64 model; trainable arrays moved away from their special starting values."""
    rng = np.random.default_rng(seed)
    weights = random_weights(config, rng, std=0.3, dtype=F64)
    for name in weights:  # at their start, one and zero, they would do nothing
        if name.endswith(("bias", "q_norm.weight", "k_norm.weight")):
            weights[name] += 0.2 * rng.standard_normal(weights[name].shape)
    model = Llama(config, weights)
    if plug is not None:
        plug(model, rng)
        for array in model.parameters().values():
            array += 0.2 * rng.standard_normal(array.shape)
    return model


# ------------------------------------------------------------------------------------ gradients


@CONFIGS
@CASES
def test_every_gradient_agrees_with_finite_differences(config, plug):
    model, rng = make(config, plug), np.random.default_rng(1)
    inputs, targets = make_batch(NAMES)
    _, grad = cross_entropy(model.forward(inputs), targets)
    model.backward(grad)
    gradients = model.gradients()
    assert gradients.keys() == model.parameters().keys()
    for name, array in model.parameters().items():
        step = 1e-6 * rng.standard_normal(array.shape)
        kept, losses = array.copy(), []
        for sign in (1, -1):
            array[...] = kept + sign * step
            losses.append(cross_entropy(model.forward(inputs), targets)[0])
        array[...] = kept
        numeric, exact = (losses[0] - losses[1]) / 2, np.sum(gradients[name] * step)
        # along a random direction; the second term is what rounding of the losses alone can do
        assert abs(numeric - exact) < 1e-5 * abs(exact) + 3e-15, name


def test_float32_stays_float32():
    rng = np.random.default_rng(0)
    model = Llama(PLAIN, random_weights(PLAIN, rng))
    model.set_trainable()
    model.layers[0].self_attn.q_proj = LoRALinear(model.layers[0].self_attn.q_proj.weight)
    model.kv_prefix, model.soft_prompt = PrefixTuning(2, 4, 4, 3), PromptTuning(16, 3)
    inputs, targets = make_batch(NAMES)
    logits = model.forward(inputs)
    _, grad = cross_entropy(logits, targets)
    model.backward(grad)
    assert {a.dtype for a in (logits, grad, *model.gradients().values())} == {np.dtype(np.float32)}


# ------------------------------------------------------------------------- what a token may see


@CONFIGS
@CASES
def test_a_later_token_does_not_change_earlier_logits(config, plug):
    model = make(config, plug)
    ids = make_batch(["abcdef"])[0]
    before = model.forward(ids)
    changed = ids.copy()
    changed[0, 4] = 20
    after = model.forward(changed)
    assert np.abs(after[:, :4] - before[:, :4]).max() < 1e-12
    assert np.abs(after[:, 4:] - before[:, 4:]).min(axis=-1).max() > 1e-6  # and does change these


@CASES
def test_filling_up_does_not_change_real_positions(plug):
    model = make(PLAIN, plug)
    alone, together = model.forward(make_batch(["bo"])[0]), model.forward(make_batch(NAMES)[0])
    assert np.allclose(alone[0], together[1, :3], rtol=0, atol=1e-12)


def test_rotation_is_a_complex_rotation_of_each_pair_by_its_token_s_angle():
    rng, heads, half, T = np.random.default_rng(0), 3, 4, 5
    angles = make(PLAIN).angles[7:7 + T, :1] * rng.random(half)  # (T, dh/2), any angles
    x = rng.standard_normal((2, T, heads, 2 * half))
    a, b = np.moveaxis(x.reshape(2, T, heads, 2, half), 3, 0)
    turned = (a + 1j * b) * np.exp(1j * angles)[:, None]  # (2, T, heads, dh/2)
    expected = np.stack([turned.real, turned.imag], axis=3).reshape(x.shape)
    rotation = Rotation(angles, np.float64)
    assert np.allclose(rotation.forward(x), expected, rtol=0, atol=1e-12)
    assert np.allclose(rotation.backward(rotation.forward(x)), x, rtol=0, atol=1e-12)


def test_angles_are_position_times_theta_to_the_minus_2j_over_dh():
    angles = make(GROUPED).angles  # dh = 4, theta = 500: Su et al., equation (15)
    assert angles.shape == (64, 2)
    for position, j in ((0, 0), (1, 0), (3, 1), (63, 1)):
        assert angles[position, j] == pytest.approx(position * 500.0 ** (-2 * j / 4), rel=1e-12)


def test_llama3_slows_what_turns_seldom_and_leaves_what_turns_often():
    config = LlamaConfig(27, 256, 20, 1, 1, 1, rope_theta=500_000.0)
    plain, slow = (rotary_frequencies(c) for c in (
        config, replace(config, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192))))
    wavelengths = 2 * np.pi / plain  # tokens; as published, 8192 / 4 and 8192 / 1 are the limits
    often, seldom = wavelengths < 2048, wavelengths > 8192
    assert (slow[often] == plain[often]).all() and often.sum() > 20
    assert np.allclose(slow[seldom], plain[seldom] / 8, rtol=1e-14) and seldom.sum() > 20
    between = (slow / plain)[~often & ~seldom]
    assert (np.diff(between) < 0).all() and 1 / 8 < between[-1] < between[0] < 1


def test_a_layer_that_does_not_rotate_sees_no_order():
    model = make(replace(PLAIN, num_hidden_layers=1, model_type="smollm3", no_rope_layers=(0,)))
    one, two = model.forward(np.array([[3, 5, 8, 9], [5, 8, 3, 9]]))[:, -1]
    assert np.allclose(one, two, rtol=0, atol=1e-12)


def test_an_input_may_be_as_long_as_the_window_and_no_longer():
    model = make(RELATIVES["mistral"])
    model.forward(np.zeros((1, 32), int))
    with pytest.raises(ValueError, match="^33 tokens .* 32$"):
        model.forward(np.zeros((1, 33), int))


def test_what_takes_the_place_of_a_bias_must_bring_one():
    model = make(RELATIVES["qwen2"])
    for name in ("q", "k", "v"):
        path = f"model.layers.1.self_attn.{name}_proj"
        module = model.modules()[path]
        with pytest.raises(ValueError, match=f"{path} adds a bias"):
            model.replace(path, LoRALinear(module.weight, lora_rank=2))
        before = model.forward(np.zeros((1, 3), int))
        model.replace(path, LoRALinear(module.weight, module.bias, 2))
        assert (model.forward(np.zeros((1, 3), int)) == before).all()
    assert model.weights().keys() == RELATIVES["qwen2"].weight_shapes().keys()


def test_norms_of_queries_and_keys_are_qwen3_s_alone():
    assert all(make(PLAIN).modules().get(f"model.layers.0.{name}") is None for name in QK_NORMS)
    with pytest.raises(ValueError, match="no module or slot is called .*q_norm"):
        make(PLAIN).replace("model.layers.0.self_attn.q_norm", None)
    model = make(RELATIVES["qwen3"], full)
    assert model.parameters()["model.layers.0.self_attn.q_norm.weight"].shape == (6,)


def test_prefix_is_visible_to_every_token_and_shifts_positions():
    model = make(PLAIN, prefix)
    ids = make_batch(["ab"])[0]
    before = model.forward(ids)
    model.kv_prefix.prefix[1, 1, 0] += 1.0  # one value of the last layer
    assert (np.abs(model.forward(ids) - before).max(axis=-1) > 1e-6).all()
    # zero keys and values are no identity: they take their share of the softmax (methods.md)
    model.kv_prefix.prefix[...] = 0
    zero = model.forward(ids)
    model.kv_prefix = None
    assert np.abs(model.forward(ids) - zero).max() > 1e-3


def test_soft_prompt_of_real_embeddings_is_the_same_as_real_tokens():
    model = make(PLAIN)
    ids = make_batch(["anna"])[0]  # (1, 5)
    expected = model.forward(ids)[:, 2:]
    model.soft_prompt = PromptTuning(16, 2, dtype=F64)
    model.soft_prompt.prompt[...] = model.embed_tokens.weight[ids[0, :2]]
    assert np.allclose(model.forward(ids[:, 2:]), expected, rtol=0, atol=1e-12)


def test_prefix_of_a_token_s_keys_and_values_is_the_same_as_the_token():
    model = make(GROUPED)
    ids = make_batch(["anna"])[0]
    expected = model.forward(ids)[:, 2:]
    cache = []
    model.forward(ids[:, :2], cache)
    prefix(model, None)
    model.kv_prefix = PrefixTuning(2, 2, 4, 2, dtype=F64)
    for i, (keys, values) in enumerate(cache):  # (1, 2, K, dh); position 0 and 1 already rotated
        model.kv_prefix.prefix[i] = keys[0], values[0]
    assert np.allclose(model.forward(ids[:, 2:]), expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------ cache, sampling


@CONFIGS
@CASES
def test_cache_computes_what_the_forward_without_cache_does(config, plug):
    model = make(config, plug)
    ids = make_batch(["abcdef", "uvwxyz"])[0]
    cache = []
    pieces = [model.forward(ids[:, a:b], cache) for a, b in ((0, 3), (3, 4), (4, 7))]
    assert np.allclose(np.concatenate(pieces, axis=1), model.forward(ids), rtol=0, atol=1e-12)


@CASES
def test_greedy_sampling_takes_the_likeliest_token_of_the_uncached_forward(plug):
    model = make(PLAIN, plug)
    start = make_batch(["ab", "uv"])[0]
    new = model.generate(start, 8, temperature=0)
    ids = np.concatenate([start, new], axis=1)
    expected = model.forward(ids[:, :-1]).argmax(axis=-1)[:, start.shape[1] - 1:]
    assert (new == expected).all()


def test_temperature_one_draws_from_the_models_distribution():
    model = make(PLAIN)
    start = np.zeros((20_000, 1), int)
    drawn = model.generate(start, 1, rng=np.random.default_rng(0))[:, 0]
    logits = model.forward(start[:1])[0, 0]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    counts = np.bincount(drawn, minlength=27)
    chi_square = np.sum((counts - len(start) * p) ** 2 / (len(start) * p))
    assert chi_square < 60  # 26 degrees of freedom: exceeded once in 6,000 fair draws


def test_what_follows_the_stop_is_filled_with_it():
    model = make(PLAIN)
    new = model.generate(np.zeros((50, 1), int), 12, stop=BOUNDARY, rng=np.random.default_rng(0))
    ended = np.cumsum(new == BOUNDARY, axis=1) > 0
    assert (new[ended] == BOUNDARY).all() and ended.any() and not ended[:, 0].all()


@CASES
def test_a_stop_cuts_sequences_and_changes_no_draw(plug):
    model, start = make(PLAIN, plug), np.zeros((20, 1), int)
    free = model.generate(start, 9, rng=np.random.default_rng(0))
    ended = np.cumsum(free == BOUNDARY, axis=1) > 0
    cut = model.generate(start, 9, stop=BOUNDARY, rng=np.random.default_rng(0))
    assert ended.any() and not ended.all(axis=0).any()  # some end, not all: nothing is cut short
    assert (cut == np.where(ended, BOUNDARY, free)).all()


def test_greedy_sampling_draws_no_random_number():
    rng = np.random.default_rng(0)
    make(PLAIN).generate(np.zeros((2, 1), int), 3, temperature=0, rng=rng)
    assert rng.random() == np.random.default_rng(0).random()


# ---------------------------------------------------------------------------- names and formats


def test_weights_have_hugging_face_names_and_slots_take_modules_by_name():
    model = make(GROUPED)
    model.set_trainable()
    assert model.parameters().keys() == GROUPED.weight_shapes().keys() == model.weights().keys()
    assert model.weights()["model.layers.1.mlp.down_proj.weight"].shape == (16, 20)
    assert all(ours is model.weights()[name] for name, ours in model.parameters().items())
    adapter = Adapter(16, 2)
    model.replace("model.layers.1.after_mlp", adapter)
    assert model.layers[1].after_mlp is adapter
    assert "model.layers.1.after_mlp.W_up" in model.parameters()
    with pytest.raises(ValueError, match="model.layers.1.self_attn.w_proj"):
        model.replace("model.layers.1.self_attn.w_proj", adapter)


@pytest.mark.parametrize("name", [
    "", "model", "layers", "config", "model.layers.0", "model.layers.9.mlp", "model.layers.-1.mlp",
    "model.layers.x.mlp", "model.layers.0.self_attn.q_proj.weight.x"])
def test_a_name_that_leads_nowhere_is_refused(name):
    with pytest.raises(ValueError, match="no module or slot is called"):
        make(PLAIN).replace(name, None)


def test_a_tied_output_layer_has_no_place_of_its_own():
    tied, untied = make(PLAIN), make(GROUPED)
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        tied.replace("lm_head", LoRALinear(tied.lm_head.weight, lora_rank=2))
    untied.replace("lm_head", LoRALinear(untied.lm_head.weight, lora_rank=2))
    assert untied.parameters().keys() == {"lm_head.A", "lm_head.B"}


@pytest.mark.parametrize("heads, message", [(0, "at least 1, got 0"), (-2, "at least 1, got -2")])
def test_a_number_of_heads_is_a_count(heads, message):
    with pytest.raises(ValueError, match=f"num_key_value_heads must be {message}"):
        LlamaConfig(27, 16, 20, 2, 4, heads)


def test_untrained_weights_have_the_standard_deviation_asked_for():
    weights = random_weights(LlamaConfig(50, 32, 64, 2, 4, 4), np.random.default_rng(0))
    for name, w in weights.items():
        assert w.dtype == np.float32
        assert (w == 1).all() if w.ndim == 1 else w.std() == pytest.approx(0.05, rel=0.1), name


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("ids, error, message", [
    (np.zeros((2, 3)), TypeError, "integer array, got float64"),
    ([[0, 1]], TypeError, "integer array, got list"),
    (np.zeros(3, int), ValueError, r"\(batch, time\)"),
    (np.zeros((2, 0), int), ValueError, "not empty"),
    (np.full((1, 2), 27), ValueError, "0 to 26, got 27"),
    (np.full((1, 2), -1), ValueError, "0 to 26, got -1"),
    (np.zeros((1, 65), int), ValueError, "^65 tokens .* 64$"),
])
def test_bad_ids_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        make(PLAIN).forward(ids)


def test_virtual_tokens_count_towards_the_longest_input():
    model = make(PLAIN, prefix)
    model.forward(np.zeros((1, 59), int))
    with pytest.raises(ValueError, match="60 tokens after 5"):
        model.forward(np.zeros((1, 60), int))


def test_bad_weights_are_refused():
    good = random_weights(PLAIN, np.random.default_rng(0))
    for name, bad, error in (("model.norm.weight", np.ones(3, np.float32), ValueError),
                             ("model.norm.weight", np.ones(16, int), TypeError),
                             ("model.norm.weight", np.full(16, np.nan), ValueError),
                             ("lm_head.weight", np.ones((27, 16)), ValueError)):
        with pytest.raises(error, match=name):
            Llama(PLAIN, good | {name: bad})
    with pytest.raises(ValueError, match="multiple of num_key_value_heads"):
        LlamaConfig(27, 16, 20, 2, 4, 3)


def test_backward_needs_a_forward_without_cache_and_a_fitting_gradient():
    model = make(PLAIN, full)
    with pytest.raises(RuntimeError, match="forward"):
        model.gradients()
    with pytest.raises(RuntimeError, match="forward without cache"):
        model.backward(np.zeros((1, 2, 27)))
    model.forward(np.zeros((1, 2), int))
    with pytest.raises(RuntimeError, match="Embedding has no gradient: call backward"):
        model.gradients()
    model.forward(np.zeros((1, 2), int), [])
    with pytest.raises(RuntimeError, match="forward without cache"):
        model.backward(np.zeros((1, 2, 27)))
    model.forward(np.zeros((1, 2), int))
    with pytest.raises(ValueError, match=r"\(1, 2, 27\), got \(1, 3, 27\)"):
        model.backward(np.zeros((1, 3, 27)))


def test_a_folder_of_hugging_face_files_is_a_model(tmp_path):
    from safetensors.numpy import save_file
    weights = random_weights(GROUPED, np.random.default_rng(0))
    (tmp_path / "config.json").write_text(json.dumps(GROUPED.to_hugging_face()))
    save_file(weights, tmp_path / "model.safetensors")
    for folder in (tmp_path, str(tmp_path)):
        loaded = Llama.load(folder)
        assert loaded.config == GROUPED
        assert all((loaded.weights()[name] == w).all() for name, w in weights.items())



@pytest.mark.parametrize("temperature", [-0.1, np.nan, np.inf])
def test_temperatures_that_make_no_sense_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be 0 or positive, got"):
        make(PLAIN).generate(np.zeros((1, 1), int), 1, temperature=temperature)


def test_sampling_ends_with_the_last_sequence_and_may_ask_for_nothing():
    model = make(PLAIN)
    start = np.zeros((3, 1), int)
    assert model.generate(start, 0).shape == (3, 0)
    greedy = model.generate(start[:1], 5, temperature=0)
    first = int(greedy[0, 0])
    assert model.generate(start, 5, temperature=0, stop=first).tolist() == [[first]] * 3


def test_heads_must_divide_the_width_into_even_parts():
    for d, heads in ((16, 3), (12, 4), (10, 4)):
        with pytest.raises(ValueError, match=f"even head width, got {d} and {heads} heads"):
            LlamaConfig(27, d, 20, 2, heads, heads)


def test_freezing_again_takes_every_weight_back():
    model = make(GROUPED, full)
    assert model.num_parameters() == sum(w.size for w in model.weights().values())
    model.set_trainable(False)
    assert model.parameters() == {} and model.num_parameters() == 0


def test_one_layer_is_a_model_too():
    model = make(LlamaConfig(27, 16, 20, 1, 4, 2))
    ids, cache = make_batch(["abc"])[0], []
    pieces = [model.forward(ids[:, :2], cache), model.forward(ids[:, 2:], cache)]
    assert np.allclose(np.concatenate(pieces, axis=1), model.forward(ids), rtol=0, atol=1e-12)
