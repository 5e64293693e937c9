"""Files as one, which a page's worker unpacks by itself: Python there would take far longer.

Compressed with gzip: the length of the head (four bytes, the lowest first), the head, then the
files one after the other. The head is JSON, name and bytes of each file; spaces let it end at a
multiple of 16, as the memory of a Python needs that stands first. worker.js and memory.mjs read it.
"""

import gzip
import json


def archive(files: dict[str, bytes]) -> bytes:
    """The files by their names, the same bytes for the same files."""
    head = json.dumps([[name, len(data)] for name, data in files.items()]).encode()
    head += b" " * (-(len(head) + 4) % 16)
    return gzip.compress(b"".join([len(head).to_bytes(4, "little"), head, *files.values()]),
                         mtime=0)
