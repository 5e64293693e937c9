"""What a test needs beyond Python's own packages: a user's run skips it, CI's fails."""

import os
import shutil

import pytest

from real_models import twins


def missing(reason):
    """Skip a user's test that needs something not installed; on CI nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def node():
    """Node.js: the system's, or the one that Playwright brings along."""
    if found := shutil.which("node"):
        return found
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        missing("neither Node.js nor Playwright is installed: make env")
    return compute_driver_executable()[0]


def oracle():
    """The Python of .venv-oracle, with PyTorch and Hugging Face."""
    if not twins.ORACLE.exists():
        missing(f"{twins.ORACLE} is missing: `make oracle` installs PyTorch and Hugging Face there")
    return twins.ORACLE
