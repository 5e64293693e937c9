"""Pretrain the base model on the base names: about a minute on one core.

    python -m experiments.pretrain [--steps 2500] [--output data/base]

Writes `config.json` and `model.safetensors` in Hugging Face's layout, so that `llama.py` and
`transformers` both load it, and `training.json`, which records what was done and what it reached.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from llama import Llama, LlamaConfig, random_weights
from names import BOUNDARY, SYMBOLS, batches, load_names
from tensorfile import write_whole
from training import ProgressBar, Recorder, fit

CONFIG = LlamaConfig(vocab_size=len(SYMBOLS), hidden_size=64, intermediate_size=160,
                     num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "data" / "base")
    args = parser.parse_args()

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

    args.output.mkdir(parents=True, exist_ok=True)
    # no pad_token_id: transformers would give the boundary's embedding a zero gradient
    config = CONFIG.to_hugging_face() | {"bos_token_id": BOUNDARY, "eos_token_id": BOUNDARY,
                                         "pad_token_id": None, "dtype": "float32"}
    write_whole(args.output / "config.json", json.dumps(config, indent=2) + "\n")
    save_file(best["weights"], args.output / "model.safetensors", metadata={"format": "pt"})
    record = {**{key: value for key, value in vars(args).items() if key != "output"},
              "best_step": best["step"], "validation_loss": best["loss"],
              "curve": {"steps": recorder.steps, "validation": recorder.losses["validation"]}}
    write_whole(args.output / "training.json", json.dumps(record, indent=1) + "\n")
    print(f"validation loss {best['loss']:.4f} nats per character at step {best['step']}, "
          f"saved in {args.output}")


if __name__ == "__main__":
    main()
