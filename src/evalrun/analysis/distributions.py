"""The few quantiles and probabilities that intervals need, without SciPy (whose import costs 0.4 s)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Within it, numpy multiplies matrices with one thread."""
    controller = _controller()
    if controller is None:
        yield
        return
    with controller.limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    """What sets the number of threads; finding the libraries takes 2 ms, so it is done once."""
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]
    except ImportError:  # it comes with scikit-learn; without it the results are the same, and later
        return None
    return ThreadpoolController()


def normal_quantile(p: float) -> float:
    """The p quantile of the standard normal distribution, 0 < p < 1."""
    return NormalDist().inv_cdf(p)


@lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    """The p quantile of Student's t with df >= 1 degrees of freedom (also fractions), 0.5 <= p < 1; relative
    error below 1e-8.

    Newton steps on the distribution function from the expansion of Abramowitz & Stegun 26.7.5; exact for
    one and two degrees of freedom.
    """
    if df < 1:
        raise ValueError("Student's t needs at least one degree of freedom")
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = normal_quantile(p)
    t = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    if df > 10_000:  # the expansion is exact to rounding, and the terms below lose digits
        return t
    log_constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    for _ in range(20):
        density = math.exp(log_constant - (df + 1) / 2 * math.log1p(t * t / df))
        step = (_t_upper_tail(t, df) - (1 - p)) / density
        t += step
        if abs(step) < 1e-12 * max(1.0, t):
            break
    return t


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with df >= 1 degrees of freedom."""
    return _t_upper_tail(t, df)


def _t_upper_tail(t: float, df: float) -> float:
    """P(T > t): half the regularised incomplete beta function I_x(df/2, 1/2) at x = df/(df + t^2)."""
    if t < 0:
        return 1 - _t_upper_tail(-t, df)
    return 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction (Abramowitz & Stegun 26.5.8), evaluated by Lentz's method."""
    if x <= 0 or x >= 1:
        return min(1.0, max(0.0, x))
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x > (a + 1) / (a + b + 2):
        return 1 - front / b * _beta_fraction(b, a, 1 - x)
    return front / a * _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            factor = c * d
            value *= factor
        if abs(factor - 1) < 1e-15:
            break
    return value


def binomial_cdf(n: int, p: float) -> tuple[int, NDArray[np.float64]]:
    """P(B <= k) of a binomial for k = start, start + 1, …, where everything outside weighs less than 1e-15.

    Returns (start, probabilities). Made from the ratio of neighbouring terms, outwards from the mode, so
    that no factorial is needed and n may be large.
    """
    spread = 9 * math.sqrt(n * p * (1 - p)) + 10
    mode = int((n + 1) * p)
    start, stop = max(0, int(mode - spread)), min(n, int(mode + spread))
    up = np.arange(mode, stop, dtype=np.float64)
    down = np.arange(mode, start, -1, dtype=np.float64)
    rising = np.cumprod((n - up) / (up + 1) * (p / (1 - p)))
    falling = np.cumprod(down / (n - down + 1) * ((1 - p) / p))
    terms = np.concatenate([falling[::-1], [1.0], rising])
    return start, np.cumsum(terms / terms.sum())


def sorted_quantile(ordered: NDArray[np.float64], q: float) -> float:
    """The q quantile of sorted values, at least one, linear between neighbours: what `numpy.quantile` gives.

    (That one imports numpy.ma, and sorts again.)
    """
    place = (len(ordered) - 1) * q
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    low, high = float(ordered[below]), float(ordered[above])
    return low + (high - low) * (place - below)
