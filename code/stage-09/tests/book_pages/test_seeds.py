"""The widget that draws seeds: its draws are of the losses given, and its shares are right."""

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
import traitlets

from book_pages.widgets.seeds import COUNTS, SHOWN, SeedExplorer
from experiments.family import METHODS, seeds_needed

rng = np.random.default_rng(3)
NOISE = rng.standard_normal((3, 400))
NOISE = (NOISE - NOISE.mean(1, keepdims=True)) / NOISE.std(1, keepdims=True)
LOSSES = {"dora": 1.7 + 0.01 * NOISE[0], "lora": 1.71 + 0.01 * NOISE[1],  # not in their order
          "ia3": 1.5 + 0.01 * NOISE[2]}


@pytest.fixture(scope="module")
def widget():
    return SeedExplorer(LOSSES)


def test_methods_stand_in_the_order_of_their_means(widget):
    assert widget._labels == [METHODS[name].label for name in ("ia3", "dora", "lora")]
    assert widget._means == pytest.approx([1.5, 1.7, 1.71], abs=1e-4)


def test_a_single_seed_is_one_that_was_given_and_the_same_for_all(widget):
    seeds = np.stack([LOSSES[name] for name in ("ia3", "dora", "lora")]).T.round(5)
    assert len(widget._draws["1"]) == SHOWN
    assert all((np.array(draw) == seeds).all(1).any() for draw in widget._draws["1"])


def test_shares_are_those_of_two_normal_variables(widget):
    for count in COUNTS:
        far, near = widget._turned[str(count)]
        spread = np.std(LOSSES["lora"] - LOSSES["dora"])
        expected = NormalDist().cdf(-0.01 * sqrt(count) / spread)
        assert far == 0 and near == pytest.approx(expected, abs=0.035)


def test_the_table_in_its_stead_says_how_many_seeds_it_takes(widget):
    _, columns, rows = widget.fallback()
    assert all(len(row) == len(columns) == len(COUNTS) + 3 for row in rows)
    assert rows[1][0] == "DoRA, LoRA"
    assert rows[1][-1] == str(seeds_needed(LOSSES["dora"], LOSSES["lora"]))


@pytest.mark.parametrize("name, value", [("count", 4), ("draw", SHOWN), ("draw", -1)])
def test_what_was_not_drawn_is_refused(widget, name, value):
    with pytest.raises(traitlets.TraitError, match=f"{name} {value}"):
        setattr(widget, name, value)


@pytest.mark.parametrize("losses", [{"lora": [1, 2], "dora": [1]}, {"lora": [1], "dora": [2]}])
def test_what_cannot_be_compared_is_refused(losses):
    with pytest.raises(ValueError, match="seeds"):
        SeedExplorer(losses)
