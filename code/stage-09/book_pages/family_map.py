"""The map at the end of the page on the family: nineteen more methods, as data, and its two tables.

Letters are the book's: a weight W is (out, in), h = x W^T, an update s B A. A formula is TeX, one
line for each string. What a row says of Hugging Face PEFT is asked of the installed package by the
tests, and so are the files that stand as a source where there is no paper.
"""

from typing import NamedTuple

from IPython.display import HTML

from book_pages.pages import Formula, Link, table


class InPeft(NamedTuple):
    """Where PEFT has a method: a class or function of it, or an option of a class and its value."""

    name: str
    option: str = ""
    value: object = None

    def __str__(self) -> str:
        quoted = f'{self.option}="{self.value}"' if isinstance(self.value, str) else self.option
        return quoted or self.name


class Row(NamedTuple):
    """One method.

    Attributes
    ----------
    formula : lines of TeX
    source : an arXiv number, or the file of PEFT that is the source if no paper is
    peft : where PEFT has it, or None; `note` says what is to be said besides
    """

    method: str
    idea: str
    formula: tuple[str, ...]
    trains: str
    where: str
    start: str
    sharing: str
    merges: str
    source: str
    peft: InPeft | None
    note: str = ""


def _init(value: str) -> InPeft:
    return InPeft("LoraConfig", "init_lora_weights", value)


LINEAR, CONVOLUTION = "linear layers", "linear, convolution"
ROWS = (
    Row("OLoRA", "LoRA from the QR of W", (
            r"W = Q R,\ B = Q_{:,1:r},\ A = R_{1:r,:}", r"W_\text{res} = W - s\,B A"),
        "A, B", LINEAR, "first columns of Q, rows of R", "none", "yes", "2406.01775",
        _init("olora")),
    Row("EVA", "A is what the layer's inputs vary along; ranks go where they explain most", (
            r"X = U \Sigma V^\top,\ A = V_{1:r}^\top,\ B = 0",
            r"r \text{ by } \sigma_i^2 / \textstyle\sum_j \sigma_j^2"),
        "A, B", LINEAR, "A from data, B = 0", "one budget of ranks", "yes", "2410.07170",
        _init("eva"), "it takes the mean off X"),
    Row("LoRA-GA", "A, B from the singular vectors of the first gradient; γ is chosen", (
            r"\nabla_W \mathcal{L} = U \Sigma V^\top",
            r"A = c\,V_{1:r}^\top,\ B = c\,U_{r+1:2r}",
            r"c = d_\text{out}^{1/4} / \sqrt{\gamma},\ W_\text{res} = W - s\,B A"),
        "A, B", LINEAR, "from a gradient; taken off W", "none", "yes", "2407.05000",
        _init("lora_ga"), "c and Σ on B alone"),
    Row("LoRA-FA", "LoRA with A frozen: x Aᵀ is all that backward keeps; the gradient g of B is "
        "corrected", (
            r"h = x W^\top + s\,(x A^\top) B^\top", r"\tilde g_B = g_B (A A^\top)^{-1} / s^2"),
        "B", LINEAR, "A random, B = 0", "none", "yes", "2308.03303",
        InPeft("optimizers.create_lorafa_optimizer")),
    Row("AdaLoRA", "the least important entries of the diagonal Λ are cut while it trains", (
            r"\Delta W = P \Lambda Q", r"P^\top P \approx Q Q^\top \approx I"),
        "P, Λ, Q", LINEAR, "Λ = 0", "one budget of ranks", "yes", "2303.10512",
        InPeft("AdaLoraConfig"), "times α / r"),
    Row("LoHa", "entrywise, so ranks multiply", (
            r"\Delta W = s\,(B_1 A_1) \odot (B_2 A_2)",),
        "four thin matrices", CONVOLUTION, "one of them zero", "none", "yes", "2108.06098",
        InPeft("LoHaConfig")),
    Row("LoKr", "a Kronecker product", (r"\Delta W = s\,C \otimes (B A)",),
        "C, B, A", CONVOLUTION, "C = 0", "BA stands in every block, times an entry of C", "yes",
        "2309.14859", InPeft("LoKrConfig")),
    Row("BOFT", "OFT as a product of sparse rotations, as in a fast Fourier transform", (
            r"W' = \operatorname{diag}(c)\,W R^\top",
            r"R = R_m \cdots R_1,\ R_i = P_i D_i P_i^\top",
            r"D_i \text{ of blocks } (I - Q)(I + Q)^{-1}", r"Q^\top = -Q"),
        "the Q of each block, and c", CONVOLUTION, "R = I, c = 1", "none", "yes", "2311.06243",
        InPeft("BOFTConfig"), "m = 1 without its CUDA kernel"),
    Row("MiSS", "x folded into r sums of features, times D", (
            r"h = x W^\top + \bigl(\textstyle\sum_j x_{[j]}\bigr) D",
            r"x = (x_{[1]}, x_{[2]}, \dots),\ x_{[j]} \in \mathbb{R}^r"),
        "D, (r, out)", LINEAR, "D = 0", "a row of D serves many inputs", "yes", "2409.15371",
        InPeft("MissConfig")),
    Row("TinyLoRA", "singular parts frozen, P random, the numbers v train", (
            r"W = U \Sigma V^\top", r"\Delta W = U_r \Sigma_r \bigl(\textstyle\sum_i v_i P_i\bigr) "
            r"V_r^\top"),
        "v, down to one number", LINEAR, "v small, random (paper)", "one v for many layers", "yes",
        "2602.04118", InPeft("TinyLoraConfig"), "√Σ on both sides of the sum; v = 0 at the start"),
    Row("BitFit", "biases alone", (r"h = x W^\top + b + \Delta b",),
        "biases", "wherever there are some", "as pretrained", "none", "is merged already",
        "2106.10199", InPeft("BeftConfig"),
        'on chosen layers; bias="all" of LoraConfig trains them beside LoRA'),
    Row("LISA", "full fine-tuning of γ layers, drawn anew every K steps", (
            r"W_\ell \leftarrow W_\ell - \eta\,[\ell \in S]\,u_\ell",
            r"S \subset \{1, \dots, L\},\ |S| = \gamma", r"u_\ell \text{: AdamW's step}"),
        "the drawn layers, and always embedding and head", "whole layers", "as pretrained", "none",
        "nothing to merge", "2403.17919", None),
    Row("trainable tokens", "a few rows T of the embedding are others", (
            r"E'_i = D_i \text{ for } i \in T", r"E'_i = E_i \text{ for } i \notin T"),
        "D, rows of the embedding", "embedding", "as pretrained", "none", "yes",
        "tuners/trainable_tokens/layer.py", InPeft("TrainableTokensConfig")),
    Row("aLoRA", "LoRA from the token t₀ on that invokes it: before it the cache is the base's", (
            r"h_t = x_t W^\top + {[t \ge t_0]}\,s\,(x_t A^\top) B^\top",),
        "A, B", "attention", "as LoRA", "the base's cache", "no", "2504.12397",
        InPeft("LoraConfig", "alora_invocation_tokens", [1])),
    Row("LoRA per expert", "a pair of its own for each expert e of a mixture", (
            r"W'_e = W_e + s\,B_e A_e",),
        "A_e, B_e", "stacked experts", "as LoRA", "none", "yes", "tuners/lora/layer.py",
        InPeft("LoraConfig", "target_parameters", ["experts.weight"])),
    Row("LoftQ", "a quantized weight and a LoRA that are together as close to W as can be", (
            r"\min_{Q, A, B} \lVert W - Q - B A \rVert_F",
            r"Q = q(W - B A)", r"B A = \operatorname{SVD}_r(W - Q)"),
        "A, B", "quantized layers", "SVD of what rounding lost", "none", "into a wide weight",
        "2310.08659", _init("loftq")),
    Row("QA-LoRA", "inputs averaged in the groups of the quantization, then LoRA", (
            r"h = x \widetilde{W}^\top + s\,(\bar x A^\top) B^\top",
            r"\bar x_j = \text{mean of group } j"),
        "A, B", "quantized layers", "as LoRA", "a column of A for each group",
        "into the zero points (paper)", "2309.14717", InPeft("LoraConfig", "use_qalora", True),
        "without the merge; x̄ times the number of groups"),
    Row("Text-to-LoRA", "a network reads a task's description and writes A, B", (
            r"(A_{m,\ell}, B_{m,\ell}) = f_\theta(z, e_m, e_\ell)",
            r"z \text{: the text; } e_m, e_\ell \text{: module, layer}"),
        "θ, that network", "outside the model", "a trained network", "one for all tasks",
        "what it writes does", "2506.06105", None, "no; it writes LoRA's files"),
    Row("S-LoRA", "no training: thousands of adapters over one base, batched together", (
            r"h_i = x_i W^\top + s_{k(i)}\,(x_i A_{k(i)}^\top) B_{k(i)}^\top",
            r"k(i) \text{: the adapter of request } i"),
        "nothing", "the server", "–", "the base", "on purpose not", "2311.03285", None),
)


def _source(row: Row) -> str | Link:
    return f"PEFT, {row.source}; no paper" if row.source.endswith(".py") else Link(
        f"arXiv {row.source}", f"https://arxiv.org/abs/{row.source}")


def formulas() -> HTML:
    """What each method computes, and where that is from."""
    return table(["method", "in one line", "formula", "source"],
                 [[row.method, row.idea, Formula("\n".join(row.formula)), _source(row)]
                  for row in ROWS], caption="Nineteen more: what they compute")


def questions() -> HTML:
    """The answers to the five questions, and where PEFT has the method."""
    return table(["method", "what trains", "where", "start", "sharing", "merges", "in PEFT"],
                 [[row.method, row.trains, row.where, row.start, row.sharing, row.merges,
                   "; ".join(filter(None, [str(row.peft or ""), row.note])) or "no"]
                  for row in ROWS], caption="The same nineteen, by the five questions")
