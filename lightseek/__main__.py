"""The command line: read documents, trace a page, list the modes, write a full-size checkpoint without the weights.

    python -m lightseek read page.png doc.pdf notes.txt --mode gundam
    python -m lightseek trace page.png --mode base
    python -m lightseek modes
    python -m lightseek formula --preset deepseek-ocr --out full/

`--help` and bad arguments answer before PyTorch is loaded: whatever needs it is imported inside a function.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.config import PRESETS
from lightseek.modes import MODES, find_mode, positions, vision_tokens
from lightseek.options import Parser

if TYPE_CHECKING:
    from lightseek.model.ocr import LightSeekOCR
    from lightseek.render import RenderedPage

DTYPES = ("float32", "bfloat16", "float16")
WIDTH = 132  # of tables that go into a file or a pipe
EPILOG = "Full sizes without the weights: `formula` writes made-up ones; then `--model` with their folder."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line on stderr about what the user can put right."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        from lightseek.screen import fail

        filename = getattr(error, "filename", None)  # the system's errors start with "[Errno 2]"
        return fail(ValueError(f"{filename}: {error.strerror}") if filename else error)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        from lightseek.screen import fail

        return fail(ValueError(f"{error}; try a smaller --mode, --dtype bfloat16 or --device cpu"))


def read(arguments: argparse.Namespace) -> None:
    """Text of every page, one after the other, on stdout; what each took, on stderr."""
    from lightseek.generate import read as read_pages

    pages = [(path, *page) for path in arguments.files for page in enumerate(open_pages(path), 1)]
    model, prompt = open_model(arguments), full_prompt(arguments.prompt)
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_p", "beams", "seed")}
    results = []
    for path, number, page in pages:
        if len(pages) > 1 and not arguments.json:
            print(f"--- {path}, page {number} ---", flush=True)
        decoder = model.tokenizer.stream(keep_special=True)
        if arguments.stream:
            options["on_token"] = lambda row, token, of=decoder: print(of.push(token), end="", flush=True)
        (result,) = read_pages(model, [page.image], prompt, arguments.mode, **options)
        if not arguments.json:
            print(decoder.flush() if arguments.stream else result.text)
        took, written = result.timings, len(result.tokens)
        say(
            f"{path}, page {number}: {written} tokens ({result.finish_reason}); encoder {took.encode:.2f} s, "
            f"prompt {took.prefill:.2f} s, text {took.decode:.2f} s = {took.tokens_per_second:.1f} tokens/s"
        )
        results.append({"file": str(path), "page": number} | asdict(result))
    if arguments.json:
        about = {"model": arguments.model or "nano", "mode": arguments.mode, "prompt": prompt}
        print(json.dumps(about | {"pages": results}, ensure_ascii=False))


def trace(arguments: argparse.Namespace) -> None:
    import torch

    from lightseek.processing import image_positions, page_views, prompt_ids
    from lightseek.trace import trace as run

    page = pick_page(arguments.file, arguments.page)
    model = open_model(arguments)
    views = page_views(page.image, arguments.mode)
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else page.text
    if model.tokenizer is None:
        say("this checkpoint has no tokenizer.json: the prompt is the page alone, without text")
        ids = [model.config.bos_token_id] + [model.config.image_token_id] * image_positions(views)
    else:
        ids = prompt_ids(model.config, model.tokenizer, full_prompt(arguments.prompt), [image_positions(views)])
    result = run(
        model,
        torch.tensor([ids], device=model.device),
        [[views]],
        mode=arguments.mode,
        sizes=[page.image.size],
        text_tokens=[len(model.tokenizer.encode(text)) if text and model.tokenizer else None],
        warm_up=not arguments.cold,
    )
    if arguments.picture:
        result.save_picture(arguments.picture)
    if arguments.json:
        print(json.dumps({"model": arguments.model or "nano", "file": str(arguments.file)} | result.to_json()))
    else:
        show(result.table(inside=arguments.inside))


def modes(arguments: argparse.Namespace) -> None:
    """The table of modes; of the tiled ones, the smallest and the largest number of tiles."""
    rows = []
    for mode in MODES.values():
        for grid in [(2, 1), (3, 3)] if mode.tile else [(1, 1)]:
            tokens, places = vision_tokens(mode, grid), positions(mode, grid)
            tiles = "" if grid == (1, 1) else f"{grid[0]} x {grid[1]}"
            patches = tokens * 16
            rows.append({"mode": mode.name, "views": mode.description, "tiles": tiles, "patches": patches})
            rows[-1] |= {"tokens": tokens, "newlines": places - tokens - 1, "positions": places}
    if arguments.json:
        print(json.dumps(rows))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for title, value in rows[0].items():
        table.add_column(title, justify="right" if isinstance(value, int) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row.values()))
    show(table)


def formula(arguments: argparse.Namespace) -> None:
    """A checkpoint in the official layout whose values follow from the tensors' names."""
    from lightseek.config import OCRConfig
    from lightseek.devices import find_dtype
    from lightseek.formula import write_checkpoint
    from lightseek.tokenizer import Tokenizer

    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ValueError(f"{arguments.out} is there already: give an empty or a new folder")
    config = OCRConfig.preset(arguments.preset)
    write_checkpoint(arguments.out, config, find_dtype(arguments.dtype), progress=True)
    # nano's, also for the official sizes: its ids are in every vocabulary, and the values mean nothing anyway.
    Tokenizer.nano().save(arguments.out / "tokenizer.json")
    say(f"{arguments.out} has the sizes of {arguments.preset}, nano's tokenizer, and values that mean nothing")


def open_model(arguments: argparse.Namespace) -> "LightSeekOCR":
    from lightseek.loading import load_model

    watched = sys.stdout.isatty()  # the bar draws on stdout, where results go
    model = load_model(arguments.model, arguments.device, arguments.dtype, arguments.seed, progress=watched)
    if arguments.model is None:
        say("nano weights are random until train.py or ablate.py made some: give their folder with --model")
    return model


def open_pages(path: Path) -> "list[RenderedPage]":
    """Pages of a document; tells on stderr which characters the font could not draw."""
    from lightseek.render import render_file

    rendering = render_file(path)
    if rendering.missing_glyphs:
        say(f"{path}: the font has no glyph for {' '.join(rendering.missing_glyphs)}")
    return rendering.pages


def pick_page(path: Path, number: int) -> "RenderedPage":
    pages = open_pages(path)
    if not 1 <= number <= len(pages):
        raise ValueError(f"{path} has {len(pages)} page(s), counted from 1: there is no page {number}")
    return pages[number - 1]


def full_prompt(prompt: str) -> str:
    """A prompt by its name, or as it is; `<image>` goes first where it is not placed."""
    from lightseek.processing import IMAGE_TAG, PROMPTS

    prompt = PROMPTS.get(prompt, prompt)
    return prompt if IMAGE_TAG in prompt else f"{IMAGE_TAG}\n{prompt}"


def show(table: Any) -> None:
    """Print a rich table on stdout, wide enough where there is no terminal to fit."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def say(message: str) -> None:
    """One line to whoever watches; stdout is for results."""
    print(message, file=sys.stderr)


def parser() -> Parser:
    top = Parser(prog="python -m lightseek", description="DeepSeek-OCR from scratch: read pages, look inside.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    command = add(commands, read, "read documents: pictures, PDFs, text or Markdown (rendered to pages first)")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="one result per page")
    add_input(command)
    add_model(command)
    command.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="longest text (512)")
    command.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)")
    command.add_argument("--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this mass (1)")
    command.add_argument("--beams", type=int, default=1, metavar="N", help="beam search over this many texts (1)")
    output = command.add_mutually_exclusive_group()
    output.add_argument("--stream", action="store_true", help="show the text as it comes")
    output.add_argument("--json", action="store_true", help="text, tokens, finish reason and timings as JSON")

    command = add(commands, trace, "one page through the model, stage by stage")
    command.add_argument("file", type=Path, metavar="FILE", help="a picture, PDF, text or Markdown file")
    command.add_argument("--page", type=int, default=1, metavar="N", help="which page of it (1)")
    command.add_argument("--text", type=Path, metavar="FILE", help="the page's text, for the compression ratio")
    add_input(command)
    add_model(command)
    command.add_argument("--inside", action="store_true", help="also attention, MLP and router inside each block")
    command.add_argument("--cold", action="store_true", help="time the first pass, one-time costs included")
    command.add_argument("--picture", type=Path, metavar="FILE", help="draw time per box and load per expert")
    command.add_argument("--json", action="store_true", help="everything as JSON")

    command = add(commands, modes, "the modes and their token arithmetic")
    command.add_argument("--json", action="store_true")

    command = add(commands, formula, "write a checkpoint of full size with made-up values")
    command.add_argument("--preset", choices=PRESETS, default="deepseek-ocr", help="sizes (deepseek-ocr: 6.7 GB)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    command.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the values (bfloat16)")
    return top


def add(commands: Any, run: Callable[[argparse.Namespace], None], about: str) -> Parser:
    command = commands.add_parser(run.__name__, help=about, description=about, epilog=EPILOG)
    command.set_defaults(run=run)
    return command


def add_input(command: Parser) -> None:
    command.add_argument("--mode", type=mode_name, default="base", help=f"{', '.join(MODES)}, or tokens: 100 (base)")
    command.add_argument("--prompt", default="ocr", help="ocr, markdown, figure, summarize, or your own words (ocr)")


def add_model(command: Parser) -> None:
    command.add_argument("--model", metavar="DIR|HUB_ID", help="a checkpoint; without one, the small nano preset")
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps (a CUDA device if there is one)")
    command.add_argument("--dtype", choices=DTYPES, help="of the weights (the checkpoint's own)")
    command.add_argument("--seed", type=int, default=0, help="of random weights and of sampling (0)")


def mode_name(text: str) -> str:
    try:
        return find_mode(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
