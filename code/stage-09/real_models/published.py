"""Counts that other people published, each with the call of accounting.py that answers for it.

`data/published_counts.json` holds what they printed, where, and under which conventions. This
module says which model, method and settings each of them means; the page "Numbers in the wild" and
tests/test_accounting.py both recompute them from here.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from real_models.accounting import (
    Count,
    Model,
    count_adapters,
    count_lora,
    count_prefix,
    count_prompt,
    load_model,
)

_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_QV = ["q_proj", "v_proj"]

# id: (model, task, function, its arguments). No target_modules means PEFT's default for the family.
CALLS: dict[str, tuple[str, str | None, Any, dict[str, Any]]] = {
    "gpt2-lora-r8": ("GPT-2 (124M)", None, count_lora, {"rank": 8}),
    "gpt2large-prefix-20": ("GPT-2 Large", None, count_prefix, {"num_virtual_tokens": 20}),
    "llama2-7b-lora-r8-qv": ("Llama-2-7B", None, count_lora, {"rank": 8, "target_modules": _QV}),
    "llama3-8b-lora-r8-all": (
        "Llama-3-8B", None, count_lora, {"rank": 8, "target_modules": _SEVEN}),
    "mistral-7b-qlora-r32": (
        "Mistral-7B", None, count_lora, {"rank": 32, "target_modules": [*_SEVEN, "lm_head"]}),
    "gemma-2b-lora-r8": ("Gemma-2B", None, count_lora, {"rank": 8, "target_modules": _SEVEN}),
    "qwen2-0.5b-lora-r8-qv": ("Qwen2-0.5B", None, count_lora, {"rank": 8}),
    "qwen2.5-3b-lora-r16-qv": ("Qwen2.5-3B", None, count_lora, {"rank": 16}),
    "qwen3-8b-lora-r8-all": ("Qwen3-8B", None, count_lora, {"rank": 8, "target_modules": _SEVEN}),
    "phi2-lora-r8": ("Phi-2 (first release)", None, count_lora,
                     {"rank": 8, "target_modules": ["Wqkv", "fc1", "fc2"]}),
    "phi3-mini-lora-r8": ("Phi-3-mini", None, count_lora, {"rank": 8, "target_modules": _SEVEN}),
    "bloomz560m-prompt-8": ("BLOOMZ-560M", None, count_prompt, {"num_virtual_tokens": 8}),
    "bloomz560m-prefix-20": ("BLOOMZ-560M", None, count_prefix, {"num_virtual_tokens": 20}),
    "bloomz7b1-lora-r8": ("BLOOMZ-7.1B", None, count_lora, {"rank": 8}),
    "opt350m-lora-r16": ("OPT-350M", None, count_lora, {"rank": 16}),
    "mt0large-lora-r8": ("mT0-large", None, count_lora, {"rank": 8}),
    "t5large-prefix-20": ("T5-large", None, count_prefix, {"num_virtual_tokens": 20}),
    "t5large-prompt-20": ("T5-large", None, count_prompt, {"num_virtual_tokens": 20}),
    "bertbase-prefix-20": ("BERT-base (cased)", "SEQ_CLS", count_prefix,
                           {"num_virtual_tokens": 20, "head": "in place"}),
    "robertalarge-lora-r8": ("RoBERTa-large", "SEQ_CLS", count_lora,
                             {"rank": 8, "head": "in place"}),
    "chinese-alpaca-7b-r8": ("Chinese-Alpaca-7B", None, count_lora, {"rank": 8}),
    "bottleneck-768x12-m48": ("BERT-base (cased)", "SEQ_CLS", count_adapters,
                              {"bottleneck": 48, "style": "pfeiffer"}),
    "bertbase-houlsby-m24": ("BERT-base (cased)", "SEQ_CLS", count_adapters,
                             {"bottleneck": 24, "style": "houlsby"}),
    "prompt-t5v11-small-5": (
        "T5 v1.1 Small", None, count_prompt, {"num_virtual_tokens": 5, "submodules": 1}),
    "prompt-t5v11-large-100": (
        "T5 v1.1 Large", None, count_prompt, {"num_virtual_tokens": 100, "submodules": 1}),
    "prompt-t5v11-xxl-5": (
        "T5 v1.1 XXL", None, count_prompt, {"num_virtual_tokens": 5, "submodules": 1}),
    # published, but not what these settings give
    "mistral-7b-seqcls-r2": ("Mistral-7B", "SEQ_CLS", count_lora,
                             {"rank": 2, "target_modules": _QV, "head": "both"}),
    "t5base-lora-r8": ("T5-base", None, count_lora, {"rank": 8}),
    "prompt-t5v11-small-20": (
        "T5 v1.1 Small", None, count_prompt, {"num_virtual_tokens": 20, "submodules": 1}),
    "gpt2-r16-as-r8": ("GPT-2 (124M)", None, count_lora, {"rank": 16}),
}
_THREE_LABELS = {"bertbase-houlsby-m24"}


@cache
def published() -> dict[str, Any]:
    """The content of data/published_counts.json."""
    path = Path(__file__).parents[1] / "data" / "published_counts.json"
    return json.loads(path.read_text(encoding="utf-8"))


def model_of(case: str) -> Model:
    """The model that a published count is about."""
    if case not in CALLS:
        raise ValueError(f"no published case {case!r}; there are {', '.join(CALLS)}")
    name, task, _, _ = CALLS[case]
    return load_model(name, task, num_labels=3 if case in _THREE_LABELS else None)


def recompute(case: str) -> Count:
    """What accounting.py answers for the settings of a published count."""
    model = model_of(case)
    _, _, count, arguments = CALLS[case]
    return count(model, **arguments)
