"""Writes the documents of the ablations: nine kinds of lists that nano's pre-training never saw.

The weights of nano were pre-trained on the kinds of `synthetic.py`. A fair ablation needs a task that they can't do
before the first step. So no title, no sentence and no form of a summary occurs in both sources (a test compares them),
and a summary here needs a relation between entries that no summary there needs: the first and the last of a list, who
is next to whom, the answer to a question. `unseen_kinds.py` lists the relations.

As in `synthetic.py`, the facts have many values, a document depends on (seed, split, index) only, and no two splits
share a document.
"""

from lightseek.data.document import Document
from lightseek.data.sources.synthetic import COUNTS, Values, draw_document
from lightseek.data.sources.unseen_kinds import KINDS, REMARKS, SLOTS, Entry, Kind
from lightseek.data.splits import Split

CHARACTERS = 160  # large letters on a page of 100 vision tokens, so that the relation is the task and not the reading
_REDRAWS = 30


def load(split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None) -> list[Document]:
    """The first `limit` documents of a split; `COUNTS` of them if there is no limit."""
    count = COUNTS[split] if limit is None else limit
    return [document(split, index, seed, max_characters or CHARACTERS) for index in range(count)]


def document(split: Split, index: int, seed: int = 0, characters: int = CHARACTERS) -> Document:
    """Return document number `index` of a split. It is about `characters` long and never longer.

    Raises ValueError if `characters` is too few for the facts.
    """
    return draw_document("unseen", KINDS, SLOTS, write, split, index, seed, characters)


def write(kind: Kind, values: Values, characters: int) -> str:
    """Write the title and the entries that tell the facts, and fill the room between them with decoys."""
    random = values.random
    for name, slot in kind.hidden.items():
        while (value := SLOTS[slot](random)) in values.values():
            pass
        values[name] = value
    arrangement = kind.arrangements[int(random() * len(kind.arrangements))]
    entries = _Entries(values)
    title = entries.draw(arrangement.titles)
    head, block, tail = (
        [entries.draw(wordings) for wordings in part]
        for part in (arrangement.head, arrangement.block, arrangement.tail)
    )
    room = characters - len(title) - 1 - sum(len(entry) + 1 for entry in [*head, *block, *tail])
    decoys: list[str] = []
    while (decoy := entries.draw(kind.decoys)) and len(decoy) + 1 <= room:
        decoys.append(decoy)
        room -= len(decoy) + 1
    place = int(random() * (len(decoys) + 1))
    gap = "\n" if kind.lines else " "
    text = title + "\n" + gap.join([*head, *decoys[:place], *block, *decoys[place:], *tail])
    if not decoy:  # the kind has no more
        remarks = "\n"
        while len(remarks) + len(remark := REMARKS[int(random() * len(REMARKS))]) < room:
            remarks += remark + " "
        text += remarks.rstrip()
    return text


class _Entries:
    """Fills entries with values that the document does not have yet, so that each value belongs to one entry."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.used = set(values.values())

    def draw(self, wordings: Entry) -> str:
        """Return one of the wordings with new values in its slots, or "" if all values seem to be used."""
        random = self.values.random
        for _ in range(_REDRAWS):
            fresh = _Remembered(random, SLOTS)
            fresh.update(self.values)
            entry = wordings[int(random() * len(wordings))].format_map(fresh)
            new = {entry, *(value for name, value in fresh.items() if name not in self.values)}
            if self.used.isdisjoint(new):
                self.used |= new
                return entry
        return ""


class _Remembered(Values):
    """Values that keep what they draw."""

    def __missing__(self, slot: str) -> str:
        self[slot] = super().__missing__(slot)
        return self[slot]
