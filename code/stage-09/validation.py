"""Checks of what comes in, shared by all modules: each error states value, expectation and fix."""

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_integer(name: str, value: Any) -> int:
    """An integer. `True` is one to Python, but not to a reader. Raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}; pass a whole number such as 8")
    return int(value)


def check_count(name: str, value: Any) -> int:
    """A size: an integer of at least 1. Raises TypeError or ValueError."""
    if check_integer(name, value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def check_rank(rank: Any, full: int) -> int:
    """A count; above the `full` rank of the matrix that it updates it works, with a warning."""
    if check_count("rank", rank) > full:
        warnings.warn(f"rank {rank} is above min(in, out) = {full}: it costs parameters but buys "
                      f"nothing that rank {full} cannot do", stacklevel=3)  # who makes the layer
    return int(rank)


def check_positive(name: str, value: Any) -> float:
    """A finite number above zero. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}; pass for example {name}=16.0")
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, got {value}")
    return float(value)  # a NumPy float64 scalar would upcast every float32 array it meets


def check_dtype(dtype: Any) -> np.dtype:
    """A floating-point dtype. Raises TypeError."""
    if not np.issubdtype(dtype, np.floating):
        raise TypeError(f"dtype must be a floating-point type such as np.float32, got {dtype!r}")
    return np.dtype(dtype)


def check_shape(name: str, array: Any, shape: tuple) -> np.ndarray:
    """A floating-point array of this shape; None stands for any size.

    `...` as the first entry stands for any number of leading axes. Raises TypeError or ValueError.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        found = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{name} must be a floating-point array, got {found}; "
                        f"convert it with np.asarray({name}, dtype=np.float32)")
    free = shape[:1] == (...,)
    tail = shape[1:] if free else shape
    fits = array.ndim >= len(tail) if free else array.ndim == len(tail)
    sizes = array.shape[array.ndim - len(tail):]
    if not fits or (sizes != tail  # the comparison at once serves nearly every call
                    and any(want not in (None, got) for want, got in zip(tail, sizes))):
        expected = ", ".join({None: "any", ...: "..."}.get(size, str(size)) for size in shape)
        raise ValueError(f"{name} must have shape ({expected}), got {array.shape}")
    return array


def check_not_wider(arrays: dict[str, np.ndarray], dtype: np.dtype) -> None:
    """Arrays whose products an output in `dtype` can hold: it would round wider ones in silence.

    Float32 may stand beside float16, the usual mixed precision. Raises TypeError.
    """
    for name, array in arrays.items():
        if np.result_type(array, dtype, np.float32) != np.result_type(dtype, np.float32):
            raise TypeError(f"{name} is {array.dtype}, wider than the input's {dtype}; give the "
                            f"input as {array.dtype}, or make the method in {dtype}")


def check_weights(name: str, array: Any, shape: tuple) -> np.ndarray:
    """Weights that come from outside: of this shape, not empty, and finite throughout.

    Looks at every value, so it is meant for construction, not for every step.
    """
    check_shape(name, array, shape)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; check the checkpoint that it came from")
    return array
