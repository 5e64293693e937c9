"""Which packages a piece of code needs, also through the course's modules that it imports.

The build asks this for the notebooks in JupyterLite, and the Python in a page for each cell.
"""

import ast
from pathlib import Path

#: Packages that modules of code/stage-09 import; in the browser a cell has to name them.
HIDDEN = ("matplotlib.pyplot", "anywidget", "tqdm")


def hidden_imports(source: str, code: Path) -> list[str]:
    """Which of HIDDEN the modules below `code` import, directly or through each other, that a
    source imports."""
    found, waiting, seen = set(), [source], set()
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            names = ({alias.name for alias in node.names} if isinstance(node, ast.Import) else
                     {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                     if isinstance(node, ast.ImportFrom) else set())
            for name in names - seen:
                seen.add(name)
                top = name.partition(".")[0]
                found |= {hidden for hidden in HIDDEN if hidden.partition(".")[0] == top}
                module = code / f"{name.replace('.', '/')}.py"
                if module.exists():
                    waiting.append(module.read_text("utf-8"))
    return [name for name in HIDDEN if name in found]
