"""Rows of unlike lengths as one tensor."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def pad_batch(
    rows: Sequence[Sequence[int]], pad: int, side: str = "left"
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Rows of unlike lengths as one tensor, and the mask that is false at padding.

    `side` is `"left"` for generation, where all rows must end together, or `"right"`, the habit in training.
    """
    if side not in ("left", "right"):
        raise ValueError(f"can pad on the left or the right, not {side!r}")
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return ids, mask
