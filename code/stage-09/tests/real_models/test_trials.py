"""accounting.py against PEFT on small models: once wrong, and at random settings."""

import copy
import json
from pathlib import Path

import pytest
from pefts import ask, check

from real_models import accounting as ac

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "trials.json"
TRIALS = json.loads(FIXTURES.read_text(encoding="utf-8"))
#: What PEFT counts and we refuse, by a word of our reason: nothing else may be refused.
REFUSED = ("copies of a copy", "OFT is counted on", "PEFT adapts convolutions",
           "beside its tokens", "saved whole besides", "are counted without use_dora")


@pytest.mark.parametrize("row", TRIALS, ids=lambda row: row["config"]["architectures"][0])
def test_what_peft_counts_saves_and_refuses(row):
    model = ac.read_model(row["config"])
    for answer in row["answers"]:
        try:
            counted = ask(model, answer)
        except (TypeError, ValueError) as error:
            assert "error" in answer or any(word in str(error) for word in REFUSED), answer
            continue
        assert "error" not in answer, answer
        check(counted, answer)


MISFITS = json.loads((FIXTURES.parent / "misfits.json").read_text(encoding="utf-8"))
#: What transformers refuses besides, and these tables do not say: which layers share keys and
#: values, what a list of attention types makes of the layers, an image without patches.
NOT_SAID = [("gemma3n_text", "num_hidden_layers"), ("gemma3n_text", "num_kv_shared_layers"),
            ("gemma4_text", "num_kv_shared_layers"), ("gpt_neo", "num_layers"),
            ("llama4", "patch_size")]


@pytest.mark.parametrize("family", MISFITS["bases"])
def test_sizes_that_do_not_fit_are_refused_and_no_others(family):
    assert ac.read_model(MISFITS["bases"][family]).num_parameters > 0
    for of, part, key, value, parameters in MISFITS["tried"]:
        if of != family:
            continue
        config = copy.deepcopy(MISFITS["bases"][family])
        (config[part] if part else config)[key] = value
        try:
            counted = ac.read_model(config).num_parameters
        except ValueError as error:
            # Where transformers rounds the width of a head, it is refused.
            assert parameters is None or "must be a whole number" in str(error), (part, key, value)
        else:
            assert counted == parameters or (family, key) in NOT_SAID, (part, key, value)


def test_a_list_of_layers_is_as_long_as_the_model():
    """Gemma 3 270M without num_hidden_layers: transformers takes 26 and refuses."""
    config = {"model_type": "gemma3_text", "layer_types": 18 * ["sliding_attention"]}
    with pytest.raises(ValueError, match="layer_types lists 18"):
        ac.read_model(config)
    assert ac.read_model(config | {"num_hidden_layers": 18}).num_parameters > 0
