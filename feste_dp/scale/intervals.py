"""95 % intervals from a few rounds, on the logarithms: rates differ by factors. Pure."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feste_dp.scale.study import Interval

METHOD = (
    "95 %: Student's t on the logarithms of the rounds' values, around their median; speed-up and efficiency "
    "from the ratio within each round, so that drift of the machine cancels; fits and their curves: the law "
    "fitted to 2,000 draws of the counts' mean logarithms, from Student's t with the rounds' own scatter, "
    "central 95 % of the draws"
)
_LEVEL = 0.975
_EXACT_T = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646}
DRAWS = 2000


def student_t(freedom: int) -> float:
    """The 97.5 % point of Student's t.

    Source: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5; off by less than
    5e-4 above seven degrees of freedom.
    """
    if freedom in _EXACT_T:
        return _EXACT_T[freedom]
    z = statistics.NormalDist().inv_cdf(_LEVEL)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def interval(values: Sequence[float]) -> Interval:
    """The median of positive values and the interval of their mean; without ends for a single one."""
    median = statistics.median(values)
    if len(values) < 2:
        return Interval(median)
    logs = [math.log(value) for value in values]
    middle = statistics.fmean(logs)
    reach = student_t(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(median, min(median, math.exp(middle - reach)), max(median, math.exp(middle + reach)))


def draws_of_rates(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """(DRAWS, counts) plausible typical rates, from rates (rounds, counts), at least two rounds.

    Rounds are drawn whole, so that what slowed one down slows it for all counts. The same draws each time.
    """
    rounds = len(rates)
    generator = np.random.Generator(np.random.Philox(key=[rounds, rates.shape[1]]))
    logs = np.log(rates)
    scatter = (logs - logs.mean(axis=0)) / math.sqrt(rounds * (rounds - 1))
    normal = generator.standard_normal((DRAWS, rounds))
    scale = np.sqrt(generator.chisquare(rounds - 1, (DRAWS, 1)) / (rounds - 1))
    drawn: NDArray[np.float64] = np.exp(logs.mean(axis=0) + normal @ scatter / scale)
    return drawn


def interval_of_draws(value: float, draws: Sequence[float]) -> Interval:
    """The value and the central 95 % of the draws; without ends when there are none."""
    if not len(draws):
        return Interval(value)
    low, high = np.quantile(draws, (1 - _LEVEL, _LEVEL))
    return Interval(value, min(value, float(low)), max(value, float(high)))
