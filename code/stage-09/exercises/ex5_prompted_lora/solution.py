"""Exercise 5, reference solution: attention with LoRA on q and v behind a soft prompt.

P counts virtual tokens, T real ones, d the width. Y and its parts have P + T rows per sequence.
"""

import numpy as np

import peft
from validation import check_shape, check_weights


class PromptedLoRAAttention:
    """Causal attention with one head over prompt and input; returned are the input's positions.

    Parameters
    ----------
    wq, wk, wv, wo : (d, d) each, floating and finite, of one dtype; frozen
    lora_rank, lora_alpha : of the updates of q and v, see peft.LoRALayer
    prompt_length : int, virtual tokens P
    rng : see peft.LoRALayer

    Attributes
    ----------
    q, v : peft.LoRALinear
    prompt : peft.PromptTuning

    Source: Hu et al., arXiv 2106.09685, who adapt q and v; Lester et al., arXiv 2104.08691.
    """

    def __init__(self, wq: np.ndarray, wk: np.ndarray, wv: np.ndarray, wo: np.ndarray,
                 lora_rank: int = 8, lora_alpha: float = 16.0, prompt_length: int = 20, *,
                 rng: np.random.Generator | None = None):
        self.d_model = d = check_weights("wq", wq, (None, None)).shape[0]
        for name, weight in (("wq", wq), ("wk", wk), ("wv", wv), ("wo", wo)):
            check_weights(name, weight, (d, d))
        self.wk, self.wo = wk, wo  # (d, d)
        rng = np.random.default_rng(rng)  # one stream for all three
        self.q = peft.LoRALinear(wq, lora_rank=lora_rank, lora_alpha=lora_alpha, rng=rng)
        self.v = peft.LoRALinear(wv, lora_rank=lora_rank, lora_alpha=lora_alpha, rng=rng)
        self.prompt = peft.PromptTuning(d, prompt_length, dtype=wq.dtype, rng=rng)
        self.cache = None

    def forward(self, embeds: np.ndarray) -> np.ndarray:
        """(..., T, d) -> (..., T, d)."""
        check_shape("embeds", embeds, (..., None, self.d_model))
        E = self.prompt.forward(embeds)  # (..., P+T, d): from here on the prompt is input
        Q, K, V = self.q.forward(E), E @ self.wk.T, self.v.forward(E)  # (..., P+T, d) each
        scale = float(self.d_model) ** -0.5
        S = scale * Q @ K.swapaxes(-1, -2)  # (..., P+T, P+T)
        S = np.where(np.tri(E.shape[-2], dtype=bool), S, -np.inf)  # no position sees a later one
        Pi = np.exp(S - S.max(axis=-1, keepdims=True))
        Pi /= Pi.sum(axis=-1, keepdims=True)  # (..., P+T, P+T)
        self.cache = Q, K, V, Pi
        Y = Pi @ V @ self.wo.T  # (..., P+T, d)
        return Y[..., self.prompt.prompt_length:, :]  # (..., T, d)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., T, d) -> (..., T, d)."""
        if self.cache is None:
            raise RuntimeError("PromptedLoRAAttention.backward needs forward first: call it")
        Q, K, V, Pi = self.cache
        *lead, rows, d = Q.shape
        P = self.prompt.prompt_length
        check_shape("grad_output", grad_output, (*lead, rows - P, d))
        G = np.zeros_like(Q)  # (..., P+T, d): nobody scored the prompt's own positions
        G[..., P:, :] = grad_output
        Gamma = G @ self.wo  # (..., P+T, d), gradient of Pi V
        Phi = Gamma @ V.swapaxes(-1, -2)  # (..., P+T, P+T)
        gS = Pi * (Phi - (Phi * Pi).sum(axis=-1, keepdims=True))
        gS *= float(self.d_model) ** -0.5
        gE = self.q.backward(gS @ K)  # (..., P+T, d), three ways back to E
        gE = gE + gS.swapaxes(-1, -2) @ Q @ self.wk
        gE = gE + self.v.backward(Pi.swapaxes(-1, -2) @ Gamma)
        return self.prompt.backward(gE)  # (..., T, d)

    def parameters(self) -> dict[str, np.ndarray]:
        """All five arrays in one dictionary, under names that cannot meet."""
        return self._named(self.q.parameters(), self.v.parameters(), self.prompt.parameters())

    def gradients(self) -> dict[str, np.ndarray]:
        return self._named(self.q.gradients(), self.v.gradients(), self.prompt.gradients())

    @staticmethod
    def _named(q: dict, v: dict, prompt: dict) -> dict[str, np.ndarray]:
        return {f"q.{name}": array for name, array in q.items()} | {
            f"v.{name}": array for name, array in v.items()} | prompt

    def num_parameters(self) -> int:
        return sum(array.size for array in self.parameters().values())
