"""Re-make vendor/ from the packages that its files come from, or verify it against their hashes.

    python tools/vendor.py            fetch the pinned packages and copy their files anew
    python tools/vendor.py --check    compare the committed files with vendor/vendor.json, offline

The built book loads no script or font from another host, so what a browser needs is kept here:
RequireJS and the Jupyter widget manager (live sliders without a kernel), anywidget's front end and
MathJax. Packages from npm are fetched with `npm pack`; anywidget's file is the one that its Python
package installs, so that page and kernel always speak the same protocol.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "vendor"
MANIFEST = VENDOR / "vendor.json"


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


def installed(package, version):
    """The installed files of a Python package, which must have the pinned version."""
    found = metadata.version(package)
    if found != version:
        sys.exit(f"vendor.json pins {package} {version}, installed is {found}: change the one "
                 f"that is wrong (requirements.txt or vendor.json)")
    return metadata.distribution(package)


def refresh(manifest):
    for name, entry in manifest.items():
        print(f"{name} {entry['version']} ({entry['from']})")
        with tempfile.TemporaryDirectory() as folder:
            if entry["from"] == "npm":
                source = fetch_npm(name, entry["version"], folder)
                locate = source.joinpath
            else:
                distribution = installed(name, entry["version"])
                locate = lambda path, d=distribution: Path(d.locate_file(path)).resolve()  # noqa: E731
            for target, file in entry["files"].items():
                destination = VENDOR / target
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(locate(file["path"]), destination)
                file["sha256"] = sha256(destination)
                print(f"  {target}")
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def problems(manifest):
    """One line for each vendored file that is missing, changed or not listed."""
    listed = {target: file["sha256"] for entry in manifest.values()
              for target, file in entry["files"].items()}
    own = {"vendor.json", "README.md", "widgets/shim.js"}
    present = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    for target, expected in listed.items():
        if target not in present:
            yield f"{target} is missing: run make vendor"
        elif sha256(VENDOR / target) != expected:
            yield f"{target} differs from its sha256 in vendor.json: run make vendor"
    for target in sorted(present - set(listed) - own):
        yield f"{target} is not listed in vendor.json: list it with its package, or remove it"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare hashes, offline")
    manifest = json.loads(MANIFEST.read_text("utf-8"))
    if not parser.parse_args().check:
        refresh(manifest)
    found = list(problems(manifest))
    if found:
        sys.exit("\n".join(found))
    print(f"vendor/: {sum(len(entry['files']) for entry in manifest.values())} files as pinned")


if __name__ == "__main__":
    main()
