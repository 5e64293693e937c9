"""The memory bill of training, item by item, beside a card (section 9.1)."""

import json

import traitlets

from book_pages.figures import COLORS
from book_pages.widgets import explorer
from real_models import accounting

MODELS = ("GPT-2 (124M)", "Llama-3.2-1B", "Qwen2.5-3B", "Llama-2-7B", "Llama-2-13B", "Llama-2-70B")
CARDS = (8, 16, 24, 48, 80)  # GB
RANK, TARGETS = 8, ["q_proj", "v_proj"]
#: What an item's label has in it -> its name here and its colour.
PARTS = {"frozen": ("frozen weights", "#9aa3b0"), "scales": ("frozen weights", "#9aa3b0"),
         "trainable": ("trained weights", COLORS["full"]), "copy": ("a second copy", "#6b7686"),
         "gradients": ("gradients", COLORS["adapters"]),
         "optimizer": ("Adam's averages", COLORS["lora"])}

_STYLE = """
.peft-widget .pw-fill { display: block; width: 100%; height: 104px; margin-top: 0.8rem; }
.peft-widget .pw-fill text { fill: var(--ink); font-size: 13px; }
.peft-widget .pw-fill .pw-card { fill: none; stroke: var(--ink); stroke-width: 2; }
.peft-widget .pw-fill .pw-over { fill: none; stroke: var(--bad); stroke-width: 2;
  stroke-dasharray: 5 3; }
.peft-widget .pw-fill .pw-item { fill: var(--series); transition: width 0.25s; }
.peft-widget .pw-parts-of { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0.5rem 0 0;
  padding: 0; list-style: none; font-size: 0.875rem; color: var(--ink); }
.peft-widget .pw-parts-of li[aria-hidden] { color: var(--soft); }
.peft-widget .pw-parts-of li[aria-hidden] i { opacity: 0.3; }
.peft-widget .pw-parts-of i { display: inline-block; width: 0.8rem; height: 0.8rem;
  margin-right: 0.4rem; background: var(--series); print-color-adjust: exact; }
@media (prefers-reduced-motion: reduce) { .peft-widget .pw-fill .pw-item { transition: none; } }
@container (min-width: 34rem) { .peft-widget .pw-pair { grid-template-columns: 1fr 1fr; } }
"""


def ways(model: accounting.Model) -> dict[str, accounting.Bill]:
    """What section 9.1 compares: the whole model, and LoRA on two kinds of base."""
    lora = accounting.count_lora(model, rank=RANK, target_modules=_targets(model))
    return {"Full fine-tuning": accounting.memory_bill(accounting.count_full(model),
                                                       convention="mixed"),
            "LoRA": accounting.memory_bill(lora, base="bfloat16"),
            "QLoRA": accounting.memory_bill(lora, base="nf4+dq")}


def _targets(model: accounting.Model) -> list[str]:
    return ["c_attn"] if model.name.startswith("GPT-2") else TARGETS


def parts(bill: accounting.Bill) -> list[tuple[str, str, int]]:
    """(name, colour, bytes) of the items, those of one name added up."""
    found: dict[tuple[str, str], int] = {}
    for item in bill.items:
        part = next(part for key, part in PARTS.items() if key in item.label)
        found[part] = found.get(part, 0) + item.bytes
    return [(*part, size) for part, size in found.items()]


class BillExplorer(explorer.Widget):
    """A card that fills up, item by item, with what training a model holds.

    Attributes
    ----------
    model, way, card : str
        One of `MODELS`, of `ways` and of `CARDS`.
    shown : int
        How many items are on the card.
    """

    _esm = explorer.front_end("bill")
    _css = explorer.Widget._css + _STYLE

    model = traitlets.Unicode("Llama-2-7B").tag(sync=True)
    way = traitlets.Unicode("Full fine-tuning").tag(sync=True)
    card = traitlets.Unicode("24").tag(sync=True)
    shown = traitlets.Int(1).tag(sync=True)
    _bills = traitlets.Unicode().tag(sync=True)  # JSON: model -> way -> items
    _models = traitlets.List(list(MODELS)).tag(sync=True)
    _cards = traitlets.List([str(size) for size in CARDS]).tag(sync=True)

    def __init__(self):
        self.bills = {name: {way: parts(bill) for way, bill in
                             ways(accounting.load_model(name)).items()} for name in MODELS}
        super().__init__(_bills=json.dumps(self.bills, separators=(",", ":")))

    @traitlets.validate("model", "way", "card", "shown")
    def _listed(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = {"model": MODELS, "way": list(self.bills[MODELS[0]]), "card": self._cards,
                   "shown": range(6)}[name]
        if value not in allowed:
            raise traitlets.TraitError(f"{name} is one of {list(allowed)}, got {value!r}")
        return value

    def fallback(self):
        return ("Memory of training without activations, GB (mixed precision; LoRA of rank "
                f"{RANK} on the query and value projections)",
                ["model", *self.bills[MODELS[0]]],
                [[name, *(f"{sum(size for *_, size in bill) / accounting.GB:.1f}"
                          for bill in bills.values())] for name, bills in self.bills.items()])
