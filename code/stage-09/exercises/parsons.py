"""Parsons problems: a reference solution's lines to be put in order, wrong ones among them.

A wrong line is a mistake of the room's list whose edit stays within one line, and what is said to
whoever takes it is what the room's own check says. Which orders are right follows from the code: a
line needs what another one makes.
"""

import ast
import importlib
from dataclasses import dataclass, field
from typing import Any

from exercises.mistakes import listed, patched, source_of


@dataclass(frozen=True)
class Puzzle:
    """One method of an exercise, taken apart.

    Attributes
    ----------
    room, method : where it comes from: "ex3_parallel_adapter", "ParallelAdapter.forward"
    head : the line with `def`
    pieces : its statements, in the solution's order
    needs : pairs (earlier, later) of pieces, and the name for which the later waits
    wrong : (index of the right piece, wrong piece, what the check says), for each wrong piece
    """

    room: str
    method: str
    head: str
    pieces: list[str]
    needs: list[tuple[int, int, str]]
    wrong: list[tuple[int, str, str]] = field(default_factory=list)


#: For each exercise, by room: its check, and the wrong lines of each method that teach something.
CHOSEN: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "ex1_lora_feed_forward": ("check_lora_feed_forward", {
        "LoRAFeedForward.forward": ("Swapped", "NoActivation", "SumForProduct"),
        "LoRAFeedForward.backward": ("SlopeOfSigmoid", "GradientsSwapped")}),
    "ex2_lora_dropout": ("check_lora_dropout", {
        "LoRADropoutLayer.forward": ("RateIsKeepRate", "NoSInForward", "FrozenPathToo"),
        "LoRADropoutLayer.backward": ("UnscaledX", "FrozenGradientLost")}),
    "ex3_parallel_adapter": ("check_parallel_adapter", {
        "ParallelAdapter.forward": ("NoNonlinearity", "OwnResidual", "NoScale"),
        "ParallelAdapter.backward": ("NoReluMask",)}),
}


def _names(node: ast.AST) -> tuple[set[str], set[str]]:
    """What a statement reads and what it makes: variables, and `self.name` for attributes."""
    read, made = set(), set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr == "_remembered":
            made.add("self.cache")  # it refuses where there is none, so it comes first
        if isinstance(part, ast.Name) and part.id != "self":
            (made if isinstance(part.ctx, ast.Store) else read).add(part.id)
        elif isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self":
            (made if isinstance(part.ctx, ast.Store) else read).add(f"self.{part.attr}")
    return read, made


def needs(statements: list[ast.stmt]) -> list[tuple[int, int, str]]:
    """Pairs of statements whose order matters, each with the name that the later one waits for.

    A statement waits for what makes a name that it reads or makes anew, a maker for those that
    still read the old value, a use for the line that checks it, and `return` for all.
    """
    found = []
    uses = [_names(statement) for statement in statements]
    for later, (read, made) in enumerate(uses):
        for earlier, (was_read, was_made) in enumerate(uses[:later]):
            shared = (was_made & (read | made)) | (was_read & made)
            if isinstance(statements[earlier], ast.Expr):  # a check: of arguments, not of self
                shared |= {name for name in was_read & read
                           if not name.startswith(("self.", "check_"))}
            if isinstance(statements[later], ast.Return):
                shared = shared or {""}
            if shared:
                found.append((earlier, later, min(shared)))
    return found


def _taken_apart(source: str, method: str) -> tuple[str, list[str], list[ast.stmt]]:
    """The head and the statements of a method, as text and as trees; no docstring."""
    lines = source.splitlines()
    class_name, _, name = method.partition(".")
    (cls,) = (node for node in ast.parse(source).body
              if isinstance(node, ast.ClassDef) and node.name == class_name)
    (function,) = (node for node in cls.body
                   if isinstance(node, ast.FunctionDef) and node.name == name)
    body = function.body[1:]
    pieces = ["\n".join(line[function.col_offset + 4:].partition("  # ")[0] for line in
                        lines[statement.lineno - 1:statement.end_lineno])
              for statement in body]  # without comments: some name the mistake
    return lines[function.lineno - 1].strip(), pieces, body


def _reply(room: str, check: str, cls: str, mistake: Any) -> str:
    """What the room's check says of a mistake, in a sentence or three."""
    judge = getattr(importlib.import_module(f"exercises.{room}.checks"), check)
    diagnosis = judge(patched(room, mistake)[cls]).diagnosis
    return " ".join(text for opening, text, _ in diagnosis.parts(0, "")
                    if opening in ("This looks like", "Seen", "Why it matters"))


def puzzles(room: str) -> list[Puzzle]:
    """The problems of a room, each with its wrong lines; the room's check is run for each of them.

    Raises
    ------
    ValueError
        A mistake that was chosen changes more than one statement.
    """
    check, methods = CHOSEN[room]
    known = {mistake.name: mistake for _, mistake in
             listed(importlib.import_module(f"exercises.{room}.mistakes").MISTAKES)}
    found = []
    for method, names in methods.items():
        head, pieces, statements = _taken_apart(source_of(room), method)
        wrong = []
        for name in names:
            changed = _taken_apart(source_of(room, known[name]), method)[1]
            differ = [i for i, pair in enumerate(zip(pieces, changed, strict=False))
                      if pair[0] != pair[1]]
            if len(differ) != 1 or len(changed) != len(pieces):
                raise ValueError(f"{name} in {room} changes {len(differ)} statements of {method}; "
                                 "choose one that changes a single one")
            wrong.append((differ[0], changed[differ[0]],
                          _reply(room, check, method.partition(".")[0], known[name])))
        found.append(Puzzle(room, method, head, pieces, needs(statements), wrong))
    return found
