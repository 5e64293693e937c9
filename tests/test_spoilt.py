"""Notebooks spoilt at random: each is put into normal form, or named and left as it is."""

import json
import random

import notebooks
import pytest
from conftest import ROOT
from real_models.test_fuzz import seeds, spoil_bytes, spoil_json

GOOD = ROOT / "book/exercises/ex2-lora-dropout.ipynb"


def tidy(path, monkeypatch, *flags):
    """What `notebooks.py` says of a file, and None or its exit code."""
    monkeypatch.setattr("sys.argv", ["notebooks.py", *flags, str(path)])
    with pytest.raises(SystemExit) as ended:
        notebooks.main()
    return ended.value.code


def spoilt(seed):
    rng = random.Random(seed)
    text = GOOD.read_text("utf-8")
    if rng.random() < 0.8:
        text = spoil_json(text, rng)
    data = text.encode("utf-8", "surrogatepass")
    return spoil_bytes(data, rng) if rng.random() < 0.5 else data


def test_a_spoilt_notebook_is_tidied_or_named_and_left(tmp_path, monkeypatch):
    path, outcomes = tmp_path / "spoilt.ipynb", set()
    for seed in seeds(150):
        path.write_bytes(before := spoilt(seed))
        try:
            said = tidy(path, monkeypatch, "--normalise")
            if isinstance(said, str):
                assert path.name in said and len(said) < 600, seed
                assert path.read_bytes() == before, seed
            else:
                assert tidy(path, monkeypatch, "--normalise") == 0, f"{seed}: twice is not once"
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        outcomes.add(type(said))
        assert [file.name for file in tmp_path.iterdir()] == [path.name], seed
    assert outcomes == {str, int}


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"nbformat": 3}', "[" * 100_000, '{"nbformat": 4, "cells": []}',
    '<<<<<<< HEAD\n{"cells": []}\n=======\n', *(json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "cells": [{"cell_type": "markdown", "id": "a",
         "metadata": {}, "source": "a text"}], "metadata": {"widgets": widgets}})
        # "source" as a model's identifier was renamed in each cell, which then had no text
        for widgets in ([], {notebooks.WIDGETS: {}}, *(
            {notebooks.WIDGETS: {"state": state}} for state in ([1], {"source": {}}, {"": {}}))))])
def test_what_is_no_notebook_is_named(tmp_path, monkeypatch, text):
    path = tmp_path / "spoilt.ipynb"
    path.write_text(text)
    for flag in ("--normalise", "--check"):
        said = tidy(path, monkeypatch, flag)
        assert path.name in said and ("conflict" in said) == ("<<<" in text)
    assert path.read_text() == text
