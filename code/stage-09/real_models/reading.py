"""What model a Hugging Face `config.json` describes: its modules, their sizes, what was assumed.

All that is known here about architectures is the table in `families.py`. What it does not cover is
refused by name, or read with a note that says what was assumed. `accounting.py` counts what this
module reads.

    model = read_model(json.load(open("config.json")))
    model.num_parameters
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from real_models.bases import Stored, read_stored, stacked_experts
from real_models.families import BARE, FAMILIES, MISSING
from real_models.patterns import fullmatch
from real_models.rules import SAVED_HEADS, evaluate, is_whole, positive

VOCABULARY_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "MASKED_LM", "PRE_TRAINING", "IMAGE_TEXT",
                     "SPEECH_TEXT")


# --------------------------------------------------------------------------- reading a config.json


# A text's tokens, and what is no JSON in it: single quotes, Python's names, a comma at the end.
# A text without its end reaches to the end: else each quote in it would be tried in its turn.
_TOKENS = re.compile(
    r"""(["'])(?:(?!\1)[^\\]|\\[\s\S]?)*(?:\1|\Z)|,(?=\s*[}\]])|-?\b[A-Za-z][\w.]*""")
LONGEST_CONFIG = 100_000  # characters, as in model_config.js
NAMES = {"True": "true", "False": "false", "None": "null"} | dict.fromkeys(
    ("NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"), '"not finite"')  # so it is no size
_BLANK = re.compile("[\u00a0\u200b-\u200d\u2028\u2029\u2060\ufeff]")  # what pages copy besides
# What a file is instead, by a key that it has, where model_type is missing.
OTHER_FILES = [
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
        return "" if token == "," else NAMES.get(token, token)

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


LARGEST_SIZE = 100_000_000  # of one dimension, and
MOST_MODULES = 100_000  # in all: a lying file must not eat the memory


def _resolve(rule: str, known: Mapping[str, int], config: Mapping[str, Any], family: str,
             assumed: dict[str, int]) -> int:
    """The first alternative of a symbol's rule that the config, or what is known of it, answers.

    A default of the family's class stands in for a key that the file leaves out, and is noted in
    `assumed`.
    """
    optional = "?" in rule  # 0 and null mean that there is none, and so may -1
    none = [-1] if "?-1" in rule else []
    alternatives = [alternative.strip()
                    for alternative in rule.replace("?-1", "").replace("?", "").split("|")]
    defaults = FAMILIES[family]["defaults"]
    given = config.keys() & {alternative.partition("~")[0] for alternative in alternatives}
    for alternative in alternatives:
        key, test, prefix = alternative.partition("~")
        if key in known and not test:
            return known[key]  # a symbol of the table, whatever the file may call by its name
        if config.get(key) is not None:
            value = config[key]
            if test:
                return _is_so(key, value, prefix)
            if value in none:
                return 0
            if isinstance(value, float) and value.is_integer():  # 768.0, as some tools write it
                value = int(value)
            if alternatives[-1] in ("0", "1"):  # a flag: its default says so
                if value not in (0, 1):
                    raise ValueError(f"config.json: {key} must be true or false, got {value!r:.80}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1 - optional:
                raise ValueError(f"config.json: {key} must be a positive integer, "
                                 f"got {value!r:.80}")
            if int(value) > LARGEST_SIZE:
                raise ValueError(f"config.json: {key} is larger than {LARGEST_SIZE:,}, "
                                 "which no model is; correct the file")
            return int(value)
        if key in defaults and not given:
            assumed |= {} if test else {key: defaults[key]}
            return defaults[key]
        names = set(re.findall(r"[A-Za-z_]\w*", alternative))
        if not test and names <= known.keys():
            return evaluate(alternative, known)
    if optional:
        return 0
    raise ValueError(
        f"config.json: a {family} model needs {' or '.join(alternatives)}, and it is missing; "
        f"the keys given are {', '.join(sorted(map(str, config))) or 'none'}")


def _is_so(key: str, value: Any, test: str) -> int:
    """Whether the value of a key is what stands behind `~` in a rule."""
    if test == ">":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"config.json: {key} must be a number, got {value!r:.80}")
        return int(value > 0)
    return int(test[1:] in str(value) if test.startswith("*") else str(value).startswith(test))


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
    def is_convolution(self) -> bool:
        return self.kind == "stack" and self.name.endswith(".weight") and len(self.sizes) > 2

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
    stored: Stored | None = field(default=None, repr=False)  # the base "file" of bases.py
    # What the file says, parts as `part.key`.
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def num_parameters(self) -> int:
        """Parameters of the model, shared ones counted once."""
        return sum(module.num_parameters for module in self.modules)

    @cached_property
    def head(self) -> str | None:
        """Path of the language-model head, which `all-linear` and 4-bit loading leave alone."""
        if self.task not in VOCABULARY_TASKS:
            return None
        wide = [m.name for m in self.modules if m.is_linear and m.out_features == self["vocab"]]
        return wide[-1] if wide else None  # ELECTRA is pre-trained to tell words from words

    @cached_property
    def embedding(self) -> str | None:
        """Path of the tokens' embedding, if transformers says where it is."""
        if FAMILIES[self.family].get("no_embeddings"):
            return None
        return next((m.name for m in self.modules if m.kind == "embedding"
                     and m.sizes[0] == self.symbols.get("vocab")), None)

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
    family, table, config = _table_of(_content(config))
    task = task or _task_of(config, table)
    if task not in table["heads"] and task != "FEATURE_EXTRACTION":
        raise ValueError(f"{family} has no head for task {task!r}; it has "
                         f"{', '.join(table['heads'])} and FEATURE_EXTRACTION (none)")
    names = {} if config.get("id2label") is None else config["id2label"]
    if not isinstance(names, Mapping):
        raise ValueError(f"config.json: id2label must be an object, got {names!r:.80}")
    usual = table["defaults"].get("num_labels", 2)
    labels = num_labels or config.get("num_labels") or len(names) or usual
    symbols = {"labels": positive("num_labels", int(labels) if is_whole(labels) else labels)}
    assumed: dict[str, int] = {}
    for line in table["symbols"].strip().splitlines():
        symbol, rule = line.split("=", 1)
        symbols[symbol.strip()] = _resolve(rule, symbols, config, family, assumed)
    _check_fits(table, symbols, config)
    lists = {name: _listed(rule, symbols["layers"], config, family)
             for name, rule in table.get("lists", {}).items()}

    head = []
    for line in map(str.strip, table["heads"].get(task, "").splitlines()):
        if " = " in line:
            symbol, value = line.split(" = ")
            symbols[symbol] = int(value)
        elif not line.startswith("root "):
            head.append(line)
    outer, inner = outer_names(table, task)
    modules = [replace(m, name=inner + m.name[len(outer):]) if m.name.startswith(outer) else m
               for m in _expand(table["modules"] + "\n" + "\n".join(head), symbols, lists)]
    model = Model(family, task, symbols, tuple(modules), name, config=config)
    stored, method, why = read_stored(model, config.get("quantization_config"))
    found = {"assumed": assumed, "method": method, "why": why, "stored": stored}
    return replace(model, stored=stored, notes=_notes(model, table, found))


def _check_fits(table: Mapping[str, Any], symbols: Mapping[str, int],
                config: Mapping[str, Any]) -> None:
    """Sizes that do not fit one another, of which transformers builds no model."""
    for rule in table.get("fits", []):
        size, sign, other, usual = re.fullmatch(
            r"(.*) ([/=]) ([\w.]+)(?: \| (\d+))?", rule).groups()
        given = symbols.get(other, int(other) if other.isdigit() else config.get(other))
        if given is None and usual and config.get(other.partition(".")[0]) is not None:
            given = int(usual)
        if not is_whole(given):
            continue
        found = evaluate(size, symbols)
        if found % given if sign == "/" else found != given:
            must = "a multiple of" if sign == "/" else "equal to"
            raise ValueError(f"config.json: {size} must be {must} {other}, as transformers asks; "
                             f"got {found} and {given}")
    key = "text_config.layer_types" if "text_config" in table.get("parts", []) else "layer_types"
    kinds, layers = config.get(key), symbols["layers"]
    counted = key in (rule["key"] for rule in table.get("lists", {}).values())  # checked there
    if isinstance(kinds, list) and len(kinds) != layers and not counted:
        raise ValueError(f"config.json: {key} lists {len(kinds)} layers, and the model has "
                         f"{layers}; transformers refuses that")


def outer_names(table: Mapping[str, Any], task: str) -> tuple[str, str]:
    """How paths begin in the table, up to the first dot, and how they do in the class of a task:
    the bare model has no outer `model.`, `bert.`, …
    """
    outer = table["modules"].split(".")[0].strip() + "."
    root = re.search(r"^\s*root (\S+)", table["heads"].get(task, ""), re.MULTILINE)
    if " " in outer:  # T5's
        return "", ""
    return outer, "" if task == "FEATURE_EXTRACTION" else f"{root[1]}." if root else outer


def with_braces(path: str) -> str:
    """A path with `{}` for each number."""
    return ".".join("{}" if part.isdigit() else part for part in path.split("."))


def bare_modules(model: Model) -> list[str]:
    """The paths of the modules without parameters, as far as they are known: see `families.py`."""
    outer, inner = outer_names(FAMILIES[model.family], model.task)
    texts = BARE.get(model.family, {})
    leaves: dict[str, list[tuple[str, str]]] = {}
    for entry in f"{texts.get('', '')} {texts.get(model.task, '')}".split():
        path, _, beside = entry.partition(":")
        path = inner + path.removeprefix(outer) if path.startswith(outer) else path
        parent, _, leaf = path.rpartition(".")
        leaves.setdefault(parent, []).append((leaf, beside))
    places = dict.fromkeys(["", *(path for m in model.modules for path in paths_to(m.name))])
    found = dict.fromkeys(places)
    for _ in range(3):  # what these hold may be without parameters, too
        found |= {f"{place}.{leaf}".lstrip("."): None for place in list(found)
                  for leaf, beside in leaves.get(with_braces(place), [])
                  if not beside or f"{place}.{beside}" in places}
    return [path for path in found if path not in places]


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


#: What layers were called before transformers 5, which reads the old names, too.
OLD_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}


def _listed(rule: Mapping[str, Any], layers: int, config: Mapping[str, Any],
            family: str) -> list[str]:
    """What kind each layer is of, by a list in the file or by the interval that stands for one."""
    key = rule["key"]
    kinds = config.get(key)
    if "numbers" in rule and (rule["numbers"][0] == key if kinds is not None
                              else "every" not in rule):
        kinds = _numbered(*rule["numbers"], layers, config, family)
    if kinds is None and "every" in rule:
        name, usual, most, some = rule["every"]
        interval = positive(f"config.json: {name}", config.get(name, usual))
        key, at, *count = rule.get("offset", ("", interval - 1))
        if not is_whole(at := config.get(key, at), 0, interval):
            raise ValueError(f"config.json: {key} must be a whole number below {name}, which is "
                             f"{interval}, got {at!r:.80}")
        _check_layers(layers)
        few = count and config.get(*count) == 1
        kinds = [some if i % interval == at and not few else most for i in range(layers)]
    if isinstance(kinds, list):
        kinds = [OLD_KINDS.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
    if not isinstance(kinds, list) or len(kinds) != layers or not all(
            kind in rule["kinds"] for kind in kinds):
        raise ValueError(f"config.json: {key} of a {family} model must be a list of {layers} "
                         f"(num_hidden_layers), each {' or '.join(rule['kinds'])}, got "
                         f"{kinds!r:.80}")
    return [*kinds[:-1], rule["last"]] if "last" in rule else kinds


def _check_layers(layers: int) -> None:
    if layers > MOST_MODULES:  # a list of them all would fill the memory
        raise ValueError(f"config.json: num_hidden_layers is larger than {MOST_MODULES:,}, "
                         "which no model has; correct the file")


def _numbered(key: str, others: str, listed: str, usual: list[int] | None, layers: int,
              config: Mapping[str, Any], family: str) -> list[str]:
    """What kind each layer is of, by a list of the numbers of some; without it, by the usual."""
    _check_layers(layers)
    numbers = config.get(key)
    if numbers is None:
        numbers = range(layers) if usual is None else usual
    elif not isinstance(numbers, list) or not all(is_whole(number, 0) for number in numbers):
        raise ValueError(f"config.json: {key} of a {family} model must be a list of the numbers of "
                         f"layers, got {numbers!r:.80}")
    some = set(numbers)  # a long list, looked through for each layer, would take minutes
    return [listed if i in some else others for i in range(layers)]


def _table_of(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """A configuration's family and its table, if that covers all of what the file describes, and
    the file with the keys of its parts as `part.key`.
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
    if not known and isinstance(family, str) and family in MISSING:
        raise ValueError(f"config.json: model_type {family!r} is not counted: {MISSING[family]}")
    parts = [key for key in config if key in TOWERS and key not in inside
             and isinstance(config[key], (Mapping, str))]
    if parts:
        inner = config.get("text_config")
        alone = isinstance(inner, Mapping) and inner.get("model_type") in FAMILIES
        raise ValueError(
            f"config.json: model_type {family!r:.60} with parts of its own ({', '.join(parts)}) "
            "is not known here, and PEFT adapts modules of the same names in all parts"
            + ("; pass config['text_config'] to count its language model without the others"
               * alone))
    if not known:
        what = next((what for key, what in OTHER_FILES if key in config), "")
        if what and family is None:
            raise ValueError(f"this is {what}, and no config.json: model_type is missing")
        missing = "config.json: model_type is missing" if family is None else (
            f"config.json: model_type {family!r:.60} is not a family this module knows")
        raise ValueError(f"{missing}. It knows {', '.join(FAMILIES)}")
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and f"{family}/{inner.get('model_type')}" in FAMILIES:
        family += f"/{inner['model_type']}"
    table = FAMILIES[family]
    for part in inside:
        found = {} if config.get(part) is None else config[part]
        if table.get("replaced") and config.get(f"{part}_dict") is not None:
            found = config[f"{part}_dict"]
        if not isinstance(found, Mapping):
            raise ValueError(f"config.json: {part} must be an object, got {found!r:.80}")
        if config.get(part) is None and table.get("flat") == part and "hidden_size" in config:
            found = {key: value for key, value in config.items()
                     if "." not in str(key) and key not in (*inside, *OUTER_KEYS)}
        if part in ("text_config", *table.get("needs", [])) and not found:
            raise ValueError(f"config.json: a {family} model needs {part}, and it is missing")
        config = {**config, **{f"{part}.{key}": value for key, value in found.items()}}
    config = _plain(config, table)
    foreign = [entry for entry in own_code(config)
               if entry.split("--")[-1] not in table.get("own_code", [])]
    if foreign:
        raise ValueError("config.json: auto_map names code of its own "
                         f"({', '.join(foreign):.160}); what that builds is not known here. "
                         f"If it is transformers' {family} after all, remove auto_map")
    for key, counted in table.get("only", {}).items():
        if config.get(key) is not None and config[key] not in counted:
            raise ValueError(f"config.json: {key} is {config[key]!r:.60}; only "
                             f"{' or '.join(map(repr, counted))} is counted for {family}")
    return family, table, config


def _plain(config: Mapping[str, Any], table: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file says in ways of its own, as most files say it: see `families.py`."""
    config = {key: None if value == "auto" and key in table.get("auto", []) else value
              for key, value in _renamed(config, table.get("aliases", {})).items()}
    if letters := table.get("letters"):
        config |= _spelt(config, **letters)
    for key in table.get("alike", []):
        widths = config.get(key)
        layers = config.get("num_hidden_layers", table["defaults"]["num_hidden_layers"])
        if isinstance(widths, list):
            if not widths or len(widths) != layers or widths != len(widths) * widths[:1]:
                raise ValueError(f"config.json: a list for {key} is counted only if it says the "
                                 f"same of each of {layers!r:.20} layers (num_hidden_layers), got "
                                 f"{widths!r:.80}")
            config[key] = widths[0]
    if table.get("overrides", {}).get("key") in config:
        config = _overridden(config, table["overrides"])
    return config


def _renamed(config: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """The file with the keys' own names. Another name wins, as transformers sets it last."""
    renamed = dict(config)
    for alias, value in config.items():
        if alias in aliases:
            key, *before = aliases[alias]
            missing = [name for name in before if config.get(name) is None]
            if missing and value != config.get(key):
                raise ValueError(f"config.json: {alias} is another name of {key}, and transformers "
                                 f"reads it only after it has made {missing[0]} of {key}; give "
                                 f"{missing[0]} as well, or rename {alias} to {key}")
            renamed[key] = value
    return renamed


def _spelt(config: Mapping[str, Any], key: str, lists: Sequence[str], kinds: Mapping[str, str],
           usual: list[str]) -> dict[str, Any]:
    """The layers' kinds by a letter for each, and how many that makes, whatever else the file says.
    """
    listed = next((config[name] for name in lists if config.get(name) is not None), None)
    if listed is None and key in config:
        text = config[key]
        if not isinstance(text, str) or not kinds.keys() >= set(text):
            raise ValueError(f"config.json: {key} must be a text of the letters "
                             f"{' '.join(kinds)}, got {text!r:.80}")
        listed = [kinds[letter] for letter in text]
    listed = usual if listed is None else listed
    return {lists[0]: listed, "num_hidden_layers": len(listed) if isinstance(listed, list) else 0}


def _overridden(config: Mapping[str, Any], rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file says of its layers one by one, as the keys that say it of all of one kind."""
    key, listed, kind, keys = (rule[name] for name in ("key", "list", "kind", "keys"))
    found, kinds = config[key], config.get(listed)
    found = found if isinstance(found, Mapping) else {}
    said = [*found.values()]
    numbers = sorted(int(n) if re.fullmatch("[0-9]{1,6}", str(n)) else -1 for n in found)
    if not (said and isinstance(kinds, list) and isinstance(said[0], Mapping)
            and all(each == said[0] for each in said)
            and numbers == [i for i, each in enumerate(kinds) if each == kind]
            and all(name in keys and all(map(config.get, keys[name][1:])) for name in said[0])):
        raise ValueError(f"config.json: {key} is counted only if it says the same of each layer "
                         f"that is {kind} in {listed}, and nothing but {', '.join(keys)}")
    return {**config, **{to: said[0].get(name) for name, (to, *_) in keys.items()}}


def own_code(config: Mapping[str, Any]) -> list[str]:
    """The entries of auto_map that build the model; those that read texts and pictures do not."""
    own = config.get("auto_map") or {}
    return [str(own)] if not isinstance(own, Mapping) else [
        str(entry) for key, entry in own.items() if not READS.search(str(key))]


#: What stands outside of its parts in every file, also where nothing else is inside of them.
OUTER_KEYS = ("model_type", "architectures", "auto_map", "quantization_config",
              "tie_word_embeddings")
READS = re.compile("Tokenizer|Processor|FeatureExtractor")
TOWERS = ("text_config", "vision_config", "audio_config", "speech_config", "encoder", "decoder",
           "mm_vision_tower")


NOTES = {
    "experts": "The experts are stacked as in transformers 5: bitsandbytes does not quantize them. "
               "Transformers 4 had a linear layer for each.",
    "assumed": "Not in the file, so taken from transformers' defaults for {family}: {taken}.",
    "stored": "The file says that its weights are quantized ({method}): a base as the file says "
              "counts them so, any other as if not.",
    "quantization_config": "The file says that its weights are quantized ({method}), and {why} is "
                           "not known here; counted as if not.",
    "auto_map": "auto_map names code of its own; counted is what transformers builds without it.",
}


def _notes(model: Model, table: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """What one must know of a model that was read: assumptions, and what the file has besides."""
    config = model.config
    taken = ", ".join(f"{key} = {value}" for key, value in found["assumed"].items())
    quantized = NOTES["stored" if found["stored"] else "quantization_config"]
    notes = {table.get("note", ""): "note" in table,
             NOTES["experts"]: any(stacked_experts(model)),
             NOTES["assumed"].format(family=model.family, taken=taken): taken,
             quantized.format(**found): config.get("quantization_config"),
             NOTES["auto_map"]: own_code(config)}
    return tuple(note for note, there in notes.items() if there)


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
        sizes = tuple(evaluate(word, symbols) for word in rest if _is_size(word))
        options = dict(word.partition(":")[::2] for word in rest if not _is_size(word))
        if not _flag(options.get("if", "1"), symbols):
            continue
        bias = "bias" in options and _flag(options["bias"] or "1", symbols)
        tied = "tied" in options and _flag(options["tied"], symbols)
        repeats = [_span(count, symbols, lists) for count in re.findall(r"{([^}]*)}", path)]
        if len(modules) + math.prod(map(len, repeats)) > MOST_MODULES:
            raise ValueError(f"config.json: with those called {path} that makes more than "
                             f"{MOST_MODULES:,} modules, which no model has; correct the file")
        template = re.sub(r"{[^}]*}", "{}", path)
        modules += [Module(template.format(*at), kind, sizes, bias, tied)
                    for at in product(*repeats)]
    return modules


def _span(count: str, symbols: Mapping[str, int],
          lists: Mapping[str, list[str]]) -> Sequence[int]:
    """The numbers of `{stop}`, `{start:stop}`, `{list=kind}` or `{list=kind:stop}` in a path."""
    if "=" in count:
        name, kind, stop = re.split("[=:]", f"{count}:layers")[:3]
        return [i for i, each in enumerate(lists[name][:symbols[stop]]) if each == kind]
    start, stop = (evaluate(part or "0", symbols) for part in count.rpartition(":")[::2])
    if start > stop or (":" in count and stop > symbols["layers"]):
        raise ValueError(f"config.json: {count} are layers {start} to {stop}, and the model has "
                         f"{symbols['layers']}; correct the file")
    return range(start, stop)


def _is_size(word: str) -> bool:
    return ":" not in word and word != "bias"


def _flag(expression: str, symbols: Mapping[str, int]) -> bool:
    return bool(evaluate(expression, symbols))


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


def is_inside(path: str, names: Sequence[str]) -> bool:
    """Is this one of the modules that PEFT does not adapt, because these are trained whole?"""
    return any(fullmatch(rf"(?:.*\.)?({name})(?:\..*)?", path) for name in names)


def saved_heads(model: Model) -> list[str]:
    """The names of what PEFT trains whole by itself, for the model's task."""
    return SAVED_HEADS.get(model.task, [])


def paths_to(path: str) -> list[str]:
    """The modules that contain a module, from the outside in, and itself."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
