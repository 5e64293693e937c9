"""Reference solutions of exercises 4 to 6: gradients by finite differences, NF4 by bitsandbytes.

What bitsandbytes computes lies in fixtures/bitsandbytes.npz, made by make_bitsandbytes_fixtures.py;
where the oracle's environment is installed, it is also made anew.
"""

import os
import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest
from exercise_tools import solution

from exercises.ex6_qlora import levels
from exercises.ex6_qlora.levels import DYNAMIC
from gradcheck import numerical_gradient, relative_error

PrefixMLP = solution("ex4_prefix_mlp", "PrefixMLP")
PromptedLoRAAttention = solution("ex5_prompted_lora", "PromptedLoRAAttention")
QLoRALinear = solution("ex6_qlora", "QLoRALinear")
quantize_nf4, dequantize_nf4, quantize_absmax, dequantize_absmax = (
    solution("ex6_qlora", name) for name in
    ("quantize_nf4", "dequantize_nf4", "quantize_absmax", "dequantize_absmax"))

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "oracle" / "make_bitsandbytes_fixtures.py"
FIXTURES = dict(np.load(TESTS / "fixtures" / "bitsandbytes.npz"))
CASES = sorted({key.split("/")[0] for key in FIXTURES if "/" in key})


def part(name):
    return {key.split("/")[1]: array for key, array in FIXTURES.items()
            if key.startswith(f"{name}/")}


def agree(method, loss, back, inputs=()):
    """Every gradient against central differences; `back` returns those of `inputs`."""
    rng = np.random.default_rng(5)
    for array in method.parameters().values():
        array[...] = rng.standard_normal(array.shape)  # a factor of zero would hide errors
    loss()
    of_inputs = back()
    found = {name: grad.copy() for name, grad in method.gradients().items()}
    for name, array in method.parameters().items():
        assert relative_error(found[name], numerical_gradient(loss, array)) < 1e-7, name
    for array in inputs:
        assert relative_error(of_inputs, numerical_gradient(loss, array)) < 1e-7


def test_gradients_of_the_prefix_through_the_mlp():
    rng = np.random.default_rng(0)
    mlp = PrefixMLP(2, 2, 3, 4, 5, 6, dtype=np.float64, rng=rng)
    C = rng.standard_normal((2, 2, 4, 2, 3))
    agree(mlp, lambda: float((C * np.sin(mlp.forward())).sum()),
          lambda: mlp.backward(C * np.cos(mlp.forward())))


def test_gradients_of_the_prefix_for_a_whole_batch():
    rng = np.random.default_rng(0)
    mlp = PrefixMLP(1, 2, 3, 4, 5, 6, dtype=np.float64, rng=rng)
    keys, values = rng.standard_normal((2, 5, 7, 2, 3))  # (batch, time, H, dh) each
    C = rng.standard_normal((2, 5, 11, 2, 3))

    def loss():
        return float((C * np.stack(mlp.to_prefix().forward(keys, values, 0))).sum())

    def back():
        prefix = mlp.to_prefix()
        prefix.forward(keys, values, 0)
        prefix.backward(*C, 0)
        mlp.backward(prefix.prefix_grad)

    agree(mlp, loss, back)


def test_prefix_mlp_counts():
    L, H, dh, P, e, h = 3, 2, 5, 4, 6, 7
    mlp = PrefixMLP(L, H, dh, P, e, h)
    assert mlp.num_parameters() == P * e + e * h + h + 2 * L * H * dh * (h + 1)
    assert mlp.to_prefix().num_parameters() == 2 * L * P * H * dh


def test_gradients_of_prompted_attention():
    rng = np.random.default_rng(0)
    layer = PromptedLoRAAttention(*rng.standard_normal((4, 5, 5)), 2, 4.0, 3, rng=rng)
    x, C = rng.standard_normal((2, 2, 4, 5))
    agree(layer, lambda: float((C * layer.forward(x)).sum()), lambda: layer.backward(C), [x])


@pytest.mark.parametrize("double_quant", [True, False])
def test_gradients_of_qlora(double_quant):
    rng = np.random.default_rng(0)
    layer = QLoRALinear(rng.standard_normal((7, 19)), rng.standard_normal(7), 2, 4.0,
                        double_quant=double_quant, rng=rng)
    x, C = rng.standard_normal((2, 3, 19)), rng.standard_normal((2, 3, 7))
    agree(layer, lambda: float((C * layer.forward(x)).sum()), lambda: layer.backward(C), [x])


def test_memory_of_qlora_is_4_127_bits_per_weight():
    W = np.random.default_rng(0).standard_normal((1024, 2048)).astype(np.float32)
    layer = QLoRALinear(W)
    stored = layer.codes.nbytes + sum(a.nbytes for a in layer.stored_absmax[:2])
    assert layer.bits_per_weight() == 8 * stored / W.size == 4 + 8 / 64 + 32 / (64 * 256)
    assert round(layer.bits_per_weight(), 3) == 4.127
    assert QLoRALinear(W, double_quant=False).bits_per_weight() == 4.5


def test_qlora_refuses_what_does_not_belong_together():
    codes, absmax = quantize_nf4(np.ones((3, 50)))
    for bad in ((codes[:-1], absmax), (codes, absmax[:-1])):
        with pytest.raises(ValueError, match="must have shape"):
            dequantize_nf4(*bad, (3, 50))
    with pytest.raises(ValueError, match="NaN"):
        quantize_nf4(np.array([[np.nan]]))
    with pytest.raises(RuntimeError):
        QLoRALinear(np.ones((2, 2)), lora_rank=1).backward(np.ones((1, 2)))


@pytest.mark.parametrize("table", ["NF4", "DYNAMIC"])
def test_levels_are_those_of_bitsandbytes(table):
    ours, theirs = getattr(levels, table), FIXTURES[table.lower()]
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_nf4_equals_bitsandbytes_bit_for_bit(name):
    expected = part(name)
    codes, absmax = quantize_nf4(expected["weight"])
    assert codes.tobytes() == expected["codes"].tobytes()
    assert absmax.tobytes() == expected["absmax"].tobytes()
    dequantized = dequantize_nf4(codes, absmax, expected["weight"].shape)
    assert np.array_equal(dequantized, expected["dequantized"])
    assert dequantized.dtype == np.float32


@pytest.mark.parametrize("name", CASES)
def test_double_quantization_equals_bitsandbytes_bit_for_bit(name):
    expected = part(name)
    codes, scales, offset = quantize_absmax(expected["absmax"])
    theirs = expected["double_offset"]  # summed in another order: a unit in the last place
    assert abs(offset - theirs) <= np.spacing(theirs)
    if offset == theirs:
        assert np.array_equal(scales, expected["double_scales"])
    # On a CPU bitsandbytes does not always take the nearest level for quotients below 3 / 2^15,
    # nor is there one for 0 / 0, where all absmax are equal.
    quotient = np.abs((expected["absmax"] - theirs) / max(expected["double_scales"].max(), 1e-30))
    same = codes == expected["double_codes"]
    assert same[quotient > 3 / 2 ** 15].all()
    for i in np.flatnonzero(~same):
        assert abs(DYNAMIC[codes[i]]) <= abs(DYNAMIC[expected["double_codes"][i]])
    absmax = dequantize_absmax(*(expected[f"double_{key}"]
                                 for key in ("codes", "scales", "offset")))
    assert absmax.tobytes() == expected["double_absmax"].tobytes()
    dequantized = dequantize_nf4(expected["codes"], absmax, expected["weight"].shape)
    assert np.array_equal(dequantized, expected["double_dequantized"])


def test_fixtures_are_what_bitsandbytes_says_today(tmp_path):
    python = needs.oracle()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, SCRIPT, tmp_path / "new.npz"], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    new = dict(np.load(tmp_path / "new.npz"))
    assert set(new) == set(FIXTURES)
    # A processor with other vector units may sum the mean in another order; nothing else rounds.
    free = ("double_",)
    differ = [key for key in new if not np.array_equal(new[key], FIXTURES[key])
              and not key.split("/")[-1].startswith(free)]
    assert not differ
    for name in CASES:
        theirs, ours = new[f"{name}/double_offset"], FIXTURES[f"{name}/double_offset"]
        assert abs(theirs - ours) <= 2 * np.spacing(ours)
        if theirs == ours:
            assert np.array_equal(new[f"{name}/double_dequantized"],
                                  FIXTURES[f"{name}/double_dequantized"])
