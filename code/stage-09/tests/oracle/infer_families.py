"""Ask transformers how it builds each architecture, and write that down as tables of families.

    .venv-oracle/bin/python code/stage-09/tests/oracle/infer_families.py [model_type …]

Each architecture is built on torch's `meta` device (real modules and shapes, without a number in
them) from many configurations. Every dimension of every tensor is then explained by the simplest
expression of the configuration's keys that is right in all of them, and so is whether a tensor is
there, has a bias, is tied. What comes out is in the notation of `real_models/families.py`.

A family is written to data/families.json only if `read_model` then agrees with transformers,
tensor by tensor, in every class: on fresh random configurations, on the class's own defaults, with
any key of the class changed, left out or null. What the notation cannot say becomes a value that
the table insists on (`only`), so that a file with another one is refused by name.
"""

import dataclasses
import itertools
import json
import math
import random
import re
import sys
import time
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

STAGE = Path(__file__).resolve().parents[2]
sys.path = [p for p in sys.path if Path(p or ".").resolve() not in (STAGE, STAGE / "tests")]

import transformers  # noqa: E402
from peft.utils import constants  # noqa: E402
from peft.utils import transformers_weight_conversion as moe  # noqa: E402
from transformers.models.auto import modeling_auto  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

import peft  # noqa: E402, F401  Hugging Face's, and ours never after it

sys.path.append(str(STAGE))
from real_models import accounting  # noqa: E402

OUT = STAGE / "data" / "families.json"
TASKS = {"IMAGE_TEXT": "IMAGE_TEXT_TO_TEXT", "SEQ_2_SEQ_LM": "SEQ_TO_SEQ_CAUSAL_LM",
         "SPEECH_TEXT": "SPEECH_SEQ_2_SEQ", "CTC": "CTC", "MASKED_LM": "MASKED_LM",
         "CAUSAL_LM": "CAUSAL_LM", "SEQ_CLS": "SEQUENCE_CLASSIFICATION",
         "TOKEN_CLS": "TOKEN_CLASSIFICATION", "QUESTION_ANS": "QUESTION_ANSWERING",
         "MULTIPLE_CHOICE": "MULTIPLE_CHOICE", "PRE_TRAINING": "PRETRAINING",
         "NEXT_SENTENCE": "NEXT_SENTENCE_PREDICTION", "IMAGE_CLS": "IMAGE_CLASSIFICATION",
         "AUDIO_CLS": "AUDIO_CLASSIFICATION", "FEATURE_EXTRACTION": None}
#: What the rest of accounting.py calls these keys; any other key is its own symbol.
SYMBOLS = {"hidden_size": "d", "intermediate_size": "ff", "num_hidden_layers": "layers",
           "num_attention_heads": "heads", "num_key_value_heads": "kv", "head_dim": "dh",
           "vocab_size": "vocab", "num_labels": "labels", "tie_word_embeddings": "tied",
           "num_local_experts": "experts", "num_experts_per_tok": "active",
           "encoder_ffn_dim": "ff", "n_inner": "ff", "ffn_hidden_size": "ff",
           "ffn_dim": "ff", "word_embed_proj_dim": "word", "num_kv_heads": "kv",
           "attention_head_size": "dh"}
#: Keys of every configuration that no architecture reads, and those that we treat ourselves.
IGNORED = {"transformers_version", "architectures", "dtype", "id2label", "label2id", "model_type",
           "problem_type", "_name_or_path", "return_dict", "is_encoder_decoder", "num_labels",
           "rope_parameters", "output_attentions", "output_hidden_states", "use_cache",
           "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "encoder",
           "decoder", "text_encoder", "generator", "text_config", "quantization_config", "auto_map",
           "mtp_layer_types", "mamba_d_head", "time_step_limit", "attention_types",
           "attention_layers", "activation_sparsity_pattern"}
#: Keys that decide by a layer's number: only their default is counted.
PINNED = {"decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step"}
#: How many layers at the start have no experts; none of them, perhaps.
DENSE = re.compile(r"dense_(replace|layers)\b")
#: What a key that is null stands for, in many classes.
FALLBACK = {"dh": "d / heads", "kv": "heads", "ff": "4 * d"}
#: Symbols besides the keys, where the keys of their rules are there.
DERIVED = {"dh": "d / heads", "{}grid": "{}image_size // {}patch_size",
           "{}merged": "{}spatial_merge_size * {}spatial_merge_size",
           # How DINOv2 and LFM2 round the width of a gated MLP.
           "swiglu": "(2 * d * mlp_ratio // 3 + 7) // 8 * 8",
           "rounded": "(2 * ff // 3 + block_multiple_of - 1) // block_multiple_of "
                      "* block_multiple_of"}
ACTIVATIONS = ["silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu",
               "relu2", "tanh", "sigmoid", "quick_gelu"]


#: Which layers look at the picture; how a file of Qwen's says all of its text_config outside of
#: it; which kinds of relative positions there are.
_CROSS = "text_config.cross_attention_layers"
_FLAT = {"flat": "text_config", "declare": {"text_config.tie_word_embeddings": False}}
_POSITIONS = [["p2c", "c2p"], ["c2p", "p2c"], ["c2p"], ["p2c"], [], "p2c|c2p", "c2p|p2c", "c2p",
              "p2c"]
#: Which layers of Llama 4 have experts; how speech is read: in the convolutions that all
#: published models have.
_EXPERTS = "moe_layers"
_SPEECH = {
    "no_embeddings": True, "unlike": ["conv_layers"], "every_class": True,
    "declare": {"adapter_attn_dim": None},
    "base": {"do_stable_layer_norm": True, "adapter_attn_dim": 8},
    "only": {
        "conv_dim": [7 * [512]], "conv_kernel": [[10, 3, 3, 3, 3, 2, 2]],
        "conv_stride": [[5, 2, 2, 2, 2, 2, 2]], "num_feat_extract_layers": [7],
        "feat_extract_norm": ["group", "layer"], "num_codevector_groups": [2],
        "ctc_loss_reduction": ["sum", "mean", "none"], "add_adapter": [False]},
    "derived": {"grouped": "d / num_conv_pos_embedding_groups"},
    "fit": lambda values: values | {
        "num_conv_pos_embedding_groups": [n for n in range(1, values["hidden_size"])
                                          if values["hidden_size"] % n == 0][
            values["vocab_size"] // 2 % 5],
        "feat_extract_norm": ("group", "layer")[values["intermediate_size"] // 2 % 2],
        "mask_time_prob": (0, 0.05)[values["classifier_proj_size"] // 2 % 2],
        "mask_feature_prob": (0, 0.0, 0.5)[values["num_conv_pos_embeddings"] // 2 % 3]},
    "tests": {
        "layered": ("feat_extract_norm~layer | 0", lambda v: v["feat_extract_norm"] == "layer"),
        "timed": ("mask_time_prob~> | 1", lambda v: v.get("mask_time_prob", 1) > 0),
        "featured": ("mask_feature_prob~> | 0", lambda v: v.get("mask_feature_prob", 0) > 0)}}


def _states(values: dict, expand: str, heads: str, head_dim: str) -> dict:
    """The heads of a Mamba's states must make up its width."""
    number = values["vocab_size"] // 2
    expanded = 1 + number % 3
    inner = values.get("mamba_d_ssm") or expanded * values["hidden_size"]
    counts = [n for n in range(2, inner) if inner % n == 0]
    count = counts[number % len(counts)]
    return values | {expand: expanded, heads: count, head_dim: inner // count}


def _own(configuration: str, stem: str, *ends: str) -> list[str]:
    """What a repository on the hub calls code of its own that transformers has since taken in."""
    return [configuration, *(stem + end for end in ends)]


def _period(values: dict, name: str, shift: int) -> dict:
    """Every so-manieth layer from one on, and sometimes a single expert, which is none."""
    number = values["vocab_size"] // 2 + shift
    single = {"num_experts": 1} if values["vocab_size"] // 2 % 4 == 0 else {}
    return {f"{name}_layer_period": 1 + number % 4,
            f"{name}_layer_offset": number // 4 % (1 + number % 4)} | single


#: What no model on the meta device can tell.
HINTS = {
    "phi": {"own_code": ["configuration_phi.PhiConfig", "modeling_phi.PhiForCausalLM"]},
    "internlm3": {"own_code": _own("configuration_internlm3.InternLM3Config",
                                   "modeling_internlm3.InternLM3", "Model", "ForCausalLM")},
    "ernie4_5": {"own_code": _own("configuration_ernie4_5.Ernie4_5_Config",
                                  "modeling_ernie4_5.Ernie4_5_", "Model", "ForCausalLM")},
    "deepseek_v3": {"own_code": _own("configuration_deepseek.DeepseekV3Config",
                                     "modeling_deepseek.DeepseekV3", "Model", "ForCausalLM")},
    "phi3": {"own_code": ["configuration_phi3.Phi3Config", "modeling_phi3.Phi3ForCausalLM"]},
    "deepseek_v2": {
        "prefix_width": "kv * qk_rope_head_dim",  # its head_dim is overwritten
        "own_code": _own("configuration_deepseek.DeepseekV2Config",
                         "modeling_deepseek.DeepseekV2", "Model", "ForCausalLM")},
    "gemma3": {"not_quantized": ["head.attention.out_proj"]},  # MultiheadAttention's own
    "phimoe": {
        "not_quantized": ["router"],  # a class of its own, which bitsandbytes skips
        "own_code": _own("configuration_phimoe.PhiMoEConfig", "modeling_phimoe.PhiMoE",
                         "ForCausalLM")},
    "opt": {"only": {"_remove_final_layer_norm": [False]}},
    # How a classifier pools has no parameters, nor has which three layers are tapped.
    "modernbert": {"only": {"classifier_pooling": ["cls", "mean"]}},
    "qwen3_vl": {"only": {"vision_config.deepstack_visual_indexes": [[8, 16, 24], [5, 11, 17]]}},
    "mixtral": {"lora": None, "vera": None},  # PEFT's own defaults fail on transformers 5
    "vit": {"every_class": True},  # pooler_output_size is read by the bare model alone
    # Without a decoder, or without an encoder, next to nothing is common to all classes.
    "whisper": {"without": ["AUDIO_CLS", "CAUSAL_LM"]},
    "electra": {"whole": "dh = d / heads"},  # else its attention is narrower than it, and fails
    "nemotron": {"base": {"num_key_value_heads": 8}},  # its own default, none, fails
    "bloom": {"instead": {"hidden_size": "n_embed"}},
    "falcon": {
        "own_code": _own("configuration_falcon.FalconConfig", "modeling_falcon.Falcon", "Model",
                         *(f"For{task}" for task in (
                             "CausalLM", "SequenceClassification", "TokenClassification",
                             "QuestionAnswering"))),
        "instead": {"hidden_size": "n_embed"},
        # Linear layers of a class of its own, which bitsandbytes skips in transformers 5.
        "not_quantized": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
        "prefix_width": "d",  # PEFT does not know its name for heads of keys and values
        "fit": lambda values: values | {
            "num_ln_in_parallel_attn": (None, 1, 2)[values["vocab_size"] % 3]},
        "tests": {"two_norms": ("num_ln_in_parallel_attn~2 | new_decoder_architecture", lambda v: (
            v["num_ln_in_parallel_attn"] or 2 * v["new_decoder_architecture"]) == 2)}},
    "lfm2": {
        "kinds": {"layer_types": ["conv", "full_attention"]},
        "numbers": {"layer_types": ["full_attn_idxs", "conv", "full_attention", None]},
        "instead": {"intermediate_size": "block_ff_dim", "tie_word_embeddings": "tie_embedding"}},
    "lfm2_moe": {"kinds": {"layer_types": ["conv", "full_attention"]},
                 "instead": {"tie_word_embeddings": "tie_embedding"}},
    "mllama": {
        "base": {"text_config.pad_token_id": 0},
        "without": ["CAUSAL_LM"],  # its configuration is text_config alone
        "whole": "vision_dh = vision_hidden_size / vision_attention_heads",
        "kinds": {_CROSS: ["self", "cross"]},
        "numbers": {_CROSS: [_CROSS, "self", "cross", [3, 8, 13, 18, 23, 28, 33, 38]]},
        # Tiles come in the shapes that are listed, which go with this number of them.
        "fit": lambda values: values | {"vision_config.max_num_tiles": 4},
        "derived": {"tiles": "4 * (vision_image_size // vision_patch_size"
                             " * (vision_image_size // vision_patch_size) + 1)"},
        "only": {"vision_config.max_num_tiles": [4], "vision_config.supported_aspect_ratios": [
            [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]]}},
    "qwen2_vl": _FLAT,
    "qwen2_5_vl": _FLAT,
    "esm": {
        "base": {"vocab_size": 33},  # it has no default
        "declare": {"emb_layer_norm_before": False},
        "assume": {"position_embedding_type": 1},  # null is no "absolute"
        "only": {"position_embedding_type": ["absolute", "rotary"],
                 "is_folding_model": [False], "add_cross_attention": [False]},
        "fit": lambda values: values | {
            "position_embedding_type": (
                "absolute", "rotary")[values["intermediate_size"] // 2 % 2]},
        "tests": {"absolute": ("position_embedding_type~absolute | 0", lambda v: v[
            "position_embedding_type"] == "absolute")}},
    "deberta-v2": {
        "not_estimated": "its attention compares positions as well as words, and what that keeps "
                         "is not known here",
        "every_class": True,  # the bare model has no pooler
        "declare": {"position_buckets": -1, "share_att_key": False, "conv_kernel_size": 0,
                    "attention_head_size": None, "conv_groups": 1, "norm_rel_ebd": "none"},
        "base": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                 "max_relative_positions": 40, "position_buckets": 0, "conv_kernel_size": 3},
        "only": {"pos_att_type": _POSITIONS, "norm_rel_ebd": ["none", "layer_norm"],
                 "conv_groups": [1]},
        "fit": lambda values: values | {
            "pos_att_type": _POSITIONS[values["vocab_size"] // 2 % len(_POSITIONS)],
            "norm_rel_ebd": ("none", "layer_norm")[values["intermediate_size"] // 2 % 2]},
        "derived": {"span": "(position_buckets>0)*position_buckets+(1>position_buckets)*("
                            "(max_relative_positions>0)*max_relative_positions"
                            "+(1>max_relative_positions)*max_position_embeddings)"},
        "tests": {
            "c2p": ("pos_att_type~*c2p | 0", lambda v: "c2p" in v["pos_att_type"]),
            "p2c": ("pos_att_type~*p2c | 0", lambda v: "p2c" in v["pos_att_type"]),
            "keys": ("relative_attention*(1-share_att_key)*c2p", lambda v: v["relative_attention"]
                     and not v["share_att_key"] and "c2p" in v["pos_att_type"]),
            "queries": ("relative_attention*(1-share_att_key)*p2c", lambda v: v[
                "relative_attention"] and not v["share_att_key"] and "p2c" in v["pos_att_type"]),
            "normed": ("norm_rel_ebd~layer_norm | 0", lambda v: v["norm_rel_ebd"] != "none")}},
    "mamba2": {
        "refused": ["out_proj", "conv1d"],
        "derived": {"inner": "expand * d", "mixed": "inner + 2 * n_groups * state_size",
                    "projected": "inner + mixed + num_heads"},
        "whole": "dh = inner / num_heads", "prefix_width": "d",
        "note": "It has no attention: PEFT makes a prefix for it that nothing looks at.",
        "fit": lambda values: _states(values, "expand", "num_heads", "head_dim")},
    "mamba": {
        "refused": ["out_proj", "conv1d"], "auto": ["time_step_rank"],
        "rules": ["expand * d", "(d + 15) // 16"], "prefix_width": None},
    "jamba": {
        "auto": ["mamba_dt_rank"], "rules": ["(d + 15) // 16"],
        "derived": {"inner": "mamba_expand * d"},
        "only": {"layers_block_type": [None], "layer_types": [None]},
        "kinds": {"layers_block_type": ["linear_attention", "full_attention"],
                  "layers_num_experts": ["dense", "experts"]},
        "every": {"layers_block_type": [
            "attn_layer_period", 8, "linear_attention", "full_attention"],
                  "layers_num_experts": ["expert_layer_period", 2, "dense", "experts"]},
        "offset": {"layers_block_type": ["attn_layer_offset", 4],
                   "layers_num_experts": ["expert_layer_offset", 1, "num_experts", 16]},
        "fit": lambda values: values | _period(values, "attn", 0) | _period(values, "expert", 1)},
    "gpt_neo": {
        "base": {"attention_types": [[["global"], 4]]},
        "fit": lambda values: values | {
            "attention_types": [[["global"], values["num_layers"]]]}},
    "siglip": {"without": ["IMAGE_CLS"], "not_quantized": ["head.attention.out_proj"]},
    "llava_onevision": {"not_quantized": ["head.attention.out_proj"]},
    "nemotron_h": {
        "refused": ["out_proj", "conv1d"],
        "own_code": _own("configuration_nemotron_h.NemotronHConfig",
                         "modeling_nemotron_h.NemotronH", "Model", "ForCausalLM"),
        "declare": {"num_hidden_layers": 4},
        "fit": lambda values: values | {"mamba_num_heads": 13 + values["vocab_size"] % 10},
        "kinds": {"layers_block_type": [
            "linear_attention", "moe", "full_attention", "mlp"]},
        "letters": {
            "key": "hybrid_override_pattern", "lists": ["layers_block_type", "layer_types"],
            "kinds": {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"},
            "usual": ["linear_attention", "moe", "full_attention", "mlp"]},
        "derived": {"inner": "mamba_num_heads * mamba_head_dim",
                    "mixed": "inner + 2 * n_groups * ssm_state_size",
                    "projected": "inner + mixed + mamba_num_heads",
                    "latent": "(moe_latent_size > 0) * moe_latent_size"
                              " + (1 - (moe_latent_size > 0)) * d"}},
    "falcon_h1": {
        "refused": ["out_proj", "conv1d"], "base": {"mamba_d_ssm": None},
        "derived": {"inner": "(mamba_d_ssm > 0) * mamba_d_ssm "
                             "+ (1 - (mamba_d_ssm > 0)) * mamba_expand * d",
                    "mixed": "inner + 2 * mamba_n_groups * mamba_d_state",
                    "projected": "inner + mixed + mamba_n_heads"},
        "fit": lambda values: _states(
            values | {"mamba_d_ssm": (None, 48, 60, 72, 120)[values["vocab_size"] // 2 % 5]},
            "mamba_expand", "mamba_n_heads", "mamba_d_head")},
    "granitemoehybrid": {
        "kinds": {"layer_types": ["linear_attention", "full_attention"]},
        "every": {"layer_types": ["", 1, "linear_attention", "linear_attention"]},
        "only": {"position_embedding_type": [None, "nope", "rope"]},
        "derived": {"inner": "mamba_expand * d",
                    "mixed": "inner + 2 * mamba_n_groups * mamba_d_state",
                    "projected": "inner + mixed + mamba_n_heads"},
        "fit": lambda values: _states(
            values | ({"num_local_experts": 0, "num_experts_per_tok": 0}
                      if values["vocab_size"] // 2 % 3 == 0 else {}),
            "mamba_expand", "mamba_n_heads", "mamba_d_head")},
    "glm4v": {"declare": {"text_config.tie_word_embeddings": False}},
    "olmoe": {"derived": {"wide": "d // heads * kv"}},
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"),
                    {"base": {"head_dim": 32}}),
    "ernie4_5_moe": {"refuse": "three keys (moe_layer_start_index, moe_layer_end_index, "
                               "moe_layer_interval) say which layers have experts: the notation "
                               "does not"},
    "glm4_moe_lite": {"refuse": "without mlp_layer_types the first of its layers alone is dense: "
                                "the notation does not say that"},
    "gemma4": {"refuse": "its towers hold each layer in a wrapper of the same name, which PEFT "
                         "refuses: no list of names says which are meant. Its text_config, a "
                         "gemma4_text, is counted"},
    "gemma4_text": {
        "declare": {"global_head_dim": 512, "num_global_key_value_heads": None},
        "base": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 24,
                 "num_global_key_value_heads": 2, "attention_k_eq_v": True,
                 "enable_moe_block": True, "use_double_wide_mlp": True, "num_kv_shared_layers": 1},
        # Layers of full attention have heads of their own, and the last layers no keys at all.
        "derived": {"unshared": "layers - num_kv_shared_layers",
                    "other": "attention_k_eq_v * (num_global_key_value_heads > 0)",
                    "wide_kv": "other * num_global_key_value_heads + (1 - other) * kv"},
        "every": {"layer_types": ["", 6, "sliding_attention", "full_attention"]},
        "last": {"layer_types": "full_attention"},
        "prefix_width": "(global_head_dim > dh) * global_head_dim * wide_kv "
                        "+ (1 - (global_head_dim > dh)) * dh * kv",
        "overrides": {
            "key": "per_layer_config", "list": "layer_types", "kind": "full_attention",
            "keys": {"head_dim": ["global_head_dim"], "num_key_value_heads": [
                "num_global_key_value_heads", "attention_k_eq_v"]}},
        "fit": lambda values: values | {
            "layer_types": [*values["layer_types"][:-1], "full_attention"],
            "num_kv_shared_layers": values["vocab_size"] // 2 % values["num_hidden_layers"],
            "hidden_size_per_layer_input": values["vocab_size"] // 2 % 3 and values[
                "hidden_size_per_layer_input"]}},
    "smolvlm": {"derived": {"shuffled": "scale_factor * scale_factor"}},
    "idefics3": {"derived": {"shuffled": "scale_factor * scale_factor"}},
    "t5gemma": {"main": "decoder.", "every_class": True, "prefix_width": None},
    "wav2vec2": _SPEECH,
    "hubert": _SPEECH,
    "wavlm": _SPEECH,
    "llama4": {
        "without": ["CAUSAL_LM"],  # its configuration is text_config alone
        "derived": {"squared": "vision_patch_size * vision_patch_size"},
        "whole": "vision_dh = vision_hidden_size / vision_num_attention_heads",
        "not_quantized": ["router"],  # a class of its own, which bitsandbytes skips
        "kinds": {f"text_config.{_EXPERTS}": ["dense", "experts"]},
        "numbers": {f"text_config.{_EXPERTS}": [
            f"text_config.{_EXPERTS}", "dense", "experts", None]},
        "every": {f"text_config.{_EXPERTS}": [
            "text_config.interleave_moe_layer_step", 1, "dense", "experts"]}},
    "llama4_text": {
        "not_quantized": ["router"],
        "kinds": {_EXPERTS: ["dense", "experts"]},
        "numbers": {_EXPERTS: [_EXPERTS, "dense", "experts", None]},
        "every": {_EXPERTS: ["interleave_moe_layer_step", 1, "dense", "experts"]}},
    "gemma3n": {"refuse": "its tower for pictures is built by another library, timm, so "
                          "transformers alone does not tell its tensors"},
    "rwkv": {"not_estimated": "it has no attention, and what its states keep is not known here"},
    "gemma3n_text": {
        "not_estimated": "its layers hand on several streams of numbers, and what those keep is "
                         "not known here",
        # Transformers leaves out what comes last: before the tied head, that is the third of these.
        "not_quantized": ["altup_unembed_projections.2"], "only": {"altup_num_inputs": [4]},
        "unlike": ["altup_unembed_projections"],
        "alike": ["intermediate_size"], "declare": {"intermediate_size": 16384},
        "derived": {"unshared": "layers - num_kv_shared_layers"},
        "base": {"num_kv_shared_layers": 1},
        "fit": lambda values: values | {
            "layer_types": values["num_hidden_layers"] * ["full_attention"],
            "num_kv_shared_layers": values["vocab_size"] // 2 % values["num_hidden_layers"]}},
    "paligemma/gemma2": {"not_quantized": ["head.attention.out_proj"]},
    "paligemma": {"not_quantized": ["head.attention.out_proj"]},
    "xglm": {"prefix_width": None},
    "mpt": {"prefix_width": None},  # PEFT does not find the number of its heads
    "distilbert": {"prefix_width": None},  # nor this one's width
    "clip": {"no_embeddings": True,  # in a part of it, and transformers does not say where
             "without": ["IMAGE_CLS"],  # it has no text
             "not_quantized": ["text_projection"],  # transformers leaves out what comes last
             "replaced": True},
}

for _name in ("kaiming_uniform_", "uniform_", "normal_", "ones_", "zeros_"):  # nothing to fill
    setattr(torch.nn.init, _name, lambda tensor, *args, **kwargs: tensor)


FIXED = "#"  # before a number in a path that counts no layers


class Unfitted(Exception):
    """Something of an architecture that the notation does not say."""


# --------------------------------------------------------------------- what transformers builds


def classes_of(model_type: str) -> dict[str, type]:
    """The class for each task, by our names for tasks."""
    found = {}
    for task, theirs in TASKS.items():
        name = f"MODEL_FOR_{theirs}_MAPPING_NAMES" if theirs else "MODEL_MAPPING_NAMES"
        cls = getattr(modeling_auto, name).get(model_type)
        if isinstance(cls, str) and getattr(transformers, cls) not in found.values():
            found[task] = getattr(transformers, cls)
    return found


def nested(values: dict) -> dict:
    """A configuration with its parts, from one whose keys are `part.key`."""
    config = {}
    for key, value in values.items():
        part, _, inner = key.rpartition(".")
        (config.setdefault(part, {}) if part else config)[inner] = value
    return config


def flat(config: transformers.PreTrainedConfig) -> dict:
    """All keys of a configuration and its parts, those of a part as `part.key`."""
    values = {}
    for key, value in config.to_dict().items():
        if key in config.sub_configs and isinstance(value, dict):
            values |= {f"{key}.{inner}": list(each) if isinstance(each, tuple) else each
                       for inner, each in value.items()
                       if inner not in IGNORED or inner == "model_type"}
        elif key not in IGNORED:
            values[key] = list(value) if isinstance(value, tuple) else value
    return values


def build(cls: type, values: dict) -> torch.nn.Module:
    values = nested(values)
    model_type = values.pop("model_type")
    with torch.device("meta"):
        return cls(transformers.AutoConfig.for_model(model_type, **values))


def named_layers(model: torch.nn.Module, model_type: str) -> dict[str, str]:
    """Path -> the same, marked where a number is a name: a Sequential's layers are not alike."""
    modules, unlike = dict(model.named_modules()), HINTS.get(model_type, {}).get("unlike", ())
    found = {}
    for path in modules:
        parts = path.split(".")
        found[path] = ".".join(
            FIXED * (type(modules[".".join(parts[:i])]) is torch.nn.Sequential
                     or parts[i - 1] in unlike and part.isdigit()) + part
            for i, part in enumerate(parts))
    return found


def tensors(cls: type, values: dict) -> dict[str, tuple]:
    """Path -> (kind, sizes, has a bias, is tied) of all modules with parameters of their own."""
    found, seen = {}, set()
    model = build(cls, values)
    named = named_layers(model, values["model_type"])
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    theirs = {id(p) for m in linear for p in m.parameters(recurse=False)}
    for path, module in model.named_modules():
        path = named[path]
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        if not isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):  # a head's tied bias
            own = {name: p for name, p in own.items() if id(p) not in theirs}
        if not own:
            continue
        tied = "weight" in own and id(own["weight"]) in seen
        seen |= {id(p) for p in own.values()}
        shape = tuple(own["weight"].shape) if "weight" in own else ()
        kind = ("linear" if isinstance(module, torch.nn.Linear) else
                "conv1d" if isinstance(module, Conv1D) else
                "embedding" if isinstance(module, torch.nn.Embedding) else
                "norm" if len(shape) == 1 and own.keys() <= {"weight", "bias"} else "stack")
        if kind == "stack":
            for name, parameter in own.items():
                found[f"{path}.{name}".lstrip(".")] = (kind, tuple(parameter.shape), False, False)
        else:
            found[path] = (kind, shape[::-1] if kind == "linear" else shape, "bias" in own, tied)
    return found


def shapes(cls: type, values: dict) -> dict[str, list[int]] | None:
    """What :func:`accounting.count_full` calls the tensors; None if transformers refuses."""
    try:
        model = build(cls, values)
    except Exception:
        return None
    return {name: list(p.shape) for name, p in model.named_parameters()}


def ours(cls: type, values: dict) -> dict[str, list[int]] | str:
    """The same from our table, or why it refuses."""
    try:
        model = accounting.read_model(nested(values) | {"architectures": [cls.__name__]})
    except ValueError as error:
        return str(error)
    return {n: list(shape) for n, shape in accounting.count_full(model).tensors.items()}


# ------------------------------------------------------------------------- which keys matter


def unread_keys(cls: type, values: dict) -> set[str]:
    """Keys that the modelling code asks for and the configuration's class does not have."""
    config = transformers.AutoConfig.for_model(**nested(
        {key: value for key, value in values.items() if key.endswith("model_type")}))
    kinds = {type(getattr(config, part)): f"{part}." for part in config.sub_configs}
    kinds = {kind: part for kind, part in kinds.items() if kind is not type(None)}
    asked, before = set(), transformers.PreTrainedConfig.__getattribute__

    def spy(self, key):
        try:
            return before(self, key)
        except AttributeError:
            asked.add(kinds.get(type(self), "") + key)
            raise

    transformers.PreTrainedConfig.__getattribute__ = spy
    try:
        build(cls, values)
    finally:
        transformers.PreTrainedConfig.__getattribute__ = before
    return {key for key in asked if not key.rpartition(".")[2].startswith("_")}


def other_values(key: str, value, layers: int) -> list:
    """Values that a key could have instead, to see whether they change the model."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value // 2, value + 1] if value else [1, 2, 8]
    if isinstance(value, float):
        return [2 * value, value / 2] if value else [0.5]
    if key.endswith(".model_type"):
        return [value, value.removesuffix("_text").removesuffix("_vision")]
    if isinstance(value, str):
        return ACTIVATIONS if value in ACTIVATIONS else []
    if isinstance(value, list) and key.endswith("layer_types"):
        kinds = dict.fromkeys(["full_attention", "sliding_attention", *value])
        return [[kind] * layers for kind in kinds]
    if isinstance(value, list):
        return [[], [0], [1, 2]]
    return [True, 8, 2, 0.5, [1, 2], False] if value is None else []


class Family:
    """One model type: its classes, which keys change it, and how."""

    def __init__(self, name: str):
        self.type = name
        model_type, _, text = name.partition("/")
        self.classes = classes_of(model_type)
        hints = HINTS.get(name, {})
        if reason := hints.get("refuse"):
            raise Unfitted(reason)
        for task in hints.get("without", []):
            del self.classes[task]
        if not self.classes:
            raise Unfitted("transformers has no class for it")
        self.task = next(iter(self.classes))
        usual = transformers.AutoConfig.for_model(
            model_type, **{"text_config": {"model_type": text}} if text else {})
        kinds = {part: {"model_type": getattr(usual, part).model_type} for part in usual.sub_configs
                 if getattr(usual, part) is not None}
        self.config = transformers.AutoConfig.for_model(model_type, **kinds)
        self.declared = flat(self.config) | hints.get("declare", {})
        self.parts = [part for part in self.config.sub_configs
                      if any(key.startswith(f"{part}.") for key in self.declared)]
        # A part that is left out is another one than with its class's defaults.
        self.needs = [part for part in self.parts if part != "text_config"
                      and getattr(usual, part).to_dict() != getattr(self.config, part).to_dict()]
        self.main = hints.get("main", "text_config." * ("text_config" in self.parts))
        self.aliases = {}
        self.first = set()  # of these, those that are set before the key of the other name
        for part, config in [("", self.config), *(
                (f"{part}.", getattr(self.config, part)) for part in self.parts)]:
            for alias, key in config.attribute_map.items():
                self.aliases.setdefault(part + key, []).append(part + alias)
                if alias in {each.name for each in dataclasses.fields(config)}:
                    self.first.add(part + alias)
        own = {**{k: k for k in self.declared}, **{
            alias: key for key, names in self.aliases.items() for alias in names}}
        self.names = {}  # our symbol -> the class's key
        for key, symbol in SYMBOLS.items():
            key = own.get(self.main + key)
            if key in self.declared and key not in self.names.values():
                self.names.setdefault(symbol, key)
        if "layers" not in self.names or "d" not in self.names:
            raise Unfitted("its configuration has no hidden_size or num_hidden_layers")
        self.symbol = {key: symbol for symbol, key in self.names.items()}
        self.least = {"model_type": model_type} | (
            {"text_config.model_type": text} if text else {})
        self.base = {**self.least, self.names["layers"]: 4, "pad_token_id": 0,
                     **hints.get("base", {})}
        for key, value in self.declared.items():
            if key.endswith(".model_type"):
                self.base[key] = value
            elif "expert" in key and isinstance(value, int) and value > 8:
                self.base[key] = 8
            elif key in self.names.values() or not isinstance(value, int):
                continue
            elif re.search(r"(num_hidden_layers|depth|coder_layers|num_layers)$", key):
                self.base[key] = min(value, 4)
        self.lists = {key: list(dict.fromkeys(value)) for key, value in self.declared.items()
                      if key.endswith("layer_types") and isinstance(value, list)}
        self.lists |= hints.get("kinds", {})
        self.periods = hints.get("offset", {})  # of lists that no key has: (period, offset)
        for key, kinds in self.lists.items():
            if key not in self.periods:
                self.base[key] = self.list_of(key, [kinds[i % len(kinds)] for i in range(4)])
        self.sizes, self.flags, self.only = [], [], {}

    def numbered(self, key: str) -> bool:
        """Whether a list has the numbers of layers, not a kind for each."""
        return HINTS.get(self.type, {}).get("numbers", {}).get(key, [""])[0] == key

    def list_of(self, key: str, kinds: list[str]) -> list:
        """What the configuration has for layers of these kinds."""
        listed = self.lists[key][-1]
        return [i for i, kind in enumerate(kinds) if kind == listed] if self.numbered(
            key) else kinds

    def kinds_of(self, key: str, values: dict) -> list[str]:
        """The kinds of the layers, of what the configuration has."""
        if key in self.periods:
            offset, _, *count = self.periods[key]
            period, some = HINTS[self.type]["every"][key][0], self.lists[key][-1]
            few = count and values.get(count[0], 2) < 2
            return [some if i % values[period] == values[offset] and not few
                    else self.lists[key][0] for i in range(values[self.names["layers"]])]
        if not self.numbered(key):
            return values[key]
        others, listed = self.lists[key]
        return [listed if i in values[key] else others for i in range(values[self.names["layers"]])]

    def name_of(self, key: str) -> str:
        """The symbol of a key."""
        return self.symbol.get(key, key.replace("_config.", "_").replace(".", "_"))

    def built(self, task: str, values: dict) -> dict[str, tuple]:
        """The tensors of one class; with two labels where it refuses others (question answering).

        Else two is all that its family is ever tried with, and looks like a fixed size.
        """
        try:
            return tensors(self.classes[task], values)
        except ValueError:
            if values.get("num_labels", 2) == 2:
                raise
            return tensors(self.classes[task], values | {"num_labels": 2})

    @property
    def asked(self) -> list[str]:
        """The tasks whose classes say which keys matter."""
        every = HINTS.get(self.type, {}).get("every_class")
        return [*self.classes] if every else [self.task]

    def all_tensors(self, values: dict, tasks=None) -> dict | None:
        try:
            return {task: self.built(task, values) for task in tasks or self.classes}
        except Exception as error:
            self.refusal = f"{type(error).__name__}: {error}"[:200]
            return None

    def sort_keys(self) -> None:
        """Which keys are sizes, which are flags, and what of the others must stay as it is."""
        for task in list(self.classes):  # some are for another form of the configuration
            if self.all_tensors(self.base, [task]) is None:
                del self.classes[task]
        if not self.classes:
            raise Unfitted(self.refusal)
        self.task = next(iter(self.classes))
        one = self.asked  # the other classes are tried with every key in the end
        usual, hints = self.all_tensors(self.base, one), HINTS.get(self.type, {})
        undeclared = set().union(*(unread_keys(cls, self.base) for cls in self.classes.values()))
        known = {**self.declared, **dict.fromkeys(sorted(undeclared - self.declared.keys()))}
        known = {k: v for k, v in known.items() if k not in IGNORED and not k.startswith("_")}
        for key, value in known.items():
            now = self.base.get(key, value)
            found = {}
            for other in other_values(key, now, 4):
                built = self.all_tensors(self.base | {key: other}, one)
                found[json.dumps(other)] = None if built is None else built == usual
            changes = [json.loads(text) for text, same in found.items() if same is False]
            refused = found and all(same is None for same in found.values())
            number = isinstance(value, int) and not isinstance(value, bool)
            symbol = SYMBOLS.get(key.removeprefix(self.main))
            if changes and value is None and symbol:  # read though not declared
                self.declared[key], self.symbol[key] = None, symbol
                self.names[symbol] = key
                self.sizes.append(key)
                continue
            leaf = key.rpartition(".")[2]
            if key in hints.get("only", {}) or key == hints.get("overrides", {}).get("key"):
                continue
            if leaf in PINNED and key not in str(hints.get("every")):
                self.only[key] = [value]
            elif key in self.lists:
                if not changes:
                    del self.lists[key]  # of no consequence, whatever it says
            elif leaf == "model_type":
                self.only[key] = [json.loads(text) for text, same in found.items() if same]
            elif number and (changes or refused or key in self.symbol):
                self.sizes.append(key)
            elif isinstance(value, bool) and changes:
                self.flags.append(key)
            elif value is None and key not in undeclared and changes and not isinstance(
                    changes[0], (bool, float, list)):
                self.sizes.append(key)
            elif isinstance(value, str) and value in ACTIVATIONS:
                self.only[key] = [json.loads(text) for text, same in found.items() if same]
            elif changes or refused or isinstance(value, (str, dict)):
                self.only[key] = [value]

    # ------------------------------------------------------------------- random configurations

    def random_values(self, rng: random.Random) -> dict:
        """A configuration whose numbers are all different, as far as they may be."""
        values = {k: v for k, v in self.base.items()
                  if k.endswith("model_type") or k in HINTS.get(self.type, {}).get("base", {})}
        values |= {"num_labels": rng.choice([2, 3, 5, 7, 9]), "pad_token_id": 0}
        layers = rng.choice([2, 3, 4, 5])
        shape = {part: self.shape(rng) for part in ["", *(f"{part}." for part in self.parts)]}
        for key in self.sizes:
            part, leaf = re.match(r"(.*\.)?(.*)$", key).groups(default="")
            heads, kv, d = shape[part]
            symbol = self.symbol.get(key)
            if symbol == "layers":
                values[key] = layers
            elif symbol == "kv" or leaf == "num_key_value_heads":
                values[key] = kv
            elif symbol == "heads" or re.search(r"(num|attention)_heads$", leaf):
                values[key] = heads
            elif leaf == "hidden_size" and f"{part}embed_dim" in self.sizes:
                values[key] = 2 * rng.randint(10, 90)  # of what comes out of Qwen2-VL's tower
            elif symbol == "d" or leaf in ("hidden_size", "embed_dim", "d_model"):
                values[key] = d
            elif symbol == "dh":
                values[key] = rng.choice([6, 16, 20, 22, 24])
            elif DENSE.search(key):
                values[key] = rng.randint(0, layers)
            elif re.search(r"(layers|depth|num_stages)$", leaf):
                values[key] = rng.choice([2, 3, 4, 5])
            elif "expert" in key:
                values[key] = rng.choice([2, 3, 4, 5, 6, 7])
            elif "patch_size" in leaf or "merge" in leaf or "kernel" in leaf:
                values[key] = rng.choice([2, 3, 4, 5, 6])
            elif leaf == "image_size":
                values[key] = rng.randint(30, 99)
            else:
                values[key] = 2 * rng.randint(10, 90)
            if self.declared[key] in (None, 0, -1) and rng.random() < .4:
                del values[key]
            elif "lora_rank" in key and rng.random() < .3:
                values[key] = None
        for key, kinds in self.lists.items():
            if key in self.periods:
                continue
            values[key] = self.list_of(key, [rng.choice(kinds) for _ in range(layers)])
        for first, second in self.alike():
            if rng.random() < .3:
                values[second] = values[first]
        for key in self.flags:
            values[key] = rng.random() < .5
        return HINTS.get(self.type, {}).get("fit", lambda values: values)(values)

    @staticmethod
    def shape(rng: random.Random) -> tuple[int, int, int]:
        """Heads, heads of keys and values, width."""
        heads = rng.choice([4, 6, 8, 10, 12])
        kv = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
        return heads, kv, heads * rng.choice([8, 10, 12, 14, 18])

    def alike(self) -> list[tuple[str, str]]:
        """Widths that may be the same: then there is no layer between them."""
        d = self.names["d"]
        return [(d, key) for key in self.sizes if d in self.sizes and re.search(
            r"^(embedding_size|word_embed_proj_dim)$", key)]

    def sample(self, count: int, seed: int) -> list[tuple[dict, dict]]:
        """Configurations that transformers takes, and what it builds from them."""
        rng, made, tries = random.Random(seed), [], 0
        while len(made) < count:
            tries += 1
            if tries > 8 * count:
                raise Unfitted(f"transformers takes {len(made)} of {tries} random configurations: "
                               f"{self.refusal}")
            values = self.random_values(rng)
            if built := self.all_tensors(values):
                made.append((values, built))
        return made


# --------------------------------------------------------------------- expressions that explain


class Explainer:
    """Finds the simplest expression of the symbols that has the given value in every sample."""

    def __init__(self, family: Family, samples: list[dict]):
        self.symbols = {family.name_of(key): key for key in family.sizes}
        self.symbols["labels"] = "num_labels"
        self.lists = {family.name_of(key): [family.kinds_of(key, s) for s in samples]
                      for key in family.lists}
        self.known: dict[tuple, str] = {}
        self.flags = {family.name_of(key): key for key in family.flags}
        self.optional = {family.name_of(key): key for key in family.sizes
                         if any((s.get(key) or 0) < 1 for s in samples)}
        numbers = {name: np.array([max(s.get(key) or 0, 0) for s in samples], dtype=float)
                   for name, key in self.symbols.items()}
        for name in FALLBACK.keys() & self.optional.keys():
            del self.optional[name]
            meant = {"kv": numbers["heads"], "dh": numbers["d"] / numbers["heads"],
                     "ff": 4 * numbers["d"]}[name]
            numbers[name] = np.where(numbers[name] == 0, meant, numbers[name])
        flags = {name: np.array([float(s[key]) for s in samples])
                 for name, key in self.flags.items()}
        self.derived = {}  # symbol -> rule
        for part in ("", *(f"{part.removesuffix('_config')}_" for part in family.parts)):
            for name, rule in {**DERIVED, **HINTS.get(family.type, {}).get("derived", {})}.items():
                name, rule = name.replace("{}", part), rule.replace("{}", part)
                needed = set(re.findall(r"[A-Za-z_]\w*", rule))
                if name not in numbers and needed <= numbers.keys() | flags.keys():
                    numbers[name] = eval(rule, {}, flags | numbers)
                    self.derived[name] = rule
        self.single = dict(numbers)
        self.terms = {"": np.ones(len(samples)), **self.single}
        for (a, x), (b, y) in itertools.combinations_with_replacement(self.single.items(), 2):
            if (a, b) != ("heads", "dh") or "dh" not in self.derived:
                self.terms[f"{a}*{b}"] = x * y
        literals = {f"{name}": np.array([bool(s[key]) for s in samples])
                    for name, key in self.flags.items()}
        literals |= {f"({name}>0)": numbers[name] > 0 for name in self.optional}
        literals |= {f"({family.name_of(a)}!={family.name_of(b)})": np.array(
            [s[a] != s[b] for s in samples]) for a, b in family.alike()}
        literals |= {name: np.array([bool(test(s)) for s in samples])
                     for name, (_, test) in HINTS.get(family.type, {}).get("tests", {}).items()}
        self.literals = {**literals, **{f"(1-{name})": ~truth for name, truth in literals.items()}}

    def number(self, wanted: np.ndarray, where: np.ndarray) -> str:
        """The expression with value `wanted` in the samples `where`."""
        key = wanted.tobytes(), where.tobytes()
        for flags in range(3):
            if key not in self.known and (found := self.by_flags(wanted, where, flags)):
                self.known[key] = found
        if key not in self.known:
            raise Unfitted(f"no expression for {wanted[:6]}")
        return self.known[key]

    def by_flags(self, wanted: np.ndarray, where: np.ndarray, flags: int) -> str | None:
        """An expression that is another one where a flag is set, with so many flags."""
        if not flags:
            return self._number(wanted, where)
        for name in self.flags:
            truth = self.literals[name]
            if min((where & truth).sum(), (where & ~truth).sum()) < 6:  # too few to tell
                continue
            found = [self.by_flags(wanted[side[where]], where & side, flags - 1)
                     for side in (truth, ~truth)]
            if all(found) and found[0] == found[1]:
                return found[0]
            if all(found):
                return f"{name}*({found[0]})+(1-{name})*({found[1]})"
        return None

    def _number(self, wanted: np.ndarray, where: np.ndarray) -> str | None:
        def said(factor, name):
            if not name:
                return str(factor)
            up, down = factor.numerator, factor.denominator
            return (f"{up}*" if up != 1 else "") + name + (f"/{down}" if down != 1 else "")

        terms = {name: value[where] for name, value in self.terms.items()}
        for name, value in terms.items():
            if value.any():
                at = int(np.argmax(value))
                factor = Fraction(float(wanted[at] / value[at])).limit_denominator(16)
                if np.allclose(wanted, float(factor) * value, rtol=0, atol=1e-6):
                    return said(factor, name)
        for (a, x), (b, y) in itertools.combinations(terms.items(), 2):
            spread = x * y[::-1] - x[::-1] * y
            at = int(np.argmax(np.abs(spread)))
            if not spread[at]:
                continue
            system = np.array([[x[at], y[at]], [x[::-1][at], y[::-1][at]]])
            solved = np.linalg.solve(system, [wanted[at], wanted[::-1][at]])
            first, second = (Fraction(float(c)).limit_denominator(4) for c in solved)
            if first and second and np.allclose(
                    wanted, float(first) * x + float(second) * y, rtol=0, atol=1e-6):
                if first < 0 or not a:
                    (first, a), (second, b) = (second, b), (first, a)
                joined = f"{said(first, a)}+{said(second, b)}".replace("+-", "-")
                return joined.replace("-1*", "-")
        return None

    def truth(self, wanted: np.ndarray, where: np.ndarray) -> str:
        """"1", "0" or the condition that holds exactly in the wanted samples."""
        if wanted[where].all() or not wanted[where].any():
            return str(int(wanted[where].all()))
        for name, value in self.literals.items():
            if (value == wanted)[where].all():
                return name
        for (a, x), (b, y) in itertools.combinations(self.literals.items(), 2):
            if ((x & y) == wanted)[where].all():
                return f"{a}*{b}"
            if ((x | y) == wanted)[where].all():
                return f"{a}+{b}"
        raise Unfitted("no condition for a tensor or a bias")


def templates(found: dict[str, tuple]) -> dict[str, list]:
    """Modules that differ in their numbers alone: path with `{}` -> [(numbers, entry), …]."""
    grouped: dict[str, list] = {}
    for path, entry in found.items():
        parts = path.split(".")
        numbers = tuple(int(part) for part in parts if part.isdigit())
        template = ".".join("{}" if part.isdigit() else part for part in parts)
        grouped.setdefault(template, []).append((numbers, entry))
    return grouped


def rows_of(family: Family, task: str, samples: list, explain: Explainer) -> list[str]:
    """The lines of a class's table."""
    built = [templates(models[task]) for _, models in samples]
    longest: dict[str, None] = {}  # in the order of the model that has most of them
    for each in sorted(built, key=len, reverse=True):
        longest |= dict.fromkeys(each)
    return [row_of(template, part, explain) for template in longest
            for part in alike([each.get(template, []) for each in built], explain)]


def alike(found: list[list], explain: "Explainer") -> list[list[list]]:
    """A module of all layers, in parts that are the same in all of theirs.

    What parts them is the kinds of a list, or the number from which on layers are others.
    """
    def even(part: list[list]) -> bool:
        return all(entry == each[0][1] for each in part for _, entry in each)

    if even(found):
        return [found]
    kinds = [[dict(enumerate(listed)) for listed in lists] for lists in explain.lists.values()]
    limits = [[{i: i < limit for i in range(99)} for limit in explain.single[name]]
              for name in explain.derived]
    for sorts in kinds + limits:
        names = sorted({sort for each in sorts for sort in each.values()})
        parts = [[[(at, entry) for at, entry in each if at and of[at[0]] == name]
                  for each, of in zip(found, sorts, strict=True)] for name in names]
        if all(map(even, parts)):
            return [part for part in parts if any(part)]
    return [found]


def chosen_by(template: str, place: int, found: list, explain: Explainer) -> tuple:
    """The list of the configuration that says which layers have this module, and where any does."""
    for name, lists in explain.lists.items():
        for kind in sorted({kind for each in lists for kind in each}):
            for end in ("", *explain.derived):  # of all of them, or of those before a number
                stops = explain.single[end] if end else [len(listed) for listed in lists]
                layers = [{i for i, this in enumerate(listed) if this == kind and i < stop}
                          for listed, stop in zip(lists, stops, strict=True)]
                if all({numbers[place] for numbers, _ in each} == these
                       for each, these in zip(found, layers, strict=True) if each):
                    return (f"{name}={kind}{':' * bool(end)}{end}",
                            np.array([bool(these) for these in layers]))
    raise Unfitted(f"{template} skips layers")


def row_of(template: str, found: list[list], explain: Explainer) -> str:
    there = np.array([bool(each) for each in found])
    entries = [each[0][1] for each in found if each]
    if any(entry != each[0][1] for each in found for _, entry in each):
        raise Unfitted(f"{template} is not the same in all layers")
    if len({(entry[0], len(entry[1])) for entry in entries}) > 1:
        raise Unfitted(f"{template} changes its kind")
    path, condition = template, None
    for place in range(template.count("{}")):
        spans = [sorted({numbers[place] for numbers, _ in each}) for each in found if each]
        if any(span != list(range(span[0], span[-1] + 1)) for span in spans):
            chosen, somewhere = chosen_by(template, place, found, explain)
            path = path.replace("{}", f"{{{chosen}}}", 1)
            condition = explain.truth(there, somewhere)
            continue
        start = explain.number(np.array([span[0] for span in spans]), there)
        stop = explain.number(np.array([span[-1] + 1 for span in spans]), there)
        path = path.replace("{}", f"{{{stop}}}" if start == "0" else f"{{{start}:{stop}}}", 1)
        if DENSE.search(path):  # none of them where the range is empty
            condition = "1"
    for each in found:
        if each and math.prod(len({n[i] for n, _ in each}) for i in range(len(each[0][0]))) != len(
                each):
            raise Unfitted(f"{template} skips some")
    kind = entries[0][0]
    sizes = [explain.number(np.array([entry[1][i] for entry in entries]), there)
             for i in range(len(entries[0][1]))]
    options = []
    for word, at in (("bias", 2), ("tied", 3)):
        wanted = np.zeros(len(found), dtype=bool)
        wanted[there] = [entry[at] for entry in entries]
        flag = explain.truth(wanted, there)
        options += [] if flag == "0" else [word] if (flag, word) == ("1", "bias") else [
            f"{word}:{flag}"]
    condition = condition or explain.truth(there, np.ones(len(found), dtype=bool))
    options += [f"if:{condition}"] if condition != "1" else []
    return " ".join([path.replace(FIXED, ""), kind, *sizes, *options])


# ------------------------------------------------------------------------------- the whole table


def default_rules(family: Family, samples: list) -> tuple[dict, dict]:
    """What stands in for a key that is left out, and for one that is null: numbers and rules."""
    absent, null, hints = {}, {}, HINTS.get(family.type, {})
    if family.config.num_labels != 2:
        absent["num_labels"] = family.config.num_labels
    one = family.asked
    for number, key in enumerate(family.sizes):
        default, seen = family.declared[key], where_read(family, samples, key)
        values = seen[number % len(seen)] if seen else samples[number % len(samples)][0]
        without = {k: v for k, v in values.items() if k != key}
        if default is not None and family.all_tensors(
                without | {key: default}, one) == family.all_tensors(without, one):
            absent[key] = default
        known = {*family.names, *map(family.name_of, family.sizes)}
        rules = [rule for rule in (*FALLBACK.values(), "d", *hints.get("rules", []))
                 if known >= {*re.findall(r"[A-Za-z_]\w*", rule)}]
        for rule in rules if seen else []:
            if all(stands_for(family, values, key, rule, key not in absent)
                   for values in seen[:4]):
                null[key] = rule
                break
    return absent, null


def where_read(family: Family, samples: list, key: str) -> list[dict]:
    """A few samples in which a key changes a tensor: in others any default looks right."""
    found = []
    for values, built in samples[:12]:
        now = (family.all_tensors(values | {key: other}, family.asked)
               for other in other_values(key, values.get(key), 4))
        if any(each and each != {task: built[task] for task in each} for each in now):
            found.append(values)
        if len(found) == 4:
            break
    return found


def stands_for(family: Family, values: dict, key: str, rule: str, left_out: bool) -> bool:
    """Whether null, or a key that is left out, is the same as the value of the rule."""
    keys = {**family.names, **{family.name_of(each): each for each in family.sizes}}
    meant = eval(re.sub("/+", "//", rule), {name: values.get(at, family.declared[at])
                                            for name, at in keys.items()})
    without = {k: v for k, v in values.items() if k != key} | ({} if left_out else {key: None})
    now = family.all_tensors(without, family.asked)
    return now is not None and now == family.all_tensors(values | {key: meant}, family.asked)


def symbol_rules(family: Family, explain: Explainer, absent: dict, null: dict,
                 rows: str) -> str:
    """The lines of `symbols`: each after those that its rule needs."""
    first = [family.names[s] for s in ("d", "heads", "layers")
             if family.names.get(s) in family.sizes]
    lines = []
    instead = HINTS.get(family.type, {}).get("instead", {})
    for key in [*first, *(k for k in family.sizes if k not in first)]:
        names = [*([instead[key]] if key in instead else []), key,
                 *(alias for alias in family.aliases.get(key, []) if alias in family.first)]
        symbol = family.name_of(key)
        if symbol in explain.optional:
            names = [f"{name}?{'-1' * (family.declared[key] == -1)}" for name in names]
        lines.append(f"{symbol} = {' | '.join([*names, *filter(None, [null.get(key)])])}")
    for key in family.flags:
        usual = int(family.declared[key])
        off, none = (family.all_tensors(family.base | {key: value}, family.asked)
                     for value in (False, None))
        if usual and none and none == off:  # null is not what is taken if it is left out
            absent[key], usual = usual, 0
        other = f"{instead[key]} | " if key in instead else ""
        lines.append(f"{family.name_of(key)} = {other}{key} | {usual}")
    lines += [f"{name} = {rule}" for name, rule in explain.derived.items()
              if re.search(rf"\b{name}\b", f"{rows} {[*explain.derived.values()]}")]
    lines += [f"{name} = {rule}"
              for name, (rule, _) in HINTS.get(family.type, {}).get("tests", {}).items()]
    lines += [HINTS[family.type]["whole"]] if "whole" in HINTS.get(family.type, {}) else []
    known = {line.split(" = ")[0] for line in lines}
    if "prefix_width" in HINTS.get(family.type, {}):
        width = HINTS[family.type]["prefix_width"]
        lines += [f"prefix_width = {width}"] if width else []
    elif {"d", "heads"} <= known:
        width = "dh" if "dh" in known else "d / heads"
        lines.append(f"prefix_width = {f'kv * {width}' if 'kv' in known else 'd'}")
    return "\n".join(lines)


def table_of(family: Family) -> dict:
    """The family in the notation of families.py."""
    family.sort_keys()
    rules = [rule for rule, _ in HINTS.get(family.type, {}).get("tests", {}).values()]
    family.sizes = [key for key in family.sizes if f"{key}~" not in str(rules)]
    samples = family.sample(36, 1)
    explain = Explainer(family, [values for values, _ in samples])
    rows = {task: rows_of(family, task, samples, explain) for task in family.classes}
    bare = family.task == "FEATURE_EXTRACTION"  # there is no other class
    outer = "model." if bare else rows[family.task][0].split(".")[0] + "."
    roots = {}
    for task, lines in rows.items():
        if task == "FEATURE_EXTRACTION":
            rows[task] = [outer + line for line in lines]
            continue
        inner = family.classes[task].base_model_prefix + "."
        if inner != outer and any(line.startswith(inner) for line in lines):
            roots[task] = inner[:-1]
            rows[task] = [line.replace(inner, outer, 1) if line.startswith(inner) else line
                          for line in lines]
    common = [line for line in rows[family.task] if all(line in each for each in rows.values())]
    heads = {}
    for task, lines in rows.items():
        head = [f"root {roots[task]}"] if task in roots else []
        head += [line for line in lines if line not in common]
        if head or task != "FEATURE_EXTRACTION":
            heads[task] = "\n".join(head)
    absent, null = default_rules(family, samples)
    absent |= HINTS.get(family.type, {}).get("assume", {})
    table = {"symbols": symbol_rules(family, explain, absent, null, str(rows)), "defaults": absent,
             "modules": "\n".join(common), "heads": heads, "head": family.task,
             "classes": classes_in_files(family),
             "only": family.only}
    if family.parts:
        table["parts"] = family.parts
    if family.needs:
        table["needs"] = family.needs
    if family.lists:
        table["lists"] = list_rules(family)
    conversion = moe._MODEL_TO_CONVERSION_PATTERN.get(family.base["model_type"])
    if conversion in moe._MOE_FUSED_TARGETS:
        table["fused"] = list(moe._MOE_TARGET_MODULE_MAPPING[conversion])
    hints = {k: v for k, v in HINTS.get(family.type, {}).items()
             if k not in ("base", "fit", "only", "prefix_width", "without", "every_class",
                          "whole", "tests", "declare", "derived", "kinds", "numbers", "instead",
                          "assume", "unlike", "main", "every", "last", "offset", "rules")}
    table["only"] |= HINTS.get(family.type, {}).get("only", {})
    table["only"] |= {alias: counted for key, counted in table["only"].items()
                      for alias in family.aliases.get(key, [])}
    return table | default_targets(family.base["model_type"]) | hints


def classes_in_files(family: Family) -> dict[str, str]:
    """Our task for each class that a file may name, also as code of its own called it."""
    known = {cls.__name__: task for task, cls in family.classes.items()}
    for entry in HINTS.get(family.type, {}).get("own_code", []):
        end = re.search(r"(For\w+|Model)?$", entry)[0]
        known |= {entry.partition(".")[2]: task for name, task in known.items()
                  if end and name.endswith(end)}
    return known


def list_rules(family: Family) -> dict:
    """For each list that chooses layers: its key, what may stand in it, what stands in for it."""
    rules = {}
    for key, kinds in family.lists.items():
        rules[family.name_of(key)] = rule = {"key": key, "kinds": sorted(kinds)}
        if numbers := HINTS.get(family.type, {}).get("numbers", {}).get(key):
            rule["numbers"] = numbers
        if every := HINTS.get(family.type, {}).get("every", {}).get(key):
            rule["every"] = every
        if last := HINTS.get(family.type, {}).get("last", {}).get(key):
            rule["last"] = last
        if offset := family.periods.get(key):
            rule["offset"] = offset
        if "numbers" in rule or "every" in rule:
            continue
        default = family.declared[key] or []
        if len(kinds) == 1:
            continue  # by default all the same, which says nothing of where the others go
        every = next((n for n in range(2, len(default)) if default == [
            kinds[-1] if (i + 1) % n == 0 else kinds[0] for i in range(len(default))]), None)
        part = key.rpartition(".")[0]
        name = f"{part}." * bool(part) + "full_attention_interval"
        start = family.base | {name: 2}
        start.pop(key)
        built = family.all_tensors(start, [family.task])
        if every and built and built == family.all_tensors(
                family.base | {key: [kinds[0], kinds[-1]] * 2}, [family.task]):
            rule["every"] = [name, every, kinds[0], kinds[-1]]
    return rules


def aliases_of(family: Family) -> dict[str, list[str]]:
    """The other names of keys that change the model, and what transformers makes of a key before
    it reads the other name: its decoder's layers of T5's layers, while it is told the encoder's.
    """
    found = {}
    whole = {key: value for key, value in family.declared.items() if value is not None}
    for key, names in family.aliases.items():
        for alias in names:
            if alias in family.first:
                continue
            starts = [family.least, family.base]
            same = {_means(family, start, alias, key) for start in starts}
            if same == {None} and key not in family.symbol:
                continue  # of no consequence, or transformers takes no other value
            before = [] if False not in same else [
                other for other in whole if other != key and _means(
                    family, {k: v for k, v in whole.items() if k != other} | family.least,
                    alias, key) is False]
            if before and _means(family, whole | family.least, alias, key) is False:
                raise Unfitted(f"what {alias} means is not the value of {key}")
            found[alias] = [key, *before]
    return found


def _means(family: Family, start: dict, alias: str, key: str) -> bool | None:
    """Whether another name is the key itself, beside it and without; None if it changes nothing."""
    usual, same = start.get(key, family.declared.get(key)), []
    for value in other_values(key, usual, 4)[:3]:
        for own in ({}, {key: usual}):
            rest = {k: v for k, v in start.items() if k != key} | own
            meant = family.all_tensors(rest | {key: value}, family.asked)
            if meant and meant != family.all_tensors({**rest, key: usual}, family.asked):
                same.append(meant == family.all_tensors(rest | {alias: value}, family.asked))
    return all(same) if same else None


def bare_of(family: Family, table: dict) -> dict[str, str]:
    """The modules without parameters, `{}` for numbers on the way: of all classes, and of some.

    They are where what holds them is, or where it also holds what stands behind a colon. Where
    neither tells them they are left out.
    """
    dense = {key: 1 for key, value in family.declared.items()
             if DENSE.search(key) and isinstance(value, int)}
    found = {}
    for task, cls in family.classes.items():
        outer, inner = accounting.outer_names(table, task)
        models = [build(cls, values) for values in (family.base, family.least, family.base | dense)
                  if family.all_tensors(values, [task])]
        found[task] = dict.fromkeys(sorted(
            outer + path.removeprefix(inner) if path.startswith(inner) else path
            for path in bare_templates(models)))
    common = [path for path in found[family.task] if all(path in each for each in found.values())]
    return {"": " ".join(common)} | {task: " ".join(more) for task, each in found.items()
                                     if (more := [path for path in each if path not in common])}


def is_bare(module: torch.nn.Module) -> bool:
    return next(module.parameters(), None) is None


def bare_templates(models: list[torch.nn.Module]) -> set[str]:
    holders: dict[tuple[str, str], set] = {}  # (template of what holds, name inside) -> which
    bare, found = set(), set()
    for number, model in enumerate(models):
        for path, module in model.named_modules():
            parent, _, leaf = path.rpartition(".")
            place = accounting.with_braces(parent)
            holders.setdefault((place, leaf), set()).add((number, parent))
            holders.setdefault((accounting.with_braces(path), ""), set()).add((number, path))
            bare |= {(place, leaf)} if path and is_bare(module) else set()
    for parent, leaf in bare:
        where = holders[parent, leaf]
        beside = "" if where == holders[parent, ""] else next(
            (f":{name}" for (each, name), these in holders.items() if each == parent
             and these == where and (each, name) not in bare), None)
        if beside is not None:
            found.add(f"{parent}.{leaf}{beside}".lstrip("."))
    return found


def default_targets(model_type: str) -> dict:
    found = {}
    for ours_, theirs in (("lora", "LORA_TARGET"), ("adalora", "ADALORA_TARGET"),
                          ("vera", "VERA_TARGET"), ("ia3", "IA3_TARGET"),
                          ("feedforward", "IA3_FEEDFORWARD")):
        mapping = getattr(constants, f"TRANSFORMERS_MODELS_TO_{theirs}_MODULES_MAPPING")
        if model_type in mapping:
            found[ours_] = mapping[model_type]
    return found


# ------------------------------------------------------------------------------------ the checks


def trials(family: Family) -> list[dict]:
    """Configurations that the table has not seen: random, by default, and with any key changed."""
    made = [family.least, family.base]
    fresh = [values for values, _ in family.sample(10, 77)]
    made += fresh
    hints = HINTS.get(family.type, {})
    keys = dict.fromkeys(hints.get("base", {})) | family.declared
    for number, (key, value) in enumerate(keys.items()):
        start = fresh[number % len(fresh)]
        layers = start.get(family.names["layers"], 4)
        if key in family.lists:
            made.append({k: v for k, v in start.items() if k != key})
            continue
        others = other_values(key, value, layers)
        made += [start | {key: others[number % len(others)]}] if others else []
        made += [{k: v for k, v in start.items() if k != key}, start | {key: None}]
    if part := hints.get("flat"):
        inner = (f"{part}.model_type", f"{part}.tie_word_embeddings")
        made += [{key.removeprefix(f"{part}."): value for key, value in start.items()
                  if key not in inner} for start in fresh]
    made += [start | {key: "auto"} for start in fresh for key in hints.get("auto", [])]
    made += [start | {key: start[family.names["layers"]] * [start[key]]}
             for start in fresh for key in hints.get("alike", [])]
    if letters := hints.get("letters"):
        said = {kind: letter for letter, kind in letters["kinds"].items()}
        made += [{k: v for k, v in start.items() if k != letters["lists"][0]} | {
            letters["key"]: "".join(map(said.get, start[letters["lists"][0]]))} for start in fresh]
    for key, other in hints.get("instead", {}).items():
        made += [{**start, other: value} for start in fresh
                 for value in other_values(key, start[key], 4)]
    for lists, (key, *_) in hints.get("every", {}).items():
        made += [{k: v for k, v in start.items() if k != lists} | {key: value}
                 for start in fresh for value in (1, 2, 3) if key]
    for lists, (key, *_) in hints.get("numbers", {}).items():
        made += [{k: v for k, v in start.items() if k != lists} | {key: value}
                 for start in fresh for value in ([], [0, 1], [1, 99])]
    return made


def disagreements(family: Family, table: dict) -> list[str]:
    """Where table and transformers differ: a model counted wrongly, or one refused for nothing."""
    accounting.FAMILIES[family.type] = table
    accounting.FAMILIES.setdefault(family.base["model_type"], table)
    wrong = []
    for number, values in enumerate(trials(family)):
        names = list(family.classes)
        if number >= 12:  # a key that was changed: one class after the other
            names = [names[number % len(names)]]
        for cls in (family.classes[name] for name in names):
            mine, theirs = ours(cls, values), shapes(cls, values)
            if isinstance(mine, str):
                excused = "whole number" in mine or re.search(r"needs \w+_config, and", mine)
                if number < 12 and not excused and theirs is not None:
                    wrong.append(f"{cls.__name__} refused: {mine[:200]}")
            elif theirs is not None and not same(mine, theirs, cls):
                odd = set(map(str, mine.items())) ^ set(map(str, theirs.items()))
                wrong.append(f"{cls.__name__} {values}: {sorted(odd)[:4]}")
    return wrong


def same(mine: dict, theirs: dict, cls: type) -> bool:
    """Of a tied bias, which has two names, either may be listed."""
    return mine == theirs or (
        "decoder.bias" in f"{[*mine, *theirs]}" and sorted(mine.values()) == sorted(
            theirs.values()) and len(mine.keys() ^ theirs.keys()) <= 2)


def infer(model_type: str) -> dict:
    family = Family(model_type)
    table = table_of(family)
    table["aliases"] = aliases_of(family)
    table["bare"] = bare_of(family, table)
    if wrong := disagreements(family, table):
        print(json.dumps(table, indent=1)[:6000], file=sys.stderr)
        print("\n".join(wrong[:8]), len(wrong), file=sys.stderr)
        raise Unfitted(f"{len(wrong)} disagreements, first: {wrong[0]}")
    return table


def main(model_types: list[str]) -> None:
    document = json.loads(OUT.read_text("utf-8")) if OUT.exists() else {"families": {}}
    typed = {name: table for name, table in accounting.FAMILIES.items()
             if name not in document["families"]}  # by hand, in families.py
    for model_type in model_types:
        began = time.time()
        try:
            if model_type in typed:
                family = Family(model_type)
                table = typed[model_type] | {
                    "aliases": aliases_of(family), "bare": bare_of(family, typed[model_type])}
            else:
                table = document["families"][model_type] = infer(model_type)
            for what in ("aliases", "bare"):
                document.setdefault(what, {})[model_type] = table.pop(what)
            document.get("missing", {}).pop(model_type, None)
            said = "inferred"
        except Unfitted as error:
            for what in ("families", "aliases", "bare"):
                document.get(what, {}).pop(model_type, None)
            document.setdefault("missing", {})[model_type] = str(error)[:300]
            said = f"not shipped: {error}"
        print(f"{model_type}: {said[:300]} ({time.time() - began:.0f} s)", flush=True)
        document |= {"transformers": transformers.__version__}
        OUT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    main(sys.argv[1:])
