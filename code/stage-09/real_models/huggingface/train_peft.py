"""The training run of twins.py with Hugging Face PEFT instead of our code.

    .venv-oracle/bin/python code/stage-09/real_models/huggingface/train_peft.py <base> <folder>

The folder holds what twins.py prepared; the adapter and `answers.json` are written into it. This
script lies in a folder of its own because beside our peft.py, `import peft` would find that one.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import peft


def train(base: str, folder: Path, batches: list) -> list[float]:
    # The base model
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    # LoRA on the query and value projections
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"],
                             task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    # The same start for both runs
    peft.set_peft_model_state_dict(model, peft.load_peft_weights(folder / "start"))
    # The optimizer
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=5e-3, weight_decay=0.0)
    # The steps
    losses = []
    for inputs, targets in batches:
        logits = model(input_ids=torch.tensor(inputs)).logits
        loss = F.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The files
    model.save_pretrained(folder / "peft")
    return losses


@torch.no_grad()
def logits_with(base: str, adapter: Path | None, ids: list) -> torch.Tensor:
    """Logits of the base model, or of the base model with an adapter from disk."""
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    return model(input_ids=torch.tensor(ids)).logits


def misspell(folder: Path) -> Path:
    """A copy of our adapter whose keys lack the prefix that PEFT expects."""
    shutil.copytree(folder / "numpy", folder / "misspelt", dirs_exist_ok=True)
    file = folder / "misspelt" / "adapter_model.safetensors"
    save_file({name.removeprefix("base_model.model."): array
               for name, array in load_file(file).items()}, file)
    return folder / "misspelt"


def main(base: str, folder: Path) -> None:
    torch.set_num_threads(1)
    data = np.load(folder / "batches.npz")
    batches = [(data[f"inputs {i}"], data[f"targets {i}"]) for i in range(len(data) // 2)]
    ids = json.loads((folder / "ids.json").read_text())
    plain, ours = logits_with(base, None, ids), logits_with(base, folder / "numpy", ids)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        misspelt = logits_with(base, misspell(folder), ids)
    warned = [str(w.message) for w in caught if "missing" in str(w.message)]
    answers = {
        "versions": {"torch": torch.__version__.split("+")[0], "peft": peft.__version__,
                     "transformers": transformers.__version__},
        "losses": train(base, folder, batches),
        "logits": ours.tolist(),
        "change": float((ours - plain).abs().max()),
        "misspelt_change": float((misspelt - plain).abs().max()),
        "misspelt_warning": warned[0][:90] if warned else None,
    }
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
