"""Memory that somebody measured, beside what accounting.py says of the same settings.

`data/memory_runs.json` holds 69 training steps on one Tesla T4, from the source distribution of
fitcheck-llm 0.3.1 (MIT): eleven models, LoRA on q, k, v and o, bases in 16 bits and in NF4, two
kinds of attention, always with checkpointing. The constants of `accounting.overhead` and the bytes
of eager attention's scores were chosen on the runs of two of these models, `FITTED_ON`; the other
nine check them.

    rows = compare()
    errors(rows, "allocated", fitted=False)     # mean and largest error where nothing was fitted
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from real_models.accounting import (
    Bill,
    Count,
    Model,
    activation_estimate,
    count_lora,
    memory_bill,
    overhead,
    read_model,
)

FILE = Path(__file__).parents[1] / "data" / "memory_runs.json"
FITTED_ON = ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "HuggingFaceTB/SmolLM2-1.7B")
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """One measured training step; memory in bytes."""

    model: str
    base: str  # as accounting.BASE_FORMATS names it; "bfloat16" stands for all of 16 bits
    attention: str  # flash or eager
    batch: int
    length: int
    rank: int
    trainable: int
    loaded: int  # model and adapters, before the first step
    allocated: int  # in tensors, at the peak
    process: int  # what the process had taken of the card, at the peak

    @property
    def fitted(self) -> bool:
        """Whether constants were chosen on it."""
        return self.model in FITTED_ON


@dataclass(frozen=True)
class Compared:
    """A run, and what the ledger says of it: three numbers of bytes, named as the run's."""

    run: Run
    loaded: int
    allocated: int
    process: int

    def error(self, what: str) -> float:
        """How far the ledger is off, as a share of what was measured; below 0: too low."""
        return getattr(self, what) / getattr(self.run, what) - 1


@cache
def document() -> dict[str, Any]:
    """The recorded file: the source with its licence, what all runs share, models and runs."""
    return json.loads(FILE.read_text("utf-8"))


def load_runs() -> list[Run]:
    """All measured runs, in the order of the file."""
    found = []
    for values in document()["runs"]:
        row = dict(zip(document()["columns"], values, strict=True))
        found.append(Run(
            row["model"], {"float16": "bfloat16"}.get(row["base"], row["base"]),
            "eager" if row["attention"] == "eager" else "flash",
            *(row[key] for key in ("batch", "length", "rank", "trainable")),
            *(round(row[f"{key}_mib"] * MIB) for key in ("loaded", "allocated", "process"))))
    return found


@cache
def model_of(name: str) -> Model:
    """A measured model, from the sizes that the file has of it.

    Raises
    ------
    ValueError
        It has another number of parameters than was counted when it was measured.
    """
    sizes = dict(document()["models"][name])
    counted = sizes.pop("num_params")
    family = "qwen2" if "Qwen2" in name else "llama"  # Mistral's layers are Llama's
    model = read_model({"model_type": family, **sizes}, "CAUSAL_LM", name=name)
    if model.num_parameters != counted:
        raise ValueError(f"{name} has {model.num_parameters:,} parameters, measured {counted:,}")
    return model


def predict(run: Run) -> tuple[Count, Bill, Bill]:
    """What was trained, the bill of its states, and the activations."""
    counted = count_lora(model_of(run.model), run.rank, document()["all"]["targets"])
    kept = activation_estimate(counted, run.batch, run.length, base=run.base,
                               checkpointing=True, attention=run.attention)
    return counted, memory_bill(counted, base=run.base), kept


def compare(runs: Iterable[Run] | None = None) -> list[Compared]:
    """The ledger's answer for each run."""
    rows = []
    for run in load_runs() if runs is None else runs:
        _, states, kept = predict(run)
        later = sum(item.bytes for item in states.items
                    if item.label in ("gradients", "optimizer state"))
        tensors = states.bytes + kept.bytes
        rows.append(Compared(run, states.bytes - later, tensors,
                             tensors + overhead(states, kept).bytes))
    return rows


def distinct(rows: Sequence[Compared]) -> list[Compared]:
    """Without repeats of the same setting: the first of each."""
    first: dict[tuple, Compared] = {}
    for row in rows:
        run = row.run
        first.setdefault((run.model, run.base, run.attention, run.batch, run.length, run.rank), row)
    return [*first.values()]


def errors(rows: Iterable[Compared], what: str, fitted: bool) -> tuple[float, float]:
    """Mean and largest size of the error, on the fitted half or on the other."""
    sizes = [abs(row.error(what)) for row in rows if row.run.fitted is fitted]
    return float(np.mean(sizes)), max(sizes)


def fit_overhead(rows: Sequence[Compared]) -> tuple[float, float]:
    """Shares of tensors and of the smaller peak that processes held besides, by least squares.

    Relative errors are squared, and the CUDA context is as it was measured.
    """
    context = document()["all"]["cuda_context_mib"] * MIB
    parts, wanted = [], []
    for row in rows:
        _, states, kept = predict(row.run)
        tensors = states.bytes + kept.bytes
        parts.append([tensors / row.run.process, kept.other_peak / row.run.process])
        wanted.append((row.run.process - context - tensors) / row.run.process)
    share, other = np.linalg.lstsq(np.array(parts), np.array(wanted), rcond=None)[0]
    return float(share), float(other)
