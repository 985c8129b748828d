"""Images and a prompt in, model inputs out: the official preprocessing, to the pixel.

    page -> upright RGB -> square views of the mode's sizes -> (x/255 - 0.5) / 0.5
    "<image>\\nFree OCR." -> BOS, one image token per position, the text's tokens

Every resize is PIL's bicubic, the filter of the reference code (there both as `Image.resize`'s and as `ImageOps.pad`'s
default).
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

GREY = (127, 127, 127)  # what pads a page to a square
IMAGE_TAG = "<image>"
PROMPTS = {
    "ocr": "<image>\nFree OCR. ",
    "markdown": "<image>\n<|grounding|>Convert the document to markdown. ",
    "figure": "<image>\nParse the figure. ",
    "summarize": "<image>\nSummarize. ",  # ours: what `--task summarize` trains
}


@dataclass
class Inputs:
    """What `LightSeekOCR` and `generate` take. Rows are padded on the left, so that all texts end together."""

    input_ids: Int[Tensor, "b n"]
    pages: list[list[Page]]  # each row's images, in order
    mask: Bool[Tensor, "b n"]  # false at padding


def page_views(image: Image.Image, mode: str | int | Mode) -> PageViews:
    """The square views the encoder gets to see of one page in this mode.

    Tiny and small stretch the page; base and large keep its aspect and pad with grey; the gundam modes add tiles, cut
    from the page stretched to the whole grid, unless the page fits in one tile.
    Raises ValueError for an unknown mode, or an image so thin that nothing of it would be left.
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
    """The picture as a viewer shows it: turned as its EXIF data say, on white where it is transparent, in RGB."""
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
    """`page` on `side x side` pixels: in the middle of grey with its aspect kept, or stretched."""
    if padded:
        return ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, GREY)
    return page.resize((side, side), Image.Resampling.BICUBIC)


def normalised(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """RGB bytes to floats in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return (pixels.float() / 255 - 0.5) / 0.5


def image_positions(page: Page) -> int:
    """Sequence positions that this page fills: tokens, newlines and the separator (as `modes.positions`)."""
    side = page.side(page.global_view)
    count = rows_and_newlines(side, side) + 1
    if page.tiles is not None:
        (columns, rows), per_tile = page.grid, page.side(page.tiles[0])
        count += rows_and_newlines(columns * per_tile, rows * per_tile)
    return count


def prompt_ids(config: OCRConfig, tokenizer: Tokenizer, prompt: str, image_positions: Sequence[int]) -> list[int]:
    """BOS, then the prompt with its k-th `<image>` replaced by `image_positions[k]` image tokens. No chat template.

    The text between images is tokenised piece by piece, special tokens such as `<|grounding|>` as such: a prompt is
    trusted, unlike a page's text. White space around the whole prompt goes, as in the reference code.
    Raises ValueError when the prompt does not have one `<image>` per image.
    """
    return fill_prompt(config, tokenizer, prompt, [[config.image_token_id] * count for count in image_positions])


def fill_prompt(config: OCRConfig, tokenizer: Tokenizer, prompt: str, fillings: Sequence[Sequence[int]]) -> list[int]:
    """`prompt_ids` with any ids in place of the k-th `<image>`: `fillings[k]`."""
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
    """Rows of unlike lengths as one tensor, and the mask that is false at padding.

    `side` is `"left"` for generation, where all rows must end together, or `"right"`, the habit in training.
    """
    if side not in ("left", "right"):
        raise ValueError(f"can pad on the left or the right, not {side!r}")
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
    """A batch to generate from: one prompt and one list of images a row, in one mode or one mode a row.

    An image may come as `PageViews` or encoded already, which the mode leaves alone.
    Raises ValueError when prompts, images and modes do not go together.
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
