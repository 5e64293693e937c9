"""Make schedules in words with their cron expressions, for the speaking model to learn from.

    python -m venv /tmp/cron && /tmp/cron/bin/pip install cron-descriptor==2.2.1 croniter==6.0.0
    /tmp/cron/bin/python make_cron.py

Rewrites cron.tsv beside this file: the words are cron-descriptor's description of a random
expression. croniter, which shares no code with ours, must find for each of them the same first
hundred times as `schedules.runs` does. The groups:

    train      500   nine shapes, times with AM and PM
    test        60   the same shapes, other expressions
    shapes      20   two shapes that combine what training has only shown apart
    phrasings   20   the first shapes told on the clock of 24 hours, which training never does
"""

import random
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
WANTED = {"cron-descriptor": "2.2.1", "croniter": "6.0.0"}
SHAPES = ["{m} {h} * * *", "{m} {h} * * {w}", "{m} {h} * * 1-5", "{m} {h} {d} * *",
          "{m} {h} {d} {M} *", "*/{n} * * * *", "*/{n} {a}-{b} * * *", "{m} */{k} * * *",
          "{m} {h} * * {w},{x}"]
NEW_SHAPES = ["*/{n} {a}-{b} * * {w}", "{m} {h} * {M} {w}"]
CLOCK = [SHAPES[i] for i in (0, 1, 2, 3)]


def draw(shape, rng):
    """A shape with numbers in it; round minutes are as frequent as they are in life."""
    w, x = sorted(rng.sample(range(7), 2))
    a = rng.randrange(6, 13)
    return shape.format(m=rng.choice([0, 15, 30, 45, rng.randrange(60)]), h=rng.randrange(24),
                        d=rng.randrange(1, 29), M=rng.randrange(1, 13), w=w, x=x, a=a,
                        b=rng.randrange(a + 1, 24), n=rng.choice([2, 3, 5, 10, 15, 20, 30]),
                        k=rng.choice([2, 3, 4, 6, 8, 12]))


def main():
    for package, wanted in WANTED.items():
        if version(package) != wanted:
            raise SystemExit(f"{package} is {version(package)}, the data come from {wanted}")
    from cron_descriptor import Options, get_description
    from croniter import croniter

    from experiments.schedules import YEAR, runs
    from experiments.tasks import write_rows

    rng, seen, rows = random.Random(0), set(), []
    for group, shapes, count in (("test", SHAPES, 60), ("shapes", NEW_SHAPES, 20),
                                 ("phrasings", CLOCK, 20), ("train", SHAPES, 500)):
        options = Options()
        options.use_24hour_time_format = group == "phrasings"
        found = []
        while len(found) < count:
            cron = draw(shapes[len(found) % len(shapes)], rng)
            if cron in seen:  # a shape of few expressions: those left over go to another shape
                cron = draw(rng.choice(shapes), rng)
            if cron not in seen:
                seen.add(cron)
                found.append((group, get_description(cron, options), cron))
        rng.shuffle(found)
        rows += found
    for _, _, cron in rows:
        at, ours = datetime(YEAR, 1, 1) - timedelta(minutes=1), runs(cron)
        step = croniter(cron, at)
        theirs = [step.get_next(datetime) for _ in range(100)]
        times = [at + timedelta(minutes=1 + int(i)) for i in ours.nonzero()[0][:100]]
        if times != [t for t in theirs if t.year == YEAR][:len(times)]:
            raise SystemExit(f"{cron}: croniter runs it at other times than we do")
    write_rows("cron", ("group", "words", "cron"), rows)


if __name__ == "__main__":
    main()
