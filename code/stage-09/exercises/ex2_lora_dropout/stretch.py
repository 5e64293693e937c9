"""The stretch goal of exercise 2: dropout against overfitting."""

import matplotlib.pyplot as plt
import numpy as np

import llama
import names
import peft
import training
from book_pages import figures  # noqa: F401 (the book's style)
from exercises.stretch_goals import pretrained


def dropout_runs(layer: type, rates=(0.0, 0.1, 0.3, 0.5), few: int = 150, steps: int = 150
                 ) -> dict[float, dict[str, list[float]]]:
    """LoRA of rank 16 on every linear layer, on `few` names: loss on these and on new ones."""
    few_names = names.load_names("turkish", "train")[:few]
    new_names = names.load_names("turkish", "validation")
    runs = {}
    for rate in rates:
        model, rng, layers = pretrained(), np.random.default_rng(1), []
        for name, module in model.modules().items():
            if name.endswith(llama.PROJECTIONS):
                wrapped = peft.LoRALinear(module.weight, lora_rank=16, lora_alpha=32.0, rng=rng)
                wrapped.lora = layer(wrapped.in_features, wrapped.out_features, 16, 32.0, rate,
                                     dtype=np.float32, rng=rng)
                layers.append(wrapped.lora)
                model.replace(name, wrapped)
        curve = {"steps": [], "seen": [], "new": []}

        def watch(event, model=model, layers=layers, curve=curve):
            if event.step % (5 if event.step < 50 else 25) == 0:  # finely where the best one is
                for lora in layers:
                    lora.training = False
                curve["steps"].append(event.step)
                curve["seen"].append(training.evaluate(model, few_names))
                curve["new"].append(training.evaluate(model, new_names))
                for lora in layers:
                    lora.training = True

        training.fit(model, names.batches(few_names, 32, np.random.default_rng(0)), steps=steps,
                     lr=5e-3, callbacks=[watch])
        runs[rate] = curve
    return runs


def draw_dropout(runs: dict[float, dict[str, list[float]]]) -> None:
    """Left the losses on seen and new names over the steps, right their gap by rate."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=[1.6, 1])
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(runs)))
    for (rate, run), color in zip(runs.items(), colors, strict=True):
        left.plot(run["steps"], run["new"], color=color, label=f"p = {rate:g}")
        left.plot(run["steps"], run["seen"], color=color, ls="--", lw=1.2)
        right.bar(f"{rate:g}", run["new"][-1] - min(run["new"]), color=color)
    left.set(title="New names (solid), seen names (dashed)", xlabel="step",
             ylabel="loss (nats per character)")
    left.legend()
    right.set(title="What overfitting cost", xlabel="rate p",
              ylabel="last loss − best loss, new names")
    for ax in (left, right):
        ax.grid(True, axis="y")
        ax.set_axisbelow(True)
    plt.show()
