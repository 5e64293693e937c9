"""Run notebooks and write their outputs in one form, so that a diff shows only what changed.

    python tools/notebooks.py book/02-lora.ipynb …    run these in place (all of the book's if none)
    python tools/notebooks.py --normalise [FILE …]    do not run: only take out what is noise
    python tools/notebooks.py --check [FILE …]        do not run: only say what is not in this form,
                                       or shows code too wide for a page

A notebook is run in its own folder by the kernel of this Python. Afterwards everything that says
when, where or by which random identifier it ran is taken out; outputs stay. After work in
JupyterLab `--normalise` does the same in a second, and says which files it changed.

A cell that warns is refused: a warning is no output for a reader, and it names a temporary file
by a number that the next run does not repeat.

Whatever ends a run before its time, each notebook is as it was or as it shall be. The kernels are
the only other processes, and each ends by itself when this one is gone.
"""

import argparse
import hashlib
import json
import os
import queue
import re
import signal
import sys
import threading
import time
from pathlib import Path

from whole import write_whole

ROOT = Path(__file__).resolve().parent.parent

TIMEOUT = 600  # seconds that one cell may take
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python",
            "pygments_lexer": "ipython3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"
MODEL = re.compile("[0-9a-f]{32}")  # what a kernel calls a widget's model
#: What editors note on a cell about times and looks. Tags and descriptions of figures stay.
NOISE = ("execution", "ExecuteTime", "collapsed", "scrolled")
WIDEST = 80  # characters in a line of code that readers see
HIDDEN = {"hide-cell", "hide-input", "remove-cell", "remove-input"}


def book_notebooks(root=ROOT):
    """Every notebook of the book, in a stable order."""
    return sorted(path for path in (root / "book").rglob("*.ipynb")
                  if ".ipynb_checkpoints" not in path.parts)


def joined(outputs):
    """A cell's outputs with what was printed in one go as one: a pipe may deliver it in pieces."""
    kept = []
    for output in outputs:
        if output["output_type"] == "stream":
            output = output | {"text": "".join(output["text"])}
            if kept and kept[-1].get("name") == output["name"]:
                kept[-1]["text"] += output["text"]
                continue
        kept.append(output)
    return kept


def widget_states(notebook):
    """What its widgets have left in a notebook, None without any.

    Raises
    ------
    ValueError
        It is no table of models by identifiers. Those are renamed wherever they stand, so one that
        is a word of the text would be renamed there, too.
    """
    widgets = notebook["metadata"].get("widgets", {})
    states = widgets.get(WIDGETS) if isinstance(widgets, dict) else widgets
    if states is None:
        return None
    models = states.get("state") if isinstance(states, dict) else None
    if not isinstance(models, dict) or not all(map(MODEL.fullmatch, models)):
        raise ValueError("the state of its widgets is no table of models by identifiers of 32 "
                         "hexadecimal digits: clear its outputs and run it again")
    return states


def normalise(notebook, name):
    """The notebook without what changes from run to run: times, versions, counts, widget ids.

    Normalising twice changes nothing more.
    """
    notebook = json.loads(json.dumps(notebook))
    states = widget_states(notebook)
    notebook["metadata"] = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    if states and states["state"]:
        notebook["metadata"]["widgets"] = {WIDGETS: states}
    ran = 0
    for cell in notebook["cells"]:
        for key in NOISE:
            cell["metadata"].pop(key, None)
        if cell.get("execution_count") is not None:
            ran += 1
            cell["execution_count"] = ran
            cell["outputs"] = joined(cell["outputs"])
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = ran
    text = json.dumps(notebook, ensure_ascii=False)
    models = dict.fromkeys((states or {}).get("state", {}))
    ours = dict.fromkeys(hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:32]
                         for number in range(len(models)))
    new = dict(zip([key for key in models if key not in ours],
                   [key for key in ours if key not in models], strict=True))
    return json.loads(MODEL.sub(lambda found: new.get(found[0], found[0]), text))


def warnings_in(notebook):
    """What the cells wrote to standard error, and what they made but could not show."""
    outputs = [(number, output) for number, cell in enumerate(notebook["cells"], 1)
               for output in cell.get("outputs", [])]
    return [f"cell {number} warns: {''.join(output['text']).strip()}"
            for number, output in outputs if output.get("name") == "stderr"] + [
        f"cell {number} could not show what it made: {output['ename']}: {output['evalue']}"
        for number, output in outputs if output["output_type"] == "error"]


def wide_code(notebook):
    """Lines of shown code with more than 80 characters, each with the number of its cell.

    So many fit beside the text's column. A cell that a tag hides or folds may be wider.
    """
    found = []
    for number, cell in enumerate(notebook["cells"], 1):
        lines = "".join(cell["source"]).splitlines()
        if cell["cell_type"] != "code":
            lines = fenced_code(lines)
        elif HIDDEN & set(cell["metadata"].get("tags", [])):
            continue
        found += [f"cell {number} shows {len(line)} characters of at most {WIDEST}: {line.strip()}"
                  for line in lines if len(line) > WIDEST]
    return found


def fenced_code(lines):
    """The lines of Markdown's code blocks, also of those in directives, which hold prose."""
    code, opened = [], []  # of each fence that is open, its marks and whether it is a directive
    for line in lines:
        fence = re.fullmatch(r"\s*(`{3,}|~{3,})([^`]*)", line)
        marks, what = fence.groups() if fence else ("", "")
        if opened and marks.startswith(opened[-1][0]) and not what.strip():
            opened.pop()
        elif fence and (not opened or opened[-1][1]):
            opened.append((marks, what.startswith("{")))
        elif opened and not opened[-1][1]:
            code.append(line)
    return code


def name_of(path):
    """What a notebook is called in its widgets' identifiers: its path from the root."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def as_text(notebook):
    """A notebook as JupyterLab writes it: one-space indent, keys sorted, lists of lines."""
    import nbformat

    return nbformat.writes(nbformat.from_dict(notebook)) + "\n"


def write(notebook, path):
    write_whole(path, as_text(notebook))


def read(path):
    """A saved notebook.

    Raises
    ------
    ValueError
        What is no notebook of format 4, in a sentence that names the file.
    """
    import nbformat

    text = ""
    try:
        text = path.read_text("utf-8")
        notebook = json.loads(text)
        if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
            raise ValueError("its nbformat is not 4")
        for error in nbformat.validator.iter_validate(notebook):
            raise ValueError(str(error.message))
        json.dumps(notebook, allow_nan=False, ensure_ascii=False).encode()  # or no tool reads it
        widget_states(notebook)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        conflict = ". It holds git's marks of a conflict: settle that first"
        raise ValueError(f"{name_of(path)} is no notebook of format 4: {str(error)[:300]}"
                         f"{conflict if '<<<<<<<' in text else ''}") from None
    return notebook


def normal_form(path):
    """What a saved notebook's file would be in normal form."""
    return as_text(normalise(read(path), name_of(path)))


def run(path):
    """Run one notebook and return it normalised, with the seconds that it took."""
    import nbformat
    from nbclient import NotebookClient

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two notebooks run side by side
    os.environ.setdefault("TQDM_DISABLE", "1")  # on a slow machine a bar is not a warning
    began, cells, before = time.perf_counter(), [], path.read_bytes()
    notebook = nbformat.reads(before.decode("utf-8"), as_version=4)
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        # The kernel's warning that it talks over local ports would hide what matters.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        on_cell_start=lambda cell, cell_index: cells.append(cell_index + 1),
    )
    try:
        client.execute()
    except Exception as error:  # also a dead kernel or too long a wait, which name no cell
        where = f"cell {cells[-1]} of {len(notebook.cells)}" if cells else "before the first cell"
        raise RuntimeError(f"{where}: {error}") from None
    if warned := warnings_in(notebook):
        raise RuntimeError("\n".join(warned))
    if path.read_bytes() != before:
        raise RuntimeError("it was saved while it ran, so its outputs are of an older text: run it "
                           "again")
    return normalise(notebook, name_of(path)), time.perf_counter() - began


def run_all(paths, done, jobs=2):
    """Run notebooks `jobs` at a time, telling of each as it ends; `done(path, notebook)` keeps it.

    Returns the notebooks that failed; the reason has been printed.
    """
    waiting, ended, failed = queue.SimpleQueue(), queue.SimpleQueue(), []
    workers = min(jobs, len(paths))
    for path in [*paths, *[None] * workers]:
        waiting.put(path)

    def work():
        for path in iter(waiting.get, None):
            try:
                ended.put((path, run(path), None))
            except Exception as error:  # a cell may raise anything; the build names every failure
                ended.put((path, None, error))

    # Threads, since the kernels do the work: worker processes would outlive a stopped build.
    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    for count in range(1, len(paths) + 1):
        path, result, error = ended.get()
        label = f"[{count}/{len(paths)}] {path.name}"
        if error:
            print(f"{label}: FAILED\n{error}", flush=True)
            failed.append(path)
        else:
            done(path, result[0])
            print(f"{label}: {result[1]:.1f} s", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--normalise", action="store_true", help="do not run: only drop noise")
    parser.add_argument("--check", action="store_true", help="do not run or write: only name noise")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.notebooks] or book_notebooks()
    if options.normalise or options.check:
        damaged = []
        for path in paths:
            try:
                read(path)
            except (ValueError, OSError) as error:
                damaged.append(str(error))
        if damaged:
            sys.exit("\n".join(damaged))
        changed = [path for path in paths if path.read_text("utf-8") != normal_form(path)]
        if options.check:
            wrong = [f"{name_of(path)}: not in normal form, run tools/notebooks.py --normalise"
                     for path in changed]
            for path in paths:
                notebook = json.loads(path.read_text("utf-8"))
                wrong += [f"{name_of(path)}: {said}"
                          for said in warnings_in(notebook) + wide_code(notebook)]
            sys.exit("\n".join(wrong) or 0)
        for path in changed:
            write_whole(path, normal_form(path))
            print(f"normalised {name_of(path)}")
        sys.exit(1 if changed else 0)  # a hook stops the commit, so that you look at the change
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: at once, not after the cells that run
    failed = run_all(paths, lambda path, notebook: write(notebook, path))
    if failed:
        sys.exit(f"{len(failed)} of {len(paths)} notebooks failed; those were left as they were")


if __name__ == "__main__":
    main()
