"""The lists, their splits, and how a name becomes a sequence."""

import hashlib
import re
import sys
from collections import Counter

import numpy as np
import pytest

from names import (
    BOUNDARY,
    DATA,
    IGNORE,
    SPLITS,
    SYMBOLS,
    batches,
    decode,
    encode,
    load_names,
    make_batch,
)


@pytest.mark.parametrize("language, count", [("base", 14_720), ("turkish", 1_516),
                                             ("icelandic", 4_439)])
def test_lists_hold_what_their_readme_says(language, count):
    listed = (DATA / f"{language}.txt").read_text().split()
    assert len(set(listed)) == len(listed) == count
    assert all(re.fullmatch("[a-z]{2,14}", name) for name in listed)
    assert listed == sorted(listed, key=lambda name: hashlib.sha256(name.encode()).digest())


@pytest.mark.parametrize("language", SPLITS)
def test_splits_are_disjoint_complete_and_of_the_stated_shares(language):
    parts = {split: load_names(language, split) for split in SPLITS[language]}
    total = sum(map(len, parts.values()))
    assert len(set().union(*parts.values())) == total
    assert total == len((DATA / f"{language}.txt").read_text().split())
    shares = [0.9, 0.1] if language == "base" else [0.8, 0.1, 0.1]
    assert np.allclose([len(part) / total for part in parts.values()], shares, atol=1e-3)


def test_no_target_name_is_in_the_base_set():
    base = set((DATA / "base.txt").read_text().split())
    for language in ("turkish", "icelandic"):
        assert not base & set((DATA / f"{language}.txt").read_text().split())


def test_folding():
    sys.path.insert(0, str(DATA))
    from make_names import fold
    for name, folded in {"Þórður": "thordur", "İbrahim": "ibrahim", "Işıl": "isil",
                         "Łukasz": "lukasz", "Weiß": "weiss", "O'Neill": "oneill",
                         "Jan-Åke": "janake", "Da Silva": "da silva", "Æsa": "aesa"}.items():
        assert fold(name) == folded


def test_a_name_opens_and_closes_with_the_boundary_and_what_fills_up_is_not_scored():
    inputs, targets = make_batch(["abc", "z"])
    assert inputs.tolist() == [[0, 1, 2, 3], [0, 26, 0, 0]]
    assert targets.tolist() == [[1, 2, 3, 0], [26, 0, IGNORE, IGNORE]]
    assert len(SYMBOLS) == 27 and SYMBOLS[BOUNDARY] == "."
    assert decode(encode("ayse") + [BOUNDARY, 5]) == "ayse"


def test_a_pass_over_the_data_gives_every_name_once():
    listed = load_names("turkish", "train")
    data = batches(listed, 64, np.random.default_rng(0))
    per_pass = len(listed) // 64
    for _ in range(2):  # the second pass as well, in another order
        seen = []
        for inputs, targets in (next(data) for _ in range(per_pass)):
            assert len(inputs) == 64 and ((targets != IGNORE).sum(axis=1).max() == inputs.shape[1])
            seen += [decode(row[1:]) for row in inputs]
        assert len(set(seen)) == len(seen) == 64 * per_pass and set(seen) <= set(listed)


def test_batches_smaller_than_the_batch_size_and_of_similar_lengths():
    inputs, _ = next(batches(["bo", "ayse"], 64, np.random.default_rng(0)))
    assert inputs.shape == (2, 5)
    data = batches(load_names("icelandic", "train"), 64, np.random.default_rng(0))
    filled = [np.mean(next(data)[1] == IGNORE) for _ in range(40)]
    assert np.mean(filled) < 0.12  # without sorting: a third


def test_batches_differ_between_seeds_and_agree_for_one():
    first, again, other = (next(batches(load_names("turkish", "train"), 64,
                                        np.random.default_rng(seed)))[0] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert Counter(first.ravel()) != Counter(other.ravel())


@pytest.mark.parametrize("call, error, message", [
    (lambda: encode("Ayşe"), ValueError, r"\['A', 'ş'\]"),
    (lambda: encode(""), ValueError, "got ''"),
    (lambda: decode([1, -1]), ValueError, "0 to 26, got -1"),
    (lambda: make_batch("anna"), TypeError, r"\['anna'\]"),
    (lambda: make_batch([]), ValueError, "empty"),
    (lambda: load_names("greek", "train"), ValueError, "greek"),
    (lambda: load_names("base", "test"), ValueError, "'test'"),
    (lambda: next(batches([], 64, np.random.default_rng(0))), ValueError, "0 names"),
    (lambda: next(batches(["bo"], 0, np.random.default_rng(0))), ValueError, "batch_size=0"),
])
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
