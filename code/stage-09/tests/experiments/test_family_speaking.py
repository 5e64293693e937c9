"""The family on the speaking model: what the runner adds, and the record against what must hold."""

import argparse
import json

import numpy as np
import pytest

from experiments import family_speaking as speaking
from experiments import small_llama
from experiments.family import chosen_rate, verdict
from experiments.family_speaking import (
    METHODS,
    OTHER_SEEDS,
    SEEDS,
    STEPS,
    SWEEP_SEEDS,
    TARGET,
    load_runs,
)
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
    assert {*SEEDS} <= found.keys() <= {*SEEDS, *OTHER_SEEDS}  # none of the sweep's
    assert {row["lr"] for row in found.values()} == {rate}
    json.dumps([*found.values()])


def test_budgets_are_as_equal_as_is_said():
    counts = {row["method"]: row["trainable"] for row in load_runs(kind="report")}
    assert all(1 <= counts[name] / counts["lora"] < 1.1 for name in ("lora", "loraplus", "dora"))
    assert all(counts[name] < 0.1 * counts["lora"] for name in ("vera", "ia3"))


# ------------------------------------------------------------------------------------- claims


def made(seeds=OTHER_SEEDS, spread=0.1, **means):
    """Reports of all methods with this (loss, loss on what it said before), else (0.4, 1.6)."""
    luck = np.resize(spread * np.array([-1, -0.5, 0, 0.5, 1]), len(seeds))
    both = {name: means.get(name, (0.4, 2.7 if name == "vera" else 1.6)) for name in METHODS}
    return [{"kind": "report", "method": name, "seed": seed, "size": 1, "lr": 1e-3, "of": 100,
             "trainable": 1, "memory_bytes": 1, "seconds": 1.0, "exact": 40,
             "test_loss": loss + move, "general": general + move}
            for name, (loss, general) in both.items()
            for seed, move in zip(seeds, luck, strict=True)]


def asked(claim, rows, seeds=OTHER_SEEDS):
    return verdict(claim, speaking.Record(rows, seeds))


@pytest.mark.parametrize("claim, holding, falling", [
    # a mean's error is 0.1 sqrt(2.5 / 4) / sqrt(5), and a difference's 0.05
    (speaking.nobody_beats_plain_lora,
     [{}, {"ia3": (0.9, 1.6)}, {"lora": (0.2, 1.6)}, {"dora": (0.26, 1.6)}],
     [{"lora": (0.56, 1.6)}, {"dora": (0.24, 1.6)}, {"ia3": (0.26, 1.6), "spread": 0.08}]),
    (speaking.vera_moves_further, [{}, {"vera": (0.9, 1.76)}, {"loraplus": (0.4, 2.8)}],
     [{"vera": (0.4, 1.74)}, {"vera": (0.4, 1.76), "spread": 0.12}, {"vera": (0.4, 1.2)}])])
def test_a_claim_holds_and_falls_with_the_runs(claim, holding, falling):
    for how in holding:
        word, found = asked(claim, made(**how))
        assert word == "holds" and "standard errors" in found, how
    for how in falling:
        word, found = asked(claim, made(**how))
        assert word == "falls" and "standard errors" in found, how


def test_the_sentence_names_the_nearest_and_on_which_side_it_is():
    found = asked(speaking.nobody_beats_plain_lora, made(lora=(0.35, 1.6), ia3=(0.38, 1.6)))[1]
    assert "(IA)³ reaches 0.380" in found and "0.6 standard errors behind" in found
    found = asked(speaking.nobody_beats_plain_lora, made(dora=(0.35, 1.6)))[1]
    assert "DoRA reaches 0.350" in found and "1.0 standard errors ahead" in found


@pytest.mark.parametrize("claim", speaking.CLAIMS)
def test_a_claim_waits_for_every_run_and_counts_them(claim):
    rows = made() + made(range(5))[:7]
    assert asked(claim, rows)[0] == "holds"
    word, found = asked(claim, rows, range(5))
    assert word == "is not yet recorded" and "7 of 25" in found
    rows = made()
    rows[3] = {key: rows[3][key] for key in ("kind", "method", "seed")} | {"diverged": "step 3"}
    word, found = asked(claim, rows)
    assert word == "falls" and "LoRA with seed 13 diverged" in found


def test_other_seeds_do_not_change_the_table():
    rows = made(SEEDS)
    assert speaking.summarise(rows + made(OTHER_SEEDS, lora=(9, 9))) == speaking.summarise(rows)
    assert {entry["seeds"] for entry in speaking.summarise(rows)} == {len(SEEDS)}


def tell(folder, rows):
    (folder / speaking.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    speaking.tell_claims(argparse.Namespace(output=folder))


def test_the_command_tells_all_and_fails_where_a_claim_falls(tmp_path, capsys):
    tell(tmp_path, made(SEEDS) + made())
    assert capsys.readouterr().out.count("holds") == 4
    tell(tmp_path, made(SEEDS))
    assert capsys.readouterr().out.count("0 of 25") == 2
    for rows in (made(SEEDS, vera=(0.4, 1.6)), made(SEEDS) + made(vera=(0.4, 1.6))):
        with pytest.raises(SystemExit, match="1 of"):
            tell(tmp_path, rows)
        assert "vera_moves_further: falls" in capsys.readouterr().out


@pytest.mark.parametrize("claim", speaking.CLAIMS, ids=lambda claim: claim.__name__)
def test_the_record_bears_the_page_out(claim):
    """Of the page's own seeds; what other seeds say the page computes, and may be that it falls."""
    word, found = asked(claim, load_runs(), SEEDS)
    assert word == "holds", found
