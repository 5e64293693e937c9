"""Section 9.8's script on 1, 2 and 4 processes: the same run as ours, sharded or not, cut or not.

Real PyTorch processes over gloo, in the oracle's environment: `make distributed`. The commands
that the page prints are run as they stand there, in float64; other runs share launches, since
starting PyTorch takes longer than they do. `RECORD=1 make distributed` also writes down how many
bytes a process holds, which the page shows.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest
from safetensors.numpy import load_file

from real_models import hub, twins
from tensorfile import write_whole

pytestmark = pytest.mark.xdist_group("distributed")
SCRIPT = twins.SCRIPT.with_name("train_distributed.py")
DRIVER = Path(__file__).parents[1] / "oracle" / "distributed_oracle.py"
PAGE = Path(__file__).parents[4] / "book" / "08-from-numpy-to-hugging-face.ipynb"
HELD = twins.RECORD / "distributed.json"
RUNS = {  # name: processes and options
    "one": (1,), "DDP on 2": (2,), "FSDP2 on 2": (2, "--shard"),
    "DDP on 2, in pieces": (2, "--parts", "2"),
    "FSDP2 on 2, in pieces": (2, "--shard", "--parts", "2"),
    "DDP on 4": (4,), "FSDP2 on 4": (4, "--shard"),
    "DDP, cut": (2, "--resume"), "FSDP2, cut": (2, "--shard", "--resume"),
}
PRINTED = ["DDP on 2", "FSDP2 on 2", "FSDP2, cut"]  # in the page's order


def printed():
    """The page's commands in a shell, and the Markdown that stands before each in its cell."""
    cells = json.loads(PAGE.read_text("utf-8"))["cells"]
    return [(shlex.split(match[1].replace("\\\n", " ")), text[:match.start()])
            for text in ("".join(cell["source"]) for cell in cells
                         if cell["cell_type"] == "markdown")
            for match in re.finditer(r"```bash\n(.*?)```", text, re.DOTALL)]


def torchrun(*words, code=0):
    """What a launch prints; it must end with this exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([needs.oracle().with_name("torchrun"), *words], env=environment,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = process.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends its processes; none may outlive the test
        process.communicate()
        raise
    assert process.returncode == code, said[-3000:]
    return said


def together(processes, runs, *more, code=0):
    """Several runs in one launch: each is a folder and options."""
    file = runs[0][0].parent / "runs.json"
    file.write_text(json.dumps([[str(twins.BASE), *map(str, words), "--dtype", "float64"]
                                for words in runs]))
    return torchrun("--standalone", "--nproc_per_node", str(processes), DRIVER, file, *more,
                    code=code)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder as the script expects it, and the losses of the run in NumPy."""
    folder = tmp_path_factory.mktemp("start")
    batches = twins.make_batches()
    losses = twins.train(str(twins.BASE), folder, batches)
    twins.save_batches(folder, batches)
    return folder, losses


@pytest.fixture(scope="module")
def folders(start, tmp_path_factory):
    """Do all of the runs; the folder of each, and of the adapters that are saved wrongly."""
    root = tmp_path_factory.mktemp("runs")
    folders = {name: root / name for name in (*RUNS, "broken")}
    for folder in folders.values():
        shutil.copytree(start[0], folder)
    for name in ("DDP, cut", "FSDP2, cut"):
        options = [word for word in RUNS[name][1:] if word != "--resume"]
        said = together(2, [(folders[name], *options)], "--die-after", "8", code=1)
        assert "step 8 of" in said and "step 9 of" not in said, said[-3000:]
    commands = [command for command, _ in printed() if command[0] == "torchrun"]
    for name, command in zip(PRINTED, commands, strict=True):
        processes, *options = RUNS[name]
        assert command[1:4] == ["--standalone", "--nproc_per_node", str(processes)]
        assert command[4:] == ["train_distributed.py", "BASE", "FOLDER", *options]
        said = torchrun(*command[1:4], SCRIPT, twins.BASE, folders[name], *options,
                        "--dtype", "float64")
        (folders[name] / "said").write_text(said)
    for processes, more in ((1, ["--break", twins.BASE, folders["broken"]]), (2, []), (4, [])):
        names = [name for name in RUNS if RUNS[name][0] == processes and name not in PRINTED]
        said = together(processes, [(folders[name], *RUNS[name][1:]) for name in names], *more)
        for name, part in zip(names, said.split("step 20 of")):
            (folders[name] / "said").write_text(part)
    return folders


@pytest.fixture(scope="module")
def results(folders):
    """What each run answers, and the adapter that it wrote."""
    return {name: (json.loads((folders[name] / "distributed.json").read_text()),
                   load_file(folders[name] / "adapter" / "adapter_model.safetensors"))
            for name in RUNS}


def test_every_command_of_the_page_is_run_or_marked():
    for command, before in printed():
        assert command[0] == "torchrun" or "Not run here" in before.split("\n\n")[-2], command


def test_the_page_shows_lines_that_fit():
    assert max(map(len, SCRIPT.read_text("utf-8").splitlines())) <= 80


def test_one_process_is_our_run(start, folders, results):
    np.testing.assert_allclose(results["one"][0]["losses"], start[1], rtol=0, atol=1e-6)
    ours = hub.load_llama(twins.BASE)
    hub.load_adapter(ours, start[0] / "numpy")
    expected = ours.forward(twins.IDS)
    for name in results:  # ours reads what the processes wrote
        model = hub.load_llama(twins.BASE)
        hub.load_adapter(model, folders[name] / "adapter")
        np.testing.assert_allclose(model.forward(twins.IDS), expected, atol=2e-2, err_msg=name)


def test_many_processes_are_one(results):
    one, adapter = results["one"]
    assert {answer["processes"] for answer, _ in results.values()} == {1, 2, 4}
    for name, (answer, other) in results.items():
        np.testing.assert_allclose(answer["losses"], one["losses"], rtol=0, atol=1e-12,
                                   err_msg=name)
        assert adapter.keys() == other.keys()
        for key in adapter:
            np.testing.assert_allclose(other[key], adapter[key], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["DDP, cut", "FSDP2, cut"])
def test_killed_after_step_8_it_went_on_from_the_checkpoint_at_5(folders, name):
    steps = re.findall(r"step (\d+) of", (folders[name] / "said").read_text())
    assert steps[:14] == [str(number) for number in range(6, 20)]


def test_sharding_divides_what_a_process_holds(results):
    held = {name: answer["bytes"] for name, (answer, _) in results.items()}
    for name, bytes_held in held.items():
        share = RUNS[name][0] if "FSDP2" in name else 1
        assert held["one"] / share <= bytes_held < 1.1 * held["one"] / share, name
    if os.environ.get("RECORD"):
        write_whole(HELD, json.dumps({"dtype": "float64", "bytes": held}, indent=1) + "\n")
    assert json.loads(HELD.read_text())["bytes"] == held, "RECORD=1 make distributed"


def test_saving_is_checked(folders):
    said = json.loads((folders["broken"] / "saved.json").read_text())
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert said.pop("right") == [None, files]
    key = "base_model.model.model.layers.{}.self_attn.{}.weight"
    for name, words in {
            "names of wrapped layers": ["12 of 12", key.format(0, "q_proj.lora_A"), "[]"],
            "a misspelt module": ["1 of 12", key.format(1, "q_proj.lora_A"), "[]"],
            "one wrong key": ["1 of 12", key.format(1, "q_proj.lora_A"), "wght"],
            "a missing array": ["1 of 12", key.format(0, "q_proj.lora_A"), "[]"],
            "parts not gathered": [key.format(0, "v_proj.lora_B"), "(0, 4)", "(64, 4)"],
            "the start": ["start", "optimizer"],
            "B still zero": ["no logit", "zero"],
            "diverged": [key.format(2, "q_proj.lora_A"), "not finite"],
    }.items():
        message, left = said.pop(name)
        assert message and all(word in message for word in words), (name, message)
        assert not left, "what the check refuses never gets the adapter's name"
    assert not said
