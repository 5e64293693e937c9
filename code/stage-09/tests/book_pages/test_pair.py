"""The two settings on fixed axes: what the widget holds is what the records say."""

import json
from itertools import combinations

import numpy as np
import pytest
import traitlets

from book_pages.widgets.pair import OWN, PairExplorer
from experiments import claims, small_llama


@pytest.fixture(scope="module")
def widget():
    return PairExplorer()


def test_every_recorded_setting_is_there_with_its_own_numbers(widget):
    reported = small_llama.summarise(small_llama.load_runs("report"))
    assert sum(map(len, widget.settings.values())) == len(reported)
    for entry in reported:
        (one,) = [setting for setting in widget.settings[entry["target"]]
                  if setting["key"] == f"{entry['method']} {entry['size']}"]
        for key in ("final_test", "best_test", "final_base", "best_base"):
            assert one[key] == [entry[key], entry[f"{key}_sd"]]
        assert (one["lr"], one["trainable"]) == (entry["lr"], entry["trainable"])
        runs = small_llama.load_runs("report", **{key: entry[key] for key in
                                                  ("target", "method", "size")})
        np.testing.assert_allclose(one["validation"], np.mean(
            [run["curve"]["validation"] for run in runs], axis=0), atol=1e-4)
        own = claims.recorded().own(entry["method"], entry["size"], entry["target"])
        assert one[OWN] == [own["best_test"], own["best_test_sd"]]
        assert one["own_lr"] == own["lr"]


def test_a_distance_is_that_of_the_claims(widget):
    apart = json.loads(widget._apart)
    record = claims.recorded()
    for target, settings in widget.settings.items():
        pairs = list(combinations(settings, 2))
        assert {len(values) for values in apart[target].values()} == {len(pairs)}
        for i in (0, 35, 400, len(pairs) - 1):
            a, b = (record("report", method, int(size), target)
                    for method, size in (one["key"].split() for one in pairs[i]))
            for key in ("final_test", "best_base"):
                assert apart[target][key][i] == pytest.approx(claims.apart(a, b, key), abs=0.0051)
    errors = 1 / np.sqrt(2 / 5)  # of two equal deviations of five seeds, one apart
    assert errors * widget._deviations == pytest.approx(1)


def test_one_scale_holds_every_curve_but_for_its_random_start(widget):
    for (low, high), curve in zip(widget._extents, ("validation", "base"), strict=True):
        values = [loss for settings in widget.settings.values() for one in settings
                  for loss in one[curve][1:]]
        assert low <= min(values) < low + 0.5
        assert high - 0.5 < max(values) <= high
        assert all(low <= widget._before[name] <= high for name in
                   (widget.settings if curve == "validation" else ["base"]))


def test_the_table_in_its_place_tells_the_pair_that_is_chosen(widget):
    _, columns, rows = widget.fallback()
    full, lora = (claims.recorded()("report", *setting, "turkish")
                  for setting in (("full", 0), ("lora-qv", 4)))
    assert columns[1:3] == ["Full fine-tuning", "LoRA on q and v, rank 4"]
    last = next(row for row in rows if row[0] == "new names, last step")
    assert last[1] == f"{full['final_test']:.3f} ± {full['final_test_sd']:.3f}"
    pooled = np.sqrt((full["final_test_sd"]**2 + lora["final_test_sd"]**2) / 2)
    assert float(last[3].replace("\u2212", "-")) == pytest.approx(
        (lora["final_test"] - full["final_test"]) / pooled, abs=0.051)


@pytest.mark.parametrize("name, value", [("target", "danish"), ("a", "full 1"), ("b", "lora-qv"),
                                         ("guess", "perhaps")])
def test_what_is_not_recorded_is_refused(widget, name, value):
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(widget, name, value)
