"""LightSeek: DeepSeek-OCR from scratch, to read, to trace and to ablate.

    model = lightseek.LightSeekOCR.from_pretrained("deepseek-ai/DeepSeek-OCR")

The folders are the architecture figure, and each uses only those below it:

    commands      python -m lightseek: arguments, progress, one file a command
    serve         reading and summaries over HTTP, and the pages in the browser
    lab           ablations: a grid of runs, its results, what is published of them
    training      the one loop: what learns, the optimizer, the state of a run, several processes
    scores        predictions become figures with intervals
    inspect       look inside: traces, attention on the page, what a layer would say, interventions
    data          documents become examples
    weights       files become models and back: the official layout, adapters, quantized weights, nano
    text          tokens in and out: tokenizer, prompts, generation
    model         the boxes: square views become vision tokens, vision tokens become logits
    page          a document becomes pages, a page becomes square views
    tools         files, devices, memory, the console

The names below load on first use, so `import lightseek` and `--help` do not wait for PyTorch.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
__all__ = ["LightSeekOCR", "OCRConfig", "PageViews"]

_NAMES = {
    "LightSeekOCR": "lightseek.weights.loading",
    "OCRConfig": "lightseek.model.config",
    "PageViews": "lightseek.page.views",
}
# The short module names that docs/api.md promises, and where each one lives.
_MODULES = {
    "lightseek.config": "lightseek.model.config",
    "lightseek.generate": "lightseek.text.generate",
    "lightseek.loading": "lightseek.weights.loading",
    "lightseek.modes": "lightseek.page.modes",
    "lightseek.processing": "lightseek.text.prompts",
    "lightseek.render": "lightseek.page.render",
    "lightseek.trace": "lightseek.inspect.trace",
}


class _ShortNames(MetaPathFinder, Loader):
    """`import lightseek.modes` gives the module `lightseek.page.modes` itself, when it is asked for and not before."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return spec_from_loader(name, self) if name in _MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_MODULES[module.__name__])


sys.meta_path.append(_ShortNames())


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if f"lightseek.{name}" in _MODULES:
        return import_module(f"lightseek.{name}")
    raise AttributeError(f"module 'lightseek' has no attribute {name!r}")
