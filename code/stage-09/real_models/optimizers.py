"""What optimizers remember of each tensor that they train, as their implementations keep it.

Two kinds of sizes decide: how many numbers a tensor has, and for some optimizers its shape. The
tests train with each implementation once and count the bytes of what it then holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Optimizer:
    """One row of the table: what is kept of a tensor."""

    label: str  # what a list of choices calls it
    how: str  # what it keeps, in words
    moments: int  # running averages, each with a number for each of the tensor's
    factored: bool = False  # of a matrix one number for each row and each column instead
    others: int | None = None  # averages of what is no hidden matrix, where they are not as many
    eight_bits: bool = False


_EIGHT = ("in 8 bits, with a scale for every 256 numbers; tensors of less than 4,096 numbers in 32 "
          "bits")
_PAGES = ", in pages that may move to the computer's memory"

# Implementations: torch.optim's AdamW, SGD, Muon and Adafactor (torch 2.13), bitsandbytes 0.50 for
# all in 8 bits. The paper of Adafactor is Shazeer and Stern (2018), section 3, of Lion Chen et al.
# (2023), algorithm 2; Muon is for the matrices of hidden layers alone (Jordan et al., 2024).
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer("AdamW", "AdamW's two running averages", 2),
    "adamw-8bit": Optimizer("AdamW, 8-bit", f"AdamW's two running averages {_EIGHT}", 2,
                            eight_bits=True),
    "paged-adamw-8bit": Optimizer(
        "AdamW, 8-bit, paged", f"AdamW's two running averages {_EIGHT}{_PAGES}", 2,
        eight_bits=True),
    "paged-adamw": Optimizer("AdamW, paged", f"AdamW's two running averages{_PAGES}", 2),
    "adafactor": Optimizer("Adafactor", "Adafactor's running average, of a matrix only sums of "
                           "rows and of columns", 1, factored=True),
    "lion": Optimizer("Lion", "Lion's one running average", 1),
    "lion-8bit": Optimizer("Lion, 8-bit", f"Lion's one running average {_EIGHT}", 1,
                           eight_bits=True),
    "muon": Optimizer("Muon, with AdamW", "Muon's one running average of hidden matrices, AdamW's "
                      "two of all else", 1, others=2),
    "sgd-momentum": Optimizer("SGD with momentum", "one running average", 1),
    "sgd": Optimizer("SGD", "plain SGD remembers nothing", 0),
}
EIGHT_BIT_BLOCK, EIGHT_BIT_SMALLEST = 256, 4096  # bitsandbytes, optim/optimizer.py


def by_shape(optimizer: Optimizer) -> bool:
    """Whether the number of trained parameters alone does not tell what it keeps."""
    return optimizer.factored or optimizer.others is not None or optimizer.eight_bits


def state_bytes(optimizer: Optimizer, shape: Sequence[int], width: int = 4,
                hidden: bool = True) -> int:
    """What the optimizer keeps of one tensor, in bytes.

    Parameters
    ----------
    shape : sequence of int
        Of the trained tensor.
    width : int
        Bytes of each number that is kept, where it is not in 8 bits.
    hidden : bool
        Whether a matrix is one of a hidden layer's; embeddings and heads are not.
    """
    size = math.prod(shape)
    if optimizer.eight_bits and size >= EIGHT_BIT_SMALLEST:
        return optimizer.moments * (size + 4 * -(-size // EIGHT_BIT_BLOCK))
    if optimizer.eight_bits:
        width = 4
    if optimizer.factored and len(shape) > 1:
        return width * math.prod(shape[:-2]) * (shape[-1] + shape[-2])  # either may be 0
    plain = optimizer.others is not None and not (hidden and len(shape) == 2)
    return width * size * (optimizer.others if plain else optimizer.moments)
