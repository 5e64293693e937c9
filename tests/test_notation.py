"""The table of notation: it has every letter that the formulas of sections and exercises use."""

import json
import re

import pytest
from conftest import ROOT

BOOK = ROOT / "book"
USERS = sorted([*BOOK.glob("0[1-6]-*.ipynb"), *BOOK.glob("exercises/ex*.ipynb"),
                BOOK / "shrinking-the-base.ipynb"])
GREEK = ("alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|lambda|mu|nu|xi|pi|rho|sigma|"
         "tau|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|ell")


def letters(text):
    """Single letters and Greek ones in the formulas of a text, words in them left out."""
    found = set()
    for block, inline in re.findall(r"\$\$(.*?)\$\$|\$([^$\n]+)\$", text, re.DOTALL):
        formula = re.sub(r"\\(text|operatorname|mathrm|begin|end)\{[^}]*\}", " ", block or inline)
        found |= set(re.findall(rf"\\(?:{GREEK})(?![A-Za-z])", formula))
        formula = re.sub(r"\\[A-Za-z]+", " ", formula)
        found |= set(re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", formula))
    return found


def prose(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells
                       if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", USERS, ids=lambda path: path.stem)
def test_every_letter_is_in_the_table_and_the_page_links_it(path):
    text = prose(path)
    assert letters(text) <= letters((BOOK / "notation.md").read_text("utf-8"))
    assert "notation.md" in text


def test_letters_are_found_and_words_are_not():
    assert letters(r"With $\operatorname{relu}(x\,W_\downarrow)$ and $$\frac{\partial\mathcal{L}}"
                   r"{\partial \Pi_t}\text{ for all } t$$ it costs 5 dollars.") == {
                       "x", "W", "L", r"\Pi", "t"}
