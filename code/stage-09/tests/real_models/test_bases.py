"""How a base's weights lie in memory, held against those who store them so.

`fixtures/bases.json` has what transformers' quantizers, AutoGPTQ's and AutoAWQ's layers take on
models without numbers: `oracle/make_bases_fixtures.py` asks them.
"""

import json
import math
from pathlib import Path

import pytest

from real_models import accounting, bases

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "bases.json").read_text("utf-8"))
LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "vocab_size": 100,
         "num_hidden_layers": 2, "num_attention_heads": 4}


def stored_bytes(model, base, **options):
    counted = accounting.count_lora(model, 1, [accounting.linear_names(model)[0]])
    return sum(item.bytes for item in bases.frozen_items(counted, base, **options))


def name_of(case):
    config = case["config"]
    return f"{config['model_type']} {json.dumps(config['quantization_config'])}"


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=name_of)
def test_a_base_takes_what_its_own_modules_take(case):
    model = accounting.read_model(case["config"], case["task"])
    settings = case["config"]["quantization_config"]
    experts = any(".experts." in m.name for m in model.modules)
    tied = settings.get("ignored_layers") == [] and any(m.tied for m in model.modules)
    if "error" in case or tied or (settings.get("quant_method") in ("gptq", "awq") and experts):
        assert model.stored is None and "counted as if not" in model.notes[-1]
        return
    if "weights" in case:
        quantized = bases.quantized_modules(model, model.stored)
        assert sum(math.prod(m.sizes) for m in quantized) == case["weights"]
    elif model.stored is None:  # nothing in it is converted
        assert case["bytes"] == stored_bytes(model, "bfloat16")
        assert bases.REASONS["none"].split("{")[0] in model.notes[-1]
    else:
        assert stored_bytes(model, "file") == case["bytes"]


#: What an index of a published checkpoint's tensors says of their bytes (`total_size`).
PUBLISHED = [
    # model.safetensors.index.json of openai/gpt-oss-20b
    (13_761_264_768, "file", {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 24,
        "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
            "lm_head"]}}),
    # of a model of the sizes of Llama 3 70B in AWQ, as a test named TestUnmarshalSafetensorIndex
    # quotes its index: 9 files, 80 layers; the sizes are ours, and no other of our formats fits
    (39_767_785_472, "awq", {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80,
        "vocab_size": 128256}),
]


@pytest.mark.parametrize("total, base, config", PUBLISHED)
def test_a_published_checkpoint_has_as_many_bytes(total, base, config):
    assert stored_bytes(accounting.read_model(config), base) == total


@pytest.mark.parametrize("found, why", [
    ({"quant_method": "exl2", "bits": 4.0}, "exl2"), ({"quant_method": ["gptq"]}, "the method"),
    ({"bits": 4}, "the method"), ({"quant_method": "gptq"}, "bits"),
    ({"quant_method": "gptq", "bits": 5}, "bits"), ({"quant_method": "gptq", "bits": 4.5}, "bits"),
    ({"quant_method": "gptq", "bits": True}, "bits"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 10**12}, "group_size"),
    ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format"),
    ({"quant_method": "gptq", "bits": 4, "lm_head": True}, "lm_head"),
    ({"quant_method": "gptq", "bits": 4, "dynamic": {"-:lm_head": {}}}, "dynamic"),
    ({"quant_method": "gptq", "bits": 4, "colour": "red"}, "colour"),
    ({"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": ["c_attn"]}, "c_attn"),
    ({"quant_method": "awq", "version": "gemv"}, "version"),
    ({"quant_method": "awq", "group_size": 48}, "cannot cut"),
    ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt"),
    ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size"),
    ({"quant_method": "fp8", "weight_block_size": None, "scale_fmt": "ue8m0"}, "scale_fmt"),
    ({"quant_method": "fp8", "dequantize": 1}, "dequantize"),
    ({"quant_method": "fp8", "modules_to_not_convert": ["visual"]}, "visual"),
    ({"quant_method": "fp8", "modules_to_not_convert": ["(a+)+$"]}, "modules_to_not_convert"),
    ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", 3]}, "modules_to_not_convert"),
    ({"quant_method": "fp8", "modules_to_not_convert": ["a*"]}, "modules_to_not_convert"),
    ({"quant_method": "mxfp4"}, "gpt_oss"),
    ({"load_in_4bit": False, "quant_method": "bitsandbytes"}, "load_in_4bit"),
    ({"load_in_4bit": True, "bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type"),
], ids=str)
def test_what_is_not_known_is_noted_by_name(found, why):
    model = accounting.read_model(LLAMA | {"quantization_config": found})
    assert model.stored is None and why in model.notes[-1]
    assert model.num_parameters == accounting.read_model(LLAMA).num_parameters
    with pytest.raises(bases.NotStored):
        stored_bytes(model, "file")


def test_a_list_that_takes_long_to_compare_is_noted_as_it_stands():
    names = [f"a{i}" for i in range(2000)]
    model = accounting.read_model(LLAMA | {"num_hidden_layers": 2000, "quantization_config": {
        "quant_method": "fp8", "modules_to_not_convert": names}})
    assert model.stored is None and "modules_to_not_convert" in model.notes[-1]
    assert "a0" not in model.notes[-1]  # they were not looked for


@pytest.mark.parametrize("found, base", [
    ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4+dq"),
    ({"load_in_4bit": True}, "nf4"), ({"load_in_8bit": True}, "int8"),
    ({"quant_method": "fp8"}, "fp8"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}, "gptq-32"),
    ({"quant_method": "awq", "group_size": 64, "modules_to_not_convert": None}, "awq-64"),
], ids=str)
def test_a_file_says_what_can_be_chosen(found, base):
    sizes = {"hidden_size": 128, "intermediate_size": 192}
    model = accounting.read_model(LLAMA | sizes | {"quantization_config": found})
    found = stored_bytes(model, "file")
    assert found == stored_bytes(model, base) != stored_bytes(model, "bfloat16")
    assert bases.is_narrow(model, "file") == bases.is_narrow(model, base)


@pytest.mark.parametrize("config, base, why", [
    (LLAMA, "mxfp4", "gpt_oss"), (LLAMA | {"intermediate_size": 90}, "gptq", "90"),
    ({"model_type": "bert"}, "gptq", "blocks"), ({"model_type": "gpt2"}, "fp8", "no layer"),
    ({"model_type": "mixtral"}, "awq", "stacked"), ({"model_type": "gpt_oss"}, "fp8", "stacked")])
def test_a_format_that_a_model_has_not_is_refused(config, base, why):
    with pytest.raises(bases.NotStored, match=why):
        stored_bytes(accounting.read_model(config), base)


def test_what_trains_is_the_same_on_every_base():
    plain = accounting.count_lora(accounting.read_model(LLAMA), 4)
    packed = accounting.read_model(LLAMA | {"quantization_config": {"quant_method": "fp8"}})
    assert accounting.count_lora(packed, 4).tensors == plain.tensors
    assert accounting.count_lora(packed, 4).total == plain.total


def test_only_bitsandbytes_is_prepared_in_32_bits():
    """PEFT leaves GPTQ alone; nobody prepares the others."""
    model = accounting.read_model(LLAMA)
    wide = {base for base in bases.FORMATS if not bases.is_narrow(model, base)
            and bases.is_narrow(model, base, prepared=False)}
    assert wide == {"int8", "nf4", "nf4+dq"}
    for base in ("fp8", "gptq-32", "awq-32"):
        assert stored_bytes(model, base) == stored_bytes(model, base, prepared=False)
        assert accounting.kept_base(model, base) == "bfloat16"
