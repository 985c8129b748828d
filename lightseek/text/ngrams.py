"""A guard against endless repetition: it allows no n-gram of tokens to occur twice.

The guard looks at the last n-1 tokens. If the same tokens came before, the token that followed them then is forbidden
now. So a model in a loop leaves it after one round. The price is that real repetitions are cut too, such as a table of
equal cells. This is why the reference exempts `<td>` and `</td>` when it runs under vLLM.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from lightseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class NgramGuard:
    """The rule for which repetitions are forbidden.

    `size` is n: no sequence of n tokens may come again. `window` limits this to the n-grams that lie completely within
    the last `window` tokens; None means all. `exempt` holds tokens that are never forbidden. `prompt` says whether the
    tokens of the prompt count as earlier text.

    The reference code has two guards, which are both available here:

    - `NgramGuard.OFFICIAL` is that of its Hugging Face `infer`: n = 20 over the whole text, including the prompt.
    - `NgramGuard.vllm(tokenizer)` is that of its vLLM script: n = 30 within the last 90 generated tokens. The tags of
      table cells are exempt.

    Raises ValueError for a size below 1, or a window smaller than the size.
    """

    size: int = 20
    window: int | None = None
    exempt: frozenset[int] = frozenset()
    prompt: bool = True

    OFFICIAL: ClassVar["NgramGuard"]

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"an n-gram has at least 1 token, not {self.size}")
        if self.window is not None and self.window < self.size:
            raise ValueError(f"no {self.size}-gram fits in a window of {self.window} tokens")

    @classmethod
    def vllm(cls, tokenizer: Tokenizer | None = None) -> "NgramGuard":
        """Return the guard of the vLLM script. Without a tokenizer that has table tokens, no token is exempt."""
        cells = [tokenizer.id_of(token) for token in ("<td>", "</td>")] if tokenizer else []
        return cls(30, window=90, exempt=frozenset(i for i in cells if i is not None), prompt=False)

    def start(self, prompt: Iterable[int] = ()) -> "Seen":
        """Return the memory for one text that follows `prompt`."""
        seen = Seen(self)
        for token in prompt if self.prompt else ():
            seen.push(token)
        return seen


NgramGuard.OFFICIAL = NgramGuard(20)


class Seen:
    """The n-grams of one text so far. A step costs O(n), however long the text is."""

    def __init__(self, guard: NgramGuard) -> None:
        self.guard = guard
        self.length = 0
        self.last: deque[int] = deque(maxlen=guard.size - 1)
        # n-1 tokens -> {token that followed them: where that n-gram last began}. Values are never changed in place, so
        # that forks can share them.
        self.followers: dict[tuple[int, ...], dict[int, int]] = {}

    def push(self, token: int) -> None:
        """Add a token that was written."""
        if len(self.last) == self.last.maxlen:
            key = tuple(self.last)
            self.followers[key] = self.followers.get(key, {}) | {token: self.length - len(self.last)}
        self.last.append(token)
        self.length += 1

    def banned(self) -> list[int]:
        """Return the tokens that may not come next."""
        if len(self.last) < self.guard.size - 1:
            return []
        begins = 0 if self.guard.window is None else self.length - self.guard.window
        followers = self.followers.get(tuple(self.last), {})
        return [t for t, begin in followers.items() if begin >= begins and t not in self.guard.exempt]

    def fork(self) -> "Seen":
        """Return a copy that can continue differently, for beam search."""
        copy = Seen(self.guard)
        copy.length, copy.last, copy.followers = self.length, self.last.copy(), self.followers.copy()
        return copy
