"""What it takes to serve a model: its weights, the cache of keys and values, and many adapters.

The cache is counted as transformers 5.23 keeps it (`cache_utils.py`), from the configuration alone:
grouped heads, windows that slide, DeepSeek's compressed keys and values, linear attention's states
of one size, an encoder's keys and values besides. The tests compare the shapes that its cache
really has. `CACHES` is data that the memory explorer reads, too.

    serving_bill(count_lora(model), batch=8, length=4096, adapters=40)
"""

from collections.abc import Mapping
from typing import Any

from real_models.bases import FORMATS, Item, frozen_items, stored_as
from real_models.count import Count
from real_models.memory import Bill, NotEstimated
from real_models.reading import Model
from real_models.rules import evaluate, is_whole, positive

# token     numbers that a layer keeps of each token
# layers    the symbol that says how many there are
# window    the class's default of sliding_window; where it is null nothing slides
# switch    the key that must be true for that
# every     a key and its default: every so-manieth layer sees all, the others through the window
# from      a key and its default: the layers from there on slide
# given     the layers' kinds must stand in layer_types wherever there is a window
# part      in which part of the file the keys are
# list      the table's list of kinds; conv, state: numbers that a layer without attention, all of
#           them where there is no list, keeps of a sequence
# cross     numbers of each token of the encoder's text
_GROUPED = {"token": "2*kv*dh"}
_HEADS = {"token": "2*d"}
_LATENT = {"token": "kv_lora_rank+qk_rope_head_dim"}  # one head, normed and not yet expanded
_TWO_STACKS = {"token": "2*d", "layers": "decoder_layers", "cross": "2*d"}
_T5 = {"token": "2*heads*dkv", "layers": "decoder_layers", "cross": "2*heads*dkv"}


def _slides(window: int | None, **more: Any) -> dict[str, Any]:
    return {**_GROUPED, "window": window, **more}


def _linear(name: str) -> dict[str, Any]:
    keys = f"2*{name}linear_key_head_dim*{name}linear_num_key_heads"
    values = f"{name}linear_value_head_dim*{name}linear_num_value_heads"
    return {**_GROUPED, "list": f"{name}layer_types",
            "conv": f"({keys}+{values})*{name}linear_conv_kernel_dim",
            "state": f"{values}*{name}linear_key_head_dim"}


CACHES: dict[str, dict[str, Any]] = {
    **dict.fromkeys((
        "apertus", "arcee", "cohere", "ernie4_5", "gemma", "glm", "glm4", "glm4_moe",
        "granite", "granitemoe", "helium", "hunyuan_v1_dense", "llama",
        "minimax_m2", "ministral3", "mixtral", "nemotron", "olmo", "olmo2", "phi", "phi3", "phimoe",
        "seed_oss", "starcoder2", "internlm3"), _slides(None)),
    "stablelm": {"token": "2*kv*(d//heads)", "window": None},
    **dict.fromkeys(("gpt2", "gpt_neo", "codegen", "opt", "bloom", "gpt_neox", "mpt", "xglm"),
                    {**_HEADS, "window": None}),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), {**_LATENT, "window": None}),
    **dict.fromkeys(("mistral", "ministral"), _slides(4096)),
    "gemma2": _slides(4096, every=[None, 2]), "gpt_oss": _slides(128, every=[None, 2]),
    "gemma3_text": _slides(4096, every=["sliding_window_pattern", 6]),
    "gemma3": _slides(4096, every=["sliding_window_pattern", 6], part="text_config."),
    "cohere2": _slides(4096, every=["sliding_window_pattern", 4]),
    "olmo3": _slides(4096, every=[None, 4]),
    "exaone4": _slides(4096, given=True),
    **dict.fromkeys(("qwen2", "qwen3"), _slides(
        4096, switch="use_sliding_window", **{"from": ["max_window_layers", 28]})),
    "qwen3_moe": _slides(4096, switch="use_sliding_window"),
    **dict.fromkeys(("qwen2_moe", "smollm3"), _slides(
        4096, switch="use_sliding_window", given=True)),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _linear("")),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), {**_linear("text_"), "part": "text_config."}),
    "t5": _T5, "mt5": _T5,
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "llava", "llava_next", "paligemma", "smolvlm",
                     "idefics3", "mistral3/ministral3", "glm4v"),
                    _slides(None, part="text_config.")),
    **dict.fromkeys(("mistral3", "llava_next/mistral"), _slides(4096, part="text_config.")),
    "paligemma/gemma2": _slides(4096, every=[None, 2], part="text_config."),
    **{family: _slides(4096, switch="use_sliding_window", part="text_config.",
                       **{"from": ["max_window_layers", usual]})
       for family, usual in (("qwen2_vl", 80), ("qwen2_5_vl", 80), ("internvl", 28))},
    **dict.fromkeys(("bart", "mbart", "pegasus", "m2m_100"), _TWO_STACKS),
    "lfm2": {**_GROUPED, "list": "layer_types", "conv": "d*conv_L_cache"},
}
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "IMAGE_TEXT")
#: Keys that change what layers keep, in ways that are not known here.
ODD_KEYS = ("attention_chunk_size", "kv_sharing_modes", "num_kv_shared_layers",
            "use_bidirectional_attention")
REASONS = {
    "task": "its class writes no text",
    "family": "what its layers keep of a text is not known here",
    "key": "what {key} makes of its cache is not known here",
}


def cache_record(model: Model) -> dict[str, Any]:
    """What a model keeps of each sequence, in numbers.

    Returns
    -------
    dict
        `tokens`: pairs of numbers for each token and the most tokens of which they are kept, 0 if
        of all; `conv`, `state`: of a whole sequence; `cross`: of each token that an encoder reads.

    Raises
    ------
    NotEstimated
        It has no cache, or one that is not known here.
    """
    rule = CACHES.get(model.family)
    if model.task not in TASKS or rule is None:
        raise NotEstimated(REASONS["task" if model.task not in TASKS else "family"])
    part = rule.get("part", "")
    if odd := next((key for key in ODD_KEYS if model.config.get(part + key)), None):
        raise NotEstimated(REASONS["key"].format(key=odd))
    token = evaluate(rule["token"], model.symbols)
    layers = model[rule.get("layers", "layers")]
    linear = 0
    if "conv" in rule:  # a layer of attention has its own q_proj
        full = sum(m.name.endswith(".self_attn.q_proj") for m in model.modules)
        linear = layers - full
        windows = [0] * full
    else:
        windows = _windows(rule, model.config, layers)
    kept = {most: windows.count(most) for most in sorted(set(windows))}
    return {"tokens": [[count * token, most] for most, count in kept.items()],
            "conv": linear * evaluate(rule.get("conv", "0"), model.symbols),
            "state": linear * evaluate(rule.get("state", "0"), model.symbols),
            "cross": (model.task == "SEQ_2_SEQ_LM") * layers * evaluate(
                rule.get("cross", "0"), model.symbols)}


def _windows(rule: Mapping[str, Any], config: Mapping[str, Any], layers: int) -> list[int]:
    """Of how many tokens each layer keeps something; 0 if of all."""
    part = rule.get("part", "")

    def of(key: str, default: Any) -> Any:
        return config.get(part + key, default)

    def refuse(key: str) -> NotEstimated:
        return NotEstimated(REASONS["key"].format(key=key))

    if "window" not in rule:  # yet the cache of any model goes by such a key
        if of("sliding_window", None) is not None:
            raise refuse("sliding_window")
        return [0] * layers
    window = of("sliding_window", rule["window"])
    if "switch" in rule and not of(rule["switch"], False):
        window = None
    if window is not None and not is_whole(window, 2):
        raise refuse("sliding_window")
    kinds = of("layer_types", None)
    if kinds is not None:
        known = {"full_attention", "sliding_attention"} if window else {"full_attention"}
        if not isinstance(kinds, list) or len(kinds) != layers or not all(
                isinstance(kind, str) and kind in known for kind in kinds):
            raise refuse("layer_types")
        slides = [kind == "sliding_attention" for kind in kinds]
    elif rule.get("given") and (window or "switch" not in rule):
        raise refuse("layer_types")
    elif "every" in rule or "from" in rule:
        key, default = rule.get("every") or rule["from"]
        at = default if key is None else of(key, default)
        if not is_whole(at, 1):
            raise refuse(key)
        if "every" in rule and window is None:
            raise refuse("sliding_window")
        slides = [bool((i + 1) % at) if "every" in rule else i >= at for i in range(layers)]
    else:
        slides = [True] * layers
    return [int(window) - 1 if each and window else 0 for each in slides]  # the last is not kept


def cache_bytes(model: Model, batch: int = 1, length: int = 512, *, width: int = 2) -> int:
    """Bytes of the cache of `batch` sequences of `length` tokens, each number in `width` bytes.

    An encoder's text is counted as long as the decoder's. Linear attention's states have 32 bits.
    """
    positive("batch", batch)
    positive("length", length)
    kept = cache_record(model)
    tokens = sum(numbers * min(length, most or length) for numbers, most in kept["tokens"])
    return batch * (width * (tokens + kept["cross"] * length + kept["conv"]) + 4 * kept["state"])


def serving_bill(counted: Count, batch: int = 1, length: int = 512, *, adapters: int = 1,
                 base: str = "bfloat16") -> Bill:
    """The weights as they are loaded, the cache, and so many adapters like this one.

    Numbers of the cache and of the adapters have 16 bits; on a base in 32 bits, as many. What
    PEFT copies of the base model, a head, is in the adapter.

    Raises
    ------
    NotEstimated
        The model's cache is not known: see :func:`cache_record`.
    """
    if positive("adapters", adapters) and counted.method == "full":
        raise ValueError("after full fine-tuning there is no adapter: each model is served whole")
    width = 4 if FORMATS[stored_as(counted.model, base).format].get("bytes") == 4 else 2
    # A file may also hold what was not trained, as the head under a LoRA on it: the base has that.
    numbers = min(counted.stored, counted.trainable)
    weights = sum(item.bytes for item in frozen_items(counted, base, prepared=False))
    cache = cache_bytes(counted.model, batch, length, width=width)
    return Bill((
        Item("weights", weights, "as they are loaded"),
        Item("cache of keys and values", cache, f"{batch:,} sequences of {length:,} tokens"),
        Item("adapters", adapters * width * numbers, f"{adapters:,} times {numbers:,} numbers")),
        "activations of the step, the server's own buffers, fragmentation, the CUDA context")
