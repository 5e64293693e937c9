"""What serving takes, held against the caches that transformers really fills.

`fixtures/caches.json` has their bytes: `oracle/make_cache_fixtures.py` lets small models read.
"""

import json
from pathlib import Path

import pytest

from real_models import accounting, serving

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "caches.json").read_text("utf-8"))
ASKED = [case for case in FIXTURE["cases"] if "bytes" in case]


def held(case):
    model = accounting.read_model(case["config"], case["task"])
    return serving.cache_bytes(model, FIXTURE["batch"], FIXTURE["length"])


def name_of(case):
    config = case["config"]
    return f"{config['model_type']} " + json.dumps(
        {key: value for key, value in config.items() if "slid" in key or key == "layer_types"})


@pytest.mark.parametrize("case", ASKED, ids=name_of)
def test_a_cache_takes_what_transformers_keeps(case):
    try:
        found = held(case)
    except (ValueError, serving.NotEstimated) as error:  # not known, and said by name
        assert any(word in str(error) for word in ("layer_types", "sliding_window")), error
        return
    assert found == case["bytes"]


def test_most_of_what_was_asked_is_counted():
    counted = {}
    for case in ASKED:
        try:
            family = accounting.read_model(case["config"], case["task"]).family
        except ValueError:
            continue
        try:
            counted[family] = held(case) > 0
        except ValueError:
            counted.setdefault(family, False)
    assert {"llama", "gemma2", "gemma3_text", "deepseek_v2", "deepseek_v3", "mixtral", "t5",
            "gpt_oss", "qwen3_next"} <= {family for family, known in counted.items() if known}
    assert all(counted.values()) and counted.keys() >= serving.CACHES.keys() - {"mt5"}


LLAMA = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
         "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
         "vocab_size": 128256}


def test_a_window_bounds_what_is_kept():
    model = accounting.read_model(LLAMA | {"model_type": "mistral", "sliding_window": 100})
    assert serving.cache_bytes(model, 1, 5000) == serving.cache_bytes(model, 1, 99)
    assert serving.cache_bytes(model, 3, 50) == 3 * 50 * 2 * 32 * 2 * 8 * 128


def test_a_bill_has_weights_cache_and_adapters():
    counted = accounting.count_lora(accounting.read_model(LLAMA), 8, ["q_proj"])
    weights, cache, adapters = serving.serving_bill(counted, 4, 1000, adapters=40).items
    assert weights.bytes == 2 * counted.model.num_parameters
    assert cache.bytes == 4 * 1000 * 131_072  # 128 KiB for each token
    assert adapters.bytes == 40 * 2 * counted.trainable
    wide = serving.serving_bill(counted, 4, 1000, adapters=40, base="float32")
    assert wide.bytes == 2 * (weights.bytes + cache.bytes + adapters.bytes)
    packed, *_ = serving.serving_bill(counted, base="nf4").items  # nobody prepares it to serve
    assert packed.bytes < sum(i.bytes for i in accounting.frozen_items(counted, "nf4"))


@pytest.mark.parametrize("config, why", [
    ({"model_type": "bert"}, "no text"), (LLAMA | {"sliding_window": 1}, "sliding_window"),
    (LLAMA | {"sliding_window": "many"}, "sliding_window"),
    (LLAMA | {"attention_chunk_size": 64}, "attention_chunk_size"),
    (LLAMA | {"model_type": "qwen2", "layer_types": 32 * ["sliding_attention"]}, "layer_types"),
    (LLAMA | {"model_type": "exaone4"}, "layer_types"),
    ({"model_type": "phi-msft", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 9},
     "not known")])
def test_an_unknown_cache_is_refused_by_name(config, why):
    with pytest.raises(serving.NotEstimated, match=why):
        serving.cache_record(accounting.read_model(config))


@pytest.mark.parametrize("settings", [{"batch": 0}, {"length": 1.5}, {"adapters": 0}])
def test_bad_settings_are_refused(settings):
    counted = accounting.count_lora(accounting.read_model(LLAMA))
    with pytest.raises(ValueError, match=next(iter(settings))):
        serving.serving_bill(counted, **settings)
    with pytest.raises(ValueError, match="no adapter"):
        serving.serving_bill(accounting.count_full(counted.model))


@pytest.mark.parametrize("more, shown", [
    ({}, "adapters"), ({"quantization_config": {"quant_method": "fp8"}}, "frozen weights, FP8"),
    ({"attention_chunk_size": 8}, "the cache is not counted")])
def test_the_command_line_counts_it_on_the_base_of_the_file(tmp_path, capsys, more, shown):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | more))
    accounting.main([str(path), "--serve", "3", "--rank", "4"])
    assert shown in (printed := capsys.readouterr().out)
    assert ("3 times" in printed) == ("attention_chunk_size" not in more)


def test_the_command_line_refuses_to_serve_without_an_adapter(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    with pytest.raises(SystemExit):
        accounting.main([str(path), "--serve", "3", "--method", "full"])
    assert "no adapter" in capsys.readouterr().err
