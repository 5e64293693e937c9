"""Section 9.8's script on 1, 2 and 4 processes: the same run as ours, sharded or not, cut or not.

Real PyTorch processes over gloo, in the oracle's environment: `make distributed`.
"""

import json
import os
import re
import signal
import subprocess

import needs
import numpy as np
import pytest
from safetensors.numpy import load_file

from real_models import hub, twins

pytestmark = pytest.mark.xdist_group("distributed")
SCRIPT = twins.SCRIPT.with_name("train_distributed.py")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder as the script expects it, and the losses of the run in NumPy."""
    folder = tmp_path_factory.mktemp("start")
    batches = twins.make_batches()
    losses = twins.train(str(twins.BASE), folder, batches)
    twins.save_batches(folder, batches)
    return folder, losses


def launch(folder, processes, *options):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [needs.oracle().with_name("torchrun"), "--standalone", "--nproc_per_node",
               str(processes), SCRIPT, twins.BASE, folder, "--dtype", "float64", *options]
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process):
    try:
        said = process.communicate(timeout=300)[0]
    except subprocess.TimeoutExpired:  # none of them may outlive the test
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.fixture(scope="module")
def results(start):
    """What each way of running it answers, and the adapter that it wrote."""
    found = {}
    for name, (processes, *options) in {
            "one": (1,), "DDP": (2,), "FSDP2": (2, "--shard"),
            "FSDP2 in pieces": (2, "--shard", "--parts", "2"), "FSDP2 on 4": (4, "--shard"),
    }.items():
        ended(launch(start[0], processes, *options))
        found[name] = (json.loads((start[0] / "distributed.json").read_text()),
                       load_file(start[0] / "adapter" / "adapter_model.safetensors"))
    return found


def test_one_process_is_our_run(start, results):
    np.testing.assert_allclose(results["one"][0]["losses"], start[1], rtol=0, atol=1e-6)
    model, ours = hub.load_llama(twins.BASE), hub.load_llama(twins.BASE)
    hub.load_adapter(model, start[0] / "adapter")  # ours reads what the processes wrote
    hub.load_adapter(ours, start[0] / "numpy")
    np.testing.assert_allclose(model.forward(twins.IDS), ours.forward(twins.IDS), atol=2e-2)


def test_many_processes_are_one(results):
    one, adapter = results.pop("one")
    for name, (answer, other) in results.items():
        np.testing.assert_allclose(answer["losses"], one["losses"], rtol=0, atol=1e-12,
                                   err_msg=name)
        assert adapter.keys() == other.keys()
        for key in adapter:
            np.testing.assert_allclose(other[key], adapter[key], rtol=0, atol=1e-9, err_msg=name)
    results["one"] = one, adapter


def test_sharding_divides_what_a_process_holds(results):
    held = {name: answer["bytes"] for name, (answer, _) in results.items()}
    assert held["DDP"] == held["one"]
    assert held["FSDP2"] < 0.52 * held["one"] and held["FSDP2 on 4"] < 0.28 * held["one"]


def test_killed_and_resumed_it_comes_to_the_same_end(start, results):
    process = launch(start[0], 2, "--shard")
    for line in process.stdout:  # between two checkpoints, with no time to clean up
        if re.match(r"step 8 of", line):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    said = ended(launch(start[0], 2, "--shard", "--resume"))
    assert "step 1 of" not in said and "step 5 of" not in said, "it went on from a checkpoint"
    answer = json.loads((start[0] / "distributed.json").read_text())
    np.testing.assert_allclose(answer["losses"], results["one"][0]["losses"], rtol=0, atol=1e-12)
    written = load_file(start[0] / "adapter" / "adapter_model.safetensors")
    for key, array in results["one"][1].items():
        np.testing.assert_allclose(written[key], array, rtol=0, atol=1e-9)
