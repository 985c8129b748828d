"""`python -m lightseek trace`: follows one page through the model, stage by stage."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.commands.common import (
    Pages,
    add,
    add_files,
    add_input,
    add_model,
    full_prompt,
    open_model,
    print_json,
    say,
    show,
)

if TYPE_CHECKING:
    from lightseek.page.render import RenderedPage


def trace(arguments: argparse.Namespace) -> None:
    """Run the model on one page, and print what each stage gave and cost."""
    import torch

    from lightseek.inspect.trace import trace as run
    from lightseek.page.views import image_positions, page_views
    from lightseek.text.prompts import prompt_ids

    page = pick_page(arguments)
    model = open_model(arguments)
    views = page_views(page.image, arguments.mode)
    count = image_positions(views, model.config.arithmetic)
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else page.text
    if model.tokenizer is None:
        say("this checkpoint has no tokenizer.json: the prompt is the page alone, without text")
        ids = [model.config.bos_token_id] + [model.config.image_token_id] * count
    else:
        ids = prompt_ids(
            model.config,
            model.tokenizer,
            full_prompt(arguments.prompt),
            [count],
        )
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
        print_json({"model": arguments.model or "nano", "file": str(arguments.file)} | result.to_json())
    else:
        show(result.table(inside=arguments.inside))


def pick_page(arguments: argparse.Namespace) -> "RenderedPage":
    path, number = arguments.file, arguments.page
    pages = Pages(path, arguments)
    if number not in pages.numbers:
        raise ValueError(f"{path} has {len(pages.numbers)} page(s), counted from 1: there is no page {number}")
    return pages.draw(number)


def add_parser(commands: Any) -> None:
    command = add(commands, trace, "one page through the model, stage by stage")
    command.add_argument("file", type=Path, metavar="FILE", help="a picture, PDF, text or Markdown file")
    command.add_argument(
        "--page", type=int, default=1, metavar="N", help="the number of the page in the file (default: 1)"
    )
    add_files(command, several=False)
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="a file with the text of the page, for the compression ratio"
    )
    add_input(command)
    add_model(command)
    command.add_argument("--inside", action="store_true", help="also show attention, MLP and router inside each block")
    command.add_argument("--cold", action="store_true", help="time the first pass, which includes one-time costs")
    command.add_argument(
        "--picture", type=Path, metavar="FILE", help="a PNG file for the time of each box and the load of each expert"
    )
    command.add_argument("--json", action="store_true", help="print everything as JSON")
