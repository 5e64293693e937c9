"""Check spelling and style of everything that a reader reads.

    python tools/prose.py [FILE …]      all of the book's pages, its README files and code if none

Codespell finds common misspellings, in the prose and in the code's comments; tools/words.txt holds
words that are right here although it knows them as slips. Proselint and the check for a word
written twice read the prose only: pages and the text cells of notebooks, without code and formulas.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from whole import write_whole

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "tools" / "words.txt"
BIN = Path(sys.executable).parent
#: Proselint's checks that do not fit this book.
OFF = {
    "typography": "quotes and ellipses are typed plainly; Sphinx sets them",
    "lexical_illusions": "it takes a heading and the first word below it for one sentence",
    "weasel_words": "it forbids the word very",
}
#: Findings that are right here, by a part of their message, each with its reason.
ACCEPTED = {
    "'for ever'": "British spelling",
    "'first of all'": "9.7 means first among all",
    "'ask the question'": "9.1 has several questions and names one",
    "'on the spot' is a": "meant literally: where the check stands",
}
#: What is not prose: fenced code, directives' options, formulas, code, addresses, HTML.
NOT_PROSE = re.compile(
    r"^(```|~~~).*?^\1\s*$|\$\$.*?\$\$|<!--.*?-->|^:[\w-]+:.*?$|^\([\w-]+\)=$"
    r"|`[^`\n]*`|\$[^$\n]+\$|\]\([^)]*\)|\{[\w:-]+\}|<[^>\n]*>",
    re.DOTALL | re.MULTILINE)
TWICE = re.compile(r"\b([A-Za-z]{2,}) +\1\b", re.IGNORECASE)
RIGHT_TWICE = {"that", "had"}  # "that that is so"


def prose_of(path):
    """A page's text, code and formulas left out, every line where it stands in the file or cells.

    An admonition's fence is no code: its text is kept.
    """
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells
                           if cell["cell_type"] == "markdown")
    else:
        text = path.read_text("utf-8")
    opening = r"^(`{3,}|:{3,})\{(?!code|figure|bibliography|list-table|math)[\w-]+\}"
    kept, admonitions = re.subn(opening, "", text, flags=re.MULTILINE)
    if kept != text:  # the closing fences of those admonitions
        kept = drop_lone_fences(kept, admonitions)
    return NOT_PROSE.sub(lambda found: "\n" * found[0].count("\n") or " x ", kept)


def drop_lone_fences(text, closing):
    """Take out the first `closing` fences that close what is no longer open."""
    lines, opened = [], None
    for line in text.split("\n"):
        fence = re.match(r"(`{3,}|~{3,})(.*)", line)
        if fence and opened is None and not fence[2].strip() and closing:
            line, closing = "", closing - 1
        elif fence and opened is None:
            opened = fence[1]
        elif fence and fence[1] == opened and not fence[2].strip():
            opened = None
        lines.append(line)
    return "\n".join(lines)


def pages():
    found = [path for pattern in ("*.ipynb", "*.md") for path in (ROOT / "book").rglob(pattern)
             if ".ipynb_checkpoints" not in path.parts]
    return sorted(found) + [ROOT / name for name in (
        "README.md", "CONTRIBUTING.md", "code/stage-09/README.md", "vendor/README.md")]


def code():
    """Code, whose comments and messages are spelled, too; names and recorded data are not prose."""
    found = [path for folder in ("code/stage-09", "tools", "tests", "benchmarks")
             for pattern in ("*.py", "*.js", "*.css", "*.html")
             for path in (ROOT / folder).rglob(pattern)
             if "__pycache__" not in path.parts and path.name != "test_prose.py"]  # full of slips
    return sorted(found) + [ROOT / "Makefile", *sorted((ROOT / "book/_static").glob("*"))]


def problems(prose, code_files=()):
    """One line for each slip, in prose and in the code's words."""
    with tempfile.TemporaryDirectory() as name:
        folder, origin = Path(name), {}
        for number, path in enumerate(prose):
            copy = folder / f"{number:03}.md"
            write_whole(copy, prose_of(path))
            origin[copy.name] = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            for found in TWICE.finditer(copy.read_text("utf-8")):
                if found[1].lower() not in RIGHT_TWICE:
                    yield f"{origin[copy.name]}: “{found[0]}”: a word written twice"
        spelled = subprocess.run(
            [BIN / "codespell", "--ignore-words", WORDS, folder, *code_files],
            capture_output=True, text=True, check=False)
        for line in spelled.stdout.splitlines():
            yield re.sub(rf"^{re.escape(name)}/(\S+?):", lambda m: f"{origin[m[1]]}: line ", line)
        if spelled.returncode and not spelled.stdout:
            yield f"codespell failed: {spelled.stderr.strip()}"
        styled = subprocess.run(
            [BIN / "proselint", "check", "--output-format", "compact", folder],
            capture_output=True, text=True, check=False)
        if styled.returncode and not styled.stdout:
            yield f"proselint failed: {styled.stderr.strip()}"
        for line in styled.stdout.splitlines():
            found = re.match(r".*?(\d{3}\.md):(\d+):(\d+): ([\w.]+): (.*)", line)
            if found and found[4].split(".")[0] not in OFF and not any(
                    part in found[5] for part in ACCEPTED):
                yield f"{origin[found[1]]}: line {found[2]} of its text: {found[4]}: {found[5]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = [path.resolve() for path in parser.parse_args().files]
    prose = files or pages()
    found = list(problems(prose, [] if files else code()))
    if found:
        sys.exit("\n".join(found))
    print(f"prose: {len(prose)} pages, no slip found")


if __name__ == "__main__":
    main()
