"""Many runs of train_distributed.py in one launch, and saving broken on purpose.

    torchrun --standalone --nproc_per_node N distributed_oracle.py RUNS.json

RUNS.json lists the words of each run's command line: starting PyTorch takes longer than a run.
With `--die-after 8` every process kills itself after so many steps. With `--break BASE FOLDER` an
adapter is then saved wrongly in every way of `WAYS`; FOLDER/saved.json gets what was said to each,
null where nothing was, and the files that are left in the adapter's place.
"""

import argparse
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

CODE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CODE / "real_models" / "huggingface"))
import train_distributed as script  # noqa: E402 (needs the path)


def rename(old, new):
    return lambda state, start: {key.replace(old, new): array for key, array in state.items()}


def change(value, *, only=""):
    """Other values: `value` of each array and of its start, where `only` is part of the key."""
    return lambda state, start: {key: value(array, start[key]) if only in key else array
                                 for key, array in state.items()}


#: What reaches `save_pretrained` instead of what was trained.
WAYS = {
    "right": lambda state, start: state,
    "names of wrapped layers": rename(".layers.", ".layers._fsdp_wrapped_module."),
    "a misspelt module": rename("1.self_attn.q_proj.lora_A", "1.self_attn.q_porj.lora_A"),
    "one wrong key": rename("1.self_attn.q_proj.lora_A.default.weight",
                            "1.self_attn.q_proj.lora_A.default.wght"),
    "a missing array": lambda state, start: dict(list(state.items())[1:]),
    "parts not gathered": change(lambda array, start: array[:0], only="v_proj.lora_B"),
    "the start": change(lambda array, start: start),
    "B still zero": change(lambda array, start: start, only="lora_B"),
    "diverged": change(lambda array, start: array * float("nan"), only="layers.2"),
}


def break_saving(base, folder):
    """Note what save_adapter says to each way, and what is then in the adapter's place."""
    model = script.build(base, folder, torch.float64, torch.device("cpu"))
    gather, said = script.get_model_state_dict, {}
    start = gather(model, options=script.GATHERED)
    start = {key: array.clone() for key, array in start.items()}
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * p.requires_grad
    for name, way in reversed(WAYS.items()):  # the right one comes last, into an empty place
        script.get_model_state_dict = lambda *args, way=way, **words: way(gather(*args, **words),
                                                                          start)
        message = None
        try:
            script.save_adapter(model, base, folder, torch.float64)
        except RuntimeError as error:
            message = str(error)
        there = folder / "adapter"
        said[name] = message, sorted(p.name for p in there.iterdir()) if there.exists() else []
    (folder / "saved.json").write_text(json.dumps(said))


def die_after(steps):
    """Let this process end like one whose power was cut: it cleans nothing up."""
    step, done = script.step, itertools.count()

    def mortal(*words):
        if next(done) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*words)
    script.step = mortal


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--break", nargs=2, dest="broken")
    options = parser.parse_args()
    if options.die_after:
        die_after(options.die_after)
    device = script.join()
    for words in json.loads(options.runs.read_text()):
        script.train(script.parse(words), device)
    if options.broken:
        break_saving(options.broken[0], Path(options.broken[1]))
    dist.destroy_process_group()


main()
