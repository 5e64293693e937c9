"""The book's live widgets: what each PEFT method costs, at any setting.

    parameter_explorer()     all methods, any model shape               (section 9.5)
    rank_widget()            LoRA's rank                                (section 9.2)
    bottleneck_widget()      the adapters' bottleneck                   (section 9.3)
    lengths_widget()         prefix length and prompt length            (section 9.4)
    run_explorer()           the recorded runs of all methods           (section 9.7)
    memory_explorer()        memory to fine-tune real models            (section 9.5)

No formula of any method stands here or in the `.js` files beside it. Every count is linear in its
setting, so Python asks `peft.compare_peft_methods` once per model shape what one unit costs (rank
1, bottleneck 1, one token) and hands these costs to the page; the page multiplies. That is why a
slider also works in a saved HTML page, with no kernel behind it.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from IPython.display import display

import peft
from book_pages import pages
from book_pages.figures import COLORS
from experiments import small_llama
from real_models import accounting, bases, optimizers, reading, serving

FRONT_END = Path(__file__).parent

#: JavaScript counts in float64: whole numbers are exact up to here and no further.
LARGEST_EXACT_INTEGER = 2**53 - 1

#: Models whose layers the seed's formulas describe: q, k, v and o are all (d_model, d_model).
#: Name, d_model, layers, heads.
MODELS = [
    ("This book's Llama", 64, 3, 4),
    ("GPT-2 small", 768, 12, 12),
    ("GPT-2 medium", 1024, 24, 16),
    ("GPT-2 XL", 1600, 48, 25),
    ("OPT-1.3B", 2048, 24, 32),
    ("Llama-2-7B", 4096, 32, 32),
    ("Llama-2-13B", 5120, 40, 40),
    ("LLaMA-65B", 8192, 80, 64),
    ("GPT-3 175B", 12288, 96, 96),
]
#: What the sliders of the model's shape can reach besides.
WIDTHS = [64, 128, 256, 512, 768, 1024, 1280, 1600, 2048, 2560, 4096, 5120, 6656, 8192, 12288]
LAYERS = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 60, 64, 80, 96]
HEADS = [1, 2, 4, 8, 12, 16, 20, 25, 32, 40, 48, 52, 64, 80, 96]

#: Settings that the sliders offer, the seed's defaults among them.
SETTINGS = {
    "lora_rank": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    "adapter_bottleneck": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    "prefix_length": [1, 2, 5, 10, 16, 20, 30, 50, 100, 200],
    "prompt_length": [1, 2, 5, 10, 20, 50, 100, 150, 200],
}
#: Key in `compare_peft_methods`, label, setting, what one unit of it is called, slider's label.
METHODS = [
    ("full", "Full", None, "q, k, v, o", None),
    ("lora", "LoRA", "lora_rank", "rank", "LoRA rank"),
    ("adapters", "Adapters", "adapter_bottleneck", "bottleneck", "Adapter bottleneck"),
    ("prefix", "Prefix tuning", "prefix_length", "length", "Prefix length"),
    ("prompt", "Prompt tuning", "prompt_length", "length", "Prompt length"),
]
#: What is counted, said in the widget: for every method, and for each one that is shown.
NOTES = {
    "full": "Full counts the attention weights only, four d × d matrices a layer: of the whole "
            "model every share is smaller still.",
    "lora": "LoRA is on q and v.",
    "adapters": "Every layer has two adapters, without biases.",
    "prefix": "A prefix has a key and a value per token in every layer.",
    "prompt": "A prompt has one embedding per token, before the first layer.",
}


def unit_costs(d_model, num_layers, num_heads):
    """What one unit of each method's setting costs on one model, from `compare_peft_methods`.

    Returns
    -------
    dict
        Method -> trainable parameters at rank 1, bottleneck 1 and length 1; "full" as it is.
    """
    counts = peft.compare_peft_methods(
        d_model, num_layers, num_heads,
        lora_rank=1, adapter_bottleneck=1, prefix_length=1, prompt_length=1,
    )
    return {method: count["params"] for method, count in counts.items()}


def front_end(*names):
    """One module from the shared helpers and one widget's code: a saved page can import nothing."""
    return "\n".join((FRONT_END / f"{name}.js").read_text("utf-8") for name in ("common", *names))


class Widget(anywidget.AnyWidget):
    """An anywidget that leaves a plain table where none can be shown (print, no JavaScript)."""

    _css = (FRONT_END / "widgets.css").read_text("utf-8")

    def fallback(self):
        """Caption, column names and rows of the table that stands in for the widget."""
        raise NotImplementedError

    def _ipython_display_(self):
        caption, columns, rows = self.fallback()
        table = pages.table(columns, rows, caption).data
        display({"text/html": f'<div class="peft-widget-fallback">{table}</div>',
                 "text/plain": _text_table(caption, columns, rows)}, raw=True)
        display(self._repr_mimebundle_()[0] | {"text/plain": type(self).__name__}, raw=True)


class ParameterExplorer(Widget):
    """Sliders for the methods' settings and the model's shape; bars and a table of what they cost.

    Parameters
    ----------
    model : str
        Name of the model to start with, one of `MODELS`.
    methods : sequence of str
        Methods that get a slider, keys of `compare_peft_methods`. "full" is always shown.
    shape_sliders : bool
        Whether width, layers and heads have sliders; otherwise one picks from the listed models.
    title : str
        The widget's name for screen readers.
    settings : int
        Settings to start with: `lora_rank`, `adapter_bottleneck`, `prefix_length`,
        `prompt_length`; the seed's defaults where left out.

    Attributes
    ----------
    width, layers, heads, lora_rank, adapter_bottleneck, prefix_length, prompt_length : int
        What the sliders show. With a kernel running, read or set them from Python.
    precision : str
        The type of the saved parameters, "float16" or "float32".

    Raises
    ------
    ValueError
        An unknown model, method or setting, or a setting at which a count would not be exact.
    """

    _esm = front_end("parameters")

    width = traitlets.Int().tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    heads = traitlets.Int().tag(sync=True)
    lora_rank = traitlets.Int(8, min=1).tag(sync=True)
    adapter_bottleneck = traitlets.Int(64, min=1).tag(sync=True)
    prefix_length = traitlets.Int(10, min=1).tag(sync=True)
    prompt_length = traitlets.Int(20, min=1).tag(sync=True)
    precision = traitlets.Enum(["float16", "float32"], "float16").tag(sync=True)

    _title = traitlets.Unicode().tag(sync=True)
    _note = traitlets.Unicode().tag(sync=True)
    _methods = traitlets.List().tag(sync=True)
    _presets = traitlets.List().tag(sync=True)
    _precisions = traitlets.List().tag(sync=True)
    _shape_sliders = traitlets.Bool().tag(sync=True)
    _widths = traitlets.List().tag(sync=True)
    _layer_counts = traitlets.List().tag(sync=True)
    _head_counts = traitlets.Dict().tag(sync=True)  # width -> heads that divide it
    _costs = traitlets.Dict().tag(sync=True)  # "width,layers" -> method -> parameters per unit

    def __init__(self, model="Llama-2-7B", *, methods=("lora", "adapters", "prefix", "prompt"),
                 shape_sliders=True, title="Parameter explorer", **settings):
        known = {name: shape for name, *shape in MODELS}
        if model not in known:
            raise ValueError(f"model must be one of {list(known)}, got {model!r}")
        tunable = [key for key, _, setting, *_ in METHODS if setting]
        if not methods or not set(methods) <= set(tunable):
            raise ValueError(f"methods must name some of {tunable}, got {methods!r}")
        if not settings.keys() <= SETTINGS.keys():
            raise ValueError(f"settings must be among {list(SETTINGS)}, got {sorted(settings)}")

        shown = [entry for entry in METHODS if entry[0] == "full" or entry[0] in methods]
        offered = {name: sorted({*values, settings.get(name, values[0])})
                   for name, values in SETTINGS.items()}
        width, layers, heads = known[model]
        if shape_sliders:
            shapes = [(w, n) for w in WIDTHS for n in LAYERS]
        else:
            shapes = sorted({(w, n) for _, w, n, _ in MODELS})
        head_counts = {w: [h for h in HEADS if w % h == 0] for w, _ in shapes}
        super().__init__(
            width=width, layers=layers, heads=heads, **settings,
            _title=title,
            _note=" ".join([*(NOTES[key] for key, *_ in shown),
                            "Heads split the width, so their number changes no count."]),
            _shape_sliders=shape_sliders,
            _methods=[{"key": key, "label": label, "setting": setting, "unit": unit,
                       "control": control, "color": COLORS[key],
                       "values": offered.get(setting, [])}
                      for key, label, setting, unit, control in shown],
            _presets=[{"name": name, "width": w, "layers": n, "heads": h}
                      for name, w, n, h in MODELS],
            _precisions=[{"name": name, "bytes": np.dtype(name).itemsize}
                         for name in type(self).precision.values],
            _widths=sorted({w for w, _ in shapes}),
            _layer_counts=sorted({n for _, n in shapes}),
            _head_counts={str(w): counts for w, counts in head_counts.items()},
            _costs={f"{w},{n}": _shared_costs(w, n, head_counts[w]) for w, n in shapes},
        )
        largest = max(cost[key] * max(offered.get(setting, [1])) * np.dtype("float32").itemsize
                      for cost in self._costs.values() for key, _, setting, *_ in METHODS)
        if largest > LARGEST_EXACT_INTEGER:
            raise ValueError(f"{largest:,} bytes is above 2**53 - 1, which a page cannot count "
                             f"exactly; choose smaller settings than {settings}")

    @traitlets.validate("width", "layers", "heads")
    def _check_shape(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = {"width": self._widths, "layers": self._layer_counts,
                   "heads": self._head_counts.get(str(self.width), [])}[name]
        if value not in allowed:
            raise traitlets.TraitError(f"{name} must be one of {allowed}, got {value}")
        return value

    @traitlets.observe("width")
    def _keep_heads_fitting(self, change):
        """As the front end does: another width takes the number of heads next to the one before."""
        allowed = self._head_counts.get(str(self.width), [])
        if allowed and self.heads not in allowed:
            self.heads = min(allowed, key=lambda heads: abs(heads - self.heads))

    def counts(self):
        """`compare_peft_methods` at the current settings, for the methods shown."""
        counts = peft.compare_peft_methods(
            self.width, self.layers, self.heads,
            **{setting: getattr(self, setting) for setting in SETTINGS})
        return {method["key"]: counts[method["key"]] for method in self._methods}

    def fallback(self):
        size = np.dtype(self.precision).itemsize
        rows = []
        for method, count in zip(self._methods, self.counts().values(), strict=True):
            setting = method["setting"]
            rows.append([
                method["label"],
                f"{method['unit']} {getattr(self, setting):,}" if setting else method["unit"],
                f"{count['params']:,}", f"{count['ratio']:.3%}", f"{count['params'] * size:,}"])
        return (f"Width {self.width:,}, {self.layers} layers, {self.heads} heads. {self._note}",
                ["Method", "Setting", "Trainable parameters", "Share of full",
                 f"Bytes per task, {self.precision}"], rows)


def parameter_explorer(model="Llama-2-7B", **settings):
    """All methods and any model shape: the explorer of section 9.5."""
    return ParameterExplorer(model, **settings)


def rank_widget(model="Llama-2-7B", **settings):
    """What LoRA's rank costs: the small explorer of section 9.2."""
    return ParameterExplorer(model, methods=["lora"], shape_sliders=False,
                             title="LoRA rank explorer", **settings)


def bottleneck_widget(model="Llama-2-7B", **settings):
    """What the adapters' bottleneck costs: the small explorer of section 9.3."""
    return ParameterExplorer(model, methods=["adapters"], shape_sliders=False,
                             title="Adapter bottleneck explorer", **settings)


def lengths_widget(model="Llama-2-7B", **settings):
    """What prefix and prompt length cost: the small explorer of section 9.4."""
    return ParameterExplorer(model, methods=["prefix", "prompt"], shape_sliders=False,
                             title="Prefix and prompt length explorer", **settings)


# --------------------------------------------------------------------------- recorded runs

#: Method in small_llama.py -> its name, the method whose colour it has, what its size is called.
RUN_METHODS = {
    "full": ("Full fine-tuning", "full", None),
    "lora-qv": ("LoRA on q and v", "lora", "rank"),
    "lora-mlp": ("LoRA on the MLP", "lora", "rank"),
    "lora-all": ("LoRA on all linear layers", "lora", "rank"),
    "houlsby": ("Adapters, Houlsby", "adapters", "bottleneck"),
    "pfeiffer": ("Adapters, Pfeiffer", "adapters", "bottleneck"),
    "parallel": ("Adapters, parallel", "adapters", "bottleneck"),
    "prefix": ("Prefix tuning", "prefix", "length"),
    "prompt": ("Prompt tuning", "prompt", "length"),
}


class RunExplorer(Widget):
    """Recorded fine-tuning runs: loss over steps, what was learned and forgotten, sampled names.

    Parameters
    ----------
    rows : list of dict
        Runs of kind "report", as `small_llama.load_runs("report")` returns them. The runs of all
        seeds of a setting are shown as one: mean and range.
    before : dict
        The base model before any training, as small_llama.py records it in before.json.

    Attributes
    ----------
    target, method : str
        What is shown; with a kernel running, read or set them from Python.
    size : int
        Rank, bottleneck or length; 0 for full fine-tuning.

    Raises
    ------
    ValueError
        If there are no rows.
    """

    _esm = front_end("runs")

    target = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    size = traitlets.Int().tag(sync=True)

    _runs = traitlets.Dict().tag(sync=True)  # target -> method -> settings by size
    _before = traitlets.Dict().tag(sync=True)
    _targets = traitlets.Dict().tag(sync=True)
    _methods = traitlets.Dict().tag(sync=True)
    _extents = traitlets.Dict().tag(sync=True)  # target -> lowest and highest loss of any curve
    _note = traitlets.Unicode(
        "Recorded runs; `make experiments` repeats them. Names are drawn at temperature 1 by the "
        "first seed's model at its best step.").tag(sync=True)

    def __init__(self, rows, before):
        groups = {}
        for row in rows:
            by_method = groups.setdefault(row["target"], {})
            by_method.setdefault(row["method"], {}).setdefault(row["size"], []).append(row)
        if not groups:
            raise ValueError("rows holds no run; `make experiments` records them")
        runs = {target: {method: [_recorded(sizes[size]) for size in sorted(sizes)]
                         for method in RUN_METHODS if (sizes := by_method.get(method))}
                for target, by_method in groups.items()}
        losses = before["losses"]
        starts = {target: losses[f"{target} validation"] for target in runs}
        extents = {}
        for target, by_method in runs.items():
            values = [loss for settings in by_method.values() for run in settings
                      for key in ("low", "high", "train") for loss in run[key]]
            # Above the start only diverging runs lie: let them leave the picture at the top.
            extents[target] = [min(values), min(max(values), 1.15 * starts[target])]
        target = next(iter(runs))
        method = "lora-qv" if "lora-qv" in runs[target] else next(iter(runs[target]))
        super().__init__(
            target=target, method=method, size=runs[target][method][-1]["size"],
            _runs=runs, _extents=extents, _targets={name: name.capitalize() for name in runs},
            _before={"names": before["names"], "losses": {
                **starts, "base": losses["base validation"],
                **{f"{name} test": losses[f"{name} test"] for name in runs}}},
            _methods={key: {"label": label, "color": COLORS[color], "unit": unit}
                      for key, (label, color, unit) in RUN_METHODS.items()
                      if any(key in by_method for by_method in runs.values())})

    @traitlets.validate("target", "method")
    def _check_choice(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = self._targets if name == "target" else self._methods
        if allowed and value not in allowed:
            raise traitlets.TraitError(f"{name} must be one of {list(allowed)}, got {value!r}")
        return value

    def fallback(self):
        rows = [[self._methods[method]["label"], str(run["size"] or "–"), f"{run['trainable']:,}",
                 f"{run['test'][0]:.2f}", f"{run['base'][0]:.2f}"]
                for method, settings in self._runs[self.target].items() for run in settings]
        return (f"{self._targets[self.target]} names, loss in nats per character, test part; mean "
                "over seeds. The loss on the names it knew before shows what was forgotten.",
                ["Method", "Size", "Trainable", "New names", "Names known before"], rows)


def run_explorer():
    """The recorded runs of experiments/small_llama.py: the widget of section 9.7."""
    return RunExplorer(small_llama.load_runs("report"), small_llama.load_before())


def playground_settings():
    """What the playground's page knows before Python runs: the choices, what full training gave.

    It stands here, since Python in the page has none of what this module needs.
    """
    from book_pages import playground  # whose files the other widgets do without
    full = small_llama.summarise(small_llama.load_runs("report", method="full"))
    return {"choices": playground.CHOICES, "parameters": full[0]["trainable"],
            "full": {row["target"]: row["best_test"] for row in full},
            "curves": {row["target"]: _held_out(row["target"]) for row in full},
            "methods": {key: {"label": label, "unit": unit, "color": COLORS[color],
                              "sizes": small_llama.METHODS[key][1]}
                        for key, (label, color, unit) in RUN_METHODS.items()}}


def _held_out(target):
    """[step, loss on held-out names] of recorded full fine-tuning, the mean over its seeds."""
    curves = [run["curve"] for run in small_llama.load_runs("report", method="full", target=target)]
    losses = np.mean([curve["validation"] for curve in curves], axis=0)
    return [[step, loss] for step, loss in zip(curves[0]["steps"], _short(losses))]


def _recorded(runs):
    """One setting over its seeds, as the front end draws it."""
    curves = {key: np.array([run["curve"][key] for run in runs]) for key in ("validation", "train")}
    first = min(runs, key=lambda run: run["seed"])

    def mean_and_sd(key):
        values = [run[key] for run in runs]
        sd = np.std(values, ddof=1) if len(values) > 1 else None
        return [_short(np.mean(values)), None if sd is None else _short(sd)]

    return {
        **{key: first[key] for key in ("size", "trainable", "file_bytes", "lr")},
        "seeds": len(runs), "steps": first["curve"]["steps"], "names": first["names"],
        "validation": _short(curves["validation"].mean(axis=0)),
        "low": _short(curves["validation"].min(axis=0)),
        "high": _short(curves["validation"].max(axis=0)),
        "train": _short(curves["train"].mean(axis=0)),
        "test": mean_and_sd("best_test"), "base": mean_and_sd("best_base"),
    }


def _short(values):
    """Four decimals are more than a curve shows, and half the size in the page."""
    return np.round(values, 4).tolist()


# --------------------------------------------------------------------- memory of real models

RANKS = SETTINGS["lora_rank"]
#: The GB in a GPU's name -> a card that is sold so, and the GiB of it that CUDA gives to programs,
#: the least that the thread named beside it or our measured runs show; None: no report known.
GPUS = {
    8: ("RTX 4060", 7.72),  # github.com/longxiang-ai/TSGS/issues/6
    12: ("RTX 3060", 11.75),  # github.com/smy20011/dreambooth-gui/issues/78
    16: ("T4", 14_912 / 1024),  # data/memory_runs.json
    24: ("RTX 4090", 23.52),  # github.com/Soul-AILab/SoulX-FlashTalk/issues/5
    40: ("A100", 39.50),  # github.com/TianheWu/CoSeR/issues/10
    48: ("L40S", 44.42),  # github.com/stepfun-ai/Step-Video-T2V/issues/8
    80: ("A100, H100", 79.11),  # github.com/vllm-project/vllm/issues/27508
    96: ("RTX PRO 6000", 94.97),  # github.com/antirez/ds4/issues/431
    141: ("H200", None),
}
GPU_BYTES = {size: round((gib or 0) * 2**30) or size * accounting.GB
             for size, (_, gib) in GPUS.items()}
BASE_NAMES = {
    "float32": "float32", "bfloat16": "bfloat16", "int8": "8 bits (int8)",
    "nf4": "4 bits (NF4)", "nf4+dq": "4 bits (NF4, double quantization: QLoRA)",
    "fp8": "8 bits (FP8, blocks of 128 × 128)", "mxfp4": "4 bits (MXFP4, experts alone)",
    **{base: f"4 bits ({base.split('-')[0].upper()}, groups of {form['settings']['group']})"
       for base, form in accounting.FORMATS.items() if "group" in form.get("settings", {})},
    "file": "as the pasted file says"}
SHARDING_NAMES = {"ddp": "nothing (DDP)", "zero1": "optimizer states (ZeRO 1)",
                  "zero2": "gradients, too (ZeRO 2)", "zero3": "everything (ZeRO 3)",
                  "fsdp": "everything (FSDP)"}
CARDS = [1, 2, 4, 8, 16, 32, 64]
ITEM_COLORS = {"frozen weights": "#8a94a3", "trainable weights": "#0072b2",
               "32-bit master copy": "#56b4e9", "16-bit working copy": "#56b4e9",
               "gradients": "#e69f00", "optimizer state": "#d55e00",
               **dict.fromkeys(("inside the layers", "layer inputs"), "#009e73"),
               "one layer, recomputed": "#7fcdb4", "logits and their gradient": "#cc79a7",
               "context and fragments": "#f0e442"}
MEMORY_NOTE = (
    "Activations are for training without autocast, attention that never writes out its weights, "
    "and a loss over all positions; a model whose activation function is written out in steps, "
    "like GPT-2's, keeps more. Context and fragments are what a process takes besides its "
    "tensors: fitted to runs with LoRA and checkpointing on one T4, see Numbers in the wild. No "
    "measured run covers other cards, full fine-tuning, 8 bits, or training without "
    "checkpointing. What a card holds is what CUDA was seen to report: its name counts in GiB, of "
    "2\u00b3\u2070 bytes, and the driver keeps some. Of several cards, what they exchange is not "
    "counted. Pages of a paged optimizer may move to the computer's memory; here they stay on the "
    "card. The longest text is what memory allows, whatever the model was trained for. Not "
    "included: dropout masks, temporary buffers. LoRA's own parameters are in 32 bits, as PEFT "
    "keeps them, but for a classification head that is copied from a base in 16. A base in 4 or 8 "
    "bits is prepared with prepare_model_for_kbit_training. Every model has the head of the class "
    "that its config.json names.")
#: Tokens of a sequence, and sequences, that the sliders offer.
LENGTHS = [2**n for n in range(6, 18)]
BATCHES = [2**n for n in range(10)]


def memory_record(model):
    """All that the front end multiplies for one model, counted by accounting.py.

    Returns
    -------
    dict
        `total`: parameters. `units`: pairs of target module and LoRA parameters at rank 1, in the
        model's order. `saved`: parameters that PEFT trains as a copy besides, a classification
        head. `frozen`: format -> bytes of the frozen weights, part by part. `head`: the
        language-model head, which all-linear leaves out. `targets`: PEFT's default target modules.
        `not_stored`: format -> why the model has none of it, `frozen` is empty there; `file`: of
        the base that its file tells of, the `labels` and whether it is `narrow`, or none.
        `loaded`: format -> bytes without k-bit preparation. `cache`: see `serving.cache_record`; or
        none, and `no_cache`, the reason.
        `notes`: what one must know to read the numbers. `kept`: see :func:`_kept_record`; or none,
        and `why_not`, the reason for that. `trained`: what an optimizer's state is counted from:
        `full` and `saved`, of every tensor its shape, whether it may be a hidden layer's, and how
        many there are; `lora`, for each target module its inputs and outputs, and how many.
    """
    table = accounting.FAMILIES[model.family]
    fused = [*table.get("fused", []), *table.get("refused", []),
             *(m.name.split(".")[-2] for m in model.modules  # convolutions are not counted
               if m.kind == "stack" and m.name.endswith(".weight"))]
    groups = {part for m in model.modules for part in m.name.split(".")[:-1]}
    found, _ = accounting.find_modules(
        model, [name for name in accounting.linear_names(model)  # a number means blocks, too
                if name not in fused and name not in groups and not name.isdigit()
                and not name.endswith(tuple(accounting.saved_heads(model)))],
        modules_to_save=accounting.saved_heads(model))
    leaves = list(dict.fromkeys(module.name.split(".")[-1] for module in found))
    one = {leaf: accounting.count_lora(model, 1, [leaf]) for leaf in leaves}
    saved = one[leaves[0]].copied
    head = model.head.split(".")[-1] if model.head else None
    return {
        "total": model.num_parameters, "saved": saved,
        "units": [[leaf, counted.trainable - saved] for leaf, counted in one.items()],
        **_frozen_record(one[leaves[0]]),
        "head": head, "notes": list(model.notes),
        "targets": table.get("lora")
        or [leaf for leaf in leaves if leaf != head],
        **_cache_record(model),
        "why_not": (why_not := accounting.why_not_estimated(model)),
        "kept": None if why_not else _kept_record(model, one),
        "trained": {
            "full": _shapes(accounting.trained_tensors(accounting.count_full(model))),
            "saved": _shapes(tensor for tensor in accounting.trained_tensors(one[leaves[0]])
                             if tensor[2]),
            "lora": {leaf: [[*sizes, count] for sizes, count in Counter(
                m.sizes for m in found if m.name.split(".")[-1] == leaf).items()]
                for leaf in leaves},
        },
    }


def _frozen_record(counted):
    frozen, why = {}, {}
    for base in accounting.BASE_FORMATS:
        try:
            frozen[base] = [item.bytes for item in accounting.frozen_items(counted, base)]
        except accounting.NotStored as error:
            frozen[base], why[base] = [], error.why
    stored = counted.model.stored
    loaded = {base: sum(item.bytes for item in accounting.frozen_items(
        counted, base, prepared=False)) for base in frozen if base not in why}
    return {"frozen": frozen, "not_stored": why, "loaded": loaded, "file": stored and {
        "labels": _labels(counted, "file"), "narrow": accounting.is_narrow(counted.model, "file")}}


def _cache_record(model):
    try:
        return {"cache": serving.cache_record(model), "no_cache": ""}
    except accounting.NotEstimated as why:
        return {"cache": None, "no_cache": str(why)}


def _labels(counted, base):
    """What the parts of a base are called, each with a capital."""
    return [item.label[0].upper() + item.label[1:]
            for item in accounting.frozen_items(counted, base)]


def _shapes(tensors):
    """Those alike counted together, in the order of their first."""
    alike = Counter((shape, hidden) for shape, hidden, _ in tensors)
    return [[list(shape), hidden, count] for (shape, hidden), count in alike.items()]


def _kept_record(model, one):
    """What activations are counted from, by the rule of `accounting.activation_estimate`.

    Returns
    -------
    dict
        "narrow", on a base in 16 bits, and "wide", on any other. Each: bytes for each token, of all
        layers together: `always`; `full`, besides where everything trains; `inputs`, pairs of
        target modules and what is kept besides if any of them trains; `inner`, target module ->
        what LoRA keeps at rank 1; `layer_inputs`, with checkpointing; `outside` the layers;
        `loss`, at the peak of the logits, and `logits`, of them alone. And how many `layers` there
        are.
    """
    return {kind: _kept_on(base, model, one)
            for kind, base in (("narrow", "bfloat16"), ("wide", "float32"))}


def _kept_on(base, model, one):
    number, attended = (accounting.KEPT_BYTES["number"][base], accounting.KEPT_BYTES["attended"])
    always, inputs = accounting.kept_per_token(model, base)
    shared = {}  # target modules of one input -> its bytes in all layers
    for names, numbers in inputs:
        leaves = [leaf for name in names if (leaf := name.split(".")[-1]) in one]
        # LoRA in 32 bits copies what has 16, each layer for itself.
        for group in [[leaf] for leaf in leaves] if number < 4 else [leaves] * bool(leaves):
            shared[tuple(group)] = shared.get(tuple(group), 0) + 4 * numbers
    layers = sum(model.symbols.get(key, 0) for key in ("layers", "decoder_layers"))
    vocabulary = model["vocab"] if model.head else 0
    return {
        "always": number * always + attended * model["heads"] * layers,
        "full": number * sum(numbers for _, numbers in inputs),
        "inputs": [[list(leaves), size] for leaves, size in shared.items()],
        "inner": {leaf: 4 * sum(
            shape[0] for name, shape in counted.tensors.items() if ".lora_A" in name)
            for leaf, counted in one.items()},
        "layers": layers, "layer_inputs": number * model["d"] * layers,
        "outside": accounting.kept_outside(model, base),
        "loss": accounting.KEPT_BYTES["logit"][base] * vocabulary, "logits": number * vocabulary,
    }


class MemoryExplorer(Widget):
    """Memory to fine-tune a real model in full and with LoRA, against the memory of a GPU.

    Parameters
    ----------
    model : str
        Name of the model to start with, one of `accounting.known_models()`.
    settings
        Any of the attributes below, to start with.

    Attributes
    ----------
    targets : list of str
        LoRA's target modules, by the last part of their name.
    rank : int
        LoRA's rank.
    base : str
        Format of the frozen weights under LoRA, one of `accounting.BASE_FORMATS`.
    convention : str
        How full fine-tuning keeps its numbers, one of `accounting.CONVENTIONS`. LoRA's own are
        always in 32 bits, as PEFT keeps them.
    optimizer : str
        One of `accounting.OPTIMIZERS`.
    gpu : int
        The GB in the GPU's name, one of `GPUS`.
    cards : int
        How many of these train together, one of `CARDS`.
    sharding : str
        What they divide among them, one of `accounting.SHARDINGS`.
    length, batch : int
        Tokens of each sequence, and sequences on each card, of which activations are kept.
    checkpointing : bool
        Whether layers keep their inputs alone and are computed again in the backward pass.
    adapters : int
        How many such adapters a server holds.

    Raises
    ------
    ValueError
        An unknown model, or a target module that it does not have.
    """

    _esm = front_end("bases", "serving", "model_config", "memory")

    model = traitlets.Unicode().tag(sync=True)
    targets = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rank = traitlets.Int(8, min=1).tag(sync=True)
    base = traitlets.Enum(accounting.BASE_FORMATS, "bfloat16").tag(sync=True)
    convention = traitlets.Enum(list(accounting.CONVENTIONS), "mixed").tag(sync=True)
    optimizer = traitlets.Enum(list(accounting.OPTIMIZERS), "adamw").tag(sync=True)
    gpu = traitlets.Enum(list(GPUS), 24).tag(sync=True)
    cards = traitlets.Enum(CARDS, 1).tag(sync=True)
    sharding = traitlets.Enum(list(accounting.SHARDINGS), "ddp").tag(sync=True)
    length = traitlets.Int(512, min=1).tag(sync=True)
    batch = traitlets.Int(1, min=1).tag(sync=True)
    checkpointing = traitlets.Bool(False).tag(sync=True)
    adapters = traitlets.Int(1, min=1).tag(sync=True)

    _records = traitlets.List().tag(sync=True)  # pairs of name and record, in order
    _states = traitlets.Dict().tag(sync=True)  # see _states_record
    _overhead = traitlets.Dict(accounting.OVERHEAD).tag(sync=True)
    _families = traitlets.Dict().tag(sync=True)  # the table that reads a pasted config.json
    _rules = traitlets.Dict().tag(sync=True)  # what else reading one takes
    _ranks = traitlets.List(RANKS).tag(sync=True)
    _lengths = traitlets.List(LENGTHS).tag(sync=True)
    _batches = traitlets.List(BATCHES).tag(sync=True)
    _many = traitlets.List([2**n for n in range(11)]).tag(sync=True)
    _gpus = traitlets.List([
        [str(size), f"{size} GB ({card})" + (
            f": holds {GPU_BYTES[size] / accounting.GB:.1f} GB" if gib else "")]
        for size, (card, gib) in GPUS.items()]).tag(sync=True)
    _gpu_bytes = traitlets.Dict({str(size): n for size, n in GPU_BYTES.items()}).tag(sync=True)
    _cards = traitlets.List([[str(n), f"{n}" if n > 1 else "1 card"] for n in CARDS]).tag(sync=True)
    _shardings = traitlets.List([[key, SHARDING_NAMES[key]] for key in accounting.SHARDINGS]).tag(
        sync=True)
    _bases = traitlets.List().tag(sync=True)
    _conventions = traitlets.List().tag(sync=True)
    _optimizers = traitlets.List().tag(sync=True)
    _frozen_labels = traitlets.Dict().tag(sync=True)
    _colors = traitlets.Dict(ITEM_COLORS).tag(sync=True)
    _lora_color = traitlets.Unicode(COLORS["lora"]).tag(sync=True)
    _note = traitlets.Unicode(MEMORY_NOTE).tag(sync=True)

    def __init__(self, model="Llama-2-7B", **settings):
        known = accounting.known_models()
        if model not in known:
            raise ValueError(f"model must be one of {list(known)}, got {model!r}")
        models = {name: accounting.load_model(name) for name in known}
        records = {name: memory_record(each) for name, each in models.items()}
        settings.setdefault("targets", records[model]["targets"])
        leaves = [leaf for leaf, _ in records[model]["units"]]
        if missing := set(settings["targets"]) - set(leaves):
            raise ValueError(f"{model} has no modules {sorted(missing)}; its linear layers are "
                             f"{leaves}")
        if reason := records[model]["not_stored"].get(settings.get("base", "bfloat16")):
            raise ValueError(f"base {settings['base']!r} of {model}: {reason}")
        lora = accounting.count_lora(models["Llama-2-7B"], 1, ["q_proj"])
        super().__init__(
            model=model, **settings,
            _records=[[name, record] for name, record in records.items()],
            _states=_states_record(accounting.count_full(models[model])),
            _families=accounting.FAMILIES,
            _rules=reading_rules(),
            _bases=[[base, BASE_NAMES[base]] for base in accounting.BASE_FORMATS],
            _conventions=[[name, f"{sum(sizes):g} bytes: {how.split(' (')[0]}"]
                          for name, (*sizes, how) in accounting.CONVENTIONS.items()],
            _optimizers=[[name, row.label] for name, row in accounting.OPTIMIZERS.items()],
            _frozen_labels={base: _labels(lora, base) for base in accounting.FORMATS
                            if base not in records["Llama-2-7B"]["not_stored"]}
            | {"mxfp4": [*(label[0].upper() + label[1:]
                           for label, *_ in accounting.FORMATS["mxfp4"]["parts"]),
                         "Frozen, not quantized"]},
        )

    @traitlets.observe("model")
    def _keep_targets_fitting(self, change):
        """As the front end does: the chosen modules that the model has, or else its usual ones."""
        record = dict(self._records).get(self.model)
        if record:
            kept = [leaf for leaf in self.targets if leaf in dict(record["units"])]
            self.targets = kept or record["targets"]
            if not record["frozen"][self.base]:
                self.base = "bfloat16"

    def bills(self):
        """`accounting.memory_bill` on each card at the current settings, full and LoRA.

        Only for the listed models: a configuration pasted into the page is not known here.
        """
        model = accounting.load_model(self.model)
        lora = accounting.count_lora(model, self.rank, self.targets)
        bills = {
            "full": accounting.memory_bill(accounting.count_full(model), optimizer=self.optimizer,
                                           convention=self.convention),
            "lora": accounting.memory_bill(lora, base=self.base, optimizer=self.optimizer),
        }
        return {side: accounting.bill_per_card(bill, self.cards, self.sharding)
                for side, bill in bills.items()}

    def activations(self):
        """`accounting.activation_estimate` at the current settings, as :meth:`bills`."""
        model = accounting.load_model(self.model)
        settings = {"batch": self.batch, "length": self.length, "checkpointing": self.checkpointing}
        lora = accounting.count_lora(model, self.rank, self.targets)
        return {
            "full": accounting.activation_estimate(accounting.count_full(model), **settings),
            "lora": accounting.activation_estimate(lora, base=self.base, **settings),
        }

    def overheads(self):
        """`accounting.overhead` at the current settings, as :meth:`bills`."""
        kept = self.activations()
        return {name: accounting.overhead(bill, kept[name]) for name, bill in self.bills().items()}

    def fallback(self):
        items = [(name, item) for bills in (self.bills(), self.activations())
                 for name, bill in bills.items() for item in bill.items]
        rows = [[name, f"{item.label}", f"{item.bytes / accounting.GB:,.2f}"]
                for name, item in [*items, *self.overheads().items()]]
        return (f"{self.model}: memory in GB (10^9 bytes); LoRA of rank {self.rank} on "
                f"{', '.join(self.targets)}; {self.batch} x {self.length} tokens. {self._note}",
                ["Method", "Item", "GB"], rows)


def reading_rules():
    """What the front end needs besides the table to read a configuration as Python does."""
    return {"towers": list(reading.TOWERS), "missing": reading.MISSING,
            "old_kinds": reading.OLD_KINDS, "outer_keys": list(reading.OUTER_KEYS),
            "vocabulary": list(reading.VOCABULARY_TASKS),
            "saved": reading.SAVED_HEADS, "notes": reading.NOTES, "reads": reading.READS.pattern,
            "other_files": [list(each) for each in reading.OTHER_FILES],
            "not_estimated": accounting.NOT_ESTIMATED, "kept": accounting.KEPT_BYTES,
            "bases": {"formats": bases.FORMATS, "quantized": bases.QUANTIZED, "all": bases.ALL,
                      "blocks": bases.BLOCKS, "reasons": bases.REASONS,
                      "most_patterns": bases.MOST_PATTERNS,
                      "most_compared": bases.MOST_COMPARED},
            "serving": {"caches": serving.CACHES, "tasks": serving.TASKS,
                        "reasons": serving.REASONS, "odd_keys": serving.ODD_KEYS}}


def memory_explorer(model="Llama-2-7B", **settings):
    """Memory to fine-tune real models: the widget of section 9.5."""
    return MemoryExplorer(model, **settings)


def _states_record(full):
    """What the front end counts states from.

    Returns
    -------
    dict
        `conventions`: name -> label and bytes per trainable parameter of every line of a bill
        without frozen weights and optimizer's state, and the `width` of each number of that state.
        `narrow`: the bases whose layers work on 16 bits. `optimizers`: the table. `eight_bits`: the
        size of a block, and of the smallest tensor, of those that keep 8 bits. `divided`: sharding
        -> the lines that cards divide.
    """
    def one(convention):
        *lines, _ = accounting.memory_bill(full, convention=convention).items
        return {"lines": [[item.label, item.bytes / full.trainable] for item in lines],
                "width": accounting.CONVENTIONS[convention][2] / 2}

    return {"conventions": {name: one(name) for name in accounting.CONVENTIONS},
            "optimizers": {name: asdict(row) for name, row in accounting.OPTIMIZERS.items()},
            "narrow": [base for base in accounting.FORMATS
                       if accounting.is_narrow(full.model, base)],
            "eight_bits": [optimizers.EIGHT_BIT_BLOCK, optimizers.EIGHT_BIT_SMALLEST],
            "divided": {name: list(lines) for name, lines in accounting.SHARDINGS.items()}}


# ----------------------------------------------------------------------------------- helpers


def _shared_costs(width, layers, head_counts):
    """The unit costs of one shape, having seen that they are the same for every head count."""
    first, *others = [unit_costs(width, layers, heads) for heads in head_counts]
    if any(costs != first for costs in others):
        raise ValueError(f"at width {width} and {layers} layers the counts depend on the number "
                         f"of heads; give the front end costs per head count too")
    return first


def _text_table(caption, columns, rows):
    """The table that stands in for a widget, for a terminal."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in [columns, *rows]]
    return "\n".join([caption, "", *lines])
