"""The front page's moving part and the cards of its chapters, made when the book is built.

The moving part shows made-up names that turn Icelandic as the rank grows, the recorded runs of
section 9.7. It is made of radio buttons and style sheets alone, so it works from disk, without a
script, and on the keyboard. The cards are made of the page's table: a picture, the minutes, and how
many of a chapter's questions this reader has answered (book/_static/chapters.js).
"""

import html
import json
import re
import sys
from pathlib import Path

import reading_time

ROOT = Path(__file__).resolve().parent.parent
HERO = "<!-- names that turn Icelandic: tools/front_page.py -->"
#: The table of chapters: its head, and rows with a title that leads to a file, and a question.
MAP = re.compile(r"^\| section \|.*\n\|[-|:]*\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| *\[([^\]]+)\]\(([\w/-]+)\.(?:ipynb|md)\) *\| *([^|]*?) *\|", re.MULTILINE)
MINUTES = re.compile(r"\*Reading time: (\d+) minutes")
QUESTION = re.compile(r'<div class="question[^"]*" id="([\w-]+)"')
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


def texts(notebook):
    """A notebook's Markdown, what its cells print of it included."""
    return "\n".join("".join(cell["source"]) if cell["cell_type"] == "markdown" else "".join(
        "".join(output.get("data", {}).get("text/markdown", "")) for output in cell["outputs"])
        for cell in notebook["cells"])


def card(title, chapter, question):
    """A chapter's card: its picture, what it asks, the minutes, and what there is to answer."""
    import pictures

    file, things = ROOT / "book" / f"{chapter}.ipynb", ""
    if file.exists():
        notebook = json.loads(file.read_text("utf-8"))
        minutes, text = reading_time.minutes(notebook), texts(notebook)
    else:
        text = file.with_suffix(".md").read_text("utf-8")
        said = MINUTES.search(text)
        minutes = said[1] if said else ""
    if asked := QUESTION.findall(text):
        word = "question" if len(asked) == 1 else "questions"
        things = f' data-questions="{" ".join(asked)}">{len(asked)} {word}'
    elif chapter == "exercises/index":
        count = pictures.progress.EXERCISES
        things = f' data-exercises="{count}">{count} exercises'
    time = f"<span>{minutes} minutes</span>" if minutes else ""
    done = f"<span{things}</span>" if things else ""
    bar = '<i class="chapter-bar" aria-hidden="true"></i>' if things else ""
    return (f'<li class="chapter">{pictures.picture(chapter)}<div>'
            f'<a href="{chapter}.html">{html.escape(title)}</a><p>{html.escape(question)}</p>'
            f'<p class="chapter-more">{time}{done}{bar}</p></div></li>')


def cards(found):
    """The cards in place of the table of chapters."""
    rows = ROW.findall(found[1])
    if len(rows) != found[1].count("\n"):
        raise ValueError("a row of the front page's table is no link to a chapter and a question")
    made = "".join(card(*row) for row in rows)
    from book_pages.figures import COLORS  # pictures.py has put the code on the path

    colors = " ".join(f"--{name}: {color};" for name, color in COLORS.items())
    return (f"```{{raw}} html\n<style>.chapters {{ {colors} }}</style>"
            f'<ol class="chapters">{made}</ol>'
            '<script src="../_static/chapters.js"></script>\n```\n')


def with_cards(text):
    """The front page's source with its moving part, and cards in place of its table of chapters."""
    return MAP.sub(cards, text).replace(HERO, f"```{{raw}} html\n{hero()}\n```")
