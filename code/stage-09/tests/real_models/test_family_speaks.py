"""Each method of family/ on the speaking model: forward, backward, two steps, what stays frozen.

The methods are plugged in as the comparison plugs them in, all through the model. Two are asked of
a part, since they decompose each matrix that they train: PiSSA of the v projections, GaLore of one
layer.
"""

from zlib import crc32

import needs
import numpy as np
import pytest

import training
from experiments.family import METHODS, wrap
from family.pissa import PiSSALinear
from llama import Weighted
from real_models import smollm2

pytestmark = pytest.mark.xdist_group("speaking model")  # one worker: it takes gigabytes
LAST = "model.layers.29."


def plug(model, method):
    """Put the method into the model; returns its optimizer."""
    setting, rng = METHODS[method], np.random.default_rng(0)
    if method == "pissa":
        wrap(lambda weight, rank, rng: PiSSALinear(weight, None, rank), ("v_proj",))(
            model, setting.size, rng)
    elif method == "galore":
        for name, module in model.modules().items():
            if isinstance(module, Weighted):
                module.trainable = name.startswith(LAST)
    else:
        setting.plug(model, setting.size, rng)
    return setting.make_optimizer(model.parameters(), setting.start / 30)  # one text, a small step


@pytest.fixture
def model_and_ids():
    if not smollm2.is_there():
        needs.missing(f"{smollm2.FOLDER} is missing: `make smollm2` fetches it")
    model, tokenizer = smollm2.load()
    return model, np.array([tokenizer.encode("Every weekday at half past six in the morning").ids])


def frozen(model):
    """Of each pretrained weight that is not trained, a number that changes with any bit of it."""
    trained = set(model.parameters())
    return {name: crc32(np.ascontiguousarray(array)) for name, array in model.weights().items()
            if name not in trained}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_on_the_speaking_model_and_leaves_the_rest(method, model_and_ids):
    model, ids = model_and_ids
    said = model.forward(ids)
    optimizer = plug(model, method)
    before, losses = frozen(model), []
    start = {name: array.copy() for name, array in model.parameters().items()}
    for step in range(3):
        logits = model.forward(ids)
        if step == 0:  # every method starts where the pretrained model is
            np.testing.assert_allclose(logits, said, rtol=0, atol=2e-3)
        loss, grad = training.cross_entropy(logits[:, :-1], ids[:, 1:])
        losses.append(loss)
        if step < 2:
            model.backward(np.pad(grad, ((0, 0), (0, 1), (0, 0))))
            optimizer.step(model.gradients())
    assert losses[2] < losses[1] < losses[0] and losses[2] < losses[0] - 0.005, losses
    assert frozen(model) == before and len(before) > 0.9 * len(model.weights())
    still = [name for name, array in model.parameters().items()
             if np.array_equal(array, start[name])]
    assert not still, f"{len(still)} of {len(start)} arrays did not move, as {still[:3]}"
