"""What a page's worker asks of Python: run a cell, hand on what it shows, say where it failed.

IPython and the formats of outputs are those of JupyterLite's kernel (pyodide_kernel). This adds
what a page needs: outputs in bounds, the reader's own line of an error, and a reason for input().
"""

import builtins
import json
import linecache
import os
import random
import re
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import imports  # tools/lite/imports.py
import pyodide_kernel
import pyodide_js
from IPython.core.magics.script import ScriptMagics

HOME = Path("/home/pyodide")
CODE = HOME / "code" / "stage-09"
SHELL = pyodide_kernel.ipython_shell
#: Of one cell: characters of text, those of figures and tables, their number, and all messages.
TEXT, RICH, COUNT, MESSAGES = 100_000, 20_000_000, 100, 10_000
CELL = "<ipython-input"  # how IPython's names of cells begin
READ = (CELL, "<tokenize>", "<string>", "<unknown>")  # what reads a cell names it so
PLOTS = re.compile(r"run_line_magic\('matplotlib'")
WIDGET = "application/vnd.jupyter.widget-view+json"


class Outputs:
    """The outputs of the cell that runs, on their way to the page, no more than it can show."""

    def __init__(self):
        self.publish = None
        self.begin()

    def begin(self):
        self.text, self.rich, self.count, self.sent, self.dropped = 0, 0, 0, 0, 0
        self.waiting, self.said = [], 0.0

    def stream(self, name, text):
        """Text in pieces: at once if there was a pause, else with what follows."""
        room = max(0, TEXT - self.text)
        self.text += len(text)
        self.dropped += len(text) - len(text[:room])
        if text[:room]:
            if self.waiting and self.waiting[-1][0] != name:
                self.flush()
            self.waiting.append((name, text[:room]))
            if time.monotonic() - self.said > 0.05:
                self.flush()

    def flush(self):
        if self.waiting:
            text = "".join(text for _, text in self.waiting)
            self.send({"output_type": "stream", "name": self.waiting[0][0], "text": text})
            self.waiting, self.said = [], time.monotonic()

    def show(self, data, metadata=None, transient=None, kind="display_data"):
        self.flush()
        if not data:  # what displays itself leaves nothing else to show
            return
        if WIDGET in data:
            data = data | {WIDGET: data[WIDGET] | {"state": widget_state(data[WIDGET]["model_id"])}}
        if set(data) == {"text/plain"}:
            room = max(0, TEXT - self.text)
            self.text += len(text := data["text/plain"])
            self.dropped += len(text) - len(text[:room])
            data = {"text/plain": text[:room]}
        self.count += 1
        self.rich += sum(len(str(value)) for value in data.values())
        if self.count > COUNT or self.rich > RICH:
            self.dropped += 1
        else:
            self.send({"output_type": kind, "data": data, "metadata": metadata or {},
                       "id": (transient or {}).get("display_id")})

    def clear(self, wait=False):
        self.flush()
        self.send({"output_type": "clear", "wait": wait})

    def end(self):
        self.flush()
        if self.dropped:
            self.send({"output_type": "stream", "name": "stderr", "text":
                       f"\n[The page shows no more of this cell: {self.dropped:,} further "
                       f"characters, figures or tables are left out.]\n"}, last=True)

    def send(self, output, last=False):
        """To the page, unless the cell has sent too much; what ends a cell goes there always."""
        self.sent += 1
        if last or self.sent <= MESSAGES:
            self.publish(json.dumps(output, default=str))
        else:
            self.dropped += len(output.get("text", " "))


def widget_state(model):
    """The values of a widget by its id. Its front end and style are those that the page has."""
    state = sys.modules["ipywidgets"].Widget.get_manager_state()["state"][model]["state"]
    return {name: value for name, value in state.items() if name not in ("_esm", "_css")}


OUTPUTS = Outputs()
FAULTS = []  # what IPython would have shown of the cell that runs


def note(fault=None, *_, **__):
    """In place of IPython's own tracebacks, which take long to make and count lines otherwise.

    Some errors it shows are not among the results of its kernel: an ExceptionGroup is printed.
    """
    error = fault[1] if isinstance(fault, tuple) else sys.exc_info()[1]
    if error:  # %tb asks when there is none
        FAULTS.append(error)


def refuse_input(*_):
    raise RuntimeError("input() cannot ask you here, since Python in the page cannot wait. "
                       "Write the value into the cell instead.")


def refuse_shell(*_, **__):
    raise RuntimeError("This Python runs in the page: there is no shell for ! or %%bash, and no "
                       "pip. What a cell can import is what the book carries.")


def refuse_exit():
    raise RuntimeError("There is nothing to leave: Python ends when you leave the page.")


def begin(publish, folder):
    """Connect Python with the page and go to the folder in which its notebook lies."""
    random.seed()  # as memory.py has left it, it would give every reader the same
    pyodide_kernel.kernel._load_packages_from_imports = pyodide_js.loadPackagesFromImports
    OUTPUTS.publish = publish
    for stream in (pyodide_kernel.stdout_stream, pyodide_kernel.stderr_stream):
        stream.publish_stream_callback = OUTPUTS.stream
    SHELL.display_pub.display_data_callback = OUTPUTS.show
    SHELL.display_pub.update_display_data_callback = (
        lambda data, metadata, transient: OUTPUTS.show(data, metadata, transient, "update"))
    SHELL.display_pub.clear_output_callback = OUTPUTS.clear
    SHELL.displayhook.publish_execution_result = (
        lambda count, data, metadata: OUTPUTS.show(data, metadata, kind="execute_result"))
    SHELL.send_comm = lambda *_: None  # widgets of this Python have no front end in the page
    builtins.input = refuse_input
    SHELL.showtraceback = SHELL.showsyntaxerror = note
    SHELL.system = SHELL.getoutput = ScriptMagics.shebang = refuse_shell
    pyodide_kernel.kernel_instance.lite_transform_manager.line_transforms = []  # %pip
    SHELL.ask_exit = refuse_exit
    warnings.filterwarnings("ignore", "To exit: use")  # after sys.exit(), which it tells as it is
    SHELL.run_line_magic("colors", "NoColor")  # the page would show the signs of a terminal
    (HOME / folder).mkdir(parents=True, exist_ok=True)
    os.chdir(HOME / folder)


async def run(source):
    """Run a cell. Returns None, or as JSON what went wrong: name, message, line, traceback."""
    OUTPUTS.begin()
    FAULTS.clear()
    try:
        try:
            plain = SHELL.transform_cell(source)  # without IPython's own syntax
            needed = imports.hidden_imports(plain, CODE)
        except (SyntaxError, ValueError):
            plain, needed = "", []  # a mistake, which running it names
        if PLOTS.search(plain):
            needed.append("matplotlib")
        await pyodide_js.loadPackage([name.partition(".")[0] for name in needed])
        try:
            await pyodide_kernel.kernel_instance.run(source)
        except Exception as error:  # from what reads a cell before it runs
            FAULTS.append(error)
    finally:
        OUTPUTS.end()
    with suppress(OSError, ValueError, RecursionError):  # none yet, or nonsense
        done = json.loads(Path("peft-book-progress.json").read_text("utf-8"))  # checks.remember()
        if isinstance(done, dict):
            OUTPUTS.send({"output_type": "progress", "done": done}, last=True)
    return json.dumps(failure(FAULTS[-1], source)) if FAULTS else None


def words(error):
    """The message of an error, whose class may be the reader's."""
    try:
        return str(error)
    except Exception as another:
        return f"its message cannot be read ({type(another).__name__})"


def failure(error, source):
    """What to tell the reader of an error; its line counts in the reader's own cell."""
    here, first = None, error.__traceback__
    while first and not first.tb_frame.f_code.co_filename.startswith(CELL):
        first = first.tb_next
    for frame in traceback.extract_tb(first):
        if "".join(linecache.getlines(frame.filename)).rstrip() == source.rstrip():
            here = frame.lineno
    if here is None and isinstance(error, SyntaxError) and (error.filename or "").startswith(READ):
        here = error.lineno
    lines = source.splitlines()
    said = "".join(traceback.format_exception(type(error), error, first))
    return {"name": type(error).__name__, "message": words(error)[:2000], "line": here,
            "text": lines[here - 1].strip() if here and here <= len(lines) else "",
            "traceback": said if len(said) < 20_000 else f"{said[:8000]}\n...\n{said[-8000:]}"}
