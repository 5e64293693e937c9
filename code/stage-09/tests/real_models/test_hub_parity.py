"""Our files in Hugging Face's hands, and theirs in ours: logits, tokens, merging, training.

Everything is done anew by real PyTorch, transformers and PEFT, in one process of their own; see
hub_oracle.py. Tolerances are relative to the largest entry of each array.
"""

import needs
import numpy as np
import pytest

import names
import training
from experiments import small_llama
from gradcheck import relative_error
from llama import Embedding, Linear, Llama, LlamaConfig, random_weights
from llama_config import RopeScaling, read_config
from peft import LoRALinear
from real_models import hub, twins
from real_models.lora_embedding import LoRAEmbedding

# One worker asks the oracle for all of them, if pytest-xdist is told `--dist loadgroup`.
pytestmark = pytest.mark.xdist_group("hub oracle")
BASE = twins.BASE
TOLERANCE = {"exact": 1e-9, "cast": 1e-6, "float32": 1e-5}
STEPS, LR, DECAY = 20, 5e-3, 0.01

CONFIGS = {
    "gqa": LlamaConfig(50, 32, 48, 2, 8, 2, tie_word_embeddings=False),
    "long rope": LlamaConfig(50, 32, 48, 2, 2, 2, rope_theta=1e6, rms_norm_eps=1e-5),
    "odd sizes": LlamaConfig(101, 30, 17, 3, 3, 1, max_position_embeddings=37),
    "llama3": LlamaConfig(50, 32, 48, 2, 4, 2, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32)),
    "mistral": LlamaConfig(50, 32, 48, 2, 4, 2, model_type="mistral", head_dim=6,
                           sliding_window=16),
    "mistral without a window": LlamaConfig(50, 32, 48, 2, 4, 2, model_type="mistral"),
    "qwen2": LlamaConfig(50, 32, 48, 2, 4, 2, model_type="qwen2"),
    "qwen3": LlamaConfig(50, 32, 48, 2, 4, 2, model_type="qwen3", head_dim=10,
                         tie_word_embeddings=False),
    "smollm3": LlamaConfig(50, 32, 48, 3, 4, 2, model_type="smollm3", no_rope_layers=(1, 0, 1)),
}
THEIRS = {  # what their `save_pretrained` writes: config, dtype of the file, shards or not
    "float32": ({}, "float32", "5GB"),
    "bfloat16 shards": ({"tie_word_embeddings": True}, "bfloat16", "8KB"),
    "float16": ({"num_key_value_heads": 1, "rope_parameters":
                 {"rope_type": "default", "rope_theta": 5e5}}, "float16", "5GB"),
    "float64 shards": ({"num_hidden_layers": 3}, "float64", "20KB"),
}
FAMILY = {"num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None,
          "pad_token_id": None}
FAMILIES = {  # as THEIRS; the gradients of all weights and greedy tokens are compared, too
    "llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
                                   "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                   "original_max_position_embeddings": 16}},
    "mistral": {"model_type": "mistral", "head_dim": 8, "sliding_window": 14},  # just reached
    "qwen2": {"model_type": "qwen2"},
    "qwen2.5": {"model_type": "qwen2", "tie_word_embeddings": True, "sliding_window": 5,
                "max_window_layers": 1, "use_sliding_window": False},
    "qwen3": {"model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 5}}
METHODS = {
    "lora": {"kind": "lora", "r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
    "lora all-linear": {"kind": "lora", "r": 2, "target_modules": "all-linear"},
    "lora one layer": {"kind": "lora", "r": 2, "target_modules": ["model.layers.1.mlp.up_proj"]},
    "lora patterns": {"kind": "lora", "r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"],
                      "rank_pattern": {r"layers\.0\..*q_proj": 2, "v_proj": 1, "self_attn.v": 3},
                      "alpha_pattern": {"model.layers.1.mlp.up_proj": 3, ".*q_proj": 2.5}},
    "lora rslora": {"kind": "lora", "r": 3, "lora_alpha": 2, "use_rslora": True,
                    "target_modules": r"model\.layers\.\d+\.(self_attn\.[qo]|mlp\.down)_proj",
                    "rank_pattern": {"o_proj": 5}},
    "lora layers": {"kind": "lora", "r": 2, "target_modules": ["k_proj", "mlp.gate_proj"],
                    "layers_to_transform": 0, "layers_pattern": "layers"},
    "lora list of layers": {"kind": "lora", "r": 2, "target_modules": ["v_proj"],
                            "layers_to_transform": [0]},
    "lora from EVA": {"kind": "lora", "r": 3, "init_lora_weights": "eva",  # it moves ranks about
                      "target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 2}},
    "lora exclusions": {"kind": "lora", "r": 2, "target_modules": "all-linear",
                        "exclude_modules": ["o_proj", "model.layers.1.mlp.up_proj"]},
    "lora output": {"kind": "lora", "r": 2, "target_modules": ["lm_head", "v_proj"]},
    "lora embeddings": {"kind": "lora", "r": 3, "lora_alpha": 5,
                        "target_modules": ["embed_tokens", "v_proj"]},
    "lora embeddings, rslora": {"kind": "lora", "r": 3, "use_rslora": True,
                                "target_modules": ".*embed.*", "rank_pattern": {"embed_tokens": 2},
                                "alpha_pattern": {"embed_tokens": 7}},
    "lora both ends": {"kind": "lora", "r": 2, "ensure_weight_tying": True,
                       "target_modules": ["lm_head", "embed_tokens"]},
    "prefix": {"kind": "prefix", "num_virtual_tokens": 3},
    "prompt": {"kind": "prompt", "num_virtual_tokens": 4},
}
UNTIED = ("lora output", "lora both ends")  # their target is the embedding in the base model
PLACES = [(method, base) for method in METHODS for base in ("base", "gqa")
          if base != "base" or method not in UNTIED]
TRAINED = ("lora-qv", "lora-all", "prefix", "prompt")  # methods of section 9.7


def random_model(config, dtype=np.float64):
    return Llama(config, random_weights(config, np.random.default_rng(1), 0.15, dtype))


def method_of_9_7(method, dtype=np.float32):
    """As section 9.7 plugs it into the base model, at the size of its sweep."""
    weights = {n: w.astype(dtype) for n, w in hub.load_llama(BASE).weights().items()}
    model = Llama(read_config(BASE / "config.json"), weights)
    plug, _, size, _ = small_llama.METHODS[method]
    plug(model, size, np.random.default_rng(0))
    for module in (model.kv_prefix, model.soft_prompt):
        if module is not None:  # made in float32
            for key, array in module.parameters().items():
                setattr(module, key, array.astype(dtype))
    return model


def batches(count, seed=0):
    """Arrays of a fixed width, as both sides take them: (count, batch, time)."""
    found = names.batches(names.load_names("turkish", "train"), 8, np.random.default_rng(seed))
    inputs = np.zeros((count, 8, 15), np.int64)
    targets = np.full_like(inputs, training.IGNORE)
    for i, (x, y) in zip(range(count), found):
        inputs[i, :, :x.shape[1]], targets[i, :, :y.shape[1]] = x, y
    return inputs, targets


def ids_for(config, seed=3):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (3, 9))


def jobs_for(root):
    """All work of the oracle, and the files of ours that it needs."""
    base_ids = names.make_batch(["ayşe".replace("ş", "s"), "mehmet", "elif"])[0]
    jobs = [{"do": "run", "name": "base", "base": BASE, "ids": base_ids[:, :3], "new_tokens": 12,
             "stop": 0}]
    for name, config in CONFIGS.items():
        model = random_model(config)
        for layout, size in (("single", 4e9), ("shards", 2e4)):
            hub.save_llama(model, root / name / layout, max_shard_bytes=int(size))
            jobs.append({"do": "run", "name": f"{name}/{layout}", "base": root / name / layout,
                         "ids": ids_for(config), "new_tokens": 8})
    shape = {"vocab_size": 29, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
             "num_attention_heads": 4, "max_position_embeddings": 32}
    for name, (changes, dtype, shard) in THEIRS.items():
        jobs.append({"do": "make", "name": f"theirs/{name}", "base": root / "theirs" / name,
                     "config": shape | changes, "dtype": dtype, "max_shard_size": shard,
                     "precisions": ["exact", "float32"],
                     "ids": np.random.default_rng(4).integers(0, 29, (2, 7))})
    for name, changes in FAMILIES.items():
        for dtype, shard in (("float64", "5GB"), ("bfloat16", "8KB")):
            place = f"{name}/{dtype}"
            jobs.append({"do": "make", "name": place, "base": root / "families" / place,
                         "config": shape | FAMILY | changes, "dtype": dtype,
                         "max_shard_size": shard, "new_tokens": 8, "gradients": True,
                         "ids": np.random.default_rng(4).integers(0, 29, (2, 7))})
        jobs.append({"do": "adapt", "name": f"{name}/adapted", "save": root / "adapted" / name,
                     "base": root / "families" / name / "float64", "precisions": ["exact"],
                     "method": METHODS["lora all-linear"], "ids": ids_for(CONFIGS["gqa"]) % 27})
    for name, base in PLACES:
        folder = BASE if base == "base" else root / "gqa" / "single"
        jobs.append({"do": "adapt", "name": f"peft/{base}/{name}", "base": folder,
                     "method": METHODS[name], "save": root / "peft" / base / name,
                     "ids": ids_for(CONFIGS["gqa"]) % 27, "precisions": [
                         "exact", "cast", *["float32"] * ("embeddings" in name)]})
    uneven = hub.load_llama(root / "gqa" / "single", np.float64)
    for i, (name, module) in enumerate(list(uneven.modules().items())):
        if isinstance(module, Linear):
            uneven.replace(name, LoRALinear(module.weight, None, i % 4 + 1, i + 0.5))
        elif isinstance(module, Embedding):
            uneven.replace(name, LoRAEmbedding(module.weight, 3, 2.0))
    for i, array in enumerate(uneven.parameters().values()):
        array[...] = 0.1 * np.random.default_rng(i).standard_normal(array.shape)
    hub.save_adapter(uneven, root / "ours" / "uneven")
    jobs.append({"do": "run", "name": "ours/uneven", "base": root / "gqa" / "single",
                 "adapter": root / "ours" / "uneven", "ids": ids_for(CONFIGS["gqa"]),
                 "precisions": ["exact", "cast"]})
    inputs, targets = batches(STEPS)
    np.savez(root / "data.npz", inputs=inputs, targets=targets)
    for method in TRAINED:
        model = method_of_9_7(method)  # an adapter as in 9.7: float32, trained by `fit`
        training.fit(model, zip(*batches(30)), steps=30, lr=5e-3, warmup=5)
        hub.save_adapter(model, root / "ours" / method)
        jobs.append({"do": "run", "name": f"ours/{method}", "base": BASE,
                     "adapter": root / "ours" / method, "ids": base_ids, "new_tokens": 6})
        if "lora" in method:
            jobs[-1]["save"] = root / "merged by peft" / method
            hub.save_llama(model, root / "merged" / method)
            jobs.append({"do": "run", "name": f"merged/{method}",
                         "base": root / "merged" / method, "ids": base_ids})
        start = method_of_9_7(method, np.float64)
        hub.save_adapter(start, root / "start" / method)
        jobs.append({"do": "train", "name": f"train/{method}", "base": BASE, "lr": LR,
                     "adapter": root / "start" / method, "data": root / "data.npz",
                     "weight_decay": DECAY, "save": root / "trained" / method, "ids": base_ids})
    hub.save_adapter(method_of_9_7("houlsby"), root / "bottleneck")
    return [*jobs, {"do": "refuse", "name": "bottleneck", "base": BASE,
                    "adapter": root / "bottleneck"}]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """The folder with everybody's files, the jobs by name, and the oracle's answers."""
    needs.oracle()
    root = tmp_path_factory.mktemp("hub")
    jobs = jobs_for(root)
    return root, {job["name"]: job for job in jobs}, needs.ask_hub_oracle(jobs, root)


def check_logits(oracle, name, load):
    """`load(dtype)` computes what the oracle did, in every precision that it was asked for."""
    _, jobs, results = oracle
    ids, asked = np.array(jobs[name]["ids"]), 0
    for precision, tolerance in TOLERANCE.items():
        if f"{name}/{precision}" in results:
            model = load(np.float32 if precision == "float32" else np.float64)
            error = relative_error(model.forward(ids), results[f"{name}/{precision}"])
            assert error <= tolerance, (precision, error)
            asked += 1
    assert asked
    if f"{name}/tokens" in results:
        new = model.generate(ids, jobs[name]["new_tokens"], temperature=0,
                             stop=jobs[name].get("stop"))
        assert np.array_equal(new, results[f"{name}/tokens"])


def with_adapter(folder, base=BASE):
    def load(dtype):
        model = hub.load_llama(base, dtype)
        hub.load_adapter(model, folder)
        return model
    return load


def test_the_base_model_agrees(oracle):
    check_logits(oracle, "base", lambda dtype: hub.load_llama(BASE, dtype))


@pytest.mark.parametrize("layout", ["single", "shards"])
@pytest.mark.parametrize("name", CONFIGS)
def test_our_checkpoints_agree(name, layout, oracle):
    folder = oracle[0] / name / layout
    assert len(list(folder.glob("*.safetensors"))) > (1 if layout == "shards" else 0)
    check_logits(oracle, f"{name}/{layout}", lambda dtype: hub.load_llama(folder, dtype))


@pytest.mark.parametrize("name", THEIRS)
def test_their_checkpoints_agree(name, oracle):
    folder = oracle[0] / "theirs" / name
    assert (folder / "model.safetensors.index.json").exists() == ("shards" in name)
    check_logits(oracle, f"theirs/{name}", lambda dtype: hub.load_llama(folder, dtype))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_computes_and_learns_what_transformers_does(family, dtype, oracle):
    root, jobs, results = oracle
    name, folder = f"{family}/{dtype}", root / "families" / family / dtype
    assert (folder / "model.safetensors.index.json").exists() == (dtype == "bfloat16")
    check_logits(oracle, name, lambda d: hub.load_llama(folder, d))
    model, ids = hub.load_llama(folder, np.float64), np.array(jobs[name]["ids"])
    model.set_trainable()
    _, grad = training.cross_entropy(model.forward(ids[:, :-1]), ids[:, 1:])
    model.backward(grad)
    start = f"{name}/gradient/"
    theirs = {key.removeprefix(start) for key in results if key.startswith(start)}
    assert theirs == model.gradients().keys()
    for key, ours in model.gradients().items():
        assert relative_error(ours, results[start + key]) < 1e-9, key


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_takes_adapters_by_peft(family, oracle):
    root, jobs, _ = oracle
    name = f"{family}/adapted"
    check_logits(oracle, name, with_adapter(root / "adapted" / family, jobs[name]["base"]))


@pytest.mark.parametrize(("method", "base"), PLACES)
def test_their_adapters_agree_in_our_model(method, base, oracle):
    root, jobs, _ = oracle
    name = f"peft/{base}/{method}"
    check_logits(oracle, name, with_adapter(root / name, jobs[name]["base"]))


@pytest.mark.parametrize("method", TRAINED)
def test_an_adapter_of_section_9_7_gives_the_same_logits_in_peft(method, oracle):
    check_logits(oracle, f"ours/{method}", with_adapter(oracle[0] / "ours" / method))


def test_ranks_and_alphas_of_each_modules_own_mean_the_same_to_peft(oracle):
    root, jobs, _ = oracle
    check_logits(oracle, "ours/uneven", with_adapter(root / "ours" / "uneven",
                                                     jobs["ours/uneven"]["base"]))


@pytest.mark.parametrize("method", [m for m in TRAINED if "lora" in m])
def test_merged_checkpoints_agree(method, oracle):
    root, jobs, results = oracle
    ours, theirs = root / "merged" / method, root / "merged by peft" / method
    check_logits(oracle, f"merged/{method}", lambda dtype: hub.load_llama(ours, dtype))
    one, two = hub.load_llama(ours, np.float64).weights(), hub.load_llama(theirs, np.float64)
    for name, array in two.weights().items():  # theirs was merged in float64
        assert relative_error(one[name], array) < 1e-6, name
    ids = np.array(jobs[f"ours/{method}"]["ids"])
    assert relative_error(two.forward(ids), results[f"ours/{method}/exact"]) < 1e-9


@pytest.mark.parametrize("method", TRAINED)
def test_twenty_steps_of_adamw_follow_peft(method, oracle):
    root, _, results = oracle
    model = with_adapter(root / "start" / method)(np.float64)
    optimizer = training.AdamW(model.parameters(), LR, weight_decay=DECAY)
    losses = []
    for inputs, targets in zip(*batches(STEPS)):
        loss, grad = training.cross_entropy(model.forward(inputs), targets)
        model.backward(grad)
        optimizer.step(model.gradients())
        losses.append(loss)
    expected = results[f"train/{method}/losses"]
    assert relative_error(np.array(losses), expected) < 1e-9
    trained = with_adapter(root / "trained" / method)(np.float64)
    started = with_adapter(root / "start" / method)(np.float64).parameters()
    for name, array in trained.parameters().items():
        assert np.abs(array - started[name]).max() > 1e-3, name  # it has moved
        assert relative_error(model.parameters()[name], array) < 1e-6, name
    check_logits(oracle, f"train/{method}", lambda dtype: trained)


def test_peft_refuses_our_layout_of_bottleneck_adapters(oracle):
    assert hub.BOTTLENECK in str(oracle[2]["bottleneck/message"])
