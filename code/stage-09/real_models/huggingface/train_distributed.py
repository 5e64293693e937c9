"""Section 9.8's training run on several processes, with PyTorch and Hugging Face PEFT.

    torchrun --standalone --nproc_per_node 2 train_distributed.py BASE FOLDER
    torchrun --standalone --nproc_per_node 2 train_distributed.py BASE FOLDER --shard

Without `--shard` each process holds the whole frozen model (DDP); with it each holds its part of
every weight (FSDP2). One process or many, sharded or not: the losses are the same, since each
token counts once. FOLDER holds `batches.npz` and the adapter to start from, as twins.py lays them
out; the adapter goes to FOLDER/adapter. Killed and started again with `--resume`, it goes on from
the last checkpoint. On graphics cards it takes one for each process.
"""

import argparse
import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict)
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import peft

#: Gathered on process 0, and of what trains alone: the frozen weights are in the base's files.
GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False,
                          ignore_frozen_params=True)


class Share:
    """This process's rows of every batch: rows rank, rank + world, ... The rest goes to others."""

    def __init__(self, batches: list, rank: int, world: int):
        self.lengths = [len(inputs) for inputs, _ in batches]
        self.rank, self.world = rank, world

    def __iter__(self):
        for batch, length in enumerate(self.lengths):
            yield [(batch, row) for row in range(self.rank, length, self.world)]

    def __len__(self):
        return len(self.lengths)


class Rows(torch.utils.data.Dataset):
    """Rows by (batch, row): a name's inputs and targets, padded as its batch is."""

    def __init__(self, batches: list):
        self.batches = batches

    def __getitem__(self, index: tuple) -> tuple:
        batch, row = index
        inputs, targets = self.batches[batch]
        return torch.tensor(inputs[row]), torch.tensor(targets[row])


def build(base: str, folder: Path, dtype: torch.dtype, device: torch.device):
    """The base model with the LoRA that the folder's `start` holds."""
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=dtype)
    config = peft.PeftConfig.from_pretrained(folder / "start")
    config.inference_mode = False
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False).to(dtype)
    peft.set_peft_model_state_dict(model, peft.load_peft_weights(folder / "start"))
    return model.to(device)


def spread(model, shard: bool):
    """Wrap the model for several processes; what `sync` needs is what it returns beside it."""
    if not shard:
        wrapped = DistributedDataParallel(model)
        return wrapped, wrapped.no_sync
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)  # gathered when its turn comes, freed after it
    fully_shard(model)

    def no_sync():
        model.set_requires_gradient_sync(False)
        return nullcontext()
    return model, no_sync


def step(model, no_sync, optimizer, inputs, targets, parts: int, device) -> float:
    """One optimizer step over this process's rows, in `parts` pieces; the loss of the whole batch.

    Every process divides its *sum* by the number of tokens that all of them hold. A mean of means
    would weigh a token by the length of its neighbours.
    """
    tokens = (targets != -100).sum().to(device)
    dist.all_reduce(tokens)
    world, total = dist.get_world_size(), torch.zeros((), device=device, dtype=torch.float64)
    pieces = list(zip(inputs.chunk(parts), targets.chunk(parts)))
    for number, (x, y) in enumerate(pieces, 1):
        last = number == len(pieces)
        if last and hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(True)
        with nullcontext() if last else no_sync():  # gradients travel once, with the last piece
            logits = model(input_ids=x.to(device)).logits
            loss = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="sum")
            (loss * world / tokens).backward()  # DDP and FSDP2 average over the processes
        total += loss.detach()
    optimizer.step()
    optimizer.zero_grad()
    dist.all_reduce(total)
    return (total / tokens).item()


def keep(path: Path, write) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    write(partial)
    os.replace(partial, path)


def save_adapter(model, base: str, folder: Path, dtype: torch.dtype) -> None:
    """PEFT's two files, written by process 0 and read back: arrays there, a logit that moves.

    PEFT takes the names from the model. Those of a wrapped one are not what they should be, and
    what does not match is left out without a word; so a fresh, plain model lends its names.
    """
    state = get_model_state_dict(model, options=GATHERED)  # all processes take part
    if dist.get_rank() == 0:
        plain = build(base, folder, dtype, torch.device("cpu"))
        ids = torch.tensor([[0, 1, 2, 3]])
        plain.save_pretrained(folder / "adapter", state_dict=state)
        written = peft.load_peft_weights(folder / "adapter")
        trained = sum(p.requires_grad for p in model.parameters())
        assert len(written) == trained > 0, f"{len(written)} of {trained} arrays were saved"
        peft.set_peft_model_state_dict(plain, written)
        with torch.no_grad():
            moved = plain(input_ids=ids).logits
            with plain.disable_adapter():
                assert not torch.equal(plain(input_ids=ids).logits, moved), "no logit moved"
    dist.barrier()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard", action="store_true", help="shard the weights, too (FSDP2)")
    parser.add_argument("--parts", type=int, default=1, help="pieces to accumulate gradients over")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    options = parser.parse_args()
    cards = torch.cuda.is_available()
    dist.init_process_group("nccl" if cards else "gloo")
    rank, dtype = dist.get_rank(), getattr(torch, options.dtype)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cards else torch.device("cpu")
    if cards:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)

    data = np.load(options.folder / "batches.npz")
    batches = [(data[f"inputs {i}"], data[f"targets {i}"]) for i in range(len(data) // 2)]
    loader = DataLoader(Rows(batches), batch_sampler=Share(batches, rank, dist.get_world_size()))
    model, no_sync = spread(build(options.base, options.folder, dtype, device), options.shard)
    held = sum(getattr(p, "to_local", lambda p=p: p)().nbytes for p in model.parameters())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3,
                                  weight_decay=0.0)

    checkpoint, losses = options.folder / "checkpoint.pt", []
    if options.resume:
        last = torch.load(checkpoint, weights_only=True)
        losses = last["losses"]
        set_state_dict(model, optimizer, model_state_dict=last["model"],
                       optim_state_dict=last["optimizer"], options=SPREAD)
    for number, (inputs, targets) in enumerate(loader, 1):
        if number <= len(losses):
            continue  # before the checkpoint
        losses.append(step(model, no_sync, optimizer, inputs, targets, options.parts, device))
        if rank == 0:
            print(f"step {number} of {len(loader)}: loss {losses[-1]:.6f}", flush=True)
        if number % options.every == 0:
            arrays, moments = get_state_dict(model, optimizer, options=GATHERED)
            if rank == 0:
                keep(checkpoint, lambda path: torch.save(
                    {"model": arrays, "optimizer": moments, "losses": losses}, path))
            dist.barrier()
    save_adapter(model, options.base, options.folder, dtype)
    if rank == 0:
        keep(options.folder / "distributed.json", lambda path: path.write_text(json.dumps(
            {"processes": dist.get_world_size(), "losses": losses, "bytes": held})))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
