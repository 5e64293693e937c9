"""Train with each optimizer once and print, as JSON, the bytes of the tensors that it then holds.

    .venv-oracle/bin/python code/stage-09/tests/oracle/optimizer_bytes.py

Name of our table -> dtype of what is trained -> shape, as text -> bytes. What stands beside the
averages (counters of one number, the tables of 8-bit codes that all tensors share) is left out.
"""

import json
import warnings

import bitsandbytes as bnb
import torch
import transformers
from transformers.optimization import Adafactor

#: Below and above what bitsandbytes takes to 8 bits, blocks that are full and not; stacked experts.
SHAPES = [(8, 600), (700, 8), (5000,), (3, 40, 50), (4, 8), (64, 64), (4095,), (130,)]
MAKE = {
    "adamw": lambda given: torch.optim.AdamW(given),
    "adamw-8bit": lambda given: bnb.optim.AdamW8bit(given),
    "paged-adamw-8bit": lambda given: bnb.optim.PagedAdamW8bit(given),
    "paged-adamw": lambda given: bnb.optim.PagedAdamW(given),
    "adafactor": lambda given: torch.optim.Adafactor(given),
    "adafactor, transformers": lambda given: Adafactor(given),
    "lion": lambda given: bnb.optim.Lion(given, lr=1e-4),
    "lion-8bit": lambda given: bnb.optim.Lion8bit(given, lr=1e-4),
    "muon": lambda given: torch.optim.Muon([p for p in given if p.dim() == 2]),
    "sgd-momentum": lambda given: torch.optim.SGD(given, lr=0.1, momentum=0.9),
    "sgd": lambda given: torch.optim.SGD(given, lr=0.1),
}
BESIDE = ("step", "RMS", "qmap1", "qmap2")


def held(name: str, dtype: torch.dtype) -> dict[str, int]:
    given = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in SHAPES]
    for parameter in given:
        parameter.grad = torch.ones_like(parameter)
    optimizer = MAKE[name](given)
    optimizer.step()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return {str(list(p.shape)): sum(
        value.numel() * value.element_size() for key, value in optimizer.state[p].items()
        if isinstance(value, torch.Tensor) and key not in BESIDE) for p in trained}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    print(json.dumps({name: {str(dtype).removeprefix("torch."): held(name, dtype)
                             for dtype in (torch.float32, torch.bfloat16)} for name in MAKE}))
