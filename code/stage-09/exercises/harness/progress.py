"""Which exercises are done: a small file on the reader's own machine, never sent anywhere."""

import json
import os
import sys
from datetime import date
from pathlib import Path

from exercises.harness.report import Report

EXERCISES = 6


def progress_file() -> Path | None:
    """Where the file is; None if PEFT_BOOK_PROGRESS is "off". It may also name another file."""
    chosen = os.environ.get("PEFT_BOOK_PROGRESS", "")
    if chosen:
        return None if chosen == "off" else Path(chosen)
    name = "peft-book-progress.json"
    if sys.platform == "emscripten":  # in the browser: what the notebook's drive holds is kept
        return Path("/drive", name) if Path("/drive").is_dir() else Path(name)
    home = {"win32": Path(os.environ.get("APPDATA", Path.home())),
            "darwin": Path.home() / "Library" / "Application Support"}
    default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home.get(sys.platform, default) / name


def _read() -> dict[str, str]:
    """Day of the pass by number of the exercise; a file that can't be read counts as empty."""
    path = progress_file()
    try:
        done = json.loads(path.read_text("utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return done if isinstance(done, dict) else {}


def remember(report: Report) -> Report:
    """Note a pass of all steps in the file, and hand the report on, so that a cell shows it."""
    path = progress_file()
    if report.passed and report.step is None and path:
        done = _read()
        if str(report.exercise) not in done:
            done[str(report.exercise)] = date.today().isoformat()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n", "utf-8")
            except OSError as error:  # a read-only home: the pass is still a pass
                print(f"The pass could not be noted in {path}: {error}", file=sys.stderr)
    return report


class Progress:
    """What has been passed on this machine, to be shown; `done` maps exercise to day."""

    def __init__(self, done: dict[str, str], path: Path | None):
        self.done, self.path = done, path

    def __repr__(self) -> str:
        days = {number: self.done.get(str(number)) for number in range(1, EXERCISES + 1)}
        lines = [f"{number}  {f'done {day}' if day else '-'}" for number, day in days.items()]
        where = (f"Noted in {self.path}, on this machine only. clear_progress() deletes it."
                 if self.path else "Noting is switched off (PEFT_BOOK_PROGRESS).")
        return "\n".join(["Exercises done", *lines, where])


def progress() -> Progress:
    """What was passed on this machine, and the file that says so: copy it to export it."""
    return Progress(_read(), progress_file())


def clear_progress() -> None:
    """Delete the file."""
    if path := progress_file():
        path.unlink(missing_ok=True)
