"""GaLore: all weights train, but the optimizer sees their gradients through a small window."""

import numpy as np

from training import AdamW
from validation import check_count, check_positive, check_rank


class GaLoreAdamW:
    """AdamW on projected gradients: W changes by scale P adam(P^T G), P the r first left
    singular vectors of G, or of the right ones, from the other side, where G is taller than wide.

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
        self.parameters, self.rank = parameters, check_count("rank", rank)
        self.every, self.scale = check_count("every", every), check_positive("scale", scale)
        self.windows: dict[str, np.ndarray] = {}  # P, (r, the shorter side)
        small = {}  # what AdamW sees
        for name, array in parameters.items():
            small[name] = array
            if array.ndim == 2:
                rank = check_rank(self.rank, full=min(array.shape))
                small[name] = np.zeros((min(rank, *array.shape), max(array.shape)), array.dtype)
        self.adamw = AdamW(small, lr, **options)

    def step(self, gradients: dict[str, np.ndarray], lr: float | None = None) -> None:
        """One update. Raises as AdamW does."""
        small = dict(gradients)
        for name, array in self.parameters.items():
            if array.ndim != 2:
                continue
            G = gradients[name] if array.shape[0] <= array.shape[1] else gradients[name].T
            low = self.adamw.parameters[name]
            if self.adamw.steps % self.every == 0:
                P = np.linalg.svd(G.astype(np.result_type(G, np.float32)),
                                  full_matrices=False)[0][:, :len(low)].T  # (r, short)
                largest = np.take_along_axis(P, np.abs(P).argmax(1)[:, None], 1)
                self.windows[name] = (P * np.sign(largest)).astype(array.dtype)
            small[name] = self.windows[name] @ G  # (r, long)
            low[...] = 0  # after the step it holds AdamW's change
        self.adamw.step(small, lr)
        for name, P in self.windows.items():
            change = self.scale * P.T @ self.adamw.parameters[name]  # (short, long)
            array = self.parameters[name]
            array += change if array.shape[0] <= array.shape[1] else change.T

    def nbytes(self) -> int:
        """Bytes of the state: AdamW's two small arrays for each parameter, and P."""
        return self.adamw.nbytes() + sum(P.nbytes for P in self.windows.values())
