"""Several adapters in one batch: equal to each alone, and to PEFT's own mixed batch."""

import needs
import numpy as np
import pytest

from gradcheck import relative_error
from llama import Llama, LlamaConfig, random_weights
from peft import LoRALinear, PromptTuning
from real_models import hub, mixed
from tensorfile import HubError

CONFIG = LlamaConfig(31, 16, 24, 2, 4, 2, model_type="qwen2", tie_word_embeddings=False)
ADAPTERS = {"first": (3, ("q_proj", "v_proj", "down_proj")), "second": (2, ("v_proj", "lm_head"))}
NAMES = ["second", None, "first", "first", None, "second"]
IDS = np.random.default_rng(2).integers(0, 31, (len(NAMES), 5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base model with biases, in float64, and two adapters with other ranks and targets."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    weights = random_weights(CONFIG, rng, 0.3, np.float64)
    for name, array in weights.items():
        array += 0.2 * rng.standard_normal(array.shape) * name.endswith("bias")
    hub.save_llama(Llama(CONFIG, weights), root / "base")
    for name, (rank, targets) in ADAPTERS.items():
        model = hub.load_llama(root / "base", np.float64)
        for path, module in model.modules().items():
            if path.endswith(targets):
                model.replace(path, LoRALinear(module.weight, module.bias, rank, 5.0))
        for array in model.parameters().values():
            array[...] = 0.3 * rng.standard_normal(array.shape)
        hub.save_adapter(model, root / name)
    return root


def served(folders):
    model = hub.load_llama(folders / "base", np.float64)
    return mixed.Served(model, {name: folders / name for name in ADAPTERS})


def alone(folders, name):
    model = hub.load_llama(folders / "base", np.float64)
    if name:
        hub.load_adapter(model, folders / name)
    return model


def test_each_sequence_gets_what_its_adapter_alone_gives(folders):
    both = served(folders)
    together = both.forward(IDS, NAMES)
    new = both.generate(IDS, NAMES, 4, temperature=0)
    for i, name in enumerate(NAMES):
        model = alone(folders, name)
        assert relative_error(together[i:i + 1], model.forward(IDS[i:i + 1])) < 1e-12
        assert (new[i:i + 1] == model.generate(IDS[i:i + 1], 4, temperature=0)).all()
    first, second = (both.forward(IDS[:1], [name])[0] for name in ADAPTERS)
    assert relative_error(first, second) > 1e-2  # whose row is whose makes a difference


def test_a_mixed_batch_agrees_with_peft(folders):
    answers = needs.ask_hub_oracle([{
        "do": "mixed", "name": "mixed", "base": folders / "base", "ids": IDS, "names": NAMES,
        "adapters": {name: folders / name for name in ADAPTERS}}], folders)
    assert relative_error(served(folders).forward(IDS, NAMES), answers["mixed/exact"]) < 1e-9


def test_the_large_product_is_computed_once(folders, monkeypatch):
    both, count = served(folders), []
    plain = mixed.Linear.forward
    monkeypatch.setattr(mixed.Linear, "forward", lambda self, x: count.append(x) or plain(self, x))
    both.forward(IDS, NAMES)
    assert len(count) == 7 * CONFIG.num_hidden_layers + 1 and {len(x) for x in count} == {IDS.size}


def test_what_cannot_be_served_is_refused(folders, tmp_path):
    both = served(folders)
    for names, said in ((NAMES[:-1], "6 sequences .* got 5"), (["third"] * 6, "'third'.*first")):
        with pytest.raises(ValueError, match=said):
            both.forward(IDS, names)
    with pytest.raises(ValueError, match="stop"):
        both.generate(IDS, NAMES, 2, stop=0)
    with pytest.raises(RuntimeError, match="Served.forward"):
        both.model.forward(IDS)
    with pytest.raises(ValueError, match="a text"):
        mixed.Served(alone(folders, None), {"": folders / "first"})
    model = alone(folders, None)
    model.soft_prompt = PromptTuning(16, 2, dtype=np.float64)
    hub.save_adapter(model, tmp_path)
    with pytest.raises(HubError, match="soft_prompt"):
        mixed.Served(alone(folders, None), {"prompt": tmp_path})
