"""What the speaking model is taught: three tasks, their data, and which answers are right.

cron     a skill that can be checked by running it: a schedule in words to a cron expression
orders   a format with exact fields: an order in a customer's words to one line of JSON
desks    a label: a customer's message to the desk that must act

A task's rows come from data/NAME/NAME.tsv, which the script beside it makes.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from experiments import schedules
from real_models.smollm2 import chat
from tensorfile import write_whole

DATA = Path(__file__).resolve().parents[1] / "data"
GROUPS = ("train", "test", "shapes", "phrasings")
TEST = GROUPS[1:]
DESKS = ("account", "billing", "delivery", "repair", "returns", "sales")
FIELDS = {"item": str, "quantity": int, "city": str, "date": str}


class Row(NamedTuple):
    group: str
    words: str
    answer: str
    wrong: str = ""  # what a choice sets against the answer; "": the answer of another row


class Task(NamedTuple):
    """One task. `right` compares what was said with the answer wanted; `form` looks at it alone."""

    name: str
    asked: str  # what stands before the words, and before the answer
    answered: str
    instruction: str  # for the assistant
    shown: tuple[int, int, int]  # training rows of different kinds: the prompt's examples
    right: Callable[[str, str], bool]
    form: Callable[[str], bool]
    tokens: int  # more than the longest answer has
    parts: Callable[[str, str], dict[str, bool]] = lambda said, answer: {}  # which fields are right

    def rows(self, group: str) -> list[Row]:
        """All rows of "train" (500), "test" (60), "shapes" or "phrasings" (20 each)."""
        if group not in GROUPS:
            raise ValueError(f"group must be one of {GROUPS}, got {group!r}")
        text = (DATA / self.name / f"{self.name}.tsv").read_text(encoding="ascii")
        rows = (Row(*line.split("\t")) for line in text.splitlines()[1:])
        return [row for row in rows if row.group == group]

    def prompt(self, words: str) -> str:
        return f"{self.asked}: {words}\n{self.answered}:"

    def prompts(self, words: str) -> dict[str, str]:
        """The ways in which the base model is asked."""
        train = self.rows("train")
        told = "".join(f"{self.prompt(train[i].words)} {train[i].answer}\n" for i in self.shown)
        return {"zero": self.prompt(words), "three": told + self.prompt(words),
                "three-chat": chat(f"{self.instruction}\n{told}{self.asked}: {words}")
                + f"{self.answered}:"}


def write_rows(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the table of a task's rows, which `Task.rows` reads: whole, or not at all."""
    write_whole(DATA / name / f"{name}.tsv",
                "".join("\t".join(row) + "\n" for row in (columns, *rows)))
    print(f"{len(rows)} rows of {name}")


def wrong_answers(rows: Sequence[Row]) -> list[str]:
    """For each row what a choice sets against its answer."""
    return [row.wrong or other.answer for row, other in zip(rows, [*rows[1:], rows[0]])]


def order(text: str) -> dict[str, Any]:
    """The fields of an order: each once, in any order, of its type. ValueError if it is none."""
    pairs = json.loads(text, object_pairs_hook=tuple)
    if not isinstance(pairs, tuple) or sorted(key for key, _ in pairs) != sorted(FIELDS):
        raise ValueError(f"{text!r:.80} is no object with the fields {', '.join(FIELDS)}")
    fields = dict(pairs)
    for key, kind in FIELDS.items():
        if type(fields[key]) is not kind:  # True is an int, too
            raise ValueError(f"{key} must be {kind.__name__}, got {fields[key]!r:.80}")
    if not re.fullmatch(r"\d\d-\d\d", fields["date"], re.ASCII):
        raise ValueError(f"date must be MM-DD, got {fields['date']!r:.80}")
    date.fromisoformat(f"{schedules.YEAR}-{fields['date']}")
    return fields


def is_order(text: str) -> bool:
    """Right in form, whatever it says."""
    try:
        return bool(order(text))
    except ValueError:
        return False


def right_fields(said: str, answer: str) -> dict[str, bool]:
    """Which fields of an order are right; none if it has not the form of one."""
    found = order(said) if is_order(said) else {}
    return {key: found.get(key) == value for key, value in order(answer).items()}


CRON = Task(
    "cron", "Schedule", "Cron",
    "Write the cron expression of a schedule, minute hour day month weekday. Answer with the "
    "expression only.", (5, 3, 2), schedules.same, schedules.is_cron, 32)
TASKS = {task.name: task for task in (CRON, Task(
    "orders", "Order", "JSON",
    "Write an order as one line of JSON with item, quantity, city and date, MM-DD. Answer with the "
    "JSON only.", (0, 2, 5), lambda said, answer: all(right_fields(said, answer).values()),
    is_order, 48, right_fields), Task(
    "desks", "Message", f"Desk ({', '.join(DESKS)})",
    "Name the desk that must act on a message. Answer with its name only.", (1, 2, 5),
    lambda said, answer: said == answer, DESKS.__contains__, 8))}
