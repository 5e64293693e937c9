"""Where the memory goes in training: states, activations, what the process takes besides.

States are exact under a stated convention; activations and the process's overhead are estimates,
which `measured.py` sets beside measured runs. How a frozen base lies in memory is in `bases.py`.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from real_models.bases import GB, Item, frozen_items, is_narrow
from real_models.count import Count
from real_models.families import FAMILIES
from real_models.methods import METHODS
from real_models.optimizers import OPTIMIZERS, Optimizer, by_shape, state_bytes
from real_models.reading import Model, Module, is_inside, paths_to, saved_heads
from real_models.rules import one_of, positive

# Why activations are not estimated, by the part of a family's table that says so.
NOT_ESTIMATED = {
    "parts": "it consists of several parts ({named}), and only one reads text",
    "lists": "some of its layers are no attention ({named}), and what those keep is not known here",
    "convolution": "it has convolutions ({named}), which read pictures, sound or states",
    "active": "how many experts a token meets is not known here",
}
# Bytes for each *trainable* parameter: its weight, its gradient, Adam's two averages, a second copy
# of the weight. The conventions differ in what they keep in 16 and what in 32 bits: say which one.
CONVENTIONS: dict[str, tuple[float, float, float, float, str]] = {
    "fp32": (4, 4, 8, 0, "everything in 32 bits"),
    "mixed": (2, 2, 8, 4, ("16-bit weights and gradients, a 32-bit master copy "
                          "(Rajbhandari et al., 2020, section 3.1)")),
    "amp": (4, 4, 8, 2, ("32-bit weights and gradients, a 16-bit copy of the weights "
                        "(PyTorch AMP as Hugging Face counts it)")),
    "no-master": (2, 2, 8, 0, "16-bit weights and gradients, 32-bit Adam, no master copy"),
    "bf16": (2, 2, 4, 0, "everything in 16 bits"),
}

@dataclass(frozen=True)
class Bill:
    """Where the memory goes, item by item; and what the bill leaves out."""

    items: tuple[Item, ...]
    leaves_out: str
    other_peak: int = 0  # a smaller one, at another time

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def __str__(self) -> str:
        rows = [f"{item.label:<28}{item.bytes / GB:>10.3f} GB   {item.why}" for item in self.items]
        total = f"{'total':<28}{self.bytes / GB:>10.3f} GB"
        return "\n".join([*rows, total, f"not included: {self.leaves_out}"])


def memory_bill(counted: Count, *, convention: str = "fp32", base: str = "bfloat16",
                optimizer: str = "adamw", prepared: bool = True) -> Bill:
    """The memory of a model's states in training, exact under a stated convention.

    Parameters
    ----------
    counted : Count
        What is trained: the answer of `count_full`, `count_lora`, …
    convention : str
        One of `CONVENTIONS`: how the trainable parameters are kept. PEFT keeps adapters in 32 bits
        ("fp32") even on a 16-bit base; only what it copies from the base (`modules_to_save`, a
        classification head) or trains in place there (biases) stays in 16 bits.
    base : str
        How the frozen weights are kept, one of `BASE_FORMATS`. int8 and NF4 apply to the linear
        layers except the head. "nf4+dq" is NF4 with double quantization [Dettmers et al., 2023].
    prepared : bool
        Whether PEFT's `prepare_model_for_kbit_training` has run, see :func:`frozen_items`.
    optimizer : str
        One of `optimizers.OPTIMIZERS`. Each number that it remembers has the convention's bytes,
        but for what it keeps in 8 bits.

    Raises
    ------
    ValueError
        An unknown convention, base or optimizer; one that needs to know the shapes of the trained
        tensors, for a method that trains others than it saves.
    """
    one_of("convention", convention, CONVENTIONS)
    one_of("optimizer", optimizer, OPTIMIZERS)
    weight, gradient, states, copy, how = CONVENTIONS[convention]
    n = counted.trainable
    items = [*frozen_items(counted, base, prepared=prepared)]
    # Copies of a 16-bit base stay in 16 bits, and so do their gradients and averages.
    wide = not is_narrow(counted.model, base, prepared)
    halved = 0 if convention != "fp32" or wide else counted.copied
    few = f"; {halved:,} of them, the base model's own, half as many" if halved else ""
    items.append(Item("trainable weights", n * weight - 2 * halved,
                      f"{n:,} parameters, {weight} bytes each: {how}{few}"))
    if copy:
        label = "32-bit master copy" if copy == 4 else "16-bit working copy"
        items.append(Item(label, n * copy, f"{copy} bytes for each trainable parameter"))
    items.append(Item("gradients", n * gradient - 2 * halved,
                      f"{gradient} bytes for each trainable parameter{few}"))
    items.append(_optimizer_item(counted, OPTIMIZERS[optimizer], states / 2, halved, few))
    return Bill(tuple(items), "activations, temporary buffers, fragmentation, the CUDA context")


def _optimizer_item(counted: Count, optimizer: Optimizer, width: float, halved: int,
                    few: str) -> Item:
    """What the optimizer keeps, each number in `width` bytes, of `halved` ones in half of them."""
    width = int(width)
    if not by_shape(optimizer):
        each = optimizer.moments * width
        more = f", {each} bytes for each trainable parameter{few}" * bool(each)
        return Item("optimizer state", each * counted.trainable - each * halved // 2,
                    optimizer.how + more)
    tensors = trained_tensors(counted)
    if sum(math.prod(shape) for shape, _, _ in tensors) != counted.trainable:
        raise ValueError(f"what {optimizer.label} keeps depends on the shapes of what is trained, "
                         f"and {counted.method} trains others than it saves, which are not known "
                         "here; take AdamW, Lion or SGD")
    return Item("optimizer state", sum(
        state_bytes(optimizer, shape, width // 2 if copied and halved else width, hidden)
        for shape, hidden, copied in tensors), optimizer.how)


def trained_tensors(counted: Count) -> list[tuple[tuple[int, ...], bool, bool]]:
    """Of each trained tensor: its shape, whether it may be a hidden layer's, whether it was the
    base model's.

    Embeddings and heads are no hidden layers. Only what is saved is known here.
    """
    model, prefix = counted.model, "" if counted.method == "full" else "base_model.model."
    outer = {prefix + m.weight_name for m in model.modules
             if m.kind == "embedding" or m.name == model.head or is_inside(
                 m.name, saved_heads(model))}
    return [(tuple(shape), name not in outer and "embedding" not in name.rpartition(".")[2],
             name in counted.base_tensors)
            for name, shape in counted.tensors.items() if name not in counted.frozen_tensors]


#: What several cards divide among them; all else each of them has whole.
SHARDINGS: dict[str, tuple[str, ...]] = {
    "ddp": (), "zero1": ("optimizer state", "32-bit master copy"),
    "zero2": ("optimizer state", "32-bit master copy", "gradients"),
    **dict.fromkeys(("zero3", "fsdp"), ("",)),  # every line
}


def bill_per_card(bill: Bill, cards: int, sharding: str = "ddp") -> Bill:
    """What of a :func:`memory_bill` each of several cards holds.

    With DDP each card has everything. ZeRO divides the optimizer's states (stage 1), the gradients
    as well (2), and all weights, frozen ones too (3) [Rajbhandari et al., 2020, section 5]; FSDP
    divides as stage 3 does, if it shards fully.
    """
    positive("cards", cards)
    one_of("sharding", sharding, SHARDINGS)
    if cards == 1:
        return bill
    divided = SHARDINGS[sharding]
    items = [replace(item, bytes=-(-item.bytes // cards), why=f"1/{cards} of: {item.why}")
             if "" in divided or item.label in divided else item for item in bill.items]
    return Bill(tuple(items), bill.leaves_out + ", what cards exchange: buckets of gradients" + (
        ", layers gathered from all cards" if "" in divided else ""))


class NotEstimated(ValueError):
    """What is asked for is right, and nothing here can estimate it."""


def activation_estimate(counted: Count, batch: int = 1, length: int = 512, *,
                        checkpointing: bool = False, attention: str = "flash",
                        base: str = "bfloat16") -> Bill:
    """What the forward pass keeps for the backward pass: an estimate, unlike everything else here.

    Frameworks decide for themselves what they keep. The rule here is for PyTorch without autocast,
    with a loss over all positions. Numbers have 16 bits where the base's embeddings and norms have
    (`base`: see `bases.is_narrow`), and 32 elsewhere: all layers work on what these give. Always
    kept, because nonlinearities, attention and norms need them again: the outputs of the linear
    layers, the product inside a gated MLP, the input of every norm (RMSNorm's in 32 bits). Kept
    only where a weight trains: that layer's input; for LoRA in 32 bits on a 16-bit base, a copy in
    32 bits for each layer. So a frozen weight saves something, but the gradient still passes
    through everything below it; that is why LoRA hardly shrinks this part, and with many targets
    on a 16-bit base enlarges it. Checkpointing does shrink it: it keeps each layer's input, and
    computes one layer at a time again.

    Attention that never writes out its weights ("flash") keeps one 32-bit number per head and
    token. "eager" attention keeps `heads * length` of them per token, and in its backward pass
    holds about four arrays of that shape at once. An activation function written out in
    elementary steps, like GPT-2's, keeps several times what a fused one does: there this is too
    low.

    With checkpointing the larger of two peaks counts, see `_kept_items`. `measured.py` compares
    all this with measured runs.

    Returns
    -------
    Bill
        Its `other_peak` has the bytes of the smaller peak, see :func:`overhead`.

    Raises
    ------
    ValueError
        A batch or length that is no positive whole number.
    NotEstimated
        A model of which :func:`why_not_estimated` says that what it keeps is not known.
    """
    if reason := why_not_estimated(counted.model):
        raise NotEstimated(f"activations of {counted.model.family} are not estimated: {reason}")
    tokens = positive("batch", batch) * positive("length", length)
    one_of("attention", attention, ("flash", "eager"))
    base = kept_base(counted.model, base)
    items, other_peak = _kept_items(counted, tokens, length, checkpointing, attention, base)
    known = f"what {counted.method} computes inside a module, " * (
        counted.method in {row.name for row in METHODS.values()})
    return Bill(tuple(items), f"{known}dropout masks, temporary buffers: this is an estimate",
                other_peak)


def _kept_items(counted: Count, tokens: int, length: int, checkpointing: bool, attention: str,
                base: str) -> tuple[list[Item], int]:
    """What is kept, item by item, and the bytes of the smaller of two peaks.

    The loss is where the logits weigh most. At its peak, in the backward pass of transformers'
    `ForCausalLMLoss`, there are four arrays of their shape: the logits themselves, in 16 bits from
    a 16-bit head; their log-softmax, its gradient and the gradient of their 32-bit copy, each in
    32 bits. That is 14 bytes for each logit, and 16 where the head is in 32 bits. Only the logits
    themselves are still there when the first layer is computed again, if the training loop holds
    the model's output: so of these two peaks the larger one counts, and the bill has it alone.
    """
    model = counted.model
    layers = sum(model.symbols.get(key, 0) for key in ("layers", "decoder_layers"))
    number, values = KEPT_BYTES["number"][base], _kept_by(counted, base)
    outside = kept_outside(model, base)
    scores = tokens * model["heads"] * (length if attention == "eager" else 1)
    attended = KEPT_BYTES["score"][base] if attention == "eager" else KEPT_BYTES["attended"]
    inside = round(tokens * number * values) + attended * scores * layers
    loss = KEPT_BYTES["logit"][base] * tokens * model["vocab"] if model.head else 0
    if not checkpointing:
        items = [Item("inside the layers", inside + outside * tokens,
                      f"{layers} layers, {inside / tokens / layers:,.0f} bytes per token each")]
        loss_alone, layer = True, 0
    else:
        items = [Item("layer inputs", tokens * (number * model["d"] * layers + outside),
                      f"{layers} layers, {model['d']} {8 * number}-bit numbers per token")]
        layer = inside // layers
        if attention == "eager":  # by then the MLP's half of the layer is gone
            layer = max(layer, KEPT_BYTES["score_peak"][base] * scores
                        + round(2 * tokens * values) // layers)
        held = number * tokens * model["vocab"] if model.head else 0
        loss_alone, layer = loss > held + layer, held + layer
    if not loss_alone:
        items.append(Item("one layer, recomputed", layer,
                          "while its backward pass runs" + ", and the logits" * bool(loss)))
    elif model.head:
        items.append(Item("logits and their gradient", loss,
                          f"{model['vocab']:,} per token, {KEPT_BYTES['logit'][base]} bytes each"))
    return items, min(loss, layer)


#: What a process takes of the card besides its tensors: bytes of the CUDA context, as measured on
#: a T4; shares of the tensors, and of the smaller of two peaks, fitted in `measured.py`.
OVERHEAD = {"context": 141 * 2**20, "tensors": 0.03, "other peak": 0.5}


def overhead(states: Bill, kept: Bill) -> Item:
    """What the process takes besides its tensors: the CUDA context, and what fragments.

    Blocks that PyTorch freed after one peak are often of the wrong size for the next, and the
    process keeps them. So it grows with the smaller peak of an :func:`activation_estimate`, and
    with all tensors a little. Measured on one card, with checkpointing; without it there is no
    second peak to count, and no run to compare with.
    """
    tensors = states.bytes + kept.bytes
    return Item("context and fragments", OVERHEAD["context"] + math.floor(  # as the page does
        OVERHEAD["tensors"] * tensors + OVERHEAD["other peak"] * kept.other_peak),
        "the CUDA context, and freed blocks not used again: fitted to measured runs")


def kept_base(model: Model, base: str) -> str:
    """Of the formats in `KEPT_BYTES` the one whose numbers a base's layers work on."""
    return "bfloat16" if is_narrow(model, base) else "float32"


#: By what the layers work on: bytes of a number; of attention for each of eager's scores,
#: kept and at the peak of its backward pass; of each logit at the peak of its own. "attended": of
#: flash attention for each head, token and layer. "gated": layers of which a gated MLP keeps a
#: product besides, and how many times its width goes into theirs.
KEPT_BYTES: dict[str, Any] = {
    "number": {"bfloat16": 2, "float32": 4},
    "score": {"bfloat16": 6, "float32": 4},
    "score_peak": {"bfloat16": 14, "float32": 16},
    "logit": {"bfloat16": 14, "float32": 16},
    "attended": 4, "gated": {"gate_proj": 1, "wi_0": 1, "gate_up_proj": 2, "Wi": 2},
}


def why_not_estimated(model: Model) -> str:
    """Why the activations of a model are not estimated; empty if they are.

    The tower of a model of several parts reads patches, not the tokens that are counted here;
    linear attention keeps states, and convolutions read what is no token; of experts, those count
    that a token meets.
    """
    table = FAMILIES[model.family]
    if reason := table.get("not_estimated"):
        return reason
    if parts := [part for part in table.get("parts", []) if f"{part}." in table["symbols"]]:
        return NOT_ESTIMATED["parts"].format(named=", ".join(parts))
    if lists := table.get("lists"):
        return NOT_ESTIMATED["lists"].format(named=", ".join(lists))
    if named := next((m.name for m in model.modules if m.is_convolution), ""):
        return NOT_ESTIMATED["convolution"].format(named=named.split(".")[-2])
    if any(".experts." in m.name for m in model.modules) and "active" not in model.symbols:
        return NOT_ESTIMATED["active"]
    return ""


def kept_per_token(model: Model,
                   base: str = "bfloat16") -> tuple[int, list[tuple[list[str], int]]]:
    """What all layers together keep of each token, in numbers, without attention's own.

    How wide a number is depends on `base`, see `KEPT_BYTES`.

    Returns
    -------
    int
        What is kept whatever trains.
    list of (names of modules, numbers)
        An input that is kept once if any of these trains: q, k and v have the same.
    """
    inside = [m for m in model.modules if re.search(r"\.\d+\.", m.name)]
    # Not every family's table names the width of its MLP.
    ff = model.symbols.get("ff") or max(m.sizes[0] for m in inside if m.is_linear)
    experts = {m.sizes[0] for m in inside if ".experts." in m.name}
    always = 0
    inputs: dict[tuple[str, int], tuple[list[str], int]] = {}
    for m in inside:
        parent, _, leaf = m.name.rpartition(".")
        if m.is_linear:
            n_in, n_out = m.sizes
            if n_in != ff:  # the MLP's last output is only added to the residual stream
                always += n_out
            if leaf in KEPT_BYTES["gated"]:  # a product of two outputs, which may lie in one
                always += n_out // KEPT_BYTES["gated"][leaf]
            inputs.setdefault((parent, n_in), ([], n_in))[0].append(m.name)
        elif m.kind == "norm":
            always += _norm_bytes(m, base) // KEPT_BYTES["number"][base]
            inputs[m.name, 0] = [m.name], m.out_features
        elif ".experts." in m.name and leaf.endswith("_proj"):  # each token meets `active` of them
            width = math.prod(m.sizes[1:]) // model["d"]  # inside an expert; twice for gate and up
            if leaf == "gate_up_proj":
                always += model["active"] * 3 * width // 2  # gate, up and their product
            inputs[m.name, 0] = [parent], model["active"] * (
                width if leaf == "down_proj" else model["d"])
        elif m.sizes[0] in experts and len(m.sizes) == 2 and leaf == "weight":  # the router
            always += m.sizes[0]
    return always, list(inputs.values())


def _norm_bytes(norm: Module, base: str = "bfloat16") -> int:
    """Bytes of a norm's input for each token. RMSNorm's is in 32 bits."""
    return norm.out_features * (KEPT_BYTES["number"][base] if norm.bias else 4)


def kept_outside(model: Model, base: str = "bfloat16") -> int:
    """Bytes for each token that norms outside the layers keep."""
    return sum(_norm_bytes(m, base) for m in model.modules
               if m.kind == "norm" and not re.search(r"\.\d+\.", m.name))


def _kept_by(counted: Count, base: str) -> float:
    """The numbers of :func:`kept_per_token` that are kept where this trains, and LoRA's own."""
    always, inputs = kept_per_token(counted.model, base)
    # What trains; a bias needs no input. A LoRA on stacked experts lies on the module around them.
    trained = {path for name in counted.tensors if not name.endswith("bias")
               for path in paths_to(name.removeprefix("base_model.model."))}
    down = [name for name in counted.tensors if ".lora_A" in name]
    own = 4 // KEPT_BYTES["number"][base] if down else 1  # PEFT's copies in 32 bits
    kept = 0
    for names, numbers in inputs:
        of = len(trained.intersection(names))
        kept += numbers * (own * (of if own > 1 else min(of, 1)) if counted.method != "full" else 1)
    share = {m.name.rpartition(".")[0]: counted.model["active"] / m.sizes[0]
             for m in counted.model.modules if ".experts." in m.name}
    between = 0.0  # LoRA's inner numbers; of experts, those of the active ones
    for name in down:
        around = share.keys() & paths_to(name.removeprefix("base_model.model."))
        between += counted.tensors[name][0] * min((share[path] for path in around), default=1)
    return always + kept + own * between
