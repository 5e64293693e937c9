"""The puzzle of the page "Find the fault": a recorded run, and eleven things that it could be."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets

from book_pages import clues
from book_pages.figures import COLORS
from book_pages.widgets import explorer
from experiments import faults

DIGITS = 3  # of what is drawn
EVERY = 2  # steps from one point of a norm to the next

_STYLE = """
.peft-widget .pw-panels { display: grid; gap: 0.9rem 1.75rem; margin-top: 1rem; }
.peft-widget .pw-panels figcaption { margin: 0; color: var(--ink); font-size: 0.875rem;
  font-weight: 600; }
.peft-widget .pw-panel { min-width: 0; }
.peft-widget .pw-second { stroke: var(--ink); stroke-width: 1.75; stroke-dasharray: 5 3; }
.peft-widget .pw-beside { stroke: var(--soft); stroke-width: 1.25;
  stroke-dasharray: 7 2.5 1.5 2.5; }
.peft-widget .pw-panels + .pw-box { margin-top: 0.8rem; }
.peft-widget .pw-names-title { margin-top: 1rem; }
.peft-widget .pw-suspects { margin-top: 1.1rem; min-width: 0; }
.peft-widget .pw-suspects > div { display: grid; gap: 0.15rem 1.5rem; margin: 0.4rem 0 0.7rem; }
.peft-widget .pw-suspects .pw-box input { border-radius: 50%; }
.peft-widget .pw-reply { margin-top: 0.8rem; min-height: 3rem; }
.peft-widget .pw-reply p + p { margin-top: 0.4rem; }
.peft-widget .pw-reply a { color: var(--focus); }
@container (max-width: 26rem) {
  .peft-widget table.pw-numbers :is(th, td) { padding-left: 0.2rem; font-size: 0.625rem;
    white-space: normal; overflow-wrap: anywhere; }
}
@container (min-width: 34rem) {
  .peft-widget :is(.pw-panels, .pw-suspects > div) { grid-template-columns: 1fr 1fr; }
}
"""


class FaultFinder(explorer.Widget):
    """Recorded runs, each with the question which fault it has; answers to all choices are ready.

    Parameters
    ----------
    records : sequence of dict
        As `faults.record` makes them.
    sound : sequence of dict, optional
        Sound runs, one of each method, to lay beside; the recorded ones where left out.

    Attributes
    ----------
    case : int
        Which of the records is shown, from 0.

    Raises
    ------
    ValueError
        Without a record.
    """

    _esm = explorer.front_end("faults")
    _css = explorer.Widget._css + _STYLE

    case = traitlets.Int(0).tag(sync=True)
    # JSON texts: a stored notebook has each number of a list on a line of its own
    _cases = traitlets.Unicode().tag(sync=True)
    _sound = traitlets.Unicode().tag(sync=True)  # by method
    _faults = traitlets.Dict().tag(sync=True)
    _order = traitlets.List(list(clues.FAULTS)).tag(sync=True)
    _colors = traitlets.Dict().tag(sync=True)
    _every = traitlets.Dict({"look": faults.EVERY, "norm": EVERY}).tag(sync=True)

    def __init__(self, records: Sequence[dict[str, Any]],
                 sound: Sequence[dict[str, Any]] | None = None):
        if not records:
            raise ValueError("there must be a record to look at; faults.load_cases() has some")
        self.records = list(records)
        if sound is None:
            sound = [row for row in faults.load_cases() if row["fault"] == "none"]
        super().__init__(
            _cases=_packed([_shown(row) | {"answer": row["fault"], "name": "-".join(
                map(str, faults.key(row))), "replies": [clues.reply(row, fault) for fault in
                                                        clues.FAULTS]} for row in records]),
            _sound=_packed({row["method"]: _lines(row) for row in sound}),
            _faults={key: {"title": fault.title, "fix": fault.fix,
                           "anchor": clues.anchor(fault.heading)}
                     for key, fault in clues.FAULTS.items()},
            _colors={"LoRA": COLORS["lora"], **{name: COLORS[name] for name in (
                "adapters", "prefix", "prompt")}})

    @traitlets.validate("case")
    def _listed(self, proposal):
        if not 0 <= proposal["value"] < len(self.records):
            raise traitlets.TraitError(f"case is 0 to {len(self.records) - 1}, got "
                                       f"{proposal['value']}")
        return proposal["value"]

    def fallback(self):
        return ("The runs in numbers; losses in nats per character",
                ["case", "method", "first", "last", "file, fresh model", "trained", "saved"],
                [[str(number), setting(row), f"{row['held_out'][0]:.2f}",
                  f"{row['held_out'][-1]:.2f}", f"{row['served']:.2f}", f"{row['trained']:,}",
                  f"{row['saved']:,}"] for number, row in enumerate(self.records, 1)])


def setting(record: dict[str, Any]) -> str:
    """What the run was meant to be: "LoRA, rank 4"."""
    rank = record["rank"]
    return {"LoRA": f"LoRA, rank {rank}, alpha {2 * rank}", "adapters":
            f"adapters, bottleneck {rank}"}.get(
        record["method"], f"{record['method']}, length {faults.VIRTUAL}")


def _lines(record: dict[str, Any]) -> dict[str, Any]:
    def thin(groups):
        return {name: values[::EVERY] for name, values in groups.items()}

    return {name: record[name] for name in ("train", "held_out", "drift", "before")} | {
        name: thin(record[name]) for name in ("gradient", "step", "weight")}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """What a reader is shown of a record: nothing that names its fault."""
    facts = [["Saved file, scored in a fresh model", f"{record['served']:.3f} nats per character"],
             ["The run's own last held-out loss", f"{record['held_out'][-1]:.3f}"],
             ["Numbers trained", f"{record['trained']:,}"],
             ["Numbers in the saved file", f"{record['saved']:,}"]]
    if record["method"] == "LoRA":
        times = "none" if record["scaling"] is None else f"{record['scaling']:.3g} · BA"
        facts += [["What a layer adds at the end", times],
                  ["Typical entry of A at the start", f"{record['start_of_A']:.2g}"]]
    return _lines(record) | {"method": record["method"], "setting": setting(record),
                             "facts": facts, "names": record["names"]}


def _packed(value: Any) -> str:
    def short(item):
        if isinstance(item, dict):
            return {key: short(one) for key, one in item.items()}
        if isinstance(item, list):
            return [short(one) for one in item]
        return float(f"{item:.{DIGITS}g}") if isinstance(item, float) else item

    return json.dumps(short(value), separators=(",", ":"), ensure_ascii=False)


def fault_finder() -> FaultFinder:
    """All recorded cases, in an order that tells nothing; that of each reader is the same."""
    records = faults.load_cases()
    return FaultFinder([records[i] for i in np.random.default_rng(20).permutation(len(records))])


def new_case(number: int) -> FaultFinder:
    """Train a case that nobody has seen, now; the same number gives the same case."""
    return FaultFinder([faults.record(*faults.drawn(number))])
