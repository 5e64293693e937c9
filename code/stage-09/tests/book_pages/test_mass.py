"""A prefix in a real attention map: what the widget splits off is what the model's softmax does."""

import names
import numpy as np
import peft
import pytest
from book_pages.widgets.mass import NAME, MassExplorer
from llama import Llama
from traitlets import TraitError


@pytest.mark.parametrize("length", [1, 4, 20])
def test_a_prefix_of_zeros_takes_what_the_model_gives_it(length):
    model = Llama.load(names.DATA.parent / "base")
    model.kv_prefix = peft.PrefixTuning(3, 4, 16, length)
    model.kv_prefix.prefix[:] = 0
    inputs, _ = names.make_batch([NAME])
    model.forward(inputs)
    real = np.stack([layer.self_attn.cache[3][0].reshape(4, inputs.shape[1], -1)
                     for layer in model.layers])  # (layers, heads, T, P+T)
    widget = MassExplorer()
    mass = widget.mass(length, 0.0)
    # float32; the layers above see what the prefix has changed below, so only the first is the same
    np.testing.assert_allclose(mass[0], real[0, ..., :length].sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose((1 - mass[0])[..., None] * widget.weights[0],
                               real[0, ..., length:], atol=1e-6)


def test_settings_outside_are_refused():
    for name, value in (("layer", 4), ("head", 0), ("length", 21), ("score", -9.0)):
        with pytest.raises(TraitError, match=f"{name} is "):
            setattr(MassExplorer(), name, value)
