"""What PEFT answered, as the fixtures record it, and the same question to accounting.py."""

import hashlib

from real_models import accounting as ac


def ask(model, question):
    """Our count for a recorded question."""
    method, arguments = question["method"], question["arguments"]
    if counter := getattr(ac, f"count_{method}", None):
        return counter(model, **arguments)
    return ac.count_method(model, method, **arguments)


def check(counted, question):
    """The numbers are PEFT's, and so is the file to the byte, if one was recorded."""
    assert (counted.trainable, counted.total) == (question["trainable"], question["all"]), question
    if "file_bytes" in question:
        assert ac.saved_bytes(counted) == question["file_bytes"], question
        header = ac.safetensors_header(
            counted.tensors, dtypes=dict.fromkeys(counted.integer_tensors, "int32"))
        assert hashlib.sha256(header).hexdigest() == question["header_sha256"], question
