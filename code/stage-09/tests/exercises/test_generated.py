"""A sample of the generated answers: wrong ones fail and are told, right ones pass."""

import collections

import generated
import numpy as np
import pytest

ROOMS = list(generated.ROOMS)[:5]
WRONG, RIGHT = 14, 4  # of each room


def sample(answers, count):
    """So many of them, in equal steps."""
    answers = list(answers)
    return [answers[i * len(answers) // count] for i in range(count)]


def test_wrong_answers_fail_and_are_told_as_what_was_done():
    counts, other = collections.Counter(), []
    for room in ROOMS:
        for i, answer in enumerate(sample(generated.wrong_answers(room), WRONG)):
            verdict, report = generated.judged(room, answer, (np.float32, np.float64)[i % 2])
            counts[verdict] += 1
            if verdict not in ("told", "stopped"):
                diagnosis = getattr(report, "diagnosis", None)
                other.append(f"{room[:3]} {verdict}: {answer.name}: {diagnosis}")
    assert counts["passed"] <= 0.01 * counts.total() and counts["another"] == 0, other
    assert counts["told"] >= 0.9 * (counts.total() - counts["stopped"]), other


@pytest.mark.parametrize("room", ROOMS)
def test_right_answers_in_other_words_pass(room):
    for i, answer in enumerate(sample(generated.right_answers(room), RIGHT)):
        verdict, report = generated.judged(room, answer, (np.float32, np.float64)[i % 2])
        assert verdict == "passed", f"{answer.name}: {report}"
