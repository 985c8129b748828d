"""Draws what the functions of this folder find: heat on a page, colours on a page, text with coloured tokens."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from lightseek.inspect.places import Box
from lightseek.page.typeset.fonts import Face, font_files, open_font

HOT = (214, 39, 40)
COLD = (31, 119, 180)
SMALLEST = 480  # pixels of the longer side of a drawing


def colours(count: int) -> list[tuple[int, int, int]]:
    """Return so many colours that are easy to tell apart."""
    import matplotlib

    few = count <= 20
    palette = matplotlib.colormaps["tab20"].colors if few else matplotlib.colormaps["turbo"](np.linspace(0, 1, count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue, *_ in palette[:count]]


def short(word: str, most: int = 5) -> str:
    """Return a token as a label that fits into a small square. A space shows as ␣, and the stop token as ■."""
    if word.startswith("<") and word.endswith(">"):
        return "■"
    word = word.replace("\n", "↵").strip() or "␣"
    return word if len(word) <= most else word[: most - 1] + "…"


def letters(size: int) -> ImageFont.FreeTypeFont:
    return open_font(Face(font_files("DejaVuSans")[""], size))


def enlarged(picture: Image.Image) -> tuple[Image.Image, float]:
    """Return the picture at a size at which squares can be seen, and the factor."""
    factor = max(1.0, SMALLEST / max(picture.size))
    size = round(picture.width * factor), round(picture.height * factor)
    return (picture if factor == 1 else picture.resize(size, Image.Resampling.LANCZOS)).convert("RGB"), factor


def heat(picture: Image.Image, boxes: Sequence[Box | None], weights: Sequence[float]) -> Image.Image:
    """Colour parts of a page: red for positive weights, blue for negative ones, stronger for larger ones.

    The strongest weight has the full colour. `boxes[i]` is the part of weight i in pixels; a part without a box is not
    drawn.
    """
    drawing, factor = enlarged(picture)
    strongest = max((abs(float(w)) for w, box in zip(weights, boxes, strict=True) if box), default=0.0) or 1.0
    layer = Image.new("RGBA", drawing.size)
    brush = ImageDraw.Draw(layer)
    for box, weight in zip(boxes, weights, strict=True):
        if box:
            opacity = round(190 * abs(float(weight)) / strongest)
            brush.rectangle(corners(box, factor), fill=(*(HOT if weight > 0 else COLD), opacity))
    return Image.alpha_composite(drawing.convert("RGBA"), layer).convert("RGB")


def tiled(
    picture: Image.Image, boxes: Sequence[Box | None], fills: Sequence[Sequence[int]], labels: Sequence[str] = ()
) -> Image.Image:
    """Lay a colour over each part of a page, and write a short label into it."""
    drawing, factor = enlarged(picture)
    layer = Image.new("RGBA", drawing.size)
    brush = ImageDraw.Draw(layer)
    opacity = 215 if labels else 150  # a label must be told apart from the letters of the page
    for index, (box, fill) in enumerate(zip(boxes, fills, strict=True)):
        if box is None:
            continue
        left, top, right, bottom = corners(box, factor)
        brush.rectangle(
            (left, top, right, bottom), fill=(*(int(c) for c in fill), opacity), outline=(255, 255, 255, 200)
        )
        if labels:
            font = letters(max(9, round((bottom - top) * 0.4)))
            brush.text(((left + right) / 2, (top + bottom) / 2), labels[index], (0, 0, 0, 255), font, anchor="mm")
    return Image.alpha_composite(drawing.convert("RGBA"), layer).convert("RGB")


def corners(box: Box, factor: float) -> tuple[int, int, int, int]:
    """Return a box in whole pixels of a drawing. Its right and bottom edges belong to the next box."""
    left, top, right, bottom = (round(edge * factor) for edge in box)
    return left, top, max(left, right - 1), max(top, bottom - 1)


def rgb(features: Float[np.ndarray, "h w d"], side: int = SMALLEST) -> Image.Image:
    """Draw a map of features: its first three principal components become red, green and blue."""
    height, width, channels = features.shape
    flat = features.reshape(-1, channels).astype(np.float64)
    flat = flat - flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    parts = flat @ directions[:3].T
    parts = np.pad(parts, ((0, 0), (0, 3 - parts.shape[1])))
    low, high = np.quantile(parts, [0.01, 0.99], axis=0)
    bytes_ = np.clip((parts - low) / np.where(high > low, high - low, 1), 0, 1) * 255
    small = Image.fromarray(bytes_.reshape(height, width, 3).astype(np.uint8))
    scale = side / max(height, width)
    return small.resize((round(width * scale), round(height * scale)), Image.Resampling.NEAREST)


def coloured_text(words: Sequence[str], fill: Callable[[int], Sequence[int]], width: int = 760) -> Image.Image:
    """Write the tokens of a text one after the other, each on its own background."""
    font = letters(20)
    line, margin, places, x, y = 30, 10, [], 10, 10
    for index, word in enumerate(words):
        shown = word.replace("\n", "↵").replace("｜", "|").replace("▁", "_")
        step = font.getlength(shown)
        if x + step > width - margin:
            x, y = margin, y + line
        places.append((x, y, step, shown, index))
        x += step
        if "\n" in word:
            x, y = margin, y + line
    drawing = Image.new("RGB", (width, y + line + margin), "white")
    brush = ImageDraw.Draw(drawing)
    for left, top, step, shown, index in places:
        brush.rectangle((left, top, left + step, top + line - 4), fill=tuple(int(c) for c in fill(index)))
        brush.text((left, top), shown, "black", font)
    return drawing
