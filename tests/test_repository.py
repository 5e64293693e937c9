"""The repository itself: what its files promise each other."""

import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import book_extension
import notebooks
import vendor


#: Cell tags that the book and its tests know.
TAGS = {"remove-input", "hide-input", "remove-output", "nbval-ignore-output", "raises-exception"}
VIEW = "application/vnd.jupyter.widget-view+json"


def pins(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "book/index.md", "vendor/README.md"])
def test_every_make_command_in_the_text_exists(document):
    text = (ROOT / document).read_text("utf-8")
    named = set(re.findall(r"(?:^|`|\s{4})make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named, "the page names no command: is the pattern still right?"
    assert named <= targets()


def test_every_path_in_the_readme_exists():
    text = (ROOT / "README.md").read_text("utf-8")
    folders = r"book|code|tools|tests|benchmarks|vendor|\.ci|\.github"
    named = re.findall(rf"`((?:{folders})/[^`\s]*)`", text)
    named += [path for path in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in path]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_code_is_no_package():
    """A package named `code` would hide the standard library's, which pdb and Jupyter import."""
    assert list((ROOT / "code").rglob("__init__.py")) == []


def test_requirements_are_pinned_and_constraints_agree():
    constraints = {name.lower().replace("_", "-"): version
                   for name, version in pins("constraints.txt").items()}
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-oracle.txt"):
        lines = [line for line in (ROOT / name).read_text("utf-8").splitlines()
                 if line and not line.startswith(("#", "-r"))]
        assert all("==" in line for line in lines), f"{name} has a need without a version"
        for package, version in pins(name).items():
            if package != "torch":  # its build tag differs from machine to machine
                assert constraints[package.lower().replace("_", "-")] == version


def test_binder_gets_a_python_that_the_code_runs_on():
    runtime = (ROOT / "runtime.txt").read_text("utf-8")
    major, minor = re.fullmatch(r"python-(\d+)\.(\d+)\s*", runtime).groups()
    assert (int(major), int(minor)) >= (3, 11)
    # Either folder would hide the files in the root.
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()


def test_vendored_files_are_as_pinned():
    assert list(vendor.problems(json.loads(vendor.MANIFEST.read_text("utf-8")))) == []


@pytest.mark.parametrize("path", notebooks.book_notebooks(), ids=lambda path: path.name)
def test_notebooks_are_committed_in_one_form_with_outputs(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells), "no outputs: run make notebooks"
    for cell in notebook["cells"]:
        assert set(cell["metadata"].get("tags", [])) <= TAGS
    text = path.read_text("utf-8")
    assert "interact(" not in text and "IntSlider" not in text  # dead sliders in a saved page


@pytest.mark.parametrize(("remote", "expected"), [
    ("https://github.com/a/book.git", "https://github.com/a/book"),
    ("https://user:token@github.com/a/book", "https://github.com/a/book"),
    ("git@github.com:a/book.git", "https://github.com/a/book"),
    ("ssh://git@gitlab.com/a/book.git", "https://gitlab.com/a/book"),
    ("/home/me/book", None),
    ("https://github.com", None),
    ("file:///home/me/book", None),
])
def test_the_repository_address_is_public_or_absent(monkeypatch, remote, expected):
    monkeypatch.setenv("REPOSITORY_URL", remote)
    assert book_extension.repository_url() == expected


def test_normalising_drops_what_changes_from_run_to_run():
    key = "1f" * 16
    notebook = {
        "cells": [{"metadata": {"execution": {"iopub.execute_input": "2026"}, "tags": ["a"]},
                   "outputs": [{"data": {VIEW: {"model_id": key}}}]}],
        "metadata": {"language_info": {"version": "3.11.7"},
                     "widgets": {notebooks.WIDGETS: {"state": {key: {"state": {}}}}}},
    }
    first = notebooks.normalise(notebook, "book/x.ipynb")
    other = json.loads(json.dumps(notebook).replace(key, "2e" * 16))
    again = notebooks.normalise(other, "book/x.ipynb")
    assert first == again
    assert "2026" not in json.dumps(first) and "3.11.7" not in json.dumps(first)
    view = first["cells"][0]["outputs"][0]["data"][VIEW]
    assert view["model_id"] in first["metadata"]["widgets"][notebooks.WIDGETS]["state"]
    assert first["cells"][0]["metadata"] == {"tags": ["a"]}
