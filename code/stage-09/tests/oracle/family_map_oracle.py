"""Which names of the family's map the installed Hugging Face PEFT has; whether its layers compute
what the map's formulas say. Run by .venv-oracle.

`python family_map_oracle.py asked.json` prints, in JSON, for each claim [name, option, value] "" or
why PEFT does not have it, for each file of PEFT whether it is there, and by method how far PEFT's
layer is from the formula, relative to the largest entry.
"""

import json
import re
import sys
import warnings
from operator import attrgetter
from pathlib import Path

import peft
import peft.optimizers  # noqa: F401, looked up by name
import torch
from peft.tuners.lora import LoraGAConfig


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 12, bias=False)

    def forward(self, x):
        return self.linear(x)


def missing(name: str, option: str, value: object) -> str:
    """Why PEFT does not have it; an option's value is tried on a layer where that shows."""
    try:
        found = attrgetter(name)(peft)
        if option:
            config = found(**{option: value})
            if option == "init_lora_weights":  # a wrong one is refused by the layer alone
                config.target_modules = {"linear"}
                peft.get_peft_model(OneLayer(), config)
    except ImportError as needed:  # known, but it wants a further package
        return "" if "required package" in str(needed) else str(needed)
    except (AttributeError, TypeError, ValueError) as error:
        return str(error)
    return ""


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())


def wrapped(config, base=None, fill: bool = True):
    """A layer with PEFT's method, its frozen weight as it was, its trainable arrays by name."""
    base = base or OneLayer()
    W = next(base.parameters()).detach().clone()
    model = peft.get_peft_model(base, config).eval()
    arrays = {}
    for name, array in model.named_parameters():
        if array.requires_grad:
            array.data = 0.3 * torch.randn_like(array) if fill else array.data
            arrays[re.search(r"(?:lora|hada|lokr|boft|miss)_(\w+)", name)[1]] = array
    return model, W, arrays


def rotation(q: torch.Tensor) -> torch.Tensor:
    Q, eye = (q - q.T) / 2, torch.eye(len(q))
    return (eye - Q) @ torch.linalg.inv(eye + Q)


def of_layers(x: torch.Tensor) -> dict[str, float]:
    """The formulas that are one of a layer's weight: W' of the map's letters."""
    linear, found = {"target_modules": ["linear"]}, {}
    model, W, p = wrapped(peft.AdaLoraConfig(init_r=3, lora_alpha=5, total_step=9, **linear))
    found["AdaLoRA"] = model, W + 5 / 3 * p["B"] @ torch.diag(p["E"][:, 0]) @ p["A"]
    model, W, p = wrapped(peft.LoHaConfig(r=3, alpha=5, **linear))
    found["LoHa"] = model, W + 5 / 3 * (p["w1_a"] @ p["w1_b"]) * (p["w2_a"] @ p["w2_b"])
    model, W, p = wrapped(peft.LoKrConfig(r=1, alpha=5, **linear))
    found["LoKr"] = model, W + 5 * torch.kron(p["w1"], p["w2_a"] @ p["w2_b"])
    model, W, p = wrapped(peft.BOFTConfig(boft_block_size=4, **linear))
    R = torch.block_diag(*map(rotation, p["R"][0]))
    found["BOFT"] = model, p["s"] * (W @ R.T)
    model, W, p = wrapped(peft.MissConfig(r=4, **linear))
    found["MiSS"] = model, W + torch.cat([p["block"].T, p["block"].T], dim=1)
    model, W, p = wrapped(peft.TinyLoraConfig(r=3, **linear))
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    P, root = model.base_model.model.linear.tinylora_P["default"], S[:3].sqrt().diag()
    R = root @ torch.einsum("i,ijk->jk", p["v"], P) @ root
    found["TinyLoRA"] = model, W + U[:, :3] @ R @ Vh[:3]
    return {name: off(model(x), x @ W.T) for name, (model, W) in found.items()}


def of_starts() -> dict[str, float]:
    """The formulas of a start: A, B and the residual; of LoRA-GA as PEFT scales it, up to signs."""
    r, s, found = 2, 1.5, {}
    options = {"r": r, "lora_alpha": s * r, "target_modules": ["linear"]}
    model, W, p = wrapped(peft.LoraConfig(init_lora_weights="olora", **options), fill=False)
    Q, R = torch.linalg.qr(W)
    rest = model.base_model.model.linear.base_layer.weight
    found["OLoRA"] = max(off(p["B"], Q[:, :r]), off(p["A"], R[:r]),
                         off(rest, W - s * p["B"] @ p["A"]))
    base = OneLayer()
    gradient = base.linear._peft_loraga_grad = torch.randn(12, 8)
    model, W, p = wrapped(peft.LoraConfig(
        init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(stable_gamma=16), **options),
        base, fill=False)
    U, S, Vh = torch.linalg.svd(gradient, full_matrices=False)
    rest, c = model.base_model.model.linear.base_layer.weight, 12**0.25 / 16**0.5
    found["LoRA-GA"] = max(off(p["A"].abs(), Vh[:r].abs()),
                           off(p["B"].abs(), c * (U * S)[:, r:2 * r].abs()),
                           off(rest, W - s * p["B"] @ p["A"]))
    return found


def of_tokens() -> float:
    """The rows of T are D's, and at first E's."""
    base = torch.nn.Sequential(torch.nn.Embedding(7, 4))
    E = base[0].weight.detach().clone()
    model = peft.get_peft_model(base, peft.TrainableTokensConfig(
        token_indices=[1, 4], target_modules=["0"]))
    first = off(model(torch.arange(7)), E)
    D, = (array for array in model.parameters() if array.requires_grad)
    D.data = torch.randn(2, 4)
    E[[1, 4]] = D.data
    return max(first, off(model(torch.arange(7)), E))


def tinylora_starts_at_zero() -> bool:
    _, _, p = wrapped(peft.TinyLoraConfig(r=3, target_modules=["linear"]), fill=False)
    return bool((p["v"] == 0).all())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    home = Path(peft.__file__).parent
    print(json.dumps({"version": peft.__version__,
                      "off": of_layers(torch.randn(5, 8)) | of_starts() | {
                          "trainable tokens": of_tokens()},
                      "zero starts": {"TinyLoRA": tinylora_starts_at_zero()},
                      "claims": [missing(*claim) for claim in asked["claims"]],
                      "files": [(home / file).is_file() for file in asked["files"]]}))
