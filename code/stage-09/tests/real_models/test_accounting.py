"""accounting.py against counts that others published, and against Hugging Face PEFT itself."""

import hashlib
import json
import math
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import needs
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from real_models import accounting as ac
from real_models import patterns, published, reading

TESTS = Path(__file__).resolve().parents[1]
FIXTURES = TESTS / "fixtures" / "accounting.json"
RECORDED = json.loads(FIXTURES.read_text(encoding="utf-8"))
TINY = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "vocab_size": 101}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4,
      "vocab_size": 30}


def ask(model, question):
    return getattr(ac, f"count_{question['method']}")(model, **question["arguments"])


# ------------------------------------------------------------------------------ published counts

RIGHT = {case["id"]: case for case in published.published()["cases"]}
WRONG = {case["id"]: case for case in published.published()["published_but_wrong"]}


def test_every_published_case_has_a_call():
    assert set(published.CALLS) == set(RIGHT) | set(WRONG)


@pytest.mark.parametrize("case", RIGHT)
def test_published_counts_to_the_last_digit(case):
    printed, counted = RIGHT[case], published.recompute(case)
    packed = printed["all_is"] == "packed 4-bit base + adapter"
    assert counted.trainable == printed["trainable"]
    if printed["all"] is not None:
        assert (counted.packed_total if packed else counted.total) == printed["all"]


@pytest.mark.parametrize("case", WRONG)
def test_published_errors_are_refuted(case):
    printed, counted = WRONG[case], published.recompute(case)
    ours = counted.trainable, counted.total
    if "claimed" in printed:  # this one is given as text
        assert f"{ours[0]:,} / {ours[1]:,}" == printed["correct"]
        assert f"{ours[0]:,}" not in printed["claimed"]
    else:
        assert ours == (printed["recomputed_trainable"], printed["recomputed_all"])
        assert ours != (printed["trainable"], printed["all"])


def test_phi3_drops_five_of_seven_names_and_we_say_so():
    counted = published.recompute("phi3-mini-lora-r8")
    assert counted.unmatched == ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    assert "matched nothing: q_proj" in str(counted)


@pytest.mark.parametrize("name", ac.known_models())
def test_known_models_have_their_published_size(name):
    entry = ac.known_models()[name]
    if "parameters" in entry:
        assert ac.load_model(name).num_parameters == entry["parameters"]
    elif "checked_by" in entry:
        assert entry["checked_by"] in RIGHT
    assert ac.load_model(name).num_parameters > 10**7


def test_there_are_models_from_124_million_to_70_billion():
    sizes = sorted(ac.load_model(name).num_parameters for name in ac.known_models())
    assert len(sizes) >= 12 and sizes[0] < 124_500_000 and sizes[-1] > 70_000_000_000


@pytest.mark.parametrize("rank, targets, millions", [  # LoRA 2106.09685v2, Table 15 (GPT-3)
    (4, ["q", "v"], 18.9), (8, ["q", "v"], 37.7), (4, ["q", "k", "v", "o"], 37.7)])
def test_gpt3_by_hand(rank, targets, millions):
    gpt3 = ac.read_model({**TINY, "hidden_size": 12288, "intermediate_size": 49152,
                          "num_hidden_layers": 96, "num_attention_heads": 96, "vocab_size": 50257})
    counted = ac.count_lora(gpt3, rank, [f"{t}_proj" for t in targets])
    assert round(counted.trainable / 1e6, 1) == millions


# ------------------------------------------------------------------- Hugging Face PEFT's own count

CASES = [pytest.param(case, id=f"{case['model']}-{case['task']}") for case in RECORDED["cases"]]


@pytest.mark.parametrize("case", CASES)
def test_base_models_have_the_shapes_of_transformers(case):
    model = ac.read_model(case["config"], case["task"])
    assert model.num_parameters == case["parameters"]
    if "shapes" not in case:
        return
    ours = {name: list(shape) for name, shape in ac.count_full(model).tensors.items()}
    theirs = case["shapes"]
    if model.task == "MASKED_LM":  # tied tensors have two names, and either may be listed
        assert sorted(ours.values()) == sorted(theirs.values())
    else:
        assert ours == theirs


@pytest.mark.parametrize("case", CASES)
def test_counts_equal_pefts(case):
    model = ac.read_model(case["config"], case["task"])
    assert case["answers"]
    for question in case["answers"]:
        if "error" in question:
            with pytest.raises(ValueError):
                ask(model, question)
            continue
        counted = ask(model, question)
        theirs = question["trainable"], question["all"]
        assert (counted.trainable, counted.total) == theirs, question


@pytest.mark.parametrize("case", CASES)
def test_saved_files_are_exact_to_the_byte(case):
    model = ac.read_model(case["config"], case["task"])
    for question in case["answers"]:
        if "file_bytes" in question:
            counted = ask(model, question)
            header = ac.safetensors_header(counted.tensors)
            assert ac.saved_bytes(counted) == question["file_bytes"], question
            assert hashlib.sha256(header).hexdigest() == question["header_sha256"], question


# ------------------------------------------------------------- what transformers makes of a config

KNOWN = [pytest.param(each, id=f"{each['config']['model_type']}-{i}")
         for i, each in enumerate(RECORDED["families"])]


def digest(model):
    ours = {n: list(shape) for n, shape in ac.count_full(model).tensors.items()}
    two_names = model.task in ("MASKED_LM", "PRE_TRAINING")  # of a tied bias, either is listed
    text = json.dumps(sorted(ours.values()) if two_names else sorted(ours.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("known", KNOWN)
def test_every_class_of_the_table_has_the_tensors_of_transformers(known):
    table = ac.FAMILIES[known["config"]["model_type"]]
    assert known["classes"].keys() >= table["classes"].keys() - {"T5WithLMHeadModel",
                                                                 "MT5WithLMHeadModel"}
    for name, theirs in known["classes"].items():
        model = ac.read_model(known["config"] | {"architectures": [name]})
        if theirs is None:
            continue
        assert digest(model) == theirs, name


@pytest.mark.parametrize("known", KNOWN)
def test_without_a_key_and_with_another_the_count_is_transformers_or_a_refusal(known):
    """Class defaults, null, and every key of the class that changes the model."""
    refused = []
    for row in known["changed"]:
        config = dict(known["config"])
        if "without" in row:
            del config[row["without"]]
        config |= row.get("with", {})
        if "t5" in config["model_type"] and "tie_word_embeddings" in str(row):
            continue  # see `build` in make_accounting_fixtures.py
        try:
            counted = ac.read_model(config).num_parameters
        except ValueError as error:
            refused.append((row, str(error)))
            continue
        if row["parameters"] is None:
            continue  # transformers refuses, we need not
        assert counted == row["parameters"], row
    for row, error in refused:  # a default that is there must not be missed
        assert "without" not in row or row["parameters"] is None or (
            "d / heads must be a whole number" in error), (row, error)


def test_default_targets_are_pefts():
    for method, by_family in RECORDED["default_targets"].items():
        for family, theirs in by_family.items():
            table = ac.FAMILIES[family]
            key = {"IA3_FEEDFORWARD": "feedforward"}.get(method, method.split("_")[0].lower())
            if (family, key) in (("mixtral", "lora"), ("mixtral", "loha"), ("mixtral", "vera")):
                continue  # PEFT's own default fails on transformers 5
            if family == "phi3" or (family == "xlm-roberta" and key in ("ia3", "feedforward")):
                assert theirs is None
                continue
            fallback = table.get("lora") if key in ("vera", "loha") else None
            assert (table.get(key, fallback) or None) == (theirs or None), (family, method)


@pytest.mark.parametrize("known", KNOWN)
def test_what_bitsandbytes_converts(known):
    model = ac.read_model(known["config"])
    assert {m.name for m in ac.quantized_modules(model)} == set(known["quantized"])


@pytest.mark.parametrize("case", RECORDED["sixteen_bits"], ids=lambda case: case["task"])
def test_on_a_base_in_16_bits_copies_stay_in_16_bits(case):
    counted = ac.count_lora(ac.read_model(case["config"], case["task"]), **case["arguments"])
    assert counted.copied == case["sixteen"]
    assert counted.trainable - counted.copied == case["thirty_two"]
    assert ac.saved_bytes(counted, base_dtype="bfloat16") == case["file_bytes"]
    header = ac.safetensors_header(counted.tensors, "float32",
                                   dict.fromkeys(counted.base_tensors, "bfloat16"))
    assert hashlib.sha256(header).hexdigest() == case["header_sha256"]
    whole = ac.memory_bill(counted, base="bfloat16")
    assert sum(i.bytes for i in whole.items[1:]) == 16 * case["thirty_two"] + 8 * case["sixteen"]


@pytest.mark.parametrize("row", RECORDED["inferred"], ids=lambda row: row["config"]["model_type"])
def test_an_inferred_family_is_counted_as_peft_counts_it(row):
    table = ac.FAMILIES[ac.read_model(row["config"]).family]
    assert row["classes"].keys() == table["classes"].keys()
    for name, theirs in row["classes"].items():
        model = ac.read_model(row["config"] | {"architectures": [name]})
        assert theirs in (digest(model), None), name  # of code that a repository brings
    model = ac.read_model(row["config"])
    assert {m.name for m in ac.quantized_modules(model)} == set(row["quantized"])
    for question in row["answers"]:
        if "error" in question:
            with pytest.raises(ValueError):
                ask(model, question)
        else:
            counted = ask(model, question)
            assert (counted.trainable, counted.total) == (
                question["trainable"], question["all"]), question


@pytest.mark.parametrize("targets, trainable", [
    ("all-linear", 996_507_648), (r".*\.(q|down)_proj", 281_542_656),
    (r".*\.0\..*\.experts\.(gate|up)_proj", 704_643_072)])
def test_experts_are_adapted_by_the_names_that_they_had(targets, trainable):
    """Qwen3-30B-A3B, counted by PEFT; an expression for one layer means all of them."""
    model = ac.read_model({"model_type": "qwen3_moe", "hidden_size": 2048, "vocab_size": 151_936,
                           "num_hidden_layers": 48, "moe_intermediate_size": 768,
                           "num_experts": 128, "num_attention_heads": 32, "head_dim": 128,
                           "num_key_value_heads": 4})
    assert ac.count_lora(model, 16, targets).trainable == trainable


CLASSES = json.loads((TESTS / "fixtures" / "classes.json").read_text(encoding="utf-8"))
DEFAULTS = json.loads((TESTS / "fixtures" / "class_defaults.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CLASSES, ids=lambda case: case["class"])
def test_a_class_is_counted_or_refused_by_name(case):
    if case["class"] in ("GPT2DoubleHeadsModel", "T5ForSequenceClassification"):
        with pytest.raises(ValueError, match=f"{case['class']}.*known are"):
            ac.read_model(case["config"])
    else:
        assert ac.read_model(case["config"]).num_parameters == case["parameters"]


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_a_nested_configuration_leaves_out_is_its_class_default(name):
    case = DEFAULTS[name]
    model = ac.read_model(case["sparse"])
    counted = ac.count_lora(model, 8, ["q_proj", "v_proj"])
    assert (model.num_parameters, [counted.trainable, counted.total]) == (case["total"],
                                                                        case["lora"])


def test_an_encoder_of_t5_xxl():
    config = {"architectures": ["T5EncoderModel"], "model_type": "t5", "d_ff": 10240, "d_kv": 64,
              "d_model": 4096, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 24,
              "num_heads": 64, "num_layers": 24, "vocab_size": 32128}
    model = ac.read_model(config)
    assert model.num_parameters == 4_762_310_656
    assert ac.count_lora(model).trainable == 3_145_728
    assert ac.count_adapters(model, 64, "pfeiffer").trainable == 24 * (2 * 64 * 4096 + 64 + 4096)


def test_what_was_assumed_is_said():
    sparse = {key: value for key, value in TINY.items() if key != "vocab_size"}
    [note] = ac.read_model(sparse).notes
    assert "vocab_size = 32000" in note
    assert note in str(ac.count_lora(ac.read_model(sparse)))
    assert ac.read_model(TINY).notes == ()  # kv = heads is Llama's rule, not an assumption
    for key in ("quantization_config", "auto_map"):
        phi3 = ac.known_models()["Phi-3-mini"]["config"] | {
            key: {"AutoModel": "x/y--modeling_phi3.Phi3ForCausalLM"}}
        assert key.split("_")[0][:5] in " ".join(ac.read_model(phi3).notes)


def test_every_classifier_has_as_many_outputs_as_labels():
    """DistilBERT's had two for any number: its question answering takes no other."""
    for family, table in ac.FAMILIES.items():
        for task in {"SEQ_CLS", "TOKEN_CLS"} & table["heads"].keys():
            parts = {"text_config": {"hidden_size": 2560}}
            config = {"model_type": family, "num_key_value_heads": 2, "vocab_size": 99} | (
                parts if "text_config" in table.get("parts", []) else {}) | (
                {"head_dim": 64} if family in ("hunyuan_v1_dense", "ministral") else {})
            two, five = (ac.read_model(config, task, num_labels=n) for n in (2, 5))
            assert any(m.out_features == 5 for m in five.modules if m.is_linear), (family, task)
            more = five.num_parameters - two.num_parameters
            assert more > 0 and more % 3 == 0, (family, task)
    distilbert = {"model_type": "distilbert", "id2label": {"0": "a", "1": "b", "2": "c"}}
    assert ac.read_model(distilbert, "SEQ_CLS").num_parameters == 66_955_779  # transformers'


@pytest.mark.parametrize("name, config, parameters", [
    ("ViTForImageClassification", {"model_type": "vit", "num_labels": 1000}, 86_567_656),
    ("GPTJForCausalLM", {"model_type": "gptj"}, 6_050_882_784),
    ("FalconForCausalLM", {"model_type": "falcon"}, 6_921_720_704),
    ("FalconForCausalLM", {"model_type": "falcon", "hidden_size": 8192, "num_attention_heads": 128,
                           "num_kv_heads": 8, "num_hidden_layers": 60,
                           "new_decoder_architecture": True}, 41_303_293_952),
    ("MptForCausalLM", {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32,
                        "vocab_size": 50432}, 6_649_286_656),
    ("WhisperForConditionalGeneration", {"model_type": "whisper"}, 37_760_640),
    ("BartForConditionalGeneration", {"model_type": "bart"}, 406_291_456),
    ("CLIPModel", {"model_type": "clip", "text_config": {"hidden_size": 512}}, 151_277_313),
    ("Dinov2Model", {"model_type": "dinov2", "image_size": 518, "patch_size": 14}, 86_580_480)])
def test_checkpoints_of_older_and_seeing_families(name, config, parameters):
    assert ac.read_model(config | {"architectures": [name]}).num_parameters == parameters


QWEN_VL_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
              "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
DEBERTA_V3 = {"model_type": "deberta-v2", "hidden_size": 768, "intermediate_size": 3072,
              "max_position_embeddings": 512, "relative_attention": True, "position_buckets": 256,
              "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p",
              "max_relative_positions": -1, "position_biased_input": False,
              "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 0,
              "vocab_size": 128100}
LFM2 = {"model_type": "lfm2", "block_auto_adjust_ff_dim": True, "block_ff_dim": 12288,
        "block_multiple_of": 256, "conv_L_cache": 3, "conv_bias": False, "hidden_size": 2048,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14], "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "vocab_size": 65536}
ESM2 = {"model_type": "esm", "emb_layer_norm_before": False, "is_folding_model": False,
        "max_position_embeddings": 1026, "num_attention_heads": 20, "token_dropout": True,
        "position_embedding_type": "rotary", "vocab_size": 33, "vocab_list": None}


@pytest.mark.parametrize("name, config, parameters", [  # what a checkpoint of the hub has
    ("Qwen2_5_VLForConditionalGeneration", QWEN_VL_7B | {"model_type": "qwen2_5_vl",
        "vision_config": {"hidden_size": 1280, "in_chans": 3, "tokens_per_second": 2}},
     8_292_166_656),
    ("Qwen2_5_VLForConditionalGeneration", {
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048}}, 3_754_622_976),
    ("Qwen2VLForConditionalGeneration", QWEN_VL_7B | {
        "model_type": "qwen2_vl", "vision_config": {"embed_dim": 1280, "hidden_size": 3584}},
     8_291_375_616),
    ("DebertaV2ForSequenceClassification", DEBERTA_V3, 184_423_682),
    ("DebertaV2ForSequenceClassification", DEBERTA_V3 | {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
        "num_hidden_layers": 24}, 435_063_810),
    ("DebertaV2Model", DEBERTA_V3 | {  # of version 2: with a convolution
        "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 24,
        "attention_head_size": 64, "num_hidden_layers": 24, "conv_kernel_size": 3,
        "conv_act": "gelu"}, 884_593_152),
    ("M2M100ForConditionalGeneration", {  # NLLB's smallest
        "model_type": "m2m_100", "vocab_size": 256206, "num_hidden_layers": 12}, 615_073_792),
    ("EsmForMaskedLM", ESM2 | {"hidden_size": 320, "intermediate_size": 1280,
                               "num_hidden_layers": 6}, 7_512_474),
    ("EsmForMaskedLM", ESM2 | {"hidden_size": 1280, "intermediate_size": 5120,
                               "num_hidden_layers": 33}, 651_043_254),
    ("Lfm2ForCausalLM", LFM2, 1_170_340_608),
    ("Lfm2ForCausalLM", LFM2 | {"hidden_size": 1024, "block_ff_dim": 6656,
                                "num_attention_heads": 16}, 354_483_968),
    ("MllamaForConditionalGeneration", {
        "model_type": "mllama", "text_config": {"num_hidden_layers": 40},
        "vision_config": {"image_size": 560, "max_num_tiles": 4}}, 10_670_220_835),
    ("MBartForConditionalGeneration", {"model_type": "mbart", "vocab_size": 250054}, 610_879_488),
    ("PegasusForConditionalGeneration", {
        "model_type": "pegasus", "vocab_size": 96103, "encoder_layers": 16, "decoder_layers": 16},
     570_797_056)])
def test_checkpoints_that_people_adapt(name, config, parameters):
    assert ac.read_model(config | {"architectures": [name]}).num_parameters == parameters


XLSR = {"model_type": "wav2vec2", "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096, "do_stable_layer_norm": True,
        "feat_extract_norm": "layer", "conv_bias": True, "mask_time_prob": 0.075}
SCOUT = {"model_type": "llama4", "text_config": {"num_hidden_layers": 48}, "vision_config": {
    "hidden_size": 1408, "image_size": 336, "vision_output_dim": 4096}}
GEMMA4 = {"model_type": "gemma4_text", "hidden_size": 1536, "intermediate_size": 6144,
          "num_hidden_layers": 35, "num_key_value_heads": 1, "num_kv_shared_layers": 20,
          "use_double_wide_mlp": True, "layer_types": 7 * (
              4 * ["sliding_attention"] + ["full_attention"])}


@pytest.mark.parametrize("name, config, parameters", [  # transformers' counts of these
    ("Wav2Vec2ForCTC", {"model_type": "wav2vec2"}, 94_396_320),
    ("Wav2Vec2ForCTC", XLSR, 315_471_520), ("Wav2Vec2ForPreTraining", XLSR, 316_177_152),
    ("Wav2Vec2ForCTC", XLSR | {"hidden_size": 1280, "num_hidden_layers": 48, "vocab_size": 154,
                               "intermediate_size": 5120, "adapter_attn_dim": 16}, 964_845_850),
    ("HubertModel", {"model_type": "hubert"}, 94_371_712),
    ("HubertForCTC", XLSR | {"model_type": "hubert"}, 315_471_520),
    ("WavLMModel", {"model_type": "wavlm"}, 94_381_936),
    ("T5GemmaForConditionalGeneration", {"model_type": "t5gemma"}, 5_596_853_760),
    ("Mamba2ForCausalLM", {
        "model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 64, "num_heads": 80,
        "n_groups": 1, "vocab_size": 50288, "tie_word_embeddings": True}, 2_702_599_680),
    ("Llama4ForConditionalGeneration", SCOUT, 108_641_793_536),
    ("Llama4ForConditionalGeneration", SCOUT | {"text_config": {
        "num_local_experts": 128, "interleave_moe_layer_step": 2}}, 401_583_781_376),
    ("Llama4ForConditionalGeneration", SCOUT | {"text_config": {
        "num_local_experts": 128, "moe_layers": [*range(1, 48, 2)]}}, 401_583_781_376),
    ("Gemma4ForCausalLM", GEMMA4, 4_628_569_344),
    ("Gemma4ForCausalLM", GEMMA4 | {"per_layer_config": {
        f"{i:02}": {"head_dim": 512} for i in range(4, 35, 5)}}, 4_628_569_344),
    ("SmolVLMForConditionalGeneration", {
        "model_type": "smolvlm", "scale_factor": 4, "text_config": {
            "model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "head_dim": 64,
            "num_attention_heads": 15, "num_key_value_heads": 5, "vocab_size": 49280},
        "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                          "patch_size": 16, "image_size": 512}}, 507_482_304),
    ("MPNetModel", {"model_type": "mpnet", "max_position_embeddings": 514}, 109_486_464)])
def test_checkpoints_of_speech_states_and_two_configurations(name, config, parameters):
    assert ac.read_model(config | {"architectures": [name]}).num_parameters == parameters


@pytest.mark.parametrize("config, message", [
    (XLSR | {"conv_dim": 7 * [256]}, "conv_dim"), (XLSR | {"add_adapter": True}, "add_adapter"),
    (XLSR | {"mask_time_prob": "0.0"}, "mask_time_prob must be a number"),
    ({"model_type": "llava", "text_config": {"model_type": "llama"}}, "needs vision_config"),
    (GEMMA4 | {"per_layer_config": None}, "per_layer_config"),
    (GEMMA4 | {"per_layer_config": {"4": {"head_dim": 512}}}, "per_layer_config"),
    (GEMMA4 | {"per_layer_config": {
        str(i): {"head_dim": 512, "num_key_value_heads": 2} for i in range(4, 35, 5)}},
     "per_layer_config"),
    ({"model_type": "gemma4", "text_config": GEMMA4, "vision_config": {}}, "text_config")])
def test_what_these_might_have_besides_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        ac.read_model(config)


@pytest.mark.parametrize("config, targets, message", [
    ({"model_type": "mamba2"}, ["out_proj"], "out_proj"), (TINY, ["self_attn"], "self_attn"),
    (TINY, ["q_proj", "mlp"], "mlp"),
    (XLSR, ["q_proj", "pos_conv_embed.conv"], "no linear layer")])
def test_what_peft_refuses_by_its_name_is_refused(config, targets, message):
    with pytest.raises(ValueError, match=message):
        ac.count_lora(ac.read_model(config), 8, targets)


def test_what_is_adapted_and_not_saved_is_noted():
    """PEFT counts all linear layers of speech models, and asks for embeddings when it saves."""
    ctc = ac.read_model(XLSR | {"architectures": ["Wav2Vec2ForCTC"]})
    counted = ac.count_lora(ctc, 8, "all-linear")
    assert (counted.trainable, counted.total) == (3_559_680, 319_031_200)
    assert "save_embedding_layers" in str(counted.notes)
    assert "save_embedding_layers" not in str(ac.count_lora(ctc, 8, ["q_proj"]).notes)


MISTRAL = {"model_type": "mistral", "num_key_value_heads": 8, "vocab_size": 32064}
CLIP_L = {"model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336,
          "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
          "patch_size": 14, "projection_dim": 768}
PIXTRAL = {"model_type": "pixtral", "head_dim": 64, "hidden_size": 1024, "image_size": 1540,
           "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
           "patch_size": 14}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16,
          "num_hidden_layers": 27, "patch_size": 14}
SMALL_GRANITE = {
    "model_type": "granitemoehybrid", "hidden_size": 768, "intermediate_size": 2048,
    "shared_intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4,
    "num_hidden_layers": 32, "num_local_experts": 0, "num_experts_per_tok": 0, "vocab_size": 100352,
    "mamba_n_heads": 48, "mamba_d_head": 32, "mamba_d_state": 128, "tie_word_embeddings": True,
    "layer_types": ["attention" if i in (10, 13, 17, 27) else "mamba" for i in range(32)]}


@pytest.mark.parametrize("config, parameters", [  # transformers' counts of what the hub has
    ({"model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64}, 2_768_345_600),
    ({"model_type": "jamba"}, 51_570_323_328),
    ({"model_type": "gpt_neo", "attention_types": [[["global", "local"], 12]]}, 1_315_575_808),
    ({"model_type": "nemotron_h", "hidden_size": 4480, "intermediate_size": 15680,
      "mamba_head_dim": 80, "num_attention_heads": 40, "num_hidden_layers": 56,
      "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"},
     8_888_227_328),
    ({"model_type": "llava_next", "text_config": MISTRAL, "vision_config": CLIP_L}, 7_566_747_648),
    ({"model_type": "mistral3", "vision_config": PIXTRAL, "text_config": {
        "model_type": "ministral3", "hidden_size": 3072, "intermediate_size": 9216,
        "num_hidden_layers": 26, "vocab_size": 131072}, "tie_word_embeddings": True},
     3_849_090_048),
    ({"model_type": "paligemma", "projection_dim": 2304, "vision_config": SIGLIP | {
        "model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 2304},
      "text_config": {"model_type": "gemma2", "vocab_size": 257216}}, 3_032_242_416),
    ({"model_type": "siglip", "text_config": SIGLIP | {"patch_size": None},
      "vision_config": SIGLIP | {"image_size": 384}}, 877_960_498),
    (SMALL_GRANITE, 340_332_224)])
def test_checkpoints_of_states_and_of_two_types(config, parameters):
    model = ac.read_model(config)
    assert model.num_parameters == parameters
    if config is SMALL_GRANITE:  # it has no experts
        assert "experts" not in str(model.notes)


def test_qwen_writes_its_text_config_outside_or_inside():
    """As the hub has it, flat, and as transformers saves it: the same model, the same adapters."""
    flat = QWEN_VL_7B | {"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280}}
    inside = {"model_type": "qwen2_5_vl", "text_config": QWEN_VL_7B,
              "vision_config": {"hidden_size": 1280}}
    counted = [ac.count_lora(ac.read_model(each), 8, ["q_proj", "v_proj", "qkv"])
               for each in (flat, inside)]
    assert counted[0].tensors == counted[1].tensors
    assert len(counted[0].tensors) == 2 * (2 * 28 + 32)  # those of the vision tower, too
    with pytest.raises(ValueError, match="text_config, and it is missing"):
        ac.read_model({"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280}})
    tied = {"text_config": QWEN_VL_7B | {"tie_word_embeddings": True}}  # as version 4 wrote it
    assert ac.read_model(inside | tied).num_parameters == 8_292_166_656 - 152064 * 3584


@pytest.mark.parametrize("numbers", ["2", [2.5], [-1], {"2": 1}, [True]])
def test_a_list_of_numbers_of_layers_that_is_none_is_refused(numbers):
    with pytest.raises(ValueError, match="full_attn_idxs of a lfm2 model"):
        ac.read_model(LFM2 | {"full_attn_idxs": numbers})


def test_a_long_list_of_numbers_of_layers_does_not_take_long():
    """Read are 100,000 letters: 49,000 numbers, each asked for in each of 100,000 layers."""
    start = time.process_time()
    with pytest.raises(ValueError, match="modules"):
        ac.read_model(LFM2 | {"num_hidden_layers": 100_000, "full_attn_idxs": [0] * 49_000})
    assert time.process_time() - start < 5


def test_which_layers_of_lfm2_attend_by_numbers_kinds_or_all():
    def attend(**change):
        config = {key: value for key, value in {**LFM2, **change}.items() if value is not None}
        return [m.name.split(".")[2] for m in ac.read_model(config).modules
                if m.name.endswith("q_proj")]

    assert attend() == ["2", "5", "8", "10", "12", "14"]
    assert len(attend(full_attn_idxs=None)) == 16
    assert attend(layer_types=["conv"] * 15 + ["full_attention"]) == ["15"]  # it goes first


@pytest.mark.parametrize("change, message", [
    ({"pos_att_type": "p2p"}, "pos_att_type"), ({"norm_rel_ebd": "batch"}, "norm_rel_ebd"),
    ({"conv_groups": 2}, "conv_groups"), ({"embedding_size": 128}, "embedding_size"),
    ({"position_buckets": -2}, "position_buckets must be"), ({"hidden_size": -1}, "hidden_size")])
def test_what_deberta_might_have_besides_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ac.read_model(DEBERTA_V3 | change)


def test_what_positions_keep_in_deberta_is_not_estimated():
    deberta = ac.read_model(DEBERTA_V3)
    with pytest.raises(ac.NotEstimated, match="positions"):
        ac.activation_estimate(ac.count_full(deberta), 1, 128)
    assert ac.count_lora(deberta).trainable == 12 * 2 * 8 * (768 + 768)


def test_a_bart_classifier_has_three_outputs_if_the_file_says_none():
    bart = {"model_type": "bart", "architectures": ["BartForSequenceClassification"]}
    assert ac.read_model(bart)["labels"] == 3
    assert ac.read_model(bart | {"num_labels": 2})["labels"] == 2


def test_code_that_reads_texts_builds_no_model():
    """Phi-4-mini's file names a tokenizer beside transformers' own model."""
    phi = ac.known_models()["Phi-3-mini"]["config"]
    read = phi | {"auto_map": {"AutoTokenizer": ["someone/gpt-4o", None]}}
    assert ac.read_model(read) == ac.read_model(phi)
    with pytest.raises(ValueError, match="own.Model"):
        ac.read_model(read | {"auto_map": read["auto_map"] | {"AutoModel": "own.Model"}})


def test_the_fixture_covers_every_family_small_and_real():
    small = {c["config"]["model_type"] for c in RECORDED["cases"] if "shapes" in c}
    real = {c["config"]["model_type"] for c in RECORDED["cases"] if "shapes" not in c}
    typed = set(ac.FAMILIES) - {
        ac.read_model(row["config"]).family for row in RECORDED["inferred"]}
    assert typed - small == {"phi-msft"}  # code of its own, never in Transformers
    assert typed - real <= {"phi-msft", "gemma3_text", "xlm-roberta"}
    assert sum("trainable" in q for c in RECORDED["cases"] for q in c["answers"]) > 800


def test_the_fixture_can_be_made_again(tmp_path):
    python = needs.oracle()
    made = tmp_path / "accounting.json"
    subprocess.run([python, TESTS / "oracle" / "make_accounting_fixtures.py", made], check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    again = json.loads(made.read_text(encoding="utf-8"))
    assert again["cases"] == RECORDED["cases"]
    for key in ("families", "inferred", "default_targets", "sixteen_bits", "logits_peak"):
        assert again[key] == RECORDED[key]
    for now, then in zip(again["kept"], RECORDED["kept"], strict=True):
        assert now["bytes"] == pytest.approx(then["bytes"], rel=0.02)


# --------------------------------------------------------------------------------- matching names


@pytest.mark.parametrize("targets, found", [
    (["v_proj"], 3), (["self_attn.v_proj"], 3), (["attn.v_proj"], 0), (["proj"], 0),
    (r".*v_proj", 3), ("v_proj", 0), (r".*\.1\..*_proj", 7), ("all-linear", 21), ("ALL-LINEAR", 21),
    (["model.layers.2.mlp.up_proj"], 1), (["lm_head", "q_proj"], 4), (["embed_tokens"], 1)])
def test_matching_is_by_whole_path_components(targets, found):
    model = ac.read_model(TINY)
    if not found:
        with pytest.raises(ValueError, match="match nothing.*q_proj"):
            ac.find_modules(model, targets)
    else:
        assert len(ac.find_modules(model, targets)[0]) == found


@pytest.mark.parametrize("targets, layers, found", [
    (["q_proj"], 1, ["1.self_attn.q_proj"]),
    (["q_proj", "up_proj"], [0], ["0.self_attn.q_proj", "0.mlp.up_proj"]),
    (["q_proj", "embed_tokens"], [2], ["2.self_attn.q_proj"]),  # it lies in no layer
    (["q_proj", "model.layers.2.mlp.up_proj"], [0],  # a whole path counts wherever it lies
     ["0.self_attn.q_proj", "2.mlp.up_proj"])])
def test_layers_are_chosen_by_their_number(targets, layers, found):
    modules, _ = ac.find_modules(ac.read_model(TINY), targets, layers=layers)
    assert [m.name for m in modules] == [f"model.layers.{name}" for name in found]


def test_all_linear_in_two_of_three_layers():
    """PEFT's LoRA refuses; LoHa looks at the layers where there are twenty modules or more."""
    with pytest.raises(ValueError, match="needs a list"):
        ac.find_modules(ac.read_model(TINY), "all-linear", layers=[0, 2])
    modules, unmatched = ac.find_modules(ac.read_model(TINY), "all-linear", layers=[0, 2],
                                         default="loha")
    assert len(modules) == 14 and not any(".1." in m.name for m in modules) and not unmatched


def test_output_dense_matches_attention_and_mlp():
    bert = ac.load_model("BERT-base (cased)")
    assert len(ac.find_modules(bert, ["output.dense"])[0]) == 24


# ----------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("convention, bytes_each", [
    ("fp32", 16), ("mixed", 16), ("amp", 18), ("no-master", 12), ("bf16", 8)])
def test_full_fine_tuning_under_each_convention(convention, bytes_each):
    model = ac.load_model("Llama-2-7B")
    bill = ac.memory_bill(ac.count_full(model), convention=convention)
    assert bill.bytes == bytes_each * 6_738_415_616
    assert sum(ac.CONVENTIONS[convention][:4]) == bytes_each


@pytest.mark.parametrize("name, nf4, double, with_rest", [  # shared: bits per weight, not our code
    ("Llama-2-7B", 3.643, 3.341, 4.390), ("Llama-3-8B", 3.926, 3.600, 7.804),
    ("LLaMA-65B", 36.428, 33.408, 35.510)])
def test_nf4_sizes(name, nf4, double, with_rest):
    counted = ac.count_lora(ac.load_model(name))
    plain, twice = (ac.frozen_items(counted, base) for base in ("nf4", "nf4+dq"))
    assert round(sum(i.bytes for i in plain[:2]) / 1e9, 3) == nf4
    assert round(sum(i.bytes for i in twice[:2]) / 1e9, 3) == double
    assert round(sum(i.bytes for i in twice) / 1e9, 3) == with_rest
    loaded = ac.frozen_items(counted, "nf4+dq", prepared=False)
    assert twice[2].bytes == 2 * loaded[2].bytes and twice[:2] == loaded[:2]
    weights = sum(m.num_parameters for m in ac.quantized_modules(counted.model))
    assert 8 * sum(i.bytes for i in twice[:2]) / weights == 4.126953125


def test_qlora_headline_is_twelve_bytes():
    bill = ac.memory_bill(ac.count_full(ac.load_model("LLaMA-65B")), convention="no-master")
    assert round(bill.bytes / 1e9, 1) == 783.4  # QLoRA's abstract: "> 780 GB"


def test_lora_bill_is_frozen_plus_sixteen_bytes_each():
    counted = ac.count_lora(ac.load_model("Llama-2-7B"))
    bill = ac.memory_bill(counted)
    assert bill.bytes == 2 * 6_738_415_616 + 16 * counted.trainable
    eight_bit = ac.memory_bill(counted, optimizer="adamw-8bit")  # 256 numbers share a scale
    assert bill.bytes - eight_bit.bytes == 6 * counted.trainable - 8 * counted.trainable // 256


def test_activations_with_checkpointing_are_fewer_and_grow_with_batch():
    counted = ac.count_lora(ac.load_model("Llama-2-7B"))
    whole = ac.activation_estimate(counted, batch=1, length=1024)
    two = ac.activation_estimate(counted, batch=2, length=1024)
    saved = ac.activation_estimate(counted, batch=1, length=1024, checkpointing=True)
    assert two.bytes == 2 * whole.bytes
    assert saved.bytes < whole.bytes / 3


@pytest.mark.parametrize("kept", RECORDED["kept"], ids=lambda k: "-".join(
    (k["config"]["model_type"], k["method"], k["attention"], k["base"])))
def test_activation_estimate_against_what_pytorch_keeps(kept):
    model = ac.read_model(kept["config"])
    counted = ac.count_full(model) if kept["method"] == "full" else ac.count_lora(
        model, target_modules="all-linear" if "all" in kept["method"] else None)
    attention = "flash" if kept["attention"] == "sdpa" else "eager"
    estimate = ac.activation_estimate(counted, 2, 128, attention=attention,
                                      base=kept["base"]).bytes
    # GPT-2's activation function is written out in steps: there the estimate is a lower bound.
    # Eager attention in Transformers also keeps shared key and value heads once per query head.
    low, high = (0.4, 1.0) if model.family == "gpt2" else (0.9, 1.1)
    assert low * kept["bytes"] < estimate < high * kept["bytes"]


@pytest.mark.parametrize("base", RECORDED["logits_peak"])
def test_bytes_of_a_logit_are_those_alive_at_the_peak_of_its_loss(base):
    """Recorded: what PyTorch holds at once in loss and backward pass of transformers' Llama."""
    counted = ac.count_lora(ac.read_model(TINY))
    estimate = by_label(ac.activation_estimate(counted, 1, 10, base=base))
    assert estimate["logits and their gradient"] == RECORDED["logits_peak"][base] * 10 * 101


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("change, message", [
    ({"model_type": "xlnet"}, "model_type 'xlnet' is not a family .*, xglm$"),
    ({"model_type": "gemma3n", "text_config": {}}, "'gemma3n' is not counted: .*timm"),
    ({"model_type": None}, "model_type is missing"),
    ({"hidden_size": None}, "needs hidden_size.*missing"),
    ({"model_type": "gemma", "head_dim": None}, "needs head_dim"),
    ({"architectures": ["LlamaForVision"]}, "LlamaForVision .*known are LlamaForCausalLM"),
    ({"architectures": ["LlamaForMaskedLM"]}, "LlamaForMaskedLM "),
    ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM .* not a class of llama"),
    ({"auto_map": {"AutoModel": "a/b--modeling.JinaBertModel"}}, "auto_map .*JinaBertModel"),
    ({"model_type": "bert", "add_cross_attention": True}, "add_cross_attention is True"),
    ({"vision_config": {}}, "model_type 'llama' with parts of its own .vision_config"),
    ({"mm_vision_tower": "clip"}, "parts of its own .mm_vision_tower"),
    ({"_class_name": "UNet", "_diffusers_version": "1"}, "this file is diffusers' .*'UNet'"),
    ({"hidden_size": "4096"}, "positive integer, got '4096'"),
    ({"hidden_size": -4}, "positive integer, got -4"), ({"hidden_size": 48.5}, "got 48.5"),
    ({"num_key_value_heads": 0}, "num_key_value_heads must be a positive integer, got 0"),
    ({"hidden_size": 10**400}, "hidden_size is larger than 100,000,000"),
    ({"num_hidden_layers": 10**8},  # refused before any is made
     r"with those called model\.layers.* that makes more than 100,000 modules"),
    ({"id2label": 5}, "id2label must be an object, got 5"),
    ({"architectures": [1]}, r"architectures must be a list of names, got \[1\]"),
    ({"architectures": "LlamaForCausalLM"}, "architectures must be a list of names"),
    ({"hidden_size": True}, "positive integer, got True"),
    ({"attention_bias": 3}, "attention_bias must be true or false, got 3"),
    ({"model_type": ["llama"]}, "is not a family"),
    ({"num_attention_heads": 5}, "d / heads must be a whole number, got 9.6 from d=48, heads=5"),
    ({"num_hidden_layers": 0}, "integer"),
    ({"vocab_size": 100_000_001}, "vocab_size is larger than 100,000,000"),
    ({"model_type": "vlm", "text_config": {}},
     r"model_type 'vlm' with parts of its own .*text_config"),
    ({"model_type": "vlm", "text_config": {"model_type": "gemma3_text"}, "vision_config": {}},
     r"model_type 'vlm' .*text_config, vision_config.* pass config\['text_config'\]")])
def test_bad_configurations_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=rf"^config\.json: (.* )?{message}"):
        ac.read_model({**TINY, **change})


def test_sizes_are_refused_above_the_limit_only(monkeypatch):
    assert ac.read_model({**TINY, "vocab_size": 100_000_000})["vocab"] == 100_000_000
    monkeypatch.setattr(reading, "MOST_MODULES", 3 + 3 * 9)  # in all
    assert len(ac.read_model(TINY).modules) == 3 + 3 * 9
    monkeypatch.setattr(reading, "MOST_MODULES", 3 + 3 * 9 - 1)
    with pytest.raises(ValueError, match="those called lm_head that makes more than 29 modules"):
        ac.read_model(TINY)


@pytest.mark.parametrize("call, message", [
    (lambda m: ac.count_lora(m, 0), "rank must be a positive integer, got 0"),
    (lambda m: ac.count_lora(m, 0, ["q_proj"], rank_pattern={"q_proj": 2}), "rank must be"),
    (lambda m: ac.count_lora(m, 8.0), "rank must be a positive integer, got 8.0"),
    (lambda m: ac.count_lora(m, bias="some"), "bias must be one of none"),
    (lambda m: ac.count_lora(m, target_modules=["norm"]), "LoRA adapts linear layers"),
    (lambda m: ac.count_prompt(m, -1), "num_virtual_tokens"),
    (lambda m: ac.count_adapters(m, 8, "serial"), "style must be one of houlsby"),
    (lambda m: ac.memory_bill(ac.count_full(m), convention="fp8"), "convention must be one of"),
    (lambda m: ac.memory_bill(ac.count_full(m), base="int4"), "base must be one of"),
    (lambda m: ac.saved_bytes(ac.count_lora(m), "int8"), "dtype must be one of"),
    (lambda m: ac.load_model("GPT-5"), "no model 'GPT-5'"),
    (lambda m: ac.count_prefix(m, 0), "num_virtual_tokens must be a positive integer, got 0"),
    (lambda m: ac.count_prefix(m, 4, projection=True, hidden=-3), "hidden must be a positive"),
    (lambda m: ac.count_p_tuning(m, 0), "num_virtual_tokens must be a positive integer, got 0"),
    (lambda m: ac.count_p_tuning(m, 4, hidden=2.0), "hidden must be a positive integer, got 2.0"),
    (lambda m: ac.count_p_tuning(m, 4, encoder="GRU"), "encoder must be one of MLP, LSTM"),
    (lambda m: ac.count_prompt(m, 4, submodules=0), "submodules must be a positive integer"),
    (lambda m: ac.count_prompt(m, 4, head="moved"), "head must be one of copied, in place, both"),
    (lambda m: ac.count_adapters(m, True), "bottleneck must be a positive integer, got True"),
    (lambda m: ac.count_adalora(m, 0, ["q_proj"]), "init_rank must be a positive integer"),
    (lambda m: ac.count_loha(m, 0), "rank must be a positive integer"),
    (lambda m: ac.count_loha(m, 4, ["embed_tokens"]), "LoHa is counted on .* model.embed_tokens"),
    (lambda m: ac.count_vera(m, 0), "rank must be a positive integer"),
    (lambda m: ac.count_ia3(m, ["q_proj"]), "pass both target_modules and feedforward_modules"),
    (lambda m: ac.count_lora(m, rank_pattern={"q_proj": 0}), "rank must be a positive integer"),
    (lambda m: ac.find_modules(m, r".*q_proj", layers=1), "layers=.1. needs a list of names"),
    (lambda m: ac.memory_bill(ac.count_full(m), optimizer="adam"), "optimizer must be one of"),
    (lambda m: ac.activation_estimate(ac.count_full(m), 0), "batch must be a positive"),
    (lambda m: ac.activation_estimate(ac.count_full(m), 1, 0), "length must be a positive"),
    (lambda m: ac.activation_estimate(ac.count_full(m), attention="sdpa"), "attention must be"),
    (lambda m: ac.read_model(TINY, "SUMMARY"), "llama has no head for task 'SUMMARY'; it has CA"),
    (lambda m: ac.read_model(TINY, num_labels=-1), "num_labels must be a positive integer, got -1"),
    (lambda m: ac.read_model({**TINY, "num_labels": True}), "num_labels must be .*got True"),
    (lambda m: ac.find_modules(ac.read_model({**TINY, "model_type": "phi3"})),
     "no default target modules for phi3; pass .*'o_proj', 'qkv_proj', 'gate_up_proj'"),
    (lambda m: ac.count_adalora(ac.load_model("Mistral-7B")), "modules of adalora for mistral"),
    (lambda m: ac.find_modules(m, r".*(q_proj"), "target_modules '.*q_proj' is no regular"),
    (lambda m: ac.find_modules(m, exclude=r"["), r"exclude_modules '\[' is no regular"),
    (lambda m: ac.activation_estimate(ac.count_full(m), base="int4"), "base must be one of"),
    (lambda m: ac.count_lora(ac.load_model("BERT-base (cased)", "TOKEN_CLS"), 8, "all-linear"),
     "PEFT refuses to adapt classifier"),
    (lambda m: ac.count_lora(ac.read_model({"model_type": "distilbert"}, "SEQ_CLS"), 8,
                             "all-linear"), "PEFT refuses to adapt pre_classifier"),
    (lambda m: ac.count_prompt(ac.read_model({"model_type": "vit"})), "prompt tuning of vit")])
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=rf"(?<!\w)(?:{message})"):
        call(ac.read_model(TINY))


@pytest.mark.parametrize("text", [
    '{' + '"\\' * 20_000 + '}', "{" + "'\\" * 20_000 + "}", "{" + "\\\"" * 20_000 + "}",
    "{" + "," + " " * 99_000 + "x}", "{" + ", " * 49_000 + "x}", '{"a": \'' + "\\" * 99_000 + "}",
    "{" + "'\"" * 40_000 + "}"], ids=range(7))
def test_no_text_parses_in_quadratic_time(text):
    start = time.process_time()
    with pytest.raises(ValueError, match="not JSON"):
        ac.parse_config(text)
    assert time.process_time() - start < 2


def test_a_configuration_has_as_many_characters_as_the_page_takes():
    page = Path(ac.__file__).parents[1] / "book_pages" / "widgets" / "model_config.js"
    assert f"LONGEST_CONFIG = {ac.LONGEST_CONFIG:_};" in page.read_text(encoding="utf-8")
    text = json.dumps({"a": "\N{SNOWMAN}" * 20}, ensure_ascii=False)
    longest = text + " " * (ac.LONGEST_CONFIG - len(text))
    for given in (longest, longest.encode(), longest.encode("utf-16")):
        assert ac.parse_config(given) == json.loads(text)
    for given in (longest + " ", (longest + " ").encode()):
        with pytest.raises(ValueError, match="100,001 characters"):
            ac.parse_config(given)


@pytest.mark.parametrize(("text", "value"), [
    ("{'a': 'it\\'s \"so\"'}", 'it\'s "so"'), ('{"a": "it\'s, }"}', "it's, }"),
    ('{"a": "\\"True\\""}', '"True"'), ("{'a': '\\\\'}", "\\"), ("{'a': ''}", "")])
def test_quotes_in_quotes_are_text(text, value):
    assert ac.parse_config(text) == {"a": value}


def test_a_config_is_a_file_or_a_dict(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match="no config.json at .*config.json; give the path"):
        ac.read_model(path)
    path.write_text(json.dumps(TINY), encoding="utf-8")
    assert ac.read_model(path) == ac.read_model(str(path)) == ac.read_model(TINY)
    assert ac.read_model({**TINY, "hidden_size": 48.0}) == ac.read_model(TINY)
    with pytest.raises(TypeError, match="config must be the dict in a config.json, got list"):
        ac.read_model([TINY])


@pytest.mark.parametrize("config, labels", [
    ({}, 2), ({"num_labels": 5}, 5), ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3)])
def test_labels_are_those_of_the_config_or_two(config, labels):
    model = ac.read_model({**TINY, **config}, "SEQ_CLS")
    assert model.modules[-1].sizes == (48, labels)
    for given in (1, 9):  # one label is a regression
        model = ac.read_model({**TINY, **config}, "SEQ_CLS", num_labels=given)
        assert model.modules[-1].sizes == (48, given)


@pytest.mark.parametrize("architectures, task", [
    (["LlamaForCausalLM"], "CAUSAL_LM"), (["LlamaForSequenceClassification"], "SEQ_CLS"),
    (["LlamaModel"], "FEATURE_EXTRACTION"), ([], "CAUSAL_LM"), (None, "CAUSAL_LM"),
    (["LlamaForQuestionAnswering"], "QUESTION_ANS")])
def test_the_class_named_in_the_config_tells_the_head(architectures, task):
    assert ac.read_model({**TINY, "architectures": architectures}).task == task


@pytest.mark.parametrize("family, class_name, task", [
    ("GPT-2 small", "GPT2LMHeadModel", "CAUSAL_LM"),
    ("BERT-base (cased)", "BertForMaskedLM", "MASKED_LM"),
    ("BERT-base (cased)", "BertForTokenClassification", "TOKEN_CLS"),
    ("BERT-base (cased)", "BertModel", "FEATURE_EXTRACTION")])
def test_classes_of_other_families(family, class_name, task):
    config = ac.known_models().get(family, {}).get("config")
    if config is None:  # any model of the kind will do
        wanted = {"GPT2LMHeadModel": "gpt2"}.get(class_name, "bert")
        config = next(entry["config"] for entry in ac.known_models().values()
                      if entry["config"]["model_type"] == wanted)
    assert ac.read_model({**config, "architectures": [class_name]}).task == task


@pytest.mark.parametrize("config, classes, task", [
    (TINY, ["LlamaForCausalLM", "LlamaForSequenceClassification"], "CAUSAL_LM"),
    (TINY, ["LlamaForSequenceClassification", "LlamaForCausalLM"], "SEQ_CLS"),
    (T5, ["T5ForConditionalGeneration", "T5Model"], "SEQ_2_SEQ_LM"),
    ("BERT-base (cased)", ["BertForMaskedLM", "BertForTokenClassification"], "MASKED_LM")])
def test_of_several_classes_the_first_counts(config, classes, task):
    if isinstance(config, str):
        config = ac.known_models()[config]["config"]
    assert ac.read_model({**config, "architectures": classes}).task == task


def test_a_bare_encoder_decoder_has_no_outer_name_to_lose():
    """T5Model has `shared`, `encoder` and `decoder`; LlamaModel loses the outer `model.`."""
    assert {m.name.split(".")[0] for m in ac.read_model(T5, "FEATURE_EXTRACTION").modules} == {
        "shared", "encoder", "decoder"}
    assert {m.name.split(".")[0] for m in ac.read_model(TINY, "FEATURE_EXTRACTION").modules} == {
        "embed_tokens", "norm", "layers"}


def test_mt5_is_gated_and_has_a_head_of_its_own_if_its_file_is_silent():
    """The defaults of transformers: T5Config is ReLU and tied, MT5Config is neither."""
    t5, mt5 = ac.read_model(T5), ac.read_model({**T5, "model_type": "mt5"})
    gates, head = 4 * 16 * 24, 30 * 16
    assert mt5.num_parameters - t5.num_parameters == gates + head
    told = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
    assert ac.read_model({**T5, **told, "model_type": "mt5"}).num_parameters == t5.num_parameters
    told = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    assert ac.read_model({**T5, **told}).num_parameters == mt5.num_parameters


def test_phi_2_as_first_released_has_a_norm_in_its_head():
    config = {"model_type": "phi-msft", "n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 30}
    model = ac.read_model(config, "CAUSAL_LM")
    bare = {m.name for m in ac.read_model(config, "FEATURE_EXTRACTION").modules}
    assert "embd.wte" in bare and model.head == "lm_head.linear"
    assert [m.name for m in model.modules[len(bare):]] == ["lm_head.ln", "lm_head.linear"]
    assert len(ac.find_modules(model, "all-linear")[0]) == 2 * 4


def test_ia3_scales_what_pefts_table_says_for_mixtral():
    """k_proj, v_proj and, as feed-forward, w2: transformers 5 has no w2, and that is said."""
    model = ac.read_model({**TINY, "model_type": "mixtral", "num_local_experts": 4,
                           "num_key_value_heads": 2})
    counted = ac.count_ia3(model)
    assert counted.trainable == 3 * (2 * 8 + 2 * 8) and counted.unmatched == ("w2",)


def test_a_module_has_a_weight_of_its_own_and_no_bias_unless_said():
    module = ac.Module("proj", "linear", (2, 3))
    assert module.num_parameters == 2 * 3 and module.weight_shape == (3, 2)


def test_defaults_are_pefts():
    """Those of its configs: LoraConfig(r=8), AdaLoraConfig(init_r=12), VeraConfig(r=256) ..."""
    import inspect
    for name, default in (("lora", 8), ("adalora", 12), ("loha", 8), ("vera", 256), ("prefix", 20),
                          ("prompt", 20), ("p_tuning", 20), ("adapters", 64)):
        parameters = list(inspect.signature(getattr(ac, f"count_{name}")).parameters.values())
        assert parameters[1].default == default, name


def test_methods_are_called_by_their_names():
    model = ac.read_model(TINY)
    names = {"full": "full", "lora": "LoRA", "adalora": "AdaLoRA", "loha": "LoHa", "vera": "VeRA",
             "ia3": "(IA)3", "prefix": "prefix tuning", "prompt": "prompt tuning",
             "p_tuning": "P-tuning", "adapters": "adapters (houlsby)"}
    for name, printed in names.items():
        counter = getattr(ac, f"count_{name}")
        loha = {"target_modules": ["q_proj"]} if name in ("loha", "adalora", "vera") else {}
        assert counter(model, **loha).method == printed
    assert ac.count_lora(model, use_dora=True).method == "DoRA"


def test_notes_stand_where_they_belong_and_nowhere_else():
    llama = ac.read_model(TINY)
    opt = ac.read_model({"model_type": "opt", "hidden_size": 16, "ffn_dim": 24, "vocab_size": 30,
                         "num_hidden_layers": 2, "num_attention_heads": 4,
                         "max_position_embeddings": 8, "word_embed_proj_dim": 12})
    for counted, said in (
            (ac.count_lora(llama), ""), (ac.count_prompt(llama), ""), (ac.count_prefix(llama), ""),
            (ac.count_lora(llama, use_rslora=True), "rsLoRA .* has no parameters of its own"),
            (ac.count_lora(llama, target_modules=["lm_head"]),
             "PEFT saves the 4,848 frozen weights of lm_head"),
            (ac.count_prefix(llama, 2, projection=True),
             "Trained through an MLP; of 16,560 numbers 576 are stored"),
            (ac.count_p_tuning(llama, 2), "Trained through an MLP; 96 numbers are stored"),
            (ac.count_p_tuning(llama, 2, encoder="LSTM"), "Trained through an LSTM; 96 numbers"),
            (ac.count_prompt(ac.read_model(T5)), "PEFT allocates the prompt 2 times"),
            (ac.count_prefix(ac.read_model(T5)), "PEFT puts the prefix on the decoder only"),
            (ac.count_prefix(ac.read_model(T5 | {"model_type": "mt5"})), "PEFT puts the prefix on"),
            (ac.count_prefix(ac.read_model(T5 | {"d_kv": 8})), "PEFT .* model's are 32 wide"),
            (ac.count_prompt(opt), "PEFT makes prompts 16 wide; this model's embeddings are 12"),
            (ac.count_vera(llama, 4, ["q_proj"]), "The file also holds the frozen random")):
        assert bool(counted.notes) == bool(said), counted
        assert not said or any(re.match(said, note) for note in counted.notes), counted
    assert len(ac.count_prefix(ac.read_model(T5)).notes) == 1
    mixtral = ac.read_model({**TINY, "model_type": "mixtral", "num_local_experts": 2,
                             "num_key_value_heads": 2, "num_experts_per_tok": 1})
    [note] = ac.count_lora(mixtral, target_modules=["q_proj"]).notes
    assert "transformers 5" in note and "bitsandbytes" in note
    with pytest.raises(ValueError, match="no default target modules for mixtral"):
        ac.count_lora(mixtral)
    with pytest.raises(ValueError, match="PEFT adapts w1 and w3 of a mixtral"):
        ac.count_lora(mixtral, target_modules=["w1"])


def test_stacked_experts_stay_in_16_bits_and_are_cast_to_32():
    """Mixtral 8x7B in 4 bits: bitsandbytes converts the attention alone, 1.3 of 46.7 billion."""
    counted = ac.count_lora(ac.load_model("Mixtral-8x7B"), 8, ["q_proj", "v_proj"])
    loaded = ac.frozen_items(counted, "nf4", prepared=False)
    assert 91.3e9 < sum(item.bytes for item in loaded) < 91.7e9
    assert ac.frozen_items(counted, "nf4")[-1].bytes == 2 * loaded[-1].bytes


# ----------------------------------------------------------- what is trained besides the adapter


def test_the_head_and_modules_to_save_count_in_every_method():
    """RoBERTa-base, VeRA of rank 8: the classifier of 592,130 is trained as a copy."""
    roberta = ac.load_model("RoBERTa-base", "SEQ_CLS")
    assert ac.count_vera(roberta, 8).trainable == 610_754 == 18_624 + 592_130
    for count, options in ((ac.count_ia3, {}), (ac.count_loha, {}), (ac.count_adalora, {})):
        alone = count(ac.load_model("RoBERTa-base", "MASKED_LM"), **options)
        assert count(roberta, **options).copied == 592_130 and alone.copied == 0
        more = count(roberta, modules_to_save=["pooler", "embeddings.LayerNorm"], **options)
        assert more.copied == 592_130 + 2 * 768 and more.unmatched == ("pooler",)


@pytest.mark.parametrize("options, unmatched", [
    ({"rank_pattern": {"k_proj": 3}}, ("rank_pattern k_proj",)),  # not among the targets
    ({"exclude_modules": ["nowhere", "v_proj"]}, ("v_proj", "exclude_modules nowhere")),
    ({"exclude_modules": r".*\.nowhere"}, (r"exclude_modules .*\.nowhere",)),
    ({"layers": [0, 3]}, ("layer 3",)), ({"layers": 2}, ()),
    ({"rank_pattern": {"q_proj": 3}, "exclude_modules": r".*\.2\..*"}, ())])
def test_what_matches_nothing_is_reported(options, unmatched):
    counted = ac.count_lora(ac.read_model(TINY), 2, ["q_proj", "v_proj"], **options)
    assert counted.unmatched == unmatched
    assert all(name in str(counted) for name in unmatched)


@pytest.mark.parametrize("targets, options, reason", [
    ("q_proj", {}, r"regular expression .*\['q_proj'\]"), ([".*q_proj"], {}, "names, not patterns"),
    (["q_proj"], {"layers": [9]}, r"layers=\[9\]"), (["nowhere"], {}, "of that name"),
    (["q_proj"], {"exclude": ["q_proj"]}, "exclude_modules")])
def test_why_nothing_matches_is_said(targets, options, reason):
    with pytest.raises(ValueError, match=rf"match nothing .*{reason}"):
        ac.find_modules(ac.read_model(TINY), targets, **options)


SLOW = r"([a-z_]+|[\w.]+)+!"  # `re` tries each way to cut a path into pieces


def test_no_pattern_of_a_callers_keeps_the_processor_busy():
    model = ac.read_model(TINY)
    with patterns.within(5):
        with pytest.raises(ValueError, match="match nothing"):
            ac.count_lora(model, 2, SLOW)
        plain = ac.count_lora(model, 2, ["q_proj"])
        for options in ({"exclude_modules": SLOW}, {"rank_pattern": {SLOW: 3}},
                        {"modules_to_save": [SLOW]}):
            counted = ac.count_lora(model, 2, ["q_proj"], **options)
            assert counted.trainable == plain.trainable and len(counted.unmatched) == 1
        assert ac.count_ia3(model, ["q_proj"], SLOW).trainable == 3 * 48
    for call in (lambda: ac.find_modules(model, ".*q_proj|"), lambda: ac.count_lora(model, 2, SLOW),
                 lambda: ac.count_ia3(model, ["q_proj"], SLOW)):
        with pytest.raises(ValueError, match="takes too long"), patterns.within(-1):
            call()


@pytest.mark.parametrize("options, message", [
    ({"target_modules": r"(q|k)_\1"}, r"target_modules .*what a group has"),
    ({"exclude_modules": "(?i)Q_PROJ"}, r"exclude_modules .* from '\(\?i\)Q_PROJ' on"),
    ({"rank_pattern": {"(q_proj": 3}}, r"rank_pattern '\(q_proj' is no regular expression")])
def test_a_pattern_that_is_not_understood_is_refused_by_its_settings_name(options, message):
    with pytest.raises(ValueError, match=message):
        ac.count_lora(ac.read_model(TINY), **options)


def test_a_pattern_may_look_ahead_and_behind():
    found, _ = ac.find_modules(ac.read_model(TINY), r"^(?!.*\.1\.).*(?<=[qv])_proj$")
    assert {m.name for m in found} == {
        f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 2) for p in "qv"}


@pytest.mark.parametrize("name, value", [
    ("velora_config", {"rank": 1}), ("monteclora_config", {"rank": 1}),
    ("layer_replication", [[0, 2]]), ("target_module", ["q_proj"])])
def test_settings_that_may_count_are_refused_and_others_ignored(name, value):
    model = ac.read_model(TINY)
    with pytest.raises(ValueError, match=name):
        ac.count_lora(model, **{name: value})
    plain = ac.count_lora(model)
    assert ac.count_lora(model, lora_alpha=3, alpha_pattern={"q_proj": 1},
                         init_lora_weights="pissa", **{name: None}) == plain


# -------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("arguments, lines", [
    (["--rank", "16"], ["trainable params: 9,216 ", "frozen weights", "saved file: ",
                        "context and fragments, an estimate: 0.148 GB"]),
    (["--targets", "all-linear", "--base", "nf4+dq"], ["frozen, not quantized", "nothing"]),
    (["--method", "prompt", "--tokens", "7"], ["trainable params: 336 "]),
    (["--method", "full", "--optimizer", "sgd"], ["llama, CAUSAL_LM: "]),
    (["--method", "adapters", "--bottleneck", "3"], ["adapters; biases"])])
def test_the_command_line_prints_what_the_functions_answer(tmp_path, capsys, arguments, lines):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY), encoding="utf-16")
    ac.main([str(path), *arguments])
    printed = capsys.readouterr().out
    for line in lines:
        assert (line in printed) == (line != "nothing"), printed


@pytest.mark.parametrize("arguments, said", [
    (["nowhere.json"], "no config.json at nowhere.json"),
    (["nowhere.json", "--method", "prompt", "--rank", "3"], "prompt has no --rank"),
    (["nowhere.json", "--method", "ia3", "--targets", "q_proj"], "--targets are for lora")])
def test_the_command_line_says_what_is_wrong(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        ac.main(arguments)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_printed_lines_are_exact():
    counted = ac.count_lora(ac.load_model("Llama-2-7B"), 8, ["q_proj", "v_proj", "wq"])
    assert str(counted) == ("trainable params: 4,194,304 || all params: 6,742,609,920 || "
                            "trainable%: 0.0622\nmatched nothing: wq")
    bill = str(ac.memory_bill(counted)).splitlines()
    assert bill[0] == ("frozen weights                  13.477 GB   "
                       "6,738,415,616 parameters in bfloat16")
    assert bill[-2] == "total" + " " * 23 + "    13.544 GB"
    assert bill[-1] == ("not included: activations, temporary buffers, fragmentation, the CUDA "
                        "context")
    assert "rsLoRA scales by alpha/sqrt(rank)" in str(ac.count_lora(counted.model, use_rslora=True))


def by_label(bill):
    return {item.label: item.bytes for item in bill.items}


def test_each_line_of_a_bill_by_hand():
    model = ac.read_model(TINY)  # d = 48, ff = 80, 3 layers, vocabulary 101
    linear = 3 * (4 * 48 * 48 + 3 * 48 * 80)
    rest = 2 * 101 * 48 + 7 * 48
    counted = ac.count_lora(model, 2, ["q_proj"])
    n = 3 * 2 * 96
    assert counted.trainable == n and model.num_parameters == linear + rest
    assert by_label(ac.memory_bill(counted, base="int8", convention="amp", optimizer="sgd")) == {
        "frozen weights, int8": linear, "scales": 4 * 3 * (4 * 48 + 2 * 80 + 48),
        "frozen, not quantized": 4 * rest, "trainable weights": 4 * n,
        "16-bit working copy": 2 * n, "gradients": 4 * n, "optimizer state": 0}
    blocks = 3 * (4 * 36 + 3 * 60)  # 48 * 48 = 36 blocks of 64 each, 48 * 80 = 60
    nf4 = by_label(ac.memory_bill(counted, base="nf4", convention="mixed"))
    assert nf4 == {"frozen weights, NF4": linear // 2, "scales": 4 * blocks,
                   "frozen, not quantized": 4 * rest, "trainable weights": 2 * n,
                   "32-bit master copy": 4 * n, "gradients": 2 * n, "optimizer state": 8 * n}
    double = by_label(ac.memory_bill(counted, base="nf4+dq", optimizer="adamw-8bit"))
    assert double["scales, quantized again"] == blocks + 4 * 3 * 7  # each matrix: one more scale
    assert double["optimizer state"] == 8 * n  # no tensor is large enough for 8 bits
    whys = [ac.memory_bill(counted, optimizer=name).items[-1].why for name in ac.OPTIMIZERS]
    assert len(set(whys)) == len(whys)
    assert whys[0] == "AdamW's two running averages, 8 bytes for each trainable parameter"
    plain = by_label(ac.memory_bill(counted, base="float32"))
    assert plain["frozen weights"] == 4 * (linear + rest)
    assert [item.bytes for item in ac.frozen_items(counted)] == [2 * (linear + rest)]
    assert "frozen weights" not in by_label(ac.memory_bill(ac.count_full(model)))


def test_the_activation_estimate_by_hand():
    model, tokens = ac.read_model(TINY), 2 * 10
    counted = ac.count_lora(model, 2, ["q_proj", "down_proj"])
    linear = 4 * 48 + 2 * 80  # outputs of q, k, v, o, gate, up; not of down
    own = 2 * 2 + 48 + 80  # x A^T, inputs of q and down: in 32 bits
    layer = 2 * (linear + 80) + 4 * (2 * 48 + own)  # the product; norms in 32 bits
    inside, last = tokens * 3 * (layer + 4 * 6), 4 * tokens * 48
    logits = 14 * tokens * 101
    estimate = ac.activation_estimate(counted, 2, 10)
    assert by_label(estimate) == {"inside the layers": inside + last,
                                  "logits and their gradient": logits}
    wide = tokens * 3 * 4 * (linear + 80 + 2 * 48 + own + 6)
    prepared = ac.activation_estimate(counted, 2, 10, base="nf4")  # all but weights in 32 bits
    assert by_label(prepared) == {"inside the layers": wide + last,
                                  "logits and their gradient": 16 * tokens * 101}
    for base, kept in (("bfloat16", 6), ("nf4", 4)):
        flash, eager = (ac.activation_estimate(counted, 2, 10, attention=kind, base=base).items[0]
                        for kind in ("flash", "eager"))
        assert eager.bytes - flash.bytes == tokens * 3 * 6 * (kept * 10 - 4)
    assert all(type(item.bytes) is int for item in estimate.items)  # there is no half a byte
    assert ac.activation_estimate(counted) == ac.activation_estimate(counted, 1, 512)
    full = by_label(ac.activation_estimate(ac.count_full(model), 2, 10))["inside the layers"]
    inputs = 3 * 48 + 80 + 48 + 48  # of q, k, v; o; gate, up; down; of the norms, normed
    assert full == tokens * 3 * (2 * (linear + 80 + inputs - 48) + 4 * (2 * 48 + 6)) + last
    bare = ac.read_model(TINY, "FEATURE_EXTRACTION")
    assert list(by_label(ac.activation_estimate(ac.count_full(bare)))) == ["inside the layers"]


def test_with_checkpointing_the_larger_of_two_peaks_counts():
    """The loss's, or the layer's that is computed again; then the logits alone are there, too."""
    model, tokens = ac.read_model(TINY), 2 * 10
    counted = ac.count_lora(model, 2, ["q_proj", "down_proj"])
    for base, number, at_loss in (("bfloat16", 2, 14), ("nf4", 4, 16)):
        whole = ac.activation_estimate(counted, 2, 10, base=base).items[0].bytes
        layer = (whole - 4 * tokens * 48) // 3 + number * tokens * 101
        inputs = tokens * 48 * (3 * number + 4)
        saved = ac.activation_estimate(counted, 2, 10, base=base, checkpointing=True)
        assert by_label(saved) == {"layer inputs": inputs, "one layer, recomputed": layer}
        assert saved.other_peak == at_loss * tokens * 101
        wide = replace(counted, model=ac.read_model({**TINY, "vocab_size": 1000}))
        saved = ac.activation_estimate(wide, 2, 10, base=base, checkpointing=True)
        assert by_label(saved) == {"layer inputs": inputs,
                                   "logits and their gradient": at_loss * tokens * 1000}
        assert saved.other_peak == layer + number * tokens * (1000 - 101)
        long = ac.activation_estimate(counted, 1, 1000, base=base, checkpointing=True,
                                      attention="eager")
        assert long.items[1].bytes > at_loss * 1000 * 6 * 1000  # heads, length
    assert ac.activation_estimate(counted, 2, 10).other_peak == 0


def test_activations_of_layer_norms_and_of_two_stacks_by_hand():
    gpt2 = ac.read_model({**TINY, "model_type": "gpt2", "n_positions": 8})
    tokens = 2 * 10
    outputs = 3 * 48 + 48 + 4 * 48  # c_attn, its c_proj, c_fc; not the MLP's c_proj
    kept = outputs + 2 * 48 + 2 * (48 + 2)  # LayerNorms' inputs; in 32 bits c_attn's and x A^T
    lora = ac.activation_estimate(ac.count_lora(gpt2, 2, ["c_attn"]), 2, 10)
    assert by_label(lora)["inside the layers"] == tokens * (
        3 * (2 * kept + 4 * 6) + 2 * 48)  # and the last norm's
    t5 = ac.count_lora(ac.read_model(T5), 2, ["q"])
    flash, eager = (ac.activation_estimate(t5, 2, 10, attention=kind).items[0].bytes
                    for kind in ("flash", "eager"))
    assert eager - flash == tokens * (2 + 2) * 4 * (6 * 10 - 4)  # encoder's and decoder's layers


def test_experts_keep_the_active_ones_share():
    model = ac.read_model({**TINY, "model_type": "mixtral", "num_local_experts": 4,
                           "num_experts_per_tok": 3, "num_key_value_heads": 6})
    counted, tokens = ac.count_lora(model, 2, ["q_proj"]), 20
    share = 3 / 4 * 4  # each of the four experts works for three tokens in four
    kept = 4 * 48 + 4 + share * 2 * 80 + 2 * 2 * 48 + 3 * 80 + 2 * (2 + 48)
    assert by_label(ac.activation_estimate(counted, 2, 10))["inside the layers"] == (
        tokens * (3 * (2 * kept + 4 * 6) + 4 * 48))
    assert ac.activation_estimate(counted).leaves_out == (
        "dropout masks, temporary buffers: this is an estimate")


def test_an_odd_number_of_4_bit_weights_takes_the_next_whole_byte():
    odd = ac.read_model({**TINY, "hidden_size": 9, "num_attention_heads": 1,
                         "intermediate_size": 5, "num_hidden_layers": 1})
    counted = ac.count_lora(odd, 1, ["q_proj"])
    assert [item.bytes for item in ac.frozen_items(counted, "nf4")[:2]] == [
        4 * 41 + 3 * 23, 4 * (4 * 2 + 3 * 1)]
    assert counted.total - counted.packed_total == 4 * 40 + 3 * 22


@pytest.mark.parametrize("convention, why", [
    ("fp32", "576 parameters, 4 bytes each: everything in 32 bits"),
    ("mixed", "576 parameters, 2 bytes each: 16-bit weights and gradients, a 32-bit master copy "
              "(Rajbhandari et al., 2020, section 3.1)"),
    ("amp", "576 parameters, 4 bytes each: 32-bit weights and gradients, a 16-bit copy of the "
            "weights (PyTorch AMP as Hugging Face counts it)"),
    ("no-master", "576 parameters, 2 bytes each: 16-bit weights and gradients, 32-bit Adam, no "
                  "master copy"),
    ("bf16", "576 parameters, 2 bytes each: everything in 16 bits")])
def test_a_bill_says_by_which_convention(convention, why):
    items = ac.memory_bill(ac.count_lora(ac.read_model(TINY), 2, ["q_proj"]),
                           convention=convention).items
    assert [item.why for item in items if item.label == "trainable weights"] == [why]
    states = ac.CONVENTIONS[convention][2]
    assert items[-1].why == (
        f"AdamW's two running averages, {states} bytes for each trainable parameter")


@pytest.mark.parametrize("family, flags", [
    ("llama", {"attention_bias", "mlp_bias"}), ("gemma", {"attention_bias"}), ("mistral", set()),
    ("gemma2", {"attention_bias"}), ("gemma3_text", {"attention_bias"}), ("qwen2", set()),
    ("qwen3", {"attention_bias"})])
def test_each_bias_of_a_family_has_its_flag(family, flags):
    def biased(**more):
        model = ac.read_model({**TINY, "model_type": family, **more})
        return {m.name.split(".")[-1] for m in model.modules if m.bias}

    always = {"q_proj", "k_proj", "v_proj"} if family == "qwen2" else set()
    added = {"attention_bias": {"q_proj", "k_proj", "v_proj", "o_proj"},
             "mlp_bias": {"gate_proj", "up_proj", "down_proj"}}
    assert biased() == always
    for flag, names in added.items():
        assert biased(**{flag: True}) == (always | names if flag in flags else always)


def test_all_linear_leaves_a_head_of_any_task_alone():
    for task in ("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION"):
        assert len(ac.find_modules(ac.read_model(TINY, task), "all-linear")[0]) == 21


@pytest.mark.parametrize("family, others", [("bert", {"bert.pooler.dense"}), ("roberta", set())])
def test_4_bit_loading_leaves_a_classifier_alone(family, others):
    """What PEFT trains whole is not converted: RoBERTa's classifier is two layers deep."""
    config = next(entry["config"] for entry in ac.known_models().values()
                  if entry["config"]["model_type"] == family)
    model = ac.read_model(config, "SEQ_CLS")
    converted = {m.name for m in ac.quantized_modules(model)}
    assert {name for name in converted if ".layer." not in name} == others
    assert len(converted) == 6 * model["layers"] + len(others)


def test_tensors_of_the_relatives_of_lora_have_pefts_names_and_shapes():
    """One module, 48 in and 80 out, so that no size is mistaken for another."""
    model, name = ac.read_model(TINY), "model.layers.0.mlp.up_proj"
    key = f"base_model.model.{name}."
    assert ac.count_adalora(model, 5, [name]).tensors == {
        f"{key}lora_A": (5, 48), f"{key}lora_B": (80, 5), f"{key}lora_E": (5, 1)}
    assert ac.count_loha(model, 5, [name]).tensors == {
        f"{key}hada_w1_a": (80, 5), f"{key}hada_w1_b": (5, 48),
        f"{key}hada_w2_a": (80, 5), f"{key}hada_w2_b": (5, 48)}
    assert ac.count_vera(model, 5, [name]).tensors == {
        "base_model.vera_A": (5, 48), "base_model.vera_B": (80, 5),
        f"{key}vera_lambda_b": (80,), f"{key}vera_lambda_d": (5,)}
    assert ac.count_ia3(model, [name], []).tensors == {f"{key}ia3_l": (80, 1)}
    assert ac.count_ia3(model, [name], [name]).tensors == {f"{key}ia3_l": (1, 48)}


def test_an_adapters_tensors_are_named_by_layer_and_place():
    model = ac.read_model({**T5, "num_layers": 1})  # one layer, and one in the decoder

    def places(*arguments, **options):
        tensors = ac.count_adapters(model, 3, *arguments, **options).tensors
        for name, shape in tensors.items():
            kind = name.rpartition(".adapter_")[2]
            assert shape == {"down.weight": (3, 16), "up.weight": (16, 3), "down.bias": (3,),
                             "up.bias": (16,)}[kind]
        return [name.removesuffix(".adapter_up.weight") for name in tensors
                if name.endswith("up.weight")]

    assert places("pfeiffer") == ["layers.0.mlp", "layers.1.mlp"]
    assert places() == ["layers.0.mlp", "layers.1.mlp", "layers.0.attention", "layers.1.attention",
                        "layers.0.cross_attention"]


def test_bias_and_norms_of_adapters_by_hand():
    t5 = ac.read_model(T5)
    each = 2 * 16 * 3 + 3 + 16
    for style, cross, places in (("houlsby", True, 4 + 4 + 2), ("houlsby", False, 4 + 4),
                                 ("pfeiffer", True, 4), ("parallel", True, 4)):
        counted = ac.count_adapters(t5, 3, style, cross_attention=cross)
        assert counted.trainable == counted.stored == places * each
        assert counted.total == t5.num_parameters + counted.trainable
        assert f"{places} adapters; biases counted, LayerNorms not counted." in counted.notes
    with_norms = ac.count_adapters(t5, 3, "pfeiffer", layer_norms=True)
    assert with_norms.trainable - 4 * each == 16 * (2 * 2 + 3 * 2)  # no final norm
    assert with_norms.stored == with_norms.trainable


def test_a_module_to_save_that_is_not_there_is_named():
    counted = ac.count_lora(ac.read_model(TINY), modules_to_save=["lm_head", "nowhere"])
    assert counted.unmatched == ("nowhere",)
    # PEFT tries `classifier` and `score` by itself: nobody misspelt the one that is missing.
    assert ac.count_lora(ac.read_model(TINY, "SEQ_CLS")).unmatched == ()


def test_text_for_a_list_is_refused():
    with pytest.raises(TypeError, match=r"write \['lm_head'\]"):
        ac.count_lora(ac.read_model(TINY), modules_to_save="lm_head")


# ------------------------------------------------------------------------- what the table says


def test_tied_heads_are_counted_once_and_copied_when_trained_whole():
    tied = ac.read_model({**TINY, "tie_word_embeddings": True})
    untied = ac.read_model(TINY)
    assert untied.num_parameters - tied.num_parameters == 48 * 101
    counted = ac.count_lora(tied, modules_to_save=["lm_head"])
    assert counted.total - ac.count_lora(tied).total == 48 * 101
    assert any("drift apart" in note for note in counted.notes)


def test_bert_large_houlsby_is_two_percent_of_the_layers():
    bert = ac.load_model("BERT-large (uncased)")
    alone = ac.count_adapters(bert, 64)
    with_norms = ac.count_adapters(bert, 64, layer_norms=True)
    assert alone.trainable == 6_343_680 and with_norms.trainable - alone.trainable == 98_304
    assert with_norms.stored == with_norms.trainable  # the norms' biases are in the file, too


def test_the_table_is_data():
    assert json.loads(json.dumps(ac.FAMILIES)) == ac.FAMILIES


@pytest.mark.parametrize("dtype, code, width", [
    ("float32", "F32", 4), ("float16", "F16", 2), ("bfloat16", "BF16", 2)])
def test_the_library_of_the_format_reads_our_header(dtype, code, width):
    tensors = {"größe": (3, 2), "a": (5,)}
    header = ac.safetensors_header(tensors, dtype)
    file = len(header).to_bytes(8, "little") + header + bytes(11 * width)
    assert {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in
            safetensors.deserialize(file)} == {n: (code, s) for n, s in tensors.items()}
    counted = replace(ac.count_lora(ac.read_model(TINY)), tensors=tensors)
    assert ac.saved_bytes(counted, dtype) == len(file)
    if dtype != "bfloat16":  # NumPy has none
        assert file == safetensors.numpy.save(
            {name: np.zeros(shape, dtype) for name, shape in tensors.items()}, {"format": "pt"})


def test_stored_numbers_are_those_in_the_file():
    counted = ac.count_prefix(ac.read_model(TINY), 7, projection=True, hidden=20)
    assert counted.stored == 7 * 2 * 3 * 48 < counted.trainable
    header = ac.safetensors_header(counted.tensors, "float16")
    assert ac.saved_bytes(counted, "float16") == 8 + len(header) + 2 * counted.stored
    assert len(header) % 8 == 0
    assert math.prod(counted.tensors["prompt_embeddings"]) == counted.stored


# -------------------------------------------------------- what was silently wrong once, by its kind

GEMMA3 = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
QWEN3_NEXT = {"model_type": "qwen3_next", "num_hidden_layers": 4}


def test_a_nested_model_is_counted_with_its_tower():
    """PEFT adapts the vision tower by name, too: 12 layers of it here, 26 of the language model."""
    whole = ac.read_model(GEMMA3)
    text = ac.read_model({**GEMMA3["text_config"], "vocab_size": 262_208})
    found, _ = ac.find_modules(whole, ["q_proj"])
    assert len(found) == 26 + 12 and whole.num_parameters > text.num_parameters
    with pytest.raises(ValueError, match="text_config, and it is missing"):
        ac.read_model({"model_type": "gemma3"})
    for part in ("text_config", "vision_config"):  # of another architecture
        with pytest.raises(ValueError, match=rf"{part}.model_type is 'llama'"):
            ac.read_model(GEMMA3 | {part: {"model_type": "llama"}})


@pytest.mark.parametrize("change, full", [
    ({}, [3]), ({"full_attention_interval": 2}, [1, 3]),
    ({"layer_types": ["full_attention"] + ["linear_attention"] * 3}, [0])])
def test_which_layers_attend_stands_in_a_list_or_follows_from_an_interval(change, full):
    model = ac.read_model(QWEN3_NEXT | change)
    assert [m.name for m in model.modules if m.name.endswith("q_proj")] == [
        f"model.layers.{i}.self_attn.q_proj" for i in full]


@pytest.mark.parametrize("kinds", [["conv"] * 4, ["full_attention"] * 3, "full_attention"])
def test_a_list_of_layers_that_does_not_fit_is_refused(kinds):
    with pytest.raises(ValueError, match="layer_types of a qwen3_next model"):
        ac.read_model(QWEN3_NEXT | {"layer_types": kinds})


@pytest.mark.parametrize("count", [ac.count_adalora, ac.count_loha, ac.count_vera])
def test_a_method_refuses_what_peft_refuses_to_adapt(count):
    for name in ("embed_tokens", "norm"):
        with pytest.raises(ValueError, match=name):
            count(ac.read_model(TINY), 4, ["q_proj", name])


def test_a_convolution_that_a_name_means_is_refused():
    with pytest.raises(ValueError, match="conv1d"):
        ac.count_lora(ac.read_model(QWEN3_NEXT), 4, ["conv1d"])


def test_cross_attention_is_counted():
    gpt2 = ac.known_models()["GPT-2 (124M)"]["config"]
    assert ac.read_model(gpt2 | {"add_cross_attention": True}).num_parameters == 152_806_656


def test_no_model_type_of_transformers_is_counted_wrongly():
    python = needs.oracle()
    done = subprocess.run([python, TESTS / "oracle" / "sweep_families.py"], check=True, text=True,
                          capture_output=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    verdicts = [line.split(": ", 2)[1] for line in done.stdout.splitlines()]
    assert set(verdicts) == {"right", "refused"}, [
        line for line in done.stdout.splitlines() if ": wrong" in line]
    assert verdicts.count("right") >= 90


def test_activations_of_a_model_of_several_parts_are_refused(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], '
                    '"text_config": {"model_type": "gemma3_text"}}')
    with pytest.raises(ac.NotEstimated, match="gemma3.*vision_config"):
        ac.activation_estimate(ac.count_full(ac.read_model(path)))
    ac.main([str(path), "--method", "full"])
    assert "not estimated" in capsys.readouterr().out


def test_a_key_that_is_called_as_a_symbol_of_ours_changes_nothing():
    config = {"model_type": "gpt_neox", "hidden_size": 48, "num_attention_heads": 6,
              "num_hidden_layers": 3, "intermediate_size": 80, "vocab_size": 101}
    plain, odd = (ac.count_prefix(ac.read_model(c), 7) for c in (config, {**config, "d": 24}))
    assert plain.trainable == odd.trainable == 3 * 2 * 7 * 48


@pytest.mark.parametrize("architectures", ["", False, 0, {}])
def test_classes_that_are_no_list_are_refused_and_not_taken_for_none(architectures):
    config = ac.known_models()["Llama-2-7B"]["config"]
    assert ac.read_model(config | {"architectures": None}).num_parameters
    with pytest.raises(ValueError, match="architectures"):
        ac.read_model(config | {"architectures": architectures})
