"""What a test needs beyond Python's own packages: a user's run skips it, CI's fails."""

import os

import node_js
import pytest

from real_models import twins


def missing(reason):
    """Skip a user's test that needs something not installed; on CI nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def node():
    """Node.js: the pinned one of `make env`, or the system's."""
    return node_js.path() or missing("Node.js is not installed: make env")


def oracle():
    """The Python of .venv-oracle, with PyTorch and Hugging Face."""
    if not twins.ORACLE.exists():
        missing(f"{twins.ORACLE} is missing: `make oracle` installs PyTorch and Hugging Face there")
    return twins.ORACLE
