"""The parameter explorer's costs, multiplied, are what `compare_peft_methods` says.

The same is tested with real clicks in a browser by the book's widget tests.
"""

import copy
import json
import re
import subprocess
import time
from collections import Counter
from itertools import product
from pathlib import Path

import needs
import numpy as np
import pytest
import traitlets

import peft
from book_pages.widgets import explorer
from book_pages.widgets.explorer import ParameterExplorer
from experiments import small_llama
from real_models import accounting, measured, reading


def multiplied(widget, width, layers, **settings):
    """What the front end does: the cost of one unit times the setting."""
    costs = widget._costs[f"{width},{layers}"]
    return {method["key"]: costs[method["key"]] * settings.get(method["setting"], 1)
            for method in widget._methods}


@pytest.fixture(scope="module")
def widget():
    return explorer.parameter_explorer()


def test_defaults_are_the_published_counts_of_the_7b_shape(widget):
    counts = {key: count["params"] for key, count in widget.counts().items()}
    assert counts == {"full": 2_147_483_648, "lora": 4_194_304, "adapters": 33_554_432,
                      "prefix": 2_621_440, "prompt": 81_920}


def test_every_shape_multiplied_is_exactly_what_compare_peft_methods_counts(widget):
    settings = [dict(zip(explorer.SETTINGS, values, strict=True))
                for values in zip(*(v[:9] for v in explorer.SETTINGS.values()), strict=True)]
    settings.append({name: values[-1] for name, values in explorer.SETTINGS.items()})
    for width, layers in product(widget._widths, widget._layer_counts):
        for heads in widget._head_counts[str(width)]:
            for choice in settings:
                expected = peft.compare_peft_methods(width, layers, heads, **choice)
                assert multiplied(widget, width, layers, **choice) == {
                    key: count["params"] for key, count in expected.items()}


def test_every_position_of_every_slider(widget):
    for setting, values in explorer.SETTINGS.items():
        for value in values:
            expected = peft.compare_peft_methods(**{setting: value})
            [key] = [m["key"] for m in widget._methods if m["setting"] == setting]
            assert multiplied(widget, 4096, 32, **{setting: value})[key] == expected[key]["params"]


def test_no_count_or_byte_is_beyond_what_javascript_counts_exactly(widget):
    largest = max(
        product_ for width, layers in product(widget._widths, widget._layer_counts)
        for product_ in multiplied(
            widget, width, layers, **{k: v[-1] for k, v in explorer.SETTINGS.items()}).values())
    assert largest * 4 <= 2**53 - 1


def test_a_setting_beyond_exact_counting_is_refused():
    with pytest.raises(ValueError, match=r"above 2\*\*53 - 1.*choose smaller"):
        explorer.rank_widget(lora_rank=10**10)


def test_seed_defaults_lie_on_the_sliders():
    widget = explorer.parameter_explorer()
    for setting, values in explorer.SETTINGS.items():
        assert getattr(widget, setting) in values
        assert values == sorted(set(values))
    for _, width, layers, heads in explorer.MODELS:
        assert width in widget._widths and layers in widget._layer_counts
        assert heads in widget._head_counts[str(width)]


def test_another_starting_value_gets_its_own_position():
    widget = explorer.rank_widget(lora_rank=10)
    assert 10 in widget._methods[1]["values"]
    assert widget.counts()["lora"]["params"] == 32 * 2 * 10 * (4096 + 4096)


def test_state_set_from_python_counts_anew():
    widget = explorer.parameter_explorer()
    widget.width, widget.layers, widget.heads = 768, 12, 12
    widget.lora_rank = 16
    assert widget.counts() == peft.compare_peft_methods(768, 12, 12, lora_rank=16)


@pytest.mark.parametrize("make, methods", [
    (explorer.rank_widget, ["full", "lora"]),
    (explorer.bottleneck_widget, ["full", "adapters"]),
    (explorer.lengths_widget, ["full", "prefix", "prompt"]),
])
def test_small_widgets_show_their_methods_and_hold_only_listed_shapes(make, methods):
    widget = make()
    assert list(widget.counts()) == methods
    assert set(widget._costs) == {f"{w},{n}" for _, w, n, _ in explorer.MODELS}


@pytest.mark.parametrize("arguments, message", [
    ({"model": "GPT-5"}, "model must be one of .*got 'GPT-5'"),
    ({"methods": ["lora", "magic"]}, "methods must name some of .*magic"),
    ({"methods": []}, "methods must name some of"),
    ({"rank": 8}, "settings must be among .*rank"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParameterExplorer(**arguments)


@pytest.mark.parametrize("name, value", [("width", 100), ("layers", 7), ("heads", 3),
                                         ("lora_rank", 0), ("precision", "int8")])
def test_bad_state_is_refused(name, value):
    with pytest.raises(Exception, match=name):
        setattr(explorer.parameter_explorer(), name, value)


def test_costs_that_depend_on_heads_are_noticed(monkeypatch):
    monkeypatch.setattr(explorer, "unit_costs", lambda width, layers, heads: {"full": heads})
    with pytest.raises(ValueError, match="depend on the number of heads"):
        explorer.parameter_explorer()


def test_a_page_without_javascript_shows_the_counts():
    caption, columns, rows = explorer.parameter_explorer().fallback()
    assert [row[2] for row in rows] == ["2,147,483,648", "4,194,304", "33,554,432", "2,621,440",
                                        "81,920"]
    assert "4,194,304" in explorer._text_table(caption, columns, rows)


def test_the_front_end_never_parses_html():
    for path in explorer.FRONT_END.glob("*.js"):
        source = path.read_text("utf-8")
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "http:", "fetch("):
            assert sink not in source.replace("http://www.w3.org/2000/svg", ""), (path, sink)


def test_javascript_multiplies_every_shape_exactly(widget, tmp_path):
    """The real front-end function, over every shape and the ends of every slider."""
    picks = [{k: v[i] for k, v in explorer.SETTINGS.items()} for i in (0, 3, -1)]
    shapes = [list(map(int, key.split(","))) for key in widget._costs]
    state = {"_costs": widget._costs, "_methods": widget._methods}
    counted = node(tmp_path, widget._esm, """
const [state, shapes, picks] = data;
console.log(JSON.stringify(shapes.flatMap(([width, layers]) => picks.map((pick) => {
  const all = { ...state, width, layers, ...pick };
  return countParameters((name) => all[name]).map(({ params, ratio }) => [params, ratio]);
}))));
""", [state, shapes, picks])
    expected = [
        [[count["params"], count["ratio"]]
         for count in peft.compare_peft_methods(width, layers, 1, **pick).values()]
        for (width, layers), pick in product(shapes, picks)]
    assert counted == expected


# --------------------------------------------------------------------------- recorded runs


def recorded_row(target, method, size, seed, best):
    curve = {"steps": [0, 40, 80], "validation": [3.0, best + 0.1, best], "train": [2.8, best - 1]}
    return {"kind": "report", "target": target, "method": method, "size": size, "seed": seed,
            "lr": 0.01, "trainable": 768 * size, "file_bytes": 3072 * size, "curve": curve,
            "best_test": best, "best_base": 2.5, **({"names": ["ali", "ece"]} if not seed else {})}


@pytest.fixture(scope="module")
def runs():
    rows = [recorded_row("turkish", "lora-qv", size, seed, 2.4 - size / 100 + seed / 10)
            for size in (4, 1) for seed in (1, 0)]
    rows.append(recorded_row("turkish", "full", 0, 0, 2.2))
    before = {"names": ["anna"], "losses": {"turkish validation": 3.0, "turkish test": 3.1,
                                            "base validation": 2.2}}
    return explorer.RunExplorer(rows, before)


def test_runs_of_all_seeds_become_one_setting_in_order_of_size(runs):
    small, large = runs._runs["turkish"]["lora-qv"]
    assert (small["size"], large["size"]) == (1, 4)
    assert small["seeds"] == 2 and small["names"] == ["ali", "ece"]
    assert small["test"] == [round(2.39 + 0.05, 4), round(float(np.std([2.39, 2.49], ddof=1)), 4)]
    assert small["validation"][-1] == 2.44
    assert (small["low"][-1], small["high"][-1]) == (2.39, 2.49)
    assert runs._runs["turkish"]["full"][0]["test"] == [2.2, None]


def test_a_scale_holds_all_curves_of_a_target(runs):
    low, high = runs._extents["turkish"]
    assert low == pytest.approx(1.2) and high == 3.0


def test_only_recorded_runs_can_be_asked_for(runs):
    for name in ("target", "method"):
        with pytest.raises(traitlets.TraitError, match=f"{name} must be one of .*got 'nonsense'"):
            setattr(runs, name, "nonsense")


def test_runs_are_shown_without_javascript(runs):
    _, _, rows = runs.fallback()
    assert [row[0] for row in rows] == ["Full fine-tuning", "LoRA on q and v", "LoRA on q and v"]


def test_no_runs_are_an_error():
    with pytest.raises(ValueError, match="make experiments"):
        explorer.RunExplorer([], {})


def test_every_method_of_the_experiments_has_a_name():
    assert explorer.RUN_METHODS.keys() == small_llama.METHODS.keys()


# --------------------------------------------------------------------- memory of real models


@pytest.fixture(scope="module")
def memory():
    return explorer.memory_explorer()


def test_at_least_twelve_models_up_to_70_billion(memory):
    totals = [record["total"] for _, record in memory._records]
    assert len(totals) >= 12 and max(totals) > 68e9


@pytest.mark.parametrize("name", accounting.known_models())
def test_multiplied_memory_is_the_bill(memory, name):
    record = dict(memory._records)[name]
    units = dict(record["units"])
    model = accounting.read_model(accounting.known_models()[name]["config"])
    leaves = list(units)
    for targets, rank in ((record["targets"], 8), (leaves, 512), (leaves[-1:], 1)):
        lora = accounting.count_lora(model, rank, targets)
        assert sum(units[leaf] for leaf in targets) * rank == lora.trainable
        shapes = [(tuple(shape), count) for leaf in targets
                  for n_in, n_out, count in record["trained"]["lora"][leaf]
                  for shape in ((rank, n_in), (n_out, rank))]
        for base in accounting.BASE_FORMATS:
            if not record["frozen"][base]:
                why = re.escape(record["not_stored"][base])
                with pytest.raises(accounting.NotStored, match=why):
                    accounting.memory_bill(lora, base=base)
                continue
            bill = accounting.memory_bill(lora, base=base)
            states = sum(size for _, size in memory._states["conventions"]["fp32"]["lines"])
            assert sum(record["frozen"][base]) + lora.trainable * (states + 8) == bill.bytes
        assert Counter(dict.fromkeys(shapes, 0)) <= Counter(
            shape for shape, *_ in accounting.trained_tensors(lora))
        assert sum(count for _, count in shapes) == len(accounting.trained_tensors(lora))
    full = accounting.count_full(model)
    for convention in accounting.CONVENTIONS:
        *lines, state = accounting.memory_bill(full, convention=convention).items
        kept = memory._states["conventions"][convention]
        assert [size * record["total"] for _, size in kept["lines"]] == [i.bytes for i in lines]
        assert 2 * kept["width"] * record["total"] == state.bytes
        assert {label for label, _ in kept["lines"]} <= explorer.ITEM_COLORS.keys()
    assert sum(count for *_, count in record["trained"]["full"]) == len(
        accounting.trained_tensors(full))


def test_a_card_holds_what_its_report_says(memory):
    """Our measured runs say it of the T4; where nobody was found to say it, its name's GB count."""
    name, mib = measured.document()["all"]["card"].removesuffix(" MiB").split(", ")
    assert name == "Tesla T4" and explorer.GPU_BYTES[16] == int(mib.replace(",", "")) * 2**20
    for size, (_, gib) in explorer.GPUS.items():
        held = explorer.GPU_BYTES[size]
        assert held == (size * accounting.GB if gib is None else round(gib * 2**30))
        assert 0.9 * size * 2**30 < held < size * 2**30  # never more than the name, read as GiB
    holds = dict(memory._gpus)
    assert holds["24"].endswith("holds 25.3 GB") and "holds" not in holds["141"]


def test_settings_from_python_keep_to_each_other():
    shape = explorer.parameter_explorer("GPT-2 XL")
    assert 4096 % shape.heads
    shape.width = 4096
    assert 4096 % shape.heads == 0 and shape.counts()["lora"]["params"] > 0
    bill = explorer.memory_explorer("Llama-2-7B", targets=["q_proj", "v_proj"])
    bill.model = "Mistral-7B"
    assert bill.targets == ["q_proj", "v_proj"]
    bill.model = "GPT-2 (124M)"
    assert bill.targets == ["c_attn"] and bill.fallback()


def test_unknown_target_and_model_are_refused():
    with pytest.raises(ValueError, match=r"no modules \['c_attn'\]; its linear layers are"):
        explorer.memory_explorer(targets=["c_attn"])
    with pytest.raises(ValueError, match="model must be one of"):
        explorer.memory_explorer("nonesuch")


def node(tmp_path, source, program, data):
    """Run a program after the front end's own source; it reads `data` and prints JSON.

    What the page has comes out of a stored notebook, and that has its keys sorted.
    """
    (tmp_path / "data.json").write_text(json.dumps(data, sort_keys=True))
    (tmp_path / "program.mjs").write_text(
        f'{source}\nimport {{ readFileSync }} from "node:fs";\n'
        f"const data = JSON.parse(readFileSync(process.argv[2]));\n{program}")
    done = subprocess.run([needs.node(), tmp_path / "program.mjs", tmp_path / "data.json"],
                          check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def of_family(family, small):
    """A small configuration, whatever parts it needs."""
    table, (outer, _, inner) = accounting.FAMILIES[family], family.partition("/")
    config = {"model_type": outer, **small, **dict.fromkeys(table.get("needs", []), small)}
    if "text_config" in table.get("parts", []):
        config["text_config"] = small | ({"model_type": inner} if inner else {})
    return config


CASES_OF_CLASSES = [case["config"] for case in json.loads(
    (Path(__file__).parents[1] / "fixtures" / "classes.json").read_text("utf-8"))]

BASES = json.loads((Path(__file__).parents[1] / "fixtures" / "bases.json").read_text("utf-8"))
CACHES = json.loads((Path(__file__).parents[1] / "fixtures" / "caches.json").read_text("utf-8"))
REFUSED_CACHES = [case["config"] for case in CACHES["cases"] if "layer_types" in str(case)]
ODD_BASES = [
    {"quant_method": "exl2"}, {"quant_method": ["gptq"]}, {"bits": 4}, {}, [], "gptq", True,
    {"quant_method": "gptq"}, {"quant_method": "gptq", "bits": 5},
    {"quant_method": "gptq", "bits": 4.0, "group_size": -1}, {"quant_method": "gptq", "bits": True},
    {"quant_method": "gptq", "bits": 4, "group_size": 0},
    {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {}},
    {"quant_method": "gptq", "bits": 4, "dynamic": {"-:lm_head": {}}},
    {"quant_method": "gptq", "bits": 8, "modules_in_block_to_quantize": ["q_proj", ["o_proj"]]},
    {"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [["c_attn"]]},
    {"quant_method": "gptq", "bits": 4, "CheckPoint": None, "z": 1, "a": 1},
    {"quant_method": "awq", "version": "GEMV"}, {"quant_method": "awq", "group_size": 48},
    {"quant_method": "awq", "group_size": 32, "modules_to_not_convert": ["1.self_attn.q_proj"]},
    {"quant_method": "fp8", "weight_block_size": [128]}, {"quant_method": "fp8", "dequantize": 0},
    {"quant_method": "fp8", "weight_block_size": None, "scale_fmt": "ue8m0"},
    {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "Static"},
    {"quant_method": "fp8", "modules_to_not_convert": ["layers.*.mlp", "lm_head", "norm"]},
    {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*.mlp", "q_proj"]},
    {"quant_method": "fp8", "modules_to_not_convert": ["layers.0."]},
    {"quant_method": "fp8", "modules_to_not_convert": []},
    {"quant_method": "fp8", "modules_to_not_convert": ["(a+)+$"]},
    {"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
    {"quant_method": "mxfp4"}, {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
    {"load_in_8bit": True, "llm_int8_skip_modules": ["down_proj"]}, {"load_in_4bit": 1},
    {"load_in_4bit": False, "quant_method": "bitsandbytes"},
]

PASTE = """
console.log(JSON.stringify(data.texts.map((text) => {
  try {
    return readPasted(text, data.families, data.rules);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message;
  }
})));
"""


#: More names times modules than a page compares while its reader waits.
LONG_LIST = {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 12,
             "num_hidden_layers": 2000, "quantization_config": {
                 "quant_method": "fp8", "modules_to_not_convert": [f"a{i}" for i in range(2000)]}}


def paste(tmp_path, memory, texts):
    data = {"texts": texts, "families": memory._families, "rules": memory._rules}
    return node(tmp_path, memory._esm, PASTE, data)


def test_a_pasted_config_is_counted_as_python_counts_it(memory, tmp_path):
    configs = [dict(entry["config"]) for entry in accounting.known_models().values()]
    configs += [
        {**config, **change} for config in configs[::3]
        for change in ({"tie_word_embeddings": True}, {"vocab_size": 50_001})]
    small = {"hidden_size": 96, "n_embd": 96, "d_model": 96, "num_labels": 7,
             "num_attention_heads": 12}  # the rest: defaults
    needed = {"nemotron": {"num_key_value_heads": 4}, "esm": {"vocab_size": 99},
              "hunyuan_v1_dense": {"head_dim": 8}, "mamba2": {"num_heads": 12},
              "granitemoehybrid": {"mamba_n_heads": 12},  # the default does not fit
              "ministral": {"head_dim": 8}, "lfm2_moe": {  # no defaults
                  "num_hidden_layers": 4, "layer_types": 2 * ["conv", "full_attention"]}}
    configs += [{**of_family(family, small), "architectures": [name], **needed.get(family, {})}
                for family, table in accounting.FAMILIES.items() if family != "phi-msft"
                for name in table["classes"]]
    kinds = ["sliding_attention", "full_attention"] * 2
    configs += [{"model_type": "gemma4_text", **small, "num_hidden_layers": 4, **more} for more in (
        {"layer_types": kinds}, {"layer_types": kinds, "num_kv_shared_layers": 1},
        {"layer_types": kinds[1:] + kinds[:1], "use_double_wide_mlp": True},
        {"layer_types": kinds, "per_layer_config": dict.fromkeys(("01", "3"), {"head_dim": 40})})]
    configs += [{"model_type": "llama4_text", **small, "num_hidden_layers": 4, **more} for more in (
        {"moe_layers": [0, 3]}, {"moe_layers": []}, {"interleave_moe_layer_step": 2})]
    configs += [{"model_type": "wav2vec2", **small, "do_stable_layer_norm": True, **more}
                for more in ({"mask_time_prob": 0.0}, {"mask_time_prob": 0, "mask_feature_prob": 1},
                             {"adapter_attn_dim": 8, "feat_extract_norm": "layer"})]
    configs += CASES_OF_CLASSES
    phi3 = accounting.known_models()["Phi-3-mini"]["config"]
    configs.append(phi3 | {"auto_map": {"AutoModel": "modeling_phi3.Phi3ForCausalLM"},
                           "quantization_config": {"bits": 4}})
    configs.append(phi3 | {"auto_map": {"AutoTokenizer": ["someone/gpt-4o", None]}})
    configs += [case["config"] | {"architectures": [sorted(
        name for name, task in accounting.FAMILIES[
            accounting.read_model(case["config"]).family]["classes"].items()
        if task == case["task"])[0]]} for case in BASES["cases"][::2]]
    configs += [{"model_type": "llama", **small, "quantization_config": found, **more}
                for found in ODD_BASES for more in ({}, *({"architectures": [name]} for name in (
                    "LlamaModel", "LlamaForQuestionAnswering")))]
    configs.append(LONG_LIST)
    deberta = {"model_type": "deberta-v2", **small, "position_buckets": -1}
    configs += [deberta | change for change in (
        {"relative_attention": True, "pos_att_type": "c2p"}, {"conv_kernel_size": 3},
        {"relative_attention": True, "position_buckets": 40, "pos_att_type": ["p2c", "c2p"]},
        {"relative_attention": True, "max_relative_positions": 50, "share_att_key": True},
        {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 2})]
    configs += [{"model_type": family, **small, "vision_config": {"depth": 3}, **more}
                for family in ("qwen2_vl", "qwen2_5_vl") for more in (
        {}, {"tie_word_embeddings": True}, {"text_config": None, "num_key_value_heads": 3})]
    configs += [{"model_type": "lfm2", **small, "num_hidden_layers": 4, **more} for more in (
        {"full_attn_idxs": [1, 3, 77]}, {"full_attn_idxs": None, "block_ff_dim": 500},
        {"layer_types": ["conv", "conv", "full_attention", "conv"], "conv_bias": True})]
    configs += [{"model_type": "jamba", **small, "num_hidden_layers": 9, **more} for more in (
        {"mamba_dt_rank": "auto"}, {"num_experts": 1}, {"attn_layer_period": 3,
                                                        "attn_layer_offset": 1})]
    configs += [{"model_type": "nemotron_h", **small, **more} for more in (
        {"hybrid_override_pattern": "ME*-M"}, {"layer_types": ["moe", "mlp"]},
        {"num_labels": 2.0, "layers_block_type": ["mamba", "attention"]})]
    configs.append({"model_type": "gemma3n_text", **small, "num_hidden_layers": 4,
                    "num_kv_shared_layers": 1, "intermediate_size": 4 * [96]})
    configs += [{"model_type": "mllama", "text_config": {**small, "num_hidden_layers": 6, **more}}
                for more in ({}, {"cross_attention_layers": [0, 5]})]
    configs += [{"model_type": "esm", **small, "vocab_size": 33, **more} for more in (
        {}, {"position_embedding_type": "rotary"}, {"position_embedding_type": "absolute"},
        {"emb_layer_norm_before": True})]
    configs += [case["config"] for case in CACHES["cases"]]
    configs += [{"model_type": family, **small, **more} for family in ("mistral", "qwen3", "gemma2",
                "exaone4", "gpt_oss", "smollm3") for more in (
        {"sliding_window": 1}, {"sliding_window": 7.0}, {"sliding_window": "7"},
        {"attention_chunk_size": 4}, {"use_sliding_window": True, "max_window_layers": 2},
        {"use_sliding_window": True, "max_window_layers": None})]
    configs += [{"model_type": "t5", **small, "feed_forward_proj": words} for words in (
        ["gated-gelu"], {"toString": 0, "valueOf": 0})]  # no words, and to String() no text at all
    configs += [{**small, **more} for more in (  # other names of keys
        {"model_type": "gpt2", "num_hidden_layers": 3, "n_layer": 5},
        {"model_type": "t5", "num_hidden_layers": 2, "num_decoder_layers": 3},
        {"model_type": "granitemoehybrid", "layers_block_type": ["mamba", "attention"],
         "mamba_n_heads": 12,
         "num_hidden_layers": 2},
        {"model_type": "qwen2_vl", "vision_config": {"num_hidden_layers": 3, "depth": 4}})]
    odd = {"hidden_size": 1_236, "intermediate_size": 3_001, "num_attention_heads": 12,
           "num_key_value_heads": 4}  # no size is a multiple of NF4's blocks
    configs.append(accounting.known_models()["Llama-2-7B"]["config"] | odd)
    answers = paste(tmp_path, memory, [json.dumps(config) for config in configs])
    for config, answer in zip(configs, answers, strict=True):
        try:
            expected = explorer.memory_record(accounting.read_model(config))
        except ValueError as error:  # one of the classes that the table does not have
            if config in REFUSED_CACHES:
                assert isinstance(answer, str)
                continue
            assert config["architectures"][0] in str(error)
            assert config["architectures"][0] in answer and config in CASES_OF_CLASSES
            continue
        assert answer | {"name": ""} == expected | {"name": ""}


def test_a_pasted_text_cannot_freeze_the_page(memory, tmp_path):
    texts = ['{"' + 49_000 * '\\"', "{'" + 49_000 * "\\'" + "\\", '{"' + 49_000 * '\\"' + "\\\n",
             '{"a": \'it', "'"]
    begun = time.monotonic()
    answers = paste(tmp_path, memory, texts)
    assert time.monotonic() - begun < 20
    assert all("That is not JSON" in answer for answer in answers)


def test_pasted_brackets_in_brackets_are_refused_in_words(memory, tmp_path):
    deep = 40_000 * "[" + 40_000 * "]"
    for answer in paste(tmp_path, memory, [
            deep, f'{{"model_type": {deep}}}',
            f'{{"model_type": "llama", "architectures": {deep}}}']):
        assert isinstance(answer, str)


def test_pasted_sizes_have_the_bounds_that_python_sets(memory, tmp_path):
    llama = accounting.known_models()["Llama-2-7B"]["config"]
    largest, interval = reading.LARGEST_SIZE, next(
        {"model_type": family, **dict.fromkeys(("hidden_size", "num_attention_heads"), 64)}
        for family, table in accounting.FAMILIES.items()
        if "parts" not in table
        and any(rule.get("every") for rule in table.get("lists", {}).values()))
    configs = [llama | {"vocab_size": largest}, llama | {"vocab_size": largest + 1},
               llama | {"num_hidden_layers": 4 * largest},
               interval | {"num_hidden_layers": reading.MOST_MODULES + 1}]
    answers = paste(tmp_path, memory, [json.dumps(config) for config in configs])
    assert not isinstance(answers[0], str)
    for config, answer in zip(configs[1:], answers[1:], strict=True):
        with pytest.raises(ValueError, match="is larger than") as error:
            accounting.read_model(config)
        assert answer == str(error.value)


ODD = {"model_type": "granitemoehybrid", "num_hidden_layers": 1, "layer_types": ["mamba"]}


@pytest.mark.parametrize("text", [  # each was counted by one of the two and refused by the other
    {"model_type": "gemma4_text", "num_hidden_layers": 4, "num_kv_shared_layers": 15},
    json.dumps({**ODD, "position_embedding_type": 0}).replace("type\": 0", "type\": 1e999"),
    {"model_type": "llama", "id2label": []}, {"model_type": "llama", "id2label": False},
    {"model_type": "siglip", "text_config": {"hidden_size": 768}, "vision_config": []},
    {"model_type": "jamba", "attn_layer_offset": 8},
    {"model_type": "jamba", "attn_layer_offset": -1},
    {"model_type": "nemotron_h", "hybrid_override_pattern": "MEX"},
    {"model_type": "nemotron_h", "hybrid_override_pattern": None},
    {"model_type": "gemma3n_text", "intermediate_size": [8, 8]},
    {"model_type": "gemma3n_text", "num_hidden_layers": 2, "num_kv_shared_layers": 1,
     "intermediate_size": [8, 9]},
    {"model_type": "internlm3", "qkv_bias": True},
    {"model_type": "paligemma", "text_config": {"model_type": ["gemma2"], "hidden_size": 64}}])
def test_page_and_python_refuse_the_same(memory, tmp_path, text):
    text = text if isinstance(text, str) else json.dumps(text)
    [answer] = paste(tmp_path, memory, [text])
    assert isinstance(answer, str)
    with pytest.raises(ValueError):
        accounting.read_model(accounting.parse_config(text))


def test_page_and_python_ask_that_sizes_fit(memory, tmp_path):
    fixtures = Path(__file__).resolve().parents[1] / "fixtures" / "misfits.json"
    recorded = json.loads(fixtures.read_text("utf-8"))
    configs = [{"model_type": "gemma3_text", "layer_types": 18 * ["sliding_attention"]}]
    for family, part, key, value, parameters in recorded["tried"]:
        if parameters is None:
            config = copy.deepcopy(recorded["bases"][family])
            (config[part] if part else config)[key] = value
            configs.append(config)
    refused = 0
    for config, answer in zip(configs, paste(tmp_path, memory, [*map(json.dumps, configs)]),
                              strict=True):
        try:
            counted = accounting.read_model(config).num_parameters
        except ValueError:
            refused += 1
            assert isinstance(answer, str), config
        else:
            assert answer["total"] == counted, config
    assert refused > 250


@pytest.mark.parametrize("name", ["BERT-base (cased)", "RoBERTa-base"])
def test_a_pasted_model_is_the_listed_one(memory, tmp_path, name):
    """With sorted keys the first of BERT's heads is another one: the page counted that."""
    [answer] = paste(tmp_path, memory, [json.dumps(accounting.known_models()[name]["config"])])
    assert answer["total"] == dict(memory._records)[name]["total"]


def test_what_a_stored_notebook_sorts_has_no_order(memory):
    """What the page shows in an order comes as lists; all else is looked up by its name."""
    stored = json.loads(json.dumps(memory.get_state(), sort_keys=True, default=str))
    assert [name for name, _ in stored["_records"]] == list(accounting.known_models())
    for _, record in stored["_records"]:
        assert all(len(pair) == 2 for pair in record["units"])


def bills_of(counts, base, convention, optimizer, cards, sharding, **batch):
    """Python's answer to what the page shows: bytes of full fine-tuning and of LoRA, by item."""
    answer = []
    for counted, base_of, kept in zip(counts, ("bfloat16", base), (convention, "fp32"),
                                      strict=True):
        states = accounting.bill_per_card(accounting.memory_bill(
            counted, base=base, convention=kept, optimizer=optimizer), cards, sharding)
        more = []
        if not accounting.why_not_estimated(counted.model):
            bill = accounting.activation_estimate(counted, base=base_of, **batch)
            more = [*bill.items, accounting.overhead(states, bill)]
        labels = [item.label for item in accounting.frozen_items(counted, base)]
        frozen = sum(item.bytes for item in states.items if item.label in labels)
        items = [item for item in states.items if item.label not in labels]
        answer.append([frozen, *(item.bytes for item in [*items, *more])])
    return answer


def served_by(counted, settings):
    """Python's answer to what a server holds; none where the cache is not counted."""
    try:
        bill = accounting.serving_bill(counted, settings["batch"], settings["length"],
                                       base=settings["base"], adapters=settings["adapters"])
    except accounting.NotEstimated:
        return None
    return [item.bytes for item in bill.items]


def test_page_and_python_agree_on_models_and_settings(memory, tmp_path):
    """Listed models and pasted ones: experts, two stacks, copied heads, and what is refused."""
    rng = np.random.default_rng(0)
    small = {"num_labels": 500, **dict.fromkeys(  # the rest: defaults
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4)}
    configs = {name: entry["config"]
               for name, entry in list(accounting.known_models().items())[::5]}
    configs |= {family: {**of_family(family, small), "architectures": sorted(table["classes"])[-1:]}
                for family, table in accounting.FAMILIES.items() if family != "phi-msft"}
    configs["nemotron"]["num_key_value_heads"] = 8  # its own default fails
    configs["esm"]["vocab_size"] = 33  # it has none
    configs["hunyuan_v1_dense"]["head_dim"] = configs["ministral"]["head_dim"] = 128  # nor this
    configs["lfm2_moe"]["layer_types"] = 2 * ["conv", "full_attention"]
    configs["gemma3n_text"]["num_kv_shared_layers"] = 1
    configs["mamba2"] |= {"hidden_size": 4096}  # with which its default heads agree
    configs["glm4_moe"]["head_dim"] = 128  # by default its heads do not divide its width
    cases, expected = [], []
    for name, config in configs.items():
        model = accounting.read_model(config)
        record = dict(memory._records).get(name) or explorer.memory_record(model)
        leaves, full = [leaf for leaf, _ in record["units"]], accounting.count_full(model)
        for _ in range(2):
            targets = [leaf for leaf in leaves if rng.random() < 0.5] or leaves[:1]
            settings = {"base": str(rng.choice([b for b, f in record["frozen"].items() if f])),
                        "convention": str(rng.choice(list(accounting.CONVENTIONS))),
                        "optimizer": str(rng.choice(list(accounting.OPTIMIZERS))),
                        "cards": int(rng.choice(explorer.CARDS)),
                        "sharding": str(rng.choice(list(accounting.SHARDINGS))),
                        "length": int(rng.integers(1, 5000)), "batch": int(rng.integers(1, 40)),
                        "checkpointing": bool(rng.integers(2))}
            adapters = int(rng.integers(1, 100))
            rank, memory_of_card = int(rng.choice(explorer.RANKS)), 10**9 * int(rng.integers(200))
            counts = full, accounting.count_lora(model, rank, targets)
            cases.append([name, json.dumps(config), {
                **settings, "rank": rank, "targets": targets, "adapters": adapters},
                memory_of_card])
            expected.append((counts, settings, memory_of_card))
    answers = node(tmp_path, memory._esm, """
const byName = new Map(data.records);
console.log(JSON.stringify(data.cases.map(([name, text, settings, memory]) => {
  const record = byName.get(name) ?? readPasted(text, data.families, data.rules);
  const served = record.cache && servingBill(record, settings).map(([, bytes]) => bytes);
  return memoryBill(record, settings, data.states, data.overhead).map((side) => [
    side.items.map(([, bytes]) => bytes), record.kept && largestThatFit(side, settings, memory),
    record.why_not, served]);
})));
""", {"records": memory._records, "families": memory._families, "rules": memory._rules,
      "states": memory._states, "overhead": memory._overhead, "cases": cases})
    for case, answer, (counts, settings, memory_of_card) in zip(
            cases, answers, expected, strict=True):
        for (items, most, why, served), counted, bill in zip(answer, counts, bills_of(
                counts, **settings), strict=True):
            assert items == bill, case
            assert served == served_by(counts[1], case[2]), case
            assert why == accounting.why_not_estimated(counted.model)
            kept = {key: settings[key] for key in ("length", "batch", "checkpointing")}
            lora = counted is counts[1]
            base, states = settings["base"] if lora else "bfloat16", accounting.bill_per_card(
                accounting.memory_bill(
                    counted, base=settings["base"], optimizer=settings["optimizer"],
                    convention="fp32" if lora else settings["convention"]),
                settings["cards"], settings["sharding"])
            for name, value in (most or {}).items():  # one more no longer fits
                for n in range(max(1, value), value + 2):
                    again = accounting.activation_estimate(counted, base=base, **{**kept, name: n})
                    needed = states.bytes + again.bytes + accounting.overhead(states, again).bytes
                    assert (needed <= memory_of_card) == (n <= value), (case, name, n)
    assert {why for answer in answers for _, _, why, _ in answer} >= {"", (
        accounting.why_not_estimated(accounting.read_model(configs["deepseek_v2"])))}


@pytest.mark.parametrize("how", ["byte-order mark", "comma at the end", "printed", "repr"])
def test_a_config_is_read_as_people_paste_it(memory, tmp_path, how):
    config = accounting.known_models()["Llama-3.2-1B"]["config"] | {
        "name": "it's \"quoted\", True", "none": None, "list": [1, 2], "a": {"b": False}}
    text = json.dumps(config, indent=1)
    text = {"byte-order mark": "\ufeff" + text, "printed": f"LlamaConfig {text}\n",
            "comma at the end": text[:-2] + ",\n}", "repr": repr(config)}[how]
    [answer] = paste(tmp_path, memory, [text])
    assert answer["total"] == 1_235_814_400
    assert accounting.parse_config(text) == config
    assert accounting.parse_config(text.encode("utf-16")) == config
    assert accounting.parse_config(text.encode("utf-8")) == config


LLAMA = json.dumps(accounting.known_models()["Llama-3.2-1B"]["config"], indent=1)


@pytest.mark.parametrize("text", [
    f"```json\n{LLAMA}\n```", f">>> print(model.config)\nLlamaConfig {LLAMA}", f"config = {LLAMA};",
    LLAMA.replace("\n ", "\n\u00a0"), f"\u200b{LLAMA}",
    LLAMA.replace("{", '{"a": -Infinity, "b": NaN,'),
    repr(json.loads(LLAMA) | {"a": float("-inf"), "b": float("nan")}),
    repr(json.loads(LLAMA))[:-1] + ", 'dtype': torch.bfloat16}",
    LLAMA.replace('"', "\u201d"),
], ids=["fence", "prompt", "assigned", "hard spaces", "no width", "not finite",
        "printed, not finite", "a dtype", "curly quotes"])
def test_what_stands_around_and_between_is_no_matter(memory, tmp_path, text):
    [answer] = paste(tmp_path, memory, [text])
    assert answer["total"] == 1_235_814_400
    assert accounting.read_model(accounting.parse_config(text)).num_parameters == answer["total"]


@pytest.mark.parametrize("text", [
    LLAMA + LLAMA, f"[{LLAMA}, {LLAMA}]", LLAMA.replace("2048", "NaN"), LLAMA.replace("{", "{//\n"),
    LLAMA.replace('"', "\u201c", 1), LLAMA.replace(": ", "\uff1a"), json.dumps(LLAMA),
    re.sub('(num_hidden_layers": )16', r"\g<1>50000", LLAMA)])
def test_what_may_mean_another_model_is_refused(memory, tmp_path, text):
    [answer] = paste(tmp_path, memory, [text])
    assert isinstance(answer, str)
    with pytest.raises(ValueError):
        accounting.read_model(accounting.parse_config(text))


@pytest.mark.parametrize("text, said", [
    ('{"id": "org/model", "siblings": [], "config": {"model_type": "llama"}}', "interface"),
    ('{"metadata": {}, "weight_map": {"a.weight": "b"}}', "index"),
    ('{"tokenizer_class": "LlamaTokenizer"}', "tokenizer"), ('{"config": {}}', "around"),
    ('{"dim": 4096, "n_layers": 32}', "params.json"),
    ("https://huggingface.co/gpt2/blob/main/config.json", "address"),
    ('{"model_type": "llama", "rope": {"a": 1}', "closing brace"),
    ('{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30"}', "diffusers"),
    ('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}', "org/base")])
def test_what_else_is_pasted_is_named(memory, tmp_path, text, said):
    [answer] = paste(tmp_path, memory, [text])
    assert said in answer
    with pytest.raises(ValueError, match=said):
        accounting.read_model(accounting.parse_config(text))


def test_hostile_configs_are_refused_in_plain_words(memory, tmp_path):
    good = dict(accounting.known_models()["Llama-2-7B"]["config"])
    cases = {
        "": "not JSON", "[1]": "object in braces", "null": "object in braces",
        "{}": "model_type is missing",
        '{"model_type": "__proto__"}': "not a family", '{"model_type": ["llama"]}': "not a family",
        '{"model_type": "llava", "text_config": {}}': "vision_config",
        '{"model_type": "phi-msft"}': "needs n_embd",
        '{"model_type": "phi-msft", "__proto__": {"n_embd": 8}}': "needs n_embd",
        '{"model_type": "llama", "architectures": ["__proto__"]}': "__proto__",
        '{"model_type": "llama", "vision_config": {}}': "vision_config",
        '{"model_type": "bert", "auto_map": {"AutoModel": "x--y.JinaBertModel"}}': "auto_map",
        '{"model_type": "bert", "auto_map": {"AutoModel": {"toString": 0, "valueOf": 0}}}':
            "auto_map",
        '{"model_type": "bert", "auto_map": [{"toString": 0, "valueOf": 0}]}': "auto_map",
        '{"model_type": "xlm-roberta", "add_cross_attention": true}': "add_cross_attention",
        '{"model_type": "qwen2_5_vl", "vision_config": {"depth": 3}}': "needs text_config",
        '{"model_type": "lfm2", "full_attn_idxs": [2.5]}': "full_attn_idxs",
        '{"model_type": "deberta-v2", "position_buckets": -2}': "position_buckets",
        "x" * 100_001: "at most 100,000",
        **{json.dumps(good | {key: value}): message for key, value, message in [
            ("hidden_size", -1, "hidden_size must be a positive integer"),
            ("hidden_size", "4096<img src=x onerror=alert(1)>", "must be a positive integer"),
            ("hidden_size", 0, "must be a positive integer"),
            ("hidden_size", True, "must be a positive integer"),
            ("tie_word_embeddings", "no", "must be true or false"),
            ("hidden_size", 4096.5, "must be a positive integer"),
            ("hidden_size", 10**400, "must be a positive integer"),
            ("num_attention_heads", 33, "must be a whole number"),
            ("num_hidden_layers", 10**9, "larger than"),
            ("vocab_size", 2**53 - 1, "larger than"),
        ]},
    }
    for text in cases:  # Python refuses the same
        with pytest.raises((ValueError, TypeError, AttributeError, OverflowError)):
            if len(text) > 100_000:
                raise ValueError("only the page has a limit")
            accounting.read_model(json.loads(text))
    answers = paste(tmp_path, memory, list(cases))
    for (text, message), answer in zip(cases.items(), answers, strict=True):
        assert isinstance(answer, str), (text[:80], answer)
        assert any(part in answer for part in message.split("|")), (text[:80], answer)
