"""Three tasks for the speaking model: a skill, a format with exact fields, a label (tasks.py).

    python -m experiments.smollm2 run      every run that is not recorded yet, one after the other
    python -m experiments.smollm2 table    print what is recorded, and what is not yet

A filter for a part: `run --tasks cron --methods zero lora-all --sizes 8 --rates 1e-3 --seeds 0`.
Two runners of one folder, each on a core of its own, share the runs.

Question: does LoRA teach a model of 135 million parameters something that it cannot do, on 450
examples and two processor cores; and is it the skill that it learns, or only the form of an answer?

1. Before: the base model with the question alone ("zero"), and with three examples in its prompt,
   as a text to continue ("three") or as a question to the assistant ("three-chat").
2. After: each method at its learning rates with seed 0, 120 steps of 8. The rate that counts is the
   one with the lowest loss on 50 rows that are neither trained nor tested on; it is run with the
   other seeds, too. Rates are swept at a method's first size, and its other sizes take the rate
   chosen there. What training does to the weights: experiments/smollm2_update.py.

Measured on 100 rows of each task: exact (right, as the task judges it), form (an answer of the
kind at all), and, as a control, choice: is the right answer likelier than a wrong one of the same
form? A model that could choose before has learned a format. (With examples in the prompt the choice
is left out: it would take longer than all else.) Then "general": loss on the base model's own
answers to 20 everyday questions, before and after. Every run is appended at once, with 20 of its
answers, to its task's record: runs.jsonl is cron's.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before NumPy loads; time is recorded for one thread
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np

from experiments.records import read_lines, run_claimed, runner, wait_for_others, write_record
from experiments.small_llama import METHODS, cost
from experiments.tasks import CRON, TASKS, TEST, Row, Task, wrong_answers
from llama import Embedding, Linear, Llama
from names import IGNORE, batch_rows
from real_models import smollm2
from training import Event, ProgressBar, cross_entropy, fit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RESULTS = Path(__file__).resolve().parents[1] / "data" / "experiments" / "smollm2"
SEEDS = (0, 1, 2)  # the first one sweeps the rates
STEPS, BATCH, WARMUP = 120, 8, 10
HELD_BACK = 50  # of the training rows, for choosing the rate
BEFORE = ("zero", "three", "three-chat")
RUNS = {  # methods of small_llama.METHODS: sizes, the first of which sweeps; rates
    "lora-all": ((8, 1, 32), (1e-3, 3e-3, 3e-4, 1e-2)),
    "full": ((0,), (1e-4, 3e-5, 3e-4)),
    "lora-qv": ((8, 1, 32), (1e-3, 3e-3, 3e-4, 1e-2)),
    "pfeiffer": ((64,), (3e-3, 1e-3, 1e-2)),  # about as many numbers as LoRA of rank 8 everywhere
    "prefix": ((10,), (3e-2, 1e-2, 1e-1)),
    "prompt": ((20,), (1e-2, 3e-3, 3e-2)),
}
QUESTIONS = (
    "Name three rivers in Europe.", "What is the capital of Japan?", "Why is the sky blue?",
    "How do I boil an egg?", "Write a short poem about rain.", "What does a librarian do?",
    "Explain photosynthesis to a child.", "Give me three tips for better sleep.",
    "What is the difference between a lake and a sea?", "How many legs does a spider have?",
    "Suggest a name for a small bakery.", "What is gravity?", "Who wrote Hamlet?",
    "List four kinds of fruit.", "How can I learn to play the guitar?", "What causes thunder?",
    "Write one sentence about friendship.", "What is a good present for a gardener?",
    "Translate 'good morning' into French.", "What should I pack for a day at the beach?")


# ------------------------------------------------------------------------------------- the texts


def make_batch(pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of (prompt, answer) ids, filled up to the longest; only answers count.

    Returns
    -------
    inputs, targets : (batch, time) int64; time = longest prompt and answer, less one
    """
    length = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
    inputs = np.full((len(pairs), length), smollm2.STOP)
    targets = np.full((len(pairs), length), IGNORE)
    for row, (prompt, answer) in enumerate(pairs):
        ids = prompt + answer
        inputs[row, :len(ids) - 1] = ids[:-1]
        targets[row, len(prompt) - 1:len(ids) - 1] = answer
    return inputs, targets


def encode(tokenizer: "Tokenizer", rows: Iterable[Row], task: Task = CRON
           ) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) ids of a task's rows; the answer ends with `<|im_end|>`."""
    return [(smollm2.token_ids(tokenizer, task.prompt(row.words)),
             [*smollm2.token_ids(tokenizer, " " + row.answer), smollm2.STOP]) for row in rows]


# ---------------------------------------------------------------------------- model and training


class ScoredHead(Linear):
    """The output layer, at the rows that count: 49,152 products for each of the others are saved.

    The other rows' logits stay zero, and so do the gradients that they send back.
    """

    rows: Any = np.s_[:]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.cache = (x[self.rows],)
        out = np.zeros((len(x), len(self.weight)), x.dtype)  # memory is taken where it is written
        out[self.rows] = x[self.rows] @ self.weight.T  # (n, vocab)
        return out

    def backward(self, g: np.ndarray) -> np.ndarray:
        if self.trainable:
            self.weight_grad = g[self.rows].T @ self.cache[0]  # (vocab, d)
        gx = np.zeros((len(g), self.weight.shape[1]), g.dtype)
        gx[self.rows] = g[self.rows] @ self.weight  # (n, d)
        return gx


class RowEmbedding(Embedding):
    """Its gradient without a one-hot matrix, which would take 9.7 GB on the way."""

    def backward(self, g: np.ndarray) -> None:
        if self.trainable:
            self.weight_grad = np.zeros_like(self.weight)
            np.add.at(self.weight_grad, self.cache[0].ravel(), g.reshape(-1, g.shape[-1]))


def batches(model: Llama, pairs: list, rng: np.random.Generator
            ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches, in the order of `batch_rows`; tells the output layer which rows count."""
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in pairs])
    for rows in batch_rows(lengths, BATCH, rng):
        yield scored(model, make_batch([pairs[i] for i in rows]))


def scored(model: Llama, batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    model.lm_head.rows = np.flatnonzero(batch[1] != IGNORE)
    return batch


def losses(model: Llama, pairs: list) -> np.ndarray:
    """Sum over the answer's tokens of each pair's loss, in nats: (len(pairs),)."""
    found = np.empty(len(pairs))
    ordered = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    for start in range(0, len(ordered), BATCH):
        rows = ordered[start:start + BATCH]
        inputs, targets = scored(model, make_batch([pairs[i] for i in rows]))
        logits = model.forward(inputs)  # (B, T, vocab)
        for i, row, target in zip(rows, logits, targets):
            found[i] = cross_entropy(row, target)[0] * (target != IGNORE).sum()
    model.lm_head.rows = np.s_[:]
    return found


def mean_loss(model: Llama, pairs: list) -> float:
    """Nats per token of the answers."""
    return float(losses(model, pairs).sum() / sum(len(answer) for _, answer in pairs))


# --------------------------------------------------------------------------------------- measuring


def ask(model: Llama, tokenizer: "Tokenizer", texts: Sequence[str], tokens: int = 32) -> list[str]:
    """The likeliest continuation of each text, its first line; those of equal length together."""
    ids = [smollm2.token_ids(tokenizer, text) for text in texts]
    said = [""] * len(texts)
    for length in sorted(set(map(len, ids))):
        rows = [i for i, row in enumerate(ids) if len(row) == length]
        for start in range(0, len(rows), BATCH):
            part = rows[start:start + BATCH]
            new = model.generate(np.array([ids[i] for i in part]), tokens, temperature=0,
                                 stop=smollm2.STOP)
            for i, row in zip(part, new.tolist()):
                end = row.index(smollm2.STOP) if smollm2.STOP in row else len(row)
                said[i] = smollm2.text_of(tokenizer, row[:end]).strip().partition("\n")[0]
    return said


def everyday(folder: Path, output: Path) -> list[list[list[int]]]:
    """The base model's own answers to `QUESTIONS`, 30 tokens of each: what it could say before.

    Pairs of (prompt, answer) ids, said once and kept in `output`/everyday.json.
    """
    file = output / "everyday.json"
    if not file.exists():
        base, tokenizer = smollm2.load(folder)
        asked = [smollm2.token_ids(tokenizer, smollm2.chat(question)) for question in QUESTIONS]
        said = [list(smollm2.stream(base, ids, 30)) for ids in asked]
        write_record(file, [{"question": q, "answer": smollm2.text_of(tokenizer, a), "ids": [i, a]}
                            for q, i, a in zip(QUESTIONS, asked, said)])
    return [row["ids"] for row in json.loads(file.read_text(encoding="utf-8"))]


def measure(model: Llama, tokenizer: "Tokenizer", way: str, general: list, task: Task = CRON
            ) -> dict[str, Any]:
    """What the module's docstring names, for each group of rows, and 20 answers.

    "parts" counts for each group how often each field of an answer is right, if it has fields.
    """
    found: dict[str, Any] = {"exact": {}, "form": {}}
    if way == "zero":
        found["choice"] = {}
    shown: list[dict] = []
    for group in TEST:
        rows = task.rows(group)
        said = ask(model, tokenizer, [task.prompts(row.words)[way] for row in rows], task.tokens)
        right = [task.right(text, row.answer) for text, row in zip(said, rows)]
        found["exact"][group] = sum(right)
        found["form"][group] = sum(map(task.form, said))
        parts = [task.parts(text, row.answer) for text, row in zip(said, rows)]
        if any(parts):
            found.setdefault("parts", {})[group] = {
                name: sum(part[name] for part in parts) for name in parts[0]}
        if way == "zero":
            false = [row._replace(answer=text) for row, text in zip(rows, wrong_answers(rows))]
            own, other = (losses(model, encode(tokenizer, some, task)) for some in (rows, false))
            found["choice"][group] = int((own < other).sum())
        shown += [{"group": group, "words": row.words, "answer": row.answer, "said": text[:160],
                   "right": ok} for row, text, ok in list(zip(rows, said, right))[
                       :{"test": 10}.get(group, 5)]]
    return found | {"general": mean_loss(model, general), "answers": shown}


def make_model(folder: Path, method: str = "") -> "tuple[Llama, Tokenizer]":
    """The base model, ready to be trained; full fine-tuning is told to need more memory."""
    model, tokenizer = smollm2.load(folder)
    smollm2.check_memory("training", 3_500_000_000 if method == "full" else 1_300_000_000)
    model.lm_head = ScoredHead(model.lm_head.weight)
    model.embed_tokens = RowEmbedding(model.embed_tokens.weight)
    return model, tokenizer


def teach(job: dict[str, Any], folder: Path = smollm2.FOLDER,
          prepare: Callable[[Llama], Any] = lambda model: None
          ) -> "tuple[Llama, Tokenizer, dict[str, Any]]":
    """One training, as `planned` names it, of cron if it names no task: the model, its tokenizer,
    what training cost.

    `prepare` changes the base model first, say to weights of four bits. FloatingPointError if
    training diverges: the rate is too high.
    """
    model, tokenizer = make_model(folder, job["method"])
    prepare(model)
    METHODS[job["method"]][0](model, job["size"], np.random.default_rng([job["seed"], 1]))
    task = TASKS[job.get("task", CRON.name)]
    pairs = encode(tokenizer, task.rows("train"), task)
    train, validation = pairs[HELD_BACK:], pairs[:HELD_BACK]
    curve: list[float] = []

    def note(event: Event) -> None:
        if event.loss is not None:
            curve.append(event.loss)

    start = time.process_time()  # of this process alone: a busy machine doesn't count
    optimizer = fit(model, batches(model, train, np.random.default_rng([job["seed"], 0])),
                    steps=job["steps"], lr=job["lr"], warmup=WARMUP, callbacks=[
                        note, ProgressBar(f"{job['method']} {job['lr']:g}")])
    seconds = time.process_time() - start
    return model, tokenizer, cost(model, optimizer.nbytes()) | {
        "cpu_seconds": seconds, "validation": mean_loss(model, validation),
        "curve": [float(np.mean(part)) for part in np.array_split(curve, job["steps"] // 10)]}


def run(job: dict[str, Any], folder: Path, output: Path) -> dict[str, Any]:
    """One row of a record: the base model asked in one way, or one training and its measures."""
    task, general = TASKS[job["task"]], everyday(folder, output)
    if job["kind"] == "before":
        model, tokenizer = make_model(folder)
        return job | measure(model, tokenizer, job["method"], general, task)
    try:
        model, tokenizer, found = teach(job, folder)
    except FloatingPointError as error:  # a rate that is too high is a finding
        return job | {"diverged": str(error)}
    return job | found | measure(model, tokenizer, "zero", general, task)


# ------------------------------------------------------------------------------------- all runs


def planned(rows: Sequence[dict[str, Any]] = (), task: Task = CRON) -> list[dict[str, Any]]:
    """All jobs of a task: every rate at a method's first size, then all else at the best of them.

    A method's other sizes and seeds are planned once its rates stand in `rows`, the task's own.
    """
    def after(method: str, size: int, lr: float, seed: int) -> dict[str, Any]:
        return {"task": task.name, "kind": "after", "method": method, "size": size, "lr": lr,
                "seed": seed, "steps": STEPS}

    jobs = [{"task": task.name, "kind": "before", "method": way} for way in BEFORE]
    jobs += [after(method, sizes[0], rates[place], SEEDS[0]) for place in range(4)
             for method, (sizes, rates) in RUNS.items() if place < len(rates)]
    return jobs + [after(method, size, lr, seed) for seed in SEEDS
                   for method, (sizes, _) in RUNS.items()
                   if (lr := chosen_rate(rows, method)) is not None
                   for size in sizes if (size, seed) != (sizes[0], SEEDS[0])]


def chosen_rate(rows: Iterable[dict[str, Any]], method: str) -> float | None:
    """The rate with the lowest loss on the rows held back; None if one was not run yet."""
    found = {row["lr"]: row.get("validation", np.inf) for row in rows if (
        row["kind"], row["method"], row.get("size"), row.get("seed")) == (
        "after", method, RUNS[method][0][0], SEEDS[0])}
    return min(found, key=found.__getitem__) if found.keys() >= {*RUNS[method][1]} else None


def is_done(job: dict, rows: Iterable[dict]) -> bool:
    return any(job.items() <= row.items() for row in rows)


def run_all(args: argparse.Namespace) -> None:
    """Whatever is planned and not recorded yet; interrupted, it goes on with the run it was in."""
    for name in args.tasks:
        run_task(TASKS[name], args)
    write_tables(args)


def run_task(task: Task, args: argparse.Namespace) -> None:
    """One task's runs. What another runner of this folder is at is left to it."""
    log, names = record(task, args.output), ("kind", "method", "size", "lr", "seed", "steps")
    wanted = {"method": args.methods, "size": args.sizes, "lr": args.rates, "seed": args.seeds}

    def unfinished() -> list[dict[str, Any]]:
        rows = load_runs(folder=args.output, task=task)
        return [job for job in planned(rows, task) if not is_done(job, rows) and all(
            options is None or key not in job or job[key] in options
            for key, options in wanted.items())]

    with runner(log):
        while todo := unfinished():
            for job in todo:
                print(", ".join(f"{key} {value}" for key, value in job.items()), flush=True)
                if ours := run_claimed(job, log, lambda row: tuple(map(row.get, names)),
                                       lambda job: run(job, args.folder, args.output)):
                    break  # what is planned may have grown
            if not ours:
                wait_for_others(len(todo))


def record(task: Task, folder: Path) -> Path:
    """Where a task's runs are kept."""
    return folder / ("runs.jsonl" if task == CRON else f"{task.name}.jsonl")


def load_runs(kind: str | None = None, folder: Path = RESULTS, task: Task = CRON
              ) -> list[dict[str, Any]]:
    """Recorded runs of a task, all or of one kind: "before" or "after"."""
    rows = read_lines(record(task, folder))
    for row in rows:  # the oldest are of a time when cron was the only task
        row.setdefault("task", CRON.name)
        for shown in row.get("answers", ()):
            shown.setdefault("answer", shown.get("cron"))
    return [row for row in rows if kind in (None, row["kind"])]


def write_tables(args: argparse.Namespace) -> None:
    for name in args.tasks:
        write_table(TASKS[name], args.output)


def write_table(task: Task, folder: Path) -> None:
    done = load_runs(folder=folder, task=task)
    for row in done:
        print(f"{row['task']:<8}{row['kind']:<8}{row['method']:<12}", end="")
        if "lr" in row:
            print(f"{row['size']:<3} lr {row['lr']:<8g}seed {row['seed']}", end="")
        if "diverged" in row:
            print(" diverged", end="")
        if "validation" in row:
            print(f" validation {row['validation']:.4f}", end="")
        if "cpu_seconds" in row:
            print(f"  {row['cpu_seconds']:.0f} s", end="")
        for key in ("exact", "form", "choice"):
            if key in row:
                print(f"  {key} " + " ".join(f"{row[key][group]}" for group in TEST), end="")
        print(f"  general {row['general']:.3f}" if "general" in row else "")
    jobs = planned(done, task)
    print(f"{sum(is_done(job, done) for job in jobs)} of {len(jobs)} runs of {task.name} are "
          "recorded; counts are of "
          + ", ".join(f"{len(task.rows(group))} {group}" for group in TEST))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--tasks", nargs="+", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--methods", nargs="+", default=[*BEFORE, *RUNS], choices=[*BEFORE, *RUNS])
    parser.add_argument("--sizes", nargs="+", type=int, help="ranks, widths, lengths; all")
    parser.add_argument("--rates", nargs="+", type=float, help="of learning; all that are planned")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, default=smollm2.FOLDER, help="where the model lies")
    args = parser.parse_args()
    try:
        {"run": run_all, "table": write_tables}[args.command](args)
    except (smollm2.HubError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
