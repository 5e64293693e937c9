"""The methods of methods.py, and LoRA's options for parameters and tokens, against PEFT."""

import json
from dataclasses import replace
from pathlib import Path

import needs
import pytest
from pefts import ask, check

from real_models import accounting as ac
from real_models import methods

RECORDED = json.loads((Path(__file__).resolve().parents[1] / "fixtures" / "methods.json")
                      .read_text(encoding="utf-8"))
TINY = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101}
CASES = [pytest.param(case, id=f"{case['config']['model_type']}-{case['task']}-{i}")
         for i, case in enumerate(RECORDED["cases"] + RECORDED["lora"])]


@pytest.mark.parametrize("case", CASES)
def test_counts_and_files_are_pefts_or_both_refuse(case):
    model = ac.read_model(case["config"], case["task"])
    for question in case["answers"]:
        tokens = question["arguments"].get("trainable_token_indices")
        both = model.task == "MASKED_LM" and isinstance(tokens, dict) and len(tokens) > 1
        if "error" in question or both or (tokens and "modules_to_save" in question["arguments"]):
            with pytest.raises(ValueError):
                ask(model, question)
            continue
        check(ask(model, question), question)


def test_the_fixture_asks_every_method_of_three_families():
    for method in [*methods.METHODS, "ln_tuning"]:
        asked = {case["config"]["model_type"] for case in RECORDED["cases"]
                 for each in case["answers"] if each["method"] == method and "trainable" in each}
        assert len(asked) >= 3, method


def test_every_method_of_peft_is_counted_or_named():
    ours = {name.upper().replace("-", "_") for name in ac._METHODS} - {"FULL", "ADAPTERS"}
    ours = {f"{name}_TUNING" if name in ("PREFIX", "PROMPT") else name for name in ours}
    assert ours.isdisjoint(methods.NOT_COVERED)
    assert sorted(ours | set(methods.NOT_COVERED)) == RECORDED["methods"]


def test_default_targets_and_settings_are_pefts():
    for method, by_family in RECORDED["default_targets"].items():
        name = {"LNTUNING": "ln_tuning"}.get(method, method.lower())
        for family in ac.FAMILIES:
            model = ac.Model(family, "CAUSAL_LM", {}, ())
            theirs = by_family.get(family.partition("/")[0])
            if theirs is None:
                with pytest.raises(ValueError, match=f"modules of {name} for {family}"):
                    ac.default_targets(model, name)
            else:
                assert ac.default_targets(model, name) == theirs, (method, family)
    for name, row in methods.METHODS.items():
        assert list(row.without) == RECORDED["without"][name], name
        theirs = RECORDED["defaults"][name]
        for setting, default in row.settings.items():
            key = {"rank": "r", "init_rank": "init_r"}.get(setting, setting)
            assert theirs[key] == default, (name, setting)


@pytest.mark.parametrize("method, settings, said", [
    ("dora", {}, "method must be one of adalora.*, got 'dora'"),
    ("oft", {"block_size": 4}, "setting of OFT must be .*oft_block_size.*'block_size'"),
    ("oft", {"oft_block_size": 0}, "got 0 and 0"), ("oft", {"oft_block_size": -8}, "-8"),
    ("oft", {"block_share": 1}, "block_share must be True or False, got 1"),
    ("miss", {"rank": 0}, "rank must be a positive integer, got 0"),
    ("miss", {"rank": 8, "init_weights": "batty"}, "init_weights .*'batty'"),
    ("lokr", {"decompose_factor": 0}, "decompose_factor .*got 0"),
    ("road", {"variant": "road_3"}, "variant .*'road_3'"),
    ("c3a", {"block_size": 7}, "block_size = 7 .*48"),
    ("boft", {"boft_n_butterfly_factor": 2}, "boft_n_butterfly_factor=2"),
    ("oft", {"target_modules": ["embed_tokens"]}, "OFT .*model.embed_tokens")])
def test_bad_settings_are_refused_by_name(method, settings, said):
    with pytest.raises(ValueError, match=said):
        ac.count_method(ac.read_model(TINY), method, **settings)


@pytest.mark.parametrize("rank, both, each", [
    (4, False, 36 + 64), (3, False, 36 + 48), (3, True, 36 + 48), (2, True, 24 + 32)])
def test_lokr_keeps_a_matrix_whole_where_two_are_no_fewer(rank, both, each):
    """48 is 6 x 8, so the factors are 6 x 6 and 8 x 8: whole from half their width on."""
    counted = ac.count_method(ac.read_model(TINY), "lokr", ["q_proj"], rank=rank,
                              decompose_both=both)
    assert counted.trainable == 3 * each


def test_only_indices_are_whole_numbers():
    counted = ac.count_method(ac.read_model(TINY), "shira", ["q_proj"], rank=2)
    assert set(counted.integer_tensors) == {
        f"base_model.model.model.layers.{i}.self_attn.q_proj.shira_indices" for i in range(3)}
    for dtype in ("float16", "bfloat16"):  # the indices keep their four bytes
        assert ac.saved_bytes(counted) - ac.saved_bytes(counted, dtype) in range(
            2 * counted.trainable - 8, 2 * counted.trainable + 9)
    with pytest.raises(ValueError, match="dtype must be one of float32.*'int32'"):
        ac.saved_bytes(counted, "int32")


def test_a_group_of_modules_is_no_norm():
    with pytest.raises(ValueError, match="model.layers.0.mlp holds other modules"):
        ac.count_ln_tuning(ac.read_model(TINY), ["mlp", "norm"])


@pytest.mark.parametrize("sharding, gigabytes", [
    ("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.9), ("fsdp", 1.9)])
def test_what_cards_divide(sharding, gigabytes):
    """Rajbhandari et al., 2020, figure 1: 7.5 billion parameters on 64 cards, 16 bytes each."""
    counted = replace(ac.count_full(ac.read_model(TINY)), trainable=75 * 10**8, total=75 * 10**8)
    bill = ac.memory_bill(counted, convention="mixed")
    assert ac.bill_per_card(bill, 1, sharding) == bill
    assert ac.bill_per_card(bill, 64, sharding).bytes / ac.GB == pytest.approx(gigabytes, abs=0.06)


def test_activations_keep_the_input_of_whatever_trains():
    """Bytes for each token: the input of q and v is one, and for LoRA two copies; a norm's."""
    model = ac.read_model(TINY)

    def inside(counted):
        return ac.activation_estimate(counted, 1, 1).items[0].bytes

    frozen = inside(ac.count_prompt(model))
    for method, settings in (("loha", {}), ("oft", {"oft_block_size": 8}), ("vera", {})):
        counted = ac.count_method(model, method, ["q_proj", "v_proj"], **settings)
        assert inside(counted) - frozen == 3 * 2 * 48, method
        assert f"what {counted.method} computes" in ac.activation_estimate(counted).leaves_out
    assert inside(ac.count_lora(model, 4, ["q_proj", "v_proj"])) - frozen == 3 * 4 * 2 * (48 + 4)
    assert inside(ac.count_adalora(model, 4, ["q_proj"])) - frozen == 3 * 4 * (48 + 4)
    assert inside(ac.count_ln_tuning(model, ["input_layernorm"])) - frozen == 3 * 2 * 48
    assert inside(ac.count_lora(model, 4, ["q_proj"], bias="all")) == inside(
        ac.count_lora(model, 4, ["q_proj"]))


def test_a_token_meets_the_active_experts_alone():
    config = {**TINY, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    model = ac.read_model(config)

    def inside(counted):
        return ac.activation_estimate(counted, 1, 1).items[0].bytes

    down = ac.count_lora(model, 4, [], target_parameters=["experts.down_proj"])
    more = inside(down) - inside(ac.count_prompt(model))
    assert more >= 3 * 2 * 2 * (80 + 4)  # two of four experts; their inputs and ranks


@pytest.mark.parametrize("family, width", [("bloom", 4 * 48), ("distilbert", 80)])
def test_a_family_that_names_no_mlp_width_is_estimated_too(family, width):
    model = ac.read_model({"model_type": family, "hidden_size": 48, "dim": 48, "hidden_dim": 80,
                           "n_layer": 3, "n_layers": 3, "n_head": 6, "n_heads": 6})
    always, inputs = ac.kept_per_token(model)
    assert always == 3 * (4 * 48 + width + 2 * 48)  # q, k, v, o; the MLP's first; two LayerNorms
    assert sum(numbers for _, numbers in inputs) == 3 * (2 * 48 + width + 2 * 48)


def test_experts_are_known_by_their_place_and_shared_ones_have_their_own_width():
    model = ac.read_model({**TINY, "model_type": "qwen2_moe", "num_experts": 4,
                           "num_key_value_heads": 6,
                           "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                           "shared_expert_intermediate_size": 24})
    attention, router, routed = 4 * 48, 4, 2 * 3 * 16
    shared = 2 * 24 + 48 + 24 + 1  # gate, up, down; their product; the shared one's gate
    always, inputs = ac.kept_per_token(model)
    assert always == 3 * (attention + router + routed + shared + 2 * 2 * 48)
    experts = [numbers for names, numbers in inputs if names[0].endswith("experts")]
    assert sorted(experts) == 3 * [2 * 16] + 3 * [2 * 48]


@pytest.mark.parametrize("family, reason", [
    ("qwen3_next", "layer_types"), ("deepseek_v2", "how many experts"),
    ("qwen3_vl", "vision_config")])
def test_what_keeps_more_than_is_known_is_refused(family, reason):
    text = {"text_config": {"vocab_size": 101}} if family == "qwen3_vl" else {}
    model = ac.read_model({"model_type": family, **text})
    with pytest.raises(ac.NotEstimated, match=f"{family}.*{reason}"):
        ac.activation_estimate(ac.count_full(model))


@pytest.mark.parametrize("arguments, said", [
    (["--method", "lora", "--rank", "16", "--cards", "2"], "on each of 2 cards (ddp)"),
    (["--method", "oft", "--set", "oft_block_size=8", "block_share=True"],
     "trainable params: 168 "),
    (["--method", "ln-tuning"], "trainable params: 336 "),
    (["--method", "miss", "--rank", "8", "--targets", "q_proj"], "trainable params: 1,152 "),
    (["--cards", "4", "--sharding", "fsdp"], "layers gathered")])
def test_the_command_line_counts_them(tmp_path, capsys, arguments, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    ac.main([str(path), *arguments])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("arguments, said", [
    (["--cards", "0"], "cards must be a positive integer, got 0"),
    (["--method", "oft", "--set", "block=8"], "'block'"), (["--set", "rank"], "'rank'"),
    (["--method", "c3a", "--rank", "8"], "c3a has no --rank"),
    (["--method", "c3a"], "block_size = 256")])
def test_the_command_line_says_what_is_wrong(tmp_path, capsys, arguments, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        ac.main([str(path), *arguments])
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_the_fixture_can_be_made_again(tmp_path):
    needs.run_oracle("make_method_fixtures.py", tmp_path / "methods.json", cwd=tmp_path)
    again = json.loads((tmp_path / "methods.json").read_text(encoding="utf-8"))
    assert again == RECORDED


@pytest.mark.parametrize("options, said", [
    ({"target_parameters": ["nowhere"], "target_modules": []}, "'nowhere'"),
    ({"target_parameters": ["embed_tokens.weight"]}, "model.embed_tokens.weight"),
    ({"trainable_token_indices": [101]}, "101 is no row of model.embed_tokens"),
    ({"trainable_token_indices": {"layers": [1]}}, "'layers'"),
    ({"trainable_token_indices": {"norm": [1]}}, "norm"),
    ({"trainable_token_indices": [1], "target_modules": ["embed_tokens"]}, "model.embed_tokens")])
def test_parameters_and_tokens_that_are_not_counted_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        ac.count_lora(ac.read_model(TINY), **options)
