"""Runs with one fault each: what is recorded is what a fresh run gives, and each fault is in it."""

from types import SimpleNamespace

import numpy as np
import pytest

import llama
from experiments import faults
from experiments.faults import PLANS, Plan, load_cases, make_model, record
from names import load_names, make_batch
from training import AdamW, evaluate, fit

CASES = {faults.key(row): row for row in load_cases()}


def test_every_case_is_recorded():
    assert set(CASES) == {faults.key(job) for job in faults.jobs()}
    assert len(CASES) == 10 * 3 + 4


@pytest.mark.parametrize("fault, seed", [("none", 0), ("scored", 1), ("merged", 1),
                                         ("attention", 2), ("decay", 2)])
def test_a_case_can_be_made_again(fault, seed):
    again, recorded = record(fault, seed), CASES[fault, seed]
    assert again.keys() == recorded.keys()
    for name in ("train", "held_out", "drift", "served", "before"):
        np.testing.assert_allclose(again[name], recorded[name], atol=0.03, err_msg=name)
    assert {name: again[name] for name in ("plan", "trained", "saved", "method", "rank")} == {
        name: recorded[name] for name in ("plan", "trained", "saved", "method", "rank")}


@pytest.mark.parametrize("plan", PLANS["none"], ids=lambda plan: plan.method)
def test_the_sound_run_is_what_fit_does(plan):
    """The loop with all its measuring trains as `training.fit` does, loss by loss."""
    model, heard = make_model(plan, 0), []
    seed = PLANS["none"].index(plan)
    fit(make := make_model(plan, seed), faults._data(plan, seed), steps=faults.STEPS,
        lr=faults.RATES[plan.method], warmup=faults.WARMUP, weight_decay=faults.DECAY,
        callbacks=[lambda event: heard.append(event.loss) and None])
    assert model.parameters().keys() == make.parameters().keys()
    row = record("none", seed)
    assert row["train"] == pytest.approx(heard[1:], abs=1e-5)
    held_out = load_names("turkish", "validation")[:faults.HELD_OUT]
    assert row["held_out"][-1] == pytest.approx(evaluate(make, held_out), abs=1e-5)
    assert row["served"] == pytest.approx(row["held_out"][-1], abs=1e-6)


def test_a_plan_differs_from_the_sound_one_in_what_its_fault_says():
    for fault, plans in PLANS.items():
        for plan in plans:
            changed = {name for name in vars(plan) if getattr(plan, name) != getattr(Plan(), name)}
            assert len(changed - {"method", "rank"}) == (fault != "none"), (fault, plan)


def test_the_starts_are_those_of_the_common_mistakes():
    def matrices(**more):
        model = make_model(Plan(rank=2, **more), 0)
        return [(module.lora.A, module.lora.B) for module in model.modules().values()
                if hasattr(module, "lora")]

    for A, B in matrices():
        assert np.abs(A).max() < 0.06 and not B.any()
    for A, B in matrices(start="both random"):
        for matrix in (A, B):
            bound = matrix.shape[1] ** -0.5
            assert 0.8 * bound < np.abs(matrix).max() <= bound * 1.0001
    assert not any(A.any() or B.any() for A, B in matrices(start="both zero"))
    for A, B in matrices(start="transposed"):
        assert 0.8 * 2 ** -0.5 < np.abs(A).max() <= 2 ** -0.5 * 1.0001 and not B.any()


@pytest.mark.parametrize("how, heard", [
    ("right", [True, False, True]), ("diagonal not moved", [False, False, True]),
    ("prefix hidden", [True, False, False]), ("positions from 0", [True, False, True])])
def test_what_logits_respond_to(how, heard):
    """To an earlier letter, a later one, the prefix; at position 3, as in common mistakes."""
    with faults._attention(how):
        model = make_model(Plan("prefix"), 0)

        def logits(name):
            return model.forward(make_batch([name])[0])[0, 3]

        before, changed = logits("zeynep"), [logits("aeynep"), logits("zeynem")]
        model.kv_prefix.prefix += 1.0
        changed.append(logits("zeynep"))
    assert [not np.array_equal(before, after) for after in changed] == heard


def test_wrong_positions_are_those_without_the_prefix():
    model, ids = make_model(Plan("prefix"), 0), make_batch(["zeynep"])[0]
    right = model.forward(ids)
    with faults._attention("positions from 0"):
        wrong = model.forward(ids)
        plain = llama.Llama.load(faults.DATA / "base").forward(ids)
    assert np.abs(right - wrong).max() > 1e-4
    np.testing.assert_array_equal(plain, llama.Llama.load(faults.DATA / "base").forward(ids))


def test_the_optimizer_of_a_merged_model_trains_for_nothing():
    run = faults.Trained(Plan(merged="taken off"), 0)
    assert isinstance(run.optimizer, AdamW)
    run.step(next(faults._data(run.plan, 0)), 1e-2)
    run.merge()
    loss = run.score()
    run.step(next(faults._data(run.plan, 0)), 1e-2)
    assert run.score() == loss and run.log["step"]["B"][-1] > 0
    assert run.log["gradient"]["B"][-1] == 0


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="fault must be one of"):
        record("gremlins", 0)


def test_the_runner_resumes_and_records_each_case_once(tmp_path, monkeypatch):
    made = []

    def quick(fault, seed):
        made.append((fault, seed))
        return {"fault": fault, "seed": seed}

    monkeypatch.setattr(faults, "record", quick)
    args = SimpleNamespace(output=tmp_path, fresh=False)
    (tmp_path / faults.FILE).write_text('{"fault":"none","seed":1}\n')
    faults.run_all(args)
    faults.run_all(args)
    assert sorted(made) == sorted(set(CASES) - {("none", 1)})
    assert [faults.key(row) for row in load_cases(tmp_path)] == [*CASES]


def test_numbers_draw_every_fault_and_no_recorded_case():
    drawn = [faults.drawn(number) for number in range(200)]
    assert {fault for fault, _ in drawn} == set(PLANS) and not set(drawn) & set(CASES)
    assert faults.drawn(7) == faults.drawn(7)
