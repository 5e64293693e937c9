"""Exercise 7: the solution is PEFT's DoRA of the transposed weight; what its check says besides."""

import numpy as np
import pytest
from exercise_tools import check, solution

from exercises.ex7_dora import checks
from exercises.harness.checking import Trial
from family.dora import DoRALinear
from gradcheck import relative_error

ColumnDoRA = solution("ex7_dora", "ColumnDoRA")


def filled(**options):
    """A layer with random numbers in all three arrays, and the weight."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((5, 7))
    layer = ColumnDoRA(W, rng.standard_normal(5), 3, 6.0, **options)
    for array in layer.parameters().values():
        array[...] = rng.standard_normal(array.shape)
    return layer, W


@pytest.mark.parametrize("detach", [False, True])
def test_it_is_dora_by_rows_of_the_transposed_weight(detach):
    """The rows' layer agrees with PEFT and with PyTorch, see tests/family. Both get the gradient of
    the merged weight: fed with the unit vectors, a layer returns it."""
    layer, W = filled(detach_norm=detach)
    rows = DoRALinear(np.ascontiguousarray(W.T), None, 3, 6.0, detach_norm=detach)
    rows.lora.A[...], rows.lora.B[...], rows.m[...] = layer.B.T, layer.A.T, layer.m
    G = np.random.default_rng(1).standard_normal((7, 5))  # of the weight, transposed
    out, turned = layer.forward(np.eye(7)), rows.forward(np.eye(5))
    np.testing.assert_allclose(out - layer.bias, turned.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.merge()[0], rows.merge()[0].T, rtol=1e-12, atol=1e-12)
    layer.backward(G), rows.backward(G.T)
    found, right = layer.gradients(), rows.gradients()
    for name, other in {"A": right["B"].T, "B": right["A"].T, "m": right["m"]}.items():
        assert relative_error(found[name], other) < 1e-12


def test_the_full_gradient_leaves_out_what_makes_a_column_longer():
    """With B = V and A the identity, dLoss/dA = B^T dLoss/dV has zeros on its diagonal."""
    W = np.random.default_rng(0).standard_normal((6, 4))
    layer = ColumnDoRA(W, None, 4, 4.0)
    layer.A[...], layer.B[...] = np.eye(4), W  # V = 2 W
    layer.forward(np.eye(4))
    layer.backward(np.random.default_rng(1).standard_normal((4, 6)))
    np.testing.assert_allclose(np.diag(layer.A_grad), 0, atol=1e-12)


@pytest.mark.parametrize(("name", "seen"), [("gradients", "['A', 'B']"), ("merge", "expected 2")])
def test_what_lacks_a_part_is_told(name, seen):
    class Lacks(ColumnDoRA):
        def gradients(self):
            found = super().gradients()
            return {key: found[key] for key in "AB"} if name == "gradients" else found

        def merge(self):
            return super().merge()[:1] if name == "merge" else super().merge()

    report = check("ex7_dora", Lacks)
    assert report.status == "failed" and seen in report.diagnosis.seen


def test_the_computation_is_right_with_the_norm_detached_too():
    trial = Trial(None, np.float64)
    layer, _ = filled(detach_norm=True)
    x = trial.normal(8, 7, seed=2)
    layer.weight, layer.bias = checks._frozen(trial)
    layer.scaling = checks.S
    layer.forward(x)
    back = layer.backward(G := trial.normal(8, 5, seed=3))
    right = checks._terms(trial, layer.parameters(), x, G, detach=True).right
    for name, grad in (layer.gradients() | {"x": back}).items():
        assert relative_error(grad, right[name]) < 1e-12
