"""Which sizes must fit one another: ask transformers for models of sizes that do not.

    .venv-oracle/bin/python code/stage-09/tests/oracle/infer_fits.py

Each number in the small configurations of make_trial_fixtures.py is made larger, by one and by two.
Where transformers then refuses, because heads do not divide a width or a rotary width is odd, the
rule goes to data/families.json, in the notation of families.py; what the models of state spaces ask
stands here. tests/fixtures/misfits.json has all answers. Half an hour, if others use the machine.
"""

import copy
import json
import re
import sys
import warnings
from collections import defaultdict

import make_trial_fixtures as trials
import torch
import transformers

STAGE = trials.known.TESTS.parent
DATA = STAGE / "data" / "families.json"
FIXTURES = trials.known.TESTS / "fixtures" / "misfits.json"
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "n_embed")
HEADS = ("encoder_attention_heads", "num_attention_heads", "attention_heads", "n_head", "n_heads",
         "num_heads")
STATES = {"falcon_h1": ["inner / mamba_n_heads", "inner / mamba_n_heads = mamba_d_head"],
          "granitemoehybrid": ["inner / mamba_n_heads", "inner / mamba_n_heads = mamba_d_head"],
          "mamba2": ["inner / num_heads = head_dim"]}


def tried(family: str, base: dict) -> list[tuple]:
    """Part, key, value, and the number of parameters or why there is no such model."""
    rows = []
    for part in ["", *(p for p, inner in base.items() if isinstance(inner, dict))]:
        for key, value in (base[part] if part else base).items():
            if isinstance(value, bool) or not isinstance(value, int) or key == "pad_token_id":
                continue
            for other in (value + 1, value + 2):
                config = copy.deepcopy(base)
                (config[part] if part else config)[key] = other
                try:
                    with torch.device("meta"):
                        answer = sum(p.numel() for p in trials.build(config).parameters())
                except Exception as error:
                    answer = str(error)
                rows.append((part, key, other, answer))
    return rows


def rules_of(table: dict, base: dict, rows: list[tuple]) -> list[str]:
    """What the refusals say, in the table's symbols, or a key where it has none."""
    symbols = dict(line.split(" = ", 1) for line in map(
        str.strip, table["symbols"].strip().splitlines()))
    rules = set()

    def symbol(*keys: str) -> str | None:
        return next((name for name, rule in symbols.items()
                     if {each.rstrip("?") for each in rule.split(" | ")} & {*keys}), None)

    for part, key, _, answer in rows:
        inside = f"{part}." * bool(part)
        if "validate_rope" in str(answer):
            rules.add(f"{symbol(inside + key)} / 2")
        elif re.search("divisible|multiple|evenly|The hidden size", str(answer)):
            names = [name for name in HEADS if name in (base[part] if part else base)]
            heads = symbol(*(inside + name for name in HEADS))
            usual = re.search(r"num_heads`: (\d+)|heads \((\d+)\)", answer)
            if heads is None:
                heads = inside + (names[0] if names else "num_attention_heads")
                heads += "" if names or not usual else f" | {usual[1] or usual[2]}"
            rules.add(f"{symbol(*(inside + name for name in WIDTHS))} / {heads}")
    return sorted(rules)


def main() -> None:
    document = json.loads(DATA.read_text("utf-8"))
    bases, answers, fits = {}, [], defaultdict(list)
    for family, table in trials.known.families.FAMILIES.items():
        if family == "phi-msft":
            continue
        print(family, file=sys.stderr, flush=True)
        bases[family] = trials.example(family)
        rows = tried(family, bases[family])
        fits[family] += rules_of(table, bases[family], rows) + STATES.get(family, [])
        answers += [[family, *row[:3], row[3] if isinstance(row[3], int) else None]
                    for row in rows]
    document["fits"] = {family: rules for family, rules in sorted(fits.items()) if rules}
    DATA.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
    FIXTURES.write_text(json.dumps({"bases": bases, "tried": answers},
                                   separators=(",", ":")).replace('["', '\n["') + "\n", "utf-8")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    main()
