"""The check of spelling and style, which `make lint` runs over every page."""


import prose
from conftest import ROOT


def test_slips_of_the_pen_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nWe recieve the the tensor. Irregardless of `teh` and $teh$.\n"
                    "\n```python\nteh = 1\n```\n", "utf-8")
    found = "\n".join(prose.problems([page]))
    assert "recieve ==> receive" in found and "“the the”" in found and "nonwords" in found
    assert "teh" not in found  # code and formulas are no prose


def test_an_admonition_is_prose_and_code_is_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```{note}\nThis is recieved.\n```\n\n```\nrecieve\n```\nfine\n", "utf-8")
    assert len(list(prose.problems([page]))) == 1


def test_a_broken_sentence_in_a_notebook_is_found(tmp_path):
    text = (ROOT / "book/02-lora.ipynb").read_text("utf-8")
    page = tmp_path / "02-lora.ipynb"
    page.write_text(text, "utf-8")
    assert list(prose.problems([page])) == []
    assert " the " in text
    page.write_text(text.replace(" the ", " teh ", 1), "utf-8")
    assert "teh ==> the" in next(prose.problems([page]))
