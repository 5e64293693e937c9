"""Every write is whole or not at all: killed at any step, full at any byte, read-only, two at once.

Each writer runs in a child process that is spoilt from outside; what its file then says must be
the old state or the new one.
"""

import ast
import builtins
import contextlib
import errno
import fcntl
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import build_book
import llama
import notebooks
import numpy as np
import pdf
import pytest
import tensorfile
import whole
import zip_book
from conftest import ROOT
from exercises.harness import progress
from experiments import pretrain, records
from in_page import build as in_page
from lite import build as lite
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tensorfile import write_whole

# ------------------------------------------------------------------ nobody writes beside the helper

#: Who may write without `tensorfile.write_whole`, with the reason why nothing can be lost.
SCRATCH = {
    "code/stage-09/tensorfile.py": "the helper itself",
    "code/stage-09/real_models/huggingface/train_peft.py":
        "runs where `import peft` is Hugging Face's, in a folder that twins.py made for this run",
    "code/stage-09/real_models/huggingface/train_distributed.py":
        "likewise; its keep() writes beside the target and replaces it",
    "tools/lite/safetensors/numpy.py": "stands in for the library, which callers give a new file",
    "tools/lite/compile.py": "runs inside Pyodide, on a folder made for this run",
}
WRITERS = {"write_text", "write_bytes", "save", "savez", "savez_compressed", "savetxt", "tofile",
           "copyfile", "copy2"}
MODULES = {"np", "numpy", "shutil"}


def mode_of(call, place):
    """The mode of an open() or a ZipFile(); "r" if none is given."""
    given = [*call.args[place:place + 1],
             *(word.value for word in call.keywords if word.arg == "mode")]
    return given[0].value if given and isinstance(given[0], ast.Constant) else "r" if not given \
        else "?"


def direct_writes(tree):
    """(line, what) of each call that writes a file in place; inside `with replacing(…)` is right.

    Adding at the end ("a") loses nothing that was there.
    """
    memory = {ast.unparse(node.targets[0]) for node in ast.walk(tree)
              if isinstance(node, ast.Assign) and "BytesIO()" in ast.unparse(node.value)}

    def visit(node, safe):
        if isinstance(node, ast.With):
            safe = safe or any("replacing" in ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call) and not safe and not (
                node.args and ast.unparse(node.args[0]) in memory):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else \
                getattr(node.func, "id", "")
            known = name in WRITERS | {"open", "ZipFile", "dump"}
            owner = ast.unparse(node.func.value) if known and hasattr(node.func, "value") else ""
            if name in ("open", "ZipFile"):
                place = 1 if owner in ("", "zipfile", "io", "gzip", "tarfile", "Image") else 0
                if owner not in ("os", "Image") and set(mode_of(node, place)) & set("wx+?"):
                    yield node.lineno, ast.unparse(node)
            elif name in WRITERS and (owner in MODULES or name.startswith("write_")
                                      or name == "tofile"):
                yield node.lineno, ast.unparse(node)
            elif (owner, name) == ("json", "dump") or name == "save" and "convert" in owner:
                yield node.lineno, ast.unparse(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, safe)
    yield from visit(tree, False)


def sources():
    for folder in ("code/stage-09", "tools", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/tests/" not in name and name not in SCRATCH:
                yield name, path


def test_no_file_is_written_in_place():
    found = [f"{name}, line {line}: {what}" for name, path in sources()
             for line, what in direct_writes(ast.parse(path.read_text("utf-8")))]
    assert not found, "use tensorfile.write_whole or replacing:\n" + "\n".join(found)


def test_what_is_excused_is_there_and_writes():
    for name in SCRATCH:
        assert [*direct_writes(ast.parse((ROOT / name).read_text("utf-8")))], name


@pytest.mark.parametrize("line", [
    "path.write_text('x')", "Path('a').write_bytes(b'')", "open('a', 'w')", "open('a', mode='wb')",
    "path.open('w')", "path.open(mode='x')", "open('a', how)", "path.open('r+')",
    "np.savez('a', x=1)", "np.save('a', x)", "json.dump(x, file)", "shutil.copyfile(a, b)",
    "zipfile.ZipFile('a', 'w')", "figure.convert('RGB').save(path)", "array.tofile('a')",
    "with other(path) as new: new.open('w')"])
def test_a_write_in_place_is_seen(line):
    assert len([*direct_writes(ast.parse(line))]) == 1


@pytest.mark.parametrize("line", [
    "path.open()", "open('a')", "path.open('ab')", "zipfile.ZipFile(path)", "model.save(folder)",
    "open(BUILD / 'lock', 'a')", "with replacing(path) as [new], new.open('wb') as file: pass",
    "write_whole(path, text)", "made = io.BytesIO(); zipfile.ZipFile(made, 'w')", "hub.save(a)"])
def test_what_loses_nothing_is_let_be(line):
    assert not [*direct_writes(ast.parse(line))]


# ------------------------------------------------------------------------------ the writers, spoilt

OLD, NEW = "old " * 700, "new " * 900


class Writer:
    """One way to write: `begin` makes the old state in a folder, `write` the new; `state` reads."""

    def __init__(self, begin, write, state):
        self.begin, self.write, self.state = begin, write, state


def notebook(text):
    return {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": text}],
            "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def noted(folder, number):
    os.environ["PEFT_BOOK_PROGRESS"] = str(folder / "progress.json")
    progress.PATIENCE = 0.05
    progress._note(number, folder / "progress.json")


def book(folder, text):
    """A built book of two pages that say the same, published in `folder`."""
    for name, path in {"MADE": "made", "HTML": "html"}.items():
        setattr(build_book, name, folder / path)
    shutil.rmtree(build_book.MADE, ignore_errors=True)
    for page in ("index.html", "other.html"):
        write_whole(build_book.MADE / page, f"<head></head>{text}")
    write_whole(build_book.MADE / "_static/pygments.css", "")  # which every built book has
    whole.restore(build_book.HTML)
    build_book.publish(False)


def book_state(folder):
    build_book.HTML = folder / "html"
    whole.restore(build_book.HTML)
    said = {OLD in page.read_text() for page in build_book.HTML.glob("*.html")}
    assert len(said) == 1 and len([*build_book.HTML.iterdir()]) == 3, "pages of two editions"
    return "old" if said.pop() else "new"


def packed(folder, text):
    write_whole(folder / "pages/index.html", text)
    sys.modules["tqdm"].tqdm.monitor_interval = 0  # no thread
    zip_book.pack(folder / "book.zip", folder / "pages")


def zip_state(folder):
    with zipfile.ZipFile(folder / "book.zip") as archive:
        assert archive.testzip() is None
        return archive.read("peft-book/index.html").decode()[:3]


def in_browser(folder, text):
    """Two files of Python for the browser that say the same."""
    lite.LITE, lite.digest_of_inputs = folder / "lite", lambda: text
    lite.make = lambda new: [write_whole(new / page, text) for page in ("index.html", "other.html")]
    lite.build()


def in_browser_state(folder):
    whole.restore(folder / "lite")
    said = {page.read_text() for page in (folder / "lite").iterdir()}
    assert len(said) == 1 and len([*(folder / "lite").iterdir()]) == 2, "files of two builds"
    stamp = folder / "lite.sha256"
    assert not stamp.exists() or stamp.read_text() in said, "it vouches for another folder"
    return said.pop()[:3]


def in_pages(folder, text):
    """Two pages with Python in them, which finds `text` as the course's code."""
    cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": []}
    write_whole(folder / "one.source", json.dumps({"cells": [cell]}))
    in_page.notebooks = lambda: dict.fromkeys(("one.ipynb", "two.ipynb"), folder / "one.source")
    in_page.SCRIPTS, in_page.playground, in_page.code_archive = (), dict, lambda: text.encode()
    in_page.course_names = dict  # to parse all modules was nearly all that this took
    for page in (folder / "one.html", folder / "two.html"):
        if not page.exists():
            write_whole(page, '<head><meta charset="utf-8"></head><div class="cell "></div>')
    in_page.add(folder)


def in_pages_state(folder):
    """Each page finds the whole of its own edition; that of the first counts."""
    found = []
    for page in ("one.html", "two.html"):
        place = folder / re.search(r'src="(in-page/\w+)/', (folder / page).read_text())[1]
        assert json.loads((place / "cells" / page.replace("html", "json")).read_text())
        found.append((place / "code.bin").read_text()[:3])
    return found[0]


def checkpoint(folder, text):
    """A small model whose weights, and a record, say the same."""
    value = float(text == NEW)
    config = llama.LlamaConfig(2, 4, 2, 1, 1, 1)
    model = llama.Llama(config, {name: np.full(shape, value, np.float32)
                                 for name, shape in config.weight_shapes().items()})
    pretrain.check_output(folder / "base")
    try:
        pretrain.save(model, {"loss": value}, folder / "base")
    except SafetensorError as error:  # its package's name for a full disk
        raise OSError(str(error)) from error


def checkpoint_state(folder):
    pretrain.check_output(folder / "base")
    arrays = load_file(folder / "base" / "model.safetensors")
    said = {float(value) for array in arrays.values() for value in array.ravel()}
    said.add(json.loads((folder / "base" / "training.json").read_text())["loss"])
    assert len(said) == 1 and json.loads((folder / "base" / "config.json").read_text())
    return "new" if said.pop() else "old"


WRITES = {
    "a checkpoint": Writer(lambda f: checkpoint(f, OLD), lambda f: checkpoint(f, NEW),
                           checkpoint_state),
    "a file": Writer(lambda f: write_whole(f / "x", OLD), lambda f: write_whole(f / "x", NEW),
                     lambda f: (f / "x").read_text().split()[0]
                     if (f / "x").read_text() in (OLD, NEW) else "damaged"),
    "a notebook": Writer(lambda f: notebooks.write(notebook(OLD), f / "x.ipynb"),
                         lambda f: notebooks.write(notebook(NEW), f / "x.ipynb"),
                         lambda f: json.loads((f / "x.ipynb").read_text())["cells"][0]["source"][0]
                         [:3]),
    "progress": Writer(lambda f: noted(f, "1"), lambda f: noted(f, "2"),
                       lambda f: {"1": "old", "12": "new"}[
                           "".join(json.loads((f / "progress.json").read_text()))]),
    "a record's row": Writer(lambda f: records.append(f / "runs.jsonl", {"a": OLD}),
                             lambda f: records.append(f / "runs.jsonl", {"a": NEW}),
                             lambda f: records.read_lines(f / "runs.jsonl")[-1]["a"][:3]),
    "a whole record": Writer(lambda f: records.write_record(f / "x.json", [OLD]),
                             lambda f: records.write_record(f / "x.json", [NEW]),
                             lambda f: json.loads((f / "x.json").read_text())[0][:3]),
    "the book": Writer(lambda f: book(f, OLD), lambda f: book(f, NEW), book_state),
    "Python for the browser": Writer(lambda f: in_browser(f, OLD), lambda f: in_browser(f, NEW),
                                     in_browser_state),
    "Python in the pages": Writer(lambda f: in_pages(f, OLD), lambda f: in_pages(f, NEW),
                                  in_pages_state),
    "the zip": Writer(lambda f: packed(f, OLD), lambda f: packed(f, NEW), zip_state),
}


@pytest.fixture(params=WRITES)
def writer(request, monkeypatch):
    pages = "notebooks SCRIPTS playground code_archive course_names"
    for module, names in {build_book: "MADE HTML", lite: "LITE digest_of_inputs make",
                          in_page: pages}.items():
        for name in names.split():
            monkeypatch.setattr(module, name, getattr(module, name))  # afterwards its own again
    return WRITES[request.param]


def child(work):
    """Run `work` in a process of its own; how it ended: 0, 1 with an OSError, or minus a signal."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            code = 0
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_any_step_leaves_the_old_state_or_the_new(writer, tmp_path):
    """At each of the system calls that Python tells of (open, rename, remove, …) in turn."""
    import tqdm  # noqa: F401  before, or its import's own steps count

    assert child(lambda: (writer.begin(tmp_path / "dry"), writer.write(tmp_path / "dry"))) == 0
    seen, step = [], 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        writer.begin(folder)
        left = [step]

        def work(folder=folder, left=left):
            def count(event, arguments):
                if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link",
                             "os.chmod", "shutil.copyfile", "shutil.rmtree"):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(count)
            writer.write(folder)
        how = child(work)
        seen.append(writer.state(folder))
        assert seen[-1] in ("old", "new"), step
        if how == 0:
            break
        assert how == -signal.SIGKILL and step < 200
    assert seen[0] == "old" and seen[-1] == "new" and step > 2
    writer.write(tmp_path / "1")  # what a killed process left is in nobody's way
    assert writer.state(tmp_path / "1") == "new"


@pytest.mark.parametrize("room", [0, 1, 20, 511, 2000, 3000, 3599])
@pytest.mark.parametrize("how", [signal.SIG_IGN, signal.SIG_DFL], ids=["refused", "killed"])
def test_stopped_at_any_byte_a_file_stays_as_it_was(writer, tmp_path, room, how):
    """The system refuses every byte of a file beyond `room`, or kills who writes it."""
    writer.begin(tmp_path)
    added = next(iter(tmp_path.glob("runs.jsonl")), None)  # this one grows where it is
    room += added.stat().st_size if added else 0

    def work():
        signal.signal(signal.SIGXFSZ, how)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        writer.write(tmp_path)
    ended, state = child(work), writer.state(tmp_path)
    stopped = 1 if how == signal.SIG_IGN else -signal.SIGXFSZ
    assert (ended, state) in ((stopped, "old"), (0, "new"))
    assert ended or room, "nothing was written at all"


class Pretended:
    """A disk that is full after so many bytes, or takes nothing, as Python's own calls meet it.

    Nobody needs a right for it, so this is tested everywhere. Where a test may mount a file system,
    a real one is filled, too: `Mounted`.
    """

    now = None  # the one that all of this process writes to

    def __init__(self, place):
        self.place, self.left, self.shut = place, 0, False

    def __enter__(self):
        self.own = builtins.open, io.open
        builtins.open = io.open = self.open
        Pretended.now = self
        return self

    def __exit__(self, *_):
        Pretended.now = None
        builtins.open, io.open = self.own

    def full(self, after=0):
        self.left, self.shut = after, False
        return self

    def read_only(self):
        self.left, self.shut = 10 ** 9, True
        return self

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None,
             closefd=True, opener=None):
        if not set(mode) & set("wax+"):
            return self.own[0](file, mode, buffering, encoding, errors, newline, closefd, opener)
        made = OnDisk(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering:
            made = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(made)
        return made if "b" in mode else io.TextIOWrapper(made, encoding, errors, newline)

    def refuse(self, event, arguments):
        """Raise what the system would of a call that changes a folder."""
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink",
                            "os.chmod", "os.truncate", "os.utime")
        makes = event == "os.mkdir" or event == "open" and arguments[2] & (
            os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR)
        if not (changes or makes) or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if not Path(arguments[0]).absolute().is_relative_to(self.place):
            return
        if self.shut:
            raise OSError(errno.EROFS, "Read-only file system")
        if makes and not self.left and not os.path.lexists(arguments[0]):
            raise OSError(errno.ENOSPC, "No space left on device")


class OnDisk(io.FileIO):
    def write(self, data):
        data, disk = memoryview(data).cast("B"), Pretended.now
        part = data[:disk.left] if disk else data
        if data and not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        if disk:
            disk.left -= len(part)
        return super().write(part)


def ask_disk(event, arguments):
    if Pretended.now and event.startswith(("open", "os.")):
        Pretended.now.refuse(event, arguments)


sys.addaudithook(ask_disk)  # which nobody can take away again


class Mounted:
    """A file system of its own, of 64 kB, which is really full, or really read-only."""

    def __init__(self, place):
        self.place = place
        subprocess.run(MOUNT + [place], check=True)

    @contextlib.contextmanager
    def full(self):
        filler = self.place / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(512))
        yield
        filler.unlink()

    @contextlib.contextmanager
    def read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", self.place], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", self.place], check=True)


MOUNT = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]


def disks():
    """The kinds of disks that there are here; nothing is skipped, since the first kind says all."""
    with tempfile.TemporaryDirectory() as place:
        if sys.platform == "linux" and shutil.which("mount") and not subprocess.run(
                [*MOUNT, place], capture_output=True).returncode:
            subprocess.run(["umount", place], check=True)
            return [Pretended, Mounted]
    return [Pretended]


@pytest.fixture(params=disks())
def disk(request, tmp_path, monkeypatch):
    place = tmp_path / "disk"
    place.mkdir()
    monkeypatch.setattr(shutil, "_USE_CP_SENDFILE", False, raising=False)  # which no open() sees
    monkeypatch.setattr(shutil, "_USE_CP_COPY_FILE_RANGE", False, raising=False)
    yield request.param(place)
    if request.param is Mounted:
        subprocess.run(["umount", place], check=True)


def test_on_a_full_disk_the_old_state_stays(writer, disk):
    writer.begin(disk.place)
    assert writer.state(disk.place) == "old"
    with disk.full():
        how = child(lambda: writer.write(disk.place))
    assert (how, writer.state(disk.place)) in ((1, "old"), (0, "new"))
    writer.write(disk.place)
    assert writer.state(disk.place) == "new", "what the full disk left is in the way"


@pytest.mark.parametrize("disk", [Pretended], indirect=True)
def test_on_a_disk_that_is_full_at_any_byte_the_old_state_stays(writer, disk, monkeypatch):
    """After each byte in turn that is written, of short texts, and each eleventh of a long one."""
    monkeypatch.setitem(globals(), "OLD", "old ")
    monkeypatch.setitem(globals(), "NEW", "new ")
    monkeypatch.setattr(os, "fsync", lambda file: None)  # the pretended disk loses nothing
    writer.begin(disk.place)
    room, states = 0, []
    while not states or states[-1] == "old":
        with disk.full(room), contextlib.suppress(OSError):
            writer.write(disk.place)
        states.append(writer.state(disk.place))
        room += 1 if room < 400 else 11  # the archive of the pages takes 5,000
        assert room < 9000
    assert states[-1] == "new" and len(states) > len("new ")


def test_on_a_read_only_disk_it_is_an_error_and_the_old_state_stays(writer, disk):
    writer.begin(disk.place)
    with disk.read_only():
        assert child(lambda: writer.write(disk.place)) == 1
        if writer not in (WRITES["the book"], WRITES["a checkpoint"]):  # whose are mended
            assert writer.state(disk.place) == "old"
    assert writer.state(disk.place) == "old"


def test_a_new_file_has_a_name_that_nobody_knows_and_follows_no_link(tmp_path, monkeypatch):
    path, others = tmp_path / "a", tmp_path / "others"
    others.write_text("theirs")
    monkeypatch.setattr(os, "getpid", lambda: 7)  # the same in two containers
    with tensorfile.replacing(path) as [one], tensorfile.replacing(path) as [two]:
        assert one != two
    monkeypatch.setattr(tensorfile.secrets, "token_hex", lambda count: "7")
    links = [tmp_path / f".{name}.7.new" for name in "ab"]
    links[1].symlink_to(others)
    with pytest.raises(FileExistsError), tensorfile.replacing(path, tmp_path / "b") as new:
        new[1].write_text("ours")
    assert others.read_text() == "theirs"
    assert links[1].is_symlink() and not links[0].exists()


def test_what_killed_writers_left_a_day_ago_goes_at_the_next_write(tmp_path):
    path, other = tmp_path / "a[b].json", tmp_path / f".c.{16 * '1'}.new"
    dead, fresh = (path.with_name(f".{path.name}.{16 * digit}.new") for digit in "12")
    inner = path.with_name(f".{dead.name}.{16 * '3'}.new")  # as of write_json inside of `replacing`
    for file in (dead, inner, fresh, other):
        file.touch()
    for file in (dead, inner, other):
        os.utime(file, (0, 0))
    write_whole(path, "ours")
    assert {*tmp_path.iterdir()} == {path, fresh, other}
    ignored = subprocess.run(["git", "check-ignore", dead.name], cwd=ROOT, capture_output=True)
    assert ignored.stdout.decode().strip() == dead.name


def test_a_secret_file_is_never_open_to_others_while_it_is_replaced(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "old")
    for mode in (0o600, 0o640, 0o644):
        path.chmod(mode)
        with tensorfile.replacing(path) as [new]:
            assert new.stat().st_mode & 0o777 & ~mode == 0
            new.write_text("new")
        write_whole(path, "new")
        assert path.stat().st_mode & 0o777 == mode


def test_only_an_ordinary_file_is_replaced(tmp_path):
    """Root would replace a device that everybody needs, such as /dev/null."""
    pipe, folder, link, file = (tmp_path / name for name in ("pipe", "folder", "link", "file"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    for path in (pipe, folder, link):
        with pytest.raises(OSError, match="ordinary file"):
            write_whole(path, "ours")
        with pytest.raises(OSError, match="ordinary file"), tensorfile.replacing(file, path) as new:
            for one in new:
                one.write_text("ours")
    assert pipe.is_fifo() and link.is_symlink() and folder.is_dir() and not file.exists()
    assert {*tmp_path.iterdir()} == {pipe, folder, link}


@pytest.mark.parametrize("name", ["a file", "a notebook", "a whole record"])
def test_two_writers_at_once_leave_one_of_both(name, tmp_path):
    writer = WRITES[name]
    writer.begin(tmp_path)
    pids = []
    for work in (writer.begin, writer.write):
        if (pid := os.fork()) == 0:
            for _ in range(60):
                work(tmp_path)
            os._exit(0)
        pids.append(pid)
    states = {writer.state(tmp_path) for _ in range(300)}
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert states <= {"old", "new"}
    assert len([*tmp_path.iterdir()]) == 1


def test_two_builds_of_python_for_the_browser_come_one_after_the_other(tmp_path):
    def build(text):
        for _ in range(30):
            in_browser(tmp_path, text)
    pids = []
    for text in (OLD, NEW):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                build(text)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert in_browser_state(tmp_path) in ("old", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"lite", "lite.sha256", "lite.lock"}


@pytest.mark.parametrize(("module", "work"), [(zip_book, "pack"), (pdf, "make")])
def test_who_packs_or_prints_the_book_waits_for_its_build_and_says_what_is_left(
        module, work, tmp_path, monkeypatch, capsys):
    asked, target = [], tmp_path / "target"

    def lock(file, how):
        asked.append(how)
        if how & fcntl.LOCK_NB:
            raise BlockingIOError

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(fcntl, "flock", lock)
    for name, value in {"ROOT": tmp_path, "HTML": tmp_path, "TARGET": target, work: full,
                        "launched": contextlib.nullcontext, "CHROMIUM": sys.executable}.items():
        monkeypatch.setattr(module, name, value, raising=False)
    for there in (False, True):
        if there:
            target.touch()
        write_whole(tmp_path / "index.html", "a book")
        with pytest.raises(SystemExit, match="space") as ended:
            module.main()
        assert ("last good one" in str(ended.value)) == there
    assert asked == 2 * [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    assert "waiting" in capsys.readouterr().out


def test_a_row_that_lacks_only_the_end_of_its_line_is_counted_and_stays(tmp_path):
    """Whoever found it there has not made its run again."""
    path = tmp_path / "runs.jsonl"
    for end, kept in ((b'{"a":1}\n{"a":2}', [1, 2, 3]), (b'{"a":1}\n{"a":2', [1, 3])):
        path.write_bytes(end)
        found = [row["a"] for row in records.read_lines(path)]
        records.append(path, {"a": 3})
        assert [row["a"] for row in records.read_lines(path)] == [*found, 3] == kept


def test_a_pass_that_cannot_be_noted_is_said_in_a_sentence(disk, capsys, monkeypatch):
    monkeypatch.setenv("PEFT_BOOK_PROGRESS", str(disk.place / "progress.json"))
    report = SimpleNamespace(passed=True, step=None, exercise=1)
    with disk.read_only():
        assert progress.remember(report) is report
    assert str(disk.place / "progress.json") in capsys.readouterr().err
    assert not (disk.place / "progress.json").exists()


def write_in_place(path, text):
    path.write_text(text)


def test_the_pretended_disk_finds_a_writer_that_is_not_whole(tmp_path):
    disk, path = Pretended(tmp_path), tmp_path / "a"
    path.write_text("old")
    for write, left in ((write_in_place, "ne"), (write_whole, "old")):
        path.write_text("old")
        with disk.full(2), pytest.raises(OSError, match="space"):
            write(path, "new")
        assert path.read_text() == left
    with disk.read_only():
        for work in (lambda: write_in_place(path, "new"), path.unlink, (tmp_path / "b").mkdir,
                     lambda: path.rename(tmp_path / "b"), lambda: shutil.copy(path, tmp_path / "b"),
                     lambda: os.open(path, os.O_RDWR)):
            with pytest.raises(OSError, match="Read-only"):
                work()
    assert [*tmp_path.iterdir()] == [path]
