"""The data of the fine-tuning experiments: personal names, letter by letter.

A name becomes one sequence. Its 27 symbols are one boundary and the letters a-z:

    name      a n n a
    inputs    . a n n a        what the model reads:   the boundary opens the name ...
    targets   a n n a .        what it must say next:  ... and closes it

In a batch, shorter names are filled up at the end: inputs with the boundary (any symbol would do:
under a causal mask no real position sees what comes after it), targets with `IGNORE`, which the
loss leaves out.

The lists lie in `data/names/` in a fixed shuffled order, so every split is a slice:
the base is 90 % train and 10 % validation; a target language 80 % train, 10 % validation (to choose
learning rates and stopping points by) and 10 % test (to report).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

BOUNDARY = 0  # opens and closes every name
SYMBOLS = ".abcdefghijklmnopqrstuvwxyz"  # a symbol's position is its id
IGNORE = -100  # a target that is not scored; the number that PyTorch and Hugging Face use
DATA = Path(__file__).parent / "data" / "names"
SPLITS = {
    "base": {"train": (0.0, 0.9), "validation": (0.9, 1.0)},
    "turkish": {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)},
    "icelandic": {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)},
}


def load_names(language: str, split: str) -> list[str]:
    """The names of one split.

    Parameters
    ----------
    language : "base", "turkish" or "icelandic"
    split : "train" or "validation"; for a target language also "test"

    Raises
    ------
    ValueError
        An unknown language or split.
    """
    if language not in SPLITS:
        raise ValueError(f"language must be one of {list(SPLITS)}, got {language!r}")
    if split not in SPLITS[language]:
        raise ValueError(f"split of {language} must be one of {list(SPLITS[language])}, "
                         f"got {split!r}")
    names = _all_names(language)
    start, stop = (round(part * len(names)) for part in SPLITS[language][split])
    return list(names[start:stop])


@cache
def _all_names(language: str) -> tuple[str, ...]:
    return tuple((DATA / f"{language}.txt").read_text(encoding="ascii").split())


def encode(name: str) -> list[int]:
    """Ids of a name's letters, without boundaries. ValueError for anything but a-z."""
    wrong = sorted(set(name) - set(SYMBOLS[1:]))
    if wrong or not name:
        raise ValueError(f"a name is one or more letters a-z, got {name!r}"
                         + (f" with {wrong}; fold it first, as data/names/make_names.py does"
                            if wrong else ""))
    return [SYMBOLS.index(letter) for letter in name]


def decode(ids: Sequence[int]) -> str:
    """Letters up to the first boundary. ValueError for an id that is none of the 27."""
    if len(ids) and not 0 <= min(ids) <= max(ids) < len(SYMBOLS):
        raise ValueError(f"ids must be 0 to {len(SYMBOLS) - 1}, got {min(ids)} to {max(ids)}")
    letters = "".join(SYMBOLS[i] for i in ids)
    return letters.split(SYMBOLS[BOUNDARY])[0]


def check_list(names: Sequence[str]) -> Sequence[str]:
    """Several names, not one, whose letters would count as names. Raises TypeError."""
    if isinstance(names, str):
        raise TypeError(f"names must be a list of names, got the string {names!r}; "
                        f"write [{names!r}]")
    return names


def make_batch(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of several names, filled up to the longest.

    Returns
    -------
    inputs, targets : (batch, time) int64; time = longest name + 1

    Raises
    ------
    TypeError, ValueError
        A bare string, no name, or a name with other letters than a-z.
    """
    if len(check_list(names)) == 0:
        raise ValueError("names is empty: a batch needs at least one name")
    time = max(map(len, names)) + 1
    inputs = np.full((len(names), time), BOUNDARY)  # (batch, time)
    targets = np.full((len(names), time), IGNORE)  # (batch, time)
    for row, name in enumerate(names):
        ids = encode(name)
        inputs[row, 1:len(ids) + 1] = ids
        targets[row, :len(ids) + 1] = ids + [BOUNDARY]
    return inputs, targets


def batches(names: Sequence[str], batch_size: int, rng: np.random.Generator
            ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches for training, in the order of `batch_rows`.

    The last, smaller batch of a pass is left out, unless the data is smaller than one batch.
    """
    if batch_size < 1 or len(names) == 0:
        raise ValueError(f"need at least one name and batch_size of at least 1, got {len(names)} "
                         f"names and batch_size={batch_size}")
    inputs, targets = make_batch(names)  # once: (len(names), longest + 1)
    lengths = (targets != IGNORE).sum(axis=1)
    for rows in batch_rows(lengths, min(batch_size, len(names)), rng):
        time = lengths[rows].max()  # as short as this batch allows
        yield inputs[rows, :time], targets[rows, :time]


def batch_rows(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Which of the texts of these lengths make up each batch of this size: (size,), without end.

    A new order in every pass. Each run of eight batches is sorted by length before it is cut up,
    so that a batch holds texts of similar length: for the names a third less filling up to
    compute. Their order is shuffled again.
    """
    while True:
        order = rng.permutation(len(lengths))[:len(lengths) // size * size]
        for start in range(0, len(order), 8 * size):
            window = order[start:start + 8 * size]
            window = window[np.argsort(lengths[window], kind="stable")].reshape(-1, size)
            yield from rng.permutation(window)
