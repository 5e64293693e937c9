"""When a cron expression runs, and when two are the same.

Two expressions are the same if they run at the same minutes of a year, however they are written:
`0 9 * * 1-5` and `00 09 * * 1,2,3,4,5` are.
"""

import re
from datetime import date, timedelta

import numpy as np

YEAR = 2024  # a leap year: the 29th of February is a day, too
DAYS = [date(YEAR, 1, 1) + timedelta(days=i) for i in range(366)]
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))  # minute hour day month weekday, 7 = Sunday


def field(text: str, low: int, high: int) -> set[int]:
    """The numbers that a field allows: `*`, `5`, `1-5`, `*/15`, `9-17/2`, and lists of these.

    ValueError if it is none of them, or out of range.
    """
    allowed: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(?:(\*)|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?", part, re.ASCII)
        if not found:
            raise ValueError(f"{part!r} is no part of a cron expression")
        star, first, last, step = found.groups()
        if step and not (star or last):
            raise ValueError(f"{part!r}: a step needs a range before it")
        first, last = (low, high) if star else (int(first), int(last or first))
        if not low <= first <= last <= high or step and int(step) < 1:
            raise ValueError(f"{part!r} must lie within {low} to {high}")
        allowed.update(range(first, last + 1, int(step or 1)))
    return allowed


def runs(cron: str) -> np.ndarray:
    """(366 * 1440,) bool: does the expression run at this minute of `YEAR`?

    As cron does: with both a day of the month and a weekday given, either is enough.
    ValueError if it is no cron expression of five fields.
    """
    texts = cron.split()
    if len(texts) != 5:
        raise ValueError(f"a cron expression has 5 fields, {cron!r:.80} has {len(texts)}")
    minutes, hours, days, months, weekdays = (
        field(text, *limits) for text, limits in zip(texts, RANGES))
    weekdays = {w % 7 for w in weekdays}
    free = [text.startswith("*") for text in texts[2::2]]  # day, weekday
    either = any if not any(free) else all
    on = np.array([d.month in months and either((d.day in days, d.isoweekday() % 7 in weekdays))
                   for d in DAYS])  # (366,)
    hour, minute = (np.isin(np.arange(n), list(allowed))
                    for n, allowed in ((24, hours), (60, minutes)))
    return (on[:, None, None] & hour[:, None] & minute).ravel()  # (366 * 24 * 60,)


def same(cron: str, other: str) -> bool:
    """Do both run at the same minutes? False if `cron` is no expression; `other` must be one."""
    wanted = runs(other)
    try:
        return np.array_equal(runs(cron), wanted)
    except ValueError:
        return False


def is_cron(text: str) -> bool:
    """Right in form, whatever it means."""
    try:
        return bool(runs(text).any())
    except ValueError:
        return False
