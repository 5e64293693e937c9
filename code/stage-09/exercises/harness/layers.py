"""The tests that every exercise with a layer has, written once.

An exercise says how one of its layers is made, as a `Layer`: the student's object, and what it has
to compute. `contract` adds what all of them are asked on the way back, `merging` what a merge is.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exercises.harness.checking import Exercise
from exercises.harness.compare import DIGITS
from exercises.harness.contract import Trial
from exercises.harness.general import GENERAL, Found
from exercises.harness.report import Diagnosis
from exercises.harness.terms import Terms

Arrays = dict[str, np.ndarray]


@dataclass
class Layer:
    """A student's layer and what it should compute.

    Attributes
    ----------
    thing : the student's object
    arrays : its parameters, by name
    terms : function of x and, for the gradients, grad_output that gives the right arrays as
        `Terms`, the gradient of x under "x"
    frozen : by name the arrays that it was given, and must leave as they are
    by : function of x that runs forward, where it is not `thing.forward`
    plain : function of nothing that gives `Terms` of the merged arrays, in the order of `merge`
    merged : function of nothing that gives the student's merged arrays by the same names, where
        they are not all that `thing.merge` returns
    right : function of x and grad_output that gives the right arrays, where that is quicker
    inside : the check's own object that it was given
    """

    thing: Any
    arrays: Arrays
    terms: Callable[..., Terms] | None = None
    frozen: Arrays = field(default_factory=dict)
    by: Callable[[np.ndarray], np.ndarray] | None = None
    plain: Callable[[], Terms] | None = None
    merged: Callable[[], Arrays] | None = None
    right: Callable[..., Arrays] | None = None
    inside: Any = None

    def __post_init__(self) -> None:
        self.right = self.right or (lambda x, G: self.terms(x, G).right)
        self.before = {name: array.copy() for name, array in self.frozen.items()}

    @property
    def forward(self) -> Callable[[np.ndarray], np.ndarray]:
        """What runs forward by now: a student's code may put another function there."""
        return self.by or self.thing.forward

    def back(self, trial: Trial, G: np.ndarray) -> Arrays:
        """All gradients of a backward, that of the input under "x"."""
        return {"x": trial.call(self.thing.backward, G)} | trial.arrays(
            self.thing, tuple(self.arrays), "gradients")

    def run(self, trial: Trial, x: np.ndarray, G: np.ndarray) -> Arrays:
        """The output and all gradients of a forward and a backward."""
        return {"output": trial.call(self.forward, x)} | self.back(trial, G)

    def merge(self, trial: Trial) -> Arrays:
        """The student's merged arrays."""
        if self.merged:
            return self.merged()
        names = tuple(self.plain().right)
        return dict(zip(names, trial.parts(self.thing.merge, len(names)), strict=True))

    def merges(self, trial: Trial, *told: Any) -> Arrays:
        """The student's merged arrays, once they are right; `told` is as for `measure`."""
        terms, merged = self.plain(), self.merge(trial)
        trial.measure(merged, terms, *told)
        trial.keeps_all_digits(merged, terms.right)
        return merged

    def goes_back(self, trial: Trial, G: np.ndarray, right: Arrays, changes: Diagnosis) -> None:
        """Raise `Found` if a merge since the last forward has changed what backward gives."""
        try:
            found = self.back(trial, G)
        except NotImplementedError:  # which is a RuntimeError
            raise
        except RuntimeError as error:
            raise Found(changes, f"With a merge between forward and backward, backward stops: "
                                 f"{error}") from None
        for name, grad in found.items():
            if not trial.agrees(grad, right[name]):
                raise Found(changes, f"With a merge between forward and backward, the gradient of "
                                     f"{name} is wrong.")

    def stays(self, trial: Trial, when: str, diagnosis: Diagnosis) -> None:
        """Raise `Found` unless the frozen arrays are what they were."""
        for name, array in self.frozen.items():
            trial.same_bits(f"the frozen {name} {when}", array, self.before[name], diagnosis)


def contract(exercise: Exercise, step: int, make: Callable[..., Layer], lead: tuple[int, int],
             n_in: int, n_out: int, *, changed: Diagnosis = GENERAL["changes-input"],
             other: Callable[[Trial], Any] | None = None, settings: int = 1) -> None:
    """Add the tests of dtypes in forward, one step before, and those of backward in this step.

    Parameters
    ----------
    make : function of a `Trial` and a number: layers of other numbers have other weights, and
        whatever else is an object's own
    lead : a batch, and the number of rows of an input
    changed : the diagnosis of a frozen array that has changed
    other : makes a student's object of other sizes
    settings : how many numbers of `make` stand for settings that each can go wrong alone
    """
    exercise.example = lambda trial: make(trial).terms(trial.normal(2, 3, n_in, seed=2),
                                                       trial.normal(2, 3, n_out, seed=3))
    batch, rows = lead
    shape = rows, n_in

    def data(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        return trial.normal(*shape, seed=2), trial.normal(rows, n_out, seed=3)

    @exercise.test(step - 1, "behaviour", "dtypes stay as they are")
    def dtypes(trial: Trial) -> None:
        for each in trial.each_dtype():
            layer, (x, G) = make(each), data(each)
            each.keeps_digits("forward", each.call(layer.forward, x), layer.right(x, G)["output"])

    @exercise.test(step, "interface", "backward refuses to be first, and another shape")
    def order(trial: Trial) -> None:
        layer, (x, G) = make(trial), data(trial)
        trial.refuses_backward_first(layer.thing, G)
        trial.refuses_gradients(lambda: trial.call(layer.forward, x), layer.thing.backward,
                                G.shape, (1, n_out))

    @exercise.test(step, "behaviour",
                   "gradients are replaced, not added up; dtypes stay as they are")
    def replaced(trial: Trial) -> None:
        for each in (trial, *trial.each_dtype()):
            layer, (x, G) = make(each), data(each)
            found, right = layer.run(each, x, G), layer.right(x, G)
            layer.stays(each, "after backward", changed)
            each.keeps_all_digits(found, right)
            each.replaces_gradients(layer.thing, tuple(layer.arrays),
                                    lambda: layer.run(each, x, G))  # noqa: B023

    _own_steps(exercise, step, make, (batch, *shape), other, settings)


def _own_steps(exercise: Exercise, step: int, make: Callable[..., Layer], most: tuple,
               other: Callable[[Trial], Any] | None, settings: int) -> None:
    """Add the test that nothing is left from another call or another object."""
    shape = most[1:]

    @exercise.test(step, "behaviour",
                   "each step goes by the arrays and the input of its own forward")
    def follows(trial: Trial) -> None:
        def build() -> tuple:
            layer = make(trial, next(numbers))
            return layer.thing, layer.forward, layer.right

        for layer in (make(trial, number) for number in range(settings)):
            names = tuple(layer.arrays)
            trial.follows(layer.thing, names, (shape, shape, most), layer.right, layer.by,
                          layer.terms)
        for first in (0, 1):  # each of two settings once first
            numbers = itertools.count(first)
            trial.keeps_apart(build, names, shape)
        if other:
            trial.undisturbed(lambda: make(trial), lambda: other(trial), lambda layer:
                              trial.call(layer.forward, trial.normal(*shape, seed=2)))


def _step(layer: Layer) -> None:
    """As an optimizer changes the parameters, in place."""
    for array in layer.arrays.values():
        array *= 2


def merging(exercise: Exercise, step: int, make: Callable[..., Layer], shape: Sequence[int],
            n_out: int, *, frozen: Diagnosis, changes: Diagnosis) -> None:
    """Add the test that a merge only reads, and gives copies of what is there by then.

    Parameters
    ----------
    make : function of a `Trial`, and of `fill`, whether the parameters are random
    frozen, changes : the diagnoses of a merge that changes a frozen array, and anything else
    """
    @exercise.test(step, "behaviour", "merging changes nothing, and can be done again")
    def reads(trial: Trial) -> None:
        layer, x = make(trial), trial.normal(*shape, seed=2)
        G = trial.normal(*shape[:-1], n_out, seed=3)
        right = layer.right(x, G)
        trial.call(layer.forward, x)
        first = layer.merge(trial)
        kept = {name: array.copy() for name, array in first.items()}
        layer.stays(trial, "after merging", frozen)
        layer.goes_back(trial, G, right, changes)
        trial.keeps_gradients(layer.thing, tuple(layer.arrays), "a merge",
                              lambda: layer.merge(trial), changes)
        _step(layer)
        if not trial.agrees(trial.call(layer.forward, x), layer.right(x, G)["output"]):
            raise Found(changes, "After a merge and a step the output is wrong.")
        _step(layer)  # of which no forward knows
        again, plain = layer.merge(trial), layer.plain().right
        for name, array in again.items():
            if not trial.agrees(array, plain[name]):
                raise Found(GENERAL["kept"], f"After a step, the {name} is not the new one.")
            if not np.array_equal(first[name], kept[name]):
                raise Found(GENERAL["kept"], f"The second merge has changed the first {name}.")
        for array in layer.arrays.values():
            array *= 1e-4
        plain = layer.plain().right
        for name, array in layer.merge(trial).items():  # however small the update is
            if trial.dtype == np.float64 and np.abs(array - plain[name]).max() > DIGITS * np.abs(
                    plain[name]).max():
                raise Found(GENERAL["range"], f"With small numbers in all arrays the {name} is "
                                              "wrong.")
        fresh = make(trial, fill=False)  # the update is zero, and a copy is a copy
        for name, array in fresh.merge(trial).items():
            trial.own_memory(f"the {name} of a fresh layer", array, *fresh.frozen.values(),
                             *fresh.arrays.values())
