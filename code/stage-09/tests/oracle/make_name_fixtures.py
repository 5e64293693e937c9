"""Ask Hugging Face PEFT what names mean, for test_accounting_names.py.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_name_fixtures.py [output.json]

Small models with numbers in them, as in make_method_fixtures.py: embeddings that a model has under
several names, expressions that also mean modules without parameters, layers beside all-linear and
beside long lists, heads among the targets. And, for each family and class of the table, the paths
of the modules without parameters and the layers' kinds that make them; what each of transformers'
other names for a key makes of a configuration.
"""

import json
import sys
import warnings
from pathlib import Path

import infer_families as inferring
import make_accounting_fixtures as accounting
import make_method_fixtures as methods
import torch

OUT = methods.FOLDER / "names.json"
EMBEDDINGS = [
    {"target_modules": ["embed_tokens", "q"]}, {"target_modules": ["encoder.embed_tokens"]},
    {"target_modules": ["shared"]}, {"target_modules": r".*(embed_tokens|\.q)"},
    {"modules_to_save": ["embed_tokens"]}, {"modules_to_save": ["shared", "lm_head"]},
    *({"trainable_token_indices": tokens} for tokens in (
        [1, 2], {"embed_tokens": [1, 2]}, {"shared": [1, 2], "embed_tokens": [1, 2]},
        {"decoder.embed_tokens": [1, 2]}, {"shared": [1, 2], "embed_tokens": [1, 3]},
        {"shared": [3], "lm_head": [3]}, {"decoder.embed_tokens": [3], "lm_head": [3]}))]
EXPRESSIONS = [
    r".*\.mlp\..*", r".*mlp.*proj.*", r".*\.\d+\..*", r".*dropout", r".*(attn|attention)\..*",
    r".*\.(fc1|fc2|dense|wo|wi)", r".*\.[qv](_proj)?", r"(?!.*lm_head).*proj"]
LISTS = [["act_fn", "q_proj"], ["rotary_emb"], ["dropout", "q", "query"], ["act"]]
TEXT_AND_LAYERS = [{"target_modules": targets, "layers": layers}
                   for targets in ("all-linear", r".*\.v_proj") for layers in ([0], 1, [])]


def questions(family: str, task: str) -> list[tuple[str, dict]]:
    asked = []
    if family in ("t5", "mt5", "bart"):
        asked += [("lora", {"rank": 2} | each) for each in EMBEDDINGS]
    asked += [("lora", {"rank": 2, "target_modules": each}) for each in EXPRESSIONS + LISTS]
    asked += [("lora", {"rank": 2, "target_modules": each, "exclude_modules": [
        "act_fn", "mlp", "dropout", "act", "activation_fn"]}) for each in EXPRESSIONS[:3]]
    asked += [("lora", {"rank": 2, "target_modules": ["act_fn", "q_proj"], "layers": [0]}),
              ("loha", {"rank": 2, "target_modules": r".*\.mlp\..*"})]
    for head in ("classifier", "score", "qa_outputs"):
        if task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"):
            names = [head, "query", "q_proj", "c_attn"]
            asked += [("lora", {"rank": 2, "target_modules": names} | more)
                      for more in ({}, {"modules_to_save": [head]})]
            asked += [("loha", {"rank": 2, "target_modules": names}), (
                "lora", {"rank": 2, "target_modules": rf".*(query|q_proj|c_attn|{head}).*"})]
    return asked


def of_layers() -> list[dict]:
    """Layers beside all-linear and an expression, and beside lists of twenty whole paths."""
    made = []
    small = methods.example("llama")
    for config in (small, small | {"num_hidden_layers": 2}):  # 21 linear layers, and 14
        names = [*(f"self_attn.{each}_proj" for each in "qkvo"),
                 *(f"mlp.{each}_proj" for each in ("gate", "up", "down"))]
        whole = [f"model.layers.{i}.{name}" for i in range(config["num_hidden_layers"])
                 for name in names]
        lists = [{"target_modules": names, "layers": [1]} for names in (
            whole, [*whole, "q_proj"], ["lm_head", *whole],
            ["q_proj", "model.layers.0.mlp.up_proj"])]
        asked = [(method, row | more) for method, more in (
            ("lora", {"rank": 2}), ("adalora", {"init_rank": 6}), ("miss", {"rank": 4}),
            ("c3a", {"block_size": 8}), ("loha", {"rank": 2}), ("lokr", {"rank": 2}),
            ("oft", {"oft_block_size": 8}), ("boft", {}), ("vera", {"rank": 4}),
            ("randlora", {"rank": 8})) for row in TEXT_AND_LAYERS + lists]
        made.append({"config": config, "task": "CAUSAL_LM", "answers": [
            methods.answer(methods.fresh(config, "CAUSAL_LM"), "CAUSAL_LM", method, row, False)
            for method, row in asked]})
    return made


def of_names() -> list[dict]:
    made = []
    for family, task in (("t5", "SEQ_2_SEQ_LM"), ("mt5", "SEQ_2_SEQ_LM"), ("bart", "SEQ_2_SEQ_LM"),
                         ("llama", "CAUSAL_LM"), ("llama", "TOKEN_CLS"), ("llama", "QUESTION_ANS"),
                         ("bert", "SEQ_CLS"), ("bert", "TOKEN_CLS"), ("bert", "QUESTION_ANS"),
                         ("roberta", "SEQ_CLS"), ("gpt2", "CAUSAL_LM"), ("gpt2", "TOKEN_CLS"),
                         ("qwen3_moe", "CAUSAL_LM"), ("modernbert", "TOKEN_CLS")):
        print(family, task, file=sys.stderr, flush=True)
        config = methods.example(family)
        if family == "mt5":  # see `build` in make_accounting_fixtures.py
            config |= {"tie_word_embeddings": True}
        made.append({"config": config, "task": task, "answers": [
            methods.answer(methods.fresh(config, task), task, method, arguments, False)
            for method, arguments in questions(family, task)]})
    return made


def of_bare() -> list[dict]:
    """The modules without parameters of a small model of each class."""
    made = []
    for family in sorted(accounting.families.FAMILIES.keys() - {"phi-msft"}):
        print("bare", family, file=sys.stderr, flush=True)
        config = methods.example(family) if family in accounting.SMALL else (
            accounting.small_example(family))
        classes = {}
        for name in accounting.families.FAMILIES[family]["classes"]:
            if cls := getattr(inferring.transformers, name, None):
                try:
                    model = inferring.build(cls, config)
                except Exception:  # of another form of the configuration
                    continue
                classes[name] = sorted(path for path, module in model.named_modules()
                                       if path and inferring.is_bare(module))
        made.append({"config": config, "classes": classes})
    return made


def of_aliases(families: dict = accounting.families.FAMILIES) -> list[dict]:
    """For each family how many parameters other names of keys make, also beside the keys."""
    made = []
    for family, table in sorted(families.items()):
        if not table.get("aliases"):
            continue
        print("aliases", family, file=sys.stderr, flush=True)
        config = methods.example(family) if family in accounting.SMALL else (
            accounting.small_example(family))
        rows = []
        for alias, (key, *_) in table["aliases"].items():
            part, _, own = key.rpartition(".")
            usual = inferring.flat(inferring.transformers.AutoConfig.for_model(**config)).get(key)
            if not isinstance(usual, int):
                continue
            inside = config[part] if part else config
            for value in (2 * usual, usual // 2 or 1):
                for start in (inside, {k: v for k, v in inside.items() if k != own},
                              {"model_type": inside.get("model_type", family)}):
                    changed = start | {alias.rpartition(".")[2]: value}
                    changed = config | {part: changed} if part else changed
                    if family == "mt5":  # see `build` in make_accounting_fixtures.py
                        changed |= {"tie_word_embeddings": True}
                    rows.append({"config": changed, "parameters": accounting.parameters(changed)})
        made.append({"family": family, "rows": rows})
    return made


def main(path: Path) -> None:
    document = {"about": "Counted by Hugging Face PEFT; see make_name_fixtures.py",
                "versions": {"peft": methods.peft.__version__, "torch": torch.__version__,
                             "transformers": inferring.transformers.__version__},
                "cases": of_names() + of_layers(), "bare": of_bare(), "aliases": of_aliases()}
    text = json.dumps(document, separators=(",", ":")).replace('{"config":', '\n{"config":')
    path.write_text(text.replace('{"method":', '\n {"method":') + "\n", encoding="utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
