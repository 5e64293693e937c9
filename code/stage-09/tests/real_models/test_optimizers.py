"""What optimizers keep, against what torch, transformers and bitsandbytes hold after a step."""

import json
import math
import os
import subprocess
from pathlib import Path

import needs
import pytest

from real_models import accounting as ac
from real_models.optimizers import EIGHT_BIT_SMALLEST, OPTIMIZERS, state_bytes

TESTS = Path(__file__).parents[1]
#: Whose numbers are in 32 bits whatever is trained.
ALWAYS_WIDE = ("paged-adamw", "lion", "adafactor, transformers")


@pytest.fixture(scope="module")
def held():
    python = needs.oracle()
    done = subprocess.run([python, TESTS / "oracle" / "optimizer_bytes.py"], check=True, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def test_bytes_are_those_that_the_implementations_hold(held):
    assert {name.partition(",")[0] for name in held} == OPTIMIZERS.keys()
    for name, by_dtype in held.items():
        for dtype, by_shape in by_dtype.items():
            width = 4 if dtype == "float32" or name in ALWAYS_WIDE else 2
            for shape, found in by_shape.items():
                row = OPTIMIZERS[name.partition(",")[0]]
                assert state_bytes(row, json.loads(shape), width) == found, (name, dtype, shape)
    assert {len(json.loads(shape)) for shape in held["muon"]["float32"]} == {2}
    shapes = list(map(json.loads, held["adamw"]["float32"]))
    assert {math.prod(shape) >= EIGHT_BIT_SMALLEST for shape in shapes} == {True, False}


@pytest.mark.parametrize("shape, hidden", [([4096], True), ([8, 16, 32], True), ([100, 64], False)])
def test_what_muon_does_not_take_is_adamws(shape, hidden):
    muon, adamw = (state_bytes(OPTIMIZERS[name], shape, 4, hidden) for name in ("muon", "adamw"))
    assert muon == adamw == 8 * math.prod(shape)


def state(counted, name, **settings):
    item = ac.memory_bill(counted, optimizer=name, **settings).items[-1]
    assert item.label == "optimizer state"
    return item.bytes


@pytest.fixture(scope="module")
def llama():
    return ac.load_model("Llama-2-7B")


def test_full_fine_tuning_by_hand(llama):
    """Llama-2-7B: 32 layers of 4 matrices of 4,096² and 3 with 11,008; 65 norms; 2 of 32,000."""
    full, d, ff = ac.count_full(llama), 4096, 11008
    outer = 2 * 32_000 * d + 65 * d
    assert state(full, "muon") == 4 * (llama.num_parameters - outer) + 8 * outer
    assert state(full, "adafactor") == 4 * (
        32 * (4 * 2 * d + 3 * (d + ff)) + 2 * (32_000 + d) + 65 * d)
    assert state(full, "lion") == state(full, "sgd-momentum") == 4 * llama.num_parameters
    assert state(full, "lion", convention="bf16") == 2 * llama.num_parameters


def test_lora_by_hand(llama):
    lora = ac.count_lora(llama, 8, ["q_proj", "down_proj"])
    sides = 32 * (2 * 4096 + (4096 + 11008))  # inputs and outputs of what is adapted
    assert lora.trainable == 8 * sides
    assert state(lora, "muon") == 4 * lora.trainable  # all are matrices of hidden layers
    assert state(lora, "adafactor") == 4 * (sides + 2 * 64 * 8)
    small = ac.count_lora(llama, 1, ["q_proj", "down_proj"])  # rows of 4,096 and 11,008
    assert state(small, "adamw-8bit") == 2 * (sides + 4 * sides // 256)


def test_a_head_that_is_copied_is_no_hidden_layer_and_in_the_bases_bits():
    bert = ac.read_model(ac.known_models()["BERT-base (cased)"]["config"], "SEQ_CLS")
    lora, head = ac.count_lora(bert, 8), 768 * 2 + 2
    assert lora.copied == head
    own = lora.trainable - head
    assert state(lora, "muon") == 4 * own + 2 * 2 * head  # AdamW's two, 2 bytes each
    assert state(lora, "muon", base="float32") == 4 * own + 8 * head
    assert state(lora, "adamw") == 8 * own + 4 * head


@pytest.mark.parametrize("method", ac._METHODS)
def test_every_method_has_its_shapes_or_is_refused(method, llama):
    """P-tuning trains a network that is not saved: nothing here knows its matrices."""
    counted = ac._METHODS[method][0](llama)
    if method == "p-tuning":
        with pytest.raises(ValueError, match="depends on the shapes of what is trained"):
            state(counted, "adafactor")
    else:
        most = counted.trainable + len(counted.tensors)  # (IA)3's columns are matrices of one row
        assert 0 < state(counted, "adafactor") <= 4 * most
    assert state(counted, "lion") > 0


def test_what_peft_saves_and_never_trains_has_no_state():
    gpt2 = ac.load_model("GPT-2 (124M)")
    plain = ac.count_lora(gpt2, 8, ["c_attn"])
    tiny = ac.load_model("Llama-3.2-1B")
    embedded = ac.count_lora(tiny, 8, ["embed_tokens"])  # the file has its frozen weights
    assert embedded.stored > embedded.trainable
    assert state(embedded, "adafactor") == 4 * (8 + 128_256 + 2048 + 8)
    assert state(plain, "muon") == 4 * plain.trainable


def test_a_whole_file_of_biases_that_peft_names_twice_is_refused_and_not_counted_twice():
    bert = ac.load_model("BERT-base (cased)")
    counted = ac.count_lora(bert, 8, bias="all")
    with pytest.raises(ValueError, match="take AdamW"):
        state(counted, "adamw-8bit")


def test_zero_divides_as_its_paper_says():
    """Rajbhandari et al. (2020), figure 1: 7.5 billion parameters, 64 cards, mixed precision."""
    parameters, llama = 7_500_000_000, ac.load_model("Llama-2-7B")
    full = ac.Count("full", llama, parameters, parameters, {})
    bill = ac.memory_bill(full, convention="mixed")
    for sharding, gigabytes in {"ddp": 120, "zero1": 31.4, "zero2": 16.6, "zero3": 1.9,
                                "fsdp": 1.9}.items():
        each = ac.bill_per_card(bill, 64, sharding)
        assert round(each.bytes / ac.GB, 1) == gigabytes
