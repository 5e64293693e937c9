"""The two code tables of QLoRA, bit for bit those of bitsandbytes: NF4 and the 8-bit dynamic code.

A code is an index into a sorted table of levels between -1 and 1.
"""

import numpy as np

#: NF4: 7 negative levels, zero, 8 positive ones; (16,). Quantiles of a Gaussian, scaled to 1.
#: Source: Dettmers et al., arXiv 2305.14314; the numbers are those of bitsandbytes.
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0], np.float32)


def _edges(count: int) -> np.ndarray:
    """`count` numbers from 0.1 to 1, rounded as torch.linspace does: each half from its own end."""
    start, stop = np.float64(np.float32(0.1)), 1.0
    step = np.float64((np.float32(1) - np.float32(0.1)) / np.float32(count - 1))
    i = np.arange(count)
    exact = np.where(i < count // 2, start + step * i, stop - step * (count - 1 - i))
    return exact.astype(np.float32)  # one rounding of product and sum together


def dynamic_map() -> np.ndarray:
    """The dynamic 8-bit code: (256,) float32, sorted, dense near zero.

    Seven decades, 1e-6 to 1, each cut evenly; the larger the decade the more levels it gets, 1 to
    64 of either sign. Then 0 and 1.

    Source: Dettmers et al., arXiv 2110.02861; `create_dynamic_map` of bitsandbytes.
    """
    levels = [np.float32(0), np.float32(1)]
    for decade in range(7):
        edges = _edges(2 ** decade + 1)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        positive = np.float32(10.0 ** (decade - 6)) * middles
        levels += [*positive, *-positive]
    return np.sort(np.array(levels, np.float32))


#: The dynamic 8-bit code; (256,).
DYNAMIC = dynamic_map()
