"""Gives the decoder a document's text as tokens, where the vision context would give it pages.

`truncated` and the contexts that shorten the text keep to the budget of a page: as many positions as the mode has
vision tokens.
"""

from typing import TYPE_CHECKING

from PIL import Image

from lightseek.data.context.base import ContextMaker, Shown
from lightseek.data.context.pages import PageMaker
from lightseek.data.context.spec import ContextSpec
from lightseek.data.document import Document
from lightseek.page.modes import gundam_grid, vision_tokens
from lightseek.page.render import page_style
from lightseek.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lightseek.page.views import Page

ROOM = 3 / 4  # the document's largest share of the positions; the rest is for the prompt's words and the answer


def text_context(spec: ContextSpec) -> "TextMaker":
    """Return the context maker of the kind `text`. It cuts texts so that the decoder has room for the task."""
    most = most_tokens(spec.config.decoder.max_positions, spec.task)
    return TextMaker(spec.tokenizer, most, PageMaker(spec.page))


def truncated_context(spec: ContextSpec) -> "TextMaker":
    """The maker of a part of a text: as many tokens as a page has vision tokens in the mode.

    The part is the beginning of the text. If the task is to continue the text, it is the end, which matters most then.
    """
    most = min(page_budget(spec), most_tokens(spec.config.decoder.max_positions, spec.task))
    return TextMaker(spec.tokenizer, most, PageMaker(spec.page), keep_end=spec.task == "continue")


def shortened_context(spec: ContextSpec) -> "ShortenedMaker":
    """The maker of a text that the model shortens to as many vectors as a page has vision tokens in the mode."""
    most = most_tokens(spec.config.decoder.max_positions, spec.task)
    return ShortenedMaker(spec.tokenizer, most, PageMaker(spec.page), page_budget(spec))


def page_budget(spec: ContextSpec) -> int:
    """Return the vision tokens of one drawn page in the mode, for the boxes of this model."""
    style, mode = page_style(spec.page.mode, spec.page.font), spec.page.mode
    grid = gundam_grid(style.width, style.height, mode.tile) if mode.tile else (1, 1)
    return vision_tokens(mode, grid, spec.config.arithmetic)


class TextMaker(ContextMaker):
    """Makes a context without pages: the text of the document becomes a part of the prompt."""

    def __init__(self, tokenizer: Tokenizer, most_tokens: int, pages: PageMaker, keep_end: bool = False) -> None:
        """`most_tokens` is the length at which a text is cut. `pages` draws documents for people to look at.

        A text that is too long keeps its beginning, or with `keep_end` its end.
        """
        super().__init__()
        self.tokenizer, self.most_tokens, self.pages, self.keep_end = tokenizer, most_tokens, pages, keep_end

    def make(self, document: Document) -> Shown:
        """Return the text, cut if it is too long. Raises ValueError, naming the document, if it has no text."""
        self.check(document)
        ids = self.tokenizer.encode(document.text)
        if len(ids) <= self.most_tokens:
            return Shown(text=document.text)
        part = ids[-self.most_tokens :] if self.keep_end else ids[: self.most_tokens]
        kept = self.tokenizer.decode(part).strip("�")  # the cut may split a character
        return Shown(text=kept, dropped_characters=max(1, len(document.text) - len(kept)))

    def ids(self, shown: Shown) -> list[int]:
        return self.tokenizer.encode(shown.text)

    def positions(self, document: Document, tokens_per_character: float) -> int:
        return min(self.most_tokens, round(tokens_per_character * len(document.text)))

    def check(self, document: Document) -> int | float:
        if not document.text.strip():
            raise ValueError(f"document {document.name} has no text, and context=text shows the decoder nothing else")
        return self.most_tokens

    def visible(self, document: Document) -> str:
        return self.make(document).text

    def pictures(self, document: Document) -> list[Image.Image]:
        """Return the pages that the context `vision` would show."""
        return self.pages.pictures(document)


class ShortenedMaker(TextMaker):
    """The text stands in the place of a page: it fills `vectors` positions, and `model/context.py` makes them."""

    def __init__(self, tokenizer: Tokenizer, most_tokens: int, pages: PageMaker, vectors: int) -> None:
        """`vectors` is the number of positions; the rest is as for `TextMaker`."""
        super().__init__(tokenizer, most_tokens, pages)
        self.vectors = vectors

    def views(self, shown: Shown) -> "list[Page]":
        import torch

        from lightseek.page.views import TextRun

        return [TextRun(torch.tensor(self.tokenizer.encode(shown.text)), self.vectors)]

    def check(self, document: Document) -> int | float:
        super().check(document)
        return self.vectors

    def ids(self, shown: Shown) -> list[int]:
        return []

    def positions(self, document: Document, tokens_per_character: float) -> int:
        return self.vectors


def most_tokens(max_positions: int, task: str) -> int:
    """Return how many tokens a text may have for a decoder of `max_positions`. The task ocr needs room for it twice."""
    return int(max_positions * ROOM / (2 if task == "ocr" else 1))
