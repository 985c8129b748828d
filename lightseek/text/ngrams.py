"""The guard against endless repetition: no n-gram of tokens may occur twice.

The guard looks at the last n-1 tokens. Wherever they stood before, the token that followed then is forbidden now. A
looping model is thus pushed out of its loop after one round, at the price that true repetitions are cut too: a table of
equal cells, for one, which is why the reference exempts `<td>` and `</td>` when it runs under vLLM.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from lightseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class NgramGuard:
    """Which repetitions to forbid.

    `size` n: no n tokens in a row may come again. `window`: only n-grams that lie whole within the last `window` tokens
    count; None for all. `exempt`: tokens never forbidden. `prompt`: the prompt's tokens count as text before.

    Two guards come with the reference code, and both read the same way here:

    - `NgramGuard.OFFICIAL`, its Hugging Face `infer`: n = 20 over everything, the prompt included.
    - `NgramGuard.vllm(tokenizer)`, its vLLM script: n = 30 within the last 90 generated tokens, table cells exempt.

    Raises ValueError for a size below 1, or a window in which no n-gram fits.
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
        """The vLLM script's guard; without a tokenizer, or in one without table tokens, nothing is exempt."""
        cells = [tokenizer.id_of(token) for token in ("<td>", "</td>")] if tokenizer else []
        return cls(30, window=90, exempt=frozenset(i for i in cells if i is not None), prompt=False)

    def start(self, prompt: Iterable[int] = ()) -> "Seen":
        """The memory for one text that follows `prompt`."""
        seen = Seen(self)
        for token in prompt if self.prompt else ():
            seen.push(token)
        return seen


NgramGuard.OFFICIAL = NgramGuard(20)


class Seen:
    """What one text has said so far. A step costs O(n), however long the text."""

    def __init__(self, guard: NgramGuard) -> None:
        self.guard = guard
        self.length = 0
        self.last: deque[int] = deque(maxlen=guard.size - 1)
        # The n-1 tokens -> what followed them, and where its n-gram last began. Values are never changed in place, so
        # that a fork can share them.
        self.followers: dict[tuple[int, ...], dict[int, int]] = {}

    def push(self, token: int) -> None:
        """`token` was written."""
        if len(self.last) == self.last.maxlen:
            key = tuple(self.last)
            self.followers[key] = self.followers.get(key, {}) | {token: self.length - len(self.last)}
        self.last.append(token)
        self.length += 1

    def banned(self) -> list[int]:
        """The tokens that may not come next."""
        if len(self.last) < self.guard.size - 1:
            return []
        begins = 0 if self.guard.window is None else self.length - self.guard.window
        followers = self.followers.get(tuple(self.last), {})
        return [t for t, begin in followers.items() if begin >= begins and t not in self.guard.exempt]

    def fork(self) -> "Seen":
        """A copy to continue differently, for beam search."""
        copy = Seen(self.guard)
        copy.length, copy.last, copy.followers = self.length, self.last.copy(), self.followers.copy()
        return copy
