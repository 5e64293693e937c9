"""What names mean: modules that have several or no parameters, layers, heads, keys' other names."""

import json
from pathlib import Path

import needs
import pytest
from pefts import ask, check

from real_models import accounting as ac

RECORDED = json.loads((Path(__file__).resolve().parents[1] / "fixtures" / "names.json")
                      .read_text(encoding="utf-8"))
CASES = [pytest.param(case, id=f"{case['config']['model_type']}-{case['task']}-{i}")
         for i, case in enumerate(RECORDED["cases"])]


@pytest.mark.parametrize("case", CASES)
def test_names_mean_what_they_mean_to_peft(case):
    model = ac.read_model(case["config"], case["task"])
    for question in case["answers"]:
        if "error" in question:
            with pytest.raises(ValueError):
                ask(model, question)
            continue
        assert "file_bytes" in question
        check(ask(model, question), question)


def test_what_peft_ignores_is_said():
    """Layers beside all-linear: LoHa's configuration allows them, and PEFT does not look."""
    model = ac.read_model(RECORDED["cases"][-1]["config"])
    counted = ac.count_loha(model, 2, "all-linear", layers=[0])
    assert counted.trainable == ac.count_loha(model, 2, "all-linear").trainable
    assert any("layers" in each for each in counted.unmatched)


@pytest.mark.parametrize("row", RECORDED["bare"], ids=lambda row: str(
    sorted(row["classes"])[:1]))
def test_modules_without_parameters_are_where_transformers_has_them(row):
    """All but two, of which no name beside them says in which layers they are."""
    for name, theirs in row["classes"].items():
        model = ac.read_model(row["config"] | {"architectures": [name]})
        ours = set(ac.bare_modules(model))
        assert ours <= set(theirs), name
        missed = {path.rpartition(".")[2] for path in theirs if path not in ours}
        assert missed <= {"qk_norm", "pos_dropout"}, name


@pytest.mark.parametrize("row", RECORDED["aliases"], ids=lambda row: row["family"])
def test_another_name_of_a_key_is_read_as_transformers_reads_it(row):
    counts = []
    for each in row["rows"]:
        try:
            counts.append(ac.read_model(each["config"]).num_parameters)
        except ValueError:
            continue  # sizes that do not fit, or a name that comes too late
        assert each["parameters"] in (counts[-1], None), each
    if row["family"] not in ("granitemoehybrid", "mllama"):  # a list; heads, which change no size
        assert len(set(counts)) > 1


def test_another_name_wins_and_one_that_comes_too_late_is_refused():
    """T5-small's layers: transformers has copied them for the decoder by then."""
    t5 = {"model_type": "t5"}
    assert ac.read_model(t5 | {"d_model": 512, "hidden_size": 1024}).num_parameters == 121_012_736
    both = t5 | {"num_layers": 6, "num_hidden_layers": 3}
    with pytest.raises(ValueError, match="num_hidden_layers.*num_decoder_layers"):
        ac.read_model(both)
    assert ac.read_model(both | {"num_decoder_layers": 6}).num_parameters == 51_066_368
    assert ac.read_model(both | {"num_layers": 3}) == ac.read_model(t5 | {"num_layers": 3})


def test_the_fixture_can_be_made_again(tmp_path):
    needs.run_oracle("make_name_fixtures.py", tmp_path / "names.json", cwd=tmp_path)
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == RECORDED
