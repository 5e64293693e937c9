"""What a test needs beyond Python's own packages: a user's run skips it, CI's fails."""

import importlib
import json
import os
import subprocess
from pathlib import Path

import node_js
import numpy as np
import pytest

from real_models import twins


def missing(reason):
    """Skip a user's test that needs something not installed; on CI nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def package(name):
    """A package that `make env` installs, and that not every set of the matrix has."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is missing: make env")


def node():
    """Node.js: the pinned one of `make env`, or the system's."""
    return node_js.path() or missing("Node.js is not installed: make env")


def oracle():
    """The Python of .venv-oracle, with PyTorch and Hugging Face."""
    if not twins.ORACLE.exists():
        missing(f"{twins.ORACLE} is missing: `make oracle` installs PyTorch and Hugging Face there")
    return twins.ORACLE


def run_oracle(script, *arguments, cwd):
    """What a script of oracle/ prints, with no network and without our modules on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([oracle(), Path(__file__).parent / "oracle" / script, *arguments],
                          env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def ask_hub_oracle(jobs, root):
    """Let oracle/hub_oracle.py do its jobs on the files in a folder; its answers by name."""
    (root / "jobs.json").write_text(json.dumps(
        jobs, default=lambda x: x.tolist() if isinstance(x, np.ndarray) else str(x)))
    run_oracle("hub_oracle.py", root / "jobs.json", root / "results.npz", cwd=root)
    return dict(np.load(root / "results.npz"))
