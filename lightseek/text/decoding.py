"""The state of a batch while it is decoded: the cache, the padding and the timings. All ways of decoding share it.

prompts, pages -> encoder -> decoder over all positions (prefill) -> logits of the next token
next tokens    -> decoder over one position (a step)              -> logits of the token after
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightseek.model.ocr import DocumentModel
from lightseek.page.views import Page
from lightseek.text.cuda_graph import GraphedSteps, can_repeat
from lightseek.tools.errors import Note


@dataclass
class Timings:
    """How long each phase of a batch took, in seconds. All rows of a batch share one."""

    encode: float = 0.0  # turn pages into vision tokens and embed the text
    prefill: float = 0.0  # run the prompts through the decoder, up to the logits of the first token
    decode: float = 0.0  # all later tokens, one step for each
    steps: int = 0  # decoder passes after the prefill
    tokens: int = 0  # tokens from these steps, over all rows; a row's first token is from the prefill

    @property
    def tokens_per_second(self) -> float:
        """The speed of the decode phase, all rows together."""
        return self.tokens / self.decode if self.decode else 0.0


class NoRoom(ValueError):
    """A prompt that fills all positions of the decoder, such as a page of many tiles."""


class Continuation:
    """A batch of texts that grows by one token per step. `logits` (b v) always score the next token.

    `limits` has the number of tokens that each row may get: `max_new_tokens`, or fewer if the decoder has no positions
    for them after the row's own prompt. The padding of a row takes no positions. A row must be dropped at its limit.
    Between steps, `select` can drop, reorder and repeat rows, and `join` can add some. `prompts` and `limits` stay as
    they were at first.
    Raises ValueError if the prompts are empty, not padded on the left, or leave no position for a token.
    """

    logits: Float[Tensor, "b v"]
    limits: list[int]

    def __init__(
        self,
        model: DocumentModel,
        input_ids: Int[Tensor, "b n"],
        pages: Sequence[Sequence[Page]] | None,
        mask: Bool[Tensor, "b n"] | Int[Tensor, "b n"] | None,
        max_new_tokens: int,
    ) -> None:
        known = torch.ones_like(input_ids, dtype=torch.bool, device="cpu") if mask is None else mask.bool().cpu()
        self.limits = find_limits(input_ids, known, max_new_tokens, model.config.decoder.max_positions)
        (rows, length), longest = input_ids.shape, max(self.limits)
        self.decoder = model.decoder
        self.prompts = [ids[real].tolist() for ids, real in zip(input_ids.cpu(), known, strict=True)]
        self.mask = None
        if not known.all():  # without padding, attention needs no mask
            room = torch.ones(rows, longest, dtype=torch.bool)
            self.mask = torch.cat([known, room], dim=1).to(model.device)
        self.timings = Timings()
        with stopwatch(self.timings, "encode", model.device):
            x = model.embed(input_ids.to(model.device), pages)
        with stopwatch(self.timings, "prefill", model.device):
            self.cache = self.decoder.new_cache(rows, length + longest, x.dtype, x.device)
            self._forward(x)
        self.graphed = GraphedSteps(self.decoder, self.cache) if can_repeat(self.decoder, self.cache) else None

    def step(self, tokens: Int[Tensor, " b"]) -> None:
        """Append one token to each row and compute the logits of the next."""
        if self.graphed:
            self.logits = self.graphed(tokens, self.mask)
        else:
            self._forward(self.decoder.embed(tokens[:, None]))
        self.timings.steps += 1

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        """Keep these rows, in this order. A row may come several times."""
        (self.graphed or self.cache).select(rows)
        if self.graphed and not can_repeat(self.decoder, self.cache):  # there may be too many beams for it
            self.graphed = None
        self.logits = self.logits[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def join(self, other: "Continuation", room: int) -> None:
        """Add the rows of `other` after ours, with room for `room` more tokens.

        All rows then end at the same place of the cache, so a shorter row gets padding in front. Places that are
        padding in every row go. Raises NotImplementedError if the cache cannot do this (`Cache.joins`).
        """
        if self.graphed:
            self.graphed.settle(len(self.logits))
        known = [self.known, other.known]
        length = max(int(part.sum(1).max()) for part in known)
        self.cache.join(other.cache, length, length + room)
        both = torch.cat([F.pad(part, (length - part.shape[1], 0)) for part in known])  # a negative width cuts
        self.mask = None if both.all() else F.pad(both, (0, room), value=True)
        self.logits = torch.cat([self.logits, other.logits])
        self.graphed = GraphedSteps(self.decoder, self.cache) if can_repeat(self.decoder, self.cache) else None

    @property
    def known(self) -> Bool[Tensor, "b m"]:
        """Which places of the cache are no padding."""
        if self.mask is None:
            return torch.ones(len(self.logits), self.cache.length, dtype=torch.bool, device=self.logits.device)
        return self.mask[:, : self.cache.length]

    def _forward(self, x: Float[Tensor, "b n d"]) -> None:
        visible = None if self.mask is None else self.mask[:, : self.cache.length + x.shape[1]]
        hidden, _ = self.decoder(x, visible, self.cache)
        self.logits = self.decoder.logits(hidden[:, -1:])[:, 0]


def find_limits(
    ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], max_new_tokens: int, max_positions: int
) -> list[int]:
    """Return how many tokens each row may get. Raises ValueError for prompts that cannot be continued, or NoRoom."""
    rows, length = ids.shape
    if rows == 0 or length == 0:
        raise ValueError(f"there is nothing to continue: input_ids is {rows} x {length}")
    if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError(
            "generation needs prompts that all end together: pad on the left (lightseek.processing.pad_batch) "
            "and give the mask, false at padding"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: ask for at least one")
    prompts = mask.sum(1).tolist()
    if max(prompts) >= max_positions:
        raise NoRoom(
            f"a prompt of {max(prompts)} positions leaves no room for a text in the decoder's {max_positions} "
            "positions: use a mode with fewer tokens, fewer pages or a shorter prompt"
        )
    limits = [min(max_new_tokens, max_positions - prompt) for prompt in prompts]
    if min(limits) < max_new_tokens:
        warnings.warn(
            f"max_new_tokens={max_new_tokens} is more than there is room for beside a prompt: "
            f"a text ends where the decoder's {max_positions} positions end",
            Note,
            stacklevel=3,
        )
    return limits


@contextmanager
def stopwatch(timings: Timings, phase: str, device: torch.device) -> Iterator[None]:
    """Add the seconds of the `with` block to the field `phase` of `timings`. Wait for an accelerator to finish."""
    began = time.perf_counter()
    yield
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
    setattr(timings, phase, getattr(timings, phase) + time.perf_counter() - began)
