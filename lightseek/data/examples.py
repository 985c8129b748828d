"""Turns a document into a training example (pages, prompt and target), and examples into a padded batch.

document -> pages at the size of the mode -> views
         -> BOS, image positions (or the tokens of the text), words of the task | target, EOS
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from lightseek.data.context.base import ContextMaker, Shown, Truncation
from lightseek.data.context.spec import ContextSpec
from lightseek.data.context.vision_cache import VisionCache
from lightseek.data.document import Document, check_task
from lightseek.data.kinds import CONTEXTS, TASKS
from lightseek.model.config import OCRConfig
from lightseek.model.ocr import IGNORED
from lightseek.page.modes import find_mode
from lightseek.page.spec import PageSpec
from lightseek.page.views import Page, TextRun, image_positions, image_tokens
from lightseek.text.kinds import IMAGE_TAG, PROMPTS
from lightseek.text.prompts import fill_prompt
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch

WORDS = 100  # positions: more than BOS, EOS and the words of any task have


@dataclass(frozen=True)
class Example:
    """One document, ready for the model."""

    document: Document
    pages: list[Page]
    prompt: list[int]  # token ids; they include the image positions, or the document's text
    target: list[int]  # token ids; the last one is EOS
    vision_tokens: int  # 0 if the prompt holds the document as text
    text_tokens: int  # tokens of the text on the pages; divided by `vision_tokens` it is the compression ratio
    dropped_characters: int = 0  # characters of the text for which there was no room

    @property
    def target_text(self) -> list[int]:
        """The target without EOS."""
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
        page: PageSpec,
        cache: VisionCache | None = None,
        context: str = "vision",
    ) -> None:
        """`context` is a name in `lightseek.data.kinds.CONTEXTS`: the document becomes pages or text tokens.

        `page` says how pages are drawn. With a `cache` the pages come encoded.
        Raises ValueError for an unknown task or context.
        """
        TASKS.check(task)
        self.config, self.tokenizer, self.task = config, tokenizer, task
        self.mode = find_mode(page.mode)
        spec = ContextSpec(config, tokenizer, task, page, cache)
        self.context: ContextMaker = CONTEXTS.find(context)(spec)

    @property
    def missing_glyphs(self) -> Counter[str]:
        """Characters the font could not draw, over all pages so far."""
        return self.context.missing_glyphs

    @property
    def truncated(self) -> Truncation:
        """How much was left out of all documents so far because there was no room."""
        return self.context.truncated

    def __call__(self, document: Document) -> Example:
        """Make the example of a document.

        Raises ValueError, which names the document, when the document lacks something that the task needs, or when it
        needs more positions than the decoder has.
        """
        check_task(document, self.task)
        return self.example(document, self.context(document))

    def example(self, document: Document, shown: Shown) -> Example:
        """Make the example of a document whose context is made already. Raises ValueError as a call does."""
        try:
            views = self.context.views(shown)
        except ValueError as error:  # such as a picture that is too thin
            raise ValueError(f"document {document.name}: {error}") from error
        views = [
            view if isinstance(view, TextRun) else replace(view, key=key(document, i)) for i, view in enumerate(views)
        ]
        if self.task == "ocr" and shown.dropped_pages:
            raise ValueError(
                f"document {document.name} has {shown.dropped_pages} page(s) more than {len(views)}, "
                "and nobody knows which part of its text is on them: raise max_pages"
            )
        places = [[self.config.image_token_id] * image_positions(page, self.config.arithmetic) for page in views]
        if ids := self.context.ids(shown):
            places.append(ids)
        target = shown.text if self.task == "ocr" else document.summary
        example = Example(
            document=document,
            pages=views,
            prompt=self.prompt(document, places),
            target=[*self.tokenizer.encode(target), self.config.eos_token_id],
            vision_tokens=sum(image_tokens(page, self.config.arithmetic) for page in views),
            text_tokens=len(self.tokenizer.encode(shown.text)),
            dropped_characters=shown.dropped_characters,
        )
        length = len(example.prompt) + len(example.target)
        if length > self.config.decoder.max_positions:
            raise ValueError(
                f"document {document.name}: {len(views)} page(s) and the target need {length} positions; the decoder "
                f"has {self.config.decoder.max_positions}: use fewer tokens a page, fewer pages or shorter documents"
            )
        return example

    def check(self, document: Document) -> None:
        """Raise ValueError, naming the document, for what would stop a run when it comes to this document.

        The example is made only if the document may be too long for the decoder.
        """
        check_task(document, self.task)
        written = (document.text if self.task == "ocr" else document.summary) + document.question
        most = len(written.encode(errors="replace"))  # each token has at least one byte
        if self.context.check(document) + most + WORDS > self.config.decoder.max_positions:
            self.example(document, self.context.make(document))  # which counts nothing as left out

    def images(self, document: Document) -> list[Image.Image]:
        """Return the pages as pictures, for people to look at."""
        return self.context.pictures(document)

    def prompt(self, document: Document, places: Sequence[Sequence[int]]) -> list[int]:
        """Return the ids of the prompt: BOS, the document, and then the words of the task or the document's question.

        `places` are the ids that stand for the document: one list for each page, or one list for its text.
        """
        tags = IMAGE_TAG * len(places)
        if "question" not in TASKS[self.task]:
            words = PROMPTS[self.task].removeprefix(IMAGE_TAG)
            return fill_prompt(self.config, self.tokenizer, tags + words, places)
        # A question comes from the data, so a special token that is spelled out in it must stay plain text.
        ids = fill_prompt(self.config, self.tokenizer, tags, places)
        return ids + self.tokenizer.encode(f"\n{document.question.strip()}")

    def target(self, document: Document) -> str:
        """Return the text that the model should write: the document's answer, its summary, or the text on its pages."""
        return self.context.visible(document) if self.task == "ocr" else document.summary


def key(document: Document, page: int) -> int:
    """Return a number for a page of a document. It does not depend on the text, so a corrupted copy has the same."""
    return crc32(f"{page} {document.name}".encode())


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Make a batch. The examples are padded on the right to the longest one, and only the targets have labels."""
    input_ids, mask = pad_batch([example.prompt + example.target for example in examples], pad, side="right")
    labels = torch.full_like(input_ids, IGNORED)
    for i, example in enumerate(examples):
        start = len(example.prompt)
        labels[i, start : start + len(example.target)] = torch.tensor(example.target)
    return Batch(input_ids, labels, None if mask.all() else mask, [example.pages for example in examples])
