"""The key-value cache: what generation need not compute again.

One buffer per layer and side, as long as the longest text can get: a new token is a copy, not a reallocation.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.config import DecoderConfig


class Cache:
    """What a decoder keeps of the positions it has seen, whoever's decoder it is."""

    length: int  # positions

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        """Keep these rows, in this order, repeats allowed: what beam search does after each step."""
        raise NotImplementedError


class KVCache(Cache):
    """Keys and values of all layers, `b h capacity k` each, of which the first `length` positions are filled."""

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (batch, config.heads, capacity, config.head_width)
        self.length = 0
        self.keys, self.values = (
            [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.layers)] for _ in range(2)
        )

    def append(
        self, layer: int, keys: Float[Tensor, "b h n k"], values: Float[Tensor, "b h n k"]
    ) -> tuple[Float[Tensor, "b h m k"], Float[Tensor, "b h m k"]]:
        """Store a layer's new keys and values; return all of them so far. `length` moves once all layers are done."""
        end = self.length + keys.shape[2]
        if end > self.keys[layer].shape[2]:
            raise IndexError(f"the cache holds {self.keys[layer].shape[2]} positions and {end} are needed")
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        for buffers in (self.keys, self.values):
            for index, old in enumerate(buffers):
                new = old.new_empty(len(rows), *old.shape[1:])
                new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
                buffers[index] = new
