"""The guide: each fact has one home, questions lead to its rows, and its links lead somewhere."""

from pathlib import Path
from urllib.parse import urldefrag

import pytest
import traitlets

from book_pages import guide, pages
from book_pages.widgets.advice import AdviceExplorer
from experiments import claims, small_llama

BOOK = Path(__file__).parents[4] / "book"
ASKED = [(number, place, name) for number, answers in enumerate(guide.QUESTIONS.values())
         for place, name in enumerate(answers.values())]


def answered(number, place):
    return AdviceExplorer(answers=[place if i == number else -1
                                   for i in range(len(guide.QUESTIONS))])


@pytest.mark.parametrize("number, place, name", ASKED)
def test_an_answer_leaves_out_what_its_row_does(number, place, name):
    standing = answered(number, place).standing()
    row = guide.ROWS[name] if name else guide.Row("", "", "", "")
    assert {option for option, kind in standing.items() if kind == "out"} == set(row.out)
    assert {option for option, kind in standing.items() if kind == "behind"} \
        == set(row.behind) - set(row.out)
    assert any(kind != "out" for kind in standing.values())


def test_answers_add_up_and_may_exclude_each_other():
    names = list(guide.OPTIONS)
    where = {name: (number, place) for number, place, name in ASKED if name}

    def standing(*rows):
        answers = [-1] * len(guide.QUESTIONS)
        for number, place in map(where.get, rows):
            answers[number] = place
        found = AdviceExplorer(answers=answers).standing()
        return {name for name in names if found[name] != "out"}

    assert standing("many", "context") == {"lora", "four", "adapters"}
    assert standing("latency", "old model") == {"four"}
    assert standing("memory", "many") == {"four", "adapters", "prefix", "prompt"}


@pytest.mark.parametrize("name", guide.ROWS)
def test_what_was_measured_is_said_with_its_numbers_and_links_lead_somewhere(name):
    row = guide.ROWS[name]
    for say in row.measured:
        assert any(letter.isdigit() for letter in say()), say()
    links = [piece for text in (row.consider, row.because, row.evidence)
             for piece in pages.pieces(text) if isinstance(piece, pages.Link)]
    assert any(link in pages.pieces(row.evidence) for link in links)  # no advice without evidence
    for link in links:
        assert (BOOK / urldefrag(link.address)[0]).exists(), link
    if name in {asked for *_, asked in ASKED}:
        assert row.measured or not row.behind  # who came behind is said by a run
    assert set(row.out) | set(row.behind) <= set(guide.OPTIONS)


def test_a_claim_that_fails_takes_the_guide_down(monkeypatch):
    monkeypatch.setattr(small_llama, "load_before", lambda: {"losses": {"base validation": 2.0}})
    with pytest.raises(claims.ClaimFails, match="taken off"):
        guide.taken_off()


def test_files_and_states_are_the_calculators():
    # 4 * 32 layers * 4096 * rank 8 numbers of two bytes; 6,738,415,616 weights (Touvron et al.)
    assert "8.4 MB" in guide.files()
    assert "4,194,304" in guide.files()
    assert "13.5 GB" in guide.files()
    assert f"{16 * 6_738_415_616 / 1e9:.1f} GB" in guide.states()


def test_a_line_of_markdown_becomes_text_links_and_formulas():
    found = pages.pieces("see [a](b.ipynb#c), $x_1$ and [d](e.md)")
    assert found == ["see ", ("a", "b.ipynb#c"), ", ", "x_1", " and ", ("d", "e.md")]
    assert isinstance(found[3], pages.Formula)
    table = pages.table(["one", "two"], [[found, "1 < 2"]]).data
    assert 'see <a href="b.ipynb#c">a</a>, <span class="math">\\(x_1\\)</span>' in table
    assert "1 &lt; 2" in table


def test_the_table_in_its_place_has_every_answer():
    _, columns, rows = AdviceExplorer().fallback()
    assert [(question, answer) for question, answer, *_ in rows] == [
        (question, answer) for question, answers in guide.QUESTIONS.items() for answer in answers]
    many = next(row for row in rows if row[1] == "Many tasks on one base")
    assert many[2:] == ["LoRA unmerged; adapters; prefix or prompt",
                        f"full fine-tuning, LoRA, merged: {guide.ROWS['many'].out['full']}", "–"]
    for row in rows:  # no method is left out or behind without the reason
        found = guide.QUESTIONS[row[0]][row[1]]
        reasons = {**guide.ROWS[found].out, **guide.ROWS[found].behind}.values() if found else ()
        assert all(reason in row[3] + row[4] for reason in reasons)


@pytest.mark.parametrize("answers", [[0], [-2] + [-1] * 5, [3] + [-1] * 5])
def test_other_answers_are_refused(answers):
    with pytest.raises(traitlets.TraitError, match="places of answers"):
        AdviceExplorer(answers=answers)
