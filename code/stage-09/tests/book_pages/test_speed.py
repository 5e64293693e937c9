"""The tables of the page on speed, of records that miss a goal and of those that lack a measure."""

import pytest
from book_pages import speed


@pytest.mark.parametrize(("rate", "goal"), [(20.0, "≥ 20"), (19.9, "≥ 20, missed"), (None, None)])
def test_steps_in_the_playground_are_told_beside_those_outside(rate, goal):
    browser, cells, commands = map(speed.load, ("browser", "cells", "commands"))
    cells = {**cells, "goals": cells["goals"] | {"steps": 20}, "steps": None}
    before = speed.page_rows(browser, cells, commands)
    cells["steps"] = rate and {"ours": rate, "theirs": 40.0}
    told = speed.page_rows(browser, cells, commands)[len(before):]
    assert [row[1:] for row in told] == ([[f"{rate:.1f}", goal]] if rate else [])
    assert all(f"{rate / 40:.2f} of the 40.0" in row[0] for row in told)
