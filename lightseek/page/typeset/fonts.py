"""Fonts: the files of each face, the width of a word and the pixels of a character.

A glyph is rasterised once per size and then only pasted, so a page takes milliseconds. Each character has one glyph
and there is no kerning, so Arabic, Hebrew and Indic scripts do not get their proper shapes. The pixels depend only on
the font file and on Pillow's FreeType.
"""

import math
import unicodedata
from functools import lru_cache, reduce
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont


class Face(NamedTuple):
    path: str
    size: int  # pixels


class Extent(NamedTuple):
    """The size of a word or a character, in pixels: how far it moves the pen, and where its ink lies.

    Relative to the pen's start, the ink goes from x = `left`, which may be negative, to x = `right`. It reaches `above`
    pixels above the baseline and `below` pixels below it.
    """

    advance: int
    left: int
    right: int
    above: int
    below: int

    def then(self, other: "Extent") -> "Extent":
        """Return the extent of both together, with `other` directly after this one."""
        pen, left, right, above, below = other
        left, right = min(self.left, self.advance + left), max(self.right, self.advance + right)
        return Extent(self.advance + pen, left, right, max(self.above, above), max(self.below, below))


class Glyph(NamedTuple):
    """One rasterised character."""

    extent: Extent
    ink: Image.Image | None  # greyscale; None if nothing is drawn


@lru_cache
def font_files(font: str) -> dict[str, str]:
    """Return the font file of each face: "" regular, b bold, i italic, bi both, m monospaced, mb monospaced and bold.

    A bold or italic face that the font does not have uses another of its files. Raises ValueError for an unknown font.
    """
    from importlib.util import find_spec

    bundled = Path(find_spec("matplotlib").origin).parent / "mpl-data/fonts/ttf"  # does not import matplotlib
    path = Path(font) if Path(font).suffix.lower() in {".ttf", ".otf", ".ttc"} else bundled / f"{font}.ttf"
    if not path.is_file():
        names = ", ".join(sorted(face.stem for face in bundled.glob("DejaVu*.ttf")))
        raise ValueError(f"no font {font!r}: give the path of a .ttf or .otf file, or one of {names}")

    def companion(*suffixes: str) -> str:
        siblings = (path.with_stem(path.stem.removesuffix("-Regular") + f"-{suffix}") for suffix in suffixes)
        return str(next((sibling for sibling in siblings if sibling.is_file()), path))

    return {
        "": str(path),
        "b": companion("Bold"),
        "i": companion("Oblique", "Italic"),
        "bi": companion("BoldOblique", "BoldItalic", "Bold"),
        "m": str(bundled / "DejaVuSansMono.ttf"),
        "mb": str(bundled / "DejaVuSansMono-Bold.ttf"),
    }


@lru_cache(maxsize=256)
def open_font(face: Face) -> ImageFont.FreeTypeFont:
    """Open a face's font. Raises ValueError if the file is not a font."""
    try:
        return ImageFont.truetype(face.path, face.size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"{face.path} is not a font that can be read: {error}") from error


@lru_cache
def covered(path: str) -> frozenset[str]:
    """Return the characters that the font has a glyph for."""
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=0, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap() or ()))


def lacks(path: str, text: str) -> set[str]:
    """Return the characters of `text` that the font cannot draw.

    Kinds of spaces never count: those without a glyph are drawn as a plain space.
    """
    return {c for c in set(text) - covered(path) if unicodedata.category(c) != "Zs"}


@lru_cache(maxsize=1 << 16)
def rasterise(face: Face, character: str) -> Glyph:
    font = open_font(face)
    if character not in covered(face.path):
        category = unicodedata.category(character)
        if category == "Zs":
            character = " "
        elif category in {"Cc", "Cf", "Cs", "Zl", "Zp"}:  # control characters have no shape, and a box would be noise
            return Glyph(Extent(0, 0, 0, 0, 0), None)
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    left, top, right, bottom = math.floor(left) - 1, math.floor(top) - 1, math.ceil(right) + 1, math.ceil(bottom) + 1
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), character, font=font, fill=255, anchor="ls")
    box, advance = ink.getbbox(), math.ceil(font.getlength(character))
    if box is None:
        return Glyph(Extent(advance, 0, 0, 0, 0), None)
    return Glyph(Extent(advance, left + box[0], left + box[2], -top - box[1], top + box[3]), ink.crop(box))


@lru_cache(maxsize=1 << 16)
def measure(face: Face, text: str) -> Extent:
    return reduce(Extent.then, (rasterise(face, character).extent for character in text), Extent(0, 0, 0, 0, 0))
