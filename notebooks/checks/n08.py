"""The checks of notebook 08: does the model guess or read?"""

from . import Check, Wrong, same, same_number

TEXT = "The pump failed at 7:15, so the library closed early."


def shuffle(answer) -> None:
    got = answer(TEXT, 0)
    if not isinstance(got, str):
        raise Wrong(f"The answer is a text, and yours is of the type {type(got).__name__}.")
    if sorted(got) == sorted(TEXT) and sorted(got.split()) != sorted(TEXT.split()):
        raise Wrong("You shuffled the letters. The words must stay whole: only their order changes.")
    same(sorted(got.split()), sorted(TEXT.split()), "Value: the words are not the same as before.")
    same(len(got), len(TEXT), f"Shape: the text must keep its length of {len(TEXT)}, or the letters get another size.")
    if got == TEXT:
        raise Wrong("Value: the order did not change.")
    same(answer(TEXT, 0), got, "With the same seed, the result must be the same each time.")
    if all(answer(TEXT, seed) == got for seed in range(1, 4)):
        raise Wrong("The result does not depend on the seed.")


def error_rate(answer) -> None:
    same_number(answer("abc", "abc"), 0.0, {"You returned the share that is right.": 1.0}, "For equal texts: ")
    mistakes = {
        "You compared place by place. One missing letter moves all others: count insertions and deletions.": 4 / 6,
        "You divided by the length of the output. The reference decides.": 1 / 5,
        "That is the number of edits. Divide by the length of the reference.": 1,
    }
    same_number(answer("acdef", "abcdef"), 1 / 6, mistakes, "For the output 'acdef' and the reference 'abcdef': ")
    same_number(answer("x" * 9, "abc"), 3.0, {"The rate may be above 1: insertions count.": 1.0}, "For a long output: ")


def paired(answer) -> None:
    one, other = [0.9, 0.5, 0.7, 0.3], [0.8, 0.4, 0.5, 0.3]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = sum(differences) / 4
    variance = sum((d - mean) ** 2 for d in differences) / 3

    def spread(values):
        return sum((v - sum(values) / 4) ** 2 for v in values) / 3

    got = answer(one, other)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Wrong("Return two numbers: the mean difference and its standard error.")
    same_number(got[0], mean, {"You subtracted the other way round.": -mean}, "Mean difference: ")
    mistakes = {
        "The documents are the same in both lists. Take the spread of the differences, and not that of each list.": (
            (spread(one) + spread(other)) / 4
        )
        ** 0.5,
        "That is the spread of one difference. The mean of n is surer, by the root of n.": variance**0.5,
        "You divided by n and not by n - 1 in the variance: for few documents that is too small.": (
            variance * 3 / 4 / 4
        )
        ** 0.5,
        "That is the variance. Take its root.": variance / 4,
    }
    same_number(got[1], (variance / 4) ** 0.5, mistakes, "Standard error: ")


CHECKS: dict[str, Check] = {"08.1": shuffle, "08.2": error_rate, "08.3": paired}
