"""The family on the speaking model: five methods learn cron expressions, measured the same way.

    python -m experiments.family_speaking run      every run that is not recorded yet
    python -m experiments.family_speaking table    print the means
    python -m experiments.family_speaking claims   ask what the page claims of these and other seeds

The task, its texts and its measures are those of smollm2.py, at half the steps; the procedure is
that of family.py. Sweep: rates by factors of about 3 until a worse one stands on each side of the
one with the lowest loss on the 50 schedules held back. Report: the other seeds, at that rate; the
last step counts. A seed fixes the order of batches, the same for all methods, and the random start.
A run is appended to smollm2/family.jsonl as it ends; a step takes about three seconds of one core.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before NumPy loads: seconds are those of one thread
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from experiments import claims
from experiments import smollm2 as task
from experiments.family import METHODS as SMALL
from experiments.family import key, state_bytes, unfinished, verdict
from experiments.records import read_lines, run_claimed, runner, wait_for_others
from experiments.schedules import same
from experiments.small_llama import cost
from experiments.tasks import CRON, TEST
from llama import Linear, Llama
from real_models import smollm2
from training import cosine_schedule, train

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "family.jsonl"
TARGET, STEPS = "schedules", 60
SWEEP_SEEDS, SEEDS = (100,), tuple(range(10))
OTHER_SEEDS = (10, 11, 12, 13, 14)  # the claims were made after a look at all of SEEDS
NUMBERS = ("test_loss", "general", "seconds")
#: Methods of family.py, with the size and the first rate for this model. LoRA, LoRA+ and DoRA have
#: about one number of parameters; VeRA and (IA)³ are made to have few.
METHODS = {name: SMALL[name]._replace(size=size, start=start) for name, size, start in (
    ("lora", 8, 1e-3), ("loraplus", 8, 3e-4), ("dora", 8, 1e-3), ("vera", 64, 1e-2),
    ("ia3", 0, 1e-2))}


def merged(model: Llama) -> Llama:
    """`model`, with a plain weight wherever a method merges into one: an answer takes less time."""
    for name, module in model.modules().items():
        if hasattr(module, "merge"):
            model.replace(name, Linear(*module.merge()))
    return model


def measure(model: Llama, tokenizer: "Tokenizer", general: list) -> dict[str, Any]:
    """Nats per token of the right answers of all test groups, exact answers, and what is lost."""
    rows = [row for group in TEST for row in CRON.rows(group)]
    said = task.ask(model, tokenizer, [CRON.prompt(row.words) for row in rows], tokens=16)
    return {"test_loss": task.mean_loss(model, task.encode(tokenizer, rows)),
            "exact": sum(same(text, row.answer) for text, row in zip(said, rows)), "of": len(rows),
            "general": task.mean_loss(model, general)}


def run(job: dict[str, Any], folder: Path, output: Path) -> dict[str, Any]:
    """Train once; a job of kind "report" is measured, too.

    `seconds` are the processor's, of the training steps alone; they count also beside other work.
    """
    from tqdm import tqdm
    setting, seed, steps = METHODS[job["method"]], job["seed"], job["steps"]
    model, tokenizer = task.make_model(folder)
    setting.plug(model, job["size"], np.random.default_rng([seed, 1]))
    optimizer = setting.make_optimizer(model.parameters(), job["lr"])
    pairs = task.encode(tokenizer, CRON.rows("train"))
    events = train(model, optimizer,
                   task.batches(model, pairs[task.HELD_BACK:], np.random.default_rng([seed, 0])),
                   steps=steps, rate=lambda step: cosine_schedule(step, steps, job["lr"],
                                                                  task.WARMUP))
    start = time.process_time()
    try:
        curve = [event.loss for event in tqdm(events, total=steps, file=sys.stdout,
                                              desc=f"{job['method']} {job['lr']:g} seed {seed}")]
    except FloatingPointError as error:  # a rate of the sweep that is too high is a finding
        return job | {"diverged": str(error)}
    row = job | cost(model, state_bytes(optimizer)) | {
        "seconds": time.process_time() - start,
        "best_validation": task.mean_loss(merged(model), pairs[:task.HELD_BACK]),
        "curve": [float(np.mean(part)) for part in np.array_split(curve, max(1, steps // 5))]}
    if job["kind"] == "report":
        row |= measure(model, tokenizer, task.everyday(folder, output))
    return row


def run_all(args: argparse.Namespace) -> None:
    """Run by run, in this process; several runners of one folder share the jobs."""
    path = args.output / FILE
    with runner(path):
        while todo := unfinished(read_lines(path), (TARGET,), args.methods, args.seeds, STEPS,
                                 SWEEP_SEEDS, METHODS):
            print(f"{len(todo)} runs to go: {todo[0]['kind']}", flush=True)
            ours = [row for job in todo if (row := run_claimed(
                job, path, key, lambda job: run(job, args.folder, args.output)))]
            if not ours:
                wait_for_others(len(todo))
    table(args)


# ------------------------------------------------------------- what the page reads; NumPy suffices


def load_runs(folder: Path = task.RESULTS, **wanted: Any) -> list[dict]:
    """Recorded runs, as `load_runs(kind="report")`."""
    return [row for row in read_lines(folder / FILE) if wanted.items() <= row.items()]


def summarise(rows: Iterable[dict], seeds: Sequence[int] = SEEDS) -> list[dict]:
    """Per method, in the order of METHODS: mean and sample deviation over the runs of `seeds`."""
    entries, rows = [], [row for row in rows if row["kind"] == "report" and row["seed"] in seeds]
    for method in METHODS:
        runs = [row for row in rows if row["method"] == method and "diverged" not in row]
        if not runs:
            continue
        entry = {name: runs[0][name] for name in (
            "method", "size", "lr", "trainable", "memory_bytes", "of")} | {"seeds": len(runs)}
        for name in (*NUMBERS, "exact"):
            values = [run[name] for run in runs]
            entry[name] = float(np.mean(values))
            entry[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        entries.append(entry)
    return entries


class Record:
    """The runs of some seeds, asked by method: `Record(load_runs())("vera")` gives its means.

    A comparison is of all methods. So asking for one raises claims.NotRecorded while any of them
    lacks a run, and claims.ClaimFails if a run at the rate of the sweep diverged.
    """

    def __init__(self, rows: Iterable[dict], seeds: Sequence[int] = SEEDS) -> None:
        self.seeds = seeds
        self._runs = [row for row in rows if row["kind"] == "report" and row["seed"] in seeds]
        self._entries = {entry["method"]: entry for entry in summarise(self._runs, seeds)}

    def __call__(self, method: str) -> claims.Entry:
        there = len({(row["method"], row["seed"]) for row in self._runs})
        wanted = len(METHODS) * len(self.seeds)
        if there < wanted:
            raise claims.NotRecorded(f"{there} of {wanted} runs are there, and `make replicate` "
                                     "makes the others where the speaking model is")
        if lost := [f"{METHODS[row['method']].label} with seed {row['seed']}"
                    for row in self._runs if "diverged" in row]:
            raise claims.ClaimFails(f"{', '.join(lost)} diverged")
        return self._entries[method] | {"named": (METHODS[method].label, "loss"), "target": TARGET}


def _label(entry: claims.Entry) -> str:
    return METHODS[entry["method"]].label


def nobody_beats_plain_lora(record: Record) -> str:
    """None of the four is clearly ahead of tuned plain LoRA."""
    plain, *others = map(record, METHODS)
    leads = [claims.no_better(other, plain, "test_loss") for other in others]
    lead, best = max(leads), others[int(np.argmax(leads))]
    return (f"{_label(best)} reaches {best['test_loss']:.3f}, plain LoRA "
            f"{plain['test_loss']:.3f}. That is {abs(lead):.1f} standard errors "
            f"{'ahead' if lead > 0 else 'behind'}, and counted so, the others are further back; "
            f"{claims.CLEAR:g} ahead are asked for")


def vera_moves_further(record: Record) -> str:
    """VeRA moves further from the model's old answers than plain LoRA."""
    vera, plain = record("vera"), record("lora")
    distance = claims.better(plain, vera, "general")
    return (f"The loss on them is {vera['general']:.2f} and {plain['general']:.2f}, "
            f"{distance:.1f} standard errors apart")


CLAIMS = (nobody_beats_plain_lora, vera_moves_further)


def tell_claims(args: argparse.Namespace) -> None:
    """Each claim, asked of the page's seeds and of five others; ends with 1 if one falls."""
    rows, fallen = load_runs(args.output), 0
    for seeds in (SEEDS, OTHER_SEEDS):
        for claim in CLAIMS:
            word, found = verdict(claim, Record(rows, seeds))
            fallen += word == "falls"
            print(f"seeds {seeds[0]} to {seeds[-1]}: {claim.__name__}: {word}; {found}")
    if fallen:
        sys.exit(f"{fallen} of the speaking model's claims fall")


def table(args: argparse.Namespace) -> None:
    rows = load_runs(args.output)
    for row in rows:
        if row["kind"] == "sweep":
            print(f"sweep {row['method']:<9} lr {row['lr']:<7g} "
                  + (f"validation {row['best_validation']:.4f}" if "diverged" not in row
                     else "diverged"))
    for e in summarise(rows):
        print(f"{e['method']:<9}{e['trainable']:>10,}  lr {e['lr']:<7g}test {e['test_loss']:.4f} ± "
              f"{e['test_loss_sd'] or 0:.4f}  exact {e['exact']:.1f} of {e['of']}  general "
              f"{e['general']:.3f}  {e['seconds']:.0f} s  {e['seeds']} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "table", "claims"])
    parser.add_argument("--output", type=Path, default=task.RESULTS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, default=smollm2.FOLDER, help="where the model lies")
    args = parser.parse_args()
    try:
        {"run": run_all, "table": table, "claims": tell_claims}[args.command](args)
    except (smollm2.HubError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
