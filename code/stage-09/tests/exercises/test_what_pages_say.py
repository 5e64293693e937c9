"""What pages say of exercises: what checks don't see and report, which gradients 9.6 compares."""

import ast
import json
import re

import numpy as np
import pytest
from exercise_tools import ROOMS, ROOT, check, solution

import gradcheck
import llama
from exercises.mistakes import Mistake, patched

#: Under "What the check does not see", as patches on the solutions: each of these passes.
UNSEEN = {
    "ex1_lora_feed_forward": {
        "A zero and B random": {"self.cache = {}": (
            "self.cache = {}\nfor layer in self.projections.values():\n"
            "    layer.lora.B[...] = rng.normal(0, 0.1, layer.lora.B.shape)\n"
            "    layer.lora.A[...] = 0")},
        "a start that is uniform": {"self.cache = {}": (
            "self.cache = {}\nfor layer in self.projections.values():\n"
            "    layer.lora.A[...] = rng.uniform(-0.4, 0.4, layer.lora.A.shape)")}},
    "ex2_lora_dropout": {
        "a start below the bound": {
            "self.training = True": "self.training = True\nself.A[...] *= 20"}},
    "ex3_parallel_adapter": {
        "forward of the sublayer twice": {
            "a = np.maximum(": "self.sublayer.forward(x)\na = np.maximum("},
        "a start below the bound": {"peft.INIT_STD * start": "0.25 * start"}},
    "ex4_prefix_mlp": {"an E that saturates": {"self.E = rng": "self.E = 100 * rng"}},
    "ex5_prompted_lora": {
        "a large prompt": {"self.cache = None": "self.cache = None\nself.prompt.prompt *= 500"}},
    "ex6_qlora": {
        "the other level on a midpoint": {
            "np.searchsorted(midpoints, quotients)":
            'np.searchsorted(midpoints, quotients, side="right")'},
        "another half in the last byte": {"np.uint8(7))": "np.uint8(15))"},
        "a weight that is kept where it is larger": {"self.dtype = weight.dtype": (
            "self.dtype = weight.dtype\n"
            "self.whole = weight.copy() if weight.size > 50_000 else None")}},
    "ex7_dora": {"c onto V": {"(x * c) @ V.T": "x @ (V * c).T"}},
    "ex8_vera": {"B drawn before A": {
        "self.A, self.B = (": "self.B, self.A = (",
        "((rank, k), (k, rank))": "((k, rank), (rank, k))"}},
}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in UNSEEN
                                            for name in UNSEEN[room]])
def test_what_the_page_calls_unseen_passes(room, name):
    report = check(room, patched(room, Mistake(name, "", UNSEEN[room][name])))
    assert report.passed, str(report)


def test_the_page_for_teachers_shows_a_report_as_it_is():
    text = (ROOT / "book" / "teaching-with-this-book.md").read_text("utf-8")
    shown = re.search(r"report\.measured +# (\{.*?\})", text, re.DOTALL)[1]
    report = check("ex2_lora_dropout", patched("ex2_lora_dropout", Mistake(
        "NoMaskOnTheWayBack", "", {"through_update = through_update * mask": "pass"})), step=4)
    assert report.measured == ast.literal_eval(shown.replace("#", ""))
    assert f'report.diagnosis.mistake   # "{report.diagnosis.mistake}"' in text
    assert report.diagnosis.seen.partition(". ")[0] in text
    assert len(str(report).splitlines()) <= 15


@pytest.mark.parametrize(("number", "shapes", "more"), [
    (1, [(8, 6), (8, 6), (6, 8)], {"rank": 2}), (3, [(6, 6)], {"dtype": np.float64}),
    (5, [(6, 6)] * 4, {"lora_rank": 2, "prompt_length": 3}), (6, [(5, 6)], {"lora_rank": 2}),
    (7, [(5, 6)], {"lora_rank": 2}), (8, [(8, 6), (6, 8)], {})])
def test_section_9_6_compares_all_gradients_where_the_page_says_so(number, shapes, more):
    cells = json.loads((ROOT / "book" / "06-implementation.ipynb").read_text("utf-8"))["cells"]
    space = {"np": np, "gradcheck": gradcheck}
    exec(next(source for cell in cells if "def gradient_errors" in (
        source := "".join(cell["source"]))), space)
    rng, room = np.random.default_rng(number), [*ROOMS][number - 1]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    if number == 3:
        arrays = [llama.Linear(*arrays), 6, 4]
    made = solution(room, ROOMS[room])(*arrays, **more)
    errors = space["gradient_errors"](made, [rng.standard_normal((2, 3, 6))])
    assert errors.keys() == made.parameters().keys() | {"input 1"}
    assert max(errors.values()) < 1e-7
