"""Ask transformers what its caches keep of a text, for test_serving.py.

Run with the environment that has torch and transformers, from anywhere:

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_cache_fixtures.py [output.json [type …]]

Small models in 16 bits read nine tokens for two sequences (T5 writes four besides). Recorded are
the bytes of all that their cache then holds, for windows that slide and for layers that do not.
"""

import importlib.util
import itertools
import json
import sys
import warnings
from pathlib import Path

import torch
import transformers

ORACLE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("made", ORACLE / "make_accounting_fixtures.py")
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
sys.path.append(str(ORACLE.parents[1]))
from real_models.serving import CACHES, TASKS  # noqa: E402

BATCH, LENGTH = 2, 9
_LATENT = {"hidden_size": 48, "intermediate_size": 80, "moe_intermediate_size": 24,
           "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 6,
           "vocab_size": 101, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
           "qk_nope_head_dim": 12, "v_head_dim": 10, "n_routed_experts": 4, "n_group": 1,
           "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "head_dim": 8}
OWN = {"deepseek_v3": _LATENT, "deepseek_v2": _LATENT,
       "helium": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
                  "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
                  "vocab_size": 101}}
#: Heads as wide as what their positions are made of.
WIDE = {family: {"hidden_size": width, "num_attention_heads": 2, "num_key_value_heads": 1}
        for family, width in (("qwen2_vl", 256), ("qwen2_5_vl", 256), ("glm4v", 128))}
CHANGES = [
    {}, {"sliding_window": 5}, {"sliding_window": None}, {"sliding_window": 5, "pattern": 2},
    {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
    {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention",
                                          "sliding_attention"]},
    {"sliding_window": 4, "use_sliding_window": True, "layer_types": [
        "full_attention", "full_attention", "sliding_attention"]},
]


def tensors(cache):
    for layer in cache.layers:
        for kept in (getattr(layer, "keys", None), getattr(layer, "values", None),
                     *getattr(layer, "conv_states", {}).values(),
                     *getattr(layer, "recurrent_states", {}).values()):
            if isinstance(kept, torch.Tensor):
                yield kept


def held(config: dict, task: str) -> int:
    """Bytes of the cache after one forward pass."""
    torch.manual_seed(0)
    model = made.CLASSES[task].from_config(transformers.AutoConfig.for_model(**config))
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    more = {"decoder_input_ids": ids} if task == "SEQ_2_SEQ_LM" else {}
    with torch.no_grad():
        model = model.eval().to(torch.bfloat16)
        cache = model(input_ids=ids, use_cache=True, **more).past_key_values
    parts = [cache] if not hasattr(cache, "cross_attention_cache") else [
        cache.self_attention_cache, cache.cross_attention_cache]
    return sum(t.numel() * t.element_size() for part in parts for t in tensors(part))


def changed(config: dict, change: dict) -> dict:
    part = "text_config" if "text_config" in config else None
    inner = {("sliding_window_pattern" if key == "pattern" else key): value
             for key, value in change.items()}
    return config | ({part: config[part] | inner} if part else inner)


def main(path: Path, wanted: list[str]) -> None:
    """All families; or only those that are wanted, and of the others what the file has."""
    cases = [] if not wanted else [
        case for case in json.loads(path.read_text("utf-8"))["cases"]
        if made.family_of(case["config"]) not in wanted]
    for family, table in made.families.FAMILIES.items():
        if family not in CACHES or wanted and family not in wanted:
            continue
        tasks = [task for task in TASKS if task in table["heads"]]
        small = OWN.get(family) or made.SMALL.get(family) or made.small_example(family)
        small = changed({"model_type": family, **small}, WIDE.get(family, {}))
        own = transformers.AutoConfig.for_model(**small)
        slides = "sliding_window" in vars(type(getattr(own, "text_config", own)))
        for task, change in itertools.product(tasks, CHANGES if slides else CHANGES[:2]):
            config = changed(small, change)
            print(family, change, file=sys.stderr, flush=True)
            try:
                found = {"bytes": held(config, task)}
            except Exception as error:  # recorded, so that the test can ask the same of us
                found = {"error": made.reason(error)}
            cases.append({"config": config, "task": task, **found})
    document = {"about": "Asked by make_cache_fixtures.py", "batch": BATCH, "length": LENGTH,
                "versions": {"transformers": transformers.__version__}, "cases": cases}
    text = json.dumps(document, separators=(",", ":")).replace('{"config":', '\n{"config":')
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ORACLE.parent / "fixtures" / "caches.json",
         sys.argv[2:])
