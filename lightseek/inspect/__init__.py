"""Look inside a model: which stages ran, where it looked, what each layer would say, what a part is needed for.

from lightseek.inspect import attention_on_page, observe
attention_on_page(observe(model, picture, mode="small")).picture(0).save("first-letter.png")
"""

from importlib import import_module
from typing import Any

NAMES = {
    "attention": ["attention_in_encoder", "attention_on_page"],
    "interventions": ["EDITS", "attribution", "intervene", "patching", "record", "replace"],
    "logits": ["confidence", "lens"],
    "pictures": ["experts_of", "experts_picture", "stage_picture"],
    "places": ["image_places"],
    "reading": ["Reading", "observe", "reread"],
}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use, because importing this package should not load PyTorch."""
    for module, names in NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
