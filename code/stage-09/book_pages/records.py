"""What recorded runs say, as tables and sentences for the pages that point to them."""

from collections.abc import Iterable
from typing import Any

from IPython.display import HTML

from book_pages import pages
from book_pages.widgets.explorer import RUN_METHODS
from experiments import claims, family, family_speaking, small_llama

TASK = "icelandic"  # the task that goes through sections 9.1 to 9.4


def _label(method: str, size: int) -> str:
    name, _, unit = RUN_METHODS[method]
    return f"{name}, {unit} {size}" if size else name


def same_model(*settings: tuple[str, int], names: int = 6) -> HTML:
    """The small Llama before and after each method: what it trained, its loss, its output.

    Parameters
    ----------
    settings : (method, size) as recorded; the untouched base model comes first
    names : how many of the sampled names are shown; all models draw with the same random numbers

    Raises ValueError where no run of a setting is recorded.
    """
    before = small_llama.load_before()
    rows = [["the base model", 0, before["losses"][f"{TASK} test"], before["names"]]]
    for method, size in settings:
        runs = small_llama.load_runs("report", target=TASK, method=method, size=size)
        if not runs:
            raise ValueError(f"no run of {method!r}, {size} is recorded; `make experiments` "
                             "records those of small_llama.METHODS")
        entry = small_llama.summarise(runs)[0]
        sampled = next(run["names"] for run in runs if "names" in run)
        rows.append([_label(method, size), entry["trainable"], entry["best_test"], sampled])
    return pages.table(
        ["model", "trained numbers", "loss on new Icelandic names", "names that it makes up"],
        [[who, f"{trained:,}", f"{loss:.2f}", ", ".join(made[:names])]
         for who, trained, loss, made in rows],
        caption="The same model, the same task; losses in nats per character, means of five seeds, "
                "each at the rate that was swept for its method")


def rates(methods: Iterable[str]) -> HTML:
    """The sweeps of the learning rate: each method's loss at each rate, the lowest marked."""
    runs = [run for method in methods for run in small_llama.load_runs("sweep", method=method)]
    columns = sorted({run["lr"] for run in runs})
    rows = []
    for target in small_llama.TARGETS:
        for method in methods:
            found = {run["lr"]: run for run in runs
                     if run["target"] == target and run["method"] == method}
            best = small_llama.chosen_rate(runs, target, method)
            cells = ["" if rate not in found else "diverged" if "diverged" in found[rate] else
                     f"{found[rate]['best_validation']:.2f}{' ◂ best' * (rate == best)}"
                     for rate in columns]
            rows.append([f"{_label(method, found[best]['size'])}: {target.capitalize()}", *cells])
    return pages.table(["peak learning rate", *(f"{rate:g}" for rate in columns)], rows,
                       caption="Validation loss of the small Llama at the best step, one run each; "
                               "the rate rises to its peak in a warm-up and then falls")


#: A race's record, by its name, with the keys of what is learned and of what is forgotten.
Races = dict[str, tuple[Any, str, str]]


def races() -> Races:
    """The family's races: names count the seeds all methods have, schedules their page's seeds."""
    rows = family.load_runs()
    found: Races = {f"{target.capitalize()} names": (family.Record(
        rows, family.common_seeds(rows, target), target), "best_test", "best_base")
        for target in family.TARGETS[::-1]}
    speaking = family_speaking.Record(family_speaking.load_runs())
    return found | {"the speaking model's schedules": (speaking, "test_loss", "general")}


def _side(errors: float) -> str:
    return f"{'lower' if errors > 0 else 'higher'} by {abs(errors):.1f}"


def against_lora(method: str, among: Races | None = None) -> str:
    """Whether a method of the family is better than plain LoRA, race by race, and what it costs.

    Each race tells what is learned and what is forgotten, in standard errors. It is better in a
    race where one of the two is clearly better and the other not clearly worse.

    Parameters
    ----------
    method : its name in `family.METHODS`
    among : the races; those that are recorded, if None
    """
    told, costs, words = [], [], []
    for race, (record, loss, old) in (races() if among is None else among).items():
        its, plain = record(method), record("lora")
        learned, errors = claims.standing(its, plain, loss)
        kept, old_errors = claims.standing(its, plain, old)
        words.append({learned, kept})
        rates = "" if its["lr"] == plain["lr"] else f"; its rate is {its['lr']:g}, " \
            f"LoRA's {plain['lr']:g}"
        told.append(f"- On {race}: {learned} in learning, {kept} in keeping (its mean losses are "
                    f"{_side(errors)} and {_side(old_errors)} standard errors, {its['seeds']} "
                    f"seeds{rates}).")
        costs.append([its[what] / plain[what] for what in ("seconds", "trainable", "memory_bytes")])
    better, worse, both = (sum(word & {"ahead", "behind"} == sides for word in words)
                           for sides in ({"ahead"}, {"behind"}, {"ahead", "behind"}))
    seconds, numbers, memory = zip(*costs, strict=True)
    return (f"Is {family.METHODS[method].label} better than LoRA? Two losses answer, each run with "
            "the rate at which its method learned best: on what was to be learned, and on what the "
            "model knew before. (SmolLM2-135M, which learned schedules, has no old "
            "names: there the second is how far its everyday answers *moved*.)\n\n"
            + "\n".join(told) +
            f"\n\nClearly better in one of the two and not clearly worse in the other: {better} "
            f"of {len(words)} races. The other way round: {worse}. Better in one and worse in the "
            f"other: {both}. It takes about {min(seconds):.1f} to {max(seconds):.1f} times LoRA's "
            f"processor time (the machine had other work), {min(numbers):.2f} to "
            f"{max(numbers):.2f} times its trained numbers and {min(memory):.2f} to "
            f"{max(memory):.2f} times its memory, activations not counted.")
