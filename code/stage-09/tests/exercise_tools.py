"""What the tests of the exercise checks share."""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
for folder in (HERE.parent / "solutions", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def solution(module, name):
    """The reference solution `name` of code/stage-09/solutions/<module>.py."""
    return getattr(importlib.import_module(module), name)


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
