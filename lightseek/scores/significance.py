"""Says how sure a figure is: an interval for one model's score, and a test for the difference between two models.

Both ask what the figure could have been if the model had been tested on other pages of the same kind. Each page is
scored once and only the sums are computed many times, so 10,000 pages take a second.

scipy.stats 1.17 takes 6 times (`bootstrap`) and 45 times (`permutation_test`) as long, and refuses a single page.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
SIGN_FLIPS = 10_000
CONFIDENCE = 0.95
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
