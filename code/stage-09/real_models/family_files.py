"""The family's methods in the files of Hugging Face PEFT; hub.py opens and closes the files.

    KINDS["IA3" | "VERA" | "OFT"]   which settings are read, which change nothing, how modules are
                                    made from a config and written as one
    lora_class(config)              which child of LoRA a LORA config means
    as_lora(loras)                  the ranks, alphas and arrays of LoRA and its children

DoRA, rsLoRA and PiSSA have PEFT's type LORA. PiSSA is written as what it amounts to on the
pretrained weights, a LoRA of twice the rank, and read if PEFT has written it so (its
`path_initial_model_for_weight_conversion`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from family.dora import DoRALinear
from family.ia3 import IA3Linear
from family.oft import OFTLinear
from family.oft_series import OFTSeriesLinear, check_terms
from family.pissa import PiSSALinear
from family.scale_and_rate import RsLoRALinear
from family.vera import VeRALinear
from llama import Embedding
from peft import LoRALinear
from real_models.lora_embedding import LoRAEmbedding
from real_models.patterns import fullmatch
from tensorfile import HubError, short
from validation import check_count

Modules = dict[str, Any]
#: By module, how to make it, and the file's name and shape for each of its arrays.
Plan = dict[str, tuple[Callable[..., Any], dict[str, tuple[str, tuple[int, ...]]]]]
#: Settings for the config; PEFT's name for each of our arrays; those that are stored otherwise.
Written = tuple[dict[str, Any], dict[str, str], dict[str, np.ndarray]]
SHARED = {"A": "base_model.vera_A", "B": "base_model.vera_B"}  # of all VeRA modules of a file
SERIES_SINCE = (0, 18)  # PEFT's version from which on OFT sums up the terms of oft_series.py
#: What may be zero: VeRA's lambda_b and OFT's start there; tokens that no text had stay there.
MAY_BE_ZERO = (".vera_lambda_b", ".oft_R.weight", ".lora_embedding_A")
NEVER_ZERO = (*SHARED.values(), ".ia3_l")  # no training leaves a whole one so
LoRA = LoRALinear | LoRAEmbedding


def _key(name: str, own: str) -> str:
    return f"base_model.model.{name}.{own}"


def lora_key(name: str, module: Any, own: str) -> str:
    """What PEFT calls A or B of a LoRA module, or of the module in whose place it comes."""
    inside = isinstance(module, Embedding)
    return _key(name, f"lora_embedding_{own}" if inside else f"lora_{own}.weight")


def same(values: Iterable[Any], what: str) -> Any:
    """The one value that all layers share."""
    if len(found := sorted(set(values))) != 1:
        raise HubError(f"{what} must be the same in all layers to be saved, got {found}")
    return found[0]


# ------------------------------------------------------------------------- LoRA and its children


def lora_class(config: dict[str, Any]) -> Callable[..., LoRALinear]:
    """The layer that a config of type LORA means, to be made from weight, bias, rank and alpha."""
    flags = [config.get(key) or False for key in ("use_dora", "use_rslora")]
    for key, value in zip(("use_dora", "use_rslora"), flags):
        if not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false, got {short(value)}")
    return {(False, False): LoRALinear, (False, True): RsLoRALinear, (True, False): DoRALinear,
            (True, True): _rank_stabilised_dora}[tuple(flags)]


def _rank_stabilised_dora(weight: np.ndarray, bias: Any, lora_rank: int, lora_alpha: float
                          ) -> DoRALinear:
    return DoRALinear(weight, bias, lora_rank, lora_alpha * sqrt(lora_rank))  # rsLoRA


def _alpha(layer: LoRA, rslora: bool) -> float:
    """The alpha whose quotient by the rank is exactly the layer's scaling; whole if one is."""
    rank, scaling = layer.lora.rank, layer.lora.scaling
    below = sqrt(rank) if rslora else rank
    near = scaling * below  # rounded; yet if any number's quotient is the scaling, this one's is
    return round(near) if round(near) / below == scaling else near


def as_lora(loras: dict[str, LoRA]) -> Written:
    """Of ranks and alphas the commonest, and for every other module its own, as PEFT writes them.

    An alpha of rsLoRA's is written as such where all modules are rsLoRA, else as LoRA's.
    """
    dora = same((isinstance(m, DoRALinear) for m in loras.values()), "use_dora")
    rslora = all(isinstance(m, RsLoRALinear) for m in loras.values())
    twice = {n: 1 + isinstance(m, PiSSALinear) for n, m in loras.items()}
    settings: dict[str, Any] = {}
    for key, pattern, values in (
            ("r", "rank_pattern", {n: twice[n] * m.lora.rank for n, m in loras.items()}),
            ("lora_alpha", "alpha_pattern",
             {n: twice[n] * _alpha(m, rslora) for n, m in loras.items()})):
        settings[key], _ = Counter(values.values()).most_common(1)[0]
        settings[pattern] = {n: v for n, v in values.items() if v != settings[key]}
    settings |= {"use_rslora": rslora} | ({"use_dora": True} if dora else {})
    names = {f"{n}.{own}": lora_key(n, m, own) for n, m in loras.items() for own in "AB"}
    names |= {f"{n}.m": _key(n, "lora_magnitude_vector") for n in loras if dora}
    changed = {}
    for n, m in loras.items():
        if isinstance(m, PiSSALinear):
            B, A = m.as_lora()
            changed |= {names[f"{n}.A"]: A, names[f"{n}.B"]: B}
    return settings, names, changed


def pretrained_weights(weights: dict[str, np.ndarray], modules: Modules) -> dict[str, np.ndarray]:
    """The base model's weights, also where PiSSA has put a residual in their place."""
    return weights | {f"{n}.weight": m.pretrained for n, m in modules.items()
                      if isinstance(m, PiSSALinear)}


# ------------------------------------------------------------------------------------------- (IA)3


def _plan_ia3(modules: Modules, config: dict[str, Any], targets: list[str]) -> Plan:
    inner, among = config.get("feedforward_modules"), config.get("target_modules")
    if not isinstance(inner, str) and not (
            isinstance(inner, list) and all(isinstance(n, str) for n in inner)):
        raise ValueError(f"feedforward_modules must be a list of names or a pattern, got "
                         f"{short(inner)}: it says whose inputs are scaled")
    if isinstance(inner, list) and isinstance(among, list) and (
            other := sorted(set(inner) - set(among))):
        raise ValueError(f"feedforward_modules has {short(other[0])}, which is not one of "
                         "target_modules")
    plan: Plan = {}
    for name in targets:  # PEFT compares ends of letters here, not of paths
        scales_input = fullmatch(inner, name) if isinstance(inner, str) else name.endswith(
            tuple(inner))
        layer = modules[name]
        shape = (1, layer.weight.shape[1]) if scales_input else (layer.weight.shape[0], 1)
        plan[name] = (partial(IA3Linear, layer.weight, layer.bias, feedforward=scales_input),
                      {"l": (_key(name, "ia3_l"), shape)})
    return plan


def _write_ia3(modules: dict[str, IA3Linear], name_targets: Callable) -> Written:
    inner = name_targets([n for n, m in modules.items() if m.feedforward])
    outer = name_targets([n for n, m in modules.items() if not m.feedforward])
    names = {f"{n}.l": _key(n, "ia3_l") for n in modules}
    return ({"target_modules": sorted({*inner, *outer}), "feedforward_modules": inner,
             "init_ia3_weights": True}, names,
            {names[f"{n}.l"]: m.l[None, :] if m.feedforward else m.l[:, None]
             for n, m in modules.items()})


# -------------------------------------------------------------------------------------------- VeRA


def _plan_vera(modules: Modules, config: dict[str, Any], targets: list[str]) -> Plan:
    rank = check_count("r", config.get("r"))
    shapes = [modules[name].weight.shape for name in targets]
    shared = {"A": (SHARED["A"], (rank, max(columns for _, columns in shapes))),
              "B": (SHARED["B"], (max(rows for rows, _ in shapes), rank))}
    return {name: (partial(VeRALinear, modules[name].weight, modules[name].bias), shared | {
        "d": (_key(name, "vera_lambda_d"), (rank,)),
        "beta": (_key(name, "vera_lambda_b"), (len(modules[name].weight),))}) for name in targets}


def _write_vera(modules: dict[str, VeRALinear], name_targets: Callable) -> Written:
    layers = list(modules.values())
    rank = same((len(m.d) for m in layers), "r")
    A = max((m.A for m in layers), key=lambda A: A.shape[1])
    B = max((m.B for m in layers), key=len)
    for n, m in modules.items():  # each holds a corner of the widest
        if not (np.array_equal(m.A, A[:, :m.in_features])
                and np.array_equal(m.B, B[:m.out_features])):
            raise HubError(f"A and B of {n} are not those of the other layers, and a file has one "
                           "pair for all: make them with one call of shared_matrices")
    names = {f"{n}.{own}": _key(n, theirs) for n in modules for own, theirs in (
        ("d", "vera_lambda_d"), ("beta", "vera_lambda_b"))}
    return ({"r": rank, "target_modules": name_targets(modules), "save_projection": True,
             "projection_prng_key": 0, "d_initial": 0.1, "vera_dropout": 0.0, "bias": "none",
             "init_weights": True}, names, {SHARED["A"]: A, SHARED["B"]: B})


# --------------------------------------------------------------------------------------------- OFT


def _plan_oft(modules: Modules, config: dict[str, Any], targets: list[str]) -> Plan:
    series, version = config.get("use_cayley_neumann"), config.get("peft_version")
    if not isinstance(series, bool):  # PEFT once had the exact map alone, and no such setting
        raise ValueError(f"use_cayley_neumann must be true or false, got {short(series)}: without "
                         "it nobody knows which map was trained")
    number = re.match(r"(\d{1,9})\.(\d{1,9})", version) if isinstance(version, str) else None
    if series and (not number or tuple(map(int, number.groups())) < SERIES_SINCE):
        raise ValueError(f"peft_version is {short(version)}, with use_cayley_neumann: before 0.18 "
                         "PEFT computed another series, which we don't know")
    terms = check_terms("num_cayley_neumann_terms", config.get("num_cayley_neumann_terms", 5))
    plan: Plan = {}
    for name in targets:
        weight, bias = modules[name].weight, modules[name].bias
        size = _block_size(config, weight.shape[1])
        if size < 2:
            raise ValueError(f"blocks of {name} have size {size}, of which nothing can be turned")
        make = (partial(OFTSeriesLinear, weight, bias, size, terms) if series else
                partial(OFTLinear, weight, bias, size))
        shape = (weight.shape[1] // size, size * (size - 1) // 2)
        plan[name] = (make, {"q": (_key(name, "oft_R.weight"), shape)})
    return plan


def _block_size(config: dict[str, Any], width: int) -> int:
    """The size of a layer's blocks, or what PEFT puts in its place if it does not fit."""
    r, size = config.get("r", 0), config.get("oft_block_size", 0)
    if not all(type(n) is int and n >= 0 for n in (r, size)) or (r == 0) == (size == 0):
        raise ValueError(f"either r or oft_block_size must be a number and the other 0, got "
                         f"{short(r)} and {short(size)}")
    wanted = min(r or size, width)
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    fits = min(divisors, key=lambda n: (abs(n - wanted), n))  # of two as near, the smaller
    return width // fits if r else fits


def _write_oft(modules: dict[str, OFTLinear], name_targets: Callable) -> Written:
    layers = list(modules.values())
    series = same((isinstance(m, OFTSeriesLinear) for m in layers), "use_cayley_neumann")
    sizes, counts = {m.block_size for m in layers}, {len(m.q) for m in layers}
    if 1 in sizes:
        raise HubError("blocks of size 1 hold no array to save")
    if len(sizes) > 1 and len(counts) > 1:
        raise HubError(f"blocks must be of one size or of one number in all layers to be saved, "
                       f"got the sizes {sorted(sizes)} and the numbers {sorted(counts)}")
    size = {"r": 0, "oft_block_size": sizes.pop()} if len(sizes) == 1 else {
        "r": counts.pop(), "oft_block_size": 0}
    terms = same((m.terms for m in layers), "num_cayley_neumann_terms") if series else 5
    names = {f"{n}.q": _key(n, "oft_R.weight") for n in modules}
    return (size | {"use_cayley_neumann": series, "num_cayley_neumann_terms": terms,
                    "peft_version": "0.18.0", "target_modules": name_targets(modules),
                    "coft": False, "block_share": False, "module_dropout": 0.0, "bias": "none",
                    "init_weights": True}, names,
            {names[f"{n}.q"]: as_stored(m, m.q) for n, m in modules.items()})


def as_stored(module: Any, array: np.ndarray) -> np.ndarray:
    """From ours to the file and back: PEFT's exact form of OFT has -Q for Q, its series has not."""
    exact = isinstance(module, OFTLinear) and not isinstance(module, OFTSeriesLinear)
    return -array if exact else array


# --------------------------------------------------------------------------------------- the table


class Kind(NamedTuple):
    """What a `peft_type` is here."""

    layer: type
    read: set[str]  # settings that the plan and hub.py's choice of targets go by
    harmless: set[str]  # settings of the start and of training
    plan: Callable[[Modules, dict[str, Any], list[str]], Plan]
    write: Callable[[dict[str, Any], Callable], Written]


LAYERS = {"layers_to_transform", "layers_pattern"}
KINDS = {
    "IA3": Kind(IA3Linear, {"target_modules", "exclude_modules", "feedforward_modules"},
                {"init_ia3_weights"}, _plan_ia3, _write_ia3),
    "VERA": Kind(VeRALinear, {"r", "target_modules", "save_projection"} | LAYERS,
                 {"vera_dropout", "d_initial", "projection_prng_key", "init_weights"},
                 _plan_vera, _write_vera),
    "OFT": Kind(OFTLinear, {"r", "oft_block_size", "target_modules", "exclude_modules",
                            "use_cayley_neumann", "num_cayley_neumann_terms"} | LAYERS,
                {"module_dropout", "eps", "init_weights"}, _plan_oft, _write_oft)}
