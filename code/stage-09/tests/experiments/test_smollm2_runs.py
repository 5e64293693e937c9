"""The plan of the speaking model's runs, its own layers, and what is said of its updates."""

import numpy as np
import pytest

import training
from experiments import records, smollm2, smollm2_update
from experiments.small_llama import plug_lora
from experiments.tasks import TASKS
from llama import PROJECTIONS, Llama, LlamaConfig, random_weights

CONFIG = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)


def small():
    return Llama(CONFIG, random_weights(CONFIG, np.random.default_rng(0)))


def row(method, size, lr, seed=0, validation=0.5):
    return {"task": "cron", "kind": "after", "method": method, "size": size, "lr": lr,
            "seed": seed, "steps": smollm2.STEPS, "validation": validation}


def test_other_sizes_and_seeds_follow_once_a_sweep_is_whole_at_its_best_rate():
    assert all(len({*rates}) == len(rates) >= 3 for _, rates in smollm2.RUNS.values())
    first = smollm2.planned()
    assert len(first) == len({tuple(job.items()) for job in first})
    assert {job["seed"] for job in first if "seed" in job} == {0}
    (sizes, rates) = smollm2.RUNS["lora-qv"]
    rows = [row("lora-qv", sizes[0], lr, validation=1 + place) for place, lr in enumerate(rates)]
    assert smollm2.planned(rows[:-1]) == first
    rows[0] = {key: value for key, value in rows[0].items() if key != "validation"}  # diverged
    added = smollm2.planned(rows)[len(first):]
    assert {(job["method"], job["lr"]) for job in added} == {("lora-qv", rates[1])}
    assert [(job["size"], job["seed"]) for job in added] == [
        (size, seed) for seed in (0, 1, 2) for size in sizes if (size, seed) != (sizes[0], 0)]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_recorded_was_planned_and_is_judged_as_today(task):
    rows = smollm2.load_runs(task=task)
    assert rows and all(any(job.items() <= row.items() for job in smollm2.planned(rows, task))
                        for row in rows)
    for row in rows:
        assert "diverged" in row or len(row["answers"]) == 20
        for shown in row.get("answers", ()):
            assert task.right(shown["said"], shown["answer"]) is shown["right"]
            assert shown["answer"] in {r.answer for r in task.rows(shown["group"])}


def test_only_answers_are_scored():
    inputs, targets = smollm2.make_batch([([5, 6, 7], [8, 2]), ([5], [9, 10, 11, 2])])
    assert inputs.tolist() == [[5, 6, 7, 8], [5, 9, 10, 11]]
    assert targets.tolist() == [[-100, -100, 8, 2], [9, 10, 11, 2]]


def test_each_task_has_its_own_record_and_the_oldest_rows_are_crons(tmp_path):
    old = {"kind": "before", "method": "zero", "answers": [{"words": "x", "cron": "0 9 * * *"}]}
    records.append(tmp_path / "runs.jsonl", old)
    records.append(tmp_path / "desks.jsonl", {"task": "desks", "kind": "before", "method": "three"})
    (row,), (desk,) = (smollm2.load_runs(folder=tmp_path, task=TASKS[name])
                       for name in ("cron", "desks"))
    assert row["task"] == "cron" and row["answers"][0]["answer"] == "0 9 * * *"
    for task, found in ((TASKS["cron"], row), (TASKS["desks"], desk)):
        left = [job for job in smollm2.planned(task=task) if not smollm2.is_done(job, [found])]
        assert len(left) == len(smollm2.planned()) - 1
    assert smollm2.load_runs("before", tmp_path, TASKS["orders"]) == []


def test_full_fine_tuning_has_the_models_own_gradients():
    inputs = np.random.default_rng(1).integers(0, 40, (2, 7))
    inputs[:, 1:3] = inputs[:, :1]  # a token that occurs again
    targets = np.where(np.arange(7) > 3, inputs, smollm2.IGNORE)
    found = []
    for own in (True, False):
        model = small()
        if own:
            model.lm_head = smollm2.ScoredHead(model.lm_head.weight)
            model.embed_tokens = smollm2.RowEmbedding(model.embed_tokens.weight)
            smollm2.scored(model, (inputs, targets))
        model.set_trainable()
        loss, grad = training.cross_entropy(model.forward(inputs), targets)
        model.backward(grad)
        found.append((loss, model.gradients()))
    (loss, ours), (expected, theirs) = found
    assert loss == pytest.approx(expected, rel=1e-6) and ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert np.allclose(ours[name], gradient, rtol=1e-4, atol=1e-7), name


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even():
    x = np.array([1.0, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -1 - 2 ** -9, 0.0],
                 np.float32)
    assert smollm2_update.bfloat16(x).tolist() == [1.0, 1.0, 1 + 2 ** -6, 1 + 2 ** -7, -1.0, 0.0]
    assert x[1] == np.float32(1 + 2 ** -8)  # the array given stays as it was


@pytest.mark.parametrize("way", ["lora", "full"])
def test_an_update_is_described(way, monkeypatch):
    monkeypatch.setattr(smollm2_update, "CUTS", (1, 2, 16))
    monkeypatch.setattr(smollm2_update, "SHOWN", "model.layers.1.mlp.up_proj")
    model, rng = small(), np.random.default_rng(2)
    if way == "lora":
        plug_lora(*PROJECTIONS)(model, 2, rng)
        for array in model.parameters().values():
            array[...] = rng.standard_normal(array.shape)
    else:  # of rank 2, too
        for name, module in model.modules().items():
            if name.endswith(PROJECTIONS):
                out, width = module.weight.shape
                thin = rng.standard_normal((out, 2)), rng.standard_normal((2, width))
                module.weight = module.weight + np.matmul(*thin).astype(np.float32)
    ids = rng.integers(0, 40, (1, 5))
    trained = model.forward(ids)
    distance = iter(range(100))
    logits = []

    def loss():
        logits.append(model.forward(ids))
        return float(next(distance))

    found = smollm2_update.describe(model, small(), loss, lambda: 7)
    assert found["cut_loss"] == [0.0, 1.0, 2.0] and len(found["singular_values"]) == 16
    assert found["share"][0] < 0.999 and found["share"][1:] == pytest.approx([1, 1], abs=1e-5)
    assert not np.allclose(logits[0], trained, atol=1e-2)
    assert np.allclose(logits[1], trained, atol=1e-3) and np.allclose(logits[2], trained, atol=1e-3)
    assert np.abs(logits[3] - trained).mean() < np.abs(logits[4] - trained).mean()  # beside, merged
    assert found["merged"] == {"validation": 4.0, "exact": 7} and found["entry"] > found["weight"]
    assert 0 <= found["bfloat16"]["unchanged"] < 0.1
    assert 0 < found["float16"]["error"] < found["bfloat16"]["error"] / 4 < 0.0025
