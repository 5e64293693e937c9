"""The editor of a page's cells: CodeMirror with the book's colours, keys and names."""

import json
import re
import shutil
import subprocess

import gradcheck
import peft
import pytest
import vendor
from conftest import ROOT, missing
from in_page import build as in_page
from test_accessibility import violations
from test_in_page import EXERCISE, REACHABLE, Cell

COURSE = {"peft": {"LoRALayer": "class", "merge": "function"}, "training": {"train": "function"}}
#: The labels offered at each "|" of a text, with that text above it; null where nothing is.
OFFERED = """import { completions } from "./tools/in_page/completion.js";
import { CompletionContext, EditorState, LanguageSupport, pythonLanguage }
    from "./vendor/editor/codemirror.js";
const [course, cases] = JSON.parse(process.argv[2]), said = [];
for (const [above, text, explicit] of cases) {
    const state = EditorState.create({ doc: text.replace("|", ""),
        extensions: new LanguageSupport(pythonLanguage) });
    const source = completions(() => above, Promise.resolve(course));
    const found = await source(new CompletionContext(state, text.indexOf("|"), explicit));
    said.push(found && [text.slice(0, found.from), found.options.map(({ label }) => label)]);
}
console.log(JSON.stringify(said));"""


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """What completion.js offers, asked in Node.js."""
    import node_js

    node = node_js.path() or missing("Node.js is not installed: make env")
    folder = tmp_path_factory.mktemp("completion")
    for name in ("tools/in_page/completion.js", "vendor/editor/codemirror.js"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "ask.js").write_text(OFFERED)

    def ask(text, above="", explicit=False):
        asked = json.dumps([COURSE, [[above, text, explicit]]])
        said = subprocess.run([node, "ask.js", asked], cwd=folder, capture_output=True, text=True,
                              check=True)
        return json.loads(said.stdout)[0]

    return ask


def test_names_come_from_the_cells_the_course_and_python(offered):
    above = ("import numpy as np\nimport training as tr\n"
             "from peft import (LoRALayer,\n    merge as join)\n"
             "rank, scale = 4, 2\ndef shrink(inner):\n    hidden = inner\nwidth: int = 8\n")
    start, names = offered("def f(alpha):\n    beta = ra|", above)
    assert start == "def f(alpha):\n    beta = "
    assert {"np", "join", "rank", "scale", "shrink", "width", "alpha", "f", "LoRALayer",
            "tr.train", "range"} <= {*names}
    assert not {"inner", "hidden", "numpy", "merge", "train", "training.train"} & {*names}
    assert len(names) == len({*names})


@pytest.mark.parametrize(("text", "above", "names"), [
    ("p.Lo|", "import peft as p", ["LoRALayer", "merge"]),
    ("x = training.|", "import training", ["train"]),
    ("from pe|", "", ["peft", "training"]), ("import |", "", None),
    ("from peft import LoRALayer, m|", "", ["LoRALayer", "merge"]),
    ("peft.|", "", None), ("a.peft.|", "import peft", None), ("np.|", "import numpy as np", None),
    ("x = 'ra|'", "rank = 4", None), ("r|", "rank = 4", None)])
def test_a_module_offers_its_own_names_and_a_text_none(offered, text, above, names):
    found = offered(text, above)
    assert (found and found[1]) == names


def test_names_are_offered_at_once_when_asked_for(offered):
    assert "rank" in offered("|", "rank = 4", explicit=True)[1]


def test_the_course_names_are_those_that_its_modules_have():
    names = in_page.course_names()
    for module in (gradcheck, peft):
        own = {name: kind for name, kind in vars(module).items()
               if getattr(kind, "__module__", "") == module.__name__ and name[0] != "_"}
        assert names[module.__name__] == {name: "class" if isinstance(kind, type) else "function"
                                          for name, kind in own.items()}
    assert not [name for name in names if name.startswith(("exercises", "experiments"))]
    assert len(json.dumps(names)) < 20_000


def test_the_editors_file_is_asked_for_by_what_is_in_it(monkeypatch, tmp_path):
    address = re.compile(rb'"(\.\./\.\./editor/codemirror\.js\?\w+)"')
    before = {address.search(in_page.script(name))[1] for name in ("editor.js", "completion.js")}
    assert len(before) == 1, "two addresses are two CodeMirrors, of which neither knows the other"
    for name in ("editor.js", "tools/in_page/editor.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(in_page.HERE / "editor.js", tmp_path / "tools/in_page/editor.js")
    (tmp_path / "vendor/editor").mkdir(parents=True)
    (tmp_path / "vendor/editor/codemirror.js").write_bytes(b"another")
    monkeypatch.setattr(in_page, "HERE", tmp_path / "tools/in_page")
    assert address.search(in_page.script("editor.js"))[1] not in before


def test_a_bundle_that_its_recipe_did_not_make_is_told(monkeypatch, tmp_path):
    manifest = json.loads(vendor.MANIFEST.read_text("utf-8"))
    shutil.copytree(vendor.RECIPE, tmp_path / "editor")
    entry = tmp_path / "editor" / "entry.js"
    monkeypatch.setattr(vendor, "ROOT", tmp_path)
    monkeypatch.setattr(vendor, "RECIPE", tmp_path / "editor")
    assert list(vendor.problems(manifest)) == []
    entry.write_text(entry.read_text("utf-8") + "export const more = 1;\n")
    assert [line for line in vendor.problems(manifest) if "make vendor" in line]


def test_the_lock_file_has_a_hash_for_each_package_and_names_no_host():
    text = (vendor.RECIPE / "package-lock.json").read_text("utf-8")
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert [name for name, one in packages.items() if "integrity" not in one] == []
    assert "resolved" not in text
    asked = json.loads((vendor.RECIPE / "package.json").read_text("utf-8"))
    for name, version in {**asked["dependencies"], **asked["devDependencies"]}.items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_the_bundle_needs_no_eval():
    text = (vendor.VENDOR / "editor/codemirror.js").read_text("utf-8")
    assert not re.search(r"new Function\b|(?<![\w.$])eval\(", text)


# ---------------------------------------------------------------------------------- in a browser


def opened(page):
    cell = Cell(page, 0)
    cell.press("Edit and run")
    cell.text.content.wait_for()
    return cell


def test_nothing_of_the_editor_is_loaded_before_the_first_click(served_page):
    page = served_page(EXERCISE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_load_state("networkidle")
    late = ("codemirror.js", "editor.js", "completion.js", "text-box.js", "names.json")
    assert asked and not [url for url in asked if any(name in url for name in late)]
    opened(page)
    assert [url for url in asked if "codemirror.js" in url]


def test_code_has_the_colours_that_it_has_in_print(served_page):
    page = served_page(EXERCISE)
    printed = """(box, words) => words.map((word) => [word,
        getComputedStyle([...box.querySelectorAll(".cell_input:not([hidden]) span, .cm-line span")]
            .find((span) => !span.childElementCount && span.textContent === word)).color])"""
    task = Cell(page, 1)
    words = ["class", "def"]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)
        before = task.box.evaluate(printed, words)
        task.press("Edit and run")
        task.text.content.wait_for()
        assert task.box.evaluate(printed, words) == before
        assert len({colour for _, colour in before}) == 1 and "rgb(0, 0, 0)" not in before[0]
        task.press("Back to the printed code")


def test_names_are_chosen_with_the_keyboard_and_seen_at_any_width(served_page):
    page = served_page(EXERCISE)
    cell = opened(page)
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        cell.text.fill("")
        cell.text.content.focus()
        page.keyboard.type("import peft\npeft.LoR")
        names = cell.box.get_by_role("listbox")
        names.wait_for()
        assert cell.text.content.get_attribute("aria-controls") == names.get_attribute("id")
        box = names.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        page.evaluate(REACHABLE)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(500)
            assert violations(page) == []
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert cell.text.value() == "import peft\npeft.LoRALayer"
    page.keyboard.type("(")
    assert cell.text.value().endswith("peft.LoRALayer()"), "brackets are not closed"
    page.keyboard.press("Backspace")
    page.keyboard.press("End")
    page.keyboard.type("\nimp")
    names.wait_for()
    page.keyboard.press("Enter")  # nothing was chosen, so it is a new line
    assert cell.text.value().endswith("\nimp\n")


def test_a_page_whose_editor_does_not_load_has_a_plain_one(served_page):
    page = served_page(EXERCISE)
    page.route("**/codemirror.js*", lambda route: route.abort())
    cell = opened(page)
    assert cell.text.plain
    assert cell.run("for i in range(2):\n    print(6 * 7)") == "42\n42\n"
    page.reload()
    assert cell.text.value().startswith("for i in")
