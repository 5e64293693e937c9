"""Exercise 5: seven right answers that look nothing like the reference solution."""

import numpy as np

import peft


class ByHand:
    """No class of peft.py inside: plain arrays, dense updated weights, einsum."""

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, prompt_length=20, *,
                 rng=None):
        if lora_rank < 1 or prompt_length < 1 or any(
                w.shape != wq.shape[:1] * 2 for w in (wq, wk, wv, wo)):
            raise ValueError("sizes must be at least 1, and all weights (d, d)")
        gen, d = np.random.default_rng(rng), len(wq)
        self.w, self.s, self.P = (wq, wk, wv, wo), lora_alpha / lora_rank, prompt_length
        self.p = {"q.A": gen.normal(0, 0.02, (lora_rank, d)), "q.B": np.zeros((d, lora_rank)),
                  "v.A": gen.normal(0, 0.02, (lora_rank, d)), "v.B": np.zeros((d, lora_rank)),
                  "prompt": gen.normal(0, 0.5, (prompt_length, d))}
        self.p = {name: array.astype(wq.dtype) for name, array in self.p.items()}
        self.kept = None

    def parameters(self):
        return self.p

    def gradients(self):
        return self.g

    def num_parameters(self):
        return sum(map(np.size, self.p.values()))

    def dense(self, name, w):
        return w + self.s * self.p[f"{name}.B"] @ self.p[f"{name}.A"]

    def forward(self, embeds):
        wq, wk, wv, wo = self.w
        front = np.repeat(self.p["prompt"][None], len(embeds), axis=0)
        E = np.hstack([front, embeds])
        Wq, Wv = self.dense("q", wq), self.dense("v", wv)
        Q, K, V = (np.einsum("btd,od->bto", E, W) for W in (Wq, wk, Wv))
        S = np.einsum("bid,bjd->bij", Q, K) / float(np.sqrt(E.shape[-1]))
        S[:, *np.triu_indices(E.shape[1], 1)] = -np.inf
        S = np.exp(S - S.max(axis=2, keepdims=True))
        probs = S / S.sum(axis=2, keepdims=True)
        self.kept = E, Q, K, V, probs, Wq, Wv
        return np.einsum("bij,bjd,od->bio", probs, V, wo)[:, self.P:]

    def backward(self, grad_output):
        if self.kept is None:
            raise RuntimeError("forward first")
        E, Q, K, V, probs, Wq, Wv = self.kept
        if grad_output.shape != (len(E), E.shape[1] - self.P, E.shape[2]):
            raise ValueError("grad_output has another shape than the output")
        G = np.pad(grad_output, ((0, 0), (self.P, 0), (0, 0))) @ self.w[3]
        gV = np.einsum("bij,bid->bjd", probs, G)
        gP = np.einsum("bid,bjd->bij", G, V)
        gS = probs * gP - probs * np.einsum("bij,bij->bi", gP, probs)[..., None]
        gS = gS / float(np.sqrt(E.shape[-1]))
        gQ, gK = np.einsum("bij,bjd->bid", gS, K), np.einsum("bij,bid->bjd", gS, Q)
        gE = gQ @ Wq + gK @ self.w[1] + gV @ Wv
        self.g = {"prompt": gE[:, :self.P].sum(axis=0)}
        for name, g in (("q", gQ), ("v", gV)):
            dense = self.s * np.einsum("bto,bti->oi", g, E)
            self.g[f"{name}.A"] = self.p[f"{name}.B"].T @ dense
            self.g[f"{name}.B"] = dense @ self.p[f"{name}.A"].T
        return gE[:, self.P:]


class SequenceBySequence(ByHand):
    """A loop over the batch; gradients added up by hand."""

    def forward(self, embeds):
        parts = []
        self.each = []
        for x in embeds:
            parts.append(super().forward(x[None])[0])
            self.each.append(self.kept)
        return np.stack(parts)

    def backward(self, grad_output):
        if self.kept is None:
            raise RuntimeError("forward first")
        total, back = None, []
        for kept, g in zip(self.each, grad_output, strict=True):
            self.kept = kept
            back.append(super().backward(g[None])[0])
            total = self.g if total is None else {n: total[n] + self.g[n] for n in total}
        self.g = total
        return np.stack(back)


class Composed:
    """peft's own classes, LoRALayers and a prompt, with the weights beside them."""

    def __init__(self, wq, wk, wv, wo, lora_rank=8, lora_alpha=16.0, prompt_length=20, *,
                 rng=None):
        rng, d = np.random.default_rng(rng), wq.shape[1]
        if {w.shape for w in (wq, wk, wv, wo)} != {(d, d)}:
            raise ValueError("all four weights must be (d, d)")
        self.modules = {"prompt": peft.PromptTuning(d, prompt_length, rng=rng, dtype=wq.dtype)}
        for name in "qv":
            self.modules[name] = peft.LoRALayer(d, d, lora_rank, lora_alpha, dtype=wq.dtype,
                                                rng=rng)
        self.W = dict(zip("qkvo", (wq, wk, wv, wo)))

    def all(self, which):
        out = {}
        for name, module in self.modules.items():
            for key, array in getattr(module, which)().items():
                out[key if key == "prompt" else f"{name}.{key}"] = array
        return out

    def parameters(self):
        return self.all("parameters")

    def gradients(self):
        return self.all("gradients")

    def num_parameters(self):
        return sum(m.num_parameters() for m in self.modules.values())

    def forward(self, embeds):
        E = self.modules["prompt"].forward(embeds)
        self.d = float(E.shape[-1]) ** 0.5
        self.q = self.modules["q"].forward(E, self.W["q"]) / self.d
        self.k = E @ self.W["k"].T
        self.v = self.modules["v"].forward(E, self.W["v"])
        n = E.shape[1]
        scores = self.q @ self.k.transpose(0, 2, 1) + np.triu(np.full((n, n), -1e9, E.dtype), 1)
        scores -= scores.max(-1, keepdims=True)
        self.p = np.exp(scores)
        self.p /= self.p.sum(-1, keepdims=True)
        self.n = n - embeds.shape[1]
        return ((self.p @ self.v) @ self.W["o"].T)[:, -embeds.shape[1]:]

    def backward(self, grad_output):
        if not hasattr(self, "p"):
            raise RuntimeError("forward first")
        if grad_output.shape != self.v[:, self.n:].shape:
            raise ValueError("grad_output has another shape than the output")
        g = grad_output @ self.W["o"]
        real = self.p[:, self.n:]  # only these rows have a gradient at all
        gv = real.transpose(0, 2, 1) @ g
        gs = g @ self.v.transpose(0, 2, 1)
        gs = real * (gs - (gs * real).sum(-1, keepdims=True))
        gq = np.zeros_like(self.q)
        gq[:, self.n:] = gs @ self.k / self.d
        gk = gs.transpose(0, 2, 1) @ self.q[:, self.n:]
        gE = self.modules["v"].backward(gv) + self.modules["q"].backward(gq) + gk @ self.W["k"]
        return self.modules["prompt"].backward(gE)


class AllInDouble(ByHand):
    """Computes in float64 and rounds at the end."""

    def forward(self, embeds):
        self.kind = embeds.dtype
        return super().forward(embeds.astype(np.float64)).astype(self.kind)

    def backward(self, grad_output):
        back = super().backward(grad_output.astype(np.float64)).astype(self.kind)
        self.g = {name: grad.astype(self.kind) for name, grad in self.g.items()}
        return back


class LogSpace(ByHand):
    """Softmax by logarithms, and only real queries: prompt rows as queries influence nothing."""

    def forward(self, embeds):
        full = super().forward(embeds)
        E, Q, K, V, probs, Wq, Wv = self.kept
        S = Q @ np.swapaxes(K, -1, -2) * float(E.shape[-1]) ** -0.5
        S = S + np.where(np.tri(E.shape[1]) == 1, 0, -np.inf).astype(S.dtype)
        top = S.max(-1, keepdims=True)
        log = S - top - np.log(np.exp(S - top).sum(-1, keepdims=True))
        self.kept = E, Q, K, V, np.exp(log), Wq, Wv
        return (np.exp(log)[:, self.P:] @ V @ self.w[3].T).astype(full.dtype)


class OneVector(ByHand):
    """All five arrays are views of one vector, made anew whenever they are asked for."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shapes = {name: array.shape for name, array in self.p.items()}
        self.vector = np.concatenate([array.ravel() for array in self.p.values()])

    def parameters(self):
        ends = np.cumsum([np.prod(shape) for shape in self.shapes.values()])[:-1]
        parts = np.split(self.vector, ends)
        self.p = {name: part.reshape(self.shapes[name]) for name, part in zip(self.shapes, parts)}
        return self.p


class ForgetsAfterwards(ByHand):
    """Frees what forward has left as soon as backward has used it."""

    def backward(self, grad_output):
        back = super().backward(grad_output)
        self.kept = None
        return back


VARIANTS = [ByHand, SequenceBySequence, Composed, AllInDouble, LogSpace, OneVector,
            ForgetsAfterwards]
