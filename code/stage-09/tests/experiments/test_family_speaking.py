"""The family on the speaking model: what the runner adds, and the record against what must hold."""

import argparse
import json

import numpy as np
import pytest

from experiments import family_speaking as speaking
from experiments import small_llama
from experiments.family import chosen_rate
from experiments.family_speaking import METHODS, SEEDS, STEPS, SWEEP_SEEDS, TARGET, load_runs
from llama import Linear

IDS = np.arange(27)[None]


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model_says_what_the_method_said(method):
    """Also after training has moved it: every array away from where it started."""
    model, rng = small_llama.Llama.load(small_llama.DATA / "base"), np.random.default_rng(0)
    base = model.forward(IDS)
    METHODS[method].plug(model, METHODS[method].size and 4, rng)
    for array in model.parameters().values():
        array += 0.05 * rng.standard_normal(array.shape).astype(array.dtype)
    said = model.forward(IDS)
    assert np.abs(said - base).max() > 0.01
    np.testing.assert_allclose(speaking.merged(model).forward(IDS), said, rtol=0, atol=1e-4)
    assert all(type(module) is Linear for name, module in model.modules().items()
               if name.endswith("_proj"))


def test_the_runner_sweeps_then_reports_and_runs_nothing_twice(tmp_path, monkeypatch):
    made = []

    def run(job, folder, output):
        made.append((job["kind"], job["lr"], job["seed"]))
        return job | {"best_validation": abs(np.log10(job["lr"]) + 2), "trainable": 1,
                      "memory_bytes": 1, "of": 100, "exact": 50 + job["seed"], "test_loss": 1.0,
                      "general": 1.0, "seconds": 1.0}

    monkeypatch.setattr(speaking, "run", run)
    args = argparse.Namespace(output=tmp_path, folder=None, methods=["ia3"], seeds=(0, 1))
    speaking.run_all(args)
    assert made == [("sweep", lr, SWEEP_SEEDS[0]) for lr in (3e-3, 1e-2, 3e-2)] + [
        ("report", 1e-2, seed) for seed in (0, 1)]
    speaking.run_all(args)
    assert len(made) == 5
    (entry,) = speaking.summarise(load_runs(tmp_path))
    assert (entry["seeds"], entry["exact"], entry["lr"]) == (2, 50.5, 1e-2)
    assert entry["exact_sd"] == pytest.approx(0.5 ** 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_recorded_at_the_rate_of_its_own_sweep(method):
    rows = load_runs()
    rate = chosen_rate(rows, TARGET, method, STEPS, SWEEP_SEEDS, METHODS)
    found = {row["seed"]: row for row in load_runs(kind="report", method=method)}
    assert found.keys() == {*SEEDS} and not found.keys() & {*SWEEP_SEEDS}
    assert {row["lr"] for row in found.values()} == {rate}
    json.dumps([*found.values()])


def test_budgets_are_as_equal_as_is_said():
    counts = {row["method"]: row["trainable"] for row in load_runs(kind="report")}
    assert all(1 <= counts[name] / counts["lora"] < 1.1 for name in ("lora", "loraplus", "dora"))
    assert all(counts[name] < 0.1 * counts["lora"] for name in ("vera", "ia3"))
