"""`python -m lightseek read`: reads the text on pages."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from rich.text import Text

    from lightseek.inspect.logits import Confidence

UNSURE = {0.5: "bold white on red", 0.9: "black on yellow"}  # a token below this probability is marked


def read(arguments: argparse.Namespace) -> int:
    """Print the text of each page on stdout, and its tokens and times on stderr.

    A text file is first drawn on as many pages as it needs in this mode. The texts of its pages are printed as one.
    A file or page that cannot be read is named on stderr, and the others are read; the exit code is then 2.
    """
    from lightseek.inspect.logits import confidence
    from lightseek.inspect.reading import reread
    from lightseek.page.render import check_file, is_text
    from lightseek.page.views import page_views
    from lightseek.text.generate import read as read_pages
    from lightseek.tools.console import console

    failures, files = Failures(), []
    for path in arguments.files:  # a wrong name is told before a large model is loaded
        with failures.of(path):
            check_file(path)
            files.append(path)
    if not files:
        return failures.code
    model, prompt = open_model(arguments), full_prompt(arguments.prompt)

    def drawn() -> Iterator[tuple[Path, int, Any, Any]]:
        """Yield (file, page number, picture, its views) of each page that can be read."""
        for path in files:
            numbers: list[int] = []
            with failures.of(path):
                pages = Pages(path, arguments, arguments.mode, model.config.letters)
                numbers = pages.numbers
            for number in numbers:
                found = None
                with failures.of(path, f", page {number}"):
                    picture = pages.draw(number).image
                    found = page_views(picture, arguments.mode)
                if found is not None:
                    yield path, number, picture, found

    if arguments.confidence and arguments.stream:
        raise ValueError("--confidence is known when the text is complete, so it can't be used with --stream")
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_p", "beams", "seed")}
    options["no_repeat_ngram"] = guard_of(arguments, model.tokenizer)
    every = drawn()
    first = list(islice(every, 2))  # page 1 is read when page 2 is drawn, and not when all are
    titles = len(arguments.files) > 1 or (len(first) > 1 and not is_text(files[0]))
    results = []
    for path, number, picture, page in chain(first, every):
        if titles and not arguments.json:
            print(f"--- {path}, page {number} ---", flush=True)
        decoder = model.tokenizer.stream(keep_special=True)
        if arguments.stream:
            options["on_token"] = lambda row, token, of=decoder: print(of.push(token), end="", flush=True)
        (result,) = read_pages(model, [page], prompt, arguments.mode, **options)
        sure = None
        if arguments.confidence and (result.tokens or result.finish_reason == "eos"):
            reading = reread(model, picture, page, arguments.mode, prompt, result.tokens, result.finish_reason)
            sure = confidence(reading)
        if sure and not arguments.json:
            console.print(coloured(sure), soft_wrap=True)
        elif not arguments.json:
            print(decoder.flush() if arguments.stream else result.text)
        took, written = result.timings, len(result.tokens)
        say(
            f"{path}, page {number}: {written} tokens ({result.finish_reason}); encoder {took.encode:.2f} s, "
            f"prompt {took.prefill:.2f} s, text {took.decode:.2f} s = {took.tokens_per_second:.1f} tokens/s"
        )
        told = {"confidence": sure.rows()} if sure else {}
        results.append({"file": str(path), "page": number} | asdict(result) | told)
    if arguments.json:
        about = {"model": arguments.model or "nano", "mode": arguments.mode, "prompt": prompt}
        print_json(about | {"pages": results})
    return failures.code


def coloured(sure: "Confidence") -> "Text":
    """Return the text with the tokens marked of which the model was not sure. A mark also shows without colours."""
    from rich.text import Text

    found, words = Text(), sure.reading.words
    if sure.reading.finish_reason == "eos":  # the stop token is no part of the text
        words = words[:-1]
    for word, probability in zip(words, sure.probability.tolist(), strict=False):
        found.append(word, next((style for limit, style in UNSURE.items() if probability < limit), ""))
    return found


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
    command.add_argument(
        "--confidence",
        action="store_true",
        help="mark tokens that the model was not sure of, red below 50 %% and yellow below 90 %%; with --json, give "
        "the probability, the entropy and three candidates of each token",
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument("--stream", action="store_true", help="show the text while it is written")
    output.add_argument("--json", action="store_true", help="print text, tokens, finish reason and timings as JSON")
