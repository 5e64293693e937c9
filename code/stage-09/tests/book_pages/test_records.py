"""The tables that pages make of the recorded runs say what is recorded."""

import re

import pytest

from book_pages import records
from experiments import claims, family, small_llama


def cells(table):
    rows = re.findall(r"<tr>(.*?)</tr>", table.data)
    return [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]


def test_the_same_model_before_and_after():
    _, base, lora = cells(records.same_model(("lora-all", 4), names=2))
    before = small_llama.before()
    assert base[1:] == ["0", f"{before['losses']['icelandic test']:.2f}",
                        ", ".join(before["names"][:2])]
    runs = small_llama.load_runs("report", target="icelandic", method="lora-all", size=4)
    assert lora[0] == "LoRA on all linear layers, rank 4"
    assert lora[1] == f"{runs[0]['trainable']:,}"
    assert float(lora[2]) == pytest.approx(sum(r["best_test"] for r in runs) / len(runs), abs=0.006)
    assert lora[3].count(",") == 1
    with pytest.raises(ValueError, match="'lora-all', 5"):
        records.same_model(("lora-all", 5))


def test_the_best_rate_is_the_one_with_the_lowest_loss():
    head, *rows = cells(records.rates(["full", "lora-all"]))
    assert len(rows) == 4
    for name, *losses in rows:
        found = {float(rate): float(loss.split()[0]) for rate, loss in zip(head[1:], losses)
                 if loss}
        [best] = [float(rate) for rate, loss in zip(head[1:], losses) if "best" in loss]
        assert found[best] == min(found.values()), name


def test_a_method_beside_lora_is_judged_by_the_claims_rule():
    said = records.against_lora("dora")
    rows = family.load_runs()
    for target in family.TARGETS:
        record = family.Record(rows, family.common_seeds(rows, target), target)
        told = re.search(rf"{target.capitalize()} names: (\w+) in learning, (\w+) in keeping (.*)",
                         said)
        for at, key in enumerate(("best_test", "best_base"), 1):
            word, errors = claims.standing(record("dora"), record("lora"), key)
            assert told[at] == word
            assert f"{'lower' if errors > 0 else 'higher'} by {abs(errors):.1f}" in told[3]
        assert f"{len(record.seeds)} seeds" in told[3]
    assert "speaking model" in said


def race(learned, kept):
    """A race in which another method's two losses are that many standard errors below LoRA's."""
    def record(method):
        of = (learned, kept) if method != "lora" else (0, 0)
        losses = {key: -errors for key, errors in zip(("test", "old"), of)}
        return losses | {"test_sd": 1, "old_sd": 1, "seeds": 2, "lr": 0.1,
                         "seconds": 1, "trainable": 1, "memory_bytes": 1}
    return record, "test", "old"


@pytest.mark.parametrize("learned, kept, counts", [
    (6, -10, (0, 0, 1)), (6, 0, (1, 0, 0)), (0, 6, (1, 0, 0)), (2, -6, (0, 1, 0)),
    (-6, 6, (0, 0, 1)), (2, -2, (0, 0, 0)), (6, 6, (1, 0, 0)), (-6, -6, (0, 1, 0))])
def test_who_forgets_clearly_more_is_not_better(learned, kept, counts):
    said = records.against_lora("dora", {"a task": race(learned, kept)})
    found = re.search(r"other: (\d) of 1 races\. .*?round: (\d)\. .*?other: (\d)\.", said)
    assert tuple(map(int, found.groups())) == counts
