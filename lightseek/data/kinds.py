"""The kinds of data by name: tasks, contexts, sources of documents, and corruptions. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

# Task -> the fields of a document that it needs. `data/document.py` checks them.
TASKS = Registry(
    "task",
    {
        "ocr": ("text",),
        "summarize": ("summary",),
        "answer": ("question", "summary"),
        "continue": ("text", "summary"),
        "recall": ("question", "summary"),
    },
)

# Task -> a function (document) that makes a document of this task from any document with a text. `data/tasks.py`.
DERIVED = Registry(
    "derived task",
    {"continue": "lightseek.data.tasks:continuation", "recall": "lightseek.data.tasks:recall"},
)

# Context -> a function that builds a context maker (`data/context/base.py`) from a `ContextSpec`.
CONTEXTS = Registry(
    "context",
    {
        "vision": "lightseek.data.context.cached:vision_context",
        "text": "lightseek.data.context.text:text_context",
        "truncated": "lightseek.data.context.text:truncated_context",
        "meantext": "lightseek.data.context.text:shortened_context",
        "conv1d": "lightseek.data.context.text:shortened_context",
    },
)
PAGELESS = ("text", "truncated", "meantext", "conv1d")  # of these, the model sees no pages

# Source -> a function (split, limit, seed, max_characters) that returns documents. The data sets of the hub are in
# `sources/registry.py`, and the path of a file or a folder is a source too.
SOURCES = Registry(
    "source of documents",
    {
        "unseen": "lightseek.data.sources.unseen:load",
        "synthetic": "lightseek.data.sources.synthetic:load",
        "pydoc": "lightseek.data.sources.pydoc:documents",
        "passages": "lightseek.data.sources.pydoc:passages",
        "aclsum": "lightseek.data.sources.aclsum:papers",
        "aclsum-sentences": "lightseek.data.sources.aclsum:marked",
    },
)

# Corruption -> a function (text, draw, settings...) that returns the text with less language in it.
_KINDS_OF_TEXT = ("natural", "scrambled", "distorted", "shuffled", "replaced", "random")
CORRUPTIONS = Registry(
    "kind of text", {name: f"lightseek.data.corruption:{name}" for name in _KINDS_OF_TEXT}, settings=True
)

FORMATS = ("jsonl", "parquet")  # of the files of a prepared folder
