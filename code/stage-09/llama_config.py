"""What a Llama looks like: the settings of Hugging Face's `config.json`, read without trust.

    read_config(path)              the model's LlamaConfig, or HubError
    config.to_hugging_face()       the way back
    config.weight_shapes()         every weight's name and shape

A key of the file is read, or must have the value that llama.py computes, or leaves what is computed
as it is. Any other is refused by its name: whoever wrote it meant something by it.
"""

from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from tensorfile import about, read_json, short
from validation import check_count, check_integer

PROJECTIONS = tuple(f"self_attn.{p}_proj" for p in "qkvo") + tuple(
    f"mlp.{p}_proj" for p in ("gate", "up", "down"))
LAYER_MODULES = (*PROJECTIONS, "input_layernorm", "post_attention_layernorm",
                 "after_attention", "after_mlp", "parallel_mlp")
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")  # of Qwen3 alone


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's scaling of the rotary angles; the fields are those of `rope_parameters`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a model; the fields are those of Hugging Face's `config.json`.

    The first ten say all of a plain Llama.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    model_type: str = "llama"
    head_dim: int | None = None  # hidden_size / num_attention_heads, if nothing is said
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None  # of Mistral; inputs may be as long as that, and no longer
    no_rope_layers: tuple[int, ...] = ()  # of SmolLM3: a 0 for each layer that is not rotated

    def __post_init__(self):
        d, H, K = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        for name in ("num_attention_heads", "num_key_value_heads"):
            check_count(name, getattr(self, name))
        if self.head_dim is None:
            if d % H or (d // H) % 2:
                raise ValueError("hidden_size must be num_attention_heads times an even head "
                                 f"width, got {d} and {H} heads")
            object.__setattr__(self, "head_dim", d // H)  # the class is frozen for all others
        if check_count("head_dim", self.head_dim) % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        if H % K:
            raise ValueError(f"num_attention_heads must be a multiple of num_key_value_heads, "
                             f"got {H} and {K}")
        if self.table_bytes > LARGEST_TABLE:
            raise ValueError(f"max_position_embeddings {self.max_position_embeddings:,} and "
                             f"head_dim {self.head_dim:,} make a table of rotary angles of "
                             f"{self.table_bytes / 1e9:.1f} GB; set max_position_embeddings to "
                             "the length that you need")

    @property
    def qkv_bias(self) -> bool:
        return self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        return self.model_type == "qwen3"

    @property
    def longest_input(self) -> int:
        return min(self.max_position_embeddings,
                   self.sliding_window or self.max_position_embeddings)

    @property
    def table_bytes(self) -> int:
        """What the rotary angles take: half a head's width in float64 for each position."""
        return 4 * self.longest_input * self.head_dim

    @property
    def copies(self) -> dict[str, str]:
        """Weights that a file may hold once more: of each, the one that it equals."""
        return {"lm_head.weight": "model.embed_tokens.weight"} if self.tie_word_embeddings else {}

    def rotates(self, layer: int) -> bool:
        return not self.no_rope_layers or bool(self.no_rope_layers[layer])

    def to_hugging_face(self) -> dict[str, Any]:
        """The content of a `config.json` that `transformers` loads as `XForCausalLM`."""
        stored = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        scaling = stored.pop("rope_scaling", {})
        if self.model_type == "mistral":
            stored["sliding_window"] = self.sliding_window  # left out, it would be 4096
        if self.no_rope_layers:
            stored["no_rope_layers"] = list(self.no_rope_layers)
        if not self.qkv_bias:
            stored |= {"attention_bias": False, "mlp_bias": False}
        return {"architectures": [ARCHITECTURES[self.model_type]], **stored,
                "rope_parameters": {"rope_type": "llama3" if scaling else "default",
                                    "rope_theta": self.rope_theta, **scaling},
                "hidden_act": "silu", "attention_dropout": 0.0}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by its Hugging Face name."""
        d, m, dh = self.hidden_size, self.intermediate_size, self.head_dim
        q, kv = self.num_attention_heads * dh, self.num_key_value_heads * dh
        shapes = {"model.embed_tokens.weight": (self.vocab_size, d)}
        for i in range(self.num_hidden_layers):
            for name, shape in zip(LAYER_MODULES, [(q, d), (kv, d), (kv, d), (d, q), (m, d),
                                                   (m, d), (d, m), (d,), (d,)]):
                shapes[f"model.layers.{i}.{name}.weight"] = shape
            if self.qkv_bias:
                for name, size in zip(PROJECTIONS, (q, kv, kv)):
                    shapes[f"model.layers.{i}.{name}.bias"] = (size,)
            if self.qk_norm:
                shapes |= {f"model.layers.{i}.{name}.weight": (dh,) for name in QK_NORMS}
        shapes["model.norm.weight"] = (d,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, d)
        return shapes


# ------------------------------------------------------------------------------ reading, trustless

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "num_key_value_heads", "max_position_embeddings")
LARGEST_TABLE = 2 ** 29  # bytes: a million positions of heads of 128
LARGEST = {"num_hidden_layers": 1_000, "max_position_embeddings": 2 ** 20}  # each costs memory
LARGEST_SIZE = 2 ** 24  # of any other size
RANGES = {"rms_norm_eps": (1e-12, 1.0), "rope_theta": (1.0, 1e12)}  # beyond them, NaN is near
ROPE = ("rope_parameters", "rope_scaling")  # today's name and that of transformers 4

ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                 "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "smollm3": "SmolLM3ForCausalLM"}
# What transformers may leave out of the file since it equals the default of the family.
LLAMA = {"num_key_value_heads": None, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
         "rope_theta": 10000.0, "tie_word_embeddings": False, "head_dim": None,
         "sliding_window": None, "no_rope_layer_interval": 4, "use_sliding_window": False}
QWEN = LLAMA | {"num_key_value_heads": 32, "max_position_embeddings": 32768,
                "sliding_window": 4096, "max_window_layers": 28}
DEFAULTS = {
    "llama": LLAMA,
    "mistral": LLAMA | {"num_key_value_heads": 8, "max_position_embeddings": 131072,
                        "sliding_window": 4096},
    "qwen2": QWEN,
    "qwen3": QWEN | {"head_dim": 128},
    "smollm3": LLAMA | {"num_key_value_heads": 4, "max_position_embeddings": 32768,
                        "rope_theta": 2e6, "tie_word_embeddings": True}}
MISSING = {  # what other families have that llama.py does not compute
    "gemma": "norms that multiply by 1 + weight, scaled embeddings, a GELU",
    "gemma2": "norms after each sublayer, capped scores and logits, sliding windows, a GELU",
    "gemma3": "pictures, norms after each sublayer, windows and two rotary bases by layer, a GELU",
    "gemma3_text": "norms after each sublayer, windows and two rotary bases by layer, a GELU",
    "gpt2": "learned positions, LayerNorm, an MLP without a gate",
    "gpt_neox": "LayerNorm, attention beside the MLP, rotation of a part of each head",
    "gpt_oss": "experts, attention sinks, windows by layer",
    "granite": "multipliers of embeddings, scores, residuals and logits",
    "mixtral": "experts", "qwen2_moe": "experts", "qwen3_moe": "experts",
    "qwen3_next": "experts, linear attention",
    "deepseek_v3": "experts, compressed keys and values",
    "llama4": "pictures, experts", "llama4_text": "experts",
    "mistral3": "pictures", "mllama": "pictures", "qwen2_vl": "pictures", "qwen2_5_vl": "pictures",
    "olmo2": "norms after each sublayer, norms of whole queries and keys",
    "phi": "LayerNorm, attention beside the MLP, biases, rotation of a part of each head",
    "phi3": "q, k and v in one weight, gate and up in one"}
WINDOW = ("use_sliding_window", "max_window_layers", "layer_types")  # of Qwen and SmolLM3
READ = {*SIZES, *RANGES, *ROPE, *WINDOW, "model_type", "architectures", "tie_word_embeddings",
        "head_dim", "sliding_window"}
NO_ROPE = {"no_rope_layers", "no_rope_layer_interval"}  # of SmolLM3 alone
ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "is_causal": True,
        "rope_interleaved": False, "partial_rotary_factor": 1.0, "use_mrope": False,
        "use_bidirectional_attention": False, "is_encoder_decoder": False,
        "add_cross_attention": False}
# Of training, of generation, of a file's origin, of how fast it is computed.
HARMLESS = set("""
    attention_dropout attn_implementation bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label initializer_range is_decoder is_llama_config label2id
    length_penalty max_length max_sequence_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k
    top_p torch_dtype torchscript transformers.js_config transformers_version typical_p
    unsloth_fixed unsloth_version use_bfloat16 use_cache
""".split())


def read_config(path: str | Path) -> LlamaConfig:
    """A `config.json` of the Llama family; HubError if llama.py computes another model."""
    path = Path(path)
    stored = read_json(path)
    with about(path):
        return from_hugging_face(stored)


def from_hugging_face(stored: dict[str, Any]) -> LlamaConfig:
    """The model that the content of a `config.json` describes, with Hugging Face's defaults.

    Raises ValueError, TypeError.
    """
    family = stored.get("model_type")
    if not isinstance(family, str) or family not in DEFAULTS:
        lacks = MISSING.get(family, "") if isinstance(family, str) else ""
        said = "missing" if family is None else short(family)
        raise ValueError(f"model_type is {said}; llama.py computes {list(DEFAULTS)}"
                         f"{lacks and f', and lacks what this family has: {lacks}'}")
    null = {key: None for key in ("num_key_value_heads", "head_dim", "sliding_window")
            if key in stored}  # here null is a value: no such number is given
    stored = {key: value for key, value in stored.items() if value is not None}
    refuse_unknown(stored)
    given = DEFAULTS[family] | null | stored | {"rope_scaling": None} | read_rope(stored)
    for key in SIZES:
        if key == "num_key_value_heads" and given[key] is None:
            given[key] = given["num_attention_heads"]
        if given.get(key) is None:
            raise ValueError(f"{key} is missing: fetch the file again, or add it")
        if check_count(key, given.get(key)) > (limit := LARGEST.get(key, LARGEST_SIZE)):
            raise ValueError(f"{key} is above {limit:,}: no such model")
    for key in ("head_dim", "sliding_window"):
        if given[key] is not None and check_count(key, given[key]) > LARGEST_SIZE:
            raise ValueError(f"{key} is above {LARGEST_SIZE:,}: no such model")
    for key, (low, high) in RANGES.items():
        check_between(key, given[key], low, high)
    if not isinstance(given["tie_word_embeddings"], bool):
        raise ValueError("tie_word_embeddings must be true or false, got "
                         f"{short(given['tie_word_embeddings'])}")
    given["no_rope_layers"] = read_no_rope(given)
    given["sliding_window"] = read_window(given)
    return LlamaConfig(**{key: given[key] for key in LlamaConfig.__dataclass_fields__})


def read_window(given: dict[str, Any]) -> int | None:
    """The window of Mistral's layers. ValueError for another family's that could be exceeded."""
    window, used, count = (given[key] for key in ("sliding_window", "use_sliding_window",
                                                  "num_hidden_layers"))
    if not isinstance(used, bool):
        raise ValueError(f"use_sliding_window must be true or false, got {short(used)}")
    first = check_integer("max_window_layers", given.get("max_window_layers", 0))
    kinds = given.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or not set(map(str, kinds)) <= {
            "full_attention", "sliding_attention"}):
        raise ValueError(f"layer_types is {short(kinds)}; llama.py computes full_attention only")
    if kinds is not None and len(kinds) != count:
        raise ValueError(f"layer_types is {short(kinds)}: {len(kinds)} kinds for {count} layers")
    if given["model_type"] in ("llama", "mistral"):  # whose window no other setting turns off
        return window
    if given["model_type"] == "smollm3":
        slides = [used and window is not None and not rotates
                  for rotates in given["no_rope_layers"] or [1] * count]
    else:
        slides = [used and window is not None and i >= first for i in range(count)]
    if kinds is not None:  # they decide
        slides = [kind == "sliding_attention" for kind in kinds]
    if any(slides) and (window is None or window < given["max_position_embeddings"]):
        raise ValueError(f"layer {slides.index(True)} sees only a sliding_window of "
                         f"{short(window)} tokens; llama.py computes that of Mistral alone, for "
                         "inputs within it")
    return None


def read_no_rope(given: dict[str, Any]) -> tuple[int, ...]:
    """For each layer of SmolLM3, 1 if it rotates and 0 if not; empty for all other families."""
    if given["model_type"] != "smollm3":
        return ()
    count, every = given["num_hidden_layers"], given["no_rope_layer_interval"]
    check_count("no_rope_layer_interval", every)
    layers = given.get("no_rope_layers", [int((i + 1) % every != 0) for i in range(count)])
    if not isinstance(layers, list) or len(layers) != count or any(
            type(n) is not int or n not in (0, 1) for n in layers):
        raise ValueError(f"no_rope_layers must have a 0 or 1 for each of {count} layers, got "
                         f"{short(layers)}")
    return tuple(layers)


def refuse_unknown(stored: dict[str, Any]) -> None:
    """ValueError for a setting that llama.py would have to ignore."""
    if stored.get("quantization_config"):
        raise ValueError("the weights are quantized (quantization_config); take the original "
                         "checkpoint")
    if stored.get("auto_map"):
        raise ValueError(f"auto_map is {short(stored['auto_map'])}: the checkpoint brings code of "
                         "its own, which may compute another model than its model_type says")
    made_for = stored.get("architectures", [])
    if not isinstance(made_for, list):
        raise ValueError(f"architectures must be a list of names, got {short(made_for)}")
    if made_for and not any(str(name).endswith("ForCausalLM") for name in made_for):
        raise ValueError(f"architectures is {short(made_for)}: that is no language model with an "
                         "output for every token, such as LlamaForCausalLM")
    read = READ | NO_ROPE if stored["model_type"] == "smollm3" else READ
    for key, value in stored.items():
        if key == "attention_bias" and stored["model_type"] == "qwen2" and isinstance(value, bool):
            continue  # it has biases whatever that says, as in transformers
        if key in ONLY:
            ours = ONLY[key]
            if value != ours or isinstance(value, bool) != isinstance(ours, bool):
                raise ValueError(f"{key} is {short(value)}; llama.py computes only {ours!r}")
        elif key not in read | HARMLESS | {"auto_map"} and not key.startswith("_"):
            raise ValueError(f"{short(key)} is {short(value)}, which llama.py does not know: it "
                             "would be another model without it. If you are sure that it changes "
                             "nothing, take it out of the file")


def read_rope(stored: dict[str, Any]) -> dict[str, Any]:
    """The rotary angles' base and scaling, which a `config.json` may give in several places.

    ValueError if those disagree, or for another scaling than that of Llama 3.1.
    """
    given = {"rope_theta": [stored[key] for key in stored if key == "rope_theta"],
             "rope_scaling": []}
    for key in ROPE:
        if rope := stored.get(key):
            if not isinstance(rope, dict):
                raise ValueError(f"{key} must be an object, got {short(rope)}")
            if rope.get("rope_theta") is not None:
                given["rope_theta"].append(rope["rope_theta"])
            given["rope_scaling"].append(read_scaling(
                {name: value for name, value in rope.items() if name != "rope_theta"}))
    bases = [stored[key].get("rope_theta") for key in ROPE if stored.get(key)]
    if "rope_theta" not in stored and len(bases) == 2 and bases[0] != bases[1]:
        # of two places transformers reads the older alone, and its default where that has none
        raise ValueError(f"rope_theta is given twice, as {short(bases[0])} and {short(bases[1])}, "
                         f"in {ROPE[0]} and {ROPE[1]}: which one counts? Write it in both")
    for key, found in given.items():
        for value in found:
            if value != found[0]:
                raise ValueError(f"{key} is given twice, as {short(found[0])} and {short(value)}: "
                                 "which one counts?")
    return {key: found[0] for key, found in given.items() if found}


def read_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    """How the rotary angles are scaled: not at all, or as in Llama 3.1."""
    kinds = [rope[key] for key in ("rope_type", "type") if key in rope] or ["default"]
    numbers = {key: value for key, value in rope.items() if key not in ("rope_type", "type")}
    names = RopeScaling.__dataclass_fields__.keys()
    if kinds[0] == kinds[-1] == "llama3" and numbers.keys() == names:
        for key in names:
            check_between(key, numbers[key], 1e-3, LARGEST["max_position_embeddings"])
        check_count("original_max_position_embeddings", numbers["original_max_position_embeddings"])
        if not numbers["low_freq_factor"] < numbers["high_freq_factor"]:
            raise ValueError("low_freq_factor must be below high_freq_factor, got "
                             f"{numbers['low_freq_factor']} and {numbers['high_freq_factor']}")
        return RopeScaling(**numbers)
    if numbers or kinds[0] != "default" or kinds[-1] != "default":
        unlike = sorted(numbers.keys() ^ names) if kinds[0] == "llama3" else rope
        raise ValueError(f"llama.py computes only plain RoPE, and llama3 with just {list(names)}, "
                         f"not {short(kinds[0])} with {short(unlike)}")
    return None


def check_between(key: str, value: Any, low: float, high: float) -> float:
    """A number of a file, in the range where nothing overflows. TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{key} must be a number, got {short(value)}")
    if not low <= value <= high:
        raise ValueError(f"{key} must be from {low:g} to {high:g}, got {short(value)}")
    return float(value)
