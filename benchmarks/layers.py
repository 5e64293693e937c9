"""Each method's forward and backward, as a ratio to the bare products that nothing can avoid.

    make bench

The limit is what cannot be left out, into preallocated outputs: for LoRA the two products with the
frozen weight, for an adapter its six, for attention with a prefix its projections and its products
of queries, keys and values; for a soft prompt there is no product, only the copy. Beside ours stand
the same operations in PyTorch with its own limit: LoRA in Hugging Face PEFT, the rest in eager
mode.
"""

import sys

import sides

#: width, batch, time
SIZES = [(256, 1, 32), (1024, 4, 256), (4096, 2, 256)]
RANKS, BOTTLENECK, PREFIX, PROMPT, HEAD = [8, 64], 64, 10, 20, 64


def cases():
    """{label: (case, sides)} for `sides.compare`."""
    made = {}
    for width, batch, time in SIZES:
        size = {"width": width, "batch": batch, "time": time}
        tokens = batch * time
        for rank in RANKS:
            made[f"LoRA, rank {rank}", width, tokens] = {"method": "lora", "rank": rank} | size
        for method in ("adapter", "prefix", "prompt"):
            made[method, width, tokens] = {"method": method} | size
        made["merged", width, tokens] = {"method": "merged"} | size
    return {" | ".join(map(str, key)):
            (case, ["ours"] if case["method"] == "merged" else ["ours", "theirs"])
            for key, case in made.items()}


def our_prefix(normal, into, x, g, B):
    """Attention with a prefix, in NumPy."""
    import numpy as np

    import llama
    import peft

    rng = np.random.default_rng(0)
    d, T = x.shape[1], len(x) // B
    H = d // HEAD
    config = llama.LlamaConfig(2, d, d, 1, H, H, max_position_embeddings=PREFIX + T)
    weights = [normal(d, d) / np.float32(d ** 0.5) for _ in range(4)]
    layer = llama.Attention(config, 0, *weights)
    prefix = peft.PrefixTuning(1, H, HEAD, PREFIX, rng=rng)
    angles = llama.Llama(config, llama.random_weights(config, rng)).angles[PREFIX:]
    rotation = llama.Rotation(angles, np.float32)
    mask = np.triu(np.full((T, PREFIX + T), -np.inf, np.float32), PREFIX + 1)
    run = llama.Run(B, T, mask, rotation, prefix)

    def step():
        layer.forward(x, run)
        layer.backward(g, run)
    q, p = normal(B, H, T, HEAD), normal(B, H, T, PREFIX + T)
    k, pt = normal(B, H, PREFIX + T, HEAD), p.swapaxes(-1, -2)
    kt = k.swapaxes(-1, -2)
    bare = into(*((x, weight.T) for weight in weights),
                *((g, weight) for weight in weights),
                (q, kt), (p, k), (pt, q), (q, kt), (p, k), (pt, q))
    return {"bare": bare, "layer": step}


def ours(case):
    """Bare products and the reference, in NumPy."""
    import numpy as np

    import llama
    import peft

    rng = np.random.default_rng(0)
    d, B, T = case["width"], case["batch"], case["time"]
    n = B * T

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    def into(*shapes):
        """A product and a place for its result: (left, right) -> nothing."""
        pairs = [(left, right, np.empty(np.matmul(left, right).shape, np.float32))
                 for left, right in shapes]
        return lambda: [np.matmul(left, right, out=out) for left, right, out in pairs]

    x, g, W = normal(n, d), normal(n, d), normal(d, d)
    match case["method"]:
        case "lora":
            layer = peft.LoRALayer(d, d, case["rank"], rng=rng)

            def step():
                layer.forward(x, W)
                layer.backward(g)
            return {"bare": into((x, W.T), (g, W)), "layer": step}
        case "merged":
            merged = llama.Linear(peft.LoRALinear(W, rng=rng).merge()[0])
            return {"bare": lambda: x @ W.T, "layer": lambda: merged.forward(x)}
        case "adapter":
            layer = peft.Adapter(d, BOTTLENECK, rng=rng)
            down, up, a = layer.W_down, layer.W_up, normal(n, BOTTLENECK)

            def step():
                layer.forward(x)
                layer.backward(g)
            return {"bare": into((x, down), (a, up), (a.T, g), (g, up.T), (x.T, a), (a, down.T)),
                    "layer": step}
        case "prefix":
            return our_prefix(normal, into, x, g, B)
        case "prompt":
            layer, x = peft.PromptTuning(d, PROMPT, rng=rng), x.reshape(B, T, d)
            both, grad = np.empty((B, PROMPT + T, d), np.float32), normal(B, PROMPT + T, d)

            def copy():
                both[:, :PROMPT], both[:, PROMPT:] = layer.prompt, x

            def step():
                layer.forward(x)
                layer.backward(grad)
            return {"bare": copy, "layer": step}


def their_prefix(normal, into, x, g, B):
    """Attention with a prefix, in PyTorch; the step's function, its input and what is trained."""
    import torch
    from torch.nn.functional import linear

    (n, d), T = x.shape, len(x) // B
    H = d // HEAD
    weights = [normal(d, d) / d ** 0.5 for _ in range(4)]
    keys, values = (0.01 * normal(PREFIX, H, HEAD) for _ in range(2))
    frequencies = 10000.0 ** (-torch.arange(HEAD // 2) / (HEAD // 2))
    angles = torch.outer(torch.arange(PREFIX, PREFIX + T), frequencies).repeat(1, 2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # (T, 1, dh)
    mask = torch.full((T, PREFIX + T), -torch.inf).triu(PREFIX + 1)

    def rotate(y):  # (B, T, H, dh)
        a, b = y.chunk(2, dim=-1)
        return y * cos + torch.cat([-b, a], dim=-1) * sin

    def attention(x):
        q, k, v = (linear(x, weight).view(B, T, H, HEAD) for weight in weights[:3])
        q, k = rotate(q), rotate(k)
        k = torch.cat([keys.expand(B, -1, -1, -1), k], dim=1).transpose(1, 2)
        v = torch.cat([values.expand(B, -1, -1, -1), v], dim=1).transpose(1, 2)
        p = torch.softmax(q.transpose(1, 2) @ k.mT * HEAD ** -0.5 + mask, dim=-1)
        return linear((p @ v).transpose(1, 2).reshape(n, d), weights[3])

    q, p = normal(B, H, T, HEAD), normal(B, H, T, PREFIX + T)
    k = normal(B, H, PREFIX + T, HEAD)
    bare = into(*((x, weight.T) for weight in weights),
                *((g, weight) for weight in weights),
                (q, k.mT), (p, k), (p.mT, q), (q, k.mT), (p, k), (p.mT, q))
    return bare, attention, (keys, values)


def theirs(case):
    """The same in PyTorch."""
    import peft
    import torch

    torch.set_num_threads(int(sides.THREADS))
    torch.manual_seed(0)
    d, B, T = case["width"], case["batch"], case["time"]
    n, normal = B * T, torch.randn

    def into(*shapes):
        pairs = [(left, right, left @ right) for left, right in shapes]

        def run():
            with torch.no_grad():
                for left, right, out in pairs:
                    torch.matmul(left, right, out=out)
        return run

    def forward_and_backward(function, inputs, grad, trained):
        """One step, with the gradients thrown away before the next."""
        for array in (inputs, *trained):
            array.requires_grad_()

        def step():
            for array in (inputs, *trained):
                array.grad = None
            function(inputs).backward(grad)
        return step

    x, g, W = normal(n, d), normal(n, d), normal(d, d)
    match case["method"]:
        case "lora":
            plain = torch.nn.Sequential(torch.nn.Linear(d, d, bias=False))
            config = peft.LoraConfig(r=case["rank"], lora_alpha=16, target_modules=["0"])
            layer = peft.get_peft_model(plain, config).base_model.model[0]
            trained = [p for p in layer.parameters() if p.requires_grad]
            return {"bare": into((x, W.T), (g, W)),
                    "layer": forward_and_backward(layer, x.clone(), g, trained)}
        case "adapter":
            down, up, a = normal(d, BOTTLENECK), normal(BOTTLENECK, d), normal(n, BOTTLENECK)
            bare = into((x, down), (a, up), (a.T, g), (g, up.T), (x.T, a), (a, down.T))
            own = down.clone(), up.clone()
            return {"bare": bare, "layer": forward_and_backward(
                lambda x: x + torch.relu(x @ own[0]) @ own[1], x.clone(), g, own)}
        case "prefix":
            bare, *made = their_prefix(normal, into, x, g, B)
            return {"bare": bare, "layer": forward_and_backward(made[0], x.clone(), g, made[1])}
        case "prompt":
            prompt, x = 0.01 * normal(PROMPT, d), x.view(B, T, d)
            both, grad = torch.empty(B, PROMPT + T, d), normal(B, PROMPT + T, d)
            start = prompt.clone()

            def copy():
                both[:, :PROMPT], both[:, PROMPT:] = start, x
            return {"bare": copy, "layer": forward_and_backward(
                lambda x: torch.cat([prompt.expand(B, -1, -1), x], dim=1), x.clone(), grad,
                (prompt,))}


def main():
    rows, versions = sides.compare(__file__, cases())
    print("\nforward and backward, ratio to the bare products; float32, two threads\n"
          f"{'method':16} {'width':>5} {'tokens':>6} {'ours':>9} {'ratio':>6} "
          f"{'theirs':>9} {'ratio':>6}  ours / theirs")
    for label, row in rows.items():
        method, width, tokens = label.split(" | ")
        line = f"{method:16} {width:>5} {tokens:>6}"
        for side in ("ours", "theirs"):
            if side in row:
                layer, bare = row[side]["layer"], row[side]["bare"]
                line += f" {layer * 1e3:6.2f} ms {layer / bare:6.2f}"
        if "theirs" in row:
            line += f"  {row['ours']['layer'] / row['theirs']['layer']:.2f}"
        print(line)
    sides.record("layers", versions=versions, rows=rows)


if __name__ == "__main__":
    sides.serve({"ours": ours, "theirs": theirs}[sys.argv[1]]) if len(sys.argv) > 1 else main()
