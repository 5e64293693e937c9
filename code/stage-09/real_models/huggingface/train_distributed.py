"""Section 9.8's training run on several processes, with Hugging Face PEFT.

    torchrun --standalone --nproc_per_node 2 train_distributed.py BASE FOLDER
    torchrun --standalone --nproc_per_node 2 train_distributed.py BASE FOLDER \\
        --shard

Without `--shard` each process holds the whole frozen model (DDP); with it each
holds its part of every weight (FSDP2). One process or many, sharded or not:
the losses are the same, since each token counts once. FOLDER holds
`batches.npz` and the adapter to start from, as twins.py lays them out; the
adapter goes to FOLDER/adapter. Killed and started again with `--resume`, it
goes on from the last checkpoint. On graphics cards it takes one for each
process.
"""

import argparse
import json
import os
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

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

#: Gathered on process 0, and of what trains alone: the frozen weights are in
#: the base's files.
GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True,
                            ignore_frozen_params=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True,
                          strict=False, ignore_frozen_params=True)


class Share:
    """This process's rows of every batch: rank, rank + world, and so on."""

    def __init__(self, batches: list, rank: int, world: int):
        self.lengths = [len(inputs) for inputs, _ in batches]
        self.rank, self.world = rank, world

    def __iter__(self):
        for batch, length in enumerate(self.lengths):
            mine = range(self.rank, length, self.world)
            yield [(batch, row) for row in mine]

    def __len__(self):
        return len(self.lengths)


class Rows(torch.utils.data.Dataset):
    """Inputs and targets by (batch, row), padded as their batch is."""

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
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    start = peft.load_peft_weights(folder / "start", device="cpu")
    peft.set_peft_model_state_dict(model, start)
    return model.to(device, dtype)


def spread(model, shard: bool):
    """Wrap the model for several processes.

    Beside it comes a context in which gradients are not exchanged.
    """
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


def step(model, no_sync, optimizer, inputs, targets, parts, device) -> float:
    """One optimizer step over this process's rows; the whole batch's loss.

    The rows go through in `parts` pieces. Every process divides its *sum* by
    the number of tokens that all of them hold: a mean of means would weigh a
    token by the length of its neighbours.
    """
    tokens = (targets != -100).sum().to(device)
    dist.all_reduce(tokens)
    world = dist.get_world_size()
    total = torch.zeros((), device=device, dtype=torch.float64)
    pieces = list(zip(inputs.chunk(parts), targets.chunk(parts)))
    for number, (x, y) in enumerate(pieces, 1):
        last = number == len(pieces)
        if last and hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(True)
        # gradients travel once, with the last piece
        with nullcontext() if last else no_sync():
            logits = model(input_ids=x.to(device)).logits.flatten(0, 1)
            loss = F.cross_entropy(logits, y.to(device).flatten(),
                                   reduction="sum")
            # DDP and FSDP2 average over the processes
            (loss * world / tokens).backward()
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
    """PEFT's two files, written by process 0, read back and checked.

    PEFT takes the names from the model. Those of a wrapped one are not what
    they should be, and what does not match is left out without a word; so a
    fresh, plain model lends its names. FOLDER/adapter gets nothing that the
    check refuses.
    """
    # all processes take part
    state = get_model_state_dict(model, options=GATHERED)
    if dist.get_rank() == 0:
        plain = build(base, folder, dtype, torch.device("cpu"))
        with TemporaryDirectory(dir=folder) as unchecked:
            plain.save_pretrained(unchecked, state_dict=state)
            check_adapter(plain, unchecked)
            (folder / "adapter").mkdir(exist_ok=True)
            for file in Path(unchecked).iterdir():
                file.replace(folder / "adapter" / file.name)
    dist.barrier()


def check_adapter(plain, saved: str) -> None:
    """Refuse an adapter that is not whole, or that changes nothing.

    `plain` is an unwrapped model with the adapter that training started from.
    """
    start = peft.get_peft_model_state_dict(plain)
    arrays = peft.load_peft_weights(saved, device="cpu")
    lost, strange = start.keys() - arrays.keys(), arrays.keys() - start.keys()
    if lost or strange:
        raise RuntimeError(
            f"{len(lost)} of {len(start)} arrays were not saved: "
            f"{sorted(lost)[:1]}; not the model's: {sorted(strange)[:1]}. "
            "Are the state's names those of the unwrapped model?")
    for name, array in arrays.items():
        if array.shape != start[name].shape:
            raise RuntimeError(
                f"{name} was saved with shape {tuple(array.shape)} instead "
                f"of {tuple(start[name].shape)}: gather the parts first")
        if not array.isfinite().all():
            raise RuntimeError(f"{name} is not finite: the run diverged")
    if all(torch.equal(array, start[name]) for name, array in arrays.items()):
        raise RuntimeError("what was saved is the start: is the saved model "
                           "the one that the optimizer trained?")
    peft.set_peft_model_state_dict(plain, arrays)
    ids = torch.tensor([[0, 1, 2, 3]])
    with torch.no_grad():
        moved = plain(input_ids=ids).logits
        with plain.disable_adapter():
            if torch.equal(plain(input_ids=ids).logits, moved):
                raise RuntimeError("the saved adapter moves no logit: "
                                   "are all B still zero?")


def join() -> torch.device:
    """Meet the other processes; the device that is this one's."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl")
    return device


def train(options: argparse.Namespace, device: torch.device) -> None:
    """The run: its adapter, its losses, the most bytes that a process held."""
    folder, dtype = options.folder, getattr(torch, options.dtype)
    rank, world = dist.get_rank(), dist.get_world_size()
    data = np.load(folder / "batches.npz")
    batches = [(data[f"inputs {i}"], data[f"targets {i}"])
               for i in range(len(data) // 2)]
    loader = DataLoader(Rows(batches),
                        batch_sampler=Share(batches, rank, world))
    model, no_sync = spread(build(options.base, folder, dtype, device),
                            options.shard)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=5e-3,
        weight_decay=0.0)

    checkpoint, losses = folder / "checkpoint.pt", []
    if options.resume:
        last = torch.load(checkpoint, weights_only=True)
        losses = last["losses"]
        set_state_dict(model, optimizer, model_state_dict=last["model"],
                       optim_state_dict=last["optimizer"], options=SPREAD)
    for number, (inputs, targets) in enumerate(loader, 1):
        if number <= len(losses):
            continue  # before the checkpoint
        losses.append(step(model, no_sync, optimizer, inputs, targets,
                           options.parts, device))
        if rank == 0:
            print(f"step {number} of {len(loader)}: loss {losses[-1]:.6f}",
                  flush=True)
        if number % options.every == 0:
            arrays, moments = get_state_dict(model, optimizer,
                                             options=GATHERED)
            if rank == 0:
                state = {"model": arrays, "optimizer": moments,
                         "losses": losses}
                keep(checkpoint, lambda path: torch.save(state, path))
            dist.barrier()
    # after training, so that what stayed gathered is counted
    held = sum(getattr(p, "to_local", lambda p=p: p)().nbytes
               for p in model.parameters())
    most = torch.tensor(held, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    save_adapter(model, options.base, folder, dtype)
    if rank == 0:
        answer = {"processes": world, "losses": losses, "bytes": most.item()}
        keep(folder / "distributed.json",
             lambda path: path.write_text(json.dumps(answer)))


def parse(words: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard", action="store_true",
                        help="shard the weights, too (FSDP2)")
    parser.add_argument("--parts", type=int, default=1,
                        help="pieces to accumulate gradients over")
    parser.add_argument("--resume", action="store_true",
                        help="go on from the last checkpoint")
    parser.add_argument("--every", type=int, default=5,
                        help="steps between checkpoints")
    parser.add_argument("--dtype", default="float32",
                        choices=["float32", "float64", "bfloat16"])
    return parser.parse_args(words)


if __name__ == "__main__":
    options = parse()
    train(options, join())
    dist.destroy_process_group()
