"""Loss, optimizer and loop; and that frozen means frozen."""

import inspect

import numpy as np
import pytest

from llama import Llama, LlamaConfig, random_weights
from names import IGNORE, batches, load_names
from peft import Adapter, LoRALinear, PrefixTuning, PromptTuning
from training import (
    AdamW,
    ProgressBar,
    Recorder,
    clip_gradients,
    cosine_schedule,
    cross_entropy,
    evaluate,
    fit,
)

CONFIG = LlamaConfig(27, 16, 20, 2, 4, 2)


def make(seed=0, method="lora"):
    rng = np.random.default_rng(seed)
    model = Llama(CONFIG, random_weights(CONFIG, rng))
    if method == "lora":
        for layer in model.layers:
            layer.mlp.up_proj = LoRALinear(layer.mlp.up_proj.weight, lora_rank=2, rng=rng)
    elif method == "adapter":
        for layer in model.layers:
            layer.after_mlp = Adapter(16, 2, rng=rng)
    elif method == "prefix":
        model.kv_prefix = PrefixTuning(2, 2, 4, 3, rng=rng)
    elif method == "prompt":
        model.soft_prompt = PromptTuning(16, 3, model.embed_tokens.weight, rng=rng)
    elif method == "full":
        model.set_trainable()
    return model


def train(model, steps=8, seed=0, **options):
    data = batches(load_names("turkish", "train"), 16, np.random.default_rng(seed))
    return fit(model, data, steps=steps, lr=0.01, warmup=2, **options)


# ----------------------------------------------------------------------------------------- loss


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    loss, _ = cross_entropy(np.zeros((2, 3, 27)), np.ones((2, 3), int))
    assert loss == pytest.approx(np.log(27), abs=1e-12)


def test_loss_is_the_mean_over_scored_tokens_and_the_gradient_is_its_derivative():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((2, 3, 5)), rng.integers(0, 5, (2, 3))
    targets[0, 1:] = IGNORE
    loss, grad = cross_entropy(logits, targets)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    by_hand = [-np.log(p[i, j, targets[i, j]]) for i, j in np.argwhere(targets != IGNORE)]
    assert len(by_hand) == 4 and loss == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert (grad[0, 1:] == 0).all()
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-6
        numeric = (cross_entropy(logits + step, targets)[0]
                   - cross_entropy(logits - step, targets)[0]) / 2e-6
        assert grad[index] == pytest.approx(numeric, abs=1e-9)


def test_huge_logits_do_not_overflow():
    loss, grad = cross_entropy(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert loss == 1e4 and np.isfinite(grad).all()


@pytest.mark.parametrize("targets, message", [
    (np.zeros((2, 2), int), "must have shape"), (np.full((2, 3), IGNORE), "every target"),
    (np.full((2, 3), 5), "0 to 4"), (np.full((2, 3), -1), "0 to 4"),
])
def test_bad_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(np.zeros((2, 3, 5)), targets)


def test_logits_without_a_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"^logits must have shape \(..., any\), got \(\)"):
        cross_entropy(np.zeros(()), np.zeros((), int))


# ------------------------------------------------------------------------------------ optimizer


def test_adamw_follows_the_published_algorithm():
    """Algorithm 2 of Loshchilov and Hutter, written out in its own order for one scalar."""
    w = {"w": np.array([1.0])}
    optimizer = AdamW(w, 0.1, weight_decay=0.3)
    theta, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate((0.5, -2.0, 0.1), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** t), v / (1 - 0.999 ** t)
        theta -= 0.1 * (m_hat / (v_hat ** 0.5 + 1e-8) + 0.3 * theta)
        optimizer.step({"w": np.array([g])})
        assert w["w"][0] == pytest.approx(theta, rel=1e-12)
    assert optimizer.nbytes() == 2 * w["w"].nbytes


def test_clipping_scales_the_joint_norm_and_reports_the_norm_before():
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    assert clip_gradients(gradients, 10.0) == 5.0 and gradients["b"][0] == 4.0
    assert clip_gradients(gradients, 1.0) == 5.0
    assert np.allclose([*gradients["a"], *gradients["b"]], [0.6, 0, 0.8])
    with pytest.raises(FloatingPointError, match="diverged"):
        clip_gradients({"a": np.array([np.nan])}, 1.0)
    zero = {"a": np.zeros(2)}
    assert clip_gradients(zero, 0.0) == 0.0 and (zero["a"] == 0).all()  # no division by the norm


@pytest.mark.parametrize("max_norm", [-1.0, float("nan")])
def test_a_norm_that_would_turn_gradients_round_is_refused(max_norm):
    with pytest.raises(ValueError, match="max_norm must not be negative"):
        clip_gradients({"a": np.ones(2)}, max_norm)


def test_an_infinite_norm_measures_and_scales_nothing():
    gradients = {"a": np.full(4, 1e6)}
    assert clip_gradients(gradients, np.inf) == 2e6
    assert (gradients["a"] == 1e6).all()


def test_one_name_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match=r"got the string 'anna'; write \['anna'\]"):
        evaluate(make(), "anna")


def test_schedule_rises_to_the_peak_and_falls_to_zero():
    rates = [cosine_schedule(step, 100, 0.5, 10) for step in range(100)]
    assert np.allclose(rates[:10], 0.05 * np.arange(1, 11))
    assert max(rates) == rates[10] == 0.5 and rates[55] == pytest.approx(0.25)
    assert np.all(np.diff(rates[10:]) < 0) and rates[-1] < 1e-3
    for warmup in (0, 10, 99):  # after the last step nothing is left, however late the peak
        assert cosine_schedule(100, 100, 0.5, warmup) == pytest.approx(0, abs=1e-12)


# ----------------------------------------------------------------------------------------- loop


@pytest.mark.parametrize("method", ["lora", "adapter", "prefix", "prompt"])
def test_frozen_weights_are_bit_identical_and_trainable_ones_moved(method):
    model = make(method=method)
    frozen = {name: w.tobytes() for name, w in model.weights().items()}
    trainable = {name: a.copy() for name, a in model.parameters().items()}
    train(model, weight_decay=0.5)
    assert {name: w.tobytes() for name, w in model.weights().items()} == frozen
    assert all((a != trainable[name]).any() for name, a in model.parameters().items())


def test_same_seed_same_result():
    first, second, other = make(), make(), make()
    train(first), train(second), train(other, seed=1)
    for name, array in first.parameters().items():
        assert array.tobytes() == second.parameters()[name].tobytes()
        assert array.tobytes() != other.parameters()[name].tobytes()


def test_training_learns():
    model, held_out = make(method="full"), load_names("turkish", "validation")
    before = evaluate(model, held_out)
    train(model, steps=60)
    assert evaluate(model, held_out) < before - 0.3


def test_evaluation_weighs_every_character_the_same():
    model, listed = make(), ["anna", "bo", "mehmet", "ayse"]
    characters = [len(name) + 1 for name in listed]
    by_name = [evaluate(model, [name]) for name in listed]
    expected = np.average(by_name, weights=characters)
    for size in (1, 3, 64):
        assert evaluate(model, listed, batch_size=size) == pytest.approx(expected, rel=1e-5)


def test_subscribers_hear_every_step_and_can_end_the_training():
    model, recorder, heard = make(), Recorder(), []
    train(model, evaluations={"bo": ["bo"]}, every=3,
          callbacks=[recorder, heard.append, ProgressBar()])
    assert [event.step for event in heard] == list(range(9))
    assert recorder.steps == [0, 3, 6, 8] and len(recorder.losses["bo"]) == 4
    assert len(recorder.batch_losses) == 8 and heard[0].loss is None
    assert recorder.losses["bo"][-1] == evaluate(model, ["bo"])
    heard.clear()
    train(model, callbacks=[heard.append, lambda event: event.step == 2])
    assert [event.step for event in heard] == [0, 1, 2]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="no trainable parameters"):
        train(make(method="none"))
    with pytest.raises(ValueError, match="lr must be .*positive, got -1"):
        AdamW({"w": np.ones(1)}, -1)
    with pytest.raises(ValueError, match="got 0, 50, 2"):
        train(make(), steps=0)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(make(), [])


def test_a_callback_may_end_the_training_before_it_begins():
    model = make()
    before = {name: a.copy() for name, a in model.parameters().items()}
    optimizer = train(model, callbacks=[lambda event: True])
    assert optimizer.steps == 0
    assert all((a == before[name]).all() for name, a in model.parameters().items())


@pytest.mark.parametrize("options", [{"every": 0}, {"warmup": -1}, {"steps": 0}])
def test_counts_of_the_loop_are_checked(options):
    data = batches(load_names("turkish", "train"), 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="steps and every must be at least 1 and warmup at least"):
        fit(make(), data, **({"steps": 1, "lr": 0.1} | options))


def test_one_step_without_warm_up_evaluated_every_time_is_a_run():
    data = batches(load_names("turkish", "train"), 4, np.random.default_rng(0))
    assert fit(make(), data, steps=1, lr=0.1, warmup=0, every=1).steps == 1


def test_events_carry_the_numbers_of_their_step():
    heard = []
    data = batches(load_names("turkish", "train"), 16, np.random.default_rng(0))
    fit(make(), data, steps=4, lr=0.01, warmup=2, max_norm=1e-3, callbacks=[heard.append])
    assert [event.lr for event in heard[1:]] == [cosine_schedule(s, 4, 0.01, 2) for s in range(4)]
    assert heard[0].lr is heard[0].loss is heard[0].grad_norm is None
    assert all(event.grad_norm > 1e-3 and event.steps == 4 for event in heard[1:])
    assert all(event.evaluated is None for event in heard)


def test_a_schedule_of_nothing_but_warm_up_is_no_division_by_zero():
    assert [cosine_schedule(s, 2, 1.0, 2) for s in range(3)] == [0.5, 1.0, 1.0]
    assert cosine_schedule(0, 1, 1.0, 0) == 1.0


@pytest.mark.parametrize("lr", [0, np.nan, np.inf])
def test_learning_rates_that_make_no_sense_are_refused(lr):
    with pytest.raises(ValueError, match="lr must be .*positive"):
        AdamW({"w": np.ones(1)}, lr)


def test_defaults_are_pytorchs_and_the_recorded_runs():
    """torch.optim.AdamW's, but without decay; the loop's are those of every recorded run."""
    def defaults(function):
        return {name: p.default for name, p in inspect.signature(function).parameters.items()
                if p.default is not p.empty}

    assert defaults(AdamW) == {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    assert defaults(fit) == {"warmup": 20, "weight_decay": 0.0, "max_norm": 1.0,
                             "evaluations": None, "every": 50, "callbacks": ()}


@pytest.mark.parametrize("shape", [(1,), (1, 3), ()])
def test_a_gradient_of_another_shape_is_not_stretched(shape):
    w = {"w": np.zeros(3)}
    optimizer = AdamW(w)
    with pytest.raises(ValueError, match=r"gradient of w must have shape \(3\), got"):
        optimizer.step({"w": np.ones(shape)})
    assert not w["w"].any() and optimizer.steps == 0


@pytest.mark.parametrize("lr", [np.nan, np.inf, -0.1])
def test_a_step_of_a_rate_that_makes_no_sense_changes_nothing(lr):
    w = {"w": np.zeros(3)}
    with pytest.raises(ValueError, match=f"lr must be .*got {lr}"):
        AdamW(w).step({"w": np.ones(3)}, lr)
    assert not w["w"].any()
    AdamW(w, betas=(0, 0)).step({"w": np.ones(3)}, 0.0)  # the end of a schedule


@pytest.mark.parametrize("betas, named", [
    ((1.0, 0.9), r"betas\[0\].* 1.0"), ((0.9, 1), r"betas\[1\]"), ((-0.1, 0.9), r"betas\[0\]"),
    ((0.9, np.nan), "nan")])
def test_averages_that_would_divide_by_zero_are_refused(betas, named):
    with pytest.raises(ValueError, match=named):
        AdamW({"w": np.ones(1)}, betas=betas)


def test_data_that_end_too_early_are_named_and_end_no_loop_of_the_caller():
    data = [(np.zeros((1, 2), int), np.zeros((1, 2), int))] * 2
    with pytest.raises(ValueError, match="data ended after 2 of 3 steps"):
        fit(make(), iter(data), steps=3, lr=0.1)


def test_each_setting_of_adamw_has_its_effect():
    """Against the algorithm for one scalar, with settings that are nobody's default."""
    w = {"w": np.array([2.0])}
    optimizer = AdamW(w, 5.0, betas=(0.5, 0.8), eps=0.3, weight_decay=0.1)
    theta, m, v = 2.0, 0.0, 0.0
    for t, (g, lr) in enumerate(((0.5, 0.2), (-2.0, 0.1)), start=1):
        m, v = 0.5 * m + 0.5 * g, 0.8 * v + 0.2 * g * g
        theta -= lr * (m / (1 - 0.5 ** t) / ((v / (1 - 0.8 ** t)) ** 0.5 + 0.3) + 0.1 * theta)
        optimizer.step({"w": np.array([g])}, lr)
        assert w["w"][0] == pytest.approx(theta, rel=1e-12)
    with pytest.raises(KeyError):
        optimizer.step({})


def test_a_bar_shows_steps_and_losses():
    bar = ProgressBar("mine")
    train(make(), steps=3, evaluations={"bo": ["bo"]}, every=2, callbacks=[bar])
    assert bar.bar.n == bar.bar.total == 3 and bar.bar.desc.startswith("mine")
    assert "bo=" in bar.bar.postfix and bar.bar.disable  # closed
    unnamed = ProgressBar()
    train(make(), steps=1, callbacks=[unnamed])
    assert unnamed.bar.desc.startswith("training")
