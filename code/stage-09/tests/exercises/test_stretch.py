"""The stretch goals: the runs are what they claim, and the exercises' notebooks reach them."""

import importlib

import matplotlib

matplotlib.use("Agg")

from exercises.harness import checking
import numpy as np
import peft
import pytest
from exercise_tools import cells, solution
from exercises.ex2_lora_dropout import stretch as stretch_ex2
from exercises.ex5_prompted_lora import stretch as stretch_ex5
from exercises import stretch_goals
from exercises.stretch_goals import ROOMS, Goal, WithBlocks, pretrained, train

EXERCISES = {
    "ex1-lora-feed-forward": ("ex1_lora_feed_forward", "LoRAFeedForward", "feed_forward"),
    "ex2-lora-dropout": ("ex2_lora_dropout", "LoRADropoutLayer", "dropout"),
    "ex3-parallel-adapter": ("ex3_parallel_adapter", "ParallelAdapter", "adapter"),
}


def block(rank):
    LoRAFeedForward = solution("ex1_lora_feed_forward", "LoRAFeedForward")
    return lambda mlp: LoRAFeedForward(
        mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, rank,
        rng=np.random.default_rng(0))


def test_fresh_blocks_leave_the_model_as_it_was_and_get_its_gradients():
    ids = np.array([[0, 5, 9, 3], [0, 1, 2, 7]])
    model, plain = WithBlocks(block(2)), pretrained()
    logits = model.forward(ids)
    np.testing.assert_allclose(logits, plain.forward(ids), atol=1e-4)
    model.backward(np.ones_like(logits))
    gradients = model.gradients()
    assert set(gradients) == set(model.parameters())
    assert {f"{i}.{name}.{m}" for i in range(3) for name in ("gate", "up", "down")
            for m in "AB"} == set(gradients)
    assert all(gradients[f"{i}.up.B"].any() for i in range(3))


def test_training_counts_and_moves_only_the_blocks():
    model = WithBlocks(block(1))
    frozen = model.model.layers[0].self_attn.q_proj.weight.copy()
    run = train(model, steps=10, every=5)
    assert run["parameters"] == 3 * 3 * (64 + 160) and run["steps"] == [0, 5, 10]
    assert run["loss"][-1] < run["loss"][0] - 0.05
    np.testing.assert_array_equal(model.model.layers[0].self_attn.q_proj.weight, frozen)


def test_a_half_combined_model_is_told_what_is_missing():
    def one_layer(model, rank, length, rng):
        weight = model.layers[0].self_attn.q_proj.weight
        model.layers[0].self_attn.q_proj = peft.LoRALinear(weight, lora_rank=rank, rng=rng)
        return model
    with pytest.raises(ValueError, match=r"missing: layer 0: v_proj, layer 1: q_proj, .*soft prom"):
        stretch_ex5.combined_runs(one_layer)
    with pytest.raises(ValueError, match=r"missing: the soft prompt$"):
        stretch_ex5.combined_runs(lambda m, rank, length, rng: stretch_ex5.with_lora(m, rank, rng))
    with pytest.raises(ValueError, match=r"missing: layer 0: q_proj"):
        stretch_ex5.combined_runs(lambda m, rank, length, rng: stretch_ex5.with_prompt(m, 4, rng))


def test_dropout_is_off_while_it_is_evaluated():
    flags = []

    class Watched(solution("ex2_lora_dropout", "LoRADropoutLayer")):
        def forward(self, x, W):
            flags.append(self.training)
            return super().forward(x, W)
    curve = stretch_ex2.dropout_runs(Watched, rates=(0.5,), few=20, steps=5)[0.5]
    assert curve["steps"] == [0, 5] and len(curve["seen"]) == len(curve["loss"]) == 2
    assert 0 < sum(flags) < len(flags) and flags[-1] is False


GOALS = {goal.name: goal for room in ROOMS
         for goal in importlib.import_module(f"exercises.{room}.stretch").GOALS}


@pytest.mark.parametrize("name", GOALS)
def test_the_record_holds_what_is_planned_and_nothing_else(name):
    goal = GOALS[name]
    rows = [(row["setting"], row["lr"], row["seed"]) for setting in goal.settings
            for row in goal.rows(setting)]
    assert sorted(rows) == sorted((job["setting"], job["lr"], job["seed"]) for job in goal.jobs())
    assert len(rows) == sum(row["goal"] == name for row in stretch_goals._recorded())


def test_the_sequential_adapter_of_the_equal_start_is_the_pretrained_model_at_first(monkeypatch):
    stretch = importlib.import_module("exercises.ex3_parallel_adapter.stretch")
    monkeypatch.setattr(stretch, "train", lambda model, lr, seed: model)
    random, zero = (stretch.trained(None, *stretch.GOAL.settings[name], lr=0.1)
                    for name in ("sequential", "sequential, W_up zero"))
    ids = np.arange(12).reshape(2, 6)
    plain = pretrained().forward(ids)
    assert np.array_equal(zero.forward(ids), plain)
    assert not np.array_equal(random.forward(ids), plain)
    for one, two in zip(random.layers, zero.layers, strict=True):  # nothing else differs
        assert np.array_equal(one.after_mlp.W_down, two.after_mlp.W_down)


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_stretch_goal_says_in_the_end_is_borne_out(room):
    stretch = importlib.import_module(f"exercises.{room}.stretch")
    said = stretch.closing().data  # raises where the seeds do not bear it out
    assert said.startswith("<details>") and "What it does not show" in said and "nan" not in said
    assert stretch.closing(opened=True).data.startswith("<details open>")


def test_a_rate_is_chosen_by_the_first_seed_or_by_all(monkeypatch):
    rows = [{"goal": "g", "setting": "s", "lr": lr, "seed": seed, "loss": loss, "parameters": 3}
            for lr, seed, loss in ((0.1, 0, 2.0), (0.1, 1, 4.0), (0.3, 0, 2.5), (0.3, 1, 2.7),
                                   (1.0, 0, 9.0))]
    monkeypatch.setattr(stretch_goals, "_recorded", lambda: rows)
    rates = (0.1, 0.3, 1.0)
    first = Goal("g", None, {"s": ()}, rates)
    assert first.rate("s") == 0.1 and first.at_edge([first.entry("s")])
    every = Goal("g", None, {"s": ()}, rates, all_rates=True)
    assert every.rate("s") == 0.3 and not every.at_edge([every.entry("s")])
    assert every.entry("s")["best_test"] == pytest.approx(2.6)
    assert every.entry("s")["best_test_sd"] == pytest.approx(0.2 / 2 ** 0.5)
    assert Goal("other", None, {"s": ()}, rates).rate("s") == 0.3  # nothing recorded


@pytest.mark.parametrize("notebook", EXERCISES)
def test_a_solved_notebook_passes_every_cell_and_reaches_its_stretch_goal(
        notebook, monkeypatch, tmp_path):
    room, name, stem = EXERCISES[notebook]
    stretch = importlib.import_module(f"exercises.{room}.stretch")
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(tmp_path / "progress.json"))
    drawn = []
    monkeypatch.setattr(stretch, f"{stem}_runs", lambda work, **options: work)
    draw = "draw_adapters" if stem == "adapter" else f"draw_{stem}"
    monkeypatch.setattr(stretch, draw, drawn.append)
    space, reports, steps = {"__name__": "notebook"}, [], []
    for source in cells(notebook):
        if f"class {name}" in source:
            source = f"from exercises.{room}.solution import {name}"
        *body, last = source.split("\n")
        if last.startswith(("checks.", "report")):
            exec("\n".join(body), space)
            report = eval(last, space)
            assert isinstance(report, checking.Report) and report.passed, str(report)
            reports.append(report)
            steps.append(report.step)
        else:
            exec(source, space)
    assert steps[-1] is None and steps[:-1] == list(range(1, len(steps[:-1]) + 1))
    assert (tmp_path / "progress.json").exists()
    assert drawn == [solution(room, name)]


def test_the_even_levels_of_the_stretch_goal_are_those_that_it_names():
    from exercises.ex6_qlora import stretch

    weight = np.random.default_rng(0).uniform(-1, 1, (16, 64))
    scales = np.abs(weight).max(axis=1, keepdims=True)
    found = np.unique((stretch.uniform(weight, 64) / scales).round(6))
    np.testing.assert_allclose(found, stretch.EVEN, atol=1e-6)  # all of them, and no other
    assert len(stretch.EVEN) == 15 and 0 in stretch.EVEN
