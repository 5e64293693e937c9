"""What all exercises ask of a class, and `Trial`: all that a test works with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from exercises.harness.compare import DIGITS, Comparisons, called
from exercises.harness.general import GENERAL, Found, NotYet
from exercises.harness.report import Diagnosis
from exercises.harness.run import SLIPS, told
from exercises.harness.terms import Terms

#: Of inputs and of gradients: a limit or a constant that does not belong is seen.
SIZES = ((1e-3, 1e-3), (8.0, 8.0))
MORE_SIZES = ((1e-8, 1.0), (1.0, 1e4))  # in float64
HUGE = 300.0  # of inputs in float64, of which the output alone is compared
MANY = 1100  # rows: more than pieces of 1,024, and a last piece that is shorter


@dataclass
class Case:
    """What `Trial.follows` asks: a student's object, its arrays' names, and what is right."""

    thing: Any
    names: tuple | list
    right: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
    forward: Callable[[np.ndarray], np.ndarray]
    terms: Callable[[np.ndarray, np.ndarray], Terms] | None


class Trial(Comparisons):
    """What a test works with: safe calls, comparisons, and the tests of the contract."""

    def replaces_gradients(self, thing: Any, names: tuple | list,
                           again: Callable[[], Any]) -> None:
        """Raise `Found` if the gradients add up when `again()` does the same, or change when they
        are only asked for once more, or after a step.

        `again` runs forward, too: backward may forget what it has used.
        """
        first = {name: grad.copy() for name, grad in self.arrays(thing, names, "gradients").items()}
        for name, grad in self.arrays(thing, names, "gradients").items():
            if not np.array_equal(grad, first[name]):
                raise Found(GENERAL["kept"], f"The gradient of {name} is another when it is asked "
                                             "for a second time.")
        arrays = self.arrays(thing, names)
        kept = {name: array.copy() for name, array in arrays.items()}
        self._fill(arrays, 800)
        late = thing.gradients()
        for name, array in arrays.items():
            array[...] = kept[name]
        for name, grad in late.items():
            if not np.array_equal(grad, first[name]):
                raise Found(GENERAL["late-gradients"], f"The gradient of {name} is another once "
                                                       "the arrays hold other numbers.")
        again()
        for name, grad in self.arrays(thing, names, "gradients").items():
            if not self.agrees(grad, first[name]):
                raise Found(GENERAL["accumulates"], f"The gradient of {name} changed.")

    def _fill(self, arrays: dict[str, np.ndarray], seed: int) -> None:
        for number, array in enumerate(arrays.values()):
            array[...] = 0.5 * self.normal(*array.shape, seed=seed + number)

    def follows(self, thing: Any, names: tuple | list, shapes: tuple,
                right: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
                forward: Callable[[np.ndarray], np.ndarray] | None = None,
                terms: Callable[[np.ndarray, np.ndarray], Terms] | None = None,
                many: tuple = (MANY,)) -> None:
        """Raise `Found` unless each forward and backward goes by its own input and arrays.

        Parameters
        ----------
        shapes : of the inputs, one for each call; before each all arrays get new numbers, in
            place, and at the end, for one call more, the input itself
        right : function of input and grad_output, asked once the arrays have their new numbers:
            the right gradients by name, that of the input, if it has one, under "x", and the
            output, if of the same shape as the input's gradient or not, under "output"
        forward : function of the input, where it is not `thing.forward`
        terms : like `right`, to tell what is wrong with large or small numbers alone
        many : leading axes of an input with many rows
        """
        arrays, earlier, x = self._apart(thing, names), [], np.empty(0)
        before: tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]] | None = None
        for call, shape in enumerate((*shapes, shapes[-1])):
            new = self.normal(*shape, seed=100 * call + 98)
            if call == len(shapes):
                x[...] = new  # the very array of the last call
            else:
                x = new
            self._fill(arrays, 100 * call)
            found = {"output": self.call(forward or thing.forward, x)}
            G = self.normal(*found["output"].shape, seed=100 * call + 99)
            wanted = right(x, G)

            ask = terms and (lambda x=x, G=G: terms(x, G))
            stale = partial(_stale, right=right, arrays=arrays, x=x, G=G, before=before)
            self._right_in(call, found, wanted, stale, ask)  # before a backward might write over it
            found |= self._back(thing, names, G)
            for name, array in self.arrays(thing, names).items():
                if not np.shares_memory(array, arrays[name]):
                    raise Found(GENERAL["dead-parameters"], "A forward or backward has put another "
                                                            f"array in the place of {name}.")
            self._right_in(call, found, wanted, stale, ask)
            for name, array, copy in earlier:
                if not np.array_equal(array, copy):
                    raise Found(GENERAL["kept"], f"Call {call + 1} has changed what call {call} "
                                                 f"had returned. It is the {_what(name)}.")
            earlier = [(name, array, array.copy()) for name, array in found.items()]
            before = x.copy(), {key: array.copy() for key, array in arrays.items()}, wanted
        case = Case(thing, names, right, forward or thing.forward, terms)
        self._goes_back_again(case, x, G.shape)
        self._sees_each(case, x)
        self._of_any_size(case, shapes[0])
        self._of_any_form(case, shapes[0], many)
        self._at_zero(case, shapes[0])

    def _apart(self, thing: Any, names: tuple | list) -> dict[str, np.ndarray]:
        """The parameters; raise `Found` if two of them are one."""
        arrays = self.arrays(thing, names)
        for one, two in combinations(names, 2):
            if np.shares_memory(arrays[one], arrays[two]):
                raise Found(GENERAL["starts-alike"], f"{one} and {two} are one array.")
        return arrays

    def _back(self, thing: Any, names: tuple | list, G: np.ndarray) -> dict[str, np.ndarray]:
        """The gradients of a backward, that of the input, if there is one, under "x"."""
        back = self.call(thing.backward, G, returns=None)
        return ({} if back is None else {"x": back}) | self.arrays(thing, names, "gradients")

    def _ran(self, case: "Case", x: np.ndarray, times: float = 1.0, seed: int = 9
             ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The output and all gradients of a pass, and the gradient that its backward was given."""
        output = self.call(case.forward, x)
        G = times * self.normal(*output.shape, seed=seed)
        if x.ndim > 1 and x.flags.f_contiguous:
            G = np.asfortranarray(G)
        return {"output": output} | self._back(case.thing, case.names, G), G

    def _goes_back_again(self, case: "Case", x: np.ndarray, shape: tuple) -> None:
        """Raise `Found` if a backward after two forwards is wrong, or a second one, which may
        stop."""
        G, other = self.normal(*shape, seed=8), self.normal(*x.shape, seed=6)
        self.call(case.forward, other)
        before = case.right(other, G)
        self.call(case.forward, x)
        wanted = case.right(x, G)
        for so_far, when in (("Right after one forward", "After two forwards, in backward"),
                             ("Right the first time", "In another backward after that")):
            try:
                found = self._back(case.thing, case.names, G)
            except Exception:  # forgotten, and said so
                if so_far == "Right the first time":
                    return
                raise
            self._right_but(so_far, when, GENERAL["kept"], found, wanted,
                            lambda name: [("what the forward before the last one gives",
                                           before[name])])
            G = self.normal(*shape, seed=9)
            before, wanted = case.right(other, G), case.right(x, G)

    def _sees_each(self, case: "Case", x: np.ndarray) -> None:
        """Raise `Found` if a change of one array alone is not seen: its numbers in another order,
        so that its sum and its size stay."""
        arrays = self.arrays(case.thing, case.names)
        numbers = {name: array.copy() for name, array in arrays.items()}
        for name, array in arrays.items():
            old = array.copy()
            array[...] = array.ravel()[::-1].reshape(array.shape)
            found, G = self._ran(case, x)
            wanted, new = case.right(x, G), array.copy()
            if self._all_right(found, wanted):
                continue
            array[...] = old
            stale = case.right(x, G)
            array[...] = new
            old_one = any(self._all_right({key: value}, stale) for key, value in found.items()
                          if not self._all_right({key: value}, wanted))
            if not (old_one or self._kept_only(case, x)):
                self._right_with(case, "Right for other numbers", f"other numbers in {name}",
                                 GENERAL["range"], found, x, G)
            self._right_but("Right after steps on all arrays", f"After a step on {name} alone",
                            GENERAL["kept"], found, wanted, lambda key, name=name, stale=stale: [
                                (f"what {name} of the call before gives", stale[key])])
        for name, array in arrays.items():
            array[...] = numbers[name]

    def _all_right(self, found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
        return all(value.shape == wanted[name].shape and self.agrees(value, wanted[name])
                   for name, value in found.items())

    def _kept_only(self, case: "Case", x: np.ndarray) -> bool:
        """Whether the same numbers give what is right, after a pass with others in all arrays."""
        arrays = self.arrays(case.thing, case.names)
        numbers = {name: array.copy() for name, array in arrays.items()}
        self._fill(arrays, 900)
        self._ran(case, x[..., ::-1].copy())
        for name, array in arrays.items():
            array[...] = numbers[name]
        found, G = self._ran(case, x)
        return self._all_right(found, case.right(x, G))

    def _of_any_size(self, case: "Case", shape: tuple) -> None:
        """Raise `Found` if what is right for inputs near 1 is wrong for larger or smaller ones."""
        for times, back in SIZES + MORE_SIZES * (self.dtype == np.float64):
            x = times * self.normal(*shape, seed=7)
            found, G = self._ran(case, x, back)
            when = "inputs and gradients" if times == back else f"inputs {times:g} and gradients"
            when = f"{when} {back:g} times as large"
            self._right_with(case, "Right for numbers near one", when, GENERAL["range"], found, x,
                             G)
        if self.dtype == np.float64:
            x = HUGE * self.normal(*shape, seed=7)
            found, G = self._ran(case, x)
            self._right_with(case, "Right for numbers near one", f"inputs {HUGE:g} times as large",
                             GENERAL["range"], {"output": found["output"]}, x, G)

    def _of_any_form(self, case: "Case", shape: tuple, many: tuple) -> None:
        """Raise `Found` if an input of another form is taken for another: as many sequences as
        rows, a view, an array by columns, many rows."""
        k, n = (3, *shape)[-2:]
        x = self.normal(k, k, n, seed=11)
        for what, view in {
                f"{k} sequences of {k} rows": x, "an array that lies by columns":
                np.asfortranarray(x), "a view, every second number of an array":
                np.repeat(x, 2, -1)[..., ::2], f"{' x '.join(map(str, many))} rows":
                self.normal(*many, n, seed=12)}.items():
            found, G = self._ran(case, view)
            some = case if view.size <= 2 * x.size else replace(case, terms=None)  # quickly
            self._right_with(some, "Right for other inputs", what, GENERAL["sizes"], found, view, G)

    def _right_with(self, case: "Case", so_far: str, what: str, diagnosis: Diagnosis,
                    found: dict[str, np.ndarray], x: np.ndarray, G: np.ndarray) -> None:
        """Raise `Found` unless all is right, and say what it is, if it can be measured."""
        wanted = case.right(x, G)
        try:
            self._right_but(so_far, f"With {what}", diagnosis, found, wanted, lambda name: iter(()))
        except Found as wrong:
            known = case.terms and self.measured(found, wanted, case.terms(x, G), f" with {what}")
            if known:
                raise Found(known, f"{known.seen} {so_far}.") from None
            raise wrong from None

    def _at_zero(self, case: "Case", shape: tuple) -> None:
        """Raise `Found` if what is right elsewhere is wrong, or stops, with zeros in an array."""
        x, arrays = self.normal(*shape, seed=5), self.arrays(case.thing, case.names)
        row = x.reshape(-1, x.shape[-1])[0]  # as of a token that fills up
        for name, array in (arrays | {"a row of the input": row}).items():
            kept, array[...] = array.copy(), 0
            try:
                found, G = self._ran(case, x)
            except Found as error:
                raise Found(error.diagnosis, f"With zeros in {name}: {error.diagnosis.seen}"
                            ) from None
            except NotImplementedError:  # which is a RuntimeError
                raise
            except RuntimeError as error:
                raise Found(GENERAL["forgets"], f"With zeros in {name}, backward after forward "
                                                f"stops: {told(error)}") from None
            self._right_with(case, "Right for other numbers", f"zeros in {name}", GENERAL["range"],
                             found, x, G)
            array[...] = kept
        if self.dtype != np.float64:
            return

        def off(found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, float]:
            return {name: np.abs(value - right[name]).max() / max(
                np.abs(right[name]).max(), 1e-300) for name, value in found.items()}

        found, G = self._ran(case, x)
        usual = max(off(found, case.right(x, G)).values())  # an answer's own rounding of a weight
        for array in arrays.values():
            array *= 1e-4  # of which no part is negligible
        found, G = self._ran(case, x)
        self._right_with(case, "Right for other numbers", "small numbers in all arrays",
                         GENERAL["range"], found, x, G)
        if lost := [name for name, error in off(found, case.right(x, G)).items()
                    if error > max(DIGITS, 100 * usual)]:
            raise Found(GENERAL["range"], "With numbers of a ten-thousandth in all arrays this is "
                                          f"wrong: {called(*lost)}. Right for other numbers.")

    def _right_in(self, call: int, found: dict[str, np.ndarray], wanted: dict[str, np.ndarray],
                  stale: Callable[[str], Iterator[tuple[str, np.ndarray]]],
                  terms: Callable[[], Terms] | None) -> None:
        if not call:
            known = terms and any(not self.agrees(value, wanted[name]) for name, value in
                                  found.items() if value.shape == wanted[name].shape
                                  ) and self.measured(found, wanted, terms(), "")
            if known:
                raise Found(known, known.seen)
            for name, value in found.items():
                self.compare(f"the {_what(name)}", value, wanted[name])
            return
        self._right_but("Right in the first call only" if call == 1 else
                        f"Right in the first {call} calls only", f"In call {call + 1}, with other "
                        "numbers in the arrays and another input,", GENERAL["kept"],
                        found, wanted, stale)

    def _right_but(self, so_far: str, when: str, diagnosis: Diagnosis, found: dict[str, np.ndarray],
                   wanted: dict[str, np.ndarray],
                   others: Callable[[str], Iterator[tuple[str, np.ndarray]]]) -> None:
        """Raise `Found` unless all is right, and say what it is instead, if it is one of others."""
        table = {}
        for name, value in found.items():
            if value.shape == wanted[name].shape and self.agrees(value, wanted[name]):
                table[name] = "right"
            else:
                same = (what for what, other in others(name) if other.shape == value.shape
                        and other.any() and self.agrees(value, other))
                table[name] = next(same, "wrong")
        if wrong := [f"the {_what(name)} is {what}" for name, what in table.items()
                     if what != "right"]:
            seen = f"{when} {', '.join(wrong)}. {so_far}."
            raise Found(replace(diagnosis, measured=tuple(
                (name, what if what == "right" else f"{so_far.lower()}, then {what}")
                for name, what in table.items())), seen)

    def keeps_gradients(self, thing: Any, names: tuple | list, after: str, do: Callable[[], Any],
                        diagnosis: Diagnosis) -> None:
        """Raise `Found` if `do()` changes the gradients of the last backward."""
        given = self.arrays(thing, names, "gradients")
        before = {name: grad.copy() for name, grad in given.items()}
        do()
        try:
            now = thing.gradients()
        except NotImplementedError:
            raise
        except Exception:
            now = {}
        if lost := [name for name, grad in before.items()
                    if not np.array_equal(now.get(name), grad)]:
            raise Found(diagnosis, f"After {after} the gradients of {', '.join(lost)} are gone, or "
                                   "others.")

    def keeps_apart(self, build: Callable[[], tuple], names: tuple | list, shape: tuple) -> None:
        """Raise `Found` if two objects at work by turns disturb each other.

        Parameters
        ----------
        build : makes an object, its forward as a function of x, and `right` as for `follows`
        """
        pair, data, results = [build() for _ in range(2)], [], []
        for i, (thing, forward, _) in enumerate(pair):
            self._fill(self.arrays(thing, names), 700 + 100 * i)
            x = self.normal(*shape, seed=710 + i)
            output = self.call(forward, x)
            data.append((x, self.normal(*output.shape, seed=720 + i)))
            results.append({"output": output})
        backs = [self.call(thing.backward, G, returns=None)
                 for (thing, *_), (_, G) in zip(pair, data, strict=True)]
        for found, (thing, *_), back in zip(results, pair, backs, strict=True):
            found |= self.arrays(thing, names, "gradients") | ({} if back is None else {"x": back})
        wanted = [right(*given) for (*_, right), given in zip(pair, data, strict=True)]
        good = [all(self.agrees(value, wanted[i][name]) for name, value in results[i].items())
                for i in range(2)]
        for i, j in ((0, 1), (1, 0)):
            x, G = data[i]

            def others(name: str, i: int = i, j: int = j, G: np.ndarray = G
                       ) -> Iterator[tuple[str, np.ndarray]]:
                yield "that of the other one", wanted[j][name]
                yield "what the input of the other one gives", pair[i][2](data[j][0], G)[name]
                yield "what the arrays of the other one give", pair[j][2](*data[i])[name]

            so_far = f"Right for the {('second', 'first')[i]} object only" if good[j] else (
                "Wrong for both objects")
            when = f"Two objects ran forward, then both backward: in the {('first', 'second')[i]}"
            self._right_but(so_far, when, GENERAL["shared"], results[i], wanted[i], others)

    def undisturbed(self, build: Callable[[], Any], other: Callable[[], Any],
                    use: Callable[[Any], np.ndarray]) -> None:
        """Raise `Found` if an object of other settings, made later, changes what one computes.

        Parameters
        ----------
        build, other : make an object, each time of the same seed, and one of other settings
        use : what an object of `build` computes
        """
        first, second = build(), build()
        expected = use(first)
        other()
        try:
            same = self.agrees(use(second), expected)
        except Exception:  # of other sizes, say: then it computes nothing
            same = False
        if not same:
            raise Found(GENERAL["shared"], "An object of other settings was made, and an earlier "
                                           "one no longer computes what it did.")

    def notices(self, name: str, array: np.ndarray, function: Callable[[np.ndarray], np.ndarray],
                x: np.ndarray) -> None:
        """Raise `Found` if what a function of x gives stays the same when `array` is doubled."""
        first = function(x)
        before = first.copy()
        other = function(x[::-1] / 2)
        if np.shares_memory(first, other) or self.agrees(other, before) and before.any():
            raise Found(GENERAL["kept"], "Two inputs gave the same result, or one array for both.")
        array *= 2
        if self.agrees(function(x), before):
            raise Found(GENERAL["dead-parameters"], f"{name} was doubled, and nothing changed.")

    def fresh_results(self, function: Callable, one: tuple, two: tuple) -> None:
        """Raise `Found` if a function knows of the call before, or writes into what that gave.

        Parameters
        ----------
        one, two : two calls' arguments, which must not give the same
        """
        def arrays(given: tuple) -> list[np.ndarray]:
            result = self.call(function, *given, returns=(np.ndarray, tuple, list))
            parts = [result] if isinstance(result, np.ndarray) else result
            return [array for array in parts if isinstance(array, np.ndarray)]

        parts, name = arrays(one), getattr(function, "__name__", "the function")
        copies = [array.copy() for array in parts]
        for array, copy, other in zip(parts, copies, arrays(two), strict=False):
            if array.tobytes() != copy.tobytes():
                raise Found(GENERAL["kept"], f"A second call of {name} changed what the first had "
                                             "returned.")
            if np.array_equal(copy, other) and np.ptp(copy):
                raise Found(GENERAL["kept"], f"{name} gave the same numbers twice, of two inputs.")

    def own_memory(self, what: str, array: np.ndarray, *others: np.ndarray) -> None:
        """Raise `Found` if a result is, or is a view of, an array that belongs to somebody else."""
        if any(np.shares_memory(array, other) for other in others):
            raise Found(GENERAL["handed-out"], f"{what} shares its memory with an array that was "
                        "passed in, one of parameters(), or what another call gave.")

    def starts_from_rng(self, build: Callable[[Any], dict[str, np.ndarray]],
                        never_zero: tuple = (), free: tuple = ()) -> None:
        """Raise `Found` unless what starts at random comes from rng, and is of full rank.

        Parameters
        ----------
        build : function of a generator or None, gives the parameters of an object made with it
        never_zero : names of arrays that do not learn from a start at zero
        free : names of arrays of which one random one is enough, of any rank
        """
        init = getattr(self.student, "__init__", None)
        if (getattr(init, "__kwdefaults__", None) or {}).get("rng") is not None:
            raise Found(GENERAL["ignores-rng"], "The default of rng is not None, so all objects "
                                                "have it in common.")
        first, same, other = map(build, (self.rng(1), self.rng(1), self.rng(2)))
        common = {id(held): (held, str(held.bit_generator.state)) for held in self.generators()}
        fresh, again = build(None), build(None)
        if any(str(held.bit_generator.state) != state for held, state in common.values()):
            raise Found(GENERAL["ignores-rng"], "Made without rng, it draws from a generator that "
                                                "all have in common.")
        for i, (name, array) in enumerate(first.items()):
            if not np.array_equal(array, same[name]):
                raise Found(GENERAL["ignores-rng"], "Two made from the same seed "
                                                    f"differ in {name}.")
            if name in free or not array.any() and name not in never_zero:
                continue
            for which, one, two in (("from different seeds", first, other),
                                    ("without rng", fresh, again)):
                if array.any() and np.array_equal(one[name], two[name]):
                    raise Found(GENERAL["ignores-rng"], f"Two made {which} have the same {name}.")
            if np.linalg.matrix_rank(array) < min(array.shape):
                raise Found(GENERAL["starts-alike"], f"{name} has not the rank {min(array.shape)}.")
            for earlier in list(first)[:i]:
                if np.array_equal(array, first[earlier]):
                    raise Found(GENERAL["starts-alike"], f"{earlier} and {name} are the same.")
        for which, one, two in (("from different seeds", first, other),
                                ("without rng", fresh, again)):
            if all(np.array_equal(one[name], two[name]) for name in first):
                raise Found(GENERAL["ignores-rng"], f"Two made {which} are the same.")

    def refuses(self, what: str, function: Callable[[], Any],
                errors: tuple = (ValueError, TypeError),
                diagnosis: Diagnosis = GENERAL["accepts-nonsense"]) -> None:
        """Raise `Found` unless `function()` raises one of `errors`."""
        expected = " or ".join(error.__name__ for error in errors)
        outcome = f"no {expected}"
        try:
            function()
        except (NotImplementedError, NotYet, Found):  # the first of these is a RuntimeError too
            raise
        except errors:
            return
        except Exception as error:  # stopped, but by accident and with an error that explains less
            if diagnosis is GENERAL["accepts-nonsense"] and isinstance(error, SLIPS):
                raise  # in backward before forward, what is not there yet can be missed by accident
            outcome = f"{type(error).__name__} ({told(error)}), expected {expected}"
        if diagnosis is GENERAL["backward-first"] and (name := self.on_the_class()):
            raise Found(GENERAL["shared"], f"{what} found what another object had left in {name}.")
        raise Found(diagnosis, f"{what} raised {outcome}.")

    def refuses_backward_first(self, thing: Any, grad_output: np.ndarray) -> None:
        """Raise `Found` unless `backward` of what has seen no forward raises RuntimeError."""
        self.refuses("backward before forward", lambda: thing.backward(grad_output),
                     (RuntimeError,), GENERAL["backward-first"])

    def refuses_gradients(self, forward: Callable[[], Any], backward: Callable[[np.ndarray], Any],
                          right: tuple, *others: tuple) -> None:
        """Raise `Found` unless `backward` refuses a gradient of a shape that is not the right one:
        the others, and two gradients at once, of which an answer may take the sum.

        Parameters
        ----------
        forward : function of nothing that runs it once more: a refused gradient may cost that
        """
        for shape in (*others, (2, *right)):
            forward()
            self.refuses(f"a gradient of shape {shape} for one of {right}",
                         lambda shape=shape: backward(self.normal(*shape)))


def _stale(name: str, right: Callable, arrays: dict[str, np.ndarray], x: np.ndarray, G: np.ndarray,
           before: tuple[np.ndarray, dict, dict]) -> Iterator[tuple[str, np.ndarray]]:
    """What an array would be if something had stayed from the call before."""
    old_x, numbers, results = before
    yield "that of the call before", results[name]
    if old_x.shape == x.shape:
        yield "what the input of the call before gives", right(old_x, G)[name]
    now = {key: array.copy() for key, array in arrays.items()}
    for keys in (*((key,) for key in arrays), tuple(arrays)):
        for key in keys:
            arrays[key][...] = numbers[key]
        value = right(x, G)[name]
        for key in keys:
            arrays[key][...] = now[key]
        yield f"what {' and '.join(keys)} of the call before give", value


def _what(name: str) -> str:
    return name if name == "output" else f"gradient of {name}"
