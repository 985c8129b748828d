"""The settings from which a context maker is built."""

from dataclasses import dataclass

from lightseek.data.context.vision_cache import VisionCache
from lightseek.model.config import OCRConfig
from lightseek.page.spec import PageSpec
from lightseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ContextSpec:
    """All settings that a context maker may need. Each kind takes the ones that it uses."""

    config: OCRConfig
    tokenizer: Tokenizer
    task: str
    page: PageSpec
    cache: VisionCache | None = None
