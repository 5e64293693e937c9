"""Files: exact round trips, every kind of malformed file refused by name, crashes, fuzzing."""

import errno
import hashlib
import inspect
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bfloat16 import write_bfloat16
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import tensorfile
from family.oft_series import OFTSeriesLinear
from family.vera import VeRALinear, shared_matrices
from llama import PROJECTIONS, Llama, LlamaConfig, random_weights
from llama_config import read_config
from peft import Adapter, LoRALinear, PrefixTuning, PromptTuning
from real_models import family_files, hub, patterns
from real_models.lora_embedding import LoRAEmbedding
from tensorfile import HubError

CODE = Path(hub.__file__).parents[1]
ARRAYS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHAPE = LlamaConfig(13, 8, 12, 2, 4, 2, rope_theta=500.0, tie_word_embeddings=False)
IDS = np.array([[0, 5, 12, 3], [1, 1, 2, 0]])


def base(dtype=np.float32, config=SHAPE, seed=0):
    return Llama(config, random_weights(config, np.random.default_rng(seed), 0.3, dtype))


def lora(model, targets=("q_proj", "v_proj"), rank=3, alpha=5.0):
    for name, module in model.modules().items():
        if name.endswith(tuple(targets)):
            model.replace(name, LoRALinear(module.weight, None, rank, alpha))


def prefix(model):
    c = model.config
    model.kv_prefix = PrefixTuning(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, 3,
                                   dtype=model.norm.weight.dtype)


def prompt(model):
    model.soft_prompt = PromptTuning(8, 4, dtype=model.norm.weight.dtype)


def houlsby(model):
    for layer in model.layers:
        layer.after_attention = Adapter(8, 2, dtype=model.norm.weight.dtype)
        layer.after_mlp = Adapter(8, 2, dtype=model.norm.weight.dtype)


def parallel(model):
    model.layers[1].parallel_mlp = Adapter(8, 2, residual=False, scale=4.0,
                                           dtype=model.norm.weight.dtype)


METHODS = {
    "lora": lora, "prefix": prefix, "prompt": prompt, "houlsby": houlsby, "parallel": parallel,
    "lora_all": lambda m: lora(m, PROJECTIONS, rank=1, alpha=0.3),
    "lora_one_layer": lambda m: lora(m, ["layers.1.self_attn.q_proj", "v_proj"]),
    "lora_embeddings": lambda m: m.replace("model.embed_tokens", LoRAEmbedding(
        m.embed_tokens.weight, 3, 5.0)),
}


def with_method(method="lora", dtype=np.float32, seed=1):
    """A model whose method has learned something."""
    model, rng = base(dtype), np.random.default_rng(seed)
    METHODS[method](model)
    for array in model.parameters().values():
        array[...] = 0.3 * rng.standard_normal(array.shape)
    return model


@pytest.fixture
def saved(tmp_path):
    hub.save_adapter(with_method(), tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(tmp_path):
    hub.save_llama(base(), tmp_path)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    hub.save_llama(base(), tmp_path, max_shard_bytes=1500)
    return tmp_path


def edit(path, **changes):
    """Change keys of a JSON file; `...` takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def header_of(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_raw(path, header, data=b""):
    """A safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def same(one, other):
    return one.keys() == other.keys() and all(
        a.dtype == other[n].dtype and np.array_equal(a, other[n]) for n, a in one.items())


# ------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_adapters_come_back_exactly(method, dtype, tmp_path):
    model, again = with_method(method, dtype), base(dtype)
    hub.save_adapter(model, tmp_path / "new" / "folder", base_model="tiny")
    hub.load_adapter(again, tmp_path / "new" / "folder", base_model="tiny")
    assert same(model.parameters(), again.parameters())
    assert np.array_equal(model.forward(IDS), again.forward(IDS))
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == [CONFIG, ARRAYS]
    hub.save_adapter(again, tmp_path / "twice", base_model="tiny")
    one, two = tmp_path / "new" / "folder", tmp_path / "twice"
    assert header_of(one / ARRAYS) == header_of(two / ARRAYS)
    assert (one / CONFIG).read_bytes() == (two / CONFIG).read_bytes()


@given(st.integers(1, 64), st.floats(1e-3, 1e3))
def test_alpha_comes_back_to_the_last_bit(rank, alpha):
    layer = LoRALinear(np.ones((64, 64), np.float32), None, rank, alpha)
    assert family_files._alpha(layer, False) / rank == layer.lora.scaling


def test_lora_settings_are_those_that_peft_reads(saved):
    config = json.loads((saved / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 5)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    names = set(load_file(saved / ARRAYS))
    assert "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight" in names
    assert len(names) == 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_checkpoints_come_back_exactly_in_one_file_and_in_shards(dtype, tmp_path):
    model = base(dtype)
    hub.save_llama(model, tmp_path / "one", eos_token_id=3)
    hub.save_llama(model, tmp_path / "many", max_shard_bytes=1500)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    assert json.loads((tmp_path / "one" / "config.json").read_text())["eos_token_id"] == 3
    for folder in ("one", "many"):
        again = hub.load_llama(tmp_path / folder, dtype)
        assert again.config == SHAPE and same(model.weights(), again.weights())
        assert np.array_equal(model.forward(IDS), again.forward(IDS))


def test_half_precision_is_widened_exactly(checkpoint):
    bits = np.arange(0, 2 ** 16, dtype=np.uint32) << 16  # every bfloat16, as float32
    numbers = bits.view(np.float32)
    write_raw(checkpoint / "x", {"x": {"dtype": "BF16", "shape": [256, 256],
                                       "data_offsets": [0, 2 ** 17]}},
              np.arange(0, 2 ** 16, dtype="<u2").tobytes())
    tensor = tensorfile.read_header(checkpoint / "x")[0]["x"]
    found = tensorfile.read_tensor(tensor)
    assert np.array_equal(found.ravel(), numbers, equal_nan=True)
    with np.errstate(over="ignore"):
        halves = {n: w.astype(np.float16) for n, w in base().weights().items()}
    save_file(halves, checkpoint / SINGLE)
    model = hub.load_llama(checkpoint)
    assert same(model.weights(), {n: w.astype(np.float32) for n, w in halves.items()})


def test_a_mapped_checkpoint_can_be_trained_and_leaves_the_file_alone(checkpoint):
    before = (checkpoint / SINGLE).read_bytes()
    model = hub.load_llama(checkpoint)
    assert all(isinstance(w.base, np.memmap) for w in model.weights().values())
    model.weights()["model.norm.weight"][...] = 7
    assert (checkpoint / SINGLE).read_bytes() == before
    hub.save_llama(model, checkpoint)  # over the file that is mapped
    assert (hub.load_llama(checkpoint).norm.weight == 7).all()


def test_arrays_that_start_at_odd_bytes_are_read(tmp_path):
    values = np.arange(6, dtype=np.float32)
    write_raw(tmp_path / "x", b'{"x":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}',
              values.tobytes())
    tensor = tensorfile.read_header(tmp_path / "x")[0]["x"]
    assert tensor.offset % 4
    found = tensorfile.read_tensor(tensor)
    assert found.flags.aligned and np.array_equal(found, values)


@pytest.mark.parametrize("method", ["lora_all", "lora_embeddings"])
def test_a_merged_checkpoint_computes_what_the_adapter_did(method, tmp_path):
    model = with_method(method, np.float64)
    hub.save_llama(model, tmp_path)
    merged = hub.load_llama(tmp_path, np.float64)
    assert not merged.parameters()
    assert np.allclose(merged.forward(IDS), model.forward(IDS), rtol=0, atol=1e-12)


MEMORY = """
import re, sys
sys.path.insert(0, {code!r})
from real_models import hub
def peak():  # not getrusage, whose peak counts the parent's memory from before exec
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
empty = peak()
model = hub.load_llama({folder!r})
print(peak() - empty)
hub.save_llama(model, {folder!r} + "/again")
print(peak() - empty)
"""


@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_a_file_system_that_cannot_map_is_read(monkeypatch, tmp_path, kind):
    """As in the browser, where a mapping of a notebook's drive fails with ENODEV."""
    arrays = {"a": np.arange(6, dtype=kind).reshape(2, 3), "b": np.ones((), kind)}
    save_file(arrays, tmp_path / "x.safetensors")

    def refuse(*_, **__):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np, "memmap", refuse)
    for name, tensor in tensorfile.read_header(tmp_path / "x.safetensors")[0].items():
        np.testing.assert_array_equal(tensorfile.read_tensor(tensor), arrays[name])


def test_an_adapter_in_bfloat16_is_that_of_its_numbers(saved):
    path = saved / "adapter_model.safetensors"
    arrays = load_file(path)
    write_bfloat16(path, arrays)
    short, wide = base(), base()
    hub.load_adapter(short, saved)
    cut = {name: (array.view(np.uint32) >> 16 << 16).view(np.float32)
           for name, array in arrays.items()}
    save_file(cut, path)
    hub.load_adapter(wide, saved)
    assert same(short.parameters(), wide.parameters()) and any(map(np.any, cut.values()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_a_checkpoint_is_never_twice_in_memory(kind, tmp_path):
    config = LlamaConfig(2000, 512, 1408, 8, 8, 8)
    weights = random_weights(config, np.random.default_rng(0))
    total = sum(w.nbytes for w in weights.values())
    assert total > 100e6
    if kind == "F32":
        hub.save_llama(Llama(config, weights), tmp_path)
    else:
        write_bfloat16(tmp_path / SINGLE, weights)
        (tmp_path / "config.json").write_text(json.dumps(config.to_hugging_face()))
    code = MEMORY.format(code=str(CODE), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for peak in map(int, done.stdout.split()):
        assert 0.9 * total < peak < 1.3 * total


def test_old_files_with_computed_frequencies_and_a_stored_tied_head_are_read(tmp_path):
    model = base(config=LlamaConfig(13, 8, 12, 2, 4, 2))
    hub.save_llama(model, tmp_path)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
            "lm_head.weight": model.lm_head.weight.copy()}
    save_file(model.weights() | more, tmp_path / SINGLE)
    assert same(hub.load_llama(tmp_path).weights(), model.weights())
    more["lm_head.weight"][0, 0] += 1
    save_file(model.weights() | more, tmp_path / SINGLE)
    with pytest.raises(HubError, match="lm_head.weight differs"):
        hub.load_llama(tmp_path)


@pytest.mark.parametrize("name, said", [
    ("score.weight", "first 'score.weight'; .*head of a classifier"),
    ("classifier.weight", "head of a classifier"), ("lm_head.weight.absmax", "quantized"),
    ("base_model.model.lm_head.lora_A.weight", "an adapter"),
    ("_orig_mod.lm_head.weight", "torch.compile"), ("module.lm_head.weight", "DDP"),
    ("model._fsdp_wrapped_module.lm_head.weight", "FSDP")])
def test_an_arrays_name_tells_what_the_file_is(name, said, checkpoint):
    arrays = load_file(checkpoint / SINGLE)
    arrays[name] = arrays.pop("lm_head.weight")
    save_file(arrays, checkpoint / SINGLE)
    with pytest.raises(HubError, match=said):
        hub.load_llama(checkpoint)


GOOD_JSON = json.dumps(SHAPE.to_hugging_face())
#: What Python's own readers say changes from version to version: of a comma too many, of objects
#: and of lists in each other, and of a path that is too long.
COMMA = "column 9 on, where '}" if sys.version_info < (3, 13) else "column 8 on, where ',}"
DEEP = ["too many" if sys.version_info < since else "ends too early"
        for since in ((3, 13), (3, 14))]
FAR = "config.json: File name too long" if sys.version_info < (3, 14) else "there is no folder"
BYTES = {  # what may lie under a file's name, and what must be said of it
    "an empty file": (b"", "is empty"), "spaces": (b" \n ", "no JSON|a text"),
    "a pointer after a mark": (b"\xef\xbb\xbfversion https://git-lfs.github.com", "Git LFS"),
    "HTML after a mark": (b"\xef\xbb\xbf<!DOCTYPE html><p>", "a page of HTML"),
    "HTML in UTF-16": ("<html><p>Sorry</p></html>".encode("utf-16"), "UTF-8"),
    "JSON after a mark": (b"\xef\xbb\xbf" + GOOD_JSON.encode(), "byte order mark"),
    "JSON in UTF-16": (GOOD_JSON.encode("utf-16"), "as UTF-8"),
    "JSON in Latin-1": (b'{"\xe9": 1}' + bytes(9), "from byte 2|no safetensors"),
    "a server's excuse": (b"Entry not found", "no JSON|'Entry not found'"),
    "xz": (b"\xfd7zXZ\0" + bytes(60), "compressed"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(60), "compressed"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
    "NumPy": (b"\x93NUMPY\1\0" + bytes(60), "without a name"),
    "bzip2": (b"BZh91AY" + bytes(60), "compressed"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(60), "compressed"),
    "tar": (b"model/" + bytes(251) + b"ustar\x0000" + bytes(99), "archive of tar"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3" + bytes(60), "PDF"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(60), "ONNX"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(60), "picture"),
    "conflict markers": (b'<<<<<<< HEAD\n{"a": 1}\n=======\n{}\n>>>>>>> other\n', "git's conflict"),
    "conflict inside": (b'{"a": 1,\n<<<<<<< HEAD\n"b": 1\n=======\n"b": 2\n>>>>>>> x\n}',
                        "git's conflict|cut off"),
    "half a character": (b'{"a": "\\ud800"}', "half a character|a text"),
    "a list": (b"[1, 2]", "got a list|a text"), "null": (b"null", "got null|a text"),
    "true": (b"true", "true or false|a text"), "a word": (b'"llama"', "got a text|a text"),
    "no name for a brace": (b"{'a': 1}" + b" " * 9, "no JSON|a text"),
    "zeros": (bytes(600), "zero at its beginning"),
    "a text that ends": (b'{"a": "c', "ends too early|a text"),
    "a comma too many": (b'{"a": 1,}', f"{COMMA}' stands|a text"),
    "a number beyond all": (b'{"a": 1e999999}', "beyond every number|a text"),
    "a deep nest": (b'{"a":' * 10_000, "brackets|values in|a text|cut off"),
}


@pytest.mark.parametrize("file", ["config.json", SINGLE])
@pytest.mark.parametrize("case", BYTES)
def test_any_bytes_under_a_files_name_are_called_what_they_are(case, file, checkpoint):
    data, said = BYTES[case]
    (checkpoint / file).write_bytes(data)
    with pytest.raises(HubError, match=f"{file}.*({said})") as error:
        hub.load_llama(checkpoint)
    assert str(error.value).count(file) == 1
    assert not any(word in str(error.value) for word in (
        "codec", "NoneType", "a str", "ufunc", "Expecting", "delimiter", "char ", "b'"))


@pytest.mark.parametrize("length", [0, 1, 2 ** 63 - 9, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1])
def test_any_length_of_a_header_is_compared_with_the_files(length, checkpoint):
    path = checkpoint / SINGLE
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(HubError, match=f"{length:,} bytes|must begin|no JSON"):
        hub.load_llama(checkpoint)


ODD = [-1, 0, 2.5, True, "2", [2], {"a": 2}, 10 ** 30, 10 ** 400, 1e308, 1e-320]
NUMBERS = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
           "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
           "rms_norm_eps", "sliding_window"]


@pytest.mark.parametrize("key", [*NUMBERS, "model_type", "hidden_act", "rope_scaling",
                                 "architectures", "layer_types", "mlp_bias"])
def test_an_odd_value_is_refused_by_its_key(key, checkpoint):
    path = checkpoint / "config.json"
    good = path.read_text()
    for value in ODD:
        if value == 0 and key in ("rope_scaling", "architectures"):  # as good as nothing
            continue
        path.write_text(good)
        edit(path, **{key: value})
        with pytest.raises(HubError, match=f"config.json: .*({key}|RoPE)") as error:
            read_config(path)
        assert len(str(error.value)) < 600 and "object is not" not in str(error.value)


@pytest.mark.parametrize("size", [25_000, 1_000_000])
@pytest.mark.parametrize("unit", [b"[],", b'{"":0},', b"257,", b'"abcdef",', '"😀aa",'.encode(),
                                  b'"%010d":1,', b'"%014d":1,', '"😀%010d":1,'.encode()])
def test_json_of_many_small_values_takes_little_memory(unit, size):
    many = b"".join(unit % i if b"%" in unit else unit for i in range(size // len(unit)))
    data = b"{" + many + b'"":0}' if b"%" in unit else b'{"a":[' + many + b"0]}"
    tracemalloc.start()
    try:
        tensorfile.parse(data, "x")
    except HubError as error:
        assert "values in" in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * len(data)


def test_the_file_that_an_index_stands_beside_counts(sharded):
    """As in transformers: with both there, it is the single file that is read."""
    other = base(seed=3)
    hub.save_llama(other, sharded)
    (sharded / "training_args.bin").write_bytes(b"no weights")
    assert (sharded / INDEX).exists() and same(hub.load_llama(sharded).weights(), other.weights())


def test_two_shards_are_found_again_in_a_folder_that_is_made(tmp_path):
    model, folder = base(), tmp_path / "new" / "folder"
    total = sum(w.nbytes for w in model.weights().values())
    hub.save_llama(model, folder, max_shard_bytes=total - 1)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        INDEX]
    assert same(hub.load_llama(folder).weights(), model.weights())


def test_no_file_is_too_large_for_a_memory_stick():
    """A file on a FAT file system has less than 4 GiB."""
    limit = inspect.signature(hub.save_llama).parameters["max_shard_bytes"].default
    assert 0.9 * 2 ** 32 < limit < 2 ** 32


def test_a_fingerprint_is_a_hash_of_evenly_spaced_values_of_every_weight():
    """Written out from its description: adapters that were saved must always find their base."""
    config = LlamaConfig(300, 8, 12, 1, 4, 2)
    weights = random_weights(config, np.random.default_rng(0), 0.3)
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        step = 2 if name == "model.embed_tokens.weight" else 1  # 2,400 values; all others are few
        digest.update(name.encode())
        for value in weight.ravel().tolist()[::step]:
            digest.update(struct.pack("<d", value))
    assert hub.fingerprint(Llama(config, weights)) == digest.hexdigest()
    larger = LlamaConfig(256, 8, 12, 1, 4, 2)  # 2,048 values: every second one is 1,024
    weights = random_weights(larger, np.random.default_rng(0), 0.3)
    before = hub.fingerprint(Llama(larger, weights))
    weights["model.embed_tokens.weight"][0, 1] += 1
    assert hub.fingerprint(Llama(larger, weights)) == before
    weights["model.embed_tokens.weight"][0, 2] += 1
    assert hub.fingerprint(Llama(larger, weights)) != before


def test_hugging_faces_defaults_fill_a_short_config(checkpoint):
    edit(checkpoint / "config.json", tie_word_embeddings=..., max_position_embeddings=...)
    config = read_config(checkpoint / "config.json")
    assert not config.tie_word_embeddings and config.max_position_embeddings == 2048
    edit(checkpoint / "config.json", num_key_value_heads=..., rms_norm_eps=...)
    config = read_config(checkpoint / "config.json")
    assert config.num_key_value_heads == 4 and config.rms_norm_eps == 1e-6


@pytest.mark.parametrize("rope", [
    {"rope_parameters": ..., "rope_theta": 500.0}, {"rope_theta": ...},
    {"rope_scaling": {"type": "default", "rope_type": "default", "rope_theta": 500.0},
     "rope_parameters": ..., "rope_theta": ...}])  # as three generations of transformers write it
def test_plain_rope_is_read_however_it_is_written(rope, checkpoint):
    edit(checkpoint / "config.json", **rope)
    assert read_config(checkpoint / "config.json").rope_theta == 500.0


@pytest.mark.parametrize(("key", "limit"), [
    ("num_hidden_layers", 1_000), ("max_position_embeddings", 1_048_576),
    ("vocab_size", 16_777_216), ("intermediate_size", 16_777_216)])
def test_sizes_are_limited_far_above_every_real_model(key, limit, checkpoint):
    """Larger than Llama 3.1's 405 B: 126 layers, 131,072 positions, vocabulary 128,256."""
    edit(checkpoint / "config.json", **{key: limit})
    assert getattr(read_config(checkpoint / "config.json"), key) == limit
    edit(checkpoint / "config.json", **{key: limit + 1})
    with pytest.raises(HubError, match=f"json: {key} is above {limit:,}: no such model"):
        read_config(checkpoint / "config.json")


# --------------------------------------------------------------------- malformed files of arrays


def change_entry(**changes):
    def damage(path):
        header, data = header_of(path)
        name = sorted(n for n in header if n != "__metadata__")[0]
        header[name] |= changes
        write_raw(path, header, data)
    return damage


def rewrite(change):
    """Arrays that are sound, but not those that are needed."""
    def damage(path):
        arrays = load_file(path)
        change(arrays)
        save_file(arrays, path)
    return damage


def rename(arrays, old="q_proj", new="q_porj"):
    for name in [n for n in arrays if old in n]:
        arrays[name.replace(old, new)] = arrays.pop(name)


def first(arrays):
    return arrays[sorted(arrays)[0]]


def overlap(path):
    header, data = header_of(path)
    entries = sorted((e for n, e in header.items() if n != "__metadata__"),
                     key=lambda e: e["data_offsets"])
    one, two = entries[0]["data_offsets"], entries[1]["data_offsets"]
    two[:] = [one[1] - 4, two[1] - 4]
    write_raw(path, header, data)


def duplicate_key(path):
    header, data = header_of(path)
    header.pop("__metadata__")
    text = json.dumps(header)
    name, entry = next(iter(header.items()))
    write_raw(path, f"{text[:-1]}, {json.dumps(name)}: {json.dumps(entry)}}}".encode(), data)


class Trap:
    """Unpickled, it would end the test run."""

    def __reduce__(self):
        return os._exit, (13,)


BROKEN = {  # how to damage a file of arrays, and what must be said about it
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "cut in its first bytes": (lambda p: p.write_bytes(p.read_bytes()[:5]), "cut off"),
    "cut in the header": (lambda p: p.write_bytes(p.read_bytes()[:60]), "cut off"),
    "cut in the arrays": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "cut off or was added to"),
    "bytes added": (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "cut off or was added to"),
    "header longer than the file": (
        lambda p: p.write_bytes((2 ** 62).to_bytes(8, "little") + p.read_bytes()[8:]), "cut off"),
    "header too long": (
        lambda p: write_raw(p, b" " * (tensorfile.LARGEST_JSON + 1)), "header of 10,000,001 bytes"),
    "no JSON": (lambda p: write_raw(p, b"{never}"), "is no JSON"),
    "JSON without end": (lambda p: write_raw(p, b'{"a":' * 3_999), DEEP[0]),
    "JSON of another kind": (lambda p: write_raw(p, b"[1]"), "must begin with"),
    "brackets in brackets": (lambda p: write_raw(p, b'{"a":' + b"[" * 9_999), DEEP[1]),
    "a long number": (lambda p: write_raw(p, b'{"a":' + b"1" * 5000 + b"}"), "5,000 digits"),
    "not UTF-8": (lambda p: write_raw(p, b'{"\xff": 1}'), "is no text in UTF-8, from byte 2"),
    "NaN in the header": (lambda p: write_raw(p, b'{"a": NaN}'), "NaN is no number"),
    "duplicate key": (duplicate_key, "stands twice"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Trap())), "is a pickle"),
    "zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "is a zip archive"),
    "GGUF": (lambda p: p.write_bytes(b"GGUF" + bytes(99)), "is a GGUF file"),
    "HTML": (lambda p: p.write_bytes(b"\n<!DOCTYPE html><p>Sorry"), "is a page of HTML"),
    "pointer": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
                "is a Git LFS pointer"),
    "arrays left out": (lambda p: save_file({n: a[:0, 0] for n, a in load_file(p).items()}, p),
                        "is empty, of shape .0,.: DeepSpeed ZeRO-3"),
    "nothing in it": (lambda p: write_raw(p, {}), "holds no arrays: DeepSpeed ZeRO-3"),
    "wide": (lambda p: write_raw(p, b'{"a":[' + b"[]," * 200_000 + b"0]}"), "values in 600,009"),
    "half a character": (lambda p: write_raw(p, b'{"__metadata__":{"settings":"\\udc00"}}'),
                         "half a character"),
    "numbers beyond use": (rewrite(lambda a: [w.__imul__(np.float32(1e30)) for w in a.values()]),
                           "numbers of up to .e[+]29"),
    "metadata that are no strings": (
        lambda p: write_raw(p, {"__metadata__": {"format": 1}}), "strings to strings"),
    "entry that is no object": (lambda p: write_raw(p, {"a": 3}), "must have dtype, shape"),
    "entry without offsets": (
        lambda p: write_raw(p, {"a": {"dtype": "F32", "shape": [1]}}), "must have dtype, shape"),
    "unknown dtype": (change_entry(dtype="F8_E4M3"), "is stored as 'F8_E4M3'"),
    "dtype that is no text": (change_entry(dtype=["F32"]), "is stored as"),
    "negative size": (change_entry(shape=[-3, -8]), "list of whole numbers"),
    "size that is true": (change_entry(shape=[True, 24]), "list of whole numbers"),
    "fractional size": (change_entry(shape=[3.0, 8]), "list of whole numbers"),
    "too many axes": (change_entry(shape=[3, 8] + [1] * 7), "list of whole numbers"),
    "three offsets": (change_entry(data_offsets=[0, 4, 96]), "list of whole numbers"),
    "offsets that don't fit the shape": (change_entry(shape=[3, 9]), "is not the"),
    "offsets in reverse": (change_entry(data_offsets=[96, 0]), "is not the"),
    "offsets out of range": (
        change_entry(shape=[2 ** 40], data_offsets=[0, 2 ** 42]), "arrays overlap|cut off"),
    "absurd size": (
        change_entry(shape=[2 ** 62, 2 ** 62], data_offsets=[0, 2 ** 126]), "overlap|cut off"),
    "overlapping arrays": (overlap, "arrays overlap, or there is a hole"),
    "missing array": (rewrite(lambda a: a.pop(sorted(a)[0])), "1 missing, first"),
    "extra array": (rewrite(lambda a: a.update(extra=np.ones(3, "f4"))), "1 that do not belong"),
    "misspelt array": (rewrite(rename), "q_porj.*meant is perhaps '.*q_proj"),
    "no prefix, as PEFT would ignore": (
        rewrite(lambda a: rename(a, "base_model.model.", "")), "meant is perhaps 'base_model"),
    "transposed array": (
        rewrite(lambda a: a.update({n: w.T.copy() for n, w in a.items()})), "has shape"),
    "another module's array": (  # rightly spelt: no hint
        rewrite(lambda a: rename(a, "q_proj", "k_proj")), r"k_proj.lora_A.weight'; 4 missing"),
    "a layer's array, not there": (rewrite(lambda a: rename(a, "layers.1", "layers.11")),
                                   r"layers.11.[^;]*'; 4 missing"),
    "NaN": (rewrite(lambda a: first(a).fill(np.nan)), "holds NaN or infinity"),
    "infinity": (rewrite(lambda a: first(a).fill(np.inf)), "holds NaN or infinity"),
    "too large for float32": (
        rewrite(lambda a: a.update({n: w.astype("f8") * 1e300 for n, w in a.items()})),
        "holds NaN or infinity"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_of_arrays_is_refused(case, saved):
    damage, message = BROKEN[case]
    damage(saved / ARRAYS)
    model = base()
    with pytest.raises(HubError, match=message) as error:
        hub.load_adapter(model, saved)
    assert ARRAYS in str(error.value)
    assert not model.parameters()  # the model is as it was
    assert len(str(error.value)) < 1000


GENERAL = [case for case in BROKEN if not case.startswith((
    "misspelt", "no prefix", "transposed", "another module's", "a layer's", "arrays left out"))]


@pytest.mark.parametrize("case", [c for c in GENERAL if "in reverse" not in c])
def test_a_broken_checkpoint_is_refused(case, checkpoint):
    BROKEN[case][0](checkpoint / SINGLE)
    with pytest.raises(HubError):
        hub.load_llama(checkpoint)


@pytest.mark.parametrize("case", ["header longer than the file", "offsets out of range",
                                  "absurd size"])
def test_a_lie_about_sizes_costs_no_memory(case, saved):
    BROKEN[case][0](saved / ARRAYS)
    model = base()
    tracemalloc.start()
    with pytest.raises(HubError):
        hub.load_adapter(model, saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 ** 20


def test_no_message_commands_the_terminal(tmp_path):
    model = base()
    lora(model)
    hub.save_adapter(model, tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS,
              {"settings": '{"\\u001b]0;x\\u0007": 1}'})
    with pytest.raises(HubError, match="x1b.*the arrays were saved with 1") as error:
        hub.load_adapter(base(), tmp_path)
    assert str(error.value).isprintable()
    (tmp_path / CONFIG).unlink()
    (tmp_path / "\x1b[2J").touch()
    with pytest.raises(HubError, match="x1b") as error:
        hub.load_adapter(base(), tmp_path / "\x1b[2J")
    assert str(error.value).isprintable() and "\n" in str(HubError("a\nb"))


@pytest.mark.parametrize("shard", [10 ** 9, 1])
def test_weights_beside_another_models_configuration_are_refused(shard, tmp_path):
    """As when saving is stopped after the weights, which are the first to get their names."""
    old, new = (LlamaConfig(13, 8, 12, 2, 4, 2, rms_norm_eps=eps) for eps in (1e-6, 1e-2))
    for config in (old, new):
        hub.save_llama(base(config=config), tmp_path / str(config.rms_norm_eps),
                       max_shard_bytes=shard, eos_token_id=2, max_position_embeddings=64)
    hub.load_llama(tmp_path / "0.01")
    shutil.copy(tmp_path / "1e-06/config.json", tmp_path / "0.01")
    with pytest.raises(HubError, match="rms_norm_eps is 1e-06, but the arrays were saved with"):
        hub.load_llama(tmp_path / "0.01")


@pytest.mark.parametrize("kind", ["a tied head", "a base weight of an adapter"])
def test_a_copy_of_another_shape_is_refused_before_it_is_read(kind, tmp_path):
    """With holes in it such a file takes a few kilobytes of a disk and gigabytes of memory."""
    model = base(config=LlamaConfig(13, 8, 12, 2, 4, 2))
    if kind == "a tied head":
        hub.save_llama(model, tmp_path)
        path, key, said = tmp_path / SINGLE, "lm_head.weight", "lm_head.weight differs"
        load = hub.load_llama, tmp_path
    else:
        lora(model)
        hub.save_adapter(model, tmp_path)
        path, key = tmp_path / ARRAYS, "base_model.model.model.embed_tokens.weight"
        said, load = "is not this base model's", (
            hub.load_adapter, base(config=LlamaConfig(13, 8, 12, 2, 4, 2)), tmp_path)
    header, data = header_of(path)
    header[key] = {"dtype": "BF16", "shape": [2 ** 24],
                   "data_offsets": [len(data), len(data) + 2 ** 25]}
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data)
    os.truncate(path, path.stat().st_size + 2 ** 25)
    tracemalloc.start()
    try:
        with pytest.raises(HubError, match=said):
            load[0](*load[1:])
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
def test_nan_in_a_stored_tied_head_is_called_nan(name, tmp_path):
    model = base(config=LlamaConfig(13, 8, 12, 2, 4, 2))
    hub.save_llama(model, tmp_path)
    arrays = model.weights() | {"lm_head.weight": model.lm_head.weight.copy()}
    arrays[name][0, 0] = np.nan
    save_file(arrays, tmp_path / SINGLE)
    with pytest.raises(HubError, match=f"{name} holds NaN"):
        hub.load_llama(tmp_path)


def blank_after(path, part):
    """A file made in its full length, of which only a part came."""
    _, data = header_of(path)
    whole = path.read_bytes()
    kept = len(whole) - len(data) + int(part * len(data))
    path.write_bytes(whole[:kept] + bytes(len(whole) - kept))


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.5, 0.9, 0.97, 0.997])
def test_a_download_that_broke_off_is_refused_though_the_file_has_its_length(part, tmp_path):
    hub.save_llama(base(config=LlamaConfig(500, 64, 96, 2, 4, 2, tie_word_embeddings=False)),
                   tmp_path)
    blank_after(tmp_path / SINGLE, part)
    zero = "is zero (throughout|in a large part|at its end)"
    with pytest.raises(HubError, match=f"{SINGLE}: .* {zero}.*fetch"):
        hub.load_llama(tmp_path)


@pytest.mark.parametrize("part", [0, 0.3, 0.7])
@pytest.mark.parametrize("method", ["lora", "prefix", "houlsby"])
def test_an_adapter_of_which_only_a_part_came_is_refused(method, part, tmp_path):
    model = with_method(method)
    if method == "prefix":
        model.kv_prefix = PrefixTuning(2, 2, 2, 40)
        model.kv_prefix.prefix[...] = 1
    hub.save_adapter(model, tmp_path)
    blank_after(tmp_path / ARRAYS, part)
    if (method, part) == ("prefix", 0):  # a prefix may begin at zero
        return hub.load_adapter(base(), tmp_path)
    with pytest.raises(HubError, match="is zero (throughout|in a).*fetch"):
        hub.load_adapter(base(), tmp_path)


def test_an_end_that_is_missing_is_found_in_a_large_array(tmp_path):
    model = base(config=LlamaConfig(50, 128, 96, 1, 4, 2))
    model.weights()["model.layers.0.self_attn.q_proj.weight"].reshape(-1)[-1100:] = 0
    hub.save_llama(model, tmp_path)
    with pytest.raises(HubError, match="q_proj.weight is zero at its end"):
        hub.load_llama(tmp_path)


@pytest.mark.parametrize("key", ["A", "B"])
def test_a_hole_in_an_adapters_array_is_found(key, tmp_path):
    """Where a download of several parts at once lacks one of them."""
    model = base(config=LlamaConfig(50, 128, 96, 1, 4, 2))
    lora(model, ("q_proj",))
    arrays = {name[-1]: array for name, array in model.parameters().items()}
    for array in arrays.values():
        array[...] = 1
    arrays[key].reshape(-1)[:200] = 0
    hub.save_adapter(model, tmp_path)
    with pytest.raises(HubError, match=f"lora_{key}.weight is zero in a large part"):
        hub.load_adapter(base(config=model.config), tmp_path)


def test_zeros_that_are_meant_are_no_obstacle(tmp_path):
    """A fresh adapter, layers put in between, and rows that fill up a vocabulary."""
    model = base()
    lora(model)
    hub.save_adapter(model, tmp_path)
    hub.load_adapter(base(), tmp_path)
    model = base(config=LlamaConfig(500, 8, 12, 2, 4, 2))
    for name, weight in model.weights().items():
        if name.endswith(("layers.1.self_attn.o_proj.weight", "layers.1.mlp.down_proj.weight")):
            weight[...] = 0
    model.weights()["model.embed_tokens.weight"][480:] = 0
    hub.save_llama(model, tmp_path)
    assert same(hub.load_llama(tmp_path).weights(), model.weights())


@pytest.mark.parametrize("bytes_in_a_shard", [4e9, 1])  # the head among others, or in a file alone
def test_a_head_that_nobody_trained_is_noted_and_loads(bytes_in_a_shard, tmp_path):
    """muP starts the output layer and the queries at zero."""
    model = base(config=LlamaConfig(500, 64, 96, 2, 4, 2, tie_word_embeddings=False))
    for name, weight in model.weights().items():
        if name.endswith(("lm_head.weight", "q_proj.weight")):
            weight[...] = 0
    hub.save_llama(model, tmp_path, max_shard_bytes=int(bytes_in_a_shard))
    with pytest.warns(UserWarning, match="3 of 21 arrays .* first model.layers.0.self_attn.q_proj"):
        assert same(hub.load_llama(tmp_path).weights(), model.weights())


@pytest.mark.parametrize("last", [  # of the file; the arrays stand in the order of their names
    "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.v_proj.weight"])
def test_zeros_up_to_the_end_of_a_file_are_refused_though_they_are_whole_arrays(last, tmp_path):
    hub.save_llama(base(config=LlamaConfig(500, 64, 96, 2, 4, 2, tie_word_embeddings=False)),
                   tmp_path)
    tensor = tensorfile.read_header(tmp_path / SINGLE)[0][last]
    whole = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:tensor.offset] + bytes(len(whole) - tensor.offset))
    with pytest.raises(HubError, match=f"{last} is zero throughout.*fetch"):
        hub.load_llama(tmp_path)


@pytest.mark.parametrize("kind", ["shard", "vocabulary", "adapter"])
def test_a_file_that_ends_in_the_middle_of_its_last_array_is_refused(kind, tmp_path):
    """However little is missing: no part of an eighth is zero."""
    config = LlamaConfig(500, 64, 96, 2, 4, 2)
    model = base(config=config)
    if kind == "adapter":
        lora(model, rank=8)
        for array in model.parameters().values():
            array[...] = 1
        hub.save_adapter(model, tmp_path)
        path = tmp_path / ARRAYS
    else:
        hub.save_llama(model, tmp_path, max_shard_bytes=1)
        path = tmp_path / f"model-0000{8 if kind == 'shard' else 1}-of-00020.safetensors"
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    zero = "is zero (in a large part|at its end)"
    with pytest.raises(HubError, match=f"{path.name}: .*{zero}.*fetch"):
        hub.load_adapter(base(config=config), tmp_path) if kind == "adapter" else (
            hub.load_llama(tmp_path))


def test_a_hole_in_a_file_that_swallows_a_matrix_is_refused(tmp_path):
    """As several connections leave it, of which one broke off: zeros around a whole matrix."""
    hub.save_llama(base(config=LlamaConfig(500, 64, 96, 2, 4, 2, tie_word_embeddings=False)),
                   tmp_path)
    tensor = tensorfile.read_header(tmp_path / SINGLE)[0]["model.layers.1.self_attn.q_proj.weight"]
    whole, start, end = (tmp_path / SINGLE).read_bytes(), tensor.offset - 256, tensor.offset + 16640
    (tmp_path / SINGLE).write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    with pytest.raises(HubError, match="q_proj.weight is zero throughout.*fetch"):
        hub.load_llama(tmp_path)


def test_arrays_that_are_fit_alone_but_not_together_are_refused(saved):
    rewrite(lambda a: [w.__imul__(np.float32(1e5)) for w in a.values()])(saved / ARRAYS)
    with pytest.raises(HubError, match="model.layers.0.* may change weights by .e[+]"):
        hub.load_adapter(base(), saved)


@pytest.mark.parametrize("index", ["adapter_model.safetensors.index.json", INDEX])
def test_an_adapter_in_several_files_is_read(index, saved):
    """As transformers writes it, with the index named after a model's."""
    arrays, before = load_file(saved / ARRAYS), base()
    hub.load_adapter(before, saved)
    (saved / ARRAYS).unlink()
    files = {name: f"adapter_model-0000{i % 2 + 1}-of-00002.safetensors"
             for i, name in enumerate(sorted(arrays))}
    for file in set(files.values()):
        save_file({n: a for n, a in arrays.items() if files[n] == file}, saved / file)
    (saved / index).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    model = base()
    hub.load_adapter(model, saved)
    assert same(model.parameters(), before.parameters())
    (saved / file).unlink()
    with pytest.raises(HubError, match=f"no file {file}"):
        hub.load_adapter(base(), saved)


# ---------------------------------------------------------------------- settings that don't fit


WRONG_SETTINGS = {
    "rank": ({"r": 2}, "r is 2, but the arrays were saved with 3"),
    "alpha": ({"lora_alpha": 16}, "lora_alpha is 16, but the arrays were saved with 5"),
    "no rank": ({"r": ...}, "r is None, but"),
    "method": ({"peft_type": "LOHA"}, "peft_type must be one of"),
    "no method": ({"peft_type": ...}, "peft_type must be one of"),
    "method of lists": ({"peft_type": ["LORA"]}, "peft_type must be one of"),
    "DoRA": ({"use_dora": True}, "lora_magnitude_vector"),
    "rsLoRA": ({"use_rslora": True}, "use_rslora is True, but the arrays were saved with False"),
    "rank pattern": ({"rank_pattern": {"q_proj": 9}}, "rank_pattern is .*9.*, but the arrays"),
    "modules trained whole": ({"modules_to_save": ["lm_head"]}, "modules_to_save.*not compute.*"
                            "merge_and_unload"),
    "a zero of the future": ({"use_magic": 0}, "use_magic.*does not compute"),
    "layers of another name": ({"layers_pattern": "blocks"}, "layers_pattern is 'blocks'"),
    "layer 0 alone": ({"layers_to_transform": 0}, "4 that do not belong there"),
    "no such layer": ({"layers_to_transform": [-1]}, r"is left in layers_to_transform \[-1\]"),
    "layers of text": ({"layers_to_transform": ["0"]}, "layers_to_transform is .'0'."),
    "layers that are true": ({"layers_to_transform": True}, "layers_to_transform is .True."),
    "all left out": ({"exclude_modules": ["q_proj", "v_proj"]}, "no module of this model is left"),
    "wrong exclusion": ({"exclude_modules": 3}, "exclude_modules must be a list of names, got 3"),
    "embedding": ({"target_modules": ["embed_tokens"]}, "8 that do not belong there.*2 missing, "
                  "first .*lora_embedding_A'"),
    "norm": ({"target_modules": ".*norm"}, "norm, which is no linear layer"),
    "rsLoRA of text": ({"use_rslora": "no"}, "use_rslora is 'no', but"),
    "a feature of the future": ({"use_magic": True}, "use_magic.*does not compute"),
    "biases": ({"bias": "all"}, "bias is 'all'"),
    "PiSSA, which changes the base": ({"init_lora_weights": "pissa"},
                                      "init_lora_weights is 'pissa'.*change the base model"),
    "task": ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
    "regular expression": ({"target_modules": "(a+)+$"}, "no module of this model is left"),
    "no regular expression": ({"target_modules": "(a"}, "no regular expression"),
    "misspelt target": ({"target_modules": ["q_porj"]}, "no 'q_porj', meant is perhaps 'q_proj'"),
    "fewer targets": ({"target_modules": ["q_proj"]}, "4 that do not belong there"),
    "more targets": ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, "4 missing"),
}


BY_PEFT = {  # settings under which an adapter of q and v is the same model, in a file by PEFT
    "ranks": {"r": 9, "rank_pattern": {"q_proj": 3, "self_attn.v_proj": 3, "v_proj": 2}},
    "alphas": {"lora_alpha": 1, "alpha_pattern": {".*v_proj": 5,
                                                  r"layers\.\d+\.self_attn.q_proj": 5}},
    "patterns without effect": {"rank_pattern": {"k_proj": 7}, "alpha_pattern": {"proj": 7}},
    "rsLoRA": {"lora_alpha": 5 / 3 ** 0.5, "use_rslora": True},
    "regular expression": {"target_modules": r".*\.self_attn\.(q|v)_proj"},
    "exclusions": {"target_modules": ["q_proj", "v_proj", "k_proj"], "exclude_modules": ["k_proj"]},
    "exclusion": {"target_modules": ".*[qkv]_proj", "exclude_modules": ".*k_proj"},
    "layers": {"layers_to_transform": [0, 1, 2], "layers_pattern": "layers"},
    "EVA": {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}, "ensure_weight_tying": True},
}


@pytest.mark.parametrize("case", BY_PEFT)
def test_settings_that_say_the_same_give_the_same_model(case, saved):
    save_file(load_file(saved / ARRAYS), saved / ARRAYS)
    edit(saved / CONFIG, **BY_PEFT[case])
    model, same_model = base(np.float64), with_method(dtype=np.float64)
    hub.load_adapter(model, saved)
    for name, array in same_model.parameters().items():
        array[...] = model.parameters()[name]
    assert np.allclose(model.forward(IDS), same_model.forward(IDS), rtol=0, atol=1e-14)


def test_layer_0_is_a_layer(tmp_path):
    model, again = base(), base()
    lora(model, ["layers.0.self_attn.q_proj"])
    hub.save_adapter(model, tmp_path)
    edit(tmp_path / CONFIG, target_modules=["q_proj"], layers_to_transform=0)
    hub.load_adapter(again, tmp_path)
    assert again.parameters().keys() == model.parameters().keys()


def test_every_module_may_have_a_rank_and_an_alpha_of_its_own(tmp_path):
    model, again = base(np.float64), base(np.float64)
    for i, target in enumerate(("layers.0.self_attn.q_proj", "v_proj", "lm_head")):
        lora(model, [target], rank=i + 2, alpha=i + 0.5)
    for array in model.parameters().values():
        array[...] = np.random.default_rng(1).standard_normal(array.shape)
    hub.save_adapter(model, tmp_path)
    settings = json.loads((tmp_path / CONFIG).read_text())
    assert (settings["r"], settings["lora_alpha"]) == (3, 1.5)
    assert settings["rank_pattern"] == {"model.layers.0.self_attn.q_proj": 2, "lm_head": 4}
    hub.load_adapter(again, tmp_path)
    assert same(model.parameters(), again.parameters())
    assert np.array_equal(model.forward(IDS), again.forward(IDS))


def test_an_output_layer_beside_its_adapter_must_be_the_models_own(tmp_path):
    model = base()
    lora(model, ["lm_head"])
    hub.save_adapter(model, tmp_path)
    arrays = load_file(tmp_path / ARRAYS)
    key = "base_model.model.lm_head.base_layer.weight"
    weight, again = model.modules()["lm_head"].weight, base()
    save_file(arrays | {key: weight}, tmp_path / ARRAYS)
    hub.load_adapter(again, tmp_path)
    assert again.parameters().keys() == {"lm_head.A", "lm_head.B"}
    for other in (weight + 1, weight[1:]):
        save_file(arrays | {key: other}, tmp_path / ARRAYS)
        with pytest.raises(HubError, match=f"{key} is not this base model's lm_head.weight"):
            hub.load_adapter(base(), tmp_path)
    tied = base(config=LlamaConfig(13, 8, 12, 2, 4, 2))
    with pytest.raises(HubError, match="lm_head, which is the embedding"):
        hub.load_adapter(tied, tmp_path)


def test_an_embedding_moves_alone_where_the_output_layer_is_the_same_table(tmp_path):
    """What PEFT computes, as test_hub_parity.py shows; it has no merged form, and no tied one."""
    model, again = (base(config=LlamaConfig(13, 8, 12, 2, 4, 2)) for _ in range(2))
    table = model.embed_tokens.weight.copy()
    METHODS["lora_embeddings"](model)
    for array in model.parameters().values():
        array[...] = np.random.default_rng(1).standard_normal(array.shape)
    hub.save_adapter(model, tmp_path)
    hub.load_adapter(again, tmp_path)
    assert same(model.parameters(), again.parameters())
    assert np.array_equal(again.lm_head.weight, table)
    with pytest.raises(HubError, match="embed_tokens is the output layer's table.*tie_word"):
        hub.save_llama(model, tmp_path / "merged")
    edit(tmp_path / CONFIG, ensure_weight_tying=True)
    with pytest.raises(HubError, match="ensure_weight_tying is True and .* embed_tokens"):
        hub.load_adapter(base(config=model.config), tmp_path)


@pytest.mark.parametrize(("changes", "said", "merge"), [
    ({"modules_to_save": ["score"], "task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'", False),
    ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens", False),
    ({"layer_replication": [[0, 1]]}, "layer_replication", False),
    ({"lora_bias": True}, "lora_bias", False), ({"fan_in_fan_out": True}, "fan_in_fan_out", True)])
def test_merging_is_advised_where_peft_can(changes, said, merge, saved):
    settings = json.loads((saved / CONFIG).read_text())
    settings.pop("task_type")  # to stand last, as PEFT's sorted keys have it
    (saved / CONFIG).write_text(json.dumps(settings | changes))
    with pytest.raises(HubError, match=said) as error:
        hub.load_adapter(base(), saved)
    assert ("merge_and_unload" in str(error.value)) == merge


WITHOUT_METADATA = {  # the file of arrays as PEFT writes it: the settings stand alone
    "no rank": ("lora", {"r": ...}, "r must be an integer, got None"),
    "rank 0": ("lora", {"r": 0}, "r must be at least 1, got 0"),
    "alpha of text": ("lora", {"lora_alpha": "16"}, "lora_alpha must be a number, got '16'"),
    "absurd alpha": ("lora", {"lora_alpha": 1e308}, "lora_alpha must be from 1e-06 to 1e.06, got"),
    "vanishing alpha": ("lora", {"lora_alpha": 1e-300}, "lora_alpha must be from 1e-06 to"),
    "huge alpha": ("lora", {"lora_alpha": 10 ** 400}, "lora_alpha must be from 1e-06 to"),
    "absurd own alpha": ("lora", {"alpha_pattern": {"q_proj": 1e99}}, "alpha_pattern must be from"),
    "own rank 0": ("lora", {"rank_pattern": {"q_proj": 0}}, "rank_pattern must be at least 1"),
    "ranks in a list": ("lora", {"rank_pattern": [8]}, "rank_pattern must map names to numbers"),
    "no targets": ("lora", {"target_modules": []}, r"target_modules must be a list .* got \[\]"),
    "targets of numbers": ("lora", {"target_modules": ["q_proj", 3]},
                           r"target_modules must be a list of names, got \['q_proj', 3\]"),
    "no tokens": ("prefix", {"num_virtual_tokens": 0}, "num_virtual_tokens must be at least 1"),
    "heads": ("prefix", {"num_attention_heads": 4}, "num_attention_heads is 4, but it is 2 for"),
    "heads of a prompt": ("prompt", {"num_attention_heads": 2},
                          "num_attention_heads is 2, but it is 4 for"),
    "two prompts": ("prompt", {"num_transformer_submodules": 2},
                    "num_transformer_submodules is 2, but it is 1 for"),
    "no bottleneck": ("houlsby", {"bottleneck_dim": 0}, "bottleneck_dim must be at least 1"),
    "no scale": ("houlsby", {"scale": 0}, "scale must be from 1e-06 to 1e.06, got 0"),
    "residual of text": ("houlsby", {"residual": "yes"}, "residual must be true or false, got"),
    "no slots": ("houlsby", {"slots": ...}, "slots must be a list of names, got None"),
    "wrong slot": ("houlsby", {"slots": ["after_mlp"]}, "slots: this model has no 'after_mlp'"),
}


@pytest.mark.parametrize("case", WITHOUT_METADATA)
def test_a_setting_is_refused_by_its_name(case, tmp_path):
    method, changes, message = WITHOUT_METADATA[case]
    hub.save_adapter(with_method(method), tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    edit(tmp_path / CONFIG, **changes)
    with pytest.raises(HubError, match=f"{CONFIG}: {message}"):
        hub.load_adapter(base(), tmp_path)


@pytest.mark.parametrize("entry", [
    {"dtype": "I4", "shape": [1], "data_offsets": [0, 4]}, 3,
    {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}])
def test_an_arrays_endless_name_is_shortened(entry, tmp_path):
    write_raw(tmp_path / "x", {"n" * 200_000: entry}, bytes(8))
    with pytest.raises(HubError, match="nnn") as error:
        tensorfile.read_header(tmp_path / "x")
    assert len(str(error.value)) < 1000


LONG = {  # within the limits of JSON, and would be compared for hours
    "ranks": {"rank_pattern": {f"layers.{i}.x_proj": 2 for i in range(200_000)}},
    "alphas": {"alpha_pattern": {f"layers.{i}.x_proj": 2 for i in range(200_000)}},
    "targets": {"target_modules": ["q_proj"] * 200_000},
    "excluded": {"exclude_modules": ["k_proj"] * 200_000},
    "layers": {"layers_to_transform": [10 ** 12] * 200_000},
}


@pytest.mark.parametrize("case", LONG)
def test_so_many_entries_that_comparing_them_takes_hours_are_refused_at_once(case, tmp_path):
    hub.save_adapter(with_method("lora"), tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    edit(tmp_path / CONFIG, **LONG[case])
    begun, (key,) = time.process_time(), LONG[case]
    with pytest.raises(HubError, match=f"{CONFIG}: {key} has 200,000 entries"):
        hub.load_adapter(base(), tmp_path)
    assert time.process_time() - begun < 10


def test_as_many_patterns_as_are_read_take_no_time(tmp_path):
    hub.save_adapter(with_method("lora"), tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    edit(tmp_path / CONFIG, rank_pattern={f"layers.{i}.x_proj": 3 for i in range(hub.MOST_ENTRIES)})
    begun = time.process_time()
    hub.load_adapter(base(), tmp_path)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_are_short_alone_have_a_limit_together(key, tmp_path, monkeypatch):
    hub.save_adapter(with_method("lora"), tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    slow = "(?:" + "|".join([".*"] * 30 + ["."] * 395) + ")*x"
    edit(tmp_path / CONFIG, **{key: {f"{slow}{i:03}": 3 for i in range(20)}})
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    begun = time.process_time()
    with pytest.raises(HubError, match=f"{CONFIG}: .*takes too long"):
        hub.load_adapter(base(), tmp_path)
    assert time.process_time() - begun < 3
    edit(tmp_path / CONFIG, **{key: {f"(?:[a-z]+|{i})*x": 3 for i in range(20)}})
    hub.load_adapter(base(), tmp_path)  # and the next file has its own


def test_a_match_that_is_long_alone_has_the_limit_too():
    begun = time.process_time()
    with patterns.within(0.2), pytest.raises(ValueError, match="too long"):
        patterns.fullmatch("(.*)" + 13 * "(.*.*)*" + "x", "a" * 300)
    assert time.process_time() - begun < 1.5


HARMLESS = {  # fields that PEFT fills in, with what stands in published adapters
    "auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "revision": "main",
    "base_model_name_or_path": "meta-llama/Llama-2-7b-hf", "encoder_hidden_size": 128,
    "inference_mode": True, "init_weights": True, "lora_dropout": 0.05,
    "megatron_core": "megatron.core", "peft_version": "0.17.0", "prefix_projection": True,
    "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Classify this:",
    "qalora_group_size": 16, "tokenizer_kwargs": {"use_fast": True},
    "tokenizer_name_or_path": "meta-llama/Llama-2-7b-hf", "modules_to_save": [], "use_dora": False,
}


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt"])
def test_fields_that_do_not_change_a_trained_adapter_are_no_obstacle(method, tmp_path):
    model, again = with_method(method), base()
    hub.save_adapter(model, tmp_path)
    edit(tmp_path / CONFIG, **HARMLESS)
    hub.load_adapter(again, tmp_path)  # nor need anybody name the base model
    assert same(model.parameters(), again.parameters())


@pytest.mark.parametrize("changes", [
    {"init_lora_weights": start} for start in (True, False, "gaussian", "orthogonal", ...)] + [
    {"task_type": None}, {"task_type": ...}, {"bias": ...}, {"lora_alpha": 5.0}])
def test_settings_of_how_an_adapter_began_leave_it_as_it_is(changes, saved):
    edit(saved / CONFIG, **changes)
    model = base()
    hub.load_adapter(model, saved)
    assert same(model.parameters(), with_method().parameters())


@pytest.mark.parametrize("missing", ["num_layers", "num_attention_heads", "token_dim",
                                     "num_transformer_submodules"])
def test_sizes_that_the_model_knows_may_be_missing(missing, tmp_path):
    model, again = with_method("prefix"), base()
    hub.save_adapter(model, tmp_path)
    edit(tmp_path / CONFIG, **{missing: None})
    hub.load_adapter(again, tmp_path)
    assert same(model.parameters(), again.parameters())


def test_all_linear_means_all_seven_projections(tmp_path):
    model, again = with_method("lora_all"), base()
    hub.save_adapter(model, tmp_path)
    edit(tmp_path / CONFIG, target_modules="all-linear")
    hub.load_adapter(again, tmp_path)
    assert same(model.parameters(), again.parameters()) and len(again.parameters()) == 2 * 7 * 2


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_settings_that_do_not_fit_are_refused(case, saved):
    changes, message = WRONG_SETTINGS[case]
    edit(saved / CONFIG, **changes)
    with pytest.raises(HubError, match=message):
        hub.load_adapter(base(), saved)


@pytest.mark.parametrize(("text", "message"), [
    (b"", "is empty"), (b"[]", "must be a JSON object"), (b"{", "is no JSON"),
    (b'{"r": 1, "r": 2}', "'r' stands twice"), (b'{"r": 1e999}', "'1e999' is beyond"),
    (b" " * (tensorfile.LARGEST_JSON + 1), "no such file"),
], ids=["empty", "list", "cut", "twice", "infinite", "long"])
def test_a_broken_adapter_config_is_refused(text, message, saved):
    (saved / CONFIG).write_bytes(text)
    with pytest.raises(HubError, match=message):
        hub.load_adapter(base(), saved)


def test_an_adapter_for_another_rank_is_refused_without_our_metadata_too(saved):
    save_file(load_file(saved / ARRAYS), saved / ARRAYS)  # as PEFT writes it
    hub.load_adapter(base(), saved)
    edit(saved / CONFIG, r=2)
    with pytest.raises(HubError, match=r"shape \(3, 8\).*need \(2, 8\)"):
        hub.load_adapter(base(), saved)
    for absurd in (2 ** 62, -1, 0, 2.5, "3", None, True, [3]):
        edit(saved / CONFIG, r=absurd)
        with pytest.raises(HubError):
            hub.load_adapter(base(), saved)


def test_another_base_model_is_refused(saved):
    with pytest.raises(HubError, match="another base model"):
        hub.load_adapter(base(seed=9), saved)
    with pytest.raises(HubError, match="trained on None, not on 'tiny'"):
        hub.load_adapter(base(), saved, base_model="tiny")
    save_file(load_file(saved / ARRAYS), saved / ARRAYS)  # without our fingerprint: by its shapes
    wider = LlamaConfig(13, 16, 12, 2, 4, 2, tie_word_embeddings=False)
    with pytest.raises(HubError, match="has shape.*another model"):
        hub.load_adapter(base(config=wider), saved)


@pytest.mark.parametrize(("method", "changes", "message"), [
    ("prefix", {"num_virtual_tokens": 2}, "saved with 3"),
    ("prefix", {"num_layers": 3}, "num_layers is 3, but it is 2"),
    ("prefix", {"token_dim": 8}, "token_dim is 8, but it is 4"),
    ("prompt", {"token_dim": 4}, "token_dim is 4, but it is 8"),
    ("prompt", {"num_virtual_tokens": 64}, "saved with 4"),
    ("houlsby", {"scale": 0}, "saved with 1.0"),
    ("houlsby", {"slots": ["model.layers.7.after_mlp"]}, "no 'model.layers.7.after_mlp'"),
    ("houlsby", {"slots": "after_mlp"}, "must be a list of names"),
    ("houlsby", {"slots": ["model.layers.0.self_attn"]}, "no 'model.layers.0.self_attn'"),
    ("parallel", {"residual": True}, "saved with False"),
])
def test_settings_of_the_other_methods_are_checked(method, changes, message, tmp_path):
    hub.save_adapter(with_method(method), tmp_path)
    edit(tmp_path / CONFIG, **changes)
    with pytest.raises(HubError, match=message):
        hub.load_adapter(base(), tmp_path)


def test_settings_are_checked_without_our_metadata_too(tmp_path):
    hub.save_adapter(with_method("parallel"), tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    for changes in ({"residual": "no"}, {"residual": 0}, {"scale": "4"}, {"scale": -1},
                    {"bottleneck_dim": 3}, {"bottleneck_dim": 2.0}):
        shutil.copy(tmp_path / CONFIG, tmp_path / "kept")
        edit(tmp_path / CONFIG, **changes)
        with pytest.raises(HubError):
            hub.load_adapter(base(), tmp_path)
        shutil.copy(tmp_path / "kept", tmp_path / CONFIG)
    hub.load_adapter(base(), tmp_path)


def test_more_virtual_tokens_than_positions_are_refused(tmp_path):
    model = base()
    model.soft_prompt = PromptTuning(8, 64)
    hub.save_adapter(model, tmp_path)
    with pytest.raises(HubError, match="only 64 positions"):
        hub.load_adapter(base(), tmp_path)


SIZES = [("lora", "r"), ("lora", "rank_pattern"), ("lora", "layers_to_transform"),
         ("prefix", "num_virtual_tokens"), ("prefix", "num_layers"), ("prefix", "token_dim"),
         ("prompt", "num_virtual_tokens"), ("houlsby", "bottleneck_dim"), ("vera", "r"),
         ("oft", "r"), ("oft", "oft_block_size"), ("oft", "num_cayley_neumann_terms")]


@pytest.mark.parametrize("number", [10 ** 8, 10 ** 15])
@pytest.mark.parametrize(("method", "key"), SIZES)
def test_a_number_of_a_config_alone_takes_no_memory(method, key, number, tmp_path):
    make = {"vera": lambda old: VeRALinear(old.weight, None, *shared_matrices(3, 8, 12)),
            "oft": lambda old: OFTSeriesLinear(old.weight, None, 4)}
    model = base() if method in make else with_method(method)
    if method in make:
        place = "model.layers.0.self_attn.q_proj"
        model.replace(place, make[method](model.modules()[place]))
        for array in model.parameters().values():
            array[...] = 0.3
    hub.save_adapter(model, tmp_path)
    save_file(load_file(tmp_path / ARRAYS), tmp_path / ARRAYS)
    hub.load_adapter(base(), tmp_path)  # as it was written
    other = {"oft_block_size": 0} if (method, key) == ("oft", "r") else {}
    edit(tmp_path / CONFIG, **other, **{
        key: {"q_proj": number} if key == "rank_pattern" else number})
    tracemalloc.start()
    try:
        with pytest.raises(HubError, match=rf"{key}|{number}|{number:,}|oft_R.*need"):
            hub.load_adapter(base(), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10 ** 7
    finally:
        tracemalloc.stop()


def test_a_model_that_holds_a_method_takes_no_second(saved):
    for method in METHODS:
        with pytest.raises(HubError, match="already holds a method"):
            hub.load_adapter(with_method(method), saved)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(HubError, match="there is no folder .*nowhere"):
        hub.load_adapter(base(), tmp_path / "nowhere")
    with pytest.raises(HubError, match="has no file config.json"):
        hub.load_llama(tmp_path)
    path = tmp_path / "config.json"
    for make, message in ((lambda: path.mkdir(), "config.json is a folder"),
                          (lambda: os.mkfifo(path), "config.json is no ordinary file"),
                          (lambda: path.symlink_to("gone"), "config.json is a link to gone"),
                          (lambda: path.write_text("<html>"), "config.json is a page of HTML"),
                          (lambda: path.write_text("version https://git-lfs.x"), "Git LFS")):
        make()
        with pytest.raises(HubError, match=message) as error:
            hub.load_llama(tmp_path)
        assert str(error.value).count("config.json") == 1
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "config.json").write_text(json.dumps(SHAPE.to_hugging_face()))
    with pytest.raises(HubError, match="has no file model.safetensors; it holds .'config.json'"):
        hub.load_llama(tmp_path)
    hub.save_llama(base(), tmp_path)
    (tmp_path / SINGLE).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(HubError, match="pickles"):
        hub.load_llama(tmp_path)


# ----------------------------------------------------------------------------------- checkpoints


WRONG_CONFIGS = {
    "another family": ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    "no family": ({"model_type": ...}, "model_type is missing"),
    "two bases": ({"rope_theta": ..., "rope_parameters": {"rope_theta": 5e5},
                   "rope_scaling": {"rope_type": "default"}}, "rope_theta .* 500000.0 .* None"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantized"),
    "scaled RoPE": ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0}},
                    "plain RoPE"),
    "scaled RoPE, old style": ({"rope_parameters": None,
                                "rope_scaling": {"type": "linear", "factor": 2.0}}, "plain RoPE"),
    "part of RoPE": ({"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}},
                     "plain RoPE"),
    "interleaved RoPE": ({"rope_interleaved": True}, "rope_interleaved"),
    "two thetas": ({"rope_theta": 1e4}, "given twice"),
    "theta of text": ({"rope_theta": "5", "rope_parameters": None},
                      ": rope_theta must be a number"),
    "RoPE as a list": ({"rope_parameters": [1]}, "must be an object"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "bias": ({"attention_bias": True}, "attention_bias"),
    "head_dim": ({"head_dim": 128}, "q_proj.weight has shape .8, 8., .* need .512, 8."),
    "absurd layers": ({"num_hidden_layers": 10 ** 12}, "num_hidden_layers is above"),
    "absurd positions": ({"max_position_embeddings": 10 ** 12}, "max_position_embeddings is above"),
    "absurd width": ({"hidden_size": 10 ** 30}, "hidden_size is above"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads must be at least 1"),
    "heads that don't divide": ({"num_attention_heads": 3}, "must be"),
    "size of text": ({"vocab_size": "13"}, "vocab_size must be an integer"),
    "no size": ({"vocab_size": ...}, "vocab_size is missing"),
    "infinite eps": ({"rms_norm_eps": -1e-6}, ": rms_norm_eps must be from"),
    "bias of a number": ({"attention_bias": 0}, "attention_bias is 0"),
    "MLP's bias of a number": ({"mlp_bias": 0}, "mlp_bias is 0"),
    "tied by a text": ({"tie_word_embeddings": "false"}, "must be true or false"),
    "tied": ({"tie_word_embeddings": True}, "is True, but the arrays were saved with False"),
    "another width": ({"hidden_size": 16, "head_dim": 4}, "has shape"),
    "more layers": ({"num_hidden_layers": 3}, "9 missing"),
    "fewer layers": ({"num_hidden_layers": 1}, "9 that do not belong"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_a_config_that_does_not_fit_is_refused(case, checkpoint):
    changes, message = WRONG_CONFIGS[case]
    edit(checkpoint / "config.json", **changes)
    with pytest.raises(HubError, match=message):
        hub.load_llama(checkpoint)


def weight_map(sharded):
    return json.loads((sharded / INDEX).read_text())["weight_map"]


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors",
                                  "..\\x.safetensors", "C:x.safetensors", "", 3, None,
                                  "model.bin", "x\0.safetensors", "a" * 300 + ".safetensors"],
                         ids=lambda file: str(file)[:20])
def test_an_index_that_points_elsewhere_is_refused(file, sharded):
    listed = weight_map(sharded)
    listed["model.norm.weight"] = file
    edit(sharded / INDEX, weight_map=listed)
    with pytest.raises(HubError, match="nothing outside of it is read"):
        hub.load_llama(sharded)


def test_an_index_that_does_not_fit_its_files_is_refused(sharded):
    listed = weight_map(sharded)
    files = sorted(set(listed.values()))
    edit(sharded / INDEX, weight_map=listed | {"model.norm.weight": files[0]})
    with pytest.raises(HubError, match="1 missing, first 'model.norm.weight'"):
        hub.load_llama(sharded)
    edit(sharded / INDEX, weight_map={n: f for n, f in listed.items() if "norm" not in n})
    with pytest.raises(HubError, match="do not belong there"):
        hub.load_llama(sharded)
    edit(sharded / INDEX, weight_map=listed | {"x": "x.safetensors"})
    with pytest.raises(HubError, match="has no file x.safetensors"):
        hub.load_llama(sharded)
    for wrong in ([], {}, 3, ...):
        edit(sharded / INDEX, weight_map=wrong)
        with pytest.raises(HubError, match="must have a weight_map"):
            hub.load_llama(sharded)
    (sharded / INDEX).write_text('{"weight_map": {"a": "b", "a": "c"}}')
    with pytest.raises(HubError, match="'a' stands twice"):
        hub.load_llama(sharded)


# ------------------------------------------------------------------------------------- writing


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    mixed = with_method()
    mixed.layers[0].after_mlp = Adapter(8, 2)
    bottlenecks = with_method("parallel")
    bottlenecks.layers[0].parallel_mlp = Adapter(8, 3, residual=False, scale=4.0)
    whole = with_method()
    whole.set_trainable()
    nan = with_method("prompt")
    nan.soft_prompt.prompt[0, 0] = np.nan
    for model, message in ((base(), "no method"), (mixed, "one method and nothing else"),
                           (bottlenecks, r"^bottleneck_dim must be .* got \[2, 3\]"),
                           (whole, "also trainable"), (nan, "was not saved")):
        with pytest.raises(HubError, match=message):
            hub.save_adapter(model, tmp_path)
    for method in ("prefix", "prompt", "houlsby"):
        with pytest.raises(HubError, match="cannot be merged"):
            hub.save_llama(with_method(method), tmp_path)
    assert os.listdir(tmp_path) == []


def test_shards_never_mix_with_an_older_checkpoint(tmp_path):
    hub.save_llama(base(), tmp_path / "one")
    hub.save_llama(base(), tmp_path / "many", max_shard_bytes=1500)
    for folder in ("one", "many"):
        with pytest.raises(HubError, match="already holds a checkpoint"):
            hub.save_llama(base(seed=3), tmp_path / folder, max_shard_bytes=1500)
        assert same(hub.load_llama(tmp_path / folder).weights(), base().weights())


@pytest.mark.parametrize("broken", ["save_file", "fsync", "replace", "write_json"])
def test_a_write_that_fails_leaves_the_old_files(broken, saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def fail(*args, **kwargs):
        if broken == "save_file":
            Path(args[1]).write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        place = {"save_file": safetensors.numpy, "write_json": hub}.get(broken, tensorfile.os)
        patch.setattr(place, broken, fail)
        with pytest.raises(OSError, match="no space"):
            hub.save_adapter(with_method(seed=7), saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


@pytest.mark.parametrize("step", ["save_file", "fsync", "replace"])
def test_a_process_that_dies_while_writing_leaves_the_old_files(step, saved):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    place = "safetensors.numpy" if step == "save_file" else "tensorfile.os"
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent), str(CODE)]!r}
import safetensors.numpy
import tensorfile
import test_hub
from real_models import hub
{place}.{step} = lambda *a, **k: (open(a[1], "wb").write(b"half") if {step == "save_file"} else 0,
                                  os._exit(9))
hub.save_adapter(test_hub.with_method(seed=7), {str(saved)!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert {n: (saved / n).read_bytes() for n in before} == before
    hub.load_adapter(base(), saved)


def test_dying_between_the_two_files_is_noticed(saved, monkeypatch):
    model = base()
    lora(model, alpha=16.0)

    def second_fails(source, target, replace=os.replace):
        if Path(target).name == "adapter_config.json":
            raise OSError("gone")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(tensorfile.os, "replace", second_fails)
        with pytest.raises(OSError, match="gone"):
            hub.save_adapter(model, saved)
    with pytest.raises(HubError, match="lora_alpha is 5, but the arrays were saved with 16"):
        hub.load_adapter(base(), saved)


# --------------------------------------------------------------------------------------- fuzzing


@st.composite
def mutations(draw):
    """Up to four byte flips, cuts, splices or repetitions, as functions of the bytes."""
    edits = draw(st.lists(st.tuples(
        st.sampled_from(["flip", "cut", "splice", "repeat", "swap"]),
        st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.binary(max_size=12),
        st.booleans()), min_size=1, max_size=4))

    def mutate(data, header):
        data = bytearray(data)
        for kind, where, value, text, early in edits:  # half of them in the header
            at = int(where * (min(header, len(data)) if early else len(data)))
            if kind == "flip" and data:
                data[at] ^= value or 1
            elif kind == "cut":
                del data[at:]
            elif kind == "splice":
                data[at:at + value % 16] = text
            elif kind == "repeat":
                data[at:at] = data[at:at + value]
            elif kind == "swap":
                data[at:at + 8], data[:8] = data[:8], data[at:at + 8]
        return bytes(data)
    return mutate


FUZZ = settings(max_examples=200, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def check_after(mutate, original, copy, file, load):
    """Refused by us, or loaded as the format's own library reads it; nothing else."""
    data = (original / file).read_bytes()
    header = len(data) if file.endswith(".json") else 8 + int.from_bytes(data[:8], "little")
    shutil.copytree(original, copy, dirs_exist_ok=True)
    (copy / file).write_bytes(mutate(data, header))
    try:
        arrays = load()
    except HubError as error:
        assert len(str(error)) < 2000
        return
    stored = {}
    for path in copy.glob("*.safetensors"):
        stored |= load_file(path)
    assert all(np.isfinite(a).all() for a in arrays.values())
    assert sorted(a.tobytes() for a in arrays.values()) == sorted(
        a.tobytes() for a in stored.values())


@pytest.mark.parametrize("file", [ARRAYS, CONFIG])
def test_fuzzed_adapters_are_refused_or_right(file, saved, tmp_path_factory):
    copy, model = tmp_path_factory.mktemp("fuzz"), base()

    @FUZZ
    @given(mutations())
    def run(mutate):
        def load():
            hub.load_adapter(model, saved_copy)
            found = model.parameters()
            for name, module in list(model.modules().items()):
                if isinstance(module, LoRALinear):
                    model.replace(name, hub.Linear(module.weight))
            return found
        saved_copy = copy
        check_after(mutate, saved, copy, file, load)
    run()


@pytest.mark.parametrize("file", [SINGLE, "config.json"])
def test_fuzzed_checkpoints_are_refused_or_right(file, checkpoint, tmp_path_factory):
    copy = tmp_path_factory.mktemp("fuzz")
    run = FUZZ(given(mutations())(lambda mutate: check_after(
        mutate, checkpoint, copy, file, lambda: hub.load_llama(copy).weights())))
    run()


def test_fuzzed_indexes_are_refused_or_right(sharded, tmp_path_factory):
    copy = tmp_path_factory.mktemp("fuzz")
    run = FUZZ(given(mutations())(lambda mutate: check_after(
        mutate, sharded, copy, INDEX, lambda: hub.load_llama(copy).weights())))
    run()


# ------------------------------------------------------------ the configurations, field by field

VIRTUAL = {"base_model_name_or_path": None, "inference_mode": True, "task_type": "CAUSAL_LM",
           "num_layers": 2, "num_transformer_submodules": 1}
LORA = {"peft_type": "LORA", "base_model_name_or_path": None, "inference_mode": True,
        "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 5, "lora_dropout": 0.0, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "fan_in_fan_out": False, "init_lora_weights": True,
        "use_rslora": False, "use_dora": False, "modules_to_save": None, "rank_pattern": {},
        "alpha_pattern": {}}
SLOT = "model.layers.{}.{}"
WRITTEN = {  # what PEFT 0.21 writes for the same adapter, less the fields that it fills in itself
    "lora": LORA,
    "lora_one_layer": LORA | {"target_modules": ["model.layers.1.self_attn.q_proj", "v_proj"]},
    "lora_embeddings": LORA | {"target_modules": ["model.embed_tokens"]},
    "lora_all": LORA | {"r": 1, "lora_alpha": 0.3, "target_modules": sorted(
        f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down"))},
    "prefix": VIRTUAL | {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "token_dim": 4,
                         "num_attention_heads": 2, "prefix_projection": False},
    "prompt": VIRTUAL | {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 8,
                         "num_attention_heads": 4, "prompt_tuning_init": "RANDOM"},
    "houlsby": {"peft_type": "STAGE9_BOTTLENECK", "base_model_name_or_path": None,
                "inference_mode": True, "task_type": "CAUSAL_LM", "bottleneck_dim": 2,
                "residual": True, "scale": 1.0,
                "slots": [SLOT.format(i, slot) for i in (0, 1)
                          for slot in ("after_attention", "after_mlp")],
                "format": "bottleneck adapters of this course; Hugging Face PEFT has none"},
    "parallel": {"peft_type": "STAGE9_BOTTLENECK", "base_model_name_or_path": None,
                 "inference_mode": True, "task_type": "CAUSAL_LM", "bottleneck_dim": 2,
                 "residual": False, "scale": 4.0, "slots": [SLOT.format(1, "parallel_mlp")],
                 "format": "bottleneck adapters of this course; Hugging Face PEFT has none"},
}


@pytest.mark.parametrize("method", METHODS)
def test_an_adapters_configuration_is_written_field_by_field(tmp_path, method):
    model = with_method(method)
    hub.save_adapter(model, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text()) == WRITTEN[method]
    hub.save_adapter(model, tmp_path, base_model="me/mine")
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config == WRITTEN[method] | {"base_model_name_or_path": "me/mine"}


def test_a_checkpoints_configuration_and_index_are_written_field_by_field(tmp_path):
    model = base()
    hub.save_llama(model, tmp_path / "one", eos_token_id=2, torch_dtype="float32")
    expected = model.config.to_hugging_face() | {
        "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None, "dtype": "float32",
        "torch_dtype": "float32"}
    assert json.loads((tmp_path / "one" / "config.json").read_text()) == expected
    assert not (tmp_path / "one" / INDEX).exists()
    room = 13 * 8 * 4  # bytes of the embedding: it fills the first file exactly
    hub.save_llama(model, tmp_path / "many", max_shard_bytes=room)
    index = json.loads((tmp_path / "many" / INDEX).read_text())
    assert index.keys() == {"metadata", "weight_map"}
    total = sum(w.nbytes for w in model.weights().values())
    assert index["metadata"] == {"total_size": total}
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    assert [n for n, f in index["weight_map"].items() if f == files[0]] == [
        "model.embed_tokens.weight"]
    for file in files:
        arrays = load_file(tmp_path / "many" / file)
        assert arrays.keys() == {n for n, f in index["weight_map"].items() if f == file}
        assert sum(a.nbytes for a in arrays.values()) <= room or len(arrays) == 1
    sizes = [
        [model.weights()[n].nbytes for n, f in index["weight_map"].items() if f == file]
        for file in files]
    for one, after in zip(sizes, sizes[1:]):
        assert sum(one) + after[0] > room  # as few files as can be in this order


# ----------------------------------------------------------------- seen by a stranger, each mended


def test_patterns_of_every_module_are_matched_at_once():
    from real_models import patterns
    names = [f"model.layers.{i}.mlp.{part}_proj" for i in range(40) for part in "abcdefg"]
    parsed = patterns._parse.cache_info().misses
    for name in names:
        assert [each for each in names if patterns.ends(each, name)] == [name]
    assert patterns._parse.cache_info().misses == parsed, "each took its time to be taken apart"
    with pytest.raises(ValueError, match="100 repetitions"):
        patterns.fullmatch(".*" * 100 + "x", names[0])


def test_more_layers_than_the_model_has_are_called_that_and_not_an_adapter(saved):
    path = saved / "adapter_model.safetensors"
    arrays = load_file(path)
    save_file(arrays | {name.replace("layers.1.", "layers.7."): array
                        for name, array in arrays.items() if "layers.1." in name}, path)
    with pytest.raises(HubError, match="layers.7") as error:
        hub.load_adapter(base(), saved)
    assert "load its base model" not in str(error.value)


def test_a_table_of_angles_that_no_memory_holds_is_refused():
    with pytest.raises(ValueError, match=r"max_position_embeddings 1,048,576.*17.2 GB"):
        LlamaConfig(13, 2, 12, 1, 1, 1, head_dim=4096, max_position_embeddings=2 ** 20)


def test_a_path_that_leads_nowhere_or_may_not_be_read_is_said(tmp_path):
    with pytest.raises(HubError, match="there is no folder .*Qwen2"):
        hub.load_llama(tmp_path / "Qwen" / "Qwen2.5-0.5B")
    with pytest.raises(HubError, match=FAR):
        hub.load_llama(tmp_path / ("x" * 300))
