"""accounting.py against PEFT on small models: once wrong, and at random settings."""

import hashlib
import json
from pathlib import Path

import pytest

from real_models import accounting as ac

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "trials.json"
TRIALS = json.loads(FIXTURES.read_text(encoding="utf-8"))
#: What PEFT counts and we refuse, by a word of our reason: nothing else may be refused.
REFUSED = ("copies of a copy", "OFT is counted on", "PEFT adapts convolutions",
           "beside its tokens", "saved whole besides", "are counted without use_dora")


def ask(model, method, arguments):
    if counter := getattr(ac, f"count_{method}", None):
        return counter(model, **arguments)
    return ac.count_method(model, method, **arguments)


def file_of(counted):
    header = ac.safetensors_header(counted.tensors, "float32",
                                   dict.fromkeys(counted.integer_tensors, "int32"))
    return ac.saved_bytes(counted), hashlib.sha256(header).hexdigest()


@pytest.mark.parametrize("row", TRIALS, ids=lambda row: row["config"]["architectures"][0])
def test_what_peft_counts_saves_and_refuses(row):
    model = ac.read_model(row["config"])
    for answer in row["answers"]:
        question = answer["method"], answer["arguments"]
        try:
            counted = ask(model, *question)
        except (TypeError, ValueError) as error:
            assert "error" in answer or any(word in str(error) for word in REFUSED), question
            continue
        assert "error" not in answer, question
        assert (counted.trainable, counted.total) == (answer["trainable"], answer["all"]), question
        if "file_bytes" in answer:
            assert file_of(counted) == (answer["file_bytes"], answer["header_sha256"]), question
