"""The widget of a real update shows what NumPy's own decomposition says of the recorded matrix."""

import numpy as np
import pytest
import traitlets

from book_pages.widgets.update import UpdateExplorer
from experiments import small_llama, update


def test_the_recorded_update_is_that_of_the_recorded_run():
    run, = small_llama.load_spectra(target=update.TARGET, seed=update.SEED)
    sigma = np.linalg.svd(update.load_update(), compute_uv=False)
    recorded = run["best"]["singular_values"][update.MATRIX]
    np.testing.assert_allclose(sigma, recorded, atol=2e-4)


def handed(widget):
    """B and A as the page gets them."""
    out, in_ = widget._shape
    b, a = (np.array(text.split(), dtype=float) * widget._unit for text in (widget._b, widget._a))
    return b.reshape(out, -1), a.reshape(-1, in_)


@pytest.mark.parametrize("matrix", [
    update.load_update(), np.random.default_rng(1).standard_normal((5, 9)),
    np.random.default_rng(2).standard_normal((9, 5))], ids=["recorded", "wide", "tall"])
def test_each_rank_is_the_best_one_and_misses_what_is_said(matrix):
    widget = UpdateExplorer(matrix)
    b, a = handed(widget)
    for rank, missing in enumerate(map(float, widget._missing.split()), 1):
        rest = matrix - b[:, :rank] @ a[:rank]
        assert np.linalg.norm(rest) / np.linalg.norm(matrix) == pytest.approx(missing, abs=2e-3)
        if rank < min(matrix.shape):  # what is left is largest along the next term
            assert np.linalg.norm(rest, 2) == pytest.approx(
                float(widget._sigma.split()[rank]), abs=2e-3)


def test_the_table_says_what_each_rank_costs():
    _, _, rows = UpdateExplorer(update.load_update()).fallback()
    assert rows[0][:2] == ["1", "128"] and rows[-1] == ["64", "8,192", "0.0%"]


@pytest.mark.parametrize("name, value", [("rank", 0), ("rank", 6), ("row", 6), ("column", 10)])
def test_a_place_outside_the_matrix_is_refused(name, value):
    widget = UpdateExplorer(np.ones((5, 9)))
    with pytest.raises(traitlets.TraitError, match=f"{name} .*{value}"):
        setattr(widget, name, value)


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.ones(4)])
def test_what_is_no_update_is_refused(matrix):
    with pytest.raises(ValueError, match="update"):
        UpdateExplorer(matrix)
