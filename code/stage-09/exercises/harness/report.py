"""What a check says: a diagnosis in plain words, and the report of all tests."""

import re
from dataclasses import dataclass, replace
from html import escape

from tensorfile import plain

#: Where a diagnosis may send its reader: the page's title, and its file below book/.
PAGES = {
    "9.2": ("section 9.2", "02-lora.ipynb"),
    "9.3": ("section 9.3", "03-adapters.ipynb"),
    "9.4": ("section 9.4", "04-prefix-and-prompt-tuning.ipynb"),
    "9.6": ("section 9.6", "06-implementation.ipynb"),
    "mistakes": ("Common mistakes", "common-mistakes.ipynb"),
    "statement": ("the exact statement of the exercise", "exercises/index.md"),
}
#: Under which heading of the page: by the mistake or the kind of test, "" where that has none.
HEADINGS = {
    "9.2": {"": "The forward pass", "start": "Why A is random and B is zero",
            "gradients": "The gradients, one by one", "alpha-not-over-r": "What alpha over r does",
            "no-s": "What alpha over r does"},
    "9.3": {"": "A narrow detour around nothing", "start": 'How near is "near-identity"?',
            "gradients": "The gradients"},
    "9.4": {"": "What is prepended where", "gradients": "Back through attention"},
    "9.6": {"": "What all methods share", "wrong-dtype": "What an obvious version gets wrong",
            "accepts-nonsense": "What an obvious version gets wrong"},
    "mistakes": {"": "7. A prefix without its mask, or without its position shift",
                 "alpha-not-over-r": "2. alpha instead of alpha / r",
                 "prompt-scored": "8. The prompt scored in the loss",
                 "frozen-changed": "4. Weight decay on frozen weights"},
}
SIGNS = {"passed": "✓", "failed": "✗", "not yet": "…", "not tried": "–"}
#: One colour for each state, which holds on light and dark pages; the words say the same.
COLOURS = {"passed": "#2e8b57", "failed": "#d03b3b", "not yet": "#c98500", "not tried": "#888888"}
MOST_LINES = 15  # of a report as text


def short(text: str, most: int = 600) -> str:
    """At most so many characters: what a student's code says may be long."""
    return text if len(text) <= most else f"{text[:most - 20]} ... ({len(text):,} characters)"


def anchor(heading: str) -> str:
    """The address of a heading on the built page, as docutils makes it."""
    return re.sub(r"^[-0-9]+|-+$", "", re.sub(r"[^a-z0-9]+", "-", heading.lower()))


@dataclass(frozen=True)
class Diagnosis:
    """One mistake in plain words.

    Attributes
    ----------
    mistake : its identifier, for a grading tool and the tests
    name : what it is, continuing "This looks like: ..."
    why : why it is a mistake, without giving the answer away
    read : key of `PAGES`
    seen : what was seen in this run
    measured : pairs of an array and what it is: "right", or what it is instead
    """

    mistake: str
    name: str
    why: str
    read: str
    seen: str = ""
    measured: tuple[tuple[str, str], ...] = ()

    def parts(self, exercise: int, kind: str) -> list[tuple[str, str, str]]:
        """What to say: (opening word, text, address below book/ or "")."""
        title, path = PAGES[self.read]
        headings = HEADINGS.get(self.read, {})
        heading = headings.get(self.mistake, headings.get(kind, headings.get("", "")))
        place = anchor(heading) if heading else f"exercise-{exercise}"
        opening = "Not recognised" if self.mistake == "values" else "This looks like"
        return [(opening, f"{self.name}.", ""), *([("Seen", self.seen, "")] if self.seen else []),
                ("Why it matters", self.why, ""),
                ("Read", f"{title}, “{heading}”" if heading else title, f"{path}#{place}")]


@dataclass(frozen=True)
class Row:
    """One line of a report: status is "passed", "failed", "not yet" or "not tried"."""

    step: int
    kind: str
    name: str
    status: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found. `print` it, or leave it as a cell's last expression.

    Attributes
    ----------
    exercise : int
    title : str
    rows : tuple of Row
    diagnosis : Diagnosis or None, of the first failure
    step : int or None, the last step that was checked; None if all were
    hint : which hint of the notebook may help, "" before the second failure in one place
    """

    exercise: int
    title: str
    rows: tuple[Row, ...]
    diagnosis: Diagnosis | None
    step: int | None = None
    hint: str = ""

    @property
    def status(self) -> str:
        """ "passed", "not yet" or "failed". """
        states = [row.status for row in self.rows]
        return next((s for s in ("failed", "not yet") if s in states), "passed")

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.status == "passed"

    @property
    def measured(self) -> dict[str, str]:
        """The arrays of the failed test by name: "right", or what each is instead."""
        return dict(self.diagnosis.measured) if self.diagnosis else {}

    @property
    def failed(self) -> Row | None:
        """The test that failed."""
        return next((row for row in self.rows if row.status == "failed"), None)

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        done = sum(row.status == "passed" for row in self.rows)
        return {"passed": f"All {len(self.rows)} tests passed.",
                "not yet": f"Not yet: {done} of {len(self.rows)} tests passed, "
                           "the others wait for what is missing.",
                "failed": "A test failed. Mend this first; what comes after it was not tried.",
                }[self.status]

    def _parts(self) -> list[tuple[str, str, str]]:
        """The diagnosis and the hint."""
        told = self.diagnosis.parts(self.exercise, self.failed.kind) if self.diagnosis else []
        return told + [("Hint", self.hint, "")] * bool(self.hint)

    def _shown(self) -> list[Row]:
        """The rows, as many in one line as it takes for the whole to be short; each note once."""
        room, rows = MOST_LINES - 2 - len(self._parts()), list(self.rows)
        for key in (lambda row: row, lambda row: row.step, lambda row: None):
            groups: dict[object, list[Row]] = {}
            for row in self.rows:
                # Always in one line: what was not tried, and what is missing of earlier steps.
                folded = row.status == "not tried" or (
                    row.status == "not yet" and row.step < self.rows[-1].step)
                groups.setdefault((row.status, folded or key(row)), []).append(row)
            rows = [_one(group) for group in groups.values()]
            if len(rows) <= room:
                break
        notes = [row.note for row in rows]
        return [replace(row, note="" if row.note in notes[:i] else row.note)
                for i, row in enumerate(rows)]

    def __str__(self) -> str:
        shown = self._shown()
        width = max(len(row.name) for row in shown)
        lines = [self.title, self.verdict]
        lines += [f"{opening}: {text}" + f" (book/{address})." * bool(address)
                  for opening, text, address in self._parts()]
        lines += [f"  {row.status:<9}  {row.kind:<9}  {row.name:<{width}}  {row.note}".rstrip()
                  for row in shown]
        return plain("\n".join(" ".join(line.split("\n")) for line in lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(status: str) -> str:
            return f'style="text-align:left;border-left:4px solid {COLOURS[status]}"'

        told = "".join(
            f"<p><strong>{opening}:</strong> "
            + (f'<a href="../{address}">{escape(text)}</a>.' if address else escape(text)) + "</p>"
            for opening, text, address in self._parts())
        rows = "".join(
            f"<tr><td {line(row.status)}>{escape(SIGNS[row.status])}&nbsp;{row.status}</td>"
            f'<td style="text-align:left">{escape(row.kind)}</td>'
            f'<td style="text-align:left">{escape(row.name)}'
            + (f"<br><small>{escape(row.note)}</small>" if row.note else "") + "</td></tr>"
            for row in self._shown())
        head = "".join(f'<th scope="col" style="text-align:left">{word}</th>'
                       for word in ("result", "kind", "test"))
        return plain(f"<p {line(self.status).replace('text', 'padding-left:0.6em;text')}><strong>"
                f"{escape(self.verdict)}</strong></p>{told}"
                f'<table class="table"><caption>{escape(self.title)}</caption><thead><tr>'
                f"{head}</tr></thead><tbody>{rows}</tbody></table>")


def _one(group: list[Row]) -> Row:
    """Rows of one status as a single one, with the first note among them."""
    first, steps = group[0], sorted({row.step for row in group})
    if len(group) == 1:
        return first
    where = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]}-{steps[-1]}"
    note = next((row.note for row in group if row.note), "")
    after = " after it" * (first.status == "not tried")
    return Row(first.step, where, f"{len(group)} tests{after}", first.status, note)
