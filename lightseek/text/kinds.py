"""The prompts by name. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

IMAGE_TAG = "<image>"  # where a page goes in a prompt
PROMPTS = Registry(
    "prompt",
    {
        "ocr": "<image>\nFree OCR. ",
        "markdown": "<image>\n<|grounding|>Convert the document to markdown. ",
        "figure": "<image>\nParse the figure. ",
        "summarize": "<image>\nSummarize. ",  # not in the reference code; `--task summarize` trains it
    },
)
