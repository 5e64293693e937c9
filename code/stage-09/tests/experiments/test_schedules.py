"""When cron expressions run, against dates counted by hand and Python's calendar; the data."""

import calendar
from datetime import datetime, timedelta

import pytest

from experiments import smollm2
from experiments.schedules import GROUPS, YEAR, is_cron, load_schedules, runs, same


def times(cron):
    return [datetime(YEAR, 1, 1) + timedelta(minutes=int(i)) for i in runs(cron).nonzero()[0]]


def test_an_expression_runs_when_cron_would_run_it():
    assert times("30 16 29 2 *") == [datetime(2024, 2, 29, 16, 30)]
    assert len(times("*/15 9-17 * * 1-5")) == 4 * 9 * sum(
        calendar.weekday(YEAR, m, d) < 5 for m in range(1, 13)
        for d in range(1, calendar.monthrange(YEAR, m)[1] + 1))
    assert all(t.isoweekday() == 7 for t in times("0 0 * * 0")) and len(times("0 0 * * 0")) == 52
    either = {t.day for t in times("0 0 13 1 1")}  # a Monday, or the 13th
    assert either == {1, 8, 13, 15, 22, 29}


@pytest.mark.parametrize("cron, other, expected", [
    ("0 9 * * 1-5", "00 09 * * 1,2,3,4,5", True), ("0 9 * * 0", "0 9 * * 7", True),
    ("*/30 * * * *", "0,30 * * * *", True), ("0 9 * * 1", "0 21 * * 1", False),
    ("every day", "0 9 * * *", False), ("0 9 * *", "0 9 * * *", False),
    ("60 9 * * *", "0 9 * * *", False), ("0 9 * * 5-1", "0 9 * * *", False),
    ("0 9 * * * *", "0 9 * * *", False), ("*/0 * * * *", "0 9 * * *", False),
    ("5/2 * * * *", "5 * * * *", False), ("", "0 9 * * *", False)])
def test_expressions_are_compared_by_what_they_do(cron, other, expected):
    assert same(cron, other) is expected


def test_the_data_hold_what_their_page_says():
    rows = {group: load_schedules(group) for group in GROUPS}
    assert {group: len(found) for group, found in rows.items()} == {
        "train": 500, "test": 60, "shapes": 20, "phrasings": 20}
    every = [row for found in rows.values() for row in found]
    assert len({row.cron for row in every}) == len({row.words for row in every}) == 600
    assert all(is_cron(row.cron) for row in every)
    assert all(("AM" in r.words or "PM" in r.words) for r in rows["train"] if r.words[:3] == "At "
               and "past the hour" not in r.words)
    assert not any("AM" in row.words or "PM" in row.words for row in rows["phrasings"])
    with pytest.raises(ValueError, match="group"):
        load_schedules("tests")


def test_what_is_recorded_was_planned_and_is_judged_as_today():
    rows = smollm2.load_runs()
    assert rows and all(any(job.items() <= row.items() for job in smollm2.planned(rows))
                        for row in rows)
    for row in rows:
        assert len(row["answers"]) == 20
        for shown in row["answers"]:
            assert same(shown["said"], shown["cron"]) is shown["right"]
            assert shown["cron"] in {r.cron for r in load_schedules(shown["group"])}


def test_only_answers_are_scored():
    inputs, targets = smollm2.make_batch([([5, 6, 7], [8, 2]), ([5], [9, 10, 11, 2])])
    assert inputs.tolist() == [[5, 6, 7, 8], [5, 9, 10, 11]]
    assert targets.tolist() == [[-100, -100, 8, 2], [9, 10, 11, 2]]
