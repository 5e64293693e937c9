"""What the stretch goals share: the pretrained small Llama, training on Turkish names, a record.

In an exercise's `stretch.py` each `..._runs` function takes the student's work, trains for about
a hundred steps at a time (seconds each) and returns the curves; each `draw_...` makes the figure.
A student's run is one seed. What several seeds and a sweep of rates give was recorded once:

    python -m exercises.stretch_goals    # resumes; about 20 minutes from nothing
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Markdown

import llama
import names
import training
from book_pages import settings
from experiments.records import read_lines, run_claimed

DATA = Path(__file__).parents[1] / "data"
BASE, RECORD = DATA / "base", DATA / "experiments" / "stretch.jsonl"
ROOMS = {"ex1_lora_feed_forward": "LoRAFeedForward", "ex2_lora_dropout": "LoRADropoutLayer",
         "ex3_parallel_adapter": "ParallelAdapter", "ex4_prefix_mlp": "PrefixMLP",
         "ex5_prompted_lora": None, "ex6_qlora": "QLoRALinear",
         "ex7_dora": "ColumnDoRA",
         }
SEEDS = (0, 1, 2)


def pretrained() -> llama.Llama:
    """The book's pretrained model, fresh."""
    return llama.Llama.load(BASE)


class WithBlocks:
    """The pretrained model with other MLP blocks, in the form that `training.fit` expects.

    Parameters
    ----------
    make : gets a frozen `llama.MLP`, returns the block that takes its place
    """

    def __init__(self, make: Callable[[llama.MLP], Any]):
        self.model, self.blocks = pretrained(), []
        for layer in self.model.layers:
            layer.mlp = make(layer.mlp)
            self.blocks.append(layer.mlp)
        self.forward, self.backward = self.model.forward, self.model.backward

    def _all(self, which: str) -> dict[str, np.ndarray]:
        return {f"{i}.{name}": array for i, block in enumerate(self.blocks)
                for name, array in getattr(block, which)().items()}

    def parameters(self) -> dict[str, np.ndarray]:
        return self._all("parameters")

    def gradients(self) -> dict[str, np.ndarray]:
        return self._all("gradients")


def train(model: Any, lr: float = 1e-2, steps: int = 100, every: int = 20, seed: int = 0
          ) -> dict[str, Any]:
    """Train on Turkish names; number of parameters, steps, and loss on names held back."""
    recorder = training.Recorder()
    data = names.batches(names.load_names("turkish", "train"), settings.BATCH,
                         np.random.default_rng(seed))
    training.fit(model, data, steps=steps, lr=lr, warmup=10, every=every, callbacks=[recorder],
                 evaluations={"loss": names.load_names("turkish", "validation")})
    count = sum(array.size for array in model.parameters().values())
    return {"parameters": count, "steps": recorder.steps, "loss": recorder.losses["loss"], "lr": lr}


@dataclass(frozen=True)
class Goal:
    """Settings that a stretch goal compares, and what was recorded of them with the solution.

    Parameters
    ----------
    name : of the goal in the record
    run : `run(work, *setting, lr=, seed=)` trains one and returns what `train` does
    settings : by name, what `run` gets
    rates : learning rates; seed 0 tries all of them, the other seeds the best, unless `all_rates`
    seeds : of the record
    """

    name: str
    run: Callable[..., dict[str, Any]]
    settings: dict[str, tuple]
    rates: tuple[float, ...]
    all_rates: bool = False
    seeds: tuple[int, ...] = SEEDS

    def rows(self, setting: str, lr: float | None = None) -> list[dict[str, Any]]:
        """What is recorded of a setting, at one rate or at all."""
        return [row for row in _recorded() if (row["goal"], row["setting"]) == (self.name, setting)
                and lr in (None, row["lr"])]

    def rate(self, setting: str) -> float:
        """The rate of the lowest last loss, of seed 0 or the mean; without a record, the middle."""
        tried = {lr: [row["loss"] for row in self.rows(setting, lr)
                      if self.all_rates or row["seed"] == 0] for lr in self.rates}
        means = {lr: np.mean(losses) for lr, losses in tried.items() if losses}
        return min(means, key=means.get) if means else self.rates[len(self.rates) // 2]

    def entry(self, setting: str, lr: float | None = None, key: str = "loss") -> dict[str, Any]:
        """Mean and deviation over the seeds, named as `experiments.claims` compares them."""
        rows = self.rows(setting, lr or self.rate(setting))
        values = [row[key] for row in rows]
        return {"kind": self.name, "method": setting, "size": "", "lr": rows[0]["lr"],
                "parameters": rows[0]["parameters"], "seeds": len(values),
                "best_test": float(np.mean(values)),
                "best_test_sd": float(np.std(values, ddof=1))}

    def at_edge(self, entries: Iterable[dict[str, Any]]) -> bool:
        """Whether one has its best rate at an end of the sweep, which is then too short."""
        return any(entry["lr"] in (self.rates[0], self.rates[-1]) for entry in entries)

    def runs(self, work: Any, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Every setting at the rate that the record found best, with the student's work."""
        return {name: self.run(work, *setting, lr=self.rate(name), seed=seed)
                for name, setting in self.settings.items()}

    def jobs(self) -> list[dict[str, Any]]:
        """What is to be recorded; to be asked again after seed 0, which finds the rates."""
        return [{"goal": self.name, "setting": name, "lr": lr, "seed": seed}
                for seed in self.seeds for name in self.settings
                for lr in (self.rates if self.all_rates or seed == 0 else (self.rate(name),))]

    def record(self, work: Any, job: dict[str, Any]) -> dict[str, Any]:
        """The row of a job."""
        run = self.run(work, *self.settings[job["setting"]], lr=job["lr"], seed=job["seed"])
        return job | {"parameters": run["parameters"], "first": run["loss"][0],
                      "loss": run["loss"][-1], "best": min(run["loss"])} | run.get("more", {})


@cache
def _recorded() -> list[dict[str, Any]]:
    return read_lines(RECORD)


def told(entry: dict[str, Any]) -> str:
    """A loss with its deviation over the seeds, for a sentence."""
    return f"{entry['best_test']:.3f} ± {entry['best_test_sd']:.3f}"


def folded(what: str, does_not_show: str, opened: bool) -> Markdown:
    """The end of a stretch goal: what one probably saw and why; `opened` on a solution's page."""
    return Markdown(f"<details{' open' * opened}>\n<summary>What you probably saw, why, and what "
                    f"it does not show</summary>\n\n{what}\n\n**What it does not show:** "
                    f"{does_not_show}\n\nMeans and standard deviations of {len(SEEDS)} seeds "
                    "where nothing else is said, recorded with the worked solution by "
                    "`python -m exercises.stretch_goals`.\n\n"
                    "</details>")


def main() -> None:
    """Record what is not recorded yet of every exercise's goals."""
    from tqdm import tqdm

    def key(row: dict[str, Any]) -> tuple:
        return tuple(row[name] for name in ("goal", "setting", "lr", "seed"))

    for room, name in ROOMS.items():
        work = name and getattr(importlib.import_module(f"exercises.{room}.solution"), name)
        for goal in importlib.import_module(f"exercises.{room}.stretch").GOALS:
            for part in (goal.seeds[:1], goal.seeds[1:]):
                _recorded.cache_clear()
                done = {key(row) for row in _recorded()}
                todo = [job for job in goal.jobs() if job["seed"] in part and key(job) not in done]
                for job in tqdm(todo, desc=f"{goal.name}, seeds {part}", disable=not todo):
                    run_claimed(job, RECORD, key, lambda job, goal=goal: goal.record(work, job))


if __name__ == "__main__":
    importlib.import_module("exercises.stretch_goals").main()  # the goals know this, not __main__
