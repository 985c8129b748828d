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
    from PIL.Image import Image
    from rich.text import Text

    from lightseek.inspect.logits import Confidence

FORMATS = ("text", "markdown", "json", "boxes")
UNSURE = {0.5: "bold white on red", 0.9: "black on yellow"}  # a token below this probability is marked


def read(arguments: argparse.Namespace) -> int:
    """Print the text of each page on stdout, and its tokens and times on stderr.

    `--format` chooses what is printed instead. A text file is first drawn on as many pages as it needs in this mode.
    The texts of its pages are printed as one.
    A file or page that cannot be read is named on stderr, and the others are read; the exit code is then 2.
    """
    from lightseek.inspect.logits import confidence
    from lightseek.inspect.reading import reread
    from lightseek.page.grounding import without_tags
    from lightseek.page.render import check_file, is_text
    from lightseek.page.views import page_views
    from lightseek.text.decoding import NoRoom
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
    if arguments.out and arguments.format != "boxes":
        raise ValueError("--out is the folder for the pictures and tables of --format boxes")
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_p", "beams", "seed")}
    options["no_repeat_ngram"] = guard_of(arguments, model.tokenizer)
    as_json = arguments.format == "json"
    every = drawn()
    first = list(islice(every, 2))  # page 1 is read when page 2 is drawn, and not when all are
    titles = len(arguments.files) > 1 or (len(first) > 1 and not is_text(files[0]))
    results = []
    for path, number, picture, page in chain(first, every):
        if titles and arguments.format in ("text", "markdown"):
            print(f"--- {path}, page {number} ---", flush=True)
        decoder = model.tokenizer.stream(keep_special=True)
        if arguments.stream:
            options["on_token"] = lambda row, token, of=decoder: print(of.push(token), end="", flush=True)
        try:
            (result,) = read_pages(model, [page], prompt, arguments.mode, **options)
        except NoRoom as error:
            failures.tell(ValueError(f"{path}, page {number}: {error}"))
            continue
        sure = None
        if arguments.confidence and (result.tokens or result.finish_reason == "eos"):
            reading = reread(model, picture, page, arguments.mode, prompt, result.tokens, result.finish_reason)
            sure = confidence(reading)
        if arguments.format == "boxes":
            print_json(
                {"file": str(path), "page": number} | found_on(picture, result.text, path, number, arguments.out)
            )
        elif arguments.format == "markdown":
            print(without_tags(result.text))
        elif sure and not as_json:
            console.print(coloured(sure), soft_wrap=True)
        elif not as_json:
            print(decoder.flush() if arguments.stream else result.text)
        took, written = result.timings, len(result.tokens)
        say(
            f"{path}, page {number}: {written} tokens ({result.finish_reason}); encoder {took.encode:.2f} s, "
            f"prompt {took.prefill:.2f} s, text {took.decode:.2f} s = {took.tokens_per_second:.1f} tokens/s"
        )
        told = {"confidence": sure.rows()} if sure else {}
        results.append({"file": str(path), "page": number} | asdict(result) | told)
    if as_json:
        about = {"model": arguments.model or "nano", "mode": arguments.mode, "prompt": prompt}
        print_json(about | {"pages": results})
    return failures.code


def found_on(picture: "Image", text: str, path: Path, number: int, folder: Path | None) -> dict[str, Any]:
    """Return the regions and the tables of a page's text for JSON, and write their files into a folder if it is given.

    The name of each file begins with that of the document and the number of the page.
    """
    from lightseek.page.found_tables import as_csv, as_html, find_tables
    from lightseek.page.grounding import as_rows, cut_out, draw_regions, find_regions
    from lightseek.page.pictures import upright_rgb
    from lightseek.tools.files import atomic_write, write_text

    picture, (_, regions), tables = upright_rgb(picture), find_regions(text), find_tables(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        parts = [part for region in regions if region.label == "image" for part in cut_out(picture, region)]
        pictures = {"boxes": draw_regions(picture, regions)}
        pictures |= {f"image-{index}": part for index, part in enumerate(parts, 1)}
        for name, drawn in pictures.items():
            with atomic_write(folder / f"{path.stem}-{number}-{name}.png") as temporary:
                drawn.save(temporary, "PNG")
        for index, table in enumerate(tables, 1):
            write_text(folder / f"{path.stem}-{number}-table-{index}.csv", as_csv(table))
            write_text(folder / f"{path.stem}-{number}-table-{index}.html", as_html(table))
    return {"size": picture.size, "regions": as_rows(regions, picture.size), "tables": tables}


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
    output.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: as the model wrote it; markdown: without the tags of its regions; json: with tokens, finish reason "
        "and timings; boxes: one JSON line for each page, with its regions in pixels and its tables (default: text)",
    )
    output.add_argument("--json", action="store_const", dest="format", const="json", help="the same as --format json")
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="with --format boxes: a folder for the page with its boxes, the parts that are pictures, and the tables "
        "as CSV and HTML",
    )
