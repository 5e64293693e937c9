"""The guide of section 9.5: situations, advice and evidence, as a table and as questions.

Each row stands here once. The table prints all rows; the widget (widgets/advice.py) asks for
those that answer one of `QUESTIONS`. What this book has measured is said by the claims and counts
themselves: `measured` names the functions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from IPython.display import HTML

from book_pages import pages, speaking
from book_pages.widgets import bill
from experiments import claims, small_llama, smollm2
from experiments.tasks import CRON, TEST
from real_models import accounting

#: What a guide can lead to: the four methods, with the choices that decide most about them.
OPTIONS = {"full": "full fine-tuning", "merged": "LoRA, merged", "lora": "LoRA, not merged",
           "four": "LoRA on a 4-bit base", "adapters": "adapters", "prefix": "a prefix",
           "prompt": "a prompt"}
VIRTUAL = ("prefix", "prompt")
MODEL = "Llama-2-7B"  # of what is counted
NINE_SEVEN = "07-fine-tuning-a-real-model.ipynb"


@dataclass(frozen=True)
class Row:
    """A situation, what to consider there, and on what that rests.

    Attributes
    ----------
    when, consider, because, evidence : Markdown of one line, with links and formulas.
    measured : functions that say what this book counted, or what its runs gave.
    out : option -> why arithmetic or algebra leaves it out.
    behind : option -> in which comparison of ours it did less well. That is no law.
    """

    when: str
    consider: str
    because: str
    evidence: str
    measured: tuple[Callable[[], str], ...] = ()
    out: dict[str, str] = field(default_factory=dict)
    behind: dict[str, str] = field(default_factory=dict)


def _claim(function: Callable[[claims.Record], str]) -> Callable[[], str]:
    """A claim of section 9.7 as a sentence; it raises where the seeds don't bear it out."""
    return lambda: f"{function(claims.recorded())}."


def states() -> str:
    """What training a model holds, in three ways, from the calculator."""
    full, sixteen, four = (f"{one.bytes / accounting.GB:.1f} GB" for one in
                           bill.ways(accounting.load_model(MODEL)).values())
    return (f"{MODEL}: full fine-tuning in mixed precision holds {full}, LoRA of rank {bill.RANK} "
            f"on q and v {sixteen} with a base in 16 bits and {four} with one in 4 bits. What is "
            "kept for the backward pass comes on top.")


def files() -> str:
    """What a task costs on disk and at work, unmerged and merged."""
    model = accounting.load_model(MODEL)
    lora = accounting.count_lora(model, bill.RANK, bill.TARGETS)
    small, whole = (accounting.saved_bytes(count, "bfloat16") for count in
                    (lora, accounting.count_full(model)))
    return (f"{MODEL} in 16 bits: one task's LoRA of rank {bill.RANK} on q and v is a file of "
            f"{small / 1e6:.1f} MB, its merged model one of {whole / 1e9:.1f} GB. Unmerged it "
            f"multiplies {lora.trainable:,} numbers more for each token, merged none.")


def taken_off() -> str:
    """The old loss once a prefix or a prompt is taken off, in all recorded runs of both."""
    old = small_llama.load_before()["losses"]["base validation"]
    after = [run["detached_base"] for run in small_llama.load_runs("report")
             if "detached_base" in run]
    if set(after) != {old}:
        raise claims.ClaimFails(f"taken off, a prefix or prompt leaves {set(after)}, not {old}")
    return (f"In all {len(after)} recorded runs of a prefix or a prompt the loss on the old names "
            f"is {old:.3f} once it is taken off, as before the training.")


def schedules() -> str:
    """What LoRA taught the speaking model, in two places."""
    runs = smollm2.load_runs("after")
    everywhere, attention = (speaking.find(runs, method=method, **speaking.FIRST)
                             for method in ("lora-all", "lora-qv"))
    asked = len(CRON.rows("test"))
    return (f"The speaking model learned to write schedules as cron expressions: "
            f"{everywhere['exact']['test']} of {asked} right with LoRA of rank "
            f"{everywhere['size']} on all linear layers, {attention['exact']['test']} with it on q "
            f"and v alone, which has {attention['trainable'] / everywhere['trainable']:.0%} of the "
            "numbers (one run each, at one rate).")


def in_the_prompt() -> str:
    """What three examples in the prompt gave the speaking model, which learned nothing."""
    row = speaking.find(smollm2.load_runs("before"), method="three")
    asked = sum(len(CRON.rows(group)) for group in TEST)
    form, right = sum(row["form"].values()), sum(row["exact"].values())
    return (f"With three examples in its prompt and no training, {form} of the speaking model's "
            f"{asked} answers were cron expressions, and {right} were right.")


_PER_TOKEN = "works for each token, forever"
_WHOLE = "is a whole model for each task"
_POSITIONS = "takes positions"
_ALL_WEIGHTS = "keeps gradients and averages of every weight"
_NO_ROOM = "keeps its base in 16 bits, which does not fit"
_OLD = "writes over the old weights, so keep a copy"
_ICELANDIC = "was behind LoRA on all linear layers on Icelandic"

ROWS = {
    "latency": Row(
        "no extra cost at inference", "LoRA, merged",
        "the only one of the four that disappears into the weights; trained on a 4-bit base, too: "
        "into the original ones, not into the four bits",
        "[the table of costs](05-choosing-a-method.ipynb#what-it-costs-after-training); merging in "
        "[9.2](02-lora.ipynb); [measured times](how-fast-it-is.ipynb#writing-one-token-at-a-time)",
        (files,),
        out=dict.fromkeys(("lora", "adapters", *VIRTUAL), _PER_TOKEN)),
    "tools": Row(
        "files that common tools read", "LoRA first",
        "PEFT has LoRA, prefixes and prompts, but no bottleneck adapters; for those there is the "
        "library adapters", "[9.8](08-from-numpy-to-hugging-face.ipynb)"),
    "many": Row(
        "many tasks on one running base", "LoRA unmerged; adapters; prefix or prompt",
        "rows of one batch may carry different updates, and each row can use another task's "
        "adapter; small files. PEFT does not read bottleneck adapters",
        "[the table of combinations](05-choosing-a-method.ipynb#what-can-be-combined); adapters "
        "in [9.3](03-adapters.ipynb); storage in [9.1](01-the-fine-tuning-problem.ipynb); "
        "[a case with forty customers]"
        "(05-choosing-a-method.ipynb#one-case-from-the-requirement-to-the-result)",
        (files,), out=dict.fromkeys(("full", "merged"), _WHOLE)),
    "file": Row(
        "the smallest file per task", "prompt tuning",
        "$dP$ numbers; 20,480 for a T5 of 11 billion",
        "[the four formulas](05-choosing-a-method.ipynb#what-each-method-trains); [Lester et al., "
        "2021, section 1](references.md). But see PreEmbed in "
        "[the figure of table 4](05-choosing-a-method.ipynb#gpt-3-eight-settings)"),
    "few numbers": Row(
        "very few numbers, and attention is the place",
        "a prefix; try LoRA on the MLP against it",
        "on our small Llama and Icelandic a prefix beat LoRA on q and v of about its size, up to "
        "some 4,000 numbers; LoRA on the MLP of that size beat the prefix. With 0.1 % of mBART a "
        "prefix beat parallel adapters with one head, and one with several heads was level with it",
        f"[9.7, result 1]({NINE_SEVEN}#result-1-what-is-learned); "
        "[He et al., 2022, table 4](references.md)",
        (_claim(claims.a_prefix_beats_lora_on_q_and_v),
         _claim(claims.lora_elsewhere_beats_a_prefix))),
    "context": Row(
        "the context is short, or every position is needed", "LoRA or adapters",
        "virtual tokens take positions",
        "[the table of costs](05-choosing-a-method.ipynb#what-it-costs-after-training); "
        "[9.4](04-prefix-and-prompt-tuning.ipynb)", out=dict.fromkeys(VIRTUAL, _POSITIONS)),
    "start": Row(
        "a start exactly at the pretrained model", "LoRA; adapters with $W_\\uparrow = 0$",
        "$B = 0$; a zero prefix is not neutral",
        "[9.2](02-lora.ipynb), [9.3](03-adapters.ipynb), [9.4](04-prefix-and-prompt-tuning.ipynb)"),
    "states": Row(
        "room for the model in 16 bits, not for what full fine-tuning keeps beside it",
        "any of the small methods",
        "gradients, the optimizer's averages and the second copy are kept only for what is trained",
        "the bill in [9.1](01-the-fine-tuning-problem.ipynb#the-first-bill-memory-while-training); "
        "[your own model](05-choosing-a-method.ipynb#your-model-your-memory)",
        (states,), out={"full": _ALL_WEIGHTS}),
    "memory": Row(
        "little memory for training",
        "LoRA on a 4-bit base ([shrinking the base](shrinking-the-base.ipynb))",
        "the frozen base is nearly all of the model states (what is kept for the backward pass "
        "comes on top, and checkpointing is the first help against that); mean MMLU over several "
        "model sizes and two data sets 53.1 with NF4 and double quantization, 53.0 with 16 "
        "bits. Adapters and virtual tokens can stand beside such a base as well; no run of this "
        "book has tried it",
        "the bill in [9.1](01-the-fine-tuning-problem.ipynb#the-first-bill-memory-while-training); "
        "[Dettmers et al., 2023, table 4](references.md)",
        (states,), out={"full": _ALL_WEIGHTS, **dict.fromkeys(("merged", "lora"), _NO_ROOM)}),
    "budget": Row(
        "LoRA, and a budget to place", "the MLP, alone or with attention",
        "MLP alone at rank 128 beat attention alone at rank 256 on Llama-3.1-8B; on our small "
        "Llama and Icelandic, at about equal sizes, the MLP beat q and v, and all linear layers "
        "were not ahead of the MLP",
        "[LoRA Without Regret, Thinking Machines, 2025](references.md); "
        f"[9.7, result 1]({NINE_SEVEN}#result-1-what-is-learned). On GPT-3, q and v at rank 4 "
        "clearly beat q alone at rank 8, and v alone by little, 0.7 points (stated fluctuation "
        "±0.5) and 0.3 (±0.1): [Hu et al., 2021, table 5](references.md)",
        (_claim(claims.q_and_v_come_last_at_equal_size),)),
    "relative": Row(
        "a relative of LoRA (LoRA+, rsLoRA, DoRA, PiSSA …)",
        "plain LoRA with a swept rate first; then the relative",
        "tuned, plain LoRA was within 2 % of the best of its size on Icelandic, not clearly so on "
        "Turkish; the order differed from task to task",
        "[the family](the-family.ipynb#the-comparison); for DoRA the races below this table"),
    "skill": Row(
        "a new language or a new skill", "LoRA on all linear layers; try higher ranks",
        "on Icelandic each step in rank learned more, and full fine-tuning most; on Turkish, with "
        "a third of the names, rank bought little; for a task in another language than the "
        "pretraining LoRA's own paper expects a small rank to fall short",
        f"[9.7, result 1]({NINE_SEVEN}#result-1-what-is-learned); "
        "[a model that speaks](a-model-that-speaks.ipynb#after-twenty-answers); "
        "[Hu et al., 2021, footnote 6](references.md). No run of this book changes nothing but how "
        "far the task is",
        (_claim(claims.more_rank_learns_more), _claim(claims.full_leads_with_more_data), schedules),
        behind=dict.fromkeys(("adapters", *VIRTUAL), _ICELANDIC)),
    "form": Row(
        "another form or style of what the model can do",
        "a few examples in the prompt; then any of the small methods",
        "three examples in its prompt bought our speaking model's answers about schedules the form "
        "more often than not, and none that was right",
        "[a model that speaks](a-model-that-speaks.ipynb#before-what-examples-in-the-prompt-buy). "
        "Which method learns a form best, no run of this book says", (in_the_prompt,)),
    "thousands": Row(
        "some thousand examples", "LoRA on all linear layers; sweep the rate, then the rank",
        "it came closest to full fine-tuning on Icelandic; on Turkish, with a third of the names, "
        "all but the prompt ended close together",
        f"[9.7, result 1]({NINE_SEVEN}#result-1-what-is-learned). The two differ in more than "
        "their number of names",
        tuple(map(_claim, (claims.full_leads_with_more_data, claims.prompt_tuning_learns_least,
                           claims.lora_elsewhere_beats_a_prefix))),
        behind={"prompt": "was behind all others on both languages",
                "prefix": "was behind LoRA of its size on the MLP and on all linear layers, on "
                          "Icelandic"}),
    "very much": Row(
        "very much to learn: continued pretraining, code, mathematics",
        "full fine-tuning, or a high rank",
        "low-rank LoRA falls clearly behind. Our runs are all small; of their two data sets every "
        "PEFT method fell behind on the larger one, Icelandic",
        "[Biderman et al., 2024, abstract](references.md); "
        f"[9.7, result 1]({NINE_SEVEN}#result-1-what-is-learned)",
        (_claim(claims.full_leads_with_more_data), _claim(claims.prompt_tuning_learns_least))),
    "old model": Row(
        "the old model back, whenever the task is off", "any of the four, unmerged",
        "taken off, it gives the old model back exactly",
        f"[9.7, result 2]({NINE_SEVEN}#result-2-learning-and-forgetting)",
        (taken_off,), out=dict.fromkeys(("full", "merged"), _OLD)),
    "keep": Row(
        "keeping what the model knows, with the task on", "any of them; measure both losses",
        "LoRA forgot less on a 7B model; in our runs it did on Icelandic, but not for the same "
        "amount learned, and not on Turkish",
        f"[9.7, result 2]({NINE_SEVEN}#result-2-learning-and-forgetting); "
        "[Biderman et al., 2024](references.md)",
        tuple(map(_claim, (claims.full_learns_and_forgets_more,
                           claims.a_gentle_rate_learns_more_than_lora,
                           claims.learning_less_is_not_forgetting_less_on_turkish)))),
    "few examples": Row(
        "very few examples", "any rank, with a rate of its own and an early look; try two methods",
        "under one shared rate only our lowest rank helped; with a rate for each, ranks 1 to 16 "
        "all did, and a prefix ended between LoRA on all layers and LoRA on q and v, as with all "
        "names; about prefixes the papers disagree",
        f"[9.7, result 5]({NINE_SEVEN}#result-5-how-a-comparison-of-ranks-fooled-us); "
        "[GPT-3 with little data](05-choosing-a-method.ipynb#with-little-data); "
        "[Li and Liang, 2021, abstract](references.md)",
        (_claim(claims.own_rate_lets_every_rank_learn_from_few_names),
         _claim(claims.more_rank_overfits_few_names_sooner),
         _claim(claims.few_names_do_not_favour_a_prefix)),
        behind={"prefix": "was behind LoRA of its size on all linear layers with 100 names"}),
    "quality": Row(
        "more quality than one method gives",
        "first the best single method with a rate of its own; then a combination",
        "on XSum a prefix of 30 with a parallel adapter of 512 reached ROUGE-2 21.90. The best "
        "single method in the same paper, a parallel adapter with the scale 4, had 21.54, Pfeiffer "
        "adapters 20.89. On our small Llama LoRA and a prompt together were not ahead of LoRA "
        "alone",
        "[He et al., 2022, tables 5 and 6](references.md); [exercise 5]"
        "(solutions/sol5-prompted-lora.ipynb#the-stretch-goal)"),
    "unknown": Row(
        "you do not know yet", "LoRA first",
        "exact start, mergeable, strong in the comparison above",
        "[the figure of table 4](05-choosing-a-method.ipynb#gpt-3-eight-settings); then tune the "
        "learning rate: the best one was 9.8 times that of full fine-tuning, fitted over 14 Llama "
        "and Qwen models ([LoRA Without Regret, Thinking Machines, 2025](references.md)); in our "
        "sweeps at the middle sizes, too, it lay above that of full fine-tuning; with a sweep for "
        f"each size, ranks 2 and 16 on all layers had the same rate on Turkish ([9.7]({NINE_SEVEN}"
        "#the-protocol))"),
}

#: Question -> answer -> its row; None where an answer narrows nothing down.
QUESTIONS: dict[str, dict[str, str | None]] = {
    "What does the card hold?": {
        "All that full fine-tuning keeps": None, "The model in 16 bits, and some more": "states",
        "Less than the model in 16 bits": "memory"},
    "How will it be served?": {
        "One task, and speed counts": "latency", "Many tasks on one base": "many",
        "Either way": None},
    "Is every position of the context needed?": {"Yes": "context", "No": None},
    "What shall become of what it knew?": {
        "It must stay, with the task on": "keep",
        "It must come back with the task off": "old model", "It may go": None},
    "How many examples are there?": {
        "About a hundred": "few examples", "Some thousand": "thousands",
        "Enough for a pretraining": "very much"},
    "How far is the task from what it can do?": {
        "Another form or style": "form", "A new language or skill": "skill"},
}


def table() -> HTML:
    """The whole guide."""
    return pages.table(["if this matters most", "consider", "because", "evidence"],
                       [[pages.pieces(text) for text in (row.when, row.consider, row.because,
                                                         row.evidence)] for row in ROWS.values()])
