"""A small picture for each chapter's card on the front page, drawn from what the chapter computes.

Each is an SVG without text that takes its colours from the page's style sheet (book.css, .chapter)
and so fits light and dark. It says nothing that the chapter does not: screen readers pass it by.
"""

import json
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

CODE = Path(__file__).resolve().parent.parent / "code" / "stage-09"
if str(CODE) not in sys.path:
    sys.path.insert(0, str(CODE))

import peft  # noqa: E402
from book_pages import records, speaking  # noqa: E402
from book_pages.widgets import bill, mass, signal  # noqa: E402
from exercises.ex6_qlora.levels import NF4  # noqa: E402
from exercises.harness import progress  # noqa: E402
from experiments import family, small_llama, smollm2, tasks  # noqa: E402
from experiments.records import read_lines  # noqa: E402
from experiments.update import load_update  # noqa: E402
from real_models import accounting  # noqa: E402

WIDTH, HEIGHT, EDGE = 160, 90, 6
DATA = CODE / "data"


def scaled(values, low, high, start, end):
    """Positions between `start` and `end` for values between `low` and `high`."""
    return start + (np.asarray(values, float) - low) / (high - low) * (end - start)


def number(value):
    return f"{value:.1f}".removesuffix(".0")


def shape(kind, d, more=""):
    return f'<path class="{kind}"{more} d="{d}"/>'


def boxes(kind, corners, more=""):
    """Filled boxes, each (x, y, width, height)."""
    return shape(f"{kind} filled", "".join(
        f"M{number(x)} {number(y)}h{number(w)}v{number(h)}h{number(-w)}z"
        for x, y, w, h in corners), more)


def line(kind, xs, ys):
    return shape(kind, "M" + "L".join(f"{number(x)} {number(y)}"
                                      for x, y in zip(xs, ys, strict=True)))


def curve(kind, values, low, high):
    """A curve across the picture, equally spaced; `low` lies at the bottom."""
    return line(kind, np.linspace(EDGE, WIDTH - EDGE, len(values)),
                scaled(values, low, high, HEIGHT - EDGE, EDGE))


def dots(kinds, columns):
    """A grid of dots, a kind for each."""
    step = (WIDTH - 2 * EDGE) / columns
    rows = -(-len(kinds) // columns)
    size = 0.62 * min(step, (HEIGHT - 2 * EDGE) / rows)
    found = {}
    for i, kind in enumerate(kinds):
        x = EDGE + (i % columns + 0.5) * step - size / 2
        y = EDGE + (i // columns + 0.5) * (HEIGHT - 2 * EDGE) / rows - size / 2
        found.setdefault(kind, []).append((x, y, size, size))
    return "".join(boxes(kind, corners) for kind, corners in found.items())


def the_bill():
    """Full fine-tuning of a 7B model, item by item, and where a card of 24 GB ends."""
    parts = bill.parts(bill.ways(accounting.load_model("Llama-2-7B"))["Full fine-tuning"])
    ends = np.cumsum([0, *(size for *_, size in parts)])
    x = scaled(ends, 0, ends[-1], EDGE, WIDTH - EDGE)
    kinds = ("full", "grey", "adapters", "lora")
    card = scaled(24 * accounting.GB, 0, ends[-1], EDGE, WIDTH - EDGE)
    return "".join(boxes(kind, [(a, 30, b - a - 1, 34)]) for kind, a, b in
                   zip(kinds, x[:-1], x[1:], strict=True)) + line("ink", (card, card), (16, 78))


def spectrum():
    """The singular values of a real update, the first eight as LoRA of rank 8 would keep them."""
    values = np.linalg.svd(load_update(), compute_uv=False)
    x = np.linspace(EDGE, WIDTH - EDGE, len(values))
    y = scaled(values, 0, values[0], HEIGHT - EDGE, EDGE)
    return "".join(boxes(kind, [(x[i], y[i], 1.6, HEIGHT - EDGE - y[i]) for i in part])
                   for kind, part in (("lora", range(8)), ("grey", range(8, len(values)))))


def firing():
    """Which unit of a fresh adapter lets which token pass."""
    arrays = signal.SignalExplorer().arrays
    active = (arrays["noise"] @ arrays["down"] > 0).T  # (units, tokens)
    return dots(["adapters" if one else "pale" for one in active.ravel()], active.shape[1])


def attention():
    """An attention map with a prefix in front, as dark as the weights."""
    widget = mass.MassExplorer()
    share = widget.mass(4, 0)[0, 0]  # (T,)
    weights = np.column_stack([share, (1 - share)[:, None] * widget.weights[0, 0]])
    rows, columns = weights.shape
    w, h = (WIDTH - 2 * EDGE) / columns, (HEIGHT - 2 * EDGE) / rows
    drawn = ""
    for column, kind in ((slice(0, 1), "prefix"), (slice(1, None), "ink")):
        level = np.ceil(5 * weights[:, column] / weights.max()).astype(int)
        for step in range(1, 6):
            corners = [(EDGE + (j + (column.start or 0)) * w, EDGE + i * h, w - 1, h - 1)
                       for i, j in np.argwhere(level == step)]
            drawn += boxes(kind, corners, f' opacity="{step / 5:g}"') if corners else ""
    return drawn


def counts():
    """What each method trains, on a logarithmic scale."""
    found = peft.compare_peft_methods()
    ends = scaled(np.log10([one["params"] for one in found.values()]), 4, 9.4, EDGE, WIDTH - EDGE)
    return "".join(boxes(key, [(EDGE, 9 + 15 * i, end - EDGE, 10)])
                   for i, (key, end) in enumerate(zip(found, ends, strict=True)))


def source():
    """The first lines of peft.py, seen from far."""
    text = [row for row in (CODE / "peft.py").read_text("utf-8").split("\n") if row.strip()][:120]
    strokes = {"grey": [], "lora": []}
    for i, row in enumerate(text):
        indent, code = len(row) - len(row.lstrip()), row.strip()
        kind = "lora" if code.startswith(("def ", "class ")) else "grey"
        strokes[kind].append((EDGE + 51 * (i // 40) + indent / 2.4, EDGE + 2 * (i % 40),
                              min(len(code) / 2.4, 45 - indent / 2.4), 1.2))
    return "".join(boxes(kind, corners) for kind, corners in strokes.items())


def two_curves():
    """Turkish, full fine-tuning and LoRA on q and v: the held-out loss, mean of the seeds."""
    means = [np.mean([run["curve"]["validation"] for run in small_llama.load_runs(
        "report", target="turkish", method=method, size=size)], axis=0)
        for method, size in (("full", 0), ("lora-qv", 4))]
    low, high = np.min(means), np.max(means)
    return "".join(curve(kind, mean, low, high) for kind, mean in zip(("full", "lora"), means,
                                                                     strict=True))


def schedules():
    """Of sixty schedules, those that the taught model answers rightly."""
    row = speaking.find(smollm2.load_runs("after"), method="lora-all", **speaking.FIRST)
    of = len(tasks.CRON.rows("test"))
    right = row["exact"]["test"]
    return dots(["lora"] * right + ["pale"] * (of - right), 12)


def both_ways():
    """The tensors of one layer's LoRA, on this side and, the same, on the other."""
    lora = accounting.count_lora(accounting.load_model("Llama-3-8B"), 8, "all-linear")
    sizes = [np.prod(shape) for name, shape in lora.tensors.items() if ".layers.0." in name]
    step = (HEIGHT - 2 * EDGE) / len(sizes)
    ends = scaled(sizes, 0, max(sizes), 2, WIDTH / 2 - EDGE)
    rows = [EDGE + step * i for i in range(len(sizes))]
    return (boxes("lora", [(WIDTH / 2 - end, y, end - 2, step - 1.5)
                           for end, y in zip(ends, rows, strict=True)])
            + boxes("ink", [(WIDTH / 2 + 2, y, end - 2, step - 1.5)
                            for end, y in zip(ends, rows, strict=True)]))


def levels():
    """The sixteen levels of NF4 below the density of normal weights."""
    normal = NormalDist(0, 0.36)
    grid = np.linspace(-1, 1, 40)
    x = scaled(grid, -1, 1, EDGE, WIDTH - EDGE)
    y = scaled([normal.pdf(one) for one in grid], 0, normal.pdf(0), 58, EDGE)
    ticks = scaled(NF4, -1, 1, EDGE, WIDTH - EDGE)
    return line("ink", x, y) + boxes("lora", [(tick - 0.9, 64, 1.8, 20) for tick in ticks])


def race():
    """The family on Icelandic names: loss and deviation of the seeds, from the best one on."""
    record = records.races()["Icelandic names"][0]
    found = sorted((record(name) for name in family.METHODS), key=lambda one: one["best_test"])
    means = np.array([one["best_test"] for one in found])
    x = np.linspace(EDGE + 6, WIDTH - EDGE - 6, len(found))
    y = scaled(means, means.min(), means.max(), HEIGHT - 14, 14)
    kinds = ["lora" if one["method"] == "lora" else "grey" for one in found]
    return "".join(boxes(kind, [(a - 4, b - 4, 8, 8)]) for kind, a, b in
                   zip(kinds, x, y, strict=True))


def checkpoint():
    """The weights of two layers of a real checkpoint, in the order of its file."""
    model = accounting.load_model("Llama-3.2-1B")
    sizes = [module.num_parameters for layer in (".layers.0.", ".layers.1.")
             for module in model.modules if module.is_linear and layer in module.name]
    x = np.linspace(EDGE, WIDTH - EDGE, len(sizes) + 1)
    y = scaled(sizes, 0, max(sizes), HEIGHT - EDGE, EDGE)
    return boxes("adapters", [(a, b, x[1] - x[0] - 2, HEIGHT - EDGE - b)
                              for a, b in zip(x, y, strict=False)])


def published():
    """Published counts: as many as agree with ours, and as many as do not."""
    found = json.loads((DATA / "published_counts.json").read_text("utf-8"))
    return dots(["prefix"] * len(found["cases"]) + ["adapters"] * len(found["published_but_wrong"]),
                10)


def growth():
    """A LoRA layer's time over its rank, and what its products alone would take."""
    rows = json.loads((DATA / "benchmarks" / "growth.json").read_text("utf-8"))["rank"]
    found = [[row[key] for row in rows] for key in ("layer", "limit")]
    return "".join(curve(kind, values, 0, np.max(found)) for kind, values in
                   zip(("lora", "grey"), found, strict=True))


def knob():
    """The loss over the learning rate, as a sweep found it, and the rate that was taken."""
    runs = sorted((run for run in small_llama.load_runs("sweep", target="icelandic",
                                                        method="lora-all")
                   if "diverged" not in run), key=lambda run: run["lr"])
    losses = [run["best_validation"] for run in runs]
    best = int(np.argmin(losses))
    x = np.linspace(EDGE, WIDTH - EDGE, len(losses))
    y = scaled(losses, min(losses), max(losses), HEIGHT - 2 * EDGE, 2 * EDGE)
    return line("grey", x, y) + boxes("lora", [(x[best] - 5, y[best] - 5, 10, 10)])


def faulty(*faults):
    """Held-out losses of runs with these faults, and of a sound run."""
    rows = read_lines(DATA / "experiments" / "faults.jsonl")
    found = [next(row["held_out"] for row in rows if row["fault"] == fault
                  and row["method"] == "LoRA") for fault in (*faults, "none")]
    low, high = np.min(found), min(np.max(found), 1.2 * found[-1][0])
    return "".join(curve(kind, np.minimum(values, high), low, high) for kind, values in zip(
        ["adapters", "prompt", "grey"][:len(faults)] + ["lora"], found, strict=True))


def eight():
    """A box for each exercise; a script fills those that this reader has passed."""
    return "".join(f'<rect class="box" data-exercise="{i + 1}" x="{14 + 36 * (i % 4)}" '
                   f'y="{14 + 36 * (i // 4)}" width="24" height="24" rx="4"/>'
                   for i in range(progress.EXERCISES))


PICTURES = {
    "01-the-fine-tuning-problem": the_bill, "02-lora": spectrum, "03-adapters": firing,
    "04-prefix-and-prompt-tuning": attention, "05-choosing-a-method": counts,
    "06-implementation": source, "07-fine-tuning-a-real-model": two_curves,
    "a-model-that-speaks": schedules, "08-from-numpy-to-hugging-face": both_ways,
    "shrinking-the-base": levels, "the-family": race, "bring-your-own-checkpoint": checkpoint,
    "numbers-in-the-wild": published, "how-fast-it-is": growth, "playground": knob,
    "common-mistakes": lambda: faulty("rate"), "find-the-fault": lambda: faulty("start", "scaling",
                                                                                "fan-in"),
    "exercises/index": eight,
}


def picture(chapter):
    """A chapter's picture as SVG; KeyError for a chapter that has none."""
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'aria-hidden="true" focusable="false">{PICTURES[chapter]()}</svg>')
