"""A small Llama in NumPy: forward and exact backward, with slots for every method of peft.py.

Names, used throughout
    x, h      hidden states, (n, d): all tokens of the batch as rows, n = B*T
    g         dLoss/d(output of the module at hand); its backward returns dLoss/d(input)
    B, T      batch, time (with a soft prompt, T counts its virtual tokens too)
    d, H, dh  model width, query heads, head width
    K, G      key/value heads, query heads per key/value head (H = K*G; plain attention has G = 1)
    S         keys that a query may see: prefix, cached tokens, this batch's tokens
    P         virtual tokens of a prefix or a prompt

Each layer's derivative stands below its forward, which leaves in `self.cache` what it needs.
Modules are named as in Hugging Face, `model.layers.0.self_attn.q_proj`, and so are their weights.

The slots, all empty at first, are where fine-tuning methods plug in
    any of q_proj k_proj v_proj o_proj gate_proj up_proj down_proj   e.g. a `LoRALinear`
    layer.after_attention, layer.after_mlp   on a sublayer's output, before it is added to x
    layer.parallel_mlp                       beside the MLP, on the same (normalised) input
    model.kv_prefix                          keys and values before those of every layer
    model.soft_prompt                        embeddings before those of the input
The model never asks which method it holds: a slot needs forward, backward, parameters, gradients.

Relatives differ in a few lines, which name the family: Llama 3.1 slows rotations down, Qwen2 adds
biases, Qwen3 norms queries and keys, SmolLM3 does not rotate in every layer.
Left out on purpose: other biases, dropout, other scaled RoPE variants, padding on the left.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_config import LAYER_MODULES, PROJECTIONS, QK_NORMS, LlamaConfig, read_config
from tensorfile import about, read_arrays
from validation import check_weights


def random_weights(config: LlamaConfig, rng: np.random.Generator, std: float = 0.05,
                   dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """An untrained model: Gaussian matrices, norms of one, biases of zero."""
    return {name: (np.full(shape, not name.endswith("bias")) if len(shape) == 1 else
                   std * rng.standard_normal(shape)).astype(dtype)
            for name, shape in config.weight_shapes().items()}


# -------------------------------------------------------------------------- layers with weights


class Weighted:
    """A module with one pretrained weight: frozen, unless declared trainable."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None):
        self.weight, self.bias, self.trainable = weight, bias, False
        self.weight_grad: np.ndarray | None = None
        self.bias_grad: np.ndarray | None = None
        self.cache: tuple = ()

    def parameters(self) -> dict[str, np.ndarray]:
        own = {"weight": self.weight} if self.bias is None else {
            "weight": self.weight, "bias": self.bias}
        return own if self.trainable else {}

    def gradients(self) -> dict[str, np.ndarray]:
        if self.trainable and self.weight_grad is None:
            raise RuntimeError(f"{type(self).__name__} has no gradient: call backward first")
        return {name: getattr(self, f"{name}_grad") for name in self.parameters()}


class Linear(Weighted):
    """`x W^T`, the weight as (out, in); Qwen2's q, k and v add a bias, (out,)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.cache = (x,)
        h = x @ self.weight.T  # (n, out)
        return h if self.bias is None else h + self.bias

    def backward(self, g: np.ndarray) -> np.ndarray:
        if self.trainable:
            self.weight_grad = g.T @ self.cache[0]  # (out, in)
            self.bias_grad = None if self.bias is None else g.sum(axis=0)  # (out,)
        return g @ self.weight  # (n, in): through the weight, frozen or not


class Embedding(Weighted):
    """Row `id` of the table for each token."""

    def forward(self, ids: np.ndarray) -> np.ndarray:
        self.cache = (ids,)
        return self.weight[ids]  # (B, T, d)

    def backward(self, g: np.ndarray) -> None:
        if self.trainable:  # one-hot product: adds up the rows of a token that occurs repeatedly
            one_hot = np.eye(len(self.weight), dtype=g.dtype)[self.cache[0].ravel()]  # (n, vocab)
            self.weight_grad = one_hot.T @ g.reshape(len(one_hot), -1)  # (vocab, d)


class RMSNorm(Weighted):
    """`weight * x / rms(x)`, rms(x) = sqrt(mean(x^2) + eps) over each row.

    References
    ----------
    Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467.
    """

    def __init__(self, weight: np.ndarray, eps: float):
        super().__init__(weight)
        self.eps = eps

    def forward(self, x: np.ndarray) -> np.ndarray:
        wide = x.astype(np.float32) if x.dtype == np.float16 else x  # 256 squared is too much
        rms = np.sqrt(row_dot(wide, wide) / x.shape[-1] + self.eps)  # (..., 1)
        if np.isinf(rms).any():  # x / inf would be a zero that looks like an answer
            raise FloatingPointError(f"activations of {np.abs(x).max():.3g} overflow {wide.dtype} "
                                     "when squared: the run has diverged; lower the learning rate")
        normed = (x / rms).astype(x.dtype, copy=False)  # (..., d)
        self.cache = (normed, rms)
        return normed * self.weight  # (..., d)

    def backward(self, g: np.ndarray) -> np.ndarray:
        normed, rms = self.cache
        if self.trainable:
            rows = (g * normed).reshape(-1, g.shape[-1])  # (n, d)
            self.weight_grad = rows.sum(axis=0, dtype=rms.dtype)  # (d,)
        g = g * self.weight  # (..., d): now the gradient of `normed`
        # x enters its row's rms too: that removes the part of g that points along x
        g -= normed * (row_dot(g, normed) / g.shape[-1])
        g /= rms
        return g  # (..., d)


def row_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products along the last axis, which stays with length 1."""
    return np.einsum("...i,...i->...", a, b)[..., None]  # for speed: no array of products


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, in place: scores are the largest arrays that there are."""
    scores -= scores.max(axis=-1, keepdims=True)  # exp of large numbers would overflow
    np.exp(scores, out=scores)
    scores /= np.einsum("...s->...", scores)[..., None]  # for speed: sum() is slow on short rows
    return scores


# ------------------------------------------------------------------------------------ attention


@dataclass
class Run:
    """What all layers share in one forward and its backward."""

    B: int
    T: int
    mask: np.ndarray  # (T, S): 0 where a query may look, -inf where it may not
    rotation: "Rotation"
    prefix: Any = None  # what fills the key/value slot
    cache: list | None = None  # (keys, values) of earlier tokens, per layer


class Rotation:
    """Rotary position embedding: pair (j, j + dh/2) of each head turned by its token's angle.

    With c = cos, s = sin of the angles, first half a and second half b of a head:

        forward   a c - b s,  b c + a s         backward: the same with -s (a rotation's inverse)

    References
    ----------
    Su et al., "RoFormer", arXiv 2104.09864; halves paired as Hugging Face's `rotate_half` does.
    """

    def __init__(self, angles: np.ndarray, dtype: Any):
        c, s = np.cos(angles), np.sin(angles)  # (T, dh/2)
        self.cos = np.hstack([c, c]).astype(dtype)[:, None]  # (T, 1, dh): the same for all heads
        self.sin = np.hstack([-s, s]).astype(dtype)[:, None]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """(B, T, heads, dh) -> (B, T, heads, dh)"""
        return x * self.cos + swap_halves(x) * self.sin

    def backward(self, g: np.ndarray) -> np.ndarray:
        return g * self.cos - swap_halves(g) * self.sin


def rotary_frequencies(config: LlamaConfig) -> np.ndarray:
    """By how much each pair of a head turns from one token to the next, in radians: (dh/2,).

    For longer texts than it was pretrained on, Llama 3.1 divides by a factor what turns seldom in
    those, leaves what turns often, and goes from the one to the other in a straight line.

    References
    ----------
    Grattafiori et al., "The Llama 3 Herd of Models", arXiv 2407.21783, trains on 128,000 tokens;
    the factors are published in each `config.json`.
    """
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)  # (dh/2,)
    if (scaling := config.rope_scaling) is None:
        return frequencies
    turns = frequencies * scaling.original_max_position_embeddings / (2 * np.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0, 1)  # (dh/2,)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def swap_halves(x: np.ndarray) -> np.ndarray:
    """(a, b) -> (b, a) along the last axis."""
    half = x.shape[-1] // 2
    return np.concatenate([x[..., half:], x[..., :half]], axis=-1)


def split_heads(x: np.ndarray, B: int, dh: int) -> np.ndarray:
    """(n, heads*dh) -> (B, T, heads, dh)"""
    return x.reshape(B, len(x) // B, -1, dh)


def heads_first(x: np.ndarray, K: int) -> np.ndarray:
    """(B, T, heads, dh) -> (B, K, heads/K, T, dh): a product for each head, queries by group"""
    B, T, heads, dh = x.shape
    return x.reshape(B, T, K, heads // K, dh).transpose(0, 2, 3, 1, 4)


def merge_heads(x: np.ndarray) -> np.ndarray:
    """(B, K, G, T, dh) -> (n, H*dh): heads_first and split_heads undone"""
    B, K, G, T, dh = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B * T, K * G * dh)


class Attention:
    """Causal self-attention with rotary positions and grouped key/value heads."""

    def __init__(self, config: LlamaConfig, index: int, q, k, v, o):
        self.index, self.dh, self.K = index, config.head_dim, config.num_key_value_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = map(Linear, (q, k, v, o))
        self.scale = self.dh ** -0.5
        self.rotates = config.rotates(index)  # all layers do but some of SmolLM3
        self.q_norm = self.k_norm = None  # Qwen3's, one for all heads

    def forward(self, x: np.ndarray, run: Run) -> np.ndarray:
        q, k, v = (split_heads(projection.forward(x), run.B, self.dh)  # (B, T, H or K, dh)
                   for projection in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None:
            q, k = self.q_norm.forward(q), self.k_norm.forward(k)
        if self.rotates:
            q, k = run.rotation.forward(q), run.rotation.forward(k)
        q = q * self.scale
        if run.prefix is not None:  # not rotated: learned where it stands
            k, v = run.prefix.forward(k, v, self.index)  # (B, P+T, K, dh)
        if run.cache is not None:
            if self.index < len(run.cache):
                k, v = (np.concatenate(kv, axis=1) for kv in zip(run.cache[self.index], (k, v)))
                run.cache[self.index] = (k, v)
            else:
                run.cache.append((k, v))
        q, k, v = (heads_first(y, self.K) for y in (q, k, v))  # (B, K, G, T, dh), (B, K, 1, S, dh)
        scores = q @ k.swapaxes(-1, -2)  # (B, K, G, T, S)
        scores += run.mask
        p = softmax(scores)
        self.cache = (q, k, v, p)
        return self.o_proj.forward(merge_heads(p @ v))  # (n, d)

    def backward(self, g: np.ndarray, run: Run) -> np.ndarray:
        q, k, v, p = self.cache
        g = heads_first(split_heads(self.o_proj.backward(g), run.B, self.dh), self.K)
        gv = (p.swapaxes(-1, -2) @ g).sum(axis=2)  # (B, K, S, dh): all G queries share a value
        gs = g @ v.swapaxes(-1, -2)  # (B, K, G, T, S): of probabilities, then of scores
        gs -= row_dot(gs, p)
        gs *= p
        gq = split_heads(merge_heads(gs @ k), run.B, self.dh)  # (B, T, H, dh)
        gk = (gs.swapaxes(-1, -2) @ q).sum(axis=2)  # (B, K, S, dh)
        gk, gv = gk.transpose(0, 2, 1, 3), gv.transpose(0, 2, 1, 3)  # (B, S, K, dh)
        if run.prefix is not None:
            gk, gv = run.prefix.backward(gk, gv, self.index)  # (B, T, K, dh)
        if self.rotates:
            gq, gk = run.rotation.backward(gq), run.rotation.backward(gk)
        gq *= self.scale
        if self.q_norm is not None:
            gq, gk = self.q_norm.backward(gq), self.k_norm.backward(gk)
        gq, gk, gv = (y.reshape(run.B * run.T, -1) for y in (gq, gk, gv))  # (n, heads*dh)
        gx = self.q_proj.backward(gq) + self.k_proj.backward(gk)
        return gx + self.v_proj.backward(gv)  # (n, d)


# ----------------------------------------------------------------------------- MLP, layer, model


class MLP:
    """SwiGLU: `down(silu(gate(x)) * up(x))`, silu(z) = z sigmoid(z).

    References
    ----------
    Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202.
    """

    def __init__(self, gate, up, down):
        self.gate_proj, self.up_proj, self.down_proj = map(Linear, (gate, up, down))

    def forward(self, x: np.ndarray) -> np.ndarray:
        z, up = self.gate_proj.forward(x), self.up_proj.forward(x)  # (n, m)
        sigmoid = np.tanh(0.5 * z)  # sigmoid(z) = (1 + tanh(z/2)) / 2 never overflows
        sigmoid += 1.0
        sigmoid *= 0.5
        silu = z * sigmoid
        self.cache = (up, sigmoid, silu)
        return self.down_proj.forward(silu * up)  # (n, d)

    def backward(self, g: np.ndarray) -> np.ndarray:
        up, sigmoid, silu = self.cache
        g = self.down_proj.backward(g)  # (n, m)
        gx = self.up_proj.backward(g * silu)  # (n, d)
        g = g * up  # (n, m): of silu(z), whose derivative is sigmoid + silu (1 - sigmoid)
        slope = 1.0 - sigmoid
        slope *= silu
        slope += sigmoid
        g *= slope
        return gx + self.gate_proj.backward(g)  # (n, d)


class DecoderLayer:
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`; adapters stand before each `x +`.

    `parallel_mlp` reads what the MLP reads, the normalised input, and its output is added to the
    MLP's. (He et al., arXiv 2110.04366; the `adapters` library feeds it the input before the
    norm.)
    """

    def __init__(self, config: LlamaConfig, index: int, weights: dict[str, np.ndarray]):
        q, k, v, o, gate, up, down, norm_1, norm_2 = (
            weights[f"model.layers.{index}.{name}.weight"] for name in LAYER_MODULES[:9])
        self.self_attn = Attention(config, index, q, k, v, o)
        self.mlp = MLP(gate, up, down)
        self.input_layernorm = RMSNorm(norm_1, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(norm_2, config.rms_norm_eps)
        self.after_attention = self.after_mlp = self.parallel_mlp = None
        if config.qkv_bias:
            for name in PROJECTIONS[:3]:
                _follow(self, name).bias = weights[f"model.layers.{index}.{name}.bias"]
        if config.qk_norm:
            self.self_attn.q_norm, self.self_attn.k_norm = (
                RMSNorm(weights[f"model.layers.{index}.{name}.weight"], config.rms_norm_eps)
                for name in QK_NORMS)

    def forward(self, x: np.ndarray, run: Run) -> np.ndarray:
        out = self.self_attn.forward(self.input_layernorm.forward(x), run)  # (n, d)
        if self.after_attention is not None:
            out = self.after_attention.forward(out)
        x = x + out
        h = self.post_attention_layernorm.forward(x)
        out = self.mlp.forward(h)  # (n, d)
        if self.parallel_mlp is not None:
            out = out + self.parallel_mlp.forward(h)
        if self.after_mlp is not None:
            out = self.after_mlp.forward(out)
        return x + out  # (n, d)

    def backward(self, g: np.ndarray, run: Run) -> np.ndarray:
        out = g if self.after_mlp is None else self.after_mlp.backward(g)
        gh = self.mlp.backward(out)  # (n, d)
        if self.parallel_mlp is not None:
            gh = gh + self.parallel_mlp.backward(out)
        g = g + self.post_attention_layernorm.backward(gh)
        out = g if self.after_attention is None else self.after_attention.backward(g)
        return g + self.input_layernorm.backward(self.self_attn.backward(out, run))  # (n, d)


class Llama:
    """The whole model.

    Parameters
    ----------
    config : LlamaConfig
    weights : dict of str to array
        By Hugging Face name, floating; kept without copying. Their dtype is that of all results.

    Raises
    ------
    ValueError, TypeError
        A weight that is missing, superfluous, of the wrong shape, not floating-point, not finite.
    """

    def __init__(self, config: LlamaConfig, weights: dict[str, np.ndarray]):
        shapes = config.weight_shapes()
        if weights.keys() != shapes.keys():
            raise ValueError(f"weights lack {sorted(shapes.keys() - weights.keys())} and have no "
                             f"use for {sorted(weights.keys() - shapes.keys())}")
        for name, shape in shapes.items():
            check_weights(name, weights[name], shape)
        self.config = config
        self.embed_tokens = Embedding(weights["model.embed_tokens.weight"])
        self.layers = [DecoderLayer(config, i, weights) for i in range(config.num_hidden_layers)]
        self.norm = RMSNorm(weights["model.norm.weight"], config.rms_norm_eps)
        tied = config.tie_word_embeddings
        self.lm_head = Linear(self.embed_tokens.weight if tied else weights["lm_head.weight"])
        self.kv_prefix = self.soft_prompt = None
        positions = np.arange(config.longest_input)
        self.angles = np.outer(positions, rotary_frequencies(config))  # (longest, dh/2), float64
        self.run: Run | None = None

    @classmethod
    def load(cls, folder: str | Path, dtype: Any = np.float32,
             progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> "Llama":
        """A checkpoint of the Llama family, as Hugging Face publishes it.

        Parameters
        ----------
        folder : holds config.json and model.safetensors, or its shards and their index
        dtype : of the model; half precision is stored widely, but NumPy computes with it very
            slowly
        progress : such as tqdm, called with the names of the weights

        Raises
        ------
        HubError
            Files that are damaged or do not fit each other; a model that we do not compute.
        """
        folder = Path(folder)
        config = read_config(folder / "config.json")
        with about(folder):  # the model looks at every value
            return cls(config, read_arrays(folder, config.weight_shapes(), dtype,
                                           copies=config.copies, progress=progress))

    def _places(self) -> dict[str, Any]:
        """Every module that may hold parameters, by name; an empty slot holds None."""
        found = {"model.embed_tokens": self.embed_tokens}
        for i, layer in enumerate(self.layers):
            for name in LAYER_MODULES + (QK_NORMS if self.config.qk_norm else ()):
                found[f"model.layers.{i}.{name}"] = _follow(layer, name)
        found |= {"model.norm": self.norm, "lm_head": self.lm_head,
                  "kv_prefix": self.kv_prefix, "soft_prompt": self.soft_prompt}
        if self.config.tie_word_embeddings:
            del found["lm_head"]  # its weight is the embedding's
        return found

    def modules(self) -> dict[str, Any]:
        """Every module that may hold parameters, by name; empty slots are left out."""
        return {name: module for name, module in self._places().items() if module is not None}

    def replace(self, name: str, module: Any) -> None:
        """Put `module` where `name` points: `model.layers.0.self_attn.q_proj`, `kv_prefix`, ..."""
        if name == "lm_head" and self.config.tie_word_embeddings:
            raise ValueError("lm_head is the embedding here (tie_word_embeddings), so nothing can "
                             "stand in its place; untie them in the config first")
        if name not in self._places():
            raise ValueError(f"no module or slot is called {name!r}; the modules are "
                             f"{list(self.modules())}; slots in a layer are {LAYER_MODULES[-3:]}")
        bias = getattr(self._places()[name], "bias", None)  # of Qwen2
        if bias is not None and getattr(module, "bias", None) is None:
            raise ValueError(f"{name} adds a bias, which the module in its place would drop: give "
                             "it that as well, as in LoRALinear(old.weight, old.bias)")
        *path, last = name.removeprefix("model.").split(".")
        setattr(_follow(self, ".".join(path)), last, module)

    def set_trainable(self, trainable: bool = True) -> None:
        """Full fine-tuning: declare all pretrained weights trainable (or frozen again)."""
        for module in (*self.modules().values(), self.lm_head):
            if isinstance(module, Weighted):
                module.trainable = trainable

    def weights(self) -> dict[str, np.ndarray]:
        """All pretrained weights, frozen or not, by Hugging Face name: the arrays themselves."""
        modules = self.modules()
        return {f"{name}.{key}": getattr(modules[name], key) for name, _, key in (
            full.rpartition(".") for full in self.config.weight_shapes())}

    def parameters(self) -> dict[str, np.ndarray]:
        """Trainable arrays: `<module>.<array>`, e.g. `model.layers.0.self_attn.q_proj.A`."""
        return {f"{name}.{key}": array for name, module in self.modules().items()
                for key, array in module.parameters().items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Their gradients after `backward`, under the same names."""
        if self.run is None:
            raise RuntimeError("the model has no gradients yet: call forward, then backward")
        return {f"{name}.{key}": array for name, module in self.modules().items()
                for key, array in module.gradients().items()}

    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(array.size for array in self.parameters().values())

    def forward(self, ids: np.ndarray, cache: list | None = None) -> np.ndarray:
        """Logits of the next token at every real token.

        A soft prompt's own positions are not returned: its last one would predict the first real
        token, which is given.

        Parameters
        ----------
        ids : (B, T) integers; shorter sequences are filled up at the end, by any id
        cache : list, optional
            `[]` for the first tokens, then the same list for those that follow: keys and values
            are remembered in it, and only the new tokens are computed. Not for training.

        Returns
        -------
        logits : (B, T, vocab)

        Raises
        ------
        TypeError, ValueError
            ids that are no integers, not (B, T), outside the vocabulary, or too long.
        """
        first = not cache  # no cache, or an empty one: prefix and prompt come in front
        x = self.embed_tokens.forward(self._check_ids(ids))  # (B, T, d)
        if self.soft_prompt is not None and first:
            x = self.soft_prompt.forward(x)  # (B, P+T, d)
        B, T, d = x.shape
        prefix = self.kv_prefix if first else None
        start = cache[0][0].shape[1] if cache else getattr(prefix, "prefix_length", 0)
        if start + T > (longest := self.config.longest_input):
            raise ValueError(f"{ids.shape[1]} tokens after {start + T - ids.shape[1]} earlier or "
                             f"virtual ones exceed the longest input of this model, {longest}")
        mask = np.triu(np.full((T, start + T), -np.inf, x.dtype), start + 1)  # (T, S)
        angles = self.angles[start:start + T]  # (T, dh/2)
        run = Run(B, T, mask, Rotation(angles, x.dtype), prefix, cache)
        x = x.reshape(B * T, d)
        for layer in self.layers:
            x = layer.forward(x, run)  # (n, d)
        self.run = run
        x = self.norm.forward(x).reshape(B, T, d)[:, T - ids.shape[1]:]  # (B, T of ids, d)
        logits = self.lm_head.forward(x.reshape(-1, d))
        return logits.reshape(*ids.shape, -1)  # (B, T, vocab)

    def backward(self, g: np.ndarray) -> None:
        """From dLoss/dlogits, (B, T, vocab), to the gradient of every trainable array.

        Raises
        ------
        RuntimeError
            Before the first forward, or after one with a cache.
        ValueError
            A gradient that is not shaped like the logits.
        """
        run, ids = self.run, self.embed_tokens.cache[0] if self.run else np.empty((0, 0))
        if run is None or run.cache is not None:
            raise RuntimeError("backward needs a forward without cache to run first")
        if g.shape != (*ids.shape, self.config.vocab_size):
            raise ValueError(f"the gradient must be shaped like the logits, "
                             f"{(*ids.shape, self.config.vocab_size)}, got {g.shape}")
        gx = np.zeros((run.B, run.T, self.config.hidden_size), g.dtype)  # virtual tokens: unscored
        g = self.lm_head.backward(g.reshape(-1, g.shape[-1]))  # (B*T of ids, d)
        gx[:, run.T - ids.shape[1]:] = g.reshape(*ids.shape, -1)
        gx = self.norm.backward(gx.reshape(run.B * run.T, -1))  # (n, d)
        for layer in reversed(self.layers):
            gx = layer.backward(gx, run)  # (n, d)
        gx = gx.reshape(run.B, run.T, -1)
        if self.soft_prompt is not None:
            gx = self.soft_prompt.backward(gx)  # (B, T of ids, d)
        self.embed_tokens.backward(gx)
        if self.config.tie_word_embeddings and self.embed_tokens.trainable:
            self.embed_tokens.weight_grad += self.lm_head.weight_grad  # one table, used twice

    def generate(self, ids: np.ndarray, max_new_tokens: int, *, temperature: float = 1.0,
                 stop: int | None = None, rng: np.random.Generator | None = None) -> np.ndarray:
        """Continue each sequence of a batch, token by token, with a key/value cache.

        Parameters
        ----------
        ids : (B, T) integers, all of the same length
        max_new_tokens : int
        temperature : float
            0 takes the likeliest token; 1 draws from the model's distribution.
        stop : int, optional
            A sequence ends with this token; what follows it is filled with it.
        rng : numpy.random.Generator, optional

        Returns
        -------
        (B, up to max_new_tokens) integers: the new tokens only
        """
        if not (np.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature must be 0 or positive, got {temperature}")
        rng = np.random.default_rng() if rng is None else rng
        B, vocab = len(ids), self.config.vocab_size
        cache: list = []
        new, alive = [], np.arange(B)  # alive: the rows that have not ended
        for _ in range(max_new_tokens):
            logits = self.forward(ids, cache)[:, -1].astype(np.float64)  # (alive, vocab)
            if not np.isfinite(logits).all():
                raise FloatingPointError("the logits hold NaN or infinity: the model has diverged; "
                                         "train it again with a lower learning rate")
            if temperature > 0:  # the largest of logits plus Gumbel noise is a draw from softmax
                logits -= logits.max(axis=-1, keepdims=True)  # tiny temperatures: 0 and -infinity
                logits = logits / temperature + rng.gumbel(size=(B, vocab))[alive]
            token = logits.argmax(axis=-1)  # (alive,)
            new.append(np.full(B, -1 if stop is None else stop))  # (B,)
            new[-1][alive] = token
            going = token != stop  # (alive,)
            if not going.any():
                break
            if not going.all():  # what has ended is computed no further: half of the time for names
                alive, token = alive[going], token[going]
                cache[:] = [(k[going], v[going]) for k, v in cache]  # (alive, S, K, dh) each
            ids = token[:, None]  # (alive, 1)
        return np.stack(new, axis=1) if new else np.empty((len(ids), 0), int)

    def _check_ids(self, ids: np.ndarray) -> np.ndarray:
        if not isinstance(ids, np.ndarray) or not np.issubdtype(ids.dtype, np.integer):
            raise TypeError(f"ids must be an integer array, got "
                            f"{getattr(ids, 'dtype', type(ids).__name__)}")
        if ids.ndim != 2 or ids.size == 0:
            raise ValueError(f"ids must have shape (batch, time), not empty, got {ids.shape}")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"ids must be 0 to {self.config.vocab_size - 1}, got "
                             f"{ids.min()} to {ids.max()}")
        return ids


def _follow(start: Any, path: str) -> Any:
    """The object at a dotted path; a number indexes a list."""
    for part in path.split(".") if path else ():
        start = start[int(part)] if part.isdigit() else getattr(start, part)
    return start
