"""The solutions of notebook 08."""

import random
import statistics


def shuffle(text, seed):
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def error_rate(output, reference):
    row = list(range(len(reference) + 1))
    for i, letter in enumerate(output, start=1):
        before, row = row, [i]
        for j, other in enumerate(reference, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other)))
    return row[-1] / len(reference)


def paired(one, other):
    differences = [a - b for a, b in zip(one, other, strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5


SOLUTIONS = {"08.1": shuffle, "08.2": error_rate, "08.3": paired}
