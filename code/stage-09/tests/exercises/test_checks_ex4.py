"""The check of exercise 4: what is not written yet is no mistake."""

import pytest
from exercise_tools import solution

from exercises.ex4_prefix_mlp.checks import check_prefix_mlp

RIGHT = solution("ex4_prefix_mlp", "PrefixMLP")


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_missing_return_of_to_prefix_is_not_yet(nothing):
    work = type("NoReturn", (RIGHT,), {"to_prefix": lambda self: nothing})
    report = check_prefix_mlp(work)
    assert report.status == "not yet"
    assert [row.status for row in check_prefix_mlp(work, 3).rows] == ["passed"] * sum(
        row.step <= 3 for row in report.rows)


@pytest.mark.parametrize("step", [3, None])
def test_a_forgotten_gradient_or_return_is_not_yet(step):
    class Forgotten(RIGHT):
        def backward(self, grad_prefix):
            super().backward(grad_prefix)
            self.b1_grad = None

    report = check_prefix_mlp(Forgotten, step)
    assert "After backward b1_grad is still None." in str(report)
    for work in (Forgotten, type("NoReturn", (RIGHT,), {"forward": lambda self: None})):
        assert check_prefix_mlp(work, step).status == "not yet"
