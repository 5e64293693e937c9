"""When cron expressions run, against dates counted by hand and Python's calendar; the data."""

import calendar
from datetime import datetime, timedelta

import pytest

from experiments.schedules import YEAR, runs, same
from experiments.tasks import CRON, GROUPS


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
    rows = {group: CRON.rows(group) for group in GROUPS}
    assert len({row.answer for found in rows.values() for row in found}) == 600
    assert all(("AM" in r.words or "PM" in r.words) for r in rows["train"] if r.words[:3] == "At "
               and "past the hour" not in r.words)
    assert not any("AM" in row.words or "PM" in row.words for row in rows["phrasings"])
