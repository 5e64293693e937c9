"""What a method counts on a model: the result of every function in `accounting.py`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from real_models.bases import quantized_modules
from real_models.reading import Model


@dataclass(frozen=True)
class Count:
    """How many parameters a method trains on a model, and what its saved adapter contains.

    Attributes
    ----------
    trainable, total : int
        As PEFT's `get_nb_trainable_parameters` reports them: `total` includes the adapter.
    tensors : dict
        Name and shape of each tensor in the saved adapter (PEFT's file, where PEFT has the method).
    unmatched : list of str
        What matched no module: target names, `exclude_modules`, layers, keys of `rank_pattern`.
    notes : list of str
        What one must know to read the numbers correctly.
    copied : int
        How many of the trained ones are copies of the base model's, or its biases: PEFT leaves
        them in the base model's dtype, and keeps its own in 32 bits.
    base_tensors : set of str
        Those of `tensors` that have the base model's dtype.
    integer_tensors : set of str
        Those of `tensors` that hold 32-bit whole numbers.
    frozen_tensors : set of str
        Those of `tensors` that are not trained, these among them.
    """

    method: str
    model: Model
    trainable: int
    total: int
    tensors: Mapping[str, tuple[int, ...]] = field(repr=False)
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    copied: int = 0
    base_tensors: frozenset[str] = field(default=frozenset(), repr=False)
    integer_tensors: frozenset[str] = field(default=frozenset(), repr=False)
    frozen_tensors: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def percent(self) -> float:
        """Trainable share of all parameters, adapter included, as PEFT prints it."""
        return 100 * self.trainable / self.total

    @property
    def stored(self) -> int:
        """Numbers in the saved file: fewer than trained if a reparametrisation is discarded."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    @property
    def packed_total(self) -> int:
        """`total` as old tools print it for a 4-bit model: a byte with two weights counts one."""
        packed = sum(math.prod(m.sizes) // 2 for m in quantized_modules(self.model))
        return self.total - packed

    def __str__(self) -> str:
        lines = [(f"trainable params: {self.trainable:,} || all params: {self.total:,} || "
                 f"trainable%: {self.percent:.4f}")]
        if self.unmatched:
            lines.append(f"matched nothing: {', '.join(self.unmatched)}")
        return "\n".join([*lines, *self.notes])
