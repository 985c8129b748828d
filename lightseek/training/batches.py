"""Which process takes which documents of a batch, and where its random numbers start: decided by seed and step."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """`parts` runs of `items`, in order, whose lengths differ by at most one; empty ones when there are too few."""
    ends = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def deal(items: Sequence[T], parts: int, process: int = 0, processes: int = 1) -> list[Sequence[T]]:
    """The parts of a batch that one process takes, one after the other: `parts` of them, as many as the others take."""
    return split_evenly(items, parts * processes)[process::processes]


def dropout_seed(seed: int, step: int, process: int = 0) -> int:
    """What PyTorch's random numbers start from in each step, so that a resumed run draws what an unbroken one does."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)
