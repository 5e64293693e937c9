"""Every exercise's check: right answers pass, and where nothing is written it says "not yet"."""

import pytest
from exercise_tools import DTYPES, ROOMS, check, module, starter

STEPS = [(room, step) for room in ROOMS
         for step in (None, *range(1, module(room, "checks").EXERCISE.steps + 1))]


def right_answers(room):
    """By name the reference solution and, written quite differently, the variants."""
    variants = module(room, "variants").VARIANTS
    if not isinstance(variants, dict):
        variants = {variant.__name__: variant for variant in variants}
    return {"reference": vars(module(room, "solution")), **variants}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("room", "work"), [pytest.param(room, work, id=f"{room[:3]}-{name}")
                                            for room in ROOMS
                                            for name, work in right_answers(room).items()])
def test_right_answers_pass(room, work, dtype):
    report = check(room, work, dtype=dtype)
    assert report.passed, str(report)
    assert report.exercise == int(room[2])  # under this number the pass is noted


@pytest.mark.parametrize(("room", "step"), STEPS)
def test_the_untouched_starter_is_not_yet(room, step):
    report = check(room, starter(room), step)
    assert {row.status for row in report.rows} == {"not yet"}, str(report)
