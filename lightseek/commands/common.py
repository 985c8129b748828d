"""The parts that several commands share: the arguments of the model, opening documents and models, and output.

Nothing here imports PyTorch before a command runs, so that the answer to `--help` and to bad arguments comes at once.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.commands.arguments import Parser, add_settings
from lightseek.model.kinds import VISION_EDITS
from lightseek.text.kinds import GUARDS, IMAGE_TAG, PROMPTS
from lightseek.tools.streams import takes_unicode

if TYPE_CHECKING:
    from PIL.Image import Image

    from lightseek.page.render import RenderedPage, Rendering
    from lightseek.text.ngrams import NgramGuard
    from lightseek.text.post import Writer
    from lightseek.text.tokenizer import Tokenizer
    from lightseek.weights.loading import LightSeekOCR

WIDTH = 132  # characters: the width of a table that goes into a file or a pipe
EPILOG = "To try the official sizes without the official weights: `formula` writes a checkpoint with made-up values."


def open_model(arguments: argparse.Namespace) -> "LightSeekOCR":
    """Load the model that the flags of `add_model` describe. Its adapter, if it has one, is merged where possible.

    Its weights are packed for this machine (weights/pack.py). If the command has the flag --eval-vision, the model gets
    that edit of its vision tokens.
    """
    from lightseek.weights.loading import load_model
    from lightseek.weights.pack import pack

    name = getattr(arguments, "eval_vision", None)
    edit = None if name is None else VISION_EDITS.call(name, seed=arguments.seed)  # a mistake shows before loading
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
    pack(model, arguments.compile)
    if edit is not None:
        model.vision_edit = edit
    return model


class Pages:
    """The chosen pages of a document, drawn one at a time: memory does not grow with the length of a PDF.

    `numbers` are the numbers of these pages in the document, counted from 1.
    """

    def __init__(
        self,
        path: Path,
        arguments: argparse.Namespace,
        mode: str | None = None,
        letters: tuple[int, int] | None = None,
    ) -> None:
        """Open a document and tell on stderr which characters the font could not draw.

        With a `mode`, a text is drawn for it, in `letters` (smallest and largest size in pixels) that the model reads.
        Raises ValueError if the document has none of the pages of `--page-range`, or too many pages.
        """
        from lightseek.page.pdf import check_count
        from lightseek.page.render import DEFAULT_STYLE, MAX_PAGES, is_text, open_file, page_style, render_file

        chosen = getattr(arguments, "page_range", None)
        if is_text(path):
            rendering = render_file(path, page_style(mode) if mode else DEFAULT_STYLE, letters=letters)
            self._tell(path, rendering, mode)
            count, self.draw = len(rendering.pages), lambda number: rendering.pages[number - 1]
        else:
            file = open_file(path, arguments.password)
            count, self.draw = len(file), lambda number: _drawn(file.draw(number - 1))
        self.numbers = [n for n in range(1, count + 1) if not chosen or any(low <= n <= high for low, high in chosen)]
        if not self.numbers:
            raise ValueError(f"{path} has {count} page(s), counted from 1: there is none of --page-range")
        check_count(path, len(self.numbers), count, MAX_PAGES)

    def __iter__(self) -> "Iterator[RenderedPage]":
        return map(self.draw, self.numbers)

    @staticmethod
    def _tell(path: Path, rendering: "Rendering", mode: str | None) -> None:
        if mode and rendering.style:
            style, count = rendering.style, len(rendering.pages)
            pages = f"{count} pages" if count > 1 else "1 page"
            size = f"{style.width} x {style.height} pixels"
            say(f"{path}: drawn on {pages} of {size} in letters of {style.font_size} pixels")
        if rendering.missing_glyphs:
            say(f"{path}: the font has no glyph for {' '.join(rendering.missing_glyphs)}")


def _drawn(image: "Image") -> "RenderedPage":
    from lightseek.page.render import RenderedPage

    return RenderedPage(image, "")


class Failures:
    """Tells which files failed on stderr and counts them, so that one bad file does not stop the work on the others."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, error: Exception) -> None:
        from lightseek.tools.console import fail

        fail(error)
        self.count += 1

    @contextmanager
    def of(self, path: Path, place: str = "") -> "Iterator[None]":
        """Catch an error of this file; `place` says where in the file it was if the error does not name the file."""
        try:
            yield
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            self.tell(error if str(path) in str(error) else ValueError(f"{path}{place}: {error}"))

    @property
    def code(self) -> int:
        """The exit code of the command."""
        return 2 if self.count else 0


def full_prompt(prompt: str) -> str:
    """Return the prompt with this name, or the user's own prompt. If it lacks `<image>`, that is put in front."""
    prompt = PROMPTS.get(prompt, prompt)
    return prompt if IMAGE_TAG in prompt else f"{IMAGE_TAG}\n{prompt}"


def show(table: Any) -> None:
    """Print a rich table on stdout, in the width of the terminal or, without a terminal, of `WIDTH` characters."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def print_json(value: Any) -> None:
    """Print JSON on stdout, with escapes for what stdout cannot write."""
    print(json.dumps(value, ensure_ascii=not takes_unicode()))


def say(message: str) -> None:
    """Print a line on stderr, because stdout is for results."""
    print(message, file=sys.stderr)


def add(commands: Any, run: Callable[[argparse.Namespace], None], about: str) -> Parser:
    """Add a command that calls `run` and has its name, and return its parser."""
    command = commands.add_parser(run.__name__, help=about, description=about, epilog=EPILOG)
    command.set_defaults(run=run)
    return command


def add_input(command: Parser) -> None:
    """Add the flags of the mode, of the edit of the vision tokens and of the prompt."""
    add_settings(command, mode="base", eval_vision=None)
    command.add_argument(
        "--prompt",
        default="ocr",
        metavar="X",
        help=f"what to ask for: {', '.join(PROMPTS)}, or your own words (default: ocr)",
    )


def add_files(command: Parser, several: bool = True) -> None:
    """Add how files are opened. A command that takes one page has its own flag for which one."""
    command.add_argument("--password", metavar="X", help="the password of encrypted PDF files")
    if several:
        command.add_argument(
            "--page-range",
            type=page_range,
            metavar="A-B",
            help="only these pages of each file, counted from 1, such as 3-7,12 or 20- (default: all)",
        )


def page_range(text: str) -> list[tuple[int, float]]:
    """Parse `3-7,12,20-` into the first and the last number of each part."""
    found: list[tuple[int, float]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)(?:(-)(\d*))?\s*", part)
        first = int(match[1]) if match else 0
        last = float(match[3] or "inf") if match and match[2] else float(first)
        if not match or last < first:
            raise argparse.ArgumentTypeError(f"{text!r}: pages are numbers from 1 on, such as 3-7,12 or 20-")
        found.append((first, last))
    return found


def add_guard(command: Parser) -> None:
    """Add the guard against repetition that `guard_of` returns."""
    command.add_argument(
        "--no-repeat-ngram",
        type=guard_name,
        metavar="X",
        help=f"the guard against repetition: {GUARDS.choices}, or a number n: no n tokens may come twice "
        "(default: official; n = 80 for models such as nano whose tokens are characters)",
    )
    command.add_argument(
        "--ngram-window", type=int, metavar="N", help="the guard looks at the last N tokens only (default: its own)"
    )
    command.add_argument(
        "--ngram-exempt",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a token that the guard never forbids, such as '<td>'; may be given several times",
    )


def guard_name(text: str) -> str:
    if not text.isdecimal():
        try:
            GUARDS.check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, or a number of tokens") from None
    return text


def guard_of(arguments: argparse.Namespace, tokenizer: "Tokenizer") -> "NgramGuard | None":
    from lightseek.text.ngrams import find_guard

    return find_guard(arguments.no_repeat_ngram, tokenizer, arguments.ngram_window, arguments.ngram_exempt)


def add_model(command: Parser) -> None:
    """Add the flags of the model that `open_model` reads."""
    command.add_argument("--adapter", metavar="DIR|HUB_ID", help="a LoRA adapter for the model, in the format of peft")
    command.add_argument(
        "--device", metavar="X", help="the device: cpu, cuda, cuda:1 or mps (default: a CUDA device if there is one)"
    )
    add_settings(command, model=None, quantize=None, dtype=None)
    add_compile(command)
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the seed for random numbers (default: 0)")


def add_post(command: Parser) -> None:
    """Add the flags of a second model, which `writer_of` loads."""
    command.add_argument(
        "--post",
        metavar="hf:ID",
        help="a causal language model of transformers (hub id or folder) that writes the JSON from the text of the "
        "pages",
    )
    command.add_argument("--post-adapter", metavar="DIR", help="an adapter of peft for the model of --post")


def writer_of(arguments: argparse.Namespace) -> "Writer | None":
    """Load the model of `--post`, if there is one. Raises ValueError for an adapter alone."""
    if arguments.post is None:
        if arguments.post_adapter:
            raise ValueError("--post-adapter is an adapter of the model that --post names")
        return None
    from lightseek.text.post import load_writer

    return load_writer(arguments.post, arguments.post_adapter, arguments.device)


def add_compile(command: Parser) -> None:
    """Add the flag for the loops in C (weights/products.c, model/grid_attention.c)."""
    command.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compute with loops in C, compiled once (default: on a CPU with AVX512-VNNI, if there is a C compiler)",
    )
