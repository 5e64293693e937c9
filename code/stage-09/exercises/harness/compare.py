"""Compare what a student's work gives with what is right, and say what differs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from exercises.harness.general import GENERAL, Found, Measured
from exercises.harness.report import Diagnosis
from exercises.harness.run import Calls
from exercises.harness.terms import HALVED, MANY, Terms

#: Largest relative error of a right answer, by the bytes of its dtype. Mistakes are far larger.
TOLERANCE = {2: 2e-2, 4: 2e-4, 8: 1e-5}
HALF = 6e-4  # half's rounding, half a thousandth, and a little
SINGLE = 5e-7  # more than float32's rounding makes of a value
DIGITS = 1e-9  # of float64: far above its rounding, far below float32's


class Comparisons(Calls):
    """Calls, and comparisons of what they give: by value, bit for bit, by dtype."""

    def agrees(self, value: np.ndarray, reference: np.ndarray) -> bool:
        """Equal up to rounding in the coarser dtype of value and trial, relative to the largest."""
        size = min(value.dtype.itemsize, self.dtype.itemsize)
        return _error(value, reference) <= TOLERANCE.get(size, TOLERANCE[8])

    def compare(self, what: str, value: np.ndarray, right: np.ndarray,
                twins: dict[Diagnosis, np.ndarray] | None = None) -> None:
        """Raise `Found` unless `value` is right.

        If it equals what a known mistake gives, its *wrong twin*, that mistake is named.
        """
        self.expect(what, value, shape=right.shape)
        if self.agrees(value, right):
            return
        for diagnosis, twin in (twins or {}).items():
            if twin.shape == value.shape and self.agrees(value, twin):
                raise Found(diagnosis, f"{what} equals what this mistake gives.")
        where = self.on_the_class(value)
        kind = "shared" if where else "digits" if _rounded(value, right) else "values"
        raise Found(GENERAL[kind],
                    f"{where} of the class holds it. " * bool(where) + f"{what} is off by "
                    f"{_error(value, right):.2g}, relative to its largest entry.")

    def measure(self, found: dict[str, np.ndarray], terms: Terms,
                twins: dict[str, list[tuple[Diagnosis, np.ndarray]]] | None = None,
                reasons: dict[str, Diagnosis] | None = None, when: str = "") -> None:
        """Raise `Found` unless all that was found is right, and say what it is instead.

        Parameters
        ----------
        found : arrays by the names that they have in `terms`, which may have more
        twins : by name of an array, what known mistakes of structure make of it
        reasons : diagnoses by the change that is measured, or by the node or way it is about
        when : in words, where that is not plain from the test
        """
        right = {name: array for name, array in terms.right.items() if name in found}
        for name, array in right.items():
            self.expect(called(name), found[name], shape=array.shape)
        if not (wrong := [name for name in right if not self.agrees(found[name], right[name])]):
            return
        first, found = wrong[0], {name: found[name].copy() for name in wrong}
        for diagnosis, twin in (twins or {}).get(first, ()):
            if twin.shape == found[first].shape and self.agrees(found[first], twin):
                raise Found(diagnosis, f"{_capital(called(first))} equals what this mistake gives.")
        size = min(self.dtype.itemsize, *(array.dtype.itemsize for array in found.values()))

        def measured() -> Diagnosis:
            stories = terms.explain(found, TOLERANCE.get(size, TOLERANCE[8]))
            told = {name: story for names, story in stories for name in names}
            lines, table = [], dict.fromkeys(right, "right")
            for names, story in stories:
                line = story.change + f", that is {story.measured}" * bool(story.measured)
                lines.append(f"{called(*names)}{when}: {line}")
                table |= dict.fromkeys(names, line)
            for name in (name for name in wrong if name not in told):
                table[name] = (f"off by {_error(found[name], right[name]):.2g}, relative to its "
                               f"largest entry{terms.nearest(name, found[name])}")
                line = f"{called(name)}{when} is {table[name]}"
                lines.insert(0 if name == first else len(lines), line)
            good = ", ".join(name for name in right if name not in wrong) or "none"
            seen = ". ".join(map(_capital, [*lines, f"Right already: {good}."]))
            story = told.get(first)
            vague = not story or story.kind == "partly"
            if story and story.change.endswith(HALVED):
                diagnosis = GENERAL["digits"]
            elif (vague or story.kind == "factor") and all(
                    _rounded(found[name], right[name]) for name in wrong) and any(
                    found[name].size >= MANY for name in wrong):
                diagnosis, seen = GENERAL["digits"], (f"{_capital(called(*wrong))}{when}: right to "
                                                      "three digits, as after float16, no further.")
            elif where := self.on_the_class(found[first]) or (
                    vague or story.change == "zero everywhere"  # as another object's was, perhaps
                    ) and self.on_the_class():
                diagnosis, seen = GENERAL["shared"], f"{where} of the class holds arrays. {seen}"
            elif not story:
                diagnosis = GENERAL["values"]
            else:
                names = f"{first}: {story.change}", story.change, story.about
                of = reasons or {}
                diagnosis = next((of[name] for name in names if name in of), GENERAL[story.kind])
            return replace(diagnosis, seen=seen, measured=tuple(table.items()))

        raise Measured(measured)

    def holds(self, when: str, found: dict[str, np.ndarray], right: dict[str, np.ndarray],
              terms: Callable[[], Terms] | None = None) -> None:
        """Raise `Found` unless all is right at sizes that are special to an answer, perhaps; what
        is wrong there is measured, if there are `terms`."""
        if wrong := [name for name in found if found[name].shape != right[name].shape
                     or not self.agrees(found[name], right[name])]:
            known = terms and self.measured(found, right, terms(), f" where {when}")
            if known:
                raise Found(known, known.seen)
            raise Found(GENERAL["sizes"], f"Where {when}, this is wrong: {called(*wrong)}.")

    def measured(self, found: dict[str, np.ndarray], right: dict[str, np.ndarray], terms: Terms,
                  when: str) -> Diagnosis | None:
        """What wrong arrays are by a measurement, if it knows and is about the same numbers."""
        if all(self.agrees(array, right[name]) for name, array in terms.right.items()):
            try:
                self.measure(found, terms, when=when)
            except Found as wrong:
                if wrong.diagnosis.mistake != "values":
                    return wrong.diagnosis
        return None

    def shaped(self, arrays: dict[str, np.ndarray], shapes: dict[str, tuple],
               turned: Diagnosis | None = None) -> None:
        """Raise `Found` unless arrays have these shapes and the trial's dtype; `turned`, if given,
        is the diagnosis of a matrix that is transposed."""
        for name, shape in shapes.items():
            if turned and len(shape) == 2 and arrays[name].shape == shape[::-1]:
                raise Found(turned, f"{name} has shape {arrays[name].shape}.")
            self.expect(name, arrays[name], shape=shape)
            self.keeps_dtype(name, arrays[name])

    def counts(self, thing: Any, right: int, known: dict[int, Diagnosis] | None = None) -> None:
        """Raise `Found` unless `num_parameters()` gives a number; some others have a diagnosis."""
        count = self.call(thing.num_parameters, returns=(int, np.integer))
        if count != right:
            raise Found((known or {}).get(int(count), GENERAL["values"]),
                        f"num_parameters() gave {count}, expected {right}.")

    def small(self, what: str, array: np.ndarray, most: float = 0.3) -> float:
        """The standard deviation of an array at its start; raise `Found` if it is too large."""
        if (std := float(array.std(dtype=np.float64))) > most:  # all usual starts are smaller
            raise Found(GENERAL["start-size"], f"{what} has a standard deviation of {std:.2g}.")
        return std

    def small_gaussian(self, what: str, array: np.ndarray, most: float = 0.3) -> None:
        """Raise `Found` unless a large array at its start looks Gaussian, and not too large."""
        array, std = array.astype(np.float64), self.small(what, array, most)
        tails = float(((array - array.mean()) ** 4).mean() / max(std, 1e-300) ** 4)
        if array.any() and not 2.1 < tails < 5:  # Gaussian 3, cut at 2 deviations 2.4, uniform 1.8
            raise Found(GENERAL["start-size"], f"{what} holds no Gaussian numbers: the mean of its "
                        f"fourth powers is {tails:.2g} times the square of that of its squares, "
                        "and theirs is 3.")
        self.by_chance(what, array)

    def by_chance(self, what: str, array: np.ndarray,
                  diagnosis: Diagnosis = GENERAL["start-size"]) -> None:
        """Raise `Found` if numbers of a large random array go with those some places after them."""
        numbers = array.reshape(-1) - array.mean(dtype=np.float64)
        together = np.fft.irfft(np.abs(np.fft.rfft(numbers)) ** 2, numbers.size)
        strength = np.abs(together[1:])  # by the distance; after the last number comes the first
        place = int((strength >= 0.9 * strength.max()).argmax()) + 1
        if abs(share := together[place] / (together[0] or 1)) > 7 / numbers.size**0.5:  # deviations
            raise Found(diagnosis, f"Row by row, numbers of {what} go with those {place:,} places "
                                   f"after them: their correlation is {share:.2f}.")

    def on_the_class(self, value: np.ndarray | None = None) -> str:
        """The attribute of the student's class in which there are arrays, or this one; or ""."""
        things = [self.student]
        if not isinstance(self.student, type):  # what a student has defined
            things = [*getattr(self.student, "__dict__", {}).values()]
        return next((name for thing in things for cls in getattr(thing, "__mro__", ())
                     for name, held in vars(cls).items() if not name.startswith("__") and any(
                         value is None or np.array_equal(array, value)
                         for array in _arrays_in(held))), "")

    def generators(self) -> Iterator[np.random.Generator]:
        """Those on the student's class and in its module."""
        init = getattr(self.student, "__init__", None)
        for held in (getattr(self.student, "__dict__", {}), getattr(init, "__globals__", {})):
            yield from (one for one in held.values() if isinstance(one, np.random.Generator))

    def same_bits(self, what: str, array: np.ndarray, copy: np.ndarray,
                  diagnosis: Diagnosis) -> None:
        """Raise `Found` unless both are equal bit for bit."""
        same_kind = (array.dtype, array.shape) == (copy.dtype, copy.shape)
        if not same_kind or array.tobytes() != copy.tobytes():
            raise Found(diagnosis, f"{what} is not bit for bit what it was.")

    def keeps_dtype(self, what: str, *arrays: np.ndarray) -> None:
        """Raise `Found` unless all have the trial's dtype, which was that of the input."""
        for array in arrays:
            if array.dtype != self.dtype:
                where = self.on_the_class(array)
                raise Found(GENERAL["shared" if where else "wrong-dtype"],
                            f"{what}: {self.dtype} in gave {array.dtype} out"
                            + f", an array in {where} of the class" * bool(where) + ".")

    def keeps_digits(self, what: str, value: np.ndarray, right: np.ndarray) -> None:
        """Raise `Found` if float64 was narrower on the way: right, but not to float64's digits."""
        self.keeps_dtype(what, value)
        if self.dtype == np.float64 and (error := _error(value, right)) > DIGITS:
            if _regular(value, right):
                raise Found(GENERAL["nearly"], f"{what} is off by {error:.1g}, relative to its "
                                               "largest entry.")
            single = error < SINGLE
            raise Found(GENERAL["wrong-dtype" if single else "digits"], f"{what}: float64 in gave "
                        f"float64 out, but it is off by {error:.1g}, as after a "
                        f"{'narrower dtype' if single else 'table, or a series that is cut off'}.")

    def keeps_all_digits(self, found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
        """`keeps_digits` of arrays that are named as in `Terms`."""
        for name, value in found.items():
            self.keeps_digits(called(name), value, right[name])


def called(*names: str) -> str:
    """Arrays of `Terms` in words: those of one word are gradients, but for the output."""
    if any(name == "output" or " " in name for name in names):
        return ", ".join(f"the {name}" if name == "output" or " " in name else called(name)
                         for name in names)
    *some, last = names
    return f"the gradients of {', '.join(some)} and {last}" if some else f"the gradient of {last}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _error(value: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference relative to the largest entry of the reference."""
    value, reference = value.astype(np.float64), reference.astype(np.float64)
    scale = max(np.abs(reference).max(initial=0.0), 1e-12)
    return float(np.abs(value - reference).max(initial=0.0) / scale)


def _rounded(value: np.ndarray, right: np.ndarray) -> bool:
    """Whether the error may be half's rounding: small, everywhere, and of either sign."""
    return _error(value, right) < HALF and not _regular(value, right)


def _regular(value: np.ndarray, right: np.ndarray) -> bool:
    """Whether an error is not that of rounding: it has a direction, or is not everywhere."""
    narrow = (kind for kind in (np.float16, np.float32) if np.dtype(kind) < value.dtype)
    if any(np.array_equal(value, value.astype(kind).astype(value.dtype)) for kind in narrow):
        return False
    error = value.astype(np.float64) - right
    size = max(np.linalg.norm(error), 1e-300)
    exact = np.abs(error) <= 1e-12 * np.abs(right).max()
    along = abs(np.vdot(error, right)) / max(size * np.linalg.norm(right), 1e-300)
    alike = abs(error.sum()) / (size * max(error.size, 1) ** 0.5)  # of a constant 1
    return bool(right.size >= 8 and (exact.mean() >= 0.2 or along >= 0.7 or alike >= 0.9))


def _arrays_in(value: Any, depth: int = 4) -> list[np.ndarray]:
    """The arrays in a value, a dictionary or a sequence, some levels down: it may hold itself."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return ([array for part in value for array in _arrays_in(part, depth - 1)]
            if depth > 0 and isinstance(value, (list, tuple)) else [])
