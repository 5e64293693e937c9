"""What becomes of the right arrays if one inner value of their computation is another.

An exercise writes its computation once, as a function of a `Watch` through which each inner value
passes under its name. Every single change of every inner value is then made by running it again:
so a change in front of a softmax, or behind it, is found like one in a product.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Way = Callable[[Any], np.ndarray]
#: Where the search for an unknown factor begins.
FACTORS = (-3, -1, -0.3, 0.03, 0.1, 0.3, 0.6, 1.5, 3, 6, 10, 20)
STEPS = 12  # of that search
COLUMNS = "plus, column by column,"  # of which each has a number of its own
MOST_COLUMNS = 16
KEPT = "of the step before"


class Watch:
    """Lets each inner value pass, or puts another array in the place of one.

    Attributes
    ----------
    values : what has passed, by name
    ways : by name, in words, how a number may have changed it: a function of that number
    """

    def __init__(self, place: str = "", other: np.ndarray | None = None):
        self.place, self.other = place, other
        self.values: Arrays = {}
        self.ways: dict[str, dict[str, Way]] = {}
        self._instead: dict[str, Arrays | Callable[[], Arrays] | None] = {}

    def __call__(self, name: str, value: np.ndarray,
                 instead: Arrays | Callable[[], Arrays] | None = None,
                 ways: dict[str, Way] | None = None) -> np.ndarray:
        self.values[name], self._instead[name], self.ways[name] = value, instead, ways or {}
        return self.other if name == self.place else value

    def instead(self, name: str) -> Arrays:
        """What a wrong answer may have in the place of an inner value, by what it is."""
        found = self._instead[name]
        return found() if callable(found) else found or {}


def activations(z: np.ndarray, but: str, name: str = "z") -> Arrays:
    """What the usual nonlinearities make of z, by what it is, all `but` the right one."""
    sigmoid = 0.5 * (1 + np.tanh(0.5 * z))
    found = {"z": z, "relu(z)": np.maximum(z, 0), "tanh(z)": np.tanh(z), "sigmoid(z)": sigmoid,
             "silu(z)": z * sigmoid, "softplus(z)": np.logaddexp(0, z), "z > 0": 1.0 * (z > 0),
             "softsign(z)": z / (1 + np.abs(z)), "z between -1 and 1": np.clip(z, -1, 1),
             "hard sigmoid(z)": np.clip(z / 6 + 0.5, 0, 1),
             "hard swish(z)": z * np.clip(z / 6 + 0.5, 0, 1),
             "1.7159 tanh(2 z / 3)": 1.7159 * np.tanh(2 * z / 3),
             "gelu(z), by tanh": 0.5 * z * (1 + np.tanh(0.7978846 * (z + 0.044715 * z**3))),
             "gelu(z), by sigmoid": z * 0.5 * (1 + np.tanh(0.851 * z)),
             "elu(z)": np.where(z > 0, z, np.expm1(np.minimum(z, 0)))}
    found |= {f"leaky relu(z) with {c}": np.where(z > 0, z, c * z) for c in (0.01, 0.1, 0.2, 0.3)}
    return {what.replace("z", name): array for what, array in found.items() if what != but}


def slopes(z: np.ndarray) -> Arrays:
    """What a wrong answer may take for the slope of relu, by what it is."""
    found = {f"the slope of leaky relu with {c}": np.where(z > 0, 1, c)
             for c in (0.01, 0.1, 0.2, 0.3)}
    return found | {"z < 0": 1.0 * (z < 0), "z >= 0": 1.0 * (z >= 0), "the sign of z": np.sign(z)}


class Inner:
    """The arrays of a computation after each single change of an inner value.

    Parameters
    ----------
    flow : the computation: of a `Watch`, it returns the arrays by name
    changes : of a name, its array and the other arrays that are known: each change, in words, and
        the array after it
    before : inner values of the step before, or of what `when` says, which an answer may have kept
    """

    def __init__(self, flow: Callable[[Watch], Arrays],
                 changes: Callable[[str, np.ndarray, Arrays], Iterator[tuple[str, np.ndarray]]],
                 before: Arrays, when: str = KEPT):
        self.flow, self.changes, self.before, watch = flow, changes, before, Watch()
        self.when = when
        self.right = flow(watch)
        self.values, self.instead, self._ways = watch.values, watch.instead, watch.ways
        self._made: dict[str, list[tuple[str, Arrays]]] = {}
        self._tried: dict[tuple[str, str], list[tuple[float, Arrays]]] = {}

    def run(self, place: str, other: np.ndarray) -> Arrays | None:
        """The arrays with another array in one place; None if it does not fit there."""
        try:
            return self.flow(Watch(place, other))
        except ValueError:
            return None

    @cached_property
    def acts_on(self) -> dict[str, set[str]]:
        """By inner value, the latest first, the names of the arrays that it has a part in."""
        rng, found = np.random.default_rng(0), {}
        for place, value in reversed(self.values.items()):
            arrays = self.run(place, rng.standard_normal(value.shape)) or {}
            found[place] = {name for name, array in arrays.items()
                            if not np.array_equal(array, self.right[name])}
        return found

    def made(self, place: str) -> list[tuple[str, Arrays]]:
        """Each change of an inner value, in words, and the arrays after it."""
        if place not in self._made:
            value, kept = self.values[place], {}
            for what, other in itertools.chain(
                    ((f"{place} {self.when}", array) for array in [self.before.get(place, value)]),
                    ((f"{what} in the place of {place}", array)
                     for what, array in self.instead(place).items()),
                    ((f"{place} zero", 0 * value), (f"{place} negated", -value),
                     (f"ones in the place of {place}", np.ones_like(value))),
                    self.changes(place, value, self.values),
                    ((f"{place} plus {what}", value + other) for what, other
                     in self.values.items() if other.shape == value.shape and what != place)):
                kept.setdefault((other.shape, other.tobytes()), (what, other))  # its first name
            kept.pop((value.shape, value.tobytes()), None)
            self._made[place] = [(what, arrays) for what, other in kept.values()
                                 if (arrays := self.run(place, other)) is not None]
        return self._made[place]

    def ways(self, place: str) -> dict[str, Way]:
        """In words how an unknown number, or one for each column, may act on an inner value."""
        value = self.values[place]
        ways = {"multiplied by": lambda c: c * value, "plus": lambda c: value + c,
                "clipped at": lambda c: np.clip(value, -abs(c), abs(c)), **self._ways[place]}
        few = value.ndim > 1 and value.shape[-1] <= min(MOST_COLUMNS, value.size / 4)
        return ways | ({COLUMNS: ways["plus"]} if few else {})

    def number(self, place: str, name: str, wanted: np.ndarray, how: str
               ) -> tuple[np.ndarray, np.ndarray]:
        """By which number the value in `place` must be changed for array `name` to be nearest to
        what is wanted, and what that gives. `how` is one of `ways`; the numbers are an array."""
        way = self.ways(place)[how]

        def gives(c: np.ndarray) -> np.ndarray:
            return (self.run(place, way(c if c.size > 1 else c[0])) or self.right)[name]

        def off(array: np.ndarray) -> float:
            return float(np.linalg.norm(array - wanted))

        if how.startswith("plus"):
            start = np.zeros(self.values[place].shape[-1] if how == COLUMNS else 1)
            return _nearest(gives, wanted, start, self.right[name])
        if (place, how) not in self._tried:
            self._tried[place, how] = [(c, arrays) for c in FACTORS if how != "clipped at"
                                       or 0 < c < np.abs(self.values[place]).max()
                                       if (arrays := self.run(place, way(c))) is not None]
        c, array = min(((c, arrays[name]) for c, arrays in self._tried[place, how]),
                       key=lambda one: off(one[1]), default=(1.0, self.right[name]))
        numbers, array = _nearest(gives, wanted, np.array([c]), array)
        if numbers[0] < 0 and off(other := gives(-numbers)) <= max(
                2 * off(array), 1e-9 * np.abs(wanted).max()):
            return -numbers, other  # of a square, say; the plainer one
        return numbers, array


def _nearest(gives: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray, c: np.ndarray,
             array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, by Newton's steps from `c`, for which a function is nearest to what is wanted.

    `array` is what it gives of `c`; the numbers are returned with what it gives of them.
    """
    for _ in range(STEPS):
        steps = np.diag(np.where(c, 1e-6 * c, 1e-6))
        slopes = np.stack([(gives(c + h) - array).ravel() / h.sum() for h in steps], axis=1)
        step = np.zeros(c.size)
        if np.isfinite(slopes).all():
            step = np.linalg.lstsq(slopes, (wanted - array).ravel(), rcond=1e-6)[0]
        off = np.linalg.norm(array - wanted)
        for part in (1, 0.5, 0.25):  # a long step may go too far
            nearer = gives(c + part * step)
            if np.linalg.norm(nearer - wanted) < 0.9 * off:
                c, array = c + part * step, nearer
                break
        else:  # at the end, or not this value
            break
    return c, array
