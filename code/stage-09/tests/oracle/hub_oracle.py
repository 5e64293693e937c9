"""What PyTorch, transformers and PEFT make of our files; test_hub_parity.py runs it.

    .venv-oracle/bin/python hub_oracle.py jobs.json results.npz

Each job of the list names a checkpoint's folder and what to `do` with it:

    run     load it, with the adapter if there is one; logits, gradients of all weights, greedy
            tokens, merged checkpoint
    make    draw a random checkpoint and let `save_pretrained` write it
    adapt   put a PEFT method with random values on it and let `save_pretrained` write the adapter
    train   go on training a saved adapter with torch.optim.AdamW, and write what comes out
    mixed   load several adapters, and compute one batch whose rows take one or another
    pissa   train from PiSSA's start, and write the adapter as it is and converted to LoRA
    fields  name all settings of the methods' configs
    refuse  try to load an adapter that is none of PEFT's, and report the error

Precisions: "exact" and "cast" are float64, with transformers' inner float32 casts lifted or not.
This folder's parent holds our `peft`: it must never be on the path here.
"""

import dataclasses
import json
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import transformers
from make_parity_fixtures import casts_lifted

import peft

METHODS = {"lora": peft.LoraConfig, "prefix": peft.PrefixTuningConfig,
           "prompt": peft.PromptTuningConfig, "ia3": peft.IA3Config, "vera": peft.VeraConfig,
           "oft": peft.OFTConfig}


def load(job: dict, precision: str, *, trainable: bool = False) -> torch.nn.Module:
    """The checkpoint, with its adapter; whatever PEFT or transformers warns of is an error."""
    dtype = torch.float32 if precision == "float32" else torch.float64
    torch.set_default_dtype(dtype)  # PEFT makes its arrays in it
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["base"], dtype=dtype, attn_implementation="eager")
    if trainable:  # PeftModel.from_pretrained refuses to train a loaded prefix or prompt
        config = peft.PeftConfig.from_pretrained(job["adapter"], inference_mode=False)
        config.inference_mode = False
        model = peft.get_peft_model(model, config)
        found = peft.set_peft_model_state_dict(model, peft.load_peft_weights(job["adapter"]))
        # A virtual token's array goes to its embedding, by another way than all other keys.
        assert set(found.unexpected_keys) <= {"prompt_embeddings"}, found
    elif "adapter" in job:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*adapter.*")  # missing or unexpected keys
            model = peft.PeftModel.from_pretrained(model, job["adapter"])
    if "method" in job:
        settings = dict(job["method"])
        config = METHODS[settings.pop("kind")](task_type="CAUSAL_LM", **settings)
        model = peft.get_peft_model(model, config)
        draw(p for p in model.parameters() if p.requires_grad)
    return model


def draw(parameters) -> None:
    """Random values; norms around one."""
    rng = np.random.default_rng(5)
    for p in parameters:
        p.data.copy_(torch.from_numpy((p.ndim == 1) + 0.1 * rng.standard_normal(p.shape)))


def logits(model, ids: np.ndarray) -> torch.Tensor:
    """Of the real tokens: (batch, time, vocab)."""
    return model(input_ids=torch.from_numpy(ids)).logits[:, -ids.shape[1]:]


def run(job: dict) -> dict:
    results, ids = {}, np.array(job["ids"])
    for precision in job.get("precisions", ["exact", "cast", "float32"]):
        with casts_lifted() if precision == "exact" else nullcontext(), torch.no_grad():
            model = load(job, precision).eval()
            results[precision] = logits(model, ids).numpy()
    if job.get("gradients"):
        with casts_lifted():
            model = load(job, "exact")
            tokens = torch.from_numpy(ids)
            torch.nn.functional.cross_entropy(logits(model, ids)[:, :-1].flatten(0, 1),
                                              tokens[:, 1:].flatten()).backward()
        results |= {f"gradient/{n}": p.grad.numpy() for n, p in model.named_parameters()}
    if "new_tokens" in job:  # in float32, the last precision
        prompt = torch.from_numpy(ids)
        new = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
                             max_new_tokens=job["new_tokens"], do_sample=False,
                             eos_token_id=job.get("stop"), pad_token_id=0)
        results["tokens"] = new[:, ids.shape[1]:].numpy()
    if "method" in job:
        load(job, "cast").save_pretrained(job["save"])
    elif "save" in job:  # merged
        load(job, "cast").merge_and_unload().save_pretrained(job["save"])
    return results


def make(job: dict) -> dict:
    torch.set_default_dtype(torch.float64)
    config = transformers.AutoConfig.for_model(**{"model_type": "llama"} | job["config"])
    model = transformers.AutoModelForCausalLM.from_config(config)
    draw(model.parameters())
    model.to(getattr(torch, job["dtype"])).save_pretrained(
        job["base"], max_shard_size=job.get("max_shard_size", "5GB"))
    return run(job)


def train(job: dict) -> dict:
    data = np.load(job["data"])
    losses = []
    with casts_lifted():
        model = load(job, "exact", trainable=True).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad],
                                      lr=job["lr"], weight_decay=job["weight_decay"])
        for inputs, targets in zip(data["inputs"], data["targets"], strict=True):
            loss = torch.nn.functional.cross_entropy(
                logits(model, inputs).flatten(0, 1), torch.from_numpy(targets).flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.save_pretrained(job["save"])
        with torch.no_grad():
            results = {"exact": logits(model.eval(), np.array(job["ids"])).numpy()}
    return results | {"losses": np.array(losses)}


def mixed(job: dict) -> dict:
    """Several adapters in one batch: a name, or None for the base model, for each sequence."""
    with casts_lifted(), torch.no_grad():
        model = load({"base": job["base"]}, "exact")
        for name, folder in job["adapters"].items():
            if isinstance(model, peft.PeftModel):
                model.load_adapter(folder, adapter_name=name)
            else:
                model = peft.PeftModel.from_pretrained(model, folder, adapter_name=name)
        found = model.eval()(input_ids=torch.tensor(job["ids"]),
                             adapter_names=[name or "__base__" for name in job["names"]])
        return {"exact": found.logits.numpy()}


def pissa(job: dict) -> dict:
    """In float32: PEFT refuses wider weights for it. `save` gets the folders raw and converted."""
    start, save = f"{job['save']}/pissa_start", Path(job["save"])  # the name that PEFT asks for
    with torch.no_grad():
        model = load({"base": job["base"]}, "float32")
        config = peft.LoraConfig(task_type="CAUSAL_LM", **job["method"])
        model = peft.get_peft_model(model, config).eval()
        model.peft_config["default"].init_lora_weights = True  # else loading it would start anew
        model.save_pretrained(start)
        model.peft_config["default"].init_lora_weights = "pissa"
        rng = np.random.default_rng(6)
        for p in model.parameters():
            if p.requires_grad:
                p += torch.from_numpy(0.05 * rng.standard_normal(p.shape)).float()
        found = {"float32": logits(model, np.array(job["ids"])).numpy()}
        model.save_pretrained(save / "raw")
        model.save_pretrained(save / "converted", path_initial_model_for_weight_conversion=start)
    return found


def fields(job: dict) -> dict:
    return {kind: np.array(sorted(field.name for field in dataclasses.fields(config)))
            for kind, config in METHODS.items()}


def refuse(job: dict) -> dict:
    try:
        load(job, "float32")
    except (KeyError, ValueError) as error:
        return {"message": np.array(str(error))}
    return {"message": np.array("loaded")}


def main(jobs: Path, results: Path) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    found = {}
    for job in json.loads(jobs.read_text(encoding="utf-8")):
        print(job["name"], flush=True)
        do = {"run": run, "adapt": run, "make": make, "train": train, "mixed": mixed,
              "pissa": pissa, "fields": fields, "refuse": refuse}[job["do"]]
        done = do(job)
        found |= {f"{job['name']}/{key}": array for key, array in done.items()}
    np.savez(results, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
