"""Text with the language taken out of it, step by step: does the model read, or does it guess?

A decoder knows how English goes on, so it can write a page that it hardly saw. Take away what it knows, keep what the
encoder sees, and the difference in OCR precision is how much was guessed (arXiv 2601.03714):

    natural    The pump failed at 7:15.      all of it can be guessed at
    shuffled   failed 7:15. pump The at      the words help each other, their order does not
    replaced   Put once bricks us 5:20.      words, each for itself, and other digits
    random     Spc yofb vneyke xs 6:59.      nothing to guess at

Every kind leaves white space where it was and the text as long as it was, so pages stay alike.
"""

import re
from functools import cache
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

from lightseek.data.kinds import CORRUPTIONS
from lightseek.data.sources.synthetic_kinds import ANYWHERE, KINDS, WORDS, Draw

_LETTERS = re.compile(r"[^\W\d_]+")


def corrupt(text: str, kind: str, seed: int = 0) -> str:
    """`text` with less language in it; the same for equal arguments, and drawn anew for each text.

    kind: one of `CORRUPTIONS`. Raises ValueError for another.
    """
    return CORRUPTIONS.find(kind)(text, Random(f"{seed} {text}").random)


def natural(text: str, r: Draw) -> str:
    """The text as it is."""
    return text


def shuffled(text: str, r: Draw) -> str:
    """The words, with their punctuation, in any order."""
    pieces = re.split(r"(\S+)", text)  # white space at even places, words at odd ones
    pieces[1::2] = sorted(pieces[1::2], key=lambda _: r())
    return "".join(pieces)


def replaced(text: str, r: Draw) -> str:
    """Each word by one of the vocabulary with as many letters, capitals where they were; digits by others."""

    def word(match: re.Match) -> str:
        old, new = match[0], _word(len(match[0]), r)
        if old.isupper():
            return new.upper()
        return new.capitalize() if old[0].isupper() else new

    return re.sub(r"\d", lambda _: _pick(digits, r), _LETTERS.sub(word, text))


def random(text: str, r: Draw) -> str:
    """Letters by letters A to Z, capitals where they were; digits by digits; the rest stays."""

    def letters(match: re.Match) -> str:
        return "".join(_pick(ascii_uppercase if c.isupper() else ascii_lowercase, r) for c in match[0])

    return re.sub(r"\d", lambda _: _pick(digits, r), _LETTERS.sub(letters, text))


def _word(length: int, r: Draw) -> str:
    """A word of `length` letters; words one after the other where the vocabulary has none so long."""
    vocabulary = _vocabulary()
    longest = len(vocabulary) - 1
    parts = []
    while length:
        parts.append(_pick(vocabulary[min(length, longest)], r))
        length -= len(parts[-1])
    return "".join(parts)


@cache
def _vocabulary() -> list[list[str]]:
    """Words of the generated documents by their number of letters, up to the first number that none has."""
    templates = [*ANYWHERE, *(line for kind in KINDS for line in (*kind.titles, *sum(kind.tells, ()), *kind.others))]
    texts = [re.sub(r"{.*?}", "", template) for template in templates]
    texts += [" ".join(words) for name, words in WORDS.items() if "-" not in name]  # no halves of names
    words = sorted({word.lower() for text in texts for word in _LETTERS.findall(text)})
    by_length: list[list[str]] = [[]]
    while found := [word for word in words if len(word) == len(by_length)]:
        by_length.append(found)
    return by_length


def _pick(choices: str | list[str], r: Draw) -> str:
    return choices[int(r() * len(choices))]
