"""What a figure's description says of its settings is what the stretch goal draws."""

import importlib
import inspect
import json
import re

import pytest
from exercise_tools import ROOT
from exercises.stretch_goals import ROOMS

PLACES = [(folder, room) for folder in ("exercises", "solutions") for room in ROOMS]
NUMBER = r"\d+(?:\.\d+)?"


def described(folder, room):
    """The description of the cell that draws a room's stretch goal."""
    page = room.replace("_", "-")
    page = page if folder == "exercises" else page.replace("ex", "sol", 1)
    notebook = json.loads((ROOT / "book" / folder / f"{page}.ipynb").read_text("utf-8"))
    (cell,) = [cell for cell in notebook["cells"]
               if cell["cell_type"] == "code" and "stretch.draw_" in "".join(cell["source"])]
    return cell["metadata"]["mystnb"]["image"]["alt"]


@pytest.fixture(params=PLACES, ids=" ".join)
def figure(request):
    folder, room = request.param
    return described(folder, room), importlib.import_module(f"exercises.{room}.stretch")


def test_ranks_and_scales_are_settings_of_the_goal(figure):
    alt, stretch = figure
    settings = {number for goal in stretch.GOALS for name in goal.settings
                for number in re.findall(NUMBER, name)}
    said = [number for numbers in re.findall(
                rf"(?:ranks?|scales?|dropout rates) ((?:{NUMBER}(?:, | and )?)+)", alt)
            for number in re.findall(NUMBER, numbers)]
    assert set(said) <= settings


def test_bars_are_named_where_bars_are_drawn(figure):
    alt, stretch = figure
    assert ("bars" in alt) <= (".bar" in inspect.getsource(stretch))


def test_a_range_of_learning_rates_is_the_one_that_is_drawn():
    stretch = importlib.import_module("exercises.ex4_prefix_mlp.stretch")
    rates = inspect.signature(stretch.prefix_runs).parameters["rates"].default
    alt = described("solutions", "ex4_prefix_mlp")
    assert f"learning rates from {min(rates):g} to {max(rates):g}." in alt
