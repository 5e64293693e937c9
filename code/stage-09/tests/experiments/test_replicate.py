"""Claims asked of other seeds: what is missing is made, and nothing twice."""

import json

import pytest

from experiments import claims, replicate, small_llama
from experiments.records import read_lines

CLAIM = claims.full_overfits_turkish


def stand_ins(claim, **changes):
    """Rows for the other seeds: what the first five gave, under the numbers of the others."""
    recorded = {row["seed"] + 5: row for row in claims.recorded().runs("report", "full", 0,
                                                                       "turkish")}
    return [job | {key: value for key, value in recorded[job["seed"]].items() if key not in job}
            | changes for job in replicate.unfinished(claim, [])]


def test_a_claim_needs_its_runs_with_seeds_that_had_no_part_in_it():
    jobs = replicate.unfinished(CLAIM, [])
    assert [job["seed"] for job in jobs] == list(replicate.SEEDS)
    assert not set(replicate.SEEDS) & {*small_llama.SEEDS, small_llama.SWEEP_SEED}
    ours = [{**job, "kind": "", "seed": 0} for job in jobs]
    theirs = claims.recorded().runs("own", "full", 0, "turkish")
    assert ours == [{key: row[key] for key in jobs[0]} | {"kind": "", "seed": 0} for row in theirs]


def test_what_is_recorded_is_not_made_again():
    rows = stand_ins(CLAIM)
    assert replicate.unfinished(CLAIM, rows) == []
    (job,) = replicate.unfinished(CLAIM, rows[:2] + rows[3:])
    assert job["seed"] == rows[2]["seed"]
    left = replicate.unfinished(claims.full_does_not_overfit_icelandic, rows)
    assert {job["target"] for job in left} == {"icelandic"}


def test_settings_of_two_kinds_that_are_one_run_are_made_once():
    jobs = replicate.unfinished(claims.own_rate_makes_rank_16_better, [])
    rank_4 = [job for job in jobs if job["size"] == 4]
    assert len(rank_4) == 5
    shared = replicate.unfinished(claims.shared_rate_makes_rank_16_worse, rank_4)
    assert {job["size"] for job in shared} == {16}


def test_only_complete_claims_are_judged(tmp_path):
    def judged(rows):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / replicate.RUNS).write_text(lines)
        replicate.write(tmp_path)
        return replicate.load(tmp_path)

    rows = stand_ins(CLAIM)
    assert CLAIM.__name__ not in judged(rows[1:])
    held = judged(rows)
    assert held[CLAIM.__name__]["holds"] and "23.9" in held[CLAIM.__name__]["found"]
    fallen = judged(stand_ins(CLAIM, final_test=2.18))[CLAIM.__name__]
    assert not fallen["holds"] and "3 are asked for" in fallen["found"]
    # the first comparison of this claim falls; of the runs for its second one none is there
    leads = claims.full_leads_with_more_data
    rows = [job | dict.fromkeys(("best_test", "final_test", "best_base", "final_base", "best_step",
                                 "trainable", "file_bytes", "memory_bytes"), 2.0)
            for job in replicate.unfinished(leads, [])
            if job["method"] in ("full", "lora-all alpha=8")]
    with pytest.raises(claims.ClaimFails):
        leads(replicate.replica(rows))
    assert leads.__name__ not in judged(rows)


def test_a_run_keeps_the_losses_of_its_cuts_and_no_curve():
    job = small_llama._job("own", "turkish", "full", 0, 1e-3, 5, 2)
    row = replicate.again(job)
    assert job.items() <= row.items() and "curve" not in row
    assert len(row["cut_test"]["best"]) == len(small_llama.CUTS)
    json.dumps(row)


def test_what_is_written_down_is_what_the_recorded_runs_say():
    """replicated.json can be written again from replicated.jsonl, and holds nothing else."""
    if not (path := small_llama.RESULTS / replicate.HELD).exists():
        pytest.skip("no claim has been replicated yet: `make replicate`")
    record = replicate.replica(read_lines(small_llama.RESULTS / replicate.RUNS))
    for name, row in replicate.load().items():
        assert replicate.verdict(getattr(claims, name), record) == row
    assert json.loads(path.read_text())["seeds"] == list(replicate.SEEDS)


def test_the_page_says_of_each_claim_whether_it_was_run_and_held(monkeypatch):
    names = [claim.__name__ for claim in claims.CLAIMS[:2]]
    found = {name: {"holds": holds, "found": name} for name, holds in zip(names, (True, False),
                                                                          strict=True)}
    monkeypatch.setattr(replicate, "load", lambda: found)
    words = [word for _, word, _ in replicate.table()]
    assert words == ["held", "fell"] + (len(claims.CLAIMS) - 2) * ["not yet run"]
    assert f"{len(claims.CLAIMS)} claims, 2 have" in replicate.sentence()
