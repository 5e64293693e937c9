"""The runner, on runs of a few steps; and the recorded results, against what must hold of them."""

import json

import numpy as np
import pytest

from experiments import small_llama
from experiments.small_llama import (
    CUTS,
    METHODS,
    SEEDS,
    TARGETS,
    chosen_rate,
    load_runs,
    load_spectra,
    make_model,
    planned,
    run,
    sample,
    spectrum,
    summarise,
    unfinished,
)
from llama import PROJECTIONS
from names import load_names
from training import evaluate

d, m, L = 64, 160, 3  # width, MLP, layers of the base model
QV, MLP_IN_OUT, ALL = 2 * (d + d), 3 * (d + m), 4 * (d + d) + 3 * (d + m)  # sums of in + out
COUNTS = {  # trainable parameters per unit of size, by hand
    "lora-qv": L * QV, "lora-mlp": L * MLP_IN_OUT, "lora-all": L * ALL, "houlsby": L * 2 * 2 * d,
    "pfeiffer": L * 2 * d, "parallel": L * 2 * d, "prefix": L * 2 * d, "prompt": d,
}


def job(method, size, **changes):
    return small_llama._job("report", "turkish", method, size, 1e-3, 0, 3) | changes


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_what_the_formula_says(method):
    for size in METHODS[method][1]:
        model = make_model(method, size, seed=0)
        expected = 143_488 if method == "full" else COUNTS[method] * size
        assert model.num_parameters() == expected
        wrapped = [name for name in model.modules() if name.endswith(PROJECTIONS)
                   and f"{name}.A" in model.parameters()]
        assert len(wrapped) == {"lora-qv": 6, "lora-mlp": 9, "lora-all": 21}.get(method, 0)


def test_the_base_model_has_learned_names_and_not_the_targets():
    model = make_model("prompt", 1, 0)
    model.soft_prompt = None
    own = evaluate(model, load_names("base", "validation"))
    assert own < 2.25
    for target in TARGETS:
        assert evaluate(model, load_names(target, "test")) > own + 0.4


@pytest.mark.parametrize("method, size", [("full", 0), ("lora-qv", 2), ("houlsby", 2),
                                          ("prefix", 5), ("prompt", 5)])
def test_a_run_records_what_it_promises(method, size, monkeypatch):
    monkeypatch.setattr(small_llama, "load_names", lambda *part: load_names(*part)[:64])
    row = run(job(method, size))
    again = run(job(method, size))
    assert row == again  # the same seed, the same result
    json.dumps(row)
    assert row["curve"]["steps"] == [0, 3] and len(row["curve"]["train"]) == 1
    assert len(row["names"]) == 20
    model = make_model(method, size, 0)
    weights = sum(w.nbytes for w in model.weights().values())
    own = 4 * row["trainable"]
    shared = 0 if method == "full" else own
    assert row["memory_bytes"] == weights + shared + 3 * own
    assert own < row["file_bytes"] < own + 4096  # the arrays and a header
    base = evaluate(make_model("lora-qv", 1, 0), load_names("base", "validation")[:64])
    if method in ("prefix", "prompt"):
        assert row["detached_base"] == base  # taken off, nothing is forgotten
        assert row["final_base"] != base
    assert ("spectra" in row) == (method == "full")


def test_a_run_that_diverges_is_recorded_as_such():
    with np.errstate(all="ignore"):
        assert "diverged" in run(job("full", 0, lr=1e30, steps=30))


def test_cut_to_full_rank_an_update_is_whole_and_cut_to_zero_it_is_gone():
    model = make_model("full", 0, 0)
    started = {name: w.copy() for name, w in model.weights().items()}
    names = load_names("turkish", "test")[:30]
    before = evaluate(model, names)
    rng = np.random.default_rng(0)
    for w in model.weights().values():
        if w.ndim == 2:  # an update of rank 4
            w += 0.02 * rng.standard_normal((len(w), 4)) @ rng.standard_normal((4, w.shape[1]))
    after = evaluate(model, names)
    result = spectrum(model, started, names)
    cut = dict(zip(CUTS, result["cut_test"], strict=True))
    assert cut[0] == pytest.approx(before, abs=1e-5)
    assert cut[4] == pytest.approx(after, abs=1e-4) and cut[64] == pytest.approx(after, abs=1e-4)
    assert abs(cut[2] - after) > 1e-3
    for values in result["singular_values"].values():
        assert values[4] < 1e-4 * values[0] < values[3]
    assert evaluate(model, names) == after  # the model is left as it was


def test_rates_are_chosen_by_validation_and_summaries_are_means_over_seeds():
    rows = [{"kind": "sweep", "target": "turkish", "method": "full", "size": 0, "seed": 100,
             "steps": 1, "train_names": 1, "lr": lr, "best_validation": v, "best_test": -v}
            for lr, v in ((1, 2.0), (2, 1.0), (3, 3.0))]
    rows.append(rows[0] | {"lr": 4, "diverged": "..."})
    assert chosen_rate(rows, "turkish", "full") == 2
    with pytest.raises(ValueError, match="no finished sweep of prompt"):
        chosen_rate(rows, "turkish", "prompt")
    costs = {"trainable": 1, "file_bytes": 2, "memory_bytes": 3}
    runs = [rows[0] | costs | {"kind": "report", "seed": s, "best_test": float(s)} for s in (1, 3)]
    (entry,) = summarise(runs)
    assert entry["seeds"] == 2 and entry["best_test"] == 2
    assert entry["best_test_sd"] == pytest.approx(2 ** 0.5)


def test_what_forward_keeps_is_measured():
    ids = np.random.default_rng(0).integers(0, 27, (16, 8))
    kept = {m: small_llama.kept_by_forward(small_llama.make_model(m, size, seed=0), ids)
            for m, size in (("full", 0), ("prompt", 8))}
    twice = small_llama.kept_by_forward(small_llama.make_model("full", 0, seed=0),
                                        np.concatenate([ids, ids]))
    assert twice == pytest.approx(2 * kept["full"], rel=0.02)  # nothing that stays is counted
    assert kept["prompt"] > 1.9 * kept["full"]  # 8 virtual tokens before 8
    model = small_llama.make_model("full", 0, seed=0)
    model.forward(ids)
    arrays = {id(a): a.nbytes for module in model.modules().values()
              for a in getattr(module, "cache", ()) if isinstance(a, np.ndarray) and a.base is None}
    assert kept["full"] >= sum(arrays.values()) > 0.3 * kept["full"]


# -------------------------------------------------------------------------- what was recorded


@pytest.mark.parametrize("kind", small_llama.KINDS)
def test_what_is_recorded_was_planned_and_nothing_twice(kind):
    rows = load_runs()
    keys = [small_llama._key(row) for row in rows if row["kind"] == kind]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= {small_llama._key(job) for job in planned(kind, rows)}
    todo = unfinished(kind, rows)
    if kind.startswith("own"):  # what another kind has recorded is not recorded again
        assert len({small_llama.same(row) for row in rows if row["kind"] == kind}) == len(keys)
        assert not {small_llama.same(row) for row in rows} & {small_llama.same(j) for j in todo}
    else:
        assert len(todo) + len(keys) == len(planned(kind, rows))
    assert kind == "own-sweep" or not (kind.endswith("sweep") and todo)  # the rest stands on it
    if todo:
        pytest.skip(f"{len(todo)} runs of kind {kind} are not recorded yet: "
                    "`python -m experiments.small_llama run` adds them")


def test_jobs_that_are_the_same_run_gave_the_same_result():
    """A rank's own sweep and the shared one, say: only then may one stand for the other."""
    found = {}
    for row in load_runs():
        found.setdefault(small_llama.same(row), []).append(row)
    twins = [rows for rows in found.values() if len(rows) > 1]
    assert len(twins) >= 10
    for first, *others in twins:
        for other in others:
            assert (other["best_test"], other["final_base"]) == (first["best_test"],
                                                                 first["final_base"])


def test_what_decides_a_run_makes_it_another():
    job = small_llama._job("report", "icelandic", "lora-mlp", 4, 1e-2, 0, 400)
    alike = [job | {"method": f"lora-mlp alpha={rule}", "kind": "own"} for rule in ("8", "2r")]
    assert {small_llama.same(other) for other in alike} == {small_llama.same(job)}
    changes = [{"method": "lora-mlp alpha=2"}, {"method": "lora-all"}, {"lr": 3e-2}, {"seed": 1},
               {"size": 8}, {"target": "turkish"}, {"steps": 300}, {"train_names": 100}]
    few = {"kind": "alpha", "train_names": small_llama.FEW}  # looked at every 10 steps, not 50
    assert len({small_llama.same(job | change) for change in [{}, *changes, few]}) == 10


@pytest.mark.parametrize(("serial", "parallel", "scale"), [
    ("pfeiffer", "parallel scale=1", 1.0), ("pfeiffer scale=4", "parallel", 4.0)])
def test_adapters_of_two_places_have_one_scale_size_and_start(serial, parallel, scale):
    behind, beside = (small_llama.make_model(method, 8, seed=3) for method in (serial, parallel))
    for one, other in zip(behind.layers, beside.layers, strict=True):
        assert one.after_mlp.scale == other.parallel_mlp.scale == scale
        assert one.after_mlp.residual and not other.parallel_mlp.residual
        for start in ("W_down", "W_up"):
            assert np.array_equal(getattr(one.after_mlp, start), getattr(other.parallel_mlp, start))


def test_a_sweep_of_its_own_goes_on_until_its_minimum_is_inside():
    losses = dict(zip(small_llama.GRID, [9, 8, 7, 6, 5, 4, 3, 2, 3, 4, 5, 6, 7, 8, 9, 10],
                      strict=True))
    tried, start = {}, small_llama.GRID[4]
    while rates := small_llama.next_rates(tried, start):
        tried |= {rate: losses[rate] for rate in rates}
    best = min(tried, key=tried.get)
    assert losses[best] == 2 and min(tried) < best < max(tried)
    assert len(tried) == 6  # from below the start to above the best, and nothing else


def test_a_size_is_reported_once_its_sweep_is_finished():
    options = {"targets": ["icelandic"], "methods": ["lora-mlp"], "sizes": [2]}
    rows = load_runs("sweep")
    assert planned("own", rows, **options) == []
    for lr, loss in ((1e-2, 2.0), (3e-2, 1.0), (1e-1, np.inf)):
        job = small_llama._job("own-sweep", "icelandic", "lora-mlp alpha=8", 2, lr,
                               small_llama.SWEEP_SEED, small_llama.STEPS)
        assert small_llama._key(job) in map(small_llama._key,
                                            unfinished("own-sweep", rows, **options))
        rows.append(job | ({"diverged": "…"} if loss == np.inf else {"best_validation": loss}))
    assert unfinished("own-sweep", rows, **options) == []
    assert [(j["lr"], j["seed"]) for j in planned("own", rows, **options)] == [
        (3e-2, seed) for seed in SEEDS]


def test_spectra_belong_to_recorded_runs_of_full_fine_tuning():
    tuned = {(row["target"], row["seed"]): row for row in load_runs("report", method="full")}
    for row in load_spectra():
        run_of = tuned.pop((row["target"], row["seed"]))
        for moment in ("best", "final"):  # all ranks kept: the loss that the run itself reports
            assert row[moment]["cut_test"][-1] == pytest.approx(run_of[f"{moment}_test"], abs=1e-3)
    assert not tuned


def test_unfinished_plans_name_what_is_missing():
    rows = [small_llama._job("sweep", "turkish", "full", 0, lr, small_llama.SWEEP_SEED, 400)
            | {"best_validation": lr} for lr in METHODS["full"][3]]
    assert unfinished("sweep", rows, targets=["turkish"], methods=["full"]) == []
    assert len(unfinished("sweep", rows[1:], targets=["turkish"], methods=["full"])) == 1
    todo = unfinished("report", rows, targets=["turkish"], methods=["full"])
    assert [job["seed"] for job in todo] == list(SEEDS)
    assert {job["lr"] for job in todo} == {1e-4}


def test_the_record_fits_the_code():
    """Costs, and a prompt or prefix taken off, can be computed again without training."""
    base = evaluate(make_model("lora-qv", 1, 0), load_names("base", "validation"))
    for row in load_runs("report", seed=0):
        model = make_model(row["method"], row["size"], 0)
        assert model.num_parameters() == row["trainable"]
        assert small_llama.cost(model, 8 * row["trainable"])["file_bytes"] == row["file_bytes"]
        if "detached_base" in row:
            assert row["detached_base"] == pytest.approx(base, abs=1e-3)


def test_sampled_names_depend_on_the_seed_alone():
    model = make_model("lora-qv", 1, 0)
    assert sample(model) == sample(model) != sample(model, seed=1)
