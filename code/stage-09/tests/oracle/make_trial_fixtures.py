"""Ask Hugging Face PEFT about settings that were once counted wrong, and about random ones.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_trial_fixtures.py [output.json]

Every model is small and has its numbers, so that files of prompts can be written as well. Written
down for test_trials.py are `get_nb_trainable_parameters()` and the saved file's length and the
hash of its header, or the error with which PEFT refuses. Random settings come from a fixed seed for
each family; another seed makes others, for a trial that is not kept:

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_trial_fixtures.py other.json 1 5
"""

import copy
import hashlib
import json
import random
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import make_accounting_fixtures as known  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import peft  # noqa: E402  Hugging Face's: the module above takes ours off the path

#: Our task -> PEFT's task type, where it is another one.
TASK_TYPES = {"IMAGE_TEXT": "CAUSAL_LM", "SPEECH_TEXT": "SEQ_2_SEQ_LM"}
CONFIGS = {"lora": peft.LoraConfig, "adalora": peft.AdaLoraConfig, "ia3": peft.IA3Config,
           "ln_tuning": peft.LNTuningConfig, "vera": peft.VeraConfig, "loha": peft.LoHaConfig,
           "lokr": peft.LoKrConfig, "oft": peft.OFTConfig, "boft": peft.BOFTConfig,
           "miss": peft.MissConfig, "road": peft.RoadConfig, "c3a": peft.C3AConfig,
           "randlora": peft.RandLoraConfig, "shira": peft.ShiraConfig,
           "prefix": peft.PrefixTuningConfig, "prompt": peft.PromptTuningConfig,
           "p_tuning": peft.PromptEncoderConfig}
#: Our names of PEFT's settings, where they differ.
NAMES = {"rank": "r", "layers": "layers_to_transform", "init_rank": "init_r",
         "projection": "prefix_projection", "hidden": "encoder_hidden_size",
         "encoder": "encoder_reparameterization_type"}


def task_type(config: dict, task: str, method: str) -> str | None:
    """Virtual tokens need a task type, other methods do not; beside a tower is a decoder alone."""
    task = TASK_TYPES.get(task, task)
    if task == "SEQ_2_SEQ_LM" and "text_config" in config:
        task = "CAUSAL_LM"
    virtual = method in ("prefix", "prompt", "p_tuning")
    return task if task in peft.TaskType.__members__ else "FEATURE_EXTRACTION" * virtual or None


def build(config: dict) -> torch.nn.Module:
    config = copy.deepcopy(config)
    made = transformers.AutoConfig.for_model(**config)
    model = getattr(transformers, config["architectures"][0])(made)
    if known.family_unties(config) and "lm_head.weight" in model.state_dict():
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False  # see `build` in make_accounting_fixtures.py
    return model


def ask(config: dict, task: str, method: str, arguments: dict) -> dict:
    """PEFT's two numbers and its file, or why it refuses."""
    settings = {NAMES.get(name, name): value for name, value in arguments.items()}
    if method == "adalora":
        settings["total_step"] = 10
    try:
        model = peft.get_peft_model(build(config), CONFIGS[method](
            task_type=task_type(config, task, method), **copy.deepcopy(settings)))
        trainable, total = model.get_nb_trainable_parameters()
    except Exception as error:
        return {"error": known.reason(error)}
    row = {"trainable": trainable, "all": total}
    try:
        state = peft.get_peft_model_state_dict(model)
    except Exception as error:  # it trains, and is not saved
        return row | {"unsaved": known.reason(error)}
    data = safetensors.torch.save({k: v.contiguous().clone() for k, v in state.items()},
                                  metadata={"format": "pt"})
    header = data[8:8 + int.from_bytes(data[:8], "little")]
    return row | {"file_bytes": len(data), "header_sha256": hashlib.sha256(header).hexdigest()}


def example(family: str, name: str | None = None, **more) -> dict:
    """A small configuration of a family, with one of its classes."""
    table = known.families.FAMILIES[family]
    small = known.SMALL.get(family)
    config = known.small_example(family) if small is None else {"model_type": family, **small}
    usual = next(each for each, task in table["classes"].items()
                 if task == table["head"] and hasattr(transformers, each))
    return config | {"architectures": [name or usual], **more}



def kinds() -> list[tuple[dict, str, dict]]:
    """Configuration, method and arguments of what was once counted wrong or refused falsely."""
    llama, bert = example("llama"), example("bert")
    roberta = example("roberta", "RobertaForSequenceClassification")
    tagger = example("bert", "BertForTokenClassification")
    asked = [
        # Modules saved whole inside of others that are.
        *[(roberta, "lora", {"modules_to_save": names}) for names in (
            ["out_proj"], ["dense"], ["classifier", "out_proj"], ["LayerNorm"], ["pooler"])],
        *[(example("llava"), "lora", {"target_modules": ["q_proj"], "modules_to_save": names})
          for names in (["multi_modal_projector", "linear_1"], ["multi_modal_projector"],
                        ["linear_1", "linear_2"])],
        *[(bert, "lora", {"modules_to_save": names}) for names in (
            ["cls"], ["cls", "decoder"], ["decoder"], ["predictions"])],
        # A bias on B.
        *[(llama, "lora", {"lora_bias": True, **more}) for more in (
            {"target_modules": ["q_proj", "embed_tokens"]}, {"use_dora": True}, {})],
        # Heads that are named besides.
        (roberta, "lora", {"target_modules": ["query", "classifier"]}),
        (roberta, "lora", {"target_modules": ".*(query|classifier).*"}),
        (roberta, "lora", {"target_modules": ["query", "encoder"]}),
        *[(config, "lora", {"target_modules": "all-linear", "modules_to_save": names})
          for config, names in (
              (tagger, ["classifier"]), (tagger, ["word_embeddings"]),
              (example("qwen2", "Qwen2ForTokenClassification"), ["score"]),
              (example("distilbert", "DistilBertForQuestionAnswering"), ["qa_outputs"]),
              (example("gpt2", "GPT2ForTokenClassification"), ["classifier"]))],
        # The second name of a tied bias.
        *[(config, "lora", {"target_modules": targets, "bias": bias, "rank": 4})
          for config, name in ((bert, "query"), (example("roberta"), "query"))
          for targets in ([name], [name, "decoder"]) for bias in ("all", "lora_only")],
    ]
    # Virtual tokens.
    for family, name in (
            ("distilbert", "DistilBertForSequenceClassification"), ("clip", "CLIPModel"),
            ("gpt2", "GPT2ForTokenClassification"), ("opt", "OPTForSequenceClassification"),
            ("roberta", "RobertaForSequenceClassification"), ("qwen2_audio", None),
            ("whisper", None), ("t5", None), ("bart", None), ("bert", None), ("esm", None),
            ("bart", "BartForSequenceClassification"), ("wav2vec2", "Wav2Vec2Model"),
            ("vit", "ViTModel"), ("bert", "BertModel"), ("t5", "T5EncoderModel"),
            ("gemma3", None), ("llava", None), ("mpt", None), ("falcon", None),
            ("modernbert", "ModernBertForSequenceClassification")):
        if family in known.families.FAMILIES:
            asked += [(example(family, name), method, {"num_virtual_tokens": 5, **more})
                      for method, more in (("prefix", {}), ("prompt", {}), ("p_tuning", {}),
                                           ("prefix", {"projection": True}))]
    # Embeddings and heads in the file.
    for family, name in (("llava", "q_proj"), ("whisper", "q_proj"), ("gemma3", "q_proj"),
                         ("llama", "q_proj"), ("opt", "q_proj"), ("falcon_h1", "in_proj"),
                         ("gpt2", "c_attn")):
        asked += [(example(family), "lora", {"target_modules": [name, *more], **others})
                  for more, others in (
                      (["embed_tokens"], {}), (["lm_head"], {}), (["embed_tokens", "lm_head"], {}),
                      (["lm_head"], {"trainable_token_indices": [1, 2]}))]
    asked += [(llama, "lora", {"target_modules": targets}) for targets in (
        ["q_proj", "model.embed_tokens"], r".*(q_proj|embed_tokens)", r".*(q_proj|lm_head)",
        ["q_proj", "model.embed_tokens", "lm_head"])]
    asked += [(llama, method, {"target_modules": targets, **more}) for targets, more in (
        (["q_proj", "lm_head"], {}), (r".*(q_proj|lm_head)", {})) for method in ("loha", "adalora")]
    # Experts by a list, or by an expression.
    for family in ("qwen3_moe", "mixtral", "deepseek_v3", "olmoe", "gpt_oss"):
        asked += [(example(family), "lora", {"target_modules": targets}) for targets in (
            ["gate_up_proj", "down_proj"], ["gate_up_proj"], ["down_proj"], r".*mlp.*proj.*",
            r".*experts.*", r".*\.(gate_proj|up_proj|down_proj)", r".*gate_up_proj.*", r".*proj",
            ["q_proj", "experts"], ["q_proj", "gate"], r".*\.(w1|w2|w3)", ["q_proj", "w1"],
            ["mlp.gate_up_proj"], ["experts.down_proj"])]
    return asked


LEAST_TO_LEAVE_OUT = 10**7  # parameters: towers whose own sizes no key of the small ones sets
LEFT_OUT = {"phi-msft", "t5", "mt5"}  # no class; embeddings with second names of their own


def some(rng: random.Random, names: list[str], most: int) -> list[str]:
    return rng.sample(names, min(len(names), rng.randint(1, most)))


def random_targets(rng: random.Random, leaves: dict[str, list[str]]) -> str | list[str] | None:
    """As people write them: none, all, last parts, paths, or an expression."""
    linear = leaves["linear"] or leaves["any"]
    ways = [lambda: None, lambda: "all-linear", lambda: some(rng, linear, 3),
            lambda: some(rng, linear, 2) + some(rng, leaves["embedding"], 1),
            lambda: some(rng, linear, 1) + some(rng, leaves["any"], 1),
            lambda: some(rng, leaves["paths"], 2),
            lambda: [".".join(path.split(".")[-2:]) for path in some(rng, leaves["paths"], 2)],
            lambda: rf".*\.({'|'.join(some(rng, linear, 2))})",
            lambda: rf".*\.(0|1)\..*({'|'.join(some(rng, linear, 2))})",
            lambda: rf".*{rng.choice(linear)}.*"]
    return rng.choice(ways)()


def leaves_of(model: torch.nn.Module) -> dict[str, list[str]]:
    """The names of a model's modules, sorted by what they are."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if name}
    last = {kind: sorted({name.rpartition(".")[2] for name, each in kinds.items() if kind in each})
            for kind in ("Linear", "Conv1D", "Norm")}
    full = {name for name, module in model.named_modules() if name and [*module.parameters()]}
    return {"linear": last["Linear"] + last["Conv1D"],
            "embedding": sorted({name.rpartition(".")[2] for name, module in model.named_modules()
                                 if isinstance(module, torch.nn.Embedding) and name in full}),
            "norm": last["Norm"] or last["Linear"],
            "any": sorted({name.rpartition(".")[2] for name in full} - {*map(str, range(99))}),
            "paths": [name for name, each in kinds.items() if "Linear" in each or "Conv1D" in each],
            "outside": sorted({".".join(name.split(".")[-2:]) for name in full
                               if not any(part.isdigit() for part in name.split("."))}),
            "stacks": sorted({".".join(name.split(".")[-2:]) for name, p in
                              model.named_parameters() if p.ndim == 3 and "experts" in name})}


def random_lora(rng: random.Random, leaves: dict[str, list[str]]) -> dict:
    asked = {"rank": rng.choice([1, 3, 8]), "target_modules": random_targets(rng, leaves)}
    more = [(.2, "bias", lambda: rng.choice(["all", "lora_only"])),
            (.25, "modules_to_save", lambda: some(rng, leaves["outside"], 2)),
            (.1, "modules_to_save", lambda: some(rng, leaves["norm"], 1)),
            (.12, "use_dora", lambda: True), (.08, "lora_bias", lambda: True),
            (.12, "exclude_modules", lambda: rng.choice([
                some(rng, leaves["linear"], 1), some(rng, leaves["paths"], 1), r".*\.0\..*"])),
            (.12, "rank_pattern", lambda: {rng.choice([
                *leaves["linear"], *leaves["paths"], r".*\.0\..*"]): 2}),
            (.12, "trainable_token_indices", lambda: [1, 2, 3]),
            (.15, "target_parameters", lambda: some(rng, leaves["stacks"], 2))]
    for share, name, value in more:
        if rng.random() < share and (name != "target_parameters" or leaves["stacks"]):
            asked[name] = value()
    if isinstance(asked["target_modules"], list) and rng.random() < .15:
        asked["layers"] = rng.choice([0, [0, 1], [1]])
    return asked


def random_settings(rng: random.Random, leaves: dict[str, list[str]]) -> tuple[str, dict]:
    """A method and its settings."""
    tokens = {"num_virtual_tokens": rng.choice([3, 7])}
    methods = {"prefix": lambda: tokens | rng.choice([{}, {"projection": True}]),
               "prompt": lambda: tokens,
               "p_tuning": lambda: tokens | rng.choice([{"hidden": 12}, {}]),
               "ln_tuning": lambda: {"target_modules": rng.choice([
                   None, some(rng, leaves["norm"], 2)])},
               "ia3": lambda: {"target_modules": (names := some(rng, leaves["linear"], 3)),
                               "feedforward_modules": names[:1]}}
    sizes = {"adalora": {"init_rank": 4}, "vera": {"rank": 4}, "loha": {"rank": 2},
             "lokr": {"rank": 2}, "oft": {"oft_block_size": 8}, "boft": {"boft_block_size": 4},
             "miss": {"rank": 2}, "road": {"group_size": 4}, "c3a": {"block_size": 4},
             "randlora": {"rank": 4}, "shira": {"rank": 2}}
    if rng.random() < .55:
        return "lora", random_lora(rng, leaves)
    method = rng.choice([*methods, *sizes])
    if method in methods:
        asked = methods[method]()
    else:
        asked = sizes[method] | {"target_modules": random_targets(rng, leaves)}
    if "num_virtual_tokens" not in asked and rng.random() < .2:
        asked["modules_to_save"] = some(rng, leaves["outside"], 1)
    return method, asked


def at_random(seed: int, each: int) -> list[tuple[dict, str, dict]]:
    """So many settings of each family, on a class that is drawn, too."""
    asked = []
    for family in sorted(known.families.FAMILIES.keys() - LEFT_OUT):
        rng = random.Random(f"{family} {seed}")
        classes = [name for name in known.families.FAMILIES[family]["classes"]
                   if hasattr(transformers, name)]
        for _ in range(each):
            config = example(family, rng.choice([None, *classes]))
            try:
                with torch.device("meta"):
                    model = build(config)
            except Exception:
                continue  # of code that a repository brings, or for other sizes
            if sum(p.numel() for p in model.parameters()) < LEAST_TO_LEAVE_OUT:
                asked.append((config, *random_settings(rng, leaves_of(model))))
    return asked


def main(path: Path, seed: int = 0, each: int = 3) -> None:
    rows: dict[str, dict] = {}
    for config, method, arguments in [*(kinds() if seed == 0 else []), *at_random(seed, each)]:
        row = rows.setdefault(json.dumps(config), {"config": config, "answers": []})
        question = {"method": method, "arguments": arguments}
        if any(question.items() <= answer.items() for answer in row["answers"]):
            continue
        task = known.families.FAMILIES[known.family_of(config)]["classes"][
            config["architectures"][0]]
        print(config["architectures"], method, arguments, file=sys.stderr, flush=True)
        row["answers"].append(question | ask(config, task, method, arguments))
    text = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows.values())
    path.write_text(f"[{text}]\n", encoding="utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else known.TESTS / "fixtures" / "trials.json",
         *map(int, sys.argv[2:]))
