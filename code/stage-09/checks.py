"""The checks of the exercises: `checks.check_lora_dropout(LoRADropoutLayer)` and so on.

Each takes the student's work and optionally `step`, to check the first steps only, and returns a
`Report` with `passed`, `status` and `diagnosis`. `exercises/harness` holds the machinery; each
exercise has a room beside it, with its tests in `checks.py`. Reading those spoils the exercise.
"""

import importlib
from typing import Any

import exercises.harness.kept  # noqa: F401  NumPy as it is before a student's cells
from exercises.harness.progress import EXERCISES, clear_progress, progress, remember

#: Where each check stands. A page needs one of them: the others are not loaded.
HOMES = {
    "check_lora_feed_forward": "exercises.ex1_lora_feed_forward.checks",
    "check_lora_dropout": "exercises.ex2_lora_dropout.checks",
    "check_parallel_adapter": "exercises.ex3_parallel_adapter.checks",
    "check_prefix_mlp": "exercises.ex4_prefix_mlp.checks",
    "check_prompted_lora": "exercises.ex5_prompted_lora.checks",
    "check_qlora": "exercises.ex6_qlora.checks",
    "check_dora": "exercises.ex7_dora.checks",
    "check_vera": "exercises.ex8_vera.checks",
}

__all__ = ["EXERCISES", "clear_progress", "progress", "remember", *HOMES]


def __getattr__(name: str) -> Any:
    """A check, at its first use."""
    if name not in HOMES:
        raise AttributeError(f"checks has no {name!r}; the checks are {', '.join(HOMES)}")
    return getattr(importlib.import_module(HOMES[name]), name)
