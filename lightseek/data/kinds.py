"""Every kind of what documents go through, by name. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

# Each is a function that builds a context maker (`data/context/base.py`) from a `ContextSpec`.
CONTEXTS = Registry(
    "context",
    {
        "vision": "lightseek.data.context.cached:vision_context",
        "text": "lightseek.data.context.text:text_context",
    },
)
