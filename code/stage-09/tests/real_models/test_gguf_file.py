"""A model's files cost no more memory than a model's need; the rest is in test_smollm2.py."""

import struct
import tracemalloc
from types import SimpleNamespace

import needs
import pytest

from real_models import gguf_file, smollm2
from tensorfile import HubError


@pytest.fixture(autouse=True)
def package():
    """What unpacks the arrays."""
    needs.package("gguf")


def number(value, size=8):
    return value.to_bytes(size, "little")


def settings(*fields):
    """A GGUF file of these settings alone; each a name, a kind of list, how many, and their bytes.
    """
    return b"GGUF" + number(3, 4) + number(0) + number(len(fields)) + b"".join(
        number(len(name)) + name + number(9, 4) + number(kind, 4) + number(count) + values
        for name, kind, count, values in fields)


MANY = 2 ** 12
COSTLY = {  # a file, all of which is there, that would take many times its size; what must be said
    "bytes": ([(b"a", 0, 8 * MANY, bytes(8 * MANY))], "32,768 numbers of 'a' are no model's"),
    "lists of bytes": ([(b"%d" % i, 0, MANY, bytes(MANY)) for i in range(9)], "12,288 values"),
    "empty texts": ([(b"%d" % i, 8, MANY, bytes(8 * MANY)) for i in range(9)], "12,288 values"),
    "wide letters": ([(b"%d" % i, 8, MANY, (number(4) + "😀".encode()) * MANY) for i in range(9)],
                     "12,288 values"),
    "one long text": ([(b"a", 8, 1, number(70 * MANY) + bytes(70 * MANY))],
                      "262,144 bytes stand before"),
}


@pytest.mark.parametrize("case", COSTLY)
def test_a_gguf_whose_lists_would_fill_the_memory_is_refused_before_they_do(case, tmp_path,
                                                                            monkeypatch):
    """With bounds that are 256 times smaller than in use."""
    monkeypatch.setattr(gguf_file, "VALUES", 2 * MANY, raising=False)
    monkeypatch.setattr(gguf_file, "FRONT", 64 * MANY, raising=False)
    path = tmp_path / "costly.gguf"
    path.write_bytes(settings(*COSTLY[case][0]))
    tracemalloc.start()
    try:
        with pytest.raises(HubError, match=f"costly.gguf.*{COSTLY[case][1]}"):
            gguf_file.read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 300 * MANY
    finally:
        tracemalloc.stop()


def test_lists_of_every_kind_are_read_as_they_are(tmp_path):
    path, numbers = tmp_path / "lists.gguf", gguf_file.NUMBERS
    kinds = {kind: struct.pack(f"<3{letter}", 1, 0, 1) for kind, letter in numbers.items()}
    data = settings(*((b"%d" % kind, kind, 3, data) for kind, data in kinds.items()))
    path.write_bytes(data + bytes(-len(data) % 32))
    fields, arrays = gguf_file.read_gguf(path)
    assert arrays == {} and list(fields.values()) == [[1, 0, 1]] * len(numbers)
    assert [type(value[0]) for value in fields.values()] == [
        {"f": float, "d": float, "?": bool}.get(letter, int) for letter in numbers.values()]


def test_a_tokenizer_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(smollm2.LARGEST_TOKENIZER + 1)
    with pytest.raises(HubError, match="tokenizer.json has 100,000,001 bytes"):
        smollm2.read_tokenizer(path)


def test_a_model_that_is_too_large_in_float32_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(smollm2, "check_fit", lambda *_: None)
    stored = {"output.weight": gguf_file.Packed(None, "Q4_1", (10 ** 6, 10 ** 6), 0, 0)}
    with pytest.raises(HubError, match="unpacking the model needs 16,?000"):
        smollm2.gguf_arrays(stored, SimpleNamespace(weight_shapes=dict), "a.gguf")
