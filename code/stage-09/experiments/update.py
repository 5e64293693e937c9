"""One update of full fine-tuning, whole: the matrix that section 9.2 takes apart.

    python -m experiments.update    make update.json again; ten seconds on one core

It trains as the recorded run of full fine-tuning on Icelandic did, and keeps what was added to one
weight.
"""

import json
from pathlib import Path

import numpy as np

from experiments import small_llama
from experiments.records import rounded
from names import batches, load_names
from tensorfile import write_whole
from training import Event, fit

TARGET, SEED, MATRIX = "icelandic", 0, "model.layers.1.self_attn.q_proj.weight"


def record(folder: Path = small_llama.RESULTS) -> None:
    """Train once more, up to the run's best step, and write the update of `MATRIX`."""
    run, = small_llama.load_runs("report", target=TARGET, method="full", seed=SEED)
    model = small_llama.make_model("full", run["size"], SEED)
    before = model.weights()[MATRIX].astype(np.float64)

    def at_best(event: Event) -> bool:
        return event.step == run["best_step"]

    fit(model, batches(load_names(TARGET, "train"), small_llama.BATCH,
                       np.random.default_rng([SEED, 0])),
        steps=run["steps"], lr=run["lr"], warmup=small_llama.WARMUP, callbacks=[at_best])
    update = model.weights()[MATRIX] - before  # (out, in)
    row = {"target": TARGET, "seed": SEED, "step": run["best_step"], "matrix": MATRIX,
           "update": update.tolist()}
    write_whole(folder / "update.json", json.dumps(rounded(row), separators=(",", ":")) + "\n")


def load_update(folder: Path = small_llama.RESULTS) -> np.ndarray:
    """W' - W of `MATRIX` at the best step of full fine-tuning, float64 (out, in)."""
    return np.array(json.loads((folder / "update.json").read_text(encoding="utf-8"))["update"])


if __name__ == "__main__":
    record()
