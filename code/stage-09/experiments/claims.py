"""What section 9.7 claims of its recorded runs, each held against the spread of its seeds.

A claim is a function of a `Record`. It raises `ClaimFails` if the seeds don't bear it out: a
difference counts from three standard errors on, and "level" means less than one. What it returns is
its sentence, with the numbers; the pages print it, so that none of them compares what is not held
here. The tests run all of `CLAIMS`, and `replicate.py` asks them of five other seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import hypot, sqrt
from typing import Any

import numpy as np

from experiments import small_llama
from experiments.small_llama import FEW, METHODS, OWN, SEEDS, TARGETS

CLEAR, LEVEL = 3.0, 1.0  # standard errors of a difference
Entry = dict[str, Any]  # of one setting: means and deviations, as `summarise` gives them


class ClaimFails(AssertionError):
    """The recorded runs do not bear the claim out."""


class NotRecorded(ValueError):
    """Runs that are asked for have not been made, or the sweep that chooses their rate hasn't."""


class Record:
    """Recorded runs, asked by setting; `asked` lists the settings that were asked for.

    Parameters
    ----------
    rows : the runs.
    seeds : the seeds of a mean; each has to be there.
    sweeps : the runs that chose the rates; `rows` if None.
    """

    def __init__(self, rows: Iterable[dict], seeds: Sequence[int] = SEEDS,
                 sweeps: Sequence[dict] | None = None) -> None:
        self.rows = rows = list(rows)
        self.asked: list[tuple] = []
        self._runs = {small_llama.same(row): row for row in rows}
        self._seeds, self._sweeps = seeds, rows if sweeps is None else sweeps
        self._answers: dict[tuple, list[dict]] = {}

    def jobs(self, kind: str, method: str, size: int, target: str,
             train_names: int | None) -> list[dict]:
        """The planned jobs of a setting, one for each seed."""
        return [job for job in small_llama.planned(
                    kind, self._sweeps, targets=[target], methods=[method.partition(" ")[0]],
                    seeds=self._seeds)
                if (job["method"], job["size"]) == (method, size)
                and train_names in (None, job["train_names"])]

    def runs(self, kind: str, method: str, size: int, target: str = "icelandic",
             train_names: int | None = None) -> list[dict]:
        """One run for each seed. ValueError unless exactly one setting fits; `NotRecorded`."""
        setting = kind, method, size, target, train_names
        if setting not in self._answers:
            jobs = self.jobs(*setting)
            if len(jobs) != len(self._seeds):
                found = len(jobs) // len(self._seeds)
                raise (ValueError if found else NotRecorded)(
                    f"{kind}, {method}, {size}, {target}: {found} settings are planned, not one; " +
                    ("name train_names, too" if found else
                     "`python -m experiments.small_llama run` goes on with its sweep, if it has one"
                     ))
            found = [self._runs.get(small_llama.same(job)) for job in jobs]
            if missing := found.count(None):
                raise NotRecorded(f"{kind}, {method}, {size}, {target}: {missing} of {len(found)} "
                                  "runs are not recorded; `python -m experiments.small_llama run` "
                                  "makes them")
            self._answers[setting] = [job | row | {"kind": kind, "method": method}
                                      for job, row in zip(jobs, found, strict=True)]
        self.asked += [setting]
        return self._answers[setting]

    def __call__(self, *setting: Any, **options: Any) -> Entry:
        """Mean and standard deviation over the seeds, as `summarise` gives them."""
        (entry,) = small_llama.summarise(self.runs(*setting, **options))
        return entry

    def own(self, method: str, size: int, target: str = "icelandic") -> Entry:
        """A size at its own rate, LoRA with alpha held; `method` as in `METHODS`."""
        return self("own", method if method in OWN else f"{method} alpha=8", size, target)

    def cut(self, target: str, rank: int, moment: str = "best") -> Entry:
        """Full fine-tuning's updates cut to a rank, at its `best` or `final` step."""
        at = small_llama.CUTS.index(rank)
        step = {"best": "best step", "final": "last step"}[moment]
        return self._of_updates(target, f"full fine-tuning's updates, cut to rank {rank}",
                                f"{step}, test loss", lambda row: row["cut_test"][moment][at])

    def spread(self, target: str, part: str) -> Entry:
        """Share of full fine-tuning's updates outside their first 16 directions, as a loss."""
        name = {"self_attn": "attention", "mlp": "the MLP"}[part]
        return self._of_updates(target, f"full fine-tuning's updates of {name}",
                                "share outside 16 directions", lambda row: 1 - row["energy"][part])

    def _of_updates(self, target: str, what: str, unit: str,
                    number: Callable[[dict], float]) -> Entry:
        values = [number(row) for row in self.runs("report", "full", 0, target)]
        return {"named": (what, unit), "method": "full", "target": target, "seeds": len(values),
                "best_test": float(np.mean(values)), "best_test_sd": float(np.std(values, ddof=1))}


@cache
def recorded() -> Record:
    """The runs that section 9.7 is built on."""
    found = {(row["target"], row["seed"]): brief(row) for row in small_llama.load_spectra()}
    return Record(row | (found[row["target"], row["seed"]]
                         if small_llama.wants_spectra(row) else {})
                  for row in small_llama.load_runs())


def energy(spectra: dict, rank: int, part: str = "layers") -> float:
    """Share of the updates' squared norm in their first `rank` directions, mean over matrices.

    `part` is in the names of the matrices that count: "self_attn", "mlp", or of all layers.
    """
    squares = [np.square(values) for name, values in spectra["singular_values"].items()
               if "layers" in name and part in name]
    return float(np.mean([s[:rank].sum() / s.sum() for s in squares]))


def brief(spectra: dict[str, dict]) -> dict[str, dict]:
    """What claims ask of the spectra of a run, a few numbers instead of all singular values."""
    return {"cut_test": {moment: spectra[moment]["cut_test"] for moment in ("best", "final")},
            "energy": {part: energy(spectra["best"], 16, part) for part in ("self_attn", "mlp")}}


# --------------------------------------------------------------------------------- comparisons


def apart(a: Entry, b: Entry, key: str = "best_test", other: str | None = None) -> float:
    """By how many standard errors `b` is above `a`, by `key`; `b` by `other`, if it is given."""
    other = other or key
    error = hypot(a[f"{key}_sd"] / sqrt(a["seeds"]), b[f"{other}_sd"] / sqrt(b["seeds"]))
    difference = b[other] - a[key]
    return difference / error if error else float(np.copysign(np.inf, difference) if difference
                                                  else 0.0)


#: How a sentence says it; {} is the size.
_METHODS = {"full": "full fine-tuning", "lora-qv": "LoRA of rank {} on q and v",
            "lora-mlp": "LoRA of rank {} on the MLP",
            "lora-all": "LoRA of rank {} on all linear layers",
            "houlsby": "Houlsby adapters of width {}", "pfeiffer": "Pfeiffer adapters of width {}",
            "parallel": "parallel adapters of width {}", "prefix": "a prefix of {}",
            "prompt": "a prompt of {}"}
_RATES = {"report": "shared rate", "subset": "shared rate", "gentle": "a third of its best rate"}
_NUMBERS = {"best_test": "test loss", "final_test": "test loss at the last step",
            "best_base": "loss on the base locales", "best_step": "best step"}


def _named(entry: Entry, key: str) -> str:
    """A setting and one of its numbers, in words."""
    method, _, rule = entry["method"].partition(" ")
    said = [entry["target"].capitalize()]
    if "named" in entry:
        name, number = entry["named"]
    else:
        name, number = _METHODS[method].format(entry["size"]), _NUMBERS[key]
        said += [f"{entry['train_names']:,} names", _RATES.get(entry["kind"], "own rate")]
    said += [rule.replace("=", " = ")] * bool(rule)
    return f"{name} ({', '.join(said)}, {number} {entry[key]:.3f})"


def better(a: Entry, b: Entry, key: str = "best_test", other: str | None = None) -> float:
    """`a` has a lower loss than `b`, clearly; returns by how many standard errors."""
    if not (distance := apart(a, b, key, other)) >= CLEAR:
        raise ClaimFails(f"{_named(a, key)} is to be ahead of {_named(b, other or key)}, and is so "
                         f"by {distance:.2f} standard errors; {CLEAR:g} are asked for")
    return distance


def level(a: Entry, b: Entry, key: str = "best_test", other: str | None = None) -> float:
    """`a` and `b` can't be told apart; returns their distance in standard errors."""
    if not abs(distance := apart(a, b, key, other)) <= LEVEL:
        raise ClaimFails(f"{_named(a, key)} and {_named(b, other or key)} are to be level, and are "
                         f"{abs(distance):.1f} standard errors apart")
    return abs(distance)


def undecided(a: Entry, b: Entry) -> float:
    """`a` and `b` are not clearly different; returns their distance in standard errors."""
    if not abs(distance := apart(a, b)) < CLEAR:
        raise ClaimFails(f"{_named(a, 'best_test')} and {_named(b, 'best_test')} are not to be "
                         f"clearly different, and are {abs(distance):.1f} standard errors apart")
    return abs(distance)


def standing(a: Entry, b: Entry, key: str = "best_test") -> tuple[str, float]:
    """How `a` stands to `b`: "ahead", "behind", "level" or "undecided"; by how many errors ahead.

    A lower number is ahead. The distance in standard errors is below zero where `a` is behind.
    """
    if abs(distance := apart(a, b, key)) >= CLEAR:
        return "ahead" if distance > 0 else "behind", distance
    return "level" if abs(distance) <= LEVEL else "undecided", distance


def no_better(a: Entry, b: Entry, key: str = "best_test") -> float:
    """`a` is not clearly ahead of `b`; returns by how many standard errors it is ahead."""
    if not (distance := apart(a, b, key)) < CLEAR:
        raise ClaimFails(f"{_named(a, key)} is not to be ahead of {_named(b, key)}, and is so by "
                         f"{distance:.1f} standard errors")
    return distance


CLAIMS: list[Callable[[Record], str]] = []
#: Reworded after seeds 5 to 9 had brought a first version down: for these, those are no test.
REWORDED = ("rank_16_on_q_and_v_is_not_ahead_of_rank_1_everywhere",
            "alpha_is_not_what_rank_16_lacked", "a_larger_alpha_is_ahead_on_all_layers")


def claim(function: Callable[[Record], str]) -> Callable[[Record], str]:
    """Register a claim."""
    CLAIMS.append(function)
    return function


def _errors(distance: float) -> str:
    return f"{distance:.1f} standard errors"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _losses(*entries: Entry, key: str = "best_test") -> str:
    return _listed([f"{entry[key]:.2f}" for entry in entries])


def _counts(entries: Sequence[Entry]) -> str:
    return _listed([f"{entry['trainable']:,}" for entry in entries])


MIDDLE = {method: size for method, (_, _, size, _) in METHODS.items()}
EQUAL = [("lora-mlp", 2), ("lora-all", 1), ("parallel", 8), ("pfeiffer", 8), ("houlsby", 4),
         ("prefix", 10), ("lora-qv", 4)]  # of 3,072 to 4,032 parameters
OTHERS = [method for method in METHODS if method not in ("full", "prompt")]


# ------------------------------------------------------------------------ result 1: what is learned


@claim
def full_leads_with_more_data(record: Record) -> str:
    """On Icelandic, full fine-tuning is ahead, then LoRA on all layers, then the other methods."""
    full, lora = record.own("full", 0), record.own("lora-all", 4)
    lead = better(full, lora)
    next_lead = min(better(lora, record.own(method, MIDDLE[method])) for method in OTHERS
                    if method != "lora-all")
    return (f"On Icelandic full fine-tuning reaches {_losses(full)}, and the closest of the "
            f"others, LoRA of rank 4 on all linear layers, {_losses(lora)}, {_errors(lead)} "
            f"behind. That in turn is ahead of all the rest, by {_errors(next_lead)} or more")


@claim
def prompt_tuning_learns_least(record: Record) -> str:
    """At the middle sizes prompt tuning is behind every other method, on both languages."""
    least = min(better(record.own(method, MIDDLE[method], target),
                       record.own("prompt", MIDDLE["prompt"], target))
                for target in TARGETS for method in ("full", *OTHERS))
    return f"Prompt tuning is behind all others on both languages, by {_errors(least)} at least"


@claim
def q_and_v_come_last_at_equal_size(record: Record) -> str:
    """At about equal size, LoRA on q and v is behind all others, and on the MLP ahead of most."""
    first, second, *rest, last = (record.own(*setting) for setting in EQUAL)
    lag = min(better(entry, last) for entry in (first, second, *rest))
    lead = min(better(first, entry) for entry in rest)
    gap = apart(first, second)
    side = "ahead of" if gap > 0 else "behind"
    decides = "decides" if abs(gap) >= CLEAR else "does not decide"
    return (f"LoRA on q and v is behind all others, by {_errors(lag)} or more. LoRA on the MLP is "
            f"ahead of all but LoRA on all linear layers, by {_errors(lead)} or more; it is "
            f"{_errors(abs(gap))} {side} that, which {decides}")


@claim
def rank_16_on_q_and_v_is_not_ahead_of_rank_1_everywhere(record: Record) -> str:
    """On Icelandic, LoRA of rank 16 on q and v is not ahead of rank 1 on all linear layers."""
    everywhere, attention = record.own("lora-all", 1), record.own("lora-qv", 16)
    lead = no_better(attention, everywhere)
    return (f"On Icelandic, rank 16 on q and v ({_counts([attention])} numbers) reaches "
            f"{attention['best_test']:.3f} and rank 1 on all linear layers "
            f"({_counts([everywhere])}) {everywhere['best_test']:.3f}: the larger one is "
            f"{_errors(abs(lead))} {'ahead' if lead > 0 else 'behind'}")


@claim
def an_adapters_place_counts_more_than_its_scale(record: Record) -> str:
    """On Icelandic, at either scale a parallel adapter is ahead of one behind the MLP."""
    serial, serial4 = record.own("pfeiffer", 8), record.own("pfeiffer scale=4", 8)
    parallel1, parallel = record.own("parallel scale=1", 8), record.own("parallel", 8)
    leads = better(parallel1, serial), better(parallel, serial4)
    same = undecided(parallel1, parallel)
    return (f"On Icelandic, with a bottleneck of 8 and the scale 1 for both, the parallel adapter "
            f"reaches {_losses(parallel1)} and the one behind the MLP {_losses(serial)}, "
            f"{_errors(leads[0])} behind. With the scale 4 for both it is {_losses(parallel)} "
            f"against {_losses(serial4)} ({_errors(leads[1])}). The parallel adapter with 4 and "
            f"with 1 is {_errors(same)} apart, which does not decide")


@claim
def more_rank_learns_more(record: Record) -> str:
    """On Icelandic, LoRA on all linear layers gains from rank 1 to 4 to 16; full is ahead."""
    one, four, sixteen = (record.own("lora-all", rank) for rank in (1, 4, 16))
    full = record.own("full", 0)
    steps = better(four, one), better(sixteen, four), better(full, sixteen)
    return (f"On Icelandic, LoRA on all linear layers goes from {_losses(one)} at rank 1 over "
            f"{_losses(four)} at rank 4 to {_losses(sixteen)} at rank 16, by {steps[0]:.0f} and "
            f"{_errors(steps[1])}. Full fine-tuning ({_losses(full)}) is ahead of rank 16 by "
            f"{_errors(steps[2])}")


@claim
def a_prefix_beats_a_prompt(record: Record) -> str:
    """On Turkish, one virtual token as a prefix is ahead of twenty as a prompt, at own rates."""
    prefix, prompt = record.own("prefix", 1, "turkish"), record.own("prompt", 20, "turkish")
    lead = better(prefix, prompt)
    return (f"One virtual token as a *prefix*, {prefix['trainable']} parameters in all layers, "
            f"reaches {_losses(prefix)} on Turkish. Twenty as a *prompt*, "
            f"{prompt['trainable']:,} parameters, reach {_losses(prompt)}, "
            f"{_errors(lead)} behind")


@claim
def a_prefix_beats_lora_on_q_and_v(record: Record) -> str:
    """On Icelandic, to about 4,000 numbers, a prefix is ahead of LoRA on q and v of like size."""
    pairs = [(record.own("prefix", length), record.own("lora-qv", rank))
             for length, rank in ((1, 1), (5, 2), (10, 4))]
    lead = min(better(*pair) for pair in pairs)
    prefixes, loras = zip(*pairs, strict=True)
    larger = [prefix["trainable"] / lora["trainable"] - 1 for prefix, lora in pairs]
    assert larger[0] == -0.5 and larger[1] == larger[2]
    return (f"On Icelandic, prefixes of 1, 5 and 10 tokens reach {_losses(*prefixes)} with "
            f"{_counts(prefixes)} numbers, and LoRA of rank 1, 2 and 4 on q and v reaches "
            f"{_losses(*loras)} with {_counts(loras)}. Each prefix is ahead of its LoRA, by "
            f"{_errors(lead)} or more, the shortest with half its numbers, the other two with "
            f"{max(larger):.0%} more")


@claim
def lora_elsewhere_beats_a_prefix(record: Record) -> str:
    """On Icelandic, LoRA on the MLP or on all layers is ahead of a prefix of its size."""
    pairs = [(record.own(*lora), record.own("prefix", length)) for lora, length in
             ((("lora-mlp", 1), 5), (("lora-all", 1), 10), (("lora-mlp", 4), 20))]
    lead = min(better(*pair) for pair in pairs)
    (mlp1, five), (all1, ten), (mlp4, twenty) = pairs
    return (f"LoRA of rank 1 on the MLP is at {_losses(mlp1)} where the prefix of 5 is at "
            f"{_losses(five)}, rank 1 on all linear layers at {_losses(all1)} against "
            f"{_losses(ten)} of 10 tokens, and rank 4 on the MLP at {_losses(mlp4)} against "
            f"{_losses(twenty)} of 20 ({_counts([mlp4])} numbers against {_counts([twenty])}). "
            f"The smallest of these leads is {_errors(lead)}")


# ------------------------------------------------------------- result 2: learning and forgetting


@claim
def full_learns_and_forgets_more(record: Record) -> str:
    """On Icelandic, full fine-tuning learns and forgets more than LoRA on all linear layers."""
    full, lora = record.own("full", 0), record.own("lora-all", 4)
    learned, forgot = better(full, lora), better(lora, full, "best_base")
    return (f"LoRA of rank 4 on all linear layers stops at {_losses(lora)} where full fine-tuning "
            f"gets to {_losses(full)} ({_errors(learned)}), and leaves the base task at "
            f"{_losses(lora, key='best_base')} where full fine-tuning leaves it at "
            f"{_losses(full, key='best_base')} ({_errors(forgot)})")


@claim
def a_gentle_rate_learns_more_than_lora(record: Record) -> str:
    """At a third of its rate, full learns more than LoRA, and forgets less than at its rate."""
    gentle = record("gentle", "full", 0)
    full, lora = record.own("full", 0), record.own("lora-all", 4)
    learned, forgot = better(gentle, lora), better(gentle, full, "best_base")
    return (f"At a rate of {gentle['lr']:g}, a third of its best, full fine-tuning reaches "
            f"{_losses(gentle)} on Icelandic, better than LoRA on all linear layers by "
            f"{_errors(learned)}. It leaves the base task at {_losses(gentle, key='best_base')}, "
            f"where LoRA leaves it at {_losses(lora, key='best_base')}; that is better than at its "
            f"best rate by {_errors(forgot)}")


@claim
def learning_less_is_not_forgetting_less_on_turkish(record: Record) -> str:
    """On Turkish, LoRA on q and v and a prefix learn less than full does, and forget no less."""
    full = record.own("full", 0, "turkish")
    others = [record.own(method, MIDDLE[method], "turkish") for method in ("lora-qv", "prefix")]
    learned = min(better(full, other) for other in others)
    most = max(no_better(other, full, "best_base") for other in others)
    return (f"On Turkish, LoRA of rank 4 on q and v and a prefix of 10 stop at {_losses(*others)} "
            f"where full fine-tuning gets to {_losses(full)} ({_errors(learned)} or more), and "
            f"leave the base task at {_losses(*others, key='best_base')} where full fine-tuning "
            f"leaves it at {_losses(full, key='best_base')}: less forgotten by {_errors(most)} at "
            f"most, which does not count")


# --------------------------------------------------------------------------- result 3: the curves


@claim
def full_overfits_turkish(record: Record) -> str:
    """On Turkish, full fine-tuning at its last step is far behind its best one."""
    full = record.own("full", 0, "turkish")
    risen = better(full, full, other="final_test")
    return (f"On Turkish, full fine-tuning is best at step {full['best_step']:.0f} in the mean, "
            f"and then its test loss rises from {_losses(full)} to "
            f"{_losses(full, key='final_test')}, by {_errors(risen)}")


@claim
def full_does_not_overfit_icelandic(record: Record) -> str:
    """On Icelandic, full fine-tuning ends level with its best step."""
    full = record.own("full", 0)
    level(full, full, other="final_test")
    return (f"On Icelandic, with three times the names, full fine-tuning ends level with its best "
            f"step ({_losses(full)} and {_losses(full, key='final_test')})")


@claim
def few_parameters_do_not_overfit(record: Record) -> str:
    """On Turkish, LoRA of rank 8 on q and v ends level with its best step."""
    lora = record("report", "lora-qv", 8, "turkish")
    level(lora, lora, other="final_test")
    return (f"LoRA of rank 8 on q and v, at the shared rate, ends level with its best step "
            f"({_losses(lora)} and {_losses(lora, key='final_test')})")


@claim
def rank_and_alpha_overfit(record: Record) -> str:
    """On Turkish, at one rate and with alpha = 2r: the higher the rank, the worse the last step."""
    ranks = [record("report", "lora-all", rank, "turkish") for rank in (1, 4, 16)]
    least = min(better(ranks[0], ranks[1], "final_test"), better(ranks[1], ranks[2], "final_test"))
    return (f"LoRA on all linear layers, at one rate and with alpha = 2r, ends at "
            f"{_losses(*ranks, key='final_test')} with ranks 1, 4 and 16, {_errors(least)} or more "
            f"apart")


@claim
def rank_alone_overfits(record: Record) -> str:
    """On Turkish, at one rate and with alpha held: the higher the rank, the worse the last step."""
    ranks = [record.own("lora-all", rank, "turkish") for rank in (1, 4, 8)]
    (rate,) = {entry["lr"] for entry in ranks}
    least = min(better(ranks[0], ranks[1], "final_test"), better(ranks[1], ranks[2], "final_test"))
    return (f"With alpha held at 8 and one rate, {rate:g}, ranks 1, 4 and 8 end at "
            f"{_losses(*ranks, key='final_test')}, {_errors(least)} or more apart")


# ---------------------------------------------------------------------- result 4: is it low rank?


@claim
def training_at_a_rank_beats_cutting_to_it(record: Record) -> str:
    """LoRA trained at rank 1 or 4 is ahead of full fine-tuning's update cut to it."""
    pairs = [(record("report", "lora-all", rank, target), record.cut(target, rank))
             for rank in (1, 4) for target in TARGETS]
    lead = min(better(*pair) for pair in pairs)
    (t1, ct1), (i1, ci1), (t4, ct4), (i4, ci4) = pairs
    return (f"Full fine-tuning cut to rank 1 gives {_losses(ct1)} on Turkish and {_losses(ci1)} on "
            f"Icelandic; LoRA *trained* at rank 1 on all linear layers gives {_losses(t1, i1)}. At "
            f"rank 4 it is {_losses(ct4, ci4)} against {_losses(t4, i4)}. The smallest of these "
            f"four differences is {_errors(lead)}")


@claim
def attention_updates_are_narrower(record: Record) -> str:
    """On Turkish, full fine-tuning changes attention in fewer directions than the MLP."""
    attention, mlp = (record.spread("turkish", part) for part in ("self_attn", "mlp"))
    lead = better(attention, mlp)
    return (f"The updates of attention are narrower ({1 - attention['best_test']:.0%} in 16 "
            f"directions) than those of the MLP ({1 - mlp['best_test']:.0%}), by {_errors(lead)}")


@claim
def a_cut_undoes_overfitting(record: Record) -> str:
    """At its last step on Turkish, full fine-tuning cut to rank 8 is ahead of the whole update."""
    cut, whole = record.cut("turkish", 8, "final"), record.cut("turkish", 64, "final")
    lead = better(cut, whole)
    return (f"At the *last* step, where full fine-tuning has overfitted Turkish, the whole update "
            f"gives {_losses(whole)}. Cut to rank 8 it gives {_losses(cut)}, better by "
            f"{_errors(lead)}")


# ------------------------------------------------------ result 5: how a comparison of ranks fooled


@claim
def shared_rate_makes_rank_16_worse(record: Record) -> str:
    """With one rate for all ranks and alpha = 2r, rank 16 on the MLP is worse than rank 4."""
    four, sixteen = (record("report", "lora-mlp", rank) for rank in (4, 16))
    lag = better(four, sixteen)
    return (f"LoRA on the MLP reaches {_losses(four)} at rank 4 and only {_losses(sixteen)} at "
            f"rank 16, worse by {_errors(lag)}")


@claim
def own_rate_makes_rank_16_better(record: Record) -> str:
    """With its own rate rank 16 on the MLP is ahead of rank 4, whether alpha is 2r or held."""
    four = record("alpha", "lora-mlp alpha=2r", 4)
    grown, held = (record("alpha", f"lora-mlp alpha={rule}", 16) for rule in ("2r", "8"))
    leads = better(grown, four), better(held, four)
    better(four, record("alpha", "lora-mlp alpha=8", 1))
    return (f"On the MLP, with a rate of its own, rank 16 is *ahead* of rank 4 ({_losses(four)}): "
            f"by {_errors(leads[0])} with alpha = 2r ({_losses(grown)}) and by {_errors(leads[1])} "
            f"with alpha held ({_losses(held)})")


@claim
def shared_rate_leaves_rank_1_alone_with_few_names(record: Record) -> str:
    """With 100 names, one rate and a look every 50 steps, rank 1 is ahead of ranks 4 and 16."""
    one, four, sixteen = (record("subset", "lora-all", rank, train_names=FEW)
                          for rank in (1, 4, 16))
    lead = min(better(one, four), better(one, sixteen))
    return (f"With {FEW} names rank 1 ({_losses(one)}) is ahead of ranks 4 and 16 "
            f"({_losses(four, sixteen)}), by {_errors(lead)} or more")


@claim
def shared_rate_turns_the_ranks_round(record: Record) -> str:
    """At that rate, rank 4 is ahead of rank 1 with 400 names, and rank 16 of 4 with 1,600."""
    one, four = (record("subset", "lora-all", rank, train_names=400) for rank in (1, 4))
    low, high = (record("subset", "lora-all", rank, train_names=1600) for rank in (4, 16))
    lead = min(better(four, one), better(high, low))
    return (f"With 400 names rank 4 ({_losses(four)}) is ahead of rank 1 ({_losses(one)}), with "
            f"1,600 rank 16 ({_losses(high)}) of rank 4 ({_losses(low)}), by {_errors(lead)} or "
            f"more")


@claim
def own_rate_lets_every_rank_learn_from_few_names(record: Record) -> str:
    """With its own rate and an early look each rank is far ahead of the best before; 4 beats 1."""
    old = record("subset", "lora-all", 1, train_names=FEW)
    one, four, sixteen = (record("alpha", "lora-all alpha=2r", rank) for rank in (1, 4, 16))
    lead = min(better(new, old) for new in (one, four, sixteen))
    behind, tie = better(four, one), level(four, sixteen)
    return (f"With {FEW} names ranks 1, 4 and 16 now reach {_losses(one, four, sixteen)}, each "
            f"ahead of the best before ({_losses(old)}), by {_errors(lead)} or more. Ranks 4 and "
            f"16 are level ({_errors(tie)} apart); rank 1 is behind rank 4, by {_errors(behind)}")


@claim
def alpha_is_not_what_rank_16_lacked(record: Record) -> str:
    """In both puzzles, alpha = 2r with its own rate is not clearly different from alpha held."""
    most = max(undecided(record("alpha", grown, rank), record("alpha", held, rank))
               for grown, held, ranks in (("lora-mlp alpha=2r", "lora-mlp alpha=8", (1, 16)),
                                          ("lora-all alpha=2r", "lora-all alpha=2", (4, 16)))
               for rank in ranks)
    return (f"once each has its own rate, alpha = 2r and alpha held are at most {_errors(most)} "
            "apart, which does not decide between them")


@claim
def alpha_matters_at_rank_16_on_all_layers(record: Record) -> str:
    """On all linear layers, rank 16 with alpha = 2r is ahead of alpha held at its own rate."""
    grown, held = record("report", "lora-all", 16), record.own("lora-all", 16)
    lead = better(grown, held)
    return (f"On all linear layers with all names, rank 16 reaches {_losses(grown)} with alpha = "
            f"2r (rate {grown['lr']:g}) and {_losses(held)} with alpha held at 8 (rate "
            f"{held['lr']:g}, the best of its sweep), {_errors(lead)} apart")


@claim
def a_larger_alpha_is_ahead_on_all_layers(record: Record) -> str:
    """On all linear layers at one rate, the larger alpha is ahead: 8 at rank 1, 32 at rank 16."""
    pairs = {rank: (record("report", "lora-all", rank), record.own("lora-all", rank))
             for rank in (1, 16)}  # alpha = 2r, and 8
    (rate,) = {entry["lr"] for pair in pairs.values() for entry in pair}
    better(*pairs[1][::-1]), better(*pairs[16])
    of = {rank: [f"{entry['best_test']:.3f}" for entry in pair] for rank, pair in pairs.items()}
    return (f"at the rate of {rate:g} the larger of two alphas is ahead: at rank 1 alpha = 8 "
            f"({of[1][1]}) of alpha = 2 ({of[1][0]}), at rank 16 alpha = 32 ({of[16][0]}) of alpha "
            f"= 8 ({of[16][1]})")


@claim
def more_rank_overfits_few_names_sooner(record: Record) -> str:
    """With 100 names, rank 16's best step comes before rank 1's, and its last step is worse."""
    one, sixteen = (record("alpha", "lora-all alpha=2r", rank) for rank in (1, 16))
    better(sixteen, one, "best_step")
    lag = better(one, sixteen, "final_test")
    return (f"With {FEW} names the best step is {one['best_step']:.0f} for rank 1 and "
            f"{sixteen['best_step']:.0f} for rank 16, in the mean. At the last step rank 16 stands "
            f"at {_losses(sixteen, key='final_test')} and rank 1 at "
            f"{_losses(one, key='final_test')}, {_errors(lag)} apart")


@claim
def few_names_do_not_favour_a_prefix(record: Record) -> str:
    """With 100 names, a prefix is behind LoRA of its size on all layers, ahead of it on q and v."""
    lora = record("alpha", "lora-all alpha=2r", 1)
    prefix = record("alpha", "prefix", 10)
    attention = record("alpha", "lora-qv alpha=2r", 4)
    leads = better(lora, prefix), better(prefix, attention)
    return (f"With {FEW} names and a rate of its own, a prefix of 10 tokens ({_counts([prefix])} "
            f"numbers) reaches {_losses(prefix)}. LoRA of rank 4 on q and v "
            f"({_counts([attention])}) is behind it with {_losses(attention)} "
            f"({_errors(leads[1])}), LoRA of rank 1 on all linear layers ({_counts([lora])}) is "
            f"ahead with {_losses(lora)} ({_errors(leads[0])})")
