"""The checks of the exercises: `checks.check_lora_dropout(LoRADropoutLayer)` and so on.

Each takes the student's work and optionally `step`, to check the first steps only, and returns a
`Report` with `passed`, `status` and `diagnosis`. `checking.py` holds the machinery, `checks_ex1.py`
to `checks_ex6.py` the tests of one exercise each. Reading those spoils the exercise.
"""

import importlib
from typing import Any

from progress import EXERCISES, clear_progress, progress, remember

#: Where each check stands. A page needs one of them: the others are not loaded.
HOMES = {"check_lora_feed_forward": "checks_ex1", "check_lora_dropout": "checks_ex2",
         "check_parallel_adapter": "checks_ex3", "check_prefix_mlp": "checks_ex4",
         "check_prompted_lora": "checks_ex5", "check_qlora": "checks_ex6"}

__all__ = ["EXERCISES", "clear_progress", "progress", "remember", *HOMES]


def __getattr__(name: str) -> Any:
    """A check, at its first use."""
    if name not in HOMES:
        raise AttributeError(f"checks has no {name!r}; the checks are {', '.join(HOMES)}")
    return getattr(importlib.import_module(HOMES[name]), name)
