"""What `make bench` measured, as the tables and figures of the page on speed.

Every record in `data/benchmarks/` names the processor, the day and the versions it was made with.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

from book_pages import figures, pages
from llama import PROJECTIONS

RECORDS = Path(__file__).parents[1] / "data" / "benchmarks"
NAMES = {"adapter": "adapter, bottleneck 64", "prefix": "attention with a prefix of 10",
         "prompt": "soft prompt of 20"}
#: Highest ratio to the bare products, at rank 8, by width.
LORA_GOALS = {256: 1.5, 1024: 1.1, 4096: 1.05}


def load(name: str) -> dict[str, Any]:
    """One record by its name: `layers`, `latency`, `speaking`, `nf4`, `growth`, `browser`, ..."""
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def is_measured(name: str) -> bool:
    """Does the record stand here? One that is new may not have been made yet."""
    return (RECORDS / f"{name}.json").exists()


def machine(record: dict[str, Any]) -> str:
    """Where, when and with what a record was made, in one sentence.

    `code` stands in a record of code that has changed since: what was another way then.
    """
    found: dict[str, str] = {}
    for used in record["versions"].values():
        found |= used if isinstance(used, dict) else {}
    found = found or record["versions"]
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return (f"{record['processor']}, {record['cores']} cores, {record['threads']} threads; "
            f"{versions}; {record['date']}{'; ' + code if (code := record.get('code')) else ''}.")


def _goal(value: float, limit: float, least: bool = False) -> str:
    """A goal, the most or the `least` that a value should be, and whether it was missed."""
    return f"{'≥' if least else '≤'} {limit:g}" + ", missed" * (value < limit if least
                                                                 else value > limit)


def layer_rows(record: dict[str, Any]) -> list[list[str]]:
    """Per method and size: each side's ratio to its own limit; ours to theirs, limit and layer.

    On paper LoRA's six thin products add 12 n r d operations to the limit's 4 n d^2.
    """
    rows = []
    for label, row in record["rows"].items():
        method, width, tokens = label.split(" | ")
        if method == "merged":
            continue
        ratios = {side: row[side]["layer"] / row[side]["bare"] for side in ("ours", "theirs")}
        goal = (f" ({_goal(ratios['ours'], LORA_GOALS[int(width)])})"
                if method == "LoRA, rank 8" else "")
        rank = int(method.split()[-1]) if method.startswith("LoRA") else 0
        rows.append([NAMES.get(method, method), f"{int(width):,} × {int(tokens):,}",
                     f"{1 + 3 * rank / int(width):.2f}",
                     f"{ratios['ours']:.2f}{goal}", f"{ratios['theirs']:.2f}",
                     f"{row['ours']['bare'] / row['theirs']['bare']:.2f}",
                     f"{row['ours']['layer'] / row['theirs']['layer']:.2f}"])
    return rows


def merged_rows(record: dict[str, Any]) -> list[list[str]]:
    """A merged layer's forward beside the bare product."""
    return [[f"{int(width):,} × {int(tokens):,}",
             f"{row['ours']['layer'] / row['ours']['bare']:.2f}"]
            for label, row in record["rows"].items()
            for method, width, tokens in [label.split(" | ")] if method == "merged"]


def latency_rows(record: dict[str, Any]) -> list[list[str]]:
    """Per batch: milliseconds of the merged model; the others as multiples of it; PEFT's LoRA."""
    return [[label.split()[-1], f"{row['ours']['merged'] * 1e3:,.0f}",
             *(f"{row['ours'][kind] / row['ours']['merged']:.2f}" for kind in ("lora", "adapters")),
             f"{row['theirs']['lora'] / row['theirs']['merged']:.2f}",
             f"{row['ours']['merged'] / row['theirs']['merged']:.2f}"]
            for label, row in record["rows"].items()]


def latency_words(record: dict[str, Any]) -> str:
    """What the table of latencies says, smallest batch against largest."""
    (first, small), *_, (last, large) = record["rows"].items()

    def more(row: dict[str, Any], kind: str, side: str = "ours") -> str:
        return f"{100 * (row[side][kind] / row[side]['merged'] - 1):.0f} %"
    return (f"At {first}, LoRA beside the weights costs {more(small, 'lora')} and adapters cost "
            f"{more(small, 'adapters')} more than the merged model; at {last} it is "
            f"{more(large, 'lora')} and {more(large, 'adapters')}. In PEFT the same LoRA costs "
            f"{more(small, 'lora', 'theirs')} and {more(large, 'lora', 'theirs')}. Of arithmetic "
            "both add about 2 %, whatever the batch. What differs from that was not taken apart; "
            f"one reason may be the number of small products, {2 * len(PROJECTIONS)} more a layer "
            "with LoRA beside the weights and 4 with the adapters. So one task on one model is "
            "merged. Many tasks on one base pay for the memory that they save "
            "([section 9.8](08-from-numpy-to-hugging-face.ipynb)).")


def speaking_rows(record: dict[str, Any]) -> list[list[str]]:
    """A training step and written tokens at SmolLM2's size: both sides, their ratio, the goal."""
    rows = []
    for work, label in (("step", "training step, LoRA on q and v"), ("write", "100 tokens")):
        mine, other = (record["rows"][work][side][work] for side in ("ours", "theirs"))
        held, theirs = (record["memory"][work][side] for side in ("ours", "theirs"))
        rows += [[f"{label}, s", f"{mine:.2f}", f"{other:.2f}", f"{mine / other:.2f}",
                  _goal(mine / other, record["goals"][work])],
                 [f"{label}, peak memory, MB", f"{held:,.0f}", f"{theirs:,.0f}",
                  f"{held / theirs:.2f}", _goal(held / theirs, record["goals"]["memory"])]]
    return rows


def task_rows(record: dict[str, Any]) -> list[list[str]]:
    """Three tasks in one batch: one base with three adapters, and three merged models."""
    return [[label, f"{1e3 * record['rows']['three tasks']['ours'][work]:,.0f}",
             f"{record['memory'][work]['ours']:,.0f}"]
            for work, label in (("one base", "one base, three adapters beside it"),
                                ("three merged", "three merged models"))]


def whole_rows(llama: dict[str, Any], nf4: dict[str, Any]) -> list[list[str]]:
    """Training steps, sampling and NF4: milliseconds of both sides, their ratio, the goal."""
    goals = {"training": 1 / 2, "sampling": 1 / 10, "quantize": 2, "dequantize": 1.5}
    rows = []
    for label, row in llama["rows"].items():
        rows.append((label, label.split()[0].strip(","), *(next(t for key, t in row[side].items())
                                                          for side in ("ours", "theirs"))))
    for size, row in nf4["rows"].items():
        rows += [(f"NF4, {work}, {size}", work, row["ours"][work], row["theirs"][work])
                 for work in row["ours"]]
    return [[label, f"{mine * 1e3:,.1f}", f"{other * 1e3:,.1f}", f"{mine / other:.2f}",
             _goal(mine / other, goals[kind])] for label, kind, mine, other in rows]


def memory_rows(growth: dict[str, Any]) -> list[list[str]]:
    """The least that a LoRA step must hold beyond weight, input and output; what both ways hold."""
    return [[f"{row['width']:,} × {row['tokens']:,}", row["rank"], f"{row['least'] / 1e3:,.0f}",
             *(f"{row[kind] / 1e3:,.0f} ({row[kind] / row['least']:.2f})"
               for kind in ("plain", "sliced"))]
            for row in growth["memory"]]


def _slope(ax: plt.Axes, x: list[float], y: float, power: int) -> None:
    """A dashed line of this slope that ends at (x[-1], y): what theory predicts for large x."""
    start = y * (x[0] / x[-1]) ** power
    ax.plot([x[0], x[-1]], [start, y], "--", color=figures.GREY, lw=1,
            label=f"slope {power}")


def draw_growth(growth: dict[str, Any]) -> None:
    """Milliseconds of a LoRA step against rank, width, tokens and batch, on log axes."""
    fig, axes = plt.subplots(2, 2, figsize=(8.6, 6.4))
    powers = {"rank": 1, "width": 2, "tokens": 1}
    titles = {"rank": "Rank", "width": "Width", "tokens": "Tokens"}
    for ax, (over, power) in zip(axes.flat, powers.items()):
        rows = growth[over]
        x = [row[over] for row in rows]
        kind = "LoRA layer, in slices" if "code" in growth else "LoRA layer"
        for key, label, color in (("layer", kind, figures.COLORS["lora"]),
                                  ("limit", "two bare products", figures.INK),
                                  ("thin", "six thin products", figures.COLORS["adapters"])):
            ax.loglog(x, [row[key] * 1e3 for row in rows], "o-", ms=3.5, lw=1.5, color=color,
                      label=label)
        last = rows[-1]["thin" if over == "rank" else "limit"] * 1e3
        _slope(ax, x[len(x) // 2:], last, power)
        ax.set(title=titles[over], xlabel=over, ylabel="milliseconds")
        ax.legend(fontsize=8)
    ax, rows = axes.flat[3], growth["batch"]
    x = [row["batch"] for row in rows]
    ax.loglog(x, [row["step"] * 1e3 for row in rows], "o-", ms=3.5, lw=1.5,
              color=figures.COLORS["lora"], label="training step")
    _slope(ax, x[len(x) // 2:], rows[-1]["step"] * 1e3, 1)
    ax.set(title="Batch of the small Llama", xlabel="sequences of 16 tokens",
           ylabel="milliseconds")
    ax.legend(fontsize=8)


def draw_thin(growth: dict[str, Any]) -> None:
    """Arithmetic per second of thin products against the thin side; slices against time, memory."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4))
    rows = growth["thin"]
    ranks = [row["rank"] for row in rows]
    for key, label, color in (("shrink", "x Aᵀ: the result is thin", figures.COLORS["lora"]),
                              ("expand", "(x Aᵀ) Bᵀ: the inside is thin",
                               figures.COLORS["adapters"])):
        left.loglog(ranks, [row[key] for row in rows], "o-", ms=3.5, lw=1.5, color=color,
                    label=label)
    left.set(title="Thin products waste the processor", xlabel="rank",
             ylabel="billion operations per second")
    left.legend(fontsize=8)
    rows = growth["slices"]
    kilobytes = [row["bytes"] / 1024 for row in rows]
    right.semilogx(kilobytes, [row["ratio"] for row in rows], "o-", ms=3.5, lw=1.5,
                   color=figures.COLORS["lora"], label="time / bare products")
    right.set(title="Slices at rank 1: time against memory", xlabel="slice, KiB",
              ylabel="time / bare products", ylim=(1, None))
    beside = right.twinx()
    beside.loglog(kilobytes, [row["extra"] / 1e6 for row in rows], "s--", ms=3.5, lw=1.2,
                  color=figures.COLORS["prefix"], label="extra memory")
    beside.set(ylabel="extra memory, MB")
    beside.spines["right"].set_visible(True)
    right.axvline(growth["base"]["slice_bytes"] / 1024, color=figures.GREY, lw=1, ls=":")
    lines = right.get_lines()[:1] + beside.get_lines()
    right.legend(lines, [line.get_label() for line in lines], fontsize=8, loc="upper center")


def page_rows(browser: dict[str, Any], cells: dict[str, Any],
              commands: dict[str, Any]) -> list[list[str]]:
    """The book itself: what it measures, the longest or median case, the goal."""
    goals, pages_ = browser["goals"], browser["pages"].values()
    moves = [page["moves"] for page in pages_ if "moves" in page]
    rows = [("a slider's move, median of the slowest page, ms",
             1e3 * max(row["median"] for row in moves), 1e3 * goals["move"]),
            ("a slider's move, the longest of all, ms",
             1e3 * max(row["longest"] for row in moves), 1e3 * goals["move"]),
            ("widgets alive, slowest page, s",
             max(page["alive"] for page in pages_ if "alive" in page), goals["alive"])]
    rows += [(f"{what}, s", cells["seconds"][kind]["ours"], cells["goals"][kind])
             for kind, what in (("cold", "first cell in its page, cold"),
                                ("warm", "first cell in its page, warm"),
                                ("check", "first check in its page, after that"))]
    rows += [("what Python in the page adds to a page that nobody runs, kB",
              cells["bytes"] / 1e3, cells["goals"]["bytes"] / 1e3)]
    rows += [(f"first cell in the whole notebook, {kind}, s",
              median(run["seconds"] for run in browser[kind]), goals[kind])
             for kind in ("cold", "warm")]
    if "notebooks" in browser:
        name, seconds = max(browser["notebooks"].items(), key=lambda item: item[1])
        rows.append((f"longest whole notebook ({Path(name).stem}), s", seconds,
                     goals["notebook"]))
    rows += [(f"{what}, s", seconds, commands["goals"][what])
             for what, seconds in commands["seconds"].items()]
    told = [[what, f"{value:,.1f}", _goal(value, goal)] for what, value, goal in rows]
    if steps := cells.get("steps"):
        ours, theirs = steps["ours"], steps["theirs"]
        what = (f"training steps a second in the playground, {ours / theirs:.2f} of the "
                f"{theirs:,.1f} in CPython")
        told.append([what, f"{ours:,.1f}", _goal(ours, cells["goals"]["steps"], least=True)])
    return told


def table(columns: list[str], rows: list[list[str]], record: dict[str, Any]) -> Any:
    """A table with the machine that it was measured on below it."""
    return pages.table(columns, rows, caption=machine(record))
