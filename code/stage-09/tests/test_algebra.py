"""The algebra that the book teaches, as properties of random cases: merging, rank, order.

Everything is float64; TIGHT allows for sums taken in another order, and for nothing else.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peft
from llama import PROJECTIONS, Llama, LlamaConfig, random_weights
from names import IGNORE
from real_models import accounting
from training import cross_entropy

F64 = np.float64
TIGHT = dict(rtol=1e-9, atol=1e-9)
EXAMPLES = settings(deadline=None, max_examples=25)
CONFIG = LlamaConfig(11, 16, 12, 2, 4, 2, max_position_embeddings=32)

sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)
alphas = st.floats(0.01, 100)
pytestmark = pytest.mark.filterwarnings("ignore:rank")


def normal(rng, *shape):
    return rng.standard_normal(shape)


def randomized(method, rng):
    """Away from the start, at which an update is zero."""
    for array in method.parameters().values():
        array[...] = 0.4 * rng.standard_normal(array.shape)
    return method


# ------------------------------------------------------------------------------- LoRA's arithmetic


@EXAMPLES
@given(d_in=sizes, d_out=sizes, rank=sizes, alpha=alphas, seed=seeds)
def test_what_was_merged_can_be_unmerged(d_in, d_out, rank, alpha, seed):
    rng = np.random.default_rng(seed)
    W = normal(rng, d_out, d_in)
    layer = randomized(peft.LoRALayer(d_in, d_out, rank, alpha, dtype=F64), rng)
    merged = layer.merge_weights(W)
    layer.B *= -1  # the update with the opposite sign takes it out again
    np.testing.assert_allclose(layer.merge_weights(merged), W, **TIGHT)


@EXAMPLES
@given(d_in=sizes, d_out=sizes, rank=sizes, alpha=alphas, seed=seeds)
def test_a_full_update_of_rank_r_is_a_lora_of_rank_r(d_in, d_out, rank, alpha, seed):
    """Both ways: every matrix of rank r factors into A and B, and every A and B has rank r."""
    rng = np.random.default_rng(seed)
    W, x, g = normal(rng, d_out, d_in), normal(rng, 3, d_in), normal(rng, 3, d_out)
    rank = min(rank, d_in, d_out)
    dense = normal(rng, d_out, rank) @ normal(rng, rank, d_in)  # any update of rank r
    left, values, right = np.linalg.svd(dense, full_matrices=False)
    layer = peft.LoRALayer(d_in, d_out, rank, alpha, dtype=F64)
    layer.A[...] = right[:rank]
    layer.B[...] = left[:, :rank] * values[:rank] / layer.scaling
    np.testing.assert_allclose(layer.forward(x, W), x @ (W + dense).T, **TIGHT)
    np.testing.assert_allclose(layer.backward(g), g @ (W + dense), **TIGHT)
    randomized(layer, rng)
    assert np.linalg.matrix_rank(layer.delta_weight()) == rank


@EXAMPLES
@given(d_in=sizes, d_out=sizes, rank=sizes, alpha=alphas, times=alphas, seed=seeds)
def test_the_update_is_linear_in_alpha_and_in_each_factor(d_in, d_out, rank, alpha, times, seed):
    x, W = (normal(np.random.default_rng(seed), *s) for s in ((3, d_in), (d_out, d_in)))

    def layer(alpha):
        made = peft.LoRALayer(d_in, d_out, rank, alpha, dtype=F64)
        return randomized(made, np.random.default_rng(seed))

    once, scaled = layer(alpha), layer(alpha * times)
    update = once.forward(x, W) - x @ W.T
    room = dict(rtol=1e-9, atol=1e-10 * (1 + times * alpha))
    np.testing.assert_allclose(scaled.forward(x, W) - x @ W.T, times * update, **room)
    np.testing.assert_allclose(scaled.delta_weight(), times * once.delta_weight(), **room)
    for factor in "AB":
        scaled = layer(alpha)
        getattr(scaled, factor)[...] *= times
        np.testing.assert_allclose(scaled.delta_weight(), times * once.delta_weight(), **room)


@EXAMPLES
@given(seed=seeds, rank=st.integers(1, 5))
def test_a_larger_rank_holds_the_smaller_one(seed, rank):
    """Rows of A that meet zero columns of B do nothing; alpha grows with the rank to keep s."""
    rng = np.random.default_rng(seed)
    small = randomized(peft.LoRALayer(6, 5, rank, 3.0, dtype=F64), rng)
    large = randomized(peft.LoRALayer(6, 5, rank + 2, 3.0 * (rank + 2) / rank, dtype=F64), rng)
    large.A[:rank], large.B[:, :rank], large.B[:, rank:] = small.A, small.B, 0
    np.testing.assert_allclose(large.delta_weight(), small.delta_weight(), **TIGHT)


# -------------------------------------------------------------------------------- order of targets


@EXAMPLES
@given(order=st.permutations("qkvo"), count=st.integers(1, 4), seed=seeds)
def test_the_order_of_targets_does_not_matter(order, count, seed):
    """Neither which layers are wrapped nor the numbers that they start from."""
    weights = [normal(np.random.default_rng(seed), 6, 6) for _ in range(4)]
    one, other = (peft.apply_lora_to_attention(*weights, rank=2, target_modules=targets,
                                               rng=np.random.default_rng(seed))
                  for targets in (order[:count], sorted(order[:count])))
    for name in "qkvo":
        assert isinstance(one[name], peft.LoRALinear) == (name in order[:count])
        if name in order[:count]:
            np.testing.assert_array_equal(one[name].lora.A, other[name].lora.A)
        else:
            assert one[name] is other[name] is weights["qkvo".index(name)]


@EXAMPLES
@given(order=st.permutations(PROJECTIONS), count=st.integers(1, 7), seed=seeds)
def test_a_model_does_not_care_in_which_order_it_is_wrapped(order, count, seed):
    made = {path: normal(np.random.default_rng(seed + i), 2, 100)
            for i, path in enumerate(PROJECTIONS)}
    ids = np.random.default_rng(seed).integers(0, 11, (2, 5))
    results = []
    for targets in (order[:count], sorted(order[:count])):
        model = Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(seed), 0.3, F64))
        for path in targets:
            for i in range(2):
                name = f"model.layers.{i}.{path}"
                linear = peft.LoRALinear(model.modules()[name].weight, None, 2)
                for array in linear.parameters().values():
                    array[...] = 0.1 * made[path][i, :1] * np.cos(np.arange(array.size)
                                                               ).reshape(array.shape)
                model.replace(name, linear)
        logits = model.forward(ids)
        model.backward(np.sin(logits))
        results.append((logits, model.gradients()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert list(results[0][1]) == list(results[1][1])  # the model's order, not the caller's
    for name, gradient in results[0][1].items():
        np.testing.assert_array_equal(gradient, results[1][1][name])


# ------------------------------------------------------------------------- batch, padding, prefixes


def lora(rng):
    return peft.LoRALinear(normal(rng, 6, 6), normal(rng, 6), 2, rng=rng)


LAYERS = {"lora": lora, "adapter": lambda rng: peft.Adapter(6, 3, dtype=F64, rng=rng),
          "prompt": lambda rng: peft.PromptTuning(6, 3, dtype=F64, rng=rng),
          "prefix": lambda rng: peft.PrefixTuning(1, 2, 3, 4, dtype=F64, rng=rng)}


def run(method, x, g):
    """Output, gradient of the input, gradients of the parameters; each sequence with its own g."""
    if isinstance(method, peft.PrefixTuning):
        heads = x.reshape(*x.shape[:2], 2, 3)
        out = np.stack(method.forward(heads, -heads, 0), axis=1)  # (B, 2, P+T, 2, 3)
        scored = g[:, None, :out.shape[2], :].reshape(len(x), 1, -1, 2, 3) * [[[[[1]]], [[[3]]]]]
        back = np.stack(method.backward(scored[:, 0], scored[:, 1], 0), axis=1)
    else:
        out = method.forward(x)
        back = method.backward(g[:, :out.shape[1]])
    return out, back, method.gradients()


@EXAMPLES
@given(method=st.sampled_from(list(LAYERS)), order=st.permutations(range(4)), seed=seeds)
def test_a_permuted_batch_gives_the_permuted_result(method, order, seed):
    rng = np.random.default_rng(seed)
    layer = randomized(LAYERS[method](rng), rng)
    x, g = normal(rng, 4, 3, 6), normal(rng, 4, 7, 6)
    out, back, gradients = run(layer, x, g)
    out_2, back_2, gradients_2 = run(layer, x[order], g[order])
    np.testing.assert_allclose(out_2, out[order], **TIGHT)
    np.testing.assert_allclose(back_2, back[order], **TIGHT)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_2[name], gradient, **TIGHT)


@EXAMPLES
@given(method=st.sampled_from(list(LAYERS)), cut=st.integers(1, 3), seed=seeds)
def test_gradients_of_a_batch_are_the_sum_over_its_parts(method, cut, seed):
    rng = np.random.default_rng(seed)
    layer = randomized(LAYERS[method](rng), rng)
    x, g = normal(rng, 4, 3, 6), normal(rng, 4, 7, 6)
    parts = [{name: gradient.copy() for name, gradient in run(layer, x[part], g[part])[2].items()}
             for part in (np.s_[:cut], np.s_[cut:])]
    for name, whole in run(layer, x, g)[2].items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], whole, **TIGHT)


def plug(model, method, rng):
    """One of the methods in the model's slots, with trained-looking numbers."""
    c = model.config
    if method == "lora":
        for name, module in model.modules().items():
            if name.endswith(("q_proj", "down_proj")):
                model.replace(name, peft.LoRALinear(module.weight, None, 2))
    elif method == "adapter":
        for layer in model.layers:
            layer.after_attention = peft.Adapter(16, 3, dtype=F64)
            layer.parallel_mlp = peft.Adapter(16, 3, residual=False, dtype=F64)
    elif method == "prefix":
        model.kv_prefix = peft.PrefixTuning(c.num_hidden_layers, c.num_key_value_heads,
                                            c.head_dim, 5, dtype=F64)
    elif method == "prompt":
        model.soft_prompt = peft.PromptTuning(16, 5, dtype=F64)
    else:
        model.set_trainable()
    for array in model.parameters().values():
        array += 0.3 * rng.standard_normal(array.shape)
    return model


def llama(method, seed):
    rng = np.random.default_rng(seed)
    return plug(Llama(CONFIG, random_weights(CONFIG, rng, 0.3, F64)), method, rng)


def step(model, ids, targets):
    """Loss, logits and gradients of one training step."""
    logits = model.forward(ids)
    loss, grad = cross_entropy(logits, targets)
    model.backward(grad)
    return loss, logits, {name: gradient.copy() for name, gradient in model.gradients().items()}


MODEL_METHODS = st.sampled_from(["full", "lora", "adapter", "prefix", "prompt"])


@EXAMPLES
@given(method=MODEL_METHODS, order=st.permutations(range(4)), seed=seeds)
def test_the_model_permutes_with_its_batch(method, order, seed):
    model, rng = llama(method, seed), np.random.default_rng(seed)
    ids, targets = rng.integers(0, 11, (2, 4, 6))
    loss, logits, gradients = step(model, ids, targets)
    loss_2, logits_2, gradients_2 = step(model, ids[order], targets[order])
    assert abs(loss - loss_2) < 1e-12
    np.testing.assert_allclose(logits_2, logits[order], **TIGHT)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_2[name], gradient, **TIGHT)


@EXAMPLES
@given(method=MODEL_METHODS, extra=st.integers(1, 6), filler=st.integers(0, 10), seed=seeds)
def test_filling_up_changes_neither_loss_nor_any_gradient(method, extra, filler, seed):
    """Whatever fills up: only its targets, which are ignored, keep it out."""
    model, rng = llama(method, seed), np.random.default_rng(seed)
    ids, targets = rng.integers(0, 11, (2, 3, 5))
    targets[0, 3:] = IGNORE  # one sequence is shorter than the others anyhow
    loss, logits, gradients = step(model, ids, targets)
    fill = np.full((3, extra), filler)
    loss_2, logits_2, gradients_2 = step(model, np.hstack([ids, fill]),
                                         np.hstack([targets, np.full_like(fill, IGNORE)]))
    assert abs(loss - loss_2) < 1e-12
    np.testing.assert_allclose(logits_2[:, :5], logits, **TIGHT)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_2[name], gradient, **TIGHT)


@EXAMPLES
@given(short=st.integers(1, 4), more=st.integers(1, 4), seed=seeds)
def test_two_prefixes_one_after_the_other_are_one_longer_prefix(short, more, seed):
    """In the layer: prepending the tail, then the head, equals prepending both at once."""
    rng = np.random.default_rng(seed)
    k, v = normal(rng, 2, 3, 2, 4), normal(rng, 2, 3, 2, 4)
    head, tail, both = (randomized(peft.PrefixTuning(2, 2, 4, P, dtype=F64), rng)
                        for P in (short, more, short + more))
    both.prefix[...] = np.concatenate([head.prefix, tail.prefix], axis=2)
    for layer in range(2):
        once = both.forward(k, v, layer)
        for a, b in zip(once, head.forward(*tail.forward(k, v, layer), layer), strict=True):
            np.testing.assert_array_equal(a, b)
        g = [normal(rng, *a.shape) for a in once]
        back = both.backward(*g, layer)
        for a, b in zip(back, tail.backward(*head.backward(*g, layer), layer), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(
            both.prefix_grad[layer],
            np.concatenate([head.prefix_grad[layer], tail.prefix_grad[layer]], axis=1), **TIGHT)


@EXAMPLES
@given(P=st.integers(1, 5), order=st.permutations(range(5)), seed=seeds)
def test_the_model_sees_a_prefix_as_a_set_and_a_prompt_as_a_sequence(P, order, seed):
    """A prefix is not rotated, so its rows may change places; a prompt's rows may not."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 11, (2, 4))
    model = llama("prefix", seed)
    before = model.forward(ids)
    model.kv_prefix.prefix[...] = model.kv_prefix.prefix[:, :, list(order)]
    np.testing.assert_allclose(model.forward(ids), before, **TIGHT)
    model = llama("prompt", seed)
    before = model.forward(ids)
    model.soft_prompt.prompt[...] = model.soft_prompt.prompt[list(order)]
    same = np.allclose(model.forward(ids), before, rtol=0, atol=1e-9)
    assert same == (order == list(range(5)))


class InFront:
    """Two prefixes in one slot: all that the model asks of a prefix."""

    def __init__(self, head, tail):
        self.head, self.tail = head, tail
        self.prefix_length = head.prefix_length + tail.prefix_length

    def forward(self, k, v, layer):
        return self.head.forward(*self.tail.forward(k, v, layer), layer)

    def backward(self, k, v, layer):
        return self.tail.backward(*self.head.backward(k, v, layer), layer)

    def parameters(self):
        return {}

    gradients = parameters


@EXAMPLES
@given(short=st.integers(1, 4), more=st.integers(1, 4), seed=seeds)
def test_the_first_rows_of_a_longer_prefix_act_alike_in_the_model(short, more, seed):
    """The longer prefix's first rows get the gradients that they get as a prefix of their own."""
    rng = np.random.default_rng(seed)
    model, (ids, targets) = llama("none", seed), rng.integers(0, 11, (2, 2, 4))
    head, tail, both = (randomized(peft.PrefixTuning(2, 2, 4, P, dtype=F64), rng)
                        for P in (short, more, short + more))
    both.prefix[...] = np.concatenate([head.prefix, tail.prefix], axis=2)
    results = []
    for filled in (both, InFront(head, tail)):
        model.kv_prefix = filled
        results.append(step(model, ids, targets)[1])
    np.testing.assert_allclose(*results, **TIGHT)
    np.testing.assert_allclose(both.prefix_grad[:, :, :short], head.prefix_grad, **TIGHT)
    np.testing.assert_allclose(both.prefix_grad[:, :, short:], tail.prefix_grad, **TIGHT)


@EXAMPLES
@given(short=st.integers(1, 4), more=st.integers(1, 4), seed=seeds)
def test_two_prompts_one_after_the_other_are_one_longer_prompt(short, more, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, 2, 3, 5)
    head, tail, both = (randomized(peft.PromptTuning(5, P, dtype=F64), rng)
                        for P in (short, more, short + more))
    both.prompt[...] = np.concatenate([head.prompt, tail.prompt])
    out = both.forward(x)
    np.testing.assert_array_equal(head.forward(tail.forward(x)), out)
    g = normal(rng, *out.shape)
    np.testing.assert_array_equal(tail.backward(head.backward(g)), both.backward(g))
    np.testing.assert_allclose(np.concatenate([head.prompt_grad, tail.prompt_grad]),
                               both.prompt_grad, **TIGHT)


# ------------------------------------------------------------------ counts, and the arrays counted

configs = st.builds(
    lambda kv, group, half, ff, layers, vocab, tied: LlamaConfig(
        vocab, 2 * half * kv * group, ff, layers, kv * group, kv, tie_word_embeddings=tied),
    kv=st.integers(1, 3), group=st.integers(1, 3), half=st.integers(1, 3), ff=st.integers(1, 20),
    layers=st.integers(1, 3), vocab=st.integers(2, 30), tied=st.booleans())
ALL = [path.split(".")[-1] for path in PROJECTIONS]
targets = st.lists(st.sampled_from(ALL), min_size=1, max_size=7, unique=True)


def allocate(config):
    """The model that accounting.py reads, and the arrays of the same configuration."""
    rng = np.random.default_rng(0)
    return (accounting.read_model(config.to_hugging_face()),
            Llama(config, random_weights(config, rng)))


def wrap(model, names, rank):
    for name, module in model.modules().items():
        if name.split(".")[-1] in names:
            model.replace(name, peft.LoRALinear(module.weight, None, rank))


def shapes(arrays, outer=""):
    return {outer + name: array.shape for name, array in arrays.items()}


@EXAMPLES
@given(config=configs)
def test_full_fine_tuning_counts_the_arrays_of_the_model(config):
    read, model = allocate(config)
    model.set_trainable()
    counted = accounting.count_full(read)
    assert shapes(model.parameters()) == dict(counted.tensors)
    assert counted.trainable == counted.total == model.num_parameters() == read.num_parameters


@EXAMPLES
@given(config=configs, names=targets, rank=st.integers(1, 4))
def test_lora_counts_the_arrays_it_makes_and_names_them_as_peft_does(config, names, rank):
    read, model = allocate(config)
    wrap(model, names, rank)
    counted = accounting.count_lora(read, rank, names)
    made = {f"base_model.model.{name[:-1]}lora_{name[-1]}.weight": array.shape
            for name, array in model.parameters().items()}
    assert made == dict(counted.tensors)
    assert counted.trainable == counted.stored == model.num_parameters()
    assert counted.total == sum(w.size for w in model.weights().values()) + counted.trainable


@EXAMPLES
@given(config=configs, m=st.integers(1, 9), P=st.integers(1, 9),
       style=st.sampled_from(["houlsby", "pfeiffer", "parallel"]))
def test_adapters_prefixes_and_prompts_count_the_arrays_they_make(config, m, P, style):
    read, model = allocate(config)
    d, slots = config.hidden_size, {"houlsby": ("after_attention", "after_mlp"),
                                    "pfeiffer": ("after_mlp",), "parallel": ("parallel_mlp",)}
    for layer in model.layers:
        for slot in slots[style]:
            setattr(layer, slot, peft.Adapter(d, m, residual=style != "parallel"))
    counted = accounting.count_adapters(read, m, style, biases=False)
    assert counted.trainable == counted.stored == model.num_parameters()
    with_biases = accounting.count_adapters(read, m, style)
    assert with_biases.trainable - counted.trainable == (
        sum(sum(array.shape[1:]) for array in model.parameters().values()))  # m, and d, each
    model = allocate(config)[1]
    model.kv_prefix = peft.PrefixTuning(config.num_hidden_layers, config.num_key_value_heads,
                                        config.head_dim, P)
    assert accounting.count_prefix(read, P).trainable == model.num_parameters()
    model.kv_prefix, model.soft_prompt = None, peft.PromptTuning(d, P)
    assert accounting.count_prompt(read, P).trainable == model.num_parameters()


@EXAMPLES
@given(config=configs, names=targets, rank=st.integers(1, 4), cut=st.integers(0, 7))
def test_counts_are_additive(config, names, rank, cut):
    """Over targets, layers, ranks and virtual tokens; and over the slots of one model."""
    read, model = allocate(config)

    def count(*arguments, **options):
        return accounting.count_lora(read, *arguments, **options).trainable

    whole = count(rank, names)
    assert whole == sum(count(rank, [name]) for name in names)
    assert whole == sum(count(rank, names, layers=i) for i in range(config.num_hidden_layers))
    assert whole == rank * count(1, names)
    parts = [part for part in (names[:cut], names[cut:]) if part]
    assert whole == sum(count(rank, part) for part in parts)
    for counter in (accounting.count_prefix, accounting.count_prompt):
        assert counter(read, rank + 5).trainable == (
            counter(read, rank).trainable + counter(read, 5).trainable)
    wrap(model, names, rank)
    model.soft_prompt = peft.PromptTuning(config.hidden_size, rank)
    assert model.num_parameters() == whole + accounting.count_prompt(read, rank).trainable
    full = accounting.count_full(read)
    one, two = (accounting.read_model(replace(config, num_hidden_layers=n).to_hugging_face())
                for n in (config.num_hidden_layers + 1, config.num_hidden_layers + 2))
    assert one.num_parameters - full.total == two.num_parameters - one.num_parameters


@EXAMPLES
@given(config=configs, names=targets, rank=st.integers(1, 4))
def test_the_bill_is_the_bytes_of_the_arrays(config, names, rank):
    """In float32: frozen weights, trainable weights, their gradients, AdamW's two states."""
    from training import AdamW
    read, model = allocate(config)
    frozen = sum(w.nbytes for w in model.weights().values())
    wrap(model, names, rank)
    ids = np.zeros((1, 3), int)
    model.backward(model.forward(ids))
    items = accounting.memory_bill(accounting.count_lora(read, rank, names), base="float32").items
    assert {item.label: item.bytes for item in items} == {
        "frozen weights": frozen,
        "trainable weights": sum(a.nbytes for a in model.parameters().values()),
        "gradients": sum(a.nbytes for a in model.gradients().values()),
        "optimizer state": AdamW(model.parameters()).nbytes()}
