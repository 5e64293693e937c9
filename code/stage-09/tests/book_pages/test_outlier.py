"""The outlier's widget shows what exercise 6's own code stores."""

import numpy as np
import pytest
import traitlets

from book_pages.widgets import outlier
from exercises.ex6_qlora import solution
from exercises.ex6_qlora.levels import NF4

TABLES = {"NF4": NF4, "even levels": np.arange(-7, 8) / 7}


@pytest.mark.parametrize("times", outlier.TIMES)
def test_every_position_is_what_the_four_bits_hold(times):
    weights = outlier.block()
    weights[outlier.OUTLIER] = times
    codes, absmax = solution.quantize_nf4(weights, block=16)
    restored = solution.dequantize_nf4(codes, absmax, (16,), block=16)
    shown = outlier.OutlierExplorer(TABLES)._grid[f"NF4,{times}"]
    assert shown["codes"] == np.stack([codes >> 4, codes & 15], axis=1).ravel().tolist()
    np.testing.assert_allclose(shown["restored"], restored, atol=1e-4)
    others = np.delete(np.arange(16), outlier.OUTLIER)
    error = np.linalg.norm((restored - weights)[others]) / np.linalg.norm(weights[others])
    assert shown["error"] == pytest.approx(error, abs=1e-3)


def test_the_outlier_itself_is_restored_and_the_others_lose_their_levels():
    grid = outlier.OutlierExplorer(TABLES)._grid
    for key in TABLES:
        found = [grid[f"{key},{times}"] for times in outlier.TIMES]
        assert all(f["restored"][outlier.OUTLIER] == times
                   for f, times in zip(found, outlier.TIMES, strict=True))
        assert found[0]["used"] > found[-1]["used"] == 1 and found[0]["error"] < found[-1]["error"]


def test_a_size_that_the_slider_lacks_is_refused():
    widget = outlier.OutlierExplorer(TABLES)
    with pytest.raises(traitlets.TraitError, match="7"):
        widget.times = 7
