"""Will this checkpoint run here? Every question is answered before a single weight is loaded.

    items = checklist(folder)      family, weights, tokenizer, memory, licence: each with a verdict
    stop_unless_ready(items)       NotReady, with what to do, if one of them says no

What a reader brings may lack anything, so nothing here raises but NotReady, which Jupyter prints as
a message, without the lines of code that it went through.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple

from llama_config import LlamaConfig, read_config
from real_models.smollm2 import check_memory, numbers, read_tokenizer, tokenizers_own
from tensorfile import HubError, about, check_checkpoint, plain

TOKENS = 128  # in a batch, as the page trains
LOGITS = 8  # arrays of that size that live at once, see data/huggingface/checkpoints.json


class NotReady(Exception):
    """What stands in the way, for a reader: Jupyter shows the message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


class Item(NamedTuple):
    """One line of the checklist."""

    question: str
    ready: bool
    answer: str


@contextmanager
def plainly(what: str) -> Iterator[None]:
    """Whatever goes wrong with a reader's files inside comes out as NotReady."""
    try:
        yield
    except (HubError, OSError, ValueError, TypeError, FloatingPointError) as error:
        raise NotReady(f"{what}: {error}") from None
    except MemoryError:
        raise NotReady(f"{what}: the memory does not suffice; close other programs, or take a "
                       "smaller model") from None


def checklist(folder: str | Path) -> list[Item]:
    """Whether a downloaded checkpoint can be run and trained here; see the module's docstring."""
    folder, items = Path(folder), []

    def ask(question: str, answer: Callable[[], str]) -> None:
        try:
            with about(folder):
                items.append(Item(question, True, answer()))
        except (HubError, OSError) as error:
            items.append(Item(question, False, str(error)))

    config: list[LlamaConfig] = []  # what later questions need of earlier answers
    ask("family", lambda: family(folder, config))
    if config:
        ask("weights", lambda: weights(folder, config[0]))
        ask("memory", lambda: memory(config[0]))
        ask("tokenizer", lambda: tokenizer(folder, config[0]))
    ask("licence", lambda: licence(folder))
    return items


def stop_unless_ready(items: list[Item]) -> None:
    """NotReady if one of the answers is no."""
    if missing := [f"{item.question}: {item.answer}" for item in items if not item.ready]:
        raise NotReady("; ".join(missing))


def family(folder: Path, config: list[LlamaConfig]) -> str:
    if not folder.is_dir():
        raise HubError(f"there is no folder {folder}: give the one that holds config.json")
    config.append(c := read_config(folder / "config.json"))
    return (f"{c.model_type}, {c.num_hidden_layers} layers of width {c.hidden_size:,}, "
            f"{c.num_attention_heads} query and {c.num_key_value_heads} key/value heads, inputs of "
            f"up to {c.longest_input:,} tokens")


def weights(folder: Path, config: LlamaConfig) -> str:
    tensors, _ = check_checkpoint(folder, config.weight_shapes(), config.copies)
    kinds = sorted({tensor.kind for tensor in tensors.values()})
    return f"{count(config):,} in {len(tensors)} arrays, stored as {', '.join(kinds)}"


def count(config: LlamaConfig) -> int:
    return sum(prod(shape) for shape in config.weight_shapes().values())


def memory(config: LlamaConfig) -> str:
    """Float32 weights with a fifth for layers at work, and the logits of a batch, several times.

    That is above every peak that was measured: data/huggingface/checkpoints.json.
    """
    needed = int(4 * (1.2 * count(config) + LOGITS * TOKENS * config.vocab_size)
                 + config.table_bytes)
    free = check_memory("running and training it", needed)
    return f"about {needed / 1e9:.2f} GB needed in float32, {free / 1e9:.2f} GB free"


def tokenizer(folder: Path, config: LlamaConfig) -> str:
    path = folder / "tokenizer.json"
    if not path.exists() and not path.is_symlink():
        older = [name for name in ("tokenizer.model", "vocab.json") if (folder / name).exists()]
        raise HubError(f"{folder} has no tokenizer.json" + (
            f", only {older[0]}: with transformers, AutoTokenizer.from_pretrained(folder)"
            ".save_pretrained(folder) makes one" if older else
            ": download it from the same place as the weights"))
    made = read_tokenizer(path)
    ids = numbers(made, path)
    if not ids:
        raise HubError(f"{path} has no tokens at all: download it from the same place as the "
                       "weights")
    if max(ids) >= config.vocab_size:
        raise HubError(f"{path} has tokens up to number {max(ids):,}, the model only "
                       f"{config.vocab_size:,} rows for them: they do not belong together")
    tokenizers_own(path, lambda: made.decode(made.encode("Does it work?").ids))
    return f"{len(ids):,} tokens for {config.vocab_size:,} rows of the embedding"


def licence(folder: Path) -> str:
    """What the files say of what you may do; silence is no obstacle, and no permission."""
    said = []
    card = folder / "README.md"
    if card.is_file():
        with card.open("rb") as file:  # the front alone, however long it is
            head = file.read(20_000).decode("utf-8", "replace").split("\n---", 1)[0]
        said += [f"README.md says {line.strip()[:80]!r}" for line in head.splitlines()
                 if line.startswith(("license:", "license_name:"))]
    if folder.is_dir():
        said += sorted(f"read {plain(path.name)}" for path in folder.iterdir()
                       if path.name.lower().startswith(("licen", "use_policy")))
    return "; ".join(said) or "no file says: look at the page where you found the model"
