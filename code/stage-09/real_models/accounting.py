"""How many parameters, how much memory, how large a file: exact answers for real models.

A model is read from its Hugging Face `config.json`. All that this module knows about architectures
is the table `FAMILIES`: which modules a family has and how wide they are. Every count below is
derived from it. Only the standard library is needed, and nothing is ever downloaded.

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

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

# ------------------------------------------------------------- the table: what a family consists of
#
# symbols   `name = first | second | ...`: the first alternative that the config.json can answer. An
#           alternative is a key of the config, a number, an expression in symbols defined above it,
#           or `key~text`: does the value of that key start with this text?
# modules   `path  kind  size size  [bias] [bias:flag] [tied:flag] [if:flag]`, one line for each
#           module. `{layers}` in a path repeats the line for 0 … layers-1. Sizes and flags are
#           expressions in symbols. `tied` means that the weight is another module's: not counted.
#               linear     in out         conv1d   in out  (a linear layer stored transposed; GPT-2)
#               embedding  rows width     norm     width   (LayerNorm if it has a bias, or RMSNorm)
# heads     the modules that a task puts on top.
# lora, ia3, feedforward   the target modules that Hugging Face PEFT takes when none are named.
#
# Expressions use + - * / and comparisons only, so that the explorer can read the same table in the
# browser for a configuration that somebody pastes.

_DECODER_SYMBOLS = """
    d = hidden_size
    ff = intermediate_size
    layers = num_hidden_layers
    heads = num_attention_heads
    kv = num_key_value_heads | heads
    dh = head_dim | d / heads
    vocab = vocab_size
    prefix_width = kv * dh
    tied = tie_word_embeddings | 0
"""
_ATTENTION = """
    model.embed_tokens                                    embedding vocab d
    model.norm                                            norm d
    model.layers.{layers}.input_layernorm                 norm d
    model.layers.{layers}.self_attn.q_proj                linear d heads*dh  bias:qkv_bias
    model.layers.{layers}.self_attn.k_proj                linear d kv*dh     bias:qkv_bias
    model.layers.{layers}.self_attn.v_proj                linear d kv*dh     bias:qkv_bias
    model.layers.{layers}.self_attn.o_proj                linear heads*dh d  bias:o_bias
    model.layers.{layers}.self_attn.q_norm                norm dh            if:qk_norm
    model.layers.{layers}.self_attn.k_norm                norm dh            if:qk_norm
    model.layers.{layers}.post_attention_layernorm        norm d
"""
_GATED_MLP = """
    model.layers.{layers}.pre_feedforward_layernorm       norm d             if:four_norms
    model.layers.{layers}.mlp.gate_proj                   linear d ff        bias:mlp_bias
    model.layers.{layers}.mlp.up_proj                     linear d ff        bias:mlp_bias
    model.layers.{layers}.mlp.down_proj                   linear ff d        bias:mlp_bias
    model.layers.{layers}.post_feedforward_layernorm      norm d             if:four_norms
"""
_EXPERTS = """
    model.layers.{layers}.block_sparse_moe.gate                     linear d experts
    model.layers.{layers}.block_sparse_moe.experts.{experts}.w1     linear d ff
    model.layers.{layers}.block_sparse_moe.experts.{experts}.w2     linear ff d
    model.layers.{layers}.block_sparse_moe.experts.{experts}.w3     linear d ff
"""
_SCORE = "score linear d labels"
_DECODER_HEADS = {"CAUSAL_LM": "lm_head linear d vocab tied:tied", "SEQ_CLS": _SCORE}


def _decoder(flags: str = "", mlp: str = _GATED_MLP, **more: Any) -> dict:
    """A family built like Llama. `flags` sets or overrides symbols, `more` the other entries."""
    set_flags = dict.fromkeys(["qkv_bias", "o_bias", "qk_norm", "mlp_bias", "four_norms"], "0")
    set_flags |= dict(line.split(" = ", 1) for line in flags.strip().split("; ") if line)
    symbols = _DECODER_SYMBOLS + "\n".join(f"{name} = {rule}" for name, rule in set_flags.items())
    return {"symbols": symbols, "modules": _ATTENTION + mlp, "heads": _DECODER_HEADS,
            "lora": ["q_proj", "v_proj"], "ia3": ["q_proj", "v_proj", "down_proj"],
            "feedforward": ["down_proj"], **more}


_T5_ATTENTION = """
    {place}.q                      linear d heads*dkv
    {place}.k                      linear d heads*dkv
    {place}.v                      linear d heads*dkv
    {place}.o                      linear heads*dkv d
"""
_T5_MLP = """
    {place}.layer_norm             norm d
    {place}.DenseReluDense.wi      linear d ff   if:1-gated
    {place}.DenseReluDense.wi_0    linear d ff   if:gated
    {place}.DenseReluDense.wi_1    linear d ff   if:gated
    {place}.DenseReluDense.wo      linear ff d
"""
_T5_STACK = "    {stack}.final_layer_norm norm d\n" + (
    "    {stack}.block.0.layer.0.SelfAttention.relative_attention_bias embedding buckets heads\n")


def _t5(default_mlp: str, default_tied: int, **more: Any) -> dict:
    """T5 and its relatives. Version 1.0: ReLU MLP, tied head. 1.1, Flan and mT5: gated, untied."""
    rows = "    shared embedding vocab d\n"
    for stack, count, mlp in (("encoder", "layers", 1), ("decoder", "decoder_layers", 2)):
        block = f"{stack}.block.{{{count}}}.layer."
        rows += _T5_STACK.replace("{stack}", stack)
        for number, attention in enumerate(["SelfAttention", "EncDecAttention"][:mlp]):
            rows += f"    {block}{number}.layer_norm norm d\n"
            rows += _T5_ATTENTION.replace("{place}", f"{block}{number}.{attention}")
        rows += _T5_MLP.replace("{place}", f"{block}{mlp}")
    symbols = f"""
        d = d_model
        dkv = d_kv
        ff = d_ff
        layers = num_layers
        decoder_layers = num_decoder_layers | layers
        heads = num_heads
        vocab = vocab_size
        prefix_width = d
        buckets = relative_attention_num_buckets | 32
        gated = feed_forward_proj~gated | {default_mlp}
        tied = tie_word_embeddings | {default_tied}
    """
    return {"symbols": symbols, "modules": rows,
            "heads": {"SEQ_2_SEQ_LM": "lm_head linear d vocab tied:tied"},
            "lora": ["q", "v"], **more}


_BERT_SYMBOLS = """
    d = hidden_size
    ff = intermediate_size
    layers = num_hidden_layers
    heads = num_attention_heads
    vocab = vocab_size
    positions = max_position_embeddings
    types = type_vocab_size
    prefix_width = d
    tied = tie_word_embeddings | 1
"""
_BERT = """
    {base}.embeddings.word_embeddings                             embedding vocab d
    {base}.embeddings.position_embeddings                         embedding positions d
    {base}.embeddings.token_type_embeddings                       embedding types d
    {base}.embeddings.LayerNorm                                   norm d        bias
    {base}.encoder.layer.{layers}.attention.self.query            linear d d    bias
    {base}.encoder.layer.{layers}.attention.self.key              linear d d    bias
    {base}.encoder.layer.{layers}.attention.self.value            linear d d    bias
    {base}.encoder.layer.{layers}.attention.output.dense          linear d d    bias
    {base}.encoder.layer.{layers}.attention.output.LayerNorm      norm d        bias
    {base}.encoder.layer.{layers}.intermediate.dense              linear d ff   bias
    {base}.encoder.layer.{layers}.output.dense                    linear ff d   bias
    {base}.encoder.layer.{layers}.output.LayerNorm                norm d        bias
"""
_CLASSIFIER = "classifier linear d labels bias"
_ROBERTA = {
    "symbols": _BERT_SYMBOLS,
    "modules": _BERT.replace("{base}", "roberta"),
    "heads": {
        "MASKED_LM": """lm_head.dense linear d d bias
                        lm_head.layer_norm norm d bias
                        lm_head.decoder linear d vocab bias tied:tied""",
        "SEQ_CLS": """classifier.dense linear d d bias
                      classifier.out_proj linear d labels bias""",
        "TOKEN_CLS": _CLASSIFIER,
        "FEATURE_EXTRACTION": "roberta.pooler.dense linear d d bias",
    },
    "lora": ["query", "value"], "ia3": ["key", "value", "output.dense"],
    "feedforward": ["output.dense"],
}
_BIASED_ATTENTION_IA3 = {"ia3": ["k_proj", "v_proj", "down_proj"]}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _decoder("qkv_bias = attention_bias | 0; o_bias = attention_bias | 0; "
                      "mlp_bias = mlp_bias | 0", **_BIASED_ATTENTION_IA3),
    "mistral": _decoder(**_BIASED_ATTENTION_IA3),
    "mixtral": _decoder("experts = num_local_experts; active = num_experts_per_tok | 2",
                        mlp=_EXPERTS, ia3=["k_proj", "v_proj", "w2"], feedforward=["w2"]),
    "gemma": _decoder("qkv_bias = attention_bias | 0; o_bias = attention_bias | 0; "
                      "tied = tie_word_embeddings | 1"),
    "gemma2": _decoder("qkv_bias = attention_bias | 0; o_bias = attention_bias | 0; "
                       "tied = tie_word_embeddings | 1; four_norms = 1"),
    "gemma3_text": _decoder("qkv_bias = attention_bias | 0; o_bias = attention_bias | 0; "
                            "qk_norm = 1; tied = tie_word_embeddings | 1; four_norms = 1"),
    "qwen2": _decoder("qkv_bias = 1"),
    "qwen3": _decoder("qkv_bias = attention_bias | 0; o_bias = attention_bias | 0; qk_norm = 1"),
    "phi3": {
        "symbols": _DECODER_SYMBOLS,
        "modules": """
            model.embed_tokens                                  embedding vocab d
            model.norm                                          norm d
            model.layers.{layers}.input_layernorm               norm d
            model.layers.{layers}.self_attn.qkv_proj            linear d (heads+2*kv)*dh
            model.layers.{layers}.self_attn.o_proj              linear heads*dh d
            model.layers.{layers}.post_attention_layernorm      norm d
            model.layers.{layers}.mlp.gate_up_proj              linear d 2*ff
            model.layers.{layers}.mlp.down_proj                 linear ff d
        """,
        "heads": _DECODER_HEADS,
    },
    "phi": {
        "symbols": _DECODER_SYMBOLS + "qk_norm = qk_layernorm | 0",
        "modules": """
            model.embed_tokens                                  embedding vocab d
            model.final_layernorm                               norm d            bias
            model.layers.{layers}.input_layernorm               norm d            bias
            model.layers.{layers}.self_attn.q_proj              linear d heads*dh bias
            model.layers.{layers}.self_attn.k_proj              linear d kv*dh    bias
            model.layers.{layers}.self_attn.v_proj              linear d kv*dh    bias
            model.layers.{layers}.self_attn.dense               linear heads*dh d bias
            model.layers.{layers}.self_attn.q_layernorm         norm d/heads      bias if:qk_norm
            model.layers.{layers}.self_attn.k_layernorm         norm d/heads      bias if:qk_norm
            model.layers.{layers}.mlp.fc1                       linear d ff       bias
            model.layers.{layers}.mlp.fc2                       linear ff d       bias
        """,
        "heads": {"CAUSAL_LM": "lm_head linear d vocab bias tied:tied", "SEQ_CLS": _SCORE},
        "lora": ["q_proj", "v_proj", "fc1", "fc2"], "ia3": ["q_proj", "v_proj", "fc2"],
        "feedforward": ["fc2"],
    },
    "phi-msft": {  # phi-2 as first released: the names that early tutorials use
        "symbols": """
            d = n_embd
            layers = n_layer
            heads = n_head
            ff = n_inner | 4*d
            vocab = vocab_size
            prefix_width = d
        """,
        "modules": """
            transformer.embd.wte                    embedding vocab d
            transformer.h.{layers}.ln               norm d          bias
            transformer.h.{layers}.mixer.Wqkv       linear d 3*d    bias
            transformer.h.{layers}.mixer.out_proj   linear d d      bias
            transformer.h.{layers}.mlp.fc1          linear d ff     bias
            transformer.h.{layers}.mlp.fc2          linear ff d     bias
        """,
        "heads": {"CAUSAL_LM": """lm_head.ln norm d bias
                                  lm_head.linear linear d vocab bias"""},
    },
    "gpt2": {
        "symbols": """
            d = n_embd | hidden_size
            layers = n_layer | num_hidden_layers
            heads = n_head | num_attention_heads
            ff = n_inner | 4*d
            vocab = vocab_size
            positions = n_positions | max_position_embeddings
            prefix_width = d
            tied = tie_word_embeddings | 1
        """,
        "modules": """
            transformer.wte                         embedding vocab d
            transformer.wpe                         embedding positions d
            transformer.h.{layers}.ln_1             norm d          bias
            transformer.h.{layers}.attn.c_attn      conv1d d 3*d    bias
            transformer.h.{layers}.attn.c_proj      conv1d d d      bias
            transformer.h.{layers}.ln_2             norm d          bias
            transformer.h.{layers}.mlp.c_fc         conv1d d ff     bias
            transformer.h.{layers}.mlp.c_proj       conv1d ff d     bias
            transformer.ln_f                        norm d          bias
        """,
        "heads": _DECODER_HEADS | {"TOKEN_CLS": _CLASSIFIER},
        "lora": ["c_attn"], "ia3": ["c_attn", "mlp.c_proj"], "feedforward": ["mlp.c_proj"],
    },
    "opt": {
        "symbols": """
            d = hidden_size
            ff = ffn_dim
            layers = num_hidden_layers
            heads = num_attention_heads
            vocab = vocab_size
            positions = max_position_embeddings
            word = word_embed_proj_dim | d
            prefix_width = d
            biased = enable_bias | 1
            final = do_layer_norm_before | 1
            drop_final = _remove_final_layer_norm | 0
            tied = tie_word_embeddings | 1
        """,
        "modules": """
            model.decoder.embed_tokens                              embedding vocab word
            model.decoder.embed_positions                           embedding positions+2 d
            model.decoder.project_in                                linear word d     if:word!=d
            model.decoder.project_out                               linear d word     if:word!=d
            model.decoder.final_layer_norm                      norm d      bias if:final>drop_final
            model.decoder.layers.{layers}.self_attn.q_proj          linear d d        bias:biased
            model.decoder.layers.{layers}.self_attn.k_proj          linear d d        bias:biased
            model.decoder.layers.{layers}.self_attn.v_proj          linear d d        bias:biased
            model.decoder.layers.{layers}.self_attn.out_proj        linear d d        bias:biased
            model.decoder.layers.{layers}.self_attn_layer_norm      norm d            bias
            model.decoder.layers.{layers}.fc1                       linear d ff       bias:biased
            model.decoder.layers.{layers}.fc2                       linear ff d       bias:biased
            model.decoder.layers.{layers}.final_layer_norm          norm d            bias
        """,
        "heads": {"CAUSAL_LM": "lm_head linear word vocab tied:tied",
                  "SEQ_CLS": "score linear word labels"},
        "lora": ["q_proj", "v_proj"], "ia3": ["q_proj", "k_proj", "fc2"], "feedforward": ["fc2"],
    },
    "bloom": {
        "symbols": """
            d = hidden_size | n_embed | n_embd
            layers = n_layer | num_hidden_layers
            heads = n_head | num_attention_heads
            vocab = vocab_size
            ff = 4*d
            prefix_width = d
            tied = tie_word_embeddings | 1
        """,
        "modules": """
            transformer.word_embeddings                             embedding vocab d
            transformer.word_embeddings_layernorm                   norm d          bias
            transformer.h.{layers}.input_layernorm                  norm d          bias
            transformer.h.{layers}.self_attention.query_key_value   linear d 3*d    bias
            transformer.h.{layers}.self_attention.dense             linear d d      bias
            transformer.h.{layers}.post_attention_layernorm         norm d          bias
            transformer.h.{layers}.mlp.dense_h_to_4h                linear d ff     bias
            transformer.h.{layers}.mlp.dense_4h_to_h                linear ff d     bias
            transformer.ln_f                                        norm d          bias
        """,
        "heads": _DECODER_HEADS | {"TOKEN_CLS": _CLASSIFIER},
        "lora": ["query_key_value"], "ia3": ["query_key_value", "mlp.dense_4h_to_h"],
        "feedforward": ["mlp.dense_4h_to_h"],
    },
    "t5": _t5("0", 1, ia3=["k", "v", "wo"], feedforward=["wo"]),
    "mt5": _t5("1", 0, ia3=["k", "v", "wi_1"], feedforward=[]),
    "bert": {
        "symbols": _BERT_SYMBOLS,
        "modules": _BERT.replace("{base}", "bert"),
        "heads": {
            "MASKED_LM": """cls.predictions.transform.dense linear d d bias
                            cls.predictions.transform.LayerNorm norm d bias
                            cls.predictions.decoder linear d vocab bias tied:tied""",
            "SEQ_CLS": f"bert.pooler.dense linear d d bias\n{_CLASSIFIER}",
            "TOKEN_CLS": _CLASSIFIER,
            "FEATURE_EXTRACTION": "bert.pooler.dense linear d d bias",
        },
        "lora": ["query", "value"], "ia3": ["key", "value", "output.dense"],
        "feedforward": ["output.dense"],
    },
    "roberta": _ROBERTA,
    "xlm-roberta": {key: _ROBERTA[key] for key in ("symbols", "modules", "heads", "lora")},
}

# The class named in a config.json tells which head the checkpoint carries.
_TASK_OF_CLASS = {
    "ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForMaskedLM": "MASKED_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM", "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS", "Model": "FEATURE_EXTRACTION",
}
_PEFT_HEADS = ["classifier", "score"]  # trained along with the adapter in classification tasks


# --------------------------------------------------------------------------- reading a config.json


_LARGEST_SIZE = 100_000_000  # of one dimension, and
_MOST_MODULES = 100_000  # in all: a lying file must not eat the memory


def _resolve(rule: str, known: Mapping[str, int], config: Mapping[str, Any], family: str) -> int:
    """The first alternative of a symbol's rule that the config, or what is known of it, answers."""
    alternatives = [alternative.strip() for alternative in rule.split("|")]
    for alternative in alternatives:
        key, test, prefix = alternative.partition("~")
        if config.get(key) is not None:
            value = config[key]
            if test:
                return int(str(value).startswith(prefix))
            if alternatives[-1] in ("0", "1"):  # a flag: its default says so
                if value not in (0, 1):
                    raise ValueError(f"config.json: {key} must be true or false, got {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"config.json: {key} must be a positive integer, got {value!r}")
            if int(value) > _LARGEST_SIZE:
                raise ValueError(f"config.json: {key} is larger than {_LARGEST_SIZE:,}, "
                                 "which no model is; correct the file")
            return int(value)
        names = set(re.findall(r"[A-Za-z_]\w*", alternative))
        if not test and names <= known.keys():
            return _evaluate(alternative, known)
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
    kind: str  # linear, conv1d, embedding or norm
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

    @cached_property
    def num_parameters(self) -> int:
        """Parameters of the model, shared ones counted once."""
        return sum(module.num_parameters for module in self.modules)

    @cached_property
    def head(self) -> str | None:
        """Path of the language-model head, which `all-linear` and 4-bit loading leave alone."""
        outputs = [m.name for m in self.modules if m.is_linear and m.out_features == self["vocab"]]
        return outputs[-1] if outputs else None

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
    if isinstance(config, (str, Path)):
        path = Path(config)
        if not path.is_file():
            raise FileNotFoundError(f"no config.json at {path}; give the path of the file or its "
                                    "content as a dict")
        config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be the dict in a config.json, got {type(config).__name__}")
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        nested = "; this one nests a language model: pass config['text_config']" * (
            "text_config" in config)
        missing = "config.json: model_type is missing" if family is None else (
            f"config.json: model_type {family!r} is not a family this module knows")
        raise ValueError(f"{missing}. It knows {', '.join(FAMILIES)}{nested}")
    table = FAMILIES[family]

    task = task or _task_of(config, table)
    if task not in table["heads"] and task != "FEATURE_EXTRACTION":
        raise ValueError(f"{family} has no head for task {task!r}; it has "
                         f"{', '.join(table['heads'])} and FEATURE_EXTRACTION (none)")
    names = config.get("id2label") or {}
    if not isinstance(names, Mapping):
        raise ValueError(f"config.json: id2label must be an object, got {names!r:.80}")
    labels = num_labels or config.get("num_labels") or len(names) or 2
    if isinstance(labels, bool) or not isinstance(labels, int) or labels < 1:
        raise ValueError(f"num_labels must be a positive integer, got {labels!r}")
    symbols: dict[str, int] = {"labels": labels}
    for line in table["symbols"].strip().splitlines():
        symbol, rule = line.split("=", 1)
        symbols[symbol.strip()] = _resolve(rule, symbols, config, family)

    modules = _expand(table["modules"] + "\n" + table["heads"].get(task, ""), symbols)
    if task == "FEATURE_EXTRACTION":  # the bare model has no outer `model.`, `bert.`, …
        outer = modules[0].name.split(".")[0] + "."
        modules = [replace(m, name=m.name.removeprefix(outer)) for m in modules]
    return Model(family, task, symbols, tuple(modules), name)


def _task_of(config: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"config.json: architectures must be a list of names, got {classes!r:.80}")
    for class_name in classes:
        for ending, task in _TASK_OF_CLASS.items():
            if class_name.endswith(ending) and task in {*table["heads"], "FEATURE_EXTRACTION"}:
                return task
    return next(iter(table["heads"]))


def _expand(rows: str, symbols: Mapping[str, int]) -> list[Module]:
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
        repeats = [range(symbols[count]) for count in re.findall(r"{(\w+)}", path)]
        if len(modules) + math.prod(map(len, repeats)) > _MOST_MODULES:
            raise ValueError(f"config.json: with those called {path} that makes more than "
                             f"{_MOST_MODULES:,} modules, which no model has; correct the file")
        template = re.sub(r"{\w+}", "{}", path)
        modules += [Module(template.format(*at), kind, sizes, bias, tied)
                    for at in product(*repeats)]
    return modules


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
        targets = FAMILIES[model.family].get(default)
        if targets is None:
            raise ValueError(f"PEFT has no default target modules for {model.family}; pass "
                             f"target_modules, for example {linear_names(model)[:4]}")
    layers = [layers] if isinstance(layers, int) else layers
    everything = isinstance(targets, str) and targets.lower() == "all-linear"
    if layers is not None and isinstance(targets, str) and not everything:
        raise ValueError(f"layers={layers} needs a list of names, got the expression {targets!r}; "
                         "write the layers into the expression")

    if everything and model.task == "TOKEN_CLS":
        raise ValueError("PEFT refuses all-linear for token classification: it would adapt the "
                         "head and train it whole, too; list the target modules")

    def is_target(module: Module) -> bool:
        if exclude and matches(module.name, exclude):
            return False
        if any(re.match(rf"(^|.*\.){saved}($|\..*)", module.name) for saved in modules_to_save):
            return False
        if everything:
            heads = [model.head] + (_PEFT_HEADS if model.task == "SEQ_CLS" else [])
            hit = module.is_linear and module.name not in heads
        else:
            hit = matches(module.name, targets)
        if hit and layers is not None and not (not everything and module.name in targets):
            number = re.match(r".*?\.[^.]*\.(\d+)\.", module.name)
            hit = number is not None and int(number[1]) in layers
        return hit

    found = [module for module in model.modules if is_target(module)]
    unmatched = [] if isinstance(targets, str) else [
        target for target in targets if not any(matches(module.name, [target]) for module in found)]
    if not found:
        raise ValueError(f"target_modules {targets!r} match nothing in this {model.family} model; "
                         f"its modules are called {', '.join(linear_names(model))}")
    return found, unmatched


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
        Target names that matched no module. PEFT drops them without a word.
    notes : list of str
        What one must know to read the numbers correctly.
    """

    method: str
    model: Model
    trainable: int
    total: int
    tensors: Mapping[str, tuple[int, ...]] = field(repr=False)
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
            tensors[f"{m.name}.weight"] = m.weight_shape
        if m.bias:
            tensors[f"{m.name}.bias"] = (m.bias_size,)
    return Count("full", model, model.num_parameters, model.num_parameters, tensors)


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
               modules_to_save: Sequence[str] = (), head: str = "copied") -> Count:
    """LoRA: `rank * (in + out)` for each adapted module [Hu et al., 2021, section 4.1].

    An embedding counts `rank * (rows + width)`, in the same way.

    Parameters
    ----------
    rank : int
        `r` of PEFT's LoraConfig.
    target_modules : list of names, regular expression, "all-linear" or None
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
    head : {"copied", "in place", "both"}
        How these modules are counted. PEFT trains a copy and keeps the original ("copied"). Before
        28 March 2023 it trained the original ("in place"); from then until 26 September 2023 it
        trained the copy but counted both as trainable ("both").
    """
    _positive("rank", rank)
    _one_of("bias", bias, ("none", "all", "lora_only"))
    saved = _saved_names(model, modules_to_save)
    found, unmatched = find_modules(model, target_modules, exclude=exclude_modules, layers=layers,
                                    modules_to_save=saved)
    tensors = {}
    for m in found:
        r = _positive("rank", _rank_of(m.name, rank, rank_pattern or {}))
        key = f"base_model.model.{m.name}.lora_"
        if m.is_linear:
            n_in, n_out = m.sizes
            tensors |= {f"{key}A.weight": (r, n_in), f"{key}B.weight": (n_out, r)}
        elif m.kind == "embedding":
            rows, n_out = m.sizes
            tensors |= {f"{key}embedding_A": (r, rows), f"{key}embedding_B": (n_out, r)}
        else:
            raise ValueError(f"LoRA adapts linear layers and embeddings; {m.name} is a {m.kind}. "
                             "Take it out of target_modules, or put it in modules_to_save")
        if use_dora:
            tensors[f"{key}magnitude_vector"] = (n_out,)
        if lora_bias and m.is_linear:
            tensors[f"{key}B.bias"] = (n_out,)
    notes = []
    if use_rslora:
        notes.append("rsLoRA scales by alpha/sqrt(rank); it has no parameters of its own.")
    return _count_tuner("LoRA" if not use_dora else "DoRA", model, found, tensors, bias=bias,
                        saved=saved, head=head, unmatched=unmatched, notes=notes)


def _rank_of(name: str, rank: int, pattern: Mapping[str, int]) -> int:
    """The first entry of PEFT's `rank_pattern` that fits the end of the path, else `rank`."""
    return next((r for key, r in pattern.items() if re.match(rf"(.*\.)?({key})$", name)), rank)


def count_adalora(model: Model, init_rank: int = 12, target_modules: Targets = None,
                  **options: Any) -> Count:
    """AdaLoRA at its start: LoRA, and one singular value per rank [Zhang et al., 2023].

    PEFT also registers one frozen number per module, which `total` contains.
    """
    _positive("init_rank", init_rank)
    found, unmatched = find_modules(model, target_modules, default="adalora", **options)
    tensors = {}
    for m in found:
        key = f"base_model.model.{m.name}.lora_"
        tensors |= {f"{key}A": (init_rank, m.sizes[0]), f"{key}B": (m.sizes[1], init_rank),
                    f"{key}E": (init_rank, 1)}
    return _count_tuner("AdaLoRA", model, found, tensors, frozen=len(found), unmatched=unmatched)


def count_loha(model: Model, rank: int = 8, target_modules: Targets = None, **options) -> Count:
    """LoHa: the elementwise product of two LoRA updates, `2 rank (in + out)` per module."""
    _positive("rank", rank)
    found, unmatched = find_modules(model, target_modules, **options)
    tensors = {}
    for m in found:
        if m.kind != "linear":
            raise ValueError(f"PEFT's LoHa does not take {m.name}: it is a {m.kind}, not linear")
        for side in ("w1", "w2"):
            key = f"base_model.model.{m.name}.hada_{side}_"
            tensors |= {f"{key}a": (m.sizes[1], rank), f"{key}b": (rank, m.sizes[0])}
    return _count_tuner("LoHa", model, found, tensors, unmatched=unmatched)


def count_vera(model: Model, rank: int = 256, target_modules: Targets = None, **options) -> Count:
    """VeRA: two vectors, `rank + out` per module; the matrices are random, shared, never trained.

    PEFT's file contains the random matrices as well (`save_projection=True`).
    """
    _positive("rank", rank)
    found, unmatched = find_modules(model, target_modules, **options)
    tensors = {"base_model.vera_A": (rank, max(m.sizes[0] for m in found)),
               "base_model.vera_B": (max(m.sizes[1] for m in found), rank)}
    trained = {}
    for m in found:
        key = f"base_model.model.{m.name}.vera_lambda_"
        trained |= {f"{key}b": (m.sizes[1],), f"{key}d": (rank,)}
    counted = _count_tuner("VeRA", model, found, trained, unmatched=unmatched)
    return replace(counted, tensors=trained | tensors, notes=(
        "The file also holds the frozen random matrices, unless save_projection=False.",))


def count_ia3(model: Model, target_modules: Targets = None,
              feedforward_modules: Targets = None, **options) -> Count:
    """(IA)³: one scale per output, or per *input* for feed-forward modules [Liu et al., 2022]."""
    if (target_modules is None) != (feedforward_modules is None):
        raise ValueError("pass both target_modules and feedforward_modules, or neither, as in PEFT")
    found, unmatched = find_modules(model, target_modules, default="ia3", **options)
    inner = FAMILIES[model.family]["feedforward"] if feedforward_modules is None else (
        feedforward_modules)
    tensors = {}
    for m in found:
        shape = (1, m.sizes[0]) if matches(m.name, inner) else (m.sizes[1], 1)
        tensors[f"base_model.model.{m.name}.ia3_l"] = shape
    return _count_tuner("(IA)3", model, found, tensors, unmatched=unmatched)


def _saved_names(model: Model, modules_to_save: Sequence[str]) -> list[str]:
    if isinstance(modules_to_save, str):
        raise TypeError(f"modules_to_save must be a list of names, got {modules_to_save!r}; write "
                        f"[{modules_to_save!r}]")
    heads = _PEFT_HEADS if model.task in ("SEQ_CLS", "TOKEN_CLS") else []
    return list(dict.fromkeys([*modules_to_save, *heads]))


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
    notes = list(notes)
    if any(".experts." in m.name for m in adapted):
        notes.append("Experts as in Transformers 4, one linear layer each. Transformers 5 stacks "
                     "them, and PEFT then adapts the stack, with another count.")

    names = {m.name for m in adapted}
    embedding = next(m for m in model.modules if m.kind == "embedding")
    if any(m.name.split(".")[-1] in ("embed_tokens", "lm_head") for m in adapted):
        for m in adapted:  # PEFT then saves the frozen weights of these layers with the adapter
            if m.name in (embedding.name, model.head):
                file[f"base_model.model.{m.name}.base_layer.weight"] = m.weight_shape
                if m.bias:
                    file[f"base_model.model.{m.name}.base_layer.bias"] = (m.bias_size,)
                notes.append(f"PEFT saves the {math.prod(m.sizes):,} frozen weights of {m.name} "
                             "with the adapter, unless save_embedding_layers=False.")
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

    copies = sum(math.prod(m.sizes) + m.bias_size for m in whole)  # a tied weight is copied, too
    for m in whole:
        file[f"base_model.model.{m.name}.weight"] = m.weight_shape
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
    trainable = added + sum(m.bias_size for m in biased) + copies * (2 if head == "both" else 1)
    total = model.num_parameters + added + frozen + copies * (0 if head == "in place" else 1)
    unknown = [name for name in unknown if name not in _PEFT_HEADS]
    return Count(method, model, trainable, total, file, (*unmatched, *unknown), tuple(notes))


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
OPTIMIZERS = ("adamw", "adamw-8bit", "sgd")
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

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def __str__(self) -> str:
        rows = [f"{item.label:<28}{item.bytes / GB:>10.3f} GB   {item.why}" for item in self.items]
        total = f"{'total':<28}{self.bytes / GB:>10.3f} GB"
        return "\n".join([*rows, total, f"not included: {self.leaves_out}"])


def memory_bill(counted: Count, *, convention: str = "fp32", base: str = "bfloat16",
                optimizer: str = "adamw") -> Bill:
    """The memory of a model's states in training, exact under a stated convention.

    Parameters
    ----------
    counted : Count
        What is trained: the answer of `count_full`, `count_lora`, …
    convention : str
        One of `CONVENTIONS`: how the trainable parameters are kept. PEFT keeps adapters in 32 bits
        ("fp32") even on a 16-bit base.
    base : {"float32", "bfloat16", "int8", "nf4", "nf4+dq"}
        How the frozen weights are kept. int8 and NF4 apply to the linear layers except the head;
        all else stays in 16 bits. "nf4+dq" is NF4 with double quantization [Dettmers et al., 2023].
    optimizer : {"adamw", "adamw-8bit", "sgd"}
        8-bit AdamW keeps two bytes per parameter, plain SGD keeps nothing.
    """
    _one_of("convention", convention, CONVENTIONS)
    _one_of("optimizer", optimizer, OPTIMIZERS)
    weight, gradient, states, copy, how = CONVENTIONS[convention]
    states, optimizer_how = {
        "adamw": (states, f"AdamW's two running averages, {states} bytes"),
        "adamw-8bit": (2, "AdamW's two running averages in 8 bits, 2 bytes"),
        "sgd": (0, "plain SGD remembers nothing"),
    }[optimizer]
    n = counted.trainable
    items = [*frozen_items(counted, base)]
    items.append(Item("trainable weights", n * weight,
                      f"{n:,} parameters, {weight} bytes each: {how}"))
    if copy:
        label = "32-bit master copy" if copy == 4 else "16-bit working copy"
        items.append(Item(label, n * copy, f"{copy} bytes for each trainable parameter"))
    items.append(Item("gradients", n * gradient, f"{gradient} bytes for each trainable parameter"))
    items.append(Item("optimizer state", n * states,
                      f"{optimizer_how} for each trainable parameter"))
    return Bill(tuple(items), "activations, temporary buffers, fragmentation, the CUDA context"
                + ("; 8-bit AdamW's scales and its small tensors, which stay in 32 bits"
                   if optimizer == "adamw-8bit" else ""))


def frozen_items(counted: Count, base: str = "bfloat16") -> list[Item]:
    """The frozen weights' lines of the bill. Full fine-tuning has none."""
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
    return [*items, Item("frozen, not quantized", rest * 2,
                         f"{rest:,} parameters in bfloat16: embeddings, head, norms, biases")]


def quantized_modules(model: Model) -> list[Module]:
    """The linear layers that loading in 4 or 8 bits converts: all but the head."""
    heads = {model.head, *_PEFT_HEADS}
    return [m for m in model.modules
            if m.kind == "linear" and m.name.split(".")[0] not in heads and m.name != model.head]


def activation_estimate(counted: Count, batch: int = 1, length: int = 512, *,
                        checkpointing: bool = False, attention: str = "flash") -> Bill:
    """What the forward pass keeps for the backward pass: an estimate, unlike everything else here.

    Frameworks decide for themselves what they keep. The rule here is for 16-bit training in
    PyTorch, with a loss over all positions. Always kept, because nonlinearities, attention and
    norms need them again: the outputs of the linear layers, the product inside a gated MLP, the
    input of every norm (RMSNorm's in 32 bits). Kept only where a weight trains: that layer's
    input. So a frozen weight saves something, but the gradient still passes through everything
    below it; that is why LoRA shrinks this part by a fifth or a quarter and not by a factor of
    thousands. Checkpointing does: it keeps each layer's input, and one layer at a time in full.

    Attention that never writes out its weights ("flash") keeps one 32-bit number per head and
    token; "eager" attention keeps them before and after the softmax, `heads * length` per token
    each. The logits are kept in 32 bits, with their gradient. An activation function written
    out in elementary steps, like GPT-2's, keeps several times what a fused one does: there this
    is too low.
    """
    tokens = _positive("batch", batch) * _positive("length", length)
    _one_of("attention", attention, ("flash", "eager"))
    model = counted.model
    layers = sum(model.symbols.get(key, 0) for key in ("layers", "decoder_layers"))
    full = counted.method == "full"
    values = 0.0  # 16-bit numbers kept per token, all layers together
    inputs: dict[tuple[str, int], float] = {}  # of trained layers, once for q, k and v together
    for m in model.modules:
        if not re.search(r"\.\d+\.", m.name):
            continue
        share = model["active"] / model["experts"] if ".experts." in m.name else 1
        if m.is_linear:
            n_in, n_out = m.sizes
            if n_in != model["ff"]:  # the MLP's last output is only added to the residual stream
                values += share * n_out
            if full or f"base_model.model.{m.name}.lora_A.weight" in counted.tensors:
                inputs[m.name.rpartition(".")[0], n_in] = share * n_in
        elif m.kind == "norm":
            values += m.out_features * ((1 if m.bias else 2) + (1 if full else 0))
    gates = sum(1 for m in model.modules if re.search(r"(gate_proj|gate_up_proj|wi_0)$", m.name))
    experts = sum(1 for m in model.modules if m.name.endswith("block_sparse_moe.gate"))
    values += model["ff"] * (gates + experts * model.symbols.get("active", 0))
    between = sum(shape[0] for name, shape in counted.tensors.items() if ".lora_A" in name)
    values += between + sum(inputs.values())
    attended = 4 * model["heads"] * layers if attention == "flash" else (
        2 * 2 * model["heads"] * length * layers)
    inside = round(tokens * (2 * values + attended))
    items = []
    if checkpointing:
        items.append(Item("layer inputs", 2 * tokens * model["d"] * layers,
                          f"{layers} layers, {model['d']} 16-bit numbers per token"))
        items.append(Item("one layer, recomputed", inside // layers,
                          "while its backward pass runs"))
    else:
        items.append(Item("inside the layers", inside,
                          f"{layers} layers, {inside / tokens / layers:,.0f} bytes per token each"))
    if model.head:
        items.append(Item("logits and their gradient", 8 * tokens * model["vocab"],
                          f"{model['vocab']:,} numbers of 32 bits per token, twice"))
    return Bill(tuple(items), "dropout masks, temporary buffers: this is an estimate")


# -------------------------------------------------------------------------------------- saved files

_SAFETENSORS_DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}


def saved_bytes(counted: Count, dtype: str = "float32") -> int:
    """Size in bytes of the saved adapter, exact to the file `adapter_model.safetensors`.

    The format is 8 bytes of length, a JSON header that names each tensor's type, shape and place,
    padded with spaces to a multiple of 8, then the numbers. So long names cost bytes: see
    :func:`safetensors_header`. The small adapter_config.json beside it is not included.
    """
    header = safetensors_header(counted.tensors, dtype)
    return 8 + len(header) + counted.stored * _SAFETENSORS_DTYPES[dtype][1]


def safetensors_header(tensors: Mapping[str, Sequence[int]], dtype: str = "float32") -> bytes:
    """The JSON header that PEFT's file has for tensors of these names and shapes."""
    _one_of("dtype", dtype, _SAFETENSORS_DTYPES)
    code, width = _SAFETENSORS_DTYPES[dtype]
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(tensors):
        start, end = end, end + width * math.prod(tensors[name])
        entries[name] = {"dtype": code, "shape": list(tensors[name]), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return header + b" " * (-len(header) % 8)
