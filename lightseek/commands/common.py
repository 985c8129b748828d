"""The parts that several commands share: the arguments of the model, opening documents and models, and output.

Nothing here imports PyTorch before a command runs, so that the answer to `--help` and to bad arguments comes at once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.commands.arguments import Parser, add_settings
from lightseek.text.kinds import IMAGE_TAG, PROMPTS

if TYPE_CHECKING:
    from lightseek.page.render import RenderedPage
    from lightseek.weights.loading import LightSeekOCR

WIDTH = 132  # characters: the width of a table that goes into a file or a pipe
EPILOG = "To try the official sizes without the official weights: `formula` writes a checkpoint with made-up values."


def open_model(arguments: argparse.Namespace) -> "LightSeekOCR":
    """Load the model that the flags of `add_model` describe. Its adapter, if it has one, is merged where possible."""
    from lightseek.weights.loading import load_model

    watched = sys.stdout.isatty()  # the progress bar goes to stdout, and must not get into a file of results
    model = load_model(
        arguments.model,
        arguments.device,
        arguments.dtype,
        progress=watched,
        adapter=arguments.adapter,
        quantize=arguments.quantize,
    )
    if arguments.adapter and not arguments.quantize:
        from lightseek.weights.lora import merge

        merge(model)  # a command does not switch adapters, and a merged model is faster
    return model


def open_pages(path: Path, mode: str | None = None, letters: tuple[int, int] | None = None) -> "list[RenderedPage]":
    """Return the pages of a document, and say on stderr which characters the font could not draw.

    With a `mode`, a text is drawn on pages for that mode. `letters` are the smallest and the largest font size that
    the model reads, in pixels.
    """
    from lightseek.page.render import DEFAULT_STYLE, page_style, render_file

    rendering = render_file(path, page_style(mode) if mode else DEFAULT_STYLE, letters=letters)
    if mode and rendering.style:
        style, count = rendering.style, len(rendering.pages)
        pages = f"{count} pages" if count > 1 else "1 page"
        say(f"{path}: drawn on {pages} of {style.width} x {style.height} pixels in letters of {style.font_size} pixels")
    if rendering.missing_glyphs:
        say(f"{path}: the font has no glyph for {' '.join(rendering.missing_glyphs)}")
    return rendering.pages


def full_prompt(prompt: str) -> str:
    """Return the prompt with this name, or the user's own prompt. If it lacks `<image>`, that is put in front."""
    prompt = PROMPTS.get(prompt, prompt)
    return prompt if IMAGE_TAG in prompt else f"{IMAGE_TAG}\n{prompt}"


def show(table: Any) -> None:
    """Print a rich table on stdout, in the width of the terminal or, without a terminal, of `WIDTH` characters."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def say(message: str) -> None:
    """Print a line on stderr, because stdout is for results."""
    print(message, file=sys.stderr)


def add(commands: Any, run: Callable[[argparse.Namespace], None], about: str) -> Parser:
    """Add a command that calls `run` and has its name, and return its parser."""
    command = commands.add_parser(run.__name__, help=about, description=about, epilog=EPILOG)
    command.set_defaults(run=run)
    return command


def add_input(command: Parser) -> None:
    """Add the flags of the mode and of the prompt."""
    add_settings(command, mode="base")
    command.add_argument(
        "--prompt",
        default="ocr",
        metavar="X",
        help=f"what to ask for: {', '.join(PROMPTS)}, or your own words (default: ocr)",
    )


def add_model(command: Parser) -> None:
    """Add the flags of the model that `open_model` reads."""
    command.add_argument("--adapter", metavar="DIR|HUB_ID", help="a LoRA adapter for the model, in the format of peft")
    command.add_argument(
        "--device", metavar="X", help="the device: cpu, cuda, cuda:1 or mps (default: a CUDA device if there is one)"
    )
    add_settings(command, model=None, quantize=None, dtype=None)
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the seed for random numbers (default: 0)")
