"""Ask bitsandbytes for NF4 codes and dequantized weights; test_bitsandbytes.py compares ours.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_bitsandbytes_fixtures.py [file]

Written is one .npz: the two code tables, and per case the weight, packed codes, absmax, dequantized
weight, and the same with double quantization (prefix "double_").
This folder's parent holds our `peft`: it must never be on the path here.
"""

import sys
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import torch

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "bitsandbytes.npz"


def cases() -> dict[str, np.ndarray]:
    """Float32 weights: plain, odd sizes, zeros, outliers, magnitudes, midpoints."""
    rng = np.random.default_rng(9)
    normal = rng.standard_normal((96, 192)).astype(np.float32)  # 288 blocks: two of 256
    zeros = rng.standard_normal((8, 64)).astype(np.float32)
    zeros[[2, 5]] = 0
    outlier = (0.02 * rng.standard_normal((16, 128))).astype(np.float32)
    outlier[3, 7], outlier[9, 100] = 4.0, -3.0
    scales = rng.standard_normal((40, 64)) * np.logspace(-6, 2, 40)[:, None]
    table = bnb.get_4bit_type("nf4", device="cpu").numpy()
    middle = np.tile((table[1:] + table[:-1]) / 2, (24, 5))[:, :64]  # where rounding decides
    size = (1 + rng.random((24, 1))).astype(np.float32)
    middle[:, 0] = 1
    return {"midpoints": middle * size, "normal": normal,
            "short": rng.standard_normal((10, 10)).astype(np.float32),
            "odd": rng.standard_normal((7, 11)).astype(np.float32),
            "tiny": rng.standard_normal((1, 3)).astype(np.float32), "zeros": zeros,
            "outlier": outlier, "scales": scales.astype(np.float32),
            "levels": np.linspace(-1, 1, 640, dtype=np.float32).reshape(10, 64)}


def main(file: Path) -> None:
    torch.set_num_threads(1)
    found = {"nf4": bnb.get_4bit_type("nf4", device="cpu").numpy(),
             "dynamic": bnb.create_dynamic_map().numpy()}
    for name, weight in cases().items():
        W = torch.from_numpy(weight)
        codes, state = bnb.quantize_4bit(W, blocksize=64, quant_type="nf4")
        double_codes, double = bnb.quantize_4bit(W, blocksize=64, quant_type="nf4",
                                                 compress_statistics=True)
        arrays = {"weight": W, "codes": codes.ravel(), "absmax": state.absmax,
                  "dequantized": bnb.dequantize_4bit(codes, state),
                  "double_codes": double.absmax, "double_scales": double.state2.absmax,
                  "double_offset": double.offset,
                  "double_absmax": bnb.dequantize_blockwise(double.absmax, double.state2)
                  + double.offset,
                  "double_dequantized": bnb.dequantize_4bit(double_codes, double)}
        found |= {f"{name}/{key}": tensor.numpy() for key, tensor in arrays.items()}
    np.savez_compressed(file, **found)
    print(f"{len(found)} arrays written to {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
