"""Tests intervals and significance tests against known results of statistics."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightseek.scores.significance import bootstrap, sign_flip_test

scores = st.lists(st.floats(0, 100), min_size=1, max_size=50)


def test_the_interval_is_the_normal_one_where_pages_are_many():
    """By the central limit theorem it is mean ± 1.96 standard errors. The pages' standard deviation is about 10."""
    pages = np.random.default_rng(0).normal(40, 10, 200)
    low, high = bootstrap(pages.tolist(), seed=1)
    error = 1.96 * pages.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((pages.mean() - error, pages.mean() + error), abs=0.15 * error)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """In about 95 % (at least 90 %) of 200 experiments with 60 pages, the interval holds the true mean, 50."""
    random = np.random.default_rng(0)
    intervals = [bootstrap(random.uniform(0, 100, 60).tolist(), seed, resamples=300) for seed in range(200)]
    assert 180 <= sum(low < 50 < high for low, high in intervals) < 200


@given(scores, st.integers(0, 9))
def test_an_interval_lies_among_its_pages_and_repeats(values, seed):
    low, high = bootstrap(values, seed, resamples=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap(values, seed, resamples=50)


def test_a_pooled_rate_weighs_long_pages_more():
    """1 edit in 10 characters and 0 in 990 make 1 per 1000, which lies between the rates of the two pages."""
    assert bootstrap([1.0, 0.0], per=[10, 990]) == (0.0, pytest.approx(0.1))
    assert bootstrap([2.0, 6.0], per=[1, 3]) == (2.0, 2.0)


def test_the_test_counts_choices_of_signs():
    """On three pages one model is better by 1. Of the 8 choices of signs, 2 are as far from 0, so p is near 2/8."""
    assert sign_flip_test([1, 1, 1]) == pytest.approx(2 / 8, abs=0.02)
    differences = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=6)]
    assert sign_flip_test(differences) == pytest.approx(np.mean([s >= 11 for s in sums]), abs=0.02)


def test_a_difference_on_many_pages_is_no_luck_and_none_is():
    assert sign_flip_test([0.5] * 50) == pytest.approx(1 / 10_001)  # the smallest possible p
    assert sign_flip_test([0.0] * 50) == 1
    assert sign_flip_test([0.1, -0.1] * 25) == 1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_the_test_does_not_care_which_model_comes_first(differences):
    p = sign_flip_test(differences, flips=200)
    assert 0 < p <= 1 and p == sign_flip_test([-d for d in differences], flips=200)


def test_eleven_thousand_pages_at_once():
    """For as many pages as CNN/DailyMail's test set, the interval is the textbook's: mean ± 1.96 standard errors."""
    values = np.random.default_rng(0).uniform(0, 100, 11_490)
    low, high = bootstrap(values.tolist())
    error = 1.96 * values.std() / len(values) ** 0.5
    assert [low, high] == pytest.approx([values.mean() - error, values.mean() + error], abs=0.1)


def test_nothing_has_no_interval():
    with pytest.raises(ValueError, match="got 0 and 0"):
        bootstrap([])
    with pytest.raises(ValueError, match="got 2 and 1"):
        bootstrap([1, 2], per=[1])
    with pytest.raises(ValueError, match="got none"):
        sign_flip_test([])
