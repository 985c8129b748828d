"""`python -m lightseek export`: makes a folder ready for another program that runs the model."""

import argparse
from pathlib import Path
from typing import Any

from lightseek.commands.common import add

# vLLM's JSON may otherwise have white space without end.
COMPACT = """--structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'"""
GUARD = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"


def export(arguments: argparse.Namespace) -> None:
    """Check a model or an adapter, write the files that are missing beside it, and print the command that serves it."""
    from lightseek.weights.lora_config import CONFIG as ADAPTER
    from lightseek.weights.vllm import RANKS, check_adapter, check_model, write_files

    folder = arguments.folder
    if (folder / ADAPTER).is_file():
        rank = check_adapter(folder)
        most = next((size for size in RANKS if size >= rank), None)
        if most is None:
            raise ValueError(f"{folder}: the rank is {rank}, and vLLM's largest is {RANKS[-1]}")
        print(f"{folder}: an adapter of the decoder, of rank {rank}")
        print(f"vllm serve MODEL --enable-lora --max-lora-rank {most} --lora-modules {folder.name}={folder}")
        return
    config = check_model(folder)
    print(f"{folder}: all tensors are those of vLLM's class ({config.decoder.layers} layers, {config.dtype})")
    for line in write_files(folder, config):
        print(line)
    flags = f"--logits-processors {GUARD} {COMPACT} --no-enable-prefix-caching --mm-processor-cache-gb 0"
    print(f"vllm serve {folder} {flags}")


def add_parser(commands: Any) -> None:
    command = add(commands, export, "make a folder ready for vLLM")
    command.add_argument("folder", type=Path, metavar="DIR", help="a model in the official layout, or a LoRA adapter")
    command.add_argument(
        "--for", dest="target", required=True, choices=("vllm",), help="the program that runs it; it is not needed here"
    )
