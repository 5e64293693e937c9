"""What recorded runs say, as tables and sentences for the pages that point to them."""

from collections.abc import Iterable

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
                       caption="Validation loss of the small Llama at the best step, one run each")


def against_lora(method: str) -> str:
    """Whether a method of the family is better than plain LoRA, race by race, and what it costs.

    Small races count all seeds that every method has, the speaking model's those of its page.
    """
    rows = family.load_runs()
    races = [(f"{target.capitalize()} names", family.Record(
        rows, family.common_seeds(rows, target), target), "best_test") for target in
        family.TARGETS[::-1]]
    races += [("the speaking model's schedules",
               family_speaking.Record(family_speaking.load_runs()), "test_loss")]
    found, costs = [], []
    for race, record, loss in races:
        its, plain = record(method), record("lora")
        found.append((*claims.standing(its, plain, loss), race, its["seeds"]))
        costs.append([its[what] / plain[what] for what in ("seconds", "trainable", "memory_bytes")])
    told = [f"{word} on {race} (its mean loss is {'lower' if errors > 0 else 'higher'} by "
            f"{abs(errors):.1f} standard errors, {seeds} seeds)"
            for word, errors, race, seeds in found]
    clear = [sum(word == side for word, *_ in found) for side in ("ahead", "behind")]
    time, numbers, memory = (f"{min(of):.2f} to {max(of):.2f}" for of in zip(*costs, strict=True))
    return (f"Is {family.METHODS[method].label} better than LoRA? With a rate of its own for each, "
            f"it is {', '.join(told[:-1])} and {told[-1]}: clearly better in {clear[0]} of "
            f"{len(found)} races, clearly worse in {clear[1]}. For this it takes {time} times "
            f"LoRA's processor time, {numbers} times its trained numbers and {memory} times its "
            "memory, activations not counted.")
