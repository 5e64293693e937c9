"""A browser that runs the book's notebooks with JupyterLite, for the tests and the benchmark."""

import functools
import json
import re
import threading
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

IDLE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    if (!panel?.context?.isReady || !panel.sessionContext?.isReady) return false;
    return panel.sessionContext.session?.kernel?.status === "idle";
}"""
RUN = """async (index) => {
    const { shell, commands } = window.jupyterapp;
    const notebook = shell.currentWidget.content;
    notebook.activeCellIndex = index;
    notebook.deselectAll();
    const late = new Promise((_, fail) =>
        setTimeout(() => fail(new Error("a cell took over 300 s")), 300000));
    await Promise.race([commands.execute("notebook:run-cell"), late]);
    return notebook.model.cells.get(index).toJSON().outputs;
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A static file server that says nothing and counts the bytes that it sends."""

    sent = 0

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        data = source.read()
        Quiet.sent += len(data)
        with suppress(ConnectionError):  # the page was closed meanwhile
            outputfile.write(data)


@contextmanager
def served(folder):
    """The address of a static file server on this machine."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def other_host():
    """The address of a server that answers everybody, and the list of what it was asked."""
    asked = []

    class Other(Quiet):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Type", "text/javascript")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()


def open_notebook(page, address, name, app="notebooks"):
    """Open a notebook by its path from the root and wait until its kernel has started."""
    page.goto(f"{address}/lite/{app}/index.html?path={name}")
    page.wait_for_function(IDLE, timeout=180_000)


def run_cells(page, cells):
    """Run the notebook's code cells in order; yields (index, cell, outputs) of each."""
    page.set_default_timeout(600_000)
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            yield index, cell, page.evaluate(RUN, index)


# ------------------------------------------------------------------------------ comparing outputs

NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


def text_of(outputs):
    """All text that a reader sees in a cell's outputs; pictures and widgets by their kind only."""
    seen = []
    for output in outputs:
        if output["output_type"] == "error":
            seen.append(f"{output['ename']}: {output['evalue']}")
        elif output["output_type"] == "stream" and output["name"] == "stderr":
            continue  # "Matplotlib is building the font cache": each start of Python there does
        elif output["output_type"] == "stream":
            seen.append("".join(output["text"]))
        else:
            data = output["data"]
            kinds = [kind for kind in data if kind in ("text/html", "text/markdown")]
            if "image/png" in data:
                seen.append("[picture]")
            elif any("widget-view" in kind for kind in data):
                seen.append("[widget]")
            else:
                value = data.get(kinds[0] if kinds else "text/plain", "")
                seen.append("".join(value))
    return re.sub(r"\s+", " ", " ".join(seen)).strip()


def differences(expected, found, tolerance):
    """What differs between two texts; numbers may differ by `tolerance`, relatively."""
    if expected == found:
        return []
    if NUMBER.sub("#", expected) != NUMBER.sub("#", found):
        at = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b),
                  min(len(expected), len(found)))
        at = max(0, at - 60)
        return [f"{expected[at:at + 200]!r} became {found[at:at + 200]!r}"]
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(found))
    return [f"{a} became {b}" for a, b in pairs
            if abs(float(a.replace(",", "")) - float(b.replace(",", "")))
            > tolerance * max(1e-12, abs(float(a.replace(",", ""))))]


def load(path):
    return json.loads(path.read_text("utf-8"))
