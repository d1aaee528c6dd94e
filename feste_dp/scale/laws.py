"""Amdahl's, Gustafson's and the Universal Scalability Law, fitted to rates at several worker counts. Pure.

Each law is a sum of terms with coefficients that cannot be negative, so that fractions stay within 0 .. 1:

    Amdahl      N / X(N) = p + q N                  X1 = 1 / (p + q), s = q / (p + q)
    USL         N / X(N) = p + q N + r N (N - 1)    the same, s called contention, and coherency r / (p + q)
    Gustafson       X(N) = p N + q                  X1 = p + q, s = q / (p + q)

The least squares are of relative errors. With r = 0 USL is Amdahl's law, with the same serial fraction.

Sources: G. Amdahl, "Validity of the single processor approach" (1967); J. Gustafson, "Reevaluating Amdahl's
law" (1988); N. Gunther, "Guerrilla Capacity Planning" (2007), chapter 4.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feste_dp.scale.intervals import draws_of_rates, interval_of_draws
from feste_dp.scale.study import CurvePoint, Fit, Interval, Kind, Law
from feste_dp.wording import counted

FARTHEST = 128
_GOES_THROUGH = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """One law: its formula, its terms (N,) -> (N, terms), and whether they add up to N / X or to X."""

    law: Law
    formula: str
    terms: Callable[[Array], Array]
    inverse: bool


AMDAHL = Form(
    "Amdahl", "X(N) = X1 N / (1 + s (N - 1))", lambda n: np.stack([np.ones_like(n), n], axis=1), True
)
GUSTAFSON = Form(
    "Gustafson", "X(N) = X1 (N - s (N - 1))", lambda n: np.stack([np.ones_like(n), n], axis=1), False
)
USL = Form(
    "USL",
    "X(N) = X1 N / (1 + contention (N - 1) + coherency N (N - 1))",
    lambda n: np.stack([np.ones_like(n), n, n * (n - 1)], axis=1),
    True,
)
LAWS: dict[Kind, tuple[Form, Form]] = {"strong": (AMDAHL, USL), "weak": (GUSTAFSON, USL)}


def fit_laws(kind: Kind, counts: Sequence[int], rates: Array, unit: str = "worker") -> list[Fit]:
    """Both laws of this kind of study; rates (rounds, counts) tokens a second."""
    return [fit_law(form, counts, rates, unit) for form in LAWS[kind]]


def fit_law(form: Form, counts: Sequence[int], rates: Array, unit: str = "worker") -> Fit:
    n = np.array(counts, np.float64)
    terms = form.terms(n)
    needed = terms.shape[1]
    if len(counts) < needed:
        return Fit(
            form.law, form.formula, list(counts), {}, None, [],
            f"not fitted: {needed} parameters need as many counts within the physical cores, "
            f"there are {len(counts)}",
        )  # fmt: skip
    typical = np.median(rates, axis=0)
    best = coefficients(form, n, typical)
    drawn = [coefficients(form, n, draw) for draw in draws_of_rates(rates)] if len(rates) > 1 else []
    residual = float(np.abs(predict(form, n, best) / typical - 1).max())
    exact = residual < _GOES_THROUGH
    farthest = sorted({1 << power for power in range(FARTHEST.bit_length())} | set(counts))
    places = np.array(farthest, np.float64)
    values = predict(form, places, best)
    curves = np.array([predict(form, places, draw) for draw in drawn]).reshape(len(drawn), len(places))
    return Fit(
        law=form.law,
        formula=form.formula,
        counts=list(counts),
        parameters={
            name: interval_of_draws(value, [parameters(form, draw)[name] for draw in drawn])
            for name, value in parameters(form, best).items()
        }
        | _best_count(form, best),
        largest_residual=None if exact and len(counts) == needed else residual,
        curve=[
            CurvePoint(workers, interval_of_draws(float(values[i]), curves[:, i].tolist()))
            for i, workers in enumerate(farthest)
        ],
        note=_note(len(counts) == needed, len(rates), max(counts), unit),
    )


def coefficients(form: Form, n: Array, rates: Array) -> Array:
    """The terms' coefficients, none negative, with the least sum of squared relative errors."""
    target = n / rates if form.inverse else rates
    matrix = form.terms(n) / target[:, None]
    best, least = np.zeros(matrix.shape[1]), math.inf
    for size in range(1, matrix.shape[1] + 1):
        for chosen in itertools.combinations(range(matrix.shape[1]), size):
            part = matrix[:, chosen]
            solution = np.linalg.lstsq(part, np.ones(len(n)), rcond=None)[0]
            error = float(np.sum((part @ solution - 1) ** 2))
            # a term more must be worth something: an exact fit without it is not beaten by rounding
            if solution.min() >= 0 and error < least - _GOES_THROUGH**2:
                best, least = np.zeros(matrix.shape[1]), error
                best[list(chosen)] = solution
    return best


def predict(form: Form, n: Array, coefficients: Array) -> Array:
    total: Array = form.terms(n) @ coefficients
    return n / total if form.inverse else total


def parameters(form: Form, coefficients: Array) -> dict[str, float]:
    """The law's own parameters from the terms' coefficients."""
    first = float(coefficients[0] + coefficients[1])
    rate = {"tokens_per_second_of_one": 1 / first if form.inverse else first}
    serial = float(coefficients[1] if form.inverse else coefficients[0]) / first
    if form.law != "USL":
        return rate | {"serial_fraction": serial}
    return rate | {"contention": serial, "coherency": float(coefficients[2]) / first}


def _best_count(form: Form, best: Array) -> dict[str, Interval]:
    found = parameters(form, best)
    if form.law != "USL" or found["coherency"] <= 0:
        return {}
    return {"best_count": Interval(max(1.0, math.sqrt((1 - found["contention"]) / found["coherency"])))}


def _note(exact: bool, rounds: int, farthest: int, unit: str) -> str:
    parts = []
    if exact:
        parts.append("as many parameters as counts: the curve goes through them and nothing tests the law")
    if rounds < 2:
        parts.append("one round: no interval")
    else:
        parts.append("the interval covers the scatter of the rounds, not a doubt about the law")
    if farthest < FARTHEST:
        parts.append(f"beyond {counted(farthest, unit)} the curve is extrapolated")
    return "; ".join(parts)
