"""Steps of generation on a GPU as CUDA graphs: what runs there in the place of `Continuation`'s plain steps.

A step of one token runs some 600 small kernels, and the GPU mostly waits for Python to start them. A graph records them
once and starts them all with one call (`model/cuda_graph.py`). Nothing in a graph may grow. `FixedStep` is a step of
the decoder whose shapes stay the same. It looks at the first m places of the cache and hides those that are empty:

    tokens     b         the newest token of each row
    place      1         where its keys and values go in the cache
    positions  b 1       its position in its own row, which may have padding in front
    visible    b 1 1 m   the places that it may see

A step adds its own place to `visible` and moves `place` and `positions` by one, so the next step only needs tokens.
You can understand generation without this file. Both kinds of steps give the same numbers, up to rounding.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightseek.model.cache import Cache, KVCache
from lightseek.model.cuda_graph import needs_python, record
from lightseek.model.decoder import Decoder
from lightseek.model.grouped import has_kernel
from lightseek.tools.devices import is_nvidia

PLACES = 512  # m grows by this many places of the cache, and each time a new graph is recorded


def can_repeat(decoder: nn.Module, cache: Cache) -> bool:
    """Return whether steps of this decoder can be recorded: on CUDA, and if nothing in them has to wait for the GPU."""
    if type(decoder) is not Decoder or type(cache) is not KVCache or not is_nvidia(cache.keys[0]):
        return False
    config = decoder.config
    experts = has_kernel(cache.keys[0]) or cache.rows * config.chosen < config.experts  # see `moe.Experts.run`
    mixes = config.dense_layers < config.layers
    return (experts or not mixes) and not needs_python(decoder)


class GraphedSteps:
    """Runs the steps of a batch, one graph after another. Rows may end, and the cache may fill up, in between."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.step: FixedStep | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, tokens: Int[Tensor, " b"], mask: Bool[Tensor, "b m"] | None) -> Float[Tensor, "b v"]:
        """Append one token to each row. Return the logits of the next, which the next call overwrites.

        `mask` is false at the padding of the prompts.
        """
        if self.step is None or self.cache.length == self.step.cache.places:
            self.settle(len(tokens))
            self.step = FixedStep(self.decoder, self.cache, mask)
        self.step.tokens[: len(tokens)] = tokens
        if self.step.logits is None:  # the first step prepares the kernels, which a recording cannot do
            self.step.run()
        else:
            if self.graph is None:
                self.graph = record(self.step.run)
            self.graph.replay()
        self.cache.length += 1
        return self.step.logits[: len(tokens)]

    def settle(self, rows: int) -> None:
        """Forget the graph, and leave the first `rows` rows in the cache: those that somebody reads."""
        self.step = self.graph = None
        if rows < self.cache.rows:
            self.cache.select(torch.arange(rows, device=self.cache.keys[0].device))

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        """Keep these rows of the batch. The graph goes on, with some rows that nobody reads, if at least half stay."""
        if self.step is None or not self.cache.rows < 2 * len(rows) <= 2 * self.cache.rows:
            self.step = self.graph = None
            self.cache.select(rows)
        else:
            self.step.select(F.pad(rows, (0, self.cache.rows - len(rows))))


class FixedCache(KVCache):
    """The first m places of a cache, which it shares. New keys and values go to the place that a tensor names.

    Raises IndexError if the cache is full.
    """

    def __init__(self, cache: KVCache) -> None:
        past = self.length = cache.length
        if past == cache.capacity:
            raise IndexError(f"the cache holds {past} positions and {past + 1} are needed")
        self.places = min(cache.capacity, (past // PLACES + 1) * PLACES)  # m
        self.keys, self.values = (
            [buffer[:, :, : self.places] for buffer in buffers] for buffers in (cache.keys, cache.values)
        )
        for buffer in (*self.keys, *self.values):
            buffer[:, :, past:] = 0  # an empty place has the weight 0, but 0 · NaN is NaN
        self.place = torch.tensor([past], device=self.keys[0].device)

    def append(
        self, layer: int, keys: Float[Tensor, "b h 1 k"], values: Float[Tensor, "b h 1 k"]
    ) -> tuple[Float[Tensor, "b h m k"], Float[Tensor, "b h m k"]]:
        self.keys[layer].index_copy_(2, self.place, keys)
        self.values[layer].index_copy_(2, self.place, values)
        return self.keys[layer], self.values[layer]

    def select(self, rows: Int[Tensor, " b"]) -> None:
        for buffer in (*self.keys, *self.values):
            buffer.copy_(buffer.index_select(0, rows))


class FixedStep:
    """A step of the decoder that can be repeated. `run` reads `tokens` and leaves the scores in `logits`, b v."""

    def __init__(self, decoder: Decoder, cache: KVCache, mask: Bool[Tensor, "b m"] | None) -> None:
        past, rows, device = cache.length, cache.rows, cache.keys[0].device
        self.decoder, self.cache = decoder, FixedCache(cache)
        known = torch.ones(rows, past, dtype=torch.bool, device=device) if mask is None else mask[:, :past]
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions = known.sum(1, keepdim=True)
        self.visible = F.pad(known, (0, self.cache.places - past))[:, None, None]
        self.logits: Float[Tensor, "b v"] | None = None

    def run(self) -> None:
        self.visible.index_fill_(3, self.cache.place, True)
        x = self.decoder.embed(self.tokens[:, None])  # b 1 d
        rotation = self.decoder.rotary(self.positions, x.dtype)
        for index, layer in enumerate(self.decoder.layers):
            x, _ = layer(x, rotation, self.visible, False, self.cache, index)
        self.logits = self.decoder.logits(self.decoder.norm(x))[:, 0]
        self.cache.place += 1
        self.positions += 1

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Put these rows, as many as there are, in the places of the old ones."""
        self.cache.select(rows)
        for buffer in (self.positions, self.visible):
            buffer.copy_(buffer.index_select(0, rows))
