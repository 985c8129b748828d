"""Removes the language from a text, step by step, to find out whether a model reads a page or guesses it.

A decoder can predict how an English sentence continues, so it can write a page that it hardly saw. These corruptions
make the text less predictable while pages look alike to the encoder. The difference in OCR precision says how much of
the page was guessed (arXiv 2601.03714):

    natural              The pump failed at 7:15.      all of it can be guessed
    scrambled:percent=50 The mupp idaefl at 7:15.      some words have their letters in a random order
    distorted            The road values at 7:15.      the sentence is absurd, but its words look like the true ones
    shuffled             failed 7:15. pump The at      the choice of words helps to guess, their order does not
    replaced             Put once bricks us 5:20.      each word is English, but has nothing to do with its neighbours
    random               Spc yofb vneyke xs 6:59.      nothing can be guessed

Every kind keeps the white space and the length of the text. `scrambled:percent=10`, `distorted` and `random` follow the
paper's texts: its authors shuffle the letters of 10 % of the words, have a language model replace words by others of
another meaning that look alike, and draw random letters. `distorted` does without a language model.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

from lightseek.data.document import Document
from lightseek.data.kinds import CORRUPTIONS
from lightseek.data.sources.synthetic_kinds import ANYWHERE, KINDS, WORDS, Draw

SETTINGS = {"scrambled": {"percent"}}  # kind -> the settings that it takes
CONTENT = 4  # letters of the shortest word that `distorted` replaces; most shorter words are grammar
CANDIDATES = 4  # words that look most like the old one, of which `distorted` draws one
_LETTERS = re.compile(r"[^\W\d_]+")


def corrupt(text: str, kind: str, seed: int = 0) -> str:
    """Return `text` with less language in it. Equal arguments give equal results; each text has its own random draws.

    kind: one of `CORRUPTIONS`, perhaps with settings, such as `scrambled:percent=10`.
    Raises ValueError for any other kind, and for settings that the kind does not have.
    """
    CORRUPTIONS.check(kind)
    name, settings = CORRUPTIONS.split(kind)
    if unknown := settings.keys() - SETTINGS.get(name, set()):
        raise ValueError(f"{kind}: {name} has no setting {min(unknown)}")
    return CORRUPTIONS[name](text, Random(f"{seed} {text}").random, **settings)


def corrupt_documents(documents: Sequence[Document], kind: str, seed: int = 0) -> list[Document]:
    """Return the documents with their texts corrupted. Training, evaluation and `generate` all take them from here.

    Summaries, answers and facts stay. Raises ValueError for an unknown kind, and for a document that comes as pictures.
    """
    corrupt("", kind)  # raises for an unknown kind, also if there are no documents
    if kind == "natural":
        return list(documents)
    if pictures := [document.name for document in documents if document.images]:
        raise ValueError(f"corrupt={kind} changes texts before they become pages, and {pictures[0]} comes as pictures")
    return [replace(document, text=corrupt(document.text, kind, seed)) for document in documents]


def natural(text: str, r: Draw) -> str:
    """Return the text unchanged."""
    return text


def scrambled(text: str, r: Draw, percent: int | float = 10) -> str:
    """Put the letters of `percent` % of the words into a random order. At least one word of two letters is changed.

    Raises ValueError unless `percent` is a number from above 0 to 100.
    """
    if not (isinstance(percent, int | float) and 0 < percent <= 100):
        raise ValueError(f"percent must be above 0 and at most 100, got {percent!r}")
    words = list(_LETTERS.finditer(text))
    long = [word for word in words if len(set(word[0])) > 1]  # others look the same in any order
    chosen = sorted(long, key=lambda _: r())[: max(1, round(len(words) * percent / 100))]
    letters = list(text)
    for word in chosen:
        letters[word.start() : word.end()] = _another_order(word[0], r)
    return "".join(letters)


def distorted(text: str, r: Draw) -> str:
    """Replace each word of four letters or more by a real word that looks alike and means something else.

    The new word has as many letters and the same capitals. It is one of the words of the vocabulary that have the most
    letters in the same places. Shorter words stay, so the sentences keep their grammar.
    """
    vocabulary = _vocabulary()

    def word(match: re.Match) -> str:
        old, length = match[0].lower(), len(match[0])
        if length < CONTENT:
            return match[0]
        if length >= len(vocabulary):
            return _like(match[0], _word(length, r))
        others = [new for new in vocabulary[length] if new != old]
        others.sort(key=lambda new: sum(a != b for a, b in zip(new, old, strict=False)))
        return _like(match[0], _pick(others[:CANDIDATES], r))

    return _LETTERS.sub(word, text)


def shuffled(text: str, r: Draw) -> str:
    """Put the words, with their punctuation, into a random order."""
    pieces = re.split(r"(\S+)", text)  # white space has even indices, words have odd ones
    pieces[1::2] = sorted(pieces[1::2], key=lambda _: r())
    return "".join(pieces)


def replaced(text: str, r: Draw) -> str:
    """Replace each word by one of the vocabulary with as many letters and the same capitals, and each digit by one."""

    def word(match: re.Match) -> str:
        return _like(match[0], _word(len(match[0]), r))

    return re.sub(r"\d", lambda _: _pick(digits, r), _LETTERS.sub(word, text))


def random(text: str, r: Draw) -> str:
    """Replace each letter by a random letter A to Z of the same case, and each digit by a digit. The rest stays."""

    def letters(match: re.Match) -> str:
        return "".join(_pick(ascii_uppercase if c.isupper() else ascii_lowercase, r) for c in match[0])

    return re.sub(r"\d", lambda _: _pick(digits, r), _LETTERS.sub(letters, text))


def _like(old: str, new: str) -> str:
    """Return `new` with the capitals of `old`."""
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new


def _another_order(word: str, r: Draw) -> list[str]:
    """Return the letters of a word with at least two different letters in a random order, which is not the word's."""
    while True:
        found = sorted(word, key=lambda _: r())
        if "".join(found) != word:
            return found


def _word(length: int, r: Draw) -> str:
    """Return a word of `length` letters. It is joined from several words if the vocabulary has none of that length."""
    vocabulary = _vocabulary()
    longest = len(vocabulary) - 1
    parts = []
    while length:
        parts.append(_pick(vocabulary[min(length, longest)], r))
        length -= len(parts[-1])
    return "".join(parts)


@cache
def _vocabulary() -> list[list[str]]:
    """Return the words of the generated documents by number of letters, up to the first number that no word has."""
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
