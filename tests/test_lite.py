"""Python in the browser: notebooks run to their ends in JupyterLite, with no outside network.

What a cell says there must be what the committed notebook says. Versions differ (Python 3.12 and
NumPy 2.0 there), so numbers may differ in their last printed digits, and nothing else may.
"""

import hashlib
import io
import json
import os
import subprocess
import zipfile
from urllib.parse import urlsplit

import lite_tools
import node_js
import notebooks
import numpy as np
import pytest
import zip_book
from conftest import HTML, ROOT
from lite import build as lite
from playwright.sync_api import expect
from test_accessibility import violations

NAMES = [path.relative_to(ROOT).as_posix() for path in notebooks.book_notebooks()]
#: Of each kind one. All run cell by cell in their pages (test_in_page.py), with the same Python;
#: the scheduled workflow asks JupyterLite for all, too: `make site LONG=1`.
SAMPLE = {f"book/{name}.ipynb" for name in (
    "05-choosing-a-method", "exercises/ex6-qlora", "solutions/sol8-vera")}
RUN = [name for name in NAMES if lite.runs_in_browser(name)
       and (os.environ.get("LONG") or name in SAMPLE)]
TOLERANCE = 1e-6  # relative, of each number that a cell prints
EXERCISE = "book/exercises/ex2-lora-dropout.ipynb"
MODULE = "../../code/stage-09/peft.py"
SOURCE = """() => window.jupyterapp.shell.currentWidget.content.model
    .cells.get(%d).sharedModel.source"""
#: What a line of Python prints first; an exception is one here, too.
PRINTED = """async (code) => {
    const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
    const asked = kernel.requestExecute({ code });
    return await new Promise((done, fail) => {
        setTimeout(() => fail(new Error("180 s")), 180000);
        asked.onIOPub = ({ header, content }) => {
            if (header.msg_type === "stream") done(content.text.trim());
            if (header.msg_type === "error") fail(new Error(content.traceback.join("\\n")));
        };
    });
}"""


@pytest.fixture
def visit(site, chromium):
    """A new page, and the list of its faults: outside addresses asked for, and exceptions."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page, faults = context.new_page(), []
    here = (site, site.replace("http", "ws"), "data:", "blob:", "about:")
    page.on("request", lambda asked: asked.url.startswith(here)
            or faults.append(f"asked the network: {asked.url}"))
    page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    yield page, faults
    context.close()


@pytest.mark.parametrize("name", RUN)
def test_notebook_runs_in_the_browser(visit, site, name):
    page, faults = visit
    cells = lite_tools.load(ROOT / name)["cells"]
    lite_tools.open_notebook(page, site, name)
    wrong = []
    for index, cell, outputs in lite_tools.run_cells(page, cells):
        tags = cell["metadata"].get("tags", [])
        raised = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        if raised and "raises-exception" not in tags:
            wrong.append((index, raised))
        elif "nbval-ignore-output" not in tags:
            found = lite_tools.differences(lite_tools.text_of(cell["outputs"]),
                                           lite_tools.text_of(outputs), TOLERANCE)
            if found:
                wrong.append((index, found[:3]))
    assert wrong == []
    assert faults == []
    if "/solutions/" in name:
        assert any("tests passed" in lite_tools.text_of(c.get("outputs", [])) for c in cells), \
            "no check passes on this page: is the pattern still right?"


#: What a cell may try at another host, and at the book's own; in the end one line of what came.
REACH = """import asyncio, js
came = []
for address in ({there!r}, {here!r}):
    request = js.XMLHttpRequest.new()
    try:
        request.open("GET", address, False)
        request.send()
        came.append(request.status)
    except Exception:
        came.append("no")
    try:
        came.append((await js.fetch(address)).status)
    except Exception:
        came.append("no")
for way in ("importScripts(there)", "WebSocket.new(there.replace('http', 'ws'))",
            "EventSource.new(there)", "Worker.new(there)"):
    try:
        eval("js." + way, {{"js": js, "there": {there!r}}})
    except Exception:
        pass  # some are refused at once, some later: the host says whether it was asked
for script in {scripts!r}:  # a worker from a file would come under no policy
    worker, heard = js.Worker.new(script), asyncio.Event()
    worker.onerror = lambda event: (came.append("ends"), event.preventDefault(), heard.set())
    await asyncio.wait_for(heard.wait(), 50)
print(" ".join(map(str, came)))"""


def test_python_starts_with_the_page_and_again_with_its_kernel_and_reaches_no_other_host(
        chromium, site):
    """Without `visit`: Playwright tells of requests that are refused, too."""
    kernels = (HTML / "lite/extensions/@jupyterlite/pyodide-kernel-extension/static").glob("*.js")
    scripts = [f"{site}/lite/early.js", *(f"{site}/{path.relative_to(HTML).as_posix()}"
               for path in kernels if path.read_text("utf-8").startswith(lite.GUARD))]
    assert len(scripts) == 3
    with chromium.new_context() as context, lite_tools.other_host() as (there, asked):
        page, workers, faults = context.new_page(), [], []
        page.on("worker", lambda worker: workers.append(worker.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        lite_tools.open_notebook(page, site, EXERCISE)
        reach = REACH.format(there=there, here=f"{site}/objects.inv", scripts=scripts)
        assert page.evaluate(PRINTED, reach) == "no no 200 200 ends ends ends"
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        assert page.evaluate(PRINTED, reach) == "no no 200 200 ends ends ends"
    started = [url for url in workers if url not in scripts]  # a cell tries those
    assert len(started) == 2, "JupyterLite did not take the worker that was there"
    assert all(url.startswith(f"blob:{site}/") for url in started)
    assert asked == []
    assert faults == []


def test_a_json_file_can_be_written_again_and_stays_as_it_is(visit, site):
    page, faults = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    for text in ('{"theta": 10000.0}', '{"theta":  1}\\n', "not JSON at all"):
        page.evaluate(PRINTED, f"open('x.json', 'w').write('{text}'); print('written')")
        read = page.evaluate(PRINTED, "print(ascii(open('x.json').read()))")
        assert read == f"'{text}'"
    passed = """import sys
from types import SimpleNamespace
sys.path.insert(0, "../../code/stage-09")
from exercises.harness import progress
for number in (2, 3):
    progress.remember(SimpleNamespace(passed=True, step=None, exercise=number))
print(sorted(progress.progress().done))"""
    assert page.evaluate(PRINTED, passed) == "['2', '3']"
    page.goto(f"{site}/book/exercises/index.html")
    expect(page.get_by_role("status")).to_contain_text("noted")
    assert page.locator("[data-exercise]:checked").count() == 2
    assert faults == []


def test_a_notebooks_links_lead_into_the_book(visit, site):
    page, faults = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    for number, (link, leads) in enumerate((
            ("../02-lora.ipynb", "/book/02-lora.html"),
            ("index.md#exercise-2", "/book/exercises/index.html"),
            ("../solutions/sol2-lora-dropout.ipynb", "/book/solutions/sol2-lora-dropout.html"),
            ("../bring-your-own-checkpoint.ipynb", "/book/bring-your-own-checkpoint.html"))):
        page.evaluate("""async ([number, link]) => {
            const { content } = window.jupyterapp.shell.currentWidget;
            content.widgets[0].rendered = false;
            content.model.cells.get(0).sharedModel.source = `[there ${number}](${link})`;
            content.widgets[0].rendered = true;
        }""", [number, link])
        with page.context.expect_page() as opened:
            page.get_by_role("link", name=f"there {number}").first.click()
        opened.value.wait_for_load_state("domcontentloaded")
        assert urlsplit(opened.value.url).path == leads
        assert urlsplit(opened.value.url).fragment == link.partition("#")[2]
        opened.value.close()
    assert faults == []


@pytest.mark.parametrize(("gone", "named"), [
    ("delete self.WebAssembly", "WebAssembly"), ("delete self.Worker", "Web Workers"),
    ("Function = new Proxy(Function, { construct() { throw new SyntaxError(); } })",
     "the JavaScript of today")])
def test_a_browser_that_lacks_what_a_notebook_needs_says_so_and_leads_back(
        chromium, site, gone, named):
    with chromium.new_context(viewport={"width": 360, "height": 740}) as context:
        page = context.new_page()
        page.add_init_script(gone)
        page.goto(f"{site}/lite/notebooks/index.html?path={EXERCISE}", wait_until="commit")
        said = page.get_by_role("main")
        expect(said).to_contain_text(f"lacks {named}")
        page.wait_for_timeout(1000)
        expect(page.locator("#jupyterlite-loading-indicator, #main")).to_have_count(0)
        assert violations(page) == []
        said.get_by_role("link").click()
        page.wait_for_url(f"{site}/book/index.html")  # where the first page leads


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
def test_a_notebook_leads_back_to_its_page(visit, site, width, scheme):
    page, faults = visit
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    lite_tools.open_notebook(page, site, EXERCISE)
    page.wait_for_selector(f"body[data-jp-theme-light={json.dumps(scheme == 'light')}]",
                           state="attached")
    assert [one for one in violations(page) if "to-book" in one[1]] == []
    band, app = (page.locator(f"#{name}").bounding_box() for name in ("to-book", "main"))
    assert app["y"] == band["height"] and app["y"] + app["height"] == 740 and band["width"] == width
    assert page.locator("#to-book [role=status]").count() == 0, "all is there, and it says not"
    page.locator("#to-book a").click()
    page.wait_for_url(f"{site}/{EXERCISE.replace('ipynb', 'html')}")
    page.goto(f"{site}/lite/notebooks/index.html?path=//other.example/x.ipynb")
    page.locator("#to-book a").click()
    page.wait_for_url(f"{site}/book/index.html")  # where the first page leads
    assert faults == []


@pytest.mark.parametrize(("gone", "said"), [
    ("IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError'); }",
     "keeps no changes"), ("delete Navigator.prototype.serviceWorker", "find no files")])
def test_a_notebook_says_what_does_not_work_here(visit, site, gone, said):
    page, _ = visit
    page.add_init_script(gone)
    lite_tools.open_notebook(page, site, EXERCISE)
    expect(page.locator("#to-book [role=status]")).to_contain_text(said)
    band, app = (page.locator(f"#{name}").bounding_box() for name in ("to-book", "main"))
    assert app["y"] == band["height"], "the notebook lies below the sentence"


def test_the_file_menu_can_download_and_the_colours_follow_the_system(visit, site):
    page, faults = visit
    page.emulate_media(color_scheme="dark")
    lite_tools.open_notebook(page, site, EXERCISE)
    page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    page.get_by_role("menuitem", name="File").first.click()
    with page.expect_download() as download:
        page.locator(".lm-Menu-item", has_text="Download").click()
    assert download.value.suggested_filename.endswith(EXERCISE.split("/")[-1])
    assert page.locator(".lm-Menu-item", has_text="Export").count() == 0
    assert faults == []


def test_a_kernel_that_starts_otherwise_is_noticed(tmp_path):
    folder = tmp_path / "extensions/@jupyterlite/pyodide-kernel-extension/static"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/index.html").write_text('<meta charset="utf-8" />')
    starts = ("create:async e=>{const{PyodideKernel:n}=await t.e(864),"
              "l=!(!(null==i?void 0:i.enabled)&&!crossOriginIsolated)}")
    for text, said in (("create()", "wait_for_files"), (starts, "as early.js expects")):
        (folder / "1.a.js").write_text(f"{text};new Worker(somewhere)")
        with pytest.raises(RuntimeError, match=said):
            lite.start_workers(tmp_path)
    assert "create:async e=>{await self.controlled;const" in (folder / "1.a.js").read_text()
    assert "l=!(!self.hasFiles()&&!c" in (folder / "1.a.js").read_text()


def test_a_change_survives_a_reload_and_start_again_forgets_it(visit, site):
    page, faults = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    original = page.evaluate(SOURCE % 1)
    page.evaluate("""async () => {
        const { shell, commands } = window.jupyterapp;
        shell.currentWidget.content.model.cells.get(1).sharedModel.source = "mine = 'kept'";
        await commands.execute("docmanager:save");
    }""")
    write = "with open({0!r}, 'a') as file: file.write('# changed')\nprint('written')"
    for path in (MODULE, "beside.py", "data.txt"):
        assert page.evaluate(PRINTED, write.format(path)) == "written"
    lite_tools.open_notebook(page, site, EXERCISE)
    assert page.evaluate(SOURCE % 1) == "mine = 'kept'"
    assert page.evaluate("() => window.jupyterapp.commands.hasCommand('docmanager:download')")

    page.goto(f"{site}/lite/start-again.html?path={EXERCISE}")
    page.click("#forget")
    expect(page.locator("#status")).to_contain_text("Done")
    lite_tools.open_notebook(page, site, EXERCISE)
    assert page.evaluate(SOURCE % 1) == original
    left = f"from pathlib import Path\nprint(['changed' in Path({MODULE!r}).read_text(), " \
        "*(Path(name).exists() for name in ('beside.py', 'data.txt'))])"
    assert page.evaluate(PRINTED, left) == "[False, False, True]"
    assert faults == []


@pytest.mark.parametrize("path", ["", "../../secret.ipynb", "book/../x.ipynb", "<img src=x>"])
def test_start_again_refuses_a_path_that_is_no_notebook(visit, site, path):
    page, _ = visit
    page.goto(f"{site}/lite/start-again.html?path={path}")
    assert page.is_disabled("#forget")
    assert "No notebook" in page.inner_text("#status")


def test_menu_leads_to_the_notebook(visit, site):
    page, faults = visit
    page.goto(f"{site}/{EXERCISE.replace('.ipynb', '.html')}")
    link = page.locator("a.btn-launch-lite:not(.start-again)")
    address = link.evaluate("(a) => a.href")
    assert urlsplit(address).path == "/lite/notebooks/index.html"
    assert address.endswith(f"?path={EXERCISE}")
    page.goto(address)
    page.wait_for_function(lite_tools.IDLE, timeout=180_000)
    assert page.evaluate("() => document.querySelector('dialog, .jp-Dialog') === null"), \
        "a dialog asks the reader something"
    assert faults == []


HOSTILE = """async (address) => {
    const script = "localStorage.setItem('ran', 'yes'); fetch('" + address + "');"
        + "new Image().src = '" + address + "';";
    const output = (data) => ({ output_type: "display_data", metadata: {}, data });
    const evil = JSON.stringify(`localStorage.setItem('ran', 'yes'); return 1`);
    const vega = { $schema: "https://vega.github.io/schema/vega/v5.json", width: 9, height: 9,
        signals: [{ name: "x", init: `+{valueOf:vlSelectionTuples([{datum:${evil}}],`
            + "{fields:[{getter:[].at.constructor}]})[0].values[0]}" }] };  // CVE-2025-25304
    const content = { nbformat: 4, nbformat_minor: 5,
        metadata: { kernelspec: { name: "python", display_name: "Python (Pyodide)" } }, cells: [{
        cell_type: "code", execution_count: 1, id: "a", metadata: { trusted: true }, source: "1",
        outputs: [output({ "text/html": `<img src="${address}"><script>${script}</` + "script>" }),
                  output({ "application/javascript": script }),
                  output({ "application/vnd.vega.v5+json": vega })] }] };
    const { serviceManager, commands } = window.jupyterapp;
    await serviceManager.contents.save("hostile.ipynb",
        { type: "notebook", format: "json", content });
}"""


def test_a_notebook_that_calls_itself_trusted_runs_nothing_and_reaches_no_other_host(visit, site):
    page, _ = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    with lite_tools.served(HTML) as elsewhere:  # another port is another origin
        page.evaluate(HOSTILE, f"{elsewhere}/README.md")
        asked = []
        page.on("requestfinished", lambda request: asked.append(request.url))
        page.goto(f"{site}/lite/notebooks/index.html?path=hostile.ipynb")
        page.wait_for_function(lite_tools.IDLE, timeout=180_000)
        page.wait_for_timeout(1000)
        assert [url for url in asked if url.startswith(elsewhere)] == []
        assert page.evaluate("localStorage.getItem('ran')") is None, "a stored script ran"
        plugins = page.evaluate("() => jupyterapp.listPlugins()")
        assert len(plugins) > 20
        assert [name for name in plugins if "mermaid" in name or "vega" in name] == [], \
            "their drawings put a text's HTML into the page"


BUTTON = """async () => {
    const { content } = window.jupyterapp.shell.currentWidget;
    const cell = content.model.cells.get(0).sharedModel;
    content.model.cells.get(1).sharedModel.source = "print('ran')";
    cell.source = "x <button data-commandlinker-command='notebook:run-all-cells' "
        + "data-commandlinker-args='{}'>Next page</button>";
    content.widgets[0].rendered = false;
    content.widgets[0].rendered = true;
    let button;
    for (let i = 0; !button && i < 100; i++) {
        await new Promise((go) => setTimeout(go, 100));
        button = content.widgets[0].node.querySelector(".jp-RenderedHTMLCommon button");
    }
    button.click();
    await new Promise((go) => setTimeout(go, 3000));
    return [button.textContent, content.model.cells.get(1).outputs.length];
}"""


def test_a_button_in_a_notebooks_text_runs_no_cells(visit, site):
    """It keeps what names its command; that nothing but a link's command is given is the guard."""
    page, _ = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    assert page.evaluate(BUTTON) == ["Next page", 0]


#: Each way to a script in the page that a cell's Python has; and last a widget of the course.
SCRIPTS = """import anywidget, matplotlib, sys
from IPython.display import HTML, Javascript, display
from js import Blob, Object, URL
from pyodide.ffi import to_js

def address(script):
    kind = to_js({"type": "text/javascript"}, dict_converter=Object.fromEntries)
    return URL.createObjectURL(Blob.new(to_js([script]), kind))

class Front(anywidget.AnyWidget):
    _esm = "window.ran = 'widget'; export default { render() {} }"

display(Javascript("window.ran = 'text'"))
display(HTML(f'<script src="{address("window.ran = 1")}"></script>'))
display(HTML(f'<iframe srcdoc="<script src={address("parent.ran = 2")}></script>"></iframe>'))
display(Front())
sys.path.insert(0, "../../code/stage-09")
from book_pages.widgets.signal import SignalExplorer
SignalExplorer()"""


def test_no_script_that_a_cell_makes_runs_in_the_page_and_the_courses_widgets_do(visit, site):
    page, _ = visit
    lite_tools.open_notebook(page, site, EXERCISE)
    page.evaluate("""(source) => { window.jupyterapp.shell.currentWidget.content.model
        .cells.get(1).sharedModel.source = source; }""", SCRIPTS)
    outputs = page.evaluate(lite_tools.RUN, 1)
    assert [one for one in outputs if one["output_type"] == "error"] == []
    page.wait_for_selector(".jp-OutputArea .peft-widget input")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None


def test_the_service_worker_keeps_no_pages(site):
    for path in (HTML / "lite").rglob("service-worker.js"):
        text = path.read_text("utf-8")
        assert "enableCache=!1" in text and "searchParams;enableCache=!1," in text, path


@pytest.mark.parametrize(("destination", "left_to_the_server"), [
    ("worker", False), ("sharedworker", False), ("", True), ("script", True)])
def test_no_worker_gets_its_file_past_the_service_worker(site, destination, left_to_the_server):
    """Some servers read `api/..%2f` as the folder above; without the policy it reaches any host."""
    text = (HTML / "lite/service-worker.js").read_text("utf-8")
    asks = json.dumps({"method": "GET", "destination": destination})
    script = ("const self = { addEventListener() {} }, BroadcastChannel = class {};"
              f"{text}\nconst to = new URL('http://a/lite/api/..%2fextensions/x.js');"
              f"console.log(shouldDrop({asks}, to))")
    done = subprocess.run([node_js.path(), "-e", script], capture_output=True, check=True)
    assert json.loads(done.stdout) == left_to_the_server


def test_no_notebook_brings_widgets(tmp_path):
    scripts = "extensions/@jupyter-widgets/jupyterlab-manager/static"
    call = "i&&await this._loadFromNotebook(e),"
    (tmp_path / scripts).mkdir(parents=True)
    file = tmp_path / scripts / "1.a.js"
    file.write_text(f"try{{{call}this.done()}}catch(e){{}}")
    lite.distrust_widgets(tmp_path)
    assert file.read_text() == "try{this.done()}catch(e){}"
    for text in (file.read_text(), call + call):
        file.write_text(text)
        with pytest.raises(RuntimeError, match="distrust_widgets"):
            lite.distrust_widgets(tmp_path)


def test_the_built_widget_manager_loads_none_from_a_notebook(site):
    scripts = HTML / "lite/extensions/@jupyter-widgets/jupyterlab-manager/static"
    text = "".join(path.read_text("utf-8") for path in scripts.glob("*.js"))
    assert text.count("_loadFromNotebook(") == 1, "beside its definition, a call of it"


def test_from_disk_the_menu_says_what_to_do(chromium, html):
    page = chromium.new_page()
    page.goto(f"{html.as_uri()}/{EXERCISE.replace('.ipynb', '.html')}")
    before = page.url
    page.click(".dropdown-launch-buttons button")
    page.click("a.btn-launch-lite:not(.start-again)")
    page.wait_for_selector("dialog.launch-help[open]")
    assert "python -m http.server" in page.inner_text("dialog.launch-help")
    there = page.get_attribute("dialog.launch-help a", "href")
    assert there == f"http://localhost:8000/lite/notebooks/index.html?path={EXERCISE}"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.launch-help", state="detached")
    assert page.url == before
    page.close()


def test_what_takes_long_is_there_and_runs_in_a_browser():
    assert all(name in NAMES and lite.runs_in_browser(name) for name in SAMPLE)


def test_every_notebook_page_offers_the_browser_or_says_why_not(site):
    lacking = []
    for name in NAMES:
        text = (HTML / name).with_suffix(".html").read_text("utf-8")
        if lite.runs_in_browser(name) != ("btn-launch-lite" in text):
            lacking.append(name)
    assert lacking == []
    assert all(name in NAMES for name in lite.LEFT_OUT), "LEFT_OUT names a notebook that is gone"


# ------------------------------------------------------------------------------- what it is made of


def test_the_tree_has_no_source_maps_and_loads_pinned_files(site):
    assert list((HTML / "lite").rglob("*.map")) == []
    shipped = HTML / "lite" / "static" / "pyodide"
    as_fetched = {name for name in lite.wanted_files()  # all others hold compiled Python
                  if not name.endswith(".whl") and name != "python_stdlib.zip"}
    assert {"pyodide.asm.wasm", "pyodide.asm.js"} < as_fetched
    for name, sha256 in lite.wanted_files().items():
        if name in as_fetched:
            assert lite.digest_of(shipped / name) == sha256, name
    for package in lite_tools.load(shipped / "pyodide-lock.json")["packages"].values():
        assert lite.digest_of(shipped / package["file_name"]) == package["sha256"]


def test_python_there_is_compiled_and_knows_its_fonts(site):
    shipped = HTML / "lite" / "static" / "pyodide"
    for path in [*shipped.glob("*.whl"), shipped / "python_stdlib.zip"]:
        with zipfile.ZipFile(path) as archive:
            sources = [name for name in archive.namelist() if name.endswith(".py")]
        assert sources == [], path.name


def test_zip_is_the_same_every_time_and_small_enough(site, tmp_path, monkeypatch):
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    size = zip_book.pack(one)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    zip_book.pack(two)
    assert one.read_bytes() == two.read_bytes()
    assert size < zip_book.LIMIT
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        told = archive.read(f"{zip_book.TOP}/READ-ME-FIRST.txt").decode()
    assert '"Edit and run"' in told and "http://localhost:8000" in told
    assert not [name for name in names if name.endswith(".map")]
    assert f"{zip_book.TOP}/index.html" in names
    assert f"{zip_book.TOP}/lite/files/{EXERCISE}" in names


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and one wanted file."""
    monkeypatch.setattr(lite, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(lite, "fetch_wheels", list)
    content = b"what Pyodide ships"
    monkeypatch.setattr(
        lite, "wanted_files", lambda: {"a.whl": hashlib.sha256(content).hexdigest()})
    return content


def giving(data):
    def source(names, wanted, settings):
        """A source."""
        for name in names:
            lite.keep(name, data, wanted[name])
    return source


def broken(names, wanted, settings):
    """A source out of reach."""
    raise OSError("no network")


def test_a_damaged_cache_is_fetched_again(cache, capsys):
    lite.CACHE.mkdir()
    (lite.CACHE / "a.whl").write_bytes(cache[:5])  # an interrupted download, or a bad disk
    lite.fetch([broken, giving(cache)])
    assert (lite.CACHE / "a.whl").read_bytes() == cache
    assert "damaged" in capsys.readouterr().out


def test_a_source_with_other_bytes_is_refused(cache):
    with pytest.raises(lite.Unavailable, match="sha256"):
        lite.fetch([giving(b"something else")])
    assert list(lite.CACHE.iterdir()) == []
    lite.fetch([giving(b"something else"), giving(cache)])  # and the next source is asked
    assert (lite.CACHE / "a.whl").read_bytes() == cache


def test_without_any_source_it_says_so(cache):
    with pytest.raises(lite.Unavailable, match="no network"):
        lite.fetch([broken])


def test_a_cell_names_what_the_modules_of_the_course_import():
    def cell(source):
        return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [1],
                "execution_count": 3}
    made = lite.for_browser({"metadata": {}, "cells": [
        cell("import numpy as np"), cell("from book_pages.widgets import explorer"),
        cell("from book_pages import figures")]})
    sources = ["".join(one["source"]) for one in made["cells"]]
    assert sources[0] == "import numpy as np"
    assert "import matplotlib.pyplot, anywidget" in sources[1]
    assert sources[2] == "from book_pages import figures", "named once is enough"
    assert made["metadata"]["kernelspec"]["name"] == "python"
    assert all(one["outputs"] == [] for one in made["cells"])


@pytest.mark.parametrize("dtypes", [["f4"], ["f8", "f4", "i8", "u1"],
                                    ["?", "u1", "i1", "f2", "i2", "f4", "i4", "f8", "i8", "f2"]])
def test_stand_in_writes_the_bytes_of_safetensors(tmp_path, dtypes):
    from safetensors.numpy import load, save

    # The stand-in has the library's name, so it is run under another.
    scope = {"__name__": "stand_in"}
    exec((ROOT / "tools/lite/safetensors/numpy.py").read_text("utf-8"), scope)
    rng = np.random.default_rng(0)
    arrays = {f"layer.{i}": (rng.standard_normal((3, i)) * 9).astype(dtype)
              for i, dtype in enumerate(dtypes)} | {"é": np.zeros((), "f4")}
    for metadata in (None, {"format": "pt"}):
        data = scope["save"](arrays, metadata)
        assert data == save(arrays, metadata)
        for name, array in scope["load"](data).items():
            np.testing.assert_array_equal(array, load(data)[name])
            assert array.dtype == arrays[name].dtype
    scope["save_file"](arrays, tmp_path / "x")
    assert io.BytesIO((tmp_path / "x").read_bytes()).read() == scope["save"](arrays)
    with pytest.raises(ValueError, match="complex"):
        scope["save"]({"z": np.zeros(2, complex)})
