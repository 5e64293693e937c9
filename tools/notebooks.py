"""Run notebooks and write their outputs in one form, so that a diff shows only what changed.

    python tools/notebooks.py book/02-lora.ipynb …    run these in place (all of the book's if none)

A notebook is run in its own folder by the kernel of this Python. Afterwards everything that says
when, where or by which random identifier it ran is taken out; outputs stay.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds that one cell may take
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python",
            "pygments_lexer": "ipython3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"


def book_notebooks(root=ROOT):
    """Every notebook of the book, in a stable order."""
    return sorted(path for path in (root / "book").rglob("*.ipynb")
                  if ".ipynb_checkpoints" not in path.parts)


def normalise(notebook, name):
    """The notebook without what changes from run to run: times, versions, random widget ids."""
    notebook = json.loads(json.dumps(notebook))
    states = notebook["metadata"].get("widgets", {}).get(WIDGETS)
    notebook["metadata"] = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    if states and states["state"]:
        notebook["metadata"]["widgets"] = {WIDGETS: states}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
    text = json.dumps(notebook, ensure_ascii=False)
    for number, model in enumerate((states or {}).get("state", {})):
        text = text.replace(model, hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:32])
    return json.loads(text)


def write(notebook, path):
    """Write a notebook as JupyterLab does: one-space indent, keys sorted, lists of lines."""
    import nbformat

    notebook = nbformat.from_dict(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", "utf-8")


def run(path):
    """Run one notebook and return it normalised, with the seconds that it took."""
    import nbformat
    from nbclient import NotebookClient

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two notebooks run side by side
    began = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        # The kernel's warning that it talks over local ports would hide what matters.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    client.execute()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return normalise(notebook, name), time.perf_counter() - began


def run_all(paths, done, jobs=2):
    """Run notebooks `jobs` at a time, telling of each as it ends; `done(path, notebook)` keeps it.

    Returns the notebooks that failed; the reason has been printed.
    """
    failed = []
    with ProcessPoolExecutor(max_workers=max(1, min(jobs, len(paths)))) as pool:
        waiting = {pool.submit(run, path): path for path in paths}
        for count, future in enumerate(as_completed(waiting), 1):
            path = waiting[future]
            label = f"[{count}/{len(paths)}] {path.name}"
            try:
                notebook, seconds = future.result()
            except Exception as error:  # a cell may raise anything; the build names every failure
                print(f"{label}: FAILED\n{error}", flush=True)
                failed.append(path)
            else:
                done(path, notebook)
                print(f"{label}: {seconds:.1f} s", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    paths = [path.resolve() for path in parser.parse_args().notebooks] or book_notebooks()
    failed = run_all(paths, lambda path, notebook: write(notebook, path))
    if failed:
        sys.exit(f"{len(failed)} of {len(paths)} notebooks failed; those were left as they were")


if __name__ == "__main__":
    main()
