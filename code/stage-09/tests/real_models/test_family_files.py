"""The family's methods in files: PEFT's in our model, ours in PEFT's, and what is refused.

Real PEFT is asked once for all; see hub_oracle.py. What needs no PEFT stands at the end.
"""

import json
import shutil

import needs
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from family import dora, ia3, loreft, oft, oft_series, pissa, scale_and_rate, vera
from gradcheck import relative_error
from llama import Linear, Llama, LlamaConfig, random_weights
from peft import LoRALinear
from real_models import family_files, hub, mixed
from tensorfile import HubError

TOLERANCE = {"exact": 1e-9, "float32": 1e-5}
PRECISIONS = {"llama": ["exact", "float32"], "qwen2": ["exact"]}
CONFIGS = {"llama": LlamaConfig(50, 32, 48, 2, 8, 2, tie_word_embeddings=False),
           "qwen2": LlamaConfig(50, 32, 48, 2, 4, 2, model_type="qwen2")}  # with biases
IDS = np.random.default_rng(3).integers(0, 50, (3, 9))
QVD = ["q_proj", "v_proj", "down_proj"]
THEIRS = {  # what PEFT writes
    "dora": {"kind": "lora", "r": 3, "lora_alpha": 5, "target_modules": QVD, "use_dora": True},
    "dora rslora": {"kind": "lora", "r": 3, "target_modules": QVD, "use_dora": True,
                    "use_rslora": True, "rank_pattern": {"v_proj": 2}},
    "ia3": {"kind": "ia3", "target_modules": ["k_proj", "v_proj", "down_proj"],
            "feedforward_modules": ["down_proj"]},
    "ia3 default": {"kind": "ia3"},
    "ia3 by letters": {"kind": "ia3", "target_modules": r".*_proj", "feedforward_modules":
                       ["1.mlp.down_proj", "k_proj"], "exclude_modules": ["o_proj"]},
    "vera": {"kind": "vera", "r": 5, "target_modules": QVD},
    "vera output": {"kind": "vera", "r": 2, "target_modules": ["lm_head", "k_proj"]},
    "oft": {"kind": "oft", "oft_block_size": 8, "target_modules": QVD},
    "oft exact": {"kind": "oft", "oft_block_size": 4, "target_modules": "all-linear",
                  "use_cayley_neumann": False},
    "oft blocks": {"kind": "oft", "r": 6, "oft_block_size": 0, "target_modules": QVD},
    "oft adjusted": {"kind": "oft", "oft_block_size": 14, "target_modules": QVD},
    "oft terms": {"kind": "oft", "oft_block_size": 8, "target_modules": ["o_proj"],
                  "num_cayley_neumann_terms": 3, "layers_to_transform": [1]}}
PISSA = {"r": 3, "lora_alpha": 5, "target_modules": QVD, "init_lora_weights": "pissa"}
PISSAS = {"pissa": PISSA, "pissa rslora": PISSA | {"use_rslora": True},
          "pissa patterns": PISSA | {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 7}}}


def shared(dtype):
    return vera.shared_matrices(3, 48, 48, dtype=dtype, rng=np.random.default_rng(0))


OURS = {  # how a layer is made from (weight, bias) in the model's i-th place
    "dora": lambda w, b, i: dora.DoRALinear(w, b, 1 + i % 2, 3.5),
    "rslora": lambda w, b, i: scale_and_rate.RsLoRALinear(w, b, 3, 2 + i % 2),
    "rslora and lora": lambda w, b, i: (scale_and_rate.RsLoRALinear if i % 2 else LoRALinear)(
        w, b, 3, 2),
    "pissa": lambda w, b, i: pissa.PiSSALinear(w, b, 2, 3),
    "pissa and lora": lambda w, b, i: (pissa.PiSSALinear if i % 2 else LoRALinear)(w, b, 2, 3),
    "ia3": lambda w, b, i: ia3.IA3Linear(w, b, feedforward=i % 7 == 6),
    "ia3 uneven": lambda w, b, i: ia3.IA3Linear(w, b, feedforward=i % 3 == 0),
    "vera": lambda w, b, i: vera.VeRALinear(w, b, *shared(w.dtype)),
    "oft": lambda w, b, i: oft.OFTLinear(w, b, 4),
    "oft blocks": lambda w, b, i: oft.OFTLinear(w, b, w.shape[1] // 4),
    "oft series": lambda w, b, i: oft_series.OFTSeriesLinear(w, b, 8, 6)}
BIASED = ("dora", "ia3", "vera", "oft")  # of both tables; elsewhere a bias changes nothing
PLACES = [(name, base) for name in OURS for base in CONFIGS if base == "llama" or name in BIASED]


def base_model(base="llama", dtype=np.float64):
    config = CONFIGS[base]
    return Llama(config, random_weights(config, np.random.default_rng(1), 0.15, dtype))


def ours(name, base="llama", dtype=np.float64, only=("_proj",)):
    """Our method on all projections: random matrices, and vectors near their start."""
    model = base_model(base, dtype)
    places = [n for n, m in model.modules().items() if isinstance(m, Linear) and n.endswith(only)]
    for i, place in enumerate(places):
        old = model.modules()[place]
        model.replace(place, OURS[name](old.weight, old.bias, i))
    for i, array in enumerate(model.parameters().values()):
        noise = 0.1 * np.random.default_rng(i).standard_normal(array.shape)
        array[...] = noise + (array if array.ndim == 1 else 0)
    return model


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    needs.oracle()
    root = tmp_path_factory.mktemp("family")
    jobs = [{"do": "fields", "name": "fields"}]
    for base in CONFIGS:
        hub.save_llama(base_model(base), root / base)
        for name, method in THEIRS.items():
            if base == "llama" or name in BIASED:
                jobs.append({"do": "adapt", "name": f"theirs/{base}/{name}", "base": root / base,
                             "method": method, "save": root / "theirs" / base / name, "ids": IDS,
                             "precisions": ["exact"]})
                jobs.append({"do": "run", "name": f"theirs again/{base}/{name}", "ids": IDS,
                             "base": root / base, "adapter": root / "theirs" / base / name,
                             "precisions": ["float32"]})
    for name, method in PISSAS.items():
        jobs.append({"do": "pissa", "name": name, "base": root / "llama", "method": method,
                     "save": root / name, "ids": IDS})
    for name, base in PLACES:
        folder = root / "ours" / base / name
        hub.save_adapter(ours(name, base), folder)
        jobs.append({"do": "run", "name": f"ours/{base}/{name}", "base": root / base, "ids": IDS,
                     "adapter": folder, "precisions": PRECISIONS[base]})
    return root, needs.ask_hub_oracle(jobs, root)


def loaded(base, folder, dtype=np.float64):
    model = base_model(base, dtype)
    hub.load_adapter(model, folder)
    return model


def agree(model, want, precision):
    assert relative_error(model.forward(IDS), want) <= TOLERANCE[precision]


@pytest.mark.parametrize(("name", "base"), [(name, base) for name in THEIRS for base in CONFIGS
                                            if base == "llama" or name in BIASED])
def test_their_files_compute_the_same_here(name, base, oracle, tmp_path):
    root, found = oracle
    folder = root / "theirs" / base / name
    agree(loaded(base, folder, np.float32), found[f"theirs again/{base}/{name}/float32"],
          "float32")
    model = loaded(base, folder)
    agree(model, found[f"theirs/{base}/{name}/exact"], "exact")
    if name == "oft adjusted":  # PEFT has put other numbers in place of the config's
        with pytest.raises(HubError, match=r"\[12, 16\].*\[2, 4\]"):
            hub.save_adapter(model, tmp_path)
    else:  # what we write of it is the same again
        hub.save_adapter(model, tmp_path)
        assert relative_error(loaded(base, tmp_path).forward(IDS), model.forward(IDS)) < 1e-12


@pytest.mark.parametrize(("name", "base"), PLACES)
def test_our_files_compute_the_same_there_and_here(name, base, oracle):
    root, found = oracle
    model, folder = ours(name, base), root / "ours" / base / name
    for precision in PRECISIONS[base]:
        agree(model, found[f"ours/{base}/{name}/{precision}"], precision)
    again = loaded(base, folder)
    assert relative_error(again.forward(IDS), model.forward(IDS)) < 1e-12
    merged = base_model(base)
    for key, weight in hub.merged_weights(again).items():
        merged.weights()[key][...] = weight
    assert relative_error(merged.forward(IDS), model.forward(IDS)) < 1e-12


@pytest.mark.parametrize("name", PISSAS)
def test_pissa_is_read_converted_and_refused_as_it_is(name, oracle):
    root, found = oracle
    agree(loaded("llama", root / name / "converted", np.float32), found[f"{name}/float32"],
          "float32")
    with pytest.raises(HubError, match="init_lora_weights is 'pissa'.*base model"):
        loaded("llama", root / name / "raw")


@pytest.mark.parametrize("kind", ["lora", *(kind.lower() for kind in family_files.KINDS)])
def test_each_setting_of_pefts_is_read_or_harmless_or_refused_by_name(kind, oracle, tmp_path):
    fields = {str(name) for name in oracle[1][f"fields/{kind}"]}
    known = hub.READ[kind.upper()] | hub.HARMLESS | {"peft_type"}
    assert hub.READ[kind.upper()] <= fields
    name = {"lora": "dora"}.get(kind, kind)
    hub.save_adapter(ours(name), tmp_path)
    for field in sorted(fields - known):
        with_setting(tmp_path, **{field: {"a": 1}})
        with pytest.raises(HubError, match=field):
            loaded("llama", tmp_path)


def with_setting(folder, **settings):
    """Change an adapter's config, and put back what an earlier call has changed."""
    kept = folder / "kept.json"
    if not kept.exists():
        kept.write_text((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(
        json.loads(kept.read_text()) | settings))


REFUSED = {  # method, what changes in its config, what the refusal names
    "VeRA without its matrices": ("vera", {"save_projection": False}, "save_projection.*PyTorch"),
    "VeRA of no rank": ("vera", {"r": 0}, "r must be"),
    "OFT with both sizes": ("oft", {"r": 8}, "r or oft_block_size"),
    "OFT with neither": ("oft", {"oft_block_size": 0}, "r or oft_block_size"),
    "OFT of before the series": ("oft", {"use_cayley_neumann": None}, "use_cayley_neumann"),
    "OFT's series before 0.18": ("oft series", {"peft_version": "0.17.1"}, "peft_version.*0.17.1"),
    "OFT's series of no version": ("oft series", {"peft_version": None}, "peft_version"),
    "OFT of one term": ("oft series", {"num_cayley_neumann_terms": 1}, "terms"),
    "OFT of endless terms": ("oft series", {"num_cayley_neumann_terms": 10 ** 15},
                             f"num_cayley_neumann_terms must be at most 64, got {10 ** 15}"),
    "constrained OFT": ("oft", {"coft": True}, "coft"),
    "OFT that shares a block": ("oft", {"block_share": True}, "block_share"),
    "(IA)3 of no layer's kind": ("ia3", {"feedforward_modules": None}, "feedforward_modules"),
    "(IA)3 beside its targets": ("ia3", {"feedforward_modules": ["q"]}, "feedforward_modules.*'q'"),
    "(IA)3 of another side": ("ia3", {"feedforward_modules": ["k_proj", "down_proj"]}, "k_proj"),
    "a bias that trains": ("oft", {"bias": "all"}, "bias"),
    "DoRA by name only": ("rslora", {"use_dora": True}, "lora_magnitude_vector"),
    "DoRA without its name": ("dora", {"use_dora": False}, "lora_magnitude_vector"),
    "DoRA of text": ("rslora", {"use_dora": "yes"}, "use_dora"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of each method's files."""
    root = tmp_path_factory.mktemp("files")
    for name in OURS:
        hub.save_adapter(ours(name), root / name)
    return root


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused(case, files, tmp_path):
    method, change, named = REFUSED[case]
    shutil.copy(files / method / "adapter_config.json", tmp_path)
    save_file(load_file(files / method / "adapter_model.safetensors"),  # without our own notes
              tmp_path / "adapter_model.safetensors")
    loaded("llama", tmp_path)
    with_setting(tmp_path, **change)
    model = base_model()
    with pytest.raises(HubError, match=named):
        hub.load_adapter(model, tmp_path)
    assert all(isinstance(m, Linear) for n, m in model.modules().items() if n.endswith("_proj"))


@pytest.mark.parametrize(("name", "end"), [
    ("ia3", ".ia3_l"), ("vera", "vera_A"), ("vera", "vera_B"), ("vera", "vera_lambda_d"),
    ("dora", ".lora_magnitude_vector")])
def test_arrays_that_a_broken_download_left_zero_are_refused(name, end, files, tmp_path):
    arrays = load_file(files / name / "adapter_model.safetensors")
    key = next(key for key in arrays if key.endswith(end))
    arrays[key][...] = 0
    save_file(arrays, tmp_path / "adapter_model.safetensors")
    shutil.copy(files / name / "adapter_config.json", tmp_path)
    with pytest.raises(HubError, match=key):
        loaded("llama", tmp_path)


def test_a_wrong_base_model_is_refused_for_pissa_too(files):
    model = base_model()
    hub.load_adapter(model, files / "pissa")  # made for what PiSSA's weights were
    assert isinstance(model.layers[0].self_attn.q_proj, LoRALinear)
    other = base_model()
    other.layers[0].self_attn.q_proj.weight[...] *= 2
    with pytest.raises(HubError, match="base model"):
        hub.load_adapter(other, files / "pissa")


def test_rslora_keeps_its_name_and_its_alpha(files):
    config = json.loads((files / "rslora" / "adapter_config.json").read_text())
    assert config["use_rslora"] and {config["lora_alpha"], *config["alpha_pattern"].values()} == {
        2, 3}
    config = json.loads((files / "rslora and lora" / "adapter_config.json").read_text())
    assert not config["use_rslora"]


def test_methods_do_not_mix_in_a_file(tmp_path):
    model = ours("ia3")
    old = base_model().layers[0].self_attn.q_proj
    model.replace("model.layers.0.self_attn.q_proj", LoRALinear(old.weight, None, 2))
    with pytest.raises(HubError, match=r"q_proj\.l|\.l'"):
        hub.save_adapter(model, tmp_path)
    model = ours("dora")
    model.replace("model.layers.0.self_attn.q_proj", LoRALinear(old.weight, None, 2))
    with pytest.raises(HubError, match="use_dora"):
        hub.save_adapter(model, tmp_path)
    model = ours("vera")
    model.layers[1].mlp.up_proj.A = model.layers[1].mlp.up_proj.A + 1
    with pytest.raises(HubError, match="up_proj"):
        hub.save_adapter(model, tmp_path)


def test_a_model_takes_one_method(files):
    with pytest.raises(HubError, match="already holds"):
        hub.load_adapter(ours("oft"), files / "ia3")


def test_what_does_not_merge_is_not_saved_as_a_checkpoint(tmp_path):
    model = base_model()
    model.replace("model.layers.0.after_mlp", loreft.LoReFT(32, 2, dtype=np.float64))
    with pytest.raises(HubError, match="after_mlp"):
        hub.save_llama(model, tmp_path)


def test_only_plain_lora_shares_a_batch(files):
    with pytest.raises(HubError, match="DoRALinear"):
        mixed.Served(base_model(), {"dora": files / "dora"})
    mixed.Served(base_model(), {"rslora": files / "rslora"})
