"""The claims of section 9.7 hold, and a claim fails where the seeds do not bear it out."""

import pytest

from experiments import claims, small_llama


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.__name__)
def test_the_record_bears_the_claim_out(claim):
    claim()


def entry(mean, sd=0.01, seeds=5):
    return {"kind": "report", "method": "m", "size": 1, "best_test": mean, "best_test_sd": sd,
            "seeds": seeds}


def test_a_difference_counts_from_three_standard_errors_on():
    error = 0.01 * (2 / 5) ** 0.5
    assert claims.better(entry(1.0), entry(1.0 + 3.1 * error)) == pytest.approx(3.1)
    with pytest.raises(claims.ClaimFails, match="2.9"):
        claims.better(entry(1.0), entry(1.0 + 2.9 * error))
    with pytest.raises(claims.ClaimFails, match="-3.1"):
        claims.better(entry(1.0 + 3.1 * error), entry(1.0))


def test_level_means_less_than_one_standard_error():
    error = 0.01 * (2 / 5) ** 0.5
    claims.level(entry(1.0), entry(1.0 + 0.9 * error))
    with pytest.raises(claims.ClaimFails, match="1.1"):
        claims.level(entry(1.0 + 1.1 * error), entry(1.0))


def test_a_claim_rests_on_one_recorded_setting():
    with pytest.raises(ValueError, match="0 settings"):
        claims.mean_of("report", "lora-qv", 3)
    with pytest.raises(ValueError, match="3 settings"):
        claims.mean_of("subset", "lora-all", 1)


def test_swept_rates_have_their_minimum_inside():
    rows = small_llama.load_runs("alpha-sweep")
    for method, (_, sizes, _) in small_llama.ALPHAS.items():
        for size in sizes:
            rate = small_llama.chosen_rate(rows, "icelandic", method, size)
            assert min(small_llama.WIDE) < rate < max(small_llama.WIDE)
