"""Ask those who store quantized weights how many bytes that takes, for test_bases.py.

Run with the environment that has torch and transformers, from anywhere; pip downloads three
packages into a temporary folder, of which single modules are loaded and none is installed:

    .venv-oracle/bin/python code/stage-09/tests/oracle/make_bases_fixtures.py [output.json]

Every model is built on the `meta` device in 16 bits, and then converted as transformers does before
it loads a quantized checkpoint: FP8 and bitsandbytes by transformers' own quantizers; GPTQ by
optimum's choice of layers and AutoGPTQ's layer; AWQ by transformers' choice and AutoAWQ's layer.
Recorded are the bytes of all parameters and buffers of the converted model; for bitsandbytes, which
packs only on a device, how many weights its layers have.
"""

import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from pathlib import Path

import torch

ORACLE = Path(__file__).resolve().parent
TESTS = ORACLE.parent

_spec = importlib.util.spec_from_file_location("made", ORACLE / "make_accounting_fixtures.py")
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)

import transformers  # noqa: E402
from transformers.quantizers.quantizers_utils import should_convert_module  # noqa: E402

PACKAGES = {"auto-gptq": "0.7.1", "autoawq": "0.2.9", "optimum": "2.3.0"}
_DECODER = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2,
            "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 101}
_EXPERTS = {"moe_intermediate_size": 64, "num_experts_per_tok": 2}
MODELS = {
    "llama": _DECODER, "qwen2": _DECODER, "gemma2": _DECODER, "gemma3_text": _DECODER,
    "phi3": {**_DECODER, "pad_token_id": 0}, "stablelm": _DECODER, "qwen3": _DECODER,
    "mixtral": {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_DECODER, **_EXPERTS, "num_experts": 4},
    "deepseek_v3": {**_DECODER, **_EXPERTS, "n_routed_experts": 8, "n_group": 2, "topk_group": 1,
                    "num_key_value_heads": 6, "first_k_dense_replace": 1, "kv_lora_rank": 32,
                    "q_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32,
                    "v_head_dim": 32},
    "gpt_oss": {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"n_embd": 96, "n_layer": 2, "n_head": 6, "n_positions": 40, "vocab_size": 101},
    "opt": {"hidden_size": 96, "ffn_dim": 160, "num_hidden_layers": 2, "num_attention_heads": 6,
            "vocab_size": 101, "max_position_embeddings": 40, "word_embed_proj_dim": 96},
    "bloom": {"hidden_size": 96, "n_layer": 2, "n_head": 6, "vocab_size": 101},
    "t5": {"d_model": 96, "d_kv": 16, "d_ff": 160, "num_layers": 2, "num_heads": 6,
           "vocab_size": 101},
    "bert": {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2,
             "num_attention_heads": 6, "vocab_size": 101},
}
_PART = ["model.layers.1", "lm_head"]
SETTINGS = [
    {"quant_method": "fp8"}, {"quant_method": "fp8", "weight_block_size": [32, 64]},
    {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"},
    {"quant_method": "fp8", "scale_fmt": "ue8m0"}, {"quant_method": "fp8", "ignored_layers": []},
    *({"quant_method": "gptq", "bits": bits, "group_size": group}
      for bits, group in ((4, 128), (4, 32), (3, -1), (8, 32), (2, 64))),
    {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"},
    {"quant_method": "awq", "group_size": -1},
    {"load_in_4bit": True}, {"quant_method": "bitsandbytes", "load_in_8bit": True},
]
#: With the names that these models have.
CHOSEN = {"llama": [
    {"quant_method": "fp8", "modules_to_not_convert": _PART},
    {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*.mlp", "k_proj"]},
    {"quant_method": "awq", "group_size": 32, "modules_to_not_convert": ["o_proj"]},
    {"quant_method": "gptq", "bits": 4, "group_size": 32,
     "modules_in_block_to_quantize": [["self_attn.q_proj", "self_attn.k_proj"], ["down_proj"]]},
    {"load_in_4bit": True, "llm_int8_skip_modules": ["model.layers.0.self_attn"]},
    {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head", "layers.1.mlp.up_proj"]}],
    "mixtral": [{"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.experts"]}],
}


def of(package: str, module: str, folder: Path) -> types.ModuleType:
    """One module out of a package's file, with what it imports from its package beside it."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                    *(["--no-binary", ":all:"] if package == "autoawq" else []),
                    "-d", folder, f"{package}=={PACKAGES[package]}"], check=True)
    [archive] = folder.glob(f"{package.replace('-', '_')}-{PACKAGES[package]}*")
    root = folder / package
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(root)
    else:
        tarfile.open(archive).extractall(root, filter="data")
        [root] = root.iterdir()
    for depth in range(1, module.count(".") + 1):  # folders as they lie, without their __init__
        name = ".".join(module.split(".")[:depth])
        sys.modules[name] = package_of = types.ModuleType(name)
        package_of.__path__ = [str(root / name.replace(".", "/"))]
    return importlib.import_module(module)


def size(model: torch.nn.Module) -> int:
    """Without what a router counts: a buffer, and so no parameter of a model either."""
    saved = {id(tensor): tensor for name, tensor in model.state_dict(keep_vars=True).items()
             if not name.endswith("e_score_correction_bias")}
    return sum(tensor.numel() * tensor.element_size() for tensor in saved.values())


def convert(model: torch.nn.Module, settings: dict, layers: dict) -> dict:
    """The model as the quantizer leaves it, and what is recorded of it."""
    method = settings.get("quant_method", "bitsandbytes")
    config = {key: value for key, value in settings.items() if key != "quant_method"}
    if method == "fp8":
        from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer
        quantizer = FineGrainedFP8HfQuantizer(
            transformers.FineGrainedFP8Config(**config), pre_quantized=True)
        quantizer._process_model_before_weight_loading(model)
    elif method == "bitsandbytes":
        from transformers.integrations.bitsandbytes import replace_with_bnb_linear
        from transformers.quantizers.base import HfQuantizer
        asked = transformers.BitsAndBytesConfig(**config)
        kept = HfQuantizer.get_modules_to_not_convert(
            model, asked.llm_int8_skip_modules, model._keep_in_fp32_modules)
        replace_with_bnb_linear(model, kept, asked)
        return {"weights": sum(m.weight.numel() for m in model.modules()
                               if type(m).__name__ in ("Linear4bit", "Linear8bitLt"))}
    elif method == "gptq":
        utils, layer = layers["gptq"]
        found = utils.get_layers(model, prefix=utils.get_block_name_with_pattern(model))
        if picks := config.get("modules_in_block_to_quantize"):
            found = {n: m for n, m in found.items() if n.endswith(tuple(sum(picks, [])))}
        for name, old in found.items():
            n_in, n_out = (old.weight.shape if type(old).__name__ == "Conv1D"
                           else old.weight.shape[::-1])
            model.set_submodule(name, layer(config["bits"], config["group_size"], n_in, n_out,
                                            old.bias is not None, weight_dtype=torch.float16))
    else:
        from transformers.quantizers.base import HfQuantizer
        kept = HfQuantizer.get_modules_to_not_convert(
            model, config.get("modules_to_not_convert"), model._keep_in_fp32_modules, True)
        for name, old in [*model.named_modules()]:
            if isinstance(old, torch.nn.Linear) and should_convert_module(name, kept):
                model.set_submodule(name, layers["awq"](
                    4, config["group_size"], old.in_features, old.out_features,
                    old.bias is not None, "meta"))
    return {"bytes": size(model)}


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sys.modules["awq.utils.utils"] = types.SimpleNamespace(get_best_device=None)
        sys.modules["awq.utils.packing_utils"] = types.SimpleNamespace(dequantize_gemm=None)
        gptq = of("auto-gptq", "auto_gptq.nn_modules.qlinear.qlinear_cuda_old", Path(folder))
        awq = of("autoawq", "awq.modules.linear.gemm", Path(folder))
        utils = of("optimum", "optimum.gptq.utils", Path(folder))
        layers = {"gptq": (utils, gptq.QuantLinear), "awq": awq.WQLinear_GEMM}
        cases = []
        for family, sizes in MODELS.items():
            task = {"t5": "SEQ_2_SEQ_LM", "bert": "MASKED_LM"}.get(family, "CAUSAL_LM")
            for settings in [*SETTINGS, *CHOSEN.get(family, [])]:
                config = {"model_type": family, **sizes}
                model = made.build(config, task).to(torch.bfloat16)
                torch.set_default_dtype(torch.bfloat16)
                try:
                    with torch.device("meta"):
                        found = convert(model, settings, layers)
                except (AssertionError, ValueError) as error:
                    found = {"error": str(error)[:80]}
                torch.set_default_dtype(torch.float32)
                cases.append({"config": config | {"quantization_config": settings},
                              "task": task, **found})
    document = {"about": "Asked by make_bases_fixtures.py",
                "versions": {"transformers": transformers.__version__, **PACKAGES}, "cases": cases}
    text = json.dumps(document, separators=(",", ":")).replace('{"config":', '\n{"config":')
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TESTS / "fixtures" / "bases.json")
