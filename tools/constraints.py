"""Remake the lock files and constraints.txt from the requirements files.

    python tools/constraints.py             resolve anew; a version that still fits stays
    python tools/constraints.py --upgrade   take the newest versions that fit
    python tools/constraints.py --check     do the files belong together? (`make lint` asks)

A lock file names everything that its requirements pull in, directly or not, with one version for
Python 3.11 to 3.14 on every system and the SHA-256 of each file that may be installed. pip refuses
any other file. constraints.txt holds the versions of both without hashes, for whom a constraint is
enough: pip cannot read hashes from one.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from whole import write_whole

ROOT = Path(__file__).resolve().parent.parent

#: What the workflows install, each in an environment of its own; among it uv, the resolver here.
CI = "requirements-ci.lock"
LOCKS = {"requirements-dev.lock": "requirements-dev.txt",
         "requirements-oracle.lock": "requirements-oracle.txt"}
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = "# Made by `make constraints`; see tools/constraints.py.\n"
#: What only PyTorch's build for graphics cards needs, gigabytes, has a lock file of its own.
CARDS = "requirements-cards.lock"
FOR_CARDS = re.compile(r"(nvidia|cuda|triton)\b")
#: PyTorch's own build for processors, under Python 3.11 on x86-64; its package index is another.
CPU_BUILD = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(.*)$")


def entries(text):
    """(name, version, rest of the line, hashes) of each pinned package of a requirements file."""
    for block in re.split(r"\n(?=\S)", text):
        first, *hashes = block.split("\\\n")
        if found := ENTRY.match(first.strip()):
            yield *found.groups(), [line.strip() for line in hashes]


def install_uv(folder):
    """uv's path, in an environment made in this folder unless it is there."""
    uv = Path(folder) / "bin" / "uv"
    if not uv.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        block = re.search(r"^uv==.*?(?=^\S|\Z)", (ROOT / CI).read_text("utf-8"),
                          re.MULTILINE | re.DOTALL)
        wanted = Path(folder) / "uv.lock"
        write_whole(wanted, block[0])
        subprocess.run([uv.with_name("python"), "-m", "pip", "--disable-pip-version-check",
                        "install", "--quiet", "--require-hashes", "-r", wanted], check=True)
    return uv


def compile_lock(uv, lock, upgrade, *more):
    """Resolve the requirements of one lock file and write it."""
    print(f"resolving {lock}", flush=True)
    subprocess.run(
        [uv, "pip", "compile", Path(lock).with_suffix(".txt"), "--universal",
         "--python-version", "3.11", "--fork-strategy", "fewest", "--generate-hashes",
         "--no-annotate", "--no-header",
         "--quiet", "--output-file", lock, *["--upgrade"][:upgrade], *more], check=True, cwd=ROOT)
    text = (ROOT / lock).read_text("utf-8")
    kept, cards = [], []
    for name, version, marker, hashes in entries(text):
        if name == "torch":  # the last time it may have been kept
            hashes = [*dict.fromkeys([*hashes, f"--hash=sha256:{CPU_BUILD}"])]
        (cards if FOR_CARDS.match(name) else kept).append(
            " \\\n    ".join([f"{name}=={version}{marker.rstrip()}", *hashes]) + "\n")
    write_whole(ROOT / lock, HEADER + "".join(kept))
    if cards:
        write_whole(ROOT / CARDS, HEADER + "".join(cards))


def pins(file):
    """{name: version} of a requirements file."""
    text = (ROOT / file).read_text("utf-8")
    return {name.lower(): version for name, version, *_ in entries(text)}


def constraints():
    """What constraints.txt has to say: the versions of all lock files."""
    both = {name: version for lock in LOCKS for name, version in pins(lock).items()}
    del both["torch"]  # its build varies
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(both.items()))


def faults():
    """Sentences about what does not belong together."""
    found, locked = [], {lock: pins(lock) for lock in LOCKS}
    asked = {lock: pins(requirements) for lock, requirements in LOCKS.items()}
    asked["requirements-dev.lock"] |= pins("requirements.txt")  # requirements-dev.txt includes it
    for lock, wanted in asked.items():
        found += [f"{name} {version} is required, {lock} has {locked[lock].get(name)}"
                  for name, version in wanted.items() if locked[lock].get(name) != version]
    ci, locked_ci = pins("requirements-ci.txt"), pins(CI)
    found += [f"{name} {version} is required, {CI} has {locked_ci.get(name)}"
              for name, version in ci.items() if locked_ci.get(name) != version]
    for lock in [*LOCKS, CARDS, CI]:
        found += [f"{lock}: {name} has no hash" for name, _, _, hashes
                  in entries((ROOT / lock).read_text("utf-8")) if not hashes]
    dev, oracle = locked.values()
    found += [f"{name} is {dev[name]} in one lock file and {oracle[name]} in the other"
              for name in dev.keys() & oracle.keys() if dev[name] != oracle[name]]
    if CONSTRAINTS.read_text("utf-8") != constraints():
        found.append("constraints.txt does not say what the lock files say")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    parser.add_argument("--check", action="store_true", help="do the files belong together?")
    args = parser.parse_args()
    if args.check:
        if found := faults():
            sys.exit("\n".join(found) + "\nRun `make constraints`.")
        return
    with tempfile.TemporaryDirectory() as folder:
        uv, upgrade = install_uv(folder), args.upgrade
        compile_lock(uv, "requirements-dev.lock", upgrade)
        compile_lock(uv, "requirements-oracle.lock", upgrade,
                     "--constraint", "requirements-dev.lock")
        compile_lock(uv, CI, upgrade)
    write_whole(CONSTRAINTS, constraints())
    print(f"constraints.txt: {len(CONSTRAINTS.read_text().splitlines()) - 1} packages")


if __name__ == "__main__":
    main()
