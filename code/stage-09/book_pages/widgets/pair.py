"""Two recorded settings on axes that never move, with a guess first (section 9.7)."""

import json
from collections.abc import Iterator
from itertools import combinations
from math import ceil, floor, sqrt

import numpy as np
import traitlets

from book_pages.figures import COLORS
from book_pages.widgets import explorer
from experiments import claims, small_llama
from experiments.records import rounded

#: What is compared: of the runs whose curves are recorded, and of those at rates of their own.
LOSSES = ("final_test", "best_test", "final_base", "best_base")
OWN = "own_test"

_STYLE = """
.peft-widget .pw-axes { display: block; width: 100%; max-width: 26rem; height: auto; }
.peft-widget .pw-axes .pw-b { stroke-dasharray: 6 4; }
.peft-widget .pw-axes .pw-new { animation: pw-drawn 0.9s ease-out; }
.peft-widget .pw-axes circle { fill: var(--paper); stroke: var(--series); stroke-width: 2.5; }
.peft-widget .pw-axes .pw-frame { fill: none; stroke: var(--rail); }
.peft-widget .pw-axes .pw-text { font-size: 13px; }
.peft-widget .pw-axes .pw-letter { fill: var(--ink); font-size: 15px; font-weight: 700; }
.peft-widget .pw-row.pw-guesses { margin-top: 1rem; }
.peft-widget .pw-guesses .pw-button[aria-pressed="true"] { background: var(--ink);
  border-color: var(--ink); color: var(--paper); }
.peft-widget .pw-axes-two { display: grid; gap: 1rem 2rem; margin-top: 1.1rem; }
.peft-widget .pw-axes-two p { font-size: 0.875rem; font-weight: 600; }
.peft-widget .pw-pair-table tbody th { white-space: normal; }
@keyframes pw-drawn { from { clip-path: inset(0 100% 0 0); } }
@media (prefers-reduced-motion: reduce) { .peft-widget .pw-axes .pw-new { animation: none; } }
@container (min-width: 34rem) { .peft-widget .pw-axes-two { grid-template-columns: 1fr 1fr; } }
"""


class PairExplorer(explorer.Widget):
    """Two settings of section 9.7: which one ends lower? The curves come after the guess.

    The curves are those of the runs at a method's shared rate, whose losses on the way are
    recorded; of the runs at rates of their own the ends are. One scale holds for all of them.

    Parameters
    ----------
    record : claims.Record, optional
        Recorded runs with curves; those of section 9.7, if None.

    Attributes
    ----------
    target : str
        One of `small_llama.TARGETS`.
    a, b : str
        The two settings, method and size: "lora-qv 4".
    guess : str
        "a", "b", "neither" (no difference that counts), or "" before the reader has said one.
    """

    _esm = explorer.front_end("pair")
    _css = explorer.Widget._css + _STYLE

    target = traitlets.Unicode("turkish").tag(sync=True)
    a = traitlets.Unicode("full 0").tag(sync=True)
    b = traitlets.Unicode("lora-qv 4").tag(sync=True)
    guess = traitlets.Enum(["", "a", "b", "neither"], "").tag(sync=True)
    _settings = traitlets.Unicode().tag(sync=True)  # JSON: target -> settings
    _apart = traitlets.Unicode().tag(sync=True)  # JSON: target -> loss -> errors, see `_compared`
    _before = traitlets.Dict().tag(sync=True)  # target, and "base" -> validation loss
    _extents = traitlets.List().tag(sync=True)  # of both pictures: lowest and highest loss
    _steps = traitlets.List().tag(sync=True)
    _clear = traitlets.Float(claims.CLEAR).tag(sync=True)
    _deviations = traitlets.Float().tag(sync=True)  # a standard error, in deviations of the seeds

    def __init__(self, record: claims.Record | None = None):
        record = claims.Record(small_llama.load_runs()) if record is None else record
        losses = small_llama.load_before()["losses"]
        self.settings = {target: [_setting(record, target, method, size)
                                  for method, (_, sizes, *_) in small_llama.METHODS.items()
                                  for size in sizes] for target in small_llama.TARGETS}
        every = [one for settings in self.settings.values() for one in settings]
        (seeds,) = {one["seeds"] for one in every}
        (steps,) = {tuple(one["steps"]) for one in every}
        # A random prompt begins above: its first step leaves the picture at the top.
        inside = [[loss for one in every for loss in one[curve][1:]]
                  for curve in ("validation", "base")]
        drawn = {target: [{key: value for key, value in one.items() if key != "steps"}
                          for one in settings] for target, settings in self.settings.items()}
        super().__init__(
            _settings=json.dumps(rounded(drawn), separators=(",", ":"), allow_nan=False),
            _apart=json.dumps({target: _compared(settings)
                               for target, settings in self.settings.items()},
                              separators=(",", ":"), allow_nan=False),
            _before={name: losses[f"{name} validation"] for name in (*self.settings, "base")},
            _extents=[_round_ends(values + [losses[f"{name} validation"] for name in first])
                      for values, first in zip(inside, (self.settings, ["base"]), strict=True)],
            _steps=list(steps), _deviations=sqrt(2 / seeds))

    @traitlets.validate("target", "a", "b")
    def _recorded(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = list(self.settings) if name == "target" else \
            [one["key"] for one in self.settings[self.target]]
        if value not in allowed:
            raise traitlets.TraitError(f"{name} is one of {allowed}, got {value!r}")
        return value

    def pair(self) -> tuple[dict, dict]:
        """The two settings that are chosen."""
        known = {one["key"]: one for one in self.settings[self.target]}
        return known[self.a], known[self.b]

    def fallback(self):
        a, b = self.pair()
        return (f"{self.target.capitalize()} names, nats per character, mean and standard "
                f"deviation of {a['seeds']} seeds; the last column is in deviations of the seeds",
                ["", a["label"], b["label"], "second minus first"], list(self._rows(a, b)))

    def _rows(self, a: dict, b: dict) -> Iterator[list[str]]:
        yield ["trained numbers", f"{a['trainable']:,}", f"{b['trainable']:,}", ""]
        for key, what in (("final_test", "new names, last step"),
                          ("best_test", "new names, best step"),
                          ("final_base", "names it knew, last step"),
                          ("best_base", "names it knew, best step"),
                          (OWN, "new names, best step, own rates")):
            apart = claims.apart(_entry(a, key), _entry(b, key)) * self._deviations
            yield [what, *(f"{one[key][0]:.3f} ± {one[key][1]:.3f}" for one in (a, b)),
                   f"{apart:+.1f}".replace("-", "\u2212")]


def _setting(record: claims.Record, target: str, method: str, size: int) -> dict:
    """One setting over its seeds, as the front end draws it."""
    entry, own = record("report", method, size, target), record.own(method, size, target)
    runs = [row for row in record.rows if (row["kind"], row["target"], row["method"], row["size"])
            == ("report", target, method, size)]
    name, color, unit = explorer.RUN_METHODS[method]
    steps = runs[0]["curve"]["steps"]
    validation = np.mean([run["curve"]["validation"] for run in runs], axis=0)
    (base,) = [run["curve"]["base"] for run in runs if "base" in run["curve"]]  # of one seed
    return {
        "key": f"{method} {size}", "label": f"{name}, {unit} {size}" if unit else name,
        "color": COLORS[color], "seeds": entry["seeds"], "trainable": entry["trainable"],
        "lr": entry["lr"], "own_lr": own["lr"], "steps": steps,
        "validation": validation.round(4).tolist(), "base": base,
        "best_step": entry["best_step"], "at_best": [round(float(np.interp(
            entry["best_step"], steps, curve)), 4) for curve in (validation, base)],
        **{key: [entry[key], entry[f"{key}_sd"]] for key in LOSSES},
        OWN: [own["best_test"], own["best_test_sd"]],
    }


def _round_ends(values: list[float], step: float = 0.5) -> list[float]:
    """The nearest multiples of `step` that hold all values between them."""
    return [step * floor(min(values) / step), step * ceil(max(values) / step)]


def _entry(setting: dict, key: str) -> dict:
    """A setting's loss, as `claims.apart` asks for it."""
    mean, sd = setting[key]
    return {"best_test": mean, "best_test_sd": sd, "seeds": setting["seeds"]}


def _compared(settings: list[dict]) -> dict[str, list[float]]:
    """Loss -> standard errors by which the later of two settings lies above the earlier one.

    Pairs in the order of `itertools.combinations`: the first with all after it, the second ...
    """
    return {key: [round(claims.apart(_entry(a, key), _entry(b, key)), 2)
                  for a, b in combinations(settings, 2)] for key in (*LOSSES, OWN)}
