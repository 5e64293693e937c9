"""A sample of the generated answers: wrong ones fail and are told, right ones pass.

`GENERATED_EVERY=1` in the environment judges all of them, which takes minutes for each room.
"""

import os

import generated
import pytest

ROOMS = list(generated.ROOMS)
TOLD = 0.9  # of all, those that stop in another line than the changed one among the untold
EVERY = int(os.environ.get("GENERATED_EVERY", "12"))


@pytest.mark.parametrize("room", ROOMS)
def test_wrong_answers_fail_and_are_told_as_what_was_done(room):
    found = generated.rates(room, generated.wrong_answers, EVERY)
    counts, other = found.counts, "\n".join(found.other)
    slack = 1 if EVERY > 1 else 0  # one of a dozen is more than a tenth
    assert counts["passed"] <= max(1, 0.01 * counts.total()), other
    assert counts["another"] <= 1, other
    assert counts["told"] >= TOLD * counts.total() - slack, other


@pytest.mark.parametrize("room", ROOMS)
def test_right_answers_in_other_words_pass(room):
    found = generated.rates(room, generated.right_answers, 2 * EVERY - 1)
    assert set(found.counts) == {"passed"}, found.other
