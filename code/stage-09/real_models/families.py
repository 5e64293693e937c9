"""The table of architectures: which modules a family has and how wide they are.

`accounting.py` derives every count from it, and the memory explorer reads the same table in the
page for a configuration that somebody pastes. It is data: nothing here computes a count.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# symbols   `name = first | second | ...`: the first alternative that the config.json can answer. An
#           alternative is a key of the config, a number, an expression in symbols defined above it,
#           or `key~text`: does the value of that key start with this text? `key~*text`: is this
#           text in it? `key~>`: is this number above 0? `key?` may be 0 or null, `key?-1` also -1:
#           then there is none of it, and the symbol is 0.
# defaults  what the family's class in transformers takes for a key that the file leaves out. A key
#           that is there and null has no default: it goes on to the next alternative.
# modules   `path  kind  size size  [bias] [bias:flag] [tied:flag] [if:flag]`, one line for each
#           module. `{layers}` in a path repeats the line for 0 … layers-1, `{dense:layers}` from
#           dense on, `{layer_types=mamba}` for the layers of that kind in a list, `{layer_types=
#           mamba:stop}` for those of them before a number. Sizes and flags are expressions in
#           symbols. `tied` means that the weight is another module's: not counted.
#               linear     in out         conv1d   in out  (a linear layer stored transposed; GPT-2)
#               embedding  rows width     norm     width   (LayerNorm if it has a bias, or RMSNorm)
#               stack      sizes …        a parameter of this very name that is no layer of its own:
#                                         neither target_modules nor bitsandbytes see it
# parts     the configurations inside the file's; their keys are called `part.key` here. A model
#           whose text_config is of another type than usual is a family `type/type of text_config`.
# needs     of these, besides text_config, those that a file must have.
# replaced  true if `part_dict` says all of a part, whatever the part itself says.
# flat      the part whose keys may stand outside of it instead.
# lists     the lists of kinds: their key, the kinds that may stand there, and with `every` the key
#           of an interval (its default, the usual kind, the kind of every so-manieth layer) that
#           stands for a list that is left out. `offset`, another key and its default, says which of
#           the layers in an interval that is, else the last; a third key, of which 1 means that no
#           layer is. With `numbers`, the key that lists the numbers of some layers instead, the
#           kind of all others, theirs, and which they are if it is left out (null: all). With
#           `last`, what the last layer is whatever the list says.
# letters   the key of a text that says the kind of each layer by a letter, where none of these
#           lists does; these decide how many layers there are.
# aliases   another name of a key -> the key, and which others transformers makes of that before it
#           reads this name: without them in the file it is refused.
# alike     keys that may be a list with the same number for each layer.
# auto      keys whose text "auto" means what null means.
# overrides   a key that says it of each layer: which list and kind it may be said of, and for each
#           of its keys the one that says it of all of them, and a flag without which that is none.
# heads     the modules that a task puts on top, in the same notation. A line `name = value` sets a
#           symbol for this task, `root name` renames the part in front of the first dot.
# head      the task of a file that names no class.
# classes   a class under `architectures` -> the task of its head. No other class is counted.
# only      keys that change the model in a way that is not counted: key -> the values that are.
# fits      what transformers asks of sizes that no count depends on: `size / parts`, which must be
#           whole, or `size = other`. The other is a symbol, a number, or a key that may be
#           left out; then `| number` stands for it, or nothing is asked.
# own_code  entries of `auto_map` that build the same model as transformers does.
# not_quantized   names that loading in 4 or 8 bits keeps as they are.
# note      what one must know to read any count of this family.
# refused   names that PEFT's LoRA refuses in this family.
# no_embeddings   true if the model has none of tokens, or transformers does not say which they are;
#           PEFT asks for them when it saves a head, and when tokens train.
# not_estimated   why what training keeps of its layers is not estimated.
# fused     the names of the router's and the experts' layers in transformers 4: PEFT's LoRA reads
#           them as the stacks that hold them now, see `_stacked` in accounting.py.
# lora, adalora, vera, ia3, feedforward   the target modules that Hugging Face PEFT takes when none
#           are named; without `vera`, VeRA takes LoRA's, as LoHa does.
#
# Expressions use + - * / // and comparisons only, so that the explorer can read the same table in
# the browser. Nothing may depend on the order of keys: notebooks are stored with sorted ones.

_CLASS_OF_TASK = {
    "CAUSAL_LM": "ForCausalLM", "SEQ_2_SEQ_LM": "ForConditionalGeneration",
    "MASKED_LM": "ForMaskedLM", "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification", "QUESTION_ANS": "ForQuestionAnswering",
    "PRE_TRAINING": "ForPreTraining", "MULTIPLE_CHOICE": "ForMultipleChoice",
    "NEXT_SENTENCE": "ForNextSentencePrediction", "ENCODER": "EncoderModel",
    "FEATURE_EXTRACTION": "Model",
}


def _classes(name: str, heads: Iterable[str], **others: str) -> dict[str, str]:
    """The classes of transformers that have these heads, and the one that has none."""
    return {name + _CLASS_OF_TASK[task]: task for task in [*heads, "FEATURE_EXTRACTION"]} | others


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
_T5_STACK = """
    {stack}.final_layer_norm norm d if:{count}
    {stack}.block.0.layer.0.SelfAttention.relative_attention_bias embedding buckets heads if:{count}
"""


def _t5(name: str, defaults: dict[str, int], default_mlp: str, default_tied: int,
        **more: Any) -> dict:
    """T5 and its relatives. Version 1.0: ReLU MLP, tied head. 1.1, Flan and mT5: gated, untied."""
    rows = "    shared embedding vocab d\n"
    for stack, count, mlp in (("encoder", "layers", 1), ("decoder", "decoder_layers", 2)):
        rows += f"    {stack}.embed_tokens embedding vocab d tied:1 if:({count}>0)\n"
        block = f"{stack}.block.{{{count}}}.layer."
        rows += _T5_STACK.replace("{stack}", stack).replace("{count}", count)
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
        gated = is_gated_act | feed_forward_proj~gated | {default_mlp}
        tied = tie_word_embeddings | {default_tied}
    """
    heads = {"SEQ_2_SEQ_LM": "lm_head linear d vocab tied:tied",
             "QUESTION_ANS": "qa_outputs linear d labels bias", "ENCODER": "decoder_layers = 0"}
    return {"symbols": symbols, "modules": rows, "heads": heads, "head": "SEQ_2_SEQ_LM",
            "classes": _classes(name, heads, **{f"{name}WithLMHeadModel": "SEQ_2_SEQ_LM"}),
            "defaults": defaults,
            "not_quantized": ["wo"],  # transformers keeps it in 32 bits
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
_BERT_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                  "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512,
                  "type_vocab_size": 2}
_BERT_ONLY = {"add_cross_attention": [False], "tie_word_embeddings": [True]}
_CLASSIFIER = "classifier linear d labels bias"
_BERT_HEAD = """cls.predictions.transform.dense linear d d bias
                cls.predictions.transform.LayerNorm norm d bias
                cls.predictions.decoder linear d vocab bias tied:tied"""
_BERT_HEADS = {
    "MASKED_LM": _BERT_HEAD,
    "SEQ_CLS": f"bert.pooler.dense linear d d bias\n{_CLASSIFIER}",
    "TOKEN_CLS": _CLASSIFIER,
    "QUESTION_ANS": "qa_outputs linear d labels bias",
    "PRE_TRAINING": f"""bert.pooler.dense linear d d bias
                        {_BERT_HEAD}
                        cls.seq_relationship linear d 2 bias""",
    "NEXT_SENTENCE": """bert.pooler.dense linear d d bias
                        cls.seq_relationship linear d 2 bias""",
    "MULTIPLE_CHOICE": """bert.pooler.dense linear d d bias
                          classifier linear d 1 bias""",
    "FEATURE_EXTRACTION": "bert.pooler.dense linear d d bias",
}
_ROBERTA = {
    "symbols": _BERT_SYMBOLS, "defaults": _BERT_DEFAULTS | {"vocab_size": 50265},
    "head": "MASKED_LM", "only": _BERT_ONLY,
    "modules": _BERT.replace("{base}", "roberta"),
    "heads": {
        "MASKED_LM": """lm_head.dense linear d d bias
                        lm_head.layer_norm norm d bias
                        lm_head.decoder linear d vocab bias tied:tied""",
        "SEQ_CLS": """classifier.dense linear d d bias
                      classifier.out_proj linear d labels bias""",
        "TOKEN_CLS": _CLASSIFIER,
        "QUESTION_ANS": "qa_outputs linear d labels bias",
        "MULTIPLE_CHOICE": """roberta.pooler.dense linear d d bias
                              classifier linear d 1 bias""",
        "FEATURE_EXTRACTION": "roberta.pooler.dense linear d d bias",
    },
    "lora": ["query", "value"], "adalora": ["query", "key", "value", "dense"],
    "ia3": ["key", "value", "output.dense"],
    "feedforward": ["output.dense"],
}

FAMILIES: dict[str, dict[str, Any]] = {
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
        "head": "CAUSAL_LM", "classes": {"PhiForCausalLM": "CAUSAL_LM"}, "defaults": {},
        "own_code": ["configuration_phi.PhiConfig", "modeling_phi.PhiForCausalLM"],
    },
    "t5": _t5("T5", {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
                     "vocab_size": 32128}, "0", 1, adalora=["q", "k", "v", "o", "wi", "wo"],
              ia3=["k", "v", "wo"], feedforward=["wo"]),
    "mt5": _t5("MT5", {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
                       "vocab_size": 250112}, "1", 0,
               adalora=["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
               ia3=["k", "v", "wi_1"], feedforward=[]),
    "bert": {
        "symbols": _BERT_SYMBOLS,
        "modules": _BERT.replace("{base}", "bert"),
        "defaults": _BERT_DEFAULTS, "only": _BERT_ONLY,
        "heads": _BERT_HEADS, "head": "MASKED_LM",
        "classes": _classes("Bert", _BERT_HEADS, BertLMHeadModel="MASKED_LM"),
        "lora": ["query", "value"], "adalora": ["query", "value"],
        "ia3": ["key", "value", "output.dense"], "feedforward": ["output.dense"],
    },
    "roberta": _ROBERTA | {"classes": _classes("Roberta", _ROBERTA["heads"],
                                               RobertaForCausalLM="MASKED_LM")},
    "xlm-roberta": {
        **{key: entry for key, entry in _ROBERTA.items()
           if key not in ("adalora", "ia3", "feedforward")},
        "defaults": _BERT_DEFAULTS,
        "classes": _classes("XLMRoberta", _ROBERTA["heads"], XLMRobertaForCausalLM="MASKED_LM"),
    },
}

# Those that tests/oracle/infer_families.py found by asking transformers, in the same notation.
_INFERRED = json.loads(
    (Path(__file__).parents[1] / "data" / "families.json").read_text(encoding="utf-8"))
FAMILIES |= _INFERRED["families"]
for _part in ("fits", "aliases"):  # hand-written families have them, too
    for _family, _found in _INFERRED[_part].items():
        FAMILIES[_family] = FAMILIES[_family] | {_part: _found}
#: The modules without parameters, which PEFT refuses to adapt: of all classes of a family, and of
#: those for a task. `{}` stands for numbers on the way; each is wherever what holds it is, or only
#: where that also holds what stands behind a colon.
BARE: dict[str, dict[str, str]] = _INFERRED["bare"]
#: Model types that transformers has, and why the notation does not say them.
MISSING: dict[str, str] = _INFERRED["missing"]
