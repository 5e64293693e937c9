"""The family's comparison: ten methods on the small model, measured the same way.

    python -m experiments.family run      every run that is not recorded yet
    python -m experiments.family table    print the means
    python -m experiments.family claims   ask what the page claims of these and of other seeds

The procedure is that of small_llama.py, at half the steps. Sweep: rates by factors of about 3, with
three seeds that are used for nothing else, until a worse rate stands on each side of the one with
the lowest mean. Report: five seeds at that rate; the step with the lowest validation loss counts. A
seed fixes the order of batches, the same for all methods, and the method's random start. A run is
appended to family.jsonl as it ends.

`--sweep-seeds 100` reports at the rates that one seed alone would choose: the page shows what that
did to LoRA on Turkish.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil, hypot, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

if __name__ == "__main__":  # before NumPy loads: seconds are those of one thread
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from experiments import claims
from experiments.records import read_lines, run_claimed, runner, wait_for_others
from experiments.small_llama import (
    BATCH,
    DATA,
    EVERY,
    GRID,
    RESULTS,
    SEEDS,
    TARGETS,
    WARMUP,
    cost,
    next_rates,
)
from family.dora import DoRALinear
from family.galore import GaLoreAdamW
from family.ia3 import IA3Linear
from family.loreft import LoReFT
from family.oft import OFTLinear
from family.pissa import PiSSALinear
from family.scale_and_rate import LoRAPlusAdamW, RsLoRALinear
from family.vera import VeRALinear, shared_matrices
from llama import PROJECTIONS, Llama
from names import batches, load_names
from peft import LoRALinear
from training import AdamW, cosine_schedule, evaluate, train

STEPS = 200
SWEEP_SEEDS = (100, 101, 102)
OTHER_SEEDS = (5, 6, 7, 8, 9)  # had no part in what the page claims
FILE = "family.jsonl"
NUMBERS = ("best_test", "best_base", "final_test", "final_base", "best_step", "seconds")


# ----------------------------------------------------------------------- methods, plugged in


def wrap(make: Callable[[np.ndarray, int, np.random.Generator], Any],
         targets: tuple[str, ...] = PROJECTIONS) -> Callable:
    """Put `make(weight, size, rng)` in place of the projections named."""
    def plug(model: Llama, size: int, rng: np.random.Generator) -> None:
        for name, module in model.modules().items():
            if name.endswith(targets):
                model.replace(name, make(module.weight, size, rng))
    return plug


def plug_vera(model: Llama, rank: int, rng: np.random.Generator) -> None:
    widest = max(model.config.hidden_size, model.config.intermediate_size)
    A, B = shared_matrices(rank, widest, widest, rng=rng)
    wrap(lambda weight, rank, rng: VeRALinear(weight, None, A, B))(model, rank, rng)


def plug_ia3(model: Llama, size: int, rng: np.random.Generator) -> None:
    wrap(lambda weight, size, rng: IA3Linear(weight), ("k_proj", "v_proj"))(model, size, rng)
    wrap(lambda weight, size, rng: IA3Linear(weight, feedforward=True),
         ("down_proj",))(model, size, rng)


def plug_loreft(model: Llama, rank: int, rng: np.random.Generator) -> None:
    for layer in model.layers:
        for slot in ("after_attention", "after_mlp"):
            setattr(layer, slot, LoReFT(model.config.hidden_size, rank, rng=rng))


class Setting(NamedTuple):
    """A method as it is compared: `size` is its rank, or block; `start` the first rate tried."""

    label: str
    plug: Callable
    size: int
    start: float
    make_optimizer: Callable = AdamW


def lora(cls: type, **options: Any) -> Callable:
    """LoRA's children on all linear layers, alpha = 2 rank as in section 9.7."""
    return wrap(lambda weight, rank, rng: cls(weight, None, rank, 2.0 * rank, rng=rng, **options))


GALORE_EVERY = 50  # steps; four windows in a run
METHODS = {
    "lora": Setting("LoRA", lora(LoRALinear), 4, 1e-2),
    "rslora": Setting("rsLoRA", lora(RsLoRALinear), 4, 1e-2),
    "loraplus": Setting("LoRA+", lora(LoRALinear), 4, 1e-3, partial(LoRAPlusAdamW, ratio=16.0)),
    "dora": Setting("DoRA", lora(DoRALinear), 4, 1e-2),
    "pissa": Setting("PiSSA", wrap(lambda weight, rank, rng: PiSSALinear(weight, None, rank)), 4,
                     3e-3),
    "oft": Setting("OFT", wrap(lambda weight, block, rng: OFTLinear(weight, None, block)), 16,
                   1e-2),
    "loreft": Setting("LoReFT", plug_loreft, 16, 1e-2),
    "vera": Setting("VeRA", plug_vera, 64, 3e-2),
    "ia3": Setting("(IA)³", plug_ia3, 0, 3e-2),
    "galore": Setting("GaLore", lambda model, rank, rng: model.set_trainable(), 4, 1e-2,
                      partial(GaLoreAdamW, rank=4, every=GALORE_EVERY)),
}
#: Methods of about LoRA's number of parameters; VeRA and (IA)³ are made to have few, GaLore trains
#: all, with about LoRA's bytes of optimizer state.
EQUAL = ("lora", "rslora", "loraplus", "dora", "pissa", "oft", "loreft")


def make_model(method: str, seed: int) -> Llama:
    """The pretrained base model with a method plugged in."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    model, setting = Llama.load(DATA / "base"), METHODS[method]
    setting.plug(model, setting.size, np.random.default_rng([seed, 1]))
    return model


# ------------------------------------------------------------------------------------ one run


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train once and measure. A job names kind, target, method, size, lr, seed and steps.

    `seconds` are the processor's, of the training steps alone; they count also beside other work.
    """
    model, (seed, target, steps) = make_model(job["method"], job["seed"]), (
        job["seed"], job["target"], job["steps"])
    data = batches(load_names(target, "train"), BATCH, np.random.default_rng([seed, 0]))
    optimizer = METHODS[job["method"]].make_optimizer(model.parameters(), job["lr"])
    validation, spent, best = load_names(target, "validation"), 0.0, {"validation": np.inf}
    events = train(model, optimizer, data, steps=steps,
                   rate=lambda step: cosine_schedule(step, steps, job["lr"], WARMUP))
    done = 0
    try:
        while True:
            if done % EVERY == 0 or done == steps:
                loss = evaluate(model, validation)
                if loss < best["validation"]:
                    best = {"validation": loss, "step": done, "arrays": {
                        name: a.copy() for name, a in model.parameters().items()}}
            start = time.process_time()
            if next(events, None) is None:
                break
            spent, done = spent + time.process_time() - start, done + 1
    except FloatingPointError as error:  # a rate of the sweep that is too high is a finding
        return job | {"diverged": str(error)}

    def measured(when: str) -> dict[str, float]:
        return {f"{when}_test": evaluate(model, load_names(target, "test")),
                f"{when}_base": evaluate(model, load_names("base", "validation"))}

    row = job | cost(model, state_bytes(optimizer)) | {
        "seconds": spent, "best_step": best["step"], "best_validation": best["validation"],
        "final_validation": loss} | measured("final")
    for name, array in model.parameters().items():
        array[...] = best["arrays"][name]  # back to the best step
    return row | measured("best")


def state_bytes(optimizer: Any) -> int:
    """Bytes of an optimizer's state; LoRA+ is two optimizers."""
    parts = [optimizer] if hasattr(optimizer, "nbytes") else [optimizer.slow, optimizer.fast]
    return sum(part.nbytes() for part in parts)


# ----------------------------------------------------------------------------------- all runs


def key(job: dict[str, Any]) -> tuple:
    """All that decides what a run gives. The seed of the sweep is no seed of a report."""
    return tuple(job[name] for name in ("target", "method", "size", "lr", "seed", "steps"))


def _job(kind: str, target: str, method: str, lr: float, seed: int, steps: int,
         settings: dict[str, Setting] = METHODS) -> dict[str, Any]:
    return {"kind": kind, "target": target, "method": method, "size": settings[method].size,
            "lr": lr, "seed": seed, "steps": steps}


def swept(rows: Iterable[dict], target: str, method: str, steps: int = STEPS,
          seeds: Sequence[int] = SWEEP_SEEDS, settings: dict[str, Setting] = METHODS
          ) -> dict[float, float]:
    """Mean validation losses of the rates that all seeds tried, inf where one diverged."""
    wanted = target, method, settings[method].size, steps
    tried: dict[float, dict[int, float]] = {}
    for row in rows:
        if tuple(row[name] for name in ("target", "method", "size", "steps")) == wanted:
            tried.setdefault(row["lr"], {})[row["seed"]] = row.get("best_validation", np.inf)
    return {lr: float(np.mean([by_seed[seed] for seed in seeds]))
            for lr, by_seed in sorted(tried.items()) if by_seed.keys() >= {*seeds}}


def chosen_rate(rows: Sequence[dict], target: str, method: str, steps: int = STEPS,
                seeds: Sequence[int] = SWEEP_SEEDS, settings: dict[str, Setting] = METHODS
                ) -> float:
    """The rate with the lowest validation loss, a worse one on each side; else ValueError."""
    tried = swept(rows, target, method, steps, seeds, settings)
    if missing := next_rates(tried, settings[method].start):
        raise ValueError(f"the sweep of {method} on {target} lacks rates {missing}; "
                         "`python -m experiments.family run` goes on with it")
    return min(tried, key=tried.__getitem__)


def unfinished(rows: Sequence[dict], targets: Sequence[str] = TARGETS,
               methods: Iterable[str] = METHODS, seeds: Sequence[int] = SEEDS,
               steps: int = STEPS, sweep_seeds: Sequence[int] = SWEEP_SEEDS,
               settings: dict[str, Setting] = METHODS) -> list[dict[str, Any]]:
    """What to run next, target by target: the rates that sweeps still lack, then seed by seed."""
    done, of = {key(row) for row in rows}, {"settings": settings}
    for target in targets:
        jobs = [_job("sweep", target, m, lr, seed, steps, **of) for m in methods
                for lr in next_rates(swept(rows, target, m, steps, sweep_seeds, **of),
                                     settings[m].start)
                for seed in sweep_seeds]
        jobs = jobs or [_job("report", target, m, chosen_rate(
            rows, target, m, steps, sweep_seeds, **of), seed, steps, **of)
            for seed in seeds for m in methods]
        if jobs := [job for job in jobs if key(job) not in done]:
            return jobs
    return []


def run_all(args: argparse.Namespace) -> None:
    """Run by run, in this process; several runners of one folder share the jobs."""
    from tqdm import tqdm
    path = args.output / FILE
    with runner(path, args.fresh):
        while todo := unfinished(read_lines(path), args.targets, args.methods, args.seeds,
                                 args.steps, args.sweep_seeds):
            ours = [row for job in tqdm(todo, desc=f"{todo[0]['kind']}, {todo[0]['target']}",
                                        mininterval=1, file=sys.stdout)
                    if (row := run_claimed(job, path, key, run))]
            if not ours:
                wait_for_others(len(todo))
    table(args)


# ------------------------------------------------------------- what the page reads; NumPy suffices


def load_runs(folder: Path = RESULTS, **wanted: Any) -> list[dict]:
    """Recorded runs, as `load_runs(target="icelandic", kind="report")`."""
    return [row for row in read_lines(folder / FILE) if wanted.items() <= row.items()]


def reported(rows: Sequence[dict], sweep_seeds: Sequence[int] = SWEEP_SEEDS) -> list[dict]:
    """The reported runs that did not diverge, at the rate that these seeds' sweep chose.

    Where no sweep of these seeds stands in `rows`, all rates count.
    """
    chosen: dict[tuple, float | None] = {}
    for row in rows:
        of = row["target"], row["method"], row["steps"]
        if row["kind"] == "report" and of not in chosen:
            tried = swept(rows, *of, sweep_seeds)
            chosen[of] = min(tried, key=tried.__getitem__) if tried else None
    return [row for row in rows if row["kind"] == "report" and "diverged" not in row
            and chosen[row["target"], row["method"], row["steps"]] in (row["lr"], None)]


def summarise(rows: Sequence[dict], sweep_seeds: Sequence[int] = SWEEP_SEEDS) -> list[dict]:
    """Per target and method: mean and sample deviation over seeds of the runs reported."""
    groups: dict[tuple, list[dict]] = {}
    for row in reported(rows, sweep_seeds):
        groups.setdefault((row["target"], row["method"]), []).append(row)
    entries = []
    for runs in groups.values():
        entry = {name: runs[0][name] for name in (
            "kind", "target", "method", "size", "lr", "trainable", "file_bytes", "memory_bytes")}
        entry["seeds"] = len(runs)
        for name in NUMBERS:
            values = [run[name] for run in runs]
            entry[name] = float(np.mean(values))
            entry[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        entries.append(entry)
    order = list(METHODS)
    return sorted(entries, key=lambda e: (e["target"], order.index(e["method"])))


def losses_by_seed(rows: Sequence[dict], target: str, number: str = "best_test"
                   ) -> dict[str, list[float]]:
    """Method -> test losses of the reported runs, in the order of `common_seeds`."""
    runs = {(row["method"], row["seed"]): row[number] for row in reported(rows)
            if row["target"] == target}
    seeds = common_seeds(rows, target)
    return {method: [runs[method, seed] for seed in seeds] for method in METHODS}


def common_seeds(rows: Sequence[dict], target: str) -> list[int]:
    """The seeds with which every method is reported: means over these are a fair comparison."""
    found = [(row["method"], row["seed"]) for row in reported(rows) if row["target"] == target]
    return sorted(set.intersection(*({seed for name, seed in found if name == method}
                                     for method in METHODS)))


def seeds_needed(ours: Sequence[float], theirs: Sequence[float], sure: float = 0.95) -> int:
    """Seeds after which the order of two means is right with this probability.

    The losses are of the same seeds, in the same order. If a seed's difference is normal with the
    mean d and the deviation s found here, that of n seeds has the sign of d with the probability
    Phi(sqrt(n) |d| / s). ValueError where the means are equal: there no number is enough.
    """
    difference = np.subtract(theirs, ours)
    if not (mean := abs(difference.mean())):
        raise ValueError("the two means are equal: there is no order to find")
    return max(1, ceil((NormalDist().inv_cdf(sure) * difference.std(ddof=1) / mean) ** 2))


def load_leaderboard(folder: Path = RESULTS) -> dict[str, Any]:
    """Two states of the public table of PEFT's method comparison, with commits and dates."""
    return json.loads((folder / "family_leaderboard.json").read_text(encoding="utf-8"))


# ------------------------------------------------------------- what the page claims of the runs


class Record:
    """The runs of some seeds, asked by method: `Record(load_runs())("lora")` gives its means.

    Raises claims.NotRecorded while the method lacks a run of one of the seeds.
    """

    def __init__(self, rows: Sequence[dict], seeds: Sequence[int] = SEEDS,
                 target: str = "icelandic", sweep_seeds: Sequence[int] = SWEEP_SEEDS) -> None:
        self.rows, self.seeds, self.target = rows, seeds, target
        self._entries = {entry["method"]: entry for entry in summarise([
            row for row in rows if row["target"] == target
            and (row["seed"] in seeds or row["kind"] == "sweep")], sweep_seeds)}

    def __call__(self, method: str) -> claims.Entry:
        entry = self._entries.get(method, {"seeds": 0})
        if entry["seeds"] < len(self.seeds):
            raise claims.NotRecorded(
                f"{method} on {self.target}: {entry['seeds']} of {len(self.seeds)} seeds are "
                "recorded; `python -m experiments.family run` makes the others")
        return entry | {"named": (METHODS[method].label, "test loss"), "target": self.target}


CLOSE = 0.02  # of the loss: what arXiv 2602.04998 finds between nine variants and LoRA at its most


def _label(entry: claims.Entry) -> str:
    return METHODS[entry["method"]].label


def _best(record: Record) -> claims.Entry:
    """The method of LoRA's size with the lowest loss."""
    return min((record(method) for method in EQUAL), key=lambda entry: entry["best_test"])


def _error(*entries: claims.Entry) -> float:
    """Standard error of a sum or difference of these means."""
    return hypot(*(entry["best_test_sd"] / sqrt(entry["seeds"]) for entry in entries))


def tuned_lora_is_close(record: Record) -> str:
    """Tuned plain LoRA is within 2 % of the best method of its size."""
    plain, best = record("lora"), _best(record)
    gap, limit = plain["best_test"] - best["best_test"], CLOSE * best["best_test"]
    error = _error(plain, best)
    if not limit - gap >= claims.CLEAR * error:
        side = "more" if gap > limit else "less"
        clearly = "clearly" if gap - limit >= claims.CLEAR * error else "though not clearly"
        raise claims.ClaimFails(f"LoRA is {gap:.4f} ± {error:.4f} behind {_label(best)}, which is "
                                f"{side} than {CLOSE:.0%} of the loss, {limit:.4f}, {clearly}")
    if best is plain:
        return f"No method of its size is ahead of tuned plain LoRA ({plain['best_test']:.3f})"
    return (f"Tuned plain LoRA reaches {plain['best_test']:.3f}, and the best method of its size, "
            f"{_label(best)}, {best['best_test']:.3f}. That is {gap / best['best_test']:.1%} of "
            f"the loss, {gap / error:.1f} standard errors; with three of them added it is still "
            f"less than {CLOSE:.0%}")


def _at_rate(record: Record, lr: float) -> claims.Entry:
    """Plain LoRA's test loss at a rate of the sweep, over the sweep's seeds."""
    values = [row["best_test"] for row in record.rows if row["kind"] == "sweep" and row["lr"] == lr
              and (row["target"], row["method"]) == (record.target, "lora")
              and row["seed"] in SWEEP_SEEDS and "diverged" not in row]
    if len(values) < len(SWEEP_SEEDS):
        raise claims.NotRecorded(f"lora on {record.target} at the rate {lr:g}: {len(values)} of "
                                 f"{len(SWEEP_SEEDS)} seeds of the sweep are recorded")
    return {"seeds": len(values), "best_test": float(np.mean(values)),
            "best_test_sd": float(np.std(values, ddof=1))}


def a_step_of_the_rate_does_more(record: Record) -> str:
    """A rate half a power of ten too low costs LoRA more than the best method of its size gains.

    Both are of test losses. The cost is that of the sweep's three seeds, whichever seeds are asked.
    """
    plain, best = record("lora"), _best(record)
    gap = plain["best_test"] - best["best_test"]
    rate = chosen_rate(record.rows, record.target, "lora")  # a worse one on each side
    tried = [lr for lr in GRID if lr in swept(record.rows, record.target, "lora")]
    at = tried.index(rate)
    low, here, high = (_at_rate(record, lr) for lr in tried[at - 1:at + 2])

    def against(there: claims.Entry) -> tuple[float, float]:
        """What the step costs, and by how many standard errors that is more than the gap."""
        cost = there["best_test"] - here["best_test"]
        return cost, (cost - gap) / _error(plain, best, here, there)

    cost, clear = against(low)
    if not clear >= claims.CLEAR:
        raise claims.ClaimFails(
            f"with the rate {tried[at - 1]:g} instead of {rate:g} LoRA's test loss is "
            f"{cost:.4f} higher, and the best method of its size gains {gap:.4f}: the cost less "
            f"the gain is {clear:.1f} standard errors, and {claims.CLEAR:g} are asked for")
    other, doubt = against(high)
    return (f"With the rate {tried[at - 1]:g} instead of {rate:g}, LoRA's test loss is {cost:.3f} "
            f"higher. The best method of its size gains {gap:.3f}, which is less by {clear:.1f} "
            f"standard errors. On the other side, at {tried[at + 1]:g}, the loss is {other:.3f} "
            f"higher, which is {doubt:.1f} standard errors more than the gain"
            + " and decides nothing" * (abs(doubt) < claims.CLEAR))


def few_numbers_learn_less(record: Record) -> str:
    """Every method of LoRA's size that changes weights is far ahead of VeRA, (IA)³ and LoReFT."""
    few = [record(method) for method in ("vera", "ia3", "loreft")]
    lead = min(claims.better(record(method), entry)
               for method in EQUAL if method != "loreft" for entry in few)
    if claims.apart(few[2], few[0]) > 0:
        raise claims.ClaimFails("LoReFT is to be no better than VeRA, and is better")
    return (f"VeRA with {few[0]['trainable']:,} numbers reaches {few[0]['best_test']:.3f} and "
            f"(IA)³ with {few[1]['trainable']:,} {few[1]['best_test']:.3f}; the methods of LoRA's "
            f"size that change weights are ahead, by {lead:.1f} standard errors or more. But "
            f"numbers are not all: LoReFT, which edits activations, has {few[2]['trainable']:,} "
            f"and reaches {few[2]['best_test']:.3f}, no better than VeRA")


CLAIMS = (tuned_lora_is_close, a_step_of_the_rate_does_more, few_numbers_learn_less)
#: What the page claims, by language. In Turkish it asks the same and tells what it finds.
CLAIMED = {"icelandic": CLAIMS, "turkish": ()}
ASKED = (SEEDS, OTHER_SEEDS, SEEDS + OTHER_SEEDS)


def verdict(claim: Callable, record: Record) -> tuple[str, str]:
    """One of "holds", "falls" and "is not yet recorded", and what is found."""
    try:
        return "holds", claim(record)
    except claims.ClaimFails as found:
        return "falls", str(found)
    except claims.NotRecorded as missing:
        return "is not yet recorded", str(missing)


def verdicts(rows: Sequence[dict], target: str) -> list[tuple[Callable, list[tuple[str, str]]]]:
    """Each claim, and its verdicts on the page's seeds, on five others, and on all ten."""
    return [(claim, [verdict(claim, Record(rows, seeds, target)) for seeds in ASKED])
            for claim in CLAIMS]


def tell_claims(args: argparse.Namespace) -> None:
    """The verdicts of both languages; ends with 1 if what the page claims falls."""
    rows, fallen = load_runs(args.output), 0
    for target in CLAIMED:
        for claim, found in verdicts(rows, target):
            claimed = claim in CLAIMED[target]
            for seeds, (word, why) in zip(ASKED, found, strict=True):
                print(f"{target}, seeds {seeds[0]} to {seeds[-1]}: {claim.__name__} "
                      f"({'claimed' if claimed else 'not claimed here'}): {word}; {why}")
                fallen += claimed and word == "falls"
    if fallen:
        sys.exit(f"{fallen} verdicts are that a claim of the page falls")


def table(args: argparse.Namespace) -> None:
    for e in summarise(load_runs(args.output)):
        print(f"{e['target']:<10}{e['method']:<9}{e['trainable']:>8,}  lr {e['lr']:<7g}"
              f"test {e['best_test']:.4f} ± {e['best_test_sd'] or 0:.4f}  "
              f"base {e['best_base']:.3f}  step {e['best_step']:.0f}  {e['seconds']:.1f} s  "
              f"{e['seeds']} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "table", "claims"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true",
                        help="begin anew; the old record gets another name")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS[::-1])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--sweep-seeds", nargs="+", type=int, default=SWEEP_SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    {"run": run_all, "table": table, "claims": tell_claims}[args.command](args)


if __name__ == "__main__":
    main()
