"""What every context maker offers. It turns a document into what stands for it in front of the decoder.

    document -> make -> Shown -> views: they fill image positions, as many as each has tokens
                              -> ids: they stand in the prompt as they are

Drawn pages (`pages.py`), encoded pages (`cached.py`) and the document's own tokens (`text.py`) are such contexts. An
encoder that shortens the text, by mean pooling or by a convolution, would be another: a maker whose `views` hold its
vectors. `lightseek.data.kinds.CONTEXTS` lists the kinds.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from lightseek.data.document import Document

if TYPE_CHECKING:
    from lightseek.page.views import Page


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the decoder gets to see of a document's text, and what found no place."""

    text: str
    dropped_characters: int = 0
    dropped_pages: int = 0  # of a document that came as pictures
    missing_glyphs: dict[str, int] = field(default_factory=dict)  # characters the font could not draw


@dataclass
class Truncation:
    """What found no place so far. Each document is counted once."""

    documents: int = 0
    characters: int = 0
    pages: int = 0  # of documents that came as pictures


class ContextMaker(ABC):
    """Makes the same context of a document every time, and counts what is lost on the way."""

    def __init__(self) -> None:
        self.missing_glyphs: Counter[str] = Counter()  # characters the font could not draw, over all documents so far
        self.truncated = Truncation()
        self._cut: set[str] = set()  # documents in `truncated`

    def __call__(self, document: Document) -> Shown:
        """Make the context and count what it lacks. Raises ValueError as `make` does."""
        shown = self.make(document)
        self.missing_glyphs.update(shown.missing_glyphs)
        if (shown.dropped_characters or shown.dropped_pages) and document.name not in self._cut:
            self._cut.add(document.name)
            self.truncated.documents += 1
            self.truncated.characters += shown.dropped_characters
            self.truncated.pages += shown.dropped_pages
        return shown

    @abstractmethod
    def make(self, document: Document) -> Shown:
        """The context, not counted. Raises ValueError, naming the document, when there is nothing to make it from."""

    def views(self, shown: Shown) -> "list[Page]":
        """What the model takes beside the prompt. The default is nothing."""
        return []

    def ids(self, shown: Shown) -> list[int]:
        """Tokens that stand in the prompt as they are. The default is none."""
        return []

    @abstractmethod
    def positions(self, document: Document, tokens_per_character: float) -> int:
        """About how many of the decoder's positions the context fills. It is an estimate that draws nothing."""

    @abstractmethod
    def visible(self, document: Document) -> str:
        """The text that the decoder gets to see. It costs as little as it can."""

    def check(self, document: Document) -> None:  # noqa: B027 - a text has nothing that shows quickly
        """Raise ValueError, naming the document, for what shows quickly that no context can be made of it."""

    @abstractmethod
    def pictures(self, document: Document) -> list[Image.Image]:
        """The document as pages, for people to look at."""

    def fill(  # noqa: B027 - most kinds have nothing to keep
        self, documents: Sequence[Document], tick: Callable[[int, int], None] | None = None
    ) -> None:
        """Prepare these documents, if that can be done once and kept. `tick(done, of)` follows each document."""
