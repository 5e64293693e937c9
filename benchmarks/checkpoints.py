"""Memory and speed of llama.py on checkpoints of real sizes, beside transformers on the same cores.

    make oracle && .venv/bin/python benchmarks/checkpoints.py [--largest 1.2e9] [--record]

Writes checkpoints with random weights, shaped like published models, in float32 and bfloat16, and
lets each side load one in a process of its own, with two threads, in float32. Measured are the
process's peak memory after loading and after running, the seconds to load, and the tokens per
second of reading a prompt and of writing with a key/value cache. Needs 4.5 GB of disk and 7 GB of
memory for a billion weights, and Linux; `--record` keeps the table for the book.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import sides

THREADS = sides.THREADS
PROMPT, NEW, REPEATS = 128, 8, 3
RECORD = sides.CODE / "data" / "huggingface" / "checkpoints.json"
# vocabulary, width, MLP, layers, heads, key/value heads, tied: the shapes of published models
SHAPES = {
    "SmolLM2-135M": (49152, 576, 1536, 30, 9, 3, True),
    "SmolLM2-360M": (49152, 960, 2560, 32, 15, 5, True),
    "TinyLlama-1.1B": (32000, 2048, 5632, 22, 32, 4, False),
}


def peak_megabytes():
    """Largest resident memory of this process so far, mapped pages of files included.

    Linux's own figure: getrusage would count what the parent held before this program began.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e6


def measure(load, forward):
    """`load()` -> model; `forward(model, ids, cache)` -> next id, cache. Run in a fresh process."""
    import numpy as np
    empty = peak_megabytes()
    start = time.perf_counter()
    model = load()
    result = {"load_s": time.perf_counter() - start, "imports_mb": empty,
              "loaded_mb": peak_megabytes()}
    ids = np.random.default_rng(0).integers(0, 30000, (1, PROMPT))
    reading, writing = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        token, cache = forward(model, ids, None)
        reading.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(NEW):
            token, cache = forward(model, np.array([[token]]), cache)
        writing.append(time.perf_counter() - start)
    return result | {"peak_mb": peak_megabytes(), "read_tokens_s": PROMPT / min(reading),
                     "write_tokens_s": NEW / min(writing)}


def ours(folder):
    sys.path.insert(0, str(sides.CODE))
    from real_models import hub

    def forward(model, ids, cache):
        cache = [] if cache is None else cache
        return int(model.forward(ids, cache)[0, -1].argmax()), cache

    return measure(lambda: hub.load_llama(folder), forward)


def transformers(folder):
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(int(THREADS))

    @torch.no_grad()
    def forward(model, ids, cache):
        out = model(input_ids=torch.tensor(ids), past_key_values=cache, use_cache=True)
        return int(out.logits[0, -1].argmax()), out.past_key_values

    return measure(lambda: LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), forward)


def run(side, folder):
    """One side in a process of its own; nothing of the other's is on its path."""
    python = sys.executable if side == "ours" else sides.ORACLE
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS,
                    "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, __file__, "--side", side, "--folder", folder],
                          env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed on {folder}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_checkpoint(folder, shape, kind):
    """Random weights, array by array: never more than one of them in memory."""
    sys.path.insert(0, str(sides.CODE))
    import numpy as np

    import llama
    from tensorfile import replacing, write_whole
    vocab, width, mlp, layers, heads, kv, tied = shape
    config = llama.LlamaConfig(vocab, width, mlp, layers, heads, kv, 2048, 1e-5,
                               tie_word_embeddings=tied)
    shapes, size, end, header = config.weight_shapes(), 4 if kind == "F32" else 2, 0, {}
    for name, dims in shapes.items():
        stop = end + int(np.prod(dims)) * size
        header[name] = {"dtype": kind, "shape": dims, "data_offsets": [end, stop]}
        end = stop
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with replacing(folder / "model.safetensors") as [new], new.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for dims in shapes.values():
            array = (np.ones(dims, np.float32) if len(dims) == 1
                     else 0.02 * rng.standard_normal(dims, np.float32))
            (array if kind == "F32" else (array.view(np.uint32) >> 16).astype("<u2")).tofile(file)
    write_whole(folder / "config.json", json.dumps(config.to_hugging_face()))
    return end // size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=float, default=1.2e9, help="weights of the largest")
    parser.add_argument("--record", action="store_true", help="keep the results for the book")
    parser.add_argument("--side", choices=["ours", "transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"ours": ours, "transformers": transformers}[args.side](args.folder)))
        return
    if not sides.ORACLE.exists():
        sys.exit(f"{sides.ORACLE} is missing: `make oracle` installs it")
    limits = {"SmolLM2-135M": 1.4e8, "SmolLM2-360M": 3.7e8, "TinyLlama-1.1B": 1.2e9}
    rows = []
    for name, shape in SHAPES.items():
        for kind in ("F32", "BF16") if limits[name] <= args.largest else ():
            with tempfile.TemporaryDirectory() as folder:
                print(f"{name}, {kind}: writing", file=sys.stderr, flush=True)
                weights = write_checkpoint(Path(folder), shape, kind)
                for side in ("ours", "transformers"):
                    print(f"{name}, {kind}: {side}", file=sys.stderr, flush=True)
                    rows.append({"shape": name, "file": kind, "weights": weights, "side": side,
                                 **{k: round(v, 2) for k, v in run(side, folder).items()}})
                    r = rows[-1]
                    print(f"{name:15} {kind:5} {weights / 1e6:7.0f}M {side:13} float32 weights "
                          f"{4 * weights / 1e6:6.0f} MB  loaded {r['loaded_mb']:6.0f}  peak "
                          f"{r['peak_mb']:6.0f} MB  load {r['load_s']:5.1f} s  read "
                          f"{r['read_tokens_s']:7.1f}  write {r['write_tokens_s']:6.1f} tokens/s",
                          flush=True)
    import numpy
    versions = subprocess.run([sides.ORACLE, "-c", "import torch, transformers; "
                               "print(torch.__version__, transformers.__version__)"],
                              capture_output=True, text=True, check=True).stdout.split()
    machine = {"processor": sides.processor(), "threads": int(THREADS),
               "date": date.today().isoformat(), "prompt": PROMPT,
               "new": NEW, "numpy": numpy.__version__, "torch": versions[0].split("+")[0],
               "transformers": versions[1]}
    if args.record:
        sys.path.append(str(sides.CODE))
        from tensorfile import write_whole
        write_whole(RECORD, json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
