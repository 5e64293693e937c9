"""What the tests of the exercise checks share."""

import importlib
import json
from pathlib import Path

import numpy as np

from exercises.mistakes import listed, patched

ROOT = Path(__file__).resolve().parents[4]
DTYPES = [np.float32, np.float64]
#: Each room, with the class that a student writes there.
ROOMS = {"ex1_lora_feed_forward": "LoRAFeedForward", "ex2_lora_dropout": "LoRADropoutLayer",
         "ex3_parallel_adapter": "ParallelAdapter", "ex4_prefix_mlp": "PrefixMLP",
         "ex5_prompted_lora": "PromptedLoRAAttention", "ex6_qlora": "QLoRALinear",
         "ex7_dora": "ColumnDoRA",
         "ex8_vera": "VeRAFeedForward"}


def module(room, name):
    """code/stage-09/exercises/<room>/<name>.py."""
    return importlib.import_module(f"exercises.{room}.{name}")


def solution(room, name):
    """`name` of the reference solution in code/stage-09/exercises/<room>/solution.py."""
    return getattr(module(room, "solution"), name)


def check(room, work, *args, **kwargs):
    """Report of the room's check on a student's work: a class, or what a student has defined."""
    if isinstance(work, dict) and room != "ex6_qlora":
        work = work[ROOMS[room]]
    return getattr(module(room, "checks"), f"check_{room[4:]}")(work, *args, **kwargs)


def cells(notebook):
    """Sources of the code cells of book/exercises/<notebook>.ipynb."""
    text = (ROOT / "book" / "exercises" / f"{notebook}.ipynb").read_text("utf-8")
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "code"]


def starter(room):
    """What an untouched starter defines: the cell of its notebook with the class."""
    space = {"__name__": "starter"}
    exec("import numpy as np\nimport peft\n", space)
    for source in cells(room.replace("_", "-")):
        if f"class {ROOMS[room]}" in source:
            exec(source, space)
    return space


def mistakes(room):
    """Of each mistake the test that must see it, itself, and what makes its wrong answer."""
    for test, entry in listed(module(room, "mistakes").MISTAKES):
        yield test, entry, lambda entry=entry: patched(room, entry)
