"""Pack the built book into one file that works offline: _build/peft-book.zip.

    python tools/zip_book.py

Pages open straight from the unpacked folder; Python in them needs a static file server, as
READ-ME-FIRST.txt says. The same pages give the same bytes: names in order, no times.
"""

import sys
import zipfile
from pathlib import Path

from whole import alone, replacing, said

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "peft-book.zip"
TOP = "peft-book"
LIMIT = 120_000_000  # bytes; what a school's stick or mail still takes
#: Left out: source maps, and Sphinx's own notes about the build.
SKIPPED = {".map", ".buildinfo", ".inv"}
READ_ME = """\
Fine-tuning with a handful of parameters: the whole book, for use without a network.

To read: open index.html in any browser.

To run its code, do its exercises and train in its playground, in the pages: in this folder, run
    python -m http.server 8000 --bind 127.0.0.1
and open http://localhost:8000. Nothing else is installed. "Edit and run" stands below each cell;
"Run in the browser", in a page's menu, opens the whole notebook.

From a phone, or for a class: run it without --bind 127.0.0.1, and open http://ADDRESS:8000 with the
address of this computer in your network. All but "Run in the browser" works there, too.
"""


def packed_files(html=HTML):
    """The files of the book by their names in the archive; what a link leads to is not the book."""
    files = {f"{TOP}/{path.relative_to(html).as_posix()}": path for path in html.rglob("*")
             if path.is_file() and not path.is_symlink() and path.suffix not in SKIPPED
             and path.name not in SKIPPED
             and path != html / "README.md"}  # that of the vendored files
    return dict(sorted(files.items()))


def pack(target=TARGET, html=HTML):
    """Write the archive and return its size in bytes."""
    from tqdm import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    with (replacing(target) as [new],
          zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive):
        def add(name, data):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # the same bytes on every system
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)

        add(f"{TOP}/READ-ME-FIRST.txt", READ_ME)
        for name, path in tqdm(packed_files(html).items(), "packing", disable=None):
            add(name, path.read_bytes())
    return target.stat().st_size


def main():
    with alone(ROOT / "_build" / "lock", "builds this book"), said("The zip", TARGET):
        if not (HTML / "index.html").exists():
            sys.exit("There is no built book: run make book first")
        size = pack()
    print(f"{TARGET.relative_to(ROOT)}: {size / 1e6:.1f} MB, {len(packed_files())} files")
    if size > LIMIT:
        sys.exit(f"That is over the limit of {LIMIT / 1e6:.0f} MB: what has grown?")
    if not (HTML / "lite").exists():
        print("It holds no Python in the browser, since the book was built without.")


if __name__ == "__main__":
    main()
