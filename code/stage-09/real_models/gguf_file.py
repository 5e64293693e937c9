"""GGUF files, read without trust: a model's settings and its arrays of 4, 8 or 32 bits.

A file is `GGUF`, its version, how many arrays and settings it has; each setting with its name, kind
and value; for each array its name, sizes, kind and first byte; then their bytes. A stranger wrote
all of that: every count is compared with the bytes that are left before anything is read, as
tensorfile.py does with a safetensors file. The package gguf, whose own reader trusts the file,
unpacks the numbers.

References
----------
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorfile import HubError, about, file_size, short, what_it_is

KINDS = ("F32", "Q8_0", "Q4_1")  # those that tests have seen
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}  # GGUF's kind of a value: that of the module struct
TEXT, LIST = 8, 9
#: Each costs memory, up to a hundred bytes a value: values of all lists together, where a
#: vocabulary of 256,000 with its merges has 1.3 million; arrays, settings; bytes before the arrays.
VALUES, MOST, FRONT = 2 ** 21, 2 ** 16, 2 ** 26


class Packed(NamedTuple):
    """An array in the file."""

    data: mmap.mmap
    kind: str  # one of KINDS
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file
    size: int  # bytes

    def unpack(self) -> np.ndarray:
        """Its numbers in float32."""
        from gguf import GGMLQuantizationType, dequantize
        raw = np.frombuffer(self.data, np.uint8, self.size, self.offset)
        return dequantize(raw.reshape(*self.shape[:-1], -1), GGMLQuantizationType[self.kind])


class Front:
    """A file's bytes, taken from the front; `what` is what they are said to be.

    All that is taken together is bounded, and so is the memory that it can cost.
    """

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at, self.values = path, data, 4, 0

    def take(self, size: int, what: str) -> int:
        """Where the next bytes begin. HubError if there are not so many."""
        if size > (left := len(self.data) - self.at):
            raise HubError(f"{self.path} is cut off or damaged: {what} should take {size:,} bytes, "
                           f"but {left:,} are left; fetch it again")
        if self.at + size > FRONT:
            raise HubError(f"{self.path}: with {what} more than {FRONT:,} bytes stand before the "
                           "arrays; no model needs so many")
        self.at += size
        return self.at - size

    def number(self, kind: str, what: str) -> Any:
        kind = f"<{kind}"
        return struct.unpack_from(kind, self.data, self.take(struct.calcsize(kind), what))[0]

    def count(self, least: int, most: int, what: str) -> int:
        """How many follow, of at least so many bytes each."""
        found = self.number("Q", what)
        self.take(found * least, f"{found:,} {what}")
        self.at -= found * least
        if found > most:
            raise HubError(f"{self.path}: {found:,} {what} are no model's; read are up to {most:,}")
        return found

    def length(self, least: int, what: str) -> int:
        """How many values of a list follow; what all lists have together is bounded."""
        found = self.count(least, VALUES, what)
        self.values += found
        if self.values > VALUES:
            raise HubError(f"{self.path}: with {found:,} {what} its lists have {self.values:,} "
                           f"values; read are up to {VALUES:,}")
        return found

    def text(self, what: str) -> str:
        start = self.take(self.number("Q", what), what)
        try:
            return self.data[start:self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise HubError(f"{self.path}: {what} is no text in UTF-8") from None

    def value(self, what: str) -> Any:
        kind = self.number("I", what)
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], what)
        if kind == TEXT:
            return self.text(what)
        of = self.number("I", what) if kind == LIST else None
        if of == TEXT:
            return [self.text(what) for _ in range(self.length(8, f"texts of {what}"))]
        if of in NUMBERS:
            kind = np.dtype(f"<{NUMBERS[of]}")
            count = self.length(kind.itemsize, f"numbers of {what}")
            start = self.take(count * kind.itemsize, what)
            return np.frombuffer(self.data, kind, count, start).tolist()
        raise HubError(f"{self.path}: {what} has values of kind {kind if of is None else of}; read "
                       "are numbers, texts and lists of them")


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Packed]]:
    """A GGUF file's settings and its arrays, by name; none of these is read.

    Raises
    ------
    HubError
        Anything but a file of version 2 or 3 whose arrays, of KINDS, fill the rest of it, one after
        the other; or the package gguf is missing.
    """
    try:
        import gguf  # noqa: F401, before anything is read
    except ImportError:
        raise HubError("the package gguf is missing, which unpacks the model's file: "
                       "`make smollm2` uses the environment that `make env` installs") from None
    with about(path):
        file_size(path)
        with path.open("rb") as file:
            start = file.read(512)
            if not start.startswith(b"GGUF"):
                raise HubError(f"{path} is {what_it_is(start) or 'no GGUF file; fetch it again'}")
            front = Front(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    version = front.number("I", "the version")
    if version and not version & 0xFFFF:
        raise HubError(f"{path} has its bytes in the other order (big-endian); take the file that "
                       "is not")
    if version not in (2, 3):
        raise HubError(f"{path} is of version {version:,} of GGUF; read are 2 and 3")
    arrays_count = front.count(24, MOST, "arrays")
    fields: dict[str, Any] = {}
    for _ in range(front.count(13, MOST, "settings")):
        name = front.text("the name of a setting")
        if name in fields:
            raise HubError(f"{path}: the setting {short(name)} stands twice; which one counts?")
        fields[name] = front.value(short(name))
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise HubError(f"{path}: general.alignment is {short(alignment)}; it must be a power of 2")

    entries, due = {}, 0
    for _ in range(arrays_count):
        name = front.text("the name of an array")
        if name in entries:
            raise HubError(f"{path}: the array {short(name)} stands twice; which one counts?")
        kind, shape, size = read_entry(front, name, due)
        entries[name] = (kind, shape, due, size)
        due += size + -size % alignment
    front.take(-front.at % alignment, "the space before the arrays")
    start, left = front.at, len(front.data) - front.at
    end = max((offset + size for _, _, offset, size in entries.values()), default=0)
    if not end <= left <= due:
        raise HubError(f"{path}: the arrays take {end:,} bytes, but {left:,} follow the settings: "
                       "the file is cut off or was added to; fetch it again")
    return fields, {name: Packed(front.data, kind, shape, start + offset, size)
                    for name, (kind, shape, offset, size) in entries.items()}


def read_entry(front: Front, name: str, due: int) -> tuple[str, tuple[int, ...], int]:
    """Kind, shape and bytes of an array, which must begin where the last one ended."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    path, what = front.path, short(name)
    if (axes := front.number("I", f"the axes of {what}")) not in (1, 2, 3, 4):
        raise HubError(f"{path}: {what} has {axes:,} axes; read are 1 to 4")
    shape = tuple(front.number("Q", f"the shape of {what}") for _ in range(axes))[::-1]
    number = front.number("I", f"the kind of {what}")
    kinds = {kind.value: kind for kind in GGMLQuantizationType}
    kind = kinds[number].name if number in kinds else f"the unknown kind {number:,}"
    if kind not in KINDS:
        raise HubError(f"{path}: {what} is stored as {kind}; read are {', '.join(KINDS)}")
    block, width = GGML_QUANT_SIZES[kinds[number]]
    if shape[-1] % block:
        raise HubError(f"{path}: {what} has rows of {shape[-1]:,}, but {kind} stores {block} "
                       "numbers together")
    if (offset := front.number("Q", f"the place of {what}")) != due:
        raise HubError(f"{path}: {what} begins at byte {offset:,} of the data, where byte {due:,} "
                       "was due: arrays overlap, or there is a hole")
    return kind, shape, prod(shape) // block * width
