"""What a check says: a diagnosis in plain words, and the report of all tests."""

from dataclasses import dataclass, replace
from html import escape

#: Where a diagnosis may send its reader: the page's title, and its file below book/.
PAGES = {
    "9.1": ("section 9.1", "01-the-fine-tuning-problem.ipynb"),
    "9.2": ("section 9.2", "02-lora.ipynb"),
    "9.3": ("section 9.3", "03-adapters.ipynb"),
    "9.4": ("section 9.4", "04-prefix-and-prompt-tuning.ipynb"),
    "9.5": ("section 9.5", "05-choosing-a-method.ipynb"),
    "9.6": ("section 9.6", "06-implementation.ipynb"),
    "mistakes": ("Common mistakes", "common-mistakes.ipynb"),
    "statement": ("the exact statement of the exercise", "exercises/index.md"),
}


def short(text: str, most: int = 600) -> str:
    """At most so many characters: what a student's code says may be long."""
    return text if len(text) <= most else f"{text[:most - 20]} ... ({len(text):,} characters)"


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
    """

    mistake: str
    name: str
    why: str
    read: str
    seen: str = ""

    def __str__(self) -> str:
        title, path = PAGES[self.read]
        parts = [f"This looks like: {self.name}.", f"Seen: {self.seen}" if self.seen else "",
                 f"Why it matters: {self.why}", f"Read: {title} (book/{path})."]
        return "\n".join(part for part in parts if part)


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
    """

    exercise: int
    title: str
    rows: tuple[Row, ...]
    diagnosis: Diagnosis | None
    step: int | None = None

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
    def verdict(self) -> str:
        """The report in one sentence."""
        done = sum(row.status == "passed" for row in self.rows)
        return {"passed": f"All {len(self.rows)} tests passed.",
                "not yet": f"Not yet: {done} of {len(self.rows)} tests passed, "
                           "the others wait for what is missing.",
                "failed": "A test failed. Mend this first; the tests below it were not tried.",
                }[self.status]

    def _shown(self) -> list[Row]:
        """The rows, with those of earlier steps those not tried too; each note once."""
        early = [row for row in self.rows if self.step and row.step < self.step]
        rows = list(self.rows[len(early):])
        if early:
            first = next((row for row in early if row.status != "passed"), early[-1])
            done = sum(row.status == "passed" for row in early)
            note = "" if first.status == "passed" else f"{first.name}. {first.note}"
            steps = "step 1" if self.step == 2 else f"steps 1-{self.step - 1}"
            rows.insert(0, Row(first.step, steps, f"{done} of {len(early)} earlier tests passed",
                               first.status, note.strip()))
        late = [row for row in rows if row.status == "not tried"]  # these stand at the end
        if len(late) > 1:
            rows[-len(late):] = [Row(late[0].step, "", f"{len(late)} tests after it", "not tried")]
        notes = [row.note for row in rows]
        return [replace(row, note="" if row.note in notes[:i] else row.note)
                for i, row in enumerate(rows)]

    def __str__(self) -> str:
        shown = self._shown()
        width = max(len(row.name) for row in shown)
        lines = [self.title]
        for row in shown:
            cells = f"{row.status:<9}  {row.kind:<9}  {row.name:<{width}}  {row.note}"
            lines.append("  " + cells.rstrip())
        lines += [self.verdict, *([str(self.diagnosis)] if self.diagnosis else [])]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(SIGNS[row.status])}&nbsp;{row.status}</td>'
            f'<td style="text-align:left">{escape(row.kind)}</td>'
            f'<td style="text-align:left">{escape(row.name)}'
            + (f"<br><small>{escape(row.note)}</small>" if row.note else "") + "</td></tr>"
            for row in self._shown())
        head = "".join(f'<th scope="col" style="text-align:left">{word}</th>'
                       for word in ("result", "kind", "test"))
        text = (f'<table class="table"><caption>{escape(self.title)}</caption><thead><tr>'
                f"{head}</tr></thead><tbody>{rows}</tbody></table>"
                f"<p><strong>{escape(self.verdict)}</strong></p>")
        if d := self.diagnosis:
            title, path = PAGES[d.read]
            path += f"#exercise-{self.exercise}" * (d.read == "statement")
            text += (f"<p><strong>This looks like:</strong> {escape(d.name)}.</p>"
                     + (f"<p><strong>Seen:</strong> {escape(d.seen)}</p>" if d.seen else "")
                     + f"<p><strong>Why it matters:</strong> {escape(d.why)}</p>"
                     f'<p><strong>Read:</strong> <a href="../{path}">{escape(title)}</a>.</p>')
        return text


SIGNS = {"passed": "✓", "failed": "✗", "not yet": "…", "not tried": "–"}
