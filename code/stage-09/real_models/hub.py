"""Hugging Face's files: adapters in PEFT's layout, checkpoints of the Llama family.

    save_adapter(model, folder)          the plugged-in method: adapter_model.safetensors and
    load_adapter(model, folder)          adapter_config.json
    load_llama(folder)                   a checkpoint, one file or sharded, mapped into memory:
                                         Llama, Mistral, Qwen2, Qwen3, SmolLM3
    save_llama(model, folder)            the same way back, what can be merged is

PEFT reads what we write of LoRA, prefix and prompt tuning, and we read what it writes; the same
holds for the methods of family_files.py. It has no bottleneck adapters: those are saved in a layout
of ours, whose `peft_type` PEFT refuses.

Every file is read without trust (see tensorfile.py). What PEFT lets pass with a warning, such as a
misspelt key, whereupon the adapter does nothing, is an error here. So is every setting that our
code would have to ignore.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from family.frozen_linear import FrozenLinear
from family.vera import VeRALinear
from llama import Embedding, Linear, Llama
from llama_config import LAYER_MODULES, PROJECTIONS, check_between
from peft import Adapter, LoRALinear, Method, PrefixTuning, PromptTuning
from real_models import family_files
from real_models.accounting import matches
from real_models.family_files import LoRA, Plan, lora_key, same
from real_models.lora_embedding import LoRAEmbedding
from real_models.patterns import SECONDS, ends, within
from tensorfile import (
    HubError,
    Tensor,
    about,
    LARGEST_VALUE,
    check_fit,
    check_settings,
    check_values,
    check_written,
    find_tensors,
    meant,
    read_json,
    read_tensor,
    replacing,
    short,
    write_arrays,
    write_json,
)
from validation import check_count

SLOTS = LAYER_MODULES[-3:]
BOTTLENECK = "STAGE9_BOTTLENECK"


# -------------------------------------------------------------------------------- checkpoints


def load_llama(folder: str | Path, dtype: Any = np.float32) -> Llama:
    """`Llama.load` with a progress bar for large checkpoints."""
    return Llama.load(folder, dtype, partial(tqdm, desc="loading", leave=False, delay=2))


def merged_weights(model: Llama) -> dict[str, np.ndarray]:
    """All weights by Hugging Face name, what LoRA and the family's methods change in them."""
    modules, weights = model.modules(), model.weights()
    for name, module in modules.items():
        if isinstance(module, (LoRALinear, FrozenLinear)):
            weights[f"{name}.weight"], bias = module.merge()
            if bias is not None:
                weights[f"{name}.bias"] = bias
        elif isinstance(module, LoRAEmbedding):
            if model.config.tie_word_embeddings:  # merged, it would change the output layer, too
                raise HubError(f"{name} is the output layer's table as well (tie_word_embeddings), "
                               "which its LoRA leaves alone: it cannot be merged; save it with "
                               "save_adapter, and take it off before saving the model")
            weights[f"{name}.weight"] = module.merge()
        elif name.endswith(SLOTS) or name in ("kv_prefix", "soft_prompt"):
            raise HubError(f"{name} is no part of any weight and cannot be merged; save it with "
                           "save_adapter, and take it off before saving the model")
    return weights


def save_llama(model: Llama, folder: str | Path, *, max_shard_bytes: int = 4 * 10 ** 9,
               **config_fields: Any) -> None:
    """Write a checkpoint that `transformers` and `load_llama` read, LoRA merged into it.

    Parameters
    ----------
    model : its dtype is the files'
    folder : made if it is missing; an older checkpoint of one file there is replaced
    max_shard_bytes : above this size the arrays go to several files with an index
    **config_fields : more for config.json, e.g. eos_token_id=2

    Raises
    ------
    HubError
        Methods that cannot be merged, NaN, or a folder that holds another checkpoint of shards.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = merged_weights(model)
    shards: list[dict[str, np.ndarray]] = [{}]
    room = max_shard_bytes
    for name, array in weights.items():
        if shards[-1] and array.nbytes > room:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = array
        room -= array.nbytes
    files = [folder / f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
             for i in range(len(shards))]
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if len(shards) == 1:
        files = [single]
    elif single.exists() or index.exists():  # half of the one and half of the other would load
        raise HubError(f"{folder} already holds a checkpoint; save one in shards to a new folder")
    settings = model.config.to_hugging_face()
    config = settings | {
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        "dtype": str(model.norm.weight.dtype), **config_fields}
    extra = [folder / "config.json"] + [index] * (len(shards) > 1)
    with replacing(*files, *extra) as new:
        for path, shard in zip(new, shards):
            write_arrays(path, shard, settings=json.dumps(settings | {
                key: value for key, value in config_fields.items() if key in settings}))
        write_json(new[len(files)], config)
        if len(shards) > 1:
            write_json(new[-1], {
                "metadata": {"total_size": sum(a.nbytes for a in weights.values())},
                "weight_map": {n: f.name for f, shard in zip(files, shards) for n in shard}})


# ---------------------------------------------------------------------------------------- adapters


def fingerprint(model: Llama) -> str:
    """Tells base models apart: a hash of one to two thousand values of each large weight."""
    digest = hashlib.sha256()
    weights = family_files.pretrained_weights(model.weights(), model.modules())
    for name, weight in sorted(weights.items()):
        values = weight.reshape(-1)[::max(1, weight.size // 1024)]
        digest.update(name.encode() + values.astype("<f8").tobytes())  # the same in every dtype
    return digest.hexdigest()


def _target_names(names: Iterable[str], layers: int) -> list[str]:
    """For `target_modules`: q_proj for what all layers have, else whole paths."""
    names = list(names)
    whole = {p for p in PROJECTIONS if all(f"model.layers.{i}.{p}" in names
                                           for i in range(layers))}
    return sorted({p.split(".")[1] for p in whole} | {
        n for n in names if not n.endswith(tuple(whole))})


def _layers_as_peft(modules: dict[str, Any], layers: int) -> tuple[dict, dict, dict, dict] | None:
    """Of what stands in for linear layers: settings, the whole config, PEFT's name of each of our
    arrays, and the arrays that PEFT stores otherwise."""
    name_targets = partial(_target_names, layers=layers)
    if loras := {n: m for n, m in modules.items() if isinstance(m, LoRA)}:
        settings, *rest = family_files.as_lora(loras)
        return settings, {"peft_type": "LORA", "use_dora": False, **settings, "lora_dropout": 0.0,
                          "bias": "none", "target_modules": name_targets(loras),
                          "fan_in_fan_out": False, "init_lora_weights": True,
                          "modules_to_save": None}, *rest
    for kind, row in family_files.KINDS.items():
        if found := {n: m for n, m in modules.items() if isinstance(m, row.layer)}:
            settings, *rest = row.write(found, name_targets)
            return settings, {"peft_type": kind, **settings, "fan_in_fan_out": False,
                              "modules_to_save": None}, *rest
    return None


def save_adapter(model: Llama, folder: str | Path, *, base_model: str | None = None) -> None:
    """Write the method that is plugged into the model: `adapter_model.safetensors` and its config.

    Parameters
    ----------
    model : holds one method: LoRA, DoRA, (IA)3, VeRA, OFT, a prefix, a soft prompt or bottleneck
        adapters; PiSSA is written as a LoRA of twice the rank on the pretrained weights
    folder : made if it is missing; an older adapter there is replaced
    base_model : name or path of the checkpoint, for whoever loads the adapter with PEFT

    Raises
    ------
    HubError
        No method or several, other trainable weights, adapters of different settings, or NaN.
    """
    modules, c = model.modules(), model.config
    adapters = {n: m for n, m in modules.items() if isinstance(m, Adapter)}
    config: dict[str, Any] = {"base_model_name_or_path": base_model, "inference_mode": True,
                              "task_type": "CAUSAL_LM"}
    virtual = {"num_layers": c.num_hidden_layers, "num_transformer_submodules": 1}
    changed: dict[str, np.ndarray] = {}
    if found := _layers_as_peft(modules, c.num_hidden_layers):
        settings, more, names, changed = found
        config |= more
    elif model.kv_prefix is not None:
        settings = {"num_virtual_tokens": model.kv_prefix.prefix_length}
        config |= {"peft_type": "PREFIX_TUNING", **settings, **virtual, "prefix_projection": False,
                   "num_attention_heads": c.num_key_value_heads,
                   "token_dim": c.num_key_value_heads * c.head_dim}
        names = {"kv_prefix.prefix": "prompt_embeddings"}
    elif model.soft_prompt is not None:
        settings = {"num_virtual_tokens": len(model.soft_prompt.prompt)}
        config |= {"peft_type": "PROMPT_TUNING", **settings, **virtual,
                   "num_attention_heads": c.num_attention_heads, "token_dim": c.hidden_size,
                   "prompt_tuning_init": "RANDOM"}
        names = {"soft_prompt.prompt": "prompt_embeddings"}
    elif adapters:
        settings = {key: same((getattr(m, key) for m in adapters.values()), key)
                    for key in ("bottleneck_dim", "residual", "scale")}
        config |= {"peft_type": BOTTLENECK, **settings, "slots": list(adapters),
                   "format": "bottleneck adapters of this course; Hugging Face PEFT has none"}
        names = {f"{n}.{key}": f"{n}.{key}" for n in adapters for key in ("W_down", "W_up")}
    else:
        raise HubError("the model holds no method to save: plug one in, or use save_llama")
    arrays = model.parameters()
    if other := sorted(arrays.keys() - names.keys()):
        raise HubError(f"a saved adapter holds one method and nothing else; also trainable is "
                       f"{short(other)}: save that with save_llama, or take it off")
    arrays = {names[n]: _to_peft(array) if n == "kv_prefix.prefix" else array
              for n, array in arrays.items()} | changed
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "adapter_model.safetensors", folder / "adapter_config.json") as new:
        write_arrays(new[0], arrays, base_model_fingerprint=fingerprint(model),
                      settings=json.dumps(settings))
        write_json(new[1], config)


# Settings that leave what a trained adapter computes as it is: of its start, whose kind is in ONLY,
# of training, of where it came from. A setting that is in no list must be empty: PEFT's next
# feature is refused by name, not ignored.
HARMLESS = {"auto_mapping", "base_model_name_or_path", "corda_config", "encoder_hidden_size",
            "ensure_weight_tying", "eva_config", "inference_mode", "init_weights", "loftq_config",
            "lora_dropout", "megatron_core", "peft_version", "prefix_projection",
            "prompt_tuning_init", "prompt_tuning_init_text", "qalora_group_size", "revision",
            "tokenizer_kwargs", "tokenizer_name_or_path"}
READ = {"LORA": {"r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform",
                 "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"},
        "PREFIX_TUNING": {"num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim",
                          "num_transformer_submodules"},
        BOTTLENECK: {"bottleneck_dim", "residual", "scale", "slots", "format"}}
READ["PROMPT_TUNING"] = READ["PREFIX_TUNING"]
READ |= {kind: row.read | row.harmless for kind, row in family_files.KINDS.items()}
ONLY = {"task_type": (None, "CAUSAL_LM"), "bias": ("none",), "save_projection": (True,),
        "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva")}
WHY = {"init_lora_weights": "; other starts change the base model",
       "save_projection": "; PyTorch's generator drew vera_A and vera_B, and we have another one: "
       "save the adapter anew with save_projection=True"}
MERGE = (". PEFT's merge_and_unload() and save_pretrained() make a checkpoint of both, which "
         "load_llama reads")
NO_MERGE = ("alora_invocation_tokens", "arrow_config", "layer_replication", "lora_bias")  # in PEFT
MOST_ENTRIES = 1_000  # of a list or table of names or patterns: each is compared with each module
SCALES = (1e-6, 1e6)  # of alpha and the like; far beyond them lie zero and infinity


def _check_settings(config: dict[str, Any]) -> str:
    """The adapter's kind, if every setting is one that we compute or that changes nothing."""
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in READ:
        raise ValueError(f"peft_type must be one of {sorted(READ)}, got {short(kind)}")
    # The task first: a classifier's head, in modules_to_save, is no reason of its own.
    for key, value in sorted(config.items(), key=lambda item: item[0] != "task_type"):
        empty = value is None or value is False or value in ("", [], {})
        if key in ONLY:
            if not any(value is v or isinstance(v, str) and value == v for v in ONLY[key]):
                raise ValueError(f"{key} is {short(value)}; we compute {ONLY[key]} only"
                                 f"{WHY.get(key, '')}")
        elif not empty and key not in HARMLESS | READ[kind] | {"peft_type"}:
            merge = "target_modules" in READ[kind] and key not in NO_MERGE
            raise ValueError(f"{short(key)} is {short(value)}, which this code does not compute; "
                             f"what it changes would be missing{MERGE * merge}")
    return kind


def _check_lengths(settings: dict[str, Any], modules: int) -> None:
    """ValueError if a setting has so many entries that comparing them would take hours."""
    most = max(MOST_ENTRIES, modules)
    for key, value in settings.items():
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"{key} has {len(value):,} entries, each of which is compared with "
                             f"each of this model's {modules} modules; at most {most:,} are read")


def load_adapter(model: Llama, folder: str | Path, *, base_model: str | None = None) -> None:
    """Plug a saved adapter into a model that has none, ready to run or to train on.

    Parameters
    ----------
    model : the base model, unchanged if anything is refused
    folder : holds adapter_config.json and adapter_model.safetensors, by us or by PEFT, or several
        such files and their index
    base_model : if given, the config's base_model_name_or_path must be this

    Raises
    ------
    HubError
        Damaged files, files that do not fit the model or each other, a setting we don't compute.
    """
    folder = Path(folder)
    where = folder / "adapter_config.json"
    config = read_json(where)
    with about(where):
        kind = _check_settings(config)
    named = config.get("base_model_name_or_path")
    if base_model is not None and named != base_model:
        raise HubError(f"{where} was trained on {short(named)}, not on {base_model!r}")
    if taken := [n for n, m in model.modules().items()
                 if isinstance(m, Method | LoRAEmbedding)]:
        raise HubError(f"the model already holds a method ({taken[0]}): load into the plain model")
    tensors, metadata = find_tensors(folder, "adapter_model")
    path = min(tensor.path for tensor in tensors.values())  # its only file, or the first
    if metadata.get("base_model_fingerprint", fp := fingerprint(model)) != fp:
        raise HubError(f"{path} was trained on another base model: this one has other weights")
    with about(where):
        check_settings(where, config, metadata, path)
        _check_lengths({key: config.get(key) for key in READ[kind]}, len(model.modules()))
        with within(SECONDS):
            plan = PLANS[kind](model, config)
        if "target_modules" in READ[kind]:
            _drop_base_weights(model, path, tensors)
        shapes = {key: shape for _, arrays in plan.values() for key, shape in arrays.values()}
        check_fit(path, tensors, shapes)  # from here on, sizes are those of the file
        built, dtype = {}, model.norm.weight.dtype
        shared = {own: _read(tensors, key, dtype)
                  for own, key in family_files.SHARED.items() if key in shapes}
        for name, (make, names) in plan.items():
            built[name] = module = make(**shared)
            for own, array in module.parameters().items():
                stored = _read(tensors, names[own][0], array.dtype)
                array[...] = (_from_peft(stored, array.shape) if name == "kv_prefix" else
                              family_files.as_stored(module, stored).reshape(array.shape))
            _check_product(f"{path}: {name}", module)
    for name, module in built.items():
        model.replace(name, module)


def _read(tensors: dict[str, Tensor], key: str, dtype: Any) -> np.ndarray:
    """One array of the file, fit to be computed with."""
    stored = read_tensor(tensors[key], dtype)
    check_values(tensors[key].path, key, stored)
    if not key.endswith(family_files.MAY_BE_ZERO) and check_written(
            tensors[key].path, key, stored, tensors[key]) and key.endswith(family_files.NEVER_ZERO):
        raise HubError(f"{tensors[key].path}: {key} is zero throughout, as in a download that "
                       "broke off: fetch the file again")
    return stored


def _check_product(where: str, module: Any) -> None:
    """HubError if a module's arrays, each fit to be computed with, are not so together."""
    largest = [float(np.abs(array).max()) for array in module.parameters().values()]
    if not any(largest) and len(largest) > 1:  # with one that is not zero, the other learns
        raise HubError(f"{where} is zero throughout: it does nothing and can learn nothing, as in "
                       "a download that broke off; fetch the file again")
    factor = 0.0
    if isinstance(module, LoRA):  # A and B; the first two
        largest, factor = largest[:2], module.lora.scaling * module.lora.rank
    elif isinstance(module, VeRALinear):
        factor = len(module.d) * float(np.abs(module.A).max()) * float(np.abs(module.B).max())
    if (update := factor * prod(largest)) > LARGEST_VALUE:
        raise HubError(f"{where} may change weights by {update:.1g}, with which nothing can be "
                       "computed: the run that made it diverged, or lora_alpha is not its own")


def _plan_lora(model: Llama, config: dict[str, Any]) -> Plan:
    rank, alpha = check_count("r", config.get("r")), config.get("lora_alpha")
    check_between("lora_alpha", alpha, *SCALES)
    layer, modules = family_files.lora_class(config), model.modules()
    plan, targets = {}, _targets(model, config)
    ranks = _own(config, "rank_pattern", targets, rank)
    alphas = _own(config, "alpha_pattern", targets, alpha)
    for name in targets:
        r = check_count("rank_pattern", ranks[name])
        a = check_between("alpha_pattern", alphas[name], *SCALES)
        old = modules[name]
        if isinstance(old, Embedding):
            if config.get("use_rslora"):
                a *= sqrt(r)  # over r: alpha / sqrt(r)
            make, (inputs, outputs) = partial(LoRAEmbedding, old.weight), old.weight.shape
        else:
            make, (outputs, inputs) = partial(layer, old.weight, old.bias), old.weight.shape
        arrays = {"A": (lora_key(name, old, "A"), (r, inputs)),
                  "B": (lora_key(name, old, "B"), (outputs, r))}
        if config.get("use_dora"):
            arrays["m"] = (f"base_model.model.{name}.lora_magnitude_vector", (outputs,))
        plan[name] = (partial(make, lora_rank=r, lora_alpha=a), arrays)
    return plan


def _own(config: dict[str, Any], key: str, names: list[str], default: Any) -> dict[str, Any]:
    """What modules have of their own: the first pattern counts that is the end of a path."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{key} must map names to numbers, got {short(patterns)}")
    found: dict[str, Any] = {}
    for pattern, value in patterns.items():  # outside: each is read once
        found |= {name: value for name in names if name not in found and ends(pattern, name)}
    return {name: found.get(name, default) for name in names}


def _targets(model: Llama, config: dict[str, Any]) -> list[str]:
    """The modules that PEFT would adapt. ValueError if we don't compute that on one of them."""
    modules = model.modules()
    names = [*modules] if "lm_head" in modules else [*modules, "lm_head"]
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if targets == "all-linear":
        targets = list(PROJECTIONS)
    if isinstance(targets, str):
        found = [name for name in names if matches(name, targets)]
    else:
        _check_list("target_modules", targets, {part for n in names for part in (
            n, n.rpartition(".")[2])}, lambda target: any(matches(n, [target]) for n in names))
        found = [name for name in names if matches(name, targets)]
    if out := config.get("exclude_modules"):
        if not isinstance(out, str):
            _check_list("exclude_modules", out, (), lambda name: True)
        found = [name for name in found if not matches(name, out)]
    if layers is not None and layers is not False and layers != []:  # 0 is a layer
        layers = layers if isinstance(layers, list) else [layers]
        if isinstance(targets, str) or not all(type(layer) is int for layer in layers):
            raise ValueError(f"layers_to_transform is {short(layers)}: it must be whole numbers, "
                             "and target_modules a list")
        found = [n for n in found if n in targets  # PEFT takes a whole path in any layer
                 or n.startswith(tuple(f"model.layers.{i}." for i in layers))]
    if config.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):
        raise ValueError(f"layers_pattern is {short(config['layers_pattern'])}, but the layers are "
                         "called 'layers' here")
    if not found:
        among = "" if layers in (None, []) else f" in layers_to_transform {short(layers)}"
        raise ValueError(f"target_modules is {short(config.get('target_modules'))}: of that, no "
                         f"module of this model is left{among}")
    kind = config["peft_type"]
    plain_lora = kind == "LORA" and not config.get("use_dora")
    for name in found:
        if name == "lm_head" and name not in modules:
            raise ValueError("target_modules has lm_head, which is the embedding's table in this "
                             "model (tie_word_embeddings): nothing can stand in its place")
        if isinstance(modules[name], Embedding) and not plain_lora:
            raise ValueError(f"target_modules has {name}, an embedding: of these we compute plain "
                             f"LoRA alone, not {'DoRA' if config.get('use_dora') else kind}")
        if not isinstance(modules[name], (Linear, Embedding)):
            raise ValueError(f"target_modules has {name}, which is no linear layer and no "
                             "embedding: nothing can stand in its place")
        if name == "model.embed_tokens" and config.get("ensure_weight_tying") and (
                "lm_head" not in modules):
            raise ValueError("ensure_weight_tying is True and target_modules has embed_tokens: "
                             "PEFT adapts the output layer with it, in whose place nothing can "
                             "stand in this model (tie_word_embeddings)")
    return found


def _drop_base_weights(model: Llama, path: Path, tensors: dict[str, Tensor]) -> None:
    """PEFT stores some base weights with an adapter: those of an adapted output layer, for one."""
    weights = model.weights() | {"lm_head.weight": model.lm_head.weight}
    for key in list(tensors):
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if name in weights and name != key:
            ours, tensor = weights[name], tensors.pop(key)
            if equal := tensor.shape == ours.shape:  # else it may be of any size
                theirs = read_tensor(tensor, ours.dtype)
                check_values(path, key, theirs)
                equal = np.array_equal(theirs, ours)
            if not equal:
                raise HubError(f"{path}: {key} is not this base model's {name}: the vocabulary was "
                               "resized, the layer was trained whole, or the base is another one")


def _plan_virtual(model: Llama, config: dict[str, Any]) -> Plan:
    c, prefix = model.config, config["peft_type"] == "PREFIX_TUNING"
    heads = c.num_key_value_heads if prefix else c.num_attention_heads
    P = check_count("num_virtual_tokens", config.get("num_virtual_tokens"))
    if P >= c.max_position_embeddings:
        raise ValueError(f"num_virtual_tokens is {P}, but the model has only "
                         f"{c.max_position_embeddings} positions")
    for key, ours in (("num_layers", c.num_hidden_layers), ("num_attention_heads", heads),
                      ("token_dim", heads * c.head_dim if prefix else c.hidden_size),
                      ("num_transformer_submodules", 1)):
        if config.get(key) not in (None, ours):
            raise ValueError(f"{key} is {short(config[key])}, but it is {ours} for this model: "
                             "the adapter belongs to another base model")
    dtype = model.norm.weight.dtype
    if prefix:
        make = partial(PrefixTuning, c.num_hidden_layers, heads, c.head_dim, P, dtype=dtype)
        width = c.num_hidden_layers * 2 * heads * c.head_dim
        return {"kv_prefix": (make, {"prefix": ("prompt_embeddings", (P, width))})}
    make = partial(PromptTuning, c.hidden_size, P, dtype=dtype)
    return {"soft_prompt": (make, {"prompt": ("prompt_embeddings", (P, c.hidden_size))})}


def _plan_bottleneck(model: Llama, config: dict[str, Any]) -> Plan:
    m = check_count("bottleneck_dim", config.get("bottleneck_dim"))
    scale = check_between("scale", config.get("scale"), *SCALES)
    residual, d = config.get("residual"), model.config.hidden_size
    if not isinstance(residual, bool):
        raise ValueError(f"residual must be true or false, got {short(residual)}")
    valid = {f"model.layers.{i}.{slot}" for i in range(len(model.layers)) for slot in SLOTS}
    _check_list("slots", config.get("slots"), valid, valid.__contains__)
    make = partial(Adapter, d, m, residual=residual, scale=scale, dtype=model.norm.weight.dtype)
    return {name: (make, {"W_down": (f"{name}.W_down", (d, m)), "W_up": (f"{name}.W_up", (m, d))})
            for name in config["slots"]}


def _plan_family(model: Llama, config: dict[str, Any]) -> Plan:
    plan = family_files.KINDS[config["peft_type"]].plan
    return plan(model.modules(), config, _targets(model, config))


PLANS = {"LORA": _plan_lora, **dict.fromkeys(family_files.KINDS, _plan_family),
         "PREFIX_TUNING": _plan_virtual, "PROMPT_TUNING": _plan_virtual,
         BOTTLENECK: _plan_bottleneck}


def _check_list(key: str, names: Any, valid: Iterable[str], known: Callable[[str], bool]) -> None:
    """A list of names, each known to the model."""
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{key} must be a list of names, got {short(names)}")
    for name in names:
        if not known(name):
            raise ValueError(f"{key}: this model has no {short(name)}{meant(name, sorted(valid))}")


def _to_peft(prefix: np.ndarray) -> np.ndarray:
    """(L, 2, P, K, dh) -> PEFT's (P, L * 2 * K * dh): a row holds all layers of one token."""
    return prefix.transpose(2, 0, 1, 3, 4).reshape(prefix.shape[2], -1)


def _from_peft(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The way back: (P, L * 2 * K * dh) -> (L, 2, P, K, dh)."""
    L, two, P, K, dh = shape
    return rows.reshape(P, L, two, K, dh).transpose(1, 2, 0, 3, 4)
