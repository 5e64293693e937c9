"""Write a file whole or not at all: killed at any moment, or on a full disk, the old one stays."""

import os
import shutil
from pathlib import Path


def write(path, content):
    """Put text (as UTF-8) or bytes into a file, whose folder is made if need be.

    A file beside it is written and flushed first, then takes its place. So a reader meets the old
    content or the new one, never a part.

    Raises
    ------
    OSError
        The content could not be written; the file is as it was.
    """
    path = Path(path).resolve()  # a link goes on leading where it led
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
