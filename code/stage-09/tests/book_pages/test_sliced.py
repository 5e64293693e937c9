"""LoRA in slices computes what `peft.LoRALayer` does, and holds less while it does."""

import tracemalloc

import numpy as np
import peft
import pytest
from book_pages import sliced


def made(kind, *sizes):
    layer = kind(*sizes, rng=np.random.default_rng(0))
    layer.B[...] = np.random.default_rng(1).standard_normal(layer.B.shape)
    return layer


@pytest.mark.parametrize("size", [1, 2 ** 10, 2 ** 15])
def test_slices_change_no_number_beyond_rounding(size, monkeypatch):
    monkeypatch.setattr(sliced, "SLICE_BYTES", size)
    rng = np.random.default_rng(2)
    x, W, g = (rng.standard_normal(shape, dtype=np.float32)
               for shape in ((3, 70, 6), (50, 6), (3, 70, 50)))
    results = []
    for kind in (peft.LoRALayer, sliced.SlicedLoRALayer):
        layer = made(kind, 6, 50, 2)
        results.append([layer.forward(x, W), layer.backward(g), layer.A_grad, layer.B_grad])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_product_never_stands_whole_beside_the_output():
    layer = made(sliced.SlicedLoRALayer, 32, 1024, 16)
    x, W = np.ones((4096, 32), np.float32), np.ones((1024, 32), np.float32)
    tracemalloc.start()
    h = layer.forward(x, W)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * h.nbytes  # the output itself, and little beside it
