"""A model's settings: what `config.json` may hold, what each key means, what is refused."""

import json

import pytest

from llama_config import SIZES, LlamaConfig, from_hugging_face, read_config

PLAIN = LlamaConfig(27, 16, 20, 2, 4, 4)
GROUPED = LlamaConfig(27, 16, 20, 2, 4, 2, rope_theta=500.0, tie_word_embeddings=False)


def test_config_refuses_what_it_cannot_compute(tmp_path):
    path = tmp_path / "config.json"
    stored = PLAIN.to_hugging_face()
    path.write_text(json.dumps(stored))
    assert read_config(path) == PLAIN
    plain = ".*only plain RoPE, not "
    for change, named in [
            ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
             f"{plain}.*llama3"),
            ({"rope_parameters": None, "rope_scaling": {"type": "linear"}},  # old
             f"{plain}.*linear"),
            ({"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": {}}, f"{plain}.*yarn"),
            ({"rope_scaling": {"type": "linear", "factor": 2.0}}, f"{plain}.*factor"),
            ({"rope_parameters": {"partial_rotary_factor": 0.5}}, f"{plain}.*partial"),
            ({"rope_parameters": [1]}, "rope_parameters must be an object"),
            ({"rope_theta": 300.0}, r"rope_theta is given twice, as 300.0 and 10000.0"),
            ({"rope_theta": None, "rope_scaling": {"rope_theta": 2.0}},
             "rope_theta is given twice, as 10000.0 and 2.0"),
            ({"hidden_act": "gelu"}, "hidden_act is 'gelu'.* only 'silu'"),
            ({"attention_bias": True}, "attention_bias is True.* only False"),
            ({"mlp_bias": True}, "mlp_bias is True.* only False"),
            ({"head_dim": 8}, "head_dim is 8.* = 4"), ({"head_dim": "4"}, "head_dim is '4'.* = 4"),
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
            ({"model_type": "granite"}, "model_type is 'granite'.*llama")]:
        path.write_text(json.dumps(stored | change))
        with pytest.raises(ValueError, match=f"config.json: {named}"):
            read_config(path)


def test_the_config_written_is_all_that_transformers_needs():
    assert GROUPED.to_hugging_face() == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 27,
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 500.0, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": 4,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0}
    assert PLAIN.tie_word_embeddings and PLAIN.rope_theta == 10000.0


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
        config = from_hugging_face(stored | {"sliding_window": window})
        assert config.max_position_embeddings == longest
