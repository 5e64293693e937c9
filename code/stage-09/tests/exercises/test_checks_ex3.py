"""The check of exercise 3: what is not written yet is no mistake; its sublayer is a right one."""

import numpy as np
import pytest
from exercise_tools import solution

from checks import check_parallel_adapter
from exercises.ex3_parallel_adapter import checks as checks_ex3
from gradcheck import numerical_gradient


def test_a_gradient_that_is_forgotten_is_not_yet():
    class UpForgotten(solution("ex3_parallel_adapter", "ParallelAdapter")):
        def backward(self, grad_output):
            back = super().backward(grad_output)
            self.W_up_grad = None
            return back

    report = check_parallel_adapter(UpForgotten)
    assert report.status == "not yet", str(report)
    assert "After backward W_up_grad is still None." in str(report)


@pytest.mark.parametrize("linear", [False, True])
def test_the_sublayer_of_the_check_has_the_right_gradient(linear):
    rng = np.random.default_rng(0)
    sublayer = checks_ex3.Tanh(rng.standard_normal((4, 4)), linear)
    x, G = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    right = numerical_gradient(lambda: float((sublayer.forward(x) * G).sum()), x)
    sublayer.forward(x)
    np.testing.assert_allclose(sublayer.backward(G), right, atol=1e-7)
