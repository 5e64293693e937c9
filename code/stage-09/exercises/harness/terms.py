"""What a wrong array is instead: a measurement against the terms of the right one.

Every right array of an exercise is a sum of terms, each a product of named nodes. `Terms` holds
them as data, makes the right arrays from them, and says of a wrong one what it computes: the right
one times a constant, the terms with other coefficients, a term with another factor, the right one
turned, only a part of it, or another array that is known. A story is told only if it gives the
array exactly, up to rounding, and changes one thing.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, permutations
from typing import Any

import numpy as np

from exercises.harness.inner import COLUMNS, KEPT, Inner, Watch

Arrays = dict[str, np.ndarray]
ROWS = "n"  # the axis letter that stands for all leading axes
MANY = 8  # numbers that agree with one array by no chance
TABLE = 4  # terms of a sum that is written out
ROOTS = ("r", "d", "c")  # numbers of which a root is taken in some formulas
SOLVED = 40  # numbers of a factor that are found from the array that it is part of, at most
EXACT = 1e-3  # relative: coefficients that differ by less are the same
MOST_SECONDS = 2.0  # of the search for unknown numbers, the last question before the vague ones
HALVED = "in half precision"


@dataclass(frozen=True)
class Story:
    """One explanation of a wrong array.

    Attributes
    ----------
    kind : key of `general.GENERAL`
    change : what was changed, in words that are the same for each array that it explains
    measured : what this array is, "" if `change` says it
    about : the node that was changed, or the way that is missing
    plain : whether one thing was changed, and not a factor besides
    """

    kind: str
    change: str
    measured: str = ""
    about: str = ""
    plain: bool = True


class Terms:
    """The right arrays of an exercise, each as a sum of products.

    Parameters
    ----------
    nodes : by name (no blanks) the axes, one letter each, and the array or the number. An axis
        "n", the first if present, stands for all leading axes.
    sums : by name of the right array its axes and its terms: (ways, product), where `ways` is a
        tuple that says in words what the term passes through, and `product` names the nodes with
        blanks between. What is not an axis of the array is summed over.
    known : further arrays that a wrong answer may hold in the place of a node, by what they are
    lead : the leading axes' shape
    fixed : nodes that only say which rows are meant: another known array may stand there instead
    flow : the same arrays as a computation, with its inner values; see `inner`
    before : those inner values in the step before, or, if `when` says so, another time
    """

    def __init__(self, nodes: dict[str, tuple[str, Any]],
                 sums: dict[str, tuple[str, list[tuple[tuple[str, ...], str]]]],
                 known: Arrays | None = None, lead: tuple[int, ...] = (),
                 fixed: tuple[str, ...] = (),
                 flow: Callable[[Watch], Arrays] | None = None, before: Arrays | None = None,
                 when: str = KEPT):
        self.lead, self.sums, self.fixed, self.when = lead, sums, fixed, when
        self.flow, self.before = flow, before or {}
        self.axes = {name: axes for name, (axes, _) in nodes.items()}
        self.nodes = {name: self._flat(axes, np.asarray(array, np.float64))
                      for name, (axes, array) in nodes.items()}
        by_rows = any(axes[:1] == ROWS for axes in self.axes.values())
        self.known = {name: self._flat(ROWS, array) if by_rows and array.shape[:-1] == lead
                      else array for name, array in (known or {}).items()}
        used = {name for _, terms in sums.values() for _, product in terms
                for name in product.split()}
        self.used = [name for name in nodes if name in used]
        sooner = flow(Watch()) if flow else {}  # the same, as the tests see
        self.right = {name: sooner[name] if name in sooner else
                      self._shaped(axes, sum(self.products(name))) for name, (axes, _)
                      in sums.items()}

    def _flat(self, axes: str, array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, *array.shape[len(self.lead):]) if axes[:1] == ROWS else array

    def _shaped(self, axes: str, array: np.ndarray) -> np.ndarray:
        return array.reshape(*self.lead, *array.shape[1:]) if axes[:1] == ROWS else array

    def products(self, name: str, changed: Arrays | None = None) -> list[np.ndarray]:
        """The terms of an array, with some nodes `changed`."""
        axes, terms = self.sums[name]
        nodes = self.nodes | (changed or {})
        return [self._product(product.split(), axes, nodes) for _, product in terms]

    def _product(self, keys: list[str], axes: str, nodes: Arrays) -> np.ndarray:
        """The product of some nodes, with these axes. One after the other: all at once is slow."""
        kept, array = "", np.ones(())
        for i, key in enumerate(keys):
            later = set(axes).union(*(self.axes[other] for other in keys[i + 1:]))
            both = dict.fromkeys(kept + self.axes[key])
            new = "".join(letter for letter in both if letter in later)
            array = np.einsum(f"{kept},{self.axes[key]}->{new}", array, nodes[key])
            kept = new
        return np.einsum(f"{kept}->{axes}", array)

    def _beside(self, name: str, product: str, node: str) -> tuple[str, np.ndarray]:
        """All of a product but one node: its axes, those of the array and of the node; the array.

        Of a node that occurs more than once one is left out.
        """
        keys = product.split()
        keys.remove(node)
        if not keys:
            return "", np.ones(())
        letters = {letter for key in keys for letter in self.axes[key]}
        kept = "".join(x for x in dict.fromkeys(self.sums[name][0] + self.axes[node])
                       if x in letters)
        return kept, self._product(keys, kept, self.nodes)

    def changed(self, name: str, nodes: Arrays) -> np.ndarray:
        """What becomes of an array if some of its nodes are others; for twins."""
        return self._shaped(self.sums[name][0], sum(self.products(name, nodes)))

    @np.errstate(all="ignore")  # a guess that overflows is not the reader's, who would be warned
    def explain(self, found: Arrays, tolerance: float) -> list[tuple[list[str], Story]]:
        """What the wrong arrays among `found` are: the names that a story is true of, the story.

        Arrays of which nothing is known are left out. Of several stories that are true of an array
        those are kept that are true of the most arrays; where two are left, both are told.
        """
        stories, wide = {}, {}
        self._wrong, self._end = set(found), time.process_time() + MOST_SECONDS
        for name, value in found.items():
            if name in self.sums and value.shape == self.right[name].shape and not _same(
                    value, self.right[name], tolerance):
                axes = self.sums[name][0]
                flat = self._flat(axes, np.asarray(value, np.float64))
                right = self._flat(axes, self.right[name])
                wide[name] = self._stories(name, flat, right, tolerance)
                stories[name] = next(wide[name], [])
        votes = _votes(stories)
        if len(stories) > max(votes.values(), default=0):  # perhaps a later question tells them all
            later = {name: [*told, *(story for more in wide[name] for story in more)]
                     for name, told in stories.items()}
            if max(_votes(later).values(), default=0) > max(votes.values(), default=0):
                stories, votes = later, _votes(later)
        merged: dict[str, tuple[list[str], Story]] = {}
        for name, told in stories.items():
            best = max(((votes[s.change], s.plain) for s in told), default=())
            kept = list({s.change: s for s in told
                         if (votes[s.change], s.plain) == best}.values())[:2]
            if kept:
                change = ", or ".join(story.change for story in kept)
                about = kept[0].about if len({story.about for story in kept}) == 1 else ""
                merged.setdefault(change, ([], replace(kept[0], change=change, about=about)))
                merged[change][0].append(name)
        return list(merged.values())

    def nearest(self, name: str, value: np.ndarray) -> str:
        """What comes nearest to an array of which no story is true, "" if nothing is near.

        The terms with other coefficients, or one of them with another node, whichever leaves less.
        """
        axes, terms = self.sums[name]
        value = self._flat(axes, np.asarray(value, np.float64))
        size, products = np.linalg.norm(value), self.products(name)
        if not size:
            return ""
        matrix = np.stack([product.ravel() for product in products], axis=1)
        fit = np.linalg.lstsq(matrix, value.ravel(), rcond=1e-8)[0]
        found = [(np.linalg.norm(matrix @ fit - value.ravel()), " + ".join(
            f"{self._called(c)}·({_pretty(product)})"
            for c, (_, product) in zip(fit, terms, strict=True)))] * (len(terms) <= TABLE)
        total = sum(products)
        for node in self.used:
            where = [i for i, (_, product) in enumerate(terms) if node in product.split()]
            changes = list(self._changes(node)) if where and self.nodes[node].ndim else []
            if changes:
                stack, gap = np.stack([array for _, array in changes]), total - value
                for i in where:
                    kept, beside = self._beside(name, terms[i][1], node)
                    gap = gap - products[i] + np.einsum(f"{kept},Z{self.axes[node]}->Z{axes}",
                                                        beside, stack)
                left = np.linalg.norm(gap.reshape(len(changes), -1), axis=1)
                found.append((left.min(), changes[left.argmin()][0]))
        left, words = min(found, default=(size, ""), key=lambda pair: pair[0])
        return f"; nearest is {words}, which leaves {left / size:.0%} of it" * bool(left < size / 2)

    # ---- The questions, in order --------------------------------------------------------------

    def _stories(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                 ) -> Iterator[list[Story]]:
        for question in (self._factor, self._coefficients, self._operands, self._another,
                         self._turned, self._inside, self._solved, self._partly):
            if stories := list(question(name, value, right, tolerance)):
                yield stories

    def _constants(self) -> dict[str, float]:
        """The numbers that a coefficient may be, by what they are."""
        sizes = {}
        if self.lead:
            sizes["the number of rows"] = float(np.prod(self.lead))
        if len(self.lead) > 1:
            sizes |= {"the batch": float(self.lead[0]), "the tokens": float(self.lead[-1])}
        found = {"2": 2.0, "1/2": 0.5, "4": 4.0, "1/4": 0.25}
        scalars = {name: float(array) for name, array in self.nodes.items() if not array.ndim}
        for key, number in {f"({key})": size for key, size in sizes.items()}.items():
            found |= {key: number, f"1/{key}": 1 / number}
        for which, power in {"{}": 1, "1/{}": -1, "{}²": 2, "1/{}²": -2, "√{}": 0.5,
                             "1/√{}": -0.5}.items():
            found |= {which.format(key): number ** power for key, number in scalars.items()
                      if "√" not in which or key in ROOTS}
        return found

    def _counts(self) -> dict[str, float]:
        """What a mean in the place of a sum divides by, where that has no name of its own."""
        lengths = {size for array in self.nodes.values() for size in array.shape if size > 1}
        return {power.format(f"(an axis of {size})"): size ** number
                for size in sorted(lengths)
                for power, number in {"1/{}": -1, "{}": 1, "√{}": 0.5, "1/√{}": -0.5}.items()}

    def _called(self, c: float, counts: bool = False) -> str:
        """A coefficient by its name, by two if two are that large, or with three digits; one that
        has no other may be what a mean divides by."""
        for number in (0, 1, -1):
            if abs(c - number) < EXACT:
                return str(number)
        names = [("-" if c < 0 else "") + name for name, number in self._constants().items()
                 if abs(abs(c) - number) < EXACT * max(1.0, number)]
        if counts and not names:
            names = [name for name, number in self._counts().items()
                     if abs(c - number) < EXACT * max(1.0, number) * min(1.0, number)]
        short = f"{c:.3g}"
        return " or ".join(names[:2]) or (f"{c:.6g}" if short in ("1", "-1") else short)

    def _factor(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                ) -> Iterator[Story]:
        c = _fit(value, right)
        if _same(value, c * right, tolerance):
            called = self._called(c, counts=True)
            if called == "1" or value.size == 1 and _is_number(called) and called != "0":
                return  # off by too much for that, or one number, which any factor explains
            change = ("zero everywhere" if called == "0" else "negated" if called == "-1" else
                      f"multiplied by {called}")
            yield Story("factor", change)

    def _coefficients(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                      ) -> Iterator[Story]:
        terms, products = self.sums[name][1], self.products(name)
        live = [i for i, product in enumerate(products) if product.any()]
        if len(live) < 2 or value.size < 2 * len(live):
            return
        matrix = np.stack([products[i].ravel() for i in live], axis=1)
        sizes = np.linalg.norm(matrix, axis=0)
        fit, _, rank, _ = np.linalg.lstsq(matrix / sizes, value.ravel(), rcond=1e-8)
        fit = fit / sizes
        if rank < len(live) or not _same(
                value, (matrix @ fit).reshape(value.shape), tolerance):
            return
        c = {i: self._called(number, counts=True) for i, number in zip(live, fit, strict=True)}
        measured = " + ".join(f"{c[i]}·({_pretty(terms[i][1])})" for i in live
                              ) if len(live) <= TABLE else ""
        wrong = {i for i in live if c[i] != "1"}
        if not wrong:  # nearly
            c = {i: f"{number:.6g}" for i, number in zip(live, fit, strict=True)}
            wrong = {i for i in live if c[i] != "1"}
        if not wrong:
            return
        ways = [(way,) for i in live for way in terms[i][0]] + [
            pair for i in live for pair in combinations(terms[i][0], 2)] + [
            terms[i][0] for i in live]
        for way in dict.fromkeys(ways):
            through = {i for i in live if set(way) <= set(terms[i][0])}
            if through == wrong and len({c[i] for i in wrong}) == 1:
                one = c[min(wrong)]
                break
        else:
            changes = [f"{_verb(c[i])}: {', '.join(terms[i][0])}" for i in sorted(wrong)]
            yield Story("terms", "; ".join(changes), measured)
            return
        way = ", ".join(way)
        yield Story("terms", f"{_verb(one)}: {way}", measured, way if one == "0" else "")

    def _operands(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                  ) -> Iterator[Story]:
        (axes, terms), products = self.sums[name], self.products(name)
        for node in self.used:
            where = [i for i, (_, product) in enumerate(terms)
                     if node in product.split() and products[i].any()]
            if not where or not self.nodes[node].ndim:
                continue
            beside = [self._beside(name, terms[i][1], node) for i in where]
            kinds, arrays = zip(("", 0 * self.nodes[node]), *self._changes(node), strict=True)
            stack, its = np.stack(arrays), self.axes[node]
            new = [np.einsum(f"{kept},Z{its}->Z{axes}", array, stack) for kept, array in beside]
            if set(axes) <= set(beside[0][0]):  # what is left has all axes without the node
                kinds = (*kinds, f"{node} left out")
                new = [np.concatenate([part, np.einsum(f"{kept}->{axes}", array)[None]])
                       for part, (kept, array) in zip(new, beside, strict=True)]
            told = False
            for group in [where] + [[i] for i in where if len(where) > 1]:
                if told:  # of all terms, so not of some
                    break
                rest = value - right + sum(products[i] for i in group)  # of what the group gives
                parts = sum(new[where.index(i)] for i in group)
                flat = parts.reshape(len(parts), -1)
                usual = sum(products[i] for i in group).ravel()  # what changes nothing is no story
                same = np.abs(flat - usual).max(1) <= tolerance * np.abs(usual).max()
                c = flat @ rest.ravel() / np.maximum((flat * flat).sum(1), 1e-300)
                error = np.abs(rest.ravel() - c[:, None] * flat).max(1)
                for i in np.flatnonzero(~same & (error <= tolerance * np.abs(value).max(
                        initial=1e-12))):
                    called = self._called(c[i])
                    if called == "1" or called != "0" and not _is_number(called):
                        times = "" if called == "1" else f", times {called}"
                        at = "" if group is where else f", in {_pretty(terms[group[0]][1])}"
                        told = True
                        yield Story("operand", f"{kinds[i]}{at}{times}", about=node,
                                    plain=not times)

    def _changes(self, node: str) -> Iterator[tuple[str, np.ndarray]]:
        """Each single change of a node: what it is, and the array after it."""
        axes, array = self.axes[node], self.nodes[node]
        yield from _single(node, array, self.nodes | self.known, node not in self.fixed)
        if axes[:1] == ROWS and len(self.lead) > 1:
            batch = array.reshape(*self.lead, *array.shape[1:])
            yield f"the first two axes of {node} swapped", batch.swapaxes(
                0, 1).reshape(array.shape)
            axis = len(self.lead) - 1
            for what, moved in _moved(batch, axis) if axis else ():
                yield f"the rows of each sequence of {node} {what}", moved.reshape(array.shape)
            for what, one in (("the first entry of the batch", batch[:1]),
                              ("the mean over the batch", batch.mean(0, keepdims=True))):
                yield f"{what} for all of {node}", np.broadcast_to(
                    one, batch.shape).reshape(array.shape)

    @cached_property
    def _inner(self) -> Inner:
        return Inner(self.flow, _single, self.before, self.when)

    def _inside(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                ) -> Iterator[Story]:
        """Right but for one inner value, of those that act on all wrong arrays and on no other."""
        if self.flow is not None and value.size >= 4:
            inner, value = self._inner, self._shaped(self.sums[name][0], value)
            on = {place: names & set(self.right) for place, names in inner.acts_on.items()}
            exact = [place for place in on if on[place] == self._wrong]
            rest = [place for place in on if name in on[place] and place not in exact]
            for places in (exact, rest):
                told = ((place, next((what for what, arrays in inner.made(place) if _same(
                    value, arrays[name], tolerance)), "")) for place in places)
                found = [Story("kept" if what.endswith(self.when) else "inner", what, about=place)
                         for place, what in told if what]
                if any(story.kind == "kept" for story in found):
                    found = [story for story in found[::-1] if story.kind == "kept"]  # the earliest
                swaps = [(s.about, *s.change.split(" in the place of ")) for s in found]
                other = bool(swaps) and all(  # not one that the exercise knows
                    more and what not in inner.instead(place) for place, what, *more in swaps)
                ways = {place: [*inner.ways(place)] for place in places}
                hows = sorted(dict.fromkeys(itertools.chain(*ways.values())),
                              key=lambda how: how == COLUMNS)  # which explains most, last
                tried = [(place, how) for how in (["multiplied by"] if other else hows)
                         for place in places if how in ways[place]] if other or not found else []
                factors = []
                for place, how in tried:
                    if time.process_time() > self._end or how == COLUMNS and factors:
                        break
                    *rows, columns = inner.values[place].shape or (0,)
                    if how == COLUMNS and (tuple(rows) != self.lead or value.size < 4 * columns):
                        continue  # as many numbers as they act on would explain anything
                    factors += self._numbers(name, value, tolerance, place, how)
                if other:  # one that has a name is the plainer story
                    factors = [s for s in factors if s.change.endswith(" 2")
                               or not _is_number(s.change.rpartition(" ")[2])]
                found = factors or found
                yield from found
                if found:
                    return

    def _numbers(self, name: str, value: np.ndarray, tolerance: float, place: str, how: str
                 ) -> Iterator[Story]:
        """Right but for a factor on one inner value, or for a number that is added to it, say."""
        numbers, array = self._inner.number(place, name, value, how)
        if _same(value, array, tolerance):
            numbers[np.abs(numbers) < 1e-5 * np.abs(numbers).max()] = 0
            called = [self._called(c, counts=True) if how == "multiplied by" and abs(c) >= EXACT
                      else f"{c:.2g}" for c in numbers]
            yield Story("inner", f"{place} {how} {', '.join(called)}", about=place)

    def _another(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                 ) -> Iterator[Story]:
        """Equal to, or off by, an array that is known."""
        if value.size >= 3 and not np.ptp(value) and value.flat[0]:
            yield Story("another", f"{value.flat[0]:.3g} everywhere")
        others = {f"the right {key}": self._flat(self.sums[key][0], array)
                  for key, array in self.right.items() if key != name}
        others |= {"1 everywhere": np.ones_like(value)}
        for other, array in (others | self.nodes | self.known).items():
            if array.shape != value.shape or not array.any() or _same(array, right, tolerance):
                continue
            for text, base in (("{}", 0.0 * right), ("the right one plus {}", right)):
                c, rest = _fit(value - base, array), np.linalg.norm(value - base)
                called = self._called(c) if abs(c) > EXACT else f"{c:.2g}"
                left = np.linalg.norm(value - base - c * array) / max(rest, 1e-300)
                # all that is new, by any number; of few the more nearly
                told = left < (0.02 if array.size >= MANY else 1e-4 if array.size >= 4 else 0)
                if (told or called in ("1", "-1") or not _is_number(called)) and _same(
                        value, base + c * array, tolerance):
                    words = text.format(other.replace("1", called, 1) if other == "1 everywhere"
                                        else f"{called} times " * (called != "1") + other)
                    yield Story("another", words)

    def _solved(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                ) -> Iterator[Story]:
        """Right but for one small factor, of which each number follows from many of the array."""
        (axes, terms), products = self.sums[name], self.products(name)
        for node in self.used:
            array, its = self.nodes[node], self.axes[node]
            where = [i for i, (_, product) in enumerate(terms) if node in product.split()]
            if not (array.ndim and where and 3 <= array.size <= min(SOLVED, value.size / 2)) or any(
                    terms[i][1].split().count(node) > 1 for i in where):
                continue
            ones = np.eye(array.size).reshape(array.size, *array.shape)
            matrix = sum(np.einsum(f"{kept},Z{its}->Z{axes}", beside, ones) for kept, beside in (
                self._beside(name, terms[i][1], node) for i in where)).reshape(array.size, -1).T
            rest = (value - right + sum(products[i] for i in where)).ravel()
            found, _, rank, _ = np.linalg.lstsq(matrix, rest, rcond=1e-9)
            if rank == array.size and _same((matrix @ found).reshape(value.shape), rest.reshape(
                    value.shape), tolerance) and not _same(found.reshape(array.shape), array, 1e-9):
                if what := _in_the_place(node, found, array.ravel()):
                    yield Story("operand", what, about=node)

    def _turned(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                ) -> Iterator[Story]:
        value, right = (self._shaped(self.sums[name][0], array) for array in (value, right))
        for what, turned in _rearranged(right):
            if turned.shape == value.shape:
                called = self._called(_fit(value, turned))
                if called in ("1", "-1") and _same(value, float(called) * turned, tolerance):
                    yield Story("turned", what + ", and negated" * (called == "-1"))

    def _partly(self, name: str, value: np.ndarray, right: np.ndarray, tolerance: float
                ) -> Iterator[Story]:
        axes = self.sums[name][0]
        value, right = (self._shaped(axes, array) for array in (value, right))
        if not right.any():
            return
        off = np.abs(value - right)
        close = off <= tolerance * np.abs(right).max(initial=1e-12)
        if close.all() or 10 * off[close].max(initial=0.0) > off[~close].min():
            return  # a little wrong in some places and more in others
        wrong, most = value[~close], np.abs(value).max()
        if close.mean() > 0.1 and most and (np.abs(right[~close]) >= most).all():
            same = (np.abs(np.abs(wrong) - most) < 1e-6 * most).all()
            yield Story("partly", f"clipped at {most:.3g}" if same else
                        f"never above {most:.3g}, and wrong wherever the right one is")
            return
        live = [product != 0 for product in self.products(name) if product.any()]
        at_work = self._shaped(axes, np.logical_and.reduce(live))  # where all terms have a part
        for axis in range(close.ndim):
            others = tuple(i for i in range(close.ndim) if i != axis)
            good = close.all(axis=others) & at_work.any(axis=others)
            if 0.02 < good.mean() < 1:
                zero = not np.compress(~good, value, axis=axis).any()
                yield Story("partly", f"right only for {_indices(good)} of the {good.size} along "
                            f"axis {axis}" + ", and zero for the others" * zero)
                return
        negative = (right[~close] < 0).all()
        if (close & at_work).mean() > 0.1 and (negative or not wrong.any()):
            how = "wrong only where the right one is negative" if wrong.any() else (
                "zero where it is wrong")
            yield Story("partly", f"right in {close.sum()} of {close.size} entries, {how}")


def _in_the_place(node: str, found: np.ndarray, right: np.ndarray) -> str:
    """What stands in the place of a node, of which the numbers are known, in words."""
    low, high, near = found.min(), found.max(), 1e-6 * np.abs(right).max()
    if high - low <= near:
        return f"{high:.3g} everywhere in the place of {node}"
    if np.abs(np.clip(right, low, high) - found).max() <= near:
        ends = [f"at least {low:.3g}"] * bool(right.min() < low - near) + [
            f"at most {high:.3g}"] * bool(right.max() > high + near)
        return f"{node}, {' and '.join(ends)}"
    good, i = np.abs(found - right) <= near, np.abs(found - right).argmax()
    if 4 * good.sum() < good.size:  # then it may as well be another factor
        return ""
    return (f"other numbers in the place of {node}: number {i} is {found[i]:.3g} and not "
            f"{right[i]:.3g}, {good.sum()} of {good.size} are right")


def _votes(stories: dict[str, list[Story]]) -> dict[str, int]:
    """How many arrays each change explains."""
    changes = [change for told in stories.values() for change in {s.change for s in told}]
    return {change: changes.count(change) for change in changes}


def _same(value: np.ndarray, reference: np.ndarray, tolerance: float) -> bool:
    """Equal up to the tolerance, relative to the largest entry of the reference."""
    scale = max(np.abs(reference).max(initial=0.0), 1e-12)
    return value.shape == reference.shape and bool(  # infinity is like nothing
        np.abs(value - reference).max(initial=0.0) <= tolerance * scale < np.inf)


def _fit(value: np.ndarray, base: np.ndarray) -> float:
    """The number that makes c base nearest to the value."""
    return float(np.vdot(base, value) / max(np.vdot(base, base), 1e-300))


def _single(node: str, array: np.ndarray, others: Arrays, all_ways: bool = True
            ) -> Iterator[tuple[str, np.ndarray]]:
    """Each single change of an array: what it is, and the array after it.

    Parameters
    ----------
    others : arrays that may stand in its place
    all_ways : whether it may be another one, or only one of the others
    """
    for other, its in others.items():
        if other == node or np.array_equal(its, array):
            continue
        if its.shape == array.shape:
            yield f"{other} in the place of {node}", its
        elif array.ndim == 2 and its.shape == array.shape[::-1]:
            yield f"{other} transposed in the place of {node}", its.T
    if not all_ways:
        return
    yield f"{node} squared", array * array
    yield f"|{node}|", np.abs(array)
    if (array >= 0).all():
        yield f"the root of {node}", np.sqrt(array)
    yield f"{node} {HALVED}", np.clip(array, -6e4, 6e4).astype(np.float16).astype(float)
    if not (array > 0).all():
        yield f"{node} > 0 in the place of {node}", (array > 0).astype(float)
    yield f"1 - {node} in the place of {node}", 1 - array
    for most in (1, 3, 5):
        if 0.2 < (np.abs(array) <= most).mean() < 1:
            yield f"{node} clipped at {most}", np.clip(array, -most, most)
    yield f"the positive part of {node}", np.maximum(array, 0)
    for what, other in _normalised(array):
        yield f"each row of {node} {what}", other
    if array.ndim > 1 and array.shape[-1] == array.shape[-2]:
        yield f"{node} transposed", array.swapaxes(-1, -2)
    elif array.ndim == 2:
        yield f"{node} reshaped to {array.shape[::-1]} and transposed", array.reshape(
            array.shape[::-1]).T
        yield f"{node} transposed and reshaped to {array.shape}", array.T.reshape(array.shape)
    for axis in range(array.ndim):
        which = "the rows of " * (array.ndim == 2 and axis == 0) + (
            "the columns of " * (array.ndim == 2 and axis == 1)) + node
        for what, moved in _moved(array, axis):
            yield f"{which} {what}", moved
        for what, link, spread in _one_for_all(array, axis):
            yield f"{what} {link} {which} for all", spread
        for what, index in (("the first", 0), ("the last", -1)):
            cut = array.copy()
            cut[(slice(None),) * axis + (index,)] = 0
            yield f"{what} of {which} left out", cut


def _normalised(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """An array after a normalization of its last axis."""
    if array.ndim:
        centred = array - array.mean(-1, keepdims=True)
        for what, base, size in (("divided by its norm", array, np.linalg.norm),
                                 ("divided by its root mean square", array, _rms),
                                 ("divided by its standard deviation, its mean taken off", centred,
                                  np.std)):
            yield what, base / np.maximum(size(base, axis=-1, keepdims=True), 1e-12)
        yield "with its mean taken off", centred
        if array.ndim == 2:
            yield "with the mean over the rows taken off", array - array.mean(0)


def _rms(array: np.ndarray, **axis: Any) -> np.ndarray:
    return np.sqrt((array * array).mean(**axis))


def _moved(array: np.ndarray, axis: int) -> Iterator[tuple[str, np.ndarray]]:
    """An array with its entries in another order along an axis."""
    yield "reversed", np.flip(array, axis)
    late = np.roll(array, 1, axis)
    late[(slice(None),) * axis + (0,)] = 0
    yield "one later, with a zero in front", late
    for step in (1, -1):
        yield "shifted by one", np.roll(array, step, axis)


def _one_for_all(array: np.ndarray, axis: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """An array with one value in the place of all along an axis: what, its preposition, array."""
    for what, link, one in (("the mean", "over", array.mean(axis, keepdims=True)),
                            ("the sum", "over", array.sum(axis, keepdims=True)),
                            ("the first", "of", np.take(array, [0], axis)),
                            ("the last", "of", np.take(array, [-1], axis))):
        yield what, link, np.broadcast_to(one, array.shape)


def _rearranged(right: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A right array with its entries in other places, or with some for all."""
    for axes in list(permutations(range(right.ndim)))[1:] if right.ndim < 5 else ():
        yield f"its axes in the order {axes}", right.transpose(axes)
        yield f"its axes in the order {axes}, and reshaped", right.transpose(axes).reshape(
            right.shape)
    for axis in range(right.ndim):
        for what, moved in _moved(right, axis):
            yield f"{what} along axis {axis}", moved
        for what, _, spread in _one_for_all(right, axis):
            yield f"{what} along axis {axis} for all", spread


def _verb(called: str) -> str:
    words = {"0": "missing", "2": "twice", "-1": "with the wrong sign"}
    return words.get(called.partition(" or ")[0], f"{called} times")


def _indices(good: np.ndarray) -> str:
    return ", ".join(str(i) for i in np.flatnonzero(good)[:6]) + " ..." * int(good.sum() > 6)


def _is_number(called: str) -> bool:
    """Whether a coefficient has no name."""
    try:
        float(called)
    except ValueError:
        return False
    return True


def _pretty(product: str) -> str:
    """A product with what occurs twice as a square."""
    counts: dict[str, int] = {}
    for name in product.split():
        counts[name] = counts.get(name, 0) + 1
    return " ".join(name + {1: "", 2: "²"}.get(count, "³") for name, count in counts.items())
