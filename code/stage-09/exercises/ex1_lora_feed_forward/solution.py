"""Exercise 1, reference solution: LoRA on all three projections of a SwiGLU block."""

import numpy as np

import peft
from validation import check_shape, check_weights


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), written with tanh because that never overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


class LoRAFeedForward(peft.Method):
    """y = down(silu(gate(x)) * up(x)), each projection frozen with a LoRA update beside it.

    Parameters
    ----------
    gate, up : (d_ff, d_model), frozen weights
    down : (d_model, d_ff), frozen weight
    rank, alpha : see peft.LoRALayer, the same for all three
    rng : numpy.random.Generator, one stream for all three

    Source: Shazeer, arXiv 2002.05202 (the block); Hu et al., arXiv 2106.09685 (the update).
    """

    def __init__(self, gate: np.ndarray, up: np.ndarray, down: np.ndarray, rank: int = 8,
                 alpha: float = 16.0, *, rng: np.random.Generator | None = None):
        check_weights("gate", gate, (None, None))
        d_ff, d_model = gate.shape
        check_weights("up", up, (d_ff, d_model))
        check_weights("down", down, (d_model, d_ff))
        rng = np.random.default_rng(rng)  # one stream: three equal starts would be a waste
        self.gate, self.up, self.down = (
            peft.LoRALinear(weight, lora_rank=rank, lora_alpha=alpha, rng=rng)
            for weight in (gate, up, down))
        self.projections = {"gate": self.gate, "up": self.up, "down": self.down}
        self.cache = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        check_shape("x", x, (..., self.gate.in_features))
        z, u = self.gate.forward(x), self.up.forward(x)  # (..., d_ff) each
        sig = sigmoid(z)
        silu = z * sig
        self.cache = {"x": (u, sig, silu)}
        return self.down.forward(silu * u)  # (..., d_model)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model); both ways to x are added."""
        u, sig, silu = self._remembered()
        a = self.down.backward(grad_output)  # (..., d_ff): gradient of silu(z) * u
        grad_u = a * silu
        grad_z = a * u * (sig + silu * (1 - sig))  # silu'(z) = sig (1 + z (1 - sig))
        return self.gate.backward(grad_z) + self.up.backward(grad_u)  # (..., d_model)

    def merge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Three plain weights that do the same; the frozen ones stay as they are."""
        gate, up, down = (layer.merge()[0] for layer in self.projections.values())
        return gate, up, down

    def parameters(self) -> dict[str, np.ndarray]:
        return {f"{name}.{key}": array for name, layer in self.projections.items()
                for key, array in layer.parameters().items()}

    def gradients(self) -> dict[str, np.ndarray]:
        return {f"{name}.{key}": array for name, layer in self.projections.items()
                for key, array in layer.gradients().items()}
