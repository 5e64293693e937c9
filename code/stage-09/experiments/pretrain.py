"""Pretrain the base model on the base names: about a minute on one core.

    python -m experiments.pretrain [--steps 2500] [--output data/base]

Writes `config.json` and `model.safetensors` in Hugging Face's layout, so that `llama.py` and
`transformers` both load it, and `training.json`, which records what was done and what it reached.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llama import Llama, LlamaConfig, random_weights
from names import BOUNDARY, SYMBOLS, batches, load_names
from real_models.hub import save_llama
from tensorfile import fresh, restore, write_whole
from training import ProgressBar, Recorder, fit

CONFIG = LlamaConfig(vocab_size=len(SYMBOLS), hidden_size=64, intermediate_size=160,
                     num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4)
FILES = {"config.json", "model.safetensors", "training.json"}


def check_output(folder: Path) -> None:
    """Mend what a killed run has left; SystemExit if the folder holds what no run has written."""
    restore(folder)
    if folder.exists() and (others := sorted({path.name for path in folder.iterdir()} - FILES)):
        sys.exit(f"{folder} is replaced as a whole, and it holds {others[0]}: give --output "
                 "another folder")


def save(model: Llama, record: dict[str, Any], folder: Path) -> None:
    """Write the checkpoint and its record: the folder is the old one or the new one, no mixture."""
    with fresh(folder) as new:
        # no pad_token_id: transformers would give the boundary's embedding a zero gradient
        save_llama(model, new, bos_token_id=BOUNDARY, eos_token_id=BOUNDARY)
        write_whole(new / "training.json", json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "data" / "base")
    args = parser.parse_args()
    check_output(args.output)  # before a minute's work

    rng = np.random.default_rng(args.seed)
    model = Llama(CONFIG, random_weights(CONFIG, rng))
    model.set_trainable()
    held_out = load_names("base", "validation")
    best = {"step": 0, "loss": np.inf, "weights": {}}

    def keep_best(event) -> None:
        if event.evaluated and event.evaluated["validation"] < best["loss"]:
            best.update(step=event.step, loss=event.evaluated["validation"],
                        weights={name: w.copy() for name, w in model.weights().items()})

    recorder = Recorder()
    fit(model, batches(load_names("base", "train"), args.batch_size, rng), steps=args.steps,
        lr=args.lr, warmup=200, weight_decay=args.weight_decay, every=250,
        evaluations={"validation": held_out}, callbacks=[recorder, keep_best, ProgressBar()])

    record = {**{key: value for key, value in vars(args).items() if key != "output"},
              "best_step": best["step"], "validation_loss": best["loss"],
              "curve": {"steps": recorder.steps, "validation": recorder.losses["validation"]}}
    save(Llama(CONFIG, best["weights"]), record, args.output)
    print(f"validation loss {best['loss']:.4f} nats per character at step {best['step']}, "
          f"saved in {args.output}")


if __name__ == "__main__":
    main()
