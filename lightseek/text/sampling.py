"""Decoding of one token at a time: the likeliest token (greedy), or a random draw (temperature, top-k, top-p).

A draw takes a random number u in [0, 1). It adds up the probabilities of the tokens, the likeliest first, and chooses
the token at which the sum passes u. Each row has a random generator of its own on the CPU. So the text of a row depends
on its seed, and not on the other rows or on the device's generator.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.text.decoding import Continuation
from lightseek.text.ngrams import NgramGuard
from lightseek.text.schema import Rule, keep


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


def sample(
    state: Continuation,
    sampler: Sampler,
    guard: NgramGuard | None,
    stop: frozenset[int],
    seed: int | None,
    rows: list[Row],
    rule: Rule | None = None,
) -> Iterator[tuple[int, int]]:
    """Add tokens to `rows`, one for each prompt, and yield (row, token) for each new token except stop tokens.

    A row ends at a stop token or at its limit in `state.limits`. With a `rule`, it also ends when its JSON is complete.
    Row r draws with seed `seed` + r. Alone, with this seed, it would give the same text.
    """
    device = state.logits.device
    live = list(range(len(rows)))  # the index in `rows` of each row of the state
    seen = [guard.start(prompt) for prompt in state.prompts] if guard else []
    written = [rule.start() for _ in rows] if rule else []
    # Greedy decoding must not use PyTorch's generator: training reads pages in between and must not be changed by it.
    longest = max(state.limits)
    u = uniforms(len(rows), longest, seed) if sampler.temperature else torch.zeros(len(rows), longest)
    u = u.to(device)
    for step in range(longest):
        logits = forbid(state.logits, [seen[row].banned() for row in live]) if guard else state.logits
        logits = keep(logits, [written[row].allowed() for row in live]) if rule else logits
        tokens = sampler(logits, u[:, step])
        logprobs = state.logits.gather(-1, tokens[:, None])[:, 0] - state.logits.logsumexp(-1)
        # The only wait for the device in a step. float32 holds ids up to 2²⁴ exactly, and some devices have no float64.
        chosen, scores = torch.stack([tokens.float(), logprobs]).tolist()
        going = []
        for place, (row, token, logprob) in enumerate(zip(live, map(int, chosen), scores, strict=True)):
            text = rows[row]
            if text.finish_reason != "length":  # a finished row stays until `select` below drops it
                continue
            text.logprob += logprob
            state.timings.tokens += step > 0
            if token in stop:
                text.finish_reason = "eos"
                continue
            text.tokens.append(token)
            if guard:
                seen[row].push(token)
            if rule:
                written[row].push(token)
                text.finish_reason = "eos" if written[row].complete else text.finish_reason
            if step + 1 < state.limits[row] and text.finish_reason == "length":
                going.append(place)
            yield row, token
        if not going:
            return
        full = any(step + 1 == state.limits[row] for row in live)  # the decoder has no more positions for such a row
        if full or len(going) <= 0.75 * len(live):  # dropping rows copies the cache, so drop several at a time
            kept = torch.tensor(going, device=device)
            state.select(kept)
            tokens, u, live = tokens[kept], u[kept], [live[place] for place in going]
        state.step(tokens)


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
