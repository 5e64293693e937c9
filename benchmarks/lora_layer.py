"""Forward plus backward of LoRALayer, as a ratio to the two bare products that no layer can avoid.

    make bench

The limit is `x @ W.T` and `g @ W` into preallocated outputs. Limit and layer take turns within one
run, so that a busy machine slows both; the ratio of their medians is what counts.
"""

import os
import platform
import sys
import time
from pathlib import Path

THREADS = "2"
os.environ.update(OMP_NUM_THREADS=THREADS, OPENBLAS_NUM_THREADS=THREADS)  # before NumPy loads
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code" / "stage-09"))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

import peft  # noqa: E402

SIZES = [(256, 32), (1024, 1024), (4096, 512)]  # width, tokens
RANKS = [8, 64]
SECONDS = 6.0  # per row


def processor():
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(limit, layer, seconds=SECONDS):
    """Medians of both, in seconds, measured in turn; the first turns only warm up."""
    for _ in range(3):
        limit(), layer()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        times.append((timed(limit), timed(layer)))
    return np.median(times, axis=0)


def measure(width, tokens, rank):
    rng = np.random.default_rng(0)
    x, g, W = (rng.standard_normal(shape, dtype=np.float32)
               for shape in ((tokens, width), (tokens, width), (width, width)))
    out, grad = np.empty_like(g), np.empty_like(x)
    layer = peft.LoRALayer(width, width, rank, rng=rng)

    def limit():
        np.matmul(x, W.T, out=out)
        np.matmul(g, W, out=grad)

    def forward_and_backward():
        layer.forward(x, W)
        layer.backward(g)

    return interleaved(limit, forward_and_backward)


def main():
    print(f"{processor()}, {os.cpu_count()} cores, {THREADS} threads; Python "
          f"{platform.python_version()}, NumPy {np.__version__}; float32, medians\n")
    cases = [(width, tokens, rank) for width, tokens in SIZES for rank in RANKS]
    rows = [(case, measure(*case)) for case in tqdm(cases, desc="LoRALayer", leave=False)]
    print("width  tokens  rank    bare products      LoRALayer   ratio")
    for (width, tokens, rank), (bare, layer) in rows:
        print(f"{width:5}  {tokens:6}  {rank:4}  {bare * 1e3:12.3f} ms  {layer * 1e3:10.3f} ms"
              f"  {layer / bare:6.2f}")


if __name__ == "__main__":
    main()
