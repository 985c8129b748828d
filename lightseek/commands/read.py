"""`python -m lightseek read`: reads the text on pages."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lightseek.commands.common import (
    Failures,
    Pages,
    add,
    add_files,
    add_guard,
    add_input,
    add_model,
    full_prompt,
    guard_of,
    open_model,
    print_json,
    say,
)


def read(arguments: argparse.Namespace) -> int:
    """Print the text of each page on stdout, and its tokens and times on stderr.

    A text file is first drawn on as many pages as it needs in this mode. The texts of its pages are printed as one.
    A file or page that cannot be read is named on stderr, and the others are read; the exit code is then 2.
    """
    from lightseek.page.render import check_file, is_text
    from lightseek.page.views import PageViews, page_views
    from lightseek.text.generate import read as read_pages

    failures, files = Failures(), []
    for path in arguments.files:  # a wrong name is told before a large model is loaded
        with failures.of(path):
            check_file(path)
            files.append(path)
    if not files:
        return failures.code
    model, prompt = open_model(arguments), full_prompt(arguments.prompt)

    def views() -> Iterator[tuple[Path, int, PageViews]]:
        for path in files:
            numbers: list[int] = []
            with failures.of(path):
                pages = Pages(path, arguments, arguments.mode, model.config.letters)
                numbers = pages.numbers
            for number in numbers:
                found = None
                with failures.of(path, f", page {number}"):
                    found = page_views(pages.draw(number).image, arguments.mode)
                if found is not None:
                    yield path, number, found

    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_p", "beams", "seed")}
    options["no_repeat_ngram"] = guard_of(arguments, model.tokenizer)
    every = views()
    first = list(islice(every, 2))  # page 1 is read when page 2 is drawn, and not when all are
    titles = len(arguments.files) > 1 or (len(first) > 1 and not is_text(files[0]))
    results = []
    for path, number, page in chain(first, every):
        if titles and not arguments.json:
            print(f"--- {path}, page {number} ---", flush=True)
        decoder = model.tokenizer.stream(keep_special=True)
        if arguments.stream:
            options["on_token"] = lambda row, token, of=decoder: print(of.push(token), end="", flush=True)
        (result,) = read_pages(model, [page], prompt, arguments.mode, **options)
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
        print_json(about | {"pages": results})
    return failures.code


def add_parser(commands: Any) -> None:
    command = add(commands, read, "read documents: pictures, PDFs, text or Markdown (rendered to pages first)")
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="pictures, PDFs, text or Markdown files; each page gives one result",
    )
    add_files(command)
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
    add_guard(command)
    output = command.add_mutually_exclusive_group()
    output.add_argument("--stream", action="store_true", help="show the text while it is written")
    output.add_argument("--json", action="store_true", help="print text, tokens, finish reason and timings as JSON")
