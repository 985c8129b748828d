"""`python -m lightseek formula`: writes a checkpoint of full size with made-up values."""

import argparse
from pathlib import Path
from typing import Any

from lightseek.commands.arguments import add_settings
from lightseek.commands.common import add, say
from lightseek.model.config import PRESETS


def formula(arguments: argparse.Namespace) -> None:
    """Write a checkpoint in the official layout. Its values are computed from the names of the tensors."""
    from lightseek.model.config import OCRConfig
    from lightseek.text.tokenizer import Tokenizer
    from lightseek.tools.devices import find_dtype
    from lightseek.weights.formula import write_checkpoint

    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ValueError(f"{arguments.out} is there already: give an empty or a new folder")
    config = OCRConfig.preset(arguments.preset)
    write_checkpoint(arguments.out, config, find_dtype(arguments.dtype), progress=True)
    # nano's tokenizer also fits the official sizes: its ids are in every vocabulary, and the values mean nothing.
    Tokenizer.nano().save(arguments.out / "tokenizer.json")
    say(f"{arguments.out} has the sizes of {arguments.preset}, nano's tokenizer, and values that mean nothing")


def add_parser(commands: Any) -> None:
    command = add(commands, formula, "write a checkpoint of full size with made-up values")
    command.add_argument(
        "--preset",
        choices=PRESETS,
        default="deepseek-ocr",
        help="the sizes of the model (default: deepseek-ocr, which takes 6.7 GB)",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    add_settings(command, dtype="bfloat16")
