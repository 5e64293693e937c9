"""The documented commands: each is run by a test or by CI, or a table says why by neither.

They are all that stands in code blocks of the READMEs, the pages and the notebooks' text, and in
the first words of the tools.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys

import notebooks
import pytest
from conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "vendor/README.md",
             ROOT / "code/stage-09/README.md", *sorted((ROOT / "docs").rglob("*.md")),
             *sorted((ROOT / "benchmarks").rglob("*.md")),
             *sorted((ROOT / "book").rglob("*.md")), *notebooks.book_notebooks()]
SCRIPTS = [path for folder in ("tools", "benchmarks", "code/stage-09")
           for path in sorted((ROOT / folder).rglob("*.py")) if "tests" not in path.parts]
SHELL = ("bash", "sh", "shell", "console", "")
#: How a command starts in a block that names no language, or that is only indented.
STARTS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:make|cd|git|pip|curl|export|python3?|[\w./-]*/python|"
                    r"torchrun|hf) ")


def texts(path):
    """The Markdown of a document, cell by cell; of a script its own first words."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return [ast.get_docstring(ast.parse(text)) or ""]
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"]
                if cell["cell_type"] == "markdown"]
    return [text]


def blocks(text):
    """The lines of each code block that a shell could read, fenced or indented."""
    opened, block = [], []  # fences that are open: their marks, their language
    for line in [*text.splitlines(), ""]:
        fence = re.fullmatch(r"\s*(`{3,}|~{3,}|:{3,})(.*)", line)
        if fence and opened and fence[1].startswith(opened[-1][0]) and not fence[2].strip():
            yield block
            block = []
            opened.pop()
        elif fence and not (opened and not opened[-1][1].startswith("{")):
            opened.append((fence[1], fence[2].strip()))
        elif opened and opened[-1][1] in SHELL[:-1]:
            block.append(line.strip())
        elif opened and not opened[-1][1] and (block or STARTS.match(line.strip() + " ")):
            block.append(line.strip())
        elif not opened and line.startswith("    ") and (
                STARTS.match(line.strip() + " ") or block and block[-1].endswith("\\")):
            block.append(re.split(r"\s{2,}", line.strip())[0])
    yield block


def commands_in(text):
    """Each command as it stands there, without its remark, continued lines as one."""
    for block in blocks(text):
        whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(block))
        folder = ""
        for line in whole.splitlines():
            for command in re.sub(r"(?:^|\s+)#.*", "", line).split(" && "):
                command = command.strip()
                if match := re.fullmatch(r"cd (\S+)", command):
                    folder = f"cd {match[1]} && "
                elif command:
                    yield folder + command


def documented():
    found = {}
    for path in [*DOCUMENTS, *SCRIPTS]:
        for text in texts(path):
            for command in commands_in(text):
                found.setdefault(command, path.relative_to(ROOT).as_posix())
    return found


# ---------------------------------------------------------------------------- who runs each of them

#: By the start of the command: what runs it. A test's name must exist; any other file must hold
#: these very words, or those behind the colon.
RUN = {
    "make book": ".github/workflows/pages.yml", "make test": ".ci/run", "make oracle": ".ci/run",
    "make smollm2": ".ci/run", "make env": ".github/workflows/weekly.yml",
    "make matrix": ".github/workflows/weekly.yml",
    "python peft.py":
        "code/stage-09/tests/test_peft.py::test_demo_prints_the_block_of_section_9_6",
    "python -m real_models.smollm2":
        "code/stage-09/tests/real_models/test_smollm2.py::"
        "test_logits_and_greedy_tokens_are_theirs",
    "torchrun": "code/stage-09/tests/real_models/test_distributed.py::test_many_processes_are_one",
    ".venv-oracle/bin/python code/stage-09/real_models/huggingface/train_peft.py":
        "code/stage-09/tests/real_models/test_twins.py::test_peft_says_today_what_was_recorded",
    ".venv-oracle/bin/python code/stage-09/tests/oracle/make_accounting_fixtures.py":
        "code/stage-09/tests/real_models/test_accounting.py::test_the_fixture_can_be_made_again",
    "python -m real_models.twins":
        "code/stage-09/tests/real_models/test_twins.py::"
        "test_the_recorded_answers_fit_what_numpy_does_here",
    "python -m experiments.small_llama run":
        "code/stage-09/tests/experiments/test_run_records.py::"
        "test_the_small_runner_records_spectra_once_and_leaves_others_jobs",
    "python tools/build_book.py": "Makefile:tools/build_book.py",
    "python tools/colab.py": "Makefile:tools/colab.py",
    "python tools/zip_book.py": "Makefile:tools/zip_book.py",
    "python tools/pdf.py": "Makefile:tools/pdf.py",
    "python -m experiments.family run":
        "code/stage-09/tests/experiments/test_family_runs.py::"
        "test_the_runner_resumes_and_runs_nothing_twice",
    "python -m experiments.faults run":
        "code/stage-09/tests/experiments/test_faults.py::"
        "test_the_runner_resumes_and_records_each_case_once",
    **{f"python data/{name}/make_{name}.py": "code/stage-09/tests/experiments/test_tasks.py::"
       "test_the_script_makes_the_data_again" for name in ("orders", "desks")},
    "python -m experiments.family claims": "Makefile:experiments.family claims",
    "python -m experiments.family_speaking claims": "Makefile:experiments.family_speaking claims",
    "python tools/links.py --outside": ".github/workflows/weekly.yml:make links",
    "python tools/links.py": "Makefile:tools/links.py",
    "python tools/prose.py": "Makefile:tools/prose.py",
    "python tools/in_page/build.py": "tools/build_book.py:in_page.add(",
    "python tools/lite/build.py": "tools/build_book.py:lite.build()",
    "python tools/mark.py": "tests/test_commands.py::test_the_mark_and_the_card_are_made_again",
    "python tools/matrix.py": ".github/workflows/weekly.yml:make matrix",
    "python tools/notebooks.py":
        "tests/test_tools.py::test_a_stopped_run_leaves_no_process_and_ends_its_pipe",
    "python tools/notebooks.py --check": "Makefile:tools/notebooks.py --check",
    "python tools/probe.py": "tests/test_verified.py::test_numbers_here_are_the_recorded_ones",
    "python tools/constraints.py --check": "Makefile:tools/constraints.py --check",
    "python tools/vendor.py --check": "Makefile:tools/vendor.py --check",
    "python -m pytest": "Makefile:-m pytest",
}
#: What nothing runs as it stands, by the start of the command, and why.
LEFT = {
    "make hooks": "changes this clone's git; what the hooks run is what `make lint` runs",
    "make vendor": "npm and a network; a test stubs what is fetched",
    "python tools/vendor.py": "likewise",
    "make lab": "opens a browser and stays",
    "make pretrain": "rewrites committed data", "python -m experiments.pretrain": "likewise",
    "make experiments": "over an hour", "make replicate": "half an hour or more",
    "python -m experiments.replicate": "half an hour",
    "python -m experiments.small_llama timing": "times are a quiet machine's, and are committed",
    "python -m experiments.small_llama table": "rewrites a committed table",
    "python -m experiments.smollm2": "hours, or the record's own table",
    "python -m experiments.family_speaking": "likewise",
    "python -m exercises.ex6_qlora.speaking": "an hour",
    "python -m exercises.stretch_goals": "half an hour",
    "python -m experiments.family table": "prints what is committed",
    "python -m experiments.update": "rewrites committed data",
    "vllm serve": "a card and a package that we do not have", "curl": "asks what vllm serves",
    ".venv/bin/hf download": "a gigabyte, and a network; tests use a download of our own making",
    "otter": "another's grader, in another environment; harness/outside.py has tests of its own",
    "export": "a path of the teacher's",
    "python tools/constraints.py": "asks the package index for every package",
    "python tools/mutants.py": "an hour",
    "python tools/touched.py": "this very suite",
    "make bench": "times are a quiet machine's, and are committed",
    "python benchmarks/": "times are a quiet machine's, and are committed",
    "/tmp/": "another's package, whose answers are committed with their licence",
    "python -m venv": "likewise",
}


def plain(command):
    """The command with what a reader fills in, brackets gone, and one name for each Python."""
    command = re.sub(r"[\[\]…]|\bFILE\b", "", command)
    if "pytest" in command or "NAME" in command:
        command = re.sub(r"(ex|sol)9", r"\g<1>2", command).replace("NAME", "lora-dropout")
    return " ".join(command.split())


def short(command):
    """The command without the folder and the variables in front of it, and with a bare `python`."""
    command = re.sub(r"^(?:cd \S+ && )?(?:[A-Z_]+=\S+ )*", "", plain(command))
    return re.sub(r"^(?:\.\./)*\.venv/bin/python", "python", command)


def owner(command, table):
    """The longest start in the table that the command has; "" if there is none."""
    found = [start for start in table
             if short(command).startswith(start) or plain(command).startswith(start)]
    return max(found, key=len, default="")


COMMANDS = documented()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_run_or_a_reason_is_given(command):
    run, left = owner(command, RUN), owner(command, LEFT)
    assert run or left, f"{COMMANDS[command]} has a command that no table here names"
    if len(run) < len(left):
        return
    file, marks, words = RUN[run].partition("::")
    file, _, text = file.partition(":") if not marks else (file, "", f"def {words}(")
    assert (text or run) in (ROOT / file).read_text("utf-8")


def test_the_tables_name_no_command_that_is_gone():
    used = {owner(command, table) for command in COMMANDS for table in (RUN, LEFT)}
    assert sorted({*RUN, *LEFT} - used) == []


def cheap(command):
    """What asks a command without doing its work, and from where; None if nothing does."""
    words, folder = shlex.split(short(command)), ROOT
    if match := re.match(r"cd (\S+) && ", command):
        folder /= match[1]
    if words[0] == "make":
        return ["make", "--dry-run", *words[1:]], folder
    if words[0] != "python" or {"pytest", "venv"} & {*words}:
        return None
    if words[1] == "-m":
        folder = ROOT / "code/stage-09"
        script = folder / f"{words[2].replace('.', '/')}.py"
    else:
        script = folder / words[1]
        if not script.exists():
            script = ROOT / "code/stage-09" / words[1]
    if "argparse" in script.read_text("utf-8"):
        given = [word for word in words[3 if words[1] == "-m" else 2:]
                 if re.fullmatch("[a-z]+", word)][:1]  # a subcommand has a help of its own
        subcommand = given if "add_subparsers" in script.read_text("utf-8") else []
        return [sys.executable, *(words[1:3] if words[1] == "-m" else [script]), *subcommand,
                "--help"], folder
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2])"
    return [sys.executable, "-c", code, script.parent, script], folder


def asked():
    """The commands by what asks them: from which folder, with which path, which words."""
    found = {}
    for command in COMMANDS:
        if made := cheap(command):
            path = re.search(r"(?<!\S)PYTHONPATH=(\S+)", command)
            key = made[1], path[1] if path else None, *map(str, made[0])
            found.setdefault(key, []).append(command)
    return found


@pytest.mark.parametrize(("ask", "commands"), asked().items(), ids=lambda x: str(x[0])[-60:])
def test_a_documented_command_starts_and_knows_its_options(ask, commands):
    """`make` finds every rule, and a script its modules, with nothing on the path."""
    folder, path, *words = ask
    env = {name: value for name, value in os.environ.items()
           if name not in ("PYTHONPATH", "MAKEFLAGS", "PYTEST_ADDOPTS")}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True,
                          env=env | ({"PYTHONPATH": path} if path else {}))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if words[-1] == "--help":
        options = {option for command in commands for option in re.findall(r"--[a-z-]+", command)}
        assert [option for option in options if option not in done.stdout] == []


@pytest.mark.parametrize("command", [command for command in COMMANDS if "-m pytest" in command])
def test_a_documented_pytest_command_has_tests_to_run(command):
    words = shlex.split(short(command))[3:]
    paths = [word for word in words if word.startswith(("tests", "code/", "book/"))]
    assert paths or "--nbval" in words
    assert [path for path in paths if not (ROOT / path).exists()] == []
    # Each folder has a conftest.py, and one run of pytest has room for one module of that name.
    assert len({path.startswith("tests") for path in paths}) == 1
    for word in re.findall(r"\w+", words[words.index("-k") + 1]) if "-k" in words else []:
        assert word == "or" or any([*(ROOT / folder).rglob(f"*{word}[-_.]*")]
                                   for folder in ("book", "tests", "code")), word


def test_makes_python_reads_and_names_files_as_utf8_in_any_locale(tmp_path):
    probe = tmp_path / "probe.mk"
    probe.write_text("probe:\n\t@$(PYTHON) -c 'import sys; print(sys.getfilesystemencoding())'\n")
    said = subprocess.run(
        ["make", "-s", "-f", ROOT / "Makefile", "-f", probe, "probe", f"PYTHON={sys.executable}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert said.stdout.strip() == "utf-8"


def test_the_mark_and_the_card_are_made_again(tmp_path, monkeypatch):
    import mark

    monkeypatch.setattr(mark, "STATIC", tmp_path)
    mark.main()
    assert (tmp_path / "mark.svg").read_bytes() == (ROOT / "book/_static/mark.svg").read_bytes()
    assert (tmp_path / "card.png").stat().st_size > 1000


@pytest.mark.parametrize(("text", "expected"), [
    ("```bash\nmake a  # why\nb \\\n  --c\n```", ["make a", "b --c"]),
    ("````{tip}\n```\ncd x\npython y.py\n```\n````", ["cd x && python y.py"]),
    ("```python\nmake a\n```\n\n    make b       then see", ["make b"]),
    ("```\nno command\n```", []), ("```bash\nmake a && make b\n```", ["make a", "make b"])])
def test_commands_are_found(text, expected):
    assert [*commands_in(text)] == expected
