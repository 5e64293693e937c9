"""`save`, `save_file`, `load` and `load_file`, with the arguments that safetensors takes.

What is written equals the library's own file byte for byte: arrays by kind in the library's order,
widest elements first, names in order within a kind, the header padded with spaces to a multiple of
eight bytes.
"""

import json
from pathlib import Path

import numpy as np

# In the order in which the library writes them.
_KINDS = {"<i8": "I64", "<f8": "F64", "<f4": "F32", "<i4": "I32", "<f2": "F16", "<i2": "I16",
          "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
_DTYPES = {kind: dtype for dtype, kind in _KINDS.items()}


def save(tensor_dict, metadata=None):
    """The bytes of a file that holds these arrays."""
    header, parts, end = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensor_dict.items():
        if array.dtype.str not in _KINDS:
            raise ValueError(f"{name} has dtype {array.dtype}; in the browser only "
                             f"{', '.join(_DTYPES)} can be written")
    order = list(_KINDS)
    for name, array in sorted(tensor_dict.items(),
                              key=lambda item: (order.index(item[1].dtype.str), item[0])):
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _KINDS[array.dtype.str], "shape": list(array.shape),
                        "data_offsets": [start, end]}
        parts.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def load(data):
    """The arrays of such a file, by name."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        flat = np.frombuffer(data[start + first:start + last], _DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"]).copy()
    return arrays


def save_file(tensor_dict, filename, metadata=None):
    Path(filename).write_bytes(save(tensor_dict, metadata))


def load_file(filename):
    return load(Path(filename).read_bytes())
