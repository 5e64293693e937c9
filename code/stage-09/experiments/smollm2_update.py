"""What a training did to the speaking model's weights: how large, of what rank, and in 16 bits.

    python -m experiments.smollm2_update    what is not recorded yet; ten minutes for each

It trains as experiments/smollm2.py does, once more, since a record can't keep the weights. Rows go
to updates.jsonl, with what `describe` finds.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy loads
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np

from experiments import smollm2 as runner
from experiments.records import append, read_lines
from experiments.schedules import same
from experiments.tasks import CRON, TEST
from llama import PROJECTIONS, Linear, Llama
from real_models import smollm2

TRAINED = (("lora-all", 8, 1e-3), ("full", 0, 1e-4))  # methods, sizes, rates
CUTS = (1, 2, 4, 8, 16, 32, 64)  # ranks at which updates are cut off
SHOWN = "model.layers.15.self_attn.q_proj"  # in the middle: its singular values are kept
KEPT = 128  # of them


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16: sign, 8 bits exponent, 7 mantissa."""
    bits = np.array(x, np.float32).view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)  # to the nearest, ties to even
    return (bits & 0xFFFF0000).view(np.float32)


def float16(x: np.ndarray) -> np.ndarray:
    """Float32 rounded to float16; an array of float32 again."""
    return x.astype(np.float16).astype(np.float32)


def updates(model: Llama, old: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """W' - W of each linear layer, (out, in): what LoRA would add, or full fine-tuning has."""
    modules = model.modules()
    return {name: modules[name].lora.delta_weight() if hasattr(modules[name], "lora")
            else modules[name].weight - weight for name, weight in old.items()}


def norm(arrays: Iterable[np.ndarray]) -> float:
    """Of all entries together."""
    return sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays) ** 0.5


def merged(old: dict[str, np.ndarray], new: dict[str, np.ndarray],
           rounded: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """What is left of updates `new` that are added to rounded weights, and rounded again."""
    added = {name: rounded(rounded(w) + new[name]) - rounded(w) for name, w in old.items()}
    return {"unchanged": sum(int((a == 0).sum()) for a in added.values())
            / sum(a.size for a in added.values()),
            "error": norm(added[name] - new[name] for name in old) / norm(new.values())}


def describe(model: Llama, base: Llama, loss: Callable[[], float], exact: Callable[[], int]
             ) -> dict[str, Any]:
    """The updates of all linear layers of `model`, trained from `base`.

    Parameters
    ----------
    model : fully fine-tuned or with LoRA everywhere; its linear layers are replaced on the way
    base : as it was before
    loss, exact : measure `model` as it is at the moment

    Returns
    -------
    dict
        entry, weight : root mean square of the updates' entries and of the base weights'
        singular_values : the largest of `SHOWN`
        share : of an update's squared norm in its r largest directions, in the mean over the
            matrices, for each r of `CUTS`; cut_loss : with all updates cut to rank r
        float16, bfloat16 : merged in this type, `unchanged`, the share of weights that stay as
            they were, and `error`, how far what was added is from the update, of its norm
        beside, merged : loss and exact answers with the linear layers' weights in bfloat16 and
            the update beside them in float32, or merged into them
    """
    old = {name: module.weight for name, module in base.modules().items()
           if name.endswith(PROJECTIONS)}
    new = updates(model, old)

    def measured(weight_of: Callable[[str], np.ndarray], *measures: Callable) -> list:
        for name in old:
            model.replace(name, Linear(weight_of(name)))
        return [measure() for measure in measures]

    parts = {name: np.linalg.svd(delta, full_matrices=False) for name, delta in new.items()}
    shares = [[(s[:rank] ** 2).sum() / (s ** 2).sum() for rank in CUTS]
              for _, s, _ in parts.values() if s.any()]

    def cut(rank: int) -> float:
        def weight_of(name: str) -> np.ndarray:
            u, s, vt = parts[name]
            return old[name] + (u[:, :rank] * s[:rank]) @ vt[:rank]
        return measured(weight_of, loss)[0]

    cut_loss = list(map(cut, CUTS))
    shown = parts[SHOWN][1][:KEPT].tolist() if SHOWN in parts else []
    size = sum(weight.size for weight in old.values())
    found = {"entry": norm(new.values()) / size ** 0.5, "weight": norm(old.values()) / size ** 0.5,
             "singular_values": shown, "cuts": list(CUTS),
             "share": np.mean(shares, axis=0).tolist(), "cut_loss": cut_loss,
             "float16": merged(old, new, float16), "bfloat16": merged(old, new, bfloat16)}
    for way, weight_of in (("beside", lambda name: bfloat16(old[name]) + new[name]),
                           ("merged", lambda name: bfloat16(bfloat16(old[name]) + new[name]))):
        found[way] = dict(zip(("validation", "exact"), measured(weight_of, loss, exact)))
    return found


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A row of updates.jsonl: one training and its update."""
    model, tokenizer, found = runner.teach(job, folder)
    held_back = runner.encode(tokenizer, CRON.rows("train"))[:runner.HELD_BACK]
    rows = [row for group in TEST for row in CRON.rows(group)]

    def exact() -> int:
        said = runner.ask(model, tokenizer, [CRON.prompt(row.words) for row in rows], 16)
        return sum(same(text, row.answer) for text, row in zip(said, rows))

    kept = {name: found[name] for name in ("trainable", "cpu_seconds", "validation")}
    return job | kept | {"exact": exact(), "of": len(rows)} | describe(
        model, smollm2.load(folder)[0], lambda: runner.mean_loss(model, held_back), exact)


def load_updates(folder: Path = runner.RESULTS) -> list[dict[str, Any]]:
    """Recorded rows, each with what `describe` returns."""
    return read_lines(folder / "updates.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=runner.RESULTS)
    parser.add_argument("--folder", type=Path, default=smollm2.FOLDER, help="where the model lies")
    args = parser.parse_args()
    try:
        for method, size, lr in TRAINED:
            job = {"kind": "update", "method": method, "size": size, "lr": lr,
                   "seed": runner.SEEDS[0], "steps": runner.STEPS}
            if not runner.is_done(job, load_updates(args.output)):
                append(args.output / "updates.jsonl", run(job, args.folder))
    except (smollm2.HubError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
