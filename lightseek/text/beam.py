"""Beam search keeps the `beams` likeliest beginnings of each text, where greedy decoding keeps one.

The score of a finished text is log P(text) / length ** penalty. Both count the stop token, as in Hugging Face's
`generate`. Penalty 0 compares plain probabilities, which favours short texts. Penalty 1 compares the mean per token,
and larger penalties favour long texts.

Each step extends every beam of a row by every token and takes the best (1 + stop tokens) · beams candidates, so that
enough of them continue. A candidate that ends with a stop token is a finished text if it is among the best `beams`. The
best of the others are the new beams. A row is done when it has `beams` finished texts and its best beam, scored as if
it stopped here, does not beat the worst of them. This is Hugging Face's default, `early_stopping=False`. It is exact
for penalties up to 0 and a heuristic for larger ones.
"""

import math
from dataclasses import dataclass, field

import torch

from lightseek.text.decoding import Continuation
from lightseek.text.ngrams import NgramGuard, Seen
from lightseek.text.sampling import Row, forbid


@dataclass
class Beam:
    """One beginning of a text. If a row has fewer beginnings than beams, the others have `logprob` minus infinity."""

    tokens: list[int]
    logprob: float
    seen: Seen | None  # the guard's memory of this beginning; None without a guard

    def extended(self, token: int, logprob: float) -> "Beam":
        seen = self.seen.fork() if self.seen else None
        if seen:
            seen.push(token)
        return Beam([*self.tokens, token], logprob, seen)


@dataclass
class Search:
    """The search of one row. It always has `count` beams and at most `count` finished texts."""

    count: int
    penalty: float
    limit: int  # tokens
    beams: list[Beam]
    finished: list[tuple[float, Row]] = field(default_factory=list)  # (score, text), best first

    def finish(self, text: Row, length: int) -> None:
        self.finished.append((text.logprob / length**self.penalty, text))
        self.finished.sort(key=lambda scored: -scored[0])
        del self.finished[self.count :]

    def extend(self, candidates: list[tuple[float, int, int]], stop: frozenset[int]) -> list[int]:
        """Make new beams of the best candidates, and return the number of the old beam that each new beam continues.

        A candidate is (logprob, beam, token). They are in order, the best first.
        """
        going, parents = [], []
        for rank, (logprob, parent, token) in enumerate(candidates):
            beam = self.beams[parent]
            if logprob == -math.inf or len(going) == self.count:
                break
            if token not in stop:
                going.append(beam.extended(token, logprob))
                parents.append(parent)
            elif rank < self.count:
                self.finish(Row(beam.tokens, logprob, "eos"), len(beam.tokens) + 1)
        for _ in range(self.count - len(going)):  # fill up, because the tensors keep their size
            going.append(Beam([0], -math.inf, None))
            parents.append(0)
        self.beams = going
        return parents

    def cut_off(self) -> None:
        """End all beams where they are."""
        for beam in self.beams:
            if beam.logprob > -math.inf:
                self.finish(Row(beam.tokens, beam.logprob), len(beam.tokens))

    @property
    def done(self) -> bool:
        best = max(beam.logprob for beam in self.beams) / len(self.beams[0].tokens) ** self.penalty
        return best == -math.inf or (len(self.finished) == self.count and self.finished[-1][0] >= best)


def beam_search(
    state: Continuation,
    beams: int,
    length_penalty: float,
    guard: NgramGuard | None,
    stop: frozenset[int],
) -> list[Row]:
    """Return the best text that the search finds for each prompt, within its limit in `state.limits`."""
    device = state.logits.device
    unused = [Beam([], -math.inf, None)] * (beams - 1)  # all texts have the same, empty beginning
    firsts = [Beam([], 0.0, guard.start(prompt) if guard else None) for prompt in state.prompts]
    live = searches = [
        Search(beams, length_penalty, limit, [first, *unused])
        for first, limit in zip(firsts, state.limits, strict=True)
    ]
    state.select(torch.arange(len(live), device=device).repeat_interleave(beams))
    for step in range(max(state.limits)):
        parents = []  # for each beam of the next step, the row of the state that it continues
        going = []
        for place, (search, best) in enumerate(zip(live, candidates(state, live, stop), strict=True)):
            chosen = search.extend(best, stop)
            state.timings.tokens += step > 0
            if search.done:
                continue
            if step + 1 == search.limit:
                search.cut_off()
            else:
                going.append(search)
                parents += [place * beams + parent for parent in chosen]
        live = going
        if not live:
            break
        if parents != list(range(len(state.logits))):
            state.select(torch.tensor(parents, device=device))
        state.step(torch.tensor([beam.tokens[-1] for search in live for beam in search.beams], device=device))
    return [search.finished[0][1] if search.finished else Row([]) for search in searches]


def candidates(state: Continuation, live: list[Search], stop: frozenset[int]) -> list[list[tuple[float, int, int]]]:
    """Return the best candidates of each row as (logprob, beam, token), the best first.

    There are enough of them that `beams` continue even if all the others end with a stop token.
    """
    beams = [beam for search in live for beam in search.beams]
    logprobs = forbid(state.logits.log_softmax(dim=-1), [beam.seen.banned() if beam.seen else [] for beam in beams])
    logprobs = logprobs + torch.tensor([beam.logprob for beam in beams], device=logprobs.device)[:, None]
    vocabulary = logprobs.shape[-1]
    per_row = logprobs.view(len(live), -1)
    best, index = per_row.topk(min((1 + len(stop)) * live[0].count, per_row.shape[-1]), dim=-1)
    return [
        [(logprob, place // vocabulary, place % vocabulary) for logprob, place in zip(*row, strict=True)]
        for row in zip(best.tolist(), index.tolist(), strict=True)
    ]
