"""NF4 of one large matrix, quantized and restored: exercise 6's solution beside bitsandbytes.

    make bench
"""

import sys

import sides

SIZE = 4096


def ours(case):
    import numpy as np

    from exercises.ex6_qlora import solution as ex6_qlora

    W = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    codes, absmax = ex6_qlora.quantize_nf4(W)
    return {"quantize": lambda: ex6_qlora.quantize_nf4(W),
            "dequantize": lambda: ex6_qlora.dequantize_nf4(codes, absmax, W.shape),
            "note": codes.size}


def theirs(case):
    import bitsandbytes.functional as bnb
    import numpy as np
    import torch

    torch.set_num_threads(int(sides.THREADS))
    W = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    W = torch.from_numpy(W)
    codes, state = bnb.quantize_4bit(W, blocksize=64, quant_type="nf4")
    return {"quantize": lambda: bnb.quantize_4bit(W, blocksize=64, quant_type="nf4"),
            "dequantize": lambda: bnb.dequantize_4bit(codes, state),
            "note": codes.numel()}


def main():
    rows, versions = sides.compare(__file__, {f"{SIZE} x {SIZE}": ({}, ["ours", "theirs"])},
                                   seconds=20, moment=0.5)
    (row,) = rows.values()
    print(f"\nNF4, {SIZE} x {SIZE}, float32 to 4 bits and back\n")
    for work, mine in row["ours"].items():
        other = row["theirs"][work]
        print(f"{work:12} ours {mine * 1e3:7.1f} ms   bitsandbytes {other * 1e3:7.1f} ms"
              f"   ratio {mine / other:.2f}")
    sides.record("nf4", versions=versions, rows=rows)


if __name__ == "__main__":
    sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]]) if len(sys.argv) > 1 else main()
