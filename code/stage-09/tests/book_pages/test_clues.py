"""The puzzle can be solved: what is shown of each case names its fault and no other."""

import json
import re
from pathlib import Path

import pytest
import traitlets

from book_pages import clues
from book_pages.widgets.faults import FaultFinder, fault_finder, new_case
from experiments import faults

CASES = faults.load_cases()
NOTEBOOK = Path(__file__).parents[4] / "book" / "common-mistakes.ipynb"


@pytest.mark.parametrize("row", CASES, ids=lambda row: "-".join(map(str, faults.key(row))))
def test_each_recorded_case_shows_its_fault_and_no_other(row):
    assert clues.diagnose(row) == [row["fault"]]


def test_no_mark_rests_on_what_a_reader_is_not_shown():
    """The plan and the fault are not read; what the widget draws is enough."""
    for row in CASES:
        shown = {name: row[name] for name in row if name not in ("fault", "plan", "seed")}
        assert clues.diagnose(shown) == [row["fault"]]


@pytest.mark.parametrize("fault", clues.FAULTS)
def test_a_case_that_is_not_recorded_shows_its_fault_too(fault):
    for seed in range(3, 3 + max(len(faults.PLANS[fault]), 1)):
        assert clues.diagnose(faults.record(fault, seed)) == [fault]


def test_every_choice_is_answered_from_the_record():
    for row in CASES:
        for fault in clues.FAULTS:
            said = clues.reply(row, fault)
            assert said[-1] == "." and "nan" not in said and "None" not in said
            if fault == row["fault"]:
                assert clues.FAULTS[fault].tempting not in said
            else:
                assert said.startswith(clues.FAULTS[fault].tempting)
                assert all(mark.here(row) in said for mark in clues.missing(row, fault))


def test_what_speaks_against_a_choice_is_measured():
    sound = next(row for row in CASES if row["fault"] == "none")
    largest = max(map(max, sound["gradient"].values()))
    assert f"a norm of {largest:.2g}" in clues.reply(sound, "start")
    scaled = next(row for row in CASES if row["fault"] == "scaling")
    assert "add 32 times BA" in clues.reply(scaled, "scaling")
    assert "add 32 times BA" in clues.reply(scaled, "none")


def test_faults_are_those_of_the_common_mistakes_in_their_order():
    headings = re.findall(r'"## (\d+\. [^"\\]+)', NOTEBOOK.read_text("utf-8"))
    assert [fault.heading for fault in clues.FAULTS.values() if fault.heading] == headings
    assert list(clues.FAULTS) == list(faults.PLANS)
    assert clues.anchor("2. alpha instead of alpha / r") == "alpha-instead-of-alpha-r"


# ---------------------------------------------------------------------------------------- widget


def test_the_page_gets_what_is_recorded_and_no_plan():
    widget = fault_finder()
    shown = json.loads(widget._cases)
    assert sorted(one["name"] for one in shown) == sorted(
        "-".join(map(str, faults.key(row))) for row in CASES)
    for one, row in zip(shown, widget.records, strict=True):
        assert one["answer"] == row["fault"] and "plan" not in one
        assert one["held_out"] == pytest.approx(row["held_out"], rel=6e-3)
        assert one["gradient"].keys() == row["gradient"].keys()
        assert dict(one["facts"])["Numbers in the saved file"] == f"{row['saved']:,}"
        assert one["replies"] == [clues.reply(row, fault) for fault in widget._order]
        drawn = json.dumps({name: one[name] for name in one.keys() - {"answer", "name", "replies"}})
        assert not any(fault.title in drawn for fault in clues.FAULTS.values())
    caption, columns, rows = widget.fallback()
    assert caption and len(rows) == len(CASES) and {len(row) for row in rows} == {len(columns)}


def test_cases_are_mixed_and_a_number_out_of_reach_is_refused():
    widget = fault_finder()
    answers = [row["fault"] for row in widget.records]
    assert answers != [row["fault"] for row in CASES] and len(set(answers[:8])) > 4
    widget.case = len(CASES) - 1
    with pytest.raises(traitlets.TraitError, match="case is 0 to 33"):
        widget.case = len(CASES)
    with pytest.raises(ValueError, match="must be a record"):
        FaultFinder([])


def test_a_new_case_is_the_number_s_own():
    (record,) = new_case(7).records
    assert faults.key(record) == faults.drawn(7)
