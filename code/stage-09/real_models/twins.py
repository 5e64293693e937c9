"""One training run, twice: here in NumPy, and in huggingface/train_peft.py with Hugging Face PEFT.

    python -m real_models.twins        asks PEFT anew and records its answers in data/huggingface

Hugging Face's PEFT needs PyTorch, and its package has the same name as our peft.py, so it lives in
an environment of its own, `.venv-oracle`, which `make oracle` creates. Where there is none, the
recorded answers take its place; they say which versions gave them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import names
import peft
import training
from real_models import hub
from tensorfile import replacing, write_whole

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
BASE = DATA / "base"
RECORD = DATA / "huggingface"
SCRIPT = HERE / "huggingface" / "train_peft.py"
ORACLE = HERE.parents[2] / ".venv-oracle" / "bin" / "python"
RECORDED = "PEFT_RECORDED"  # `make book` sets it: its pages do not depend on what is installed
IDS = names.make_batch(["ayla", "emre"])[0]  # (2, 5): what all logits are compared on


def make_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Twenty batches of 32 Turkish names, the same for both."""
    turkish = names.load_names("turkish", "train")
    return list(islice(names.batches(turkish, 32, np.random.default_rng(0)), 20))


def save_batches(folder: Path, batches: list) -> None:
    """Put the batches where both scripts of huggingface/ look for them."""
    arrays = {f"{key} {i}": array for i, pair in enumerate(batches)
              for key, array in zip(("inputs", "targets"), pair)}
    with replacing(folder / "batches.npz") as [new], new.open("wb") as file:
        np.savez(file, **arrays)


def train(base: str, folder: Path, batches: list) -> list[float]:
    # The base model
    model = hub.load_llama(base)
    # LoRA on the query and value projections
    rng = np.random.default_rng(1)
    for name, module in model.modules().items():
        if name.endswith(("q_proj", "v_proj")):
            model.replace(name, peft.LoRALinear(module.weight, lora_rank=4, lora_alpha=8, rng=rng))
    # The same start for both runs
    hub.save_adapter(model, folder / "start")
    # The optimizer
    optimizer = training.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    # The steps
    losses = []
    for inputs, targets in batches:
        logits = model.forward(inputs)
        loss, grad = training.cross_entropy(logits, targets)
        model.backward(grad)
        optimizer.step(model.gradients())
        losses.append(loss)
    # The files
    hub.save_adapter(model, folder / "numpy", base_model="data/base")
    return losses


def steps_of(source: str) -> dict[str, str]:
    """The parts of a `train` function by the comment that heads each."""
    body = source[source.index("    # "):source.rindex("    return losses")]
    parts = body.split("    # ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def ask_peft(folder: Path, batches: list) -> tuple[dict[str, Any], bool]:
    """What PEFT makes of the files in `folder`; its own adapter is put there, into `peft`.

    Where PEFT is not installed, or the environment has `RECORDED`, the answers are recorded ones.

    Returns
    -------
    answers : versions, losses, logits on `IDS`, and what a misspelt key did
    fresh : True if PEFT ran just now, False if these are recorded answers

    Raises
    ------
    RuntimeError
        PEFT is installed, but its script failed.
    """
    if not ORACLE.exists() or RECORDED in os.environ:
        shutil.copytree(RECORD / "peft", folder / "peft", dirs_exist_ok=True)
        return json.loads((RECORD / "answers.json").read_text(encoding="utf-8")), False
    save_batches(folder, batches)
    write_whole(folder / "ids.json", json.dumps(IDS.tolist()))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # never our peft.py
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([ORACLE, SCRIPT, BASE, folder], env=environment, cwd=folder,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{SCRIPT.name} failed:\n{done.stderr[-2000:]}")
    return json.loads((folder / "answers.json").read_text(encoding="utf-8")), True


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, batches = Path(name), make_batches()
        train(str(BASE), folder, batches)
        answers, fresh = ask_peft(folder, batches)
        if not fresh:
            sys.exit(f"{ORACLE} is missing: `make oracle` installs PyTorch and Hugging Face there")
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            write_whole(RECORD / "peft" / file, (folder / "peft" / file).read_bytes())
        config = RECORD / "peft" / "adapter_config.json"  # without this machine's folders
        content = json.loads(config.read_text()) | {"base_model_name_or_path": "data/base"}
        content["target_modules"].sort()
        write_whole(config, json.dumps(content, indent=2) + "\n")
        write_whole(RECORD / "answers.json", json.dumps(answers, indent=1) + "\n")
    print(f"recorded in {RECORD}: {answers['versions']}")


if __name__ == "__main__":
    main()
