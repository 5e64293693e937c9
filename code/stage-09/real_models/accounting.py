"""How many parameters, how much memory, how large a file: exact answers for real models.

A model is read from its Hugging Face `config.json`. All that this module knows about architectures
is the table in `families.py`: which modules a family has and how wide they are. Every count below
is derived from it. What the table does not cover is refused by name, or counted with a note that
says what was assumed. Only the standard library is needed, and nothing is ever downloaded.

    model = read_model(json.load(open("config.json")))
    counted = count_lora(model, rank=8, target_modules=["q_proj", "v_proj"])
    print(counted)                       # the line that PEFT's print_trainable_parameters prints
    print(memory_bill(counted))          # where the bytes go, item by item
    saved_bytes(counted)                 # the size of adapter_model.safetensors

Names, as everywhere in the course
    d    width of the model (hidden size)      ff       width inside the MLP
    heads, kv, dh    query heads, key/value heads, width of a head
    in, out          widths of a linear layer  rank, m  LoRA's inner width, an adapter's bottleneck

GB means 10**9 bytes, GiB means 2**30 bytes. All functions here return bytes.
"""

import argparse
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

from real_models.families import FAMILIES
from real_models.methods import LN_TARGETS, LORA_ELSEWHERE, METHODS, NOT_COVERED, Method
from real_models.optimizers import OPTIMIZERS, Optimizer, by_shape, state_bytes

_VOCABULARY_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "MASKED_LM", "PRE_TRAINING", "IMAGE_TEXT",
                     "SPEECH_TEXT")
# Trained along with the adapter, by PEFT's classes for the task.
_SAVED_HEADS = {"SEQ_CLS": ["classifier", "score"], "TOKEN_CLS": ["classifier", "score"],
                "QUESTION_ANS": ["qa_outputs"]}


# --------------------------------------------------------------------------- reading a config.json


# A text's tokens, and what is no JSON in it: single quotes, Python's names, a comma at the end.
# A text without its end reaches to the end: else each quote in it would be tried in its turn.
_TOKENS = re.compile(
    r"""(["'])(?:(?!\1)[^\\]|\\[\s\S]?)*(?:\1|\Z)|,(?=\s*[}\]])|-?\b[A-Za-z][\w.]*""")
LONGEST_CONFIG = 100_000  # characters, as in model_config.js
_NAMES = {"True": "true", "False": "false", "None": "null"} | dict.fromkeys(
    ("NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"), '"not finite"')  # so it is no size
_BLANK = re.compile("[\u00a0\u200b-\u200d\u2028\u2029\u2060\ufeff]")  # what pages copy besides
# What a file is instead, by a key that it has, where model_type is missing.
_OTHER_FILES = [
    ("weight_map", "the index of a checkpoint's weights"),
    ("tokenizer_class", "a tokenizer's configuration"),
    ("siblings", "what the hub's interface says of a model, with a part of its config.json"),
    ("general.architecture", "the metadata of a GGUF file"),
    ("n_layers", "the params.json of an original release, with other names"),
    ("_from_model_config", "a generation_config.json"),
    ("config", "an object around a configuration"),
]


def parse_config(text: str | bytes) -> dict[str, Any]:
    """A configuration as people have it: the file, or what Python printed.

    Read are UTF-8 and UTF-16, with or without a byte-order mark; a comma before a closing brace;
    `LlamaConfig {…}`, as transformers prints it; a dict as Python prints it. What stands before
    the first brace and after the last, a code fence or a prompt, is left out.

    Raises
    ------
    ValueError
        What the text is instead, as far as that can be told, or where it stops being JSON; more
        than 100,000 characters.
    """
    if isinstance(text, bytes):
        utf16 = text[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in text[:4]
        wide = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else (
            "utf-16-be" if text[:1] == b"\0" else "utf-16-le")
        try:
            text = text.decode(wide if utf16 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"config.json is no text in UTF-8 or UTF-16: {error}") from None
    if len(text) > LONGEST_CONFIG:
        raise ValueError(f"config.json has {len(text):,} characters, and is read up to "
                         f"{LONGEST_CONFIG:,}: read a longer one with json.load, and pass the dict")
    text = _BLANK.sub(" ", text).strip()
    if re.match(r"https?://\S+$", text):
        raise ValueError(f"{text:.80} is an address; pass the content of the file that is there")
    if text.find("{") < text.rfind("}"):
        text = text[text.find("{"):text.rfind("}") + 1]
    if '"' not in text:
        text = re.sub("[\u201c\u201d]", '"', text)

    def to_json(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] == "'" and len(token) > 1 and token.endswith("'"):
            inner = token[1:-1].replace("\\'", "'")
            return '"' + re.sub(r'(?<!\\)"', r'\"', inner) + '"'
        if token.startswith("torch."):
            return f'"{token}"'
        return "" if token == "," else _NAMES.get(token, token)

    try:
        config = json.loads(_TOKENS.sub(to_json, text))
    except RecursionError:
        raise ValueError("config.json has braces inside braces, too deep for any model") from None
    except ValueError as error:
        cut = text.startswith("{") and text.count("{") > text.count("}")
        raise ValueError(f"config.json is not JSON: {error}" + (
            "; it ends before its last closing brace, so a part is missing" * cut)) from None
    if not isinstance(config, dict):
        raise ValueError("a config.json is an object in braces, { … }, "
                         f"got {type(config).__name__}")
    return config


_LARGEST_SIZE = 100_000_000  # of one dimension, and
_MOST_MODULES = 100_000  # in all: a lying file must not eat the memory


def _resolve(rule: str, known: Mapping[str, int], config: Mapping[str, Any], family: str,
             assumed: dict[str, int]) -> int:
    """The first alternative of a symbol's rule that the config, or what is known of it, answers.

    A default of the family's class stands in for a key that the file leaves out, and is noted in
    `assumed`.
    """
    optional = "?" in rule  # 0 and null mean that there is none
    alternatives = [alternative.strip() for alternative in rule.replace("?", "").split("|")]
    defaults = FAMILIES[family]["defaults"]
    given = config.keys() & {alternative.partition("~")[0] for alternative in alternatives}
    for alternative in alternatives:
        key, test, prefix = alternative.partition("~")
        if key in known and not test:
            return known[key]  # a symbol of the table, whatever the file may call by its name
        if config.get(key) is not None:
            value = config[key]
            if test:
                return int(str(value).startswith(prefix))
            if isinstance(value, float) and value.is_integer():  # 768.0, as some tools write it
                value = int(value)
            if alternatives[-1] in ("0", "1"):  # a flag: its default says so
                if value not in (0, 1):
                    raise ValueError(f"config.json: {key} must be true or false, got {value!r:.80}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1 - optional:
                raise ValueError(f"config.json: {key} must be a positive integer, "
                                 f"got {value!r:.80}")
            if int(value) > _LARGEST_SIZE:
                raise ValueError(f"config.json: {key} is larger than {_LARGEST_SIZE:,}, "
                                 "which no model is; correct the file")
            return int(value)
        if key in defaults and not given:
            assumed[key] = defaults[key]
            return defaults[key]
        names = set(re.findall(r"[A-Za-z_]\w*", alternative))
        if not test and names <= known.keys():
            return _evaluate(alternative, known)
    if optional:
        return 0
    raise ValueError(
        f"config.json: a {family} model needs {' or '.join(alternatives)}, and it is missing; "
        f"the keys given are {', '.join(sorted(map(str, config))) or 'none'}")


def _evaluate(expression: str, symbols: Mapping[str, int]) -> int:
    # The expressions are those of FAMILIES above, never a reader's: only the numbers are.
    value = eval(expression, {"__builtins__": {}}, dict(symbols))
    if value != int(value):
        raise ValueError(f"config.json: {expression} must be a whole number, got {value:g} from "
                         f"{', '.join(f'{k}={v}' for k, v in symbols.items() if k in expression)}")
    return int(value)


@dataclass(frozen=True)
class Module:
    """One module of a model: its path, what it is, and its sizes as the table gives them."""

    name: str
    kind: str  # linear, conv1d, embedding, norm or stack
    sizes: tuple[int, ...]
    bias: bool = False
    tied: bool = False  # the weight belongs to another module; a bias is still its own

    @property
    def is_linear(self) -> bool:
        return self.kind in ("linear", "conv1d")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As PyTorch stores it: linear `(out, in)`, all others as the table's sizes."""
        return self.sizes[::-1] if self.kind == "linear" else self.sizes

    @property
    def weight_name(self) -> str:
        return self.name if self.kind == "stack" else f"{self.name}.weight"

    @property
    def out_features(self) -> int:
        return self.sizes[-1]

    @property
    def bias_size(self) -> int:
        return self.out_features if self.bias else 0

    @property
    def num_parameters(self) -> int:
        return (0 if self.tied else math.prod(self.sizes)) + self.bias_size


@dataclass(frozen=True)
class Model:
    """A model's modules, derived from its configuration by :func:`read_model`."""

    family: str
    task: str
    symbols: Mapping[str, int]  # d, ff, layers, heads, vocab, … as FAMILIES names them
    modules: tuple[Module, ...] = field(repr=False)
    name: str = ""
    notes: tuple[str, ...] = ()  # what was assumed of it

    @cached_property
    def num_parameters(self) -> int:
        """Parameters of the model, shared ones counted once."""
        return sum(module.num_parameters for module in self.modules)

    @cached_property
    def head(self) -> str | None:
        """Path of the language-model head, which `all-linear` and 4-bit loading leave alone."""
        if self.task not in _VOCABULARY_TASKS:
            return None
        return [m.name for m in self.modules if m.is_linear and m.out_features == self["vocab"]][-1]

    def __getitem__(self, symbol: str) -> int:
        return self.symbols[symbol]


def read_model(config: Mapping[str, Any] | str | Path, task: str | None = None, *,
               num_labels: int | None = None, name: str = "") -> Model:
    """The modules of the model that a Hugging Face `config.json` describes.

    Parameters
    ----------
    config : dict or path
        The content of a `config.json`, or where the file lies.
    task : str, optional
        Which head: CAUSAL_LM, SEQ_2_SEQ_LM, MASKED_LM, SEQ_CLS, TOKEN_CLS or FEATURE_EXTRACTION
        (none). By default the one of the class that the config names under "architectures".
    num_labels : int, optional
        Outputs of a classification head; by default from the config, else 2 as in Transformers.
    name : str, optional
        How to call the model in messages and tables.

    Raises
    ------
    ValueError
        If the family is unknown, a field is missing or malformed, or the family has no such head.
    """
    config, table = _table_of(_content(config))
    family = config["model_type"]
    task = task or _task_of(config, table)
    if task not in table["heads"] and task != "FEATURE_EXTRACTION":
        raise ValueError(f"{family} has no head for task {task!r}; it has "
                         f"{', '.join(table['heads'])} and FEATURE_EXTRACTION (none)")
    names = config.get("id2label") or {}
    if not isinstance(names, Mapping):
        raise ValueError(f"config.json: id2label must be an object, got {names!r:.80}")
    labels = num_labels or config.get("num_labels") or len(names) or 2
    symbols: dict[str, int] = {"labels": _positive("num_labels", labels)}
    assumed: dict[str, int] = {}
    for line in table["symbols"].strip().splitlines():
        symbol, rule = line.split("=", 1)
        symbols[symbol.strip()] = _resolve(rule, symbols, config, family, assumed)
    lists = {name: _listed(rule, symbols["layers"], config, family)
             for name, rule in table.get("lists", {}).items()}

    head, outer = [], table["modules"].split(".")[0].strip()
    root = outer
    for line in map(str.strip, table["heads"].get(task, "").splitlines()):
        if line.startswith("root "):
            root = line.removeprefix("root ")
        elif "=" in line:
            symbol, value = line.split("=")
            symbols[symbol.strip()] = int(value)
        else:
            head.append(line)
    modules = _expand(table["modules"] + "\n" + "\n".join(head), symbols, lists)
    if task == "FEATURE_EXTRACTION":  # the bare model has no outer `model.`, `bert.`, …
        modules = [replace(m, name=m.name.removeprefix(f"{outer}.")) for m in modules]
    elif root != outer:
        modules = [replace(m, name=re.sub(rf"^{outer}\.", f"{root}.", m.name)) for m in modules]
    return Model(family, task, symbols, tuple(modules), name, _notes(config, table, assumed))


def _content(config: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """What a config.json says, given as it is or by the path of its file."""
    if isinstance(config, (str, Path)):
        path = Path(config)
        if not path.is_file():
            raise FileNotFoundError(f"no config.json at {path}; give the path of the file or its "
                                    "content as a dict")
        config = parse_config(path.read_bytes())
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be the dict in a config.json, got {type(config).__name__}")
    return config


def _listed(rule: Mapping[str, Any], layers: int, config: Mapping[str, Any],
            family: str) -> list[str]:
    """What kind each layer is of, by a list in the file or by the interval that stands for one."""
    key = rule["key"]
    kinds = config.get(key)
    if kinds is None and "every" in rule:
        name, usual, most, some = rule["every"]
        interval = _positive(f"config.json: {name}", config.get(name, usual))
        if layers > _MOST_MODULES:
            raise ValueError(f"config.json: num_hidden_layers is larger than {_MOST_MODULES:,}, "
                             "which no model has; correct the file")
        kinds = [most if (i + 1) % interval else some for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not all(
            kind in rule["kinds"] for kind in kinds):
        raise ValueError(f"config.json: {key} of a {family} model must be a list of {layers} "
                         f"(num_hidden_layers), each {' or '.join(rule['kinds'])}, got "
                         f"{kinds!r:.80}")
    return kinds


def _table_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The table of a configuration's family, if it covers all of what the file describes, and the
    file with the keys of its parts as `part.key`.
    """
    if "_class_name" in config and "_diffusers_version" in config:
        raise ValueError("config.json: this file is diffusers' (_class_name "
                         f"{config['_class_name']!r:.60}); only models of transformers are counted")
    if "peft_type" in config:
        raise ValueError("this is the adapter_config.json of an adapter; pass the config.json of "
                         f"its base model, {config.get('base_model_name_or_path')!r:.80}")
    family = config.get("model_type")
    known = isinstance(family, str) and family in FAMILIES
    inside = FAMILIES[family].get("parts", []) if known else []
    parts = [key for key in config if key in _TOWERS and key not in inside
             and isinstance(config[key], (Mapping, str))]
    if parts:
        inner = config.get("text_config")
        alone = isinstance(inner, Mapping) and inner.get("model_type") in FAMILIES
        raise ValueError(
            f"config.json: model_type {family!r:.60} consists of several parts "
            f"({', '.join(parts)}), and only single language models are counted: PEFT also adapts "
            "modules of the same names in the other parts"
            + ("; pass config['text_config'] to count its language model without them" * alone))
    if not known:
        what = next((what for key, what in _OTHER_FILES if key in config), "")
        if what and family is None:
            raise ValueError(f"this is {what}, and no config.json: model_type is missing")
        missing = "config.json: model_type is missing" if family is None else (
            f"config.json: model_type {family!r:.60} is not a family this module knows")
        raise ValueError(f"{missing}. It knows {', '.join(FAMILIES)}")
    table = FAMILIES[family]
    for part in inside:
        found = config.get(part) or {}
        if not isinstance(found, Mapping):
            raise ValueError(f"config.json: {part} must be an object, got {found!r:.80}")
        if part == "text_config" and not found:
            raise ValueError(f"config.json: a {family} model needs text_config, and it is missing")
        config = {**config, **{f"{part}.{key}": value for key, value in found.items()}}
    foreign = [entry for entry in _own_code(config)
               if entry.split("--")[-1] not in table.get("own_code", [])]
    if foreign:
        raise ValueError("config.json: auto_map names code of its own "
                         f"({', '.join(foreign):.160}); what that builds is not known here. "
                         f"If it is transformers' {family} after all, remove auto_map")
    for key, counted in table.get("only", {}).items():
        if config.get(key) is not None and config[key] not in counted:
            raise ValueError(f"config.json: {key} is {config[key]!r:.60}; only "
                             f"{' or '.join(map(repr, counted))} is counted for {family}")
    return config, table


def _own_code(config: Mapping[str, Any]) -> list[str]:
    """The entries of auto_map that build the model; those that read texts and pictures do not."""
    own = config.get("auto_map") or {}
    return [str(own)] if not isinstance(own, Mapping) else [
        str(entry) for key, entry in own.items() if not _READS.search(str(key))]


_READS = re.compile("Tokenizer|Processor|FeatureExtractor")
_TOWERS = ("text_config", "vision_config", "audio_config", "speech_config", "encoder", "decoder",
           "mm_vision_tower")


_NOTES = {
    "assumed": "Not in the file, so taken from transformers' defaults for {family}: {taken}.",
    "quantization_config": "The file says that its weights are quantized; counted as if not.",
    "auto_map": "auto_map names code of its own, which builds what transformers builds.",
}
# Why activations are not estimated, by the part of a family's table that says so.
_NOT_ESTIMATED = {
    "parts": "it consists of several parts ({named}), and only one reads text",
    "lists": "some of its layers are no attention ({named}), and what those keep is not known here",
    "active": "how many experts a token meets is not known here",
}


def reading_rules() -> dict[str, Any]:
    """What the memory explorer needs besides the table to read a configuration as we do here."""
    return {"towers": list(_TOWERS), "vocabulary": list(_VOCABULARY_TASKS), "saved": _SAVED_HEADS,
            "notes": _NOTES, "not_estimated": _NOT_ESTIMATED, "reads": _READS.pattern,
            "other_files": [list(each) for each in _OTHER_FILES],
            "kept": KEPT_BYTES, "nf4": [_NF4_BLOCK, _NF4_SECOND_BLOCK]}


def _notes(config: Mapping[str, Any], table: Mapping[str, Any],
           assumed: Mapping[str, int]) -> tuple[str, ...]:
    """What one must know of a model that was read: assumptions, and what the file has besides."""
    notes = [table["note"]] if "note" in table else []
    if assumed:
        taken = ", ".join(f"{key} = {value}" for key, value in assumed.items())
        notes.append(_NOTES["assumed"].format(family=config["model_type"], taken=taken))
    found = {"quantization_config": config.get("quantization_config"),
             "auto_map": _own_code(config)}
    return (*notes, *(_NOTES[key] for key, there in found.items() if there))


def _task_of(config: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """The task of the first class that the file names, or the family's usual one."""
    classes = config.get("architectures")
    classes = [] if classes is None else classes
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"config.json: architectures must be a list of names, got {classes!r:.80}")
    if not classes:
        return table["head"]
    if classes[0] not in table["classes"]:
        raise ValueError(f"config.json: {classes[0]:.60} (architectures) is not a class of "
                         f"{config['model_type']} that is known here; known are "
                         f"{', '.join(table['classes'])}. To count another head of this model, "
                         "pass task")
    return table["classes"][classes[0]]


def _expand(rows: str, symbols: Mapping[str, int],
            lists: Mapping[str, list[str]]) -> list[Module]:
    """The table's rows with sizes filled in, each repeated as often as its path says."""
    modules = []
    for row in filter(None, map(str.strip, rows.splitlines())):
        path, kind, *rest = row.split()
        sizes = tuple(_evaluate(word, symbols) for word in rest if _is_size(word))
        options = dict(word.partition(":")[::2] for word in rest if not _is_size(word))
        if not _flag(options.get("if", "1"), symbols):
            continue
        bias = "bias" in options and _flag(options["bias"] or "1", symbols)
        tied = "tied" in options and _flag(options["tied"], symbols)
        repeats = [_span(count, symbols, lists) for count in re.findall(r"{([^}]*)}", path)]
        if len(modules) + math.prod(map(len, repeats)) > _MOST_MODULES:
            raise ValueError(f"config.json: with those called {path} that makes more than "
                             f"{_MOST_MODULES:,} modules, which no model has; correct the file")
        template = re.sub(r"{[^}]*}", "{}", path)
        modules += [Module(template.format(*at), kind, sizes, bias, tied)
                    for at in product(*repeats)]
    return modules


def _span(count: str, symbols: Mapping[str, int],
          lists: Mapping[str, list[str]]) -> Sequence[int]:
    """The numbers of `{stop}`, `{start:stop}` or `{list=kind}` in a path."""
    if "=" in count:
        name, kind = count.split("=")
        return [i for i, each in enumerate(lists[name]) if each == kind]
    start, stop = (_evaluate(part or "0", symbols) for part in count.rpartition(":")[::2])
    if start > stop or (":" in count and stop > symbols["layers"]):
        raise ValueError(f"config.json: {count} are layers {start} to {stop}, and the model has "
                         f"{symbols['layers']}; correct the file")
    return range(start, stop)


def _is_size(word: str) -> bool:
    return ":" not in word and word != "bias"


def _flag(expression: str, symbols: Mapping[str, int]) -> bool:
    return bool(_evaluate(expression, symbols))


_MODELS_FILE = Path(__file__).parents[1] / "data" / "models.json"


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """Well-known models from data/models.json: name -> {"hub": …, "config": …}."""
    return json.loads(_MODELS_FILE.read_text(encoding="utf-8"))["models"]


def load_model(name: str, task: str | None = None, *, num_labels: int | None = None) -> Model:
    """One of :func:`known_models`, by name."""
    if name not in known_models():
        raise ValueError(f"no model {name!r} in {_MODELS_FILE.name}; "
                         f"it has {', '.join(known_models())}")
    return read_model(known_models()[name]["config"], task, num_labels=num_labels, name=name)


# ----------------------------------------------------------- which modules does a name mean? (PEFT)

Targets = str | Sequence[str] | None


def matches(name: str, targets: str | Iterable[str]) -> bool:
    """PEFT's rule: a text is a regular expression for the whole path; a listed name means the
    module of that path and every module whose path ends with "." and that name.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _checked_pattern(name: str, targets: Targets) -> None:
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"{name} {targets!r} is no regular expression: {error}") from None


def _refuse_convolutions(model: Model, targets: Targets) -> None:
    """A name that means a weight of other axes than a linear layer's."""
    odd = [m.name for m in model.modules if m.kind == "stack" and m.name.endswith(".weight")
           and matches(m.name.rpartition(".")[0], targets)]
    if odd:
        raise ValueError(f"target_modules {targets!r}: {odd[0]} is the weight of no linear "
                         "layer, and PEFT adapts convolutions and refuses the rest; neither is "
                         "counted here, so name other modules")


def find_modules(model: Model, targets: Targets = None, *, exclude: str | Sequence[str] = (),
                 layers: Sequence[int] | int | None = None, modules_to_save: Sequence[str] = (),
                 default: str = "lora") -> tuple[list[Module], list[str]]:
    """The modules that PEFT would adapt, and the names that matched nothing.

    Parameters
    ----------
    targets : list of names, regular expression, "all-linear" or None
        `None` takes PEFT's default for the family. "all-linear" is every linear layer but the head.
    exclude : list of names or regular expression
        Modules to leave out.
    layers : int or list of int, optional
        Only in these layers (PEFT's `layers_to_transform`; only with a list of names).
    modules_to_save : list of str
        PEFT never adapts a module that is trained whole.

    Raises
    ------
    ValueError
        If nothing matches: PEFT refuses, too.
    """
    if targets is None:
        targets = default_targets(model, default)
    layers = [layers] if isinstance(layers, int) else layers
    everything = isinstance(targets, str) and targets.lower() == "all-linear"
    if layers is not None and isinstance(targets, str) and not everything:
        raise ValueError(f"layers={layers} needs a list of names, got the expression {targets!r}; "
                         "write the layers into the expression")
    _checked_pattern("target_modules", targets)
    _checked_pattern("exclude_modules", exclude)
    _refuse_experts(model, targets, default)
    if not everything:
        _refuse_convolutions(model, targets)
    if everything and model.task in ("TOKEN_CLS", "QUESTION_ANS"):
        raise ValueError("PEFT refuses all-linear for token classification and "
                         "question answering: it would adapt the head twice; list the modules")

    heads = [model.head, *saved_heads(model)]

    def is_named(module: Module) -> bool:
        if module.kind == "stack" or _is_inside(module, modules_to_save):
            return False
        return (module.is_linear and module.name not in heads if everything
                else matches(module.name, targets))

    def is_chosen(module: Module) -> bool:
        whole = layers is None or (not everything and module.name in targets)
        return whole or _layer_number(module) in layers

    named = list(filter(is_named, model.modules))
    kept = [module for module in named if not (exclude and matches(module.name, exclude))]
    found = [module for module in kept if is_chosen(module)]
    if not found:
        left = f"layers={layers}" if kept else f"exclude_modules={exclude!r}" if named else ""
        reason = f"{left} leaves none of those named" if left else _why_none(targets)
        raise ValueError(f"target_modules {targets!r} match nothing in this {model.family} model: "
                         f"{reason}; its modules are called {', '.join(linear_names(model))}")
    unmatched = [] if isinstance(targets, str) else [
        target for target in targets if not any(matches(module.name, [target]) for module in found)]
    return found, unmatched + _unmatched(model, exclude, layers or [])


def _refuse_experts(model: Model, targets: str | Sequence[str], method: str) -> None:
    fused = FAMILIES[model.family].get("fused", []) if method == "lora" else []
    stacks = [m.name.rpartition(".")[0] for m in model.modules if fused and m.kind == "stack"]
    places = dict.fromkeys([*stacks, *(stack.rpartition(".")[0] for stack in stacks)])
    named = [name for name in fused if str(targets).lower() == "all-linear" or any(
        matches(f"{place}.{name}", targets) for place in places)]
    if named:
        raise ValueError(
            f"target_modules {targets!r}: PEFT takes {', '.join(named)} for the experts of a "
            f"{model.family} model, which are stacked now, and adapts them by rules that are not "
            "counted here; name other modules")


def _is_inside(module: Module, names: Sequence[str]) -> bool:
    return any(re.match(rf"(^|.*\.){name}($|\..*)", module.name) for name in names)


def _unmatched(model: Model, exclude: str | Sequence[str], layers: Sequence[int]) -> list[str]:
    """The exclusions and the layers that mean no module of the model."""
    patterns = [exclude] if isinstance(exclude, str) and exclude else [[name] for name in exclude]
    numbers = {_layer_number(module) for module in model.modules}
    return [*(f"exclude_modules {pattern if isinstance(pattern, str) else pattern[0]}"
              for pattern in patterns
              if not any(matches(module.name, pattern) for module in model.modules)),
            *(f"layer {number}" for number in layers if number not in numbers)]


def default_targets(model: Model, method: str = "lora") -> list[str]:
    """The target modules that PEFT takes for the family when none are named."""
    table, lora = FAMILIES[model.family], FAMILIES[model.family].get("lora")
    if method == "ln_tuning":
        found = LN_TARGETS.get(model.family)
    elif method in ("adalora", "ia3"):
        found = table.get(method)
    elif method in METHODS:
        found = METHODS[method].targets.get(model.family) or table.get(method) or lora or (
            LORA_ELSEWHERE.get(model.family))
    else:
        found = lora
    if found is None:
        of = "" if method == "lora" else f" of {method}"
        raise ValueError(f"PEFT has no default target modules{of} for {model.family}; pass "
                         f"target_modules, for example {linear_names(model)[:4]}")
    return found


def _why_none(targets: str | Sequence[str]) -> str:
    if isinstance(targets, str):
        return f"a text is a regular expression for the whole path (for a name write [{targets!r}])"
    if any(re.search(r"[*^$|\\\[(+?]", target) for target in targets):
        return "the entries of a list are names, not patterns"
    return "there is nothing of that name"


def _layer_number(module: Module) -> int | None:
    number = re.match(r".*?\.[^.]*\.(\d+)\.", module.name)
    return None if number is None else int(number[1])


def linear_names(model: Model) -> list[str]:
    """The last part of the path of each linear layer, each once, in the model's order."""
    return list(dict.fromkeys(m.name.split(".")[-1] for m in model.modules if m.is_linear))


# ----------------------------------------------------------------------------- counting: the result


@dataclass(frozen=True)
class Count:
    """How many parameters a method trains on a model, and what its saved adapter contains.

    Attributes
    ----------
    trainable, total : int
        As PEFT's `get_nb_trainable_parameters` reports them: `total` includes the adapter.
    tensors : dict
        Name and shape of each tensor in the saved adapter (PEFT's file, where PEFT has the method).
    unmatched : list of str
        What matched no module: target names, `exclude_modules`, layers, keys of `rank_pattern`.
    notes : list of str
        What one must know to read the numbers correctly.
    copied : int
        How many of the trained ones are copies of the base model's, or its biases: PEFT leaves
        them in the base model's dtype, and keeps its own in 32 bits.
    base_tensors : set of str
        Those of `tensors` that have the base model's dtype.
    integer_tensors : set of str
        Those of `tensors` that hold 32-bit whole numbers.
    frozen_tensors : set of str
        Those of `tensors` that are not trained, these among them.
    """

    method: str
    model: Model
    trainable: int
    total: int
    tensors: Mapping[str, tuple[int, ...]] = field(repr=False)
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    copied: int = 0
    base_tensors: frozenset[str] = field(default=frozenset(), repr=False)
    integer_tensors: frozenset[str] = field(default=frozenset(), repr=False)
    frozen_tensors: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def percent(self) -> float:
        """Trainable share of all parameters, adapter included, as PEFT prints it."""
        return 100 * self.trainable / self.total

    @property
    def stored(self) -> int:
        """Numbers in the saved file: fewer than trained if a reparametrisation is discarded."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    @property
    def packed_total(self) -> int:
        """`total` as old tools print it for a 4-bit model: a byte with two weights counts one."""
        packed = sum(math.prod(m.sizes) // 2 for m in quantized_modules(self.model))
        return self.total - packed

    def __str__(self) -> str:
        lines = [(f"trainable params: {self.trainable:,} || all params: {self.total:,} || "
                 f"trainable%: {self.percent:.4f}")]
        if self.unmatched:
            lines.append(f"matched nothing: {', '.join(self.unmatched)}")
        return "\n".join([*lines, *self.notes])


def count_full(model: Model) -> Count:
    """Full fine-tuning: everything is trained and everything is saved."""
    tensors = {}
    for m in model.modules:
        if not m.tied:
            tensors[m.weight_name] = m.weight_shape
        if m.bias:
            tensors[f"{m.name}.bias"] = (m.bias_size,)
    return Count("full", model, model.num_parameters, model.num_parameters, tensors,
                 notes=model.notes)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return value


def _one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


# ---------------------------------------------- methods that change modules: LoRA and its relatives


def count_lora(model: Model, rank: int = 8, target_modules: Targets = None, *,
               exclude_modules: str | Sequence[str] = (),
               layers: Sequence[int] | int | None = None,
               rank_pattern: Mapping[str, int] | None = None, bias: str = "none",
               use_dora: bool = False, use_rslora: bool = False, lora_bias: bool = False,
               modules_to_save: Sequence[str] = (), target_parameters: Sequence[str] = (),
               trainable_token_indices: Sequence[int] | Mapping[str, Sequence[int]] = (),
               head: str = "copied", **settings: Any) -> Count:
    """LoRA: `rank * (in + out)` for each adapted module [Hu et al., 2021, section 4.1]; an
    embedding has `rank * (rows + width)`, in the same way.

    Parameters
    ----------
    rank : int
        `r` of PEFT's LoraConfig.
    target_modules
        See :func:`find_modules`. None is PEFT's default for the family.
    exclude_modules, layers, rank_pattern
        As PEFT's `exclude_modules`, `layers_to_transform` and `rank_pattern`.
    bias : {"none", "all", "lora_only"}
        Which biases of the *base* model train as well.
    use_dora : bool
        One more magnitude per output [Liu et al., 2024].
    use_rslora : bool
        Scales by alpha/sqrt(rank) [Kalajdzievski, 2023]: no parameter more or less.
    lora_bias : bool
        A bias on B: one more number per output.
    modules_to_save : list of str
        Modules to train and save whole. In classification PEFT adds the head by itself.
    target_parameters : list of str
        Weights that are no layers of their own: stacked experts.
    trainable_token_indices : list of int, or dict
        Tokens whose rows of the embedding train, or the rows of each module that is named.
    head : {"copied", "in place", "both"}
        PEFT trains a copy of these modules and keeps the original ("copied"). Before 7 April 2023
        it trained the original ("in place"); from then until 26 September 2023 it trained the copy
        but counted both as trainable ("both").
    settings
        Others of LoraConfig's: those that change no count are ignored, all others refused.
    """
    _refuse_uncounted(settings)
    _positive("rank", rank)
    _one_of("bias", bias, ("none", "all", "lora_only"))
    if target_parameters:
        _refuse_variants(use_dora, lora_bias, bias != "none", settings.get("lora_dropout"))
    saved = _saved_names(model, modules_to_save)
    found, unmatched = _lora_modules(model, target_modules, bool(target_parameters), layers=layers,
                                     exclude=exclude_modules, modules_to_save=saved)
    tensors = {}
    for m in found:
        tensors |= _lora_tensors(m, _positive("rank", _rank_of(m.name, rank, rank_pattern)),
                                 use_dora, lora_bias)
    more, named, missed = _parameter_tensors(model, target_parameters, found, rank, rank_pattern)
    tensors |= more | _token_tensors(model, trainable_token_indices, [*found, *named], saved)
    notes = ["rsLoRA scales by alpha/sqrt(rank); it has no parameters of its own."] * use_rslora
    adapted = [*(m.name for m in found), *(m.weight_name for m in named)]
    unmatched += missed + [f"rank_pattern {key}" for key in rank_pattern or {}
                           if not any(_rank_of(name, 0, {key: 1}) for name in adapted)]
    return _count_tuner("LoRA" if not use_dora else "DoRA", model, found, tensors, bias=bias,
                        saved=saved, head=head, unmatched=unmatched, notes=notes)


def _lora_modules(model: Model, targets: Targets, others: bool,
                  **options: Any) -> tuple[list[Module], list[str]]:
    """The modules, which there need not be if parameters are named besides."""
    if others and (targets == [] or (targets is None and not FAMILIES[model.family].get("lora"))):
        return [], []
    return find_modules(model, targets, **options)


_TRANSPOSED_EXPERTS = ("gpt_oss",)  # is_transposed in transformers: (experts, in, out)


def _parameter_tensors(
        model: Model, names: Sequence[str], adapted: list[Module], rank: int,
        pattern: Mapping[str, int] | None,
) -> tuple[dict[str, tuple[int, ...]], list[Module], list[str]]:
    """LoRA on parameters by their names: `rank * experts * (in + out)` for stacked experts.

    Returns the tensors, the modules of the table whose weights they are, and the names that match
    nothing. Where several parameters belong to one module, PEFT wraps it once for each, the first
    innermost: peft 0.21.2, tuners/lora/layer.py, ParamWrapper.
    """
    if isinstance(names, str):
        raise TypeError(f"target_parameters must be a list of names, got {names!r}")
    named = [m for m in model.modules if matches(m.weight_name, names or [])]
    groups: dict[str, list[Module]] = {}
    for m in named:
        if m in adapted or m.tied or m.kind in ("norm", "embedding") or len(m.weight_shape) > 3 or (
                m.kind == "stack" and len(m.weight_shape) == 3 and m.name.endswith(".weight")):
            raise ValueError(f"target_parameters: LoRA on {m.weight_name} of shape "
                             f"{m.weight_shape} is not counted; PEFT takes weights of two axes, or "
                             "of three with the experts first, that no target module has")
        groups.setdefault(m.weight_name.rpartition(".")[0], []).append(m)
    tensors = {}
    for path, inside in groups.items():
        for depth, m in zip(reversed(range(len(inside))), inside, strict=True):
            *experts, n_out, n_in = m.weight_shape
            if experts and model.family in _TRANSPOSED_EXPERTS:
                n_in, n_out = n_out, n_in
            r = _positive("rank", _rank_of(m.weight_name, rank, pattern)) * math.prod(experts)
            key = f"base_model.model.{path}.{'base_layer.' * depth}lora_"
            tensors |= {f"{key}A.weight": (r, n_in), f"{key}B.weight": (n_out, r)}
    if names and not named and not adapted:
        raise ValueError(f"target_parameters {names!r:.80} match nothing in this {model.family} "
                         "model, and no target module is named")
    missed = [f"target_parameters {name}" for name in names or []
              if not any(matches(m.weight_name, [name]) for m in named)]
    return tensors, named, missed


def _token_tensors(model: Model, tokens: Sequence[int] | Mapping[str, Sequence[int]] | None,
                   adapted: list[Module], saved: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """One row for each trained token: `tokens * width`. A tied head shares the embedding's rows,
    if the same tokens are named for both: peft 0.21.2, utils/other.py, lines 1568 to 1650.
    """
    embedding = next((m for m in model.modules if m.kind == "embedding"
                      and m.sizes[0] == model.symbols.get("vocab")), None)
    if not tokens:
        return {}
    if not isinstance(tokens, Mapping):
        tokens = {embedding.name if embedding else "": tokens}
    rows: dict[Module, list[int]] = {}
    for name, indices in tokens.items():
        paths = {path for m in model.modules for path in _roots(m.name) if path.endswith(name)}
        found = [m for m in model.modules if m.name in paths]
        if not found or len(found) < len(paths):
            raise ValueError(f"trainable_token_indices: {name!r} is no module of this "
                             f"{model.family} model with a row for each token")
        for m in found:
            many = m.sizes[0] if m.kind == "embedding" else m.out_features
            if m in adapted or _is_inside(m, saved) or m.kind not in ("embedding", "linear"):
                raise ValueError(f"trainable_token_indices: tokens of {m.name} are not counted: "
                                 "it is adapted or saved whole besides, or has no rows")
            for index in indices:
                if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < many:
                    raise ValueError(f"trainable_token_indices: {index!r} is no row of {m.name}, "
                                     f"which has {many}")
            rows[m] = list(indices)
    for m in [m for m in rows if m.tied and embedding in rows]:
        if model.task == "MASKED_LM":
            raise ValueError(f"trainable_token_indices: {m.name} and {embedding.name} are one "
                             "weight; name one of them")
        if rows[m] == rows[embedding]:
            del rows[m]
    return {f"base_model.model.{m.name}.token_adapter.trainable_tokens_delta":
            (len(indices), m.weight_shape[1]) for m, indices in rows.items()}


_COUNTLESS = ("lora_alpha", "lora_dropout", "alpha_pattern", "init_lora_weights", "fan_in_fan_out",
              "task_type", "inference_mode")


def _refuse_uncounted(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _COUNTLESS and value:
            raise ValueError(f"{name}={value!r:.60} may change what LoRA trains, and this module "
                             "does not count it; count without it")


def _refuse_variants(*chosen: Any) -> None:
    if any(chosen):
        raise ValueError("target_parameters are counted without use_dora, lora_bias, lora_dropout "
                         "and bias; PEFT refuses most of these beside them")


def _lora_tensors(m: Module, r: int, use_dora: bool,
                  lora_bias: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of A and B on one module, of DoRA's magnitudes and of B's bias."""
    key = f"base_model.model.{m.name}.lora_"
    more = {f"{key}magnitude_vector": (m.out_features,)} if use_dora else {}
    if m.is_linear:
        n_in, n_out = m.sizes
        more |= {f"{key}B.bias": (n_out,)} if lora_bias else {}
        return {f"{key}A.weight": (r, n_in), f"{key}B.weight": (n_out, r)} | more
    if m.kind == "embedding":
        rows, n_out = m.sizes
        return {f"{key}embedding_A": (r, rows), f"{key}embedding_B": (n_out, r)} | more
    raise ValueError(f"LoRA adapts linear layers and embeddings; {m.name} is a {m.kind}. "
                     "Take it out of target_modules, or put it in modules_to_save")


def _rank_of(name: str, rank: int, pattern: Mapping[str, int] | None) -> int:
    """The first entry of PEFT's `rank_pattern` that fits the end of the path, else `rank`."""
    return next((r for key, r in (pattern or {}).items()
                 if re.match(rf"(.*\.)?({key})$", name)), rank)


def _only_linear(method: str, found: list[Module], kinds: Sequence[str]) -> None:
    for m in found:
        if m.kind not in kinds:
            raise ValueError(f"{method} is counted on {' or '.join(kinds)} layers, and {m.name} is "
                             f"a {m.kind}; take it out of target_modules")


def count_method(model: Model, method: str, target_modules: Targets = None, *,
                 exclude_modules: str | Sequence[str] = (),
                 layers: Sequence[int] | int | None = None, modules_to_save: Sequence[str] = (),
                 head: str = "copied", **settings: Any) -> Count:
    """A method of the table in `methods.py`, by its name there: LoKr, OFT, BOFT, MiSS, RoAd, …

    Parameters
    ----------
    target_modules, exclude_modules, layers, modules_to_save, head
        See :func:`find_modules` and :func:`count_lora`.
    settings
        What the method's counts depend on, by PEFT's names (`rank` for its `r`), where it is not
        PEFT's default.

    Raises
    ------
    ValueError
        A method or setting that the table does not have; sizes that PEFT refuses, too.
    """
    _one_of("method", method, METHODS)
    row = METHODS[method]
    for name, value in settings.items():
        _one_of(f"a setting of {row.name}", name, row.settings)
        _checked_setting(row, name, value)
    for name, value in (("exclude_modules", exclude_modules), ("layers", layers)):
        if name in row.without and value not in ((), None, [], ""):
            raise ValueError(f"PEFT's {row.name} has no {name}, got {value!r}; name the modules "
                             "in target_modules")
    settings = {**row.settings, **settings}
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, exclude=exclude_modules, layers=layers,
                                    default=method, modules_to_save=saved)
    _only_linear(row.name, found, row.kinds)
    tensors, indices = {}, {}
    for m in found:
        for end, shape in row.tensors(*m.sizes, **settings).items():
            into = indices if end in row.indices else tensors
            into[f"base_model.model.{m.name}.{end}"] = shape
    counted = _count_tuner(row.name, model, found, tensors, frozen=row.frozen * len(found),
                           unmatched=unmatched, saved=saved, head=head)
    shared = row.shared(*(max(m.sizes[side] for m in found) for side in (0, 1)), **settings)
    places = ["", *(f"model.{m.name}." for m in found if row.repeated)]
    also = {f"base_model.{place}{name}": shape for place in places
            for name, shape in shared.items()}
    notes = ["The file also holds the frozen random matrices"
             + ", again for every module" * row.repeated + ", unless save_projection=False."
             ] * bool(shared)
    return replace(counted, tensors=counted.tensors | also | indices,
                   notes=(*counted.notes, *notes), integer_tensors=frozenset(indices),
                   frozen_tensors=counted.frozen_tensors | also.keys() | indices.keys())


def _checked_setting(row: Method, name: str, value: Any) -> None:
    """A truth value, or a positive number; 0 where it means that another setting speaks."""
    default = row.settings[name]
    if isinstance(default, bool):
        if not isinstance(value, bool) and name != "init_weights":
            raise ValueError(f"{name} must be True or False, got {value!r}")
    elif isinstance(default, int) and value != default:
        zero = value == 0 and any(type(each) is int and each == 0 for each in row.settings.values())
        _positive(name, value + zero if zero else value)


def count_adalora(model: Model, init_rank: int = 12, target_modules: Targets = None,
                  **options: Any) -> Count:
    """AdaLoRA at its start: LoRA, and one singular value per rank [Zhang et al., 2023].

    PEFT also registers one frozen number per module, which `total` contains.
    """
    return count_method(model, "adalora", target_modules, init_rank=init_rank, **options)


def count_loha(model: Model, rank: int = 8, target_modules: Targets = None,
               **options: Any) -> Count:
    """LoHa: the elementwise product of two LoRA updates, `2 rank (in + out)` per module."""
    return count_method(model, "loha", target_modules, rank=rank, **options)


def count_vera(model: Model, rank: int = 256, target_modules: Targets = None,
               **options: Any) -> Count:
    """VeRA: two vectors, `rank + out` per module; the matrices are random, shared, never trained.

    PEFT's file contains the random matrices as well (`save_projection=True`).
    """
    return count_method(model, "vera", target_modules, rank=rank, **options)


def count_ln_tuning(model: Model, target_modules: Targets = None, *,
                    exclude_modules: str | Sequence[str] = (), modules_to_save: Sequence[str] = (),
                    head: str = "copied") -> Count:
    """LN tuning: a copy of each norm is trained in its place [Zhao et al., 2023]."""
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, exclude=exclude_modules,
                                    default="ln_tuning", modules_to_save=saved)
    groups = {path for m in model.modules for path in _roots(m.name)[:-1]}
    if whole := sorted(path for path in groups if matches(
            path, default_targets(model, "ln_tuning") if target_modules is None
            else target_modules)):
        raise ValueError(f"target_modules {target_modules!r}: {whole[0]} holds other modules, and "
                         "copies of groups are not counted; name its modules")
    tensors = {}
    for m in found:
        key = f"base_model.model.{m.name}.ln_tuning_layers."
        tensors |= {f"{key}weight": m.weight_shape} | (
            {f"{key}bias": (m.bias_size,)} if m.bias else {})
    counted = _count_tuner("LN tuning", model, found, tensors, unmatched=unmatched, saved=saved,
                           head=head)
    return replace(counted, copied=counted.trainable, base_tensors=frozenset(counted.tensors))


def count_ia3(model: Model, target_modules: Targets = None,
              feedforward_modules: Targets = None, *, modules_to_save: Sequence[str] = (),
              head: str = "copied", **options: Any) -> Count:
    """(IA)³: one scale per output, or per *input* for feed-forward modules [Liu et al., 2022]."""
    if (target_modules is None) != (feedforward_modules is None):
        raise ValueError("pass both target_modules and feedforward_modules, or neither, as in PEFT")
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, default="ia3", modules_to_save=saved,
                                    **options)
    inner = FAMILIES[model.family]["feedforward"] if feedforward_modules is None else (
        feedforward_modules)
    _only_linear("(IA)3", found, ("linear", "conv1d"))
    tensors = {}
    for m in found:
        shape = (1, m.sizes[0]) if matches(m.name, inner) else (m.sizes[1], 1)
        tensors[f"base_model.model.{m.name}.ia3_l"] = shape
    return _count_tuner("(IA)3", model, found, tensors, unmatched=unmatched, saved=saved,
                        head=head)


def saved_heads(model: Model) -> list[str]:
    """The names of what PEFT trains whole by itself, for the model's task."""
    return _SAVED_HEADS.get(model.task, [])


def _saved_names(model: Model, modules_to_save: Sequence[str]) -> list[str]:
    if isinstance(modules_to_save, str):
        raise TypeError(f"modules_to_save must be a list of names, got {modules_to_save!r}; write "
                        f"[{modules_to_save!r}]")
    return list(dict.fromkeys([*modules_to_save, *saved_heads(model)]))


def _whole_modules(model: Model, names: Sequence[str]) -> tuple[list[Module], list[str]]:
    """What `modules_to_save` trains: a name means each module, or group of modules, whose path ends
    in it (PEFT does not ask for a dot here). Also the names that mean nothing.
    """
    paths = dict.fromkeys(path for m in model.modules for path in _roots(m.name))
    roots = [path for path in paths if any(path.endswith(name) for name in names)]
    whole = [m for m in model.modules
             if any(m.name == root or m.name.startswith(f"{root}.") for root in roots)]
    return whole, [name for name in names if not any(path.endswith(name) for path in paths)]


def _roots(path: str) -> list[str]:
    """The modules that contain a module, from the outside in, and itself."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _count_tuner(method: str, model: Model, adapted: list[Module],
                 tensors: dict[str, tuple[int, ...]], *, bias: str = "none", frozen: int = 0,
                 saved: Sequence[str] = (), head: str = "copied", unmatched: Sequence[str] = (),
                 notes: Sequence[str] = ()) -> Count:
    """Sum up a method that adds `tensors` to modules: plus biases, plus modules trained whole."""
    _one_of("head", head, ("copied", "in place", "both"))
    added = sum(math.prod(shape) for shape in tensors.values())
    file = dict(tensors)
    notes = [*model.notes, *notes]

    names = {m.name for m in adapted}
    embedding = next((m.name for m in model.modules if m.kind == "embedding"), None)
    if any(m.name.split(".")[-1] in ("embed_tokens", "lm_head") for m in adapted):
        for m in adapted:  # PEFT then saves the frozen weights of these layers with the adapter
            if m.name in (embedding, model.head):
                file[f"base_model.model.{m.name}.base_layer.weight"] = m.weight_shape
                if m.bias:
                    file[f"base_model.model.{m.name}.base_layer.bias"] = (m.bias_size,)
                notes.append(f"PEFT saves the {math.prod(m.sizes):,} frozen weights of {m.name} "
                             "with the adapter, unless save_embedding_layers=False.")
    untrained = {name for name in file.keys() - tensors.keys()
                 if bias == "none" or name.endswith("weight")}
    whole, unknown = _whole_modules(model, saved)
    whole_names = {m.name for m in whole}
    biased = [] if bias == "none" else [
        m for m in model.modules if m.bias and m.name not in whole_names
        and (bias == "all" or m.name in names)]
    for m in biased:
        inner = ".base_layer" if m.name in names else ""
        file[f"base_model.model.{m.name}{inner}.bias"] = (m.bias_size,)
        if m.tied:  # a tied head's bias has a second name, one level up; both are written
            file[f"base_model.model.{m.name.rpartition('.')[0]}.bias"] = (m.bias_size,)

    named = [] if bias != "all" else [  # parameters of this very name that are no layer's
        m for m in model.modules if m.kind == "stack" and m.name.split(".")[-1] == "bias"
        and m.name not in whole_names]
    file |= {f"base_model.model.{m.weight_name}": m.weight_shape for m in named}
    copies = sum(math.prod(m.sizes) + m.bias_size for m in whole)  # a tied weight is copied, too
    for m in whole:
        file[f"base_model.model.{m.weight_name}"] = m.weight_shape
        if m.bias:
            file[f"base_model.model.{m.name}.bias"] = (m.bias_size,)
        if m.bias and bias == "all":  # PEFT writes each bias under its wrapper's names
            root = next(n for n in _roots(m.name) if any(n.endswith(name) for name in saved))
            inside = m.name[len(root):]
            copy = ".modules_to_save" + (".default" if inside else "")
            for wrapper in (".original_module", copy):
                file[f"base_model.model.{root}{wrapper}{inside}.bias"] = (m.bias_size,)
        if m.tied:
            notes.append(f"{m.name} shares its weight with the embedding; trained whole it becomes "
                         f"a copy of {math.prod(m.sizes):,} parameters, and the two drift apart.")
    biases = sum(m.bias_size for m in biased) + sum(math.prod(m.sizes) for m in named)
    trainable = added + biases + copies * (2 if head == "both" else 1)
    total = model.num_parameters + added + frozen + copies * (0 if head == "in place" else 1)
    unknown = [name for name in unknown if name not in saved_heads(model)]
    return Count(method, model, trainable, total, file, (*unmatched, *unknown), tuple(notes),
                 trainable - added, frozenset(file.keys() - tensors.keys()),
                 frozen_tensors=frozenset(untrained))


# --------------------------------------------------------- virtual tokens: prefix, prompt, P-tuning


def count_prefix(model: Model, num_virtual_tokens: int = 20, *, projection: bool = False,
                 hidden: int | None = None, head: str = "copied") -> Count:
    """Prefix tuning: a key and a value per layer and virtual token [Li and Liang, 2021].

    With grouped-query attention they have the width of the *key/value* heads. `projection=True`
    trains them through an MLP of width `hidden`, which is discarded: trained and stored differ. In
    classification the head trains along; `head` says how it is counted, see :func:`count_lora`.
    """
    P, layers, width = _positive("num_virtual_tokens", num_virtual_tokens), model["layers"], (
        model["prefix_width"])
    stored = P * 2 * layers * width
    trainable, notes = stored, []
    if projection:
        h = _positive("hidden", hidden or width)
        trainable = P * width + (width * h + h) + (h * 2 * layers * width + 2 * layers * width)
        notes.append(f"Trained through an MLP; of {trainable:,} numbers {stored:,} are stored.")
    if model.family in ("t5", "mt5"):
        notes.append("PEFT puts the prefix on the decoder only.")
        if model["heads"] * model["dkv"] != width:
            notes.append(f"PEFT takes d_model = {width} for the width of keys and values; this "
                         f"model's are {model['heads'] * model['dkv']} wide, so the prefix does "
                         "not fit it.")
    return _count_virtual("prefix tuning", model, trainable, (P, 2 * layers * width), notes, head)


def count_prompt(model: Model, num_virtual_tokens: int = 20, *, submodules: int | None = None,
                 head: str = "copied") -> Count:
    """Prompt tuning: one embedding per virtual token [Lester et al., 2021].

    For an encoder-decoder PEFT allocates them twice (`submodules=2`), though only the encoder's
    are of use; the paper counts once (`submodules=1`).
    """
    times = (2 if model.task == "SEQ_2_SEQ_LM" else 1) if submodules is None else (
        _positive("submodules", submodules))
    shape = (_positive("num_virtual_tokens", num_virtual_tokens) * times, model["d"])
    notes = [f"PEFT allocates the prompt {times} times for an encoder-decoder."] * (times > 1)
    if model.symbols.get("word", model["d"]) != model["d"]:
        notes.append(f"PEFT makes prompts {model['d']} wide; this model's embeddings are "
                     f"{model['word']} wide, so such a prompt does not fit it.")
    return _count_virtual("prompt tuning", model, math.prod(shape), shape, notes, head)


def count_p_tuning(model: Model, num_virtual_tokens: int = 20, *, hidden: int | None = None,
                   encoder: str = "MLP", head: str = "copied") -> Count:
    """P-tuning: a prompt trained through an MLP (or LSTM), of which the prompt alone is stored."""
    _one_of("encoder", encoder, ("MLP", "LSTM"))
    d = model["d"]
    h = _positive("hidden", hidden or d)
    rows = _positive("num_virtual_tokens", num_virtual_tokens) * (
        2 if model.task == "SEQ_2_SEQ_LM" else 1)
    if encoder == "MLP":
        network = (d * h + h) + (h * h + h) + (h * d + d)
    else:  # two bidirectional LSTM layers (4 gates, 2 biases each), then a two-layer MLP
        lstm = 2 * 4 * (d * h + h * h + 2 * h) + 2 * 4 * (2 * h * h + h * h + 2 * h)
        network = lstm + (2 * h * 2 * h + 2 * h) + (2 * h * d + d)
    return _count_virtual("P-tuning", model, rows * d + network, (rows, d), [
        f"Trained through an {encoder}; {rows * d:,} numbers are stored."], head)


def _count_virtual(method: str, model: Model, trainable: int, shape: tuple[int, int],
                   notes: Sequence[str], head: str) -> Count:
    """The virtual tokens, and in classification the head."""
    counted = _count_tuner(method, model, [], {"prompt_embeddings": shape},
                           saved=_saved_names(model, []), head=head, notes=notes)
    network = trainable - math.prod(shape)  # trained through it, not stored
    return replace(counted, trainable=counted.trainable + network, total=counted.total + network)


# ------------------------------------------------------------------------------ bottleneck adapters


def count_adapters(model: Model, bottleneck: int = 64, style: str = "houlsby", *,
                   biases: bool = True, layer_norms: bool = False,
                   cross_attention: bool = True) -> Count:
    """Bottleneck adapters: `2 d m`, and `m + d` biases, each.

    Parameters
    ----------
    bottleneck : int
        Inner width m.
    style : {"houlsby", "pfeiffer", "parallel"}
        After attention and after the MLP of each layer [Houlsby et al., 2019]; after the MLP only
        [Pfeiffer et al., 2021]; beside the MLP [He et al., 2022]. The last two count alike.
    biases : bool
        Whether the two projections have biases.
    layer_norms : bool
        Whether the layers' own LayerNorms train along, as in Houlsby et al.; only what is counted
        inside the layers, not a final or an embedding norm.
    cross_attention : bool
        In a decoder with cross-attention: whether that sub-layer gets a Houlsby adapter as well.
    """
    m, d = _positive("bottleneck", bottleneck), model["d"]
    _one_of("style", style, ("houlsby", "pfeiffer", "parallel"))
    decoder = model.symbols.get("decoder_layers", 0)
    places = {"mlp": model["layers"] + decoder}
    if style == "houlsby":
        places["attention"] = model["layers"] + decoder
        if cross_attention and decoder:
            places["cross_attention"] = decoder
    tensors: dict[str, tuple[int, ...]] = {}
    for place, count in places.items():
        for i in range(count):
            key = f"layers.{i}.{place}.adapter_"
            tensors |= {f"{key}down.weight": (m, d), f"{key}up.weight": (d, m)}
            if biases:
                tensors |= {f"{key}down.bias": (m,), f"{key}up.bias": (d,)}
    added = sum(math.prod(shape) for shape in tensors.values())
    trainable = added
    if layer_norms:
        norms = [n for n in model.modules if n.kind == "norm" and re.search(r"\.\d+\.", n.name)]
        trainable += sum(n.num_parameters for n in norms)
        for n in norms:
            tensors[f"{n.name}.weight"] = n.weight_shape
            if n.bias:
                tensors[f"{n.name}.bias"] = (n.bias_size,)
    notes = (f"{sum(places.values())} adapters; biases {'counted' if biases else 'none'}, "
             f"LayerNorms {'counted' if layer_norms else 'not counted'}.",)
    return Count(f"adapters ({style})", model, trainable, model.num_parameters + added, tensors, (),
                 notes)


# ------------------------------------------------------------------------------------------- memory

# Bytes for each *trainable* parameter: its weight, its gradient, Adam's two averages, a second copy
# of the weight. The conventions differ in what they keep in 16 and what in 32 bits: say which one.
CONVENTIONS: dict[str, tuple[float, float, float, float, str]] = {
    "fp32": (4, 4, 8, 0, "everything in 32 bits"),
    "mixed": (2, 2, 8, 4, ("16-bit weights and gradients, a 32-bit master copy "
                          "(Rajbhandari et al., 2020, section 3.1)")),
    "amp": (4, 4, 8, 2, ("32-bit weights and gradients, a 16-bit copy of the weights "
                        "(PyTorch AMP as Hugging Face counts it)")),
    "no-master": (2, 2, 8, 0, "16-bit weights and gradients, 32-bit Adam, no master copy"),
    "bf16": (2, 2, 4, 0, "everything in 16 bits"),
}
BASE_FORMATS = ("float32", "bfloat16", "int8", "nf4", "nf4+dq")
GB = 10**9

_NF4_BLOCK, _NF4_SECOND_BLOCK = 64, 256


@dataclass(frozen=True)
class Item:
    """One line of a memory bill."""

    label: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Bill:
    """Where the memory goes, item by item; and what the bill leaves out."""

    items: tuple[Item, ...]
    leaves_out: str
    other_peak: int = 0  # a smaller one, at another time

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def __str__(self) -> str:
        rows = [f"{item.label:<28}{item.bytes / GB:>10.3f} GB   {item.why}" for item in self.items]
        total = f"{'total':<28}{self.bytes / GB:>10.3f} GB"
        return "\n".join([*rows, total, f"not included: {self.leaves_out}"])


def memory_bill(counted: Count, *, convention: str = "fp32", base: str = "bfloat16",
                optimizer: str = "adamw", prepared: bool = True) -> Bill:
    """The memory of a model's states in training, exact under a stated convention.

    Parameters
    ----------
    counted : Count
        What is trained: the answer of `count_full`, `count_lora`, …
    convention : str
        One of `CONVENTIONS`: how the trainable parameters are kept. PEFT keeps adapters in 32 bits
        ("fp32") even on a 16-bit base; only what it copies from the base (`modules_to_save`, a
        classification head) or trains in place there (biases) stays in 16 bits.
    base : {"float32", "bfloat16", "int8", "nf4", "nf4+dq"}
        How the frozen weights are kept. int8 and NF4 apply to the linear layers except the head.
        "nf4+dq" is NF4 with double quantization [Dettmers et al., 2023].
    prepared : bool
        Whether PEFT's `prepare_model_for_kbit_training` has run, see :func:`frozen_items`.
    optimizer : str
        One of `optimizers.OPTIMIZERS`. Each number that it remembers has the convention's bytes,
        but for what it keeps in 8 bits.

    Raises
    ------
    ValueError
        An unknown convention, base or optimizer; one that needs to know the shapes of the trained
        tensors, for a method that trains others than it saves.
    """
    _one_of("convention", convention, CONVENTIONS)
    _one_of("optimizer", optimizer, OPTIMIZERS)
    weight, gradient, states, copy, how = CONVENTIONS[convention]
    n = counted.trainable
    items = [*frozen_items(counted, base, prepared=prepared)]
    # Copies of a 16-bit base stay in 16 bits, and so do their gradients and averages.
    wide = base == "float32" or (base != "bfloat16" and prepared)
    halved = 0 if convention != "fp32" or wide else counted.copied
    few = f"; {halved:,} of them, the base model's own, half as many" if halved else ""
    items.append(Item("trainable weights", n * weight - 2 * halved,
                      f"{n:,} parameters, {weight} bytes each: {how}{few}"))
    if copy:
        label = "32-bit master copy" if copy == 4 else "16-bit working copy"
        items.append(Item(label, n * copy, f"{copy} bytes for each trainable parameter"))
    items.append(Item("gradients", n * gradient - 2 * halved,
                      f"{gradient} bytes for each trainable parameter{few}"))
    items.append(_optimizer_item(counted, OPTIMIZERS[optimizer], states / 2, halved, few))
    return Bill(tuple(items), "activations, temporary buffers, fragmentation, the CUDA context")


def _optimizer_item(counted: Count, optimizer: Optimizer, width: float, halved: int,
                    few: str) -> Item:
    """What the optimizer keeps, each number in `width` bytes, of `halved` ones in half of them."""
    width = int(width)
    if not by_shape(optimizer):
        each = optimizer.moments * width
        more = f", {each} bytes for each trainable parameter{few}" * bool(each)
        return Item("optimizer state", each * counted.trainable - each * halved // 2,
                    optimizer.how + more)
    tensors = trained_tensors(counted)
    if sum(math.prod(shape) for shape, _, _ in tensors) != counted.trainable:
        raise ValueError(f"what {optimizer.label} keeps depends on the shapes of what is trained, "
                         f"and {counted.method} trains others than it saves, which are not known "
                         "here; take AdamW, Lion or SGD")
    return Item("optimizer state", sum(
        state_bytes(optimizer, shape, width // 2 if copied and halved else width, hidden)
        for shape, hidden, copied in tensors), optimizer.how)


def trained_tensors(counted: Count) -> list[tuple[tuple[int, ...], bool, bool]]:
    """Of each trained tensor: its shape, whether it may be a hidden layer's, whether it was the
    base model's.

    Embeddings and heads are no hidden layers. Only what is saved is known here.
    """
    model, prefix = counted.model, "" if counted.method == "full" else "base_model.model."
    outer = {prefix + m.weight_name for m in model.modules
             if m.kind == "embedding" or m.name == model.head or _is_inside(m, saved_heads(model))}
    return [(tuple(shape), name not in outer and "embedding" not in name.rpartition(".")[2],
             name in counted.base_tensors)
            for name, shape in counted.tensors.items() if name not in counted.frozen_tensors]


#: What several cards divide among them; all else each of them has whole.
SHARDINGS: dict[str, tuple[str, ...]] = {
    "ddp": (), "zero1": ("optimizer state", "32-bit master copy"),
    "zero2": ("optimizer state", "32-bit master copy", "gradients"),
    **dict.fromkeys(("zero3", "fsdp"), ("",)),  # every line
}


def bill_per_card(bill: Bill, cards: int, sharding: str = "ddp") -> Bill:
    """What of a :func:`memory_bill` each of several cards holds.

    With DDP each card has everything. ZeRO divides the optimizer's states (stage 1), the gradients
    as well (2), and all weights, frozen ones too (3) [Rajbhandari et al., 2020, section 5]; FSDP
    divides as stage 3 does, if it shards fully.
    """
    _positive("cards", cards)
    _one_of("sharding", sharding, SHARDINGS)
    if cards == 1:
        return bill
    divided = SHARDINGS[sharding]
    items = [replace(item, bytes=-(-item.bytes // cards), why=f"1/{cards} of: {item.why}")
             if "" in divided or item.label in divided else item for item in bill.items]
    return Bill(tuple(items), bill.leaves_out + ", what cards exchange: buckets of gradients" + (
        ", layers gathered from all cards" if "" in divided else ""))


def frozen_items(counted: Count, base: str = "bfloat16", *, prepared: bool = True) -> list[Item]:
    """The frozen weights' lines of the bill. Full fine-tuning has none.

    On a base in 4 or 8 bits PEFT's `prepare_model_for_kbit_training` casts every parameter that is
    not quantized (embeddings, norms, the head, stacked experts) from 16 to 32 bits: peft 0.21.2,
    utils/other.py, lines 204 to 209. That is how QLoRA is run, and the default here;
    `prepared=False` is a base that is trained on as it was loaded.
    """
    _one_of("base", base, BASE_FORMATS)
    frozen = max(0, counted.total - counted.trainable)
    if not frozen:
        return []
    width = 4 if base == "float32" else 2
    if base in ("float32", "bfloat16"):
        return [Item("frozen weights", frozen * width, f"{frozen:,} parameters in {base}")]
    weights = [math.prod(m.sizes) for m in quantized_modules(counted.model)]
    quantized, rest = sum(weights), frozen - sum(weights)
    rows = sum(m.out_features for m in quantized_modules(counted.model))
    if base == "int8":
        items = [Item("frozen weights, int8", quantized, f"{quantized:,} parameters, 1 byte each"),
                 Item("scales", 4 * rows, f"one 32-bit scale for each of {rows:,} output rows")]
    else:
        codes = sum(-(-n // 2) for n in weights)  # -(-a // b) rounds up
        blocks = [-(-n // _NF4_BLOCK) for n in weights]
        items = [Item("frozen weights, NF4", codes, f"{quantized:,} parameters, 4 bits each")]
        if base == "nf4":
            items.append(Item("scales", 4 * sum(blocks),
                              f"one 32-bit scale per {_NF4_BLOCK} weights"))
        else:
            second = sum(-(-count // _NF4_SECOND_BLOCK) for count in blocks)
            items.append(Item("scales, quantized again", sum(blocks) + 4 * second,
                              f"8 bits per {_NF4_BLOCK} weights, and 32 bits per "
                              f"{_NF4_SECOND_BLOCK} of these"))
    kept, width = ("float32", 4) if prepared else ("bfloat16", 2)
    return [*items, Item("frozen, not quantized", rest * width,
                         f"{rest:,} parameters in {kept}: embeddings, head, norms, biases")]


def quantized_modules(model: Model) -> list[Module]:
    """The linear layers that loading in 4 or 8 bits converts: all but the head."""
    heads = {model.head, *(name for names in _SAVED_HEADS.values() for name in names)}
    kept = FAMILIES[model.family].get("not_quantized", [])
    return [m for m in model.modules if m.is_linear and m.name != model.head
            and m.name.split(".")[0] not in heads and not matches(m.name, kept)]


class NotEstimated(ValueError):
    """What is asked for is right, and nothing here can estimate it."""


def activation_estimate(counted: Count, batch: int = 1, length: int = 512, *,
                        checkpointing: bool = False, attention: str = "flash",
                        base: str = "bfloat16") -> Bill:
    """What the forward pass keeps for the backward pass: an estimate, unlike everything else here.

    Frameworks decide for themselves what they keep. The rule here is for PyTorch without autocast,
    with a loss over all positions. Numbers have 16 bits on a 16-bit base; 32 on any other, since
    k-bit preparation leaves embeddings and norms in 32 bits (`base`: see :func:`frozen_items`),
    and all layers work on what these give. Always kept, because nonlinearities, attention and
    norms need them again: the outputs of the linear layers, the product inside a gated MLP, the
    input of every norm (RMSNorm's in 32 bits). Kept only where a weight trains: that layer's
    input; for LoRA in 32 bits on a 16-bit base, a copy in 32 bits for each layer. So a frozen
    weight saves something, but the gradient still passes through everything below it; that is
    why LoRA hardly shrinks this part, and with many targets on a 16-bit base enlarges it.
    Checkpointing does shrink it: it keeps each layer's input, and computes one layer at a time
    again.

    Attention that never writes out its weights ("flash") keeps one 32-bit number per head and
    token. "eager" attention keeps `heads * length` of them per token, and in its backward pass
    holds about four arrays of that shape at once. An activation function written out in
    elementary steps, like GPT-2's, keeps several times what a fused one does: there this is too
    low.

    With checkpointing the larger of two peaks counts, see `_kept_items`. `measured.py` compares
    all this with measured runs.

    Returns
    -------
    Bill
        Its `other_peak` has the bytes of the smaller peak, see :func:`overhead`.

    Raises
    ------
    ValueError
        A batch or length that is no positive whole number.
    NotEstimated
        A model of which :func:`why_not_estimated` says that what it keeps is not known.
    """
    if reason := why_not_estimated(counted.model):
        raise NotEstimated(f"activations of {counted.model.family} are not estimated: {reason}")
    tokens = _positive("batch", batch) * _positive("length", length)
    _one_of("attention", attention, ("flash", "eager"))
    _one_of("base", base, BASE_FORMATS)
    items, other_peak = _kept_items(counted, tokens, length, checkpointing, attention, base)
    known = f"what {counted.method} computes inside a module, " * (
        counted.method in {row.name for row in METHODS.values()})
    return Bill(tuple(items), f"{known}dropout masks, temporary buffers: this is an estimate",
                other_peak)


def _kept_items(counted: Count, tokens: int, length: int, checkpointing: bool, attention: str,
                base: str) -> tuple[list[Item], int]:
    """What is kept, item by item, and the bytes of the smaller of two peaks.

    The loss is where the logits weigh most. At its peak, in the backward pass of transformers'
    `ForCausalLMLoss`, there are four arrays of their shape: the logits themselves, in 16 bits from
    a 16-bit head; their log-softmax, its gradient and the gradient of their 32-bit copy, each in
    32 bits. That is 14 bytes for each logit, and 16 where the head is in 32 bits. Only the logits
    themselves are still there when the first layer is computed again, if the training loop holds
    the model's output: so of these two peaks the larger one counts, and the bill has it alone.
    """
    model = counted.model
    layers = sum(model.symbols.get(key, 0) for key in ("layers", "decoder_layers"))
    number, values = KEPT_BYTES["number"][base], _kept_by(counted, base)
    outside = kept_outside(model, base)
    scores = tokens * model["heads"] * (length if attention == "eager" else 1)
    attended = KEPT_BYTES["score"][base] if attention == "eager" else KEPT_BYTES["attended"]
    inside = round(tokens * number * values) + attended * scores * layers
    loss = KEPT_BYTES["logit"][base] * tokens * model["vocab"] if model.head else 0
    if not checkpointing:
        items = [Item("inside the layers", inside + outside * tokens,
                      f"{layers} layers, {inside / tokens / layers:,.0f} bytes per token each")]
        loss_alone, layer = True, 0
    else:
        items = [Item("layer inputs", tokens * (number * model["d"] * layers + outside),
                      f"{layers} layers, {model['d']} {8 * number}-bit numbers per token")]
        layer = inside // layers
        if attention == "eager":  # by then the MLP's half of the layer is gone
            layer = max(layer, KEPT_BYTES["score_peak"][base] * scores
                        + round(2 * tokens * values) // layers)
        held = number * tokens * model["vocab"] if model.head else 0
        loss_alone, layer = loss > held + layer, held + layer
    if not loss_alone:
        items.append(Item("one layer, recomputed", layer,
                          "while its backward pass runs" + ", and the logits" * bool(loss)))
    elif model.head:
        items.append(Item("logits and their gradient", loss,
                          f"{model['vocab']:,} per token, {KEPT_BYTES['logit'][base]} bytes each"))
    return items, min(loss, layer)


#: What a process takes of the card besides its tensors: bytes of the CUDA context, as measured on
#: a T4; shares of the tensors, and of the smaller of two peaks, fitted in `measured.py`.
OVERHEAD = {"context": 141 * 2**20, "tensors": 0.03, "other peak": 0.5}


def overhead(states: Bill, kept: Bill) -> Item:
    """What the process takes besides its tensors: the CUDA context, and what fragments.

    Blocks that PyTorch freed after one peak are often of the wrong size for the next, and the
    process keeps them. So it grows with the smaller peak of an :func:`activation_estimate`, and
    with all tensors a little. Measured on one card, with checkpointing; without it there is no
    second peak to count, and no run to compare with.
    """
    tensors = states.bytes + kept.bytes
    return Item("context and fragments", OVERHEAD["context"] + math.floor(  # as the page does
        OVERHEAD["tensors"] * tensors + OVERHEAD["other peak"] * kept.other_peak),
        "the CUDA context, and freed blocks not used again: fitted to measured runs")


#: By the format of the frozen weights: bytes of a number; of attention for each of eager's scores,
#: kept and at the peak of its backward pass; of each logit at the peak of its own. "attended": of
#: flash attention for each head, token and layer. "gated": layers of which a gated MLP keeps a
#: product besides, and how many times its width goes into theirs.
KEPT_BYTES: dict[str, Any] = {
    "number": {base: 2 if base == "bfloat16" else 4 for base in BASE_FORMATS},
    "score": {base: 6 if base == "bfloat16" else 4 for base in BASE_FORMATS},
    "score_peak": {base: 14 if base == "bfloat16" else 16 for base in BASE_FORMATS},
    "logit": {base: 14 if base == "bfloat16" else 16 for base in BASE_FORMATS},
    "attended": 4, "gated": {"gate_proj": 1, "wi_0": 1, "gate_up_proj": 2, "Wi": 2},
}


def why_not_estimated(model: Model) -> str:
    """Why the activations of a model are not estimated; empty if they are.

    The tower of a model of several parts reads patches, not the tokens that are counted here;
    linear attention keeps states; of experts, those count that a token meets.
    """
    table = FAMILIES[model.family]
    if parts := table.get("parts"):
        return _NOT_ESTIMATED["parts"].format(named=", ".join(parts))
    if lists := table.get("lists"):
        return _NOT_ESTIMATED["lists"].format(named=", ".join(lists))
    if any(".experts." in m.name for m in model.modules) and "active" not in model.symbols:
        return _NOT_ESTIMATED["active"]
    return ""


def kept_per_token(model: Model,
                   base: str = "bfloat16") -> tuple[int, list[tuple[list[str], int]]]:
    """What all layers together keep of each token, in numbers, without attention's own.

    How wide a number is depends on `base`, see `KEPT_BYTES`.

    Returns
    -------
    int
        What is kept whatever trains.
    list of (names of modules, numbers)
        An input that is kept once if any of these trains: q, k and v have the same.
    """
    inside = [m for m in model.modules if re.search(r"\.\d+\.", m.name)]
    # Not every family's table names the width of its MLP.
    ff = model.symbols.get("ff") or max(m.sizes[0] for m in inside if m.is_linear)
    experts = {m.sizes[0] for m in inside if ".experts." in m.name}
    always = 0
    inputs: dict[tuple[str, int], tuple[list[str], int]] = {}
    for m in inside:
        parent, _, leaf = m.name.rpartition(".")
        if m.is_linear:
            n_in, n_out = m.sizes
            if n_in != ff:  # the MLP's last output is only added to the residual stream
                always += n_out
            if leaf in KEPT_BYTES["gated"]:  # a product of two outputs, which may lie in one
                always += n_out // KEPT_BYTES["gated"][leaf]
            inputs.setdefault((parent, n_in), ([], n_in))[0].append(m.name)
        elif m.kind == "norm":
            always += _norm_bytes(m, base) // KEPT_BYTES["number"][base]
            inputs[m.name, 0] = [m.name], m.out_features
        elif ".experts." in m.name and leaf.endswith("_proj"):  # each token meets `active` of them
            width = math.prod(m.sizes[1:]) // model["d"]  # inside an expert; twice for gate and up
            if leaf == "gate_up_proj":
                always += model["active"] * 3 * width // 2  # gate, up and their product
            inputs[m.name, 0] = [parent], model["active"] * (
                width if leaf == "down_proj" else model["d"])
        elif m.sizes[0] in experts and len(m.sizes) == 2 and leaf == "weight":  # the router
            always += m.sizes[0]
    return always, list(inputs.values())


def _norm_bytes(norm: Module, base: str = "bfloat16") -> int:
    """Bytes of a norm's input for each token. RMSNorm's is in 32 bits."""
    return norm.out_features * (KEPT_BYTES["number"][base] if norm.bias else 4)


def kept_outside(model: Model, base: str = "bfloat16") -> int:
    """Bytes for each token that norms outside the layers keep."""
    return sum(_norm_bytes(m, base) for m in model.modules
               if m.kind == "norm" and not re.search(r"\.\d+\.", m.name))


def _kept_by(counted: Count, base: str) -> float:
    """The numbers of :func:`kept_per_token` that are kept where this trains, and LoRA's own."""
    always, inputs = kept_per_token(counted.model, base)
    # What trains; a bias needs no input. A LoRA on stacked experts lies on the module around them.
    trained = {path for name in counted.tensors if not name.endswith("bias")
               for path in _roots(name.removeprefix("base_model.model."))}
    down = [name for name in counted.tensors if ".lora_A" in name]
    own = 4 // KEPT_BYTES["number"][base] if down else 1  # PEFT's copies in 32 bits
    kept = 0
    for names, numbers in inputs:
        of = len(trained.intersection(names))
        kept += numbers * (own * (of if own > 1 else min(of, 1)) if counted.method != "full" else 1)
    share = {m.name.rpartition(".")[0]: counted.model["active"] / m.sizes[0]
             for m in counted.model.modules if ".experts." in m.name}
    between = 0.0  # LoRA's inner numbers; of experts, those of the active ones
    for name in down:
        around = share.keys() & _roots(name.removeprefix("base_model.model."))
        between += counted.tensors[name][0] * min((share[path] for path in around), default=1)
    return always + kept + own * between


# -------------------------------------------------------------------------------------- saved files

# In the order in which the file has them.
_SAFETENSORS_DTYPES = {"float32": ("F32", 4), "int32": ("I32", 4), "bfloat16": ("BF16", 2),
                       "float16": ("F16", 2)}


def saved_bytes(counted: Count, dtype: str = "float32", base_dtype: str | None = None) -> int:
    """Size in bytes of the saved adapter, exact to the file `adapter_model.safetensors`.

    Parameters
    ----------
    dtype : {"float32", "bfloat16", "float16"}
        Of the numbers that the method adds. PEFT keeps them in 32 bits on a base in 16 bits, too.
    base_dtype : str, optional
        Of what is copied from the base model, and of its biases: PEFT leaves it as it is. The
        same as `dtype` if not given.

    The format is 8 bytes of length, a JSON header that names each tensor's type, shape and place,
    padded with spaces to a multiple of 8, then the numbers. So long names cost bytes: see
    :func:`safetensors_header`. The small adapter_config.json beside it is not included.
    """
    for each in (dtype, base_dtype or dtype):
        _one_of("dtype", each, [name for name in _SAFETENSORS_DTYPES if name != "int32"])
    dtypes = dict.fromkeys(counted.base_tensors, base_dtype or dtype) | dict.fromkeys(
        counted.integer_tensors, "int32")
    header = safetensors_header(counted.tensors, dtype, dtypes)
    return 8 + len(header) + sum(
        math.prod(shape) * _SAFETENSORS_DTYPES[dtypes.get(name, dtype)][1]
        for name, shape in counted.tensors.items())


def safetensors_header(tensors: Mapping[str, Sequence[int]], dtype: str = "float32",
                       dtypes: Mapping[str, str] | None = None) -> bytes:
    """The JSON header that PEFT's file has for tensors of these names and shapes.

    `dtypes` has the names whose dtype is another one. The widest numbers come first in the file.
    """
    of = {name: (dtypes or {}).get(name, dtype) for name in tensors}
    for each in {dtype, *of.values()}:
        _one_of("dtype", each, _SAFETENSORS_DTYPES)
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    order = list(_SAFETENSORS_DTYPES)
    for name in sorted(tensors, key=lambda name: (order.index(of[name]), name)):
        code, width = _SAFETENSORS_DTYPES[of[name]]
        start, end = end, end + width * math.prod(tensors[name])
        entries[name] = {"dtype": code, "shape": list(tensors[name]), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return header + b" " * (-len(header) % 8)


# ---------------------------------------------------------------------------------- command line

# method -> the function that counts it, the option that sets its size, the argument it goes to
_METHODS: dict[str, tuple[Any, str, str]] = {
    "full": (count_full, "", ""), "lora": (count_lora, "rank", "rank"),
    **{name: (partial(count_method, method=name), "rank", next(
        (setting for setting in row.settings if setting.endswith("rank")), ""))
       for name, row in METHODS.items()},
    "ia3": (count_ia3, "", ""), "ln-tuning": (count_ln_tuning, "", ""),
    "prefix": (count_prefix, "tokens", "num_virtual_tokens"),
    "prompt": (count_prompt, "tokens", "num_virtual_tokens"),
    "p-tuning": (count_p_tuning, "tokens", "num_virtual_tokens"),
    "adapters": (count_adapters, "bottleneck", "bottleneck"),
}
_TARGETED = ("lora", *METHODS, "ln-tuning")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m real_models.accounting",
                                     description="Parameters, memory and file size of a method "
                                     "on the model that a Hugging Face config.json describes.",
                                     epilog=f"PEFT's other methods are not counted: "
                                     f"{', '.join(NOT_COVERED).lower()}.")
    parser.add_argument("config", help="path of the config.json")
    parser.add_argument("--method", choices=_METHODS, default="lora")
    for size in ("rank", "tokens", "bottleneck"):
        methods = ", ".join(name for name, (_, option, at) in _METHODS.items()
                            if option == size and at)
        parser.add_argument(f"--{size}", type=int, help=f"of {methods}")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[],
                        help="other settings of a method, by PEFT's names: oft_block_size=64")
    parser.add_argument("--targets", nargs="+", metavar="MODULE",
                        help="names, or all-linear; by default PEFT's for the family")
    parser.add_argument("--task", help="CAUSAL_LM, SEQ_CLS, …; by default the class's in the file")
    parser.add_argument("--base", choices=BASE_FORMATS, default="bfloat16",
                        help="format of the frozen weights")
    parser.add_argument("--convention", choices=CONVENTIONS, default="fp32",
                        help="how trainable parameters are kept")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--batch", type=int, default=1, help="sequences, on each card")
    parser.add_argument("--length", type=int, default=512, help="tokens of each sequence")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--cards", type=int, default=1, help="how many cards train together")
    parser.add_argument("--sharding", choices=SHARDINGS, default="ddp",
                        help="what the cards divide among them")
    return parser


def _options(given: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The arguments of the method's function; what it does not have ends the program."""
    _, size, name = _METHODS[given.method]
    options: dict[str, Any] = {}
    for option in ("rank", "tokens", "bottleneck"):
        if (value := getattr(given, option)) is not None:
            if option != size or not name:
                parser.error(f"{given.method} has no --{option}")
            options[name] = value
    for setting in given.set:
        key, equals, value = setting.partition("=")
        if not equals or given.method not in METHODS:
            parser.error(f"--set takes NAME=VALUE, of {', '.join(METHODS)}; got {setting!r}")
        try:
            options[key] = json.loads(_NAMES.get(value, value))
        except ValueError:
            options[key] = value
    if given.targets:
        if given.method not in _TARGETED:
            parser.error(f"--targets are for {', '.join(_TARGETED)}, not {given.method}")
        everything = len(given.targets) == 1 and given.targets[0].lower() == "all-linear"
        options["target_modules"] = "all-linear" if everything else given.targets
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Count a method on a config.json and print its parameters, memory and file size."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = _options(given, parser)
    try:
        model = read_model(given.config, given.task)
        counted = _METHODS[given.method][0](model, **options)
        bill = bill_per_card(memory_bill(counted, convention=given.convention, base=given.base,
                                         optimizer=given.optimizer), given.cards, given.sharding)
        activations: Bill | NotEstimated = activation_estimate(
            counted, given.batch, given.length, base=given.base,
            checkpointing=given.checkpointing)
    except NotEstimated as reason:
        activations = reason
    except (OSError, TypeError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print(f"{model.family}, {model.task}: {model.num_parameters:,} parameters", counted, "",
          *[f"on each of {given.cards} cards ({given.sharding})"] * (given.cards > 1), bill, "",
          f"activations of {given.batch} x {given.length} tokens, an estimate",
          activations, "", sep="\n")
    if isinstance(activations, Bill):
        more = overhead(bill, activations)
        print(f"{more.label}, an estimate: {more.bytes / GB:.3f} GB: {more.why}", "", sep="\n")
    half = given.base == "bfloat16"
    print(f"saved file: {saved_bytes(counted, base_dtype='bfloat16' if half else None):,} bytes")


if __name__ == "__main__":
    main()
