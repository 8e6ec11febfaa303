"""What a finite evaluation says about a policy: estimates with intervals.

What comes in: attempts or scores, grouped by task. What goes out: an `Interval`, or a pass@k estimate. Knows no
environment, trajectory or file; needs numpy and the standard library alone.

**Why by task.** The claim is about new tasks, and the attempts at one task resemble each other: eight attempts at one
hundred tasks say less than eight hundred tasks would. Let task i have k_i attempts with sum x_i, N = sum k_i over m
tasks, and p = sum x_i / N. The linearised variance of this ratio (Cochran, Sampling Techniques, 3rd ed., eq. 6.13) is

    v = m / (m - 1) * sum_i (x_i - k_i p)^2 / N^2

and `deff = v / (p (1 - p) / N)` is the design effect (Kish 1965): how many times larger than for independent
attempts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95


class IntervalDict(TypedDict):
    """An `Interval` as JSON: None where nothing can be said."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, its confidence limits, and how many attempts it rests on.

    What cannot be known is nan: everything with n = 0; the limits of a mean over a single task.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`0.950 [0.924, 0.967]`, the mean alone where there are no limits, `-` where nothing is known."""
        if math.isnan(self.mean):
            return "-"
        limits = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{limits}"

    def to_dict(self) -> IntervalDict:
        """Plain JSON values; nan becomes None, since JSON has no nan."""
        return {"mean": known(self.mean), "low": known(self.low), "high": known(self.high), "n": self.n}


UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion from n independent attempts (Wilson 1927).

    centre = (p + z^2/2n) / (1 + z^2/n), half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).

    Raises:
        ValueError: successes do not lie in [0, n], or the level not in (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n, got {successes} of {n}")
    if n == 0:
        return UNKNOWN
    low, high = _wilson_limits(successes / n, n, _normal_quantile(level))
    return Interval(successes / n, low, high, round(n))


def success_interval(per_task: Iterable[Sequence[bool | float]], level: float = LEVEL) -> Interval:
    """Success rate over all attempts, with limits that hold for new tasks.

    One attempt a task: Wilson's interval. More: Wilson's interval with the effective number of attempts N / deff in
    place of N and Student's quantile with m - 1 degrees of freedom in place of the normal one, since v is estimated
    (Korn and Graubard 1998 do the same to Clopper and Pearson's). deff is kept within [1, sum k_i^2 / N]; that upper
    bound is its value when all attempts at a task agree, and is taken where the data cannot tell: p in {0, 1}, m = 1.

    Args:
        per_task: for each task its attempts, 1 or True where it succeeded; a task without any is skipped.
        level: of confidence.

    Raises:
        ValueError: an attempt is neither 0 nor 1.
    """
    attempts_by_task = list(per_task)
    if any(attempt not in (0, 1) for attempts in attempts_by_task for attempt in attempts):
        raise ValueError("every attempt must be 0 or 1; use mean_interval for other scores")
    sums, counts = _by_task(attempts_by_task)
    if len(counts) == 0:
        return UNKNOWN
    total, tasks = float(counts.sum()), len(counts)
    rate = float(sums.sum()) / total
    if tasks == total:
        return wilson(float(sums.sum()), total, level)
    most = float((counts**2).sum()) / total
    if rate in (0.0, 1.0) or tasks == 1:
        deff, quantile = most, _normal_quantile(level)
    else:
        deff = _variance(sums, counts) / (rate * (1 - rate) / total)
        deff, quantile = min(max(deff, 1.0), most), student_quantile(tasks - 1, level)
    low, high = _wilson_limits(rate, total / deff, quantile)
    return Interval(rate, low, high, int(total))


def mean_interval(per_task: Iterable[Sequence[float]], level: float = LEVEL) -> Interval:
    """Mean of any scores: p -+ t sqrt(v), with Student's t of m - 1 degrees of freedom.

    With one score a task this is the ordinary t interval. With a single task the limits are nan.
    """
    sums, counts = _by_task(per_task)
    if len(counts) == 0:
        return UNKNOWN
    mean, total = float(sums.sum() / counts.sum()), int(counts.sum())
    if len(counts) == 1:
        return Interval(mean, math.nan, math.nan, total)
    half = student_quantile(len(counts) - 1, level) * math.sqrt(_variance(sums, counts))
    return Interval(mean, mean - half, mean + half, total)


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k attempts succeeds): 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, eq. 1).

    Raises:
        ValueError: there are fewer than k attempts, or successes do not lie in [0, n].
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n, got k={k} with n={n} attempts")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n, got {successes} of {n}")
    return 1.0 - math.comb(n - successes, k) / math.comb(n, k)


def pass_at_k_interval(per_task: Iterable[Sequence[bool | float]], k: int, level: float = LEVEL) -> Interval:
    """Mean of pass@k over the tasks that have at least k attempts; n counts those tasks.

    Where each of them has exactly k, a task's value is 0 or 1 and the interval is Wilson's; otherwise it is Student's,
    cut to [0, 1].
    """
    kept = [list(attempts) for attempts in per_task if len(attempts) >= k]
    values = [[pass_at_k(len(attempts), round(sum(attempts)), k)] for attempts in kept]
    if all(len(attempts) == k for attempts in kept):
        return success_interval(values, level)
    found = mean_interval(values, level)
    return Interval(found.mean, float(np.clip(found.low, 0, 1)), float(np.clip(found.high, 0, 1)), found.n)


def student_quantile(df: int, level: float = LEVEL) -> float:
    """Half width, in standard errors, of a two-sided Student interval.

    Closed forms for one and two degrees of freedom, else the expansion of Abramowitz and Stegun 26.7.5 (at level 0.95
    within 0.2 % of the exact value from df = 3 on).
    """
    if df == 1:
        return math.tan(math.pi * level / 2)
    if df == 2:
        return level * math.sqrt(2 / (1 - level**2))
    z = _normal_quantile(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / df**power for power, term in enumerate(terms, start=1))


def _by_task(per_task: Iterable[Sequence[bool | float]]) -> tuple[FloatArray, FloatArray]:
    """Sums and numbers of attempts, [m] each, of the tasks that have any."""
    kept = [attempts for attempts in per_task if len(attempts) > 0]
    sums = np.array([math.fsum(attempts) for attempts in kept], dtype=np.float64)
    counts = np.array([len(attempts) for attempts in kept], dtype=np.float64)
    return sums, counts


def _variance(sums: FloatArray, counts: FloatArray) -> float:
    """v of the module's docstring; wants two tasks or more."""
    tasks, total = len(counts), counts.sum()
    residuals = sums - counts * (sums.sum() / total)
    return float(tasks / (tasks - 1) * (residuals**2).sum() / total**2)


def _wilson_limits(rate: float, n: float, z: float) -> tuple[float, float]:
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # Where none or all succeeded the limit is exactly 0 or 1; rounding would miss it by an ulp.
    return (0.0 if rate == 0 else max(0.0, centre - half)), (1.0 if rate == 1 else min(1.0, centre + half))


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def known(value: float) -> float | None:
    return None if math.isnan(value) else value
