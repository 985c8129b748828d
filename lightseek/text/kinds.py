"""The prompts and the guards against repetition by name. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

IMAGE_TAG = "<image>"  # where a page goes in a prompt
PROMPTS = Registry(
    "prompt",
    {
        "ocr": "<image>\nFree OCR. ",
        "markdown": "<image>\n<|grounding|>Convert the document to markdown. ",
        "figure": "<image>\nParse the figure. ",
        "summarize": "<image>\nSummarize. ",  # not in the reference code; `--task summarize` trains it
        "continue": "<image>\nContinue. ",  # neither is this; `--task continue` trains it
        "extract": "<image>\nExtract as JSON. ",  # nor this; `extract` and a schema ask for it
    },
)

# Guard -> a function (tokenizer) that returns it, or None for no guard. `text/ngrams.py` has them.
GUARDS = Registry(
    "guard",
    {
        "official": "lightseek.text.ngrams:official_guard",
        "vllm": "lightseek.text.ngrams:vllm_guard",
        "none": "lightseek.text.ngrams:no_guard",
    },
)
