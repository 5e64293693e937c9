"""The repository itself: what its files promise each other."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import book_extension
import colab
import licences
import links
import notebooks
import prose
import pytest
import vendor
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT

#: Cell tags that the book and its tests know.
TAGS = {"remove-input", "hide-input", "hide-cell", "hide-output", "remove-output",
        "nbval-ignore-output", "raises-exception"}
VIEW = "application/vnd.jupyter.widget-view+json"



def targets():
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", "book/index.md", "book/extending-this-book.md",
     "vendor/README.md"])
def test_every_make_command_in_the_text_exists(document):
    text = (ROOT / document).read_text("utf-8")
    named = set(re.findall(r"(?:^|`|\s{4})make ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert named, "the page names no command: is the pattern still right?"
    assert named <= targets()


@pytest.mark.parametrize(("name", "fine"), [
    ("a b'c %41 #1 ü", True), ('a "b', False), ("a $HOME", False), ("a `b`", False),
    ("a \\b", False)])
def test_a_folder_from_which_nothing_would_start_is_refused_with_the_reason(tmp_path, name, fine):
    folder = tmp_path / name
    folder.mkdir()
    for file in ("Makefile", "requirements-dev.lock"):
        (folder / file).write_bytes((ROOT / file).read_bytes())
    made = subprocess.run(["make", "env", "PYTHON=echo python"], cwd=folder, text=True,
                          capture_output=True, check=False)
    assert made.returncode
    assert ("another name" in made.stderr) != fine == ("python -m venv" in made.stdout)


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


def test_requirements_are_pinned():
    """That the lock files agree with them, each package with its hashes, `make lint` checks."""
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-oracle.txt"):
        lines = [line for line in (ROOT / name).read_text("utf-8").splitlines()
                 if line and not line.startswith(("#", "-r"))]
        assert all("==" in line for line in lines), f"{name} has a need without a version"


def test_binder_gets_a_python_that_the_code_runs_on():
    runtime = (ROOT / "runtime.txt").read_text("utf-8")
    major, minor = re.fullmatch(r"python-(\d+)\.(\d+)\s*", runtime).groups()
    assert (int(major), int(minor)) >= (3, 11)


def other_builds(root):
    """What here would make Binder build something other than runtime.txt and requirements.txt."""
    names = ["binder", ".binder",  # either folder hides the files in the root
             "Dockerfile", "environment.yml", "environment.yaml", "Pipfile", "Pipfile.lock",
             "default.nix", "Project.toml", "JuliaProject.toml", "REQUIRE", "install.R",
             "DESCRIPTION", "setup.py", "apt.txt", "postBuild", "start"]
    found = [name for name in names if (root / name).exists()]
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    # Both together make the root a package, which Binder installs; either alone changes nothing,
    # except that a project may refuse the Python.
    if "project" in settings or "build-system" in settings:
        found.append("pyproject.toml")
    return found


def test_nothing_changes_what_binder_builds(tmp_path):
    assert other_builds(ROOT) == []
    (tmp_path / "pyproject.toml").write_text("[build-system]\nrequires = []\n", "utf-8")
    (tmp_path / "environment.yml").touch()
    (tmp_path / ".binder").mkdir()
    assert other_builds(tmp_path) == [".binder", "environment.yml", "pyproject.toml"]


def test_a_vendored_file_that_changed_under_its_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vendor, "VENDOR", tmp_path)
    monkeypatch.setattr(vendor, "MANIFEST", tmp_path / "vendor.json")
    file = {"path": "anywidget/__init__.py"}
    manifest = {"anywidget": {"version": vendor.metadata.version("anywidget"), "from": "pypi",
                              "files": {"x.js": file}}}
    vendor.refresh(manifest)
    assert vendor.sha256(tmp_path / "x.js") == file["sha256"]
    (tmp_path / "x.js").unlink()
    file["sha256"] = "0" * 64
    with pytest.raises(SystemExit, match="x.js"):
        vendor.refresh(manifest)
    assert not (tmp_path / "x.js").exists()


def test_a_vendored_file_changed_with_its_hash_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(vendor, "VENDOR", tmp_path)
    monkeypatch.setattr(vendor, "MANIFEST", tmp_path / "vendor.json")
    monkeypatch.setattr(sys, "argv", ["vendor.py", "--fresh"])
    (tmp_path / "x.js").write_text("theirs")
    file = {"path": "anywidget/__init__.py", "sha256": vendor.sha256(tmp_path / "x.js")}
    vendor.MANIFEST.write_text(json.dumps({"anywidget": {
        "version": vendor.metadata.version("anywidget"), "from": "pypi", "files": {"x.js": file}}}))
    vendor.main()
    assert "theirs" not in (tmp_path / "x.js").read_text("utf-8")
    assert file["sha256"] not in vendor.MANIFEST.read_text("utf-8")


def test_vendored_files_are_as_pinned():
    assert list(vendor.problems(json.loads(vendor.MANIFEST.read_text("utf-8")))) == []


def test_code_wider_than_a_page_is_found():
    wide = "x" * 81
    cells = [("code", [], wide), ("code", ["hide-input"], wide), ("code", [], wide[1:]),
             ("markdown", [], f"{wide}\n```\n{wide}\n```\n{wide}"),
             ("markdown", [], f"````{{tip}}\n{wide}\n```py\n{wide}\n```\n{wide}\n````\n{wide}")]
    notebook = {"cells": [{"cell_type": kind, "metadata": {"tags": tags}, "source": [source]}
                          for kind, tags, source in cells]}
    assert [said.split()[1] for said in notebooks.wide_code(notebook)] == ["1", "4", "5"]


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
    for output in (output for cell in cells for output in cell["outputs"]):
        printed = "".join(output.get("data", {}).get("text/markdown", ""))
        assert "$" not in printed, "the page reads no formula in what a cell prints as Markdown"


@pytest.mark.parametrize(("remote", "expected"), [
    ("https://github.com/a/book.git", "https://github.com/a/book"),
    ("https://user:token@github.com/a/book", "https://github.com/a/book"),
    ("https://user:to@ken@github.com/a/book", "https://github.com/a/book"),
    ("git@github.com:a/book.git", "https://github.com/a/book"),
    ("ssh://git@gitlab.com/a/book.git", "https://gitlab.com/a/book"),
    ("/home/me/book", None),
    ("https://github.com", None),
    ("file:///home/me/book", None),
    ("https://example.org/a/book<script>alert(1)</script>", None),
    ("https://example.org/a/book';fetch('//x')//", None),
    ("https://example.org/a/$(id)", None),
])
def test_the_repository_address_is_public_or_absent(monkeypatch, remote, expected):
    monkeypatch.setenv("REPOSITORY_URL", remote)
    assert book_extension.repository_url() == expected


def test_a_branch_is_a_name(monkeypatch):
    monkeypatch.setenv("REPOSITORY_BRANCH", "feature/second-edition")
    assert book_extension.branch() == "feature/second-edition"
    monkeypatch.setenv("REPOSITORY_BRANCH", "--upload-pack=id")
    with pytest.raises(ValueError, match="upload-pack"):
        book_extension.branch()


def test_the_cell_for_colab_gives_no_shell_a_line():
    source = "".join(colab.first_cell("https://example.org/a/b", "x' $(id)", "book")["source"])
    assert "!" not in source and ast.literal_eval(
        re.search(r'"--branch", (".*?"),', source)[1]) == "x' $(id)"


def test_only_github_itself_has_binder_and_colab(monkeypatch):
    def labels(url):
        monkeypatch.setenv("REPOSITORY_URL", url)
        buttons = book_extension.run_buttons("book/x.ipynb", lambda name, _: name)
        return {button["label"] for button in buttons} & {"launch-binder", "launch-colab"}
    assert labels("https://github.com/a/book") == {"launch-binder", "launch-colab"}
    assert labels("https://github.company.com/a/book") == set()
    assert labels("https://example.org/github.com/book") == set()


def test_another_repositorys_address_is_not_ours(monkeypatch, tmp_path):
    monkeypatch.delenv("REPOSITORY_URL", raising=False)
    remote = "https://github.com/somebody/private-course"
    for command in (["init", "--quiet"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(book_extension, "ROOT", tmp_path)
    assert book_extension.repository_url() == remote
    (tmp_path / "book").mkdir()
    monkeypatch.setattr(book_extension, "ROOT", tmp_path / "book")
    assert book_extension.repository_url() is None
    monkeypatch.setenv("PATH", "")  # without git
    assert book_extension.repository_url() is None and book_extension.git("status") == ""


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


# ------------------------------------------------------------------- the contributor's path


EXTEND = "book/extending-this-book.md"


def test_every_file_of_the_page_on_extending_exists():
    """Names with a 9 or NAME are yours to write: their folder must exist, and the like for 2."""
    text = (ROOT / EXTEND).read_text("utf-8")
    named = re.findall(
        r"(?<![\w/.-])((?:book|code|tools|tests)/[\w./-]*|_toc\.yml|CONTRIBUTING\.md)", text)
    assert len(set(named)) > 25
    for name in set(named):
        path = ROOT / name
        if "NAME" in path.name or path.stem.endswith("ex9"):
            assert path.parent.is_dir(), name
            pattern = path.name.replace("9", "2").replace("NAME", "*")
            assert list(path.parent.glob(pattern)), f"{name}: exercise 2 has no such file"
        else:
            assert path.exists(), name


@pytest.mark.parametrize(("path", "words"), [
    ("code/stage-09/exercises/ex2_lora_dropout/checks.py",
     ["EXERCISE.mistake(", "EXERCISE = ", "trial.measure("]),
    ("code/stage-09/exercises/harness/report.py", ["class Diagnosis", "PAGES = "]),
    ("code/stage-09/exercises/harness/compare.py", ["def compare("]),
    ("code/stage-09/exercises/ex2_lora_dropout/mistakes.py",
     ["MISTAKES = [", "Mistake(", "seen="]),
    ("code/stage-09/exercises/ex2_lora_dropout/solution.py", ["GB = self.scaling * (G @ self.B)"]),
    ("code/stage-09/tests/exercises/exercise_tools.py", ["ROOMS = {"]),
    ("code/stage-09/exercises/harness/progress.py", ["EXERCISES = 8"]),
    ("code/stage-09/checks.py", ["__all__"]),
    ("book/exercises/index.md", ["(exercise-8)=", "data-exercises"]),
    ("code/stage-09/book_pages/widgets/explorer.py",
     ["class Widget(", "def front_end(", "_esm = front_end(", "def fallback(", "def rank_widget("]),
    ("code/stage-09/book_pages/widgets/common.js", ["function "]),
    ("tests/test_widgets_browser.py", ["def widgets(", "def open_page(", ".length === "]),
    ("code/stage-09/real_models/families.py", ["FAMILIES", "def _t5("]),
    ("code/stage-09/data/models.json", ['"parameters"', '"checked_by"']),
    ("code/stage-09/tests/oracle/make_accounting_fixtures.py", ["SMALL = ", "REAL = "]),
])
def test_the_page_on_extending_names_what_is_there(path, words):
    text = (ROOT / path).read_text("utf-8")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("name", ["bug", "diagnosis", "idea", "wrong"])
def test_issue_forms_are_whole(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text("utf-8"))
    assert form["name"] and form["description"] and form["labels"]
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names))
    for field in form["body"]:
        assert field["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
        assert field["type"] != "dropdown" or len(field["attributes"]["options"]) > 1


def test_the_pencil_fills_in_fields_that_the_form_has(monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/a/book")
    address = book_extension.feedback_link({"title": "9.2", "pagename": "book/02-lora"})
    fields = dict(part.split("=") for part in address.partition("?")[2].split("&"))
    form = (ROOT / ".github/ISSUE_TEMPLATE" / fields.pop("template")).read_text("utf-8")
    fields.pop("title")
    assert fields and all(f"id: {name}\n" in form for name in fields)


def test_hooks_run_only_what_is_here():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}  # they need no network
    for hook in hooks:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")
        for word in hook["entry"].split():
            assert not word.startswith("tools/") or (ROOT / word).exists()


def test_normalising_joins_what_was_printed_in_pieces():
    def run(*outputs):
        cell = {"metadata": {}, "execution_count": 3, "outputs": list(outputs)}
        return notebooks.normalise({"cells": [cell], "metadata": {}}, "book/x.ipynb")

    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    shown = {"output_type": "display_data", "data": {}, "metadata": {}}
    whole = run(stream("stdout", "one\ntwo\n"), shown, stream("stdout", "three\n"))
    assert whole == run(stream("stdout", "one\n"), stream("stdout", ["tw", "o\n"]), shown,
                        stream("stdout", ["three\n"]))
    assert len(whole["cells"][0]["outputs"]) == 3, "what a figure parts stays apart"
    assert len(run(stream("stdout", "a"), stream("stderr", "b"))["cells"][0]["outputs"]) == 2


def test_a_cell_that_warns_is_refused(tmp_path, capsys):
    cell = {"cell_type": "code", "id": "warns", "metadata": {}, "execution_count": None,
            "outputs": [], "source": "import warnings\nwarnings.warn('look here')"}
    path = tmp_path / "warns.ipynb"
    notebooks.write({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, path)
    kept = []
    assert notebooks.run_all([path], lambda *saved: kept.append(saved), jobs=1) == [path]
    assert not kept
    said = capsys.readouterr().out
    assert "cell 1 warns" in said and "look here" in said


def test_a_cell_that_cannot_show_what_it_made_is_refused(tmp_path, capsys):
    """IPython goes on after it: the cell itself did not fail."""
    source = ("class Made:\n    def _repr_html_(self):\n        raise KeyError('no look')\n"
              "display(Made())")
    cell = {"cell_type": "code", "id": "shows", "metadata": {}, "execution_count": None,
            "outputs": [], "source": source}
    path = tmp_path / "shows.ipynb"
    notebooks.write({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, path)
    assert notebooks.run_all([path], lambda *saved: None, jobs=1) == [path]
    said = capsys.readouterr().out
    assert "cell 1 could not show what it made: KeyError: 'no look'" in said


def test_what_is_saved_while_a_notebook_runs_is_not_written_over(tmp_path, capsys):
    path = tmp_path / "saved.ipynb"
    cell = {"cell_type": "code", "id": "saves", "metadata": {}, "execution_count": None,
            "outputs": [], "source": "with open('saved.ipynb', 'a') as file:\n    file.write(' ')"}
    notebooks.write({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, path)
    assert notebooks.run_all([path], lambda *saved: pytest.fail("written over"), jobs=1) == [path]
    assert "saved while it ran" in capsys.readouterr().out


def test_a_bar_of_progress_is_no_warning(tmp_path):
    cell = {"cell_type": "code", "id": "bar", "metadata": {}, "execution_count": None,
            "outputs": [], "source": "from tqdm import tqdm\nprint(sum(tqdm(range(3), 'slowly')))"}
    path = tmp_path / "bar.ipynb"
    notebooks.write({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, path)
    assert notebooks.run_all([path], lambda *saved: None, jobs=1) == []


def test_normalising_twice_changes_nothing_more():
    for path in notebooks.book_notebooks():
        once = notebooks.normalise(json.loads(path.read_text("utf-8")), path.name)
        assert notebooks.normalise(once, path.name) == once


# ----------------------------------------------------------------------------- prose and citations


def entries():
    text = (ROOT / "book/references.bib").read_text("utf-8")
    found = re.split(r"^@", text, flags=re.MULTILINE)[1:]
    return {re.match(r"\w+\{([^,]+),", entry)[1]: entry for entry in found}


@pytest.mark.parametrize("key", entries())
def test_reference_has_numbers_of_the_right_form(key):
    entry = entries()[key]
    fields = dict(re.findall(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}", entry))
    assert {"title", "author"} <= set(fields)
    assert "year" in fields or "howpublished" in fields or "url" in fields or "note" in fields
    assert re.fullmatch(r"(19|20)\d\d", fields.get("year", "2000"))
    if number := fields.get("eprint"):
        found = re.fullmatch(r"(\d\d)(\d\d)\.(\d{4,5})(v\d+)?", number)
        assert found and 1 <= int(found[2]) <= 12, number
        assert len(found[3]) == (5 if int(found[1]) >= 15 else 4), "five digits since 2015"
        assert int(fields["year"]) >= 2000 + int(found[1]) - 1, "published before it was written?"
        assert fields.get("archivePrefix") == "arXiv"
    if doi := fields.get("doi"):
        assert re.fullmatch(r"10\.\d{4,9}/[^\s\"<>]+", doi), doi
    if url := fields.get("url"):
        assert url.startswith("https://"), url
    places = {"eprint", "doi", "url", "howpublished", "note", "booktitle"}
    assert places & set(fields), "where can it be found?"


def test_numbers_of_papers_in_the_text_are_in_the_references():
    """Each arXiv number and DOI that a page names is one that the bibliography has."""
    bib = (ROOT / "book/references.bib").read_text("utf-8")
    strange = []
    for path in prose.pages():
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text("utf-8"))["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
        else:
            text = path.read_text("utf-8")
        for number in re.findall(r"(?:arxiv\.org/(?:abs|pdf)/|arXiv:\s?)(\d{4}\.\d{4,5})", text):
            if number not in bib:
                strange.append(f"{path.name}: arXiv {number}")
        for doi in re.findall(r"doi\.org/(10\.[^\s)\"']+)", text):
            if doi not in bib:
                strange.append(f"{path.name}: DOI {doi}")
    assert strange == []


def forms():
    """How the text names each entry: authors or, where that is a company, it or the title; year."""
    known = set()
    for entry in entries().values():
        found = re.findall(r"(author|year|title)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}", entry)
        fields = {name: value.replace("{", "").replace("}", "") for name, value in found}
        names = [name.split(",")[0] for name in fields["author"].split(" and ")]
        first = (names[0].removesuffix(" Lab") if len(names) == 1 else
                 " and ".join(names) if len(names) == 2 and names[1] != "others" else
                 f"{names[0]} et al.")
        if "year" in fields:
            known |= {(first, fields["year"]), (fields["title"].split(":")[0], fields["year"])}
    return known


def citations(text):
    """Labels of links to the references, and authors with a year that no link stands around."""
    linked = r"\[([^\]\[]*\d{4}[^\]\[]*)\]\((?:\.\./)*references\.md[^)]*\)"
    labels = [part for label in re.findall(linked, text) for part in label.split(";")]
    rest = re.sub(linked, "", text)
    return labels, re.findall(
        r"[A-Z]\w+(?: et al\.| and [A-Z]\w+),? \(?(?:19|20)\d\d(?![.\d]*\d)", rest)


def strange_citations(text, known):
    return [label for label in sum(citations(text), [])
            if not any(re.search(rf"(?<!\w){re.escape(name)},? \(?{year}(?!\w)", label)
                       or re.match(rf"{re.escape(name)}, .*, {year}(?!\w)", label)
                       for name, year in known)]


def test_every_citation_names_authors_and_year_of_the_references():
    """`[Hu et al., 2021, Table 4](references.md)`: authors and year are one entry's."""
    count, strange = 0, []
    for path in prose.pages():
        text = "\n".join(text for _, text in links.texts(path))
        count += len(citations(text)[0])
        strange += [f"{path.name}: {label}" for label in strange_citations(text, forms())]
    assert count > 60, "is the pattern still right?"
    assert strange == []


def test_a_strange_citation_is_found():
    known = {("Hu et al.", "2021"), ("Li and Liang", "2021"), ("LoRA Without Regret", "2025"),
             ("Thinking Machines", "2025"), ("He et al.", "2021")}
    right = ("[Hu et al., 2021, Table 4](references.md) [Li and Liang, 2021](../references.md#a) "
             "[LoRA Without Regret, Thinking Machines, 2025](references.md) Hu et al. (2021) "
             "[Hu et al., 2021; Li and Liang, 2021](references.md) (He et al., 2110.04366)")
    assert strange_citations(right, known) == []
    for wrong in ("[Hugo et al., 2021](references.md)", "[Hu et al., 2019](references.md)",
                  "[Hu, 2021](references.md)", "[Li et al., 2021](references.md)",
                  "[Hu et al., 2021; Li and Wang, 2021](references.md)", "Hu et al. (2020)",
                  "(Li and Wang, 2021)", "[LoRA, 2025](references.md)"):
        assert len(strange_citations(wrong, known)) == 1, wrong


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_take_actions_and_packages_by_hash_and_rights_by_job(path):
    text = path.read_text("utf-8")
    used = re.findall(r"uses: (?!\./)(\S+)", text)
    assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []
    assert [line for line in re.findall(r".*pip install.*", text) if "--require-hashes" not in line
            ] == []
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():  # who may write runs nobody's packages
        if "write" in job.get("permissions", {}).values():
            assert not re.search(r"make |python|pip|checkout", json.dumps(job)), job


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_others_start_cancels_nothing_before_it_is_asked_whose_it_is(path):
    """A group of concurrency above the jobs counts before any job's `if`."""
    flow = yaml.safe_load(path.read_text("utf-8"))
    if "workflow_run" in flow[True]:  # YAML's reading of `on`
        assert "concurrency" not in flow
        for job in flow["jobs"].values():
            assert "concurrency" not in job or "if" in job


def test_only_the_tip_of_main_is_published(tmp_path):
    jobs = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text("utf-8"))["jobs"]
    assert "push" in jobs["before"]["if"] and "success" in jobs["before"]["if"]
    assert jobs["after"]["needs"] == "build"
    writers = {name for name, job in jobs.items() if "permissions" in job}
    assert writers == {"deploy", "colab"}
    for name, asked in (("build", "before"), *((name, "after") for name in writers)):
        job = jobs[name]
        assert (job["needs"], job["if"]) == (asked, f"needs.{asked}.outputs.newest == 'true'")
    gh, out = tmp_path / "gh", tmp_path / "out"
    gh.write_bytes(b"#!/bin/sh\necho 1234\n")
    gh.chmod(0o755)
    for asked in ("before", "after"):
        [step] = jobs[asked]["steps"]
        assert jobs[asked]["outputs"] == {"newest": "${{ steps.tip.outputs.newest }}"}
        assert step["env"]["TESTED"] == "${{ github.event.workflow_run.head_sha }}"
        for tested, newest in (("1234", "true"), ("12", "false")):
            out.unlink(missing_ok=True)
            subprocess.run(["bash", "-e", "-c", step["run"]], check=True, env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}", "TESTED": tested,
                "GITHUB_REPOSITORY": "a/b", "GITHUB_OUTPUT": str(out)})
            assert out.read_text() == f"newest={newest}\n"


IMAGE = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}")
#: The only names of images that are no constants: what test.yml has read in .ci/Dockerfile.
READ = {"${{ matrix.image }}", "${{ fromJSON(needs.images.outputs.names) }}"}


def images(flow):
    """Every image that a workflow, or a file that is written for Docker, would run."""
    if isinstance(flow, dict):
        for key, value in flow.items():
            if key in ("image", "container") and not isinstance(value, dict):
                yield from value if isinstance(value, list) else [value]
            elif key == "uses" and str(value).startswith("docker://"):
                yield value.removeprefix("docker://")
            elif key == "run":  # the options of `docker run` may stand before the image's name
                yield from re.findall(r"\b(?:docker|podman) (?:run|pull)\b.*", value)
            else:
                yield from images(value)
    elif isinstance(flow, list):
        for value in flow:
            yield from images(value)


def images_of(path):
    text = path.read_text("utf-8")
    if path.suffix in (".yml", ".yaml"):
        return [*images(yaml.safe_load(text))]
    return re.findall(r"^FROM (.*)", text, re.MULTILINE) + re.findall(
        r"\b(?:docker|podman) (?:run|pull)\b.*", text)


def without_digest(path):
    return [image for image in images_of(path)
            if not IMAGE.fullmatch(str(image)) and image not in READ]


def test_images_are_taken_by_hash(tmp_path):
    asked = {path: images_of(path) for path in [*WORKFLOWS, *(ROOT / ".ci").iterdir()]}
    assert {image.partition(":")[0] for image in asked[ROOT / ".ci/Dockerfile"]} == {"python"}
    assert [*filter(None, map(without_digest, asked))] == []
    bad = tmp_path / "x.yml"
    for how in ("container: python:3.11", "container: {image: python}", "container: '${{ x }}'",
                "services: {a: {image: redis}}", "steps: [{uses: docker://alpine:3}]",
                "steps: [{run: docker run --rm alpine}]", "strategy: {matrix: {image: [a, b]}}"):
        bad.write_text(f"jobs: {{a: {{{how}}}}}")
        assert without_digest(bad), how
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:3.11")
    assert without_digest(bad)


def test_the_images_have_each_python_that_the_book_promises():
    import matrix

    found = re.findall(r"^FROM python:(3\.\d+)-", (ROOT / ".ci/Dockerfile").read_text("utf-8"),
                       re.MULTILINE)
    assert [f"python{version}" for version in found] == [*matrix.PYTHONS]


def test_what_ci_installs_has_a_hash():
    """Line by line: pip in `make` and in .ci/run. Debian signs what apt-get fetches."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    asked = re.findall(r".*\binstall\b .*", makefile + (ROOT / ".ci/run").read_text("utf-8"))
    asked = [line for line in asked if not re.search(r"apt-get|pre-commit|##", line)]
    # PyTorch's own file is compared with the lock before pip may open it; see there.
    torch = "\t$(ORACLE)/bin/python $(PIP) install --no-deps $(ORACLE)/torch/*.whl"
    assert torch in asked and makefile.index("| grep -qFf - requirements-oracle.lock"
                                             ) < makefile.index(torch)
    assert [line for line in asked if "--require-hashes" not in line] == [torch]
    assert not re.search(r"curl|wget|npx|npm |pipx|uv ", makefile.replace("(needs npm)", ""))


def test_a_bot_moves_the_hashes():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text("utf-8"))["updates"]
    moved = {entry["package-ecosystem"]: entry for entry in updates}
    assert {*moved} >= {"github-actions", "pip", "docker"}
    assert moved["docker"]["directory"] == "/.ci"  # it looks into no workflow for images


def carried():
    """Everything from others that the built site carries, by the lists that it is built from."""
    from lite import build as lite

    found = {*json.loads(vendor.MANIFEST.read_text("utf-8")), *lite.CARRIED}
    found |= {*json.loads((lite.HERE / "pyodide-lock.json").read_text("utf-8"))["packages"]}
    found |= set(re.findall(r"^([\w.-]+)==", (lite.HERE / "wheels.txt").read_text("utf-8"),
                            re.MULTILINE))
    for folder in (ROOT / ".venv/share/jupyter/labextensions").rglob("package.json"):
        found.add(json.loads(folder.read_text("utf-8"))["name"])
    return found


def named_licences():
    """What the page on licences names, in the first cells of its tables."""
    text = (ROOT / "book/licences.md").read_text("utf-8")
    return {name for cell in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
            for name in re.findall(r"[@\w][\w./-]*", cell)}


def test_the_page_on_licences_names_all_that_the_site_carries():
    assert sorted(carried() - named_licences()) == []


def pairs_in(folder):
    """(where, text) of every licence that lies in a built book, looked for in a way of our own."""
    for path in folder.rglob("*"):
        if path.name == "third-party-licenses.json":
            for entry in json.loads(path.read_text("utf-8"))["packages"]:
                yield f"{path.parent.name}: {entry['name']}", entry["extractedText"]
        elif path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}: {name}", archive.read(name).decode())
                            for name in archive.namelist() if "LICENSE" in name)
        elif "LICENSE" in path.name:
            yield path.name, path.read_text("utf-8")


def words(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def shown(html):
    """(names, text) of each licence that the built page on licences leads to."""
    page = html / licences.PAGE
    found = BeautifulSoup(page.read_text("utf-8"), "html.parser").select("#licence-texts li")
    return [(words(block.get_text(" ")), words((page.parent / block.a["href"]).read_text(
        "utf-8-sig"))) for block in found]


def test_the_page_on_licences_leads_to_the_text_of_all_that_lies_in_the_site(html, shown):
    there, found = [*pairs_in(html)], {text for _, text in shown}
    assert len(there) > 25
    assert [where for where, text in there if words(text) not in found | {""}] == []


def test_the_page_on_licences_leads_to_a_text_for_each_name_in_its_tables(html, shown):
    names = " ".join(names for names, _ in shown).replace(",", " ").split()
    page = (ROOT / "book/licences.md").read_text("utf-8")
    if not (html / "lite").exists():
        page = page.partition("## JupyterLite")[0]
    rows = [row[1] for row in re.finditer(r"^\| ([^|]+) \|", page, re.MULTILINE)
            if row[1] not in ("What", "sqlite3")]  # that is public domain
    assert len(rows) > 7
    lacking = [row for row in rows if not {name.replace("-", "_").lower() for name in names} & {
        word.strip(",:").replace("-", "_").lower() for word in row.split()}]
    assert lacking == []


def test_a_licence_without_a_text_fails_the_build(tmp_path):
    write = tmp_path / "x" / "third-party-licenses.json"
    write.parent.mkdir()
    entry = {"name": "left-pad", "versionInfo": "1", "licenseId": "WTFPL", "extractedText": ""}
    write.write_text(json.dumps({"packages": [entry]}))
    with pytest.raises(FileNotFoundError, match="WTFPL"):
        licences.texts(tmp_path)
    write.write_text(json.dumps({"packages": [entry | {"licenseId": "MIT"}]}))
    text, = (text for text, names in licences.texts(tmp_path).items() if "left-pad 1" in names)
    assert "<year>" not in text and "without restriction" in text
    (tmp_path / "LICENSE").write_text(" \n")
    with pytest.raises(ValueError, match="LICENSE"):
        licences.texts(tmp_path)


def test_a_text_is_a_file_that_says_how_it_is_written_and_a_name_no_mark_of_the_page(tmp_path):
    page = tmp_path / licences.PAGE
    page.parent.mkdir()
    page.write_text(licences.PLACE)
    (tmp_path / "LICENSE.<b>").write_text("© <script>alert(1)</script>", "utf-8")
    licences.add(tmp_path)
    assert "<b>" not in page.read_text() and "&lt;b&gt;" in page.read_text()
    there, = {path.read_bytes() for path in (page.parent / licences.TEXTS).iterdir()
              if b"alert" in path.read_bytes()}
    assert there.decode("utf-8-sig") == "© <script>alert(1)</script>\n" != there.decode("utf-8")
    with pytest.raises(ValueError, match="licence-texts"):
        licences.add(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "vendor/licences").iterdir()), ids=str)
def test_the_usual_text_of_a_licence_has_no_gap(path):
    assert not re.search(r"<\w[\w ]*>", licences.standard(path.stem, "Copyright (c) A"))


def test_the_glossary_stands_in_the_order_of_the_alphabet():
    text = (ROOT / "book" / "glossary.md").read_text("utf-8").partition("```{glossary}")[2]
    terms = [term.partition(",")[0].lower() for term in re.findall(r"^[^\s`].*", text, re.M)]
    assert len(terms) > 80 and terms == sorted(terms)
