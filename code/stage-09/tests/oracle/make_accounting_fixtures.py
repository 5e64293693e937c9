"""Ask Hugging Face PEFT what it counts, and write down the answers for test_accounting.py.

Run with the environment that has torch and PEFT, from anywhere:

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_accounting_fixtures.py \
        [output.json [inferred model_type …]]

Every model is built on torch's `meta` device from its configuration: the real modules and shapes,
without a number in them. Nothing is downloaded. For each family there is one small configuration
and a real one. Recorded are the names and shapes of all parameters of the small models,
`get_nb_trainable_parameters()` for each method, and the size of the file that PEFT's tensors make
when safetensors really writes them; and, for three models with numbers in them, how many bytes a
forward pass keeps for the backward pass.

Of each small configuration also: the shapes that every class in our table builds from it, the
number of parameters without each of its keys (what the class's default makes of it) and with any
other key of the class changed, and which layers bitsandbytes would quantize. And PEFT's default
targets, and the files of adapters on models in 16 bits.
"""

import hashlib
import importlib.util
import json
import re
import sys
import warnings
import weakref
from collections.abc import Iterable
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path = [p for p in sys.path if Path(p or ".").resolve() not in (TESTS, TESTS.parent)]

import safetensors.torch  # noqa: E402
import transformers  # noqa: E402
from peft.utils import constants  # noqa: E402
from peft.utils.save_and_load import get_peft_model_state_dict  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import peft  # noqa: E402  Hugging Face's, which the line above makes sure of

_spec = importlib.util.spec_from_file_location(
    "families", TESTS.parent / "real_models" / "families.py")
families = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(families)

_DECODER = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
            "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101}
_BERT = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
         "num_attention_heads": 6, "vocab_size": 101, "max_position_embeddings": 40,
         "type_vocab_size": 2}
_T5 = {"d_model": 48, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_decoder_layers": 3,
       "num_heads": 6, "vocab_size": 101, "relative_attention_num_buckets": 16}
SMALL = {
    "llama": _DECODER,
    "llama, biases, wide heads": {"model_type": "llama", **_DECODER, "attention_bias": True,
                                  "mlp_bias": True, "head_dim": 16, "tie_word_embeddings": True},
    "mistral": _DECODER,
    "mixtral": {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": {**_DECODER, "head_dim": 12},
    "gemma2": {**_DECODER, "head_dim": 12},
    "gemma3_text": {**_DECODER, "head_dim": 12},
    "qwen2": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 16},
    "phi3": {**_DECODER, "pad_token_id": 0},
    "phi": _DECODER,
    "phi, normalised queries": {"model_type": "phi", **_DECODER, "qk_layernorm": True},
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 40, "vocab_size": 101},
    "opt": {"hidden_size": 48, "ffn_dim": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
            "vocab_size": 101, "max_position_embeddings": 40},
    "opt, narrow embeddings": {"model_type": "opt", "hidden_size": 48, "ffn_dim": 80,
                               "num_hidden_layers": 3, "num_attention_heads": 6, "vocab_size": 101,
                               "max_position_embeddings": 40, "word_embed_proj_dim": 24,
                               "do_layer_norm_before": False},
    "bloom": {"hidden_size": 48, "n_layer": 3, "n_head": 6, "vocab_size": 101},
    "t5": _T5,
    "t5, gated, untied": {"model_type": "t5", **_T5, "feed_forward_proj": "gated-gelu",
                          "tie_word_embeddings": False},
    "mt5": {**_T5, "d_kv": 10, "tie_word_embeddings": False},
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}
# One real configuration for each family, from data/models.json.
REAL = {"llama": "Llama-3-8B", "mistral": "Mistral-7B", "mixtral": "Mixtral-8x7B",
        "gemma": "Gemma-2B", "gemma2": "Gemma-2-9B", "qwen2": "Qwen2.5-3B", "qwen3": "Qwen3-8B",
        "phi3": "Phi-3-mini", "phi": "Phi-2", "gpt2": "GPT-2 XL", "opt": "OPT-350M",
        "bloom": "BLOOMZ-7.1B",
        "t5": "T5-large", "mt5": "mT0-large", "bert": "BERT-large (uncased)",
        "roberta": "RoBERTa-large"}
CLASSES = {"CAUSAL_LM": transformers.AutoModelForCausalLM,
           "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
           "IMAGE_TEXT": transformers.AutoModelForImageTextToText,
           "SPEECH_TEXT": transformers.AutoModelForSpeechSeq2Seq,
           "IMAGE_CLS": transformers.AutoModelForImageClassification,
           "AUDIO_CLS": transformers.AutoModelForAudioClassification,
           "CTC": transformers.AutoModelForCTC,
           "MASKED_LM": transformers.AutoModelForMaskedLM,
           "SEQ_CLS": transformers.AutoModelForSequenceClassification,
           "TOKEN_CLS": transformers.AutoModelForTokenClassification,
           "QUESTION_ANS": transformers.AutoModelForQuestionAnswering,
           "FEATURE_EXTRACTION": transformers.AutoModel}
OTHER_TASKS = {"bert": ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]}


def tasks(family: str) -> list[str]:
    if family in ("t5", "mt5"):
        return ["SEQ_2_SEQ_LM"]
    if "bert" in family:
        return ["MASKED_LM", *OTHER_TASKS["bert"]]
    heads = families.FAMILIES[family]["heads"]
    extra = [task for task in ("TOKEN_CLS", "QUESTION_ANS") if task in heads]
    return ["CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", *extra]


def methods(family: str, task: str, real: bool) -> list[dict]:
    """What to ask: our function's name and arguments. `to_peft` below turns them into PEFT's."""
    first = {"phi3": ["qkv_proj"], "gpt2": ["c_attn"], "bloom": ["query_key_value"],
             "bert": ["query"], "roberta": ["query"], "xlm-roberta": ["query"], "t5": ["q"],
             "mt5": ["q"]}.get(family, ["q_proj"])
    expression = rf".*\.[01]\..*{first[0]}"
    embedding = {"gpt2": "wte", "bloom": "word_embeddings", "t5": "shared", "mt5": "shared",
                 "bert": "word_embeddings", "roberta": "word_embeddings",
                 "xlm-roberta": "word_embeddings"}.get(family, "embed_tokens")
    named = None if family != "phi3" else ["qkv_proj", "down_proj"]

    def ask(method, **arguments):
        return {"method": method, "arguments": arguments}

    asked = [ask("lora", rank=8, target_modules=named),
             ask("prefix", num_virtual_tokens=20), ask("prompt", num_virtual_tokens=20),
             ask("lora", rank=4, target_modules="all-linear", use_dora=True)]
    if family == "mixtral":  # the experts are no modules any more in Transformers 5
        asked.pop()
        named = ["q_proj", "v_proj"]  # PEFT's default fails there; an expression loses its layers
        asked[0] = ask("lora", rank=8, target_modules=named)
        expression = ["q_proj"]
    if real:
        return asked + [ask("p_tuning", num_virtual_tokens=20),
                        ask("prefix", num_virtual_tokens=20, projection=True)]
    if family != "mixtral":
        asked += [ask("lora", rank=3, target_modules="all-linear"),
                  ask("lora", rank=3, target_modules="all-linear", bias="all")]
    asked += [
        ask("lora", rank=2, target_modules=expression),
        ask("lora", rank=5, target_modules=[*first, "not_there"]),
        ask("lora", rank=5, target_modules=first, layers=[0, 2]) if "t5" not in family else
        ask("lora", rank=5, target_modules=first, layers=[1]),
        ask("lora", rank=5, target_modules=[*first, "v_proj"], exclude_modules=expression),
        ask("lora", rank=5, target_modules=first, rank_pattern={rf"1\..*{first[0]}": 3}),
        ask("lora", rank=5, target_modules=first, bias="lora_only"),
        ask("lora", rank=5, target_modules=first, use_rslora=True),
        ask("lora", rank=5, target_modules=[*first, embedding]),
        ask("lora", rank=5, target_modules=[*first, embedding], use_dora=True),
        ask("lora", rank=5, target_modules=first, modules_to_save=[embedding]),
        ask("adalora", init_rank=6, target_modules=first),
        ask("loha", rank=4, target_modules=first),
        ask("vera", rank=16, target_modules=first),
        ask("prefix", num_virtual_tokens=7, projection=True),
        ask("prefix", num_virtual_tokens=7, projection=True, hidden=20),
        ask("p_tuning", num_virtual_tokens=7, hidden=20),
        ask("p_tuning", num_virtual_tokens=7, encoder="LSTM", hidden=20),
    ]
    if family not in ("phi3", "xlm-roberta", "mixtral"):
        asked.append(ask("ia3"))
    if task not in ("CAUSAL_LM", "SEQ_2_SEQ_LM", "MASKED_LM"):
        # the head matters here, not every setting again
        every = [q for q in asked if q["method"] in ("adalora", "loha", "vera", "ia3")]
        norm = {"modules_to_save": ["norm"]} if task == "FEATURE_EXTRACTION" else {}
        return asked[:6] + every + [ask("vera", rank=4, target_modules=first, **norm)]
    if task == "CAUSAL_LM":
        asked.append(ask("lora", rank=5, target_modules=first, modules_to_save=["lm_head"]))
        asked += [ask("loha", rank=4, target_modules=first, modules_to_save=["lm_head"]),
                  ask("vera", rank=4, target_modules=first, modules_to_save=["lm_head"]),
                  ask("adalora", init_rank=4, target_modules=first, modules_to_save=["lm_head"])]
        asked.append(ask("lora", rank=5, target_modules=[*first, "lm_head"]))
    if family in ("llama", "qwen2", "opt", "phi", "gpt2"):
        asked.append(ask("lora", rank=5, target_modules=first, lora_bias=True))
    return asked


def to_peft(method: str, arguments: dict, task: str) -> peft.PeftConfig:
    a = dict(arguments)
    task = {"IMAGE_TEXT": "CAUSAL_LM", "SPEECH_TEXT": "SEQ_2_SEQ_LM"}.get(task, task)
    task = task if task in peft.TaskType.__members__ else None
    if method == "lora":
        a["r"] = a.pop("rank")
        a["layers_to_transform"] = a.pop("layers", None)
        return peft.LoraConfig(task_type=task, **a)
    if method == "adalora":
        return peft.AdaLoraConfig(task_type=task, init_r=a.pop("init_rank"), total_step=10, **a)
    if method in ("loha", "vera"):
        kind = {"loha": peft.LoHaConfig, "vera": peft.VeraConfig}[method]
        return kind(task_type=task, r=a.pop("rank"), **a)
    if method == "ia3":
        return peft.IA3Config(task_type=task)
    if method == "prefix":
        return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=a["num_virtual_tokens"],
                                       prefix_projection=a.get("projection", False),
                                       encoder_hidden_size=a.get("hidden"))
    if method == "prompt":
        return peft.PromptTuningConfig(task_type=task, num_virtual_tokens=a["num_virtual_tokens"])
    return peft.PromptEncoderConfig(
        task_type=task, num_virtual_tokens=a["num_virtual_tokens"],
        encoder_hidden_size=a.get("hidden"),
        encoder_reparameterization_type=a.get("encoder", "MLP"))


def family_unties(config: dict) -> bool:
    return config["model_type"] in ("t5", "mt5") and not config.get("tie_word_embeddings", True)


def build(config: dict, task: str) -> torch.nn.Module:
    with torch.device("meta"):
        model = CLASSES[task].from_config(transformers.AutoConfig.for_model(**config))
        if family_unties(config):
            # Transformers 5 ties T5's head whatever the config says, and lets go of it when a
            # checkpoint brings a head of its own; this is what such a checkpoint does.
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
            model.config.tie_word_embeddings = False
    return model


def answer(config: dict, task: str, question: dict) -> dict:
    """PEFT's two numbers, and the length and header hash of the file that its tensors make."""
    decoder = "text_config" in config and task == "SEQ_2_SEQ_LM"  # a tower is no encoder
    with torch.device("meta"):
        model = peft.get_peft_model(build(config, task), to_peft(
            task="CAUSAL_LM" if decoder else task, **question),
                                    low_cpu_mem_usage=False)
    trainable, total = model.get_nb_trainable_parameters()
    result = {**question, "trainable": trainable, "all": total}
    if question["method"] in ("prefix", "prompt", "p_tuning"):
        return result  # their tensor comes out of a forward pass, which `meta` cannot run
    try:
        state = get_peft_model_state_dict(model)
    except NotImplementedError:  # it trains, and is not saved: no embeddings of tokens
        return result
    if sum(t.numel() for t in state.values()) < 50_000_000:
        # safetensors refuses tensors on `meta`, so zeros of the same names and shapes are written
        zeros = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in state.items()}
        data = safetensors.torch.save(zeros, metadata={"format": "pt"})
        header = data[8:8 + int.from_bytes(data[:8], "little")]
        result |= {"file_bytes": len(data), "header_sha256": hashlib.sha256(header).hexdigest()}
    return result


def cases() -> list[dict]:
    path = TESTS.parent / "data" / "models.json"
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    made = []
    for name, config in SMALL.items():
        config = {"model_type": name, **config}
        for task in tasks(config["model_type"]):
            made.append({"model": f"small {name}", "config": config, "task": task, "real": False})
    for family, name in REAL.items():
        config = {k: v for k, v in models[name]["config"].items() if k != "architectures"}
        made.append({"model": name, "config": config, "task": tasks(family)[0], "real": True})
        if family in ("roberta", "bert"):
            made.append({"model": name, "config": config, "task": "SEQ_CLS", "real": True})
    return made


# ------------------------------------------------------------- what is known of each architecture


def parameters(config: dict, class_name: str | None = None) -> int | str | None:
    """Parameters of a model, or a class's shapes in short; None if transformers refuses."""
    table = families.FAMILIES[family_of(config)]
    name = table["classes"][class_name] if class_name else table["head"]
    try:
        if class_name is None:
            return sum(p.numel() for p in build(config, name).parameters())
        with torch.device("meta"):
            model = getattr(transformers, class_name)(
                transformers.AutoConfig.for_model(**config))
            if "lm_head.weight" in model.state_dict() and family_unties(config):
                model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        return digest({n: list(p.shape) for n, p in model.named_parameters()}, name)
    except Exception:
        return None


def digest(shapes: dict, task: str) -> str:
    """Names and shapes in short; where a tied bias has two names, and either is listed, shapes."""
    named = task not in ("MASKED_LM", "PRE_TRAINING")
    text = json.dumps(sorted(shapes.items()) if named else sorted(shapes.values()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(config: dict) -> list[dict]:
    """Parameters without each key, and with every other key of the class changed."""
    before = parameters(config)
    rows = [{"without": key,
             "parameters": parameters({k: v for k, v in config.items() if k != key})}
            for key in config if key != "model_type"]
    rows += [{"with": {key: None}, "parameters": parameters(config | {key: None})}
             for key in config if key != "model_type"]
    for key, value in transformers.AutoConfig.for_model(**config).to_dict().items():
        if key in config or key.startswith("_") or key == "architectures":
            continue
        others = [not value] if isinstance(value, bool) else [2 * value] if (
            isinstance(value, int) and value) else [True, 8] if value is None else []
        for other in others:
            now = parameters(config | {key: other})
            if now not in (None, before):
                rows.append({"with": {key: other}, "parameters": now})
    return rows


def quantized(config: dict, task: str) -> list[str]:
    """The layers that loading in 4 bits converts."""
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert
    model = build(config, task)
    kept = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or [])]
    replace_with_bnb_linear(model, kept, transformers.BitsAndBytesConfig(load_in_4bit=True))
    return [n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"]


def known_of_families() -> list[dict]:
    rows = []
    for name, config in SMALL.items():
        config = {"model_type": name, **config}
        table = families.FAMILIES[config["model_type"]]
        print(f"classes of {name}", file=sys.stderr, flush=True)
        rows.append({
            "config": config, "changed": changed(config),
            "classes": {each: parameters(config, each) for each in table["classes"]
                        if hasattr(transformers, each)},
            "quantized": quantized(config, table["head"])})
    return rows


#: Keys that must fit one another.
FITTING = {"mamba2": {"expand": 2, "num_heads": 6},
           **dict.fromkeys(("gemma4_text", "gemma3n_text"), {"num_kv_shared_layers": 1}),
           "gpt_neo": {"attention_types": [[["global"], 3]]},
           "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1,
                     "expert_layer_period": 2, "expert_layer_offset": 1},
           "nemotron_h": {"layers_block_type": [
               "linear_attention", "moe", "full_attention", "mlp"]},
           "lfm2_moe": {"num_dense_layers": 1},
           "qwen2_audio": {"audio_config.encoder_attention_heads": 6},
           "codegen": {"n_head": 4, "rotary_dim": 8},
           **dict.fromkeys(("smolvlm", "idefics3", "internvl", "internvl/qwen3"),
                           {"vision_config.num_attention_heads": 6})}


def small_example(family: str) -> dict:
    """A small configuration for a family that infer_families.py found."""
    sizes = {"d": 48, "ff": 80, "layers": 3, "heads": 6, "kv": 2, "dh": 16, "vocab": 101,
             "experts": 4, "active": 2, "first_k_dense_replace": 1}
    table = families.FAMILIES[family]
    config = {"model_type": family.partition("/")[0], "pad_token_id": 0}
    for part in table.get("parts", []):
        config[part] = {"model_type": table["only"][f"{part}.model_type"][0]}
        if family == "mllama" and part == "text_config":  # by default beyond a small vocabulary
            config[part]["pad_token_id"] = 0
    values = {rule["key"]: [rule["kinds"][i % len(rule["kinds"])] for i in range(sizes["layers"])]
              for rule in table.get("lists", {}).values() if "offset" not in rule}
    for rule in table.get("lists", {}).values():
        if rule.get("numbers", [""])[0] == rule["key"]:  # it lists numbers, no kinds
            values[rule["key"]] = [1]
    lines = [line.split(" = ") for line in table["symbols"].splitlines()]
    for symbol, rule in lines:
        key = rule.split(" | ")[0].removesuffix("-1").rstrip("?")
        if key in {name for name, _ in lines if name != symbol}:
            continue  # made of another symbol, no key of a configuration
        if re.fullmatch(r"[\w.]+", key) and rule.split(" | ")[-1] not in ("0", "1"):
            values[key] = sizes.get(symbol, 24)
    for key, value in (values | FITTING.get(family, {})).items():
        part, _, inner = key.rpartition(".")
        (config[part] if part else config)[inner] = value
    return config


def family_of(config: dict) -> str:
    """The name of a configuration's table."""
    name = f"{config['model_type']}/{config.get('text_config', {}).get('model_type')}"
    return name if name in families.FAMILIES else config["model_type"]


def reason(error):
    """An error in words, without sets: each process tells them in another order."""
    return re.sub(r"\{[^}]*\}", "{...}", f"{type(error).__name__}: {error}")[:200]


def known_of_inferred(wanted: Iterable[str] = ()) -> list[dict]:
    """Of each family that nobody typed: its classes, and what PEFT counts on it."""
    rows = []
    for family in sorted(wanted or families.FAMILIES.keys() - SMALL.keys() - {"phi-msft"}):
        print(f"inferred {family}", file=sys.stderr, flush=True)
        config, table = small_example(family), families.FAMILIES[family]
        asked = [("lora", {"rank": 4}), ("lora", {"rank": 4, "target_modules": "all-linear"}),
                 ("lora", {"rank": 4, "target_modules": [
                     "q_proj", "v_proj", "query_key_value", "gate_proj", "down_proj", "dense"]}),
                 ("lora", {"rank": 4, "target_modules": "all-linear", "bias": "all"}),
                 ("prefix", {"num_virtual_tokens": 7}), ("prompt", {"num_virtual_tokens": 7}),
                 ("ia3", {})]
        answers = []
        if table["head"] not in ("CAUSAL_LM", "SEQ_2_SEQ_LM", "IMAGE_TEXT"):  # no task type in PEFT
            asked = [each for each in asked if each[0] not in ("prefix", "prompt")]
        for method, arguments in asked:
            question = {"method": method, "arguments": arguments}
            try:
                answers.append(answer(config, table["head"], question))
            except Exception as error:
                answers.append(question | {"error": reason(error)})
        rows.append({"config": config, "quantized": quantized(config, table["head"]),
                     "classes": {name: parameters(config, name) for name in table["classes"]},
                     "answers": answers})
    return rows


def default_targets() -> dict[str, dict]:
    return {method: {family: getattr(
        constants, f"TRANSFORMERS_MODELS_TO_{method}_MODULES_MAPPING").get(family)
        for family in families.FAMILIES if "/" not in family}
        for method in ("LORA_TARGET", "LOHA_TARGET", "VERA_TARGET", "ADALORA_TARGET", "IA3_TARGET",
                       "IA3_FEEDFORWARD")}


def on_sixteen_bits() -> list[dict]:
    """Trainable parameters by their dtype, and the file, of adapters on bfloat16 models."""
    rows = []
    for family, task, question in (
            ("llama", "CAUSAL_LM", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
            ("llama", "CAUSAL_LM", {"target_modules": ["q_proj", "embed_tokens"]}),
            ("llama", "SEQ_CLS", {"target_modules": ["q_proj"], "use_dora": True}),
            ("gpt2", "CAUSAL_LM", {"target_modules": ["c_attn"], "bias": "all"}),
            ("gemma", "CAUSAL_LM", {"target_modules": ["q_proj"],
                                    "modules_to_save": ["embed_tokens"]})):
        config = {"model_type": family, **SMALL[family]}
        base = CLASSES[task].from_config(transformers.AutoConfig.for_model(**config))
        model = peft.get_peft_model(base.to(torch.bfloat16),
                                    peft.LoraConfig(task_type=task, r=4, **question))
        data = safetensors.torch.save(
            {k: v.contiguous().clone() for k, v in get_peft_model_state_dict(model).items()},
            metadata={"format": "pt"})
        header = data[8:8 + int.from_bytes(data[:8], "little")]
        trained = [p for p in model.parameters() if p.requires_grad]
        rows.append({
            "config": config, "task": task, "arguments": {"rank": 4, **question},
            "sixteen": sum(p.numel() for p in trained if p.dtype == torch.bfloat16),
            "thirty_two": sum(p.numel() for p in trained if p.dtype == torch.float32),
            "file_bytes": len(data), "header_sha256": hashlib.sha256(header).hexdigest()})
    return rows


MEASURED = {"llama": {**_DECODER, "hidden_size": 256, "intermediate_size": 688,
                      "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8},
            "qwen2": {**_DECODER, "hidden_size": 256, "intermediate_size": 688,
                      "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2},
            "gpt2": {"n_embd": 256, "n_layer": 4, "n_head": 8, "n_positions": 256,
                     "vocab_size": 101, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}}


def in_4_bits(model: torch.nn.Module) -> torch.nn.Module:
    """The same model as QLoRA trains it: quantized, and prepared by PEFT."""
    import bitsandbytes as bnb
    from transformers.quantizers.base import get_keys_to_not_convert
    kept = get_keys_to_not_convert(model)
    for name, module in [*model.named_modules()]:
        if isinstance(module, torch.nn.Linear) and not any(key in name for key in kept):
            layer = bnb.nn.Linear4bit(module.in_features, module.out_features, quant_type="nf4",
                                      bias=module.bias is not None, compute_dtype=torch.bfloat16)
            layer.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False,
                                             quant_type="nf4")
            layer.bias = module.bias
            model.set_submodule(name, layer.to("cpu"))  # which quantizes it
    model.is_loaded_in_4bit = True
    return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def kept_for_backward(family: str, method: str, attention: str, base: str) -> int:
    """Bytes that a real forward pass keeps: a bfloat16 model, batch 2, length 128, no dropout."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **MEASURED[family])
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention).to(torch.bfloat16)
    if base == "nf4":
        model = in_4_bits(model)
    if method != "full":
        targets = None if method == "lora" else "all-linear"
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=8, target_modules=targets, task_type="CAUSAL_LM"))
    states = (getattr(p, "quant_state", None) for p in model.parameters())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()} | {
        state.absmax.untyped_storage().data_ptr() for state in states if state}
    kept = {}

    def remember(tensor):  # holding the tensor keeps its memory from being used again
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, config.vocab_size, (2, 128))
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(input_ids=ids, labels=ids)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class LiveBytes(TorchDispatchMode):
    """The most bytes alive at once, in storages of at least `smallest` bytes."""

    def __init__(self, smallest: int):
        super().__init__()
        self.smallest, self.now, self.peak, self.alive = smallest, 0, 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in (out if isinstance(out, (tuple, list)) else [out]):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() >= self.smallest and storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.dropped, storage._cdata)
        self.peak = max(self.peak, self.now)
        return out

    def dropped(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def logits_at_their_peak(head: torch.dtype) -> float:
    """Bytes for each logit that loss and backward pass hold at once; a tiny model, a large head."""
    vocabulary, length = 50_000, 256
    config = transformers.AutoConfig.for_model("llama", **_DECODER | {
        "vocab_size": vocabulary, "num_hidden_layers": 1})
    model = transformers.AutoModelForCausalLM.from_config(config).to(head).requires_grad_(False)
    model.model.embed_tokens.register_forward_hook(lambda *args: args[-1].requires_grad_(True))
    ids = torch.randint(0, vocabulary, (1, length))
    with LiveBytes(length * vocabulary) as live:  # weights were there before
        output = model(input_ids=ids, labels=ids)  # held, as a training loop holds it
        output.loss.backward()
    return live.peak / (length * vocabulary)


def add(path: Path, wanted: list[str]) -> None:
    """Ask of these inferred families alone, and keep what the file has of the others."""
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = {family_of(row["config"]): row
            for row in [*document["inferred"], *known_of_inferred(wanted)]}
    document |= {"inferred": [rows[family] for family in sorted(rows)],
                 "default_targets": default_targets()}
    write(path, document)


def write(path: Path, document: dict) -> None:
    text = json.dumps(document, separators=(",", ":")).replace('{"model":', '\n{"model":')
    path.write_text(text.replace('{"method":', '\n {"method":') + "\n", encoding="utf-8")


def main(path: Path) -> None:
    made = cases()
    for number, case in enumerate(made, 1):
        print(f"[{number}/{len(made)}] {case['model']} {case['task']}", file=sys.stderr, flush=True)
        family = case["config"]["model_type"]
        real = case.pop("real")
        model = build(case["config"], case["task"])
        case["parameters"] = sum(p.numel() for p in model.parameters())
        if not real:
            case["shapes"] = {n: list(p.shape) for n, p in model.named_parameters()}
        case["answers"] = []
        wanted = methods(family, case["task"], real)
        for question in wanted:
            virtual = question["method"] in ("prefix", "prompt", "p_tuning")
            if case["task"] == "MASKED_LM" and virtual:
                continue  # PEFT has no task type for masked language models
            try:
                case["answers"].append(answer(case["config"], case["task"], question))
            except Exception as error:  # recorded, so that the test can ask the same of us
                case["answers"].append({**question, "error": reason(error)})
    document = {"about": "Counted by Hugging Face PEFT; see make_accounting_fixtures.py",
                "versions": {"peft": peft.__version__, "transformers": transformers.__version__,
                             "torch": torch.__version__},
                "kept": [{"config": {"model_type": family, **MEASURED[family]}, "method": method,
                          "attention": attention, "base": base,
                          "bytes": kept_for_backward(family, method, attention, base)}
                         for family in MEASURED for method, base in (
                             ("full", "bfloat16"), ("lora", "bfloat16"), ("lora, all", "bfloat16"),
                             ("lora", "nf4"), ("lora, all", "nf4"))
                         for attention in ("sdpa", "eager") if (family, base) != ("gpt2", "nf4")],
                "families": known_of_families(), "inferred": known_of_inferred(),
                "default_targets": default_targets(),
                "sixteen_bits": on_sixteen_bits(),
                "logits_peak": {"bfloat16": logits_at_their_peak(torch.bfloat16),
                                "nf4": logits_at_their_peak(torch.float32)}, "cases": made}
    write(path, document)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TESTS / "fixtures" / "accounting.json"
    if len(sys.argv) > 2:
        add(target, sys.argv[2:])
    else:
        main(target)
