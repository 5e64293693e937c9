"""How the weights of a base model lie in memory: 32 and 16 bits, and eight ways with fewer.

`FORMATS` is data, in the notation of the tables in `families.py`: Python and the memory explorer
read the same formulas. Each has its source; the tests ask the modules that store these weights
(transformers' own, AutoGPTQ's, AutoAWQ's), and sizes of published checkpoints.

    frozen_items(counted, "gptq-32")     # any model, as GPTQ with groups of 32 would store it
    frozen_items(counted, "file")        # as the config.json's quantization_config says
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from real_models.families import FAMILIES
from real_models.rules import SAVED_HEADS, evaluate, is_whole, matches, one_of
from tensorfile import plain

Model = Module = Count = Any  # of reading.py and count.py, which import this module

GB = 10**9
ALL = 10**9  # a group or block of this size: all inputs, or outputs, in one

# parts     label, bytes of one linear layer, what these are. n_in, n_out: its sizes; other symbols:
#           `settings`, which a quantization_config may change.
# experts   the same for one stack of experts: `experts` matrices of `n_out` by `n_in`; `fused` is 1
#           for gate and up in one. Without it stacks stay as they are.
# divides   sizes that must be multiples: the loader fails for others, or loses what is over.
# converts  which modules: linear layers (and GPT-2's Conv1D) but for the head; `blocks`, all
#           linear layers inside the blocks; `linear`, without Conv1D; `experts`, nothing else.
# cast      PEFT's prepare_model_for_kbit_training casts what is not quantized to 32 bits.
_GPTQ: dict[str, Any] = {  # gptqmodel 7.7.0, GPTQQuantLinear._register_gptq_buffers
    "parts": [
        ["frozen weights, GPTQ", "4*((n_in*bits+31)//32)*n_out", "{bits} bits each"],
        ["scales and zeros", "2*((n_in+group-1)//group)*n_out"
         "+4*((n_in+group-1)//group)*((n_out*bits+31)//32)",
         "16 and {bits} bits for each output of each group of inputs"],
        ["order of the inputs", "4*n_in", "g_idx: the group of each input, 32 bits"]],
    "divides": [["n_in", "32"], ["n_out", "32"]],
    "converts": "blocks", "cast": False}
_AWQ: dict[str, Any] = {  # autoawq 0.2.9, WQLinear_GEMM
    "parts": [
        ["frozen weights, AWQ", "4*n_in*(n_out*bits//32)", "{bits} bits each"],
        ["scales and zeros", "2*((n_in+group-1)//group)*n_out"
         "+4*((n_in+group-1)//group)*(n_out*bits//32)",
         "16 and {bits} bits for each output of each group of inputs"]],
    "divides": [["n_in", "group"], ["n_out", "32//bits"]],
    "converts": "linear", "cast": False}
_BLOCKS = "((n_in*n_out+63)//64)"  # bitsandbytes' of 64 weights; 256 scales are one again
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"bytes": 4}, "bfloat16": {"bytes": 2},
    "int8": {"parts": [["frozen weights, int8", "n_in*n_out", "1 byte each"],
                       ["scales", "4*n_out", "one 32-bit scale for each output row"]],
             "converts": "all", "cast": True},
    "nf4": {"parts": [["frozen weights, NF4", "(n_in*n_out+1)//2", "4 bits each"],
                      ["scales", f"4*{_BLOCKS}", "one 32-bit scale per 64 weights"]],
            "converts": "all", "cast": True},
    "nf4+dq": {"parts": [["frozen weights, NF4", "(n_in*n_out+1)//2", "4 bits each"],
                         ["scales, quantized again", f"{_BLOCKS}+4*(({_BLOCKS}+255)//256)",
                          "8 bits per 64 weights, and 32 bits per 256 of these"]],
               "converts": "all", "cast": True},
    "fp8": {  # transformers 5.23, integrations/finegrained_fp8.py, FP8Linear and FP8Experts
        "parts": [["frozen weights, FP8", "n_in*n_out", "1 byte each"],
                  ["scales", "scale*((n_out+down-1)//down)*((n_in+across-1)//across)+4*static",
                   "{scale} bytes for each block"]],
        "experts": ["experts*n_in*n_out",
                    "experts*(scale*(((n_out+down-1)//down)+(fused+1>((n_out+down-1)//down)))"
                    "*((n_in+across-1)//across)+4*static)"],
        "settings": {"down": 128, "across": 128, "scale": 4, "static": 0},
        "converts": "linear", "cast": False},
    "mxfp4": {  # transformers 5.23, integrations/mxfp4.py; OCP's MX format 1.0: blocks of 32
        "parts": [["frozen weights, MXFP4 (transformers trains no model on them)", "0",
                   "experts: 4 bits each"],
                  ["scales", "0", "8 bits for each block of 32"]],
        "experts": ["experts*n_out*(n_in//2)", "experts*n_out*(n_in//32)"],
        "divides": [["n_in", "32"]], "converts": "experts", "cast": False},
    **{f"gptq{name}": {**_GPTQ, "settings": {"bits": 4, "group": group}}
       for name, group in (("", 128), ("-64", 64), ("-32", 32))},
    **{f"awq{name}": {**_AWQ, "settings": {"bits": 4, "group": group}}
       for name, group in (("", 128), ("-64", 64), ("-32", 32))},
}
#: The last: as the file's own quantization_config says.
BASE_FORMATS = (*FORMATS, "file")

# Where a quantization_config says it: its method -> our format, and of its keys
#   numbers   key -> symbol, and the values that are known (none: any positive whole number)
#   needs     keys that must be there
#   group     the key of the group's size; -1 is all inputs
#   only      key -> the values that are known; texts are compared in small letters
#   quiet     keys that change no size
#   skips     the first of these that is there lists what stays as it is; without it, the head
#   head      the head stays in any case
#   picks     the key that lists what is converted inside a block
# Any other key, or value, is not known, and then nothing is counted by this configuration.
QUANTIZED: dict[str, dict[str, Any]] = {
    "gptq": {
        "format": "gptq", "numbers": {"bits": [2, 3, 4, 8]}, "needs": ["bits"],
        "group": "group_size",
        "only": {"checkpoint_format": ["gptq", "gptq_v2"], "format": ["gptq", "gptq_v2"],
                 "lm_head": [False], "is_marlin_format": [False], "pack_dtype": ["int32"],
                 "dynamic": [{}], "block_name_to_quantize": []},
        "quiet": ["damp_percent", "damp_auto_increment", "desc_act", "act_group_aware",
                  "static_groups", "sym", "true_sequential", "model_name_or_path",
                  "model_file_base_name", "dataset", "tokenizer", "meta", "backend",
                  "model_seqlen", "module_name_preceding_first_block", "batch_size",
                  "pad_token_id", "max_input_length", "cache_block_outputs", "use_cuda_fp16",
                  "use_exllama", "exllama_config", "disable_exllama", "hyb_act"],
        "skips": [], "picks": "modules_in_block_to_quantize"},
    "awq": {
        "format": "awq", "numbers": {"bits": [4]}, "group": "group_size",
        "only": {"version": ["gemm"], "format": ["gemm"]},
        "quiet": ["zero_point", "backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse",
                  "exllama_config"],
        "skips": ["modules_to_not_convert"], "head": True},
    "fp8": {
        "format": "fp8", "blocks": "weight_block_size",
        "only": {"fmt": ["e4m3"], "activation_scheme": ["dynamic", "static"],
                 "scale_fmt": ["float", "ue8m0"], "dequantize": [False],
                 "modules_to_convert": [], "expert_dtype": ["fp8"]},
        "quiet": [], "skips": ["modules_to_not_convert", "ignored_layers"]},
    "mxfp4": {"format": "mxfp4", "only": {"dequantize": [False]}, "quiet": [],
              "skips": ["modules_to_not_convert"]},
    "bitsandbytes": {
        "format": "", "only": {"bnb_4bit_quant_type": ["nf4", "fp4"], "load_in_4bit": [False, True],
                               "load_in_8bit": [False, True], "llm_int8_has_fp16_weight": [False],
                               "bnb_4bit_use_double_quant": [False, True]},
        "quiet": ["_load_in_4bit", "_load_in_8bit", "bnb_4bit_compute_dtype",
                  "bnb_4bit_quant_storage", "llm_int8_threshold",
                  "llm_int8_enable_fp32_cpu_offload"],
        "skips": ["llm_int8_skip_modules"]},
}
#: Where GPTQ's loader looks for blocks, in this order: optimum 2.3.0, gptq/constants.py.
BLOCKS = ["transformer.h", "model.decoder.layers", "gpt_neox.layers", "model.layers",
          "model.language_model.layers", "h", "decoder.layers", "layers"]
_NAME = re.compile(r"[\w.-]{1,200}\Z", re.ASCII)  # and with up to two `*` it stays quick to match
MOST_PATTERNS = 20
MOST_COMPARED = 20_000_000  # names of a list times modules, else a page would stand still
REASONS = {
    "method": "the method", "nothing": "{key} names {name}, which is not here",
    "file": "the file says nothing of quantized weights that is known here",
    "experts": "its experts are stacked, and how {format} stores such ones is not known here",
    "mxfp4": "only the experts of gpt_oss are stored so",
    "blocks": "GPTQ's loader finds no blocks in it",
    "divides": "{name} has sizes {n_in} and {n_out}, which {format} cannot cut into its groups",
    "tied": "{name} is tied, and not in the list of what stays as it is; what that makes of it",
    "none": "it has no layer that {format} would quantize",
}


@dataclass(frozen=True)
class Item:
    """One line of a memory bill."""

    label: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Stored:
    """A format with its settings, and which modules it leaves alone."""

    format: str
    settings: Mapping[str, int]
    skips: tuple[str, ...] | None = None  # none: the head
    head: bool = False  # the head, too, besides `skips`
    picks: tuple[str, ...] | None = None  # all but these ends of a path


class NotStored(ValueError):
    """A format in which this model's weights are not kept, or not as far as is known here."""

    def __init__(self, base: str, why: str) -> None:
        super().__init__(f"base {base!r}: {why}")
        self.why = why


def stored_as(model: Model, base: str) -> Stored:
    """What `base` means for a model.

    Raises
    ------
    NotStored
        "file", and the model's file says nothing that is known here.
    """
    one_of("base", base, BASE_FORMATS)
    if base != "file":
        return Stored(base, FORMATS[base].get("settings", {}))
    if model.stored is None:
        raise NotStored(base, REASONS["file"])
    return model.stored


def is_narrow(model: Model, base: str, prepared: bool = True) -> bool:
    """Whether what is not quantized, and so what layers work on, has 16 bits in training.

    If `prepared`, PEFT's `prepare_model_for_kbit_training` has cast it to 32 on bitsandbytes'
    bases, where everybody calls it. It leaves GPTQ's alone (peft 0.21.2, utils/other.py, line
    199), and is not called here for the others: what is not quantized is as it was loaded.
    """
    found = FORMATS[stored_as(model, base).format]
    return found.get("bytes") != 4 and not (prepared and found.get("cast"))


def quantized_modules(model: Model, stored: Stored | None = None) -> list[Module]:
    """The linear layers that a format converts; by default those of 4 and 8 bits: all but the head.

    That leaves out, too, what transformers keeps in 32 bits, as T5's `wo`.
    """
    converts = FORMATS[stored.format].get("converts") if stored else "all"
    linear = [m for m in model.modules if m.kind == "linear" or (
        m.kind == "conv1d" and converts in ("all", "blocks"))]
    if converts in (None, "experts"):
        return []
    if converts == "blocks":
        block = _block(model)
        inside = [m for m in linear if block and m.name.startswith(block)]
        return inside if stored is None or stored.picks is None else [
            m for m in inside if m.name.endswith(stored.picks)]
    kept = FAMILIES[model.family].get("not_quantized", [])
    skips = stored.skips if stored else None
    heads = skips is None or stored.head
    return [m for m in linear if not m.tied and not matches(m.name, kept)
            and not _meant(m.name, skips or ()) and not (heads and _is_head(model, m))]


def _is_head(model: Model, module: Module) -> bool:
    heads = [name for names in SAVED_HEADS.values() for name in names]
    if model.task == "IMAGE_CLS":  # ends in a bias; transformers looks for a weight at the end
        return False
    return module.name == model.head or module.name.split(".")[0] in heads


def _block(model: Model) -> str:
    return next((block for block in BLOCKS
                 if any(m.name.startswith(block) for m in model.modules)), "")


def quantized_experts(model: Model, stored: Stored) -> list[Module]:
    """The stacks of experts that a format converts."""
    if "experts" not in FORMATS[stored.format]:
        return []
    return [m for m in stacked_experts(model) if len(m.sizes) == 3
            and not _meant(m.name.rpartition(".")[0], stored.skips or ())]


def stacked_experts(model: Model) -> Iterator[Module]:
    return (m for m in model.modules if m.kind == "stack" and ".experts." in m.name)


def _meant(path: str, patterns: Iterable[str]) -> list[str]:
    """Which patterns make transformers leave a module alone: `should_convert_module`.

    A pattern means what begins so, up to the end of a part of the path, and what ends so.
    """
    starts = [path[:at] for at, sign in enumerate(path) if sign == "."]
    whole = {path, *starts, *(f"{start}." for start in starts),
             *(path[at:] for at in range(len(path)))}
    return [pattern for pattern in patterns if (pattern in whole if "*" not in pattern else
            re.match(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", path))]


def why_not_stored(model: Model, stored: Stored) -> str:
    """Why a model's weights are not kept in a format; empty if they are."""
    found, name = FORMATS[stored.format], stored.format
    if "parts" not in found:
        return ""
    if name == "mxfp4" and model.family != "gpt_oss":
        return REASONS["mxfp4"]
    experts = [*stacked_experts(model)]
    others = any(len(m.sizes) != 3 for m in experts)  # biases, which FP8Experts refuses
    if name.startswith(("gptq", "awq")) and experts or (name == "fp8" and others):
        return REASONS["experts"].format(format=name)
    if name.startswith("gptq") and not _block(model):
        return REASONS["blocks"]
    tied = [m.name for m in model.modules if m.kind == "linear" and m.tied
            and stored.skips is not None and not stored.head
            and found["converts"] in ("all", "linear") and not _meant(m.name, stored.skips)]
    if tied:
        return REASONS["tied"].format(name=tied[0])
    layers = quantized_modules(model, stored)
    if not layers and not quantized_experts(model, stored):
        return REASONS["none"].format(format=name)
    sizes = [(m.name, *m.sizes) for m in layers] + [
        (m.name, n_in, n_out) for m in quantized_experts(model, stored)
        if len(m.sizes) == 3 for _, n_in, n_out, _ in [_matrices(model, m)]]
    for path, n_in, n_out in sizes:
        symbols = {"n_in": n_in, "n_out": n_out, **stored.settings}
        for size, by in found.get("divides", []):
            whole = evaluate(by, symbols)
            if whole < ALL and symbols[size] % whole:
                return REASONS["divides"].format(name=path, format=name, **symbols)
    return ""


def _matrices(model: Model, stack: Module) -> tuple[int, int, int, int]:
    """Experts, inputs, outputs, and whether gate and up are in one."""
    experts, n_out, n_in = stack.sizes
    if model.family == "gpt_oss":  # kept the other way round; its blocks are not
        n_in, n_out = n_out, n_in
    return experts, n_in, n_out, int(stack.name.endswith("gate_up_proj"))


def frozen_items(counted: Count, base: str = "bfloat16", *, prepared: bool = True) -> list[Item]:
    """The frozen weights' lines of the bill. Full fine-tuning has none.

    On a base in 4 or 8 bits PEFT's `prepare_model_for_kbit_training` casts every parameter that is
    not quantized (embeddings, norms, the head, stacked experts) from 16 to 32 bits: peft 0.21.2,
    utils/other.py, lines 204 to 209. That is how QLoRA is run, and the default here;
    `prepared=False` is a base that is trained on as it was loaded. See :func:`is_narrow` for the
    other formats.

    Raises
    ------
    NotStored
        The model's weights are not kept so: :func:`why_not_stored`.
    """
    model, stored = counted.model, stored_as(counted.model, base)
    frozen = max(0, counted.total - counted.trainable)
    if not frozen:
        return []
    found = FORMATS[stored.format]
    if "bytes" in found:
        return [Item("frozen weights", frozen * found["bytes"], f"{frozen:,} parameters in {base}")]
    if reason := why_not_stored(model, stored):
        raise NotStored(base, reason)
    layers = Counter(m.sizes for m in quantized_modules(model, stored))
    stacks = Counter(_matrices(model, m) for m in quantized_experts(model, stored))
    quantized = sum(math.prod(sizes) * count for sizes, count in layers.items()) + sum(
        math.prod(sizes[:3]) * count for sizes, count in stacks.items())
    items = []
    for index, (label, linear, why) in enumerate(found["parts"]):
        size = sum(count * evaluate(linear, dict(zip(("n_in", "n_out"), sizes, strict=True))
                                    | stored.settings) for sizes, count in layers.items())
        size += sum(count * evaluate(found["experts"][index], dict(zip(
            ("experts", "n_in", "n_out", "fused"), sizes, strict=True)) | stored.settings)
            for sizes, count in stacks.items())
        many = f"{quantized:,} parameters, " * (index == 0)
        items.append(Item(label, size, many + why.format(**stored.settings)))
    kept = "float32" if found["cast"] and prepared else "bfloat16"
    return [*items, Item("frozen, not quantized",
                         (frozen - quantized) * FORMATS[kept]["bytes"],
                         f"{frozen - quantized:,} parameters in {kept}: embeddings, head, norms, "
                         "biases")]


# --------------------------------------------------------------- what a quantization_config says


def read_stored(model: Model, found: Any) -> tuple[Stored | None, str, str]:
    """How a file says that its weights are stored.

    Returns
    -------
    Stored or None
        None where it says what is not known here.
    method : str
        As the file calls it.
    why : str
        What is not known; empty if all is.
    """
    found = found if isinstance(found, Mapping) else {}
    method = found.get("quant_method")
    if method is None and (found.get("load_in_4bit") or found.get("load_in_8bit")):
        method = "bitsandbytes"
    shown = plain(method[:40]) if isinstance(method, str) else "a method without a name"
    rule = QUANTIZED.get(method) if isinstance(method, str) else None
    if rule is None:
        return None, shown, REASONS["method"]
    if unknown := _unknown(found, rule):
        return None, shown, unknown
    lists = []
    for keys in (rule["skips"], [rule["picks"]] if "picks" in rule else []):
        key = next((key for key in keys if found.get(key) is not None), None)
        names, unknown = (None, "") if key is None else _names(model, key, found[key])
        if unknown:
            return None, shown, unknown
        lists.append(names)
    kind = rule["format"] or _of_bitsandbytes(found)
    settings = {**FORMATS.get(kind, {}).get("settings", {}), **_numbers(found, rule)}
    stored = Stored(kind, settings, lists[0], rule.get("head", False), lists[1])
    why = why_not_stored(model, stored) if kind else "load_in_4bit"
    return (None if why else stored), shown, why


def _of_bitsandbytes(found: Mapping[str, Any]) -> str:
    if found.get("load_in_8bit"):
        return "int8"
    twice = "+dq" if found.get("bnb_4bit_use_double_quant") else ""
    return f"nf4{twice}" if found.get("load_in_4bit") else ""


def _is_size(value: Any) -> bool:
    return is_whole(value, end=ALL)


def _unknown(found: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """The first key that is not known, or whose value is not."""
    numbers, group, blocks = rule.get("numbers", {}), rule.get("group"), rule.get("blocks")
    lists = [*rule["skips"], rule.get("picks")]
    for key in sorted(map(str, found)):
        value = found.get(key)
        if key in numbers:
            known = _is_size(value) and value in numbers[key]
        elif value is None or key in ("quant_method", *rule["quiet"], *lists):
            known = True
        elif key == group:
            known = value == -1 or _is_size(value)
        elif key == blocks:
            known = isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))
        else:
            small = value.lower() if isinstance(value, str) else value
            known = any(type(small) is type(one) and small == one
                        for one in rule["only"].get(key, []))
        if not known:
            return plain(key[:40])
    if missing := [key for key in rule.get("needs", []) if key not in found]:
        return missing[0]
    single = blocks in found and found[blocks] is None  # one scale, and of which bytes?
    return "scale_fmt" if single and found.get("scale_fmt") == "ue8m0" else ""


def _numbers(found: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, int]:
    """The settings that the keys give."""
    numbers = {key: int(found[key]) for key in rule.get("numbers", {}) if key in found}
    if found.get(group := rule.get("group")) is not None:
        numbers["group"] = ALL if found[group] == -1 else int(found[group])
    if (blocks := rule.get("blocks")) in found:
        numbers["down"], numbers["across"] = map(int, found[blocks] or (ALL, ALL))
    if str(found.get("scale_fmt")).lower() == "ue8m0":
        numbers["scale"] = 1
    if str(found.get("activation_scheme")).lower() == "static":
        numbers["static"] = 1
    return numbers


def _names(model: Model, key: str, value: Any) -> tuple[tuple[str, ...] | None, str]:
    """A list of names, and what is not known of it: other patterns, or what means no module."""
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        value = [name for each in value for name in (each if isinstance(each, list) else [each])]
    if not isinstance(value, list) or not all(
            isinstance(name, str) and _NAME.match(name.replace(".*", "."))
            and name.count("*") <= 2 for name in value) or sum(
                "*" in name for name in value) > MOST_PATTERNS or (
                    len(value) * len(model.modules) > MOST_COMPARED):
        return None, key
    left = {name: None for name in value}
    for m in model.modules:
        path = m.name.rpartition(".")[0] if m.kind == "stack" else m.name
        for name in _meant(path, left):
            del left[name]
        if not left:
            return tuple(value), ""
    return ((), "") if not left else (
        None, REASONS["nothing"].format(key=key, name=next(iter(left))))
