"""rsLoRA and LoRA+: LoRA's two other knobs, how strong the update is and how fast B learns."""

from math import sqrt

import numpy as np

from peft import LoRALinear, Rng
from training import AdamW
from validation import check_positive


class RsLoRALinear(LoRALinear):
    """h = x W^T + b + s (x A^T) B^T with s = alpha / sqrt(rank), not alpha / rank.

    B A adds up `rank` terms. Divided by rank, the update fades as the rank grows; rank-stabilised,
    its size stays. At rank 1 both are the same. Parameters: see LoRALinear.

    Source: Kalajdzievski, arXiv 2312.03732.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float = 16.0, *, rng: Rng = None):
        super().__init__(weight, bias, lora_rank, lora_alpha, rng=rng)
        self.lora.scaling = check_positive("lora_alpha", lora_alpha) / sqrt(self.lora.rank)


class LoRAPlusAdamW:
    """AdamW that gives B, and every vector, `ratio` times the learning rate of A.

    A starts at random and B at zero, and both are seldom of one size: one rate is too slow for B
    in a wide layer, or too fast for A. `lr` is A's rate and the ratio one more number to tune.
    Which arrays count as B is decided as in PEFT: what is called B, and every vector. Two things
    that PEFT does are not here: a rate of their own for adapters of an embedding (1e-6 unless one
    is given), and no weight decay for biases.

    Other parameters: see AdamW. Source: Hayou et al., arXiv 2402.12354.
    """

    def __init__(self, parameters: dict[str, np.ndarray], lr: float = 1e-3, *,
                 ratio: float = 16.0, **options):
        self.lr, self.ratio = lr, check_positive("ratio", ratio)
        fast = {name: array for name, array in parameters.items()
                if name.rpartition(".")[2] == "B" or array.ndim == 1}
        slow = {name: array for name, array in parameters.items() if name not in fast}
        if not fast or not slow:
            raise ValueError(f"LoRA+ needs arrays called A and B, got {list(parameters)}")
        self.slow, self.fast = AdamW(slow, lr, **options), AdamW(fast, lr * ratio, **options)

    def step(self, gradients: dict[str, np.ndarray], lr: float | None = None) -> None:
        """One update; `lr`, if given, is A's. Raises as AdamW does."""
        lr = self.lr if lr is None else lr
        self.slow.step(gradients, lr)
        self.fast.step(gradients, lr * self.ratio)
