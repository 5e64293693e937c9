"""The guide as questions, each answer with its evidence (section 9.5)."""

import json

import traitlets

from book_pages import guide, pages
from book_pages.figures import COLORS
from book_pages.widgets import explorer

_STYLE = """
.peft-widget .pw-options { display: grid; gap: 0.35rem 2rem; margin: 1rem 0 0; max-width: none;
  padding: 0; list-style: none; }
.peft-widget .pw-options li { margin: 0; padding-left: 1.6rem; text-indent: -1.6rem; }
.peft-widget .pw-options i { display: inline-block; width: 1.6rem; text-indent: 0;
  font-style: normal; font-weight: 700; }
.peft-widget .pw-options .pw-gone b { color: var(--soft); text-decoration: line-through; }
.peft-widget .pw-options span, .peft-widget .pw-ground p { color: var(--soft); }
.peft-widget .pw-ground { margin: 0.9rem 0 0; padding: 0.8rem 0 0; border: 0;
  border-top: 1px solid var(--line); border-radius: 0; background: none;
  box-shadow: none; font-size: 0.875rem; }
.peft-widget .pw-ground :is(p, ul) { margin-top: 0.3rem; max-width: 44rem; }
.peft-widget .pw-ground a { text-decoration: underline; }
.peft-widget .pw-ground ul { margin-bottom: 0; padding-left: 1.2rem; }
.peft-widget .pw-ground li { margin: 0.2rem 0 0; }
.peft-widget .pw-asked { display: grid; gap: 0.8rem 2.25rem;
  align-items: end; }
@container (min-width: 34rem) {
  .peft-widget :is(.pw-asked, .pw-options) { grid-template-columns: 1fr 1fr; }
}
"""


class AdviceExplorer(explorer.Widget):
    """Questions that narrow down what to try, from `guide.QUESTIONS`, and why.

    Attributes
    ----------
    answers : list of int
        For each question the place of its answer, -1 where there is none.
    """

    _esm = explorer.front_end("advice")
    _css = explorer.Widget._css + _STYLE

    answers = traitlets.List(traitlets.Int(), [-1] * len(guide.QUESTIONS)).tag(sync=True)
    _questions = traitlets.List().tag(sync=True)  # [question, [[answer, its row or ""], ...]]
    _options = traitlets.List().tag(sync=True)  # [option, its name, colour]
    _rows = traitlets.Unicode().tag(sync=True)  # JSON: row -> what stands in it

    def __init__(self, **settings):
        asked = {name for answers in guide.QUESTIONS.values() for name in answers.values() if name}
        colors = {option: COLORS.get(option, COLORS["lora"]) for option in guide.OPTIONS}
        super().__init__(
            _questions=[[question, [[answer, name or ""] for answer, name in answers.items()]]
                        for question, answers in guide.QUESTIONS.items()],
            _options=[[option, name, colors[option]] for option, name in guide.OPTIONS.items()],
            _rows=json.dumps({name: _told(guide.ROWS[name]) for name in sorted(asked)},
                             separators=(",", ":"), ensure_ascii=False), **settings)

    @traitlets.validate("answers")
    def _listed(self, proposal):
        counts = [len(answers) for answers in guide.QUESTIONS.values()]
        found = proposal["value"]
        if len(found) != len(counts) or not all(-1 <= one < count for one, count in
                                                zip(found, counts, strict=True)):
            raise traitlets.TraitError(f"answers are -1 or the places of answers, below {counts}; "
                                       f"got {found}")
        return found

    def standing(self) -> dict[str, str]:
        """Option -> "out", "behind" or "left", by the answers so far."""
        rows = [guide.ROWS[name] for place, answers in zip(
                    self.answers, guide.QUESTIONS.values(), strict=True)
                if place >= 0 and (name := list(answers.values())[place])]
        return {option: "out" if any(option in row.out for row in rows) else
                "behind" if any(option in row.behind for row in rows) else "left"
                for option in guide.OPTIONS}

    def fallback(self):
        def told(reasons):
            named = {reason: [] for reason in reasons.values()}
            for option, reason in reasons.items():
                named[reason].append(guide.OPTIONS[option])
            return "; ".join(f"{', '.join(names)}: {why}" for why, names in named.items()) or "–"

        rows, nothing = [], guide.Row("", "this narrows nothing down", "", "")
        for question, answers in guide.QUESTIONS.items():
            for answer, name in answers.items():
                row = guide.ROWS[name] if name else nothing
                consider = "".join(piece.words if isinstance(piece, pages.Link) else piece
                                   for piece in pages.pieces(row.consider))
                rows.append([question, answer, consider, told(row.out), told(row.behind)])
        return ("The guide as questions. The evidence for each row stands in the guide's table.",
                ["question", "answer", "consider", "left out", "did less well in our runs"], rows)


def _told(row: guide.Row) -> dict:
    """A row as the front end shows it: text, and links as [words, address]."""
    def told(text):
        found = pages.pieces(text)
        if any(isinstance(piece, pages.Formula) for piece in found):
            raise ValueError(f"a row that a question asks for has no formulas, got {text!r}")
        return [list(piece) if isinstance(piece, pages.Link) else piece for piece in found]

    return {"consider": told(row.consider), "because": told(row.because),
            "evidence": told(row.evidence), "measured": [say() for say in row.measured],
            "out": row.out, "behind": row.behind}
