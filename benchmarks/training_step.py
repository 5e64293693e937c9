"""A training step of the small Llama against transformers + peft on PyTorch, like for like.

    make bench

Forward, loss, backward, clipping and AdamW on a batch of 64 sequences of 16 tokens, float32. The
two sides cannot share a process (our module and Hugging Face's package are both called peft), so
each has one of its own, and they take turns: a step here, a step there. The ratio of the medians
is what counts.

Run it on a quiet machine. Where something else wants the cores, the two threads of NumPy's OpenBLAS
wait for each other in many small products, and our step can take ten times as long.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ROOT / "code" / "stage-09"
ORACLE = ROOT / ".venv-oracle" / "bin" / "python"
THREADS = "2"
BATCH, TIME = 64, 16
TURNS, WARM_UP = 150, 10
CASES = {"full": None, "LoRA, rank 8 on q and v": 8}


def our_step(rank):
    """One step of ours, as a function without arguments."""
    import numpy as np
    from experiments import plug_lora
    from llama import Llama
    from training import AdamW, clip_gradients, cross_entropy

    model = Llama.load(CODE / "data" / "base")
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

    return step, model.num_parameters(), f"NumPy {np.__version__}"


def their_step(rank):
    """The same step of transformers + peft."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(int(THREADS))
    model = transformers.LlamaForCausalLM.from_pretrained(
        CODE / "data" / "base", dtype=torch.float32, attn_implementation="eager")
    if rank is not None:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"]))
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

    versions = (f"PyTorch {torch.__version__}, transformers {transformers.__version__}, "
                f"peft {peft.__version__}")
    return step, sum(p.numel() for p in trained), versions


def work(side):
    """In the process of one side: answer each case, then do a step for each line."""
    for line in sys.stdin:
        step, count, versions = {"ours": our_step, "theirs": their_step}[side](json.loads(line))
        print(json.dumps([count, versions]), flush=True)
        for asked in sys.stdin:
            if not asked.strip():
                break
            start = time.perf_counter()
            step()
            print(time.perf_counter() - start, flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, python, name):
        environment = os.environ | {"OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS,
                                    "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        if name == "ours":
            environment["PYTHONPATH"] = str(CODE)
        self.process = subprocess.Popen([python, __file__, name], text=True, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("a process of the benchmark stopped; its error stands above")
        return json.loads(answer)

    def end_case(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def main():
    if not ORACLE.exists():
        print("training_step: skipped, it needs PyTorch and Hugging Face PEFT; run `make oracle`")
        return
    from statistics import median

    from lora_layer import processor
    from tqdm import tqdm

    sides = Side(sys.executable, "ours"), Side(ORACLE, "theirs")
    rows = []
    for label, rank in CASES.items():
        (count, ours), (other, theirs) = (side.ask(json.dumps(rank)) for side in sides)
        if count != other:
            sys.exit(f"{label}: {count:,} parameters train here and {other:,} there: not one step")
        times = [[side.ask("step") for side in sides]
                 for _ in tqdm(range(WARM_UP + TURNS), desc=label, leave=False)][WARM_UP:]
        rows.append((label, count, *(median(column) for column in zip(*times))))
        for side in sides:
            side.end_case()
    print(f"\n{processor()}, {THREADS} threads; {ours}; {theirs}\n")
    print("training step, batch 64, 16 tokens    trainable      ours    theirs   ours / theirs")
    for label, count, here, there in rows:
        print(f"{label:36}  {count:10,}  {here * 1e3:5.1f} ms  {there * 1e3:5.1f} ms"
              f"  {here / there:14.2f}")
    for side in sides:
        side.process.stdin.close()


if __name__ == "__main__":
    work(sys.argv[1]) if len(sys.argv) > 1 else main()
