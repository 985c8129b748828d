"""Says how sure a figure is: an interval for one model's score, and a test for the difference between two models.

Both ask what the figure could have been if the model had been tested on other pages of the same kind. Each page is
scored once and only the sums are computed many times, so 10,000 pages take a second.

scipy.stats 1.17 takes 6 times (`bootstrap`) and 45 times (`permutation_test`) as long, and refuses a single page.

A setting that was trained with several seeds has a score for each pair of seed and page. Another seed and other pages
would both have given another figure, so `estimate` counts both as chance. `holm` adjusts the p-values of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
SIGN_FLIPS = 10_000
CONFIDENCE = 0.95
POWER = 0.8  # the share of experiments in which a detectable difference is found
_CHUNK = 1 << 22  # signs that are drawn at once
Values = Sequence[int | float] | np.ndarray  # one number for each page


def bootstrap(
    values: Values,
    seed: int = 0,
    *,
    per: Values | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the interval (low, high) of the mean of `values`. With `per` it is that of sum(values) / sum(per).

    `per` is for pooled metrics such as edits per character. Raises ValueError if there are no values, or if `per` has
    another length.
    """
    sizes = np.ones(len(values)) if per is None else np.asarray(per, dtype=float)
    if not len(values) or len(values) != len(sizes):
        raise ValueError(f"an interval needs values, and a size for each: got {len(values)} and {len(sizes)}")
    amounts = np.asarray(values, dtype=float)
    low, high = intervals(amounts[:, None], sizes[:, None], seed, resamples, confidence)
    return float(low[0]), float(high[0])


def intervals(
    amounts: Float[np.ndarray, "pages metrics"],
    sizes: Float[np.ndarray, "pages metrics"],
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[Float[np.ndarray, " metrics"], Float[np.ndarray, " metrics"]]:
    """Return (low, high) of each metric (sum of amounts / sum of sizes) by the percentile bootstrap (Efron 1979).

    It draws as many pages as there are, with replacement, and computes the metrics of the drawn pages. It does that
    `resamples` times. The interval is the middle `confidence` of the results. A draw whose sizes are all 0 does not
    count.
    """
    random, pages = np.random.default_rng(seed), len(amounts)
    tops, bottoms = [], []
    for _ in range(resamples):
        times = np.bincount(random.integers(pages, size=pages), minlength=pages)  # each page was drawn
        tops.append(times @ amounts)
        bottoms.append(times @ sizes)
    bottom = np.stack(bottoms)
    figures = np.stack(tops) / np.where(bottom == 0, np.nan, bottom)
    low, high = np.nanquantile(figures, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def sign_flip_test(differences: Values, seed: int = 0, *, flips: int = SIGN_FLIPS) -> float:
    """Return the p-value of a difference between two models, given their difference on each page (`p_values`).

    Raises ValueError if there are no differences.
    """
    if not len(differences):
        raise ValueError("a test needs pages that both models have read: got none")
    return float(p_values(np.asarray(differences, dtype=float)[:, None], seed, flips)[0])


def p_values(
    differences: Float[np.ndarray, "pages metrics"], seed: int = 0, flips: int = SIGN_FLIPS
) -> Float[np.ndarray, " metrics"]:
    """Return the p-value of each metric by a two-sided paired permutation test.

    If the models were equally good, the difference on each page could as well have the other sign. So p is the share
    of random choices of signs whose sum is at least as far from 0 as the observed sum. The observed signs count as one
    choice, so p is at least 1 / (flips + 1). If the models are equal on all pages, p is 1.
    """
    sums, sizes = differences.sum(0), np.abs(differences).sum(0)
    observed = np.abs(sums) - 1e-9 * sizes  # sums that differ by rounding only are equal
    random, extreme, done = np.random.default_rng(seed), np.zeros(differences.shape[1]), 0
    while done < flips:
        rows = min(flips - done, max(1, _CHUNK // len(differences)))
        kept = random.integers(2, size=(rows, len(differences)), dtype=np.int8).astype(float)  # 0 flips the sign
        extreme += (np.abs(2 * kept @ differences - sums) >= observed).sum(0)
        done += rows
    return (extreme + 1) / (flips + 1)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and pages, and how sure it is."""

    value: float
    low: float  # of the 95 % interval; NaN if a single page gives no interval
    high: float
    p: float  # two-sided, for the hypothesis that the true value is 0
    detectable: float  # the smallest true value that is found in 80 % of such experiments; infinite if none is


def estimate(
    amounts: Float[np.ndarray, "seeds pages"],
    sizes: Float[np.ndarray, "seeds pages"],
    level: float | None = 1 - CONFIDENCE,
) -> Estimate:
    """Return sum of amounts / sum of sizes, which is a score or a difference, with its interval, p and power.

    With one seed only the pages count as chance: the interval is that of `intervals`, and p is that of `p_values`.

    With more, each pair of a seed and a page has a value, so both are random and crossed. The variance of the mean is
    (S + P - R) / (seeds * pages), where S, P and R are the mean squares of seeds, pages and the rest (two-way analysis
    of variance; S and P are at least R). Its degrees of freedom are Satterthwaite's (1946), as in the quasi-F test of
    Clark (1973). That is too sure of itself if two or three seeds happen to agree. So the means of the seeds must pass
    a t-test too, and p is the larger one. In simulations p is below 0.05 for at most 6 % of differences that are not
    there. The interval has the shape of a bootstrap that draws seeds and pages, and the width of the t-test, because a
    bootstrap of three seeds alone is too narrow.

    `level` is the p-value below which a difference counts as found, which decides `detectable`. With None there is no
    test: p and `detectable` are NaN.
    """
    seeds, pages = amounts.shape
    value = float(amounts.sum() / sizes.sum())
    # The ratio of two sums behaves like the mean of these values (delta method). If all sizes are 1, they are the
    # amounts themselves.
    values = value + (amounts - value * sizes) / sizes.mean()
    if pages == 1:
        return Estimate(value, np.nan, np.nan, 1.0, np.inf)
    widths = _widths(values)
    p = detectable = np.nan
    if level is not None:
        p = crossed_p(values) if seeds > 1 else float(p_values(amounts.T)[0])
        found = (_detectable(error, freedom, level) for error, freedom in widths)
        detectable = max(found) if _least(pages) < level else np.inf
    if seeds == 1:
        low, high = intervals(amounts.T, sizes.T)
        return Estimate(value, float(low[0]), float(high[0]), p, detectable)
    low, high = _nested_interval(amounts, sizes)
    half = max(error * _quantile(1 - CONFIDENCE, freedom) for error, freedom in widths)
    stretch = 2 * half / (high - low) if high > low else 0.0
    low, high = (value + stretch * min(0.0, low - value), value + stretch * max(0.0, high - value))
    return Estimate(value, low, high, p, detectable)


def crossed_p(values: Float[np.ndarray, "seeds pages"]) -> float:
    """Return the two-sided p-value of the mean of `values` for at least two seeds and two pages (see `estimate`)."""
    tests = (_two_sided(float(values.mean()), error, freedom) for error, freedom in _widths(values))
    return min(1.0, max(_least(values.shape[1]), *tests))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values that are adjusted for their number, so that one in twenty *tables* has a false difference.

    The smallest is multiplied by their number, the next one by one less, and so on; none is smaller than the one before
    (Holm 1979).
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[int(place)] = float(highest)
    return adjusted


def _least(pages: int) -> float:
    """Return the share of choices of signs in which all pages agree. With few pages no p-value is smaller."""
    return 2.0 ** (1 - pages)


def _widths(values: Float[np.ndarray, "seeds pages"]) -> list[tuple[float, float]]:
    """Return (standard error of the mean, degrees of freedom) of each t-test that a difference must pass."""
    seeds, pages = values.shape
    if seeds == 1:
        return [(float(values.std(ddof=1) / pages**0.5), float(pages - 1))]
    mean, by_seed, by_page = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = ((values - by_seed - by_page + mean) ** 2).sum() / ((seeds - 1) * (pages - 1))
    of_seeds = pages * ((by_seed - mean) ** 2).sum() / (seeds - 1)
    of_pages = seeds * ((by_page - mean) ** 2).sum() / (pages - 1)
    s, p = max(of_seeds, rest), max(of_pages, rest)
    variance = s + p - rest
    parts = s**2 / (seeds - 1) + p**2 / (pages - 1) + rest**2 / ((seeds - 1) * (pages - 1))
    freedom = variance**2 / parts if parts > 0 else seeds - 1
    both, seeds_alone = (float(one / values.size) ** 0.5 for one in (variance, of_seeds))
    return [(both, float(freedom)), (seeds_alone, float(seeds - 1))]


def _two_sided(value: float, error: float, freedom: float) -> float:
    from scipy.stats import t

    if error <= 1e-9 * abs(value):  # all values are equal, up to rounding
        return 1.0 if value == 0 else 0.0
    return float(2 * t.sf(abs(value) / error, freedom))


def _quantile(level: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.isf(level / 2, freedom))


def _detectable(error: float, freedom: float, level: float) -> float:
    """Return the true value that a t-test at `level` finds with a probability of `POWER`."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    bound = _quantile(level, freedom)
    return error * float(brentq(lambda away: nct.sf(bound, freedom, away) - POWER, 0, 10 * bound + 10))


def _nested_interval(
    amounts: Float[np.ndarray, "seeds pages"], sizes: Float[np.ndarray, "seeds pages"], seed: int = 0
) -> tuple[float, float]:
    """Return the middle 95 % of the figures of drawn seeds on drawn pages, both with replacement."""
    random = np.random.default_rng(seed)
    seeds, pages = (random.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in amounts.shape)
    top, bottom = (((seeds @ part) * pages).sum(1) for part in (amounts, sizes))
    low, high = np.nanquantile(top / np.where(bottom == 0, np.nan, bottom), [0.025, 0.975])
    return float(low), float(high)
