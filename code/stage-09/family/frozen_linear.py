"""What methods have in common that change a frozen linear layer otherwise than LoRA does."""

import numpy as np

from peft import Method
from validation import check_not_wider, check_shape, check_weights


class FrozenLinear(Method):
    """A pretrained layer, frozen. A subclass computes with rows: `_forward(x)`, (n, in) ->
    (n, out), and `_backward(G)`, (n, out) -> (n, in). Checks and leading axes are done here.

    Parameters: weight (out, in) and bias (out,) or None, floating, finite, never written; `b` is
    the bias, or 0.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None):
        self.weight = check_weights("weight", weight, (None, None))  # (out, in)
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else check_weights("bias", bias, (self.out_features,))
        self.b = 0 if bias is None else bias
        self.cache = {}
        for name in self.trainable:
            setattr(self, f"{name}_grad", None)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        check_shape("x", x, (..., self.in_features))
        check_not_wider(self.parameters(), np.result_type(x, self.weight))
        lead = x.shape[:-1]
        x = x.reshape(-1, self.in_features)  # (n, in)
        self.cache = {"x": x, "lead": lead}
        return self._forward(x).reshape(*lead, self.out_features)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., out) -> (..., in)."""
        _, lead = self._remembered("x", "lead")
        check_shape("grad_output", grad_output, (*lead, self.out_features))
        grad_x = self._backward(grad_output.reshape(-1, self.out_features))  # (n, in)
        return grad_x.reshape(*lead, self.in_features)
