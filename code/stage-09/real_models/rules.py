"""What an expression of the tables means, and what a name of PEFT's; how settings are refused."""

from collections.abc import Iterable, Mapping
from typing import Any

from real_models.patterns import fullmatch

#: Trained along with the adapter, by PEFT's classes for the task.
SAVED_HEADS = {"SEQ_CLS": ["classifier", "score"], "TOKEN_CLS": ["classifier", "score"],
               "QUESTION_ANS": ["qa_outputs"]}


def evaluate(expression: str, symbols: Mapping[str, int]) -> int:
    # The expressions are those of our tables, never a reader's: only the numbers are.
    value = eval(expression, {"__builtins__": {}}, dict(symbols))
    if value != int(value):
        raise ValueError(f"config.json: {expression} must be a whole number, got {value:g} from "
                         f"{', '.join(f'{k}={v}' for k, v in symbols.items() if k in expression)}")
    return int(value)


def matches(name: str, targets: str | Iterable[str]) -> bool:
    """PEFT's rule: a text is a regular expression for the whole path; a listed name means the
    module of that path and every module whose path ends with "." and that name.

    Raises ValueError for an expression that `patterns.fullmatch` refuses.
    """
    if isinstance(targets, str):
        return fullmatch(targets, name)
    return any(name == target or name.endswith(f".{target}") for target in targets)


def positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return value


def is_whole(value: Any, least: int = 1, end: int = 2**53) -> bool:
    """A whole number from `least` on and below `end`, as the page reads them: 4.0, too."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and least <= value < end and value == int(value)


def one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
