"""The small Llama beside transformers + peft on PyTorch: a training step, and sampling names.

    make bench

A step is forward, loss, backward, clipping and AdamW on a batch of 64 sequences of 16 tokens, in
float32. Names are drawn from the base model with a key/value cache, up to 15 letters, until every
name of a batch has ended: a thousand at once, and one alone.
"""

import sys

import sides

BATCH, TIME = 64, 16
STEPS = {"full": None, "LoRA, rank 8 on q and v": 8}
NAMES = {"1,000 names in one batch": 1000, "1 name": 1}
LETTERS = 15


def our_step(rank):
    """One step of ours, as a function without arguments."""
    import numpy as np

    from experiments.small_llama import plug_lora
    from llama import Llama
    from training import AdamW, clip_gradients, cross_entropy

    model = Llama.load(sides.CODE / "data" / "base")
    if rank is None:
        model.set_trainable()
    else:
        plug_lora("q_proj", "v_proj")(model, rank, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(0).integers(0, 27, (2, BATCH, TIME))
    optimizer = AdamW(model.parameters())

    def step():
        _, grad = cross_entropy(model.forward(inputs), targets)
        model.backward(grad)
        gradients = model.gradients()
        clip_gradients(gradients, 1.0)
        optimizer.step(gradients, 1e-4)

    return {"step": step, "note": model.num_parameters()}


def our_names(count):
    import numpy as np

    from llama import Llama
    from names import BOUNDARY

    model, rng = Llama.load(sides.CODE / "data" / "base"), np.random.default_rng(0)
    start = np.full((count, 1), BOUNDARY)
    return {"sample": lambda: model.generate(start, LETTERS, stop=BOUNDARY, rng=rng)}


def ours(case):
    return our_step(case["rank"]) if "rank" in case else our_names(case["names"])


def theirs(case):
    import torch
    import transformers

    import peft

    torch.set_num_threads(int(sides.THREADS))
    model = transformers.LlamaForCausalLM.from_pretrained(
        sides.CODE / "data" / "base", dtype=torch.float32, attn_implementation="eager")
    if "names" in case:
        model.eval()
        start = torch.full((case["names"], 1), 0)
        seen = torch.ones_like(start)
        return {"sample": lambda: model.generate(
            start, attention_mask=seen, do_sample=True, top_k=0, max_new_tokens=LETTERS,
            eos_token_id=0, pad_token_id=0)}
    if case["rank"] is not None:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=case["rank"], lora_alpha=2 * case["rank"], target_modules=["q_proj", "v_proj"]))
    model.train()
    ids = torch.randint(0, 27, (2, BATCH, TIME), generator=torch.Generator().manual_seed(0))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def step():
        optimizer.zero_grad()
        logits = model(input_ids=ids[0], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[1].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return {"step": step, "note": sum(p.numel() for p in trained)}


def main():
    both = ["ours", "theirs"]
    cases = {f"training step, {label}": ({"rank": rank}, both) for label, rank in STEPS.items()}
    cases |= {f"sampling, {label}": ({"names": count}, both) for label, count in NAMES.items()}
    rows, versions = sides.compare(__file__, cases, seconds=20, moment=0.3)
    print("\nsmall Llama, float32, two threads")
    for label, row in rows.items():
        here, there = (next(time for work, time in row[side].items()) for side in both)
        print(f"{label:42} ours {here * 1e3:8.1f} ms   theirs {there * 1e3:8.1f} ms"
              f"   ours / theirs {here / there:.2f}")
    sides.record("small_llama", versions=versions, rows=rows)


if __name__ == "__main__":
    sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]]) if len(sys.argv) > 1 else main()
