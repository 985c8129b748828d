"""The checks of notebook 07: the curve of compression."""

import numpy as np

from . import Check, Wrong, same_number


def ratio_in_tokens(answer) -> None:
    mistakes = {
        "You counted characters. Divide by the characters of a token.": 10,
        "You multiplied by the characters of a token. A text has fewer tokens than characters.": 40,
        "You divided the vision tokens by the text tokens.": 0.4,
    }
    same_number(answer(1000, 4, 100), 2.5, mistakes, "For 1000 characters, 4 a token, 100 vision tokens: ")


def pooled(answer) -> None:
    mistakes = {
        "You took the mean of the pages' rates, in which a short page counts as much as a long one.": (0.5 + 0.01) / 2,
        "Divide by the length of all pages.": 6,
        "You divided by the number of pages.": 3,
    }
    same_number(answer([5, 1], [10, 100]), 6 / 110, mistakes, "For edits [5, 1] and lengths [10, 100]: ")


def interval(answer) -> None:
    values = [0.2, 0.9, 0.8, 0.95, 0.7, 0.85, 0.6, 0.9]
    got = answer(list(values), 0)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Wrong("Return two numbers: the lower and the upper end.")
    rng = np.random.default_rng(1)
    means = rng.choice(values, size=(20000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    spread = np.quantile(values, [0.025, 0.975])
    if got[0] > got[1]:
        raise Wrong("The lower end comes first.")
    if np.allclose(got, spread, atol=0.02):
        raise Wrong("That is where the values lie. Draw samples, and take the quantiles of their means.")
    if got[0] == got[1]:
        raise Wrong("Both ends are equal. Draw with replacement: otherwise each sample is the whole list.")
    if abs(got[0] - low) > 0.03 or abs(got[1] - high) > 0.03:
        size = "wide" if got[1] - got[0] > high - low else "narrow"
        raise Wrong(
            f"Value: the interval is too {size}. Are the samples as long as the list? Are the quantiles 2.5 and 97.5 %?"
        )
    if answer(list(values), 0) != got:
        raise Wrong("With the same seed, the result must be the same each time.")


def holds_up_to(answer) -> None:
    points = [(4.0, 60.0), (1.0, 99.0), (2.0, 97.0), (3.0, 80.0), (5.0, 96.0)]
    mistakes = {
        "A later point is good again, but one between is not. All points up to there must reach the goal.": 5,
        "Sort the points by their ratio first.": 0,
        "That is the first ratio that fails. Return the one before.": 3,
    }
    same_number(answer(list(points), 95.0), 2, mistakes)
    same_number(answer(list(points), 99.5), 0, {}, "For a goal that no point reaches: ")
    same_number(answer(list(points), 50.0), 5, {}, "For a goal that all points reach: ")


CHECKS: dict[str, Check] = {"07.1": ratio_in_tokens, "07.2": pooled, "07.3": interval, "07.4": holds_up_to}
