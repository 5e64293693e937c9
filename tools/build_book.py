"""Build the book into _build/html: run every notebook anew, then Jupyter Book, warnings as errors.

    python tools/build_book.py

A notebook is run again only when it, the code or the data that it can read, or the pinned packages
have changed since its last run; Jupyter's own cache knows nothing of imported modules. `make nbval`
counts as such a run: it keeps the outputs that it compares (keep_outputs.py), so `make test` runs a
notebook once, unless it has widgets, whose state nbval does not collect. Jupyter Book then builds
from a copy of the sources that holds the fresh outputs.

The pages are made in _build/pages, and take the place of _build/html when all of them are right: a
build that fails or is stopped leaves the last good book. A second build waits for the first, and
for Jupyter Book's own process if that is still there.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import licences
import lighten
import notebooks
import search_page
import tree
from book_extension import IN_BROWSER, branch, commit, repository_url
from content_policy import with_policy
from in_page import build as in_page
from lite import build as lite
from whole import alone, fresh, restore, run, said, write_whole

ROOT = notebooks.ROOT
BUILD = ROOT / "_build"
SOURCE = BUILD / "source"
EXECUTED = BUILD / "executed"
PAGES = BUILD / "pages"  # Jupyter Book's own folder; it puts its pages into _build/html there
MADE = PAGES / "_build" / "html"
HTML = BUILD / "html"
#: What any notebook's outputs can depend on.
SHARED = ["code/stage-09", "tools/probe.py", "constraints.txt"]
COPIED = ["_config.yml", "_toc.yml", "book", "code/stage-09", "tools/book_extension.py",
          "tools/lite", "tools/templates", "vendor"]


def files_below(name):
    """Files of the repository at or below a path, from its root; raises as tree.py says."""
    return tree.files_below(ROOT / name, ROOT)


def digest(parts):
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def shared_digest():
    """Hash of everything but the notebook that can change a notebook's outputs."""
    parts = [sys.version.encode()]
    for name in SHARED:
        for file in files_below(name):
            if "tests" not in file.parts:
                parts += [file.relative_to(ROOT).as_posix().encode(), file.read_bytes()]
    return digest(parts)


def source_of(path):
    """What of a notebook decides its outputs: cells and their metadata, not the outputs."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return json.dumps([[cell["cell_type"], cell["source"], cell["metadata"]] for cell in cells])


def stamp_of(path, shared):
    """Hash of all that decides a notebook's outputs."""
    return digest([shared.encode(), source_of(path).encode()])


def kept(path):
    """Where a notebook is kept with its fresh outputs, and the stamp that says of what state."""
    copy = EXECUTED / path.relative_to(ROOT)
    return copy, copy.with_suffix(".sha256")


def keep(path, notebook, stamp):
    """Keep a notebook that has just run. The stamp comes last, so it never vouches for less."""
    copy, stamp_file = kept(path)
    stamp_file.unlink(missing_ok=True)
    notebooks.write(notebook, copy)
    write_whole(stamp_file, stamp)


def execute():
    """Bring _build/executed up to date and return how many notebooks had to run."""
    shared = shared_digest()
    stamps, stale = {}, []
    for path in notebooks.book_notebooks():
        copy, stamp = kept(path)
        stamps[path] = stamp_of(path, shared)
        if not (copy.exists() and stamp.exists() and stamp.read_text() == stamps[path]):
            stale.append(path)

    os.environ["PEFT_RECORDED"] = "1"  # see twins.py: the same commit gives the same pages
    print(f"==> Running notebooks: {len(stale)} of {len(stamps)} have changed", flush=True)
    if stale and notebooks.run_all(stale, lambda path, book: keep(path, book, stamps[path])):
        sys.exit("The book was not built: a notebook failed (see above).")
    return len(stale)


def copy_sources():
    """Make _build/source equal to the sources, outputs fresh; touch only files that differ.

    Returns whether a file changed that can alter every page (Sphinx would not notice all of these).
    """
    wanted = {}
    for name in COPIED:
        for file in files_below(name):
            relative = file.relative_to(ROOT)
            executed = EXECUTED / relative
            wanted[relative] = executed if file.suffix == ".ipynb" else file
    everywhere = False
    for relative, file in wanted.items():
        target = SOURCE / relative
        if not target.exists() or target.read_bytes() != file.read_bytes():
            write_whole(target, file.read_bytes())
            everywhere |= relative.parts[0] in {"_config.yml", "_toc.yml", "vendor"}
    for target in [path for path in SOURCE.rglob("*") if path.is_file()]:
        if target.relative_to(SOURCE) not in wanted:
            target.unlink()
    return everywhere


def settings_digest():
    """Hash of what else decides every page: this folder's code, and where the book is published."""
    tools = [file.read_bytes() for file in files_below("tools")]
    url = repository_url()
    said = [url, url and [branch(), commit()], os.environ.get(IN_BROWSER)]  # no address, no links
    return digest([*tools, str(said).encode()])


def build_lite():
    """Python for the browser, unless its parts cannot be had: then the book is built without."""
    try:
        lite.build()
    except lite.Unavailable as reason:
        print("The book is built without Python in the browser, whose files could not be fetched "
              f"({reason}). With a network, `make book` adds it.", flush=True)
        return False
    return True


def place_lite(folder):
    """_build/lite at its place below the pages, as links to the same files where they can be."""
    try:
        shutil.copytree(lite.LITE, folder / "lite", copy_function=os.link)
    except (OSError, shutil.Error):  # a file system without hard links
        shutil.rmtree(folder / "lite", ignore_errors=True)
        shutil.copytree(lite.LITE, folder / "lite")


def publish(runs_in_browser):
    """Let the pages that are made take the place of the last good ones."""
    with fresh(HTML) as new:
        shutil.copytree(MADE, new)
        if runs_in_browser:
            place_lite(new)
            in_page.add(new)
        licences.add(new)
        search_page.add(new)
        lighten.lighten(new)
        first = new / "index.html"  # Jupyter Book has just written it; leads to book/index.html
        write_whole(first, with_policy('<meta charset="utf-8">\n' + first.read_text("utf-8")))


def make_pages():
    """Jupyter Book's part: the pages in MADE, or an end with what is wrong."""
    print("==> Building pages (warnings are errors)", flush=True)
    paths = [str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]  # the extension's own modules
    made = run(
        [Path(sys.executable).with_name("jupyter-book"), "build", SOURCE, "--path-output", PAGES,
         "-W", "-n", "--keep-going", "--quiet"], cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))})
    if made.returncode or not (MADE / "index.html").exists():
        forget()  # or the next build would skip the pages that it has, and their warnings
        last = "; the last good one is still there" if HTML.exists() else ""
        sys.exit(f"The book was not built{last}. It has faults: every line above that says WARNING "
                 "or ERROR is one.")


def build():
    """Everything that main() holds the lock for."""
    restore(HTML)
    execute()
    runs_in_browser = build_lite()
    os.environ[IN_BROWSER] = "yes" if runs_in_browser else "no"
    everywhere = copy_sources()
    stamp = PAGES / "settings.sha256"
    settings = settings_digest()
    if everywhere or not stamp.exists() or stamp.read_text() != settings:
        forget()
    make_pages()
    write_whole(stamp, settings)
    lighten.lighten_figures(MADE)
    publish(runs_in_browser)


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: at once, not after the cells that run
    with alone(BUILD / "lock", "builds this book"), said("The book", HTML):
        build()
    print(f"\nThe book is built. Open it in any browser, no server or network needed:\n"
          f"    {(HTML / 'index.html').as_uri()}\n"
          f"or serve it on http://localhost:8000 with `make serve`, which notebooks in the browser "
          f"need.")


def forget():
    """Drop the pages that are being made, so that this build or the next makes every page anew."""
    shutil.rmtree(PAGES, ignore_errors=True)


if __name__ == "__main__":
    main()
