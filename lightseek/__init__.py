"""LightSeek: DeepSeek-OCR from scratch, to read, to trace and to ablate.

    model = lightseek.LightSeekOCR.from_pretrained("deepseek-ai/DeepSeek-OCR")

The names below load on first use, so `import lightseek` and `--help` do not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightseek.config import OCRConfig
    from lightseek.model.ocr import LightSeekOCR
    from lightseek.pages import PageViews

__version__ = "0.1.0"

_HOMES = {
    "LightSeekOCR": "lightseek.model.ocr",
    "PageViews": "lightseek.pages",
    "OCRConfig": "lightseek.config",
}
_MODULES = ("config", "generate", "modes", "processing", "render", "trace")
__all__ = ["LightSeekOCR", "OCRConfig", "PageViews"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"lightseek.{name}")
    raise AttributeError(f"module 'lightseek' has no attribute {name!r}")
