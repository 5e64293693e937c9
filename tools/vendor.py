"""Re-make vendor/ from the packages that its files come from, or verify it against their hashes.

    python tools/vendor.py            fetch the pinned packages and copy their files anew
    python tools/vendor.py --fresh    likewise, and trust no hash there: then see git diff vendor
    python tools/vendor.py --check    compare the committed files with vendor/vendor.json, offline

The built book loads no script or font from another host, so what a browser needs is kept here:
KaTeX and CodeMirror. Packages from npm are fetched with `npm pack`. The theme's icons are cut down
to those that occur and written into one style sheet, font included: a browser refuses a font file
to a page that is opened straight from disk. CodeMirror comes in many small packages: those of
tools/in_page/editor/package-lock.json, by their hashes there, become one file by its `npm run
bundle`.
"""

import argparse
import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from whole import write_whole

ROOT = Path(__file__).resolve().parent.parent

VENDOR = ROOT / "vendor"
MANIFEST = VENDOR / "vendor.json"
ICONS = "icons/icons.css"
RECIPE = ROOT / "tools" / "in_page" / "editor"  # of CodeMirror's bundle
BUNDLED = "npm, bundled"
PACKAGE = re.compile(r"node_modules/((?:@[^/]+/)?[^/]+)/")
#: Every icon that the two themes put on a page, by Font Awesome's names.
ICON_NAMES = """
    angle-left angle-right arrow-up bars chevron-down circle-half-stroke code download ellipsis
    expand file file-lines file-pdf github home lightbulb list magnifying-glass moon outdent pencil
    pencil-alt play rocket sun xmark
""".split()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch_npm(package, version, folder):
    """Unpack one npm package and return the folder that holds its files."""
    made = subprocess.run(
        ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", folder],
        check=True, capture_output=True, text=True,
    )
    with tarfile.open(Path(folder) / made.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return Path(folder) / "package"


def recipe_digest():
    """Hash of all that decides what the bundle holds."""
    total = hashlib.sha256()
    for path in sorted(RECIPE.iterdir()):
        total.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return total.hexdigest()


def bundle(folder):
    """Make CodeMirror's bundle in a folder, and beside it the licences of all that is in it."""
    for path in RECIPE.iterdir():
        shutil.copy(path, folder)
    for command in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "bundle"]):
        subprocess.run(["npm", *command], cwd=folder, check=True, capture_output=True)
    parts = json.loads(Path(folder, "parts.json").read_text("utf-8"))["inputs"]
    texts = []
    for name in sorted({found[1] for part in parts if (found := PACKAGE.match(part))}):
        package = Path(folder, "node_modules", name)
        version = json.loads((package / "package.json").read_text("utf-8"))["version"]
        texts.append(f"{name} {version}\n\n{(package / 'LICENSE').read_text('utf-8').strip()}\n")
    write_whole(Path(folder, "codemirror.LICENSES.txt"), "\n\n".join(texts))
    return Path(folder)


def installed(package, version):
    """The installed files of a Python package, which must have the pinned version."""
    found = metadata.version(package)
    if found != version:
        sys.exit(f"vendor.json pins {package} {version}, installed is {found}: change the one "
                 f"that is wrong (requirements.txt or vendor.json)")
    return metadata.distribution(package)


def make_icons(distribution):
    """The style sheet with the themes' icons, from the Font Awesome that pydata's theme ships."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    static = Path(distribution.locate_file("pydata_sphinx_theme/theme/pydata_sphinx_theme/static"))
    awesome = next((static / "vendor/fontawesome").iterdir())
    rules = (awesome / "css/all.min.css").read_text("utf-8")
    codes = {}
    for name in ICON_NAMES:
        found = re.search(rf"\.fa-{name}:before[^{{]*{{content:\"\\([0-9a-f]+)\"", rules)
        codes[name] = int(found[1], 16)
    # The themes' own style sheets name icons by character: in admonitions and behind "more" arrows.
    theme = "".join(path.read_text("utf-8") for path in static.glob("styles/*.css"))
    used = {*codes.values(), 0xF107, *(ord(char) for char in theme if "\ue000" <= char <= "\uf8ff")}

    sheet = [f"/*! Icons: Font Awesome Free {awesome.name}, fontawesome.com, SIL OFL 1.1 and "
             "CC BY 4.0. A subset made by tools/vendor.py. */"]
    for family, file, weight in [("Free", "solid", 900), ("Brands", "brands", 400)]:
        font = TTFont(awesome / f"webfonts/fa-{file}-{weight}.ttf", recalcTimestamp=False)
        options = subset.Options(layout_features=[], flavor="woff", notdef_outline=True)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=used)
        cutter.subset(font)
        font.flavor = "woff"
        made = io.BytesIO()
        font.save(made)
        data = base64.b64encode(made.getvalue()).decode()
        sheet.append(f'@font-face{{font-family:"Font Awesome 6 {family}";font-weight:{weight};'
                     f'font-display:block;src:url(data:font/woff;base64,{data}) format("woff")}}')
    sheet += [
        ':root{--fa-style-family-classic:"Font Awesome 6 Free";--fa-style:900;'
        '--fa-font-solid:normal 900 1em/1 "Font Awesome 6 Free";'
        '--fa-font-regular:normal 900 1em/1 "Font Awesome 6 Free";'
        '--fa-font-brands:normal 400 1em/1 "Font Awesome 6 Brands"}',
        # !important: the widget manager's style sheet comes later and asks for a font file.
        '.fa-solid,.fa-regular,.fas,.far,.fa{font:var(--fa-font-solid)!important}',
        '.fa-brands,.fab{font:var(--fa-font-brands)!important}',
        '.fa-solid,.fa-regular,.fa-brands,.fas,.far,.fab,.fa{display:inline-block;'
        'font-size:inherit!important;text-rendering:auto;-webkit-font-smoothing:antialiased}',
        '.fa-lg{font-size:1.25em!important;line-height:.05em;vertical-align:-.075em}',
        *(f'.fa-{name}::before{{content:"\\{code:x}"}}' for name, code in codes.items()),
    ]
    return "\n".join(sheet) + "\n"


def refresh(manifest):
    for name, entry in manifest.items():
        print(f"{name} {entry['version']} ({entry['from']})")
        with tempfile.TemporaryDirectory() as folder:
            if entry["from"] == "npm":
                source = fetch_npm(name, entry["version"], folder)
                locate = source.joinpath
            elif entry["from"] == BUNDLED:
                locate = bundle(folder).joinpath
                entry["recipe"] = recipe_digest()
            else:
                distribution = installed(name, entry["version"])
                locate = distribution.locate_file
            for target, file in entry["files"].items():
                content = (make_icons(distribution).encode() if target == ICONS
                           else Path(locate(file["path"])).resolve().read_bytes())
                found = hashlib.sha256(content).hexdigest()
                if found != file.setdefault("sha256", found):
                    sys.exit(f"{target} is not what it was in {name} {entry['version']}. If you "
                             "have changed the version, or know why, take its sha256 out of "
                             "vendor.json and run this again; else do not trust it")
                write_whole(VENDOR / target, content)
                print(f"  {target}")
    write_whole(MANIFEST, json.dumps(manifest, indent=2) + "\n")


def without_hashes(manifest):
    """Trust none: who changes a file and its hash together has the packages against them."""
    for entry in manifest.values():
        for file in entry["files"].values():
            file.pop("sha256", None)


def problems(manifest):
    """One line for each vendored file that is missing, changed or not listed."""
    listed = {target: file["sha256"] for entry in manifest.values()
              for target, file in entry["files"].items()}
    own = {"vendor.json", "README.md"}
    present = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*")
               if path.is_file() and not path.name.startswith(".")}  # a desktop's own notes
    for target, expected in listed.items():
        if target not in present:
            yield f"{target} is missing: run make vendor"
        elif sha256(VENDOR / target) != expected:
            yield f"{target} differs from its sha256 in vendor.json: run make vendor"
    for name, entry in manifest.items():
        if entry.get("recipe", recipe_digest()) != recipe_digest():
            yield f"{name} was made by another {RECIPE.relative_to(ROOT)}: run make vendor"
    for target in sorted(present - set(listed) - own):
        yield f"{target} is not listed in vendor.json: list it with its package, or remove it"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only compare hashes, offline")
    what.add_argument("--fresh", action="store_true", help="take no hash from vendor.json")
    chosen = parser.parse_args()
    manifest = json.loads(MANIFEST.read_text("utf-8"))
    if chosen.fresh:
        without_hashes(manifest)
    if not chosen.check:
        refresh(manifest)
    found = list(problems(manifest))
    if found:
        sys.exit("\n".join(found))
    print(f"vendor/: {sum(len(entry['files']) for entry in manifest.values())} files as pinned")


if __name__ == "__main__":
    main()
