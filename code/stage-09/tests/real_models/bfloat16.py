"""Files in bfloat16, which NumPy cannot save."""

import json

import numpy as np


def write_bfloat16(path, weights):
    """Arrays cut to bfloat16, as small models are published; NumPy has no such type to save."""
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in weights.items():
        raw = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": array.shape,
                        "data_offsets": [end, end + len(raw)]}
        parts.append(raw)
        end += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
