"""`python -m lightseek read`: reads the text on pages."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightseek.commands.common import add, add_input, add_model, full_prompt, open_model, open_pages, say


def read(arguments: argparse.Namespace) -> None:
    """Print the text of each page on stdout, and its tokens and times on stderr.

    A text file is first drawn on as many pages as it needs in this mode. The texts of its pages are printed as one.
    """
    from lightseek.page.render import check_file, is_text
    from lightseek.text.generate import read as read_pages

    for path in arguments.files:  # a wrong name shows before a large model is loaded
        check_file(path)
    model, prompt = open_model(arguments), full_prompt(arguments.prompt)
    letters = model.config.letters
    pages = [
        (path, *page) for path in arguments.files for page in enumerate(open_pages(path, arguments.mode, letters), 1)
    ]
    titles = len(pages) > 1 and not (len(arguments.files) == 1 and is_text(arguments.files[0]))
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_p", "beams", "seed")}
    results = []
    for path, number, page in pages:
        if titles and not arguments.json:
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


def add_parser(commands: Any) -> None:
    command = add(commands, read, "read documents: pictures, PDFs, text or Markdown (rendered to pages first)")
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="pictures, PDFs, text or Markdown files; each page gives one result",
    )
    add_input(command)
    add_model(command)
    command.add_argument(
        "--max-new-tokens",
        type=int,
        default=512,
        metavar="N",
        help="the longest text of a page, in tokens (default: 512)",
    )
    command.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="X",
        help="the temperature of sampling; 0 takes the likeliest token (default: 0)",
    )
    command.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="X",
        help="sample from the likeliest tokens that have this probability together (default: 1)",
    )
    command.add_argument(
        "--beams", type=int, default=1, metavar="N", help="the number of texts that beam search keeps (default: 1)"
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument("--stream", action="store_true", help="show the text while it is written")
    output.add_argument("--json", action="store_true", help="print text, tokens, finish reason and timings as JSON")
