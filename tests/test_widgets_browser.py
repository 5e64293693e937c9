"""The widgets of explorer.py as a reader meets them: in a page from disk, in Chromium, offline.

The page is made here from the widgets' saved state, as the book's pages are. Every number is
compared with `peft.py` or `accounting.py`.
"""

import json
import re
import shutil
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import lighten
import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import expect

import peft
from book_pages import clues, guide
from book_pages.widgets import (
    advice,
    answers,
    bill,
    explorer,
    faults,
    mass,
    outlier,
    pair,
    parsons,
    seeds,
    signal,
    update,
)
from exercises.ex6_qlora.levels import NF4
from exercises.parsons import Puzzle
from experiments.update import load_update
from real_models import accounting

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 375, "height": 800}}
LEVELS = {"NF4": NF4, "even levels": np.arange(-7, 8) / 7}
LOSSES = {"lora": [1.701, 1.722, 1.744, 1.713], "dora": [1.71, 1.7, 1.7573, 1.7021],
          "ia3": [2.00, 2.10, 2.05, 2.20]}
PUZZLES = [Puzzle("room", "Layer.forward", "def forward(self, x):",
                  ["a = x + 1", "b = x * 2", "c = a <b> b", "return c"],
                  [(0, 2, "a"), (1, 2, "b"), (0, 3, ""), (1, 3, ""), (2, 3, "c")],
                  [(1, "b = x / 2", "<i>half</i> of it.")]),
           Puzzle("room", "Layer.backward", "def backward(self, G):", ["return G"], [], [])]
LOOKS = list(product(["light", "dark"], SIZES))


def recorded_runs():
    def row(target, method, size, best):
        return {"kind": "report", "target": target, "method": method, "size": size, "seed": 0,
                "lr": 0.01, "trainable": 768 * size or 143_488, "file_bytes": 4000,
                "best_test": best, "best_base": 2.5, "names": ["ali", "<b>ece</b>"],
                "curve": {"steps": [0, 40, 80], "validation": [3.0, best + 0.2, best],
                          "train": [2.9, best - 0.1]}}

    rows = [row(target, method, size, 2.4 - size / 100)
            for target in ("turkish", "icelandic")
            for method, sizes in (("full", [0]), ("lora-qv", [1, 4, 16]), ("prompt", [5, 10]))
            for size in sizes]
    losses = {f"{name} {part}": 3.0 for name in ("turkish", "icelandic", "base")
              for part in ("validation", "test")}
    return explorer.RunExplorer(rows, {"names": ["anna"], "losses": losses})


def speaking_answers():
    def row(kind, method, right, **more):
        said = [{"group": group, "words": f"At {i}:00 AM", "answer": f"0 {i} * * *",
                 "said": f"0 {i} * * *" if i < right else "<b>noon</b>", "right": i < right}
                for group in ("test", "shapes", "phrasings") for i in range(5)]
        return {"task": "cron", "kind": kind, "method": method, "general": 0.7 + right / 10,
                "answers": said,
                "exact": dict.fromkeys(("test", "shapes", "phrasings"), right),
                "form": dict.fromkeys(("test", "shapes", "phrasings"), 5), **more}

    cost = {"trainable": 2_442_240, "file_bytes": 9_811_008, "validation": 0.1}
    rows = [row("before", "zero", 0), row("before", "three", 1)] + [
        row("after", method, right, lr=lr, seed=0, size=8, **cost) for method, lr, right in (
            ("lora-all", 1e-3, 4), ("lora-all", 3e-3, 5), ("lora-qv", 1e-3, 3))]
    desks = [json.loads(json.dumps(some).replace("At ", "Sent at ").replace('"cron"', '"desks"'))
             for some in (rows[0], rows[-1])]
    return answers.AnswerExplorer(rows + desks)


@pytest.fixture(scope="module")
def widgets():
    return {"explorer": explorer.parameter_explorer(), "rank": explorer.rank_widget(),
            "bottleneck": explorer.bottleneck_widget(), "lengths": explorer.lengths_widget(),
            "runs": recorded_runs(), "memory": explorer.memory_explorer(),
            "answers": speaking_answers(), "outlier": outlier.OutlierExplorer(LEVELS),
            "seeds": seeds.SeedExplorer(LOSSES), "update": update.UpdateExplorer(load_update()),
            "faults": faults.fault_finder(),
            "parsons": parsons.ParsonsProblem(PUZZLES), "signal": signal.SignalExplorer(),
            "mass": mass.MassExplorer(), "bill": bill.BillExplorer(),
            "pair": pair.PairExplorer(), "advice": advice.AdviceExplorer()}


@pytest.fixture(scope="module")
def address(widgets, tmp_path_factory):
    """A page with all widgets, their states apart as in the book's pages."""
    from ipywidgets.embed import embed_data

    data = embed_data(views=list(widgets.values()), drop_defaults=False)
    script = f'<script src="{(ROOT / "book/_static/widgets.js").as_uri()}"></script>'

    def inert(value):  # JSON inside <script>; a stored notebook has its keys sorted
        return json.dumps(value, sort_keys=True).replace("<", "\\u003c")

    cells = "".join(
        f'<div class="cell_output" id="{name}"><div class="output">'
        '<div class="peft-widget-fallback">a plain table</div></div><div class="output">'
        f'<script type="application/vnd.jupyter.widget-view+json">{inert(view)}</script>'
        "</div></div>"
        for name, view in zip(widgets, data["view_specs"], strict=True))
    page = tmp_path_factory.mktemp("page") / "index.html"
    page.write_text(lighten.widgets_apart(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Widgets</title>'
        '<meta name="viewport" content="width=device-width"></head>'
        f'<body style="margin: 16px">{cells}'
        f'<script type="application/vnd.jupyter.widget-state+json">{inert(data["manager_state"])}'
        f"</script>{script}</body></html>", page.parent, ""), "utf-8")
    return page.as_uri()


@pytest.fixture
def open_page(chromium, address):
    """Opens the page in a look; at the end nothing may have failed or asked for the network."""
    contexts, trouble = [], []

    def open_(scheme="light", size="desktop"):
        context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(IN_PAGE)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: message.type == "error"
                and trouble.append(message.text))
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:"))
                or trouble.append(request.url))
        page.goto(address)
        page.evaluate("bookWidgets.showAll()")
        page.wait_for_function("document.querySelectorAll('.peft-widget').length === 17")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert trouble == []


# Helpers in the page: whole sweeps run there, since a round trip for every position takes long.
IN_PAGE = """
window.frame = () => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(done)));  // the first one draws
window.move = async (widget, name, position) => {
  const input = document.querySelector(`#${widget} input[data-name=${name}]`);
  input.value = position;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  await frame();
};
window.shown = (widget) => Object.fromEntries(
  [...document.querySelectorAll(`#${widget} tr[data-method]`)].map((row) => [row.dataset.method, {
    params: Number(row.dataset.params), ratio: Number(row.dataset.ratio),
    bytes: Number(row.dataset.bytes),
    text: row.querySelector("[data-cell=params]").textContent }]));
window.sweep = async (widget, name, positions) => {
  const seen = [];
  for (const position of positions) {
    await move(widget, name, position);
    seen.push(shown(widget));
  }
  return seen;
};
"""


def settle(page):
    page.evaluate("frame()")


def move(page, widget, name, position):
    page.evaluate("(them) => move(...them)", [widget, name, position])


def sweep(page, widget, name, positions):
    """What the table shows at each position of a slider."""
    return page.evaluate("(them) => sweep(...them)", [widget, name, list(positions)])


def check(rows, bytes_each=2, **settings):
    expected = peft.compare_peft_methods(**settings)
    for key, row in rows.items():
        assert row == {**expected[key], "bytes": expected[key]["params"] * bytes_each,
                       "text": f"{expected[key]['params']:,}"}, (key, settings)


def assert_counts(page, widget, bytes_each=2, **settings):
    settle(page)
    check(page.evaluate("(widget) => shown(widget)", widget), bytes_each, **settings)


@pytest.mark.parametrize("scheme, size", LOOKS)
def test_every_position_of_every_setting_shows_what_compare_peft_methods_counts(
        open_page, widgets, scheme, size):
    page = open_page(scheme, size)
    assert_counts(page, "explorer")
    for name, values in explorer.SETTINGS.items():
        seen = sweep(page, "explorer", name, range(len(values)))
        for value, rows in zip(values, seen, strict=True):
            check(rows, **{name: value})
        move(page, "explorer", name, values.index(getattr(widgets["explorer"], name)))


def test_every_width_and_every_layer_count(open_page):
    page = open_page()
    for position, width in enumerate(explorer.WIDTHS):
        move(page, "explorer", "width", position)
        for layers, rows in zip(explorer.LAYERS, sweep(
                page, "explorer", "layers", range(len(explorer.LAYERS))), strict=True):
            check(rows, d_model=width, num_layers=layers, num_heads=1)
        heads = page.locator("#explorer input[data-name=heads]").get_attribute("data-value")
        assert width % int(heads) == 0


@pytest.mark.parametrize("widget, name", [
    ("rank", "lora_rank"), ("bottleneck", "adapter_bottleneck"),
    ("lengths", "prefix_length"), ("lengths", "prompt_length")])
def test_small_widgets_on_every_listed_model(open_page, widget, name):
    page = open_page()
    values = explorer.SETTINGS[name]
    move(page, widget, name, 2)
    for model, width, layers, heads in explorer.MODELS:
        page.select_option(f"#{widget} select[data-name=preset]", model)
        assert_counts(page, widget, d_model=width, num_layers=layers, num_heads=heads,
                      **{name: values[2]})


def test_precision_changes_bytes_only_and_reset_returns(open_page):
    page = open_page()
    page.locator("#rank label", has_text="float32").click()
    assert_counts(page, "rank", bytes_each=4)
    move(page, "rank", "lora_rank", 0)
    settle(page)
    page.get_by_role("button", name="Reset").nth(1).click()
    assert_counts(page, "rank")


def test_keyboard_alone_moves_a_slider_and_the_change_is_announced(open_page):
    page = open_page()
    slider = page.locator("#rank input[data-name=lora_rank]")
    page.evaluate("document.addEventListener('keydown', ({key}) => { window.leaked = key; })")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert_counts(page, "rank", lora_rank=16)
    # JupyterLab and themes have uses of their own for the arrow keys.
    assert page.evaluate("window.leaked ?? null") is None
    assert slider.get_attribute("aria-valuetext") == "rank 16"
    expect(page.locator("#rank output")).to_contain_text("8,388,608")
    expect(page.locator("#rank output")).to_contain_text("0.391")
    page.keyboard.press("End")
    assert_counts(page, "rank", lora_rank=512)
    focused = slider.evaluate("(input) => getComputedStyle(input).outlineStyle")
    assert focused == "solid"


def test_every_control_is_named_and_reached_by_tab(open_page):
    page = open_page()
    unnamed = page.evaluate("""() => [...document.querySelectorAll(
        '.peft-widget :is(input, select, textarea)')].filter((one) => !one.labels.length)
        .map((one) => one.outerHTML)""")
    assert unnamed == []
    wanted = page.evaluate("""() => new Set([...document.querySelectorAll(
        '.peft-widget :is(input, select, button, summary):not(:disabled)')].filter((one) =>
        one.checkVisibility()).map((one) => one.type === 'radio' ? one.name : one)).size""")
    reached = page.evaluate("() => (window.seen = new Set()).size")
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached = page.evaluate("""() => window.seen.add(document.activeElement.type === 'radio'
            ? document.activeElement.name : document.activeElement).size""")
    assert reached == wanted


def test_ids_are_unique_and_widgets_do_not_touch_each_other(open_page):
    page = open_page()
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map(({id}) => id)")
    assert len(ids) == len(set(ids))
    move(page, "explorer", "lora_rank", 0)
    assert_counts(page, "rank")
    assert_counts(page, "explorer", lora_rank=1)


def test_a_widget_whose_file_is_damaged_says_so_and_is_no_other(chromium, address, tmp_path):
    folder = shutil.copytree(Path(url2pathname(urlsplit(address).path)).parent, tmp_path / "page")
    states = re.findall('data-state="([^"]*)"', (folder / "index.html").read_text("utf-8"))
    damaged = folder / states[1]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    page = chromium.new_page()
    page.goto((folder / "index.html").as_uri())
    said = page.evaluate("""async () => {
        const [fine, damaged] = document.querySelectorAll(bookWidgets.VIEWS);
        await bookWidgets.state(fine);
        return bookWidgets.state(damaged).then((values) => values._anywidget_id, String);
    }""")
    assert states[1] in said
    page.close()


def test_fallback_gives_way_to_the_widget(open_page):
    page = open_page()
    assert page.locator(".peft-widget-fallback:visible").count() == 0


@pytest.mark.parametrize("scheme, size", LOOKS)
def test_nothing_is_wider_than_the_page(open_page, scheme, size):
    page = open_page(scheme, size)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    cut = page.evaluate("""() => [...document.querySelectorAll('.pw-scroll')]
        .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)""")
    assert cut == []


def paper(page):
    return page.locator("#rank .peft-widget").evaluate(
        "(node) => getComputedStyle(node).backgroundColor")


def test_colours_follow_the_book_then_jupyterlab_then_the_system(open_page):
    page = open_page("light")
    light = paper(page)
    page.emulate_media(color_scheme="dark")
    dark = paper(page)
    assert light != dark
    for system, attribute, value, expected in (
            ("dark", "data-theme", "light", light), ("light", "data-theme", "dark", dark),
            ("dark", "data-jp-theme-light", "true", light),
            ("light", "data-jp-theme-light", "false", dark)):
        page.emulate_media(color_scheme=system)
        page.evaluate("""([name, value]) => {
            for (const node of [document.documentElement, document.body]) {
              node.removeAttribute('data-theme');
              node.removeAttribute('data-jp-theme-light');
            }
            const home = name === 'data-theme' ? document.documentElement : document.body;
            home.setAttribute(name, value);
        }""", [attribute, value])
        assert paper(page) == expected, (system, attribute, value)


def test_reduced_motion_stops_transitions(open_page):
    def duration(page):
        return page.locator("#rank .pw-bar").first.evaluate(
            "(bar) => getComputedStyle(bar).transitionDuration")

    page = open_page()
    assert duration(page) != "0s"
    page.emulate_media(reduced_motion="reduce")
    assert duration(page) == "0s"


# --------------------------------------------------------------------------- recorded runs


def test_recorded_runs_show_the_run_that_is_chosen(open_page, widgets):
    page = open_page()
    for target, by_method in widgets["runs"]._runs.items():
        page.locator("#runs label", has_text=target.capitalize()).click()
        for method, settings in by_method.items():
            page.select_option("#runs select[data-name=method]", method)
            settle(page)
            for position, run in enumerate(settings):
                move(page, "runs", "size", position)
                settle(page)
                after = page.locator("#runs tr[data-loss=target]").get_attribute("data-after")
                assert float(after) == run["test"][0]
                assert f"{run['trainable']:,}" in page.locator("#runs .pw-facts").text_content()
                points = page.locator("#runs .pw-curve path.pw-validation").get_attribute("d")
                assert points.count("L") == len(run["steps"]) - 1 and "NaN" not in points
    assert "<b>ece</b>" in page.locator("#runs .pw-names").nth(1).text_content()


# ------------------------------------------------------------------ answers of the speaking model


def test_the_answers_are_those_of_the_run_that_is_chosen(open_page, widgets):
    page, root = open_page(), "#answers"
    for run in (run for run in widgets["answers"]._runs if run["task"] == "cron"):
        page.select_option(f"{root} select[data-name=method]", run["method"])
        settle(page)
        if run["method"] == "lora-all":  # the other one has a single rate, and offers none
            page.select_option(f"{root} select[data-name=lr]", str(run["lr"]))
        for before in widgets["answers"]._before[:2]:
            page.select_option(f"{root} select[data-name=before]", before["method"])
            settle(page)
            for column, shown in ((3, before), (4, run)):
                marked = page.locator(f"{root} td:nth-child({column}) .pw-right")
                assert marked.count() == sum(answer["right"] for answer in shown["answers"])
            cells = page.locator(f"{root} tr[data-group=test] td").all_text_contents()
            right = [row["exact"]["test"] for row in (before, run)]
            assert cells == [f"{right[0]} \u2192 {right[1]} of 60", "5 \u2192 5 of 60",
                             "\u2013 \u2192 \u2013 of 60"]
            facts = page.locator(f"{root} .pw-facts").text_content()
            assert f"{run['general']:.2f}" in facts and f"{before['general']:.2f}" in facts
    assert page.locator(f"{root} select[data-name=lr]").is_hidden()
    assert "<b>noon</b>" in page.locator(f"{root} .pw-said").all_text_contents()


def test_another_task_has_its_own_questions(open_page):
    page, root = open_page(), "#answers"
    page.select_option(f"{root} select[data-name=before]", "three")  # not recorded of the desks
    page.select_option(f"{root} select[data-name=task]", "desks")
    settle(page)
    rows = page.locator(f"{root} table").nth(1).locator("tbody tr:not(.pw-group-row)")
    assert all(text.startswith("Sent at") for text in rows.all_text_contents())
    assert rows.count() == 15 and page.locator(f"{root} td .pw-right").count() == 9
    assert page.locator(f"{root} select[data-name=before]").input_value() == "zero"
    assert "desk" in page.locator(f"{root} caption").first.text_content()
    assert page.locator(f"{root} select[data-name=method]").is_hidden()
    page.select_option(f"{root} select[data-name=task]", "cron")
    settle(page)
    assert all(text.startswith("At") for text in rows.all_text_contents())


def test_the_keyboard_alone_chooses_a_training(open_page):
    page = open_page()
    page.locator("#answers select[data-name=lr]").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#answers output")).to_contain_text("12 of")
    assert page.evaluate("document.activeElement.dataset.name") == "lr"


# --------------------------------------------------------------------- memory of real models


def memory_shown(page):
    settle(page)
    totals = page.locator("#memory tbody[data-total] tr[data-item=total] td").evaluate_all(
        "(cells) => Object.fromEntries("
        "cells.map((cell) => [cell.dataset.side, Number(cell.dataset.bytes)]))")
    body = page.locator("#memory tbody[data-total]")
    return {**totals, "trainable": int(body.get_attribute("data-trainable"))}


def memory_expected(config, rank, targets, base, convention, optimizer, cards=1, sharding="ddp",
                    **batch):
    model = accounting.read_model(config)
    lora, full = accounting.count_lora(model, rank, targets), accounting.count_full(model)
    expected = {"trainable": lora.trainable}
    for side, (states, kept) in {
        "full": [accounting.memory_bill(full, convention=convention, optimizer=optimizer),
                 accounting.activation_estimate(full, **batch)],
        "lora": [accounting.memory_bill(lora, base=base, optimizer=optimizer),
                 accounting.activation_estimate(lora, base=base, **batch)]}.items():
        states = accounting.bill_per_card(states, cards, sharding)
        expected[side] = states.bytes + kept.bytes + accounting.overhead(states, kept).bytes
    return expected


def set_targets(page, targets):
    page.evaluate("""async (targets) => {
        for (const box of document.querySelectorAll("#memory input[data-name=target]")) {
          if (box.checked !== targets.includes(box.value)) box.click();
          await frame();
        }
    }""", targets)


def test_memory_is_what_accounting_says_over_a_grid(open_page):
    page = open_page()
    rng = np.random.default_rng(0)
    names = list(accounting.known_models())
    for name in names[::3]:
        config = accounting.known_models()[name]["config"]
        leaves = accounting.linear_names(accounting.read_model(config))
        page.select_option("#memory select[data-name=model]", name)
        settle(page)
        targets = [leaf for leaf in leaves if rng.random() < 0.5] or leaves[:1]
        set_targets(page, targets)
        picked = {}
        bases = page.locator("#memory select[data-name=base] option:enabled").evaluate_all(
            "(options) => options.map((option) => option.value)")  # that this model can have
        assert {"bfloat16", "nf4"} <= set(bases) <= set(accounting.BASE_FORMATS)
        for field, options in (("base", bases),
                               ("convention", list(accounting.CONVENTIONS)),
                               ("optimizer", list(accounting.OPTIMIZERS)),
                               ("cards", ["1", "2", "8"])):
            picked[field] = str(rng.choice(options))
            page.select_option(f"#memory select[data-name={field}]", picked[field])
        for field, values in (("rank", explorer.RANKS), ("length", explorer.LENGTHS),
                              ("batch", explorer.BATCHES)):
            position = int(rng.integers(len(values)))
            move(page, "memory", field, position)
            picked[field] = values[position]
        picked["checkpointing"] = bool(rng.integers(2))
        page.locator("#memory .pw-choice label").nth(int(picked["checkpointing"])).click()
        picked["cards"], picked["sharding"] = int(picked["cards"]), "ddp"
        if picked["cards"] > 1:
            picked["sharding"] = str(rng.choice(list(accounting.SHARDINGS)))
            page.select_option("#memory select[data-name=sharding]", picked["sharding"])
        expected = memory_expected(config, targets=targets, **picked)
        assert memory_shown(page) == expected, (name, targets, picked)


def test_what_fits_a_card_is_told_and_what_is_not_estimated_says_why(open_page):
    page = open_page(size="phone")
    cells = page.locator("#memory [data-fits] td[data-side=lora]")
    page.locator("#memory input[data-name=checkpointing][value=off]").focus()
    page.keyboard.press("ArrowRight")  # on
    settle(page)
    tuned = accounting.count_lora(accounting.load_model("Llama-2-7B"))
    states = accounting.memory_bill(tuned)
    kept = {"batch": 1, "length": 512}
    for cell, name in zip(cells.all(), kept, strict=True):
        most = int(cell.get_attribute("data-most"))
        assert f"{most:,}" in cell.text_content()
        for n, fits in ((most, True), (most + 1, False)):
            again = accounting.activation_estimate(tuned, **{**kept, name: n}, checkpointing=True)
            needed = states.bytes + again.bytes + accounting.overhead(states, again).bytes
            assert fits == (needed <= explorer.GPU_BYTES[24]), (name, n)
    page.get_by_text("Use your own model").click()
    page.get_by_label("Paste its config.json").fill(json.dumps(
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
         "text_config": {"model_type": "gemma3_text"}}))
    page.get_by_role("button", name="Use this model").click()
    settle(page)
    said = page.locator("#memory .pw-headline").text_content()
    assert "vision_config" in said and "not estimated" in said
    assert cells.count() == 0
    assert page.locator("#memory input[data-name=length]").is_disabled()


def test_a_pasted_config_is_answered_and_a_hostile_one_refused(open_page):
    page = open_page()
    page.get_by_text("Use your own model").click()
    area = page.get_by_label("Paste its config.json")
    use = page.get_by_role("button", name="Use this model")
    config = accounting.known_models()["Mistral-7B"]["config"] | {
        "num_hidden_layers": 5, "vocab_size": 777, "_name_or_path": "<img src=x onerror=alert(1)>"}
    area.fill(json.dumps(config))
    use.click()
    expected = memory_expected(config, 8, ["q_proj", "v_proj"], "bfloat16", "mixed", "adamw")
    assert memory_shown(page) == expected
    assert "<img" in page.locator("#memory select[data-name=model]").text_content()
    config["num_hidden_layers"] = 50  # another model of the same name takes its place
    area.fill(json.dumps(config))
    use.click()
    expected = memory_expected(config, 8, ["q_proj", "v_proj"], "bfloat16", "mixed", "adamw")
    assert memory_shown(page) == expected
    named = page.locator("#memory select[data-name=model] option", has_text="<img")
    assert named.count() == 1
    total = accounting.read_model(config).num_parameters
    assert f"{total / 1e9:.3g}" in named.text_content()
    for text, answer in (
            ("<script>alert(1)</script>", "not JSON"),
            ('{"model_type": "<img src=x onerror=alert(1)>"}', "not a family"),
            (json.dumps(config | {"architectures": ["MistralForPoetry"]}), "MistralForPoetry"),
            (json.dumps(config | {"hidden_size": "4096"}), "must be a positive integer")):
        area.fill(text)
        use.click()
        assert answer in page.locator("#memory .pw-answer").text_content()
        settle(page)  # no figure of the model before may stand there as if it were this one's
        assert page.locator("#memory tbody tr").count() == 0
        assert page.locator("#memory .pw-memory").is_hidden()
        headline = page.locator("#memory .pw-headline").text_content()
        assert "fits" not in headline and "refused" in headline
    page.select_option("#memory select[data-name=base]", "nf4")  # settings bring nothing back
    settle(page)
    assert page.locator("#memory tbody tr").count() == 0
    page.select_option("#memory select[data-name=base]", "bfloat16")
    page.select_option("#memory select[data-name=model]", named.get_attribute("value"))
    assert memory_shown(page) == expected
    area.fill(json.dumps(config | {"architectures": ["MistralForSequenceClassification"]}))
    use.click()
    expected = memory_expected(config | {"architectures": ["MistralForSequenceClassification"]},
                               8, ["q_proj", "v_proj"], "bfloat16", "mixed", "adamw")
    assert memory_shown(page) == expected
    assert page.locator("#memory img").count() == 0


def test_no_target_modules_train_nothing_and_say_so(open_page):
    page = open_page()
    set_targets(page, [])
    assert memory_shown(page)["trainable"] == 0
    assert "at least one target module" in page.locator("#memory .pw-headline").text_content()


# ------------------------------------------------------------------------------------ outlier


def test_an_outlier_takes_the_levels_of_its_neighbours(open_page):
    page = open_page()
    page.locator("#outlier summary").click()
    for levels, (position, times) in product(LEVELS, enumerate(outlier.TIMES)):
        page.locator(f"#outlier input[value='{levels}']").check(force=True)
        move(page, "outlier", "times", position)
        found = outlier.OutlierExplorer(LEVELS)._grid[f"{levels},{times}"]
        rows = page.locator("#outlier tbody tr").all()
        shown = [[cell.text_content() for cell in row.locator("td").all()] for row in rows]
        assert [int(code) for _, code, _ in shown] == found["codes"], (levels, times)
        assert [float(value) for *_, value in shown] == pytest.approx(found["restored"], abs=0.006)
        assert f"use {found['used']} level" in page.locator("#outlier .pw-headline").text_content()


# -------------------------------------------------------------------------------------- seeds


def test_each_draw_of_seeds_is_shown_in_its_order(open_page):
    page = open_page()
    widget = seeds.SeedExplorer(LOSSES)
    page.locator("#seeds summary").click()
    for position, count in enumerate(seeds.COUNTS):
        move(page, "seeds", "count", position)
        for means in widget._draws[str(count)]:  # after the last one the first comes again
            rows = page.locator("#seeds tbody tr").all()
            shown = [[cell.text_content() for cell in row.locator("td").all()] for row in rows]
            assert [float(mean) for _, mean, *_ in shown] == pytest.approx(means, abs=6e-5)
            order = sorted(zip(means, widget._labels, strict=True))
            places = [1 + [label for _, label in order].index(name) for name in widget._labels]
            assert [int(place) for _, _, place, _ in shown] == places
            words = page.locator("#seeds .pw-headline").text_content()
            assert f"{sum(p != i for i, p in enumerate(places, 1))} of 3" in words
            assert f"{order[0][1]} leads" in words
            page.locator("#seeds [data-name=again]").click()
            page.evaluate("frame()")


# ------------------------------------------------------------------------------------ parsons


def test_lines_are_put_in_order_by_keyboard_and_each_fault_is_told_at_its_line(open_page):
    page = open_page("light", "phone")

    def press(name, line):
        page.locator(f"#parsons [data-name={name}][data-line='{line}']").press("Enter")
        page.evaluate("frame()")

    def said():
        page.locator("#parsons [data-name=check]").press("Enter")
        reply = page.locator("#parsons .pw-reply").text_content()
        wrong = page.locator("#parsons .pw-wrong").all()
        assert [f"Line {1 + int(item.evaluate('i => [...i.parentNode.children].indexOf(i)'))}."
                for item in wrong] == re.findall(r"^Line \d\.", reply)
        return reply

    expect(page.locator("#parsons [data-name=check]")).to_be_disabled()
    press("take", 2)
    assert "it uses a" in said()
    press("take", 0)
    press("up", 0)
    assert "it uses b" in said()
    press("take", 4)  # the wrong line
    press("up", 4)
    assert page.evaluate("document.activeElement.dataset.line") == "4"  # the focus went along
    assert said().startswith("Line 2. ") and "<i>half</i> of it." in said()
    press("back", 4)
    press("take", 3)
    press("take", 1)
    assert "Too early: the method ends here" not in said() and "it uses b" in said()
    press("up", 1)
    press("up", 1)
    press("up", 1)  # now the first: as good as the solution's own order
    assert said().startswith("Right") and "<b>" in page.locator("#parsons").text_content()
    page.locator("#parsons label", has_text="backward").click()
    page.evaluate("frame()")
    press("take", 0)
    assert said().startswith("Right")
    page.locator("#parsons label", has_text="forward").click()
    page.evaluate("frame()")
    assert page.locator("#parsons ol").last.locator("li").count() == 4  # what was done is kept
    page.locator("#parsons [data-name=again]").click()
    page.evaluate("frame()")
    assert page.locator("#parsons ol").last.locator("li").count() == 0


# ------------------------------------------------------------------------------------- signal


def test_what_passes_the_bottleneck_is_what_the_adapter_computes(open_page):
    widget = signal.SignalExplorer()
    adapters = {}
    for m in (1, 4, 8):
        adapters[m] = peft.Adapter(signal.WIDTH, m, dtype=np.float64, rng=0)
        adapters[m].W_down[...] = widget.arrays["down"][:, :m]
        adapters[m].W_up[...] = widget.arrays["up"][:m]
    page = open_page("dark", "phone")
    page.locator("#signal summary").click()
    for m, token, offset in product((1, 4, 8), (1, 32), (0, 0.5, 16)):
        move(page, "signal", "units", m - 1)
        move(page, "signal", "token", token - 1)
        page.locator("#signal label", has_text=re.compile(f"^{offset}$")).click()
        page.evaluate("frame()")
        x = widget.arrays["noise"] + offset * widget.arrays["common"]  # (tokens, d)
        h = adapters[m].forward(x)
        active = adapters[m].cache["activated"] > 0  # (tokens, m)
        words = page.locator("#signal .pw-headline").text_content().replace("\u00a0", " ")
        assert words.startswith(f"{active[token - 1].sum()} of {m}units"), words
        share = np.linalg.norm((h - x)[token - 1]) / np.linalg.norm(x[token - 1])
        assert float(re.search(r"is ([\d.]+) %", words)[1]) == pytest.approx(100 * share, rel=6e-3)
        dead = int((~active.any(axis=0)).sum())
        assert page.locator("#signal .pw-never", has_text="dead").count() == dead
        assert (f". {dead} of {m}" in words) == bool(dead)
        rows = page.locator("#signal tbody tr").all()
        assert [int(row.locator("td").last.text_content().split()[0]) for row in rows] \
            == active.sum(axis=0).tolist()


# --------------------------------------------------------------------------------------- mass


def test_the_map_with_a_prefix_is_the_split_softmax(open_page):
    widget = mass.MassExplorer()
    page = open_page("light", "phone")
    page.locator("#mass summary").click()
    for layer, head, length, score in ((1, 1, 4, 0), (3, 4, 20, -8), (2, 3, 1, 8), (1, 2, 0, 3.5)):
        for name, place in (("layer", layer), ("head", head)):
            page.locator(f"#mass [data-name={name}][value='{place}'] + label").click()
        move(page, "mass", "length", length)
        move(page, "mass", "score", round(2 * (score + mass.EDGE)))
        page.evaluate("frame()")
        share = widget.mass(length, score)[layer - 1, head - 1]  # (T,)
        rows = page.locator("#mass tbody tr").all()
        shown = [float(row.locator("td").first.text_content().split()[0]) for row in rows]
        assert shown == pytest.approx(100 * share, rel=6e-3, abs=1e-6)
        opacity = page.locator("#mass svg rect:not(.pw-hidden)").evaluate_all(
            "all => all.map((one) => Number(one.getAttribute('fill-opacity')))")
        weights = (1 - share)[:, None] * widget.weights[layer - 1, head - 1]
        seen = [value for t, row in enumerate(weights) for value in (share[t], *row[:t + 1])]
        assert opacity == pytest.approx(seen, abs=1e-3)
        words = page.locator("#mass .pw-headline").text_content()
        assert ("keys of zeros" in words) == (score == 0)


# --------------------------------------------------------------------------------------- bill


def test_the_card_fills_item_by_item_and_says_where_it_is_full(open_page):
    widget = bill.BillExplorer()
    page = open_page("dark", "phone")

    def words():
        page.evaluate("frame()")
        return page.locator("#bill .pw-headline").text_content().replace("\u00a0", " ")

    def gigabytes(text):
        number, unit = re.match(r"([\d.]+) ([MGT]?B)", text).groups()
        return float(number) * {"MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]

    for model, way, card in product(bill.MODELS, ("Full fine-tuning", "LoRA", "QLoRA"), (8, 80)):
        page.locator("#bill select").select_option(model)
        page.locator("#bill label", has_text=re.compile(f"^{way}$")).click()
        page.locator("#bill label", has_text=re.compile(f"^{card}$")).click()
        sizes = [size for *_, size in widget.bills[model][way]]
        said = words()
        assert gigabytes(said) == pytest.approx(sum(sizes), rel=6e-3)
        assert ("is full at" in said) == (sum(sizes) > card * 1e9), said
        assert page.locator("#bill .pw-over").count() == (sum(sizes) > card * 1e9)
        wide = page.locator("#bill .pw-item").evaluate_all(
            "all => all.map((one) => Number(one.getAttribute('width')))")
        assert [w / sum(wide) for w in wide] == pytest.approx([s / sum(sizes) for s in sizes])
    said = page.locator("#bill").evaluate("""async (bill) => {
        bill.querySelector("[data-name=play]").click();  // from the first item on
        await frame();
        return bill.querySelector(".pw-headline").textContent; }""")
    first = widget.bills[bill.MODELS[-1]]["QLoRA"][0][2]
    assert gigabytes(said.replace("\u00a0", " ")) == pytest.approx(first, rel=6e-3)
    expect(page.locator("#bill .pw-item")).to_have_count(4, timeout=20_000)
    expect(page.locator("#bill [data-name=play]")).to_have_text("Fill the card")


# --------------------------------------------------------------------------------------- pair


def pair_axes(page):
    """All of both pictures but the curves, their letters and the line of the loss before."""
    return page.locator("#pair .pw-axes").evaluate_all("""all => all.map((one) =>
        [...one.querySelectorAll(":scope > :is(text, line, rect)")]
            .map((part) => part.outerHTML))""")


def pair_words(page):
    page.evaluate("frame()")
    return page.locator("#pair .pw-headline").text_content()


def test_the_curves_come_with_the_guess_and_say_what_the_seeds_say(open_page):
    widget = pair.PairExplorer()
    page = open_page("dark", "phone")
    page.locator("#pair summary").click()
    fixed = pair_axes(page)
    counted = {"a": 0, "b": 0, "neither": 0}
    chosen = (("turkish", "full 0", "lora-qv 4"), ("turkish", "prompt 1", "full 0"),
              ("icelandic", "houlsby 16", "lora-all 8"), ("turkish", "lora-qv 4", "lora-all 16"))
    for target, *keys in chosen:
        page.locator(f"#pair [data-name=target][value={target}] + label").click()
        for side, key in zip("ab", keys, strict=True):
            page.locator(f"#pair select[data-name={side}]").select_option(key)
        known = {one["key"]: one for one in widget.settings[target]}
        a, b = (known[key] for key in keys)
        assert pair_words(page).startswith("Guess first")
        last_step = page.locator("#pair tbody tr", has_text="last step").first.locator("td")
        assert "?" in last_step.all_text_contents()[:2]
        assert last_step.last.text_content() == "?"
        errors = (b["final_test"][0] - a["final_test"][0]) / np.hypot(
            *(one["final_test"][1] / np.sqrt(5) for one in (a, b)))
        truth = "neither" if abs(errors) < 3 else "a" if errors > 0 else "b"
        counted[truth] += 1
        guess = {"a": "b", "b": "b", "neither": "neither"}[truth]
        page.locator(f"#pair [data-guess={guess}]").click()
        words = pair_words(page)
        assert ("Right." in words) == (guess == truth), words
        times, told = re.search(r"([\d.]+) times .* \(([\d.]+) standard errors", words).groups()
        assert float(told) == pytest.approx(abs(errors), abs=0.056)
        assert float(times) == pytest.approx(abs(errors) * np.sqrt(2 / 5), abs=0.056)
        mean, deviation = b["final_test"]
        assert last_step.nth(1).text_content() == f"{mean:.3f} ± {deviation:.3f}"
        path = page.locator("#pair .pw-axes").first.locator("path.pw-b").get_attribute("d")
        ends = [float(part.split(",")[1]) for part in path[1:].split("L")]
        low, high = widget._extents[0]
        assert np.diff(ends) == pytest.approx(  # 186 units of the picture from low to high
            -186 * np.diff(b["validation"]) / (high - low), abs=0.11)
        assert pair_axes(page) == fixed
    assert all(counted.values()), counted


def test_what_was_seen_stays_open_and_what_was_not_stays_covered(open_page):
    page = open_page()
    lines = page.locator("#pair .pw-axes").first.locator("path")
    assert lines.count() == 0
    page.locator("#pair [data-guess=a]").focus()
    page.keyboard.press("Enter")
    expect(lines).to_have_count(2)
    page.locator("#pair select[data-name=b]").select_option("prompt 10")
    expect(lines).to_have_count(1)
    assert pair_words(page).startswith("Guess first")
    assert "B is covered" in page.locator("#pair .pw-axes").first.get_attribute("aria-label")
    page.locator("#pair select[data-name=b]").select_option("lora-qv 4")
    expect(lines).to_have_count(2)  # both were open before
    words = pair_words(page)
    assert "Right." not in words
    assert "You said" not in words
    page.locator("#pair select[data-name=b]").select_option("full 0")
    assert "Choose another" in pair_words(page)


# ------------------------------------------------------------------------------------- advice


def answer(page, question, place):
    page.locator(f"#advice select[data-name=question-{question}]").select_option(str(place))
    page.evaluate("frame()")


def standing_shown(page):
    kinds = page.locator("#advice .pw-options li").evaluate_all(
        "all => all.map((one) => one.className)")
    return dict(zip(guide.OPTIONS, ({"pw-gone": "out", "pw-behind": "behind", "": "left"}[kind]
                                    for kind in kinds), strict=True))


def test_each_answer_narrows_down_and_shows_its_row(open_page):
    page = open_page("dark", "phone")
    opened = page.locator("#advice details[open]")
    for number, choices in enumerate(guide.QUESTIONS.values()):
        for place, (said, name) in enumerate(choices.items()):
            row = guide.ROWS[name] if name else guide.Row("", "", "", "")
            answer(page, number, place)
            chosen = [place if i == number else -1 for i in range(len(guide.QUESTIONS))]
            assert standing_shown(page) == advice.AdviceExplorer(answers=chosen).standing()
            expect(opened).to_have_count(1)
            told = opened.text_content()
            assert told.startswith(f"{said}: ")
            for say in row.measured:
                assert say() in told
            silent = "No run of this book stands behind this" in told
            assert silent == bool(name and not row.measured)
        answer(page, number, -1)
    expect(page.locator("#advice .pw-headline")).to_contain_text("7 of 7")


def test_answers_add_up_say_when_nothing_is_left_and_start_again(open_page):
    page = open_page()
    for number, place in ((1, 1), (2, 0)):  # many tasks; every position is needed
        select = page.locator(f"#advice select[data-name=question-{number}]")
        select.focus()
        for _ in range(place + 1):
            page.keyboard.press("ArrowDown")
    page.evaluate("frame()")
    expect(page.locator("#advice .pw-headline")).to_contain_text(
        "3 of 7are left: LoRA, not merged, LoRA on a 4-bit base, adapters.")
    expect(page.locator("#advice output")).to_contain_text("3 of 7")
    assert page.locator("#advice li", has_text="left out:").count() == 4
    page.locator("#advice summary").first.click()  # what a reader opens stays open
    answer(page, 3, 2)
    answer(page, 3, -1)
    assert page.locator("#advice details").count() == 2
    links = page.locator("#advice .pw-ground a").evaluate_all(
        "all => all.map((one) => one.getAttribute('href'))")
    assert links
    assert all(re.fullmatch(r"[\w-]+\.html(#[\w-]+)?", link) for link in links)
    page.locator("#advice [data-name=again]").click()
    expect(page.locator("#advice .pw-headline")).to_contain_text("7 of 7")
    assert page.locator("#advice details").count() == 0


# ------------------------------------------------------------------------------------- update


def test_a_cell_of_the_update_is_row_times_column_at_every_rank(open_page):
    matrix = load_update()
    u, sigma, vt = np.linalg.svd(matrix)
    page = open_page("dark", "phone")

    def check(rank, row, column):
        page.evaluate("frame()")
        products = u[row] * sigma * vt[:, column]
        words = page.locator("#update .pw-sum").text_content().replace("\u2212", "-")
        assert f"Row {row + 1} of B times column {column + 1} of A:" in words
        kept, whole = re.search(r"= (\S+), \d+ prod.* has (\S+)\.", words).groups()
        assert float(kept) == pytest.approx(products[:rank].sum(), abs=1e-3)
        assert float(whole) == pytest.approx(matrix[row, column], abs=1e-3)
        missing = np.linalg.norm(sigma[rank:]) / np.linalg.norm(sigma)
        words = page.locator("#update .pw-headline").text_content()
        assert float(words.partition("\u00a0")[0]) == pytest.approx(100 * missing, abs=0.06)
        assert f"at rank {rank};" in words
        coloured = page.locator("#update .pw-terms").first.locator(".pw-in").count()
        assert coloured == rank

    product = page.locator("#update canvas").last
    product.scroll_into_view_if_needed()
    box = product.bounding_box()
    for rank, row, column in ((1, 0, 63), (8, 40, 3), (64, 21, 22)):
        move(page, "update", "rank", rank - 1)
        page.mouse.move(box["x"] + (column + 0.5) * box["width"] / 64,
                        box["y"] + (row + 0.5) * box["height"] / 64)
        check(rank, row, column)
    # The hand off the mouse: sliders alone reach every cell, and the colours are those of the page.
    page.locator("#update input[data-name=row]").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#update input[data-name=column]").press("Home")
    page.locator("#update input[data-name=rank]").press("ArrowLeft")
    check(63, 22, 0)
    colour = """(canvas) => {  // the red of the reds: of cells in full colour
        const data = canvas.getContext('2d').getImageData(0, 0, 64, 64).data;
        let most = 0;
        for (let at = 0; at < data.length; at += 4)
            if (data[at + 3] === 255) most = Math.max(most, data[at]);
        return most; }"""
    dark = page.locator("#update canvas").first.evaluate(colour)
    page.emulate_media(color_scheme="light")
    page.evaluate("frame()")
    light = page.locator("#update canvas").first.evaluate(colour)
    assert dark > light > 100  # never black, whatever came first: colours or widget


def test_the_rank_plays_unless_motion_is_unwanted(open_page):
    page = open_page()
    button = page.locator("#update [data-name=play]")
    rank = page.locator("#update input[data-name=rank]")
    at = page.locator("#update").evaluate("""async (update) => {  // from here it would come late
        const button = update.querySelector("[data-name=play]");
        const { dataset } = update.querySelector("input[data-name=rank]");
        button.click();
        while (Number(dataset.value) < 5) await new Promise(requestAnimationFrame);
        button.click();
        await frame();
        return dataset.value; }""")
    expect(button).to_have_text("Play")
    page.wait_for_timeout(250)
    assert rank.get_attribute("data-value") == at, "it goes on after a pause"
    page.emulate_media(reduced_motion="reduce")
    expect(button).to_have_text("One rank more")
    before = int(rank.get_attribute("data-value"))
    button.click()
    expect(rank).to_have_attribute("data-value", str(before + 1))
    page.wait_for_timeout(250)
    assert rank.get_attribute("data-value") == str(before + 1)


# ------------------------------------------------------------------------------------- faults


def pick(page, fault):
    page.locator(f"#faults input[value={fault}]").check()
    page.locator("#faults [data-name=say]").click()
    return page.locator("#faults [role=status]").inner_text()


def test_every_choice_of_every_case_is_answered(open_page, widgets):
    page, widget = open_page(), widgets["faults"]
    for number, row in enumerate(widget.records, 1):
        assert f"Case {number} of {len(widget.records)}" in page.locator(
            "#faults .pw-headline").text_content()
        facts = page.locator("#faults .pw-facts").text_content()
        assert f"{row['saved']:,}" in facts and f"{row['served']:.3f}" in facts
        lines = page.locator("#faults .pw-panels path").evaluate_all(
            "(paths) => paths.map((path) => path.getAttribute('d'))")
        assert len(lines) >= 7 and not any("NaN" in line for line in lines)
        names = page.locator("#faults .pw-names li").all_text_contents()
        assert names == [name or "(empty)" for name in row["names"]]
        wrong = next(fault for fault in clues.FAULTS if fault != row["fault"])
        for fault in (wrong, row["fault"]):
            said = pick(page, fault)
            assert clues.reply(row, fault) in said
            assert said.startswith("Right." if fault == row["fault"] else "Not this one.")
            assert (clues.FAULTS[fault].fix in said) == (
                fault == row["fault"] and bool(clues.FAULTS[fault].heading))
        page.locator("#faults [data-name=another]").click()
        settle(page)
        expect(page.locator("#faults .pw-headline")).to_be_in_viewport()
    # The first answer to each counted, and each was wrong.
    expect(page.locator("#faults .pw-headline")).to_contain_text(
        f"0 of {len(widget.records)} right")


def test_first_answers_are_kept_and_the_next_case_is_a_new_one(open_page, widgets):
    page, first = open_page(), widgets["faults"].records[0]
    pick(page, first["fault"])
    expect(page.locator("#faults .pw-headline")).to_contain_text("1 of 1 right")
    page.reload()
    page.evaluate("bookWidgets.showAll()")
    page.wait_for_function("document.querySelectorAll('.peft-widget').length === 17")
    expect(page.locator("#faults .pw-headline")).to_contain_text("Case 2 of")
    expect(page.locator("#faults .pw-headline")).to_contain_text("1 of 1 right")
    page.evaluate("localStorage.setItem('peft-book-faults', '[damaged')")
    page.reload()
    page.evaluate("bookWidgets.showAll()")
    page.wait_for_function("document.querySelectorAll('.peft-widget').length === 17")
    expect(page.locator("#faults .pw-headline")).to_contain_text("Case 1 of")


def test_a_fault_is_named_with_the_keyboard_alone(open_page, widgets):
    page, row = open_page(), widgets["faults"].records[0]
    assert page.locator("#faults [data-name=say]").is_disabled()
    page.locator("#faults input[data-name=fault]").first.focus()
    page.keyboard.press("Space")
    for _ in range(list(clues.FAULTS).index(row["fault"])):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#faults [role=status]")).to_contain_text("Right.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#faults output")).to_contain_text("Case 2 of")


def test_a_sound_run_is_laid_beside_and_each_panel_is_told_in_words(open_page):
    page = open_page()
    assert page.locator("#faults path.pw-beside").count() == 0
    page.locator("#faults input[data-name=beside]").check()
    assert page.locator("#faults .pw-panel .pw-curve path.pw-beside").count() >= 5
    for words in page.locator("#faults .pw-panel > svg").evaluate_all(
            "(all) => all.map((one) => one.getAttribute('aria-label'))"):
        assert re.search(r"first [\d.e-]+, largest [\d.e-]+, last [\d.e-]+", words), words
    page.locator("#faults summary").click()
    rows = page.locator("#faults tbody tr")
    assert rows.count() == 11
    assert "NaN" not in rows.last.text_content() and "undefined" not in rows.last.text_content()
