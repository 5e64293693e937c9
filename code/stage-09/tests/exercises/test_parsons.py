"""Parsons problems: what the page calls right is what the exercise's check passes, and no more."""

import random

import checks
import numpy as np
import pytest
from book_pages.widgets.parsons import ParsonsProblem
from exercises import parsons
from exercises.mistakes import source_of
from traitlets import TraitError


@pytest.fixture(scope="module", params=parsons.CHOSEN)
def puzzles(request):
    return parsons.puzzles(request.param)


def judged(puzzle, lines):
    """The report of the room's check on the solution with these lines as the method's."""
    source = source_of(puzzle.room)
    start = source.index(puzzle.head)
    end = min(at for mark in ("\n    def ", "\nclass ", "\n@") if
              (at := (source + "\n@").find(mark, start)) > 0)
    body = "\n".join(lines).replace("\n", "\n        ")
    namespace = {"__name__": f"exercises.{puzzle.room}.solution"}
    exec(compile(f"{source[:start]}{puzzle.head}\n        {body}\n{source[end:]}", "puzzle",
                 "exec"), namespace)
    check, _ = parsons.CHOSEN[puzzle.room]
    return getattr(checks, check)(namespace[puzzle.method.partition(".")[0]])


def an_order(puzzle, rng):
    """Some order that the page calls right."""
    left, order = set(range(len(puzzle.pieces))), []
    while left:
        free = sorted(i for i in left if not any(later == i and earlier in left
                                                 for earlier, later, _ in puzzle.needs))
        order.append(rng.choice(free))
        left.discard(order[-1])
    return order


def test_every_order_that_is_called_right_passes_the_check(puzzles):
    rng = random.Random(20)
    for puzzle in puzzles:
        orders = {tuple(an_order(puzzle, rng)) for _ in range(40)}
        for order in rng.sample(sorted(orders), min(len(orders), 6)):
            report = judged(puzzle, [puzzle.pieces[i] for i in order])
            assert report.passed, f"{puzzle.method} {order}\n{report}"


def test_lines_that_wait_for_another_fail_before_it(puzzles):
    for puzzle in puzzles:
        for earlier, later, name in puzzle.needs:
            if not name or puzzle.pieces[earlier].startswith("check_"):
                continue  # the end of the method; or a check, which may come late and still refuse
            order = list(range(len(puzzle.pieces)))
            order.remove(later)
            order.insert(earlier, later)
            report = judged(puzzle, [puzzle.pieces[i] for i in order])
            assert not report.passed, f"{puzzle.method}: {order} needs no {name}\n{report}"


def test_a_wrong_line_fails_and_says_what_the_check_says(puzzles):
    for puzzle in puzzles:
        assert puzzle.wrong
        for at, line, reply in puzzle.wrong:
            lines = [*puzzle.pieces[:at], line, *puzzle.pieces[at + 1:]]
            diagnosis = judged(puzzle, lines).diagnosis
            assert diagnosis is not None and diagnosis.name in reply and diagnosis.why in reply
            assert "#" not in line


def test_a_mistake_of_two_lines_is_refused(monkeypatch):
    chosen = {"ex2_lora_dropout": ("check_lora_dropout", {
        "LoRADropoutLayer.backward": ("OnlyHere",)})}
    monkeypatch.setattr(parsons, "CHOSEN", chosen)
    with pytest.raises(KeyError, match="OnlyHere"):
        parsons.puzzles("ex2_lora_dropout")
    chosen["ex2_lora_dropout"][1]["LoRADropoutLayer.backward"] = ("Averaged",)
    with pytest.raises(ValueError, match="Averaged in ex2_lora_dropout changes 2"):
        parsons.puzzles("ex2_lora_dropout")


def test_the_widget_takes_only_lines_that_are_there(puzzles):
    widget = ParsonsProblem(puzzles)
    one = widget._puzzles[0]
    assert sorted(one["pool"]) == list(range(len(one["lines"])))
    assert one["pool"] != sorted(one["pool"])
    widget.orders = [one["pool"], []]
    for orders in ([[0]], [[0, 0], []], [[99], []]):
        with pytest.raises(TraitError, match="each once"):
            widget.orders = orders
    with pytest.raises(TraitError, match="0 to 1"):
        widget.puzzle = 2
    caption, columns, rows = widget.fallback()
    assert {line for _, line in rows} == set(np.concatenate(
        [entry["lines"] for entry in widget._puzzles]))
    with pytest.raises(ValueError, match="puzzle"):
        ParsonsProblem([])
