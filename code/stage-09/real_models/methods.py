"""The table of PEFT's methods that change modules: the tensors that each adds to one of them.

`accounting.py` counts by it, as it reads architectures from `families.py`. Settings have PEFT's
names and defaults, but for its `r`, which is `rank` here. Sources are files of peft 0.21.2 below
src/peft/tuners. LoRA and (IA)³ stand in `accounting.py`: they do more than this table can say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import isqrt
from typing import Any

Tensors = dict[str, tuple[int, ...]]

_LINEAR, _BOTH = ("linear",), ("linear", "conv1d")
_NO_CHOICE = ("exclude_modules", "layers")


@dataclass(frozen=True)
class Method:
    """What a method trains on a module of `n_in` inputs and `n_out` outputs."""

    name: str
    settings: Mapping[str, Any]  # what its counts depend on, and PEFT's default
    tensors: Callable[..., Tensors]  # (n_in, n_out, **settings): the end of each name, its shape
    source: str
    kinds: tuple[str, ...] = _LINEAR  # of modules that PEFT takes
    targets: Mapping[str, list[str]] = field(default_factory=dict)  # where LoRA's are not PEFT's
    shared: Callable[..., Tensors] = lambda n_in, n_out, **settings: {}  # frozen, saved once
    repeated: bool = False  # its file has what is shared again for each module
    without: tuple[str, ...] = ()  # what its configuration does not have
    indices: tuple[str, ...] = ()  # tensors of whole numbers: saved, never trained
    frozen: int = 0  # numbers that PEFT counts on each module, and never trains


def _divides(what: str, divisor: int, *sizes: int) -> int:
    for size in sizes:
        if size % divisor:
            raise ValueError(f"{what} = {divisor} must divide the sizes of the modules, and one is "
                             f"{size}")
    return divisor


def _lokr(n_in: int, n_out: int, rank: int, decompose_both: bool, decompose_factor: int) -> Tensors:
    """A Kronecker product of a small matrix and a large one; each as a product if that is less."""
    (a, k), (m, n) = (_factors(size, decompose_factor) for size in (n_out, n_in))
    first = {"w1_a": (a, rank), "w1_b": (rank, m)} if (
        decompose_both and 2 * rank < max(a, m)) else {"w1": (a, m)}
    second = {"w2_a": (k, rank), "w2_b": (rank, n)} if 2 * rank < max(k, n) else {"w2": (k, n)}
    return {f"lokr_{name}": shape for name, shape in (first | second).items()}


@cache
def _factors(size: int, largest: int) -> tuple[int, int]:
    """Two factors, the smaller first: `largest`, or the divisor below it next to the root."""
    if largest > 0 and size % largest == 0:
        return largest, size // largest
    limit = isqrt(size) if largest == -1 else min(largest, isqrt(size))
    small = max(n for n in range(1, max(1, limit) + 1) if size % n == 0)
    return small, size // small


def _oft(n_in: int, n_out: int, rank: int, oft_block_size: int, block_share: bool) -> Tensors:
    """Rotations of blocks of the input, each by the upper triangle of a skew matrix."""
    if bool(rank) == bool(oft_block_size):
        raise ValueError(f"give rank, the number of blocks, or oft_block_size; got {rank} and "
                         f"{oft_block_size}, and one of them must be 0")
    part = _nearest_divisor(n_in, rank or oft_block_size)
    size, blocks = (n_in // part, part) if rank else (part, n_in // part)
    return {"oft_R.weight": (1 if block_share else blocks, size * (size - 1) // 2)}


@cache
def _nearest_divisor(size: int, wish: int) -> int:
    """PEFT takes the divisor next to what was asked, of two the smaller, and warns."""
    return min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: (abs(n - wish), n))


def _boft(n_in: int, n_out: int, boft_block_size: int, boft_block_num: int,
          boft_n_butterfly_factor: int) -> Tensors:
    """Products of block rotations, as whole matrices, and a scale for each output."""
    if bool(boft_block_size) == bool(boft_block_num):
        raise ValueError("one of boft_block_size and boft_block_num must be 0, got "
                         f"{boft_block_size} and {boft_block_num}")
    if boft_n_butterfly_factor != 1:
        raise ValueError(f"boft_n_butterfly_factor={boft_n_butterfly_factor!r}: PEFT takes 1 where "
                         "its CUDA extension cannot be built, so only 1 is counted")
    part = _divides("boft_block_size or boft_block_num", boft_block_size or boft_block_num, n_in)
    size, blocks = (n_in // part, part) if boft_block_num else (part, n_in // part)
    return {"boft_R": (1, blocks, size, size), "boft_s": (n_out, 1)}


def _miss(n_in: int, n_out: int, rank: int, mini_r: int, init_weights: bool | str) -> Tensors:
    """One matrix, used again for every `rank` inputs."""
    if rank > n_in:
        raise ValueError(f"rank = {rank} is more than the {n_in} inputs of a module")
    if init_weights not in (True, False, "bat", "mini"):
        raise ValueError(f"init_weights must be True, False, bat or mini, got {init_weights!r}")
    if init_weights == "bat":
        return {"miss_block": (n_out // _divides("rank", rank, n_in, n_out), rank, rank)}
    if init_weights == "mini":
        return {"miss_block": (rank, _divides("mini_r", mini_r, n_out))}
    return {"miss_block": (rank, n_out)}


def _road(n_in: int, n_out: int, variant: str, group_size: int) -> Tensors:
    """An angle and a scale for each pair of outputs; two or four times as many in variants."""
    sizes = {"road_1": n_out // 2, "road_2": n_out, "road_4": 2 * n_out}
    if variant not in sizes:
        raise ValueError(f"variant must be one of {', '.join(sizes)}, got {variant!r}")
    _divides("group_size", group_size, n_out)
    return dict.fromkeys(("road_theta", "road_alpha"), (sizes[variant],))


def _c3a(n_in: int, n_out: int, block_size: int) -> Tensors:
    """Circulant blocks, each of which is told by one of its rows."""
    _divides("block_size", block_size, n_in, n_out)
    return {"c3a_kernel": (n_out // block_size, n_in // block_size, block_size)}


def _randlora(n_in: int, n_out: int, rank: int) -> Tensors:
    """Diagonal matrices between random ones, so many that the update has full rank."""
    small = min(n_in, n_out)
    bases = -(-small // rank)
    return {"randlora_lambda": (rank, bases), "randlora_gamma": (bases, small)}


def _randlora_shared(n_in: int, n_out: int, rank: int) -> Tensors:
    small, large = sorted((n_in, n_out))
    return {"randlora_A": (rank, 1, small), "randlora_B": (large, -(-small // rank), rank)}


def _shira(n_in: int, n_out: int, rank: int) -> Tensors:
    """As many numbers of the weight itself as LoRA would train, and where they stand."""
    if (count := rank * (n_in + n_out)) > n_in * n_out:
        raise ValueError(f"rank = {rank} makes {count} numbers, more than a weight of {n_out} x "
                         f"{n_in} has")
    return {"shira_weight": (count,), "shira_indices": (2, count)}


METHODS: dict[str, Method] = {
    "adalora": Method("AdaLoRA", {"init_rank": 12}, lambda n_in, n_out, init_rank: {
        "lora_A": (init_rank, n_in), "lora_B": (n_out, init_rank), "lora_E": (init_rank, 1)},
        "adalora/layer.py", _BOTH, frozen=1),
    "loha": Method("LoHa", {"rank": 8}, lambda n_in, n_out, rank: {
        "hada_w1_a": (n_out, rank), "hada_w1_b": (rank, n_in),
        "hada_w2_a": (n_out, rank), "hada_w2_b": (rank, n_in)}, "loha/layer.py"),
    "vera": Method("VeRA", {"rank": 256}, lambda n_in, n_out, rank: {
        "vera_lambda_b": (n_out,), "vera_lambda_d": (rank,)}, "vera/layer.py", _BOTH,
        without=_NO_CHOICE[:1],
        shared=lambda n_in, n_out, rank: {"vera_A": (rank, n_in), "vera_B": (n_out, rank)}),
    "lokr": Method("LoKr", {"rank": 8, "decompose_both": False, "decompose_factor": -1}, _lokr,
                   "lokr/layer.py"),
    "oft": Method("OFT", {"rank": 0, "oft_block_size": 32, "block_share": False}, _oft,
                  "oft/layer.py"),
    "boft": Method("BOFT", {"boft_block_size": 4, "boft_block_num": 0,
                            "boft_n_butterfly_factor": 1}, _boft, "boft/layer.py"),
    "miss": Method("MiSS", {"rank": 64, "mini_r": 1, "init_weights": True}, _miss,
                   "miss/layer.py"),
    "road": Method("RoAd", {"variant": "road_1", "group_size": 64}, _road, "road/layer.py",
                   without=_NO_CHOICE),
    "c3a": Method("C3A", {"block_size": 256}, _c3a, "c3a/layer.py",
                  without=_NO_CHOICE[:1], targets=dict.fromkeys(
                      ("gpt2", "gpt_bigcode"), ["mlp.c_proj"])),
    "randlora": Method("RandLoRA", {"rank": 32}, _randlora, "randlora/layer.py", _BOTH,
                       shared=_randlora_shared, repeated=True, without=_NO_CHOICE[:1]),
    "shira": Method("SHiRA", {"rank": 32}, _shira, "shira/layer.py",
                    without=_NO_CHOICE, targets={"phi": ["q_proj", "v_proj"]},
                    indices=("shira_indices",)),
}

#: PEFT's default for LoRA fails on Mixtral, whose experts it renames; for others it does not.
LORA_ELSEWHERE = {"mixtral": ["q_proj", "v_proj"]}

#: Norms that LN tuning copies and trains when none are named (utils/constants.py).
LN_TARGETS = {
    **dict.fromkeys(("llama", "mistral", "gemma"),
                    ["input_layernorm", "post_attention_layernorm", "norm"]),
    **dict.fromkeys(("gemma2", "gemma3_text"), [
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
        "post_feedforward_layernorm", "norm"]),
    **dict.fromkeys(("qwen2", "qwen3"), ["post_attention_layernorm"]),
    **dict.fromkeys(("bloom", "falcon"), ["input_layernorm", "post_attention_layernorm", "ln_f"]),
    **dict.fromkeys(("t5", "mt5"), ["layer_norm", "final_layer_norm"]),
    "bart": ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"],
    "gpt2": ["ln_1", "ln_2", "ln_f"], "gptj": ["ln_1", "ln_f"],
    "phi": ["input_layernorm", "final_layernorm"],
    "llava": ["multi_modal_projector", "input_layernorm", "post_attention_layernorm", "norm",
              "embed_tokens", "lm_head"],
}

#: PEFT's names of the methods that are not counted.
NOT_COVERED = (
    "ADAMSS", "ADAPTION_PROMPT", "BEFT", "CARTRIDGE", "CPT", "DEFT", "DELORA", "FOURIERFT", "FROD",
    "GLORA", "GRALORA", "HIRA", "HRA", "LILY", "MULTITASK_PROMPT_TUNING", "OSF", "PEANUT", "POLY",
    "PSOFT", "PVERA", "SHADOW", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA",
    "WAVEFT", "XLORA")
