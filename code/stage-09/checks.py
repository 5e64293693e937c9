"""The checks of the exercises: `checks.check_lora_dropout(LoRADropoutLayer)` and so on.

Each takes the student's work and optionally `step`, to check the first steps only, and returns a
`Report` with `passed`, `status` and `diagnosis`. `checking.py` holds the machinery, `checks_ex1.py`
to `checks_ex6.py` the tests of one exercise each. Reading those spoils the exercise.
"""

from checks_ex1 import check_lora_feed_forward
from checks_ex2 import check_lora_dropout
from checks_ex3 import check_parallel_adapter
from checks_ex4 import check_prefix_mlp
from checks_ex5 import check_prompted_lora
from checks_ex6 import check_qlora
from progress import EXERCISES, clear_progress, progress, remember

__all__ = [
    "EXERCISES", "check_lora_feed_forward", "check_lora_dropout", "check_parallel_adapter",
    "check_prefix_mlp", "check_prompted_lora", "check_qlora", "clear_progress", "progress",
    "remember",
]
