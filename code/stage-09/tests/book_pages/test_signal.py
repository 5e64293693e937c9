"""The signal through the bottleneck: numbers of peft.Adapter, and settings that are refused."""

import numpy as np
import peft
import pytest
from book_pages.widgets.signal import OFFSETS, TOKENS, UNITS, WIDTH, SignalExplorer
from traitlets import TraitError


def test_units_fire_where_the_adapter_says_so():
    widget = SignalExplorer()
    adapter = peft.Adapter(WIDTH, UNITS, dtype=np.float64, rng=0)
    adapter.W_down[...], adapter.W_up[...] = widget.arrays["down"], widget.arrays["up"]
    for offset in OFFSETS:
        adapter.forward(widget.arrays["noise"] + offset * widget.arrays["common"])
        assert np.array_equal(widget.fires(offset), (adapter.cache["activated"] > 0).sum(axis=0))
    assert (widget.fires(0) > 0).all()  # none is dead until the tokens are moved
    assert 1 <= (widget.fires(16) == 0).sum() <= UNITS - 1
    caption, columns, rows = widget.fallback()
    assert [int(row[-1]) for row in rows] == widget.fires(16).tolist()


@pytest.mark.parametrize("wrong", [{"units": 0}, {"units": UNITS + 1}, {"token": TOKENS + 1},
                                   {"offset": 3.0}])
def test_settings_outside_are_refused(wrong):
    (name, value), = wrong.items()
    with pytest.raises(TraitError, match=f"{name} is one of"):
        setattr(SignalExplorer(), name, value)
