"""Writes synthetic documents: nine kinds of everyday text with facts in them, and a summary that states the facts.

- The facts (names, places, dates, amounts) have millions of combinations, so a model cannot memorise them. A model
  that states them has read them.
- The facts are spread over the text, and the last one is near the end. The sentences between them have other names and
  numbers. So the first sentences are no summary, and neither is a list of all numbers.
- The wording of the text varies, but the facts alone decide the summary. A reference that varied at random would
  measure luck.
- A document depends on (seed, split, index) only. A hash of its facts decides in which split it may appear, so no two
  splits share a document, whatever the seeds are.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeVar
from zlib import crc32

from lightseek.data.document import Document
from lightseek.data.sources.synthetic_kinds import ANYWHERE, KINDS, SLOTS, Draw, FactKind, Kind
from lightseek.data.splits import Split, check_split

COUNTS = {"train": 10_000, "validation": 500, "test": 500}  # without a limit, as there is no last document
CHARACTERS = 300  # short enough for the nano model to learn from in minutes
_TRIES = 200
_PARAGRAPH = 6  # sentences
AnyKind = TypeVar("AnyKind", bound=FactKind)
_QUARTERS: tuple[Split, ...] = ("train", "train", "validation", "test")


class Values(dict[str, str]):
    """Maps names to facts. Any other name is a slot, which gets a new random value each time it is read."""

    def __init__(self, r: Draw, slots: Mapping[str, Callable[[Draw], str]] = SLOTS) -> None:
        super().__init__()
        self.random, self.slots = r, slots

    def __missing__(self, slot: str) -> str:
        return self.slots[slot](self.random)


def documents(split: Split, count: int, seed: int = 0, characters: int = CHARACTERS) -> list[Document]:
    """Return the first `count` documents of a split. Each is about `characters` long and never longer.

    Raises ValueError if `characters` is too few for the facts.
    """
    return [document(split, index, seed, characters) for index in range(count)]


def load(split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None) -> list[Document]:
    """The first `limit` documents of a split, as `documents` makes them; `COUNTS` of them if there is no limit."""
    return documents(split, COUNTS[split] if limit is None else limit, seed, max_characters or CHARACTERS)


def document(split: Split, index: int, seed: int = 0, characters: int = CHARACTERS) -> Document:
    """Return document number `index` of a split. It is about `characters` long and never longer.

    Raises ValueError if `characters` is too few for the facts.
    """
    return draw_document("synthetic", KINDS, SLOTS, _write, split, index, seed, characters)


def draw_document(
    source: str,
    kinds: Sequence[AnyKind],
    slots: Mapping[str, Callable[[Draw], str]],
    write: Callable[[AnyKind, Values, int], str],
    split: Split,
    index: int,
    seed: int,
    characters: int,
) -> Document:
    """Return document number `index` of a split of a generated source.

    `write(kind, values, characters)` writes the text around the facts that were drawn. The facts of a document differ
    from each other. Raises ValueError if no text is at most `characters` long.
    """
    check_split(split)
    random = Random(f"{seed}/{split}/{index}").random
    for _ in range(_TRIES):
        kind = kinds[int(random() * len(kinds))]
        values = Values(random, slots)
        for fact, slot in kind.facts.items():
            values[fact] = slots[slot](random)
        facts = tuple(values.values())
        if facts_split(facts) == split and len(set(facts)) == len(facts):
            text = write(kind, values, characters)
            if len(text) <= characters:
                name = f"{source}-{kind.name}-{split}-{seed}-{index}"
                return Document(text, kind.summary.format_map(values), name, facts)
    raise ValueError(f"{characters} characters are too few for {source} documents: give them at least 200")


def facts_split(facts: tuple[str, ...]) -> Split:
    """Return the only split in which a document with these facts may appear: 1/2 train, 1/4 validation, 1/4 test."""
    return _QUARTERS[crc32("\n".join(facts).encode()) % 4]


def _write(kind: Kind, values: Values, characters: int) -> str:
    """Write the title and the sentences that tell the facts, and fill the room between them with other sentences."""
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
        sentence = template.format_map(Values(random))  # not `values`, so that {person} is another person
        if len(sentence) + 2 > room:
            misfits += 1
            continue
        room -= len(sentence) + 2
        gap = 0 if random() < 0.125 else 1 + int(random() * (len(tells) - 1))  # the tell it precedes; 0: after the last
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
    """Return the share (0 to 1) of the document's facts that are in `summary` as whole words and numbers.

    Line breaks, case and how accents are composed don't matter. "1,500", "500.25" and "-500" do not state the fact
    "500". A summary that copies the whole document states all facts, so look at its length too. Raises ValueError if
    the document has no facts.
    """
    if not document.facts:
        raise ValueError(f"document {document.name} carries no facts to look for")
    summary = _plain(summary)
    found = 0
    for fact in document.facts:
        words = _plain(fact)
        signed = "(?<![-−])" if words[0].isdigit() else ""
        found += re.search(rf"(?<!\w)(?<!\d[.,]){signed}{re.escape(words)}(?!\w)(?![.,]\d)", summary) is not None
    return found / len(document.facts)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())
