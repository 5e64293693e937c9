"""Section 9.8's lines for one process, on the processor; test_qlora_on_cpu.py runs it.

    .venv-oracle/bin/python qlora_oracle.py FOLDER

FOLDER/base is a checkpoint, qlora.py and checkpointing.py are the page's lines. Writes
FOLDER/adapter as PEFT saves it, FOLDER/rounded.npz with the weights that bitsandbytes' four bits
stand for, and the logits of the tuned model beside them.
"""

import json
import sys
from pathlib import Path

import bitsandbytes
import numpy as np
import torch
import transformers

import peft

FOLDER = Path(sys.argv[1])


def recomputed(ids, lines, training):
    """How often the first block runs in one step of LoRA, and the gradients."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / "base")
    exec(lines, {"model": model})
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False))
    model.train(training)
    runs = []
    block = model.get_base_model().model.layers[0]
    block.mlp.register_forward_pre_hook(lambda *_: runs.append(1))  # the second run may end early
    model(input_ids=ids, labels=ids).loss.backward()
    return len(runs), [p.grad for p in model.parameters() if p.requires_grad]


def checkpointing(ids):
    """Runs of the first block: without the page's lines, with them, and in evaluation mode."""
    lines = (FOLDER / "checkpointing.py").read_text("utf-8")
    ways = [recomputed(ids, *way) for way in (("", True), (lines, True), (lines, False))]
    largest = max(float((one - two).abs().max()) for one, two in zip(ways[0][1], ways[1][1]))
    return {"runs": [runs for runs, _ in ways], "difference": largest,
            "size": max(float(grad.abs().max()) for grad in ways[0][1])}


def main():
    torch.manual_seed(0)
    names = {"torch": torch, "peft": peft, "base": str(FOLDER / "base")}
    # the page's own: they load `model` in four bits and prepare it
    exec((FOLDER / "qlora.py").read_text("utf-8"), names)
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear",
                               task_type="CAUSAL_LM")
    model = peft.get_peft_model(names["model"], settings)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 31, (4, 12)))
    losses = []
    for _ in range(10):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.save_pretrained(FOLDER / "adapter")

    four, arrays = [], {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            four.append(name.removesuffix(".base_layer"))
            arrays[f"{four[-1]}.weight"] = bitsandbytes.functional.dequantize_4bit(
                module.weight.data, module.weight.quant_state).float().numpy()
    for name, array in model.get_base_model().named_parameters():
        if "lora_" not in name and array.is_floating_point():
            arrays[name.replace(".base_layer", "")] = array.detach().float().numpy()
    with torch.no_grad():
        arrays["logits"] = model(input_ids=ids).logits.float().numpy()
    np.savez(FOLDER / "rounded.npz", **arrays)
    wide = {str(p.dtype) for n, p in model.named_parameters() if "norm" in n or "embed" in n}
    print(json.dumps({"losses": losses, "four_bits": four, "others": sorted(wide),
                      "trained": sum(p.numel() for p in trained),
                      "checkpointing": checkpointing(ids)}))


main()
