"""The parameter explorer's costs, multiplied, are what `compare_peft_methods` says.

The same is tested with real clicks in a browser by the book's widget tests.
"""

import json
import shutil
import subprocess
from itertools import product

import explorer
import peft
import pytest
from explorer import ParameterExplorer


def multiplied(widget, width, layers, **settings):
    """What the front end does: the cost of one unit times the setting."""
    costs = widget._costs[f"{width},{layers}"]
    return {method["key"]: costs[method["key"]] * settings.get(method["setting"], 1)
            for method in widget._methods}


@pytest.fixture(scope="module")
def widget():
    return explorer.parameter_explorer()


def test_defaults_are_the_published_counts_of_the_7b_shape(widget):
    counts = {key: count["params"] for key, count in widget.counts().items()}
    assert counts == {"full": 2_147_483_648, "lora": 4_194_304, "adapters": 33_554_432,
                      "prefix": 2_621_440, "prompt": 81_920}


def test_every_shape_multiplied_is_exactly_what_compare_peft_methods_counts(widget):
    settings = [dict(zip(explorer.SETTINGS, values, strict=True))
                for values in zip(*(v[:9] for v in explorer.SETTINGS.values()), strict=True)]
    settings.append({name: values[-1] for name, values in explorer.SETTINGS.items()})
    for width, layers in product(widget._widths, widget._layer_counts):
        for heads in widget._head_counts[str(width)]:
            for choice in settings:
                expected = peft.compare_peft_methods(width, layers, heads, **choice)
                assert multiplied(widget, width, layers, **choice) == {
                    key: count["params"] for key, count in expected.items()}


def test_every_position_of_every_slider(widget):
    for setting, values in explorer.SETTINGS.items():
        for value in values:
            expected = peft.compare_peft_methods(**{setting: value})
            [key] = [m["key"] for m in widget._methods if m["setting"] == setting]
            assert multiplied(widget, 4096, 32, **{setting: value})[key] == expected[key]["params"]


def test_no_count_or_byte_is_beyond_what_javascript_counts_exactly(widget):
    largest = max(
        product_ for width, layers in product(widget._widths, widget._layer_counts)
        for product_ in multiplied(
            widget, width, layers, **{k: v[-1] for k, v in explorer.SETTINGS.items()}).values())
    assert largest * 4 <= 2**53 - 1


def test_a_setting_beyond_exact_counting_is_refused():
    with pytest.raises(ValueError, match=r"above 2\*\*53 - 1.*choose smaller"):
        explorer.rank_widget(lora_rank=10**10)


def test_seed_defaults_lie_on_the_sliders():
    widget = explorer.parameter_explorer()
    for setting, values in explorer.SETTINGS.items():
        assert getattr(widget, setting) in values
        assert values == sorted(set(values))
    for _, width, layers, heads in explorer.MODELS:
        assert width in widget._widths and layers in widget._layer_counts
        assert heads in widget._head_counts[str(width)]


def test_another_starting_value_gets_its_own_position():
    widget = explorer.rank_widget(lora_rank=10)
    assert 10 in widget._methods[1]["values"]
    assert widget.counts()["lora"]["params"] == 32 * 2 * 10 * (4096 + 4096)


def test_state_set_from_python_counts_anew():
    widget = explorer.parameter_explorer()
    widget.width, widget.layers, widget.heads = 768, 12, 12
    widget.lora_rank = 16
    assert widget.counts() == peft.compare_peft_methods(768, 12, 12, lora_rank=16)


@pytest.mark.parametrize("make, methods", [
    (explorer.rank_widget, ["full", "lora"]),
    (explorer.bottleneck_widget, ["full", "adapters"]),
    (explorer.lengths_widget, ["full", "prefix", "prompt"]),
])
def test_small_widgets_show_their_methods_and_hold_only_listed_shapes(make, methods):
    widget = make()
    assert list(widget.counts()) == methods
    assert set(widget._costs) == {f"{w},{n}" for _, w, n, _ in explorer.MODELS}


@pytest.mark.parametrize("arguments, message", [
    ({"model": "GPT-5"}, "model must be one of .*got 'GPT-5'"),
    ({"methods": ["lora", "magic"]}, "methods must name some of .*magic"),
    ({"methods": []}, "methods must name some of"),
    ({"rank": 8}, "settings must be among .*rank"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParameterExplorer(**arguments)


@pytest.mark.parametrize("name, value", [("width", 100), ("layers", 7), ("heads", 3),
                                         ("lora_rank", 0), ("precision", "int8")])
def test_bad_state_is_refused(name, value):
    with pytest.raises(Exception, match=name):
        setattr(explorer.parameter_explorer(), name, value)


def test_costs_that_depend_on_heads_are_noticed(monkeypatch):
    monkeypatch.setattr(explorer, "unit_costs", lambda width, layers, heads: {"full": heads})
    with pytest.raises(ValueError, match="depend on the number of heads"):
        explorer.parameter_explorer()


def test_a_page_without_javascript_shows_the_counts():
    caption, columns, rows = explorer.parameter_explorer().fallback()
    assert [row[2] for row in rows] == ["2,147,483,648", "4,194,304", "33,554,432", "2,621,440",
                                        "81,920"]
    assert "4,194,304" in explorer._text_table(caption, columns, rows)


def test_the_front_end_never_parses_html():
    for path in explorer.FRONT_END.glob("*.js"):
        source = path.read_text("utf-8")
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "http:", "fetch("):
            assert sink not in source.replace("http://www.w3.org/2000/svg", ""), (path, sink)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_multiplies_every_shape_exactly(widget, tmp_path):
    """The real front-end function, over every shape and the ends of every slider."""
    picks = [{k: v[i] for k, v in explorer.SETTINGS.items()} for i in (0, 3, -1)]
    shapes = [list(map(int, key.split(","))) for key in widget._costs]
    state = {"_costs": widget._costs, "_methods": widget._methods}
    (tmp_path / "state.json").write_text(json.dumps([state, shapes, picks]))
    (tmp_path / "count.mjs").write_text(widget._esm + """
import { readFileSync } from "node:fs";
const [state, shapes, picks] = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(shapes.flatMap(([width, layers]) => picks.map((pick) => {
  const all = { ...state, width, layers, ...pick };
  return countParameters((name) => all[name]).map(({ params, ratio }) => [params, ratio]);
}))));
""")
    done = subprocess.run(["node", tmp_path / "count.mjs", tmp_path / "state.json"], check=True,
                          capture_output=True, text=True)
    expected = [
        [[count["params"], count["ratio"]]
         for count in peft.compare_peft_methods(width, layers, 1, **pick).values()]
        for (width, layers), pick in product(shapes, picks)]
    assert json.loads(done.stdout) == expected
