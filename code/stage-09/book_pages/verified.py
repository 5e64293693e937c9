"""What `make matrix` found, row by row, and as the tables of the page "Last verified".

A row is one environment: a Python and a set of packages (`pinned`, `lowest`, `newest`), or the
Python of the browser. It holds the day, versions, tests, notebooks and what probe.py computed.
"""

import json
from pathlib import Path
from typing import Any

from tensorfile import write_whole

RECORD = Path(__file__).parents[1] / "data" / "verified.json"
SETS = ("pinned", "lowest", "newest", "browser")
#: What the results are compared with: what the book itself was made with.
BASE = ("3.11", "pinned")
#: Largest relative difference to the base that counts as rounding: ten times what the kernels of
#: different processors gave.
TOLERANCE = 2e-5
SUMMARY = ["Python", "packages", "day", "unit tests", "notebooks", "largest difference"]


def key(row: dict[str, Any]) -> tuple[str, str]:
    """Python without the last number, and set: what a row is found by."""
    return ".".join(row["python"].split(".")[:2]), row["set"]


def load() -> list[dict[str, Any]]:
    """All rows, in the order of sets and Pythons; none before the first run."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []


def keep(row: dict[str, Any]) -> None:
    """Write a row in place of the one for the same environment."""
    rows = [old for old in load() if key(old) != key(row)] + [row]
    rows.sort(key=lambda row: (SETS.index(row["set"]), key(row)[0].zfill(5)))
    write_whole(RECORD, json.dumps(rows, indent=1) + "\n")


def differences(row: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Relative difference of each result to the base's.

    Raises
    ------
    ValueError
        The rows do not hold the same results: tools/probe.py has changed in between.
    """
    ours, theirs = row["results"], base["results"]
    if ours.keys() != theirs.keys():
        raise ValueError(f"{sorted(ours.keys() ^ theirs.keys())}: in only one of the two runs; "
                         'run make matrix PYTHONS=python3.11 SETS=pinned, then the others')
    return {name: abs(ours[name] - value) / abs(value) for name, value in theirs.items()}


def faults(row: dict[str, Any]) -> list[str]:
    """What is wrong with a row, one line each; the reasons why `make matrix` fails."""
    found = [f"{test} failed" for test in row.get("tests", {}).get("failed", [])]
    notebooks = row.get("notebooks", {"failed": {}, "differing": {}})
    found += [f"{name} raised in {', '.join(cells)}" for name, cells in notebooks["failed"].items()]
    if row["set"] == "pinned":
        found += [f"{name} gives another output in {', '.join(cells)}"
                  for name, cells in notebooks["differing"].items()]
    base = next((old for old in load() if key(old) == BASE), row)
    return found + [f"{name}: relative difference {value:.1g}"
                    for name, value in differences(row, base).items() if not value <= TOLERANCE]


# ------------------------------------------------------------------------------------ the page


def summary_rows() -> list[list[str]]:
    """One line for each environment."""
    rows = load()
    base = next((row for row in rows if key(row) == BASE), None)
    table = []
    for row in rows:
        line = [row["python"], row["set"], row["date"]]
        tests, notebooks = "–", "–"
        if "tests" in row:
            found = row["tests"]
            tests = f"{found['passed']:,} passed, {found['skipped']} skipped"
            tests += f", {len(found['failed'])} failed" if found["failed"] else ""
        if "notebooks" in row:
            found = row["notebooks"]
            notebooks = f"{found['run'] - len(found['failed'])} of {found['run']} ran"
            changed = sum(map(len, found["differing"].values()))
            notebooks += f", {changed} outputs differ" if changed else ""
        try:
            largest = "–" if row is base else _short(max(differences(row, base or row).values()))
        except ValueError:  # an older row, from before tools/probe.py changed
            largest = "not comparable"
        table.append([*line, tests, notebooks, largest])
    return table


def version_rows() -> list[list[str]]:
    """Version of each package in each set; with the Pythons, where they got different ones."""
    rows = load()
    table = []
    for package in next(row for row in rows if key(row) == BASE)["versions"]:
        line = [package]
        for kind in SETS:
            pythons: dict[str, list[str]] = {}
            for row in rows:
                if row["set"] == kind and package in row["versions"]:
                    pythons.setdefault(row["versions"][package], []).append(key(row)[0])
            line.append(next(iter(pythons), "–") if len(pythons) < 2 else
                        "; ".join(f"{version} on {', '.join(on)}" for version, on in
                                  pythons.items()))
        table.append(line)
    return table


def difference_rows() -> list[list[str]]:
    """Each result: its value, and the largest relative difference to it in each set."""
    rows = load()
    base = next(row for row in rows if key(row) == BASE)
    found = {kind: [differences(row, base) for row in rows if row["set"] == kind]
             for kind in SETS}
    return [[name, f"{value:.6g}", *(_short(max(one[name] for one in found[kind]))
                                     if found[kind] else "–" for kind in SETS)]
            for name, value in base["results"].items()]


def here_rows(results: dict[str, float]) -> list[list[str]]:
    """Each result as recorded, as computed just now, and their relative difference."""
    base = next(row for row in load() if key(row) == BASE)
    found = differences({"results": results}, base)
    return [[name, f"{value:.6g}", f"{results[name]:.6g}", _short(found[name])]
            for name, value in base["results"].items()]


def _short(difference: float) -> str:
    return f"{difference:.0e}".replace("e-0", "e-") if difference else "none"


def output_rows() -> list[list[str]]:
    """Each notebook that prints something else in some environment: where, and how many cells."""
    where: dict[str, list[str]] = {}
    for row in load():
        for name, cells in row.get("notebooks", {}).get("differing", {}).items():
            where.setdefault(name, []).append(f"{key(row)[0]} {row['set']}: {len(cells)}")
    return [[name, "; ".join(found)] for name, found in sorted(where.items())] or [["none", ""]]
