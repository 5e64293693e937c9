"""What transformers and PEFT make of the speaking model; test_smollm2.py runs it.

    .venv-oracle/bin/python smollm2_oracle.py <folder of the task>

The folder holds `task.json`: the model's folder, the GGUF file that it was made from (or none),
texts, prompts and a saved adapter. Written are `answers.json` and `answers.npz`. Nothing here reads
a weight or splits a text with code of ours: the tokens come from transformers and, once more, from
byte-level BPE written out below, which shares no code with the package tokenizers.

This folder's parent holds our `peft`: it must never be on the path here.
"""

import json
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import regex
import torch
import transformers
from make_parity_fixtures import casts_lifted

import peft

# GPT-2's splits, as its authors published them (encoder.py of openai/gpt-2)
PIECES = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


class PlainBPE:
    """Byte-level BPE in words of one syllable: split, then merge the best pair until none is left.

    Sennrich, Haddow and Birch, arXiv 1508.07909; bytes as letters as in GPT-2.
    """

    def __init__(self, file: Path):
        stored = json.loads(file.read_text(encoding="utf-8"))
        self.vocab = stored["model"]["vocab"]
        merges = (pair.split(" ") if isinstance(pair, str) else pair
                  for pair in stored["model"]["merges"])
        self.rank = {tuple(pair): i for i, pair in enumerate(merges)}
        self.special = {token["content"]: token["id"] for token in stored["added_tokens"]}
        shown = [*range(ord("!"), ord("~") + 1), *range(0xa1, 0xad), *range(0xae, 0x100)]
        hidden = [b for b in range(256) if b not in shown]
        self.letter = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}

    def ids(self, text: str) -> list[int]:
        found = []
        for part in regex.split("(" + "|".join(map(regex.escape, self.special)) + ")", text):
            if part in self.special:
                found.append(self.special[part])
                continue
            for run in regex.findall(r"\p{N}|\P{N}+", part):  # digits one by one
                for piece in PIECES.findall(run):
                    found += self.merged("".join(self.letter[b] for b in piece.encode("utf-8")))
        return found

    @lru_cache(maxsize=None)
    def merged(self, piece: str) -> list[int]:
        symbols = list(piece)
        while len(symbols) > 1:
            pairs = list(zip(symbols, symbols[1:]))
            best = min(pairs, key=lambda pair: self.rank.get(pair, 10 ** 9))
            if best not in self.rank:
                break
            at = pairs.index(best)
            symbols[at:at + 2] = ["".join(best)]
        return [self.vocab[symbol] for symbol in symbols]


def load(folder: str, dtype: torch.dtype) -> torch.nn.Module:
    torch.set_default_dtype(dtype)
    return transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager").eval()


def against_gguf(folder: str, gguf: str) -> dict:
    """Largest difference of any weight from what transformers reads in the GGUF file itself."""
    torch.set_default_dtype(torch.float32)
    place = {"pretrained_model_name_or_path": str(Path(gguf).parent), "gguf_file": Path(gguf).name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    ours = load(folder, torch.float32).state_dict()
    assert theirs.state_dict().keys() == ours.keys()
    worst = max(float((w - ours[name]).abs().max()) for name, w in theirs.state_dict().items())
    settings = ("hidden_size", "num_key_value_heads", "rms_norm_eps", "rope_parameters",
                "max_position_embeddings", "tie_word_embeddings", "eos_token_id")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    return {"weights": len(ours), "worst": worst, "chat_template": tokenizer.chat_template,
            "settings": {key: getattr(theirs.config, key) for key in settings}}


def lora_step(task: dict) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and PEFT's gradients of one batch, from a saved adapter, in float64."""
    model = load(task["folder"], torch.float64)
    config = peft.PeftConfig.from_pretrained(task["adapter"])
    config.inference_mode = False
    model = peft.get_peft_model(model, config)
    found = peft.set_peft_model_state_dict(model, peft.load_peft_weights(task["adapter"]))
    assert not found.unexpected_keys, found
    inputs, targets = (torch.tensor(task[key]) for key in ("inputs", "targets"))
    logits = model(input_ids=inputs).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    return loss.item(), {name: p.grad.numpy() for name, p in model.named_parameters()
                         if p.requires_grad}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    plain = PlainBPE(Path(task["folder"]) / "tokenizer.json")
    answers = {
        "ids": [tokenizer(text)["input_ids"] for text in task["texts"]],
        "plain_ids": [plain.ids(text) for text in task["texts"]],
        "decoded": [tokenizer.decode(ids, clean_up_tokenization_spaces=False)
                    for ids in (tokenizer(text)["input_ids"] for text in task["texts"])],
        "chats": [tokenizer.apply_chat_template([{"role": "user", "content": text}],
                                                tokenize=False, add_generation_prompt=True)
                  for text in task["chats"]],
    }
    arrays = {}
    prompt = torch.tensor(task["prompt"])[None]
    with torch.no_grad():
        model = load(task["folder"], torch.float32)
        arrays["float32"] = model(input_ids=prompt).logits[0].numpy()
        new = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
                             min_new_tokens=task["new_tokens"], max_new_tokens=task["new_tokens"],
                             do_sample=False, eos_token_id=None, pad_token_id=2)
        answers["new"] = new[0, prompt.shape[1]:].tolist()
    with casts_lifted():
        with torch.no_grad():
            arrays["exact"] = load(task["folder"], torch.float64)(input_ids=prompt
                                                                  ).logits[0].numpy()
        answers["loss"], gradients = lora_step(task)
    arrays |= gradients
    if task.get("gguf") and find_spec("gguf"):
        answers["gguf"] = against_gguf(task["folder"], task["gguf"])
    np.savez(folder / "answers.npz", **arrays)
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
