"""What readers bring, spoilt at random: it is read or refused with a reason, and nothing else.

A few hundred seeds run with the other tests; the weekly workflow sets FUZZ_MINUTES and goes on with
new ones. A seed means another file once the lists below have changed: what it finds becomes a case
of its own, in the tests of the reader that is mended.
"""

import json
import os
import random
import shutil
import time
from collections import Counter
from copy import deepcopy
from itertools import chain, count, islice
from types import SimpleNamespace

import numpy as np
import pytest

from llama import Llama, LlamaConfig, random_weights
from llama_config import ARCHITECTURES, HARMLESS, MISSING, ONLY, READ, RopeScaling
from exercises.harness import progress
from peft import LoRALinear
from real_models import accounting, checklist, hub, smollm2
from real_models.test_smollm2 import gguf_file  # noqa: F401
from book_pages.test_explorer import paste
from book_pages.widgets import explorer
from tensorfile import HubError

MINUTES = float(os.environ.get("FUZZ_MINUTES", 0))
SEEDS = range(400)
IDS = np.arange(6).reshape(1, 6)
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, ARRAYS = "adapter_config.json", "adapter_model.safetensors"
KEYS = sorted({*READ, *ONLY, *sorted(HARMLESS)[:9], *RopeScaling.__dataclass_fields__, "rope_type",
               "no_rope_layers", "no_rope_layer_interval", "auto_map", "rank_pattern", "r",
               "alpha_pattern", "use_rslora", "layers_to_transform", "target_modules",
               "exclude_modules", "modules_to_save", "__metadata__", "dtype", "shape",
               "data_offsets", "weight_map"})
VALUES = [None, True, False, 0, 1, -1, 2, 7, 63, 2 ** 31, 2 ** 70, 0.5, -0.0, 1e-320, 1e308, "",
          "q", "8", "q_proj", ".*", "(", "(a+)+$", "..", "/dev/zero", "\x00", "\ud800", "é" * 99,
          "x" * 5000, [], [0], [[]], {}, {"a": {}}, [1, 0], [0, 1, 1], ["q_proj", 3], "F32", "BF16",
          "llama3", *ARCHITECTURES, *list(MISSING)[:3]]


def places(value):
    """Every object and list in a value of JSON."""
    if isinstance(value, (dict, list)):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from places(child)


def spoil_json(text, rng):
    """A few keys deleted, added or given another value; at times a key stands twice."""
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.choice([p for p in places(value) if p] or [value])
        new = deepcopy(rng.choice(VALUES))  # it may be changed in the next round
        if isinstance(place, list):
            place[rng.randrange(len(place))] = new
        else:
            key = rng.choice([*place, rng.choice(KEYS)]) if place else rng.choice(KEYS)
            if rng.random() < 0.2:
                place.pop(key, None)
            else:
                place[key] = new
    text = json.dumps(value)
    return text.replace("{", '{"r": 1, "r": 2, ', 1) if rng.random() < 0.03 else text


def spoil_bytes(data, rng):
    """Bytes changed, lost, doubled or put in, wherever they stand."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        i, n = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 60))
        if rng.random() < 0.5:
            i = min(i, rng.randrange(200))  # near the start: the header
        data[i:i + rng.choice((0, n))] = rng.choice((b"", rng.randbytes(n), data[i:i + n], b"\xff"))
    return bytes(data)


def spoil(path, rng):
    data = path.read_bytes()
    if path.suffix == ".json":
        text = spoil_json(data.decode(), rng)
        data = text.encode("utf-8", "surrogatepass")
    elif rng.random() < 0.5:  # the header stays one, of the length that it says
        size = int.from_bytes(data[:8], "little")
        header = spoil_json(data[8:8 + size].decode(), rng).encode("utf-8", "surrogatepass")
        data = len(header).to_bytes(8, "little") + header + data[8 + size:]
    path.write_bytes(spoil_bytes(data, rng) if rng.random() < 0.25 else data)


def seeds(first=len(SEEDS)):
    """Those of every run, then new ones until the minutes are over: other ones each week."""
    until = time.monotonic() + 60 * MINUTES
    for i, seed in enumerate(chain(range(first), count(int(time.time()) * 1000))):
        if i >= first and time.monotonic() > until:
            return
        yield seed


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint of each family, one of them in shards, each with an adapter beside it."""
    root, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(0)
    for family in ARCHITECTURES:
        config = LlamaConfig(13, 8, 12, 2, 4, 2, model_type=family, no_rope_layers=(
            (1, 0) if family == "smollm3" else ()), rope_scaling=(
            RopeScaling(8.0, 1.0, 4.0, 32) if family == "llama" else None))
        model = Llama(config, random_weights(config, rng))
        hub.save_llama(model, root / family,
                       max_shard_bytes=900 if family == "qwen2" else 10 ** 9)
        for name, module in model.modules().items():
            if name.endswith(("q_proj", "down_proj")):
                model.replace(name, LoRALinear(module.weight, module.bias, 2, 3.0))
        hub.save_adapter(model, root / family)
    return root


def check(seed, good, folder):
    """One spoilt file in a copy of a good folder: its name, and whether its readers take it."""
    rng = random.Random(seed)
    source = good / rng.choice(sorted(ARCHITECTURES))
    for path in folder.iterdir():
        path.unlink()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    victim = folder / rng.choice(sorted(path.name for path in source.iterdir()))
    spoil(victim, rng)
    start, loads = time.perf_counter(), False
    adapter = victim.name in (ADAPTER, ARRAYS)
    try:
        model = hub.load_llama(source if adapter else folder)
        before = model.modules()
        if adapter:
            try:
                hub.load_adapter(model, folder)
            except HubError:
                assert model.modules() == before, "a refused adapter was plugged in"
                raise
        settings = victim.suffix == ".json"  # other numbers may be anything, even enormous
        with np.errstate(all="warn" if settings else "ignore"):
            logits = model.forward(IDS[:, :min(6, model.config.longest_input)] % 13)
        if settings:
            assert np.isfinite(logits).all(), "settings gave NaN"
        loads = True
    except (HubError, FloatingPointError) as error:
        assert isinstance(error, HubError) or victim.suffix != ".json", error
        assert str(folder) in str(error), "the file is not named"
        assert len(str(error)) < 2000, "a message as long as a page"
    if not adapter:
        checklist.checklist(folder)
    assert time.perf_counter() - start < 20, "it took too long"
    return victim.name.partition("-0")[0], loads


@pytest.mark.filterwarnings("error")
def test_a_spoilt_file_loads_or_is_refused(good, tmp_path):
    outcomes = Counter()
    for seed in seeds():
        try:
            outcomes[check(seed, good, tmp_path)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    print(outcomes.total(), "files:", dict(outcomes))
    assert {kind for kind, loads in outcomes if not loads} >= {CONFIG, WEIGHTS, INDEX, ADAPTER,
                                                               ARRAYS}
    assert (CONFIG, True) in outcomes and (ADAPTER, True) in outcomes  # not all were hopeless


def test_spoilt_progress_is_read_or_kept_aside(tmp_path, monkeypatch, capsys):
    """Whatever the file holds, a pass is noted, and nothing that was there is lost."""
    file = tmp_path / "progress.json"
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(file))
    for seed in seeds():
        rng = random.Random(seed)
        for path in tmp_path.iterdir():
            path.unlink()
        text = spoil_json('{"1": "2026-01-01", "3": "2026-02-03"}', rng)
        data = text.encode("utf-8", "surrogatepass")
        file.write_bytes(spoil_bytes(data, rng) if rng.random() < 0.5 else data)
        before = file.read_bytes()
        shown = progress.progress().done
        progress.remember(SimpleNamespace(passed=True, step=None, exercise=6))
        after = progress.progress().done
        assert "6" in after and shown.items() <= after.items(), seed
        lock = file.with_name(f".{file.name}.lock")  # stays, and is empty
        aside = [path for path in tmp_path.iterdir() if path not in (file, lock)]
        assert not lock.exists() or lock.read_bytes() == b"", seed
        assert not aside or [path.read_bytes() for path in aside] == [before], seed
        capsys.readouterr()


def spoilt_config(seed):
    """A known model's config.json with a few values changed, at times a few letters, too."""
    rng = random.Random(seed)
    known = [entry["config"] for entry in accounting.known_models().values()]
    config = dict(rng.choice(known))
    if rng.random() < 0.7:  # another model, or nearly one
        for key in rng.sample(sorted(config), rng.choice((1, 2, 3))):
            config[key] = rng.choice([None, True, False, 0, 1, 2, 8, 96, 1000, 2 ** 31, "", []])
        text = json.dumps(config)
    else:
        text = spoil_json(json.dumps(config), rng).replace("\\ud800", "")
    if rng.random() < 0.2:
        i = rng.randrange(len(text))
        text = text[:i] + rng.choice(["", ",", "'", "None", "}", '"', "\x00"]) + text[i + 1:]
    return text


def counted(text):
    """Python's answer to a pasted configuration: its record, or why it is refused."""
    try:
        return explorer.memory_record(accounting.read_model(accounting.parse_config(text)))
    except (ValueError, TypeError) as error:
        return str(error)


def test_a_spoilt_configuration_is_counted_alike_here_and_in_the_page_or_refused(tmp_path):
    memory, outcomes, stream = explorer.memory_explorer(), Counter(), seeds(200)
    while part := list(islice(stream, 200)):  # one Node.js for many
        texts = {seed: spoilt_config(seed) for seed in part}
        answers = paste(tmp_path, memory, [*texts.values()])
        for seed, there in zip(part, answers, strict=True):
            here = counted(texts[seed])
            outcomes[isinstance(here, dict), isinstance(there, dict)] += 1
            if isinstance(here, str) or isinstance(there, str):
                assert max(map(len, map(str, (here, there)))) < 2000, seed
            else:
                assert there | {"name": ""} == here | {"name": ""}, seed
            # The page has no limit on one size, only on the whole model.
            assert isinstance(here, str) == isinstance(there, str) or "is larger than" in here, seed
    print(dict(outcomes))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # in the package gguf
def test_a_spoilt_gguf_is_read_or_refused(gguf_file, tmp_path, capsys):  # noqa: F811
    path, _ = gguf_file()
    good, outcomes = path.read_bytes(), Counter()
    for seed in seeds(60):
        rng = random.Random(seed)
        path.write_bytes(spoil_bytes(good, rng))
        start, made = time.perf_counter(), tmp_path / "out"
        try:
            smollm2.convert(path, made)
            assert smollm2.is_whole(made), seed
            smollm2.load(made)
            shutil.rmtree(made)
            outcomes["read"] += 1
        except HubError as error:
            assert len(str(error)) < 2000 and not made.exists(), seed
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert time.perf_counter() - start < 20, seed
        assert {file.name for file in tmp_path.iterdir()} == {"tiny.gguf"}, seed
    capsys.readouterr()
    print(dict(outcomes))
    assert min(outcomes["read"], outcomes["refused"]) > 0
