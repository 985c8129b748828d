"""How sure is a figure? An interval for one model's score, a test for the difference between two.

Both ask about the pages, not about the model: had we happened to test on other pages of this kind, how else could the
figure have come out? Each page is scored once, and only the sums are repeated, so 10,000 pages take a second.

scipy.stats 1.17 takes 6 times (`bootstrap`) and 45 times (`permutation_test`) as long, and refuses a single page.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
SIGN_FLIPS = 10_000
CONFIDENCE = 0.95
_CHUNK = 1 << 22  # signs drawn at once
Values = Sequence[int | float] | np.ndarray  # one a page


def bootstrap(
    values: Values,
    seed: int = 0,
    *,
    per: Values | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """(low, high) of the mean of `values`; with `per`, of sum(values) / sum(per), as edits per character are pooled.

    Raises ValueError without values, or when `per` has another length.
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
    """(low, high) of each metric's sum of amounts over sum of sizes: the percentile bootstrap (Efron 1979).

    Draw as many pages as there are, with repetition, and work the metrics out from those; do that `resamples` times;
    the middle `confidence` of what came out is the interval. A draw in which nothing has a size does not count.
    """
    random, pages = np.random.default_rng(seed), len(amounts)
    tops, bottoms = [], []
    for _ in range(resamples):
        times = np.bincount(random.integers(pages, size=pages), minlength=pages)  # that each page was drawn
        tops.append(times @ amounts)
        bottoms.append(times @ sizes)
    bottom = np.stack(bottoms)
    figures = np.stack(tops) / np.where(bottom == 0, np.nan, bottom)
    low, high = np.nanquantile(figures, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def sign_flip_test(differences: Values, seed: int = 0, *, flips: int = SIGN_FLIPS) -> float:
    """The p-value of a difference between two models on the same pages, one difference a page (`p_values`).

    Raises ValueError without differences.
    """
    if not len(differences):
        raise ValueError("a test needs pages that both models have read: got none")
    return float(p_values(np.asarray(differences, dtype=float)[:, None], seed, flips)[0])


def p_values(
    differences: Float[np.ndarray, "pages metrics"], seed: int = 0, flips: int = SIGN_FLIPS
) -> Float[np.ndarray, " metrics"]:
    """A paired permutation test for each metric, two-sided.

    Were the models equally good, each page's difference could as well have had the other sign. So: the share of random
    choices of signs whose sum is at least as far from 0 as the one observed. The observed signs count as one choice, so
    p is at least 1 / (flips + 1). Where all pages are equal it is 1.
    """
    sums, sizes = differences.sum(0), np.abs(differences).sum(0)
    observed = np.abs(sums) - 1e-9 * sizes  # what differs by rounding alone is equal
    random, extreme, done = np.random.default_rng(seed), np.zeros(differences.shape[1]), 0
    while done < flips:
        rows = min(flips - done, max(1, _CHUNK // len(differences)))
        kept = random.integers(2, size=(rows, len(differences)), dtype=np.int8).astype(float)  # 0 is the other sign
        extreme += (np.abs(2 * kept @ differences - sums) >= observed).sum(0)
        done += rows
    return (extreme + 1) / (flips + 1)
