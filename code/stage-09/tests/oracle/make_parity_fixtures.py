"""Ask PyTorch and Hugging Face what our methods compute, and write the answers for test_parity.py.

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_parity_fixtures.py [folder]

Two tiny random Llamas, in float64, each fine-tuned with every method: `LlamaForCausalLM` of
`transformers` with LoRA, prefix and prompt tuning of `peft`. PEFT has no bottleneck adapters, so
those are PyTorch modules of our own here, hung into the same model by forward hooks. All gradients
are autograd's. Written are

    <model>/config.json, model.safetensors   by `save_pretrained`: our code has to read these too
    results.npz     <model>/<method>/values/<parameter>              where the method starts
                    <model>/<method>/<precision>/loss, logits, gradients/<parameter>
                    layer/...                                        one `lora.Linear` by itself
    settings.json   the methods' settings, and the versions that answered

in two precisions: "cast" is `transformers` as it is, which computes RMSNorm, softmax, the rotary
angles and the loss in float32 even when the model is float64; "exact" is the same code with those
casts lifted.

This folder's parent holds our `peft`: it must never be on the path here.
"""

import json
import re
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from torch import nn
from transformers import modeling_rope_utils
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.smollm3 import modeling_smollm3

import peft

CASTING = (modeling_rope_utils, modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3,
           modeling_smollm3)
FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "parity"

MODELS = {
    "mha": {"num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
    "gqa": {"num_key_value_heads": 2, "tie_word_embeddings": False, "rms_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
}
SHAPE = {"vocab_size": 13, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 16, "attn_implementation": "eager",
         "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
METHODS = {
    "full": {"kind": "full"},
    "lora_qv": {"kind": "lora", "r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]},
    "lora_all_linear": {"kind": "lora", "r": 2, "lora_alpha": 3, "target_modules": "all-linear"},
    "prefix": {"kind": "prefix", "num_virtual_tokens": 3},
    "prompt": {"kind": "prompt", "num_virtual_tokens": 4},
    "houlsby": {"kind": "adapter", "slots": ["after_attention", "after_mlp"],
                "bottleneck_dim": 5, "residual": True, "scale": 1.0},
    "pfeiffer": {"kind": "adapter", "slots": ["after_mlp"],
                 "bottleneck_dim": 6, "residual": True, "scale": 1.0},
    "parallel": {"kind": "adapter", "slots": ["parallel_mlp"],
                 "bottleneck_dim": 5, "residual": False, "scale": 4.0},
}
# With a method plugged in, also these pretrained gradients: they depend on all that lies above.
PROBES = {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"}


# -------------------------------------------------------------------------------------- the oracle


@contextmanager
def casts_lifted():
    """Inside, `transformers`' Llama and its relatives run unchanged, but float32 means float64."""

    class Torch:
        float32 = float = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    with ExitStack() as stack:
        for module in CASTING:  # RMSNorm, softmax, RoPE
            stack.enter_context(mock.patch.object(module, "torch", Torch()))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))  # loss
        yield


class Adapter(nn.Module):
    """Bottleneck adapter; its parameters are drawn later, with all others."""

    def __init__(self, d_model: int, bottleneck_dim: int, residual: bool, scale: float):
        super().__init__()
        self.W_down = nn.Parameter(torch.empty(d_model, bottleneck_dim))
        self.W_up = nn.Parameter(torch.empty(bottleneck_dim, d_model))
        self.residual, self.scale = residual, scale

    def forward(self, x):
        change = self.scale * (torch.relu(x @ self.W_down) @ self.W_up)
        return x + change if self.residual else change


def add_adapters(model: nn.Module, slots: list[str], **settings) -> None:
    """Hang adapters on the output of attention (a tuple), of the MLP, or beside the MLP."""
    hooks = {
        "after_attention": ("self_attn", lambda a: lambda _, x, out: (a(out[0]), *out[1:])),
        "after_mlp": ("mlp", lambda a: lambda _, x, out: a(out)),
        "parallel_mlp": ("mlp", lambda a: lambda _, x, out: out + a(x[0])),
    }
    for layer in model.model.layers:
        for slot in slots:
            sublayer, hook = hooks[slot]
            adapter = Adapter(model.config.hidden_size, **settings)
            layer.add_module(slot, adapter)
            layer.get_submodule(sublayer).register_forward_hook(hook(adapter))


def add_method(model: nn.Module, kind: str, **settings) -> nn.Module:
    """The model with the method in it."""
    if kind == "adapter":
        add_adapters(model, **settings)
    elif kind != "full":
        config = {"lora": peft.LoraConfig, "prefix": peft.PrefixTuningConfig,
                  "prompt": peft.PromptTuningConfig}[kind]
        model = peft.get_peft_model(model, config(task_type="CAUSAL_LM", **settings))
    return model.double().requires_grad_(True)


def in_our_terms(name: str, array: torch.Tensor, config) -> tuple[str, np.ndarray]:
    """A parameter's or gradient's name and layout in our model."""
    array = array.detach().numpy().copy()
    name = re.sub(r"^base_model\.(model\.(?=model\.|lm_head))?", "", name)
    name = re.sub(r"\.lora_([AB])\.default\.weight$", r".\1", name).replace(".base_layer", "")
    if name == "prompt_encoder.default.embedding.weight":
        if array.shape[1] == config.hidden_size:
            return "soft_prompt.prompt", array  # (P, d)
        array = array.reshape(len(array), config.num_hidden_layers, 2, config.num_key_value_heads,
                              config.head_dim)  # (P, L, 2, K, dh)
        return "kv_prefix.prefix", array.transpose(1, 2, 0, 3, 4)  # (L, 2, P, K, dh)
    return name, array


def draw(parameters: dict[str, nn.Parameter], rng: np.random.Generator, std: float) -> None:
    """Set parameters at random; norms around one.

    Large enough for every path to count: nothing starts at zero. Small enough that the float32
    roundings in "cast" are not blown up.
    """
    for parameter in parameters.values():
        centre = 1.0 if parameter.ndim == 1 else 0.0
        parameter.data.copy_(torch.from_numpy(centre + std * rng.standard_normal(parameter.shape)))


# ---------------------------------------------------------------------------------------- the runs


def new_model(config) -> nn.Module:
    """A model as the configuration says, with random weights: the same in every call."""
    model = transformers.LlamaForCausalLM(config).double()
    draw(dict(model.named_parameters()), np.random.default_rng(1), std=0.15)
    return model


def make_data() -> dict[str, np.ndarray]:
    """Sequences of 7, 5 and 3 tokens. What fills them up is random: no result may depend on it.

    Labels are the inputs, as is usual with `transformers`, which shifts them itself. Not scored
    are the fill, one token within a sequence, and each sequence's first token: in prompt tuning
    the last virtual token would predict it, and our model takes it as given.
    """
    ids = np.random.default_rng(2).integers(0, SHAPE["vocab_size"], (3, 7))  # (batch, time)
    attention_mask = (np.arange(7) < np.array([[7], [5], [3]])).astype(np.int64)  # (batch, time)
    labels = np.where(attention_mask == 1, ids, -100)  # (batch, time)
    labels[:, 0] = labels[0, 3] = -100
    return {"input_ids": ids, "attention_mask": attention_mask, "labels": labels}


def run(config, settings: dict, data: dict[str, np.ndarray], *, exact: bool) -> dict:
    """Loss, logits of the real tokens, and gradients of one method in one model."""
    with casts_lifted() if exact else nullcontext():
        model = new_model(config)
        pretrained = {id(p) for p in model.parameters()}
        model = add_method(model, **settings)
        own = {n: p for n, p in model.named_parameters() if id(p) not in pretrained}
        draw(own, np.random.default_rng(3), std=0.2)
        output = model(**{key: torch.from_numpy(array) for key, array in data.items()})
        output.loss.backward()
    ids = data["input_ids"]
    results = {f"values/{name}": value for name, value in
               (in_our_terms(n, p, config) for n, p in own.items())}
    precision = "exact" if exact else "cast"
    results[f"{precision}/loss"] = output.loss.detach().numpy()
    results[f"{precision}/logits"] = output.logits[:, -ids.shape[1]:].detach().numpy()
    for n, p in model.named_parameters():
        name, gradient = in_our_terms(n, p.grad, config)
        if n in own or name in PROBES or settings["kind"] == "full":
            results[f"{precision}/gradients/{name}"] = gradient
    return results


def run_layer(bias: bool) -> dict[str, np.ndarray]:
    """PEFT's LoRA around one `nn.Linear`: (2, 5, 7) in, (2, 5, 4) out."""
    rng = np.random.default_rng(4)
    model = nn.ModuleDict({"linear": nn.Linear(7, 4, bias=bias)})
    model = peft.inject_adapter_in_model(
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=["linear"]), model).double()
    draw(dict(model.named_parameters()), rng, std=1.0)
    linear = model["linear"]
    x = torch.from_numpy(rng.standard_normal((2, 5, 7))).requires_grad_(True)
    g = torch.from_numpy(rng.standard_normal((2, 5, 4)))  # dLoss/dh
    h = linear(x)
    h.backward(g)
    A, B = linear.lora_A["default"].weight, linear.lora_B["default"].weight
    found = {"x": x, "g": g, "h": h, "weight": linear.base_layer.weight.clone(), "A": A, "B": B,
             "A_grad": A.grad, "B_grad": B.grad, "x_grad": x.grad}
    if bias:
        found["bias"] = linear.base_layer.bias
    linear.merge()
    found["merged"] = linear.base_layer.weight
    return {name: tensor.detach().numpy() for name, tensor in found.items()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # a fixed order of summation
    torch.use_deterministic_algorithms(True)
    folder.mkdir(parents=True, exist_ok=True)
    data = make_data()
    results = {f"data/{name}": array for name, array in data.items()}
    for name, settings in MODELS.items():
        config = transformers.LlamaConfig(**SHAPE, **settings)
        new_model(config).save_pretrained(folder / name)
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        for method, method_settings in METHODS.items():
            for exact in (True, False):
                print(f"{name}, {method}, {'exact' if exact else 'cast'}", flush=True)
                found = run(config, method_settings, data, exact=exact)
                results |= {f"{name}/{method}/{key}": array for key, array in found.items()}
    for bias in (False, True):
        results |= {f"layer/{'bias' if bias else 'plain'}/{key}": array
                    for key, array in run_layer(bias).items()}
    np.savez_compressed(folder / "results.npz", **results)
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
                "peft": peft.__version__}
    text = json.dumps({"versions": versions, "models": list(MODELS), "methods": METHODS}, indent=1)
    (folder / "settings.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(results)} arrays written to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
