"""How sure is a figure? An interval for one model's score, a test for the difference between two.

Both ask the same question of the pages, not of the model: had we happened to test on other pages of this kind, how
else could the figure have come out? Both need numpy only and take a second for 10,000 pages.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 1000
SIGN_FLIPS = 10_000
CONFIDENCE = 0.95
_CHUNK = 1 << 22  # numbers drawn at once
Values = Sequence[int | float] | np.ndarray  # one a page


def bootstrap(
    values: Values,
    seed: int = 0,
    *,
    per: Values | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """(low, high) of the mean of `values`: the percentile bootstrap (Efron 1979).

    Draw as many pages as there are, with repetition, and take their mean; do that `resamples` times; the middle
    `confidence` of those means is the interval. With `per` it is the interval of sum(values) / sum(per), as for a
    pooled error rate: edits per page, and characters per page.

    Raises ValueError without values, or when `per` has another length.
    """
    sizes = np.ones(len(values)) if per is None else np.asarray(per, dtype=float)
    if not len(values) or len(values) != len(sizes):
        raise ValueError(f"an interval needs values, and a size for each: got {len(values)} and {len(sizes)}")
    sums = resampled_sums(np.stack([np.asarray(values, dtype=float), sizes], axis=1), seed, resamples)
    low, high = np.quantile(sums[:, 0] / np.maximum(sums[:, 1], 1e-12), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resampled_sums(
    columns: Float[np.ndarray, "pages columns"], seed: int = 0, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples columns"]:
    """Each column's sum over pages drawn with repetition, `resamples` times; one draw serves all columns."""
    random, pages = np.random.default_rng(seed), len(columns)
    counts = (np.bincount(random.integers(pages, size=pages), minlength=pages) for _ in range(resamples))
    return np.stack([count @ columns for count in counts])


def sign_flip_test(differences: Values, seed: int = 0, *, flips: int = SIGN_FLIPS) -> float:
    """The p-value of a mean difference between two models on the same pages: a paired permutation test, two-sided.

    If the models were equally good, each page's difference could as well have had the other sign. So: the share of
    random choices of signs whose mean is at least as far from 0 as the one observed. The observed signs count as one
    choice, so that p is never 0 and its smallest value is 1 / (flips + 1). All pages equal gives 1.

    Raises ValueError without differences.
    """
    values = np.asarray(differences, dtype=float)
    if not len(values):
        raise ValueError("a test needs pages that both models have read: got none")
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # sums that differ by rounding alone are equal
    random, extreme, done = np.random.default_rng(seed), 0, 0
    while done < flips:
        rows = min(flips - done, max(1, _CHUNK // len(values)))
        signs = random.integers(2, size=(rows, len(values)), dtype=np.int8)
        # sum(sign * value) with signs 0 and 1 for - and +
        extreme += int((np.abs(2 * (signs @ values) - values.sum()) >= observed).sum())
        done += rows
    return (extreme + 1) / (flips + 1)
