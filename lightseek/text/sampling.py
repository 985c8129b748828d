"""Decoding one token at a time: the likeliest (greedy), or a draw from the likelier (temperature, top-k, top-p).

A draw is a number u in [0, 1) and the token at which the tokens' probabilities, added up from the likeliest down, pass
u. Each row's numbers come from its own generator on the CPU, so a row's text depends on its seed alone: not on its
neighbours, and not on the device's generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.text.decoding import Continuation
from lightseek.text.ngrams import NgramGuard


@dataclass(frozen=True)
class Sampler:
    """How to choose the next token. Temperature 0 is greedy.

    Above it, in this order, as in Hugging Face's `generate`: divide the logits by the temperature, keep the `top_k`
    likeliest tokens, renormalise, keep the fewest of them that reach `top_p` together.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: 0 is greedy, above 0 samples")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it is a probability above 0, up to 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: keep at least one token, or None for all")

    def __call__(self, logits: Float[Tensor, "b v"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The chosen tokens; `u` is each row's random number in [0, 1), of which greedy takes no notice."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        logits = logits - logits.amax(-1, keepdim=True)  # or a small temperature would overflow
        probabilities, order = (logits / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        if self.top_k is not None:
            probabilities = probabilities[:, : self.top_k]
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities * (before < self.top_p)
        reached = probabilities.cumsum(-1)
        rank = (reached <= u[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
        last = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding must not pass the last one kept
        return order.gather(-1, rank.minimum(last))[:, 0]


@dataclass
class Row:
    """One prompt's text as it grows."""

    tokens: list[int]
    logprob: float = 0.0
    finish_reason: str = "length"  # until a stop token comes


def sample(
    state: Continuation,
    sampler: Sampler,
    guard: NgramGuard | None,
    max_new_tokens: int,
    stop: frozenset[int],
    seed: int | None,
    rows: list[Row],
) -> Iterator[tuple[int, int]]:
    """Fill `rows`, one per prompt, giving (row, token) for each new token but the one that stops a row.

    A row draws with seed `seed` + its number: alone, with that seed, it gives the same text.
    """
    device = state.logits.device
    live = list(range(len(rows)))  # whose text each row of the state is
    seen = [guard.start(prompt) for prompt in state.prompts] if guard else []
    # Greedy decoding leaves PyTorch's generator alone: reading pages during a training must not change the training.
    u = uniforms(len(rows), max_new_tokens, seed) if sampler.temperature else torch.zeros(len(rows), max_new_tokens)
    u = u.to(device)
    for step in range(max_new_tokens):
        logits = forbid(state.logits, [seen[row].banned() for row in live]) if guard else state.logits
        tokens = sampler(logits, u[:, step])
        logprobs = state.logits.gather(-1, tokens[:, None])[:, 0] - state.logits.logsumexp(-1)
        # The step's one wait for the device; float32 holds ids up to 2²⁴ exactly, and float64 is not on every device.
        chosen, scores = torch.stack([tokens.float(), logprobs]).tolist()
        going = []
        for place, (row, token, logprob) in enumerate(zip(live, map(int, chosen), scores, strict=True)):
            text = rows[row]
            if text.finish_reason == "eos":  # done, and carried along until the batch is thinned out
                continue
            text.logprob += logprob
            state.timings.tokens += step > 0
            if token in stop:
                text.finish_reason = "eos"
                continue
            text.tokens.append(token)
            if guard:
                seen[row].push(token)
            going.append(place)
            yield row, token
        if not going or step == max_new_tokens - 1:
            return
        if len(going) <= 0.75 * len(live):  # dropping rows copies the cache: not for each one that ends
            kept = torch.tensor(going, device=device)
            state.select(kept)
            tokens, u, live = tokens[kept], u[kept], [live[place] for place in going]
        state.step(tokens)


def forbid(logits: Float[Tensor, "b v"], banned: list[list[int]]) -> Float[Tensor, "b v"]:
    """`logits` with minus infinity at each row's banned tokens."""
    places = [(row, token) for row, tokens in enumerate(banned) for token in tokens]
    if not places:
        return logits
    rows, tokens = torch.tensor(places).T.to(logits.device)
    return logits.index_put((rows, tokens), logits.new_tensor(-torch.inf))


def uniforms(rows: int, count: int, seed: int | None) -> Float[Tensor, "rows count"]:
    """Random numbers in [0, 1): each row's from its own seed. Without a seed, from PyTorch's global generator."""
    if seed is None:
        seed = int(torch.randint(2**40, ()))
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed + row)) for row in range(rows)])
