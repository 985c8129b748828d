"""The official preprocessing, exact to the pixel: it turns images and a prompt into the inputs of the model.

    page -> upright RGB -> square views of the mode's sizes -> (x/255 - 0.5) / 0.5
    "<image>\\nFree OCR." -> BOS, one image token per position, the text's tokens

Every resize uses PIL's bicubic filter. The reference code uses it too: it is the default of `Image.resize` and of
`ImageOps.pad`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from lightseek.model.config import OCRConfig
from lightseek.page.modes import Mode, find_mode, gundam_grid, rows_and_newlines
from lightseek.page.views import Page, PageViews
from lightseek.text.tokenizer import Tokenizer

GREY = (127, 127, 127)  # pads a page to a square
IMAGE_TAG = "<image>"
PROMPTS = {
    "ocr": "<image>\nFree OCR. ",
    "markdown": "<image>\n<|grounding|>Convert the document to markdown. ",
    "figure": "<image>\nParse the figure. ",
    "summarize": "<image>\nSummarize. ",  # not in the reference code; `--task summarize` trains it
}


@dataclass
class Inputs:
    """A batch for `LightSeekOCR` and `generate`. The padding is on the left, so that all rows end together."""

    input_ids: Int[Tensor, "b n"]
    pages: list[list[Page]]  # the images of each row, in order
    mask: Bool[Tensor, "b n"]  # false at padding


def page_views(image: Image.Image, mode: str | int | Mode) -> PageViews:
    """Return the square views of one page that the encoder sees in this mode.

    Tiny and small stretch the page. Base and large keep its aspect ratio and pad it with grey. The gundam modes also
    stretch the page to a whole grid of tiles and cut it into them, unless the page fits in one tile.
    Raises ValueError for an unknown mode, or for an image so thin that the padded view would have no pixel of it.
    """
    mode = find_mode(mode)
    page = upright_rgb(image)
    width, height = page.size
    if mode.padded and round(mode.side * min(width, height) / max(width, height)) < 1:
        raise ValueError(f"an image of {width} x {height} pixels is too thin to show on {mode.side} x {mode.side}")
    whole = square(page, mode.side, mode.padded)
    columns, rows = gundam_grid(width, height, mode.tile) if mode.tile else (1, 1)
    if mode.tile is None or columns * rows == 1:
        return PageViews(normalised(whole))
    wall = normalised(page.resize((columns * mode.tile, rows * mode.tile), Image.Resampling.BICUBIC))
    tiles = [tile for band in wall.split(mode.tile, dim=1) for tile in band.split(mode.tile, dim=2)]
    return PageViews(normalised(whole), torch.stack(tiles), (columns, rows))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a viewer shows it: turned as its EXIF data say, white where it is transparent, in RGB.

    Raises TypeError for anything but a PIL image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"a page is a PIL image, got {type(image).__name__}: PIL.Image.open(path) or Image.fromarray")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 8 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def square(page: Image.Image, side: int, padded: bool) -> Image.Image:
    """Return `page` on `side x side` pixels: either stretched, or `padded` with grey to keep its aspect ratio."""
    if padded:
        return ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, GREY)
    return page.resize((side, side), Image.Resampling.BICUBIC)


def normalised(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """Turn RGB bytes into floats in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return (pixels.float() / 255 - 0.5) / 0.5


def image_positions(page: Page) -> int:
    """Return the number of sequence positions that this page fills, as `modes.positions` counts them."""
    side = page.side(page.global_view)
    count = rows_and_newlines(side, side) + 1
    if page.tiles is not None:
        (columns, rows), per_tile = page.grid, page.side(page.tiles[0])
        count += rows_and_newlines(columns * per_tile, rows * per_tile)
    return count


def prompt_ids(config: OCRConfig, tokenizer: Tokenizer, prompt: str, image_positions: Sequence[int]) -> list[int]:
    """Return the ids of BOS and the prompt, with `image_positions[k]` image tokens in place of the k-th `<image>`.

    There is no chat template. Each piece of text between images is tokenised alone. `<|grounding|>` and other special
    tokens get their own ids, because a prompt is trusted and a page's text is not. White space at both ends of the
    prompt is dropped, as in the reference code.
    Raises ValueError if the prompt does not have one `<image>` per image.
    """
    return fill_prompt(config, tokenizer, prompt, [[config.image_token_id] * count for count in image_positions])


def fill_prompt(config: OCRConfig, tokenizer: Tokenizer, prompt: str, fillings: Sequence[Sequence[int]]) -> list[int]:
    """Return the same as `prompt_ids`, but with the ids `fillings[k]` in place of the k-th `<image>`."""
    pieces = prompt.strip().split(IMAGE_TAG)
    if len(pieces) - 1 != len(fillings):
        raise ValueError(
            f"the prompt {prompt!r} has {len(pieces) - 1} {IMAGE_TAG} but there are {len(fillings)} image(s): "
            f"write {IMAGE_TAG} once for each"
        )
    ids = [config.bos_token_id]
    for piece, filling in zip(pieces, (*fillings, ()), strict=True):
        ids += [*tokenizer.encode(piece, special=True), *filling]
    return ids


def pad_batch(
    rows: Sequence[Sequence[int]], pad: int, side: str = "left"
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Return rows of different lengths as one tensor, and the mask that is false at padding.

    `side` says where the padding goes: `"left"` for generation, where all rows must end together, or `"right"`, as is
    usual in training. `pad` is the id of the padding. Raises ValueError for any other side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"the padding goes on the left or the right, not on {side!r}")
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return ids, mask


def prepare(
    config: OCRConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    images: Sequence[Sequence[Image.Image | Page]],
    mode: str | int | Mode | Sequence[str | int | Mode] = "base",
) -> Inputs:
    """Return a batch to generate from. Each row has one prompt and one list of images.

    `mode` is one mode for all rows, or a list with one for each row. An image may also be a `PageViews` or an
    `EncodedPage` already; then its mode does not matter.
    Raises ValueError if the numbers of prompts, lists of images and modes differ.
    """
    modes = [mode] * len(prompts) if isinstance(mode, str | int | Mode) else list(mode)
    if not len(prompts) == len(images) == len(modes):
        raise ValueError(
            f"{len(prompts)} prompts, {len(images)} lists of images and {len(modes)} modes: give one of each per row"
        )
    pages = [
        [image if isinstance(image, Page) else page_views(image, row_mode) for image in row]
        for row, row_mode in zip(images, modes, strict=True)
    ]
    ids = [
        prompt_ids(config, tokenizer, prompt, [image_positions(views) for views in row])
        for prompt, row in zip(prompts, pages, strict=True)
    ]
    input_ids, mask = pad_batch(ids, config.pad_token_id, "left")
    return Inputs(input_ids, pages, mask)
