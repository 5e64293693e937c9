"""The check of exercise 8: what is not written yet is no mistake; what its solution computes."""

import numpy as np
import pytest
from exercise_tools import solution

from exercises.ex8_vera.checks import check_vera
from gradcheck import numerical_gradient, relative_error

RIGHT = solution("ex8_vera", "VeRAFeedForward")


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_missing_return_of_step_4_is_not_yet(nothing):
    methods = {"merge": lambda self: nothing, "state": lambda self: nothing,
               "from_state": lambda up, down, state: nothing}
    for name, method in methods.items():
        report = check_vera(type("NoReturn", (RIGHT,), {name: method}))
        assert report.status == "not yet", str(report)
        assert {row.status for row in report.rows if row.step < 4} == {"passed"}


def test_a_forgotten_gradient_is_not_yet():
    class Forgotten(RIGHT):
        def backward(self, grad_output):
            back = super().backward(grad_output)
            self.up_d_grad = None
            return back

    assert "After backward up_d_grad is still None." in str(check_vera(Forgotten, 3))


@pytest.mark.parametrize("d_ff", [7, 3])
def test_gradients_and_merged_weights_of_the_solution(d_ff):
    rng = np.random.default_rng(0)
    block = RIGHT(rng.standard_normal((d_ff, 5)), rng.standard_normal((5, d_ff)), 3)
    for array in block.parameters().values():
        array[...] = rng.standard_normal(array.shape)
    x, C = rng.standard_normal((2, 2, 4, 5))
    up, down = block.merge()
    np.testing.assert_allclose(block.forward(x), np.maximum(x @ up.T, 0) @ down.T, atol=1e-12)
    found = {"x": block.backward(C)} | block.gradients()
    for name, array in ({"x": x} | block.parameters()).items():
        right = numerical_gradient(lambda: float((C * block.forward(x)).sum()), array)
        assert relative_error(found[name], right) < 1e-7, name
