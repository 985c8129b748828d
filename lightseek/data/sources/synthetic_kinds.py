"""Holds the words, the slots that they fill and the nine kinds of text from which synthetic.py writes documents."""

from collections.abc import Callable
from dataclasses import dataclass

Draw = Callable[[], float]  # a generator's random(), the only stream that Python promises never to change

_TABLE = """
first: Ada Aino Albert Amélie André Åsa Beatriz Bjørn Björn Carla Céline Chloé Clara Dagný Daniel Diego Elena Emma
  Erik Eva Fátima Felix Fiona François Frida George Gaël Greta Hanna Hélène Henrik Hugo Ida Inês Irène Ivan Jakub Jana
  João José Julia Jürgen Kaja Karl Käthe Klára László Léa Leon Lise Łukasz Maja Márton María Mia Michał Nils Noël Nora
  Núria Olga Oskar Paula Peter Pia René Rosa Rubén Sara Séamus Siân Sofia Søren Tomáš Tove Ursula Václav Vera Victor
  Wanda Yves Zoë Žofia
surname-stem: Ald Bar Berg Bjørk Blum Bram Cald Car Dahl Dor Ek Elm Fal Fern Font Gar Grön Gul Hal Hart Holm Horn Jan
  Kal Kast Kov Lang Lind Löw Mal Mar Mont Mor Müll Nor Nyk Ost Pal Pet Quin Ras Rein Roč Ros San Schön Sil Stein Ström
  Tal Thor Tor Ul Val Vest Weg Wit Wolf Zab Zel
surname-end: a am ard as berg by ci dal den ek el ell en er es ev ez feld gren hof i ier ik ini ino is ke kov land
  lund man mann mark mer nik o oux ová øy rup sen skis son ssen stad ster strand ström ton us vist well wick wood
town-stem: Alt Ard Ash Bel Birk Brad Bre Castel Clair Cor Dun East Eich Fal Gar Glen Grün Hav Hel Kirk Kö Lans Lev
  Long Lys Mal Mel Mont Nes Nor Oak Ober Øst Pil Pont Rav Ro São Sel Skov Sté Sund Tar Thorn Tré Ul Val Vik Wal West
  Zel
town-end: ac ares berg bourg borough bridge burg burn by court dale dorf eux fjord ford furt gate haven heim hill holm
  ico ington lac lund mere minster mouth münde nova port sæter shire sted stow strand tal ton vær ville wald wick
trade: Bank Bikes Boats Books Cars Clocks Energy Farms Films Foods Glass Lamps Mills Paper Shoes Steel Tea Tiles
street-end: Avenue Bridge Court Gate Hill Lane Park Road Row Square Street Walk
month: January February March April May June July August September October November December
day: Monday Tuesday Wednesday Thursday Friday Saturday Sunday
colour: black blue brown copper golden green grey navy pink purple red silver striped violet white yellow
thing: bag bicycle book box cap clock coat drum flute glove guitar hat key kite lamp phone purse ring scarf tent
  umbrella vase violin wallet watch
ware: apples bolts bricks cables candles chairs cheese cups engines flour lamps nails oil paint pipes rice rope salt
work: bell boiler bridge clinic dock fence garden hall kitchen library oven path piano pool pump roof school tower
topic: bees birds bread clouds comets coral deserts dreams ferns ice maps music rivers salt ships stars trees whales
job: baker buyer clerk cook dentist driver editor farmer guide lawyer nurse painter pilot porter tailor teacher
"""
WORDS: dict[str, list[str]] = {
    entry.split(":")[0]: entry.split()[1:] for entry in _TABLE.strip().replace("\n  ", " ").splitlines()
}


def _pick(r: Draw, name: str) -> str:
    return WORDS[name][int(r() * len(WORDS[name]))]


def _number(r: Draw, low: int, high: int) -> int:
    """Draw a whole number from `low` to `high - 1`."""
    return low + int(r() * (high - low))


def _letter(r: Draw) -> str:
    return chr(ord("A") + _number(r, 0, 26))


def _surname(r: Draw) -> str:
    return _pick(r, "surname-stem") + _pick(r, "surname-end")


def _town(r: Draw) -> str:
    return _pick(r, "town-stem") + _pick(r, "town-end")


def _money(r: Draw, low: int, high: int) -> str:
    """Draw an amount of money. It is log-uniform, so that short and long amounts are equally common."""
    amount = int(low * (high / low) ** r())
    cents = f".{_number(r, 0, 100):02}" if amount < 1000 else ""
    return f"{'€$£'[_number(r, 0, 3)]}{amount:,}{cents}"


SLOTS: dict[str, Callable[[Draw], str]] = {
    "person": lambda r: f"{_pick(r, 'first')} {_surname(r)}",
    "town": _town,
    "street": lambda r: f"{_surname(r) if r() < 0.5 else _town(r)} {_pick(r, 'street-end')}",
    "company": lambda r: f"{_surname(r)} {_pick(r, 'trade')}",
    "date": lambda r: f"{_number(r, 1, 29)} {_pick(r, 'month')} {_number(r, 1960, 2060)}",
    "time": lambda r: f"{_number(r, 7, 23)}:{_number(r, 0, 60):02}",
    "money": lambda r: _money(r, 20, 1000),
    "sum": lambda r: _money(r, 1000, 10_000_000),
    "change": lambda r: f"{'up' if r() < 0.5 else 'down'} {_number(r, 1, 100)}.{_number(r, 0, 10)}%",
    "few": lambda r: str(_number(r, 2, 30)),
    "many": lambda r: str(_number(r, 30, 10_000)),
    "code": lambda r: f"{_letter(r)}{_letter(r)}-{_number(r, 100, 10_000)}",
    "phone": lambda r: f"0{_number(r, 10, 100)} {_number(r, 100, 1000)} {_number(r, 100, 1000)}",
    "degrees": lambda r: f"{_number(r, -30, 40)}.{_number(r, 0, 10)} °C",
    "item": lambda r: f"{_pick(r, 'colour')} {_pick(r, 'thing')}",
    "goods": lambda r: f"{_number(r, 2, 1000)} boxes of {_pick(r, 'ware')}",
    "month": lambda r: _pick(r, "month"),
    "day": lambda r: _pick(r, "day"),
    "colour": lambda r: _pick(r, "colour"),
    "work": lambda r: _pick(r, "work"),
    "topic": lambda r: _pick(r, "topic"),
    "job": lambda r: _pick(r, "job"),
}


@dataclass(frozen=True)
class FactKind:
    """A kind of generated document. `facts` maps names to slots, and the summary states them."""

    name: str
    facts: dict[str, str]
    summary: str


@dataclass(frozen=True)
class Kind(FactKind):
    """A kind of document made of sentences. Each of `tells` is one sentence in several wordings."""

    titles: tuple[str, ...]
    tells: tuple[tuple[str, ...], ...]
    others: tuple[str, ...]  # sentences between the tells that cannot be mistaken for a fact
    lines: bool = False  # each sentence has its own line, as on a bill


KINDS = (
    Kind(
        "report",
        {"company": "company", "revenue": "sum", "result": "change"},
        "{company} took in {revenue}; profit is {result}.",
        ("Annual report", "Report to the owners", "The year in figures"),
        (
            ("{company} looks back on a busy year.", "This is the account of {company}.", "Dear owners of {company}."),
            ("Sales came to {revenue}.", "Revenue was {revenue}.", "In all, {revenue} came in."),
            ("Profit is {result}.", "That leaves profit {result}.", "As a result, profit is {result}."),
        ),
        (
            "A shop opened in {town}.",
            "We now employ {many} people.",
            "Rent cost {money} a week.",
            "Prices held in {month}.",
            "{person} keeps the books.",
            "We replaced {few} machines.",
            "The best day was a {day}.",
        ),
    ),
    Kind(
        "notice",
        {"street": "street", "town": "town", "start": "date"},
        "{street} in {town} closes on {start}.",
        ("Public notice", "Road works", "Notice to residents"),
        (
            (
                "Works are planned in {town}.",
                "This concerns all drivers in {town}.",
                "The town of {town} repairs its roads.",
            ),
            ("{street} will be closed.", "No cars may use {street}.", "The works block {street}."),
            ("They begin on {start}.", "The first day is {start}.", "All this starts on {start}."),
        ),
        (
            "Buses of line {few} turn at the {work}.",
            "The works last {few} weeks.",
            "Noise ends at {time}.",
            "Shops stay open.",
            "{person} leads the works.",
            "Ask at {phone}.",
            "They cost {money} a metre.",
        ),
    ),
    Kind(
        "minutes",
        {"chair": "person", "grant": "sum", "work": "work", "day": "date"},
        "On {day} {chair} granted {grant} for the {work}.",
        ("Minutes", "Minutes of the board", "Record of the meeting"),
        (
            ("The board met on {day}.", "This meeting was held on {day}.", "Date of the meeting: {day}."),
            ("{chair} took the chair.", "The chair was {chair}.", "{chair} opened the meeting."),
            (
                "Then the {work} was discussed.",
                "The main point was the {work}.",
                "All agreed that the {work} needs help.",
            ),
            ("It will get {grant}.", "It was granted {grant}.", "A sum of {grant} was set aside for it."),
        ),
        (
            "{few} members came.",
            "{person} sent apologies.",
            "Coffee cost {money}.",
            "A letter from {town} was read.",
            "The vote on item {few} was put off.",
            "We meet again in {month}.",
            "{person} asked about parking.",
        ),
    ),
    Kind(
        "invoice",
        {"customer": "person", "total": "sum", "due": "date"},
        "{customer} owes {total} by {due}.",
        ("Invoice {code}", "Bill no. {many}", "Invoice"),
        (
            ("Customer: {customer}.", "Billed to {customer}.", "For {customer}."),
            ("Total: {total}.", "Amount to pay: {total}.", "In all {total}."),
            ("Due: {due}.", "Please pay by {due}.", "Payment until {due}."),
        ),
        (
            "{few} x {item}: {money}.",
            "Delivery: {money}.",
            "Order {code}.",
            "Tax {few}%.",
            "Served by {person}.",
            "Questions: {phone}.",
            "Shop: {street}.",
            "{goods}: {money}.",
        ),
        lines=True,
    ),
    Kind(
        "letter",
        {"person": "person", "job": "job", "company": "company", "start": "date"},
        "{company} hires {person} as {job} from {start}.",
        ("Letter of offer", "Your application", "Good news"),
        (
            (
                "Dear {person}, thank you for coming.",
                "Dear {person}, we enjoyed your visit.",
                "To {person}, with thanks.",
            ),
            ("We at {company} have decided.", "All at {company} agreed at once.", "{company} has made its choice."),
            ("We want you as our {job}.", "The post of {job} is yours.", "You will be our new {job}."),
            ("Please start on {start}.", "Your first day is {start}.", "We expect you on {start}."),
        ),
        (
            "We saw {many} letters.",
            "Lunch is at {time}.",
            "The pay is {money} a day.",
            "Ask for {person} at the door.",
            "You get {few} days off.",
            "Your desk is in room {few}.",
            "Our office is in {street}.",
        ),
    ),
    Kind(
        "delivery",
        {"goods": "goods", "town": "town", "day": "date"},
        "{goods} reached {town} on {day}.",
        ("Delivery note {code}", "Freight {many}", "Delivery note"),
        (
            ("Load: {goods}.", "Contents: {goods}.", "We carried {goods}."),
            ("Unloaded at {town}.", "Place of arrival: {town}.", "Brought to {town}."),
            ("Received on {day}.", "Signed for on {day}.", "Date of arrival: {day}."),
        ),
        (
            "Driver: {person}.",
            "Weight: {many} kg.",
            "Truck {code}.",
            "Left at {time}.",
            "Seal {code} intact.",
            "Toll: {money}.",
            "Sender: {company}.",
            "Gate {few}.",
        ),
        lines=True,
    ),
    Kind(
        "event",
        {"speaker": "person", "topic": "topic", "place": "street", "time": "time"},
        "{speaker} speaks on {topic} at {time}, {place}.",
        ("Open evening", "Talk of the week", "You are invited"),
        (
            ("This week it is about {topic}.", "Do you like {topic}? Come along.", "Our subject is {topic}."),
            ("The speaker is {speaker}.", "We welcome {speaker}.", "{speaker} will tell us more."),
            ("We meet in {place}.", "The hall is in {place}.", "Come to {place}."),
            ("Doors open at {time}.", "It begins at {time}.", "Be there at {time}."),
        ),
        (
            "Tickets cost {money}.",
            "There are {many} seats.",
            "Book at {phone}.",
            "Tea is free.",
            "{person} plays the flute.",
            "The bus from {town} stops here.",
            "Last {month} it was full.",
        ),
    ),
    Kind(
        "lost",
        {"item": "item", "place": "street", "phone": "phone"},
        "A {item} was lost in {place}; call {phone}.",
        ("Lost", "Have you seen it?", "Lost and found"),
        (
            ("Someone misses a {item}.", "We are looking for a {item}.", "A {item} is gone."),
            ("It was last seen in {place}.", "It was left in {place}.", "It must be near {place}."),
            ("Please call {phone}.", "The number is {phone}.", "Ring {phone} at any hour."),
        ),
        (
            "It is {few} years old.",
            "It was a gift from {person}.",
            "It was made in {town}.",
            "There is a reward of {money}.",
            "It has a {colour} mark.",
            "It was a {day}, about {time}.",
            "The number {many} is on it.",
        ),
    ),
    Kind(
        "weather",
        {"town": "town", "low": "degrees", "day": "date"},
        "{town} had {low} on {day}.",
        ("Weather log", "From the station", "Weather of the day"),
        (
            ("This is the station at {town}.", "Our thermometer stands in {town}.", "News from {town}."),
            ("Last night it read {low}.", "The lowest value was {low}.", "It fell to {low}."),
            ("The date was {day}.", "Written on {day}.", "All values are of {day}."),
        ),
        (
            "Wind: {few} knots.",
            "{person} read the gauge.",
            "The mist left at {time}.",
            "Rain fell for {few} hours.",
            "The air pressure was {many}.",
            "A mast fell in {street}.",
            "A new gauge costs {money}.",
        ),
    ),
)

# Sentences that fit every kind and may be used many times. They make a document long.
ANYWHERE = (
    "{person} wrote to us from {town} in {month}, and the letter is kept under {code}.",
    "On the same {day} a {item} was handed in at the front desk at {time}.",
    "The archive in {street} holds {many} pages about this, most of them unread.",
    "{company} offered its help, as it did {few} years ago, for {money} an hour.",
    "Nobody from {town} answered, although {person} rang {few} times.",
    "A copy of this page hangs beside the {work}, next to the {colour} door.",
    "The weather was {colour} and cold, said {person}, who had walked from {town}.",
    "Please keep page {few} apart, because it names {company} and {person}.",
    "In {month} the rules change again; rule {few} then becomes rule {many}.",
    "{person} and {person} checked every line of it, the last one at {time}.",
    "Somebody drew a {item} in the margin and wrote {many} under it.",
    "The {work} of {town} is open on every {day} until {time}.",
    "There was talk of {topic} too, but it led nowhere and ended at {time}.",
    "Parking in {street} costs {money}, and a fine costs twice as much.",
    "{goods} stood in the yard of {company} and were nobody's business.",
    "A {job} from {town} asked for the way to {street} and was shown it.",
)
