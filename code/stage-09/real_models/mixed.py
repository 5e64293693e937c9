"""Many LoRA adapters on one base model, in one batch: each sequence takes its own.

    served = Served(model, {"turkish": folder, "icelandic": folder})
    served.forward(ids, ["turkish", None, "icelandic"])          None is the base model

An adapter is small beside its base. So the product with the base weight is computed once, for all
rows, and each adapter's thin product for its own rows alone. That is how servers keep thousands of
adapters (Sheng et al., "S-LoRA", arXiv 2311.03285), and PEFT's `adapter_names`. It only computes:
an adapter is trained alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from family.dora import DoRALinear
from llama import Linear, Llama
from peft import LoRALayer, LoRALinear
from real_models import hub
from tensorfile import HubError, short


class MixedLinear(Linear):
    """`x W^T + b`, and on the rows of each adapter its own update s (x A^T) B^T."""

    def __init__(self, base: Linear, owners: list[str | None]):
        super().__init__(base.weight, base.bias)
        self.loras: dict[str, LoRALayer] = {}
        self.owners = owners  # whose sequence is whose, in this batch; shared by all layers

    def forward(self, x: np.ndarray) -> np.ndarray:
        h = super().forward(x)  # (n, out): the large product, once
        if not self.owners:
            raise RuntimeError("whose adapter? call Served.forward, not the model's")
        T = len(x) // len(self.owners)
        rows = np.repeat([owner or "" for owner in self.owners], T)  # (n,): a row is a token
        for name, lora in self.loras.items():
            mine = np.flatnonzero(rows == name)
            h[mine] += (lora.scaling * (x[mine] @ lora.A.T)) @ lora.B.T
        return h


class Served:
    """A base model with LoRA adapters side by side.

    Parameters
    ----------
    model : plain; it is changed, and computes only through this object from now on
    folders : of the adapters, by name, as `hub.save_adapter` or PEFT writes them

    Raises
    ------
    HubError
        What `hub.load_adapter` refuses, and adapters that are no LoRA.
    """

    def __init__(self, model: Llama, folders: Mapping[str, str | Path]):
        self.model, self.names, self.owners = model, [*folders], []
        plain, mixed = model.modules(), {}
        for name, folder in folders.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"an adapter's name must be a text, got {name!r}")
            hub.load_adapter(model, folder)
            found = {path: module for path, module in model.modules().items()
                     if module is not plain.get(path)}
            for path, module in found.items():  # the plain model again, for the next one
                model.replace(path, plain.get(path))
                if not isinstance(module, LoRALinear) or isinstance(module, DoRALinear):
                    raise HubError(f"{folder} holds {path}, a {type(module).__name__}: only LoRA "
                                   "on linear layers can be mixed in a batch")
                layer = mixed.setdefault(path, MixedLinear(plain[path], self.owners))
                layer.loras[name] = module.lora
        for path, layer in mixed.items():
            model.replace(path, layer)

    @contextmanager
    def _owned(self, ids: np.ndarray, names: Sequence[str | None]) -> Iterator[None]:
        if len(names) != len(ids):
            raise ValueError(f"{len(ids)} sequences need as many adapters, got {len(names)}")
        if unknown := [name for name in names if name not in (None, *self.names)]:
            raise ValueError(f"no adapter is called {short(unknown[0])}; there are {self.names}")
        self.owners[:] = names
        try:
            yield
        finally:
            self.owners.clear()

    def forward(self, ids: np.ndarray, names: Sequence[str | None]) -> np.ndarray:
        """Logits, (B, T, vocab), of each sequence with its adapter; None is the base model."""
        with self._owned(ids, names):
            return self.model.forward(ids)

    def generate(self, ids: np.ndarray, names: Sequence[str | None], max_new_tokens: int,
                 **how: Any) -> np.ndarray:
        """`Llama.generate` with an adapter for each sequence, all of them of the same length."""
        if how.get("stop") is not None:  # what has ended leaves the batch, and rows change owners
            raise ValueError("no stop here: cut the texts afterwards")
        with self._owned(ids, names):
            return self.model.generate(ids, max_new_tokens, **how)
