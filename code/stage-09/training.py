"""Training: loss, AdamW over trainable parameters only, schedule, and a loop that emits events.

Nothing here knows a method or draws a picture. `fit` asks the model for `parameters()` and
`gradients()`, and calls whoever subscribed: a progress bar, a live curve, a recorder.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi, sqrt
from typing import Any

import numpy as np

from names import IGNORE, check_list, make_batch
from validation import check_positive, check_shape


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood over the scored tokens, and its gradient.

    Parameters
    ----------
    logits : (..., vocab)
    targets : (...) integers; `IGNORE` (-100) is not scored

    Returns
    -------
    loss : float, nats per token
    grad : (..., vocab), dLoss/dlogits; zero where the target is ignored

    Raises
    ------
    TypeError
        Logits that are not floating-point, targets that are not integers.
    ValueError
        Shapes that do not fit, a target outside the vocabulary, or nothing to score.
    """
    check_shape("logits", logits, (..., None))
    if not isinstance(targets, np.ndarray) or not np.issubdtype(targets.dtype, np.integer):
        raise TypeError(f"targets must be an integer array, got "
                        f"{getattr(targets, 'dtype', type(targets).__name__)}; convert them with "
                        "np.asarray(targets, dtype=np.int64)")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets must have shape {logits.shape[:-1]}, got {targets.shape}")
    vocab = logits.shape[-1]
    rows, wanted = logits.reshape(targets.size, vocab), targets.ravel()  # (n, vocab), (n,)
    scored = np.flatnonzero(wanted != IGNORE)  # rows that count
    wanted = wanted[scored]
    if scored.size == 0:
        raise ValueError("every target is ignored: there is nothing to score")
    if wanted.min() < 0 or wanted.max() >= vocab:
        raise ValueError(f"targets must be 0 to {vocab - 1} or {IGNORE}, got "
                         f"{wanted.min()} to {wanted.max()}")
    rows = rows[scored]
    rows = rows - rows.max(axis=1, keepdims=True)
    p = np.exp(rows)  # (scored, vocab)
    wide = np.result_type(p, np.float32)  # a sum in float16 ends at 65,504
    total = p.sum(axis=1, keepdims=True, dtype=wide)  # (scored, 1)
    own = np.arange(len(scored))
    loss = np.log(total[:, 0]).mean(dtype=np.float64) - rows[own, wanted].mean(dtype=np.float64)
    p = p / total  # (scored, vocab), in the wider dtype
    p[own, wanted] -= 1.0
    p /= len(scored)
    grad = np.zeros((targets.size, vocab), logits.dtype)
    grad[scored] = p
    return float(loss), grad.reshape(logits.shape)


class AdamW:
    """Adam with decoupled weight decay, over the parameters that it is given and no others.

    A frozen weight must not be given with a zero gradient: decay would shrink it all the same.

    Parameters
    ----------
    parameters : dict of str to array; updated in place. Of float16 the state is kept in float32:
        the square of 1e-4 is already nothing there
    lr : float, used when `step` is given none
    betas, eps, weight_decay : as in PyTorch

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101, algorithm 2.
    """

    def __init__(self, parameters: dict[str, np.ndarray], lr: float = 1e-3, *,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0):
        if not parameters:
            raise ValueError("no trainable parameters: plug a method into the model, or call "
                             "set_trainable() for full fine-tuning")
        for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
            if not 0 <= beta < 1:  # at 1 the averages would never move; NaN is caught, too
                raise ValueError(f"{name} must be at least 0 and below 1, got {beta}")
        self.parameters, self.lr, self.betas = parameters, check_positive("lr", lr), betas
        self.eps, self.weight_decay, self.steps = eps, weight_decay, 0
        for name, array in parameters.items():
            if not array.flags.writeable:
                raise ValueError(f"{name} is read-only, and training writes to it: give the model "
                                 "a copy, array.copy()")
        self.first, self.second = ({name: np.zeros(a.shape, np.result_type(a, np.float32))
                                    for name, a in parameters.items()} for _ in range(2))

    def step(self, gradients: dict[str, np.ndarray], lr: float | None = None) -> None:
        """One update. KeyError if a parameter has no gradient, ValueError if its shape is another.

        ValueError, too, if `lr` is negative or not finite, and FloatingPointError if a gradient's
        square is not finite; all of them before anything is changed.
        """
        lr = self.lr if lr is None else lr
        if not (isfinite(lr) and lr >= 0):  # a schedule may end at 0
            raise ValueError(f"lr must be finite and not negative, got {lr}")
        for name, w in self.parameters.items():
            check_shape(f"the gradient of {name}", gradients[name], w.shape)
            # an infinite average would freeze the parameter for ever
            limit = sqrt(np.finfo(self.second[name].dtype).max)
            largest = float(np.abs(gradients[name]).max())
            if not largest < limit:  # NaN is caught, too
                raise FloatingPointError(f"the gradient of {name} reaches {largest:.3g}, too large "
                                         f"to square; clip it to below {limit:.3g}")
        beta_1, beta_2 = self.betas
        self.steps += 1
        for name, w in self.parameters.items():
            m, v = self.first[name], self.second[name]
            g = gradients[name].astype(v.dtype, copy=False)
            m *= beta_1
            m += (1 - beta_1) * g
            v *= beta_2
            v += (1 - beta_2) * (g * g)
            m_hat = m / (1 - beta_1 ** self.steps)  # both start at zero: this takes it out again
            v_hat = v / (1 - beta_2 ** self.steps)
            w *= 1 - lr * self.weight_decay
            w -= lr * m_hat / (np.sqrt(v_hat) + self.eps)

    def nbytes(self) -> int:
        """Bytes of the state: two arrays per trainable parameter."""
        return sum(a.nbytes for state in (self.first, self.second) for a in state.values())


def clip_gradients(gradients: dict[str, np.ndarray], max_norm: float) -> float:
    """Scale all gradients in place so that their joint norm is at most `max_norm`.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    ValueError
        `max_norm` is negative or NaN.
    FloatingPointError
        The norm is not finite: the run has diverged.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must not be negative, got {max_norm}; math.inf never scales")

    def square(least):
        """Sum of all squares, computed in this dtype or a wider one."""
        wide = (g.astype(np.result_type(g, least), copy=False) for g in gradients.values())
        return sum(float(np.vdot(g, g)) for g in wide)

    with np.errstate(over="ignore"):
        norm = sqrt(square(np.float32))
    if not isfinite(norm):  # perhaps only in float32
        norm = sqrt(square(np.float64))
    if not isfinite(norm):
        raise FloatingPointError(f"the gradient's norm is {norm}: the run has diverged; "
                                 "lower the learning rate")
    if norm > max_norm:
        for g in gradients.values():
            g *= max_norm / norm
    return norm


def cosine_schedule(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up to `peak`, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))


@dataclass
class Event:
    """What a subscriber hears: after every step, and with `evaluated` set after an evaluation."""

    step: int  # steps done
    steps: int  # steps in all
    loss: float | None  # of the batch; None in the evaluation before the first step
    lr: float | None
    grad_norm: float | None  # before clipping
    evaluated: dict[str, float] | None = None  # loss by name of the data


def evaluate(model: Any, names: Sequence[str], batch_size: int = 64) -> float:
    """Loss in nats per character (boundary included), the mean over all characters of `names`."""
    ordered = sorted(check_list(names), key=len)  # equal lengths together: less filling up
    total, count = 0.0, 0
    for start in range(0, len(ordered), batch_size):
        inputs, targets = make_batch(ordered[start:start + batch_size])
        scored = int((targets != IGNORE).sum())
        total += cross_entropy(model.forward(inputs), targets)[0] * scored
        count += scored
    if count == 0:
        raise ValueError("names is empty: nothing to evaluate")
    return total / count


def fit(model: Any, data: Iterator[tuple[np.ndarray, np.ndarray]], *, steps: int, lr: float,
        warmup: int = 20, weight_decay: float = 0.0, max_norm: float = 1.0,
        evaluations: dict[str, Sequence[str]] | None = None, every: int = 50,
        callbacks: Iterable[Callable[[Event], Any]] = ()) -> AdamW:
    """Train what is trainable.

    Parameters
    ----------
    model : forward(inputs), backward(grad), parameters(), gradients()
    data : iterator of (inputs, targets), e.g. `names.batches(...)`
    steps, lr, warmup : see `cosine_schedule`; lr is the peak
    weight_decay : see `AdamW`
    max_norm : see `clip_gradients`
    evaluations : names to evaluate on, by a name for them
    every : int
        Steps between evaluations; there is one before the first step and one after the last.
    callbacks : called with each `Event`; one that returns True ends the training

    Returns
    -------
    AdamW
        The optimizer, whose state can be measured.

    Raises
    ------
    ValueError
        Nothing is trainable, a number of steps below 1, or `data` that end before the last step.
    FloatingPointError
        The run has diverged.
    """
    if steps < 1 or every < 1 or warmup < 0:
        raise ValueError(f"steps and every must be at least 1 and warmup at least 0, "
                         f"got {steps}, {every}, {warmup}")
    optimizer = AdamW(model.parameters(), lr, weight_decay=weight_decay)
    callbacks = tuple(callbacks)

    def emit(event: Event) -> bool:
        if evaluations and (event.step % every == 0 or event.step == steps):
            event.evaluated = {key: evaluate(model, names) for key, names in evaluations.items()}
        answers = [callback(event) for callback in callbacks]  # all of them, before deciding
        return True in answers

    if emit(Event(0, steps, None, None, None)):
        return optimizer
    for event in train(model, optimizer, data, steps=steps, max_norm=max_norm,
                       rate=lambda step: cosine_schedule(step, steps, lr, warmup)):
        if emit(event):
            break
    return optimizer


def train(model: Any, optimizer: AdamW, data: Iterator[tuple[np.ndarray, np.ndarray]], *,
          steps: int, rate: Callable[[int], float], max_norm: float = 1.0) -> Iterator[Event]:
    """The steps of `fit`, one whenever the next event is asked for.

    Parameters
    ----------
    rate : the learning rate of step 0, 1, ...
    model, data, steps, max_norm : see `fit`, as what is raised

    Yields
    ------
    Event
        After each step.
    """
    for step in range(steps):
        inputs, targets = _next_batch(data, step, steps)
        loss, grad = cross_entropy(model.forward(inputs), targets)
        model.backward(grad)
        gradients = model.gradients()
        norm = clip_gradients(gradients, max_norm)
        lr = rate(step)
        optimizer.step(gradients, lr)
        yield Event(step + 1, steps, loss, lr, norm)


def _next_batch(data: Iterator, step: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """ValueError when there is none: StopIteration would end a loop of the caller in silence."""
    try:
        return next(data)
    except StopIteration:
        raise ValueError(f"data ended after {step} of {steps} steps; give an endless iterator such "
                         "as names.batches(...), or ask for fewer steps") from None


class Recorder:
    """A subscriber that keeps the curves: `.steps` and `.losses`, a list per evaluated name."""

    def __init__(self):
        self.steps: list[int] = []
        self.losses: dict[str, list[float]] = {}
        self.batch_losses: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.loss is not None:
            self.batch_losses.append(event.loss)
        if event.evaluated is not None:
            self.steps.append(event.step)
            for name, loss in event.evaluated.items():
                self.losses.setdefault(name, []).append(loss)


class ProgressBar:
    """A subscriber that shows a tqdm bar with the latest losses."""

    def __init__(self, label: str = "training"):
        self.label, self.bar = label, None

    def __call__(self, event: Event) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm  # only who wants a bar needs it
            self.bar = tqdm(total=event.steps, desc=self.label)
        self.bar.update(event.step - self.bar.n)
        if event.evaluated is not None:
            self.bar.set_postfix({key: f"{value:.3f}" for key, value in event.evaluated.items()})
        if event.step == event.steps:
            self.bar.close()
