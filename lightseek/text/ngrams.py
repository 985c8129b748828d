"""A guard against endless repetition: it allows no n-gram of tokens to occur twice.

The guard looks at the last n-1 tokens. If the same tokens came before, the token that followed them then is forbidden
now. So a model in a loop leaves it after one round. The price is that real repetitions are cut too, such as a table of
equal cells. This is why the reference exempts `<td>` and `</td>` when it runs under vLLM.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from lightseek.text.kinds import GUARDS
from lightseek.text.tokenizer import Tokenizer

CHARACTERS = 80  # about as many as 20 official tokens have


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

    `NgramGuard.default(tokenizer)` is the guard that a model gets if nobody names one.
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

    @classmethod
    def default(cls, tokenizer: Tokenizer | None = None) -> "NgramGuard":
        """Return the official guard. If each token is one character, as nano's are, n is 80 and not 20.

        20 characters are a short line, which a receipt or a table may well have twice.
        """
        return cls(CHARACTERS) if tokenizer and tokenizer.of_characters else cls.OFFICIAL


NgramGuard.OFFICIAL = NgramGuard(20)


def official_guard(tokenizer: Tokenizer | None) -> NgramGuard:
    return NgramGuard.OFFICIAL


def vllm_guard(tokenizer: Tokenizer | None) -> NgramGuard:
    return NgramGuard.vllm(tokenizer)


def no_guard(tokenizer: Tokenizer | None) -> None:
    return None


def find_guard(
    name: str | None, tokenizer: Tokenizer, window: int | None = None, exempt: Iterable[str] = ()
) -> NgramGuard | None:
    """Return the guard that `name` stands for: one of `GUARDS`, a number of tokens n, or None for the default.

    `window` takes the place of the guard's window, and the tokens `exempt` are added to the tokens it never forbids.
    Raises ValueError for an unknown name, a text that is not one token, or options of no guard.
    """
    if name is None:
        guard = NgramGuard.default(tokenizer)
    elif name.isdecimal():
        guard = NgramGuard(int(name))
    elif name in GUARDS:
        guard = GUARDS[name](tokenizer)
    else:
        raise ValueError(f"unknown guard {name!r}: choose one of {GUARDS.choices}, or a number of tokens")
    ids = {text: tokenizer.encode(text, special=True) for text in exempt}
    if long := [text for text, found in ids.items() if len(found) != 1]:
        raise ValueError(f"{long[0]!r} is not one token of this model, so it cannot be exempt from the guard")
    if guard is None:
        if ids or window is not None:
            raise ValueError("without a guard against repetition it has no window and no exempt tokens")
        return None
    if window is not None:
        guard = replace(guard, window=window)
    return replace(guard, exempt=guard.exempt | {found[0] for found in ids.values()})


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
