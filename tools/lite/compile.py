"""Make Python in the browser start faster; compile.mjs runs this inside Pyodide, on /files.

Pyodide's packages hold Python's source, which each start would compile again: a third of the time
until the first cell. Here each source becomes bytecode once. Matplotlib's list of its fonts, which
it takes a second and a half to make on its first import, is packed beside its code. Each start
also unpacks every file, so type stubs are left out: a thousand of them, for completing names of
packages that are not there, and those that lie beside code.
"""

import importlib.util
import io
import marshal
import re
import warnings
import zipfile
from pathlib import Path

from matplotlib import font_manager

FILES = Path("/files")
# Where Pyodide's Matplotlib looks for its list of fonts; importing it has written it.
FONTS = Path(font_manager.__file__).with_name("fontlist.json")
STAMP = (1980, 1, 1, 0, 0, 0)
#: What no notebook can use: stubs of Django, of other packages and of Python 2, for completion.
UNUSED = re.compile(r"jedi/third_party/(django-stubs|typeshed/third_party|typeshed/stdlib/2)/"
                    r"|(?!jedi/).*\.pyi$")


def bytecode(source, name):
    """What Python writes to a .pyc that it never compares with its source (PEP 552)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's backslashes
        code = compile(source, name, "exec", dont_inherit=True)
    return b"".join([importlib.util.MAGIC_NUMBER, (1).to_bytes(4, "little"),
                     importlib.util.source_hash(source), marshal.dumps(code)])


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), data, zipfile.ZIP_DEFLATED)


def compiled(path):
    """The files of an archive, each source replaced by its bytecode."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        for name in archive.namelist():
            if UNUSED.match(name):
                continue
            data = archive.read(name)
            if name.endswith(".py"):
                try:
                    name, data = name + "c", bytecode(data, name)
                except SyntaxError:
                    pass  # a template, or a test of what does not compile
            yield name, data


archives = sorted([*FILES.glob("*.whl"), FILES / "python_stdlib.zip"])
for count, path in enumerate(archives, 1):
    if count % 10 == 0 or count == len(archives):
        print(f"  [{count}/{len(archives)}]", flush=True)
    files = dict(compiled(path))
    if path.name.startswith("matplotlib-3"):
        files["matplotlib/fontlist.json"] = FONTS.read_bytes()  # its own is of an older Matplotlib
    pack(path, files)
