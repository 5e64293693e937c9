"""What `make matrix` recorded belongs to this repository: its pins, its promises, its numbers."""

import json
import sys

import matrix
import probe
import pytest
from conftest import ROOT

from book_pages import verified

RUN = "make matrix records it anew"
ROWS = verified.load()


def number(version):
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def test_each_requirement_has_a_lowest_version_not_above_its_pin():
    found, lows = matrix.pins(), matrix.lows()
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert len(found) == sum(bool(line) and not line.startswith("#") for line in lines)
    for package, pin in found.items():
        assert lows[package], f"{package}: no lowest version, `# at least` is missing"
        assert number(lows[package]) <= number(pin), package


def test_the_record_is_whole_and_without_a_fault():
    found = {verified.key(row) for row in verified.load()}
    wanted = {(python.removeprefix("python"), kind) for python in matrix.PYTHONS
              for kind in verified.SETS[:3]}
    assert not found & matrix.NOT_YET_RUN, "it has run"
    assert found >= wanted - matrix.NOT_YET_RUN
    assert sum(row["set"] == "browser" for row in verified.load()) == 1
    assert [fault for row in verified.load() for fault in verified.faults(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(verified.key(row)))
def test_the_versions_tested_are_those_that_the_requirements_name(row):
    named = {"pinned": matrix.pins, "browser": matrix.browser_versions}
    if row["set"] in named:
        assert row["versions"] == named[row["set"]](), RUN
        return
    assert row["versions"].keys() == matrix.pins().keys(), RUN
    if row["set"] == "lowest":
        above = {package: version for package, version in row["versions"].items()
                 if version != matrix.lows()[package]}
        assert all(number(version) > number(matrix.lows()[package])
                   for package, version in above.items()), RUN
        # A newer Python may lack the oldest builds; the oldest Python has all of them.
        assert not above or verified.key(row)[0] != verified.BASE[0], (above, RUN)


def test_numbers_here_are_the_recorded_ones():
    base = next(row for row in ROWS if verified.key(row) == verified.BASE)
    found = verified.differences({"results": probe.results()}, base)
    assert max(found.values()) <= verified.TOLERANCE, found


@pytest.mark.parametrize(("change", "fault"), [
    ({}, ""),
    ({"tests": {"failed": ["test_peft::test_a"]}}, "test_peft::test_a failed"),
    ({"notebooks": {"failed": {"book/02": ["Cell 1"]}, "differing": {}}},
     "book/02 raised in Cell 1"),
    ({"notebooks": {"failed": {}, "differing": {"book/02": ["Cell 1"]}}},
     "book/02 gives another output in Cell 1"),
    ({"set": "lowest", "notebooks": {"failed": {}, "differing": {"book/02": ["Cell 1"]}}}, ""),
    ({"results": {"loss": 2.001}}, "loss: relative difference 0.0005"),
    ({"results": {"loss": float("nan")}}, "loss: relative difference nan"),
    ({"results": {"loss": 2.00001}}, ""),
])
def test_a_fault_is_named(monkeypatch, tmp_path, change, fault):
    base = {"python": "3.11.9", "set": "pinned", "results": {"loss": 2.0}}
    record = tmp_path / "verified.json"
    record.write_text(json.dumps([base]))
    monkeypatch.setattr(verified, "RECORD", record)
    assert verified.faults(base | {"python": "3.11.7"} | change) == ([fault] if fault else [])


def test_a_row_takes_the_place_of_the_one_before(monkeypatch, tmp_path):
    monkeypatch.setattr(verified, "RECORD", tmp_path / "verified.json")
    rows = [{"python": "3.12.1", "set": "newest"}, {"python": "3.9.1", "set": "pinned"},
            {"python": "3.12.2", "set": "newest"}, {"python": "3.12.1", "set": "pinned"}]
    for row in rows:
        verified.keep(row)
    assert verified.load() == [rows[1], rows[3], rows[2]]


def test_installations_differ_in_what_they_should():
    (pinned, limits), (lowest, free), (newest, none) = map(matrix.installation,
                                                           ("pinned", "lowest", "newest"))
    assert f"numpy=={matrix.pins()['numpy']}" in pinned
    assert f"numpy>={matrix.lows()['numpy']}" in lowest
    assert "numpy" in newest and none == free == []
    assert len(limits) > 100


def test_rows_of_an_older_probe_do_not_stop_the_page(monkeypatch, tmp_path):
    record = tmp_path / "verified.json"
    monkeypatch.setattr(verified, "RECORD", record)
    assert verified.summary_rows() == []
    rows = [{"python": "3.11.9", "set": "pinned", "date": "today", "results": {"loss": 2.0}},
            {"python": "3.12.1", "set": "pinned", "date": "today", "results": {"loss": 2.0002}},
            {"python": "3.13.0", "set": "pinned", "date": "before", "results": {"gone": 1.0}}]
    record.write_text(json.dumps(rows))
    assert [line[-1] for line in verified.summary_rows()] == ["–", "1e-4", "not comparable"]


def test_a_name_that_starts_no_python_is_told_apart(tmp_path):
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert matrix.starts(sys.executable)
    assert not matrix.starts(str(shim)) and not matrix.starts("python3.0")
