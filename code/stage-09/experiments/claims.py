"""What section 9.7 claims of its recorded runs, each held against the spread of its seeds.

A claim is a function that reads the record and raises `ClaimFails` if the seeds don't bear it out:
a difference counts from three standard errors on, and "level" means less than one. The pages print
their sentences beside these calls, and the tests run all of `CLAIMS`.
"""

from collections.abc import Callable
from functools import cache
from math import hypot, sqrt

from experiments import small_llama

CLEAR, LEVEL = 3.0, 1.0  # standard errors of a difference
CLAIMS: list[Callable[[], None]] = []


class ClaimFails(AssertionError):
    """The recorded runs do not bear the claim out."""


def claim(function: Callable[[], None]) -> Callable[[], None]:
    """Register a claim."""
    CLAIMS.append(function)
    return function


@cache  # claims and pages ask for the same settings; each time the whole record is read
def mean_of(kind: str, method: str, size: int, target: str = "icelandic",
            train_names: int | None = None) -> dict:
    """Mean and standard deviation over the seeds of one setting, as `summarise` gives them.

    `train_names` matters for kind "subset" alone. ValueError unless exactly one setting fits.
    """
    wanted = {} if train_names is None else {"train_names": train_names}
    found = small_llama.summarise(small_llama.load_runs(
        kind, target=target, method=method, size=size, **wanted))
    if len(found) != 1:
        raise ValueError(f"{kind}, {method}, {size}: {len(found)} settings are recorded, not one; "
                         "`make experiments` records them")
    return found[0]


def apart(a: dict, b: dict) -> float:
    """By how many standard errors the test loss of `b` is above that of `a`."""
    error = hypot(a["best_test_sd"] / sqrt(a["seeds"]), b["best_test_sd"] / sqrt(b["seeds"]))
    return (b["best_test"] - a["best_test"]) / error


def _named(entry: dict) -> str:
    return f"{entry['kind']} {entry['method']} {entry['size']} ({entry['best_test']:.3f})"


def better(a: dict, b: dict) -> float:
    """`a` reaches a lower test loss than `b`, clearly; returns by how many standard errors."""
    if (distance := apart(a, b)) < CLEAR:
        raise ClaimFails(f"{_named(a)} is to be better than {_named(b)}, and is by {distance:.1f} "
                         f"standard errors; {CLEAR:g} are asked for")
    return distance


def level(a: dict, b: dict) -> float:
    """`a` and `b` can't be told apart; returns their distance in standard errors."""
    if abs(distance := apart(a, b)) > LEVEL:
        raise ClaimFails(f"{_named(a)} and {_named(b)} are to be level, and are "
                         f"{abs(distance):.1f} standard errors apart")
    return distance


@claim
def shared_rate_makes_rank_16_worse() -> None:
    """With one rate for all ranks and alpha = 2r, rank 16 on the MLP is worse than rank 4."""
    better(mean_of("report", "lora-mlp", 4), mean_of("report", "lora-mlp", 16))


@claim
def own_rate_makes_rank_16_better() -> None:
    """With its own rate it is better than rank 4, whether alpha is 2r or held."""
    four = mean_of("alpha", "lora-mlp alpha=2r", 4)
    better(mean_of("alpha", "lora-mlp alpha=2r", 16), four)
    better(mean_of("alpha", "lora-mlp alpha=8", 16), four)
    better(four, mean_of("alpha", "lora-mlp alpha=8", 1))


@claim
def shared_rate_leaves_rank_1_alone_with_few_names() -> None:
    """With 100 names, one rate and a look every 50 steps, rank 1 is ahead of ranks 4 and 16."""
    one, four, sixteen = (mean_of("subset", "lora-all", size, train_names=small_llama.FEW)
                          for size in (1, 4, 16))
    better(one, four)
    better(one, sixteen)


@claim
def own_rate_lets_every_rank_learn_from_few_names() -> None:
    """With its own rate and an early look each rank is far ahead of the best before; 4 beats 1."""
    old = mean_of("subset", "lora-all", 1, train_names=small_llama.FEW)
    one, four, sixteen = (mean_of("alpha", "lora-all alpha=2r", size) for size in (1, 4, 16))
    for new in (one, four, sixteen):
        better(new, old)
    better(four, one)
    level(four, sixteen)


@claim
def alpha_does_not_matter_once_the_rate_is_swept() -> None:
    """Alpha = 2r with its own rate is level with alpha held, at every setting tried."""
    for method, held, sizes in (("lora-mlp alpha=2r", "lora-mlp alpha=8", (1, 16)),
                                ("lora-all alpha=2r", "lora-all alpha=2", (4, 16))):
        for size in sizes:
            level(mean_of("alpha", method, size), mean_of("alpha", held, size))
