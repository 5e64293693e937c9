"""The pages' source listings: what is shown is what the file says, and a stale page fails."""

from pathlib import Path

import pytest

import peft
from book_pages import pages


def test_whole_objects_and_slices_come_from_the_file():
    text = Path(peft.__file__).read_text("utf-8")
    shown = pages.source(peft.LoRALayer.delta_weight).data
    body = shown.split("```python\n")[1].removesuffix("\n```")
    assert body.splitlines()[0] == "def delta_weight(self) -> np.ndarray:"  # dedented
    assert all(line.strip() in text for line in body.splitlines())
    assert shown.startswith("`peft.py, LoRALayer.delta_weight`")
    one = pages.source(peft.LoRALayer.backward, "self.B_grad =").data
    assert one.count("\n") == 4 and "self.B_grad = G.T @" in one
    two = pages.source(peft.LoRALayer.backward, "GB = self.scaling", "self.A_grad =").data
    assert "GB = self.scaling" in two and "self.A_grad = GB.T @ x" in two and "grad_x" not in two
    assert "`peft.py`" in pages.source(peft, '"""Parameter-efficient', "runs the demo").data


@pytest.mark.parametrize("first, last", [("no such line", ""), ("self", ""),
                                         ("GB = self.scaling", "no such line")])
def test_a_stale_or_ambiguous_slice_is_refused(first, last):
    with pytest.raises(ValueError, match="stand"):
        pages.source(peft.LoRALayer.backward, first, last)


def test_table_escapes_and_marks_headers():
    html = pages.table(["a", "b"], [["x < y", 1]], caption="c & d").data
    assert '<th scope="row">x &lt; y</th><td>1</td>' in html
    linked = pages.table(["a"], [["x"], [pages.Link("y & z", "https://a.example/?b&c")]]).data
    assert '<a href="https://a.example/?b&amp;c">y &amp; z</a>' in linked
    assert "<caption>c &amp; d</caption>" in html and '<th scope="col">b</th>' in html
