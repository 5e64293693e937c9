"""Rounding a real model's weights is what the solution of exercise 6 does; what was recorded."""

import numpy as np
import pytest

from exercises.ex6_qlora import solution, speaking
from experiments import smollm2
from experiments.records import read_lines

WEIGHT = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)


@pytest.mark.parametrize("block", [64, None])
def test_nf4_is_the_solutions(block):
    size = block or WEIGHT.size
    codes = solution.quantize_nf4(WEIGHT, size)
    expected = solution.dequantize_nf4(*codes, WEIGHT.shape, size)
    assert np.array_equal(speaking.rounded(WEIGHT, speaking.NF4, block, False), expected)


def test_double_quantization_and_its_bits_are_the_layers():
    for double in (True, False):
        weight = np.random.default_rng(1).standard_normal((256, 64)).astype(np.float32)
        layer = solution.QLoRALinear(weight, double_quant=double)
        assert np.array_equal(speaking.rounded(weight, speaking.NF4, 64, double),
                              layer.dequantized())
        assert speaking.bits(64, double) == pytest.approx(layer.bits_per_weight(), abs=1e-9)


def test_even_levels_are_rounding_to_the_nearest_sixteenth():
    levels = speaking.rounded(WEIGHT, speaking.EVEN, None, False) / np.abs(WEIGHT).max()
    steps = (levels + 1) * 7.5
    assert np.abs(steps - steps.round()).max() < 1e-5
    assert np.abs(levels - WEIGHT / np.abs(WEIGHT).max()).max() <= 1 / 15 + 1e-6


def test_what_is_recorded_has_a_form_of_today_and_text_that_was_the_same():
    rows = read_lines(smollm2.RESULTS / "quantized.jsonl")
    forms = [row["form"] for row in rows if row["kind"] == "quantized"]
    assert forms == list(speaking.FORMS)[:len(forms)]
    assert len({row["text_tokens"] for row in rows if row["kind"] == "quantized"}) <= 1


def test_the_training_on_four_bits_is_recorded_once_and_as_it_is_asked_for():
    """What is measured must not overwrite what was asked: then it would be made again and again."""
    found = [row for row in read_lines(smollm2.RESULTS / "quantized.jsonl")
             if row["kind"] == "qlora"]
    assert len(found) == 1 and smollm2.is_done(speaking.QLORA, found)
    assert speaking.QLORA.keys().isdisjoint(("form", "exact", "choice", "general", "answers"))
    assert speaking.QLORA["weights"] in speaking.FORMS
