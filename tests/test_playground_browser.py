"""The playground as a reader uses it: the real model trains in the page, as it does outside."""

import json
import re

import pytest
from book_pages.playground import Run
from conftest import PATIENCE
from playwright.sync_api import expect
from test_accessibility import violations

SETTINGS = {"target": "turkish", "method": "lora-mlp", "size": 2, "alpha": 8, "rate": 0.003,
            "steps": 50, "seed": 7, "names": 400, "batch": 16}


def answers(page, key):
    """What Python has answered so far under a key, in its order."""
    said = page.evaluate("said.map((message) => message.output?.data?.['application/json'])"
                         ".filter((answer) => answer)")
    return [answer[key] for answer in said if isinstance(answer, dict) and key in answer]


@pytest.fixture
def page(served_page):
    expect.set_options(timeout=PATIENCE)
    page = served_page("book/playground", viewport={"width": 1280, "height": 900})
    page.locator("#playground .peft-widget").wait_for()
    yield page
    expect.set_options(timeout=30_000)


def choose(page, **settings):
    for name, value in settings.items():
        field = page.locator(f"#playground [data-name={name}]")
        if name == "seed":
            page.get_by_label("Seed").fill(str(value))
            page.get_by_label("Seed").press("Tab")
        elif name == "size":
            field.focus()
            page.keyboard.press("Home")
            while field.get_attribute("data-value") != str(value):
                page.keyboard.press("ArrowRight")
        else:
            field.select_option(str(value))


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def test_the_model_trains_in_the_page_as_it_does_outside(page, tmp_path):
    status = page.locator("#playground-place").get_by_role("status")
    assert page.evaluate("said") == [], "Python starts before anybody asks"
    choose(page, **SETTINGS)
    press(page, "Train")
    expect(status).to_contain_text("Step 50 of 50")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled()
    run, losses = Run(**SETTINGS), []
    while run.done < 50:
        losses += run.step(5)["losses"]
    shown = [loss for some in answers(page, "losses") for loss in some]
    assert shown == pytest.approx(losses, abs=1e-4)
    look = run.look()["held_out"]
    assert answers(page, "held_out")[-1] == pytest.approx(look, abs=1e-4)
    row = page.locator("#playground table.pw-table tbody tr").last.inner_text()
    assert f"{run.model.num_parameters():,}" in row and f"{look['target']:.3f}" in row

    with page.expect_download() as download:
        press(page, "Download the adapter")
    download.value.save_as(tmp_path / "adapter.zip")
    press(page, "Load an adapter")
    page.locator("#playground-place input[type=file]").set_input_files(tmp_path / "adapter.zip")
    expect(status).to_contain_text("Loaded")
    expect(status).to_contain_text(f"{look['target']:.3f}")
    (tmp_path / "no.zip").write_text("no adapter")
    page.locator("#playground-place input[type=file]").set_input_files(tmp_path / "no.zip")
    expect(status).to_contain_text("adapter_config.json")


def test_a_prefix_takes_attention_beside_the_recorded_full_fine_tuning(page):
    page.get_by_role("button", name="Set up: prefix, length 10").click()
    press(page, "One step")
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    maps = answers(page, "weights")[-1]
    table = page.locator("#playground table.pw-map")
    for layer, head in ((0, 0), (2, 3)):
        page.get_by_label("Layer", exact=True).select_option(index=layer)
        page.get_by_label("Head", exact=True).select_option(index=head)
        shown = [[int(text) for text in row.locator("td .pw-unseen").all_text_contents()]
                 for row in table.locator("tbody tr").all()]
        assert shown == [pytest.approx([100 * weight for weight in row], abs=0.51)
                         for row in maps[layer][head]]
    taken = 100 * sum(maps[2][3][-1][:10])
    said = page.get_by_text("virtual tokens take").last.inner_text()
    assert float(re.search(r"take (\d+)", said)[1]) == pytest.approx(taken, abs=1)
    assert page.locator("#playground .pw-curve path.pw-recorded").count() == 1
    assert "Full fine-tuning, recorded" in page.locator(".pw-curve").get_attribute("aria-label")
    assert page.locator(".question.predict").count() == 6
    page.set_viewport_size({"width": 360, "height": 740})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # colours of the theme change slowly
        assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_run_pauses_forks_and_takes_another_rate(page):
    page.get_by_role("button", name="Set up: q and v, rank 16").click()
    assert page.locator("#playground [data-name=method]").input_value() == "lora-qv"
    press(page, "One step")
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    press(page, "Fork this run")
    expect(page.get_by_role("status").filter(has_text="stands where")).to_be_visible()
    choose(page, rate=0.1)
    press(page, "One step")
    expect(page.locator("#playground table.pw-table tbody tr").last).to_contain_text("0.1")
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    assert page.locator("#playground table.pw-table tbody tr").count() == 2
    press(page, "Go on")
    press(page, "Pause")
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    assert "20" not in json.dumps(answers(page, "step")[-1:])
    press(page, "Forget the other runs")
    assert page.locator("#playground table.pw-table tbody tr").count() == 1
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(500)  # colours of the theme change slowly
            assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
