"""The runs of the page "Playground": the small Llama, trained a few steps at a time.

The page (widgets/playground.js) asks for a `Run`, then for some steps, then for what there is to
see. All that it shows is computed here, with the code of the book; an answer is plain JSON.
"""

import base64
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import small_llama
from experiments.small_llama import METHODS, PLACES, WARMUP, plug_lora, sample
from llama import Llama
from names import batches, load_names, make_batch
from peft import LoRALinear
from real_models import hub
from tensorfile import write_whole
from training import AdamW, cosine_schedule, evaluate, train

BATCH = 16  # names; the recorded runs take 64, which a browser has no patience for
EVERY = 20  # steps between two looks at the held-out names
SCORED = 100  # held-out names of each list in a look, which takes as long as six steps
SINGULAR = 16  # singular values that are shown
FILES = ("adapter_config.json", "adapter_model.safetensors")  # of an adapter
#: What each choice of the page can be, the first one chosen.
CHOICES = {"target": ("icelandic", "turkish"), "names": (0, 100, 400), "batch": (BATCH, 64),
           "steps": (200, 50, 100, 400),
           "rate": (1e-2, 1e-4, 3e-4, 1e-3, 3e-3, 3e-2, 1e-1, 3e-1, 1.0),
           "alpha": (8.0, 1.0, 2.0, 4.0, 16.0, 32.0, 64.0, 256.0)}


def plug(method: str, size: int, alpha: float) -> Callable:
    """What puts a method of section 9.7 into a model, LoRA's alpha being free."""
    if method in PLACES:
        return plug_lora(*PLACES[method], alpha=alpha)
    return METHODS[method][0]


class Run:
    """One training run that waits between its steps.

    Parameters
    ----------
    target : "icelandic" or "turkish"
    method, size : a method of section 9.7 and its rank, bottleneck or number of virtual tokens
    alpha : LoRA's; it says nothing to the other methods
    rate : the peak of the schedule, linear warm-up and half a cosine to zero
    steps, seed : as in section 9.7: the seed fixes the order of names and the method's start
    names : how many names to train on, 0 for all
    batch : names in a step

    Raises
    ------
    ValueError
        A name or number that is none of these.
    """

    def __init__(self, target: str = "icelandic", method: str = "lora-all", size: int = 4, *,
                 alpha: float = 8.0, rate: float = 1e-2, steps: int = 200, seed: int = 0,
                 names: int = 0, batch: int = BATCH):
        if method not in METHODS or size not in METHODS[method][1]:
            raise ValueError(f"no method {method!r} of size {size}: {list(METHODS)}, each with "
                             "sizes of its own")
        self.settings = dict(target=target, method=method, size=size, alpha=alpha, rate=rate,
                             steps=steps, seed=seed, names=names, batch=batch)
        self.model = Llama.load(small_llama.DATA / "base")
        plug(method, size, alpha)(self.model, size, np.random.default_rng([seed, 1]))
        own = load_names(target, "train")[:names or None]
        self.rate, self.done, self.changes = rate, 0, []  # changes: (steps done, rate from there)
        self.optimizer = AdamW(self.model.parameters(), rate)
        self.events = train(self.model, self.optimizer,
                            batches(own, batch, np.random.default_rng([seed, 0])), steps=steps,
                            rate=lambda step: cosine_schedule(step, steps, self.rate, WARMUP))

    def start(self) -> dict[str, Any]:
        """What is known before the first step."""
        return {"settings": self.settings, "steps": self.settings["steps"],
                "trainable": self.model.num_parameters(), "matrices": list(self.updates()),
                **self.look()}

    def step(self, count: int = 1) -> dict[str, Any]:
        """Up to `count` steps; a look at the held-out names ends them early, every `EVERY`th."""
        trained, seen = [], {}
        try:
            for event in self.events:
                self.done = event.step
                trained.append(event.loss)
                if event.step % EVERY == 0 or event.step == event.steps:
                    seen = self.look()
                if seen or len(trained) == count:
                    break
        except FloatingPointError as error:
            return {"step": self.done, "losses": trained, "diverged": str(error)}
        return {"step": self.done, "losses": trained, "rate": self.rate, **seen}

    def look(self) -> dict[str, Any]:
        """The losses on names held out, as they are now."""
        return {"step": self.done, "held_out": losses(self.model, self.settings["target"])}

    def change_rate(self, rate: float) -> None:
        """From the next step on the schedule has another peak."""
        self.rate = rate
        self.changes.append((self.done, rate))

    def fork(self) -> "Run":
        """A second run that stands where this one stands: the same steps, taken again."""
        twin = Run(**self.settings)
        for done, rate in [*self.changes, (self.done, None)]:
            while twin.done < done:
                twin.step(done - twin.done)
            if rate is not None:
                twin.change_rate(rate)
        return twin

    def names(self, count: int = 10) -> list[str]:
        """Names that the model makes up now, with the same luck each time."""
        return sample(self.model, count, self.settings["seed"])

    def updates(self) -> dict[str, LoRALinear]:
        """The matrices that LoRA changes, by name."""
        return {name: module for name, module in self.model.modules().items()
                if isinstance(module, LoRALinear)}

    def update(self, name: str) -> dict[str, Any]:
        """Delta W = s B A of one matrix as it is now, and its singular values."""
        layer = self.updates()[name]
        change = layer.merge()[0] - layer.weight  # (out, in)
        return {"change": change.round(5).tolist(),
                "singular": np.linalg.svd(change, compute_uv=False)[:SINGULAR].tolist()}

    def attention(self) -> dict[str, Any]:
        """Where a held-out name's letters look: at virtual tokens, and at each other."""
        name = load_names(self.settings["target"], "validation")[0]
        self.model.forward(make_batch([name])[0])
        maps = [layer.self_attn.cache[-1] for layer in self.model.layers]  # (1, K, G, T, S) each
        letters = len(name) + 1  # of T: the boundary comes first, virtual tokens of a prompt before
        weights = np.stack([p[0].reshape(-1, *p.shape[-2:])[:, -letters:] for p in maps])
        return {"letters": f".{name}", "virtual": weights.shape[-1] - letters,
                "weights": weights.round(4).tolist()}  # (layers, heads, letters, S)

    def files(self) -> str:
        """The adapter in Hugging Face's layout, zipped, as base64."""
        with tempfile.TemporaryDirectory() as folder:
            hub.save_adapter(self.model, folder)
            return zipped(Path(folder))


def zipped(folder: Path) -> str:
    """The files of a folder as a zip, as base64."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return base64.b64encode(made.getvalue()).decode()


def unzipped(files: str) -> dict[str, bytes]:
    """The two files of an adapter, by name, out of what `zipped` gave; `HubError` if it did not."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(files))) as archive:
            for name in FILES:
                if archive.getinfo(name).file_size > 10**7:
                    raise hub.HubError(f"{name} holds more than the small Llama could use")
            return {name: archive.read(name) for name in FILES}
    except hub.HubError:
        raise
    except Exception as error:  # damaged, encrypted, packed in ways of which each raises its own
        raise hub.HubError("this is no adapter of the playground, or it is damaged: choose a zip "
                           f"with {' and '.join(FILES)}") from error


def loaded(target: str, files: str) -> dict[str, Any]:
    """What a model does with an adapter that `Run.files` gave.

    Raises
    ------
    hub.HubError
        It is none, or does not fit the book's small Llama.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, data in unzipped(files).items():
            write_whole(Path(folder, name), data)
        model = Llama.load(small_llama.DATA / "base")
        try:
            hub.load_adapter(model, folder)
        except hub.HubError as error:  # the reader has a zip, and no folder
            raise hub.HubError(str(error).replace(f"{folder}/", "")) from error
    return {"held_out": losses(model, target), "trainable": model.num_parameters(),
            "names": sample(model, 10)}


def losses(model: Llama, target: str) -> dict[str, float]:
    """The losses on names held out: of the new language, and of those known before."""
    return {key: evaluate(model, load_names(language, "validation")[:SCORED])
            for key, language in (("target", target), ("base", "base"))}


def say(answer: Any) -> None:
    """Hand an answer to the page."""
    from IPython.display import display
    display({"application/json": answer}, raw=True)
