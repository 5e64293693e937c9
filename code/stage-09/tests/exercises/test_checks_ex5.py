"""The check of exercise 5: what is not written yet is no mistake."""

from exercise_tools import solution

from exercises.ex5_prompted_lora.checks import check_prompted_lora

RIGHT = solution("ex5_prompted_lora", "PromptedLoRAAttention")


def test_a_gradient_that_is_not_there_yet_is_not_a_failure():
    class PromptForgotten(RIGHT):
        def backward(self, grad_output):
            kept, length = self.prompt.backward, self.prompt.prompt_length
            self.prompt.backward = lambda g: g[:, length:]
            try:
                return super().backward(grad_output)
            finally:
                self.prompt.backward = kept

        def gradients(self):
            return self._named(self.q.gradients(), self.v.gradients(), {"prompt": None})

    report = check_prompted_lora(PromptForgotten)
    assert report.status == "not yet", str(report)
    assert "gradients()['prompt'] gave None" in str(report)


def test_a_method_that_backward_does_not_reach_is_not_yet():
    class PromptSkipped(RIGHT):
        def backward(self, grad_output):
            self.prompt.backward = lambda g: g[:, self.prompt.prompt_length:]
            return super().backward(grad_output)

    report = check_prompted_lora(PromptSkipped)
    assert report.status == "not yet", str(report)
    assert "After backward: PromptTuning has no gradients" in str(report)
