"""The data of the speaking model's tasks, and which answers are right."""

import json
import runpy
from collections import Counter

import pytest

from experiments.tasks import (
    DATA,
    DESKS,
    FIELDS,
    GROUPS,
    TASKS,
    TEST,
    is_order,
    right_fields,
    wrong_answers,
)

ORDER = {"item": "hard hats", "quantity": 12, "city": "Lyon", "date": "02-29"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_row_stands_in_two_groups_and_every_answer_is_right(task):
    rows = {group: task.rows(group) for group in GROUPS}
    assert {group: len(found) for group, found in rows.items()} == {
        "train": 500, "test": 60, "shapes": 20, "phrasings": 20}
    every = [row for found in rows.values() for row in found]
    assert len({row.words for row in every}) == 600
    for group, found in rows.items():
        for row, wrong in zip(found, wrong_answers(found), strict=True):
            assert row.group == group and task.right(row.answer, row.answer)
            assert task.form(row.answer) and task.form(wrong) and not task.right(wrong, row.answer)
    with pytest.raises(ValueError, match="group"):
        task.rows("tests")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_prompt_shows_three_training_rows_of_different_kinds_and_none_of_the_tests(task):
    train = task.rows("train")
    assert len({*task.shown}) == len({train[i].answer for i in task.shown}) == 3
    prompts = task.prompts("X")
    assert [text.count(f"{task.asked}: ") for text in prompts.values()] == [1, 4, 4]
    assert all(text.endswith(f"{task.answered}:") for text in prompts.values())
    assert not any(f": {row.words}\n" in prompts["three"]
                   for group in TEST for row in task.rows(group))


@pytest.mark.parametrize("name", ["orders", "desks"])
def test_the_script_makes_the_data_again(name):
    made = runpy.run_path(str(DATA / name / f"make_{name}.py"))["rows"]()
    assert made == [tuple(row) for group in ("test", "shapes", "phrasings", "train")
                    for row in TASKS[name].rows(group)]


def test_test_orders_name_what_training_does_not():
    fields = {group: [json.loads(row.answer) for row in TASKS["orders"].rows(group)]
              for group in GROUPS}
    for name in ("item", "city"):
        known = {order[name] for order in fields["train"]}
        assert not any(order[name] in known for group in TEST for order in fields[group])
    wrong = Counter(key for row in TASKS["orders"].rows("test") for key, right in right_fields(
        row.wrong, row.answer).items() if not right)
    assert wrong == dict.fromkeys(FIELDS, 15)  # one field each, all alike often


@pytest.mark.parametrize("group", GROUPS)
def test_every_message_has_a_twin_of_the_same_words_at_the_other_desk(group):
    twins = {}
    for row in TASKS["desks"].rows(group):
        words = "".join(c for c in row.words.lower() if c.isalpha() or c == " ").split()
        twins.setdefault(tuple(sorted(words)), []).append((row.answer, row.wrong))
    for one, other in twins.values():
        assert one == other[::-1] and one[0] != one[1] and {*one} <= {*DESKS}


def test_train_and_test_messages_join_other_things():
    def things(group):
        return {row.words.lower().replace(" not ", " ") for row in TASKS["desks"].rows(group)}
    assert not things("train") & (things("test") | things("shapes") | things("phrasings"))


@pytest.mark.parametrize("change, right, form", [
    ({}, True, True), ({"quantity": 13}, False, True), ({"quantity": "12"}, False, False),
    ({"quantity": True}, False, False), ({"quantity": 12.0}, False, False),
    ({"date": "02-30"}, False, False), ({"date": "2-29"}, False, False),
    ({"date": "W09-4"}, False, False), ({"date": "29 February"}, False, False),
    ({"note": ""}, False, False),
    ({"city": "lyon"}, False, True), ({"item": None}, False, False)])
def test_an_order_is_right_in_all_its_fields(change, right, form):
    said = json.dumps(ORDER | change)
    assert TASKS["orders"].right(said, json.dumps(ORDER)) is right and is_order(said) is form


@pytest.mark.parametrize("said", [
    "", "12", "[]", "{}", "{", "hard hats", json.dumps(list(ORDER.items())),
    json.dumps(ORDER)[:-1], json.dumps(ORDER) + " and",
    json.dumps(ORDER)[:-1] + ', "quantity": 12}',
    json.dumps({key: ORDER[key] for key in ("item", "quantity", "city")})])
def test_what_is_no_order_is_right_nowhere(said):
    assert not is_order(said)
    assert right_fields(said, json.dumps(ORDER)) == dict.fromkeys(FIELDS, False)


def test_an_orders_fields_may_come_in_any_order():
    turned = json.dumps(dict(reversed(ORDER.items())))
    assert TASKS["orders"].right(turned, json.dumps(ORDER))
    assert right_fields(json.dumps(ORDER | {"city": "Oslo"}), json.dumps(ORDER)) == {
        "item": True, "quantity": True, "city": False, "date": True}


@pytest.mark.parametrize("said, right, form", [
    ("sales", True, True), ("billing", False, True), ("Sales", False, False),
    ("sales.", False, False), ("sales desk", False, False), ("", False, False)])
def test_a_desk_is_named_exactly(said, right, form):
    assert TASKS["desks"].right(said, "sales") is right and TASKS["desks"].form(said) is form
