"""Synthetic documents: nine kinds of everyday text that carry facts, with the summary that follows from them.

- The facts (names, places, dates, amounts) come from millions of combinations, so none can be memorised: a model
  that states them has read them.
- They are spread over the text between sentences that carry other names and numbers, the last one near the end,
  so neither the first sentences nor every number is the summary.
- The wording of the text varies; the summary is a function of the facts, because a reference that varied at
  random would measure luck.
- A document depends on (seed, split, index) alone. A hash of its facts decides which split it may appear in, so no
  two splits share one, whatever the seeds.
"""

import re
from random import Random
from zlib import crc32

from lightseek.data.document import Document
from lightseek.data.sources.synthetic_kinds import ANYWHERE, KINDS, SLOTS, Draw, Kind
from lightseek.data.splits import Split, check_split

COUNTS = {"train": 10_000, "validation": 500, "test": 500}  # without a limit, as there is no last document
CHARACTERS = 300  # short enough for the nano model to learn from in minutes
_TRIES = 200
_PARAGRAPH = 6  # sentences
_QUARTERS: tuple[Split, ...] = ("train", "train", "validation", "test")


class _Values(dict[str, str]):
    """The facts by name; any other name is a slot, drawn anew each time it is asked for."""

    def __init__(self, r: Draw) -> None:
        super().__init__()
        self.random = r

    def __missing__(self, slot: str) -> str:
        return SLOTS[slot](self.random)


def documents(split: Split, count: int, seed: int = 0, characters: int = CHARACTERS) -> list[Document]:
    """The first `count` documents of a split, each about `characters` long and never longer.

    Raises ValueError when `characters` leaves no room for the facts.
    """
    return [document(split, index, seed, characters) for index in range(count)]


def load(split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None) -> list[Document]:
    """The first `limit` documents of a split, as `documents` makes them; `COUNTS` of them if there is no limit."""
    return documents(split, COUNTS[split] if limit is None else limit, seed, max_characters or CHARACTERS)


def document(split: Split, index: int, seed: int = 0, characters: int = CHARACTERS) -> Document:
    """Document number `index` of a split, about `characters` long and never longer.

    Raises ValueError when that leaves no room for the facts.
    """
    check_split(split)
    random = Random(f"{seed}/{split}/{index}").random
    for _ in range(_TRIES):
        kind = KINDS[int(random() * len(KINDS))]
        values = _Values(random)
        for fact, slot in kind.facts.items():
            values[fact] = SLOTS[slot](random)
        facts = tuple(values.values())
        if facts_split(facts) == split:
            text = _write(kind, values, characters)
            if len(text) <= characters:
                name = f"synthetic-{kind.name}-{split}-{seed}-{index}"
                return Document(text, kind.summary.format_map(values), name, facts)
    raise ValueError(f"{characters} characters are too few for a synthetic document: give it at least 200")


def facts_split(facts: tuple[str, ...]) -> Split:
    """The only split in which a document with these facts may appear: half train, a quarter each of the others."""
    return _QUARTERS[crc32("\n".join(facts).encode()) % 4]


def _write(kind: Kind, values: _Values, characters: int) -> str:
    """Title and telling sentences, with others between them until the next would be too much."""
    random = values.random
    tells = [wordings[int(random() * len(wordings))].format_map(values) for wordings in kind.tells]
    title = kind.titles[int(random() * len(kind.titles))].format_map(values)
    room = characters - len(title) - 2 - sum(len(tell) + 2 for tell in tells)
    between: list[list[str]] = [[] for _ in tells]
    unused, misfits = list(kind.others), 0
    while room > 0 and misfits < 3:
        if not unused:
            unused = list(ANYWHERE)
        template = unused.pop(int(random() * len(unused)))
        sentence = template.format_map(_Values(random))  # not `values`: its {person} must be another one
        if len(sentence) + 2 > room:
            misfits += 1
            continue
        room -= len(sentence) + 2
        gap = 0 if random() < 0.125 else 1 + int(random() * (len(tells) - 1))  # before which tell; 0: after the last
        between[gap].append(sentence)
    body: list[str] = []
    for gap, tell in enumerate(tells):
        body += (between[gap] if gap else []) + [tell]
    body += between[0]
    if kind.lines:
        return "\n".join([title, *body])
    paragraphs = (" ".join(body[i : i + _PARAGRAPH]) for i in range(0, len(body), _PARAGRAPH))
    return title + "\n\n" + "\n\n".join(paragraphs)


def facts_stated(document: Document, summary: str) -> float:
    """Share (0 to 1) of the document's facts that stand in `summary`, as whole words and numbers, in any case.

    Line breaks and case don't matter; "500" is not stated by "1,500", "500.25" or "-500". A summary that copies the
    whole document states them all, so look at its length too. Raises ValueError without facts.
    """
    if not document.facts:
        raise ValueError(f"document {document.name} carries no facts to look for")
    summary = " ".join(summary.split()).casefold()
    found = 0
    for fact in document.facts:
        words = " ".join(fact.split()).casefold()
        signed = "(?<![-−])" if words[0].isdigit() else ""
        found += re.search(rf"(?<!\w)(?<!\d[.,]){signed}{re.escape(words)}(?!\w)(?![.,]\d)", summary) is not None
    return found / len(document.facts)
