"""The key-value cache: the keys and values of the positions that generation has already seen.

Each layer has one buffer for keys and one for values. A buffer is as long as the longest text can get, so a new token
is copied into it and nothing is reallocated.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.model.config import DecoderConfig


class Cache:
    """The base of all caches: it keeps what a decoder, ours or one of transformers, needs of the positions so far."""

    length: int  # the number of these positions
    joins: ClassVar[bool] = False  # whether `join` works

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        """Keep these rows of the batch, in this order. A row may repeat. Beam search calls this after each step."""
        raise NotImplementedError

    def join(self, other: "Cache", length: int, capacity: int) -> None:
        """Add the rows of another cache, after those of this one, and make room for `capacity` positions.

        The last `length` positions of both stay. A cache with fewer gets empty ones in front, which a mask must hide.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no other rows")


class KVCache(Cache):
    """The keys and values of all layers, `b h capacity k` each. The first `length` positions are filled."""

    joins = True

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (batch, config.heads, capacity, config.head_width)
        self.length = 0
        self.keys, self.values = (
            [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.layers)] for _ in range(2)
        )

    @property
    def rows(self) -> int:
        """The rows of the batch."""
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """The number of positions that there is room for."""
        return self.keys[0].shape[2]

    def append(
        self, layer: int, keys: Float[Tensor, "b h n k"], values: Float[Tensor, "b h n k"]
    ) -> tuple[Float[Tensor, "b h m k"], Float[Tensor, "b h m k"]]:
        """Store the n new keys and values of a layer, and return all m = `length` + n of them.

        The decoder moves `length` itself, after its last layer. Raises IndexError if the buffer is full.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise IndexError(f"the cache holds {self.capacity} positions and {end} are needed")
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        for buffers in (self.keys, self.values):
            for index, old in enumerate(buffers):
                new = old.new_empty(len(rows), *old.shape[1:])
                new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
                buffers[index] = new

    def join(self, other: "KVCache", length: int, capacity: int) -> None:
        for buffers, others in ((self.keys, other.keys), (self.values, other.values)):
            for index, (mine, theirs) in enumerate(zip(buffers, others, strict=True)):
                filled = [mine[:, :, : self.length], theirs[:, :, : other.length]]
                last = [F.pad(part, (0, 0, length - part.shape[2], 0)) for part in filled]  # a negative width cuts
                buffers[index] = mine.new_empty(len(mine) + len(theirs), mine.shape[1], capacity, mine.shape[3])
                buffers[index][:, :, :length] = torch.cat(last)
        self.length = length
