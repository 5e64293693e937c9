"""Files of arrays and of settings, read without trust and written whole.

A file is a claim by a stranger. Its header is checked in full, against the length of the file and
against what its reader needs, before memory is spent on it; whatever is wrong raises `HubError`,
which names the file, what was found, what was expected and what to do. No pickle anywhere.

A `.safetensors` file is eight bytes with the header's length, a header of JSON,
`{name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}`, then the arrays' bytes.

New files are complete, and on the disk, before they take the old ones' names: a crash leaves the
old files.
"""

import codecs
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from math import isinf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# bfloat16 is the upper half of a float32; NumPy has no such type, so its bits come as integers.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
LARGEST_JSON = 10_000_000  # bytes; the header of a checkpoint takes about 100 per array
UNGATHERED = ("DeepSpeed ZeRO-3 and FSDP save such files if the parts are not gathered first; save "
              "it again with the gathered state")
LARGEST_VALUE = 1e6  # of a weight; real ones stay below a thousand
MAY_BE_ZERO = ("o_proj.weight", "down_proj.weight",  # layers put in between begin without effect
               "prompt_embeddings", "lora_B.weight")
VOCABULARY = ("embed_tokens.weight", "lm_head.weight")  # rows of zeros may fill them up
END = 1024  # numbers: of a large array so many are less than one of its parts
LEFT_BEHIND = 24 * 3600  # seconds after which a new file without its name is a dead writer's
SMALL_JSON, LEAST_PER_VALUE = 20_000, 9  # bytes; many tiny values take many times their text
FIRST_BYTES = {  # what is often found under another file's name
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with `git lfs "
                                "pull`, or download it from the site",
    b"<<<<<<< ": "two versions with git's conflict markers between them: keep one of them",
    b"<": "a page of HTML or XML, as a server sends it instead of a file: download it again",
    b"\x80": "a pickle, which can run any code when it is read; take a *.safetensors file",
    b"PK\x03\x04": "a zip archive, as torch.save writes with a pickle in it, which can run any "
                   "code when it is read; take a *.safetensors file",
    b"GGUF": "a GGUF file; take the original checkpoint, with *.safetensors",
    **dict.fromkeys((b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!", b"BZh",
                     b"\x04\x22\x4d\x18"), "compressed; unpack it"),
    b"%PDF": "a PDF document; take a *.safetensors file",
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"), "a picture; take a *.safetensors file"),
    b"\x89HDF": "an HDF5 file, as Keras saves; take a *.safetensors file",
    b"\x93NUMPY": "an array of NumPy alone, without a name; take a *.safetensors file"}
JSON_WORDS = {"list": "a list", "str": "a text", "int": "a number", "float": "a number",
              "bool": "true or false", "NoneType": "null"}
NAMES_TELL = {  # a part of an array's name: what the file with such arrays is
    "lora_": "an adapter: load its base model, and then the adapter with hub.load_adapter",
    "score.weight": "the head of a classifier, no language model's",
    "classifier.weight": "the head of a classifier, no language model's",
    ".absmax": "a quantized weight; take the original checkpoint",
    "_orig_mod.": "how torch.compile names a wrapped model's; save the model inside it",
    ".default.weight": "how PEFT names it in memory; save it with save_pretrained",
    "module.": "how DDP and FSDP name a wrapped model's; save the model inside it"}


def plain(text: str) -> str:
    """A stranger's text with whatever could command a terminal written out: fit to be shown."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1]
                   for sign in text)


class HubError(ValueError):
    """A file that is not what it should be, or that does not fit the model.

    A stranger's names and values come into its message; none may command a terminal.
    """

    def __init__(self, message: str):
        super().__init__(plain(message))


@contextmanager
def about(where: Any) -> Iterator[None]:
    """Errors of the checks that all modules share come out as `HubError`, with the file's name."""
    try:
        yield
    except HubError:
        raise
    except OSError as error:  # its text has the name once more
        raise HubError(f"{where}: {error.strerror or error}") from error
    except (ValueError, TypeError, OverflowError) as error:
        text = str(error)  # may hold a value of the file, however long that is
        if len(text) > 600:
            text = f"{text[:400]} ... {text[-100:]}"
        raise HubError(f"{where}: {text}") from error


# ------------------------------------------------------------------------------- reading, trustless


def parse(data: bytes, where: Any) -> dict[str, Any]:
    """A JSON object in which no key stands twice and every number is one."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise HubError(f"{where}: the key {short(twice)} stands twice; which one counts?")
        return found

    def no_number(word: str) -> None:
        raise HubError(f"{where}: {word} is no number in JSON")

    def real(digits: str) -> float:
        if isinf(number := float(digits)):
            raise HubError(f"{where}: {short(digits)} is beyond every number that can be computed")
        return number

    def whole(digits: str) -> int:
        if len(digits) > 1000:  # Python itself refuses to read much longer ones
            raise HubError(f"{where}: a number of {len(digits):,} digits is absurd")
        return int(digits)

    values = sum(data.count(sign) for sign in b",[{:")  # at least as many as there are
    wide = 1 if data.isascii() else 2  # one such letter makes every letter of the text wide
    if SMALL_JSON < len(data) < LEAST_PER_VALUE * values * wide:
        raise HubError(f"{where}: about {values:,} values in {len(data):,} bytes are no settings "
                       "and no header of arrays; they would fill the memory")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_int=whole,
                           parse_float=real, parse_constant=no_number)
    except HubError:
        raise
    except RecursionError:
        raise HubError(f"{where} is no JSON that we read: too many brackets in brackets") from None
    except ValueError as error:
        what = what_it_is(data) or (f"no text in UTF-8, from byte {error.start:,} on" if isinstance(
            error, UnicodeDecodeError) else _no_json(error))
        raise HubError(f"{where} is {what}") from None
    if re.search(rb"\\u[dD][89a-fA-F]", data):  # each half of a character needs the other
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise HubError(f"{where} has half a character, {error.object[error.start]!a}, which is "
                           "no text in UTF-8") from None
    if not isinstance(value, dict):
        raise HubError(f"{where} must be a JSON object, {{...}}, got "
                       f"{JSON_WORDS[type(value).__name__]}")
    return value


def _no_json(error: json.JSONDecodeError) -> str:
    """Where a text stops being JSON, and what stands there."""
    place = f"line {error.lineno:,}, column {error.colno:,}"
    rest = error.doc[error.pos:error.pos + 40].strip()
    if not rest or error.msg.startswith("Unterminated"):
        return f"no JSON: it ends too early, after {place}; fetch it again"
    return f"no JSON from {place} on, where {short(rest)} stands; fetch it again, or mend it there"


def what_it_is(data: bytes) -> str:
    """What a file is that begins with these bytes, if it is something well known; else ""."""
    if not data:
        return "empty: fetch it again"
    if not data[:512].strip(b"\0"):
        return "zero at its beginning, as in a download that broke off: fetch it again"
    start = data.removeprefix(codecs.BOM_UTF8).lstrip()
    if what := next((what for first, what in FIRST_BYTES.items() if start.startswith(first)), ""):
        return what
    if b"\n<<<<<<< " in data:
        return FIRST_BYTES[b"<<<<<<< "]
    if data[257:262] == b"ustar":
        return "an archive of tar; unpack it"
    if re.match(rb"\x08[\x01-\x20]\x12", data):  # its version, then who made it
        return "an ONNX file; take a *.safetensors file"
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "a text in another encoding; save it again as UTF-8, without a byte order mark"
    return ""


def _as_text(data: bytes) -> str:
    """That a file of arrays begins with plain text, such as a server's excuse; else ""."""
    text = data.decode("latin-1")
    if not text.isascii() or not re.sub(r"\s", " ", text).isprintable():
        return ""
    return f"a text, {short(text[:40])}, and no safetensors file: download it again"


def file_size(path: Path) -> int:
    """Bytes of an ordinary file. HubError with the reason where there is none."""
    if path.is_dir():
        raise HubError(f"{path} is a folder; a file is needed there")
    if path.is_symlink() and not path.exists():
        raise HubError(f"{path} is a link to {os.readlink(path)}, which is not there; download it "
                       "again")
    if path.exists() and not path.is_file():
        raise HubError(f"{path} is no ordinary file but a pipe or a device")
    if not path.exists():
        if not path.parent.is_dir():
            raise HubError(f"there is no folder {path.parent}: give the path of one on this "
                           "machine")
        there = sorted(p.name for p in path.parent.iterdir())[:20]
        raise HubError(f"{path.parent} has no file {path.name}; it holds {there or 'nothing'}")
    return path.stat().st_size


def read_json(path: Path) -> dict[str, Any]:
    """A `.json` file that holds one object. Raises HubError."""
    with about(path):
        if (size := file_size(path)) > LARGEST_JSON:
            raise HubError(f"{path} has {size:,} bytes, more than {LARGEST_JSON:,}: no such file")
        return parse(path.read_bytes(), path)


class Tensor(NamedTuple):
    """Where an array lies, as its file's header says and as the file's length bears out."""

    path: Path
    kind: str  # a key of DTYPES
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file


def read_header(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a `.safetensors` file says of itself; no array is touched.

    Returns
    -------
    tensors : dict of str to Tensor
    metadata : dict of str to str

    Raises
    ------
    HubError
        Anything but a header whose arrays fill the rest of the file exactly, one after the other.
    """
    path = Path(path)
    with about(path):
        size = file_size(path)
        with path.open("rb") as file:
            first = file.read(512)
            length = int.from_bytes(first[:8], "little")
            if first[8:9] != b"{" and (what := what_it_is(first) or _as_text(first)):
                raise HubError(f"{path} is {what}")
            if first[8:9] != b"{" and length > size - 8 > 0:
                raise HubError(f"{path} is no safetensors file, or damaged: after 8 bytes it must "
                               "go on with '{'; fetch it again")
            if size < 8 or length > size - 8:
                raise HubError(f"{path} is cut off, or no safetensors file: its header should have "
                               f"{length:,} bytes, but the whole file has {size:,}; fetch it again")
            if length > LARGEST_JSON:
                raise HubError(f"{path}: a header of {length:,} bytes is above {LARGEST_JSON:,}")
            file.seek(8)
            data = file.read(length)
    if not data.startswith(b"{"):
        raise HubError(f"{path}: the header must begin with '{{'; the file is damaged, or no "
                       "safetensors file at all: fetch it again")
    header = parse(data, f"the header of {path}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HubError(f"{path}: __metadata__ must map strings to strings")
    if not header:
        raise HubError(f"{path} holds no arrays: {UNGATHERED}")

    tensors, spans = {}, []
    for name, entry in header.items():
        kind, shape, (start, stop) = _check_entry(f"{path}: {short(name)}", entry)
        spans.append((start, stop, name))
        tensors[name] = Tensor(path, kind, shape, 8 + length + start)
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise HubError(f"{path}: {short(name)} begins at byte {start:,} of the data, where "
                           f"byte {end:,} was due: arrays overlap, or there is a hole")
        end = stop
    if end != size - 8 - length:
        raise HubError(f"{path}: the arrays take {end:,} bytes, but {size - 8 - length:,} follow "
                       "the header: the file is cut off or was added to; fetch it again")
    return tensors, metadata


def _check_entry(where: str, entry: Any) -> tuple[str, tuple[int, ...], list[int]]:
    """dtype, shape and offsets of one array, consistent with one another."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise HubError(f"{where} must have dtype, shape and data_offsets, got {short(entry)}")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise HubError(f"{where} is stored as {short(kind)}; readable are {', '.join(DTYPES)} "
                       "(quantized checkpoints are not)")
    for key, value, count in (("shape", shape, None), ("data_offsets", offsets, 2)):
        whole = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
        if not whole or len(value) != (count or len(value)) or len(value) > 8:
            raise HubError(f"{where}: {key} must be a list of whole numbers, got {short(value)}")
    size = prod(shape) * np.dtype(DTYPES[kind]).itemsize  # Python's integers do not overflow
    if offsets[1] - offsets[0] != size:
        raise HubError(f"{where}: {kind} of shape {short(shape)} is not the "
                       f"{short(offsets[1] - offsets[0])} bytes from {short(offsets)}")
    return kind, tuple(shape), offsets


def short(value: Any) -> str:
    """A stranger's value, fit for a message: not a page long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "an absurd number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_names(where: Any, found: Iterable[str], wanted: Iterable[str]) -> None:
    """Every wanted name is there and no other; a misspelt one is told which was meant."""
    found, wanted = set(found), set(wanted)
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if not missing and not extra:
        return
    said = []
    if extra:
        said.append(f"{len(extra)} that do not belong there, first {short(extra[0])}"
                    f"{meant(extra[0], missing)}")
    if missing:
        said.append(f"{len(missing)} missing, first {short(missing[0])}")
    for part, what in NAMES_TELL.items():
        if not any(part in name for name in wanted) and (
                told := next((name for name in extra if part in name), "")):
            said.append(f"{short(told)} is {what}")
            break
    raise HubError(f"{where}: names do not fit: {'; '.join(said)}. A name that is not understood "
                   "would leave its weights unused")


def meant(name: str, names: Iterable[str]) -> str:
    """Which of the names was meant, fit for a message, if only the spelling is wrong; else ""."""
    parts = name.split(".")
    for other in names:
        wrong = [(a, b) for a, b in zip(parts, other.split(".")) if a != b]
        same_length = name.count(".") == other.count(".")
        if other.endswith(f".{name}") or same_length and len(wrong) == 1 and _misspelt(*wrong[0]):
            return f", meant is perhaps {other!r}"
    return ""


def _misspelt(word: str, right: str) -> bool:
    """The same letters in another order, one of them missing, or one more; numbers are no words."""
    one, two = Counter(word.casefold()), Counter(right.casefold())
    return not right.isdigit() and ((one - two) + (two - one)).total() <= 1


def check_fit(where: Any, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple]) -> None:
    """Names and shapes are those that the model needs."""
    check_names(where, tensors, shapes)
    for name, shape in shapes.items():
        found = tensors[name].shape
        if 0 in found:
            raise HubError(f"{where}: {name} is empty, of shape {found}: {UNGATHERED}")
        if found != shape:
            raise HubError(f"{where}: {name} has shape {found}, but this model and configuration "
                           f"need {short(shape)}: it belongs to another model or size")


@lru_cache(maxsize=1)
def _read(path: Path, modified: int, size: int) -> bytes:
    """A whole file, once for all its arrays; a browser would fetch it again for each."""
    return path.read_bytes()


def read_tensor(tensor: Tensor, dtype: Any = np.float32) -> np.ndarray:
    """One array of a file whose header was checked.

    What is stored in `dtype` is mapped, not read: the system loads pages when they are used, and a
    page that is written to (in full fine-tuning) becomes a private copy. Anything else is converted
    array by array. Either way a checkpoint is never twice in memory. Don't shorten the file while
    the array lives; `save_llama` into the same folder is fine.
    """
    path, kind, shape, offset = tensor
    try:
        raw = np.memmap(path, DTYPES[kind], mode="c", offset=offset, shape=shape)
    except OSError as error:
        if error.errno != errno.ENODEV:  # a file system that cannot map, as in the browser
            raise
        stat = os.stat(path)
        whole = _read(path, stat.st_mtime_ns, stat.st_size)
        raw = np.frombuffer(whole, DTYPES[kind], prod(shape), offset).reshape(shape).copy()
    if kind == "BF16":
        array = np.empty(shape, np.float32)
        bits = array.view(np.uint32)
        bits[...] = raw
        bits <<= 16
    else:
        array = np.asarray(raw)
    with np.errstate(over="ignore"):  # becomes infinite, which its user refuses by name
        array = array.astype(dtype, copy=False)
    return array if array.flags.aligned else array.copy()


def check_values(where: Any, name: str, array: np.ndarray) -> None:
    """HubError for what no run that went well leaves: NaN, infinity, numbers far beyond all."""
    low, high = array.min(), array.max()  # NaN if there is one
    if not np.isfinite([low, high]).all():
        raise HubError(f"{where}: {name} holds NaN or infinity: the run that made it diverged, or "
                       "the file is damaged")
    if (largest := max(-low, high)) > LARGEST_VALUE:
        raise HubError(f"{where}: {name} holds numbers of up to {largest:.1g}, with which nothing "
                       "can be computed: the run that made it diverged, or the file is damaged")


def check_settings(where: Path, config: Mapping[str, Any], metadata: Mapping[str, str], file: Path
                   ) -> None:
    """HubError if the arrays were saved with other settings: a writer was stopped in between."""
    if "settings" in metadata:
        for key, value in parse(metadata["settings"].encode(), f"{file}, settings").items():
            if config.get(key) != value:
                raise HubError(f"{where}: {key[:80]} is {short(config.get(key))}, but the "
                               f"arrays were saved with {short(value)}: restore it")


def check_written(where: Any, name: str, array: np.ndarray, tensor: Tensor | None = None
                  ) -> bool:
    """Whether a matrix is zero throughout, unexpectedly; HubError if a part of an array is.

    Nobody trained that, or wrote it: who downloads a file may make it in full length first, and
    break off before it is filled. Yet a break does not heed where arrays begin. So a whole matrix
    of zeros that stands alone in its file, where `tensor` says, is meant: muP starts heads and
    queries there. And what ends a file must not end in zeros.
    """
    parts = np.array_split(array.reshape(-1), min(8, -(-array.size // 64)))
    zero = sum(not part.any() for part in parts)  # fewer zeros may fill up a vocabulary
    whole = zero == len(parts)
    usual, bias = name.endswith(MAY_BE_ZERO), name.endswith(".bias")
    before, after = _around(tensor) if tensor else (b"-", b"-")
    alone = whole and any(before) and (any(after) or not after)
    cut = not array.reshape(-1)[-END if after else -8:].any()
    if cut and not whole and name.endswith(VOCABULARY):  # which is filled up by whole rows
        cut = not after and not array[np.flatnonzero(array.any(axis=1))[-1], -1]
    meant_so = alone and array.ndim > 1 and (usual or tensor)  # no norm: after it nothing is left
    if (zero or cut) and not (bias or meant_so):
        part = "throughout" if whole else "in a large part" if zero else "at its end"
        raise HubError(f"{where}: {name} is zero {part}, as in a download that broke off: fetch "
                       "the file again")
    return whole and not (usual or bias)


def _around(tensor: Tensor) -> tuple[bytes, bytes]:
    """A few bytes before an array in its file, and after it; the last has nothing after it."""
    near, end = 64, tensor.offset + prod(tensor.shape) * np.dtype(DTYPES[tensor.kind]).itemsize
    with tensor.path.open("rb") as file:
        file.seek(max(0, tensor.offset - near))  # before the first array is the header
        before = file.read(min(near, tensor.offset))
        file.seek(end)
        return before, file.read(near)


def find_tensors(folder: Path, stem: str = "model") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The arrays of `model.safetensors`, or of several files and their index; and the metadata."""
    single = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():  # transformers gives that of an adapter the model's name
        index = folder / "model.safetensors.index.json"
    if single.exists() or not index.exists():  # as transformers does
        if not single.exists() and list(folder.glob("*.bin")):
            raise HubError(f"{folder} has its weights in pickles (*.bin), which can run any code "
                           "when they are read; take a checkpoint with *.safetensors")
        return read_header(single)
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise HubError(f"{index} must have a weight_map of array names to file names")
    by_file: dict[str, set[str]] = {}
    plain = re.compile(r"[A-Za-z0-9._-]{1,200}\.safetensors")
    for name, file in listed.items():
        if not isinstance(file, str) or not plain.fullmatch(file):
            raise HubError(f"{index}: {short(file)} is not the plain name of a safetensors file "
                           "in the same folder; nothing outside of it is read")
        by_file.setdefault(file, set()).add(name)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file, names in sorted(by_file.items()):
        found, said = read_header(folder / file)
        check_names(f"{folder / file}, against {index.name}", found, names)
        tensors |= found
        metadata |= said
    return tensors, metadata


def check_checkpoint(folder: Path, shapes: Mapping[str, tuple], copies: Mapping[str, str]
                     ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The arrays of a checkpoint that are needed, and the copies; see read_arrays. None is read."""
    found, metadata = find_tensors(folder)
    tensors = {name: tensor for name, tensor in found.items()
               if not name.endswith(".rotary_emb.inv_freq")}  # old files store what is computed
    stored = {name: tensors.pop(name) for name in copies if name in tensors}
    check_fit(folder, tensors, shapes)
    for name, tensor in stored.items():
        if tensor.shape != shapes[copies[name]]:
            raise _differs(folder, name, copies[name], f", of shape {short(tensor.shape)}")
    if "settings" in metadata:
        config = folder / "config.json"
        check_settings(config, read_json(config), metadata, folder)
    return tensors, stored


def _differs(folder: Path, name: str, other: str, how: str = "") -> HubError:
    return HubError(f"{folder}: config.json says that {name} is {other}, but {name} differs{how}; "
                    "set tie_word_embeddings to false")


def read_arrays(folder: Path, shapes: Mapping[str, tuple], dtype: Any = np.float32, *,
                copies: Mapping[str, str] | None = None,
                progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint: exactly those that `shapes` names, in its order.

    Parameters
    ----------
    folder : holds model.safetensors, or its shards and their index
    shapes : by name
    dtype : what the arrays are converted to, one by one
    copies : arrays that may be stored, too, if they equal the other that they are mapped to
    progress : such as tqdm

    Raises
    ------
    HubError
        Files that are damaged or do not fit each other or the shapes; a copy that differs.

    Warns
    -----
    UserWarning
        Matrices of zeros, which nobody trained.
    """
    tensors, stored = check_checkpoint(folder, shapes, copies or {})
    arrays, untrained = {}, []
    for name in progress(shapes):
        arrays[name] = array = read_tensor(tensors[name], dtype)
        check_values(tensors[name].path, name, array)
        if check_written(tensors[name].path, name, array, tensors[name]):
            untrained.append(name)
    if untrained:
        warnings.warn(f"{folder}: {len(untrained)} of {len(shapes)} arrays are zero throughout, "
                      f"first {untrained[0]}: nobody has trained them, and what passes through "
                      "them is lost", stacklevel=2)
    for name, tensor in stored.items():
        same, array = arrays[copies[name]], read_tensor(tensor, dtype)
        check_values(tensor.path, name, array)
        if not np.array_equal(array, same):
            raise _differs(folder, name, copies[name])
    return arrays


# ----------------------------------------------------------------------------------- writing, whole


def set_aside(*paths: Path) -> None:
    """Move files or folders to names with the time in them, so that a new start loses nothing."""
    for path in filter(Path.exists, paths):
        now = datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")  # two in one second are told apart
        aside = path.with_name(f"{path.stem}-until-{now}{path.suffix}")
        path.rename(aside)
        print(f"{path.name} is kept as {aside.name}; delete it when the new one is complete")


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def restore(folder: Path) -> None:
    """Put back a folder that `fresh` was killed with in its hands; what it made is taken away."""
    old, new = _beside(folder, "old"), _beside(folder, "new")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for left in filter(Path.exists, (old, new)):
        print(f"{left.name}, which a stopped process has left, is removed", flush=True)
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A new folder, to be made, which takes the place of `folder` once it is complete.

    Where the block fails, as on a full disk, the new one goes and the old one stays. Killed between
    its two moves, it leaves the old one for `restore`, which whoever is alone here calls first.
    """
    old, new = _beside(folder, "old"), _beside(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def check_ordinary(path: Path) -> None:
    """OSError where a device, a pipe or a folder has this name: a file would take its place."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no ordinary file, so it was left as it was; choose the "
                      "name of a file", str(path))


def _clear(path: Path) -> None:
    """Remove what killed writers of this file have left beside it, a day ago or longer.

    A shorter time may be that of a live one, which writes several files. Locks would not tell:
    safetensors makes a new file in the place of the one that it is given.
    """
    ours = re.compile(rf"\.+{re.escape(path.name)}(\.[0-9a-f]{{16}}\.new)+")  # of a new one, too
    for old in path.parent.iterdir() if path.parent.is_dir() else ():
        if ours.fullmatch(old.name):
            with suppress(OSError):  # it may be another's, or have its name by now
                if time.time() - old.lstat().st_mtime > LEFT_BEHIND:
                    old.unlink()


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """New files beside the old; when all are complete they take the old ones' names, in order.

    They are made here, empty: where a stranger's link has such a name, it is not followed. OSError
    if an old one is no ordinary file, see `check_ordinary`.
    """
    for path in paths:
        check_ordinary(path)
        _clear(path)
    new = [path.with_name(f".{path.name}.{secrets.token_hex(8)}.new") for path in paths]
    made = []
    try:
        for file, path in zip(new, paths, strict=True):  # for nobody who may not read the old one
            mode = path.stat().st_mode & 0o777 | 0o600 if path.exists() else 0o666
            file.touch(mode, exist_ok=False)
            made.append(file)
        yield new
        for file in new:
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        for file, path in zip(new, paths, strict=True):
            os.replace(file, path)
    finally:
        for file in made:
            file.unlink(missing_ok=True)
    if os.name == "posix":  # the new names, too, must be on the disk
        folder = os.open(paths[0].parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], **metadata: str) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise HubError(f"{name} holds NaN or infinity and was not saved: the run has diverged; "
                           "lower the learning rate")
    from safetensors.numpy import save_file  # here, since reading needs NumPy alone
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path,
              metadata={"format": "pt", **metadata})


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Put text (as UTF-8) or bytes into a file, whose folder is made if need be.

    Killed at any moment, or on a full disk, the file holds the old content or the new one.

    Raises
    ------
    OSError
        The content could not be written, the file's owner has made it read-only, or it is no
        ordinary file; it is as it was.
    """
    path = Path(path).resolve()  # a link goes on leading where it led
    if path.exists() and not path.stat().st_mode & stat.S_IWUSR:  # replacing would not ask
        raise PermissionError(errno.EACCES, "is read-only, so it was left as it was", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as [new]:
        new.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        if path.exists():
            shutil.copymode(path, new)
