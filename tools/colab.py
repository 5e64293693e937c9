"""Notebooks for Colab, which opens one file of a repository and not what stands beside it.

    REPOSITORY_URL=https://github.com/OWNER/NAME python tools/colab.py

Writes the book's notebooks into _build/colab, each with a first cell that fetches the code. The
workflow `pages` pushes them to the branch `colab`, where the menu's link leads.
"""

import json
import sys

import book_extension
import notebooks

TARGET = notebooks.ROOT / "_build" / "colab"


def first_cell(url, branch, folder):
    """A cell that brings the repository's files and enters the notebook's folder."""
    source = f"""\
# Colab has only this file: fetch the rest of the course, and go to the notebook's folder.
import os, subprocess, sys
if not os.path.exists("/content/course"):
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "--branch", {branch!r},
                    "--", {url!r}, "/content/course"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet",
                    "--constraint", "/content/course/constraints.txt",
                    "anywidget", "safetensors", "tokenizers", "tqdm"], check=True)
os.chdir({"/content/course/" + folder!r})"""
    return {"cell_type": "code", "execution_count": None, "id": "fetch-the-course",
            "metadata": {}, "outputs": [], "source": source.splitlines(keepends=True)}


def main():
    url = book_extension.repository_url()
    if not url:
        sys.exit("The repository's address is not known: set REPOSITORY_URL")
    for path in notebooks.book_notebooks():
        name = path.relative_to(notebooks.ROOT)
        notebook = json.loads(path.read_text("utf-8"))
        notebook["cells"].insert(
            0, first_cell(url, book_extension.branch(), name.parent.as_posix()))
        notebooks.write(notebook, TARGET / name)
    print(f"{len(notebooks.book_notebooks())} notebooks in {TARGET.relative_to(notebooks.ROOT)}")


if __name__ == "__main__":
    main()
