"""What the front page shows of recorded runs: made-up names that turn Icelandic as the rank grows.

It is made of radio buttons and style sheets alone, so it works from disk, without a script, and on
the keyboard. The numbers are those of section 9.7.
"""

import html
import json
import re
import sys
from pathlib import Path

import reading_time

ROOT = Path(__file__).resolve().parent.parent
HERO = "<!-- names that turn Icelandic: tools/front_page.py -->"
#: A row of the table of chapters, up to its last cell, which is empty: what it says, its notebook.
ROW = re.compile(r"^(\|[^|]*\]\(([\w/-]+\.ipynb)\)[^|]*\|[^|]*\|) *\|", re.MULTILINE)
TARGET, METHOD, NAMES = "icelandic", "lora-all", 8


def settings():
    """(choice, trained numbers, loss, names) of the base, of each rank and of all weights."""
    sys.path.insert(0, str(ROOT / "code" / "stage-09"))
    from experiments import small_llama

    before = small_llama.load_before()
    found = [("no change", 0, before["losses"][f"{TARGET} test"], before["names"])]
    runs = small_llama.load_runs("report", target=TARGET, method=METHOD)
    chosen = [(METHOD, size, f"rank {size}") for size in sorted({run["size"] for run in runs})]
    for method, size, choice in [*chosen, ("full", 0, "all weights")]:
        runs = small_llama.load_runs("report", target=TARGET, method=method, size=size)
        entry = small_llama.summarise(runs)[0]
        names = next(run["names"] for run in runs if "names" in run)
        found.append((choice, entry["trainable"], entry["best_test"], names))
    return found


def hero():
    """The front page's moving part, as HTML."""
    made, choices, shown, rules = settings(), [], [], []
    everything, longest = made[-1][1], made[0][2]
    for number, (choice, trained, loss, names) in enumerate(made):
        checked = " checked" if number == 0 else ""
        choices.append(f'<label><input type="radio" name="hero" id="hero-{number}"{checked}>'
                       f"<span>{html.escape(choice)}</span></label>")
        items = "".join(f"<li>{html.escape(name.capitalize())}</li>" for name in names[:NAMES])
        said = f"{trained:,} numbers trained, {100 * trained / everything:.1f} % of the model"
        shown.append(f'<div class="hero-shown" id="hero-shown-{number}"><ul>{items}</ul>'
                     f"<p><b>{said}</b><br>loss on new Icelandic names: {loss:.2f}</p></div>")
        rules.append(f".hero:has(#hero-{number}:checked) "
                     f"{{ --loss: {loss / longest:.4f}; --share: {trained / everything:.4f} }}\n"
                     f".hero:has(#hero-{number}:checked) #hero-shown-{number} {{ display: block }}")
    bars = "".join(f'<p class="hero-bar" aria-hidden="true"><span>{label}</span>'
                   f'<i class="{name}"></i></p>'
                   for name, label in (("share", "trained"), ("loss", "loss")))
    asked = "A small model makes up names. Teach it Icelandic: how much of it must change?"
    return (f'<style>{" ".join(rules)}</style><div class="hero">'
            f"<fieldset><legend>{asked}</legend>{''.join(choices)}</fieldset>"
            f'<div aria-live="polite">{"".join(shown)}</div>{bars}</div>')


def with_numbers(text):
    """The front page's source with its moving part, and the minutes in the table of chapters."""
    def timed(row):
        notebook = json.loads((ROOT / "book" / row[2]).read_text("utf-8"))
        return f"{row[1]} {reading_time.minutes(notebook)} |"

    return ROW.sub(timed, text).replace(HERO, f"```{{raw}} html\n{hero()}\n```")
