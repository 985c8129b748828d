"""From a document to what the model trains on: pages, prompt, target.

document -> rendered page(s) at the mode's size -> views
         -> BOS, image positions, prompt | target, EOS
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from lightseek.config import OCRConfig
from lightseek.data.documents import Document
from lightseek.model.ocr import IGNORED
from lightseek.modes import Mode, find_mode, vision_tokens
from lightseek.pages import PageViews
from lightseek.processing import IMAGE_TAG, PROMPTS, image_positions, pad_batch, page_views, prompt_ids
from lightseek.render import PageStyle, fit_style, render_text
from lightseek.tokenizer import Tokenizer

TASKS = ("ocr", "summarize")  # each has its prompt in `lightseek.processing.PROMPTS`
SMALLEST_FONT = 8  # pixels
TILED_PAGE = 2  # tiles per side of a page rendered for a tiled mode


@dataclass(frozen=True)
class Example:
    """One document, ready for the model."""

    document: Document
    images: list[Image.Image]
    pages: list[PageViews]
    prompt: list[int]  # ids, image positions included
    target: list[int]  # ids, EOS included
    vision_tokens: int
    text_tokens: int  # of the document: over `vision_tokens`, the compression ratio

    @property
    def target_text(self) -> list[int]:
        return self.target[:-1]


@dataclass(frozen=True)
class Batch:
    """Right-padded for training. Labels are the target's ids where it stands and -100 over prompt and padding."""

    input_ids: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"] | None  # none where nothing is padded
    pages: list[list[PageViews]]


class ExampleMaker:
    """Makes examples for one task at one mode, the same every time."""

    def __init__(self, config: OCRConfig, tokenizer: Tokenizer, task: str, mode: str | int | Mode, font: str) -> None:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
        self.config, self.tokenizer, self.task, self.mode = config, tokenizer, task, find_mode(mode)
        side = self.mode.tile * TILED_PAGE if self.mode.tile else self.mode.side
        self.style = PageStyle(width=side, height=side, margin=side // 32, font=font)
        self.missing_glyphs: Counter[str] = Counter()  # characters the font could not draw, over all pages so far

    def __call__(self, document: Document) -> Example:
        """Raises ValueError, naming the document, when it needs more positions than the decoder has."""
        rendering = render_text(document.text, self.fit(document.text))
        self.missing_glyphs.update(rendering.missing_glyphs)
        images = [page.image for page in rendering.pages]
        pages = [page_views(image, self.mode) for image in images]
        prompt = IMAGE_TAG * (len(pages) - 1) + PROMPTS[self.task]  # one <image> per page
        example = Example(
            document=document,
            images=images,
            pages=pages,
            prompt=prompt_ids(self.config, self.tokenizer, prompt, [image_positions(page) for page in pages]),
            target=[*self.tokenizer.encode(self.target(document)), self.config.eos_token_id],
            vision_tokens=sum(vision_tokens(self.mode, page.grid) for page in pages),
            text_tokens=len(self.tokenizer.encode(document.text)),
        )
        length = len(example.prompt) + len(example.target)
        if length > self.config.decoder.max_positions:
            raise ValueError(
                f"document {document.name}: {len(pages)} page(s) and the target need {length} positions, the decoder "
                f"has {self.config.decoder.max_positions}; use fewer tokens a page or shorter documents"
            )
        return example

    def target(self, document: Document) -> str:
        """What the model should write about a document."""
        return document.text if self.task == "ocr" else document.summary

    def fit(self, text: str) -> PageStyle:
        """The largest font at which the text fills one page, or the smallest, and as many pages as that takes."""
        try:
            return fit_style(text, self.style, smallest=SMALLEST_FONT)
        except ValueError:
            return replace(self.style, font_size=SMALLEST_FONT)


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Pad to the longest on the right, and let the loss see the targets only."""
    input_ids, mask = pad_batch([example.prompt + example.target for example in examples], pad, side="right")
    labels = torch.full_like(input_ids, IGNORED)
    for i, example in enumerate(examples):
        start = len(example.prompt)
        labels[i, start : start + len(example.target)] = torch.tensor(example.target)
    return Batch(input_ids, labels, None if mask.all() else mask, [example.pages for example in examples])
