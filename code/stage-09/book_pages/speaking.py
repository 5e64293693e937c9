"""The recorded runs of the speaking model (experiments/smollm2.py) as the tables of its page."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt

from book_pages import figures
from experiments import smollm2

SETTING = ("method", "size", "lr", "seed")  # what tells one training from another
BEFORE = {"zero": "the schedule alone", "three": "three examples",
          "three-chat": "three examples, as a question to the assistant"}
METHODS = {"full": "full fine-tuning", "lora-qv": "LoRA q, v", "lora-all": "LoRA all linear",
           "pfeiffer": "adapters, Pfeiffer", "prefix": "prefix", "prompt": "prompt"}
GROUPS = {"test": "Shapes of training", "phrasings": "New phrasings", "shapes": "New shapes"}
FIELDS = ("minute", "hour", "day", "month", "weekday")
COUNTED = {"exact": "right", "form": "form", "choice": "choice"}


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


def counts(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column names and a line per run: right answers by group; form and choice; the two losses."""
    sizes = {group: len(smollm2.load_schedules(group)) for group in GROUPS}
    columns = ["run", *(f"{title.lower()} (of {sizes[group]})" for group, title in GROUPS.items()),
               f"form (of {sum(sizes.values())})", f"choice (of {sum(sizes.values())})",
               "everyday loss"]
    lines = []
    for row in rows:
        if "diverged" in row:
            lines.append([label(row), "diverged", *[""] * (len(columns) - 2)])
            continue
        lines.append([label(row), *(str(row["exact"][group]) for group in GROUPS),
                      *(str(sum(row[what].values())) if what in row else "–"
                        for what in ("form", "choice")), f"{row['general']:.2f}"])
    return columns, lines


def answers(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and a line for each of the twenty schedules that both answered; ✓ if right."""
    def marked(answer: dict[str, Any]) -> str:
        return ("✓ " if answer["right"] else "") + (answer["said"] or "(nothing)")

    lines = []
    for was, now in zip(before["answers"], after["answers"], strict=True):
        if was["words"] != now["words"]:
            raise ValueError(f"{label(before)} and {label(after)} answered other schedules")
        lines.append([was["words"], was["cron"], marked(was), marked(now)])
    return ["schedule", "wanted", "before", "after"], lines


def fields_right(row: dict[str, Any], group: str) -> dict[str, tuple[int, int]]:
    """In how many of the recorded answers of a group each field is right as it is written.

    Returns
    -------
    dict
        field -> (right, answers with five fields)
    """
    pairs = [(answer["said"].split(), answer["cron"].split()) for answer in row["answers"]
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
    """Training loss of runs, mean of ten steps each, on a logarithmic axis."""
    _, ax = plt.subplots(figsize=(7.4, 3.4))
    width = {lr: 2.4 - 0.6 * i for i, lr in enumerate(sorted({row["lr"] for row in rows}))}
    for row in rows:
        color = {"lora": "lora", "full": "full", "pfeiffer": "adapters"}.get(
            row["method"].split("-")[0], row["method"])
        steps = [10 * i + 5 for i in range(len(row["curve"]))]
        ax.semilogy(steps, row["curve"], ":" if row["method"] == "lora-qv" else "-",
                    lw=width[row["lr"]], color=figures.COLORS[color], label=label(row))
    ax.set(xlabel="training steps", ylabel="loss, nats per token of the answer")
    ax.grid(True, axis="y")
    ax.legend(fontsize=8)
    plt.show()
