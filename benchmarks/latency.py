"""What a method costs where text is written: one more token for every sequence of a batch.

    .venv/bin/python benchmarks/latency.py

A random Llama of SmolLM2-135M's shape, keys and values of CONTEXT tokens in the cache, then one
forward of one token per sequence. *merged* is what LoRA becomes when it is added to the weights,
*lora* the same adapter beside them, *adapters* two bottlenecks in each layer with about as many
parameters, which cannot be merged. PEFT does the first two with the same files, and has no
adapters; ours are merged and unmerged to the same logits before anything is timed.
"""

import sys
import tempfile
from pathlib import Path

import sides

SHAPE = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
         "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
RANK, BOTTLENECK, CONTEXT = 8, 35, 32
BATCHES = (1, 8, 64)


def cases(root):
    return {f"batch {batch}": ({"root": str(root), "batch": batch}, ["ours", "theirs"])
            for batch in BATCHES}


def make(root, **more):
    """The base model and LoRA of rank RANK on all its linear layers, in files for both sides.

    `more` are further settings of the model.
    """
    sys.path.append(str(sides.CODE))
    import numpy as np
    from llama import PROJECTIONS, Llama, LlamaConfig, random_weights
    from peft import LoRALinear
    from real_models import hub

    rng = np.random.default_rng(0)
    config = LlamaConfig(**SHAPE, tie_word_embeddings=True, **more)
    model = Llama(config, random_weights(config, rng))
    hub.save_llama(model, root / "base")
    for name, module in model.modules().items():
        if name.endswith(PROJECTIONS):
            model.replace(name, LoRALinear(module.weight, None, RANK, 2 * RANK, rng=rng))
    for array in model.parameters().values():
        array[...] = 0.02 * rng.standard_normal(array.shape)
    hub.save_adapter(model, root / "lora")


def asked(case):
    """What is in the cache, (batch, CONTEXT), and the next token of each sequence, (batch, 1)."""
    import numpy as np

    ids = np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (case["batch"], CONTEXT + 1))
    return ids[:, :-1], ids[:, -1:]


def ours(case):
    import numpy as np

    import peft
    from llama import Linear
    from real_models import hub

    (before, token), root = asked(case), Path(case["root"])
    models = {name: hub.load_llama(root / "base") for name in ("merged", "lora", "adapters")}
    for name in ("merged", "lora"):
        hub.load_adapter(models[name], root / "lora")
    for name, module in models["merged"].modules().items():
        if hasattr(module, "merge"):
            models["merged"].replace(name, Linear(module.merge()[0]))
    for layer in models["adapters"].layers:
        for slot in ("after_attention", "after_mlp"):
            setattr(layer, slot, peft.Adapter(SHAPE["hidden_size"], BOTTLENECK, rng=0))
    works, logits = {}, {}
    for name, model in models.items():
        cache = []
        model.forward(before, cache)

        def step(model=model, cache=cache):
            return model.forward(token, [*cache])  # a list of its own: the cache stays as it is
        works[name], logits[name] = step, step()
    assert np.allclose(logits["merged"], logits["lora"], atol=1e-3)
    return works | {"note": round(float(np.abs(logits["lora"]).mean()), 3)}


def theirs(case):
    import peft
    import torch
    import transformers

    torch.set_num_threads(int(sides.THREADS))
    (before, token), root = map(torch.from_numpy, asked(case)), Path(case["root"])

    def load():
        base = transformers.AutoModelForCausalLM.from_pretrained(root / "base",
                                                                 dtype=torch.float32)
        return peft.PeftModel.from_pretrained(base, root / "lora").eval()
    works, logits = {}, {}
    for name, model in (("merged", load().merge_and_unload()), ("lora", load())):
        with torch.no_grad():
            cache = model(input_ids=before, use_cache=True).past_key_values

        @torch.no_grad()
        def step(model=model, cache=cache):
            found = model(input_ids=token, past_key_values=cache, use_cache=True).logits
            cache.crop(-1)
            return found
        works[name], logits[name] = step, step()
    assert torch.allclose(logits["merged"], logits["lora"], atol=1e-3)
    return works | {"note": round(float(logits["lora"].abs().mean()), 3)}


def main():
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        rows, versions = sides.compare(__file__, cases(folder), seconds=30, moment=0.4)
    for label, row in rows.items():
        mine, other = row["ours"], row["theirs"]
        print(f"{label:9} ours: merged {1e3 * mine['merged']:6.1f} ms, "
              f"LoRA {mine['lora'] / mine['merged']:.2f}, "
              f"adapters {mine['adapters'] / mine['merged']:.2f}; "
              f"PEFT: merged {1e3 * other['merged']:6.1f} ms, "
              f"LoRA {other['lora'] / other['merged']:.2f}")
    sides.record("latency", versions=versions, rows=rows, taken=(
        f"one token per sequence after {CONTEXT} others; LoRA of rank {RANK} on all linear layers, "
        f"two adapters of {BOTTLENECK} units per layer; float32"))


if __name__ == "__main__":
    sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]]) if len(sys.argv) > 1 else main()
