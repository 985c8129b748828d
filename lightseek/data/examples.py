"""From a document to what the model trains on: pages, prompt, target.

document -> rendered page(s) at the mode's size -> views
         -> BOS, image positions (or the text's tokens), prompt | target, EOS
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from lightseek.data.context.cached import CachedPageMaker
from lightseek.data.context.pages import MOST_PAGES, PageMaker, Truncation
from lightseek.data.context.text import TextMaker, most_tokens
from lightseek.data.context.vision_cache import VisionCache
from lightseek.data.document import Document, check_task
from lightseek.data.kinds import TASKS
from lightseek.model.config import OCRConfig
from lightseek.model.ocr import IGNORED
from lightseek.page.modes import Mode, vision_tokens
from lightseek.page.views import Page, image_positions
from lightseek.text.kinds import IMAGE_TAG, PROMPTS
from lightseek.text.prompts import fill_prompt
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch


@dataclass(frozen=True)
class Example:
    """One document, ready for the model."""

    document: Document
    pages: list[Page]
    prompt: list[int]  # ids, image positions or the document's text included
    target: list[int]  # ids, EOS included
    vision_tokens: int  # none if the document goes in as text
    text_tokens: int  # of what stands on the pages: over `vision_tokens`, the compression ratio
    dropped_characters: int = 0  # of the text, for want of pages

    @property
    def target_text(self) -> list[int]:
        return self.target[:-1]


@dataclass(frozen=True)
class Batch:
    """Right-padded for training. Labels are the target's ids where it stands and -100 over prompt and padding."""

    input_ids: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"] | None  # none where nothing is padded
    pages: list[list[Page]]


class ExampleMaker:
    """Makes examples for one task at one mode, the same every time."""

    def __init__(
        self,
        config: OCRConfig,
        tokenizer: Tokenizer,
        task: str,
        mode: str | int | Mode,
        font: str,
        pages: int = MOST_PAGES,
        cache: VisionCache | None = None,
        context: str = "vision",
    ) -> None:
        """At most `pages` pages a document; `truncated` counts what that leaves out. A `cache` has them encoded.

        With context `text` the document's own tokens stand where its pages would, as many as the decoder has room for.
        """
        TASKS.check(task)
        self.config, self.tokenizer, self.task = config, tokenizer, task
        if context == "text":
            self.pages = TextMaker(mode, font, tokenizer, most_tokens(config.decoder.max_positions, task))
        else:
            self.pages = CachedPageMaker(mode, font, pages, cache) if cache else PageMaker(mode, font, pages)
        self.mode = self.pages.mode

    @property
    def missing_glyphs(self) -> Counter[str]:
        """Characters the font could not draw, over all pages so far."""
        return self.pages.missing_glyphs

    @property
    def truncated(self) -> Truncation:
        """What the page budget left out so far."""
        return self.pages.truncated

    def __call__(self, document: Document) -> Example:
        """Raises ValueError, naming the document, when it lacks what the task needs or the decoder lacks positions."""
        check_task(document, self.task)
        made = self.pages(document)
        if self.task == "ocr" and made.dropped_pages:
            raise ValueError(
                f"document {document.name} has {made.dropped_pages} page(s) more than {self.pages.most}, "
                "and which text stands on those is not known: raise max_pages"
            )
        views = self.pages.views(made)
        context = [[self.config.image_token_id] * image_positions(page) for page in views]
        target = made.text if self.task == "ocr" else document.summary
        example = Example(
            document=document,
            pages=views,
            prompt=self.prompt(document, context or [self.tokenizer.encode(made.text)]),
            target=[*self.tokenizer.encode(target), self.config.eos_token_id],
            vision_tokens=sum(vision_tokens(self.mode, page.grid) for page in views),
            text_tokens=len(self.tokenizer.encode(made.text)),
            dropped_characters=made.dropped_characters,
        )
        length = len(example.prompt) + len(example.target)
        if length > self.config.decoder.max_positions:
            raise ValueError(
                f"document {document.name}: {len(views)} page(s) and the target need {length} positions, the decoder "
                f"has {self.config.decoder.max_positions}; use fewer tokens a page, fewer pages or shorter documents"
            )
        return example

    def images(self, document: Document) -> list[Image.Image]:
        """The pages as pictures, for people to look at."""
        return self.pages.pictures(document)

    def prompt(self, document: Document, context: Sequence[Sequence[int]]) -> list[int]:
        """BOS, what stands for the document, and the task's words or the document's question."""
        tags = IMAGE_TAG * len(context)
        if self.task != "answer":
            words = PROMPTS[self.task].removeprefix(IMAGE_TAG)
            return fill_prompt(self.config, self.tokenizer, tags + words, context)
        # A question comes from the data: its special tokens are plain text.
        ids = fill_prompt(self.config, self.tokenizer, tags, context)
        return ids + self.tokenizer.encode(f"\n{document.question.strip()}")

    def target(self, document: Document) -> str:
        """What the model should write about a document: its answer, its summary, or the text on its pages."""
        return self.pages.visible(document) if self.task == "ocr" else document.summary


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Pad to the longest on the right, and let the loss see the targets only."""
    input_ids, mask = pad_batch([example.prompt + example.target for example in examples], pad, side="right")
    labels = torch.full_like(input_ids, IGNORED)
    for i, example in enumerate(examples):
        start = len(example.prompt)
        labels[i, start : start + len(example.target)] = torch.tensor(example.target)
    return Batch(input_ids, labels, None if mask.all() else mask, [example.pages for example in examples])
