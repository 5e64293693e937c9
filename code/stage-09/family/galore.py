"""GaLore: all weights train, but the optimizer sees their gradients through a small window."""

import numpy as np

from training import AdamW
from validation import check_count, check_positive, check_shape


class GaLoreAdamW:
    """AdamW on projected gradients: W changes by scale P adam(P^T G), P the r first left singular
    vectors of G; where G is taller than wide, by the transpose of what G^T gives.

    P is found anew every `every` steps; the moments stay, although they were kept in the old
    directions. The singular vectors' signs are free, and those moments would feel them: the
    largest entry of each is made positive. Arrays that are no matrices are updated by AdamW.

    Parameters: parameters, lr, options: see AdamW, without weight decay; rank, every: int; scale:
    float. Source: Zhao et al., arXiv 2403.03507.
    """

    def __init__(self, parameters: dict[str, np.ndarray], lr: float = 1e-3, *, rank: int = 4,
                 every: int = 200, scale: float = 0.25, **options):
        if options.get("weight_decay"):
            raise ValueError("weight_decay would act on the projected arrays; it is not offered")
        if locked := [name for name, W in parameters.items() if not W.flags.writeable]:
            raise ValueError(f"{', '.join(locked)}: read-only, and training writes to it; copy it")
        self.parameters, rank = parameters, check_count("rank", rank)
        self.every, self.scale = check_count("every", every), check_positive("scale", scale)
        self.matrices = {name: W if W.shape[0] <= W.shape[1] else W.T  # views, (short, long)
                         for name, W in parameters.items() if W.ndim == 2}
        self.windows: dict[str, np.ndarray] = {}  # P^T, (r, short)
        self.adamw = AdamW(parameters | {name: np.zeros((min(rank, len(W)), W.shape[1]), W.dtype)
                                         for name, W in self.matrices.items()}, lr, **options)

    def step(self, gradients: dict[str, np.ndarray], lr: float | None = None) -> None:
        """One update. Raises as AdamW does, before any weight is changed."""
        seen = dict(gradients)
        for name, W in self.matrices.items():
            G = check_shape(f"the gradient of {name}", gradients[name], self.parameters[name].shape)
            G = G if G.shape == W.shape else G.T  # (short, long)
            if not np.isfinite(G).all():
                raise FloatingPointError(f"the gradient of {name} is not finite: the run diverged")
            if self.adamw.steps % self.every == 0:
                G_wide = G.astype(np.result_type(G, np.float32))
                P = np.linalg.svd(G_wide, full_matrices=False)[0]  # (short, short)
                P = P[:, :len(self.adamw.parameters[name])].T  # (r, short)
                sign = np.sign(np.take_along_axis(P, np.abs(P).argmax(1)[:, None], 1))
                self.windows[name] = (sign * P).astype(W.dtype)
            seen[name] = self.windows[name] @ G  # (r, long)
        for name in self.matrices:
            self.adamw.parameters[name][...] = 0  # after the step: what AdamW would add
        self.adamw.step(seen, lr)
        for name, W in self.matrices.items():
            W += self.scale * self.windows[name].T @ self.adamw.parameters[name]  # (short, long)

    def nbytes(self) -> int:
        """Bytes of the state: AdamW's two small arrays for each parameter, and P."""
        return self.adamw.nbytes() + sum(P.nbytes for P in self.windows.values())
