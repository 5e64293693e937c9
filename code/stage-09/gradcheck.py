"""Is a gradient right? Compare it with finite differences, which know nothing of its derivation."""

from collections.abc import Callable

import numpy as np


def numerical_gradient(loss: Callable[[], float], array: np.ndarray, step: float = 1e-5
                       ) -> np.ndarray:
    """Central differences of `loss()` with respect to every entry of `array`.

    Each entry is moved by +step and -step, in place, and put back exactly. The error of the
    derivative falls with step**2 while rounding grows with 1/step: use float64.

    Raises
    ------
    TypeError
        If the array is not float64: in float32 the differences drown in rounding.
    """
    if array.dtype != np.float64:
        raise TypeError(f"finite differences need float64, got {array.dtype}; "
                        "build the layer with dtype=np.float64")
    grad = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = loss()
        array[index] = kept - step
        grad[index] = (above - loss()) / (2 * step)
        array[index] = kept
    return grad


def relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference, relative to the largest entry of either. 0 if both are zero."""
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {value.shape} and {reference.shape}")
    scale = max(np.abs(value).max(initial=0.0), np.abs(reference).max(initial=0.0))
    return float(np.abs(value - reference).max(initial=0.0) / scale) if scale else 0.0
