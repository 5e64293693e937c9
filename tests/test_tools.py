"""What must hold when a tool is stopped, fails, or meets a full disk; and what FAST=1 chooses."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import build_book
import keep_outputs
import licences
import lighten
import mark
import notebooks
import numpy as np
import pytest
import touched
import zip_book
from conftest import ROOT
from in_page import build as in_page
from lite import build as lite
from PIL import Image
from tensorfile import write_whole
from whole import restore

CELL = {"cell_type": "code", "id": "one", "metadata": {}, "execution_count": None, "outputs": []}


def notebook(path, source):
    notebooks.write({"cells": [CELL | {"source": source}], "metadata": {}, "nbformat": 4,
                     "nbformat_minor": 5}, path)
    return path


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "x.txt"
    write_whole(path, "old")
    path.chmod(0o640)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_whole(path, "new" * 1000)
    monkeypatch.undo()
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
    link = tmp_path / "link"
    link.symlink_to(path)
    write_whole(link, b"new")
    assert link.is_symlink() and path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o440)  # locked on purpose; replacing it would need no leave
    with pytest.raises(PermissionError, match="read-only"):
        write_whole(path, "newer")
    assert path.read_text() == "new"


def test_the_zip_holds_nothing_that_a_link_leads_to(tmp_path):
    html, other = tmp_path / "html", tmp_path / "other"
    for folder in (html, other):
        folder.mkdir()
        (folder / "page.html").write_bytes(b"page")
    (html / "link.html").symlink_to(other / "page.html")
    (html / "folder").symlink_to(other)
    assert set(zip_book.packed_files(html)) == {"peft-book/page.html"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository in the place of ours, and beside it what is nobody's business."""
    root = tmp_path / "repository"
    for name in ("book/page.md", "code/stage-09/peft.py", "tools/probe.py", "_config.yml",
                 "tools/lite/safetensors/numpy.py", "vendor/a.js", ".git/config"):
        write_whole(root / name, "ours")
    for name in ("passwd", "home/key"):
        write_whole(tmp_path / name, "secret")
    for module in (build_book, lite):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(lite, "HERE", root / "tools" / "lite")
    monkeypatch.setattr(build_book, "SOURCE", tmp_path / "source")
    return root


def stage(folder):
    lite.stage(folder / "contents")


def archive(folder):
    in_page.code_archive()


def copy(folder):
    build_book.copy_sources()


@pytest.mark.parametrize(("make", "place"), [
    (stage, "book"), (stage, "code/stage-09"), (stage, "tools/lite/safetensors"),
    (archive, "code/stage-09"), (archive, "tools/lite/safetensors"),
    (copy, "book"), (copy, "code/stage-09"), (copy, "vendor")])
@pytest.mark.parametrize(("link", "leads"), [
    ("link.md", "passwd"), ("link", "home"), ("", "home"), ("link.md", "repository/.git/config")])
def test_a_book_takes_nothing_through_a_link(repository, make, place, link, leads):
    make(repository.parent)  # as it is, all is well
    there = repository / place / link
    if not link:
        there = there.rename(repository / "moved").parent / place
    there.symlink_to(repository.parent / leads)
    with pytest.raises(RuntimeError, match=rf"{place}.*link"):
        make(repository.parent)


def test_a_link_that_an_editor_leaves_stops_nothing(repository):
    (repository / "book" / ".#page.md").symlink_to("somebody@somewhere.1234")
    (repository / "book" / "__pycache__").symlink_to(repository.parent)
    assert [path.name for path in build_book.files_below("book")] == ["page.md"]


@pytest.mark.parametrize("lack", [0, 1, 2, 3])
def test_a_full_disk_in_the_last_steps_of_a_build_leaves_the_last_good_book(build, monkeypatch,
                                                                            lack):
    """publish() writes the licences' texts, their page and the first one; all fit but `lack`."""
    write_whole(build.MADE / "index.html", "<head></head>the new book")
    write_whole(build.MADE / licences.PAGE, licences.PLACE)
    write_whole(build.MADE / "LICENSE", "a text")
    writes = len(licences.texts(build.MADE)) + 2 - lack
    left, sync = [2 * writes], os.fsync  # of the file and of its folder

    def fsync(file):
        left[0] -= 1
        return full() if left[0] < 0 else sync(file)
    with monkeypatch.context() as spoilt:
        spoilt.setattr(os, "fsync", fsync)
        if lack:
            with pytest.raises(OSError, match="space"):
                build.publish(False)
        else:
            build.publish(False)
    said = "the last good book" if lack else "the new book"
    assert said in (build.HTML / "index.html").read_text()
    assert {path.name for path in build.BUILD.iterdir()} == {"html", "pages"}


def test_a_full_disk_ends_a_build_in_a_sentence(build, monkeypatch):
    monkeypatch.setattr(build, "build", full)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit, match="still there.*No space left"):
        build.main()
    signal.signal(signal.SIGINT, before)


def test_a_full_disk_leaves_a_notebook_that_is_put_into_normal_form(tmp_path, monkeypatch):
    path = notebook(tmp_path / "a.ipynb", "1")
    path.write_text(path.read_text() + "\n\n")  # work that is in no commit
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--normalise", str(path)])
    with pytest.raises((OSError, SystemExit), match="space"):
        notebooks.main()
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    monkeypatch.setattr(os, "fsync", lambda file: None)
    with pytest.raises(SystemExit):  # so that a hook stops the commit
        notebooks.main()
    assert path.read_bytes() != before, "there was nothing to write"


def test_a_build_needs_neither_git_nor_a_home():
    """As in a container: no HOME, no git, no user of this number."""
    code = ("import os, pathlib, pwd, sys\n"
            "pwd.getpwuid = lambda number: {}[number]\n"
            "import build_book\n"
            "print(len(build_book.shared_digest()), len(build_book.settings_digest()),"
            " repr(build_book.commit()), build_book.repository_url())\n"
            "try:\n    pathlib.Path.home()\nexcept RuntimeError:\n    print('homeless')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tools", text=True,
                          env={"PATH": "nowhere"}, capture_output=True, check=False)
    assert done.stdout == "64 64 '' None\nhomeless\n", done.stderr


def test_a_full_disk_leaves_the_mark_and_the_card(tmp_path, monkeypatch):
    monkeypatch.setattr(mark, "STATIC", tmp_path)
    for name in ("mark.svg", "card.png"):
        write_whole(tmp_path / name, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        mark.main()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "mark.svg": "old", "card.png": "old"}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_ends_its_pipe(tmp_path, sign):
    pid = tmp_path / "pid"
    path = notebook(tmp_path / "slow.ipynb", "import os, pathlib, time\n"
                    f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(300)")
    before = path.read_bytes()
    run = subprocess.Popen([sys.executable, ROOT / "tools/notebooks.py", path],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: pid.exists() and pid.read_text())
    run.send_signal(sign)
    run.stdout.read()  # ends when nobody holds the pipe
    assert run.wait() == -sign
    until(lambda: not Path(f"/proc/{pid.read_text()}").exists())
    assert path.read_bytes() == before


def killed_build(tmp_path, more=""):
    """A build that is killed while its Jupyter Book writes, and that one's number."""
    program = tmp_path / "jupyter-book"
    write_whole(program, f"#!{sys.executable}\nimport os, pathlib, time\n"
                f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
                f"while True:\n    time.sleep(0.01); pathlib.Path({str(tmp_path / 'page')!r})"
                ".write_text(str(time.time()))\n")
    program.chmod(0o755)
    script = (f"import sys, signal, build_book, whole, pathlib\n{more}\n"
              f"build_book.BUILD = here = pathlib.Path({str(tmp_path)!r})\n"
              f"sys.executable = {str(tmp_path / 'python')!r}\n"
              "build_book.build = build_book.make_pages\nbuild_book.main()")
    builder = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tools")
    until(lambda: (tmp_path / "page").exists())
    builder.kill()
    builder.wait()
    return int((tmp_path / "pid").read_text())


def runs(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it goes on, see the next test")
def test_jupyter_books_own_process_ends_with_a_build_that_is_killed(tmp_path):
    pid = killed_build(tmp_path)
    try:
        until(lambda: not runs(pid), 10)
    finally:
        if runs(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_build_waits_for_what_a_killed_one_has_left_behind(tmp_path):
    """Where a process can't be told to end with another."""
    pid = killed_build(tmp_path, "whole.sys = type('', (), {'platform': 'darwin'})")
    script = ("import build_book, pathlib\n"
              f"build_book.BUILD = here = pathlib.Path({str(tmp_path)!r})\n"
              "build_book.build = lambda: print('begins', flush=True)\nbuild_book.main()")
    try:
        assert runs(pid)
        second = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tools", text=True,
                                  stdout=subprocess.PIPE)
        assert "waiting" in second.stdout.readline()
        assert runs(pid) and second.poll() is None
    finally:
        os.kill(pid, signal.SIGKILL)
    assert "begins" in second.stdout.read() and second.wait() == 0


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """build_book in a folder of its own, with a last good book."""
    for name, path in {"ROOT": ROOT, "BUILD": tmp_path, "PAGES": tmp_path / "pages",
                       "MADE": tmp_path / "pages/_build/html", "HTML": tmp_path / "html"
                       }.items():
        monkeypatch.setattr(build_book, name, path)
    for part, does in ((build_book.search_page, "add"), (build_book.lighten, "lighten")):
        monkeypatch.setattr(part, does, lambda folder: None)  # they need a whole book
    write_whole(build_book.HTML / "index.html", "the last good book")
    return build_book


def test_a_build_with_a_fault_leaves_the_last_good_book(build, monkeypatch):
    seen = {}

    def fails(command, **options):
        seen.update(options)
        write_whole(build.MADE / "index.html", "half a book")
        return subprocess.CompletedProcess(command, 1)
    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(SystemExit):
        build.make_pages()
    assert (build.HTML / "index.html").read_text() == "the last good book"
    assert not build.PAGES.exists(), "the next build would skip what it has, and its warnings"
    assert str(ROOT / "tools") in seen["env"]["PYTHONPATH"].split(os.pathsep)


def test_a_good_build_takes_the_place_and_a_killed_one_is_mended(build, capsys):
    write_whole(build.MADE / "index.html", "<head></head>the new book")
    build.publish(False)
    assert "the new book" in (build.HTML / "index.html").read_text()
    old = build.HTML.with_name("html.old")
    assert not old.exists()
    build.HTML.rename(old)  # killed between the two moves
    restore(build.HTML)
    assert "the new book" in (build.HTML / "index.html").read_text()
    assert not capsys.readouterr().out
    write_whole(build.HTML.with_name("html.new") / "index.html", "half a book")  # killed before
    restore(build.HTML)
    assert {path.name for path in build.BUILD.iterdir()} == {"html", "pages"}
    assert "html.new" in capsys.readouterr().out


def test_a_second_build_waits_for_the_first(build, monkeypatch, capsys):
    import fcntl

    monkeypatch.setattr(build, "build", lambda: None)
    asked = []

    def lock(file, how):
        asked.append(how)
        if how & fcntl.LOCK_NB:
            raise BlockingIOError
    monkeypatch.setattr(fcntl, "flock", lock)
    before = signal.getsignal(signal.SIGINT)
    build.main()
    signal.signal(signal.SIGINT, before)
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    assert "Another process builds this book" in capsys.readouterr().out


@pytest.mark.parametrize(("cells", "metadata", "expected"), [
    (["1 + 1"], {}, False), (["1 + 1"], {"widgets": {}}, True),
    (["1", "from real_models import twins"], {}, True)])
def test_the_build_runs_again_what_nbval_cannot_vouch_for(cells, metadata, expected):
    made = {"metadata": metadata, "cells": [CELL | {"source": [text]} for text in cells]}
    assert keep_outputs.again(made) == expected


@pytest.mark.parametrize("source", ["print(6 * 7)", "1 / 0"])
def test_only_a_notebook_that_passes_is_kept(tmp_path, monkeypatch, source):
    (tmp_path / "pytest.ini").touch()
    path = notebook(tmp_path / "one.ipynb", source)
    cell = CELL | {"source": source, "execution_count": 1, "metadata": {
        "tags": ["nbval-ignore-output"]}}
    notebooks.write({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, path)
    script = ("import sys, build_book, notebooks, pathlib, pytest\n"
              f"build_book.ROOT = notebooks.ROOT = pathlib.Path({str(tmp_path)!r})\n"
              "build_book.EXECUTED = build_book.ROOT / 'executed'\n"
              "build_book.shared_digest = lambda: 'shared'\n"
              f"sys.exit(pytest.main(['-q', '-p', 'keep_outputs', '--nbval', {str(path)!r}]))\n")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "tools")})
    kept = tmp_path / "executed/one.ipynb"
    assert (done.returncode == 0) == kept.exists() == ("print" in source), done.stdout
    if kept.exists():
        assert '"42\\n"' in kept.read_text(), "what the cell gives, not what was committed"
        assert kept.with_suffix(".sha256").exists()


@pytest.mark.parametrize(("path", "test"), [
    ("code/stage-09/peft.py", "test_peft.py"),
    ("code/stage-09/exercises/ex6_qlora/solution.py", "test_checks_ex6.py"),
    ("code/stage-09/tests/test_llama.py", "test_llama.py"),
    ("code/stage-09/real_models/hub.py", "test_hub.py"),
    ("tools/prose.py", "test_prose.py")])
def test_fast_asks_the_tests_of_what_changed(path, test):
    tests, books = touched.plan([Path(path)])
    assert test in [found.name for found in tests] and books == []


def test_fast_runs_a_changed_notebook_and_no_browser_for_a_tool():
    assert touched.plan([Path("book/02-lora.ipynb")]) == ([], [Path("book/02-lora.ipynb")])
    tests, _ = touched.plan([Path("tools/notebooks.py"), Path("tools/links.py")])
    names = {test.name for test in tests}
    assert "test_tools.py" in names and not {"test_lite.py", "test_links.py"} & names


def test_the_ground_of_a_figure_stays_white(tmp_path):
    """Of many pale tones the palette would take one for it, and a figure would stand in a box."""
    tones = np.full((40, 256, 3), 255, np.uint8)
    for row, pale in enumerate(range(240, 255)):
        tones[row] = np.stack([np.arange(256), np.full(256, pale), np.arange(256)[::-1]], axis=-1)
        tones[row + 15] = pale, 255, pale
    name = "0" * 64
    (tmp_path / "_images").mkdir()
    Image.fromarray(tones).save(tmp_path / "_images" / f"{name}.png")
    lighten.lighten_figures(tmp_path)
    with Image.open(tmp_path / "_images" / f"{name}.webp") as light:
        assert np.all(np.asarray(light.convert("RGB"))[30:] == 255)
