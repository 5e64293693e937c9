"""How many parameters, how much memory, how large a file: exact answers for real models.

A model is read from its Hugging Face `config.json` by `reading.py`. All that is known of
architectures is the table in `families.py`: which modules a family has and how wide they are. Every
count below is derived from it. What the table does not cover is refused by name, or counted with a
note that says what was assumed. Memory in training is in `memory.py`, how a base is stored in
`bases.py`, what serving takes in `serving.py`. Only the standard library is needed, and nothing is
ever downloaded.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from real_models.bases import (
    BASE_FORMATS,
    FORMATS,
    GB,
    QUANTIZED,
    Item,
    NotStored,
    frozen_items,
    is_narrow,
    quantized_modules,
    why_not_stored,
)
from real_models.count import Count
from real_models.families import FAMILIES
from real_models.memory import (
    CONVENTIONS,
    KEPT_BYTES,
    NOT_ESTIMATED,
    OVERHEAD,
    SHARDINGS,
    Bill,
    NotEstimated,
    activation_estimate,
    bill_per_card,
    kept_base,
    kept_outside,
    kept_per_token,
    memory_bill,
    overhead,
    trained_tensors,
    why_not_estimated,
)
from real_models.methods import LN_TARGETS, LORA_ELSEWHERE, METHODS, NOT_COVERED, Method
from real_models.optimizers import OPTIMIZERS
from real_models.patterns import SECONDS, ends, fullmatch, within
from real_models.reading import (
    LONGEST_CONFIG,
    NAMES,
    Model,
    Module,
    bare_modules,
    is_inside,
    known_models,
    load_model,
    outer_names,
    parse_config,
    read_model,
    paths_to,
    saved_heads,
    with_braces,
)
from real_models.rules import matches, one_of, positive
from real_models.serving import cache_bytes, serving_bill

#: What others take from here besides: one place for all that is counted.
__all__ = [
    "BASE_FORMATS",
    "LONGEST_CONFIG",
    "FORMATS",
    "GB",
    "Item",
    "KEPT_BYTES",
    "NOT_ESTIMATED",
    "NotStored",
    "bare_modules",
    "outer_names",
    "with_braces",
    "OVERHEAD",
    "QUANTIZED",
    "frozen_items",
    "is_narrow",
    "kept_base",
    "kept_outside",
    "kept_per_token",
    "cache_bytes",
    "known_models",
    "load_model",
    "parse_config",
    "quantized_modules",
    "trained_tensors",
    "why_not_estimated",
    "why_not_stored",
]

# ----------------------------------------------------------- which modules does a name mean? (PEFT)

Targets = str | Sequence[str] | None


def _check_patterns(name: str, *targets: Targets) -> None:
    for pattern in targets:
        if isinstance(pattern, str):
            try:
                fullmatch(pattern, "")
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None


def _refuse_what_is_no_layer(model: Model, targets: Targets,
                             is_taken: Callable[[str], bool]) -> None:
    """A name that means a weight of other axes than a linear layer's, what is around layers, or
    what has no parameters.
    """
    odd = [m.name for m in model.modules if m.kind == "stack" and _WEIGHT.search(m.name)
           and is_taken(_WEIGHT.sub("", m.name))]
    if odd:
        raise ValueError(f"target_modules {targets!r}: {odd[0]} is the weight of no linear "
                         "layer, and PEFT adapts convolutions and refuses the rest; neither is "
                         "counted here, so name other modules")
    around = {path: m.name for m in model.modules for path in paths_to(m.name)[:-1]}
    if wide := next(filter(is_taken, around), ""):
        raise ValueError(f"target_modules {targets!r}: {wide} is no layer but what holds "
                         f"{around[wide]}, and PEFT refuses that; name layers alone")
    if bare := next(filter(is_taken, bare_modules(model)), ""):
        raise ValueError(f"target_modules {targets!r}: {bare} has no parameters, and PEFT refuses "
                         "that; name layers alone")


def _refuse_states(model: Model, found: Sequence[Module], method: str) -> None:
    """Those that PEFT refuses by their name in a model of state spaces."""
    refused = FAMILIES[model.family].get("refused", []) if method in (
        "lora", "adalora", "randlora") else []
    if odd := next((m.name for m in found if m.name.rpartition(".")[2] in refused), ""):
        raise ValueError(f"PEFT refuses {odd} in a {model.family} model, by its name; name other "
                         "modules")


#: The end of a weight's name, also of one that is kept as a direction and a length.
_WEIGHT = re.compile(r"\.(parametrizations\.weight\.original\d|weight)$")


def _all_linear(model: Model) -> list[Module]:
    """What all-linear means: each linear layer but the heads that PEFT knows of by then."""
    heads = [model.head, *_guarded(model, ())]
    return [m for m in model.modules if m.is_linear and m.name not in heads]


class NoneFound(ValueError):
    """No module is meant, which PEFT refuses where no parameter is named besides."""


def _guarded(model: Model, modules_to_save: Sequence[str]) -> list[str]:
    """What PEFT trains whole, as far as it knows when it looks for modules to adapt: the heads
    that it adds by itself only for sequences, peft 0.21.2, peft_model.py.
    """
    return [*modules_to_save, *(saved_heads(model) if model.task == "SEQ_CLS" else [])]


@within(SECONDS)
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
        PEFT never adapts a module that it is asked to train whole.

    Raises
    ------
    ValueError
        If nothing matches: PEFT refuses, too.
    """
    if targets is None:
        targets = default_targets(model, default)
    layers = [layers] if isinstance(layers, int) else layers
    everything = isinstance(targets, str) and targets.lower() == "all-linear"
    _check_layers(targets, layers, default)
    _check_patterns("target_modules", targets)
    _check_patterns("exclude_modules", exclude)
    saved = _guarded(model, modules_to_save)
    linear = [module.name for module in _all_linear(model)] if everything else []
    exact = _exact_names(model, linear if everything else targets, layers, default)

    def is_named(path: str) -> bool:
        return (path in linear if everything else matches(path, targets)) and (
            not is_inside(path, saved))

    def is_kept(path: str) -> bool:
        return not (exclude and matches(path, exclude))

    def is_chosen(path: str) -> bool:
        return exact is None or path in exact or _layer_number(path) in layers

    if not everything and default != "ln_tuning":  # which looks for itself
        _refuse_what_is_no_layer(model, targets, lambda path: (
            is_named(path) and is_kept(path) and is_chosen(path)))
    named = [module for module in model.modules if module.kind != "stack" and is_named(module.name)]
    kept = [module for module in named if is_kept(module.name)]
    found = [module for module in kept if is_chosen(module.name)]
    if not found:
        left = f"layers={layers}" if kept else f"exclude_modules={exclude!r}" if named else ""
        reason = f"{left} leaves none of those named" if left else _why_none(targets)
        raise NoneFound(f"target_modules {targets!r} match nothing in this {model.family} model: "
                         f"{reason}; its modules are called {', '.join(linear_names(model))}")
    _refuse_states(model, found, default)
    unmatched = [] if isinstance(targets, str) else [
        target for target in targets if not any(matches(module.name, [target]) for module in found)]
    if layers and isinstance(targets, str) and len(found) == len(kept):
        unmatched.append(f"layers={layers}, which PEFT ignores beside a text")
    return found, unmatched + _unmatched(model, exclude, layers or [])


#: Whose configuration lets the layers stand beside an expression, which PEFT then ignores.
_LAYERS_IGNORED = ("loha", "lokr", "oft", "boft", "vera", "randlora")


def _check_layers(targets: Targets, layers: Sequence[int] | int | None, method: str) -> None:
    if layers is not None and isinstance(targets, str) and method not in _LAYERS_IGNORED:
        raise ValueError(f"layers={layers} needs a list of names, got {targets!r}, and PEFT "
                         "refuses that; write the layers into a regular expression")


def _exact_names(model: Model, targets: Targets, layers: Sequence[int] | None,
                 method: str) -> set[str] | None:
    """The paths that are meant whatever layer they are in; None if that is no matter.

    PEFT asks for the layer only where a name is the end of a path. Twenty names or more it first
    makes as few and as short as it can: peft 0.21.2, tuners/tuners_utils.py, lines 2246 to 2325.
    """
    if not layers or isinstance(targets, str):
        return None
    if len(set(targets)) < 20 or method == "ia3":
        return set(targets)
    paths = {path for m in model.modules for path in paths_to(m.name)} | {*bare_modules(model)}
    others = {end for path in paths if not matches(path, targets) for end in _ends(path)}
    short: set[str] = set()
    for target in sorted(set(targets), key=_ends):
        if not any(target.endswith(f".{end}") for end in short):
            short |= {*[end for end in _ends(target) if end not in short | others][:1]}
    return short if 0 < len(short) < len(set(targets)) else set(targets)


def _ends(path: str) -> list[str]:
    """All ends of a path at its dots, the shortest first."""
    parts = path.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]


def _stacked(model: Model, targets: Targets,
             exclude: str | Sequence[str]) -> tuple[Targets, list[str]]:
    """The target modules, and the parameters that PEFT takes for the experts' old names.

    Transformers 5 stacks what were a layer for each expert. PEFT reads the names that these had as
    parameters, the first two projections as one: peft 0.21.2, utils/transformers_weight_conversion.
    A text becomes the last parts of what it matches, so an expression for some layers means all.
    """
    if not (fused := FAMILIES[model.family].get("fused")) or targets is None:
        return targets, []
    router, *pair, last = fused
    into = {router: "gate.weight", **dict.fromkeys(pair, "gate_up_proj"), last: "down_proj"}
    if isinstance(targets, str):
        targets = _last_parts(model, targets, exclude, into) or targets
    if isinstance(targets, str):
        return targets, []  # it matches nothing, as is said elsewhere
    old = {target: next((name for name in into if f".{target}".endswith(f".{name}")), "")
           for target in targets}
    if len({*old.values()} & {*pair}) == 1:
        raise ValueError(f"target_modules {targets!r:.160}: PEFT adapts {' and '.join(pair)} of a "
                         f"{model.family} model together, since they are one weight of all "
                         "experts now; name both or neither")
    return ([target for target, name in old.items() if not name],
            list(dict.fromkeys(into[name] for name in old.values() if name)))


def _with_experts(model: Model, targets: Targets, exclude: str | Sequence[str],
                  parameters: Sequence[str], pattern: Mapping[str, int] | None,
                  rank: int, layers: Sequence[int] | int | None
                  ) -> tuple[Targets, Sequence[str], Mapping[str, int] | None]:
    """The settings as PEFT changes them where experts are stacked: a pair has twice the rank."""
    _check_layers(targets, layers, "lora")
    targets, experts = _stacked(model, targets, exclude)
    if "gate_up_proj" in experts:
        pattern = {**(pattern or {}), r".*\.gate_up_proj": 2 * rank}
    return targets, [*parameters, *experts] if experts else parameters, pattern


def _last_parts(model: Model, targets: str, exclude: str | Sequence[str],
                into: Mapping[str, str]) -> list[str]:
    """The last parts of the paths that a text means, also of those that experts once had."""
    _check_patterns("target_modules", targets)
    _check_patterns("exclude_modules", exclude)
    if targets.lower() == "all-linear":
        return [*dict.fromkeys([*(m.name.rpartition(".")[2] for m in _all_linear(model)), *into])]
    paths = dict.fromkeys(path for m in model.modules for path in paths_to(m.name))
    for stack, _, leaf in [m.name.rpartition(".") for m in model.modules if m.kind == "stack"]:
        paths |= {f"{stack}.{old}": None for old, new in into.items() if new == leaf}
    return [*dict.fromkeys(path.rpartition(".")[2] for path in paths if matches(path, targets)
                           and not (exclude and matches(path, exclude)))]


def _unmatched(model: Model, exclude: str | Sequence[str], layers: Sequence[int]) -> list[str]:
    """The exclusions and the layers that mean no module of the model."""
    patterns = [exclude] if isinstance(exclude, str) and exclude else [[name] for name in exclude]
    numbers = {_layer_number(module.name) for module in model.modules}
    return [*(f"exclude_modules {pattern if isinstance(pattern, str) else pattern[0]}"
              for pattern in patterns
              if not any(matches(module.name, pattern) for module in model.modules)),
            *(f"layer {number}" for number in layers if number not in numbers)]


def default_targets(model: Model, method: str = "lora") -> list[str]:
    """The target modules that PEFT takes for the family when none are named."""
    table, lora = FAMILIES[model.family], FAMILIES[model.family].get("lora")
    model_type = model.family.partition("/")[0]
    if method == "ln_tuning":
        found = LN_TARGETS.get(model_type)
    elif method in ("adalora", "ia3"):
        found = table.get(method)
    elif method in METHODS:
        found = METHODS[method].targets.get(model_type) or table.get(method) or lora or (
            LORA_ELSEWHERE.get(model_type))
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


def _layer_number(path: str) -> int | None:
    number = re.match(r".*?\.[^.]*\.(\d+)\.", path)
    return None if number is None else int(number[1])


def linear_names(model: Model) -> list[str]:
    """The last part of the path of each linear layer, each once, in the model's order."""
    return list(dict.fromkeys(m.name.split(".")[-1] for m in model.modules if m.is_linear))


# ----------------------------------------------------------------------------- counting: the result


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


# ---------------------------------------------- methods that change modules: LoRA and its relatives


@within(SECONDS)
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
    positive("rank", rank)
    one_of("bias", bias, ("none", "all", "lora_only"))
    target_modules, target_parameters, rank_pattern = _with_experts(
        model, target_modules, exclude_modules, target_parameters, rank_pattern, rank, layers)
    _refuse_variants(model, target_parameters, bias, use_dora, lora_bias, settings)
    saved = _saved_names(model, modules_to_save)
    found, unmatched = _lora_modules(model, target_modules, bool(target_parameters), layers=layers,
                                     exclude=exclude_modules, modules_to_save=modules_to_save)
    _check_patterns("rank_pattern", *rank_pattern or ())
    tensors = {key: shape for m in found for key, shape in _lora_tensors(
        m, positive("rank", _rank_of(m.name, rank, rank_pattern)), use_dora, lora_bias).items()}
    more, named, missed = _parameter_tensors(model, target_parameters, found, rank, rank_pattern)
    tensors |= more | _token_tensors(model, trainable_token_indices, [*found, *named], saved)
    adapted = [*(m.name for m in found), *(m.weight_name for m in named)]
    unmatched += missed + [f"rank_pattern {key}" for key in rank_pattern or {}
                           if not any(_rank_of(name, 0, {key: 1}) for name in adapted)]
    return _count_tuner("DoRA" if use_dora else "LoRA", model, found, tensors, bias=bias, head=head,
                        targets=() if trainable_token_indices else target_modules, saved=saved,
                        unmatched=unmatched, notes=_lora_notes(model, adapted, use_rslora))


def _lora_notes(model: Model, adapted: Sequence[str], use_rslora: bool) -> list[str]:
    notes = {
        "rsLoRA scales by alpha/sqrt(rank); it has no parameters of its own.": use_rslora,
        "PEFT trains lm_head, and saves it only with save_embedding_layers=False: else it asks for "
        "embeddings of tokens, which this model has not.":
            FAMILIES[model.family].get("no_embeddings") and "lm_head" in adapted}
    return [note for note, there in notes.items() if there]


def _lora_modules(model: Model, targets: Targets, others: bool,
                  **options: Any) -> tuple[list[Module], list[str]]:
    """The modules, which there need not be if parameters are named besides."""
    if others and (targets == [] or (targets is None and not FAMILIES[model.family].get("lora"))):
        return [], []
    try:
        return find_modules(model, targets, **options)
    except NoneFound:
        if not others:
            raise
        return [], [targets] if isinstance(targets, str) else list(targets or [])


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
            r = positive("rank", _rank_of(m.weight_name, rank, pattern)) * math.prod(experts)
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
    if the same tokens are named for both: peft 0.21.2, utils/other.py, lines 1568 to 1680.
    """
    embedding = next((m for m in model.modules if m.name == model.embedding), None)
    if not tokens:
        return {}
    if not isinstance(tokens, Mapping):
        if embedding is None:
            raise ValueError("trainable_token_indices: PEFT finds no embedding of tokens in this "
                             f"{model.family} model; name the module, {{name: indices}}")
        tokens = {embedding.name: tokens}
    rows: dict[Module, list[int]] = {}
    shared = _shared_rows(model, embedding, tokens)
    for name in [name for name in tokens if name not in shared]:
        paths = {path for m in model.modules for path in paths_to(m.name) if path.endswith(name)}
        found = [m for m in model.modules if m.name in paths]
        if not found or len(found) < len(paths):
            raise ValueError(f"trainable_token_indices: {name!r} is no module of this "
                             f"{model.family} model with a row for each token")
        for m in found:
            many = m.sizes[0] if m.kind == "embedding" else m.out_features
            if m in adapted or is_inside(m.name, saved) or m.kind not in ("embedding", "linear"):
                raise ValueError(f"trainable_token_indices: tokens of {m.name} are not counted: "
                                 "it is adapted or saved whole besides, or has no rows")
            for index in tokens[name]:
                if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < many:
                    raise ValueError(f"trainable_token_indices: {index!r} is no row of {m.name}, "
                                     f"which has {many}")
            rows[m] = list(tokens[name])
    if odd := next((m.name for m in model.modules if m.tied and embedding in rows
                    and is_inside(m.name, saved)), ""):
        raise ValueError(f"trainable_token_indices: {odd} shares the weight of {embedding.name}; "
                         "trained whole beside its tokens, it is not counted")
    return {f"base_model.model.{m.name}.token_adapter.trainable_tokens_delta":
            (len(indices), m.weight_shape[1]) for m, indices in rows.items()}


def _shared_rows(model: Model, embedding: Module | None,
                 tokens: Mapping[str, Sequence[int]]) -> set[str]:
    """The names that get no rows of their own, since they share a weight with another that is named
    for the same tokens. A name counts as shared only if it is the whole path.
    """
    tied = {m.name for m in model.modules if m.tied and embedding}
    named = [name for name in tokens if tied and (embedding.name.endswith(name) or any(
        path.endswith(name) or name in path.split(".") for path in tied))]
    if model.task == "MASKED_LM" and len(named) > 1:
        raise ValueError(f"trainable_token_indices: {' and '.join(named)} are one weight; name one "
                         "of them")
    same = len(named) > 1 and all(tokens[name] == tokens[named[0]] for name in named)
    return tied & {*named} if same else set()


_COUNTLESS = ("lora_alpha", "lora_dropout", "alpha_pattern", "init_lora_weights", "fan_in_fan_out",
              "task_type", "inference_mode")


def _refuse_uncounted(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _COUNTLESS and value:
            raise ValueError(f"{name}={value!r:.60} may change what LoRA trains, and this module "
                             "does not count it; count without it")


def _refuse_variants(model: Model, parameters: Sequence[str], bias: str, use_dora: bool,
                     lora_bias: bool, settings: Mapping[str, Any]) -> None:
    if lora_bias and use_dora:
        raise ValueError("PEFT refuses lora_bias=True beside use_dora=True; leave one of them out")
    biased = bias != "none" and any(m.bias for m in model.modules)
    if parameters and (use_dora or lora_bias or biased or settings.get("lora_dropout")):
        raise ValueError("target_parameters are counted without use_dora, lora_bias, lora_dropout "
                         "and bias, and so are experts; PEFT refuses most of these beside them")


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
        if lora_bias:
            raise ValueError(f"PEFT refuses lora_bias=True on an embedding, and {m.name} is one; "
                             "take it out of target_modules")
        rows, n_out = m.sizes
        return {f"{key}embedding_A": (r, rows), f"{key}embedding_B": (n_out, r)} | more
    raise ValueError(f"LoRA adapts linear layers and embeddings; {m.name} is a {m.kind}. "
                     "Take it out of target_modules, or put it in modules_to_save")


def _rank_of(name: str, rank: int, pattern: Mapping[str, int] | None) -> int:
    """The first entry of PEFT's `rank_pattern` that fits the end of the path, else `rank`."""
    return next((r for key, r in (pattern or {}).items() if ends(key, name)), rank)


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
    one_of("method", method, METHODS)
    row = METHODS[method]
    for name, value in settings.items():
        one_of(f"a setting of {row.name}", name, row.settings)
        _checked_setting(row, name, value)
    for name, value in (("exclude_modules", exclude_modules), ("layers", layers)):
        if name in row.without and value not in ((), None, [], ""):
            raise ValueError(f"PEFT's {row.name} has no {name}, got {value!r}; name the modules "
                             "in target_modules")
    settings = {**row.settings, **settings}
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, exclude=exclude_modules, layers=layers,
                                    default=method, modules_to_save=modules_to_save)
    _only_linear(row.name, found, row.kinds)
    tensors, indices = {}, {}
    for m in found:
        for end, shape in row.tensors(*m.sizes, **settings).items():
            into = indices if end in row.indices else tensors
            into[f"base_model.model.{m.name}.{end}"] = shape
    counted = _count_tuner(row.name, model, found, tensors, frozen=row.frozen * len(found),
                           targets=target_modules, unmatched=unmatched, saved=saved, head=head)
    # PEFT makes these before it looks at the layers
    wide = found if layers is None or not isinstance(target_modules, str) else find_modules(
        model, target_modules, default=method, modules_to_save=modules_to_save)[0]
    shared = row.shared(*(max(m.sizes[side] for m in wide) for side in (0, 1)), **settings)
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
        positive(name, value + zero if zero else value)


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


@within(SECONDS)
def count_ln_tuning(model: Model, target_modules: Targets = None, *,
                    exclude_modules: str | Sequence[str] = (), modules_to_save: Sequence[str] = (),
                    head: str = "copied") -> Count:
    """LN tuning: a copy of each norm is trained in its place [Zhao et al., 2023]."""
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, exclude=exclude_modules,
                                    default="ln_tuning",
                                    modules_to_save=modules_to_save)
    groups = {path for m in model.modules for path in paths_to(m.name)[:-1]}
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
    counted = _count_tuner("LN tuning", model, found, tensors, targets=target_modules,
                           unmatched=unmatched, saved=saved, head=head)
    return replace(counted, copied=counted.trainable, base_tensors=frozenset(counted.tensors))


@within(SECONDS)
def count_ia3(model: Model, target_modules: Targets = None,
              feedforward_modules: Targets = None, *, modules_to_save: Sequence[str] = (),
              head: str = "copied", **options: Any) -> Count:
    """(IA)³: one scale per output, or per *input* for feed-forward modules [Liu et al., 2022]."""
    if (target_modules is None) != (feedforward_modules is None):
        raise ValueError("pass both target_modules and feedforward_modules, or neither, as in PEFT")
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, default="ia3",
                                    modules_to_save=modules_to_save, **options)
    inner = FAMILIES[model.family]["feedforward"] if feedforward_modules is None else (
        feedforward_modules)
    _only_linear("(IA)3", found, ("linear", "conv1d"))
    tensors = {}
    for m in found:
        shape = (1, m.sizes[0]) if matches(m.name, inner) else (m.sizes[1], 1)
        tensors[f"base_model.model.{m.name}.ia3_l"] = shape
    return _count_tuner("(IA)3", model, found, tensors, targets=target_modules,
                        unmatched=unmatched, saved=saved, head=head)


def _saved_names(model: Model, modules_to_save: Sequence[str]) -> list[str]:
    if isinstance(modules_to_save, str):
        raise TypeError(f"modules_to_save must be a list of names, got {modules_to_save!r}; write "
                        f"[{modules_to_save!r}]")
    return list(dict.fromkeys([*modules_to_save, *saved_heads(model)]))


def _is_list(model: Model, path: str) -> bool:
    """Does a path hold a list of modules, which all hold others or are alike? What runs one layer
    after the other has numbers, too.
    """
    inside = [m for m in model.modules if re.match(rf"{re.escape(path)}\.\d+(\.|$)", m.name)]
    alike = len({(m.kind, m.sizes) for m in inside}) == 1 < len(inside)
    return alike or any("." in m.name[len(path) + 1:] for m in inside)


def _whole_modules(model: Model, names: Sequence[str]) -> tuple[list[Module], list[str]]:
    """What `modules_to_save` trains: a name means each module, or group of modules, whose path ends
    in it (PEFT does not ask for a dot here). Also the names that mean nothing.
    """
    paths = dict.fromkeys(path for m in model.modules for path in paths_to(m.name))
    roots = [path for path in paths if any(path.endswith(name) for name in names)]
    for root in roots:
        if _is_list(model, root):
            raise ValueError(f"modules_to_save: {root} holds numbered modules, and PEFT refuses "
                             "such a list; name what is in it")
        if outer := next((path for path in paths_to(root)[:-1] if path in roots), ""):
            raise ValueError(f"modules_to_save: {root} lies in {outer}, which is trained whole, "
                             "too: PEFT then makes copies of a copy, which are not counted; "
                             f"name {outer} alone, and write longer ends of the other paths")
    whole = [m for m in model.modules
             if any(m.name == root or m.name.startswith(f"{root}.") for root in roots)]
    return whole, [name for name in names if not any(path.endswith(name) for path in paths)]


def _count_tuner(method: str, model: Model, adapted: list[Module],
                 tensors: dict[str, tuple[int, ...]], *, bias: str = "none", frozen: int = 0,
                 targets: Targets = None, saved: Sequence[str] = (), head: str = "copied",
                 unmatched: Sequence[str] = (), notes: Sequence[str] = (),
                 root: str = "base_model.model") -> Count:
    """Sum up a method that adds `tensors` to modules: plus biases, plus modules trained whole.

    `targets` are those of which PEFT sees by their names that it must save embeddings, too.
    """
    one_of("head", head, ("copied", "in place", "both"))
    added = sum(math.prod(shape) for shape in tensors.values())
    file = dict(tensors)
    notes = [*model.notes, *notes]

    names = {m.name for m in adapted}
    for m in adapted if _saves_embeddings(model, targets) else []:
        if m.name in (model.embedding, model.head):
            file[f"{root}.{m.name}.base_layer.weight"] = m.weight_shape
            if m.bias:
                file[f"{root}.{m.name}.base_layer.bias"] = (m.bias_size,)
            notes.append(f"PEFT saves the {math.prod(m.sizes):,} frozen weights of {m.name} "
                         "with the adapter, unless save_embedding_layers=False.")
    untrained = {name for name in file.keys() - tensors.keys()
                 if bias == "none" or name.endswith("weight")}
    whole, unknown = _whole_modules(model, saved)
    whole_names = {m.name for m in whole}
    if twice := sorted(names & whole_names):
        raise ValueError(f"PEFT refuses to adapt {twice[0]}, which it trains whole; leave it out "
                         "of the targets, or name it in modules_to_save")
    biased = [] if bias == "none" else [
        m for m in model.modules if m.bias and m.name not in whole_names
        and (bias == "all" or m.name in names)]
    for m in biased:
        inner = ".base_layer" if m.name in names else ""
        file[f"{root}.{m.name}{inner}.bias"] = (m.bias_size,)
        if m.tied and bias == "all":
            file[f"{root}.{_second_name(m)}"] = (m.bias_size,)

    named = [] if bias != "all" else [  # parameters of this very name that are no layer's
        m for m in model.modules if m.kind == "stack" and m.name.split(".")[-1] == "bias"
        and m.name not in whole_names]
    file |= {f"{root}.{m.weight_name}": m.weight_shape for m in named}
    copies = sum(math.prod(m.sizes) + m.bias_size for m in whole)  # a tied weight is copied, too
    file |= _saved_whole(whole, saved, bias, root)
    for m in whole:
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


def _saved_whole(whole: Sequence[Module], saved: Sequence[str], bias: str,
                 root: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of what the file has of modules that are trained whole."""
    file: dict[str, tuple[int, ...]] = {}
    for m in whole:
        file[f"{root}.{m.weight_name}"] = m.weight_shape
        if not m.bias:
            continue
        within = next(n for n in paths_to(m.name) if any(n.endswith(name) for name in saved))
        inside = m.name[len(within):]
        ends = [f"{inside}.bias"]
        if m.tied and inside:
            ends.append(_second_name(m)[len(within):])
        copy = ".modules_to_save" + (".default" if inside else "")
        # With bias="all" PEFT writes each bias under its wrapper's names as well.
        for wrapper in ("", ".original_module", copy) if bias == "all" else ("",):
            file |= {f"{root}.{within}{wrapper}{end}": (m.bias_size,) for end in ends}
    return file


def _saves_embeddings(model: Model, targets: Targets) -> bool:
    """Does PEFT see by the targets that embeddings are adapted? It then saves their frozen weights.

    It looks for these names in a list as they are, and for modules that end in them where the
    targets are an expression: peft 0.21.2, utils/save_and_load.py.
    """
    names = ("embed_tokens", "lm_head")
    if isinstance(targets, str):
        return targets != "all-linear" and any(
            matches(m.name, targets) for m in model.modules if matches(m.name, names))
    return any(name in names for name in targets or [])


def _second_name(head: Module) -> str:
    """A tied head's bias has another name one level up, and both are written."""
    return f"{head.name.rpartition('.')[0]}.bias"


# --------------------------------------------------------- virtual tokens: prefix, prompt, P-tuning


def count_prefix(model: Model, num_virtual_tokens: int = 20, *, projection: bool = False,
                 hidden: int | None = None, head: str = "copied") -> Count:
    """Prefix tuning: a key and a value per layer and virtual token [Li and Liang, 2021].

    With grouped-query attention they have the width of the *key/value* heads. `projection=True`
    trains them through an MLP of width `hidden`, which is discarded: trained and stored differ. In
    classification the head trains along; `head` says how it is counted, see :func:`count_lora`.
    """
    P, layers, width = positive("num_virtual_tokens", num_virtual_tokens), model["layers"], (
        model.symbols.get("prefix_width", model["d"]))
    stored = P * 2 * layers * width
    trainable, notes = stored, []
    if projection:
        h = positive("hidden", hidden or width)
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
    times = _prompts(model) if submodules is None else positive("submodules", submodules)
    shape = (positive("num_virtual_tokens", num_virtual_tokens) * times, model["d"])
    notes = [f"PEFT allocates the prompt {times} times for an encoder-decoder (its task_type is "
             "SEQ_2_SEQ_LM)."] * (times > 1)
    if model.symbols.get("word", model["d"]) != model["d"]:
        notes.append(f"PEFT makes prompts {model['d']} wide; this model's embeddings are "
                     f"{model['word']} wide, so such a prompt does not fit it.")
    return _count_virtual("prompt tuning", model, math.prod(shape), shape, notes, head)


def count_p_tuning(model: Model, num_virtual_tokens: int = 20, *, hidden: int | None = None,
                   encoder: str = "MLP", head: str = "copied") -> Count:
    """P-tuning: a prompt trained through an MLP (or LSTM), of which the prompt alone is stored."""
    one_of("encoder", encoder, ("MLP", "LSTM"))
    d = model["d"]
    h = positive("hidden", hidden or d)
    rows = positive("num_virtual_tokens", num_virtual_tokens) * _prompts(model)
    if encoder == "MLP":
        network = (d * h + h) + (h * h + h) + (h * d + d)
    else:  # two bidirectional LSTM layers (4 gates, 2 biases each), then a two-layer MLP
        lstm = 2 * 4 * (d * h + h * h + 2 * h) + 2 * 4 * (2 * h * h + h * h + 2 * h)
        network = lstm + (2 * h * 2 * h + 2 * h) + (2 * h * d + d)
    return _count_virtual("P-tuning", model, rows * d + network, (rows, d), [
        f"Trained through an {encoder}; {rows * d:,} numbers are stored."], head)


def _prompts(model: Model) -> int:
    """How often PEFT allocates a prompt, by the task type: a tower beside a decoder is no encoder
    of this kind.
    """
    parts = FAMILIES[model.family].get("parts", [])
    return 2 if model.task in ("SEQ_2_SEQ_LM", "SPEECH_TEXT") and "text_config" not in parts else 1


#: Tasks that PEFT has a type for, or of which one of its types is meant.
_TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS",
               "FEATURE_EXTRACTION", "IMAGE_TEXT", "SPEECH_TEXT")


def _count_virtual(method: str, model: Model, trainable: int, shape: tuple[int, int],
                   notes: Sequence[str], head: str) -> Count:
    """The virtual tokens, and in classification the head."""
    if "prefix_width" not in model.symbols:
        raise ValueError(f"{method} of {model.family} is not counted: PEFT does not find in its "
                         "configuration how many layers and attention heads it has, or its width, "
                         "and asks for num_layers, num_attention_heads or token_dim")
    if "vocab" not in model.symbols:
        raise ValueError(f"{method} of {model.family} is not counted: its tokens stand before "
                         "those of a text, which this model does not read, and PEFT refuses")
    outside = [m for m in model.modules if m.kind == "stack" and "." not in m.name]
    remarks = {
        f"PEFT has no task type for {model.task}; so this is for FEATURE_EXTRACTION.":
            model.task not in _TASK_TYPES,
        f"PEFT leaves {', '.join(m.name for m in outside)} trainable, which the file has not: no "
        "module holds it.": outside}
    counted = _count_tuner(method, model, [], {"prompt_embeddings": shape}, root="base_model",
                           saved=_saved_names(model, []), head=head,
                           notes=[*notes, *(note for note, there in remarks.items() if there)])
    network = trainable - math.prod(shape)  # trained through it, not stored
    left = sum(m.num_parameters for m in outside)
    return replace(counted, trainable=counted.trainable + network + left,
                   total=counted.total + network, copied=counted.copied + left)


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
    m, d = positive("bottleneck", bottleneck), model["d"]
    one_of("style", style, ("houlsby", "pfeiffer", "parallel"))
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
        one_of("dtype", each, [name for name in _SAFETENSORS_DTYPES if name != "int32"])
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
        one_of("dtype", each, _SAFETENSORS_DTYPES)
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
    parser.add_argument("--base", choices=BASE_FORMATS, help="format of the frozen weights; by "
                        "default what the file says, else bfloat16")
    parser.add_argument("--convention", choices=CONVENTIONS, default="fp32",
                        help="how trainable parameters are kept")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--batch", type=int, default=1, help="sequences, on each card")
    parser.add_argument("--length", type=int, default=512, help="tokens of each sequence")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--serve", type=int, metavar="ADAPTERS",
                        help="also what a server holds with so many adapters")
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
            options[key] = json.loads(NAMES.get(value, value))
        except ValueError:
            options[key] = value
    if given.targets:
        if given.method not in _TARGETED:
            parser.error(f"--targets are for {', '.join(_TARGETED)}, not {given.method}")
        everything = len(given.targets) == 1 and given.targets[0].lower() == "all-linear"
        options["target_modules"] = "all-linear" if everything else given.targets
    return options


def _print_serving(counted: Count, given: argparse.Namespace,
                   parser: argparse.ArgumentParser) -> None:
    try:
        print("to serve it", serving_bill(counted, given.batch, given.length, base=given.base,
                                          adapters=given.serve), "", sep="\n")
    except NotEstimated as reason:
        print(f"to serve it: the cache is not counted: {reason}", "", sep="\n")
    except ValueError as error:
        parser.exit(2, f"{error}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Count a method on a config.json and print its parameters, memory and file size."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = _options(given, parser)
    try:
        model = read_model(given.config, given.task)
        given.base = given.base or ("file" if model.stored else "bfloat16")
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
    if given.serve is not None:
        _print_serving(counted, given, parser)
    half = is_narrow(model, given.base)
    print(f"saved file: {saved_bytes(counted, base_dtype='bfloat16' if half else None):,} bytes")


if __name__ == "__main__":
    main()
