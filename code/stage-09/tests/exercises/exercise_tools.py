"""What the tests of the exercise checks share."""

import importlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def solution(room, name):
    """`name` of the reference solution in code/stage-09/exercises/<room>/solution.py."""
    return getattr(importlib.import_module(f"exercises.{room}.solution"), name)


def cells(notebook):
    """Sources of the code cells of book/exercises/<notebook>.ipynb."""
    text = (ROOT / "book" / "exercises" / f"{notebook}.ipynb").read_text("utf-8")
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "code"]


def starter(notebook, name):
    """What an untouched starter defines under `name`: the cell with `class name` or `def name`."""
    space = {"__name__": "starter"}
    exec("import numpy as np\nimport peft\n", space)
    for source in cells(notebook):
        if f"class {name}" in source or f"def {name}" in source:
            exec(source, space)
    return space[name]
