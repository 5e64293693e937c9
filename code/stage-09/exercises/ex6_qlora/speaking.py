"""Four bits on a model that speaks: its loss on text when its weights are rounded.

    python -m exercises.ex6_qlora.speaking [--train]      what is not recorded yet; `make smollm2`

All 210 linear layers are rounded to 16 levels, the embedding stays, as in QLoRA. The levels are
NF4's or evenly spaced; a scale belongs to 64 weights, or to a whole matrix. What came was in four
bits already (Q4_1: 16 even levels between the least and the largest of 32 weights), so each of our
forms is a second rounding.

Measured: loss on a text that the model has not seen, pages of this book (text.txt), and on its own
everyday answers. With --train also LoRA on the rounded weights: QLoRALinear rounds once and makes
the same weights anew in every pass, so here they are made once and kept. Rows go to
quantized.jsonl.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy loads
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np
from tqdm import tqdm

from exercises.ex6_qlora.levels import NF4
from exercises.ex6_qlora.solution import (
    _nearest, _scale, dequantize_absmax, quantize_absmax,
)
from experiments import smollm2 as runner
from experiments.records import append, read_lines
from llama import PROJECTIONS, Llama
from real_models import smollm2

EVEN = np.linspace(-1, 1, 16, dtype=np.float32)
FORMS = {  # name: levels, weights that share a scale (None: a matrix), scales in 8 bits
    "float32": None, "NF4, double quantization": (NF4, 64, True), "NF4": (NF4, 64, False),
    "even levels": (EVEN, 64, False), "NF4, one scale for a matrix": (NF4, None, False),
    "even levels, one scale for a matrix": (EVEN, None, False)}
QLORA = {"kind": "qlora", "weights": "NF4, double quantization", "method": "lora-all", "size": 8,
         "lr": 1e-3, "seed": runner.SEEDS[0], "steps": runner.STEPS}
WINDOW = 256  # tokens


def rounded(weight: np.ndarray, levels: np.ndarray, block: int | None, double: bool) -> np.ndarray:
    """A weight as its four bits give it back, in its own shape."""
    block = block or weight.size
    quotients, absmax = _scale(weight.ravel(), block)  # (n,), (nb,)
    if double:
        absmax = dequantize_absmax(*quantize_absmax(absmax))
    back = levels[_nearest(quotients, levels)] * np.repeat(absmax, block)[:weight.size]
    return back.reshape(weight.shape)


def bits(block: int | None, double: bool) -> float:
    """Per weight, with the scales; a scale for a whole matrix counts as nothing."""
    return 4 + (0 if block is None else 8 / block + 32 / (block * 256) if double else 32 / block)


def quantize(model: Llama, form: str) -> dict[str, float]:
    """Round all linear layers in place; bits per weight, and the error beside the weights' size."""
    if FORMS[form] is None:
        return {"bits": 32.0, "error": 0.0}
    levels, block, double = FORMS[form]
    wrong = size = 0.0
    for name, module in tqdm(model.modules().items(), desc=form, file=sys.stdout):
        if name.endswith(PROJECTIONS):
            new = rounded(module.weight, levels, block, double)
            wrong += float(np.square(new - module.weight).sum(dtype=np.float64))
            size += float(np.square(module.weight).sum(dtype=np.float64))
            module.weight = new
    return {"bits": bits(block, double), "error": (wrong / size) ** 0.5}


def text_windows(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """text.txt as (first token, the others), `WINDOW` tokens each."""
    text = (runner.RESULTS / "text.txt").read_text(encoding="utf-8")
    ids = smollm2.token_ids(tokenizer, text)
    parts = [ids[start:start + WINDOW] for start in range(0, len(ids), WINDOW)]
    return [(part[:1], part[1:]) for part in parts if len(part) > 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="LoRA on the rounded weights, too")
    parser.add_argument("--output", type=Path, default=runner.RESULTS)
    parser.add_argument("--folder", type=Path, default=smollm2.FOLDER, help="where the model lies")
    args = parser.parse_args()
    log = args.output / "quantized.jsonl"
    for form in FORMS:
        job = {"kind": "quantized", "form": form}
        if runner.is_done(job, read_lines(log)):
            continue
        model, tokenizer = runner.make_model(args.folder)
        found, windows = quantize(model, form), text_windows(tokenizer)
        losses = sum(float(runner.losses(model, [window])[0]) for window in windows)
        tokens = sum(len(rest) for _, rest in windows)
        append(log, job | found | {
            "text": losses / tokens, "text_tokens": tokens,
            "general": runner.mean_loss(model, runner.everyday(args.folder, args.output))})
    if args.train and not runner.is_done(QLORA, read_lines(log)):
        model, tokenizer, found = runner.teach(
            QLORA, args.folder, lambda model: quantize(model, QLORA["weights"]))
        append(log, QLORA | found | runner.measure(
            model, tokenizer, "zero", runner.everyday(args.folder, args.output)))


if __name__ == "__main__":
    main()
