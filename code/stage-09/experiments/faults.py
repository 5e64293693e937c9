"""Runs with one fault each, for the page "Find the fault".

    python -m experiments.faults run    every case that is not recorded yet; a minute on one core

Each of the ten common mistakes is one small change of one sound run: a field of `Plan`. All train
the small model on Turkish names, and write down the same things, whatever the fault: losses, norms,
steps, what was saved and what it is worth when loaded elsewhere, invented names. A run is appended
to faults.jsonl as it ends. `book_pages/clues.py` reads a record and says which fault it shows.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":  # before NumPy loads
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

import llama
from experiments.records import read_lines, run_claimed, runner, wait_for_others
from experiments.small_llama import DATA, RESULTS, sample
from names import BOUNDARY, batches, load_names
from peft import Adapter, LoRALinear, PrefixTuning, PromptTuning
from training import AdamW, clip_gradients, cosine_schedule, cross_entropy, evaluate

FILE = "faults.jsonl"
STEPS, BATCH, WARMUP, EVERY, DECAY = 40, 32, 5, 4, 0.1
MERGED_AT = 24  # steps before a run of fault 9 merges
HELD_OUT, INVENTED = 200, 8  # names to score, names to make up
VIRTUAL = 10  # length of a prefix or prompt
RATES = {"LoRA": 1e-2, "adapters": 1e-2, "prefix": 1e-1, "prompt": 1e-1}
FULL_RATE = 3e-3  # full fine-tuning's own best, in section 9.7's sweep and in mistake 5
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Plan:
    """A run. With the values that stand here it is sound, whatever its method and its rank."""

    method: str = "LoRA"  # or "adapters", "prefix", "prompt"
    rank: int = 4  # LoRA's, or the adapters' bottleneck
    start: str = "A random"  # or "both random", "both zero"; "transposed": A by the wrong fan-in
    divided: bool = True  # scaling alpha / rank; else alpha
    frozen_given: bool = False  # the optimizer gets the frozen weights, too
    lr: float | None = None  # the method's own; else this one
    residual: bool = True
    attention: str = "right"  # or "diagonal not moved", "prefix hidden", "positions from 0"
    prompt_scored: bool = False
    merged: str = "never"  # or "left in place", "taken off"
    all_saved: bool = False


#: By fault: the plans that seeds 0, 1, 2, 0 again ... take. The names are those of `clues.FAULTS`.
PLANS = {
    "start": [Plan(start="both random"), Plan(start="both zero"),
              Plan(rank=8, start="both random")],
    "scaling": [Plan(rank=16, divided=False), Plan(rank=8, divided=False),
                Plan(rank=4, divided=False)],
    "fan-in": [Plan(rank=1, start="transposed"), Plan(rank=2, start="transposed"),
               Plan(rank=4, start="transposed")],
    "decay": [Plan(frozen_given=True), Plan("adapters", 8, frozen_given=True),
              Plan("prompt", frozen_given=True)],
    "rate": [Plan(lr=FULL_RATE), Plan("adapters", 8, lr=FULL_RATE), Plan(rank=8, lr=FULL_RATE)],
    "residual": [Plan("adapters", rank, residual=False) for rank in (8, 4, 16)],
    "attention": [Plan("prefix", attention=how) for how in (
        "diagonal not moved", "prefix hidden", "positions from 0")],
    "scored": [Plan("prompt", prompt_scored=True)],
    "merged": [Plan(merged="left in place"), Plan(merged="taken off"),
               Plan(rank=8, merged="left in place")],
    "saved": [Plan(all_saved=True), Plan("prefix", all_saved=True), Plan("prompt", all_saved=True)],
    "none": [Plan(), Plan("adapters", 8), Plan("prefix"), Plan("prompt")],
}


# --------------------------------------------------------------------------------- a model to train


def make_model(plan: Plan, seed: int) -> llama.Llama:
    """The pretrained model with the plan's method plugged in, its fault as well."""
    model, rng = llama.Llama.load(DATA / "base"), np.random.default_rng([seed, 1])
    c = model.config
    if plan.method == "LoRA":
        for name, module in model.modules().items():
            if name.endswith(llama.PROJECTIONS):
                model.replace(name, _lora(module.weight, plan, rng))
    elif plan.method == "adapters":
        for layer in model.layers:
            layer.after_mlp = Adapter(c.hidden_size, plan.rank, residual=plan.residual, rng=rng)
    elif plan.method == "prefix":
        model.kv_prefix = PrefixTuning(c.num_hidden_layers, c.num_key_value_heads, c.head_dim,
                                       VIRTUAL, rng=rng)
    else:
        kind = PromptInPlace if plan.prompt_scored else PromptTuning
        model.soft_prompt = kind(c.hidden_size, VIRTUAL, model.embed_tokens.weight, rng=rng)
    return model


def _lora(weight: np.ndarray, plan: Plan, rng: np.random.Generator) -> LoRALinear:
    module = LoRALinear(weight, lora_rank=plan.rank, lora_alpha=2.0 * plan.rank, rng=rng)
    lora = module.lora
    if not plan.divided:
        lora.scaling *= lora.rank
    for matrix in (lora.A, lora.B):
        fan_in = matrix.shape[0 if plan.start == "transposed" else 1]
        if plan.start == "both random" or (plan.start == "transposed" and matrix is lora.A):
            matrix[...] = rng.uniform(-1, 1, matrix.shape) * fan_in ** -0.5
        elif plan.start == "both zero":
            matrix[...] = 0
    return module


class PromptInPlace(PromptTuning):
    """Overwrites the first embeddings, which dummy ids have reserved, instead of prepending."""

    def forward(self, embeds: np.ndarray) -> np.ndarray:
        out = embeds.copy()
        out[:, :VIRTUAL] = self.prompt
        return out

    def backward(self, g: np.ndarray) -> np.ndarray:
        self.prompt_grad = g[:, :VIRTUAL].sum(axis=0)
        return g


def _attention(how: str) -> Any:
    """A context in which the model hands its layers a wrong mask or wrong positions."""
    right = llama.Run

    def wrong(B, T, mask, rotation, prefix, cache):
        if how == "diagonal not moved":
            mask = np.triu(np.full_like(mask, -np.inf), 1)  # (T, P+T), as if P were 0
        elif how == "prefix hidden":
            mask = mask.copy()
            mask[:, :VIRTUAL] = -np.inf
        elif mask.shape[-1] > mask.shape[-2]:
            rotation = llama.Rotation(model_angles()[:T], mask.dtype)
        return right(B, T, mask, rotation, prefix, cache)

    return nullcontext() if how == "right" else patch.object(llama, "Run", wrong)


@cache
def model_angles() -> np.ndarray:
    """The base model's rotary angles, (positions, half a head)."""
    return llama.Llama.load(DATA / "base").angles


def _data(plan: Plan, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for inputs, targets in batches(load_names("turkish", "train"), BATCH,
                                   np.random.default_rng([seed, 0])):
        if plan.prompt_scored:  # room for the prompt; its targets are a real id, the padding
            inputs, targets = (np.pad(ids, ((0, 0), (VIRTUAL, 0)), constant_values=BOUNDARY)
                               for ids in (inputs, targets))
        yield inputs, targets


# ------------------------------------------------------------------------------------------ one run


class Trained:
    """A run in progress: the model, its optimizer, and what is written down of them."""

    def __init__(self, plan: Plan, seed: int):
        self.plan, self.model = plan, make_model(plan, seed)
        self.own = self.model.parameters()  # what the optimizer goes on training, come what may
        self.start = {name: w.copy() for name, w in self.model.weights().items()}
        given = self.own | (self.model.weights() if plan.frozen_given else {})
        self.optimizer = AdamW(given, weight_decay=DECAY)
        self.held_out = load_names("turkish", "validation")[:HELD_OUT]
        self.log = {name: [] for name in ("train", "held_out", "drift")}
        self.groups = sorted({name.rpartition(".")[2] for name in self.own})
        for kind in ("gradient", "step", "weight"):
            self.log[kind] = {group: [] for group in self.groups}

    def look(self) -> None:
        """Write down the held-out loss and how far the frozen weights are from where they were."""
        self.log["held_out"].append(self.score())
        moved = sum(float(np.sum((w - self.start[name]) ** 2.0))
                    for name, w in self.model.weights().items())
        size = sum(float(np.sum(w ** 2.0)) for w in self.start.values())
        self.log["drift"].append((moved / size) ** 0.5)

    def score(self) -> float:
        """Loss on held-out names; real characters alone are scored, whatever training scores."""
        prompt = self.model.soft_prompt
        if self.plan.prompt_scored:
            self.model.soft_prompt = _prepended(prompt)
        loss = evaluate(self.model, self.held_out)
        self.model.soft_prompt = prompt
        return loss

    def step(self, batch: tuple[np.ndarray, np.ndarray], lr: float) -> None:
        """One step, as a careless loop does it: zeros stand in for gradients that are missing."""
        loss, grad = cross_entropy(self.model.forward(batch[0]), batch[1])
        self.model.backward(grad)
        own = {name: np.zeros_like(w) for name, w in self.own.items()} | self.model.gradients()
        self._add("gradient", own, np.linalg.norm)
        clip_gradients(own, 1.0)
        before = {name: w.copy() for name, w in self.own.items()}
        self.optimizer.step({name: np.zeros_like(w) for name, w in
                             self.optimizer.parameters.items()} | own, lr)
        self._add("step", {name: w - before[name] for name, w in self.own.items()}, _rms)
        self._add("weight", before, np.linalg.norm)
        self.log["train"].append(loss)

    def _add(self, kind: str, arrays: dict[str, np.ndarray], measure: Any) -> None:
        for group in self.groups:
            flat = np.concatenate([a.ravel() for name, a in arrays.items()
                                   if name.rpartition(".")[2] == group])
            self.log[kind][group].append(float(measure(flat)))

    def merge(self) -> None:
        """Add each update to its weight, in the model itself; take LoRA off where the plan says."""
        for module in self.model.modules().values():
            if isinstance(module, LoRALinear):
                module.weight[...] = module.merge()[0]
        if self.plan.merged == "taken off":
            self.model = llama.Llama(self.model.config, self.model.weights())


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values ** 2.0)))


def _prepended(prompt: PromptTuning) -> PromptTuning:
    """A prompt that stands in front of the text and is not scored, of the same numbers."""
    honest = PromptTuning(prompt.d_model, prompt.prompt_length)
    honest.prompt = prompt.prompt
    return honest


def record(fault: str, seed: int) -> dict[str, Any]:
    """Train with a fault, "none" among them, and tell what can be seen; 2 seconds on one core.

    Returns
    -------
    dict
        `plan` and `fault`, which the reader is not shown; the setting; per step `train`, and
        `gradient`, `step` and `weight` by group of parameters: the gradient's norm before clipping,
        the root mean square of the change, the norm before the step; every `EVERY` steps `held_out`
        and `drift`, the frozen weights' distance from their start by their norm; `start_of_A`, root
        mean square of LoRA's A at the start; `scaling`, |dW| / |BA| at the end; `served`, the loss
        of the saved file in a fresh model, `before` that of the base model alone; `trained` and
        `saved`, counts of numbers; `names`.

    Raises
    ------
    ValueError
        There is no such fault.
    """
    if fault not in PLANS:
        raise ValueError(f"fault must be one of {list(PLANS)}, got {fault!r}")
    plan = PLANS[fault][seed % len(PLANS[fault])]
    with _attention(plan.attention):
        row = _train(plan, seed)
    fresh = make_model(Plan(plan.method, plan.rank), seed)
    for name, array in row.pop("file").items():
        fresh.parameters()[name][...] = array
    held_out = load_names("turkish", "validation")[:HELD_OUT]
    row["served"] = evaluate(fresh, held_out)
    row["before"] = evaluate(llama.Llama.load(DATA / "base"), held_out)
    return {"fault": fault, "seed": seed, "plan": {
        name: value for name, value in asdict(plan).items() if value != asdict(Plan())[name]}} | row


def _train(plan: Plan, seed: int) -> dict[str, Any]:
    run, data = Trained(plan, seed), _data(plan, seed)
    start_of_A = _rms(np.concatenate([w.ravel() for name, w in run.own.items()
                                      if name.endswith(".A")])) if plan.method == "LoRA" else None
    for step in range(STEPS):
        if step == MERGED_AT and plan.merged != "never":
            run.merge()
        if step % EVERY == 0:
            run.look()
        run.step(next(data), cosine_schedule(step, STEPS, plan.lr or RATES[plan.method], WARMUP))
    run.look()
    trained = sum(w.size for w in run.own.values())
    frozen = sum(w.size for w in run.start.values())
    if plan.prompt_scored:
        run.model.soft_prompt = _prepended(run.model.soft_prompt)
    return run.log | {
        "method": plan.method, "rank": plan.rank, "start_of_A": start_of_A,
        "scaling": _scaling(run), "trained": trained,
        "saved": trained + frozen * plan.all_saved, "names": sample(run.model, INVENTED, seed),
        "file": run.own}


def _scaling(run: Trained) -> float | None:
    """How many times BA a LoRA layer adds, measured at its outputs; None if there is none."""
    for module in run.model.modules().values():
        if isinstance(module, LoRALinear):
            lora = module.lora
            x = np.eye(lora.in_features, dtype=lora.A.dtype)
            added = lora.forward(x, module.weight) - x @ module.weight.T  # (in, out)
            size = np.linalg.norm(lora.B @ lora.A)
            return float(np.linalg.norm(added) / size) if size else None
    return None


# ----------------------------------------------------------------------------------------- all runs


def jobs() -> list[dict[str, Any]]:
    """The recorded cases: each fault with three seeds, and a sound run of each method."""
    return [{"fault": fault, "seed": seed} for fault, plans in PLANS.items()
            for seed in (range(len(plans)) if fault == "none" else SEEDS)]


def key(job: dict[str, Any]) -> tuple:
    return job["fault"], job["seed"]


def load_cases(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The recorded cases, in the order of `jobs`, whoever made them first."""
    rows = {key(row): row for row in read_lines(folder / FILE)}
    return [rows[key(job)] for job in jobs() if key(job) in rows]


def run_all(args: argparse.Namespace) -> None:
    """Case by case, in this process; several runners of one folder share them."""
    from tqdm import tqdm
    path = args.output / FILE
    with runner(path, args.fresh):
        while todo := [job for job in jobs() if key(job) not in map(key, read_lines(path))]:
            ours = [row for job in tqdm(todo, desc="cases", file=sys.stdout) if (
                row := run_claimed(job, path, key, lambda job: record(**job)))]
            if not ours:
                wait_for_others(len(todo))


def drawn(number: int) -> tuple[str, int]:
    """A fault and a seed that no recorded case has, for a reader who gives any number."""
    rng = np.random.default_rng(number)
    return str(rng.choice(list(PLANS))), int(rng.integers(len(SEEDS) + 1, 10_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true",
                        help="begin anew; the old record gets another name")
    run_all(parser.parse_args())


if __name__ == "__main__":
    main()
