"""The bill beside a card: no byte of the calculator's bill is lost on the way into the widget."""

import pytest
from book_pages.widgets.bill import MODELS, BillExplorer, parts
from real_models import accounting
from traitlets import TraitError


def test_items_add_up_to_the_calculators_bill():
    widget = BillExplorer()
    for name in MODELS:
        whole = accounting.count_full(accounting.load_model(name))
        found = dict((part, size) for part, _, size in widget.bills[name]["Full fine-tuning"])
        n = whole.trainable  # 2 + 4 + 2 + 8 bytes (Rajbhandari et al., 2020, section 3.1)
        assert found == {"trained weights": 2 * n, "a second copy": 4 * n, "gradients": 2 * n,
                         "Adam's averages": 8 * n}
        for way in ("LoRA", "QLoRA"):
            sizes = [size for *_, size in widget.bills[name][way]]
            assert sum(sizes) < 4 * n and len(sizes) == 4
    model = accounting.load_model("Llama-2-7B")
    bill = accounting.memory_bill(accounting.count_lora(model, rank=8, target_modules=[
        "q_proj", "v_proj"]), base="nf4+dq")
    assert parts(bill) == widget.bills["Llama-2-7B"]["QLoRA"]
    assert sum(size for *_, size in parts(bill)) == bill.bytes


def test_settings_outside_are_refused():
    for name, value in (("model", "GPT-5"), ("way", "DoRA"), ("card", "25"), ("shown", 6)):
        with pytest.raises(TraitError, match=f"{name} is one of"):
            setattr(BillExplorer(), name, value)
