"""How cost grows with rank, width, tokens and batch; how fast thin products are; what memory holds.

    make bench

NumPy alone, in this process. Where two works are compared they take turns.
"""

import os
import sys
import time
import tracemalloc
from statistics import median

import sides

os.environ.update(sides.LIMITS)  # before NumPy loads
sys.path.insert(0, str(sides.CODE))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

import peft  # noqa: E402
import small_llama  # noqa: E402
from book_pages import sliced  # noqa: E402

WIDTH, TOKENS, RANK = 1024, 1024, 8
SWEEPS = {"rank": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
          "width": [64, 128, 256, 512, 1024, 2048, 4096],
          "tokens": [1, 4, 16, 64, 256, 1024, 4096]}
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
THIN = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
SLICES = [2 ** power for power in range(12, 24)]  # bytes
MEMORY = [(256, 32), (1024, 1024), (4096, 512)]
KINDS = {"plain": peft.LoRALayer, "sliced": sliced.SlicedLoRALayer}


def medians(works, seconds=1.5):
    """Median seconds of each work, all taking turns as in `sides.compare`."""
    times, end = [[] for _ in works], time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times)) < 6:
        for work, series in zip(works, times):
            series += sides.turn(work, 0.05)
    return [median(series) for series in times]


def arrays(width, tokens):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32)
            for shape in ((tokens, width), (tokens, width), (width, width))]


def layer_and_limit(width=WIDTH, tokens=TOKENS, rank=RANK, kind="plain"):
    """Works: forward + backward of a LoRA layer, its limit, and its six thin products alone."""
    x, g, W = arrays(width, tokens)
    out, grad = np.empty_like(g), np.empty_like(x)
    layer = KINDS[kind](width, width, min(rank, width), rng=0)
    A, B, Ax = layer.A, layer.B, layer.A[:, :1].T.repeat(tokens, axis=0)  # Ax: (tokens, rank)

    def whole():
        layer.forward(x, W)
        layer.backward(g)

    def limit():
        np.matmul(x, W.T, out=out)
        np.matmul(g, W, out=grad)

    def thin():
        x @ A.T, Ax @ B.T, g.T @ Ax, g @ B, Ax.T @ x, Ax @ A

    return whole, limit, thin


def sweep(over, values):
    rows = []
    for value in tqdm(values, desc=over, leave=False):
        times = medians(layer_and_limit(**{over: value}))
        rows.append({over: value} | dict(zip(("layer", "limit", "thin"), times)))
    return rows


def thin_products():
    """Billions of operations per second of (1024, 1024) @ (1024, r), and of @ (1024, r) inside."""
    x, _, _ = arrays(WIDTH, TOKENS)
    rows = []
    for r in tqdm(THIN, desc="thin products", leave=False):
        A = np.ones((r, WIDTH), np.float32)
        Ax = np.ones((TOKENS, r), np.float32)
        shrink, expand = medians([lambda A=A: x @ A.T, lambda A=A, Ax=Ax: Ax @ A], 1.0)
        work = 2 * TOKENS * WIDTH * r
        rows.append({"rank": r, "shrink": work / shrink / 1e9, "expand": work / expand / 1e9})
    return rows


def training_steps():
    """Seconds of a LoRA training step of the small Llama, by batch size."""
    rows = []
    for batch in tqdm(BATCHES, desc="batch", leave=False):
        small_llama.BATCH = batch
        rows.append({"batch": batch, "step": medians([small_llama.our_step(8)["step"]])[0]})
    return rows


def extra_bytes(width, tokens, rank, kind):
    """Peak of what a step allocates beyond its two results."""
    x, g, W = arrays(width, tokens)
    layer = KINDS[kind](width, width, rank, rng=0)
    tracemalloc.start()
    h = layer.forward(x, W)
    forward = tracemalloc.get_traced_memory()[1] - h.nbytes
    tracemalloc.reset_peak()
    grad_x = layer.backward(g)
    backward = tracemalloc.get_traced_memory()[1] - h.nbytes - grad_x.nbytes
    tracemalloc.stop()
    return max(forward, backward)


def memory():
    """Extra bytes of a step, plain and in slices, and the least that it must hold.

    The least: what forward leaves for backward, x A^T, and its counterpart G B, (tokens, rank)
    each, and the gradients of A and B; float32.
    """
    return [{"width": width, "tokens": tokens, "rank": rank,
             "least": 4 * (2 * tokens * rank + rank * 2 * width)}
            | {kind: extra_bytes(width, tokens, rank, kind) for kind in KINDS}
            for width, tokens in MEMORY for rank in (8, 64)]


def slices():
    """Time and extra memory of a step against the size of the slices in `sliced.add_product`.

    At rank 1, where the factors are too small to allow larger slices than SLICE_BYTES. From 4 MB on
    one slice is the whole product, as in the plain layer.
    """
    rows, usual = [], sliced.SLICE_BYTES
    for size in tqdm(SLICES, desc="slices", leave=False):
        sliced.SLICE_BYTES = size
        whole, limit, _ = layer_and_limit(rank=1, kind="sliced")
        layer, bare = medians([whole, limit], 2.0)
        rows.append({"bytes": size, "ratio": layer / bare,
                     "extra": extra_bytes(WIDTH, TOKENS, 1, "sliced")})
    sliced.SLICE_BYTES = usual
    return rows


def main():
    content = {over: sweep(over, values) for over, values in SWEEPS.items()}
    content |= {"batch": training_steps(), "thin": thin_products(), "slices": slices(),
                "memory": memory()}
    for row in content["memory"]:
        extra = ", ".join(f"{kind} {row[kind] / 1e3:8.1f} kB ({row[kind] / row['least']:.2f})"
                          for kind in KINDS)
        print(f"width {row['width']:5}, {row['tokens']:5} tokens, rank {row['rank']:3}: "
              f"at least {row['least'] / 1e3:7.1f} kB; {extra}")
    sides.record("growth", versions=sides.versions(), base={"width": WIDTH, "tokens": TOKENS,
                 "rank": RANK, "slice_bytes": sliced.SLICE_BYTES}, **content)


if __name__ == "__main__":
    main()
