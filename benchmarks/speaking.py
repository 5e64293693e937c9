"""A training step, 100 tokens and peak memory at SmolLM2-135M's size, beside transformers + PEFT.

    .venv/bin/python benchmarks/speaking.py

A random Llama of that shape, float32. A step is forward, loss, backward, clipping and AdamW of LoRA
on q and v, on a batch like those of the page on the speaking model: BATCH sequences of TIME tokens
whose last SCORED count. Ours computes logits at these alone. Tokens are written greedily after TIME
others, one sequence. Peak memory is that of a fresh process for each of the two, libraries
included, as Linux counts it.

Ours alone: one base with three adapters on all linear layers in one batch, rows of different tasks,
beside three merged models that take their own rows; seconds, and what a fresh process holds.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import checkpoints
import latency
import sides

RANK, BATCH, TIME, SCORED, NEW = 8, 8, 36, 12, 100
TASKS = ("one", "two", "three")
#: Highest ratio of ours to theirs; what `memory` compares is the process of each work.
GOALS = {"step": 0.75, "write": 0.6, "memory": 0.75}
WORKS = {"step": ["ours", "theirs"], "write": ["ours", "theirs"],
         "one base": ["ours"], "three merged": ["ours"]}


def make(root):
    """The base model and three adapters on all its linear layers, in files."""
    latency.make(root, max_position_embeddings=2 * (TIME + NEW))
    import numpy as np
    from safetensors.numpy import load_file, save_file

    first = load_file(root / "lora" / "adapter_model.safetensors")
    for number, name in enumerate(TASKS):
        rng, folder = np.random.default_rng(number), root / name
        shutil.copytree(root / "lora", folder)
        save_file({key: 0.02 * rng.standard_normal(array.shape, np.float32)
                   for key, array in first.items()}, folder / "adapter_model.safetensors",
                  metadata={"format": "pt"})


def asked():
    """Token ids (BATCH, TIME), and the targets: -100 where a token does not count."""
    import numpy as np

    ids = np.random.default_rng(1).integers(0, latency.SHAPE["vocab_size"], (BATCH, TIME))
    targets = np.full_like(ids, -100)
    targets[:, -SCORED:] = np.roll(ids, -1, axis=1)[:, -SCORED:]
    return ids, targets


def our_step(root):
    import numpy as np
    from experiments.small_llama import plug_lora
    from experiments.smollm2 import ScoredHead, scored
    from names import IGNORE
    from real_models import hub
    from training import AdamW, clip_gradients, cross_entropy

    model = hub.load_llama(root / "base")
    model.lm_head = ScoredHead(model.lm_head.weight)
    plug_lora("q_proj", "v_proj")(model, RANK, np.random.default_rng(0))
    ids, targets = asked()
    targets[targets == -100] = IGNORE
    optimizer = AdamW(model.parameters())

    def step():
        inputs, wanted = scored(model, (ids, targets))
        _, grad = cross_entropy(model.forward(inputs), wanted)
        model.backward(grad)
        gradients = model.gradients()
        clip_gradients(gradients, 1.0)
        optimizer.step(gradients, 1e-4)

    return step, model.num_parameters()


def our_write(root):
    from real_models import hub

    model, (ids, _) = hub.load_llama(root / "base"), asked()
    return lambda: model.generate(ids[:1], NEW, temperature=0), NEW


def our_one_base(root):
    from real_models import hub, mixed

    served = mixed.Served(hub.load_llama(root / "base"), {name: root / name for name in TASKS})
    ids = asked()[0][:2 * len(TASKS)]
    return lambda: served.forward(ids, [*TASKS, *TASKS]), None


def our_three_merged(root):
    from llama import Linear
    from real_models import hub

    models, (ids, _) = [], asked()
    for name in TASKS:
        model = hub.load_llama(root / "base")
        hub.load_adapter(model, root / name)
        for path, module in model.modules().items():
            if hasattr(module, "merge"):
                model.replace(path, Linear(module.merge()[0]))
        models.append(model)
    return lambda: [model.forward(ids[row:2 * len(TASKS):len(TASKS)])
                    for row, model in enumerate(models)], None


def their_model(root):
    import torch
    import transformers

    torch.set_num_threads(int(sides.THREADS))
    return transformers.AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)


def their_step(root):
    import torch

    import peft

    model = peft.get_peft_model(their_model(root), peft.LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"])).train()
    ids, targets = map(torch.from_numpy, asked())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def step():
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step, sum(p.numel() for p in trained)


def their_write(root):
    import torch

    model, ids = their_model(root).eval(), torch.from_numpy(asked()[0][:1])
    seen = torch.ones_like(ids)
    return lambda: model.generate(ids, attention_mask=seen, do_sample=False, max_new_tokens=NEW,
                                  min_new_tokens=NEW, pad_token_id=0), NEW


MAKERS = {("ours", "step"): our_step, ("ours", "write"): our_write,
          ("ours", "one base"): our_one_base, ("ours", "three merged"): our_three_merged,
          ("theirs", "step"): their_step, ("theirs", "write"): their_write}


def ours(case):
    works = {name: MAKERS["ours", name](Path(case["root"])) for name in case["works"]}
    return {name: work for name, (work, _) in works.items()} | {"note": next(
        note for _, note in works.values())}


def theirs(case):
    work, note = MAKERS["theirs", case["works"][0]](Path(case["root"]))
    return {case["works"][0]: work, "note": note}


def peak(side, work, root):
    """Megabytes of a fresh process that does the work twice."""
    python = sys.executable if side == "ours" else sides.ORACLE
    environment = os.environ | sides.LIMITS | {"HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(sides.CODE) if side == "ours" else ""
    done = subprocess.run([python, __file__, "peak", side, work, root], env=environment,
                          stdout=subprocess.PIPE, text=True, check=True)
    return round(float(done.stdout.splitlines()[-1]), 1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        memory = {work: {side: peak(side, work, folder) for side in who}
                  for work, who in WORKS.items()}
        cases = {work: ({"root": folder, "works": [work]}, who)
                 for work, who in WORKS.items() if len(who) == 2}
        cases["three tasks"] = ({"root": folder, "works": ["one base", "three merged"]}, ["ours"])
        rows, versions = sides.compare(__file__, cases, seconds=40, moment=0.5)
    for work in ("step", "write"):
        mine, other = (rows[work][side][work] for side in ("ours", "theirs"))
        print(f"{work:6} ours {mine:.2f} s, theirs {other:.2f} s, {mine / other:.2f}; peak memory "
              f"{memory[work]['ours']:.0f} and {memory[work]['theirs']:.0f} MB, "
              f"{memory[work]['ours'] / memory[work]['theirs']:.2f}")
    for work, seconds in rows["three tasks"]["ours"].items():
        print(f"{work:13} {1e3 * seconds:.0f} ms, {memory[work]['ours']:.0f} MB")
    sides.record("speaking", versions=versions, rows=rows, memory=memory, goals=GOALS, taken=(
        f"LoRA of rank {RANK}; a step of {BATCH} x {TIME} tokens, {SCORED} of each scored; {NEW} "
        f"tokens after {TIME}; three tasks: {2 * len(TASKS)} x {TIME} tokens; float32"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        if sys.argv[2] == "ours":
            sys.path.append(str(sides.CODE))
        run, _ = MAKERS[sys.argv[2], sys.argv[3]](Path(sys.argv[4]))
        run()
        run()
        print(json.dumps(checkpoints.peak_megabytes()))
    elif len(sys.argv) > 1:
        sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]])
    else:
        main()
