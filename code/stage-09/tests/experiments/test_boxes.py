"""What the boxes "Start here" say of rates, alpha and dropout, asked of the records."""

import pytest

from exercises.ex2_lora_dropout import stretch
from experiments import claims, small_llama

RUNS = small_llama.load_runs()
FULL = {target: small_llama.chosen_rate(RUNS, target, "full") for target in small_llama.TARGETS}


@pytest.mark.parametrize("methods, times", [
    (("lora-qv",), {10}), (("lora-all",), {3}), (("lora-qv", "lora-mlp", "lora-all"), {3, 10}),
    (("parallel",), {3}), (("pfeiffer",), {10}), (("houlsby",), {3, 10})], ids=str)
def test_best_rates_at_the_middle_sizes_are_so_many_times_full_fine_tunings(methods, times):
    assert times == {round(small_llama.chosen_rate(RUNS, target, method) / FULL[target])
                     for target in small_llama.TARGETS for method in methods}


def test_on_the_mlp_the_best_rate_falls_with_the_rank_only_where_alpha_grows():
    record = claims.recorded()
    middle = record.own("lora-mlp", 4)["lr"]
    grown, held = (record("alpha", f"lora-mlp alpha={rule}", 16)["lr"] for rule in ("2r", "8"))
    assert (round(middle / grown), held) == (3, middle)


def test_dropout_of_a_half_is_clearly_better_with_few_names_and_a_tenth_is_not():
    def entry(rate, key):
        return stretch.GOAL.entry(f"p = {rate:g}, 150 steps", key=key)

    none, tenth, half = (entry(rate, "best") for rate in (0.0, 0.1, 0.5))
    assert claims.apart(tenth, none) < claims.CLEAR < claims.apart(half, none)
    assert round(none["best_test"] - half["best_test"], 2) == 0.02
    last = [entry(rate, "loss")["best_test"] for rate in (0.0, 0.5)]
    assert 0.4 < last[0] - last[1] < 0.55


def test_a_run_is_stopped_by_its_validation_loss():
    """The recorded best step is where the *validation* loss is lowest, in every run."""
    seen = [run for run in RUNS if "diverged" not in run and "curve" in run]
    assert len(seen) > 100
    for run in seen:
        curve = run["curve"]
        at_best = curve["validation"][curve["steps"].index(run["best_step"])]
        assert at_best == min(curve["validation"])
