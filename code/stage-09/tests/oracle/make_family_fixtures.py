"""Ask PyTorch and Hugging Face PEFT what the family's methods compute, for test_family_parity.py.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_family_fixtures.py [file]

Each case is one linear layer in float64, (2, 5, 6) in and (2, 5, 4) out, with random values in all
arrays: nothing starts at zero. Written into one file are, as <case>/<array>,

    weight, bias, x, g     the frozen layer, its input and dLoss/d(output)
    h, x_grad, merged      what comes out; the gradient of the input; the merged weight
    <p>, <p>_grad          each trainable array under our name

Cases named after a method are PEFT's own layers. Those that PEFT does not have are the paper's
formula in PyTorch, with autograd's gradients.

This folder's parent holds our `peft`: it must never be on the path here.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import peft

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "family.npz"
F64 = torch.float64


def draw(rng: np.random.Generator, *shape: int, centre: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(centre + rng.standard_normal(shape)).requires_grad_(True)


def frozen(rng: np.random.Generator, bias: bool) -> dict[str, torch.Tensor]:
    """A layer's weights, an input and a gradient of the output."""
    given = {"weight": draw(rng, 4, 6), "x": draw(rng, 2, 5, 6), "g": draw(rng, 2, 5, 4)}
    return given | ({"bias": draw(rng, 4)} if bias else {})


def numbers(found: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in found.items()}


def run_peft(config, own, *, bias: bool = False, seed: int = 5) -> dict[str, np.ndarray]:
    """PEFT's layer around one `nn.Linear`. `own(layer)` gives its trainable arrays by our names."""
    rng = np.random.default_rng(seed)
    given = frozen(rng, bias)
    model = nn.ModuleDict({"linear": nn.Linear(6, 4, bias=bias)})
    model = peft.inject_adapter_in_model(config, model).double()
    layer = model["linear"]
    arrays = own(layer)
    for name in ("weight", "bias")[:1 + bias]:
        getattr(layer.base_layer, name).data.copy_(given[name])
    for array in arrays.values():
        array.data.copy_(0.5 * draw(rng, *array.shape))
    given["h"] = layer(given["x"])
    given["h"].backward(given["g"])
    found = numbers(given | arrays | {"x_grad": given["x"].grad})
    found |= numbers({f"{name}_grad": array.grad for name, array in arrays.items()})
    layer.merge()
    found["merged"] = layer.base_layer.weight.detach().numpy().copy()
    return found


def run_formula(formula, given: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
                ) -> dict[str, np.ndarray]:
    """The paper's formula h = formula(given, own) with autograd's gradients."""
    h = formula(given, own)
    h.backward(given["g"])
    found = numbers(given | own | {"h": h, "x_grad": given["x"].grad})
    return found | numbers({f"{name}_grad": array.grad for name, array in own.items()})


def lora_arrays(layer) -> dict[str, nn.Parameter]:
    return {"A": layer.lora_A["default"].weight, "B": layer.lora_B["default"].weight}


def dora_arrays(layer) -> dict[str, nn.Parameter]:
    return {**lora_arrays(layer), "m": layer.lora_magnitude_vector["default"].weight}


def lora_config(**more):
    return peft.LoraConfig(r=2, lora_alpha=3, target_modules=["linear"], **more)


def dora_norm_kept(given, own):
    """DoRA with the gradient through the norm: equation (5) as it stands."""
    V = given["weight"] + 3 / 2 * own["B"] @ own["A"]
    return given["x"] @ (own["m"][:, None] * V / V.norm(dim=1, keepdim=True)).T


def main(file: Path) -> None:
    torch.set_num_threads(1)  # a fixed order of summation
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(6)
    cases = {
        "dora": run_peft(lora_config(use_dora=True), dora_arrays),
        "dora, bias": run_peft(lora_config(use_dora=True), dora_arrays, bias=True),
        "dora, norm kept": run_formula(dora_norm_kept, frozen(rng, False), {
            "A": draw(rng, 2, 6), "B": draw(rng, 4, 2), "m": draw(rng, 4)}),
    }
    results = {f"{case}/{name}": array for case, found in cases.items()
               for name, array in found.items()}
    np.savez_compressed(file, **results, **{"versions/peft": peft.__version__,
                                            "versions/torch": torch.__version__.split("+")[0]})
    print(f"{len(results)} arrays written to {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
