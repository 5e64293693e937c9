"""What the speaking model answered before and after a training, with no kernel behind it."""

import traitlets

from book_pages import speaking
from book_pages.figures import COLORS
from book_pages.widgets import explorer
from experiments.tasks import CRON, TASKS, TEST

_STYLE = """
.peft-widget.pw-answers .pw-field[hidden] { display: none; }
.peft-widget.pw-answers .pw-table :is(th, td) { text-align: left; vertical-align: top; }
.peft-widget.pw-answers tbody :is(th, td) { white-space: normal; overflow-wrap: anywhere; }
.peft-widget.pw-answers .pw-table tbody th { font-weight: 400; }
.peft-widget.pw-answers .pw-said {
  font: 0.8125rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.peft-widget.pw-answers .pw-right { font-weight: 700; border-radius: 3px; padding: 0 0.2rem;
  background: color-mix(in oklab, var(--series) 22%, transparent); }
.peft-widget.pw-answers .pw-right::before { content: "\\2713\\a0"; }
.peft-widget.pw-answers .pw-group-row th { font-weight: 600; padding-top: 0.9rem; }
"""


class AnswerExplorer(explorer.Widget):
    """Recorded answers of the speaking model to the same twenty questions of a task.

    Parameters
    ----------
    rows : list of dict
        Runs as experiments/smollm2.py records them, of one task or more. Of those that diverged
        only the number is told.

    Attributes
    ----------
    before : str
        How the base model was asked, one of `smollm2.BEFORE`.
    task, method : str
    size, seed : int
    lr : float
        The training that is shown. Of those not recorded together the later ones give way.

    Raises
    ------
    ValueError
        If nothing is recorded of a task's base model, or of a trained one.
    """

    _esm = explorer.front_end("answers")
    _css = explorer.Widget._css + _STYLE

    before = traitlets.Unicode().tag(sync=True)
    task = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    size = traitlets.Int().tag(sync=True)
    lr = traitlets.Float().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)

    _before = traitlets.List().tag(sync=True)
    _runs = traitlets.List().tag(sync=True)
    _methods = traitlets.Dict().tag(sync=True)
    _tasks = traitlets.Dict().tag(sync=True)
    _groups = traitlets.List().tag(sync=True)  # name, title, how many rows
    _note = traitlets.Unicode().tag(sync=True)

    def __init__(self, rows):
        self._rows = rows
        before = [row for row in rows if row["kind"] == "before"]
        runs = [row for row in rows if row["kind"] == "after" and "diverged" not in row]
        tasks = list(dict.fromkeys(row["task"] for row in rows))
        if not rows or any(not any(row["task"] == name for row in part)
                           for part in (before, runs) for name in tasks):
            raise ValueError("rows must hold the base model's answers and those after a training; "
                             "`make experiments-smollm2` records them")
        lost = sum("diverged" in row for row in rows)
        best = max((row for row in runs if row["task"] == tasks[0]), key=speaking.total)
        kept = (*speaking.SETTING, "exact", "form", "choice", "general", "answers", "trainable",
                "file_bytes", "validation")
        super().__init__(
            before=before[0]["method"], **{name: best[name] for name in speaking.SETTING},
            _before=[{"label": speaking.BEFORE[row["method"]]}
                     | {name: row[name] for name in kept if name in row} for row in before],
            _runs=[{name: row[name] for name in kept if name in row} for row in sorted(
                runs, key=lambda row: [tasks.index(row["task"]), *(
                    row[name] for name in speaking.SETTING[1:])])],
            _tasks={name: {"label": title, "asked": TASKS[name].asked, "right": right, "form": form}
                    for name, (title, right, form) in speaking.TOLD.items() if name in tasks},
            _methods={key: {"label": label, "color": COLORS[color], "unit": unit}
                      for key, (label, color, unit) in explorer.RUN_METHODS.items()
                      if any(row["method"] == key for row in runs)},
            _groups=[[name, speaking.GROUPS[name], len(CRON.rows(name))] for name in TEST],
            _note="Recorded runs; `make experiments-smollm2` repeats them. The answers are the "
                  "first of each group; the counts are of all. A dash: not measured."
                  + f" {lost} more runs diverged." * bool(lost))

    @traitlets.validate("before", *speaking.SETTING)
    def _check_choice(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        rows = self._before if name == "before" else self._runs
        allowed = sorted({row["method" if name == "before" else name] for row in rows})
        if allowed and value not in allowed:
            raise traitlets.TraitError(f"{name} must be one of {allowed}, got {value!r}")
        return value

    def fallback(self):
        columns, lines = speaking.counts(self._rows)
        return ("Recorded answers of the speaking model, how many are right", ["task", *columns],
                [[speaking.TOLD[row["task"]][0], *line] for row, line in zip(self._rows, lines)])


def answer_explorer():
    """The recorded runs of experiments/smollm2.py: the widget of the page on the speaking model."""
    return AnswerExplorer([row for rows in speaking.recorded().values() for row in rows])
