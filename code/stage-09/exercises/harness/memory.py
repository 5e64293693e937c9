"""How much memory a student's object keeps, however it keeps it."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any


def held(make: Callable[[], Any], *uses: Callable[[Any], Any]) -> list[int]:
    """Bytes that stay while an object lives: once it is made, and after each use of it.

    In a closure, as bytes, in a list, on the class, in the module's dictionary: all count alike.
    What `make` and the uses return but the object itself does not.
    """
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    gc.freeze()  # what there is already need not be looked through again and again
    try:
        before = tracemalloc.get_traced_memory()[0]
        thing, found = make(), []
        for use in (lambda thing: None, *uses):
            use(thing)
            gc.collect()
            found.append(tracemalloc.get_traced_memory()[0] - before)
        return found
    finally:
        gc.unfreeze()
        if ours:
            tracemalloc.stop()
