"""Turns a document into a training example: pages, prompt and target. Also puts examples into a padded batch.

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
    prompt: list[int]  # token ids; they include the image positions, or the document's text
    target: list[int]  # token ids; the last one is EOS
    vision_tokens: int  # 0 if the prompt holds the document as text
    text_tokens: int  # of the text on the pages; divided by `vision_tokens` it is the compression ratio
    dropped_characters: int = 0  # characters of the text for which there was no room

    @property
    def target_text(self) -> list[int]:
        return self.target[:-1]


@dataclass(frozen=True)
class Batch:
    """Right-padded examples for training. Labels are the target's ids, and -100 for the prompt and the padding."""

    input_ids: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"] | None  # False for padding; None if the batch has no padding
    pages: list[list[Page]]


class ExampleMaker:
    """Makes examples for one task at one mode. The same document always gives the same example."""

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
        """A document gets at most `pages` pages; `truncated` counts the rest. With a `cache` the pages come encoded.

        With context `text` the prompt holds the document's tokens instead of its pages; long texts are cut to fit.
        Raises ValueError for an unknown task or mode.
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
        """How often each character that the font could not draw occurred, over all pages so far."""
        return self.pages.missing_glyphs

    @property
    def truncated(self) -> Truncation:
        """How much text and how many pages the budget left out so far."""
        return self.pages.truncated

    def __call__(self, document: Document) -> Example:
        """Make the example of a document.

        Raises ValueError, which names the document, when the document lacks something that the task needs, or when it
        needs more positions than the decoder has.
        """
        check_task(document, self.task)
        made = self.pages(document)
        if self.task == "ocr" and made.dropped_pages:
            raise ValueError(
                f"document {document.name} has {made.dropped_pages} page(s) more than {self.pages.most}, "
                "and nobody knows which part of its text is on them: raise max_pages"
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
                f"document {document.name}: {len(views)} page(s) and the target need {length} positions; the decoder "
                f"has {self.config.decoder.max_positions}: use fewer tokens a page, fewer pages or shorter documents"
            )
        return example

    def images(self, document: Document) -> list[Image.Image]:
        """Return the pages as pictures that people can look at."""
        return self.pages.pictures(document)

    def prompt(self, document: Document, context: Sequence[Sequence[int]]) -> list[int]:
        """Return BOS, the document's ids from `context`, and then the task's words or the document's question."""
        tags = IMAGE_TAG * len(context)
        if self.task != "answer":
            words = PROMPTS[self.task].removeprefix(IMAGE_TAG)
            return fill_prompt(self.config, self.tokenizer, tags + words, context)
        # A question comes from the data, so special tokens in it are encoded as plain text.
        ids = fill_prompt(self.config, self.tokenizer, tags, context)
        return ids + self.tokenizer.encode(f"\n{document.question.strip()}")

    def target(self, document: Document) -> str:
        """Return the text that the model should write: the answer, the summary, or the text on the document's pages."""
        return self.pages.visible(document) if self.task == "ocr" else document.summary


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Pad examples on the right to the longest one. The labels let the loss see the targets only."""
    input_ids, mask = pad_batch([example.prompt + example.target for example in examples], pad, side="right")
    labels = torch.full_like(input_ids, IGNORED)
    for i, example in enumerate(examples):
        start = len(example.prompt)
        labels[i, start : start + len(example.target)] = torch.tensor(example.target)
    return Batch(input_ids, labels, None if mask.all() else mask, [example.pages for example in examples])
