"""Holds the nine kinds of lists from which unseen.py writes documents.

In each kind one entry differs from the others of the same form, and it decides what the summary must say:

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
    "other": _short_name,
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
        ("Then {name}.",),
        (
            Arrangement(
                ("Running order", "Waiting in line", "Names as called up"),
                head=(("Begin with {first}.", "Start with {first}.", "Number one: {first}."),),
                tail=(("At the end {last}.", "To finish, {last}.", "The last: {last}."),),
            ),
        ),
    ),
    Kind(
        "seats",
        {"left": "name", "right": "name"},
        "{left} and {right} flank the guest.",
        "who is next to whom",
        ("{name} beside {other}.",),
        (
            Arrangement(
                ("Seats at the table", "Long table", "Who sits where"),
                block=(("Left of the guest {left}.",), ("Right of the guest {right}.",)),
            ),
        ),
    ),
    Kind(
        "trains",
        {"clock": "time", "stop": "town"},
        "No train at {clock} to {stop}.",
        "one row of a table",
        ("Runs: {time} {town}.",),
        (
            Arrangement(
                ("Departures", "Board at track 2", "Trains today"),
                block=(("CANCELLED: {clock} {stop}.", "CALLED OFF: {clock} {stop}.", "NOT TODAY: {clock} {stop}."),),
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
                head=(("Group {group} is in {wrong}.", "Today {group} is in {wrong}.", "Find {group} in {wrong}."),),
                tail=(
                    (
                        "Wrong! Take {right}, not {wrong}.",
                        "Sorry: {right}, not {wrong}.",
                        "No, use {right}, not {wrong}.",
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
        ("On {day} {four}.",),
        (
            Arrangement(
                ("Levels of {tank} in litres", "Readings of {tank}", "Gauge book, {tank}"),
                block=(("Today {level}.", "Just now {level}.", "At this hour {level}."),),
            ),
        ),
    ),
    Kind(
        "votes",
        {"votes": "four", "winner": "name"},
        "Most votes: {votes} for {winner}.",
        "the largest number",
        ("{two} for {name}.",),
        (Arrangement(("Votes cast", "Tally of hands", "Who got how many"), block=(("{votes} for {winner}.",),)),),
    ),
    Kind(
        "teams",
        {"captain": "name", "points": "three"},
        "Cup for {captain} with {points} points.",
        "two facts joined by a third",
        ("The {colour} team has {name}.",),
        (
            Arrangement(
                ("Teams and captains", "Shirts and skippers", "Colours of the cup"),
                block=(("The {shirt} team has {captain}.",),),
                tail=(("Winner: {shirt} with {points}.", "Best team: {shirt} with {points}."),),
            ),
        ),
        {"shirt": "colour"},
    ),
    Kind(
        "roll",
        {"who": "name", "back": "time"},
        "Only {who} is out, until {back}.",
        "the odd one out",
        ("In: {name}, {time}.",),
        (Arrangement(("Roll call", "Crew of the day", "Heads counted"), block=(("Out: {who}, {back}.",),)),),
    ),
    Kind(
        "answers",
        {"place": "room", "clock": "time"},
        "Come to {place} at {clock}.",
        "the answers to two of several questions",
        ("How many? {two}.", "Who cooks? {name}.", "What colour? {colour}.", "Who pays? {name}.", "Which bus? {two}."),
        (
            Arrangement(
                ("Asked and answered", "You ask, we answer", "Short answers"),
                block=(("Which room? {place}.",), ("What time? {clock}.",)),
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
