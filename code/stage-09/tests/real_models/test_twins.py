"""The run of section 9.8: what was recorded is what PEFT says today, and what NumPy does here."""

import inspect
import json

import needs
import numpy as np
import pytest
from safetensors.numpy import load_file

from real_models import hub, twins

RECORD = json.loads((twins.RECORD / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture
def ran(tmp_path):
    """Our run, and its folder."""
    batches = twins.make_batches()
    return tmp_path, batches, twins.train(str(twins.BASE), tmp_path, batches)


def check(answers, folder, losses):
    """Answers about the run in `folder` are those recorded, up to float32's roundings."""
    assert np.allclose(losses, answers["losses"], rtol=1e-3)
    model = hub.load_llama(twins.BASE)
    hub.load_adapter(model, folder / "numpy")
    logits = np.array(answers["logits"])
    assert np.abs(model.forward(twins.IDS) - logits).max() < 1e-4 * np.abs(logits).max()


def test_the_recorded_answers_fit_what_numpy_does_here(ran, monkeypatch):
    folder, batches, losses = ran
    monkeypatch.setattr(twins, "ORACLE", folder)  # there, but no Python
    monkeypatch.setenv(twins.RECORDED, "1")
    assert twins.ask_peft(folder, batches) == (RECORD, False)
    monkeypatch.delenv(twins.RECORDED)
    monkeypatch.setattr(twins, "ORACLE", folder / "nowhere")
    answers, fresh = twins.ask_peft(folder, batches)
    assert not fresh and answers == RECORD
    check(answers, folder, losses)
    hub.load_adapter(hub.load_llama(twins.BASE), folder / "peft")


def test_peft_says_today_what_was_recorded(ran):
    needs.oracle()
    folder, batches, losses = ran
    answers, fresh = twins.ask_peft(folder, batches)
    assert fresh
    check(answers, folder, losses)
    assert answers["versions"] == RECORD["versions"]
    assert np.allclose(answers["losses"], RECORD["losses"], rtol=1e-4)
    assert np.allclose(answers["logits"], RECORD["logits"], rtol=0, atol=1e-3)
    assert answers["misspelt_change"] == 0 and answers["misspelt_warning"]
    new, recorded = (load_file(place / "peft" / "adapter_model.safetensors")
                     for place in (folder, twins.RECORD))
    start = load_file(folder / "start" / "adapter_model.safetensors")
    assert new.keys() == recorded.keys()
    for name, array in recorded.items():
        moved = np.linalg.norm(array - start[name])
        assert np.linalg.norm(new[name] - array) < 0.02 * moved, name


def test_both_runs_are_written_in_the_same_steps():
    text = twins.SCRIPT.read_text(encoding="utf-8")
    theirs = twins.steps_of(text[text.index("def train"):text.index("@torch.no_grad")])
    ours = twins.steps_of(inspect.getsource(twins.train))
    assert list(ours) == list(theirs) and len(ours) == 6
    assert all(code.strip() for code in (*ours.values(), *theirs.values()))
