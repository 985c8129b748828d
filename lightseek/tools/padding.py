"""Rows of unlike lengths as one tensor."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def pad_batch(
    rows: Sequence[Sequence[int]], pad: int, side: str = "left"
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Return rows of different lengths as one tensor, and the mask that is false at padding.

    `side` says where the padding goes: `"left"` for generation, where all rows must end together, or `"right"`, as is
    usual in training. `pad` is the id of the padding. Raises ValueError for any other side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"the padding goes on the left or the right, not on {side!r}")
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return ids, mask
