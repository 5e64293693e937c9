"""Do the claims of section 9.7 hold for seeds that had no part in them?

    python -m experiments.replicate                          all claims, resumed where it stopped
    python -m experiments.replicate --claims a_prefix_beats_a_prompt

Every run that a claim rests on is made again at the recorded rate with five other seeds, and
appended to replicated.jsonl at once. Then the claim is asked of these runs alone, and whether it
held goes to replicated.json. A claim whose runs are not complete is not in that file.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # before NumPy loads: two processes of one thread beat one of two
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from experiments import claims, small_llama
from experiments.records import (
    end_with_parent,
    read_lines,
    run_claimed,
    runner,
    wait_for_others,
    write_record,
)

SEEDS = (5, 6, 7, 8, 9)
RUNS, HELD = "replicated.jsonl", "replicated.json"


def replica(rows: list[dict]) -> claims.Record:
    """A record of the other seeds, at the rates that the sweeps of section 9.7 have chosen."""
    return claims.Record(rows, SEEDS, sweeps=small_llama.load_runs())


def unfinished(claim: Callable, rows: list[dict]) -> list[dict]:
    """The runs that a claim still needs beside `rows`, seed by seed."""
    asked, others = claims.recorded(), replica(rows)
    asked.asked.clear()
    claim(asked)
    jobs = [job for setting in asked.asked for job in others.jobs(*setting)]
    done = {small_llama.same(row) for row in rows}
    todo = {small_llama.same(job): job for job in jobs if small_llama.same(job) not in done}
    return sorted(todo.values(), key=lambda job: job["seed"])


def again(job: dict) -> dict:
    """One run as it is recorded here: no curve, and of spectra only what claims ask."""
    row = small_llama.run(job | ({"kind": "report"} if job["method"] == "full" else {}))
    if spectra := row.pop("spectra", None):
        row |= claims.brief(spectra)
    return {key: value for key, value in row.items() if key != "curve"} | {"kind": job["kind"]}


def verdict(claim: Callable, record: claims.Record) -> dict:
    """Whether a claim holds, and its sentence; or what it found instead."""
    try:
        return {"claim": claim.__name__, "holds": True, "found": claim(record)}
    except claims.ClaimFails as error:
        return {"claim": claim.__name__, "holds": False, "found": str(error)}


def load(folder: Path = small_llama.RESULTS) -> dict[str, dict]:
    """Verdicts by the name of the claim; none before the first run."""
    path = folder / HELD
    return ({row["claim"]: row for row in json.loads(path.read_text())["claims"]}
            if path.exists() else {})


def write(folder: Path) -> None:
    """Ask every claim whose runs are complete, and write replicated.json."""
    rows = read_lines(folder / RUNS)
    record, found = replica(rows), []
    for claim in claims.CLAIMS:
        try:
            if not unfinished(claim, rows):  # else a claim may fall before it has asked for all
                found.append(verdict(claim, record))
        except (claims.NotRecorded, claims.ClaimFails):  # of the first seeds: no claim yet
            continue
    write_record(folder / HELD, {"seeds": SEEDS, "claims": found})
    held = sum(row["holds"] for row in found)
    print(f"{held} of {len(found)} replicated claims held; {len(claims.CLAIMS) - len(found)} of "
          f"{len(claims.CLAIMS)} are not replicated yet")


def table() -> list[list[str]]:
    """For the page: each claim, whether it held for the other seeds, and what they say."""
    found, rows = load(), []
    for claim in claims.CLAIMS:
        row = found.get(claim.__name__)
        word = "not yet run" if row is None else "held" if row["holds"] else "fell"
        told = (claim.__doc__ or "").splitlines()[0]
        rows.append([told, word, row["found"] if row else "–"])
    return [[text.replace("*", "") for text in row] for row in rows]  # a table takes no marks


def sentence() -> str:
    """For the page: how many claims were asked of other seeds, and how many held."""
    words = [word for _, word, _ in table()]
    ran = len(words) - words.count("not yet run")
    return (f"Of the {len(words)} claims, {ran} have been asked of seeds {SEEDS[0]} to "
            f"{SEEDS[-1]}. Of these, {words.count('held')} held and {words.count('fell')} fell. "
            f"For {len(claims.REWORDED)} of them that is no independent test: a first version had "
            "fallen with these seeds, and what stands here was written after that.")


def main() -> None:
    from multiprocessing import get_context

    from tqdm import tqdm
    names = [claim.__name__ for claim in claims.CLAIMS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claims", nargs="+", choices=names, default=names)
    parser.add_argument("--output", type=Path, default=small_llama.RESULTS)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    log = args.output / RUNS
    work = partial(run_claimed, path=log, key=small_llama.same, run=again)
    with runner(log), get_context("spawn").Pool(args.workers, end_with_parent) as pool:
        for claim in claims.CLAIMS:
            if claim.__name__ not in args.claims:
                continue
            try:
                while todo := unfinished(claim, read_lines(log)):
                    ours = [row for row in tqdm(
                        pool.imap_unordered(work, todo), total=len(todo), mininterval=1,
                        desc=claim.__name__, file=sys.stdout) if row]
                    if not ours:
                        wait_for_others(len(todo))
            except (claims.NotRecorded, claims.ClaimFails) as reason:
                print(f"{claim.__name__} does not hold for its first seeds: {reason}")
                continue
            write(args.output)


if __name__ == "__main__":
    main()
