"""LoRA on embeddings: PEFT's logits are compared in test_hub_parity.py, the gradients here."""

import numpy as np
import pytest

import training
from gradcheck import numerical_gradient, relative_error
from llama import Llama, LlamaConfig, random_weights
from peft import LoRALayer
from real_models.lora_embedding import LoRAEmbedding

IDS = np.array([[0, 5, 5, 3], [1, 1, 2, 5]])  # tokens that occur repeatedly


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_finite_differences(tied):
    rng = np.random.default_rng(0)
    config = LlamaConfig(7, 8, 12, 1, 2, 2, tie_word_embeddings=tied)
    model = Llama(config, random_weights(config, rng, 0.3, np.float64))
    model.replace("model.embed_tokens", LoRAEmbedding(model.embed_tokens.weight, 2, 3.0))
    for array in model.parameters().values():
        array[...] = rng.standard_normal(array.shape)

    def loss():
        return training.cross_entropy(model.forward(IDS[:, :-1]), IDS[:, 1:])[0]

    model.backward(training.cross_entropy(model.forward(IDS[:, :-1]), IDS[:, 1:])[1])
    gradients = model.gradients()
    assert gradients.keys() == {f"model.embed_tokens.{key}" for key in "AB"}
    for name, array in model.parameters().items():
        assert relative_error(gradients[name], numerical_gradient(loss, array)) < 1e-7, name


def test_it_is_lora_on_one_hot_rows():
    rng = np.random.default_rng(0)
    table, one_hot = rng.standard_normal((7, 4)), np.eye(7)[IDS]
    lora, ours = LoRALayer(7, 4, 2, 3.0, dtype=np.float64), LoRAEmbedding(table, 2, 3.0)
    for array, same in zip(lora.parameters().values(), ours.parameters().values(), strict=True):
        array[...] = same[...] = rng.standard_normal(array.shape)
    out = lora.forward(one_hot, table.T)
    lora.backward(out)
    assert relative_error(ours.forward(IDS), out) < 1e-14
    ours.backward(out)
    for name, gradient in lora.gradients().items():
        assert relative_error(ours.gradients()[name], gradient) < 1e-14, name
    assert relative_error(ours.merge()[IDS], out) < 1e-14
