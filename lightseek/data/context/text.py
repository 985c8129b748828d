"""How a document gets in front of the decoder: as pages, or as its own text.

A context maker turns a document into `Pages`; what stands at the prompt's `<image>` follows from them: the positions of
its views, for `vision` (`PageMaker`), or the tokens of its text, for `text` (here). A context encoder that shortens the
text (mean pooling, a convolution) would give views of its own, which fill image positions as a page's do.
"""

from PIL import Image

from lightseek.data.context.pages import PageMaker, Pages
from lightseek.data.document import Document
from lightseek.page.modes import Mode
from lightseek.page.views import Page
from lightseek.text.tokenizer import Tokenizer

ROOM = 3 / 4  # of the decoder's positions may be the document's; the rest is for the prompt's words and the answer


class TextMaker(PageMaker):
    """The same document with nothing to look at: its text goes into the prompt as it is."""

    def __init__(self, mode: str | int | Mode, font: str, tokenizer: Tokenizer, most_tokens: int) -> None:
        """A text longer than `most_tokens` is cut, and `truncated` counts it. Mode and font change nothing."""
        super().__init__(mode, font)
        self.tokenizer, self.most_tokens = tokenizer, most_tokens

    def draw(self, document: Document) -> Pages:
        """No pages. Raises ValueError, naming the document, for one without text."""
        if not document.text.strip():
            raise ValueError(f"document {document.name} has no text, and context=text shows the decoder nothing else")
        ids = self.tokenizer.encode(document.text)
        if len(ids) <= self.most_tokens:
            return Pages([], document.text)
        kept = self.tokenizer.decode(ids[: self.most_tokens]).rstrip("�")  # half a character
        return Pages([], kept, dropped_characters=max(1, len(document.text) - len(kept)))

    def pictures(self, document: Document) -> list[Image.Image]:
        return super().draw(document).images

    def views(self, pages: Pages) -> list[Page]:
        return []

    def visible(self, document: Document) -> str:
        """The text that the decoder gets to see."""
        return self.draw(document).text


def most_tokens(max_positions: int, task: str) -> int:
    """How long a text may be in front of a decoder of so many positions. Reading it out needs room for it twice."""
    return int(max_positions * ROOM / (2 if task == "ocr" else 1))
