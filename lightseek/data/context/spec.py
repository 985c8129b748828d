"""The settings from which a context maker is built."""

from dataclasses import dataclass

from lightseek.data.context.pages import MOST_PAGES
from lightseek.data.context.vision_cache import VisionCache
from lightseek.model.config import OCRConfig
from lightseek.page.modes import Mode
from lightseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ContextSpec:
    """All that a context maker may be built from. Each kind takes what it needs."""

    config: OCRConfig
    tokenizer: Tokenizer
    task: str
    mode: str | int | Mode
    font: str
    most_pages: int = MOST_PAGES
    cache: VisionCache | None = None
