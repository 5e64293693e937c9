"""The house: who stands on the top shelf, who may import whom, how long a function may be."""

import ast
from pathlib import Path

import peft
import pytest

CODE = Path(peft.__file__).resolve().parent
#: A room may use those above it. The shelf is the lesson; `checks` is the door to the exercises.
FLOORS = ("shelf", "family", "real_models", "experiments", "book_pages", "exercises", "door")
LONGEST = 60  # lines of a function
MODULES = sorted(path for path in CODE.rglob("*.py") if "tests" not in path.parts
                 and "data" not in path.parts and "huggingface" not in path.parts)


def name_of(path):
    return path.relative_to(CODE).with_suffix("").as_posix().replace("/", ".")


def floor(module):
    top = module.partition(".")[0]
    return FLOORS.index("door" if module == "checks" else top if top in FLOORS else "shelf")


def imports(path):
    """The course's modules that a file imports, wherever in it; also by their names in a table."""
    known = {name_of(other) for other in MODULES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def test_the_shelf_holds_the_lesson_alone():
    assert len(list(CODE.glob("*.py"))) <= 9
    assert not list(CODE.parent.rglob("__init__.py")), "namespace packages: none below code/ either"
    assert {name_of(path).partition(".")[0] for path in MODULES if path.parent != CODE} == {
        *FLOORS[1:-1]}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_room_imports_from_a_higher_one(path):
    ours = floor(name_of(path))
    assert [other for other in imports(path) if floor(other) > ours] == []


def test_no_circle():
    graph = {name_of(path): imports(path) for path in MODULES}
    while leaves := [module for module, needs in graph.items() if not needs & set(graph)]:
        for module in leaves:
            del graph[module]
    assert graph == {}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_can_be_seen_whole(path):
    long = [f"{node.name}: {length} lines" for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and (length := node.end_lineno - node.lineno + 1) > LONGEST]
    assert long == []
