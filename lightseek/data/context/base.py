"""The base class of context makers. A context maker turns a document into the form in which the decoder sees it.

    document -> make -> Shown -> views: images or vectors that fill the image positions of the prompt
                              -> ids: token ids that are part of the prompt

There are three kinds: drawn pages (`pages.py`), encoded pages (`cached.py`) and the document's own tokens (`text.py`).
An encoder that shortens the text, by mean pooling or by a convolution, could be a fourth: its vectors would be the
`views`. `lightseek.data.kinds.CONTEXTS` lists the kinds.
"""

import math
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
    """The part of a document that the decoder sees, and the amounts that were left out because there was no room."""

    text: str  # the part of the text that the decoder sees
    dropped_characters: int = 0
    dropped_pages: int = 0  # pictures that were left out, of a document that came as pictures
    missing_glyphs: dict[str, int] = field(default_factory=dict)  # characters the font could not draw


@dataclass
class Truncation:
    """How much was left out of all documents so far. Each document is counted once."""

    documents: int = 0  # documents of which something was left out
    characters: int = 0
    pages: int = 0  # pictures, of documents that came as pictures


class ContextMaker(ABC):
    """Makes the context of a document, and counts what was left out. Equal documents give equal contexts."""

    def __init__(self) -> None:
        self.missing_glyphs: Counter[str] = Counter()  # characters the font could not draw, over all documents so far
        self.truncated = Truncation()
        self._cut: set[str] = set()  # the names of the documents that `truncated` has counted

    def __call__(self, document: Document) -> Shown:
        """Make the context and count what was left out. Raises ValueError as `make` does."""
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
        """Make the context without counting. Raises ValueError, naming the document, if nothing can be shown of it."""

    def views(self, shown: Shown) -> "list[Page]":
        """Return the pages that the model takes beside the prompt. The default is an empty list."""
        return []

    def ids(self, shown: Shown) -> list[int]:
        """Return the token ids that become part of the prompt. The default is an empty list."""
        return []

    @abstractmethod
    def positions(self, document: Document, tokens_per_character: float) -> int:
        """Estimate how many positions of the decoder the context fills. Nothing is drawn for the estimate."""

    @abstractmethod
    def visible(self, document: Document) -> str:
        """Return the text that the decoder sees, without making more of the context than that needs."""

    def check(self, document: Document) -> int | float:
        """Return a number of positions that the context never exceeds, without making it. The default is infinity.

        Raises ValueError, naming the document, for what shows quickly that no context can be made of it.
        """
        return math.inf

    @abstractmethod
    def pictures(self, document: Document) -> list[Image.Image]:
        """Return the document as pages, for people to look at."""

    def fill(  # noqa: B027 - most kinds have no cache
        self, documents: Sequence[Document], tick: Callable[[int, int], None] | None = None
    ) -> None:
        """Put these documents into the cache, if this kind has one. `tick(done, of)` is called after each document."""
