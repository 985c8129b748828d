"""Training pages for `nano`: text that a language model cannot guess, in many layouts, and the place of each character.

    draw_page(kind, seed, index) -> Page: the pixels, the text, and which characters are on each patch

A page depends only on these three arguments. So it is the same for every worker, after a resume, and on every machine.
"""

import re
import string
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import numpy as np
from PIL import Image

from experiments.nano.make_tokenizer import ACCENTED, FREQUENT, MARKS, likely, random_string, random_word, random_words
from lightseek.data.sources import synthetic
from lightseek.page.modes import find_mode
from lightseek.page.render import PageStyle, fit_style
from lightseek.page.typeset.blocks import block_lines
from lightseek.page.typeset.drawing import Layout, draw, glyphs, paginate
from lightseek.page.typeset.words import parse_text
from lightseek.page.views import square

FONTS = [
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol"),
]
ALPHABET = sorted(set(string.printable[:94]) | set(ACCENTED) | set(MARKS))
CLASSES = {character: i + 2 for i, character in enumerate(ALPHABET)}  # 0 is no character, 1 is any other character
PATCH, TOKEN = 16, 64  # sides in pixels of a patch and of the area of a vision token
NOWHERE = -1  # the square of a character that is not on the page
OPERATORS = ["=", "==", "+", "-", "*", "->", "!=", "<", ">", "<=", ">=", "+=", "&", "|", "/", "//", "%", "**", ":="]
AROUND = [
    "`{}`",
    "``{}``",
    "*{}*",
    "'{}'",
    '"{}"',
    "({})",
    "[{}]",
    "<{}>",
    "__{}__",
]  # around some words
CENTRES = 2  # characters that can have their centre on one patch, as small letters do


@dataclass(frozen=True)
class Kind:
    """The settings that the pages of a batch share."""

    side: int  # pixels, a multiple of 64: of the square view of the page or, with a mode, of the page's longer side
    characters: tuple[int, int]  # fewest and most on a page
    texts: str  # sources: letters, words, strings, digits, code, documents. A page takes one of a list such as a+a+b
    batch: int  # pages
    share: float = 1.0  # how often a batch is of this kind, relative to the other kinds of its phase
    mode: str = ""  # a mode with several views (gundam), or "" for one view of the whole page
    largest: int = 0  # largest font size in pixels; 0 stands for a fifth of the side, at most 64
    summarize: float = 0.0  # share of the documents whose target is the summary
    still: bool = False  # SAM, more than half of the work, does not learn from these pages; the decoder catches up
    slips: float = 0.0  # share of the pages where the decoder's input has wrong tokens (`batches.slip`)
    rough: float = 0.3  # share of the pages with noise, blur from resizing, or a slight rotation
    aspects: tuple[float, float] = (1.0, 1.0)  # least and greatest width / height; one value for a whole batch
    name: str = field(default="", compare=False)  # in the recipe


@dataclass(frozen=True)
class Page:
    """A page, its text, and where its characters are. The view of the whole page has g x g patches."""

    pixels: np.ndarray  # grey, uint8, height x width: the square view or, with a mode, the page before it is cut up
    text: str
    target: str  # what the decoder should write: the text, or a summary of it
    task: str  # ocr or summarize
    patches: np.ndarray  # g x g: the class of the character at the centre of each patch, or 0
    centres: np.ndarray  # g x g x CENTRES: the classes of the characters whose centre is on each patch, then 0
    begins: np.ndarray  # g x g: whether one of these characters is the first of a word
    squares: list[int]  # the index of the patch of each character of the target, without white space, or NOWHERE


@dataclass(frozen=True)
class View:
    """The square view of a whole page: stretched, as in tiny and small, or padded with grey, as in base.

    All sizes are in pixels.
    """

    side: int
    padded: bool
    width: int  # of the page
    height: int

    def patch(self, x: float, y: float) -> tuple[float, float]:
        """A point of the page, (x, y) in its pixels, to the same point of the view, in patches."""
        sides = (self.width, self.height)
        scales = [self.side / (max(sides) if self.padded else side) for side in sides]
        return tuple(
            (scale * at + (self.side - scale * side) / 2) / PATCH
            for at, scale, side in zip((x, y), scales, sides, strict=True)
        )


def choose_view(kind: Kind, seed: int, index: int) -> View:
    """The shape of page number `index` and of its view."""
    mode = find_mode(kind.mode) if kind.mode else None
    side, padded = (mode.side, mode.padded) if mode else (kind.side, kind.side >= find_mode("base").side)
    least, most = kind.aspects
    aspect = least * (most / least) ** Random(f"{seed}/{kind.side}/{index // kind.batch}").random()
    longer = kind.side * (1 if padded else max(aspect, 1 / aspect))  # a page that is stretched later is drawn larger
    return View(side, padded, round(longer * min(1, aspect)), round(longer * min(1, 1 / aspect)))


def draw_page(kind: Kind, seed: int, index: int) -> Page:
    random = Random(f"{seed}/{kind.side}/{kind.texts}/{index}")
    task, text, target, facts = write_text(kind, random, seed, index)
    view = choose_view(kind, seed, index)
    style = choose_style(kind, view, random, text)
    layout = next(paginate(block_lines(parse_text(text), style), style.rows))
    patches, centres, squares = locate(layout, style, view)
    begins = np.zeros(patches.size, dtype=bool)
    firsts = [before.isspace() for before, character in pairwise(" " + text) if not character.isspace()]
    begins[[square for square, first in zip(squares, firsts, strict=False) if first]] = True
    image = draw(layout, style)
    if random.random() < kind.rough:
        image = roughen(image, random)
    if not kind.mode:
        image = square(image, view.side, view.padded)
    return Page(np.asarray(image.getchannel("R")), text, target, task, patches, centres, begins.reshape(patches.shape),
                squares if target == text else copied(text, target, facts, squares))  # fmt: skip


def write_text(kind: Kind, random: Random, seed: int, index: int) -> tuple[str, str, str, tuple[str, ...]]:
    """Returns the task, the text, the target, and the facts of the text that a summary copies."""
    count = random.randint(*kind.characters)
    source = random.choice(kind.texts.split("+"))
    if source == "documents":
        document = synthetic.document("train", index, seed, max(220, count))
        if random.random() < kind.summarize:
            return "summarize", document.text, document.summary, document.facts
        return "ocr", document.text, document.text, ()
    if source == "letters":
        text = random_words(random, count // 4 + 1).lower()
        text = "".join(c for c in text if c.isalpha() or c == " ")
    elif source == "words":
        text = random_words(random, count // 4 + 1)
        if random.random() < 0.5:  # sentences begin with a capital
            text = re.sub(r"(?<=[.!?] )[a-z]", lambda first: first[0].upper(), text)
        if random.random() < 0.5:  # code and accents, as in documents
            text = " ".join(odd_word(random) if random.random() < 0.3 else word for word in text.split())
        if random.random() < 0.3:
            text = break_somewhere(random, text)
    elif source == "code":
        text = random_code(random, count)
    elif source == "digits":
        text = "".join(random.choice("0123456789" * 3 + "-.,:/ €$%") for _ in range(count))
    else:
        text = random.choice((random_string, random_letters))(random, count)
    if random.random() < 0.4:
        text = say_again(random, text)
    text = text[:count].strip() or random.choice(string.ascii_letters)
    return "ocr", text, text, ()


def random_letters(random: Random, length: int) -> str:
    """Letters in random order and numbers, in groups as long as words. Some groups are capitalised."""
    words: list[str] = []
    while sum(map(len, words)) < length:
        letters = string.digits if random.random() < 0.1 else string.ascii_lowercase
        word = "".join(random.choices(letters, k=random.randint(1, 10)))
        words.append(word.capitalize() if random.random() < 0.15 else word + likely(random, ["", "", "", ",", "."]))
    return " ".join(words)


def random_code(random: Random, length: int) -> str:
    """Lines of made-up code and plain words. A model that has only seen words misreads such text."""
    lines: list[str] = []
    while sum(map(len, lines)) < length:
        if lines and random.random() < 0.15:  # repeat the line before, with one word changed
            words = lines[-1].split()
            words[random.randrange(len(words))] = expression(random)
        else:
            words = [
                expression(random) if random.random() < 0.5 else random_words(random, random.randint(1, 3))
                for _ in range(random.randint(1, 5))
            ]
        lines.append(" ".join(words))
    gaps = (" ", "\n", "\n", "\n    ", "\n        ")
    return "".join(line + random.choice(gaps) for line in lines)


def expression(random: Random, depth: int = 0) -> str:
    """A name, a number, a string or a bracket of these, as in programs and their documentation."""
    word, other = (likely(random, FREQUENT) if random.random() < 0.5 else random_word(random) for _ in range(2))
    inner = [expression(random, depth + 1) for _ in range(random.randint(0, 3))] if depth < 2 else [word]
    quote, number = random.choice("'\""), int(10 ** (4 * random.random()))
    options = (
        lambda: word,
        lambda: f"{word}_{other}",
        lambda: f"{word}.{other}",
        lambda: f"{word.capitalize()}{other.capitalize()}",
        lambda: f"{word}_{other}".upper(),
        lambda: f"{quote}{word}{quote}",
        lambda: str(number),
        lambda: f"{number}.{random.randrange(100)}",
        lambda: random.choice("xyzijknIlO0ab"),
        lambda: f"{word}({', '.join(inner)})",
        lambda: f"{word}({', '.join(inner)})",
        lambda: f"[{', '.join(inner)}]",
        lambda: f"{{{quote}{word}{quote}: {', '.join(inner)}}}",
        lambda: f"{word}={other}",
        lambda: f"{word} {likely(random, OPERATORS)} {other}",
        lambda: random.choice((f"`{word}`", f"``{word}``", f"<{word}>", f"*{word}", f"**{word}", f"--{word}")),
        lambda: random.choice((f"__{word}__", f"_{word}", f"@{word}", f"%{word[0]}", f"${word}", f"\\{word[0]}")),
        lambda: random.choice((f">>> {word}", f"# {word}", f"/{word}/{other}", f"{word}[{number}:]", f"{quote * 3}")),
    )
    return random.choice(options)()


def odd_word(random: Random) -> str:
    """A made-up word with something that plain words lack: capitals, accents, digits, marks around it."""
    word = random_word(random)
    options = (
        lambda: word.upper(),
        lambda: f"{word}_{random_word(random)}",
        lambda: f"{word}.{random_word(random)}()",
        lambda: "".join(random.choice(ACCENTED) if c in "aeiou" and random.random() < 0.5 else c for c in word),
        lambda: str(int(10 ** (5 * random.random()))),
        lambda: likely(random, MARKS.split()[0]) + word,
        lambda: f"{word}-{random_word(random)}",
        lambda: f"{word}'s",
        lambda: random.choice(AROUND).format(word),
        lambda: "".join(random.choices(string.ascii_uppercase + string.digits, k=random.randint(1, 6))),
    )
    return random.choice(options)()


def break_somewhere(random: Random, text: str) -> str:
    """The text with some spaces replaced by new lines, empty lines and indents."""
    gaps = ("\n", "\n\n", "\n    ")
    return "".join(random.choice(gaps) if c == " " and random.random() < 0.06 else c for c in text)


def say_again(random: Random, text: str) -> str:
    """The text with some of its words repeated: one to four in a row, nearby or elsewhere, some with a letter changed.

    After a repeated word, only the page tells which of its places was just read, and so which word follows.
    """
    words = text.split(" ")
    for _ in range(random.randint(1, 4 + len(words) // 10)):
        start = random.randrange(len(words))
        run = words[start : start + random.randint(1, 4)]
        if random.random() < 0.3:
            run = [alike(random, word) for word in run]
        near = random.random() < 0.5
        place = min(start + len(run) + random.randint(0, 12), len(words)) if near else random.randint(0, len(words))
        words[place:place] = run
    return " ".join(words)


def alike(random: Random, word: str) -> str:
    """The word with one character added, removed or replaced."""
    at = random.randint(0, len(word))
    letter = random.choice((*"xyz12_", random.choice(string.ascii_lowercase), ""))
    return word[:at] + letter + word[at + 1 :] or word


def choose_style(kind: Kind, view: View, random: Random, text: str) -> PageStyle:
    """A random font and layout, with letters that fill the page or a part of it.

    A text that does not fit at 6 pixels is cut at the end of the page.
    """
    style = PageStyle(
        width=view.width,
        height=view.height,
        margin=random.choice((kind.side // 64, kind.side // 32, kind.side // 32, kind.side // 16)),
        font="DejaVuSans" if random.random() < 0.3 else random.choice(FONTS),
        line_spacing=random.choice((1.1, 1.2, 1.3, 1.3, 1.5)),
    )
    style = fit_style(text, style, smallest=6, largest=kind.largest or min(64, kind.side // 5))
    return replace(style, font_size=max(6, int(style.font_size * random.choice((1, 1, random.uniform(0.6, 1))))))


def locate(layout: Layout, style: PageStyle, view: View) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Where the characters are: the `patches`, `centres` and `squares` of a `Page`."""
    grid = view.side // PATCH
    centres: list[list[int]] = [[] for _ in range(grid * grid)]
    patches = np.zeros((grid, grid), dtype=np.int64)
    squares = []
    for character, glyph, pen, baseline in glyphs(layout, style):
        number = CLASSES.get(character, 1)
        if not character.isspace():
            middle = view.patch(pen + glyph.extent.advance / 2, baseline - 0.3 * style.font_size)
            column, row = (min(max(int(v), 0), grid - 1) for v in middle)
            squares.append(row * grid + column)
            centres[squares[-1]].append(number)
        left, top = map(round, view.patch(pen, baseline - 0.75 * style.font_size))
        right, bottom = map(round, view.patch(pen + glyph.extent.advance, baseline + 0.2 * style.font_size))
        patches[max(top, 0) : bottom, max(left, 0) : right] = number
    rows = [(row + [0] * CENTRES)[:CENTRES] for row in centres]
    return patches, np.array(rows).reshape(grid, grid, CENTRES), squares


def copied(text: str, summary: str, facts: tuple[str, ...], squares: list[int]) -> list[int]:
    """The square of each character of a summary. The facts are on the page; the words around them are NOWHERE."""
    places = [NOWHERE] * len("".join(summary.split()))
    for fact in facts:
        there, here = text.find(fact), summary.find(fact)
        if there < 0 or here < 0:
            continue
        letters = len("".join(fact.split()))
        first, start = (len("".join(before.split())) for before in (text[:there], summary[:here]))
        shown = squares[first : first + letters]  # fewer, if the page ends within the fact
        places[start : start + len(shown)] = shown
    return places


def roughen(image: Image.Image, random: Random) -> Image.Image:
    """The image with one flaw of a scan: a slight rotation, the blur of a resize, or noise."""
    how = random.randrange(3)
    if how == 0:
        return image.rotate(random.uniform(-1, 1), Image.Resampling.BILINEAR, fillcolor=(255,) * 3)
    if how == 1:
        less = random.uniform(0.7, 0.95)
        small = [round(side * less) for side in image.size]
        return image.resize(small, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BICUBIC)
    grey = np.asarray(image.getchannel("R"))
    noise = np.random.default_rng(random.randrange(2**32)).normal(0, random.uniform(2, 12), grey.shape)
    return Image.fromarray(np.clip(grey + noise, 0, 255).astype(np.uint8)).convert("RGB")
