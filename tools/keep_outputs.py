"""A pytest plugin: what `pytest --nbval` runs, `make book` need not run again.

    python -m pytest -p keep_outputs --nbval book/02-lora.ipynb

nbval runs every cell and compares what it gives with what is committed. Figures, and the cells
tagged nbval-ignore-output, it does not compare; so what is kept for the pages is never the
committed file but what the cells have just given, once all of them passed. Two kinds of notebook
are not kept, and the build runs them a second time: those with widgets, whose state nbval does not
collect, and those that ask Hugging Face where it is installed, which the book's pages do not.
"""

import json

import build_book
import notebooks
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed or report.skipped:
        item.parent.not_whole = True
    return report


def pytest_runtest_teardown(item, nextitem):
    if nextitem is None or nextitem.parent is not item.parent:
        ended(item.parent, item.session.items)


def ended(file, items):
    """Keep this notebook's outputs if each of its cells has run and passed."""
    ran = {cell.cell_num: cell.test_outputs for cell in items
           if cell.parent is file and getattr(cell, "test_outputs", None) is not None}
    notebook = json.loads(file.path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if len(ran) != len(code) or getattr(file, "not_whole", False) or again(notebook):
        return
    for number, cell in enumerate(code):
        cell["outputs"], cell["execution_count"] = ran[number], number + 1
    stamp = build_book.stamp_of(file.path, build_book.shared_digest())
    build_book.keep(file.path, notebooks.normalise(notebook, notebooks.name_of(file.path)), stamp)


def again(notebook):
    """Whether the build has to run this notebook itself."""
    return "widgets" in notebook["metadata"] or any(
        "twins" in "".join(cell["source"]) for cell in notebook["cells"])
