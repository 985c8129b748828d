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
from lightseek.page.views import Page, image_positions, page_views
from lightseek.text.kinds import IMAGE_TAG
from lightseek.text.kinds import PROMPTS as PROMPTS  # part of the public names
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch


@dataclass
class Inputs:
    """A batch for `LightSeekOCR` and `generate`. The padding is on the left, so that all rows end together."""

    input_ids: Int[Tensor, "b n"]
    pages: list[list[Page]]  # the images of each row, in order
    mask: Bool[Tensor, "b n"]  # false at padding


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
        prompt_ids(config, tokenizer, prompt, [image_positions(views, config.arithmetic) for views in row])
        for prompt, row in zip(prompts, pages, strict=True)
    ]
    input_ids, mask = pad_batch(ids, config.pad_token_id, "left")
    return Inputs(input_ids, pages, mask)
