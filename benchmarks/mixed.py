"""One batch for many adapters: in one go or one adapter after the other, ours and PEFT's.

    .venv/bin/python benchmarks/mixed.py

Both sides serve the same requests from the same files: a random Llama, adapters of rank 8
on all linear layers, and a batch whose sequences ask for one adapter after the other. *mixed*
computes the batch at once, with the large products for all rows together: `mixed.Served`, and
PEFT's `adapter_names`. *split* takes each adapter's rows as a batch of their own: `Served` with one
name each, and PEFT's `set_adapter`. Both ways' logits are compared before anything is timed.
"""

import sys
import tempfile
from pathlib import Path

import sides

WIDTH, LAYERS, VOCABULARY, RANK, TIME = 512, 4, 1024, 8, 16
COUNTS = (2, 8)  # adapters
BATCH = 8


def cases(root):
    return {f"{count} adapters | {BATCH} x {TIME} tokens":
            ({"root": str(root), "count": count}, ["ours", "theirs"]) for count in COUNTS}


def make(root):
    """The base model and the adapters, in files that both sides read."""
    sys.path.append(str(sides.CODE))
    import numpy as np
    from llama import PROJECTIONS, Llama, LlamaConfig, random_weights
    from peft import LoRALinear
    from real_models import hub

    rng = np.random.default_rng(0)
    config = LlamaConfig(VOCABULARY, WIDTH, 3 * WIDTH, LAYERS, 8, 4)
    hub.save_llama(Llama(config, random_weights(config, rng)), root / "base")
    for number in range(max(COUNTS)):
        model = hub.load_llama(root / "base")
        for name, module in model.modules().items():
            if name.endswith(PROJECTIONS):
                model.replace(name, LoRALinear(module.weight, None, RANK, 2 * RANK, rng=rng))
        for array in model.parameters().values():
            array[...] = 0.02 * rng.standard_normal(array.shape)
        hub.save_adapter(model, root / str(number))


def asked(case):
    """The batch, (BATCH, TIME), the adapter of each sequence, and each adapter's rows."""
    import numpy as np

    ids = np.random.default_rng(1).integers(0, VOCABULARY, (BATCH, TIME))
    names = [str(row % case["count"]) for row in range(BATCH)]
    return ids, names, {name: np.flatnonzero(np.array(names) == name) for name in set(names)}


def ours(case):
    import numpy as np

    from real_models import hub, mixed

    ids, names, rows = asked(case)
    root = Path(case["root"])
    served = mixed.Served(hub.load_llama(root / "base"), {name: root / name for name in rows})

    def split():
        return {name: served.forward(ids[mine], [name] * len(mine)) for name, mine in rows.items()}

    together, alone = served.forward(ids, names), split()
    assert all(np.allclose(together[mine], alone[name], atol=1e-3) for name, mine in rows.items())
    return {"mixed": lambda: served.forward(ids, names), "split": split,
            "note": round(float(np.abs(together).sum()) / together.size, 3)}


def theirs(case):
    import peft
    import torch
    import transformers

    torch.set_num_threads(int(sides.THREADS))
    ids, names, rows = asked(case)
    ids, root = torch.from_numpy(ids), Path(case["root"])
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    first, *others = rows
    model = peft.PeftModel.from_pretrained(model, root / first, adapter_name=first)
    for name in others:
        model.load_adapter(root / name, adapter_name=name)
    model.eval()

    @torch.no_grad()
    def mixed():
        return model(input_ids=ids, adapter_names=names, use_cache=False).logits

    @torch.no_grad()
    def split():
        found = {}
        for name, mine in rows.items():
            model.set_adapter(name)
            found[name] = model(input_ids=ids[mine], use_cache=False).logits
        return found

    together, alone = mixed(), split()
    assert all(torch.allclose(together[mine], alone[name], atol=1e-3)
               for name, mine in rows.items())
    return {"mixed": mixed, "split": split,
            "note": round(float(together.abs().sum()) / together.numel(), 3)}


def main():
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        rows, versions = sides.compare(__file__, cases(folder), seconds=10)
    print(f"\nA Llama of width {WIDTH}, LoRA of rank {RANK} on all linear layers, float32\n")
    for label, row in rows.items():
        (one, alone), (two, theirs_alone) = ((row[side]["mixed"], row[side]["split"])
                                             for side in ("ours", "theirs"))
        print(f"{label:24} split / mixed: ours {alone / one:.2f}, PEFT {theirs_alone / two:.2f}; "
              f"mixed, ours / PEFT {one / two:.2f}")
    sides.record("mixed", versions=versions, rows=rows, taken=(
        f"medians of turns that both sides take by and by, {LAYERS} layers of width {WIDTH}, "
        f"adapters of rank {RANK} on all linear layers"))


if __name__ == "__main__":
    sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]]) if len(sys.argv) > 1 else main()
