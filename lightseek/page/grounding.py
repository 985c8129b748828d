"""Reads the places that a model names in its text: labelled boxes on the page, and the words that belong to them.

The prompt `markdown` asks for such a text:

    <|ref|>title<|/ref|><|det|>[[72, 40, 900, 110]]<|/det|>
    # The river

A box has the corners left, top, right and bottom. They count from 0 to 999 over the width and the height of the
picture, as the reference code draws them, also in the modes that pad the page. The text of a model is never evaluated
as code. What is not exactly of this form stays text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from lightseek.page.modes import Box, whole_page
from lightseek.page.typeset.fonts import Face, font_files, open_font
from lightseek.tools.json_files import JsonError, parse_json, whole

LAST = 999  # the coordinate of the right and of the bottom edge
MOST_BOXES = 1000  # of one text; more than that is a model in a loop
OPEN, MIDDLE, CLOSE = "<|ref|>", re.compile(r"<\|/ref\|>[ \n]{0,4}<\|det\|>"), "<|/det|>"
LONGEST_LABEL, LONGEST_BOXES = 500, 16_000  # characters
COLOURS = ("#0067b1", "#c2500a", "#00805c", "#a3418f", "#7a6a00", "#8f1f2f", "#5a52c7")


@dataclass(frozen=True)
class Region:
    """A labelled part of a page, and the text that follows its tags."""

    label: str
    boxes: tuple[tuple[int, int, int, int], ...]  # left, top, right, bottom from 0 to `LAST`
    text: str  # up to the next region, without white space at its ends


def find_regions(text: str) -> tuple[str, list[Region]]:
    """Return the text before the first region, and all regions of the text in their order. Never raises an error.

    A box counts if its numbers are from 0 to 999 and it is not empty. Without such a box, the tags stay in the text.
    """
    found: list[tuple[int, int, str, tuple]] = []  # (begin and end of the tags, label, boxes)
    count, at = 0, text.find(OPEN)
    while at >= 0 and count < MOST_BOXES:
        tags = read_tags(text, at)
        if tags:
            found.append((at, *tags))
            count += len(tags[2])
        at = text.find(OPEN, tags[0] if tags else at + len(OPEN))
    begins = [begin for begin, *_ in found] + [len(text)]
    regions = [
        Region(label, boxes, text[end:following].strip())
        for (_, end, label, boxes), following in zip(found, begins[1:], strict=True)
    ]
    return text[: begins[0]].strip(), regions


def read_tags(text: str, begin: int) -> tuple[int, str, tuple] | None:
    """Return (end, label, boxes) of the tags that begin here, or None if they are not of the exact form."""
    begin += len(OPEN)
    middle = MIDDLE.search(text, begin, begin + LONGEST_LABEL)
    if middle is None or "<|" in text[begin : middle.start()]:
        return None
    end = text.find(CLOSE, middle.end(), middle.end() + LONGEST_BOXES)
    inside = text[middle.end() : end]
    try:
        boxes = parse_json(inside, "") if end >= 0 else None
    except JsonError:
        return None
    if not isinstance(boxes, list) or not all(is_box(box) for box in boxes):
        return None
    good = tuple(tuple(box) for box in boxes if max(box) <= LAST and box[0] < box[2] and box[1] < box[3])
    return (end + len(CLOSE), text[begin : middle.start()].strip(), good) if good else None


def is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(whole, value))


def in_pixels(box: Sequence[int], size: tuple[int, int], frame: Box | None = None) -> tuple[int, int, int, int]:
    """Return a box in whole pixels of a picture of `size` (width, height). It is in the picture and not empty.

    `frame` is the part of the picture, in pixels, over which the numbers count: the whole picture by default. For a
    model that counts over its padded view, it is `padded_frame(size, mode)` of `page/modes.py`.
    """
    left, top, right, bottom = frame or whole_page(size)
    x = [left + (right - left) * place / LAST for place in (box[0], box[2])]
    y = [top + (bottom - top) * place / LAST for place in (box[1], box[3])]
    x1, y1 = (min(max(0, int(low)), most - 1) for low, most in zip((x[0], y[0]), size, strict=True))
    x2, y2 = (min(max(1, round(high)), most) for high, most in zip((x[1], y[1]), size, strict=True))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def draw_regions(picture: Image.Image, regions: Sequence[Region], frame: Box | None = None) -> Image.Image:
    """Return a copy of the picture with the boxes, each with its label. All regions of one label have one colour."""
    drawing = picture.convert("RGB")
    brush = ImageDraw.Draw(drawing)
    line = max(1, round(max(drawing.size) / 400))
    font = open_font(Face(font_files("DejaVuSans")[""], max(10, round(max(drawing.size) / 70))))
    labels = list(dict.fromkeys(region.label for region in regions))
    for region in regions:
        colour = COLOURS[labels.index(region.label) % len(COLOURS)]
        for box in region.boxes:
            left, top, right, bottom = in_pixels(box, drawing.size, frame)
            brush.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
            label = "".join(c if c.isprintable() else " " for c in region.label)[:40]
            place = left, max(0, top - font.size - line)
            brush.rectangle(brush.textbbox(place, label, font), fill="white")
            brush.text(place, label, colour, font)
    return drawing


def cut_out(picture: Image.Image, region: Region, frame: Box | None = None) -> list[Image.Image]:
    """Return one picture for each box of a region."""
    return [picture.crop(in_pixels(box, picture.size, frame)) for box in region.boxes]


def as_rows(regions: Sequence[Region], size: tuple[int, int], frame: Box | None = None) -> list[dict]:
    """Return the regions for JSON: label, boxes in pixels of the picture, and text."""
    return [
        {"label": region.label, "boxes": [in_pixels(box, size, frame) for box in region.boxes], "text": region.text}
        for region in regions
    ]


def without_tags(text: str, pictures: Sequence[str] = ()) -> str:
    """Return the text without the tags of its regions: plain Markdown.

    A region with the label "image" becomes a Markdown picture. `pictures` are the file names of these regions, in
    order.
    """
    start, regions = find_regions(text)
    names, parts = iter(pictures), [start]
    for region in regions:
        picture = f"![image]({next(names, '')})" if region.label == "image" else ""
        parts += [picture, region.text]
    return "\n\n".join(part for part in parts if part)
