"""Python in the page: let the cells of a built book be edited and run where they stand.

    PYTHONPATH=tools python tools/in_page/build.py FOLDER      a built book, with lite/ in it

Each notebook's page gets a small script (start.js) that puts a button below every cell; all else
is loaded at the first click. The Python is the one that lite/ carries. It runs in a worker, so a
server needs no special headers, and an address in a classroom no certificate.
"""

import ast
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

from content_policy import with_policy
from lite import build as lite
from lite.archive import archive
from whole import alone, write_whole

HERE = Path(__file__).resolve().parent
PLACE = "in-page"  # the folder in the built book
TAGS = re.compile(rf'<link[^>]* href="[./]*{PLACE}/[^>]*>\n'
                  rf'<script src="[./]*{PLACE}/[^>]*></script>\n')
SCRIPTS = ("start.js", "cells.js", "editor.js", "completion.js", "text-box.js", "outputs.js",
           "python.js", "bounds.js", "worker.js", "in-page.css")
#: What is loaded before anybody asks: on pages with cells, and, of the book's own, on every page.
EARLY, EVERYWHERE = ("start.js", "in-page.css"), ("launch.js", "progress.js")
#: CodeMirror as the scripts here import it; a built book has it beside this folder, see below.
CODEMIRROR = "../../vendor/editor/codemirror.js"
#: The part of the exercises' page that says what an entry of the progress is.
DAYS = re.compile(r"// From here [^\n]*\n(.*\bfunction days\(.*)// To here", re.DOTALL)
#: What a cell says that checks an exercise, and which of its steps; without one it is all of them.
CHECK, STEP = re.compile(r"\bchecks\.check_\w+\("), re.compile(r"\bstep=(\d+)\)")
ROOM = ('<script>document.documentElement.toggleAttribute("data-served", '
        'location.protocol !== "file:");</script>\n')
PLAYGROUND = "book/playground"  # the page on which book_pages/playground.py trains
#: Folders of the course's code whose names a reader does not call.
BESIDE = {"book_pages", "data", "exercises", "experiments", "huggingface", "tests"}
HOME = "/home/pyodide"  # Python's, in a page
#: The worker's own modules, in the archive beside the course's code.
READER = {"in-page/reader.py": HERE / "reader.py",
          "in-page/imports.py": lite.HERE / "imports.py"}


def notebooks():
    """The notebooks that run in a browser, by their path from the root."""
    return {name: path for path in lite.book_files() if path.suffix == ".ipynb"
            and lite.runs_in_browser(name := path.relative_to(lite.ROOT).as_posix())}


def code_archive():
    """What a cell can read, as one file, the same bytes for the same files."""
    files = READER | {path.relative_to(lite.ROOT).as_posix(): path for path in lite.code_files()}
    files |= lite.stand_in()
    return archive({f"{HOME}/{name}": path.read_bytes() for name, path in sorted(files.items())})


def course_names():
    """What the editor offers of the course's modules: the kind of each public name of each."""
    kinds = {ast.ClassDef: "class", ast.FunctionDef: "function"}
    found, root = {}, lite.ROOT / lite.CODE
    for path in lite.code_files():
        if path.suffix == ".py" and root in path.parents:
            module = path.relative_to(root).with_suffix("")
            names = {node.name: kinds[type(node)] for node in
                     ast.parse(path.read_text("utf-8")).body
                     if type(node) in kinds and not node.name.startswith("_")}
            if names and not {*module.parts} & BESIDE:
                found[".".join(module.parts)] = names
    return found


def script(name, start=None):
    """One of the page's scripts, with the addresses that files have in a built book.

    They are CodeMirror's and, where `start` is that file, what Python starts from. An address names
    the file's content, so that no browser takes another edition's.
    """
    content = (HERE / name).read_text("utf-8")
    codemirror = f"../../editor/codemirror.js?{edition(HERE / CODEMIRROR)}"
    content = content.replace(CODEMIRROR, codemirror)
    if start:
        content = content.replace(f'"{lite.START}"', f'"{lite.START}?{edition(start)}"')
    return content.encode()


def edition(path):
    """A few digits that name a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def before_a_click(folder):
    """The files of a built book that a page loads for Python in the page though nobody runs it."""
    [place] = (folder / PLACE).iterdir()
    return ([place / name for name in EARLY]
            + [folder / "_static" / name for name in EVERYWHERE])


def cells_of(path):
    """What the page must know of the code cells: their text, also where it shows none."""
    found = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            known = {"source": "".join(cell["source"])}
            if "raises-exception" in cell["metadata"].get("tags", []):
                known["raises"] = True
            if CHECK.search(known["source"]):
                step = STEP.search(known["source"])
                known["check"] = f"Check step {step[1]}" if step else "Check all steps"
            texts = ["".join(output.get("data", {}).get("text/markdown", ""))
                     for output in cell["outputs"]]
            if any(texts):  # so that the page knows its own rendering of it, and keeps that
                known["markdown"] = list(filter(None, texts))
            found.append(known)
    return found


def with_start(text, name, cells, place):
    """The page with the script and the style sheet, and its policy made anew.

    Raises
    ------
    RuntimeError
        The page's cells are not the notebook's: a button would run another cell's code.
    """
    if (shown := text.count('<div class="cell ')) != len(cells):
        raise RuntimeError(f"{name} has {len(cells)} code cells and its page {shown}: does MyST-NB "
                           "mark them otherwise now?")
    up = "../" * name.count("/")
    checks = {number: cell["check"] for number, cell in enumerate(cells) if "check" in cell}
    named = f" data-checks='{json.dumps(checks)}'" * bool(checks)
    tags = (f'<link rel="stylesheet" href="{up}{place}/in-page.css" />\n'
            f'<script src="{up}{place}/start.js" data-notebook="{name}"{named} defer></script>\n')
    return with_policy(TAGS.sub("", text).replace("</head>", f"{tags}</head>", 1))


def playground():
    """The playground's files: front end, style, and what it knows before Python runs."""
    sys.path.insert(0, str(lite.ROOT / lite.CODE))
    from book_pages.widgets import explorer

    known = json.dumps(explorer.playground_settings())
    return {"playground.js": f"const KNOWN = {known};\n{explorer.front_end('playground')}".encode(),
            "playground.css": b"".join((explorer.FRONT_END / name).read_bytes()
                                       for name in ("widgets.css", "playground.css"))}


def days_module():
    """What filters the progress on the page of the exercises, for a page's Python, too."""
    text = (lite.ROOT / "book" / "_static" / "progress.js").read_text("utf-8")
    return f"{DAYS.search(text)[1]}\nexport {{ days }};\n".encode()


def with_playground(text, place):
    """The playground's page with its script and style sheet, and its policy made anew.

    From a server it begins with room for the playground, so that nothing moves when that comes.
    """
    tags = (f'<link rel="stylesheet" href="../{place}/playground.css" />\n'
            f'<script src="../{place}/start.js" data-module="playground.js" defer></script>\n')
    text = TAGS.sub("", text).replace(ROOM, "")
    return with_policy(text.replace("</head>", f"{ROOM}{tags}</head>", 1))


def add(folder):
    """Add Python in the page to a built book that has lite/; done twice, it is as done once.

    All of it lies in a folder that is named by what is in it: no browser mixes two editions. An
    earlier one goes last, so wherever this is stopped each page finds its own.
    """
    known = {name: cells_of(path) for name, path in notebooks().items()
             if (folder / name.replace(".ipynb", ".html")).exists()}  # else no contents name it
    start = folder / "lite" / "static" / "pyodide" / lite.START
    files = {name: script(name, start if start.exists() else None) for name in SCRIPTS}
    files |= {"code.bin": code_archive(), "names.json": json.dumps(course_names()).encode()}
    files |= playground() | {"days.js": days_module()}
    files |= {f"cells/{name.replace('.ipynb', '.json')}":
              json.dumps(cells, ensure_ascii=False).encode() for name, cells in known.items()}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(name.encode() + content)
    place = f"{PLACE}/{digest.hexdigest()[:12]}"
    for name, content in files.items():
        write_whole(folder / place / name, content)
    for name, cells in known.items():
        page = folder / name.replace(".ipynb", ".html")
        write_whole(page, with_start(page.read_text("utf-8"), name, cells, place))
    if (page := folder / f"{PLAYGROUND}.html").exists():
        write_whole(page, with_playground(page.read_text("utf-8"), place))
    for earlier in (folder / PLACE).iterdir():
        if earlier != folder / place:
            shutil.rmtree(earlier)


if __name__ == "__main__":
    book = Path(sys.argv[1])
    with alone(lite.ROOT / "_build" / "lock", "builds this book"):
        try:
            add(book)
        except OSError as error:
            sys.exit(f"Python was not added to every page of {book}, the others have that which "
                     f"they had: {error}")
