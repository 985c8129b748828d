"""Puts a document into the prompt as text instead of as pages.

A context maker turns a document into `Pages`. They decide what replaces the prompt's `<image>`: for `vision`
(`PageMaker`) the positions of the views, and for `text` (this file) the tokens of the document's text. A context
encoder that shortens the text (mean pooling, a convolution) would return its own views, which fill image positions like
those of a page.
"""

from PIL import Image

from lightseek.data.context.pages import PageMaker, Pages
from lightseek.data.document import Document
from lightseek.page.modes import Mode
from lightseek.page.views import Page
from lightseek.text.tokenizer import Tokenizer

ROOM = 3 / 4  # the document's largest share of the positions; the rest is for the prompt's words and the answer


class TextMaker(PageMaker):
    """Makes no pages: the text of the document goes into the prompt."""

    def __init__(self, mode: str | int | Mode, font: str, tokenizer: Tokenizer, most_tokens: int) -> None:
        """A text of more than `most_tokens` tokens is cut, and `truncated` counts it.

        The mode and the font only matter for the pictures that people look at.
        """
        super().__init__(mode, font)
        self.tokenizer, self.most_tokens = tokenizer, most_tokens

    def draw(self, document: Document) -> Pages:
        """Return the text, without pages. Raises ValueError, which names the document, if it has no text."""
        if not document.text.strip():
            raise ValueError(f"document {document.name} has no text, and context=text shows the decoder nothing else")
        ids = self.tokenizer.encode(document.text)
        if len(ids) <= self.most_tokens:
            return Pages([], document.text)
        kept = self.tokenizer.decode(ids[: self.most_tokens]).rstrip("�")  # a character cut in half
        return Pages([], kept, dropped_characters=max(1, len(document.text) - len(kept)))

    def pictures(self, document: Document) -> list[Image.Image]:
        return super().draw(document).images

    def views(self, pages: Pages) -> list[Page]:
        return []

    def visible(self, document: Document) -> str:
        """Return the text that the decoder gets."""
        return self.draw(document).text


def most_tokens(max_positions: int, task: str) -> int:
    """Return how many tokens a text may have for a decoder of `max_positions`. The task ocr needs room for it twice."""
    return int(max_positions * ROOM / (2 if task == "ocr" else 1))
