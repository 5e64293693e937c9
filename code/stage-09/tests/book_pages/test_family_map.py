"""The family's map: a formula and a source in each row, and only names that PEFT has."""

import json
import re

import needs
import pytest

from book_pages import family_map
from book_pages.pages import Formula, table

ASKED = {  # by issue 25
    "OLoRA", "EVA", "LoRA-GA", "LoRA-FA", "AdaLoRA", "LoHa", "LoKr", "BOFT", "MiSS", "TinyLoRA",
    "BitFit", "LISA", "trainable tokens", "aLoRA", "LoRA per expert", "LoftQ", "QA-LoRA",
    "Text-to-LoRA", "S-LoRA"}
ARXIV = re.compile(r"\d{4}\.\d{5}")
#: What PEFT has not, and must say no to: a class, an option, a value of one.
NOT_THERE = [["NoSuchConfig", "", None], ["LoraConfig", "use_nothing", True],
             ["LoraConfig", "init_lora_weights", "nothing"]]


def test_the_map_has_each_method_once():
    names = [row.method for row in family_map.ROWS]
    assert set(names) == ASKED and len(names) == len(ASKED)


@pytest.mark.parametrize("row", family_map.ROWS, ids=lambda row: row.method)
def test_each_row_has_a_formula_and_a_source(row):
    assert row.formula
    for line in row.formula:
        assert re.search(r"[=<>\\]", line) and line.count("{") == line.count("}"), line
        assert not re.search(r"[^ -~]", line), "TeX in ASCII, so that KaTeX draws it"
    assert ARXIV.fullmatch(row.source) or row.source.endswith(".py")
    assert all(isinstance(cell, str) and cell for cell in row[3:9])
    assert row.peft or "PEFT" not in row.note


def test_both_tables_show_all_rows():
    formulas, questions = family_map.formulas().data, family_map.questions().data
    for row in family_map.ROWS:
        assert f'<th scope="row">{row.method}</th>' in formulas
        assert f'<th scope="row">{row.method}</th>' in questions
    lines = sum(len(row.formula) for row in family_map.ROWS)
    assert formulas.count('<span class="math">\\(') == formulas.count("\\)</span>") == lines
    assert '<td>init_lora_weights=&quot;olora&quot;</td>' in questions
    assert "no paper" in formulas
    for row in family_map.ROWS:
        link = f'<a href="https://arxiv.org/abs/{row.source}">arXiv {row.source}</a>'
        assert (link in formulas) == bool(ARXIV.fullmatch(row.source))


def test_a_formula_is_escaped_for_html_and_keeps_its_tex():
    shown = table(["a", "b"], [["x", Formula("a < b\nc'_i")]]).data
    assert "\\(a &lt; b\\)</span><br>" in shown and "\\(c'_i\\)" in shown


def test_peft_has_what_the_map_names_and_computes_its_formulas(tmp_path):
    claims = [row.peft for row in family_map.ROWS if row.peft]
    files = [row.source for row in family_map.ROWS if row.source.endswith(".py")]
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({"claims": [*claims, *NOT_THERE], "files": [*files, "no.py"]}))
    told = json.loads(needs.run_oracle("family_map_oracle.py", asked, cwd=tmp_path)
                      .splitlines()[-1])
    assert told["claims"][:len(claims)] == [""] * len(claims)
    assert all(told["claims"][len(claims):]), "PEFT says yes to anything"
    assert set(told["off"]) <= {row.method for row in family_map.ROWS if row.peft}
    assert len(told["off"]) == 9 and max(told["off"].values()) < 1e-5, told["off"]  # float32
    assert told["files"] == [True] * len(files) + [False]
    assert told["zero starts"] == {"TinyLoRA": True}  # of those whose start the map calls zero
    assert told["version"].startswith("0.21."), "the page says which version it means"
