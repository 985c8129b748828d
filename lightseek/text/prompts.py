"""A prompt and its pages become the model's input.

"<image>\\nFree OCR." -> BOS, one image token for each position of the page, the tokens of the text
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from lightseek.model.config import OCRConfig
from lightseek.page.modes import Mode
from lightseek.page.preprocessing import page_views
from lightseek.page.views import Page, image_positions
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch

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
