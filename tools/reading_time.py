"""How long a notebook's page takes to read, from what a reader sees of it.

The page's line "*Reading time: 30 minutes*" gets its number from here when the book is built.
"""

import json
import re

WORDS = 200  # a minute
LINES = 15  # of code, a minute: four seconds for a line
STEP = 5  # minutes to which we round
LINE = re.compile(r"(\*Reading time: )\d+( minutes)")
FOLDED = {"hide-input", "remove-input", "hide-cell"}
FOLDED_OUTPUTS = {"hide-output", "hide-cell"}
ANSWER = re.compile(r"<details>.*?</details>", re.DOTALL)  # a question's, folded


def shown(cell):
    """Prose and lines of code that a cell shows without a click: (words, lines)."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return len(ANSWER.sub("", source).split()), 0
    tags = set(cell["metadata"].get("tags", []))
    words, lines = 0, 0 if FOLDED & tags else sum(bool(line.strip()) for line in source.split("\n"))
    for output in [] if FOLDED_OUTPUTS & tags else cell["outputs"]:
        text = ANSWER.sub("", "".join(output.get("data", {}).get("text/markdown", "")))
        listings = re.findall(r"```.*?```", text, re.DOTALL)
        lines += sum(listing.count("\n") - 1 for listing in listings)
        words += len(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split())
    return words, lines


def minutes(notebook):
    """Minutes to read it, rounded to steps of five, five at least."""
    words, lines = map(sum, zip(*map(shown, notebook["cells"]), strict=True))
    return max(STEP, STEP * round((words / WORDS + lines / LINES) / STEP))


def timed(text):
    """A notebook's file with the time that its reading takes, where it names one."""
    if not LINE.search(text):
        return text
    return LINE.sub(rf"\g<1>{minutes(json.loads(text))}\g<2>", text)
