"""What all exercises ask of a class, and `Trial`: all that a test works with."""

from collections.abc import Callable
from typing import Any

import numpy as np

from exercises.harness.compare import Comparisons
from exercises.harness.general import GENERAL, Found, NotYet
from exercises.harness.report import Diagnosis
from exercises.harness.run import SLIPS, told


class Trial(Comparisons):
    """What a test works with: safe calls, comparisons, and the tests of the contract."""

    def replaces_gradients(self, thing: Any, names: tuple | list,
                           again: Callable[[], Any]) -> None:
        """Raise `Found` if the gradients add up when `again()` does the same once more.

        `again` runs forward, too: backward may forget what it has used. Neither may take a step.
        """
        first = {name: grad.copy() for name, grad in self.arrays(thing, names, "gradients").items()}
        before = {name: array.copy() for name, array in self.arrays(thing, names).items()}
        again()
        for name, array in self.arrays(thing, names).items():
            self.same_bits(name, array, before[name], GENERAL["writes-parameters"])
        for name, grad in self.arrays(thing, names, "gradients").items():
            if not self.agrees(grad, first[name]):
                raise Found(GENERAL["accumulates"], f"The gradient of {name} changed.")

    def follows(self, thing: Any, names: tuple | list, shapes: tuple,
                right: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]) -> None:
        """Raise `Found` unless each forward and backward goes by its own input and arrays.

        Parameters
        ----------
        shapes : of the inputs, one for each call; before each all arrays get new numbers, in place
        right : function of input and grad_output, asked once the arrays have their new numbers:
            the right gradients by name, that of the input under "x" and the output under "output"
        """
        arrays, earlier = self.arrays(thing, names), []
        for call, shape in enumerate(shapes):
            x, G = (self.normal(*shape, seed=100 * call + seed) for seed in (98, 99))
            for number, array in enumerate(arrays.values()):
                array[...] = 0.5 * self.normal(*array.shape, seed=100 * call + number)
            found = {"output": self.call(thing.forward, x), "x": self.call(thing.backward, G)}
            wanted = right(x, G)
            for name, array in self.arrays(thing, names).items():
                if not np.shares_memory(array, arrays[name]):
                    raise Found(GENERAL["dead-parameters"], "A forward or backward has put another "
                                                            f"array in the place of {name}.")
            results = [(array, array.copy()) for array in found.values()]
            for name, value in (found | self.arrays(thing, names, "gradients")).items():
                what = name if name == "output" else f"gradient of {name}"
                if call and (value.shape != wanted[name].shape
                             or not self.agrees(value, wanted[name])):
                    raise Found(GENERAL["kept"], f"In call {call + 1}, with other numbers in the "
                                                 f"arrays and another input, the {what} is wrong.")
                self.compare(f"the {what}", value, wanted[name])
            for array, copy in earlier:
                if not np.array_equal(array, copy):
                    raise Found(GENERAL["kept"], f"Call {call + 1} has changed what call {call} "
                                                 "had returned.")
            earlier = results

    def refuses(self, what: str, function: Callable[[], Any],
                errors: tuple = (ValueError, TypeError),
                diagnosis: Diagnosis = GENERAL["accepts-nonsense"]) -> None:
        """Raise `Found` unless `function()` raises one of `errors`."""
        expected = " or ".join(error.__name__ for error in errors)
        try:
            function()
        except (NotImplementedError, NotYet, Found):  # the first of these is a RuntimeError too
            raise
        except errors:
            return
        except Exception as error:  # stopped, but by accident and with an error that explains less
            if diagnosis is GENERAL["accepts-nonsense"] and isinstance(error, SLIPS):
                raise  # in backward before forward, what is not there yet can be missed by accident
            raise Found(diagnosis, f"{what} raised {type(error).__name__} ({told(error)}), "
                                   f"expected {expected}.") from None
        raise Found(diagnosis, f"{what} raised no {expected}.")
