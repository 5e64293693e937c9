"""Check without Docker that Binder can run the book: its environment runs every notebook.

    python tools/binder.py

1. jupyter-repo2docker, which Binder runs, is asked which build pack and which Python the last
   commit gets, which packages of its own come first, and which command installs ours.
2. An environment of that Python gets the same packages in the same order. Binder takes its own ones
   from conda; here pip installs the same versions. What is no Python package is named, left out.
3. Every notebook runs there, in a fresh clone. The first fault ends it, with notebook and cell.

Everything is made anew in .cache/binder, a few minutes on two cores.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "binder"
ASKER, IMAGE, CLONE = CACHE / "repo2docker", CACHE / "image", CACHE / "clone"
#: Each release freezes the packages that Binder installs before ours, so it is pinned as they are.
#: Hosted Binders follow the newest release; this was the newest when it was written.
REPO2DOCKER = "jupyter-repo2docker==2026.4.0"
#: Asks as repo2docker itself does before it builds; the platform is mybinder.org's.
QUESTION = """
import json
from pathlib import Path
import repo2docker.buildpacks
from repo2docker.app import Repo2Docker
app = Repo2Docker()
packs = [pack(base_image=app.base_image) for pack in (*app.buildpacks, app.default_buildpack)]
pack = next(filter(lambda pack: pack.detect(), packs), packs[-1])
pack.platform = "linux/amd64"
here = Path(repo2docker.buildpacks.__file__).parent
print(json.dumps({
    "pack": type(pack).__name__,
    "python": pack.python_version,
    "locks": [(here / name).read_text() for name in pack.get_build_script_files()
              if name.endswith(".lock")],
    "steps": [script for user, script in (*pack.get_preassemble_scripts(),
                                          *pack.get_assemble_scripts())],
    "also": [*map(str, pack.get_post_build_scripts()), *filter(None, [pack.get_start_script()])],
}))
"""
INSTALL = '${KERNEL_PYTHON_PREFIX}/bin/pip install --no-cache-dir -r "requirements.txt"'
#: Where pip's name is not conda's.
PIP_NAMES = {"brotli-python": "brotli", "jupyterhub-base": "jupyterhub",
             "nbconvert-core": "nbconvert", "python-fastjsonschema": "fastjsonschema",
             "python-tzdata": "tzdata"}
#: Conflicts that pip may report, by the package that complains, each with its reason.
ACCEPTED = {
    "notebook": "the classic interface, which no link of ours opens; Binder has it ready for an "
                "older JupyterLab than ours. Ours works beside it",
}
#: What JupyterLab needs to show the sliders and the text.
EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "anywidget", "jupyterlab-myst")


def base_packages(lock):
    """Of a conda lock file: pins of the Python packages for pip, and the other packages' names.

    conda's build string of a Python package starts with py, of anything else with another letter.
    """
    pins, others = [], []
    for line in lock.splitlines():
        if found := re.search(r"/([^/]+)-([^/-]+)-([^/-]+)\.(?:conda|tar\.bz2)(?:#|$)", line):
            name, version, build = found.groups()
            if build.startswith("py"):
                pins.append(f"{PIP_NAMES.get(name, name)}=={version}")
            else:
                others.append(name)
    return pins, others


def faults(answer, runtime):
    """What of repo2docker's answer is not as the book means it."""
    if answer["pack"] != "PythonBuildPack":
        yield f"the build pack is {answer['pack']}, not PythonBuildPack"
    if answer["python"] != runtime:
        yield f"the Python is {answer['python']}, not the {runtime} of runtime.txt"
    if answer["steps"] != [INSTALL]:
        yield f"the steps of the build are {answer['steps']}, not only requirements.txt"
    if answer["also"]:
        yield f"scripts run besides: {answer['also']}"


def run(*command, **options):
    """Run a command; its failure is ours."""
    done = subprocess.run(list(map(str, command)), text=True, check=False, **options)
    if done.returncode:
        said = f":\n{done.stderr or done.stdout}" if done.stderr or done.stdout else ""
        sys.exit(f"Failed: {' '.join(map(str, command[:6]))} …{said}")
    return done


def environment(folder, python, *requirements):
    """A fresh environment with just these."""
    run(python, "-m", "venv", "--clear", folder)
    for arguments in requirements:
        run(folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install",
            "--quiet", *arguments)


def ask():
    """repo2docker's answer about the clone."""
    environment(ASKER, sys.executable, [REPO2DOCKER])
    asked = run(ASKER / "bin/python", "-c", QUESTION, cwd=CLONE, capture_output=True)
    return json.loads(asked.stdout.splitlines()[-1])


def build(answer):
    """What Docker would build, in the order in which it would."""
    name, ours = f"python{answer['python']}", f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (python := sys.executable if name == ours else shutil.which(name)):
        sys.exit(f"{name} is needed: it is the Python that Binder gives the book")
    pins, others = [], []
    for lock in answer["locks"]:
        more, left_out = base_packages(lock)
        pins, others = pins + more, others + left_out
    print(f"==> {name} with {len(pins)} packages of repo2docker's own", flush=True)
    print(f"No Python packages, left out: {', '.join(others)}", flush=True)
    listed = CACHE / "base.txt"
    listed.write_text("\n".join(pins) + "\n", "utf-8")
    pip = [pin for pin in pins if pin.startswith("pip==")]
    environment(IMAGE, python, pip, ["--no-deps", "--requirement", listed])
    before = versions()
    print(f"==> {answer['steps'][0]}", flush=True)
    run("bash", "-c", answer["steps"][0], cwd=CLONE, capture_output=True,
        env=os.environ | {"KERNEL_PYTHON_PREFIX": str(IMAGE)})
    changed = [f"{name} {before[name]} to {version}" for name, version in versions().items()
               if before.get(name, version) != version]
    print(f"It changed of repo2docker's own: {', '.join(changed) or 'nothing'}", flush=True)
    checked = subprocess.run([IMAGE / "bin/python", "-m", "pip", "check"], capture_output=True,
                             text=True, check=False).stdout.splitlines()
    if found := conflicts(checked):
        sys.exit("\n".join(found))
    for line in checked:
        print(line, flush=True)


def conflicts(checked):
    """Lines of `pip check` that are a fault here."""
    return [line for line in checked
            if line != "No broken requirements found." and line.split()[0] not in ACCEPTED]


def versions():
    listed = run(IMAGE / "bin/python", "-m", "pip", "list", "--format", "json",
                 "--disable-pip-version-check", capture_output=True)
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def lacking(listed):
    """Extensions that `jupyter labextension list` does not call enabled and sound."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).split() for line in listed.splitlines()]
    sound = {line[0] for line in lines if line[2:4] == ["enabled", "OK"]}
    return [name for name in EXTENSIONS if name not in sound]


def try_out():
    """JupyterLab knows the book's extensions, and every notebook runs."""
    # Nothing of ours: no settings of a home folder, no paths of another environment.
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("PYTHON", "JUPYTER", "IPYTHON", "VIRTUAL_ENV"))}
    clean |= {"HOME": str(CLONE), "PATH": f"{IMAGE / 'bin'}:{clean['PATH']}"}
    listed = run(IMAGE / "bin/jupyter", "labextension", "list", env=clean, capture_output=True)
    if missing := lacking(listed.stdout + listed.stderr):
        sys.exit(f"JupyterLab lacks {', '.join(missing)}:\n{listed.stdout}{listed.stderr}")
    print("==> Every notebook", flush=True)
    run(IMAGE / "bin/python", "tools/notebooks.py", cwd=CLONE, env=clean)


def main():
    shutil.rmtree(CACHE, ignore_errors=True)
    run("git", "clone", "--quiet", ROOT, CLONE)
    print(f"==> Asking {REPO2DOCKER} about the last commit", flush=True)
    answer = ask()
    runtime = (CLONE / "runtime.txt").read_text("utf-8").strip().removeprefix("python-")
    if found := list(faults(answer, runtime)):
        sys.exit("\n".join(found))
    print(f"{answer['pack']}, Python {answer['python']}", flush=True)
    build(answer)
    try_out()
    print("==> Binder runs the book.")


if __name__ == "__main__":
    main()
