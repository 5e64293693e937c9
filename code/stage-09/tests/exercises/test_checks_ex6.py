"""The check of exercise 6: its probes are unambiguous; what is not written yet is no mistake."""

import numpy as np
import pytest

from exercises.ex6_qlora import checks as checks_ex6
from exercises.ex6_qlora import otherwise, solution
from exercises.ex6_qlora.checks import check_qlora
from exercises.ex6_qlora.levels import DYNAMIC, NF4
from exercises.harness.checking import Found, Trial


def margin(values, levels, block):
    """How far the quotients are from the nearest midpoint between levels, at least."""
    parts = [values.ravel()[i:i + block] for i in range(0, values.size, block)]
    quotients = np.concatenate([part / np.abs(part).max() for part in parts])
    midpoints = (levels[1:].astype(float) + levels[:-1]) / 2
    return np.abs(quotients[:, None] - midpoints).min()


@pytest.mark.parametrize("block, second", [(64, 256), (36, 36)])
def test_probes_keep_away_from_midpoints(block, second):
    trial = Trial(None, np.float64)
    W = checks_ex6._weight(trial, checks_ex6.OUT, checks_ex6.IN, block=block)
    assert margin(W, NF4, block) > 9e-4
    absmax = checks_ex6._absmax(trial, 600, second)
    for values, least in ((otherwise.scales_of(W, block), 1e-5), (absmax, 9e-5)):
        assert margin(values - values.mean(dtype=np.float64), DYNAMIC, second) > least


def test_nothing_defined_is_not_yet():
    assert {row.status for row in check_qlora({}).rows} == {"not yet"}


def nearest(quotients, levels):
    return np.abs(quotients[:, None] - levels).argmin(axis=1)


def wrong_quantizers():
    """Ways to quantize wrongly: what has to be told, and codes and absmax of a weight."""
    def blocks(w, block, largest=lambda part: np.abs(part).max(), table=NF4, pick=nearest):
        parts = [w.ravel()[i:i + block] for i in range(0, w.size, block)]
        return (np.concatenate([pick(part / largest(part), table.astype(float)) for part in parts]),
                np.array([largest(part) for part in parts], np.float32))

    def with_scales(change):
        def quantize(w):
            codes, absmax = blocks(w, 64)
            return codes, change(absmax).astype(np.float32)
        return quantize

    below = lambda q, t: (t[None] <= q[:, None] + 1e-7).sum(axis=1) - 1  # noqa: E731
    even = np.linspace(-1, 1, 16)
    yield "blocks of 32", lambda w: (blocks(w, 32)[0], blocks(w, 64)[1])
    yield "blocks of 128", lambda w: (blocks(w, 128)[0], blocks(w, 64)[1])
    yield "a block for each row", lambda w: (blocks(w, w.shape[1])[0], blocks(w, 64)[1])
    yield "one block for the whole", lambda w: (blocks(w, w.size)[0], blocks(w, 64)[1])
    yield "column by column", lambda w: blocks(np.ascontiguousarray(w.T), 64)
    yield "the largest value", lambda w: blocks(w, 64, np.max)
    yield "the mean absolute value", lambda w: blocks(w, 64, lambda part: np.abs(part).mean())
    yield "the standard deviation", lambda w: blocks(w, 64, np.std)
    yield "the next level below", lambda w: blocks(w, 64, pick=below)
    yield "even levels, from -1 to 1", lambda w: blocks(w, 64, table=even)
    yield "largest level first", lambda w: (15 - blocks(w, 64)[0], blocks(w, 64)[1])
    yield "one too high", lambda w: (np.where(np.arange(w.size) % 9, blocks(w, 64)[0], np.minimum(
        blocks(w, 64)[0] + 1, 15)), blocks(w, 64)[1])
    yield "half precision", with_scales(lambda absmax: absmax.astype(np.float16))
    yield "1 / absmax", with_scales(lambda absmax: 1 / absmax)
    yield "multiplied by 2", with_scales(lambda absmax: 2 * absmax)
    yield "reversed", with_scales(lambda absmax: absmax[::-1])
    yield "right only for 0, 1", with_scales(lambda absmax: absmax + 0.1 * (np.arange(8) > 4))
    yield "off by", with_scales(lambda absmax: absmax + absmax ** 2)


@pytest.mark.parametrize(("told", "quantize"), wrong_quantizers())
def test_wrong_codes_and_scales_are_told_as_what_they_are(told, quantize):
    def quantize_nf4(weight, block=64):
        codes, absmax = quantize(weight) if weight.shape == (12, 40) and block == 64 else (None, 0)
        if codes is None:
            return solution.quantize_nf4(weight, block)
        codes = codes.astype(np.uint8)
        return codes[::2] << 4 | codes[1::2], absmax
    report = check_qlora({"quantize_nf4": quantize_nf4})
    said = f"{report.diagnosis.seen} {report.diagnosis.measured}"
    assert report.status == "failed" and told in said, str(report)


@pytest.mark.parametrize(("told", "change"), [
    ("scales left out", lambda level, scale, offset: level + offset),
    ("missing: the offset", lambda level, scale, offset: level * scale),
    ("wrong sign: the offset", lambda level, scale, offset: level * scale - offset),
    ("twice: the offset", lambda level, scale, offset: level * scale + 2 * offset),
    ("scales squared", lambda level, scale, offset: level * scale ** 2 + offset),
    ("offset times scales", lambda level, scale, offset: (level + offset) * scale),
    ("nearest is", lambda level, scale, offset: level * scale + offset + 0.03 * np.sin(
        np.arange(level.size)))])
def test_wrongly_restored_absmax_are_told_by_their_terms(told, change):
    codes, scales = np.arange(600) % 256, np.array([0.3, 0.7, 0.5], np.float32)
    scale = np.repeat(scales, 256)[:600]
    with pytest.raises(Found) as found:
        otherwise.measure_restored(Trial(None, np.float64), "restored absmax", change(
            DYNAMIC[codes].astype(float), scale, 0.6), codes, DYNAMIC, scales, 256, 0.6)
    assert told in found.value.diagnosis.seen and found.value.diagnosis.mistake != "digits"
