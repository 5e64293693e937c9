"""What a `tokenizer.json` makes of a text, bounded before the package tokenizers opens the file.

Forty steps that each double an `e` take 5 kB of JSON and the memory of every machine, in compiled
code that ends the process. So the file's steps are counted, and so is how much longer a text can
get in each. The vocabulary, nearly all of such a file, is passed over, but for the length of its
texts. How it cuts and fills up texts does not count: `smollm2.read_tokenizer` turns that off.
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from tensorfile import about, parse, short

ENCODING, DECODING = ("normalizer", "pre_tokenizer", "post_processor"), ("decoder",)
LARGEST_PART = 2_000_000  # bytes of one of these; a table of characters takes 0.3 million
DEEPEST = 100  # brackets in brackets
MOST_STEPS = 100  # ALBERT's file has a dozen
MOST_GROWTH = 5_000  # of a text's bytes, if each step met its worst letter; ALBERT's says 2,000
MOST_WRITTEN = 100_000  # bytes that a template adds; known ones add a few words
#: By part, how many bytes a step makes of one, at most. What a file adds to that: see `_growth`.
GROWTH = {
    "normalizer": dict.fromkeys(("Nmt", "Precompiled", "Prepend", "Replace", "Sequence", "Strip",
                                 "StripAccents"), 1) | {
        "BertNormalizer": 3, "ByteLevel": 2, "Lowercase": 2, "NFC": 3, "NFD": 3, "NFKC": 11,
        "NFKD": 11},
    "pre_tokenizer": dict.fromkeys(("BertPreTokenizer", "CharDelimiterSplit", "Digits",
                                    "FixedLength", "Punctuation", "Sequence", "Split",
                                    "UnicodeScripts", "Whitespace", "WhitespaceSplit"), 1) | {
        "ByteLevel": 4, "Metaspace": 5},
    "post_processor": dict.fromkeys(("ByteLevel", "Sequence", "TemplateProcessing"), 1) | {
        "BertProcessing": 5, "RobertaProcessing": 6},
    "decoder": dict.fromkeys(("ByteFallback", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"),
                             1) | {
        "BPEDecoder": 3, "ByteLevel": 2, "CTC": 3, "WordPiece": 2}}
#: Twice in a row they change a text once, so long as nothing between them writes more than ASCII.
ONCE = {"Lowercase", "NFC", "NFD", "NFKC", "NFKD"}
INSIDE = ("normalizers", "pretokenizers", "processors", "decoders")  # of a Sequence
JSON = re.compile(  # texts, of which one without its end reaches to the end, and brackets
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[][{}]', re.DOTALL)
#: Of a regular expression: a group's begin; its end, a class, which may hold others, or one letter,
#: with all repeats behind it. In an atomic group, `(?>`, nothing is tried twice.
COMMENT = r"\(\?#(?:[^)\\]|\\.)*\)"
CLASS = r"\[\^?\]?(?:\\.|[^][\\]|%s)*+\]"
EXPRESSION = re.compile(
    rf"{COMMENT}|(?P<begins>\((?:\?>)?)|"
    rf"(?:(?P<ends>\))|{CLASS % (CLASS % (CLASS % '(?!)'))}|\\.|.)"
    rf"(?P<repeats>(?:[*+?]|\{{\d*,?\d*\}}|{COMMENT})*)", re.DOTALL)
REPEAT = re.compile(r"[*+?]|\{(\d*)(?:,(\d*))?\}")  # at least, at most; "" if without end
ROUNDS = {"*": ("0", ""), "+": ("1", ""), "?": ("0", "1")}
POSSESSIVE = ("*+", "++", "?+")  # what is matched so is not given back
MOST_ROUNDS = 3  # of what can match in more ways than one; known files have one
#: Ways, for a repeat without end: the letters of a long word. One of `[^#]` may go on to the end of
#: the text, at each of its places, so `smollm2.token_ids` reads a long text in pieces.
MANY = 100
MOST_TRIES = 10_000  # at one place of a text; well-known files have a seventh of that
#: Bytes of a text as the file has it: an added token, on which steps are tried at loading, and what
#: stands in the model, where each unknown word may cost a copy.
MOST_TEXT = {"added_tokens": 256, "model": 2_000}
#: Spaces that do not count; a call of another group; a control sign, whose letter may be a bracket;
#: all but what is named; an option for the rest.
UNREAD = re.compile(r"\(\?[a-z-]*x|\\[gcCM]|\(\?~|(?<!^)\(\?[A-Za-z-]+\)")


def check_tokenizer_file(path: Path) -> None:
    """HubError if the file's steps make a text far longer, or are none that we know.

    Whether it is a tokenizer at all is left to the package.

    References
    ----------
    The steps and their settings: Hugging Face's tokenizers 0.23.
    """
    with about(path):
        found = [(name, parse(part, f"{path}, {name}")) for name, part in _parts(path.read_bytes())]
        steps = [(name, step) for name, part in found for step in _steps(name, part)]
        if len(steps) > MOST_STEPS:
            raise ValueError(f"a text goes through {len(steps):,} steps; at most {MOST_STEPS} are "
                             "read, and no tokenizer that we know has half of that")
        for names in (ENCODING, DECODING):
            in_order = [step for each in names for step in steps if step[0] == each]
            if (growth := _growth_of_all(in_order)) > MOST_GROWTH:
                raise ValueError(f"{', '.join(names)} can make a text {growth:.3g} times as long, "
                                 f"and at most {MOST_GROWTH:,} times is read: it would fill the "
                                 "memory")
        for name, step in steps:
            if isinstance(pattern := step.get("pattern"), dict):
                _check_expression(name, pattern.get("Regex", ""))


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What stands in braces or brackets under the names that matter here."""
    depth, key, begun, names = 0, b'""', 0, (*ENCODING, *DECODING)
    for token in JSON.finditer(data):
        sign = data[token.start():token.start() + 1]
        if sign == b'"':
            if depth == 1:  # the last before a bracket is its name
                key = token[0]
            elif (size := len(token[0]) - 2) > min(MOST_TEXT.values()) and len(key) < 200 and (
                    size > (most := MOST_TEXT.get(name := json.loads(key), inf))):
                raise ValueError(f"{name} has a text of {size:,} bytes, more than {most:,}: no "
                                 "token of known files has half of that")
        elif sign in (b"{", b"["):
            depth += 1
            begun = token.start() if depth == 2 else begun
            if depth > DEEPEST:
                raise ValueError("brackets in brackets, too deep for any tokenizer")
        else:
            depth -= 1
            if depth == 1 and len(key) < 200 and (name := json.loads(key)) in names:
                if (size := token.end() - begun) > LARGEST_PART:
                    raise ValueError(f"{name} has {size:,} bytes, more than {LARGEST_PART:,}")
                yield name, data[begun:token.end()]


def _steps(name: str, part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part, and those of each sequence in it.

    The package guesses the type from the other settings where it is none that the part can have.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in GROWTH[name]:
        raise ValueError(f"{name} has the step {short(part)}, of which we don't know what it does "
                         f"to a text; types that we know are {', '.join(GROWTH[name])}")
    yield part
    for value in (part.get(key) for key in INSIDE):
        for step in value if isinstance(value, list) else ():
            yield from _steps(name, step)


def _growth_of_all(steps: list[tuple[str, dict[str, Any]]]) -> float:
    growth, done = 1.0, set()
    for name, step in steps:
        kind, written = step["type"], _growth(step)
        if kind not in done:
            growth *= max(written, GROWTH[name][kind])
        if kind in ONCE:
            done.add(kind)
        elif GROWTH[name][kind] > 1 or not _is_ascii(step):
            done.clear()
    return growth


def _growth(step: dict[str, Any]) -> float:
    """How many times as long a step can make a text by what the file gives it.

    It goes by the settings, not by the type: for a post_processor the package does the same.
    """
    growth = 1.0
    if "content" in step:  # Replace
        new, pattern = _size(step["content"]), step.get("pattern")
        old = _size(pattern.get("String", "")) if isinstance(pattern, dict) else 0
        growth *= max(1, new / old) if old else 1 + new  # a pattern may match nothing, anywhere
    if "prepend" in step:
        growth *= 1 + _size(step["prepend"])
    if step.get("precompiled_charsmap"):  # SentencePiece's: a size, a table, texts that end with 0
        table = b64decode(step["precompiled_charsmap"])
        texts = table[4 + int.from_bytes(table[:4], "little"):]
        growth *= max(1, max(map(len, texts.split(b"\0"))))
    if "single" in step or "pair" in step:  # TemplateProcessing
        special = step.get("special_tokens")
        pieces, tokens = _longest([step.get("single"), step.get("pair")]), _longest(special)
        growth *= max(1, pieces) * max(1, tokens)
        if (added := pieces * tokens * _longest(special, texts=True)) > MOST_WRITTEN:
            raise ValueError(f"its template can add {added:,} bytes to each text, more than "
                             f"{MOST_WRITTEN:,}")
    return growth


def _is_ascii(step: dict[str, Any]) -> bool:
    written = [step.get(key, "") for key in ("content", "prepend")]
    return all(isinstance(text, str) and text.isascii() for text in written) and not step.get(
        "precompiled_charsmap")


def _size(text: Any) -> int:
    return len(text.encode()) if isinstance(text, str) else 0


def _longest(value: Any, texts: bool = False) -> int:
    """The length of the longest list inside, or of the longest text."""
    inside = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inside, list):
        return _size(inside) if texts else 0
    own = len(value) if isinstance(value, list) and not texts else 0
    return max([own, *(_longest(part, texts) for part in inside)])


class Part(NamedTuple):
    """What a piece of a regular expression may cost, at one place of a text.

    Attributes
    ----------
    ways : in how many it can match
    once : tries, at most, if nothing behind it can fail
    every : tries, if what is behind it fails after each way
    fails : whether it can fail at all
    """

    ways: float = 1
    once: float = 1
    every: float = 1
    fails: bool = True


def _in_order(parts: list[Part]) -> Part:
    """Of a sequence: after each way of a part what is behind it is tried, up to where it fails."""
    ways, once, every, end, fails = 1.0, 0.0, 0.0, 0.0, False
    for part in reversed(parts):
        fails = fails or part.fails
        if not fails:  # it is tried when all before it have matched, and stays as it is
            end += part.once
        else:
            once = part.every + part.ways * once if once else part.once
        ways, every = ways * part.ways, part.every + part.ways * every
    return Part(*(min(number, 2 * MOST_TRIES) for number in (ways, once + end, every)), fails)


def _either(alternatives: list[list[Part]]) -> Part:
    parts = [*map(_in_order, alternatives)]
    ways, once, every = (min(sum(numbers), 2 * MOST_TRIES) for numbers in zip(*(
        part[:3] for part in parts)))
    return Part(ways, once, every, all(part.fails for part in parts))


def _repeated(part: Part, repeats: str) -> Part | None:
    """A part with all repeats behind it; None if something with several ways is repeated often."""
    if repeats in POSSESSIVE:
        return Part(1, part.once, part.once, part.fails and repeats == "++")
    for place, repeat in enumerate(REPEAT.finditer(re.sub(COMMENT, "", repeats))):
        sign, (least, most) = repeat[0], ROUNDS.get(repeat[0], repeat.groups())
        low = int(least or 0)
        high = inf if most == "" else int(most or low)
        if place and sign == "?" and part.ways > 1:  # it only asks for few rounds first
            continue
        if part.ways == 1:
            ways = MANY if high == inf else 1 + abs(high - low)
            part = part._replace(ways=ways, every=part.every * ways)
        elif max(low, high) > MOST_ROUNDS:
            return None
        else:
            more = (1 + part.ways) ** max(low, high)
            part = Part(more, part.once * more, part.every * more, part.fails)
        if not low and (least or most):  # {} and {,} are letters to the package
            part = part._replace(fails=False)
    return part


def _check_expression(name: str, expression: Any) -> None:
    """ValueError for a choice inside of a group that is repeated often: `(a+)+$`, `(a|b){20}`.

    Likewise for many repeats one after the other: `a*a*a*b`. Each round or repeat may choose again,
    and a text that fits nowhere has them all tried; the package cannot be interrupted meanwhile.
    What gives nothing back, as `a++`, does no harm.
    """
    groups: list[tuple[str, list[list[Part]]]] = [("", [[]])]  # open: how they begin, alternatives
    text = expression if isinstance(expression, str) else ""
    if UNREAD.search(text):
        raise ValueError(f"{name} has the expression {short(text)}; (?x), (?~...), \\g, \\c, \\C, "
                         "\\M and options for the rest of a group are not read")
    for found in EXPRESSION.finditer(text):
        if found["begins"]:
            groups.append((found["begins"], [[]]))
        elif found[0].startswith("|"):
            groups[-1][1].append([])
        elif (repeats := found["repeats"]) is not None:  # no comment
            part = Part()
            if found[0].removesuffix(repeats) == "[":  # as a letter it has a backslash
                raise ValueError(f"{name} has the expression {short(text)}, in which a class has "
                                 "no end, or classes stand in classes too deep: not read")
            if found["ends"] and len(groups) > 1:
                begins, alternatives = groups.pop()
                part = _either(alternatives)
                if begins == "(?>":
                    part = Part(1, part.once, part.once, part.fails)
            if (part := _repeated(part, repeats)) is None:
                raise ValueError(f"{name} has the expression {short(text)}, in which something "
                                 "that can match in more ways is repeated: a short text could keep "
                                 "it busy for ever")
            groups[-1][1][-1].append(part)
    if len(groups) > 1:  # what stands in it would not count
        raise ValueError(f"{name} has the expression {short(text)}, in which a group has no end: "
                         "not read")
    if _either(groups[0][1]).once > MOST_TRIES:
        raise ValueError(f"{name} has the expression {short(text)}, whose repeats, one after the "
                         f"other, can share a text out in more than {MOST_TRIES:,} ways: a short "
                         "text could keep it busy for ever")
