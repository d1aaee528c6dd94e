"""The learning rate of every step. Pure arithmetic: knows nothing of weights, configs or time."""

import math
from typing import Literal

Kind = Literal["cosine", "linear", "constant"]


def learning_rate(step: int, *, lr: float, min_lr: float, warmup_steps: int, steps: int, kind: Kind) -> float:
    """The learning rate of `step`, counted from 1.

    It climbs in equal parts from `lr / warmup_steps` at step 1 to `lr` at step `warmup_steps`, then falls
    to `min_lr` at step `steps`; `constant` stays at `lr`. Without warm-up step 1 has `lr`, as with a
    warm-up of one step. Where the peak is the last step (warmup_steps == steps, or one step in all) that
    step has `lr`. After `steps` it is `min_lr`, or `lr` when constant.
    """
    assert step >= 1, step
    peak = max(warmup_steps, 1)
    if kind == "constant":
        return lr if step >= peak else lr * step / peak
    if step > steps:
        return min_lr
    if step <= peak:
        return lr if step == peak else lr * step / peak
    fallen = (step - peak) / (steps - peak)  # 0 at the peak, exactly 1 at the last step
    if fallen == 1.0:
        return min_lr
    left = 0.5 * (1.0 + _cosine_of_half_turns(fallen)) if kind == "cosine" else 1.0 - fallen
    return min_lr + (lr - min_lr) * left


def _cosine_of_half_turns(x: float) -> float:
    """cos(pi x) for 0 <= x <= 1, within 2 ulp of 1, by its series: a C library's may differ from one to the
    next. Everything that follows from the schedule depends on it."""
    if x > 0.5:
        return -_cosine_of_half_turns(1.0 - x)
    angle = math.pi * (x if x <= 0.25 else 0.5 - x)
    term, total = (1.0, 1.0) if x <= 0.25 else (angle, angle)
    for n in range(1 if x <= 0.25 else 2, 20, 2):
        term *= -angle * angle / (n * (n + 1))
        total += term
    return total
