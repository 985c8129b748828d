"""`python -m lightseek extract`: prints JSON that satisfies a JSON schema, for each document."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from lightseek.commands.common import (
    Failures,
    Pages,
    add,
    add_files,
    add_input,
    add_model,
    add_post,
    full_prompt,
    open_model,
    print_json,
    say,
    writer_of,
)
from lightseek.text.kinds import IMAGE_TAG


def extract(arguments: argparse.Namespace) -> int:
    """Print one line of JSON for each file. All pages of a file are in one prompt.

    With `--post`, the pages are read one by one, and a second language model writes the JSON from their text.
    A file that cannot be used is named on stderr, and the exit code is then 2. This is also so if the token limit cuts
    the JSON.
    """
    from lightseek.page.render import check_file
    from lightseek.text.generate import read
    from lightseek.text.schema import JsonSchema
    from lightseek.tools.json_files import parse_json, read_json

    schema, failures, files = JsonSchema.of(read_json(arguments.schema)), Failures(), []
    for path in arguments.files:
        with failures.of(path):
            check_file(path)
            files.append(path)
    if not files:
        return failures.code
    writer, model, prompt = writer_of(arguments), open_model(arguments), full_prompt(arguments.prompt)
    if not prompt.startswith(IMAGE_TAG):
        raise ValueError(f"the pages come first, so {IMAGE_TAG} can only begin the prompt")
    words = prompt.removeprefix(IMAGE_TAG)
    for path in files:
        with failures.of(path):
            drawn = Pages(path, arguments, arguments.mode, model.config.letters)
            if len(drawn.numbers) > arguments.max_pages:
                say(f"{path}: only the first {arguments.max_pages} of {len(drawn.numbers)} pages are used")
            pages = [page.image for page in islice(drawn, arguments.max_pages)]
            most = arguments.max_new_tokens
            if writer is None:
                options: dict[str, Any] = {"max_new_tokens": most, "schema": schema, "no_repeat_ngram": None}
                (found,) = read(model, [pages], IMAGE_TAG * len(pages) + words, arguments.mode, **options)
                text, ended = found.text, found.finish_reason == "eos"
            else:
                from lightseek.text.post import write

                whole = "\n".join(
                    one.text or "" for one in read(model, pages, mode=arguments.mode, max_new_tokens=most)
                )
                text, ended, _ = write(writer, words.strip(), whole, schema, most)
            if not ended:
                raise ValueError(
                    f"the JSON was not complete after {most} tokens: raise --max-new-tokens, or bound the schema "
                    "(maxLength, maxItems, maximum)"
                )
            value = parse_json(text, "the answer")
            print_json(value if len(arguments.files) == 1 else {"file": str(path), "value": value})
    return failures.code


def add_parser(commands: Any) -> None:
    command = add(commands, extract, "print JSON that satisfies a JSON schema, from documents")
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="pictures, PDFs, texts or Markdown files; each gives one line",
    )
    command.add_argument("--schema", type=Path, required=True, metavar="FILE.json", help="the JSON schema")
    add_files(command)
    add_input(command)
    command.set_defaults(prompt="extract")
    add_model(command)
    command.add_argument(
        "--max-new-tokens", type=int, default=1024, metavar="N", help="the longest JSON, in tokens (default: 1024)"
    )
    command.add_argument(
        "--max-pages", type=int, default=8, metavar="N", help="the most pages of a file in one prompt (default: 8)"
    )
    add_post(command)
