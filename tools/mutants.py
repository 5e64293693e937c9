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
the wording of messages (all inside a `raise` or an f-string; in the exercise checks, which are made
of sentences, any text with a space), the 1 of -1 (NumPy takes any negative size for "all that is
left"), and options that change speed or wording alone (UNCHANGED), seeds among them, with their
defaults. In the exercise checks the numbers that only choose a random probe stay, too: the sizes
given to `Trial.normal`, the seed given to `Trial.rng`, and the leading axes in `for lead in ...`.
What such a check asks must hold for an input of any size and from any seed, so 5 rows for 4 are as
good a question. Where sizes have to fit together, other mutants of the same test say so.

A mutant that no test can notice, since it computes the same, is listed with the reason in
code/stage-09/tests/equivalent_mutants.toml. An entry that matches no surviving mutant fails, too.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import random
import signal
import sys
import time
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "code" / "stage-09"
TESTS = CODE / "tests"
EQUIVALENT = TESTS / "equivalent_mutants.toml"
GOAL = 95.0  # per cent of a module's mutants

# By module, the test files that concern it and run in seconds.
_EXERCISES = sorted(path.parent.name for path in CODE.glob("exercises/ex*/checks.py"))
CONCERNS = {
    "peft.py": ["peft", "algebra", "stress"],
    "real_models/accounting.py": ["accounting", "algebra"],
    "llama.py": ["llama", "algebra", "stress", "parity"],
    "training.py": ["training", "stress"],
    "real_models/hub.py": ["hub"],
    "checks.py": ["checking"],
    **{f"exercises/harness/{name}.py": ["checking", "checks_ex1"]
       for name in ("checking", "run", "compare", "contract", "report")},
    **{f"exercises/{room}/checks.py": [f"checks_{room[:3]}"] for room in _EXERCISES},
}
SLOW = ("can_be_made_again", "killed", "demo_prints_the_block")  # start other processes

PROBES = ("normal", "rng")  # methods of a `Trial`: a random array, a generator
UNCHANGED = ("copy", "strict", "stacklevel", "encoding", "repr", "desc", "leave", "delay", "seed")

COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
           ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
           ast.IsNot: ast.Is}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
              ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
              ast.BitAnd: ast.BitOr}
TEXT = {**{kind: kind.__name__ for kind in (*COMPARE, *ARITHMETIC)}, ast.And: "And", ast.Or: "Or"}


class Mutant:
    """One change: where it is, what it does to which node of the tree."""

    def __init__(self, line: int, scope: str, what: str, apply):
        self.line, self.scope, self.what, self.apply = line, scope, what, apply
        self.source = ""

    def key(self) -> tuple[str, str, str]:
        return self.scope, self.source, self.what


def collect(tree: ast.Module, lines: list[str], sentences: bool) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines; `sentences`: text is for people."""
    found: list[Mutant] = []

    def add(node, scope, what, change):
        """`change` alters a node in place; it is given the node's copy in a copy of the tree."""
        mutant = Mutant(node.lineno, scope, what, None)
        index = order[id(node)]

        def apply():
            broken = copy.deepcopy(tree)
            change(nth(broken, index))
            return ast.fix_missing_locations(broken)
        mutant.apply, mutant.source = apply, lines[node.lineno - 1].strip()
        found.append(mutant)

    order = {id(node): i for i, node in enumerate(ast.walk(tree))}

    def nth(root, index):
        for i, node in enumerate(ast.walk(root)):
            if i == index:
                return node
        raise IndexError(index)

    def become(new):
        def change(node):
            made = new(node)
            node.__class__ = made.__class__
            node.__dict__.clear()
            node.__dict__.update(made.__dict__)
        return change

    def at(node, new):  # keeps the position, so that tracebacks stay right
        return ast.copy_location(new, node)

    def visit(node, scope, message):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = f"{scope}.{node.name}".lstrip(".")
            for child in ast.iter_child_nodes(node):
                if child is getattr(node, "returns", None) or child in node.decorator_list:
                    continue
                visit(child, inner, message)
            return
        if isinstance(node, ast.arg):
            return  # a name and its annotation
        if isinstance(node, ast.keyword) and node.arg in UNCHANGED:
            return
        if isinstance(node, ast.arguments):
            for name, default in defaults(node):
                if default is not None and name not in UNCHANGED:
                    visit(default, scope, message)
            return
        if sentences and isinstance(node, ast.Call) and getattr(node.func, "attr", "") in PROBES:
            return
        if sentences and isinstance(node, ast.For) and ast.unparse(node.target) == "lead":
            for child in node.body:
                visit(child, scope, message)
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                visit(node.value, scope, message)
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__ =="):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            return
        here = message or isinstance(node, (ast.Raise, ast.JoinedStr))
        mutate(node, scope, here)
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            return
        for child in ast.iter_child_nodes(node):
            visit(child, scope, here)

    def defaults(node):
        """(name, default) of the parameters that may have one."""
        plain = [*node.posonlyargs, *node.args]
        with_default = plain[len(plain) - len(node.defaults):]
        yield from ((a.arg, d) for a, d in zip(with_default, node.defaults, strict=True))
        yield from ((a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True))

    def mutate(node, scope, message):
        if isinstance(node, ast.Compare) and not message:
            for i, op in enumerate(node.ops):
                if new := COMPARE.get(type(op)):
                    def change(n, i=i, new=new):
                        n.ops[i] = new()
                    add(node, scope, f"{TEXT[type(op)]} -> {TEXT[new]} ({i})", change)
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
            new = ARITHMETIC[type(node.op)]
            textual = isinstance(node, ast.BinOp) and any(
                isinstance(side, (ast.JoinedStr, ast.Tuple, ast.List))
                or isinstance(side, ast.Constant) and isinstance(side.value, str)
                for side in (node.left, node.right))
            if not message and not textual:
                def change(n, new=new):
                    n.op = new()
                add(node, scope, f"{TEXT[type(node.op)]} -> {TEXT[new]}", change)
        elif isinstance(node, ast.BoolOp) and not message:
            new = ast.Or if isinstance(node.op, ast.And) else ast.And

            def change(n, new=new):
                n.op = new()
            add(node, scope, f"{TEXT[type(node.op)]} -> {TEXT[new]}", change)
        elif isinstance(node, ast.UnaryOp) and not message:
            if isinstance(node.op, ast.Not):
                add(node, scope, "not dropped", become(lambda n: n.operand))
            elif isinstance(node.op, ast.USub):
                add(node, scope, "sign dropped", become(lambda n: n.operand))
        elif isinstance(node, ast.Constant) and not message:
            value = node.value
            if isinstance(value, bool):
                new = not value
            elif isinstance(value, (int, float)):
                new = value + 1
            elif isinstance(value, str) and value and not (sentences and " " in value):
                new = "XX" + value
            else:
                return

            def change(n, new=new):
                n.value = new
            add(node, scope, f"{value!r} -> {new!r}"[:60], change)
        elif isinstance(node, ast.Return) and node.value is not None and not (
                isinstance(node.value, ast.Constant) and node.value.value is None):
            def change(n):
                n.value = ast.copy_location(ast.Constant(None), n)
            add(node, scope, "return None", change)
        if isinstance(node, (ast.If, ast.IfExp, ast.While)) and not message and not isinstance(
                node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            def change(n):
                n.test = at(n.test, ast.UnaryOp(ast.Not(), n.test))
            add(node, scope, "condition negated", change)
        if isinstance(node, ast.Raise) or isinstance(node, ast.AugAssign) or (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            add(node, scope, "left out", become(lambda n: at(n, ast.Pass())))
        if isinstance(node, ast.Break):
            add(node, scope, "break -> continue", become(lambda n: at(n, ast.Continue())))
        if isinstance(node, ast.Continue):
            add(node, scope, "continue -> break", become(lambda n: at(n, ast.Break())))

    for statement in tree.body:
        visit(statement, "", False)
    times: dict[tuple, int] = {}
    for mutant in found:  # the second `1 -> 2` of a line is another mutant than the first
        times[mutant.key()] = nth_time = times.get(mutant.key(), 0) + 1
        if nth_time > 1:
            mutant.what += f" #{nth_time}"
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
        # The exercise checks' time limit gives way to a tracer: an endless loop would be one.
        if self.module is not None and "ndless" not in item.nodeid:
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


def test_module(name: str, sample: int | None, seed: int, only: str) -> tuple[int, int, list]:
    """(mutants, killed, survivors) of one module."""
    path = CODE / name
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    files = [str(file) for concern in CONCERNS[name]
             for file in TESTS.rglob(f"test_{concern}.py")]
    slow = " and ".join(f"not {word}" for word in SLOW)

    def baseline():
        watch = Watch(path)
        code = run_pytest([*files, "-k", slow], watch)
        return code, watch.seconds, watch.reached

    print(f"==> {name}: which tests reach which line", flush=True)
    answer = in_fork(baseline, 900)
    if answer is None or answer[0] != 0:
        sys.exit(f"{name}: the tests must pass before anything is broken, run them first: "
                 f"pytest {' '.join(files)}")
    _, seconds, reached = answer
    by_line: dict[int, list[str]] = {}
    for test, at in reached.items():
        for line in at:
            by_line.setdefault(line, []).append(test)
    # Lines of a statement are reached together, but an event names only some of them.
    statement: dict[int, range] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            for line in range(node.lineno, node.end_lineno + 1):
                statement[line] = range(node.lineno, node.end_lineno + 1)
        elif isinstance(node, ast.stmt):
            last = max(node.lineno, node.body[0].lineno - 1)
            for line in range(node.lineno, last + 1):
                statement.setdefault(line, range(node.lineno, last + 1))
    inside = {line for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
              for line in range(node.body[0].lineno, node.end_lineno + 1)}
    sentences = "check" in name
    mutants = [m for m in collect(tree, lines, sentences) if m.scope.startswith(only)]
    everything = len(mutants)
    if sample is not None and sample < everything:
        mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda m: m.line)
    print(f"    {len(seconds)} tests; {len(mutants)} of {everything} mutants", flush=True)
    total_time = sum(seconds.values())
    survivors, began = [], time.monotonic()
    for i, mutant in enumerate(mutants):
        if mutant.line in inside:
            chosen = {t for at in statement.get(mutant.line, [mutant.line])
                      for t in by_line.get(at, ())}
            if chosen:  # tests of endless loops ran without the tracer: they may reach any line
                chosen |= {t for t in seconds if "ndless" in t}
        else:
            chosen = set()
        reason = "" if chosen or mutant.line not in inside else "   (no test calls it)"
        chosen = chosen or set(seconds)  # a table, a default, what runs at import: all may see it
        ordered = sorted(chosen, key=lambda test: seconds.get(test, 0.0))

        def work(mutant=mutant, ordered=ordered):
            try:
                module = name.removesuffix(".py").replace("/", ".")
                sys.meta_path.insert(0, Finder(module, path, mutant.apply()))
                watch = Select(ordered, seconds)
                return run_pytest([*dict.fromkeys(t.split("::")[0] for t in ordered)], watch)
            except SyntaxError:
                return 1
        budget = 20 + 5 * sum(seconds.get(t, 0.0) for t in ordered)
        killed = in_fork(work, min(budget, 20 + 5 * total_time)) != 0
        if not killed:
            survivors.append(mutant)
            print(f"    survived: {name}:{mutant.line} {mutant.scope}: {mutant.what}{reason}\n"
                  f"        {mutant.source}", flush=True)
        if (i + 1) % 50 == 0:
            print(f"    {i + 1}/{len(mutants)}, {len(survivors)} survived, "
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
