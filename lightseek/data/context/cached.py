"""Takes a document's encoded pages from a vision cache. A page is drawn only if the cache does not have it yet.

On a CPU, drawing a page takes a third of the time that the nano decoder takes to learn from it. So the cache spares a
run the drawing as well as the encoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from lightseek.data.context.pages import PageMaker, Pages
from lightseek.data.context.spec import ContextSpec
from lightseek.data.context.vision_cache import VisionCache, digest
from lightseek.data.document import Document
from lightseek.page.spec import PageSpec
from lightseek.page.views import EncodedPage, Page

# A text that is drawn to see whether this machine's fonts give the same pixels as before.
PROBE = "How vexingly quick daft zebras jump! 0123456789 (äöü, ß; \u201cé\u201d): fi fl ffi.\n\n" * 12


@dataclass(frozen=True)
class CachedPages(Pages):
    """Pages that are encoded already. If they came from the cache, they were not drawn, and `images` is empty."""

    encoded: list[EncodedPage] = field(default_factory=list)


def vision_context(spec: ContextSpec) -> PageMaker:
    """Return the context maker of the kind `vision`: it gives encoded pages if the spec has a cache."""
    if spec.cache:
        return CachedPageMaker(spec.page, spec.cache)
    return PageMaker(spec.page, spec.config.arithmetic)


class CachedPageMaker(PageMaker):
    """Makes the same pages as `PageMaker`, but encoded. It does not draw pages that the cache has."""

    def __init__(self, spec: PageSpec, cache: VisionCache) -> None:
        super().__init__(spec, cache.model.config.arithmetic)
        self.cache = cache
        # A changed font file or library gives other pixels here, so pages that the old one drew are not used.
        sample = [image.tobytes() for image in self.render(PROBE).images]
        noise = (spec.noise, spec.seed) if spec.noise else ()
        letters = ("letters", spec.letters) if spec.letters else ()
        names = [item.name for item in fields(Pages)]
        self.renderer = digest(self.mode, self.style, spec.max_pages, names, *sample, *noise, *letters)

    def make(self, document: Document) -> CachedPages:
        return self.known(document) or self.encode(document)

    def views(self, pages: CachedPages) -> list[Page]:
        return list(pages.encoded)

    def known(self, document: Document) -> CachedPages | None:
        """Return the document's pages, or None if the cache does not have them all."""
        record = self.cache.recall(self.key(document))
        encoded = [self.cache.load(key) for key in record.pop("keys")] if record else [None]
        return None if None in encoded else CachedPages([], **record, encoded=encoded)

    def encode(self, document: Document) -> CachedPages:
        """Draw the pages and put them into the cache. Raises ValueError as `PageMaker` and `VisionCache.page` do."""
        drawn = self.draw(document)
        keys, encoded = zip(*(self.cache.page(image, self.mode) for image in drawn.images), strict=True)
        rest = {item.name: getattr(drawn, item.name) for item in fields(drawn) if item.name != "images"}
        self.cache.note(self.key(document), {"keys": keys, **rest})
        return CachedPages(drawn.images, **rest, encoded=list(encoded))

    def key(self, document: Document) -> str:
        """Return the key of a document's pages: a digest of the renderer, the text and the pictures' signatures."""
        return digest(self.renderer, document.text, *(signature(picture) for picture in document.images))

    def fill(self, documents: Sequence[Document], tick: Callable[[int, int], None] | None = None) -> None:
        """Put the pages of all these documents into the cache. `tick(done, of)` is called after each document.

        Raises ValueError when the pages won't fit. It estimates that from the first document that is encoded.
        """
        before, missing = self.cache.bytes, 0
        for done, document in enumerate(documents, start=1):
            if not self.known(document):
                self.encode(document)
                missing += 1
                if missing == 1:
                    self.cache.check_room((self.cache.bytes - before) * (len(documents) - done))
            if tick:
                tick(done, len(documents))


def signature(picture: Path | bytes) -> bytes | tuple[str, int, int]:
    """Return what identifies a picture: its bytes, or the path, size and time of its file, which is not read."""
    if isinstance(picture, bytes):
        return picture
    path = Path(picture).resolve()
    state = path.stat() if path.is_file() else None  # whoever opens the file reports that it is missing
    return str(path), state.st_size if state else 0, state.st_mtime_ns if state else 0
