"""The speaking model's record as tables and as the widget's state; its front end in node."""

import json
import subprocess

import needs
import pytest
import traitlets

from book_pages import speaking
from book_pages.widgets import answers, explorer
from experiments import smollm2
from experiments.tasks import TASKS, TEST


def answer(group, said, right):
    return {"group": group, "words": f"in words, {group}", "answer": "0 9 * * 1", "said": said,
            "right": right}


def row(kind, method, exact, said="0 9 * * 1", **more):
    found = {"task": "cron", "kind": kind, "method": method, "general": 0.7, "answers": [
        answer(group, said, said == "0 9 * * 1") for group in TEST]}
    for what in ("exact", "form", "choice"):
        found[what] = {group: exact for group in TEST}
    return found | more


def trained(method="lora-all", exact=5, lr=1e-3, seed=0, size=8, **more):
    return row("after", method, exact, lr=lr, seed=seed, size=size, trainable=100 * size,
               **{"file_bytes": 400 * size, "validation": 0.1, "curve": [2.0, 1.0]} | more)


@pytest.fixture(scope="module")
def rows():
    three = row("before", "three", 0, "0 9")
    del three["choice"]
    return [row("before", "zero", 0, ""), three, trained(exact=3, lr=3e-3), trained(),
            trained("lora-qv", 2, seed=1), trained("lora-qv", 1),
            {"task": "cron", "kind": "after", "method": "prefix", "size": 8, "lr": 1.0, "seed": 0,
             "diverged": "infinite"}]


def test_one_row_or_none_is_found(rows):
    assert speaking.find(rows, kind="after", lr=3e-3)["exact"]["test"] == 3
    for wanted in ({"method": "lora-qv"}, {"method": "prompt"}):
        with pytest.raises(ValueError, match=wanted["method"]):
            speaking.find(rows, **wanted)


def test_counts_are_sums_and_what_was_not_measured_is_a_dash(rows):
    columns, lines = speaking.counts(rows)
    assert all(len(line) == len(columns) for line in lines)
    assert lines[3][1:] == ["5", "5", "5", "15", "15", "0.70"]
    assert lines[1][5] == "–" and lines[6][1] == "diverged"
    assert columns[1].endswith("(of 60)") and columns[5].endswith("(of 100)")


def test_right_answers_are_marked(rows):
    columns, lines = speaking.answers(rows[1], rows[3])
    assert lines[0] == ["in words, test", "0 9 * * 1", "0 9", "✓ 0 9 * * 1"]
    assert speaking.answers(rows[0], rows[3])[1][0][2] == "(nothing)"
    other = trained()
    other["answers"] = [a | {"words": "others"} for a in other["answers"]]
    with pytest.raises(ValueError, match="other rows"):
        speaking.answers(rows[0], other)


def test_fields_are_compared_where_there_are_five():
    some = trained()
    some["answers"] = [answer("test", "0 8 * * 1", False), answer("test", "0 9", False),
                       answer("test", "0 9 * * 1", True)]
    found = speaking.fields_right(some, "test")
    assert found == {"minute": (2, 2), "hour": (1, 2), "day": (2, 2), "month": (2, 2),
                     "weekday": (2, 2)}


def test_an_update_is_told_whole_and_cut():
    some = {"kind": "update", "method": "lora-all", "size": 8, "lr": 1e-3, "seed": 0,
            "weight": 0.12, "entry": 3e-4, "bfloat16": {"unchanged": 0.4, "error": 0.3},
            "validation": 0.11, "exact": 40, "of": 100, "beside": {"validation": 0.12, "exact": 39},
            "merged": {"validation": 0.2, "exact": 30}, "cuts": [1, 8], "share": [0.5, 1.0],
            "cut_loss": [0.9, 0.11]}
    assert speaking.updates([some])[1][0][1:] == ["0.120", "3.0e-04", "40%", "30.0%"]
    assert [line[2:] for line in speaking.kept([some])[1]] == [
        ["0.110", "40"], ["0.120", "39"], ["0.200", "30"]]
    columns, lines = speaking.cuts([some])
    assert [line[2:] for line in lines] == [["50%", "100%", "100%"], ["0.90", "0.11", "0.11"]]
    assert len(columns) == len(lines[0]) and speaking.label(some).startswith("LoRA all linear, 8")


def test_every_recorded_way_and_method_has_a_name():
    assert speaking.BEFORE.keys() == {*smollm2.BEFORE}
    assert {*smollm2.RUNS} <= speaking.METHODS.keys() <= explorer.RUN_METHODS.keys()
    assert speaking.GROUPS.keys() == {*TEST} and speaking.TOLD.keys() == TASKS.keys()
    assert len(speaking.counts(smollm2.load_runs())[1]) == len(smollm2.load_runs())


def test_the_training_with_the_lowest_loss_held_back_stands_for_a_task(rows):
    some = [*rows, trained("full", exact=2, validation=0.05)]
    columns, (line,) = speaking.tasks({"cron": some})
    assert len(line) == len(columns) and line[1:] == [
        "0", "6", "0 → 2", "0 → 2", "0 → 6", "0 → 6", "0.70 → 0.70", speaking.label(some[-1])]
    with pytest.raises(ValueError, match="no training"):
        speaking.best_run(rows[:2])


# ------------------------------------------------------------------------------------- the widget


@pytest.fixture(scope="module")
def widget(rows):
    return answers.AnswerExplorer(rows)


def test_it_starts_with_the_run_that_got_most_right(widget):
    assert (widget.before, widget.method, widget.lr, widget.seed) == ("zero", "lora-all", 1e-3, 0)
    assert "1 more runs diverged" in widget._note and len(widget._runs) == 4


def test_only_what_is_recorded_can_be_chosen(widget):
    for name, value in (("before", "nonsense"), ("method", "prefix"), ("lr", 1.0), ("size", 3)):
        with pytest.raises(traitlets.TraitError, match=f"{name} must be one of .*{value}"):
            setattr(widget, name, value)


def test_a_record_without_both_sides_is_refused(rows):
    other = [row | {"task": "desks"} for row in rows]
    for part in (rows[:2], rows[2:], [], rows + other[:2]):
        with pytest.raises(ValueError, match="experiments-smollm2"):
            answers.AnswerExplorer(part)


def test_without_javascript_there_is_a_table(widget):
    _, columns, lines = widget.fallback()
    assert len(lines) == 7 and len(lines[0]) == len(columns)


def test_each_task_has_its_own_trainings(rows):
    widget = answers.AnswerExplorer(rows + [row | {"task": "desks"} for row in rows[:3]])
    assert widget.task == "cron" and widget._tasks.keys() == {"cron", "desks"}
    assert [run["task"] for run in widget._runs] == ["cron"] * 4 + ["desks"]
    with pytest.raises(traitlets.TraitError, match="task must be one of .*orders"):
        widget.task = "orders"


CHOOSE = """
console.log(JSON.stringify(data.wanted.map((wanted) => {
  const { run, open } = chosenRun(data.runs, wanted);
  return [run.method, run.size, run.lr, run.seed, open.lr.length, open.seed.length];
})));
"""


def test_an_earlier_choice_binds_a_later_one(widget, tmp_path):
    wanted = [{"task": "cron", "method": "lora-all", "size": 8, "lr": 3e-3, "seed": 0},
              {"method": "lora-qv", "size": 8, "lr": 3e-3, "seed": 1},  # no such rate recorded
              {"task": "desks", "method": "lora-all", "size": 8, "lr": 1e-3, "seed": 1}]
    (tmp_path / "data.json").write_text(json.dumps({"runs": widget._runs, "wanted": wanted}))
    (tmp_path / "program.mjs").write_text(
        f'{widget._esm}\nimport {{ readFileSync }} from "node:fs";\n'
        f"const data = JSON.parse(readFileSync(process.argv[2]));\n{CHOOSE}")
    done = subprocess.run([needs.node(), tmp_path / "program.mjs", tmp_path / "data.json"],
                          check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [
        ["lora-all", 8, 3e-3, 0, 2, 1], ["lora-qv", 8, 1e-3, 1, 1, 2],
        ["lora-all", 8, 1e-3, 0, 2, 1]]
