"""The recorded runs of the speaking model (experiments/smollm2.py) as the tables of its page."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt

from book_pages import figures
from experiments import smollm2
from experiments.tasks import CRON, TASKS, TEST, Task

SETTING = ("task", "method", "size", "lr", "seed")  # what tells one training from another
FIRST = {"size": 8, "lr": 1e-3, "seed": 0}  # LoRA's training that stands first in the plan
BEFORE = {"zero": "no example", "three": "three examples",
          "three-chat": "three examples, as a question to the assistant"}
METHODS = {"full": "full fine-tuning", "lora-qv": "LoRA q, v", "lora-all": "LoRA all linear",
           "pfeiffer": "adapters, Pfeiffer", "prefix": "prefix", "prompt": "prompt"}
GROUPS = {"test": "Shapes of training", "phrasings": "New phrasings", "shapes": "New shapes"}
FIELDS = ("minute", "hour", "day", "month", "weekday")
#: Of each task: a title, what is right, and what is right in form.
TOLD = {"cron": ("schedules to cron", "runs at the same minutes of a year", "is a cron expression"),
        "orders": ("orders to JSON", "all four fields are right",
                   "is JSON with these four fields and no other"),
        "desks": ("messages to desks", "names the desk that must act", "is the name of a desk")}


def find(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The one recorded row with these values.

    ValueError if there is none, or more than one: the page must not pick one silently.
    """
    found = [row for row in rows if wanted.items() <= row.items()]
    if len(found) != 1:
        raise ValueError(f"{wanted}: {len(found)} runs are recorded, not one; "
                         "`make experiments-smollm2` records them")
    return found[0]


def label(row: dict[str, Any]) -> str:
    """A run's name in a table."""
    if row["kind"] == "before":
        return f"base, {BEFORE[row['method']]}"
    size = f", {row['size']}" if row["size"] else ""
    return f"{METHODS[row['method']]}{size}, rate {row['lr']:g}, seed {row['seed']}"


def total(row: dict[str, Any], what: str = "exact") -> int:
    """Over the groups, of 100."""
    return sum(row[what].values())


def best_run(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The training with the lowest loss on the rows held back: no answer of the test chooses it."""
    found = [row for row in rows if "validation" in row]
    if not found:
        raise ValueError("no training is recorded; `make experiments-smollm2` records them")
    return min(found, key=lambda row: row["validation"])


def settings(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method and size the training of the first seed that `best_run` takes."""
    found = [row for row in rows if "validation" in row and row["seed"] == FIRST["seed"]]
    return [best_run([row for row in found if (row["method"], row["size"]) == setting])
            for setting in dict.fromkeys((row["method"], row["size"]) for row in found)]


def recorded() -> dict[str, list[dict[str, Any]]]:
    """Each task's runs, of the tasks that were asked with and without examples, and trained."""
    found = {}
    for name, task in TASKS.items():
        rows = smollm2.load_runs(task=task)
        ways = {row["method"] for row in rows if "diverged" not in row}
        if "zero" in ways and len(ways & BEFORE.keys()) > 1 and ways - BEFORE.keys():
            found[name] = rows
    return found


def with_examples(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The base model with examples in its prompt, asked in the way that got most right, or in form.
    """
    return max((row for row in rows if row["method"] in BEFORE and row["method"] != "zero"),
               key=lambda row: (total(row), total(row, "form")))


def tasks(runs: dict[str, Sequence[dict[str, Any]]]) -> tuple[list[str], list[list[str]]]:
    """Column names and a line per task, of its recorded runs: before, best training, controls."""
    sizes = {group: len(CRON.rows(group)) for group in TEST}
    of = sum(sizes.values())
    columns = ["task", f"three examples (of {of})", f"trained (of {of})",
               *(f"{GROUPS[group].lower()} (of {sizes[group]})" for group in TEST[:0:-1]),
               "form", "choice", "everyday loss", "training"]
    lines = []
    for name, rows in runs.items():
        zero = find(rows, kind="before", method="zero")
        shown, best = with_examples(rows), best_run(rows)
        lines.append([
            TOLD[name][0], str(total(shown)), str(total(best)),
            *(f"{shown['exact'][group]} → {best['exact'][group]}" for group in TEST[:0:-1]),
            f"{total(shown, 'form')} → {total(best, 'form')}",
            f"{total(zero, 'choice')} → {total(best, 'choice')}",
            f"{zero['general']:.2f} → {best['general']:.2f}", label(best)])
    return columns, lines


def counts(rows: Sequence[dict[str, Any]], task: Task = CRON) -> tuple[list[str], list[list[str]]]:
    """Column names and a line per run: right answers by group; form and choice; the two losses."""
    sizes = {group: len(task.rows(group)) for group in GROUPS}
    columns = ["run", *(f"{title.lower()} (of {sizes[group]})" for group, title in GROUPS.items()),
               f"form (of {sum(sizes.values())})", f"choice (of {sum(sizes.values())})",
               "everyday loss"]
    lines = []
    for row in rows:
        if "diverged" in row:
            lines.append([label(row), "diverged", *[""] * (len(columns) - 2)])
            continue
        lines.append([label(row), *(str(row["exact"][group]) for group in GROUPS),
                      *(str(total(row, what)) if what in row else "–"
                        for what in ("form", "choice")), f"{row['general']:.2f}"])
    return columns, lines


def answers(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and a line for each of the twenty rows that both answered; ✓ if right."""
    def marked(answer: dict[str, Any]) -> str:
        return ("✓ " if answer["right"] else "") + (answer["said"] or "(nothing)")

    lines = []
    for was, now in zip(before["answers"], after["answers"], strict=True):
        if was["words"] != now["words"]:
            raise ValueError(f"{label(before)} and {label(after)} answered other rows")
        lines.append([was["words"], was["answer"], marked(was), marked(now)])
    return [TASKS[before["task"]].asked.lower(), "wanted", "before", "after"], lines


def fields_right(row: dict[str, Any], group: str) -> dict[str, tuple[int, int]]:
    """In how many recorded answers of a group each field of a schedule is right as it is written.

    Returns
    -------
    dict
        field -> (right, answers with five fields)
    """
    pairs = [(answer["said"].split(), answer["answer"].split()) for answer in row["answers"]
             if answer["group"] == group]
    pairs = [(said, cron) for said, cron in pairs if len(said) == len(FIELDS)]
    return {name: (sum(said[i] == cron[i] for said, cron in pairs), len(pairs))
            for i, name in enumerate(FIELDS)}


def updates(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column names and a line per training: how large its update is, and merged in bfloat16."""
    return (["training", "typical weight", "typical entry of the update",
             "weights that stay as they were", "error of what is added"],
            [[label(row), f"{row['weight']:.3f}", f"{row['entry']:.1e}",
              f"{row['bfloat16']['unchanged']:.0%}", f"{row['bfloat16']['error']:.1%}"]
             for row in rows])


def kept(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column names and three lines per training: loss and right answers, by how it is kept."""
    return (["training", "how it is kept", "loss, schedules held back",
             f"right, of {rows[0]['of']}"],
            [[label(row), how, f"{found['validation']:.3f}", str(found["exact"])]
             for row in rows for how, found in (
                 ("all in float32", row),
                 ("weights in bfloat16, update in float32 beside them", row["beside"]),
                 ("merged in bfloat16", row["merged"]))])


def cuts(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column names and two lines per training: shares and losses of updates cut to rank r."""
    lines = []
    for row in rows:
        lines.append([label(row), "share of the update", *(f"{x:.0%}" for x in row["share"]),
                      f"{1:.0%}"])
        lines.append([label(row), "loss, schedules held back",
                      *(f"{x:.2f}" for x in row["cut_loss"]), f"{row['validation']:.2f}"])
    return ["training", "", *(f"r = {rank}" for rank in rows[0]["cuts"]), "whole"], lines


def draw_curves(rows: Sequence[dict[str, Any]]) -> None:
    """Training loss of runs, means of ten steps, logarithmic; a larger size has a thicker line."""
    _, ax = plt.subplots(figsize=(7.4, 3.4))
    for row in rows:
        color = {"lora": "lora", "full": "full", "pfeiffer": "adapters"}.get(
            row["method"].split("-")[0], row["method"])
        smaller = {other["size"] for other in rows if other["method"] == row["method"]
                   and other["size"] < row["size"]}
        steps = [10 * i + 5 for i in range(len(row["curve"]))]
        ax.semilogy(steps, row["curve"], ":" if row["method"] == "lora-qv" else "-",
                    lw=1.2 + 0.8 * len(smaller), color=figures.COLORS[color], label=label(row))
    ax.set(xlabel="training steps", ylabel="loss, nats per token of the answer")
    ax.grid(True, axis="y")
    ax.legend(fontsize=8, ncols=1 + (len(rows) > 5))
    plt.show()
