"""A model's settings: what `config.json` may hold, what each key means, what is refused."""

import json

import pytest

from llama_config import SIZES, LlamaConfig, from_hugging_face, read_config

PLAIN = LlamaConfig(27, 16, 20, 2, 4, 4)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
GROUPED = LlamaConfig(27, 16, 20, 2, 4, 2, rope_theta=500.0, tie_word_embeddings=False)


def test_config_refuses_what_it_cannot_compute(tmp_path):
    path = tmp_path / "config.json"
    stored = PLAIN.to_hugging_face()
    path.write_text(json.dumps(stored))
    assert read_config(path) == PLAIN
    plain = ".*only plain RoPE.* not "
    for change, named in [
            ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
             f"{plain}.*llama3"),
            ({"rope_parameters": None, "rope_scaling": {"type": "linear"}},  # old
             f"{plain}.*linear"),
            ({"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": {}}, f"{plain}.*yarn"),
            ({"rope_scaling": {"type": "linear", "factor": 2.0}}, f"{plain}.*factor"),
            ({"rope_parameters": LLAMA3 | {"attention_factor": 2.0}}, f"{plain}.*attention_f"),
            ({"rope_parameters": LLAMA3 | {"type": "yarn"}}, f"{plain}.*"),
            ({"rope_parameters": LLAMA3 | {"factor": 0}}, "factor must be from"),
            ({"rope_parameters": LLAMA3 | {"factor": "8"}}, "factor must be a number, got '8'"),
            ({"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}, "low_freq_factor must be"),
            ({"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8.5}},
             "original_max_position_embeddings must be an integer"),
            ({"rope_parameters": LLAMA3 | {"rope_theta": 1e4}, "rope_scaling": {"type": "default"}},
             "rope_scaling is given twice"),
            ({"rope_parameters": {"partial_rotary_factor": 0.5}}, f"{plain}.*partial"),
            ({"rope_parameters": [1]}, "rope_parameters must be an object"),
            ({"rope_theta": 300.0}, r"rope_theta is given twice, as 300.0 and 10000.0"),
            ({"rope_theta": None, "rope_scaling": {"rope_theta": 2.0}},
             "rope_theta is given twice, as 10000.0 and 2.0"),
            ({"hidden_act": "gelu"}, "hidden_act is 'gelu'.* only 'silu'"),
            ({"attention_bias": True}, "attention_bias is True.* only False"),
            ({"mlp_bias": True}, "mlp_bias is True.* only False"),
            ({"head_dim": 5}, "head_dim must be even"), ({"head_dim": 0}, "head_dim must be at"),
            ({"head_dim": "4"}, "head_dim must be an integer, got '4'"),
            ({"head_dim": 2 ** 25}, "head_dim is above"),
            ({"auto_map": {"AutoModelForCausalLM": "my.Model"}}, "auto_map is .*my.Model"),
            ({"no_rope_layers": [1, 0]}, "'no_rope_layers' is"),  # SmolLM3's alone
            ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types is .*linear"),
            ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 63,
              "max_window_layers": 1}, "layer 1 sees only a sliding_window of 63"),
            ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0,
              "max_position_embeddings": 8192}, "layer 0 sees .*window of 4096"),
            ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 2,
              "sliding_window": None}, ".*window of None"),
            ({"model_type": "qwen2", "max_window_layers": 1.0}, "max_window_layers must be an int"),
            ({"model_type": "qwen2", "layer_types": ["full_attention"]}, "layer_types .* 2 layers"),
            ({"layer_types": []}, "layer_types .* 0 kinds for 2 layers"),
            ({"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 8,
              "no_rope_layers": [1, 0]}, "layer 1 sees only a sliding_window of 8"),
            ({"model_type": "qwen2", "attention_bias": 1}, "attention_bias is 1"),
            ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is True.*only False"),
            ({"model_type": "qwen2", "use_sliding_window": 3}, "use_sliding_window must be true"),
            ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers .* 2 layers"),
            ({"model_type": "smollm3", "no_rope_layers": [1, 2]}, "no_rope_layers .* 2 layers"),
            ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "no_rope_layer_interval must"),
            ({"is_causal": False}, "is_causal is False"),  # it sees the future
            ({"sliding_window": 0}, "sliding_window must be at least 1"),
            ({"embedding_multiplier": 12.0}, "'embedding_multiplier' is 12.0"),  # a Granite's
            ({"logits_scaling": 8.0}, "'logits_scaling' is 8.0"),
            ({"final_logit_softcapping": 30.0}, "'final_logit_softcapping' is 30.0"),  # Gemma 2
            ({"use_magic": False}, "'use_magic' is False"),  # off may be what differs
            ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5.* only 1.0"),
            ({"architectures": ["LlamaForSequenceClassification"]},
             "architectures.*LlamaForSequenceClassification"),
            ({"rms_norm_eps": 1e-300}, "rms_norm_eps must be from 1e-12 to 1, got 1e-300"),
            ({"rope_theta": 10 ** 400, "rope_parameters": None},
             "rope_theta must be from 1 to 1e.12, got 1000.*"),
            ({"model_type": ["llama"]}, "model_type is .'llama'."),
            ({"model_type": "gemma2"}, "model_type is 'gemma2'.*capped scores"),
            ({"model_type": "gemma3_text"}, "model_type is 'gemma3_text'.*two rotary bases"),
            ({"model_type": "novelty"}, "model_type is 'novelty'; llama.py computes .*smollm3'.$"),
            ({"model_type": "granite"}, "model_type is 'granite'.*llama.*multipliers")]:
        path.write_text(json.dumps(stored | change))
        with pytest.raises(ValueError, match=f"config.json: {named}"):
            read_config(path)


@pytest.mark.parametrize("key", ["num_attention_heads", "head_dim", "sliding_window", "hidden_act",
                                 "rope_parameters", "layer_types", "model_type", "auto_map"])
def test_a_long_value_is_not_printed_whole(key, tmp_path):  # found by test_fuzz.py
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PLAIN.to_hugging_face() | {key: "x" * 5000}))
    with pytest.raises(ValueError, match=f"config.json: .*{key}") as caught:
        read_config(path)
    assert len(str(caught.value)) < 1000


def test_the_config_written_is_all_that_transformers_needs():
    assert GROUPED.to_hugging_face() == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 27,
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 500.0, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": 4,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0}
    assert PLAIN.tie_word_embeddings and PLAIN.rope_theta == 10000.0


DEFAULTS = {  # type(config)() of transformers 5.23, where it is not Llama's
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "head_dim": 4,
                "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4, "max_position_embeddings": 32768, "rope_theta": 2e6,
                "tie_word_embeddings": True, "no_rope_layers": (1, 1, 1, 0, 1)}}


@pytest.mark.parametrize("family", DEFAULTS)
def test_each_family_leaves_out_its_own_defaults(family):
    sizes = {"vocab_size": 27, "hidden_size": 128, "intermediate_size": 20, "num_hidden_layers": 5,
             "num_attention_heads": 32}
    config = from_hugging_face({"model_type": family} | sizes)
    for key, value in ({"tie_word_embeddings": False, "rope_theta": 1e4, "sliding_window": None}
                       | DEFAULTS[family]).items():
        assert getattr(config, key) == value, key
    assert from_hugging_face(config.to_hugging_face()) == config
    null = {"num_key_value_heads": None, "head_dim": None, "sliding_window": None}
    config = from_hugging_face({"model_type": family} | sizes | null)
    assert (config.num_key_value_heads, config.head_dim, config.sliding_window) == (32, 4, None)


@pytest.mark.parametrize("theta, given", [
    (300.0, {"rope_theta": 300.0}), (200.0, {"rope_parameters": {"rope_theta": 200.0}}),
    (200.0, {"rope_scaling": {"rope_theta": 200.0, "type": "default"}, "rope_theta": 200.0}),
    (10000.0, {"rope_theta": None, "rope_parameters": None}), (10000.0, {})])
def test_the_base_of_the_angles_may_stand_in_three_places(tmp_path, theta, given):
    stored = {key: value for key, value in PLAIN.to_hugging_face().items() if "rope" not in key}
    (tmp_path / "config.json").write_text(json.dumps(stored | given | {"head_dim": None}))
    assert read_config(tmp_path / "config.json").rope_theta == theta


def test_a_key_that_a_config_leaves_out_means_what_transformers_means(tmp_path):
    path = tmp_path / "config.json"
    left_out = ("tie_word_embeddings", "max_position_embeddings", "rms_norm_eps",
                "num_key_value_heads", "hidden_act", "attention_bias", "mlp_bias")
    stored = {key: value for key, value in PLAIN.to_hugging_face().items() if key not in left_out}
    path.write_text(json.dumps(stored))
    config = read_config(path)  # the values of transformers.LlamaConfig()
    assert (config.tie_word_embeddings, config.max_position_embeddings) == (False, 2048)
    assert config.rms_norm_eps == 1e-6 and config.num_key_value_heads == config.num_attention_heads


PUBLISHED = {  # keys as published, sizes cut
    "Llama 2": {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
                "hidden_act": "silu", "initializer_range": 0.02, "max_length": 4096,
                "_name_or_path": "meta-llama/Llama-2-7b-hf", "pad_token_id": 0, "pretraining_tp": 1,
                "rope_scaling": None, "torch_dtype": "float16", "transformers_version": "4.31.0",
                "use_cache": True},
    "SmolLM2": {"is_llama_config": True, "rope_interleaved": False, "rope_theta": 100000,
                "attention_dropout": 0.0, "mlp_bias": False, "attention_bias": False,
                "transformers.js_config": {"dtype": {"q4": 1}}, "tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_models_say_of_themselves_is_known(name):
    sizes = {key: getattr(PLAIN, key) for key in SIZES}
    config = from_hugging_face({"model_type": "llama"} | sizes | PUBLISHED[name])
    assert config.tie_word_embeddings == (name == "SmolLM2")


def test_a_window_that_would_bite_limits_the_input():
    stored = PLAIN.to_hugging_face()
    for window, longest in ((63, 63), (64, 64), (4096, 64), (None, 64)):
        for more in ({}, {"model_type": "mistral"},
                     {"model_type": "mistral", "layer_types": ["full_attention"] * 2},
                     {"model_type": "mistral", "use_sliding_window": False}):
            config = from_hugging_face(stored | {"sliding_window": window} | more)
            assert (config.longest_input, config.max_position_embeddings) == (longest, 64)
            assert from_hugging_face(config.to_hugging_face()) == config


def test_a_window_that_is_off_or_never_exceeded_is_none():
    stored = PLAIN.to_hugging_face() | {"model_type": "qwen2", "max_window_layers": 1}
    for more in ({"sliding_window": 8, "use_sliding_window": False}, {"sliding_window": 8},
                 {"sliding_window": 64, "use_sliding_window": True},
                 {"layer_types": ["full_attention"] * 2},
                 {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2},
                 {"attention_bias": True}, {"attention_bias": False},
                 {"model_type": "smollm3", "sliding_window": 8, "use_sliding_window": True,
                  "no_rope_layers": [1, 1]}):
        assert from_hugging_face(stored | more).longest_input == 64
