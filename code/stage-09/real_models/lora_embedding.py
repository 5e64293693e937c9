"""LoRA on a model's embeddings, as PEFT computes it: the row of a token moves, the table stays.

PEFT takes the rows of A^T for the rows of a table, W, and calls both arrays by names of their own,
`lora_embedding_A` and `lora_embedding_B`. Where the output layer is the same table
(`tie_word_embeddings`) it goes on computing with W alone: an adapter that is not merged moves what
goes in, not what comes out.
"""

import numpy as np

from llama import Embedding
from peft import LoRALayer, Rng


class LoRAEmbedding(Embedding):
    """Row `id` of W + s (B A)^T for each token: h = W[id] + s A^T[id] B^T.

    Parameters
    ----------
    weight : (vocab, d), kept as it is
    lora_rank, lora_alpha, rng : see LoRALayer, which takes the weight's dtype
    """

    def __init__(self, weight: np.ndarray, lora_rank: int = 8, lora_alpha: float = 16.0, *,
                 rng: Rng = None):
        super().__init__(weight)
        # A map of one-hot rows: A (rank, vocab), B (d, rank). A table is a linear weight's W^T.
        self.lora = LoRALayer(*weight.shape, lora_rank, lora_alpha, dtype=weight.dtype, rng=rng)

    def forward(self, ids: np.ndarray) -> np.ndarray:
        self.rows = self.lora.scaling * self.lora.A.T[ids]  # (B, T, rank): no one-hot product
        return super().forward(ids) + self.rows @ self.lora.B.T  # (B, T, d)

    def backward(self, g: np.ndarray) -> None:
        ids, rank, d = self.cache[0].ravel(), self.lora.rank, g.shape[-1]
        g = g.reshape(-1, d)  # (n, d)
        self.lora.B_grad = g.T @ self.rows.reshape(-1, rank)  # (d, rank)
        self.lora.A_grad = np.zeros_like(self.lora.A)  # (rank, vocab)
        np.add.at(self.lora.A_grad.T, ids, self.lora.scaling * (g @ self.lora.B))  # repeats add up

    def merge(self) -> np.ndarray:
        """The table of one plain embedding that does the same."""
        return self.lora.merge_weights(self.weight.T).T

    def parameters(self) -> dict[str, np.ndarray]:
        return self.lora.parameters()

    def gradients(self) -> dict[str, np.ndarray]:
        return self.lora.gradients()
