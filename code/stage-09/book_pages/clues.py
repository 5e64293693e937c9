"""Which fault does a record of experiments/faults.py show? What the page "Find the fault" answers.

Each fault has marks: what it must leave in a record. A fault is named when all its marks are there;
the first one that is missing is what speaks against it. So what a reader is told and what the tests
hold of every recorded case are the same rules.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.faults import RATES

Record = dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """Something that a fault leaves behind: `holds` asks for it, `would` names it, `here` measures.

    A mark that is not `telling` is only a condition: a sound run has it, too.
    """

    holds: Callable[[Record], bool]
    would: Callable[[Record], str]
    here: Callable[[Record], str]
    telling: bool = True


@dataclass(frozen=True)
class Fault:
    """A fault as the reader meets it. One of its `forms`, each a list of marks, must fit."""

    title: str
    tempting: str  # why one might think of it
    fix: str
    forms: tuple[tuple[Mark, ...], ...]
    heading: str = ""  # in common-mistakes.ipynb; none for a sound run


# ----------------------------------------------------------------------------- what one can measure


def largest(record: Record, kind: str, part: slice = slice(None)) -> float:
    """The largest "gradient", "step" or "weight" of any group in a part of the run."""
    return max(max(values[part]) for values in record[kind].values())


def gap(record: Record) -> float:
    """How far the training loss ends below the held-out one, nats; the mean of five batches."""
    return record["held_out"][-1] - float(np.mean(record["train"][-5:]))


def elsewhere(record: Record) -> float:
    """How much worse the saved file is in a fresh, right model than in the run, nats."""
    return record["served"] - record["held_out"][-1]


def jump(record: Record) -> float:
    """The share of the frozen weights' way that they went between two looks; 0 if they stood."""
    drift = np.array(record["drift"])
    return float(np.diff(drift).max() / drift.max()) if drift.max() > 0 else 0.0


def wrong_start_of_A(record: Record) -> float:
    """The root mean square of A's entries, uniform within 1 / sqrt(rank)."""
    return (3 * record["rank"]) ** -0.5


#: What a run trains, as it stands in a sentence.
METHODS = {"LoRA": "LoRA", "adapters": "adapters", "prefix": "a prefix", "prompt": "a prompt"}


def _nats(value: float) -> str:
    return f"{value:.2f}"


def _way(r: Record) -> str:
    return "all their way" if jump(r) == 1 else f"at most {100 * jump(r):.0f} % of their way"


def _is(*methods: str) -> Mark:
    return Mark(lambda r: r["method"] in methods,
                lambda r: f"there would be {' or '.join(map(METHODS.get, methods))} to train",
                lambda r: f"it is {METHODS[r['method']]}", telling=False)


def _jumps(least: float) -> Mark:
    return Mark(lambda r: r["held_out"][0] > r["before"] + least,
                lambda r: "the loss would jump before the first step, well above the pretrained "
                          f"model's {_nats(r['before'])}",
                lambda r: f"the loss starts at {_nats(r['held_out'][0])}")


def _gradient_says(r: Record) -> str:
    norms = {group: max(values) for group, values in r["gradient"].items()}
    if not any(norms.values()):
        return "each gradient is zero in every step"
    group = max(norms, key=norms.__getitem__)
    return f"the gradient of {group} reaches a norm of {norms[group]:.2g}"


NOTHING_FLOWS = Mark(lambda r: largest(r, "gradient") == 0,
                     lambda r: "every gradient would be exactly zero, from the first step on",
                     _gradient_says)
GRADIENT = Mark(lambda r: largest(r, "gradient", slice(-1, None)) > 0,
                lambda r: "gradients would flow until the end",
                lambda r: "the last gradient is exactly zero", telling=False)
SEVERAL = Mark(lambda r: r["rank"] > 1, lambda r: "the rank would be above 1, or nobody could tell",
               lambda r: "the rank is 1", telling=False)
A_HEARS = Mark(lambda r: r["gradient"]["A"][0] > 0,
               lambda r: "A would have a gradient in the first step, since B is not zero",
               lambda r: f"A's first gradient has a norm of {r['gradient']['A'][0]:.2g}")
UNDIVIDED = Mark(
    lambda r: r["scaling"] is not None and abs(r["scaling"] / (2 * r["rank"]) - 1) < 0.2,
    lambda r: f"the layers would add BA times alpha, which is {2 * r['rank']}",
    lambda r: "no layer adds a multiple of BA at the end" if r["scaling"] is None
    else f"the layers add {r['scaling']:.3g} times BA")
LARGE_A = Mark(
    lambda r: abs(r["start_of_A"] / wrong_start_of_A(r) - 1) < 0.2,
    lambda r: f"a typical entry of A would start near {wrong_start_of_A(r):.2g}, "
              "1 / √(3 · rank)",
    lambda r: f"a typical entry of A starts at {r['start_of_A']:.2g}")
DRIFTS = Mark(lambda r: r["drift"][-1] > 0.005,
              lambda r: "the frozen weights would move",
              lambda r: "the frozen weights are where they were" if r["drift"][-1] == 0
              else f"the frozen weights end {100 * r['drift'][-1]:.1f} % from their start")
STEADILY = Mark(lambda r: jump(r) < 0.5,
                lambda r: "the frozen weights would shrink a little in every step",
                lambda r: f"they go {_way(r)} from one look to the next")
AT_ONCE = Mark(lambda r: jump(r) > 0.5,
               lambda r: "the frozen weights would move at a single moment", STEADILY.here)
SMALL_STEPS = Mark(
    lambda r: largest(r, "step") < 0.3 * RATES[r["method"]],
    lambda r: "every step would be less than half of a sound one",
    lambda r: f"the largest step changes an entry by {largest(r, 'step'):.2g}, root mean square; "
              f"the rate of a sound run is {RATES[r['method']]:g}")
WORSE_ELSEWHERE = Mark(
    lambda r: elsewhere(r) > 0.02,
    lambda r: "the saved file would be worse in a model that does it right",
    lambda r: f"the file gives {r['served']:.3f} in a fresh model and {r['held_out'][-1]:.3f} in "
              "the run")
TOO_GOOD = Mark(lambda r: gap(r) > 0.6,
                lambda r: "the training loss would end far below the held-out one",
                lambda r: f"the two losses end {_nats(abs(gap(r)))} nats apart")
TOO_MANY = Mark(lambda r: r["saved"] > r["trained"],
                lambda r: "more numbers would be saved than are trained",
                lambda r: f"{r['saved']:,} numbers are saved and {r['trained']:,} trained")


def _not(mark: Mark, would: str) -> Mark:
    return Mark(lambda r: not mark.holds(r), lambda r: would, mark.here)


def _starts_alike(r: Record) -> bool:
    return r["method"] in ("prefix", "prompt") or abs(r["held_out"][0] - r["before"]) < 0.01


FLOWS = _not(NOTHING_FLOWS, "gradients would flow")
STAYS = _not(DRIFTS, "frozen weights would stay where they are")
SAME_ELSEWHERE = Mark(lambda r: abs(elsewhere(r)) < 0.005,
                      lambda r: "the saved file would give the same loss in a fresh model",
                      WORSE_ELSEWHERE.here)
ONLY_TRAINED = Mark(lambda r: r["saved"] == r["trained"],
                    lambda r: "what is trained would be saved, no more", TOO_MANY.here)
SOUND = (
    Mark(_starts_alike,
         lambda r: f"the loss would start at the pretrained model's {_nats(r['before'])}",
         lambda r: f"the loss starts at {_nats(r['held_out'][0])}", telling=False),
    FLOWS, GRADIENT, STAYS,
    replace(_not(SMALL_STEPS, "the largest step would come near the rate"), telling=False),
    Mark(lambda r: r["scaling"] is None or abs(r["scaling"] - 2) < 0.1,
         lambda r: "the layers would add BA times alpha / rank, which is 2", UNDIVIDED.here,
         telling=False),
    Mark(lambda r: r["start_of_A"] is None or r["start_of_A"] < 0.1,
         lambda r: "A's entries would start small, around 0.01", LARGE_A.here, telling=False),
    SAME_ELSEWHERE, ONLY_TRAINED,
    replace(_not(TOO_GOOD, "training and held-out loss would end close together"), telling=False),
)

#: In the order of common-mistakes.ipynb.
FAULTS = {
    "start": Fault(
        "Both LoRA matrices random, or both zero",
        "A bad start comes to mind whenever a run begins badly or does not begin at all.",
        "Start A small and random and B at zero: then a fresh model is the pretrained one, and B "
        "can move.",
        ((_is("LoRA"), _jumps(0.1), A_HEARS), (_is("LoRA"), NOTHING_FLOWS)),
        "1. Both LoRA matrices random"),
    "scaling": Fault(
        "alpha instead of alpha / r",
        "A restless curve and large gradients look like an update that is too strong.",
        "Write scaling = alpha / rank in one place, for forward, backward and merge alike.",
        ((_is("LoRA"), SEVERAL, UNDIVIDED),), "2. alpha instead of alpha / r"),
    "fan-in": Fault(
        "The transposed fan-in",
        "A run that starts right and then moves in leaps may have begun with too large an A.",
        "Give the fan-in as a number, or initialise A as (rank, in).",
        ((_is("LoRA"), LARGE_A),), "3. The transposed fan-in"),
    "decay": Fault(
        "Weight decay on frozen weights",
        "It hardly shows in the loss, so one may suspect it behind any run that looks well.",
        "Give the optimizer the trainable parameters and nothing else.",
        ((DRIFTS, STEADILY),), "4. Weight decay on frozen weights"),
    "rate": Fault(
        "The learning rate of full fine-tuning",
        "A loss that falls slowly, or not at all, makes one think of the rate.",
        "Start at ten times the rate of full fine-tuning, and sweep by factors of three around it.",
        ((_is("LoRA", "adapters"), GRADIENT, SMALL_STEPS),),
        "5. The learning rate of full fine-tuning used for LoRA"),
    "residual": Fault(
        "An adapter without its residual",
        "Where the loss jumps at the start, something of the model may have been deleted.",
        "A serial adapter is x + up(relu(down(x))): residual=True.",
        ((_is("adapters"), _jumps(0.2)),), "6. An adapter without its residual"),
    "attention": Fault(
        "A prefix without its mask or its positions",
        "A method that learns little may not be heard by the model at all.",
        "Move the mask's diagonal and the tokens' positions by the length of the prefix.",
        ((_is("prefix"), NOTHING_FLOWS), (_is("prefix"), WORSE_ELSEWHERE)),
        "7. A prefix without its mask, or without its position shift"),
    "scored": Fault(
        "The prompt scored in the loss",
        "Two losses that disagree may be means over different things.",
        "Give the virtual tokens the target -100, or never return their logits.",
        ((_is("prompt"), TOO_GOOD),), "8. The prompt scored in the loss"),
    "merged": Fault(
        "Training after merging",
        "A curve that jumps or stands still in the middle of a run looks as if something was "
        "changed under it.",
        "Merge last, into a copy. To train on, put the original weights back.",
        ((_is("LoRA"), DRIFTS, AT_ONCE),), "9. Training after merging"),
    "saved": Fault(
        "Saving the whole model",
        "Nothing in the curves speaks against it: it is the fault of runs that look sound.",
        "Save model.parameters(), and beside it what is needed to rebuild the model.",
        ((TOO_MANY,),), "10. Saving the whole model"),
    "none": Fault(
        "No fault: a sound run",
        "Every curve wobbles, and after some puzzles one sees faults everywhere; or one sees none, "
        "since the loss falls.",
        "Nothing is to be mended.", (SOUND,)),
}


# ------------------------------------------------------------------------------------ what one says


def missing(record: Record, fault: str) -> list[Mark]:
    """The first mark that each form of a fault lacks in a record; [] if some form has all."""
    found = [next((mark for mark in form if not mark.holds(record)), None)
             for form in FAULTS[fault].forms]
    return [] if None in found else found


def diagnose(record: Record) -> list[str]:
    """Every fault whose marks are all in the record; of a recorded case there is one."""
    return [fault for fault in FAULTS if not missing(record, fault)]


def reply(record: Record, fault: str) -> str:
    """What a reader is told who names this fault: what shows it, or what speaks against it."""
    lead = "In a sound run" if fault == "none" else "With this fault"
    if against := missing(record, fault):
        lines = dict.fromkeys(f"{lead} {mark.would(record)}; here {mark.here(record)}."
                              for mark in against)
        return " ".join([FAULTS[fault].tempting, *lines])
    forms = FAULTS[fault].forms
    form = next(form for form in forms if all(mark.holds(record) for mark in form))
    return " ".join(f"{lead} {mark.would(record)}: {mark.here(record)}."
                    for mark in form if mark.telling)


def anchor(heading: str) -> str:
    """The id that the book's builder gives a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-0123456789")
