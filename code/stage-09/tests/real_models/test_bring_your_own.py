"""The notebook for a reader's own checkpoint, run on one that looks like a real download."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llama import Llama, LlamaConfig, random_weights
from real_models import hub

NOTEBOOK = Path(hub.__file__).parents[3] / "book" / "bring-your-own-checkpoint.ipynb"
TEXT = "A reader brings a text of their own, and the model learns a little of how it goes on.\n"


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


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """SmolLM2-135M's width and heads, two layers, random weights; a tokenizer trained here."""
    folder = tmp_path_factory.mktemp("download")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT * 9], trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(folder / "tokenizer.json"))
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
    with pytest.raises(CellExecutionError, match="fetch it again"):
        run(monkeypatch, CHECKPOINT=tmp_path, TEXT=download / "text.txt")
