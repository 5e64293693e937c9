"""Parameter-efficient fine-tuning from scratch: LoRA, adapters, prefix and prompt tuning.

Read it from top to bottom; NumPy is all it needs. `python peft.py` runs the demo. Names: x is an
input, W a frozen weight, (out, in) as in PyTorch; L, H, dh count layers, heads and a head's width;
m is an adapter's bottleneck, P the number of virtual tokens; n counts rows: all leading axes of x,
(batch, time) say, flattened into one, which is all that a linear layer sees.

One contract for every class:
    forward(x)        computes the output and remembers what backward needs
    backward(g)       takes dLoss/doutput, stores the gradients of what trains in place of earlier
                      ones, returns dLoss/dinput. A frozen weight gets no gradient of its own, but
                      the gradient always passes *through* it.
    parameters()      {name: array}, the arrays themselves: an optimizer updates them in place
    gradients()       {name: array} under the same names
    num_parameters()  how many numbers train
What a call has returned, no later call changes: outputs and gradients are fresh arrays. Float32 in
gives float32 out. Wrong sizes, shapes or dtypes raise ValueError or TypeError before anything is
computed, `backward` before `forward` raises RuntimeError.
Left out on purpose: dropout, several adapters at once, quantized weights; later methods: family/.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from validation import (check_count, check_dtype, check_integer, check_not_wider, check_positive,
                        check_rank, check_shape, check_weights)

INIT_STD = 0.01  # small: a fresh LoRA or adapter barely changes the pretrained model
Rng = np.random.Generator | None  # None: fresh entropy


def _normal(shape: tuple, dtype: Any, rng: Rng) -> np.ndarray:
    """Small Gaussian start, drawn in float64 so that a seed means the same in every dtype."""
    dtype = check_dtype(dtype)
    return (INIT_STD * np.random.default_rng(rng).standard_normal(shape)).astype(dtype)


class Method:
    """What all methods share: a subclass names its arrays; the gradient of `A` is in `A_grad`."""

    trainable: tuple[str, ...] = ()

    def parameters(self) -> dict[str, np.ndarray]:
        """The trainable arrays by name, to be updated in place."""
        return {name: getattr(self, name) for name in self.trainable}

    def gradients(self) -> dict[str, np.ndarray]:
        """Their gradients by name. RuntimeError before the first backward."""
        grads = {name: getattr(self, f"{name}_grad") for name in self.trainable}
        if any(grad is None for grad in grads.values()):
            raise RuntimeError(f"{type(self).__name__} has no gradients: call backward first")
        return grads

    def num_parameters(self) -> int:
        """How many numbers train."""
        return sum(array.size for array in self.parameters().values())

    def _remembered(self, first: Any = "x", *more: Any) -> Any:
        """What forward left for backward: the value of one key, or those of several."""
        if first not in self.cache:
            which = "forward" if first == "x" else f"forward of layer {first}"
            raise RuntimeError(f"{type(self).__name__}.backward needs {which} first: call it")
        return [self.cache[key] for key in (first, *more)] if more else self.cache[first]


class LoRALayer(Method):
    """Low-rank update of a frozen linear map: h = x W^T + s (x A^T) B^T with s = alpha / rank.

    It trains A (rank, in), at first a small Gaussian, and B (out, rank), at first zero: training
    begins exactly at the pretrained model. `scaling` is s.

    Parameters
    ----------
    in_features, out_features : int, widths of the frozen weight
    rank : int, inner width; above min(in, out) it works and warns that it buys nothing
    alpha : float, strength of the update, finite and positive
    dtype : floating dtype of `A` and `B`; give that of the weight that they adapt
    rng : numpy.random.Generator, source of the random start; fresh entropy if absent

    Source: Hu et al., arXiv 2106.09685, section 4.1, equation (3).
    """

    trainable = ("A", "B")

    def __init__(self, in_features: int, out_features: int, rank: int = 8, alpha: float = 16.0, *,
                 dtype: Any = np.float32, rng: Rng = None):
        self.in_features = check_count("in_features", in_features)
        self.out_features = check_count("out_features", out_features)
        self.rank = check_rank(rank, full=min(self.in_features, self.out_features))
        self.scaling = check_positive("alpha", alpha) / self.rank
        self.A = _normal((self.rank, self.in_features), dtype, rng)  # (rank, in)
        self.B = np.zeros((self.out_features, self.rank), dtype)  # (out, rank)
        self.A_grad, self.B_grad, self.cache = None, None, {}

    def forward(self, x: np.ndarray, W: np.ndarray) -> np.ndarray:
        """x (..., in), W (out, in) -> (..., out)."""
        check_shape("x", x, (..., self.in_features))
        check_shape("W", W, (self.out_features, self.in_features))
        check_not_wider(self.parameters(), np.result_type(x, W))
        lead = x.shape[:-1]
        x = x.reshape(-1, self.in_features)  # (n, in)
        sAx = self.scaling * (x @ self.A.T)  # (n, rank): scaled while thin, once for both ways
        h = x @ W.T  # (n, out)
        h += sAx @ self.B.T
        self.cache = {"x": x, "W": W, "sAx": sAx, "lead": lead}
        return h.reshape(*lead, self.out_features)  # (..., out)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """grad_output (..., out) -> gradient of x (..., in). With G = dLoss/dh as (n, out):

            dLoss/dB = G^T (s x A^T),  dLoss/dA = s (G B)^T x,  dLoss/dx = G W + s (G B) A
        """
        x, W, sAx, lead = self._remembered("x", "W", "sAx", "lead")
        check_shape("grad_output", grad_output, (*lead, self.out_features))
        G = grad_output.reshape(-1, self.out_features)  # (n, out)
        self.B_grad = G.T @ sAx  # (out, rank)
        GB = self.scaling * (G @ self.B)  # (n, rank)
        self.A_grad = GB.T @ x  # (rank, in): zero in the first step, since B is
        grad_x = G @ W  # (n, in): through the frozen weight ...
        grad_x += GB @ self.A  # ... and through the update
        return grad_x.reshape(*lead, self.in_features)  # (..., in)

    def delta_weight(self) -> np.ndarray:
        """The update as one matrix, s B A, of shape (out, in)."""
        return self.scaling * (self.B @ self.A)

    def merge_weights(self, W: np.ndarray) -> np.ndarray:
        """A new weight W + s B A, (out, in), in W's dtype. W itself stays as it is."""
        check_shape("W", W, (self.out_features, self.in_features))
        return (W + self.delta_weight()).astype(W.dtype, copy=False)


class LoRALinear(Method):
    """A pretrained linear layer, frozen, with a LoRA update: h = x W^T + b + s (x A^T) B^T.

    Parameters
    ----------
    weight, bias : (out, in) and (out,) or None, floating, finite; kept as they are, never written
    lora_rank, lora_alpha, rng : see LoRALayer, which takes the weight's dtype
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None, lora_rank: int = 8,
                 lora_alpha: float = 16.0, *, rng: Rng = None):
        self.weight = check_weights("weight", weight, (None, None))  # (out, in)
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else check_weights("bias", bias, (self.out_features,))
        self.lora = LoRALayer(self.in_features, self.out_features, lora_rank, lora_alpha,
                              dtype=weight.dtype, rng=rng)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        h = self.lora.forward(x, self.weight)  # (..., out), a fresh array: safe to add to
        if self.bias is not None:
            h += self.bias
        return h

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., out) -> (..., in). A bias shifts the output and leaves no trace in it."""
        return self.lora.backward(grad_output)

    def merge(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias of one plain linear layer that does the same; ours stay frozen."""
        return self.lora.merge_weights(self.weight), None if self.bias is None else self.bias.copy()

    def parameters(self) -> dict[str, np.ndarray]:
        return self.lora.parameters()

    def gradients(self) -> dict[str, np.ndarray]:
        return self.lora.gradients()


class Adapter(Method):
    """Bottleneck adapter: x + scale relu(x W_down) W_up, at first nearly the identity.

    It trains W_down (d_model, m) and W_up (m, d_model); both start as small Gaussians.

    Parameters
    ----------
    d_model, bottleneck_dim : int, width of input and output; width m in the middle
    residual : bool, whether "x +" is part of it; a parallel adapter has none of its own
    scale : float, strength of the bottleneck path
    dtype, rng : see LoRALayer

    Source: Houlsby et al., arXiv 1902.00751 (there with biases); parallel: He et al., 2110.04366.
    """

    trainable = ("W_down", "W_up")

    def __init__(self, d_model: int, bottleneck_dim: int = 64, *, residual: bool = True,
                 scale: float = 1.0, dtype: Any = np.float32, rng: Rng = None):
        self.d_model = check_count("d_model", d_model)
        self.bottleneck_dim = m = check_count("bottleneck_dim", bottleneck_dim)
        self.residual, self.scale = residual, check_positive("scale", scale)
        rng = np.random.default_rng(rng)  # one stream for both matrices
        self.W_down = _normal((self.d_model, m), dtype, rng)  # (d_model, m)
        self.W_up = _normal((m, self.d_model), dtype, rng)  # (m, d_model)
        self.W_down_grad, self.W_up_grad, self.cache = None, None, {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(..., d_model) -> (..., d_model)."""
        check_shape("x", x, (..., self.d_model))
        check_not_wider(self.parameters(), x.dtype)
        rows = x.reshape(-1, self.d_model)  # (n, d_model)
        activated = np.maximum(rows @ self.W_down, 0)  # (n, m)
        self.cache = {"x": rows, "activated": activated, "shape": x.shape}
        out = (self.scale * activated) @ self.W_up  # (n, d_model)
        if self.residual:
            out += rows
        return out.astype(x.dtype, copy=False).reshape(x.shape)  # (..., d_model)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., d_model) -> gradient of x (..., d_model). With a = relu(x W_down), G = dLoss/dout:

            dLoss/dW_up = scale a^T G,  D = scale (G W_up^T) where a > 0, else 0,
            dLoss/dW_down = x^T D,      dLoss/dx = G + D W_down^T  (no G without the residual)
        """
        x, a, shape = self._remembered("x", "activated", "shape")
        check_shape("grad_output", grad_output, shape)
        G = grad_output.reshape(-1, self.d_model)  # (n, d_model)
        self.W_up_grad = (self.scale * a).T @ G  # (m, d_model)
        D = self.scale * (G @ self.W_up.T) * (a > 0)  # (n, m)
        self.W_down_grad = x.T @ D  # (d_model, m)
        grad_x = D @ self.W_down.T  # (n, d_model)
        if self.residual:
            grad_x += G
        return grad_x.astype(G.dtype, copy=False).reshape(shape)  # (..., d_model)


def _prepend(virtual: np.ndarray, real: np.ndarray) -> np.ndarray:
    """virtual (P, ...) in front of each sequence of real (*lead, T, ...), in the latter's dtype."""
    check_not_wider({"the virtual tokens' array": virtual}, real.dtype)
    lead = real.shape[:real.ndim - virtual.ndim]
    virtual = np.broadcast_to(virtual.astype(real.dtype), lead + virtual.shape)  # (*lead, P, ...)
    return np.concatenate([virtual, real], axis=len(lead))  # (*lead, P+T, ...)


def _sum_over_batch(grad: np.ndarray, ndim: int) -> np.ndarray:
    """Sum over all but the last `ndim` axes: what serves the whole batch hears from all of it."""
    wide = np.result_type(grad, np.float32)  # a sum in float16 would stand still at 2048
    return grad.sum(axis=tuple(range(grad.ndim - ndim)), dtype=wide)


class PrefixTuning(Method):
    """Learned keys and values that every layer's attention sees before those of the sequence.

    It trains `prefix`, (L, 2, P, H, dh), at first a small Gaussian; on the second axis 0 is K and
    1 is V. Queries are untouched, so the output keeps its length. The model that uses it makes the
    P new columns of the mask visible to all queries and starts the tokens' positions at P.

    A pass goes back through each layer once at most. The next forward or backward of a layer that
    has its gradient begins another, in which every layer starts at zero.

    Parameters
    ----------
    num_layers, num_heads, d_head : int; in grouped-query attention count the key/value heads
    prefix_length : int, virtual tokens P
    dtype, rng : see LoRALayer

    Source: Li and Liang, arXiv 2101.00190 (they train it through an MLP; this is what remains).
    """

    trainable = ("prefix",)

    def __init__(self, num_layers: int, num_heads: int, d_head: int, prefix_length: int = 10, *,
                 dtype: Any = np.float32, rng: Rng = None):
        self.num_layers = check_count("num_layers", num_layers)
        self.num_heads = check_count("num_heads", num_heads)
        self.d_head = check_count("d_head", d_head)
        self.prefix_length = check_count("prefix_length", prefix_length)
        self.prefix = _normal((num_layers, 2, prefix_length, num_heads, d_head), dtype, rng)
        self.prefix_grad = None
        self.cache = {}  # layer -> shape of the keys it was given
        self.heard = {}  # layer -> its gradient in this pass, (2, P, H, dh)

    def get_prefix(self, layer_idx: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of one layer, (P, H, dh) each. IndexError outside 0 to L-1."""
        if not 0 <= check_integer("layer_idx", layer_idx) < self.num_layers:
            raise IndexError(f"layer_idx must be 0 to {self.num_layers - 1}, got {layer_idx}")
        return self.prefix[layer_idx, 0], self.prefix[layer_idx, 1]

    def forward(self, keys: np.ndarray, values: np.ndarray, layer_idx: int) -> tuple:
        """Keys and values, both (..., T, H, dh) -> (..., P+T, H, dh)."""
        prefix_k, prefix_v = self.get_prefix(layer_idx)  # (P, H, dh) each
        check_shape("keys", keys, (..., None, self.num_heads, self.d_head))
        check_shape("values", values, keys.shape)
        self.heard = {} if layer_idx in self.heard else self.heard  # a new pass begins
        self.cache[layer_idx] = keys.shape
        return _prepend(prefix_k, keys), _prepend(prefix_v, values)

    def backward(self, grad_keys: np.ndarray, grad_values: np.ndarray, layer_idx: int) -> tuple:
        """Both (..., P+T, H, dh) -> gradients of the sequence's own, (..., T, H, dh).

        The first P rows, summed over the batch, are the layer's slice of a new `prefix_grad`.
        """
        self.get_prefix(layer_idx)  # refuses a wrong index
        *lead, T, H, dh = self._remembered(layer_idx)
        P = self.prefix_length
        check_shape("grad_keys", grad_keys, (*lead, P + T, H, dh))
        check_shape("grad_values", grad_values, grad_keys.shape)
        self.heard = {} if layer_idx in self.heard else self.heard  # a new pass begins
        own = np.stack([_sum_over_batch(g[..., :P, :, :], 3) for g in (grad_keys, grad_values)])
        self.heard[layer_idx] = own  # (2, P, H, dh)
        self.prefix_grad = np.stack([self.heard.get(layer, np.zeros_like(own))
                                     for layer in range(self.num_layers)])  # (L, 2, P, H, dh)
        return grad_keys[..., P:, :, :].copy(), grad_values[..., P:, :, :].copy()  # (..., T, H, dh)


class PromptTuning(Method):
    """A soft prompt: learned embeddings `prompt`, (P, d_model), in front of the embedded input.

    Parameters
    ----------
    d_model, prompt_length : int, width of an embedding; virtual tokens P
    init_from_vocab : (vocab, d_model) or None, embeddings of which P rows are *copied* as a start,
        without replacement while there are enough; otherwise the start is a small Gaussian
    dtype : floating dtype, by default the table's, or float32
    rng : see LoRALayer

    Source: Lester et al., arXiv 2104.08691.
    """

    trainable = ("prompt",)

    def __init__(self, d_model: int, prompt_length: int = 20,
                 init_from_vocab: np.ndarray | None = None, *, dtype: Any = None, rng: Rng = None):
        self.d_model = check_count("d_model", d_model)
        self.prompt_length = P = check_count("prompt_length", prompt_length)
        if init_from_vocab is None:
            self.prompt = _normal((P, self.d_model), dtype or np.float32, rng)  # (P, d_model)
        else:
            table = check_weights("init_from_vocab", init_from_vocab, (None, self.d_model))
            rows = np.random.default_rng(rng).choice(len(table), size=P, replace=P > len(table))
            self.prompt = table[rows].astype(check_dtype(dtype or table.dtype))  # (P, d_model)
        self.prompt_grad, self.cache = None, {}

    def forward(self, input_embeds: np.ndarray) -> np.ndarray:
        """(..., T, d_model) -> (..., P+T, d_model)."""
        check_shape("input_embeds", input_embeds, (..., None, self.d_model))
        self.cache = {"x": input_embeds.shape}
        return _prepend(self.prompt, input_embeds)

    def backward(self, grad_output: np.ndarray) -> np.ndarray:
        """(..., P+T, d_model) -> (..., T, d_model); `prompt_grad` is summed over the batch."""
        *lead, T, d_model = self._remembered()
        P = self.prompt_length
        check_shape("grad_output", grad_output, (*lead, P + T, d_model))
        self.prompt_grad = _sum_over_batch(grad_output[..., :P, :], ndim=2)  # (P, d_model)
        return grad_output[..., P:, :].copy()  # (..., T, d_model)


def apply_lora_to_attention(
    wq: np.ndarray, wk: np.ndarray, wv: np.ndarray, wo: np.ndarray, rank: int = 8,
    alpha: float = 16.0, target_modules: Sequence[str] = ("q", "v"), *, rng: Rng = None,
) -> dict[str, Any]:
    """Wrap the targeted ones of q, k, v, o in LoRALinear; return the others as they are."""
    weights = {"q": wq, "k": wk, "v": wv, "o": wo}  # (out, in) each
    if isinstance(target_modules, str):
        raise TypeError(f"target_modules must be a list like ['q', 'v'], got {target_modules!r}")
    if not target_modules or set(target_modules) - set(weights):
        raise ValueError(f"target_modules must name some of {list(weights)}, "
                         f"got {list(target_modules)}")
    rng = np.random.default_rng(rng)
    return {name: LoRALinear(weight, lora_rank=rank, lora_alpha=alpha, rng=rng)
            if name in target_modules else weight for name, weight in weights.items()}


def compare_peft_methods(d_model: int = 4096, num_layers: int = 32, num_heads: int = 32,
                         lora_rank: int = 8, adapter_bottleneck: int = 64, prefix_length: int = 10,
                         prompt_length: int = 20) -> dict[str, dict[str, float]]:
    """{method: {"params": how many numbers train, "ratio": their share of all attention weights}}.

    An idealised model: "full" is q, k, v and o of every layer, without MLP and embeddings. "lora"
    is on q and v; "adapters" stand after attention and after the MLP; then "prefix", "prompt".
    """
    for name, value in list(locals().items()):
        check_count(name, value)
    if d_model % num_heads:
        raise ValueError(f"d_model must be divisible by num_heads, got {d_model} and {num_heads}")
    params = {
        "full": num_layers * 4 * d_model * d_model,
        "lora": num_layers * 2 * lora_rank * (d_model + d_model),
        "adapters": num_layers * 2 * 2 * d_model * adapter_bottleneck,
        "prefix": num_layers * 2 * prefix_length * d_model,  # all heads together: H dh = d_model
        "prompt": prompt_length * d_model,
    }
    return {name: {"params": n, "ratio": n / params["full"]} for name, n in params.items()}


def demo() -> None:
    """Run the methods once on random data; print shapes and counts."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 256), dtype=np.float32)  # (batch, time, d_model)
    W = rng.standard_normal((256, 256), dtype=np.float32)  # (out, in)
    layer = LoRALinear(W, rng=rng)
    h = layer.forward(x)  # (batch, time, out)
    layer.backward(np.ones_like(h))
    adapter, prompt = Adapter(256, rng=rng), PromptTuning(256, rng=rng)
    lora, n, line = layer.lora, layer.num_parameters(), "-" * 40
    print("=" * 60 + "\nStage 9: Fine-tuning & Parameter-Efficient Methods\n" + "=" * 60)
    print(f"\n1. LoRA (Low-Rank Adaptation)\n{line}\nOriginal weight shape: {W.shape}")
    print(f"LoRA A shape: {lora.A.shape}\nLoRA B shape: {lora.B.shape}")
    print(f"LoRA parameters: {n:,}\nFull parameters: {W.size:,}\nCompression: {n / W.size:.2%}")
    print(f"Input shape: {x.shape}\nOutput shape: {h.shape}")
    print(f"Gradients computed: A={lora.A_grad.shape}, B={lora.B_grad.shape}")
    print(f"\n2. Adapter Layers\n{line}\nAdapter parameters: {adapter.num_parameters():,}")
    print(f"Bottleneck dimension: {adapter.bottleneck_dim}\n\n3. Prompt Tuning\n{line}")
    print(f"Original sequence length: {x.shape[1]}\nWith soft prompt: {prompt.forward(x).shape[1]}")
    print(f"Prompt parameters: {prompt.num_parameters():,}")
    print(f"\n4. PEFT Method Comparison (7B model scale)\n{line}")
    print(f"{'Method':<20} {'Parameters':<15} {'Ratio':<9} Description\n" + "-" * 70)
    labels = ("full_fine_tuning", "lora", "adapters", "prefix_tuning", "prompt_tuning")
    texts = ("Update all attention weights", "LoRA rank=8 on Q,V", "Bottleneck=64",
             "10 prefix tokens", "20 soft prompts")
    for label, text, count in zip(labels, texts, compare_peft_methods().values(), strict=True):
        print(f"{label:<20} {count['params']:>13,}  {count['ratio']:>9.4%}  {text}")


if __name__ == "__main__":
    demo()
