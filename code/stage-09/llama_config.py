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
from validation import check_count

PROJECTIONS = tuple(f"self_attn.{p}_proj" for p in "qkvo") + tuple(
    f"mlp.{p}_proj" for p in ("gate", "up", "down"))
LAYER_MODULES = (*PROJECTIONS, "input_layernorm", "post_attention_layernorm",
                 "after_attention", "after_mlp", "parallel_mlp")


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a model; the fields are those of Hugging Face's `config.json`."""

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

    def __post_init__(self):
        d, H, K = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        for name in ("num_attention_heads", "num_key_value_heads"):
            check_count(name, getattr(self, name))
        if d % H or (d // H) % 2:
            raise ValueError(f"hidden_size must be num_attention_heads times an even head width, "
                             f"got {d} and {H} heads")
        if H % K:
            raise ValueError(f"num_attention_heads must be a multiple of num_key_value_heads, "
                             f"got {H} and {K}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_hugging_face(self) -> dict[str, Any]:
        """The content of a `config.json` that `transformers` loads as LlamaForCausalLM."""
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(self),
                "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
                "head_dim": self.head_dim, "hidden_act": "silu", "attention_bias": False,
                "mlp_bias": False, "attention_dropout": 0.0}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by its Hugging Face name."""
        d, m, kv = self.hidden_size, self.intermediate_size, self.num_key_value_heads
        kv *= self.head_dim
        shapes = {"model.embed_tokens.weight": (self.vocab_size, d)}
        for i in range(self.num_hidden_layers):
            for name, shape in zip(LAYER_MODULES, [(d, d), (kv, d), (kv, d), (d, d), (m, d),
                                                   (m, d), (d, m), (d,), (d,)]):
                shapes[f"model.layers.{i}.{name}.weight"] = shape
        shapes["model.norm.weight"] = (d,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, d)
        return shapes


# ------------------------------------------------------------------------------ reading, trustless

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "num_key_value_heads", "max_position_embeddings")
LARGEST = {"num_hidden_layers": 1_000, "max_position_embeddings": 2 ** 20}  # each costs memory
LARGEST_SIZE = 2 ** 24  # of any other size
RANGES = {"rms_norm_eps": (1e-12, 1.0), "rope_theta": (1.0, 1e12)}  # beyond them, NaN is near
ROPE = ("rope_parameters", "rope_scaling")  # today's name and that of transformers 4

# What transformers may leave out of the file since it equals the default of the family.
DEFAULTS = {"llama": {"num_key_value_heads": None, "max_position_embeddings": 2048,
                      "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False}}
READ = {*SIZES, *RANGES, *ROPE, "model_type", "architectures", "tie_word_embeddings", "head_dim",
        "sliding_window"}
ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "is_causal": True,
        "rope_interleaved": False, "partial_rotary_factor": 1.0, "use_mrope": False,
        "use_bidirectional_attention": False, "is_encoder_decoder": False,
        "add_cross_attention": False}
# Of training, of generation, of a file's origin, of how fast it is computed.
HARMLESS = set("""
    attention_dropout attn_implementation auto_map bad_words_ids begin_suppress_tokens
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

    A sliding window bites only on longer inputs than itself, so it becomes the longest input.
    Raises ValueError, TypeError.
    """
    stored = {key: value for key, value in stored.items() if value is not None}
    family = stored.get("model_type")
    if not isinstance(family, str) or family not in DEFAULTS:
        raise ValueError(f"model_type is {short(family)}; llama.py computes {list(DEFAULTS)}")
    refuse_unknown(stored)
    rope = read_rope(stored)
    given = DEFAULTS[family] | stored | rope
    for key in SIZES:
        if key == "num_key_value_heads" and given[key] is None:
            given[key] = given["num_attention_heads"]
        if check_count(key, given.get(key)) > (limit := LARGEST.get(key, LARGEST_SIZE)):
            raise ValueError(f"{key} is above {limit:,}: no such model")
    if "sliding_window" in given:
        window = check_count("sliding_window", given["sliding_window"])
        given["max_position_embeddings"] = min(window, given["max_position_embeddings"])
    for key, (low, high) in RANGES.items():
        check_between(key, given[key], low, high)
    if not isinstance(given["tie_word_embeddings"], bool):
        raise ValueError("tie_word_embeddings must be true or false, got "
                         f"{short(given['tie_word_embeddings'])}")
    config = LlamaConfig(**{key: given[key] for key in LlamaConfig.__dataclass_fields__})
    if given.get("head_dim", config.head_dim) != config.head_dim:
        raise ValueError(f"head_dim is {short(given['head_dim'])}; llama.py computes only "
                         f"hidden_size / num_attention_heads = {config.head_dim}")
    return config


def refuse_unknown(stored: dict[str, Any]) -> None:
    """ValueError for a setting that llama.py would have to ignore."""
    if stored.get("quantization_config"):
        raise ValueError("the weights are quantized (quantization_config); take the original "
                         "checkpoint")
    made_for = stored.get("architectures", [])
    if made_for and not any(str(name).endswith("ForCausalLM") for name in made_for):
        raise ValueError(f"architectures is {short(made_for)}: that is no language model with an "
                         "output for every token, such as LlamaForCausalLM")
    for key, value in stored.items():
        if key in ONLY:
            ours = ONLY[key]
            if value != ours or isinstance(value, bool) != isinstance(ours, bool):
                raise ValueError(f"{key} is {short(value)}; llama.py computes only {ours!r}")
        elif key not in READ | HARMLESS and not key.startswith("_"):
            raise ValueError(f"{short(key)} is {short(value)}, which llama.py does not know: it "
                             "would be another model without it. If you are sure that it changes "
                             "nothing, take it out of the file")


def read_rope(stored: dict[str, Any]) -> dict[str, Any]:
    """The rotary angles from a `config.json`, which may give their base in three places.

    ValueError if they disagree, or if the angles are scaled: our model has plain RoPE only.
    """
    places = [stored]
    for key in ROPE:
        if rope := stored.get(key):
            if not isinstance(rope, dict):
                raise ValueError(f"{key} must be an object, got {short(rope)}")
            scaled = {name: value for name, value in rope.items() if name != "rope_theta"
                      and (name not in ("rope_type", "type") or value != "default")}
            if scaled:
                kind = rope.get("rope_type", rope.get("type", "default"))
                raise ValueError(f"the rotary angles are of type {short(kind)}; llama.py computes "
                                 f"only plain RoPE, not {short(scaled)}")
            places.append(rope)
    given = [place["rope_theta"] for place in places if place.get("rope_theta") is not None]
    for theta in given:
        if theta != given[0]:
            raise ValueError(f"rope_theta is given twice, as {short(given[0])} and {short(theta)}: "
                             "which one counts?")
    return {"rope_theta": given[0]} if given else {}


def check_between(key: str, value: Any, low: float, high: float) -> float:
    """A number of a file, in the range where nothing overflows. TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{key} must be a number, got {short(value)}")
    if not low <= value <= high:
        raise ValueError(f"{key} must be from {low:g} to {high:g}, got {short(value)}")
    return float(value)
