"""Holds the nine kinds of lists from which unseen.py writes documents.

In each kind the order of the entries, or a mark on one of them, decides what the summary must say:

    title
    head                   entries that stand first
    decoys, block, decoys  the block stands at a random place among other entries
    tail                   entries that stand last
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from lightseek.data.sources.synthetic_kinds import SLOTS as SHARED
from lightseek.data.sources.synthetic_kinds import WORDS, Draw, FactKind, _number, _pick

_SHORT = [end for end in WORDS["surname-end"] if len(end) <= 2]


def _short_name(r: Draw) -> str:
    """Draw one of about 1100 names of five letters or so. A longer name measures the reading and not the relation."""
    return _pick(r, "surname-stem") + _SHORT[_number(r, 0, len(_SHORT))]


SLOTS: dict[str, Callable[[Draw], str]] = {
    **SHARED,
    "name": _short_name,
    "two": lambda r: str(_number(r, 10, 100)),
    "three": lambda r: str(_number(r, 100, 1000)),
    "four": lambda r: str(_number(r, 1000, 10_000)),
    "room": lambda r: f"{'ABCDEFGH'[_number(r, 0, 8)]}{_number(r, 100, 1000)}",
}

Entry = tuple[str, ...]  # one entry in several wordings


@dataclass(frozen=True)
class Arrangement:
    """Where the entries with the facts stand, and the titles that go with it."""

    titles: tuple[str, ...]
    head: tuple[Entry, ...] = ()
    block: tuple[Entry, ...] = ()
    tail: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Kind(FactKind):
    """A kind of list. `hidden` maps names to slots too, but the summary does not state these values."""

    relation: str  # between the text and the summary
    decoys: Entry
    arrangements: tuple[Arrangement, ...]
    hidden: dict[str, str] = field(default_factory=dict)
    lines: bool = True  # each entry has its own line


KINDS = (
    Kind(
        "queue",
        {"first": "name", "last": "name"},
        "From {first} to {last}.",
        "the first and the last of a list",
        ("{name}.",),
        (
            Arrangement(
                ("Running order", "Waiting in line", "Names as called up"), head=(("{first}.",),), tail=(("{last}.",),)
            ),
        ),
        lines=False,
    ),
    Kind(
        "seats",
        {"left": "name", "right": "name"},
        "Free seat between {left} and {right}.",
        "who is next to whom",
        ("{name}.",),
        (
            Arrangement(
                ("Seats from left to right", "Front row", "Who sits where"),
                block=(("{left}.",), ("EMPTY.", "VACANT.", "NOBODY."), ("{right}.",)),
            ),
        ),
        lines=False,
    ),
    Kind(
        "trains",
        {"stop": "town", "clock": "time"},
        "No train to {stop} at {clock}.",
        "one row of a table",
        ("{time} {town}: runs.",),
        (
            Arrangement(
                ("Departures", "Board at track 2", "Trains today"),
                block=(("{clock} {stop}: CANCELLED.", "{clock} {stop}: DOES NOT RUN.", "{clock} {stop}: CALLED OFF."),),
            ),
        ),
    ),
    Kind(
        "correction",
        {"group": "code", "right": "room"},
        "{group} moves to room {right}.",
        "a correction that replaces a value",
        (
            "Bring something to write with.",
            "Leave wet coats outside.",
            "Phones off, please.",
            "Water is on the table.",
            "Use the back stairs.",
            "Sit where you like.",
            "No dogs inside.",
            "Late guests wait.",
        ),
        (
            Arrangement(
                ("On the door", "Pinned to the board", "Read before you enter"),
                head=(("{group} is in {wrong}.", "{wrong} is kept for {group}.", "Find {group} in {wrong}."),),
                tail=(
                    (
                        "Wrong: take {right}, not {wrong}.",
                        "Not {wrong}! It is {right}.",
                        "{wrong} is out. Use {right}.",
                    ),
                ),
            ),
        ),
        {"wrong": "room"},
        lines=False,
    ),
    Kind(
        "tank",
        {"tank": "code", "level": "four"},
        "Tank {tank} now holds {level}.",
        "the latest of several values",
        ("{four} litres.",),
        (
            Arrangement(("Tank {tank}, newest on top", "NEW AT TOP: tank {tank}"), head=(("{level} litres.",),)),
            Arrangement(("Tank {tank}, newest below", "NEW AT FOOT: tank {tank}"), tail=(("{level} litres.",),)),
        ),
    ),
    Kind(
        "votes",
        {"winner": "name", "votes": "four"},
        "Most votes: {winner}, {votes}.",
        "the largest number",
        ("{name} {two}.",),
        (Arrangement(("Votes cast", "Tally of hands", "Who got how many"), block=(("{winner} {votes}.",),)),),
    ),
    Kind(
        "teams",
        {"captain": "name", "points": "three"},
        "Cup for {captain} with {points} points.",
        "two facts joined by a third",
        ("Team {colour}: {name}.",),
        (
            Arrangement(
                ("Teams and captains", "Shirts and skippers", "Colours of the cup"),
                block=(("Team {shirt}: {captain}.",),),
                tail=(("{shirt} won, {points}.", "First is {shirt}, {points}.", "{points} for {shirt}, a record."),),
            ),
        ),
        {"shirt": "colour"},
    ),
    Kind(
        "shifts",
        {"who": "name", "odd": "time", "usual": "time"},
        "{who} comes at {odd}, all others at {usual}.",
        "the odd one out",
        ("{name} {usual}.",),
        (Arrangement(("Rota", "Hours of the crew", "Coming in"), block=(("{who} {odd}.",),)),),
    ),
    Kind(
        "chat",
        {"asker": "name", "place": "room"},
        "{asker} shall wait in {place}.",
        "the answer to a question",
        ("{name}: hello.", "{name}: me too.", "{name}: so cold!", "{name}: thanks.", "{name}: ha ha."),
        (
            Arrangement(
                ("Group chat", "Messages", "Phone of the club"),
                block=(
                    ("{asker}: where to?", "{asker}: which room?", "{asker}: I am lost."),
                    ("{name}: {place}.", "{name}: try {place}.", "{name}: go to {place}."),
                ),
            ),
        ),
    ),
)

# Sentences that fill a long document when a kind has no entries left.
REMARKS = (
    "Nobody signed this list.",
    "The paper has a fold down the middle.",
    "Somebody spilt tea on the back.",
    "It was typed twice and then glued in.",
    "A pin holds the corner to the cork.",
    "The ink is faint at the edge.",
    "Ask at the counter for a larger print.",
    "Old lists are in the drawer underneath.",
)
