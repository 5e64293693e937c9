"""The check of exercise 1: what is not written yet is no mistake."""

from exercise_tools import solution

from checks import check_lora_feed_forward


def test_a_projection_that_backward_does_not_reach_is_not_yet():
    class UpForgotten(solution("ex1_lora_feed_forward", "LoRAFeedForward")):
        def backward(self, grad_output):
            u, sig, silu = self._remembered()
            return self.gate.backward(self.down.backward(grad_output) * u * sig)

    report = check_lora_feed_forward(UpForgotten)
    assert report.status == "not yet", str(report)
    assert "After backward: LoRALayer has no gradients" in str(report)
