"""Ask Hugging Face PEFT what the methods of methods.py train, for test_accounting_methods.py.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_method_fixtures.py [output.json]

Small models with numbers in them, since SHiRA draws places and RandLoRA divides by a deviation, and
real ones on the meta device where a method can be built there. Recorded are both numbers of
`get_nb_trainable_parameters()`, the file as safetensors writes it, or what PEFT says instead. And
PEFT's list of methods, and its default targets, as far as they are not LoRA's.
"""

import hashlib
import inspect
import json
import sys
import warnings
from pathlib import Path

import make_accounting_fixtures as accounting
import safetensors.torch
import torch
import transformers
from peft.utils import constants
from peft.utils.save_and_load import get_peft_model_state_dict

import peft

FOLDER = Path(__file__).resolve().parents[1] / "fixtures"
CONFIGS = {"lokr": peft.LoKrConfig, "oft": peft.OFTConfig, "boft": peft.BOFTConfig,
           "miss": peft.MissConfig, "road": peft.RoadConfig, "c3a": peft.C3AConfig,
           "randlora": peft.RandLoraConfig, "shira": peft.ShiraConfig,
           "adalora": peft.AdaLoraConfig, "loha": peft.LoHaConfig, "vera": peft.VeraConfig,
           "ln_tuning": peft.LNTuningConfig, "lora": peft.LoraConfig}
#: Settings to ask each method for, besides PEFT's own; the small models are 48 and 80 wide.
SETTINGS = {
    "lokr": [{"rank": 3}, {"rank": 1, "decompose_both": True}, {"rank": 2, "decompose_factor": 4},
             {"rank": 2, "decompose_factor": 5}, {"rank": 40, "decompose_both": True}],
    "oft": [{"oft_block_size": 8}, {"oft_block_size": 7},
            {"oft_block_size": 8, "block_share": True}, {"rank": 6, "oft_block_size": 0},
            {"rank": 5, "oft_block_size": 0}, {"rank": 5}, {"oft_block_size": 500}],
    "boft": [{"boft_block_size": 8}, {"boft_block_num": 4, "boft_block_size": 0},
             {"boft_block_size": 7}, {"boft_block_num": 4}],
    "miss": [{"rank": 8}, {"rank": 8, "init_weights": "bat"}, {"rank": 7, "init_weights": "bat"},
             {"rank": 8, "init_weights": "mini", "mini_r": 4},
             {"rank": 8, "init_weights": "mini", "mini_r": 7}, {"rank": 90},
             {"rank": 4, "init_weights": False}],
    "road": [{"group_size": 8}, {"group_size": 8, "variant": "road_2"},
             {"group_size": 16, "variant": "road_4"}, {"group_size": 7}],
    "c3a": [{"block_size": 8}, {"block_size": 16}, {"block_size": 7}],
    "randlora": [{"rank": 8}, {"rank": 7}, {"rank": 60}],
    "shira": [{"rank": 3}, {"rank": 8}],
    "adalora": [{"init_rank": 6}], "loha": [{"rank": 4}], "vera": [{"rank": 16}],
    "ln_tuning": [],
}
SMALL = [("llama", "CAUSAL_LM"), ("llama", "SEQ_CLS"), ("bert", "SEQ_CLS"), ("bert", "MASKED_LM"),
         ("t5", "SEQ_2_SEQ_LM"), ("gpt2", "CAUSAL_LM"), ("phi", "CAUSAL_LM"),
         ("gemma2", "CAUSAL_LM"), ("qwen2", "TOKEN_CLS"), ("mixtral", "CAUSAL_LM")]
NAMED = {"bert": ["query", "dense"], "t5": ["q", "wo"], "gpt2": ["c_attn"],
         "phi": ["v_proj", "fc1"]}
NORMS = {"bert": ["LayerNorm"], "qwen2": ["norm", "q_norm"], "mixtral": ["input_layernorm"]}
REAL = {"llama": "Llama-3-8B", "t5": "T5-large", "bert": "BERT-large (uncased)"}
EXPERTS = {"gpt_oss": ["experts.gate_up_proj", "experts.down_proj"],
           "qwen3_moe": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
           "mixtral": ["experts.down_proj"], "llama": ["q_proj.weight", "o_proj.weight"]}


def config_of(method: str, task: str, arguments: dict) -> peft.PeftConfig:
    given = dict(arguments)
    for ours, theirs in (("rank", "r"), ("init_rank", "init_r"), ("layers", "layers_to_transform")):
        if ours in given:
            given[theirs] = given.pop(ours)
    if method == "adalora":
        given["total_step"] = 10
    known = task if task in peft.TaskType.__members__ else None
    return CONFIGS[method](task_type=known, **given)


def answer(model: torch.nn.Module, task: str, method: str, arguments: dict, real: bool) -> dict:
    question = {"method": method, "arguments": arguments}
    try:
        with torch.device("meta" if real else "cpu"):
            adapted = peft.get_peft_model(model, config_of(method, task, arguments),
                                          low_cpu_mem_usage=False)
    except Exception as error:
        return question | {"error": accounting.reason(error)}
    trainable, total = adapted.get_nb_trainable_parameters()
    question |= {"trainable": trainable, "all": total}
    if not real:
        data = safetensors.torch.save(
            {name: tensor.contiguous().clone()
             for name, tensor in get_peft_model_state_dict(adapted).items()},
            metadata={"format": "pt"})
        header = data[8:8 + int.from_bytes(data[:8], "little")]
        question |= {"file_bytes": len(data),
                     "header_sha256": hashlib.sha256(header).hexdigest()}
    return question


def questions(family: str, real: bool) -> list[tuple[str, dict]]:
    targets = {"target_modules": NAMED.get(family, ["q_proj", "v_proj"])}
    asked = []
    for method, settings in SETTINGS.items():
        asked.append((method, {}))
        if not real:
            asked += [(method, targets | each) for each in settings]
    if not real:
        some = {"target_modules": NORMS.get(family, ["norm", "layer_norm", "ln_1"])}
        asked += [("ln_tuning", some), ("miss", targets | {"rank": 4, "layers": [1]}),
                  ("road", targets | {"group_size": 8, "exclude_modules": r".*\.0\..*"}),
                  ("shira", {"rank": 2, "target_modules": ["embed_tokens"]})]
    return asked


def of_parameters_and_tokens() -> list[dict]:
    """LoRA's options that mean parameters that are no modules, and rows of the embedding."""
    cases = []
    for family, names in EXPERTS.items():
        rows = [{"rank": 4, "target_parameters": names, "target_modules": []},
                {"rank": 4, "target_parameters": names[:1]},
                {"rank": 4, "target_parameters": names, "target_modules": ["v_proj"],
                 "rank_pattern": {names[0].replace(".", r"\."): 2}},
                {"rank": 4, "target_parameters": [*names, "nowhere"], "target_modules": ["v_proj"]},
                {"rank": 4, "target_parameters": ["norm.weight"], "target_modules": ["v_proj"]},
                {"rank": 4, "target_parameters": names, "target_modules": [], "use_dora": True},
                {"rank": 4, "target_parameters": names, "target_modules": [],
                 "lora_dropout": 0.1}]
        cases.append((family, "CAUSAL_LM", rows))
    for family, task, name in (("llama", "CAUSAL_LM", "embed_tokens"),
                               ("gemma2", "CAUSAL_LM", "embed_tokens"),
                               ("gpt2", "CAUSAL_LM", "wte"), ("t5", "SEQ_2_SEQ_LM", "shared"),
                               ("bert", "MASKED_LM", "word_embeddings"),
                               ("llama", "SEQ_CLS", "embed_tokens")):
        head = {"bert": "decoder"}.get(family, "lm_head")
        rows = [{"trainable_token_indices": [3, 5, 7]},
                {"trainable_token_indices": {name: [3, 5]}},
                {"trainable_token_indices": {name: [3, 5], head: [3, 5]}},
                {"trainable_token_indices": {name: [3, 5], head: [3, 6, 7]}},
                {"trainable_token_indices": {head: [3, 6, 7]}},
                {"trainable_token_indices": {"nowhere": [1]}},
                {"trainable_token_indices": [3], "modules_to_save": [name]}]
        cases.append((family, task, [{"rank": 2} | row for row in rows]))
    made = []
    for family, task, rows in cases:
        config = example(family)
        made.append({"config": config, "task": task, "answers": [
            answer(fresh(config, task), task, "lora", row, False) for row in rows]})
    return made


def example(family: str) -> dict:
    if family in accounting.SMALL:
        return {"model_type": family, **accounting.SMALL[family]}
    return accounting.small_example(family)


def fresh(config: dict, task: str) -> torch.nn.Module:
    return accounting.CLASSES[task].from_config(transformers.AutoConfig.for_model(**config))


def main(path: Path) -> None:
    models = json.loads((FOLDER.parents[1] / "data" / "models.json").read_text("utf-8"))["models"]
    cases = []
    for family, task in SMALL:
        print(family, task, file=sys.stderr, flush=True)
        config = example(family)
        cases.append({"config": config, "task": task, "answers": [
            answer(fresh(config, task), task, method, arguments, False)
            for method, arguments in questions(family, False)]})
    for family, name in REAL.items():
        print(name, file=sys.stderr, flush=True)
        config = {k: v for k, v in models[name]["config"].items() if k != "architectures"}
        task = accounting.tasks(family)[0]
        answers = [answer(accounting.build(config, task), task, method, arguments, True)
                   for method, arguments in questions(family, True)]
        # what PEFT cannot build without numbers is asked of the small models alone
        cases.append({"config": config, "task": task,
                      "answers": [each for each in answers if "meta" not in each.get("error", "")]})
    mappings = {method: getattr(constants,
                                f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING")
                for method in ("LOKR", "OFT", "BOFT", "MISS", "ROAD", "C3A", "RANDLORA", "SHIRA",
                               "LNTUNING")}
    defaults = {method: {each.name: each.default
                         for each in inspect.signature(CONFIGS[method]).parameters.values()
                         if isinstance(each.default, (bool, int, str))}
                for method in SETTINGS}
    without = {method: [ours for ours, theirs in (("exclude_modules", "exclude_modules"),
                                                  ("layers", "layers_to_transform"))
                        if theirs not in inspect.signature(CONFIGS[method]).parameters]
               for method in SETTINGS}
    document = {"about": "Counted by Hugging Face PEFT; see make_method_fixtures.py",
                "versions": {"peft": peft.__version__, "transformers": transformers.__version__,
                             "torch": torch.__version__},
                "methods": sorted(peft.PeftType.__members__), "default_targets": mappings,
                "defaults": defaults, "without": without, "cases": cases,
                "lora": of_parameters_and_tokens()}
    text = json.dumps(document, separators=(",", ":")).replace('{"config":', '\n{"config":')
    path.write_text(text.replace('{"method":', '\n {"method":') + "\n", encoding="utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "methods.json")
