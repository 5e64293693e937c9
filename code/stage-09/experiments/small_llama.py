"""The experiments of section 9.7: every method on one small model, measured the same way.

    python -m experiments.small_llama run          all training runs, resumed where they stopped
    python -m experiments.small_llama run --fresh  the same from nothing
    python -m experiments.small_llama timing       time per step; alone on a quiet machine
    python -m experiments.small_llama table        print the summary and rewrite summary.csv

Filters for a quick look: `run --targets turkish --methods lora-qv full --seeds 0 --output try`.

Question: what does each method learn of a language that the base model never saw, what does it
forget, and what does it cost? Procedure, the same for every method and size:

1. Sweep: five learning rates, at the method's middle size, one seed that is used for nothing else.
   The rate with the lowest validation loss is taken for all sizes of that method on that target.
2. Report: five seeds. The step with the lowest validation loss counts ("best"), as early stopping
   would; the last step is recorded too ("final"). What is reported is measured on the test part.
3. Dataset size: LoRA on all linear layers, and full fine-tuning, on parts of the Icelandic names.
4. Alpha: steps 1 and 2 with alpha = 2 rank, and with alpha held while the rank changes. Everything
   else is the same, and rates are swept for each rank and each alpha anew. On Icelandic: LoRA on
   the MLP, and LoRA on all linear layers with 100 names; with these also LoRA on q and v and a
   prefix, for a comparison of methods at one size.
5. Own rates: every size of every method with a sweep of its own and LoRA's alpha held at 8. A sweep
   starts at the rate of step 1 and goes on, by factors of about 3, until a worse rate stands on
   each side of the best one. Runs that another step has made are not made twice. Here a serial
   adapter also gets the scale of the parallel one, and the other way round.
6. Gentle: full fine-tuning on Icelandic at a third of its rate, where it forgets less.
7. Spectra: the singular values of what full fine-tuning added to every weight, and the loss with
   these updates cut down to rank r.

A seed fixes the order of batches (the same for all methods) and the method's random start. Two
processes with one thread each; every finished run is appended to runs.jsonl at once.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy loads: two processes of one thread beat one of two
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from experiments.records import (
    append,
    end_with_parent,
    read_lines,
    rounded,
    run_claimed,
    runner,
    wait_for_others,
    write_record,
)
from llama import PROJECTIONS, Llama
from names import BOUNDARY, batches, decode, load_names
from peft import Adapter, LoRALinear, PrefixTuning, PromptTuning
from tensorfile import write_whole
from training import AdamW, Event, Recorder, clip_gradients, cross_entropy, evaluate, fit

DATA = Path(__file__).parents[1] / "data"
RESULTS = DATA / "experiments"
TARGETS = ("turkish", "icelandic")
SEEDS = (0, 1, 2, 3, 4)
SWEEP_SEED = 100
STEPS, BATCH, WARMUP, EVERY = 400, 64, 20, 50
SUBSETS, SUBSET_SIZES = (100, 400, 1600), (1, 4, 16)  # names to train on; LoRA ranks
CUTS = (0, 1, 2, 4, 8, 16, 32, 64)  # ranks at which full fine-tuning's updates are cut off


# ----------------------------------------------------------------------- methods, plugged in


def plug_full(model: Llama, size: int, rng: np.random.Generator) -> None:
    model.set_trainable()


def plug_lora(*targets: str, alpha: float | None = None) -> Callable:
    """LoRA of a rank on the projections named; without alpha it is 2 rank, so the scaling is 2."""
    def plug(model: Llama, rank: int, rng: np.random.Generator) -> None:
        for name, module in model.modules().items():
            if name.endswith(targets):
                model.replace(name, LoRALinear(module.weight, lora_rank=rank,
                                               lora_alpha=alpha or 2.0 * rank, rng=rng))
    return plug


def plug_adapters(*slots: str, **options: Any) -> Callable:
    """An adapter of a bottleneck width in the named slots of every layer."""
    def plug(model: Llama, bottleneck: int, rng: np.random.Generator) -> None:
        for layer in model.layers:
            for slot in slots:
                setattr(layer, slot, Adapter(model.config.hidden_size, bottleneck, rng=rng,
                                             **options))
    return plug


def plug_prefix(model: Llama, length: int, rng: np.random.Generator) -> None:
    c = model.config
    model.kv_prefix = PrefixTuning(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, length,
                                   rng=rng)


def plug_prompt(model: Llama, length: int, rng: np.random.Generator) -> None:
    table = model.embed_tokens.weight
    model.soft_prompt = PromptTuning(model.config.hidden_size, length, table, rng=rng)


MLP = tuple(name for name in PROJECTIONS if name.startswith("mlp"))
PLACES = {"lora-qv": ("q_proj", "v_proj"), "lora-mlp": MLP, "lora-all": PROJECTIONS}
SMALL, LARGE = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
VIRTUAL = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
METHODS = {  # name: (what plugs it in, its sizes, the size of the sweep, learning rates swept)
    "full": (plug_full, (0,), 0, SMALL),
    **{name: (plug_lora(*places), (1, 2, 4, 8, 16), 4, LARGE) for name, places in PLACES.items()},
    "houlsby": (plug_adapters("after_attention", "after_mlp"), (2, 4, 8, 16), 8, LARGE),
    "pfeiffer": (plug_adapters("after_mlp"), (2, 4, 8, 16), 8, LARGE),
    "parallel": (plug_adapters("parallel_mlp", residual=False, scale=4.0), (2, 4, 8, 16), 8, LARGE),
    "prefix": (plug_prefix, (1, 5, 10, 20), 10, VIRTUAL),
    "prompt": (plug_prompt, (1, 5, 10, 20), 10, VIRTUAL),
}
WIDE = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FEW = 100  # names; with so few the loss is looked at every FEW_EVERY steps
FEW_EVERY = 10
ALPHAS = {  # name: (what plugs it in, ranks, names to train on); at the ranks left out alpha is 2 r
    "lora-mlp alpha=2r": (plug_lora(*MLP), (1, 4, 16), None),
    "lora-mlp alpha=8": (plug_lora(*MLP, alpha=8.0), (1, 16), None),
    "lora-all alpha=2r": (plug_lora(*PROJECTIONS), (1, 4, 16), FEW),
    "lora-all alpha=2": (plug_lora(*PROJECTIONS, alpha=2.0), (4, 16), FEW),
    "lora-qv alpha=2r": (plug_lora(*PLACES["lora-qv"]), (4,), FEW),  # both of about the size of
    "prefix": (plug_prefix, (10,), FEW),  # "lora-all" at rank 1
}
OWN = {  # name: (what plugs it in, its sizes, the size that has been swept first)
    (f"{name} alpha=8" if name in PLACES else name):
    (plug_lora(*PLACES[name], alpha=8.0) if name in PLACES else plug, sizes, middle)
    for name, (plug, sizes, middle, _) in METHODS.items()
} | {  # an adapter's place and its scale, each changed alone
    "pfeiffer scale=4": (plug_adapters("after_mlp", scale=4.0), (8,), 8),
    "parallel scale=1": (plug_adapters("parallel_mlp", residual=False), (8,), 8),
}
GRID = tuple(float(f"{digit}e{power}") for power in range(-5, 3) for digit in (1, 3))  # own sweeps
GENTLE = ("icelandic", "full", 0, 1e-3)  # target, method, size, rate
KINDS = ("sweep", "report", "subset", "alpha-sweep", "alpha", "own-sweep", "own", "gentle")


def make_model(method: str, size: int, seed: int) -> Llama:
    """The pretrained base model with a method plugged in."""
    known = METHODS | ALPHAS | OWN
    if method not in known:
        raise ValueError(f"method must be one of {list(known)}, got {method!r}")
    model = Llama.load(DATA / "base")
    known[method][0](model, size, np.random.default_rng([seed, 1]))
    return model


# ------------------------------------------------------------------------------------ one run


def cost(model: Llama, optimizer_bytes: int) -> dict[str, int]:
    """Trainable parameters, bytes to store them, and bytes held in memory while training."""
    from safetensors.numpy import save
    trainable = model.parameters()
    own = sum(a.nbytes for a in trainable.values())
    frozen = sum(a.nbytes for name, a in model.weights().items() if name not in trainable)
    return {"trainable": model.num_parameters(), "file_bytes": len(save(trainable)),
            "memory_bytes": frozen + 2 * own + optimizer_bytes}  # weights, gradients, two moments


def sample(model: Llama, count: int = 20, seed: int = 0) -> list[str]:
    """Names drawn at temperature 1."""
    start = np.full((count, 1), BOUNDARY)
    new = model.generate(start, 15, stop=BOUNDARY, rng=np.random.default_rng([seed, 2]))
    return [decode(row) for row in new]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train once and measure. A job names kind, target, method, size, lr, seed and train_names."""
    method, target, seed = job["method"], job["target"], job["seed"]
    model = make_model(method, job["size"], seed)
    data = {split: load_names(target, split) for split in ("train", "validation", "test")}
    base_names = load_names("base", "validation")
    evaluations = {"validation": data["validation"]}
    if job["kind"] == "report" and seed == SEEDS[0]:
        evaluations["base"] = base_names  # the path from base to target; costs time: one seed
    recorder, best = Recorder(), {"validation": np.inf}

    def keep_best(event: Event) -> None:
        if event.evaluated and event.evaluated["validation"] < best["validation"]:
            best.update(validation=event.evaluated["validation"], step=event.step,
                        arrays={name: a.copy() for name, a in model.parameters().items()})

    started = {name: w.copy() for name, w in model.weights().items()} if method == "full" else {}
    row = dict(job)
    try:
        optimizer = fit(model, batches(data["train"][:job["train_names"]], BATCH,
                                       np.random.default_rng([seed, 0])),
                        steps=job["steps"], lr=job["lr"], warmup=WARMUP,
                        every=_every(job),
                        evaluations=evaluations, callbacks=[recorder, keep_best])
    except FloatingPointError as error:  # a rate of the sweep that is too high is a finding
        return row | {"diverged": str(error)}

    losses = recorder.losses
    row |= cost(model, optimizer.nbytes())
    row |= {"best_step": best["step"], "best_validation": best["validation"],
            "final_validation": losses["validation"][-1],
            "final_test": evaluate(model, data["test"]),
            "final_base": evaluate(model, base_names)}
    spectra = {"final": spectrum(model, started, data["test"])} if wants_spectra(job) else {}
    for name, array in model.parameters().items():
        array[...] = best["arrays"][name]  # back to the best step
    row |= {"best_test": evaluate(model, data["test"]),
            "best_base": evaluate(model, base_names)}
    if spectra:
        spectra["best"] = spectrum(model, started, data["test"])
        row["spectra"] = spectra
    if job["kind"] == "report":
        row["curve"] = {"steps": recorder.steps, **losses, "train": [
            float(np.mean(part)) for part in np.split(
                np.array(recorder.batch_losses), recorder.steps[1:-1])]}
        if seed == SEEDS[0]:
            row["names"] = sample(model)
        if model.kv_prefix is not None or model.soft_prompt is not None:
            model.kv_prefix = model.soft_prompt = None  # taken off: the base model again
            row["detached_base"] = evaluate(model, base_names)
    return row


def wants_spectra(job: dict[str, Any]) -> bool:
    return job["kind"] == "report" and job["method"] == "full"


def spectrum(model: Llama, started: dict[str, np.ndarray], names: list[str]) -> dict[str, Any]:
    """Singular values of each matrix's update, and the loss with all updates cut to rank r.

    The updates of the norms' weights, which are vectors, stay whole at every r.
    """
    weights = model.weights()
    tuned = {name: w.copy() for name, w in weights.items() if w.ndim == 2}
    svd = {name: np.linalg.svd(w.astype(np.float64) - started[name], full_matrices=False)
           for name, w in tuned.items()}
    cut_losses = []
    for rank in CUTS:
        for name, (u, s, vt) in svd.items():
            weights[name][...] = started[name] + (u[:, :rank] * s[:rank]) @ vt[:rank]
        cut_losses.append(evaluate(model, names))
    for name, w in tuned.items():
        weights[name][...] = w
    return {"singular_values": {name: s.tolist() for name, (_, s, _) in svd.items()},
            "weight_norms": {name: float(np.linalg.norm(started[name])) for name in svd},
            "cuts": list(CUTS), "cut_test": cut_losses}


# ----------------------------------------------------------------------------------- all runs


def _job(kind: str, target: str, method: str, size: int, lr: float, seed: int,
         steps: int, train_names: int | None = None) -> dict[str, Any]:
    total = len(load_names(target, "train"))
    return {"kind": kind, "target": target, "method": method, "size": size, "lr": lr,
            "seed": seed, "steps": steps, "train_names": min(train_names or total, total)}


def _key(job: dict[str, Any]) -> tuple:
    return tuple(job[k] for k in ("kind", "target", "method", "size", "lr", "seed", "steps",
                                  "train_names"))


def _every(job: dict[str, Any]) -> int:
    """Steps from one look at the validation loss to the next."""
    early = job["kind"].startswith("alpha") and job["train_names"] == FEW
    return FEW_EVERY if early else EVERY


def same(job: dict[str, Any]) -> tuple:
    """All that decides what a run gives: jobs of different kinds that agree in it are one run."""
    method, _, rule = job["method"].partition(" alpha=")
    alpha = float(rule) if rule not in ("", "2r") else 2.0 * job["size"]
    return (method, alpha if method in PLACES else None, _every(job),
            *(job[k] for k in ("target", "size", "lr", "seed", "steps", "train_names")))


def next_rates(tried: dict[float, float], start: float) -> list[float]:
    """Rates of `GRID` to try until the best has a worse one on each side; none once it has.

    `tried` maps a rate to its validation loss; while it is empty `start` counts as the best.
    """
    best = GRID.index(min(tried, key=tried.__getitem__) if tried else start)
    return [rate for rate in GRID[best - 1:best + 2] if rate not in tried]


def own_sweep(done: dict[tuple, dict], target: str, method: str, size: int,
              steps: int = STEPS) -> dict[float, float]:
    """Rates tried at one size, with alpha held: validation losses, inf where it diverged.

    `done` holds recorded runs by `same`.
    """
    keys = {lr: same(_job("own-sweep", target, method, size, lr, SWEEP_SEED, steps)) for lr in GRID}
    return {lr: done[key].get("best_validation", np.inf) for lr, key in keys.items() if key in done}


def chosen_rate(rows: Iterable[dict], target: str, method: str, size: int | None = None) -> float:
    """The learning rate with the lowest validation loss: of the sweep, or of a rank's own one."""
    kind = "sweep" if size is None else "alpha-sweep"
    swept = [row for row in rows if (row["kind"], row["target"], row["method"]) ==
             (kind, target, method) and size in (None, row["size"]) and "diverged" not in row]
    if not swept:
        raise ValueError(f"no finished sweep of {method} on {target}")
    return min(swept, key=lambda row: row["best_validation"])["lr"]


def planned(kind: str, rows: Sequence[dict], targets: Sequence[str] = TARGETS,
            methods: Iterable[str] = METHODS, seeds: Sequence[int] = SEEDS,
            steps: int = STEPS, sizes: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """All jobs of one kind, seed by seed, so that a partial set is a fair one.

    Those of kind "report" and "subset" use the rates that the sweep in `rows` has chosen. Those of
    kind "own-sweep" are the rates to try next, so that this list grows with `rows`; those of kind
    "own" belong to the settings whose sweep is finished. `sizes` limits these two.
    """
    if kind == "gentle":
        target, method, size, lr = GENTLE
        return [_job(kind, target, method, size, lr, seed, steps) for seed in seeds
                if target in targets and method in methods]
    if kind.startswith("own"):
        return _planned_own(kind, rows, targets, methods, seeds, steps, sizes)
    if kind.startswith("alpha"):
        settings = [(method, size, count) for method, (_, sizes, count) in ALPHAS.items()
                    for size in sizes if "icelandic" in targets]
        if kind == "alpha-sweep":
            return [_job(kind, "icelandic", method, size, lr, SWEEP_SEED, steps, count)
                    for method, size, count in settings for lr in WIDE]
        return [_job(kind, "icelandic", method, size, chosen_rate(rows, "icelandic", method, size),
                     seed, steps, count) for seed in seeds for method, size, count in settings]
    pairs = [(target, method) for target in targets for method in methods]
    if kind == "sweep":
        return [_job(kind, t, m, METHODS[m][2], lr, SWEEP_SEED, steps)
                for t, m in pairs for lr in METHODS[m][3]]
    rate = {pair: chosen_rate(rows, *pair) for pair in pairs}
    if kind == "report":
        return [_job(kind, t, m, size, rate[t, m], seed, steps)
                for seed in seeds for t, m in pairs for size in METHODS[m][1]]
    sizes = {"lora-all": SUBSET_SIZES, "full": (0,)}
    return [_job(kind, t, m, size, rate[t, m], seed, steps, count)
            for seed in seeds for t, m in pairs if t == "icelandic"
            for size in sizes.get(m, ()) for count in SUBSETS]


def _planned_own(kind: str, rows: Sequence[dict], targets: Sequence[str], methods: Iterable[str],
                 seeds: Sequence[int], steps: int, sizes: Sequence[int] | None) -> list[dict]:
    done = {same(row): row for row in rows}
    jobs = []
    for target in targets:
        for name, first in OWN.items():
            method = name.partition(" ")[0]
            for size in first[1] if method in methods else ():
                if sizes is not None and size not in sizes:
                    continue
                tried = own_sweep(done, target, name, size, steps)
                start = chosen_rate(rows, target, method)
                following = next_rates(tried, start)
                if kind == "own-sweep":
                    jobs += [_job(kind, target, name, size, lr, SWEEP_SEED, steps)
                             for lr in [*tried, *following]]
                elif not following:
                    jobs += [_job(kind, target, name, size, min(tried, key=tried.__getitem__), seed,
                                  steps) for seed in seeds]
    return sorted(jobs, key=lambda job: job["seed"])  # stable: seed by seed


def unfinished(kind: str, rows: Sequence[dict], **options: Any) -> list[dict[str, Any]]:
    """The planned jobs that `rows` does not hold yet; options as for `planned`."""
    key = _identity(kind)
    done = {key(row) for row in rows}
    return [job for job in planned(kind, rows, **options) if key(job) not in done]


def _identity(kind: str) -> Callable[[dict], tuple]:
    """What makes two jobs of a kind one."""
    return same if kind.startswith("own") else _key


def _run_and_record(job: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """A run in `folder`, its spectra in a file beside; None if another runner has it."""
    def keep(row: dict) -> dict:
        place = {key: row[key] for key in ("target", "seed")}
        if (spectra := row.pop("spectra", None)) and not load_spectra(folder, **place):
            append(folder / "spectra.jsonl", place | spectra)
        return row
    return run_claimed(job, folder / "runs.jsonl", _identity(job["kind"]), run, keep)


def run_all(args: argparse.Namespace) -> None:
    """Rounds of jobs on two processes; after a sweep the others use its rates.

    Several runners of one folder share the jobs of each round.
    """
    from multiprocessing import get_context

    from tqdm import tqdm
    log, work = args.output / "runs.jsonl", partial(_run_and_record, folder=args.output)
    with (runner(log, args.fresh, args.output / "spectra.jsonl"),
          get_context("spawn").Pool(args.workers, end_with_parent) as pool):
        write_record(args.output / "before.json", before())
        for kind in args.rounds:
            while todo := unfinished(kind, read_lines(log), targets=args.targets,
                                     methods=args.methods, seeds=args.seeds, steps=args.steps,
                                     sizes=args.sizes):
                ours = [row for row in tqdm(pool.imap_unordered(work, todo), total=len(todo),
                                            desc=kind, mininterval=1, file=sys.stdout) if row]
                if not ours:
                    wait_for_others(len(todo))
    write_table(args.output)


def before() -> dict[str, Any]:
    """What the base model says before any fine-tuning: its losses, and 20 names."""
    base = Llama.load(DATA / "base")
    parts = {"base": ("validation",)} | dict.fromkeys(TARGETS, ("validation", "test"))
    losses = {f"{language} {split}": evaluate(base, load_names(language, split))
              for language, splits in parts.items() for split in splits}
    return {"losses": losses, "names": sample(base)}


# ------------------------------------------------------------------------------------- timing


def time_steps(args: argparse.Namespace) -> None:
    """Median milliseconds per training step, one thread, batch 64 of 16 tokens: timing.json."""
    from tqdm import tqdm
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(0, 27, (2, BATCH, 16))
    setups = [(m, size) for m in args.methods for size in METHODS[m][1]]
    models = {setup: make_model(*setup, seed=0) for setup in setups}
    times: dict[tuple, list[float]] = {setup: [] for setup in setups}
    optimizers = {setup: AdamW(model.parameters()) for setup, model in models.items()}
    for _ in tqdm(range(args.repeats), desc="timing", file=sys.stdout):
        for setup, model in models.items():  # in turn: a slow moment of the machine hits all
            start = time.perf_counter()
            _, grad = cross_entropy(model.forward(inputs), targets)
            model.backward(grad)
            gradients = model.gradients()
            clip_gradients(gradients, 1.0)
            optimizers[setup].step(gradients)
            times[setup].append(1e3 * (time.perf_counter() - start))
    rows = [{"method": m, "size": size, "ms_median": float(np.median(times[m, size])),
             "ms_fastest": float(np.min(times[m, size]))} for m, size in setups]
    write_record(args.output / "timing.json", {
        "batch": BATCH, "tokens": 16, "threads": 1, "repeats": args.repeats,
        "numpy": np.__version__, "rows": rows})


def kept_by_forward(model: Llama, ids: np.ndarray) -> int:
    """Bytes of all that a forward pass leaves in memory for the backward pass, measured."""
    import tracemalloc
    model.forward(ids)  # what is made once and stays, such as the rotation's table
    tracemalloc.start()
    try:
        logits = model.forward(ids)
        return tracemalloc.get_traced_memory()[0] - logits.nbytes
    finally:
        tracemalloc.stop()


# ------------------------------------------------------- what the pages read; NumPy suffices


def load_runs(kind: str | None = None, folder: Path = RESULTS, **wanted: Any) -> list[dict]:
    """Recorded runs: `load_runs("report", target="turkish", method="lora-qv")`.

    Keys of a run: kind (of `KINDS`), target, method, size, lr, seed, steps,
    train_names; trainable, file_bytes, memory_bytes; best_step and best_/final_ with validation,
    test and base (loss in nats per character); with kind "report" also curve (steps, validation,
    train, and for seed 0 base), detached_base for prefix and prompt, names for seed 0.
    """
    rows = read_lines(folder / "runs.jsonl")
    if kind is not None:
        wanted["kind"] = kind
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def load_before(folder: Path = RESULTS) -> dict[str, Any]:
    """What `before` gave when it was recorded; the pages need not run the model for it."""
    return json.loads((folder / "before.json").read_text(encoding="utf-8"))


def load_spectra(folder: Path = RESULTS, **wanted: Any) -> list[dict]:
    """One row per target and seed: `best` and `final`, each as `spectrum` returns it."""
    return [row for row in read_lines(folder / "spectra.jsonl") if wanted.items() <= row.items()]


def summarise(rows: Iterable[dict]) -> list[dict]:
    """Mean and sample standard deviation over seeds, per kind, target, method, size and subset."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if "diverged" not in row:
            key = tuple(row[k] for k in ("kind", "target", "method", "size", "train_names", "lr"))
            groups.setdefault(key, []).append(row)
    table = []
    for (kind, target, method, size, train_names, lr), runs in groups.items():
        entry = {"kind": kind, "target": target, "method": method, "size": size,
                 "train_names": train_names, "lr": lr, "seeds": len({run["seed"] for run in runs})}
        entry |= {key: runs[0][key] for key in ("trainable", "file_bytes", "memory_bytes")}
        for key in ("best_test", "final_test", "best_base", "final_base", "best_step",
                    "detached_base"):
            values = [r[key] for r in runs if key in r]
            if values:
                entry[key] = float(np.mean(values))
                entry[f"{key}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        table.append(entry)
    order = [*dict.fromkeys([*METHODS, *ALPHAS, *OWN])]
    return sorted(table, key=lambda e: (e["kind"], e["target"], order.index(e["method"]),
                                        e["size"], e["train_names"], e["lr"]))


def write_table(folder: Path) -> None:
    """Print the summary and write it as summary.csv."""
    import csv
    import io
    table = summarise(load_runs(folder=folder))
    columns = list(dict.fromkeys(key for entry in table for key in entry))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rounded(table))
    write_whole(folder / "summary.csv", text.getvalue())

    def pair(entry: dict, key: str) -> str:
        sd = entry.get(f"{key}_sd")
        return f"{entry[key]:.3f}" + ("" if sd is None else f" ± {sd:.3f}")

    rows = load_runs(folder=folder)
    for kind in KINDS:
        todo, total = len(unfinished(kind, rows)), len(planned(kind, rows))
        print(f"{kind}: {total - todo} of {total} runs are recorded")
        if todo and kind.endswith("sweep"):
            break  # what comes after it is planned from its rates
    for e in table:
        print(f"{e['kind']:<7}{e['target']:<10}{e['method']:<9}{e['size']:>3}{e['train_names']:>5}"
              f" lr {e['lr']:<7g}{e['trainable']:>7,}  test {pair(e, 'best_test'):<14} final "
              f"{pair(e, 'final_test'):<14} base {pair(e, 'best_base'):<14} "
              f"step {e['best_step']:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "timing", "table"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true",
                        help="begin anew; the old record gets another name")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--rounds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sizes", nargs="+", type=int, help="limits the rounds own-sweep and own")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30, help="of each step in `timing`")
    args = parser.parse_args()
    {"run": run_all, "timing": time_steps, "table": lambda a: write_table(a.output)}[
        args.command](args)


if __name__ == "__main__":
    main()
