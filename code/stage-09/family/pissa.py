"""PiSSA: LoRA that starts from the principal part of the weight and freezes the rest."""

import numpy as np

from peft import LoRALinear


class PiSSALinear(LoRALinear):
    """h = x W_res^T + b + s (x A^T) B^T with s B A = the best approximation of W of this rank.

    With the singular values W = U S V^T:  B = U_r sqrt(S_r / s),  A = sqrt(S_r / s) V_r^T,
    W_res = W - s B A. Only the start differs from LoRA: at once the layer computes what W did,
    yet what trains is the part of W that does most, and `weight` is what is left.

    The paper has no s, so alpha = rank is the default here; PEFT's alpha is 8, and it divides by s
    as above. PEFT refuses weights in float64. Other parameters: see LoRALinear.

    Source: Meng et al., arXiv 2404.02948.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float | None = None):
        super().__init__(weight, bias, lora_rank, lora_rank if lora_alpha is None else lora_alpha)
        wide = weight.astype(np.result_type(weight, np.float32), copy=False)
        U, S, Vt = np.linalg.svd(wide, full_matrices=False)  # (out, k), (k,), (k, in)
        r = self.lora.rank
        if r > len(S):
            raise ValueError(f"rank {r} is above min(in, out) = {len(S)}: the weight has no more "
                             "parts to train")
        root = np.sqrt(S[:r] / self.lora.scaling)  # (r,)
        self.lora.B[...], self.lora.A[...] = U[:, :r] * root, root[:, None] * Vt[:r]
        self.start, self.pretrained = (self.lora.B.copy(), self.lora.A.copy()), weight
        self.weight = (wide - self.lora.delta_weight()).astype(weight.dtype)  # the residual

    def as_lora(self) -> tuple[np.ndarray, np.ndarray]:
        """B (out, 2r) and A (2r, in) of a plain LoRA on the *pretrained* weight, with the same s.

        The change since the start is s (B A - B_0 A_0): two products side by side.
        """
        (B_0, A_0), lora = self.start, self.lora
        return np.hstack([lora.B, -B_0]), np.vstack([lora.A, A_0])
