"""Remake constraints.txt: install the requirements without it and freeze what that gives.

    python tools/constraints.py python3.11 python3.12 python3.13

One file serves every Python named, the oldest first: where two resolve a package differently, the
oldest one's version is kept, since newer Pythons run older releases more often than the reverse.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything that the requirements files pull in, direct or not, so that two
# installs are the same install. One file serves Python 3.11 to 3.13 and the oracle's environment.
# Remade by `make constraints`, which installs the requirements without it and freezes the result.
"""


def resolve(python, *requirements):
    """Versions that a fresh environment gets, by package name."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        for arguments in requirements:
            subprocess.run([*pip, "install", "--quiet", *arguments], check=True, cwd=ROOT)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True)
    return dict(line.split("==") for line in frozen.stdout.splitlines() if "==" in line)


def main():
    pythons = sys.argv[1:] or [sys.executable]
    pinned = {}
    for python in pythons:
        print(f"resolving with {python}", flush=True)
        for name, version in resolve(python, ["-r", "requirements-dev.txt"]).items():
            if pinned.setdefault(name, version) != version:
                print(f"  {name}: keeping {pinned[name]}, not {version}")
    print(f"resolving the oracle with {pythons[0]}", flush=True)
    torch = next(line for line in (ROOT / "requirements-oracle.txt").read_text().splitlines()
                 if line.startswith("torch=="))
    for name, version in resolve(pythons[0], [torch], ["-r", "requirements-oracle.txt"]).items():
        if name != "torch" and pinned.setdefault(name, version) != version:  # its build tag varies
            print(f"  {name}: keeping {pinned[name]}, not {version}")
    lines = [f"{name}=={pinned[name]}" for name in sorted(pinned, key=str.lower)]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n", "utf-8")
    print(f"constraints.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()
