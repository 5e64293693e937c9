"""Answers that nobody wrote, for the exercises' checks: some thousand wrong, some right.

Each is the reference solution after one change of its syntax tree, or behind one method that does
something more. `python generated.py 1` judges all of them (`4 ex3_parallel_adapter`: every fourth
of one room) and prints what the check did not tell, with the rates; `test_generated.py` takes a
sample.
"""

import ast
import collections
import copy
import inspect
import itertools
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SHELF = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SHELF), str(Path(__file__).parent)]

from exercise_tools import ROOMS, check, solution  # noqa: E402

#: What `Terms` says of arithmetic, whatever was done to it: the story's numbers are exact.
MEASURED = {"factor", "terms", "operand", "another", "turned", "inner", "partly"}
#: What else is true of some changes of an expression, by kind.
SHAPES = {"wrong-shape", "wrong-type"}
OTHERWISE = {"not transposed": SHAPES, "left alone": SHAPES | {"not-finite"},
             "right alone": SHAPES | {"not-finite"}, "another axis": SHAPES, "mean": SHAPES,
             "inverted": {"not-finite"}, "wrong sign": {"not-finite"}}
#: Arithmetic is not mutated where sizes and starts are made.
SKIPPED = {"__init__", "check_rate", "parameters", "gradients", "num_parameters", "_named",
           "normal"}
#: A room's own names, and of which changes they are true: a pattern that their name begins with.
ALSO = {
    "ex1_lora_feed_forward": {"alpha-not-passed": "alpha ignored"},
    "ex2_lora_dropout": {
        "wrong-factor": r"forward \d+: (kept.*dropout|x \* mask|1 - self)",
        "rate-is-keep-rate": "forward .*comparison Lt",
        "wrong-rate": "dropout ignored", "stale-mask": ".*cache.*not renewed",
        "no-dropout": "forward .*mask: left"},
    "ex4_prefix_mlp": {"layout": ".*transpose|forward (reversed|rolled|turned|the mean)"},
    "ex5_prompted_lora": {"prompt-gradient-lost": "the gradient of prompt zero"},
    "ex6_qlora": {  # midpoints times two and quotients by two are the same codes
        "scale": "_scale|(de)?quantize_absmax .*alone|_nearest.*(times|inverted|alone)",
        "levels": "_nearest|dequantize_absmax .*alone|quantize_.*codes zero",
        "bits-not-measured": "bits_per_weight", "absmax-not-quantized": "double_quant ignored"},
    "ex7_dora": {"norm-not-detached": "detach_norm ignored"},
    "ex8_vera": {"wrong-d": "d_initial ignored", "not-from-seed": "seed ignored"}}
#: What a report may say of an argument that is not passed on.
SIZES = {"wrong-shape", "values", "signature"}
IGNORED = {"rng": {"ignores-rng"}, "dtype": {"wrong-dtype"},
           "seed": {"ignores-rng"}} | dict.fromkeys(
    ("rank", "lora_rank", "bottleneck_dim", "prompt_length", "prefix_length", "embed_dim",
     "hidden_dim"), SIZES)


class Answer(NamedTuple):
    """A name, what was done, the diagnoses that name it, what a student would have defined.

    An error is told if the report shows one of the `lines` that were written anew.
    """

    name: str
    kind: str
    told: set
    make: Any
    lines: set = frozenset()


def _times(node: ast.expr, c: float) -> ast.expr:
    return ast.BinOp(ast.Constant(c), ast.Mult(), node)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each way to write one expression wrongly: the kind, and what stands there instead."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.MatMult, ast.Div)):
        for c in (2, 0.37, -1):
            yield f"times {c}", _times(node, c)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        other = ast.Mult() if isinstance(node.op, ast.Div) else ast.Div()
        if isinstance(node.left, ast.Attribute) and isinstance(node.op, ast.Mult):
            yield "inverted", ast.BinOp(node.right, other, node.left)
            yield "twice", ast.BinOp(node.left, ast.Mult(), node)
        elif isinstance(node.right, ast.Attribute) or isinstance(node.op, ast.Div):
            yield "inverted", ast.BinOp(node.left, other, node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        yield "left alone", node.left
        if not isinstance(node.op, ast.Div):
            yield "right alone", node.right
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield "wrong sign", ast.BinOp(node.left, other, node.right)
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield "not transposed", node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("swapaxes", "transpose"):
            yield "not transposed", node.func.value
        if node.func.attr == "sum":
            yield "mean", ast.Call(ast.Attribute(node.func.value, "mean", ast.Load()), node.args,
                                   node.keywords)
            for axis in (kw for kw in node.keywords if kw.arg == "axis"):
                turned = copy.deepcopy(node)
                at = next(kw for kw in turned.keywords if kw.arg == "axis")
                at.value = ast.Constant(-2 if ast.unparse(axis.value) == "-1" else 1)
                yield "another axis", turned
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Gt, ast.GtE)):
        for op in (ast.Gt, ast.GtE, ast.Lt):
            if not isinstance(node.ops[0], op):
                yield f"comparison {op.__name__}", ast.Compare(node.left, [op()],
                                                               node.comparators)


def _state(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt], set]]:
    """Each way to keep an assigned attribute wrongly: the kind, the new statements, the names."""
    if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
        return
    name, value = node.targets[0].attr, ast.unparse(node.value)
    yield "on the class", ast.parse(
        f"type(self).{name} = {value}\nself.__dict__.pop('{name}', 0)").body, {"shared"}
    if name == "cache":
        yield "not renewed", ast.parse(f"self.cache = self.cache or {value}").body, {"kept"}
    if name.endswith("_grad"):
        yield "added up", ast.parse(f"self.{name} = {value} + (0 if self.{name} is None else "
                                    f"self.{name})").body, {"accumulates"}


def _exec(source: str, name: str) -> dict[str, Any]:
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    space: dict[str, Any] = {"__name__": "answer", "inspect": inspect}
    exec(compile(source, name, "exec"), space)
    return space


def changed(room: str) -> Iterator[Answer]:
    """The solution with one place of its syntax tree changed."""
    source = (SHELF / "exercises" / room / "solution.py").read_text("utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    places = {id(node): i for i, node in enumerate(nodes)}
    lines = set(ast.unparse(nodes[0]).split("\n"))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            found = [(kind, new, MEASURED | OTHERWISE.get(kind, set())) for kind, new in
                     _changes(node)] if function.name not in SKIPPED else []
            found += _state(node) if function.name != "__init__" else []
            for kind, new, told in found:
                tree = ast.parse(source)
                target = list(ast.walk(tree))[places[id(node)]]
                _Replace(target, new).visit(tree)
                line = ast.unparse(node)[:70]
                text = ast.unparse(ast.fix_missing_locations(tree))
                name = f"{function.name} {getattr(node, 'lineno', 0)}: {line}: {kind}"
                mine = {part.strip() for part in set(text.split("\n")) - lines}
                yield Answer(name, kind, told, lambda text=text, name=name: _exec(text, name),
                             mine)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: Any):
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.target else self.generic_visit(node)


#: What a method may do with the array that it is about to return: kind, diagnoses, `out` after it.
SPOILED = [
    ("in half", {"wrong-dtype", "digits"}, "out.astype(np.float16).astype(out.dtype)"),
    ("in single", {"wrong-dtype", "digits"}, "out.astype(np.float32).astype(out.dtype)"),
    ("double", {"wrong-dtype"}, "out.astype(np.float64)"),
    ("times 0.37", MEASURED, "0.37 * out"), ("negated", MEASURED, "-out"),
    ("zero", MEASURED, "0 * out"), ("reversed", MEASURED, "out[::-1].copy()"),
    ("rolled", MEASURED, "np.roll(out, 1, -1)"), ("turned", MEASURED, "np.flip(out, -1).copy()"),
    ("the mean", MEASURED, "out.mean(0, keepdims=True) + 0 * out"),
    ("the first for all", MEASURED, "out[:1] + 0 * out"),
    ("one entry", MEASURED, "np.where(np.arange(out.shape[-1]) == 1, 0, out)"),
    ("clipped", MEASURED, "np.clip(out, -np.abs(out).max() / 3, np.abs(out).max() / 3)"),
    ("one buffer", {"kept"}, "self.__dict__.setdefault('b' + KEY, {}).setdefault(out.shape, out)\n"
     "    if out is not new: out[...] = new"),
    ("once and for all", {"kept"}, "self.__dict__.setdefault('o' + KEY, {}).setdefault(out.shape, "
     "out)"),
    ("for all objects", {"shared", "kept"}, "vars(Right).get('MEMORY') is None and "
     "setattr(Right, 'MEMORY', {}) or Right.MEMORY.setdefault((KEY, out.shape), out)")]
#: Whole methods: kind, diagnoses, code.
METHODS = [
    ("writes into x", {"changes-input"}, "def forward(self, *args):\n    out = super().forward("
     "*args)\n    for array in args: array *= 0.5\n    return out"),
    ("writes into G", {"changes-input"}, "def backward(self, G):\n    out = super().backward(G)\n"
     "    G *= 0.5\n    return out"),
    *((f"{name} takes a step", {"writes-parameters"}, f"def {name}(self, *args):\n"
       f"    out = super().{name}(*args)\n"
       "    for array in self.parameters().values(): array -= 0.01 * (array + 1)\n"
       "    return out") for name in ("forward", "backward")),
    ("copies as parameters", {"dead-parameters"}, "def parameters(self):\n    return {key: "
     "array.copy() for key, array in super().parameters().items()}"),
    ("first is refused no more", {"backward-first"}, "def backward(self, G):\n    try:\n"
     "        return super().backward(G)\n    except RuntimeError:\n        return G"),
    ("counts one more", {"values"}, "def num_parameters(self):\n"
     "    return super().num_parameters() + 1")]


def _answer(room: str, text: str, name: str) -> Any:
    """What a student would have defined: the `Answer` of a text, or all of it in exercise 6."""
    space = _exec(text, name)
    if room == "ex6_qlora":
        return space | {ROOMS[room]: space["Answer"]}
    return space["Answer"]


#: What the functions of exercise 6 return, and how many things.
FUNCTIONS = {"quantize_nf4": 2, "dequantize_nf4": 1, "quantize_absmax": 3, "dequantize_absmax": 1}
#: Codes, which are integers, are spoiled in fewer ways.
OF_CODES = {"zero", "reversed", "rolled", "the first for all", "one entry", "one buffer",
            "once and for all"}


def spoiled_functions(source: str) -> Iterator[Answer]:
    """The functions of exercise 6, of which one spoils what it returns."""
    for name, many in FUNCTIONS.items():
        for i, (kind, told, code) in itertools.product(range(min(many, 2)), SPOILED):
            codes = many > 1 and i == 0
            if kind in ("in single", "for all objects") or codes and kind not in OF_CODES:
                continue
            code = code.replace("KEY", "''").replace("self.__dict__", "KEPT")
            part = f"[{i}]" if many > 1 else ""
            back = f"(*new[:{i}], out, *new[{i + 1}:])" if many > 1 else "out"
            text = (f"{source}\n\nright, KEPT, Answer = {name}, {{}}, QLoRALinear\n\n\n"
                    f"def {name}(*args, **given):\n    new = right(*args, **given)\n"
                    f"    out = one(new{part})\n    return {back}\n\n\ndef one(new):\n"
                    f"    out = new\n    out = {code}\n    return out\n")
            what = f"{name} {'codes ' * codes}{kind}"
            yield Answer(what, kind, told, lambda text=text, what=what: _answer(
                "ex6_qlora", text, what))


def spoiled(room: str) -> Iterator[Answer]:
    """The solution's class, with a method that spoils what it returns, or does something more."""
    right = solution(room, ROOMS[room])
    source = Path(sys.modules[right.__module__].__file__).read_text("utf-8")

    def answer(kind: str, told: set, code: str) -> Answer:
        text = "\n".join("    " + line for line in code.split("\n"))
        text = (f"{source}\n\nRight = {ROOMS[room]}\n\n\nclass Answer(Right):\n{text}\n")
        return Answer(kind, kind, told, lambda: _answer(room, text, kind))

    if room == "ex6_qlora":
        yield from spoiled_functions(source)
    for kind, told, code in METHODS:
        if room != "ex4_prefix_mlp" or "G" not in kind and "writes into x" != kind:
            yield answer(kind, told, code)
    returned = ["forward", *(["backward"] if room != "ex4_prefix_mlp" else []),
                *(["merge_weights"] if room == "ex2_lora_dropout" else [])]
    for method, (kind, told, code) in itertools.product(returned, SPOILED):
        code = code.replace("KEY", f"'{method}'")
        yield answer(f"{method} {kind}", told, f"def {method}(self, *args):\n"
                     f"    new = out = super().{method}(*args)\n    out = {code}\n    return out")
    for key, (kind, told, code) in itertools.product(_keys(room), SPOILED):
        code = code.replace("KEY", f"'{key}'").replace("\n", "\n    ")
        yield answer(f"the gradient of {key} {kind}", told, "def gradients(self):\n    def one(new)"
                     f":\n        out = new\n        out = {code}\n        return out\n"
                     f"    found = super().gradients()\n"
                     f"    return found | {{'{key}': one(found['{key}'])}}")
    for name in (name for name, p in inspect.signature(right).parameters.items()
                 if p.default is not p.empty):
        yield answer(f"{name} ignored", IGNORED.get(name, MEASURED),
                     "def __init__(self, *args, **given):\n"
                     "    given = inspect.signature(Right).bind(*args, **given).arguments\n"
                     f"    given.pop('{name}', None)\n    super().__init__(**given)")


def _keys(room: str) -> list[str]:
    return {"ex1_lora_feed_forward": ["gate.A", "gate.B", "up.A", "down.B"],
            "ex2_lora_dropout": ["A", "B"], "ex3_parallel_adapter": ["W_down", "W_up"],
            "ex4_prefix_mlp": ["E", "W1", "b1", "W2", "b2"],
            "ex5_prompted_lora": ["q.A", "q.B", "v.A", "prompt"], "ex6_qlora": ["A", "B"],
            "ex7_dora": ["A", "B", "m"],
            "ex8_vera": ["up_d", "up_beta", "down_d", "down_beta"]}[room]


# ---- Right answers ----------------------------------------------------------------------------

#: `a @ b` in other words.
PRODUCTS = {
    "einsum": "np.einsum('...ij,...jk->...ik' if a.ndim > 1 else 'j,jk->k', a, b)",
    "turned": "np.swapaxes(b.swapaxes(-1, -2) @ a.swapaxes(-1, -2), -1, -2) if a.ndim > 1 else "
              "b.T @ a",
    "by rows": "np.stack([row @ b for row in a]) if a.ndim == 2 and b.ndim == 2 else a @ b",
    "a loop": "sum(a[..., i, None] * b[..., i:i + 1, :] for i in range(a.shape[-1])) "
              "if a.ndim > 1 else a @ b",
    "in double": "(a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)",
    "in Fortran's order": "np.asfortranarray(a) @ np.asfortranarray(b)"}
#: Whole methods of a right answer.
ALSO_RIGHT = {
    "forward twice": "def forward(self, *args):\n    {0}\n    return super().forward(*args)",
    "copies": "def forward(self, *args):\n    return super().forward(*args).copy()",
    "turned in memory": "def forward(self, *args):\n"
                        "    return np.asfortranarray(super().forward(*args))",
    "copies of gradients": "def gradients(self):\n    return {{key: grad.copy() for key, grad in "
                           "reversed(super().gradients().items())}}",
    "reversed parameters": "def parameters(self):\n"
                           "    return dict(reversed(super().parameters().items()))",
    "backward twice": "def backward(self, G):\n    super().backward(G.copy())\n"
                      "    return super().backward(G)",
    "a cache in another place": "def forward(self, *args):\n    out = super().forward(*args)\n"
                                "    self.mine = self.cache\n    return out\n\n"
                                "def backward(self, G):\n"
                                "    if hasattr(self, 'mine'):\n        self.cache = self.mine\n"
                                "    return super().backward(G)"}

#: Functions of exercise 6 in other words.
RIGHT_FUNCTIONS = {
    "the nearest by argmin": "def _nearest(q, levels):\n    return np.abs(q.astype(np.float64)["
                             ":, None] - levels).argmin(1).astype(np.uint8)",
    "the nearest by counting": "def _nearest(q, levels):\n    return (q[:, None] > (levels[1:] / 2 "
                               "+ levels[:-1] / 2)).sum(1).astype(np.uint8)",
    "all in float64": "def _scale(values, block, right=_scale):\n"
                      "    q, absmax = right(values.astype(np.float64), block)\n"
                      "    return q, absmax.astype(np.float32)",
    "blocks in a list": "def _scale(values, block):\n"
                        "    parts = np.array_split(values, range(block, values.size, block))\n"
                        "    absmax = np.array([np.abs(p).max() for p in parts], np.float32)\n"
                        "    return np.concatenate([p / (a or 1) for p, a in zip(parts, absmax)])"
                        ", absmax",
    "levels of one code each": "def dequantize_nf4(codes, absmax, shape, block=64):\n"
                               "    both = np.stack([codes // 16, codes % 16], 1).ravel()\n"
                               "    both = both[:prod(shape)]\n"
                               "    return (NF4[both] * absmax[np.arange(both.size) // block]"
                               ").reshape(shape)",
    "an offset that is a float": "def quantize_absmax(absmax, block=256, right=quantize_absmax):\n"
                                 "    *most, offset = right(absmax, block)\n"
                                 "    return *most, float(offset)",
    "the update merged": "class Answer(QLoRALinear):\n    def forward(self, x):\n"
                         "        super().forward(x)\n"
                         "        W = self.dequantized() + self.lora.scaling * (\n"
                         "            self.lora.B @ self.lora.A)\n"
                         "        return x @ W.T + (0 if self.bias is None else self.bias)"}


class _Reorder(ast.NodeTransformer):
    def __init__(self, product: str = "", commuted: bool = False):
        self.product, self.commuted = product, commuted

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        node = self.generic_visit(node)
        if self.product and isinstance(node.op, ast.MatMult):
            return ast.Call(ast.Name("product", ast.Load()), [node.left, node.right], [])
        if self.commuted and isinstance(node.op, ast.Mult):
            node.left, node.right = node.right, node.left
        return node


def right_answers(room: str) -> Iterator[Answer]:
    """The solution in other words."""
    right = solution(room, ROOMS[room])
    source = Path(sys.modules[right.__module__].__file__).read_text("utf-8")
    products = {"": ""} | (PRODUCTS if "@" in source else {})  # in exercise 6 none is left
    for (name, product), commuted in itertools.product(products.items(), (False, True)):
        tree = _Reorder(product, commuted).visit(ast.parse(source))
        text = ast.unparse(ast.fix_missing_locations(tree)) + (
            f"\n\ndef product(a, b):\n    return {product or None}\n")
        for also, code in {"": "pass", **ALSO_RIGHT}.items():
            if "cache" in also and room == "ex6_qlora":  # it lies in the layer inside
                continue
            twice = "pass" if room == "ex2_lora_dropout" else "super().forward(*args)"
            code = "\n".join("    " + line for line in code.format(twice).split("\n"))
            whole = f"{text}\n\nclass Answer({ROOMS[room]}):\n{code}\n"
            name_ = f"{name or 'as it is'}, {'commuted, ' * commuted}{also}"
            yield Answer(name_, also, set(), lambda whole=whole, name_=name_: _answer(
                room, whole, name_))
    for name, code in RIGHT_FUNCTIONS.items() if room == "ex6_qlora" else ():
        text = f"{source}\n\nAnswer = {ROOMS[room]}\n{code}\n"
        yield Answer(name, name, set(), lambda text=text, name=name: _answer(room, text, name))


def judged(room: str, answer: Answer, dtype: Any) -> tuple[str, Any]:
    """passed, told, another (mistake's name), silent (not recognised), stopped; the report."""
    try:
        work = answer.make()
    except Exception as error:  # does not even define a class
        return "stopped", error
    report = check(room, work, dtype=dtype)
    if report.passed:
        return "passed", report
    if report.status != "failed":
        asked = any("Does yours reach it?" in row.note for row in report.rows)
        return ("told" if asked and "alone" in answer.kind else "stopped"), report
    given, seen = report.diagnosis.mistake, report.diagnosis.seen
    if given in ("raised", "slip", "refuses-valid", "forgets"):
        return ("told" if any(line[:60] in seen for line in answer.lines) else "stopped"), report
    if given == "values" and not seen.startswith("num_p"):
        return "silent", report
    told = given in answer.told or re.match(ALSO.get(room, {}).get(given, "$"), answer.name)
    return ("told" if told else "another"), report


def wrong_answers(room: str) -> Iterator[Answer]:
    yield from changed(room)
    yield from spoiled(room)


class Rates(NamedTuple):
    """How many answers got each verdict, and of those that were not judged well what was said."""

    counts: collections.Counter
    other: list[str]

    def __str__(self) -> str:
        counts, total = self.counts, max(self.counts.total(), 1)
        return (f"{total} answers: {1 - counts['passed'] / total:.1%} failed, "
                f"{counts['told'] / total:.1%} told; {counts['another']} given another name, "
                f"{counts['silent']} not recognised, {counts['stopped']} stopped elsewhere")


def rates(room: str, make: Any, every: int = 1) -> Rates:
    """Judge every so many of a room's answers, with the progress on stderr."""
    answers, found = list(make(room))[::every], Rates(collections.Counter(), [])
    for i, answer in enumerate(answers):
        verdict, report = judged(room, answer, (np.float32, np.float64)[i % 2])
        found.counts[verdict] += 1
        if verdict != ("told" if make is wrong_answers else "passed"):
            d = getattr(report, "diagnosis", None)
            found.other.append(f"{verdict}, {answer.kind}: {answer.name} -> "
                               f"{d and d.mistake}: {d and d.seen[:200]}"[:600])
        if i % 25 == 24:
            print(f"{room}: {i + 1} of {len(answers)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    every, *rooms = sys.argv[1:]
    for room, make in itertools.product(rooms or ROOMS, (wrong_answers, right_answers)):
        found = rates(room, make, int(every))
        print(*sorted(found.other), f"{room}, {make.__name__}: {found}", sep="\n", flush=True)
