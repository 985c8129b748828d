"""Decoding of one token at a time: the likeliest token (greedy), or a random draw (temperature, top-k, top-p).

A draw takes a random number u in [0, 1). It adds up the probabilities of the tokens, the likeliest first, and chooses
the token at which the sum passes u. Each row has a random generator of its own on the CPU. So the text of a row depends
on its seed, and not on the other rows or on the device's generator.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.text.decoding import Continuation
from lightseek.text.ngrams import NgramGuard, Seen
from lightseek.text.schema import Rule, Written, keep


@dataclass(frozen=True)
class Sampler:
    """Chooses the next token. Temperature 0 is greedy.

    Above 0 the steps are those of Hugging Face's `generate`, in the same order. The logits are divided by the
    temperature. Only the `top_k` likeliest tokens stay, and their probabilities are normalised again. Of these, the
    likeliest tokens stay: as few of them as together reach the probability `top_p`.

    Raises ValueError for a setting out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: 0 is greedy, above 0 samples")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: keep at least one token, or None for all")

    def __call__(self, logits: Float[Tensor, "b v"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Return the chosen tokens. `u` holds a random number in [0, 1) for each row, which greedy decoding ignores."""
        if self.temperature < torch.finfo(logits.dtype).tiny:  # in this dtype it may be 0, and 0 / 0 is no number
            return logits.argmax(dim=-1)
        logits = logits - logits.amax(-1, keepdim=True)  # otherwise a small temperature would overflow
        probabilities, order = (logits / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        if self.top_k is not None:
            probabilities = probabilities[:, : self.top_k]
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities * (before < self.top_p)
        reached = probabilities.cumsum(-1)
        rank = (reached <= u[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
        last = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding must not choose a token that was not kept
        return order.gather(-1, rank.minimum(last))[:, 0]


@dataclass
class Row:
    """The text of one prompt while it grows."""

    tokens: list[int]
    logprob: float = 0.0
    finish_reason: str = "length"  # becomes "eos" at a stop token; the caller may set "stopped" to end the row
    number: int = 0  # how many rows joined the writer before it


@dataclass(eq=False)
class Growing:
    """What decides the next token of one row."""

    text: Row
    limit: int  # tokens
    seen: Seen | None  # the guard's memory of the text; None without a guard
    written: Written | None  # its JSON so far; None without a rule
    steps: int = 0  # also after its end, until the state drops it

    @property
    def goes_on(self) -> bool:
        return self.text.finish_reason == "length" and self.steps < self.limit


class Writer:
    """Writes texts together: each step adds one token to each. Other texts can join between two steps.

        writer = Writer(Sampler(), guard, stop)
        rows = writer.join(state)
        for row, token in writer.write():
            ...

    A row ends at a stop token or at its limit in `state.limits`. With a `rule`, it also ends when its JSON is complete.
    It gets the text that it would get alone.
    """

    def __init__(
        self, sampler: Sampler, guard: NgramGuard | None, stop: frozenset[int], rule: Rule | None = None
    ) -> None:
        self.sampler, self.guard, self.stop, self.rule = sampler, guard, stop, rule
        self.growing: list[Growing] = []  # one for each row of the state; one that ended stays there for a while
        self.joined = 0  # rows, in all
        self.state: Continuation | None = None
        self.tokens: Int[Tensor, " b"] | None = None  # chosen, but not yet in the state
        self.u: Float[Tensor, "b n"] | None = None  # random numbers of the tokens to come

    @property
    def running(self) -> int:
        """The number of rows that are not finished."""
        return sum(one.goes_on for one in self.growing)

    def join(self, state: Continuation, seed: int | None = None) -> list[Row]:
        """Add a text for each row of `state`, and return them. Row r of `state` draws with seed `seed` + r.

        Raises NotImplementedError if texts are growing and their cache takes no other rows (`Cache.joins`).
        """
        rows = [Row([], number=self.joined + place) for place in range(len(state.prompts))]
        begun = [
            Growing(row, limit, self.guard and self.guard.start(prompt), self.rule and self.rule.start())
            for row, prompt, limit in zip(rows, state.prompts, state.limits, strict=True)
        ]
        shape = len(begun), max(state.limits)
        # Greedy decoding must not use PyTorch's generator, because training reads pages in between.
        u = uniforms(*shape, seed) if self.sampler.temperature else torch.zeros(shape)
        u = u.to(state.logits.device)
        if self.running:
            self._advance(share=1.0)
            longest = max(one.limit - one.steps for one in [*self.growing, *begun])
            self.state.join(state, longest)
            u = torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in (self.u, u)])
            self.u, self.growing = u, [*self.growing, *begun]
        else:
            self.state, self.u, self.growing, self.tokens = state, u, begun, None
        self.joined += len(rows)
        return rows

    def write(self) -> Iterator[tuple[Row, int]]:
        """Yield (row, token) for each new token but stop tokens, until all rows have ended."""
        while self.running:
            yield from self.step()

    def step(self) -> list[tuple[Row, int]]:
        """Choose the next token of each row that goes on. Return (row, token) for those that are no stop tokens."""
        self._advance()
        logits = self.state.logits
        if self.guard:
            logits = forbid(logits, [one.seen.banned() for one in self.growing])
        if self.rule:
            logits = keep(logits, [one.written.allowed() for one in self.growing])
        self.tokens, self.u = self.sampler(logits, self.u[:, 0]), self.u[:, 1:]
        logits = self.state.logits  # without guard and rule
        logprobs = logits.gather(-1, self.tokens[:, None])[:, 0] - logits.logsumexp(-1)
        # The only wait for the device in a step. float32 holds ids up to 2²⁴ exactly, and some devices have no float64.
        chosen, scores = torch.stack([self.tokens.float(), logprobs]).tolist()
        return [
            (one.text, int(token))
            for one, token, logprob in zip(self.growing, chosen, scores, strict=True)
            if self._add(one, int(token), logprob)
        ]

    def _add(self, one: Growing, token: int, logprob: float) -> bool:
        """Add a token to its text. Return whether it is a part of the text: a stop token is not."""
        going, text = one.goes_on, one.text
        one.steps += 1
        if not going:
            return False
        text.logprob += logprob
        self.state.timings.tokens += one.steps > 1  # the first token is from the prefill
        if token in self.stop:
            text.finish_reason = "eos"
            return False
        text.tokens.append(token)
        if one.seen:
            one.seen.push(token)
        if one.written:
            one.written.push(token)
            text.finish_reason = "eos" if one.written.complete else text.finish_reason
        return True

    def _advance(self, share: float = 0.75) -> None:
        """Run the chosen tokens. First drop the rows that ended, if at most this share of the rows goes on."""
        going = [place for place, one in enumerate(self.growing) if one.goes_on]
        full = any(one.steps >= one.limit for one in self.growing)  # the decoder has no more positions for such a row
        if len(going) < len(self.growing) and (full or len(going) <= share * len(self.growing)):
            kept = torch.tensor(going, device=self.u.device)  # this copies the cache, so drop several at a time
            self.state.select(kept)
            self.u, self.growing = self.u[kept], [self.growing[place] for place in going]
            self.tokens = None if self.tokens is None else self.tokens[kept]
        if self.tokens is not None:
            self.state.step(self.tokens)
            self.tokens = None


def forbid(logits: Float[Tensor, "b v"], banned: list[list[int]]) -> Float[Tensor, "b v"]:
    """Return `logits` with minus infinity at the banned tokens of each row."""
    places = [(row, token) for row, tokens in enumerate(banned) for token in tokens]
    if not places:
        return logits
    rows, tokens = torch.tensor(places).T.to(logits.device)
    return logits.index_put((rows, tokens), logits.new_tensor(-torch.inf))


def uniforms(rows: int, count: int, seed: int | None) -> Float[Tensor, "rows count"]:
    """Return random numbers in [0, 1). Row r has seed `seed` + r. PyTorch's global generator draws a missing seed."""
    if seed is None:
        seed = int(torch.randint(2**40, ()))
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed + row)) for row in range(rows)])
