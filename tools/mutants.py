"""Mutation testing: break one thing in the code at a time; some test must notice.

    python tools/mutants.py peft.py            every mutant of code/stage-09/peft.py
    python tools/mutants.py --sample 200       of each measured module 200, drawn with a fixed seed

A mutant is the module's syntax tree with one small change: another operator, another number, a
negated condition, a call left out. It lives in memory only: a finder gives it to `import` in place
of the file, so nothing in the working tree is ever touched. Python, NumPy, pytest and hypothesis
are imported once; each mutant is a fork of that process, and runs just the tests that reach the
changed line, fastest first, until one fails. So a mutant costs a tenth of a second or so. (Of the
known tools, mutmut leaves out everything decorated and everything at the top of a module, here
properties, dataclasses and tables; cosmic-ray starts Python anew for each mutant and edits the
files in place.)

What is changed: comparison, arithmetic and Boolean operators, `not`, signs, numbers, True and
False, text that is not a message, conditions, returned values; calls, updates and `raise` that
stand alone are left out; `break` and `continue` are swapped. What is not: annotations, docstrings,
the wording of messages (all inside a `raise` or an f-string), the 1 of -1 (NumPy takes any negative
size for "all that is left"), and options that change speed or wording alone (UNCHANGED), seeds
among them, with their defaults.

Covered are the lesson and what reads files. The exercises' checks are not: each of their mistakes
and variants is already such a mutant, written by hand and asked for by name.

A mutant that no test can notice, since it computes the same, is listed with the reason in
code/stage-09/tests/equivalent_mutants.toml. An entry that matches no surviving mutant fails, too.
"""

import argparse
import ast
import collections
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import itertools
import os
import random
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "code" / "stage-09"
TESTS = CODE / "tests"
EQUIVALENT = TESTS / "equivalent_mutants.toml"
GOAL = 95.0  # per cent of a module's mutants

# By module, the test files that concern it and run in seconds.
CONCERNS = {
    "peft.py": ["peft", "algebra", "stress"],
    "real_models/accounting.py": ["accounting", "algebra"],
    "real_models/reading.py": ["accounting"], "real_models/rules.py": ["accounting", "bases"],
    "real_models/memory.py": ["accounting", "optimizers"],
    "real_models/bases.py": ["bases"], "real_models/serving.py": ["serving"],
    "llama.py": ["llama", "algebra", "stress", "parity"],
    "llama_config.py": ["llama_config", "hub"],
    "tensorfile.py": ["hub"],
    "training.py": ["training", "stress"],
    "real_models/hub.py": ["hub"],
}
SLOW = ("can_be_made_again", "killed", "demo_prints_the_block")  # start other processes

UNCHANGED = ("copy", "strict", "stacklevel", "encoding", "repr", "desc", "leave", "delay", "seed")

COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
           ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
           ast.IsNot: ast.Is}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
              ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
              ast.BitAnd: ast.BitOr}
TEXT = {**{kind: kind.__name__ for kind in (*COMPARE, *ARITHMETIC)}, ast.And: "And", ast.Or: "Or"}


@dataclass
class Mutant:
    """One change of one node of a module's tree; the node is the `index`-th of ast.walk."""
    tree: ast.Module
    index: int
    change: Callable  # alters a node in place
    line: int
    scope: str
    source: str
    what: str

    def key(self) -> tuple[str, str, str]:
        return self.scope, self.source, self.what

    def apply(self) -> ast.Module:
        """A changed copy of the tree."""
        broken = copy.deepcopy(self.tree)
        self.change(next(itertools.islice(ast.walk(broken), self.index, None)))
        return ast.fix_missing_locations(broken)


def setting(name, new):
    """The change that gives a node's field another value."""
    return lambda node: setattr(node, name, new)


def becoming(make):
    """The change that makes a node another one, at its place, so that tracebacks stay right."""
    def change(node):
        made = ast.copy_location(make(node), node)
        node.__class__ = made.__class__
        node.__dict__ = dict(made.__dict__)
    return change


def is_plumbing(node) -> bool:
    """A docstring, an import, a name with its annotation, what runs as a script, an UNCHANGED."""
    return (isinstance(node, (ast.Import, ast.ImportFrom, ast.arg))
            or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            or isinstance(node, ast.keyword) and node.arg in UNCHANGED
            or isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__ =="))


def children(node):
    """The nodes below one that may be changed: no annotation, decorator or UNCHANGED default."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        apart = [getattr(node, "returns", None), *node.decorator_list]
        yield from (child for child in ast.iter_child_nodes(node) if child not in apart)
    elif isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        with_default = [*plain[len(plain) - len(node.defaults):], *node.kwonlyargs]
        for argument, default in zip(with_default, node.defaults + node.kw_defaults, strict=True):
            if default is not None and argument.arg not in UNCHANGED:
                yield default
    elif isinstance(node, ast.AnnAssign):
        yield from [node.value] if node.value else []
    elif not (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)):
        yield from ast.iter_child_nodes(node)


def places(node, scope="", message=False):
    """(node, its function or class, whether it is a message) of every node that may be changed."""
    for child in children(node):
        if is_plumbing(child):
            continue
        named = isinstance(child, (ast.FunctionDef, ast.ClassDef))
        inner = f"{scope}.{child.name}".lstrip(".") if named else scope
        words = message or isinstance(child, (ast.Raise, ast.JoinedStr))
        if not named and not isinstance(child, (ast.arguments, ast.AnnAssign)):
            yield child, inner, words
        yield from places(child, inner, words)


def of_expression(node):
    """(what, change) for each way to break an expression."""
    kind = type(node)
    if kind is ast.Compare:
        for i, op in enumerate(node.ops):
            if new := COMPARE.get(type(op)):
                yield (f"{TEXT[type(op)]} -> {TEXT[new]} ({i})",
                       lambda n, i=i, new=new: n.ops.__setitem__(i, new()))
    elif kind in (ast.BinOp, ast.AugAssign) and (new := ARITHMETIC.get(type(node.op))):
        sides = (node.left, node.right) if kind is ast.BinOp else ()
        if not any(isinstance(side, (ast.JoinedStr, ast.Tuple, ast.List))
                   or isinstance(getattr(side, "value", None), str) for side in sides):
            yield f"{TEXT[type(node.op)]} -> {TEXT[new]}", setting("op", new())
    elif kind is ast.BoolOp:
        new = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{TEXT[type(node.op)]} -> {TEXT[new]}", setting("op", new())
    elif kind is ast.UnaryOp and type(node.op) in (ast.Not, ast.USub):
        yield (f"{'not' if isinstance(node.op, ast.Not) else 'sign'} dropped",
               becoming(lambda n: n.operand))
    elif kind is ast.Constant and isinstance(value := node.value, (int, float, str)):
        new = (not value if isinstance(value, bool) else
               value and "XX" + value if isinstance(value, str) else value + 1)
        if new != value:
            yield f"{value!r} -> {new!r}"[:60], setting("value", new)
    if kind in (ast.If, ast.IfExp, ast.While) and not isinstance(
            node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
        yield ("condition negated", lambda n: setattr(
            n, "test", ast.copy_location(ast.UnaryOp(ast.Not(), n.test), n.test)))


def of_statement(node):
    """(what, change) for each way to break a statement as a whole."""
    if isinstance(node, ast.Return) and getattr(node.value, "value", "") is not None and node.value:
        yield ("return None",
               lambda n: setattr(n, "value", ast.copy_location(ast.Constant(None), n)))
    if isinstance(node, (ast.Raise, ast.AugAssign)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "left out", becoming(lambda n: ast.Pass())
    if isinstance(node, ast.Break):
        yield "break -> continue", becoming(lambda n: ast.Continue())
    if isinstance(node, ast.Continue):
        yield "continue -> break", becoming(lambda n: ast.Break())


def collect(tree: ast.Module, lines: list[str]) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    order = {id(node): i for i, node in enumerate(ast.walk(tree))}
    found: list[Mutant] = []
    times: collections.Counter = collections.Counter()
    for node, scope, message in places(tree):
        for what, change in [*([] if message else of_expression(node)), *of_statement(node)]:
            mutant = Mutant(tree, order[id(node)], change, node.lineno, scope,
                            lines[node.lineno - 1].strip(), what)
            times[key := mutant.key()] += 1
            if times[key] > 1:  # the second `1 -> 2` of a line is another than the first
                mutant.what += f" #{times[key]}"
            found.append(mutant)
    return sorted(found, key=lambda m: m.line)


class Finder(importlib.abc.MetaPathFinder):
    """Gives one module to `import` from a syntax tree instead of from its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module):
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        tree = self.tree

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname):
                return compile(tree, self.path, "exec")
        return importlib.util.spec_from_file_location(
            name, self.path, loader=Loader(name, str(self.path)))


class Watch:
    """A pytest plugin: hypothesis repeatable and without shrinking; time and lines of each test."""

    def __init__(self, module: Path | None = None):
        self.module, self.seconds, self.reached = module, {}, {}

    def pytest_runtest_protocol(self, item, nextitem):
        self.current = item.nodeid

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def trace(self, frame, event, arg):
        code = frame.f_code
        if code.co_filename != str(self.module):
            return None
        lines = self.reached.setdefault(self.current, set())
        lines.add(frame.f_lineno)

        def local(frame, event, arg):
            lines.add(frame.f_lineno)
            return local
        return local

    def pytest_runtest_call(self, item):
        if self.module is not None:
            sys.settrace(self.trace)

    def pytest_runtest_teardown(self, item):
        if self.module is not None:
            sys.settrace(None)


def run_pytest(arguments: list[str], watch: Watch) -> int:
    """pytest in this process, silent."""
    import pytest
    from hypothesis import Phase, settings
    settings.register_profile("mutants", database=None, derandomize=True, deadline=None,
                              phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")
    silence = io.StringIO()
    with redirect_stdout(silence), redirect_stderr(silence):
        code = int(pytest.main(["-x", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider",
                                "-p", "no:nbval", "-p", "no:playwright", *arguments],
                               plugins=[watch]))
    return code


def in_fork(work, seconds: float):
    """`work()` in a fork; its answer (picklable), or None if it took longer or died.

    What counts is processor time, so that a busy or halted machine ends no run that is all right.
    """
    import pickle
    import resource
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setpgid(0, 0)
        limit = int(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # an endless loop ends here,
        signal.alarm(limit + 3600)  # and what waits for ever here
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data) if data else None


def baseline(name: str) -> tuple[dict[str, float], dict[int, set[str]]]:
    """The seconds of each test that concerns a module, and the tests that reach each line."""
    files = [str(file) for concern in CONCERNS[name]
             for file in TESTS.rglob(f"test_{concern}.py")]

    def work():
        watch = Watch(CODE / name)
        code = run_pytest([*files, "-k", " and ".join(f"not {word}" for word in SLOW)], watch)
        return code, watch.seconds, watch.reached

    print(f"==> {name}: which tests reach which line", flush=True)
    answer = in_fork(work, 900)
    if answer is None or answer[0] != 0:
        sys.exit(f"{name}: the tests must pass before anything is broken, run them first: "
                 f"pytest {' '.join(files)}")
    _, seconds, reached = answer
    by_line: dict[int, set[str]] = {}
    for test, lines in reached.items():
        for line in lines:
            by_line.setdefault(line, set()).add(test)
    return seconds, by_line


def statements(tree: ast.Module) -> tuple[dict[int, range], set[int]]:
    """The lines of the statement that a line belongs to, and the lines inside of functions.

    The lines of a statement are reached together, but an event names only some of them.
    """
    lines: dict[int, range] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            last = (max(node.lineno, node.body[0].lineno - 1) if hasattr(node, "body")
                    else node.end_lineno)
            for line in range(node.lineno, last + 1):
                lines.setdefault(line, range(node.lineno, last + 1))
    inside = {line for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
              for line in range(node.body[0].lineno, node.end_lineno + 1)}
    return lines, inside


def is_killed(name: str, mutant: Mutant, ordered: list[str], seconds: dict[str, float]) -> bool:
    """Whether one of these tests fails, or does not end, with the mutant in the module's place."""
    def work():
        try:
            module = name.removesuffix(".py").replace("/", ".")
            sys.meta_path.insert(0, Finder(module, CODE / name, mutant.apply()))
            return run_pytest([*dict.fromkeys(t.split("::")[0] for t in ordered)],
                              Select(ordered, seconds))
        except SyntaxError:
            return 1
    return in_fork(work, 20 + 5 * sum(seconds.get(t, 0.0) for t in ordered)) != 0


def test_module(name: str, sample: int | None, seed: int, only: str) -> tuple[int, int, list]:
    """(mutants, killed, survivors) of one module."""
    source = (CODE / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    seconds, by_line = baseline(name)
    statement, inside = statements(tree)
    mutants = [m for m in collect(tree, source.splitlines()) if m.scope.startswith(only)]
    everything = len(mutants)
    if sample is not None and sample < everything:
        mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda m: m.line)
    print(f"    {len(seconds)} tests; {len(mutants)} of {everything} mutants", flush=True)
    survivors, began = [], time.monotonic()
    for i, mutant in enumerate(mutants, 1):
        called = mutant.line in inside
        chosen = {t for at in statement.get(mutant.line, [mutant.line])
                  for t in by_line.get(at, ())} if called else set()
        reason = "   (no test calls it)" if called and not chosen else ""
        # A table, a default, what runs at import: all tests may see it.
        ordered = sorted(chosen or seconds, key=lambda test: seconds.get(test, 0.0))
        if not is_killed(name, mutant, ordered, seconds):
            survivors.append(mutant)
            print(f"    survived: {name}:{mutant.line} {mutant.scope}: {mutant.what}{reason}\n"
                  f"        {mutant.source}", flush=True)
        if i % 50 == 0:
            print(f"    {i}/{len(mutants)}, {len(survivors)} survived, "
                  f"{time.monotonic() - began:.0f} s", flush=True)
    return len(mutants), len(mutants) - len(survivors), survivors


class Select(Watch):
    """Runs these tests only, in this order. One that runs on for ever ends the process."""

    def __init__(self, ordered: list[str], usual: dict[str, float]):
        super().__init__()
        self.rank, self.usual = {test: i for i, test in enumerate(ordered)}, usual

    def pytest_runtest_protocol(self, item, nextitem):
        super().pytest_runtest_protocol(item, nextitem)
        signal.setitimer(signal.ITIMER_PROF, 5 + 5 * self.usual.get(item.nodeid, 0.0))

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((i for i in items if i.nodeid in self.rank),
                          key=lambda item: self.rank[item.nodeid])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help=f"some of {', '.join(CONCERNS)}")
    parser.add_argument("--sample", type=int, help="at most so many mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only in functions whose name begins so")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(CONCERNS):
        sys.exit(f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(CONCERNS)}")
    os.chdir(ROOT)
    os.environ["PEFT_BOOK_PROGRESS"] = "off"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[:0] = [str(CODE), str(TESTS)]
    for name in ("numpy", "pytest", "hypothesis", "hypothesis.strategies", "hypothesis.extra.numpy",
                 "safetensors.numpy", "tqdm.auto", "tokenizers"):
        importlib.import_module(name)
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else {}
    failed = False
    for name in options.modules or CONCERNS:
        count, killed, survivors = test_module(name, options.sample, options.seed, options.only)
        excused = {(e["scope"], e["line"], e["change"]) for e in listed.get(name, [])}
        known = {m.key() for m in survivors} & excused
        equivalent = sum(m.key() in known for m in survivors)
        complete = options.sample is None and not options.only
        if complete and (stale := excused - known):
            print(f"    listed as equivalent, but killed or gone: {sorted(stale)}")
            failed = True
        share = 100.0 * killed / max(1, count - equivalent)
        failed |= share < GOAL
        print(f"{name}: {killed} of {count - equivalent} killed, {share:.1f} %"
              + (f"; {equivalent} more are equivalent" if equivalent else ""), flush=True)
    sys.exit(f"fewer than {GOAL:g} % killed, or a listed mutant that is not there" if failed else 0)


if __name__ == "__main__":
    main()
