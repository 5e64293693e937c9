"""Ask PyTorch and Hugging Face PEFT what the family computes, for tests/family/test_family.py.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_family_fixtures.py [file]

Each case is one linear layer in float64, (2, 5, 6) in and (2, 5, 4) out, with random values in all
arrays: nothing starts at zero. PiSSA alone is asked at its start, where no array is zero. Written
into one file are, as <case>/<array>,

    weight, bias, x, g     the frozen layer, its input and dLoss/d(output)
    h, x_grad              what comes out; the gradient of the input
    merged, merged_bias    the merged weight and bias
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
from peft.optimizers import create_loraplus_optimizer

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


def run_peft(config, own, *, bias: bool = False) -> dict[str, np.ndarray]:
    """PEFT's layer around one `nn.Linear`. `own(layer)` gives its trainable arrays by our names.

    Beside it stands a wider layer, from which VeRA takes the size of its shared matrices.
    """
    rng = np.random.default_rng(5)
    given = frozen(rng, bias)
    model = nn.ModuleDict({"linear": nn.Linear(6, 4, bias=bias), "wider": nn.Linear(7, 5)})
    layer = peft.get_peft_model(model, config).double().base_model.model["linear"]
    arrays = own(layer)
    for name in ("weight", "bias")[:1 + bias]:
        getattr(layer.base_layer, name).data.copy_(given[name])
    for array in arrays.values():
        array.data.copy_(0.5 * draw(rng, *array.shape))
    found = asked(layer, given, arrays)
    if isinstance(config, peft.VeraConfig):
        found |= {"A": layer.vera_A["default"].numpy(), "B": layer.vera_B["default"].numpy()}
    return found


def asked(layer, given: dict[str, torch.Tensor], arrays: dict[str, nn.Parameter]
          ) -> dict[str, np.ndarray]:
    """Output, every gradient and the merge of PEFT's layer, beside what it was given."""
    given["h"] = layer(given["x"])
    given["h"].backward(given["g"])
    found = numbers(given | arrays | {"x_grad": given["x"].grad})
    found |= numbers({f"{name}_grad": array.grad for name, array in arrays.items()})
    layer.merge()
    return found | numbers({f"merged_{name}" if name == "bias" else "merged": array
                            for name, array in layer.base_layer.named_parameters()
                            if name in given})


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


def ia3_config(feedforward: bool):
    return peft.IA3Config(target_modules=["linear", "wider"],
                          feedforward_modules=["linear", "wider"] if feedforward else [])


def ia3_arrays(layer) -> dict[str, nn.Parameter]:
    return {"l": layer.ia3_l["default"]}


def vera_arrays(layer) -> dict[str, nn.Parameter]:
    return {"d": layer.vera_lambda_d["default"], "beta": layer.vera_lambda_b["default"]}


def oft_arrays(layer) -> dict[str, nn.Parameter]:
    return {"q": layer.oft_R["default"].weight}


def mirrored(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PEFT's exact OFT has -Q where the paper and we have Q."""
    return found | {name: -found[name] for name in ("q", "q_grad")}


def dora_norm_kept(given, own):
    """DoRA with the gradient through the norm: equation (5) as it stands."""
    V = given["weight"] + 3 / 2 * own["B"] @ own["A"]
    return given["x"] @ (own["m"][:, None] * V / V.norm(dim=1, keepdim=True)).T


def oft_paper(given, own):
    """Cayley's map as the paper has it, R = (I + Q) (I - Q)^-1, on blocks of 3."""
    blocks = []
    for q in own["q"]:
        Q = torch.zeros(3, 3, dtype=F64)
        Q[tuple(torch.triu_indices(3, 3, 1))] = q
        Q = Q - Q.T
        blocks.append((torch.eye(3, dtype=F64) + Q) @ torch.linalg.inv(torch.eye(3, dtype=F64) - Q))
    return given["x"] @ torch.block_diag(*blocks) @ given["weight"].T


def loreft_paper(given, own):
    """h + R^T (W h + b - R h) for each row h, R^T the Q of a QR whose diagonal is positive."""
    Q, U = torch.linalg.qr(own["V"])
    R, h = (Q * U.diagonal().sign()).T, given["x"]
    return h + (h @ own["W"].T + own["b"] - h @ R.T) @ R


def run_pissa() -> dict[str, np.ndarray]:
    """PEFT's layer at PEFT's start, made in float32 and cast; `weight` is PEFT's residual."""
    given, linear = frozen(np.random.default_rng(5), True), nn.Linear(6, 4)
    for name, array in linear.named_parameters():
        array.data.copy_(given[name])
    layer = peft.inject_adapter_in_model(
        lora_config(init_lora_weights="pissa"), nn.ModuleDict({"linear": linear})
    ).double()["linear"]
    return asked(layer, given | dict(layer.base_layer.named_parameters()), lora_arrays(layer))


def run_pissa_start() -> dict[str, np.ndarray]:
    """What PEFT makes of a weight, in float32: it refuses wider ones."""
    linear = nn.Linear(6, 4, bias=False)
    weight = torch.from_numpy(np.random.default_rng(7).standard_normal((4, 6))).float()
    linear.weight.data = weight.clone()
    layer = peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, lora_alpha=3, target_modules=["linear"], init_lora_weights="pissa"),
        nn.ModuleDict({"linear": linear}))["linear"]
    return numbers({"weight": weight, "residual": layer.base_layer.weight,
                    "update": layer.get_delta_weight("default")})


def run_loraplus() -> dict[str, np.ndarray]:
    """Three steps of PEFT's optimizer, on gradients that are given."""
    rng = np.random.default_rng(8)
    model = nn.ModuleDict({"linear": nn.Linear(6, 4)})
    arrays = dora_arrays(peft.inject_adapter_in_model(
        lora_config(use_dora=True), model).double()["linear"])
    for array in arrays.values():
        array.data.copy_(draw(rng, *array.shape))
    found = numbers({f"start/{name}": array for name, array in arrays.items()})
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=0.01, loraplus_lr_ratio=7.0)
    for step in range(3):
        for name, array in arrays.items():
            array.grad = draw(rng, *array.shape).detach()
            found[f"{step}/{name}"] = array.grad.numpy().copy()
        optimizer.step()
    return found | numbers({f"end/{name}": array for name, array in arrays.items()})


def run_galore() -> dict[str, np.ndarray]:
    """Five steps of GaLore on given gradients: a wide matrix, a tall one, and a vector."""
    rng = np.random.default_rng(9)
    found = {}
    for name, shape in {"wide": (4, 7), "tall": (6, 3), "vector": (5,)}.items():
        W = draw(rng, *shape).detach()
        found[f"start/{name}"] = W.numpy().copy()
        low = None
        for step in range(5):
            grad = draw(rng, *shape).detach()
            found[f"{step}/{name}"] = grad.numpy().copy()
            if len(shape) == 1:
                P, G, scale = torch.eye(5, dtype=F64), grad, 1
            else:
                G, scale = grad if shape[0] <= shape[1] else grad.T, 0.25
                if step % 2 == 0:
                    P = torch.linalg.svd(G)[0][:, :2]
                    P = P * torch.stack([c[c.abs().argmax()].sign() for c in P.T])
            if low is None:
                low = torch.zeros_like(P.T @ G)
                adam = torch.optim.AdamW([low], lr=0.01, weight_decay=0)
            low.grad, before = P.T @ G, low.clone()
            adam.step()
            change = scale * P @ (low - before)
            W += change if W.shape == change.shape else change.T
        found[f"end/{name}"] = W.numpy()
    return found


def main(file: Path) -> None:
    torch.set_num_threads(1)  # a fixed order of summation
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(6)
    cases = {
        "dora": run_peft(lora_config(use_dora=True), dora_arrays),
        "dora, bias": run_peft(lora_config(use_dora=True), dora_arrays, bias=True),
        "rslora": run_peft(lora_config(use_rslora=True), lora_arrays),
        "ia3": run_peft(ia3_config(False), ia3_arrays),
        "ia3, bias": run_peft(ia3_config(False), ia3_arrays, bias=True),
        "ia3, feed-forward": run_peft(ia3_config(True), ia3_arrays, bias=True),
        "vera": run_peft(peft.VeraConfig(r=2, target_modules=["linear", "wider"]), vera_arrays,
                         bias=True),
        "oft": mirrored(run_peft(peft.OFTConfig(oft_block_size=3, use_cayley_neumann=False,
                                                target_modules=["linear"]), oft_arrays, bias=True)),
        "oft, default": run_peft(peft.OFTConfig(oft_block_size=3, target_modules=["linear"]),
                                 oft_arrays),
        "oft, the paper": run_formula(oft_paper, frozen(rng, False), {"q": draw(rng, 2, 3)}),
        "loreft": run_formula(loreft_paper, {"x": draw(rng, 2, 5, 6), "g": draw(rng, 2, 5, 6)}, {
            "V": draw(rng, 6, 2), "W": draw(rng, 2, 6), "b": draw(rng, 2)}),
        "pissa": run_pissa(),
        "pissa, start": run_pissa_start(),
        "loraplus": run_loraplus(),
        "galore": run_galore(),
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
