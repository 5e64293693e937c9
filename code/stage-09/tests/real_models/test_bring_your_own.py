"""The notebook for a reader's own checkpoint, run on one that looks like a real download."""

import json
import os
from pathlib import Path

import nbformat
import needs
import numpy as np
import pytest
from bfloat16 import write_bfloat16
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llama import Llama, LlamaConfig, random_weights
from gradcheck import relative_error
from real_models import checklist, hub

NOTEBOOK = Path(hub.__file__).parents[3] / "book" / "bring-your-own-checkpoint.ipynb"
TEXT = "A reader brings a text of their own, and the model learns a little of how it goes on.\n"


def save_tokenizer(folder):
    """A tokenizer of at most 320 tokens, trained on the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT * 9], trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """SmolLM2-135M's width and heads, two layers, random weights; a tokenizer trained here."""
    folder = tmp_path_factory.mktemp("download")
    save_tokenizer(folder)
    config = LlamaConfig(384, 576, 1536, 2, 9, 3, 8192, 1e-5, 100_000.0)
    write_bfloat16(folder / "model.safetensors",
                   random_weights(config, np.random.default_rng(0), 0.04))
    (folder / "config.json").write_text(json.dumps({  # the keys that the original has
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576,
        "initializer_range": 0.04, "intermediate_size": 1536, "is_llama_config": True,
        "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 9,
        "num_hidden_layers": 2, "num_key_value_heads": 3, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "use_cache": True, "vocab_size": 384}))
    (folder / "text.txt").write_text(TEXT * 60, encoding="utf-8")
    return folder


def run(monkeypatch, **settings):
    """Execute the notebook; what its cells printed."""
    for key, value in settings.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return "".join(output.get("text", "") for cell in notebook.cells
                   for output in cell.get("outputs", []))


def test_a_download_is_run_fine_tuned_and_saved(download, tmp_path, monkeypatch):
    printed = run(monkeypatch, CHECKPOINT=download, TEXT=download / "text.txt",
                  ADAPTER=tmp_path / "adapter")
    before, after = (float(printed.split("held-out loss ")[1].split(word)[0].split()[-1])
                     for word in (" before", " after"))
    assert after < before - 0.2  # the text repeats itself: even a random model learns some of it
    model = hub.load_llama(download)
    assert isinstance(model, Llama) and model.norm.weight.dtype == np.float32
    hub.load_adapter(model, tmp_path / "adapter", base_model=str(download))
    assert model.num_parameters() == 2 * 8 * (576 + 576 + 576 + 192)
    assert all(np.abs(array).max() > 0 for array in model.parameters().values())  # B has moved


def test_a_stand_in_shows_no_noise(monkeypatch):
    """Its text is bytes of random weights; nothing of it is printed as if it were an answer."""
    printed = run(monkeypatch, CHECKPOINT="")
    assert printed.count("stand-in has learned nothing") == 2  # before and after training
    assert printed.isascii() and "capital" not in printed


def test_what_is_wrong_with_a_download_is_said(download, tmp_path, monkeypatch):
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((download / file).read_bytes())
    data = (download / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:len(data) // 2])
    with pytest.raises(CellExecutionError, match="fetch it again") as caught:
        run(monkeypatch, CHECKPOINT=tmp_path, TEXT=download / "text.txt")
    shown = "".join(caught.value.traceback)
    assert "\nNot yet: weights: " in shown and "Traceback" not in shown


# ---------------------------------------------------------------- the checklist, before any weight


def verdicts(folder):
    return {item.question: item for item in checklist.checklist(folder)}


@pytest.fixture
def copy(download, tmp_path):
    for path in download.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_checklist_of_a_good_download_says_yes_and_loads_nothing(copy, monkeypatch):
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: none\n", "utf-8")
    (copy / "LICENSE.txt").write_text("Apache", "utf-8")
    monkeypatch.setattr("tensorfile.read_tensor", lambda *args: pytest.fail("a weight was read"))
    found = verdicts(copy)
    assert [*found] == ["family", "weights", "memory", "tokenizer", "licence"]
    assert all(item.ready for item in found.values())
    assert "llama, 2 layers" in found["family"].answer
    assert found["licence"].answer == "README.md says 'license: apache-2.0'; read LICENSE.txt"
    assert checklist.stop_unless_ready(list(found.values())) is None


def test_no_name_of_a_strangers_file_commands_the_terminal(copy):
    (copy / "LICENSE\x1b[2J").touch()
    (copy / "vocab\x1b]0;x\x07.json").touch()
    found = verdicts(copy)
    assert "LICENSE\\x1b[2J" in found["licence"].answer
    assert all(item.answer.isprintable() for item in found.values())


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_card_is_read_from_its_front_however_long_it_is(tmp_path):
    """A file of 4 TB, all but 22 bytes of it a hole."""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    os.truncate(tmp_path / "README.md", 2 ** 42)
    assert checklist.licence(tmp_path) == "README.md says 'license: mit'"


PROBLEMS = {  # what is done to a download, which answers become no, what is said
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(), {"family"}, "folder"),
    "no config": (lambda f: (f / "config.json").unlink(), {"family"}, "no file config.json"),
    "gemma": (lambda f: change(f / "config.json", model_type="gemma2"), {"family"}, "capped"),
    "a cut file": (lambda f: cut(f / "model.safetensors"), {"weights"}, "cut off"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), {"weights"}, "model.safetensors"),
    "another size": (lambda f: change(f / "config.json", intermediate_size=8), {"weights"},
                     "8, 576"),
    "a bias": (lambda f: change(f / "config.json", model_type="qwen2"), {"weights"}, "k_proj.bias"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), {"tokenizer"}, "download it"),
    "a sentencepiece": (lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"),
                        {"tokenizer"}, "AutoTokenizer"),
    "no tokenizer at all": (lambda f: (f / "tokenizer.json").write_text("{}"), {"tokenizer"},
                            "is no tokenizer"),
    "a word that is nowhere": (lambda f: change(f / "tokenizer.json", post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<z>", "type_id": 0}}],
        "pair": [], "special_tokens": {}}), {"tokenizer"}, "tokenizer.json is no tokenizer"),
    "a link that leads nowhere": (
        lambda f: (f / "tokenizer.json").unlink() or (f / "tokenizer.json").symlink_to("../x"),
        {"tokenizer"}, "is a link to ../x"),
    "no vocabulary": (lambda f: Tokenizer(models.BPE()).save(str(f / "tokenizer.json")),
                      {"tokenizer"}, "no tokens at all"),
    "a pipe": (lambda f: (f / "tokenizer.json").unlink() or os.mkfifo(f / "tokenizer.json"),
               {"tokenizer"}, "tokenizer.json is no ordinary file"),
    "a larger tokenizer": (lambda f: change(f / "config.json", vocab_size=200),
                           {"weights", "tokenizer"}, "200 rows"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_checklist_says_what_is_missing(problem, copy):
    spoil, questions, said = PROBLEMS[problem]
    spoil(copy)
    items = checklist.checklist(copy)
    assert {item.question for item in items if not item.ready} == questions
    with pytest.raises(checklist.NotReady, match=said) as caught:
        checklist.stop_unless_ready(items)
    assert caught.value._render_traceback_() == [f"Not yet: {caught.value}"]


def test_memory_that_is_not_there_is_missed_before_it_is_used(copy, monkeypatch):
    import psutil
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 10 ** 7}))
    item = verdicts(copy)["memory"]
    assert not item.ready and "0.01 GB are free" in item.answer


@pytest.mark.parametrize("error", [OSError(2, "gone"), ValueError("odd"), MemoryError()])
def test_what_goes_wrong_with_a_readers_files_comes_out_plainly(error):
    with pytest.raises(checklist.NotReady, match="the text: ") as caught:
        with checklist.plainly("the text"):
            raise error
    assert caught.value.__suppress_context__


# ------------------------------------------------------- every family, from transformers to PEFT

SHAPE = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
         "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
FAMILIES = {
    "llama3": {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"model_type": "mistral", "sliding_window": 64},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3"}}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A random checkpoint of each family, written by transformers in bfloat16."""
    root = tmp_path_factory.mktemp("families")
    needs.ask_hub_oracle([
        {"do": "make", "name": name, "base": root / name, "config": SHAPE | changes,
         "dtype": "bfloat16", "max_shard_size": "60KB", "precisions": ["exact"], "ids": [[1, 2]]}
        for name, changes in FAMILIES.items()], root)
    for name in FAMILIES:
        save_tokenizer(root / name)
    return root


def test_a_model_of_every_family_is_fine_tuned_and_goes_to_peft(families, download, monkeypatch):
    jobs, ours = [], {}
    for name in FAMILIES:
        adapter = families / "adapters" / name
        for key, value in {"CHECKPOINT": families / name, "TEXT": download / "text.txt",
                           "ADAPTER": adapter}.items():
            monkeypatch.setenv(key, str(value))
        monkeypatch.chdir(NOTEBOOK.parent)
        cells: dict = {}  # the page's own names; a kernel for each family would take minutes
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, cells)
        assert cells["after"] < cells["before"], name
        ids = np.array([[5, 300, 7, 7, 31, 299]])
        model = hub.load_llama(families / name, np.float64)
        base = model.forward(ids)
        hub.load_adapter(model, adapter)
        ours[name] = model.forward(ids)
        assert relative_error(ours[name], base) > 1e-3, name  # the adapter does something
        jobs.append({"do": "run", "name": name, "base": families / name, "adapter": adapter,
                     "ids": ids, "precisions": ["exact"]})
    theirs = needs.ask_hub_oracle(jobs, families)
    for name, logits in ours.items():
        assert relative_error(logits, theirs[f"{name}/exact"]) < 1e-9, name
